"""The live page in a real browser: pipelines post by the REST API, and the open page follows."""

import contextlib
import datetime
import io
import re
import socket
import threading
from urllib.parse import urlsplit

import numpy as np
import pytest
from django.urls import reverse
from django.utils import timezone
from PIL import Image
from playwright.sync_api import expect

from preprocessing import packed
from preprocessing.models import SessionLimits
from sessions_app.models import Session
from tests.factories import MembershipFactory, SessionFactory, make_token

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

SOON = 10_000  # ms: that it arrives without a reload; how soon is measured by bench.arrival.
PATIENCE = 10_000  # ms: where the order of things is tested and not their speed.


class Pipeline:
    """Posts to the session as a pipeline does."""

    def __init__(self, http, base, session):
        self.http, self.base = http, f"{base}/api/v1"
        self.token = make_token(session.microscope)[1]
        self.run = self.post(
            f"/sessions/{session.name}/runs/",
            {
                "key": "p1",
                "software": "RELION",
                "host": "gpu01",
                "pixel_size": 2.0,
                "width": 1000,
                "height": 500,
            },
        )["id"]

    def send(self, path, **request):
        headers = {"Authorization": f"Token {self.token}"}
        answer = self.http.post(f"{self.base}{path}", headers=headers, **request)
        assert answer.ok, (answer.status, answer.text())
        return answer.json()

    def post(self, path, data):
        return self.send(path, data=data)

    def micrographs(self, first, count, **values):
        values = {"defocus_u": 12000, "defocus_v": 11000, "ctf_resolution": 3.5, "motion_total": 9} | values
        rows = [{"name": f"movie_{number:04}.tiff", **values} for number in range(first, first + count)]
        return self.post(f"/runs/{self.run}/micrographs/", {"micrographs": rows})

    def picture(self, number, kind="micrograph", size=(200, 100)):
        self.image(kind=kind, micrograph=f"movie_{number:04}.tiff", size=size, seed=number)

    def image(self, *, size, seed, **fields):
        pixels = np.random.default_rng(seed).integers(0, 255, size[::-1]).astype("uint8")
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        fields |= {"file": {"name": "p.png", "mimeType": "image/png", "buffer": file.getvalue()}}
        return self.send(f"/runs/{self.run}/images/", multipart=fields)


@pytest.fixture
def session(transactional_db):
    return SessionFactory()


@pytest.fixture
def page(logged_in, session):
    """A page of the session's owner, watched for complaints."""
    return logged_in(session.booking.owner)


@pytest.fixture
def pipeline(page, live_server, session):
    return Pipeline(page.request, live_server.url, session)


@pytest.fixture
def address(live_server, session):
    return live_server.url + reverse("preprocessing:live", args=[session.name])


def counter(page, name):
    return page.locator(f'[data-counter="{name}"]')


def line(page):
    return page.locator("#live-connection")


def is_live(page):
    expect(line(page)).to_have_attribute("data-connection", re.compile("live|back"))


def test_what_is_posted_is_on_the_open_page_within_two_seconds(page, pipeline, address):
    page.goto(address)
    expect(page.locator("#live-no-micrograph")).to_be_visible()
    is_live(page)
    page.evaluate("window.sameDocument = true")

    pipeline.micrographs(1, 3, particles=200)
    expect(counter(page, "ctf_estimated")).to_have_text("3", timeout=SOON)
    expect(counter(page, "particles")).to_have_text("600")
    expect(page.locator("#live-state")).to_have_attribute("data-state", "collecting")
    expect(page.locator("#live-no-micrograph")).to_be_hidden()
    expect(page.locator("[data-viewer=number]")).to_have_text("3")
    expect(page.locator("[data-value=defocus]")).to_have_text("1.15 µm")
    for quantity in ("defocus", "ctf_resolution", "motion_total"):
        expect(page.locator(f"[data-series={quantity}] [data-plot] canvas")).to_be_visible()
        expect(page.locator(f"[data-series={quantity}] [data-histogram] canvas")).to_be_visible()

    pipeline.post(f"/runs/{pipeline.run}/events/", {"level": "warning", "text": "The gain reference is old."})
    expect(page.locator(".live-event-warning")).to_contain_text("The gain reference is old.", timeout=SOON)
    assert page.evaluate("window.sameDocument") is True


