"""Reading STAR files that another program may still be writing.

The grammar is the part of STAR that RELION and the tools around it write: ``data_NAME`` blocks holding either
``_label value`` pairs or one ``loop_`` whose rows are one line each. Columns are known by name, never by
their number, because tools write ``#1``, ``#0`` or nothing behind the name. Comments and tabs are taken as
they come.

A line counts only once it ends in a newline, and a row only when it has as many values as the loop has
columns: what a writer has not finished yet is left for the next look.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import BinaryIO, NamedTuple

# A quote opens a value only at its start and closes it only before white space, so that the apostrophe in
# CTFFIND's does neither. An opened quote that never closes is an ordinary character.
_VALUE = re.compile(r"""'(.*?)'(?=\s|$)|"(.*?)"(?=\s|$)|(\S+)""")


class Pair(NamedTuple):
    """One ``_label value`` line outside a loop."""

    block: str
    label: str
    value: str


class Row(NamedTuple):
    """One row of a loop: ``columns`` maps a label (without its underscore) to its place in ``values``."""

    block: str
    columns: dict[str, int]
    values: list[str]

    def get(self, label: str) -> str | None:
        place = self.columns.get(label)
        return None if place is None else self.values[place]


def split_values(line: str) -> list[str]:
    """Return the values of one line, freed of their quotes."""
    if "'" not in line and '"' not in line:
        return line.split()
    values = []
    for match in _VALUE.finditer(line):
        single, double, plain = match.groups()
        if single is not None:
            values.append(single)
        elif double is not None:
            values.append(double)
        elif plain.startswith("#"):
            break
        else:
            values.append(plain)
    return values


def whole_lines(path: str, complete: bool = False) -> Iterator[str]:
    """Yield the lines of a text file that end in a newline; with ``complete`` the last one in any case.

    Raises OSError where the file cannot be read. Bytes that are not UTF-8 are replaced, not refused.
    """
    with open(path, encoding="utf-8", errors="replace", newline="\n") as handle:
        for line in handle:
            # Network file systems show zeros where the writer's data have not arrived yet.
            if (line.endswith("\n") or complete) and "\0" not in line:
                yield line


def read(path: str, blocks: Sequence[str] | None = None, complete: bool = False) -> Iterator:
    """Yield the ``Pair`` and ``Row`` items of a STAR file in their order, holding one line at a time.

    ``blocks`` limits the answer to blocks of these names (without ``data_``). ``complete`` says that nobody
    writes the file any more, so that a last line without a newline is a line too.

    Raises OSError where the file cannot be read; text that is not STAR yields nothing.
    """
    return parse(whole_lines(path, complete), blocks)


def parse(
    lines: Iterable[str], blocks: Sequence[str] | None = None, position: Position | None = None
) -> Iterator:
    """As ``read``, from lines. ``position`` says where in the grammar they begin, and then where they end."""
    position = Position() if position is None else position
    block, wanted = position.block, position.wanted
    columns, in_header = position.columns, position.in_header
    for line in lines:
        text = line.strip()
        if not text or text[0] == "#":
            continue
        if text[:5].lower() == "data_" and (columns is None or len(text.split(None, 1)) == 1):
            block, wanted, columns = text[5:], blocks is None or text[5:] in blocks, None
            continue
        if not wanted or block is None:
            continue
        if text.lower() == "loop_":
            columns, in_header = {}, True
            continue
        if columns is not None and in_header and text[0] == "_":
            label = text.split(None, 1)[0][1:]
            # A label given twice keeps its first place, but the second still takes up a column.
            columns[label if label not in columns else f"{label}#{len(columns)}"] = len(columns)
            continue
        if columns is None:
            if text[0] == "_":
                parts = text.split(None, 1)
                values = split_values(parts[1]) if len(parts) == 2 else []
                yield Pair(block, parts[0][1:], values[0] if values else "")
            continue
        in_header = False
        values = split_values(text)
        if len(values) == len(columns):
            yield Row(block, columns, values)
    position.block, position.wanted = block, wanted
    position.columns, position.in_header = columns, in_header


class Position:
    """Where in the grammar the next line stands."""

    __slots__ = ("block", "columns", "in_header", "wanted")

    def __init__(self) -> None:
        self.block: str | None = None
        self.wanted = False
        self.columns: dict[str, int] | None = None  # None outside a loop
        self.in_header = False


class Tail:
    """Reads a STAR file again and again, parsing only what was added since.

    What was read before is compared by its checksum (CRC-32 over every byte), so that a file written anew is
    noticed whichever of its bytes differ; it is then read from its start.
    """

    def __init__(self) -> None:
        self._forget()

    def _forget(self) -> None:
        self._position = Position()
        self._offset = self._checksum = 0

    def read(self, path: str, complete: bool = False) -> tuple[bool, Iterator]:
        """Return whether the items are all of the file's (else those that were added), and the items.

        The items must be taken to their end before the next call. Raises OSError where the file cannot be
        read, then or while they are taken.
        """
        with open(path, "rb") as handle:
            goes_on = self._offset > 0 and self._is_unchanged(handle)
        if not goes_on:
            self._forget()
        return not goes_on, parse(self._lines(path, complete), position=self._position)

    def _is_unchanged(self, handle: BinaryIO) -> bool:
        left, checksum = self._offset, 0
        while left:
            data = handle.read(min(left, 1 << 20))
            if not data:
                return False
            checksum = zlib.crc32(data, checksum)
            left -= len(data)
        return checksum == self._checksum

    def _lines(self, path: str, complete: bool) -> Iterator[str]:
        offset, checksum = self._offset, self._checksum
        self._offset = 0  # should this not come to its end, the next time begins anew
        is_certain = True
        with open(path, "rb") as handle:
            handle.seek(offset)
            for line in handle:
                is_whole = line.endswith(b"\n")
                if b"\0" in line or (complete and not is_whole):
                    # Taken as it is or left out, and not what the next time may go on from.
                    is_certain = False
                elif is_whole:
                    offset += len(line)
                    checksum = zlib.crc32(line, checksum)
                if (is_whole or complete) and b"\0" not in line:
                    yield line.decode("utf-8", "replace")
        self._offset, self._checksum = (offset, checksum) if is_certain else (0, 0)


def number(value: str | None) -> float | None:
    """Return a finite number, or None where there is none (missing, not a number, infinite)."""
    if value is None or "_" in value:  # Python would read 1_000 as a number
        return None
    try:
        result = float(value)
    except ValueError:
        return None
    return result if math.isfinite(result) else None


def numbers(row: Row, labels: Sequence[tuple[str, str]]) -> dict[str, float]:
    """Return {name: number} for the (name, label) pairs that the row knows."""
    found = {}
    for name, label in labels:
        value = number(row.get(label))
        if value is not None:
            found[name] = value
    return found
