"""CryoSPARC projects and exports, as runs, micrographs, classes, pictures and events."""

import io
import json
import os
import random
import re
from pathlib import Path

import numpy as np
import pytest
from emhub_agent.motion import motion
from emhub_agent.readers.base import Deferred, ReaderError
from emhub_agent.readers.cryosparc import (
    EXPOSURE_COLUMNS,
    PARTICLE_COLUMNS,
    CryosparcReader,
    Motion,
    Picks,
    movie_name,
    name_of_micrograph,
    trajectory,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from . import cryosparc_project as project
from .growing import assert_ends_as_one_clean_pass

DATA = Path(__file__).parents[2].parent / "shared" / "data" / "cryosparc"


def read(root, **options):
    return CryosparcReader(str(root), **options)


def sent(fields):
    """What goes to the site."""
    found = {}
    for name, value in fields.items():
        found.update(value.load() if isinstance(value, Deferred) else {name: value})
    return found


def only(reader):
    [news] = reader.look()
    return news


@pytest.fixture(params=[(4, False), (5, True)], ids=["v4-numpy", "v5-csdat"])
def made(request):
    version, packed = request.param
    return project.files(version=version, packed=packed)


@pytest.fixture
def root(tmp_path, made):
    return project.write(tmp_path / "CS-t20s", made)


# names


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("J1/imported/015762140416835289736_14sep05c_00024sq.frames.tif", "14sep05c_00024sq.frames.tif"),
        (">J1/imported/10010466727133614921_a.mrc", "a.mrc"),
        ("J1/imported/2026_grid.tif", "2026_grid.tif"),
    ],
)
def test_a_movies_name(path, name):
    assert movie_name(path) == name


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("J2/motioncorrected/015762140416835289736_a.frames_patch_aligned_doseweighted.mrc", "a.frames"),
        ("J30/extract/10010466727133614921_a.frames_patch_aligned_doseweighted_particles.mrc", "a.frames"),
        ("J2/motioncorrected/015762140416835289736_a_rigid_aligned.mrc", "a"),
        ("J1/imported/no_uid_aligned.mrc", "no_uid_aligned.mrc"),
    ],
)
def test_a_micrographs_name(path, name):
    assert name_of_micrograph(path) == name


# a whole project


def test_a_project_is_one_run(root):
    news = only(read(root))
    assert (news.key, news.status) == ("P3/J1", "finished")
    assert news.info["label"] == "CS-t20s"
    assert news.info["version"] in ("4.7.1", "5.0.3")
    assert (news.info["pixel_size"], news.info["width"], news.info["height"]) == (1.315, 96, 64)
    assert news.info["particle_diameter"] == 120
    assert news.info["parameters"]["patch_ctf_estimation_multi.res_max_align"] == 4
    assert list(news.micrographs) == [project.movie(number) for number in range(1, 7)]
    assert news.events == []


def test_every_figure_is_what_the_files_say(root):
    news = only(read(root))
    measured = project.defocus(np.arange(1, 7))
    for number in range(1, 7):
        row = sent(news.micrographs[project.movie(number)])
        place = number - 1
        assert row["defocus_u"] == measured["df1_A"][place]
        assert row["defocus_v"] == measured["df2_A"][place]
        assert row["defocus_angle"] == pytest.approx(
            float(np.degrees(np.float64(measured["df_angle_rad"][place])))
        )
        assert row["ctf_resolution"] == measured["ctf_fit_to_A"][place]
        assert row["ctf_score"] == measured["cross_corr_ctffind4"][place]
        assert row["ice_thickness"] == measured["ice"][place]
        # Zero is what stands there without a phase plate.
        assert ("phase_shift" in row) == (number == 1)
        assert row["rejected"] == (number == 2)
        steps = (
            np.linalg.norm(np.diff(project.trajectory(number)[0].astype(float), axis=0), axis=1)
            * project.PIXEL
        )
        assert row["motion_total"] == pytest.approx(steps.sum())
        # 2 e/Å² a frame: the step to the second is early.
        assert row["motion_early"] == pytest.approx(steps[:1].sum())
        assert row["motion_late"] == pytest.approx(steps[1:].sum())
        # The inspection leaves one pick of each micrograph out; its own file has no places.
        count = max(0, project.picks_of(number, 5) - 1)
        assert row["particles"] == count
        if count:
            expected = project.places(number, 5)[:count].astype(float) * (96, 64)
            assert row["coordinates"] == pytest.approx(expected, abs=0.006)
        else:
            assert row["coordinates"] is None


