"""The admin of sessions and samples."""

import datetime

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from people.models import AuditEntry
from sessions_app import lifecycle
from sessions_app.lifecycle import Loss
from sessions_app.models import Sample, Session
from tests.factories import (
    BookingFactory,
    CameraFactory,
    DataServerFactory,
    FinishedSessionFactory,
    LabFactory,
    MicroscopeFactory,
    RunFactory,
    SampleFactory,
    SessionFactory,
    UserFactory,
)

pytestmark = pytest.mark.django_db
DAY = datetime.timedelta(days=1)
LIST = reverse("admin:sessions_app_session_changelist")
ADD = reverse("admin:sessions_app_session_add")


@pytest.fixture
def office(client, staff):
    """A client of staff as the site makes them."""
    client.force_login(staff)
    return client


def text(response):
    return response.content.decode()


def change_url(session):
    return reverse("admin:sessions_app_session_change", args=[session.pk])


def act(client, action, *sessions, **data):
    return client.post(
        LIST, {"action": action, "_selected_action": [s.pk for s in sessions], **data}, follow=True
    )


def test_the_list_shows_what_staff_need(office):
    booking = BookingFactory(title="Screening", owner=UserFactory(first_name="Eva", last_name="Hall"))
    session = FinishedSessionFactory(
        booking=booking,
        data_movies=5114,
        data_bytes=1_800_000_000_000,
        delete_on=timezone.localdate() + 9 * DAY,
    )
    html = text(office.get(LIST))
    for word in (session.name, "Screening", "Eva Hall", "5,114", "1.8", "TB", str(booking.microscope)):
        assert word in html
    assert '<td class="field-days_left">9</td>' in html


def test_filters_search_and_dates(office):
    today = timezone.localdate()
    booking = BookingFactory(microscope=MicroscopeFactory(name="Krios 9"), lab=LabFactory(name="Hall"))
    mine = FinishedSessionFactory(booking=booking, name="krios9-1", delete_on=today + 9 * DAY)
    other = FinishedSessionFactory(name="other-1", delete_on=today - 9 * DAY)

    def shown(**query):
        return [session.name for session in office.get(LIST, query).context["cl"].result_list]

    assert shown(microscope__id__exact=booking.microscope_id) == [mine.name]
    assert shown(lab__id__exact=booking.lab_id) == [mine.name]
    assert shown(status__exact="active") == []
    assert shown(images="soon") == [mine.name]
    assert shown(images="due") == [other.name]
    assert shown(images="gone") == []
    assert shown(q="krios9") == [mine.name]
    assert len(shown(start__year=today.year)) in (1, 2)


def test_the_list_holds_its_query_count(office):
    SessionFactory()
    with CaptureQueriesContext(connection) as one:
        office.get(LIST)
    for _ in range(5):
        booking = BookingFactory()
        SessionFactory(booking=booking, sample=SampleFactory(lab=booking.lab), operator=UserFactory())
    with CaptureQueriesContext(connection) as many:
        office.get(LIST)
    # The filters list microscopes and labs with one query each, whatever their number.
    assert len(one) == len(many)


def test_adding_goes_through_the_service(office, staff):
    server = DataServerFactory()
    booking = BookingFactory(microscope=MicroscopeFactory(code="krios1", data_server=server))
    camera = CameraFactory(microscope=booking.microscope)
    assert office.get(ADD).status_code == 200
    response = office.post(ADD, {"booking": booking.pk, "pixel_size": "0.83", "notes": ""})
    assert response.status_code == 302, response.context["errors"]
    session = Session.objects.get()
    assert session.name == f"krios1-{timezone.localtime():%Y%m%d}-01"
    assert (session.microscope, session.lab, session.creator) == (booking.microscope, booking.lab, staff)
    assert (session.camera, session.pixel_size, session.voltage_kv) == (camera, 0.83, 300.0)
    assert session.data_path == f"/data/krios1/{session.name}"
    assert session.summary.micrographs == 0


def test_staff_note_down_what_was_forgotten_on_another_day(office):
    booking = BookingFactory(start=timezone.now() - 5 * DAY)
    office.post(ADD, {"booking": booking.pk, "notes": ""})
    assert Session.objects.get().start == booking.start


def test_a_refused_addition_says_why_at_its_field(office):
    booking = BookingFactory(kind="maintenance")
    response = office.post(ADD, {"booking": booking.pk, "notes": ""})
    assert response.status_code == 200
    assert "during maintenance time" in text(response)
    assert "booking" in response.context["adminform"].form.errors
    sample = SampleFactory()
    response = office.post(ADD, {"booking": BookingFactory().pk, "sample": sample.pk, "notes": ""})
    assert "sample" in response.context["adminform"].form.errors
    assert not Session.objects.exists()


