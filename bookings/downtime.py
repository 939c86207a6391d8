"""Downtime and maintenance over bookings: a microscope breaks, and what was booked then has to give way.

A booking that begins before keeps its time until then; one that lasts longer begins when the microscope is back; the
others are cancelled. What has images stays: they were taken.
"""

import datetime
from collections.abc import Callable, Collection
from dataclasses import dataclass

from django.core.exceptions import ValidationError
from django.db import transaction

from bookings import notices
from bookings.models import Booking
from bookings.rules import UPKEEP, span
from bookings.services import booking_cancel, booking_update, lock_microscopes
from microscopes.models import Microscope
from people import words
from people.models import User

# The code of the refusal that names bookings which the caller was not shown.
UNCONFIRMED = "displaces_unconfirmed"


@dataclass(frozen=True)
class Hit:
    """A booking in the way, and the time that remains of it; None for none."""

    booking: Booking
    remains: tuple[datetime.datetime, datetime.datetime] | None

    @property
    def when(self) -> str:
        return span(self.booking.start, self.booking.end)

    @property
    def action(self) -> str:
        """What happens to it, in words."""
        if self.remains is None:
            return "is cancelled"
        start, end = self.remains
        if start == self.booking.start:
            return f"is shortened: {span(start, end)}"
        return f"begins later: {span(start, end)}"


def hits(
    microscope: Microscope,
    start: datetime.datetime,
    end: datetime.datetime,
    *,
    apart_from: Booking | None = None,
) -> list[Hit]:
    """The bookings that time out of service for [start, end) would hit, by start; other upkeep is none of them."""
    if start >= end:  # No time at all: the rules say so.
        return []
    found = Booking.objects.filter(microscope=microscope).blocking().overlapping(start, end)
    if apart_from is not None and apart_from.pk:
        found = found.exclude(pk=apart_from.pk)
    told = []
    for booking in found.exclude(kind__in=UPKEEP).select_related("microscope", "owner").order_by("start"):
        remains = None
        if booking.start < start:
            remains = booking.start, start
        elif booking.end > end:
            remains = end, booking.end
        told.append(Hit(booking, remains))
    return told


def proposed_reason(
    microscope: Microscope, kind: str, start: datetime.datetime, end: datetime.datetime
) -> str:
    """What their people are told where staff write nothing: no more than everyone may know."""
    with words.times_as(words.H23):  # It is kept, and read by many.
        return f"{microscope} has {kind} from {span(start, end)}."[:300]


@transaction.atomic
def clear_for_upkeep(
    *,
    actor: User,
    kind: str,
    microscope: Microscope,
    start: datetime.datetime,
    end: datetime.datetime,
    confirmed: Collection[int],
    reason: str,
    then: Callable[[], Booking],
    apart_from: Booking | None = None,
) -> Booking:
    """Cancel or shorten what is in the way of downtime or maintenance, then make or move that: all of it or nothing.

    `confirmed` are the ids of the bookings that the caller was shown; one that came since is refused, so that nobody
    loses time that nobody looked at. `then` makes or moves the upkeep; its rules are asked as ever, so that only staff
    come this far. Raises ValidationError.
    """
    if kind not in UPKEEP:
        raise ValidationError({"kind": "Only downtime and maintenance take the time of bookings."})
    lock_microscopes(microscope)
    found = hits(microscope, start, end, apart_from=apart_from)
    new = [hit for hit in found if hit.booking.pk not in confirmed]
    if new:
        times = "; ".join(span(hit.booking.start, hit.booking.end) for hit in new)
        raise ValidationError(
            f"There are bookings then that you have not confirmed yet: {times}.", code=UNCONFIRMED
        )
    with notices.gathered():
        for hit in found:
            _give_way(hit, actor=actor, reason=reason)
        return then()


def _give_way(hit: Hit, *, actor: User, reason: str) -> None:
    booking = hit.booking
    if hit.remains is None or hit.remains[0] != booking.start:
        names = ", ".join(booking.sessions.order_by("start").values_list("name", flat=True))
        if names:
            raise ValidationError(
                f"Images were taken during {span(booking.start, booking.end)} ({names}). "
                "Let the downtime begin after them."
            )
    if hit.remains is None:
        booking_cancel(booking=booking, actor=actor, reason=reason, override=True)
    else:
        start, end = hit.remains
        booking_update(booking=booking, actor=actor, start=start, end=end, override=True)
