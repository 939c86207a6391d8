"""The calendar in a real browser that sits in another time zone: by mouse, by keyboard and on a phone."""

import contextlib
import datetime
import re

import pytest
from django.urls import reverse
from django.utils import timezone
from playwright.sync_api import Error, expect

from bookings.models import Booking
from bookings.series import Repeat, series_create
from people.models import Preferences
from tests.factories import BookingFactory, LabFactory, MembershipFactory, MicroscopeFactory, StaffFactory

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

# A whole week ahead, from its Monday: nothing of it has begun, and all of it is drawn.
WEEK = timezone.localdate() + datetime.timedelta(days=7 - timezone.localdate().weekday())


def at(day, hour):
    return timezone.make_aware(
        datetime.datetime.combine(WEEK + datetime.timedelta(days=day), datetime.time(hour))
    )


@pytest.fixture
def person(transactional_db):
    return MembershipFactory(lab=LabFactory(name="Hall lab")).user


@pytest.fixture
def krios(transactional_db):
    return MicroscopeFactory(name="Krios 1", code="titan1", position=0)


@pytest.fixture
def talos(transactional_db):
    return MicroscopeFactory(name="Talos", code="talos", colour="#E69F00", position=1)


@pytest.fixture
def booking(krios, person):
    return BookingFactory(
        microscope=krios,
        owner=person,
        lab=person.labs.get(),
        title="20S proteasome",
        start=at(1, 6),
        end=at(1, 18),
    )


@pytest.fixture
def page(logged_in, person):
    return logged_in(person, timezone_id="America/New_York")


def visit(page, live_server, view, **query):
    query = {"view": view, "date": WEEK.isoformat()} | query
    page.goto(
        f"{live_server.url}{reverse('bookings:calendar')}?" + "&".join(f"{k}={v}" for k, v in query.items())
    )
    if view != "list":
        drawn(page)


def drawn(page):
    """What was fetched last is drawn, in place of what was there before."""
    expect(page.locator("#calendar-grid")).to_have_attribute("aria-busy", "false")


def event(page, name):
    return page.locator("#calendar-grid article[role=button]", has_text=name)


def place(page, row, day, hour):
    """Where the timeline has this time: x and y in the middle of the row."""
    days = page.locator(".ec-timeline .ec-body .ec-grid .ec-day").all()
    box = days[row * 7 + day].bounding_box()
    return box["x"] + box["width"] * (hour + 0.2) / 24, box["y"] + box["height"] * 0.8


def drag(page, start, end):
    page.mouse.move(*start)
    page.mouse.down()
    page.mouse.move((start[0] + end[0]) / 2, (start[1] + end[1]) / 2, steps=4)
    page.mouse.move(*end, steps=6)
    page.mouse.up()


def grip(page, name):
    box = event(page, name).bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def test_dragging_over_free_time_books_it(page, live_server, krios, talos, person, shot):
    visit(page, live_server, "timeline")
    drag(page, place(page, 1, 2, 6), place(page, 1, 2, 17))
    dialog = page.locator("#dialog")
    expect(dialog.locator("#id_start")).to_have_value(f"{at(2, 6):%Y-%m-%dT%H:%M}")
    expect(dialog.locator("#id_end")).to_have_value(f"{at(2, 18):%Y-%m-%dT%H:%M}")
    expect(dialog.locator("#id_microscope")).to_have_value(str(talos.pk))
    expect(dialog.locator("[data-summary]")).to_contain_text("Talos")
    expect(dialog.locator("[data-summary]")).to_contain_text("06:00 to 18:00")
    shot(page, "calendar-book", full_page=False)
    dialog.get_by_label("Title").fill("Apoferritin")
    dialog.get_by_role("button", name="Book", exact=True).click()
    expect(event(page, "Apoferritin")).to_be_visible()
    expect(page.locator("#messages")).to_contain_text("Talos is booked from")
    booked = Booking.objects.get()
    assert (booked.microscope, booked.start, booked.end, booked.owner) == (talos, at(2, 6), at(2, 18), person)


