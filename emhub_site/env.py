"""Settings from the environment, read strictly.

A misspelt boolean or number must stop the start and name the variable: a facility that writes
``DEBUG=flase`` would otherwise run something else than it believes.
"""

import contextlib
import datetime
import os
import re
import secrets
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

import environ
from django.core.exceptions import ImproperlyConfigured

BASE_DIR = Path(__file__).resolve().parent.parent

TRUE = {"1", "true", "yes", "on"}
FALSE = {"0", "false", "no", "off"}


def read_file() -> None:
    """Add what the file ``.env`` beside manage.py says (EMHUB_ENV_FILE names another); the environment wins.

    Raises ImproperlyConfigured if the file that EMHUB_ENV_FILE names is missing.
    """
    named = os.environ.get("EMHUB_ENV_FILE", "").strip()
    path = Path(named).expanduser() if named else BASE_DIR / ".env"
    if path.exists():
        environ.Env.read_env(path)
    elif named:
        raise ImproperlyConfigured(f"EMHUB_ENV_FILE={named}: there is no such file.")


def text(name: str, default: str = "") -> str:
    """The variable's text; an empty variable counts as not set."""
    return os.environ.get(name, "").strip() or default


def boolean(name: str, default: bool) -> bool:
    """True or False; raises ImproperlyConfigured naming the variable for any other word."""
    value = text(name).lower()
    if not value:
        return default
    if value in TRUE:
        return True
    if value in FALSE:
        return False
    raise ImproperlyConfigured(f"{name}={os.environ[name]!r} is neither true nor false. Write true or false.")


def integer(name: str, default: int, minimum: int | None = None, maximum: int | None = None) -> int:
    """A whole number within bounds; raises ImproperlyConfigured naming the variable otherwise."""
    value = text(name)
    if not value:
        return default
    try:
        number = int(value)
    except ValueError as error:
        raise ImproperlyConfigured(f"{name}={value!r} is not a whole number.") from error
    if (minimum is not None and number < minimum) or (maximum is not None and number > maximum):
        bounds = f"at least {minimum}" if maximum is None else f"between {minimum} and {maximum}"
        raise ImproperlyConfigured(f"{name}={value} is out of range: it must be {bounds}.")
    return number


def choice(name: str, default: str, choices: list[str]) -> str:
    """One of a few words, whatever its case; raises ImproperlyConfigured naming the variable otherwise."""
    value = text(name, default)
    for word in choices:
        if word.lower() == value.lower():
            return word
    raise ImproperlyConfigured(f"{name}={value!r} is none of {', '.join(choices)}.")


def name_pattern(name: str, default: str) -> str:
    """A pattern for sessions' names; raises ImproperlyConfigured naming the variable if it makes none.

    Fields: ``{microscope}`` (code), ``{date}`` (a datetime, with a format such as ``{date:%Y%m%d}``) and
    ``{n}`` (a counter, without which a second session would need the name of the first).
    """
    value = text(name, default)
    date = datetime.datetime(2026, 11, 22, 9, 30, tzinfo=datetime.UTC)
    try:
        first, second = (value.format(microscope="krios1", date=date, n=n) for n in (1, 2))
    except (KeyError, IndexError, ValueError, AttributeError) as error:
        raise ImproperlyConfigured(
            f"{name}={value!r} cannot be filled in: its fields are {{microscope}}, {{date}} and {{n}}."
        ) from error
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", first):
        raise ImproperlyConfigured(
            f"{name}={value!r} gives {first!r}: a name has letters, digits, - and _ and begins with a letter or digit."
        )
    if first == second:
        raise ImproperlyConfigured(f"{name}={value!r} has no {{n}}: every session would get the same name.")
    return value


def words(name: str, default: list[str] | None = None) -> list[str]:
    """A comma-separated list without empty parts."""
    value = text(name)
    return [word.strip() for word in value.split(",") if word.strip()] if value else list(default or [])


def site_url(name: str, *, hosts: list[str], scheme: str, port: int | None) -> str:
    """The site's own address without a slash at its end; raises ImproperlyConfigured for anything but http(s)."""
    value = text(name)
    if not value:
        host = next((host for host in hosts if not host.startswith((".", "*"))), "localhost")
        return f"{scheme}://{host}" + (f":{port}" if port else "")
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ImproperlyConfigured(
            f"{name}={value!r} is no site's address. Write one such as https://emhub.example.org."
        )
    return value.rstrip("/")


def folder(name: str, default: Path) -> Path:
    """A folder, made when missing; raises ImproperlyConfigured naming the variable if it cannot be used."""
    path = Path(text(name, str(default))).expanduser().resolve()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ImproperlyConfigured(f"{name}: the folder {path} cannot be made: {error.strerror}.") from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise ImproperlyConfigured(f"{name}: the folder {path} may not be written to.")
    return path


def secret_key(data_dir: Path, *, may_generate: bool) -> str:
    """SECRET_KEY, or for the embedded default one generated once and kept in the data folder (mode 0600)."""
    value = text("SECRET_KEY")
    if value:
        return value
    if not may_generate:
        raise ImproperlyConfigured(
            "Set SECRET_KEY: with DATABASE_URL set this is a production site, and its key must be the same in "
            "every process and survive a new data folder."
        )
    path = data_dir / "secret_key"
    if not path.exists():
        # Written beside and linked into place: of several processes that start at once all read one whole key.
        with tempfile.NamedTemporaryFile("w", dir=data_dir, prefix=".secret_key-") as file:  # Mode 0600.
            file.write(secrets.token_urlsafe(50))
            file.flush()
            os.fsync(file.fileno())
            with contextlib.suppress(FileExistsError):
                os.link(file.name, path)
    key = path.read_text().strip()
    if len(key) < 50:
        raise ImproperlyConfigured(f"{path} holds no key. Delete it, and all will have to log in again.")
    return key
