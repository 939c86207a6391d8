"""How what pipelines report is written: each call one transaction, all of it or nothing.

Order of locks, always: the run's row (where one needs several runs: by id), then the session's summary, which
holds the revision of its exposures. Whoever holds a run's row alone may change its rows, take numbers from its
revision and move its counters; whoever holds the summary alone may make exposures. Every changed row takes a
revision number of its own, and the locks are held to commit, so that a reader who asks for what came after a
revision neither misses a row nor waits on a gap.

Rows are compared before they are written: a repeated notification changes nothing, and counters and histograms
move by exactly what changed. An exposure's own values are part of what readers see of its micrographs: where
they change, these get new revisions too, which needs the locks of all the session's runs.
"""

import datetime
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, TypeVar

from django.db import IntegrityError, connection, models, transaction
from django.utils import timezone

from people import statements
from preprocessing import bulk, identity
from preprocessing.histograms import COUNTERS, MEASURED_FIELDS, Tally
from preprocessing.line import in_line
from preprocessing.models import (
    ClassAverage,
    Coordinates,
    Exposure,
    Micrograph,
    ProcessingRun,
    RunEvent,
)
from sessions_app.models import Session, SessionSummary

T = TypeVar("T")
HEARTBEAT = datetime.timedelta(minutes=1)
MICROGRAPH_FIELDS = (*MEASURED_FIELDS, "rejected")
EXPOSURE_FIELDS = (
    "acquired_at",
    "grid_square",
    "foil_hole",
    "stage_x",
    "stage_y",
    "beam_shift_x",
    "beam_shift_y",
)
_TELLERS = {"grid_square": identity.grid_square, "foil_hole": identity.foil_hole}
_TOLD = tuple(_TELLERS)
_exposure_values = itemgetter(*EXPOSURE_FIELDS)
POINT_BYTES = 8  # Two little-endian float32.
ENDED = (ProcessingRun.Status.FINISHED, ProcessingRun.Status.FAILED, ProcessingRun.Status.STOPPED)
ATTEMPTS = 10


@dataclass(slots=True)
class Report:
    """One item of a batch: the posted name, the identity it means, and the values given (None clears).

    A micrograph's "coordinates" are bytes of little-endian float32, shape (n, 2), x then y, or None.
    """

    name: str
    identity: str
    values: dict[str, Any]


@dataclass(slots=True)
class Outcome:
    """What a batch came to: rows created, updated and unchanged, and the revision after it."""

    created: int = 0
    updated: int = 0
    unchanged: int = 0
    revision: int = 0


class Refused(Exception):
    """Nothing was stored: `errors` has index, name and the reasons by field for each item in conflict."""

    def __init__(self, errors: list[dict]):
        super().__init__(errors[0]["errors"] if errors else "")
        self.errors = errors


class SessionArchived(Exception):
    """The session's rows are pruned and its summary is frozen: nothing is taken any more."""


class _Again(Exception):
    """Start over with the locks of all the session's runs."""


_SUMMARISED = {*COUNTERS, "classes", "status"}
# What a run says of itself, and what is told of a session afterwards: long, and of no use to a batch.
_NOT_COUNTED = frozenset(
    {"key", "software", "version", "host", "label", "parameters", "started_at", "created_at"}
    | {"pixel_size", "width", "height", "particle_diameter"}
)
_NOT_COUNTS = frozenset(
    field.attname for field in SessionSummary._meta.concrete_fields if isinstance(field, models.JSONField)
)


