"""SerialEM's mdoc: the real files as a reading of a few lines has them, and anything else as a named error."""

import contextlib
import re
from datetime import datetime

import pytest
from emhub_agent import mdoc
from hypothesis import given, settings
from hypothesis import strategies as st

from .microscope import mdoc as made
from .microscope import shared

# File, sections, and of how many movies it tells.
REAL = {
    "aretomo3-pacetomo-mdoc/L1_tgt_001.mrc.mdoc": (1, 0),
    "aretomo3-pacetomo-mdoc/L1_ts_001.mrc.mdoc": (41, 41),
    "magellon-mdoc/20220605_75157_20220605-aav2spr_1-1_counted_frames.mrc.mdoc": (1, 1),
    "mdocfile-tests/frame_set_multiple.mdoc": (21, 1),
    "mdocfile-tests/frame_set_single.mdoc": (1, 1),
    "mdocfile-tests/montage_section.mdoc": (63, 0),
    "mdocfile-tests/montage_section_multiple.mdoc": (110, 0),
    "mdocfile-tests/tilt_series.mdoc": (41, 41),
}


def column(path, key):
    """Every value of a key, in order, by a regular expression alone."""
    text = path.read_bytes().decode("latin-1").replace("\r", "")
    return re.findall(rf"^{re.escape(key)} = (.*?)\s*$", text, re.MULTILINE)


@pytest.mark.parametrize("name", REAL)
def test_every_real_file_says_what_is_in_it(name):
    path = shared(f"serialem/{name}")
    document = mdoc.read(str(path))
    text = path.read_text("latin-1")
    assert len(document.sections) == len(re.findall(r"^\[(?!T )\w+ = ", text, re.MULTILINE))
    shots = mdoc.shots(document)
    assert len(shots) == REAL[name][1]
    if not shots:
        assert mdoc.is_image(document)
        return
    movies = [value.rpartition("\\")[2] for value in column(path, "SubFramePath")]
    assert [shot.movie for shot in shots] == movies
    stage = [tuple(map(float, value.split())) for value in column(path, "StagePosition")]
    assert [(shot.stage_x, shot.stage_y) for shot in shots] == stage
    shift = [tuple(map(float, value.split())) for value in column(path, "ImageShift")]
    assert [(shot.shift_x, shot.shift_y) for shot in shots] == shift
    times = [
        datetime.strptime(value, "%d-%b-%Y  %H:%M:%S" if len(value) > 19 else "%d-%b-%y  %H:%M:%S")
        for value in column(path, "DateTime")
    ]
    assert [shot.acquired_at for shot in shots] == times
    assert [shot.exposure_time for shot in shots] == [float(v) for v in column(path, "ExposureTime")]
    assert [shot.magnification for shot in shots] == [int(v) for v in column(path, "Magnification")]
    assert [shot.frames for shot in shots] == [int(v) for v in column(path, "NumSubFrames")]
    assert [shot.defocus for shot in shots] == [float(v) for v in column(path, "TargetDefocus")]
    assert [shot.spot_size for shot in shots] == [int(v) for v in column(path, "SpotSize")]
    voltage = column(path, "Voltage")
    assert {shot.voltage_kv for shot in shots} == ({float(voltage[0])} if voltage else {None})
    # Not recorded is written as 0.
    doses = [float(value) or None for value in column(path, "ExposureDose")][: len(shots)]
    assert [shot.total_dose for shot in shots] == doses


def test_the_files_beside_movies_and_those_beside_stacks_are_told_apart():
    frames = mdoc.read(str(shared("serialem/mdocfile-tests/frame_set_multiple.mdoc")))
    assert not mdoc.is_image(frames)
    assert mdoc.is_image(mdoc.read(str(shared("serialem/mdocfile-tests/tilt_series.mdoc"))))