def test_changing_saves_what_was_changed_and_no_more(office):
    session = SessionFactory(frames=40, data_files=1)
    RunFactory(session=session, label="Branch A")
    page = office.get(change_url(session))
    assert page.status_code == 200
    assert "Branch A" in text(page)
    form = page.context["adminform"].form
    data = {}
    for bound in form:
        value = bound.value()
        data[bound.html_name] = "" if value is None else value
        data[bound.html_initial_name] = data[bound.html_name]
    Session.objects.filter(pk=session.pk).update(frames=50, data_files=7)
    response = office.post(change_url(session), data | {"notes": "new"})
    assert response.status_code == 302
    session.refresh_from_db()
    assert (session.notes, session.frames, session.data_files) == ("new", 50, 7)


def test_finishing_asks_and_goes_through_the_lifecycle(office):
    running, finished = SessionFactory(), FinishedSessionFactory()
    assert "Finish 1 session" in text(act(office, "finish", running, finished))
    running.refresh_from_db()
    assert running.is_running
    act(office, "finish", running, finished, confirmed="yes")
    running.refresh_from_db()
    assert running.status == Session.Status.FINISHED
    assert running.delete_on is not None
    assert AuditEntry.objects.filter(action="session finished").count() == 1


def test_keeping_longer_asks_for_days_and_reports_what_could_not(office):
    today = timezone.localdate()
    session = FinishedSessionFactory(delete_on=today + 5 * DAY)
    running = SessionFactory()
    assert "Keep longer" in text(act(office, "extend", session))
    html = text(act(office, "extend", session, running, confirmed="yes", days="10"))
    session.refresh_from_db()
    assert session.delete_on == today + 15 * DAY
    assert "still running" in html
    assert "days" in text(act(office, "extend", session, confirmed="yes", days="0"))
    session.refresh_from_db()
    assert session.delete_on == today + 15 * DAY


def test_deleting_says_what_goes_and_what_stays(office, monkeypatch):
    monkeypatch.setattr(lifecycle, "_loss_counters", [lambda session: [Loss("micrographs", 5114)]])
    first = FinishedSessionFactory(data_path="/data/krios1/x")
    second = FinishedSessionFactory()
    html = text(act(office, "delete_with_results", first, second))
    assert "5,114 micrographs go with it; the files in /data/krios1/x stay" in html
    assert "Delete 2 sessions" in html
    assert Session.objects.count() == 2
    act(office, "delete_with_results", first, second, confirmed="yes")
    assert not Session.objects.exists()
    assert AuditEntry.objects.filter(action="session deleted").count() == 2


def test_deleting_one_from_its_page_goes_the_same_way(office, monkeypatch):
    monkeypatch.setattr(lifecycle, "_loss_counters", [lambda session: [Loss("micrographs", 5114)]])
    session = FinishedSessionFactory(data_path="/data/krios1/x")
    url = reverse("admin:sessions_app_session_delete", args=[session.pk])
    html = text(office.get(url))
    assert "5,114 micrographs" in html
    assert "/data/krios1/x" in html
    office.post(url)
    assert not Session.objects.exists()
    assert AuditEntry.objects.get().details["gone"] == {"micrographs": 5114}


def test_whoever_lacks_the_permission_sees_no_button_and_gets_403(office, staff):
    from django.contrib.auth.models import Permission

    session = FinishedSessionFactory()
    staff.groups.clear()
    staff.user_permissions.set(Permission.objects.filter(codename="view_session"))
    html = text(office.get(LIST))
    for action in ("finish", "extend", "delete_with_results", "delete_selected"):
        assert f'value="{action}"' not in html
    delete = reverse("admin:sessions_app_session_delete", args=[session.pk])
    assert delete not in text(office.get(change_url(session)))
    assert office.get(delete).status_code == 403
    assert office.post(delete).status_code == 403
    assert office.post(change_url(session), {"notes": "x"}).status_code == 403
    assert office.get(ADD).status_code == 403
    act(office, "delete_with_results", session, confirmed="yes")
    assert Session.objects.exists()
    staff.user_permissions.clear()
    assert office.get(LIST).status_code == 403


def test_django_s_own_bulk_deletion_is_not_offered(office):
    SessionFactory()
    assert "delete_selected" not in text(office.get(LIST))


def test_summaries_are_only_looked_at(office):
    session = SessionFactory()
    url = reverse("admin:sessions_app_sessionsummary_change", args=[session.pk])
    assert office.get(reverse("admin:sessions_app_sessionsummary_changelist")).status_code == 200
    assert office.get(url).status_code == 200
    assert office.post(url, {"particles": 5}).status_code == 403
    assert office.get(reverse("admin:sessions_app_sessionsummary_add")).status_code == 403


def test_a_sample_in_use_stays_and_the_message_says_what_to_do(office, staff):
    lab = LabFactory()
    office.post(reverse("admin:sessions_app_sample_add"), {"lab": lab.pk, "name": "virus", "description": ""})
    sample = Sample.objects.get()
    assert sample.created_by == staff
    SessionFactory(booking=BookingFactory(lab=lab), sample=sample)
    html = text(
        office.post(
            reverse("admin:sessions_app_sample_delete", args=[sample.pk]), {"post": "yes"}, follow=True
        )
    )
    assert "cannot be deleted" in html
    assert Sample.objects.exists()
    assert sample.name in text(office.get(reverse("admin:sessions_app_sample_changelist"), {"q": "vir"}))
