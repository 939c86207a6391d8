"""The page of a session's micrographs and what it asks for: pages of tiles, one whole, and people's verdicts."""

from django.conf import settings
from django.core.exceptions import PermissionDenied
from django.http import Http404
from django.shortcuts import get_object_or_404, resolve_url
from django.urls import reverse
from django.views.generic import TemplateView, View

from people import words
from preprocessing import archive, browse, ingest, live, packed, reduction
from preprocessing.curation import VERDICTS, AlreadyUndone, judge, undo
from preprocessing.histograms import MEASURES
from preprocessing.live_views import JSONView, Refused, SessionMixin, json_response, number
from preprocessing.live_words import digits
from preprocessing.models import Coordinates, CurationAct, Micrograph
from preprocessing.reading import image_url
from preprocessing.state import limits_of
from preprocessing.verdict import bounds_of
from sessions_app.access import can_judge
from sessions_app.models import SessionSummary

PAGE = 60
MOST = 200
ACTS = 20
#: So many ids at most come with one request; more are given a verdict by a filter.
MOST_IDS = 5000
MAX_REASON = 300
ARCHIVED = "The session is archived: its micrographs cannot be judged any more."


class Shown:
    """A run's table with what the page's query chose of it."""

    def __init__(self, view, session, query):
        self.session = session
        self.run = view.get_run(session)
        try:
            self.choice = browse.Choice.of(query)
        except browse.Unknown as error:
            raise Refused(str(error), error.must) from error
        self.table = packed.table(self.run)
        self.bounds = bounds_of(limits_of(session))
        self.judged, self.good = reduction.usable(self.table, self.bounds)

    @property
    def places(self):
        return browse.chosen(self.table, self.choice, self.bounds)

    def state(self, place: int) -> str:
        return browse.state_of_row(
            int(self.table.rows["flags"][place]), bool(self.judged[place]), bool(self.good[place])
        )

    def place(self, pk: int) -> int | None:
        """Where in the table this micrograph is."""
        return self.table.place(pk)

    @property
    def is_archived(self) -> bool:
        return self.session.status == self.session.Status.ARCHIVED

    def names_and_pictures(self, places: list[int]) -> dict[int, tuple[str, str, str]]:
        """Name, picture and power spectrum by place in the table."""
        if self.is_archived:
            kept = SessionSummary.objects.values_list("pictures", flat=True).get(pk=self.session.pk)
            pictures = {row["name"]: (row["image"], row["psd"]) for row in kept}
            names = archive.names(self.run)
            return {place: (names[place], *pictures.get(names[place], ("", ""))) for place in places}
        ids = self.table.rows["id"][places].tolist()
        rows = Micrograph.objects.filter(pk__in=ids).values_list(
            "pk", "name", "micrograph_image", "psd_image"
        )
        found = {pk: rest for pk, *rest in rows}
        return {place: tuple(found.get(pk, ("", "", ""))) for place, pk in zip(places, ids, strict=True)}


class MicrographsPage(SessionMixin, TemplateView):
    template_name = "preprocessing/micrographs.html"

    def get_context_data(self, **kwargs):
        session = self.get_session()
        try:
            runs, run = live.runs_and(session, number(self.request, "run", None))
        except (Refused, live.NoSuchRun) as error:
            raise Http404 from error
        measures = []
        if run is not None:
            measures = [
                {
                    "name": name,
                    "label": MEASURES[name].label,
                    "unit": MEASURES[name].unit,
                    "digits": digits(name),
                }
                for name in packed.table(run).sent
            ]
        of_session = [session.name]
        return super().get_context_data(
            session=session,
            runs=runs,
            run=run,
            measures=measures,
            shows=browse.SHOWS,
            may_judge=can_judge(self.request.user, session),
            config={
                "data": reverse("preprocessing:micrographs-data", args=of_session),
                "detail": reverse("preprocessing:micrograph", args=[session.name, 0]),
                "next": reverse("preprocessing:micrographs-next", args=of_session),
                "verdict": reverse("preprocessing:verdict", args=of_session),
                "undo": reverse("preprocessing:verdict-undo", args=[session.name, 0]),
                "login": f"{resolve_url(settings.LOGIN_URL)}?next={self.request.path}",
                "running": session.is_running,
                "may_judge": can_judge(self.request.user, session),
                "measures": measures,
                "run": None
                if run is None
                else {
                    "id": run.pk,
                    "pixel_size": run.pixel_size,
                    "width": run.width,
                    "height": run.height,
                    "particle_diameter": run.particle_diameter,
                },
            },
            **kwargs,
        )


