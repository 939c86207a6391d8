"""Alerts: each rule at its edge, debounced, resolved by themselves, told to whom it concerns."""

import datetime
import io
import os
import signal

import pytest
from django.core import mail
from django.core.management import CommandError, call_command
from django.db import DatabaseError, IntegrityError, connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from people import outbox
from people.models import OutgoingMail, Preferences
from preprocessing import alert_mails, alerts, ingest
from preprocessing.identity import identity
from preprocessing.management.commands import check_alerts
from preprocessing.models import Alert, MicroscopeLimits, ProcessingRun, SessionLimits
from sessions_app.lifecycle import session_delete, session_finish
from sessions_app.models import Session, SessionSummary
from tests.concurrency import at_once, in_thread, shared_database
from tests.factories import BookingFactory, SessionFactory, StaffFactory, UserFactory

pytestmark = pytest.mark.django_db
MINUTE = datetime.timedelta(minutes=1)
Kind = Alert.Kind


class Collecting:
    """A session with a run; `post` reports micrographs as a pipeline does, the newest last."""

    def __init__(self, **fields):
        self.session = SessionFactory(
            booking=BookingFactory(operator=UserFactory()), start=timezone.now() - 60 * MINUTE, **fields
        )
        self.run = ingest.open_run(self.session.pk, key="relion", software="RELION")[0]
        self.count = 0

    def post(self, count, run=None, **values):
        names = [f"FoilHole_1_Data_2_{number}" for number in range(self.count, self.count + count)]
        self.count += count
        reports = [ingest.Report(name, identity(name), values) for name in names]
        ingest.record_micrographs(self.session.pk, (run or self.run).pk, reports)

    def limit(self, **fields):
        SessionLimits.objects.update_or_create(session=self.session, defaults=fields)

    def watcher(self, *, seen, file, size=None):
        """The watcher was heard and the newest file was made so many minutes ago."""
        now = timezone.now()
        Session.objects.filter(pk=self.session.pk).update(
            watcher_seen_at=now - seen * MINUTE, last_file_at=now - file * MINUTE, data_bytes=size
        )

    def heard(self, ago):
        """The pipeline was last heard so many minutes ago."""
        seen = timezone.now() - ago * MINUTE
        ProcessingRun.objects.filter(session=self.session).update(last_seen_at=seen)
        SessionSummary.objects.filter(session=self.session).update(last_seen_at=seen)

    @property
    def open(self):
        alerts.check()
        summary = SessionSummary.objects.get(session=self.session)
        found = set(Alert.objects.open().filter(session=self.session).values_list("kind", flat=True))
        assert {each["kind"] for each in summary.alerts} == found
        return found

    @property
    def alert(self):
        return Alert.objects.get(session=self.session)


@pytest.fixture
def collecting():
    return Collecting()


# -- What is measured --------------------------------------------------------------------------------------


GOOD = {
    "ctf_resolution": 6.0,
    "motion_total": 50.0,
    "ice_thickness": 1.2,
    "defocus_u": 11_000.0,
    "defocus_v": 10_000.0,
    "particles": 1,
}


@pytest.mark.parametrize(
    ("kind", "bad", "text"),
    [
        (
            Kind.RESOLUTION,
            {"ctf_resolution": 6.01},
            "CTF resolution above 6 Å in 19 of the last 25 micrographs",
        ),
        (Kind.MOTION, {"motion_total": 50.1}, "Total motion above 50 Å in 19 of the last 25 micrographs"),
        (Kind.ICE, {"ice_thickness": 1.21}, "Ice thickness above 1.2 in 19 of the last 25 micrographs"),
        (
            Kind.ASTIGMATISM,
            {"defocus_u": 11_001.0},
            "Astigmatism above 100 nm in 19 of the last 25 micrographs",
        ),
        (Kind.PARTICLES, {"particles": 0}, "Particles below 1 in 19 of the last 25 micrographs"),
        (Kind.PARTICLES, {"particles": 401}, "Particles above 400 in 19 of the last 25 micrographs"),
    ],
)
class TestMeasured:
    def test_more_than_three_quarters_of_the_last_25_raise(self, collecting, kind, bad, text):
        collecting.limit(ice_thickness_max=1.2, particles_max=400)
        collecting.post(40, **GOOD)
        # A value at the limit is good.
        collecting.post(18, **GOOD | bad)
        assert collecting.open == set()
        collecting.post(1, **GOOD | bad)
        assert collecting.open == {kind}
        assert collecting.alert.text == text

    def test_it_stays_quiet_until_half_are_good_again(self, collecting, kind, bad, text):
        collecting.limit(ice_thickness_max=1.2, particles_max=400)
        collecting.post(25, **GOOD | bad)
        assert collecting.open == {kind}
        raised = collecting.alert.raised_at
        # 13 of 25 are out of limits: not raised anew, nor over.
        collecting.post(12, **GOOD)
        assert collecting.open == {kind}
        collecting.post(1, **GOOD)
        assert collecting.open == set()
        alert = collecting.alert
        assert alert.raised_at == raised
        assert alert.resolved_at > raised
        # In between it is not raised by what did not resolve it.
        collecting.post(1, **GOOD | bad)
        assert collecting.open == set()
        assert Alert.objects.count() == 1


