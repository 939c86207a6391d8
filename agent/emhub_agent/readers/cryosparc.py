"""CryoSPARC projects and exports: the folders of jobs of versions 2 to 5, or loose .cs files.

Jobs are found by their ``job.json``; results are rows by a 64-bit uid, joined across a job's own files and
those it passes through; one CTF job with the jobs it descends from and those that descend from it is one
branch, and one branch is one run on the site. A folder of loose .cs files is one run. What CryoSPARC Live
measures is followed by the reader beside this one.

Units: defocus and resolution are written in Å, angles in radians; trajectories in pixels of the size given
beside their path. Sources: the files themselves, and the vendor's own library, cryosparc-tools.
"""

from __future__ import annotations

import logging
import math
import os
import posixpath
import re
import socket
import sys
import zlib
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import Any, ClassVar, NamedTuple

import numpy as np

from .. import cs
from ..motion import FIELDS as MOTION_FIELDS
from ..motion import motion
from .base import (
    ClassSet,
    Complaints,
    Deferred,
    Event,
    Folder,
    Picture,
    Reader,
    ReaderError,
    RunNews,
    Signature,
    flag,
    signature,
)

log = logging.getLogger(__name__)

# So many of the newest files that were named and were not there are looked for again at every look.
RECENT = 500
# Coordinates of more picks than this in one micrograph are not sent, only their number.
MOST_PICKS = 50_000
# So many exposures are worked on at once, and so many files of pictures at most looked for at one look.
BLOCK, LOOKED_FOR = 4096, 5000
# Loose files are looked for in so many folders below the one given, and so many of them are read.
DEPTH, MOST_FILES = 2, 2000

STATUSES = {
    "queued": "queued",
    "launched": "queued",
    "started": "running",
    "running": "running",
    "waiting": "running",
    "completed": "finished",
    "killed": "stopped",
    "failed": "failed",
}
# Jobs that wait for a person's clicks: they are "waiting" for as long as nobody closes them.
INTERACTIVE = re.compile(r"curate|inspect|select|manual|interactive")
KINDS_TOLD = re.compile(r"import|motion|ctf|pick|extract|class_?2d|curate|live", re.IGNORECASE)
DIAMETERS = ("diameter_max", "diameter", "par_diam")

PARTICLE_COLUMNS = (
    "uid",
    "blob/path",
    "location/micrograph_uid",
    "location/micrograph_path",
    "location/micrograph_shape",
    "location/center_x_frac",
    "location/center_y_frac",
)

_JOB = re.compile(r"^J\d{1,9}$")
_UID = re.compile(r"^(\d{15,21})_")
_SUFFIX = re.compile(
    r"_(?:particles|(?:patch|rigid|full_frame)_aligned(?:_doseweighted|_nonweighted)?|aligned|doseweighted"
    r"|background)$"
)
_IMAGE = re.compile(r"\.(?:mrcs?|tiff?|eer)$", re.IGNORECASE)
_ITERATION = re.compile(r"(?:^|_)(\d{3})(?=_|\.cs$)")
_IN_NAME = re.compile(r"(?:^|_)(J\d{1,9})(?=_|\.cs$)")


def movie_name(path: str) -> str:
    """Return the movie's name: ``J1/imported/0123..._a.tif`` -> ``a.tif``."""
    return _UID.sub("", posixpath.basename(path.lstrip(">")))


def name_of_micrograph(path: str) -> str:
    """Return what is left of the movie's name in a micrograph's or a particle stack's.

    ``J2/motioncorrected/0123..._a_patch_aligned_doseweighted.mrc`` -> ``a``.
    """
    base = posixpath.basename(path.lstrip(">"))
    bare = _UID.sub("", base)
    if bare == base:
        return base  # imported as it is
    stem = _IMAGE.sub("", bare)
    while True:
        shorter = _SUFFIX.sub("", stem)
        if shorter == stem or not shorter:
            return stem
        stem = shorter


def uid_of(path: str) -> int | None:
    """Return the uid that CryoSPARC set before a file's name, padded with zeros or not."""
    match = _UID.match(posixpath.basename(path))
    return int(match[1]) if match else None


# what is read when it is sent


class Motion(Deferred):
    """The trajectory of one movie's frames, in pixels of ``pixel_size`` Å, whole frame.

    ``dose`` is the whole movie's in e⁻/Å², over ``frames``.
    """

    __slots__ = ("dose", "frames", "path", "pixel_size", "state")
    FIELDS = MOTION_FIELDS

    def __init__(
        self, path: str, state: Signature, pixel_size: float, dose: float | None, frames: int | None
    ):
        self.path, self.state, self.pixel_size = path, state, pixel_size
        self.dose, self.frames = dose, frames

    def _key(self) -> tuple:
        return (self.path, self.state, self.pixel_size, self.dose, self.frames)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Motion) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def load(self) -> dict[str, Any]:
        x, y = trajectory(cs.read_array(self.path))
        found = motion(x, y, self.pixel_size, self.dose and self.dose / (self.frames or len(x)))
        # Early and late are not known without a dose, also where they were told with one before.
        return {**dict.fromkeys(self.FIELDS), **found}


def trajectory(places: np.ndarray) -> tuple[list[float], list[float]]:
    """Return x and y (pixels) of a movie's frames, from an array (1, frames, 2) or (frames, 2).

    Raises ValueError where it is no trajectory of whole frames.
    """
    if places.ndim == 3 and places.shape[0] == 1:
        places = places[0]
    if places.ndim != 2 or places.shape[1] != 2 or len(places) < 1:
        raise ValueError("the file holds no trajectory of whole frames")
    x, y = places.astype(np.float64).T.tolist()
    return x, y


class Picks(Deferred):
    """The picks of one micrograph, as fractions of its width and height; without ``points`` their number."""

    __slots__ = ("all", "check", "count", "first", "shape")
    FIELDS = ("coordinates", "particles")

    def __init__(
        self,
        count: int,
        all_points: np.ndarray | None = None,
        shape: tuple[int, int] | None = None,
        first: int = 0,
    ):
        self.count, self.first, self.shape = count, first, shape
        self.all = all_points if shape and count <= MOST_PICKS else None
        self.check = zlib.crc32(self.points.tobytes()) if self.all is not None else 0

    @property
    def points(self) -> np.ndarray:
        """This micrograph's of the points of all."""
        return self.all[self.first : self.first + self.count]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Picks) and (self.count, self.check, self.shape) == (
            other.count,
            other.check,
            other.shape,
        )

    def __hash__(self) -> int:
        return hash((self.count, self.check, self.shape))

    def load(self) -> dict[str, Any]:
        if self.all is None or self.shape is None:
            return {"coordinates": None, "particles": self.count}
        rows, columns = self.shape
        pixels = self.points.astype(np.float64) * (columns, rows)
        return {"coordinates": np.round(pixels, 2).tolist(), "particles": self.count}


NO_PICKS = Picks(0)


# what one job tells


class Source(NamedTuple):
    """One group of a job's results: the files that hold its rows, each path relative to the project."""

    group: str
    type: str  # exposure, particle or template
    files: tuple[str, ...]