class MicrographsData(JSONView):
    """A page of tiles of what the query chooses, and how many there are."""

    def data(self, session):
        shown = Shown(self, session, self.request.GET)
        offset = number(self.request, "offset", 0)
        limit = min(number(self.request, "limit", PAGE) or PAGE, MOST)
        places = shown.places
        page = places[offset : offset + limit].tolist()
        told = shown.names_and_pictures(page)
        return {
            "revision": shown.run.revision,
            "of": len(shown.table),
            "total": len(places),
            "words": shown.choice.words,
            "rows": [self.tile(shown, place, *told[place]) for place in page],
            "acts": acts(session),
        }

    def tile(self, shown: Shown, place: int, name: str, image: str, psd: str) -> dict:
        return {
            "id": int(shown.table.rows["id"][place]),
            "number": int(shown.table.number[place]),
            "name": name.rsplit("/", 1)[-1],
            "state": shown.state(place),
            "picture": image_url(shown.session.name, image),
            "values": browse.values_of(shown.table, place),
        }


def acts(session) -> list[dict]:
    """The last decisions, newest first."""
    rows = CurationAct.objects.filter(session=session).select_related("by", "undone_by").defer("before")
    return [
        {
            "id": act.pk,
            "text": f"{VERDICTS[act.verdict]} {act.count:,}: {act.what}",
            "reason": act.reason,
            "by": str(act.by) if act.by else "somebody who is gone",
            "at": act.at.timestamp(),
            "undone": str(act.undone_by) if act.undone_at else None,
        }
        for act in rows[:ACTS]
    ]


class MicrographView(JSONView):
    """One micrograph: its pictures, every value with its unit, who judged it, and its neighbours in time and place."""

    def data(self, session, pk):
        shown = Shown(self, session, self.request.GET)
        place = shown.place(pk)
        if place is None:
            raise Http404("There is no such micrograph in this run.")
        tell = archive.micrograph_detail if shown.is_archived else live.micrograph_detail
        detail = tell(session, pk)
        if detail is None:
            raise Http404("There is no such micrograph in this run.")
        return detail | {
            "state": shown.state(place),
            "verdict": None if shown.is_archived else self._verdict(pk),
            "picks": self._picks(shown, pk),
            "nearby": self._nearby(shown, place),
        }

    def _verdict(self, pk: int) -> dict | None:
        exposure = Micrograph.objects.select_related("exposure__verdict_by").get(pk=pk).exposure
        if not exposure.verdict:
            return None
        return {
            "verdict": exposure.verdict,
            "by": str(exposure.verdict_by) if exposure.verdict_by else None,
            "at": exposure.verdict_at.timestamp() if exposure.verdict_at else None,
            "reason": exposure.verdict_reason,
        }

    def _picks(self, shown: Shown, pk: int) -> str | None:
        there = not shown.is_archived and Coordinates.objects.filter(micrograph=pk).exists()
        return reverse("api:micrograph-coordinates", args=[pk]) if there else None

    def _nearby(self, shown: Shown, place: int) -> list[dict]:
        places = [shown.place(pk) for pk in browse.nearby(shown.table, place)]
        told = shown.names_and_pictures(places)
        return [
            {
                "id": int(shown.table.rows["id"][other]),
                "number": int(shown.table.number[other]),
                "picture": image_url(shown.session.name, told[other][1]),
                "state": shown.state(other),
            }
            for other in places
        ]


