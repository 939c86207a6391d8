"""Scipion 3 projects, written here as Scipion writes them, and the real ones as far as they go."""

import contextlib
import logging
import math
import os
import shutil
import sqlite3
from pathlib import Path

import pytest
from emhub_agent import Client, sqlite
from emhub_agent.motion import motion
from emhub_agent.readers.base import Deferred, ReaderError
from emhub_agent.readers.scipion import ScipionReader
from emhub_agent.sync import Sync
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from . import scipion_project as scipion
from .growing import assert_ends_as_one_clean_pass, settle
from .scipion_project import CLASS2D, CTF, FOLDERS, IMPORT, MOTION, PICK, movie
from .site import SESSION, TOKEN

DATA = Path(__file__).parents[2].parent / "shared" / "data" / "scipion"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return scipion.write(tmp_path_factory.mktemp("made") / "project")


@pytest.fixture
def root(made, tmp_path):
    return Path(shutil.copytree(made, tmp_path / "project"))


@pytest.fixture
def begun(tmp_path):
    """A project whose micrographs are written and whose protocols still run, and the steps that are left."""
    steps = scipion.steps(tmp_path / "project", images=False)
    for step in steps:
        if step == "committed" and _count(tmp_path / "project" / FOLDERS[PICK] / "coordinates.sqlite") == 20:
            break
    return tmp_path / "project", steps


def _count(path):
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT count(*) FROM Objects").fetchone()[0]


def run(path, sql, *values):
    """Change a database as another program does."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute(sql, values)
        connection.commit()


def loaded(fields):
    found = {}
    for key, value in fields.items():
        found.update(value.load() if isinstance(value, Deferred) else {key: value})
    return found


def told(news):
    return {name: loaded(fields) for name, fields in news.micrographs.items()}


def look(reader):
    [news] = reader.look()
    return news


def tree(root):
    return {
        str(path.relative_to(root)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(Path(root).rglob("*"))
        if path.is_file()
    }


# what is read


def test_a_project_is_read_from_movies_to_classes(root):
    news = look(ScipionReader(str(root), key="p"))
    assert news.key == "p/000002_ProtImportMovies"
    assert news.status == "finished"
    assert list(news.micrographs) == [movie(number) for number in range(1, 7)]
    for number, fields in enumerate(told(news).values(), start=1):
        x, y = ([float(value) for value in text.split(",")] for text in scipion.shifts(number))
        steps = [math.dist((x[k], y[k]), (x[k - 1], y[k - 1])) * 0.885 for k in range(1, 6)]
        assert fields["motion_total"] == pytest.approx(sum(steps))
        assert fields["motion_early"] == pytest.approx(steps[0])  # two frames of 1.5 are within 4 e/A2
        assert fields["motion_late"] == pytest.approx(sum(steps[1:]))
        expected = scipion.ctf(number)
        assert fields["defocus_u"] == expected["_defocusU"]
        assert fields["defocus_v"] == expected["_defocusV"]
        assert fields["defocus_angle"] == expected["_defocusAngle"]
        assert fields["ctf_resolution"] == expected["_resolution"]
        assert fields["ctf_score"] == expected["_fitQuality"]
        assert "phase_shift" not in fields
        picked = [[10 * place + number, 5 * place] for place in range(4 if number % 5 else 0)]
        assert fields["coordinates"] == picked  # and none where a finished picker found none
        assert fields["particles"] == len(picked)
    assert {key: news.info[key] for key in ("software", "label", "pixel_size", "width", "height")} == {
        "software": "Scipion",
        "label": "p",
        "pixel_size": 0.885,
        "width": 48,
        "height": 32,
    }
    assert news.info["particle_diameter"] == 180
    assert news.info["parameters"]["ctf.findPhaseShift"] is False
    assert news.info["parameters"]["motion.patchX"] == 7
    assert not [name for name in news.info["parameters"] if "hostName" in name]
    [classes] = news.classes
    assert (classes.job, classes.iteration) == ("000311_ProtRelionClassify2D", 25)
    assert [(row["number"], row["particles"]) for row in classes.classes] == [(1, 10), (2, 20), (3, 30)]
    averages = [picture for picture in news.pictures if picture.kind == "class_average"]
    assert [(picture.number, picture.section) for picture in averages] == [(1, 3), (2, 2), (3, 1)]
    assert sorted(picture.kind for picture in news.pictures) == (
        ["class_average"] * 3 + ["micrograph"] * 6 + ["psd"] * 6
    )


def test_columns_are_found_through_the_files_own_table(tmp_path):
    """A phase plate's column comes between the others, so that each behind it has another number."""
    root = scipion.write(tmp_path / "p", phase_plate=True, images=False)
    first = told(look(ScipionReader(str(root))))[movie(1)]
    assert first["phase_shift"] == 91.0
    assert first["ctf_resolution"] == scipion.ctf(1)["_resolution"]


