"""Archiving: rows and most pictures go, everything that people look at afterwards stays."""

import datetime
import io

import numpy as np
import pytest
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.core.exceptions import ValidationError
from django.core.management import CommandError, call_command
from django.urls import reverse
from django.utils import timezone
from PIL import Image

from people.models import AuditEntry
from preprocessing import archive, completion, images, ingest, packed
from preprocessing.identity import identity
from preprocessing.models import (
    ClassAverage,
    Coordinates,
    Exposure,
    Micrograph,
    PackedColumns,
    ProcessingRun,
    RunEvent,
)
from sessions_app.images import session_image_dir
from sessions_app.lifecycle import session_archive, session_delete, session_finish, session_reopen
from sessions_app.models import Session, SessionSummary
from tests.factories import SessionFactory, StaffFactory, UserFactory

pytestmark = pytest.mark.django_db


def picture(session, seed):
    file = io.BytesIO()
    noise = np.random.default_rng(seed).integers(0, 255, (16, 16), dtype=np.uint8)
    Image.fromarray(noise).save(file, "PNG")
    file.seek(0)
    return images.store(session, images.encode(file))


@pytest.fixture
def session(settings, tmp_path):
    """A finished session: two runs, 30 micrographs with pictures in the first, picks, two sets of classes."""
    settings.MEDIA_ROOT = tmp_path
    session = SessionFactory()
    run, _ = ingest.open_run(session.pk, key="relion", software="RELION", parameters={"dose": 1.2})
    reports = [
        ingest.Report(
            f"GridSquare_7/FoilHole_{n}_Data_1_2_20261120_101500.tiff",
            identity(f"GridSquare_7/FoilHole_{n}_Data_1_2_20261120_101500.tiff"),
            {
                "ctf_resolution": 3 + n / 10,
                "motion_total": 4.5,
                "defocus_u": 12000.5 + n,
                "defocus_v": 11000.0,
                "coordinates": np.full((n + 1, 2), 5, "<f4").tobytes(),
            },
        )
        for n in range(30)
    ]
    ingest.record_micrographs(session.pk, run.pk, reports)
    for n, row in enumerate(Micrograph.objects.order_by("pk")):
        row.micrograph_image, row.psd_image = picture(session, n), picture(session, 100 + n)
        row.save()
    for iteration in (10, 25):
        for number in (1, 2):
            ClassAverage.objects.create(
                run=run,
                job="Class2D/job008",
                iteration=iteration,
                number=number,
                particles=100 * number,
                image=picture(session, 200 + iteration + number),
            )
    RunEvent.objects.create(run=run, text="Started.")
    other, _ = ingest.open_run(session.pk, key="other", software="Scipion")
    ingest.record_micrographs(session.pk, other.pk, reports[:3])
    ingest.change_exposures(
        session.pk,
        {reports[0].identity: {"verdict": "rejected", "verdict_reason": "ice", "grid_square": "7"}},
    )
    session_finish(session, StaffFactory())
    completion.complete(session.pk)
    packed.forget()
    return session


@pytest.fixture
def archived(session, django_capture_on_commit_callbacks):
    with django_capture_on_commit_callbacks(execute=True):
        session_archive(session, StaffFactory())
    packed.forget()
    return session


def test_the_summary_is_frozen_as_a_completion_would_have_it(session, django_capture_on_commit_callbacks):
    wanted = completion.computed(session.pk)
    with django_capture_on_commit_callbacks(execute=True):
        gone = session_archive(session, StaffFactory())
    summary = SessionSummary.objects.get(pk=session.pk)
    assert {name: getattr(summary, name) for name in wanted} == wanted
    assert summary.frozen_at is not None
    assert summary.curation == {"accepted": 0, "rejected": 1, "reasons": {"ice": 1}}
    assert (summary.micrographs, summary.exposures, summary.runs) == (30, 30, 2)
    assert {loss.what: loss.count for loss in gone} == {
        "rows of micrographs": 33,
        "lists of picks": 33,
        "pictures": 60 + 4 - 24 - 2,
    }
    assert Session.objects.get(pk=session.pk).status == "archived"
    entry = AuditEntry.objects.get(action="session archived")
    assert entry.details["gone"]["rows of micrographs"] == 33


def test_rows_go_and_runs_events_and_the_last_classes_stay(archived):
    for model in (Micrograph, Exposure, Coordinates, PackedColumns):
        assert not model.objects.exists()
    run = ProcessingRun.objects.get(key="relion")
    assert run.parameters == {"dose": 1.2}
    assert run.micrographs == 30
    assert sum(run.histograms["ctf_resolution"]) == 30
    assert RunEvent.objects.count() == 1
    assert list(ClassAverage.objects.values_list("iteration", flat=True)) == [25, 25]


def test_every_value_can_be_read_as_before(session, django_capture_on_commit_callbacks):
    run = ProcessingRun.objects.get(key="relion")
    before = packed.table(run)
    names = list(Micrograph.objects.filter(run=run).order_by("pk").values_list("name", flat=True))
    with django_capture_on_commit_callbacks(execute=True):
        session_archive(session, StaffFactory())
    packed.forget()
    run.refresh_from_db()
    after = packed.table(run)
    assert after is not before
    for column in packed.DTYPE.names:
        if column != "flags":
            np.testing.assert_array_equal(after.rows[column], before.rows[column])
    assert after.text(after.rows["grid_square"]) == before.text(before.rows["grid_square"])
    assert archive.names(run) == names
    assert after.rows["flags"][0] & packed.REJECTED_BY_HAND
    shown = (after.rows["flags"] & packed.PICTURE).astype(bool)
    assert shown.sum() == 12
    assert shown[0]
    assert shown[-1]


