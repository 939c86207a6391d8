"""2D classes by job, iteration and number; messages of the pipeline."""

import pytest

from preprocessing.models import ClassAverage, RunEvent

pytestmark = pytest.mark.django_db


def post_classes(pipeline, *classes, job="Class2D/job008", iteration=25):
    body = {"job": job, "iteration": iteration, "classes": list(classes)}
    return pipeline.client.post(f"{pipeline.url}classes/", body)


def classes(pipeline, **params):
    return pipeline.client.get(f"{pipeline.url}classes/", params).json()["results"]


def test_classes_are_made_corrected_and_repeated(pipeline):
    first = post_classes(
        pipeline, {"number": 1, "particles": 300}, {"number": 2, "particles": 100, "resolution": 8.5}
    )
    assert first.status_code == 200
    assert first.json()["created"] == 2
    again = post_classes(pipeline, {"number": 1, "particles": 300}, {"number": 2, "resolution": 8.1}).json()
    assert (again["created"], again["updated"], again["unchanged"]) == (0, 1, 1)
    rows = classes(pipeline)
    assert [(row["number"], row["particles"], row["share"], row["resolution"]) for row in rows] == [
        (1, 300, 0.75, None),
        (2, 100, 0.25, 8.1),
    ]
    assert len({row["revision"] for row in rows}) == 2
    assert again["revision"] == pipeline.run.revision


def test_the_counter_is_of_the_iteration_told_last(pipeline):
    post_classes(pipeline, *({"number": n} for n in range(1, 51)), iteration=1)
    assert pipeline.counters()["classes"] == 50
    post_classes(pipeline, *({"number": n} for n in range(1, 11)), iteration=2)
    assert pipeline.counters()["classes"] == 10
    assert len(classes(pipeline, latest="true")) == 10
    assert len(classes(pipeline, iteration=1, page_size=500)) == 50
    assert classes(pipeline, job="other") == []
    pipeline.session.summary.refresh_from_db()
    assert pipeline.session.summary.classes == 10
    pipeline.assert_counted()


@pytest.mark.parametrize(
    "item",
    [
        {},
        {"number": 0},
        {"number": 1, "particles": -1},
        {"number": 1, "resolution": 0},
        {"number": 1, "x": 1},
        5,
    ],
)
def test_a_class_that_cannot_be_is_refused(pipeline, item):
    answer = post_classes(pipeline, {"number": 2}, item)
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["index"] == 1
    assert not ClassAverage.objects.exists()


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"job": "", "classes": []},
        {"job": " ", "classes": [{"number": 1}]},
        {"job": "j\n", "classes": [{"number": 1}]},
        {"job": "j", "iteration": -1, "classes": [{"number": 1}]},
    ],
)
def test_what_is_no_set_of_classes_is_refused(pipeline, body):
    assert pipeline.client.post(f"{pipeline.url}classes/", body).status_code == 400


def test_an_iteration_that_is_no_number_is_refused(pipeline):
    assert pipeline.client.get(f"{pipeline.url}classes/", {"iteration": "last"}).status_code == 400


def say(pipeline, text="Motion correction started.", level="info", **fields):
    return pipeline.client.post(f"{pipeline.url}events/", {"level": level, "text": text} | fields)


def test_a_message_is_kept_once_however_often_it_is_sent(pipeline):
    first = say(pipeline, at="2026-11-22T10:15:00Z")
    again = say(pipeline, at="2026-11-22T11:15:00+01:00")
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()
    assert first.json()["revision"] == pipeline.run.revision
    assert say(pipeline, at="2026-11-22T10:15:01Z").status_code == 201
    assert RunEvent.objects.count() == 2


def test_the_newest_message_repeated_at_once_is_the_same(pipeline):
    assert say(pipeline).status_code == 201
    assert say(pipeline).status_code == 200
    assert say(pipeline, "Another.", level="warning").status_code == 201
    assert say(pipeline).status_code == 201
    listed = pipeline.client.get(f"{pipeline.url}events/").json()["results"]
    assert [event["text"] for event in listed] == [
        "Motion correction started.",
        "Another.",
        "Motion correction started.",
    ]


def test_a_time_with_any_offset_is_kept_as_that_moment(pipeline):
    """PostgreSQL refuses offsets of 16 hours and more."""
    for at in ("2026-11-22T10:15:00+23:59", "2026-11-21T10:16:00Z"):
        answer = pipeline.client.post(f"{pipeline.url}events/", {"level": "info", "text": "x", "at": at})
        assert answer.status_code < 300, answer.content
        assert answer.json()["at"] == "2026-11-21T10:16:00Z"
    assert RunEvent.objects.count() == 1


@pytest.mark.parametrize(
    "body",
    [
        {"level": "info"},
        {"text": "x"},
        {"level": "fatal", "text": "x"},
        {"level": "info", "text": ""},
        {"level": "info", "text": "x" * 2001},
        {"level": "info", "text": "a\x00b"},
        {"level": "info", "text": "x", "at": "2026-11-22T10:15:00"},
        {"level": "info", "text": "x", "at": "2999-11-22T10:15:00Z"},
        {"level": "info", "text": "x", "who": "me"},
        {"level": "info", "text": " \n"},
    ],
)
def test_what_is_no_message_is_refused(pipeline, body):
    answer = pipeline.client.post(f"{pipeline.url}events/", body)
    assert answer.status_code == 400
    assert len(answer.json()) == 1
    assert not RunEvent.objects.exists()