@pytest.mark.parametrize("missing", ["_resolution", "_fitQuality", "_defocusAngle", "_psdFile"])
def test_a_column_that_is_missing_is_not_told(root, missing):
    run(root / FOLDERS[CTF] / "ctfs.sqlite", "DELETE FROM Classes WHERE label_property = ?", missing)
    fields = told(look(ScipionReader(str(root))))[movie(1)]
    field = {"_resolution": "ctf_resolution", "_fitQuality": "ctf_score", "_defocusAngle": "defocus_angle"}
    assert field.get(missing) not in fields
    assert fields["defocus_u"] == 12001.0


def test_early_and_late_motion_need_a_dose():
    x, y = [0.0, 3.0, 3.0, 3.0], [0.0, 4.0, 4.0, 5.0]
    assert motion(x, y, 2.0, None) == {"motion_total": 12.0}
    assert motion(x, y, 2.0, 2.0) == {"motion_total": 12.0, "motion_early": 10.0, "motion_late": 2.0}
    assert motion(x, y, 2.0, 2.0, before=4.0) == {"motion_total": 12.0, "motion_early": 0, "motion_late": 12}
    assert motion(x, y, 2.0, 1.0, first=4) == {"motion_total": 12.0, "motion_early": 0, "motion_late": 12}
    assert motion([1.0], [1.0], 2.0, 1.0) == {}
    # Five frames of 0.8 are 4 e/A2, whatever floating point makes of it.
    assert motion(range(8), [0] * 8, 1.0, 0.8)["motion_early"] == 4
    with pytest.raises(ValueError, match="4 shifts in x and 3 in y"):
        motion(x, y[:3], 2.0, 1.0)


def test_a_failed_estimate_is_unknown_not_minus_999(root):
    ctfs = root / FOLDERS[CTF] / "ctfs.sqlite"
    run(ctfs, "UPDATE Objects SET c01 = -999, c02 = -1, c03 = -999, c08 = -999, c09 = -999 WHERE id = 2")
    run(ctfs, "UPDATE Objects SET c08 = 'inf' WHERE id = 3")
    fields = told(look(ScipionReader(str(root))))
    assert not {"defocus_u", "defocus_v", "defocus_angle", "ctf_resolution", "ctf_score"} & set(
        fields[movie(2)]
    )
    assert "ctf_resolution" not in fields[movie(3)]
    assert fields[movie(3)]["defocus_u"] == 12003.0


def test_shifts_that_are_no_numbers_are_left_out_by_row(root, caplog):
    run(root / FOLDERS[MOTION] / "movies.sqlite", "UPDATE Objects SET c11 = '1,2,x' WHERE id = 2")
    fields = told(look(ScipionReader(str(root))))
    assert "motion_total" not in fields[movie(2)]
    assert "motion_total" in fields[movie(3)]
    assert "movies.sqlite: row 2 is left out" in caplog.text


def test_a_dose_per_camera_frame_is_that_of_the_frames_that_were_grouped(root):
    """EER: 1.5 e/A2 per aligned frame is 0.1 times 15."""
    movies = root / FOLDERS[MOTION] / "movies.sqlite"
    run(movies, "UPDATE Objects SET c02 = 'Runs/a.eer', c06 = 0.1 WHERE id = 1")
    project = sqlite3.connect(root / "project.sqlite")
    project.execute(
        "INSERT INTO Objects (parent_id, name, classname, value) VALUES (64, '64.eerGroup', 'Integer', '15')"
    )
    project.commit()
    project.close()
    fields = told(look(ScipionReader(str(root))))
    x, y = ([float(value) for value in text.split(",")] for text in scipion.shifts(1))
    assert fields[movie(1)]["motion_early"] == pytest.approx(math.dist((x[0], y[0]), (x[1], y[1])) * 0.885)


def test_resolutions_are_those_of_relions_table_beside_the_averages(root):
    (root / FOLDERS[CLASS2D] / "extra/relion_it025_model.star").write_text(
        "data_model_classes\nloop_\n_rlnReferenceImage #1\n_rlnEstimatedResolution #2\n"
        "000001@a.mrcs 8.5\n000002@a.mrcs inf\n000003@a.mrcs 6.25\n"
    )
    [classes] = look(ScipionReader(str(root))).classes
    assert [row["resolution"] for row in classes.classes] == [6.25, None, 8.5]


def test_the_version_is_that_of_the_protocols_log(root):
    log_file = root / FOLDERS[IMPORT] / "logs/run.stdout"
    log_file.parent.mkdir()
    log_file.write_text(
        "\x1b[32mRUNNING PROTOCOL -----------------\x1b[0m\npyworkflow: 3.11.7\nplugin: pwem\n"
    )
    assert look(ScipionReader(str(root))).info["version"] == "3 (pyworkflow 3.11.7)"


