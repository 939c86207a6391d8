"""Scipion 3 projects: ``project.sqlite`` (``scipion_project``) and the set files that its protocols write
(``scipion_sets``), as runs.

While a protocol runs, its own copy of the project (``logs/run.db``) knows its outputs before the project
does.

One protocol that estimates the CTF of micrographs, with the protocols it descends from, those that descend
from it and those that pick on the same micrographs, is one branch, and one branch is one run on the site.

Sources of the formats: the files themselves and Scipion's own programs (pyworkflow and pwem 3.11, and the
plugins for MotionCor, CTFFIND and RELION).
"""

from __future__ import annotations

import logging
import os
import re
import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from typing import Any, ClassVar, NamedTuple

from .. import sqlite
from ..mrc import mrc_size
from ..names import places
from .base import (
    Complaints,
    Event,
    Folder,
    OutsideError,
    Pictures,
    Reader,
    ReaderError,
    RunNews,
    SessionNews,
    flag,
)
from .scipion_project import BOOKKEEPING, STATUSES, Output, Project, Protocol, Tree, number, plain, size_of
from .scipion_sets import (
    DISCARDED,
    ORDER,
    TABLES,
    ClassTable,
    CtfTable,
    ItemTable,
    MicrographTable,
    PickTable,
    SetTable,
)

log = logging.getLogger(__name__)

PROJECT = "project.sqlite"

#: What a protocol that is under way says of itself in its own database.
UNDER_WAY = ("launched", "scheduled", "waiting", "running", "interactive")
COMPUTING = ("import", "motion", "ctf", "picking", "extract", "class2d")
DRAWABLE = (".mrc", ".mrcs", ".ctf", ".map", ".st", ".tif", ".tiff", ".png", ".jpg", ".jpeg")

_VERSION = re.compile(r"pyworkflow: ?v?([\d.]+\w*)")

#: Seconds that a lock on the project is waited for before the first look is given up.
FIRST_PATIENCE = 20.0
#: A project that is being made is tried so often, and so many seconds apart.
ATTEMPTS, PAUSE = 10, 0.05


class Branch(NamedTuple):
    """The protocols of one run, by id; ``own`` is the first that is in no other branch before."""

    key: str
    own: int
    protocols: tuple[int, ...]
    is_main: bool


class Told:
    """What of one run has been told already."""

    def __init__(self) -> None:
        self.tables: tuple[SetTable, ...] = ()
        self.serials: dict[int, int] = {}
        self.has_ctf = False
        #: What each table had of a micrograph: the rows themselves, which are replaced and never changed.
        self.micrographs: dict[str, tuple] = {}
        self.todo = Pictures()
        self.classes: dict[str, tuple | None] = {}
        self.events: set[tuple[str, str]] = set()


