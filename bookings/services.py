"""Making, changing and cancelling bookings. Web, API and admin come here.

Locks are taken in one order everywhere: microscopes by id, the booking, the application.

`override` names the rules that staff set aside knowingly (True: all that can be, see rules.OVERRIDABLE); those that
were broken are kept on the booking and as an audit entry. `now` is the moment as of which rules are asked, for
records brought in from elsewhere.
"""

import datetime
from collections.abc import Collection, Iterable
from typing import Any, TypedDict, Unpack

from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.db.models import Q
from django.utils import timezone

from bookings import notices, quotas, rules
from bookings.models import Application, Booking, BookingSeries
from bookings.overlap import is_overlap
from microscopes.models import Microscope
from people.access import is_staff
from people.models import AuditEntry, Lab, User


class BookingChanges(TypedDict, total=False):
    """What of a booking can be changed; what is left out stays as it is."""

    microscope: Microscope
    kind: str
    title: str
    description: str
    start: datetime.datetime
    end: datetime.datetime
    owner: User
    operator: User | None
    lab: Lab | None
    application: Application | None
    collaborators: Iterable[User]
    slot_labs: Iterable[Lab]
    slot_applications: Iterable[Application]


# Left out: charged to the application that admits the booking where exactly one does.
AUTOMATIC: Any = object()


Override = bool | Collection[str]


@transaction.atomic
def booking_create(
    *,
    actor: User,
    microscope: Microscope,
    start: datetime.datetime,
    end: datetime.datetime,
    owner: User | None = None,
    kind: str = Booking.Kind.BOOKING,
    title: str = "",
    description: str = "",
    operator: User | None = None,
    lab: Lab | None = None,
    application: Application | None = AUTOMATIC,
    collaborators: Iterable[User] = (),
    slot_labs: Iterable[Lab] = (),
    slot_applications: Iterable[Application] = (),
    series: BookingSeries | None = None,
    override: Override = (),
    now: datetime.datetime | None = None,
) -> Booking:
    """Book the microscope for [start, end), aware datetimes. The owner is the actor where none is named.

    It is charged to the application given, or left out, or None where the microscope asks for one, to the one that
    admits it if exactly one does. Raises ValidationError with messages by field; several at once on one time leave
    one booking.
    """
    booking = Booking(
        microscope=lock_microscopes(microscope)[microscope.pk],
        kind=kind,
        title=title,
        description=description,
        start=start,
        end=end,
        owner=owner or actor,
        operator=operator,
        creator=actor,
        lab=lab,
        application=None if application is AUTOMATIC else application,
        series=series,
    )
    collaborators, slot_labs, slot_applications = map(list, (collaborators, slot_labs, slot_applications))
    _check_times(booking)
    _check_slot(booking, slot_labs, slot_applications)
    choose = application is AUTOMATIC or booking.microscope.requires_application
    _charge(booking, actor=actor, choose=choose)
    overridden = _check(booking, actor=actor, override=override, now=now)
    rules.collaborators_are_known_to_actor(collaborators, actor=actor)
    booking.overridden = sorted(overridden)
    _save(booking)
    if collaborators:
        booking.collaborators.set(collaborators)
    if slot_labs:
        booking.slot_labs.set(slot_labs)
    if slot_applications:
        booking.slot_applications.set(slot_applications)
    _record_overridden(booking, overridden, actor=actor)
    notices.tell(notices.CREATED, actor=actor, bookings=[booking])
    return booking


