"""CryoSPARC Live, asked through the vendor's own library, cryosparc-tools (the extra ``cryosparc``).

Version 5 is asked for its sessions and for the exposures that changed since the last look. Version 4 has no
published call for exposures: its sessions are asked for, and the exposures are read from the file the server
leaves in the session's folder (``S1/exposures.bson``), as often as it writes it.

Units as the vendor's models give them: defocus and fit in Å, angles of ``ctf`` in radians, total motion in
pixels of the movie. Every session is a run of its own.
"""

from __future__ import annotations

import hashlib
import io
import logging
import math
import os
import posixpath
import socket
import tempfile
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import Any, ClassVar
from urllib.parse import urlsplit

import numpy as np

from .. import bson, cs
from .base import ClassSet, Deferred, Event, Picture, Reader, ReaderError, RunNews, flag
from .cryosparc import MOST_PICKS, movie_name, name_of_micrograph

log = logging.getLogger(__name__)

PASSWORD, EMAIL, LICENSE = "CRYOSPARC_PASSWORD", "CRYOSPARC_EMAIL", "CRYOSPARC_LICENSE_ID"

#: Exposures in one answer.
PAGE = 100
#: So much before the last change known is asked for again: changes may be seen in another order than made.
OVERLAP = timedelta(seconds=10)
LATEST = datetime(2200, 1, 1, tzinfo=timezone.utc)
#: Failures of so many exposures are told one by one.
TOLD_FAILURES = 20

STATUSES = {
    "running": "running",
    "paused": "stopped",
    "completed": "finished",
    "compacting": "finished",
    "compacted": "finished",
    "restoring": "finished",
    "restoration_failed": "finished",
}
UNSEEN = ("go_to_found", "found", "check")
PICKERS = ("template", "blob", "manual")


class Trouble(Exception):
    """The server gives no answer that can be used; the message is a sentence."""


class Server(ABC):
    """What is asked of a CryoSPARC server, whatever its version."""

    version = ""
    #: Whether asking for what changed costs nothing where nothing has.
    tells_changes = False

    @abstractmethod
    def sessions(self, project: str) -> list[dict[str, Any]]:
        """Return the Live sessions of a project. Raises Trouble."""

    @abstractmethod
    def exposures(
        self, project: str, session: dict[str, Any], since: datetime | None
    ) -> Iterator[dict[str, Any]]:
        """Yield the exposures of a session that changed since then; all of them for None. Raises Trouble."""

    @abstractmethod
    def file(self, project: str, path: str) -> bytes:
        """Return a file of the project's folder. Raises OSError."""

    @abstractmethod
    def asset(self, name: str) -> bytes:
        """Return a picture that the server keeps. Raises OSError."""


class Version5(Server):
    tells_changes = True

    def __init__(self, tools: Any, url: str, email: str | None, password: str | None):
        # What the environment says of another server would contradict the address given.
        self.cs = tools.CryoSPARC(url, host=None, base_port=None, email=email, password=password, timeout=60)
        self.version = str(self.cs.api.config.get_version() or "").lstrip("v")

    def sessions(self, project: str) -> list[dict[str, Any]]:
        return list(self._pages(self.cs.api.sessions.find, project_uid=[project]))

    def exposures(
        self, project: str, session: dict[str, Any], since: datetime | None
    ) -> Iterator[dict[str, Any]]:
        chosen: dict[str, Any] = {"project_uid": [project], "session_uid": [session["session_uid"]]}
        if since is not None:
            chosen["updated_at"] = [since - OVERLAP, LATEST]
        yield from self._pages(self.cs.api.exposures.find, **chosen)
        if since is not None:
            yield from self._pages(self.cs.api.exposures.find, deleted=True, **chosen)

    def _pages(self, find: Any, **chosen: Any) -> Iterator[dict[str, Any]]:
        after = None
        while True:
            found = _asked(partial(find, order=1, after=after, limit=PAGE, **chosen))
            for document in found:
                yield document.model_dump(by_alias=True)
            if len(found) < PAGE or found[-1].id == after:
                return
            after = found[-1].id

    def file(self, project: str, path: str) -> bytes:
        return _saved(partial(self.cs.download_file, project, path))

    def asset(self, name: str) -> bytes:
        return _saved(lambda target: self.cs.api.assets.download(name).save(target))