class _Writer:
    """One transaction on one session: its locks, its time, and what has to be written at the end."""

    def __init__(self, session_id: int, run_id: int | None, all_runs: bool, whole: bool):
        self.session_id = session_id
        self.now = timezone.now()
        self.all_runs = all_runs
        self.runs = {}
        self._left_out = frozenset() if whole else _NOT_COUNTED
        if all_runs:
            self._lock_runs("WHERE session_id = %s ORDER BY id", [session_id])
        elif run_id is not None:
            self._lock_runs("WHERE id = %s AND session_id = %s", [run_id, session_id])
        if run_id is not None and run_id not in self.runs:
            raise ProcessingRun.DoesNotExist
        self.run = self.runs.get(run_id)
        self._changed: dict[int, set[str]] = {}
        self._summary: SessionSummary | None = None
        self._summary_fields: set[str] = set()

    def _lock_runs(self, which: str, values: list) -> None:
        runs = bulk.objects(ProcessingRun, which, values, lock=True, without=self._left_out)
        self.runs = {run.pk: run for run in runs}

    @property
    def summary(self) -> SessionSummary:
        """The session's summary, locked from the first look to commit."""
        if self._summary is None:
            rows = bulk.objects(
                SessionSummary, "WHERE session_id = %s", [self.session_id], lock=True, without=_NOT_COUNTS
            )
            if not rows:
                raise SessionSummary.DoesNotExist
            self._summary = rows[0]
            if self.all_runs:
                # A run made since the runs were locked may already have rows: its lock is needed as well.
                now = set(ProcessingRun.objects.filter(session=self.session_id).values_list("pk", flat=True))
                if now != set(self.runs):
                    raise _Again
        return self._summary

    def need_all_runs(self) -> None:
        if not self.all_runs:
            raise _Again

    def refuse_archived(self, status: str | None = None) -> None:
        """Asked under the lock, before the first write; `status` is the session's if it was read under the lock."""
        if status is None:
            status = Session.objects.filter(pk=self.session_id).values_list("status", flat=True).get()
        if status == Session.Status.ARCHIVED:
            raise SessionArchived

    def next_revision(self, run: ProcessingRun) -> int:
        run.revision += 1
        self.touch(run, "revision")
        return run.revision

    def reserve(self, run: ProcessingRun, number: int) -> int:
        """The first of so many revisions, one for each changed row."""
        first = run.revision + 1
        if number:
            run.revision += number
            self.touch(run, "revision")
        return first

    def next_exposure_revision(self) -> int:
        self.summary.exposure_revision += 1
        self._summary_fields.add("exposure_revision")
        return self._summary.exposure_revision

    def touch(self, run: ProcessingRun, *fields: str) -> None:
        self._changed.setdefault(run.pk, set()).update(fields)

    def count(self, run: ProcessingRun, tally: Tally) -> None:
        """Take over counters and histograms where they moved."""
        for name in COUNTERS:
            if getattr(run, name) != tally.counters[name]:
                setattr(run, name, tally.counters[name])
                self.touch(run, name)
        histograms = tally.known_histograms()
        if histograms != run.histograms:
            run.histograms = histograms
            self.touch(run, "histograms")

    def add_exposures(self, number: int) -> None:
        self.summary.exposures += number
        self.summary.last_exposure_at = self.now
        self._summary_fields |= {"exposures", "last_exposure_at"}

    def close(self) -> None:
        """Write the changed runs and the summary. Any write is a heartbeat; alone it is told once a minute."""
        run = self.run
        if run is not None and (run.pk in self._changed or self.now - run.last_seen_at >= HEARTBEAT):
            # The summary hears of it with its own counts, or as the minute changes.
            minute = int(self.now.timestamp() // 60) != int(run.last_seen_at.timestamp() // 60)
            run.last_seen_at = max(self.now, run.last_seen_at)
            self.touch(run, "last_seen_at")
        else:
            minute = False
        if minute or any(not fields.isdisjoint(_SUMMARISED) for fields in self._changed.values()):
            summarise(self.summary, self._summary_fields, self.runs)
        changes = [(self.runs[pk], sorted(fields)) for pk, fields in self._changed.items()]
        if self._summary_fields:
            changes.append((self.summary, sorted(self._summary_fields)))
        bulk.write(*changes)


def summarise(
    summary: SessionSummary, changed: set[str], held: Mapping[int, ProcessingRun] | None = None
) -> None:
    """Bring the counts of a locked summary up to its session's runs as they are now; adds what changed.

    The leading run has most micrographs, of equals the newest. Processing is what the liveliest run does: while
    one runs the session is running; once none is queued or running, what the leading run came to. Runs `held`, by
    id, are locked and not written yet: they count as they are in memory.
    """
    runs = bulk.select(
        ProcessingRun,
        ("pk", "status", "last_seen_at", "classes", *COUNTERS),
        "WHERE session_id = %s",
        [summary.pk],
    )
    for run in runs:
        if held and (mine := held.get(run["pk"])):
            run |= {name: getattr(mine, name) for name in run}
    runs.sort(key=itemgetter("micrographs", "pk"), reverse=True)
    processing = ProcessingRun.Status
    values: dict[str, Any] = {"runs": len(runs)}
    if runs:
        leading = runs[0]
        statuses = {run["status"] for run in runs}
        live = [status for status in (processing.RUNNING, processing.QUEUED) if status in statuses]
        values |= {name: leading[name] for name in (*COUNTERS, "classes")}
        values |= {
            "leading_run": leading["pk"],
            "processing": (live or [leading["status"]])[0],
            "last_seen_at": max(run["last_seen_at"] for run in runs),
        }
    else:
        values |= dict.fromkeys((*COUNTERS, "classes"), 0)
        values |= {"leading_run": None, "processing": SessionSummary.Processing.NONE, "last_seen_at": None}
    for name, value in values.items():
        if getattr(summary, name) != value:
            setattr(summary, name, value)
            changed.add(name)


def _transaction(
    session_id: int,
    run_id: int | None,
    work: Callable[[_Writer], T],
    *,
    whole: bool = False,
    together: bool = False,
) -> T:
    """What `work` answers, done in one transaction; with `whole` it gets whole runs, not just what is counted.

    `together` is for work that saves by `bulk` alone: the ORM's own looks at once how many rows it changed.
    """
    sending = statements.sent_together if together else nullcontext

    def write() -> T:
        all_runs = False
        for _ in range(ATTEMPTS):
            try:
                with sending(), transaction.atomic():
                    writer = _Writer(session_id, run_id, all_runs, whole)
                    result = work(writer)
                    writer.close()
                    return result
            except _Again:
                all_runs = True
        raise RuntimeError("Runs are made faster than exposures can be written.")

    return in_line(write)


# -- Exposures ---------------------------------------------------------------------------------------------


def record_exposures(session_id: int, reports: Sequence[Report]) -> Outcome:
    """Make or correct exposures. Raises Refused, SessionArchived."""
    merged, _ = _merged(reports)

    def work(writer: _Writer) -> Outcome:
        # Made by anyone only under the summary's lock: what is not there now cannot appear before commit.
        summary = writer.summary
        known = _exposures(session_id, merged)
        outcome = Outcome()
        new, changed = [], {}
        for key, report in merged.items():
            values = {name: _blank(name, value) for name, value in report.values.items()}
            row = known.get(key)
            if row is None:
                new.append((report, values))
                continue
            if differing := {name: value for name, value in values.items() if row[name] != value}:
                changed[key] = differing
            for name, value in told_by(report).items():
                if name not in values and not row[name]:
                    changed.setdefault(key, {})[name] = value
        outcome.created, outcome.updated = len(new), len(changed)
        outcome.unchanged = len(merged) - len(new) - len(changed)
        if new or changed:
            writer.refuse_archived()
        _change_exposures(writer, known, changed)
        _make_exposures(writer, new)
        outcome.revision = summary.exposure_revision
        return outcome

    return _transaction(session_id, None, work, together=True)


def change_exposures(
    session_id: int,
    changes: Mapping[str, Mapping[str, Any]],
    before: dict[str, dict[str, Any]] | None = None,
) -> int:
    """Set columns of exposures, given by identity: for people's verdicts. Answers how many changed.

    `before`, where given, is told the values that these had. Raises SessionArchived.
    """

    def work(writer: _Writer) -> int:
        writer.summary  # noqa: B018  (the lock)
        known = _exposures(session_id, changes, tuple(sorted({name for c in changes.values() for name in c})))
        differing = {}
        for key, values in changes.items():
            if key in known and (diff := {n: v for n, v in values.items() if known[key][n] != v}):
                differing[key] = diff
        if differing:
            writer.refuse_archived()
        if before is not None:
            before.update({key: {name: known[key][name] for name in changes[key]} for key in differing})
        _change_exposures(writer, known, differing)
        return len(differing)

    return _transaction(session_id, None, work)


def told_by(report: Report) -> dict[str, str]:
    """Grid square and foil hole as the name itself tells them."""
    return {name: value for name, tell in _TELLERS.items() if (value := tell(report.name))}


def _fills(exposures: Mapping[str, dict], merged: Mapping[str, Report]) -> dict[str, dict[str, str]]:
    """What the reports' names tell and these exposures do not know yet."""
    found = {}
    for key, exposure in exposures.items():
        told = {
            name: value
            for name, tell in _TELLERS.items()
            if not exposure[name] and (value := tell(merged[key].name))
        }
        if told:
            found[key] = told
    return found


def _blank(name: str, value):
    """Texts that are not known are stored empty."""
    return "" if value is None and name in _TOLD else value


def _exposures(
    session_id: int, identities: Iterable[str], fields: Sequence[str] = EXPOSURE_FIELDS
) -> dict[str, dict]:
    rows = Exposure.objects.filter(session=session_id, identity__in=list(identities)).values(
        "pk", "identity", *fields
    )
    return {row["identity"]: row for row in rows}


def _make_exposures(writer: _Writer, new: Sequence[tuple[Report, Mapping]]) -> dict[str, dict]:
    """Insert exposures under the summary's lock; `new` has reports and their values. Answers them by identity."""
    if not new:
        return {}
    writer.add_exposures(len(new))
    rows = []
    unknown = dict.fromkeys(EXPOSURE_FIELDS) | {"grid_square": "", "foil_hole": ""}
    for report, values in new:
        row = unknown | told_by(report) | values
        rows.append(
            (
                writer.session_id,
                report.identity,
                report.name,
                *_exposure_values(row),
                "",
                "",
                writer.next_exposure_revision(),
                writer.now,
            )
        )
    made = bulk.insert(
        Exposure,
        [
            "session",
            "identity",
            "name",
            *EXPOSURE_FIELDS,
            "verdict",
            "verdict_reason",
            "revision",
            "created_at",
        ],
        rows,
        returning=("identity", "pk"),
    )
    return {key: {"pk": pk} for key, pk in made}


def _change_exposures(writer: _Writer, known: Mapping[str, dict], changed: Mapping[str, dict]) -> None:
    """Write changed columns, and let every micrograph of these exposures be told again."""
    if not changed:
        return
    if writer.all_runs or ProcessingRun.objects.filter(session=writer.session_id).exists():
        writer.need_all_runs()
    by_fields: dict[tuple[str, ...], list[tuple]] = {}
    for key, values in changed.items():
        names = tuple(sorted(values))
        row = (*(values[name] for name in names), writer.next_exposure_revision(), known[key]["pk"])
        by_fields.setdefault(names, []).append(row)
    for names, rows in by_fields.items():
        bulk.update(Exposure, [*names, "revision"], rows)
    micrographs = (
        Micrograph.objects.filter(exposure__in=[known[key]["pk"] for key in changed])
        .order_by("pk")
        .values_list("pk", "run_id")
    )
    bulk.update(
        Micrograph,
        ["revision"],
        [(writer.next_revision(writer.runs[run_id]), pk) for pk, run_id in micrographs],
    )


# -- Micrographs -------------------------------------------------------------------------------------------


def record_micrographs(session_id: int, run_id: int, reports: Sequence[Report]) -> Outcome:
    """Make or update a run's micrographs, and their exposures where unknown.

    The same name twice in a batch is as if sent one after the other. Where coordinates are known and no number
    of particles was posted, `particles` is the number of coordinates.

    Raises Refused where two names mean one exposure, SessionArchived, ProcessingRun.DoesNotExist.
    """
    merged, places = _merged(reports)

    def work(writer: _Writer) -> Outcome:
        run = writer.run
        if writer.all_runs:
            writer.summary  # noqa: B018  (the lock: exposures stand still from here on)
        known = _known_micrographs(run, merged)
        exposures = known.exposures
        points = _points(known.micrographs, merged, exposures)
        plan = Plan.of(merged, places, exposures, known.micrographs, points)
        outcome, new, changed, fills = plan.outcome, plan.new, plan.changed, plan.fills
        if plan.is_empty:
            outcome.revision = run.revision
            return outcome

        writer.refuse_archived(known.session_status)
        if fills:
            writer.need_all_runs()
            _change_exposures(writer, exposures, fills)
        missing = [(report, {}) for report, _, _ in new if report.identity not in exposures]
        if missing:
            if writer.summary.exposure_revision != known.exposure_revision:
                # Another run may have made them since they were looked for, under a name that tells less.
                found = _exposures(session_id, [report.identity for report, _ in missing], _TOLD)
                if _fills(found, merged):
                    writer.need_all_runs()
                exposures |= found
                missing = [pair for pair in missing if pair[0].identity not in exposures]
            exposures |= _make_exposures(writer, missing)
        first = writer.reserve(run, len(new) + len(changed))
        made = bulk.insert(
            Micrograph,
            _INSERTED,
            [
                (
                    run.pk,
                    exposures[report.identity]["pk"],
                    report.name,
                    *row_values(after),
                    "",
                    "",
                    revision,
                    writer.now,
                )
                for revision, (report, after, _) in enumerate(new, first)
            ],
            returning=("exposure", "pk") if any(posted is not None for _, _, posted in new) else (),
        )
        picks = plan.picks
        if made:
            ids = dict(made)
            picks |= {
                ids[exposures[report.identity]["pk"]]: posted
                for report, _, posted in new
                if posted is not None
            }
        bulk.update(
            Micrograph,
            [*ROW_FIELDS, "revision"],
            [
                (*row_values(after), revision, before["id"])
                for revision, (before, after, _) in enumerate(changed, first + len(new))
            ],
        )
        _write_picks(picks, set(points))
        writer.count(run, plan.tally(run))
        outcome.revision = run.revision
        return outcome

    return _transaction(session_id, run_id, work, together=True)


@dataclass(slots=True)
class Plan:
    """What a batch comes to, given what is known of its exposures and micrographs: all the rules, and no writing."""

    outcome: Outcome = field(default_factory=Outcome)
    # The report, the row as it will be, and its coordinates where some were posted.
    new: list[tuple[Report, dict, bytes | None]] = field(default_factory=list)
    # The row as it is and as it will be, and the columns that differ.
    changed: list[tuple[dict, dict, list[str]]] = field(default_factory=list)
    picks: dict[int, bytes | None] = field(default_factory=dict)
    # What names tell of exposures that are there and do not know it yet.
    fills: dict[str, dict[str, str]] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        merged: Mapping[str, Report],
        places: Mapping[str, int],
        exposures: Mapping[str, dict],
        rows: Mapping[int, dict],
        points: Mapping[int, bytes],
    ) -> "Plan":
        """For reports by identity, exposures by identity, and the run's micrographs and picks of these.

        Raises Refused where two names mean one exposure.
        """
        plan = cls()
        conflicts = []
        for key, report in merged.items():
            exposure = exposures.get(key)
            before = rows.get(exposure["pk"]) if exposure is not None else None
            if before is None:
                after = _merge_micrograph(_UNKNOWN, report.values, None)
                plan.new.append((report, after, report.values.get("coordinates")))
                continue
            if before["name"] != report.name:
                conflicts.append(_collision(places[key], report.name, before["name"]))
                continue
            stored = points.get(before["id"])
            after = _merge_micrograph(before, report.values, stored)
            fields = [name for name in ROW_FIELDS if before[name] != after[name]]
            posted = report.values.get("coordinates", stored)
            if posted != stored:
                plan.picks[before["id"]] = posted
            if fields or posted != stored:
                plan.changed.append((before, after, fields))
        if conflicts:
            raise Refused(conflicts)
        outcome = plan.outcome
        outcome.created, outcome.updated = len(plan.new), len(plan.changed)
        outcome.unchanged = len(merged) - outcome.created - outcome.updated
        plan.fills = _fills(exposures, merged)
        return plan

    @property
    def is_empty(self) -> bool:
        return not (self.new or self.changed or self.fills)

    def tally(self, run) -> Tally:
        """The run's counters and histograms with this batch."""
        tally = Tally({name: getattr(run, name) for name in COUNTERS}, run.histograms)
        tally.add_all([after for _, after, _ in self.new])
        tally.change_all(self.changed)
        return tally


