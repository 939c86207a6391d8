"""RELION's ``default_pipeline.star``: jobs, what each made, and from which jobs each took its input.

3.1 writes types and states of jobs as numbers, 4 and later as words.
"""

from __future__ import annotations

import posixpath
import re
from typing import NamedTuple

from .. import star

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

_JOB = re.compile(r"^(?:\./)?(\w+/job(\d+))(?:/|$)")


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
        self.input_nodes: dict[str, list[str]] = {}
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
            if job:
                self.input_nodes.setdefault(job, []).append(node)
            source = producer.get(node) or job_of(node)
            if job in self.jobs and source in self.jobs and source != job:
                self.inputs.setdefault(job, set()).add(source)
        for node in coordinates:
            # A picker from outside (an External job) is a picker by what it makes.
            maker = self.jobs.get(producer.get(node, ""))
            if maker and maker.kind == "other":
                self.jobs[maker.name] = maker._replace(kind="autopick")

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


class Scheme:
    """A scheme (4 and later) or schedule (3.1), which starts jobs again and again while movies come in.

    Between two rounds all its jobs have ended and it waits: then only its own file says that it still runs.
    """

    def __init__(self, path: str):
        self.jobs: set[str] = set()
        self.current = ""
        exits = {"EXIT"}
        for item in star.read(path):
            if isinstance(item, star.Pair):
                if item.label in ("rlnSchemeCurrentNodeName", "rlnScheduleCurrentNodeName"):
                    self.current = item.value
                continue
            job = job_of(item.get("rlnSchemeJobName") or item.get("rlnScheduleJobName"))
            if job:
                self.jobs.add(job)
            kind = item.get("rlnSchemeOperatorType") or item.get("rlnScheduleOperatorType")
            if kind == "exit":
                exits.add(item.get("rlnSchemeOperatorName") or item.get("rlnScheduleOperatorName") or "")
        #: Whether it came to its end; a scheme that was not started stands at its first node.
        self.has_ended = not self.current or self.current in exits


def _clean(path: str | None) -> str:
    return posixpath.normpath(path) if path else ""


def stem_of(path: str) -> str:
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
