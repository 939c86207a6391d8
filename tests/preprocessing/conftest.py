"""A run and a pipeline that posts to it."""

import io

import pytest
from PIL import Image

from preprocessing import polls
from preprocessing.models import ProcessingRun
from preprocessing.recount import recount
from tests.factories import SessionFactory


class Pipeline:
    """A client with a token of the session's microscope, and the addresses it uses."""

    def __init__(self, client, session):
        self.client, self.session = client, session
        self.base = f"/api/v1/sessions/{session.name}/"
        self.run_id = self.open_run().json()["id"]
        self.url = f"/api/v1/runs/{self.run_id}/"

    def open_run(self, key="relion", **fields):
        return self.client.post(f"{self.base}runs/", {"key": key, "software": "RELION"} | fields)

    def post(self, *items, run=None):
        url = f"/api/v1/runs/{run}/" if run else self.url
        return self.client.post(f"{url}micrographs/", {"micrographs": list(items)})

    def expose(self, *items):
        return self.client.post(f"{self.base}exposures/", {"exposures": list(items)})

    def after(self, revision=0, **params):
        return self.client.get(f"{self.url}micrographs/", {"after": revision} | params)

    def rows(self) -> dict[str, dict]:
        return {row["name"]: row for row in self.after().json()["micrographs"]}

    def counters(self) -> dict:
        run = self.client.get(self.url).json()
        names = ("micrographs", "motion_corrected", "ctf_estimated", "picked", "particles", "classes")
        return {name: run[name] for name in names}

    @property
    def run(self) -> ProcessingRun:
        return ProcessingRun.objects.get(pk=self.run_id)

    def assert_counted(self):
        """Everything that ingestion keeps equals a recount of the rows."""
        assert recount(self.session.pk) == []


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    """What is asked twice within the same moment is read twice, and nothing of another test is remembered."""
    monkeypatch.setattr(polls, "FRESH", 0)
    for name in ("_known", "_now", "_tags"):
        monkeypatch.setattr(polls, name, {})


@pytest.fixture
def pipeline(db, api):
    session = SessionFactory()
    return Pipeline(api(microscopes=[session.microscope]), session)


@pytest.fixture
def picture():
    """Makes a picture file as it is uploaded."""

    def make(size=(64, 48), colour=77, mode="L", format="PNG", name="picture.png", **options):
        file = io.BytesIO()
        Image.new(mode, size, colour).save(file, format, **options)
        file.seek(0)
        file.name = name
        return file

    return make
