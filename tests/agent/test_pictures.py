import io
import struct
import tracemalloc

import numpy as np
import pytest
from emhub_agent import Client, pictures
from emhub_agent.mrc import Section, mrc_size
from emhub_agent.pictures import Pace, thumbnail
from emhub_agent.readers.relion import RelionReader
from emhub_agent.sync import Sync
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from . import project
from .microscope import tif
from .project import mrc
from .site import SESSION, TOKEN

# Broken files are tested; Pillow says so twice.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL.TiffImagePlugin")


def drawn(path, section=1):
    data, media_type = thumbnail(str(path), section)
    picture = Image.open(io.BytesIO(data))
    assert media_type == f"image/{picture.format.lower()}"
    return np.asarray(picture.convert("L")).astype(float)


@pytest.mark.parametrize("kind", ["int8", "int16", "float32", "uint16", "float16"])
def test_every_kind_of_number_is_drawn_alike(tmp_path, kind):
    """A ramp from left to right, a little brighter below: the first row of the file is drawn at the top."""
    ramp = np.linspace(0, 100, 600)[np.newaxis, :] + np.linspace(0, 20, 400)[:, np.newaxis]
    path = tmp_path / "a.mrc"
    path.write_bytes(mrc(ramp.astype(kind)))
    picture = drawn(path)
    assert max(picture.shape) <= 512
    assert picture.shape[1] / picture.shape[0] == pytest.approx(1.5, rel=0.02)
    assert picture[:, :10].mean() < 40 < 200 < picture[:, -10:].mean()
    assert picture[:10].mean() < picture[-10:].mean()


def test_a_large_micrograph_is_averaged_not_sampled(tmp_path):
    rng = np.random.default_rng(1)
    path = tmp_path / "a.mrc"
    data = rng.normal(size=(2100, 1500)).astype(np.float32)
    data[:1050] += 1.0  # far below the noise of one pixel, plain after averaging 16
    path.write_bytes(mrc(data))
    picture = drawn(path)
    assert max(picture.shape) == 512
    assert picture[: picture.shape[0] // 2].mean() - picture[picture.shape[0] // 2 :].mean() > 50


def test_outliers_do_not_flatten_the_contrast(tmp_path):
    data = np.random.default_rng(1).normal(size=(256, 256)).astype(np.float32)
    data[0, 0], data[5, 5], data[7, 7] = 1e6, np.nan, -np.inf
    path = tmp_path / "a.mrc"
    path.write_bytes(mrc(data))
    assert drawn(path).std() > 30


def test_one_section_of_a_stack(tmp_path):
    stack = np.zeros((3, 32, 32), np.float32)
    stack[1, :16] = 1
    path = tmp_path / "a.mrcs"
    path.write_bytes(mrc(stack))
    assert drawn(path, 2)[:12].mean() > 200
    assert drawn(path, 2)[20:].mean() < 50
    assert drawn(path, 3).std() < 1  # even: grey, not a division by nothing
    for section in (0, 4):
        with pytest.raises(ValueError):
            thumbnail(str(path), section)


def test_a_file_that_is_not_whole_is_an_error_at_every_length(tmp_path):
    whole = mrc(np.random.default_rng(1).normal(size=(2, 24, 24)).astype(np.float32))
    path = tmp_path / "a.mrcs"
    for cut in [0, 1, 500, 1023, 1024, 1025, 2000, len(whole) - 1]:
        path.write_bytes(whole[:cut])
        with pytest.raises((OSError, ValueError)):
            thumbnail(str(path), 1)


def test_what_is_not_an_mrc_file_is_an_error(tmp_path):
    path = tmp_path / "a.mrc"
    for data in (b"not an image " * 500, bytes(5000), b"\xff" * 5000):
        path.write_bytes(data)
        with pytest.raises((OSError, ValueError)):
            thumbnail(str(path))
    with pytest.raises(OSError):
        thumbnail(str(tmp_path / "missing.mrc"))


def test_size(tmp_path):
    path = tmp_path / "a.mrc"
    path.write_bytes(mrc(np.zeros((20, 30), np.float32)))
    assert mrc_size(str(path)) == (30, 20)
    path.write_bytes(b"abc")
    assert mrc_size(str(path)) is None
    assert mrc_size(str(tmp_path / "missing.mrc")) is None


def header(width, height, sections, mode, order="<", extended=0, stamp=(0, 0)):
    """An MRC header of 1,024 bytes, by hand."""
    data = bytearray(1024)
    data[:16] = struct.pack(order + "4i", width, height, sections, mode)
    data[92:96] = struct.pack(order + "i", extended)
    data[152:160] = struct.pack(order + "2i", *stamp)
    return bytes(data)


def rows(tmp_path, data, section=1):
    path = tmp_path / "a.mrc"
    path.write_bytes(data)
    with path.open("rb") as handle:
        found = Section(handle, section)
        return np.vstack([found.rows(start, start + 1) for start in range(found.height)])


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("mode", "kind"), [(1, "i2"), (2, "f4"), (6, "u2"), (12, "f2")])
def test_both_byte_orders_and_an_extended_header(tmp_path, mode, kind, order):
    values = np.arange(2 * 3 * 5).reshape(2, 3, 5)
    data = header(5, 3, 2, mode, order, extended=80) + b"x" * 80 + values.astype(order + kind).tobytes()
    assert (rows(tmp_path, data) == values[0]).all()
    assert (rows(tmp_path, data, 2) == values[1]).all()


