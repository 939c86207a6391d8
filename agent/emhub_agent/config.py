"""The configuration file: which projects are watched for which sessions of which site.

    site = "https://emhub.example.org"
    token_file = "/etc/emhub-agent/token"

    [[watch]]
    program = "relion"
    place = "/data/{microscope}/{session}/relion"

A watch names its session, or leaves it out: then it stands for every session that runs on the token's
microscopes, and its place says where each one's files are. Everything is checked before anything is started,
and every problem is named.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .pictures import Pace
from .readers import READERS
from .readers.base import Reader, nearest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

TOKEN = "EMHUB_TOKEN"

#: What a place may hold in braces, where the watch stands for whatever session is found.
PLACEHOLDERS = ("session", "microscope", "data_path", "date")

#: What each part of the file may have, and what its value has to be.
TOP = {
    "site": str,
    "token_file": str,
    "token_env": str,
    "interval": float,
    "pictures": bool,
    "pictures_per_minute": float,
    "finished_days": float,
    "watch": list,
}
WATCH = {
    "program": str,
    "place": str,
    "session": str,
    "key": str,
    "microscopes": list,
    "interval": float,
    "pictures": bool,
    "pictures_per_minute": float,
    "settings": dict,
}
WORDS = {
    str: "text in quotes",
    float: "a number",
    bool: "true or false",
    list: "a list",
    dict: "a table",
}
INTERVAL = (0.1, 86_400.0)
PACE = (0.1, 100_000.0)
_BRACES = re.compile(r"\{([^{}]*)\}")


class ConfigError(Exception):
    """The configuration cannot be used; ``problems`` names all that is wrong with it, a sentence each."""

    def __init__(self, problems: list[str]):
        super().__init__(" ".join(problems))
        self.problems = problems


@dataclass(frozen=True)
class Watch:
    """One project that is watched for one session, or (``session`` None) for every one that is found."""

    program: str
    place: str
    session: str | None = None
    key: str | None = None
    microscopes: tuple[str, ...] = ()  # codes; of sessions that are found, none: all that the token sees
    interval: float = 10.0  # seconds between two looks
    pictures: bool = True
    pictures_per_minute: float = 300.0
    settings: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def reader(self) -> Reader:
        """Raises ReaderError where there is nothing to read (yet)."""
        return READERS[self.program](self.place, key=self.key, settings=dict(self.settings))

    def pace(self) -> Pace:
        """How fast pictures are made: never with more than half of a core."""
        return Pace(self.pictures_per_minute, share=0.5)

    @property
    def identity(self) -> tuple:
        """What no two watches share."""
        return (self.program, self.place, self.session, self.key)

    def __str__(self) -> str:
        return f"{self.program} {self.place}"


@dataclass(frozen=True)
class Config:
    """A whole configuration. The token itself is read when it is needed, so that a new one counts at once."""

    site: str
    watches: tuple[Watch, ...]
    token_file: str | None = None
    token_env: str = TOKEN
    finished_days: float = 2.0  # sessions that ended so many days ago or less are still found

    def token(self) -> str:
        """Raises ConfigError where there is none."""
        if self.token_file is None:
            text = os.environ.get(self.token_env, "").strip()
            if not text:
                raise ConfigError(
                    [
                        f"There is no token: set the environment variable {self.token_env} to a pipeline "
                        "token of the site, or name a file that holds one as token_file. The facility's "
                        "staff make them."
                    ]
                )
            return text
        try:
            with open(self.token_file, encoding="utf-8") as handle:
                text = handle.read(10_000).strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                [f"token_file: {self.token_file} cannot be read ({_reason(error)})."]
            ) from error
        if not text:
            raise ConfigError([f"token_file: {self.token_file} is empty."])
        return text


def load(path: str) -> Config:
    """Read a configuration file. Raises ConfigError with everything that is wrong in it.

    A path in it that is not absolute is relative to the file's folder.
    """
    try:
        with open(path, "rb") as handle:
            found = tomllib.load(handle)
    except OSError as error:
        raise ConfigError([f"{path} cannot be read: {_reason(error)}."]) from error
    except UnicodeDecodeError as error:
        raise ConfigError([f"{path} is not UTF-8 text."]) from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([f"{path} is not TOML: {error}."]) from error
    return parse(found, os.path.dirname(os.path.abspath(path)))


def parse(found: Mapping[str, Any], folder: str = "") -> Config:
    """As ``load``, from what the file holds."""
    problems: list[str] = []
    top = _checked(found, TOP, "", problems)
    site = top.get("site", "")
    if "site" not in found:
        problems.append('site is missing: the address of EMhub as in the browser, site = "https://...".')
    elif not site.strip() and isinstance(found["site"], str):
        problems.append("site is empty.")
    if "token_file" in top and "token_env" in top:
        problems.append("Give token_file or token_env, not both.")
    default = {
        "interval": _in_range(top.get("interval", 10.0), INTERVAL, "interval", problems),
        "pictures": top.get("pictures", True),
        "pictures_per_minute": _in_range(
            top.get("pictures_per_minute", Watch.pictures_per_minute), PACE, "pictures_per_minute", problems
        ),
    }
    days = _in_range(top.get("finished_days", 2.0), (0.0, 3650.0), "finished_days", problems)
    watches = []
    if not top.get("watch") and "watch" not in found:
        problems.append("There is no [[watch]]: nothing would be followed.")
    for number, table in enumerate(top.get("watch", ()), 1):
        where = f"watch {number}"
        if not isinstance(table, dict):
            problems.append(f"{where} is not a table: write [[watch]] above its lines.")
            continue
        before = len(problems)
        watch = _watch(table, where, default, folder, problems)
        if len(problems) == before:
            watches.append(watch)
    seen: dict[tuple, int] = {}
    for number, watch in enumerate(watches, 1):
        if watch.identity in seen:
            problems.append(f"watch {number} is the same as watch {seen[watch.identity]}.")
        seen.setdefault(watch.identity, number)
    if problems:
        raise ConfigError(problems)
    token_file = top.get("token_file")
    return Config(
        site=site,
        watches=tuple(watches),
        token_file=os.path.join(folder, os.path.expanduser(token_file)) if token_file else None,
        token_env=top.get("token_env", TOKEN),
        finished_days=days,
    )


def _watch(table: dict[str, Any], where: str, default: dict, folder: str, problems: list[str]) -> Watch:
    values = _checked(table, WATCH, where, problems)
    program = values.get("program")
    if "program" not in table:
        problems.append(f"{where}: program is missing: one of {', '.join(READERS)}.")
    elif program is not None and program not in READERS:
        problems.append(f"{where}: there is no program {program}{nearest(program, READERS)}.")
    place = values.get("place", "")
    if not place.strip() and ("place" not in table or "place" in values):
        problems.append(f"{where}: place is missing: the folder, file or address to read.")
    held = _BRACES.findall(place)
    for name in held:
        if name not in PLACEHOLDERS:
            problems.append(
                f"{where}: place has {{{name}}}, which nothing fills in{nearest(name, PLACEHOLDERS)}."
            )
    session = values.get("session")
    if session is not None and held:
        problems.append(f"{where}: place has {{{held[0]}}}, but the session is given; leave one of them out.")
    if session is not None and not session.strip():
        problems.append(f"{where}: session is empty; leave it out to follow every session that runs.")
    if session is None and not {"session", "data_path"} & set(held) and place:
        problems.append(
            f"{where}: give the session, or a place with {{session}} or {{data_path}} in it to follow every "
            "session that runs."
        )
    if session is not None and "microscopes" in values:
        problems.append(f"{where}: microscopes says which sessions to find, but the session is given.")
    for code in values.get("microscopes", ()):
        if not isinstance(code, str):
            problems.append(f"{where}: microscopes is a list of codes, text in quotes each.")
            break
    settings = values.get("settings", {})
    reader = READERS.get(program or "")
    for name in settings if reader else ():
        if name not in reader.SETTINGS:
            problems.append(f"{where}: {program} has no setting {name}{nearest(name, reader.SETTINGS)}.")
    return Watch(
        program=program or "",
        place=_placed(place, folder),
        session=session,
        key=values.get("key"),
        microscopes=tuple(str(code) for code in values.get("microscopes", ())),
        interval=_in_range(
            values.get("interval", default["interval"]), INTERVAL, f"{where}: interval", problems
        ),
        pictures=values.get("pictures", default["pictures"]),
        pictures_per_minute=_in_range(
            values.get("pictures_per_minute", default["pictures_per_minute"]),
            PACE,
            f"{where}: pictures_per_minute",
            problems,
        ),
        settings=settings,
    )


def _placed(place: str, folder: str) -> str:
    """A place on disk as an absolute path; addresses and {data_path}, which is one, stay as they are."""
    if "://" in place or place.startswith("{data_path}"):
        return place
    return os.path.join(folder, os.path.expanduser(place))


def _checked(found: Mapping[str, Any], known: Mapping[str, type], where: str, problems: list[str]) -> dict:
    """Return the values that are known and of the right kind; the others become problems."""
    values = {}
    prefix = f"{where}: " if where else ""
    for name, value in found.items():
        if name not in known:
            problems.append(f"{prefix}there is no {name}{nearest(name, known)}.")
            continue
        kind = known[name]
        if kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
            value = float(value)
        if not isinstance(value, kind):
            problems.append(f"{prefix}{name} must be {WORDS[kind]}.")
            continue
        values[name] = value
    return values


def _in_range(value: float, limits: tuple[float, float], name: str, problems: list[str]) -> float:
    if not limits[0] <= value <= limits[1]:
        problems.append(f"{name} must be between {limits[0]:g} and {limits[1]:g}.")
    return value


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or type(error).__name__
