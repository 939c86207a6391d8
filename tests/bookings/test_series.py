"""Bookings that repeat: across the change of the hour, whole or not at all, one, later ones or all."""

import datetime
from zoneinfo import ZoneInfo

import pytest
from django.core.exceptions import ValidationError
from django.utils import timezone

from bookings import notices, rules
from bookings.models import Booking, BookingSeries
from bookings.series import Repeat, series_cancel, series_create, series_update
from bookings.services import booking_cancel, booking_update
from tests.factories import (
    BookingFactory,
    FinishedSessionFactory,
    MicroscopeFactory,
    SessionFactory,
    UserFactory,
)

pytestmark = pytest.mark.django_db
ZONE = ZoneInfo("Europe/Stockholm")
HOUR = datetime.timedelta(hours=1)
DAY = datetime.timedelta(days=1)


def at(text: str) -> datetime.datetime:
    return datetime.datetime.fromisoformat(f"2027-{text}").replace(tzinfo=ZONE)


NOW = at("03-10 12:00")


@pytest.fixture(autouse=True)
def _then_and_there(settings, monkeypatch):
    settings.TIME_ZONE = "Europe/Stockholm"
    monkeypatch.setattr(timezone, "now", lambda: NOW)


def until(text: str) -> datetime.date:
    return datetime.date.fromisoformat(f"2027-{text}")


def weekly(last: str, every=1, weekdays=()):
    return Repeat(every, "weeks", until(last), weekdays)


def daily(last: str, every=1):
    return Repeat(every, "days", until(last))


def make(actor, repeat, microscope=None, start="03-15 09:00", end="03-15 17:00", **fields):
    microscope = microscope or MicroscopeFactory()
    return series_create(
        actor=actor, repeat=repeat, microscope=microscope, start=at(start), end=at(end), **fields
    )


def local(bookings) -> list[str]:
    return [f"{timezone.localtime(booking.start):%m-%d %H:%M}" for booking in bookings]


def refused(function, *args, **fields) -> ValidationError:
    with pytest.raises(ValidationError) as error:
        function(*args, **fields)
    return error.value


# -- when --------------------------------------------------------------------------------------------------


def test_every_so_many_weeks_on_these_days(user):
    made = make(user, weekly("04-02", every=2, weekdays=(0, 3)))
    assert local(made) == ["03-15 09:00", "03-18 09:00", "03-29 09:00", "04-01 09:00"]
    assert len({booking.series_id for booking in made}) == 1
    assert str(made[0].series) == "every 2 weeks on Mon, Thu until 2 Apr 2027"


def test_without_weekdays_it_is_the_day_of_the_first(user):
    assert local(make(user, weekly("03-29"))) == ["03-15 09:00", "03-22 09:00", "03-29 09:00"]


def test_the_clock_on_the_wall_stays_when_the_hour_changes(user):
    """Summer time begins on 28 March and ends on 31 October."""
    for first, last in (("03-26", "03-30"), ("10-29", "11-02")):
        made = make(user, daily(last), start=f"{first} 22:00", end=f"{first} 23:30")
        assert [text[-5:] for text in local(made)] == ["22:00"] * 5
        assert [f"{timezone.localtime(booking.end):%H:%M}" for booking in made] == ["23:30"] * 5
        assert made[-1].start - made[0].start != 4 * DAY


def test_the_hour_that_the_clock_skips_is_moved_forward_and_of_two_the_first_is_meant(user):
    spring = make(user, daily("03-29"), start="03-27 02:30", end="03-27 02:45")
    assert local(spring) == ["03-27 02:30", "03-28 03:30", "03-29 02:30"]
    assert {booking.end - booking.start for booking in spring} == {datetime.timedelta(minutes=15)}
    over = make(user, daily("03-29"), start="03-27 02:30", end="03-27 03:00")
    assert over[1].end - over[1].start == HOUR / 2
    autumn = make(user, daily("11-01"), start="10-30 02:30", end="10-30 02:45")
    assert autumn[1].start.astimezone(datetime.UTC).hour == 0  # Still summer time.


@pytest.mark.parametrize(
    ("repeat", "field"),
    [
        (daily("03-15"), "repeat_until"),
        (daily("03-14"), "repeat_until"),
        (weekly("03-20"), "repeat_until"),
        (Repeat(0, "days", until("03-20")), "repeat_every"),
        (Repeat(1, "days", datetime.date(2028, 3, 15)), "repeat_until"),
    ],
)
def test_what_is_no_repeat_is_told(user, repeat, field):
    assert list(refused(make, user, repeat).message_dict) == [field]
    assert not BookingSeries.objects.exists()