def test_the_page_starts_with_a_pipeline_that_comes_later(page, live_server, session, address):
    page.goto(address)
    expect(page.locator("#live-no-run")).to_be_visible()
    expect(page.locator("#live-command")).to_contain_text(session.name)
    is_live(page)
    Pipeline(page.request, live_server.url, session).micrographs(1, 1)
    expect(counter(page, "motion_corrected")).to_have_text("1", timeout=PATIENCE)
    expect(page.locator("#live-empty")).to_be_hidden()
    expect(page.locator("[data-run-facts]")).to_contain_text("gpu01")


def test_pictures_come_undistorted_with_a_scale_bar(page, pipeline, address):
    pipeline.micrographs(1, 1)
    page.goto(address)
    is_live(page)
    expect(page.locator("[data-viewer=micrograph]")).to_be_hidden()  # Never sent so far.
    pipeline.picture(1)
    pipeline.picture(1, kind="psd", size=(64, 64))
    image = page.locator("[data-viewer=micrograph] img")
    expect(image).to_be_visible(timeout=PATIENCE)
    box = image.bounding_box()
    assert box["width"] / box["height"] == pytest.approx(2.0, abs=0.02)
    expect(page.locator("[data-viewer=psd] img")).to_be_visible(timeout=PATIENCE)
    # 1000 pixels of 2 Å are 200 nm: a bar of 50 nm is a quarter of them.
    bar = page.locator(".live-bar")
    expect(bar).to_have_text("50 nm")
    assert bar.bounding_box()["width"] == pytest.approx(box["width"] / 4, rel=0.02)


def test_classes_appear_with_particles_share_and_resolution(page, pipeline, address):
    page.goto(address)
    is_live(page)
    expect(page.locator("#live-classes")).to_be_hidden()
    classes = [{"number": 1, "particles": 100, "resolution": 8.25}, {"number": 2, "particles": 300}]
    pipeline.post(
        f"/runs/{pipeline.run}/classes/", {"job": "Class2D/job010", "iteration": 25, "classes": classes}
    )
    figures = page.locator(".live-class")
    expect(figures).to_have_count(2, timeout=PATIENCE)
    expect(figures.nth(0)).to_contain_text("300")
    expect(figures.nth(0)).to_contain_text("75%")
    expect(figures.nth(1)).to_contain_text("8.3 Å")
    pipeline.image(
        kind="class_average", job="Class2D/job010", iteration="25", number="1", size=(48, 48), seed=1
    )
    figures.nth(1).scroll_into_view_if_needed()
    expect(figures.nth(1).locator("img")).to_be_visible(timeout=PATIENCE)


def test_the_next_iteration_keeps_pictures_until_its_own_come(page, pipeline, address):
    def classify(job, iteration, particles):
        classes = [{"number": 1, "particles": particles}]
        pipeline.post(
            f"/runs/{pipeline.run}/classes/", {"job": job, "iteration": iteration, "classes": classes}
        )

    def picture(iteration, seed):
        fields = {"job": "job010", "iteration": str(iteration), "number": "1"}
        return pipeline.image(kind="class_average", size=(48, 48), seed=seed, **fields)

    classify("job010", 1, 100)
    page.goto(address)
    figure = page.locator(".live-class")
    expect(figure).to_contain_text("100")
    expect(figure.locator(".live-class-picture")).to_be_hidden()  # None was ever sent.
    first = picture(1, 1)["image"]
    figure.scroll_into_view_if_needed()
    expect(figure.locator("img")).to_have_attribute("src", first, timeout=PATIENCE)
    classify("job010", 2, 200)
    expect(figure).to_contain_text("200", timeout=PATIENCE)
    expect(figure.locator("img")).to_have_attribute("src", first)
    expect(figure).to_have_attribute("title", re.compile("earlier iteration"))
    second = picture(2, 2)["image"]
    expect(figure.locator("img")).to_have_attribute("src", second, timeout=PATIENCE)
    classify("job020", 1, 50)
    expect(figure).to_contain_text("50", timeout=PATIENCE)
    expect(figure.locator("img")).to_have_count(0)


