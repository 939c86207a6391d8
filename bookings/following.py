"""Telling who follows a microscope that time on it has become free: the times alone, nothing of whose they were."""

from collections import defaultdict
from collections.abc import Iterable
from urllib.parse import urlencode

from django.conf import settings
from django.db import transaction
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils import timezone

from bookings.mail import span
from bookings.models import Booking, Follow
from bookings.notices import FreeTime, Notice
from microscopes.models import Microscope
from people import outbox, words
from people.models import Preferences, User


@transaction.atomic
def follows_set(*, user: User, microscopes: Iterable[Microscope]) -> None:
    """Follow these microscopes and no others."""
    wanted = {microscope.pk for microscope in microscopes}
    Follow.objects.filter(user=user).exclude(microscope__in=wanted).delete()
    Follow.objects.bulk_create(
        [Follow(user=user, microscope_id=pk) for pk in sorted(wanted)], ignore_conflicts=True
    )


def on_notice(notice: Notice) -> None:
    """A receiver of bookings.notices, called after the commit: what was booked again meanwhile is not free.

    Who did it, and who is named on the bookings and knows already, hears nothing more.
    """
    free = still_free(notice.freed())
    if not free:
        return
    named = {notice.actor.pk}
    for booking in (*notice.bookings, *notice.before.values()):
        named |= {booking.owner_id, booking.operator_id, booking.creator_id}
    times: dict[int, list[FreeTime]] = defaultdict(list)
    for time in free:
        times[time.microscope.pk].append(time)
    follows = (
        Follow.objects.filter(microscope__in=times)
        .exclude(user__in=named - {None})
        .select_related("user__preferences")
    )
    theirs: dict[User, list[FreeTime]] = defaultdict(list)
    for follow in follows.order_by("user", "microscope"):
        theirs[follow.user] += times[follow.microscope_id]
    with transaction.atomic():
        for person, found in theirs.items():
            _write(person, found)


def still_free(freed: Iterable[FreeTime]) -> list[FreeTime]:
    """What of it lies ahead, on a microscope that can be booked, and is taken by no other booking."""
    now = timezone.now()
    free = []
    for time in freed:
        if time.microscope.status != Microscope.Status.ACTIVE or time.end <= now:
            continue
        start = max(time.start, now.replace(second=0, microsecond=0))
        taken = Booking.objects.filter(microscope=time.microscope).blocking().overlapping(start, time.end)
        for busy_start, busy_end in taken.order_by("start").values_list("start", "end"):
            if start < busy_start:
                free.append(FreeTime(time.microscope, start, busy_start))
            start = max(start, busy_end)
        if start < time.end:
            free.append(FreeTime(time.microscope, start, time.end))
    return free


def _wishes(time: FreeTime) -> dict[str, str]:
    """What the form for a new booking proposes."""
    start, end = (f"{timezone.localtime(moment):%Y-%m-%dT%H:%M}" for moment in (time.start, time.end))
    return {"microscope": time.microscope.code, "start": start, "end": end}


def _write(person: User, free: list[FreeTime]) -> None:
    with words.times_as(Preferences.of(person).hour_cycle):
        _write_in_their_words(person, free)


def _write_in_their_words(person: User, free: list[FreeTime]) -> None:
    names = ", ".join(sorted({str(time.microscope) for time in free}))
    when = span(free[0].start, free[0].end) if len(free) == 1 else f"{len(free)} times"
    body = render_to_string(
        "bookings/mail/freed.txt",
        {
            "person": person,
            "names": names,
            "lines": [f"{time.microscope}: {span(time.start, time.end)}" for time in free],
            "book_url": outbox.absolute(f"{reverse('bookings:create')}?{urlencode(_wishes(free[0]))}"),
            "time_zone": settings.TIME_ZONE,
            "facility_name": settings.FACILITY_NAME,
            "choices_url": outbox.absolute(reverse("people:profile")),
        },
    )
    outbox.queue(to=person, subject=f"Free: {names}, {when}", body=body)
