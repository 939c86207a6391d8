"""RELION projects: 3.0, 3.1, 4 and 5.

Steps are found through ``default_pipeline.star``, rows are followed from file to file by the micrograph's
name, columns are taken by name. One CtfFind job with the jobs it descends from and those that descend from
it is one branch, and one branch is one run on the site.
"""

from __future__ import annotations

import logging
import os
import posixpath
import re
import socket
import time
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from functools import partial
from typing import Any, ClassVar, NamedTuple

from .. import names, star
from ..mrc import mrc_size
from .base import (
    Complaints,
    Event,
    Folder,
    OutsideError,
    Picture,
    Pictures,
    Reader,
    ReaderError,
    RunNews,
    SessionNews,
    Signature,
    flag,
    signature,
)
from .relion_pipeline import PIPELINE, Job, Pipeline, Scheme, job_of, stem_of, without_job
from .relion_tables import ORDER, TABLES, Classes, MotionTable, RowTable, Table, items_of, packed

log = logging.getLogger(__name__)

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

_ESCAPE = re.compile(r"\x1b\[[0-9;]*[A-Za-z]|[\x00-\x1f\x7f]")
_VERSION = re.compile(r"RELION (?:version: ?|optimiser; version )([\w.-]+)")

# A scheme whose file has not changed for so many seconds runs no more, whatever it says.
SCHEME_WAITS = 3600.0
# Seconds that a micrograph waits for a table that tells its movie.
GUESS_AFTER = 300.0
# Seconds between two questions whether a job that runs still writes.
SIGNS_EVERY = 300.0


class Branch(NamedTuple):
    """The jobs of one run, by number; ``leaf`` is its CtfFind job, or the last step where none is yet."""

    key: str
    leaf: str
    jobs: tuple[str, ...]
    is_main: bool


