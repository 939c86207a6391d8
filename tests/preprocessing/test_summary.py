"""The summary's numbers are those of the rows, whatever was cached; a recount finds and repairs what is wrong."""

import io

import numpy as np
import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from preprocessing.models import Micrograph, ProcessingRun
from preprocessing.recount import recount as recounted
from preprocessing.statistics import describe
from sessions_app.models import SessionSummary

pytestmark = pytest.mark.django_db


def summary(pipeline):
    answer = pipeline.client.get(f"{pipeline.base}summary/")
    assert answer.status_code == 200
    return answer.json()


def test_numbers_are_of_the_rows_with_unknown_left_out(pipeline):
    values = [3.9, 4.4, 8.1, 3.1, 12.6, 5.0, 4.2]
    pipeline.post(
        *({"name": f"m{n}", "ctf_resolution": value} for n, value in enumerate(values)), {"name": "unknown"}
    )
    (run,) = summary(pipeline)["runs"]
    assert run["micrographs"] == 8
    found = run["fields"]["ctf_resolution"]
    assert found.pop("n") == 7
    assert found == pytest.approx(
        {
            "min": 3.1,
            "p10": np.percentile(values, 10),
            "median": 4.4,
            "p90": np.percentile(values, 90),
            "max": 12.6,
        }
    )
    assert "motion_total" not in run["fields"]


def test_defocus_is_the_mean_of_both_and_astigmatism_their_difference(pipeline):
    pipeline.post({"name": "a", "defocus_u": 12_000, "defocus_v": 10_000}, {"name": "b", "defocus_u": 8_000})
    fields = summary(pipeline)["runs"][0]["fields"]
    assert (fields["defocus"]["min"], fields["defocus"]["max"], fields["defocus"]["n"]) == (8_000, 11_000, 2)
    assert (fields["astigmatism"]["n"], fields["astigmatism"]["max"]) == (1, 2_000)


def test_the_cache_follows_every_change_and_saves_reading_the_rows(pipeline):
    pipeline.post({"name": "a", "motion_total": 5.0})
    assert summary(pipeline)["runs"][0]["fields"]["motion_total"]["max"] == 5.0
    with CaptureQueriesContext(connection) as captured:
        summary(pipeline)
    assert not any("preprocessing_micrograph" in query["sql"] for query in captured)
    pipeline.post({"name": "a", "motion_total": 6.0})
    assert summary(pipeline)["runs"][0]["fields"]["motion_total"]["max"] == 6.0
    pipeline.post({"name": "a", "motion_total": None})
    assert summary(pipeline)["runs"][0]["fields"] == {}


def test_runs_are_told_apart_and_cost_no_query_each(pipeline):
    pipeline.post({"name": "a", "motion_total": 5.0})
    summary(pipeline)
    with CaptureQueriesContext(connection) as one:
        summary(pipeline)
    for n in range(4):
        run = pipeline.open_run(f"r{n}").json()["id"]
        pipeline.post({"name": "a", "motion_total": float(n)}, run=run)
    assert [run["fields"]["motion_total"]["max"] for run in summary(pipeline)["runs"]] == [5.0, 0, 1, 2, 3]
    with CaptureQueriesContext(connection) as five:
        summary(pipeline)
    assert len(five) == len(one)


def test_a_frozen_summary_stays_when_the_rows_are_gone(pipeline):
    pipeline.post({"name": "a", "motion_total": 5.0})
    summary(pipeline)
    SessionSummary.objects.filter(pk=pipeline.session.pk).update(frozen_at=timezone.now())
    Micrograph.objects.all().delete()
    ProcessingRun.objects.update(revision=99)
    assert summary(pipeline)["runs"][0]["fields"]["motion_total"]["max"] == 5.0


def test_describe_leaves_out_what_is_unknown():
    assert describe(np.array([np.nan, np.nan])) is None
    assert describe(np.array([])) is None
    assert describe(np.array([2.0, np.nan])) == {
        "n": 1,
        "min": 2.0,
        "p10": 2.0,
        "median": 2.0,
        "p90": 2.0,
        "max": 2.0,
    }


# -- manage.py recount -------------------------------------------------------------------------------------


def recount(*args) -> str:
    out = io.StringIO()
    call_command("recount", *args, stdout=out)
    return out.getvalue()


def test_recount_finds_nothing_where_all_is_right(pipeline):
    pipeline.post({"name": "a", "motion_total": 5.0, "particles": 3})
    assert "0 differences" in recount()


@pytest.mark.parametrize(
    ("field", "value"),
    [("micrographs", 7), ("particles", 0), ("histograms", {}), ("ctf_estimated", 1), ("classes", 2)],
)
def test_recount_finds_and_repairs_what_is_wrong_in_a_run(pipeline, field, value):
    pipeline.post({"name": "a", "motion_total": 5.0, "particles": 3})
    right = getattr(pipeline.run, field)
    ProcessingRun.objects.update(**{field: value})
    with pytest.raises(CommandError, match="--repair"):
        recount()
    assert getattr(pipeline.run, field) == value
    assert field in recount("--repair", "--session", pipeline.session.name)
    assert getattr(pipeline.run, field) == right
    assert "0 differences" in recount()


@pytest.mark.parametrize(
    ("field", "value"), [("exposures", 9), ("micrographs", 9), ("leading_run", None), ("processing", "none")]
)
def test_recount_finds_and_repairs_what_is_wrong_in_a_summary(pipeline, field, value):
    pipeline.post({"name": "a"})
    SessionSummary.objects.update(**{field: value})
    with pytest.raises(CommandError):
        recount()
    recount("--repair")
    assert "0 differences" in recount()
    assert getattr(SessionSummary.objects.get(pk=pipeline.session.pk), field) != value


def test_a_wrong_run_alone_is_told_without_blaming_the_summary(pipeline):
    """What the rows say is asked of the rows, not of what was kept of them."""
    pipeline.post({"name": "a"})
    ProcessingRun.objects.update(micrographs=7)
    (difference,) = recounted(pipeline.session.pk)
    assert (difference.run, difference.kept, difference.counted) == (pipeline.run_id, 7, 1)


def test_recount_of_a_session_that_is_none_says_so(db):
    with pytest.raises(CommandError, match="no session named nix"):
        recount("--session", "nix")
