"""CryoSPARC's files: tables (.cs), groups (.csg), and a job's own description (job.json).

A table comes in one of two binary formats, told apart by its first six bytes:

1. ``\\x93NUMPY``: NumPy's own format of a structured array (NEP 1), text in columns of fixed width.
2. ``\\x95CSDAT``: length of the header (uint32, little endian), a header in JSON (``length``, ``dtype``,
   ``compressed_fields``), then for each column its size in bytes (uint32) and its values, of which those
   named in the header are one LZ4 block; last a heap of texts that end in NUL, into which columns of text
   (``|O``) hold offsets (uint64). Source: the vendor's own library, cryosparc-tools, and files it wrote.

Columns are named ``group/field``. Nothing is unpickled or evaluated, and nothing is allocated that the file
is not long enough to hold. A file of another length than its header says is being written: a ValueError, like
everything else that is wrong with one.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, BinaryIO, Callable, NamedTuple

import numpy as np

NUMPY = b"\x93NUMPY"
CSDAT = b"\x95CSDAT"

#: Bytes of a header, of one row, and of one column, beyond which a file is not believed.
LONGEST_HEADER = 4 * 2**20
LONGEST_ROW = 2**20
LONGEST_COLUMN = 2**31
#: Rows that are in memory at once.
CHUNK = 65_536
#: job.json and .csg files are far smaller.
LONGEST_TEXT = 64 * 2**20

_TYPE = re.compile(r"^[<>|=](?:[fi][1248]|u[1248]|f16|c8|c16|b1|[SU]\d{1,7})$")
_COLUMN = re.compile(
    r"\(\s*'([^'\\]*)'\s*,\s*'([^'\\]*)'\s*(?:,\s*\(((?:\s*\d+\s*,)*\s*(?:\d+\s*)?)\)\s*)?\)\s*,?\s*"
)
_HEADER = re.compile(
    r"^\{\s*'descr':\s*\[(?P<descr>.*)\]\s*,\s*'fortran_order':\s*(?:True|False)\s*,"
    r"\s*'shape':\s*\((?P<rows>\d{1,18}),\)\s*,?\s*\}\s*$",
    re.DOTALL,
)


class Column(NamedTuple):
    """A column as the header describes it; ``type`` is ``|O`` for text in the heap."""

    name: str
    type: str
    shape: tuple[int, ...]

    @property
    def dtype(self) -> np.dtype:
        base = "<u8" if self.type == "|O" else self.type
        return np.dtype((base, self.shape)) if self.shape else np.dtype(base)


Wanted = Callable[[str], bool]
Rows = dict[str, np.ndarray]


def columns(path: str) -> list[str]:
    """Return the names of a table's columns. Raises OSError, and ValueError where it is no table."""
    with open(path, "rb") as handle:
        return [column.name for column in _open(handle).columns]


def without_rows(path: str) -> Rows:
    """Return a table's columns without their rows. Raises as ``columns``."""
    with open(path, "rb") as handle:
        return {
            column.name: np.empty((0, *column.shape), object if column.type == "|O" else column.type)
            for column in _open(handle).columns
        }


def chunks(path: str, wanted: Wanted) -> Iterator[Rows]:
    """Yield the wanted columns of a table, some thousand rows at a time; text as arrays of bytes.

    Raises OSError where the file cannot be read and ValueError where it is no table or not whole.
    """
    with open(path, "rb") as handle:
        table = _open(handle)
        yield from table.chunks(wanted)


def read(path: str, wanted: Wanted = lambda name: True) -> Rows:
    """Return the wanted columns of a table whole. Raises as ``chunks``."""
    parts = list(chunks(path, wanted))
    if not parts:
        return {}
    if len(parts) == 1:
        return parts[0]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


_ARRAY = re.compile(
    r"^\{\s*'descr':\s*'(?P<type>[^']*)'\s*,\s*'fortran_order':\s*(?P<order>True|False)\s*,"
    r"\s*'shape':\s*\((?P<shape>[\d,\s]*)\)\s*,?\s*\}\s*$"
)


