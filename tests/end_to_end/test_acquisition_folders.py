"""Microscopes' real files, through the real agent and a real server, come out as an independent reading has them.

EPU's xml is read here by ElementTree, mdoc files by a regular expression, the listing of a whole session by the
names in it.
"""

import datetime
import os
import re
import shutil
import statistics
import xml.etree.ElementTree as ET
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from emhub_agent.cli import main

from preprocessing.models import Exposure, Micrograph
from sessions_app.acquisition import FIELDS
from sessions_app.models import SessionSummary
from tests.agent import microscope, project
from tests.factories import SessionFactory, make_token

DATA = Path(__file__).parents[3] / "shared" / "data"
EPU, SERIALEM = DATA / "epu", DATA / "serialem"
ZONE = "Europe/London"

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(not EPU.is_dir(), reason="no shared/data/epu beside the project"),
]


@pytest.fixture
def session():
    return SessionFactory(**dict.fromkeys(FIELDS))


@pytest.fixture
def post(live_server, session, monkeypatch, capsys):
    monkeypatch.setenv("EMHUB_TOKEN", make_token(session.microscope)[1])

    def run(program, place, *options):
        command = [
            program,
            str(place),
            "--url",
            live_server.url,
            "--session",
            session.name,
            "--once",
            *options,
        ]
        code = main(command)
        said = capsys.readouterr()
        assert code == 0, said
        session.refresh_from_db()
        return said.out

    return run


def watch(post, place, *options):
    return post("acquisition", place, "--set", f"time_zone={ZONE}", *options)


def exposures():
    return {row.identity: row for row in Exposure.objects.all()}


class Xml:
    def __init__(self, path):
        self.root = ET.parse(path).getroot()

    def number(self, *names, scale=1.0):
        found = [self.root]
        for name in names:
            found = [child for item in found for child in item.iter() if child.tag.split("}")[-1] == name]
        return float(found[0].text) * scale

    def setting(self, key, scale=1.0):
        pairs = (item for item in self.root.iter() if item.tag.endswith("KeyValueOfstringanyType"))
        return next(float(pair[1].text) * scale for pair in pairs if pair[0].text == key)

    @property
    def time(self):
        text = next(item.text for item in self.root.iter() if item.tag.endswith("acquisitionDateTime"))
        return datetime.datetime.fromisoformat(text)


def assert_exposure(row, found):
    assert row.acquired_at == found.time
    assert row.stage_x == pytest.approx(found.number("stage", "Position", "X", scale=1e6), abs=1e-4)
    assert row.stage_y == pytest.approx(found.number("stage", "Position", "Y", scale=1e6), abs=1e-4)
    assert row.beam_shift_x == pytest.approx(found.number("BeamShift", "_x"), abs=1e-11)
    assert row.beam_shift_y == pytest.approx(found.number("BeamShift", "_y"), abs=1e-11)


def assert_acquisition(session, found, frames):
    assert session.voltage_kv == pytest.approx(found.number("AccelerationVoltage", scale=1e-3))
    assert session.magnification == found.number("NominalMagnification")
    assert session.exposure_time == pytest.approx(found.number("camera", "ExposureTime"))
    assert session.spot_size == found.number("SpotIndex")
    assert session.frames == frames
    dose = found.setting("Dose", 1e-20)
    if dose < 500:
        assert session.total_dose == pytest.approx(dose)
        assert session.dose_per_frame == pytest.approx(dose / frames, rel=1e-5)
    else:
        assert session.total_dose is None


def test_a_session_of_epu_39(post, session):
    place = EPU / "diamond-smartem-session-2025" / "epu-dir-example"
    said = watch(post, place)
    files = [path for path in place.rglob("*") if path.is_file()]
    assert (session.data_files, session.data_movies) == (len(files), 0)
    assert session.data_bytes == sum(path.stat().st_size for path in files)
    assert session.last_file_at.timestamp() == int(max(path.stat().st_mtime for path in files))
    rows = exposures()
    taken = {path.stem: path for path in files if "_Data_" in path.name and path.suffix == ".xml"}
    assert sorted(rows) == sorted(taken)
    for stem, path in taken.items():
        assert_exposure(rows[stem], Xml(path))
        assert rows[stem].grid_square == path.parents[1].name.removeprefix("GridSquare_")
        assert rows[stem].foil_hole == stem.split("_")[1]
    first = min(taken.values(), key=lambda path: Xml(path).time)
    assert_acquisition(session, Xml(first), 50)
    assert session.energy_slit == 20
    assert session.pixel_size is None  # the preview's is binned by 2 and no movie is there to tell its own
    assert SessionSummary.objects.get().exposures == len(taken)
    assert f"exposures:   {len(taken)} created, 0 updated, 0 unchanged" in said
    assert f"exposures:   0 created, 0 updated, {len(taken)} unchanged" in watch(post, place)


