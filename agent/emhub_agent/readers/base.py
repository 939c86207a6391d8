"""What every reader gives: the state of a program's runs, as news since the last look.

A reader knows one program's files and nothing of the site; what it finds is described in the words of the
site's REST contract. It never writes into what it reads, and follows no link out of it unless told
(``Folder``). To add a program, write a module with a ``Reader`` subclass here and name it in ``READERS``.
"""

from __future__ import annotations

import difflib
import logging
import os
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Callable, ClassVar


class ReaderError(Exception):
    """The place given is not what the reader reads; the message is a sentence for who started it."""


class Deferred(ABC):
    """Values that are read from their file only when they are sent, so that thousands need no memory.

    Two of them are equal when they stand for the same state of the same file.
    """

    __slots__ = ()

    @abstractmethod
    def load(self) -> dict[str, Any]:
        """Return the fields. Raises OSError or ValueError where the file cannot be read."""


@dataclass
class Picture:
    """An image to be made: of a micrograph, its power spectrum, or one class average of a stack.

    What is not a file here is fetched: ``fetch`` returns a picture's bytes (MRC, TIFF, PNG, JPEG) and raises
    OSError or ValueError where there are none; ``path`` is then only its name in the log.
    """

    kind: str  # micrograph, psd or class_average
    path: str
    micrograph: str | None = None
    job: str | None = None
    iteration: int | None = None
    number: int | None = None  # counted from 1; also the section in the stack, unless that is given
    section: int | None = None  # of a stack, counted from 1
    fetch: Callable[[], bytes] | None = field(default=None, compare=False)

    @property
    def identity(self) -> tuple:
        """What the site knows the picture by."""
        if self.kind == "class_average":
            return (self.kind, self.job, self.iteration, self.number)
        return (self.kind, self.micrograph)


class Pictures:
    """The micrographs' pictures that are still to be given, by kind and name, the newest first.

    Of those whose file is not there when it is looked for the newest are looked for at every further look.
    """

    #: So many files at most that come after their row are waited for.
    AWAITED = 500
    #: So many files at most are looked for at one look.
    LOOKED_FOR = 5000

    def __init__(self) -> None:
        self._todo: list[tuple[str, str]] = []
        self._awaited: deque[tuple[str, str]] = deque(maxlen=self.AWAITED)

    def __len__(self) -> int:
        return len(self._todo)

    def add(self, kind: str, name: str) -> None:
        self._todo.append((kind, name))

    def clear(self) -> None:
        self._todo.clear()
        self._awaited.clear()

    def take(self, room: int, path_of: Callable[[str, str], str | None]) -> list[Picture]:
        """Return as many as there is room for, the newest last because they are sent first.

        ``path_of`` gives the path of a picture's file, "" while it is not there, None for one that is never
        to be drawn.
        """
        found: list[Picture] = []
        again, left = len(self._awaited), self.LOOKED_FOR
        while len(found) < room and (again or (self._todo and left)):
            if again:
                again -= 1
                kind, name = self._awaited.popleft()
            else:
                left -= 1
                kind, name = self._todo.pop()
            path = path_of(kind, name)
            if path:
                found.append(Picture(kind, path, micrograph=name))
            elif path is not None:
                self._awaited.append((kind, name))
        return found[::-1]


@dataclass
class ClassSet:
    """The 2D classes of one iteration: rows with number, particles and resolution (Å, None where unknown)."""

    job: str
    iteration: int
    classes: list[dict[str, Any]]


@dataclass
class Event:
    """A message of the pipeline for the people who watch."""

    level: str  # info, warning or error
    text: str
    at: str | None = None  # ISO 8601 with offset


@dataclass
class RunNews:
    """What is new in one run since the last look; on the first look everything.

    ``micrographs`` maps the movie's name, as the program knows it, to the fields that are new or changed
    (None clears one); values may be ``Deferred``. ``info`` holds the run's own fields and is always complete.
    """

    key: str
    info: dict[str, Any]
    status: str
    micrographs: dict[str, dict[str, Any]] = field(default_factory=dict)
    classes: list[ClassSet] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)


@dataclass
class SessionNews:
    """What is new in the acquisition itself; only a watcher of the microscope's folder tells it.

    ``fields`` are the session's own (acquisition and data counters, named as the REST contract names them)
    and always complete; ``exposures`` maps the movie's name to the fields that are new or changed since the
    last look.

    A field in ``fill`` is only written where the site has nothing, or one of the values given with it (which
    the reader itself may have told before): what people corrected stays. One in ``never_lower`` (a number, or
    a time in ISO 8601) is not written where the site has more.
    """

    fields: dict[str, Any]
    exposures: dict[str, dict[str, Any]] = field(default_factory=dict)
    fill: Mapping[str, Collection[Any]] = field(default_factory=dict)
    never_lower: tuple[str, ...] = ()


