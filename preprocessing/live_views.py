"""The live page and the data it asks for; all of it is read by preprocessing.live."""

import orjson
from django.conf import settings
from django.http import Http404, HttpResponse, HttpResponseNotModified
from django.shortcuts import get_object_or_404, resolve_url
from django.urls import reverse
from django.utils.cache import patch_cache_control
from django.views.generic import TemplateView, View

from preprocessing import live
from sessions_app.models import Session


class SessionMixin:
    """The session named in the address, if the person may see it."""

    def get_session(self) -> Session:
        sessions = Session.objects.visible_to(self.request.user, among_few=True).select_related(
            "booking", "microscope", "lab", "summary"
        )
        return get_object_or_404(sessions.named(self.kwargs["name"]))


def number(request, name: str, default: int | None) -> int | None:
    """A whole number from the query, `default` where there is none; anything else raises ValueError."""
    text = request.GET.get(name, "")
    if not text:
        return default
    if not text.isdecimal() or len(text) > 18:
        raise ValueError(name)
    return int(text)


def json_response(data, status: int = 200) -> HttpResponse:
    response = HttpResponse(orjson.dumps(data), content_type="application/json", status=status)
    patch_cache_control(response, private=True, no_cache=True)
    return response


def refusal(error: ValueError) -> HttpResponse:
    return json_response({str(error): ["This must be a whole number, 0 or more."]}, status=400)


# In the order in which they need each other.
SCRIPTS = [
    f"preprocessing/{name}.js"
    for name in ("format", "poll", "columns", "statistics", "charts", "viewer", "classes", "run", "live")
]


class LivePage(SessionMixin, TemplateView):
    """State and counters come with the page, so that it says something before (and without) its scripts."""

    template_name = "preprocessing/live.html"

    def get_context_data(self, **kwargs):
        session = self.get_session()
        try:
            reading = live.read(session, number(self.request, "run", None))
        except (ValueError, live.NoSuchRun) as error:
            raise Http404 from error
        return super().get_context_data(
            session=session,
            reading=reading,
            config={
                "data": reverse("preprocessing:live-data", args=[session.name]),
                "micrograph": reverse("preprocessing:live-micrograph", args=[session.name, 0]),
                "login": f"{resolve_url(settings.LOGIN_URL)}?next={self.request.path}",
                "session": session.name,
                "run": reading.run.pk if reading.run and "run" in self.request.GET else None,
                "zone": settings.TIME_ZONE,
                "series": live.series_facts(),
            },
            measured=reading.run.histograms if reading.run else {},
            scripts=SCRIPTS,
            site_url=self.request.build_absolute_uri("/").rstrip("/"),
            **kwargs,
        )


class LiveData(SessionMixin, View):
    """What changed since the run's revision `after`; 304 where nothing did."""

    def get(self, request, name):
        try:
            run, after = number(request, "run", None), number(request, "after", 0)
        except ValueError as error:
            return refusal(error)
        try:
            reading = live.read(self.get_session(), run)
        except live.NoSuchRun as error:
            raise Http404 from error
        # Only a reader that has everything up to here names this tag, whatever its `after`.
        if request.headers.get("If-None-Match") == reading.etag:
            response = HttpResponseNotModified()
        else:
            response = json_response(reading.answer(after))
        response["ETag"] = reading.etag
        return response


class LiveMicrograph(SessionMixin, View):
    """One micrograph with its pictures and every value in words."""

    def get(self, request, name, pk):
        detail = live.micrograph_detail(self.get_session(), pk)
        if detail is None:
            raise Http404
        return json_response(detail)
