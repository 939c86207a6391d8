"""The watcher of the microscope's folder: what it finds, what it keeps, and what it lets people keep."""

import logging
import os
import shutil
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from emhub_agent import Client, movies, names
from emhub_agent.clock import Clock
from emhub_agent.readers import acquisition
from emhub_agent.readers.acquisition import AcquisitionReader
from emhub_agent.readers.base import ReaderError
from emhub_agent.sync import Sync
from hypothesis import given, settings
from hypothesis import strategies as st

from . import growing, project
from .microscope import epu_session, mdoc, older, shared, tif, write, xml
from .site import SESSION, TOKEN

ZONE = {"time_zone": "Europe/Stockholm"}


def reader(root, **given):
    return AcquisitionReader(str(root), settings={**ZONE, **given})


def look(watcher):
    [news] = watcher.look()
    return news


@pytest.fixture
def clock(monkeypatch):
    """Lets time pass for the watcher, in seconds."""

    class Passing:
        passed = 0.0

        def time(self):
            return real_time() + self.passed

        def monotonic(self):
            return real_monotonic() + self.passed

    real_time, real_monotonic = acquisition.time.time, acquisition.time.monotonic
    passing = Passing()
    monkeypatch.setattr(acquisition, "time", passing)
    return passing


# what is found


def test_a_session_of_epu(tmp_path):
    made = epu_session()
    news = look(reader(write(tmp_path, made)))
    assert news.fields == {
        "data_files": len(made),
        "data_movies": 8,
        "data_bytes": sum(map(len, made.values())),
        "data_path": str(tmp_path),
        "last_file_at": news.fields["last_file_at"],
        "voltage_kv": 300,
        "magnification": 105000,
        "pixel_size": 0.83,
        "total_dose": 50,
        "frames": 40,
        "dose_per_frame": 1.25,
        "exposure_time": 2.5,
        "energy_slit": 10,
        "spot_size": 6,
    }
    newest = max(os.stat(tmp_path / name).st_mtime for name in made)
    assert datetime.fromisoformat(news.fields["last_file_at"]).timestamp() == int(newest)
    assert len(news.exposures) == 8
    assert news.exposures["FoilHole_10_Data_77_5_20261122_220005"] == {
        "acquired_at": "2026-11-22T21:00:05.500000+00:00",
        "grid_square": "9001",
        "foil_hole": "10",
        "stage_x": 1.25,
        "stage_y": -0.5,
        "beam_shift_x": 0.625,
        "beam_shift_y": 0,
    }


def test_looking_again_tells_nothing_and_opens_nothing(tmp_path, monkeypatch):
    watcher = reader(write(tmp_path, epu_session()))
    first = look(watcher)
    monkeypatch.setattr(watcher, "_open", None)
    again = look(watcher)
    assert (again.fields, again.exposures) == (first.fields, {})


def test_only_what_is_new_is_looked_at(tmp_path, monkeypatch):
    made = epu_session()
    last = [name for name in made if "_77_8_" in name]
    watcher = reader(write(tmp_path, {name: data for name, data in made.items() if name not in last}))
    look(watcher)
    opened = []
    original = watcher._open
    monkeypatch.setattr(
        watcher, "_open", lambda place, name, done: (opened.append(name), original(place, name, done))
    )
    write(tmp_path, {name: made[name] for name in last})
    assert list(look(watcher).exposures) == ["FoilHole_11_Data_77_8_20261122_220008"]
    assert sorted(opened) == sorted(os.path.basename(name) for name in last)


def test_metadata_before_or_after_the_movie_come_to_the_same(tmp_path):
    made = epu_session(squares=1, holes=1, movies=1)
    movie = next(name for name in made if name.endswith(".tiff"))
    first = next(name for name in made if "_Data_" in name and name.endswith(".xml"))
    whole = look(reader(write(tmp_path / "whole", made)))
    for held in (movie, first):
        root = tmp_path / ("late" + Path(held).suffix)
        watcher = reader(write(root, {name: data for name, data in made.items() if name != held}))
        before = look(watcher)
        write(root, {held: made[held]})
        after = look(watcher)
        [(name, fields)] = whole.exposures.items()
        assert {**before.exposures.get(name, {}), **after.exposures.get(name, {})} == fields
        assert {**after.fields, "data_path": ""} == {
            **whole.fields,
            "data_path": "",
            "last_file_at": after.fields["last_file_at"],
        }


