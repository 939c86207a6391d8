"""A session on paper: one PDF for the people whose session it was.

Made from the summary and the run's table of values, so that it is the same before and after archiving.
"""

import datetime
import io
import logging
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from django.contrib.staticfiles import finders
from django.utils import timezone
from fpdf import FPDF
from fpdf.enums import XPos, YPos
from PIL import Image

from people import words
from preprocessing import packed, reduction
from preprocessing.histograms import MEASURES
from preprocessing.models import Alert, ClassAverage, ProcessingRun
from preprocessing.state import limits_of
from preprocessing.statistics import session_statistics
from preprocessing.verdict import bounds_of
from sessions_app.acquisition import FIELDS, LABELS, UNITS
from sessions_app.images import session_image_dir

FONT = "dejavu"
MARGIN = 16  # mm
INK, GREY, RULE = (29, 36, 48), (88, 98, 111), (217, 221, 227)
BAND, LINE = (201, 221, 240), (0, 114, 178)
# Which quantities are drawn, where the run has them.
DRAWN = ("defocus", "ctf_resolution", "astigmatism", "motion_total", "ice_thickness", "particles")
BINS = 80
CLASSES = 24
MOST_ALERTS = 20
PIXELS = 480
# It tells of every letter that it copies.
logging.getLogger("fontTools").setLevel(logging.WARNING)


@lru_cache(maxsize=1)
def _fonts() -> dict[str, Path]:
    """The letters' files. Raises FileNotFoundError where the front-end files were not fetched."""
    found = {}
    for style, name in (("", "DejaVuSans.ttf"), ("B", "DejaVuSans-Bold.ttf")):
        path = finders.find(f"vendor/dejavu/{name}")
        if path is None:
            raise FileNotFoundError(f"vendor/dejavu/{name}: fetch the front-end files (make setup).")
        found[style] = Path(path)
    return found


class Paper(FPDF):
    """A4 with the facility's name above and page numbers below."""

    def __init__(self, facility: str, title: str):
        super().__init__()
        self.facility, self.title_words = facility, title
        for style, path in _fonts().items():
            self.add_font(FONT, style, path)
        self.set_margin(MARGIN)
        self.set_auto_page_break(True, margin=18)
        self.set_title(title)
        self.set_creator("EMhub")
        self.set_lang("en")
        self.add_page()

    def header(self):
        self.ink(8, GREY)
        self.cell(0, 5, self.facility)
        self.set_x(MARGIN)
        self.cell(0, 5, self.title_words, align="R", new_x=XPos.LMARGIN, new_y=YPos.NEXT)
        self.ln(3)

    def footer(self):
        self.set_y(-12)
        self.ink(8, GREY)
        made = timezone.localtime()
        self.cell(0, 5, f"Made by EMhub on {made.day} {made:%b %Y %H:%M %Z}")
        self.set_x(MARGIN)
        self.cell(0, 5, f"{self.page_no()} of {{nb}}", align="R")

    def ink(self, size: float, colour=INK, style: str = ""):
        self.set_font(FONT, style, size)
        self.set_text_color(*colour)

    def head(self, text: str, room: float = 30):
        """A heading that is not left alone at the foot of a page."""
        if self.will_page_break(room):
            self.add_page()
        self.ln(3)
        self.ink(11, style="B")
        self.cell(0, 7, text, new_x=XPos.LMARGIN, new_y=YPos.NEXT)

    def text_block(self, text: str, size: float = 9, colour=INK):
        self.ink(size, colour)
        self.multi_cell(0, size * 0.5, text, new_x=XPos.LMARGIN, new_y=YPos.NEXT)

    def facts(self, rows: Sequence[tuple[str, str]], columns: int = 2):
        """Names and values side by side; each value may take several lines."""
        width = self.epw / columns
        for first in range(0, len(rows), columns):
            if self.will_page_break(6):
                self.add_page()
            top, bottom = self.get_y(), self.get_y()
            for column, (name, value) in enumerate(rows[first : first + columns]):
                self.set_xy(MARGIN + column * width, top)
                self.ink(8, GREY)
                self.multi_cell(0.42 * width, 4.6, name, align="L", new_x=XPos.RIGHT, new_y=YPos.TOP)
                self.set_xy(MARGIN + column * width + 0.42 * width, top)
                self.ink(9)
                self.multi_cell(0.56 * width, 4.6, value, align="L", new_x=XPos.LMARGIN, new_y=YPos.NEXT)
                bottom = max(bottom, self.get_y())
            self.set_y(bottom)

    def frame(self, x: float, y: float, width: float, height: float, title: str):
        """An empty chart with its title; answers the drawing area (x, y, width, height)."""
        self.ink(8, style="B")
        self.set_xy(x, y)
        self.cell(width, 4, title)
        area = (x + 10, y + 5, width - 12, height - 10)
        self.set_draw_color(*RULE)
        self.set_line_width(0.2)
        self.rect(*area)
        return area

    def scale(self, area, low: float, high: float, first: str, last: str):
        x, y, width, height = area
        self.ink(6.5, GREY)
        for value, at in ((high, y), (low, y + height - 3)):
            self.set_xy(x - 11, at)
            self.cell(10, 3, _short(value), align="R")
        self.set_xy(x, y + height)
        self.cell(width, 3.5, first)
        self.set_xy(x, y + height)
        self.cell(width, 3.5, last, align="R")


