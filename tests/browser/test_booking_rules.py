"""The booking form in a real browser: repeats, what staff set aside, and downtime over bookings."""

import datetime
import re

import pytest
from django.utils import timezone

from bookings.models import Booking
from tests.factories import BookingFactory, MicroscopeFactory, StaffFactory, UserFactory

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]
DAY = datetime.timedelta(days=1)


def at(hour, days=1):
    date = timezone.localdate() + days * DAY
    return timezone.make_aware(datetime.datetime.combine(date, datetime.time(hour)))


def typed(moment):
    return timezone.localtime(moment).strftime("%Y-%m-%dT%H:%M")


def test_a_repeat_is_booked_and_cancelled_from_one_on_by_keyboard(logged_in, live_server, shot):
    user = UserFactory()
    MicroscopeFactory(name="Krios 1")
    page = logged_in(user)
    page.goto(f"{live_server.url}/bookings/new/")
    every = page.get_by_label("Repeat", exact=True)
    until = page.get_by_label("Until, that day included")
    assert not until.is_visible()
    every.focus()
    page.keyboard.press("ArrowDown")  # Days.
    assert until.is_visible()
    until.fill(str(timezone.localdate() + 4 * DAY))
    shot(page, "booking-repeat")
    until.press("Enter")
    page.get_by_text("3 more of the repeat").wait_for()
    first, second, *_ = Booking.objects.order_by("start")
    page.goto(f"{live_server.url}/bookings/{second.pk}/cancel/")
    page.get_by_label("This booking", exact=True).focus()
    page.keyboard.press("ArrowDown")
    assert page.get_by_label("This and later ones (3)").is_checked()
    shot(page, "booking-repeat-cancel")
    page.get_by_role("button", name=re.compile("Cancel what is chosen")).press("Enter")
    page.get_by_text("3 bookings of the repeat are cancelled").wait_for()
    assert list(Booking.objects.standing()) == [first]


def test_staff_see_what_they_set_aside_and_what_downtime_hits(logged_in, live_server, shot):
    staff = StaffFactory()
    microscope = MicroscopeFactory(name="Krios 1", max_length_hours=4)
    BookingFactory(microscope=microscope, start=at(8), end=at(12), title="Apoferritin")
    BookingFactory(microscope=microscope, start=at(12), end=at(18), title="Ribosome")
    page = logged_in(staff)
    page.goto(f"{live_server.url}/bookings/new/?start={typed(at(8, 2))}&end={typed(at(18, 2))}")
    page.get_by_role("button", name="Book", exact=True).click()
    box = page.get_by_label("Do it all the same")
    box.wait_for()
    shot(page, "booking-override")
    box.check()
    page.get_by_role("button", name="Book", exact=True).click()
    page.get_by_text("Set aside by staff").wait_for()
    assert Booking.objects.get(owner=staff).overridden == ["maximum_length"]

    page.goto(f"{live_server.url}/bookings/new/?start={typed(at(10))}&end={typed(at(19))}")
    slots = page.get_by_text("Who may book inside the slot")
    page.get_by_label("Type").select_option("slot")
    assert slots.is_visible()
    page.get_by_label("Type").select_option("downtime")
    assert not slots.is_visible()
    page.get_by_role("button", name="Book", exact=True).click()
    box = page.get_by_label("Cancel and shorten them as listed")
    box.wait_for()
    shot(page, "booking-downtime")
    box.check()
    page.get_by_role("button", name="Book", exact=True).click()
    page.wait_for_url(re.compile(r"/bookings/\d+/$"))
    assert Booking.objects.get(title="Apoferritin").end == at(10)
    assert Booking.objects.get(title="Ribosome").is_cancelled
