"""What RELION's jobs write: tables of movies, motion, CTF, picks and selections, and 2D classes.

Each table is read again only when its file changes, and then from where it was; it remembers the names of
the rows that changed, so that a project of 50,000 micrographs that grows by ten costs ten. Sources of the
formats: the files themselves and RELION's own programs; where the label of a column and the program disagree
(motion is labelled Å and written in pixels) the program is followed.
"""

from __future__ import annotations

import os
import posixpath
import re
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from .. import star
from .base import ClassSet, Deferred, Signature
from .relion_pipeline import without_job

if TYPE_CHECKING:
    from .relion import RelionReader

CTF_COLUMNS = (
    ("defocus_u", "rlnDefocusU"),
    ("defocus_v", "rlnDefocusV"),
    ("defocus_angle", "rlnDefocusAngle"),
    ("phase_shift", "rlnPhaseShift"),
    ("ctf_resolution", "rlnCtfMaxResolution"),
    ("ctf_score", "rlnCtfFigureOfMerit"),
    ("ice_thickness", "rlnCtfIceRingDensity"),
)
MOTION_COLUMNS = (
    ("motion_total", "rlnAccumMotionTotal"),
    ("motion_early", "rlnAccumMotionEarly"),
    ("motion_late", "rlnAccumMotionLate"),
)

_MODEL = re.compile(r"^run(?:_ct\d+)?_it(\d+)_model\.star$")

# So many of the newest rows are looked at again at every look for files that came after their row.
RECENT = 500
# A file that has not changed for so many seconds is not being written.
SETTLED = 5.0


# Rows are kept by the ten thousand: as tuples that share the names of their fields.

Record = tuple

_SHAPES: dict[tuple[str, ...], tuple[str, ...]] = {}


def packed(fields: dict[str, Any]) -> Record:
    """Return the fields as a tuple: their names (one tuple for all rows alike), then their values."""
    shape = tuple(fields)
    return (_SHAPES.setdefault(shape, shape), *fields.values())


def items_of(record: Record) -> Iterable[tuple[str, Any]]:
    return zip(record[0], record[1:])


class PickFile(Deferred):
    """Coordinates in one STAR file, in micrograph pixels; ``name`` is relative to the project."""

    __slots__ = ("complete", "name", "reader", "size", "time")

    def __init__(self, reader: RelionReader, name: str, state: Signature, complete: bool):
        self.reader, self.name, self.complete = reader, name, complete
        self.time, self.size = state

    def _state(self) -> tuple:
        return (self.name, self.time, self.size)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PickFile) and self._state() == other._state()

    def __hash__(self) -> int:
        return hash(self._state())

    def load(self) -> dict[str, Any]:
        points = []
        is_table = False
        for item in star.read(self.reader.path(self.name), complete=self.complete):
            if isinstance(item, star.Row) and "rlnCoordinateX" in item.columns:
                is_table = True
                x, y = star.number(item.get("rlnCoordinateX")), star.number(item.get("rlnCoordinateY"))
                if x is not None and y is not None:
                    points.append([round(x, 2), round(y, 2)])
        if not is_table and not self.complete:
            raise ValueError("no coordinates yet")
        return {"coordinates": points, "particles": len(points)}


class PickCount(Deferred):
    """A count that some summary gave for coordinates that are not here."""

    __slots__ = ("count",)

    def __init__(self, count: int):
        self.count = count

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PickCount) and self.count == other.count

    def __hash__(self) -> int:
        return hash(self.count)

    def load(self) -> dict[str, Any]:
        return {"particles": self.count}


