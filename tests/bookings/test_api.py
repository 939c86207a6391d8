"""Bookings by REST: who sees, makes, changes and cancels what. The rules at their edges are in test_rules.py."""

import datetime

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from bookings.models import Booking
from tests.factories import (
    ApplicationFactory,
    BookingFactory,
    FinishedSessionFactory,
    MembershipFactory,
    MicroscopeFactory,
    UserFactory,
)

pytestmark = pytest.mark.django_db
LIST = "/api/v1/bookings/"
HOUR = datetime.timedelta(hours=1)


def at(hour, days=1):
    day = timezone.localdate() + datetime.timedelta(days=days)
    return timezone.make_aware(datetime.datetime.combine(day, datetime.time(hour)))


def later(**fields):
    return BookingFactory(**{"start": at(9), "end": at(17)} | fields)


def url(booking):
    return f"{LIST}{booking.pk}/"


def rows(answer):
    assert answer.status_code == 200, answer.content
    return answer.json()["results"]


def wish(microscope, **fields):
    return {"microscope": microscope.code, "start": at(9).isoformat(), "end": at(17).isoformat()} | fields


# -- who sees ----------------------------------------------------------------------------------------------


def test_others_bookings_read_booked_and_no_more(api, user):
    booking = later(title="Secret", description="Secret", application=ApplicationFactory(code="SECRET"))
    (row,) = rows(api(user).get(LIST))
    told = {name: value for name, value in row.items() if value is not None}
    assert told == {
        "microscope": booking.microscope.code,
        "title": "Booked",
        "start": booking.start.isoformat().replace("+00:00", "Z"),
        "end": booking.end.isoformat().replace("+00:00", "Z"),
    }
    assert api(user).get(url(booking)).status_code == 404
    assert api(user).patch(url(booking), {"title": "x"}).status_code == 404
    assert api(user).delete(url(booking)).status_code == 404
    for query in ("kind=booking", "mine=true"):
        assert rows(api(user).get(f"{LIST}?{query}")) == []


def test_the_lab_and_staff_read_it(api, staff):
    booking = later(title="Apoferritin")
    member = MembershipFactory(lab=booking.lab).user
    for person in (booking.owner, member, booking.lab.pi, staff):
        (row,) = rows(api(person).get(LIST))
        assert (row["id"], row["title"], row["owner"]) == (booking.pk, "Apoferritin", booking.owner.username)
        assert api(person).get(url(booking)).json() == row


def test_pipelines_have_nothing_to_do_with_bookings(api):
    booking = later()
    pipeline = api(microscopes=[booking.microscope])
    for answer in (
        pipeline.get(LIST),
        pipeline.get(url(booking)),
        pipeline.post(LIST, wish(booking.microscope)),
        pipeline.patch(url(booking), {"title": "x"}),
        pipeline.delete(url(booking)),
    ):
        assert answer.status_code == 403
        assert booking.owner.username not in answer.content.decode()
    assert api().get(LIST).status_code in (401, 403)


def test_others_slots_and_cancelled_ones_are_not_listed(api, user):
    later(kind="slot")
    later(cancelled_at=timezone.now())
    own = later(owner=user, cancelled_at=timezone.now())
    assert rows(api(user).get(LIST)) == []
    assert [row["id"] for row in rows(api(user).get(f"{LIST}?cancelled=true"))] == [own.pk]


def test_it_narrows_to_time_and_microscope_and_refuses_what_it_does_not_know(api, staff):
    first, second = later(), later(start=at(9, 3), end=at(17, 3))
    client = api(staff)
    noon = at(12, 2).isoformat().replace("+", "%2B")
    assert [row["id"] for row in rows(client.get(f"{LIST}?before={noon}"))] == [first.pk]
    assert [row["id"] for row in rows(client.get(f"{LIST}?after={noon}"))] == [second.pk]
    assert [row["id"] for row in rows(client.get(f"{LIST}?microscope={second.microscope.code}"))] == [
        second.pk
    ]
    for query in ("after=2027-01-01T09:00", "nonsense=1", "kind=nonsense"):
        assert client.get(f"{LIST}?{query}").status_code == 400


@pytest.mark.parametrize("name", ["mine", "cancelled"])
def test_a_filter_that_is_neither_true_nor_false_is_refused(api, user, name):
    for value in ("null", "maybe", "2"):
        answer = api(user).get(LIST, {name: value})
        assert (answer.status_code, answer.json()) == (400, {name: ["Write true or false."]})
    assert api(user).get(LIST, {name: "TRUE"}).status_code == 200


