"""Sessions in a real browser: from the dashboard to the pill by keyboard, the warning, deletion, and a phone."""

import datetime
import re

import pytest
from django.urls import reverse
from django.utils import timezone
from playwright.sync_api import expect

from sessions_app.models import Session
from tests.factories import (
    BookingFactory,
    CameraFactory,
    DataServerFactory,
    FinishedSessionFactory,
    LabFactory,
    MicroscopeFactory,
    SampleFactory,
    SessionFactory,
    UserFactory,
)

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]
HOUR = datetime.timedelta(hours=1)


@pytest.fixture
def booking(transactional_db):
    """Eva Hall of the Hall lab has Krios 1 now."""
    server = DataServerFactory(
        name="cryodata", host="data.example.org", path_template="/data/{microscope}/{session}"
    )
    microscope = MicroscopeFactory(name="Krios 1", code="krios1", model="Titan Krios G4", data_server=server)
    CameraFactory(microscope=microscope, name="Falcon 4i")
    lab = LabFactory(name="Hall")
    SampleFactory(lab=lab, name="apoferritin")
    owner = UserFactory(first_name="Eva", last_name="Hall")
    return BookingFactory(microscope=microscope, owner=owner, lab=lab, title="Screening")


@pytest.fixture
def boss(transactional_db):
    """Staff with every permission: groups of migrations do not outlive transactional tests."""
    return UserFactory(first_name="Sofia", last_name="Staff", is_staff=True, is_superuser=True)


def pill(page, session):
    return page.locator(".pill", has_text=session.name)


def sideways(page) -> int:
    return page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")


def press_until(page, locator, key="Tab", times=60):
    """Walks by keyboard until the element has the focus."""
    for _ in range(times):
        if locator.evaluate("element => element === document.activeElement"):
            return
        page.keyboard.press(key)
    raise AssertionError("The keyboard does not get there.")


def test_a_session_is_created_from_the_dashboard_by_keyboard(logged_in, live_server, booking, shot):
    page = logged_in(booking.owner)
    page.goto(live_server.url)
    press_until(page, page.get_by_role("link", name="New session on Krios 1"))
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("heading", name="New session on Krios 1")).to_be_visible()
    expect(dialog).to_contain_text(f"krios1-{timezone.localtime():%Y%m%d}-01")
    expect(dialog).to_contain_text("Eva Hall")
    sample = dialog.get_by_label("Sample")
    expect(sample).to_be_focused()
    shot(page, "new-session-dialog", full_page=False)
    page.keyboard.type("virus like particle")
    pixel_size = dialog.get_by_label("Pixel size")
    press_until(page, pixel_size)
    page.keyboard.type("-1")
    page.keyboard.press("Enter")
    expect(dialog.get_by_text("Write a number above 0")).to_be_visible()
    expect(pixel_size).to_be_focused()
    page.keyboard.press("Control+A")
    page.keyboard.type("0.83")
    page.keyboard.press("Enter")
    expect(page.locator(".pill")).to_have_count(1)
    session = Session.objects.get()
    expect(page.get_by_text(f"Session {session.name} is running on Krios 1.")).to_be_visible()
    assert (session.sample.name, session.pixel_size, session.camera.name) == (
        "virus like particle",
        0.83,
        "Falcon 4i",
    )
    press_until(page, pill(page, session))
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(f"/sessions/{session.name}/$"))


def test_a_second_session_is_warned_of_and_no_means_no(logged_in, live_server, booking, shot):
    first = SessionFactory(booking=booking)
    page = logged_in(booking.owner)
    page.goto(live_server.url)
    page.get_by_role("link", name="New session on Krios 1").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("This booking already has a session")
    expect(dialog).to_contain_text(first.name)
    shot(page, "another-session", full_page=False)
    dialog.get_by_role("link", name="No", exact=True).click()
    expect(dialog).to_be_hidden()
    assert Session.objects.count() == 1
    page.get_by_role("link", name="New session on Krios 1").click()
    dialog.get_by_role("link", name="Yes", exact=True).click()
    dialog.get_by_role("button", name="Create session").click()
    expect(page.locator(".pill")).to_have_count(2)
    expect(dialog).to_be_hidden()


