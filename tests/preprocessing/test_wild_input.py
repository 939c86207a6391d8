"""Whatever is sent, the answer is JSON and never a 500, and what was stored still counts right."""

import random

import pytest

pytestmark = pytest.mark.django_db

WILD = [
    None, True, 0, -1, 1.5, 2**63, -(2**63), 1e308, "", "x", "a\x00b", "é" * 300, "😀", "../../x", [], [[1]], {},
    {"a": {"b": [1]}}, "2026-11-23T10:15:00Z", "9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59",
    "2026-11-23T10:15:00", [[1, 2]], "NaN", "queued", "info",
]  # fmt: skip
BATCHES = {
    "micrographs": [
        "name",
        "motion_total",
        "defocus_u",
        "ctf_resolution",
        "particles",
        "coordinates",
        "rejected",
    ],
    "classes": ["number", "particles", "resolution"],
}
OBJECTS = {"events/": ["level", "text", "at"], "": ["status", "label", "parameters", "width", "pixel_size"]}


@pytest.fixture
def answered(pipeline):
    pipeline.client.raise_request_exception = False

    def check(answer):
        assert answer.status_code < 500, answer.content[:500]
        if answer.status_code >= 400:
            assert answer.json()

    yield check
    pipeline.assert_counted()


def some(chance, fields):
    return {name: chance.choice(WILD) for name in chance.sample(fields, chance.randint(0, len(fields)))}


@pytest.mark.parametrize("seed", range(3))
def test_bodies(pipeline, answered, seed):
    chance, client = random.Random(seed), pipeline.client
    for _ in range(25):
        for what, fields in BATCHES.items():
            batch = [some(chance, fields) | {fields[0]: chance.choice(["a", "b", 1, 2])} for _ in range(2)]
            answered(client.post(f"{pipeline.url}{what}/", {what: batch, "job": chance.choice(WILD)}))
        for path, fields in OBJECTS.items():
            method = client.post if path else client.patch
            answered(method(f"{pipeline.url}{path}", some(chance, fields)))
        exposure = some(chance, ["name", "acquired_at", "grid_square", "stage_x"])
        answered(client.post(f"{pipeline.base}exposures/", {"exposures": [exposure]}))
        answered(
            client.post(f"{pipeline.base}runs/", some(chance, ["key", "software", "parameters", "host"]))
        )


def test_forms(pipeline, answered, picture):
    chance = random.Random(1)
    url = f"{pipeline.url}images/"
    for _ in range(30):
        form = {
            name: str(value)
            for name, value in some(chance, ["micrograph", "job", "iteration", "number"]).items()
        }
        form |= {"kind": chance.choice(["psd", "micrograph", "class_average", "x"]), "file": picture()}
        answered(pipeline.client.post(url, form, format="multipart"))
    for body, kind in (
        (b"--x\r\nbroken", "multipart/form-data; boundary=x"),
        (b"x", "multipart/form-data"),
        (b"a=1", "application/x-www-form-urlencoded"),
    ):
        answered(pipeline.client.post(url, body, content_type=kind))
    answered(pipeline.client.post(url, {f"a{n}": "1" for n in range(3000)}, format="multipart"))


@pytest.mark.parametrize("name", ["after", "limit", "page", "page_size", "job", "iteration", "latest"])
def test_queries(pipeline, answered, name):
    pipeline.client.post(f"{pipeline.url}classes/", {"job": "j", "classes": [{"number": 1}]})
    for value in WILD:
        for address in ("micrographs/", "classes/", "events/"):
            answered(pipeline.client.get(f"{pipeline.url}{address}", {name: str(value)}))
