"""Real projects of RELION, Scipion and CryoSPARC as people see them: what stands on the pages is what the files say.

The real agent reads them and posts to the running site, as on a processing machine. The files are read here by gemmi,
sqlite3 and NumPy, independently of the agent's readers, and brought to the units and decimals that people read.
"""

import itertools
import math
import re
import shutil
from dataclasses import dataclass, field
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path

import numpy as np
import pytest
from django.urls import reverse
from gemmi import cif
from playwright.sync_api import expect

from tests.agent import cryosparc_project
from tests.agent.scipion_project import around
from tests.end_to_end.test_relion_projects import column
from tests.end_to_end.test_scipion_projects import MOTION_FOLDER, PROTOCOLS, post_once, rows
from tests.factories import SessionFactory

DATA = Path(__file__).parents[3] / "shared" / "data"
RELION = DATA / "relion" / "sppractice-relion5-tutorial"
SCIPION = DATA / "scipion" / "pwem-generated-relion5-values"
T20S = DATA / "cryosparc" / "cryosparc-tools-t20s-fixture"
J209 = DATA / "cryosparc" / "t20s-J209-job-v2.15"

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

# What people read: unit and decimals of each quantity; the stored ones differ for defocus and astigmatism.
SHOWN = {
    "defocus": ("µm", 2),
    "defocus_u": ("µm", 2),
    "defocus_v": ("µm", 2),
    "astigmatism": ("nm", 0),
    "defocus_angle": ("°", 0),
    "phase_shift": ("°", 1),
    "ctf_resolution": ("Å", 1),
    "ctf_score": ("", 3),
    "motion_total": ("Å", 1),
    "motion_early": ("Å", 1),
    "motion_late": ("Å", 1),
    "ice_thickness": ("relative", 2),
    "particles": ("", 0),
}
NOT_CHARTED = ("defocus_u", "defocus_v", "defocus_angle")


def there(folder: Path):
    """Skips a test whose data are not beside the project."""
    return pytest.mark.skipif(not folder.is_dir(), reason=f"no shared/data/{folder.relative_to(DATA)}")


def decimals(value: float, places: int) -> str:
    """The number as people read it, with the true minus sign and none before zero."""
    text = f"{Decimal(float(value)).quantize(Decimal(1).scaleb(-places), ROUND_HALF_UP):,}"
    return text.lstrip("-") if not text.strip("-0.") else text.replace("-", "−")


def percent(share: float) -> str:
    if 0 < share < 0.0005:
        return "<0.1%"
    return decimals(100 * share, 1 if 0 < share < 0.0995 else 0) + "%"


def written(quantity: str, value: float | None) -> str:
    if value is None:
        return "–"
    unit, places = SHOWN[quantity]
    return decimals(value, places) + ("" if unit in ("", "°") else " ") + unit


@dataclass
class Files:
    """What the files of a project say, in shown units; micrographs in the order of their acquisition."""

    names: list[str]
    # By quantity a value of each micrograph, None where unknown.
    values: dict[str, list] = field(default_factory=dict)
    # Number, particles and resolution (Å, None where unknown) of each class.
    classes: list[tuple] = field(default_factory=list)
    job: str = ""
    # Whether the picks' places are there beside their numbers.
    located: bool = True
    # Names of those that the pipeline's user threw out.
    rejected: tuple = ()

    def add_defocus(self, u, v, angle=None):
        """Of the two defoci in Å."""
        u, v = np.array(u, dtype=float), np.array(v, dtype=float)
        self.values |= {
            "defocus": list((u + v) / 2 / 1e4),
            "defocus_u": list(u / 1e4),
            "defocus_v": list(v / 1e4),
            "astigmatism": list(abs(u - v) / 10),
        }
        if angle is not None:
            self.values["defocus_angle"] = list(angle)

    def known(self, quantity: str) -> list:
        return [value for value in self.values[quantity] if value is not None]


