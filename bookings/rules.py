"""What makes a booking possible: each rule has a name, and a message that says what to do.

A rule is a function; its name is the rule's name, which the ValidationError it raises carries as its code. Another
rule is another function in RULES. Messages never tell whose booking is in the way. What depends on the microscope
(lengths, notice, how far ahead, bookings to come) is a column of it, and binds what people book for themselves
(`kind` booking): downtime, maintenance, slots and special time are the staff's own.
"""

import datetime
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from functools import cached_property

from django.core.exceptions import ValidationError
from django.db.models import Q
from django.utils import timezone

from bookings import quotas
from bookings.models import UPKEEP, Booking
from people import words
from people.access import is_staff
from people.models import User
from people.querysets import user_lab_ids

HOUR = datetime.timedelta(hours=1)
# Whoever books a free microscope on the spot needs a moment to fill in the form.
ON_THE_SPOT = datetime.timedelta(minutes=5)


def span(start: datetime.datetime, end: datetime.datetime) -> str:
    """A time in words, in the facility's zone: "Tue 24 Nov 09:00 to 18:00"; the year only where it is another."""
    start, end = timezone.localtime(start), timezone.localtime(end)
    year = f" {start:%Y}" if {start.year, end.year} != {timezone.localdate().year} else ""
    until = words.clock(end)
    if end.date() != start.date():
        until = f"{end:%a} {end.day} {end:%b} {until}"
    return f"{start:%a} {start.day} {start:%b}{year} {words.clock(start)} to {until}"


@dataclass(frozen=True)
class Wish:
    """What is asked for: the booking as it would be and as it was (None for a new one), by whom and when."""

    booking: Booking
    actor: User
    before: Booking | None = None
    now: datetime.datetime = None

    def __post_init__(self):
        if self.now is None:
            object.__setattr__(self, "now", timezone.now())

    def changes(self, *fields: str) -> bool:
        """Whether one of these is new; all of them are for a new booking."""
        return self.before is None or any(
            getattr(self.booking, name) != getattr(self.before, name) for name in fields
        )

    @property
    def takes_more_time(self) -> bool:
        """Whether it claims time that it did not have: correcting or shortening a booking is always possible."""
        return (
            self.changes("microscope_id", "kind")
            or self.booking.start < self.before.start
            or self.booking.end > self.before.end
        )

    @property
    def is_limited(self) -> bool:
        """Whether the microscope's limits bind it."""
        return self.booking.kind == Booking.Kind.BOOKING


def people_to_own(actor: User):
    """Queryset of those the actor may book for: anyone with an account for staff, otherwise their labs' people."""
    return User.objects.visible_to(actor).people().active()


def people_to_operate(actor: User):
    """Queryset of those the actor may name as operator: the same and the facility's staff."""
    labs = User.objects.visible_to(actor).order_by().values("pk")
    return User.objects.people().active().filter(Q(pk__in=labs) | Q(is_staff=True))


def ends_after_start(wish: Wish) -> None:
    booking = wish.booking
    if booking.end <= booking.start:
        raise ValidationError({"end": "The end must be after the start. Choose a later end."})


def kind_is_open_to_actor(wish: Wish) -> None:
    booking = wish.booking
    if booking.kind != Booking.Kind.BOOKING and wish.changes("kind") and not is_staff(wish.actor):
        raise ValidationError({"kind": "Only the facility's staff can make this type of booking."})


def microscope_is_bookable(wish: Wish) -> None:
    """Active; or in maintenance, for the staff's own downtime and maintenance."""
    booking = wish.booking
    microscope = booking.microscope
    if microscope.status == microscope.Status.ACTIVE or not wish.takes_more_time:
        return
    if microscope.status == microscope.Status.RETIRED:
        raise ValidationError({"microscope": f"{microscope} is retired. Choose another microscope."})
    if not (booking.kind in UPKEEP and is_staff(wish.actor)):
        note = f" ({microscope.status_note.strip().rstrip('.')})" if microscope.status_note.strip() else ""
        raise ValidationError(
            {
                "microscope": f"{microscope} is in maintenance{note}. Choose another microscope or ask the staff."
            }
        )