def test_a_chosen_micrograph_stays_until_the_newest_is_asked_for(page, pipeline, address):
    pipeline.micrographs(1, 3)
    page.goto(address)
    name, chip = page.locator("[data-viewer=name]"), page.locator("[data-viewer=follow]")
    expect(name).to_have_text("movie_0003.tiff")
    page.keyboard.press("ArrowLeft")
    expect(name).to_have_text("movie_0002.tiff")
    expect(chip).to_contain_text("1 newer")
    pipeline.micrographs(4, 2)
    expect(chip).to_contain_text("3 newer", timeout=PATIENCE)
    expect(name).to_have_text("movie_0002.tiff")
    chip.click()
    expect(name).to_have_text("movie_0005.tiff")
    expect(chip).to_contain_text("Following")
    pipeline.micrographs(6, 1)
    expect(name).to_have_text("movie_0006.tiff", timeout=PATIENCE)
    page.keyboard.press("ArrowRight")  # There is none newer.
    expect(name).to_have_text("movie_0006.tiff")


def test_following_waits_until_a_micrograph_is_whole(page, pipeline, address):
    pipeline.micrographs(1, 2)
    pipeline.picture(2)
    pipeline.picture(2, kind="psd", size=(64, 64))
    page.goto(address)
    name = page.locator("[data-viewer=name]")
    expect(name).to_have_text("movie_0002.tiff")
    pipeline.micrographs(3, 1, ctf_resolution=None)
    pipeline.picture(3)
    expect(page.locator("[data-viewer=total]")).to_have_text("3", timeout=PATIENCE)
    expect(name).to_have_text("movie_0002.tiff")
    pipeline.micrographs(3, 1, ctf_resolution=3.1)
    pipeline.picture(3, kind="psd", size=(64, 64))
    expect(name).to_have_text("movie_0003.tiff", timeout=PATIENCE)


def test_a_value_that_comes_later_is_shown_of_the_chosen_micrograph(page, pipeline, address):
    pipeline.micrographs(1, 2)
    page.goto(address)
    expect(page.locator("[data-viewer=name]")).to_have_text("movie_0002.tiff")
    page.keyboard.press("ArrowLeft")
    expect(page.locator("[data-viewer=name]")).to_have_text("movie_0001.tiff")
    expect(page.locator("[data-value=particles]")).to_have_count(0)
    pipeline.micrographs(1, 1, particles=321)
    expect(page.locator("[data-value=particles]")).to_have_text("321", timeout=PATIENCE)


def test_a_click_on_a_point_shows_its_micrograph(page, pipeline, address):
    pipeline.micrographs(1, 9)
    page.goto(address)
    over = page.locator("[data-series=motion_total] [data-plot] .u-over")
    expect(over).to_be_visible()
    over.scroll_into_view_if_needed()
    box = over.bounding_box()
    page.mouse.click(box["x"] + box["width"] * 0.5, box["y"] + box["height"] * 0.5)
    expect(page.locator("[data-viewer=name]")).to_have_text("movie_0005.tiff")
    expect(page.locator("[data-series=motion_total] [data-readout]")).to_contain_text("image 5")


def test_nothing_jumps_when_micrographs_come(page, pipeline, address):
    pipeline.micrographs(1, 20, particles=100)
    pipeline.picture(20)
    page.goto(address)
    expect(page.locator("[data-viewer=micrograph] img")).to_be_visible()
    page.evaluate(
        """() => {
            window.shifts = 0;
            new PerformanceObserver((list) => {
                for (const entry of list.getEntries()) window.shifts += entry.value;
            }).observe({ type: "layout-shift" });
        }"""
    )
    pipeline.micrographs(21, 5, particles=150)
    pipeline.picture(25)
    expect(page.locator("[data-viewer=name]")).to_have_text("movie_0025.tiff", timeout=PATIENCE)
    page.wait_for_timeout(500)
    assert page.evaluate("window.shifts") == 0


