"""What facility managers say of sessions and samples, as chainable querysets."""

import datetime
from functools import reduce
from operator import or_

from django.db import models
from django.db.models import Q
from django.db.models.functions import Lower
from django.db.models.lookups import Exact
from django.utils import timezone

from bookings.querysets import involvements
from people.access import is_pipeline, is_staff
from people.querysets import user_lab_ids
from sessions_app.retention import WARN_DAYS


class SampleQuerySet(models.QuerySet):
    def visible_to(self, user):
        """All samples for staff; otherwise those of the user's labs."""
        if not user.is_authenticated or user.is_service:
            return self.none()
        return self if is_staff(user) else self.filter(lab__in=user_lab_ids(user))


class SessionQuerySet(models.QuerySet):
    def visible_to(self, user, *, among_few=False):
        """All sessions for staff; for a pipeline those of its token's microscopes; otherwise the user's own.

        One's own: creator or operator of the session, or involved in its booking, or of its lab. Written as ids
        from indexed parts, so that a user's few sessions are found without walking everyone else's. The same
        sessions come with `among_few`, which asks row by row: for a queryset that is narrow by itself, such as one
        name or what runs now, where collecting all that a lab ever had would cost more than the answer.
        """
        if not user.is_authenticated:
            return self.none()
        if user.is_service:
            if not is_pipeline(user):
                return self.none()
            token = user.pipeline_token
            return (
                self if token.all_microscopes else self.filter(microscope__in=token.microscopes.values("pk"))
            )
        if is_staff(user):
            return self
        # The union makes each branch use its own index; one big OR would scan the table.
        ids = self.model.objects.order_by()
        booking = involvements(user, "booking__")
        # A session has its booking's lab from its creation; where it had none, one that the booking got later counts.
        booking["lab"] &= Q(lab__isnull=True)
        ways = [Q(operator=user.pk), Q(lab__in=user_lab_ids(user)), *booking.values()]
        if among_few:
            return self.filter(reduce(or_, ways, Q(creator=user.pk)))
        own = (
            ids.filter(creator=user.pk)
            .values("pk")
            .union(*(ids.filter(way).values("pk") for way in ways), all=True)
        )
        return self.filter(pk__in=own)

    def named(self, name: str):
        """The session of this name, in whatever case it was typed; written so that the unique index finds it."""
        return self.filter(Exact(Lower("name"), name.lower()))

    def running(self):
        return self.filter(status__in=[self.model.Status.PENDING, self.model.Status.ACTIVE])

    def forgotten(self, before: datetime.datetime):
        """Running, though the booking ended before this moment and no movie was heard of since."""

        def quiet(field: str) -> Q:
            return Q(**{field: None}) | Q(**{f"{field}__lt": before})

        signs = ("last_file_at", "summary__last_exposure_at")
        return self.running().filter(*map(quiet, signs), booking__end__lt=before, start__lt=before)

    def images_going(self):
        """Those whose images are deleted within the days of the warning."""
        today = timezone.localdate()
        return self.filter(
            data_deleted_at__isnull=True,
            delete_on__gte=today,
            delete_on__lte=today + datetime.timedelta(days=WARN_DAYS),
        )

    def images_due(self):
        """Those whose images are past their date and not gone yet."""
        return self.filter(data_deleted_at__isnull=True, delete_on__lt=timezone.localdate())

    def with_row(self):
        """With everything a list's row shows, so that no row costs a query."""
        return self.select_related(
            "booking__owner", "microscope", "lab", "creator", "operator", "camera", "sample", "summary"
        ).defer("summary__statistics", "summary__histograms", "summary__throughput")
