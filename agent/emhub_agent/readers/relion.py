"""RELION projects: 3.1, 4 and 5 (and the unnamed tables of 3.0 as far as they go).

Steps are found through ``default_pipeline.star``, rows are followed from file to file by the micrograph's
name, columns are taken by name. One CtfFind job with the jobs it descends from and those that descend from
it is one branch, and one branch is one run on the site.

Sources of the formats: the files themselves and RELION's own programs; where the label of a column and the
program disagree (motion is labelled Å and written in pixels) the program is followed.
"""

from __future__ import annotations

import logging
import os
import posixpath
import re
import socket
import time
from collections import deque
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from typing import Any, ClassVar, NamedTuple

from .. import star
from ..mrc import mrc_size
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
    Signature,
    signature,
)

log = logging.getLogger(__name__)

PIPELINE = "default_pipeline.star"

# What 3.1 wrote as numbers in rlnPipeLineProcessType and rlnPipeLineProcessStatus.
NUMERIC_TYPES = {
    "0": "import",
    "1": "motioncorr",
    "2": "ctffind",
    "3": "manualpick",
    "4": "autopick",
    "5": "extract",
    "7": "select",
    "8": "class2d",
}
STATUSES = {
    "0": "running",
    "1": "queued",
    "2": "finished",
    "3": "failed",
    "4": "stopped",
    "running": "running",
    "scheduled": "queued",
    "succeeded": "finished",
    "failed": "failed",
    "aborted": "stopped",
}
# Left in the job's folder when it ends; the pipeline file is brought up to date only when somebody looks.
MARKERS = {
    "RELION_JOB_EXIT_SUCCESS": "finished",
    "RELION_JOB_EXIT_FAILURE": "failed",
    "RELION_JOB_EXIT_ABORTED": "stopped",
}
# Jobs that compute; picking by hand and selecting stay "Running" for as long as a window is open.
COMPUTING = ("import", "motioncorr", "ctffind", "autopick", "extract", "class2d")

OUTPUTS = {
    "import": ("movies.star", "micrographs.star"),
    "motioncorr": ("corrected_micrographs.star",),
    "ctffind": ("micrographs_ctf.star",),
    "autopick": ("autopick.star", "coords_suffix_autopick.star"),
    "manualpick": ("manualpick.star", "coords_suffix_manualpick.star"),
}

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

# The options of a job that a person asks about afterwards.
PARAMETERS = {
    "import": "fn_in_raw angpix kV Cs Q0",
    "motioncorr": "dose_per_frame pre_exposure bin_factor group_frames eer_grouping patch_x patch_y bfactor "
    "do_own_motioncor do_dose_weighting fn_gain_ref gain_rot gain_flip",
    "ctffind": "use_noDW box resmin resmax dfmin dfmax dfstep dast do_phaseshift phase_min phase_max "
    "phase_step",
    "autopick": "do_log log_diam_min log_diam_max log_adjust_thr do_refs threshold_autopick mindist_autopick "
    "lowpass do_topaz topaz_particle_diameter topaz_nr_particles",
    "extract": "extract_size do_rescale rescale",
    "class2d": "nr_classes do_grad nr_iter nr_iter_em nr_iter_grad tau_fudge particle_diameter",
}
# Options that say something only while another one is on.
ONLY_WITH = {
    "phase_min": "do_phaseshift",
    "phase_max": "do_phaseshift",
    "phase_step": "do_phaseshift",
    "log_diam_min": "do_log",
    "log_diam_max": "do_log",
    "log_adjust_thr": "do_log",
    "threshold_autopick": "do_refs",
    "mindist_autopick": "do_refs",
    "lowpass": "do_refs",
    "topaz_particle_diameter": "do_topaz",
    "topaz_nr_particles": "do_topaz",
    "rescale": "do_rescale",
    "nr_iter_grad": "do_grad",
}

_JOB = re.compile(r"^(?:\./)?(\w+/job(\d+))(?:/|$)")
_MODEL = re.compile(r"^run(?:_ct\d+)?_it(\d+)_model\.star$")
_ESCAPE = re.compile(r"\x1b\[[0-9;]*[A-Za-z]|[\x00-\x1f\x7f]")
_VERSION = re.compile(r"RELION (?:version: ?|optimiser; version )([\w.-]+)")

# So many of the newest rows are looked at again at every look for files that came after their row.
RECENT = 500
# A file that has not changed for so many seconds is not being written.
SETTLED = 5.0


class Job(NamedTuple):
    """One process of the pipeline."""

    name: str  # CtfFind/job005
    number: int
    kind: str
    status: str