# -- whole or not at all -----------------------------------------------------------------------------------


def test_it_is_made_whole_or_not_at_all_and_the_dates_are_named(user, staff):
    microscope = MicroscopeFactory()
    for day in ("03-17", "03-19"):
        BookingFactory(
            microscope=microscope, start=at(f"{day} 10:00"), end=at(f"{day} 11:00"), title="Secret"
        )
    error = refused(make, user, daily("03-20"), microscope)
    assert rules.broken_rules(error) == {"nothing_overlaps"}
    (message,) = error.messages
    assert message.startswith("Not possible on 2 of 6 dates (Wed 17 Mar")
    assert "Fri 19 Mar" in message
    assert "Secret" not in message
    assert Booking.objects.count() == 2
    assert not BookingSeries.objects.exists()


def test_what_is_wrong_with_all_is_said_once_at_its_field(user):
    error = refused(make, user, daily("03-20"), owner=UserFactory())
    assert error.message_dict == {"owner": ["Choose yourself or a member of one of your labs."]}


def test_days_that_overlap_each_other_are_refused(user):
    error = refused(make, user, daily("03-20"), end="03-16 10:00")
    assert rules.broken_rules(error) == {"nothing_overlaps"}


def test_bookings_to_come_count_within_the_series(user, staff):
    microscope = MicroscopeFactory(max_pending=2)
    error = refused(make, user, daily("03-18"), microscope)
    assert rules.broken_rules(error) == {"pending_bookings"}
    assert "2 of 4 dates" in error.messages[0]
    made = make(staff, daily("03-18"), microscope, owner=user, override=True)
    assert [booking.overridden for booking in made] == [[], [], ["pending_bookings"], ["pending_bookings"]]


# -- one, later ones, all ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scope", "moved"),
    [
        ("this", ["03-15 09:00", "03-16 09:00", "03-17 11:00", "03-18 09:00"]),
        ("later", ["03-15 09:00", "03-16 09:00", "03-17 11:00", "03-18 11:00"]),
        ("all", ["03-15 11:00", "03-16 11:00", "03-17 11:00", "03-18 11:00"]),
    ],
)
def test_a_change_reaches_what_it_says(user, scope, moved):
    made = make(user, daily("03-18"))
    reached = series_update(
        booking=made[2], actor=user, scope=scope, start=at("03-17 11:00"), title="Later", end=made[2].end
    )
    rows = list(Booking.objects.order_by("start"))
    assert local(rows) == moved
    assert [row for row in rows if row.title == "Later"] == reached
    assert {timezone.localtime(row.end).hour for row in rows} == {17}


@pytest.mark.parametrize("shift", [DAY, -DAY, 2 * HOUR])
def test_days_may_move_onto_each_others_old_time(user, shift):
    made = make(user, daily("03-21"), start="03-15 00:00", end="03-16 00:00")
    first = made[0]
    series_update(booking=first, actor=user, scope="all", start=first.start + shift, end=first.end + shift)
    expected = [booking.start + shift for booking in made]
    assert list(Booking.objects.order_by("start").values_list("start", flat=True)) == expected


def test_moved_across_the_change_of_the_hour_it_keeps_the_clock(user):
    made = make(user, daily("03-30"), start="03-26 09:00", end="03-26 12:00")
    series_update(booking=made[0], actor=user, scope="all", start=at("03-26 10:00"))
    assert {text[-5:] for text in local(Booking.objects.all())} == {"10:00"}


def test_a_change_of_many_is_whole_or_not_at_all(user):
    made = make(user, daily("03-18"))
    BookingFactory(microscope=made[0].microscope, start=at("03-17 18:00"), end=at("03-17 20:00"))
    error = refused(series_update, booking=made[0], actor=user, scope="all", end=at("03-15 19:00"))
    assert "1 of 4 dates (Wed 17 Mar" in error.messages[0]
    assert {timezone.localtime(row.end).hour for row in Booking.objects.filter(series__isnull=False)} == {17}