def report(session, facility: str) -> bytes:
    """The PDF of a session that has its summary; without a pipeline it says so and tells the rest."""
    summary = session.summary
    runs = list(ProcessingRun.objects.filter(session=session).order_by("pk"))
    leading = next((run for run in runs if run.pk == summary.leading_run), None)
    paper = Paper(facility, f"Session {session.name}")
    paper.ink(17, style="B")
    paper.cell(0, 9, session.name, new_x=XPos.LMARGIN, new_y=YPos.NEXT)
    paper.text_block(_sentence(session), 10, GREY)
    paper.head("Session")
    paper.facts(_people_and_dates(session))
    paper.head("Acquisition")
    paper.facts([(LABELS[name], _value(getattr(session, name), UNITS.get(name, ""))) for name in FIELDS])
    paper.head("Results")
    if leading is None:
        paper.text_block("No pipeline reported on this session.")
    else:
        fields = session_statistics(session, summary, runs)[str(leading.pk)]
        _results(paper, session, summary, leading, fields)
        paper.ln(1)
        paper.text_block(verdict_words(session, leading))
        if len(runs) > 1:
            _runs(paper, runs, leading)
        _alerts(paper, session)
        _charts(paper, leading)
        _throughput(paper, summary)
        _classes(paper, session, leading)
        _pictures(paper, session, summary)
        paper.head("For the methods section")
        paper.text_block(methods(session, leading, fields))
    if session.notes:
        paper.head("Notes")
        paper.text_block(session.notes)
    return bytes(paper.output())


def verdict_words(session, run: ProcessingRun) -> str:
    """How much of the run is usable by the session's limits, which it names."""
    bounds = bounds_of(limits_of(session))
    judged, good = reduction.usable(packed.table(run), bounds)
    count = int(judged.sum())
    if not count:
        return "No micrograph can be judged by the session's limits."
    limits = []
    for name, (low, high) in bounds.items():
        measure = MEASURES[name]
        unit = f" {measure.unit}" if measure.unit and measure.unit != "relative" else ""
        sides = [
            f"at least {low:g}{unit}" if low is not None else "",
            f"at most {high:g}{unit}" if high is not None else "",
        ]
        limits.append(f"{measure.label} {' and '.join(filter(None, sides))}")
    by = f" ({'; '.join(limits)})" if limits else ""
    share = words.percent(int(good.sum()) / count)
    of = f"{share} of {_count(count, 'micrograph')} are usable"
    return f"{of} by the session's limits{by} and by what was decided by hand."


def _alerts(paper: Paper, session) -> None:
    found = list(Alert.objects.filter(session=session).order_by("raised_at", "pk")[:MOST_ALERTS])
    if not found:
        return
    paper.head("Alerts")
    for alert in found:
        until = "still open" if alert.resolved_at is None else f"until {_clock(alert.resolved_at)}"
        paper.text_block(f"{_clock(alert.raised_at)}, {until}: {alert.text}", 8.5)