def test_only_the_pictures_that_are_kept_stay_on_the_disk(archived):
    on_disk = {path.name for path in session_image_dir(archived).iterdir()}
    summary = SessionSummary.objects.get(pk=archived.pk)
    kept = {name for row in summary.pictures for name in (row["image"], row["psd"])}
    kept |= set(ClassAverage.objects.values_list("image", flat=True))
    assert on_disk == kept
    assert len(kept) == 26


def test_nothing_goes_if_the_archiving_fails(session, monkeypatch, django_capture_on_commit_callbacks):
    def fail(*args):
        raise OSError("no disk")

    monkeypatch.setattr(archive, "remove", fail)
    with (
        django_capture_on_commit_callbacks(execute=True),
        pytest.raises(OSError, match="no disk"),
    ):
        session_archive(session, StaffFactory())
    assert Session.objects.get(pk=session.pk).status == "finished"
    assert Micrograph.objects.count() == 33
    assert SessionSummary.objects.get(pk=session.pk).frozen_at is None
    assert len(list(session_image_dir(session).iterdir())) == 64


def test_only_a_session_that_is_over_is_archived_and_only_once(session):
    running = SessionFactory()
    with pytest.raises(ValidationError, match="Finish the session first"):
        session_archive(running, StaffFactory())
    assert SessionSummary.objects.get(pk=running.pk).frozen_at is None
    session_archive(session, StaffFactory())
    with pytest.raises(ValidationError, match="archived already"):
        session_archive(session, StaffFactory())
    with pytest.raises(ValidationError, match="archived"):
        session_reopen(session, StaffFactory())


def test_an_archived_session_can_still_be_deleted(archived):
    session_delete(archived, StaffFactory())
    assert not ProcessingRun.objects.exists()
    assert not Session.objects.filter(pk=archived.pk).exists()


def test_pipelines_are_told_what_to_do(archived, api):
    client = api(microscopes=[archived.microscope])
    run = ProcessingRun.objects.get(key="relion")
    answer = client.get(f"/api/v1/runs/{run.pk}/micrographs/")
    assert answer.status_code == 410
    assert "its numbers are in its summary" in answer.json()["detail"]
    assert client.get(f"/api/v1/sessions/{archived.name}/exposures/").status_code == 410
    item = {"micrographs": [{"name": "late.tiff", "ctf_resolution": 3.0}]}
    assert client.post(f"/api/v1/runs/{run.pk}/micrographs/", item, format="json").status_code == 409
    summary = client.get(f"/api/v1/sessions/{archived.name}/summary/").json()
    assert summary["frozen_at"] is not None
    (found,) = [row for row in summary["runs"] if row["key"] == "relion"]
    assert found["fields"]["ctf_resolution"]["n"] == 30


def test_staff_archive_from_the_sessions_page_after_being_asked(client, session):
    url = reverse("sessions:archive", args=[session.name])
    client.force_login(session.owner)
    assert client.get(url).status_code == 403
    client.force_login(UserFactory())
    assert client.get(url).status_code == 404
    client.force_login(StaffFactory())
    assert url in client.get(reverse("sessions:detail", args=[session.name])).content.decode()
    text = client.get(url).content.decode()
    assert "33 rows of micrographs" in text
    assert Micrograph.objects.exists()
    client.post(url)
    assert Session.objects.get(pk=session.pk).status == "archived"
    assert client.get(url).status_code == 403
    assert client.get(reverse("sessions:detail", args=[session.name])).status_code == 200


def test_staff_archive_in_the_admin_after_being_asked(client, session):
    client.force_login(StaffFactory())
    url = reverse("admin:sessions_app_session_changelist")
    data = {"action": "archive", ACTION_CHECKBOX_NAME: [session.pk, SessionFactory().pk]}
    text = client.post(url, data).content.decode()
    assert "33 rows of micrographs" in text
    assert Session.objects.get(pk=session.pk).status == "finished"
    client.post(url, data | {"confirmed": "yes"})
    assert Session.objects.get(pk=session.pk).status == "archived"
    assert Session.objects.filter(status="active").count() == 1


def test_the_command_only_tells_until_it_is_told_to(session):
    Session.objects.filter(pk=session.pk).update(
        start=timezone.now() - datetime.timedelta(days=401), end=timezone.now() - datetime.timedelta(days=400)
    )
    output = io.StringIO()
    call_command("archive", "--older-than", "365", stdout=output)
    assert f"{session.name}: 33 rows of micrographs" in output.getvalue()
    assert "Nothing was done yet" in output.getvalue()
    call_command("archive", "--older-than", "500", "--yes", stdout=output)
    call_command("archive", "--older-than", "365", "--microscope", "other", "--yes", stdout=output)
    assert Session.objects.get(pk=session.pk).status == "finished"
    call_command("archive", "--older-than", "365", "--yes", stdout=output)
    assert Session.objects.get(pk=session.pk).status == "archived"
    assert "Archived 1 of 1 session." in output.getvalue()
    with pytest.raises(CommandError):
        call_command("archive", "--older-than", "0")