def test_dragging_moves_after_a_question(page, live_server, booking, talos, shot):
    visit(page, live_server, "timeline")
    x, y = grip(page, "20S")
    # Two days later.
    step = place(page, 0, 3, 0)[0] - place(page, 0, 1, 0)[0]
    drag(page, (x, y), (x + step, y))
    dialog = page.locator("#move-dialog")
    expect(dialog).to_contain_text("Move 20S proteasome from")
    expect(dialog).to_contain_text(f"{at(3, 6).day} {at(3, 6):%b} 06:00 to 18:00?")
    shot(page, "calendar-move", widths=["desktop"], full_page=False)
    dialog.get_by_role("button", name="No").click()
    expect(page.locator(".modal-backdrop")).to_have_count(0)
    booking.refresh_from_db()
    assert booking.start == at(1, 6)
    assert grip(page, "20S") == pytest.approx((x, y), abs=1)

    drag(page, (x, y), (x + step, y))
    dialog.get_by_role("button", name="Yes").click()
    expect(page.locator("#messages")).to_contain_text("Moved. Krios 1 is booked from")
    booking.refresh_from_db()
    assert (booking.start, booking.end) == (at(3, 6), at(3, 18))


def test_to_another_microscope_and_longer(page, live_server, booking, talos):
    visit(page, live_server, "timeline")
    x, y = grip(page, "20S")
    drag(page, (x, y), (x, place(page, 1, 1, 12)[1]))
    expect(page.locator("#move-dialog")).to_contain_text("to Talos,")
    page.get_by_role("button", name="Yes").click()
    expect(page.locator("#messages")).to_contain_text("Moved. Talos")
    expect(page.locator(".modal-backdrop")).to_have_count(0)
    # Drawn anew where the site has it now.
    expect(event(page, "20S")).to_have_attribute("aria-label", re.compile("Talos"))

    box = event(page, "20S").bounding_box()
    edge = (box["x"] + box["width"] - 3, box["y"] + box["height"] / 2)
    drag(page, edge, (place(page, 1, 2, 5)[0], edge[1]))
    expect(page.locator("#move-dialog")).to_contain_text("end at")
    page.get_by_role("button", name="Yes").click()
    expect(page.locator("#messages")).to_contain_text(f"to {at(2, 6):%a} {at(2, 6).day} {at(2, 6):%b} 06:00")
    booking.refresh_from_db()
    assert (booking.microscope, booking.start, booking.end) == (talos, at(1, 6), at(2, 6))


def test_a_refused_move_goes_back_and_says_why(page, live_server, booking, krios, shot):
    BookingFactory(microscope=krios, title="Secret", start=at(3, 6), end=at(3, 18))
    visit(page, live_server, "timeline")
    expect(event(page, "Booked")).to_be_visible()
    before = grip(page, "20S")
    step = place(page, 0, 3, 0)[0] - place(page, 0, 1, 0)[0]
    drag(page, before, (before[0] + step, before[1]))
    dialog = page.locator("#move-dialog")
    dialog.get_by_role("button", name="Yes").click()
    expect(dialog).to_contain_text("Not moved")
    expect(dialog).to_contain_text("Krios 1 is already booked from")
    shot(page, "calendar-refused", widths=["desktop"], full_page=False)
    dialog.get_by_role("button", name="Leave it where it is").click()
    expect(dialog).to_be_hidden()
    assert grip(page, "20S") == pytest.approx(before, abs=1)
    expect(page.locator("body")).not_to_contain_text("Secret")
    booking.refresh_from_db()
    assert booking.start == at(1, 6)


def test_staff_go_from_a_refused_move_to_the_form_and_set_the_rule_aside(
    logged_in, live_server, booking, krios
):
    krios.max_length_hours = 6
    krios.save()
    page = logged_in(StaffFactory(), timezone_id="America/New_York")
    visit(page, live_server, "timeline")
    before = grip(page, "20S")
    step = place(page, 0, 3, 0)[0] - place(page, 0, 1, 0)[0]
    drag(page, before, (before[0] + step, before[1]))
    dialog = page.locator("#move-dialog")
    dialog.get_by_role("button", name="Yes").click()
    expect(dialog).to_contain_text("at most 6")
    dialog.get_by_role("link", name="Change it in the form").click()
    expect(page.locator("#id_start")).to_have_value(f"{at(3, 6):%Y-%m-%dT%H:%M}")
    expect(page.locator("#id_end")).to_have_value(f"{at(3, 18):%Y-%m-%dT%H:%M}")
    expect(page.locator("#booking-summary")).to_contain_text(f"{at(3, 6).day} ")
    page.get_by_role("button", name="Save").click()
    page.get_by_label("Do it all the same").check()
    page.get_by_role("button", name="Save").click()
    expect(page.locator("#messages")).to_contain_text("Saved. Krios 1 is booked from")
    booking.refresh_from_db()
    assert (booking.start, booking.overridden) == (at(3, 6), ["maximum_length"])