class Table(ABC):
    """What one job tells of micrographs, by their names, as records; read again when its files change.

    ``log`` names the rows that changed, in that order; when it is begun anew, ``epoch`` is raised and
    everything may have changed.
    """

    def __init__(self, reader: RelionReader, job: str):
        self.reader, self.job = reader, job
        self.rows: dict[str, Record] = {}
        self.epoch = 0
        self.log: list[str] = []
        self._tail = star.Tail()
        self._state: tuple | None = None

    @property
    def version(self) -> tuple[int, int]:
        return self.epoch, len(self.log)

    @property
    def was_read(self) -> bool:
        return self._state is not None

    def refresh(self, path: str | None, finished: bool) -> None:
        """Take up what changed in the job's result file, at ``path`` in the project (None: there is none)."""
        state = self.state_of(path, finished) if path else None
        if path is None or state is None or state == self._state:
            return
        try:
            self.read(path, finished)
        except OSError as error:
            self.reader.warn(path, error)
            return
        self._state = state

    def state_of(self, path: str, finished: bool) -> tuple | None:
        """Return what changes when there is something to read; None while there is nothing."""
        state = self.reader.signature(path)
        return None if state is None else (path, finished, state)

    @abstractmethod
    def read(self, path: str, finished: bool) -> None:
        """Bring ``rows`` up to date and ``tell`` which changed. Raises OSError where the file is not read."""

    def take(self, rows: dict[str, Record], is_whole: bool, finished: bool) -> None:
        """Keep these rows, which are all there are or were added, and log what changed."""
        if not is_whole:
            changed = [name for name, record in rows.items() if self.rows.get(name) != record]
            self.rows.update(rows)
        else:
            if not finished:
                # A shorter file is one that is being written anew: what was there stays until the job ends.
                for name, old in self.rows.items():
                    rows.setdefault(name, old)
            changed = [name for name, record in rows.items() if self.rows.get(name) != record]
            changed += [name for name in self.rows if name not in rows]
            self.rows = rows
        self.tell(changed)

    def tell(self, changed: list[str]) -> None:
        if len(self.log) + len(changed) > len(self.rows) + RECENT:
            self.epoch, self.log = self.epoch + 1, []
        else:
            self.log += changed


class RowTable(Table):
    """One row for each movie or micrograph in the job's own file, and since 3.1 its optics groups."""

    def __init__(self, reader: RelionReader, job: str):
        super().__init__(reader, job)
        self.optics: dict[str, star.Row] = {}

    def read(self, path: str, finished: bool) -> None:
        is_whole, items = self._tail.read(self.reader.path(path), finished)
        rows: dict[str, Record] = {}
        for item in items:
            if isinstance(item, star.Row):
                if item.block == "optics":
                    self.optics[item.get("rlnOpticsGroup") or ""] = item
                else:
                    found = self.row(item)
                    if found:
                        rows[found[0]] = packed(found[1])
        self.take(rows, is_whole, finished)

    @abstractmethod
    def row(self, row: star.Row) -> tuple[str, dict[str, Any]] | None:
        """Return a name and what the row tells of it, in the site's units; None to leave it out."""

    def pixel_size(self, row: star.Row) -> float | None:
        """Return the movie's pixel size in Å before any binning."""
        for source in (self.optics_of(row), row):
            if source:
                found = star.number(source.get("rlnMicrographOriginalPixelSize"))
                if found:
                    return found
        detector = star.number(row.get("rlnDetectorPixelSize"))  # µm, before 3.1
        magnification = star.number(row.get("rlnMagnification"))
        return 1e4 * detector / magnification if detector and magnification else None

    def optics_of(self, row: star.Row) -> star.Row | None:
        return self.optics.get(row.get("rlnOpticsGroup") or "") or next(iter(self.optics.values()), None)


def micrograph_of(row: star.Row) -> str | None:
    """Return the micrograph's name, one object for all tables that have it."""
    name = row.get("rlnMicrographName")
    return sys.intern(name) if name else None


class ImportTable(RowTable):
    """Movies (or micrographs) as they were imported."""

    def row(self, row: star.Row) -> tuple[str, dict[str, Any]] | None:
        if "rlnImageName" in row.columns or "rlnCoordinateX" in row.columns:
            return None  # particles were imported
        name = row.get("rlnMicrographMovieName")
        if name:
            return sys.intern(name), {}
        if "rlnMicrographCoordinates" in row.columns:
            return None
        name = micrograph_of(row)
        return (name, {"image": name}) if name else None


