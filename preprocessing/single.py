"""One micrograph by itself, as a microscope makes them: looked up, thought over, written if nothing moved meanwhile.

Ingestion proper (preprocessing.ingest) holds the run's lock while it reads, counts and writes. For one micrograph that
takes longer than the writing, and on SQLite, where one writes at a time, everyone else waits for it. Here what is known
is read without a lock, by the very statement that finds the token; the rules (ingest.Plan) and the counting follow in
memory; and the change is written with the condition that run and summary are still what they were. Whoever was
overtaken wrote nothing and goes the usual way, under locks.

The condition is the run's revision, which each change of its rows and counters moves, and of the summary what its new
counts are made from. What other runs came to is not needed for these: of them only the leading one counts, whose
number of micrographs the summary has itself.

All of it is one statement, so that lock, check, write and commit are one round trip to PostgreSQL, and one call of
SQLite.
"""

# ruff: noqa: S608 (only our own names are written into statements)

import datetime
import itertools
import re
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, fields
from functools import cache

import orjson
from django.db import DatabaseError, OperationalError, connection, connections, transaction
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
        except DatabaseError:
            # Overtaken or whatever it was: the usual way waits for its locks, and says what is wrong if it still is.
            return None
        state.revision += 1
    plan.outcome.revision = state.revision
    return plan.outcome


class _Change:
    """What is to be written: the kind of it, and the values in the order of the statements."""

    def __init__(self, state: State, report: Report, plan: Plan, now: datetime.datetime):
        tally = plan.tally(state)
        counters = [tally.counters[name] for name in COUNTERS]
        counted = counters != [getattr(state, name) for name in COUNTERS]
        seen = max(now, state.last_seen_at)
        revision = state.revision + 1
        # The summary hears of the run with its own counts, or as the minute changes: as in ingest.
        minute = int(now.timestamp() // 60) != int(state.last_seen_at.timestamp() // 60)
        self.kind = _Kind(counted or minute, state.exposure is None, bool(plan.changed))
        histograms = orjson.dumps(tally.known_histograms()).decode()
        self.values = [revision, *counters, histograms, seen, state.run, state.revision]
        if self.kind.with_summary:
            by_name = dict(zip(COUNTERS, counters, strict=True))
            self.values += _summary(state, by_name, seen, now, self.kind.makes_exposure)
        if self.kind.makes_exposure:
            told = told_by(report)
            self.values += [
                state.session,
                report.identity,
                report.name,
                told.get("grid_square", ""),
                told.get("foil_hole", ""),
                state.exposure_revision + 1,
                now,
            ]
        if self.kind.updates:
            ((_, after, _),) = plan.changed
            self.values += [*row_values(after), revision, state.micrograph["id"]]
        else:
            ((_, after, _),) = plan.new
            self.values += [state.run, report.name, *row_values(after), revision, now]
            if not self.kind.makes_exposure:
                self.values.append(state.exposure)


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
_KEPT = ", ".join(f"{name} = COALESCE(%s, {name})" for name in ("leading_run", *COUNTERS, "classes"))
_SUMMARY = (
    f"UPDATE sessions_app_sessionsummary SET {_KEPT}, processing = %s, last_seen_at = %s{{more}} {{after}} "
    "WHERE session_id = %s AND exposure_revision = %s AND leading_run = %s AND micrographs = %s "
    "AND processing = %s AND frozen_at IS NULL"
)
_ONE_MORE = ", exposures = exposures + 1, exposure_revision = exposure_revision + 1, last_exposure_at = %s"
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
    f"UPDATE preprocessing_micrograph SET {', '.join(f'{name} = %s' for name in ROW_FIELDS)}, revision = %s "
    "{after} WHERE id = %s"
)