def hide(page, hidden):
    state = "hidden" if hidden else "visible"
    page.evaluate(
        f"""() => {{
            Object.defineProperty(document, "visibilityState", {{ value: "{state}", configurable: true }});
            document.dispatchEvent(new Event("visibilitychange"));
        }}"""
    )


def test_a_hidden_page_is_quiet_and_catches_up_at_once(page, pipeline, address):
    page.goto(address)
    is_live(page)
    hide(page, True)
    page.wait_for_timeout(300)  # A question under way may end.
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    pipeline.micrographs(1, 2)
    page.wait_for_timeout(2500)
    assert asked == []
    expect(counter(page, "motion_corrected")).to_have_text("0")
    hide(page, False)
    expect(counter(page, "motion_corrected")).to_have_text("2", timeout=SOON)


@pytest.mark.parametrize("trouble", ["no connection", "server error", "no JSON"])
def test_a_lost_connection_is_said_and_caught_up_with(page, pipeline, address, trouble):
    pipeline.micrographs(1, 1)
    page.goto(address)
    is_live(page)

    def fail(route):
        if trouble == "no connection":
            route.abort()
        elif trouble == "server error":
            route.fulfill(status=502, body="Bad gateway")
        else:
            route.fulfill(status=200, body="<html>Back soon</html>")

    page.route("**/live/data/**", fail)
    expect(line(page)).to_contain_text("Connection lost, trying again; last update", timeout=PATIENCE)
    expect(counter(page, "motion_corrected")).to_have_text("1")  # What was known stays.
    pipeline.micrographs(2, 4)
    page.unroute("**/live/data/**")
    expect(line(page)).to_contain_text("Connected again", timeout=2 * PATIENCE)
    expect(counter(page, "motion_corrected")).to_have_text("5")
    expect(page.locator("[data-viewer=total]")).to_have_text("5")


def test_logged_out_says_so_with_a_way_back(page, pipeline, address):
    page.goto(address)
    is_live(page)
    page.context.clear_cookies()
    expect(line(page)).to_contain_text("You are logged out.", timeout=PATIENCE)
    link = line(page).locator("a")
    expect(link).to_be_visible()
    assert reverse("people:login") in link.get_attribute("href")
    assert "next=" in link.get_attribute("href")


def test_runs_are_chosen_by_links(page, pipeline, session, address):
    pipeline.micrographs(1, 2)
    page.goto(address)
    expect(page.locator("#live-runs")).to_be_hidden()
    other = pipeline.post(
        f"/sessions/{session.name}/runs/", {"key": "p2", "software": "CryoSPARC", "label": "second"}
    )
    link = page.get_by_role("link", name=re.compile("second"))
    expect(link).to_be_visible(timeout=PATIENCE)
    link.click()
    page.wait_for_url(f"**?run={other['id']}")
    expect(page.locator("#live-no-micrograph")).to_be_visible()
    expect(page.locator("#live-runs [aria-current=true]")).to_contain_text("second")


def test_times_are_drawn_when_the_exposures_have_them(page, pipeline, session, address):
    pipeline.micrographs(1, 3)
    page.goto(address)
    expect(page.locator("[data-axis=number]")).to_have_attribute("aria-pressed", "true")
    exposures = [
        {"name": f"movie_{number:04}.tiff", "acquired_at": f"2026-11-23T10:0{number}:00+01:00"}
        for number in (1, 2, 3)
    ]
    pipeline.post(f"/sessions/{session.name}/exposures/", {"exposures": exposures})
    expect(page.locator("[data-axis=time]")).to_have_attribute("aria-pressed", "true", timeout=PATIENCE)
    page.locator("[data-axis=number]").click()
    expect(page.locator("[data-axis=number]")).to_have_attribute("aria-pressed", "true")


def spread(pipeline, count):
    """So many micrographs whose resolution grows by 0.1 Å each from 3.0 Å."""
    rows = [
        {"name": f"movie_{number:04}.tiff", "ctf_resolution": round(3 + number / 10, 1), "motion_total": 9}
        for number in range(count)
    ]
    pipeline.post(f"/runs/{pipeline.run}/micrographs/", {"micrographs": rows})