def owner_is_of_actors_labs(wish: Wish) -> None:
    """People book for themselves and for the members of their labs; staff for anyone with an account."""
    booking = wish.booking
    if not wish.changes("owner_id"):
        return
    if not is_staff(wish.actor) and not people_to_own(wish.actor).filter(pk=booking.owner_id).exists():
        raise ValidationError({"owner": "Choose yourself or a member of one of your labs."})
    if booking.owner.is_service or not booking.owner.is_active:
        raise ValidationError({"owner": "This account cannot own bookings any more. Choose another owner."})


def operator_is_known_to_actor(wish: Wish) -> None:
    """People name one of their labs or of the facility's staff, who run the microscope for many."""
    booking = wish.booking
    if booking.operator_id is None or not wish.changes("operator_id"):
        return
    if not is_staff(wish.actor) and not people_to_operate(wish.actor).filter(pk=booking.operator_id).exists():
        raise ValidationError({"operator": "Choose yourself, a member of one of your labs or the staff."})
    if booking.operator.is_service or not booking.operator.is_active:
        raise ValidationError({"operator": "This account cannot operate any more. Choose another operator."})


def lab_is_the_owners(wish: Wish) -> None:
    """The lab sees the booking and its images, so a user can name only one that both they and the owner are in."""
    booking = wish.booking
    if booking.lab_id is None or is_staff(wish.actor) or not wish.changes("owner_id", "lab_id"):
        return
    if booking.lab_id not in user_lab_ids(wish.actor) or booking.lab_id not in user_lab_ids(booking.owner):
        raise ValidationError({"lab": "Choose one of the owner's labs that is yours too."})


def lab_is_active(wish: Wish) -> None:
    booking = wish.booking
    if booking.lab_id is None or not wish.changes("lab_id") or booking.lab.is_active:
        return
    raise ValidationError({"lab": f"{booking.lab} is not active any more. Choose another lab."})


def application_gives_access(wish: Wish) -> None:
    """Active, and for the booking's lab. Users are told the same of one that they may not know of."""
    booking, application = wish.booking, wish.booking.application
    if application is None or not wish.changes("application_id", "lab_id", "owner_id"):
        return
    if quotas.gives_access(application, booking):
        return
    whose = booking.lab or booking.owner
    if is_staff(wish.actor):
        message = (
            f"{application.code} is not active or does not give {whose} access. Choose another application."
        )
    else:
        message = "Choose an active application of one of your labs."
    raise ValidationError({"application": message})


def application_is_named(wish: Wish) -> None:
    """Where the microscope asks for one, and several or none could be chosen for the person."""
    booking = wish.booking
    if not booking.microscope.requires_application or not wish.is_limited or booking.application_id:
        return
    if not wish.changes("microscope_id", "kind", "application_id"):
        return
    could = quotas.admitting(booking, wish.actor) if booking.start < booking.end else []
    if could:
        advice = f"Choose one of {', '.join(one.code for one in could)}."
    else:
        advice = (
            f"None gives {booking.lab or booking.owner} access then with days left; ask the facility's staff."
        )
    raise ValidationError({"application": f"{booking.microscope} is booked with an application. {advice}"})


def application_covers_the_time(wish: Wish) -> None:
    booking, application = wish.booking, wish.booking.application
    if application is None or not wish.changes("application_id", "start", "end"):
        return
    if booking.start < booking.end and not quotas.covers(application, booking):
        period = [
            f"{word} {words.day(day)}"
            for word, day in (("from", application.starts_on), ("until", application.ends_on))
            if day
        ]
        raise ValidationError(
            {
                "application": f"{application.code} gives access {' '.join(period)}. Choose a time inside its period."
            }
        )


def application_has_days_left(wish: Wish) -> None:
    """A booking may always become cheaper; it is no concern of those that cost nothing (slots, downtime)."""
    booking, application, before = wish.booking, wish.booking.application, wish.before
    if application is None or not wish.is_limited or booking.start >= booking.end:
        return
    costs = quotas.days_charged(booking.start, booking.end)
    same = not wish.changes("application_id", "microscope_id", "kind")
    if same and costs <= quotas.days_charged(before.start, before.end):
        return
    quota = quotas.quota(application, booking.microscope, apart_from=booking)
    if quota.left is not None and costs > quota.left:
        raise ValidationError(
            {
                "application": f"{application.code} has {max(quota.left, 0)} of {_days(quota.days)} left on "
                f"{booking.microscope}; this booking counts as {costs}. Book less or ask the facility's staff."
            }
        )