@dataclass(frozen=True, slots=True)
class _Kind:
    """Which statements a change needs."""

    with_summary: bool
    makes_exposure: bool
    updates: bool

    @property
    def name(self) -> str:
        return f"single_micrograph_{self.with_summary:d}{self.makes_exposure:d}{self.updates:d}"

    def links(self, exposure: str, after: Callable[[str], str] = lambda name: "") -> list[tuple[str, str]]:
        """Its statements in the order of their locks, each under a name; the last is of the micrograph.

        `exposure` is how the last one calls a new exposure's id; `after` makes one follow the one of that name.
        """
        links = [("r", _RUN)]
        if self.with_summary:
            more = _ONE_MORE if self.makes_exposure else ""
            links.append(("s", _SUMMARY.format(more=more, after=after("r"))))
        if self.makes_exposure:
            links.append(("e", _EXPOSURE.format(after=after(links[-1][0]))))
        last = after(links[-1][0])
        if self.updates:
            return [*links, ("m", _MEASURED.format(after=last))]
        exposure = exposure if self.makes_exposure else "%s"
        return [*links, ("m", _MICROGRAPH.format(after=last, exposure=exposure))]


def _write(change: _Change) -> None:
    """All of it, or nothing and a DatabaseError."""
    if connection.vendor == "postgresql":
        # Within a transaction (of a test) what is taken back is taken back to here.
        atomic = transaction.atomic() if connection.in_atomic_block else nullcontext()
        with atomic, statements.cursor() as cursor:
            cursor.execute(_chain(change.kind), [_text(value) for value in change.values])
    else:
        in_line(lambda: _trigger(change))


# -- PostgreSQL ------------------------------------------------------------------------------------------------
@cache
def _chain(kind: _Kind) -> str:
    """Each link takes its row from the one before.

    Where a condition fails the rest finds nothing, and what was done before it is taken back by the error that a
    division by zero is.
    """
    links = kind.links("e.id", "FROM {}".format)
    told = (f"{name} AS ({sql} RETURNING {'id' if name == 'e' else '1'})" for name, sql in links)
    return f"WITH {', '.join(told)} SELECT 1 / count(*) FROM m"


def _text(value) -> str | None:
    """Texts leave it to PostgreSQL to see what type a column has, whatever the values: one statement, prepared once."""
    if value is None or type(value) is str:
        return value
    return value.isoformat() if type(value) is datetime.datetime else str(value)


# -- SQLite ----------------------------------------------------------------------------------------------------
def _trigger(change: _Change) -> None:
    """Statement by statement each would let other threads in between, and with them the whole line would wait."""
    sql, *made = _view(change.kind)
    adapt = connection.ops.adapt_datetimefield_value
    values = [adapt(value) if type(value) is datetime.datetime else value for value in change.values]
    with statements.cursor() as cursor:
        try:
            cursor.execute(sql, values)
        except OperationalError as error:
            if "no such table" not in str(error):
                raise
            # This connection's first.
            for statement in made:
                cursor.execute(statement)
            cursor.execute(sql, values)


@cache
def _view(kind: _Kind) -> tuple[str, str, str]:
    """An insert into a view, the view, and the trigger that does what is to be done with a row of it.

    Both are the connection's own and go with it, or before a migration (`forget_views`). Where a condition fails, all
    that the insert did is taken back.
    """
    name = kind.name
    places = itertools.count()
    steps = []
    for _, sql in kind.links("last_insert_rowid()"):
        steps.append(re.sub("%s", lambda _: f"NEW.v{next(places)}", sql))
        steps.append("SELECT RAISE(ABORT, 'overtaken') WHERE changes() <> 1")
    columns = [f"v{place}" for place in range(next(places))]
    return (
        f"INSERT INTO {name} VALUES ({', '.join(['%s'] * len(columns))})",
        f"CREATE TEMPORARY VIEW {name} AS SELECT {', '.join(f'NULL AS {column}' for column in columns)}",
        f"CREATE TEMPORARY TRIGGER {name}_written INSTEAD OF INSERT ON {name} BEGIN {'; '.join(steps)}; END",
    )


def forget_views(using: str, **kwargs) -> None:
    """For pre_migrate: SQLite renames no table while a trigger of the same connection names one that is gone."""
    own = connections[using]
    if own.vendor == "sqlite":
        with own.cursor() as cursor:
            for flags in itertools.product((False, True), repeat=3):
                cursor.execute(f"DROP VIEW IF EXISTS temp.{_Kind(*flags).name}")