@pytest.mark.parametrize(
    ("name", "recorded", "pixel"),
    [
        ("transphire-epu1.8-1.11/xml_epu_1_11_falcon.xml", "xml_epu_1_11_falcon_frames.xml", 1.237386),
        (
            "transphire-epu1.8-1.11/xml_epu_1_11_falcon_vpp.xml",
            "xml_epu_1_11_falcon_vpp_fractions.xml",
            1.237386,
        ),
        ("transphire-epu1.8-1.11/xml_epu_1_8_falcon_2.xml", "xml_epu_1_8_falcon_2_fractions.xml", 1.45589),
        ("transphire-epu1.8-1.11/xml_epu_1_8_k2.xml", None, 1.120272),
        ("transphire-epu1.8-1.11/xml_epu_1_9_k2.xml", None, 1.07321),
        ("3dem-em-testdata/FoilHole_5850127_Data_5798426_5798428_20221104_061329.xml", None, 0.642598),
    ],
)
def test_one_exposure_of_every_other_version(post, session, tmp_path, name, recorded, pixel):
    """Where the file's own name is lost it gets one as EPU gives it. The 2022 preview is binned by 2 from 5,760."""
    source = EPU / name
    found = Xml(source)
    folder = tmp_path / "GridSquare_4242/Data"
    stem = source.stem if source.stem.startswith("FoilHole") else "FoilHole_11_Data_22_33_20180827_181557"
    folder.mkdir(parents=True)
    shutil.copy(source, folder / f"{stem}.xml")
    frames = {
        "transphire-epu1.8-1.11/xml_epu_1_8_k2.xml": 40,
        "transphire-epu1.8-1.11/xml_epu_1_9_k2.xml": 50,
    }.get(name, 70)
    if recorded:
        fractions = source.with_name(recorded)
        shutil.copy(fractions, folder / f"{stem}_Fractions.xml")
        frames = int(Xml(fractions).number("RecordedNumberOfFractions"))
    width = 5760 if "3dem" in name else int(found.number("ReadoutArea", "width"))
    microscope.write(folder, {f"{stem}_Fractions.tiff": microscope.tif(frames=3, width=width, height=4)})
    for path in folder.iterdir():
        os.utime(path, (1.7e9, 1.7e9))
    watch(post, tmp_path)
    [row] = Exposure.objects.all()
    assert (row.identity, row.grid_square, row.foil_hole) == (stem, "4242", stem.split("_")[1])
    assert_exposure(row, found)
    assert_acquisition(session, found, frames)
    assert session.pixel_size == pytest.approx(pixel, rel=1e-5)
    assert session.data_movies == 1
    assert session.last_file_at.timestamp() == 1.7e9


def test_a_whole_visit_by_its_listing(post, session, tmp_path):
    """The movies of a whole visit, made anew from a listing of its 10,105 files."""
    listing = (EPU / "diamond-bi37708-28-tree" / "bi37708-28_tree.txt").read_text()
    wanted: dict[str, str] = {}
    parents: list[str] = []
    for line in listing.splitlines()[1:-2]:
        match = re.match(r"^((?:[│ ][\s\xa0]{3})*)[├└]── (.+)$", line)
        depth = len(match[1]) // 4
        parents[depth:] = [match[2]]
        if re.fullmatch(r"FoilHole_\d+_Data_.*\.xml", match[2]):
            wanted["/".join(parents)] = next(part for part in parents if part.startswith("GridSquare"))
    for path in wanted:
        movie = tmp_path / path.replace(".xml", "_Fractions.tiff")
        movie.parent.mkdir(parents=True, exist_ok=True)
        movie.touch()
        os.utime(movie, (1.7e9, 1.7e9))
    watch(post, tmp_path)
    rows = exposures()
    assert session.data_movies == len(rows) == len(wanted) == 4228
    for path, square in wanted.items():
        stem = Path(path).stem
        row = rows[stem]
        assert (row.grid_square, row.foil_hole) == (square.removeprefix("GridSquare_"), stem.split("_")[1])
        local = datetime.datetime.strptime("_".join(stem.split("_")[-2:]), "%Y%m%d_%H%M%S")
        assert row.acquired_at == local.replace(tzinfo=ZoneInfo(ZONE))