def test_values_that_are_not_there_yet_do_not_count(collecting):
    collecting.post(25, ctf_resolution=9.0)
    assert collecting.open == {Kind.RESOLUTION}
    # The newest movies' CTF is still to come: of those known nothing changed.
    collecting.post(30, motion_total=5.0)
    assert collecting.open == {Kind.RESOLUTION}


def test_fewer_than_25_say_nothing(collecting):
    collecting.post(24, ctf_resolution=9.0)
    assert collecting.open == set()
    collecting.post(1, ctf_resolution=9.0)
    assert collecting.open == {Kind.RESOLUTION}


def test_the_last_are_the_newest_exposures_in_whatever_order_they_are_processed(collecting):
    collecting.post(25, ctf_resolution=3.0)
    collecting.post(25, ctf_resolution=9.0)
    # Old ones are processed again, and are bad now; the newest are good.
    names = [f"FoilHole_1_Data_2_{number}" for number in range(25)]
    newest = [f"FoilHole_1_Data_2_{number}" for number in range(25, 50)]
    for some, value in ((newest, 3.0), (names, 9.0)):
        reports = [ingest.Report(name, identity(name), {"ctf_resolution": value}) for name in some]
        ingest.record_micrographs(collecting.session.pk, collecting.run.pk, reports)
    assert collecting.open == set()


def test_an_empty_limit_raises_nothing_and_resolves_what_was_open(collecting):
    collecting.post(25, ctf_resolution=9.0, motion_total=80.0)
    assert collecting.open == {Kind.RESOLUTION, Kind.MOTION}
    collecting.limit(ctf_resolution_max=None)
    assert collecting.open == {Kind.MOTION}


def test_limits_are_the_sessions_then_the_microscopes(collecting):
    collecting.post(25, ctf_resolution=5.0)
    assert collecting.open == set()
    MicroscopeLimits.objects.create(microscope=collecting.session.microscope, ctf_resolution_max=4)
    assert collecting.open == {Kind.RESOLUTION}
    collecting.limit(ctf_resolution_max=5)
    assert collecting.open == set()


def test_what_was_open_stays_while_the_pipeline_says_nothing(collecting):
    collecting.post(25, ctf_resolution=9.0)
    assert Kind.RESOLUTION in collecting.open
    collecting.heard(ago=90)
    assert Kind.RESOLUTION in collecting.open


# -- What is timed -----------------------------------------------------------------------------------------


def test_no_new_file_though_the_watcher_is_alive(collecting):
    collecting.watcher(seen=1, file=14.9)
    assert collecting.open == set()
    collecting.watcher(seen=1, file=15.1)
    assert collecting.open == {Kind.NO_FILE}
    assert collecting.alert.text == "No new file for more than 15 min, though the watcher is alive"
    assert timezone.now() - collecting.alert.since > 15 * MINUTE
    collecting.watcher(seen=0, file=0)
    assert collecting.open == set()


def test_a_silent_watcher(collecting):
    assert collecting.open == set()  # It was never heard: there may be none.
    collecting.watcher(seen=9.9, file=9.9)
    assert collecting.open == set()
    collecting.watcher(seen=10.1, file=10.1)
    assert collecting.open == {Kind.WATCHER}
    assert collecting.alert.text == "The watcher has been silent for more than 10 min"
    collecting.watcher(seen=0, file=10.1)
    assert collecting.open == set()


