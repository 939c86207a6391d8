"""Sessions by REST: who sees, creates and corrects what."""

import datetime

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from sessions_app.models import Sample, Session
from tests.concurrency import at_once, in_thread, shared_database
from tests.factories import (
    BookingFactory,
    CameraFactory,
    DataServerFactory,
    FinishedSessionFactory,
    LabFactory,
    MembershipFactory,
    MicroscopeFactory,
    SampleFactory,
    SessionFactory,
    UserFactory,
)

pytestmark = pytest.mark.django_db
LIST = "/api/v1/sessions/"
HOUR = datetime.timedelta(hours=1)


def url(session):
    return f"{LIST}{session.name}/"


def names(response):
    assert response.status_code == 200, response.content
    return [row["name"] for row in response.json()["results"]]


# -- Who sees ----------------------------------------------------------------------------------------------


def test_strangers_get_404_and_an_empty_list(api):
    session = SessionFactory()
    stranger = api(UserFactory())
    assert names(stranger.get(LIST)) == []
    assert stranger.get(url(session)).status_code == 404
    assert stranger.patch(url(session), {"status": "finished"}).status_code == 404
    assert api().get(LIST).status_code in (401, 403)


def test_the_lab_staff_and_the_microscopes_pipeline_see(api, staff):
    session = SessionFactory()
    SessionFactory()
    member = MembershipFactory(lab=session.lab).user
    for client in (api(member), api(session.owner), api(microscopes=[session.microscope])):
        assert names(client.get(LIST)) == [session.name]
        assert client.get(url(session)).json()["name"] == session.name
    assert len(names(api(staff).get(LIST))) == 2


def test_a_pipeline_learns_names_of_owner_and_operator_and_nothing_else_of_people(api):
    owner = UserFactory(first_name="Eva", last_name="Hall", username="eh1", email="eva@example.org")
    creator = UserFactory(first_name="Carl", last_name="Creator")
    session = SessionFactory(
        booking=BookingFactory(owner=owner, lab=None), creator=creator, operator=owner, notes="call Eva"
    )
    answer = api(microscopes=[session.microscope]).get(url(session))
    assert answer.json()["owner"] == "Eva Hall"
    assert answer.json()["operator"] == "Eva Hall"
    for secret in (b"eh1", b"eva@example.org", b"Carl", b"call Eva"):
        assert secret not in answer.content


def test_a_pipeline_cannot_try_usernames(api):
    operator = UserFactory(username="eh1", first_name="Eva", last_name="Hall")
    session = SessionFactory(operator=operator)
    pipeline = api(microscopes=[session.microscope])
    assert names(pipeline.get(LIST, {"operator": "eh1"})) == []
    assert names(pipeline.get(LIST, {"operator": "eva hall"})) == [session.name]
    assert names(api(session.owner).get(LIST, {"operator": "eh1"})) == [session.name]


def test_a_session_is_found_in_any_case_and_odd_names_are_404(api, staff):
    SessionFactory(name="Krios1-x")
    assert api(staff).get(f"{LIST}kRIOS1-X/").json()["name"] == "Krios1-x"
    for odd in ("nobody", "a%00b", "..", "%F0%9F%94%AC"):
        assert api(staff).get(f"{LIST}{odd}/").status_code == 404


def test_what_a_session_tells(api, staff):
    today = timezone.localdate()
    booking = BookingFactory(microscope=MicroscopeFactory(code="krios1"), lab=LabFactory(name="Hall"))
    session = FinishedSessionFactory(
        booking=booking,
        camera=CameraFactory(microscope=booking.microscope, name="K3"),
        sample=SampleFactory(lab=booking.lab, name="virus"),
        pixel_size=0.83,
        delete_on=today + datetime.timedelta(days=9),
    )
    told = api(staff).get(url(session)).json()
    expected = {
        "booking": booking.pk,
        "microscope": "krios1",
        "lab": "Hall",
        "camera": "K3",
        "sample": "virus",
        "status": "finished",
        "pixel_size": 0.83,
        "magnification": None,
        "days_left": 9,
        "data_movies": None,
    }
    assert {key: told[key] for key in expected} == expected
    assert told["start"].endswith("Z")
    assert told["processing"]["micrographs"] == 0