class Version4(Server):
    def __init__(self, tools: Any, url: str, email: str | None, password: str | None, license_id: str | None):
        if not license_id:
            raise ReaderError(
                f"CryoSPARC 4 wants its licence: set the environment variable {LICENSE}, "
                "or license_file to a file that holds it."
            )
        parts = urlsplit(url)
        self.cs = tools.CryoSPARC(
            license=license_id,
            host=parts.hostname or "localhost",
            base_port=parts.port or 39000,
            email=email or "",
            password=password or "",
            timeout=60,
        )
        self.version = str(self.cs.cli.get_running_version() or "").lstrip("v")

    def sessions(self, project: str) -> list[dict[str, Any]]:
        found = _asked(partial(self.cs.rtp.get_all_sessions_in_project, project))
        return [
            session for session in found or [] if isinstance(session, dict) and not session.get("deleted")
        ]

    def exposures(
        self, project: str, session: dict[str, Any], since: datetime | None
    ) -> Iterator[dict[str, Any]]:
        folder = session.get("session_dir") or session["session_uid"]
        try:
            data = self.file(project, f"{folder}/exposures.bson")
            found = bson.documents(data)
        except (OSError, ValueError) as error:
            raise Trouble(f"the exposures of {session['session_uid']} are not there yet ({error})") from error
        for document in found:
            rows = document.get("exposures")
            yield from (row for row in rows if isinstance(row, dict)) if isinstance(rows, list) else ()

    def file(self, project: str, path: str) -> bytes:
        return _saved(partial(self.cs.download_file, project, path))

    def asset(self, name: str) -> bytes:
        return _saved(partial(self.cs.download_asset, name))


def _saved(save: Any) -> bytes:
    """Return what the library saves into the file it is given. Raises OSError."""
    target = io.BytesIO()
    try:
        _asked(partial(save, target))
    except Trouble as error:
        raise OSError(str(error)) from error
    return target.getvalue()


def _asked(call: Any) -> Any:
    """Make a call of the vendor's library; whatever goes wrong in it is Trouble, told without its secrets."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of every attempt; what comes of them is told once
        try:
            return call()
        except Exception as error:
            code = getattr(error, "code", None)
            what = f"answer {code}" if isinstance(code, int) else type(error).__name__
            raise Trouble(f"{what} from the CryoSPARC server") from error


def connect(url: str, email: str | None, password: str | None, license_id: str | None) -> Server:
    """Raises ReaderError without the vendor's library or with a wrong password, Trouble without an answer."""
    # A server that restarts is asked again at the next look, not waited for here.
    os.environ.setdefault("CRYOSPARC_COMMAND_RETRY_SECONDS", "2")
    try:
        import cryosparc
        from cryosparc import tools
    except ImportError as error:
        raise ReaderError(
            "CryoSPARC Live is read through cryosparc-tools, which is not installed. Install the agent with "
            "its extra, pip install 'emhub-agent[cryosparc]', in the version of your CryoSPARC server."
        ) from error
    major = str(getattr(cryosparc, "__version__", "5")).split(".")[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            if major == "4":
                return Version4(tools, url, email, password, license_id)
            return Version5(tools, url, email, password)
        except ReaderError:
            raise
        except (ValueError, AssertionError) as error:
            if "license" in str(error):
                # Its message holds the licence, so it is not repeated.
                raise ReaderError(
                    f"{LICENSE}, or the file named in license_file, holds no licence."
                ) from None
            if isinstance(error, AssertionError) or "authentication" in str(error):
                raise ReaderError(_no_password()) from error
            raise Trouble(f"CryoSPARC at {url} gives no answer that can be read") from error
        except Exception as error:
            cause: BaseException | None = error
            while cause is not None:
                if getattr(cause, "code", None) in (400, 401, 403):
                    raise ReaderError(f"CryoSPARC at {url} refuses this e-mail and password.") from error
                cause = cause.__cause__
            reason = type(error.__cause__ or error).__name__
            raise Trouble(f"CryoSPARC at {url} does not answer ({reason})") from error


def _no_password() -> str:
    return (
        f"CryoSPARC wants an e-mail and a password: set the environment variables {EMAIL} and {PASSWORD}, or "
        "password_file to a file that holds the password."
    )


class Coordinates(Deferred):
    """The picks of one exposure, fetched from the server when they are sent; their number is known before."""

    __slots__ = ("count", "path", "reader", "shape", "uid")

    def __init__(
        self, reader: CryosparcLiveReader, uid: tuple[str, int], count: int, path: str, shape: tuple[int, int]
    ):
        self.reader, self.uid, self.count, self.path, self.shape = reader, uid, count, path, shape

    def _key(self) -> tuple:
        return (self.count, self.path, self.shape)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Coordinates) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def load(self) -> dict[str, Any]:
        found: dict[str, Any] = {"particles": self.count}
        try:
            points = picked(self.reader.fetch_file(self.path), self.shape)
        except (OSError, ValueError) as error:
            # Not cleared: what the site has of an earlier day is better than nothing.
            log.info("%s: the picks could not be fetched: %s", self.path, error)
            self.reader.again.add(self.uid)
            return found
        if len(points) <= MOST_PICKS:
            found["coordinates"] = points
        return found


