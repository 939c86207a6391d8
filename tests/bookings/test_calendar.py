"""The calendar's page, range call and move call: what is told to whom, what it costs, and times at summer time."""

import datetime
import json
from zoneinfo import ZoneInfo

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from bookings import calendar
from bookings.models import Booking
from bookings.series import Repeat, series_create
from microscopes.models import Microscope
from people.models import Preferences
from tests.factories import (
    BookingFactory,
    LabFactory,
    MembershipFactory,
    MicroscopeFactory,
    StaffFactory,
    UserFactory,
)

pytestmark = pytest.mark.django_db

EVENTS = "/bookings/calendar/events/"


@pytest.fixture(autouse=True)
def _stockholm(settings):
    settings.TIME_ZONE = "Europe/Stockholm"
    timezone.activate("Europe/Stockholm")
    yield
    timezone.deactivate()


def day(offset=0):
    return timezone.localdate() + datetime.timedelta(days=offset)


def at(offset, hour=0, minute=0):
    return timezone.make_aware(datetime.datetime.combine(day(offset), datetime.time(hour, minute)))


def wall(moment):
    return timezone.localtime(moment).strftime("%Y-%m-%dT%H:%M:%S")


@pytest.fixture
def krios():
    return MicroscopeFactory(name="Krios 1", code="krios1")


@pytest.fixture
def lab():
    return LabFactory(name="Hall lab")


@pytest.fixture
def person(lab):
    return MembershipFactory(lab=lab).user


@pytest.fixture
def booking(krios, person, lab):
    return BookingFactory(
        microscope=krios,
        owner=person,
        lab=lab,
        title="Apoferritin",
        description="Grid 7",
        start=at(2, 9),
        end=at(2, 18),
    )


def events(client, first=0, last=7, **query):
    query = {"start": day(first).isoformat(), "end": day(last).isoformat()} | query
    response = client.get(EVENTS, query)
    assert response.status_code == 200, response.content
    return response.json()["events"]


# -- Who is told what ------------------------------------------------------------------------------------------
def test_owner_and_lab_read_the_booking(client, booking, person, lab):
    expected = {
        "id": booking.pk,
        "microscope": booking.microscope_id,
        "kind": "booking",
        "start": wall(booking.start),
        "end": wall(booking.end),
        "title": "Apoferritin",
        "owner": str(person),
        "lab": "Hall lab",
        "can_change": True,
        "repeats": False,
    }
    client.force_login(person)
    assert events(client) == [expected]
    client.force_login(MembershipFactory(lab=lab).user)
    assert events(client) == [expected | {"can_change": False}]
    client.force_login(StaffFactory())
    assert events(client) == [expected]


def test_a_stranger_reads_booked_and_nothing_else(client, booking):
    client.force_login(UserFactory())
    [told] = events(client)
    assert told == {
        "microscope": booking.microscope_id,
        "kind": "booked",
        "start": wall(booking.start),
        "end": wall(booking.end),
        "title": "Booked",
    }
    page = client.get(reverse("bookings:calendar"), {"view": "list"}).content.decode()
    assert "Booked" in page
    for secret in ("Apoferritin", "Grid 7", "Hall lab", str(booking.owner), f"/bookings/{booking.pk}/"):
        assert secret not in page


@pytest.mark.parametrize(("kind", "title"), [("downtime", "Downtime"), ("maintenance", "Maintenance")])
def test_everyone_sees_that_the_microscope_is_down_but_not_why(client, krios, kind, title):
    BookingFactory(
        microscope=krios, owner=StaffFactory(), lab=None, kind=kind, title="Gun broken", start=at(1)
    )
    client.force_login(UserFactory())
    [told] = events(client)
    assert (told["kind"], told["title"]) == (kind, title)
    assert told.keys() == {"microscope", "kind", "start", "end", "title"}


def test_special_time_of_others_reads_booked(client, krios):
    BookingFactory(microscope=krios, kind="special", title="Visit of the board", start=at(1))
    client.force_login(UserFactory())
    assert [(told["kind"], told["title"]) for told in events(client)] == [("booked", "Booked")]


