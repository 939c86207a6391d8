"""Swagger shows how every call is made: each body has examples that fit its schema, each number says its unit.

The schema is walked whole, so that a new call without an example fails here.
"""

import io
import json
import re

import jsonschema
import pytest
from django.core.management import call_command
from PIL import Image

from tests.factories import BookingFactory, CameraFactory, SessionFactory

# What a number with a physical dimension is told in, or that it has none.
UNITS = re.compile(
    r"Å|µm|\bnm\b|\bkV\b|\bmm\b|\beV\b|\(s\)|e⁻/Å²|degrees|pixels|bytes|\bTB\b|\bminutes\b"
    r"|no unit|figure of merit|[Rr]elative|0 to 1|the field's unit"
)


@pytest.fixture(scope="module")
def described(tmp_path_factory):
    path = tmp_path_factory.mktemp("schema") / "schema.json"
    call_command("spectacular", file=str(path), format="openapi-json")
    return json.loads(path.read_text())


def bodies(described):
    """Every request body: the call in words, its media type and what the schema says of it."""
    for path, methods in described["paths"].items():
        for method, call in methods.items():
            for media, body in call.get("requestBody", {}).get("content", {}).items():
                yield f"{method.upper()} {path} {media}", body


def numbers(described):
    """Every number anywhere in the components and bodies: where, its name, its types and its schema."""

    def walk(part, where):
        if isinstance(part, dict):
            for name, field in part.get("properties", {}).items():
                types = field.get("type", [])
                types = {types} if isinstance(types, str) else set(types)
                if types & {"integer", "number"}:
                    yield f"{where}.{name}", types, field
            for name, each in part.items():
                yield from walk(each, f"{where}.{name}" if where else name)
        elif isinstance(part, list):
            for each in part:
                yield from walk(each, where)

    yield from walk(described["components"]["schemas"], "")
    for call, body in bodies(described):
        yield from walk(body, call)


def test_every_call_with_a_body_has_an_example(described):
    calls = dict(bodies(described))
    assert len(calls) >= 12
    assert "DELETE /api/v1/bookings/{id}/ application/json" in calls
    assert [call for call, body in calls.items() if not body.get("examples")] == []


def test_every_example_fits_its_own_schema(described):
    wrong = []
    for call, body in bodies(described):
        rules = {**body["schema"], "components": described["components"]}
        validator = jsonschema.Draft202012Validator(
            rules, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER
        )
        for name, example in body.get("examples", {}).items():
            wrong += [f"{call} {name}: {error.message}" for error in validator.iter_errors(example["value"])]
    assert wrong == []


@pytest.mark.django_db
def test_every_example_of_a_pipelines_calls_is_taken_as_it_stands(described, api, staff):
    """In the order in which a pipeline would make them; a file is the only thing that an example cannot hold."""
    session = SessionFactory()
    CameraFactory(microscope=session.microscope, name="Falcon 4i")
    booking = BookingFactory()
    CameraFactory(microscope=booking.microscope, name="Falcon 4i")
    pipeline = api(microscopes=[session.microscope])
    calls = dict(bodies(described))
    places = {"{name}": session.name}
    taken = []

    def make(call, change=None, client=pipeline):
        method, address, media = call.split(" ")
        assert calls[call]["examples"]
        for name, example in calls[call]["examples"].items():
            value = change(dict(example["value"])) if change else example["value"]
            for place, meant in places.items():
                address = address.replace(place, str(meant))
            kind = "multipart" if media.startswith("multipart") else "json"
            answer = getattr(client, method.lower())(address, value, format=kind)
            assert answer.status_code in (200, 201), (call, name, answer.content)
            taken.append(call)
        return answer.json()

    def with_picture(value):
        file = io.BytesIO()
        Image.new("L", (8, 8)).save(file, "PNG")
        file.seek(0)
        file.name = value["file"]
        return value | {"file": file}

    v1, json_, form = "/api/v1", "application/json", "multipart/form-data"
    make(f"POST {v1}/sessions/ {json_}", lambda value: value | {"booking": booking.pk}, api(staff))
    make(f"POST {v1}/sessions/{{name}}/exposures/ {json_}")
    places["{id}"] = make(f"POST {v1}/sessions/{{name}}/runs/ {json_}")["id"]
    make(f"POST {v1}/runs/{{id}}/micrographs/ {json_}")
    make(f"POST {v1}/runs/{{id}}/classes/ {json_}")
    make(f"POST {v1}/runs/{{id}}/images/ {form}", with_picture)
    make(f"POST {v1}/runs/{{id}}/events/ {json_}")
    make(f"PATCH {v1}/runs/{{id}}/ {json_}")
    make(f"PATCH {v1}/sessions/{{name}}/ {json_}")
    assert {call for call in calls if "/bookings/" not in call} == set(taken)


def test_every_number_says_what_it_is_and_every_measure_its_unit(described):
    found = list(numbers(described))
    assert len(found) > 100
    assert [where for where, _, field in found if not field.get("description")] == []
    measures = [(where, field["description"]) for where, types, field in found if "number" in types]
    assert len(measures) > 30
    assert [where for where, said in measures if not UNITS.search(said)] == []


@pytest.mark.parametrize(
    ("said", "fits"),
    [
        ("Pixel size (Å). Of the movies as recorded.", True),
        ("Exposure time (s).", True),
        ("Acceleration voltage in kV.", True),
        ("How thick the ice is.", False),
        ("Motion of the whole movie, in all frames.", False),
    ],
)
def test_the_check_itself_knows_a_unit_from_a_word(said, fits):
    assert bool(UNITS.search(said)) == fits
