"""Pages of what came of the micrographs: 2D classes, and a session's runs beside each other."""

import io
import math
from itertools import groupby

from django.core.exceptions import PermissionDenied
from django.db.models import Max
from django.http import Http404, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.views.generic import TemplateView, View
from PIL import Image, ImageDraw

from preprocessing import compare, live
from preprocessing.live_views import Refused, SessionMixin, number
from preprocessing.models import ClassAverage, ProcessingRun, RunEvent
from sessions_app.access import can_judge
from sessions_app.images import session_image_dir

ORDERS = {
    "-particles": "most particles first",
    "resolution": "best resolution first",
    "number": "by number",
}
TILE = 160
MOST_IN_MONTAGE = 400
EVENTS = 30
#: More beside each other cannot be read.
MOST_RUNS = 6


def set_name(job: str, iteration: int) -> str:
    """A set of classes in an address."""
    return f"{iteration}:{job}"


class ClassesMixin(SessionMixin):
    """The run, and of its sets of classes (job and iteration) the one that the query names or the newest."""

    def get_chosen(self):
        self.session_row = self.get_session()
        try:
            self.runs, run = live.runs_and(self.session_row, number(self.request, "run", None))
            iteration = number(self.request, "iteration", None)
        except (Refused, live.NoSuchRun) as error:
            raise Http404 from error
        rows = ClassAverage.objects.filter(run__session=self.session_row)
        if run is None or "run" not in self.request.GET:
            # Of several runs, the one that has classes at all.
            with_classes = [each for each in self.runs if each.classes]
            run = max(with_classes, key=lambda each: (each.micrographs, each.pk), default=run)
        self.run = run
        if run is None:
            self.sets, self.chosen = [], None
            return
        sets = rows.filter(run=run).order_by().values_list("job", "iteration").annotate(newest=Max("pk"))
        newest_of = {}
        for job, _, newest in sets:
            newest_of[job] = max(newest, newest_of.get(job, newest))
        # The job that was heard of last comes first, its last iteration before the earlier ones.
        in_order = sorted(sets, key=lambda each: (-newest_of[each[0]], each[0], -each[1]))
        self.sets = [(job, number) for job, number, _ in in_order]
        asked = (self.request.GET.get("job"), iteration)
        asked = next((each for each in self.sets if set_name(*each) == self.request.GET.get("set")), asked)
        newest = rows.latest_set(run).values_list("job", "iteration").first()
        self.chosen = asked if asked in self.sets else newest

    def classes(self):
        job, iteration = self.chosen
        return ClassAverage.objects.filter(run=self.run, job=job, iteration=iteration)


class ClassesPage(ClassesMixin, TemplateView):
    template_name = "preprocessing/classes.html"

    def get_context_data(self, **kwargs):
        self.get_chosen()
        order = self.request.GET.get("sort")
        order = order if order in ORDERS else "-particles"
        rows = []
        if self.chosen:
            rows = list(self.classes())
            # What has no resolution comes last, whichever way databases sort the unknown.
            keys = {
                "-particles": lambda row: (-row.particles, row.number),
                "resolution": lambda row: (row.resolution is None, row.resolution or 0, -row.particles),
                "number": lambda row: row.number,
            }
            rows.sort(key=keys[order])
        total = sum(row.particles for row in rows)
        selected = [row for row in rows if row.selected]
        return super().get_context_data(
            session=self.session_row,
            runs=[run for run in self.runs if run.classes],
            run=self.run,
            sets=[
                (job, [(number, set_name(job, number)) for _, number in of_job])
                for job, of_job in groupby(self.sets, key=lambda each: each[0])
            ],
            more_sets=len(self.sets) > 1,
            chosen=self.chosen,
            order=order,
            orders=list(ORDERS.items()),
            rows=[(row, row.particles / total if total else None) for row in rows],
            total=total,
            selected=selected,
            selected_particles=sum(row.particles for row in selected),
            selected_share=sum(row.particles for row in selected) / total if total else 0,
            may_judge=can_judge(self.request.user, self.session_row),
            query=self.request.GET.urlencode(),
            **kwargs,
        )