def test_slots_are_told_to_those_they_are_open_for(client, krios, lab, person):
    staff = StaffFactory()
    slot = BookingFactory(
        microscope=krios, owner=staff, lab=None, kind="slot", title="Of the board", start=at(1)
    )
    # Open for anyone.
    client.force_login(UserFactory())
    [told] = events(client)
    assert told == {
        "microscope": krios.pk,
        "start": wall(slot.start),
        "end": wall(slot.end),
        "kind": "slot",
        "title": "Open slot",
    }
    # Open for one lab.
    slot.slot_labs.set([lab])
    assert events(client) == []
    client.force_login(person)
    assert [(told["kind"], told["title"]) for told in events(client)] == [("slot", "Open slot")]
    client.force_login(staff)
    assert [(told["title"], told["can_change"]) for told in events(client)] == [("Of the board", True)]


def test_without_a_login_nothing_is_told(client, booking):
    for name, arguments in [("calendar", []), ("calendar-events", []), ("calendar-new", [])]:
        response = client.get(reverse(f"bookings:{name}", args=arguments))
        assert response.status_code == 302
        assert response.url.startswith("/people/login/")
    assert client.post(reverse("bookings:calendar-move", args=[booking.pk])).status_code == 302


# -- What lies in a range --------------------------------------------------------------------------------------
def test_the_range_is_half_open(client, krios, person):
    client.force_login(person)
    inside = {
        "before": (at(0, 20), at(1, 6)),
        "within": (at(1, 9), at(1, 12)),
        "after": (at(1, 20), at(2, 6)),
    }
    for title, (start, end) in inside.items():
        BookingFactory(microscope=krios, owner=person, title=title, start=start, end=end)
    other = MicroscopeFactory()
    BookingFactory(microscope=other, owner=person, title="enclosing", start=at(-9), end=at(9))
    BookingFactory(microscope=MicroscopeFactory(), owner=person, title="ends", start=at(0, 9), end=at(1))
    BookingFactory(microscope=MicroscopeFactory(), owner=person, title="begins", start=at(2), end=at(3))
    assert [told["title"] for told in events(client, 1, 2)] == ["enclosing", "before", "within", "after"]


def test_cancelled_ones_are_left_out_and_hide_nothing(client, krios, person):
    """The latest that began before the range is a cancelled one; what reaches in lies before it."""
    BookingFactory(microscope=krios, owner=person, title="reaches in", start=at(-3), end=at(2))
    BookingFactory(
        microscope=krios,
        owner=person,
        title="cancelled",
        start=at(-1),
        end=at(1, 12),
        cancelled_at=timezone.now(),
    )
    client.force_login(person)
    assert [told["title"] for told in events(client, 1, 2)] == ["reaches in"]


def test_slots_that_overlap_all_reach_into_the_range(client, krios, lab, person):
    for title, start in [("long", at(-9)), ("short", at(-1)), ("another", at(0))]:
        BookingFactory(
            microscope=krios,
            owner=StaffFactory(),
            lab=lab,
            kind="slot",
            title=title,
            start=start,
            end=at(1, 12),
        )
    client.force_login(person)
    assert [told["title"] for told in events(client, 1, 2)] == ["long", "short", "another"]


def test_only_the_microscopes_that_are_asked_for(client, booking, person):
    talos = BookingFactory(
        microscope=MicroscopeFactory(code="talos"), owner=person, title="Talos", start=at(1)
    )
    client.force_login(person)
    assert [told["title"] for told in events(client, microscope="KRIOS1")] == ["Apoferritin"]
    assert [told["title"] for told in events(client, microscope=["krios1", "talos"])] == [
        "Talos",
        "Apoferritin",
    ]
    assert len(events(client, microscope="nonsense")) == 2
    Microscope.objects.filter(pk=talos.microscope_id).update(status="retired")
    assert [told["title"] for told in events(client)] == ["Apoferritin"]


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ({}, "Write a day"),
        ({"start": "2026-11-23"}, "Write a day"),
        ({"start": "yesterday", "end": "2026-11-24"}, "Write a day"),
        ({"start": "2026-11-24", "end": "2026-11-24"}, "must end after it starts"),
        ({"start": "2026-01-01", "end": "2027-02-06"}, "at most 400 days"),
        ({"start": "0001-01-01", "end": "9999-12-31"}, "between 1970 and 2200"),
        ({"start": "2026-11-24\x00", "end": "2026-11-25"}, "Write a day"),
    ],
)
def test_a_range_that_is_none_or_too_long_is_refused_with_words(client, user, query, words):
    client.force_login(user)
    response = client.get(EVENTS, query)
    assert response.status_code == 400
    assert words in response.json()["detail"]


