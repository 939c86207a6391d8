"""The demo facility: loaded once into an empty embedded database, whole and consistent, or not at all."""

import datetime
import io
import itertools
from pathlib import Path

import numpy as np
import pytest
from django.conf import settings as django_settings
from django.core.management import CommandError, call_command
from django.db.models import Count, Q, Sum
from django.urls import reverse
from django.utils import timezone

from bookings import quotas
from bookings.models import Application, Booking
from demo import facility, history, past_alerts
from microscopes.limits import limits_in_words
from microscopes.models import Microscope
from people.models import AuditEntry, OutgoingMail, User
from preprocessing.histograms import MEASURES
from preprocessing.models import Alert, ClassAverage, Coordinates, Exposure, Micrograph, ProcessingRun
from sessions_app.images import session_image_dir
from sessions_app.models import Session
from sessions_app.retention import retention
from tests.factories import MicroscopeFactory, UserFactory

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _embedded(settings, tmp_path):
    """The demo goes into the embedded database only; tests run on any."""
    settings.EMBEDDED = True
    settings.DATA_DIR = tmp_path / "data"


@pytest.fixture
def short(monkeypatch):
    """A past of three sessions, one with pictures and one that failed: loaded in a moment."""
    pasts = (
        history.Past(0, 58, 1, 1, 0, 30),
        history.Past(1, 9, 0, 1, 1, 20, pictures=True),
        history.Past(1, 4, 0, 2, 1, 20, failed=True),
    )
    monkeypatch.setattr(history, "PASTS", pasts)


@pytest.fixture
def eventful(monkeypatch):
    """A past of one session that was interrupted and crossed a square of bad ice, and an archived one."""
    pasts = (
        history.Past(0, 11, 0, 1, 0, 130, interrupted=True),
        history.Past(1, 97, 1, 1, 1, 180, pictures=True, archived=True),
    )
    monkeypatch.setattr(history, "PASTS", pasts)


def load_demo() -> str:
    out = io.StringIO()
    call_command("load_demo", stdout=out)
    return out.getvalue()


def test_empty_database_becomes_a_facility():
    told = load_demo()
    for username in ("admin", "okafor", "priya"):
        assert username in told
    assert "demo" in told
    assert facility.PASSWORD in told

    admin = User.objects.get(username="admin")
    assert admin.is_superuser
    assert User.objects.filter(is_staff=True, groups__name="Facility staff").count() == 2
    assert Microscope.objects.count() == 3
    assert all(microscope.cameras.exists() for microscope in Microscope.objects.all())
    assert len({microscope.colour for microscope in Microscope.objects.all()}) == 3
    assert "rsync" in Microscope.objects.first().data_server.instructions

    now = timezone.now()
    assert Booking.objects.blocking().covering(now).values("microscope").distinct().count() == 3
    for microscope in Microscope.objects.all():
        assert microscope.bookings.filter(end__lt=now, start__gt=now - datetime.timedelta(days=15)).exists()
        assert microscope.bookings.filter(start__gt=now, end__lt=now + datetime.timedelta(days=16)).exists()
    kinds = set(Booking.objects.values_list("kind", flat=True))
    assert {"booking", "maintenance", "downtime", "slot"} <= kinds
    assert Booking.objects.filter(series__isnull=False, title="Weekly screening").count() == 5
    for application in Application.objects.all():
        found = quotas.quota(application, Microscope.objects.get(code="krios1"))
        assert found.used > 0
        assert found.left > 0
    assert all(limits_in_words(microscope) for microscope in Microscope.objects.all())

    ended = Session.objects.exclude(status=Session.Status.ACTIVE).select_related("microscope")
    assert ended.count() == 25
    assert ended.filter(status=Session.Status.ARCHIVED).count() == 1
    troubled = Alert.objects.open().exists(), Alert.objects.values("session").distinct().count()
    assert troubled[0] is False
    assert 5 <= troubled[1] < 25
    days = {retention(session).days for session in ended.filter(microscope__code="krios1")}
    assert {-1, 2, 12, 40} <= days
    assert {retention(session).level for session in ended} >= {"due", "urgent", "warning", "quiet", "deleted"}

    running = Session.objects.select_related("booking", "summary").get(status=Session.Status.ACTIVE)
    assert running.microscope.code == "krios1"
    assert running.booking.is_running
    assert not Exposure.objects.filter(session=running).exists()
    assert not ProcessingRun.objects.filter(session=running).exists()


