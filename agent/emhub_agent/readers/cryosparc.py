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
import zlib
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from .. import cs
from .base import (
    ClassSet,
    Deferred,
    Event,
    Folder,
    Picture,
    Reader,
    ReaderError,
    RunNews,
    Signature,
    signature,
)

log = logging.getLogger(__name__)

# So many of the newest files that were named and were not there are looked for again at every look.
RECENT = 500
# Coordinates of more picks than this in one micrograph are not sent, only their number.
MOST_PICKS = 50_000
# Motion up to this dose (e⁻/Å²) is early, as RELION tells it.
EARLY_DOSE = 4.0
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
    """The trajectory of one movie's frames, in pixels of ``pixel_size`` Å, whole frame."""

    __slots__ = ("dose", "frames", "path", "pixel_size", "state")
    FIELDS = ("motion_total", "motion_early", "motion_late")

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
        return motion(cs.read_array(self.path), self.pixel_size, self.dose, self.frames)


def motion(
    places: np.ndarray, pixel_size: float, dose: float | None = None, frames: int | None = None
) -> dict[str, float]:
    """Return total, early and late motion in Å: the sum of the steps from frame to frame.

    ``places`` are (1, frames, 2) or (frames, 2) in pixels; ``dose`` is the whole movie's in e⁻/Å², over
    ``frames``. Early is up to 4 e⁻/Å² (as in RELION's motion correction); unknown without a dose.
    Raises ValueError where it is not a trajectory.
    """
    if places.ndim == 3 and places.shape[0] == 1:
        places = places[0]
    if places.ndim != 2 or places.shape[1] != 2 or len(places) < 1:
        raise ValueError("the file holds no trajectory of whole frames")
    steps = np.hypot(*np.diff(places.astype(np.float64), axis=0).T) * pixel_size
    total = float(steps.sum())
    if not math.isfinite(total):
        raise ValueError("the trajectory holds values that are no numbers")
    found = {"motion_total": total}
    if dose and dose > 0:
        early = int(EARLY_DOSE / (dose / (frames or len(places))))
        found["motion_early"] = float(steps[:early].sum())
        found["motion_late"] = float(steps[early:].sum())
    return found


class Picks(Deferred):
    """The picks of one micrograph, as fractions of its width and height; without ``points`` their number."""

    __slots__ = ("check", "count", "points", "shape")
    FIELDS = ("coordinates", "particles")

    def __init__(self, count: int, points: np.ndarray | None = None, shape: tuple[int, int] | None = None):
        self.count, self.shape = count, shape
        self.points = points if shape and count <= MOST_PICKS else None
        self.check = zlib.crc32(np.ascontiguousarray(self.points).tobytes()) if self.points is not None else 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Picks) and (self.count, self.check, self.shape) == (
            other.count,
            other.check,
            other.shape,
        )

    def __hash__(self) -> int:
        return hash((self.count, self.check, self.shape))

    def load(self) -> dict[str, Any]:
        if self.points is None or self.shape is None:
            return {"coordinates": None, "particles": self.count}
        rows, columns = self.shape
        pixels = self.points.astype(np.float64) * (columns, rows)
        return {"coordinates": np.round(pixels, 2).tolist(), "particles": self.count}


# what one job tells


class Source(NamedTuple):
    """One group of a job's results: the files that hold its rows, each path relative to the project."""

    group: str
    type: str  # exposure, particle or template
    files: tuple[str, ...]


class Exposures:
    """The rows of one group of exposures, a part of the table after the other.

    Texts, of which each is the path of a file and like its neighbours, are kept packed.
    """

    def __init__(self, group: str):
        self.is_rejected = "reject" in group
        self.is_accepted = "accept" in group
        self._parts: list[tuple[cs.Rows, dict[str, tuple[np.dtype, bytes]]]] = []

    def add(self, rows: cs.Rows) -> None:
        texts = {name: values.astype("S") for name, values in rows.items() if values.dtype.kind in "SO"}
        packed = {name: (values.dtype, zlib.compress(values.tobytes(), 1)) for name, values in texts.items()}
        self._parts.append(({name: rows[name] for name in rows if name not in packed}, packed))

    def parts(self) -> Iterator[cs.Rows]:
        for rows, packed in self._parts:
            texts = {
                name: np.frombuffer(zlib.decompress(data), dtype) for name, (dtype, data) in packed.items()
            }
            yield {**rows, **texts}

    def uids(self) -> Iterator[int]:
        for rows, _ in self._parts:
            yield from rows["uid"].tolist()