def test_thirteen_months_are_answered(client, user):
    client.force_login(user)
    assert client.get(EVENTS, {"start": "2026-01-01", "end": "2027-02-05"}).status_code == 200


@pytest.mark.parametrize("who", ["person", "staff"])
def test_the_number_of_queries_does_not_depend_on_what_is_booked(client, request, who, krios, person, lab):
    client.force_login(request.getfixturevalue(who))

    def count():
        with CaptureQueriesContext(connection) as queries:
            told = events(client, 0, 300)
        with CaptureQueriesContext(connection) as page:
            client.get(reverse("bookings:calendar"), {"view": "list", "date": day(1).isoformat()})
        return len(told), len(queries), len(page)

    def fill(first, microscope):
        for n in range(first, first + 6):
            # Every second one is the lab's, with people of their own.
            mine = {"lab": lab} if n % 2 else {}
            BookingFactory(microscope=microscope, start=at(n, 9), end=at(n, 12), **mine)
        BookingFactory(microscope=microscope, kind="slot", lab=lab, start=at(-1), end=at(200))

    fill(1, krios)
    few, *costs = count()
    fill(20, krios)
    for n in range(3):
        fill(1, MicroscopeFactory(position=n))
    many, *costs_of_many = count()
    assert many > 3 * few
    assert costs_of_many == costs
    assert costs[0] <= 15


# -- Wall-clock times at summer time ---------------------------------------------------------------------------
def utc(*parts):
    return datetime.datetime(*parts, tzinfo=datetime.UTC)


def test_times_are_the_facilitys_on_both_sides_of_the_change():
    # Clocks went forward on 28 March 2027 and go back on 31 October 2027.
    assert calendar.placed(utc(2027, 3, 27, 8), utc(2027, 3, 28, 8)) == (
        "2027-03-27T09:00:00",
        "2027-03-28T10:00:00",
    )
    assert calendar.placed(utc(2027, 10, 30, 7), utc(2027, 10, 31, 8)) == (
        "2027-10-30T09:00:00",
        "2027-10-31T09:00:00",
    )


def test_within_the_repeated_hour_it_is_drawn_at_its_true_length():
    assert calendar.placed(utc(2027, 10, 31, 0, 30), utc(2027, 10, 31, 1, 15)) == (
        "2027-10-31T02:30:00",
        "2027-10-31T03:15:00",
    )


def test_wall_times_become_moments_again():
    assert calendar.moment_of("2027-03-27T09:00") == utc(2027, 3, 27, 8)
    assert calendar.moment_of("2027-03-28T10:00:00") == utc(2027, 3, 28, 8)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("2027-03-28T02:30", "There is no 02:30 on Sun 28 Mar"),
        ("2027-10-31T02:30", "02:30 on Sun 31 Oct comes twice"),
        ("2027-03-28T09:00+02:00", "a date and a time of the facility"),
        ("soon", "a date and a time of the facility"),
        ("", "a date and a time of the facility"),
        ("0001-01-01T00:00", "between 1970 and 2200"),
    ],
)
def test_times_that_are_none_are_refused_with_words(text, words):
    with pytest.raises(calendar.ValidationError, match=words):
        calendar.moment_of(text)


# -- Moving ----------------------------------------------------------------------------------------------------
def move(client, booking, **fields):
    start, end = calendar.placed(booking.start, booking.end)
    data = {"start": start, "end": end, "seen_start": start, "seen_end": end} | fields
    return client.post(reverse("bookings:calendar-move", args=[booking.pk]), data)


def test_moving_keeps_everything_else(client, booking, person):
    client.force_login(person)
    response = move(client, booking, start=wall(at(3, 10)), end=wall(at(3, 19)))
    assert response.status_code == 200
    assert "Krios 1 is booked from" in response.json()["detail"]
    booking.refresh_from_db()
    assert (booking.start, booking.end) == (at(3, 10), at(3, 19))
    assert (booking.title, booking.description, booking.owner) == ("Apoferritin", "Grid 7", person)


