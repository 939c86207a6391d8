"""Alerts in a real browser: they come to and go from the open live page, and limits are changed by hand."""

import datetime

import pytest
from django.urls import reverse
from django.utils import timezone
from playwright.sync_api import expect

from preprocessing import alerts, ingest
from preprocessing.identity import identity
from preprocessing.models import Alert, SessionLimits
from sessions_app.models import Session
from tests.factories import AlertFactory, SessionFactory, StaffFactory

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


def post(session, run, first, count, **values):
    names = [f"movie_{number:04}.tiff" for number in range(first, first + count)]
    reports = [ingest.Report(name, identity(name), values) for name in names]
    ingest.record_micrographs(session.pk, run.pk, reports)


def test_an_open_live_page_hears_of_alerts_and_of_their_end(logged_in, live_server, shot):
    session = SessionFactory()
    run = ingest.open_run(session.pk, key="p1", software="RELION")[0]
    post(session, run, 0, 30, ctf_resolution=3.5, motion_total=9.0)
    page = logged_in(session.booking.owner)
    page.goto(live_server.url + reverse("preprocessing:live", args=[session.name]))
    expect(page.locator("#live-connection")).to_have_attribute("data-connection", "live")
    expect(page.locator("[data-alert]")).to_have_count(0)

    post(session, run, 30, 25, ctf_resolution=9.1, motion_total=9.0)
    Session.objects.filter(pk=session.pk).update(
        watcher_seen_at=timezone.now() - datetime.timedelta(minutes=20)
    )
    alerts.check()
    told = page.locator("[data-alert=resolution]")
    expect(told).to_contain_text("CTF resolution above 6 Å in 25 of the last 25 micrographs")
    expect(told.locator("time")).to_have_text("just now")
    expect(page.locator("[data-alert]")).to_have_count(2)
    expect(page.locator("[data-tab=alerts]")).to_have_text("Alerts (2)")
    shot(page, "alerts-live")

    post(session, run, 55, 20, ctf_resolution=3.1, motion_total=9.0)
    Session.objects.filter(pk=session.pk).update(watcher_seen_at=timezone.now())
    alerts.check()
    expect(page.locator("[data-alert]")).to_have_count(0)
    expect(page.locator("[data-tab=alerts]")).to_have_text("Alerts")


def test_limits_are_changed_and_given_back_and_all_alerts_listed(logged_in, live_server, shot):
    now = timezone.now()
    session = SessionFactory(
        watcher_seen_at=now - datetime.timedelta(minutes=20),
        last_file_at=now - datetime.timedelta(minutes=20),
        data_bytes=21 * 10**12,
    )
    run = ingest.open_run(session.pk, key="p1", software="RELION")[0]
    ingest.change_run(session.pk, run.pk, status="failed")
    AlertFactory(
        session=session,
        since=now - datetime.timedelta(hours=2),
        resolved_at=now - datetime.timedelta(hours=1),
    )
    AlertFactory(
        text="No new file for more than 15 min, though the watcher is alive", kind=Alert.Kind.NO_FILE
    )
    alerts.check()

    page = logged_in(StaffFactory())
    page.goto(live_server.url + reverse("sessions:dashboard"))
    expect(page.locator(".scope [data-alert]")).to_have_count(3)
    shot(page, "alerts-dashboard")

    page.locator(".scope [data-alert=size] a").click()
    page.wait_for_load_state()
    expect(page.locator("[data-open]")).to_have_count(3)
    expect(page.locator("tr[data-alert]")).to_have_count(4)
    shot(page, "alerts-session")

    page.get_by_label("Session's data above").fill("25")
    page.get_by_label("Watcher silent for").fill("1")
    page.get_by_role("button", name="Save limits").click()
    page.wait_for_load_state()
    expect(page.locator(".invalid-feedback")).to_contain_text("greater than or equal to 2")
    page.get_by_label("Watcher silent for").fill("")
    page.get_by_role("button", name="Save limits").click()
    page.wait_for_load_state()
    expect(page.get_by_text("The limits of this session were changed.")).to_be_visible()
    expect(page.get_by_text("This session has limits of its own")).to_be_visible()
    row = SessionLimits.objects.get()
    assert (row.size_tb, row.watcher_minutes, row.file_minutes) == (25, None, 15)
    alerts.check()
    page.reload()
    expect(page.locator("[data-open]")).to_have_count(1)
    expect(page.locator("[data-open]")).to_contain_text("The pipeline failed")

    page.get_by_role("button", name="Use those of").click()
    page.wait_for_load_state()
    expect(page.get_by_text("Those of Krios")).to_be_visible()
    assert not SessionLimits.objects.exists()

    page.goto(live_server.url + reverse("preprocessing:all-alerts"))
    page.get_by_label("Show").select_option("all")
    page.get_by_role("button", name="Show").click()
    page.wait_for_load_state()
    expect(page.locator("tr[data-alert]")).to_have_count(5)
    shot(page, "alerts-all")


@pytest.mark.parametrize("width", [1280, 390])
def test_the_list_counts_them_in_sight_and_leads_to_what_they_say(logged_in, live_server, shot, width):
    silent = timezone.now() - datetime.timedelta(minutes=20)
    session = SessionFactory(watcher_seen_at=silent, last_file_at=silent)
    alerts.check()
    page = logged_in(StaffFactory(), viewport={"width": width, "height": 844})
    page.goto(live_server.url + reverse("sessions:list"))
    badge = page.get_by_role("link", name=f"1 alert open of {session.name}")
    expect(badge).to_be_in_viewport()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    if width == 1280:
        shot(page, "alerts-list")
    badge.press("Enter")
    page.wait_for_url("**/live/#live-alerts")
    page.wait_for_load_state()
    expect(page.locator("#live-alerts [data-alert=watcher_silent]")).to_be_in_viewport()
