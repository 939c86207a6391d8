"""Whether a microscope's bookings are still those that somebody has read: a stamp that the database itself renews.

Every change of what the calendar tells of a booking gives its microscope (and the one that it was moved from) another
stamp, in the same transaction, whoever writes and in whatever way. Stamps are random and not counted, so that one
that was rolled back never comes again: two equal ones mean the same bookings, always. A microscope that never had a
booking has none.

What the calendar tells beside the columns below is no part of it: names, memberships, collaborators, for whom a slot
is open. Whoever adds a column to what is kept by the stamp adds it here, by a migration.

On PostgreSQL the stamp's row is locked until the transaction ends. Writers lock the microscope before its bookings
(services.lock_microscopes), so that none waits for another in a circle.
"""

from people.database import VendorSQL

TOLD = ["id", "microscope_id", "kind", "title", "start", '"end"', "owner_id", "operator_id", "creator_id"]
TOLD += ["lab_id", "series_id", "cancelled_at"]
_COLUMNS = ", ".join(TOLD)

# -- SQLite: per row -------------------------------------------------------------------------------------------
_NEW_STAMP = "lower(hex(randomblob(16)))"  # As Django writes a UUID there.


def _renew(microscope: str) -> str:
    # No upsert: SQLite takes the conflict clause of the statement that set off the trigger instead.
    return f"""
        UPDATE bookings_calendarstamp SET stamp = {_NEW_STAMP} WHERE microscope_id = {microscope};
        INSERT INTO bookings_calendarstamp (microscope_id, stamp) SELECT {microscope}, {_NEW_STAMP}
        WHERE NOT EXISTS (SELECT 1 FROM bookings_calendarstamp WHERE microscope_id = {microscope});
    """  # noqa: S608


def _trigger(name: str, event: str, *microscopes: str) -> str:
    body = "".join(map(_renew, microscopes))
    return f"CREATE TRIGGER {name} AFTER {event} ON bookings_booking BEGIN {body} END"


_SQLITE = {
    "booking_stamp_insert": ("INSERT", "NEW.microscope_id"),
    "booking_stamp_update": (f"UPDATE OF {_COLUMNS}", "OLD.microscope_id", "NEW.microscope_id"),
    "booking_stamp_delete": ("DELETE", "OLD.microscope_id"),
}

# -- PostgreSQL: per statement, so that many rows at once cost one stamp each microscope -------------------------
_FUNCTION = f"""
    CREATE OR REPLACE FUNCTION booking_stamp() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE
        touched bigint[];
    BEGIN
        IF TG_OP = 'INSERT' THEN
            touched := ARRAY(SELECT DISTINCT microscope_id FROM come);
        ELSIF TG_OP = 'DELETE' THEN
            touched := ARRAY(SELECT DISTINCT microscope_id FROM gone);
        ELSIF TG_OP = 'UPDATE' THEN
            touched := ARRAY(
                SELECT microscope_id FROM (SELECT {_COLUMNS} FROM gone EXCEPT SELECT {_COLUMNS} FROM come) AS were
                UNION
                SELECT microscope_id FROM (SELECT {_COLUMNS} FROM come EXCEPT SELECT {_COLUMNS} FROM gone) AS are
            );
        ELSE
            touched := ARRAY(SELECT microscope_id FROM bookings_calendarstamp);
        END IF;
        -- In the order of their ids, as everybody locks them.
        INSERT INTO bookings_calendarstamp (microscope_id, stamp)
        SELECT id, gen_random_uuid() FROM (SELECT unnest(touched) AS id ORDER BY id) AS ordered
        ON CONFLICT (microscope_id) DO UPDATE SET stamp = excluded.stamp;
        RETURN NULL;
    END $$
"""  # noqa: S608

_POSTGRESQL = {
    "booking_stamp_insert": "INSERT ON bookings_booking REFERENCING NEW TABLE AS come",
    "booking_stamp_update": "UPDATE ON bookings_booking REFERENCING OLD TABLE AS gone NEW TABLE AS come",
    "booking_stamp_delete": "DELETE ON bookings_booking REFERENCING OLD TABLE AS gone",
    "booking_stamp_truncate": "TRUNCATE ON bookings_booking",
}


# -- Both ------------------------------------------------------------------------------------------------------
def _renew_all(new_stamp: str) -> list[str]:
    """Also for changes while there were no triggers; a microscope with bookings always has a stamp."""
    return [
        f"UPDATE bookings_calendarstamp SET stamp = {new_stamp}",  # noqa: S608
        f"""
        INSERT INTO bookings_calendarstamp (microscope_id, stamp)
        SELECT microscope_id, {new_stamp} FROM (SELECT DISTINCT microscope_id FROM bookings_booking) AS booked
        WHERE microscope_id NOT IN (SELECT microscope_id FROM bookings_calendarstamp)
        """,  # noqa: S608
    ]


STAMPS = VendorSQL(
    install={
        "sqlite": [
            statement
            for name, (event, *microscopes) in _SQLITE.items()
            for statement in (f"DROP TRIGGER IF EXISTS {name}", _trigger(name, event, *microscopes))
        ]
        + _renew_all(_NEW_STAMP),
        "postgresql": [_FUNCTION]
        + [
            statement
            for name, event in _POSTGRESQL.items()
            for statement in (
                f"DROP TRIGGER IF EXISTS {name} ON bookings_booking",
                f"CREATE TRIGGER {name} AFTER {event} FOR EACH STATEMENT EXECUTE FUNCTION booking_stamp()",
            )
        ]
        + _renew_all("gen_random_uuid()"),
    },
    remove={
        "sqlite": [f"DROP TRIGGER IF EXISTS {name}" for name in _SQLITE],
        "postgresql": [f"DROP TRIGGER IF EXISTS {name} ON bookings_booking" for name in _POSTGRESQL]
        + ["DROP FUNCTION IF EXISTS booking_stamp()"],
    },
)
