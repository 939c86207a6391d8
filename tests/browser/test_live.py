"""The live page in a real browser: pipelines post by the REST API, and the open page follows."""

import datetime
import io
import re

import numpy as np
import pytest
from django.urls import reverse
from PIL import Image
from playwright.sync_api import expect

from tests.factories import SessionFactory, make_token

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
    expect(page.locator("[data-verdict=rate_now]")).to_have_text(re.compile(r"^(29\d|30\d) per hour$"))
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
