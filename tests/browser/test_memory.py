"""What remains of sessions, in Chromium: statistics, samples, classes, runs, and an archived session's pages."""

import datetime
import io

import numpy as np
import pytest
from django.urls import reverse
from django.utils import timezone
from PIL import Image
from playwright.sync_api import expect

from preprocessing import images, ingest, packed
from preprocessing.identity import identity
from preprocessing.models import ClassAverage
from sessions_app.lifecycle import session_archive, session_finish
from tests.factories import BookingFactory, LabFactory, SampleFactory, SessionFactory, StaffFactory

from .conftest import PHONE


@pytest.fixture
def session(transactional_db, settings, tmp_path):
    """A finished session of sixty micrographs that two pipelines looked at, with four classes."""
    settings.MEDIA_ROOT = tmp_path
    packed.forget()
    lab = LabFactory(name="Hall")
    start = timezone.now() - datetime.timedelta(days=20)
    booking = BookingFactory(lab=lab, start=start, end=start + datetime.timedelta(hours=9))
    session = SessionFactory(booking=booking, sample=SampleFactory(lab=lab, name="apoferritin"))
    random = np.random.default_rng(3)
    for key, software, shift in (("relion", "RELION", 0.0), ("cs", "CryoSPARC", 0.2)):
        run, _ = ingest.open_run(session.pk, key=key, software=software, parameters={"box": 256})
        reports = []
        for n in range(60):
            name = f"GridSquare_{n % 3}/FoilHole_{n}_Data_1_2_20261120_10{n:02d}00.tiff"
            values = {
                "ctf_resolution": 3.5 + shift + float(random.normal(0, 0.3)),
                "motion_total": 8.0 + float(random.normal(0, 1)),
                "defocus_u": 12000.0 + 100 * n,
                "defocus_v": 11900.0 + 100 * n,
            }
            reports.append(ingest.Report(name, identity(name), values))
        ingest.record_micrographs(session.pk, run.pk, reports)
    classes = [{"number": n, "particles": 1000 * n, "resolution": 9.0 - n} for n in range(1, 5)]
    ingest.record_classes(session.pk, run.pk, job="J12", iteration=1, classes=classes)
    for row in ClassAverage.objects.all():
        file = io.BytesIO()
        Image.new("L", (64, 64), 50 * row.number).save(file, "PNG")
        file.seek(0)
        row.image = images.store(session, images.encode(file))
        row.save()
    session_finish(session, StaffFactory(), end=start + datetime.timedelta(hours=8))
    return session


def fits(page):
    return page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


def test_statistics_are_chosen_and_fit_a_phone(logged_in, live_server, session, shot):
    page = logged_in(StaffFactory())
    page.goto(live_server.url + reverse("sessions:dashboard"))
    page.get_by_role("link", name="Statistics").click()
    expect(page.get_by_text("1 session began")).to_be_visible()
    expect(page.get_by_role("img", name="Sessions; the numbers are in the tables")).to_be_visible()
    shot(page, "statistics")
    page.get_by_role("textbox", name="Sample").fill("ribosome")
    page.get_by_role("button", name="Show").click()
    expect(page.get_by_text("Nothing began in this period")).to_be_visible()
    page.set_viewport_size(PHONE)
    page.goto(live_server.url + reverse("sessions:statistics"))
    expect(page.get_by_text("1 session began")).to_be_visible()
    assert fits(page)


def test_from_a_session_to_its_sample_classes_and_runs(logged_in, live_server, session, shot):
    page = logged_in(session.lab.pi)
    page.goto(live_server.url + reverse("sessions:detail", args=[session.name]))
    page.get_by_role("link", name="apoferritin").click()
    expect(page.get_by_role("heading", name="apoferritin")).to_be_visible()
    page.get_by_role("link", name=session.name).click()
    page.get_by_role("link", name="Classes", exact=True).click()
    page.wait_for_load_state()
    page.get_by_role("checkbox").nth(0).check()
    page.get_by_role("checkbox").nth(1).check()
    expect(page.get_by_text("2 good: 7,000 particles (70%). Not saved yet.")).to_be_visible()
    shot(page, "classes")
    page.get_by_role("button", name="Save the good ones").click()
    expect(page.get_by_text("2 good: 7,000 particles (70%).", exact=True)).to_be_visible()
    page.get_by_role("link", name="Runs", exact=True).click()
    expect(page.get_by_text("have 60 exposures in common")).to_be_visible()
    shot(page, "runs")
    page.set_viewport_size(PHONE)
    assert fits(page)


def test_an_archived_session_keeps_its_charts(logged_in, live_server, session, shot):
    session_archive(session, StaffFactory())
    packed.forget()
    page = logged_in(session.lab.pi)
    page.goto(live_server.url + reverse("preprocessing:live", args=[session.name]))
    expect(page.locator("#live .uplot").first).to_be_visible()
    expect(page.locator('[data-viewer="name"]')).to_have_text("FoilHole_59_Data_1_2_20261120_105900.tiff")
    shot(page, "live-archived")
    page.get_by_role("link", name="Micrographs", exact=True).click()
    expect(page.get_by_text("60 micrographs", exact=True)).to_be_visible()
    page.get_by_role("link", name="Classes", exact=True).click()
    expect(page.get_by_text("J12, iteration 1: 4 classes, 10,000 particles.")).to_be_visible()
