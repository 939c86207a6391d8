"""?dry_run=true: everything is checked, the answer says what it would come to, and nothing is stored."""

import pytest
from django.utils import timezone

from preprocessing.models import ClassAverage, Coordinates, Exposure, Micrograph, ProcessingRun, RunEvent
from sessions_app.models import Session, SessionSummary

pytestmark = pytest.mark.django_db


def everything():
    return [
        list(model.objects.order_by("pk").values())
        for model in (
            ProcessingRun,
            Exposure,
            Micrograph,
            Coordinates,
            ClassAverage,
            RunEvent,
            SessionSummary,
        )
    ]


@pytest.fixture
def trial(pipeline):
    """Posts to an address below the run or session as a trial, and holds that nothing changed."""

    def post(address, body):
        before = everything()
        answer = pipeline.client.post(f"{address}?dry_run=true", body)
        assert everything() == before
        return answer

    return post


def test_a_trial_says_what_would_come_of_it_and_stores_nothing(pipeline, trial):
    pipeline.post({"name": "a", "motion_total": 1}, {"name": "b"})
    revision = pipeline.run.revision
    batch = {
        "micrographs": [
            {"name": "a", "motion_total": 2, "coordinates": [[1, 2]]},
            {"name": "b"},
            {"name": "GridSquare_1/Data/FoilHole_2_Data_3_4_20251123_101010.tiff", "defocus_u": 1e4},
        ]
    }
    tried = trial(f"{pipeline.url}micrographs/", batch)
    assert tried.status_code == 200
    expected = {"created": 1, "updated": 1, "unchanged": 1}
    assert tried.json() == expected | {"revision": revision, "dry_run": True}

    done = pipeline.post(*batch["micrographs"]).json()
    assert done == expected | {"revision": revision + 2}
    pipeline.assert_counted()


def test_exposures_and_classes_can_be_tried_too(pipeline, trial):
    pipeline.expose({"name": "a", "stage_x": 1})
    body = {"exposures": [{"name": "a", "stage_x": 2}, {"name": "b"}]}
    answer = trial(f"{pipeline.base}exposures/", body).json()
    assert (answer["created"], answer["updated"], answer["dry_run"]) == (1, 1, True)
    assert answer["revision"] == SessionSummary.objects.get().exposure_revision
    answer = trial(f"{pipeline.url}classes/", {"job": "j", "classes": [{"number": 1}]}).json()
    assert (answer["created"], answer["dry_run"]) == (1, True)


def test_a_trial_finds_whatever_the_real_thing_would_find(pipeline, trial):
    pipeline.post({"name": "a.tiff"})
    url = f"{pipeline.url}micrographs/"
    wrong = {"micrographs": [{"name": "x"}, {"name": "y", "ctf_resolution": -1}]}
    collides = {"micrographs": [{"name": "a.mrc"}]}
    twice = {"micrographs": [{"name": "b.tiff"}, {"name": "b.mrc"}]}
    for body, status, index in ((wrong, 400, 1), (collides, 409, 0), (twice, 409, 1)):
        tried, done = trial(url, body), pipeline.client.post(url, body)
        assert tried.status_code == done.status_code == status
        assert tried.json() == done.json()
        assert tried.json()["errors"][0]["index"] == index


def test_a_trial_on_an_archived_session_is_told_so(pipeline, trial):
    Session.objects.filter(pk=pipeline.session.pk).update(status="archived", end=timezone.now())
    assert trial(f"{pipeline.url}micrographs/", {"micrographs": [{"name": "a"}]}).status_code == 409


@pytest.mark.parametrize(
    "query",
    [
        "dry_run=yes",
        "dry_run=",
        "dryrun=true",
        "dry-run=true&dry_run=true",
        "dry_run=true&dry_run=false",
        "dry_run=false&dry_run=true",
    ],
)
def test_a_misspelt_trial_is_refused_and_not_stored(pipeline, query):
    answer = pipeline.client.post(f"{pipeline.url}micrographs/?{query}", {"micrographs": [{"name": "a"}]})
    assert answer.status_code == 400
    assert set(answer.json()) == {query.partition("=")[0]}
    assert not Micrograph.objects.exists()


def test_false_is_in_earnest(pipeline):
    answer = pipeline.client.post(
        f"{pipeline.url}micrographs/?dry_run=false", {"micrographs": [{"name": "a"}]}
    )
    assert "dry_run" not in answer.json()
    assert Micrograph.objects.count() == 1


def test_what_cannot_be_tried_says_so_instead_of_doing_it(pipeline):
    for method, address, body in (
        ("post", f"{pipeline.base}runs/", {"key": "new", "software": "x"}),
        ("patch", pipeline.url, {"status": "finished"}),
        ("post", f"{pipeline.url}events/", {"level": "info", "text": "x"}),
        ("patch", pipeline.base, {"frames": 44}),
    ):
        before = everything()
        answer = getattr(pipeline.client, method)(f"{address}?dry_run=true", body)
        assert answer.status_code == 400
        assert "dry_run" in answer.json()
        assert everything() == before