ROW_FIELDS = (*MICROGRAPH_FIELDS, "particles_counted")
row_values = itemgetter(*ROW_FIELDS)
_UNKNOWN = dict.fromkeys(MICROGRAPH_FIELDS) | {"particles_counted": False}
_INSERTED = [
    "run",
    "exposure",
    "name",
    *ROW_FIELDS,
    "micrograph_image",
    "psd_image",
    "revision",
    "created_at",
]


def _merged(reports: Sequence[Report]) -> tuple[dict[str, Report], dict[str, int]]:
    """By identity, repeated names merged in order; also the index of each one's last mention."""
    merged: dict[str, Report] = {}
    places: dict[str, int] = {}
    conflicts = []
    for index, report in enumerate(reports):
        first = merged.get(report.identity)
        if first is None:
            merged[report.identity] = report
        elif first.name != report.name:
            conflicts.append(_collision(index, report.name, first.name))
        else:
            merged[report.identity] = Report(report.name, report.identity, first.values | report.values)
        places[report.identity] = index
    if conflicts:
        raise Refused(conflicts)
    return merged, places


def _collision(index: int, name: str, other: str) -> dict:
    return {
        "index": index,
        "name": name,
        "same_as": other,
        "errors": {
            "name": [
                f"This name means the same exposure as {other!r}. Keep to one name for each movie; "
                "where stems repeat in different folders, post folder/stem."
            ]
        },
    }


