"""Staff keep bookings and applications in the admin: the same rules, in forms, never an error page."""

import datetime

import pytest
from django.contrib.auth.models import Permission
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from bookings import rules
from bookings.models import Application, Booking
from people.models import AuditEntry
from tests.factories import (
    ApplicationFactory,
    BookingFactory,
    FinishedSessionFactory,
    LabFactory,
    MicroscopeFactory,
    SessionFactory,
    UserFactory,
)

pytestmark = pytest.mark.django_db
BOOKINGS = "/admin/bookings/booking/"
APPLICATIONS = "/admin/bookings/application/"
DAY = datetime.timedelta(days=1)


@pytest.fixture
def admin_page(client, staff):
    client.force_login(staff)
    return client


def tomorrow(hour):
    day = timezone.localdate() + DAY
    return timezone.make_aware(datetime.datetime.combine(day, datetime.time(hour)))


def filled(microscope, owner, start=9, end=17, **fields) -> dict:
    start, end = timezone.localtime(tomorrow(start)), timezone.localtime(tomorrow(end))
    return {
        "microscope": microscope.pk,
        "kind": "booking",
        "start_0": f"{start:%Y-%m-%d}",
        "start_1": f"{start:%H:%M:%S}",
        "end_0": f"{end:%Y-%m-%d}",
        "end_1": f"{end:%H:%M:%S}",
        "title": "",
        "description": "",
        "owner": owner.pk,
        "operator": "",
        "lab": "",
        "application": "",
    } | fields


def act(client, action, *records, address=BOOKINGS, **fields):
    data = {"action": action, "_selected_action": [record.pk for record in records], **fields}
    return client.post(address, data, follow=True)


def messages(answer) -> str:
    return " ".join(str(message) for message in answer.context["messages"])


def errors(answer) -> dict:
    return answer.context["adminform"].form.errors


# -- making and changing -----------------------------------------------------------------------------------


def test_staff_book_for_anyone_and_are_the_creator(admin_page, staff, user):
    friend = UserFactory()
    admin_page.post(f"{BOOKINGS}add/", filled(MicroscopeFactory(), user, collaborators=[friend.pk]))
    booking = Booking.objects.get()
    assert (booking.owner, booking.creator, booking.start) == (user, staff, tomorrow(9))
    assert list(booking.collaborators.all()) == [friend]


def test_an_overlap_is_told_at_its_field(admin_page, user):
    taken = BookingFactory(start=tomorrow(9), end=tomorrow(17))
    answer = admin_page.post(f"{BOOKINGS}add/", filled(taken.microscope, user, 10, 12))
    assert answer.status_code == 200
    assert "is already booked" in errors(answer)["start"][0]
    other = BookingFactory(microscope=taken.microscope, start=tomorrow(18), end=tomorrow(20), lab=None)
    data = filled(taken.microscope, other.owner, 16, 20)
    answer = admin_page.post(f"{BOOKINGS}{other.pk}/change/", data)
    assert "is already booked" in errors(answer)["start"][0]
    assert (
        Booking.objects.filter(start__in=[tomorrow(9), tomorrow(18)]).count() == Booking.objects.count() == 2
    )


def test_an_overlap_that_only_the_database_sees_is_told_too(admin_page, user, monkeypatch):
    taken = BookingFactory(start=tomorrow(9), end=tomorrow(17))
    monkeypatch.setattr(rules, "RULES", [rule for rule in rules.RULES if rule is not rules.nothing_overlaps])
    answer = admin_page.post(f"{BOOKINGS}add/", filled(taken.microscope, user, 10, 12))
    assert "is already booked" in errors(answer)["start"][0]


def test_a_retired_microscope_is_told_at_its_field(admin_page, user):
    answer = admin_page.post(f"{BOOKINGS}add/", filled(MicroscopeFactory(status="retired"), user))
    assert "is retired" in errors(answer)["microscope"][0]


def test_only_what_was_changed_is_saved_and_kept_in_the_audit(admin_page):
    booking = BookingFactory(start=tomorrow(9), end=tomorrow(17), lab=None, title="Old")
    shown = filled(booking.microscope, booking.owner, title="Old")
    shown |= {f"initial-{name}": value for name, value in shown.items()}
    Booking.objects.update(description="Written meanwhile")
    admin_page.post(f"{BOOKINGS}{booking.pk}/change/", shown | {"title": "New"})
    booking.refresh_from_db()
    assert (booking.title, booking.description) == ("New", "Written meanwhile")
    assert AuditEntry.objects.get().details == {"title": ["Old", "New"]}


def test_a_cancelled_booking_is_read_only(admin_page, staff):
    booking = BookingFactory(cancelled_at=timezone.now(), cancelled_by=staff, cancel_reason="No nitrogen")
    page = admin_page.get(f"{BOOKINGS}{booking.pk}/change/").content.decode()
    assert "No nitrogen" in page
    assert 'name="_save"' not in page
    assert admin_page.post(f"{BOOKINGS}{booking.pk}/change/", {"title": "x"}).status_code == 403


def test_the_page_names_its_sessions(admin_page):
    session = FinishedSessionFactory()
    assert session.name in admin_page.get(f"{BOOKINGS}{session.booking_id}/change/").content.decode()


# -- cancelling --------------------------------------------------------------------------------------------


