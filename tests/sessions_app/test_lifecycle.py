"""Finishing, reopening, keeping and deleting."""

import datetime
import io

import pytest
from django.core.exceptions import ValidationError
from django.core.management import call_command
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from bookings.models import Booking
from people.models import AuditEntry
from sessions_app import lifecycle
from sessions_app.images import session_image_dir, sessions_dir, trash_dir
from sessions_app.lifecycle import Loss, extend_retention, session_delete, session_finish, session_reopen
from sessions_app.models import Session, SessionSummary
from tests.concurrency import at_once, in_thread, shared_database
from tests.factories import BookingFactory, FinishedSessionFactory, SessionFactory

pytestmark = pytest.mark.django_db
DAY = datetime.timedelta(days=1)
HOUR = datetime.timedelta(hours=1)


@pytest.fixture
def hooks(monkeypatch):
    """Registered by a higher app: counts 5,114 micrographs, and notes what was deleted."""
    deleted = []
    monkeypatch.setattr(lifecycle, "_loss_counters", [])
    monkeypatch.setattr(lifecycle, "_deleters", [])
    monkeypatch.setattr(lifecycle, "_completers", [])
    monkeypatch.setattr(lifecycle, "_archive_counters", [])
    monkeypatch.setattr(lifecycle, "_archivers", [])
    lifecycle.register(
        count=lambda session: [Loss("micrographs", 5114)],
        delete=lambda session: deleted.append(session.name),
        complete=lambda pk: deleted.append(f"{pk} is complete"),
        count_archived=lambda session: [Loss("rows", 7)],
        archive=lambda session: deleted.append(f"{session} is archived"),
    )
    return deleted


def test_finishing_sets_end_and_date_once(settings, staff):
    settings.TIME_ZONE = "Europe/Stockholm"
    last = datetime.datetime(2026, 11, 22, 23, 30, tzinfo=datetime.UTC)  # the 23rd in Stockholm
    session = SessionFactory(start=last - HOUR, last_file_at=last)
    session.microscope.retention_days = 30
    session.microscope.save()
    session_finish(session, staff, end=last + HOUR)
    session.refresh_from_db()
    assert (session.status, session.end) == (Session.Status.FINISHED, last + HOUR)
    assert session.delete_on == datetime.date(2026, 12, 23)
    session.microscope.retention_days = 7
    session.microscope.save()
    session_finish(Session.objects.get(pk=session.pk), staff)
    session.refresh_from_db()
    assert session.delete_on == datetime.date(2026, 12, 23)
    assert session.end == last + HOUR
    entry = AuditEntry.objects.get(action="session finished")
    assert (entry.actor, entry.target_name) == (staff, session.name)


def test_without_files_the_end_counts_and_now_is_the_end(settings, staff):
    settings.RETENTION_DAYS = 10
    session = SessionFactory(start=timezone.now() - HOUR)
    session_finish(session, staff)
    assert timezone.now() - session.end < datetime.timedelta(minutes=1)
    assert session.delete_on == timezone.localdate(session.end) + 10 * DAY


def test_an_end_before_the_start_is_refused(staff):
    session = SessionFactory()
    with pytest.raises(ValidationError) as error:
        session_finish(session, staff, end=session.start - HOUR)
    assert "end" in error.value.message_dict
    session.refresh_from_db()
    assert session.is_running


def test_a_failed_session_gets_its_date_too_and_may_be_called_finished_later(staff):
    session = session_finish(SessionFactory(), staff, status=Session.Status.FAILED)
    date, end = session.delete_on, session.end
    assert date is not None
    session_finish(session, staff)
    assert (session.status, session.delete_on, session.end) == (Session.Status.FINISHED, date, end)


def test_reopening_lets_it_run_again(staff):
    session = session_finish(SessionFactory(), staff)
    session_reopen(session, staff)
    session.refresh_from_db()
    assert session.is_running
    assert (session.end, session.delete_on) == (None, None)
    assert AuditEntry.objects.filter(action="session reopened").count() == 1


def test_what_is_archived_or_gone_is_not_reopened(staff):
    archived = FinishedSessionFactory(status=Session.Status.ARCHIVED)
    gone = FinishedSessionFactory(data_deleted_at=timezone.now())
    for session in (archived, gone):
        with pytest.raises(ValidationError):
            session_reopen(session, staff)


def test_retention_is_extended_from_the_date_or_from_today(staff):
    today = timezone.localdate()
    session = FinishedSessionFactory(delete_on=today + 5 * DAY, reminded_at=timezone.now())
    extend_retention(session, staff, days=10)
    session.refresh_from_db()
    assert session.delete_on == today + 15 * DAY
    assert session.reminded_at is None
    entry = AuditEntry.objects.get(action="retention extended")
    assert entry.details == {
        "before": (today + 5 * DAY).isoformat(),
        "after": (today + 15 * DAY).isoformat(),
    }
    late = FinishedSessionFactory(delete_on=today - 5 * DAY)
    assert extend_retention(late, staff, days=10).delete_on == today + 10 * DAY
    assert extend_retention(late, staff, until=today + 40 * DAY).delete_on == today + 40 * DAY


def test_retention_is_not_shortened_nor_given_to_what_has_none(staff):
    today = timezone.localdate()
    session = FinishedSessionFactory(delete_on=today + 5 * DAY)
    for wrong in ({"days": 0}, {"days": -3}, {"days": 10**7}, {"until": today}, {"until": today + 5 * DAY}):
        with pytest.raises(ValidationError):
            extend_retention(session, staff, **wrong)
    with pytest.raises(ValidationError, match="still running"):
        extend_retention(SessionFactory(), staff, days=3)
    with pytest.raises(ValidationError, match="deleted"):
        extend_retention(FinishedSessionFactory(data_deleted_at=timezone.now()), staff, days=3)
    session.refresh_from_db()
    assert session.delete_on == today + 5 * DAY