class Pipeline:
    """What ``default_pipeline.star`` says: jobs, what each made, and from which jobs each took its input."""

    def __init__(self, path: str):
        self.jobs: dict[str, Job] = {}
        self.outputs: dict[str, list[str]] = {}
        self.inputs: dict[str, set[str]] = {}
        self.numeric = False
        producer: dict[str, str] = {}
        edges = []
        coordinates = set()
        lines = list(star.whole_lines(path))
        #: Whether the last of its tables is there; a file without it may be cut mid-write.
        self.is_whole = any(line.startswith("data_pipeline_output_edges") for line in lines)
        for item in star.parse(lines):
            if not isinstance(item, star.Row):
                continue
            if item.block == "pipeline_processes":
                self._job(item)
            elif item.block == "pipeline_nodes":
                if "Coords" in (item.get("rlnPipeLineNodeTypeLabel") or ""):
                    coordinates.add(_clean(item.get("rlnPipeLineNodeName")))
            elif item.block == "pipeline_output_edges":
                job, node = (
                    job_of(item.get("rlnPipeLineEdgeProcess")),
                    _clean(item.get("rlnPipeLineEdgeToNode")),
                )
                if job:
                    producer[node] = job
                    self.outputs.setdefault(job, []).append(node)
            elif item.block == "pipeline_input_edges":
                edges.append(
                    (_clean(item.get("rlnPipeLineEdgeFromNode")), job_of(item.get("rlnPipeLineEdgeProcess")))
                )
        for node, job in edges:
            source = producer.get(node) or job_of(node)
            if job in self.jobs and source in self.jobs and source != job:
                self.inputs.setdefault(job, set()).add(source)
        for node in coordinates:
            # A picker from outside (an External job) is a picker by what it makes.
            job = self.jobs.get(producer.get(node, ""))
            if job and job.kind == "other":
                self.jobs[job.name] = job._replace(kind="autopick")

    def _job(self, row: star.Row) -> None:
        match = _JOB.match(row.get("rlnPipeLineProcessName") or "")
        if not match:
            return  # a job of a schedule that has not run
        label = row.get("rlnPipeLineProcessTypeLabel")
        if label is None:
            self.numeric = True
            kind = NUMERIC_TYPES.get(row.get("rlnPipeLineProcessType") or "", "other")
        else:
            parts = label.split(".")
            kind = parts[1] if len(parts) > 1 and parts[0] == "relion" else "other"
            if kind not in NUMERIC_TYPES.values():
                kind = "other"
        status = row.get("rlnPipeLineProcessStatusLabel") or row.get("rlnPipeLineProcessStatus") or ""
        name = match.group(1)
        self.jobs[name] = Job(name, int(match.group(2)), kind, STATUSES.get(status.lower(), "running"))

    def lacks(self, other: Pipeline) -> bool:
        """Whether something that ``other`` knows is missing here: a deleted job, or a file cut mid-write."""
        return any(name not in self.jobs for name in other.jobs) or any(
            not sources <= self.inputs.get(name, set()) for name, sources in other.inputs.items()
        )

    def ancestors(self, name: str) -> set[str]:
        return self._follow(name, self.inputs)

    def descendants(self, name: str) -> set[str]:
        """Return the jobs made from this one's results, up to the next CtfFind, which is its own branch."""
        children: dict[str, set[str]] = {}
        for job, sources in self.inputs.items():
            if self.jobs[job].kind != "ctffind":
                for source in sources:
                    children.setdefault(source, set()).add(job)
        return self._follow(name, children)

    @staticmethod
    def _follow(name: str, edges: dict[str, set[str]]) -> set[str]:
        found: set[str] = set()
        todo = [name]
        while todo:
            for other in edges.get(todo.pop(), ()):
                if other not in found and other != name:
                    found.add(other)
                    todo.append(other)
        return found


class Branch(NamedTuple):
    """The jobs of one run, by number; ``leaf`` is its CtfFind job, or the last step where none is yet."""

    key: str
    leaf: str
    jobs: tuple[str, ...]
    is_main: bool


class PickFile(Deferred):
    """Coordinates in one STAR file, in micrograph pixels."""

    __slots__ = ("complete", "path", "state")

    def __init__(self, path: str, state: Signature, complete: bool):
        self.path, self.state, self.complete = path, state, complete

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PickFile) and (self.path, self.state) == (other.path, other.state)

    def __hash__(self) -> int:
        return hash((self.path, self.state))

    def load(self) -> dict[str, Any]:
        points = []
        is_table = False
        for item in star.read(self.path, complete=self.complete):
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


