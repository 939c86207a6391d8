"""Scipion 3 projects: ``project.sqlite`` and the set files that its protocols write.

The tree of protocols is followed by parent ids, the columns of a set file are mapped through its own
``Classes`` table, and what a protocol is comes from what it makes and takes, not from its class, so that
plugins nobody has heard of are read too. While a protocol runs, its own copy of the project
(``logs/run.db``) knows its outputs before the project does.

One protocol that estimates the CTF of micrographs, with the protocols it descends from, those that descend
from it and those that pick on the same micrographs, is one branch, and one branch is one run on the site.

Sources of the formats: the files themselves and Scipion's own programs (pyworkflow and pwem 3.11, and the
plugins for MotionCor, CTFFIND and RELION).
"""

from __future__ import annotations

import logging
import math
import os
import re
import socket
import sys
import time
from array import array
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

from .. import sqlite, star
from ..mrc import mrc_size
from ..names import places
from .base import (
    ClassSet,
    Deferred,
    Event,
    Folder,
    OutsideError,
    Picture,
    Reader,
    ReaderError,
    RunNews,
    SessionNews,
)

log = logging.getLogger(__name__)

PROJECT = "project.sqlite"

STATUSES = {
    "saved": "queued",
    "new": "queued",
    "launched": "queued",
    "scheduled": "queued",
    "waiting": "running",
    "running": "running",
    "interactive": "queued",
    "finished": "finished",
    "failed": "failed",
    "aborted": "stopped",
}
OVER = ("finished", "failed", "stopped")
#: What a protocol that is under way says of itself in its own database.
UNDER_WAY = ("launched", "scheduled", "waiting", "running", "interactive")

# What a protocol does, where it has made nothing yet to tell it by.
ROLES = (
    ("import", re.compile(r"Import(Movies|Micrographs)")),
    ("extract", re.compile(r"Extract(Particles|_?Boxes)")),
    ("class2d", re.compile(r"Classify2D|Cl2d|CL2D|Cryo2D|Class2D", re.IGNORECASE)),
    ("picking", re.compile(r"Pick|Boxing|Boxer", re.IGNORECASE)),
    ("ctf", re.compile(r"CTF", re.IGNORECASE)),
    ("motion", re.compile(r"Motion|Flexalign|OpticalAlign|MovieAlign|AlignMovies", re.IGNORECASE)),
)
NAMED = (
    ("Micrographs", "SetOfMicrographs"),
    ("Movies", "SetOfMovies"),
    ("CTF", "SetOfCTF"),
    ("Coordinates", "SetOfCoordinates"),
    ("Particles", "SetOfParticles"),
    ("Classes", "SetOfClasses2D"),
)
COMPUTING = ("import", "motion", "ctf", "picking", "extract", "class2d")
# Pickers that a person sits at: what they leave out was not looked at, and any program counts before them.
BY_HAND = re.compile(r"^XmippProtParticlePicking$|^EmanProtBoxing$|Manual|ImportCoordinates")
DISCARDED = re.compile(r"discarded|rejected", re.IGNORECASE)
SUBSET = "ProtUserSubSet"

# Of a protocol's attributes those that say how it was run rather than what it did.
BOOKKEEPING = frozenset(
    re.findall(
        r"\w+",
        """
        status initTime endTime interactive workingDir expertLevel runName runMode lastUpdateTimeStamp
        numberOfMpi numberOfThreads binThreads hostName hostFullName allowHeader summaryVar methodsVar
        forceSchedule gpuList useGpu doGpu gpusToUse GPUs scratchDir useParallelDisk pooledParticles
        allParticlesRam combineItersDisc streamingWarning streamingSleepOnWait streamingBatchSize
        acquisitionWizard sqliteFile isFirstTime continueMsg timeout fileTimeout copyFiles useRegexps
        importFrom stackFrames writeMoviesInProject movieSuffix deleteFrames inputIndividualFrames
        recalculate inputType isClassify is2D numCpus compute_use_ssd compute_lane
        """,
    )
)
PLAIN = ("Integer", "Float", "Boolean", "String")

DRAWABLE = (".mrc", ".mrcs", ".ctf", ".map", ".st", ".tif", ".tiff", ".png", ".jpg", ".jpeg")

_PREFIX = re.compile(r"^\d+@")
_ITERATION = re.compile(r"(?:_it|_)(\d{3})_class(?:es|_averages)")
_ESCAPE = re.compile(r"\x1b\[[0-9;]*[A-Za-z]|[\x00-\x1f\x7f]+")
_VERSION = re.compile(r"pyworkflow: ?v?([\d.]+\w*)")

#: Dose (e⁻/Å²) up to which motion counts as early, as RELION has it.
EARLY = 4.0
#: Rows that one query takes; between two of them the writer may write.
CHUNK = 2000
#: Reading a growing file again from its start, for rows changed in place, takes at most this share of time.
SHARE = 0.02
#: So many of the newest pictures that are not there yet are looked for at every look.
RECENT = 500
#: So many files of pictures at most are looked for at one look.
LOOKED_FOR = 5000
#: How often coordinates that could not be read when they were to be sent are tried again.
ATTEMPTS = 10
#: Seconds that a lock on the project is waited for before the first look is given up.
FIRST_PATIENCE = 20.0
#: Seconds between the attempts to read a project that is being made.
PAUSE = 0.05


class Output(NamedTuple):
    """A set that a protocol made: its attribute's name, its class, its file and the prefix of its tables."""

    name: str
    kind: str
    file: str
    prefix: str
    micrographs: int | None = None  # the protocol that made the micrographs it lies on
    pixel_size: float | None = None  # Å
    size: tuple[int, int] | None = None  # width and height in pixels