def drag(page, begin, end):
    page.mouse.move(*begin)
    page.mouse.down()
    page.mouse.move((begin[0] + end[0]) / 2, (begin[1] + end[1]) / 2, steps=4)
    page.mouse.move(*end, steps=4)
    page.mouse.up()


def test_all_charts_and_histograms_follow_the_zoom(page, pipeline, address):
    spread(pipeline, 41)
    page.goto(address)
    charts = page.locator("#live-charts")
    counted = page.locator("[data-series=motion_total] [data-histogram]")
    expect(counted).to_have_attribute("data-count", "41")
    over = page.locator("[data-series=ctf_resolution] .u-over").first
    over.scroll_into_view_if_needed()
    box = over.bounding_box()
    middle = box["y"] + box["height"] / 2
    # Image numbers 1 to 41 stand from edge to edge: a quarter from each edge are 11 and 31.
    drag(page, (box["x"] + box["width"] * 0.24, middle), (box["x"] + box["width"] * 0.76, middle))
    expect(charts).to_have_attribute("data-view", "part")
    expect(page.locator("[data-part]")).to_contain_text("21 of 41 micrographs in view")
    for quantity in ("ctf_resolution", "motion_total"):
        place = page.locator(f"[data-series={quantity}] [data-histogram]")
        expect(place).to_have_attribute("data-count", "21")
    expect(page.locator("[data-series=ctf_resolution] [data-readout]")).to_contain_text("median 5.0 Å")
    page.locator("#live-pair").scroll_into_view_if_needed()
    expect(page.locator("#live-pair [data-canvas]")).to_have_attribute("data-points", "21")
    # What comes outside of the view leaves it as it is.
    pipeline.micrographs(100, 1)
    expect(counter(page, "movies")).to_have_text("42", timeout=PATIENCE)
    expect(counted).to_have_attribute("data-count", "21")
    page.keyboard.press("0")
    expect(charts).to_have_attribute("data-view", "all")
    expect(counted).to_have_attribute("data-count", "42")
    page.keyboard.press("+")
    expect(charts).to_have_attribute("data-view", "part")
    page.locator("[data-zoom=all]").click()
    expect(charts).to_have_attribute("data-view", "all")


def test_of_many_micrographs_extremes_are_drawn_and_every_one_when_zoomed_in(page, pipeline, address):
    for first in range(0, 4000, 1000):
        pipeline.micrographs(first, 1000)
    pipeline.micrographs(1500, 1, ctf_resolution=9.5)
    page.goto(address)
    said = page.locator("[data-part]")
    expect(said).to_contain_text("All 4,000 micrographs: extremes and medians are drawn")
    expect(page.locator("[data-series=motion_total] [data-histogram]")).to_have_attribute(
        "data-count", "4000"
    )
    assert page.evaluate("EMhubLive.columns.length") < 3000
    assert 9.5 in page.evaluate("EMhubLive.columns.series.ctf_resolution")
    for _ in range(3):
        page.keyboard.press("+")
    expect(said).to_contain_text(re.compile(r"^50\d of 4,000 micrographs in view, 100% of them usable$"))
    expect(page.locator("[data-series=motion_total] [data-histogram]")).to_have_attribute(
        "data-count", re.compile(r"^50\d$")
    )
    page.keyboard.press("0")
    pipeline.micrographs(4000, 2)
    expect(page.locator("[data-viewer=total]")).to_have_text("4,002", timeout=PATIENCE)
    expect(page.locator("[data-viewer=name]")).to_have_text("movie_4001.tiff")
    expect(page.locator("[data-series=motion_total] [data-histogram]")).to_have_attribute(
        "data-count", "4002"
    )