def _days(number: int) -> str:
    return f"{number} day{'' if number == 1 else 's'}"


def inside_a_slot(wish: Wish) -> None:
    """Where the microscope asks for it: wholly inside one slot that admits the booking's lab or application."""
    booking = wish.booking
    if not booking.microscope.requires_slot or not wish.is_limited or booking.start >= booking.end:
        return
    if not (wish.takes_more_time or wish.changes("lab_id", "owner_id", "application_id")):
        return
    slots = Booking.objects.filter(microscope=booking.microscope_id, kind=Booking.Kind.SLOT).standing()
    charged = [booking.application_id] if booking.application_id is not None else []
    slots = slots.admitting(quotas.labs_of(booking), charged)
    if slots.filter(start__lte=booking.start, end__gte=booking.end).exists():
        return
    coming = slots.filter(end__gt=max(booking.start, wish.now)).order_by("start")[:3]
    times = "; ".join(span(slot.start, slot.end) for slot in coming)
    advice = f"Open next: {times}." if times else "None is open from then on; ask the facility's staff."
    raise ValidationError(
        {
            "start": f"{booking.microscope} is booked inside the slots that the staff open for "
            f"{booking.lab or booking.owner}. {advice}"
        }
    )


def sessions_keep_their_microscope(wish: Wish) -> None:
    """A session's images were taken on the microscope of its booking, in time that was booked for it."""
    booking = wish.booking
    if wish.before is None or not wish.changes("microscope_id", "kind"):
        return
    if booking.sessions.exists():
        if booking.microscope_id != wish.before.microscope_id:
            raise ValidationError(
                {
                    "microscope": f"This booking has sessions on {wish.before.microscope}. "
                    "Make another booking for another microscope."
                }
            )
        if not booking.takes_sessions:
            raise ValidationError({"kind": "This booking has sessions. Choose booking or special."})


def not_in_the_past(wish: Wish) -> None:
    """For users; staff also write down what was."""
    booking = wish.booking
    if is_staff(wish.actor) or not wish.changes("start"):
        return
    if booking.start < wish.now - ON_THE_SPOT:
        raise ValidationError({"start": "This time has passed. Choose a start from now on."})


def minimum_length(wish: Wish) -> None:
    booking, least = wish.booking, wish.booking.microscope.min_length_minutes
    if least is None or not wish.is_limited or not wish.changes("microscope_id", "kind", "start", "end"):
        return
    length = datetime.timedelta(minutes=least)
    if booking.start < booking.end < booking.start + length:
        raise ValidationError(
            {
                "end": f"{booking.microscope} is booked for at least {words.duration(length)} at a time. "
                "Choose a later end."
            }
        )


def maximum_length(wish: Wish) -> None:
    booking, most = wish.booking, wish.booking.microscope.max_length_hours
    if most is None or not wish.is_limited or not wish.takes_more_time:
        return
    length = most * HOUR
    if booking.end - booking.start > length:
        raise ValidationError(
            {
                "end": f"{booking.microscope} is booked for at most {words.duration(length)} at a time. "
                "Choose an earlier end."
            }
        )


def not_too_far_ahead(wish: Wish) -> None:
    """Counted in the facility's days, today being none: the whole of the last day can be booked."""
    booking, most = wish.booking, wish.booking.microscope.max_days_ahead
    if most is None or not wish.is_limited or not wish.changes("microscope_id", "kind", "start"):
        return
    last = timezone.localdate(wish.now) + datetime.timedelta(days=most)
    if timezone.localdate(booking.start) > last:
        raise ValidationError(
            {
                "start": f"{booking.microscope} can be booked {most} day{'' if most == 1 else 's'} ahead, now until "
                f"{words.day(last)}. Choose an earlier start."
            }
        )


def changed_in_time(wish: Wish) -> None:
    """Moving, shortening and extending; a title or a collaborator can be corrected at any time."""
    before = wish.before
    if before is None or before.kind != Booking.Kind.BOOKING:
        return
    notice = before.microscope.change_notice_hours
    if notice is None or not wish.changes("microscope_id", "start", "end"):
        return
    if wish.now > before.start - notice * HOUR:
        field = next(name for name in ("start", "end", "microscope") if wish.changes(_column(name)))
        raise ValidationError(
            {
                field: f"The time of a booking on {before.microscope} can be changed until {notice} h before its "
                "start. Ask the facility's staff."
            }
        )


