"""A session's state in words: who is alive, whether movies come, and which of it needs somebody.

What the live page's verdict, the dashboard and the timed alerts say of a session, they take from here, so that
they never disagree. `signs_of` finds the facts, `state_of` says them. Reads the session with its summary, booking
and limits alone, whatever the number of micrographs: no query where they were selected with it (RELATED).
"""

import datetime
from dataclasses import dataclass, field
from enum import StrEnum

from django.core.exceptions import ObjectDoesNotExist
from django.utils import timezone

from people import words
from preprocessing.models import Limits, MicroscopeLimits
from sessions_app.models import SessionSummary

#: For `select_related` of a session whose state is told.
RELATED = ("summary", "booking", "microscope__limits", "limits")

ICONS = {
    "ok": "record-circle",
    "warning": "exclamation-triangle",
    "bad": "x-octagon",
    "neutral": "hourglass-split",
}
OVER_ICON = "check-circle"


class Life(StrEnum):
    """How a watcher or pipeline is."""

    UNHEARD = "unheard"
    ALIVE = "alive"
    SILENT = "silent"
    FINISHED = "finished"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass(frozen=True)
class Signs:
    """What is known of a session at `now`: the facts behind its state and its timed alerts.

    `stalled` is true where whoever would tell of new files is alive and told of none for the time of the limits.
    """

    now: datetime.datetime
    watcher: Life
    watcher_at: datetime.datetime | None
    pipeline: Life
    pipeline_at: datetime.datetime | None
    last_file_at: datetime.datetime | None
    stalled: bool
    booking_over: bool

    @property
    def abandoned(self) -> bool:
        """The booking is over and no file comes any more: the session waits to be finished, nothing is wrong."""
        return self.booking_over and not self._files_come

    @property
    def _files_come(self) -> bool:
        heard = self.watcher == Life.ALIVE or self.pipeline == Life.ALIVE
        return heard and not self.stalled and self.last_file_at is not None


@dataclass(frozen=True)
class State:
    """`code` names the state for programs, `words` says it, `level` is ok, warning, bad or neutral.

    `since` is when it began, None where that is not known. Codes: not_started, collecting, stalled, watcher_silent,
    pipeline_silent, pipeline_failed, pipeline_stopped, pipeline_finished, overdue, processing, finished, failed,
    archived.
    """

    code: str
    words: str
    level: str
    since: datetime.datetime | None = None
    icon: str = field(default="")

    def __post_init__(self):
        if not self.icon:
            object.__setattr__(self, "icon", ICONS[self.level])


def limits_of(session) -> Limits:
    """The session's own limits, or those of its microscope, or the facility's usual ones where it has none."""
    for owner in (session, session.microscope):
        try:
            return owner.limits
        except ObjectDoesNotExist:
            continue
    # By id: given the microscope itself, it would be taken for the microscope's own from now on.
    return MicroscopeLimits(microscope_id=session.microscope_id)


def signs_of(session, now: datetime.datetime | None = None) -> Signs:
    """The facts about a session, by its limits; where one is empty, and so no alert wanted, by the usual one."""
    now = now or timezone.now()
    limits, summary = limits_of(session), session.summary
    watcher_at, pipeline_at = session.watcher_seen_at, summary.last_seen_at
    watcher = Life.UNHEARD if watcher_at is None else _life(watcher_at, limits, "watcher_minutes", now)
    pipeline = _pipeline(summary, limits, now)
    # A pipeline may work off what was collected hours ago: while the watcher is there, it alone tells of files.
    told = [session.last_file_at, summary.last_exposure_at]
    if watcher == Life.ALIVE and session.last_file_at is not None:
        told = [session.last_file_at]
    last_file_at = max((moment for moment in told if moment is not None), default=None)
    if last_file_at is not None:
        last_file_at = min(last_file_at, now)  # The microscope's clock may be ahead.
    heard = watcher == Life.ALIVE or (watcher == Life.UNHEARD and pipeline == Life.ALIVE)
    return Signs(
        now=now,
        watcher=watcher,
        watcher_at=watcher_at,
        pipeline=pipeline,
        pipeline_at=pipeline_at,
        last_file_at=last_file_at,
        stalled=heard and last_file_at is not None and _longer(last_file_at, limits, "file_minutes", now),
        booking_over=session.booking.end <= now,
    )


def state_of(session, now: datetime.datetime | None = None) -> State:
    """The session's state at `now` (default: this moment), in a sentence without its full stop."""
    if session.status == session.Status.ARCHIVED:
        return State("archived", "Archived; its summary is kept", "neutral", session.end, OVER_ICON)
    signs = signs_of(session, now)
    return _running(session, signs) if session.is_running else _over(session, signs)


