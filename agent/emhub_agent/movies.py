"""What a movie's header says: width, height and how many frames. TIFF, BigTIFF, EER and MRC."""

from __future__ import annotations

import os
import struct
from typing import BinaryIO, NamedTuple

from . import mrc

#: What the names of movies end in.
EXTENSIONS = (".tif", ".tiff", ".mrc", ".mrcs", ".eer")
#: A movie of more frames than this is counted no further.
MOST_FRAMES = 20_000


class MovieError(ValueError):
    """The file is no movie of its kind, or is not whole; the message says why."""


class Movie(NamedTuple):
    """Size in pixels, and frames; ``frames`` is 2 for "more than one" where not all were counted."""

    width: int
    height: int
    frames: int


def read(path: str, count: bool = True) -> Movie:
    """Raises OSError where the file cannot be read and MovieError where it is no movie, or not whole.

    Without ``count`` a TIFF's frames are told apart only as one or more.
    """
    if path.lower().endswith((".tif", ".tiff", ".eer")):
        with open(path, "rb") as handle:
            return _tiff(handle, count)
    try:
        header = mrc.read_header(path)
    except ValueError as error:
        raise MovieError(str(error)) from error
    if os.path.getsize(path) < header.file_size:
        raise MovieError("the file is not whole")
    return Movie(header.width, header.height, header.sections)


def _tiff(handle: BinaryIO, count: bool) -> Movie:
    """Follow the chain of image directories; each must lie in the file, and the last one end the chain.

    TIFF 6.0, section 2; BigTIFF as Adobe's technical note of 2008 has it. EER is a BigTIFF.
    """
    head = handle.read(16)
    order = {b"II": "<", b"MM": ">"}.get(head[:2], "")
    if not order or len(head) < 8:
        raise MovieError("the file is no TIFF")
    (magic,) = struct.unpack(order + "H", head[2:4])
    if magic == 42:
        (offset,) = struct.unpack(order + "I", head[4:8])
        count_format, entry_bytes, next_format = "H", 12, "I"
    elif magic == 43 and len(head) == 16 and head[4:8] == struct.pack(order + "HH", 8, 0):
        (offset,) = struct.unpack(order + "Q", head[8:16])
        count_format, entry_bytes, next_format = "Q", 20, "Q"
    else:
        raise MovieError("the file is no TIFF")
    length = os.fstat(handle.fileno()).st_size
    size: tuple[int, int] | None = None
    frames = 0
    seen: set[int] = set()
    while offset:
        if offset in seen or frames >= MOST_FRAMES:
            raise MovieError("its image directories form a circle, or are too many")
        seen.add(offset)
        if offset >= length:
            raise MovieError("the file is not whole")
        handle.seek(offset)
        (entries,) = _unpack(handle, order + count_format)
        if not 1 <= entries <= 4096:
            raise MovieError("it has an image directory that is none")
        data = handle.read(entries * entry_bytes)
        if len(data) < entries * entry_bytes:
            raise MovieError("the file is not whole")
        (offset,) = _unpack(handle, order + next_format)
        frames += 1
        if size is None:
            size = _size(data, order, entry_bytes)
        if not count and frames == 2:
            break
    if size is None:
        raise MovieError("it has no image")
    return Movie(*size, frames)


def _size(data: bytes, order: str, entry_bytes: int) -> tuple[int, int]:
    found: dict[int, int] = {}
    for start in range(0, len(data), entry_bytes):
        tag, kind = struct.unpack(order + "HH", data[start : start + 4])
        if tag in (256, 257):
            value = data[start + entry_bytes - (8 if entry_bytes == 20 else 4) :]
            layout = {3: "H", 4: "I", 16: "Q"}.get(kind)
            if layout and len(value) >= struct.calcsize(order + layout):
                found[tag] = struct.unpack_from(order + layout, value)[0]
    width, height = found.get(256, 0), found.get(257, 0)
    if not (0 < width < 2**20 and 0 < height < 2**20):
        raise MovieError("it has no size")
    return width, height


def _unpack(handle: BinaryIO, layout: str) -> tuple[int, ...]:
    data = handle.read(struct.calcsize(layout))
    if len(data) < struct.calcsize(layout):
        raise MovieError("the file is not whole")
    return struct.unpack(layout, data)
