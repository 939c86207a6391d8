"""What makes a booking possible: each rule has a name, and a message that says what to do.

A rule takes the booking as it would be, who asks, and the booking as it was (None for a new one), and raises
ValidationError with its message by field. Another rule is another function in RULES. Messages never tell whose
booking is in the way.
"""

import datetime
from collections.abc import Callable, Iterable

from django.core.exceptions import ValidationError
from django.db.models import Q
from django.utils import timezone

from bookings.models import Booking
from people.access import is_staff
from people.models import User
from people.querysets import user_lab_ids

UPKEEP = (Booking.Kind.DOWNTIME, Booking.Kind.MAINTENANCE)


def span(start: datetime.datetime, end: datetime.datetime) -> str:
    """A time in words, in the facility's zone: "Tue 24 Nov 09:00 to 18:00"; the year only where it is another."""
    start, end = timezone.localtime(start), timezone.localtime(end)
    year = f" {start:%Y}" if {start.year, end.year} != {timezone.localdate().year} else ""
    until = f"{end:%H:%M}" if end.date() == start.date() else f"{end:%a} {end.day} {end:%b} {end:%H:%M}"
    return f"{start:%a} {start.day} {start:%b}{year} {start:%H:%M} to {until}"


def _changed(booking: Booking, before: Booking | None, *fields: str) -> bool:
    return before is None or any(getattr(booking, name) != getattr(before, name) for name in fields)


def takes_more_time(booking: Booking, before: Booking | None) -> bool:
    """Whether it claims time that it did not have: correcting or shortening a booking is always possible."""
    return (
        _changed(booking, before, "microscope_id", "kind")
        or booking.start < before.start
        or booking.end > before.end
    )


def people_to_own(actor: User):
    """Queryset of those the actor may book for: anyone with an account for staff, otherwise their labs' people."""
    return User.objects.visible_to(actor).people().active()


def people_to_operate(actor: User):
    """Queryset of those the actor may name as operator: the same and the facility's staff."""
    labs = User.objects.visible_to(actor).order_by().values("pk")
    return User.objects.people().active().filter(Q(pk__in=labs) | Q(is_staff=True))


def ends_after_start(booking: Booking, actor: User, before: Booking | None) -> None:
    if booking.end <= booking.start:
        raise ValidationError({"end": "The end must be after the start. Choose a later end."})


def kind_is_open_to_actor(booking: Booking, actor: User, before: Booking | None) -> None:
    if booking.kind != Booking.Kind.BOOKING and _changed(booking, before, "kind") and not is_staff(actor):
        raise ValidationError({"kind": "Only the facility's staff can make this type of booking."})


def microscope_is_bookable(booking: Booking, actor: User, before: Booking | None) -> None:
    """Active; or in maintenance, for the staff's own downtime and maintenance. Never a retired one."""
    microscope = booking.microscope
    if microscope.status == microscope.Status.ACTIVE or not takes_more_time(booking, before):
        return
    if microscope.status == microscope.Status.RETIRED:
        raise ValidationError({"microscope": f"{microscope} is retired. Choose another microscope."})
    if not (booking.kind in UPKEEP and is_staff(actor)):
        note = f" ({microscope.status_note.strip().rstrip('.')})" if microscope.status_note.strip() else ""
        raise ValidationError(
            {
                "microscope": f"{microscope} is in maintenance{note}. Choose another microscope or ask the staff."
            }
        )


def owner_is_of_actors_labs(booking: Booking, actor: User, before: Booking | None) -> None:
    """People book for themselves and for the members of their labs; staff for anyone with an account."""
    if not _changed(booking, before, "owner_id"):
        return
    if not is_staff(actor) and not people_to_own(actor).filter(pk=booking.owner_id).exists():
        raise ValidationError({"owner": "Choose yourself or a member of one of your labs."})
    if booking.owner.is_service or not booking.owner.is_active:
        raise ValidationError({"owner": "This account cannot own bookings any more. Choose another owner."})


def operator_is_known_to_actor(booking: Booking, actor: User, before: Booking | None) -> None:
    """People name one of their labs or of the facility's staff, who run the microscope for many."""
    if booking.operator_id is None or not _changed(booking, before, "operator_id"):
        return
    if not is_staff(actor) and not people_to_operate(actor).filter(pk=booking.operator_id).exists():
        raise ValidationError({"operator": "Choose yourself, a member of one of your labs or the staff."})
    if booking.operator.is_service or not booking.operator.is_active:
        raise ValidationError({"operator": "This account cannot operate any more. Choose another operator."})


