"""The live page's verdict: how far a session is, how fast, how good, and whether to go on, adjust or stop.

Usable is what keeps to the session's limits (reduction.usable). What people should do is said of the newest RECENT
micrographs that can be judged, because a good morning must not hide a bad hour:

- stop: fewer than STOP of them are usable;
- adjust: fewer than ADJUST of them are usable, with the limit that most of them break;
- check: somebody or something is silent or failed (state.py), whatever the numbers were until then;
- go on: otherwise.
"""

import datetime
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from django.utils import timezone

from people import words
from preprocessing import reduction
from preprocessing.histograms import MEASURES
from preprocessing.live_words import digits
from preprocessing.packed import Table
from preprocessing.state import State

RECENT = 50
#: Fewer can be chance.
LEAST_RECENT = 10
ADJUST = 0.5
STOP = 0.1
#: Beyond this a pace says nothing of what is still to come.
LONGEST_PROJECTION = datetime.timedelta(days=7)

# The limits by measure: the least and the greatest good value, as fields of preprocessing.models.Limits.
LIMITS = {
    "ctf_resolution": (None, "ctf_resolution_max"),
    "motion_total": (None, "motion_total_max"),
    "astigmatism": (None, "astigmatism_max"),
    "ice_thickness": (None, "ice_thickness_max"),
    "particles": ("particles_min", "particles_max"),
}
# What to look at, and how to begin; the state itself stands above it.
CHECK = {
    "stalled": ("Check the microscope", "Does the acquisition still run?"),
    "watcher_silent": ("Check the transfer", "Does the watcher's machine still run, and see the files?"),
    "pipeline_silent": ("Check the pipeline", "Does its machine still run, and reach this site?"),
    "pipeline_failed": ("Check the pipeline", "What it said is under Messages."),
    "pipeline_stopped": ("Check the pipeline", "Nobody processes what comes."),
}


@dataclass(frozen=True)
class Advice:
    """`key` is go_on, adjust, stop, check, wait or over; `level` as a state's; `text` is the reason in words."""

    key: str
    level: str
    icon: str
    title: str
    text: str


def bounds_of(limits) -> dict[str, tuple[float | None, float | None]]:
    """The limits that are set, by measure."""
    found = {}
    for key, fields in LIMITS.items():
        pair = tuple(None if name is None else getattr(limits, name) for name in fields)
        if pair != (None, None):
            found[key] = pair
    return found


def last_movie_at(session, table: Table | None) -> datetime.datetime | None:
    """When the newest movie was made or, where nobody says, first heard of."""
    known = [session.last_file_at, session.summary.last_exposure_at]
    if table is not None and len(table):
        newest = float(np.nanmax(table.time))
        known.append(datetime.datetime.fromtimestamp(newest, datetime.UTC))
    return max((moment for moment in known if moment is not None), default=None)


def verdict(
    session, table: Table | None, limits, state: State, movies: int, now: datetime.datetime | None = None
) -> dict:
    """The numbers and the advice, in plain values; what is not known is None."""
    now = now or timezone.now()
    bounds = bounds_of(limits)
    pace = _pace(session, table, now)
    good = _good(table, bounds)
    last = last_movie_at(session, table)
    advice = advise(session, state, table, bounds)
    return {
        "advice": {
            "key": advice.key,
            "level": advice.level,
            "icon": advice.icon,
            "title": advice.title,
            "text": advice.text,
        },
        **pace,
        "projected": projected(session, state, movies, pace["rate_now"], now),
        "booking_end": session.booking.end.timestamp(),
        **good,
        "last_movie": None if last is None else last.timestamp(),
        "bytes": session.data_bytes,
        "limits": {key: list(pair) for key, pair in bounds.items()},
    }


def _pace(session, table: Table | None, now: datetime.datetime) -> dict:
    """Movies per hour now (None once the session is over) and over the session."""
    if table is not None and len(table) > 1:
        times = reduction.along(table, "time")[1]
        times = times[~np.isnan(times)]
        over = reduction.rate(times, None)
        current = reduction.rate(times, now.timestamp()) if session.is_running else None
        return {"rate_now": current, "rate_session": over}
    start, end = session.start, session.last_file_at
    if session.data_movies and end and end - start >= datetime.timedelta(minutes=5):
        return {"rate_now": None, "rate_session": session.data_movies * 3600 / (end - start).total_seconds()}
    return {"rate_now": None, "rate_session": None}