class Protocol(NamedTuple):
    """One protocol of the project.

    ``inputs`` are (id of the protocol it takes from, class of what it takes), ``relatives`` the ids of all
    protocols that it or its outputs point to.
    """

    id: int
    classname: str
    label: str
    status: str
    folder: str
    error: str
    ended: str
    attributes: dict[str, Any]
    outputs: tuple[Output, ...]
    inputs: tuple[tuple[int, str], ...]
    relatives: frozenset[int]

    @property
    def name(self) -> str:
        return f"{self.id:06d}_{self.classname}"

    @property
    def is_over(self) -> bool:
        return STATUSES.get(self.status) in OVER

    def makes(self, kind: str) -> bool:
        return any(output.kind == kind for output in self.outputs)

    def takes(self, *kinds: str) -> bool:
        return any(kind.startswith(kinds) for _, kind in self.inputs)

    @property
    def estimates_ctf(self) -> bool:
        """Whether it makes CTFs of micrographs, as opposed to choosing among those of another protocol."""
        return self.makes("SetOfCTF") and self.takes("SetOfMicrographs", "SetOfMovies")

    @property
    def picks(self) -> bool:
        """Whether it makes coordinates, and not out of particles that were picked before."""
        return self.makes("SetOfCoordinates") and not self.takes("SetOfParticles", "SetOfClasses")

    @property
    def by_hand(self) -> bool:
        return self.attributes.get("interactive") is True or bool(BY_HAND.search(self.classname))

    @property
    def role(self) -> str:
        if self.classname == SUBSET:
            return "other"
        if self.makes("SetOfClasses2D"):
            return "class2d"
        if self.estimates_ctf:
            return "ctf"
        if self.picks:
            return "picking"
        if self.makes("SetOfCTF") or self.makes("SetOfCoordinates"):
            return "other"
        if self.makes("SetOfParticles"):
            return "extract" if self.takes("SetOfCoordinates") else "other"
        if not self.inputs and (self.makes("SetOfMovies") or self.makes("SetOfMicrographs")):
            return "import"
        return next((role for role, sign in ROLES if sign.search(self.classname)), "other")


class Node(NamedTuple):
    """One row of the project's tree of objects."""

    id: int
    parent: int | None
    name: str
    classname: str
    value: str | None
    label: str


class Tree:
    """The objects of a project database, by id and by parent."""

    def __init__(self, path: str, patience: float = 0.25):
        """Raises what ``sqlite.opened`` raises, ValueError also where it is no project's database."""
        self.nodes: dict[int, Node] = {}
        self.children: dict[int | None, list[Node]] = {}
        wanted = ("id", "parent_id", "name", "classname", "value", "label")
        with sqlite.opened(path, patience) as database:
            columns = database.columns("Objects")
            if not columns.issuperset(wanted[:5]):
                raise ValueError("it has no table of a Scipion project's objects")
            names = ", ".join(name if name in columns else "NULL" for name in wanted)
            rows = database.query(f"SELECT {names} FROM Objects ORDER BY id")
        for id_, parent, name, classname, value, label in rows:
            if not isinstance(id_, int) or not isinstance(classname, str):
                continue
            node = Node(
                id_,
                parent if isinstance(parent, int) else None,
                str(name or "").rsplit(".", 1)[-1],
                classname,
                None if value is None else str(value),
                str(label or ""),
            )
            self.nodes[id_] = node
            self.children.setdefault(node.parent, []).append(node)

    def protocols(self) -> dict[int, Protocol]:
        found = {}
        for root in self.children.get(None, ()):
            protocol = self.protocol(root.id)
            if protocol is not None:
                found[root.id] = protocol
        return found

    def protocol(self, id_: int) -> Protocol | None:
        """Return the protocol of this id, None where there is none."""
        root = self.nodes.get(id_)
        own = {node.name: node for node in self.children.get(id_, ())}
        if root is None or "status" not in own or "workingDir" not in own:
            return None
        outputs = []
        for node in own.values():
            if node.classname.startswith("SetOf"):
                output = self._output(node)
                if output is not None:
                    outputs.append(output)

        def text(name: str) -> str:
            return (own[name].value or "") if name in own else ""

        return Protocol(
            id=id_,
            classname=root.classname,
            label=root.label or root.classname,
            status=text("status"),
            folder=text("workingDir"),
            error=text("_error"),
            ended=text("endTime"),
            attributes=self._attributes(own.values()),
            outputs=tuple(outputs),
            inputs=tuple(self._inputs(id_)),
            relatives=frozenset(
                source for source, _ in self._pointers(id_, with_outputs=True) if source != id_
            ),
        )

    @staticmethod
    def _attributes(nodes: Iterable[Node]) -> dict[str, Any]:
        found = {}
        for node in nodes:
            if node.classname in PLAIN and not node.name.startswith("_"):
                value = _attribute(node)
                if value is not None and (node.name == "interactive" or node.name not in BOOKKEEPING):
                    found[node.name] = value
        return found

    def _output(self, node: Node) -> Output | None:
        place = next((child for child in self.children.get(node.id, ()) if child.name == "_mapperPath"), None)
        if place is None or not place.value:
            return None
        file, comma, prefix = place.value.rpartition(",")
        file, prefix = (file.strip(), prefix.strip()) if comma else (prefix.strip(), "")
        if not file or "\0" in file:
            return None
        children = {child.name: child for child in self.children.get(node.id, ())}
        lies_on = children.get("_micrographsPointer")
        pixel, size = children.get("_samplingRate"), children.get("_firstDim")
        return Output(
            node.name,
            node.classname,
            file,
            prefix,
            self._owner(_integer(lies_on.value)) if lies_on is not None else None,
            number(pixel.value) if pixel is not None else None,
            _size(size.value) if size is not None else None,
        )

    def _inputs(self, id_: int) -> Iterator[tuple[int, str]]:
        for source, kind in self._pointers(id_):
            if source != id_:
                yield source, kind

    def _pointers(self, id_: int, with_outputs: bool = False) -> Iterator[tuple[int, str]]:
        """Yield (protocol, class of the object) for what the objects under this one point to."""
        todo = [id_]
        seen = {id_}
        while todo:
            for node in self.children.get(todo.pop(), ()):
                if node.id in seen:
                    continue
                seen.add(node.id)
                if node.classname == "Pointer":
                    target = _integer(node.value)
                    owner = self._owner(target)
                    if owner is not None and target is not None:
                        yield owner, self._class_of(target, node)
                elif with_outputs or not node.classname.startswith("SetOf"):
                    todo.append(node.id)

    def _class_of(self, target: int, pointer: Node) -> str:
        """Return the class of what a pointer means: an object itself, or a protocol's output by its name."""
        extended = next(
            (child.value for child in self.children.get(pointer.id, ()) if child.name == "_extended"), None
        )
        if not extended:
            return self.nodes[target].classname
        name = extended.split(".")[0]
        found = next((node.classname for node in self.children.get(target, ()) if node.name == name), None)
        # What is being done anew has no outputs for a while; their names tell what they will be.
        return found or next((kind for sign, kind in NAMED if sign in name), "")

    def _owner(self, id_: int | None) -> int | None:
        """Return the root that an object lies under: its protocol."""
        for _ in range(100):  # a broken tree may go round in circles
            node = self.nodes.get(id_) if id_ is not None else None
            if node is None:
                return None
            if node.parent is None:
                return node.id
            id_ = node.parent
        return None


