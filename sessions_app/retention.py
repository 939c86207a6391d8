"""How long a facility keeps a session's images, and what people are told about it."""

import datetime
from dataclasses import dataclass

from django.utils import timezone

WARN_DAYS = 14
URGENT_DAYS = 3


def deletion_date(session) -> datetime.date:
    """The facility's local date on which the images go: last file (or end) plus the microscope's retention."""
    last = session.last_file_at or session.end or session.start
    return timezone.localtime(last).date() + datetime.timedelta(
        days=session.microscope.effective_retention_days
    )


@dataclass(frozen=True)
class Retention:
    """`level` is quiet, warning, urgent, due, deleted or open (no date yet); `days` left may be negative."""

    level: str
    days: int | None
    date: datetime.date | None
    text: str


def retention(session, today: datetime.date | None = None) -> Retention:
    """What to say about the images' remaining time."""
    if session.data_deleted_at is not None:
        day = timezone.localtime(session.data_deleted_at).date()
        return Retention(
            "deleted", None, day, f"The images were deleted from the facility's servers on {_on(day)}."
        )
    if session.delete_on is None:
        days = session.microscope.effective_retention_days
        return Retention("open", None, None, f"Images are kept for {days} days after the last file.")
    left = (session.delete_on - (today or timezone.localdate())).days
    if left < 0:
        text = f"The images are past their date, {_on(session.delete_on)}, and may be gone at any time."
        return Retention("due", left, session.delete_on, text)
    if left == 0:
        text = "The images are deleted from the facility's servers today."
    else:
        days = f"{left} day{'' if left == 1 else 's'}"
        where = f"from the facility's servers on {_on(session.delete_on)}"
        text = f"{days} left before the images are deleted {where}."
    level = "urgent" if left <= URGENT_DAYS else "warning" if left <= WARN_DAYS else "quiet"
    return Retention(level, left, session.delete_on, text)


def _on(day: datetime.date) -> str:
    return f"{day.day} {day:%b %Y}"