def _clock(moment: datetime.datetime) -> str:
    local = timezone.localtime(moment)
    return f"{words.day(local.date(), weekday=False)} {words.clock(local)}"


def methods(session, run: ProcessingRun, fields: dict[str, dict]) -> str:
    """What a paper says of how the data were taken, from what is known; nothing is guessed."""
    microscope = session.microscope
    model = microscope.model or microscope.name
    parts = [f"{_count(session.movies, 'movie')} were recorded on a {model}"]
    voltage = session.voltage_kv or microscope.voltage_kv
    if voltage:
        parts.append(f" operated at {voltage:g} kV")
    if session.camera:
        parts.append(f" with a {session.camera.name} camera")
    details = []
    if session.magnification:
        details.append(f"a nominal magnification of {session.magnification:,}")
    if session.pixel_size:
        details.append(f"a pixel size of {session.pixel_size:g} Å")
    if session.total_dose:
        dose = f"a total dose of {session.total_dose:g} e⁻/Å²"
        details.append(dose + (f" in {session.frames} frames" if session.frames else ""))
    if session.energy_slit:
        details.append(f"an energy filter slit of {session.energy_slit:g} eV")
    if details:
        parts.append(", at " + _listed(details))
    text = "".join(parts) + "."
    program = f"{run.software} {run.version}".strip()
    text += f" They were processed during acquisition with {program}"
    if "defocus" in fields:
        low, high = fields["defocus"]["p10"] / 1e4, fields["defocus"]["p90"] / 1e4
        text += f"; the defocus of 80% of the micrographs was between {low:.1f} and {high:.1f} µm"
    if "ctf_resolution" in fields:
        text += f", and the CTF was fitted to {fields['ctf_resolution']['median']:.1f} Å (median)"
    return text + "."


def _sentence(session) -> str:
    lab = f", {session.lab}" if session.lab else ""
    sample = f"{session.sample} on " if session.sample else ""
    return f"{sample}{session.microscope}{lab}; {words.span(session.start, session.end or timezone.now())}"


def _people_and_dates(session) -> list[tuple[str, str]]:
    return [
        ("Owner", str(session.owner)),
        ("Operator", str(session.operator or "–")),
        ("Lab", str(session.lab or "–")),
        ("Sample", str(session.sample or "–")),
        (
            "Microscope",
            f"{session.microscope}{f', {session.microscope.model}' if session.microscope.model else ''}",
        ),
        ("Camera", session.camera.name if session.camera else "–"),
        ("Started", words.exact(session.start)),
        ("Ended", words.exact(session.end) if session.end else "still running"),
        ("Movies", words.number(session.movies) or "–"),
        ("Data", " ".join(words.size(session.data_bytes) or ("–",))),
    ]


def _results(paper: Paper, session, summary, run: ProcessingRun, fields: dict[str, dict]) -> None:
    program = f"{run.software} {run.version}".strip()
    paper.facts(
        [
            ("Pipeline", f"{program}{f', {run.label}' if run.label else ''}"),
            ("Micrographs", words.number(run.micrographs)),
            ("Motion corrected", words.number(run.motion_corrected)),
            ("CTF estimated", words.number(run.ctf_estimated)),
            ("Particles", words.number(run.particles)),
            ("2D classes", words.number(run.classes)),
        ]
    )
    curated = summary.curation
    if curated:
        paper.text_block(
            f"By hand {_count(curated['accepted'], 'movie')} accepted and {curated['rejected']:,} rejected.",
            8.5,
        )
    rows = [
        (label, unit, fields[name], scale)
        for name, label, unit, scale in (
            ("defocus", "Defocus", "µm", 1e4),
            ("ctf_resolution", "CTF resolution", "Å", 1),
            ("astigmatism", "Astigmatism", "nm", 10),
            ("motion_total", "Total motion", "Å", 1),
            ("ice_thickness", "Ice thickness", "relative", 1),
            ("particles", "Particles per micrograph", "", 1),
        )
        if name in fields
    ]
    if not rows:
        return
    paper.ln(2)
    paper.set_draw_color(*RULE)
    widths = [58, *[(paper.epw - 58) / 5] * 5]
    for style, cells in (
        ("B", ["", "10% below", "Median", "90% below", "Smallest", "Largest"]),
        *(
            (
                "",
                [
                    f"{label}{f' ({unit})' if unit else ''}",
                    *(_short(numbers[key] / scale) for key in ("p10", "median", "p90", "min", "max")),
                ],
            )
            for label, unit, numbers, scale in rows
        ),
    ):
        paper.ink(8.5, style=style)
        for width, cell, align in zip(widths, cells, "LRRRRR", strict=True):
            paper.cell(width, 5, cell, align=align, border="B")
        paper.ln(5)


