"""Who may see and change a booking. Web, API and admin ask here."""

import datetime
from dataclasses import dataclass

from microscopes.models import Microscope
from people.access import is_staff
from people.querysets import user_lab_ids


def is_involved(user, booking) -> bool:
    """Owner, operator, creator, collaborator, or of the booking's lab (the same as querysets.involving)."""
    if not user.is_authenticated or user.is_service:
        return False
    return (
        user.pk in (booking.owner_id, booking.operator_id, booking.creator_id)
        or (booking.lab_id is not None and booking.lab_id in user_lab_ids(user))
        # `.all()` uses a prefetch where the caller made one.
        or any(person.pk == user.pk for person in booking.collaborators.all())
    )


def can_see_details(user, booking) -> bool:
    """Otherwise the booking reads "Booked" and nothing else of it leaves the server."""
    return is_staff(user) or is_involved(user, booking)


@dataclass(frozen=True)
class Booked:
    """What is told of another's booking: that the microscope is taken, and when."""

    microscope: Microscope
    start: datetime.datetime
    end: datetime.datetime
    public_words: str = "Booked"
    details_visible: bool = False


def as_seen(booking):
    """The booking where its details may be seen, otherwise what remains. For with_details_visible_to()."""
    if booking.details_visible:
        return booking
    return Booked(booking.microscope, booking.start, booking.end, booking.public_words)


BOOKED = "booked"


def public_kind(booking) -> str:
    """What anybody may know of a booking's type: that the microscope is down or in maintenance, otherwise "booked".

    The facility's own upkeep is no person's, and whoever plans around it must tell it from time that may be freed.
    """
    return booking.kind if booking.is_upkeep else BOOKED


def can_create(user) -> bool:
    return bool(user.is_authenticated and user.is_active and not user.is_service)


def can_change_all(user) -> bool:
    """Every booking that is not cancelled: staff who may change bookings at all."""
    return is_staff(user) and user.has_perm("bookings.change_booking")


def can_change(user, booking) -> bool:
    """Staff always; the owner, operator or creator until it starts. Nobody changes a cancelled one."""
    if booking.is_cancelled:
        return False
    if is_staff(user):
        return can_change_all(user)
    return can_change_own(user.pk, booking)


def can_change_own(person: int, booking) -> bool:
    """As can_change, for whoever is not staff."""
    own = person in (booking.owner_id, booking.operator_id, booking.creator_id)
    return own and not booking.is_cancelled and not booking.has_started


def refusal_to_change(booking) -> str:
    """Why someone who sees the booking cannot change it."""
    if booking.is_cancelled:
        return "This booking was cancelled and cannot be changed any more."
    if booking.has_started:
        return "This booking has begun: from then on only the facility's staff change or cancel it."
    return "Only the booking's owner, its operator and the facility's staff change or cancel it."


def can_cancel(user, booking) -> bool:
    return can_change(user, booking)


def can_run(user, booking) -> bool:
    """May create a session now: staff, owner, operator, or a member of the booking's lab."""
    if not booking.takes_sessions:
        return False
    if is_staff(user):
        return True
    return not user.is_service and (
        user.pk in (booking.owner_id, booking.operator_id)
        or (booking.lab_id is not None and booking.lab_id in user_lab_ids(user))
    )
