"""The growing RELION project, read with a STAR reader that knows nothing of the program that wrote it."""

import errno
import json
import math
import os
import re
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import gemmi
import mrcfile
import numpy as np
import pytest
from emhub_agent import movies
from emhub_agent.readers.acquisition import AcquisitionReader
from emhub_agent.readers.relion import RelionReader

from demo import pipeline, star
from demo.project import NotADemoProject, Project

ROOT = Path(__file__).parents[2]


def table(path: Path, name: str) -> dict[str, list[str]]:
    """A table of a STAR file as lists by column, without the ``_rln``."""
    for block in gemmi.cif.read(str(path)):
        if block.name.strip() == name:  # an unnamed table is called by a space here
            columns = {}
            for item in block:
                if item.loop is not None:
                    for k, tag in enumerate(item.loop.tags):
                        column = [item.loop[row, k] for row in range(item.loop.length())]
                        columns[tag.removeprefix("_rln")] = [gemmi.cif.as_string(value) for value in column]
                elif item.pair is not None:
                    columns[item.pair[0].removeprefix("_rln")] = [gemmi.cif.as_string(item.pair[1])]
            return columns
    raise AssertionError(f"{path} has no table data_{name}")


def floats(values: list[str]) -> np.ndarray:
    return np.array([float(value) for value in values])


@pytest.fixture(scope="module")
def filled(tmp_path_factory) -> Path:
    """A project as it is when a session has been running for a while."""
    folder = tmp_path_factory.mktemp("relion")
    project = Project(folder, seed=4)
    pipeline.fill(project, 18, interval=6)
    project.close()
    return folder


@pytest.fixture
def project(tmp_path):
    project = Project(tmp_path / "relion", seed=2, keep=5)
    yield project
    project.close()


def test_each_step_stays_behind_the_one_before(filled):
    assert len(table(filled / "Import/job001/movies.star", "movies")["MicrographMovieName"]) == 18
    assert (
        len(table(filled / "MotionCorr/job002/corrected_micrographs.star", "micrographs")["MicrographName"])
        == 17
    )
    assert len(table(filled / "CtfFind/job003/micrographs_ctf.star", "micrographs")["MicrographName"]) == 16
    assert len(table(filled / "AutoPick/job004/autopick.star", "coordinate_files")["MicrographName"]) == 15


def test_pipeline_names_every_job_and_its_files(filled):
    pipeline_star = filled / "default_pipeline.star"
    processes = table(pipeline_star, "pipeline_processes")
    status = dict(
        zip(processes["PipeLineProcessTypeLabel"], processes["PipeLineProcessStatusLabel"], strict=True)
    )
    assert status == {
        "relion.import.movies": "Running",
        "relion.motioncorr.own": "Running",
        "relion.ctffind.ctffind4": "Running",
        "relion.autopick.log": "Running",
        "relion.extract": "Succeeded",
        "relion.class2d": "Running",
    }
    for job in processes["PipeLineProcessName"]:
        assert (filled / job / "job.star").exists()
        assert table(filled / job / "job.star", "job")["JobTypeLabel"][0] in status
        assert "which relion_" in (filled / job / "note.txt").read_text() or job.startswith("Import")
    nodes = table(pipeline_star, "pipeline_nodes")["PipeLineNodeName"]
    running = [node for node in nodes if not node.startswith("Class2D")]
    assert all((filled / node).exists() for node in running)
    edges = table(pipeline_star, "pipeline_input_edges")
    assert set(edges["PipeLineEdgeFromNode"]) <= set(nodes)
    assert set(edges["PipeLineEdgeProcess"]) <= set(processes["PipeLineProcessName"])


def test_movie_names_are_those_of_epu_in_their_grid_squares(filled):
    pattern = re.compile(
        r"Movies/GridSquare_\d{8}/Data/FoilHole_\d{8}_Data_\d{8}_\d+_\d{8}_\d{6}_fractions\.tiff$"
    )
    movies = table(filled / "Import/job001/movies.star", "movies")["MicrographMovieName"]
    assert all(pattern.match(movie) for movie in movies)
    assert len(set(movies)) == len(movies)


