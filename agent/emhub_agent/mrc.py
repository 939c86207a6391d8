"""MRC files: their size, and small pictures of their sections.

Modes 0 (int8), 1 (int16), 2 (float32), 6 (uint16) and 12 (float16) are read; the first row is drawn at the
top, so that coordinates in pixels of the file fall where they belong.
"""

from __future__ import annotations

import io
import os
import struct
import warnings
from typing import NamedTuple

import mrcfile
import numpy as np
from PIL import Image, features

#: Longest side of a thumbnail, in pixels.
SIDE = 512


#: Bytes of one value by the mode in the header.
VALUE_BYTES = {0: 1, 1: 2, 2: 4, 6: 2, 12: 2}


class Header(NamedTuple):
    """What of an MRC2014 header is needed to know whether the file is whole."""

    width: int
    height: int
    sections: int
    mode: int
    extended: int  # bytes between header and data

    @property
    def file_size(self) -> int:
        return 1024 + self.extended + self.width * self.height * self.sections * VALUE_BYTES[self.mode]


def read_header(path: str) -> Header:
    """Raises OSError where the file cannot be read and ValueError where it is not an MRC file."""
    with open(path, "rb") as handle:
        data = handle.read(1024)
    if len(data) < 1024:
        raise ValueError("the file is not whole")
    for order in ("<", ">"):
        header = Header(*struct.unpack(order + "4i", data[:16]), *struct.unpack(order + "i", data[92:96]))
        sizes = (header.width, header.height, header.sections)
        if header.mode in VALUE_BYTES and header.extended >= 0 and all(0 < size < 2**20 for size in sizes):
            return header
    raise ValueError("the file is not an MRC file of a kind that can be drawn")


def mrc_size(path: str) -> tuple[int, int] | None:
    """Return (width, height) from the header, or None where there is none."""
    try:
        header = read_header(path)
    except (OSError, ValueError):
        return None
    return header.width, header.height


def thumbnail(path: str, section: int = 1, side: int = SIDE) -> tuple[bytes, str]:
    """Return one section of an MRC file as a small picture: (bytes, media type).

    ``section`` counts from 1. The picture is averaged down to at most ``side`` pixels and its contrast
    stretched between the 1st and the 99th percentile. Raises OSError where the file cannot be read and
    ValueError where it is not an MRC file, is not whole yet, or has no such section.
    """
    # Infinite and absurd values are drawn as black or white, whatever they do to the sums.
    with np.errstate(over="ignore", invalid="ignore"):
        return encode(stretch(shrink(_section(path, section), side)), side)


def _section(path: str, section: int) -> np.ndarray:
    if os.path.getsize(path) < read_header(path).file_size:
        raise ValueError("the file is not whole")
    try:
        with warnings.catch_warnings():
            # Headers written by other programs are often a little wrong and the data are fine.
            warnings.simplefilter("ignore")
            with mrcfile.mmap(path, mode="r", permissive=True) as handle:
                data = handle.data
                if data.ndim == 2:
                    data = data[np.newaxis]
                if not 1 <= section <= data.shape[0] or data.ndim != 3:
                    raise ValueError(f"there is no section {section}")
                return data[section - 1]
    except (TypeError, AttributeError, struct.error, OverflowError) as error:
        raise ValueError(str(error)) from error


def shrink(data: np.ndarray, side: int) -> np.ndarray:
    """Return a 2D array averaged down by a whole factor, to less than twice ``side`` in its longer dimension.

    Works in strips, so that a large micrograph is never in memory as a whole.
    """
    height, width = data.shape
    factor = max(1, max(height, width) // side)
    rows, columns = height // factor, width // factor
    if rows == 0 or columns == 0:
        raise ValueError("the image is too narrow to draw")
    result = np.empty((rows, columns), dtype=np.float32)
    step = max(1, 512 // factor)
    for start in range(0, rows, step):
        stop = min(rows, start + step)
        strip = np.asarray(data[start * factor : stop * factor, : columns * factor], dtype=np.float32)
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
    if high <= low:
        return np.full(data.shape, 128, dtype=np.uint8)
    scaled = (np.nan_to_num(data, nan=low, posinf=high, neginf=low) - low) * (255.0 / (high - low))
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)


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
