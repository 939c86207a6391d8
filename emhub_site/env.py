"""Settings from the environment, read strictly.

A misspelt boolean or number must stop the start and name the variable: a facility that writes
``DEBUG=flase`` would otherwise run something else than it believes.
"""

import os
import secrets
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured

TRUE = {"1", "true", "yes", "on"}
FALSE = {"0", "false", "no", "off"}


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


def words(name: str, default: list[str] | None = None) -> list[str]:
    """A comma-separated list without empty parts."""
    value = text(name)
    return [word.strip() for word in value.split(",") if word.strip()] if value else list(default or [])


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
    data_dir.mkdir(parents=True, exist_ok=True)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        key = path.read_text().strip()
        if not key:
            raise ImproperlyConfigured(f"{path} is empty. Delete it and start again.") from None
        return key
    with os.fdopen(handle, "w") as file:
        key = secrets.token_urlsafe(50)
        file.write(key)
    return key