def test_four_bits_a_pixel(tmp_path):
    """Rows of an odd width are padded; the first pixel of a byte is in its lower half (IMOD, mode 101)."""
    data = header(3, 2, 1, 101) + bytes([0x21, 0x03, 0xFE, 0x0D])
    assert rows(tmp_path, data).tolist() == [[1, 2, 3], [14, 15, 13]]


def test_bytes_without_sign_where_imod_says_so(tmp_path):
    pixels = bytes([0, 100, 200, 255])
    assert rows(tmp_path, header(4, 1, 1, 0) + pixels).tolist() == [[0, 100, -56, -1]]
    imod = header(4, 1, 1, 0, stamp=(1146047817, 0))
    assert rows(tmp_path, imod + pixels).tolist() == [[0, 100, 200, 255]]


def test_complex_and_coloured_pixels(tmp_path):
    data = header(2, 1, 1, 4) + np.array([3, 4, 0, 0], "<f4").tobytes()
    assert rows(tmp_path, data) == pytest.approx(np.array([[np.log(6), 0]]))
    assert rows(tmp_path, header(2, 1, 1, 16) + bytes([1, 2, 3, 10, 20, 30])).tolist() == [[2, 20]]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF"])
def test_pictures_that_are_no_mrc(tmp_path, kind):
    ramp = np.tile(np.linspace(20, 220, 900).astype(np.uint8), (600, 1))
    path = tmp_path / "picture.of_any_name"
    Image.fromarray(ramp).save(path, kind)
    picture = drawn(path)
    assert max(picture.shape) <= 512
    assert picture[:, :10].mean() < 30
    assert picture[:, -10:].mean() > 225


