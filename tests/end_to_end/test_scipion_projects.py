"""Real Scipion set files, through the real agent and a real server, come out as sqlite3 reads them.

The column numbers below were looked up by hand in each file's own `Classes` table: the agent has to find them
itself. Motion is compared with RELION's own numbers for the same movies.
"""

import csv
import json
import math
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from gemmi import cif

from preprocessing.models import ClassAverage, Coordinates, Exposure, Micrograph, ProcessingRun
from sessions_app.models import SessionSummary
from tests.agent.scipion_project import around
from tests.factories import SessionFactory, make_token

DATA = Path(__file__).parents[3] / "shared" / "data"
SETS = DATA / "scipion" / "pwem-generated-relion5-values"
REAL = DATA / "scipion" / "3dem-em-testdata-scipion3"

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(not SETS.is_dir(), reason="no shared/data/scipion beside the project"),
]

IMPORT, MOTION, CTF, PICK, EXTRACT, CLASS2D = 2, 64, 120, 181, 240, 311
MOTION_FOLDER = "Runs/000064_ProtRelionMotioncor"
PROTOCOLS = {
    IMPORT: (
        "ProtImportMovies",
        [("outputMovies", "SetOfMovies", "Runs/000002_ProtImportMovies/movies.sqlite", None)],
        {},
        {},
    ),
    MOTION: (
        "ProtRelionMotioncor",
        [
            ("outputMovies", "SetOfMovies", f"{MOTION_FOLDER}/movies.sqlite", None),
            ("outputMicrographs", "SetOfMicrographs", f"{MOTION_FOLDER}/micrographs.sqlite", None),
        ],
        {"inputMovies": (IMPORT, "outputMovies")},
        {"binFactor": 1.0},
    ),
    CTF: (
        "CistemProtCTFFind",
        [("outputCTF", "SetOfCTF", "Runs/000120_CistemProtCTFFind/ctfs.sqlite", MOTION)],
        {"inputMicrographs": (MOTION, "outputMicrographs")},
        {"windowSize": 512},
    ),
    PICK: (
        "ProtRelionAutopickLoG",
        [
            (
                "outputCoordinates",
                "SetOfCoordinates",
                "Runs/000181_ProtRelionAutopickLoG/coordinates.sqlite",
                MOTION,
            )
        ],
        {"inputMicrographs": (MOTION, "outputMicrographs")},
        {"maxDiameter": 200},
    ),
    EXTRACT: (
        "ProtRelionExtractParticles",
        [
            (
                "outputParticles",
                "SetOfParticles",
                "Runs/000240_ProtRelionExtractParticles/particles.sqlite",
                None,
            )
        ],
        {"inputCoordinates": (PICK, "outputCoordinates"), "ctfRelations": (CTF, "outputCTF")},
        {},
    ),
    CLASS2D: (
        "ProtRelionClassify2D",
        [("outputClasses", "SetOfClasses2D", "Runs/000311_ProtRelionClassify2D/classes2D.sqlite", None)],
        {"inputParticles": (EXTRACT, "outputParticles")},
        {},
    ),
}


def rows(path: Path, columns: str, where: str = "") -> list[tuple]:
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
        return connection.execute(f"SELECT {columns} FROM Objects {where} ORDER BY id").fetchall()