def test_moving_to_another_microscope(client, booking, person):
    talos = MicroscopeFactory(name="Talos")
    client.force_login(person)
    assert move(client, booking, microscope=talos.pk).status_code == 200
    booking.refresh_from_db()
    assert booking.microscope == talos


def test_an_edge_that_was_left_alone_keeps_its_exact_moment(client, booking, person):
    """Also its fraction of a second, which no calendar shows."""
    exact = at(2, 9) + datetime.timedelta(microseconds=250)
    Booking.objects.filter(pk=booking.pk).update(start=exact)
    client.force_login(person)
    assert move(client, booking, end=wall(at(2, 20))).status_code == 200
    booking.refresh_from_db()
    assert (booking.start, booking.end) == (exact, at(2, 20))


def test_moved_upkeep_is_told_as_what_it_is(client, booking, staff):
    Booking.objects.filter(pk=booking.pk).update(kind="downtime")
    client.force_login(staff)
    told = move(client, booking, end=wall(at(2, 20))).json()["detail"]
    assert told.startswith("Moved. Krios 1 has downtime from ")


def test_a_booking_in_the_repeated_hour_can_be_moved_at_its_other_edge(client, booking, person):
    # 02:30 by summer time, which comes again an hour later.
    start, end = utc(2027, 10, 31, 0, 30), utc(2027, 10, 31, 8)
    Booking.objects.filter(pk=booking.pk).update(start=start, end=end)
    booking.refresh_from_db()
    client.force_login(person)
    assert move(client, booking, end="2027-10-31T10:00:00").status_code == 200
    booking.refresh_from_db()
    assert (booking.start, booking.end) == (start, utc(2027, 10, 31, 9))
    response = move(client, booking, start="2027-10-31T02:45:00")
    assert response.status_code == 400
    assert "comes twice" in response.json()["detail"]


def test_taken_time_is_refused_in_words_that_tell_nothing(client, booking, person):
    BookingFactory(
        microscope=booking.microscope, title="Secret", start=at(4, 9), end=at(4, 12), lab=LabFactory()
    )
    client.force_login(person)
    response = move(client, booking, start=wall(at(4, 10)), end=wall(at(4, 19)))
    assert response.status_code == 409
    assert "Krios 1 is already booked from" in response.json()["detail"]
    assert "Secret" not in response.content.decode()
    booking.refresh_from_db()
    assert booking.start == at(2, 9)


def test_a_rule_refuses_with_its_message(client, booking, person):
    talos = MicroscopeFactory(name="Talos", status="maintenance", status_note="Cold finger leaks")
    client.force_login(person)
    response = move(client, booking, microscope=talos.pk)
    assert response.status_code == 400
    assert "Talos is in maintenance (Cold finger leaks)" in response.json()["detail"]
    response = move(client, booking, start=wall(at(2, 19)))
    assert response.status_code == 400
    assert "The end must be after the start" in response.json()["detail"]


def test_who_saw_it_elsewhere_does_not_move_it(client, booking, person):
    seen = calendar.placed(booking.start, booking.end)
    Booking.objects.filter(pk=booking.pk).update(start=at(5, 9), end=at(5, 18))
    client.force_login(person)
    response = move(client, booking, seen_start=seen[0], seen_end=seen[1], end=wall(at(2, 20)))
    assert response.status_code == 409
    assert "changed meanwhile" in response.json()["detail"]
    booking.refresh_from_db()
    assert booking.start == at(5, 9)


def test_who_may_move(client, booking, person, lab):
    later = {"start": wall(at(3, 9)), "end": wall(at(3, 18))}
    client.force_login(UserFactory())
    response = move(client, booking, **later)
    assert response.status_code == 404
    assert "Apoferritin" not in response.content.decode()
    client.force_login(MembershipFactory(lab=lab).user)
    response = move(client, booking, **later)
    assert response.status_code == 403
    assert "owner" in response.json()["detail"]
    booking.refresh_from_db()
    assert booking.start == at(2, 9)
    client.force_login(StaffFactory())
    assert move(client, booking, **later).status_code == 200
    client.force_login(person)
    Booking.objects.filter(pk=booking.pk).update(start=timezone.now() - datetime.timedelta(hours=1))
    booking.refresh_from_db()
    assert move(client, booking, **later).status_code == 403