class ClassesSelectView(ClassesMixin, View):
    """Which classes of the set shown are the good ones: the whole list at once."""

    def post(self, request, name):
        self.get_chosen()
        if not can_judge(request.user, self.session_row):
            raise PermissionDenied("You may see these classes and not choose among them.")
        if self.chosen:
            given = [text for text in request.POST.getlist("selected") if text.isascii() and text.isdecimal()]
            numbers = [int(text) for text in given if len(text) < 10]
            good = self.classes().filter(number__in=numbers)
            self.classes().exclude(number__in=numbers).filter(selected=True).update(selected=False)
            good.filter(selected=False).update(selected=True)
        page = reverse("preprocessing:classes", args=[self.session_row.name])
        return HttpResponseRedirect(f"{page}?{request.GET.urlencode()}" if request.GET else page)


class MontageView(ClassesMixin, View):
    """The classes that are shown (or ?which=selected) as one PNG, largest first, with numbers and shares."""

    def get(self, request, name):
        self.get_chosen()
        if not self.chosen:
            raise Http404("There are no classes yet.")
        rows = list(self.classes().order_by("-particles", "number"))
        total = sum(row.particles for row in rows) or 1
        if request.GET.get("which") == "selected":
            rows = [row for row in rows if row.selected]
        rows = [row for row in rows if row.image][:MOST_IN_MONTAGE]
        if not rows:
            raise Http404("None of these classes has a picture.")
        columns = math.ceil(math.sqrt(len(rows)))
        sheet = Image.new("L", (columns * TILE, math.ceil(len(rows) / columns) * TILE), 0)
        for place, row in enumerate(rows):
            x, y = place % columns * TILE, place // columns * TILE
            picture = self._picture(row)
            if picture is not None:
                sheet.paste(picture, (x, y))
            draw = ImageDraw.Draw(sheet)
            draw.text((x + 4, y + 3), str(row.number), fill=255, stroke_width=2, stroke_fill=0)
            share = f"{100 * row.particles / total:.0f}%"
            draw.text((x + 4, y + TILE - 15), share, fill=255, stroke_width=2, stroke_fill=0)
        file = io.BytesIO()
        sheet.save(file, "PNG", optimize=True)
        response = HttpResponse(file.getvalue(), content_type="image/png")
        name = f"{self.session_row.name}-classes.png"
        response["Content-Disposition"] = f'attachment; filename="{name}"'
        response["Cache-Control"] = "private, no-cache"
        return response

    def _picture(self, row: ClassAverage) -> Image.Image | None:
        path = session_image_dir(self.session_row) / row.image
        try:
            picture = Image.open(io.BytesIO(path.read_bytes())).convert("L")
        except (OSError, ValueError):
            return None  # Its frame stays empty.
        return picture.resize((TILE, TILE), Image.Resampling.LANCZOS)


class RunsPage(SessionMixin, TemplateView):
    """All runs of a session; of two, how they differ on the same micrographs."""

    template_name = "preprocessing/runs.html"

    def get_context_data(self, **kwargs):
        session = self.get_session()
        every = list(ProcessingRun.objects.filter(session=session).order_by("-micrographs", "-pk"))
        runs = every[:MOST_RUNS]
        try:
            asked = [number(self.request, name, None) for name in ("one", "other")]
        except Refused as error:
            raise Http404 from error
        by_pk = {run.pk: run for run in every}
        pair = [by_pk.get(pk) for pk in asked]
        if None in pair or pair[0] == pair[1]:
            pair = every[:2] if len(every) > 1 else []
        shared, commons = compare.common(*pair) if pair else (0, [])
        events = RunEvent.objects.filter(run__session=session).select_related("run").order_by("-pk")[:EVENTS]
        return super().get_context_data(
            session=session,
            runs=runs,
            every=every,
            left_out=len(every) - len(runs),
            rows=compare.side_by_side(runs),
            pair=pair,
            shared=shared,
            commons=commons,
            parameters=compare.parameters(runs),
            events=list(events),
            **kwargs,
        )