def test_a_fractions_xml_is_not_a_second_exposure_and_tells_the_frames(tmp_path):
    stem = "GridSquare_7/Data/FoilHole_1_Data_2_3_20180827_181557"
    made = {
        f"{stem}.xml": shared("epu/transphire-epu1.8-1.11/xml_epu_1_11_falcon_vpp.xml").read_bytes(),
        f"{stem}_Fractions.xml": b"<Acquisition><Info><RecordedNumberOfFractions>38</RecordedNumberOfFractions>"
        b"</Info></Acquisition>",
        f"{stem}_Fractions.mrc": project.mrc(np.zeros((3, 8, 8), np.int16)),
        f"{stem}.mrc": project.mrc(np.zeros((8, 8), np.int16)),
    }
    news = look(reader(write(tmp_path, made)))
    assert list(news.exposures) == ["FoilHole_1_Data_2_3_20180827_181557"]
    assert (news.fields["data_movies"], news.fields["frames"]) == (1, 38)


def test_a_binned_previews_pixel_size_is_the_movies_by_its_own_width(tmp_path):
    """The preview has 2,880 pixels of 1.06 Å, the movie 5,760 of half that: FORMATS of EPU with a K3."""
    stem = "GridSquare_7/Data/FoilHole_1_Data_2_3_20250108_154915"
    made = {f"{stem}.xml": xml(pixel=1.06, binning=2, factor=2, width=2880)}
    watcher = reader(write(tmp_path, made))
    assert "pixel_size" not in look(watcher).fields
    write(tmp_path, {f"{stem}_Fractions.tiff": tif(width=5760)})
    assert look(watcher).fields["pixel_size"] == pytest.approx(0.53)


def test_files_flat_in_a_folder_with_their_metadata_elsewhere(tmp_path):
    made = epu_session(squares=1)
    movies_folder, metadata = tmp_path / "movies", tmp_path / "epu"
    write(movies_folder, {os.path.basename(n): d for n, d in made.items() if n.endswith(".tiff")})
    write(metadata, {n: d for n, d in made.items() if not n.endswith(".tiff")})
    news = look(reader(movies_folder, metadata=[str(metadata)]))
    assert {fields["grid_square"] for fields in news.exposures.values()} == {"9000"}
    assert (news.fields["data_files"], news.fields["data_movies"], len(news.exposures)) == (4, 4, 4)


def test_movies_of_serialem_with_an_mdoc_each(tmp_path):
    news = look(
        reader(
            write(
                tmp_path,
                {
                    "frames/frames_001.tif": tif(),
                    "frames/frames_001.tif.mdoc": mdoc(NavigatorLabel="726"),
                    "frames/gain.mrc": project.mrc(np.zeros((8, 8), np.float32)),
                    "LMM.mrc": project.mrc(np.zeros((4, 8, 8), np.int16)),
                    "LMM.mrc.mdoc": shared("serialem/mdocfile-tests/montage_section.mdoc").read_bytes(),
                },
            )
        )
    )
    assert news.exposures == {
        "frames_001.tif": {
            "acquired_at": "2026-11-22T21:15:07+00:00",
            "foil_hole": "726",
            "stage_x": -142.82,
            "stage_y": -457.442,
            "beam_shift_x": 2.69654,
            "beam_shift_y": -0.304661,
        }
    }
    assert (news.fields["data_files"], news.fields["data_movies"]) == (5, 1)
    assert (news.fields["pixel_size"], news.fields["total_dose"], news.fields["frames"]) == (1.2827, 7.66, 12)