def test_leginons_names_tell_square_and_hole(root):
    name = "24dec03a_00034gr_00003sq_v01_00002hl_00002ex.mrc"
    run(root / FOLDERS[CTF] / "ctfs.sqlite", "UPDATE Objects SET c07 = ? WHERE id = 1", name)
    news, acquisition = ScipionReader(str(root)).look()
    assert told(news)[name]["defocus_u"] == 12001.0
    assert acquisition.exposures == {
        name: {"grid_square": "00034gr_00003sq", "foil_hole": "00034gr_00003sq_00002hl"}
    }


# branches


def second_branch(root, status="finished"):
    """The same movies aligned, estimated and picked once more, in part."""
    project = sqlite3.connect(root / "project.sqlite", isolation_level=None)
    again = scipion.Project.__new__(scipion.Project)
    again.connection = project
    again.protocol(
        510, "ProtMotionCorr", "motioncorr - (FULL)", status, {"inputMovies": (IMPORT, "outputMovies")}
    )
    micrographs = (510, "outputMicrographsDoseWeighted")
    again.protocol(1823, "CistemProtCTFFind", "", status, {"inputMicrographs": micrographs})
    again.protocol(1887, "SphireProtCRYOLOPicking", "", status, {"inputMicrographs": micrographs})
    for id_, file, kind, name in (
        (510, "micrographs_dose-weighted", "SetOfMicrographs", "outputMicrographsDoseWeighted"),
        (1823, "ctfs", "SetOfCTF", "outputCTF"),
        (1887, "coordinates", "SetOfCoordinates", "outputCoordinates"),
    ):
        source = {510: MOTION, 1823: CTF, 1887: PICK}[id_]
        path = f"Runs/{id_:06d}/{file}.sqlite"
        (root / path).parent.mkdir()
        shutil.copy(root / FOLDERS[source] / f"{file.split('_')[0]}.sqlite", root / path)
        again.output(id_, name, kind, path, on=510 if id_ != 510 else None)
    run(root / "Runs/001823/ctfs.sqlite", "UPDATE Objects SET c01 = c01 + 500")
    run(root / "Runs/001887/coordinates.sqlite", "DELETE FROM Objects WHERE c04 != ?", movie(1))
    return project


def test_each_estimate_of_the_ctf_is_a_run_with_its_own_picks(root):
    second_branch(root).close()
    reader = ScipionReader(str(root), key="p")
    first, second = reader.look()
    assert (first.key, second.key) == ("p/000002_ProtImportMovies", "p/000510_ProtMotionCorr")
    assert (first.info["label"], second.info["label"]) == ("p", "p, motioncorr - (FULL)")
    one, other = told(first), told(second)
    assert one[movie(1)]["defocus_u"] + 500 == other[movie(1)]["defocus_u"]
    assert [len(fields["coordinates"]) for fields in one.values()] == [4, 4, 4, 4, 0, 4]
    assert [len(fields["coordinates"]) for fields in other.values()] == [4, 0, 0, 0, 0, 0]
    assert first.classes
    assert not second.classes
    assert "motion_total" in one[movie(1)]
    assert "motion_total" not in other[movie(1)]  # those movies were not written


def test_two_programs_on_the_same_micrographs_share_the_picks(root):
    """As ctffind and gctf side by side: the picker took the micrographs, and belongs to both."""
    project = second_branch(root)
    project.execute(
        "UPDATE Objects SET value = '64' WHERE classname = 'Pointer' AND parent_id IN (1823, 1887)"
    )
    project.execute(
        "UPDATE Objects SET value = 'outputMicrographs' WHERE value = 'outputMicrographsDoseWeighted'"
    )
    project.execute("UPDATE Objects SET value = '64' WHERE classname = 'Pointer' AND value = '510'")
    project.execute("DELETE FROM Objects WHERE id IN (510, 1887)")
    project.close()
    first, second = ScipionReader(str(root), key="p").look()
    assert second.key == "p/001823_CistemProtCTFFind"
    assert told(first)[movie(2)]["particles"] == told(second)[movie(2)]["particles"] == 4
    assert told(first)[movie(2)]["motion_total"] == told(second)[movie(2)]["motion_total"]


def test_an_estimate_that_starts_from_another_is_a_run_of_its_own(root):
    project = second_branch(root)
    project.execute("UPDATE Objects SET value = '64' WHERE classname = 'Pointer' AND value = '510'")
    project.execute(
        "UPDATE Objects SET value = 'outputMicrographs' WHERE value = 'outputMicrographsDoseWeighted'"
    )
    project.execute("DELETE FROM Objects WHERE id IN (510, 1887)")
    again = scipion.Project.__new__(scipion.Project)
    again.connection = project
    pointer = again.add(1823, "1823.ctfRelations", "Pointer", str(CTF))
    again.add(pointer, "1823.1._extended", "String", "outputCTF")
    project.close()
    first, second = ScipionReader(str(root), key="p").look()
    assert told(first)[movie(1)]["defocus_u"] == 12001.0
    assert told(second)[movie(1)]["defocus_u"] == 12501.0
    assert [news.key for news in (first, second)] == [
        "p/000002_ProtImportMovies",
        "p/001823_CistemProtCTFFind",
    ]


