"""Bookings that repeat: made whole or not at all, changed and cancelled one, from one on, or all.

A repeat keeps the clock on the wall: 09:00 stays 09:00 when summer time begins or ends. A time that the clock skips
(02:30 on the night when summer time begins) becomes the time as much later (03:30); of a time that comes twice the
first is meant.
"""

import datetime
from collections.abc import Callable
from dataclasses import dataclass

from dateutil.rrule import DAILY, WEEKLY, rrule
from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import Exists, OuterRef
from django.utils import timezone

from bookings import access, notices
from bookings.models import Booking, BookingSeries
from bookings.rules import span
from bookings.services import (
    Override,
    booking_cancel,
    booking_create,
    booking_update,
    lock_microscopes,
)
from microscopes.models import Microscope
from people.models import User

THIS, LATER, ALL = "this", "later", "all"
SCOPES = [(THIS, "This booking"), (LATER, "This and later ones"), (ALL, "All of the repeat")]
# All of them are one transaction, which other writers of SQLite wait for.
AT_MOST = 100
DATES_NAMED = 20


def localised(wall: datetime.datetime) -> datetime.datetime:
    """The moment at which the facility's clock shows this, in UTC."""
    return timezone.make_aware(wall, timezone.get_default_timezone()).astimezone(datetime.UTC)


def wall_clock(moment: datetime.datetime) -> datetime.datetime:
    """What the facility's clock shows at the moment, without a zone."""
    return moment.astimezone(timezone.get_default_timezone()).replace(tzinfo=None)


def _placed(start: datetime.datetime, end: datetime.datetime) -> tuple[datetime.datetime, datetime.datetime]:
    """Times of the clock as moments; what begins in the hour that is skipped keeps its length."""
    first, last = localised(start), localised(end)
    return first, last if last > first else first + (end - start)


@dataclass(frozen=True)
class Repeat:
    """Every so many days or weeks until a date, that included; on these weekdays (0 for Monday), none: the start's."""

    every: int
    unit: str
    until: datetime.date
    weekdays: tuple[int, ...] = ()

    def times(
        self, start: datetime.datetime, end: datetime.datetime
    ) -> list[tuple[datetime.datetime, datetime.datetime]]:
        """Start and end of each, in UTC, from the first that fits on; raises ValidationError for none or too many."""
        if self.every < 1 or self.every > 366:
            raise ValidationError({"repeat_every": "Write a number from 1 to 366."})
        first, last = wall_clock(start), wall_clock(end)
        if self.until <= first.date():
            raise ValidationError({"repeat_until": "Choose a day after the first booking."})
        dates = rrule(
            DAILY if self.unit == BookingSeries.Unit.DAYS else WEEKLY,
            interval=self.every,
            byweekday=sorted(set(self.weekdays)) or None,
            dtstart=first,
            until=datetime.datetime.combine(self.until, datetime.time.max),
            count=None,
        )
        found = []
        for date in dates:
            found.append(_placed(date, date + (last - first)))
            if len(found) > AT_MOST:
                raise ValidationError(
                    {"repeat_until": f"A repeat has at most {AT_MOST} bookings. Choose an earlier day."}
                )
        if len(found) < 2:
            raise ValidationError(
                {"repeat_until": "These days give no repeat. Choose a later day or other weekdays."}
            )
        return found


def _each(
    actions: list[tuple[tuple[datetime.datetime, datetime.datetime], Callable[[], Booking]]],
) -> list[Booking]:
    """Do all of them or none: what refuses is gathered by rule, with the dates; what holds for all is said as once."""
    done, refused = [], []
    with notices.gathered():
        for times, action in actions:
            try:
                with transaction.atomic():
                    done.append(action())
            except ValidationError as error:
                refused.append((times, error))
        if refused:
            raise _summed_up(refused, len(actions))
    return done


def _summed_up(refused, total: int) -> ValidationError:
    found: dict[tuple, list[tuple]] = {}
    for times, error in refused:
        fields = error.error_dict if hasattr(error, "error_dict") else {"__all__": error.error_list}
        for name, errors in fields.items():
            for one in errors:
                found.setdefault((name, one.code), []).append((times, " ".join(one.messages)))
    told: dict[str, list[ValidationError]] = {}
    for (name, code), cases in found.items():
        messages = {message for _, message in cases}
        if len(cases) == total and len(messages) == 1:
            told.setdefault(name, []).append(ValidationError(messages.pop(), code=code))
            continue
        dates = ", ".join(span(*times) for times, _ in cases[:DATES_NAMED])
        more = f" and {len(cases) - DATES_NAMED} more" if len(cases) > DATES_NAMED else ""
        message = f"Not possible on {len(cases)} of {total} dates ({dates}{more}). {cases[0][1]}"
        told.setdefault("__all__", []).append(ValidationError(message, code=code))
    return ValidationError(told)