def relion() -> Files:
    movies = cif.read(str(RELION / "Import/job001/movies.star")).find_block("movies")
    motion = RELION / "MotionCorr/job002/corrected_micrographs.star"
    ctf = RELION / "CtfFind/job005/micrographs_ctf.star"
    files = Files([Path(name).name for name in movies.find_values("_rlnMicrographMovieName")])
    for path in (motion, ctf):
        found = cif.read(str(path)).find_block("micrographs").find_values("_rlnMicrographName")
        assert [Path(name).stem for name in found] == [Path(name).stem for name in files.names]
    files.add_defocus(
        *(column(ctf, "micrographs", name) for name in ("DefocusU", "DefocusV", "DefocusAngle"))
    )
    # RELION writes motion in pixels of the movie.
    (pixel,) = set(column(motion, "optics", "MicrographOriginalPixelSize"))
    for part in ("Total", "Early", "Late"):
        files.values[f"motion_{part.lower()}"] = list(
            column(motion, "micrographs", f"AccumMotion{part}") * pixel
        )
    for quantity, name in {
        "ctf_resolution": "CtfMaxResolution",
        "ctf_score": "CtfFigureOfMerit",
        "ice_thickness": "CtfIceRingDensity",
    }.items():
        files.values[quantity] = list(column(ctf, "micrographs", name))
    picks = [RELION / "AutoPick/job008/Movies" / f"{Path(name).stem}_autopick.star" for name in files.names]
    files.values["particles"] = [
        len(column(path, "", "CoordinateX")) if path.is_file() else None for path in picks
    ]
    files.job = "Class2D/job010"
    estimates = column(RELION / files.job / "run_it025_model.star", "model_classes", "EstimatedResolution")
    members = column(RELION / files.job / "run_it025_data.star", "particles", "ClassNumber").astype(int)
    files.classes = [
        # Of an empty class RELION writes inf.
        (number, int((members == number).sum()), float(value) if np.isfinite(value) else None)
        for number, value in enumerate(estimates, start=1)
    ]
    return files


def scipion() -> Files:
    runs = SCIPION / "Runs"
    names = [name for (name,) in rows(runs / "000002_ProtImportMovies/movies.sqlite", "c12")]
    files = Files(names)
    found = rows(runs / "000120_CistemProtCTFFind/ctfs.sqlite", "c18, c01, c02, c03, c19, c20")
    by_name, u, v, angle, resolution, score = zip(*found, strict=True)
    assert list(by_name) == names
    files.add_defocus(u, v, angle)
    files.values |= {"ctf_resolution": list(resolution), "ctf_score": list(score)}
    steps = []
    for x, y in rows(SCIPION / MOTION_FOLDER / "movies.sqlite", "c16, c17"):
        places = list(zip(*([float(value) for value in text.split(",")] for text in (x, y)), strict=True))
        steps.append([0.885 * math.dist(*pair) for pair in itertools.pairwise(places)])
    # Three frames of 1.277 e/A2 are within 4 e/A2: two steps.
    files.values |= {
        "motion_total": [sum(row) for row in steps],
        "motion_early": [sum(row[:2]) for row in steps],
        "motion_late": [sum(row[2:]) for row in steps],
    }
    picked = [name for (name,) in rows(runs / "000181_ProtRelionAutopickLoG/coordinates.sqlite", "c04")]
    files.values["particles"] = [picked.count(name) for name in names]
    files.job = "000311_ProtRelionClassify2D"
    sizes = rows(runs / files.job / "classes2D.sqlite", "id, c01")
    files.classes = [(number, size, None) for number, size in sizes]
    return files


def movie(path: bytes, *endings: str) -> str:
    """What is left of a movie's name without CryoSPARC's uid and words, cut off by hand."""
    name = path.decode().rsplit("/", 1)[-1].split("_", 1)[1]
    for ending in endings:
        name = name.removesuffix(ending)
    return name


def t20s() -> Files:
    movies = np.load(T20S / "J1_imported_movies.cs")["movie_blob/path"]
    particles = np.load(T20S / "J30_passthrough_particles.cs")["location/micrograph_path"]
    files = Files([movie(path) for path in movies])
    picked = [movie(path, "_patch_aligned_doseweighted.mrc") + ".tif" for path in particles]
    files.values["particles"] = [picked.count(name) or None for name in files.names]
    return files