def test_phase_shift_is_in_degrees(root):
    row = sent(only(read(root)).micrographs[project.movie(1)])
    assert row["phase_shift"] == pytest.approx(np.degrees(1.2), rel=1e-6)


def test_classes_are_those_of_the_newest_iteration(root):
    news = only(read(root))
    [found] = news.classes
    left = project.particles(6, 5, 1)
    counts = np.bincount(project.class_of(left, 4, 1), minlength=4)
    assert (found.job, found.iteration) == ("J7", 1)
    assert [row["number"] for row in found.classes] == [1, 2, 3, 4]
    assert [row["particles"] for row in found.classes] == counts.tolist()
    assert [row["resolution"] for row in found.classes] == [21, 20, 19, 18]
    pictures = [picture for picture in news.pictures if picture.kind == "class_average"]
    # The last class is empty.
    assert [(picture.number, picture.section) for picture in pictures] == [(1, 1), (2, 2), (3, 3)]
    assert {os.path.basename(picture.path) for picture in pictures} == {"J7_001_class_averages.mrc"}


def test_pictures_are_thumbnails_and_spectra(root):
    pictures = only(read(root)).pictures
    names = {project.movie(number) for number in range(1, 7)}
    for kind, word in (("micrograph", "thumb"), ("psd", "ctf_diag")):
        of_kind = [picture for picture in pictures if picture.kind == kind]
        assert {picture.micrograph for picture in of_kind} == names
        assert all(word in picture.path and os.path.exists(picture.path) for picture in of_kind)


def test_pictures_are_given_as_there_is_room(root):
    reader = read(root)
    reader.room = 4
    given = []
    for _ in range(5):
        pictures = [picture for picture in only(reader).pictures if picture.kind != "class_average"]
        given.append((len(pictures), reader.backlog))
        assert len(pictures) <= 4
        if len(given) == 1:
            # What is told last is sent first, and that is the newest.
            assert pictures[-1].micrograph == project.movie(6)
    assert given == [(4, 4), (4, 2), (4, 0), (0, 0), (0, 0)]


def test_a_picture_that_comes_late_is_given_then(root, made):
    paths = [path for path in made if "thumb" in path or "ctf_diag" in path]
    for path in paths:
        (root / path).unlink()
    reader = read(root)
    assert [picture.kind for picture in only(reader).pictures] == ["class_average"] * 3
    project.write(root, {paths[0]: made[paths[0]]})
    [picture] = only(reader).pictures
    assert picture.path.endswith(paths[0])
    assert only(reader).pictures == []


def test_of_pictures_that_are_not_there_the_newest_are_looked_for(root, made, monkeypatch):
    monkeypatch.setattr("emhub_agent.readers.cryosparc.RECENT", 4)
    paths = [path for path in made if "thumb" in path or "ctf_diag" in path]
    for path in paths:
        (root / path).unlink()
    reader = read(root)
    only(reader)
    project.write(root, {path: made[path] for path in paths})
    assert {picture.micrograph for picture in only(reader).pictures} == {project.movie(5), project.movie(6)}


def test_particles_in_any_order_are_the_same_picks(root, made, tmp_path):
    other = project.write(tmp_path / "CS-other", made)
    order = np.random.default_rng(1).permutation(len(project.particles(6, 5)["uid"]))
    found = project.particles(6, 5)
    shuffled = {name: values[order] for name, values in found.items()}
    project.write(
        other,
        {
            "J6/J6_passthrough_particles.cs": project.table(
                {"uid": shuffled["uid"], **project.location(shuffled)}
            )
        },
    )
    expected, picks = (
        {name: sent(fields)["coordinates"] or [] for name, fields in only(read(place)).micrographs.items()}
        for place in (root, other)
    )
    assert sum(map(len, picks.values())) == 5 * 4
    assert {name: sorted(places) for name, places in picks.items()} == {
        name: sorted(places) for name, places in expected.items()
    }


