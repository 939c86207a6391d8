"""Finishing, reopening, keeping and deleting a session, and the hooks by which a higher app says what would be
lost and acts.
"""

import datetime
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from django.core.exceptions import ValidationError
from django.db import IntegrityError, OperationalError, transaction
from django.utils import timezone

from people.models import AuditEntry
from sessions_app import images
from sessions_app.models import Session, SessionSummary
from sessions_app.retention import deletion_date

MAX_RETENTION_YEARS = 100
DELETE_ATTEMPTS = 3


@dataclass(frozen=True)
class Loss:
    """Something that goes when a session is deleted: `count` of `what` (a plural, for instance "micrographs").

    `one` is the word for a single one.
    """

    what: str
    count: int
    one: str = ""

    @property
    def noun(self) -> str:
        """What to write behind the count."""
        return self.one if self.one and self.count == 1 else self.what


LossCounter = Callable[[object], list[Loss]]
Deleter = Callable[[object], None]
Completer = Callable[[int], object]

_loss_counters: list[LossCounter] = []
_deleters: list[Deleter] = []
_completers: list[Completer] = []
_archive_counters: list[LossCounter] = []
_archivers: list[Deleter] = []


def register(
    *,
    count: LossCounter,
    delete: Deleter,
    complete: Completer,
    count_archived: LossCounter,
    archive: Deleter,
) -> None:
    """For a higher app's `ready()`: `count(session)` tells what would go, `delete(session)` removes it.

    `delete` runs inside the deletion's transaction, before the session's row goes; work on files belongs into
    `transaction.on_commit`. The session's image folder is taken away here. `complete(pk)` completes the summary
    of a session that is over; it is called once the end is committed, and what fails there is logged and made
    good by `manage.py complete_summaries`. `archive(session)` freezes the summary and removes what
    `count_archived(session)` tells, inside the archiving's transaction.
    """
    _loss_counters.append(count)
    _deleters.append(delete)
    _completers.append(complete)
    _archive_counters.append(count_archived)
    _archivers.append(archive)


def losses(session) -> list[Loss]:
    """Everything that goes with the session, for the confirmation to name."""
    return [loss for counter in _loss_counters for loss in counter(session)]


def archive_losses(session) -> list[Loss]:
    """What archiving the session removes, for the confirmation to name."""
    return [loss for counter in _archive_counters for loss in counter(session)]


def _locked(session) -> Session:
    """The session's row as it is now, held to the end of the transaction."""
    return (
        Session.objects.select_for_update(of=("self",), no_key=True)
        .select_related("microscope")
        .get(pk=session.pk)
    )


def _copy(source: Session, target: Session, *fields: str) -> None:
    """Let the caller's object show what was written."""
    for field in fields:
        setattr(target, field, getattr(source, field))


@transaction.atomic
def session_finish(
    session,
    actor,
    end: datetime.datetime | None = None,
    *,
    status: str = Session.Status.FINISHED,
) -> Session:
    """End a running session and set the date on which its images go; the microscope's retention counts as it is now.

    `status` may be FAILED instead. A session that ended before keeps its end and its date, so that finishing
    twice changes nothing. Raises ValidationError if `end` is before the start or the session is archived.
    """
    if status not in (Session.Status.FINISHED, Session.Status.FAILED):
        raise ValueError(f"A session does not end as {status}.")
    row = _locked(session)
    if row.status == Session.Status.ARCHIVED:
        if status == Session.Status.FINISHED:
            return session
        raise ValidationError({"status": "This session is archived and cannot change any more."})
    if row.status != status:
        if row.end is None:
            row.end = end or max(timezone.now(), row.start)
        if row.end < row.start:
            raise ValidationError({"end": "The end must not be before the start."})
        if row.delete_on is None:
            row.delete_on = deletion_date(row)
        before, row.status = row.status, status
        row.save(update_fields=["status", "end", "delete_on"])
        AuditEntry.record(
            actor=actor,
            action=f"session {status}",
            target=row,
            details={"before": before, "end": row.end.isoformat(), "delete_on": row.delete_on.isoformat()},
        )
        for complete in _completers:
            transaction.on_commit(partial(complete, row.pk), robust=True)
    _copy(row, session, "status", "end", "delete_on")
    return session


@transaction.atomic
def session_reopen(session, actor) -> Session:
    """Let a session that was finished by mistake run again; its retention date is set anew when it finishes.

    Raises ValidationError if it is archived or its images are gone.
    """
    row = _locked(session)
    if not row.is_running:
        if row.status == Session.Status.ARCHIVED:
            raise ValidationError({"status": "This session is archived and cannot change any more."})
        if row.data_deleted_at is not None:
            raise ValidationError(
                {"status": "The images of this session were deleted. Create a new session."}
            )
        before = {
            "before": row.status,
            "end": row.end.isoformat() if row.end else None,
            "delete_on": row.delete_on.isoformat() if row.delete_on else None,
        }
        row.status, row.end, row.delete_on, row.reminded_at = Session.Status.ACTIVE, None, None, None
        row.save(update_fields=["status", "end", "delete_on", "reminded_at"])
        AuditEntry.record(actor=actor, action="session reopened", target=row, details=before)
    _copy(row, session, "status", "end", "delete_on", "reminded_at")
    return session


