"""Pages about samples: the list, and one sample with all its sessions and how they compare."""

from django.core.paginator import Paginator
from django.db.models import Count, Max, Q
from django.http import Http404
from django.shortcuts import get_object_or_404
from django.utils import timezone
from django.views.generic import TemplateView

from sessions_app.charts import Series, line_chart
from sessions_app.models import Sample, Session
from sessions_app.statistics import QUALITIES

PAGE_SIZE = 50
# Of a sample that was looked at more often, the newest.
MOST_SESSIONS = 200


class SampleListView(TemplateView):
    template_name = "sessions_app/samples.html"

    def get_context_data(self, **kwargs):
        user = self.request.user
        samples = Sample.objects.visible_to(user)
        query = self.request.GET.get("q", "").strip()[:120]
        if query:
            samples = samples.filter(Q(name__icontains=query) | Q(lab__name__icontains=query))
        page = Paginator(samples.order_by("name", "pk"), PAGE_SIZE).get_page(self.request.GET.get("page"))
        rows = list(page.object_list.select_related("lab"))
        counted = {
            row["sample"]: row
            for row in Session.objects.filter(sample__in=[sample.pk for sample in rows])
            .order_by()
            .values("sample")
            .annotate(count=Count("pk"), last=Max("start"))
        }
        return super().get_context_data(
            page_obj=page,
            rows=[(sample, counted.get(sample.pk)) for sample in rows],
            query=query,
            **kwargs,
        )


class SampleView(TemplateView):
    """A sample and its sessions, newest first; only those that this person may see."""

    template_name = "sessions_app/sample.html"

    def get_context_data(self, pk, **kwargs):
        user = self.request.user
        if len(str(pk)) > 18:
            raise Http404("There is no such sample.")
        sample = get_object_or_404(Sample.objects.visible_to(user).select_related("lab", "created_by"), pk=pk)
        mine = Session.objects.visible_to(user, among_few=True).filter(sample=sample)
        sessions = list(mine.with_row().order_by("-start", "-pk")[: MOST_SESSIONS + 1])
        has_more, sessions = len(sessions) > MOST_SESSIONS, sessions[:MOST_SESSIONS]
        return super().get_context_data(
            sample=sample,
            sessions=sessions,
            has_more=has_more,
            most=MOST_SESSIONS,
            charts=charts(sessions),
            qualities=QUALITIES,
            **kwargs,
        )


def charts(sessions: list[Session]) -> list:
    """Each quality over the sessions, oldest first; nothing where fewer than two can be compared."""
    sessions = list(reversed(sessions))
    labels = [f"{timezone.localtime(session.start):%d %b %y}" for session in sessions]
    made = []
    for quality in QUALITIES:
        values = [getattr(session.summary, quality.column) for session in sessions]
        if sum(value is not None for value in values) > 1:
            made.append(line_chart(f"Median {quality.inline}", quality.unit, labels, [Series("", values)]))
    return made
