"""A run's rows from the database as a numpy array: for packed.py, which may have to read fifty thousand at once.

Most of the time of an ordinary fetch goes into a Python object for each value, and on PostgreSQL into writing each
number as text. So the database packs each row's numbers into one value: SQLite by a function of this process
(`struct.pack`), PostgreSQL by its binary COPY.
https://www.postgresql.org/docs/current/sql-copy.html, "Binary Format"
"""

import sqlite3
import struct

import numpy as np
from django.db import connection

from preprocessing.histograms import MEASURED_FIELDS

PLACES = ("stage_x", "stage_y", "beam_shift_x", "beam_shift_y")
#: Bits of `flags`.
PICTURE, SPECTRUM, REJECTED, ACCEPTED_BY_HAND, REJECTED_BY_HAND = 1, 2, 4, 8, 16

_FLAGS = (
    f"CASE WHEN m.micrograph_image <> '' THEN {PICTURE} ELSE 0 END"
    f" + CASE WHEN m.psd_image <> '' THEN {SPECTRUM} ELSE 0 END"
    f" + CASE WHEN m.rejected THEN {REJECTED} ELSE 0 END"
    f" + CASE e.verdict WHEN 'accepted' THEN {ACCEPTED_BY_HAND}"
    f" WHEN 'rejected' THEN {REJECTED_BY_HAND} ELSE 0 END"
)
_WHOLE = {"id": "m.id", "exposure": "m.exposure_id", "revision": "m.revision", "flags": _FLAGS}
_TIMES = {"acquired": "e.acquired_at", "reported": "m.created_at"}
_VALUES = {name: f"e.{name}" for name in PLACES} | {name: f"m.{name}" for name in MEASURED_FIELDS}
_DTYPE = np.dtype([*((name, "<i8") for name in _WHOLE), *((name, "<f8") for name in (*_TIMES, *_VALUES))])


def changed(run_id: int, after: int) -> tuple[np.ndarray, list[str], list[str]]:
    """A run's rows whose revision is above `after`, ascending by id, and their grid squares and foil holes.

    Fields: id, exposure, revision and flags (int64); acquired and reported (s since 1970, whole), PLACES and
    MEASURED_FIELDS (float64), NaN for unknown.
    """
    source = (
        "FROM preprocessing_micrograph m JOIN preprocessing_exposure e ON e.id = m.exposure_id"
        f" WHERE m.run_id = {int(run_id)} AND m.revision > {int(after)}"
    )
    rows, squares, holes = _READERS[connection.vendor](source)
    order = np.argsort(rows["id"], kind="stable")
    if (order[1:] > order[:-1]).all():
        return rows, squares, holes
    return rows[order], [squares[place] for place in order], [holes[place] for place in order]


# -- SQLite ------------------------------------------------------------------------------------------------

_FUNCTION = "emhub_pack_row"
_PACKER = struct.Struct(f"<{len(_WHOLE)}q{len(_TIMES) + len(_VALUES)}d")
# Without the fraction, which SQLite would round. The shorter function came with 3.38 and costs a fifth.
_SECONDS = "substr({}, 1, 19)"
_SECONDS = (
    f"unixepoch({_SECONDS})"
    if sqlite3.sqlite_version_info >= (3, 38)
    else f"CAST(strftime('%s', {_SECONDS}) AS INTEGER)"
)


def prepare(sender, connection, **kwargs) -> None:
    """A receiver of `connection_created`: a connection to SQLite learns to pack a row."""
    if connection.vendor == "sqlite":
        connection.connection.create_function(_FUNCTION, len(_DTYPE), _PACKER.pack, deterministic=True)


def _from_sqlite(source: str) -> tuple[np.ndarray, list[str], list[str]]:
    numbers = [*(_SECONDS.format(column) for column in _TIMES.values()), *_VALUES.values()]
    # SQLite has no NaN; infinity, which ingestion refuses, stands for what is not known.
    packed = ", ".join([*_WHOLE.values(), *(f"COALESCE({column}, 9e999)" for column in numbers)])
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {_FUNCTION}({packed}), e.grid_square, e.foil_hole {source}")
        fetched = cursor.fetchall()
    rows = np.frombuffer(bytearray().join([row[0] for row in fetched]), _DTYPE)
    measured = rows.view("<f8").reshape(len(rows), len(_DTYPE))[:, len(_WHOLE) :]
    measured[np.isinf(measured)] = np.nan
    return rows, [row[1] for row in fetched], [row[2] for row in fetched]


# -- PostgreSQL --------------------------------------------------------------------------------------------

# As COPY has it, big-endian: how many fields follow, then each with its length in front.
_COPIED = np.dtype(
    [
        ("fields", ">i2"),
        *(
            field
            for name in _DTYPE.names
            for field in ((f"{name} length", ">i4"), (name, _DTYPE[name].newbyteorder(">")))
        ),
    ]
)


def _from_postgresql(source: str) -> tuple[np.ndarray, list[str], list[str]]:
    numbers = [*(f"floor(date_part('epoch', {column}))" for column in _TIMES.values()), *_VALUES.values()]
    columns = ", ".join(
        [
            *(f"({column})::int8" for column in _WHOLE.values()),
            *(f"COALESCE(({column})::float8, 'NaN')" for column in numbers),
        ]
    )
    query = f"SELECT {columns}, e.grid_square, e.foil_hole {source}"
    parts, squares, holes = [], [], []
    known: dict[bytes, tuple[str, str]] = {}
    with connection.cursor() as cursor, cursor.copy(f"COPY ({query}) TO STDOUT (FORMAT BINARY)") as copy:
        for row in _messages(copy):
            parts.append(row[: _COPIED.itemsize])
            texts = row[_COPIED.itemsize :]
            pair = known.get(texts)
            if pair is None:
                pair = known[texts] = _texts(texts)
            squares.append(pair[0])
            holes.append(pair[1])
    copied = np.frombuffer(b"".join(parts), _COPIED)
    rows = np.empty(len(copied), _DTYPE)
    for name in _DTYPE.names:
        rows[name] = copied[name]
    return rows, squares, holes


_SIGNATURE = b"PGCOPY\n\xff\r\n\x00"
_END = b"\xff\xff"


def _messages(copy):
    """The rows of a binary COPY, one in each message; the header comes with the first."""
    for message in copy:
        row = bytes(message)
        if row.startswith(_SIGNATURE):
            (extension,) = struct.unpack_from(">i", row, len(_SIGNATURE) + 4)
            row = row[len(_SIGNATURE) + 8 + extension :]
        if row and row != _END:
            yield row


def _texts(tail: bytes) -> tuple[str, str]:
    """Two text fields, each with its length in front."""
    (first,) = struct.unpack_from(">i", tail)
    (second,) = struct.unpack_from(">i", tail, 4 + first)
    return tail[4 : 4 + first].decode(), tail[8 + first : 8 + first + second].decode()


_READERS = {"sqlite": _from_sqlite, "postgresql": _from_postgresql}