def test_a_silent_pipeline(collecting):
    collecting.heard(ago=9.9)
    assert collecting.open == set()
    collecting.heard(ago=10.1)
    assert collecting.open == {Kind.PIPELINE}
    ingest.change_run(collecting.session.pk, collecting.run.pk)
    assert collecting.open == set()


@pytest.mark.parametrize("status", ["finished", "stopped"])
def test_a_pipeline_that_ended_is_not_silent(collecting, status):
    ingest.change_run(collecting.session.pk, collecting.run.pk, status=status)
    collecting.heard(ago=60)
    assert collecting.open == set()


@pytest.mark.parametrize(
    ("field", "kind"),
    [("file_minutes", Kind.NO_FILE), ("watcher_minutes", Kind.WATCHER), ("pipeline_minutes", Kind.PIPELINE)],
)
def test_times_are_the_limits_and_empty_for_none(collecting, field, kind):
    collecting.watcher(seen=8 if kind == Kind.WATCHER else 0, file=8)
    collecting.heard(ago=8)
    assert collecting.open == set()
    collecting.limit(**{field: 7})
    assert collecting.open == {kind}
    collecting.limit(**{field: None})
    collecting.watcher(seen=60 if kind == Kind.WATCHER else 0, file=60 if kind == Kind.NO_FILE else 0)
    collecting.heard(ago=60 if kind == Kind.PIPELINE else 0)
    assert collecting.open == set()


def test_after_the_booking_nobody_is_alarmed_that_nothing_comes(collecting):
    collecting.watcher(seen=30, file=30)
    collecting.heard(ago=30)
    assert collecting.open == {Kind.WATCHER, Kind.PIPELINE}
    booking = collecting.session.booking
    booking.end = timezone.now() - MINUTE
    booking.save(update_fields=["end"])
    assert collecting.open == set()


# -- What happened -----------------------------------------------------------------------------------------


def test_a_failed_run_until_another_begins(collecting):
    ingest.change_run(collecting.session.pk, collecting.run.pk, status="failed")
    assert collecting.open == {Kind.ERROR}
    assert (collecting.alert.text, collecting.alert.level) == ("The pipeline failed (RELION)", "bad")
    ingest.open_run(collecting.session.pk, key="again", software="RELION")
    assert collecting.open == set()


def test_one_of_two_pipelines_that_fails_is_told(collecting):
    other = ingest.open_run(collecting.session.pk, key="cs", software="CryoSPARC", label="Live")[0]
    ingest.change_run(collecting.session.pk, other.pk, status="failed")
    assert collecting.open == {Kind.ERROR}
    assert collecting.alert.text == "The pipeline failed (Live)"


def test_an_error_that_a_pipeline_reports_for_a_quarter_of_an_hour(collecting):
    say = {"level": "error", "text": "GPU 3 fell off the bus."}
    now = timezone.now()
    ingest.record_event(collecting.session.pk, collecting.run.pk, at=now - 15.1 * MINUTE, **say)
    ingest.record_event(collecting.session.pk, collecting.run.pk, level="warning", text="Slow disk.")
    assert collecting.open == set()
    ingest.record_event(collecting.session.pk, collecting.run.pk, at=now - 14 * MINUTE, **say)
    assert collecting.open == {Kind.ERROR}
    assert collecting.alert.text == "The pipeline reported an error: GPU 3 fell off the bus."
    alerts.check(now + 2 * MINUTE)
    assert not Alert.objects.open().exists()


def test_a_long_error_is_cut_to_fit(collecting):
    ingest.record_event(collecting.session.pk, collecting.run.pk, level="error", text="x" * 2000)
    assert collecting.open == {Kind.ERROR}
    assert len(collecting.alert.text) == 400


def test_size(collecting):
    collecting.watcher(seen=0, file=0, size=20 * 10**12)
    assert collecting.open == set()
    collecting.watcher(seen=0, file=0, size=20 * 10**12 + 1)
    assert collecting.open == {Kind.SIZE}
    assert collecting.alert.text == "The session's data have grown above 20 TB"
    collecting.limit(size_tb=25)
    assert collecting.open == set()