def test_exposures_are_compared_a_block_at_a_time(root, monkeypatch):
    whole = {name: sent(fields) for name, fields in only(read(root)).micrographs.items()}
    monkeypatch.setattr("emhub_agent.readers.cryosparc.BLOCK", 2)
    reader = read(root)
    news = only(reader)
    assert {name: sent(fields) for name, fields in news.micrographs.items()} == whole
    assert list(news.micrographs) == list(whole)


def test_a_comparison_that_breaks_off_leaves_nothing_untold(root, monkeypatch):
    reader = read(root)
    original = CryosparcReader._name
    seen = []

    def fail(self, told, uid, row, other):
        seen.append(uid)
        if len(seen) == 4:
            raise MemoryError
        return original(self, told, uid, row, other)

    monkeypatch.setattr(CryosparcReader, "_name", fail)
    with pytest.raises(MemoryError):
        reader.look()
    monkeypatch.setattr(CryosparcReader, "_name", original)
    assert len(only(reader).micrographs) == 6


class Comparing:
    """How many exposures were compared while this was looked at."""

    def __init__(self, monkeypatch):
        self.count = 0
        original = CryosparcReader._name

        def counted(*arguments):
            self.count += 1
            return original(*arguments)

        monkeypatch.setattr(CryosparcReader, "_name", counted)

    def of(self, reader):
        self.count = 0
        return only(reader).micrographs


def test_only_exposures_that_a_job_tells_something_else_of_are_compared(tmp_path, monkeypatch):
    made = project.files(count=40, images=False, reject=(2,))
    root = project.write(tmp_path, made)
    reader = read(root)
    comparing = Comparing(monkeypatch)
    assert len(comparing.of(reader)) == 40
    assert comparing.count == 40
    again = project.files(count=40, images=False, reject=(2, 30, 31))
    project.write(root, {path: again[path] for path in again if path.startswith("J4/")})
    assert comparing.of(reader) == {project.movie(number): {"rejected": True} for number in (30, 31)}
    assert comparing.count == 2
    monkeypatch.setattr(project, "defocus", shifted(project.defocus, {7: 100}))
    again = project.files(count=40, images=False)
    project.write(root, {path: again[path] for path in again if path.startswith("J3/")})
    changes = comparing.of(reader)
    assert changes == {project.movie(7): {"defocus_u": 12000 + 137 * 7 + 100}}
    assert comparing.count == 1
    os.remove(root / project.aligned(5).replace("_patch_aligned_doseweighted.mrc", "_traj.npy"))
    motions = dict.fromkeys(("motion_total", "motion_early", "motion_late"))
    assert comparing.of(reader) == {project.movie(5): motions}
    assert comparing.count == 1
    # A job that ends with what it had tells nothing.
    project.write(root, {"J4/job.json": made["J4/job.json"].replace(b"completed", b"running")})
    assert comparing.of(reader) == {}
    assert comparing.count == 0


def test_a_motion_job_done_again_under_the_same_names_is_read_again(tmp_path, monkeypatch):
    monkeypatch.setattr("emhub_agent.readers.cryosparc.RECENT", 2)
    made = project.files(count=6, images=False)
    reader = read(project.write(tmp_path, made))
    only(reader)
    for number in range(1, 7):
        place = tmp_path / project.aligned(number).replace("_patch_aligned_doseweighted.mrc", "_traj.npy")
        place.write_bytes(project.array(project.trajectory(number) * 2))
    project.write(tmp_path, {"J2/micrographs.cs": made["J2/micrographs.cs"]})
    assert list(only(reader).micrographs) == [project.movie(number) for number in range(1, 7)]


def test_the_accepted_are_told_once_there_is_something_rejected(tmp_path, made):
    whole = json.loads(made["J4/job.json"])
    part = json.loads(made["J4/job.json"])
    if "output_results" in part:
        part["output_results"] = [row for row in part["output_results"] if "accepted" in row["group_name"]]
    else:
        del part["spec"]["outputs"]["exposures_rejected"]
    root = project.write(tmp_path / "p", {**made, "J4/job.json": json.dumps(part).encode()})
    reader = read(root)
    assert all("rejected" not in row for row in only(reader).micrographs.values())
    project.write(root, {"J4/job.json": json.dumps(whole).encode()})
    assert {name: row["rejected"] for name, row in only(reader).micrographs.items()} == {
        project.movie(number): number == 2 for number in range(1, 7)
    }