def test_filters(api, staff):
    booking = BookingFactory(microscope=MicroscopeFactory(code="Krios9"), lab=LabFactory(name="Hall"))
    mine = FinishedSessionFactory(booking=booking, name="alpha-1")
    other = SessionFactory(name="beta-1", start=timezone.now() - 100 * HOUR)
    client = api(staff)
    assert names(client.get(LIST, {"status": "finished"})) == [mine.name]
    assert len(names(client.get(LIST, {"status": ["finished", "active"]}))) == 2
    assert names(client.get(LIST, {"microscope": "krios9"})) == [mine.name]
    assert names(client.get(LIST, {"microscope": "nothing"})) == []
    assert names(client.get(LIST, {"lab": "hall"})) == [mine.name]
    assert names(client.get(LIST, {"name": "ALPHA"})) == [mine.name]
    day_ago = (timezone.now() - 24 * HOUR).isoformat()
    assert names(client.get(LIST, {"after": day_ago})) == [mine.name]
    assert names(client.get(LIST, {"before": day_ago})) == [other.name]


@pytest.mark.parametrize("offset", ["+18:41", "-21:18"])
def test_filters_take_any_offset(api, staff, offset):
    assert names(api(staff).get(LIST, {"after": f"5626-10-30T12:14:56{offset}"})) == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("after", "2026-11-23T10:00:00"),
        ("after", "yesterday"),
        ("after", "0001-01-01T00:00:00+23:00"),
        ("status", "lost"),
        ("microscop", "krios1"),
        ("name", "a\x00b"),
    ],
)
def test_a_filter_that_makes_no_sense_is_named(api, staff, field, value):
    response = api(staff).get(LIST, {field: value})
    assert response.status_code == 400
    assert field in response.json()


def test_the_list_is_paged_and_costs_the_same_queries(api, staff):
    def fill():
        booking = BookingFactory(operator=UserFactory())
        SessionFactory(
            booking=booking,
            operator=booking.operator,
            camera=CameraFactory(microscope=booking.microscope),
            sample=SampleFactory(lab=booking.lab),
            data_server=DataServerFactory(),
        )

    fill()
    client = api(staff)
    with CaptureQueriesContext(connection) as one:
        client.get(LIST)
    for _ in range(5):
        fill()
    with CaptureQueriesContext(connection) as many:
        page = client.get(LIST, {"page_size": 4}).json()
    assert len(one) == len(many)
    assert (page["count"], len(page["results"])) == (6, 4)
    assert page["next"]
    assert len(client.get(LIST, {"page_size": 4, "page": 2}).json()["results"]) == 2


# -- Creating ----------------------------------------------------------------------------------------------


def test_a_session_is_created_for_ones_booking(api):
    booking = BookingFactory()
    camera = CameraFactory(microscope=booking.microscope, name="K3")
    response = api(booking.owner).post(
        LIST, {"booking": booking.pk, "camera": "K3", "sample": "virus", "pixel_size": 0.83, "cs_mm": None}
    )
    assert response.status_code == 201, response.content
    session = Session.objects.get(name=response.json()["name"])
    assert (session.booking, session.creator, session.camera) == (booking, booking.owner, camera)
    assert (session.pixel_size, session.cs_mm) == (0.83, None)
    assert session.voltage_kv == float(booking.microscope.voltage_kv)
    assert session.sample == Sample.objects.get(lab=booking.lab, name="virus")


def test_pipelines_and_strangers_create_none(api):
    booking = BookingFactory()
    collaborator = UserFactory()
    booking.collaborators.add(collaborator)
    assert api(microscopes=[booking.microscope]).post(LIST, {"booking": booking.pk}).status_code == 403
    assert api(collaborator).post(LIST, {"booking": booking.pk}).status_code == 403
    stranger = api(UserFactory()).post(LIST, {"booking": booking.pk})
    assert stranger.status_code == 400
    assert "booking" in stranger.json()
    assert not Session.objects.exists()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("nonsense", 1),
        ("name", "mine"),
        ("status", "finished"),
        ("pixel_size", -1),
        ("pixel_size", 0),
        ("pixel_size", "0.83"),
        ("pixel_size", True),
        ("frames", 1.5),
        ("frames", 10**15),
        ("camera", "nothing of the kind"),
        ("booking", 10**30),
        ("booking", None),
        ("sample", ["virus"]),
        ("sample", "a\x00b"),
    ],
)
def test_what_cannot_be_is_refused_by_name(api, field, value):
    booking = BookingFactory()
    response = api(booking.owner).post(LIST, {"booking": booking.pk, field: value})
    assert response.status_code == 400, response.content
    assert list(response.json()) == [field]
    assert not Session.objects.exists()