@transaction.atomic
def booking_update(
    *, booking: Booking, actor: User, override: Override = (), **changes: Unpack[BookingChanges]
) -> Booking:
    """Change what is named and nothing else, on the booking as it is in the database now.

    Raises ValidationError with messages by field. What staff change is kept as an audit entry.
    """
    unknown = changes.keys() - BookingChanges.__annotations__.keys()
    if unknown:
        raise TypeError(f"A booking has no such fields to change: {', '.join(sorted(unknown))}")
    was_on = Microscope.objects.get(bookings=booking.pk)
    locked = lock_microscopes(was_on, *filter(None, [changes.get("microscope")]))
    if changes.get("microscope"):
        changes["microscope"] = locked[changes["microscope"].pk]
    before = (
        Booking.objects.select_for_update(no_key=True, of=("self",))
        .select_related("microscope", "application")
        .prefetch_related("collaborators")  # As they were: who is told of the change asks for both.
        .get(pk=booking.pk)
    )
    if before.microscope_id not in locked:
        raise ValidationError("Someone else moved this booking at the same moment. Look at it and try again.")
    if before.is_cancelled:
        raise ValidationError("This booking was cancelled and cannot be changed. Make a new one.")
    booking = Booking.objects.select_related("microscope", "owner", "operator", "lab").get(pk=booking.pk)
    collaborators = changes.pop("collaborators", None)
    opened = {name: set(changes.pop(name)) for name in ("slot_labs", "slot_applications") if name in changes}
    for name, value in changes.items():
        setattr(booking, name, value)
    _check_times(booking)
    _check_slot(booking, *opened.values())
    if booking.kind != Booking.Kind.SLOT:
        opened = {"slot_labs": set(), "slot_applications": set()} if before.kind == Booking.Kind.SLOT else {}
    asked_anew = changes.keys() & {"microscope", "kind", "owner", "lab", "application"}
    choose = bool(asked_anew) and booking.microscope.requires_application
    _charge(booking, actor=actor, choose=choose)
    if booking.application_id != before.application_id:
        changes["application"] = booking.application
    changed = [name for name in changes if _raw(booking, name) != _raw(before, name)]
    told = {name: [_text(before, name), _text(booking, name)] for name in changed}

    overridden = _check(booking, actor=actor, before=before, override=override)
    if overridden:
        booking.overridden = sorted({*booking.overridden, *overridden})
        changed.append("overridden")
    if changed:
        booking.changed_at = timezone.now()
        _save(booking, update_fields=[*changed, "changed_at"])
    if "lab" in changed:
        # Who corrects the lab means the images too: the old one's members must not go on seeing them.
        booking.sessions.update(lab=booking.lab)
    if collaborators is not None:
        were, become = set(booking.collaborators.all()), set(collaborators)
        rules.collaborators_are_known_to_actor(become - were, actor=actor)
        if were != become:
            booking.collaborators.set(become)
            told["collaborators"] = [sorted(map(str, were)), sorted(map(str, become))]
    for name, become in opened.items():
        were = set(getattr(booking, name).all())
        if were != become:
            getattr(booking, name).set(become)
            told[name] = [sorted(map(str, were)), sorted(map(str, become))]
    if told and is_staff(actor):
        AuditEntry.record(actor=actor, action="booking changed", target=booking, details=told)
    _record_overridden(booking, overridden, actor=actor)
    if told:
        notices.tell(notices.CHANGED, actor=actor, bookings=[booking], before={before.pk: before})
    return booking


@transaction.atomic
def booking_cancel(
    *,
    booking: Booking,
    actor: User,
    reason: str = "",
    keep_sessions: bool = False,
    override: Override = (),
) -> Booking:
    """Cancel the booking: its time is free again, the record stays with who, when and why.

    `keep_sessions` says that the caller has told of its sessions and asked. Raises ValidationError, also with the
    names of rules.CANCEL_RULES.
    """
    lock_microscopes(Microscope.objects.get(bookings=booking.pk))
    booking = (
        Booking.objects.select_for_update(no_key=True, of=("self",))
        .select_related("microscope", "application")
        .get(pk=booking.pk)
    )
    if booking.is_cancelled:
        raise ValidationError("This booking is cancelled already.")
    wish = rules.Cancelling(booking, actor, booking, reason=reason.strip(), keep_sessions=keep_sessions)
    overridden = rules.check(wish, rules=rules.CANCEL_RULES, override=override)
    booking.overridden = sorted({*booking.overridden, *overridden})
    booking.cancelled_at = wish.now
    booking.cancelled_by = actor
    booking.cancel_reason = wish.reason
    booking.save(update_fields=["cancelled_at", "cancelled_by", "cancel_reason", "overridden"])
    AuditEntry.record(
        actor=actor,
        action="booking cancelled",
        target=booking,
        details={
            "reason": wish.reason,
            "start": booking.start.isoformat(),
            "end": booking.end.isoformat(),
            "sessions kept": [session.name for session in wish.sessions],
        },
    )
    _record_overridden(booking, overridden, actor=actor)
    notices.tell(notices.CANCELLED, actor=actor, bookings=[booking], reason=wish.reason)
    return booking