class Told:
    """What of one run has been told already."""

    def __init__(self) -> None:
        self.state: tuple | None = None
        self.micrographs: dict[str, dict[str, Any]] = {}
        self.names: dict[int, str] = {}  # by uid
        self.owners: dict[str, int] = {}  # uids by name
        self.pictures: dict[tuple[str, str], int] = {}
        self.missing: dict[tuple[str, str], tuple[str, ...]] = {}  # which are not there yet, and their paths
        self.geometry: dict[str, Any] = {}
        # The newest trajectories and how their files were: they may come, or be completed, after their row.
        self.trajectories: list[tuple[str, Signature | None]] = []
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
                self.reader.warn(self.job.uid, error.strerror or error)
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
        for source in mine:
            exposures = Exposures(source.group)
            for name in source.files:
                for rows in self.reader.table(name, EXPOSURE_COLUMNS):
                    if "uid" in rows:
                        geometry = geometry or _geometry(rows)
                        exposures.add(rows)
            found.append(exposures)
        self.exposures, self.geometry = found, geometry

    # particles

    def _take_particles(self, mine: list[Source], _: list[Source]) -> None:
        picks: dict[int, Picks] = {}
        names: dict[int, str] = {}
        for source in mine:
            found = Particles(names, is_joined=not self.is_loose)
            for name in source.files:
                found.add(self.reader.table(name, PARTICLE_COLUMNS))
            for micrograph, more in found.by_micrograph():
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
    """The particles of one group, from files that are joined on uid."""

    def __init__(self, names: dict[int, str], is_joined: bool):
        self.names, self.is_joined = names, is_joined
        self.shapes: dict[int, tuple[int, int]] = {}  # (rows, columns) by micrograph
        self.files: list[dict[str, np.ndarray]] = []
        self._unnumbered: dict[str, int] = {}

    def add(self, parts: Iterable[cs.Rows]) -> None:
        found: dict[str, list[np.ndarray]] = {}
        for part in parts:
            if "uid" not in part:
                return
            found.setdefault("uid", []).append(part["uid"])
            paths = part.get("location/micrograph_path", part.get("blob/path"))
            numbers = part.get("location/micrograph_uid")
            if numbers is not None:
                self._describe(numbers, paths, part.get("location/micrograph_shape"))
            elif paths is not None:
                numbers = self._micrographs(paths)
            if numbers is not None:
                found.setdefault("micrograph", []).append(numbers)
            for name in ("location/center_x_frac", "location/center_y_frac"):
                if name in part:
                    found.setdefault(name, []).append(part[name].astype(np.float32))
        # There may be millions: one column after the other, so that they are not all there twice.
        self.files.append({name: np.concatenate(found.pop(name)) for name in list(found)})

    def _describe(self, numbers: np.ndarray, paths: np.ndarray | None, shapes: np.ndarray | None) -> None:
        """Take up the names and sizes of these micrographs."""
        known, first = np.unique(numbers, return_index=True)
        for uid, place in zip(known.tolist(), first.tolist()):
            path = _path(paths[place]) if paths is not None else ""
            if path:
                self.names.setdefault(uid, name_of_micrograph(path))
            if shapes is not None and shapes.shape[1] == 2:
                rows, columns = (int(value) for value in shapes[place])
                if 0 < rows < 2**20 and 0 < columns < 2**20:
                    self.shapes.setdefault(uid, (rows, columns))

    def _micrographs(self, paths: np.ndarray) -> np.ndarray:
        """Return the micrographs' uids that stand in these paths, a number of their own for those without."""
        known, places = np.unique(paths, return_inverse=True)
        if known.ndim != 1:
            raise ValueError("a path is not one text")
        codes = np.empty(len(known), dtype=np.uint64)
        for place, value in enumerate(known.tolist()):
            path = _path(value)
            uid = uid_of(path)
            if uid is None or uid >= 2**64:
                name = posixpath.basename(path)
                uid = self._unnumbered.setdefault(name, 2**64 - 1 - zlib.crc32(name.encode()))
            codes[place] = uid
            if path:
                self.names.setdefault(uid, name_of_micrograph(path))
        return codes[places.ravel()]

    def by_micrograph(self) -> Iterator[tuple[int, Picks]]:
        having = [file for file in self.files if "micrograph" in file]
        located = [file for file in having if set(file) >= LOCATED]
        others = [file for file in having if not set(file) >= LOCATED]
        chosen = (located or others)[:1] if self.is_joined else located + others
        taken: list[np.ndarray] = []
        pieces: dict[int, list[tuple[int, np.ndarray | None]]] = {}
        for file in chosen:
            keep = np.ones(len(file["uid"]), dtype=bool)
            if self.is_joined:
                for other in self.files:
                    if other is not file and "uid" in other:
                        keep &= _is_in(file["uid"], other["uid"])
            else:
                for uids in taken:
                    keep &= ~_is_in(file["uid"], uids)
                taken.append(file["uid"])
            index = np.flatnonzero(keep)
            index = index[np.argsort(file["micrograph"][index], kind="stable")]
            places = None
            if set(file) >= LOCATED:
                places = np.stack([file[name][index] for name in sorted(LOCATED)], axis=1)
            micrographs, starts, counts = np.unique(
                file["micrograph"][index], return_index=True, return_counts=True
            )
            for uid, start, count in zip(micrographs.tolist(), starts.tolist(), counts.tolist()):
                points = None if places is None else places[start : start + count]
                pieces.setdefault(uid, []).append((count, points))
        for uid, found in pieces.items():
            total = sum(count for count, _ in found)
            points = [part for _, part in found if part is not None and _are_places(part)]
            if len(points) < len(found):
                yield uid, Picks(total)
            else:
                whole = points[0] if len(points) == 1 else np.concatenate(points)
                yield uid, Picks(total, whole, self.shapes.get(uid))


