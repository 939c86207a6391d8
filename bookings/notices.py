"""What happened to bookings, told once it is committed: whoever sends mails or follows microscopes registers here.

One notice per action, however many bookings it touched: a series of thirty is one notice. It is never told when the
transaction is undone, and a receiver that fails is logged and stops neither the others nor the booking.
"""

import datetime
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial

from django.db import transaction

from bookings.models import Booking
from microscopes.models import Microscope
from people.models import User

CREATED, CHANGED, CANCELLED = "created", "changed", "cancelled"


@dataclass(frozen=True)
class FreeTime:
    """Time that was taken and is free now, the half-open [start, end) in aware datetimes."""

    microscope: Microscope
    start: datetime.datetime
    end: datetime.datetime


@dataclass(frozen=True)
class Notice:
    """`before` has the changed bookings as they were, by id; `reason` is what was written on cancelling."""

    what: str
    actor: User
    bookings: list[Booking]
    before: dict[int, Booking] = field(default_factory=dict)
    reason: str = ""

    def freed(self) -> list[FreeTime]:
        """The time that others can book now. Slots take none, so they free none."""
        free = []
        for booking in self.bookings:
            was = booking if self.what == CANCELLED else self.before.get(booking.pk)
            if was is None or was.kind == Booking.Kind.SLOT:
                continue
            keeps = (
                self.what != CANCELLED
                and booking.microscope_id == was.microscope_id
                and booking.kind != Booking.Kind.SLOT
                and booking.start < was.end
                and was.start < booking.end
            )
            spans = [(was.start, booking.start), (booking.end, was.end)] if keeps else [(was.start, was.end)]
            free += [FreeTime(was.microscope, start, end) for start, end in spans if start < end]
        return free


Receiver = Callable[[Notice], None]
_receivers: list[Receiver] = []


def register(receiver: Receiver) -> None:
    """For an app's `ready()`: `receiver(notice)` is called after the commit, outside of any transaction."""
    if receiver not in _receivers:
        _receivers.append(receiver)


def tell(
    what: str,
    *,
    actor: User,
    bookings: Iterable[Booking],
    before: dict[int, Booking] | None = None,
    reason: str = "",
) -> None:
    """Called by the services in their transaction."""
    bookings = list(bookings)
    if bookings:
        notice = Notice(what, actor, bookings, before or {}, reason)
        for receiver in _receivers:
            transaction.on_commit(partial(receiver, notice), robust=True)