class Branched:
    """What is known of one run: which rows belong to which movie, and what of it has been told already.

    Only the movies whose rows changed are put together anew. A movie's fields are kept as told, in a tuple of
    (names of fields, values...), because there may be very many.
    """

    def __init__(self) -> None:
        self.tables: list[tuple[Job, Table]] = []
        self.told: dict[str, tuple] = {}
        self.todo = Pictures()
        self.classes: dict[str, Any] = {}
        self.events: set[tuple[str, str]] = set()
        self._cursors: dict[str, tuple[int, int]] = {}
        self._movies: dict[str, str] = {}  # micrograph -> movie; a name once told stays
        self._micrographs: dict[str, tuple[str, ...]] = {}  # movie -> micrographs
        self._pictures: dict[str, int] = {}  # movie -> what changes when its pictures do
        self._stems: dict[str, str] = {}
        self._guessed: set[str] = set()  # stems of movies told by their micrograph's path
        self._unnamed: dict[str, float] = {}  # micrographs whose movie no table tells (yet), and since when

    def changes(self, tables: list[tuple[Job, Table]], is_final: bool) -> dict[str, dict[str, Any]]:
        """Take up what changed; return {movie: fields that are new or changed, None where gone}.

        ``is_final`` says that the jobs that tell movies have ended. Pictures that are new or changed are put
        into ``todo``.
        """
        self.tables = sorted(tables, key=lambda pair: ORDER[pair[0].kind])
        versions = {job.name: table.version for job, table in self.tables}
        dirty: dict[str, None] = {}
        if versions != self._cursors:
            if not self._dirty(versions, dirty, is_final):
                self._everything(dirty, is_final)
            self._cursors = versions
        elif not self._unnamed:
            return {}
        for name in list(self._unnamed):
            movie = self._resolve(name, is_final)
            if movie is not None:
                dirty[movie] = None
        found = {}
        for movie in dirty:
            change = self._change(movie)
            if change is not None:
                found[movie] = change
        return found

    def _dirty(self, versions: dict[str, tuple[int, int]], dirty: dict[str, None], is_final: bool) -> bool:
        """Add the movies of which a row changed; False where everything is to be put together anew."""
        if list(versions) != list(self._cursors):
            return False
        for job, table in self.tables:
            epoch, place = self._cursors[job.name]
            if table.epoch != epoch:
                return False
            for name in table.log[place:]:
                self._add(job, name, dirty, is_final)
        return True

    def _everything(self, dirty: dict[str, None], is_final: bool) -> None:
        for job, table in self.tables:
            for name in table.rows:
                self._add(job, name, dirty, is_final)
        dirty.update(dict.fromkeys(self.told))

    def _add(self, job: Job, name: str, dirty: dict[str, None], is_final: bool) -> None:
        movie: str | None = name
        if job.kind != "import":
            movie = self._resolve(name, is_final)
        elif stem_of(name) in self._guessed:
            movie = None  # told by another name already
        else:
            self._stems.setdefault(stem_of(name), name)
        if movie is not None:
            dirty[movie] = None

    def _resolve(self, name: str, is_final: bool) -> str | None:
        """Return a micrograph's movie: as its own file says, else as it was imported, else by its path.

        The path is a guess, and the site keeps to the first name it is told: while jobs that may tell better
        are under way the micrograph waits (None), though not for ever.
        """
        movie = self._movies.get(name)
        if movie is not None:
            return movie
        for job, table in self.tables:
            if job.kind == "motioncorr" and isinstance(table, MotionTable):
                movie = table.movies.get(name)
                if movie:
                    break
        if not movie:
            path = without_job(name)
            movie = self._stems.get(stem_of(path))
            if movie is None:
                since = self._unnamed.setdefault(name, time.monotonic())
                if not is_final and time.monotonic() - since < GUESS_AFTER:
                    return None
                movie = path
                self._guessed.add(stem_of(path))
        self._unnamed.pop(name, None)
        self._movies[name] = movie
        self._micrographs[movie] = (*self._micrographs.get(movie, ()), name)
        return movie

    def _change(self, movie: str) -> dict[str, Any] | None:
        fields = self._fields(movie)
        told = self.told.get(movie)
        before = dict(items_of(told)) if told else {}
        if fields is None:
            if told is None:
                return None
            del self.told[movie]
            self._pictures.pop(movie, None)
            return _cleared(before) or None
        pictures = self.pictures(movie)
        state = hash(tuple(pictures.items()))
        if self._pictures.get(movie) != state:
            self._pictures[movie] = state
            for kind in pictures:
                self.todo.add(kind, movie)
        if told is not None and before == fields:
            return None
        self.told[movie] = packed(fields)
        if told is None:
            return fields
        changed = {key: value for key, value in fields.items() if key not in before or before[key] != value}
        changed.update(_cleared({key: value for key, value in before.items() if key not in fields}))
        return changed

    def _rows(self, movie: str) -> Iterable[tuple[Job, dict[str, Any]]]:
        for job, table in self.tables:
            for name in (movie,) if job.kind == "import" else self._micrographs.get(movie, ()):
                record = table.rows.get(name)
                if record is not None:
                    yield job, dict(items_of(record))

    def _fields(self, movie: str) -> dict[str, Any] | None:
        """Return all that is known of a movie, later jobs over earlier ones; None where no row is left."""
        fields: dict[str, Any] | None = None
        for _, row in self._rows(movie):
            fields = {} if fields is None else fields
            fields.update((key, value) for key, value in row.items() if key not in ("image", "spectrum"))
        return fields

    def pictures(self, movie: str) -> dict[str, tuple[str, ...]]:
        """Return {kind: files in the project}; the first that exists is the one to draw."""
        found: dict[str, tuple[str, ...]] = {}
        plain = None
        has_ctf = any(job.kind == "ctffind" for job, _ in self.tables)
        for job, row in self._rows(movie):
            if "image" in row:
                found["micrograph"] = (row["image"],)
            if "spectrum" in row:
                # CTFFIND's picture shows the fit beside the spectrum; the plain one is second choice, and
                # waits for the CTF so that no picture is sent twice.
                if job.kind == "ctffind":
                    found["psd"] = (row["spectrum"], plain) if plain else (row["spectrum"],)
                elif has_ctf:
                    plain = row["spectrum"]
                else:
                    found["psd"] = (row["spectrum"],)
        return found