def test_summaries_are_those_of_the_rows(short):
    load_demo()
    for session in Session.objects.exclude(status="active").select_related("summary"):
        run = session.runs.get()
        rows = Micrograph.objects.filter(run=run)
        counted = rows.aggregate(
            micrographs=Count("pk"),
            motion_corrected=Count("pk", filter=Q(motion_total__isnull=False)),
            ctf_estimated=Count("pk", filter=Q(defocus_u__isnull=False)),
            picked=Count("pk", filter=Q(particles__isnull=False)),
            particles=Sum("particles"),
        )
        for of in (run, session.summary):
            assert {name: getattr(of, name) for name in counted} == counted
        assert session.summary.exposures == session.exposures.count() == session.data_movies
        assert session.start <= session.summary.last_exposure_at <= session.last_file_at
        columns = {
            name: np.array(
                [np.nan if value is None else value for value in rows.values_list(name, flat=True)]
            )
            for measure in MEASURES.values()
            for name in measure.fields
        }
        for name, counts in run.histograms.items():
            assert counts == MEASURES[name].counts(MEASURES[name].values(columns)), name
    failed = Session.objects.select_related("summary").get(status="failed")
    assert failed.summary.processing == "failed"
    assert 0 < failed.summary.ctf_estimated < failed.summary.motion_corrected
    assert failed.runs.get().events.get().level == "error"


def test_classes_pictures_and_picks_are_where_they_are_promised(short):
    load_demo()
    session = Session.objects.get(microscope__code="glacios", status="finished")
    run = session.runs.get()
    classes = ClassAverage.objects.filter(run=run)
    assert classes.aggregate(Sum("particles"))["particles__sum"] == run.particles
    shown = [name for name in classes.values_list("image", flat=True) if name]
    assert len(shown) == classes.filter(particles__gt=0).count()
    for column in ("micrograph_image", "psd_image"):
        names = Micrograph.objects.filter(run=run).exclude(**{column: ""}).values_list(column, flat=True)
        assert len(names) == history.PICTURES
        shown += names
    assert all((session_image_dir(session) / name).is_file() for name in shown)
    for picks in Coordinates.objects.filter(micrograph__run=run).select_related("micrograph"):
        assert len(picks.points) // 8 == picks.micrograph.particles


def test_the_past_is_in_the_past(short):
    load_demo()
    session = Session.objects.select_related("booking", "summary").get(
        microscope__code="krios1", status="finished"
    )
    assert session.booking.start <= session.start <= session.end <= session.booking.end
    assert session.end < timezone.now() - datetime.timedelta(days=57)
    assert session.summary.last_seen_at <= session.end
    run = session.runs.get()
    assert session.start <= run.started_at < run.finished_at <= session.end
    reported = Micrograph.objects.filter(run=run).values_list("created_at", flat=True)
    assert session.start < min(reported) < max(reported) < session.end