@pytest.mark.parametrize("body", ["[]", "null", '"x"', "{", "{NaN: 1}", ""])
def test_a_body_that_is_no_object_is_400(api, body, user):
    response = api(user).post(LIST, body, content_type="application/json")
    assert response.status_code == 400


def test_a_booking_of_another_time_says_so(api):
    booking = BookingFactory(start=timezone.now() + HOUR)
    response = api(booking.owner).post(LIST, {"booking": booking.pk})
    assert response.status_code == 400
    assert "begins at" in response.json()["booking"][0]


# -- Correcting --------------------------------------------------------------------------------------------


def test_the_watcher_reports_files_and_corrects_acquisition(api):
    session = SessionFactory(pixel_size=0.83)
    CameraFactory(microscope=session.microscope, name="K3")
    client = api(microscopes=[session.microscope])
    response = client.patch(
        url(session),
        {
            "data_files": 30,
            "data_movies": 10,
            "data_bytes": 5 * 10**12,
            "data_path": "/data/x y",
            "last_file_at": "2026-11-23T11:15:00+01:00",
            "total_dose": 40.5,
            "camera": "K3",
        },
    )
    assert response.status_code == 200, response.content
    session.refresh_from_db()
    assert (session.data_movies, session.data_bytes, session.total_dose) == (10, 5 * 10**12, 40.5)
    assert session.last_file_at == datetime.datetime(2026, 11, 23, 10, 15, tzinfo=datetime.UTC)
    assert (session.pixel_size, session.camera.name) == (0.83, "K3")


@pytest.mark.parametrize(
    ("values", "heard"),
    [
        ({}, True),
        ({"data_movies": 3}, True),
        ({"last_file_at": "2026-11-23T11:15:00+01:00", "frames": 40}, True),
        # What a pipeline corrects is no sign of the watcher.
        ({"frames": 40}, False),
        ({"status": "pending"}, False),
    ],
)
def test_data_counters_and_empty_changes_are_the_watchers_sign_of_life(api, values, heard):
    session = SessionFactory()
    told = api(microscopes=[session.microscope]).patch(url(session), values).json()
    session.refresh_from_db()
    assert (session.watcher_seen_at is not None) == (told["watcher_seen_at"] is not None) == heard


def test_the_watchers_sign_of_life_is_written_once_a_minute(api):
    session = SessionFactory()
    client = api(microscopes=[session.microscope])

    def seen_after(seconds):
        kept = timezone.now() - datetime.timedelta(seconds=seconds)
        Session.objects.filter(pk=session.pk).update(watcher_seen_at=kept)
        assert client.patch(url(session), {}).status_code == 200
        session.refresh_from_db()
        return session.watcher_seen_at > kept

    assert seen_after(61)
    assert not seen_after(30)


def test_a_person_is_no_watcher(api, staff):
    session = SessionFactory()
    assert api(staff).patch(url(session), {"data_movies": 3}).json()["watcher_seen_at"] is None


