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
        return Retention("deleted", None, day, "The images were deleted from the facility's servers.")
    if session.delete_on is None:
        days = session.microscope.effective_retention_days
        return Retention("open", None, None, f"Images are kept for {days} days after the last file.")
    left = (session.delete_on - (today or timezone.localdate())).days
    if left < 0:
        return Retention(
            "due", left, session.delete_on, "The images are past their date and may be gone at any time."
        )
    if left == 0:
        text = "The images are deleted from the facility's servers today."
    else:
        text = f"{left} day{'' if left == 1 else 's'} left before the images are deleted from the facility's servers."
    level = "urgent" if left <= URGENT_DAYS else "warning" if left <= WARN_DAYS else "quiet"
    return Retention(level, left, session.delete_on, text)