def test_what_a_protocol_discards_is_rejected(root):
    """A consensus of CTFs chooses among those of another protocol: it is no run of its own."""
    project = sqlite3.connect(root / "project.sqlite", isolation_level=None)
    again = scipion.Project.__new__(scipion.Project)
    again.connection = project
    again.protocol(400, "XmippProtCTFConsensus", "", "finished", {"inputCTF": (CTF, "outputCTF")})
    for name, rest in (("outputCTF", 2), ("outputCTFDiscarded", 1)):
        path = f"Runs/000400_XmippProtCTFConsensus/{name}.sqlite"
        (root / path).parent.mkdir(exist_ok=True)
        shutil.copy(root / FOLDERS[CTF] / "ctfs.sqlite", root / path)
        run(root / path, f"DELETE FROM Objects WHERE {'id > 2' if rest == 1 else 'id <= 2'}")
        run(root / path, "UPDATE Objects SET c01 = 1")
        again.output(400, name, "SetOfCTF", path)
    project.close()
    fields = told(look(ScipionReader(str(root))))
    assert [fields[movie(number)]["rejected"] for number in range(1, 7)] == [True, True] + [False] * 4
    assert fields[movie(1)]["defocus_u"] == 12001.0


def test_an_item_that_a_person_disabled_is_rejected(root):
    run(root / FOLDERS[CTF] / "ctfs.sqlite", "UPDATE Objects SET enabled = 0 WHERE id = 3")
    fields = told(look(ScipionReader(str(root))))
    assert [name for name in fields if fields[name].get("rejected")] == [movie(3)]


def test_picks_by_hand_give_way_to_a_program(root):
    project = sqlite3.connect(root / "project.sqlite", isolation_level=None)
    project.execute("UPDATE Objects SET classname = 'XmippProtParticlePicking' WHERE id = ?", (PICK,))
    again = scipion.Project.__new__(scipion.Project)
    again.connection = project
    again.protocol(
        100, "SphireProtCRYOLOPicking", "", "finished", {"inputMicrographs": (MOTION, "outputMicrographs")}
    )
    path = "Runs/000100/coordinates.sqlite"
    (root / path).parent.mkdir()
    shutil.copy(root / FOLDERS[PICK] / "coordinates.sqlite", root / path)
    run(root / path, "UPDATE Objects SET c01 = 7 WHERE c04 = ?", movie(1))
    run(root / path, "DELETE FROM Objects WHERE c04 = ?", movie(2))
    again.output(100, "outputCoordinates", "SetOfCoordinates", path, on=MOTION)
    project.close()
    fields = told(look(ScipionReader(str(root))))
    assert {x for x, _ in fields[movie(1)]["coordinates"]} == {7}
    assert fields[movie(2)]["particles"] == 0  # the program looked, and found none


# status and events


def test_a_failure_is_told_with_its_reason(root):
    project = sqlite3.connect(root / "project.sqlite", isolation_level=None)
    project.execute(
        "UPDATE Objects SET value = 'failed' WHERE parent_id = ? AND name LIKE '%.status'", (CTF,)
    )
    project.execute(
        "UPDATE Objects SET value = ? WHERE parent_id = ? AND name LIKE '%._error'",
        ("\x1b[31mctffind: no licence\x1b[0m\nTraceback", CTF),
    )
    project.close()
    reader = ScipionReader(str(root))
    news = look(reader)
    assert news.status == "failed"
    [event] = news.events
    assert event.level == "error"
    assert event.text == "cistem - ctffind4 (000120_CistemProtCTFFind) failed: ctffind: no licence"
    assert event.at.startswith("2026-11-23T09:00:00")
    assert not look(reader).events


def test_a_protocols_own_database_is_ahead_of_the_project(begun):
    """While nobody looks at the project in Scipion, outputs and status are only in the protocol's own copy."""
    root, _ = begun
    place = root / FOLDERS[CTF] / "logs"
    place.mkdir()
    shutil.copy(root / "project.sqlite", place / "run.db")
    output = "SELECT id FROM Objects WHERE classname = 'SetOfCTF'"
    run(root / "project.sqlite", f"DELETE FROM Objects WHERE parent_id IN ({output})")
    run(root / "project.sqlite", "DELETE FROM Objects WHERE classname = 'SetOfCTF'")
    reader = ScipionReader(str(root))
    assert told(look(reader))[movie(1)]["defocus_u"] == 12001.0
    run(place / "run.db", "UPDATE Objects SET value = 'failed' WHERE parent_id = 120 AND name = '120.status'")
    run(
        place / "run.db",
        "UPDATE Objects SET value = 'no space' WHERE parent_id = 120 AND name = '120._error'",
    )
    [event] = look(reader).events
    assert event.text.endswith("failed: no space")
    # What the project says of a protocol that is over counts, whatever is left in its own copy.
    run(root / "project.sqlite", "UPDATE Objects SET value = 'finished' WHERE name LIKE '%.status'")
    assert look(reader).status == "finished"


