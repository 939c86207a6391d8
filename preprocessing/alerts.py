"""Alerts: what of a running session needs somebody, raised and resolved by themselves.

Three kinds of rule, each with its limit of the session (state.limits_of); an empty limit raises nothing:

- what is measured (resolution, motion, ice, astigmatism, particles), of the leading run: raised once over RAISE of
  the newest WINDOW micrographs that have the value are out of limits, resolved once at most CLEAR of them are. In
  between it stays as it is, so that nothing flickers at the limit, and before there are WINDOW values nothing is
  raised;
- what is timed (no new file, watcher silent, pipeline silent): as state.py says it of the session, until a sign of
  life; not once the booking is over and no file comes any more;
- what happened: a run that failed, until another one begins; an error that a pipeline reported, for ERROR_LASTS;
  data above a size.

`check` is called by `manage.py check_alerts` every few seconds or once a minute, and by nothing that pipelines wait
for. It asks a fixed number of questions and one more for each session whose pipeline reported within the hour.
"""

import datetime
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from django.db import transaction
from django.db.models import Max
from django.utils import timezone

from preprocessing import alert_mails
from preprocessing.histograms import MEASURES
from preprocessing.models import Alert, Limits, Micrograph, ProcessingRun, RunEvent
from preprocessing.state import RELATED, Life, Signs, limits_of, signs_of
from sessions_app.models import Session, SessionSummary

WINDOW = 25
RAISE = 0.75
CLEAR = 0.5
#: Values come step by step: so many of the newest rows are looked through for WINDOW that have each value.
LOOK = 4 * WINDOW
ERROR_LASTS = datetime.timedelta(minutes=15)
#: A run that nobody heard of for so long has no new values.
FRESH = datetime.timedelta(hours=1)

Kind = Alert.Kind


@dataclass(frozen=True)
class Measured:
    """A rule about a quantity of histograms.MEASURES: `least` and `most` name the limits, where there are such."""

    measure: str
    least: str = ""
    most: str = ""


MEASURED: dict[str, Measured] = {
    Kind.RESOLUTION: Measured("ctf_resolution", most="ctf_resolution_max"),
    Kind.MOTION: Measured("motion_total", most="motion_total_max"),
    Kind.ICE: Measured("ice_thickness", most="ice_thickness_max"),
    Kind.ASTIGMATISM: Measured("astigmatism", most="astigmatism_max"),
    Kind.PARTICLES: Measured("particles", least="particles_min", most="particles_max"),
}
COLUMNS = tuple(dict.fromkeys(name for rule in MEASURED.values() for name in MEASURES[rule.measure].fields))
ABOUT_DATA = frozenset({*MEASURED, Kind.SIZE})


@dataclass(frozen=True)
class Finding:
    """What an alert would say: `since` is when it began, as far as that is known."""

    text: str
    since: datetime.datetime
    level: str = Alert.Level.WARNING


@dataclass
class Facts:
    """Everything the rules look at for one session; `rows` are of the leading run, the newest exposure first."""

    session: Session
    limits: Limits
    signs: Signs
    rows: Sequence[Mapping] | None = None  # None: not looked at, as nothing can have changed.
    runs: Sequence[Mapping] = ()
    error: Mapping | None = None
    open: set[str] = field(default_factory=set)


@dataclass
class Tally:
    """What a check came to."""

    sessions: int = 0
    raised: int = 0
    resolved: int = 0


# -- Rules -------------------------------------------------------------------------------------------------


def findings(facts: Facts) -> dict[str, Finding | None]:
    """By kind, what is to be said; None for a kind that stays as it is because it cannot be told now."""
    found: dict[str, Finding | None] = {}
    for kind, rule in MEASURED.items():
        if facts.rows is None:
            found |= {kind: None} if kind in facts.open and _bounds(rule, facts.limits) else {}
        else:
            found |= _measured(kind, rule, facts)
    for kind, finding in (
        (Kind.SIZE, _size(facts)),
        (Kind.ERROR, _error(facts)),
        *_timed(facts),
    ):
        if finding is not None:
            found[kind] = finding
    return found


