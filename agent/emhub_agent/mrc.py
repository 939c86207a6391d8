"""MRC files: headers and rows of their sections (MRC2014, https://www.ccpem.ac.uk/mrc-format/mrc2014/).

Modes 0 (int8, or uint8 where IMOD says so), 1 (int16), 2 (float32), 3 and 4 (complex), 6 (uint16), 12
(float16), 16 (red, green, blue) and 101 (4 bits, as SerialEM and IMOD write them), in either byte order.

Rows are read and not mapped into memory: a file that is cut, or whose share goes away, while it is mapped
ends the process.
"""

from __future__ import annotations

import os
import struct
from typing import BinaryIO, NamedTuple

import numpy as np

#: Bits of one pixel by the mode in the header.
PIXEL_BITS = {0: 8, 1: 16, 2: 32, 3: 32, 4: 64, 6: 16, 12: 16, 16: 24, 101: 4}
_KINDS = {0: "i1", 1: "i2", 2: "f4", 3: "i2", 4: "f4", 6: "u2", 12: "f2", 16: "u1", 101: "u1"}
_IMOD_STAMP = 1146047817


class Header(NamedTuple):
    """What of a header is needed to know whether the file is whole, and to read it."""

    width: int
    height: int
    sections: int
    mode: int
    extended: int  # bytes between header and data
    order: str = "<"
    is_unsigned: bool = False

    @property
    def row_bytes(self) -> int:
        return (self.width * PIXEL_BITS[self.mode] + 7) // 8

    @property
    def file_size(self) -> int:
        return 1024 + self.extended + self.row_bytes * self.height * self.sections


def read_header(path: str) -> Header:
    """Raises OSError where the file cannot be read and ValueError where it is not an MRC file."""
    with open(path, "rb") as handle:
        return parse_header(handle.read(1024))


def parse_header(data: bytes) -> Header:
    """Return the header in the first 1,024 bytes. Raises ValueError."""
    if len(data) < 1024:
        raise ValueError("the file is not whole")
    for order in ("<", ">"):
        width, height, sections, mode = struct.unpack(order + "4i", data[:16])
        (extended,) = struct.unpack(order + "i", data[92:96])
        stamp, flags = struct.unpack(order + "2i", data[152:160])
        if mode in PIXEL_BITS and extended >= 0 and all(0 < n < 2**20 for n in (width, height, sections)):
            # IMOD wrote bytes without sign, and says so in its own fields.
            is_unsigned = mode == 0 and stamp == _IMOD_STAMP and not flags & 1
            return Header(width, height, sections, mode, extended, order, is_unsigned)
    raise ValueError("the file is not an MRC file of a kind that can be drawn")


def mrc_size(path: str) -> tuple[int, int] | None:
    """Return (width, height) from the header, or None where there is none."""
    try:
        header = read_header(path)
    except (OSError, ValueError):
        return None
    return header.width, header.height


class Section:
    """One section of an open MRC file, counted from 1; its first row is the file's first.

    Raises ValueError where there is no such section, or the file is not whole.
    """

    def __init__(self, handle: BinaryIO, section: int = 1):
        self._handle = handle
        handle.seek(0)
        self.header = header = parse_header(handle.read(1024))
        if os.fstat(handle.fileno()).st_size < header.file_size:
            raise ValueError("the file is not whole")
        if not 1 <= section <= header.sections:
            raise ValueError(f"there is no section {section}")
        self.width, self.height = header.width, header.height
        self._start = 1024 + header.extended + (section - 1) * header.row_bytes * header.height

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Return rows ``start`` to ``stop`` (excluded) as float32; a complex value as the logarithm of its
        size, a coloured one as its mean."""
        header = self.header
        self._handle.seek(self._start + start * header.row_bytes)
        data = self._handle.read((stop - start) * header.row_bytes)
        if len(data) < (stop - start) * header.row_bytes:
            raise ValueError("the file became shorter while it was read")
        kind = "u1" if header.is_unsigned else _KINDS[header.mode]
        values = np.frombuffer(data, dtype=np.dtype(kind).newbyteorder(header.order))
        values = values.reshape(stop - start, -1)
        if header.mode == 101:
            # The first pixel of a pair is in the lower four bits.
            both = np.stack((values & 15, values >> 4), axis=-1).reshape(stop - start, -1)
            return both[:, : self.width].astype(np.float32)
        values = values.astype(np.float32)
        if header.mode == 16:
            return values.reshape(stop - start, self.width, 3).mean(axis=2)
        if header.mode in (3, 4):
            pairs = values.reshape(stop - start, self.width, 2)
            return np.log1p(np.hypot(pairs[..., 0], pairs[..., 1]))
        return values