# growing


def test_new_rows_are_read_and_told_alone(begun):
    root, _ = begun
    reader = ScipionReader(str(root))
    assert len(look(reader).micrographs) == 6
    for table in reader._tables.values():
        table._next_whole = math.inf
    assert look(reader).micrographs == {}
    ctfs = root / FOLDERS[CTF] / "ctfs.sqlite"
    run(
        ctfs,
        "INSERT INTO Objects SELECT 7, 1, '', '', '', 1, 2, 3, '', '', 'a.mrc', 'new.tiff', 4, 5 FROM Objects LIMIT 1",
    )
    assert told(look(reader)) == {
        "new.tiff": {
            "defocus_u": 1,
            "defocus_v": 2,
            "defocus_angle": 3,
            "ctf_resolution": 4,
            "ctf_score": 5,
        }
    }


def test_a_row_changed_in_place_is_noticed(begun):
    root, _ = begun
    reader = ScipionReader(str(root))
    look(reader)
    ctfs = root / FOLDERS[CTF] / "ctfs.sqlite"
    tables = [table for table in reader._tables.values() if table.output.kind == "SetOfCTF"]
    tables[0]._next_whole = math.inf
    run(ctfs, "UPDATE Objects SET c01 = 9000 WHERE id = 3")
    assert look(reader).micrographs == {}  # not yet: it is read from its start now and then
    tables[0]._next_whole = 0.0
    assert told(look(reader)) == {movie(3): {"defocus_u": 9000}}


def test_picks_changed_in_place_are_noticed(begun):
    root, _ = begun
    reader = ScipionReader(str(root))
    look(reader)
    for table in reader._tables.values():
        table._next_whole = 0.0
    run(root / FOLDERS[PICK] / "coordinates.sqlite", "UPDATE Objects SET c01 = 40 WHERE id = 6")
    changed = told(look(reader))
    assert list(changed) == [movie(2)]
    assert [x for x, _ in changed[movie(2)]["coordinates"]] == [2, 40, 22, 32]


def test_a_protocol_done_anew_keeps_what_was_there_until_it_ends(begun):
    root, _ = begun
    reader = ScipionReader(str(root))
    look(reader)
    ctfs = root / FOLDERS[CTF] / "ctfs.sqlite"
    shutil.copy(ctfs, root / "kept.sqlite")
    os.remove(ctfs)
    assert look(reader).micrographs == {}
    shutil.copy(root / "kept.sqlite", ctfs)
    run(ctfs, "UPDATE Objects SET c01 = 20000")
    run(ctfs, "DELETE FROM Objects WHERE id > 1")
    assert told(look(reader)) == {movie(1): {"defocus_u": 20000}}
    run(root / "project.sqlite", "UPDATE Objects SET value = 'finished' WHERE name = '120.status'")
    changed = told(look(reader))
    assert set(changed) == {movie(number) for number in range(2, 7)}
    assert changed[movie(2)] == {
        "defocus_u": None,
        "defocus_v": None,
        "defocus_angle": None,
        "ctf_resolution": None,
        "ctf_score": None,
    }


def test_a_deleted_protocol_takes_its_values_along(root):
    reader = ScipionReader(str(root))
    look(reader)
    project = scipion.Project.__new__(scipion.Project)
    project.connection = sqlite3.connect(root / "project.sqlite", isolation_level=None)
    project.delete(PICK)
    project.close()
    changed = told(look(reader))
    assert changed[movie(1)] == {"coordinates": None, "particles": None}


def test_pictures_are_given_as_there_is_room(root):
    reader = ScipionReader(str(root))
    reader.room = 5
    given = [[picture for picture in look(reader).pictures if picture.kind != "class_average"]]
    assert reader.backlog == 7
    given += [look(reader).pictures for _ in range(3)]
    assert [len(pictures) for pictures in given] == [5, 5, 2, 0]
    assert len({picture.identity for pictures in given for picture in pictures}) == 12


def test_an_idle_look_opens_no_database(root, monkeypatch):
    reader = ScipionReader(str(root))
    reader.look()
    opened = []
    original = sqlite.opened
    monkeypatch.setattr(sqlite, "opened", lambda path, *more: opened.append(path) or original(path, *more))
    reader.look()
    assert opened == []
    run(root / FOLDERS[CTF] / "ctfs.sqlite", "UPDATE Objects SET c01 = 1 WHERE id = 1")
    reader.look()
    assert opened == [str(root / FOLDERS[CTF] / "ctfs.sqlite")]


