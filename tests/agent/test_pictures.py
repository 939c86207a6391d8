import io

import numpy as np
import pytest
from emhub_agent.mrc import mrc_size, thumbnail
from PIL import Image

from .project import mrc


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
