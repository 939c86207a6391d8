"""Small pictures of micrographs, power spectra and classes, from MRC, TIFF, PNG and JPEG.

The first row of a file is drawn at the top, so that coordinates in pixels of the file fall where they belong.
"""

from __future__ import annotations

import io
import time
import warnings
from typing import BinaryIO, Protocol

import numpy as np
from PIL import Image, features

from . import mrc

#: Longest side of a thumbnail, in pixels.
SIDE = 512
#: Values held in memory at once while a picture is averaged down.
STRIP = 4_000_000
#: Pixels of a compressed picture, which has to be in memory as a whole.
LARGEST = 120_000_000
# How TIFF, BigTIFF, PNG and JPEG begin; the width of an MRC file is never so large.
_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"\x89PNG", b"\xff\xd8\xff")

# What is wrong with a broken file is said by the error that follows.
warnings.filterwarnings("ignore", module=r"PIL\.TiffImagePlugin")


class Rows(Protocol):
    """An image that can be read a few rows at a time."""

    width: int
    height: int

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Return rows as float32."""


def thumbnail(path: str, section: int = 1, side: int = SIDE) -> tuple[bytes, str]:
    """Return one section (counted from 1) of a file as a small picture: (bytes, media type).

    The picture is averaged down to at most ``side`` pixels and its contrast stretched between the 1st and the
    99th percentile. Raises OSError where the file cannot be read and ValueError where it is of no known kind,
    is not whole yet, or has no such section.
    """
    # Infinite and absurd values are drawn as black or white, whatever they do to the sums.
    with np.errstate(all="ignore"), open(path, "rb") as handle:
        is_picture = handle.read(8).startswith(_MAGIC)
        image = _Picture(handle, section) if is_picture else mrc.Section(handle, section)
        return encode(stretch(shrink(image, side)), side)


class _Picture:
    """One page of what Pillow reads."""

    def __init__(self, handle: BinaryIO, section: int):
        try:
            handle.seek(0)
            image: Image.Image = Image.open(handle, formats=("TIFF", "PNG", "JPEG"))
            image.seek(section - 1)
            if image.width * image.height > LARGEST:
                raise ValueError(f"{image.width} × {image.height} pixels are too many to draw")
            image.load()
        except (OSError, ValueError, MemoryError):
            raise  # said well enough, or not the file's fault
        except EOFError as error:
            raise ValueError(f"there is no section {section}") from error
        except Exception as error:
            # Broken files make Pillow raise whatever its parts raise.
            raise ValueError(f"it cannot be drawn ({type(error).__name__}: {error})") from error
        if image.mode in ("RGB", "RGBA", "P", "CMYK", "YCbCr", "LA", "1"):
            image = image.convert("L")
        self._image = image
        self.width, self.height = image.size

    def rows(self, start: int, stop: int) -> np.ndarray:
        return np.asarray(self._image.crop((0, start, self.width, stop)), dtype=np.float32)


def shrink(image: Rows, side: int) -> np.ndarray:
    """Return an image averaged down by a whole factor, to less than twice ``side`` in its longer dimension.

    Works in strips, so that a large micrograph is never in memory as a whole.
    """
    height, width = image.height, image.width
    factor = max(1, max(height, width) // side)
    rows, columns = height // factor, width // factor
    if rows == 0 or columns == 0:
        raise ValueError("the image is too narrow to draw")
    result = np.empty((rows, columns), dtype=np.float32)
    step = max(1, STRIP // (factor * width))
    for start in range(0, rows, step):
        stop = min(rows, start + step)
        strip = image.rows(start * factor, stop * factor)[:, : columns * factor]
        result[start:stop] = strip.reshape(stop - start, factor, columns, factor).mean(axis=(1, 3))
    return result


def stretch(data: np.ndarray) -> np.ndarray:
    """Return bytes: the 1st percentile black, the 99th white; an even image is an even grey."""
    known = data[np.isfinite(data)]
    if known.size == 0:
        raise ValueError("the image holds no numbers")
    low, high = (float(value) for value in np.percentile(known, (1, 99)))
    if high <= low:
        low, high = float(known.min()), float(known.max())
    if not high - low > 0:
        return np.full(data.shape, 128, dtype=np.uint8)
    scaled = (np.nan_to_num(data, nan=low, posinf=high, neginf=low) - low) * (255.0 / (high - low))
    return np.clip(np.rint(np.nan_to_num(scaled)), 0, 255).astype(np.uint8)


def encode(data: np.ndarray, side: int = SIDE) -> tuple[bytes, str]:
    """Return a grey picture of at most ``side`` pixels as WebP, or JPEG where Pillow has no WebP."""
    picture = Image.fromarray(data)
    picture.thumbnail((side, side), Image.LANCZOS)
    buffer = io.BytesIO()
    if features.check("webp"):
        picture.save(buffer, "WEBP", quality=60, method=4)
        return buffer.getvalue(), "image/webp"
    picture.save(buffer, "JPEG", quality=70)
    return buffer.getvalue(), "image/jpeg"


class Pace:
    """How fast pictures may be made, so that they neither hold up numbers nor take the machine from others.

    At most ``per_minute`` pictures, and at most this ``share`` of one core's time (above 0, up to 1).
    Raises ValueError for a pace that is none.
    """

    def __init__(self, per_minute: float | None = None, share: float = 1.0):
        if per_minute is not None and not per_minute > 0:
            raise ValueError("There must be more than 0 pictures a minute.")
        if not 0 < share <= 1:
            raise ValueError("The share of a core's time must be above 0 and at most 1.")
        self._apart = 60.0 / per_minute if per_minute else 0.0
        self._share = share
        self._next = 0.0
        self._begun: tuple[float, float] | None = None

    def pause(self) -> float:
        """Return for how many seconds no picture may be made yet."""
        return max(0.0, self._next - time.monotonic())

    def __enter__(self) -> Pace:
        self._begun = time.monotonic(), time.thread_time()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._begun is not None
        begun, used = self._begun
        spent = time.thread_time() - used
        self._next = max(begun + self._apart, begun + spent / self._share)