def test_deleting_removes_rows_and_leaves_an_audit_entry(staff, hooks):
    session = FinishedSessionFactory(data_path="/data/krios1/x", data_movies=12)
    pk, name = session.pk, session.name
    assert session_delete(session, staff) == [Loss("micrographs", 5114)]
    assert hooks == [name]
    assert not Session.objects.filter(pk=pk).exists()
    assert not SessionSummary.objects.filter(pk=pk).exists()
    entry = AuditEntry.objects.get(action="session deleted")
    assert (entry.actor_name, entry.target_name, entry.target_id) == (str(staff), name, str(pk))
    assert entry.details["gone"] == {"micrographs": 5114}
    assert entry.details["files_stay"]["path"] == "/data/krios1/x"


def test_nothing_goes_if_a_deleter_fails(staff, monkeypatch):
    monkeypatch.setattr(lifecycle, "_loss_counters", [])
    monkeypatch.setattr(lifecycle, "_deleters", [])
    monkeypatch.setattr(lifecycle, "_completers", [])
    monkeypatch.setattr(lifecycle, "_archive_counters", [])
    monkeypatch.setattr(lifecycle, "_archivers", [])

    def fail(session):
        raise OSError("no disk")

    lifecycle.register(
        count=lambda session: [],
        delete=fail,
        complete=lambda pk: None,
        count_archived=lambda session: [],
        archive=fail,
    )
    session = SessionFactory()
    with pytest.raises(OSError, match="no disk"), transaction.atomic():
        session_delete(session, staff)
    assert Session.objects.filter(pk=session.pk).exists()
    assert not AuditEntry.objects.exists()


def test_images_are_renamed_away_after_commit_and_emptied_by_the_command(
    staff, hooks, django_capture_on_commit_callbacks
):
    session, other = SessionFactory(), SessionFactory()
    for each in (session, other):
        session_image_dir(each).mkdir(parents=True)
        (session_image_dir(each) / "a.png").write_bytes(b"x")
    folder = session_image_dir(session)
    with django_capture_on_commit_callbacks(execute=True):
        session_delete(session, staff)
        assert folder.exists()
    assert not folder.exists()
    assert len(list(trash_dir().iterdir())) == 1
    out = io.StringIO()
    call_command("empty_trash", stdout=out)
    assert "images of 1 deleted session." in out.getvalue()
    assert not list(trash_dir().iterdir())
    assert (session_image_dir(other) / "a.png").exists()


def test_a_folder_whose_session_is_gone_is_swept_too(db):
    kept = SessionFactory()
    for name in (str(kept.pk), str(kept.pk + 1), "notes"):
        (sessions_dir() / name).mkdir(parents=True)
    call_command("empty_trash", verbosity=0)
    assert sorted(path.name for path in sessions_dir().iterdir()) == sorted([str(kept.pk), "notes"])


def test_the_command_has_nothing_to_do_on_a_fresh_site(db):
    out = io.StringIO()
    call_command("empty_trash", stdout=out)
    assert "0 deleted sessions" in out.getvalue()


def test_deleting_costs_the_same_however_much_there_is(staff, hooks):
    def queries():
        session = FinishedSessionFactory()
        with CaptureQueriesContext(connection) as captured:
            session_delete(session, staff)
        return len(captured)

    assert queries() == queries()


@pytest.mark.django_db(transaction=True)
def test_finishing_many_times_at_once_writes_one_end(tmp_path):
    session = SessionFactory()
    staff = session.owner
    with shared_database(tmp_path):
        results = at_once(
            6, lambda n: session_finish(Session.objects.get(pk=session.pk), staff).end.isoformat()
        )
        entries = in_thread(AuditEntry.objects.filter(action="session finished").count)
    assert len(set(map(str, results))) == 1
    assert entries == 1


def test_a_session_that_nobody_finished_is_finished_by_the_command(
    settings, django_capture_on_commit_callbacks
):
    settings.FINISH_AFTER_HOURS = 12
    now = timezone.now()

    def running(*, ended, last_file=None, last_movie=None):
        booking = BookingFactory(start=now - 40 * HOUR, end=now - ended * HOUR)
        session = SessionFactory(booking=booking, last_file_at=last_file and now - last_file * HOUR)
        if last_movie:
            session.summary.last_exposure_at = now - last_movie * HOUR
            session.summary.save()
        return session

    forgotten = running(ended=20, last_file=15, last_movie=14)
    never_began = running(ended=13)
    still_coming = running(ended=20, last_file=30, last_movie=2)
    recent = running(ended=11, last_file=30)
    call_command("finish_sessions")
    states = {session.pk: session for session in Session.objects.all()}
    assert states[forgotten.pk].status == "finished"
    assert states[forgotten.pk].end == forgotten.summary.last_exposure_at
    assert states[never_began.pk].end == never_began.booking.end
    assert states[still_coming.pk].status == states[recent.pk].status == "active"
    assert AuditEntry.objects.filter(action="session finished", actor=None).count() == 2
    settings.FINISH_AFTER_HOURS = 0
    Session.objects.filter(pk=recent.pk).update(last_file_at=None)
    Booking.objects.filter(pk=recent.booking_id).update(end=now - 30 * HOUR)
    call_command("finish_sessions")
    assert Session.objects.get(pk=recent.pk).status == "active"
