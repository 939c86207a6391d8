"""A run is opened by its key, corrected in parts, and shows that its pipeline is alive."""

import datetime

import pytest
from django.utils import timezone

from preprocessing.models import ProcessingRun
from sessions_app.models import SessionSummary
from tests.factories import SessionFactory

pytestmark = pytest.mark.django_db


def test_the_same_key_is_the_same_run(pipeline):
    first = pipeline.open_run("new", version="5.0", parameters={"a": 1})
    again = pipeline.open_run("new", version="5.0", parameters={"a": 1})
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json()["id"] == again.json()["id"]
    assert again.json()["revision"] == first.json()["revision"]


def test_opening_again_fills_what_was_unknown_and_undoes_nothing(pipeline):
    pipeline.open_run("new", parameters={"dose": 1.0})
    run = ProcessingRun.objects.get(key="new")
    pipeline.client.patch(f"/api/v1/runs/{run.pk}/", {"label": "good", "parameters": {"dose": 2.0}})
    answer = pipeline.open_run("new", label="first", pixel_size=0.885, parameters={"dose": 1.0, "binning": 2})
    assert answer.status_code == 200
    body = answer.json()
    assert (body["label"], body["pixel_size"]) == ("good", 0.885)
    assert body["parameters"] == {"dose": 2.0, "binning": 2}


def test_the_same_key_on_another_session_is_another_run(pipeline):
    other = SessionFactory(booking=pipeline.session.booking)
    answer = pipeline.client.post(f"/api/v1/sessions/{other.name}/runs/", {"key": "relion", "software": "x"})
    assert answer.status_code == 201


def test_numbers_of_any_size_come_back_as_they_were_sent(pipeline):
    # PostgreSQL keeps 1e30 as thirty digits, which no JSON reader takes for a whole number.
    sent = {
        "far": -2.1280700160615388e223,
        "large": 1e30,
        "list": [2**63, 1e19],
        "whole": 2**64 - 1,
        "small": -(2**63),
    }
    assert pipeline.client.patch(pipeline.url, {"parameters": sent}).status_code == 200
    for url in (pipeline.url, f"{pipeline.base}runs/", f"{pipeline.base}summary/"):
        answer = pipeline.client.get(url)
        assert answer.status_code == 200
    assert pipeline.client.get(pipeline.url).json()["parameters"] == sent
    revision = pipeline.client.get(pipeline.url).json()["revision"]
    assert pipeline.client.patch(pipeline.url, {"parameters": sent}).json()["revision"] == revision


def test_parameters_are_merged_by_key_and_null_removes(pipeline):
    pipeline.client.patch(pipeline.url, {"parameters": {"dose": 1.2, "gain": "a.mrc"}})
    answer = pipeline.client.patch(pipeline.url, {"parameters": {"gain": None, "bin": 2}})
    assert answer.json()["parameters"] == {"dose": 1.2, "bin": 2}


def test_an_ending_status_sets_its_time_and_a_living_one_clears_it(pipeline):
    summary = SessionSummary.objects.get(pk=pipeline.session.pk)
    assert summary.processing == "running"
    done = pipeline.client.patch(pipeline.url, {"status": "finished"}).json()
    assert done["finished_at"] is not None
    summary.refresh_from_db()
    assert summary.processing == "finished"
    again = pipeline.client.patch(pipeline.url, {"status": "finished"}).json()
    assert again["finished_at"] == done["finished_at"]
    alive = pipeline.client.patch(pipeline.url, {"status": "running"}).json()
    assert alive["finished_at"] is None


def test_an_empty_patch_is_a_heartbeat_told_at_most_once_a_minute(pipeline):
    run = pipeline.run
    assert pipeline.client.patch(pipeline.url, {}).status_code == 200
    assert pipeline.client.patch(pipeline.url).status_code == 200
    assert pipeline.run.last_seen_at == run.last_seen_at
    old = timezone.now() - datetime.timedelta(minutes=2)
    ProcessingRun.objects.update(last_seen_at=old)
    SessionSummary.objects.update(last_seen_at=old)
    answer = pipeline.client.patch(pipeline.url, {})
    assert pipeline.run.last_seen_at > old
    assert SessionSummary.objects.get(pk=pipeline.session.pk).last_seen_at > old
    assert answer.json()["revision"] == run.revision


def test_any_write_is_a_heartbeat_even_if_it_changes_nothing(pipeline):
    pipeline.post({"name": "a", "ctf_score": 0.1})
    old = timezone.now() - datetime.timedelta(minutes=2)
    for item in ({"name": "a"}, {"name": "a", "ctf_score": 0.2}):
        ProcessingRun.objects.update(last_seen_at=old)
        SessionSummary.objects.update(last_seen_at=old)
        pipeline.post(item)
        assert pipeline.run.last_seen_at > old
        assert SessionSummary.objects.get(pk=pipeline.session.pk).last_seen_at > old


def test_a_change_of_the_run_advances_its_revision_and_a_repetition_does_not(pipeline):
    before = pipeline.run.revision
    pipeline.client.patch(pipeline.url, {"width": 4096})
    pipeline.client.patch(pipeline.url, {"width": 4096})
    assert pipeline.run.revision == before + 1


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"status": "done"}, "status"),
        ({"software": "other"}, "software"),
        ({"pixel_size": 0}, "pixel_size"),
        ({"width": -1}, "width"),
        ({"width": 1.5}, "width"),
        ({"parameters": []}, "parameters"),
        ({"parameters": None}, "parameters"),
        ({"parameters": {"a": "x" * 70_000}}, "parameters"),
        ({"parameters": {"a": 2**70}}, "parameters"),
        ({"parameters": {"a": "\x00"}}, "parameters"),
        ({"lable": "x"}, "lable"),
        ({"label": "x" * 121}, "label"),
        ({"label": None}, "label"),
    ],
)
def test_what_a_run_cannot_be_is_refused_by_field(pipeline, body, field):
    before = pipeline.run
    answer = pipeline.client.patch(pipeline.url, body)
    assert answer.status_code == 400
    assert list(answer.json()) == [field]
    assert pipeline.run.revision == before.revision


def test_a_text_that_only_looks_like_nul_is_kept(pipeline):
    answer = pipeline.client.patch(pipeline.url, {"parameters": {"path": "C:\\u0000"}})
    assert answer.json()["parameters"] == {"path": "C:\\u0000"}


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"key": "a"},
        {"software": "a"},
        {"key": "", "software": "a"},
        {"key": " ", "software": "a"},
        {"key": "a\n", "software": "a"},
        {"key": "a", "software": "\u3000"},
        [],
        "x",
        5,
    ],
)
def test_a_run_needs_key_and_software(pipeline, body):
    assert pipeline.client.post(f"{pipeline.base}runs/", body).status_code == 400


def test_runs_of_a_session_are_listed_in_pages(pipeline):
    for n in range(3):
        pipeline.open_run(f"more{n}")
    page = pipeline.client.get(f"{pipeline.base}runs/", {"page_size": 3}).json()
    assert page["count"] == 4
    assert [run["key"] for run in page["results"]] == ["relion", "more0", "more1"]
    assert page["next"]