# the writer is not disturbed


@pytest.mark.parametrize("journal", ["DELETE", "WAL"])
def test_nothing_in_the_project_changes_by_being_read(tmp_path, journal):
    root = scipion.write(tmp_path / "p", images=False, journal=journal)
    before = tree(root)
    reader = ScipionReader(str(root))
    assert told(look(reader))[movie(1)]["particles"] == 4
    reader.look()
    assert tree(root) == before


@pytest.mark.parametrize("journal", ["DELETE", "WAL"])
def test_a_writer_goes_on_while_it_is_read_and_its_open_transaction_is_not_told(tmp_path, journal):
    root = tmp_path / "p"
    steps = scipion.steps(root, count=2, picks=1, images=False, journal=journal)
    reader = None
    seen = set()
    for step in steps:
        before = set(tree(root))
        reader = reader or ScipionReader(str(root))
        for news in reader.look():
            seen |= set(news.micrographs)
        assert set(tree(root)) == before
        if step in ("uncommitted", "committed"):
            with contextlib.closing(sqlite3.connect(root / FOLDERS[IMPORT] / "movies.sqlite")) as other:
                committed = {row[0] for row in other.execute("SELECT c07 FROM Objects")}
            assert seen == committed
    assert seen == {movie(1), movie(2)}


def test_a_locked_database_is_left_for_the_next_look(begun, caplog):
    root, _ = begun
    reader = ScipionReader(str(root))
    look(reader)
    ctfs = root / FOLDERS[CTF] / "ctfs.sqlite"
    writer = sqlite3.connect(ctfs, isolation_level=None)
    writer.execute("UPDATE Objects SET c01 = 9000 WHERE id = 6")
    writer.execute("BEGIN EXCLUSIVE")
    with caplog.at_level(logging.WARNING):
        assert look(reader).micrographs == {}
    assert caplog.text == ""
    writer.execute("ROLLBACK")
    writer.close()
    for table in reader._tables.values():
        table._next_whole = 0.0
    assert told(look(reader)) == {movie(6): {"defocus_u": 9000}}


def test_a_project_that_stays_locked_is_said(root, monkeypatch):
    monkeypatch.setattr("emhub_agent.readers.scipion.FIRST_PATIENCE", 0.05)
    writer = sqlite3.connect(root / "project.sqlite", isolation_level=None)
    writer.execute("BEGIN EXCLUSIVE")
    with pytest.raises(ReaderError, match=r"project\.sqlite cannot be read: database is locked"):
        ScipionReader(str(root)).look()
    writer.close()


def test_picks_that_were_locked_when_they_were_to_be_sent_are_sent_later(begun, site, monkeypatch):
    root, _ = begun
    coordinates = root / FOLDERS[PICK] / "coordinates.sqlite"
    sync = Sync(ScipionReader(str(root), key="p"), Client(site.url, TOKEN), SESSION)
    original = sync.reader.look
    writer = sqlite3.connect(coordinates, isolation_level=None)

    def look_and_lock():
        found = original()
        writer.execute("BEGIN EXCLUSIVE")
        return found

    monkeypatch.setattr(sync.reader, "look", look_and_lock)
    opened = sqlite.opened
    monkeypatch.setattr(sqlite, "opened", lambda path, patience=0.01: opened(path, 0.01))
    sync.numbers()
    assert all("particles" not in row for row in site.runs[1].micrographs.values())
    writer.execute("ROLLBACK")
    writer.close()
    monkeypatch.setattr(sync.reader, "look", original)
    sync.numbers()
    assert [row.get("particles") for row in site.runs[1].micrographs.values()] == [4, 4, 4, 4, None, 4]


@pytest.mark.parametrize("journal", ["DELETE", "WAL"])
def test_the_picks_of_a_batch_are_read_from_a_database_opened_once(tmp_path, site, monkeypatch, journal):
    root = scipion.write(tmp_path / "p", images=False, journal=journal)
    coordinates = root / FOLDERS[PICK] / "coordinates.sqlite"
    opened = []
    original = sqlite.opened
    monkeypatch.setattr(sqlite, "opened", lambda path, *more: opened.append(path) or original(path, *more))
    sync = Sync(ScipionReader(str(root), key="p"), Client(site.url, TOKEN), SESSION, batch=4)
    sync.numbers()
    assert [row["particles"] for row in site.runs[1].micrographs.values()] == [4, 4, 4, 4, 0, 4]
    assert opened.count(str(coordinates)) == 3  # to find them, and once for each batch
    assert sync.reader.held is None