@dataclass(frozen=True)
class Cancelling(Wish):
    """What is asked for on cancelling: the reason, and whether sessions may stay without their booking."""

    reason: str = ""
    keep_sessions: bool = False

    @cached_property
    def sessions(self) -> list:
        return list(self.booking.sessions.order_by("start"))


def others_read_why(wish: Cancelling) -> None:
    booking = wish.booking
    if not wish.reason and wish.actor.pk not in (booking.owner_id, booking.operator_id):
        raise ValidationError({"reason": "Say why: the owner of the booking reads it."})
    if len(wish.reason) > Booking._meta.get_field("cancel_reason").max_length:
        raise ValidationError({"reason": "Write at most 300 characters."})


def no_images_are_being_taken(wish: Cancelling) -> None:
    if running := [session.name for session in wish.sessions if session.is_running]:
        raise ValidationError(f"Images are being taken: finish {', '.join(running)} first, then cancel.")


def sessions_stay_knowingly(wish: Cancelling) -> None:
    """Images that were taken do not go with their booking."""
    if wish.sessions and not wish.keep_sessions and not any(session.is_running for session in wish.sessions):
        raise ValidationError(
            "Images were taken during this booking. Confirm that its sessions stay, or shorten the booking instead."
        )


def cancelled_in_time(wish: Wish) -> None:
    booking, notice = wish.booking, wish.booking.microscope.cancel_notice_hours
    if notice is None or not wish.is_limited:
        return
    if wish.now > booking.start - notice * HOUR:
        raise ValidationError(
            f"A booking on {booking.microscope} can be cancelled until {notice} h before its start. "
            "Ask the facility's staff."
        )


def pending_bookings(wish: Wish) -> None:
    """So many bookings to come for one owner, on the microscope or on all of its group."""
    booking, most = wish.booking, wish.booking.microscope.max_pending
    if most is None or not wish.is_limited or booking.start <= wish.now:
        return
    before = wish.before
    if not wish.changes("owner_id", "microscope_id", "kind") and before.start > wish.now:
        return
    group = booking.microscope.group
    there = Q(microscope__group=group) if group else Q(microscope=booking.microscope_id)
    pending = (
        Booking.objects.filter(there, owner=booking.owner_id, kind=Booking.Kind.BOOKING, start__gt=wish.now)
        .standing()
        .exclude(pk=booking.pk)
        .count()
    )
    if pending >= most:
        who = "You have" if booking.owner_id == wish.actor.pk else f"{booking.owner} has"
        where = f"the microscopes of the group {group}" if group else f"{booking.microscope}"
        raise ValidationError(
            {
                "microscope": f"{who} {pending} booking{'' if pending == 1 else 's'} to come on {where} already; "
                f"{most} can be had at a time. Cancel one or wait until one has begun."
            }
        )


def _column(name: str) -> str:
    return Booking._meta.get_field(name).attname


def _clash(booking: Booking, upkeep: bool) -> Booking | None:
    if booking.kind == Booking.Kind.SLOT or booking.is_cancelled:
        return None
    clashes = (
        Booking.objects.filter(microscope=booking.microscope_id)
        .blocking()
        .overlapping(booking.start, booking.end)
        .exclude(pk=booking.pk)
    )
    clashes = clashes.filter(kind__in=UPKEEP) if upkeep else clashes.exclude(kind__in=UPKEEP)
    return clashes.order_by("start").first()


def downtime_blocks(wish: Wish) -> None:
    """An overlap too; said by its name, which is public, without the title that staff gave it."""
    if clash := _clash(wish.booking, upkeep=True):
        raise overlap_error(wish.booking, clash)


def nothing_overlaps(wish: Wish) -> None:
    """Asked first for a good message; what keeps it is the database (overlap.py)."""
    if clash := _clash(wish.booking, upkeep=False):
        raise overlap_error(wish.booking, clash)