MICROGRAPH_READ = ("id", "name", *ROW_FIELDS)
# Each identity is looked up by the exposures' unique index, and its micrograph by its own, never by walking the
# session or the run: SQLite keeps the order of left joins, PostgreSQL a subquery with OFFSET as it stands.
_LOOKED_UP = {
    "sqlite": (
        "LEFT JOIN preprocessing_exposure e ON e.session_id = %s AND e.identity = wanted.value "
        "LEFT JOIN preprocessing_micrograph m ON m.run_id = %s AND m.exposure_id = e.id "
    ),
    "postgresql": (
        "LEFT JOIN LATERAL (SELECT * FROM preprocessing_exposure "
        "WHERE session_id = %s AND identity = wanted.value OFFSET 0) e ON true "
        "LEFT JOIN LATERAL (SELECT * FROM preprocessing_micrograph "
        "WHERE run_id = %s AND exposure_id = e.id OFFSET 0) m ON true "
    ),
}


@dataclass(slots=True)
class _Known:
    """What one statement finds of a batch: exposures by identity, the run's micrographs of them by exposure.

    With the session's status and its exposures' revision, of the same moment: while that revision stays, no
    exposure is made or changed.
    """

    exposures: dict[str, dict] = field(default_factory=dict)
    micrographs: dict[int, dict] = field(default_factory=dict)
    session_status: str = ""
    exposure_revision: int = 0