def test_alerts_of_the_past_are_what_the_rules_say(eventful):
    load_demo()
    session = Session.objects.select_related("summary").get(microscope__code="krios1", status="finished")
    raised = {alert.kind: alert for alert in Alert.objects.filter(session=session)}
    assert set(raised) == {"no_file", "ice"}
    assert session.summary.alerts == []
    assert all(session.start < each.since <= each.raised_at < each.resolved_at for each in raised.values())
    assert all(each.resolved_at <= session.end for each in raised.values())

    taken = list(session.exposures.order_by("acquired_at").values_list("acquired_at", flat=True))
    gaps = {later - earlier for earlier, later in itertools.pairwise(taken)}
    assert max(gaps) == history.INTERVAL + history.PAUSE
    pause = next(each for each in range(len(taken)) if taken[each + 1] - taken[each] > history.PAUSE)
    quarter, step = datetime.timedelta(minutes=15), past_alerts.STEP
    assert raised["no_file"].since == taken[pause]
    assert quarter < raised["no_file"].raised_at - taken[pause] <= quarter + step
    assert datetime.timedelta() <= raised["no_file"].resolved_at - taken[pause + 1] < step

    rows = Micrograph.objects.filter(run__session=session, created_at__lte=raised["ice"].raised_at)
    ice = list(rows.order_by("-exposure").values_list("ice_thickness", flat=True)[:25])
    assert f"in {sum(each > 2.5 for each in ice)} of the last 25" in raised["ice"].text


def test_the_archived_session_keeps_what_its_pages_show(eventful, client):
    load_demo()
    session = Session.objects.select_related("summary").get(status="archived")
    assert not Micrograph.objects.filter(run__session=session).exists()
    summary = session.summary
    assert summary.frozen_at is not None
    assert len(summary.pictures) == history.PICTURES
    assert all((session_image_dir(session) / row["image"]).is_file() for row in summary.pictures)
    assert summary.curation["rejected"] > 0
    assert summary.median_resolution > 0
    assert session.alerts.exists()
    assert client.login(username="admin", password=facility.PASSWORD)
    for name in ("live", "micrographs", "classes", "alerts", "report"):
        assert client.get(reverse(f"preprocessing:{name}", args=[session.name])).status_code == 200, name
    assert client.get(reverse("sessions:detail", args=[session.name])).status_code == 200


def test_no_mail_leaves_for_people_who_are_made_up(eventful, mailoutbox):
    load_demo()
    assert not OutgoingMail.objects.exists()
    assert mailoutbox == []


def test_loaded_again_it_only_tells_the_logins(short):
    load_demo()
    before = Session.objects.count(), User.objects.count(), AuditEntry.objects.count()
    told = load_demo()
    assert "is loaded" in told
    assert facility.PASSWORD in told
    assert (Session.objects.count(), User.objects.count(), AuditEntry.objects.count()) == before


@pytest.mark.parametrize("factory", [UserFactory, MicroscopeFactory])
def test_a_database_with_data_is_left_alone(factory):
    factory()
    told = load_demo()
    assert "data of its own" in told
    assert facility.PASSWORD not in told
    assert User.objects.count() + Microscope.objects.count() == 1


def test_a_database_server_is_refused(settings):
    settings.EMBEDDED = False
    with pytest.raises(CommandError, match="DATABASE_URL"):
        load_demo()
    assert not User.objects.exists()


def test_nothing_is_left_when_loading_fails(short, monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("no more")

    monkeypatch.setattr(facility, "book_around_now", fail)
    with pytest.raises(RuntimeError, match="no more"):
        load_demo()
    assert not User.objects.exists()
    assert not Session.objects.exists()
    pictures = Path(django_settings.MEDIA_ROOT) / "sessions"
    assert not pictures.exists() or list(pictures.iterdir()) == []


def test_everyone_can_log_in_and_sees_their_own(short, client):
    load_demo()
    for username in ("admin", "ines", "okafor", "mei", "lindgren", "tomas"):
        assert client.login(username=username, password=facility.PASSWORD), username
    mei, tomas = User.objects.get(username="mei"), User.objects.get(username="tomas")
    assert set(Session.objects.visible_to(mei)) != set(Session.objects.visible_to(tomas))
    assert Session.objects.visible_to(mei).filter(status="active").exists()
    assert not Session.objects.visible_to(tomas).filter(status="active").exists()