class Project:
    """The protocols and what each descends from."""

    def __init__(self, protocols: dict[int, Protocol]):
        self.protocols = protocols
        self.sources = {
            id_: {other for other in protocol.relatives if other in protocols}
            for id_, protocol in protocols.items()
        }
        self.children: dict[int, set[int]] = {}
        for id_, sources in self.sources.items():
            for source in sources:
                self.children.setdefault(source, set()).add(id_)

    def ancestors(self, id_: int) -> set[int]:
        return self._follow(id_, self.sources, stop=False)

    def descendants(self, id_: int) -> set[int]:
        """Return the protocols that work on this one's results, up to the next that estimates CTFs."""
        return self._follow(id_, self.children, stop=True)

    def _follow(self, id_: int, edges: Mapping[int, set[int]], stop: bool) -> set[int]:
        found: set[int] = set()
        todo = [id_]
        while todo:
            for other in edges.get(todo.pop(), ()):
                if other not in found and other != id_:
                    if stop and self.protocols[other].estimates_ctf:
                        continue
                    found.add(other)
                    todo.append(other)
        return found


class Branch(NamedTuple):
    """The protocols of one run, by id; ``own`` is the first that is in no other branch before."""

    key: str
    own: int
    protocols: tuple[int, ...]
    is_main: bool


class NoPicks(Deferred):
    """A micrograph on which a finished picker found nothing."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, NoPicks)

    def __hash__(self) -> int:
        return 0

    def load(self) -> dict[str, Any]:
        return {"coordinates": [], "particles": 0}


class Picks(Deferred):
    """The coordinates of one micrograph in a set file, in pixels of the micrograph.

    They are known by the ranges of ids they have there, which is two numbers where a picker writes micrograph
    by micrograph.
    """

    __slots__ = ("attempt", "count", "digest", "name", "ranges", "table")

    def __init__(self, table: PickTable, name: str):
        self.table, self.name = table, name
        self.count = self.digest = self.attempt = 0
        self.ranges = array("q")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Picks) and self._identity == other._identity

    def __hash__(self) -> int:
        return hash(self._identity)

    @property
    def _identity(self) -> tuple:
        return (id(self.table), self.count, self.digest, self.attempt)

    def add(self, rows: list[tuple]) -> None:
        """Take rows that begin with their id, in the order of their ids."""
        self.count += len(rows)
        self.digest = (self.digest + sum(map(hash, rows))) & 0xFFFFFFFFFFFFFFFF
        first, last = rows[0][0], rows[-1][0]
        if last - first == len(rows) - 1:
            self._add_range(first, last)
        else:
            for row in rows:
                self._add_range(row[0], row[0])

    def _add_range(self, first: int, last: int) -> None:
        if self.ranges and self.ranges[-1] == first - 1:
            self.ranges[-1] = last
        else:
            self.ranges.extend((first, last))

    def copy(self) -> Picks:
        found = Picks(self.table, self.name)
        found.count, found.digest, found.attempt = self.count, self.digest, self.attempt
        found.ranges = self.ranges[:]
        return found

    def load(self) -> dict[str, Any]:
        try:
            points = list(self.table.points(self))
        except OSError:
            self.table.retell(self)
            raise
        return {"coordinates": points, "particles": len(points)}


class Layout:
    """Where the columns of a set file are: its ``Classes`` table, and the set's own properties."""

    def __init__(self, database: sqlite.Database, prefix: str):
        start = f"{prefix}_" if prefix and not prefix.endswith("_") else prefix
        self.objects, classes = f"{start}Objects", f"{start}Classes"
        if not {"label_property", "column_name"} <= database.columns(classes):
            raise ValueError(f"it has no table {classes} that says what its columns are")
        self.own = database.columns(self.objects)
        if "id" not in self.own:
            raise ValueError(f"it has no table {self.objects}")
        self.columns = {
            str(label): str(column)
            for label, column in database.query(
                f"SELECT label_property, column_name FROM {sqlite.quoted(classes)}"
            )
            if str(column) in self.own
        }
        self.properties: dict[str, str] = {}
        if {"key", "value"} <= database.columns(f"{start}Properties"):
            self.properties = {
                str(key): str(value)
                for key, value in database.query(
                    f"SELECT key, value FROM {sqlite.quoted(start + 'Properties')}"
                )
                if value is not None
            }

    def select(self, labels: Iterable[str]) -> tuple[list[str], str]:
        """Return the labels that the file has, and a query's columns: id, enabled and theirs."""
        known = [label for label in labels if label in self.columns]
        names = ["id", "enabled" if "enabled" in self.own else "1"]
        names += [sqlite.quoted(self.columns[label]) for label in known]
        return known, f"SELECT {', '.join(names)} FROM {sqlite.quoted(self.objects)}"