class Exposures:
    """The rows of one group of exposures, some thousand after the other.

    Texts, of which each is the path of a file and like its neighbours, are kept packed.
    """

    def __init__(self, group: str):
        self.is_rejected = "reject" in group
        self.is_accepted = "accept" in group
        self.has_trajectories = False
        self._mark = np.uint64(zlib.crc32(group.encode()))
        self._parts: list[tuple[cs.Rows, dict[str, tuple[np.dtype, bytes]]]] = []

    def add(self, rows: cs.Rows) -> np.ndarray:
        """Keep these rows; return a mark (uint64) of each, another where anything in it is another."""
        self.has_trajectories |= "rigid_motion/path" in rows
        marks = np.full(len(rows["uid"]), self._mark)
        for start in range(0, len(marks), BLOCK):
            plain: cs.Rows = {}
            packed: dict[str, tuple[np.dtype, bytes]] = {}
            for name, values in rows.items():
                part = values[start : start + BLOCK]
                if values.dtype.kind in "SO":
                    part = part.astype("S")
                    packed[name] = (part.dtype, zlib.compress(part.tobytes(), 1))
                else:
                    part = plain[name] = part.copy()
                if len(part) == len(marks[start : start + BLOCK]):
                    marks[start : start + BLOCK] += _marks(name, part)
            self._parts.append((plain, packed))
        return marks

    def parts(self, uids: np.ndarray) -> Iterator[cs.Rows]:
        """Yield the rows of these exposures; their uids are given in ascending order."""
        for rows, packed in self._parts:
            wanted = _is_among(rows["uid"], uids)
            if not wanted.any():
                continue
            found = {name: values[wanted] for name, values in rows.items() if len(values) == len(wanted)}
            for name, (dtype, data) in packed.items():
                texts = np.frombuffer(zlib.decompress(data), dtype)
                if len(texts) == len(wanted):
                    found[name] = texts[wanted]
            yield found

    def uids(self) -> np.ndarray:
        return np.concatenate([rows["uid"] for rows, _ in self._parts] or [np.empty(0, np.uint64)])


#: The fields of a micrograph, and what it has pictures of.
FIELDS = (
    "defocus_u",
    "defocus_v",
    "defocus_angle",
    "phase_shift",
    "ctf_resolution",
    "ctf_score",
    "ice_thickness",
    "rejected",
    "motion",
    "picks",
)
KINDS = ("micrograph", "psd")

#: What was told of one micrograph: the values of ``FIELDS``, and of each kind what tells whether its picture
#: is another. There are thousands of them, and this takes less than a dictionary each.
Seen = tuple[Any, ...]


class Told:
    """What of one run has been told already."""

    def __init__(self) -> None:
        self.state: tuple | None = None
        self.micrographs: dict[str, Seen] = {}
        self.names: dict[int, str] = {}  # by uid
        self.owners: dict[str, int] = {}  # uids by name
        #: Pictures to be given when there is room: the exposures' uids, and kinds.
        self.todo: dict[int, tuple[str, ...]] = {}
        #: The newest that were not there when there was, by kind and name, and their paths.
        self.missing: dict[tuple[str, str], tuple[str, ...]] = {}
        self.geometry: dict[str, Any] = {}
        #: The newest trajectories by uid, and how their files were: they may come, or be completed, after
        #: their row.
        self.trajectories: OrderedDict[int, tuple[str, Signature | None]] = OrderedDict()
        #: What it was told by: the jobs as they were, picks and who was looked at for them.
        self.jobs: dict[str, Marked] = {}
        self.picks: dict[int, Picks] = {}
        self.looked_at: set[int] = set()
        self.is_plain = False  # every pick is of an exposure that was read
        self.unnamed: set[int] = set()  # exposures whose name nothing tells (yet)
        self.classes: dict[str, int] = {}
        self.averages: dict[str, list[Picture]] = {}  # whose stack is not there yet
        self.events: set[tuple[str, str | None]] = set()


class JobFiles:
    """One job and what its files hold, read again only when they change.

    ``serial`` grows whenever something may have changed.
    """

    def __init__(self, reader: CryosparcReader, job: cs.Job, is_loose: bool = False):
        self.reader, self.job, self.is_loose = reader, job, is_loose
        self.exposures: list[Exposures] = []
        self.marks = NO_MARKS
        self.geometry: dict[str, Any] = {}
        self.picks: dict[int, Picks] | None = None
        self.names: dict[int, str] = {}  # of micrographs, by uid, as particles name them
        self.classes: ClassSet | None = None
        self.stacks: dict[int, tuple[str, int]] = {}  # class number: file, section
        self.notes: list[str] = []
        self.serial = self.class_serial = 0
        self._state: dict[str, tuple] = {}

    def refresh(self, job: cs.Job, skip_passthrough: bool, has_picks: bool) -> None:
        """Read what changed: of exposures not what an ancestor told, of particles only what picks are."""
        self.job = job
        self.notes = []
        sources = self._sources(skip_passthrough)
        for kind, take in (
            ("exposure", self._take_exposures),
            ("particle", self._take_particles),
            ("template", self._take_classes),
        ):
            mine = [source for source in sources if source.type == kind]
            if kind == "particle" and not has_picks:
                continue
            if kind == "template" and mine:
                mine += [source for source in sources if source.type == "particle"]
            files = {name: signature(self.reader.place(name)) for source in mine for name in source.files}
            state = (tuple(mine), tuple(files.items()))
            if not files or state == self._state.get(kind):
                continue
            try:
                take([source for source in sources if source.type == kind], sources)
            except ValueError as error:
                self.reader.warn(self.job.uid, error)
                continue
            except OSError as error:
                self.reader.warn(self.job.uid, error)
                continue
            self._state[kind] = state
            if kind == "template":
                self.class_serial += 1
            else:
                self.serial += 1

    # which files

    def _sources(self, skip_passthrough: bool) -> list[Source]:
        """Return the groups of results: by job.json, else by the .csg files, else by the files' names."""
        results = self.job.results or self.reader.groups(self.job.uid)
        groups: dict[tuple[str, str], dict[str, bool]] = {}
        for result in results:
            if result.type not in ("exposure", "particle", "template") or "excluded" in result.group:
                continue
            if result.type == "particle" and "reject" in result.group:
                continue
            newest = (each for each in reversed(result.versions) if signature(self.reader.place(each[1])))
            version, name = next(newest, (0, ""))
            if not name:
                continue
            is_over = STATUSES.get(self.job.status) == "finished"
            if version != result.versions[-1][0] and is_over and not result.is_passthrough:
                self.notes.append(
                    f"{self.job.uid}: the {result.group} of version {version} are read; "
                    f"those of {result.versions[-1][0]} are not there."
                )
            files = groups.setdefault((result.group, result.type), {})
            files[name] = files.get(name, True) and result.is_passthrough
        sources = []
        for (group, kind), files in groups.items():
            # What an exposure brings along is read where it was measured.
            keep = [
                name
                for name, passed in files.items()
                if not (passed and skip_passthrough and kind == "exposure")
            ]
            if keep:
                sources.append(Source(group, kind, tuple(keep)))
        return sources

    # exposures

    def _take_exposures(self, mine: list[Source], _: list[Source]) -> None:
        found = []
        geometry: dict[str, Any] = {}
        uids, marks = [], []
        for source in mine:
            exposures = Exposures(source.group)
            for name in source.files:
                for rows in self.reader.table(name, EXPOSURE_COLUMNS):
                    if "uid" in rows and len(rows["uid"]):
                        geometry = geometry or _geometry(rows)
                        uids.append(rows["uid"])
                        marks.append(exposures.add(rows))
            found.append(exposures)
        self.exposures, self.geometry = found, geometry
        # Who is accepted tells something only where others are rejected.
        sorts_out = np.uint64(any(exposures.is_rejected for exposures in found))
        self.marks = _by_uid(uids, [each + sorts_out for each in marks])

    # particles

    def _take_particles(self, mine: list[Source], _: list[Source]) -> None:
        picks: dict[int, Picks] = {}
        names: dict[int, str] = {}
        for source in mine:
            found = Particles(self.reader, names, is_joined=not self.is_loose)
            for micrograph, more in found.by_micrograph(source.files):
                # A particle is in one group of a job's; where it is not, the larger group is the whole.
                if micrograph not in picks or picks[micrograph].count < more.count:
                    picks[micrograph] = more
        self.picks, self.names = picks, names

    # classes

    def _take_classes(self, mine: list[Source], sources: list[Source]) -> None:
        averages = [source for source in mine if "class_averages" in source.group]
        rows: dict[int, dict[str, Any]] = {}
        stacks: dict[int, tuple[str, int]] = {}
        iteration = 0
        for name in averages[0].files if averages else ():
            for part in self.reader.table(name, {"uid", "blob/path", "blob/idx", "blob/res_A"}):
                if "blob/idx" not in part:
                    continue
                sharpness = part.get("blob/res_A")
                for place, index in enumerate(part["blob/idx"].tolist()):
                    resolution = _number(sharpness[place]) if sharpness is not None else None
                    number = int(index) + 1
                    rows[number] = {
                        "number": number,
                        "particles": 0,
                        "resolution": resolution if resolution and 0 < resolution < 1000 else None,
                    }
                    if "blob/path" in part:
                        stacks[number] = (_path(part["blob/path"][place]), number)
            found = _ITERATION.search(posixpath.basename(name))
            iteration = int(found[1]) if found else 0
        if not rows:
            return
        counts = np.zeros(max(rows) + 1, dtype=np.int64)
        is_counted = False
        for source in sources:
            for name in source.files if source.type == "particle" else ():
                other = _ITERATION.search(posixpath.basename(name))
                if other and int(other[1]) != iteration:
                    continue
                for part in self.reader.table(name, {"alignments2D/class"}):
                    if "alignments2D/class" in part and not is_counted:
                        values = part["alignments2D/class"].ravel()
                        values = values[values < len(counts) - 1].astype(np.int64)
                        counts += np.bincount(values + 1, minlength=len(counts))
                is_counted = is_counted or bool(counts.any())
        if not is_counted:
            raise ValueError("the particles of its classes are not there yet")
        for number, row in rows.items():
            row["particles"] = int(counts[number])
        self.classes = ClassSet(self.job.uid, iteration, [rows[number] for number in sorted(rows)])
        self.stacks = stacks