def _runs(paper: Paper, runs: list[ProcessingRun], leading: ProcessingRun) -> None:
    lines = [
        f"{run.software} {run.version} {run.label or run.key}: {run.micrographs:,} micrographs, "
        f"{run.particles:,} particles{' (shown here)' if run.pk == leading.pk else ''}"
        for run in runs
    ]
    paper.ln(2)
    paper.text_block(f"{len(runs)} runs looked at this session:\n" + "\n".join(lines), 8.5, GREY)


def _charts(paper: Paper, run: ProcessingRun) -> None:
    table = packed.table(run)
    drawn = [name for name in DRAWN if name in table.sent]
    if not drawn:
        return
    paper.head("Over the session", 60)
    paper.text_block(
        "Left: median of neighbouring images, with 10% and 90% as a band, by image number. Right: how often.",
        8,
        GREY,
    )
    height = 36
    wide, narrow = 0.68 * paper.epw, 0.31 * paper.epw
    for name in drawn:
        if paper.will_page_break(height + 2):
            paper.add_page()
        measure = MEASURES[name]
        title = f"{measure.label}{f' ({measure.unit})' if measure.unit else ''}"
        values = table.measure(name)[table.order]
        top = paper.get_y() + 1
        _series(paper, MARGIN, top, wide, height, title, values)
        _histogram(paper, MARGIN + paper.epw - narrow, top, narrow, height, values)
        paper.set_xy(MARGIN, top + height)


def _series(paper: Paper, x, y, width, height, title, values: np.ndarray) -> None:
    area = paper.frame(x, y, width, height, title)
    known = values[~np.isnan(values)]
    low, high = (float(value) for value in np.percentile(known, [0.5, 99.5]))
    low, high = (low, high) if high > low else (low - 0.5, high + 0.5)
    paper.scale(area, low, high, "1", f"{len(values):,}")
    bins = min(BINS, len(values))
    stretches = np.array_split(values, bins)
    quantiles = np.array(
        [
            np.nanpercentile(part, [10, 50, 90]) if not np.isnan(part).all() else [np.nan] * 3
            for part in stretches
        ]
    )
    left, top, across, down = area

    def place(value):
        return top + down * (1 - (min(max(value, low), high) - low) / (high - low))

    step = across / bins
    paper.set_fill_color(*BAND)
    for number, (p10, _, p90) in enumerate(quantiles):
        if not np.isnan(p10):
            upper = place(p90)
            paper.rect(left + number * step, upper, step, max(place(p10) - upper, 0.1), style="F")
    paper.set_draw_color(*LINE)
    paper.set_line_width(0.35)
    for number in range(bins - 1):
        one, other = quantiles[number][1], quantiles[number + 1][1]
        if not (np.isnan(one) or np.isnan(other)):
            paper.line(left + (number + 0.5) * step, place(one), left + (number + 1.5) * step, place(other))


def _histogram(paper: Paper, x, y, width, height, values: np.ndarray) -> None:
    known = values[~np.isnan(values)]
    low, high = (float(value) for value in np.percentile(known, [0.5, 99.5]))
    low, high = (low, high) if high > low else (low - 0.5, high + 0.5)
    counts, _ = np.histogram(np.clip(known, low, high), bins=30, range=(low, high))
    left, top, across, down = paper.frame(x, y, width, height, "")
    paper.scale((left, top, across, down), 0, int(counts.max()), _short(low), _short(high))
    paper.set_fill_color(*LINE)
    for number, count in enumerate(counts):
        if count:
            tall = down * count / counts.max()
            paper.rect(left + number * across / 30, top + down - tall, across / 30 - 0.2, tall, style="F")