class SetTable:
    """The items of one set file, followed as it grows.

    New rows are found by their id. For rows that were changed in place a file that has changed is now and
    then read again from its start, which takes no more than ``SHARE`` of the time.
    """

    LABELS: tuple[str, ...] = ()

    def __init__(self, reader: ScipionReader, protocol: Protocol, output: Output):
        self.reader, self.protocol, self.output = reader, protocol, output
        self.rows: dict[str, dict[str, Any]] = {}
        self.properties: dict[str, str] = {}
        self.serial = 0
        self.changes: deque[tuple[int, list[str]]] = deque(maxlen=8)
        self._state: tuple | None = None
        self._broken: tuple | None = None
        self._edges: tuple = (None, None)  # the first and the last row as they were
        self._selection: tuple[list[str], str] = ([], "")  # labels, and the query for their columns
        self._last = None
        self._is_doubted = False
        self._next_whole = 0.0

    def since(self, serial: int) -> Iterable[str]:
        """Return the names of the items that changed after this serial; of all where that is long ago."""
        if serial == self.serial:
            return ()
        if not self.changes or self.changes[0][0] > serial + 1:
            return list(self.rows)
        return [name for number, names in self.changes if number > serial for name in names]

    def refresh(self, protocol: Protocol, output: Output) -> None:
        self.protocol, self.output = protocol, output
        try:
            path = self.reader.folder.path(output.file)
        except (OutsideError, ValueError) as error:
            self.reader.warn(output.file, error)
            return
        state = (path, output.prefix, protocol.is_over, self.judge(), sqlite.state_of(path))
        if state[-1] is None:
            if protocol.is_over and self._state is None:
                self.reader.warn(output.file, "the project names this file, and it is not there")
            return
        if state == self._broken or (
            state == self._state and not (self._is_doubted and time.monotonic() >= self._next_whole)
        ):
            return
        try:
            with sqlite.opened(path) as database:
                touched = self._read(database, state)
        except sqlite.Busy as error:
            log.debug("%s: %s; left for the next look", output.file, error)
            return
        except OSError as error:
            self.reader.warn(output.file, error)
            return
        except ValueError as error:
            self._broken = state
            self.reader.warn(output.file, error)
            return
        self._state = state
        self.touch(touched)

    def touch(self, names: list[str]) -> None:
        if names:
            self.serial += 1
            self.changes.append((self.serial, names))

    def _read(self, database: sqlite.Database, state: tuple) -> list[str]:
        layout = Layout(database, state[1])
        labels, query = self._selection = layout.select(self.LABELS)
        started = time.monotonic()
        is_whole = (
            self._state is None
            or state[:-1] != self._state[:-1]
            or started >= self._next_whole
            or not self._goes_on(database, query, labels)
        )
        if is_whole:
            self._edges, self._last = (None, None), None
        self.begin(is_whole, layout)
        try:
            for rows in self._chunks(database, query):
                self.take_all(labels, rows)
        except BaseException:
            # What was taken so far is told; the next look starts from the beginning.
            self._state, self._next_whole = None, 0.0
            raise
        touched = self.end(state[2])
        if is_whole:
            self._is_doubted = False
            self._next_whole = time.monotonic() + (time.monotonic() - started) / SHARE
        else:
            self._is_doubted = True
        return touched

    def _goes_on(self, database: sqlite.Database, query: str, labels: list[str]) -> bool:
        """Whether the file still begins and ends, up to what was read, as it did."""
        return self._edges[0] is not None and all(
            database.query(f"{query} WHERE id = ?", edge[1][0]) == [edge[1]] and edge[0] == labels
            for edge in self._edges
        )

    def _chunks(self, database: sqlite.Database, query: str) -> Iterator[list[tuple]]:
        labels = [label for label in self.LABELS if label in self._columns]
        while True:
            if self._last is None:
                found = database.query(f"{query} ORDER BY id LIMIT {CHUNK}")
            else:
                found = database.query(f"{query} WHERE id > ? ORDER BY id LIMIT {CHUNK}", self._last)
            rows = [row for row in found if isinstance(row[0], int)]
            if rows:
                self._last = rows[-1][0]
                self._edges = (self._edges[0] or (labels, rows[0]), (labels, rows[-1]))
                yield rows
            if len(found) < CHUNK or len(rows) < len(found):
                return

    # what the kinds of sets do

    def judge(self) -> tuple:
        """Return what of its protocol decides how its rows are read."""
        return ()

    def begin(self, is_whole: bool, layout: Layout) -> None:
        self._columns = layout.columns
        self.properties = layout.properties
        self._is_whole = is_whole
        self._fresh: dict[str, dict[str, Any]] = {}

    def take_all(self, labels: list[str], rows: list[tuple]) -> None:
        for row in rows:
            try:
                self.take(row[0], dict(zip(labels, row[2:])), row[1])
            except (ValueError, TypeError, OverflowError, ArithmeticError) as error:
                self.reader.warn(self.output.file, f"row {row[0]} is left out: {error}")

    def take(self, id_: int, values: dict[str, Any], enabled: Any) -> None:
        raise NotImplementedError

    def end(self, is_over: bool) -> list[str]:
        """Bring ``rows`` up to date with what was taken; return the names that changed."""
        fresh, old = self._fresh, self.rows
        self._fresh = {}
        touched = []
        for name, fields in fresh.items():
            before = old.get(name)
            if before == fields:
                fresh[name] = before  # what was told holds it too
            else:
                touched.append(name)
        if not self._is_whole:
            old.update(fresh)
            return touched
        gone = [name for name in old if name not in fresh]
        if is_over:
            touched += gone
        else:
            # A file that has shrunk is being written anew: what was there stays until the protocol ends.
            fresh.update((name, old[name]) for name in gone)
        self.rows = fresh
        return touched