class Table:
    """The rows of one job's result file, read again only when the file changes.

    ``serial`` grows whenever the rows may have changed.
    """

    def __init__(self, reader: RelionReader, job: str):
        self.reader, self.job = reader, job
        self.rows: dict[str, dict[str, Any]] = {}
        self.optics: dict[str, star.Row] = {}
        self.serial = 0
        self._state: tuple | None = None

    def refresh(self, path: str | None, finished: bool) -> None:
        state = (path, finished, self.reader.signature(path) if path else None)
        if state == self._state or state[2] is None:
            return
        try:
            self.read(self.reader.path(path), finished)
        except OSError as error:
            self.reader.warn(path, error)
            return
        self._state = state
        self.serial += 1

    def read(self, path: str, finished: bool) -> None:
        rows: dict[str, dict[str, Any]] = {}
        for item in star.read(path, complete=finished):
            if isinstance(item, star.Row):
                if item.block == "optics":
                    self.optics[item.get("rlnOpticsGroup") or ""] = item
                else:
                    found = self.row(item)
                    if found:
                        rows[found[0]] = found[1]
        if not finished:
            # A shorter file is one that is being written anew: what was there stays until the job ends.
            for name, old in self.rows.items():
                rows.setdefault(name, old)
        self.rows = rows

    def row(self, row: star.Row) -> tuple[str, dict[str, Any]] | None:
        """Return a name and what the row tells of it, None to leave it out; called for each row by `read`."""
        raise NotImplementedError

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


class ImportTable(Table):
    """Movies (or micrographs) as they were imported."""

    def row(self, row: star.Row) -> tuple[str, dict[str, Any]] | None:
        if "rlnImageName" in row.columns or "rlnCoordinateX" in row.columns:
            return None  # particles were imported
        name = row.get("rlnMicrographMovieName")
        if name:
            return name, {}
        if "rlnMicrographCoordinates" in row.columns:
            return None
        name = row.get("rlnMicrographName")
        return (name, {"image": name}) if name else None


class MotionTable(Table):
    """Motion-corrected micrographs: their motion in Å and the movie each was made of."""

    def __init__(self, reader: RelionReader, job: str):
        super().__init__(reader, job)
        self.movies: dict[str, str | None] = {}
        self.geometry: dict[str, float] = {}

    def row(self, row: star.Row) -> tuple[str, dict[str, Any]] | None:
        name = row.get("rlnMicrographName")
        if not name:
            return None
        if name not in self.movies:
            self.movies[name] = self._movie(row.get("rlnMicrographMetadata"))
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

    def _movie(self, metadata: str | None) -> str | None:
        """Return the movie's name from the micrograph's own STAR file: the reliable link back."""
        if not metadata:
            return None
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
        return movie


class CtfTable(Table):
    """CTF estimates: defocus in Å (underfocus positive), resolution in Å."""

    def row(self, row: star.Row) -> tuple[str, dict[str, Any]] | None:
        name = row.get("rlnMicrographName")
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

    def refresh(self, path: str | None, finished: bool) -> None:
        before = self.serial
        self.finished = finished
        super().refresh(path, finished)
        if self.serial == before:
            # Coordinates may be written after the table that names them: only the newest are looked at again.
            names = list(self.files)[-RECENT:]
            if self._look(names):
                self.serial += 1

    def read(self, path: str, finished: bool) -> None:
        suffix = re.match(r"coords_suffix_(\w+)\.star$", os.path.basename(path))
        files = (
            dict(self._by_suffix(path, suffix.group(1))) if suffix else dict(self._by_table(path, finished))
        )
        if finished:
            self.files, self.rows = files, {}
        else:
            self.files.update(files)
        self.counts = self._summary()
        self._look(list(self.files))

    def _by_table(self, path: str, finished: bool) -> Iterator[tuple[str, str]]:
        for item in star.read(path, complete=finished):
            if isinstance(item, star.Row):
                name, file = item.get("rlnMicrographName"), item.get("rlnMicrographCoordinates")
                if name and file:
                    yield name, file

    def _by_suffix(self, path: str, suffix: str) -> Iterator[tuple[str, str]]:
        """3.1: the file is plain text and names the STAR file whose micrographs were picked."""
        source = next(star.whole_lines(path, complete=True), "").strip()
        if not source:
            return
        for item in star.read(self.reader.path(source)):
            name = item.get("rlnMicrographName") if isinstance(item, star.Row) else None
            if name:
                stem = posixpath.splitext(without_job(name))[0]
                yield name, f"{self.job}/{stem}_{suffix}.star"

    def _summary(self) -> dict[str, int]:
        counts = {}
        try:
            for item in star.read(self.reader.path(f"{self.job}/summary.star")):
                if isinstance(item, star.Row):
                    name, count = item.get("rlnMicrographName"), star.number(item.get("rlnGroupNrParticles"))
                    if name and count is not None:
                        counts[name] = int(count)
        except OSError:
            pass  # written at the end, and not by every version
        return counts

    def _look(self, names: list[str]) -> bool:
        """Take up the coordinate files of these micrographs; return whether any is new or changed."""
        changed = False
        for name in names:
            state = self.reader.signature(self.files[name])
            picks: Deferred | None = None
            if state is not None:
                if self.files[name].endswith(".star"):
                    picks = PickFile(self.reader.path(self.files[name]), state, self.finished)
                else:
                    self.reader.warn(self.files[name], "coordinates are read from STAR files only")
            if picks is None and name in self.counts:
                picks = PickCount(self.counts[name])
            if picks is not None and self.rows.get(name) != {"picks": picks}:
                self.rows[name] = {"picks": picks}
                changed = True
        return changed