def test_escape_closes_the_dialog_and_the_focus_returns(logged_in, live_server, booking):
    page = logged_in(booking.owner)
    page.goto(live_server.url)
    button = page.get_by_role("link", name="New session on Krios 1")
    button.click()
    expect(page.get_by_label("Sample")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(button).to_be_focused()


def test_without_scripts_everything_works_as_pages(logged_in, live_server, booking):
    page = logged_in(booking.owner, java_script_enabled=False)
    page.goto(live_server.url)
    page.get_by_role("link", name="New session on Krios 1").click()
    page.get_by_label("Sample").fill("virus")
    page.get_by_role("button", name="Create session").click()
    session = Session.objects.get()
    pill(page, session).click()
    page.get_by_role("link", name="Finish").click()
    page.get_by_role("button", name="Finish session").click()
    session.refresh_from_db()
    assert session.status == Session.Status.FINISHED


def test_the_dashboard_learns_of_a_session_without_a_reload(logged_in, live_server, booking):
    page = logged_in(booking.owner)
    page.clock.install()
    page.goto(live_server.url)
    expect(page.locator(".pill")).to_have_count(0)
    page.evaluate("window.stayed = true")
    session = SessionFactory(booking=booking)
    page.clock.run_for(31_000)
    expect(pill(page, session)).to_be_visible()
    expect(page.locator("[data-part=sentence]")).to_contain_text("Krios 1 is collecting for the Hall lab")
    assert page.evaluate("window.stayed") is True


def test_the_dashboard_says_when_the_site_does_not_answer(logged_in, live_server, booking):
    page = logged_in(booking.owner)
    page.clock.install()
    page.goto(live_server.url)
    note = page.get_by_text("The site does not answer")
    expect(note).to_be_hidden()
    page.route("**/?live", lambda route: route.abort())
    page.clock.run_for(31_000)
    expect(note).to_be_visible()
    page.unroute("**/?live")
    page.clock.run_for(31_000)
    expect(note).to_be_hidden()


def test_deleting_from_the_list_names_what_goes_and_asks(logged_in, live_server, booking, boss):
    session = FinishedSessionFactory(booking=booking, data_path="/data/krios1/x")
    kept = FinishedSessionFactory(booking=booking)
    page = logged_in(boss)
    page.goto(live_server.url + reverse("sessions:list") + "?status=finished")
    page.get_by_role("link", name=f"Delete {session.name}").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("/data/krios1/x")
    dialog.get_by_role("link", name="Cancel").click()
    expect(dialog).to_be_hidden()
    assert Session.objects.count() == 2
    page.get_by_role("link", name=f"Delete {session.name}").click()
    page.get_by_role("button", name=f"Delete session {session.name}").click()
    expect(page.get_by_text(f"Session {session.name} was deleted.")).to_be_visible()
    expect(page).to_have_url(re.compile(r"\?status=finished$"))
    expect(page.get_by_role("rowheader")).to_have_count(1)
    assert list(Session.objects.all()) == [kept]


def test_a_dialog_that_is_refused_leads_to_the_page_that_says_why(
    logged_in, live_server, booking, boss, complaints
):
    session = FinishedSessionFactory(booking=booking)
    page = logged_in(boss)
    page.goto(live_server.url + reverse("sessions:detail", args=[session.name]))
    session.delete()
    page.get_by_role("link", name="Delete").click()
    expect(page).to_have_url(re.compile("/delete/$"))
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    assert "404" in complaints.pop()


def test_typing_narrows_the_list_and_the_address_keeps_it(logged_in, live_server, booking, boss):
    FinishedSessionFactory(booking=booking, name="alpha-1")
    FinishedSessionFactory(booking=booking, name="beta-1")
    page = logged_in(boss)
    page.goto(live_server.url + reverse("sessions:list"))
    expect(page.get_by_role("rowheader")).to_have_count(2)
    page.get_by_label("Search").fill("alpha")
    expect(page.get_by_role("rowheader")).to_have_count(1)
    expect(page.locator("#sentence")).to_contain_text("matching “alpha”: 1.")
    expect(page).to_have_url(re.compile("q=alpha"))
    expect(page.get_by_label("Search")).to_be_focused()
    page.reload()
    expect(page.get_by_role("rowheader")).to_have_count(1)
    page.get_by_role("link", name="Delete alpha-1").click()
    expect(page.get_by_role("dialog")).to_contain_text("This goes for good")


def test_commands_are_copied_with_ones_account(logged_in, live_server, booking):
    session = SessionFactory(
        booking=booking, data_server=booking.microscope.data_server, data_path="/data/krios1/a b"
    )
    page = logged_in(booking.owner, permissions=["clipboard-read", "clipboard-write"])
    page.goto(live_server.url + reverse("sessions:data", args=[session.name]))
    page.get_by_label("Your account on the data server").fill("eva; rm -rf")
    page.get_by_role("button", name="Copy the rsync command").click()
    expect(page.get_by_text("Copied")).to_be_visible()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == "rsync -avs --partial --progress 'evarm-rf@data.example.org:/data/krios1/a b' ."
    page.reload()
    expect(page.locator("#way-1")).to_contain_text("evarm-rf@")


def test_a_phone_is_enough(logged_in, live_server, booking, boss, shot):
    session = SessionFactory(
        booking=booking,
        name="krios1-20261123-01",
        data_server=booking.microscope.data_server,
        data_path="/data/krios1/krios1-20261123-01-with-a-name-that-does-not-end",
        data_movies=5114,
        data_bytes=1_800_000_000_000,
        notes="A-word-that-does-not-end-" * 8,
    )
    BookingFactory(microscope=booking.microscope, start=booking.end + HOUR)
    FinishedSessionFactory(
        booking=booking, operator=boss, delete_on=timezone.localdate() + datetime.timedelta(days=2)
    )
    page = logged_in(boss, viewport={"width": 390, "height": 844}, has_touch=True)
    for name, path in (
        ("dashboard", reverse("sessions:dashboard")),
        ("sessions", reverse("sessions:list")),
        ("session", reverse("sessions:detail", args=[session.name])),
        ("data", reverse("sessions:data", args=[session.name])),
        ("edit", reverse("sessions:edit", args=[session.name])),
        ("delete", reverse("sessions:delete", args=[session.name])),
        ("create", f"{reverse('sessions:create')}?booking={booking.pk}&another=yes"),
    ):
        page.goto(live_server.url + path)
        assert sideways(page) <= 0, name
        shot(page, name)
    page.goto(live_server.url)
    page.get_by_role("link", name="New session on Krios 1").tap()
    expect(page.get_by_role("link", name="Yes", exact=True)).to_be_in_viewport()
    assert sideways(page) <= 0


def test_the_booking_page_opens_the_same_dialog(logged_in, live_server, booking):
    page = logged_in(booking.owner)
    page.goto(live_server.url + reverse("bookings:detail", args=[booking.pk]))
    page.get_by_role("link", name="New session").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("heading", name="New session on Krios 1")).to_be_visible()
    dialog.get_by_role("button", name="Create session").click()
    expect(page.locator(".pill")).to_have_count(1)