def test_navigator_item_and_hole():
    path = "serialem/magellon-mdoc/20220605_75157_20220605-aav2spr_1-1_counted_frames.mrc.mdoc"
    [shot] = mdoc.shots(mdoc.read(str(shared(path))))
    assert shot.hole == "726-1"
    assert shot.movie_pixel_size is None  # binned by 8
    [shot] = mdoc.shots(mdoc.parse(made(NavigatorLabel="12-A")))
    assert (shot.hole, shot.movie_pixel_size) == ("12-A", 1.2827)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("05-Jun-22  23:45:28", datetime(2022, 6, 5, 23, 45, 28)),
        ("11-Aug-2023  17:44:56", datetime(2023, 8, 11, 17, 44, 56)),
        ("1-JAN-2024 7:04:05.25", datetime(2024, 1, 1, 7, 4, 5)),
        ("2022-Nov-04 06:13:35", datetime(2022, 11, 4, 6, 13, 35)),
        ("2022/11/04 06:13:35", datetime(2022, 11, 4, 6, 13, 35)),
        ("31-Feb-22  23:45:28", None),
        ("05-Xyz-22  23:45:28", None),
        ("05-Jun-22  25:45:28", None),
        ("", None),
        (None, None),
    ],
)
def test_times(text, expected):
    assert mdoc.time_of(text) == expected


def test_the_count_of_an_eer_file_is_not_believed_where_it_is_one():
    assert mdoc.shots(mdoc.parse(made(movie="a.eer", NumSubFrames=1)))[0].frames is None
    assert mdoc.shots(mdoc.parse(made(movie="a.eer", NumSubFrames=900)))[0].frames == 900


def test_the_dose_of_a_frame_is_the_files_or_the_exposures_share():
    assert mdoc.shots(mdoc.parse(made()))[0].dose_per_frame == 0.63824
    [shot] = mdoc.shots(mdoc.parse(made(FrameDosesAndNumber="0 12")))
    assert shot.dose_per_frame == pytest.approx(7.66 / 12, rel=1e-5)


def test_a_line_that_is_cut_does_not_count():
    whole = made()
    cut = whole[: whole.index(b"frames_001.tif") + 8]
    assert mdoc.shots(mdoc.parse(cut, complete=False)) == []
    assert mdoc.shots(mdoc.parse(whole[:-2], complete=False))[0].movie == "frames_001.tif"
    cut = whole[: whole.index(b"NumSubFrames = 12") + 16]
    assert mdoc.shots(mdoc.parse(cut, complete=False))[0].frames is None


@pytest.mark.parametrize("codec", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
def test_encodings(codec):
    text = made().decode().replace("Titan", "Zürich")
    document = mdoc.parse(text.encode(codec))
    assert "Zürich" in document.titles[0]
    assert len(mdoc.shots(document)) == 1


@pytest.mark.parametrize("data", [b"\0\0\0\0", b"just some words\nand more\n", b"\x93NUMPY\0"])
def test_what_is_no_mdoc_is_an_error(data):
    with pytest.raises(mdoc.MdocError):
        mdoc.parse(data)


def test_a_file_is_not_read_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr(mdoc, "LARGEST", 100)
    path = tmp_path / "a.mdoc"
    path.write_bytes(made())
    with pytest.raises(mdoc.MdocError, match="too large"):
        mdoc.read(str(path))


KEYS = [line.split(" = ")[0] for line in made().decode().split("\r\n") if " = " in line]
WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
NUMBERS = st.one_of(st.floats().map(str), st.integers().map(str), st.just("1e999"), st.just("-"), WORDS)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(KEYS), st.lists(NUMBERS, max_size=3).map(" ".join)), max_size=8))
def test_no_value_does_worse_than_being_unknown(pairs):
    try:
        document = mdoc.parse(made(**dict(pairs)))
    except mdoc.MdocError:
        return
    for shot in mdoc.shots(document):
        for value in (shot.stage_x, shot.shift_x, shot.defocus):
            assert value is None or abs(value) <= 100_000
        assert shot.frames is None or shot.frames >= 1
        assert shot.hole is None or (shot.hole.isprintable() and len(shot.hole) <= 60)
        assert shot.movie is None or shot.movie.isprintable()


@settings(max_examples=150, deadline=None)
@given(
    st.binary(max_size=300)
    | WORDS.map(str.encode)
    | st.lists(WORDS, max_size=5).map("\n".join).map(str.encode)
)
def test_no_bytes_do_worse_than_an_error(data):
    with contextlib.suppress(mdoc.MdocError):
        mdoc.shots(mdoc.parse(data))