TABLES = {
    "import": ImportTable,
    "motioncorr": MotionTable,
    "ctffind": CtfTable,
    "autopick": PickTable,
    "manualpick": PickTable,
}


class Classes:
    """The newest finished iteration of one Class2D job."""

    def __init__(self, reader: RelionReader, job: str):
        self.reader, self.job = reader, job
        self.found: ClassSet | None = None
        self.stack: str | None = None
        self._state: tuple | None = None
        self._seen: dict[int, tuple] = {}

    def refresh(self, is_finished: bool) -> None:
        iterations = []
        try:
            folder = self.reader.path(self.job)
            for name in os.listdir(folder):
                match = _MODEL.match(name)
                # Iteration 0 is the start: its classes hold no particles yet.
                if match and int(match.group(1)) > 0:
                    iterations.append((int(match.group(1)), name))
        except OSError:
            return
        for iteration, name in sorted(iterations, reverse=True)[:3]:
            stem = name[: -len("_model.star")]
            files = [
                os.path.join(folder, stem + end) for end in ("_model.star", "_data.star", "_classes.mrcs")
            ]
            state = (iteration, tuple(signature(path) for path in files))
            if state == self._state:
                return
            if state[1][1] is None:
                continue  # the particles' table comes after the model's
            if not is_finished and not self._is_settled(state):
                continue
            try:
                found = self._read(iteration, files[0], files[1])
            except (OSError, ValueError) as error:
                self.reader.warn(files[0], error)
                continue
            if found:
                self._state, self.found = state, found
                self.stack = files[2] if state[1][2] else None
                return

    def _is_settled(self, state: tuple) -> bool:
        """Whether nobody is writing these files: unchanged since the last look, or for some seconds."""
        newest = max(changed for changed, _ in filter(None, state[1])) / 1e9
        seen = self._seen.get(state[0])
        self._seen[state[0]] = state
        return state == seen or time.time() - newest > SETTLED

    def _read(self, iteration: int, model: str, data: str) -> ClassSet | None:
        expected = None
        rows = []
        for item in star.read(model, ("model_general", "model_classes")):
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
        for item in star.read(data, ("particles", "")):
            if isinstance(item, star.Row):
                number = item.get("rlnClassNumber")
                if number is not None:
                    counts[number] = counts.get(number, 0) + 1
        if not counts:
            return None
        classes = [
            {"number": number, "particles": counts.get(str(number), 0), "resolution": resolution}
            for number, resolution in rows
        ]
        return ClassSet(self.job, iteration, classes)


class Told:
    """What of one run has been told already."""

    def __init__(self) -> None:
        self.state: tuple | None = None
        self.micrographs: dict[str, dict[str, Any]] = {}
        self.pictures: dict[tuple[str, str], tuple[str, ...]] = {}
        self.missing: deque[tuple[str, str]] = deque(maxlen=RECENT)
        self.classes: dict[str, Any] = {}
        self.events: set[tuple[str, str]] = set()


