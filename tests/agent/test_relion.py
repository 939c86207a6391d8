"""The RELION reader: real projects against an independent reading, then what real projects do not show."""

import contextlib
import itertools
import json
import os
import shutil
import time

import gemmi
import pytest
from emhub_agent import names, star
from emhub_agent.pictures import thumbnail
from emhub_agent.readers.base import Deferred, ReaderError
from emhub_agent.readers.relion import RelionReader, job_of, without_job
from hypothesis import given, settings
from hypothesis import strategies as st

from . import project


def look(root, **options):
    return RelionReader(str(root), **options).look()


def loaded(news):
    """The micrographs of one run with their coordinates read."""
    rows = {}
    for name, fields in news.micrographs.items():
        rows[name] = {}
        for field, value in fields.items():
            rows[name].update(value.load() if isinstance(value, Deferred) else {field: value})
    return rows


def table(path, block):
    """Read a STAR table with gemmi: a list of rows as dictionaries."""
    for found in gemmi.cif.read(str(path)):
        if found.name.strip(" #") == block:
            for item in found:
                if item.loop is not None:
                    tags = [tag.lstrip("_") for tag in item.loop.tags]
                    width = len(tags)
                    values = list(item.loop.values)
                    return [
                        dict(zip(tags, values[i : i + width], strict=False))
                        for i in range(0, len(values), width)
                    ]
    raise AssertionError(f"no {block} in {path}")


class TestRelion5:
    """A user's project, with deleted CTF jobs, picks on a part of the micrographs and empty classes."""

    def test_one_run_with_its_geometry(self, relion5):
        [news] = look(relion5)
        assert news.key == "sppractice-relion5-tutorial/Import/job001"
        assert news.status == "finished"
        info = news.info
        assert (info["software"], info["version"]) == ("RELION", "5.0-beta-3-commit-12cf15")
        assert (info["pixel_size"], info["width"], info["height"]) == (0.885, 3710, 3838)
        assert info["particle_diameter"] == 200
        assert info["parameters"]["motioncorr.dose_per_frame"] == 1.277
        assert info["parameters"]["ctffind.resmax"] == 5
        assert str(relion5) not in json.dumps(info)

    def test_every_movie_by_the_name_of_its_own_star_file(self, relion5):
        [news] = look(relion5)
        movies = [
            row["rlnMicrographMovieName"] for row in table(relion5 / "Import/job001/movies.star", "movies")
        ]
        assert list(news.micrographs) == movies

    def test_values_equal_an_independent_reading(self, relion5):
        [news] = look(relion5)
        found = loaded(news)
        motion = table(relion5 / "MotionCorr/job002/corrected_micrographs.star", "micrographs")
        ctf = {
            row["rlnMicrographName"]: row
            for row in table(relion5 / "CtfFind/job005/micrographs_ctf.star", "micrographs")
        }
        assert len(motion) == len(found) == 24
        for row in motion:
            link = gemmi.cif.read(str(relion5 / row["rlnMicrographMetadata"]))
            mine = found[link.find_block("general").find_value("_rlnMicrographMovieName")]
            for field in ("Total", "Early", "Late"):
                # In pixels in the file; the project's movies have 0.885 Å a pixel.
                assert mine[f"motion_{field.lower()}"] == pytest.approx(
                    float(row[f"rlnAccumMotion{field}"]) * 0.885
                )
            theirs = ctf[row["rlnMicrographName"]]
            for field, label in (
                ("defocus_u", "rlnDefocusU"),
                ("defocus_v", "rlnDefocusV"),
                ("defocus_angle", "rlnDefocusAngle"),
                ("ctf_resolution", "rlnCtfMaxResolution"),
                ("ctf_score", "rlnCtfFigureOfMerit"),
                ("ice_thickness", "rlnCtfIceRingDensity"),
            ):
                assert mine[field] == float(theirs[label])

    def test_motion_is_the_path_of_the_shifts_in_angstrom(self, relion5):
        """Recomputed from the frames' shifts, so that no reading of the summary's unit is taken on trust."""
        [news] = look(relion5)
        document = relion5 / "MotionCorr/job002/Movies/20170629_00021_frameImage.star"
        shifts = [
            (float(row["rlnMicrographShiftX"]), float(row["rlnMicrographShiftY"]))
            for row in table(document, "global_shift")
        ]
        path = sum(
            ((x1 - x0) ** 2 + (y1 - y0) ** 2) ** 0.5 for (x0, y0), (x1, y1) in itertools.pairwise(shifts)
        )
        total = news.micrographs["Movies/20170629_00021_frameImage.tiff"]["motion_total"]
        assert total == pytest.approx(path * 0.885, rel=1e-4)

    def test_picks_of_the_automatic_picker_where_both_picked(self, relion5):
        [news] = look(relion5)
        found = loaded(news)
        picked = {name: row for name, row in found.items() if "particles" in row}
        counts = {
            row["rlnMicrographName"].rsplit("/", 1)[1][:-4]: int(row["rlnGroupNrParticles"])
            for row in table(relion5 / "AutoPick/job008/summary.star", "")
        }
        assert {name.rsplit("/", 1)[1][:-5]: row["particles"] for name, row in picked.items()} == counts
        for name, row in picked.items():
            stem = name.rsplit("/", 1)[1][:-5]
            points = table(relion5 / f"AutoPick/job008/Movies/{stem}_autopick.star", "")
            assert row["coordinates"] == [
                [
                    pytest.approx(float(point["rlnCoordinateX"]), abs=0.01),
                    pytest.approx(float(point["rlnCoordinateY"]), abs=0.01),
                ]
                for point in points
            ]

    def test_classes_of_the_last_iteration(self, relion5):
        [news] = look(relion5)
        [found] = news.classes
        assert (found.job, found.iteration, len(found.classes)) == ("Class2D/job010", 25, 50)
        particles = table(relion5 / "Class2D/job010/run_it025_data.star", "particles")
        model = table(relion5 / "Class2D/job010/run_it025_model.star", "model_classes")
        assert sum(row["particles"] for row in found.classes) == len(particles) == 2374
        for row, theirs in zip(found.classes, model, strict=False):
            assert row["number"] == int(theirs["rlnReferenceImage"].split("@")[0])
            assert row["particles"] == sum(int(p["rlnClassNumber"]) == row["number"] for p in particles)
            resolution = float(theirs["rlnEstimatedResolution"])
            assert row["resolution"] == (None if resolution == float("inf") else resolution)

    def test_pictures_of_what_exists(self, relion5):
        [news] = look(relion5)
        kinds = [picture.kind for picture in news.pictures]
        used = sum(row["particles"] > 0 for row in news.classes[0].classes)
        assert (kinds.count("psd"), kinds.count("micrograph"), kinds.count("class_average")) == (2, 0, used)
        assert all(os.path.exists(picture.path) for picture in news.pictures)

    def test_a_second_look_has_nothing_to_tell(self, relion5):
        reader = RelionReader(str(relion5))
        reader.look()
        [news] = reader.look()
        assert not (news.micrographs)
        assert not (news.classes)
        assert not (news.pictures)
        assert not (news.events)
        reader.forget(news.key)
        [news] = reader.look()
        assert (len(news.micrographs), len(news.classes)) == (24, 1)