# -- The check ---------------------------------------------------------------------------------------------


def test_a_session_that_is_over_has_no_open_alerts(collecting):
    collecting.watcher(seen=30, file=30)
    assert collecting.open == {Kind.WATCHER}
    session_finish(collecting.session, StaffFactory())
    assert collecting.open == set()
    assert collecting.alert.resolved_at is not None


def test_what_is_told_of_an_open_alert_stands_in_the_summary(collecting):
    collecting.watcher(seen=30, file=30)
    alerts.check()
    (told,) = SessionSummary.objects.get(session=collecting.session).alerts
    alert = collecting.alert
    assert (told["kind"], told["level"], told["text"]) == (alert.kind, alert.level, alert.text)
    assert datetime.datetime.fromisoformat(told["since"]) == alert.raised_at.replace(microsecond=0)


def test_the_worst_stand_first(collecting):
    collecting.watcher(seen=30, file=30)
    alerts.check()
    ingest.change_run(collecting.session.pk, collecting.run.pk, status="failed")
    alerts.check()
    told = SessionSummary.objects.get(session=collecting.session).alerts
    assert [each["kind"] for each in told] == [Kind.ERROR, Kind.WATCHER]


def test_the_check_asks_little_and_per_session_once():
    def queries():
        with CaptureQueriesContext(connection) as captured:
            alerts.check()
        return len(captured)

    sessions = [Collecting() for _ in range(2)]
    for each in sessions:
        each.post(60, **GOOD)
    two = queries()
    assert two <= 4 + 2
    more = [Collecting() for _ in range(3)]
    for each in more:
        each.post(60, **GOOD)
    assert queries() == two + 3
    # Nothing is asked of those whose pipeline is quiet, nor of those that are over.
    for each in more:
        each.heard(ago=61)
    Alert.objects.all().delete()
    for each in more:
        each.limit(pipeline_minutes=None)
    assert queries() == two


def test_nothing_to_say_writes_nothing(collecting):
    collecting.post(30, **GOOD)
    with CaptureQueriesContext(connection) as captured:
        assert alerts.check() == alerts.Tally(sessions=1)
    assert [query for query in captured if not query["sql"].startswith("SELECT")] == []


def test_posting_costs_nothing_for_alerts(collecting):
    """The rules are looked at by the check alone."""
    collecting.post(30, ctf_resolution=9.0)
    with CaptureQueriesContext(connection) as captured:
        collecting.post(5, ctf_resolution=9.0)
    assert not any("alert" in query["sql"] or "limits" in query["sql"] for query in captured)


def test_one_open_alert_of_a_kind(collecting):
    now = timezone.now()
    fields = {"session": collecting.session, "kind": Kind.SIZE, "text": "x", "since": now}
    Alert.objects.create(**fields, resolved_at=now + MINUTE)
    Alert.objects.create(**fields)
    with pytest.raises(IntegrityError), transaction.atomic():
        Alert.objects.create(**fields)


@pytest.mark.django_db(transaction=True)
def test_checks_at_once_raise_and_mail_once(tmp_path):
    collecting = Collecting()
    collecting.watcher(seen=30, file=30)
    with shared_database(tmp_path):
        tallies = at_once(4, lambda n: alerts.check())
        assert sorted(tally.raised for tally in tallies) == [0, 0, 0, 1]
        assert in_thread(lambda: (Alert.objects.count(), OutgoingMail.objects.count())) == (1, 2)


def test_alerts_and_limits_go_with_a_deleted_session(collecting):
    collecting.watcher(seen=30, file=30)
    collecting.limit(size_tb=3)
    alerts.check()
    session_delete(collecting.session, StaffFactory())
    assert not Alert.objects.exists()
    assert not SessionLimits.objects.exists()


def test_a_session_that_is_deleted_in_this_moment_stops_nothing(collecting, monkeypatch):
    other = Collecting()
    for each in (collecting, other):
        each.watcher(seen=30, file=30)
    findings = alerts.findings

    def deleted_meanwhile(facts):
        if facts.session == collecting.session:
            session_delete(collecting.session, StaffFactory())
        return findings(facts)

    monkeypatch.setattr(alerts, "findings", deleted_meanwhile)
    assert alerts.check().raised == 1
    assert Alert.objects.get().session == other.session


