"""The live page, the map of the grid and the data they ask for; all of it is read by preprocessing.live and where."""

import gzip
import math
from functools import partial

import orjson
from django.conf import settings
from django.core.exceptions import PermissionDenied, ValidationError
from django.http import Http404, HttpResponse, HttpResponseNotModified
from django.shortcuts import get_object_or_404, resolve_url
from django.urls import reverse
from django.utils.cache import patch_cache_control, patch_vary_headers
from django.views.generic import TemplateView, View

from preprocessing import archive, live, packed, polls, tabs, where
from preprocessing.reduction import View as Look
from preprocessing.session_limits import session_limits_change
from preprocessing.state import RELATED, limits_of
from preprocessing.verdict import LIMITS
from sessions_app.access import can_change
from sessions_app.models import Session

# Smaller answers gain nothing by it.
WORTH_PACKING = 8192


class SessionMixin:
    """The session named in the address, if the person may see it."""

    def get_session(self) -> Session:
        sessions = Session.objects.visible_to(self.request.user, among_few=True)
        sessions = sessions.select_related(*RELATED, "lab").defer(*polls.HEAVY)
        return get_object_or_404(sessions.named(self.kwargs["name"]))

    def get_run(self, session):
        """The run that the query names, or the leading one; 404 where there is none."""
        try:
            _, run = live.runs_and(session, number(self.request, "run", None))
        except live.NoSuchRun as error:
            raise Http404 from error
        if run is None:
            raise Http404("No pipeline has reported on this session.")
        return run


class Refused(ValueError):
    """A parameter of the query: its name, and what it must be."""

    def __init__(self, name: str, must: str):
        super().__init__(name)
        self.must = must


def number(request, name: str, default: int | None) -> int | None:
    """A whole number from the query, `default` where there is none; anything else raises Refused."""
    text = request.GET.get(name, "")
    if not text:
        return default
    if not (text.isascii() and text.isdecimal()) or len(text) > 18:
        raise Refused(name, "a whole number, 0 or more")
    return int(text)


def bound(request, name: str) -> float | None:
    """A finite number from the query, None where there is none; anything else raises Refused."""
    text = request.GET.get(name, "")
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise Refused(name, "a number")
    return value


def choice(request, name: str, choices, default: str | None = None) -> str | None:
    text = request.GET.get(name, "") or default
    if text is not None and text not in choices:
        raise Refused(name, f"one of {', '.join(choices)}")
    return text


def look_of(request) -> Look:
    """Which part of the session: `axis`, `from` and `to`."""
    axis = choice(request, "axis", live.AXES, "number")
    return Look(axis, bound(request, "from"), bound(request, "to"))


def json_response(data, status: int = 200, request=None) -> HttpResponse:
    """JSON of plain values and numpy arrays; packed where it is long and the reader takes it."""
    body = live.dump(data)
    packs = request is not None and len(body) >= WORTH_PACKING
    if packs and "gzip" in request.headers.get("Accept-Encoding", ""):
        response = HttpResponse(gzip.compress(body, 1), content_type="application/json", status=status)
        response["Content-Encoding"] = "gzip"
    else:
        response = HttpResponse(body, content_type="application/json", status=status)
    patch_vary_headers(response, ["Accept-Encoding"])
    patch_cache_control(response, private=True, no_cache=True)
    return response


class JSONView(SessionMixin, View):
    """Answers `data(session)` as JSON; what the query says wrongly is refused by name."""

    def get(self, request, name, **kwargs):
        try:
            data = self.data(self.get_session(), **kwargs)
        except Refused as error:
            return json_response({str(error): [f"This must be {error.must}."]}, status=400)
        return data if isinstance(data, HttpResponse) else json_response(data, request=request)


# In the order in which they need each other.
SCRIPTS = [
    f"preprocessing/{name}.js"
    for name in (
        "format",
        "poll",
        "columns",
        "statistics",
        "colours",
        "charts",
        "limits",
        "panels",
        "viewer",
        "classes",
        "run",
        "live",
    )
]


WHERE_SCRIPTS = [
    f"preprocessing/{name}.js" for name in ("format", "statistics", "colours", "charts", "panels", "where")
]


class LivePage(SessionMixin, TemplateView):
    """State, verdict and counters come with the page, so that it says something before (and without) its scripts."""

    template_name = "preprocessing/live.html"

    def get_context_data(self, **kwargs):
        session = self.get_session()
        try:
            reading = live.read(session, number(self.request, "run", None))
        except (Refused, live.NoSuchRun) as error:
            raise Http404 from error
        addresses = {
            key: reverse(f"preprocessing:live-{key}", args=[session.name])
            for key in ("data", "range", "pair", "shifts", "limits")
        }
        return super().get_context_data(
            session=session,
            reading=reading,
            verdict=reading.verdict(),
            over=session.booking.end <= reading.now,
            config=addresses
            | {
                "micrograph": reverse("preprocessing:live-micrograph", args=[session.name, 0]),
                "login": f"{resolve_url(settings.LOGIN_URL)}?next={self.request.path}",
                "session": session.name,
                "run": reading.run.pk if reading.run and "run" in self.request.GET else None,
                "zone": settings.TIME_ZONE,
                "series": live.series_facts(),
                "may_change": can_change(self.request.user, session),
            },
            measured=reading.run.histograms if reading.run else {},
            scripts=SCRIPTS,
            site_url=self.request.build_absolute_uri("/").rstrip("/"),
            **kwargs,
        )