def j209() -> Files:
    paths = np.load(J209 / "J209/cryosparc_P9_J209_000_particles.cs")["blob/path"]
    ends = ("_particles.mrc", "_patch_aligned_doseweighted")
    found = [movie(path, *ends) for path in paths]
    names = list(dict.fromkeys(found))
    return Files(names, {"particles": [found.count(name) for name in names]}, located=False)


def written_cryosparc(count=8, classes=4) -> Files:
    """A whole project in CryoSPARC's own format: the collected files have neither CTF nor classes."""
    numbers = np.arange(1, count + 1)
    measured = cryosparc_project.defocus(numbers)
    files = Files([cryosparc_project.movie(number) for number in numbers])
    files.add_defocus(measured["df1_A"], measured["df2_A"])
    steps = [
        np.linalg.norm(np.diff(cryosparc_project.trajectory(number)[0].astype(float), axis=0), axis=1)
        * cryosparc_project.PIXEL
        for number in numbers
    ]
    left = cryosparc_project.particles(count, 5, 1)
    files.values |= {
        "ctf_resolution": list(measured["ctf_fit_to_A"]),
        "ctf_score": list(measured["cross_corr_ctffind4"]),
        # Without a phase plate CryoSPARC writes 0: nothing was measured.
        "phase_shift": [np.degrees(shift) if shift else None for shift in measured["phase_shift_rad"]],
        "ice_thickness": list(measured["ice"]),
        "motion_total": [row.sum() for row in steps],
        # Two frames of 2 e/A2 are within 4 e/A2: one step.
        "motion_early": [row[:1].sum() for row in steps],
        "motion_late": [row[1:].sum() for row in steps],
        "particles": np.bincount(left["number"], minlength=count + 1)[1:].tolist(),
    }
    files.rejected = (cryosparc_project.movie(2),)
    files.job = "J7"
    sizes = np.bincount(cryosparc_project.class_of(left, classes, 1), minlength=classes)
    files.classes = [(at + 1, int(size), 21.0 - at) for at, size in enumerate(sizes)]
    return files


@pytest.fixture
def session(transactional_db):
    return SessionFactory()


@pytest.fixture
def page(logged_in, session):
    return logged_in(session.booking.owner)


@pytest.fixture
def look(page, live_server, session, shot):
    """Opens the pages one after the other and holds what stands there against the files."""

    def all_pages(files: Files, name: str):
        def go(view):
            page.goto(live_server.url + reverse(f"preprocessing:{view}", args=[session.name]))

        go("live")
        assert_verdict(page, files)
        assert_series(page, files)
        assert_viewer(page, files)
        if files.classes:
            assert_live_classes(page, files)
            assert_panel_stays_clear(page)
            shot(page, f"{name}-live-scrolled", full_page=False)
        page.evaluate("scrollTo(0, 0)")
        shot(page, f"{name}-live")
        go("micrographs")
        assert_micrographs(page, files)
        page.evaluate("scrollTo(0, 0)")
        shot(page, f"{name}-micrographs")
        go("classes")
        if files.classes:
            assert_classes(page, files)
            shot(page, f"{name}-classes")
        else:
            expect(page.get_by_text("There are no 2D classes yet")).to_be_visible()

    return all_pages


def assert_verdict(page, files: Files):
    def told(*quantities):
        columns = [files.values.get(quantity, []) for quantity in quantities]
        return sum(any(value is not None for value in row) for row in zip(*columns, strict=True))

    particles = files.known("particles")
    for name, count in {
        "movies": len(files.names),
        "motion_corrected": told("motion_total"),
        "ctf_estimated": told("ctf_resolution"),
        "picked": len(particles),
        "particles": sum(particles),
        "classes": len(files.classes),
    }.items():
        expect(page.locator(f'[data-counter="{name}"]')).to_have_text(f"{count:,}")
    expect(page.locator("[data-note=particles]")).to_have_text(
        f"{decimals(sum(particles) / len(particles), 0)} per micrograph"
    )