class OutsideError(PermissionError):
    """A path leads out of the folder that is read, and nobody allowed that."""


class Folder:
    """The folder a reader reads, and the way to what is in it.

    ``follow_links`` allows links that lead out of it; without, only what really lies inside is opened.
    """

    def __init__(self, path: str, follow_links: bool = False):
        self.root = os.path.abspath(path)
        self.follow_links = follow_links
        self._real = os.path.realpath(path)

    def path(self, name: str) -> str:
        """Return the absolute path of a name relative to the folder, or of an absolute one within it.

        Raises OutsideError where it leads out.
        """
        full = os.path.join(self.root, name)
        if not self.follow_links:
            real = os.path.realpath(full)
            if real != self._real and not real.startswith(self._real.rstrip(os.sep) + os.sep):
                raise OutsideError(f"{name} lies outside of {self.root}, and links are not followed")
        return full


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the known name that was probably meant, else all there are, as the end of a sentence."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if close:
        return f"; the nearest is {close[0]}"
    return f"; there is {', '.join(known)[:500]}" if known else "; there are none"


def flag(settings: Mapping[str, Any], name: str, default: bool = False) -> bool:
    """Return a setting that is true or false. Raises ReaderError where it is neither."""
    value = settings.get(name, default)
    if not isinstance(value, bool):
        raise ReaderError(f"The setting {name} is {value!r}; it must be true or false.")
    return value


#: So many complaints are remembered; months of looks must fill neither memory nor the log.
MOST_COMPLAINTS = 10_000


class Complaints:
    """Logs what is wrong with a file, each thing once."""

    def __init__(self, log: logging.Logger):
        self._log = log
        self._said: set[tuple[str, str]] = set()

    def __call__(self, name: str, reason: object) -> None:
        """``reason`` is an error, of which the system's own words are enough, or a sentence."""
        text = getattr(reason, "strerror", None) or str(reason)
        if (name, text) not in self._said:
            if len(self._said) >= MOST_COMPLAINTS:
                self._said.clear()
            self._said.add((name, text))
            self._log.warning("%s: %s", name, text)


class Reader(ABC):
    """Follows one project on disk, or one session of a program's own server.

    ``place`` says where it is (a folder, a file or an address), ``key`` what its runs are known by on the
    site (None: the reader's own choice), ``settings`` what the configuration says for this program alone;
    the reader refuses a setting it does not know, by name, with a ReaderError.
    """

    #: The program's name as people write it.
    software = ""

    #: The settings this program's part of the configuration may have, each with a sentence for the help.
    SETTINGS: ClassVar[Mapping[str, str]] = {}

    #: Whether there will be further looks, so that what is not certain yet may wait for one.
    is_patient = True
    #: For how many more pictures there is room, set before each look; a reader of many may keep the rest ...
    room = 1000
    #: ... and says here how many it keeps.
    backlog = 0

    @abstractmethod
    def __init__(self, place: str, key: str | None = None, settings: Mapping[str, Any] | None = None):
        """Raises ReaderError where the place or a setting is not right."""

    @classmethod
    def checked(cls, settings: Mapping[str, Any] | None) -> dict[str, Any]:
        """Return the settings as a dictionary. Raises ReaderError for one that the reader does not have."""
        for name in settings or ():
            if name not in cls.SETTINGS:
                raise ReaderError(f"There is no setting {name}{nearest(name, cls.SETTINGS)}.")
        return dict(settings or {})

    def resume(self, session: Mapping[str, Any]) -> None:  # noqa: B027 (most readers need not know)
        """Be told before the first look what the site has of the session, by the REST contract's names."""

    @abstractmethod
    def look(self) -> Sequence[RunNews | SessionNews]:
        """Return every run, and the session where it is watched, with what is new in it.

        Cheap when no file has changed.

        A file that cannot be read is left for the next look, with a warning in the log.
        """

    def loading(self) -> AbstractContextManager[Any]:
        """Return what is entered around the loading of a batch's ``Deferred`` values.

        A reader whose values lie together in one file may keep it open within.
        """
        return nullcontext()

    @abstractmethod
    def forget(self, key: str) -> None:
        """Tell everything about this run again at the next look (the site has lost it)."""


Signature = tuple[int, int]


def signature(path: str) -> Signature | None:
    """Return what changes when a file does (time of change in ns, bytes), or None without the file."""
    try:
        stat = os.stat(path)
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size
