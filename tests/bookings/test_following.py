"""Who follows a microscope is told of time that became free, and of nothing else."""

import datetime

import pytest
from django.utils import timezone

from bookings.models import Booking, Follow
from bookings.services import booking_cancel, booking_create, booking_update
from microscopes.models import Microscope
from people.models import OutgoingMail, Preferences
from tests.factories import BookingFactory, MicroscopeFactory, UserFactory

pytestmark = pytest.mark.django_db
HOUR = datetime.timedelta(hours=1)
PROFILE = "/people/me/"


@pytest.fixture
def krios():
    return MicroscopeFactory(name="Krios 1")


@pytest.fixture
def follower(krios):
    return Follow.objects.create(
        user=UserFactory(first_name="Eve", last_name="Waits", email="eve@example.org"), microscope=krios
    ).user


@pytest.fixture
def booking(krios):
    start = (timezone.now() + 48 * HOUR).replace(minute=0, second=0, microsecond=0)
    booking = BookingFactory(
        microscope=krios,
        start=start,
        end=start + 8 * HOUR,
        title="A secret protein",
        owner__last_name="Hidden",
    )
    # Confirmations of one's own doing are another matter (test_mail.py).
    Preferences.objects.create(user=booking.owner, mail_own=False)
    return booking


@pytest.fixture
def commit(django_capture_on_commit_callbacks):
    """Calls a function as if it were committed right after."""

    def run(function, **fields):
        with django_capture_on_commit_callbacks(execute=True):
            return function(**fields)

    return run


def clock(moment):
    return f"{timezone.localtime(moment):%H:%M}"


def test_a_cancelled_booking_is_told_with_its_times_and_nothing_of_whose_it_was(follower, booking, commit):
    commit(booking_cancel, booking=booking, actor=booking.owner, reason="The protein is gone")
    mail = OutgoingMail.objects.get()
    assert mail.address == "eve@example.org"
    assert mail.subject.startswith("Free: Krios 1, ")
    assert clock(booking.start) in mail.body
    assert f"/bookings/new/?microscope={booking.microscope.code}&start=" in mail.body
    for secret in ("secret protein", "Hidden", "protein is gone", str(booking.lab)):
        assert secret not in mail.body + mail.subject
    assert mail.calendar == ""


def test_shortening_tells_the_rest_alone(follower, booking, commit):
    commit(booking_update, booking=booking, actor=booking.owner, end=booking.end - 3 * HOUR)
    body = OutgoingMail.objects.get().body
    assert clock(booking.end - 3 * HOUR) in body
    assert clock(booking.start) not in body


def test_moving_by_a_little_frees_only_what_is_left_behind(follower, booking, commit):
    commit(
        booking_update,
        booking=booking,
        actor=booking.owner,
        start=booking.start + HOUR,
        end=booking.end + HOUR,
    )
    assert OutgoingMail.objects.count() == 1
    assert clock(booking.start + 8 * HOUR) not in OutgoingMail.objects.get().body


@pytest.mark.parametrize("change", [{"title": "x"}, {"end": 9}])
def test_what_frees_nothing_is_not_told(follower, booking, commit, change):
    if "end" in change:
        change = {"end": booking.end + HOUR}
    commit(booking_update, booking=booking, actor=booking.owner, **change)
    assert not OutgoingMail.objects.exists()


def test_time_that_is_taken_again_at_once_is_not_free(follower, booking, staff, commit):
    def replace():
        booking_cancel(booking=booking, actor=staff, reason="Broken")
        booking_create(
            actor=staff,
            microscope=booking.microscope,
            kind=Booking.Kind.DOWNTIME,
            start=booking.start,
            end=booking.end - HOUR,
        )

    commit(replace)
    body = OutgoingMail.objects.get(recipient=follower).body
    assert f"{clock(booking.end - HOUR)}–" in body
    assert clock(booking.start) not in body


def test_past_time_frees_nothing(follower, booking, commit, staff):
    Booking.objects.update(start=timezone.now() - 9 * HOUR, end=timezone.now() - HOUR)
    commit(booking_cancel, booking=booking, actor=staff, reason="x")
    assert not OutgoingMail.objects.filter(recipient=follower).exists()


def test_a_microscope_that_cannot_be_booked_has_no_free_time(follower, booking, commit, staff):
    Microscope.objects.update(status=Microscope.Status.MAINTENANCE)
    commit(booking_cancel, booking=booking, actor=staff, reason="x")
    assert not OutgoingMail.objects.filter(recipient=follower).exists()


def test_who_did_it_and_who_lost_it_hear_no_more_of_it(booking, commit, staff):
    for person in (staff, booking.owner):
        Follow.objects.create(user=person, microscope=booking.microscope)
    commit(booking_cancel, booking=booking, actor=staff, reason="x")
    (mail,) = OutgoingMail.objects.all()
    assert mail.subject.startswith("Cancelled")


def test_followers_of_other_microscopes_hear_nothing(booking, commit):
    Follow.objects.create(user=UserFactory(), microscope=MicroscopeFactory())
    commit(booking_cancel, booking=booking, actor=booking.owner)
    assert not OutgoingMail.objects.exists()


def test_one_chooses_on_ones_own_page(client, krios):
    glacios, retired = MicroscopeFactory(), MicroscopeFactory(status=Microscope.Status.RETIRED)
    user = UserFactory()
    other = Follow.objects.create(user=UserFactory(), microscope=glacios)
    client.force_login(user)
    chosen = [krios.pk, retired.pk, 10**17, "x"]
    answer = client.post("/bookings/follow/", {"microscope": chosen}, follow=True)
    assert [follow.microscope for follow in Follow.objects.filter(user=user)] == [krios]
    assert f'id="follow-{krios.pk}" checked' in answer.text
    assert f'id="follow-{glacios.pk}" checked' not in answer.text
    client.post("/bookings/follow/", {"microscope": [glacios.pk]})
    assert [follow.microscope for follow in Follow.objects.filter(user=user)] == [glacios]
    client.post("/bookings/follow/", {})
    assert list(Follow.objects.all()) == [other]