def assert_usable(page, files: Files):
    """Of the micrographs that can be judged, those within the limits that stand in the charts."""
    limits = {}
    for line in page.locator(".live-limit").all():
        quantity, side = line.get_attribute("data-limit").rsplit("_", 1)
        limits[quantity, side] = float(re.search(r"[\d.]+", line.text_content())[0])
    judged = usable = 0
    for at in range(len(files.names)):
        told = [
            value <= limit if side == "max" else value >= limit
            for (quantity, side), limit in limits.items()
            if (value := files.values[quantity][at]) is not None
        ]
        rejected = files.names[at] in files.rejected
        judged += bool(told) or rejected
        usable += bool(told) and all(told) and not rejected
    share = percent(usable / judged)
    expect(page.locator("[data-verdict=usable]")).to_have_text(share)
    # In words and in the counter the same.
    if judged >= 10:
        expect(page.locator("#live-advice")).to_contain_text(share if usable else "None of the last")
    expect(page.locator("[data-note=usable]")).to_have_text(f"{usable} of {judged}")


def assert_series(page, files: Files):
    charted = [quantity for quantity in files.values if quantity not in NOT_CHARTED]
    expect(page.locator("[data-series]:not([hidden])")).to_have_count(len(charted))
    for quantity in charted:
        card = page.locator(f"[data-series={quantity}]")
        values = files.known(quantity)
        card.scroll_into_view_if_needed()
        expect(card.locator("[data-readout]")).to_have_text(f"median {written(quantity, np.median(values))}")
        beyond = assert_beyond_the_histogram(card, np.array(values))
        if len(values) > beyond:
            expect(card.locator("[data-histogram]")).to_have_attribute(
                "data-count", str(len(values) - beyond)
            )
    assert_usable(page, files)


def assert_beyond_the_histogram(card, values: np.ndarray) -> int:
    """How many its note says are outside of its edges; as many as the files have there."""
    expect(
        card.locator("[data-histogram] canvas").or_(card.locator("[data-outside]:not(:empty)")).first
    ).to_be_visible()
    said = re.findall(r"([\d,]+) (below|above) ([\d.]+)", card.locator("[data-outside]").text_content())
    for count, side, edge in said:
        there = values < float(edge) if side == "below" else values >= float(edge)
        assert int(count.replace(",", "")) == there.sum()
    return sum(int(count.replace(",", "")) for count, *_ in said)


def assert_values(place, files: Files, at: int):
    for quantity, values in files.values.items():
        expect(place.locator(f"[data-value={quantity}]")).to_have_text(written(quantity, values[at]))


def assert_viewer(page, files: Files):
    """The newest that has the pictures its run sends is shown; then its neighbours, by keyboard."""
    number, name = page.locator("[data-viewer=number]"), page.locator("[data-viewer=name]")
    expect(page.locator("[data-viewer=total]")).to_have_text(f"{len(files.names):,}")
    expect(number).to_have_text(re.compile(r"\d"))
    first = int(number.text_content()) - 1
    key, step = ("ArrowLeft", -1) if first >= 3 else ("ArrowRight", 1)
    for at in range(first, first + 4 * step, step):
        expect(number).to_have_text(str(at + 1))
        expect(name).to_have_text(files.names[at])
        assert_values(page.locator("[data-viewer=values]"), files, at)
        page.keyboard.press(key)
    page.locator("[data-viewer=follow]").click()
    expect(name).to_have_text(files.names[first])


def assert_panel_stays_clear(page):
    """The micrograph stays beside the charts: neither below the site's header nor over what comes after them."""

    def box(selector):
        return page.locator(selector).bounding_box()

    page.evaluate("scrollTo(0, document.querySelector('[data-series=motion_total]').offsetTop)")
    header, panel = box(".site-header"), box("#live-viewer")
    assert panel["y"] >= header["y"] + header["height"]
    page.locator("#live-classes").scroll_into_view_if_needed()
    panel = box("#live-viewer")
    assert panel["y"] + panel["height"] <= box("#live-panels")["y"]


