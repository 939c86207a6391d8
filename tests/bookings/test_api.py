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
    assert (answer.status_code, list(answer.json())) == (400, ["reason"])


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
        ({"start": None}, "start"),
        ({"microscope": "nonsense"}, "microscope"),
        ({"owner": "nobody"}, "owner"),
        ({"owner": 1}, "owner"),
        ({"lab": "No such lab"}, "lab"),
        ({"collaborators": ["nobody"]}, "collaborators"),
        ({"title": "x" * 121}, "title"),
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
    answer = api(staff).delete(url(session.booking), {"reason": "Wrong lab", "keep_sessions": True})
    assert answer.status_code == 204
