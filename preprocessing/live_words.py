"""What the live page says in words: a session's state in one sentence, a micrograph's values with their units."""

import datetime
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from django.utils import timezone

from people import words
from preprocessing.histograms import MEASURES
from sessions_app.dashboard import lab_words

# A pipeline's writes are heartbeats, kept to the minute; an agent with nothing to say sends an empty one.
SILENT_AFTER = datetime.timedelta(minutes=5)
QUIET_AFTER = datetime.timedelta(minutes=15)

ICONS = {
    "good": "record-circle",
    "wait": "hourglass-split",
    "done": "check-circle",
    "warn": "exclamation-triangle",
}
ICONS |= {"bad": "x-octagon"}


@dataclass(frozen=True)
class State:
    """`key` names the state for programs, `level` (good, wait, done, warn, bad) its colour and icon."""

    key: str
    level: str
    text: str

    @property
    def icon(self) -> str:
        return ICONS[self.level]


def clock(moment: datetime.datetime, now: datetime.datetime | None = None) -> str:
    """The facility's local time as people say it: 14:02 today, 22 Nov 14:02 otherwise, with the year if another."""
    local, today = timezone.localtime(moment), timezone.localtime(now or timezone.now()).date()
    time = words.clock(local)
    return time if local.date() == today else f"{words.day(local.date(), weekday=False, today=today)} {time}"


def pipeline_name(run) -> str:
    """For instance "RELION on gpu01"."""
    return f"{run.software} on {run.host}" if run.host else run.software


def state(
    session, run, *, newest_at: datetime.datetime | None, now: datetime.datetime | None = None
) -> State:
    """The session's state as its `run` shows it; `newest_at` is when the newest micrograph was first reported."""
    now = now or timezone.now()
    if session.status == session.Status.ARCHIVED:
        return State("archived", "done", "Archived: the micrographs were removed and the summary is kept.")
    if not session.is_running:
        return _after(session, run, now)
    where = session.microscope.name
    if run is None:
        return State("no_pipeline", "wait", f"{where}: waiting for a pipeline to report on this session.")
    who = pipeline_name(run)
    ended = clock(run.finished_at or run.last_seen_at, now)
    if run.status == run.Status.FAILED:
        return State("failed", "bad", f"{who} failed at {ended}. What it said is under Messages.")
    if run.status == run.Status.STOPPED:
        return State("stopped", "warn", f"{who} was stopped at {ended}; the session is still open.")
    if run.status == run.Status.FINISHED:
        return State("run_finished", "done", f"{who} finished at {ended}; the session is still open.")
    if now - run.last_seen_at > SILENT_AFTER:
        return State("silent", "warn", f"Pipeline silent since {clock(run.last_seen_at, now)} ({who}).")
    if run.status == run.Status.QUEUED:
        return State("queued", "wait", f"{who} is queued and has not started.")
    if newest_at is None:
        return State("no_micrograph", "wait", f"Waiting for the first micrograph: {who} is connected.")
    if now - newest_at > QUIET_AFTER:
        return State("quiet", "warn", f"No new micrograph since {clock(newest_at, now)}; {who} is alive.")
    lab = f" for the {lab_words(session.lab)}" if session.lab else ""
    booking_end = session.booking.end
    ends = "ends" if booking_end > now else "ended"
    return State(
        "collecting", "good", f"{where} is collecting{lab}; the booking {ends} at {clock(booking_end, now)}."
    )


def _after(session, run, now) -> State:
    """Of a session that is over; its pipeline may still be at work."""
    failed = session.status == session.Status.FAILED
    over = "Failed" if failed else "Finished"
    when = f" at {clock(session.end, now)}" if session.end else ""
    if run is None:
        return State("failed" if failed else "finished", "done", f"{over}{when}. No pipeline reported on it.")
    at_work = run.status in (run.Status.RUNNING, run.Status.QUEUED)
    who = pipeline_name(run)
    if at_work and now - run.last_seen_at <= SILENT_AFTER:
        return State("processing", "good", f"Collection {over.lower()}{when}; {who} is still processing.")
    said = {
        run.Status.FAILED: f"{who} failed at {clock(run.finished_at or run.last_seen_at, now)}",
        run.Status.STOPPED: f"{who} was stopped at {clock(run.finished_at or run.last_seen_at, now)}",
        run.Status.FINISHED: f"{who} finished at {clock(run.finished_at or run.last_seen_at, now)}",
    }.get(run.status, f"{who} was last heard at {clock(run.last_seen_at, now)}")
    level = "bad" if failed else "warn" if run.status == run.Status.FAILED else "done"
    return State("failed" if failed else "finished", level, f"{over}{when}; {said}.")


# What the page shows beside the measures of histograms.py: by column: label, unit, digits, factor from the stored unit.
MORE_VALUES = {
    "defocus_u": ("Defocus U", "µm", 2, 1e-4),
    "defocus_v": ("Defocus V", "µm", 2, 1e-4),
    "defocus_angle": ("Astigmatism angle", "°", 0, 1),
}
ORDER = ("defocus", "defocus_u", "defocus_v", "astigmatism", "defocus_angle", "phase_shift", "ctf_resolution")
ORDER += ("ctf_score", "motion_total", "motion_early", "motion_late", "ice_thickness", "particles")
DIGITS = {"defocus": 2, "astigmatism": 0, "particles": 0, "ctf_score": 3, "ice_thickness": 2}
USUAL_DIGITS = 1


def digits(key: str) -> int:
    """How many decimals of a measure people read."""
    return DIGITS.get(key, USUAL_DIGITS)


def values(row: Mapping, sent: Collection[str]) -> list[dict]:
    """A micrograph's values, from its stored columns, as rows of key, label, text (None: unknown) and unit.

    `sent` names the measures the run has sent for any micrograph; what it never sent is left out.
    """
    rows = []
    for key in ORDER:
        if key in MEASURES:
            measure = MEASURES[key]
            label, unit, places = measure.label, measure.unit, digits(key)
            value, expected = measure.value(row), key in sent
        else:
            label, unit, places, factor = MORE_VALUES[key]
            value, expected = row[key], "defocus" in sent
            value = None if value is None else value * factor
        if value is not None or expected:
            rows.append({"key": key, "label": label, "text": words.number(value, places), "unit": unit})
    return rows
