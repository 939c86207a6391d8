"""A session's report and its exports: the same gate as its pages."""

import re

from django.conf import settings
from django.http import Http404, HttpResponse, StreamingHttpResponse
from django.shortcuts import get_object_or_404
from django.utils.decorators import method_decorator
from django.views.decorators.cache import never_cache
from django.views.generic import View
from rest_framework.renderers import JSONRenderer

from preprocessing import export, oscem
from preprocessing.models import ProcessingRun
from preprocessing.report import report
from preprocessing.statistics import summary
from sessions_app.models import Session


@method_decorator(never_cache, name="dispatch")
class ExportView(View):
    """Finds the session and, where a run is exported, the one asked for by ?run=, else the leading one."""

    def session(self) -> Session:
        sessions = Session.objects.visible_to(self.request.user, among_few=True).named(self.kwargs["name"])
        return get_object_or_404(
            sessions.select_related(
                "booking__owner", "microscope", "lab", "operator", "camera", "sample", "summary"
            )
        )

    def run(self, session: Session) -> ProcessingRun:
        asked = self.request.GET.get("run", "")
        if asked and not re.fullmatch(r"[0-9]{1,18}", asked):
            raise Http404("There is no such run.")
        pk = int(asked) if asked else session.summary.leading_run
        if pk is None:
            raise Http404("No pipeline reported on this session.")
        return get_object_or_404(ProcessingRun.objects.select_related("session"), pk=pk, session=session)

    @property
    def only_accepted(self) -> bool:
        return self.request.GET.get("which") == "accepted"

    def attached(self, response, name: str):
        response["Content-Disposition"] = f'attachment; filename="{name}"'
        return response


class MicrographsCSVView(ExportView):
    def get(self, request, name):
        session = self.session()
        found = export.rows(self.run(session))
        lines = export.csv_lines(found, only_accepted=self.only_accepted)
        response = StreamingHttpResponse(lines, content_type="text/csv; charset=utf-8")
        return self.attached(response, f"{session.name}-micrographs.csv")


class MicrographsStarView(ExportView):
    def get(self, request, name):
        session = self.session()
        run = self.run(session)
        lines = export.star_lines(export.rows(run), session, run, only_accepted=self.only_accepted)
        response = StreamingHttpResponse(lines, content_type="text/plain; charset=utf-8")
        return self.attached(response, f"{session.name}-micrographs.star")


class SummaryJSONView(ExportView):
    def get(self, request, name):
        session = self.session()
        body = JSONRenderer().render(summary(session))
        return self.attached(
            HttpResponse(body, content_type="application/json"), f"{session.name}-summary.json"
        )


class OSCEMView(ExportView):
    def get(self, request, name):
        session = self.session()
        try:
            document = oscem.metadata(session)
        except oscem.Incomplete as error:
            return HttpResponse(str(error), status=409, content_type="text/plain; charset=utf-8")
        body = JSONRenderer().render(document)
        return self.attached(
            HttpResponse(body, content_type="application/json"), f"{session.name}-oscem.json"
        )


class ReportView(ExportView):
    def get(self, request, name):
        session = self.session()
        response = HttpResponse(report(session, settings.FACILITY_NAME), content_type="application/pdf")
        response["Content-Disposition"] = f'inline; filename="{session.name}.pdf"'
        return response