def test_motion_totals_are_path_lengths_in_movie_pixels(filled):
    corrected = filled / "MotionCorr/job002/corrected_micrographs.star"
    rows = table(corrected, "micrographs")
    movies = table(filled / "Import/job001/movies.star", "movies")["MicrographMovieName"]
    for k, metadata in enumerate(rows["MicrographMetadata"]):
        general = table(filled / metadata, "general")
        assert general["MicrographMovieName"] == [movies[k]]
        shift = table(filled / metadata, "global_shift")
        steps = np.hypot(
            np.diff(floats(shift["MicrographShiftX"])), np.diff(floats(shift["MicrographShiftY"]))
        )
        dose = floats(shift["MicrographFrameNumber"])[1:] * float(general["MicrographDoseRate"][0])
        assert float(rows["AccumMotionTotal"][k]) == pytest.approx(steps.sum(), abs=1e-4)
        assert float(rows["AccumMotionEarly"][k]) == pytest.approx(steps[dose <= 4].sum(), abs=1e-4)
        assert float(rows["AccumMotionLate"][k]) == pytest.approx(steps[dose > 4].sum(), abs=1e-4)


def test_images_agree_with_the_optics_table(filled):
    corrected = filled / "MotionCorr/job002/corrected_micrographs.star"
    optics, rows = table(corrected, "optics"), table(corrected, "micrographs")
    with mrcfile.open(filled / rows["MicrographName"][0]) as micrograph:
        pixel_size = float(optics["MicrographPixelSize"][0])
        assert float(micrograph.voxel_size.x) == pytest.approx(pixel_size, rel=1e-5)
        general = table(filled / rows["MicrographMetadata"][0], "general")
        whole = int(general["ImageSizeX"][0]) * float(general["MicrographOriginalPixelSize"][0])
        assert micrograph.data.shape[1] * pixel_size == pytest.approx(whole, rel=1e-3)
        assert micrograph.data.dtype == np.float16
        assert np.isfinite(micrograph.data).all()
    for fit in table(filled / "CtfFind/job003/micrographs_ctf.star", "micrographs")["CtfImage"]:
        with mrcfile.open(filled / fit.removesuffix(":mrc")) as picture:
            assert picture.data.shape == (1, 512, 512)
            assert np.isfinite(picture.data).all()


def test_ctf_values_are_plausible_and_agree_with_ctffinds_own_file(filled):
    rows = table(filled / "CtfFind/job003/micrographs_ctf.star", "micrographs")
    u, v = floats(rows["DefocusU"]), floats(rows["DefocusV"])
    assert (u >= v).all()
    assert (v > 4000).all()
    assert (u < 30000).all()
    assert floats(rows["CtfAstigmatism"]) == pytest.approx(u - v, abs=0.01)
    assert 3 < np.median(floats(rows["CtfMaxResolution"])) < 4.5
    text = (filled / rows["CtfImage"][3].replace(".ctf:mrc", ".txt")).read_text().splitlines()
    numbers = [float(item) for item in text[-1].split()]
    assert numbers[1:3] == pytest.approx([u[3], v[3]])
    assert numbers[6] == pytest.approx(float(rows["CtfMaxResolution"][3]))


def zeros(defocus: float, *, voltage: float, cs: float, contrast: float, upto: float) -> np.ndarray:
    """Frequencies (1/Å) below ``upto`` where the contrast transfer function is zero, from the formula
    pi lambda dz s² - pi/2 Cs lambda³ s⁴ + arcsin(A) = n pi, solved for s²."""
    volts = voltage * 1e3
    wavelength = 12.2643 / math.sqrt(volts + 0.97845e-6 * volts**2)
    a, b = 0.5 * math.pi * cs * 1e7 * wavelength**3, math.pi * wavelength * defocus
    found = []
    for n in range(1, 200):
        c = n * math.pi - math.asin(contrast)
        inside = b * b - 4 * a * c
        if inside < 0:
            break
        s = math.sqrt((b - math.sqrt(inside)) / (2 * a))
        if s > upto:
            break
        found.append(s)
    return np.array(found)


def ring_contrast(spectrum: np.ndarray, pixel_size: float, direction: float, zeros_at: np.ndarray) -> float:
    """Mean of the spectrum midway between neighbouring zeros over its mean at them, along ``direction``
    (degrees)."""
    size = spectrum.shape[0]
    y, x = np.mgrid[:size, :size] - size // 2
    along = np.abs(((np.degrees(np.arctan2(y, x)) - direction + 90) % 180) - 90) < 8
    s = np.hypot(x, y) / (size * pixel_size)

    def mean_near(frequencies):
        width = 0.15 * np.diff(zeros_at).min()
        return np.mean([spectrum[along & (np.abs(s - f) < width)].mean() for f in frequencies])

    return mean_near((zeros_at[1:] + zeros_at[:-1]) / 2) / mean_near(zeros_at[1:])