def lock_microscopes(*microscopes: Microscope) -> dict[int, Microscope]:
    """The microscopes as they are now by id, their bookings written by one at a time (on SQLite the transaction is
    the lock). Those of the same group too, since they share the limit of bookings to come.

    Always in the order of their ids, so that no two wait for each other, and without locking the key, so that
    sessions of the microscope are not held up.
    """
    groups = {microscope.group for microscope in microscopes} - {""}
    wanted = Q(pk__in=[microscope.pk for microscope in microscopes]) | Q(group__in=groups)
    rows = Microscope.objects.select_for_update(no_key=True).filter(wanted).order_by("pk")
    return {microscope.pk: microscope for microscope in rows}


def _charge(booking: Booking, *, actor: User, choose: bool) -> None:
    """Choose the application where that is left to us, and hold its row, so that its quota is counted by one at a
    time.

    The microscope's lock holds the bookings that count; the application's holds its status, period and quotas.
    """
    if choose and booking.application_id is None and booking.kind == Booking.Kind.BOOKING:
        could = quotas.admitting(booking, actor) if booking.start < booking.end else []
        booking.application = could[0] if len(could) == 1 else None
    if booking.application_id is not None:
        locked = Application.objects.select_for_update(no_key=True).filter(pk=booking.application_id).first()
        if locked is None:
            raise ValidationError({"application": "This application was deleted. Choose another one."})
        booking.application = locked


def _check_slot(booking: Booking, *opened: Iterable) -> None:
    if any(opened) and booking.kind != Booking.Kind.SLOT:
        raise ValidationError(
            {"kind": "Only a slot is open for labs and applications. Choose the type slot."}
        )


def _record_overridden(booking: Booking, overridden: dict[str, str], *, actor: User) -> None:
    if overridden:
        AuditEntry.record(actor=actor, action="booking rules overridden", target=booking, details=overridden)


def _check_times(booking: Booking) -> None:
    for name in ("start", "end"):
        value = getattr(booking, name)
        if not isinstance(value, datetime.datetime) or timezone.is_naive(value):
            raise ValidationError({name: "Give a date and a time with its time zone."})
        # Two times of one zone are subtracted by the clock on the wall, which is an hour off twice a year.
        setattr(booking, name, value.astimezone(datetime.UTC))


def _check(
    booking: Booking,
    *,
    actor: User,
    before: Booking | None = None,
    override: Override = (),
    now: datetime.datetime | None = None,
) -> dict[str, str]:
    """Answers the rules that were set aside, with what they said."""
    overridden = rules.check(rules.Wish(booking, actor, before, now), override=override)
    # Records that it refers to were read a moment ago, and the database has the last word on them.
    references = [field.name for field in booking._meta.concrete_fields if field.is_relation]
    booking.full_clean(exclude=references, validate_unique=False)
    return overridden


def _save(booking: Booking, **options) -> None:
    """Save, and say an overlap that only the database saw in the words of the rule."""
    try:
        with transaction.atomic():
            booking.save(**options)
    except IntegrityError as error:
        if not is_overlap(error):
            raise
        wish = rules.Wish(booking, booking.owner)
        rules.check(wish, rules=[rules.downtime_blocks, rules.nothing_overlaps])
        raise rules.overlap_error(booking, None) from error


def _raw(booking: Booking, name: str):
    return getattr(booking, Booking._meta.get_field(name).attname)


def _text(booking: Booking, name: str) -> str:
    """A value as the audit entry keeps it."""
    value = getattr(booking, name)
    return value.isoformat() if isinstance(value, datetime.datetime) else "" if value is None else str(value)
