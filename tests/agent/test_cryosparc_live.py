"""CryoSPARC Live, through the vendor's own library, from a server of documents its own models made."""

import builtins
import sys
import types
from datetime import timedelta

import numpy as np
import pytest
from emhub_agent.readers import cryosparc_live
from emhub_agent.readers.base import Deferred, ReaderError
from emhub_agent.readers.cryosparc_live import CryosparcLiveReader, picked
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from . import cryosparc_project as project
from .cryosparc_server import EMAIL, PASSWORD, START, LiveServer
from .growing import assert_ends_as_one_clean_pass
from .test_cs import encoded

PIXEL = 0.5
SHAPE = [4000, 6000]  # rows, columns


@pytest.fixture(autouse=True)
def password(monkeypatch):
    for name, value in (("CRYOSPARC_EMAIL", EMAIL), ("CRYOSPARC_PASSWORD", PASSWORD)):
        monkeypatch.setenv(name, value)
    # What the library would take up of its own from the environment is another server.
    monkeypatch.setenv("CRYOSPARC_MASTER_HOSTNAME", "elsewhere.example.org")


@pytest.fixture
def live():
    server = LiveServer().start()
    server.add_session("S1", title="lysozyme", params={"blob_diameter_max": 180, "psize_A": PIXEL})
    yield server
    server.stop()


def read(live, **settings):
    return CryosparcLiveReader(live.url, settings={"project": "P3", **settings})


def only(reader):
    [news] = reader.look()
    return news


def sent(fields):
    found = {}
    for name, value in fields.items():
        found.update(value.load() if isinstance(value, Deferred) else {name: value})
    return found


def name(number):
    return f"FoilHole_{number}_Data_1_{number:02d}_20261123_07{number:04d}_Fractions.tiff"


def movie_blob(number):
    return {
        "format": "TIFF",
        "is_gain_corrected": False,
        "path": f"S1/import_movies/{name(number)}",
        "psize_A": PIXEL,
        "shape": [40, 8000, 12000],
    }


def ctf(number):
    return {
        "accel_kv": 300,
        "amp_contrast": 0.1,
        "cross_corr_ctffind4": 0.1 * number,
        "cs_mm": 2.7,
        "ctf_fit_to_A": 3.0 + number / 10,
        "df1_A": 12000 + number,
        "df2_A": 11000 + number,
        "df_angle_rad": 3.5,
        "exp_group_id": 1,
        "fig_of_merit_gctf": 0,
        "path": f"S1/ctfestimated/{number}_spline.npy",
        "phase_shift_rad": 0.0,
        "type": "spline",
    }


def picks_file(number, count=3):
    places = project.places(number, count)
    return project.table(
        {
            "uid": np.arange(1, count + 1, dtype="u8"),
            "location/center_x_frac": places[:, 0],
            "location/center_y_frac": places[:, 1],
        }
    )


STAGES = ("found", "motion", "ctf", "pick", "ready")


def advance(live, number, stage, session="S1"):
    """Bring one exposure to a stage, as Live does: what the stage measured is in its document then."""
    fields = {"stage": stage, "groups": {"exposure": {"movie_blob": movie_blob(number)}}, "attributes": {}}
    if stage == "motion":
        fields["attributes"] = {"motion_at": 10.0, "total_motion_dist": 20.0 + number}
        fields |= {"micrograph_shape": SHAPE, "micrograph_psize": 1.0}
    if stage == "ctf":
        fields["groups"]["exposure"]["ctf"] = ctf(number)
        fields["attributes"] = {
            "ctf_at": 11.0,
            "ctf_fit_to_A": 3.0 + number / 10,
            "ice_thickness_rel": 1.0 + number,
        }
        live.assets[f"thumb{number}"] = project.mrc(
            np.random.default_rng(number).normal(size=(32, 48)).astype("f4")
        )
        fields["preview_img_1x"] = [f"thumb{number}"]
    if stage == "pick":
        path = f"S1/pick/{number}_blob.cs"
        live.files[path] = picks_file(number)
        fields["picker_type"] = "blob"
        fields["groups"]["particle_blob"] = {"count": 3, "fields": [], "path": path}
        fields["attributes"] = {"pick_at": 12.0, "total_blob_picks": 3}
    if stage == "ready":
        fields["attributes"] = {"ready_at": 13.0}
    live.put(session, number, **fields)


def finish(live, number, session="S1"):
    for stage in STAGES:
        advance(live, number, stage, session)


# what comes of a session


