"""Booking in a real browser: times taken are shown, a refusal keeps what was typed, and a phone is enough."""

import datetime
import re

import pytest
from django.urls import reverse
from django.utils import timezone
from playwright.sync_api import expect

from bookings.models import Booking
from tests.factories import (
    BookingFactory,
    LabFactory,
    MembershipFactory,
    MicroscopeFactory,
    StaffFactory,
    UserFactory,
)

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


def tomorrow(hour):
    day = timezone.localdate() + datetime.timedelta(days=1)
    return timezone.make_aware(datetime.datetime.combine(day, datetime.time(hour)))


def typed(moment) -> str:
    return timezone.localtime(moment).strftime("%Y-%m-%dT%H:%M")


@pytest.fixture
def person(transactional_db):
    return MembershipFactory(lab=LabFactory(name="Hall lab")).user


@pytest.fixture
def page(logged_in, person):
    return logged_in(person)


def test_booking_from_the_taken_times_to_the_confirmation(page, live_server, person):
    krios = MicroscopeFactory(name="Krios 1")
    MicroscopeFactory(name="Talos")
    BookingFactory(microscope=krios, start=tomorrow(9), end=tomorrow(12), title="Secret")
    page.goto(live_server.url + reverse("bookings:list"))
    page.get_by_role("link", name="New booking").click()

    page.get_by_label("Microscope").select_option(label="Krios 1")
    expect(page.locator(".taken")).to_contain_text("09:00 to 12:00")
    expect(page.get_by_label("Lab", exact=True)).to_have_value(str(person.labs.get().pk))

    page.get_by_label("Title").fill("Apoferritin")
    page.get_by_role("button", name="Book").click()
    expect(page.locator("#error_1_id_start")).to_contain_text("Krios 1 is already booked from")
    expect(page.get_by_label("Title")).to_have_value("Apoferritin")
    expect(page.locator("body")).not_to_contain_text("Secret")

    # The end moves along, so that nine hours stay nine hours.
    page.locator("#id_start").fill(typed(tomorrow(12)))
    page.locator("#id_start").dispatch_event("change")
    expect(page.locator("#id_end")).to_have_value(typed(tomorrow(21)))
    page.get_by_role("button", name="Book").click()
    expect(page).to_have_url(re.compile(r"/bookings/\d+/$"))
    expect(page.get_by_role("heading", level=1)).to_contain_text("Apoferritin")
    booking = Booking.objects.get(title="Apoferritin")
    assert (booking.start, booking.end, booking.owner) == (tomorrow(12), tomorrow(21), person)


def test_cancelling_asks_first(page, live_server, person):
    booking = BookingFactory(owner=person, start=tomorrow(9), end=tomorrow(12))
    page.goto(live_server.url + reverse("bookings:detail", args=[booking.pk]))
    page.get_by_role("link", name=re.compile("Cancel booking")).click()
    page.get_by_role("link", name="Keep the booking").click()
    booking.refresh_from_db()
    assert not booking.is_cancelled
    page.get_by_role("link", name=re.compile("Cancel booking")).click()
    page.get_by_label("Reason").fill("No grids")
    page.get_by_role("button", name=re.compile("Cancel the booking of")).click()
    expect(page.locator("body")).to_contain_text("No grids")
    booking.refresh_from_db()
    assert booking.is_cancelled


def test_the_list_narrows_without_a_reload_and_its_address_can_be_kept(page, live_server, person):
    krios, talos = MicroscopeFactory(name="Krios 1", code="titan1"), MicroscopeFactory(name="Talos")
    BookingFactory(microscope=krios, owner=person, title="On Krios", start=tomorrow(9))
    BookingFactory(microscope=talos, owner=person, title="On Talos", start=tomorrow(9))
    page.goto(live_server.url + reverse("bookings:list"))
    page.evaluate("window.sameDocument = true")
    page.get_by_label("Microscope").select_option(label="Krios 1")
    expect(page.get_by_role("link", name="On Talos")).to_have_count(0)
    expect(page.get_by_role("link", name="On Krios")).to_be_visible()
    assert page.evaluate("window.sameDocument") is True
    assert "microscope=titan1" in page.url
    page.reload()
    expect(page.get_by_role("link", name="On Krios")).to_be_visible()
    expect(page.get_by_role("link", name="On Talos")).to_have_count(0)


def test_long_lists_of_people_can_be_searched_by_keyboard(page, live_server, person):
    for n in range(9):
        MembershipFactory(lab=person.labs.get(), user=UserFactory(first_name="Grace", last_name=f"Hopper{n}"))
    MicroscopeFactory()
    page.goto(live_server.url + reverse("bookings:create"))
    search = page.locator("#id_collaborators-ts-control")
    search.fill("Hopper7")
    search.press("Enter")
    page.get_by_role("button", name="Book").click()
    expect(page).to_have_url(re.compile(r"/bookings/\d+/$"))
    assert [str(friend) for friend in Booking.objects.get().collaborators.all()] == ["Grace Hopper7"]


@pytest.mark.parametrize("name", ["list", "create", "detail", "cancel"])
def test_on_a_phone_nothing_scrolls_sideways(page, live_server, person, name):
    booking = BookingFactory(
        owner=person,
        title="A title of some length, as people write them",
        start=tomorrow(9),
        end=tomorrow(12),
    )
    page.set_viewport_size({"width": 390, "height": 844})
    arguments = [] if name in ("list", "create") else [booking.pk]
    page.goto(live_server.url + reverse(f"bookings:{name}", args=arguments))
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_a_double_click_sends_a_form_once(logged_in, live_server):
    """A slot takes no time, so that no rule would refuse the second."""
    MicroscopeFactory()
    page = logged_in(StaffFactory())
    page.goto(f"{live_server.url}/bookings/new/")
    page.wait_for_load_state()
    sent = page.evaluate(
        """() => {
            let sent = 0;
            window.addEventListener("submit", (event) => {
                if (!event.defaultPrevented) sent += 1;
                event.preventDefault();
            });
            const button = document.querySelector("main form button[type=submit]");
            button.click();
            button.click();
            const twice = sent;
            window.dispatchEvent(new Event("pageshow"));  // Back again, the form can be sent.
            button.click();
            return [twice, sent];
        }"""
    )
    assert sent == [1, 2]
