"""What facility managers say of people and labs, as chainable querysets."""

from django.contrib.auth.hashers import UNUSABLE_PASSWORD_PREFIX
from django.db import models
from django.db.models import Count, Q
from django.utils import timezone


class UserQuerySet(models.QuerySet):
    def people(self):
        """Real people: no service users."""
        return self.filter(is_service=False)

    def active(self):
        return self.filter(is_active=True)

    def invited(self):
        """People whose account waits for them to set the first password."""
        return self.people().active().filter(last_login=None, password__startswith=UNUSABLE_PASSWORD_PREFIX)

    def with_bookings_to_come(self):
        """Adds `to_come`: how many bookings they own that stand and are not over."""
        theirs = Q(bookings_owned__cancelled_at=None, bookings_owned__end__gt=timezone.now())
        return self.annotate(to_come=Count("bookings_owned", filter=theirs))

    def visible_to(self, user):
        """All people for staff; otherwise oneself and the people of one's labs."""
        from people.access import is_staff  # access.py imports the models

        if not user.is_authenticated:
            return self.none()
        if is_staff(user):
            return self
        labs = user_lab_ids(user)
        return (
            self.people()
            .filter(
                Q(pk=user.pk)
                | Q(pk__in=self.model.labs.through.objects.filter(lab__in=labs).values("user"))
                | Q(labs_led__in=labs)
            )
            .distinct()
        )


class LabQuerySet(models.QuerySet):
    def active(self):
        return self.filter(is_active=True)

    def of(self, user):
        """Labs the user leads or belongs to now."""
        return self.filter(pk__in=user_lab_ids(user))

    def visible_to(self, user):
        """All labs for staff; otherwise those of the user."""
        from people.access import is_staff

        if not user.is_authenticated:
            return self.none()
        return self if is_staff(user) else self.of(user)


def user_lab_ids(user) -> list[int]:
    """Ids of the labs the user leads or belongs to; read once per user object, so once per request."""
    if not hasattr(user, "_lab_ids"):
        user._lab_ids = sorted(
            set(user.memberships.values_list("lab_id", flat=True))
            | set(user.labs_led.values_list("id", flat=True))
        )
    return user._lab_ids