def _known_micrographs(run: ProcessingRun, identities: Iterable[str]) -> _Known:
    columns = ", ".join(f"m.{name}" for name in MICROGRAPH_READ)
    found = bulk.select_texts(
        "SELECT s.status, y.exposure_revision, e.identity, e.id, e.grid_square, e.foil_hole, "  # noqa: S608
        f"{columns} FROM {{wanted}} {_LOOKED_UP[connection.vendor]}"
        "LEFT JOIN sessions_app_session s ON s.id = %s "
        "LEFT JOIN sessions_app_sessionsummary y ON y.session_id = s.id",
        identities,
        [run.session_id, run.pk, run.session_id],
    )
    known = _Known()
    for status, exposure_revision, key, pk, grid_square, foil_hole, *micrograph in found:
        known.session_status, known.exposure_revision = status, exposure_revision
        if key is not None:
            known.exposures[key] = {"pk": pk, "grid_square": grid_square, "foil_hole": foil_hole}
            if micrograph[0] is not None:
                known.micrographs[pk] = dict(zip(MICROGRAPH_READ, micrograph, strict=True))
    return known


def _points(rows: Mapping[int, dict], merged: Mapping[str, Report], exposures: Mapping[str, dict]) -> dict:
    """Stored picks of the micrographs for which they matter."""
    wanted = []
    for key, report in merged.items():
        matters = "coordinates" in report.values or (
            "particles" in report.values and report.values["particles"] is None
        )
        if matters and key in exposures and (row := rows.get(exposures[key]["pk"])):
            wanted.append(row["id"])
    if not wanted:
        return {}
    found = Coordinates.objects.filter(pk__in=wanted).values_list("pk", "points")
    return {pk: bytes(points) for pk, points in found}


