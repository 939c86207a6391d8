"""What an application has left on a microscope, and which applications admit a booking.

A booking costs the started 24-hour units of local wall time that it takes: 09:00 to 09:00 of the next day is one day,
a minute more is two. The clock on the wall counts, so that from midnight to midnight is one day also when summer time
makes it 23 or 25 hours long.
"""

import datetime
from dataclasses import dataclass

from django.utils import timezone

from bookings.models import Application, ApplicationQuota, Booking
from people.models import User
from people.querysets import user_lab_ids

DAY = datetime.timedelta(days=1)


def days_charged(
    start: datetime.datetime, end: datetime.datetime, zone: datetime.tzinfo | None = None
) -> int:
    """Days that [start, end) costs, 1 at least; aware datetimes, `zone` is the facility's where none is given."""
    zone = zone or timezone.get_default_timezone()
    first, last = (moment.astimezone(zone).replace(tzinfo=None) for moment in (start, end))
    # Where an hour comes twice the clock may read the same, or less, at the end.
    return max(1, -(-(last - first) // DAY))


@dataclass(frozen=True)
class Quota:
    """`days` of an application on a microscope (None: no limit), of which `used` are booked."""

    days: int | None
    used: int

    @property
    def left(self) -> int | None:
        return None if self.days is None else self.days - self.used


def quota(application: Application, microscope, *, apart_from: Booking | None = None) -> Quota:
    """As the bookings stand now, past ones included and cancelled ones not; `apart_from` one that is to change."""
    days = (
        ApplicationQuota.objects.filter(application=application, microscope=microscope)
        .values_list("days", flat=True)
        .first()
    )
    booked = Booking.objects.filter(
        application=application, microscope=microscope, kind=Booking.Kind.BOOKING
    ).standing()
    if apart_from is not None and apart_from.pk:
        booked = booked.exclude(pk=apart_from.pk)
    return Quota(days, sum(days_charged(*times) for times in booked.values_list("start", "end")))


def labs_of(booking: Booking) -> set[int]:
    """The lab that a booking is for; without one, those of its owner."""
    return {booking.lab_id} if booking.lab_id else set(user_lab_ids(booking.owner))


def gives_access(application: Application, booking: Booking) -> bool:
    """Active, and for the booking's lab."""
    return (
        application.status == Application.Status.ACTIVE
        and application.labs.filter(pk__in=labs_of(booking)).exists()
    )


def covers(application: Application, booking: Booking) -> bool:
    """Whether the booking lies in its period, both days included."""
    first = timezone.localdate(booking.start)
    last = timezone.localdate(booking.end - datetime.timedelta(microseconds=1))
    return (application.starts_on is None or application.starts_on <= first) and (
        application.ends_on is None or last <= application.ends_on
    )


def has_days_left(application: Application, booking: Booking) -> bool:
    left = quota(application, booking.microscope, apart_from=booking).left
    return left is None or days_charged(booking.start, booking.end) <= left


def admitting(booking: Booking, actor: User) -> list[Application]:
    """The applications that this booking could be charged to, by code; of those that the actor may know.

    Whoever books for a colleague neither reads of, nor spends, the days of a lab that is the colleague's alone.
    """
    candidates = (
        Application.objects.visible_to(actor)
        .filter(
            pk__in=Application.labs.through.objects.filter(lab__in=labs_of(booking)).values("application"),
            status=Application.Status.ACTIVE,
        )
        .order_by("code")
    )
    return [one for one in candidates if covers(one, booking) and has_days_left(one, booking)]