def test_the_schema_says_what_may_be_null(api, user):
    strangers = rows(api(UserFactory()).get(f"{LIST}?microscope={later().microscope.code}"))
    described = api(user).get("/api/schema/?format=json").json()["components"]["schemas"]["BookingRead"]
    for name, value in strangers[0].items():
        field = described["properties"][name]
        assert (value is not None) or "null" in field.get("type", ()) or {"type": "null"} in field["anyOf"]


@pytest.mark.parametrize("role", ["staff", "user"])
def test_the_list_costs_the_same_for_one_and_for_many(api, request, role):
    person = request.getfixturevalue(role)
    client = api(person)

    def queries():
        with CaptureQueriesContext(connection) as captured:
            rows(client.get(LIST))
        return len(captured)

    later(owner=person)
    one = queries()
    for _ in range(5):
        later(owner=person).collaborators.add(UserFactory())
        later()
    assert queries() == one <= 10


# -- who does what -----------------------------------------------------------------------------------------


def test_a_person_books_reads_changes_and_cancels(api, user):
    lab = MembershipFactory(user=user).lab
    friend = MembershipFactory(lab=lab).user
    client = api(user)
    data = wish(MicroscopeFactory(), title="Apoferritin", lab=lab.name, collaborators=[friend.username])
    answer = client.post(LIST, data)
    assert answer.status_code == 201
    made = answer.json()
    assert (made["owner"], made["creator"], made["collaborators"]) == (
        user.username,
        user.username,
        [friend.username],
    )
    booking = Booking.objects.get(pk=made["id"])
    assert (booking.start, booking.lab) == (at(9), lab)
    answer = client.patch(url(booking), {"title": "New", "collaborators": []})
    assert (answer.json()["title"], answer.json()["collaborators"]) == ("New", [])
    assert client.delete(url(booking), {"reason": "No grids"}).status_code == 204
    booking.refresh_from_db()
    assert (booking.cancelled_by, booking.cancel_reason) == (user, "No grids")
    assert client.patch(url(booking), {"title": "x"}).status_code == 409
    assert client.delete(url(booking)).status_code == 409


def test_who_reads_it_may_not_always_change_it(api, staff):
    booking = later()
    member = api(MembershipFactory(lab=booking.lab).user)
    assert member.patch(url(booking), {"title": "x"}).status_code == 403
    assert member.delete(url(booking)).status_code == 403
    running = BookingFactory()
    assert api(running.owner).patch(url(running), {"title": "x"}).status_code == 403
    assert api(staff).patch(url(running), {"title": "x"}).status_code == 200
    answer = api(staff).delete(url(booking))
    assert answer.status_code == 400
    assert answer.json()["rules"] == ["others_read_why"]
    assert "reason" in answer.json()


def test_an_overlap_is_409_with_its_rule_and_words(api, user):
    taken = later(title="Secret", microscope=MicroscopeFactory(name="Krios 1"))
    answer = api(user).post(LIST, wish(taken.microscope))
    assert answer.status_code == 409
    assert answer.json()["rules"] == ["nothing_overlaps"]
    assert answer.json()["start"][0].startswith("Krios 1 is already booked from ")
    # With something else wrong as well the request itself is at fault.
    answer = api(user).post(LIST, wish(taken.microscope, kind="slot", end=at(8).isoformat()))
    assert answer.status_code == 400
    assert set(answer.json()["rules"]) == {"ends_after_start", "kind_is_open_to_actor"}


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"start": "2027-03-15T09:00:00"}, "start"),
        ({"start": "nonsense"}, "start"),
        ({"start": "0305-01-22T16:48:55Z"}, "start"),
        ({"start": None}, "start"),
        ({"microscope": "nonsense"}, "microscope"),
        ({"owner": "nobody"}, "owner"),
        ({"owner": 1}, "owner"),
        ({"lab": "No such lab"}, "lab"),
        ({"collaborators": ["nobody"]}, "collaborators"),
        ({"title": "x" * 121}, "title"),
        ({"title": 17}, "title"),
        ({"kind": "nonsense"}, "kind"),
        ({"creator": "someone"}, "creator"),
        ({"nonsense": 1}, "nonsense"),
        ({"override": ["nothing_overlaps"]}, "override"),
        ({"override": ["maximum_length"]}, "override"),
        ({"slot_labs": ["x"]}, "slot_labs"),
    ],
)
def test_what_cannot_be_is_named(api, user, fields, named):
    answer = api(user).post(LIST, wish(MicroscopeFactory()) | fields)
    assert (answer.status_code, list(answer.json())) == (400, [named])
    assert not Booking.objects.exists()


@pytest.mark.parametrize("pk", ["0", "999999999999999999", "x", "9" * 30])
def test_what_is_not_there_is_404(api, user, pk):
    assert api(user).get(f"{LIST}{pk}/").status_code == 404