def test_a_session_is_a_run(live):
    finish(live, 1)
    news = only(read(live))
    assert (news.key, news.status) == ("P3/S1", "running")
    assert news.info["software"] == "CryoSPARC Live"
    assert news.info["version"] == "5.0.3"
    assert news.info["label"] == "P3 S1: lysozyme"
    assert (news.info["pixel_size"], news.info["width"], news.info["height"]) == (1.0, 6000, 4000)
    assert news.info["particle_diameter"] == 180
    assert news.info["parameters"]["psize_A"] == PIXEL
    assert sent(news.micrographs[name(1)]) == {
        "motion_total": 21 * PIXEL,
        "defocus_u": 12001,
        "defocus_v": 11001,
        "defocus_angle": pytest.approx(np.degrees(3.5)),
        "ctf_resolution": 3.1,
        "ctf_score": pytest.approx(0.1),
        "ice_thickness": 2.0,
        "particles": 3,
        "coordinates": pytest.approx(project.places(1, 3).astype(float) * (6000, 4000), abs=0.006),
        "rejected": False,
    }


def test_each_stage_tells_what_is_new(live):
    reader = read(live)
    told = []
    for stage in STAGES:
        advance(live, 1, stage)
        told.append(sorted(only(reader).micrographs.get(name(1), ())))
    assert told == [
        [],
        ["motion_total", "rejected"],
        ["ctf_resolution", "ctf_score", "defocus_angle", "defocus_u", "defocus_v", "ice_thickness"],
        ["picks"],
        [],
    ]


def test_only_what_changed_is_asked_for(live):
    for number in range(1, 251):
        advance(live, number, "motion")
    reader = read(live)
    assert len(only(reader).micrographs) == 250
    assert live.asked.count("/exposures") == 3  # pages
    live.clock += timedelta(minutes=10)
    live.asked.clear()
    assert only(reader).micrographs == {}
    assert live.asked == ["/sessions", "/exposures", "/exposures"]
    advance(live, 7, "ctf")
    assert list(only(reader).micrographs) == [name(7)]


def test_rejects_by_hand_and_by_threshold(live):
    for number in (1, 2, 3):
        finish(live, number)
    reader = read(live)
    only(reader)
    live.put("S1", 1, manual_reject=True)
    live.put("S1", 2, threshold_reject=True)
    assert only(reader).micrographs == {name(1): {"rejected": True}, name(2): {"rejected": True}}
    live.put("S1", 1, manual_reject=False)
    assert only(reader).micrographs == {name(1): {"rejected": False}}


def test_a_deleted_or_reset_exposure_loses_its_figures(live):
    finish(live, 1)
    reader = read(live)
    before = sent(only(reader).micrographs[name(1)])
    live.put("S1", 1, deleted=True)
    assert sent(only(reader).micrographs[name(1)]) == dict.fromkeys(before)


def test_a_failed_exposure_is_told_once(live):
    live.put("S1", 1, failed=True, fail_reason="Traceback\n  x\nRuntimeError: no such file")
    reader = read(live)
    [event] = only(reader).events
    assert (event.level, event.text) == ("warning", f"{name(1)} failed: RuntimeError: no such file")
    live.put("S1", 1, fail_count=2)
    assert only(reader).events == []


def test_two_movies_of_one_name(live):
    live.put("S1", 1, abs_file_path="/data/square1/a.tif")
    live.put("S1", 2, abs_file_path="/data/square2/a.tif")
    assert list(only(read(live)).micrographs) == ["a.tif", "square2/a.tif"]


def test_thumbnails_and_class_averages_are_fetched(live):
    finish(live, 1)
    live.assets["class0"] = b"a picture"
    info = [
        {"class_idx": 0, "fileid": "class0", "res_A": 8.5, "num_particles_total": 120},
        {"class_idx": 1, "fileid": "class1", "res_A": "inf", "num_particles_total": 0},
    ]
    live.change_session(
        "S1",
        phase2_class2D_info=info,
        phase2_class2D_job="J12",
        phase2_class2D_last_updated=START + timedelta(hours=3, minutes=5),
    )
    reader = read(live)
    news = only(reader)
    [found] = news.classes
    assert (found.job, found.iteration) == ("J12", 3)
    assert found.classes == [
        {"number": 1, "particles": 120, "resolution": 8.5},
        {"number": 2, "particles": 0, "resolution": None},
    ]
    thumbnail, average = news.pictures
    assert (thumbnail.kind, thumbnail.micrograph) == ("micrograph", name(1))
    assert thumbnail.fetch() == live.assets["thumb1"]
    assert (average.kind, average.job, average.iteration, average.number) == ("class_average", "J12", 3, 1)
    assert average.fetch() == b"a picture"
    del live.assets["class0"]
    with pytest.raises(OSError, match="404"):
        average.fetch()
    news = only(reader)
    assert (news.classes, news.pictures) == ([], [])


