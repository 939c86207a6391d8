"""The demo's live session: there when wanted, followed by another when it is over, and never outside the demo."""

import datetime
import io
import json
import stat
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from bookings.models import Booking
from demo import facility, live, pipeline
from demo.project import Project
from microscopes.models import Microscope, PipelineToken
from people.models import User
from sessions_app.models import Session
from tests.factories import BookingFactory, MicroscopeFactory, SessionFactory, StaffFactory

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _embedded(settings, tmp_path, monkeypatch):
    """The demo goes into the embedded database only; tests run on any, and need few bookings."""
    monkeypatch.setattr(facility, "DAYS_AROUND", 2)
    settings.EMBEDDED = True
    settings.DATA_DIR = tmp_path / "data"


@pytest.fixture
def demo():
    built = facility.build()
    facility.book_around_now(built, timezone.now())
    return built


def demo_live() -> dict:
    out = io.StringIO()
    call_command("demo_live", "--json", stdout=out)
    return json.loads(out.getvalue())


def end_booking_of(name: str) -> Session:
    """Let the session's booking have ended ten minutes ago."""
    session = Session.objects.get(name=name)
    ended = timezone.now() - datetime.timedelta(minutes=10)
    Booking.objects.filter(pk=session.booking_id).update(end=ended)
    Session.objects.filter(pk=session.pk).update(start=ended - datetime.timedelta(hours=3))
    return session


def test_session_runs_on_the_first_microscope_without_any_results(demo):
    answer = demo_live()
    session = Session.objects.select_related("booking", "summary").get(name=answer["session"])
    assert session.microscope == demo.microscopes[0]
    assert session.status == Session.Status.ACTIVE
    assert session.booking.is_running
    assert session.summary.exposures == session.summary.runs == 0
    assert session.pixel_size == pytest.approx(0.94)
    assert Path(answer["project"]).is_dir()


def test_asked_again_it_is_the_same_session_and_token(demo):
    first = demo_live()
    key = Path(first["token_file"]).read_text()
    assert demo_live() == first
    assert Path(first["token_file"]).read_text() == key
    assert Session.objects.count() == 1
    assert PipelineToken.objects.count() == 1


def test_token_sees_the_session_and_no_other_microscopes(demo, api):
    answer = demo_live()
    path = Path(answer["token_file"])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    client = api(key=path.read_text().strip())
    assert client.get(f"/api/v1/sessions/{answer['session']}/").status_code == 200
    other = SessionFactory(
        booking__microscope=demo.microscopes[1], booking__start=timezone.now().replace(year=2020)
    )
    assert client.get(f"/api/v1/sessions/{other.name}/").status_code == 404


def test_a_revoked_or_lost_token_is_replaced(demo):
    path = Path(demo_live()["token_file"])
    key = path.read_text()
    PipelineToken.objects.update(revoked=True)
    demo_live()
    revoked, key = key, path.read_text()
    assert key != revoked
    path.unlink()
    demo_live()
    assert path.read_text() != key


def test_when_the_booking_is_over_session_and_booking_are_followed_by_new_ones(demo):
    old = demo_live()
    session = end_booking_of(old["session"])
    new = demo_live()
    session.refresh_from_db()
    assert session.status == Session.Status.FINISHED
    assert session.end is not None
    assert session.delete_on is not None
    following = Session.objects.select_related("booking").get(name=new["session"])
    assert following.name != session.name
    assert following.booking_id != session.booking_id
    assert following.booking.is_running
    assert following.is_running
    assert following.lab == session.lab


def test_a_new_booking_leaves_the_next_one_its_time(demo):
    end_booking_of(demo_live()["session"])
    krios = demo.microscopes[0]
    krios.bookings.filter(start__gt=timezone.now()).delete()
    following = BookingFactory(microscope=krios, start=timezone.now() + datetime.timedelta(hours=2))
    session = Session.objects.select_related("booking").get(name=demo_live()["session"])
    assert session.booking.end == following.start


def test_someone_elses_booking_of_now_is_used(demo):
    end_booking_of(demo_live()["session"])
    krios = demo.microscopes[0]
    krios.bookings.filter(start__gt=timezone.now()).delete()
    booking = BookingFactory(microscope=krios, start=timezone.now() - datetime.timedelta(minutes=5))
    assert Session.objects.get(name=demo_live()["session"]).booking == booking


