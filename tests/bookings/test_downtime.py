"""Downtime over bookings: what is in the way is listed, and gives way once that is confirmed, all of it or nothing."""

import datetime

import pytest
from django.core.exceptions import ValidationError
from django.utils import timezone

from bookings import notices
from bookings.downtime import clear_for_upkeep, hits
from bookings.models import Booking
from bookings.services import booking_create
from people.models import AuditEntry
from tests.factories import BookingFactory, FinishedSessionFactory, MicroscopeFactory, SessionFactory

pytestmark = pytest.mark.django_db
NEW = "/bookings/new/"
HOUR = datetime.timedelta(hours=1)


def at(hour, day=1):
    """An hour of a coming day, in the facility's zone."""
    date = timezone.localdate() + datetime.timedelta(days=day)
    return timezone.make_aware(datetime.datetime.combine(date, datetime.time())) + hour * HOUR


@pytest.fixture
def microscope():
    """With three bookings tomorrow: 6 to 10, 10 to 14 and 14 to 20 o'clock."""
    microscope = MicroscopeFactory(name="Krios 1", cancel_notice_hours=100, change_notice_hours=100)
    for start, end in ((6, 10), (10, 14), (14, 20)):
        BookingFactory(microscope=microscope, start=at(start), end=at(end), title=f"From {start}")
    BookingFactory(microscope=microscope, start=at(20), end=at(22))
    BookingFactory(microscope=microscope, start=at(0), end=at(23), kind="slot")
    return microscope


def down(actor, microscope, start=8, end=16, confirmed=(), kind="downtime", reason="Vacuum leak"):
    times = {"start": at(start), "end": at(end)}
    return clear_for_upkeep(
        actor=actor,
        kind=kind,
        microscope=microscope,
        confirmed=set(confirmed),
        reason=reason,
        then=lambda: booking_create(actor=actor, microscope=microscope, kind=kind, **times),
        **times,
    )


def shown(microscope, start=8, end=16):
    return [hit.booking.pk for hit in hits(microscope, at(start), at(end))]


def times_of(title):
    booking = Booking.objects.get(title=title)
    return booking.start, booking.end


def test_it_says_what_would_happen_to_each(microscope):
    assert [(hit.booking.title, hit.remains) for hit in hits(microscope, at(8), at(16))] == [
        ("From 6", (at(6), at(8))),
        ("From 10", None),
        ("From 14", (at(16), at(20))),
    ]
    assert hits(microscope, at(22), at(23)) == []


def test_confirmed_they_give_way_and_their_people_are_told(
    staff, microscope, monkeypatch, django_capture_on_commit_callbacks
):
    told = []
    monkeypatch.setattr(notices, "_receivers", [told.append])
    with django_capture_on_commit_callbacks(execute=True):
        made = down(staff, microscope, confirmed=shown(microscope))
    assert (made.kind, made.start, made.end) == ("downtime", at(8), at(16))
    assert times_of("From 6") == (at(6), at(8))
    assert times_of("From 14") == (at(16), at(20))
    cancelled = Booking.objects.get(title="From 10")
    assert (cancelled.cancelled_by, cancelled.cancel_reason) == (staff, "Vacuum leak")
    # Notice periods bind users; that they were set aside is kept.
    assert cancelled.overridden == ["cancelled_in_time"]
    assert AuditEntry.objects.filter(action="booking rules overridden").count() == 3
    assert {notice.what: len(notice.bookings) for notice in told} == {
        "changed": 2,
        "cancelled": 1,
        "created": 1,
    }


def test_what_nobody_looked_at_keeps_its_time(staff, microscope):
    seen = shown(microscope)[:2]
    with pytest.raises(ValidationError, match="not confirmed yet"):
        down(staff, microscope, confirmed=seen)
    assert Booking.objects.standing().count() == 5
    assert times_of("From 6") == (at(6), at(10))