@pytest.mark.parametrize("journal", ["DELETE", "WAL"])
def test_a_database_that_is_held_open_is_read_as_it_is_now(tmp_path, journal):
    root = scipion.write(tmp_path / "p", images=False, journal=journal)
    coordinates = root / FOLDERS[PICK] / "coordinates.sqlite"
    reader = ScipionReader(str(root))
    picks = [fields["picks"] for fields in look(reader).micrographs.values()]
    with reader.loading():
        before = picks[0].load()["coordinates"]
        run(coordinates, "UPDATE Objects SET c01 = 4000 WHERE id = 6")
        assert picks[0].load()["coordinates"] == before
        assert picks[1].load()["coordinates"][1][0] == 4000


def test_a_locked_database_is_waited_for_once_in_a_batch(root, monkeypatch):
    coordinates = root / FOLDERS[PICK] / "coordinates.sqlite"
    reader = ScipionReader(str(root))
    picks = [fields["picks"] for fields in look(reader).micrographs.values()]
    opened = []
    original = sqlite.opened
    monkeypatch.setattr(
        sqlite, "opened", lambda path, patience=0.01: opened.append(path) or original(path, 0.01)
    )
    with contextlib.closing(sqlite3.connect(coordinates, isolation_level=None)) as writer:
        writer.execute("BEGIN EXCLUSIVE")
        with reader.loading():
            for each in picks[:4]:
                with pytest.raises(sqlite.Busy, match="locked"):
                    each.load()
    assert opened == [str(coordinates)]
    with reader.loading():
        assert picks[0].load()["particles"] == 4


# what is not right


def test_a_folder_that_is_no_project_is_said(tmp_path):
    with pytest.raises(ReaderError, match=r"it has no project\.sqlite"):
        ScipionReader(str(tmp_path))
    with pytest.raises(ReaderError, match="There is no folder"):
        ScipionReader(str(tmp_path / "nowhere"))
    (tmp_path / "project.sqlite").write_bytes(b"")
    with pytest.raises(ReaderError, match="cannot be read: it is empty so far"):
        ScipionReader(str(tmp_path)).look()
    (tmp_path / "project.sqlite").write_bytes(b"not a database" * 20)
    with pytest.raises(ReaderError, match="it is not an SQLite database"):
        ScipionReader(str(tmp_path)).look()


def test_an_unknown_setting_is_refused_by_name(root):
    with pytest.raises(ReaderError, match="no setting folow_links"):
        ScipionReader(str(root), settings={"folow_links": True})
    with pytest.raises(ReaderError, match=r"follow_links is .*; it must be true or false"):
        ScipionReader(str(root), settings={"follow_links": "yes"})


@pytest.mark.parametrize("broken", [b"", b"SQLite format 3\0", b"something else", None])
def test_a_broken_set_file_leaves_the_others_as_they_are(root, broken, caplog):
    ctfs = root / FOLDERS[CTF] / "ctfs.sqlite"
    if broken is None:
        ctfs.write_bytes(ctfs.read_bytes()[:5000])  # half-copied
    else:
        ctfs.write_bytes(broken)
    fields = told(look(ScipionReader(str(root))))
    assert "defocus_u" not in fields[movie(1)]
    assert fields[movie(1)]["particles"] == 4
    assert f"{FOLDERS[CTF]}/ctfs.sqlite: " in caplog.text


def test_a_file_that_is_not_there_is_named(root, caplog):
    os.remove(root / FOLDERS[MOTION] / "movies.sqlite")
    assert "motion_total" not in told(look(ScipionReader(str(root))))[movie(1)]
    assert "movies.sqlite: the project names this file, and it is not there" in caplog.text


def test_links_that_lead_out_are_followed_only_if_told(root, tmp_path, caplog):
    outside = tmp_path / "scratch"
    shutil.move(root / FOLDERS[CTF], outside)
    os.symlink(outside, root / FOLDERS[CTF])
    news = look(ScipionReader(str(root)))
    assert "defocus_u" not in told(news)[movie(1)]
    assert "psd" not in {picture.kind for picture in news.pictures}
    assert "links are not followed" in caplog.text
    news = look(ScipionReader(str(root), settings={"follow_links": True}))
    assert told(news)[movie(1)]["defocus_u"] == 12001.0
    assert "psd" in {picture.kind for picture in news.pictures}


def test_a_view_in_place_of_a_table_is_not_run(root, caplog):
    ctfs = root / FOLDERS[CTF] / "ctfs.sqlite"
    run(ctfs, "DROP TABLE Objects")
    run(
        ctfs,
        "CREATE VIEW Objects(id, c01) AS WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n) "
        "SELECT id, id FROM n",
    )
    assert "defocus_u" not in told(look(ScipionReader(str(root))))[movie(1)]
    assert "it has no table Objects" in caplog.text


# from files to the site


