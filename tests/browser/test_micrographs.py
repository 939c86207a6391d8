"""The browser of micrographs in Chromium: keyboard, picks on the right pixels, verdicts and undo, phone."""

import io
import re

import numpy as np
import pytest
from django.urls import reverse
from PIL import Image
from playwright.sync_api import expect

from preprocessing import images, ingest
from preprocessing.identity import identity
from preprocessing.models import Exposure, Micrograph
from tests.factories import SessionFactory

from .conftest import PHONE

SIZE = 400  # of the picture; the micrograph has ten times as many pixels
COUNT = 70


@pytest.fixture
def session(transactional_db, settings, tmp_path):
    """Seventy micrographs; the tenth is bad, the newest has three picks and a grey picture."""
    settings.MEDIA_ROOT = tmp_path
    session = SessionFactory()
    run, _ = ingest.open_run(
        session.pk,
        key="relion",
        software="RELION",
        pixel_size=1.0,
        width=4000,
        height=4000,
        particle_diameter=400.0,
    )
    reports = []
    for n in range(COUNT):
        name = f"GridSquare_7/FoilHole_{n}_Data_1_2_20261120_10{n:02d}00.tiff"
        values = {"ctf_resolution": 25.0 if n == 9 else 3 + n / 100, "motion_total": 4.0}
        reports.append(ingest.Report(name, identity(name), values))
    reports[-1].values["coordinates"] = np.array([[1000, 1000], [3000, 1000], [2000, 3000]], "<f4").tobytes()
    ingest.record_micrographs(session.pk, run.pk, reports)
    file = io.BytesIO()
    Image.new("L", (SIZE, SIZE), 128).save(file, "PNG")
    file.seek(0)
    newest = Micrograph.objects.latest("pk")
    newest.micrograph_image = images.store(session, images.encode(file))
    newest.save()
    return session


@pytest.fixture
def page(logged_in, live_server, session):
    page = logged_in(session.owner)
    page.goto(live_server.url + reverse("preprocessing:micrographs", args=[session.name]))
    expect(number(page)).to_have_text("70")
    return page


def number(page):
    return page.locator('[data-part="number"]')


def yellow(page, x, y):
    """Whether a pick's circle is drawn within a few pixels of this place of the micrograph (pixels)."""
    return page.evaluate(
        """([x, y, across]) => {
          const canvas = document.querySelector('[data-part="picks"]');
          const scale = canvas.width / across;
          const at = canvas.getContext("2d").getImageData(x * scale - 3, y * scale - 3, 7, 7).data;
          for (let i = 0; i < at.length; i += 4)
            if (at[i] > 200 && at[i + 1] > 190 && at[i + 2] < 120 && at[i + 3] > 200) return true;
          return false;
        }""",
        [x, y, 4000],
    )


def test_picks_are_drawn_where_they_are_and_can_be_switched_off(page, shot):
    expect(page.locator('[data-part="picks-count"]')).to_have_text("3 picks")
    # Circles of 400 Å at 1 Å a pixel: 200 pixels around each pick.
    for x, y in ((1000, 1000), (3000, 1000), (2000, 3000)):
        for dx, dy in ((200, 0), (-200, 0), (0, 200), (0, -200)):
            assert yellow(page, x + dx, y + dy), (x, y, dx, dy)
        assert not yellow(page, x, y)
    assert not yellow(page, 2000, 1000)
    shot(page, "micrographs")
    page.keyboard.press("p")
    assert not yellow(page, 1200, 1000)
    page.keyboard.press("p")
    assert yellow(page, 1200, 1000)


def test_going_through_them_by_keyboard(page):
    page.keyboard.press("ArrowLeft")
    expect(page.get_by_text("There is no one before this.")).to_be_visible()
    page.keyboard.press("ArrowRight")
    expect(number(page)).to_have_text("69")
    page.keyboard.press("b")
    expect(number(page)).to_have_text("10")
    expect(page.locator('[data-part="verdict"]')).to_contain_text("Not usable")
    # The tiles went along to the second page, and the address remembers.
    expect(page.locator('[data-part="page"]')).to_have_text("Page 2 of 2")
    page.reload()
    expect(number(page)).to_have_text("10")
    page.keyboard.press("g")
    expect(number(page)).to_have_text("9")


def test_one_is_rejected_by_keyboard_and_undone(page):
    page.keyboard.press("ArrowRight")
    expect(number(page)).to_have_text("69")
    page.get_by_label("Reason for rejecting").fill("ice")
    page.get_by_role("button", name="Reject", exact=True).click()
    expect(page.locator('[data-part="verdict"]')).to_have_text(re.compile(r"Rejected by Ada .*: ice\."))
    assert Exposure.objects.filter(verdict="rejected", verdict_reason="ice").count() == 1
    page.locator('[data-part="toast"]').get_by_role("button", name="Undo").click()
    expect(page.get_by_text("Undone for 1.")).to_be_visible()
    expect(page.locator('[data-part="verdict"]')).to_have_text("Usable by the limits.")
    assert not Exposure.objects.filter(verdict="rejected").exists()


def test_all_that_a_range_shows_are_rejected_after_being_asked(page, shot):
    page.get_by_text("By value").click()
    page.get_by_label("CTF resolution from").fill("3.605")
    page.get_by_label("CTF resolution from").press("Enter")
    expect(page.locator('[data-part="count"]')).to_have_text(
        "10 of 70 micrographs: CTF resolution from 3.605 Å"
    )
    page.get_by_role("button", name="Reject all shown").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("Reject 10 micrographs?")
    shot(page, "micrographs-reject-all")
    dialog.get_by_role("button", name="Cancel").click()
    assert not Exposure.objects.filter(verdict="rejected").exists()
    page.get_by_role("button", name="Reject all shown").click()
    dialog.get_by_label("Reason").fill("thick ice")
    dialog.get_by_role("button", name="Reject 10").click()
    expect(page.get_by_text("Rejected 10.")).to_be_visible()
    assert Exposure.objects.filter(verdict="rejected", verdict_reason="thick ice").count() == 10


def test_on_a_phone_nothing_scrolls_sideways(page):
    page.set_viewport_size(PHONE)
    expect(number(page)).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