class MotionTable(RowTable):
    """Motion-corrected micrographs: their motion in Å and the movie each was made of."""

    def __init__(self, reader: RelionReader, job: str):
        super().__init__(reader, job)
        self.movies: dict[str, str] = {}
        self.geometry: dict[str, float] = {}
        self._unlinked: dict[str, str] = {}  # micrograph -> its own file, which does not name the movie yet

    def refresh(self, path: str | None, finished: bool) -> None:
        super().refresh(path, finished)
        # A file may come after the row that names it, or be cut when it is looked at first.
        found = []
        for name in list(self._unlinked)[-RECENT:]:
            self._link(name, self._unlinked[name])
            if name in self.movies:
                found.append(name)
        self.tell(found)

    def row(self, row: star.Row) -> tuple[str, dict[str, Any]] | None:
        name = micrograph_of(row)
        if not name:
            return None
        metadata = row.get("rlnMicrographMetadata")
        if metadata and name not in self.movies:
            self._link(name, metadata)
        fields = star.numbers(row, MOTION_COLUMNS)
        # Written in pixels of the movie, whatever the column's label says.
        scale = self.pixel_size(row) or self.geometry.get("rlnMicrographOriginalPixelSize")
        if fields and not scale:
            self.reader.warn(name, "its motion is in pixels and no pixel size is known, so it is left out")
            fields = {}
        found: dict[str, Any] = {key: value * scale for key, value in fields.items()} if scale else {}
        found["image"] = name
        spectrum = row.get("rlnCtfPowerSpectrum")
        if spectrum:
            found["spectrum"] = spectrum
        return name, found

    def _link(self, name: str, metadata: str) -> None:
        """Take the movie's name from the micrograph's own STAR file: the reliable link back."""
        movie = None
        try:
            for item in star.read(self.reader.path(metadata)):
                if item.block != "general":
                    break
                if isinstance(item, star.Pair):
                    if item.label == "rlnMicrographMovieName":
                        movie = item.value or None
                    value = star.number(item.value)
                    if value is not None:
                        self.geometry.setdefault(item.label, value)
        except FileNotFoundError:
            pass
        except OSError as error:
            self.reader.warn(metadata, error)
        if movie:
            self.movies[name] = sys.intern(movie)
            self._unlinked.pop(name, None)
        else:
            self._unlinked[name] = metadata


class CtfTable(RowTable):
    """CTF estimates: defocus in Å (underfocus positive), resolution in Å."""

    def row(self, row: star.Row) -> tuple[str, dict[str, Any]] | None:
        name = micrograph_of(row)
        if not name:
            return None
        found: dict[str, Any] = dict(star.numbers(row, CTF_COLUMNS))
        if "ctf_resolution" not in found:
            limit = star.number(row.get("rlnFinalResolution"))  # Gctf's own tables
            if limit is not None:
                found["ctf_resolution"] = limit
        image = row.get("rlnCtfImage")
        if image:
            found["spectrum"] = image.rsplit(":", 1)[0]  # ...ctf:mrc
        found["image"] = name
        return name, found


