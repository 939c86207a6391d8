"""The page of statistics and its tables as CSV."""

import csv
import datetime
from collections.abc import Iterator

from django import forms
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils import timezone
from django.views.generic import TemplateView, View

from microscopes.models import Microscope
from people.models import Lab
from sessions_app.access import statistics_labs
from sessions_app.charts import Series, bar_chart, line_chart
from sessions_app.export import BYTE_ORDER_MARK, plain
from sessions_app.models import Session
from sessions_app.statistics import (
    MAX_DAYS,
    QUALITIES,
    Choice,
    Group,
    Statistics,
    TooMuch,
    statistics,
)

TABLES = ("months", "microscopes", "drift", "labs", "samples", "sessions")
ROWS_SHOWN = 15


def year_before(day: datetime.date) -> datetime.date:
    """The first day of the month eleven months earlier, so that twelve months are seen."""
    month = day.year * 12 + day.month - 1 - 11
    return datetime.date(month // 12, month % 12 + 1, 1)


class StatisticsForm(forms.Form):
    since = forms.DateField(label="From", required=True, widget=forms.DateInput(attrs={"type": "date"}))
    until = forms.DateField(label="to", required=True, widget=forms.DateInput(attrs={"type": "date"}))
    microscope = forms.ModelMultipleChoiceField(
        Microscope.objects.all(),
        to_field_name="code",
        label="Microscopes",
        required=False,
        widget=forms.CheckboxSelectMultiple,
    )
    lab = forms.ModelMultipleChoiceField(
        Lab.objects.none(), label="Labs", required=False, widget=forms.SelectMultiple(attrs={"size": 4})
    )
    sample = forms.CharField(
        label="Sample",
        required=False,
        max_length=120,
        widget=forms.TextInput(attrs={"placeholder": "any sample"}),
    )

    def __init__(self, data, *, labs):
        # What is not chosen is shown as what it means.
        data = data.copy()
        today = timezone.localdate()
        for name, usual in (("until", today), ("since", year_before(today))):
            if not data.get(name):
                data[name] = usual.isoformat()
        super().__init__(data)
        self.fields["lab"].queryset = labs
        for name in ("since", "until", "sample"):
            self.fields[name].widget.attrs["class"] = "form-control form-control-sm"
        self.fields["lab"].widget.attrs["class"] = "form-select form-select-sm"

    def clean(self):
        data = super().clean()
        if "since" in self.errors or "until" in self.errors:
            return data
        since, until = data["since"], data["until"]
        if since > until:
            self.add_error("until", "Choose a day on or after the first one.")
        elif (until - since).days > MAX_DAYS:
            self.add_error("since", "Choose a period of at most ten years.")
        elif since.year < 1900 or until.year > 9000:
            self.add_error("since", "Choose days that a microscope can have worked on.")
        return data


class StatisticsMixin:
    """Who may see which sessions here: staff all, a principal investigator those of the labs they lead."""

    def dispatch(self, request, *args, **kwargs):
        self.led = statistics_labs(request.user)
        if self.led == []:
            raise PermissionDenied(
                "Statistics are for the facility's staff, and for the head of a lab about that lab."
            )
        return super().dispatch(request, *args, **kwargs)

    def get_form(self) -> StatisticsForm:
        labs = Lab.objects.all() if self.led is None else Lab.objects.filter(pk__in=self.led)
        return StatisticsForm(self.request.GET, labs=labs)

    def get_statistics(self, form: StatisticsForm) -> Statistics:
        """Raises TooMuch."""
        data = form.cleaned_data
        labs = tuple(lab.pk for lab in data["lab"]) or None
        if self.led is not None:
            labs = labs or tuple(self.led)
        choice = Choice(
            since=data["since"],
            until=data["until"],
            microscopes=tuple(microscope.pk for microscope in data["microscope"]) or None,
            labs=labs,
            sample=data["sample"].strip(),
        )
        return statistics(Session.objects.visible_to(self.request.user), choice)


class StatisticsView(StatisticsMixin, TemplateView):
    template_name = "sessions_app/statistics.html"

    def get_context_data(self, **kwargs):
        form, found = self.get_form(), None
        if form.is_valid():
            try:
                found = self.get_statistics(form)
            except TooMuch as error:
                form.add_error(None, str(error))
        context = {"form": form, "statistics": found, "of_staff": self.led is None, "qualities": QUALITIES}
        if found is not None:
            context |= {
                "charts": charts(found),
                "drift_charts": drift_charts(found),
                "ranks": [
                    {"quality": quality, "best": best, "worst": found.ranked(quality, worst=True)}
                    for quality in QUALITIES
                    if (best := found.ranked(quality))
                ],
                "tables": [
                    {
                        "name": name,
                        "title": title,
                        "head": head,
                        "rows": [row for row in rows if row.sessions or row.booked_hours][:ROWS_SHOWN],
                        "more": max(0, len(rows) - ROWS_SHOWN),
                    }
                    for name, title, head, rows in (
                        ("months", "By month", "Month", list(reversed(found.months.values()))),
                        ("microscopes", "By microscope", "Microscope", list(found.microscopes.values())),
                        ("labs", "By lab", "Lab", list(found.labs.values())),
                        ("samples", "By sample", "Sample", list(found.samples.values())),
                    )
                ],
                "query": self.request.GET.urlencode(),
            }
        return super().get_context_data(**context, **kwargs)


def charts(found: Statistics) -> list:
    """What is counted by month."""
    labels = [f"{month:%b %y}" for month in found.months]
    groups = list(found.months.values())
    made = [
        bar_chart("Sessions", "", labels, [Series("sessions", [group.sessions for group in groups])]),
        bar_chart(
            "Hours",
            "h",
            labels,
            [
                Series("booked", [group.booked_hours for group in groups]),
                Series("beam", [group.beam_hours for group in groups]),
            ],
        ),
        bar_chart("Movies", "", labels, [Series("movies", [group.movies for group in groups])]),
        bar_chart("Data", "TB", labels, [Series("data", [group.bytes / 1e12 for group in groups])]),
        bar_chart("Particles", "", labels, [Series("particles", [group.particles for group in groups])]),
    ]
    return [chart for chart in made if chart is not None]


def drift_charts(found: Statistics) -> list:
    """Each quality by month, a line for each microscope."""
    months = list(found.months)
    labels = [f"{month:%b %y}" for month in months]
    made = []
    for quality in QUALITIES:
        lines = []
        for pk, by_month in found.drift.items():
            medians = [
                by_month[month].merged[quality.name].median if month in by_month else None for month in months
            ]
            scope = found.microscopes[pk]
            values = [median.value if median else None for median in medians]
            lines.append(Series(scope.label, values, scope.colour))
        made.append(line_chart(quality.label, quality.unit, labels, lines))
    return [chart for chart in made if chart is not None]


class StatisticsCSVView(StatisticsMixin, View):
    """One table of the page, whole, chosen by the same address."""

    def get(self, request, table):
        if table not in TABLES:
            raise Http404("There is no such table.")
        form = self.get_form()
        back = f"{reverse('sessions:statistics')}?{request.GET.urlencode()}"
        if not form.is_valid():
            return redirect(back)
        try:
            found = self.get_statistics(form)
        except TooMuch:
            return redirect(back)
        choice = found.choice
        response = HttpResponse(content_type="text/csv; charset=utf-8")
        response["Content-Disposition"] = (
            f'attachment; filename="statistics-{table}-{choice.since}-{choice.until}.csv"'
        )
        response["Cache-Control"] = "no-store"
        response.write(BYTE_ORDER_MARK)
        writer = csv.writer(response)
        for row in csv_rows(found, table):
            writer.writerow([plain(value) for value in row])
        return response


GROUP_HEADER = (
    "sessions",
    "booked_hours",
    "beam_hours",
    "movies",
    "bytes",
    "micrographs",
    "particles",
    *(
        f"{quality.name}_median_of_histogram_{'A' if quality.unit == 'Å' else quality.unit}"
        for quality in QUALITIES
    ),
)


def csv_rows(found: Statistics, table: str) -> Iterator[list]:
    """A header, then a row for each group; medians are of merged histograms, those of single sessions exact."""
    if table == "sessions":
        yield from _session_rows(found)
        return
    if table == "drift":
        yield ["microscope", "month", *GROUP_HEADER]
        for pk, by_month in found.drift.items():
            for month, group in sorted(by_month.items()):
                yield [found.microscopes[pk].label, f"{month:%Y-%m}", *_group_values(group, drift=True)]
        return
    yield [table[:-1], *GROUP_HEADER]
    for key, group in getattr(found, table).items():
        yield [f"{key:%Y-%m}" if table == "months" else group.label, *_group_values(group)]


def _group_values(group: Group, *, drift: bool = False) -> list:
    return [
        group.sessions,
        None if drift else round(group.booked_hours, 2),
        round(group.beam_hours, 2),
        group.movies,
        group.bytes,
        group.micrographs,
        group.particles,
        *(
            None
            if median is None
            else f"{median.bound}{median.value:.4g}"
            if median.bound
            else round(median.value, 4)
            for median in group.medians
        ),
    ]


def _session_rows(found: Statistics) -> Iterator[list]:
    yield [
        "session",
        "microscope",
        "lab",
        "sample",
        "start",
        "beam_hours",
        "movies",
        "bytes",
        "micrographs",
        "particles",
        "median_ctf_resolution_A",
        "median_total_motion_A",
        "median_astigmatism_nm",
        "complete",
    ]
    for row in found.sessions:
        hours = (row["beam"][1] - row["beam"][0]).total_seconds() / 3600 if row["beam"] else None
        yield [
            row["name"],
            row["microscope__name"],
            row["lab__name"],
            row["sample__name"],
            timezone.localtime(row["start"]).isoformat(timespec="seconds"),
            None if hours is None else round(hours, 2),
            row["movies"],
            row["data_bytes"],
            row["summary__micrographs"],
            row["summary__particles"],
            *(row[f"summary__{quality.column}"] for quality in QUALITIES),
            "yes" if row["summary__completed_at"] else "no",
        ]