def test_a_series_of_tilts_names_its_movies(tmp_path):
    source = shared("serialem/mdocfile-tests/tilt_series.mdoc")
    made = {
        "TS_01.mrc.mdoc": source.read_bytes(),
        "TS_01.mrc": project.mrc(np.zeros((41, 8, 8), np.int16)),
        "frames/TS_01_000_0.0.mrc": project.mrc(np.zeros((8, 8, 8), np.int16)),
    }
    news = look(reader(write(tmp_path, made)))
    assert len(news.exposures) == 41
    assert "TS_01.mrc" not in news.exposures
    assert news.exposures["TS_01_000_0.0.mrc"]["stage_x"] == 20.7936
    assert news.fields["data_movies"] == 1


def test_movies_of_any_kind_without_metadata(tmp_path):
    stack = project.mrc(np.zeros((4, 16, 16), np.uint16))
    made = {
        "a.tif": tif(4),
        "b.tiff": tif(4),
        "c.mrc": stack,
        "d.mrcs": stack,
        "e.eer": b"II" + bytes(100),
        "one_image.tif": tif(1),
        "one_image.mrc": project.mrc(np.zeros((16, 16), np.uint16)),
        "24dec03a_00034gr_00003sq_v01_00002hl_00002ex.frames.mrc": stack,
        "readme.txt": b"hello",
    }
    news = look(reader(write(tmp_path, made, age=7200)))
    assert sorted(news.exposures) == sorted([*list(made)[:5], list(made)[7]])
    written = datetime.fromisoformat(news.exposures["a.tif"]["acquired_at"]).timestamp()
    assert written == int(os.stat(tmp_path / "a.tif").st_mtime)
    assert news.fields["frames"] == 4
    leginon = news.exposures[list(made)[7]]
    # As the readers of pipelines tell them, for the two meet in one exposure.
    expected = names.place(list(made)[7])
    assert expected["foil_hole"] == "00034gr_00003sq_00002hl"
    assert {name: leginon[name] for name in expected} == expected
    assert look(reader(tmp_path, file_times=False)).exposures["a.tif"] == {}


def test_metadata_that_come_later_leave_what_the_name_tells(tmp_path):
    name = "24dec03a_00034gr_00003sq_v01_00002hl_00002ex.tif"
    watcher = reader(write(tmp_path, {name: tif()}))
    assert look(watcher).exposures[name]["foil_hole"] == "00034gr_00003sq_00002hl"
    write(tmp_path, {f"{name}.mdoc": mdoc(StagePosition="1 2", NavigatorLabel="")})
    look(watcher)
    watcher.forget("")
    fields = look(watcher).exposures[name]
    assert (fields["foil_hole"], fields["stage_x"]) == ("00034gr_00003sq_00002hl", 1.0)


def test_names_that_come_twice_get_their_folder(tmp_path):
    write(tmp_path, {"grid1/frame_001.tif": tif(), "grid1/frame_001.tif.mdoc": mdoc(StagePosition="1 2")})
    watcher = reader(tmp_path)
    assert list(look(watcher).exposures) == ["frame_001.tif"]
    # Its metadata come before it, and must not be taken for those of the other grid's.
    write(tmp_path, {"grid2/frame_001.tif.mdoc": mdoc(StagePosition="8 9")}, age=100)
    assert look(watcher).exposures == {}
    write(tmp_path, {"grid2/frame_001.tif": tif()}, age=100)
    assert look(watcher).exposures["grid2/frame_001.tif"]["stage_x"] == 8
    told = look(reader(tmp_path)).exposures
    assert (told["frame_001.tif"]["stage_x"], told["grid2/frame_001.tif"]["stage_x"]) == (1, 8)
    assert sorted(look(reader(tmp_path, names="path")).exposures) == [
        "grid1/frame_001.tif",
        "grid2/frame_001.tif",
    ]


def test_what_is_not_the_microscopes_is_left_alone(tmp_path):
    made = {
        "a.tif": tif(),
        ".hidden/b.tif": tif(),
        ".b.tif.Xy12": tif(),
        "c.tif.part": tif(),
        "relion/default_pipeline.star": b"data_",
        "relion/Extract/job005/particles.mrcs": b"x",
        "old/d.tif": tif(),
    }
    news = look(reader(write(tmp_path, made), skip=["old"]))
    assert (list(news.exposures), news.fields["data_files"]) == (["a.tif"], 1)


