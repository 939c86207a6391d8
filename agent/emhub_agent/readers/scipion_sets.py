"""The set files that Scipion's protocols write: movies, micrographs, CTFs, coordinates and 2D classes.

Each is an SQLite database of its own, whose columns are mapped through its ``Classes`` table. It is read
again only when it changes, and then from where reading had got to.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import time
from abc import ABC, abstractmethod
from array import array
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Callable

from .. import sqlite, star
from ..motion import motion
from .base import ClassSet, Deferred, OutsideError, Picture
from .scipion_project import STATUSES, Output, Protocol, integer, number

if TYPE_CHECKING:
    from .scipion import ScipionReader

log = logging.getLogger(__name__)

DISCARDED = re.compile(r"discarded|rejected", re.IGNORECASE)

_PREFIX = re.compile(r"^\d+@")
_ITERATION = re.compile(r"(?:_it|_)(\d{3})_class(?:es|_averages)")

#: Rows that one query takes; between two of them the writer may write.
CHUNK = 2000
#: Reading a growing file again from its start, for rows changed in place, takes at most this share of time.
SHARE = 0.02
#: How often coordinates that could not be read when they were to be sent are tried again.
ATTEMPTS = 10


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


class SetTable(ABC):
    """The items of one set file, followed as it grows: what each tells, by the name of its micrograph.

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
        self._last: int | None = None  # id of the last row that was read
        self._columns: dict[str, str] = {}
        self._is_whole = True  # whether the reading under way began at the file's start
        self._fresh: dict[str, dict[str, Any]] = {}  # what it found so far
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
        """Make ready for rows: for all there are, or (not ``is_whole``) for those that were added."""
        self._columns = layout.columns
        self.properties = layout.properties
        self._is_whole = is_whole
        self._fresh = {}

    @abstractmethod
    def take_all(self, labels: list[str], rows: list[tuple]) -> None:
        """Take up rows in the order of their ids: each the id, whether it is enabled, the labels' values.

        Raises ValueError where the set is none of its kind.
        """

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

    def take_all(self, labels: list[str], rows: list[tuple]) -> None:
        for row in rows:
            try:
                self._take(row[0], dict(zip(labels, row[2:])), row[1])
            except (ValueError, TypeError, OverflowError, ArithmeticError) as error:
                self.reader.warn(self.output.file, f"row {row[0]} is left out: {error}")

    def _take(self, id_: int, values: dict[str, Any], enabled: Any) -> None:
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

    @abstractmethod
    def fields(self, values: dict[str, Any]) -> dict[str, Any]:
        """Return the site's fields, in its units, and paths of pictures, from a row's values by label.

        Raises ValueError where the row is to be left out.
        """

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
        self._new: dict[str, Picks] = {}  # of the reading under way
        self._names: dict[int, str] | None = None  # of micrographs, by the ids that older sets give
        self._empty: tuple | None = None

    def begin(self, is_whole: bool, layout: Layout) -> None:
        super().begin(is_whole, layout)
        self._names, self._new = None, {}

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


TABLES: dict[str, Callable[[ScipionReader, Protocol, Output], SetTable]] = {
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
            section = integer(values.get("_representative._index"))
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
                    section = integer((item.get("rlnReferenceImage") or "").split("@")[0])
                    value = star.number(item.get("rlnEstimatedResolution"))
                    if section is not None and value is not None:
                        found[section] = value
        except (OSError, ValueError):
            pass  # RELION's folder may have been cleaned; Scipion's table stands without it
        return found


def _floats(text: str) -> list[float]:
    """Return a comma list as numbers. Raises ValueError where something else is in it."""
    return [float(part) for part in text.split(",")]


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