def test_during_maintenance_it_says_why_there_is_no_live_session(demo):
    end_booking_of(demo_live()["session"])
    krios = demo.microscopes[0]
    krios.bookings.filter(start__gt=timezone.now()).delete()
    BookingFactory(
        microscope=krios, start=timezone.now() - datetime.timedelta(minutes=5), kind=Booking.Kind.MAINTENANCE
    )
    with pytest.raises(CommandError, match="maintenance"):
        demo_live()


def test_a_session_that_someone_finished_or_deleted_is_followed_by_another(demo):
    first = demo_live()["session"]
    Session.objects.filter(name=first).update(status=Session.Status.FINISHED, end=timezone.now())
    second = demo_live()["session"]
    Session.objects.filter(name=second).delete()
    third = demo_live()["session"]
    assert len({first, second, third}) == 3


def test_sessions_of_other_people_on_the_microscope_are_left_alone(demo):
    krios = demo.microscopes[0]
    own = SessionFactory(booking=krios.bookings.covering().get())
    assert demo_live()["session"] != own.name
    own.refresh_from_db()
    assert own.is_running


def test_a_project_that_reached_its_limit_gives_way_to_a_new_session(demo):
    first = demo_live()
    pipeline.main([first["project"], "--start", "3", "--limit", "3", "--interval", "0.01"])
    second = demo_live()
    assert second["session"] != first["session"]
    assert Session.objects.get(name=first["session"]).status == Session.Status.FINISHED
    assert not Path(first["project"]).exists()


def test_old_projects_are_removed_and_nothing_else(demo):
    first = demo_live()
    projects = Path(first["project"]).parent
    Project(Path(first["project"])).close()
    # Left behind by something else: a folder, a link out of the data folder, and a project still being written.
    (projects / "notes").mkdir()
    (projects / "notes/precious.txt").write_text("precious")
    outside = projects.parent.parent / "outside"
    Project(outside).close()
    (projects / "link").symlink_to(outside)
    written = Project(projects / "written")

    Session.objects.filter(name=first["session"]).update(status=Session.Status.FINISHED, end=timezone.now())
    second = demo_live()
    written.close()
    assert not Path(first["project"]).exists()
    assert sorted(path.name for path in projects.iterdir()) == sorted(
        [Path(second["project"]).name, "link", "notes", "written"]
    )
    assert (outside / "default_pipeline.star").exists()


def test_a_folder_left_by_an_older_database_is_not_gone_on_with(demo):
    krios = demo.microscopes[0]
    name = f"krios1-{timezone.localdate():%Y%m%d}-01"
    left = live.projects_dir() / name
    project = Project(left)
    project.import_movies([datetime.datetime(2026, 1, 1, 12)])
    project.close()
    assert demo_live()["session"] == name
    assert list(left.iterdir()) == []
    assert krios.sessions.count() == 1


def test_elsewhere_it_does_nothing(settings):
    microscope = MicroscopeFactory()
    StaffFactory(is_superuser=True)
    assert demo_live() == {}
    assert not microscope.bookings.exists()
    assert not Path(settings.DATA_DIR).exists()


def test_with_a_database_server_it_does_nothing(demo, settings):
    settings.EMBEDDED = False
    assert demo_live() == {}
    assert not Session.objects.exists()


def test_without_microscope_or_administrator_it_says_so(demo):
    User.objects.update(is_superuser=False)
    with pytest.raises(CommandError, match="administrator"):
        demo_live()
    Microscope.objects.update(status=Microscope.Status.RETIRED)
    with pytest.raises(CommandError, match="no microscope"):
        demo_live()


@pytest.mark.parametrize("hour", [0, 4, 8, 9, 13, 23])
def test_at_any_hour_the_first_microscope_is_booked_for_hours_to_come(hour):
    now = timezone.localtime().replace(hour=hour, minute=2)
    built = facility.build()
    running = facility.book_around_now(built, now)
    assert running.microscope == built.microscopes[0]
    assert running.start <= now
    assert running.end - now >= datetime.timedelta(hours=6)
    assert Booking.objects.blocking().covering(now).values("microscope").distinct().count() == 3