def test_all_of_it_or_nothing(staff, microscope):
    BookingFactory(microscope=microscope, start=at(22), end=at(24), kind="maintenance")
    with pytest.raises(ValidationError, match="has maintenance"):
        down(staff, microscope, end=23, confirmed=shown(microscope, end=23))
    assert Booking.objects.standing().count() == 6
    assert not AuditEntry.objects.exists()


def test_a_user_takes_nobodys_time(user, microscope):
    with pytest.raises(ValidationError):
        down(user, microscope, confirmed=shown(microscope))
    with pytest.raises(ValidationError):
        down(user, microscope, confirmed=shown(microscope), kind="booking")
    assert Booking.objects.standing().count() == 5


def test_a_running_session_ends_its_booking_early_and_one_inside_is_told(staff):
    session = SessionFactory()
    booking = session.booking
    now = timezone.now()
    (hit,) = hits(booking.microscope, now, now + 24 * HOUR)
    assert hit.remains == (booking.start, now)
    times = {"start": booking.start - HOUR, "end": booking.end}
    finished = FinishedSessionFactory()
    for one in (session, finished):
        booking = one.booking
        times = {"start": booking.start - HOUR, "end": booking.end}
        with pytest.raises(ValidationError, match=one.name):
            clear_for_upkeep(
                actor=staff,
                kind="downtime",
                microscope=booking.microscope,
                confirmed={booking.pk},
                reason="x",
                then=lambda: None,
                **times,
            )
    assert Booking.objects.standing().count() == 2


# -- by page -----------------------------------------------------------------------------------------------


def filled(staff, microscope, start=8, end=16):
    moments = {
        name: timezone.localtime(at(hour)).strftime("%Y-%m-%dT%H:%M")
        for name, hour in (("start", start), ("end", end))
    }
    return {
        "microscope": microscope.pk,
        "kind": "downtime",
        "owner": staff.pk,
        "title": "Secret leak",
    } | moments


def test_the_form_lists_them_and_does_it_once_confirmed(client, staff, microscope):
    client.force_login(staff)
    data = filled(staff, microscope)
    page = client.post(NEW, data)
    text = page.content.decode()
    assert "3 bookings lie in this time" in text
    assert text.count("is shortened") == text.count("is cancelled") == text.count("begins later") == 1
    assert Booking.objects.standing().count() == 5
    confirmed = data | {"displace": shown(microscope), "displace_confirmed": "on", "displace_reason": ""}
    assert client.post(NEW, confirmed).status_code == 302
    assert Booking.objects.get(kind="downtime").start == at(8)
    reason = Booking.objects.get(title="From 10").cancel_reason
    assert reason.startswith("Krios 1 has downtime from ")
    assert "Secret" not in reason


def test_downtime_that_lasts_longer_takes_more(client, staff, microscope):
    client.force_login(staff)
    made = BookingFactory(
        microscope=microscope,
        kind="downtime",
        start=at(22),
        end=at(23),
        owner=staff,
        lab=None,
        title="Secret leak",
    )
    later = BookingFactory(microscope=microscope, start=at(23), end=at(30))
    data = filled(staff, microscope, 22, 25)
    page = client.post(f"/bookings/{made.pk}/edit/", data)
    assert [hit.booking for hit in page.context["form"].hits] == [later]
    confirmed = data | {"displace": [later.pk], "displace_confirmed": "on"}
    assert client.post(f"/bookings/{made.pk}/edit/", confirmed).status_code == 302
    later.refresh_from_db()
    assert (later.start, later.end) == (at(25), at(30))


def test_a_user_is_shown_no_list(client, user, microscope):
    client.force_login(user)
    page = client.post(
        NEW, filled(user, microscope) | {"displace": shown(microscope), "displace_confirmed": "on"}
    )
    assert page.context["form"].hits == []
    assert "From 10" not in page.content.decode()
    assert Booking.objects.standing().count() == 5