class Particles:
    """The particles of one group, from files that are joined on uid.

    There may be millions of them: a file is read a part after the other, and what is kept of each particle is
    its place and the number of its micrograph.
    """

    def __init__(self, reader: CryosparcReader, names: dict[int, str], is_joined: bool):
        self.reader, self.names, self.is_joined = reader, names, is_joined
        self.shapes: dict[int, tuple[int, int]] = {}  # (rows, columns) by micrograph
        self._numbers: dict[int, int] = {}  # in the order in which they are found, by uid
        self._sizes: dict[tuple[int, int], tuple[int, int]] = {}
        self._unnumbered: dict[str, int] = {}

    def by_micrograph(self, files: Iterable[str]) -> Iterator[tuple[int, Picks]]:
        """Yield the micrographs' uids and picks. Raises OSError, and ValueError naming the file."""
        columns = {name: self.reader.columns(name) for name in files}
        columns = {name: found for name, found in columns.items() if "uid" in found}
        having = [name for name, found in columns.items() if found & NAMING]
        located = [name for name in having if columns[name] >= LOCATED]
        others = [name for name in having if name not in located]
        chosen = (located or others)[:1] if self.is_joined else located + others
        wanted: np.ndarray | None = None  # uids, sorted
        if self.is_joined:
            for name in columns:
                uids = np.empty(0, np.uint64) if name in chosen else self._uids(name)
                if len(uids):
                    wanted = uids if wanted is None else wanted[_is_among(wanted, uids)]
        taken: list[np.ndarray] = []
        numbers, places = bytearray(), bytearray()  # which grow where they are
        for name in chosen:
            own = bytearray()
            for part in self.reader.table(name, PARTICLE_COLUMNS):
                micrographs = self._micrographs(part)
                keep = np.ones(len(part["uid"]), dtype=bool)
                if wanted is not None:
                    keep &= _is_among(part["uid"], wanted)
                for uids in taken:
                    keep &= ~_is_among(part["uid"], uids)
                numbers += micrographs[keep].tobytes()
                if columns[name] >= LOCATED:
                    found = np.stack([part[each][keep] for each in sorted(LOCATED)], axis=1)
                    places += found.astype(np.float32, copy=False).tobytes()
                else:
                    places += np.full((int(keep.sum()), 2), np.nan, np.float32).tobytes()
                if name != chosen[-1]:
                    own += part["uid"].astype(np.uint64, copy=False).tobytes()
            taken.append(np.sort(np.frombuffer(own, np.uint64)))
        del wanted, taken
        yield from self._grouped(
            np.frombuffer(numbers, np.uint32), np.frombuffer(places, np.float32).reshape(-1, 2)
        )

    def _grouped(self, numbers: np.ndarray, places: np.ndarray) -> Iterator[tuple[int, Picks]]:
        if not (numbers[1:] >= numbers[:-1]).all():
            order = np.argsort(numbers, kind="stable")
            numbers, places = numbers[order], places[order]
            del order
        counts = np.bincount(numbers, minlength=len(self._numbers))
        starts = np.cumsum(counts) - counts
        for uid, start, count in zip(self._numbers, starts.tolist(), counts.tolist()):
            if count and _are_places(places[start : start + count]):
                yield uid, Picks(count, places, self.shapes.get(uid), start)
            elif count:
                yield uid, Picks(count)

    def _uids(self, name: str) -> np.ndarray:
        """Return the sorted uids of a file that has nothing else of them but perhaps names."""
        found = bytearray()
        for part in self.reader.table(name, NAMING | {"uid", "location/micrograph_shape"}):
            if len(part) > 1:
                self._micrographs(part)
            found += part["uid"].astype(np.uint64, copy=False).tobytes()
        uids = np.frombuffer(found, np.uint64)
        uids.sort()
        return uids

    def _micrographs(self, part: cs.Rows) -> np.ndarray:
        """Return the number of each particle's micrograph, and take up the names and sizes of new ones."""
        paths = part.get("location/micrograph_path", part.get("blob/path"))
        uids = part.get("location/micrograph_uid")
        if uids is not None:
            values, first, places = np.unique(uids, return_index=True, return_inverse=True)
            known = values.tolist()
        elif paths is not None:
            texts, first, places = np.unique(paths, return_index=True, return_inverse=True)
            known = [self._uid_in(_path(text)) for text in texts.tolist()]
        else:
            return np.zeros(len(part["uid"]), dtype=np.uint32)
        shapes = part.get("location/micrograph_shape")
        for place in np.argsort(first):
            uid, row = known[place], first[place]
            self._numbers.setdefault(uid, len(self._numbers))
            path = _path(paths[row]) if paths is not None and uid not in self.names else ""
            if path:
                self.names[uid] = sys.intern(name_of_micrograph(path))
            if shapes is not None and shapes.shape[1] == 2 and uid not in self.shapes:
                rows, columns = (int(value) for value in shapes[row])
                if 0 < rows < 2**20 and 0 < columns < 2**20:
                    self.shapes[uid] = self._sizes.setdefault((rows, columns), (rows, columns))
        numbers = np.fromiter((self._numbers[uid] for uid in known), np.uint32, len(known))
        return numbers[places.ravel()]

    def _uid_in(self, path: str) -> int:
        """Return the micrograph's uid that stands in a path, a number of its own for one without."""
        uid = uid_of(path)
        if uid is None or uid >= 2**64:
            name = posixpath.basename(path)
            uid = self._unnumbered.setdefault(name, 2**64 - 1 - zlib.crc32(name.encode()))
        return uid