@pytest.mark.parametrize(
    "fields",
    [{"start": "soon"}, {"end": ""}, {"microscope": "none"}, {"microscope": "9" * 40}, {"start": "\x00"}],
)
def test_nonsense_is_refused_and_changes_nothing(client, booking, person, fields):
    client.force_login(person)
    response = move(client, booking, **fields)
    assert response.status_code == 400
    assert response.json()["detail"]
    before = booking.start, booking.end, booking.microscope_id
    booking.refresh_from_db()
    assert (booking.start, booking.end, booking.microscope_id) == before


@pytest.fixture
def series(krios, person, lab):
    """09:00 to 18:00 on four days, the first in two days."""
    repeat = Repeat(every=1, unit="days", until=day(5))
    return series_create(
        actor=person, repeat=repeat, microscope=krios, start=at(2, 9), end=at(2, 18), lab=lab, title="Daily"
    )


@pytest.mark.parametrize(
    ("scope", "moved", "more"),
    [
        ("", {1}, ""),
        ("this", {1}, ""),
        ("later", {1, 2, 3}, "So are 2 more of the repeat."),
        ("all", {0, 1, 2, 3}, "3 more"),
    ],
)
def test_one_later_ones_or_all_of_a_repeat_are_moved(client, series, person, scope, moved, more):
    client.force_login(person)
    assert all(event["repeats"] for event in events(client))
    wish = {"start": wall(at(3, 11)), "end": wall(at(3, 20)), "scope": scope}
    response = move(client, series[1], **wish)
    assert response.status_code == 200, response.content
    assert f"{day(3).day} {day(3):%b} 11:00 to 20:00." in response.json()["detail"]
    assert more in response.json()["detail"]
    found = Booking.objects.order_by("start").values_list("start", flat=True)
    assert list(found) == [at(2 + n, 11 if n in moved else 9) for n in range(4)]


def test_a_repeat_is_moved_whole_or_not_at_all(client, series, krios, person):
    BookingFactory(microscope=krios, start=at(4, 18), end=at(4, 22))
    client.force_login(person)
    wish = {"start": wall(at(3, 11)), "end": wall(at(3, 20)), "scope": "all"}
    response = move(client, series[1], **wish)
    assert response.status_code == 409
    assert f"{day(4).day} {day(4):%b}" in response.json()["detail"]
    assert set(Booking.objects.filter(owner=person).values_list("start", flat=True)) == {
        at(2 + n, 9) for n in range(4)
    }
    assert move(client, series[1], **wish | {"scope": "some"}).status_code == 400


def test_moving_needs_a_csrf_token(booking, person):
    from django.test import Client

    client = Client(enforce_csrf_checks=True)
    client.force_login(person)
    assert move(client, booking, end=wall(at(2, 20))).status_code == 403
    booking.refresh_from_db()
    assert booking.end == at(2, 18)


# -- The page, the list and the dialog -------------------------------------------------------------------------
def test_the_page_names_the_zone_and_holds_no_inline_script(client, booking, person):
    client.force_login(person)
    page = client.get(reverse("bookings:calendar")).content.decode()
    assert "Europe/Stockholm" in page
    assert "onclick" not in page
    assert "Apoferritin" not in page  # fetched for the visible range


@pytest.mark.parametrize("query", [{"date": "nonsense"}, {"view": "nonsense"}, {"date": "9999-12-31"}])
def test_a_strange_address_shows_the_usual_calendar(client, booking, person, query):
    client.force_login(person)
    response = client.get(reverse("bookings:calendar"), query)
    assert response.status_code == 200
    assert response.context["day"] == day()


# -- What the person last looked at ----------------------------------------------------------------------------
CHOICE = "/bookings/calendar/choice/"


def shown(client, **query):
    config = client.get(reverse("bookings:calendar"), query).context["config"]
    return config["view"], config["chosen"]


def test_the_view_and_the_microscopes_are_kept_for_the_person(client, krios, person, staff):
    MicroscopeFactory(name="Talos", code="talos")
    client.force_login(person)
    assert shown(client) == ("week", [])
    assert client.post(CHOICE, {"view": "month", "microscope": ["krios1"]}).status_code == 204
    assert shown(client) == ("month", ["krios1"])
    # The address's choice is stronger, and is not kept by itself.
    assert shown(client, view="timeline") == ("timeline", [])
    assert shown(client, microscope="talos") == ("month", ["talos"])
    assert shown(client, date="2026-11-24") == ("month", ["krios1"])
    client.force_login(staff)
    assert shown(client) == ("week", [])