class NextView(JSONView):
    """The id of the next micrograph from `id` on (`step` -1: back), of the kind any, good or bad."""

    def data(self, session):
        shown = Shown(self, session, self.request.GET)
        step, kind = self.request.GET.get("step") or "1", self.request.GET.get("kind") or "any"
        if step not in ("1", "-1"):
            raise Refused("step", "1 or -1")
        if kind not in ("any", "good", "bad"):
            raise Refused("kind", "any, good or bad")
        pk = number(self.request, "id", 0)
        return {"id": browse.neighbour(shown.table, shown.places, pk, int(step), kind, shown.bounds)}


class VerdictView(SessionMixin, View):
    """Accept, reject, or make undecided: some micrographs by id, or with all=1 all that the filter shows."""

    def post(self, request, name):
        session = self.get_session()
        if not can_judge(request.user, session):
            if session.status == session.Status.ARCHIVED:
                return json_response({"detail": ARCHIVED}, status=409)
            raise PermissionDenied("You may see these micrographs and not judge them.")
        try:
            shown = Shown(self, session, request.GET)
            verdict, reason = self._asked()
            exposures, what = self._which(shown)
        except Refused as error:
            return json_response({str(error): [f"This must be {error.must}."]}, status=400)
        try:
            act = judge(session, request.user, exposures, verdict, reason=reason, what=what)
        except ingest.SessionArchived:
            return json_response({"detail": ARCHIVED}, status=409)
        if act is None:
            return json_response({"act": None, "text": "Nothing changed: that was so already."})
        return json_response(
            {"act": act.pk, "count": act.count, "text": f"{VERDICTS[verdict]} {act.count:,}."}
        )

    def _asked(self) -> tuple[str, str]:
        verdict = self.request.POST.get("verdict")
        if verdict not in VERDICTS:
            raise Refused("verdict", "accepted, rejected or empty")
        reason = (self.request.POST.get("reason") or "").strip()
        if len(reason) > MAX_REASON or "\0" in reason:
            raise Refused("reason", f"text of at most {MAX_REASON} characters")
        return verdict, reason

    def _which(self, shown: Shown) -> tuple[list[int], str]:
        if self.request.POST.get("all") == "1":
            places = shown.places
            said = self.request.POST.get("count") or ""
            if said != str(len(places)):
                # What was confirmed is not what there is now.
                raise Refused("count", f"the number of micrographs shown, now {len(places):,}")
            return shown.table.rows["exposure"][places].tolist(), shown.choice.words
        ids = [text for text in (self.request.POST.get("ids") or "").split(",") if text]
        if not ids or len(ids) > MOST_IDS or not all(text.isascii() and text.isdecimal() for text in ids):
            raise Refused("ids", f"1 to {MOST_IDS:,} ids with commas between")
        places = [shown.place(int(text)) for text in ids if len(text) < 19]
        if len(places) < len(ids) or None in places:
            raise Refused("ids", "ids of this run's micrographs")
        numbers = [int(shown.table.number[place]) for place in places]
        first = f"micrograph {words.number(numbers[0])}"
        what = first if len(numbers) == 1 else f"{first} and {len(numbers) - 1:,} more"
        return shown.table.rows["exposure"][places].tolist(), what


class UndoView(SessionMixin, View):
    def post(self, request, name, pk):
        session = self.get_session()
        if not can_judge(request.user, session):
            raise PermissionDenied("You may see these micrographs and not judge them.")
        act = get_object_or_404(CurationAct, session=session, pk=pk)
        try:
            changed = undo(act, request.user)
        except AlreadyUndone:
            return json_response({"text": "This was undone already."}, status=409)
        except ingest.SessionArchived:
            return json_response({"detail": ARCHIVED}, status=409)
        left = act.count - changed
        text = f"Undone for {changed:,}." + (
            f" {left:,} were judged anew since and stay as they are." if left else ""
        )
        return json_response({"count": changed, "text": text})