def overlap_error(booking: Booking, clash: Booking | None) -> ValidationError:
    """The message for an overlap; `clash` is None where the other booking is gone again by now."""
    if clash is None:
        return _named(
            nothing_overlaps,
            ValidationError(
                {"start": f"{booking.microscope} was booked by someone else at the same moment. Try again."}
            ),
        )
    when = span(clash.start, clash.end)
    if clash.kind in UPKEEP:
        taken = f"{booking.microscope} has {clash.get_kind_display()} from {when}."
    else:
        taken = f"{booking.microscope} is already booked from {when}."
    if booking.start < clash.start:
        error = ValidationError({"end": f"{taken} Choose an earlier end."})
    else:
        error = ValidationError({"start": f"{taken} Choose a later start."})
    return _named(downtime_blocks if clash.kind in UPKEEP else nothing_overlaps, error)


Rule = Callable[[Wish], None]
RULES: list[Rule] = [
    ends_after_start,
    kind_is_open_to_actor,
    microscope_is_bookable,
    owner_is_of_actors_labs,
    operator_is_known_to_actor,
    lab_is_the_owners,
    lab_is_active,
    application_gives_access,
    application_is_named,
    application_covers_the_time,
    application_has_days_left,
    inside_a_slot,
    sessions_keep_their_microscope,
    not_in_the_past,
    minimum_length,
    maximum_length,
    not_too_far_ahead,
    changed_in_time,
    pending_bookings,
    downtime_blocks,
    nothing_overlaps,
]
CANCEL_RULES: list[Rule] = [
    others_read_why,
    no_images_are_being_taken,
    sessions_stay_knowingly,
    cancelled_in_time,
]

OVERLAPS = frozenset({"downtime_blocks", "nothing_overlaps"})
# What staff may set aside, knowingly. The rest keeps the records true: times that are times, people who exist, images
# on the microscope that took them.
OVERRIDABLE = frozenset(
    {
        "microscope_is_bookable",
        "lab_is_active",
        "application_gives_access",
        "application_is_named",
        "application_covers_the_time",
        "application_has_days_left",
        "inside_a_slot",
        "minimum_length",
        "maximum_length",
        "not_too_far_ahead",
        "changed_in_time",
        "cancelled_in_time",
        "pending_bookings",
    }
)


def _named(rule: Rule, error: ValidationError) -> ValidationError:
    """The error with the rule's name as the code of each of its messages."""
    if hasattr(error, "error_dict"):
        found = [one for errors in error.error_dict.values() for one in errors]
    else:
        found = error.error_list
    for one in found:
        one.code = rule.__name__
    return error


def by_rule(error: ValidationError) -> dict[str, str]:
    """What each broken rule says, by the rule's name; what is wrong by its shape alone comes under its own code."""
    if hasattr(error, "error_dict"):
        found = [one for errors in error.error_dict.values() for one in errors]
    else:
        found = error.error_list
    said: dict[str, list[str]] = {}
    for one in found:
        said.setdefault(one.code or "invalid", []).extend(one.messages)
    return {name: " ".join(dict.fromkeys(messages)) for name, messages in said.items()}


def broken_rules(error: ValidationError) -> set[str]:
    """The names of the rules that the error speaks of."""
    rules = [*RULES, *CANCEL_RULES, collaborators_are_known_to_actor]
    return set(by_rule(error)) & {rule.__name__ for rule in rules}


def check(
    wish: Wish, *, rules: list[Rule] | None = None, override: bool | Collection[str] = ()
) -> dict[str, str]:
    """Raise one ValidationError with the messages of every broken rule, by field; each has its rule's name as code.

    `override` names the rules that staff set aside (True: all that can be). Answers those that were broken and set
    aside, with what they said. Of anyone else it is ignored.
    """
    errors: dict[str, list[ValidationError]] = {}
    overridden: dict[str, str] = {}
    allowed = OVERRIDABLE if override is True else OVERRIDABLE & set(override or ())
    allowed = allowed if is_staff(wish.actor) else frozenset()
    for rule in RULES if rules is None else rules:
        try:
            rule(wish)
        except ValidationError as error:
            if rule.__name__ in allowed:
                overridden[rule.__name__] = " ".join(error.messages)
            else:
                _named(rule, error).update_error_dict(errors)
    if errors:
        raise ValidationError(errors)
    return overridden


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
            raise _unknown_collaborators("Choose members of your labs; staff can add anyone else.")
    if any(person.is_service or not person.is_active for person in new):
        raise _unknown_collaborators("One of these accounts is not in use any more. Remove it.")


def _unknown_collaborators(message: str) -> ValidationError:
    return _named(collaborators_are_known_to_actor, ValidationError({"collaborators": message}))
