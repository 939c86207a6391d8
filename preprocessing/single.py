"""One micrograph by itself, as a microscope makes them: looked up, thought over, written if nothing moved meanwhile.

Ingestion proper (preprocessing.ingest) holds the run's lock while it reads, counts and writes. For one micrograph that
takes longer than the writing, and on SQLite, where one writes at a time, everyone else waits for it. Here what is known
is read without a lock, by the very statement that finds the token; the rules (ingest.Plan) and the counting follow in
memory; and the change is written with the condition that run and summary are still what they were. Whoever was
overtaken wrote nothing and goes the usual way, under locks.

The condition is the run's revision, which each change of its rows and counters moves, and of the summary what its new
counts are made from. What other runs came to is not needed for these: of them only the leading one counts, whose
number of micrographs the summary has itself.

On PostgreSQL all is one statement, so that lock, check, write and commit are one round trip; on SQLite the fewest that
do it.
"""

# ruff: noqa: S608 (only our own names are written into statements)

import datetime
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, fields
from functools import cache

import orjson
from django.db import DatabaseError, connection, transaction
from django.utils import timezone

from people import statements
from people.statements import Columns
from preprocessing.histograms import COUNTERS
from preprocessing.ingest import (
    HEARTBEAT,
    MICROGRAPH_READ,
    ROW_FIELDS,
    Outcome,
    Plan,
    Refused,
    Report,
    row_values,
    told_by,
)
from preprocessing.line import in_line
from preprocessing.models import ProcessingRun
from sessions_app.models import SessionSummary

_LIVE = (ProcessingRun.Status.RUNNING, ProcessingRun.Status.QUEUED)


@dataclass(slots=True)
class State:
    """What is known of a run, its session's summary, and of the exposure and the micrograph that a name means."""

    run: int
    session: int
    revision: int
    status: str
    last_seen_at: datetime.datetime
    classes: int
    micrographs: int
    motion_corrected: int
    ctf_estimated: int
    picked: int
    particles: int
    histograms: dict
    exposure_revision: int
    leading_run: int | None
    leading_micrographs: int
    processing: str
    summary_seen_at: datetime.datetime | None
    exposure: int | None
    grid_square: str
    foil_hole: str
    micrograph: dict | None

    @classmethod
    def of_row(cls, row: list) -> "State":
        """Of a row of SELECTED."""
        state = cls(*row[:_OF_STATE], None)
        state.histograms = orjson.loads(state.histograms)
        if row[_OF_STATE] is not None:
            state.micrograph = dict(zip(MICROGRAPH_READ, row[_OF_STATE:], strict=True))
        return state


_OF_STATE = len(fields(State)) - 1
_OF_MICROGRAPH = ", ".join(f"m.{name}" for name in MICROGRAPH_READ)
# For a statement in which r is the run and s its session; what is `joined` has one parameter, the identity.
SELECTED = (
    "r.id, s.id, r.revision, r.status, r.last_seen_at, r.classes, r.micrographs, r.motion_corrected, r.ctf_estimated, "
    "r.picked, r.particles, CAST(r.histograms AS text), y.exposure_revision, y.leading_run, y.micrographs, "
    f"y.processing, y.last_seen_at, e.id, e.grid_square, e.foil_hole, {_OF_MICROGRAPH}"
)
_JOINED = {
    "sqlite": (
        "LEFT JOIN preprocessing_exposure e ON e.session_id = s.id AND e.identity = %s "
        "LEFT JOIN preprocessing_micrograph m ON m.run_id = r.id AND m.exposure_id = e.id"
    ),
    # Each by its own index, however few rows PostgreSQL believed there were when it planned: see ingest.
    "postgresql": (
        "LEFT JOIN LATERAL (SELECT * FROM preprocessing_exposure "
        "WHERE session_id = s.id AND identity = %s OFFSET 0) e ON true "
        "LEFT JOIN LATERAL (SELECT * FROM preprocessing_micrograph "
        "WHERE run_id = r.id AND exposure_id = e.id OFFSET 0) m ON true"
    ),
}


def joined(vendor: str) -> str:
    return f"JOIN sessions_app_sessionsummary y ON y.session_id = s.id {_JOINED[vendor]}"


_SEEN = {4: ProcessingRun._meta.get_field("last_seen_at"), 16: SessionSummary._meta.get_field("last_seen_at")}
COLUMNS = Columns(_SEEN.get(place) for place in range(_OF_STATE + len(MICROGRAPH_READ)))