def _merge_micrograph(before: Mapping, values: Mapping, stored: bytes | None) -> dict:
    """The row after the values were set; `stored` are its picks so far."""
    after = dict(zip(ROW_FIELDS, row_values(before), strict=True))
    after |= values
    after.pop("coordinates", None)
    if "particles" in values:
        after["particles_counted"] = False
    posted = values.get("coordinates", stored)
    unposted = after["particles"] is None or after["particles_counted"]
    if unposted and ("coordinates" in values or "particles" in values):
        after["particles"] = None if posted is None else len(posted) // POINT_BYTES
        after["particles_counted"] = posted is not None
    return after


def _write_picks(picks: Mapping[int, bytes | None], existing: set[int]) -> None:
    gone = [pk for pk, posted in picks.items() if posted is None and pk in existing]
    if gone:
        Coordinates.objects.filter(pk__in=gone).delete()
    kept = {pk: posted for pk, posted in picks.items() if posted is not None}
    bulk.update(Coordinates, ["points"], [(posted, pk) for pk, posted in kept.items() if pk in existing])
    bulk.insert(
        Coordinates,
        ["micrograph", "points"],
        [(pk, posted) for pk, posted in kept.items() if pk not in existing],
    )


# -- Runs --------------------------------------------------------------------------------------------------


