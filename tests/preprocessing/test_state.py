"""A session's state in words: each state at its edge, and what it costs to tell."""

import datetime
import importlib

import pytest
from django.apps import apps
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from preprocessing import ingest
from preprocessing.identity import identity
from preprocessing.models import MicroscopeLimits, ProcessingRun, SessionLimits
from preprocessing.state import RELATED, Life, limits_of, signs_of, state_of
from sessions_app.models import Session, SessionSummary
from tests.factories import (
    BookingFactory,
    ExposureFactory,
    FinishedSessionFactory,
    MicroscopeFactory,
    SessionFactory,
)

pytestmark = pytest.mark.django_db

MINUTE = datetime.timedelta(minutes=1)
SECOND = datetime.timedelta(seconds=1)
NOW = datetime.datetime(2026, 7, 1, 14, 20, tzinfo=datetime.UTC)
NBSP = "\u00a0"


@pytest.fixture(autouse=True)
def local_time(settings):
    settings.TIME_ZONE = "UTC"


def session_with(*, watcher=None, file=None, processing="none", pipeline=None, exposure=None, **fields):
    """A running session of a booking from 11:20 to 19:20; signs are given as minutes before NOW."""

    def ago(minutes):
        return None if minutes is None else NOW - minutes * MINUTE

    ends = fields.pop("booking_ends", 300)
    booking = BookingFactory(start=NOW - 180 * MINUTE, end=NOW + ends * MINUTE)
    session = SessionFactory(booking=booking, last_file_at=ago(file), watcher_seen_at=ago(watcher), **fields)
    SessionSummary.objects.filter(session=session).update(
        processing=processing, last_seen_at=ago(pipeline), last_exposure_at=ago(exposure)
    )
    return Session.objects.select_related(*RELATED).get(pk=session.pk)


ALIVE = {"watcher": 1, "file": 1, "processing": "running", "pipeline": 1}


@pytest.mark.parametrize(
    ("signs", "code", "level", "words"),
    [
        (
            {},
            "not_started",
            "neutral",
            "Waiting for the first movie; no watcher or pipeline has reported yet",
        ),
        ({"watcher": 1}, "not_started", "neutral", "Waiting for the first movie; watcher alive"),
        (
            {"processing": "running", "pipeline": 0},
            "not_started",
            "neutral",
            "Waiting for the first movie; pipeline alive",
        ),
        (ALIVE, "collecting", "ok", "Collecting"),
        (ALIVE | {"file": 15}, "collecting", "ok", "Collecting"),
        # The microscope's clock may be ahead of the site's.
        (ALIVE | {"file": -30}, "collecting", "ok", "Collecting"),
        (
            ALIVE | {"file": 18},
            "stalled",
            "warning",
            f"No new file for 18{NBSP}min, watcher and pipeline alive",
        ),
        # What the pipeline works off was collected before: the watcher knows better.
        (
            ALIVE | {"file": 18, "exposure": 1},
            "stalled",
            "warning",
            f"No new file for 18{NBSP}min, watcher and pipeline alive",
        ),
        ({"watcher": 1, "file": 18}, "stalled", "warning", f"No new file for 18{NBSP}min, watcher alive"),
        ({"processing": "running", "pipeline": 1, "exposure": 15}, "collecting", "ok", "Collecting"),
        (
            {"processing": "running", "pipeline": 1, "exposure": 18},
            "stalled",
            "warning",
            f"No new file for 18{NBSP}min, pipeline alive",
        ),
        (ALIVE | {"watcher": 10}, "collecting", "ok", "Collecting"),
        (
            ALIVE | {"watcher": 18, "file": 18},
            "watcher_silent",
            "warning",
            "Watcher silent since 14:02, pipeline alive",
        ),
        (
            {"watcher": 18, "file": 18, "processing": "running", "pipeline": 18},
            "watcher_silent",
            "warning",
            "Watcher silent since 14:02, pipeline silent since 14:02",
        ),
        (ALIVE | {"pipeline": 10}, "collecting", "ok", "Collecting"),
        (
            ALIVE | {"pipeline": 18},
            "pipeline_silent",
            "warning",
            "Pipeline silent since 14:02, watcher alive",
        ),
        (
            {"processing": "queued", "pipeline": 18, "exposure": 18},
            "pipeline_silent",
            "warning",
            "Pipeline silent since 14:02",
        ),
        (
            ALIVE | {"file": 20, "pipeline": 18},
            "stalled",
            "warning",
            f"No new file for 20{NBSP}min, pipeline silent since 14:02, watcher alive",
        ),
        (
            ALIVE | {"processing": "failed", "pipeline": 18},
            "pipeline_failed",
            "bad",
            "Pipeline failed at 14:02, watcher alive",
        ),
        (
            ALIVE | {"processing": "finished", "pipeline": 18},
            "collecting",
            "ok",
            "Collecting; the pipeline finished at 14:02",
        ),
        (
            {"processing": "finished", "pipeline": 18, "exposure": 19},
            "pipeline_finished",
            "neutral",
            "The pipeline finished at 14:02; the session is still open",
        ),
        (
            {"processing": "stopped", "pipeline": 18, "exposure": 19},
            "pipeline_stopped",
            "warning",
            "The pipeline was stopped at 14:02; the session is still open",
        ),
        (ALIVE | {"booking_ends": -10}, "collecting", "ok", "Collecting"),
        (
            ALIVE | {"booking_ends": -10, "file": 18},
            "overdue",
            "neutral",
            "The booking ended at 14:10, no new file since 14:02; not finished yet",
        ),
        (
            {"booking_ends": -10},
            "overdue",
            "neutral",
            "The booking ended at 14:10, no file came; not finished yet",
        ),
    ],
)
def test_states_of_a_running_session(signs, code, level, words):
    state = state_of(session_with(**signs), NOW)
    assert (state.code, state.level, state.words) == (code, level, words)