def test_others_bookings_cannot_be_dragged_and_say_no_more_than_booked(page, live_server, krios):
    BookingFactory(microscope=krios, title="Secret", start=at(1, 6), end=at(1, 18))
    visit(page, live_server, "timeline")
    x, y = grip(page, "Booked")
    drag(page, (x, y), (x + 200, y))
    expect(page.locator("#move-dialog")).to_be_hidden()
    event(page, "Booked").press("Enter")
    dialog = page.locator("#event-dialog")
    expect(dialog).to_contain_text("Krios 1")
    expect(dialog.get_by_role("link", name="Open booking")).to_be_hidden()
    expect(dialog.get_by_role("button", name="Move…")).to_be_hidden()
    assert "Secret" not in page.content()


def test_everything_by_keyboard(page, live_server, booking, talos):
    """Opened with Enter, moved by typed dates and times, confirmed with Enter, and the focus comes back."""
    visit(page, live_server, "week")
    event(page, "20S").focus()
    page.keyboard.press("Enter")
    dialog = page.locator("#event-dialog")
    expect(dialog.get_by_role("link", name="Open booking")).to_be_focused()
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(event(page, "20S")).to_be_focused()
    page.keyboard.press("Enter")
    expect(dialog.get_by_role("link", name="Open booking")).to_be_focused()
    dialog.get_by_label("To", exact=True).fill(f"{at(0, 1):%Y-%m-%dT%H:%M}")
    dialog.get_by_label("From", exact=True).press("Enter")
    expect(dialog).to_contain_text("The end must be after the start.")
    dialog.get_by_label("From", exact=True).fill(f"{at(4, 7):%Y-%m-%dT%H:%M}")
    dialog.get_by_label("To", exact=True).fill(f"{at(4, 20):%Y-%m-%dT%H:%M}")
    dialog.get_by_label("Microscope").select_option(label="Talos")
    dialog.get_by_role("button", name="Move…").press("Enter")
    expect(page.locator("#move-dialog")).to_contain_text("Talos")
    yes = page.get_by_role("button", name="Yes")
    expect(yes).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#messages")).to_contain_text("Moved. Talos is booked from")
    booking.refresh_from_db()
    assert (booking.microscope, booking.start, booking.end) == (talos, at(4, 7), at(4, 20))

    page.get_by_role("button", name="Later").press("Enter")
    expect(event(page, "20S")).to_have_count(0)
    drawn(page)
    page.get_by_role("button", name="Earlier").press("Enter")
    expect(event(page, "20S")).to_be_visible()
    drawn(page)
    event(page, "20S").press("Enter")
    dialog.get_by_role("link", name="Open booking").press("Enter")
    expect(page).to_have_url(re.compile(rf"/bookings/{booking.pk}/$"))


def test_booking_refusal_and_cancelling_by_keyboard_alone(page, live_server, booking, krios):
    """From the calendar's button to the cancelled booking, with keys and typed times only."""
    BookingFactory(microscope=krios, title="Secret", start=at(3, 6), end=at(3, 18))
    visit(page, live_server, "timeline")
    expect(event(page, "Booked")).to_be_visible()
    page.get_by_role("link", name="New booking").press("Enter")
    dialog = page.locator("#dialog")
    title = dialog.get_by_label("Title")
    expect(title).to_be_visible()
    # Chosen by its first letters, as everyone can.
    dialog.locator("#id_microscope").focus()
    page.keyboard.type("Krios")
    dialog.locator("#id_start").fill(f"{at(3, 10):%Y-%m-%dT%H:%M}")
    dialog.locator("#id_end").fill(f"{at(3, 20):%Y-%m-%dT%H:%M}")
    title.fill("Apoferritin")
    title.press("Enter")
    expect(dialog).to_contain_text("Krios 1 is already booked from")
    expect(title).to_have_value("Apoferritin")
    dialog.locator("#id_start").fill(f"{at(3, 18):%Y-%m-%dT%H:%M}")
    dialog.locator("#id_end").fill(f"{at(3, 22):%Y-%m-%dT%H:%M}")
    expect(dialog.locator("[data-summary]")).to_contain_text("18:00 to 22:00")
    title.press("Enter")
    expect(event(page, "Apoferritin")).to_be_visible()
    expect(dialog).to_be_hidden()
    made = Booking.objects.get(title="Apoferritin")
    assert (made.start, made.end) == (at(3, 18), at(3, 22))

    # Moved onto taken time: refused, in words, and where it was.
    event(page, "20S").press("Enter")
    opened = page.locator("#event-dialog")
    expect(opened.get_by_role("link", name="Open booking")).to_be_focused()
    opened.get_by_label("To", exact=True).fill(f"{at(3, 12):%Y-%m-%dT%H:%M}")
    opened.get_by_role("button", name="Move…").press("Enter")
    expect(page.get_by_role("button", name="Yes")).to_be_focused()
    page.keyboard.press("Enter")
    asked = page.locator("#move-dialog")
    expect(asked).to_contain_text("Krios 1 is already booked from")
    expect(asked.get_by_role("button", name="Leave it where it is")).to_be_focused()
    page.keyboard.press("Enter")
    expect(asked).to_be_hidden()
    booking.refresh_from_db()
    assert booking.end == at(1, 18)

    event(page, "Apoferritin").press("Enter")
    expect(opened.get_by_role("link", name="Open booking")).to_be_focused()
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/bookings/{made.pk}/")
    page.wait_for_load_state()
    page.get_by_role("link", name=re.compile("Cancel booking")).press("Enter")
    page.wait_for_load_state()
    page.get_by_role("button", name=re.compile("Cancel the booking of")).press("Enter")
    page.wait_for_url(f"**/bookings/{made.pk}/")
    expect(page.locator("#messages")).to_contain_text("Cancelled: Krios 1 is free again")