def test_stepping_leaves_out_no_micrograph_that_the_charts_leave_out(page, pipeline, address):
    for first in range(0, 4000, 1000):
        pipeline.micrographs(first, 1000)
    page.goto(address)
    name, number = page.locator("[data-viewer=name]"), page.locator("[data-viewer=number]")
    expect(number).to_have_text("4,000", timeout=PATIENCE)
    assert page.evaluate("EMhubLive.columns.length") < 3000
    over = page.locator("[data-series=motion_total] [data-plot] .u-over")
    over.scroll_into_view_if_needed()
    box = over.bounding_box()
    page.mouse.click(box["x"] + box["width"] / 3, box["y"] + box["height"] / 2)
    expect(number).not_to_have_text("4,000")
    here = int(number.text_content().replace(",", ""))
    assert 1200 < here < 1500
    drawn = set(page.evaluate("EMhubLive.columns.number"))
    assert not drawn.issuperset(range(here - 15, here))
    for key, steps in (
        ("ArrowLeft", range(here - 1, here - 16, -1)),
        ("ArrowRight", range(here - 14, here + 1)),
    ):
        for step in steps:
            page.keyboard.press(key)
            expect(number).to_have_text(f"{step:,}")
            expect(name).to_have_text(f"movie_{step - 1:04}.tiff")
    page.get_by_role("button", name="Newer micrograph").click()
    expect(number).to_have_text(f"{here + 1:,}")
    # Both ends are ends.
    page.locator("[data-viewer=follow]").click()
    expect(number).to_have_text("4,000")
    expect(page.get_by_role("button", name="Newer micrograph")).to_be_disabled()
    page.keyboard.press("ArrowLeft")
    expect(name).to_have_text("movie_3998.tiff")


def usable(page):
    return page.locator("[data-verdict=usable]")


def test_a_limit_is_dragged_and_the_usable_share_follows(page, pipeline, session, address, logged_in):
    spread(pipeline, 41)  # 3.0 to 7.0 Å; the facility's usual limit is 6 Å.
    page.goto(address)
    expect(usable(page)).to_have_text("76%")
    line = page.locator("[data-limit=ctf_resolution_max]")
    expect(line).to_contain_text("≤ 6.0 Å")
    over = page.locator("[data-series=ctf_resolution] .u-over").first
    over.scroll_into_view_if_needed()
    at, box = line.bounding_box(), over.bounding_box()
    left = box["x"] + box["width"] / 4
    drag(page, (left, at["y"]), (left, box["y"] + box["height"] / 2))
    expect(line).not_to_contain_text("6.0 Å")
    expect(usable(page)).not_to_have_text("76%", timeout=PATIENCE)
    moved = SessionLimits.objects.get(session=session)
    assert 4.5 < moved.ctf_resolution_max < 5.5
    assert moved.changed_by == session.booking.owner
    share = sum(round(3 + number / 10, 1) <= moved.ctf_resolution_max for number in range(41)) / 41
    expect(usable(page)).to_have_text(f"{share:.0%}")
    assert page.locator("#live-charts").get_attribute("data-view") == "all"  # Dragging a limit is no zoom.
    # By keyboard and as a number too.
    line.focus()
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    step = f"{moved.ctf_resolution_max + 0.1:.1f} Å"
    expect(line).to_contain_text(step)
    field = page.get_by_role("spinbutton", name="CTF resolution: at most")
    field.fill("6.5")
    field.press("Enter")
    expect(usable(page)).to_have_text("88%", timeout=PATIENCE)

    # Once it is over its people look at the line and cannot move it.
    Session.objects.filter(pk=session.pk).update(status="finished", end=timezone.now())
    other = logged_in(MembershipFactory(lab=session.lab).user)
    other.goto(address)
    expect(other.locator("[data-limit=ctf_resolution_max]")).to_contain_text("≤ 6.5 Å")
    expect(other.locator("[data-limit=ctf_resolution_max][role=slider]")).to_have_count(0)
    expect(other.locator(".live-limits input")).to_have_count(0)


def test_a_paused_page_says_how_many_are_new(page, pipeline, address):
    pipeline.micrographs(1, 3)
    page.goto(address)
    name, pause = page.locator("[data-viewer=name]"), page.locator("[data-pause]")
    counted = page.locator("[data-series=motion_total] [data-histogram]")
    expect(name).to_have_text("movie_0003.tiff")
    expect(counted).to_have_attribute("data-count", "3")
    pause.click()
    expect(pause).to_contain_text("Paused")
    pipeline.micrographs(4, 2)
    expect(pause).to_contain_text("2 new", timeout=PATIENCE)
    expect(counter(page, "movies")).to_have_text("5")
    expect(name).to_have_text("movie_0003.tiff")
    expect(counted).to_have_attribute("data-count", "3")
    pause.click()
    expect(name).to_have_text("movie_0005.tiff")
    expect(counted).to_have_attribute("data-count", "5")
    expect(pause).to_have_text("Pause")