def shifted(original, shifts):
    """A project's CTFs of which some are others, by so many Å."""

    def defocus(numbers):
        found = original(numbers)
        found["df1_A"] = found["df1_A"] + np.array([shifts.get(int(each), 0) for each in numbers], "f4")
        return found

    return defocus


@pytest.mark.parametrize("seed", range(6))
def test_whatever_changes_what_was_told_is_what_the_files_tell(tmp_path, seed, monkeypatch):
    """Jobs done again, with more exposures or fewer, other verdicts, picks and CTFs; files that go and come."""
    chance = random.Random(seed)
    original = project.defocus
    told = {}

    def another(count=0):
        shifts = {chance.randint(1, 12): chance.randint(1, 500) for _ in range(chance.randint(0, 3))}
        monkeypatch.setattr(project, "defocus", shifted(original, shifts))
        reject = chance.sample(range(1, 12), chance.randint(0, 3))
        return project.files(
            count=count or chance.randint(5, 11),
            images=False,
            reject=reject,
            leave=chance.randint(0, 2),
            packed=seed % 2 == 1,
            iterations=(0,),
        )

    def rows_of(news):
        return {name: sent(fields) for name, fields in news.micrographs.items()}

    def known(rows):
        rows = {
            name: {key: value for key, value in row.items() if value is not None}
            for name, row in rows.items()
        }
        return {name: row for name, row in rows.items() if row}

    made = another(11)
    reader = read(project.write(tmp_path, made))
    for _ in range(25):
        for name, fields in rows_of(only(reader)).items():
            told.setdefault(name, {}).update(fields)
        fresh = rows_of(only(read(tmp_path)))
        assert known(told) == known(fresh)
        how = chance.random()
        trajectories = sorted(tmp_path.glob("J2/motioncorrected/*_traj.npy"))
        if how < 0.2 and trajectories:
            chance.choice(trajectories).unlink()
        elif how < 0.3:
            project.write(tmp_path, {path: data for path, data in made.items() if path.endswith("_traj.npy")})
        elif how < 0.4:
            job = f"J{chance.randint(2, 6)}/job.json"
            word = chance.choice([b"completed", b"running", b"failed"])
            project.write(tmp_path, {job: re.sub(rb"completed|running|failed", word, made[job], count=1)})
        else:
            made = another()
            jobs = tuple(f"J{number}/" for number in chance.sample(range(2, 7), chance.randint(1, 2)))
            project.write(tmp_path, {path: data for path, data in made.items() if path.startswith(jobs)})


def test_an_idle_look_tells_nothing(root):
    reader = read(root)
    only(reader)
    news = only(reader)
    assert (news.micrographs, news.classes, news.pictures, news.events) == ({}, [], [], [])
    reader.forget("P3/J1")
    assert len(only(reader).micrographs) == 6


def test_one_jobs_folder_is_enough(root):
    """It may name files of others: what lies in the project's folder is found."""
    news = only(read(root / "J3"))
    assert news.key == "P3/J3"
    assert len(news.micrographs) == 0  # only CTF by uid, and no name for it


def test_what_is_passed_through_counts_where_its_own_job_is_gone(root, made):
    found = dict(json.loads(made["J3/job.json"]))
    for path in [path for path in made if path.startswith(("J1/", "J2/"))]:
        (root / path).unlink()
    (root / "J2" / "job.json").unlink(missing_ok=True)
    for name in ("J1", "J2"):
        for folder in sorted((root / name).rglob("*"), reverse=True):
            folder.rmdir()
        (root / name).rmdir()
    uids = np.array([project.uid(number) for number in range(1, 7)], dtype="u8")
    project.write(
        root,
        {
            "J3/J3_passthrough_exposures.cs": project.table(
                {
                    "uid": uids,
                    "movie_blob/path": np.array([project.imported(number) for number in range(1, 7)]),
                }
            )
        },
    )
    result = {
        "name": "movie_blob",
        "passthrough": True,
        "versions": [0],
        "metafiles": ["J3/J3_passthrough_exposures.cs"],
    }
    if "output_results" in found:
        found["output_results"].append({**result, "group_name": "exposures", "type": "exposure.movie_blob"})
    else:
        found["spec"]["outputs"]["exposures"]["results"].append({**result, "dtype": "movie_blob"})
    (root / "J3" / "job.json").write_text(json.dumps(found))
    news = only(read(root))
    assert news.key == "P3/J3"
    assert sent(news.micrographs[project.movie(1)])["defocus_u"] == 12137


