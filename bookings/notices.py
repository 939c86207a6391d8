"""What happened to bookings, told once it is committed (or, to who asks for it, within the transaction): whoever
sends mails or follows microscopes registers here.

One notice per action, however many bookings it touched: a series of thirty is one notice. It is never told when the
transaction is undone, and a receiver that fails is logged and stops neither the others nor the booking.
"""

import datetime
import logging
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial

from django.db import transaction

from bookings.models import Booking
from microscopes.models import Microscope
from people.models import User

logger = logging.getLogger(__name__)

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
_writers: list[Receiver] = []


def register(receiver: Receiver, *, in_transaction: bool = False) -> None:
    """For an app's `ready()`: `receiver(notice)` is called after the commit, outside of any transaction.

    With `in_transaction` it is called at once, so that what it writes is kept and undone with the booking; only
    for what writes a little and talks to nobody.
    """
    receivers = _writers if in_transaction else _receivers
    if receiver not in receivers:
        receivers.append(receiver)


_gathering: ContextVar[list[Notice] | None] = ContextVar("gathering", default=None)


@contextmanager
def gathered():
    """Within, notices of one kind become one, told at the end; none is when an error leaves the block."""
    if _gathering.get() is not None:
        yield
        return
    told: list[Notice] = []
    token = _gathering.set(told)
    try:
        yield
    finally:
        _gathering.reset(token)
    kinds: dict[tuple, list[Notice]] = {}
    for notice in told:
        kinds.setdefault((notice.what, notice.actor.pk, notice.reason), []).append(notice)
    for same in kinds.values():
        tell(
            same[0].what,
            actor=same[0].actor,
            bookings=[booking for notice in same for booking in notice.bookings],
            before={pk: was for notice in same for pk, was in notice.before.items()},
            reason=same[0].reason,
        )


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
        gathering = _gathering.get()
        if gathering is not None:
            gathering.append(notice)
            return
        for writer in _writers:
            try:
                with transaction.atomic():
                    writer(notice)
            except Exception:  # What it would have written is lost; the booking is not.
                logger.exception("A notice of bookings (%s) could not be written down", what)
        for receiver in _receivers:
            transaction.on_commit(partial(receiver, notice), robust=True)