class Door:
    """A port that passes everything on to the server until it is shut, and then refuses as a stopped server does."""

    def __init__(self, host, port):
        self.host, self.behind = host, port
        self.port = 0
        self.open()

    def open(self):
        self.threads, self.ends = [], []
        self.listener = socket.create_server((self.host, self.port))
        self.port = self.listener.getsockname()[1]
        self.begin(self.listen, self.listener)

    def shut(self):
        # Waking them first: a socket closed while somebody waits on it keeps its port.
        for end in (self.listener, *self.ends):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        for thread in self.threads:
            thread.join(5)

    def begin(self, work, *values):
        thread = threading.Thread(target=work, args=values, daemon=True)
        self.threads.append(thread)
        thread.start()

    def listen(self, listener):
        with contextlib.suppress(OSError):
            while True:
                near, _ = listener.accept()
                far = socket.create_connection((self.host, self.behind))
                self.ends += [near, far]
                self.begin(self.pass_on, near, far)
                self.begin(self.pass_on, far, near)

    def pass_on(self, source, target):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)


def test_it_catches_up_exactly_after_the_server_was_stopped_and_started(
    page, pipeline, session, live_server, complaints
):
    there = urlsplit(live_server.url)
    door = Door(there.hostname, there.port)
    try:
        pipeline.micrographs(1, 3)
        path = reverse("preprocessing:live", args=[session.name])
        page.goto(f"http://{there.hostname}:{door.port}{path}")
        is_live(page)
        page.evaluate("window.sameDocument = true")
        door.shut()
        expect(line(page)).to_contain_text("Connection lost", timeout=2 * PATIENCE)
        packed.forget()  # What a new process does not remember.
        pipeline.micrographs(4, 5)
        pipeline.micrographs(2, 1, ctf_resolution=5.5)
        expect(counter(page, "motion_corrected")).to_have_text("3")
        door.open()
        expect(counter(page, "motion_corrected")).to_have_text("8", timeout=3 * PATIENCE)
        expect(page.locator("[data-viewer=total]")).to_have_text("8")
        resolution = page.locator("[data-series=ctf_resolution] [data-histogram]")
        expect(resolution).to_have_attribute("data-count", "8")
        assert page.evaluate("window.sameDocument") is True
    finally:
        page.close()
        door.shut()
    complaints[:] = [said for said in complaints if f":{door.port}/" not in said]