class PickTable(Table):
    """Picked coordinates: one file per micrograph, listed in a table or found by a suffix (3.1)."""

    def __init__(self, reader: RelionReader, job: str):
        super().__init__(reader, job)
        self.files: dict[str, str] = {}
        self.counts: dict[str, int] = {}
        self.finished = False
        self._summary_state: Signature | None = None
        self._source: str | None = None  # 3.1: the file whose micrographs were picked
        self._source_state: Signature | None = None

    def refresh(self, path: str | None, finished: bool) -> None:
        if self._source is not None and self.reader.signature(self._source) != self._source_state:
            self._state = None
        before = self._state
        self.finished = finished
        super().refresh(path, finished)
        if self._state is before:
            # Coordinates may be written after the table that names them: only the newest are looked at again.
            self.tell(self._look(list(self.files)[-RECENT:]))

    def read(self, path: str, finished: bool) -> None:
        suffix = re.match(r"coords_suffix_(\w+)\.star$", os.path.basename(path))
        if suffix:
            is_whole, files = self._by_suffix(path, suffix.group(1))
        else:
            is_whole, items = self._tail.read(self.reader.path(path), finished)
            files = dict(self._by_table(items))
        has_summary = self._summary()
        if finished and (is_whole or (self._state and not self._state[1])):
            # The job has ended: what its table does not name, or names no more, was not picked.
            known = {**({} if is_whole else self.files), **files}
            gone = [name for name in self.rows if name not in known]
            for name in gone:
                del self.rows[name]
            self.files = known
            self.tell(gone + self._look(list(known)))
        else:
            newest = [] if has_summary else list(self.files)[-RECENT:]
            self.files.update(files)
            names = list(self.files) if has_summary else [*newest, *files]
            self.tell(self._look(list(dict.fromkeys(names))))

    def _by_table(self, items: Iterable) -> Iterator[tuple[str, str]]:
        for item in items:
            if isinstance(item, star.Row):
                name, file = micrograph_of(item), item.get("rlnMicrographCoordinates")
                if name and file:
                    yield name, file

    def _by_suffix(self, path: str, suffix: str) -> tuple[bool, dict[str, str]]:
        """3.1: the file is plain text and names the STAR file whose micrographs were picked."""
        source = next(star.whole_lines(self.reader.path(path), complete=True), "").strip()
        files = {}
        if source:
            self._source, self._source_state = source, self.reader.signature(source)
            for item in star.read(self.reader.path(source)):
                name = micrograph_of(item) if isinstance(item, star.Row) else None
                if name:
                    stem = posixpath.splitext(without_job(name))[0]
                    files[name] = f"{self.job}/{stem}_{suffix}.star"
        return True, files

    def _summary(self) -> bool:
        """Take up how many particles RELION itself counted; return whether that is new."""
        # Written at the end, and not by every version.
        name = f"{self.job}/summary.star"
        state = self.reader.signature(name)
        if state is None or state == self._summary_state:
            return False
        try:
            for item in star.read(self.reader.path(name)):
                if isinstance(item, star.Row):
                    micrograph, count = micrograph_of(item), star.number(item.get("rlnGroupNrParticles"))
                    if micrograph and count is not None:
                        self.counts[micrograph] = int(count)
        except OSError as error:
            self.reader.warn(name, error)
            return False
        self._summary_state = state
        return True

    def _look(self, names: list[str]) -> list[str]:
        """Take up the coordinate files of these micrographs; return whose are new or changed."""
        changed = []
        for name in names:
            file = self.files[name]
            state = self.reader.signature(file)
            picks: Deferred | None = None
            if state is not None:
                if file.endswith(".star"):
                    picks = PickFile(self.reader, file, state, self.finished)
                else:
                    self.reader.warn(file, "coordinates are read from STAR files only")
            if picks is None and name in self.counts:
                picks = PickCount(self.counts[name])
            if picks is not None:
                record = packed({"picks": picks})
                if self.rows.get(name) != record:
                    self.rows[name] = record
                    changed.append(name)
        return changed


class SelectTable(Table):
    """A finished selection of micrographs: what of its input it kept, and what it left out.

    Where the input has grown since, what stands in it behind the last micrograph that was kept has not been
    looked at by anybody: nothing is said of it.
    """

    def state_of(self, path: str, finished: bool) -> tuple | None:
        source = self.reader.selected_from(self.job)
        if not finished or not source:
            return None
        kept, given = self.reader.signature(path), self.reader.signature(source)
        return None if kept is None or given is None else (path, source, kept, given)

    def read(self, path: str, finished: bool) -> None:
        source = self.reader.selected_from(self.job) or ""
        kept_at, given_at = self.reader.signature(path), self.reader.signature(source)
        kept = set(self._names(path))
        names = list(self._names(source))
        if kept_at and given_at and given_at[0] > kept_at[0]:
            last = max((place for place, name in enumerate(names) if name in kept), default=-1)
            names = names[: last + 1]
        yes, no = packed({"rejected": False}), packed({"rejected": True})
        self.take({name: yes if name in kept else no for name in names}, True, True)

    def _names(self, path: str) -> Iterator[str]:
        for item in star.read(self.reader.path(path), complete=True):
            name = micrograph_of(item) if isinstance(item, star.Row) else None
            if name:
                yield name