class ScipionReader(Reader):
    """Follows the Scipion 3 project in the folder ``place``.

    ``key`` stands for the project in its runs' keys; without it the folder's name does. Raises ReaderError
    where there is no project.
    """

    software = "Scipion"
    SETTINGS: ClassVar[Mapping[str, str]] = {
        "follow_links": "true to follow links that lead out of the project's folder (default false)",
    }

    def __init__(self, place: str, key: str | None = None, settings: Mapping[str, Any] | None = None):
        follow_links = flag(self.checked(settings), "follow_links")
        if os.path.basename(place) == PROJECT and os.path.isfile(place):
            place = os.path.dirname(os.path.abspath(place))
        if not os.path.isdir(place):
            raise ReaderError(f"There is no folder {place}.")
        self.folder = Folder(place, follow_links)
        # The site keeps keys of up to 200 characters; the protocol comes behind.
        self.name = (key or os.path.basename(os.path.realpath(place)) or "scipion")[:130]
        self._project: Project | None = None
        self._project_state: tuple | None = None
        # As the project's own file has them, without what the protocols' files add.
        self._recorded: dict[int, Protocol] = {}
        self._trees: dict[int, tuple[tuple, Protocol | None]] = {}
        self._tables: dict[tuple[int, str], SetTable] = {}
        self._classes: dict[tuple[int, str], ClassTable] = {}
        self._told: dict[str, Told] = {}
        self.warn = Complaints(log)
        self._inside: dict[str, bool] = {}
        #: The set files of picks, while a batch of them is loaded.
        self.held: sqlite.Held | None = None
        self._sizes: dict[str, tuple[int, int]] = {}
        self._version: str | None = None
        self._version_state: tuple | None = None
        if not os.path.isfile(os.path.join(self.folder.root, PROJECT)):
            raise ReaderError(
                f"{place} is not a Scipion project: it has no {PROJECT}. Give the project's own folder, "
                "usually under ScipionUserData/projects."
            )

    def drawable(self, file: str) -> str | None:
        """Return the path of a picture's file that lies in the project; None where it cannot be drawn."""
        if not file.lower().endswith(DRAWABLE):
            return None
        path = os.path.join(self.folder.root, file)
        if self.folder.follow_links:
            return path
        # Thousands of files lie in few folders: the way to each is looked at once.
        place = os.path.dirname(path)
        if place not in self._inside:
            try:
                self.folder.path(place)
                self._inside[place] = True
            except (OutsideError, ValueError) as error:
                self._inside[place] = False
                self.warn(os.path.dirname(file), f"its pictures are left out: {error}")
        return path if self._inside[place] else None

    def names_by_id(self, protocol: int | None) -> dict[int, str]:
        """Return the names of a protocol's micrographs by the ids that older sets know them by."""
        names: dict[int, str] = {}
        for (id_, _), table in self._tables.items():
            if id_ == protocol and isinstance(table, MicrographTable):
                try:
                    names.update(table.ids())
                except (OSError, ValueError) as error:
                    self.warn(table.output.file, error)
        return names

    # the interface

    def look(self) -> list[RunNews | SessionNews]:
        project = self._read_project()
        self._inside.clear()
        wanted = set()
        for protocol in sorted(project.protocols.values()):
            for output in protocol.outputs:
                place = (protocol.id, output.name)
                if output.kind == "SetOfClasses2D":
                    wanted.add(place)
                    self._classes.setdefault(place, ClassTable(self)).refresh(protocol, output)
                elif output.kind in TABLES:
                    wanted.add(place)
                    table = self._tables.get(place)
                    if table is None:
                        table = self._tables[place] = TABLES[output.kind](self, protocol, output)
                    table.refresh(protocol, output)
                    if isinstance(table, PickTable) and protocol.picks:
                        table.count_empty(self._lies_on(project, output))
        for tables in (self._tables, self._classes):
            for place in [place for place in tables if place not in wanted]:
                del tables[place]
        runs = [self._news(project, branch) for branch in self._branches(project)]
        self.backlog = sum(len(self._told[run.key].todo) for run in runs)
        # Where the names tell square and hole in another way than EPU's, which the site knows itself.
        exposures = places(name for run in runs for name in run.micrographs)
        return [*runs, SessionNews({}, exposures)] if exposures else [*runs]

    @contextmanager
    def loading(self) -> Iterator[None]:
        self.held = sqlite.Held()
        try:
            yield
        finally:
            self.held.close()
            self.held = None

    def forget(self, key: str) -> None:
        self._told.pop(key, None)

    # the project

    def _read_project(self) -> Project:
        path = os.path.join(self.folder.root, PROJECT)
        state = sqlite.state_of(path)
        try:
            if self._project is None:
                protocols = self._first_tree(path).protocols()
            elif state is not None and state != self._project_state:
                protocols = Tree(path).protocols()
            else:
                protocols = None
        except (OSError, ValueError) as error:
            if self._project is None:
                raise ReaderError(f"{path} cannot be read: {error}.") from error
            if isinstance(error, sqlite.Busy):
                log.debug("%s: %s; left for the next look", PROJECT, error)
            else:
                self.warn(PROJECT, error)
            protocols = None
        if protocols is not None:
            self._recorded, self._project_state = protocols, state
        known = self._project.protocols if self._project is not None else {}
        current = {id_: self._current(protocol, known.get(id_)) for id_, protocol in self._recorded.items()}
        if self._project is None or current != known:
            self._project = Project(current)
        return self._project

    @staticmethod
    def _first_tree(path: str) -> Tree:
        """Wait a little for a project that is being made, and for one that is being written."""
        for _ in range(ATTEMPTS - 1):
            try:
                return Tree(path, FIRST_PATIENCE)
            except ValueError:
                time.sleep(PAUSE)
        return Tree(path, FIRST_PATIENCE)

    def _current(self, protocol: Protocol, known: Protocol | None) -> Protocol:
        """Return a protocol as its own database has it, which is ahead of the project's while it runs."""
        if protocol.status in UNDER_WAY and protocol.folder:
            own = self._own(protocol)
            if own is not None and own.status in STATUSES and own.status not in ("saved", "new"):
                outputs = {output.name: output for output in (*protocol.outputs, *own.outputs)}
                protocol = protocol._replace(
                    status=own.status if own.status not in ("launched", "scheduled") else protocol.status,
                    error=own.error,
                    ended=own.ended,
                    outputs=tuple(outputs.values()),
                )
        if known is not None and not protocol.is_over:
            # Done anew, its outputs are gone for a while; what they held stays until it ends.
            names = {output.name for output in protocol.outputs}
            kept = tuple(output for output in known.outputs if output.name not in names)
            protocol = protocol._replace(outputs=protocol.outputs + kept)
        return protocol

    def _own(self, protocol: Protocol) -> Protocol | None:
        name = f"{protocol.folder}/logs/run.db"
        try:
            path = self.folder.path(name)
        except (OutsideError, ValueError) as error:
            self.warn(name, error)
            return None
        state = sqlite.state_of(path)
        if state is None:
            return None
        known = self._trees.get(protocol.id)
        if known is not None and known[0] == state:
            return known[1]
        try:
            found = Tree(path).protocol(protocol.id)
        except sqlite.Busy:
            return known[1] if known else None
        except (OSError, ValueError) as error:
            self.warn(name, error)
            found = known[1] if known else None
        self._trees[protocol.id] = (state, found)
        return found

    def _lies_on(self, project: Project, output: Output) -> list[SetTable]:
        """Return the tables of the micrographs that coordinates lie on."""
        protocol = project.protocols.get(output.micrographs if output.micrographs is not None else -1)
        if protocol is None:
            return []
        return [
            self._tables[place]
            for place in ((protocol.id, other.name) for other in protocol.outputs)
            if isinstance(self._tables.get(place), MicrographTable) and not DISCARDED.search(place[1])
        ]

    def _branches(self, project: Project) -> list[Branch]:
        """Return the branches, the main one of each import first.

        A branch is keyed by the first of its protocols that no branch before it has, so that its key stays
        when protocols are added to it and when other branches appear.
        """
        protocols = project.protocols
        leaves = [protocol for protocol in protocols.values() if protocol.estimates_ctf]
        covered: set[int] = set()
        for leaf in leaves:
            covered |= {leaf.id} | project.ancestors(leaf.id)
        # A step with nothing after it yet is a branch too; beside others only if it has rows.
        is_alone = not leaves
        for role in ("motion", "import"):
            for protocol in protocols.values():
                is_open = protocol.role == role and protocol.id not in covered
                if is_open and (is_alone or any(self._rows_of(protocol))):
                    leaves.append(protocol)
                    covered |= {protocol.id} | project.ancestors(protocol.id)
        order = {"ctf": 0, "motion": 1, "import": 2}
        leaves.sort(key=lambda protocol: (order.get(protocol.role, 0), protocol.id))
        branches = []
        claimed: set[int] = set()
        for leaf in leaves:
            ids = tuple(sorted(self._members(project, leaf)))
            is_main = ids[0] not in claimed
            own = next((id_ for id_ in ids if id_ not in claimed), leaf.id)
            claimed.update(ids)
            branches.append(Branch(f"{self.name}/{protocols[own].name}"[:200], own, ids, is_main))
        return branches

    def _members(self, project: Project, leaf: Protocol) -> set[int]:
        ids = {leaf.id} | project.ancestors(leaf.id)
        for picker in project.protocols.values():
            # Pickers take the micrographs, not the CTF: they belong to whoever estimated it on the same.
            if picker.picks and not picker.estimates_ctf:
                on = {output.micrographs for output in picker.outputs if output.kind == "SetOfCoordinates"}
                on |= {source for source, kind in picker.inputs if kind == "SetOfMicrographs"}
                if on & ids:
                    ids.add(picker.id)
                    for other in project.descendants(picker.id):
                        estimates = {
                            id_ for id_ in project.ancestors(other) if project.protocols[id_].estimates_ctf
                        }
                        if estimates <= {leaf.id}:
                            ids.add(other)
        return ids | project.descendants(leaf.id)

    def _rows_of(self, protocol: Protocol) -> Iterator[str]:
        for output in protocol.outputs:
            table = self._tables.get((protocol.id, output.name))
            if table is not None:
                yield from table.rows

    # one run

    def _news(self, project: Project, branch: Branch) -> RunNews:
        told = self._told.setdefault(branch.key, Told())
        protocols = [project.protocols[id_] for id_ in branch.protocols]
        tables = self._tables_of(protocols)
        news = RunNews(branch.key, self._info(branch, protocols, tables), self._run_status(protocols))
        for name in self._changed(told, tables):
            self._tell_micrograph(news, told, tables, name)
        news.pictures = told.todo.take(self.room, partial(self._path_of, told))
        for protocol in protocols:
            for output in protocol.outputs:
                classes = self._classes.get((protocol.id, output.name))
                if classes is not None and classes.found is not None:
                    self._tell_classes(news, told, classes)
            self._tell_end(news, told, protocol)
        return news

    def _tables_of(self, protocols: list[Protocol]) -> tuple[SetTable, ...]:
        found = []
        for protocol in protocols:
            for output in protocol.outputs:
                table = self._tables.get((protocol.id, output.name))
                if table is None or (output.kind == "SetOfCoordinates" and not protocol.picks):
                    continue
                # Dose-weighted micrographs are the ones to look at.
                is_weighted = "doseweighted" in output.name.lower()
                by_hand = output.kind == "SetOfCoordinates" and protocol.by_hand
                rank = (ORDER.index(output.kind), not by_hand, protocol.id, is_weighted, output.name)
                found.append((rank, table))
        found.sort(key=lambda pair: pair[0])
        return tuple(table for _, table in found)

    @staticmethod
    def _changed(told: Told, tables: tuple[SetTable, ...]) -> Iterable[str]:
        if tables == told.tables:
            names: list[str] = []
            for table in tables:
                names += table.since(told.serials[id(table)])
        else:
            names = [name for table in tables for name in table.rows]
            names += told.micrographs
        told.tables = tables
        told.has_ctf = any(isinstance(table, CtfTable) and not table.is_verdict_only for table in tables)
        told.serials = {id(table): table.serial for table in tables}
        return dict.fromkeys(names)

    def _tell_micrograph(self, news: RunNews, told: Told, tables: tuple[SetTable, ...], name: str) -> None:
        rows = tuple(table.rows.get(name) for table in tables)
        before = _merged(told.micrographs[name]) if name in told.micrographs else None
        if all(row is None for row in rows):
            if before is not None:
                del told.micrographs[name]
                news.micrographs[name] = _cleared(before)
            return
        told.micrographs[name] = rows
        fields = _merged(rows)
        changed = {key: value for key, value in fields.items() if before is None or before.get(key) != value}
        for kind, keys in (("micrograph", ("image",)), ("psd", ("fit", "spectrum"))):
            if any(key in changed for key in keys):
                told.todo.add(kind, name)
        for key in PICTURES:
            changed.pop(key, None)
        if before is not None:
            changed.update(_cleared({key: None for key in before if key not in fields}))
        if changed or before is None:
            news.micrographs[name] = changed

    def _path_of(self, told: Told, kind: str, name: str) -> str | None:
        fields = _merged(told.micrographs.get(name, ()))
        # The estimate's own picture shows the fit; a plain spectrum is second choice, and waits for the CTF
        # so that no picture is sent twice.
        if kind == "psd" and told.has_ctf and "fit" not in fields:
            return None
        files = [fields.get(key) for key in (("image",) if kind == "micrograph" else ("fit", "spectrum"))]
        paths = [path for path in map(self.drawable, filter(None, files)) if path is not None]
        for path in paths:
            if os.path.exists(path) and (self.folder.follow_links or not self._leads_out(path)):
                return path
        return "" if paths else None

    def _leads_out(self, path: str) -> bool:
        if not os.path.islink(path):
            return False
        try:
            self.folder.path(path)
        except (OutsideError, ValueError) as error:
            self.warn(os.path.dirname(path), f"pictures are left out: {error}")
            return True
        return False

    def _tell_classes(self, news: RunNews, told: Told, classes: ClassTable) -> None:
        found = classes.found
        if found is None or told.classes.get(found.job) == classes.state:
            return
        told.classes[found.job] = classes.state
        news.classes.append(found)
        news.pictures.extend(classes.pictures)

    def _tell_end(self, news: RunNews, told: Told, protocol: Protocol) -> None:
        how = STATUSES.get(protocol.status)
        if how not in ("failed", "stopped") or protocol.role not in COMPUTING:
            return
        text = f"{protocol.label} ({protocol.name}) " + ("failed" if how == "failed" else "was stopped")
        reason = next((line for line in map(plain, protocol.error.splitlines()) if line), "")
        text += f": {reason[:300]}" if reason and how == "failed" else "."
        when = _moment(protocol.ended)
        if (text, when or "") not in told.events:
            told.events.add((text, when or ""))
            news.events.append(Event("error" if how == "failed" else "warning", text, when))

    @staticmethod
    def _run_status(protocols: list[Protocol]) -> str:
        """Return the run's status: running first, then what went wrong and was not done again since."""
        last: dict[str, str] = {}
        for protocol in protocols:
            status = STATUSES.get(protocol.status, "queued")
            if protocol.role in COMPUTING and status != "queued":
                if status == "running":
                    return "running"
                last[protocol.role] = status
        for status in ("failed", "stopped"):
            if status in last.values():
                return status
        return "finished" if last else "queued"

    # what describes the run

    def _info(
        self, branch: Branch, protocols: list[Protocol], tables: tuple[SetTable, ...]
    ) -> dict[str, Any]:
        own = next(protocol for protocol in protocols if protocol.id == branch.own)
        info: dict[str, Any] = {
            "software": self.software,
            "version": self._find_version(protocols),
            "host": socket.gethostname(),
            "label": plain(self.name if branch.is_main else f"{self.name}, {own.label}"),
        }
        info.update(self._geometry(protocols, tables))
        parameters: dict[str, Any] = {}
        diameters: dict[str, float] = {}
        for protocol in protocols:
            role = protocol.role
            if role not in COMPUTING:
                continue
            for name, value in protocol.attributes.items():
                if name not in BOOKKEEPING:
                    parameters[f"{role}.{name}"] = value
            for name in ("maskDiameterA", "maxDiameter", "particleDiameter", "diameter"):
                value = protocol.attributes.get(name)
                if role in ("class2d", "picking") and _is_positive(value):
                    diameters[role] = float(value)
                    break
        info["parameters"] = dict(list(parameters.items())[:400])
        for role in ("class2d", "picking"):
            if role in diameters:
                info["particle_diameter"] = diameters[role]
                break
        return {key: value for key, value in info.items() if value not in (None, "", {})}

    def _geometry(self, protocols: list[Protocol], tables: tuple[SetTable, ...]) -> dict[str, Any]:
        """Return pixel size (Å), width and height of the micrographs that were picked, or else the latest."""
        picked = {table.output.micrographs for table in tables if isinstance(table, PickTable)}
        for kind in ("SetOfMicrographs", "SetOfMovies"):
            of_kind = [
                (protocol.id, output)
                for protocol in protocols
                for output in protocol.outputs
                if output.kind == kind and not DISCARDED.search(output.name)
            ]
            chosen = [pair for pair in of_kind if pair[0] in picked] or of_kind
            if not chosen:
                continue
            id_, output = chosen[-1]
            # The set's own file is ahead of what the project says of it.
            table = self._tables.get((id_, output.name))
            properties = table.properties if table is not None else {}
            found: dict[str, Any] = {}
            pixel = number(properties.get("_samplingRate")) or output.pixel_size
            if pixel is not None and 0 < pixel <= 1000:
                found["pixel_size"] = pixel
            size = size_of(properties.get("_firstDim")) or output.size
            if size is None and isinstance(table, MicrographTable):
                size = self._size_of(table)
            if size:
                found["width"], found["height"] = size
            return found
        return {}

    def _size_of(self, table: ItemTable) -> tuple[int, int] | None:
        first = next(iter(table.rows.values()), {}).get("image")
        path = self.drawable(first) if first else None
        if path is None or self._leads_out(path):
            return None
        if path not in self._sizes:
            size = mrc_size(path)
            if size is None:
                return None
            self._sizes[path] = size
        return self._sizes[path]

    def _find_version(self, protocols: list[Protocol]) -> str:
        """Return Scipion's version as the logs of its protocols give it."""
        folders = tuple(protocol.folder for protocol in protocols if protocol.folder)
        if self._version is None and folders != self._version_state:
            self._version_state = folders
            for folder in folders:
                for name in ("run.stdout", "run.log"):
                    try:
                        path = self.folder.path(f"{folder}/logs/{name}")
                        with open(path, "rb") as handle:
                            head = handle.read(16384).decode("utf-8", "replace")
                    except (OSError, ValueError):
                        continue  # a project without its logs has a version all the same
                    match = _VERSION.search(head)
                    if match:
                        self._version = match.group(1)
                        return f"3 (pyworkflow {self._version})"[:60]
        return f"3 (pyworkflow {self._version})"[:60] if self._version else "3"


#: What is kept of a micrograph to draw it, and not a field of the site's.
PICTURES = ("image", "fit", "spectrum")


def _merged(rows: Iterable[dict[str, Any] | None]) -> dict[str, Any]:
    """Return the fields of one micrograph, later tables over earlier ones."""
    fields: dict[str, Any] = {}
    for row in rows:
        if row:
            fields.update(row)
    return fields


def _cleared(fields: Iterable[str]) -> dict[str, None]:
    """Return what empties these fields on the site."""
    found: dict[str, None] = {}
    for key in fields:
        if key == "picks":
            found.update({"coordinates": None, "particles": None})
        elif key not in PICTURES:
            found[key] = None
    return found


def _is_positive(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < 100_000


def _moment(text: str) -> str | None:
    """Return a time as Scipion writes it (of the clock on the wall) in ISO 8601 with offset."""
    try:
        return datetime.fromisoformat(text.strip()).astimezone().isoformat(timespec="seconds")
    except (ValueError, OverflowError, OSError):
        return None