class RelionReader(Reader):
    """Follows the project in the folder ``path``.

    ``key`` stands for the project in its runs' keys; without it the folder's name does, which stays the same
    from machine to machine where the path to it need not. Raises ReaderError where there is no project.
    """

    software = "RELION"

    SETTINGS: ClassVar = {
        "follow_links": "true to read what links within the project lead to outside of it (false)",
    }

    def __init__(self, path: str, key: str | None = None, settings: Mapping[str, Any] | None = None):
        for name in settings or ():
            if name not in self.SETTINGS:
                raise ReaderError(f"RELION has no setting {name}.")
        follow_links = (settings or {}).get("follow_links", False)
        if not isinstance(follow_links, bool):
            raise ReaderError("follow_links must be true or false.")
        self.folder = Folder(path, follow_links)
        self.root = self.folder.root
        if not os.path.isdir(self.root):
            raise ReaderError(f"There is no folder {path}.")
        # The site keeps keys of up to 200 characters; the job's name comes behind.
        self.name = (key or os.path.basename(os.path.realpath(self.root)) or "relion")[:150]
        self._pipeline: Pipeline | None = None
        self._pipeline_state: Signature | None = None
        self._doubted: Signature | None = None
        self._tables: dict[str, Table] = {}
        self._classes: dict[str, Classes] = {}
        self._options: dict[str, tuple[Signature | None, dict[str, str]]] = {}
        self._told: dict[str, Told] = {}
        self._warned: set[tuple[str, str]] = set()
        self._inside: dict[str, bool] = {}
        self._sizes: dict[str, tuple[int, int] | None] = {}
        self._version: str | None = None
        if signature(self.path(PIPELINE)) is None:
            raise ReaderError(
                f"{path} is not a RELION project: it has no {PIPELINE}. "
                "Give the folder RELION was started in."
            )

    def path(self, name: str) -> str:
        """Return the place of a file that the project names relative to itself.

        Raises OutsideError where a link leads out of the project.
        """
        full = os.path.join(self.root, name)
        if self.folder.follow_links:
            return full
        # Tables name files by the ten thousand, in a few folders: each folder is looked into once per look.
        above = os.path.dirname(full)
        if above not in self._inside:
            try:
                self.folder.path(above)
            except OutsideError:
                self._inside[above] = False
            else:
                self._inside[above] = True
        if not self._inside[above] or os.path.islink(full):
            self.folder.path(name)
        return full

    def signature(self, name: str) -> Signature | None:
        """As ``signature``, of a file that the project names; None, with a warning, where it lies outside."""
        try:
            return signature(self.path(name))
        except OutsideError as error:
            self.warn(name, f"{error}; the setting follow_links allows it")
            return None

    def exists(self, name: str) -> bool:
        return self.signature(name) is not None

    def warn(self, name: str, reason: object) -> None:
        """Log once that something was left out, and why."""
        if (name, str(reason)) not in self._warned:
            self._warned.add((name, str(reason)))
            log.warning("%s: %s", os.path.relpath(os.path.join(self.root, name), self.root), reason)

    # the interface

    def look(self) -> list[RunNews | SessionNews]:
        self._inside.clear()
        pipeline = self._read_pipeline()
        statuses = {name: self._status(job) for name, job in pipeline.jobs.items()}
        for name, job in pipeline.jobs.items():
            if job.kind in TABLES:
                table = self._tables.get(name)
                if table is None:
                    table = self._tables[name] = TABLES[job.kind](self, name)
                table.refresh(self._output(pipeline, job), statuses[name][0] == "finished")
            elif job.kind == "class2d":
                self._classes.setdefault(name, Classes(self, name)).refresh(statuses[name][0] == "finished")
        return [self._news(pipeline, branch, statuses) for branch in self._branches(pipeline)]

    def forget(self, key: str) -> None:
        self._told.pop(key, None)

    # pipeline

    def _read_pipeline(self) -> Pipeline:
        path = self.path(PIPELINE)
        state = signature(path)
        if self._pipeline is not None and (state is None or state == self._pipeline_state):
            return self._pipeline
        try:
            if self._pipeline is None:
                state = self._settled(path)
            found = Pipeline(path)
            for _ in range(10):
                # Keys of runs hang by the first reading: a file cut mid-write would give wrong ones.
                if self._pipeline is not None or found.is_whole:
                    break
                time.sleep(0.1)
                state, found = signature(path), Pipeline(path)
        except OSError as error:
            if self._pipeline is None:
                raise ReaderError(f"{path} cannot be read: {error.strerror}.") from error
            self.warn(PIPELINE, error)
            return self._pipeline
        if self._pipeline is not None and found.lacks(self._pipeline) and state != self._doubted:
            self._doubted = state  # believed if it is still so at the next look
            return self._pipeline
        for name, job in found.jobs.items():
            if name not in found.inputs and job.kind != "import":
                found.inputs[name] = {
                    source
                    for source in (job_of(value) for value in self._job_options(name).values())
                    if source in found.jobs and found.jobs[source].number < job.number
                }
        self._pipeline, self._pipeline_state = found, state
        return found

    @staticmethod
    def _settled(path: str) -> Signature | None:
        """Wait, briefly, for a file that was written just now: on it hangs by which keys runs are known."""
        state = signature(path)
        for _ in range(10):
            if state is not None and state[1] and time.time() - state[0] / 1e9 > 1:
                break
            time.sleep(0.1)
            before, state = state, signature(path)
            if state is not None and state == before and state[1]:
                break
        return state

    def _status(self, job: Job) -> tuple[str, float | None]:
        """Return how the job is, and when it ended (seconds since 1970, None while it has not)."""
        newest: tuple[str, float | None] = (job.status, None)
        for name, status in MARKERS.items():
            try:
                at = os.stat(self.path(f"{job.name}/{name}")).st_mtime
            except OSError:
                continue
            if newest[1] is None or at > newest[1]:
                newest = (status, at)
        return newest

    def _output(self, pipeline: Pipeline, job: Job) -> str | None:
        """Return the job's result file: the one the pipeline names, else the one RELION would write."""
        expected = OUTPUTS[job.kind]
        named = [node for node in pipeline.outputs.get(job.name, ()) if node.endswith(".star")]
        usual = [f"{job.name}/{name}" for name in expected]
        ranked = [node for node in named if posixpath.basename(node) in expected]
        ranked += [node for node in named if posixpath.basename(node).startswith("coords_suffix_")]
        ranked += [node for node in named if posixpath.basename(node) != "micrographs_selected.star"] + usual
        for node in ranked:
            if self.exists(node):
                return node
        return None

    def _branches(self, pipeline: Pipeline) -> list[Branch]:
        """Return the branches, the main one of each import first.

        A branch is keyed by the first of its jobs that no branch before it has, so that its key stays when
        jobs are added to it and when other branches appear.
        """
        leaves = [job for job in pipeline.jobs.values() if job.kind == "ctffind"]
        covered: set[str] = set()
        for leaf in leaves:
            covered |= {leaf.name} | pipeline.ancestors(leaf.name)
        # A step with nothing after it yet is a branch too; beside others only if it has rows.
        is_alone = not leaves
        for kind in ("motioncorr", "import"):
            for job in pipeline.jobs.values():
                if job.kind == kind and job.name not in covered and (is_alone or self._tables[job.name].rows):
                    leaves.append(job)
                    covered |= {job.name} | pipeline.ancestors(job.name)
        order = {"ctffind": 0, "motioncorr": 1, "import": 2}
        leaves.sort(key=lambda job: (order[job.kind], job.number))
        branches = []
        claimed: set[str] = set()
        for leaf in leaves:
            names = {leaf.name} | pipeline.ancestors(leaf.name) | pipeline.descendants(leaf.name)
            jobs = tuple(sorted(names, key=lambda name: pipeline.jobs[name].number))
            is_main = jobs[0] not in claimed
            own = next((name for name in jobs if name not in claimed), leaf.name)
            claimed.update(jobs)
            branches.append(Branch(f"{self.name}/{own}", leaf.name, jobs, is_main))
        return branches

    # one run

    def _news(self, pipeline: Pipeline, branch: Branch, statuses: dict[str, tuple]) -> RunNews:
        told = self._told.setdefault(branch.key, Told())
        news = RunNews(branch.key, self._info(pipeline, branch), self._run_status(pipeline, branch, statuses))
        tables = [(pipeline.jobs[name], self._tables[name]) for name in branch.jobs if name in self._tables]
        state = tuple((job.name, table.serial) for job, table in tables)
        if state != told.state:
            micrographs, pictures = self._merge(tables)
            news.micrographs = _changes(told.micrographs, micrographs)
            for place, paths in pictures.items():
                if told.pictures.get(place) != paths:
                    told.missing.append(place)
            told.state, told.micrographs, told.pictures = state, micrographs, pictures
        for _ in range(len(told.missing)):
            kind, movie = place = told.missing.popleft()
            path = next(filter(self.exists, told.pictures.get(place, ())), None)
            if path is not None:
                news.pictures.append(Picture(kind, self.path(path), micrograph=movie))
            elif place in told.pictures:
                told.missing.append(place)
        for name in branch.jobs:
            classes = self._classes.get(name)
            if classes is not None and classes.found is not None:
                self._tell_classes(news, told, classes)
            self._tell_end(news, told, pipeline.jobs[name], statuses[name])
        return news

    def _tell_classes(self, news: RunNews, told: Told, classes: Classes) -> None:
        found = classes.found
        if found is None or told.classes.get(found.job) == classes._state:
            return
        told.classes[found.job] = classes._state
        news.classes.append(found)
        if classes.stack:
            for row in found.classes:
                if row["particles"]:
                    news.pictures.append(
                        Picture(
                            "class_average",
                            classes.stack,
                            job=found.job,
                            iteration=found.iteration,
                            number=row["number"],
                        )
                    )

    def _tell_end(self, news: RunNews, told: Told, job: Job, status: tuple[str, float | None]) -> None:
        how, at = status
        if how not in ("failed", "stopped") or job.kind not in COMPUTING:
            return
        text = f"{job.name} failed" if how == "failed" else f"{job.name} was stopped"
        if how == "failed":
            reason = self._last_line(f"{job.name}/run.err")
            text += f": {reason}" if reason else "."
        else:
            text += "."
        when = datetime.fromtimestamp(int(at), timezone.utc).isoformat() if at else None
        if (text, when or "") not in told.events:
            told.events.add((text, when or ""))
            news.events.append(Event("error" if how == "failed" else "warning", text, when))

    def _last_line(self, name: str) -> str:
        try:
            with open(self.path(name), "rb") as handle:
                handle.seek(0, os.SEEK_END)
                handle.seek(max(0, handle.tell() - 4096))
                lines = handle.read().decode("utf-8", "replace").split("\n")
        except OSError:
            return ""
        plain = (_ESCAPE.sub("", line).strip() for line in reversed(lines))
        return next((line[:300] for line in plain if line), "")

    @staticmethod
    def _run_status(pipeline: Pipeline, branch: Branch, statuses: dict[str, tuple]) -> str:
        """Return the run's status: running first, then what went wrong and was not done again since."""
        last: dict[str, str] = {}
        for name in branch.jobs:
            kind, status = pipeline.jobs[name].kind, statuses[name][0]
            if kind in COMPUTING and status != "queued":
                if status == "running":
                    return "running"
                last[kind] = status
        if not last:
            return "queued"
        for status in ("failed", "stopped"):
            if status in last.values():
                return status
        return "finished"

    def _merge(self, tables: list[tuple[Job, Table]]) -> tuple[dict[str, dict[str, Any]], dict]:
        """Return {movie: fields} and {(kind, movie): paths} of a branch, later jobs over earlier ones.

        Of a picture's paths the first that exists is the one to draw.
        """
        micrographs: dict[str, dict[str, Any]] = {}
        pictures: dict[tuple[str, str], tuple[str, ...]] = {}
        stems: dict[str, str] = {}
        movies: dict[str, str] = {}
        spectra: dict[str, str] = {}
        has_ctf = any(job.kind == "ctffind" for job, _ in tables)
        # Picks made by hand are usually there to train a picker: they count where nothing else was picked.
        order = ["import", "motioncorr", "ctffind", "manualpick", "autopick"]
        for job, table in sorted(tables, key=lambda pair: order.index(pair[0].kind)):
            for name, row in table.rows.items():
                if job.kind == "import":
                    movie = name
                    stems.setdefault(_stem(name), name)
                else:
                    movie = movies.get(name) or ""
                    if not movie:
                        known = table.movies.get(name) if isinstance(table, MotionTable) else None
                        path = without_job(name)
                        movie = movies[name] = known or stems.get(_stem(path)) or path
                fields = micrographs.setdefault(movie, {})
                for field, value in row.items():
                    if field == "image":
                        pictures["micrograph", movie] = (value,)
                    elif field == "spectrum":
                        # CTFFIND's picture shows the fit beside the spectrum; the plain one is second choice,
                        # and waits for the CTF so that no picture is sent twice.
                        if job.kind == "ctffind":
                            plain = spectra.get(movie)
                            pictures["psd", movie] = (value, plain) if plain else (value,)
                        elif has_ctf:
                            spectra[movie] = value
                        else:
                            pictures["psd", movie] = (value,)
                    else:
                        fields[field] = value
        return micrographs, pictures

    # what describes the run

    def _info(self, pipeline: Pipeline, branch: Branch) -> dict[str, Any]:
        info: dict[str, Any] = {
            "software": self.software,
            "version": self._find_version(pipeline, branch),
            "host": socket.gethostname(),
            "label": self.name if branch.is_main else f"{self.name}, {branch.leaf}",
        }
        info.update(self._geometry(branch))
        parameters: dict[str, Any] = {}
        diameters: dict[str, Any] = {}
        for name in branch.jobs:
            kind = pipeline.jobs[name].kind
            options = self._job_options(name)
            for option in PARAMETERS.get(kind, "").split():
                value = _option(options.get(option))
                switch = ONLY_WITH.get(option)
                if value is not None and (switch is None or _option(options.get(switch)) is True):
                    parameters[f"{kind}.{option}"] = value
            if kind == "class2d":
                diameters["class2d"] = _option(options.get("particle_diameter"))
            elif kind == "autopick":
                if _option(options.get("do_log")) is True:
                    diameters["autopick"] = _option(options.get("log_diam_max"))
                elif _option(options.get("do_topaz")) is True:
                    diameters["autopick"] = _option(options.get("topaz_particle_diameter"))
        info["parameters"] = parameters
        for kind in ("class2d", "autopick"):
            value = diameters.get(kind)
            if isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0:
                info["particle_diameter"] = float(value)
                break
        for name in ("pixel_size", "width", "height"):
            if not info.get(name, 0) > 0:
                info.pop(name, None)
        return {key: value for key, value in info.items() if value not in (None, "", {})}

    def _geometry(self, branch: Branch) -> dict[str, Any]:
        """Return the micrographs' pixel size (Å), width and height, from the latest job that knows."""
        found: dict[str, Any] = {}
        for name in branch.jobs:
            table = self._tables.get(name)
            if table is None:
                continue
            for optics in table.optics.values():
                binned = star.number(optics.get("rlnMicrographPixelSize"))
                original = star.number(optics.get("rlnMicrographOriginalPixelSize"))
                if binned or original:
                    found["pixel_size"] = binned or original
                break
            if isinstance(table, MotionTable) and table.rows:
                geometry = table.geometry
                binning = geometry.get("rlnMicrographBinning") or 1.0
                if "rlnImageSizeX" in geometry and "rlnImageSizeY" in geometry:
                    found["width"] = int(geometry["rlnImageSizeX"] / binning)
                    found["height"] = int(geometry["rlnImageSizeY"] / binning)
                size = self._size(next(iter(table.rows)))
                if size:
                    found["width"], found["height"] = size
                if "pixel_size" not in found and "rlnMicrographOriginalPixelSize" in geometry:
                    found["pixel_size"] = geometry["rlnMicrographOriginalPixelSize"] * binning
        return found

    def _size(self, name: str) -> tuple[int, int] | None:
        if self._sizes.get(name) is None:
            self._sizes[name] = mrc_size(self.path(name)) if self.exists(name) else None
        return self._sizes[name]

    def _find_version(self, pipeline: Pipeline, branch: Branch) -> str | None:
        """Return RELION's version as its own output gives it, else what the shape of its files tells."""
        if self._version is None:
            for name in reversed(branch.jobs):
                for file in (f"{name}/run.out", self._optimiser(name)):
                    match = _VERSION.search(self._head(file)) if file else None
                    if match:
                        self._version = match.group(1)
                        return self._version
            head = self._head(PIPELINE)
            if "# version 5" in head:
                return "5"
            if "# version 3" in head:
                return "3.1" if pipeline.numeric else "4"
            return "3.0" if pipeline.numeric else None
        return self._version

    def _optimiser(self, job: str) -> str | None:
        classes = self._classes.get(job)
        if classes is None or classes.found is None:
            return None
        return f"{job}/run_it{classes.found.iteration:03d}_optimiser.star"

    def _head(self, name: str) -> str:
        try:
            with open(self.path(name), "rb") as handle:
                return handle.read(4096).decode("utf-8", "replace")
        except OSError:
            return ""

    def _job_options(self, job: str) -> dict[str, str]:
        """Return the options of ``job.star``, read line by line: 3.1 adds help texts that no parser likes."""
        path = f"{job}/job.star"
        state = self.signature(path)
        known = self._options.get(job)
        if known is not None and known[0] == state:
            return known[1]
        options: dict[str, str] = {}
        try:
            for item in star.read(self.path(path), ("joboptions_values",), complete=True):
                if isinstance(item, star.Row):
                    name, value = item.get("rlnJobOptionVariable"), item.get("rlnJobOptionValue")
                    if name and value is not None:
                        options[name] = value
        except FileNotFoundError:
            pass
        except OSError as error:
            self.warn(path, error)
        self._options[job] = (state, options)
        return options