class ItemTable(SetTable):
    """A set with one row per movie or micrograph."""

    verdict: bool | None = None
    is_verdict_only = False

    def judge(self) -> tuple:
        # Of a protocol that sorts out, one output holds what it kept and another what it did not.
        if DISCARDED.search(self.output.name):
            self.verdict = True
        else:
            is_sorted = any(DISCARDED.search(other.name) for other in self.protocol.outputs)
            self.verdict = False if is_sorted else None
        self.is_verdict_only = self.output.kind == "SetOfCTF" and not self.protocol.estimates_ctf
        return (self.verdict, self.is_verdict_only)

    def take(self, id_: int, values: dict[str, Any], enabled: Any) -> None:
        name = self.name_of(values)
        if not name:
            self.reader.warn(self.output.file, f"row {id_} has no name and is left out")
            return
        fields = {} if self.is_verdict_only else self.fields(values)
        if self.verdict is not None:
            fields["rejected"] = self.verdict
        if enabled == 0:
            fields["rejected"] = True
        self._fresh[sys.intern(name)] = fields

    def name_of(self, values: dict[str, Any]) -> str:
        return _text(values.get("_micName")) or _base(values.get("_filename"))

    def fields(self, values: dict[str, Any]) -> dict[str, Any]:
        raise NotImplementedError

    def ids(self) -> dict[int, str]:
        """Return the items' names by their ids. Raises what ``sqlite.opened`` raises."""
        with sqlite.opened(self.reader.folder.path(self.output.file)) as database:
            labels, query = Layout(database, self.output.prefix).select(("_micName", "_filename"))
            rows = database.query(query)
        return {row[0]: self.name_of(dict(zip(labels, row[2:]))) for row in rows}

    def property_number(self, name: str) -> float | None:
        return number(self.properties.get(name))


class MovieTable(ItemTable):
    """Movies as imported, or with the shifts of their frames once they are aligned."""

    LABELS = (
        "_micName",
        "_filename",
        "_samplingRate",
        "_acquisition._dosePerFrame",
        "_acquisition._doseInitial",
        "_alignment._first",
        "_alignment._xshifts",
        "_alignment._yshifts",
    )

    def fields(self, values: dict[str, Any]) -> dict[str, Any]:
        x, y = values.get("_alignment._xshifts"), values.get("_alignment._yshifts")
        if not isinstance(x, str) or not isinstance(y, str) or not x.strip() or not y.strip():
            return {}
        pixel = number(values.get("_samplingRate")) or self.property_number("_samplingRate")
        if not pixel or pixel < 0:
            self.reader.warn(
                self.output.file, "shifts are in pixels and no pixel size is known: motion is left out"
            )
            return {}
        name = "_acquisition._dosePerFrame"
        dose = number(values.get(name)) or self.property_number(name)
        name = "_acquisition._doseInitial"
        before = number(values.get(name)) or self.property_number(name) or 0.0
        if dose and str(values.get("_filename")).lower().endswith(".eer"):
            # The dose is that of a frame of the camera, of which so many make one that is aligned.
            group = self.protocol.attributes.get("eerGroup")
            dose = dose * group if isinstance(group, int) and group > 0 else None
        first = number(values.get("_alignment._first")) or 1
        return motion(_floats(x), _floats(y), pixel, dose, before, int(first))