def open_run(
    session_id: int, *, key: str, parameters: Mapping | None = None, **fields
) -> tuple[ProcessingRun, bool]:
    """The session's run of this key, made if there is none; answers the run and whether it was made.

    A run that is there is left as it is, apart from what it did not know yet: a repeated call never undoes a
    later change. Raises SessionArchived.
    """
    existing = ProcessingRun.objects.filter(session=session_id, key=key).values_list("pk", flat=True).first()
    if existing is None:
        try:
            return _make_run(session_id, key=key, parameters=dict(parameters or {}), **fields), True
        except IntegrityError:
            # Made by another at the same time.
            existing = ProcessingRun.objects.values_list("pk", flat=True).get(session=session_id, key=key)

    def work(writer: _Writer) -> ProcessingRun:
        run = writer.run
        for name, value in fields.items():
            if value not in (None, "") and getattr(run, name) in (None, ""):
                setattr(run, name, value)
                writer.touch(run, name)
        if added := {name: value for name, value in (parameters or {}).items() if name not in run.parameters}:
            run.parameters = run.parameters | added
            writer.touch(run, "parameters")
        if run.pk in writer._changed:
            writer.refuse_archived()
            writer.next_revision(run)
        return run

    return _transaction(session_id, existing, work, whole=True), False


@transaction.atomic
def _make_run(session_id: int, **fields) -> ProcessingRun:
    summary = SessionSummary.objects.select_for_update().get(pk=session_id)
    if Session.objects.filter(pk=session_id, status=Session.Status.ARCHIVED).exists():
        raise SessionArchived
    run = ProcessingRun.objects.create(session_id=session_id, revision=1, **fields)
    changed: set[str] = set()
    summarise(summary, changed)
    summary.save(update_fields=sorted(changed))
    return run


def change_run(session_id: int, run_id: int, *, parameters: Mapping | None = None, **fields) -> ProcessingRun:
    """Set a run's fields; parameters are merged by key, None removing one. No change at all is a heartbeat.

    A status that ends the run sets `finished_at`, one that does not clears it. Raises SessionArchived,
    ProcessingRun.DoesNotExist.
    """

    def work(writer: _Writer) -> ProcessingRun:
        run = writer.run
        values = dict(fields)
        if parameters:
            together = run.parameters | dict(parameters)
            values["parameters"] = {name: value for name, value in together.items() if value is not None}
        status = values.get("status", run.status)
        if status != run.status:
            values["finished_at"] = writer.now if status in ENDED else None
        for name, value in values.items():
            if getattr(run, name) != value:
                setattr(run, name, value)
                writer.touch(run, name)
        if run.pk in writer._changed:
            writer.refuse_archived()
            writer.next_revision(run)
        return run

    return _transaction(session_id, run_id, work, whole=True)


