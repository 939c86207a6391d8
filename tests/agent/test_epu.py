"""EPU's xml: the real files as another parser reads them, and anything else as an error that has a name."""

import xml.etree.ElementTree as ET
from datetime import UTC, datetime, timedelta

import pytest
from emhub_agent import epu
from hypothesis import given, settings
from hypothesis import strategies as st

from .microscope import shared, xml

EXPOSURES = {
    "3dem-em-testdata/FoilHole_5850127_Data_5798426_5798428_20221104_061329.xml": ("3.1.0.4506", 70),
    "diamond-smartem-session-2025/epu-dir-example/Images-Disc1/GridSquare_8999138/Data/"
    "FoilHole_9015883_Data_9017347_6_20250108_154915.xml": ("3.9.1.8206", 50),
    "transphire-epu1.8-1.11/xml_epu_1_11_falcon.xml": ("1.5.1.50", 119),
    "transphire-epu1.8-1.11/xml_epu_1_11_falcon_vpp.xml": ("1.5.1.50", 40),
    "transphire-epu1.8-1.11/xml_epu_1_8_falcon_2.xml": ("1.0.2.24", 30),
    "transphire-epu1.8-1.11/xml_epu_1_8_k2.xml": ("1.0.2.24", 40),
    "transphire-epu1.8-1.11/xml_epu_1_9_k2.xml": ("1.2.0.16", 50),
}


class Independent:
    """The same file through ElementTree, by the ends of paths."""

    def __init__(self, path):
        self.root = ET.parse(path).getroot()

    def text(self, *names):
        found = [self.root]
        for name in names:
            found = [child for item in found for child in item.iter() if child.tag.split("}")[-1] == name]
        return found[0].text if found else None

    def number(self, *names, scale=1.0):
        text = self.text(*names)
        return None if text is None else float(text) * scale

    def setting(self, key, scale=1.0):
        for pair in self.root.iter():
            if pair.tag.endswith("KeyValueOfstringanyType") and pair[0].text == key:
                return float(pair[1].text) * scale
        return None


@pytest.mark.parametrize("name", EXPOSURES)
def test_every_version_says_what_is_in_the_file(name):
    path = shared(f"epu/{name}")
    image, other = epu.read(str(path)), Independent(path)
    assert (image.version, image.frames) == EXPOSURES[name]
    assert image.voltage_kv == other.number("AccelerationVoltage", scale=1e-3)
    assert image.pixel_size == pytest.approx(other.number("pixelSize", "x", "numericValue", scale=1e10))
    assert image.magnification == other.number("NominalMagnification")
    assert image.exposure_time == other.number("camera", "ExposureTime")
    assert image.spot_size == other.number("SpotIndex")
    assert image.stage_x == pytest.approx(other.number("stage", "Position", "X", scale=1e6), abs=1e-4)
    assert image.stage_y == pytest.approx(other.number("stage", "Position", "Y", scale=1e6), abs=1e-4)
    assert image.beam_shift_x == pytest.approx(other.number("BeamShift", "_x"), abs=1e-12)
    assert image.beam_shift_y == pytest.approx(other.number("BeamShift", "_y"), abs=1e-12)
    assert image.defocus == pytest.approx(other.setting("AppliedDefocus", 1e6))
    dose = other.setting("Dose", 1e-20)
    assert image.total_dose == (pytest.approx(dose) if dose < epu.HIGHEST_DOSE else None)
    assert image.width == other.number("ReadoutArea", "width")
    assert (image.binning, image.super_resolution) == (
        other.number("Binning", "x"),
        other.setting("SuperResolutionFactor"),
    )
    is_in = other.text("EnergySelectionSlitInserted") == "true"
    assert image.energy_slit == (other.number("EnergySelectionSlitWidth") if is_in else None)
    # Seven digits of a second: what fromisoformat of the oldest Python cannot read.
    text = other.text("acquisitionDateTime")
    day, _, rest = text.partition(".")
    offset = rest[-6:]
    moment = datetime.strptime(day + offset.replace(":", ""), "%Y-%m-%dT%H:%M:%S%z")
    assert image.acquired_at - moment == timedelta(microseconds=int(rest[:-6].ljust(6, "0")[:6]))
    assert image.movie_pixel_size == (image.pixel_size if image.binning == 1 else None)


@pytest.mark.parametrize(
    ("name", "frames"),
    [("11_falcon_frames", 119), ("11_falcon_vpp_fractions", 40), ("8_falcon_2_fractions", 30)],
)
def test_of_a_movies_own_xml_only_the_fractions_are_taken(name, frames):
    image = epu.read(str(shared(f"epu/transphire-epu1.8-1.11/xml_epu_1_{name}.xml")))
    assert image == epu.Image(is_movie=True, frames=frames)