def test_picks_that_cannot_be_fetched_are_fetched_later(live):
    finish(live, 1)
    reader = read(live)
    news = only(reader)
    data = live.files.pop("S1/pick/1_blob.cs")
    assert news.micrographs[name(1)]["picks"].load() == {"particles": 3}
    live.files["S1/pick/1_blob.cs"] = data
    news = only(reader)
    assert len(sent(news.micrographs[name(1)])["coordinates"]) == 3
    assert only(reader).micrographs == {}


def test_picks_can_be_left_where_they_are(live):
    finish(live, 1)
    assert only(read(live, coordinates=False)).micrographs[name(1)]["particles"] == 3


def test_any_table_of_picks_is_read_or_named():
    for data in (b"", b"nonsense", picks_file(1)[:-5], project.table({"uid": np.arange(3, dtype="u8")})):
        with pytest.raises(ValueError):
            picked(data, (10, 20))
    assert picked(project.table({"uid": np.zeros(0, dtype="u8")}), (10, 20)) == []


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"status": "running"}, "running"),
        ({"status": "paused"}, "stopped"),
        ({"status": "paused", "running_at": []}, "queued"),
        ({"status": "completed"}, "finished"),
        ({"status": "compacted"}, "finished"),
    ],
)
def test_the_status_of_a_session(live, fields, expected):
    live.change_session("S1", **fields)
    assert only(read(live)).status == expected


def test_several_sessions(live):
    live.add_session("S2")
    live.add_session("S3", project_uid="P4")
    finish(live, 1)
    finish(live, 2, "S2")
    assert {news.key: list(news.micrographs) for news in read(live).look()} == {
        "P3/S1": [name(1)],
        "P3/S2": [name(2)],
    }
    assert [news.key for news in read(live, session="S2").look()] == ["P3/S2"]
    assert [news.key for news in read(live, session=["S1", "S2"]).look()] == ["P3/S1", "P3/S2"]


def test_a_session_that_is_not_there_is_said(live, caplog):
    reader = read(live, session="S1,S9")
    assert [news.key for news in reader.look()] == ["P3/S1"]
    assert "There is no Live session S9 in P3." in caplog.text


def test_what_the_site_lost_is_told_again(live):
    finish(live, 1)
    reader = read(live)
    only(reader)
    reader.forget("P3/S1")
    assert list(only(reader).micrographs) == [name(1)]


# the server comes and goes


def test_a_server_that_restarts_is_asked_again(live, caplog):
    finish(live, 1)
    reader = read(live)
    only(reader)
    live.stop()
    for _ in range(2):
        news = only(reader)  # still told of, so that the run does not count as gone
        assert (news.status, news.micrographs) == ("running", {})
    assert sum("It is asked again" in record.message for record in caplog.records) == 1
    live.start()
    advance(live, 2, "motion")
    assert list(only(reader).micrographs) == [name(2)]
    # It has forgotten who logged in, too.
    live.tokens.clear()
    advance(live, 3, "motion")
    only(reader)
    assert list(only(reader).micrographs) == [name(3)]


def test_a_server_that_fails_now_and_then_loses_nothing(live):
    for number in range(1, 260):
        advance(live, number, "motion")
    live.fail_every = 4
    found = {}
    reader = read(live)
    for _ in range(30):
        try:
            for news in reader.look():
                for key, row in news.micrographs.items():
                    found.setdefault(key, {}).update(row)
        except ReaderError:
            continue
    live.fail_every = 0
    for news in reader.look():
        for key, row in news.micrographs.items():
            found.setdefault(key, {}).update(row)
    assert {key: row["motion_total"] for key, row in found.items()} == {
        name(number): (20 + number) * PIXEL for number in range(1, 260)
    }


def test_who_may_not_ask_is_told_so(live, monkeypatch, caplog):
    monkeypatch.setenv("CRYOSPARC_PASSWORD", "hunter2hunter2")
    with pytest.raises(ReaderError, match="refuses this e-mail and password") as refusal:
        read(live).look()
    assert "hunter2" not in str(refusal.value) + caplog.text
    monkeypatch.delenv("CRYOSPARC_PASSWORD")
    monkeypatch.setenv("HOME", "/nonexistent")
    with pytest.raises(ReaderError, match="CRYOSPARC_PASSWORD"):
        read(live).look()


