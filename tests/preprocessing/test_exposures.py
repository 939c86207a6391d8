"""Exposures: what watchers know of movies, before or after any pipeline saw them."""

import pytest

from preprocessing.models import Exposure

pytestmark = pytest.mark.django_db
NAME = "FoilHole_5493259_Data_5492520_10_20240106_181616_fractions.tiff"


def exposures(pipeline, after=0, **headers):
    return pipeline.client.get(f"{pipeline.base}exposures/", {"after": after}, **headers)


def test_an_exposure_is_made_corrected_and_repeated(pipeline):
    item = {
        "name": NAME,
        "acquired_at": "2024-01-06T18:16:16+01:00",
        "grid_square": "5489441",
        "stage_x": 12.5,
        "stage_y": -3.0,
        "beam_shift_x": 0.1,
        "beam_shift_y": 0.2,
    }
    assert pipeline.expose(item).json() == {"created": 1, "updated": 0, "unchanged": 0, "revision": 1}
    assert pipeline.expose(item).json() == {"created": 0, "updated": 0, "unchanged": 1, "revision": 1}
    changed = pipeline.expose({"name": NAME, "stage_x": None, "acquired_at": "2024-01-06T17:16:17Z"}).json()
    assert changed == {"created": 0, "updated": 1, "unchanged": 0, "revision": 2}
    (row,) = exposures(pipeline).json()["exposures"]
    assert row["acquired_at"] == "2024-01-06T17:16:17Z"
    assert (row["stage_x"], row["stage_y"]) == (None, -3.0)
    assert (row["grid_square"], row["foil_hole"]) == ("5489441", "5493259")


def test_square_and_hole_come_from_the_name_where_not_given(pipeline):
    pipeline.expose(
        {"name": f"Images-Disc1/GridSquare_17/Data/{NAME}"}, {"name": f"GridSquare_18_Data_1{NAME}"}
    )
    rows = exposures(pipeline).json()["exposures"]
    assert [(row["grid_square"], row["foil_hole"]) for row in rows] == [("17", "5493259"), ("18", "5493259")]


def test_what_was_given_stands_against_the_name(pipeline):
    pipeline.expose({"name": f"GridSquare_17_Data_{NAME}", "grid_square": "other", "foil_hole": None})
    (row,) = exposures(pipeline).json()["exposures"]
    assert (row["grid_square"], row["foil_hole"]) == ("other", None)


def test_a_pipelines_micrograph_makes_its_exposure_and_a_watcher_completes_it(pipeline):
    pipeline.post({"name": NAME, "particles": 4})
    known = pipeline.rows()[NAME]
    assert known["acquired_at"] is None
    pipeline.expose({"name": NAME, "acquired_at": "2024-01-06T18:16:16Z"})
    assert Exposure.objects.count() == 1
    # Whoever follows the run hears of it.
    (row,) = pipeline.after(known["revision"]).json()["micrographs"]
    assert row["acquired_at"] == "2024-01-06T18:16:16Z"
    pipeline.assert_counted()


def test_a_change_is_told_to_readers_of_every_run(pipeline):
    other = pipeline.open_run("second").json()
    pipeline.post({"name": NAME})
    revision = pipeline.post({"name": NAME}, run=other["id"]).json()["revision"]
    pipeline.expose({"name": NAME, "stage_x": 1.0, "grid_square": "7"})
    answer = pipeline.client.get(f"/api/v1/runs/{other['id']}/micrographs/", {"after": revision}).json()
    assert [row["grid_square"] for row in answer["micrographs"]] == ["7"]
    assert [row["grid_square"] for row in pipeline.rows().values()] == ["7"]


def test_readers_follow_the_sessions_own_revision(pipeline):
    pipeline.expose({"name": "a"}, {"name": "b"}, {"name": "c"})
    pipeline.expose({"name": "b", "stage_x": 1.0})
    answer = exposures(pipeline, 2)
    assert [row["name"] for row in answer.json()["exposures"]] == ["c", "b"]
    assert answer.json()["revision"] == 4
    assert exposures(pipeline, 4, HTTP_IF_NONE_MATCH=exposures(pipeline, 4)["ETag"]).status_code == 304


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("acquired_at", "2024-01-06T18:16:16"),
        ("acquired_at", "yesterday"),
        ("acquired_at", "2224-01-06T18:16:16Z"),
        ("acquired_at", "1824-01-06T18:16:16Z"),
        ("acquired_at", 1704561376),
        ("stage_x", 1e9),
        ("stage_x", "5"),
        ("grid_square", 17),
        ("grid_square", "x" * 61),
        ("verdict", "rejected"),
        ("identity", "x"),
    ],
)
def test_what_cannot_be_is_refused_by_field(pipeline, field, value):
    answer = pipeline.expose({"name": "fine"}, {"name": "a", field: value})
    assert answer.status_code == 400
    (error,) = answer.json()["errors"]
    assert (error["index"], error["name"], list(error["errors"])) == (1, "a", [field])
    assert not Exposure.objects.exists()


def test_a_time_with_any_offset_is_kept_as_that_moment(pipeline):
    """PostgreSQL refuses offsets of 16 hours and more."""
    for at in ("2026-11-21T10:15:00+23:59", "2026-11-20T10:16:00Z"):
        assert pipeline.expose({"name": "a", "acquired_at": at}).status_code == 200
    (row,) = exposures(pipeline).json()["exposures"]
    assert (row["acquired_at"], row["revision"]) == ("2026-11-20T10:16:00Z", 1)


def test_two_names_of_one_movie_in_a_batch_are_refused(pipeline):
    answer = pipeline.expose({"name": "a.tiff"}, {"name": "a.mrc"})
    assert answer.status_code == 409
    assert answer.json()["errors"][0]["index"] == 1
    # Of two watchers, one after the other, each may have its own name for it.
    pipeline.expose({"name": "a.tiff"})
    assert pipeline.expose({"name": "a.mrc", "stage_x": 2.0}).json()["updated"] == 1
    assert Exposure.objects.get().name == "a.tiff"