def test_images_that_were_taken_stay_and_that_is_asked_first(api, staff):
    session = FinishedSessionFactory()
    answer = api(staff).delete(url(session.booking), {"reason": "Wrong lab"})
    assert answer.status_code == 400
    assert "Images were taken" in answer.json()["detail"]
    answer = api(staff).delete(url(session.booking), {"reason": "Wrong lab", "keep_sessions": "yes"})
    assert (answer.status_code, list(answer.json())) == (400, ["keep_sessions"])
    answer = api(staff).delete(url(session.booking), {"reason": "Wrong lab", "keep_sessions": True})
    assert answer.status_code == 204


# -- repeats -----------------------------------------------------------------------------------------------
def weekly(microscope, **fields):
    until = (at(9) + datetime.timedelta(weeks=3)).date().isoformat()
    return wish(microscope, title="Weekly", repeat={"unit": "weeks", "until": until}) | fields


@pytest.fixture
def series(api, user):
    """Four bookings of the user's, a week apart, by start; and their microscope."""
    microscope = MicroscopeFactory()
    answer = api(user).post(LIST, weekly(microscope))
    assert answer.status_code == 201, answer.content
    return list(Booking.objects.order_by("start")), microscope


def test_a_repeat_is_made_whole_and_can_be_found(api, user, series):
    bookings, _ = series
    assert [booking.start for booking in bookings] == [at(9, 1 + 7 * n) for n in range(4)]
    read = api(user).get(url(bookings[0])).json()
    until = (at(9) + datetime.timedelta(weeks=3)).date().isoformat()
    assert read["repeat"] == {"every": 1, "unit": "weeks", "until": until, "weekdays": []}
    found = rows(api(user).get(f"{LIST}?series={read['series']}"))
    assert [row["id"] for row in found] == [booking.pk for booking in bookings]
    assert rows(api(UserFactory()).get(f"{LIST}?series={read['series']}")) == []
    for wrong in ("1.5", "0", "NaN", "x"):
        assert api(user).get(f"{LIST}?series={wrong}").json().keys() == {"series"}


def test_a_repeat_that_clashes_is_not_made_at_all_and_names_the_dates(api, user):
    taken = later(start=at(10, 8), end=at(11, 8))
    answer = api(user).post(LIST, weekly(taken.microscope))
    assert answer.status_code == 409
    body = answer.json()
    assert body["rules"] == ["nothing_overlaps"]
    assert "Not possible on 1 of 4 dates" in body["detail"]
    assert f"{at(9, 8).day} {at(9, 8):%b}" in body["detail"]
    assert Booking.objects.count() == 1


@pytest.mark.parametrize(
    ("repeat", "field"),
    [
        ({"unit": "weeks"}, "until"),
        ({"unit": "months", "until": "2126-01-01"}, "unit"),
        ({"unit": "days", "until": "2000-01-01"}, "until"),
        ({"unit": "days", "until": "9999-12-31"}, "until"),
        ({"unit": "days", "until": "2126-12-31"}, "until"),
        ({"unit": "days", "until": "2126-12-31", "every": 0}, "every"),
        ({"unit": "days", "until": "2126-12-31", "every": "1"}, "every"),
        ({"unit": "weeks", "until": "2126-12-31", "weekdays": [7]}, "weekdays"),
        ({"unit": "weeks", "until": "2126-12-31", "months": 1}, "months"),
    ],
)
def test_a_repeat_that_is_none_is_refused_at_its_field(api, user, repeat, field):
    answer = api(user).post(LIST, weekly(MicroscopeFactory(), repeat=repeat))
    assert answer.status_code == 400
    assert field in answer.json()["repeat"]
    assert not Booking.objects.exists()


@pytest.mark.parametrize(("scope", "moved"), [("this", {1}), ("later", {1, 2, 3}), ("all", {0, 1, 2, 3})])
def test_one_later_ones_or_all_are_changed(api, user, series, scope, moved):
    bookings, _ = series
    start, end = at(12, 8).isoformat(), at(20, 8).isoformat()
    answer = api(user).patch(url(bookings[1]), {"start": start, "end": end, "scope": scope})
    assert answer.status_code == 200
    assert answer.json()["id"] == bookings[1].pk
    hours = [12 if n in moved else 9 for n in range(4)]
    found = Booking.objects.order_by("start").values_list("start", flat=True)
    assert list(found) == [at(hour, 1 + 7 * n) for n, hour in enumerate(hours)]


def test_a_change_of_all_that_clashes_changes_none(api, user, series):
    bookings, microscope = series
    later(microscope=microscope, start=at(18, 15), end=at(19, 15))
    answer = api(user).patch(url(bookings[0]), {"end": at(19, 1).isoformat(), "scope": "all"})
    assert answer.status_code == 409
    assert f"{at(9, 15).day} {at(9, 15):%b}" in answer.json()["detail"]
    assert {booking.end - booking.start for booking in Booking.objects.filter(owner=user)} == {8 * HOUR}