@pytest.mark.parametrize(
    ("signs", "code", "level", "words"),
    [
        ({"status": "finished"}, "finished", "neutral", "Finished at 14:02"),
        ({"status": "failed"}, "failed", "bad", "Failed at 14:02"),
        ({"status": "archived"}, "archived", "neutral", "Archived; its summary is kept"),
        (
            {"status": "finished", "processing": "running", "pipeline": 1},
            "processing",
            "ok",
            "Finished at 14:02; the pipeline is still at work",
        ),
        (
            {"status": "finished", "processing": "running", "pipeline": 12},
            "finished",
            "neutral",
            "Finished at 14:02; pipeline silent since 14:08",
        ),
        (
            {"status": "finished", "processing": "failed", "pipeline": 12},
            "finished",
            "warning",
            "Finished at 14:02; the pipeline failed at 14:08",
        ),
        (
            {"status": "finished", "processing": "finished", "pipeline": 1, "watcher": 50},
            "finished",
            "neutral",
            "Finished at 14:02",
        ),
    ],
)
def test_states_of_a_session_that_is_over(signs, code, level, words):
    state = state_of(session_with(end=NOW - 18 * MINUTE, **signs), NOW)
    assert (state.code, state.level, state.words) == (code, level, words)


def test_since_is_when_it_began():
    assert state_of(session_with(**ALIVE), NOW).since is None
    assert state_of(session_with(**ALIVE | {"file": 18}), NOW).since == NOW - 18 * MINUTE
    assert state_of(session_with(**ALIVE | {"watcher": 19}), NOW).since == NOW - 19 * MINUTE
    assert state_of(session_with(**ALIVE | {"pipeline": 17}), NOW).since == NOW - 17 * MINUTE


def test_yesterday_is_told_with_its_day():
    state = state_of(session_with(**ALIVE | {"watcher": 24 * 60}), NOW)
    assert "silent since 30 Jun 14:20" in state.words


def test_limits_are_exact_and_of_the_session_then_the_microscope():
    session = session_with(**ALIVE | {"file": 15})
    assert signs_of(session, NOW).stalled is False
    assert signs_of(session, NOW + SECOND).stalled is True
    MicroscopeLimits.objects.create(microscope=session.microscope, file_minutes=20)
    session = Session.objects.select_related(*RELATED).get(pk=session.pk)
    assert signs_of(session, NOW + SECOND).stalled is False
    SessionLimits.objects.create(session=session, file_minutes=5)
    session = Session.objects.select_related(*RELATED).get(pk=session.pk)
    assert signs_of(session, NOW).stalled is True


def test_an_empty_limit_is_no_licence_to_call_it_alive():
    session = session_with(**ALIVE | {"watcher": 11})
    SessionLimits.objects.create(session=session, watcher_minutes=None)
    session = Session.objects.select_related(*RELATED).get(pk=session.pk)
    assert limits_of(session).watcher_minutes is None
    assert signs_of(session, NOW).watcher == Life.SILENT


def test_without_rows_the_usual_limits_hold():
    limits = limits_of(SessionFactory())
    assert (limits.file_minutes, limits.watcher_minutes, limits.pipeline_minutes) == (15, 10, 10)
    assert limits._state.adding


def test_telling_costs_no_query():
    session = session_with(**ALIVE)
    with CaptureQueriesContext(connection) as captured:
        state_of(session, NOW)
    assert len(captured) == 0


def test_ingestion_says_when_a_movie_was_first_heard_of(django_assert_num_queries):
    session = SessionFactory(booking__microscope=MicroscopeFactory())
    run = ingest.open_run(session.pk, key="p", software="RELION")[0]

    def post(name):
        ingest.record_micrographs(session.pk, run.pk, [ingest.Report(name, identity(name), {})])
        return SessionSummary.objects.get(pk=session.pk).last_exposure_at

    before = timezone.now()
    first = post("a.tiff")
    assert before <= first <= timezone.now()
    # Another value of a movie that is known already is no new file.
    assert post("a.tiff") == first
    assert post("b.tiff") > first
    ProcessingRun.objects.filter(pk=run.pk).update(last_seen_at=timezone.now() - 30 * MINUTE)
    assert state_of(Session.objects.get(pk=session.pk)).code == "collecting"


def test_sessions_that_ran_before_the_site_knew_are_told_when_their_last_movie_came():
    told = [ExposureFactory(session=SessionFactory()) for _ in range(2)]
    over = ExposureFactory(session=FinishedSessionFactory())
    SessionFactory()
    known = timezone.now() - 60 * MINUTE
    SessionSummary.objects.filter(pk=told[1].session_id).update(last_exposure_at=known)
    migration = importlib.import_module("preprocessing.migrations.0015_last_exposure_of_running")
    migration.fill(apps, connection.schema_editor())
    kept = dict(SessionSummary.objects.values_list("pk", "last_exposure_at"))
    assert kept[told[0].session_id] == told[0].created_at
    assert kept[told[1].session_id] == known
    assert kept[over.session_id] is None
    assert len([moment for moment in kept.values() if moment]) == 2
