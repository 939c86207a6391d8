"""Who sees what pipelines reported: whoever sees the session."""

from django.db import models


class OfSessionQuerySet(models.QuerySet):
    """Rows that belong to a session by way of `session_path`."""

    session_path = "session"

    def visible_to(self, user):
        from sessions_app.models import Session

        visible = Session.objects.visible_to(user)
        # Staff and all-microscope tokens see everything: no condition at all keeps their queries plain.
        if not visible.query.where:
            return self
        return self.filter(**{f"{self.session_path}__in": visible.order_by().values("pk")})


class OfRunQuerySet(OfSessionQuerySet):
    session_path = "run__session"


class ClassAverageQuerySet(OfRunQuerySet):
    def latest_set(self, run):
        """The classes of the job and iteration that the run told of last."""
        latest = self.filter(run=run).order_by("-pk").values("job", "iteration").first()
        return self.filter(run=run, **latest) if latest else self.none()


class AlertQuerySet(OfSessionQuerySet):
    def open(self):
        return self.filter(resolved_at__isnull=True)
