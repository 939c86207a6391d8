"""Who is told of a booking by e-mail, and in which words.

Told are its owner, operator, creator and collaborators (and who was it before a change), each as they have chosen
(people.Preferences). Whoever did it gets a confirmation where the time is theirs, so that the file for their calendar
comes too, and goes again. The mails are written in the booking's own transaction and leave after it
(people/outbox.py). Nothing is told of time that is over.
"""

import datetime
from collections import defaultdict
from collections.abc import Iterable

from django.conf import settings
from django.db import transaction
from django.db.models import Q, prefetch_related_objects
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils import timezone

from bookings import ical
from bookings.models import Booking, BookingReminder
from bookings.notices import CANCELLED, CHANGED, CREATED, Notice
from people import outbox, words
from people.models import Preferences, User

DAY_BEFORE = datetime.timedelta(days=1)
PREFERENCE = {CREATED: "mail_created", CHANGED: "mail_changed", CANCELLED: "mail_cancelled"}
VERB = {CREATED: "Booked", CHANGED: "Changed", CANCELLED: "Cancelled"}
# What people have microscope time for; the rest is the facility's own.
PEOPLES = (Booking.Kind.BOOKING, Booking.Kind.SPECIAL)
# What of a booking is worth a mail, as the mail calls it; start and end are told as one.
TOLD = {
    "microscope": "Microscope",
    "kind": "Type",
    "title": "Title",
    "owner": "Owner",
    "operator": "Operator",
    "lab": "Lab",
    "application": "Application",
    "description": "Description",
}
# What a confidential application keeps on the site.
NOT_TOLD = ("title", "description")


# -- What happened ---------------------------------------------------------------------------------------------
def on_notice(notice: Notice) -> None:
    """A receiver of bookings.notices: writes one mail to each person, whatever the number of their bookings."""
    now = timezone.now()
    prefetch_related_objects(notice.bookings, "collaborators")
    theirs: dict[int, list[Booking]] = defaultdict(list)
    for booking in notice.bookings:
        before = notice.before.get(booking.pk)
        if max(booking.end, before.end if before else booking.end) <= now:
            continue
        if notice.what == CHANGED and not changes(booking, before):
            continue
        for pk in _named(booking) | (_named(before) if before else set()):
            theirs[pk].append(booking)
    own = [booking for booking in theirs.pop(notice.actor.pk, []) if _is_own_time(notice, booking)]
    for person in _reached(theirs, PREFERENCE[notice.what]):
        _tell(notice, person, theirs[person.pk])
    if own:
        for person in _reached([notice.actor.pk], "mail_own"):
            _tell(notice, person, own)


def _is_own_time(notice: Notice, booking: Booking) -> bool:
    """Whether who did it is in the microscope room then, rather than keeps the facility's calendar."""
    if booking.kind not in PEOPLES:
        return False
    known = [booking, notice.before[booking.pk]] if booking.pk in notice.before else [booking]
    return any(notice.actor.pk in _present(one) for one in known)


def _tell(notice: Notice, person: User, bookings: list[Booking]) -> None:
    bookings = sorted(bookings, key=lambda booking: (booking.start, booking.pk))
    if notice.what == CHANGED:
        # Who is named no longer takes the time out of the calendar; the others put it in.
        told = _present if person.pk == notice.actor.pk else _named
        kept = [booking for booking in bookings if person.pk in told(booking)]
        lost = [booking for booking in bookings if person.pk not in told(booking)]
        for part, is_lost in ((kept, False), (lost, True)):
            if part:
                _write(notice, person, part, is_lost=is_lost)
    else:
        _write(notice, person, bookings)


def changes(booking: Booking, before: Booking | None) -> list[tuple[str, str, str]]:
    """What is different, as (label, before, after) in words; empty for what no mail tells."""
    if before is None:
        return []
    found = []
    if (booking.start, booking.end) != (before.start, before.end):
        found.append(("When", when(before), when(booking)))
    for name, label in TOLD.items():
        column = Booking._meta.get_field(name).attname
        if getattr(booking, column) != getattr(before, column):
            if name == "description" or (
                name in NOT_TOLD and (booking.is_confidential or before.is_confidential)
            ):
                found.append((label, "", "is another now"))
            else:
                found.append((label, _value(before, name), _value(booking, name)))
    were, are = ({str(person) for person in one.collaborators.all()} for one in (before, booking))
    if were != are:
        found.append(("Collaborators", ", ".join(sorted(were)) or "none", ", ".join(sorted(are))))
    return found