@pytest.mark.parametrize("view", ["week", "month", "timeline", "weeks"])
def test_every_view_draws_the_facilitys_times(page, live_server, booking, view, krios, talos, shot):
    staff = StaffFactory()
    BookingFactory(microscope=krios, start=at(3, 6), end=at(4, 18))
    BookingFactory(microscope=talos, owner=staff, kind="maintenance", start=at(2, 6), end=at(3, 6))
    BookingFactory(
        microscope=talos, owner=staff, lab=booking.lab, kind="slot", title="", start=at(0, 6), end=at(6, 6)
    )
    visit(page, live_server, view)
    expect(event(page, "20S")).to_be_visible()
    expect(event(page, "20S")).to_have_attribute("aria-label", re.compile("Krios 1, .* 06:00 to 18:00"))
    assert event(page, "Maintenance").count() >= 1
    assert page.locator(".is-slot").filter(has_text="Slot").count() >= 1
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280
    shot(page, f"calendar-{view}", widths=["desktop"])


def test_only_the_visible_range_is_fetched(page, live_server, booking):
    asked = []
    page.on("request", lambda request: asked.append(request.url) if "/events/" in request.url else None)
    visit(page, live_server, "week")
    expect(event(page, "20S")).to_be_visible()
    assert asked
    last = WEEK + datetime.timedelta(days=7)
    assert all(f"start={WEEK}&end={last}" in url for url in asked)


def test_the_choice_of_microscopes_and_the_view_follow_the_person(
    page, logged_in, live_server, booking, talos, person
):
    BookingFactory(microscope=talos, owner=person, title="On Talos", start=at(2, 6))
    visit(page, live_server, "timeline")
    expect(event(page, "On Talos")).to_be_visible()
    page.get_by_role("button", name="Krios 1", exact=True).click()
    expect(event(page, "On Talos")).to_have_count(0)
    expect(event(page, "20S")).to_be_visible()
    expect(page).to_have_url(re.compile("microscope=titan1"))
    with page.expect_response("**/calendar/choice/"):
        page.get_by_role("button", name="Month").click()
    # On a phone the list is no choice; the microscopes are.
    phone = logged_in(person, viewport={"width": 390, "height": 844})
    phone.goto(live_server.url + reverse("bookings:calendar"))
    expect(phone.locator(".calendar-list-day")).to_have_count(7)
    expect(phone.get_by_role("button", name="Krios 1", exact=True)).to_have_attribute("aria-pressed", "true")
    with phone.expect_response("**/calendar/choice/"):
        phone.get_by_role("button", name="Krios 1", exact=True).click()
    # Another machine.
    other = logged_in(person)
    other.goto(live_server.url + reverse("bookings:calendar"))
    expect(other.get_by_role("button", name="Month")).to_have_attribute("aria-pressed", "true")
    expect(other.get_by_role("button", name="All", exact=True)).to_have_attribute("aria-pressed", "true")
    assert other.evaluate("localStorage.length") == 0
    stranger = logged_in(MembershipFactory().user)
    stranger.goto(live_server.url + reverse("bookings:calendar"))
    expect(stranger.get_by_role("button", name="Week", exact=True)).to_have_attribute("aria-pressed", "true")
    expect(stranger.get_by_role("button", name="All", exact=True)).to_have_attribute("aria-pressed", "true")