def _running(session, signs: Signs) -> State:
    now, at = signs.now, _clock(signs.now)
    if signs.abandoned:
        end = session.booking.end
        last = f"no new file since {at(signs.last_file_at)}" if signs.last_file_at else "no file came"
        return State("overdue", f"The booking ended at {at(end)}, {last}; not finished yet", "neutral", end)
    troubles = []
    if signs.pipeline == Life.FAILED:
        troubles.append(("pipeline_failed", f"pipeline failed at {at(signs.pipeline_at)}", signs.pipeline_at))
    if signs.watcher == Life.SILENT:
        troubles.append(("watcher_silent", f"watcher silent since {at(signs.watcher_at)}", signs.watcher_at))
    if signs.stalled:
        quiet = words.duration(now - signs.last_file_at)
        troubles.append(("stalled", f"no new file for {quiet}", signs.last_file_at))
    if signs.pipeline == Life.SILENT:
        troubles.append(
            ("pipeline_silent", f"pipeline silent since {at(signs.pipeline_at)}", signs.pipeline_at)
        )
    well = _well(signs)
    if troubles:
        code, _, since = troubles[0]
        said = ", ".join([*(text for _, text, _ in troubles), *([f"{well} alive"] if well else [])])
        return State(code, _sentence(said), "bad" if code == "pipeline_failed" else "warning", since)
    ended = _pipeline_ended(signs)
    if signs.last_file_at is None:
        nobody = "no watcher or pipeline has reported yet"
        who = ended or (f"{well} alive" if well else nobody)
        return State("not_started", f"Waiting for the first movie; {who}", "neutral", session.start)
    if ended and signs.watcher != Life.ALIVE:
        # Nobody is left who would tell of a movie.
        code, level = (
            ("pipeline_stopped", "warning")
            if signs.pipeline == Life.STOPPED
            else ("pipeline_finished", "neutral")
        )
        return State(
            code, _sentence(f"{ended}; the session is still open"), level, signs.pipeline_at, OVER_ICON
        )
    return State("collecting", f"Collecting; {ended}" if ended else "Collecting", "ok")


def _over(session, signs: Signs) -> State:
    """Of a session that is over; its pipeline may still be at work."""
    failed = session.status == session.Status.FAILED
    at = _clock(signs.now)
    when = f" at {at(session.end)}" if session.end else ""
    over = f"{'Failed' if failed else 'Finished'}{when}"
    if signs.pipeline == Life.ALIVE:
        return State("processing", f"{over}; the pipeline is still at work", "ok", session.end)
    said = {
        Life.FAILED: f"; the pipeline failed at {at(signs.pipeline_at)}",
        Life.SILENT: f"; pipeline silent since {at(signs.pipeline_at)}",
    }.get(signs.pipeline, "")
    if failed:
        return State("failed", f"{over}{said}", "bad", session.end)
    # That a pipeline fell silent after the end is no news for ever: most are just switched off.
    if signs.pipeline == Life.FAILED:
        return State("finished", f"{over}{said}", "warning", session.end)
    return State("finished", f"{over}{said}", "neutral", session.end, OVER_ICON)


def _pipeline(summary: SessionSummary, limits: Limits, now: datetime.datetime) -> Life:
    """The liveliest run's, as the summary has it."""
    processing = SessionSummary.Processing
    ended = {
        processing.NONE: Life.UNHEARD,
        processing.FINISHED: Life.FINISHED,
        processing.STOPPED: Life.STOPPED,
        processing.FAILED: Life.FAILED,
    }
    return ended.get(summary.processing) or _life(summary.last_seen_at, limits, "pipeline_minutes", now)


def _life(seen_at: datetime.datetime, limits: Limits, limit: str, now: datetime.datetime) -> Life:
    return Life.SILENT if _longer(seen_at, limits, limit, now) else Life.ALIVE


def _longer(moment: datetime.datetime, limits: Limits, limit: str, now: datetime.datetime) -> bool:
    minutes = getattr(limits, limit) or Limits._meta.get_field(limit).default
    return now - moment > datetime.timedelta(minutes=minutes)


def _well(signs: Signs) -> str:
    """Who is alive, in words; empty where nobody is."""
    alive = [name for name in ("watcher", "pipeline") if getattr(signs, name) == Life.ALIVE]
    return " and ".join(alive)


def _pipeline_ended(signs: Signs) -> str:
    if signs.pipeline not in (Life.FINISHED, Life.STOPPED):
        return ""
    was = "was " if signs.pipeline == Life.STOPPED else ""
    return f"the pipeline {was}{signs.pipeline} at {_clock(signs.now)(signs.pipeline_at)}"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _clock(now: datetime.datetime):
    """Writes a moment as people say it at `now`: 14:02 today, 22 Nov 14:02 otherwise."""
    today = timezone.localtime(now).date()

    def at(moment: datetime.datetime) -> str:
        local = timezone.localtime(moment)
        time = words.clock(local)
        return (
            time if local.date() == today else f"{words.day(local.date(), weekday=False, today=today)} {time}"
        )

    return at