def _write(notice: Notice, person: User, bookings: list[Booking], *, is_lost: bool = False) -> None:
    with words.times_as(Preferences.of(person).hour_cycle):
        _write_in_their_words(notice, person, bookings, is_lost)


def _write_in_their_words(notice: Notice, person: User, bookings: list[Booking], is_lost: bool) -> None:
    lead = _lead(notice, person, bookings, is_lost)
    verb = VERB[notice.what]
    if is_lost:
        # They hear that it is gone and read what they knew; how it goes on is not theirs to know.
        verb, bookings = "No longer yours", [notice.before[booking.pk] for booking in bookings]
    first = bookings[0]
    one = len(bookings) == 1
    where = f"{first.microscope}, " if len({booking.microscope_id for booking in bookings}) == 1 else ""
    what = f"{where}{when(first) if one else f'{len(bookings)} bookings from {when(first)}'}"
    told = [
        {
            "facts": facts(booking),
            "line": f"{when(booking)}: {ical.summary(booking)}",
            "changes": [] if is_lost else changes(booking, notice.before.get(booking.pk)),
            "url": "" if is_lost else _page(booking),
        }
        for booking in bookings
    ]
    _queue(
        person,
        subject=f"{verb}: {what}",
        lead=lead,
        told=told,
        reason=notice.reason if notice.what == CANCELLED else "",
        calendar=ical.mailed(bookings, to=person, cancelled=is_lost or notice.what == CANCELLED),
        takes_out=is_lost or notice.what == CANCELLED,
    )


def _lead(notice: Notice, person: User, bookings: list[Booking], is_lost: bool) -> str:
    """The first sentence: who did what."""
    actor, first, count = notice.actor, bookings[0], len(bookings)
    who = "You have" if person.pk == actor.pk else f"{actor} has"
    own = all(booking.owner_id == person.pk for booking in bookings)
    if notice.what == CREATED:
        role = "operator" if first.operator_id == person.pk else "collaborator"
        # "for" says something only where somebody books for somebody else.
        whom = "" if first.owner_id == actor.pk else f" for {'you' if own else first.owner}"
        named = "" if own else f", with {'yourself' if person.pk == actor.pk else 'you'} as {role}"
        times = f", {count} times" if count > 1 else ""
        return f"{who} booked {first.microscope}{whom}{named}{times}:"
    which = ("a booking" if count == 1 else f"{count} bookings") + (
        " of yours" if own else f" of {first.owner}"
    )
    if notice.what == CANCELLED:
        return f"{who} cancelled {which}:"
    before = notice.before[first.pk]
    if is_lost:
        to = (
            f" to {first.owner}" if first.owner_id != before.owner_id and person.pk == before.owner_id else ""
        )
        which = "a booking" if count == 1 else f"{count} bookings"
        if to:
            return f"{who} handed {which} of yours{to}:"
        return f"{who} changed {which} that you were named on; you are not any more:"
    if own and before.owner_id != person.pk:
        return f"{who} handed {'a booking' if count == 1 else f'{count} bookings'} to you:"
    if person.pk not in _named(before):
        return f"{who} named you on {which}:"
    return f"{who} changed {which}:"


# -- The day before --------------------------------------------------------------------------------------------
def send_reminders() -> int:
    """Remind owners, operators and collaborators of what begins within a day; answers for how many bookings.

    Once for each booking and start, whoever calls it and how often. Who booked less than a day ahead needs none.
    """
    now = timezone.now()
    soon = (
        Booking.objects.standing()
        .filter(start__gt=now, start__lte=now + DAY_BEFORE)
        .filter(kind__in=PEOPLES)
        .order_by("start", "pk")
        .values_list("pk", flat=True)
    )
    return sum(_remind(pk, now) for pk in list(soon))


