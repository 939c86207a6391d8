"""The summary that stays: completed when a session is over, again after late results, equal to the rows."""

import datetime
import io

import numpy as np
import pytest
from django.core.management import call_command
from django.utils import timezone

from preprocessing import completion, ingest
from preprocessing.identity import identity
from preprocessing.models import Exposure, Micrograph
from sessions_app.lifecycle import session_finish
from sessions_app.models import SessionSummary
from tests.factories import SessionFactory, StaffFactory

pytestmark = pytest.mark.django_db
START = datetime.datetime(2026, 11, 20, 9, 30, tzinfo=datetime.UTC)


def report(number, **values):
    name = f"FoilHole_{number}_Data_1_2_20261120_101500_fractions.tiff"
    return ingest.Report(name, identity(name), values)


def post(session, count, *, key="relion", first=0, **values):
    run, _ = ingest.open_run(session.pk, key=key, software="RELION")
    reports = [
        report(
            first + n,
            **{
                "ctf_resolution": 3 + n / 10,
                "motion_total": 5.0 + n,
                "defocus_u": 12000.0 + 100 * n,
                "defocus_v": 11800.0,
                "particles": 100,
            }
            | values,
        )
        for n in range(count)
    ]
    ingest.record_micrographs(session.pk, run.pk, reports)
    return run


def kept(session):
    summary = SessionSummary.objects.get(pk=session.pk)
    return {name: getattr(summary, name) for name in completion.COMPLETED}


def test_finishing_a_session_completes_its_summary(django_capture_on_commit_callbacks):
    session = SessionFactory(start=START)
    run = post(session, 11)
    assert SessionSummary.objects.get(pk=session.pk).completed_at is None
    with django_capture_on_commit_callbacks(execute=True):
        session_finish(session, StaffFactory())
    summary = SessionSummary.objects.get(pk=session.pk)
    assert summary.completed_at is not None
    assert summary.software == "RELION"
    assert summary.median_resolution == pytest.approx(3.5)
    assert summary.median_motion == pytest.approx(10)
    assert summary.median_astigmatism == pytest.approx((20 + 120) / 2)
    histogram = summary.histograms["ctf_resolution"]
    assert (histogram["unit"], histogram["edges"], sum(histogram["counts"])) == ("Å", [2, 12, 50], 11)
    run.refresh_from_db()
    assert histogram["counts"] == run.histograms["ctf_resolution"]
    assert summary.statistics[str(run.pk)]["fields"]["ctf_resolution"]["n"] == 11


def test_a_kept_summary_equals_one_computed_anew_and_medians_are_those_of_the_rows():
    session = SessionFactory(start=START)
    post(session, 30)
    post(session, 12, key="second", ctf_resolution=9.0)
    completion.complete(session.pk)
    first = kept(session)
    assert first == completion.computed(session.pk)
    rows = Micrograph.objects.filter(run__key="relion").values_list("ctf_resolution", flat=True)
    assert first["median_resolution"] == np.median(list(rows))


def test_a_session_without_a_pipeline_is_complete_and_empty():
    session = SessionFactory(start=START)
    assert completion.complete(session.pk)
    assert kept(session) == {
        "software": "",
        "histograms": {},
        "median_resolution": None,
        "median_motion": None,
        "median_astigmatism": None,
        "throughput": {},
        "curation": {},
        "pictures": [],
        "statistics": {},
    }


def test_late_results_make_it_stale_until_it_is_completed_again():
    session = SessionFactory(start=START)
    post(session, 3)
    assert not completion.stale().filter(pk=session.pk).exists()  # it still runs
    session_finish(session, StaffFactory())
    assert completion.stale().filter(pk=session.pk).exists()
    completion.complete(session.pk)
    SessionSummary.objects.filter(pk=session.pk).update(
        completed_at=timezone.now() + datetime.timedelta(minutes=5)
    )
    assert not completion.stale().exists()
    # Results of ten minutes later.
    SessionSummary.objects.filter(pk=session.pk).update(
        completed_at=timezone.now() - datetime.timedelta(minutes=10)
    )
    post(session, 40, first=100, ctf_resolution=8.0)
    output = io.StringIO()
    call_command("complete_summaries", stdout=output)
    assert "Completed 1 summary" in output.getvalue()
    assert SessionSummary.objects.get(pk=session.pk).median_resolution == 8.0


def test_a_frozen_summary_is_left_alone():
    session = SessionFactory(start=START, status="archived", end=START)
    SessionSummary.objects.filter(pk=session.pk).update(frozen_at=timezone.now(), software="kept")
    assert not completion.complete(session.pk)
    assert not completion.stale().exists()
    assert SessionSummary.objects.get(pk=session.pk).software == "kept"


def test_movies_by_hour_of_acquisition():
    session = SessionFactory(start=START)
    run = post(session, 5)
    for minutes, exposure in zip((0, 10, 40, 200, 201), Exposure.objects.order_by("pk"), strict=True):
        exposure.acquired_at = START + datetime.timedelta(minutes=minutes)
        exposure.save()
    assert completion.throughput(session.pk, run) == {
        "basis": "acquired",
        "start": "2026-11-20T09:00:00+00:00",
        "counts": [2, 1, 0, 2],
    }


def test_movies_by_hour_of_arrival_where_nobody_told_when_they_were_acquired():
    session = SessionFactory(start=START)
    run = post(session, 4)
    for hours, micrograph in zip((0, 0, 1, 3), Micrograph.objects.order_by("pk"), strict=True):
        micrograph.created_at = START + datetime.timedelta(hours=hours)
        micrograph.save()
    found = completion.throughput(session.pk, run)
    assert (found["basis"], found["counts"]) == ("arrived", [2, 1, 0, 1])


def test_a_clock_that_was_wrong_by_years_fills_no_disk():
    session = SessionFactory(start=START)
    run = post(session, 2)
    for year, exposure in zip((2001, 2026), Exposure.objects.order_by("pk"), strict=True):
        exposure.acquired_at = START.replace(year=year)
        exposure.save()
    assert completion.throughput(session.pk, run) == {}


def test_completing_costs_the_same_number_of_queries_for_few_and_many(django_assert_num_queries):
    few, many = SessionFactory(start=START), SessionFactory(start=START)
    post(few, 2)
    post(many, 60)
    with django_assert_num_queries(10):
        completion.complete(few.pk)
    with django_assert_num_queries(10):
        completion.complete(many.pk)
