"""CryoSPARC's files and a Live session, through the real agent and a real server, come out as they say.

The collected files are read here by NumPy and by the vendor's own library, independently of the agent's reader.
They hold no whole project (docs/agent.md tells what each gives), so one is written in the same shapes besides.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cryosparc.dataset import Dataset

from preprocessing.models import ClassAverage, Coordinates, Micrograph, ProcessingRun
from sessions_app.models import SessionSummary
from tests.agent import cryosparc_project as project
from tests.agent import test_cryosparc_live as live_session
from tests.agent.cryosparc_server import EMAIL, PASSWORD, LiveServer
from tests.factories import SessionFactory, make_token

DATA = Path(__file__).parents[3] / "shared" / "data" / "cryosparc"
T20S = DATA / "cryosparc-tools-t20s-fixture"
J209 = DATA / "t20s-J209-job-v2.15"
EMPTY = DATA / "cryosparc-tools-4k-dataset"

pytestmark = pytest.mark.django_db(transaction=True)
collected = pytest.mark.skipif(not DATA.is_dir(), reason="no shared/data/cryosparc beside the project")


@pytest.fixture
def session():
    return SessionFactory()


@pytest.fixture
def post_once(live_server, session):
    """Run `emhub-agent PROGRAM PLACE --once` and answer what it printed, by kind."""
    _, key = make_token(session.microscope)

    def run(place, program="cryosparc", chosen=(), **environment):
        command = [sys.executable, "-m", "emhub_agent", program, str(place), "--url", live_server.url]
        command += ["--session", session.name, "--once"]
        for value in chosen:
            command += ["--set", value]
        done = subprocess.run(
            command,
            env={**os.environ, "EMHUB_TOKEN": key, "no_proxy": "*", **environment},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert PASSWORD not in done.stdout + done.stderr
        return dict(line.split(":", 1) for line in done.stdout.splitlines() if ":" in line)

    return run


@pytest.fixture
def told(api, session):
    def fields():
        answer = api(microscopes=[session.microscope]).get(f"/api/v1/sessions/{session.name}/summary/")
        assert answer.status_code == 200
        (run,) = answer.json()["runs"]
        return run["fields"]

    return fields


def assert_as_in_file(found: dict, values: np.ndarray):
    values = np.asarray(values, dtype=np.float64)
    assert found["n"] == len(values)
    assert found["min"] == pytest.approx(values.min(), rel=1e-9)
    assert found["median"] == pytest.approx(np.median(values), rel=1e-9)
    assert found["max"] == pytest.approx(values.max(), rel=1e-9)


def stem(path: str, *endings: str) -> str:
    """What is left of the movie's name without CryoSPARC's uid and words, cut off by hand."""
    name = path.rsplit("/", 1)[-1].split("_", 1)[1]
    for ending in endings:
        assert name.endswith(ending)
        name = name[: -len(ending)]
    return name


def points() -> dict[str, np.ndarray]:
    return {
        row.micrograph.exposure.identity: np.frombuffer(bytes(row.points), "<f4").reshape(-1, 2)
        for row in Coordinates.objects.select_related("micrograph__exposure")
    }


@collected
@pytest.mark.parametrize("binary", ["numpy", "csdat"])
def test_exported_movies_and_particles_of_t20s(post_once, told, session, tmp_path, binary):
    """The same rows in both binary formats, the second read here by the vendor's library."""
    prefix = "compressed_format_" if binary == "csdat" else ""
    for name in ("J1_imported_movies", "J30_extracted_particles", "J30_passthrough_particles"):
        shutil.copy(T20S / f"{prefix}{name}.cs", tmp_path)
    if binary == "csdat":
        movies, particles = (
            Dataset.load(tmp_path / f"{prefix}{name}.cs")
            for name in ("J1_imported_movies", "J30_passthrough_particles")
        )
        paths = list(movies["movie_blob/path"])
        micrographs = list(particles["location/micrograph_path"])
    else:
        movies, particles = (
            np.load(tmp_path / f"{name}.cs") for name in ("J1_imported_movies", "J30_passthrough_particles")
        )
        paths = [path.decode() for path in movies["movie_blob/path"]]
        micrographs = [path.decode() for path in particles["location/micrograph_path"]]
    said = post_once(tmp_path)
    assert said["micrographs"].strip() == f"{len(paths)} created, 0 updated, 0 unchanged"

    names = {stem(path) for path in paths}
    assert set(Micrograph.objects.values_list("name", flat=True)) == names
    per_movie: dict[str, list] = {}
    for number, path in enumerate(micrographs):
        movie = stem(path, "_patch_aligned_doseweighted.mrc") + ".tif"
        assert movie in names
        rows, columns = particles["location/micrograph_shape"][number]
        x = np.float64(particles["location/center_x_frac"][number]) * columns
        y = np.float64(particles["location/center_y_frac"][number]) * rows
        per_movie.setdefault(movie, []).append([x, y])
    counts = {name: len(found) for name, found in per_movie.items()}
    assert dict(Micrograph.objects.exclude(particles=None).values_list("name", "particles")) == counts
    assert_as_in_file(told()["particles"], np.array(list(counts.values())))
    found = points()
    for movie, places in per_movie.items():
        there = found[movie[: -len(".tif")].replace(".", "_")]
        assert there[there[:, 0].argsort()] == pytest.approx(np.array(sorted(places)), abs=0.01)
    run = ProcessingRun.objects.get()
    assert run.pixel_size == pytest.approx(float(movies["movie_blob/psize_A"][0]), rel=1e-6)
    summary = SessionSummary.objects.get()
    assert (summary.exposures, summary.micrographs, summary.particles) == (20, 20, 10)
    assert post_once(tmp_path)["micrographs"].strip() == "0 created, 0 updated, 20 unchanged"