def read_array(path: str) -> np.ndarray:
    """Return a plain array of numbers from an .npy file. Raises as ``chunks``."""
    with open(path, "rb") as handle:
        if _exactly(handle, 6) != NUMPY:
            raise ValueError("the file is not an array of NumPy's")
        match = _ARRAY.match(_numpy_header(handle))
        shape = [int(part) for part in match["shape"].split(",") if part.strip()] if match else []
        if not match or not _TYPE.match(match["type"]) or match["type"][1] not in "fiu":
            raise ValueError("the file holds no array of numbers")
        try:
            dtype = np.dtype(match["type"])
        except TypeError as error:
            raise ValueError("the file holds no array of numbers") from error
        count = math.prod(shape)
        _check_size(handle, handle.tell() + count * dtype.itemsize)
        data = np.frombuffer(_exactly(handle, count * dtype.itemsize), dtype)
        return data.reshape(shape, order="F" if match["order"] == "True" else "C")


def _numpy_header(handle: BinaryIO) -> str:
    version = _exactly(handle, 2)[0]
    if version not in (1, 2, 3):
        raise ValueError("the file is of a version of NumPy's format that is not known")
    size = int.from_bytes(_exactly(handle, 2 if version == 1 else 4), "little")
    if size > LONGEST_HEADER:
        raise ValueError("the header is too long")
    return _exactly(handle, size).decode("latin-1" if version < 3 else "utf-8")


def _open(handle: BinaryIO) -> NumpyTable | CsdatTable:
    magic = handle.read(6)
    if magic == NUMPY:
        return NumpyTable(handle)
    if magic == CSDAT:
        return CsdatTable(handle)
    if not magic or NUMPY.startswith(magic) or CSDAT.startswith(magic):
        raise ValueError("the file is not whole")
    raise ValueError("the file is not a table of CryoSPARC's")


def _column(name: Any, kind: Any, shape: Iterable[Any] = ()) -> Column:
    if not isinstance(name, str) or not isinstance(kind, str):
        raise ValueError("a column without name or type")
    sizes = tuple(shape)
    if any(not isinstance(size, int) or isinstance(size, bool) or not 0 < size <= 2**20 for size in sizes):
        raise ValueError(f"column {name[:80]} has an impossible shape")
    if len(sizes) > 8 or (kind != "|O" and not _TYPE.match(kind)):
        raise ValueError(f"column {name[:80]} is of a type that is not read")
    if math.prod(sizes) * int(re.sub(r"\D", "", kind) or 8) > LONGEST_ROW:
        raise ValueError(f"column {name[:80]} is too wide")
    column = Column(name, kind, sizes)
    try:
        width = column.dtype.itemsize
    except (TypeError, ValueError) as error:
        raise ValueError(f"column {name[:80]} is of a type that is not read") from error
    if not width:
        raise ValueError(f"column {name[:80]} has no width")
    return column