def test_the_map_leads_from_squares_to_foil_holes(page, pipeline, session, live_server, shot):
    exposures, rows = [], []
    for number in range(60):
        name = f"movie_{number:04}.tiff"
        exposures.append(
            {
                "name": name,
                "grid_square": f"square{number // 20}",
                "foil_hole": f"hole{number // 4}",
                "stage_x": 100.0 * (number // 20) + number % 5,
                "stage_y": 50.0 * (number // 20) + number // 5,
            }
        )
        rows.append({"name": name, "ctf_resolution": 3.0 + number // 20, "defocus_u": 12000})
    pipeline.post(f"/sessions/{session.name}/exposures/", {"exposures": exposures})
    pipeline.post(f"/runs/{pipeline.run}/micrographs/", {"micrographs": rows})
    page.goto(live_server.url + reverse("preprocessing:live", args=[session.name]))
    page.locator("[data-tab=where]").click()
    page.wait_for_load_state()
    expect(page.locator("#where-sentence")).to_have_text("60 micrographs on 3 grid squares.")
    expect(page.locator("tbody tr")).to_have_count(3)
    expect(page.locator("[data-place=square2]")).to_contain_text("5.0")
    shot(page, "where")
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.set_viewport_size({"width": 1280, "height": 800})
    table = page.locator(".where-list")
    assert table.evaluate("table => table.scrollWidth <= table.clientWidth")
    page.get_by_role("button", name="square1").click()
    expect(page.locator("#where-sentence")).to_have_text("20 micrographs on 5 foil holes of square1.")
    expect(page.locator("tbody tr")).to_have_count(5)
    page.go_back()
    expect(page.locator("tbody tr")).to_have_count(3)
    page.locator("[data-quantity]").select_option("defocus")
    expect(page.locator("[data-column]")).to_have_text("(µm)")
    expect(page.locator("[data-place=square2]")).to_contain_text("1.20")


def test_hundreds_of_micrographs_with_pictures(page, pipeline, session, address, shot):
    """What a session looks like after some hours; with EMHUB_SHOTS the pictures are for people to look at."""
    rng = np.random.default_rng(3)
    rows, exposures = [], []
    for number in range(1, 301):
        defocus = 8000 + 1500 * (number // 3 % 8) + rng.normal(0, 300)
        bad = 120 < number < 150
        rows.append(
            {
                "name": f"movie_{number:04}.tiff",
                "defocus_u": defocus + 150,
                "defocus_v": defocus,
                "defocus_angle": rng.normal(40, 5),
                "ctf_resolution": 3 + rng.gamma(2, 0.2) + (rng.uniform(1, 4) if bad else 0),
                "ctf_score": 0.18,
                "motion_total": rng.gamma(9, 1.2),
                "particles": int(rng.normal(300, 30)),
            }
        )
        at = session.start + datetime.timedelta(seconds=12 * number)
        exposures.append({"name": rows[-1]["name"], "acquired_at": at.isoformat(), "grid_square": "24825724"})
    pipeline.post(f"/sessions/{session.name}/exposures/", {"exposures": exposures})
    pipeline.post(f"/runs/{pipeline.run}/micrographs/", {"micrographs": rows})
    pipeline.picture(300, size=(400, 200))
    pipeline.picture(300, kind="psd", size=(256, 256))
    classes = [{"number": n, "particles": 9000 // n, "resolution": 6 + n / 3} for n in range(1, 25)]
    pipeline.post(
        f"/runs/{pipeline.run}/classes/", {"job": "Class2D/job010", "iteration": 25, "classes": classes}
    )
    page.goto(address)
    expect(page.locator("[data-viewer=micrograph] img")).to_be_visible()
    expect(page.locator("[data-viewer=number]")).to_have_text("300")
    expect(page.locator("[data-verdict=rate_now]")).to_have_text(re.compile(r"^(29\d|30\d) /h$"))
    expect(page.locator(".live-class")).to_have_count(24)
    shot(page, "live")


def test_on_a_phone_sentence_counters_and_picture_come_first(page, pipeline, address):
    pipeline.micrographs(1, 5)
    pipeline.picture(5)
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(address)
    expect(page.locator("[data-viewer=micrograph] img")).to_be_visible()
    tops = [
        page.locator(selector).bounding_box()["y"]
        for selector in (
            "#live-state",
            ".live-verdict",
            "#live-viewer",
            "#live-charts",
            "#live-panels",
            "#live-run",
        )
    ]
    assert tops == sorted(tops)
    image = page.locator("[data-viewer=micrograph] img").bounding_box()
    assert image["y"] + image["height"] <= 844
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_charts_follow_the_theme(page, pipeline, address):
    pipeline.micrographs(1, 5)
    page.goto(address)
    histogram = page.locator("[data-series=defocus] [data-histogram] canvas")
    expect(histogram).to_be_visible()
    # The colour of the one bar, wherever it stands: the commonest that is not the background.
    commonest = """canvas => {
        const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
        const seen = {};
        for (let at = 0; at < data.length; at += 4) {
            if (data[at + 3] === 255) {
                const colour = data.slice(at, at + 3).join(",");
                seen[colour] = (seen[colour] || 0) + 1;
            }
        }
        return Object.entries(seen).sort((a, b) => b[1] - a[1])[0][0];
    }"""
    for theme, colour in (("light", "0,114,178"), ("dark", "74,168,222"), ("light", "0,114,178")):
        page.emulate_media(color_scheme=theme)
        expect(page.locator("html")).to_have_attribute("data-bs-theme", theme)
        page.wait_for_timeout(200)
        assert histogram.evaluate(commonest) == colour