@collected
def test_the_folder_of_both_formats_counts_nothing_twice(post_once):
    post_once(T20S)
    summary = SessionSummary.objects.get()
    assert (summary.exposures, summary.micrographs, summary.particles) == (20, 20, 10)


@collected
@pytest.mark.parametrize("place", [J209, J209 / "J209"], ids=["project", "job"])
def test_a_refinement_of_version_2_as_far_as_it_goes(post_once, told, session, place):
    """Of its results the particles of the first iteration are there, without their places."""
    post_once(place)
    particles = np.load(J209 / "J209" / "cryosparc_P9_J209_000_particles.cs")
    paths, counts = np.unique(particles["blob/path"], return_counts=True)
    expected = {
        stem(path.decode(), "_particles.mrc", "_patch_aligned_doseweighted"): count
        for path, count in zip(paths, counts.tolist(), strict=True)
    }
    assert dict(Micrograph.objects.values_list("name", "particles")) == expected
    assert_as_in_file(told()["particles"], counts)
    summary = SessionSummary.objects.get()
    assert (summary.micrographs, summary.particles) == (len(paths), len(particles))
    run = ProcessingRun.objects.get()
    assert (run.key, run.software, run.version, run.status) == ("P9/J209", "CryoSPARC", "2.15.0", "finished")
    assert [event.text for event in run.events.all()] == [
        "J209: the particles of version 0 are read; those of 5 are not there."
    ]
    before = list(Micrograph.objects.order_by("pk").values())
    post_once(place)
    assert list(Micrograph.objects.order_by("pk").values()) == before


@collected
def test_a_table_without_rows(post_once):
    assert post_once(EMPTY)["micrographs"].strip() == "0 created, 0 updated, 0 unchanged"


