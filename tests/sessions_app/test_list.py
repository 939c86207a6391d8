"""The list of sessions: who sees which, how it is narrowed, ordered, paged and taken away."""

import csv
import datetime
import io

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from bookings.services import booking_update
from sessions_app import listing
from sessions_app.models import Session, SessionSummary
from tests.factories import (
    BookingFactory,
    FinishedSessionFactory,
    LabFactory,
    MembershipFactory,
    MicroscopeFactory,
    SampleFactory,
    SessionFactory,
    StaffFactory,
    UserFactory,
)

pytestmark = pytest.mark.django_db
HOUR = datetime.timedelta(hours=1)
DAY = datetime.timedelta(days=1)
URL = "/sessions/"


@pytest.fixture
def staff_client(client, staff):
    client.force_login(staff)
    return client


def shown(client, **query):
    response = client.get(URL, query)
    assert response.status_code == 200
    return [session.name for session, _ in response.context["rows"]]


def test_staff_see_all_and_others_theirs(client, staff):
    session, other = SessionFactory(), SessionFactory()
    collaborator = UserFactory()
    session.booking.collaborators.add(collaborator)
    for person in (session.owner, MembershipFactory(lab=session.lab).user, session.lab.pi, collaborator):
        client.force_login(person)
        assert shown(client) == [session.name]
        assert other.name not in client.get(URL).content.decode()
    client.force_login(UserFactory())
    assert shown(client) == []
    client.force_login(staff)
    assert len(shown(client)) == 2


def test_somebody_who_left_the_lab_sees_its_sessions_no_more(client):
    membership = MembershipFactory()
    SessionFactory(booking=BookingFactory(lab=membership.lab))
    client.force_login(membership.user)
    assert len(shown(client)) == 1
    membership.delete()
    client.force_login(type(membership.user).objects.get(pk=membership.user.pk))
    assert shown(client) == []


def test_a_row_shows_what_people_need_with_links_to_session_and_booking(staff_client):
    today = timezone.localdate()
    booking = BookingFactory(
        microscope=MicroscopeFactory(name="Krios 1"),
        owner=UserFactory(first_name="Eva", last_name="Hall"),
    )
    session = FinishedSessionFactory(
        booking=booking,
        operator=UserFactory(first_name="Sam", last_name="Operator"),
        sample=SampleFactory(lab=booking.lab, name="ribosome"),
        data_movies=5114,
        data_bytes=1_800_000_000_000,
        delete_on=today + 9 * DAY,
    )
    SessionSummary.objects.filter(pk=session.pk).update(processing="running", runs=1)
    html = staff_client.get(URL).content.decode()
    for text in (
        "Krios 1",
        "Eva Hall",
        "Sam Operator",
        "ribosome",
        "5,114",
        "1.8\xa0",
        "TB",
        "finished",
        "running",
    ):
        assert text in html
    assert reverse("sessions:detail", args=[session.name]) in html
    assert reverse("bookings:detail", args=[booking.pk]) in html
    assert "9 days left" in html


def test_unknown_is_a_dash_with_its_reason(staff_client):
    SessionFactory()
    html = staff_client.get(URL).content.decode()
    assert 'title="No movies were reported yet">–' in html
    assert "None" not in html


def test_filters_narrow_and_can_be_read_as_a_sentence(staff_client):
    booking = BookingFactory(
        microscope=MicroscopeFactory(name="Krios 9", code="k9"), lab=LabFactory(name="Hall")
    )
    mine = FinishedSessionFactory(
        booking=booking, name="k9-1", sample=SampleFactory(lab=booking.lab, name="virus")
    )
    other = SessionFactory(name="other-1", start=timezone.now() - 10 * DAY)
    assert shown(staff_client, microscope="k9") == [mine.name]
    assert shown(staff_client, status="finished") == [mine.name]
    assert shown(staff_client, status="running") == [other.name]
    assert shown(staff_client, lab=booking.lab_id) == [mine.name]
    assert shown(staff_client, sample="VIR") == [mine.name]
    week_ago = timezone.localdate() - 7 * DAY
    assert shown(staff_client, since=week_ago) == [mine.name]
    assert shown(staff_client, until=week_ago) == [other.name]
    response = staff_client.get(URL, {"microscope": "k9", "status": "finished", "q": "k9"})
    assert response.context["sentence"] == "Finished sessions on Krios 9 matching “k9”"


def test_the_last_day_of_a_range_counts_whole_in_the_facilitys_zone(staff_client, settings):
    settings.TIME_ZONE = "Europe/Stockholm"
    late = datetime.datetime(2026, 11, 22, 22, 30, tzinfo=datetime.UTC)  # 23:30 in Stockholm
    next_day = datetime.datetime(2026, 11, 22, 23, 30, tzinfo=datetime.UTC)
    first, second = SessionFactory(start=late), SessionFactory(start=next_day)
    assert shown(staff_client, since="2026-11-22", until="2026-11-22") == [first.name]
    assert shown(staff_client, since="2026-11-23", until="2026-11-23") == [second.name]