def motion(
    x: list[float], y: list[float], pixel: float, dose: float | None, before: float = 0.0, first: int = 1
) -> dict[str, Any]:
    """Return the lengths (Å) of the path that a movie's frames took.

    ``x`` and ``y`` are the shifts (pixels) of the frames from ``first`` on, ``pixel`` is in Å, ``dose`` in
    e⁻/Å² per frame, ``before`` that of before the first frame of the movie. Early is the way up to the last
    frame that ends within 4 e⁻/Å², as RELION and Scipion's MotionCor plugin count it; without a dose it is
    not known.

    Raises ValueError where the two lists do not belong together.
    """
    if len(x) != len(y):
        raise ValueError(f"{len(x)} shifts in x and {len(y)} in y")
    if len(x) < 2:
        return {}
    steps = [math.hypot(x[k] - x[k - 1], y[k] - y[k - 1]) * pixel for k in range(1, len(x))]
    found: dict[str, Any] = {"motion_total": math.fsum(steps)}
    if dose and dose > 0:
        last = int((EARLY - before) // dose)  # number of the last early frame, from 1
        early = max(0, last - first)  # steps up to it
        found["motion_early"] = math.fsum(steps[:early])
        found["motion_late"] = math.fsum(steps[early:])
    return {name: value for name, value in found.items() if math.isfinite(value)}


class MicrographTable(ItemTable):
    """Micrographs: their pictures, and their motion where a plugin writes it beside them."""

    LABELS = (
        "_micName",
        "_filename",
        "_samplingRate",
        "_powerSpectra._filename",
        "psdCorr._filename",
        "_rlnAccumMotionTotal",
        "_rlnAccumMotionEarly",
        "_rlnAccumMotionLate",
    )

    def fields(self, values: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        file = _file(values.get("_filename"))
        if file:
            found["image"] = file
        for label in ("_powerSpectra._filename", "psdCorr._filename"):
            spectrum = _file(values.get(label))
            if spectrum:
                found["spectrum"] = spectrum
                break
        scale = self._motion_scale(values)
        if scale:
            for name, label in (("total", "Total"), ("early", "Early"), ("late", "Late")):
                value = number(values.get(f"_rlnAccumMotion{label}"))
                if value is not None and value >= 0:
                    found[f"motion_{name}"] = value * scale
        return found

    def _motion_scale(self, values: dict[str, Any]) -> float | None:
        """Return what the plugin's motion is to be multiplied by to be in Å; None where nobody knows."""
        if self.protocol.classname.startswith("ProtMotionCorr"):
            return 1.0
        if self.protocol.classname == "ProtRelionMotioncor":
            # RELION's own numbers: pixels of the movie, whatever their name says.
            pixel = number(values.get("_samplingRate")) or self.property_number("_samplingRate")
            binning = number(self.protocol.attributes.get("binFactor")) or 1.0
            return pixel / binning if pixel and binning > 0 else None
        return None


class CtfTable(ItemTable):
    """CTF estimates: defocus in Å (underfocus positive), angles in degrees, resolution in Å."""

    LABELS = (
        "_defocusU",
        "_defocusV",
        "_defocusAngle",
        "_phaseShift",
        "_resolution",
        "_fitQuality",
        "_rlnIceRingDensity",
        "_psdFile",
        "_micObj._micName",
        "_micObj._filename",
        "_micObj._samplingRate",
    )

    def name_of(self, values: dict[str, Any]) -> str:
        return _text(values.get("_micObj._micName")) or _base(values.get("_micObj._filename"))

    def fields(self, values: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        # Scipion writes -999 and -1 where a program failed.
        failed = number(values.get("_defocusU")) == -999 and number(values.get("_defocusV")) == -1
        for field, label in (
            ("defocus_u", "_defocusU"),
            ("defocus_v", "_defocusV"),
            ("defocus_angle", "_defocusAngle"),
            ("phase_shift", "_phaseShift"),
            ("ctf_resolution", "_resolution"),
            ("ctf_score", "_fitQuality"),
            ("ice_thickness", "_rlnIceRingDensity"),
        ):
            value = None if failed else number(values.get(label))
            if value is None or (field == "ctf_resolution" and value <= 0):
                continue
            if field == "ctf_score" and value == -999:
                continue
            found[field] = value
        image, spectrum = _file(values.get("_micObj._filename")), _file(values.get("_psdFile"))
        if image:
            found["image"] = image
        if spectrum:
            found["fit"] = spectrum
        return found


class PickTable(SetTable):
    """Picked coordinates, in pixels of the micrographs they lie on."""

    LABELS = ("_x", "_y", "_micName", "_micId")

    def __init__(self, reader: ScipionReader, protocol: Protocol, output: Output):
        super().__init__(reader, protocol, output)
        self._picks: dict[str, Picks] = {}
        self._empty: tuple | None = None

    def begin(self, is_whole: bool, layout: Layout) -> None:
        super().begin(is_whole, layout)
        self._names: dict[int, str] | None = None
        self._new: dict[str, Picks] = {}

    def take_all(self, labels: list[str], rows: list[tuple]) -> None:
        # There are millions of these: they are taken by micrograph.
        if "_x" not in labels or "_y" not in labels:
            raise ValueError("it has no coordinates")
        x, y = labels.index("_x") + 2, labels.index("_y") + 2
        kinds = (int, float)
        good = [
            row
            for row in rows
            if row[1] != 0
            and (type(row[x]) in kinds or number(row[x]) is not None)
            and (type(row[y]) in kinds or number(row[y]) is not None)
        ]
        place = labels.index("_micName") + 2 if "_micName" in labels else 1
        id_place = labels.index("_micId") + 2 if "_micId" in labels else 1
        for name, group in groupby(good, key=itemgetter(place)):
            if isinstance(name, str) and name.strip():
                self._add(name.strip(), list(group))
            else:
                for id_, own in groupby(group, key=itemgetter(id_place)):
                    self._add(self._name_by_id(id_), list(own))

    def _name_by_id(self, id_: Any) -> str:
        if self._names is None:
            self._names = self.reader.names_by_id(self.output.micrographs)
        return self._names.get(id_, "") if isinstance(id_, int) else ""

    def _add(self, name: str, rows: list[tuple]) -> None:
        if not name:
            self.reader.warn(self.output.file, "coordinates whose micrograph is not known are left out")
            return
        picks = self._new.get(name)
        if picks is None:
            name = sys.intern(name)
            known = None if self._is_whole else self._picks.get(name)
            # A copy: the one before may be waiting to be sent.
            picks = self._new[name] = known.copy() if known else Picks(self, name)
        picks.add(rows)

    def end(self, is_over: bool) -> list[str]:
        for name, picks in self._new.items():
            known = self._picks.get(name)
            if known is not None:
                picks.attempt = known.attempt
        if self._is_whole and is_over:
            self._picks = self._new
        else:
            self._picks.update(self._new)
        self._fresh = {name: {"picks": picks} for name, picks in self._new.items()}
        if self._is_whole:
            none = {"picks": NoPicks()}
            for name, fields in self.rows.items():
                if fields == none:
                    self._fresh.setdefault(name, fields)
        self._new = {}
        return super().end(is_over)

    def count_empty(self, micrographs: Iterable[SetTable]) -> None:
        """Once a program has picked through a whole set, the micrographs it left out have no particles."""
        tables = list(micrographs)
        if not self.protocol.is_over or STATUSES[self.protocol.status] != "finished" or self.protocol.by_hand:
            return
        state = (self.serial, tuple((id(table), table.serial) for table in tables))
        if self._state is None or state == self._empty:
            return
        empty = []
        for table in tables:
            for name in table.rows:
                if name not in self.rows:
                    self.rows[name] = {"picks": NoPicks()}
                    empty.append(name)
        self.touch(empty)
        self._empty = (self.serial, state[1])

    def points(self, picks: Picks) -> Iterator[list[float]]:
        """Yield the coordinates. Raises OSError and ValueError where they cannot be read."""
        path = self.reader.folder.path(self.output.file)
        opened = sqlite.opened if self.reader.held is None else self.reader.held.opened
        with opened(path, patience=5.0) as database:
            # As the file was when these were found; of one that has other columns since, they are found anew.
            labels, query = self._selection
            x_place, y_place = labels.index("_x") + 2, labels.index("_y") + 2
            ranges = picks.ranges
            spans = [(ranges[k], ranges[k + 1]) for k in range(0, len(ranges), 2)]
            wanted = None
            if len(spans) > 20:
                wanted = {id_ for first, last in spans for id_ in range(first, last + 1)}
                spans = [(spans[0][0], spans[-1][1])]
            for first, last in spans:
                for row in database.query(f"{query} WHERE id BETWEEN ? AND ? ORDER BY id", first, last):
                    x, y = number(row[x_place]), number(row[y_place])
                    if (wanted is None or row[0] in wanted) and x is not None and y is not None:
                        yield [round(x, 2), round(y, 2)]

    def retell(self, picks: Picks) -> None:
        """These could not be read when they were to be sent: they count as changed at the next look."""
        known = self._picks.get(picks.name)
        if known is not None and known.attempt < ATTEMPTS:
            again = known.copy()
            again.attempt += 1
            self._picks[picks.name] = again
            self.rows[picks.name] = {"picks": again}
            self.touch([picks.name])


TABLES = {
    "SetOfMicrographs": MicrographTable,
    "SetOfMovies": MovieTable,
    "SetOfCTF": CtfTable,
    "SetOfCoordinates": PickTable,
}
# Of two tables that know a field the later in this order counts.
ORDER = list(TABLES)


class ClassTable:
    """The 2D classes of one protocol."""

    LABELS = (
        "_size",
        "_representative._index",
        "_representative._filename",
        "_rlnEstimatedResolution",
        "_resolution",
    )

    def __init__(self, reader: ScipionReader):
        self.reader = reader
        self.found: ClassSet | None = None
        self.pictures: list[Picture] = []
        self.state: tuple | None = None
        self._broken: tuple | None = None

    def refresh(self, protocol: Protocol, output: Output) -> None:
        try:
            path = self.reader.folder.path(output.file)
        except (OutsideError, ValueError) as error:
            self.reader.warn(output.file, error)
            return
        state = (path, output.prefix, sqlite.state_of(path))
        if state[2] is None or state in (self.state, self._broken):
            if state[2] is None and protocol.is_over and self.state is None:
                self.reader.warn(output.file, "the project names this file, and it is not there")
            return
        try:
            with sqlite.opened(path) as database:
                layout = Layout(database, output.prefix)
                labels, query = layout.select(self.LABELS)
                rows = database.query(f"{query} ORDER BY id LIMIT 100000")
        except sqlite.Busy as error:
            log.debug("%s: %s; left for the next look", output.file, error)
            return
        except (OSError, ValueError) as error:
            if isinstance(error, ValueError):
                self._broken = state
            self.reader.warn(output.file, error)
            return
        self.state = state
        self._take(protocol, [(row[0], dict(zip(labels, row[2:]))) for row in rows])

    def _take(self, protocol: Protocol, rows: list[tuple[Any, dict[str, Any]]]) -> None:
        classes, pictures = [], []
        iteration = 0
        models: dict[str, dict[int, float]] = {}
        for id_, values in rows:
            size = number(values.get("_size"))
            if not isinstance(id_, int) or id_ < 1 or size is None or size < 0:
                continue
            stack = _file(values.get("_representative._filename"))
            section = _integer(values.get("_representative._index"))
            resolution = number(values.get("_rlnEstimatedResolution")) or number(values.get("_resolution"))
            if stack:
                match = _ITERATION.search(os.path.basename(stack))
                iteration = max(iteration, int(match.group(1)) if match else 0)
                if resolution is None and section is not None:
                    if stack not in models:
                        models[stack] = self._resolutions(stack)
                    resolution = models[stack].get(section)
            if resolution is not None and not 0 < resolution < 1000:
                resolution = None
            classes.append({"number": id_, "particles": int(size), "resolution": resolution})
            if stack and size > 0 and section is not None and section >= 1:
                pictures.append((id_, stack, section))
        if not classes:
            return
        job = protocol.name
        self.found = ClassSet(job, iteration, classes)
        self.pictures = []
        for id_, stack, section in pictures:
            path = self.reader.drawable(stack)
            if path is not None:
                self.pictures.append(
                    Picture("class_average", path, job=job, iteration=iteration, number=id_, section=section)
                )

    def _resolutions(self, stack: str) -> dict[int, float]:
        """Return {section: Å} of RELION's own table beside the class averages, where there is one."""
        if not stack.endswith("_classes.mrcs"):
            return {}
        found = {}
        try:
            path = self.reader.folder.path(stack[: -len("_classes.mrcs")] + "_model.star")
            for item in star.read(path, ("model_classes",)):
                if isinstance(item, star.Row):
                    section = _integer((item.get("rlnReferenceImage") or "").split("@")[0])
                    value = star.number(item.get("rlnEstimatedResolution"))
                    if section is not None and value is not None:
                        found[section] = value
        except (OSError, ValueError):
            pass  # RELION's folder may have been cleaned; Scipion's table stands without it
        return found


class Told:
    """What of one run has been told already."""

    def __init__(self) -> None:
        self.tables: tuple[SetTable, ...] = ()
        self.serials: dict[int, int] = {}
        self.has_ctf = False
        #: What each table had of a micrograph: the rows themselves, which are replaced and never changed.
        self.micrographs: dict[str, tuple] = {}
        #: Pictures to be given when there is room, and those whose file was not there when there was.
        self.todo: deque[tuple[str, str]] = deque()
        self.missing: deque[tuple[str, str]] = deque(maxlen=RECENT)
        self.classes: dict[str, tuple | None] = {}
        self.events: set[tuple[str, str]] = set()


class ScipionReader(Reader):
    """Follows the Scipion 3 project in the folder ``place``.

    ``key`` stands for the project in its runs' keys; without it the folder's name does. Raises ReaderError
    where there is no project.
    """

    software = "Scipion"
    SETTINGS: Mapping[str, str] = {
        "follow_links": "true to follow links that lead out of the project's folder (default false)",
    }

    def __init__(self, place: str, key: str | None = None, settings: Mapping[str, Any] | None = None):
        settings = dict(settings or {})
        follow_links = settings.pop("follow_links", False)
        for name in settings:
            raise ReaderError(f"Scipion has no setting {name}; it has {', '.join(self.SETTINGS)}.")
        if not isinstance(follow_links, bool):
            raise ReaderError("The setting follow_links is either true or false.")
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
        self._warned: set[tuple[str, str]] = set()
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

    def warn(self, name: str, reason: object) -> None:
        """Log once that something was left out, and why."""
        if (name, str(reason)) not in self._warned:
            self._warned.add((name, str(reason)))
            log.warning("%s: %s", name, reason)

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
        for attempt in range(10):
            try:
                return Tree(path, FIRST_PATIENCE)
            except ValueError:
                if attempt == 9:
                    raise
                time.sleep(PAUSE)
        raise AssertionError

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
        self._find_pictures(news, told)
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
                told.todo.append((kind, name))
        for key in PICTURES:
            changed.pop(key, None)
        if before is not None:
            changed.update(_cleared({key: None for key in before if key not in fields}))
        if changed or before is None:
            news.micrographs[name] = changed

    def _find_pictures(self, news: RunNews, told: Told) -> None:
        """Give as many pictures as there is room for, the newest last because they are sent first."""
        waiting = len(told.missing)
        looked_for = 0
        while len(news.pictures) < self.room and (waiting or (told.todo and looked_for < LOOKED_FOR)):
            if waiting:
                waiting -= 1
                self._tell_picture(news, told, *told.missing.popleft())
            else:
                looked_for += 1
                self._tell_picture(news, told, *told.todo.pop())
        news.pictures.reverse()

    def _tell_picture(self, news: RunNews, told: Told, kind: str, name: str) -> None:
        fields = _merged(told.micrographs.get(name, ()))
        # The estimate's own picture shows the fit; a plain spectrum is second choice, and waits for the CTF
        # so that no picture is sent twice.
        if kind == "psd" and told.has_ctf and "fit" not in fields:
            return
        files = [fields.get(key) for key in (("image",) if kind == "micrograph" else ("fit", "spectrum"))]
        paths = [path for path in map(self.drawable, filter(None, files)) if path is not None]
        for path in paths:
            if os.path.exists(path) and (self.folder.follow_links or not self._leads_out(path)):
                news.pictures.append(Picture(kind, path, micrograph=name))
                return
        if paths:
            told.missing.append((kind, name))

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
        reason = next((line for line in map(_plain, protocol.error.splitlines()) if line), "")
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
            "label": _plain(self.name if branch.is_main else f"{self.name}, {own.label}"),
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
            size = _size(properties.get("_firstDim")) or output.size
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


def number(value: Any) -> float | None:
    """Return a finite number, or None where there is none."""
    if isinstance(value, str):
        return star.number(value.strip())
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            found = float(value)
        except OverflowError:
            return None
        return found if math.isfinite(found) else None
    return None


def _size(text: Any) -> tuple[int, int] | None:
    """Return width and height of what Scipion writes as ``5760,4092,1``."""
    parts = [number(part) for part in str(text or "").split(",")[:2]]
    if len(parts) < 2 or not all(part and 1 <= part <= 1_000_000 for part in parts):
        return None
    return int(parts[0] or 0), int(parts[1] or 0)


def _integer(value: Any) -> int | None:
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        return None


def _is_positive(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < 100_000


def _floats(text: str) -> list[float]:
    """Return a comma list as numbers. Raises ValueError where something else is in it."""
    found = [float(part) for part in text.split(",")]
    if not all(map(math.isfinite, found)):
        raise ValueError("a shift that is no finite number")
    return found


def _attribute(node: Node) -> Any:
    """Return a plain attribute of a protocol as what its class says; None where it is empty."""
    value = node.value
    if value is None or value == "":
        return None
    if node.classname == "Boolean":
        return value.strip().lower() in ("1", "true")
    if node.classname == "String":
        return _plain(value)[:200] or None
    found = number(value)
    if found is None:
        return None
    return int(found) if node.classname == "Integer" and found.is_integer() else found


def _text(value: Any) -> str:
    return value.strip() if isinstance(value, str) else ""


def _base(value: Any) -> str:
    return os.path.basename(_file(value) or "")


def _file(value: Any) -> str | None:
    """Return the path in a file's location: ``3@a.mrcs`` and ``a.ctf:mrc`` carry more than it."""
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        return None
    path = _PREFIX.sub("", value.strip())
    return path[:-4] if path.endswith((":mrc", ":map")) else path.removesuffix(":mrcs")


def _plain(text: str) -> str:
    return _ESCAPE.sub(" ", text).strip()


def _moment(text: str) -> str | None:
    """Return a time as Scipion writes it (of the clock on the wall) in ISO 8601 with offset."""
    try:
        return datetime.fromisoformat(text.strip()).astimezone().isoformat(timespec="seconds")
    except (ValueError, OverflowError, OSError):
        return None