def lab_is_the_owners(booking: Booking, actor: User, before: Booking | None) -> None:
    """The lab sees the booking and its images, so a user can name only one that both they and the owner are in."""
    if booking.lab_id is None or is_staff(actor) or not _changed(booking, before, "owner_id", "lab_id"):
        return
    if booking.lab_id not in user_lab_ids(actor) or booking.lab_id not in user_lab_ids(booking.owner):
        raise ValidationError({"lab": "Choose one of the owner's labs that is yours too."})


def application_gives_access(booking: Booking, actor: User, before: Booking | None) -> None:
    application = booking.application
    if application is None or is_staff(actor) or not _changed(booking, before, "application_id"):
        return
    visible = type(application).objects.visible_to(actor).filter(pk=application.pk)
    if application.status != application.Status.ACTIVE or not visible.exists():
        raise ValidationError({"application": "Choose an active application of one of your labs."})


def sessions_keep_their_microscope(booking: Booking, actor: User, before: Booking | None) -> None:
    """A session's images were taken on the microscope of its booking, in time that was booked for it."""
    if before is None or not _changed(booking, before, "microscope_id", "kind"):
        return
    if booking.sessions.exists():
        if booking.microscope_id != before.microscope_id:
            raise ValidationError(
                {
                    "microscope": f"This booking has sessions on {before.microscope}. "
                    "Make another booking for another microscope."
                }
            )
        if not booking.takes_sessions:
            raise ValidationError({"kind": "This booking has sessions. Choose booking or special."})


def nothing_overlaps(booking: Booking, actor: User | None = None, before: Booking | None = None) -> None:
    """Asked first for a good message; what keeps it is the database (overlap.py)."""
    if booking.kind == Booking.Kind.SLOT or booking.is_cancelled:
        return
    clash = (
        Booking.objects.filter(microscope=booking.microscope_id)
        .blocking()
        .overlapping(booking.start, booking.end)
        .exclude(pk=booking.pk)
        .order_by("start")
        .first()
    )
    if clash is not None:
        raise overlap_error(booking, clash)


def overlap_error(booking: Booking, clash: Booking | None) -> ValidationError:
    """The message for an overlap; `clash` is None where the other booking is gone again by now."""
    if clash is None:
        return ValidationError(
            {"start": f"{booking.microscope} was booked by someone else at the same moment. Try again."}
        )
    taken = f"{booking.microscope} is already booked from {span(clash.start, clash.end)}."
    if booking.start < clash.start:
        return ValidationError({"end": f"{taken} Choose an earlier end."})
    return ValidationError({"start": f"{taken} Choose a later start."})


Rule = Callable[[Booking, User, Booking | None], None]
RULES: list[Rule] = [
    ends_after_start,
    kind_is_open_to_actor,
    microscope_is_bookable,
    owner_is_of_actors_labs,
    operator_is_known_to_actor,
    lab_is_the_owners,
    application_gives_access,
    sessions_keep_their_microscope,
    nothing_overlaps,
]


def check(booking: Booking, *, actor: User, before: Booking | None = None) -> None:
    """Raise one ValidationError with the messages of every broken rule, by field."""
    errors: dict[str, list[str]] = {}
    for rule in RULES:
        try:
            rule(booking, actor, before)
        except ValidationError as error:
            error.update_error_dict(errors)
    if errors:
        raise ValidationError(errors)


def collaborators_are_known_to_actor(new: Iterable[User], *, actor: User) -> None:
    """Checked beside RULES, since collaborators are no column of the booking; `new` are those who are added."""
    new = list(new)
    if not new:
        return
    known = set()
    if not is_staff(actor):
        known = set(
            User.objects.visible_to(actor)
            .filter(pk__in=[person.pk for person in new])
            .values_list("pk", flat=True)
        )
        if any(person.pk not in known for person in new):
            raise ValidationError(
                {"collaborators": "Choose members of your labs; staff can add anyone else."}
            )
    if any(person.is_service or not person.is_active for person in new):
        raise ValidationError({"collaborators": "One of these accounts is not in use any more. Remove it."})
