"""No two bookings of one microscope overlap, slots and cancelled ones apart: kept by the database itself.

Half-open: a booking that ends at 12:00 and one that starts at 12:00 touch and are both fine.
"""

from people.database import VendorSQL

CONSTRAINT = "booking_no_overlap"

_CLASH = """
    SELECT 1 FROM bookings_booking AS other
    WHERE other.microscope_id = NEW.microscope_id AND other.id IS NOT NEW.id
      AND other.kind <> 'slot' AND other.cancelled_at IS NULL
      AND other.start < NEW."end" AND other."end" > NEW.start
"""


def _trigger(name: str, event: str) -> str:
    return f"""
        CREATE TRIGGER {name} BEFORE {event} ON bookings_booking
        WHEN NEW.kind <> 'slot' AND NEW.cancelled_at IS NULL
        BEGIN
            SELECT RAISE(ABORT, '{CONSTRAINT}') WHERE EXISTS ({_CLASH});
        END
    """


_UPDATED = 'UPDATE OF microscope_id, kind, start, "end", cancelled_at'

OVERLAP = VendorSQL(
    install={
        "sqlite": [
            "DROP TRIGGER IF EXISTS booking_no_overlap_insert",
            _trigger("booking_no_overlap_insert", "INSERT"),
            "DROP TRIGGER IF EXISTS booking_no_overlap_update",
            _trigger("booking_no_overlap_update", _UPDATED),
        ],
        "postgresql": [
            "CREATE EXTENSION IF NOT EXISTS btree_gist",
            f"""
            ALTER TABLE bookings_booking ADD CONSTRAINT {CONSTRAINT} EXCLUDE USING gist (
                microscope_id WITH =, tstzrange(start, "end", '[)') WITH &&
            ) WHERE (kind <> 'slot' AND cancelled_at IS NULL)
            """,
        ],
    },
    remove={
        "sqlite": [
            "DROP TRIGGER IF EXISTS booking_no_overlap_insert",
            "DROP TRIGGER IF EXISTS booking_no_overlap_update",
        ],
        "postgresql": [f"ALTER TABLE bookings_booking DROP CONSTRAINT IF EXISTS {CONSTRAINT}"],
    },
)


def is_overlap(error: Exception) -> bool:
    """Whether an IntegrityError says that bookings overlap."""
    return CONSTRAINT in str(error)