class TestRelion31:
    """Loose files of a 3.1/4 project, put where their pipeline says they were."""

    @pytest.fixture
    def root(self, relion31_project):
        return relion31_project

    def test_values_equal_an_independent_reading(self, root):
        [news] = look(root)
        found = loaded(news)
        motion = table(root / "MotionCorr/job002/corrected_micrographs.star", "micrographs")
        ctf = table(root / "CtfFind/job003/micrographs_ctf.star", "micrographs")
        # Neither the movies' table nor the micrographs' own files are there: the path without its job remains.
        names = [row["rlnMicrographName"].replace("MotionCorr/job002/", "") for row in motion]
        assert list(found) == names
        for name, moved, theirs in zip(names, motion, ctf, strict=False):
            assert found[name]["motion_total"] == pytest.approx(float(moved["rlnAccumMotionTotal"]) * 0.885)
            assert found[name]["defocus_u"] == float(theirs["rlnDefocusU"])
            assert found[name]["ctf_resolution"] == float(theirs["rlnCtfMaxResolution"])
            assert "ice_thickness" not in found[name]

    def test_picks_where_their_file_is(self, root):
        [news] = look(root)
        found = loaded(news)
        points = table(root / "AutoPick/job004/Movies/20170629_00049_frameImage_autopick.star", "")
        assert found["Movies/20170629_00049_frameImage.mrc"]["particles"] == len(points)
        assert sum("particles" in row for row in found.values()) == 1

    def test_classes_version_and_status(self, root):
        reader = RelionReader(str(root))
        reader.look()  # copied this moment, and the job is said to run: believed when it has not changed since
        [news] = reader.look()
        [found] = news.classes
        particles = table(root / "Class2D/job008/run_it025_data.star", "particles")
        assert (found.job, found.iteration) == ("Class2D/job008", 25)
        assert sum(row["particles"] for row in found.classes) == len(particles)
        assert news.info["version"] == "4.0.0-commit-1569f0"
        assert news.status == "running"
        assert news.info["parameters"]["autopick.log_diam_max"] == 190

    def test_epu_names_keep_their_folders(self, relion31, tmp_path):
        source = relion31.parent / "emwrap-epu-gridsquare-excerpt"
        project.write(
            tmp_path,
            {
                "default_pipeline.star": project.pipeline(
                    [("CtfFind/job005", "relion.ctffind.ctffind4", "Running")]
                )
            },
        )
        (tmp_path / "CtfFind/job005").mkdir(parents=True)
        shutil.copy(source / "micrographs_ctf.star", tmp_path / "CtfFind/job005/micrographs_ctf.star")
        [news] = look(tmp_path)
        assert next(iter(news.micrographs)) == (
            "data/Images-Disc1/GridSquare_23333186/Data/"
            "FoilHole_23379462_Data_23378980_4_20240423_193203_fractions.mrc"
        )