def most_first(files: Files) -> tuple[list, int]:
    return sorted(files.classes, key=lambda row: (-row[1], row[0])), sum(row[1] for row in files.classes)


def assert_live_classes(page, files: Files):
    classes, total = most_first(files)
    expect(page.locator("[data-classes-title]")).to_contain_text(
        re.compile(f"^{files.job}.*: {len(classes):,} classes, {total:,} particles$")
    )
    figures = page.locator(".live-class")
    expect(figures).to_have_count(len(classes))
    expect(figures.locator("[data-part=particles]")).to_have_text([f"{size:,}" for _, size, _ in classes])
    expect(figures.locator("[data-part=resolution]")).to_have_text(
        ["" if resolution is None else f"{resolution:.1f} Å" for *_, resolution in classes]
    )
    shares = [percent(size / total) for _, size, _ in classes]
    expect(figures.locator("[data-part=share]")).to_have_text(shares)


def assert_micrographs(page, files: Files):
    expect(page.locator('[data-part="count"]')).to_have_text(f"{len(files.names):,} micrographs")
    page.get_by_label("Sort").select_option("number")
    tiles = page.locator('[data-part="tiles"] .browse-tile')
    expect(tiles.first.locator(".browse-line > :first-child")).to_have_text("1")
    shown = "ctf_resolution" if "ctf_resolution" in files.values else "particles"
    for at, value in enumerate(files.values[shown][:60]):
        said = "" if value is None else written(shown, value)
        expect(tiles.nth(at).locator(".browse-line")).to_have_text(re.compile(rf"^{at + 1}\s*{said}$"))
    on_page = tiles.count()
    for at in {0, on_page // 2, on_page - 1}:
        tiles.nth(at).click()
        expect(page.locator('[data-part="number"]')).to_have_text(f"{at + 1:,}")
        expect(page.locator('[data-part="name"]')).to_have_text(files.names[at])
        assert_values(page.locator('[data-part="values"]'), files, at)
        assert_picks(page, files.values["particles"][at], files.located)


def assert_picks(page, picks, located):
    switch = page.locator('[data-part="picks-switch"]')
    if picks is None or not located:
        expect(switch).to_be_hidden()
    else:
        expect(page.locator('[data-part="picks-count"]')).to_have_text(
            f"{picks:,} pick{'' if picks == 1 else 's'}"
        )


def assert_classes(page, files: Files):
    classes, total = most_first(files)
    expect(page.locator(".results-bar .lead")).to_contain_text(
        re.compile(f"{files.job}, iteration \\d+: {len(classes):,} classes, {total:,} particles")
    )
    expect(page.locator(".class-tile")).to_have_text(
        [
            re.compile(
                rf"\s*{number}\s+{size:,}\s+{percent(size / total)}\s+good\s+"
                + ("–" if resolution is None else rf"{resolution:.1f}\s*Å")
            )
            for number, size, resolution in classes
        ]
    )


@there(RELION)
def test_a_relion_project(look, live_server, session):
    post_once(live_server, session, "relion", RELION)
    look(relion(), "relion")


@there(SCIPION)
def test_a_scipion_project(look, live_server, session, tmp_path):
    shutil.copytree(SCIPION / "Runs", tmp_path / "scipion/Runs")
    around(tmp_path / "scipion", PROTOCOLS)
    post_once(live_server, session, "scipion", tmp_path / "scipion")
    look(scipion(), "scipion")


@there(T20S)
def test_exported_cryosparc_movies_and_particles(look, live_server, session):
    post_once(live_server, session, "cryosparc", T20S)
    look(t20s(), "cryosparc-t20s")


@there(J209)
def test_a_cryosparc_refinement(look, live_server, session):
    post_once(live_server, session, "cryosparc", J209)
    look(j209(), "cryosparc-j209")


def test_a_cryosparc_project_of_jobs(look, live_server, session, tmp_path):
    root = cryosparc_project.write(tmp_path / "CS-t20s", cryosparc_project.files(count=8, classes=4))
    post_once(live_server, session, "cryosparc", root)
    look(written_cryosparc(), "cryosparc-jobs")
