"""The schema tells the truth: it is valid, whole, and real answers fit it."""

import json

import jsonschema
import msgspec
import pytest
from django.core.management import call_command
from django.test import Client

from preprocessing.api import payloads, schema

pytestmark = pytest.mark.django_db


@pytest.fixture(scope="module")
def described(tmp_path_factory):
    path = tmp_path_factory.mktemp("schema") / "schema.json"
    call_command("spectacular", file=str(path), format="openapi-json", validate=True, fail_on_warn=True)
    return json.loads(path.read_text())


def test_the_schema_is_valid_and_names_every_call(described):
    calls = {(method, path) for path, methods in described["paths"].items() for method in methods}
    for method, path in (
        ("get", "/api/v1/sessions/{name}/exposures/"),
        ("post", "/api/v1/sessions/{name}/exposures/"),
        ("post", "/api/v1/sessions/{name}/runs/"),
        ("patch", "/api/v1/runs/{id}/"),
        ("get", "/api/v1/runs/{id}/micrographs/"),
        ("post", "/api/v1/runs/{id}/micrographs/"),
        ("post", "/api/v1/runs/{id}/images/"),
        ("post", "/api/v1/runs/{id}/classes/"),
        ("post", "/api/v1/runs/{id}/events/"),
        ("get", "/api/v1/micrographs/{id}/coordinates/"),
        ("get", "/api/v1/sessions/{name}/summary/"),
    ):
        assert (method, path) in calls


def test_every_measured_field_says_what_it_is_and_in_which_unit(described):
    fields = described["components"]["schemas"]["MicrographItem"]["properties"]
    for name, field in fields.items():
        assert field.get("description"), name
    assert "Å" in fields["defocus_u"]["description"]
    assert "underfocus is positive" in fields["defocus_u"]["description"]


@pytest.mark.parametrize(
    ("kind", "example"),
    [
        (payloads.MicrographBatch, schema.MICROGRAPHS_EXAMPLE),
        (payloads.ExposureBatch, schema.EXPOSURES_EXAMPLE),
        (payloads.ClassBatch, schema.CLASSES_EXAMPLE),
        (payloads.RunOpening, schema.RUN_EXAMPLE),
    ],
)
def test_the_examples_can_be_sent_as_they_are(described, kind, example):
    msgspec.convert(example, kind)
    components = {"components": described["components"], "$ref": f"#/components/schemas/{kind.__name__}"}
    jsonschema.Draft202012Validator(components).validate(example)


def test_the_examples_work_one_after_the_other(pipeline):
    post = pipeline.client.post
    opened = post(f"{pipeline.base}runs/", schema.RUN_EXAMPLE)
    assert opened.status_code == 201
    url = f"/api/v1/runs/{opened.json()['id']}/"
    assert post(f"{pipeline.base}exposures/", schema.EXPOSURES_EXAMPLE).json()["created"] == 1
    assert post(f"{url}micrographs/", schema.MICROGRAPHS_EXAMPLE).json()["created"] == 2
    assert post(f"{url}classes/", schema.CLASSES_EXAMPLE).json()["created"] == 2


def test_real_answers_fit_their_descriptions(pipeline, picture):
    client, base, url = pipeline.client, pipeline.base, pipeline.url
    name = "GridSquare_1/Data/FoilHole_2_Data_3_4_20251123_101010_fractions.tiff"
    client.patch(url, {"status": "finished", "parameters": {"a": [1]}, "pixel_size": 1.1, "width": 10})
    pipeline.expose({"name": name, "acquired_at": "2025-11-23T10:10:10Z", "stage_x": 1.0})
    posted = pipeline.post(
        {"name": name, "defocus_u": 1e4, "defocus_v": 9e3, "coordinates": [[1, 2]], "rejected": True}
    )
    classes = {"job": "j", "iteration": 1, "classes": [{"number": 1, "particles": 5, "resolution": 7.5}]}
    event = {"level": "error", "text": "Broken.", "at": "2025-11-23T10:10:10Z"}
    image = {"kind": "psd", "micrograph": name, "file": picture()}
    micrograph = pipeline.rows()[name]["id"]
    for kind, answer in (
        (schema.Counts, posted),
        (schema.Counts, client.post(f"{url}classes/", classes)),
        (schema.EventRow, client.post(f"{url}events/", event)),
        (schema.ImageAnswer, client.post(f"{url}images/", image, format="multipart")),
        (schema.RunRow, client.get(url)),
        (schema.RunPage, client.get(f"{base}runs/")),
        (schema.ExposurePage, client.get(f"{base}exposures/")),
        (schema.MicrographPage, client.get(f"{url}micrographs/")),
        (schema.Picks, client.get(f"/api/v1/micrographs/{micrograph}/coordinates/")),
        (schema.ClassPage, client.get(f"{url}classes/")),
        (schema.EventPage, client.get(f"{url}events/")),
        (schema.Summary, client.get(f"{base}summary/")),
        (schema.BatchErrors, pipeline.post({"name": ""})),
        (schema.BatchErrors, pipeline.post({"name": "a.tif"}, {"name": "a.mrc"})),
        (schema.Detail, client.get(f"{base}nothing/")),
    ):
        msgspec.json.decode(answer.content, type=kind)


def test_the_documentation_is_served_by_ourselves_to_those_who_log_in(client, user):
    assert client.get("/api/docs/").status_code == 302
    client.force_login(user)
    page = client.get("/api/docs/").content.decode()
    assert "://" not in page.replace("http://testserver", "")
    assert "<script>" not in page
    assert Client().get("/api/schema/").status_code == 401
    assert client.get("/api/schema/?format=json").status_code == 200