def _changes(old: dict[str, dict[str, Any]], new: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return what to send so that ``old`` becomes ``new``; fields that are gone become None."""
    changes = {}
    for name, fields in new.items():
        before = old.get(name)
        if before is None:
            changes[name] = dict(fields)
        elif before != fields:
            changed = {key: value for key, value in fields.items() if before.get(key) != value}
            for key in before:
                if key not in fields:
                    changed.update(
                        {"coordinates": None, "particles": None} if key == "picks" else {key: None}
                    )
            if changed:
                changes[name] = changed
    for name, before in old.items():
        if name not in new and before:
            gone = {key: None for key in before if key != "picks"}
            if "picks" in before:
                gone.update({"coordinates": None, "particles": None})
            changes[name] = gone
    return changes


def _clean(path: str | None) -> str:
    return posixpath.normpath(path) if path else ""


def _stem(path: str) -> str:
    """Return what RELION makes of a movie's path when it names the micrograph after it."""
    return posixpath.splitext(posixpath.normpath(path))[0].replace(".", "_")


def job_of(path: str | None) -> str | None:
    """Return the job a path lies in: ``CtfFind/job005/x.star`` -> ``CtfFind/job005``."""
    match = _JOB.match(path or "")
    return match.group(1) if match else None


def without_job(path: str) -> str:
    """Return a path without its job's folder: ``MotionCorr/job002/Movies/a.mrc`` -> ``Movies/a.mrc``."""
    match = _JOB.match(path)
    return path[match.end() :] if match else path


def _option(value: str | None) -> Any:
    """Return a job option as a number, a boolean or text; None where it is empty."""
    if value is None or value == "":
        return None
    if value in ("Yes", "No"):
        return value == "Yes"
    found = star.number(value)
    if found is not None:
        return int(found) if found.is_integer() else found
    return value.replace("__", " ")  # 3.1's way to write a blank