@pytest.mark.parametrize("index", [0, 4, 7, 11])
def test_thon_rings_are_where_the_formula_puts_them(filled, index):
    fits = table(filled / "CtfFind/job003/micrographs_ctf.star", "micrographs")
    optics = table(filled / "CtfFind/job003/micrographs_ctf.star", "optics")
    spectra = table(filled / "MotionCorr/job002/corrected_micrographs.star", "micrographs")[
        "CtfPowerSpectrum"
    ]
    with mrcfile.open(filled / spectra[index]) as handle:
        spectrum, pixel_size = handle.data.astype(float), float(handle.voxel_size.x)
    given = {
        "voltage": float(optics["Voltage"][0]),
        "cs": float(optics["SphericalAberration"][0]),
        "contrast": float(optics["AmplitudeContrast"][0]),
        "upto": 1 / 6,
    }
    angle = float(fits["DefocusAngle"][index])
    for column, direction in (("DefocusU", angle), ("DefocusV", angle + 90)):
        defocus = float(fits[column][index])
        assert ring_contrast(spectrum, pixel_size, direction, zeros(defocus, **given)) > 1.2
        # A tenth off and the predicted zeros no longer fall on the dark rings.
        assert ring_contrast(spectrum, pixel_size, direction, zeros(1.1 * defocus, **given)) < 1.15


def test_picks_lie_on_the_micrograph_and_are_counted_in_the_summary(filled):
    picks = table(filled / "AutoPick/job004/autopick.star", "coordinate_files")
    summary = table(filled / "AutoPick/job004/summary.star", "")
    assert summary["MicrographName"] == picks["MicrographName"]
    for name, counted in zip(picks["MicrographCoordinates"], summary["GroupNrParticles"], strict=True):
        rows = table(filled / name, "")
        x, y = floats(rows["CoordinateX"]), floats(rows["CoordinateY"])
        assert len(x) == int(counted)
        assert 150 <= len(x) <= 400
        assert all(0 <= value < 1024 for value in (*x, *y))


def test_class_counts_shares_and_images_agree(filled):
    optimiser = sorted((filled / "Class2D/job006").glob("run_it*_optimiser.star"))[-1]
    general = table(optimiser, "optimiser_general")
    model = table(filled / general["ModelStarFile"][0], "model_classes")
    data = table(filled / general["ExperimentalDataStarFile"][0], "particles")
    extracted = table(filled / "Extract/job005/particles.star", "particles")
    assert data["ImageName"] == extracted["ImageName"]
    counts = np.bincount([int(number) for number in data["ClassNumber"]], minlength=21)[1:]
    assert floats(model["ClassDistribution"]) == pytest.approx(counts / counts.sum(), abs=1e-5)
    with mrcfile.open(filled / model["ReferenceImage"][0].split("@")[1]) as images:
        assert images.data.shape == (20, 64, 64)
        empty = counts == 0
        assert (images.data[empty] == 0).all()
        assert (images.data[~empty].std(axis=(1, 2)) > 0.1).all()


def test_classes_get_better_and_only_the_newest_iterations_stay(project):
    pipeline.fill(project, 16, interval=6)
    job = project.folder / "Class2D/job006"

    def best() -> float:
        model = sorted(job.glob("run_it*_model.star"))[-1]
        return floats(table(model, "model_classes")["EstimatedResolution"]).min()

    before = best()
    while project.classifying:
        project.iterate_classification()
    assert best() < before
    assert best() < 12
    assert sorted(path.name for path in job.glob("*_optimiser.star")) == [
        "run_it024_optimiser.star",
        "run_it025_optimiser.star",
    ]
    assert (job / "RELION_JOB_EXIT_SUCCESS").exists()


def test_old_images_go_and_their_rows_stay(project):
    pipeline.fill(project, 12, interval=6)
    growth = pipeline.Growth(project, limit=100)
    for _ in range(3):
        for stroke in range(4):
            growth.stroke(stroke)
    corrected = project.folder / "MotionCorr/job002/corrected_micrographs.star"
    names = table(corrected, "micrographs")["MicrographName"]
    assert len(names) == 14
    there = [(project.folder / name).exists() for name in names]
    assert there == [False] * 9 + [True] * 5
    assert len(list(project.folder.glob("CtfFind/job003/**/*.ctf"))) <= 5