def test_links_are_not_followed_unless_told(tmp_path):
    outside = write(tmp_path / "outside", {"secret.tif": tif()})
    root = write(tmp_path / "session", {"a.tif": tif()})
    (root / "out").symlink_to(outside)
    (root / "b.tif").symlink_to(outside / "secret.tif")
    (root / "circle").symlink_to(root)
    assert list(look(reader(root)).exposures) == ["a.tif"]
    followed = look(reader(root, follow_links=True))
    assert sorted(followed.exposures) == ["a.tif", "b.tif", "secret.tif"]
    assert followed.fields["data_files"] == 3


# files that are written, moved, deleted or cannot be read


def test_a_movie_counts_once_it_is_not_written_any_more(tmp_path, clock):
    whole = tif()
    write(tmp_path, {"a.tif": whole[:200]}, age=0)
    watcher = reader(tmp_path)
    news = look(watcher)
    assert (news.fields["data_files"], news.fields["data_bytes"]) == (1, 200)
    assert (news.fields["data_movies"], news.exposures) == (0, {})
    clock.passed += 20
    with (tmp_path / "a.tif").open("ab") as handle:
        handle.write(whole[200:])
    older(tmp_path / "a.tif", -20)
    news = look(watcher)
    assert (news.fields["data_bytes"], news.fields["data_movies"]) == (len(whole), 0)
    clock.passed += 29
    assert look(watcher).fields["data_movies"] == 0
    clock.passed += 2
    news = look(watcher)
    assert (news.fields["data_movies"], list(news.exposures)) == (1, ["a.tif"])
    clock.passed += 2000
    assert look(watcher).exposures == {}
    assert not watcher._watched


def test_a_server_whose_clock_is_ahead(tmp_path, clock):
    """The file's time lies in the future for us: how long it was seen unchanged counts."""
    write(tmp_path, {"a.tif": tif()}, age=-3000)
    watcher = reader(tmp_path)
    assert look(watcher).exposures == {}
    clock.passed += 31
    assert list(look(watcher).exposures) == ["a.tif"]


def test_a_movie_that_stays_broken_is_named(tmp_path, caplog):
    write(tmp_path, {"a.tif": tif()[:100], "b.tif": tif(), "c.mrc": b"no movie", "d_Data_.xml": b"<"})
    write(tmp_path, {"FoilHole_1_Data_2_3_20261122_221500.xml": b"<MicroscopeImage>"})
    with caplog.at_level(logging.WARNING):
        news = look(reader(tmp_path))
    assert list(news.exposures) == ["b.tif"]
    assert news.fields["data_files"] == 5
    named = " ".join(record.getMessage() for record in caplog.records)
    assert all(name in named for name in ("a.tif", "c.mrc", "FoilHole_1_Data_2_3_20261122_221500.xml"))
    assert "b.tif" not in named


def test_what_was_taken_away_stays_counted_and_what_moved_counts_once(tmp_path):
    made = {f"{name}.tif": tif(seed=number) for number, name in enumerate("abcd")}
    watcher = reader(write(tmp_path, made))
    before = look(watcher).fields
    (tmp_path / "a.tif").unlink()
    (tmp_path / "archive").mkdir()
    os.rename(tmp_path / "b.tif", tmp_path / "archive/b.tif")
    news = look(watcher)
    assert (news.fields, news.exposures) == (before, {})
    shutil.rmtree(tmp_path / "archive")
    assert look(watcher).fields == before
    write(tmp_path, {"e.tif": tif(seed=9)})
    assert look(watcher).fields["data_movies"] == 5


def test_or_only_what_is_there_counts(tmp_path):
    made = {f"{name}/{name}.tif": tif(seed=number) for number, name in enumerate("abcd")}
    watcher = reader(write(tmp_path, made), counters="present")
    look(watcher)
    (tmp_path / "a/a.tif").unlink()
    os.rename(tmp_path / "b/b.tif", tmp_path / "c/b.tif")
    shutil.rmtree(tmp_path / "d")
    fields = look(watcher).fields
    left = list(tmp_path.rglob("*.tif"))
    assert fields["data_files"] == fields["data_movies"] == len(left) == 2
    assert fields["data_bytes"] == sum(path.stat().st_size for path in left)