@pytest.mark.parametrize(("seed", "journal"), [(0, "DELETE"), (1, "DELETE"), (2, "WAL")])
def test_a_growing_project_ends_as_after_one_clean_pass(tmp_path, seed, journal, monkeypatch):
    """Row by row, looked at within transactions too, with restarts and a site that fails one call in three."""
    root = tmp_path / "project"
    steps = scipion.steps(root, count=4, picks=2, classes=2, batch=1 + seed, journal=journal)
    site = assert_ends_as_one_clean_pass(lambda: ScipionReader(str(root), key="p"), steps, seed)
    [found] = site.runs.values()
    assert len(found.micrographs) == 4
    assert all(row["micrograph_image"] and row["psd_image"] for row in found.micrographs.values())
    assert found.fields["status"] == "finished"


def test_a_second_start_changes_nothing(root, site):
    settle(lambda: ScipionReader(str(root), key="p"), site)
    [found] = site.runs.values()
    revision = found.revision
    sync = settle(lambda: ScipionReader(str(root), key="p"), site)
    assert found.revision == revision
    assert sync.counts.rows["micrographs"] == {"created": 0, "updated": 0, "unchanged": 6, "refused": 0}


# no input does worse than a named error

BYTES = st.lists(st.tuples(st.integers(0, 2**31), st.binary(min_size=1, max_size=8)), min_size=1, max_size=12)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    root = tmp_path_factory.mktemp("pristine")
    scipion.write(root, count=3, images=False)
    return root


def damaged(data, changes, length):
    data = bytearray(data)
    for place, piece in changes:
        place %= len(data)
        data[place : place + len(piece)] = piece
    return bytes(data[: max(0, int(len(data) * length))])


@pytest.mark.parametrize(
    "name",
    [
        "project.sqlite",
        f"{FOLDERS[MOTION]}/movies.sqlite",
        f"{FOLDERS[PICK]}/coordinates.sqlite",
        f"{FOLDERS[CLASS2D]}/classes2D.sqlite",
    ],
)
@given(changes=BYTES, length=st.sampled_from([1.0, 1.0, 1.0, 0.6, 0.2]))
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_damage_does_worse_than_a_named_error(pristine, monkeypatch, name, changes, length):
    monkeypatch.setattr("emhub_agent.readers.scipion.PAUSE", 0)
    whole = (pristine / name).read_bytes()
    try:
        (pristine / name).write_bytes(damaged(whole, changes, length))
        try:
            reader = ScipionReader(str(pristine))
            for news in reader.look():
                for fields in news.micrographs.values():
                    with contextlib.suppress(OSError, ValueError):
                        loaded(fields)
        except ReaderError:
            assert name == "project.sqlite"
    finally:
        (pristine / name).write_bytes(whole)


VALUES = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    st.text(max_size=20).filter(lambda text: text < "\ud800"),
    st.binary(max_size=20),
    st.sampled_from(["nan", "inf", "1_000", "1e400", "1,2", ",", "../../etc/passwd", "\0", "9" * 400]),
)


@given(kind=st.sampled_from(["movies", "micrographs", "ctfs", "coordinates", "classes2D"]), data=st.data())
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_value_does_worse_than_a_named_error(pristine, kind, data):
    """SQLite keeps any value in any column."""
    [path] = [path for path in pristine.glob(f"Runs/*/{kind}.sqlite") if "Import" not in str(path)]
    whole = path.read_bytes()
    try:
        with contextlib.closing(sqlite3.connect(path)) as connection:
            columns = [row[1] for row in connection.execute("PRAGMA table_info(Objects)")][1:]
            for column in data.draw(st.lists(st.sampled_from(columns), min_size=1, max_size=4)):
                with contextlib.suppress(UnicodeEncodeError):
                    connection.execute(f"UPDATE Objects SET {column} = ? WHERE id = 2", (data.draw(VALUES),))
            connection.commit()
        for news in ScipionReader(str(pristine)).look():
            for fields in news.micrographs.values():
                for value in loaded(fields).values():
                    assert value is None or isinstance(value, (list, bool)) or math.isfinite(value)
    finally:
        path.write_bytes(whole)


# the real ones


def test_a_real_project_without_its_set_files(tmp_path, caplog):
    """Of 47 protocols two estimate the CTF, each on its own alignment of the same movies."""
    source = DATA / "3dem-em-testdata-scipion3" / "project.sqlite"
    if not source.is_file():
        pytest.skip("the real project is not on this machine")
    shutil.copy(source, tmp_path)
    first, second = ScipionReader(str(tmp_path), key="p").look()
    assert (first.key, second.key) == ("p/000002_ProtImportMovies", "p/000510_ProtMotionCorr")
    for news in (first, second):
        assert (news.info["pixel_size"], news.info["width"], news.info["height"]) == (0.6485, 5760, 4092)
        assert news.info["particle_diameter"] == 250
        assert news.info["parameters"]["import.voltage"] == 300
        assert news.info["parameters"]["ctf.windowSize"] == 512
        assert news.status == "finished"
        assert news.micrographs == {}
    assert "Runs/000195_CistemProtCTFFind/ctfs.sqlite: the project names this file" in caplog.text