def test_opened_again_it_goes_on_where_it_was(tmp_path):
    project = Project(tmp_path, seed=6)
    pipeline.fill(project, 6, interval=6)
    movies = (tmp_path / "Import/job001/movies.star").read_text()
    project.close()

    project = Project(tmp_path, seed=99)  # the folder's own seed counts
    assert (project.imported, project.corrected, project.fitted, project.picked) == (6, 5, 4, 3)
    assert project.acquisition.seed == 6
    growth = pipeline.Growth(project, limit=100)
    for stroke in range(4):
        growth.stroke(stroke)
    project.close()
    after = table(tmp_path / "Import/job001/movies.star", "movies")["MicrographMovieName"]
    assert len(after) == 7
    assert all(name in movies for name in after[:6])
    assert (tmp_path / "MotionCorr/job002/corrected_micrographs.star").read_text().count(".mrc ") == 12


def test_a_step_killed_half_way_is_done_again(tmp_path):
    project = Project(tmp_path, seed=6)
    pipeline.fill(project, 6, interval=6)
    # The next micrograph's summary line is there, its line in the list of picks is not.
    project.fit_ctf(4)
    listed = (tmp_path / "AutoPick/job004/autopick.star").read_text()
    project.pick(4)
    (tmp_path / "AutoPick/job004/autopick.star").write_text(listed)
    project.close()

    project = Project(tmp_path)
    assert project.picked == 3
    project.pick(4)
    project.close()
    summary = table(tmp_path / "AutoPick/job004/summary.star", "")["MicrographName"]
    assert len(summary) == len(set(summary)) == 4


def test_at_the_limit_every_job_succeeds(tmp_path, capsys):
    assert pipeline.main([str(tmp_path), "--start", "4", "--limit", "6", "--interval", "0.01"]) == 0
    assert "6 micrographs done" in capsys.readouterr().out
    statuses = table(tmp_path / "default_pipeline.star", "pipeline_processes")["PipeLineProcessStatusLabel"]
    assert set(statuses) == {"Succeeded"}
    assert (tmp_path / "AutoPick/job004/RELION_JOB_EXIT_SUCCESS").exists()
    # Further on, it is running again until the new limit.
    assert pipeline.main([str(tmp_path), "--start", "4", "--limit", "7", "--interval", "0.01"]) == 0
    assert len(table(tmp_path / "AutoPick/job004/autopick.star", "coordinate_files")["MicrographName"]) == 7


def test_a_folder_with_other_contents_is_left_alone(tmp_path, capsys):
    (tmp_path / "thesis.txt").write_text("precious")
    assert pipeline.main([str(tmp_path)]) == 1
    assert "not empty" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_two_processes_cannot_write_one_project(project):
    with pytest.raises(NotADemoProject, match="already writing"):
        Project(project.folder)


def test_the_same_seed_is_the_same_session(tmp_path):
    values = []
    for name in ("one", "two"):
        project = Project(tmp_path / name, seed=3)
        project.import_movies([datetime(2026, 3, 1, 12, 0, second) for second in range(4)])
        project.correct(3)
        project.fit_ctf(2)
        project.close()
        values.append((tmp_path / name / "CtfFind/job003/micrographs_ctf.star").read_text())
    assert values[0] == values[1]
    assert json.loads((tmp_path / "one/.emhub_demo.json").read_text())["seed"] == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--interval", "0"], "--interval"),
        (["--start", "1"], "--start"),
        (["--limit", "5"], "--limit"),
        (["--keep", "0"], "--keep"),
        (["--seed", "-4"], "--seed"),
    ],
)
def test_arguments_that_make_no_sense_are_named(tmp_path, arguments, message, capsys):
    with pytest.raises(SystemExit) as error:
        pipeline.main([str(tmp_path / "new"), *arguments])
    assert error.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_the_agent_reads_what_the_tables_say(filled):
    # A class iteration is believed once its files have stood still for some seconds.
    long_ago = time.time() - 60
    for path in filled.rglob("*"):
        os.utime(path, (long_ago, long_ago))
    (run,) = RelionReader(str(filled)).look()
    assert run.status == "running"
    assert run.info["version"] == "5.0-demo"
    assert (run.info["width"], run.info["height"], run.info["pixel_size"]) == (1024, 1024, 3.76)
    assert (
        list(run.micrographs) == table(filled / "Import/job001/movies.star", "movies")["MicrographMovieName"]
    )
    corrected = table(filled / "MotionCorr/job002/corrected_micrographs.star", "micrographs")
    motion = [row["motion_total"] for row in run.micrographs.values() if "motion_total" in row]
    assert motion == pytest.approx(0.94 * floats(corrected["AccumMotionTotal"]))
    fitted = table(filled / "CtfFind/job003/micrographs_ctf.star", "micrographs")
    defocus = [row["defocus_u"] for row in run.micrographs.values() if "defocus_u" in row]
    assert defocus == pytest.approx(floats(fitted["DefocusU"]))
    counts = [row["picks"].load()["particles"] for row in run.micrographs.values() if "picks" in row]
    summary = table(filled / "AutoPick/job004/summary.star", "")
    assert counts == [int(count) for count in summary["GroupNrParticles"]]
    (classes,) = run.classes
    assert sum(row["particles"] for row in classes.classes) == sum(counts)
    shown = [picture.number for picture in run.pictures if picture.kind == "class_average"]
    assert shown == [row["number"] for row in classes.classes if row["particles"]]
    assert all(Path(picture.path).is_file() for picture in run.pictures)