@transaction.atomic
def series_create(
    *,
    actor: User,
    repeat: Repeat,
    microscope: Microscope,
    start: datetime.datetime,
    end: datetime.datetime,
    override: Override = (),
    **fields,
) -> list[Booking]:
    """Book each time of the repeat (the fields are booking_create's), whole or not at all.

    Raises ValidationError that names the dates that cannot be.
    """
    if start >= end:
        raise ValidationError({"end": "The end must be after the start. Choose a later end."})
    times = repeat.times(start, end)
    lock_microscopes(microscope)
    series = BookingSeries.objects.create(
        every=repeat.every,
        unit=repeat.unit,
        weekdays=sorted(set(repeat.weekdays)),
        until=repeat.until,
        creator=actor,
    )

    def booked(first, last):
        return booking_create(
            actor=actor,
            microscope=microscope,
            start=first,
            end=last,
            series=series,
            override=override,
            **fields,
        )

    return _each([((first, last), lambda f=first, t=last: booked(f, t)) for first, last in times])


def touched(booking: Booking, scope: str, actor: User) -> list[Booking]:
    """Those that a change or cancellation of this scope reaches, by start: not begun, without sessions, not cancelled.

    This one alone is reached in any state: what is possible then is the services' to say.
    """
    if scope == THIS or booking.series_id is None:
        return [booking]
    sessions = Booking.sessions.rel.related_model.objects.filter(booking=OuterRef("pk"))
    reached = (
        Booking.objects.filter(series=booking.series_id, start__gt=timezone.now())
        .standing()
        .exclude(Exists(sessions))
        .select_related("microscope")
        .order_by("start", "pk")
    )
    if scope == LATER:
        reached = reached.filter(start__gte=booking.start)
    reached = [one for one in reached if access.can_change(actor, one)]
    if not reached:
        raise ValidationError(
            "None of these bookings can be changed any more: they have begun, or images were taken."
        )
    return reached


def reach(booking: Booking, actor: User) -> dict[str, int]:
    """How many bookings a change of later ones and of all would touch, for the form to say."""
    try:
        every = touched(booking, ALL, actor)
    except ValidationError:
        return {LATER: 0, ALL: 0}
    return {LATER: sum(one.start >= booking.start for one in every), ALL: len(every)}


@transaction.atomic
def series_update(
    *, booking: Booking, actor: User, scope: str, override: Override = (), **changes
) -> list[Booking]:
    """Change what is named on this booking, this and later ones, or all; times move by as much on the clock.

    Whole or not at all. Raises ValidationError that names the dates that cannot be.
    """
    microscopes = {one.microscope_id: one.microscope for one in touched(booking, scope, actor)}
    if changes.get("microscope"):
        microscopes[changes["microscope"].pk] = changes["microscope"]
    lock_microscopes(*microscopes.values())
    row = Booking.objects.get(pk=booking.pk)
    shifts = {
        name: wall_clock(changes.pop(name)) - wall_clock(getattr(row, name))
        for name in ("start", "end")
        if changes.get(name)
    }
    none = datetime.timedelta()
    moves = [shifts.get(name, none) for name in ("start", "end")]
    reached = touched(row, scope, actor)
    # Each gives way before the next takes its time.
    if min(moves) >= none and max(moves) > none:
        reached.reverse()

    def changed(one):
        wished = dict(changes)
        if any(moves):
            start, end = (wall_clock(moment) for moment in (one.start, one.end))
            wished["start"], wished["end"] = _placed(start + moves[0], end + moves[1])
        return booking_update(booking=one, actor=actor, override=override, **wished)

    done = _each([((one.start, one.end), lambda one=one: changed(one)) for one in reached])
    return sorted(done, key=lambda one: one.start)


@transaction.atomic
def series_cancel(
    *, booking: Booking, actor: User, scope: str, reason: str = "", override: Override = ()
) -> list[Booking]:
    """Cancel this booking, this and later ones, or all that have not begun; whole or not at all."""
    lock_microscopes(*{one.microscope for one in touched(booking, scope, actor)})
    return _each(
        [
            (
                (one.start, one.end),
                lambda one=one: booking_cancel(booking=one, actor=actor, reason=reason, override=override),
            )
            for one in touched(booking, scope, actor)
        ]
    )