def _throughput(paper: Paper, summary) -> None:
    counts = summary.throughput.get("counts")
    if not counts:
        return
    height = 32
    if paper.will_page_break(height + 4):
        paper.add_page()
    happened = "were acquired" if summary.throughput["basis"] == "acquired" else "arrived"
    top = paper.get_y() + 1
    area = paper.frame(MARGIN, top, paper.epw, height, f"Movies per hour, as they {happened}")
    begun = datetime.datetime.fromisoformat(summary.throughput["start"])
    start = timezone.localtime(begun)
    end = timezone.localtime(begun + datetime.timedelta(hours=len(counts)))
    paper.scale(area, 0, max(counts), f"{start.day} {start:%b %H:%M}", f"{end.day} {end:%b %H:%M}")
    left, upper, across, down = area
    paper.set_fill_color(*LINE)
    step = across / len(counts)
    for number, count in enumerate(counts):
        if count:
            tall = down * count / max(counts)
            paper.rect(left + number * step + 0.05 * step, upper + down - tall, 0.9 * step, tall, style="F")
    paper.set_xy(MARGIN, top + height)


def _classes(paper: Paper, session, run: ProcessingRun) -> None:
    found = list(ClassAverage.objects.latest_set(run).exclude(image="").order_by("-particles", "number"))
    shown = [(row, picture) for row in found[:CLASSES] if (picture := _picture(session, row.image))]
    if not shown:
        return
    total = sum(row.particles for row in found) or 1
    paper.head("2D classes", 50)
    first = shown[0][0]
    largest = f"the {len(shown)} largest of {run.classes} classes"
    paper.text_block(f"{first.job}, iteration {first.iteration}: {largest}.", 8, GREY)
    captions = [
        f"{row.particles:,} ({100 * row.particles / total:.0f}%){f' {row.resolution:.1f} Å' if row.resolution else ''}"
        for row, _ in shown
    ]
    _grid(paper, [picture for _, picture in shown], captions, columns=6)


def _pictures(paper: Paper, session, summary) -> None:
    shown = [(row, picture) for row in summary.pictures[:6] if (picture := _picture(session, row["image"]))]
    if not shown:
        return
    paper.head("Micrographs", 60)
    captions = [
        ", ".join(
            filter(
                None,
                (
                    f"{row['defocus'] / 1e4:.2f} µm" if row["defocus"] is not None else "",
                    f"{row['ctf_resolution']:.1f} Å" if row["ctf_resolution"] is not None else "",
                ),
            )
        )
        for row, _ in shown
    ]
    _grid(paper, [picture for _, picture in shown], captions, columns=3)


def _grid(paper: Paper, images: list[Image.Image], captions: list[str], *, columns: int) -> None:
    gap = 2
    size = (paper.epw - gap * (columns - 1)) / columns
    for first in range(0, len(images), columns):
        row = images[first : first + columns]
        tallest = max(size * image.height / image.width for image in row)
        if paper.will_page_break(tallest + 5):
            paper.add_page()
        top = paper.get_y() + 1
        for column, image in enumerate(row):
            x = MARGIN + column * (size + gap)
            paper.image(image, x=x, y=top, w=size)
            paper.ink(6.5, GREY)
            paper.set_xy(x, top + tallest + 0.3)
            paper.cell(size, 3.5, captions[first + column], align="C")
        paper.set_xy(MARGIN, top + tallest + 4.5)


def _picture(session, name: str) -> Image.Image | None:
    """A small grey copy of a kept picture; None where the file is gone or cannot be read."""
    path = session_image_dir(session) / name
    if not name or not path.is_file():
        return None
    try:
        image = Image.open(io.BytesIO(path.read_bytes())).convert("L")
    except (OSError, ValueError):
        return None
    image.thumbnail((PIXELS, PIXELS))
    return image


def _value(value, unit: str) -> str:
    if value is None:
        return "–"
    text = f"{value:,}" if isinstance(value, int) else f"{value:.6g}"
    return f"{text} {unit}".strip()


def _short(value: float) -> str:
    return words.number(float(value), None) or "–"


def _count(number: int | None, what: str) -> str:
    return f"{number or 0:,} {what}{'' if number == 1 else 's'}"


def _listed(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