#: Uids in ascending order, and a mark of what is known of each.
Marks = tuple[np.ndarray, np.ndarray]
NO_MARKS: Marks = (np.empty(0, np.uint64), np.empty(0, np.uint64))


class Marked(NamedTuple):
    """A job as it was when its exposures were compared."""

    marks: Marks
    status: str


def _marks(name: str, values: np.ndarray) -> np.ndarray:
    """Return a number (uint64) for each of a column's values, another for another value or column.

    Eight bytes at a time are mixed as SplitMix64 does (Steele, Lea and Flood, OOPSLA 2014) and summed, which
    64 bits make as good as certain; what is only filled up with zeros has the same.
    """
    data = np.ascontiguousarray(values).reshape(len(values), -1).view(np.uint8)
    width = data.shape[1]
    padded = np.zeros((len(values), -(-width // 8) * 8), np.uint8)
    padded[:, :width] = data
    words = padded.view(np.uint64)
    own = np.uint64(zlib.crc32(name.encode()))
    mixed = words + (np.arange(words.shape[1], dtype=np.uint64) + own) * np.uint64(0x9E3779B97F4A7C15)
    mixed ^= mixed >> np.uint64(30)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(27)
    mixed *= np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return (mixed * (words != 0)).sum(axis=1, dtype=np.uint64) + own


def _by_uid(uids: list[np.ndarray], marks: list[np.ndarray]) -> Marks:
    """Return the marks of rows by uid; where a uid has several rows, of all of them together."""
    if not uids:
        return NO_MARKS
    known, places = np.unique(np.concatenate(uids), return_inverse=True)
    found = np.zeros(len(known), np.uint64)
    np.add.at(found, places.ravel(), np.concatenate(marks))
    return known, found


def _differing(before: Marks, now: Marks) -> np.ndarray:
    """Return the uids that are only in one of the two, or marked otherwise."""
    if before is now:
        return NO_MARKS[0]
    (old, old_marks), (new, new_marks) = before, now
    if not len(old):
        return new
    places = np.minimum(np.searchsorted(old, new), len(old) - 1)
    is_same = (old[places] == new) & (old_marks[places] == new_marks)
    return np.concatenate([new[~is_same], old[~_is_among(old, new)]])


LOCATED = {"location/center_x_frac", "location/center_y_frac"}
#: By which a particle's micrograph is known.
NAMING = {"location/micrograph_uid", "location/micrograph_path", "blob/path"}


def _is_among(values: np.ndarray, ordered: np.ndarray) -> np.ndarray:
    """Tell which values are among others that are in ascending order."""
    if not len(ordered):
        return np.zeros(len(values), dtype=bool)
    found = np.empty(len(values), dtype=bool)
    for start in range(0, len(values), cs.CHUNK):
        part = values[start : start + cs.CHUNK]
        places = np.minimum(np.searchsorted(ordered, part), len(ordered) - 1)
        found[start : start + cs.CHUNK] = ordered[places] == part
    return found


def _are_places(points: np.ndarray) -> bool:
    return bool(np.isfinite(points).all() and np.abs(points).max(initial=0) <= 10)


class Branch(NamedTuple):
    """The jobs of one run, by number; ``leaf`` is its CTF job, or the last step where none is yet."""

    key: str
    leaf: str
    jobs: tuple[str, ...]
    is_main: bool


class Row:
    """What the jobs of a branch tell of one exposure."""

    __slots__ = (
        "dose",
        "fields",
        "frames",
        "image",
        "micrograph",
        "movie",
        "movie_path",
        "path",
        "pixel",
        "psd",
        "thumbnail",
    )

    def __init__(self) -> None:
        self.fields: dict[str, Any] = {}
        self.movie = self.micrograph = self.movie_path = ""
        self.image = self.thumbnail = self.psd = self.path = ""
        self.pixel: float | None = None
        self.dose: float | None = None
        self.frames: int | None = None

    @property
    def pictures(self) -> tuple[tuple[str, ...], ...]:
        """Of each of ``KINDS`` the paths of its picture, of which the first there is drawn."""
        return tuple(filter(None, (self.thumbnail, self.image))), (self.psd,) if self.psd else ()


class CryosparcReader(Reader):
    """Follows a project's folder, one job's folder, or a folder of exported .cs files.

    ``key`` stands for the project in its runs' keys; without it the project's uid does, or the folder's name
    where there is none.
    """

    software = "CryoSPARC"
    SETTINGS: ClassVar[Mapping[str, str]] = {
        "follow_links": "true to read also what links in the project lead to"
    }

    def __init__(self, place: str, key: str | None = None, settings: Mapping[str, Any] | None = None):
        follow = flag(self.checked(settings), "follow_links")
        root = os.path.abspath(place)
        if not os.path.isdir(root):
            raise ReaderError(f"There is no folder {place}.")
        self._single: str | None = None
        if os.path.isfile(os.path.join(root, "job.json")) and _JOB.match(os.path.basename(root)):
            root, self._single = os.path.split(root)
        self.folder = Folder(root, follow_links=follow)
        self.root = root
        self._files: dict[str, JobFiles] = {}
        self._jobs: dict[str, tuple[Signature | None, cs.Job]] = {}
        self._lineage: dict[str, cs.Job] = {}
        self._told: dict[str, Told] = {}
        self.warn = Complaints(log)
        self._given = (key or "")[:150]
        self._has_left = False
        self._inside: set[str] = set()
        folders = self._folders()
        has_jobs = any(signature(os.path.join(root, name, "job.json")) for name in folders)
        is_project = bool(folders) or signature(os.path.join(root, "project.json")) is not None
        self.is_loose = not has_jobs and any(
            os.sep not in name or not is_project for name in self._loose_files()
        )
        if not has_jobs and not self.is_loose:
            raise ReaderError(
                f"{place} is not a CryoSPARC project: it has no job's folder with a job.json, and no .cs "
                "files. Give the project's folder (CS-...), one job's (J12), or one with exported .cs files."
            )

    # files

    def place(self, name: str) -> str:
        """Return the path of a file that the project names relative to itself; one that is never there
        where it leads out of the folder."""
        name = name.lstrip(">")
        folder, base = posixpath.split(name)
        full = os.path.join(self.root, name)
        # Thousands of files lie in few folders: the way to each is looked at once in a look.
        is_plain = base not in ("", ".", "..") and "\0" not in name and not os.path.islink(full)
        if is_plain and folder in self._inside:
            return full
        try:
            path = self.folder.path(name)
            if is_plain:
                self._inside.add(folder)
            return path
        except OSError as error:
            if not self._has_left:
                log.warning("%s. Others like it are left out without a word.", error)
            self._has_left = True
        except ValueError:
            pass  # a NUL in it
        return os.path.join(self.root, ".not-followed")

    def table(self, name: str, wanted: Iterable[str]) -> Iterator[cs.Rows]:
        """Yield the wanted columns of a table, as far as they are of the kind that CryoSPARC writes.

        Raises OSError and, naming the file, ValueError.
        """
        names = frozenset(wanted)
        try:
            for rows in cs.chunks(self.place(name), lambda column: column in names):
                yield {column: values for column, values in rows.items() if _is_usual(column, values)}
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error

    def columns(self, name: str) -> set[str]:
        """Return the names of a table's columns that are as CryoSPARC writes them. Raises as ``table``."""
        try:
            found = cs.without_rows(self.place(name))
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
        return {column for column, values in found.items() if _is_usual(column, values)}

    def groups(self, uid: str) -> list[cs.Result]:
        """Return a job's results by its .csg files, and where there are none by its files' names."""
        folder = self.place(uid)
        results = []
        try:
            names = sorted(os.listdir(folder))
        except OSError:
            return []
        for name in names:
            if not name.endswith(".csg"):
                continue
            try:
                group = cs.read_group(os.path.join(folder, name))
            except (OSError, ValueError) as error:
                self.warn(f"{uid}/{name}", error)
                continue
            for result, file in group.metafiles.items():
                passed = "passthrough" in file
                results.append(cs.Result(group.name, group.type, result, passed, [(0, f"{uid}/{file}")]))
        return results or list(self._by_name(f"{uid}/{name}" for name in names if name.endswith(".cs")))

    # the interface

    def look(self) -> list[RunNews]:
        self._inside.clear()
        jobs = self._loose_jobs() if self.is_loose else self._read_jobs()
        for uid in [uid for uid in self._files if uid not in jobs]:
            del self._files[uid]
        picking = {uid for uid, job in jobs.items() if re.search("pick|live|rtp|extract", job.type)} or set(
            jobs
        )
        for uid, job in jobs.items():
            # Where picks were looked through, those before are millions of rows that nobody asks for.
            if "pick" in job.type and "manual" not in job.type and job.status == "completed":
                picking -= self._ancestors(uid, self._lineage)
        for uid, job in jobs.items():
            files = self._files.get(uid)
            if files is None:
                files = self._files[uid] = JobFiles(self, job, self.is_loose)
            files.refresh(job, any(parent in jobs for parent in job.parents), uid in picking)
        if self.is_loose:
            name = self._given or os.path.basename(self.root) or "cryosparc"
            branches = [Branch(name, "", tuple(jobs), True)] if jobs else []
        else:
            branches = self._branches(jobs)
        runs = [self._news(jobs, branch) for branch in branches]
        self.backlog = sum(len(self._told[run.key].todo) for run in runs)
        return runs

    def forget(self, key: str) -> None:
        self._told.pop(key, None)

    # jobs

    def _folders(self) -> list[str]:
        if self._single:
            return [self._single]
        try:
            names = [
                entry.name for entry in os.scandir(self.root) if _JOB.match(entry.name) and entry.is_dir()
            ]
        except OSError as error:
            raise ReaderError(f"{self.root} cannot be read: {error.strerror}.") from error
        return sorted(names, key=lambda name: int(name[1:]))

    def _read_jobs(self) -> dict[str, cs.Job]:
        """Return the jobs by number, without those that were deleted or are still being put together.

        One whose own description, or that of a job it descends from, is there and cannot be read (it is being
        written) is left for the next look: the keys of runs hang by who descends from whom.
        """
        there: dict[str, cs.Job | None] = {}
        for name in self._folders():
            path = self.place(f"{name}/job.json")
            state = signature(path)
            known = self._jobs.get(name)
            if known is not None and (state is None or state == known[0]):
                if state is not None:
                    there[name] = known[1]
                continue
            if state is None:
                there[name] = None
                continue
            try:
                job = cs.read_job(path)
                if job.uid != name:
                    raise ValueError(f"it describes {job.uid}")
            except (OSError, ValueError) as error:
                if state[1]:
                    self.warn(f"{name}/job.json", error)
                there[name] = known[1] if known else None
                continue
            self._jobs[name] = (state, job)
            there[name] = job
        found: dict[str, cs.Job] = {}
        for name, described in there.items():
            if described is None or described.is_deleted or described.status == "building":
                continue
            if all(there.get(parent, described) is not None for parent in self._ancestors(name, there)):
                found[name] = described
        self._lineage = {name: job for name, job in there.items() if job is not None}
        return found

    @staticmethod
    def _ancestors(name: str, jobs: Mapping[str, cs.Job | None]) -> set[str]:
        found: set[str] = set()
        todo = [name]
        while todo:
            job = jobs.get(todo.pop())
            for parent in job.parents if job else ():
                if parent not in found and parent != name:
                    found.add(parent)
                    todo.append(parent)
        return found

    def _loose_files(self) -> Iterator[str]:
        count = 0
        for folder, folders, names in os.walk(self.root, followlinks=False):
            below = os.path.relpath(folder, self.root)
            depth = 0 if below == "." else below.count(os.sep) + 1
            if depth and "project.json" in names:
                folders[:] = []  # a project by itself, not something exported from one
                continue
            # An export brings along the folders of the jobs it came from.
            folders[:] = sorted(
                name for name in folders if not (name.startswith(".") or _JOB.match(name)) and depth < DEPTH
            )
            for name in sorted(names):
                if name.endswith(".cs"):
                    count += 1
                    if count > MOST_FILES:
                        self.warn(self.root, f"has more than {MOST_FILES} .cs files; the rest is left out")
                        return
                    yield os.path.relpath(os.path.join(folder, name), self.root)

    def _loose_jobs(self) -> dict[str, cs.Job]:
        jobs: dict[str, cs.Job] = {}
        by_job: dict[str, list[str]] = {}
        for name in self._loose_files():
            match = _IN_NAME.search(posixpath.basename(name))
            by_job.setdefault(match[1] if match else "J0", []).append(name)
        for uid in sorted(by_job, key=lambda uid: int(uid[1:])):
            results = list(self._by_name(by_job[uid]))
            if results:
                jobs[uid] = cs.Job(uid, "", "", "", "completed", "", set(), results, {}, False, None, [])
        return jobs

    def _by_name(self, names: Iterable[str]) -> Iterator[cs.Result]:
        """Tell .cs files' results by what CryoSPARC names them, those named otherwise by their columns.

        Of the iterations of one result the files are its versions.
        """
        found: dict[tuple[str, str, str], list[tuple[int, str]]] = {}
        for name in names:
            base = posixpath.basename(name)[: -len(".cs")].lower()
            if re.search(r"volume|mask|(?:^|_)map(?:_|$)|fsc", base):
                continue
            if "class_averages" in base or "template" in base:
                kind, group = "template", "class_averages"
            elif "particle" in base or re.search(r"(?:^|_)picks?(?:_|$)", base):
                kind, group = "particle", "particles"
            elif re.search(r"exposure|micrograph|movie", base):
                kind, group = "exposure", "exposures"
            else:
                kind = self._kind(name)
                group = f"{kind}s"
            if not kind:
                continue
            for word in ("reject", "accept", "excluded"):
                if word in base:
                    group += f"_{word}"
                    break
            match = _ITERATION.search(posixpath.basename(name))
            stem = _ITERATION.sub("", posixpath.basename(name)) if match else name
            found.setdefault((group, kind, stem), []).append((int(match[1]) if match else 0, name))
        for (group, kind, stem), versions in found.items():
            yield cs.Result(group, kind, stem, "passthrough" in stem, sorted(versions))

    def _kind(self, name: str) -> str:
        try:
            groups = {column.split("/")[0] for column in cs.columns(self.place(name))}
        except (OSError, ValueError) as error:
            self.warn(name, error)
            return ""
        if groups & {"movie_blob", "micrograph_blob", "rigid_motion", "ctf_stats"}:
            return "exposure"
        return "particle" if groups & {"location", "blob"} else ""

    def _branches(self, jobs: dict[str, cs.Job]) -> list[Branch]:
        """Return the branches, the main one of each import first.

        A branch is keyed by the first of its jobs that no branch before it has, so that its key stays when
        jobs are added to it and when other branches appear.
        """
        # Through deleted jobs too: what was made of their results is still there.
        ancestors = {name: self._ancestors(name, self._lineage) & set(jobs) for name in jobs}
        children: dict[str, set[str]] = {}
        for name, job in self._lineage.items():
            if not _is_ctf(job):
                for parent in job.parents:
                    children.setdefault(parent, set()).add(name)
        leaves = [name for name, job in jobs.items() if _is_ctf(job)]
        covered = {name for leaf in leaves for name in (leaf, *ancestors[leaf])}
        is_alone = not leaves
        for kind in ("motion", "import", ""):
            for name, job in jobs.items():
                if kind in job.type and name not in covered and (is_alone or (kind and self._has_rows(name))):
                    if kind or not ancestors[name]:
                        leaves.append(name)
                        covered |= {name} | ancestors[name]
                    if not kind:
                        covered |= self._below(name, children)
        branches = []
        claimed: set[str] = set()
        project = self._given or next((job.project for job in jobs.values() if job.project), "")
        project = (project or os.path.basename(self.root) or "cryosparc")[:150]
        for leaf in leaves:
            names = {leaf} | ancestors[leaf] | (self._below(leaf, children) & set(jobs))
            ordered = tuple(sorted(names, key=lambda name: int(name[1:])))
            is_main = ordered[0] not in claimed
            own = next((name for name in ordered if name not in claimed), leaf)
            claimed.update(ordered)
            branches.append(Branch(f"{project}/{own}", leaf, ordered, is_main))
        return branches

    def _has_rows(self, name: str) -> bool:
        files = self._files.get(name)
        return files is not None and any(len(group.uids()) for group in files.exposures)

    @staticmethod
    def _below(name: str, children: Mapping[str, set[str]]) -> set[str]:
        found: set[str] = set()
        todo = [name]
        while todo:
            for child in children.get(todo.pop(), ()):
                if child not in found and child != name:
                    found.add(child)
                    todo.append(child)
        return found

    # one run

    def _news(self, jobs: dict[str, cs.Job], branch: Branch) -> RunNews:
        told = self._told.setdefault(branch.key, Told())
        files = [self._files[name] for name in branch.jobs]
        state = tuple((each.job.uid, each.serial, each.job.status) for each in files)
        changes: dict[str, dict[str, Any]] = {}
        fresh: set[int] = set()
        moved = [uid for uid, (path, there) in told.trajectories.items() if signature(path) != there]
        if state != told.state or moved:
            try:
                changes, fresh = self._compare(told, files, moved)
            except BaseException:
                # Half of it counts as told and was not: the next look tells everything.
                self.forget(branch.key)
                raise
            told.state = state
            told.geometry = {}
            for each in files:
                told.geometry.update(each.geometry)
        news = RunNews(branch.key, self._info(branch, files, told.geometry), self._run_status(files), changes)
        self._find_pictures(news, told, files, fresh)
        for each in files:
            self._tell_classes(news, told, each)
            self._tell_events(news, told, each)
        return news

    def _tell_classes(self, news: RunNews, told: Told, files: JobFiles) -> None:
        found, uid = files.classes, files.job.uid
        if found is not None and told.classes.get(uid) != files.class_serial:
            told.classes[uid] = files.class_serial
            news.classes.append(found)
            told.averages[uid] = [
                Picture(
                    "class_average",
                    self.place(stack[0]),
                    job=found.job,
                    iteration=found.iteration,
                    number=number,
                    section=stack[1],
                )
                for number, stack in sorted(files.stacks.items())
                if any(row["number"] == number and row["particles"] for row in found.classes)
            ]
        # The stack may be written after the table that names it.
        waiting = told.averages.get(uid, [])
        if waiting:
            told.averages[uid] = [picture for picture in waiting if not os.path.exists(picture.path)]
            news.pictures += [picture for picture in waiting if picture not in told.averages[uid]]

    def _tell_events(self, news: RunNews, told: Told, files: JobFiles) -> None:
        job = files.job
        events = [Event("warning", text) for text in files.notes]
        status = STATUSES.get(job.status)
        name = f"{job.uid} ({job.title})" if job.title and job.title != f"New Job {job.uid}" else job.uid
        if status == "failed":
            reason = next(
                (line.strip() for line in reversed("\n".join(job.errors).split("\n")) if line.strip()), ""
            )
            events.append(
                Event("error", f"{name} failed: {reason[:300]}" if reason else f"{name} failed.", job.ended)
            )
        elif status == "stopped":
            events.append(Event("warning", f"{name} was stopped.", job.ended))
        for event in events:
            if (event.text, event.at) not in told.events:
                told.events.add((event.text, event.at))
                news.events.append(event)

    @staticmethod
    def _run_status(files: list[JobFiles]) -> str:
        """Return the run's status: running first, then what went wrong and was not done again since."""
        last: dict[str, str] = {}
        for each in files:
            status = STATUSES.get(each.job.status, "running")
            if INTERACTIVE.search(each.job.type) or status == "queued":
                continue
            if status == "running":
                return "running"
            last[each.job.type] = status
        if not last:
            return "queued"
        for status in ("failed", "stopped"):
            if status in last.values():
                return status
        return "finished"

    # rows

    def _merged(self, files: list[JobFiles], uids: np.ndarray) -> Iterator[tuple[int, Row]]:
        """Yield each of these exposures and what the jobs of a branch tell of it, later jobs over earlier."""
        for start in range(0, len(uids), BLOCK):
            block = uids[start : start + BLOCK]
            rows = {uid: Row() for uid in block.tolist()}
            block = np.sort(block)
            for each in files:
                verdicts: dict[int, bool] = {}
                sorts_out = any(group.is_rejected for group in each.exposures)
                for group in each.exposures:
                    for part in group.parts(block):
                        self._merge_part(rows, part)
                        if sorts_out and (group.is_rejected or group.is_accepted):
                            for uid in part["uid"].tolist():
                                verdicts[uid] = verdicts.get(uid, False) or group.is_rejected
                for uid, is_rejected in verdicts.items():
                    rows[uid].fields["rejected"] = is_rejected
            yield from rows.items()

    @staticmethod
    def _merge_part(rows: dict[int, Row], part: cs.Rows) -> None:
        columns = [(part[name], take) for name, take in TAKEN if name in part]
        for place, uid in enumerate(part["uid"].tolist()):
            row = rows[uid]
            for values, take in columns:
                take(row, values[place])

    @staticmethod
    def _touched(
        told: Told, files: list[JobFiles], picks: dict[int, Picks], looked_at: set[int], moved: list[int]
    ) -> np.ndarray | None:
        """Return the sorted uids of the exposures of which anything may be new; None for all.

        ``moved`` are those whose trajectory's file changed.
        """
        if not told.is_plain or [*told.jobs] != [each.job.uid for each in files]:
            return None
        if picks is not told.picks and (picks or told.picks):
            return None
        found = [np.fromiter(chain(moved, told.unnamed, looked_at ^ told.looked_at), np.uint64)]
        for each in files:
            before = told.jobs[each.job.uid]
            has_changed = each.marks is not before.marks or each.job.status != before.status
            # The files of trajectories change without their rows.
            if has_changed and any(group.has_trajectories for group in each.exposures):
                return None
            found.append(_differing(before.marks, each.marks))
        touched = np.unique(np.concatenate(found))
        is_there = np.zeros(len(touched), dtype=bool)
        for each in files:
            is_there |= _is_among(touched, each.marks[0])
        # Picks of an exposure that went away may be another's of the same name.
        return touched if picks.keys().isdisjoint(touched[~is_there].tolist()) else None

    def _compare(
        self, told: Told, files: list[JobFiles], moved: list[int]
    ) -> tuple[dict[str, dict[str, Any]], set[int]]:
        """Return what is new of the micrographs, by name, and the uids of those with new pictures.

        Everything is noted as told, pictures as to be given. Only the exposures are compared of which a job
        tells something else than before, as far as jobs, picks and trajectories allow to know them.
        """
        changes: dict[str, dict[str, Any]] = {}
        fresh: set[int] = set()
        picks, names, looked_at = self._picks(files)
        touched = self._touched(told, files, picks, looked_at, moved)
        told.picks, told.looked_at = picks, looked_at
        told.jobs = {each.job.uid: Marked(each.marks, each.job.status) for each in files}
        uids = [group.uids() for each in files for group in each.exposures]
        alone: set[int] = set()
        if touched is None:
            known = _in_order(uids)
            joined = self._by_exposure(files, known, picks, names)
            told.is_plain = joined is picks
            alone = set() if told.is_plain else set(joined).difference(known.tolist())
            picks = joined
            gone = set(told.micrographs)
            told.trajectories.clear()
        else:
            known = _in_order([each[_is_among(each, touched)] for each in uids])
            gone = {told.names.get(uid, "") for uid in touched.tolist()} & told.micrographs.keys()
        told.unnamed.difference_update(known.tolist())
        for uid, row in chain(self._merged(files, known), ((uid, Row()) for uid in picks if uid in alone)):
            name = self._name(told, uid, row, names.get(uid, ""))
            if not name:
                told.unnamed.add(uid)
                continue
            gone.discard(name)
            before = told.micrographs.get(name)
            fields = row.fields
            if row.path and row.pixel:
                place = self.place(row.path)
                state = signature(place)
                if touched is None or before is None or uid in told.trajectories:
                    told.trajectories[uid] = (place, state)
                    if len(told.trajectories) > RECENT:
                        told.trajectories.popitem(last=False)
                if state is not None:
                    fields["motion"] = Motion(place, state, row.pixel, row.dose, row.frames)
            if uid in picks:
                fields["picks"] = picks[uid]
            elif uid in looked_at:
                fields["picks"] = NO_PICKS
            marks = tuple(hash(paths) if paths else None for paths in row.pictures)
            told.micrographs[name] = (*map(fields.get, FIELDS), *marks)
            changed = _changed(before, fields)
            if changed or before is None:
                changes[name] = changed
            old = before[len(FIELDS) :] if before is not None else (None,) * len(KINDS)
            kinds = tuple(kind for kind, was, now in zip(KINDS, old, marks) if now not in (None, was))
            if kinds:
                waiting = told.todo.pop(uid, ())
                told.todo[uid] = tuple(kind for kind in KINDS if kind in kinds or kind in waiting)
                fresh.add(uid)
        for name in gone:
            changes[name] = _changed(told.micrographs.pop(name), {})
        return changes, fresh

    def _by_exposure(
        self, files: list[JobFiles], known: np.ndarray, picks: dict[int, Picks], names: dict[int, str]
    ) -> dict[int, Picks]:
        """Return the picks by the uids of these exposures: the same movie may have been imported anew."""
        uids = set(known.tolist())
        if uids.issuperset(picks):
            return picks
        by_stem = {
            _IMAGE.sub("", row.movie or row.micrograph): uid for uid, row in self._merged(files, known)
        }
        found: dict[int, Picks] = {}
        for number, picked in picks.items():
            uid = number if number in uids else by_stem.get(_IMAGE.sub("", names.get(number, "")), number)
            if uid not in found or found[uid].count < picked.count:
                found[uid] = picked
        return found

    def _find_pictures(self, news: RunNews, told: Told, files: list[JobFiles], fresh: set[int]) -> None:
        """Give as many pictures as there is room for, the newest last because they are sent first."""
        for place in [place for place in told.missing if place[1] not in told.micrographs]:
            del told.missing[place]
        before = list(told.missing)
        for place in before:
            paths = told.missing.pop(place)
            self._tell_picture(news, told, place, paths)
        older = iter(list(told.missing))
        looked_for = 0
        while told.todo and len(news.pictures) < self.room and looked_for < LOOKED_FOR:
            count = min(len(told.todo), max(1, (self.room - len(news.pictures)) // len(KINDS)), RECENT)
            looked_for += count * len(KINDS)
            taken = dict(told.todo.popitem() for _ in range(count))
            for uid, row in self._merged(files, np.fromiter(taken, np.uint64, count)):
                name = told.names.get(uid, "")
                for kind, paths in zip(KINDS, row.pictures):
                    if kind in taken[uid] and paths and name in told.micrographs:
                        told.missing.pop((kind, name), None)
                        if len(told.missing) >= RECENT and uid in fresh:
                            told.missing.pop(next(older, ("", "")), None)
                        self._tell_picture(news, told, (kind, name), paths)
        news.pictures.reverse()

    def _tell_picture(
        self, news: RunNews, told: Told, place: tuple[str, str], paths: tuple[str, ...]
    ) -> None:
        path = next((path for path in map(self.place, paths) if os.path.exists(path)), None)
        if path is not None:
            news.pictures.append(Picture(place[0], path, micrograph=place[1]))
        elif len(told.missing) < RECENT:
            told.missing[place] = paths

    def _name(self, told: Told, uid: int, row: Row, other: str) -> str:
        """Return the movie's name, the same from look to look; none where two movies cannot be told apart."""
        known = told.names.get(uid)
        if known is not None:
            return known
        name = row.movie or row.micrograph or other
        if told.owners.get(_IMAGE.sub("", name), uid) != uid and row.movie_path:
            # The same name from two folders: CryoSPARC imports movies as links to where they lie.
            try:
                target = os.readlink(os.path.join(self.root, row.movie_path))
            except (OSError, ValueError):
                target = ""
            folder = posixpath.basename(posixpath.dirname(target))
            if folder:
                name = f"{folder}/{name}"
        stem = _IMAGE.sub("", name)
        if not name or len(name) > 500:
            return ""
        if told.owners.get(stem, uid) != uid:
            self.warn(name, "is the name of more than one exposure; only the first is posted")
            name = ""
        else:
            told.owners[sys.intern(stem)] = uid
        told.names[uid] = name
        return name

    @staticmethod
    def _picks(files: list[JobFiles]) -> tuple[dict[int, Picks], dict[int, str], set[int]]:
        """Return the picks of the job that has the last word on them, with names, and who was looked at.

        That is the newest picker or inspection, without one the newest extraction, without one the first that
        has particles. Picks made by hand are usually there to train a picker: they count where there are no
        others.
        """
        having = [each for each in files if each.picks is not None]
        for pattern in (r"pick(?!.*train)", r"live|rtp", r"extract"):
            of_kind = [each for each in having if re.search(pattern, each.job.type)]
            others = [each for each in of_kind if "manual" not in each.job.type]
            if others or of_kind:
                chosen = (others or of_kind)[-1]
                break
        else:
            if not having:
                return {}, {}, set()
            names: dict[int, str] = {}
            picks: dict[int, Picks] = {}
            # Loose files of several jobs add up; of a project without a picker the first job's count.
            for each in having if any(each.is_loose for each in having) else having[:1]:
                picks.update(each.picks or {})
                names.update(each.names)
            return picks, names, set()
        looked_at = {
            uid for group in chosen.exposures if not group.is_rejected for uid in group.uids().tolist()
        }
        is_done = STATUSES.get(chosen.job.status) == "finished"
        return chosen.picks or {}, chosen.names, looked_at if is_done else set()

    # what describes the run

    def _info(self, branch: Branch, files: list[JobFiles], geometry: dict[str, Any]) -> dict[str, Any]:
        name = self._given or os.path.basename(self.root)
        versions = [each.job.version.lstrip("v") for each in files if each.job.version]
        info: dict[str, Any] = {
            "software": self.software,
            "version": versions[-1] if versions else None,
            "host": socket.gethostname(),
            "label": name if branch.is_main else f"{name}, {branch.leaf}",
            **geometry,
        }
        parameters: dict[str, Any] = {}
        for each in files:
            job = each.job
            if not KINDS_TOLD.search(job.type):
                continue
            for option, value in job.parameters.items():
                if len(parameters) < 200:
                    parameters[f"{job.type}.{option}"[:120]] = value
            diameter = next(
                (job.parameters[option] for option in DIAMETERS if option in job.parameters), None
            )
            if "pick" in job.type and isinstance(diameter, (int, float)) and 0 < diameter < 100_000:
                info["particle_diameter"] = float(diameter)
        info["parameters"] = parameters
        return {key: value for key, value in info.items() if value not in (None, "", {})}


# how a column's value is taken up


def _is_usual(name: str, values: np.ndarray) -> bool:
    """Whether a column is as CryoSPARC writes it: text for paths, sizes for shapes, else numbers."""
    if name.endswith("path"):
        return values.ndim == 1 and values.dtype.kind in "SO"
    if name.endswith("shape"):
        return values.ndim == 2 and values.dtype.kind in "iu"
    kinds = "u" if name.endswith("uid") else "iu" if name.endswith(("idx", "class")) else "fiu"
    return values.ndim == 1 and values.dtype.kind in kinds


def _number(value: Any) -> float | None:
    found = float(value)
    return found if math.isfinite(found) else None


def _as_typed(value: float) -> float:
    """Return the number that somebody typed, from the float32 that it became."""
    return float(f"{value:.7g}")


def _path(value: Any) -> str:
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    return text.lstrip(">")


def _measured(field: str, scale: float = 1.0, lowest: float | None = None, after: bool = False) -> Any:
    """Return what takes a number; CryoSPARC writes 0 for what was not measured.

    ``after`` keeps a value that is there already.
    """

    def take(row: Row, value: Any) -> None:
        found = _number(value)
        if found is None or found == 0 or (lowest is not None and found <= lowest):
            return
        if not (after and field in row.fields):
            row.fields[field] = found * scale

    return take


def _angle(row: Row, value: Any) -> None:
    found = _number(value)
    if found is not None and ("defocus_u" in row.fields or "defocus_v" in row.fields):
        degrees = math.degrees(found)
        row.fields["defocus_angle"] = degrees if abs(degrees) <= 360 else math.fmod(degrees, 360)


def _phase(row: Row, value: Any) -> None:
    """Zero is what stands there without a phase plate."""
    found = _number(value)
    if found:
        degrees = math.degrees(found)
        row.fields["phase_shift"] = degrees if abs(degrees) <= 360 else math.fmod(degrees, 360)


def _movie(row: Row, value: Any) -> None:
    path = _path(value)
    if path:
        row.movie, row.movie_path = movie_name(path), path


def _micrograph(row: Row, value: Any) -> None:
    path = _path(value)
    if path:
        row.micrograph = name_of_micrograph(path)
        row.image = path


def _thumbnail(row: Row, value: Any) -> None:
    path = _path(value)
    if path:
        row.thumbnail = path


def _spectrum(row: Row, value: Any) -> None:
    row.psd = _path(value)


def _trajectory(row: Row, value: Any) -> None:
    row.path = _path(value)


def _pixel(row: Row, value: Any) -> None:
    found = _number(value)
    if found and found > 0:
        row.pixel = _as_typed(found)


def _dose(row: Row, value: Any) -> None:
    found = _number(value)
    if found and found > 0:
        row.dose = found


def _frames(row: Row, value: Any) -> None:
    if len(value) == 3 and value[0] > 0:
        row.frames = int(value[0])


def _geometry(part: cs.Rows) -> dict[str, Any]:
    """Return pixel size (Å), width and height of the micrographs, without them of the movies."""
    found: dict[str, Any] = {}
    for blob in ("micrograph_blob", "movie_blob"):
        pixel = _number(part[f"{blob}/psize_A"][0]) if f"{blob}/psize_A" in part else None
        sides = part[f"{blob}/shape"][0].tolist()[-2:] if f"{blob}/shape" in part else []
        if pixel and 0 < pixel < 1000:
            found["pixel_size"] = _as_typed(pixel)
        if len(sides) == 2 and all(0 < side < 10**6 for side in sides):
            # Rows first.
            found.update(height=sides[0], width=sides[1])
        if found:
            break
    return found


TAKEN = (
    ("movie_blob/path", _movie),
    ("movie_blob/shape", _frames),
    ("mscope_params/total_dose_e_per_A2", _dose),
    ("micrograph_blob/path", _micrograph),
    ("rigid_motion/path", _trajectory),
    ("rigid_motion/psize_A", _pixel),
    ("ctf/df1_A", _measured("defocus_u")),
    ("ctf/df2_A", _measured("defocus_v")),
    ("ctf/df_angle_rad", _angle),
    ("ctf/phase_shift_rad", _phase),
    ("ctf/ctf_fit_to_A", _measured("ctf_resolution", lowest=0)),
    ("ctf/cross_corr_ctffind4", _measured("ctf_score")),
    ("ctf_stats/ctf_fit_to_A", _measured("ctf_resolution", lowest=0, after=True)),
    ("ctf_stats/cross_corr", _measured("ctf_score", after=True)),
    ("ctf_stats/ice_thickness_rel", _measured("ice_thickness")),
    ("ctf_stats/diag_image_path", _spectrum),
    ("micrograph_thumbnail_blob_1x/path", _thumbnail),
    ("micrograph_thumbnail_blob_2x/path", _thumbnail),
)


EXPOSURE_COLUMNS = (
    "uid",
    *(name for name, _ in TAKEN),
    "movie_blob/psize_A",
    "micrograph_blob/shape",
    "micrograph_blob/psize_A",
)


def _is_ctf(job: cs.Job) -> bool:
    """Whether the job estimates the CTF of exposures (CTF refinement is of particles)."""
    kind = job.type.lower()
    if kind == "live_session" or ("ctf" in kind and "refine" not in kind and "particle" not in kind):
        return True
    if re.search(r"curate|import|pick|extract|select|denoise|junk|inspect|motion", kind):
        return False
    return any(
        result.name == "ctf" and result.type == "exposure" and not result.is_passthrough
        for result in job.results
    )


def _changed(before: Seen | None, fields: dict[str, Any]) -> dict[str, Any]:
    """Return what to send so that a micrograph has these fields; those that are gone become None."""
    if before is None:
        return dict(fields)
    changed: dict[str, Any] = {}
    for field, was in zip(FIELDS, before):
        now = fields.get(field)
        if now is None and was is not None:
            changed.update(dict.fromkeys(was.FIELDS if isinstance(was, (Motion, Picks)) else (field,)))
        elif now != was:
            changed[field] = now
    return changed


def _in_order(parts: list[np.ndarray]) -> np.ndarray:
    """Return each uid of these once, in the order in which they are found."""
    every = np.concatenate([*parts, np.empty(0, np.uint64)])
    _, first = np.unique(every, return_index=True)
    return every[np.sort(first)]