def test_many_errors_are_read_as_one(collecting):
    for n in range(30):
        ingest.record_event(collecting.session.pk, collecting.run.pk, level="error", text=f"error {n}")
    assert collecting.open == {Kind.ERROR}
    assert collecting.alert.text.endswith("error 29")


# -- Mails -------------------------------------------------------------------------------------------------


class TestMails:
    def people(self, collecting):
        booking = collecting.session.booking
        return booking.owner, booking.operator

    def test_owner_and_operator_hear_once_of_all_that_was_found(self, collecting, settings):
        collecting.watcher(seen=30, file=30, size=30 * 10**12)
        alerts.check()
        alerts.check()
        mails = {each.recipient: each for each in OutgoingMail.objects.all()}
        assert set(mails) == set(self.people(collecting))
        one = mails[collecting.session.booking.owner]
        assert one.subject == f"{collecting.session.name}: 2 alerts"
        assert "The watcher has been silent for more than 10 min (since " in one.body
        assert "The session's data have grown above 20 TB" in one.body
        assert f"/sessions/{collecting.session.name}/live/" in one.body
        assert f"/sessions/{collecting.session.name}/alerts/" in one.body
        assert "Its state: Watcher silent since" in one.body

    def test_one_alert_is_the_subject(self, collecting):
        collecting.watcher(seen=30, file=30)
        alerts.check()
        subjects = set(OutgoingMail.objects.values_list("subject", flat=True))
        assert subjects == {f"{collecting.session.name}: The watcher has been silent for more than 10 min"}

    def test_the_sessions_operator_comes_before_the_bookings(self, collecting):
        operator = UserFactory()
        Session.objects.filter(pk=collecting.session.pk).update(operator=operator)
        collecting.watcher(seen=30, file=30)
        alerts.check()
        owner, other = self.people(collecting)
        assert set(OutgoingMail.objects.values_list("recipient", flat=True)) == {owner.pk, operator.pk}
        assert other.pk not in {owner.pk, operator.pk}

    def test_who_is_both_gets_one(self, collecting):
        booking = collecting.session.booking
        booking.operator = booking.owner
        booking.save(update_fields=["operator"])
        collecting.watcher(seen=30, file=30)
        alerts.check()
        assert OutgoingMail.objects.count() == 1

    @pytest.mark.parametrize(
        ("choices", "subject"),
        [
            ({"mail_alert_data": False}, "The watcher has been silent for more than 10 min"),
            ({"mail_alert_machines": False}, "The session's data have grown above 20 TB"),
            ({"mail_alert_data": False, "mail_alert_machines": False}, None),
        ],
    )
    def test_each_as_they_chose(self, collecting, choices, subject):
        owner, operator = self.people(collecting)
        Preferences.objects.create(user=owner, **choices)
        collecting.watcher(seen=30, file=30, size=30 * 10**12)
        alerts.check()
        told = {each.recipient: each.subject.partition(": ")[2] for each in OutgoingMail.objects.all()}
        assert told.get(owner) == subject
        assert told[operator] == "2 alerts"

    def test_that_it_is_over_is_told_to_who_wants_it(self, collecting):
        owner, _ = self.people(collecting)
        Preferences.objects.create(user=owner, mail_alert_over=True)
        collecting.watcher(seen=30, file=30)
        alerts.check()
        OutgoingMail.objects.all().delete()
        collecting.watcher(seen=0, file=0)
        alerts.check()
        (one,) = OutgoingMail.objects.all()
        assert one.recipient == owner
        assert one.subject == (
            f"{collecting.session.name}: over: The watcher has been silent for more than 10 min"
        )
        assert "Well again on" in one.body

    def test_the_end_of_the_session_is_no_recovery(self, collecting):
        Preferences.objects.create(user=collecting.session.booking.owner, mail_alert_over=True)
        collecting.watcher(seen=30, file=30)
        alerts.check()
        OutgoingMail.objects.all().delete()
        session_finish(collecting.session, StaffFactory())
        alerts.check()
        assert not OutgoingMail.objects.exists()

    def test_what_comes_and_goes_is_mailed_once_an_hour(self, collecting):
        for _ in range(2):
            collecting.watcher(seen=30, file=30)
            alerts.check()
            collecting.watcher(seen=0, file=0)
            alerts.check()
        assert Alert.objects.count() == 2
        assert OutgoingMail.objects.count() == 2  # One each.
        Alert.objects.update(raised_at=timezone.now() - alert_mails.QUIET)
        collecting.watcher(seen=30, file=30)
        alerts.check()
        assert OutgoingMail.objects.count() == 4

    def test_times_are_written_as_the_reader_has_chosen(self, collecting):
        owner, operator = self.people(collecting)
        Preferences.objects.create(user=owner, hour_cycle="h12")
        collecting.watcher(seen=30, file=30)
        alerts.check()
        bodies = {each.recipient: each.body for each in OutgoingMail.objects.all()}
        assert " am" in bodies[owner] or " pm" in bodies[owner]
        assert " am" not in bodies[operator]
        assert " pm" not in bodies[operator]

    def test_nothing_is_mailed_where_nothing_was_kept(self, collecting):
        collecting.watcher(seen=30, file=30)
        with transaction.atomic():
            alerts.check()
            assert OutgoingMail.objects.count() == 2
            transaction.set_rollback(True)
        assert not OutgoingMail.objects.exists()
        assert not Alert.objects.exists()

    def test_the_mail_reads_as_it_should(self, settings):
        settings.FACILITY_NAME = "Cryo-EM North"
        collecting = Collecting(name="krios1-20261123-01")
        collecting.watcher(seen=30, file=30)
        alerts.check()
        outbox.send_due()
        sent = mail.outbox[0]
        assert sent.subject.startswith("krios1-20261123-01: ")
        assert sent.body.startswith("Dear Ada ")
        assert "\n\n\n" not in sent.body
        assert "None" not in sent.body
        assert sent.body.rstrip().endswith("Cryo-EM North")