#: By the kind of the job; the order is that in which later ones have the last word on a field. Picks made by
#: hand are usually there to train a picker: they count where nothing else was picked.
TABLES: dict[str, type[Table]] = {
    "import": ImportTable,
    "motioncorr": MotionTable,
    "ctffind": CtfTable,
    "manualpick": PickTable,
    "autopick": PickTable,
    "select": SelectTable,
}
ORDER = {kind: place for place, kind in enumerate(TABLES)}


class Classes:
    """The newest finished iteration of one Class2D job."""

    def __init__(self, reader: RelionReader, job: str):
        self.reader, self.job = reader, job
        self.found: ClassSet | None = None
        self.stack: str | None = None
        self.state: tuple | None = None
        self._seen: dict[int, tuple] = {}

    def refresh(self, is_finished: bool) -> None:
        iterations = []
        try:
            for name in os.listdir(self.reader.path(self.job)):
                match = _MODEL.match(name)
                # Iteration 0 is the start: its classes hold no particles yet.
                if match and int(match.group(1)) > 0:
                    iterations.append((int(match.group(1)), name))
        except OSError:
            return
        for iteration, name in sorted(iterations, reverse=True)[:3]:
            stem = f"{self.job}/{name[: -len('_model.star')]}"
            files = [stem + end for end in ("_model.star", "_data.star", "_classes.mrcs")]
            state = (iteration, tuple(map(self.reader.signature, files)))
            if state == self.state:
                return
            if state[1][0] is None or state[1][1] is None:
                continue  # the particles' table comes after the model's
            if not is_finished and not self._is_settled(state):
                continue
            try:
                found = self._read(iteration, files[0], files[1])
            except (OSError, ValueError) as error:
                self.reader.warn(files[0], error)
                continue
            if found:
                self.state, self.found = state, found
                self.stack = self.reader.path(files[2]) if state[1][2] else None
                return

    def _is_settled(self, state: tuple) -> bool:
        """Whether nobody is writing these files: unchanged since the last look, or for some seconds."""
        newest = max(changed for changed, _ in filter(None, state[1])) / 1e9
        seen = self._seen.get(state[0])
        self._seen[state[0]] = state
        return state == seen or time.time() - newest > SETTLED

    def _read(self, iteration: int, model: str, data: str) -> ClassSet | None:
        expected = None
        rows: list[tuple[int, float | None]] = []
        for item in star.read(self.reader.path(model), ("model_general", "model_classes")):
            if isinstance(item, star.Pair):
                if item.label == "rlnNrClasses":
                    expected = star.number(item.value)
            else:
                image = item.get("rlnReferenceImage") or ""
                number = int(image.split("@")[0]) if "@" in image else len(rows) + 1
                rows.append((number, star.number(item.get("rlnEstimatedResolution"))))
        if not rows or (expected and len(rows) < expected):
            return None  # still being written
        counts: dict[str, int] = {}
        for item in star.read(self.reader.path(data), ("particles", "")):
            if isinstance(item, star.Row):
                of = item.get("rlnClassNumber")
                if of is not None:
                    counts[of] = counts.get(of, 0) + 1
        if not counts:
            return None
        classes = [
            {"number": number, "particles": counts.get(str(number), 0), "resolution": resolution}
            for number, resolution in rows
        ]
        return ClassSet(self.job, iteration, classes)