@transaction.atomic
def _remind(pk: int, now: datetime.datetime) -> bool:
    # Read under the booking's lock: nobody is reminded of a time that is changed or cancelled in this moment.
    booking = Booking.objects.select_for_update(no_key=True, of=("self",)).get(pk=pk)
    if booking.is_cancelled or not now < booking.start <= now + DAY_BEFORE:
        return False
    if booking.start - booking.created_at < DAY_BEFORE:
        return False
    _, is_new = BookingReminder.objects.get_or_create(booking=booking, start=booking.start)
    if not is_new:
        return False
    coming = {booking.owner_id, booking.operator_id, *_collaborators(booking)}
    for person in _reached(coming, "mail_day_before"):
        with words.times_as(Preferences.of(person).hour_cycle):
            _queue(
                person,
                subject=f"Reminder: {booking.microscope}, {when(booking)}",
                lead=_reminding(booking, person),
                told=[{"facts": facts(booking), "changes": [], "url": _page(booking)}],
                reason="",
                calendar=ical.mailed([booking], to=person),
            )
    return True


def _reminding(booking: Booking, person: User) -> str:
    if person.pk == booking.owner_id:
        return f"Your time on {booking.microscope} begins within a day:"
    if person.pk == booking.operator_id:
        return f"You operate {booking.microscope} for {booking.owner} within a day:"
    return f"The time of {booking.owner} on {booking.microscope}, that you are named on, begins within a day:"


# -- Words -----------------------------------------------------------------------------------------------------
def span(start: datetime.datetime, end: datetime.datetime) -> str:
    """The time in the facility's zone, always with its year: a mail is read at any time."""
    return words.span(start, end, today=datetime.date.min).replace(words.NBSP, " ")


def when(booking: Booking) -> str:
    return span(booking.start, booking.end)


def facts(booking: Booking) -> list[tuple[str, str]]:
    """What a mail says of a booking, as (label, value); what is not known is left out."""
    rows = [
        ("When", f"{when(booking)} ({words.duration(booking.end - booking.start).replace(words.NBSP, ' ')})"),
        *((label, _value(booking, name)) for name, label in TOLD.items() if name != "description"),
    ]
    return [(label, value) for label, value in rows if value]


def _value(booking: Booking, name: str) -> str:
    if name == "kind":
        return booking.get_kind_display()
    if booking.is_confidential and name == "application":
        return booking.application.code
    if booking.is_confidential and name in NOT_TOLD:
        return ""
    value = getattr(booking, name)
    return "" if value is None else str(value)


def _page(booking: Booking) -> str:
    return outbox.absolute(reverse("bookings:detail", args=[booking.pk]))


# -- Whom ------------------------------------------------------------------------------------------------------
def _present(booking: Booking) -> set[int]:
    """Those in whose calendars it belongs."""
    return {booking.owner_id, booking.operator_id, *_collaborators(booking)} - {None}


def _named(booking: Booking) -> set[int]:
    return _present(booking) | {booking.creator_id}


def _collaborators(booking: Booking) -> set[int]:
    return {person.pk for person in booking.collaborators.all()}


def _reached(ids: Iterable[int | None], preference: str) -> Iterable[User]:
    """Those of the people whom a mail of this kind reaches and who want it."""
    switched_off = Q(**{f"preferences__{preference}": False})
    return (
        User.objects.people()
        .active()
        .filter(pk__in=set(ids) - {None})
        .exclude(email="")
        .exclude(switched_off)
        .select_related("preferences")
        .order_by("pk")
    )


def _queue(person: User, *, subject: str, lead: str, calendar: str = "", **context) -> None:
    body = render_to_string(
        "bookings/mail/booking.txt",
        context
        | {
            "person": person,
            "lead": lead,
            "time_zone": settings.TIME_ZONE,
            "facility_name": settings.FACILITY_NAME,
            "choices_url": outbox.absolute(reverse("people:profile")),
        },
    )
    outbox.queue(to=person, subject=subject, body=body, calendar=calendar)