def test_the_password_may_lie_in_a_file(live, monkeypatch, tmp_path):
    monkeypatch.delenv("CRYOSPARC_PASSWORD")
    (tmp_path / "password").write_text(f"{PASSWORD}\n")
    assert only(read(live, password_file=str(tmp_path / "password"))).key == "P3/S1"
    with pytest.raises(ReaderError, match="password_file"):
        read(live, password_file=str(tmp_path / "other"))


def test_nobody_there_is_said(live):
    live.stop()
    try:
        with pytest.raises(ReaderError, match="does not answer"):
            read(live).look()
    finally:
        live.start()


@pytest.mark.parametrize(
    ("place", "chosen", "words"),
    [
        ("cryosparc.example.org", {"project": "P3"}, "Give the address"),
        ("http://me:secret@cryosparc.example.org", {"project": "P3"}, "without user and password"),
        ("http://cryosparc.example.org:39000", {}, "Give the project's uid"),
        ("http://cryosparc.example.org:39000", {"project": "P3", "password": "x"}, "no setting password"),
        ("http://cryosparc.example.org:39000", {"project": "P3", "coordinates": "no"}, "true or false"),
    ],
)
def test_settings_are_checked(place, chosen, words):
    with pytest.raises(ReaderError, match=words) as refusal:
        CryosparcLiveReader(place, settings=chosen)
    assert "secret" not in str(refusal.value)


def test_without_the_vendors_library_the_extra_is_named(live, monkeypatch):
    original = builtins.__import__

    def without(module, *arguments, **options):
        if module.split(".")[0] == "cryosparc":
            raise ImportError(module)
        return original(module, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ReaderError, match=r"emhub-agent\[cryosparc\]"):
        read(live).look()


# version 4


class FourPointSeven:
    """What cryosparc-tools 4 offers of a server: sessions by JSON-RPC, files of the project's folder."""

    sessions: list = []
    files: dict = {}
    given: dict = {}

    def __init__(self, **given):
        type(self).given = given
        self.cli = types.SimpleNamespace(get_running_version=lambda: "v4.7.1")
        self.rtp = types.SimpleNamespace(get_all_sessions_in_project=lambda project: self.sessions)

    def download_file(self, project, path, target):
        if path not in self.files:
            raise RuntimeError("404")
        target.write(self.files[path])

    def download_asset(self, fileid, target):
        target.write(b"a picture")


@pytest.fixture
def four(monkeypatch):
    fake = types.ModuleType("cryosparc")
    fake.__version__ = "4.7.1"
    fake.tools = types.ModuleType("cryosparc.tools")
    fake.tools.CryoSPARC = FourPointSeven
    monkeypatch.setitem(sys.modules, "cryosparc", fake)
    monkeypatch.setitem(sys.modules, "cryosparc.tools", fake.tools)
    monkeypatch.setenv("CRYOSPARC_LICENSE_ID", "0000-licence")
    monkeypatch.setattr(
        FourPointSeven,
        "sessions",
        [
            {
                "session_uid": "S1",
                "session_dir": "S1",
                "status": "running",
                "title": "x",
                "updated_at": {"$date": 1},
            }
        ],
    )
    monkeypatch.setattr(FourPointSeven, "files", {})
    return FourPointSeven


def listed(groups):
    """Version 4 keeps every value of an exposure in a list of one."""
    return {group: {key: [value] for key, value in values.items()} for group, values in groups.items()}


def test_version_4_gives_exposures_from_the_file_it_leaves(four):
    document = {
        "uid": "1",
        "abs_file_path": f"/data/{name(1)}",
        "stage": "ready",
        "picker_type": "blob",
        "threshold_reject": True,
        "micrograph_shape": SHAPE,
        "attributes": {"total_motion_dist": 21.0, "ctf_fit_to_A": 3.1, "pick_at": 5.0, "total_blob_picks": 3},
        "groups": {
            "exposure": listed({"movie_blob": {**movie_blob(1), "shape": "left out"}, "ctf": ctf(1)}),
            "particle_blob": {"count": 3, "path": "S1/pick/1_blob.cs"},
        },
    }
    four.files = {
        "S1/exposures.bson": encoded({"exposures": [document]}),
        "S1/pick/1_blob.cs": picks_file(1),
    }
    reader = CryosparcLiveReader("http://cryosparc.example.org:39000", settings={"project": "P3"})
    news = only(reader)
    assert four.given["license"] == "0000-licence"
    assert (four.given["host"], four.given["base_port"]) == ("cryosparc.example.org", 39000)
    assert news.info["version"] == "4.7.1"
    row = sent(news.micrographs[name(1)])
    assert (row["defocus_u"], row["motion_total"], row["rejected"]) == (12001, 21 * PIXEL, True)
    assert len(row["coordinates"]) == 3
    # Written anew: it is read when the session's document says so, and what is cut is left for later.
    document["threshold_reject"] = False
    data = encoded({"exposures": [document]})
    four.files["S1/exposures.bson"] = data[:-20]
    assert only(reader).micrographs == {}
    four.sessions = [{**four.sessions[0], "updated_at": {"$date": 2}}]
    assert only(reader).micrographs == {}
    four.files["S1/exposures.bson"] = data
    assert only(reader).micrographs == {name(1): {"rejected": False}}