def _bounds(rule: Measured, limits: Limits) -> tuple[float | None, float | None] | None:
    """Least and greatest good value; None where there is no limit."""
    pair = tuple(getattr(limits, name) if name else None for name in (rule.least, rule.most))
    return None if pair == (None, None) else pair


def _measured(kind: str, rule: Measured, facts: Facts) -> dict[str, Finding | None]:
    bounds = _bounds(rule, facts.limits)
    if bounds is None:
        return {}
    measure = MEASURES[rule.measure]
    known = [(value, row) for row in facts.rows if (value := measure.value(row)) is not None][:WINDOW]
    if len(known) < WINDOW:
        return {kind: None} if kind in facts.open else {}
    least, most = bounds
    low = sum(least is not None and value < least for value, _ in known)
    high = sum(most is not None and value > most for value, _ in known)
    share = (low + high) / WINDOW
    if not (share > RAISE or (kind in facts.open and share > CLEAR)):
        return {}
    bound, side = (least, "below") if low > high else (most, "above")
    unit = f" {measure.unit}" if measure.unit and measure.unit != "relative" else ""
    text = f"{measure.label} {side} {bound:g}{unit} in {low + high} of the last {WINDOW} micrographs"
    return {kind: Finding(text, known[-1][1]["created_at"])}


def _size(facts: Facts) -> Finding | None:
    most, size = facts.limits.size_tb, facts.session.data_bytes
    if most is None or size is None or size <= most * 1e12:
        return None
    return Finding(f"The session's data have grown above {most:g} TB", facts.signs.now)


def _error(facts: Facts) -> Finding | None:
    began = max((run["started_at"] for run in facts.runs), default=None)
    for run in facts.runs:
        ended = run["finished_at"] or run["last_seen_at"]
        if run["status"] == ProcessingRun.Status.FAILED and not began > ended:
            name = run["label"] or run["software"]
            return Finding(f"The pipeline failed ({name})", ended, Alert.Level.BAD)
    if facts.error is not None:
        return Finding(f"The pipeline reported an error: {facts.error['text']}"[:400], facts.error["at"])
    return None


def _timed(facts: Facts) -> Iterable[tuple[str, Finding | None]]:
    signs, limits = facts.signs, facts.limits
    if signs.abandoned:
        return
    if signs.stalled and limits.file_minutes is not None:
        who = "watcher" if signs.watcher == Life.ALIVE else "pipeline"
        text = f"No new file for more than {limits.file_minutes} min, though the {who} is alive"
        yield Kind.NO_FILE, Finding(text, signs.last_file_at)
    for kind, life, seen_at, minutes, name in (
        (Kind.WATCHER, signs.watcher, signs.watcher_at, limits.watcher_minutes, "watcher"),
        (Kind.PIPELINE, signs.pipeline, signs.pipeline_at, limits.pipeline_minutes, "pipeline"),
    ):
        if life == Life.SILENT and minutes is not None:
            yield kind, Finding(f"The {name} has been silent for more than {minutes} min", seen_at)


# -- Looking -----------------------------------------------------------------------------------------------


def check(now: datetime.datetime | None = None) -> Tally:
    """Raise and resolve the alerts of all running sessions, and resolve those of sessions that are over.

    May be called by several at once: each session's alerts are compared anew under its summary's lock.
    """
    now = now or timezone.now()
    running = list(Session.objects.running().with_row().select_related(*RELATED, "booking__operator"))
    opened: dict[int, set[str]] = defaultdict(set)
    for pk, kind in Alert.objects.open().order_by().values_list("session", "kind"):
        opened[pk].add(kind)
    tally = Tally(sessions=len(running))
    for facts in _facts(running, opened, now):
        found = findings(facts)
        if set(found) != facts.open:
            _settle(facts.session, found, now, tally)
    for session in Session.objects.filter(pk__in=opened.keys() - {session.pk for session in running}):
        _settle(session, {}, now, tally)
    return tally