def test_another_microscopes_pipeline_gets_404(api):
    session = SessionFactory()
    response = api(microscopes=[MicroscopeFactory()]).patch(url(session), {"data_files": 1})
    assert response.status_code == 404


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("last_file_at", "2026-11-23T11:15:00"),
        ("last_file_at", "2026-11-23"),
        ("last_file_at", 17),
        ("last_file_at", "0305-01-22T16:48:55Z"),
        ("last_file_at", "5626-10-30T12:14:56+01:00"),
        ("last_file_at", "2126-10-30T12:14:56+01:00"),
        ("data_files", -1),
        ("data_files", 2**63),
        ("data_files", 1.5),
        ("data_path", "/data/a\nrm"),
        ("data_path", "x" * 501),
        ("data_path", 17),
        ("camera", 4),
        ("status", "archived"),
        ("status", None),
        ("sample", "virus"),
        ("notes", "x"),
        ("name", "other"),
        ("delete_on", "2030-01-01"),
        ("booking", 1),
        ("voltage_kv", 1e300),
        ("camera", "nothing of the kind"),
    ],
)
def test_what_cannot_be_written_is_refused_by_name_and_nothing_is(api, field, value):
    session = SessionFactory()
    response = api(microscopes=[session.microscope]).patch(url(session), {"frames": 40, field: value})
    assert response.status_code == 400, response.content
    assert list(response.json()) == [field]
    session.refresh_from_db()
    assert session.frames is None


def test_finishing_goes_through_the_lifecycle(api):
    session = SessionFactory()
    last = timezone.now() - 30 * HOUR
    client = api(microscopes=[session.microscope])
    told = client.patch(url(session), {"status": "finished", "last_file_at": last.isoformat()}).json()
    assert told["status"] == "finished"
    assert told["end"]
    days = session.microscope.effective_retention_days
    assert told["delete_on"] == (timezone.localdate(last) + datetime.timedelta(days=days)).isoformat()
    assert client.patch(url(session), {"status": "finished", "frames": 40}).json()["frames"] == 40


def test_only_staff_let_an_ended_session_run_again(api, staff):
    session = FinishedSessionFactory()
    assert api(microscopes=[session.microscope]).patch(url(session), {"status": "active"}).status_code == 409
    told = api(staff).patch(url(session), {"status": "active"}).json()
    assert (told["status"], told["end"]) == ("active", None)


def test_an_archived_session_answers_writes_with_409(api, staff):
    session = FinishedSessionFactory(status=Session.Status.ARCHIVED)
    for client in (api(staff), api(microscopes=[session.microscope])):
        assert client.patch(url(session), {"frames": 3}).status_code == 409
        assert client.patch(url(session), {}).status_code == 409
        assert client.get(url(session)).status_code == 200


def test_people_correct_acquisition_while_it_runs_but_not_the_counters(api):
    session = SessionFactory()
    owner = api(session.owner)
    assert owner.patch(url(session), {"frames": 40}).json()["frames"] == 40
    refused = owner.patch(url(session), {"data_files": 40, "frames": 50})
    assert refused.status_code == 403
    assert "data_files" in refused.json()["detail"]
    assert owner.patch(url(session), {"status": "finished"}).json()["status"] == "finished"
    assert owner.patch(url(session), {"frames": 50}).status_code == 403
    session.refresh_from_db()
    assert session.frames == 40


def test_collaborators_read_only(api):
    session = SessionFactory()
    collaborator = UserFactory()
    session.booking.collaborators.add(collaborator)
    assert api(collaborator).get(url(session)).status_code == 200
    assert api(collaborator).patch(url(session), {"frames": 1}).status_code == 403


@pytest.mark.parametrize("method", ["put", "delete"])
def test_nobody_puts_or_deletes(api, staff, method):
    session = SessionFactory()
    for client in (api(staff), api(microscopes=[session.microscope]), api(session.owner)):
        assert getattr(client, method)(url(session)).status_code == 405
    assert Session.objects.filter(pk=session.pk).exists()


@pytest.mark.django_db(transaction=True)
def test_parallel_writers_of_different_fields_lose_nothing(api, tmp_path):
    session = SessionFactory()
    # The groups of migrations are gone after a transactional test.
    staff = UserFactory(is_staff=True, is_superuser=True)
    address = url(session)
    fields = ["frames", "spot_size", "magnification", "data_files", "data_movies", "data_bytes"]
    with shared_database(tmp_path):
        answers = at_once(6, lambda n: api(staff).patch(address, {fields[n]: n + 5}).status_code)
        row = in_thread(lambda: Session.objects.values(*fields).get())
    assert answers == [200] * 6
    assert row == {field: n + 5 for n, field in enumerate(fields)}