@pytest.mark.parametrize(
    ("name", "square", "holes"),
    [
        ("aretomo3-pacetomo-mdoc", "", {""}),
        ("magellon-mdoc", "", {"726-1"}),
        ("mdocfile-tests", "", {""}),
    ],
)
def test_serialem(post, session, name, square, holes):
    place = SERIALEM / name
    watch(post, place)
    sections = {}
    for path in sorted(place.glob("*.mdoc")):
        text = path.read_bytes().decode("latin-1").replace("\r", "")
        for section in re.split(r"^\[(?=ZValue|FrameSet|MontSection)", text, flags=re.MULTILINE)[1:]:
            values = dict(re.findall(r"^([\w ]+?) = (.*?)\s*$", section, re.MULTILINE))
            if "SubFramePath" in values:
                movie = values["SubFramePath"].rpartition("\\")[2].rpartition(".")[0]
                sections[movie.replace(".", "_")] = values
    rows = exposures()
    assert sorted(rows) == sorted(sections)
    for identity, values in sections.items():
        row = rows[identity]
        assert [row.stage_x, row.stage_y] == [float(part) for part in values["StagePosition"].split()]
        assert [row.beam_shift_x, row.beam_shift_y] == [float(part) for part in values["ImageShift"].split()]
        day, clock = values["DateTime"].split()
        pattern = "%d-%b-%y" if len(day) == 9 else "%d-%b-%Y"
        local = datetime.datetime.strptime(f"{day} {clock}", f"{pattern} %H:%M:%S")
        assert row.acquired_at == local.replace(tzinfo=ZoneInfo(ZONE))
    assert {row.foil_hole for row in rows.values()} == holes
    assert {row.grid_square for row in rows.values()} == {square}
    first = min(sections.values(), key=lambda values: rows[identity_of(values)].acquired_at)
    assert session.exposure_time == float(first["ExposureTime"])
    assert session.magnification == int(first["Magnification"])
    assert session.frames == int(first["NumSubFrames"])
    assert session.spot_size == int(first["SpotSize"])
    files = [path for path in place.iterdir() if path.is_file()]
    assert (session.data_files, session.data_movies) == (len(files), 0)
    assert session.data_bytes == sum(path.stat().st_size for path in files)


def identity_of(values):
    return values["SubFramePath"].rpartition("\\")[2].rpartition(".")[0].replace(".", "_")


def test_plain_movies_have_the_time_they_were_written(post, session, tmp_path):
    made = {f"Movies/m_{number}.tif": microscope.tif(seed=number) for number in range(3)}
    microscope.write(tmp_path, made, age=7200)
    watch(post, tmp_path)
    times = [row.acquired_at.timestamp() for row in Exposure.objects.order_by("identity")]
    assert times == [int((tmp_path / name).stat().st_mtime) for name in sorted(made)]
    assert (session.data_movies, session.frames) == (3, 3)
    assert session.data_path == str(tmp_path)


@pytest.mark.parametrize("first", ["pipeline", "watcher"])
def test_every_runs_micrographs_have_their_position_whichever_comes_first(post, session, tmp_path, first):
    """The pipeline names a movie by its own path, the watcher by the microscope's: the exposure is one."""
    made = microscope.epu_session(squares=1, holes=1, movies=3)
    microscope.write(tmp_path / "epu", made)
    movies = sorted(Path(name).name for name in made if name.endswith(".tiff"))
    files = project.files(count=3)
    for number, movie in enumerate(movies, 1):
        old = project.movie(number)
        for name in list(files):
            data = files.pop(name)
            new = name.replace(Path(old).stem, Path(movie).stem)
            files[new] = (
                data.replace(old.encode(), f"Movies/{movie}".encode()).replace(
                    Path(old).stem.encode(), Path(movie).stem.encode()
                )
                if name.endswith(".star")
                else data
            )
    project.write(tmp_path / "relion", files)
    steps = {
        "pipeline": lambda: post("relion", tmp_path / "relion", "--no-images"),
        "watcher": lambda: watch(post, tmp_path / "epu"),
    }
    steps.pop(first)()
    next(iter(steps.values()))()
    assert Exposure.objects.count() == Micrograph.objects.count() == 3
    for row in Micrograph.objects.select_related("exposure").order_by("exposure__acquired_at"):
        assert row.defocus_u is not None
        assert (row.exposure.grid_square, row.exposure.foil_hole) == ("9000", "00")
        assert row.exposure.stage_x == 0.25
        assert row.exposure.acquired_at is not None
    shifts = Exposure.objects.order_by("acquired_at").values_list("beam_shift_x", flat=True)
    assert list(shifts) == [1 / 8, 2 / 8, 3 / 8]
    assert statistics.mean(shifts) == 0.25