def test_search_finds_names_samples_and_owners(staff_client):
    owner = UserFactory(username="eh7", first_name="Eva", last_name="Hallström")
    booking = BookingFactory(owner=owner)
    session = SessionFactory(
        booking=booking, name="krios1-20261122-02", sample=SampleFactory(lab=booking.lab, name="Apoferritin")
    )
    SessionFactory(name="talos-1")
    for text in ("20261122", "KRIOS1", "apofer", "hallstr", "eva hall", "eh7"):
        assert shown(staff_client, q=text) == [session.name], text
    assert shown(staff_client, q="%") == []
    assert shown(staff_client, q="nothing like it") == []


@pytest.mark.parametrize(
    "query",
    [
        {"status": "lost"},
        {"since": "soon"},
        {"microscope": "none"},
        {"lab": "x"},
        {"q": "a\x00"},
        {"q": "x" * 200},
    ],
)
def test_a_filter_that_makes_no_sense_says_so_at_its_field(staff_client, query):
    SessionFactory()
    response = staff_client.get(URL, query)
    assert response.status_code == 200
    assert response.context["rows"] == []
    assert response.context["filter"].form.errors.keys() == query.keys()


def test_a_user_cannot_ask_for_a_lab_that_is_not_theirs(client):
    session = SessionFactory()
    client.force_login(UserFactory())
    response = client.get(URL, {"lab": session.lab_id})
    assert session.lab.name not in response.content.decode()
    assert response.context["rows"] == []


def test_orders(staff_client):
    now, today = timezone.now(), timezone.localdate()
    FinishedSessionFactory(name="b", start=now - 3 * DAY, data_bytes=5, delete_on=today + 2 * DAY)
    FinishedSessionFactory(name="A", start=now - 2 * DAY, data_bytes=900, delete_on=today + 1 * DAY)
    SessionFactory(name="c", start=now - DAY)
    assert shown(staff_client) == ["c", "A", "b"]
    assert shown(staff_client, sort="start") == ["b", "A", "c"]
    assert shown(staff_client, sort="name") == ["A", "b", "c"]
    assert shown(staff_client, sort="-name") == ["c", "b", "A"]
    assert shown(staff_client, sort="-size") == ["A", "b", "c"]
    assert shown(staff_client, sort="days") == ["A", "b", "c"]
    assert shown(staff_client, sort="nonsense") == ["c", "A", "b"]


def test_every_order_is_served_by_an_index(staff):
    from sessions_app.filters import ORDERS

    if connection.vendor != "sqlite":
        pytest.skip("PostgreSQL prefers sorting while tables are small")
    for order in ORDERS.values():
        plan = Session.objects.visible_to(staff).order_by(*order).values_list("pk", flat=True)[:50].explain()
        assert "USING" in plan
        assert "INDEX" in plan
        assert "TEMP B-TREE" not in plan, (order, plan)


def test_pages(staff_client, monkeypatch):
    monkeypatch.setattr(listing, "PAGE_SIZE", 4)
    SessionFactory.create_batch(9)
    names = shown(staff_client) + shown(staff_client, page=2) + shown(staff_client, page=3)
    assert len(names) == len(set(names)) == 9
    assert staff_client.get(URL).context["page"].count == 9
    last = staff_client.get(URL, {"page": 3, "status": "running"})
    assert last.context["page"].pages == 3
    assert "page=2" in last.content.decode()
    assert "page=4" not in last.content.decode()
    assert "There is no page 7" in staff_client.get(URL, {"page": 7}).content.decode()
    for odd in ("0", "-1", "x", "9" * 30, "²"):
        assert shown(staff_client, page=odd)


@pytest.mark.parametrize("who", ["staff", "member"])
def test_counting_stops_where_nobody_cares(client, monkeypatch, who):
    monkeypatch.setattr(listing, "PAGE_SIZE", 2)
    monkeypatch.setattr(listing, "COUNT_LIMIT", 4)
    lab = LabFactory()
    client.force_login(StaffFactory() if who == "staff" else MembershipFactory(lab=lab).user)
    sessions = [SessionFactory(booking=BookingFactory(lab=lab)) for _ in range(7)]
    html = client.get(URL).content.decode()
    assert "more than 4" in html
    pages = [shown(client, page=number) for number in range(1, 5)]
    assert [len(page) for page in pages] == [2, 2, 2, 1]
    assert sorted(name for page in pages for name in page) == sorted(session.name for session in sessions)


def test_the_count_is_exact_up_to_its_limit(client, monkeypatch):
    monkeypatch.setattr(listing, "PAGE_SIZE", 2)
    lab = LabFactory()
    client.force_login(MembershipFactory(lab=lab).user)
    for _ in range(5):
        SessionFactory(booking=BookingFactory(lab=lab))
    page = client.get(URL, {"page": 2}).context["page"]
    assert (page.first, page.last, page.count, page.pages, page.has_next) == (3, 4, 5, 3, True)