@pytest.mark.parametrize("counters", ["seen", "present"])
@pytest.mark.parametrize("how", ["gone", "empty"])
def test_a_share_that_goes_away_reports_no_zero(tmp_path, counters, how, caplog):
    root = write(tmp_path / "share", epu_session())
    watcher = reader(root, counters=counters)
    before = look(watcher).fields
    os.rename(root, tmp_path / "away")
    if how == "empty":
        root.mkdir()  # what is left of a share that was unmounted
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            news = look(watcher)
            assert (news.fields, news.exposures) == (before, {})
        assert len([record for record in caplog.records if "waiting" in record.message]) == 1
        if how == "empty":
            root.rmdir()
        os.rename(tmp_path / "away", root)
        news = look(watcher)
        assert (news.fields, news.exposures) == (before, {})
        assert caplog.records[-1].getMessage().endswith("is back.")


def test_folders_and_files_that_may_not_be_read(tmp_path, monkeypatch, caplog, clock):
    root = write(
        tmp_path, {"a.tif": tif(), "closed/b.tif": tif(), "c.tif": tif(), "c.tif.mdoc": mdoc("c.tif")}
    )
    closed = {str(root / "closed"), str(root / "c.tif.mdoc")}
    real_scandir, real_open = os.scandir, open

    def scandir(path):
        if str(path) in closed:
            raise PermissionError(13, "Permission denied", str(path))
        return real_scandir(path)

    def no_open(path, *arguments, **options):
        if str(path) in closed:
            raise PermissionError(13, "Permission denied", str(path))
        return real_open(path, *arguments, **options)

    monkeypatch.setattr(acquisition.os, "scandir", scandir)
    monkeypatch.setattr("builtins.open", no_open)
    watcher = reader(root)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            last = look(watcher)
    assert sorted(record.getMessage() for record in caplog.records) == sorted(
        f"{path}: Permission denied" for path in closed
    )
    assert last.fields["data_movies"] == 2
    closed.clear()
    clock.passed += 61
    news = look(watcher)
    assert news.fields["data_movies"] == 3
    assert news.exposures["c.tif"]["stage_x"] == -142.82


def test_a_folder_listed_within_a_tick_of_its_clock_is_listed_again(tmp_path):
    write(tmp_path, {"a.tif": tif()})
    watcher = reader(tmp_path)
    look(watcher)
    state = os.stat(tmp_path)
    write(tmp_path, {"b.tif": tif(seed=3)})
    os.utime(tmp_path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert list(look(watcher).exposures) == ["b.tif"]


# the clock


def text(zone, *local, near=None):
    return Clock(zone).moment(datetime(*local), near).isoformat()


def test_the_zone_of_the_microscopes_clock():
    assert text("Europe/Stockholm", 2026, 7, 1, 12) == "2026-07-01T10:00:00+00:00"
    assert text("Europe/Stockholm", 2026, 1, 1, 12) == "2026-01-01T11:00:00+00:00"
    given = datetime.fromisoformat("2026-01-01T12:00:00-05:00")
    assert Clock("Europe/Stockholm").moment(given) == datetime(2026, 1, 1, 17, tzinfo=UTC)
    assert Clock("Asia/Tokyo").moment(datetime(1, 1, 1)) is None
    for name in ("Europe/Atlantis", "../etc/passwd", "Stockholm "):
        with pytest.raises(ReaderError, match="time_zone"):
            AcquisitionReader(".", settings={"time_zone": name})


def test_an_hour_that_comes_twice_is_the_one_nearer_to_the_files_own_time():
    first, second = "2026-10-25T00:30:00+00:00", "2026-10-25T01:30:00+00:00"
    local = (2026, 10, 25, 2, 30)
    assert text("Europe/Stockholm", *local) == first
    for moment in (first, second):
        near = datetime.fromisoformat(moment).timestamp() + 20
        assert text("Europe/Stockholm", *local, near=near) == moment


def test_an_hour_that_does_not_exist_is_by_the_offset_before():
    assert text("Europe/Stockholm", 2026, 3, 29, 2, 30) == "2026-03-29T01:30:00+00:00"
    near = datetime(2026, 3, 29, 9, tzinfo=UTC).timestamp()
    assert text("Europe/Stockholm", 2026, 3, 29, 2, 30, near=near) == "2026-03-29T01:30:00+00:00"


# settings


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"zone": "UTC"}, "no setting zone"),
        ({"counters": "all"}, "seen or present"),
        ({"names": 3}, "file or path"),
        ({"overwrite": "yes"}, "true or false"),
        ({"settled": "soon"}, "number of seconds"),
        ({"settled": -1}, "between 0"),
        ({"skip": [1]}, "list of texts"),
        ({"metadata": ["/no/such/folder"]}, "metadata"),
        ({"data_path": 4}, "data_path"),
    ],
)
def test_settings_that_are_not_right_are_named(tmp_path, given, why):
    with pytest.raises(ReaderError, match=why):
        AcquisitionReader(str(tmp_path), settings=given)
    with pytest.raises(ReaderError, match="no folder"):
        AcquisitionReader(str(tmp_path / "none"))