def test_cancelling_many_asks_for_the_reason_and_counts(admin_page):
    free, running = BookingFactory(), SessionFactory().booking
    page = act(admin_page, "cancel", free, running)
    assert "1 of 2 have sessions" in page.content.decode()
    assert not Booking.objects.exclude(cancelled_at=None).exists()
    page = act(admin_page, "cancel", free, running, confirmed="yes")
    assert "This field is required" in page.content.decode()
    page = act(admin_page, "cancel", free, running, confirmed="yes", reason="No nitrogen")
    assert "1 booking cancelled." in messages(page)
    assert "finish" in messages(page)
    assert Booking.objects.get(cancel_reason="No nitrogen") == free
    assert "cancelled already" in messages(act(admin_page, "cancel", free))


# -- deleting ----------------------------------------------------------------------------------------------


def test_a_booking_with_sessions_cannot_be_deleted_and_it_says_what_to_do(admin_page):
    booking = FinishedSessionFactory().booking
    for answer in (
        admin_page.get(f"{BOOKINGS}{booking.pk}/delete/", follow=True),
        admin_page.post(f"{BOOKINGS}{booking.pk}/delete/", {"post": "yes"}, follow=True),
        act(admin_page, "delete_selected", booking, BookingFactory()),
        act(admin_page, "delete_selected", booking, post="yes"),
    ):
        assert "1 session" in messages(answer)
        assert "Cancel it instead" in messages(answer)
    assert Booking.objects.count() == 2


def test_one_without_sessions_can_be_and_leaves_an_audit_entry(admin_page, staff):
    one, two = BookingFactory(), BookingFactory()
    admin_page.post(f"{BOOKINGS}{one.pk}/delete/", {"post": "yes"})
    act(admin_page, "delete_selected", two, post="yes")
    assert not Booking.objects.exists()
    assert set(AuditEntry.objects.values_list("actor", "action", "target_id")) == {
        (staff.pk, "booking deleted", str(one.pk)),
        (staff.pk, "booking deleted", str(two.pk)),
    }


def test_an_application_with_bookings_cannot_be_deleted(admin_page):
    application = ApplicationFactory()
    BookingFactory(application=application)
    answer = admin_page.post(f"{APPLICATIONS}{application.pk}/delete/", {"post": "yes"}, follow=True)
    assert "1 booking belong" in messages(answer)
    assert "Close it instead" in messages(answer)
    assert Application.objects.exists()


# -- permissions -------------------------------------------------------------------------------------------


def test_without_the_permission_there_is_no_button_and_403(client):
    viewer = UserFactory(is_staff=True)
    viewer.user_permissions.add(Permission.objects.get(codename="view_booking"))
    client.force_login(viewer)
    booking = BookingFactory()
    page = client.get(BOOKINGS).content.decode()
    assert "delete_selected" not in page
    assert 'value="cancel"' not in page
    assert f"{BOOKINGS}add/" not in page
    page = client.get(f"{BOOKINGS}{booking.pk}/change/").content.decode()
    assert 'name="_save"' not in page
    for address in ("add/", f"{booking.pk}/delete/"):
        assert client.get(BOOKINGS + address).status_code == 403
        assert client.post(BOOKINGS + address, {"post": "yes"}).status_code == 403
    assert client.post(f"{BOOKINGS}{booking.pk}/change/", {"title": "x"}).status_code == 403
    act(client, "cancel", booking, confirmed="yes", reason="x")
    act(client, "delete_selected", booking, post="yes")
    assert not Booking.objects.get().is_cancelled


def test_users_do_not_get_in(client, user):
    client.force_login(user)
    assert client.get(BOOKINGS).status_code == 302


# -- lists -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", [BOOKINGS, APPLICATIONS])
def test_a_list_costs_the_same_for_one_and_for_ten(admin_page, address):
    def cost():
        with CaptureQueriesContext(connection) as queries:
            assert admin_page.get(address).status_code == 200
        return len(queries)

    def another():
        application = ApplicationFactory(starts_on=timezone.localdate())
        application.labs.add(LabFactory(), LabFactory())
        booking = BookingFactory(application=application)
        FinishedSessionFactory.create_batch(2, booking=booking)

    another()
    one = cost()
    for _ in range(9):
        another()
    assert cost() == one


def test_search_and_filters_answer(admin_page):
    booking = FinishedSessionFactory(booking__title="Apoferritin").booking
    BookingFactory(kind="special", title="Course")
    for query, found in {
        "q=apoferritin": 1,
        f"q={booking.owner.last_name}": 1,
        "kind__exact=special": 1,
        "cancelled=yes": 0,
        "cancelled=no": 2,
        "when=now": 2,
        "when=past": 0,
        f"microscope__id__exact={booking.microscope_id}": 1,
        f"lab__id__exact={booking.lab_id}": 1,
    }.items():
        answer = admin_page.get(f"{BOOKINGS}?{query}")
        assert answer.context["cl"].result_count == found, query


def test_the_list_shows_hours_and_sessions(admin_page):
    booking = BookingFactory(start=tomorrow(9), end=tomorrow(17))
    FinishedSessionFactory.create_batch(2, booking=booking)
    page = admin_page.get(BOOKINGS).content.decode()
    assert ">8.0<" in page
    assert 'field-session_count">2<' in page


def test_the_forms_open(admin_page):
    for address in (f"{BOOKINGS}add/", f"{APPLICATIONS}add/", f"{BOOKINGS}{BookingFactory().pk}/change/"):
        assert admin_page.get(address).status_code == 200
    assert admin_page.get(reverse("admin:index")).status_code == 200
