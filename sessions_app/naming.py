"""Names of sessions: made by the facility's pattern, unique ignoring case, never changed and never reused.

Every name ever given stands in `SessionName`, filled by a database trigger on each insert of a session, so that
no way of writing can give a name twice, not even after its session was deleted.
"""

import datetime
import re

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.utils import timezone

from people.database import VendorSQL

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
LEDGER_CONSTRAINT = "session_name_never_reused"
UNCHANGED_CONSTRAINT = "session_name_never_changed"

NAME_LEDGER = VendorSQL(
    install={
        "sqlite": [
            "DROP TRIGGER IF EXISTS session_name_ledger",
            f"""
            CREATE TRIGGER session_name_ledger BEFORE INSERT ON sessions_app_session
            BEGIN
                SELECT RAISE(ABORT, '{LEDGER_CONSTRAINT}') WHERE EXISTS (
                    SELECT 1 FROM sessions_app_sessionname WHERE key = lower(NEW.name)
                );
                INSERT INTO sessions_app_sessionname (key) VALUES (lower(NEW.name));
            END
            """,  # noqa: S608
            "DROP TRIGGER IF EXISTS session_name_unchanged",
            f"""
            CREATE TRIGGER session_name_unchanged BEFORE UPDATE OF name ON sessions_app_session
            WHEN NEW.name <> OLD.name
            BEGIN
                SELECT RAISE(ABORT, '{UNCHANGED_CONSTRAINT}');
            END
            """,
        ],
        "postgresql": [
            f"""
            CREATE OR REPLACE FUNCTION session_name_ledger() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN
                IF TG_OP = 'UPDATE' THEN
                    IF NEW.name <> OLD.name THEN
                        RAISE EXCEPTION '{UNCHANGED_CONSTRAINT}' USING ERRCODE = 'integrity_constraint_violation';
                    END IF;
                    RETURN NEW;
                END IF;
                BEGIN
                    INSERT INTO sessions_app_sessionname (key) VALUES (lower(NEW.name));
                EXCEPTION WHEN unique_violation THEN
                    RAISE EXCEPTION '{LEDGER_CONSTRAINT}' USING ERRCODE = 'unique_violation';
                END;
                RETURN NEW;
            END $$
            """,  # noqa: S608
            """
            CREATE TRIGGER session_name_ledger BEFORE INSERT OR UPDATE OF name ON sessions_app_session
            FOR EACH ROW EXECUTE FUNCTION session_name_ledger()
            """,
        ],
    },
    remove={
        "sqlite": [
            "DROP TRIGGER IF EXISTS session_name_ledger",
            "DROP TRIGGER IF EXISTS session_name_unchanged",
        ],
        "postgresql": [
            "DROP TRIGGER IF EXISTS session_name_ledger ON sessions_app_session",
            "DROP FUNCTION IF EXISTS session_name_ledger()",
        ],
    },
)


def is_name_conflict(error: Exception) -> bool:
    """Whether an IntegrityError says that a session's name was given before."""
    return LEDGER_CONSTRAINT in str(error) or "session_name_unique_ignoring_case" in str(error)


def session_name(microscope_code: str, start: datetime.datetime, n: int) -> str:
    """The facility's pattern filled in; raises ImproperlyConfigured if that gives no valid name."""
    try:
        name = settings.SESSION_NAME_PATTERN.format(
            microscope=microscope_code, date=timezone.localtime(start), n=n
        )
    except (KeyError, IndexError, ValueError) as error:
        raise ImproperlyConfigured(f"SESSION_NAME_PATTERN cannot be filled in: {error}.") from error
    if not NAME.fullmatch(name):
        raise ImproperlyConfigured(
            f"SESSION_NAME_PATTERN gives {name!r}: a name has letters, digits, - and _ and begins with a letter "
            "or digit."
        )
    return name


def next_name(microscope, start: datetime.datetime) -> str:
    """The first name of the pattern never given before. Only a proposal until the session is inserted."""
    from sessions_app.models import SessionName

    first, second = session_name(microscope.code, start, 1), session_name(microscope.code, start, 2)
    if first == second:
        raise ImproperlyConfigured(
            "SESSION_NAME_PATTERN has no {n}: a second session would need the same name."
        )
    n, step = 1, 64
    while True:
        names = {session_name(microscope.code, start, k).lower(): k for k in range(n, n + step)}
        taken = set(SessionName.objects.filter(key__in=names).values_list("key", flat=True))
        for key, k in names.items():
            if key not in taken:
                return session_name(microscope.code, start, k)
        n, step = n + step, step * 4