def projected(session, state: State, movies: int, rate: float | None, now: datetime.datetime) -> int | None:
    """How many movies there will be at the booking's end, if it goes on as in the last hour."""
    left = session.booking.end - now
    if not session.is_running or rate is None or state.level in ("warning", "bad"):
        return None
    if not datetime.timedelta() < left <= LONGEST_PROJECTION:
        return None
    return movies + round(rate * left.total_seconds() / 3600)


def _good(table: Table | None, bounds: Mapping) -> dict:
    if table is None or not len(table):
        return {"judged": 0, "usable": 0, "recent": None}
    judged, good = reduction.usable(table, bounds)
    newest = _newest(table, judged)
    return {
        "judged": int(judged.sum()),
        "usable": int(good.sum()),
        "recent": {"judged": len(newest), "usable": int(good[newest].sum())} if len(newest) else None,
    }


def _newest(table: Table, judged: np.ndarray) -> np.ndarray:
    """Places of the newest RECENT rows that can be judged."""
    order = reduction.along(table, "time")[0]
    # Those that can be judged stand near the end: look there before looking everywhere.
    end = order[-10 * RECENT :]
    found = end[judged[end]]
    if len(found) < RECENT < len(order):
        found = order[judged[order]]
    return found[-RECENT:]


def advise(session, state: State, table: Table | None, bounds: Mapping) -> Advice:
    """What to do, and why."""
    if not session.is_running:
        return Advice("over", state.level, state.icon, "Over", _so_far(table, bounds))
    if state.code in CHECK:
        title, text = CHECK[state.code]
        return Advice("check", state.level, state.icon, title, text)
    newest, good = np.empty(0, dtype=np.int64), None
    if table is not None and len(table):
        judged, good = reduction.usable(table, bounds)
        newest = _newest(table, judged)
    if len(newest) < LEAST_RECENT:
        waiting = "" if not len(newest) else f" {len(newest)} measured so far."
        return Advice(
            "wait", "neutral", "hourglass-split", "Wait", f"Too few micrographs to judge yet.{waiting}"
        )
    share = float(good[newest].mean())
    of = f"of the last {len(newest)}"
    if share >= ADJUST:
        text = f"{words.percent(share)} {of} usable{_medians(table, newest)}."
        return Advice("go_on", "ok", "check-circle", "Go on", text)
    reason = _reason(table, bounds, newest)
    if share < STOP:
        said = "None" if share == 0 else f"Only {words.percent(share)}"
        return Advice("stop", "bad", "sign-stop", "Stop", f"{said} {of} usable{reason}.")
    return Advice(
        "adjust", "warning", "sliders", "Adjust", f"Only {words.percent(share)} {of} usable{reason}."
    )


def _so_far(table: Table | None, bounds: Mapping) -> str:
    if table is None or not len(table):
        return ""
    judged, good = reduction.usable(table, bounds)
    if not judged.any():
        return ""
    return (
        f"{words.percent(int(good.sum()) / int(judged.sum()))} of {words.number(int(judged.sum()))} usable."
    )


def _medians(table: Table, rows: np.ndarray) -> str:
    """For instance ", 3.4 Å resolution, 6.1 Å motion"."""
    said = []
    for key, name in (("ctf_resolution", "resolution"), ("motion_total", "motion")):
        values = table.measure(key)[rows]
        if (~np.isnan(values)).any():
            text = words.number(float(np.nanmedian(values)), digits(key))
            said.append(f"{text} {MEASURES[key].unit} {name}")
    return f"; medians {', '.join(said)}" if said else ""


def _reason(table: Table, bounds: Mapping, rows: np.ndarray) -> str:
    """The limit that most of these rows break, in words."""
    most, worst = 0, None
    for key, outside in reduction.broken(table, bounds).items():
        if (count := int(outside[rows].sum())) > most:
            most, worst = count, key
    if worst is None:
        return ": rejected by the pipeline or by hand"
    measure, (least, greatest) = MEASURES[worst], bounds[worst]
    values = table.measure(worst)[rows]
    low = least is not None and (greatest is None or np.nanmedian(values) < least)
    bound = least if low else greatest
    side = "below" if low else "above"
    unit = f" {measure.unit}" if measure.unit and measure.unit != "relative" else ""
    label = measure.label if measure.label.startswith("CTF") else measure.label.lower()
    return f": {label} {side} {bound:g}{unit} in {most}"