class LiveData(JSONView):
    """What changed since the run's revision `after`; 304 where nothing did."""

    def get_session(self) -> Session:
        """Who may see it is asked every time; what there is of it is read once for all its readers of a moment."""
        visible = Session.objects.visible_to(self.request.user, among_few=True).named(self.kwargs["name"])
        pk = visible.order_by().values_list("pk", flat=True).first()
        self.now = pk and polls.now_of(pk)
        if self.now is None:
            raise Http404("There is no such session.")
        return self.now[0]

    def data(self, session):
        request = self.request
        run, after = number(request, "run", None), number(request, "after", 0)
        axis = choice(request, "axis", live.AXES)
        try:
            reading = live.read(session, run, runs=self.now[1])
        except live.NoSuchRun as error:
            raise Http404 from error
        polls.remember(request, session, run)
        # Only a reader that has everything up to here names this tag, whatever its `after`.
        if polls.tag_in(request) == reading.etag:
            response = HttpResponseNotModified()
        else:
            response = json_response(reading.answer(after, axis), request=request)
            table = reading.table()
            if table is not None and table.wants_packing:
                # Once the answer is on its way: who looks first at a long run has waited for its rows already.
                response._resource_closers.append(partial(packed.table, reading.run))
        response["ETag"] = reading.etag
        return response


class LiveRange(JSONView):
    """A part of the session in full detail (or as much of it as can be drawn), with its own histograms."""

    def data(self, session):
        view = look_of(self.request)
        return live.look_closer(self.get_run(session), view, limits_of(session))


class LivePair(JSONView):
    """Two quantities against each other."""

    def data(self, session):
        across = choice(self.request, "x", live.SERIES, "defocus")
        up = choice(self.request, "y", live.SERIES, "ctf_resolution")
        view = look_of(self.request)
        return live.pair(self.get_run(session), view, across, up)


class LiveShifts(JSONView):
    """Beam-shift groups."""

    def data(self, session):
        return live.beam_shifts(self.get_run(session))


class LiveLimits(SessionMixin, View):
    """Change what counts as usable: a JSON object of limits by name; null takes one away."""

    def post(self, request, name):
        session = self.get_session()
        if not can_change(request.user, session):
            raise PermissionDenied("Only staff and those who run this session may change its limits.")
        try:
            values = orjson.loads(request.body)
        except orjson.JSONDecodeError:
            values = None
        if not isinstance(values, dict) or not values:
            return json_response({"detail": "Send an object with a number or null for each limit."}, 400)
        names = {field for pair in LIMITS.values() for field in pair if field}
        errors = {}
        for field, value in values.items():
            if field not in names:
                errors[field] = [f"There is no such limit; there are {', '.join(sorted(names))}."]
            elif value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
                errors[field] = ["This must be a number, or null for no limit."]
        if errors:
            return json_response(errors, 400)
        try:
            row, _ = session_limits_change(session=session, values=values, actor=request.user)
        except ValidationError as error:
            return json_response(error.message_dict, 400)
        return json_response({field: getattr(row, field) for field in sorted(names)})


class LiveMicrograph(JSONView):
    """One micrograph with its pictures and every value in words."""

    def data(self, session, pk):
        tell = archive if session.status == session.Status.ARCHIVED else live
        detail = tell.micrograph_detail(session, pk)
        if detail is None:
            raise Http404
        return detail


class WherePage(SessionMixin, TemplateView):
    """Grid squares and foil holes as a coloured map, or a list where no stage position is known."""

    template_name = "preprocessing/where.html"

    def get_context_data(self, **kwargs):
        session = self.get_session()
        try:
            runs, run = live.runs_and(session, number(self.request, "run", None))
        except (Refused, live.NoSuchRun) as error:
            raise Http404 from error
        return super().get_context_data(
            session=session,
            runs=runs,
            run=run,
            config={
                "data": reverse("preprocessing:where-data", args=[session.name]),
                "login": f"{resolve_url(settings.LOGIN_URL)}?next={self.request.path}",
                "micrographs": tabs.address("preprocessing:micrographs", session),
                "run": run.pk if run and "run" in self.request.GET else None,
                "series": live.series_facts(),
            },
            scripts=WHERE_SCRIPTS,
            **kwargs,
        )


class WhereData(JSONView):
    """Places with their counts and medians; `square` asks for the foil holes of that square."""

    def data(self, session):
        run = self.get_run(session)
        square = self.request.GET.get("square") or None
        etag = f'"{run.pk}-{run.revision}-{hash_of(limits_of(session), square)}"'
        if polls.tag_in(self.request) == etag:
            response = HttpResponseNotModified()
        else:
            data = {"revision": run.revision, "places": where.places(run, limits_of(session), square)}
            response = json_response(data, request=self.request)
        response["ETag"] = etag
        return response


def hash_of(limits, *parts) -> str:
    named = [getattr(limits, field) for pair in LIMITS.values() for field in pair if field]
    return live.tag_of([named, *parts])
