"""The alerts of a session that is over: raised and resolved as they would have been while it ran.

The session is gone through again, minute by minute, with the rules of `preprocessing.alerts`; only who is told of
them is left out.
"""

from __future__ import annotations

import datetime
from bisect import bisect_right
from collections.abc import Iterator

from preprocessing import alerts
from preprocessing.models import Alert, Micrograph, ProcessingRun, RunEvent
from preprocessing.state import RELATED, limits_of, signs_of
from sessions_app.models import Session, SessionSummary

STEP = datetime.timedelta(minutes=2)  # between two looks


def raise_past(session: Session, run: ProcessingRun) -> list[Alert]:
    """Write the alerts that the session had while it ran, from its only run's rows and messages."""
    watched = Session.objects.with_row().select_related(*RELATED).get(pk=session.pk)
    watched.status, watched.summary.processing = Session.Status.ACTIVE, SessionSummary.Processing.RUNNING
    limits = limits_of(watched)
    rows = Micrograph.objects.filter(run=run).order_by("exposure_id")
    rows = list(rows.values("created_at", *alerts.COLUMNS))
    reported = [row["created_at"] for row in rows]
    errors = RunEvent.objects.filter(run=run, level=RunEvent.Level.ERROR).order_by("at", "pk")
    errors = list(errors.values("at", "text"))
    opened: dict[str, Alert] = {}
    over = []
    for now in _moments(session.start, session.end):
        seen = bisect_right(reported, now)
        watched.watcher_seen_at = watched.summary.last_seen_at = now
        watched.last_file_at = watched.summary.last_exposure_at = reported[seen - 1] if seen else None
        facts = alerts.Facts(
            session=watched,
            limits=limits,
            signs=signs_of(watched, now),
            rows=rows[max(0, seen - alerts.LOOK) : seen][::-1],
            error=next((e for e in errors if e["at"] <= now < e["at"] + alerts.ERROR_LASTS), None),
            open=set(opened),
        )
        found = alerts.findings(facts)
        for kind in opened.keys() - found.keys():
            over.append(_resolved(opened.pop(kind), now))
        for kind, finding in found.items():
            if finding is not None and kind not in opened:
                opened[kind] = Alert(
                    session=session,
                    kind=kind,
                    level=finding.level,
                    text=finding.text,
                    since=finding.since,
                    raised_at=now,
                )
    over += [_resolved(alert, session.end) for alert in opened.values()]
    return Alert.objects.bulk_create(sorted(over, key=lambda alert: alert.raised_at))


def _moments(start: datetime.datetime, end: datetime.datetime) -> Iterator[datetime.datetime]:
    while start < end:
        yield start
        start += STEP


def _resolved(alert: Alert, when: datetime.datetime) -> Alert:
    alert.resolved_at = when
    return alert