# several branches, and jobs as they go


def with_job(root, name, kind, parents, outputs=(), **options):
    project.write(root, {f"{name}/job.json": project.job4(name, kind, parents, outputs, **options)})


def test_a_second_ctf_job_is_a_run_of_its_own(root):
    reader = read(root)
    only(reader)
    (root / "J9").mkdir()
    (root / "J9/exposures.cs").write_bytes((root / "J3/exposures_ctf_estimated.cs").read_bytes())
    with_job(
        root, "J9", "ctf_estimation", ["J2"], [("exposures", "exposure", "ctf", False, ["J9/exposures.cs"])]
    )
    first, second = reader.look()
    assert (first.key, second.key) == ("P3/J1", "P3/J9")
    assert first.micrographs == {}
    assert (first.info["label"], second.info["label"]) == ("CS-t20s", "CS-t20s, J9")
    assert len(second.micrographs) == 6
    assert "picks" not in second.micrographs[project.movie(1)]


def test_a_run_keeps_its_key_as_it_grows(tmp_path, made):
    keys = set()
    root = tmp_path / "CS-t20s"
    reader = None
    for path, data in made.items():
        project.write(root, {path: data})
        if path.endswith("J1/job.json"):
            reader = read(root)
        if reader is not None:
            keys |= {news.key for news in reader.look()}
    assert keys == {"P3/J1"}


def test_a_job_waits_for_those_it_descends_from(root, made):
    """Its parent's job.json is being written: without it the run would have another key."""
    (root / "J2/job.json").write_bytes(made["J2/job.json"][:100])
    reader = read(root)
    news = only(reader)
    assert news.key == "P3/J1"
    assert all("defocus_u" not in row for row in news.micrographs.values())
    (root / "J2/job.json").write_bytes(made["J2/job.json"])
    news = only(reader)
    assert news.key == "P3/J1"
    assert all("defocus_u" in row for row in news.micrographs.values())


def test_what_was_known_of_a_job_stays_while_its_description_is_written(root, made):
    reader = read(root)
    only(reader)
    (root / "J2/job.json").write_bytes(b"")
    (root / "J3/exposures_ctf_estimated.cs").write_bytes(made["J3/exposures_ctf_estimated.cs"][:500])
    news = only(reader)
    assert (news.key, news.micrographs) == ("P3/J1", {})


def test_a_running_job_is_read_by_its_files_names(root, made):
    """Until it is done, its job.json names no results."""
    with_job(root, "J3", "patch_ctf_estimation_multi", ["J2"], status="running")
    news = only(read(root))
    assert news.status == "running"
    assert sent(news.micrographs[project.movie(1)])["defocus_u"] == 12137


@pytest.mark.parametrize(
    ("status", "expected"),
    [("queued", "finished"), ("building", "finished"), ("running", "running"), ("waiting", "running")],
)
def test_the_status_of_a_run(root, status, expected):
    with_job(root, "J9", "template_picker_gpu", ["J3"], status=status)
    assert only(read(root)).status == expected


def test_a_job_that_waits_for_clicks_does_not_keep_a_run_running(root):
    with_job(root, "J9", "curate_exposures_v2", ["J3"], status="waiting")
    assert only(read(root)).status == "finished"


def test_failures_are_told_with_their_reason_once(root):
    with_job(
        root,
        "J9",
        "template_picker_gpu",
        ["J3"],
        status="failed",
        errors=["Traceback:\n  x\nMemoryError: no more\n"],
    )
    with_job(root, "J10", "extract_micrographs_multi", ["J9"], status="killed")
    reader = read(root)
    news = only(reader)
    assert news.status == "failed"
    assert [(event.level, event.text) for event in news.events] == [
        ("error", "J9 failed: MemoryError: no more"),
        ("warning", "J10 was stopped."),
    ]
    assert news.events[0].at
    assert only(reader).events == []


def test_a_deleted_job_takes_its_figures_with_it(root, made):
    reader = read(root)
    only(reader)
    found = json.loads(made["J4/job.json"])
    found["deleted"] = True
    (root / "J4/job.json").write_text(json.dumps(found))
    news = only(reader)
    assert {tuple(row) for row in news.micrographs.values()} == {("rejected",)}
    assert {row["rejected"] for row in news.micrographs.values()} == {None}