@pytest.mark.parametrize(
    ("stem", "kind", "hole"),
    [
        ("FoilHole_5850127_Data_5798426_5798428_20221104_061329", "exposure", "5850127"),
        ("FoilHole_9015883_Data_9017347_6_20250108_154915_Fractions", "exposure", "9015883"),
        ("foilhole_1_data_2_3_20180727_1503-69750", "exposure", "1"),
        ("FoilHole_9015889_20250108_154715", "survey", None),
        ("GridSquare_20250108_151151", "survey", None),
        ("Atlas_30333429", "survey", None),
        ("Tile_30333442_0_30333429", "survey", None),
        ("frames_001", "other", None),
    ],
)
def test_names(stem, kind, hole):
    assert (epu.is_exposure(stem), epu.is_survey(stem)) == (kind == "exposure", kind == "survey")
    assert epu.foil_hole(stem) == hole


def test_the_grid_square_is_in_the_folder_and_not_in_an_images_date():
    assert epu.grid_square("Images-Disc1/GridSquare_8999138/Data/") == "8999138"
    assert epu.grid_square("GridSquare_20250108_151151.xml") is None
    assert epu.grid_square("Movies/") is None


def test_the_names_time():
    assert epu.taken("FoilHole_1_Data_2_3_20250108_154915") == datetime(2025, 1, 8, 15, 49, 15)
    assert epu.taken("FoilHole_1_Data_2_3_20180727_1503-69750") == datetime(2018, 7, 27, 15, 3)
    assert epu.taken("FoilHole_1_Data_2_3_20251308_154915") is None
    assert epu.taken("FoilHole_1_20250108_154915") is None


@pytest.mark.parametrize("codec", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
def test_byte_order_marks_and_other_encodings(codec):
    text = xml().decode()
    data = text.encode(codec)
    if codec == "utf-16-le":
        data = b"\xff\xfe" + data
    assert epu.parse(data) == epu.parse(xml())


def test_a_time_without_offset_stays_without():
    assert epu.parse(xml(at="2026-11-22T22:15:07.5")).acquired_at == datetime(2026, 11, 22, 22, 15, 7, 500000)
    zulu = epu.parse(xml(at="2026-11-22T22:15:07Z")).acquired_at
    assert zulu == datetime(2026, 11, 22, 22, 15, 7, tzinfo=UTC)


def test_values_out_of_all_bounds_are_not_known():
    image = epu.parse(xml(dose=1310.2, stage=(1e30, 0), pixel=0))
    assert (image.total_dose, image.stage_x, image.pixel_size) == (None, None, None)


BOMB = (
    b'<?xml version="1.0"?><!DOCTYPE lolz [<!ENTITY a "ha">'
    + b"".join(b'<!ENTITY %c "%s">' % (98 + n, b"&%c;" % (97 + n) * 10) for n in range(9))
    + b"]><MicroscopeImage>&j;</MicroscopeImage>"
)
OUTSIDE = (
    b'<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><MicroscopeImage><a>&e;</a></MicroscopeImage>'
)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "not whole"),
        (b"<MicroscopeImage>", "not whole"),
        (BOMB, "document type"),
        (OUTSIDE, "document type"),
        (b"<a>" * 1000, "too deep"),
        (b"<Acquisition/>", "fractions"),
        (b"<RELION/>", "root"),
        (b'<?xml version="1.0" encoding="klingon"?><a/>', "encoding|XML"),
        (b"\x00\xff" * 100, "XML"),
    ],
)
def test_what_is_not_epus_is_an_error_with_a_reason(data, why):
    with pytest.raises(epu.EpuError, match=why):
        epu.parse(data)


def test_a_file_is_not_read_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr(epu, "LARGEST", 5000)
    path = tmp_path / "a.xml"
    path.write_bytes(xml() + b" " * 5000)
    with pytest.raises(epu.EpuError, match="too large"):
        epu.read(str(path))


def read_or_refused(data):
    try:
        return epu.parse(data)
    except epu.EpuError:
        return None


def test_cut_anywhere_it_is_an_error():
    whole = xml()
    for end in range(0, len(whole) - 1, 7):
        with pytest.raises(epu.EpuError):
            epu.parse(whole[:end])


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=400) | st.text(max_size=200).map(lambda text: f"<a>{text}</a>".encode()))
def test_no_bytes_do_worse_than_an_error(data):
    read_or_refused(data)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_no_value_does_worse_than_being_unknown(data):
    """A real file with anything in place of its numbers, or bytes of it changed."""
    text = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="<>&"), max_size=30)
    value = st.one_of(st.floats(), st.integers(), text, st.sampled_from(["1e999", "-0", "٣", "1_0", "0x10"]))
    made = xml(*(data.draw(value) for _ in range(1)), frames=data.draw(value), width=data.draw(value))
    made = made.replace(b"105000", str(data.draw(value)).encode()).replace(
        b">6<", b">%d<" % data.draw(st.integers())
    )
    image = read_or_refused(made)
    if image is not None:
        assert image.magnification is None or 1 <= image.magnification <= 100_000_000
        assert image.frames is None or 1 <= image.frames <= 1_000_000
        assert image.width is None or image.width >= 1
    place = data.draw(st.integers(0, len(made) - 1))
    read_or_refused(made[:place] + data.draw(st.binary(max_size=4)) + made[place + 1 :])