def test_stopped_by_a_signal_it_ends_well(tmp_path):
    command = [sys.executable, "-m", "demo.pipeline", str(tmp_path / "p"), "--start", "3", "--interval", "60"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert "3 movies" in process.stdout.readline()
        process.terminate()
        assert process.wait(timeout=20) == 0
    project = Project(tmp_path / "p")
    assert project.imported >= 3
    project.close()


def test_a_full_disk_is_said_and_the_next_start_goes_on(tmp_path, monkeypatch, capsys):
    arguments = [str(tmp_path), "--start", "4", "--limit", "4", "--interval", "0.01"]
    write = star.write

    def full(path, text):
        if path.name == "micrographs_ctf.star":
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, text)

    with monkeypatch.context() as patched:
        patched.setattr(star, "write", full)
        assert pipeline.main(arguments) == 1
    assert "No space left" in capsys.readouterr().err
    assert pipeline.main(arguments) == 0
    assert len(table(tmp_path / "AutoPick/job004/autopick.star", "coordinate_files")["MicrographName"]) == 4


def test_the_microscope_leaves_movies_that_its_watcher_understands(tmp_path):
    """The watcher's own reading: exposures with time and position, and the size of what a camera writes."""
    project = Project(tmp_path / "relion", seed=3, keep=4)
    taken = [datetime(2026, 11, 22, 21, 0, number, tzinfo=UTC) for number in range(6)]
    project.import_movies(taken)
    exposures = [project.acquisition.exposure(number) for number in range(6)]
    watcher = AcquisitionReader(str(tmp_path / "relion/Movies"))
    [news] = watcher.look()
    # Of the newest four the files are still there.
    assert len(news.exposures) == 4
    stem = exposures[5].stem(taken[5]).removesuffix("_fractions")
    told = news.exposures[stem]
    assert told["acquired_at"] == taken[5].isoformat()
    assert (told["grid_square"], told["foil_hole"]) == (exposures[5].grid_square, exposures[5].foil_hole)
    assert told["stage_x"] == pytest.approx(exposures[5].stage_x, abs=1e-3)
    assert told["beam_shift_y"] == pytest.approx(exposures[5].beam_shift_y)
    instrument = project.instrument
    assert news.fields["pixel_size"] == pytest.approx(instrument.pixel_size)
    assert news.fields["total_dose"] == pytest.approx(instrument.dose_per_frame * instrument.frames)
    assert (news.fields["frames"], news.fields["voltage_kv"]) == (instrument.frames, instrument.voltage)
    movie = tmp_path / "relion" / project.movie(5)
    assert movies.read(str(movie)) == (instrument.detector, instrument.detector, instrument.frames)
    assert movie.stat().st_size > instrument.detector**2 * instrument.frames
    assert movie.stat().st_blocks * 512 < 1_000_000
    project.import_movies([datetime(2026, 11, 22, 21, 1, tzinfo=UTC)])
    [later] = watcher.look()
    assert later.fields["data_movies"] == 5  # what is taken away stays counted
    project.close()
