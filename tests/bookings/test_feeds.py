"""Calendar feeds: who reads what by which address, and that the times are right."""

import datetime
from zoneinfo import ZoneInfo

import icalendar
import pytest
from django.db import IntegrityError, connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from bookings import feeds
from bookings.models import Booking, CalendarFeed
from bookings.services import booking_update
from people.models import Membership
from tests.factories import (
    ApplicationFactory,
    BookingFactory,
    LabFactory,
    MembershipFactory,
    MicroscopeFactory,
    UserFactory,
)

pytestmark = pytest.mark.django_db
HOUR = datetime.timedelta(hours=1)
DAY = datetime.timedelta(days=1)
PROFILE = "/people/me/"


@pytest.fixture
def lab():
    return LabFactory(name="Hall lab")


@pytest.fixture
def ada(lab):
    return MembershipFactory(lab=lab).user


def booking(**fields):
    start = fields.pop("start", timezone.now() + DAY)
    return BookingFactory(start=start, **fields)


def read(feed, **headers):
    return Client().get(feeds.path_of(feed), headers=headers)


def events(feed) -> dict:
    """By booking's number."""
    answer = read(feed)
    assert answer.status_code == 200
    calendar = icalendar.Calendar.from_ical(answer.content)
    return {int(event["UID"].split("@")[0].split("-")[1]): event for event in calendar.walk("VEVENT")}


# -- What stands in it -----------------------------------------------------------------------------------------
def test_mine_has_what_one_owns_operates_and_shares_and_nothing_else(ada, lab):
    owned, operated = booking(owner=ada), booking(operator=ada)
    shared = booking()
    shared.collaborators.add(ada)
    booking(lab=lab)  # A colleague's: it stands in the lab's.
    booking()
    booking(owner=ada, kind=Booking.Kind.SLOT)
    booking(owner=ada, cancelled_at=timezone.now(), cancelled_by=ada)
    feed = feeds.feed_make(user=ada, scope="mine")
    assert events(feed).keys() == {owned.pk, operated.pk, shared.pk}


def test_the_labs_has_the_labs_bookings_alone(ada, lab):
    theirs = booking(lab=lab, title="Ribosome")
    booking(owner=ada, lab=LabFactory())
    booking(title="A stranger's secret")
    feed = feeds.feed_make(user=ada, scope="lab", lab=lab)
    found = events(feed)
    assert found.keys() == {theirs.pk}
    assert found[theirs.pk]["SUMMARY"] == f"{theirs.microscope}: Ribosome"
    assert "A stranger's secret" not in read(feed).text


def test_a_microscopes_is_for_staff_and_has_all_of_it(staff, ada):
    krios = MicroscopeFactory()
    one, slot = booking(microscope=krios), booking(microscope=krios, kind=Booking.Kind.SLOT)
    booking()
    found = events(feeds.feed_make(user=staff, scope="microscope", microscope=krios))
    assert found.keys() == {one.pk, slot.pk}
    assert (found[one.pk]["TRANSP"], found[slot.pk]["TRANSP"]) == ("OPAQUE", "TRANSPARENT")
    with pytest.raises(feeds.PermissionDenied):
        feeds.feed_make(user=ada, scope="microscope", microscope=krios)


def test_the_range_is_bounded(ada):
    now = timezone.now()
    inside = [booking(owner=ada, start=now + days * DAY).pk for days in (-89, 0, 729)]
    for days in (-92, 731):
        booking(owner=ada, start=now + days * DAY)
    assert sorted(events(feeds.feed_make(user=ada, scope="mine"))) == inside


@pytest.mark.parametrize("change_over", ["2027-03-28", "2027-10-31"])
def test_times_are_right_across_a_change_of_summer_time(ada, change_over):
    """09:00 on the wall of the facility on the days around, and the night itself at its true length."""
    zone = ZoneInfo("Europe/Stockholm")
    night = datetime.date.fromisoformat(change_over)
    before = datetime.datetime.combine(night - DAY, datetime.time(9), zone)
    after = datetime.datetime.combine(night + DAY, datetime.time(9), zone)
    made = [
        booking(owner=ada, start=start, end=start.astimezone(datetime.UTC) + 2 * HOUR)
        for start in (before, after)
    ]
    whole = booking(
        owner=ada,
        start=datetime.datetime.combine(night, datetime.time(), zone),
        end=datetime.datetime.combine(night + DAY, datetime.time(), zone),
    )
    found = events(feeds.feed_make(user=ada, scope="mine"))
    for one in made:
        start, end = (found[one.pk][name].dt.astimezone(zone) for name in ("DTSTART", "DTEND"))
        assert (start.hour, end.hour) == (9, 11)
        assert (found[one.pk]["DTSTART"].dt, found[one.pk]["DTEND"].dt) == (one.start, one.end)
    length = found[whole.pk]["DTEND"].dt - found[whole.pk]["DTSTART"].dt
    assert length == (23 if night.month == 3 else 25) * HOUR