# with the site


def synced(site, root, **given):
    sync = Sync(reader(root, **given), Client(site.url, TOKEN), SESSION)
    sync.numbers()
    return sync


def exposures(site):
    return {name: row for (_, name), row in site.exposures.items()}


def test_what_people_corrected_stays(site, tmp_path):
    root = write(tmp_path, epu_session())
    session = site.sessions[SESSION]
    session.update(pixel_size=0.8215, total_dose=None, data_path="sftp:/facility/krios")
    sync = synced(site, root)
    assert (session["pixel_size"], session["total_dose"], session["frames"]) == (0.8215, 50, 40)
    assert session["data_path"] == "sftp:/facility/krios"
    session["frames"] = 39  # by hand, while we watch
    write(
        root,
        {
            "GridSquare_9000/Data/FoilHole_0_Data_1_1_20261122_200000.xml": xml(
                "2026-11-22T20:00:00+01:00", dose=60, frames=48
            )
        },
    )
    sync.numbers()
    # An earlier exposure is the session's first now; only what is still ours follows it.
    assert (session["pixel_size"], session["total_dose"], session["frames"]) == (0.8215, 60, 39)
    synced(site, root)
    assert (session["pixel_size"], session["frames"]) == (0.8215, 39)
    synced(site, root, overwrite=True, data_path="/data/here")
    assert (session["pixel_size"], session["frames"]) == (0.83, 48)
    assert session["data_path"] == "/data/here"


def test_a_restart_after_files_were_taken_away_goes_on_from_what_was_told(site, tmp_path):
    root = write(tmp_path, epu_session())
    session = site.sessions[SESSION]
    synced(site, root)
    names = ("data_files", "data_movies", "data_bytes")
    before = [session[name] for name in names]
    last = session["last_file_at"]
    shutil.rmtree(root / "Images-Disc1/GridSquare_9001")
    # Two files come while nobody looks, one after the restart.
    write(root, {"x.tif": tif(), "note.txt": b"four"}, age=60)
    sync = synced(site, root)
    size = (root / "x.tif").stat().st_size
    now = [before[0] + 2, before[1] + 1, before[2] + size + 4]
    assert [session[name] for name in names] == now
    assert session["last_file_at"] > last
    write(root, {"y.tif": tif(seed=5)}, age=50)
    sync.numbers()
    assert [session[name] for name in names[:2]] == [now[0] + 1, now[1] + 1]
    for _ in range(2):
        synced(site, root)  # and again, with nothing new
        assert [session[name] for name in names[:2]] == [now[0] + 1, now[1] + 1]
    synced(site, root, counters="present")
    assert session["data_movies"] == 6
    assert len(site.exposures) == 10


def test_an_empty_folder_is_followed_from_its_first_file(site, tmp_path):
    sync = synced(site, tmp_path)
    assert site.sessions[SESSION]["data_files"] == 0
    write(tmp_path, epu_session(squares=1))
    sync.numbers()
    assert site.sessions[SESSION]["data_movies"] == 4
    assert len(site.exposures) == 4
    asked = site.asked
    sync.numbers()
    assert site.asked == asked


