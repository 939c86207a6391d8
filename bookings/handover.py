"""Handing a booking to another member of its lab, until it starts."""

from django.core.exceptions import PermissionDenied, ValidationError
from django.db import transaction

from bookings import access
from bookings.models import Booking
from bookings.rules import people_to_own
from bookings.services import Override, booking_update, lock_microscopes
from microscopes.models import Microscope
from people.models import AuditEntry, User


def can_hand_over(user: User, booking: Booking) -> bool:
    """Whoever may change it, staff too, until it starts; only what takes sessions is a person's."""
    return booking.takes_sessions and not booking.has_started and access.can_change(user, booking)


def heirs(user: User, booking: Booking):
    """Queryset of those to whom the user may hand it: the booking's lab, or where it has none, the user's labs."""
    people = people_to_own(user).exclude(pk=booking.owner_id)
    if booking.lab_id is None:
        return people
    lab = User.objects.filter(memberships__lab=booking.lab_id).values("pk")
    return people.filter(pk__in=lab) | people.filter(pk=booking.lab.pi_id)


@transaction.atomic
def booking_hand_over(*, booking: Booking, actor: User, to: User, override: Override = ()) -> Booking:
    """Make `to` the owner; where the former owner was named as operator, the new one operates it.

    The booking's rules are asked as for any change, and staff set them aside as there. Raises PermissionDenied for who
    may not, or not any more, and ValidationError by field.
    """
    locked = lock_microscopes(Microscope.objects.get(bookings=booking.pk))
    booking = (
        Booking.objects.select_for_update(no_key=True, of=("self",))
        .select_related("owner", "lab")
        .get(pk=booking.pk)
    )
    if booking.microscope_id not in locked:
        raise ValidationError("Someone else moved this booking at the same moment. Look at it and try again.")
    if not can_hand_over(actor, booking):
        raise PermissionDenied("This booking cannot be handed over, or not any more.")
    if not heirs(actor, booking).filter(pk=to.pk).exists():
        raise ValidationError({"to": "Choose another member of the booking's lab."})
    before = booking.owner
    changes = {"owner": to}
    if booking.operator_id == before.pk:
        changes["operator"] = None
    booking = booking_update(booking=booking, actor=actor, override=override, **changes)
    AuditEntry.record(
        actor=actor,
        action="booking handed over",
        target=booking,
        details={"from": str(before), "to": str(to)},
    )
    return booking