class TestWrittenProjects:
    def test_picks_by_suffix_and_numbers_for_types(self, tmp_path):
        """RELION 3.1: a pipeline of numbers, coordinates found through a plain-text file."""
        made = project.files(count=3, images=False, iterations=())
        made["default_pipeline.star"] = (
            project.pipeline(
                [
                    ("Import/job001", 0, 2),
                    ("MotionCorr/job002", 1, 2),
                    ("CtfFind/job003", 2, 2),
                    ("AutoPick/job004", 4, 0),
                    ("Class2D/job006", 8, 1),
                ],
                [
                    ("Import/job001/movies.star", "MotionCorr/job002"),
                    ("MotionCorr/job002/corrected_micrographs.star", "CtfFind/job003"),
                    ("CtfFind/job003/micrographs_ctf.star", "AutoPick/job004"),
                ],
                [("AutoPick/job004", "AutoPick/job004/coords_suffix_autopick.star")],
                numeric=True,
            )
            .replace("version 50001", "version 30001")
            .encode()
        )
        del made["AutoPick/job004/autopick.star"]
        made["AutoPick/job004/coords_suffix_autopick.star"] = b"CtfFind/job003/micrographs_ctf.star\n"
        [news] = look(project.write(tmp_path, made))
        assert [row["particles"] for row in loaded(news).values()] == [4, 4, 4]
        assert (news.info["version"], news.status) == ("3.1", "running")

    def test_before_31_the_pixel_size_is_that_of_the_detector(self, tmp_path):
        made = project.files(count=1, images=False, iterations=())
        made["MotionCorr/job002/corrected_micrographs.star"] = project.loop(
            "",
            ["rlnMicrographName", "rlnAccumMotionTotal", "rlnDetectorPixelSize", "rlnMagnification"],
            [("MotionCorr/job002/Movies/grid_001.mrc", 10, 5.0, 50000)],
        )
        [news] = look(project.write(tmp_path, made))
        assert news.micrographs[project.movie(1)]["motion_total"] == 10.0

    def test_motion_without_any_pixel_size_is_unknown_not_wrong(self, tmp_path):
        made = project.files(count=1, images=False, iterations=())
        for path in list(made):
            made[path] = made[path].replace(b"rlnMicrographOriginalPixelSize", b"rlnSomethingElse")
        [news] = look(project.write(tmp_path, made))
        assert "motion_total" not in news.micrographs[project.movie(1)]
        assert "defocus_u" in news.micrographs[project.movie(1)]

    def test_job_options_of_31_with_help_texts_and_irregular_quotes(self, tmp_path):
        made = project.files(count=1, images=False, iterations=())
        made["MotionCorr/job002/job.star"] = (
            project.pairs("job", {"rlnJobType": 1})
            + project.loop(
                "joboptions_values",
                ["rlnJobOptionVariable", "rlnJobOptionValue"],
                [
                    ("dose_per_frame", "1.277"),
                    ("gain_rot", "No__rotation__(0)"),
                    ("fn_defect", '""'),
                    ("gain_flip", '"No flipping (0)"'),
                    ("patch_x", "5"),
                ],
            )
            + project.loop(
                "joboptions_full_definition",
                ["rlnJobOptionVariable", "rlnJobOptionGUILabel", "rlnJobOptionHelpText"],
                [("patch_x", "\"it's", "CTFFIND's__'text ++un\"defined++")],
            )
        ).encode()
        [news] = look(project.write(tmp_path, made))
        parameters = news.info["parameters"]
        assert parameters["motioncorr.dose_per_frame"] == 1.277
        assert parameters["motioncorr.gain_rot"] == "No rotation (0)"
        assert parameters["motioncorr.gain_flip"] == "No flipping (0)"
        assert parameters["motioncorr.patch_x"] == 5

    def test_dots_in_a_movies_name_are_matched_with_their_underscores(self, tmp_path):
        made = project.files(count=1, images=False, iterations=())
        for path in list(made):
            data = made.pop(path)
            if path.startswith("Import"):
                data = data.replace(b"grid_001.tiff", b"TS_01_000_-3.0.mrc")
            if "corrected" in path or "micrographs_ctf" in path:
                data = data.replace(b"grid_001", b"TS_01_000_-3_0")
            if not path.endswith("Movies/grid_001.star") and "AutoPick" not in path:
                made[path] = data
        [news] = look(project.write(tmp_path, made))
        assert list(news.micrographs) == ["Movies/TS_01_000_-3.0.mrc"]
        assert "defocus_u" in news.micrographs["Movies/TS_01_000_-3.0.mrc"]

    def test_width_height_and_pixel_size_are_the_micrographs_not_the_movies(self, tmp_path):
        [news] = look(project.write(tmp_path, project.files(count=1)))
        assert (news.info["width"], news.info["height"], news.info["pixel_size"]) == (48, 32, project.BINNED)
        # The same without the image, from the movie's size and its binning.
        (tmp_path / "MotionCorr/job002/Movies/grid_001.mrc").unlink()
        [news] = look(tmp_path)
        assert (news.info["width"], news.info["height"]) == (48, 32)

    def test_imported_movies_are_told_before_anything_is_done(self, tmp_path):
        made = project.files(count=3)
        kept = {path: made[path] for path in ("default_pipeline.star", "Import/job001/movies.star")}
        [news] = look(project.write(tmp_path, kept))
        assert news.micrographs == {project.movie(number): {} for number in (1, 2, 3)}

    def test_only_what_changed_is_told_again(self, tmp_path):
        made = project.files(count=3, images=False)
        reader = RelionReader(str(project.write(tmp_path, made)))
        reader.look()
        ctf = made["CtfFind/job003/micrographs_ctf.star"].replace(b"12137.000000", b"13137.000000")
        project.write(tmp_path, {"CtfFind/job003/micrographs_ctf.star": ctf})
        [news] = reader.look()
        assert news.micrographs == {project.movie(2): {"defocus_u": 13137.0}}

    def test_picks_changed_in_place_are_told_again(self, tmp_path):
        made = project.files(count=2, images=False)
        reader = RelionReader(str(project.write(tmp_path, made)))
        reader.look()
        path = "AutoPick/job004/Movies/grid_002_autopick.star"
        project.write(tmp_path, {path: made[path] + b" 1.5 2.5 0.1 \n"})
        [news] = reader.look()
        assert [row["particles"] for row in loaded(news).values()] == [5]

    def test_a_file_written_anew_takes_nothing_back_while_its_job_runs(self, tmp_path):
        made = project.files(count=4, images=False)
        reader = RelionReader(str(project.write(tmp_path, made)))
        reader.look()
        path = "CtfFind/job003/micrographs_ctf.star"
        project.write(tmp_path, {path: made[path][: len(made[path]) // 2]})
        assert not reader.look()[0].micrographs
        project.write(tmp_path, {path: made[path]})
        assert not reader.look()[0].micrographs

    def test_a_deleted_job_takes_its_values_with_it(self, tmp_path):
        made = project.files(count=1, images=False, iterations=())
        reader = RelionReader(str(project.write(tmp_path, made)))
        reader.look()
        text = made["default_pipeline.star"].decode().splitlines(keepends=True)
        project.write(
            tmp_path,
            {"default_pipeline.star": "".join(line for line in text if "AutoPick/job004" not in line)},
        )
        assert not reader.look()[0].micrographs  # it may be a file cut mid-write
        [news] = reader.look()
        assert news.micrographs == {project.movie(1): {"coordinates": None, "particles": None}}

    def test_a_pipeline_cut_mid_write_changes_nothing(self, tmp_path):
        made = project.files(count=2, images=False)
        reader = RelionReader(str(project.write(tmp_path, made)))
        key = reader.look()[0].key
        whole = made["default_pipeline.star"]
        for cut in (0, 100, len(whole) // 2, len(whole) - 60):
            project.write(tmp_path, {"default_pipeline.star": whole[:cut]})
            [news] = reader.look()
            assert (news.key, news.micrographs) == (key, {})
            project.write(tmp_path, {"default_pipeline.star": whole})
            [news] = reader.look()
            assert (news.key, news.micrographs) == (key, {})

    def test_a_new_iteration_of_classes_is_told_once_it_is_whole(self, tmp_path):
        made = project.files(count=2, iterations=(1, 2))
        second = {path: made.pop(path) for path in list(made) if "_it002_" in path}
        reader = RelionReader(str(project.write(tmp_path, made)))
        assert [found.iteration for found in reader.look()[0].classes] == []  # written this moment
        assert [found.iteration for found in reader.look()[0].classes] == [1]
        model = "Class2D/job006/run_it002_model.star"
        project.write(tmp_path, {model: second[model]})
        for _ in range(2):
            assert reader.look()[0].classes == []
        project.write(tmp_path, second)
        reader.look()
        project.write(tmp_path, {model: second[model][:-120]})  # still being written
        reader.look()
        assert reader.look()[0].classes == []
        project.write(tmp_path, second)
        reader.look()
        [news] = reader.look()
        assert [found.iteration for found in news.classes] == [2]
        assert {picture.iteration for picture in news.pictures} == {2}
        assert reader.look()[0].classes == []

    def test_unreadable_files_are_left_for_later_and_the_rest_goes_on(self, tmp_path, caplog):
        made = project.files(count=2, images=False, iterations=())
        root = project.write(tmp_path, made)
        path = root / "CtfFind/job003/micrographs_ctf.star"
        data = path.read_bytes()
        path.unlink()
        path.mkdir()  # cannot be read, whoever runs the tests
        reader = RelionReader(str(root))
        [news] = reader.look()
        assert "motion_total" in news.micrographs[project.movie(1)]
        assert "defocus_u" not in news.micrographs[project.movie(1)]
        path.rmdir()
        path.write_bytes(data)
        assert "defocus_u" in reader.look()[0].micrographs[project.movie(1)]

    def test_reading_leaves_the_project_as_it_was(self, tmp_path):
        root = project.write(tmp_path, project.files(count=2))
        before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
        reader = RelionReader(str(root))
        reader.look()
        reader.look()
        assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before

    @pytest.mark.parametrize("make", ["missing", "file", "empty"])
    def test_a_folder_that_is_no_project_is_refused_in_words(self, tmp_path, make):
        place = tmp_path / "project"
        if make == "file":
            place.write_text("")
        elif make == "empty":
            place.mkdir()
        with pytest.raises(ReaderError, match=r"no folder|not a RELION project"):
            RelionReader(str(place))


class TestBranches:
    """Several CtfFind jobs are several runs."""

    JOBS = (
        ("Import/job001", "relion.import.movies", "Succeeded"),
        ("MotionCorr/job002", "relion.motioncorr.own", "Succeeded"),
        ("CtfFind/job003", "relion.ctffind.ctffind4", "Succeeded"),
        ("CtfFind/job007", "relion.ctffind.ctffind4", "Succeeded"),
        ("AutoPick/job008", "relion.autopick.log", "Running"),
    )
    INPUTS = (
        ("Import/job001/movies.star", "MotionCorr/job002"),
        ("MotionCorr/job002/corrected_micrographs.star", "CtfFind/job003"),
        ("MotionCorr/job002/corrected_micrographs.star", "CtfFind/job007"),
        ("CtfFind/job007/micrographs_ctf.star", "AutoPick/job008"),
    )

    def write(self, root, jobs=JOBS, inputs=INPUTS):
        names = {name for name, _, _ in jobs}
        inputs = [(node, job) for node, job in inputs if job in names]
        made = project.files(count=2, images=False, iterations=())
        kept = {path: data for path, data in made.items() if path.startswith(("Import", "MotionCorr"))}
        kept["default_pipeline.star"] = project.pipeline(jobs, inputs)
        for number, name in enumerate(name for name in names if name.startswith("CtfFind")):
            kept[f"{name}/micrographs_ctf.star"] = made["CtfFind/job003/micrographs_ctf.star"].replace(
                b"0.500000", f"{number}.5".encode()
            )
        return project.write(root, kept)

    def test_each_has_its_key_values_and_status(self, tmp_path):
        first, second = look(self.write(tmp_path), key="p")
        assert (first.key, second.key) == ("p/Import/job001", "p/CtfFind/job007")
        assert (first.status, second.status) == ("finished", "running")
        assert second.info["label"] == "p, CtfFind/job007"
        one, other = (news.micrographs[project.movie(1)]["ice_thickness"] for news in (first, second))
        assert one != other

    def test_the_key_stays_as_steps_and_branches_are_added(self, tmp_path):
        for count in range(1, len(self.JOBS) + 1):
            keys = [news.key for news in look(self.write(tmp_path, self.JOBS[:count]), key="p")]
            assert keys[0] == "p/Import/job001"
        assert keys == ["p/Import/job001", "p/CtfFind/job007"]

    def test_the_key_does_not_know_where_the_project_lies(self, tmp_path):
        keys = []
        for parent in ("here", "there"):
            self.write(tmp_path / parent / "project")
            keys.append([news.key for news in look(tmp_path / parent / "project")])
        assert keys[0] == keys[1]
        assert str(tmp_path) not in keys[0][0]

    def test_a_motion_correction_done_again_is_a_branch_of_its_own(self, tmp_path):
        jobs = (*self.JOBS[:3], ("MotionCorr/job009", "relion.motioncorr.own", "Running"))
        inputs = (*self.INPUTS, ("Import/job001/movies.star", "MotionCorr/job009"))
        self.write(tmp_path, jobs, inputs)
        assert [news.key for news in look(tmp_path, key="p")] == ["p/Import/job001"]  # nothing in it yet
        (tmp_path / "MotionCorr/job009").mkdir()
        source = tmp_path / "MotionCorr/job002/corrected_micrographs.star"
        shutil.copy(source, tmp_path / "MotionCorr/job009/corrected_micrographs.star")
        assert [news.key for news in look(tmp_path, key="p")] == ["p/Import/job001", "p/MotionCorr/job009"]
        jobs = (*jobs, ("CtfFind/job010", "relion.ctffind.ctffind4", "Running"))
        inputs = (*inputs, ("MotionCorr/job009/corrected_micrographs.star", "CtfFind/job010"))
        self.write(tmp_path, jobs, inputs)
        assert [news.key for news in look(tmp_path, key="p")] == ["p/Import/job001", "p/MotionCorr/job009"]


class TestStatus:
    def status(self, root, **marks):
        root = project.write(root, project.files(count=1, images=False, iterations=()))
        for job in (
            "MotionCorr/job002",
            "CtfFind/job003",
            "AutoPick/job004",
            "Extract/job005",
            "Class2D/job006",
        ):
            (root / job).mkdir(parents=True, exist_ok=True)
            mark = marks.get(job.split("/")[0].lower(), "SUCCESS")
            if mark:
                (root / job / f"RELION_JOB_EXIT_{mark}").touch()
        [news] = look(root)
        return news

    def test_what_a_job_left_at_its_end_counts_more_than_a_stale_pipeline(self, tmp_path):
        assert self.status(tmp_path).status == "finished"  # the pipeline says Running

    def test_running_while_one_runs(self, tmp_path):
        assert self.status(tmp_path, autopick=None).status == "running"

    def test_a_failure_is_an_event_with_its_reason(self, tmp_path):
        (tmp_path / "CtfFind/job003").mkdir(parents=True)
        (tmp_path / "CtfFind/job003/run.err").write_text(
            "in: ctffind.cpp\nERROR:\n\x1b[31mno executable found\x1b[0m\r\n\n"
        )
        news = self.status(tmp_path, ctffind="FAILURE")
        assert news.status == "failed"
        [event] = news.events
        assert (event.level, event.text) == ("error", "CtfFind/job003 failed: no executable found")
        assert event.at.endswith("+00:00")

    def test_an_aborted_job_is_a_warning(self, tmp_path):
        news = self.status(tmp_path, class2d="ABORTED")
        assert news.status == "stopped"
        assert [(event.level, event.text) for event in news.events] == [
            ("warning", "Class2D/job006 was stopped.")
        ]


def test_paths():
    assert job_of("CtfFind/job005/Movies/a.ctf:mrc") == "CtfFind/job005"
    assert job_of("./Import/job001/movies.star") == "Import/job001"
    assert job_of("Movies/job001/a.tiff") == "Movies/job001"  # looks like one; it is no job of any pipeline
    assert job_of("Schemes/prep/ctffind/") is None
    assert without_job("MotionCorr/job002/Movies/a.mrc") == "Movies/a.mrc"
    assert without_job("Micrographs/a.mrc") == "Micrographs/a.mrc"


class TestImports:
    def one(self, root, columns, row, name="Import/job001/movies.star"):
        made = {
            "default_pipeline.star": project.pipeline(
                [("Import/job001", "relion.import.other", "Succeeded")]
            ),
            name: project.loop("", columns, [row]),
        }
        return look(project.write(root, made))

    def test_micrographs_may_be_imported_instead_of_movies(self, tmp_path):
        (tmp_path / "Micrographs").mkdir()
        (tmp_path / "Micrographs/a.mrc").write_bytes(b"")
        [news] = self.one(
            tmp_path, ["rlnMicrographName"], ["Micrographs/a.mrc"], "Import/job001/micrographs.star"
        )
        assert news.micrographs == {"Micrographs/a.mrc": {}}
        assert [(picture.kind, picture.micrograph) for picture in news.pictures] == [
            ("micrograph", "Micrographs/a.mrc")
        ]

    @pytest.mark.parametrize("column", ["rlnImageName", "rlnCoordinateX", "rlnMicrographCoordinates"])
    def test_imported_particles_are_not_taken_for_micrographs(self, tmp_path, column):
        [news] = self.one(tmp_path, ["rlnMicrographName", column], ["Micrographs/a.mrc", "1"])
        assert news.micrographs == {}


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_no_file_however_broken_stops_the_look(tmp_path_factory, data):
    """Each file in turn holds rubbish, or its own text with a piece replaced."""
    made = project.files(count=2, picks=2, classes=2)
    path = data.draw(st.sampled_from(sorted(set(made) - {"default_pipeline.star"})))
    whole = made[path]
    start = data.draw(st.integers(0, len(whole)))
    end = data.draw(st.integers(start, min(len(whole), start + 80)))
    rubbish = data.draw(
        st.binary(max_size=40)
        | st.sampled_from(
            [b"-1", b"nan", b"1e400", b"0", b"", b"\n", b" ", b"data_\n", b"loop_\n", b"@", b"'"]
        )
    )
    made[path] = whole[:start] + rubbish + whole[end:]
    root = project.write(tmp_path_factory.mktemp("relion"), made)
    old = time.time() - 60
    for file in root.rglob("*"):
        os.utime(file, (old, old))
    for news in look(root):
        for fields in news.micrographs.values():
            for value in fields.values():
                if isinstance(value, Deferred):
                    with contextlib.suppress(ValueError):
                        value.load()
        json.dumps([news.info, [found.classes for found in news.classes]], allow_nan=False)
        for picture in news.pictures:
            with contextlib.suppress(ValueError):
                thumbnail(picture.path, picture.number or 1)


class TestRelion30:
    """A project of 3.0: numbers for types, tables without a name and without optics, no job.star."""

    @pytest.fixture
    def news(self, tmp_path):
        movies = [f"Movies/grid_{number:03d}" for number in (1, 2, 3)]
        made = {
            "default_pipeline.star": project.pipeline(
                [
                    ("Import/job001", 0, 2),
                    ("MotionCorr/job002", 1, 2),
                    ("CtfFind/job003", 2, 2),
                    ("Select/job004", 7, 2),
                    ("AutoPick/job005", 4, 2),
                    ("Class2D/job007", 8, 2),
                ],
                [
                    ("Import/job001/movies.star", "MotionCorr/job002"),
                    ("MotionCorr/job002/corrected_micrographs.star", "CtfFind/job003"),
                    ("CtfFind/job003/micrographs_ctf.star", "Select/job004"),
                    ("Select/job004/micrographs.star", "AutoPick/job005"),
                    ("AutoPick/job005/coords_suffix_autopick.star", "Class2D/job007"),
                ],
                numeric=True,
            ).replace("# version 50001\n", ""),
            "Import/job001/movies.star": project.loop(
                "", ["rlnMicrographMovieName"], [(f"{movie}.mrcs",) for movie in movies]
            ),
            "MotionCorr/job002/corrected_micrographs.star": project.loop(
                "",
                ["rlnMicrographName", "rlnMicrographMetadata", "rlnAccumMotionTotal"],
                [
                    (f"MotionCorr/job002/{movie}.mrc", f"MotionCorr/job002/{movie}.star", 10 + number)
                    for number, movie in enumerate(movies)
                ],
            ),
            "CtfFind/job003/micrographs_ctf.star": project.loop(
                "",
                [
                    "rlnMicrographName",
                    "rlnDefocusU",
                    "rlnDefocusV",
                    "rlnDefocusAngle",
                    "rlnPhaseShift",
                    "rlnDetectorPixelSize",
                    "rlnMagnification",
                    "rlnCtfFigureOfMerit",
                    "rlnCtfMaxResolution",
                ],
                [
                    (f"MotionCorr/job002/{movie}.mrc", 9000, 8800, 12.5, 88.0, 14.0, 140000, -0.01, 3.9)
                    for movie in movies
                ],
            ),
            "Select/job004/micrographs.star": project.loop(
                "", ["rlnMicrographName"], [(f"MotionCorr/job002/{movie}.mrc",) for movie in movies[:2]]
            ),
            "AutoPick/job005/coords_suffix_autopick.star": "Select/job004/micrographs.star\n",
            **{
                f"AutoPick/job005/{movie}_autopick.star": project.loop(
                    "", ["rlnCoordinateX", "rlnCoordinateY"], [(1, 2), (3, 4)]
                )
                for movie in movies[:2]
            },
            **{
                f"MotionCorr/job002/{movie}.star": project.pairs(
                    "general",
                    {
                        "rlnImageSizeX": 3838,
                        "rlnImageSizeY": 3710,
                        "rlnMicrographMovieName": f"{movie}.mrcs",
                        "rlnMicrographOriginalPixelSize": "1.0",
                    },
                )
                for movie in movies
            },
            "Class2D/job007/run_it025_model.star": project.pairs("model_general", {"rlnNrClasses": 2})
            + project.loop(
                "model_classes",
                ["rlnReferenceImage", "rlnClassDistribution", "rlnEstimatedResolution"],
                [
                    ("000001@Class2D/job007/run_it025_classes.mrcs", 0.75, 8.5),
                    ("000002@Class2D/job007/run_it025_classes.mrcs", 0.25, 12.5),
                ],
            ),
            "Class2D/job007/run_it025_data.star": project.loop(
                "", ["rlnClassNumber"], [(1,), (1,), (1,), (2,)]
            ),
        }
        [news] = look(project.write(tmp_path, made))
        return news

    def test_everything_it_holds(self, news):
        assert (news.info["version"], news.status, news.info["pixel_size"]) == ("3.0", "finished", 1.0)
        assert (news.info["width"], news.info["height"]) == (3838, 3710)
        rows = loaded(news)
        assert rows["Movies/grid_001.mrcs"] == {
            "motion_total": 10.0,
            "defocus_u": 9000.0,
            "defocus_v": 8800.0,
            "defocus_angle": 12.5,
            "phase_shift": 88.0,
            "ctf_resolution": 3.9,
            "ctf_score": -0.01,
            "coordinates": [[1.0, 2.0], [3.0, 4.0]],
            "particles": 2,
            "rejected": False,
        }
        assert rows["Movies/grid_003.mrcs"]["rejected"] is True
        assert "particles" not in rows["Movies/grid_003.mrcs"]

    def test_its_classes(self, news):
        [found] = news.classes
        assert found.classes == [
            {"number": 1, "particles": 3, "resolution": 8.5},
            {"number": 2, "particles": 1, "resolution": 12.5},
        ]


class TestSelections:
    """Select jobs on micrographs mark what they left out as rejected."""

    def project(self, root, selects, count=4):
        """``selects`` are (number, input, kept movies' numbers, status)."""
        made = project.files(count=count, status="Succeeded", images=False, iterations=())
        jobs = [
            ("Import/job001", "relion.import.movies", "Succeeded"),
            ("MotionCorr/job002", "relion.motioncorr.own", "Succeeded"),
            ("CtfFind/job003", "relion.ctffind.ctffind4", "Succeeded"),
        ]
        inputs = [
            ("Import/job001/movies.star", "MotionCorr/job002"),
            ("MotionCorr/job002/corrected_micrographs.star", "CtfFind/job003"),
        ]
        for number, source, kept, status in selects:
            name = f"Select/job{number:03d}"
            jobs.append((name, "relion.select.onvalue", status))
            inputs.append((source, name))
            made[f"{name}/job.star"] = project.loop(
                "joboptions_values", ["rlnJobOptionVariable", "rlnJobOptionValue"], [("fn_mic", source)]
            )
            made[f"{name}/micrographs.star"] = project.optics() + project.loop(
                "micrographs",
                ["rlnMicrographName"],
                [(f"MotionCorr/job002/Movies/grid_{movie:03d}.mrc",) for movie in kept],
            )
        made["default_pipeline.star"] = project.pipeline(jobs, inputs)
        return project.write(root, made)

    CTF = "CtfFind/job003/micrographs_ctf.star"

    def rejected(self, news):
        return [news.micrographs[project.movie(number)].get("rejected") for number in range(1, 5)]

    def test_what_it_left_out_is_rejected(self, tmp_path):
        [news] = look(self.project(tmp_path, [(4, self.CTF, (1, 3), "Succeeded")]))
        assert self.rejected(news) == [False, True, False, True]

    def test_one_that_has_not_ended_says_nothing(self, tmp_path):
        [news] = look(self.project(tmp_path, [(4, self.CTF, (1, 3), "Running")]))
        assert self.rejected(news) == [None] * 4

    def test_a_later_one_on_the_same_micrographs_takes_its_place(self, tmp_path):
        selects = [(4, self.CTF, (1, 3), "Succeeded"), (5, self.CTF, (2, 3), "Succeeded")]
        [news] = look(self.project(tmp_path, selects))
        assert self.rejected(news) == [True, False, False, True]

    def test_one_of_what_another_kept_narrows_it(self, tmp_path):
        selects = [
            (4, self.CTF, (1, 3), "Succeeded"),
            (5, "Select/job004/micrographs.star", (3,), "Succeeded"),
        ]
        [news] = look(self.project(tmp_path, selects))
        assert self.rejected(news) == [True, True, False, True]

    def test_deleting_it_takes_its_word_back(self, tmp_path):
        reader = RelionReader(str(self.project(tmp_path, [(4, self.CTF, (1, 3), "Succeeded")])))
        reader.look()
        shutil.rmtree(tmp_path / "Select")
        self.project(tmp_path, [])
        for _ in range(2):  # a pipeline that lacks something is believed at the second look
            [news] = reader.look()
        assert news.micrographs == {project.movie(number): {"rejected": None} for number in range(1, 5)}

    def test_of_what_came_after_it_it_says_nothing(self, tmp_path):
        root = self.project(tmp_path, [(4, self.CTF, (1, 3), "Succeeded")])
        past = time.time() - 100
        os.utime(root / "Select/job004/micrographs.star", (past, past))
        [news] = look(root)
        assert self.rejected(news) == [False, True, False, None]

    def test_parts_of_a_split_are_no_selection(self, tmp_path):
        root = self.project(tmp_path, [(4, self.CTF, (1, 3), "Succeeded")])
        (root / "Select/job004/micrographs.star").rename(root / "Select/job004/micrographs_split1.star")
        [news] = look(root)
        assert self.rejected(news) == [None] * 4

    def test_it_marks_its_own_branch_alone(self, tmp_path):
        root = self.project(tmp_path, [(4, self.CTF, (1, 3), "Succeeded")])
        made = project.files(count=4, status="Succeeded", images=False, iterations=())
        text = (root / "default_pipeline.star").read_text()
        text = text.replace(
            "Select/job004/ None",
            "CtfFind/job005/ None relion.ctffind.ctffind4 Succeeded \nSelect/job004/ None",
        )
        text = text.replace(
            "CtfFind/job003/micrographs_ctf.star Select/job004/",
            "CtfFind/job003/micrographs_ctf.star Select/job004/ \n"
            "MotionCorr/job002/corrected_micrographs.star CtfFind/job005/",
        )
        project.write(
            root, {"default_pipeline.star": text, "CtfFind/job005/micrographs_ctf.star": made[self.CTF]}
        )
        one, other = look(root)
        assert self.rejected(one) == [False, True, False, True]
        assert self.rejected(other) == [None] * 4
        assert other.micrographs[project.movie(1)]["defocus_u"] == 12000


class TestSilence:
    def look(self, root, age, **settings):
        made = project.files(count=1, images=False, iterations=())
        project.write(root, made)
        for folder, _, files in os.walk(root):
            for name in (*files, "."):
                os.utime(os.path.join(folder, name), (age, age))
        return RelionReader(str(root), settings=settings).look()[0]

    def test_a_job_that_left_no_sign_of_its_end_is_told_after_long_silence(self, tmp_path):
        age = time.time() - 7 * 3600
        news = self.look(tmp_path, age)
        assert [event.level for event in news.events] == ["warning"] * len(news.events)
        texts = [event.text for event in news.events]
        since = time.strftime("%Y-%m-%d %H:%M", time.gmtime(int(age)))
        assert (
            f"CtfFind/job003 shows as running but has written nothing since {since} UTC and left no sign of its "
            "end; it may have crashed."
        ) in texts
        assert news.status == "running"  # as RELION itself shows it
        assert self.look(tmp_path, age).events == news.events  # the same words after a restart

    def test_one_that_still_writes_is_not(self, tmp_path):
        assert self.look(tmp_path, time.time() - 3600).events == []
        assert self.look(tmp_path, time.time() - 3600, silent_hours=0.5).events

    @pytest.mark.parametrize("hours", [0, -1, "6", True])
    def test_hours_must_be_hours(self, tmp_path, hours):
        with pytest.raises(ReaderError, match="silent_hours"):
            self.look(tmp_path, time.time(), silent_hours=hours)


class TestSchemes:
    """A scheme starts its jobs again and again; between two rounds all of them have ended."""

    def status(self, root, current, age=60):
        made = project.files(count=1, status="Succeeded", images=False, iterations=())
        made["Schemes/prep/scheme.star"] = (
            project.pairs(
                "scheme_general", {"rlnSchemeName": "Schemes/prep/", "rlnSchemeCurrentNodeName": current}
            )
            + project.loop(
                "scheme_operators",
                ["rlnSchemeOperatorName", "rlnSchemeOperatorType"],
                [("WAIT", "wait"), ("EXIT_maxtime", "exit_maxtime"), ("DONE", "exit")],
            )
            + project.loop(
                "scheme_jobs",
                [
                    "rlnSchemeJobNameOriginal",
                    "rlnSchemeJobName",
                    "rlnSchemeJobMode",
                    "rlnSchemeJobHasStarted",
                ],
                [("ctffind", "CtfFind/job003/", "continue", 1), ("select", "select", "continue", 0)],
            )
        )
        project.write(root, made)
        then = time.time() - age
        os.utime(root / "Schemes/prep/scheme.star", (then, then))
        return look(root)[0].status

    def test_while_it_waits_the_run_goes_on(self, tmp_path):
        assert self.status(tmp_path, "WAIT") == "running"
        assert self.status(tmp_path, "EXIT_maxtime") == "running"

    def test_at_its_end_the_run_has_ended(self, tmp_path):
        assert self.status(tmp_path, "DONE") == "finished"
        assert self.status(tmp_path, "EXIT") == "finished"

    def test_one_not_heard_of_for_long_runs_no_more(self, tmp_path):
        assert self.status(tmp_path, "WAIT", age=7200) == "finished"


class TestLinks:
    @pytest.fixture
    def outside(self, tmp_path):
        """A project whose motion correction lies on another disk."""
        root = project.write(tmp_path / "p", project.files(count=2, images=False, iterations=()))
        shutil.move(root / "MotionCorr", tmp_path / "scratch")
        (root / "MotionCorr").symlink_to(tmp_path / "scratch")
        return root

    def test_what_lies_outside_is_left_out_and_said(self, outside, caplog):
        [news] = look(outside)
        assert "motion_total" not in next(iter(news.micrographs.values()))
        assert "lies outside" in caplog.text
        assert "the setting follow_links allows it" in caplog.text

    def test_it_is_read_where_that_is_allowed(self, outside):
        [news] = look(outside, settings={"follow_links": True})
        assert [row["motion_total"] for row in news.micrographs.values()] == [5.0, 5.5]

    def test_links_within_the_project_are_followed(self, tmp_path):
        root = project.write(tmp_path, project.files(count=2, images=False, iterations=()))
        (root / "MotionCorr/job002").rename(root / "MotionCorr/kept")
        (root / "MotionCorr/job002").symlink_to("kept")
        [news] = look(root)
        assert [row["motion_total"] for row in news.micrographs.values()] == [5.0, 5.5]

    def test_it_must_be_true_or_false(self, tmp_path):
        with pytest.raises(ReaderError, match=r"follow_links is .*; it must be true or false"):
            look(tmp_path, settings={"follow_links": "yes"})
        with pytest.raises(ReaderError, match="no setting folow_links"):
            look(tmp_path, settings={"folow_links": True})


class TestNames:
    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            (
                "Movies/24dec03a_00034gr_00003sq_v01_00002hl_00002ex.mrc",
                {"grid_square": "00034gr_00003sq", "foil_hole": "00034gr_00003sq_00002hl"},
            ),
            ("Movies/lattice_12_X+1Y-1-2_0034.tif", {"foil_hole": "lattice_12_X+1Y-1"}),
            ("Movies/lattice_12_X+1Y-1-1_0033.tif", {"foil_hole": "lattice_12_X+1Y-1"}),
            ("Movies/frame_0033.tif", None),
            ("GridSquare_1/Data/FoilHole_2_Data_3_4_20240423_193203_fractions.mrc", None),
            ("", None),
        ],
    )
    def test_square_and_hole(self, name, expected):
        assert names.place(name) == expected

    def test_they_are_told_of_the_session(self, tmp_path):
        made = project.files(count=2, images=False, iterations=())
        made = {
            path.replace("grid_", "g1_12_X+1Y-"): data.replace(b"grid_", b"g1_12_X+1Y-")
            for path, data in made.items()
        }
        run, session = look(project.write(tmp_path, made))
        assert session.exposures["Movies/g1_12_X+1Y-001.tiff"] == {"foil_hole": "g1_12_X+1Y-001"}
        assert set(session.exposures) == set(run.micrographs)


class TestGrowth:
    """Looks after the first tell only what changed, and cost in proportion to it."""

    def test_ten_new_rows_are_put_together_and_no_other(self, tmp_path, monkeypatch):
        made = project.files(count=30, images=False, iterations=())
        root = project.write(tmp_path, made)
        tables = (
            "Import/job001/movies.star",
            "MotionCorr/job002/corrected_micrographs.star",
            "CtfFind/job003/micrographs_ctf.star",
            "AutoPick/job004/autopick.star",
        )
        lasts = {}
        for path in tables:
            *others, lasts[path] = made[path].rstrip().splitlines(keepends=True)
            (root / path).write_bytes(b"".join(others))
        reader = RelionReader(str(root))
        [news] = reader.look()
        assert len(news.micrographs) == 29
        parsed = []
        original = star.split_values
        monkeypatch.setattr(star, "split_values", lambda line: parsed.append(line) or original(line))
        for path in tables:
            with open(root / path, "ab") as handle:
                handle.write(lasts[path] + b"\n")
        [news] = reader.look()
        assert list(news.micrographs) == [project.movie(30)]
        assert {"motion_total", "defocus_u", "picks"} <= set(news.micrographs[project.movie(30)])
        assert len([line for line in parsed if " " in line]) == 4

    def test_a_row_that_changes_is_told_with_what_changed(self, tmp_path):
        made = project.files(count=3, images=False, iterations=())
        root = project.write(tmp_path, made)
        reader = RelionReader(str(root))
        reader.look()
        path = "CtfFind/job003/micrographs_ctf.star"
        project.write(root, {path: made[path].replace(b"12137.000000", b"12138.000000")})
        [news] = reader.look()
        assert news.micrographs == {project.movie(2): {"defocus_u": 12138.0}}

    def unlinked(self, root, status="Running"):
        """A project in which nothing tells the micrographs' movies; return that and the imported movies' table."""
        made = project.files(count=2, status=status, images=False, iterations=())
        movies = made.pop("Import/job001/movies.star")
        links = {path: made.pop(path) for path in list(made) if path.startswith("MotionCorr/job002/Movies")}
        return RelionReader(str(project.write(root, made))), movies, links

    def test_a_micrograph_waits_for_the_table_that_names_its_movie(self, tmp_path):
        """The site keeps to the first name it is told of a movie, so that a guess would stand in the way."""
        reader, movies, _ = self.unlinked(tmp_path)
        assert reader.look()[0].micrographs == {}
        project.write(tmp_path, {"Import/job001/movies.star": movies})
        [news] = reader.look()
        assert list(news.micrographs) == [project.movie(1), project.movie(2)]
        assert news.micrographs[project.movie(1)]["defocus_u"] == 12000

    def test_or_for_its_own_file(self, tmp_path):
        reader, _, links = self.unlinked(tmp_path)
        assert reader.look()[0].micrographs == {}
        project.write(tmp_path, {path: data[:40] for path, data in links.items()})
        assert reader.look()[0].micrographs == {}
        project.write(tmp_path, links)
        assert list(reader.look()[0].micrographs) == [project.movie(1), project.movie(2)]

    @pytest.mark.parametrize("status", ["Running", "Succeeded"])
    def test_but_not_for_ever(self, tmp_path, status, monkeypatch):
        monkeypatch.setattr("emhub_agent.readers.relion.GUESS_AFTER", 0.0 if status == "Running" else 1e9)
        reader, movies, _ = self.unlinked(tmp_path, status)
        assert list(reader.look()[0].micrographs) == ["Movies/grid_001.mrc", "Movies/grid_002.mrc"]
        # And what was told once is not told by another name.
        project.write(tmp_path, {"Import/job001/movies.star": movies})
        assert reader.look()[0].micrographs == {}

    def test_pictures_are_given_as_there_is_room_the_newest_first(self, tmp_path):
        reader = RelionReader(str(project.write(tmp_path, project.files(count=9, iterations=()))))
        reader.room = 4
        seen = []
        for _ in range(6):
            [news] = reader.look()
            assert len(news.pictures) <= 4
            seen += [(picture.kind, picture.micrograph) for picture in reversed(news.pictures)]
        assert len(seen) == len(set(seen)) == 18
        assert seen[0][1] == project.movie(9)
        assert seen[-1][1] == project.movie(1)
        assert reader.backlog == 0

    def test_phase_plates(self, tmp_path):
        made = project.files(count=1, images=False, iterations=())
        path = "CtfFind/job003/micrographs_ctf.star"
        made[path] = made[path].replace(b"rlnCtfIceRingDensity", b"rlnPhaseShift")
        [news] = look(project.write(tmp_path, made))
        assert news.micrographs[project.movie(1)]["phase_shift"] == 0.5

    def test_several_classifications_are_several_sets(self, tmp_path):
        made = project.files(count=2, status="Succeeded", images=False, iterations=(1,))
        made["default_pipeline.star"] = (
            made["default_pipeline.star"]
            .replace(
                b"Class2D/job006/ None",
                b"Class2D/job007/ None relion.class2d Succeeded \nClass2D/job006/ None",
            )
            .replace(
                b"Extract/job005/particles.star Class2D/job006/",
                b"Extract/job005/particles.star Class2D/job006/ \nExtract/job005/particles.star Class2D/job007/",
            )
        )
        made |= {path.replace("job006", "job007"): data for path, data in made.items() if "job006" in path}
        [news] = look(project.write(tmp_path, made))
        assert [found.job for found in news.classes] == ["Class2D/job006", "Class2D/job007"]
