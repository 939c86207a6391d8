"""Real RELION projects, through the real agent and a real server, come out as their STAR files say.

The files are read here by gemmi and numpy, independently of the agent's own reader.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from gemmi import cif

from preprocessing.models import ClassAverage, Coordinates, Micrograph
from sessions_app.models import SessionSummary
from tests.factories import SessionFactory, make_token

DATA = Path(__file__).parents[3] / "shared" / "data" / "relion"
RELION5 = DATA / "sppractice-relion5-tutorial"
RELION31 = DATA / "3dem-em-testdata-relion31"

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(not DATA.is_dir(), reason="no shared/data/relion beside the project"),
]


def column(path: Path, block: str, name: str) -> np.ndarray:
    document = cif.read(str(path))
    # Files of picks have one block without a name.
    table = document.find_block(block) if block else document.sole_block()
    return np.array([float(value) for value in table.find_values(f"_rln{name}")])


def post_once(live_server, session, project: Path) -> str:
    """Run `emhub-agent relion PROJECT --once` and answer what it printed."""
    _, key = make_token(session.microscope)
    command = [sys.executable, "-m", "emhub_agent", "relion", project, "--url", live_server.url]
    done = subprocess.run(
        [*command, "--session", session.name, "--once"],
        env={**os.environ, "EMHUB_TOKEN": key, "no_proxy": "*"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def session():
    return SessionFactory()


def fields(api, session) -> dict:
    """The summary call's percentiles of the session's only run."""
    answer = api(microscopes=[session.microscope]).get(f"/api/v1/sessions/{session.name}/summary/")
    assert answer.status_code == 200
    (run,) = answer.json()["runs"]
    return run["fields"]


def assert_as_in_file(told: dict, values: np.ndarray):
    assert told["n"] == len(values)
    assert told["min"] == pytest.approx(values.min(), rel=1e-9)
    assert told["median"] == pytest.approx(np.median(values), rel=1e-9)
    assert told["max"] == pytest.approx(values.max(), rel=1e-9)


def rows_as_told() -> list:
    return list(Micrograph.objects.order_by("pk").values())


def test_a_relion_5_project(live_server, api, session):
    post_once(live_server, session, RELION5)

    motion = RELION5 / "MotionCorr/job002/corrected_micrographs.star"
    ctf = RELION5 / "CtfFind/job005/micrographs_ctf.star"
    # RELION writes motion in pixels of the movie; EMhub keeps Å.
    (pixel,) = set(column(motion, "optics", "MicrographOriginalPixelSize"))
    told = fields(api, session)
    assert_as_in_file(told["motion_total"], column(motion, "micrographs", "AccumMotionTotal") * pixel)
    assert_as_in_file(told["motion_early"], column(motion, "micrographs", "AccumMotionEarly") * pixel)
    assert_as_in_file(told["motion_late"], column(motion, "micrographs", "AccumMotionLate") * pixel)
    assert_as_in_file(told["defocus_u"], column(ctf, "micrographs", "DefocusU"))
    assert_as_in_file(told["defocus_v"], column(ctf, "micrographs", "DefocusV"))
    assert_as_in_file(told["ctf_resolution"], column(ctf, "micrographs", "CtfMaxResolution"))
    assert_as_in_file(told["ctf_score"], column(ctf, "micrographs", "CtfFigureOfMerit"))
    assert_as_in_file(told["ice_thickness"], column(ctf, "micrographs", "CtfIceRingDensity"))

    picks = [
        len(column(path, "", "CoordinateX"))
        for path in sorted((RELION5 / "AutoPick/job008/Movies").glob("*_autopick.star"))
    ]
    assert_as_in_file(told["particles"], np.array(picks))
    assert sum(len(row.points) // 8 for row in Coordinates.objects.all()) == sum(picks)

    movies = cif.read(str(RELION5 / "Import/job001/movies.star")).find_block("movies")
    names = list(movies.find_values("_rlnMicrographMovieName"))
    assert sorted(Micrograph.objects.values_list("name", flat=True)) == sorted(names)
    summary = SessionSummary.objects.get()
    assert (summary.exposures, summary.micrographs) == (len(names), len(names))
    assert (summary.motion_corrected, summary.ctf_estimated) == (len(names), len(names))
    assert (summary.picked, summary.particles) == (len(picks), sum(picks))

    model = RELION5 / "Class2D/job010/run_it025_model.star"
    classes = ClassAverage.objects.filter(job__contains="job010", iteration=25).order_by("number")
    # RELION writes inf where a class is empty; an unknown value is null in EMhub.
    estimates = column(model, "model_classes", "EstimatedResolution")
    assert [row.resolution for row in classes] == [
        pytest.approx(value) if np.isfinite(value) else None for value in estimates
    ]
    numbers = column(RELION5 / "Class2D/job010/run_it025_data.star", "particles", "ClassNumber").astype(int)
    assert [row.particles for row in classes] == list(np.bincount(numbers, minlength=len(classes) + 1)[1:])
    assert [row.number for row in classes if row.particles and not row.image] == []

    before = rows_as_told()
    said = post_once(live_server, session, RELION5)
    assert rows_as_told() == before
    counts = {line.split(":")[0]: line.split(":")[1].strip() for line in said.splitlines()[:3]}
    assert counts["micrographs"] == f"0 created, 0 updated, {len(names)} unchanged"
    assert counts["classes"] == f"0 created, 0 updated, {len(classes)} unchanged"
    assert counts["images"].startswith("0 created, 0 updated, ")


def test_relion_31_files_as_far_as_they_go(live_server, api, session, tmp_path):
    """The files lie loose: put where their own pipeline file says they were."""
    project = tmp_path / "relion31"
    for source, target in {
        "default_pipeline.star": "default_pipeline.star",
        "corrected_micrographs.star": "MotionCorr/job002/corrected_micrographs.star",
        "micrographs_ctf.star": "CtfFind/job003/micrographs_ctf.star",
        "autopick.star": "AutoPick/job004/autopick.star",
        "20170629_00049_frameImage_autopick.star": "AutoPick/job004/Movies/20170629_00049_frameImage_autopick.star",
        "run_it025_data.star": "Class2D/job006/run_it025_data.star",
        "run_it025_model.star": "Class2D/job006/run_it025_model.star",
        "run_it025_optimiser.star": "Class2D/job006/run_it025_optimiser.star",
        "run_it025_sampling.star": "Class2D/job006/run_it025_sampling.star",
    }.items():
        (project / target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(RELION31 / source, project / target)
    (project / "Class2D/job006/RELION_JOB_EXIT_SUCCESS").touch()
    post_once(live_server, session, project)

    motion = project / "MotionCorr/job002/corrected_micrographs.star"
    ctf = project / "CtfFind/job003/micrographs_ctf.star"
    (pixel,) = set(column(motion, "optics", "MicrographOriginalPixelSize"))
    told = fields(api, session)
    assert_as_in_file(told["motion_total"], column(motion, "micrographs", "AccumMotionTotal") * pixel)
    assert_as_in_file(told["defocus_u"], column(ctf, "micrographs", "DefocusU"))
    assert_as_in_file(told["ctf_resolution"], column(ctf, "micrographs", "CtfMaxResolution"))
    picks = column(
        project / "AutoPick/job004/Movies/20170629_00049_frameImage_autopick.star", "", "CoordinateX"
    )
    assert_as_in_file(told["particles"], np.array([len(picks)]))
    model = column(project / "Class2D/job006/run_it025_model.star", "model_classes", "EstimatedResolution")
    classes = ClassAverage.objects.order_by("number")
    assert [row.resolution for row in classes] == pytest.approx(list(model))
    numbers = column(project / "Class2D/job006/run_it025_data.star", "particles", "ClassNumber").astype(int)
    assert [row.particles for row in classes] == list(np.bincount(numbers, minlength=len(classes) + 1)[1:])

    before = rows_as_told()
    post_once(live_server, session, project)
    assert rows_as_told() == before


def test_epu_names_of_a_relion_project(live_server, api, session, tmp_path):
    """An excerpt of a real project whose movies keep EPU's folders: square and hole come from their names."""
    source = DATA / "emwrap-epu-gridsquare-excerpt" / "micrographs_ctf.star"
    project = tmp_path / "relion"
    (project / "CtfFind/job005").mkdir(parents=True)
    shutil.copy(source, project / "CtfFind/job005/micrographs_ctf.star")
    (project / "CtfFind/job005/RELION_JOB_EXIT_SUCCESS").touch()
    (project / "default_pipeline.star").write_text(
        "data_pipeline_processes\n\nloop_\n_rlnPipeLineProcessName #1\n_rlnPipeLineProcessAlias #2\n"
        "_rlnPipeLineProcessTypeLabel #3\n_rlnPipeLineProcessStatusLabel #4\n"
        "CtfFind/job005/ None relion.ctffind.ctffind4 Succeeded\n\ndata_pipeline_output_edges\n"
    )
    post_once(live_server, session, project)
    names = list(cif.read(str(source)).find_block("micrographs").find_values("_rlnMicrographName"))
    told = fields(api, session)
    assert_as_in_file(told["defocus_u"], column(source, "micrographs", "DefocusU"))
    assert_as_in_file(told["defocus_v"], column(source, "micrographs", "DefocusV"))
    assert_as_in_file(told["ctf_resolution"], column(source, "micrographs", "CtfMaxResolution"))
    squares = {Path(name).parts[-3].split("_")[1] for name in names}
    holes = {Path(name).name.split("_")[1] for name in names}
    exposures = session.exposures.all()
    assert len(exposures) == len(names)
    assert {exposure.grid_square for exposure in exposures} == squares
    assert {exposure.foil_hole for exposure in exposures} == holes