def test_who_has_chosen_twelve_hours_reads_them_everywhere(page, live_server, booking, talos, person, shot):
    Preferences.objects.create(user=person, hour_cycle="h12")
    visit(page, live_server, "week")
    expect(event(page, "20S")).to_have_attribute("aria-label", re.compile("6:00\u00a0am to 6:00\u00a0pm"))
    expect(event(page, "20S").locator(".calendar-time")).to_have_text("6:00\u00a0am–6:00\u00a0pm")
    expect(page.locator(".ec-sidebar").last).to_contain_text("6 pm")
    assert not re.search(r"\b\d\d:00\b(?!\s*[ap]m)", page.locator("main").inner_text())
    shot(page, "calendar-twelve", widths=["desktop"], themes=["light"])
    visit(page, live_server, "timeline")
    expect(page.locator(".ec-timeline .ec-header")).to_contain_text("6 pm")
    event(page, "20S").press("Enter")
    expect(page.locator("#event-dialog")).to_contain_text("6:00\u00a0am to 6:00\u00a0pm")
    expect(page.get_by_label("From", exact=True)).to_have_value(f"{at(1, 6):%Y-%m-%dT%H:%M}")
    visit(page, live_server, "list")
    expect(page.locator(".calendar-list-day").nth(1)).to_contain_text("6:00\u00a0am–6:00\u00a0pm")


def test_an_answer_that_comes_late_is_not_drawn_over_a_newer_one(page, live_server, booking):
    visit(page, live_server, "week")
    expect(event(page, "20S")).to_be_visible()
    held = []

    def first_waits(route):
        if held:
            route.continue_()
        else:
            held.append(route)

    page.route("**/calendar/events/**", first_waits)
    page.get_by_role("button", name="Later").click()
    expect(event(page, "20S")).to_have_count(0)
    expect(page.locator("#calendar-grid")).to_have_attribute("aria-busy", "true")
    page.get_by_role("button", name="Earlier").click()
    expect(event(page, "20S")).to_be_visible()
    # The one that is out was called back: its answer goes nowhere, and nothing is said of it.
    with contextlib.suppress(Error):
        held[0].fulfill(json={"events": [], "offset": "+00:00"})
    expect(event(page, "20S")).to_be_visible()
    expect(page.locator("#calendar-note")).to_be_hidden()
    expect(page.locator("#calendar-grid")).to_have_attribute("aria-busy", "false")


def test_a_lost_connection_is_said_and_what_was_drawn_stays(page, live_server, booking):
    visit(page, live_server, "timeline")
    expect(event(page, "20S")).to_be_visible()
    page.route("**/calendar/**", lambda route: route.abort())
    x, y = grip(page, "20S")
    drag(page, (x, y), (x + 150, y))
    page.get_by_role("button", name="Yes").click()
    expect(page.locator("#move-dialog")).to_contain_text("The site cannot be reached. Nothing was moved")
    page.get_by_role("button", name="Leave it where it is").click()
    assert grip(page, "20S") == pytest.approx((x, y), abs=1)
    page.get_by_role("button", name="4 weeks").click()
    expect(page.locator("#calendar-note")).to_contain_text("could not be fetched")
    page.unroute("**/calendar/**")
    page.get_by_role("button", name="Try again").click()
    expect(page.locator("#calendar-note")).to_be_hidden()
    expect(event(page, "20S")).to_be_visible()


def test_on_a_phone_days_are_listed(logged_in, live_server, booking, person, krios, shot):
    BookingFactory(microscope=krios, title="Secret", start=at(2, 22), end=at(3, 6))
    page = logged_in(person, viewport={"width": 390, "height": 844}, timezone_id="Asia/Tokyo", has_touch=True)
    visit(page, live_server, "list")
    days = page.locator(".calendar-list-day")
    expect(days).to_have_count(7)
    expect(days.nth(1)).to_contain_text("06:00–18:00")
    expect(days.nth(1).get_by_role("link", name="20S proteasome")).to_be_visible()
    expect(days.nth(2)).to_contain_text("from 22:00")
    expect(days.nth(2)).to_contain_text("Booked")
    expect(page.locator("body")).not_to_contain_text("Secret")
    expect(page.locator("#calendar-grid")).to_be_hidden()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    shot(page, "calendar-days", widths=["phone"])

    days.nth(4).get_by_role("link", name="Book on").click()
    dialog = page.locator("#dialog")
    expect(dialog.locator("#id_start")).to_have_value(f"{at(4, 9):%Y-%m-%dT%H:%M}")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    dialog.get_by_label("Title").fill("From the phone")
    dialog.get_by_role("button", name="Book", exact=True).click()
    expect(days.nth(4).get_by_role("link", name="From the phone")).to_be_visible()
    page.get_by_role("link", name="Later days").click()
    expect(days.nth(1)).to_contain_text("Nothing is booked.")