@transaction.atomic
def extend_retention(
    session, actor, *, days: int | None = None, until: datetime.date | None = None
) -> Session:
    """Keep the images longer: `days` more than now agreed (from today, if that has passed), or `until` a date.

    People are reminded again before the new date. Raises ValidationError if the session has no date yet, its
    images are gone, or the new date would not be later.
    """
    if (days is None) == (until is None):
        raise TypeError("extend_retention() takes either days or until.")
    row = _locked(session)
    if row.data_deleted_at is not None:
        raise ValidationError("The images of this session were deleted already.")
    if row.delete_on is None:
        raise ValidationError("This session is still running: its date is set when it finishes.")
    today = timezone.localdate()
    field = "days" if until is None else "until"
    if until is None:
        if not 1 <= days <= MAX_RETENTION_YEARS * 365:
            raise ValidationError({"days": "Write a number of days from 1 on, at most a hundred years."})
        until = max(row.delete_on, today) + datetime.timedelta(days=days)
    if until <= row.delete_on or until < today:
        raise ValidationError({field: f"Choose a date after {max(row.delete_on, today):%d %b %Y}."})
    if until > today + datetime.timedelta(days=MAX_RETENTION_YEARS * 366):
        raise ValidationError({field: "Choose a date within the next hundred years."})
    before, row.delete_on, row.reminded_at = row.delete_on, until, None
    row.save(update_fields=["delete_on", "reminded_at"])
    AuditEntry.record(
        actor=actor,
        action="retention extended",
        target=row,
        details={"before": before.isoformat(), "after": until.isoformat()},
    )
    _copy(row, session, "delete_on", "reminded_at")
    return session


@transaction.atomic
def session_archive(session, actor) -> list[Loss]:
    """Freeze the summary of a session that is over and remove its rows; answers what went. It cannot be undone.

    Raises ValidationError if the session is not over, or archived already.
    """
    over = (Session.Status.FINISHED, Session.Status.FAILED)
    row = Session.objects.get(pk=session.pk)
    if row.status == Session.Status.ARCHIVED:
        raise ValidationError({"status": "This session is archived already."})
    gone = archive_losses(row)
    # As in deleting, pipelines' locks come first and the session's own row last.
    for archive in _archivers:
        archive(row)
    ended = Session.objects.filter(pk=row.pk, status__in=over, end__isnull=False)
    if not ended.update(status=Session.Status.ARCHIVED):
        raise ValidationError({"status": "Finish the session first: only one that is over can be archived."})
    AuditEntry.record(
        actor=actor,
        action="session archived",
        target=row,
        details={"before": row.status, "gone": {loss.what: loss.count for loss in gone}},
    )
    session.status = Session.Status.ARCHIVED
    return gone


def session_delete(session, actor) -> list[Loss]:
    """Remove the session with all that pipelines reported on it; answers what went.

    The files on the data server stay, and so does the name, which is never given again. The audit entry says who,
    when, what went and where the files are. The image folder is renamed away once the rows are gone for good, and
    emptied by `manage.py empty_trash`. Raises Session.DoesNotExist if somebody else was quicker.
    """
    for _ in range(DELETE_ATTEMPTS - 1):
        try:
            with transaction.atomic():
                return _delete(session.pk, actor)
        except (IntegrityError, OperationalError):
            # A pipeline reported something new in this very moment: what it made has to go as well.
            if transaction.get_connection().in_atomic_block:
                raise
    with transaction.atomic():
        return _delete(session.pk, actor)


def _delete(pk: int, actor) -> list[Loss]:
    # The session's row is not locked first: pipelines take their run's lock and then refer to the session, and
    # the other order here would let the two wait for each other.
    row = Session.objects.select_related(
        "microscope", "lab", "booking__owner", "operator", "sample", "data_server"
    ).get(pk=pk)
    gone = losses(row)
    AuditEntry.record(
        actor=actor,
        action="session deleted",
        target=row,
        details={
            "gone": {loss.what: loss.count for loss in gone},
            "booking": row.booking_id,
            "microscope": row.microscope.code,
            "lab": row.lab.name if row.lab else None,
            "owner": str(row.owner),
            "operator": str(row.operator) if row.operator else None,
            "sample": str(row.sample) if row.sample else None,
            "status": row.status,
            "start": row.start.isoformat(),
            "end": row.end.isoformat() if row.end else None,
            "files_stay": {
                "server": row.data_server.name if row.data_server else None,
                "path": row.data_path,
                "files": row.data_files,
                "movies": row.data_movies,
                "bytes": row.data_bytes,
            },
        },
    )
    try:
        for delete in _deleters:
            delete(row)
    except SessionSummary.DoesNotExist as error:
        raise Session.DoesNotExist(f"Session {row.name} was deleted meanwhile.") from error
    _, removed = row.delete()
    if not removed.get("sessions_app.Session"):
        raise Session.DoesNotExist(f"Session {row.name} was deleted meanwhile.")
    transaction.on_commit(partial(images.trash_images, pk))
    return gone