@pytest.mark.parametrize("version", [4, 5])
def test_a_project_of_jobs(post_once, told, tmp_path, version):
    count, classes = 8, 4
    root = project.write(
        tmp_path / "CS-t20s", project.files(count=count, version=version, packed=version == 5)
    )
    said = post_once(root)
    assert said["micrographs"].strip() == f"{count} created, 0 updated, 0 unchanged"
    # Thumbnails and spectra, and of the classes those that are not empty.
    assert said["images"].strip() == f"{2 * count + classes - 1} created, 0 updated, 0 unchanged"
    numbers = np.arange(1, count + 1)
    measured = project.defocus(numbers)
    found = told()
    assert_as_in_file(found["defocus_u"], measured["df1_A"])
    assert_as_in_file(found["defocus_v"], measured["df2_A"])
    assert_as_in_file(found["ctf_resolution"], measured["ctf_fit_to_A"])
    assert_as_in_file(found["ctf_score"], measured["cross_corr_ctffind4"])
    assert_as_in_file(found["ice_thickness"], measured["ice"])
    steps = [
        np.linalg.norm(np.diff(project.trajectory(number)[0].astype(float), axis=0), axis=1) * project.PIXEL
        for number in numbers
    ]
    assert_as_in_file(found["motion_total"], [each.sum() for each in steps])
    assert_as_in_file(found["motion_early"], [each[:1].sum() for each in steps])
    assert_as_in_file(found["motion_late"], [each[1:].sum() for each in steps])
    left = project.particles(count, 5, 1)
    assert_as_in_file(found["particles"], np.bincount(left["number"], minlength=count + 1)[1:])
    assert sum(len(places) for places in points().values()) == len(left["uid"])
    assert list(Micrograph.objects.filter(rejected=True).values_list("name", flat=True)) == [project.movie(2)]
    rows = ClassAverage.objects.order_by("number")
    assert [row.particles for row in rows] == np.bincount(
        project.class_of(left, classes, 1), minlength=classes
    ).tolist()
    assert [row.number for row in rows if row.image] == [1, 2, 3]
    again = post_once(root)
    assert again["micrographs"].strip() == f"0 created, 0 updated, {count} unchanged"
    assert again["images"].startswith(" ")
    assert " 0 created" in again["images"]


def test_a_live_session(post_once, told):
    live = LiveServer().start()
    try:
        live.add_session("S1", title="lysozyme", status="completed")
        for number in range(1, 6):
            live_session.finish(live, number)
        live.put("S1", 5, threshold_reject=True)
        chosen = ["project=P3", "session=S1"]
        environment = {"CRYOSPARC_EMAIL": EMAIL, "CRYOSPARC_PASSWORD": PASSWORD}
        said = post_once(live.url, "cryosparc-live", chosen, **environment)
        assert said["micrographs"].strip() == "5 created, 0 updated, 0 unchanged"
        assert said["images"].strip() == "5 created, 0 updated, 0 unchanged"
        documents = [exposure for _, exposure in sorted(live.exposures.items())]
        found = told()
        pixel = live_session.PIXEL
        assert_as_in_file(
            found["motion_total"], [row.attributes.total_motion_dist * pixel for row in documents]
        )
        assert_as_in_file(found["defocus_u"], [row.groups.exposure.ctf.df1_A for row in documents])
        assert_as_in_file(found["ctf_resolution"], [row.attributes.ctf_fit_to_A for row in documents])
        assert_as_in_file(found["ice_thickness"], [row.attributes.ice_thickness_rel for row in documents])
        assert_as_in_file(found["particles"], [row.attributes.total_blob_picks for row in documents])
        assert [len(places) for places in points().values()] == [3] * 5
        assert list(Micrograph.objects.filter(rejected=True).values_list("name", flat=True)) == [
            live_session.name(5)
        ]
        run = ProcessingRun.objects.get()
        assert (run.key, run.software, run.version, run.status) == (
            "P3/S1",
            "CryoSPARC Live",
            "5.0.3",
            "finished",
        )
        again = post_once(live.url, "cryosparc-live", chosen, **environment)
        assert again["micrographs"].strip() == "0 created, 0 updated, 5 unchanged"
    finally:
        live.stop()