class NumpyTable:
    """Format 1."""

    def __init__(self, handle: BinaryIO):
        self.handle = handle
        match = _HEADER.match(_numpy_header(handle))
        if not match:
            raise ValueError("the file holds no table, or one whose header cannot be read")
        self.columns: list[Column] = []
        place, text = 0, match["descr"].strip()
        while place < len(text):
            found = _COLUMN.match(text, place)
            if not found:
                raise ValueError("the header cannot be read")
            shape = [int(part) for part in (found[3] or "").split(",") if part.strip()]
            self.columns.append(_column(found[1], found[2], shape))
            place = found.end()
        self.rows = int(match["rows"])
        names = [column.name for column in self.columns]
        if not names or len(set(names)) < len(names) or "|O" in {column.type for column in self.columns}:
            raise ValueError("the file holds no table, or one whose header cannot be read")
        self.dtype = np.dtype([(column.name, column.dtype) for column in self.columns])
        if not 0 < self.dtype.itemsize <= LONGEST_ROW:
            raise ValueError("its rows are too long")
        self.start = handle.tell()
        _check_size(handle, self.start + self.rows * self.dtype.itemsize)

    def chunks(self, wanted: Wanted) -> Iterator[Rows]:
        names = [column.name for column in self.columns if wanted(column.name)]
        # Rows can be long: never more of them than a few megabytes.
        step = max(1, min(CHUNK, 2**23 // self.dtype.itemsize))
        for start in range(0, self.rows, step):
            count = min(step, self.rows - start)
            rows = np.frombuffer(_exactly(self.handle, count * self.dtype.itemsize), self.dtype)
            yield {name: rows[name].copy() for name in names}


class CsdatTable:
    """Format 2."""

    def __init__(self, handle: BinaryIO):
        self.handle = handle
        size = int.from_bytes(_exactly(handle, 4), "little")
        if size > LONGEST_HEADER:
            raise ValueError("the header is too long")
        header = _json(_exactly(handle, size))
        rows, dtype = header.get("length"), header.get("dtype")
        compressed = header.get("compressed_fields")
        if not isinstance(rows, int) or isinstance(rows, bool) or not 0 <= rows < 2**32:
            raise ValueError("the header gives no number of rows")
        if not isinstance(dtype, list) or not isinstance(compressed, list):
            raise ValueError("the header does not describe the columns")
        if header.get("compression") not in (None, "lz4"):
            raise ValueError("the columns are compressed in a way that is not known")
        self.rows = rows
        self.columns: list[Column] = []
        for item in dtype:
            if not isinstance(item, list) or len(item) not in (2, 3):
                raise ValueError("the header does not describe the columns")
            shape = item[2] if len(item) == 3 else ()
            self.columns.append(
                _column(item[0], item[1], shape if isinstance(shape, (list, tuple)) else (0,))
            )
        self.compressed = {name for name in compressed if isinstance(name, str)}
        self.end = os.fstat(handle.fileno()).st_size
        # Where each column's values are: none are there when there are no rows.
        self.places: dict[str, tuple[int, int]] = {}
        for column in self.columns if rows else ():
            count = int.from_bytes(_exactly(handle, 4), "little")
            place = handle.tell()
            if place + count > self.end:
                raise ValueError("the file is not whole")
            expected = rows * column.dtype.itemsize
            # An LZ4 block grows to at most 255 times its length.
            if expected > LONGEST_COLUMN or (
                expected > 255 * count if column.name in self.compressed else expected != count
            ):
                raise ValueError(f"column {column.name[:80]} has not the length that its header says")
            self.places[column.name] = (place, count)
            handle.seek(place + count)
        self.heap_start = handle.tell()

    def chunks(self, wanted: Wanted) -> Iterator[Rows]:
        if not self.rows:
            return
        values: dict[str, np.ndarray] = {}
        texts: set[str] = set()
        self.handle.seek(self.heap_start)
        heap = b""
        if any(column.type == "|O" for column in self.columns):
            heap = self.handle.read()
        plain: list[Column] = []
        for column in self.columns:
            # Every text is looked for, wanted or not: the heap comes last, and it is what a cut file lacks.
            if not wanted(column.name) and column.type != "|O":
                continue
            if column.type != "|O" and column.name not in self.compressed:
                plain.append(column)
                continue
            data = self._values(column, 0, self.rows)
            if column.type == "|O":
                last = int(data.max(initial=0))
                if last >= len(heap) or heap.find(b"\0", last) < 0:
                    raise ValueError("the file is not whole")
                texts.add(column.name)
                data = data.astype(np.uint32) if last < 2**32 else data
            if wanted(column.name):
                # Of millions of rows with the same value one is kept.
                is_one = bool((data == data[:1]).all())
                values[column.name] = np.broadcast_to(data[:1].copy(), data.shape) if is_one else data
            del data
        for start in range(0, self.rows, CHUNK):
            part = {name: data[start : start + CHUNK] for name, data in values.items()}
            rows = {name: _texts(data, heap) if name in texts else data for name, data in part.items()}
            for column in plain:
                rows[column.name] = self._values(column, start, min(CHUNK, self.rows - start))
            yield rows

    def _values(self, column: Column, first: int, rows: int) -> np.ndarray:
        """Return some of a column's rows; of one that is compressed all."""
        place, count = self.places[column.name]
        width = column.dtype.itemsize
        if column.name in self.compressed:
            self.handle.seek(place)
            data: bytes | bytearray = lz4_block(_exactly(self.handle, count), self.rows * width)
        else:
            self.handle.seek(place + first * width)
            data = _exactly(self.handle, rows * width)
        return np.frombuffer(data, column.dtype.base).reshape((-1, *column.shape))


def _texts(offsets: np.ndarray, heap: bytes) -> np.ndarray:
    known, places = np.unique(offsets, return_inverse=True)
    found = np.empty(len(known), dtype=object)
    for number, offset in enumerate(known.tolist()):
        found[number] = heap[offset : heap.index(b"\0", offset)]
    return found[places].reshape(offsets.shape)


def lz4_block(data: bytes, size: int) -> bytearray:
    """Return the ``size`` bytes of an LZ4 block. Raises ValueError where it does not hold just those.

    Source: the LZ4 block format description (tokens of literals and matches, offsets of two bytes).
    """
    out = bytearray()
    place, end = 0, len(data)
    try:
        while place < end:
            token = data[place]
            place += 1
            count = token >> 4
            if count == 15:
                more = 255
                while more == 255:
                    more = data[place]
                    place += 1
                    count += more
            if place + count > end or len(out) + count > size:
                raise ValueError("a column cannot be decompressed")
            out += data[place : place + count]
            place += count
            if place == end:
                break  # the last sequence has literals only
            offset = data[place] | data[place + 1] << 8
            place += 2
            count = (token & 15) + 4
            if count == 19:
                more = 255
                while more == 255:
                    more = data[place]
                    place += 1
                    count += more
            if not 0 < offset <= len(out) or len(out) + count > size:
                raise ValueError("a column cannot be decompressed")
            start = len(out) - offset
            if offset >= count:
                out += out[start : start + count]
            else:
                pattern = bytes(out[start:])
                out += (pattern * (count // offset + 1))[:count]
    except IndexError as error:
        raise ValueError("a column cannot be decompressed") from error
    if len(out) != size:
        raise ValueError("a column cannot be decompressed")
    return out


def _exactly(handle: BinaryIO, count: int) -> bytes:
    data = handle.read(count)
    if len(data) < count:
        raise ValueError("the file is not whole")
    return data


def _check_size(handle: BinaryIO, expected: int) -> None:
    size = os.fstat(handle.fileno()).st_size
    if size < expected:
        raise ValueError("the file is not whole")
    if size > expected:
        raise ValueError("the file is longer than its header says")


def _json(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"not JSON: {type(error).__name__}") from error
    if not isinstance(found, dict):
        raise ValueError("not a JSON object")
    return found


def _text(path: str) -> bytes:
    with open(path, "rb") as handle:
        data = handle.read(LONGEST_TEXT + 1)
    if len(data) > LONGEST_TEXT:
        raise ValueError("the file is too long")
    return data


# .csg


@dataclass
class Group:
    """One group of results: which file, beside the .csg, holds which of them."""

    name: str
    type: str  # exposure, particle, volume...
    metafiles: dict[str, str] = field(default_factory=dict)


_LINE = re.compile(r"^( *)([^\s:#'\"-][^:]*?|'[^']*'|\"[^\"]*\"):(?: +(.*))?$")


def read_group(path: str) -> Group:
    """Return what a .csg file says. Raises OSError, and ValueError where it names no results.

    It is YAML of the plainest kind (mappings of mappings, one pair a line), and no more than that is read.
    """
    try:
        lines = _text(path).decode("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError("the file is not text") from error
    found: dict[tuple[str, ...], str] = {}
    above: list[tuple[int, str]] = []
    for line in lines:
        match = _LINE.match(line)
        if not match:
            continue  # the rest of a long text
        depth, name, value = len(match[1]), _scalar(match[2]), _scalar(match[3] or "")
        while above and above[-1][0] >= depth:
            above.pop()
        if len(above) > 10:
            raise ValueError("the file is nested too deeply")
        above.append((depth, name))
        found[tuple(name for _, name in above)] = value
    group = Group(found.get(("group", "name"), ""), found.get(("group", "type"), ""))
    for place, value in found.items():
        if len(place) == 3 and place[0] == "results" and place[2] == "metafile" and value.lstrip(">"):
            group.metafiles[place[1]] = value.lstrip(">")
    if not group.metafiles:
        raise ValueError("the file names no results, or is not whole")
    return group


def _scalar(text: str) -> str:
    text = text.strip()
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        return text[1:-1].replace("''", "'") if text[0] == "'" else text[1:-1]
    return text


# job.json


@dataclass
class Result:
    """One result of a job: its files, oldest version first, relative to the project's folder."""

    group: str  # exposures, particles, class_averages...
    type: str  # exposure, particle, template...
    name: str  # ctf, micrograph_blob...
    is_passthrough: bool
    versions: list[tuple[int, str]]


@dataclass
class Job:
    """A job as its ``job.json`` describes it, of CryoSPARC 2 to 4 and, nested otherwise, 5."""

    uid: str
    project: str
    type: str
    title: str
    status: str
    version: str
    parents: set[str]
    results: list[Result]
    parameters: dict[str, Any]
    is_deleted: bool
    ended: str | None  # ISO 8601
    errors: list[str]

    @property
    def number(self) -> int:
        return int(self.uid[1:])


_UID = re.compile(r"^J\d{1,9}$")


def read_job(path: str) -> Job:
    """Return what a job.json says. Raises OSError, and ValueError where it describes no job."""
    return parse_job(_json(_text(path)))


def parse_job(found: dict[str, Any]) -> Job:
    """Return the job that a document describes. Raises ValueError where it describes none."""
    uid = found.get("uid")
    if not isinstance(uid, str) or not _UID.match(uid):
        raise ValueError("it has no uid of a job")
    spec = _dict(found.get("spec"))
    parents = {name for name in _list(found.get("parents")) if isinstance(name, str)}
    groups = [_dict(group) for group in _list(found.get("input_slot_groups"))]
    groups += [_dict(group) for group in _dict(spec.get("inputs")).values()]
    for group in groups:
        for connection in _list(group.get("connections")):
            parents.add(_string(_dict(connection).get("job_uid")))
    parameters = {name: _dict(value).get("value") for name, value in _dict(found.get("params_spec")).items()}
    parameters.update(_dict(spec.get("params")))
    ended = [found.get(name) for name in ("completed_at", "failed_at", "killed_at")]
    errors = [_dict(error).get("message") for error in _list(found.get("errors_run"))]
    return Job(
        uid=uid,
        project=_string(found.get("project_uid")),
        type=_string(found.get("job_type") or found.get("type") or spec.get("type")),
        title=_string(found.get("title")),
        status=_string(found.get("status")),
        version=_string(found.get("version")),
        parents={name for name in parents if _UID.match(name) and name != uid},
        results=list(_results(found, spec)),
        parameters={
            name: value
            for name, value in parameters.items()
            if isinstance(value, (str, int, float, bool)) and _is_plain(value)
        },
        is_deleted=found.get("deleted") is True,
        ended=max((time for time in map(moment, ended) if time), default=None),
        errors=[error for error in errors if isinstance(error, str)],
    )


def _results(found: dict[str, Any], spec: dict[str, Any]) -> Iterator[Result]:
    types = {}
    for group in map(_dict, _list(found.get("output_result_groups"))):
        types[_string(group.get("name"))] = _string(group.get("type"))
    for result in map(_dict, _list(found.get("output_results"))):
        name = _string(result.get("group_name"))
        kind = types.get(name) or _string(result.get("type")).split(".")[0]
        yield _result(name, kind, result)
    for name, found_output in _dict(spec.get("outputs")).items():
        output = _dict(found_output)
        for result in map(_dict, _list(output.get("results"))):
            yield _result(name, _string(output.get("type")), result)


def _result(group: str, kind: str, found: dict[str, Any]) -> Result:
    files = [name.lstrip(">") for name in _list(found.get("metafiles")) if isinstance(name, str)]
    numbers = _list(found.get("versions"))
    if len(numbers) != len(files) or not all(isinstance(number, int) for number in numbers):
        numbers = list(range(len(files)))
    versions = sorted(zip(numbers, files))
    return Result(group, kind, _string(found.get("name")), found.get("passthrough") is True, versions)


def moment(value: Any) -> str | None:
    """Return a time of a document as ISO 8601 in UTC: from ``{"$date": milliseconds}`` or ISO text."""
    if isinstance(value, dict):
        value = value.get("$date")
    try:
        if isinstance(value, str):
            found = datetime.fromisoformat(value[:-1] + "+00:00" if value.endswith("Z") else value)
            if found.tzinfo is None:
                found = found.replace(tzinfo=timezone.utc)
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            found = datetime.fromtimestamp(value / 1000, timezone.utc)
        else:
            return None
        return found.astimezone(timezone.utc).isoformat(timespec="seconds")
    except (ValueError, OverflowError, OSError):
        return None


def _is_plain(value: Any) -> bool:
    if isinstance(value, str):
        return len(value) <= 1000
    return isinstance(value, bool) or (
        math.isfinite(value) if isinstance(value, float) else abs(value) < 2**53
    )


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _string(value: Any) -> str:
    return value if isinstance(value, str) else ""