def test_a_change_is_a_later_revision_which_programs_take_over(ada):
    one = booking(owner=ada)
    long_ago = timezone.now() - 3 * DAY
    Booking.objects.filter(pk=one.pk).update(created_at=long_ago)
    feed = feeds.feed_make(user=ada, scope="mine")
    was = events(feed)[one.pk]
    assert (was["DTSTAMP"].dt, was["SEQUENCE"]) == (long_ago.replace(microsecond=0), 0)
    booking_update(booking=one, actor=ada, start=one.start + HOUR, end=one.end + HOUR)
    now = events(feed)[one.pk]
    assert was["UID"] == now["UID"]
    assert now["SEQUENCE"] >= 3 * 864_000
    assert now["DTSTAMP"].dt == now["LAST-MODIFIED"].dt > was["DTSTAMP"].dt


def test_what_is_confidential_stays_on_the_site(ada, lab):
    secret = ApplicationFactory(is_confidential=True)
    made = {"lab": lab, "title": "Secret target", "description": "All of it", "application": secret}
    one = booking(owner=ada, **made)
    feed = feeds.feed_make(user=ada, scope="mine")
    text = read(feed).text
    assert f"{one.microscope}: {lab}" in text
    assert "Secret" not in text
    assert "All of it" not in text
    secret.is_confidential = False
    secret.save()
    assert "Secret target" in read(feed).text


def test_what_people_write_cannot_break_out_of_its_line(ada):
    wild = "Ribosome;, \\ \u0007“é”"
    one = booking(owner=ada, title=wild, description="a\r\nEND:VEVENT\r\nBEGIN:VEVENT\nSUMMARY:forged")
    found = events(feeds.feed_make(user=ada, scope="mine"))
    assert list(found) == [one.pk]
    assert found[one.pk]["SUMMARY"] == f"{one.microscope}: Ribosome;, \\ “é”"
    assert found[one.pk]["DESCRIPTION"].endswith("a\nEND:VEVENT\nBEGIN:VEVENT\nSUMMARY:forged")


# -- Who reads it ----------------------------------------------------------------------------------------------
def test_it_needs_the_secret_and_no_login(ada):
    feed = feeds.feed_make(user=ada, scope="mine")
    good = feeds.path_of(feed)
    assert Client().get(good).headers["Content-Type"] == "text/calendar; charset=utf-8"
    right = feeds.secret(feed)
    wrong = [right[:-1] + ("0" if right[-1] != "0" else "1"), "0" * 40, right[:-1], right.upper() + "é"]
    client = Client()
    client.force_login(ada)
    for attempt in wrong:
        assert client.get(good.replace(right, attempt)).status_code == 404
    assert client.get(good.replace(f"/{feed.pk}-", f"/{feed.pk + 1}-")).status_code == 404
    assert client.post(good).status_code == 405


def test_no_copy_of_the_database_gives_an_address_away(ada, settings):
    feed = feeds.feed_make(user=ada, scope="mine")
    columns = CalendarFeed.objects.filter(pk=feed.pk).values().get()
    assert feeds.secret(feed) not in str(columns)
    path = feeds.path_of(feed)
    settings.SECRET_KEY = "another key, so that knowing the columns is not enough"
    assert Client().get(path).status_code == 404


def test_renewing_and_stopping_end_the_old_address(client, ada):
    feed = feeds.feed_make(user=ada, scope="mine")
    client.force_login(ada)
    old = feeds.path_of(feed)
    client.post(f"/bookings/feeds/{feed.pk}/renew/")
    feed.refresh_from_db()
    new = feeds.path_of(feed)
    assert [Client().get(path).status_code for path in (old, new)] == [404, 200]
    client.post(f"/bookings/feeds/{feed.pk}/stop/")
    assert Client().get(new).status_code == 404
    assert not CalendarFeed.objects.exists()


@pytest.mark.parametrize("act", ["renew", "stop"])
def test_nobody_touches_anothers_feed(client, ada, staff, act):
    feed = feeds.feed_make(user=ada, scope="mine")
    for person in (UserFactory(), staff):
        client.force_login(person)
        assert client.post(f"/bookings/feeds/{feed.pk}/{act}/").status_code == 404
    assert read(feed).status_code == 200