def _facts(running: Sequence[Session], opened: Mapping[int, set[str]], now) -> Iterable[Facts]:
    ids = [session.pk for session in running]
    runs = defaultdict(list)
    columns = ("pk", "session_id", "status", "software", "label", "started_at", "finished_at", "last_seen_at")
    for run in ProcessingRun.objects.filter(session__in=ids).order_by("pk").values(*columns):
        runs[run["session_id"]].append(run)
    errors = _errors([run["pk"] for some in runs.values() for run in some], now)
    for session in running:
        known = [errors[run["pk"]] for run in runs[session.pk] if run["pk"] in errors]
        limits = limits_of(session)
        yield Facts(
            session=session,
            limits=limits,
            signs=signs_of(session, now),
            rows=_rows(session.summary, limits, now),
            runs=runs[session.pk],
            error=max(known, key=lambda event: event["at"], default=None),
            open=set(opened.get(session.pk, ())),
        )


def _errors(runs: Sequence[int], now: datetime.datetime) -> dict[int, dict]:
    """The newest error that each run reported lately."""
    if not runs:
        return {}
    lately = RunEvent.objects.filter(run__in=runs, level=RunEvent.Level.ERROR, at__gt=now - ERROR_LASTS)
    # One for each run, however many a pipeline in trouble may report.
    newest = list(
        lately.order_by().values_list("run").annotate(newest=Max("pk")).values_list("newest", flat=True)
    )
    if not newest:
        return {}
    return {
        event["run_id"]: event
        for event in RunEvent.objects.filter(pk__in=newest).order_by().values("run_id", "at", "text")
    }


def _rows(summary: SessionSummary, limits: Limits, now: datetime.datetime) -> list[dict] | None:
    """The leading run's newest rows; None where nothing was reported lately or no limit is set."""
    if summary.leading_run is None or now - summary.last_seen_at > FRESH:
        return None
    if all(_bounds(rule, limits) is None for rule in MEASURED.values()):
        return None
    # By the unique index of run and exposure, backwards.
    rows = Micrograph.objects.filter(run=summary.leading_run).order_by("-exposure_id")
    return list(rows.values("created_at", *COLUMNS)[:LOOK])


# -- Writing -----------------------------------------------------------------------------------------------


@transaction.atomic
def _settle(
    session: Session, found: Mapping[str, Finding | None], now: datetime.datetime, tally: Tally
) -> None:
    """Make the session's open alerts those that were found, and tell whom it concerns."""
    summary = SessionSummary.objects.select_for_update().only("pk", "alerts").filter(pk=session.pk).first()
    if summary is None:
        return  # The session was deleted meanwhile.
    # Read under the lock: another check may have come first.
    current = {alert.kind: alert for alert in Alert.objects.open().filter(session=session)}
    raised = [
        Alert(session=session, kind=kind, level=each.level, text=each.text, since=each.since, raised_at=now)
        for kind, each in found.items()
        if each is not None and kind not in current
    ]
    over = [alert for kind, alert in current.items() if kind not in found]
    for alert in over:
        alert.resolved_at = max(now, alert.raised_at)
        alert.save(update_fields=["resolved_at"])
    for alert in raised:
        alert.save(force_insert=True)
    still = [alert for kind, alert in current.items() if kind in found]
    worst_first = sorted(
        [*still, *raised], key=lambda alert: (alert.level != Alert.Level.BAD, alert.raised_at)
    )
    summary.alerts = [told(alert) for alert in worst_first]
    summary.save(update_fields=["alerts"])
    tally.raised += len(raised)
    tally.resolved += len(over)
    if session.is_running:
        alert_mails.write(session, raised, over, now)


def told(alert: Alert) -> dict:
    """An open alert as the summary keeps it for every page."""
    return {
        "kind": alert.kind,
        "level": alert.level,
        "text": alert.text,
        "since": alert.raised_at.astimezone(datetime.UTC).isoformat(timespec="seconds"),
    }