def test_picks_that_change_are_told_and_others_not(root, made):
    reader = read(root)
    only(reader)
    left = project.particles(6, 5, 1)
    keep = ~((left["number"] == 4) & (left["uid"] % 2 == 0))
    project.write(
        root,
        {
            "J6/inspected_particles.cs": project.table(
                {"uid": left["uid"][keep], "pick_stats/power": left["x"][keep]}
            )
        },
    )
    news = only(reader)
    assert list(news.micrographs) == [project.movie(4)]
    assert sent(news.micrographs[project.movie(4)])["particles"] == 2


def test_a_trajectory_that_comes_late_is_read_then(tmp_path, made):
    late = next(path for path in made if path.endswith("_traj.npy"))
    root = project.write(tmp_path / "p", {path: data for path, data in made.items() if path != late})
    reader = read(root)
    assert "motion" not in only(reader).micrographs[project.movie(1)]
    project.write(root, {late: made[late]})
    news = only(reader)
    assert [list(row) for row in news.micrographs.values()] == [["motion"]]


def test_motion_needs_no_dose():
    places = project.trajectory(1)
    found = motion(*trajectory(places), 2.0)
    assert list(found) == ["motion_total"]
    assert found["motion_total"] == pytest.approx(
        np.linalg.norm(np.diff(places[0], axis=0), axis=1).sum() * 2, rel=1e-5
    )
    for wrong in (np.zeros((2, 3, 2)), np.zeros(4), np.zeros((0, 2)), np.full((3, 2), np.nan)):
        with pytest.raises(ValueError):
            motion(*trajectory(wrong), 1.0)


# names that mean two exposures


def test_the_same_name_from_two_folders(tmp_path):
    uids = np.array([project.uid(number) for number in (1, 2)], dtype="u8")
    paths = [f"J1/imported/{number:021d}_a.tif" for number in uids.tolist()]
    root = project.write(
        tmp_path / "p",
        {
            "J1/imported_movies.cs": project.table({"uid": uids, "movie_blob/path": np.array(paths)}),
            "J1/job.json": project.job4(
                "J1",
                "import_movies",
                outputs=[("movies", "exposure", "movie_blob", False, ["J1/imported_movies.cs"])],
            ),
        },
    )
    (root / "J1/imported").mkdir()
    for path, folder in zip(paths, ("square1", "square2"), strict=True):
        (root / path).symlink_to(f"/data/{folder}/a.tif")
    assert sorted(only(read(root)).micrographs) == ["a.tif", "square2/a.tif"]
    (root / paths[1]).unlink()
    assert list(only(read(root)).micrographs) == ["a.tif"]


# loose files


@pytest.fixture
def loose(tmp_path, made):
    """The same results without the jobs, as somebody who exported them has them."""
    names = {
        "J1/imported_movies.cs": "J1_imported_movies.cs",
        "J3/exposures_ctf_estimated.cs": "P3_J3_exposures_exported.cs",
        "J4/exposures_rejected.cs": "P3_J4_exposures_rejected_exported.cs",
        "J4/exposures_accepted.cs": "P3_J4_exposures_accepted_exported.cs",
        "J6/inspected_particles.cs": "J6_inspected_particles.cs",
        "J6/J6_passthrough_particles.cs": "deeper/J6_passthrough_particles.cs",
        "J7/J7_001_class_averages.cs": "J7_001_class_averages.cs",
        "J7/J7_001_particles.cs": "J7_001_particles.cs",
    }
    return project.write(tmp_path / "exports", {name: made[path] for path, name in names.items()})


def test_loose_files_are_one_run(loose):
    news = only(read(loose))
    assert (news.key, news.status) == ("exports", "finished")
    assert list(news.micrographs) == [project.movie(number) for number in range(1, 7)]
    row = sent(news.micrographs[project.movie(2)])
    assert (row["defocus_u"], row["rejected"]) == (12274, True)
    # Nobody says which of the files is a choice from the other: every particle in any of them counts.
    assert row["particles"] == 5
    assert len(row["coordinates"]) == 5
    [found] = news.classes
    assert (found.job, sum(row["particles"] for row in found.classes)) == (
        "J7",
        len(project.particles(6, 5, 1)["uid"]),
    )