SOURCES = {
    "epu": lambda: epu_session(),
    "epu-real": lambda: growing.folder_of(shared("epu/diamond-smartem-session-2025/epu-dir-example")),
    "serialem": lambda: {
        name: data
        for number in range(6)
        for name, data in (
            (f"frames/f_{number}.tif", tif(seed=number)),
            (f"frames/f_{number}.tif.mdoc", mdoc(f"f_{number}.tif", f"22-Nov-26  22:15:0{number}")),
        )
    },
    "tilt-series": lambda: growing.folder_of(shared("serialem/mdocfile-tests")),
    "plain": lambda: {
        f"m_{number}.mrc": project.mrc(np.zeros((3, 8, 8 + number), np.int16)) for number in range(6)
    },
}


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("source", SOURCES)
def test_a_growing_folder_ends_as_after_one_clean_pass(tmp_path, source, seed):
    """Files in any order, cut anywhere, restarts, and a site that fails one call in three."""
    made = SOURCES[source]()
    started = int(time.time()) - 5

    def steps():
        for _ in growing.grow(made, tmp_path, seed):
            for path in tmp_path.rglob("*"):  # so that a movie's own time is the same in both passes
                if path.is_file():
                    os.utime(path, (started, started))
            yield

    site = growing.assert_ends_as_one_clean_pass(lambda: reader(tmp_path, settled=0), steps(), seed)
    assert site.sessions[SESSION]["data_files"] == len(made)
    assert site.sessions[SESSION]["data_bytes"] == sum(map(len, made.values()))
    assert (
        len(site.exposures) == {"epu": 8, "epu-real": 4, "serialem": 6, "tilt-series": 43, "plain": 6}[source]
    )


# movies' headers


def test_the_headers_of_movies(tmp_path):
    write(
        tmp_path, {"a.tif": tif(5, width=40, height=30), "a.mrc": project.mrc(np.zeros((7, 30, 40), np.int8))}
    )
    assert movies.read(str(tmp_path / "a.tif")) == (40, 30, 5)
    assert movies.read(str(tmp_path / "a.mrc")) == (40, 30, 7)
    assert movies.read(str(tmp_path / "a.tif"), count=False).frames == 2


def test_a_movie_cut_anywhere_is_none(tmp_path):
    whole = tif(3)
    for end in range(0, len(whole) - 1, 11):
        (tmp_path / "a.tif").write_bytes(whole[:end])
        with pytest.raises(movies.MovieError):
            movies.read(str(tmp_path / "a.tif"))


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_no_header_does_worse_than_an_error(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("movies") / data.draw(st.sampled_from(["a.tif", "a.mrc"]))
    whole = tif(2) if path.suffix == ".tif" else project.mrc(np.zeros((2, 4, 4), np.int16))
    made = bytearray(whole)
    for _ in range(data.draw(st.integers(0, 6))):
        made[data.draw(st.integers(0, len(made) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(data.draw(st.sampled_from([b"", b"II*\0", b"II+\0\x08\0\0\0"])) + bytes(made))
    try:
        found = movies.read(str(path))
    except movies.MovieError:
        return
    assert found.width > 0
    assert found.height > 0
    assert found.frames > 0


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.text(
                st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1, max_size=30
            ),
            st.sampled_from(["", ".xml", ".mdoc", ".tif", "_Fractions.tiff", ".mrc", ".eer"]),
            st.sampled_from([b"", b"x", xml(), mdoc(), tif(2)]),
        ),
        max_size=6,
    )
)
def test_no_names_do_worse_than_being_left_out(tmp_path_factory, made):
    root = tmp_path_factory.mktemp("session")
    for name, ending, data in made:
        path = root / f"{name}{ending}"
        if len(os.fsencode(path.name)) < 250 and path.name not in (".", ".."):
            path.write_bytes(data)
            older(path, 100)
    watcher = reader(root)
    news = look(watcher)
    assert news.fields["data_files"] <= len(made)
    for name in news.exposures:
        assert 1 <= len(name) <= 500
        assert name.isprintable()
    assert look(watcher).exposures == {}