def picked(data: bytes, shape: tuple[int, int]) -> list[list[float]]:
    """Return [x, y] in pixels from a table of picks; ``shape`` is the micrograph's (rows, columns)."""
    x, y = "location/center_x_frac", "location/center_y_frac"
    with tempfile.NamedTemporaryFile(prefix="emhub-agent-", suffix=".cs") as handle:
        handle.write(data)
        handle.flush()
        rows = cs.read(handle.name, lambda name: name in ("uid", x, y))
    if not rows:
        return []
    if x not in rows or y not in rows or rows[x].ndim != 1 or rows[y].ndim != 1:
        raise ValueError("the table holds no places of picks")
    points = np.stack([rows[x], rows[y]], axis=1).astype(np.float64) * (shape[1], shape[0])
    if not np.isfinite(points).all():
        raise ValueError("places of picks are no numbers")
    return np.round(points, 2).tolist()


class Session:
    """One Live session: its document, and its exposures as told."""

    def __init__(self, document: dict[str, Any]):
        self.document = document
        self.since: datetime | None = None
        self.seen: Any = None
        self.micrographs: dict[str, dict[str, Any]] = {}
        self.names: dict[int, str] = {}
        self.owners: dict[str, int] = {}
        self.images: dict[tuple[str, str], str] = {}
        self.classes: Any = None
        self.failures: set[str] = set()
        self.geometry: dict[str, Any] = {}