# -- The command -------------------------------------------------------------------------------------------


def test_the_command_says_what_it_did_and_is_quiet_otherwise(collecting):
    def said(**options):
        out = io.StringIO()
        call_command("check_alerts", stdout=out, **options)
        return out.getvalue()

    assert said() == ""
    collecting.watcher(seen=30, file=30)
    assert said() == "Sessions looked at: 1. Alerts raised: 1, resolved: 0.\n"
    assert said() == ""
    assert said(verbosity=2) == "Sessions looked at: 1. Alerts raised: 0, resolved: 0.\n"


@pytest.mark.django_db(transaction=True)
def test_the_command_ends_once_its_mails_have_left(settings, tmp_path, monkeypatch):
    collecting = Collecting()
    collecting.watcher(seen=30, file=30)
    with shared_database(tmp_path):
        settings.SEND_MAIL_AT_ONCE = True
        settings.EMAIL_BACKEND = "django.core.mail.backends.filebased.EmailBackend"
        settings.EMAIL_FILE_PATH = tmp_path / "mails"

        def work():
            call_command("check_alerts", verbosity=0)
            return OutgoingMail.objects.filter(sent_at=None).count()

        assert in_thread(work) == 0
        assert list((tmp_path / "mails").iterdir())


def test_the_command_that_goes_on_looks_again_and_stops_when_told(collecting, monkeypatch):
    collecting.watcher(seen=30, file=30)
    looked = []

    class Command(check_alerts.Command):
        def look(self, verbosity):
            looked.append(len(looked))
            if len(looked) == 1:
                raise DatabaseError("busy")
            super().look(verbosity)
            os.kill(os.getpid(), signal.SIGTERM)

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    monkeypatch.setattr(check_alerts.threading.Event, "wait", lambda self, seconds: None)
    monkeypatch.setattr(check_alerts.connection, "close", lambda: None)
    monkeypatch.setattr(check_alerts, "close_old_connections", lambda: None)
    out, err = io.StringIO(), io.StringIO()
    try:
        Command(stdout=out, stderr=err).handle(every=1.0, verbosity=1)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert looked == [0, 1]
    assert "busy" in err.getvalue()
    assert "raised: 1" in out.getvalue()


@pytest.mark.parametrize("every", [0, -1, 0.5, 3601])
def test_the_command_takes_a_sensible_time_only(every):
    with pytest.raises(CommandError, match="1 to 3600"):
        call_command("check_alerts", every=every)
