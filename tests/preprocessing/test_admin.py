"""Staff look at what pipelines reported; what they may change goes the way of every change."""

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from people.models import AuditEntry
from preprocessing.models import Coordinates, Exposure, Micrograph, ProcessingRun
from tests.factories import UserFactory

pytestmark = pytest.mark.django_db
LISTS = ("exposure", "processingrun", "micrograph", "classaverage", "runevent")


def fill(pipeline, first, count):
    pipeline.post(
        *({"name": f"m{n}", "defocus_u": 1e4, "coordinates": [[1, 1]]} for n in range(first, first + count))
    )
    pipeline.client.post(
        f"{pipeline.url}classes/",
        {"job": f"j{first}", "classes": [{"number": n + 1} for n in range(count)]},
    )
    for n in range(count):
        pipeline.client.post(f"{pipeline.url}events/", {"level": "info", "text": f"event {first + n}"})
        pipeline.open_run(f"run {first + n}")


@pytest.mark.parametrize("model", LISTS)
def test_lists_cost_the_same_at_any_size(pipeline, client, staff, model):
    client.force_login(staff)
    url = reverse(f"admin:preprocessing_{model}_changelist")
    fill(pipeline, 0, 2)
    client.get(url)
    with CaptureQueriesContext(connection) as few:
        assert client.get(url).status_code == 200
    fill(pipeline, 2, 12)
    with CaptureQueriesContext(connection) as many:
        assert client.get(url).status_code == 200
    assert len(many) == len(few)
    assert client.get(url, {"q": pipeline.session.name}).status_code == 200


@pytest.mark.parametrize("model", LISTS)
def test_rows_are_read_and_not_made(pipeline, client, staff, model):
    fill(pipeline, 0, 1)
    client.force_login(staff)
    assert client.get(reverse(f"admin:preprocessing_{model}_add")).status_code == 403
    pk = {
        "exposure": Exposure,
        "processingrun": ProcessingRun,
        "micrograph": Micrograph,
    }.get(model)
    pk = pk.objects.first().pk if pk else pipeline.run.class_averages.first().pk
    if model == "runevent":
        pk = pipeline.run.events.first().pk
    assert client.get(reverse(f"admin:preprocessing_{model}_change", args=[pk])).status_code == 200
    if model != "processingrun":
        assert client.post(reverse(f"admin:preprocessing_{model}_delete", args=[pk])).status_code == 403


def test_a_verdict_is_told_to_those_who_follow_the_run(pipeline, client, staff):
    pipeline.post({"name": "a"})
    revision = pipeline.rows()["a"]["revision"]
    client.force_login(staff)
    url = reverse("admin:preprocessing_exposure_change", args=[Exposure.objects.get().pk])
    assert client.post(url, {"verdict": "rejected", "verdict_reason": "ice"}).status_code == 302
    exposure = Exposure.objects.get()
    assert (exposure.verdict, exposure.verdict_by, exposure.verdict_reason) == ("rejected", staff, "ice")
    (row,) = pipeline.after(revision).json()["micrographs"]
    assert row["verdict"] == "rejected"
    # No pipeline touches it.
    pipeline.post({"name": "a", "rejected": False})
    pipeline.expose({"name": "a", "stage_x": 1.0})
    assert Exposure.objects.get().verdict == "rejected"


def test_a_label_is_set_without_touching_what_the_pipeline_wrote(pipeline, client, staff):
    client.force_login(staff)
    url = reverse("admin:preprocessing_processingrun_change", args=[pipeline.run_id])
    assert (
        client.post(url, {"label": "the good one", "status": "failed", "micrographs": 9}).status_code == 302
    )
    run = pipeline.run
    assert (run.label, run.status, run.micrographs) == ("the good one", "running", 0)


def test_deleting_a_run_says_what_goes_and_keeps_the_rest(pipeline, client, staff):
    other = pipeline.open_run("other").json()["id"]
    pipeline.post({"name": "a", "coordinates": [[1, 1]]}, {"name": "b"})
    pipeline.post({"name": "a"}, run=other)
    client.force_login(staff)
    url = reverse("admin:preprocessing_processingrun_delete", args=[pipeline.run_id])
    assert "2 micrographs" in client.get(url).content.decode()
    assert client.post(url, {"post": "yes"}).status_code == 302
    assert list(ProcessingRun.objects.values_list("pk", flat=True)) == [other]
    assert (Micrograph.objects.count(), Coordinates.objects.count(), Exposure.objects.count()) == (1, 0, 2)
    summary = pipeline.session.summary
    summary.refresh_from_db()
    assert (summary.runs, summary.leading_run, summary.micrographs) == (1, other, 1)
    entry = AuditEntry.objects.get(action="run deleted")
    assert (entry.actor, entry.details["gone"]["micrographs"]) == (staff, 2)
    pipeline.assert_counted()


def test_deleting_chosen_runs_from_the_list_goes_the_same_way(pipeline, client, staff):
    pipeline.post({"name": "a"})
    client.force_login(staff)
    url = reverse("admin:preprocessing_processingrun_changelist")
    data = {"action": "delete_selected", "_selected_action": [pipeline.run_id]}
    assert client.post(url, data).status_code == 200
    assert client.post(url, data | {"post": "yes"}).status_code == 302
    assert not ProcessingRun.objects.exists()
    assert AuditEntry.objects.filter(action="run deleted").count() == 1
    pipeline.assert_counted()


def test_staff_without_permissions_get_403(pipeline, client):
    client.force_login(UserFactory(is_staff=True))
    for model in LISTS:
        assert client.get(reverse(f"admin:preprocessing_{model}_changelist")).status_code == 403