class CryosparcLiveReader(Reader):
    """Follows the Live sessions of a project on the CryoSPARC server at the address ``place``.

    A server that does not answer is asked again at the next look. Raises ReaderError there where it has not
    answered yet, and where it refuses the password.
    """

    software = "CryoSPARC Live"
    SETTINGS: ClassVar[Mapping[str, str]] = {
        "project": "the project's uid, P3; needed",
        "session": "the uids of its Live sessions, S1 or S1,S2; without it all of them",
        "email": f"who asks; without it the environment variable {EMAIL}",
        "password_file": f"a file with the password; without it the environment variable {PASSWORD}",
        "license_file": f"CryoSPARC 4 only: a file with the licence; without it {LICENSE}",
        "coordinates": "false to leave out where the picks are (one call per exposure)",
    }

    def __init__(self, place: str, key: str | None = None, settings: Mapping[str, Any] | None = None):
        settings = self.checked(settings)
        parts = urlsplit(place)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.password:
            raise ReaderError(
                "Give the address of the CryoSPARC server, like http://cryosparc.example.org:39000, without "
                "user and password."
            )
        self.url = place.rstrip("/")
        self.project = str(settings.get("project") or "")
        if not self.project:
            raise ReaderError("Give the project's uid in the setting project, like P3.")
        chosen = settings.get("session") or ""
        names = chosen if isinstance(chosen, list) else str(chosen).split(",")
        self.chosen = {str(name).strip() for name in names if str(name).strip()}
        self.with_coordinates = flag(settings, "coordinates", True)
        self._email = str(settings.get("email") or os.environ.get(EMAIL) or "") or None
        self._password = _secret(settings, "password_file", PASSWORD)
        self._license = _secret(settings, "license_file", LICENSE)
        self.name = (key or "")[:150] or self.project
        self.server: Server | None = None
        self.again: set[tuple[str, int]] = set()
        self._sessions: dict[str, Session] = {}
        self._said: set[str] = set()
        self._has_answered = self._is_away = False

    # the interface

    def look(self) -> list[RunNews]:
        try:
            server = self._connected()
            documents = server.sessions(self.project)
        except Trouble as error:
            if not self._has_answered:
                raise ReaderError(f"{error}.") from error
            self._away(error)
            # Nothing new; a run that is not told of would count as gone.
            return [self._nothing(session) for session in self._sessions.values()]
        self._has_answered = True
        if self._is_away:
            self._is_away = False
            log.info("CryoSPARC at %s answers again.", self.url)
        found = {}
        for document in documents:
            uid = document.get("session_uid")
            if isinstance(uid, str) and uid and (not self.chosen or uid in self.chosen):
                found[uid] = document
        for uid in self.chosen - set(found):
            self._warn_once(f"There is no Live session {uid} in {self.project}.")
        self._sessions = {
            uid: self._sessions.get(uid) or Session(document) for uid, document in found.items()
        }
        news = []
        for uid, document in found.items():
            session = self._sessions[uid]
            session.document = document
            news.append(self._news(server, session))
        return news

    def forget(self, key: str) -> None:
        for uid in list(self._sessions):
            if self._key(uid) == key:
                self._sessions[uid] = Session(self._sessions[uid].document)

    # the server

    def _connected(self) -> Server:
        if self.server is None:
            self.server = connect(self.url, self._email, self._password, self._license)
        return self.server

    def _away(self, error: Trouble) -> None:
        # A token has run out, or the server was started anew: the next look begins with the password.
        self.server = None
        if not self._is_away:
            log.warning("%s. It is asked again.", error)
        self._is_away = True

    def _warn_once(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            log.warning("%s", text)

    def fetch_file(self, path: str) -> bytes:
        """Return a file of the project's folder. Raises OSError."""
        try:
            return self._connected().file(self.project, path)
        except (Trouble, ReaderError) as error:
            raise OSError(str(error)) from error

    def fetch_asset(self, name: str) -> bytes:
        """Return a picture that the server keeps. Raises OSError."""
        try:
            return self._connected().asset(name)
        except (Trouble, ReaderError) as error:
            raise OSError(str(error)) from error

    # one session

    def _key(self, uid: str) -> str:
        return f"{self.name}/{uid}"

    def _nothing(self, session: Session) -> RunNews:
        uid = session.document["session_uid"]
        return RunNews(self._key(uid), self._info(session), self._status(session.document))

    def _news(self, server: Server, session: Session) -> RunNews:
        uid = session.document["session_uid"]
        before = session.since
        changes: dict[str, dict[str, Any]] = {}
        pictures: list[Picture] = []
        events: list[Event] = []
        state = session.document.get("updated_at") or hashlib.sha1(repr(session.document).encode()).digest()
        if server.tells_changes or state != session.seen:
            try:
                for document in server.exposures(self.project, session.document, before):
                    self._take(session, document, changes, pictures, events)
                session.seen = state
            except Trouble as error:
                # What came is told; the rest is asked for again.
                session.since = before
                self._warn_once(f"{uid}: {error}.")
        for key in [key for key in self.again if key[0] == uid]:
            self.again.discard(key)
            name = session.names.get(key[1], "")
            fields = session.micrographs.get(name, {})
            if "picks" in fields:
                changes.setdefault(name, {})["picks"] = fields["picks"]
        news = RunNews(self._key(uid), self._info(session), self._status(session.document), changes)
        news.pictures, news.events = pictures, events
        self._classes(session, news)
        return news

    def _take(
        self,
        session: Session,
        document: dict[str, Any],
        changes: dict[str, dict[str, Any]],
        pictures: list[Picture],
        events: list[Event],
    ) -> None:
        exposure = Exposure(document)
        at = exposure.updated
        if at is not None and (session.since is None or at > session.since):
            session.since = at
        if exposure.uid is None:
            return
        name = self._name(session, exposure)
        if not name:
            return
        fields = {} if exposure.is_deleted else exposure.fields()
        if "particles" in fields and self.with_coordinates:
            where = exposure.picks()
            if where is not None:
                whose = (session.document["session_uid"], exposure.uid)
                fields["picks"] = Coordinates(self, whose, fields.pop("particles"), *where)
        old = session.micrographs.get(name)
        if old is None and exposure.is_deleted:
            return
        changed = {key: value for key, value in fields.items() if old is None or old.get(key) != value}
        for key in old or {}:
            if key == "picks" and key not in fields:
                changed.setdefault("particles", None)
                changed["coordinates"] = None
            elif key not in fields:
                changed.setdefault(key, None)
        session.micrographs[name] = fields
        if changed or old is None:
            changes.setdefault(name, {}).update(changed)
        if not session.geometry:
            session.geometry = exposure.geometry()
        if exposure.is_deleted:
            return
        for kind, path, is_asset in exposure.images():
            if session.images.get((kind, name)) != path:
                session.images[kind, name] = path
                fetch = partial(self.fetch_asset if is_asset else self.fetch_file, path)
                pictures.append(Picture(kind, f"{self.url}/{path}", micrograph=name, fetch=fetch))
        if exposure.failure and name not in session.failures and len(session.failures) < TOLD_FAILURES:
            session.failures.add(name)
            when = at.isoformat(timespec="seconds") if at else None
            events.append(Event("warning", f"{name} failed: {exposure.failure[:300]}", when))

    def _name(self, session: Session, exposure: Exposure) -> str:
        known = session.names.get(exposure.uid)
        if known is not None:
            return known
        name = exposure.name
        if session.owners.get(name, exposure.uid) != exposure.uid and exposure.folder:
            name = f"{exposure.folder}/{name}"
        if not name or len(name) > 500:
            return ""
        if session.owners.get(name, exposure.uid) != exposure.uid:
            self._warn_once(f"{name} is the name of more than one exposure; only the first is posted.")
            name = ""
        else:
            session.owners[name] = exposure.uid
        session.names[exposure.uid] = name
        return name

    def _classes(self, session: Session, news: RunNews) -> None:
        document = session.document
        rows = []
        images = []
        info = document.get("phase2_class2D_info")
        for item in info if isinstance(info, list) else ():
            index = item.get("class_idx") if isinstance(item, dict) else None
            if not isinstance(index, int) or not 0 <= index < 1_000_000:
                continue
            resolution = _number(item.get("res_A"))
            count = _number(item.get("num_particles_total")) or 0
            rows.append(
                {
                    "number": index + 1,
                    "particles": int(count),
                    "resolution": resolution if resolution and 0 < resolution < 1000 else None,
                }
            )
            if item.get("fileid") and count:
                images.append((index + 1, str(item["fileid"])))
        rows.sort(key=lambda row: row["number"])
        if not rows or session.classes == (rows, images):
            return
        session.classes = (rows, images)
        job = str(document.get("phase2_class2D_job") or "Class2D")
        # Streaming classification has no iterations: each hour of the session counts as one.
        started, updated = (
            _time(document.get("created_at")),
            _time(document.get("phase2_class2D_last_updated")),
        )
        hours = int((updated - started).total_seconds() // 3600) if started and updated else 0
        iteration = min(max(hours, 0), 1_000_000)
        news.classes.append(ClassSet(job, iteration, rows))
        for number, fileid in images:
            fetch = partial(self.fetch_asset, fileid)
            news.pictures.append(
                Picture(
                    "class_average",
                    f"{self.url}/{fileid}",
                    job=job,
                    iteration=iteration,
                    number=number,
                    section=1,
                    fetch=fetch,
                )
            )

    # what describes the run

    @staticmethod
    def _status(document: dict[str, Any]) -> str:
        status = STATUSES.get(str(document.get("status")), "running")
        if status == "stopped" and not document.get("running_at"):
            return "queued"
        return status

    def _info(self, session: Session) -> dict[str, Any]:
        document = session.document
        uid = document["session_uid"]
        title = str(document.get("title") or "")
        parameters = dict(_flat(document.get("params")))
        info: dict[str, Any] = {
            "software": self.software,
            "version": self.server.version if self.server else None,
            "host": urlsplit(self.url).hostname or socket.gethostname(),
            "label": f"{self.project} {uid}: {title}" if title else f"{self.project} {uid}",
            "parameters": dict(list(parameters.items())[:200]),
            **session.geometry,
        }
        diameter = parameters.get("blob_diameter_max") or parameters.get("blob_pick.diameter_max")
        if isinstance(diameter, (int, float)) and 0 < diameter < 100_000:
            info["particle_diameter"] = float(diameter)
        return {key: value for key, value in info.items() if value not in (None, "", {})}


class Exposure:
    """One exposure's document: of version 5 with plain values, of version 4 with lists of one."""

    def __init__(self, document: dict[str, Any]):
        self.document = document
        self.attributes = _dict(document.get("attributes"))
        self.groups = _dict(document.get("groups"))
        self.results = _dict(self.groups.get("exposure"))
        uid = _number(document.get("uid"))
        self.uid = int(uid) if uid is not None else None
        self.updated = _time(document.get("updated_at"))
        self.is_deleted = document.get("deleted") is True

    def value(self, group: str, name: str) -> Any:
        return _one(_dict(self.results.get(group)).get(name))

    def number(self, group: str, name: str) -> float | None:
        """Return a measured number; CryoSPARC writes 0 for what was not measured."""
        return _number(self.value(group, name)) or None

    def attribute(self, name: str) -> float | None:
        """As ``number``, of what the server works out of its results."""
        return _number(self.attributes.get(name)) or None

    @property
    def name(self) -> str:
        path = self.document.get("abs_file_path") or self.value("movie_blob", "path")
        if isinstance(path, str) and path:
            return movie_name(path)
        path = self.value("micrograph_blob", "path")
        return name_of_micrograph(path) if isinstance(path, str) else ""

    @property
    def folder(self) -> str:
        path = self.document.get("abs_file_path")
        return posixpath.basename(posixpath.dirname(path)) if isinstance(path, str) else ""

    @property
    def failure(self) -> str:
        if self.document.get("failed") is not True:
            return ""
        lines = [line.strip() for line in str(self.document.get("fail_reason") or "").split("\n")]
        return next((line for line in reversed(lines) if line), "no reason is given")

    @property
    def pixel_size(self) -> float | None:
        """Å per pixel of what motion is measured in."""
        return self.number("rigid_motion", "psize_A") or self.number("movie_blob", "psize_A")

    @property
    def shape(self) -> tuple[int, int] | None:
        for value in (self.document.get("micrograph_shape"), self.results.get("micrograph_blob")):
            if isinstance(value, dict):
                value = value.get("shape")
                if isinstance(value, list) and len(value) == 1:
                    value = value[0]
            if isinstance(value, list) and len(value) == 2:
                sides = [_number(side) for side in value]
                if all(side is not None and 0 < side < 2**20 for side in sides):
                    return int(sides[0] or 0), int(sides[1] or 0)
        return None

    def fields(self) -> dict[str, Any]:
        """Return what is known of the micrograph, by the site's names: Å, degrees, and counts."""
        found: dict[str, Any] = {}
        distance = self.attribute("total_motion_dist")
        if distance is not None and self.pixel_size:
            found["motion_total"] = distance * self.pixel_size
        found["defocus_u"] = self.number("ctf", "df1_A")
        found["defocus_v"] = self.number("ctf", "df2_A")
        if found["defocus_u"] is not None:
            found["defocus_angle"] = _degrees(_number(self.value("ctf", "df_angle_rad")))
        found["phase_shift"] = _degrees(self.number("ctf", "phase_shift_rad"))
        found["ctf_resolution"] = self.attribute("ctf_fit_to_A") or self.number("ctf", "ctf_fit_to_A")
        found["ctf_score"] = self.number("ctf", "cross_corr_ctffind4") or self.number(
            "ctf_stats", "cross_corr"
        )
        found["ice_thickness"] = self.attribute("ice_thickness_rel") or self.number(
            "ctf_stats", "ice_thickness_rel"
        )
        found["particles"] = self._count()
        if self.document.get("manual_reject") is True or self.document.get("threshold_reject") is True:
            found["rejected"] = True
        elif self.document.get("stage") not in UNSEEN:
            found["rejected"] = False
        return {key: value for key, value in found.items() if value is not None}

    def _count(self) -> int | None:
        picker = self.document.get("picker_type")
        if not self.attribute("pick_at") and picker != "manual":
            return None
        for kind in (picker,) if picker in PICKERS else PICKERS:
            count = _number(self.attributes.get(f"total_{kind}_picks"))
            if count and 0 < count <= MOST_PICKS:
                return int(count)
        return 0

    def picks(self) -> tuple[str, tuple[int, int]] | None:
        """Return the file of the picks and the micrograph's shape (rows, columns), None without one."""
        picker = self.document.get("picker_type")
        for kind in (picker,) if picker in PICKERS else PICKERS:
            group = _dict(self.groups.get(f"particle_{kind}"))
            path = group.get("path")
            if isinstance(path, str) and path.endswith(".cs") and self.shape is not None:
                return path.lstrip(">"), self.shape
        return None

    def geometry(self) -> dict[str, Any]:
        """Return the micrograph's pixel size (Å), width and height; nothing where one of them is unknown."""
        shape = self.shape
        pixel = _number(self.document.get("micrograph_psize")) or self.number("micrograph_blob", "psize_A")
        if shape is None or not pixel:
            return {}
        return {"pixel_size": float(f"{pixel:.7g}"), "width": shape[1], "height": shape[0]}

    def images(self) -> Iterator[tuple[str, str, bool]]:
        """Yield (kind, path or asset, whether it is an asset)."""
        for name in ("preview_img_2x", "preview_img_1x"):
            assets = self.document.get(name)
            if isinstance(assets, list) and assets and isinstance(assets[0], str) and assets[0]:
                yield "micrograph", assets[0], True
                break
        else:
            for group in ("micrograph_blob_thumb", "micrograph_blob"):
                path = self.value(group, "path")
                if isinstance(path, str) and path:
                    yield "micrograph", path.lstrip(">"), False
                    break
        path = self.value("ctf_stats", "diag_image_path")
        if isinstance(path, str) and path:
            yield "psd", path.lstrip(">"), False


def _secret(settings: Mapping[str, Any], name: str, variable: str) -> str | None:
    path = settings.get(name)
    if not path:
        return os.environ.get(variable) or None
    try:
        with open(str(path), encoding="utf-8") as handle:
            return handle.read(10_000).strip() or None
    except (OSError, ValueError) as error:
        raise ReaderError(f"{name}: {path} cannot be read.") from error


def _flat(params: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (name, value) of parameters: of version 4 they are in sections, each with its value inside."""
    for name, value in _dict(params).items():
        if isinstance(value, dict) and "value" in value:
            value = value["value"]
        if isinstance(value, dict) and not prefix:
            yield from _flat(value, f"{name}.")
        elif isinstance(value, float) and not math.isfinite(value):
            continue
        elif isinstance(value, (bool, int, float, str)) and len(str(value)) <= 1000:
            yield f"{prefix}{name}"[:120], value


def _one(value: Any) -> Any:
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _number(value: Any) -> float | None:
    value = _one(value)
    if isinstance(value, bool) or value is None:
        return None
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def _degrees(value: float | None) -> float | None:
    if value is None:
        return None
    degrees = math.degrees(value)
    return degrees if abs(degrees) <= 360 else math.fmod(degrees, 360)


def _time(value: Any) -> datetime | None:
    if not isinstance(value, datetime):
        text = cs.moment(value)
        value = datetime.fromisoformat(text) if text else None
    if value is not None and value.tzinfo is None:
        value = value.replace(tzinfo=timezone.utc)
    return value if value is None or value.year > 1970 else None