def test_who_leaves_the_lab_reads_it_no_more(ada, lab):
    feed = feeds.feed_make(user=ada, scope="lab", lab=lab)
    assert read(feed).status_code == 200
    Membership.objects.filter(user=ada).delete()
    assert read(feed).status_code == 404


def test_who_leaves_the_staff_reads_no_microscope(staff):
    feed = feeds.feed_make(user=staff, scope="microscope", microscope=MicroscopeFactory())
    assert read(feed).status_code == 200
    staff.is_staff = False
    staff.save()
    assert read(feed).status_code == 404


def test_the_deactivated_read_nothing(ada):
    feed = feeds.feed_make(user=ada, scope="mine")
    ada.is_active = False
    ada.save()
    assert read(feed).status_code == 404


# -- How it is served ------------------------------------------------------------------------------------------
def test_the_same_is_not_sent_twice_and_a_change_is(ada):
    one = booking(owner=ada)
    feed = feeds.feed_make(user=ada, scope="mine")
    first = read(feed)
    tag = first.headers["ETag"]
    assert read(feed).content == first.content
    again = read(feed, **{"if-none-match": tag})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["ETag"] == tag
    Booking.objects.filter(pk=one.pk).update(title="Other")
    assert read(feed, **{"if-none-match": tag}).status_code == 200


def test_it_costs_the_same_at_any_number_of_bookings(ada, lab):
    feed = feeds.feed_make(user=ada, scope="lab", lab=lab)

    def cost():
        with CaptureQueriesContext(connection) as queries:
            assert read(feed).status_code == 200
        return len(queries)

    cost()  # Notes that it was read, once an hour.
    booking(lab=lab, operator=UserFactory())
    one = cost()
    for _ in range(9):
        booking(lab=lab, operator=UserFactory())
    assert cost() == one <= 5


def test_when_it_was_read_is_written_once_an_hour(ada):
    feed = feeds.feed_make(user=ada, scope="mine")
    read(feed)
    feed.refresh_from_db()
    first = feed.read_at
    read(feed)
    feed.refresh_from_db()
    assert feed.read_at == first is not None


# -- On everyone's page ----------------------------------------------------------------------------------------
def test_one_makes_them_on_ones_own_page_and_sees_the_address_again(client, ada, lab):
    client.force_login(ada)
    page = client.get(PROFILE).text
    assert "Microscope</button>" not in page
    for fields in ({"scope": "mine"}, {"scope": "lab", "of": lab.pk}, {"scope": "mine"}):
        client.post("/bookings/feeds/new/", fields)
    made = list(CalendarFeed.objects.filter(user=ada))
    assert [feed.scope for feed in made] == ["lab", "mine"]
    page = client.get(PROFILE).text
    for feed in made:
        assert f"http://testserver{feeds.path_of(feed)}" in page
    client.force_login(UserFactory())
    assert feeds.path_of(made[0]) not in client.get(PROFILE).text


@pytest.mark.parametrize(
    "fields",
    [{}, {"scope": "all"}, {"scope": "lab", "of": "x"}, {"scope": "lab"}, {"scope": "microscope", "of": "1"}],
)
def test_what_is_not_offered_cannot_be_made(client, ada, fields):
    client.force_login(ada)
    assert "Choose one of the calendars" in client.post("/bookings/feeds/new/", fields, follow=True).text
    assert not CalendarFeed.objects.exists()


def test_a_strangers_lab_cannot_be_subscribed_to(client, ada):
    client.force_login(ada)
    client.post("/bookings/feeds/new/", {"scope": "lab", "of": LabFactory().pk})
    assert not CalendarFeed.objects.exists()


def test_staff_choose_a_microscope(client, staff):
    krios = MicroscopeFactory(name="Krios 9")
    client.force_login(staff)
    assert "Krios 9</option>" in client.get(PROFILE).text
    client.post("/bookings/feeds/new/", {"scope": "microscope", "of": krios.pk})
    assert CalendarFeed.objects.get().microscope == krios


def test_the_database_keeps_one_feed_of_each(ada):
    feeds.feed_make(user=ada, scope="mine")
    with pytest.raises(IntegrityError), transaction.atomic():
        CalendarFeed.objects.create(user=ada, scope="mine", nonce="x")
    with pytest.raises(IntegrityError), transaction.atomic():
        CalendarFeed.objects.create(user=UserFactory(), scope="lab", nonce="x")