LOCATED = {"location/center_x_frac", "location/center_y_frac"}


def _is_in(values: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Tell which values are among the others; as ``numpy.isin``, in a fraction of its memory."""
    if not len(others):
        return np.zeros(len(values), dtype=bool)
    others = np.sort(others)
    found = np.empty(len(values), dtype=bool)
    for start in range(0, len(values), cs.CHUNK):
        part = values[start : start + cs.CHUNK]
        places = np.minimum(np.searchsorted(others, part), len(others) - 1)
        found[start : start + cs.CHUNK] = others[places] == part
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


class CryosparcReader(Reader):
    """Follows a project's folder, one job's folder, or a folder of exported .cs files.

    ``key`` stands for the project in its runs' keys; without it the project's uid does, or the folder's name
    where there is none.
    """

    software = "CryoSPARC"
    SETTINGS: Mapping[str, str] = {"follow_links": "true to read also what links in the project lead to"}

    def __init__(self, place: str, key: str | None = None, settings: Mapping[str, Any] | None = None):
        settings = dict(settings or {})
        follow = settings.pop("follow_links", False)
        if settings:
            raise ReaderError(f"CryoSPARC has no setting {sorted(settings)[0]}.")
        if not isinstance(follow, bool):
            raise ReaderError("The setting follow_links is true or false.")
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
        self._warned: set[tuple[str, str]] = set()
        self._given = (key or "")[:150]
        self._has_left = False
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
        try:
            return self.folder.path(name.lstrip(">"))
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

    def warn(self, name: str, reason: object) -> None:
        """Log once that something was left out, and why."""
        if (name, str(reason)) not in self._warned:
            self._warned.add((name, str(reason)))
            log.warning("%s: %s", name, reason)

    # the interface

    def look(self) -> list[RunNews]:
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
        return [self._news(jobs, branch) for branch in branches]

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
        for name, job in there.items():
            if job is None or job.is_deleted or job.status == "building":
                continue
            if all(there.get(parent, job) is not None for parent in self._ancestors(name, there)):
                found[name] = job
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
        return files is not None and any(True for group in files.exposures for _ in group.uids())

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
        if state != told.state or any(signature(path) != there for path, there in told.trajectories):
            rows = self._merge(files)
            micrographs, pictures, told.trajectories = self._describe(told, rows, self._picks(files))
            changes = _changes(told.micrographs, micrographs)
            # Only what tells whether a picture's paths are others is kept of the thousands of them.
            marks = {place: hash(paths) for place, paths in pictures.items()}
            told.missing = {place: paths for place, paths in told.missing.items() if place in pictures}
            told.missing.update(
                (place, paths)
                for place, paths in pictures.items()
                if told.pictures.get(place) != marks[place]
            )
            told.state, told.micrographs, told.pictures = state, micrographs, marks
            told.geometry = {}
            for each in files:
                told.geometry.update(each.geometry)
            del rows, pictures
        news = RunNews(branch.key, self._info(branch, files, told.geometry), self._run_status(files), changes)
        for place, paths in list(told.missing.items()):
            path = next((path for path in map(self.place, paths) if os.path.exists(path)), None)
            if path is not None:
                del told.missing[place]
                news.pictures.append(Picture(place[0], path, micrograph=place[1]))
        for place in list(told.missing)[:-RECENT]:
            del told.missing[place]
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

    def _merge(self, files: list[JobFiles]) -> dict[int, Row]:
        """Return what the jobs of a branch tell of each exposure, later jobs over earlier ones."""
        rows: dict[int, Row] = {}
        for each in files:
            verdicts: dict[int, bool] = {}
            sorts_out = any(group.is_rejected for group in each.exposures)
            for group in each.exposures:
                for part in group.parts():
                    self._merge_part(rows, part)
                    if sorts_out and (group.is_rejected or group.is_accepted):
                        for uid in part["uid"].tolist():
                            verdicts[uid] = verdicts.get(uid, False) or group.is_rejected
            for uid, is_rejected in verdicts.items():
                rows[uid].fields["rejected"] = is_rejected
        return rows

    @staticmethod
    def _merge_part(rows: dict[int, Row], part: cs.Rows) -> None:
        columns = {name: values for name, values in part.items() if len(values) == len(part["uid"])}
        for place, uid in enumerate(part["uid"].tolist()):
            row = rows.get(uid)
            if row is None:
                row = rows[uid] = Row()
            for name, take in TAKEN:
                values = columns.get(name)
                if values is not None:
                    take(row, values[place])

    def _describe(
        self, told: Told, rows: dict[int, Row], picks: tuple[dict[int, Picks], dict[int, str], set[int]]
    ) -> tuple[
        dict[str, dict[str, Any]],
        dict[tuple[str, str], tuple[str, ...]],
        list[tuple[str, Signature | None]],
    ]:
        """Return {movie: fields}, {(kind, movie): paths} and the newest trajectories' files.

        Of a picture's paths the first there is drawn.
        """
        micrographs: dict[str, dict[str, Any]] = {}
        pictures: dict[tuple[str, str], tuple[str, ...]] = {}
        trajectories: deque[tuple[str, Signature | None]] = deque(maxlen=RECENT)
        found, names, looked_at = picks
        uid_by_stem = {_IMAGE.sub("", row.movie or row.micrograph): uid for uid, row in rows.items()}
        by_uid: dict[int, Picks] = {}
        for number, picked in found.items():
            # The same movie has another uid where it was imported anew.
            uid = number
            if number not in rows:
                uid = uid_by_stem.get(_IMAGE.sub("", names.get(number, "")), number)
            if uid not in by_uid or by_uid[uid].count < picked.count:
                by_uid[uid] = picked
        for uid in [*rows, *(uid for uid in by_uid if uid not in rows)]:
            row = rows.get(uid) or Row()
            name = self._name(told, uid, row, names.get(uid, ""))
            if not name:
                continue
            fields = row.fields
            if row.path and row.pixel:
                place = self.place(row.path)
                state = signature(place)
                trajectories.append((place, state))
                if state is not None:
                    fields["motion"] = Motion(place, state, row.pixel, row.dose, row.frames)
            if uid in by_uid:
                fields["picks"] = by_uid[uid]
            elif uid in looked_at:
                fields["picks"] = Picks(0)
            micrographs[name] = fields
            images = tuple(filter(None, (row.thumbnail, row.image)))
            if images:
                pictures["micrograph", name] = images
            if row.psd:
                pictures["psd", name] = (row.psd,)
        return micrographs, pictures, list(trajectories)

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
            told.owners[stem] = uid
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
        looked_at = {uid for group in chosen.exposures if not group.is_rejected for uid in group.uids()}
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


def _changes(old: dict[str, dict[str, Any]], new: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return what to send so that ``old`` becomes ``new``; fields that are gone become None."""
    changes = {}
    for name in {**old, **new}:
        before, fields = old.get(name), new.get(name, {})
        if before is None:
            changes[name] = dict(fields)
            continue
        changed = {key: value for key, value in fields.items() if before.get(key) != value}
        for key, value in before.items():
            if key not in fields:
                changed.update(dict.fromkeys(value.FIELDS if isinstance(value, (Motion, Picks)) else (key,)))
        if changed:
            changes[name] = changed
    return changes