@pytest.mark.parametrize(("scope", "gone"), [("this", [2]), ("later", [2, 3]), ("all", [0, 1, 2, 3])])
def test_cancelling_reaches_what_it_says(user, scope, gone):
    made = make(user, daily("03-18"))
    series_cancel(booking=made[2], actor=user, scope=scope)
    rows = Booking.objects.order_by("start")
    assert [n for n, row in enumerate(rows) if row.is_cancelled] == gone


def test_sessions_already_run_are_never_touched(user, staff, monkeypatch):
    made = make(user, daily("03-20"))
    FinishedSessionFactory(booking=made[0])
    FinishedSessionFactory(booking=made[4])  # Staff may create one ahead of time.
    SessionFactory(booking=made[2])
    monkeypatch.setattr(timezone, "now", lambda: at("03-16 10:00"))  # The second runs, without a session yet.
    reached = series_cancel(booking=made[3], actor=staff, scope="all", reason="No grids")
    assert [booking.pk for booking in reached] == [made[3].pk, made[5].pk]
    assert Booking.objects.standing().count() == 4
    error = refused(series_update, booking=made[3], actor=staff, scope="all", title="x")
    assert "begun" in error.messages[0]


def test_one_that_was_cancelled_or_moved_alone_stays_as_it_is(user):
    made = make(user, daily("03-18"))
    booking_cancel(booking=made[1], actor=user)
    booking_update(booking=made[2], actor=user, start=at("03-17 11:00"))
    series_update(booking=made[0], actor=user, scope="all", title="Apoferritin")
    assert local(Booking.objects.filter(title="Apoferritin").order_by("start")) == [
        "03-15 09:00",
        "03-17 11:00",
        "03-18 09:00",
    ]


def test_one_notice_tells_of_the_whole_repeat(user, django_capture_on_commit_callbacks, monkeypatch):
    told = []
    monkeypatch.setattr(notices, "_receivers", [told.append])
    with django_capture_on_commit_callbacks(execute=True):
        made = make(user, daily("03-18"))
        refused(make, user, daily("03-18"), made[0].microscope)
        series_update(booking=made[0], actor=user, scope="all", end=at("03-15 16:00"))
        series_cancel(booking=made[2], actor=user, scope="later", reason="No grids")
    assert [(notice.what, len(notice.bookings)) for notice in told] == [
        ("created", 4),
        ("changed", 4),
        ("cancelled", 2),
    ]
    assert [(free.start, free.end) for free in told[1].freed()] == [
        (booking.start + 7 * HOUR, booking.end) for booking in made
    ]
    assert told[2].reason == "No grids"


# -- by page -----------------------------------------------------------------------------------------------


def test_a_person_books_a_repeat_and_cancels_this_and_later_ones(client, user):
    microscope = MicroscopeFactory()
    client.force_login(user)
    data = {
        "microscope": microscope.pk,
        "owner": user.pk,
        "start": "2027-03-15T09:00",
        "end": "2027-03-15T17:00",
        "repeat": "weeks",
        "repeat_every": "1",
        "repeat_weekdays": ["0", "2"],
        "repeat_until": "2027-03-24",
    }
    page = client.post("/bookings/new/", data | {"repeat_until": ""})
    assert list(page.context["form"].errors) == ["repeat_until"]
    answer = client.post("/bookings/new/", data, follow=True)
    made = list(Booking.objects.order_by("start"))
    assert local(made) == ["03-15 09:00", "03-17 09:00", "03-22 09:00", "03-24 09:00"]
    assert "3 more of the repeat" in answer.content.decode()
    assert "every week on Mon, Wed until 24 Mar" in answer.content.decode()
    page = client.get(f"/bookings/{made[1].pk}/edit/")
    assert "repeat" not in page.context["form"].fields
    edited = data | {
        "scope": "all",
        "title": "Apoferritin",
        "start": "2027-03-17T09:00",
        "end": "2027-03-17T17:00",
    }
    assert client.post(f"/bookings/{made[1].pk}/edit/", edited).status_code == 302
    assert Booking.objects.filter(title="Apoferritin").count() == 4
    text = client.get(f"/bookings/{made[1].pk}/cancel/").content.decode()
    assert "This and later ones (3)" in text
    assert "All of the repeat (4)" in text
    client.post(f"/bookings/{made[1].pk}/cancel/", {"scope": "later", "reason": ""})
    assert local(Booking.objects.standing()) == ["03-15 09:00"]
    assert "scope" not in client.get("/bookings/new/").context["form"].fields