def _cleared(fields: dict[str, Any]) -> dict[str, None]:
    """Return what clears these fields on the site."""
    gone: dict[str, None] = {}
    for key in fields:
        gone.update(dict.fromkeys(("coordinates", "particles") if key == "picks" else (key,)))
    return gone


class RelionReader(Reader):
    """Follows the project in the folder ``path``.

    ``key`` stands for the project in its runs' keys; without it the folder's name does, which stays the same
    from machine to machine where the path to it need not. Raises ReaderError where there is no project.
    """

    software = "RELION"

    SETTINGS: ClassVar[Mapping[str, str]] = {
        "follow_links": "true to read what links within the project lead to outside of it (false)",
        "silent_hours": "a job that runs and writes nothing for so long is told to have crashed, perhaps (6)",
    }

    def __init__(self, path: str, key: str | None = None, settings: Mapping[str, Any] | None = None):
        chosen = self.checked(settings)
        hours = chosen.get("silent_hours", 6)
        if isinstance(hours, bool) or not isinstance(hours, (int, float)) or not 0 < hours <= 10_000:
            raise ReaderError(f"The setting silent_hours is {hours!r}; it must be a number of hours above 0.")
        self.silence = hours * 3600.0
        self.folder = Folder(path, flag(chosen, "follow_links"))
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
        self._branched: dict[str, Branched] = {}
        self._signs: dict[str, tuple[float, float | None]] = {}
        self._complain = Complaints(log)
        self._inside: dict[str, bool] = {}
        self._sizes: dict[str, tuple[int, int] | None] = {}
        self._version: str | None = None
        self._schemes: dict[str, tuple[Signature, Scheme]] = {}
        self._heads: dict[str, tuple[Signature | None, str]] = {}
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
        self._complain(os.path.relpath(os.path.join(self.root, name), self.root), reason)

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
        waiting = self._jobs_of_schemes()
        news: list[RunNews | SessionNews] = []
        exposures: dict[str, dict[str, Any]] = {}
        for branch in self._branches(pipeline):
            run = self._news(pipeline, branch, statuses)
            if run.status == "finished" and not waiting.isdisjoint(branch.jobs):
                run.status = "running"
            news.append(run)
            for movie in run.micrographs:
                place = names.place(movie)
                if place:
                    exposures[movie] = place
        self.backlog = sum(len(known.todo) for known in self._branched.values())
        if exposures:
            # Where the names tell square and hole in another way than EPU's, which the site knows itself.
            news.append(SessionNews({}, exposures))
        return news

    def forget(self, key: str) -> None:
        self._branched.pop(key, None)

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

    def _jobs_of_schemes(self) -> set[str]:
        """Return the jobs that a scheme will start again: one that goes on and was heard of lately."""
        jobs: set[str] = set()
        for folder, file in (("Schemes", "scheme.star"), ("Schedules", "schedule.star")):
            try:
                found = [f"{folder}/{name}/{file}" for name in os.listdir(self.path(folder))]
            except OSError:
                continue
            for name in found:
                state = self.signature(name)
                if state is None or time.time() - state[0] / 1e9 > SCHEME_WAITS:
                    continue
                known = self._schemes.get(name)
                if known is None or known[0] != state:
                    try:
                        known = self._schemes[name] = (state, Scheme(self.path(name)))
                    except OSError as error:
                        self.warn(name, error)
                        continue
                if not known[1].has_ended:
                    jobs |= known[1].jobs
        return jobs

    def _output(self, pipeline: Pipeline, job: Job) -> str | None:
        """Return the job's result file: the one the pipeline names, else the one RELION would write."""
        if job.kind == "select":
            # Of what selections write, only this is one of micrographs; parts of a split are none.
            return f"{job.name}/micrographs.star" if self.exists(f"{job.name}/micrographs.star") else None
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
        known = self._branched.setdefault(branch.key, Branched())
        news = RunNews(branch.key, self._info(pipeline, branch), self._run_status(pipeline, branch, statuses))
        news.micrographs = known.changes(
            [(pipeline.jobs[name], self._tables[name]) for name in branch.jobs if name in self._tables],
            is_final=not self.is_patient or self._movies_are_told(pipeline, branch, statuses),
        )
        news.pictures = known.todo.take(self.room, partial(self._path_of, known))
        for name in branch.jobs:
            classes = self._classes.get(name)
            if classes is not None and classes.found is not None:
                self._tell_classes(news, known, classes)
            self._tell_end(news, known, pipeline.jobs[name], statuses[name])
            self._tell_silence(news, known, pipeline.jobs[name], statuses[name])
        return news

    def _movies_are_told(self, pipeline: Pipeline, branch: Branch, statuses: dict[str, tuple]) -> bool:
        """Whether the jobs that tell which movie a micrograph is made of have ended, and were read."""
        return all(
            statuses[name][0] not in ("running", "queued")
            and (self._tables[name].was_read or self._output(pipeline, pipeline.jobs[name]) is None)
            for name in branch.jobs
            if pipeline.jobs[name].kind in ("import", "motioncorr")
        )

    def _path_of(self, known: Branched, kind: str, movie: str) -> str | None:
        files = known.pictures(movie).get(kind)
        if not files:
            return None
        found = next(filter(self.exists, files), None)
        return self.path(found) if found is not None else ""

    def _tell_classes(self, news: RunNews, told: Branched, classes: Classes) -> None:
        found = classes.found
        if found is None or told.classes.get(found.job) == classes.state:
            return
        told.classes[found.job] = classes.state
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

    def _tell_end(self, news: RunNews, told: Branched, job: Job, status: tuple[str, float | None]) -> None:
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

    def _tell_silence(
        self, news: RunNews, told: Branched, job: Job, status: tuple[str, float | None]
    ) -> None:
        """Tell of a job that seems to have died: nothing written for long, and no sign of its end."""
        if status[0] != "running" or job.kind not in COMPUTING:
            return
        checked, sign = self._signs.get(job.name, (0.0, None))
        if time.monotonic() - checked > SIGNS_EVERY or not checked:
            sign = self._last_sign(job.name)
            self._signs[job.name] = (time.monotonic(), sign)
        if sign is None or time.time() - sign < self.silence:
            return
        last = datetime.fromtimestamp(int(sign), timezone.utc)
        text = (
            f"{job.name} shows as running but has written nothing since {last:%Y-%m-%d %H:%M} UTC and left "
        )
        text += "no sign of its end; it may have crashed."
        when = datetime.fromtimestamp(int(sign + self.silence), timezone.utc).isoformat()
        if (text, when) not in told.events:
            told.events.add((text, when))
            news.events.append(Event("warning", text, when))

    def _last_sign(self, job: str) -> float | None:
        """Return when anything in the job's folder changed last (seconds since 1970), None without one.

        A folder changes when a file in it is made, so one level of folders is enough.
        """
        newest: float | None = None
        try:
            with os.scandir(self.path(job)) as entries:
                for entry in entries:
                    changed = entry.stat(follow_symlinks=False).st_mtime
                    newest = changed if newest is None else max(newest, changed)
                    if entry.is_dir(follow_symlinks=False):
                        with os.scandir(entry.path) as inner:
                            for folder in inner:
                                if folder.is_dir(follow_symlinks=False):
                                    newest = max(newest, folder.stat(follow_symlinks=False).st_mtime)
        except OSError:
            pass
        return newest

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
            if not isinstance(table, RowTable):
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
        state = self.signature(name)
        known = self._heads.get(name)
        if known is not None and known[0] == state:
            return known[1]
        text = ""
        if state is not None:
            try:
                with open(self.path(name), "rb") as handle:
                    text = handle.read(4096).decode("utf-8", "replace")
            except OSError:
                pass  # only a version is looked for
        self._heads[name] = (state, text)
        return text

    def selected_from(self, job: str) -> str | None:
        """Return the table of micrographs that a Select job chose from, None where it chose other things."""
        options = self._job_options(job)
        if options or self._pipeline is None:
            return options.get("fn_mic")
        # Before 3.1 jobs had no job.star: then the pipeline tells, if the name does.
        nodes = self._pipeline.input_nodes.get(job, [])
        tables = ("micrographs_ctf.star", "micrographs.star", "corrected_micrographs.star")
        return next((node for node in nodes if posixpath.basename(node) in tables), None)

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
