"""The dashboard: what runs now, what comes, and what stays hidden."""

import datetime

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from microscopes.models import Microscope
from sessions_app.dashboard import dashboard
from sessions_app.models import Session
from tests.factories import (
    BookingFactory,
    FinishedSessionFactory,
    LabFactory,
    MembershipFactory,
    MicroscopeFactory,
    SessionFactory,
    StaffFactory,
    UserFactory,
)

pytestmark = pytest.mark.django_db
HOUR = datetime.timedelta(hours=1)
URL = "/"


def page(client, person):
    client.force_login(person)
    response = client.get(URL)
    assert response.status_code == 200
    return response.content.decode()


@pytest.fixture
def noon(monkeypatch):
    """It is noon, so that hours before and after are of the same day."""
    moment = timezone.localtime().replace(hour=12, minute=0, second=0, microsecond=0)
    monkeypatch.setattr(timezone, "now", lambda: moment)
    return moment


def create_url(booking):
    return f"{reverse('sessions:create')}?booking={booking.pk}"


def test_login_is_needed(client):
    response = client.get(URL)
    assert response.status_code == 302
    assert reverse("people:login") in response["Location"]


def test_the_running_booking_with_people_time_left_and_pill(client, noon):
    owner = UserFactory(first_name="Eva", last_name="Hall")
    operator = UserFactory(first_name="Sam", last_name="Operator")
    booking = BookingFactory(
        microscope=MicroscopeFactory(name="Krios 1"),
        owner=owner,
        operator=operator,
        lab=LabFactory(name="Hall"),
        start=noon - HOUR,
        end=noon + 2 * HOUR + datetime.timedelta(minutes=5),
    )
    session = SessionFactory(booking=booking, data_movies=1214)
    html = page(client, owner)
    assert "Eva Hall" in html
    assert "Sam Operator" in html
    assert "2\xa0h 5\xa0min left" in html
    assert f'class="pill" href="{reverse("sessions:detail", args=[session.name])}"' in html
    assert "Krios 1 is collecting for the Hall lab, 1,214 movies, ends 14:05." in html
    assert create_url(booking) in html


def test_others_bookings_read_booked_and_nothing_else_of_them_leaves_the_server(client, noon):
    secret = BookingFactory(
        title="Secret virus",
        description="hush",
        lab=LabFactory(name="Hidden group"),
        owner=UserFactory(first_name="Hugo", last_name="Hidden"),
        start=noon - HOUR,
    )
    later = BookingFactory(
        title="Secret later",
        microscope=secret.microscope,
        lab=secret.lab,
        owner=secret.owner,
        start=noon + 20 * HOUR,
    )
    session = SessionFactory(booking=secret)
    html = page(client, UserFactory())
    assert html.count("Booked") >= 2
    for word in ("Secret", "hush", "Hidden", "Hugo", session.name, f"booking={secret.pk}", "data-dialog"):
        assert word not in html
    for booking in (secret, later):
        assert reverse("bookings:detail", args=[booking.pk]) not in html
    assert "Secret virus" in page(client, StaffFactory())


def test_new_session_is_for_those_who_may_run_the_booking_that_runs_now(client):
    booking = BookingFactory(operator=UserFactory())
    member = MembershipFactory(lab=booking.lab).user
    collaborator = UserFactory()
    booking.collaborators.add(collaborator)
    for person in (booking.owner, booking.operator, member, StaffFactory()):
        assert create_url(booking) in page(client, person)
    for person in (collaborator, UserFactory()):
        assert create_url(booking) not in page(client, person)


def test_staff_may_use_other_bookings_of_today_but_owners_may_not(client, noon, staff):
    microscope = MicroscopeFactory()
    earlier = BookingFactory(microscope=microscope, start=noon - 5 * HOUR, end=noon - 3 * HOUR)
    later = BookingFactory(microscope=microscope, start=noon + 3 * HOUR, end=noon + 5 * HOUR)
    tomorrow = BookingFactory(microscope=microscope, start=noon + 20 * HOUR, end=noon + 22 * HOUR)
    html = page(client, staff)
    assert create_url(earlier) in html
    assert create_url(later) in html
    assert create_url(tomorrow) not in html
    assert create_url(later) not in page(client, later.owner)