def test_the_choice_is_written_only_when_it_is_another_one(client, krios, person):
    client.force_login(person)

    def writes(**choice):
        with CaptureQueriesContext(connection) as captured:
            assert client.post(CHOICE, choice).status_code == 204
        return [one["sql"] for one in captured if one["sql"].startswith(("UPDATE", "INSERT"))]

    assert writes(view="") == []
    assert len(writes(view="month", microscope=["krios1"])) == 1
    assert writes(view="month", microscope=["krios1", "krios1"]) == []
    assert len(writes(view="week")) == 1
    # What else the person has chosen stays.
    Preferences.objects.update(mail_created=False, hour_cycle="h12")
    writes(view="list")
    kept = Preferences.objects.get(user=person)
    assert (kept.mail_created, kept.hour_cycle, kept.calendar_view) == (False, "h12", "list")


@pytest.mark.parametrize("choice", [{"view": "year"}, {"view": "week", "microscope": ["nonsense"]}])
def test_a_choice_that_is_none_is_refused(client, krios, person, choice):
    client.force_login(person)
    assert client.post(CHOICE, choice).status_code == 400
    assert not Preferences.objects.exists()
    assert client.get(CHOICE).status_code == 405


def test_a_microscope_that_is_gone_leaves_the_others_shown(client, krios, person):
    talos = MicroscopeFactory(name="Talos", code="talos")
    client.force_login(person)
    client.post(CHOICE, {"view": "week", "microscope": ["talos"]})
    Microscope.objects.filter(pk=talos.pk).update(status="retired")
    assert shown(client) == ("week", [])


def test_the_list_says_the_hours_of_each_day(client, krios, person):
    BookingFactory(microscope=krios, owner=person, title="Long", start=at(1, 22), end=at(3, 6))
    BookingFactory(microscope=krios, owner=person, title="Late", start=at(3, 20), end=at(4))
    client.force_login(person)
    query = {"view": "list", "date": day(1).isoformat()}
    response = client.get(reverse("bookings:calendar"), query, headers={"HX-Request": "true"})
    assert "<html" not in response.content.decode()
    lines = [[(line.clock, line.event.title) for line in shown.lines] for shown in response.context["days"]]
    assert lines == [
        [("from 22:00", "Long")],
        [("all day", "Long")],
        [("until 06:00", "Long"), ("20:00–24:00", "Late")],
        [],
        [],
        [],
        [],
    ]


def test_the_dialog_books_and_tells_the_calendar(client, krios, person):
    client.force_login(person)
    address, htmx = reverse("bookings:calendar-new"), {"HX-Request": "true"}
    query = {"microscope": "krios1", "start": wall(at(2, 9))[:16], "end": wall(at(2, 15))[:16]}
    form = client.get(address, query, headers=htmx)
    assert "<html" not in form.content.decode()
    assert form.context["form"].initial["start"] == at(2, 9)
    data = {
        "microscope": krios.pk,
        "start": query["start"],
        "end": query["end"],
        "owner": person.pk,
        "title": "Apoferritin",
    }
    response = client.post(address, data, headers=htmx)
    assert response.status_code == 204
    told = json.loads(response.headers["HX-Trigger"])["emhub:booked"]
    booked = Booking.objects.get()
    assert told["message"].startswith("Krios 1 is booked from")
    assert told["url"] == f"/bookings/{booked.pk}/"
    assert (booked.start, booked.end) == (at(2, 9), at(2, 15))
    refused = client.post(address, data, headers=htmx)
    assert refused.status_code == 200
    assert "already booked" in refused.content.decode()
    assert Booking.objects.count() == 1


def test_without_the_dialog_it_is_the_plain_form(client, krios, person):
    client.force_login(person)
    page = client.get(reverse("bookings:calendar-new"), {"microscope": "krios1"})
    assert "<html" in page.content.decode()
    data = {
        "microscope": krios.pk,
        "start": wall(at(2, 9))[:16],
        "end": wall(at(2, 15))[:16],
        "owner": person.pk,
    }
    response = client.post(reverse("bookings:calendar-new"), data)
    assert response.url == f"/bookings/{Booking.objects.get().pk}/"