def test_version_4_needs_a_licence(four, monkeypatch):
    monkeypatch.delenv("CRYOSPARC_LICENSE_ID")
    with pytest.raises(ReaderError, match="CRYOSPARC_LICENSE_ID"):
        CryosparcLiveReader("http://localhost:39000", settings={"project": "P3"}).look()


def test_a_wrong_licence_is_not_repeated(four, monkeypatch):
    def refuse(self, **given):
        raise AssertionError(f"Invalid or unspecified CryoSPARC license ID {given['license']}")

    monkeypatch.setattr(FourPointSeven, "__init__", refuse)
    with pytest.raises(ReaderError, match="holds no licence") as refusal:
        CryosparcLiveReader("http://localhost:39000", settings={"project": "P3"}).look()
    assert "0000" not in str(refusal.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6) | st.datetimes(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_document_is_taken_or_left_out(four, data):
    """Version 4 sends what is in its database; nobody has checked it."""
    exposure = {
        "uid": "1",
        "abs_file_path": f"/data/{name(1)}",
        "stage": "ready",
        "picker_type": "blob",
        "micrograph_shape": SHAPE,
        "preview_img_1x": ["a"],
        "attributes": {"total_motion_dist": 21.0, "ctf_fit_to_A": 3.1, "pick_at": 5.0, "total_blob_picks": 3},
        "groups": {
            "exposure": listed({"movie_blob": movie_blob(1), "ctf": ctf(1)}),
            "particle_blob": {"path": "a.cs"},
        },
    }
    document = {
        "session_uid": "S1",
        "status": "running",
        "phase2_class2D_info": [{"class_idx": 1, "fileid": "f"}],
    }
    for target in (
        exposure,
        exposure["attributes"],
        exposure["groups"],
        exposure["groups"]["exposure"]["ctf"],
        document,
    ):
        for key in data.draw(st.lists(st.sampled_from(sorted(target)), max_size=2)):
            if key != "session_uid":
                target[key] = data.draw(JSON)
    four.sessions = [document]
    reader = CryosparcLiveReader("http://localhost:39000", settings={"project": "P3"})
    reader._connected().exposures = lambda *arguments: iter([exposure])
    [news] = reader.look()
    for fields in news.micrographs.values():
        assert all(
            value is None or np.isfinite(value)
            for value in sent(fields).values()
            if not isinstance(value, list)
        )


# growing


def as_it_is_collected(live, count, seed):
    chance = np.random.default_rng(seed)
    stages = dict.fromkeys(range(1, count + 1), 0)
    live.fail_every = 5
    while stages:
        number = int(chance.choice(list(stages)[:3]))
        advance(live, number, STAGES[stages[number]])
        stages[number] += 1
        if stages[number] == len(STAGES):
            del stages[number]
            if chance.random() < 0.3:
                live.put("S1", number, manual_reject=True)
        if chance.random() < 0.1:
            live.stop()
            yield
            live.start()
        yield
    live.change_session("S1", status="completed")
    live.fail_every = 0
    yield


@pytest.mark.parametrize("seed", range(2))
def test_a_growing_session_ends_as_after_one_clean_pass(live, seed, monkeypatch):
    monkeypatch.setattr(cryosparc_live, "PAGE", 3)
    steps = as_it_is_collected(live, 7, seed)
    site = assert_ends_as_one_clean_pass(lambda: read(live), steps, seed, looks=4)
    [run] = site.runs.values()
    assert len(run.micrographs) == 7
    assert run.fields["status"] == "finished"
    assert all(row["micrograph_image"] for row in run.micrographs.values())