def post_once(live_server, session, program: str, place: Path, *more: str) -> list[str]:
    """Run `emhub-agent PROGRAM PLACE --once` and answer the lines it printed."""
    _, key = make_token(session.microscope)
    command = [sys.executable, "-m", "emhub_agent", program, place, "--url", live_server.url, *more]
    done = subprocess.run(
        [*command, "--session", session.name, "--once"],
        env={**os.environ, "EMHUB_TOKEN": key, "no_proxy": "*"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


@pytest.fixture
def session():
    return SessionFactory()


@pytest.fixture
def runs(api, session):
    """The summary call's runs, as they are now."""

    def ask() -> list[dict]:
        answer = api(microscopes=[session.microscope]).get(f"/api/v1/sessions/{session.name}/summary/")
        assert answer.status_code == 200
        return answer.json()["runs"]

    return ask


def assert_as_in_file(told: dict, values) -> None:
    values = np.array(values, dtype=float)
    assert told["n"] == len(values)
    assert told["min"] == pytest.approx(values.min(), rel=1e-9)
    assert told["p10"] == pytest.approx(np.percentile(values, 10), rel=1e-9)
    assert told["median"] == pytest.approx(np.median(values), rel=1e-9)
    assert told["p90"] == pytest.approx(np.percentile(values, 90), rel=1e-9)
    assert told["max"] == pytest.approx(values.max(), rel=1e-9)


def test_sets_that_scipions_library_wrote(live_server, session, runs, tmp_path):
    project = tmp_path / "scipion"
    shutil.copytree(SETS / "Runs", project / "Runs")
    around(project, PROTOCOLS)
    assert post_once(live_server, session, "scipion", project)[:2] == [
        "micrographs: 24 created, 0 updated, 0 unchanged",
        "classes:     50 created, 0 updated, 0 unchanged",
    ]
    [run] = runs()
    told = run["fields"]

    ctfs = rows(SETS / "Runs/000120_CistemProtCTFFind/ctfs.sqlite", "c01, c02, c03, c19, c20")
    for field, values in zip(
        ("defocus_u", "defocus_v", "defocus_angle", "ctf_resolution", "ctf_score"),
        zip(*ctfs, strict=True),
        strict=True,
    ):
        if field in told:
            assert_as_in_file(told[field], values)
    assert [row.defocus_angle for row in Micrograph.objects.order_by("pk")] == [row[2] for row in ctfs]

    steps = []
    for x, y in rows(SETS / MOTION_FOLDER / "movies.sqlite", "c16, c17"):
        x, y = ([float(value) for value in text.split(",")] for text in (x, y))
        steps.append([math.dist(*pair) for pair in zip(zip(x[1:], y[1:]), zip(x, y))])  # noqa: B905
    assert_as_in_file(told["motion_total"], [0.885 * sum(row) for row in steps])
    # Three frames of 1.277 e/A2 are within 4 e/A2: two steps.
    assert_as_in_file(told["motion_early"], [0.885 * sum(row[:2]) for row in steps])
    assert_as_in_file(told["motion_late"], [0.885 * sum(row[2:]) for row in steps])
    star = DATA / "relion/sppractice-relion5-tutorial/MotionCorr/job002/corrected_micrographs.star"
    if star.is_file():
        table = cif.read(str(star)).find_block("micrographs")
        for field, name in (("total", "Total"), ("early", "Early"), ("late", "Late")):
            values = [0.885 * float(value) for value in table.find_values(f"_rlnAccumMotion{name}")]
            assert told[f"motion_{field}"]["median"] == pytest.approx(np.median(values), abs=1e-5)

    picked = dict.fromkeys((name for (name,) in rows(SETS / MOTION_FOLDER / "micrographs.sqlite", "c12")), 0)
    places = {name: [] for name in picked}
    coordinates = SETS / "Runs/000181_ProtRelionAutopickLoG/coordinates.sqlite"
    for x, y, name in rows(coordinates, "c01, c02, c04"):
        picked[name] += 1
        places[name].append((x, y))
    assert_as_in_file(told["particles"], list(picked.values()))
    found = {
        row.micrograph.name: list(zip(*[iter(np.frombuffer(row.points, dtype="<f4"))] * 2, strict=True))
        for row in Coordinates.objects.select_related("micrograph")
    }
    assert {name: points for name, points in found.items() if points} == {
        name: points for name, points in places.items() if points
    }
    assert sorted(Micrograph.objects.values_list("name", flat=True)) == sorted(picked)

    classes = ClassAverage.objects.order_by("number")
    sizes = [size for (size,) in rows(SETS / "Runs/000311_ProtRelionClassify2D/classes2D.sqlite", "c01")]
    assert [row.particles for row in classes] == sizes
    assert {(row.job, row.iteration) for row in classes} == {("000311_ProtRelionClassify2D", 25)}
    summary = SessionSummary.objects.get()
    assert (summary.exposures, summary.micrographs, summary.ctf_estimated) == (24, 24, 24)
    assert summary.particles == sum(picked.values()) == len(rows(coordinates, "id"))

    said = post_once(live_server, session, "scipion", project)
    assert said[0] == "micrographs: 0 created, 0 updated, 24 unchanged"
    assert said[1] == "classes:     0 created, 0 updated, 50 unchanged"


def test_the_movies_of_a_real_session(live_server, session, tmp_path):
    """3,775 movies still being imported, with the grid square folded into each name."""
    place = tmp_path / "p/Runs/000002_ProtImportMovies"
    place.mkdir(parents=True)
    shutil.copy(REAL / "movies.sqlite", place)
    around(tmp_path / "p", {IMPORT: PROTOCOLS[IMPORT]})
    said = post_once(live_server, session, "scipion", tmp_path / "p")
    names = [name for (name,) in rows(REAL / "movies.sqlite", "c12")]
    assert said[0] == f"micrographs: {len(names)} created, 0 updated, 0 unchanged"
    assert sorted(Micrograph.objects.values_list("name", flat=True)) == sorted(names)
    squares = {name.split("_")[1] for name in names}
    assert set(Exposure.objects.values_list("grid_square", flat=True)) == squares
    holes = {name.split("FoilHole_")[1].split("_")[0] for name in names}
    assert set(Exposure.objects.values_list("foil_hole", flat=True)) == holes
    run = ProcessingRun.objects.get()
    assert (run.pixel_size, run.width, run.height) == (1.044, 4092, 5760)
    assert post_once(live_server, session, "scipion", tmp_path / "p")[0] == (
        f"micrographs: 0 created, 0 updated, {len(names)} unchanged"
    )


def test_a_real_project_whose_sets_are_elsewhere(live_server, session, tmp_path):
    """47 protocols: of each of the two branches what the project itself says."""
    shutil.copy(REAL / "project.sqlite", tmp_path)
    said = post_once(live_server, session, "scipion", tmp_path, "--key", "kcnq1")
    assert said[0] == "micrographs: 0 created, 0 updated, 0 unchanged"
    first, second = ProcessingRun.objects.order_by("pk")
    assert (first.key, second.key) == ("kcnq1/000002_ProtImportMovies", "kcnq1/000510_ProtMotionCorr")
    with closing(sqlite3.connect(REAL / "project.sqlite")) as connection:
        asked = "SELECT value FROM Objects WHERE parent_id = ? AND name = ?"

        def value(parent: int, name: str) -> str:
            return connection.execute(asked, (parent, f"{parent}.{name}")).fetchone()[0]

        for run, ctf in ((first, 195), (second, 1823)):
            assert run.pixel_size == float(value(2, "samplingRate"))
            assert run.parameters["import.voltage"] == float(value(2, "voltage"))
            assert run.parameters["ctf.maxDefocus"] == float(value(ctf, "maxDefocus"))
            assert run.parameters["motion.patchX"] == int(value(88, "patchX"))
            assert run.status == "finished"


def test_a_table_in_other_units(live_server, session, runs, tmp_path):
    """The same CTFs as a program nobody has heard of would write them: µm, other names, JSON lines as well."""
    ctfs = rows(SETS / "Runs/000120_CistemProtCTFFind/ctfs.sqlite", "c18, c01, c02, c19")
    with open(tmp_path / "ctf.csv", "w", newline="") as file:
        writer = csv.writer(file, delimiter=";")
        writer.writerow(["Movie", "dU (um)", "dV (um)", "fit"])
        writer.writerows([name, repr(u / 10000), repr(v / 10000), repr(fit)] for name, u, v, fit in ctfs)
    with open(tmp_path / "ctf.jsonl", "w") as file:
        for name, u, v, fit in ctfs:
            line = {"Movie": name, "dU (um)": u / 10000, "dV (um)": v / 10000, "fit": fit}
            file.write(json.dumps(line) + "\n")
    columns = {"defocus_u": "dU (um)", "defocus_v": "dV (um)", "ctf_resolution": "fit"}
    for name in ("ctf.csv", "ctf.jsonl"):
        said = post_once(
            live_server,
            session,
            "table",
            tmp_path / name,
            *("--key", name),
            *("--set", "name=Movie"),
            *("--set", f"columns={json.dumps(columns)}"),
            *("--set", 'scale={"defocus_u": 10000, "defocus_v": 10000}'),
        )
        assert said[0] == "micrographs: 24 created, 0 updated, 0 unchanged"
    told = runs()
    assert len(told) == 2
    for run in told:
        for place, field in enumerate(("defocus_u", "defocus_v", "ctf_resolution"), start=1):
            assert_as_in_file(run["fields"][field], [row[place] for row in ctfs])
    assert Exposure.objects.count() == 24  # both runs measured the same exposures