def test_a_phone_lists_days_whatever_view_was_chosen(logged_in, live_server, booking, person):
    page = logged_in(person, viewport={"width": 390, "height": 844})
    page.goto(live_server.url + reverse("bookings:calendar") + f"?view=timeline&date={WEEK}")
    expect(page.locator(".calendar-list-day")).to_have_count(7)
    expect(page.locator("#calendar-grid")).to_be_hidden()


def test_without_scripts_the_list_is_there(logged_in, live_server, booking, person):
    page = logged_in(person, java_script_enabled=False)
    page.goto(live_server.url + reverse("bookings:calendar") + f"?view=list&date={WEEK}")
    expect(page.get_by_role("link", name="20S proteasome")).to_be_visible()
    page.get_by_role("link", name="Later days").click()
    expect(page.locator(".calendar-list-day").nth(1)).to_contain_text("Nothing is booked.")
    page.get_by_role("link", name="Earlier days").click()
    expect(page.get_by_role("link", name="20S proteasome")).to_be_visible()


def test_a_repeat_is_moved_with_its_later_ones(page, live_server, krios, talos, person, shot):
    repeat = Repeat(every=1, unit="days", until=WEEK + datetime.timedelta(days=4))
    series_create(actor=person, repeat=repeat, microscope=krios, start=at(1, 6), end=at(1, 12), title="Daily")
    visit(page, live_server, "timeline")
    expect(event(page, "Daily")).to_have_count(4)
    box = event(page, "Daily").nth(1).bounding_box()
    start = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    drag(page, start, (start[0], place(page, 1, 2, 12)[1]))
    dialog = page.locator("#move-dialog")
    expect(dialog.get_by_label("This booking")).to_be_checked()
    dialog.get_by_label("This and later ones").check()
    shot(page, "calendar-move-repeat", widths=["desktop"], full_page=False)
    dialog.get_by_role("button", name="Yes").click()
    expect(page.locator("#messages")).to_contain_text("So are 2 more of the repeat.")
    expect(event(page, "Daily").nth(3)).to_have_attribute("aria-label", re.compile("Talos"))
    found = Booking.objects.order_by("start").values_list("microscope__name", flat=True)
    assert list(found) == ["Krios 1", "Talos", "Talos", "Talos"]


def test_a_booking_that_does_not_repeat_is_not_asked_about_more(page, live_server, booking, krios, person):
    visit(page, live_server, "timeline")
    x, y = grip(page, "20S")
    drag(page, (x, y), (x + 200, y))
    expect(page.locator("#move-dialog")).to_contain_text("Move 20S proteasome")
    expect(page.get_by_text("It repeats.")).to_be_hidden()


@pytest.mark.parametrize("view", ["week", "timeline", "weeks"])
def test_a_slot_is_opened_by_its_name_and_does_not_hinder_dragging(
    logged_in, live_server, krios, talos, view
):
    staff = StaffFactory()
    slot = BookingFactory(
        microscope=krios, owner=staff, kind="slot", title="Open day", start=at(1, 0), end=at(4, 0)
    )
    page = logged_in(staff)
    visit(page, live_server, view, microscope="titan1")
    name = page.get_by_role("link", name=re.compile("^Open day"))
    name.first.click()
    dialog = page.locator("#event-dialog")
    expect(dialog).to_contain_text("Open day")
    opens = dialog.get_by_role("link", name="Open booking")
    expect(opens).to_have_attribute("href", f"/bookings/{slot.pk}/")
    expect(opens).to_be_focused()
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(name.first).to_be_focused()
    if view == "timeline":
        drag(page, place(page, 0, 2, 6), place(page, 0, 2, 11))
        expect(page.locator("#dialog #id_start")).to_have_value(f"{at(2, 6):%Y-%m-%dT%H:%M}")
