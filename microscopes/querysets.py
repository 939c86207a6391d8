"""What facility managers say of microscopes, as chainable querysets."""

from django.db import models


class MicroscopeQuerySet(models.QuerySet):
    def in_service(self):
        """Not retired: shown on the dashboard."""
        return self.exclude(status=self.model.Status.RETIRED)

    def bookable(self):
        return self.filter(status=self.model.Status.ACTIVE)

    def visible_to(self, user):
        """Every microscope for people; for a pipeline those of its token."""
        from people.access import is_pipeline

        if not user.is_authenticated:
            return self.none()
        if user.is_service:
            return user.pipeline_token.allowed_microscopes() if is_pipeline(user) else self.none()
        return self