def test_todays_and_the_next_days_bookings_slots_and_cancelled_ones_apart(noon, staff):
    microscope = MicroscopeFactory()
    BookingFactory(microscope=microscope, title="today", start=noon + 2 * HOUR, end=noon + 3 * HOUR)
    BookingFactory(microscope=microscope, title="soon", start=noon + 50 * HOUR)
    BookingFactory(microscope=microscope, title="slot", kind="slot", start=noon + 60 * HOUR)
    BookingFactory(microscope=microscope, title="gone", start=noon + 70 * HOUR, cancelled_at=noon)
    BookingFactory(microscope=microscope, title="far", start=noon + 24 * 8 * HOUR)
    (card,) = dashboard(staff).cards
    assert card.now is None
    assert [slot.label for slot in card.today] == ["today"]
    assert [slot.label for slot in card.later] == ["soon"]


def test_a_booking_that_began_weeks_ago_still_runs(noon, staff):
    booking = BookingFactory(kind="downtime", start=noon - 24 * 30 * HOUR, end=noon + HOUR)
    (card,) = dashboard(staff).cards
    assert card.now.booking == booking
    assert card.state == "maintenance"


def test_more_sessions_more_pills_up_to_a_handful(client, staff):
    booking = BookingFactory()
    SessionFactory.create_batch(8, booking=booking)
    FinishedSessionFactory(booking=booking)
    html = page(client, staff)
    assert html.count('class="pill"') == 6
    assert "and 2 more" in html


def test_retired_microscopes_are_not_shown_and_none_at_all_says_so(client, user):
    MicroscopeFactory(name="Old scope", status=Microscope.Status.RETIRED)
    html = page(client, user)
    assert "Old scope" not in html
    assert "No microscope is in service yet." in html
    assert "You have no sessions yet." in html


def test_a_microscope_in_maintenance_says_so_and_why(client, user):
    MicroscopeFactory(status=Microscope.Status.MAINTENANCE, status_note="New detector until Friday")
    html = page(client, user)
    assert "in maintenance" in html
    assert "New detector until Friday" in html


def test_what_the_page_asks_for_while_open_is_the_same_without_the_frame(client):
    booking = BookingFactory()
    client.force_login(booking.owner)
    html = client.get(URL, {"live": ""}).content.decode()
    assert f'data-part="scope-{booking.microscope.code}"' in html
    assert "<html" not in html


@pytest.mark.parametrize("who", ["staff", "member"])
def test_the_number_of_queries_is_the_same_however_much_there_is(client, who):
    def fill():
        booking = BookingFactory(lab=lab)
        SessionFactory(booking=booking)
        SessionFactory(booking=booking)
        FinishedSessionFactory(booking=booking)
        BookingFactory(microscope=booking.microscope, lab=lab, start=booking.end + HOUR)
        BookingFactory(microscope=booking.microscope, start=booking.end + 10 * HOUR)

    lab = LabFactory()
    person = StaffFactory() if who == "staff" else MembershipFactory(lab=lab).user
    client.force_login(person)
    fill()
    with CaptureQueriesContext(connection) as one:
        client.get(URL)
    for _ in range(4):
        fill()
    with CaptureQueriesContext(connection) as many:
        client.get(URL)
    assert len(one) == len(many)
    assert len(many) <= 14


def test_the_sentence_says_what_comes_next_to_a_user(noon, user):
    BookingFactory(owner=user, microscope=MicroscopeFactory(name="Talos"), start=noon + 3 * HOUR)
    assert dashboard(user).sentence == "Your next booking is on Talos, today at 15:00."


def test_the_sentence_says_when_nothing_runs(staff):
    MicroscopeFactory()
    assert dashboard(staff).sentence == "No microscope is in use now."


def test_the_sentence_shows_the_median_resolution_where_known(noon):
    session = SessionFactory(booking=BookingFactory(start=noon - HOUR, end=noon + HOUR))
    session.summary.leading_run = 7
    session.summary.statistics = {"7": {"revision": 1, "fields": {"ctf_resolution": {"median": 3.44}}}}
    session.summary.save()
    assert ", 3.4 Å, ends 13:00" in dashboard(session.owner).sentence


def test_a_session_of_a_past_booking_does_not_make_the_card_collecting(noon, staff):
    booking = BookingFactory(start=noon - HOUR)
    old = BookingFactory(microscope=booking.microscope, start=noon - 30 * HOUR)
    forgotten = SessionFactory(booking=old, status=Session.Status.ACTIVE)
    (card,) = dashboard(staff).cards
    assert card.state == "booked"
    assert card.sessions == [forgotten]