def test_what_lies_deep_below_loose_files_is_left_alone(loose, made):
    """A folder of many things is not a place of exports: projects in it, and jobs an export brings along."""
    project.write(loose / "CS-other", {**made, "project.json": b"{}"})
    project.write(loose / "J3", {"J3_exposures.cs": b"not whole"})
    project.write(loose / "a/b/c", {"J1_imported_movies.cs": b"not whole"})
    reader = read(loose)
    assert not any(name.startswith(("CS-other", "J3/", "a/")) for name in reader._loose_files())
    assert len(only(reader).micrographs) == 6


def test_a_folder_without_anything_is_said(tmp_path):
    with pytest.raises(ReaderError, match="no job's folder"):
        read(tmp_path)
    (tmp_path / "J1").mkdir()
    with pytest.raises(ReaderError, match="no job's folder"):
        read(tmp_path)
    with pytest.raises(ReaderError, match="There is no folder"):
        read(tmp_path / "nowhere")
    with pytest.raises(ReaderError, match="no setting colour"):
        read(tmp_path, settings={"colour": 1})


# what a project should not be able to do


def test_nothing_outside_of_the_project_is_read(tmp_path, made, caplog):
    root = project.write(tmp_path / "p", made)
    outside = tmp_path / "elsewhere.cs"
    outside.write_bytes(made["J3/exposures_ctf_estimated.cs"])
    (root / "J3/exposures_ctf_estimated.cs").unlink()
    (root / "J3/exposures_ctf_estimated.cs").symlink_to(outside)
    news = only(read(root))
    assert all("defocus_u" not in row for row in news.micrographs.values())
    assert "links are not followed" in caplog.text
    news = only(read(root, settings={"follow_links": True}))
    assert all("defocus_u" in row for row in news.micrographs.values())


def test_a_link_beside_files_that_are_read_is_not_followed(tmp_path, made):
    outside = tmp_path / "elsewhere.npy"
    root = project.write(tmp_path / "CS-x", made)
    [first, *_] = sorted((root / "J2" / "motioncorrected").glob("*_traj.npy"))
    first.rename(outside)
    first.symlink_to(outside)
    found = {name: sent(fields) for name, fields in only(read(root)).micrographs.items()}
    assert [name for name, fields in found.items() if "motion_total" not in fields] == [project.movie(1)]
    followed = only(read(root, settings={"follow_links": True}))
    assert "motion_total" in sent(followed.micrographs[project.movie(1)])


def test_a_folder_that_becomes_a_link_is_not_followed(tmp_path, made):
    root = project.write(tmp_path / "CS-x", made)
    reader = read(root)
    assert "motion" in only(reader).micrographs[project.movie(1)]
    (root / "J2" / "motioncorrected").rename(tmp_path / "elsewhere")
    (root / "J2" / "motioncorrected").symlink_to(tmp_path / "elsewhere")
    reader.forget("P3/J1")
    news = only(reader)
    assert len(news.micrographs) == 6
    assert not any("motion" in fields for fields in news.micrographs.values())


def test_jobs_that_descend_from_each_other_end(tmp_path):
    root = tmp_path / "p"
    with_job(root, "J1", "import_movies", ["J2"])
    with_job(root, "J2", "patch_ctf_estimation_multi", ["J1"])
    assert [news.key for news in read(root).look()] == ["P3/J1"]


def test_a_broken_file_is_named_and_the_others_are_read(root, caplog):
    (root / "J3/exposures_ctf_estimated.cs").write_bytes(b"\x93NUMPY\x01\x00\x10\x00{'descr': what}\n")
    (root / "J9").mkdir()
    (root / "J9/job.json").write_text("[]")
    news = only(read(root))
    assert len(news.micrographs) == 6
    assert "J3/exposures_ctf_estimated.cs: " in caplog.text
    assert "J9/job.json: not a JSON object" in caplog.text


def test_what_is_equal_is_not_told_again():
    points = np.array([[0.5, 0.25]], dtype="f4")
    assert Picks(1, points, (10, 20)) == Picks(1, points.copy(), (10, 20))
    assert hash(Picks(1, points, (10, 20))) == hash(Picks(1, points.copy(), (10, 20)))
    assert Picks(1, points, (10, 20)) != Picks(1, points * 2, (10, 20))
    assert Motion("a", (1, 2), 1.0, None, None) != Motion("a", (1, 3), 1.0, None, None)