class _Overtaken(Exception):
    """Something moved since it was read, and nothing was written."""


def record(state: State, report: Report) -> Outcome | None:
    """What the report came to, once it is committed; None where it must be told to ingest.record_micrographs."""
    if "coordinates" in report.values or state.leading_run is None:
        return None
    known = {}
    if state.exposure is not None:
        known = {
            report.identity: {
                "pk": state.exposure,
                "grid_square": state.grid_square,
                "foil_hole": state.foil_hole,
            }
        }
    rows = {}
    if state.micrograph is not None:
        # Its stored picks are counted if the number is taken back.
        if "particles" in report.values and report.values["particles"] is None:
            return None
        rows = {state.exposure: state.micrograph}
    try:
        plan = Plan.of({report.identity: report}, {report.identity: 0}, known, rows, {})
    except Refused:
        return None
    now = timezone.now()
    if plan.fills or (plan.is_empty and now - state.last_seen_at >= HEARTBEAT):
        return None
    if not plan.is_empty:
        try:
            _write(_Change(state, report, plan, now))
        except (_Overtaken, DatabaseError):
            # Whatever it was: the usual way waits for its locks, and says what is wrong if it still is.
            return None
        state.revision += 1
    plan.outcome.revision = state.revision
    return plan.outcome


class _Change:
    """The statements, in the order of their locks, each with its values."""

    def __init__(self, state: State, report: Report, plan: Plan, now: datetime.datetime):
        tally = plan.tally(state)
        counters = [tally.counters[name] for name in COUNTERS]
        counted = counters != [getattr(state, name) for name in COUNTERS]
        seen = max(now, state.last_seen_at)
        revision = state.revision + 1
        # The summary hears of the run with its own counts, or as the minute changes: as in ingest.
        minute = int(now.timestamp() // 60) != int(state.last_seen_at.timestamp() // 60)
        self.makes_exposure = state.exposure is None
        self.with_summary = counted or minute
        self.updates = bool(plan.changed)
        self.run = [
            revision,
            *counters,
            orjson.dumps(tally.known_histograms()).decode(),
            seen,
            state.run,
            state.revision,
        ]
        self.summary = _summary(
            state, dict(zip(COUNTERS, counters, strict=True)), seen, now, self.makes_exposure
        )
        told = told_by(report)
        self.exposure = [
            state.session,
            report.identity,
            report.name,
            told.get("grid_square", ""),
            told.get("foil_hole", ""),
            state.exposure_revision + 1,
            now,
        ]
        if self.updates:
            ((_, after, _),) = plan.changed
            self.micrograph = [*row_values(after), revision, state.micrograph["id"]]
        else:
            ((_, after, _),) = plan.new
            self.micrograph = [state.run, report.name, *row_values(after), revision, now]
            if not self.makes_exposure:
                self.micrograph.append(state.exposure)


def _summary(
    state: State,
    counters: dict[str, int],
    seen: datetime.datetime,
    now: datetime.datetime,
    makes_exposure: bool,
) -> list:
    """The summary as ingest.summarise would leave it: the leading run has most micrographs, of equals the newest."""
    leads = state.leading_run == state.run or (counters["micrographs"], state.run) > (
        state.leading_micrographs,
        state.leading_run,
    )
    status = state.processing
    if leads and status not in _LIVE:
        status = state.status
    return [
        state.run if leads else None,
        *((counters[name] if leads else None) for name in COUNTERS),
        state.classes if leads else None,
        status,
        max(seen, state.summary_seen_at or seen),
        *([now] if makes_exposure else []),
        state.session,
        state.exposure_revision,
        state.leading_run,
        state.leading_micrographs,
        state.processing,
    ]


_COUNTED = ", ".join(f"{name} = %s" for name in COUNTERS)
_RUN = (
    f"UPDATE preprocessing_processingrun SET revision = %s, {_COUNTED}, histograms = %s, last_seen_at = %s "
    "WHERE id = %s AND revision = %s"
)
# What is not given (null) stays. An archived session's summary is frozen.
_KEPT = ", ".join(f"{name} = COALESCE(%s, y.{name})" for name in ("leading_run", *COUNTERS, "classes"))
_SUMMARY = (
    f"UPDATE sessions_app_sessionsummary AS y SET {_KEPT}, processing = %s, last_seen_at = %s{{more}} {{after}} "
    "WHERE y.session_id = %s AND y.exposure_revision = %s AND y.leading_run = %s AND y.micrographs = %s "
    "AND y.processing = %s AND y.frozen_at IS NULL"
)
_ONE_MORE = (
    ", exposures = y.exposures + 1, exposure_revision = y.exposure_revision + 1, last_exposure_at = %s"
)
_EXPOSURE = (
    "INSERT INTO preprocessing_exposure (session_id, identity, name, grid_square, foil_hole, revision, created_at, "
    "verdict, verdict_reason) SELECT %s, %s, %s, %s, %s, %s, %s, '', '' {after}"
)
_PLACES = ", ".join(["%s"] * len(ROW_FIELDS))
_MICROGRAPH = (
    f"INSERT INTO preprocessing_micrograph (run_id, name, {', '.join(ROW_FIELDS)}, revision, created_at, exposure_id, "
    f"micrograph_image, psd_image) SELECT %s, %s, {_PLACES}, %s, %s, {{exposure}}, '', '' {{after}}"
)
_MEASURED = (
    f"UPDATE preprocessing_micrograph AS m SET {', '.join(f'{name} = %s' for name in ROW_FIELDS)}, revision = %s "
    "{after} WHERE m.id = %s"
)


def _summary_sql(makes_exposure: bool, after: str = "") -> str:
    return _SUMMARY.format(more=_ONE_MORE if makes_exposure else "", after=after)


def _write(change: _Change) -> None:
    """All of it, or nothing and _Overtaken (or a DatabaseError)."""
    if connection.vendor == "postgresql":
        # Within a transaction (of a test) what is taken back is taken back to here.
        with transaction.atomic() if connection.in_atomic_block else nullcontext():
            _in_one(change)
    else:
        in_line(lambda: _one_by_one(change))


def _one_by_one(change: _Change) -> None:
    # Few different times, each adapted once.
    adapt = cache(connection.ops.adapt_datetimefield_value)

    def do(sql: str, values: Sequence) -> None:
        cursor.execute(sql, [adapt(v) if type(v) is datetime.datetime else v for v in values])
        if cursor.rowcount != 1:
            raise _Overtaken

    with transaction.atomic(), statements.cursor() as cursor:
        do(_RUN, change.run)
        if change.with_summary:
            do(_summary_sql(change.makes_exposure), change.summary)
        if change.updates:
            do(_MEASURED.format(after=""), change.micrograph)
            return
        made = []
        if change.makes_exposure:
            do(_EXPOSURE.format(after=""), change.exposure)
            made = [cursor.lastrowid]
        do(_MICROGRAPH.format(after="", exposure="%s"), [*change.micrograph, *made])


def _in_one(change: _Change) -> None:
    sql = _chain(change.with_summary, change.makes_exposure, change.updates)
    values = [*change.run]
    if change.with_summary:
        values += change.summary
    if change.makes_exposure:
        values += change.exposure
    values += change.micrograph
    with statements.cursor() as cursor:
        cursor.execute(sql, [_text(value) for value in values])


@cache
def _chain(with_summary: bool, makes_exposure: bool, updates: bool) -> str:
    """Each link takes its row from the one before, which also is the order of the locks.

    Where a condition fails the rest finds nothing, and what was done before it is taken back by the error that a
    division by zero is.
    """
    links = [("r", f"{_RUN} RETURNING 1")]
    if with_summary:
        links.append(("s", f"{_summary_sql(makes_exposure, 'FROM r')} RETURNING 1"))
    after = f"FROM {links[-1][0]}"
    if updates:
        links.append(("w", f"{_MEASURED.format(after=after)} RETURNING 1"))
    else:
        exposure = "%s"
        if makes_exposure:
            links.append(("e", f"{_EXPOSURE.format(after=after)} RETURNING id"))
            after, exposure = "FROM e", "e.id"
        links.append(("w", f"{_MICROGRAPH.format(after=after, exposure=exposure)} RETURNING 1"))
    return f"WITH {', '.join(f'{name} AS ({sql})' for name, sql in links)} SELECT 1 / count(*) FROM w"


def _text(value) -> str | None:
    """Texts leave it to PostgreSQL to see what type a column has, whatever the values: one statement, prepared once."""
    if value is None or type(value) is str:
        return value
    return value.isoformat() if type(value) is datetime.datetime else str(value)