def test_colour_and_sixteen_bits(tmp_path):
    ramp = np.tile(np.linspace(0, 60000, 300), (200, 1))
    Image.fromarray(ramp.astype(np.uint16)).save(tmp_path / "a.tif")
    Image.fromarray(np.repeat(ramp[..., np.newaxis] // 256, 3, axis=2).astype(np.uint8)).save(
        tmp_path / "b.png"
    )
    for name in ("a.tif", "b.png"):
        picture = drawn(tmp_path / name)
        assert picture[:, :10].mean() < 30 < 225 < picture[:, -10:].mean()


def test_pages_of_a_tiff(tmp_path):
    path = tmp_path / "a.tif"
    path.write_bytes(tif(3))
    assert not np.array_equal(drawn(path, 1), drawn(path, 3))
    for section in (0, 4):
        with pytest.raises(ValueError):
            thumbnail(str(path), section)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF"])
def test_a_picture_cut_anywhere_is_an_error(tmp_path, kind):
    noise = np.random.default_rng(1).integers(0, 255, (64, 64)).astype(np.uint8)
    path = tmp_path / "a.tif"
    Image.fromarray(noise).save(path, kind)
    whole = path.read_bytes()
    for end in range(0, len(whole) * 9 // 10, max(1, len(whole) // 40)):
        path.write_bytes(whole[:end])
        with pytest.raises((OSError, ValueError)):
            thumbnail(str(path))


def test_a_picture_of_too_many_pixels_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "LARGEST", 10_000)
    Image.new("L", (101, 100)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="too many"):
        thumbnail(str(tmp_path / "a.png"))


def test_a_large_micrograph_is_never_in_memory_as_a_whole(tmp_path):
    path = tmp_path / "a.mrc"
    with path.open("wb") as handle:
        handle.write(header(11520, 8184, 1, 2))
        handle.truncate(1024 + 11520 * 8184 * 4)  # 377 MB, of which nothing is on disk
    tracemalloc.start()
    thumbnail(str(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 80_000_000


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_no_file_does_worse_than_an_error(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("pictures") / "a.mrc"
    noise = np.random.default_rng(1).integers(0, 99, (2, 12, 12))
    whole = data.draw(st.sampled_from([mrc(noise.astype(np.float32)), mrc(noise.astype(np.int8)), tif(2)]))
    made = bytearray(whole)
    for _ in range(data.draw(st.integers(0, 5))):
        made[data.draw(st.integers(0, min(250, len(made) - 1)))] = data.draw(st.integers(0, 255))
    for _ in range(data.draw(st.integers(0, 5))):
        made[data.draw(st.integers(0, len(made) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(made))
    try:
        picture, _ = thumbnail(str(path), data.draw(st.integers(-1, 3)))
    except (OSError, ValueError):
        return
    assert Image.open(io.BytesIO(picture)).size[0] >= 1


# how fast they are made


@pytest.fixture
def passing(monkeypatch):
    """A clock that only pauses move."""

    class Time:
        now, used = 1000.0, 0.0

        def monotonic(self):
            return self.now

        def thread_time(self):
            return self.used

    clock = Time()
    monkeypatch.setattr(pictures, "time", clock)
    return clock


def test_so_many_pictures_a_minute(passing):
    pace = Pace(per_minute=120)
    assert pace.pause() == 0
    with pace:
        passing.now += 0.1
    assert pace.pause() == pytest.approx(0.4)
    passing.now += 5
    assert pace.pause() == 0


def test_such_a_share_of_a_core(passing):
    pace = Pace(share=0.25)
    with pace:
        passing.now += 3  # of which one second was spent computing
        passing.used += 1
    assert pace.pause() == pytest.approx(1)
    with Pace() as fastest:
        passing.now += 3
        passing.used += 3
    assert fastest.pause() == 0


@pytest.mark.parametrize("wrong", [{"per_minute": 0}, {"per_minute": -1}, {"share": 0}, {"share": 1.1}])
def test_a_pace_that_is_none(wrong):
    with pytest.raises(ValueError):
        Pace(**wrong)


def test_numbers_do_not_wait_for_pictures(site, tmp_path):
    """Each look sends its numbers; pictures come at their pace between looks, and each once."""
    root = project.write(tmp_path / "relion", project.files(count=6))
    waits = []
    client = Client(site.url, TOKEN, wait=waits.append)
    sync = Sync(RelionReader(str(root), key="p"), client, SESSION, pace=Pace(per_minute=60))
    sync.numbers()
    [run] = site.runs.values()
    assert (len(run.micrographs), len(run.images)) == (6, 0)
    assert not sync.pictures(until=pictures.time.monotonic() + 0.5)
    assert len(run.images) == 1  # the next one is due in a second
    assert waits == []
    sync.pace = Pace()
    assert sync.pictures()
    sync.pictures()
    assert all(len(sent) == 1 for sent in run.images.values())
    assert len(run.images) >= 12