COLUMNS = [*EXPOSURE_COLUMNS, *PARTICLE_COLUMNS, "alignments2D/class", "blob/idx", "blob/res_A"]


@st.composite
def strange_tables(draw):
    """Tables with the names of columns that are read, and anything in them."""
    names = draw(st.lists(st.sampled_from(COLUMNS), min_size=1, max_size=8, unique=True))
    kinds = st.sampled_from(["<u8", "<i4", "<f4", "<f8", "|S3", "<U2", "|b1", "<c8"])
    shapes = st.sampled_from([(), (1,), (2,), (3,), (2, 2)])
    rows = draw(st.integers(0, 3))
    types = [
        (name, "<u8") if name == "uid" and draw(st.booleans()) else (name, draw(kinds), draw(shapes))
        for name in names
    ]
    dtype = np.dtype(types)
    table = np.frombuffer(
        draw(st.binary(min_size=rows * dtype.itemsize, max_size=rows * dtype.itemsize)), dtype
    )
    stream = io.BytesIO()
    np.save(stream, table)
    return stream.getvalue()


@settings(max_examples=150, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["J1_exposures", "J2_particles", "J2_class_averages", "x"]), strange_tables()
    )
)
def test_whatever_is_in_the_tables_the_reader_goes_on(tmp_path_factory, tables):
    root = tmp_path_factory.mktemp("strange")
    project.write(root, {f"{name}.cs": data for name, data in {"J1_movies": b"", **tables}.items()})
    reader = read(root)
    for _ in range(2):
        for news in reader.look():
            for fields in news.micrographs.values():
                sent({name: value for name, value in fields.items() if not isinstance(value, Motion)})


# growing


def as_it_is_processed(made, root, seed):
    """Write the project as its jobs do: described as running first, files in pieces, some written anew in place,
    the description with the results last. Yields after each piece."""
    chance = random.Random(seed)

    def put(path, data):
        place = root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        for part in (data[: chance.randrange(len(data))], data):
            place.write_bytes(part)
            yield

    jobs = [path for path in made if path.endswith("/job.json")]
    for description in jobs:
        found = json.loads(made[description])
        running = {**found, "status": "running", "completed_at": None, "output_results": []}
        if "spec" in found:
            running["spec"] = {**found["spec"], "outputs": {}}
        yield from put(description, json.dumps(running).encode())
        folder = description.split("/")[0] + "/"
        mine = [path for path in made if path.startswith(folder) and path != description]
        if chance.random() < 0.5:
            chance.shuffle(mine)
        for path in mine:
            if path.endswith(".cs") and chance.random() < 0.3:
                yield from put(
                    path, chance.choice([made["J1/imported_movies.cs"], made[path][:-30] + b"x" * 30])
                )
            yield from put(path, made[path])
        yield from put(description, made[description])


@pytest.mark.parametrize("seed", range(4))
def test_a_growing_project_ends_as_after_one_clean_pass(tmp_path, seed):
    made = project.files(count=4, version=4 + seed % 2, packed=bool(seed % 2), images=seed < 2)
    root = tmp_path / "CS-t20s"
    root.mkdir()
    site = assert_ends_as_one_clean_pass(
        lambda: read(root, key="p"), as_it_is_processed(made, root, seed), seed
    )
    [run] = site.runs.values()
    assert len(run.micrographs) == 4
    assert run.fields["status"] == "finished"


# real files


@pytest.mark.skipif(not DATA.is_dir(), reason="no shared/data/cryosparc beside the project")
def test_the_collected_files_are_read(caplog):
    fixture = only(read(DATA / "cryosparc-tools-t20s-fixture"))
    assert len(fixture.micrographs) == 20
    job = only(read(DATA / "t20s-J209-job-v2.15"))
    assert (job.key, len(job.micrographs), job.info["version"]) == ("P9/J209", 196, "2.15.0")
    # Of the six iterations the collection holds one.
    assert [event.text for event in job.events] == [
        "J209: the particles of version 0 are read; those of 5 are not there."
    ]
    assert only(read(DATA / "cryosparc-tools-4k-dataset")).micrographs == {}
    assert not caplog.records