# -- Classes, events, images -------------------------------------------------------------------------------


def record_classes(
    session_id: int, run_id: int, *, job: str, iteration: int, classes: Sequence[Mapping[str, Any]]
) -> Outcome:
    """Make or update 2D classes of one iteration; each has a `number` and the values given."""
    merged: dict[int, dict] = {}
    for item in classes:
        values = {name: value for name, value in item.items() if name != "number"}
        merged[item["number"]] = merged.get(item["number"], {}) | values

    def work(writer: _Writer) -> Outcome:
        run = writer.run
        known = {
            row["number"]: row
            for row in ClassAverage.objects.filter(run=run, job=job, iteration=iteration).values(
                "pk", "number", "particles", "resolution"
            )
        }
        new, changed = [], []
        for number, values in merged.items():
            row = known.get(number)
            if row is None:
                new.append((number, {"particles": 0, "resolution": None} | values))
            elif any(row[name] != value for name, value in values.items()):
                changed.append(row | values)
        if new or changed:
            writer.refuse_archived()
        bulk.insert(
            ClassAverage,
            ["run", "job", "iteration", "number", "particles", "resolution", "image", "revision"],
            [
                (
                    run.pk,
                    job,
                    iteration,
                    number,
                    row["particles"],
                    row["resolution"],
                    "",
                    writer.next_revision(run),
                )
                for number, row in new
            ],
        )
        bulk.update(
            ClassAverage,
            ["particles", "resolution", "revision"],
            [(row["particles"], row["resolution"], writer.next_revision(run), row["pk"]) for row in changed],
        )
        if new:
            run.classes = ClassAverage.objects.latest_set(run).count()
            writer.touch(run, "classes")
        return Outcome(len(new), len(changed), len(merged) - len(new) - len(changed), run.revision)

    return _transaction(session_id, run_id, work)


def record_event(
    session_id: int, run_id: int, *, level: str, text: str, at: datetime.datetime | None = None
) -> tuple[RunEvent, bool]:
    """Keep a message of the pipeline; answers it and whether it is new.

    The same level, text and time are the same message. Without a time, the run's newest message said again
    within a minute is taken for a repetition.
    """

    def work(writer: _Writer) -> tuple[RunEvent, bool]:
        same = RunEvent.objects.filter(run=writer.run, level=level, text=text)
        if at is not None:
            known = same.filter(at=at).first()
        else:
            known = RunEvent.objects.filter(run=writer.run).order_by("-pk").first()
            if known is not None and not (
                (known.level, known.text) == (level, text) and writer.now - known.at < HEARTBEAT
            ):
                known = None
        if known is not None:
            return known, False
        writer.refuse_archived()
        event = RunEvent.objects.create(
            run=writer.run,
            level=level,
            text=text,
            at=at or writer.now,
            revision=writer.next_revision(writer.run),
        )
        return event, True

    return _transaction(session_id, run_id, work)


@dataclass(slots=True)
class ImageOf:
    """Which row an image belongs to: the model, how to find it in its run, and the column that names the file."""

    model: type
    column: str
    lookup: dict[str, Any] = field(default_factory=dict)


def attach_image(session_id: int, run_id: int, target: ImageOf, file_name: str):
    """Let a row show an image that is already safe on disk; answers the row and whether anything changed.

    Raises the model's DoesNotExist where the run has no such row.
    """

    def work(writer: _Writer):
        row = target.model.objects.get(run=writer.run, **target.lookup)
        if getattr(row, target.column) == file_name:
            row_changed = False
        else:
            writer.refuse_archived()
            setattr(row, target.column, file_name)
            row.revision = writer.next_revision(writer.run)
            row.save(update_fields=[target.column, "revision"])
            row_changed = True
        return row, row_changed

    return _transaction(session_id, run_id, work)
