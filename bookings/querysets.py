"""What facility managers say of bookings, as chainable querysets."""

import datetime

from django.db import models
from django.db.models import Q
from django.utils import timezone

from people.access import is_staff
from people.querysets import user_lab_ids


class ApplicationQuerySet(models.QuerySet):
    def visible_to(self, user):
        """All applications for staff; otherwise those that give the user's labs access."""
        if not user.is_authenticated or user.is_service:
            return self.none()
        if is_staff(user):
            return self
        return self.filter(
            pk__in=self.model.labs.through.objects.filter(lab__in=user_lab_ids(user)).values("application")
        )


class BookingQuerySet(models.QuerySet):
    def visible_to(self, user):
        """Bookings whose details the user may read: all for staff, one's own and one's labs' otherwise.

        Others' bookings may still be shown as "Booked": see `bookings.access.can_see_details`.
        """
        if not user.is_authenticated or user.is_service:
            return self.none()
        if is_staff(user):
            return self
        return self.filter(involving(user))

    def standing(self):
        """Not cancelled."""
        return self.filter(cancelled_at__isnull=True)

    def blocking(self):
        """Those that take the microscope's time: not cancelled and no slot."""
        return self.standing().exclude(kind=self.model.Kind.SLOT)

    def overlapping(self, start: datetime.datetime, end: datetime.datetime):
        """Those that share time with the half-open interval [start, end)."""
        return self.filter(start__lt=end, end__gt=start)

    def covering(self, moment: datetime.datetime | None = None):
        """Those that run at the moment, by default now."""
        moment = moment or timezone.now()
        return self.filter(start__lte=moment, end__gt=moment)

    def with_people(self):
        """With everything a row or card shows, so that no row costs a query."""
        return self.select_related("microscope", "owner", "operator", "creator", "lab", "application")


def involving(user, prefix: str = "") -> Q:
    """Condition: the user owns, operates, created or collaborates on the booking, or its lab is theirs.

    `prefix` leads from another model to its booking, for instance "booking__".
    """
    from bookings.models import Booking

    collaborations = Booking.collaborators.through.objects.filter(user=user.pk).values("booking_id")
    return (
        Q(**{f"{prefix}owner": user.pk})
        | Q(**{f"{prefix}operator": user.pk})
        | Q(**{f"{prefix}creator": user.pk})
        | Q(**{f"{prefix}lab__in": user_lab_ids(user)})
        | Q(**{f"{prefix}pk__in" if prefix == "" else f"{prefix[:-2]}__in": collaborations})
    )
