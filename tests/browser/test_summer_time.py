"""Bookings over the nights on which the clocks change: by the form, in the calendar and moved by keyboard.

The browser sits in a zone that changes its own clocks on other nights.
"""

import datetime
import re
from zoneinfo import ZoneInfo

import pytest
from django.urls import reverse
from playwright.sync_api import expect

from bookings.models import Booking
from tests.factories import MicroscopeFactory, UserFactory

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]
STOCKHOLM = ZoneInfo("Europe/Stockholm")
HOUR = datetime.timedelta(hours=1)


@pytest.mark.parametrize(
    ("evening", "hours"),
    [(datetime.date(2027, 3, 27), 7), (datetime.date(2027, 10, 30), 9)],
    ids=["an hour less", "an hour more"],
)
def test_a_night_on_which_the_clocks_change(logged_in, live_server, settings, evening, hours, shot):
    settings.TIME_ZONE = "Europe/Stockholm"
    morning = evening + datetime.timedelta(days=1)
    MicroscopeFactory(name="Krios 1", code="krios1")
    page = logged_in(UserFactory(), timezone_id="America/New_York")
    page.goto(f"{live_server.url}/bookings/new/?microscope=krios1")
    page.locator("#id_start").fill(f"{evening}T22:00")
    page.locator("#id_end").fill(f"{morning}T06:00")
    page.get_by_label("Title").fill("Overnight")
    page.get_by_role("button", name="Book", exact=True).click()
    page.wait_for_url(re.compile(r"/bookings/\d+/$"))
    booking = Booking.objects.get()
    assert booking.start == datetime.datetime.combine(evening, datetime.time(22), STOCKHOLM)
    assert booking.end - booking.start == hours * HOUR
    expect(page.locator(".facts")).to_contain_text(f"({hours}\u00a0h)")
    expect(page.locator(".facts")).to_contain_text("06:00")

    monday = evening - datetime.timedelta(days=evening.weekday())
    page.goto(f"{live_server.url}{reverse('bookings:calendar')}?view=timeline&date={monday}")
    drawn = page.locator("#calendar-grid article[role=button]", has_text="Overnight")
    words = f"{evening:%a} {evening.day} {evening:%b} 2027 22:00 to {morning:%a} {morning.day} {morning:%b} 2027 06:00"
    expect(drawn).to_have_attribute("aria-label", re.compile(words))
    # Where the clock on the wall says, on a grid whose days all have 24 hours.
    days = page.locator(".ec-timeline .ec-body .ec-grid .ec-day").all()
    box, saturday = drawn.bounding_box(), days[5].bounding_box()
    assert box["x"] == pytest.approx(saturday["x"] + saturday["width"] * 22 / 24, abs=4)
    assert box["width"] == pytest.approx(saturday["width"] * 8 / 24, abs=6)
    shot(page, f"calendar-clocks-{hours}", widths=["desktop"], themes=["light"])

    drawn.press("Enter")
    dialog = page.locator("#event-dialog")
    expect(dialog.get_by_role("link", name="Open booking")).to_be_focused()
    dialog.get_by_label("To", exact=True).fill(f"{morning}T07:00")
    dialog.get_by_role("button", name="Move…").press("Enter")
    yes = page.get_by_role("button", name="Yes")
    expect(yes).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#messages")).to_contain_text("Moved. Krios 1 is booked from")
    booking.refresh_from_db()
    assert booking.end - booking.start == (hours + 1) * HOUR

    # 02:30 is skipped on the one night and comes twice on the other: neither is a time to book.
    page.goto(f"{live_server.url}/bookings/new/?microscope=krios1")
    page.locator("#id_start").fill(f"{morning}T02:30")
    page.locator("#id_end").fill(f"{morning}T12:00")
    page.get_by_role("button", name="Book", exact=True).click()
    page.wait_for_load_state()
    expect(page.locator("#error_1_id_start")).to_contain_text("02:30")
    assert Booking.objects.count() == 1