@pytest.mark.parametrize("who", ["staff", "member"])
def test_the_number_of_queries_is_the_same_for_one_and_for_many(client, who):
    lab = LabFactory()
    person = StaffFactory() if who == "staff" else MembershipFactory(lab=lab).user
    client.force_login(person)

    def fill():
        booking = BookingFactory(lab=lab)
        SessionFactory(booking=booking, sample=SampleFactory(lab=lab), operator=UserFactory())

    fill()
    with CaptureQueriesContext(connection) as one:
        client.get(URL)
    for _ in range(6):
        fill()
    with CaptureQueriesContext(connection) as many:
        client.get(URL)
    assert len(one) == len(many)
    assert len(many) <= 12


def test_empty_lists_say_what_to_do(client, staff):
    client.force_login(staff)
    assert "There are no sessions yet." in client.get(URL).content.decode()
    SessionFactory()
    assert "No session fits." in client.get(URL, {"q": "nothing"}).content.decode()


def test_only_staff_get_the_button_to_delete(client, staff):
    session = SessionFactory()
    delete = reverse("sessions:delete", args=[session.name])
    client.force_login(session.owner)
    assert delete not in client.get(URL).content.decode()
    client.force_login(staff)
    assert delete in client.get(URL).content.decode()


def test_staff_without_the_permission_get_no_button(client, staff):
    staff.groups.clear()
    session = SessionFactory()
    client.force_login(staff)
    assert reverse("sessions:delete", args=[session.name]) not in client.get(URL).content.decode()


# -- CSV ---------------------------------------------------------------------------------------------------


def rows_of(response):
    assert response.status_code == 200
    text = b"".join(response.streaming_content).decode("utf-8-sig")
    return list(csv.DictReader(io.StringIO(text)))


def test_csv_has_what_is_filtered_and_nothing_of_others(client):
    booking = BookingFactory(owner=UserFactory(first_name="Åsa", last_name="Öberg"))
    mine = SessionFactory(booking=booking, name="krios1-1", data_movies=12, pixel_size=0.83)
    FinishedSessionFactory(booking=booking, name="krios1-2")
    SessionFactory(name="secret-1")
    client.force_login(booking.owner)
    response = client.get(reverse("sessions:csv"), {"status": "running"})
    assert response["Content-Type"] == "text/csv; charset=utf-8"
    (row,) = rows_of(response)
    assert row["name"] == mine.name
    assert row["owner"] == "Åsa Öberg"
    assert (row["movies"], row["pixel_size"], row["bytes"]) == ("12", "0.83", "")
    assert len(rows_of(client.get(reverse("sessions:csv")))) == 2


@pytest.mark.parametrize("evil", ["=1+1", "+1", "-1", "@x", "\t=1", "\r=1"])
def test_csv_holds_no_formula(client, staff, evil):
    booking = BookingFactory()
    SessionFactory(booking=booking, sample=SampleFactory(lab=booking.lab, name=evil))
    client.force_login(staff)
    (row,) = rows_of(client.get(reverse("sessions:csv")))
    assert row["sample"] == f"'{evil}"


def test_csv_costs_the_same_queries_for_one_and_for_many(client, staff):
    client.force_login(staff)
    SessionFactory()
    with CaptureQueriesContext(connection) as one:
        rows_of(client.get(reverse("sessions:csv")))
    SessionFactory.create_batch(5)
    with CaptureQueriesContext(connection) as many:
        assert len(rows_of(client.get(reverse("sessions:csv")))) == 6
    assert len(one) == len(many)


def test_csv_of_a_filter_that_makes_no_sense_leads_back_to_the_list(client, staff):
    client.force_login(staff)
    response = client.get(reverse("sessions:csv"), {"since": "soon"})
    assert response.status_code == 302
    assert response["Location"].startswith(URL)


def test_a_lab_given_to_a_booking_later_sees_its_sessions(client):
    booking = BookingFactory(lab=None)
    session = SessionFactory(booking=booking)
    membership = MembershipFactory()
    client.force_login(membership.user)
    assert shown(client) == []
    booking.lab = membership.lab
    booking.save()
    assert shown(client) == [session.name]


def test_correcting_the_lab_of_a_booking_hands_its_sessions_over(client, staff):
    wrong, right = MembershipFactory(), MembershipFactory()
    session = SessionFactory(booking=BookingFactory(lab=wrong.lab))
    assert list(Session.objects.visible_to(wrong.user)) == [session]
    booking_update(booking=session.booking, actor=staff, lab=right.lab)
    assert list(Session.objects.visible_to(right.user)) == [session]
    assert list(Session.objects.visible_to(wrong.user)) == []
