"""What facility managers say of bookings, as chainable querysets."""

import datetime

from django.db import models
from django.db.models import Case, Count, OuterRef, Q, Subquery, Value, When
from django.db.models.functions import Coalesce
from django.utils import timezone

from people.access import is_staff
from people.querysets import user_lab_ids


def _count_of(model, related_name: str):
    """How many rows a related name has, counted for the shown rows only, without grouping the whole query."""
    relation = model._meta.get_field(related_name)
    name = relation.field.name
    rows = relation.related_model.objects.filter(**{name: OuterRef("pk")}).order_by().values(name)
    counts = Subquery(rows.annotate(n=Count("pk")).values("n"), output_field=models.IntegerField())
    return Coalesce(counts, 0)


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

    def with_booking_counts(self):
        """Adds `booking_count`."""
        return self.annotate(booking_count=_count_of(self.model, "bookings"))


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

    def with_details_visible_to(self, user):
        """Adds `details_visible`, so that a list masks what is not the user's without a query per row."""
        if is_staff(user):
            return self.annotate(details_visible=Value(True, output_field=models.BooleanField()))
        return self.annotate(details_visible=Case(When(involving(user), then=True), default=False))

    def owned_or_run_by(self, user):
        """Those the person owns or operates."""
        return self.filter(Q(owner=user.pk) | Q(operator=user.pk))

    def standing_or_visible_to(self, user):
        """Cancelled ones only where the user may read them."""
        return self if is_staff(user) else self.filter(Q(cancelled_at__isnull=True) | involving(user))

    def blocking_or_visible_to(self, user):
        """Slots only where the user may read them: others' slots take no time and tell nothing."""
        return self if is_staff(user) else self.filter(~Q(kind=self.model.Kind.SLOT) | involving(user))

    def admitting(self, lab_ids, application_ids=()):
        """Slots that are open for one of these labs or applications (ids, or a queryset of them): by name, or for
        anyone."""
        labs, applications = self.model.slot_labs.through, self.model.slot_applications.through
        by_lab = labs.objects.filter(lab__in=lab_ids).values("booking_id")
        by_application = applications.objects.filter(application__in=application_ids).values("booking_id")
        named = labs.objects.values("booking_id"), applications.objects.values("booking_id")
        return self.filter(
            Q(pk__in=by_lab) | Q(pk__in=by_application) | ~(Q(pk__in=named[0]) | Q(pk__in=named[1]))
        )

    def slots_open_to(self, user):
        """Slots in which the user may book: for staff all, otherwise of their labs, their applications and anyone's."""
        slots = self.standing().filter(kind=self.model.Kind.SLOT)
        if is_staff(user):
            return slots
        if not user.is_authenticated or user.is_service:
            return self.none()
        applications = self.model.application.field.related_model.objects.visible_to(user).values("pk")
        return slots.admitting(user_lab_ids(user), applications)

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

    def with_session_counts(self):
        """Adds `session_count`, as a subquery that costs the shown rows only."""
        return self.annotate(session_count=_count_of(self.model, "sessions"))

    def with_people(self):
        """With everything a row or card shows, so that no row costs a query."""
        return self.select_related("microscope", "owner", "operator", "creator", "lab", "application")


def involvements(user, prefix: str = "") -> dict[str, Q]:
    """The ways in which a booking is the user's: conditions by owner, operator, creator, lab and collaborator.

    `prefix` leads from another model to its booking, for instance "booking__". Apart, each finds its rows by an
    index; PostgreSQL would scan the table for all of them joined by OR.
    """
    from bookings.models import Booking

    collaborations = Booking.collaborators.through.objects.filter(user=user.pk).values("booking_id")
    own_key = f"{prefix}pk__in" if prefix == "" else f"{prefix[:-2]}__in"
    return {
        "owner": Q(**{f"{prefix}owner": user.pk}),
        "operator": Q(**{f"{prefix}operator": user.pk}),
        "creator": Q(**{f"{prefix}creator": user.pk}),
        "lab": Q(**{f"{prefix}lab__in": user_lab_ids(user)}),
        "collaborator": Q(**{own_key: collaborations}),
    }


def involving(user, prefix: str = "") -> Q:
    """Condition: the user owns, operates, created or collaborates on the booking, or its lab is theirs."""
    condition = Q()
    for way in involvements(user, prefix).values():
        condition |= way
    return condition