def test_staff_make_downtime_from_it(client, krios, staff):
    client.force_login(staff)
    data = {
        "microscope": krios.pk,
        "kind": "downtime",
        "start": wall(at(2, 9))[:16],
        "end": wall(at(2, 15))[:16],
        "owner": staff.pk,
        "title": "Gun",
    }
    response = client.post(reverse("bookings:calendar-new"), data, headers={"HX-Request": "true"})
    assert response.status_code == 204
    assert Booking.objects.get().kind == "downtime"


def test_staff_set_a_rule_aside_in_the_dialog(client, krios, staff):
    Microscope.objects.filter(pk=krios.pk).update(max_length_hours=4)
    client.force_login(staff)
    data = {
        "microscope": krios.pk,
        "kind": "booking",
        "start": wall(at(2, 9))[:16],
        "end": wall(at(2, 15))[:16],
        "owner": staff.pk,
    }
    address, htmx = reverse("bookings:calendar-new"), {"HX-Request": "true"}
    refused = client.post(address, data, headers=htmx)
    assert "As staff you may set aside" in refused.content.decode()
    data |= {"override": "maximum_length", "override_confirmed": "on"}
    assert client.post(address, data, headers=htmx).status_code == 204
    assert Booking.objects.get().overridden == ["maximum_length"]


def test_downtime_over_a_booking_is_asked_for_in_the_dialog(client, booking, staff):
    client.force_login(staff)
    data = {
        "microscope": booking.microscope_id,
        "kind": "downtime",
        "start": wall(at(2, 8))[:16],
        "end": wall(at(2, 20))[:16],
        "owner": staff.pk,
    }
    response = client.post(reverse("bookings:calendar-new"), data, headers={"HX-Request": "true"})
    assert response.status_code == 200
    assert "Apoferritin" in response.content.decode()
    assert not Booking.objects.filter(kind="downtime").exists()


# -- Colours ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("ground", "text"),
    [("#000000", "#ffffff"), ("#ffffff", "#000000"), ("#0072B2", "#ffffff"), ("#F0E442", "#000000")],
)
def test_text_is_black_or_white_whichever_is_read_better(ground, text):
    assert calendar.text_colour(ground) == text


def test_text_can_be_read_on_any_colour():
    for red in range(0, 256, 51):
        for green in range(0, 256, 17):
            for blue in range(0, 256, 51):
                ground = f"#{red:02x}{green:02x}{blue:02x}"
                assert calendar.contrast(ground, calendar.text_colour(ground)) >= 4.5


# -- Wall clocks, many at once ---------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "zone", ["Europe/Stockholm", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "UTC"]
)
def test_many_times_are_placed_as_each_by_itself(zone):
    """Around both changes of the clocks, to the minute before and after."""
    zone = ZoneInfo(zone)
    places = calendar.Places(zone)
    first = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    starts = [first + datetime.timedelta(hours=7 * n, minutes=n % 2 * 59) for n in range(1300)]
    for night in ((2026, 3, 29), (2026, 10, 25), (2026, 3, 8), (2026, 11, 1), (2026, 4, 4), (2026, 10, 3)):
        starts += [
            datetime.datetime(*night, tzinfo=datetime.UTC) + datetime.timedelta(minutes=15 * n)
            for n in range(96)
        ]
    for start in starts:
        end = start + datetime.timedelta(minutes=30)
        one, other = (int(moment.timestamp()) for moment in (start, end))
        assert tuple(wall.isoformat() for wall in places.of(one, other)) == calendar.placed(start, end, zone)


def test_a_year_of_many_bookings_is_answered_as_its_months(client, krios, person):
    """What is told of a booking does not depend on the range in which it is asked for."""
    for n in range(40):
        BookingFactory(
            microscope=krios, owner=person, title=f"n{n}", start=at(9 * n, 22), end=at(9 * n + 1, 6)
        )
    client.force_login(person)
    whole = events(client, 0, 366)
    parts = [event for n in range(0, 366, 6) for event in events(client, n, n + 6)]
    assert whole == [event for n, event in enumerate(parts) if event not in parts[:n]]
    assert len(whole) == 40