@pytest.mark.parametrize(("scope", "left"), [("this", {0, 2, 3}), ("later", {0}), ("all", set())])
def test_one_later_ones_or_all_are_cancelled(api, user, series, scope, left):
    bookings, _ = series
    assert api(user).delete(url(bookings[1]), {"scope": scope}).status_code == 204
    standing = set(Booking.objects.standing().values_list("pk", flat=True))
    assert standing == {bookings[n].pk for n in left}


def test_scope_and_repeat_stand_where_they_mean_something(api, user, series):
    bookings, microscope = series
    client = api(user)
    assert client.patch(url(bookings[0]), {"scope": "some"}).json().keys() == {"scope"}
    assert client.delete(url(bookings[0]), {"scope": "some"}).status_code == 400
    assert client.post(LIST, wish(microscope, scope="all")).json().keys() == {"scope"}
    assert client.patch(url(bookings[0]), {"repeat": None}).json().keys() == {"repeat"}


# -- downtime over bookings ----------------------------------------------------------------------------------
def test_downtime_names_what_is_in_its_way_and_takes_it_once_confirmed(api, staff):
    inside, before = later(title="Inside"), None
    microscope = inside.microscope
    before = later(microscope=microscope, start=at(5), end=at(9))
    client = api(staff)
    body = wish(microscope, kind="downtime", start=at(8).isoformat())
    refused = client.post(LIST, body)
    assert refused.status_code == 409
    hits = refused.json()["displaces"]
    assert [(hit["id"], hit["owner"]) for hit in hits] == [
        (before.pk, before.owner.username),
        (inside.pk, inside.owner.username),
    ]
    assert hits[0]["action"].startswith("is shortened")
    assert hits[1]["action"] == "is cancelled"
    # One that was not confirmed stays, and so does everything else.
    partly = client.post(LIST, body | {"displace": [inside.pk]})
    assert partly.status_code == 409
    assert "not confirmed" in partly.json()["detail"]
    assert [hit["id"] for hit in partly.json()["displaces"]] == [before.pk, inside.pk]
    assert Booking.objects.standing().count() == 2
    made = client.post(
        LIST, body | {"displace": [inside.pk, before.pk], "displace_reason": "The gun is off."}
    )
    assert made.status_code == 201, made.content
    inside.refresh_from_db()
    before.refresh_from_db()
    assert inside.cancel_reason == "The gun is off."
    assert before.end == at(8)


def test_maintenance_that_is_moved_takes_time_too(api, staff):
    booking = later()
    upkeep = later(microscope=booking.microscope, kind="maintenance", start=at(18), end=at(20))
    client = api(staff)
    body = {"start": at(16).isoformat()}
    refused = client.patch(url(upkeep), body)
    assert (refused.status_code, [hit["id"] for hit in refused.json()["displaces"]]) == (409, [booking.pk])
    assert client.patch(url(upkeep), body | {"displace": [booking.pk]}).status_code == 200
    booking.refresh_from_db()
    assert booking.end == at(16)


def test_nobody_else_takes_the_time_of_others(api, user, staff):
    booking = later()
    body = wish(booking.microscope, displace=[booking.pk])
    assert api(user).post(LIST, body).json().keys() == {"displace"}
    backwards = wish(booking.microscope, kind="downtime", displace=[1], end=at(8).isoformat())
    assert api(staff).post(LIST, backwards).json()["rules"] == ["ends_after_start"]
    # Staff's own booking is no upkeep.
    answer = api(staff).post(LIST, body)
    assert answer.status_code == 400
    assert "kind" in answer.json()
    assert "displaces" not in api(user).post(LIST, wish(booking.microscope)).json()
    repeat = {"unit": "days", "until": at(9, 3).date().isoformat()}
    both = api(staff).post(LIST, body | {"kind": "downtime", "repeat": repeat})
    assert (both.status_code, both.json().keys()) == (400, {"displace"})
    booking.refresh_from_db()
    assert not booking.is_cancelled


# -- the microscopes' limits -----------------------------------------------------------------------------------
def test_programs_read_what_binds_bookings(api, user):
    MicroscopeFactory(code="krios1", max_length_hours=48, max_pending=3, group="Krios", requires_slot=True)
    read = api(user).get("/api/v1/microscopes/krios1/").json()
    assert {name: read[name] for name in ("max_length_hours", "max_pending", "group", "requires_slot")} == {
        "max_length_hours": 48,
        "max_pending": 3,
        "group": "Krios",
        "requires_slot": True,
    }
    assert read["min_length_minutes"] is None
    assert read["cancel_notice_hours"] is None
