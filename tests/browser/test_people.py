"""Everyone's own page, importing people, and handing a booking over, in a real browser."""

import datetime

import pytest
from django.test import Client
from django.utils import timezone
from playwright.sync_api import expect

from bookings.models import Booking
from people.models import Lab, Preferences, User
from tests.factories import (
    BookingFactory,
    LabFactory,
    MembershipFactory,
    MicroscopeFactory,
    StaffFactory,
    UserFactory,
)

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def ada(transactional_db):
    person = UserFactory(first_name="Ada", last_name="Byron", email="ada@example.org")
    return MembershipFactory(lab=LabFactory(name="Hall lab"), user=person).user


def test_ones_own_page_changes_name_times_mails_and_feeds(logged_in, live_server, ada, shot):
    day = timezone.localdate() + datetime.timedelta(days=9)
    start = timezone.make_aware(datetime.datetime.combine(day, datetime.time(14, 30)))
    booking = BookingFactory(owner=ada, title="Grid 7", start=start, end=start + datetime.timedelta(hours=2))
    MicroscopeFactory(name="Krios 1")
    page = logged_in(ada)
    page.goto(f"{live_server.url}/people/me/")
    page.get_by_label("Last name").fill("Lovelace")
    page.get_by_label("12 hours, 6:00 pm").check()
    page.get_by_label("My booking begins within a day").uncheck()
    shot(page, "profile")
    page.get_by_role("button", name="Save", exact=True).first.click()
    page.wait_for_load_state()
    expect(page.locator("#messages")).to_contain_text("Saved.")
    expect(page.get_by_label("12 hours, 6:00 pm")).to_be_checked()
    expect(page.get_by_label("My booking begins within a day")).not_to_be_checked()
    kept = Preferences.objects.get(user=ada)
    assert (kept.hour_cycle, kept.mail_day_before, kept.mail_created) == ("h12", False, True)

    page.get_by_role("button", name="My bookings").click()
    page.wait_for_load_state()
    address = page.get_by_label("Address of My bookings").input_value()
    assert "Grid 7" in Client(SERVER_NAME="localhost").get(address.split(live_server.url)[1]).text
    page.get_by_text("Renew or stop").click()
    page.get_by_role("button", name="Stop this calendar").click()
    page.wait_for_load_state()
    expect(page.locator("#messages")).to_contain_text("is stopped")
    page.goto(f"{live_server.url}/bookings/{booking.pk}/")
    expect(page.locator(".facts")).to_contain_text("2:30\u00a0pm")
    expect(page.locator(".user-name")).to_have_text("Ada Lovelace")
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(f"{live_server.url}/people/me/")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def table(*lines):
    text = "\n".join(["email,first_name,last_name,lab,role,institution", *lines])
    return {"name": "people.csv", "mimeType": "text/csv", "buffer": text.encode()}


def test_people_are_imported_after_a_look_at_what_that_does(logged_in, live_server, shot):
    page = logged_in(StaffFactory())
    page.goto(f"{live_server.url}/people/import/")
    look = page.get_by_role("button", name="See what it would do")
    good = "jane@example.org,Jane,Hall,Hall lab,pi,"
    page.get_by_label("CSV file").set_input_files(table(good, "not-an-address,Ada,Byron,Hall lab,,"))
    look.click()
    page.wait_for_load_state()
    expect(page.locator("main")).to_contain_text("1 line cannot be imported, so nothing is.")
    row = page.locator("tbody tr")
    expect(row).to_have_count(1)
    expect(row.locator("td").first).to_have_text("3")
    expect(page.get_by_role("button", name="Import all of it")).to_have_count(0)
    shot(page, "import-wrong")
    assert not User.objects.filter(email="jane@example.org").exists()

    page.get_by_label("CSV file").set_input_files(table(good, "ada@example.org,Ada,Byron,Hall lab,,"))
    look.click()
    page.wait_for_load_state()
    expect(page.locator("main")).to_contain_text("Nothing is written yet.")
    shot(page, "import-plan")
    assert not Lab.objects.exists()
    page.get_by_role("button", name="Import all of it").click()
    page.wait_for_load_state()
    expect(page.locator("#messages")).to_contain_text("New accounts: 2. New labs: 1.")
    assert str(Lab.objects.get().pi) == "Jane Hall"
    assert Lab.objects.get().members.get().email == "ada@example.org"


def test_a_booking_is_handed_to_a_member_of_the_lab(logged_in, live_server, ada, shot):
    lab = ada.labs.get()
    grace = MembershipFactory(lab=lab, user=UserFactory(first_name="Grace", last_name="Hopper")).user
    UserFactory(first_name="Una", last_name="Stranger")
    start = timezone.now() + datetime.timedelta(days=3)
    booking = BookingFactory(owner=ada, lab=lab, start=start, end=start + datetime.timedelta(hours=4))
    page = logged_in(ada)
    page.goto(f"{live_server.url}/bookings/{booking.pk}/")
    page.get_by_role("link", name="Hand over…").click()
    page.wait_for_load_state()
    expect(page.locator("main")).not_to_contain_text("Una Stranger")
    page.locator("select[name=to]").select_option(value=str(grace.pk))
    shot(page, "hand-over")
    page.get_by_role("button", name="Hand it over").click()
    page.wait_for_load_state()
    expect(page.locator(".facts")).to_contain_text("Grace Hopper")
    assert Booking.objects.get().owner == grace
