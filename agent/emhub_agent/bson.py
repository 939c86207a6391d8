"""BSON documents, as CryoSPARC 4 leaves a Live session's exposures in a project's folder.

Source of the format: the BSON specification 1.1 (bsonspec.org). What it calls deprecated is not read.
"""

from __future__ import annotations

import struct
from datetime import datetime, timedelta, timezone
from typing import Any

DEEPEST = 60
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def documents(data: bytes) -> list[dict[str, Any]]:
    """Return the documents that stand one after the other. Raises ValueError where one is broken or cut."""
    found = []
    place = 0
    try:
        while place < len(data):
            document, place = _document(data, place, 0)
            found.append(document)
    except (struct.error, IndexError) as error:
        raise ValueError("the file is not whole") from error
    return found


def _document(data: bytes, place: int, depth: int) -> tuple[dict[str, Any], int]:
    if depth > DEEPEST:
        raise ValueError("the file is nested too deeply")
    (size,) = struct.unpack_from("<i", data, place)
    end = place + size
    if size < 5 or end > len(data) or data[end - 1]:
        raise ValueError("the file is not whole")
    place += 4
    found: dict[str, Any] = {}
    while data[place]:
        kind = data[place]
        stop = data.index(b"\0", place + 1, end)
        name = data[place + 1 : stop].decode("utf-8", "replace")
        found[name], place = _value(data, stop + 1, end, kind, depth)
        if place >= end:
            raise ValueError("a document is longer than it says")
    if place != end - 1:
        raise ValueError("a document is shorter than it says")
    return found, end


def _value(data: bytes, place: int, end: int, kind: int, depth: int) -> tuple[Any, int]:
    if kind == 0x01:
        return struct.unpack_from("<d", data, place)[0], place + 8
    if kind == 0x02:
        text, after = _sized(data, place, end, 0)
        return text[:-1].decode("utf-8", "replace"), after
    if kind in (0x03, 0x04):
        found, after = _document(data, place, depth + 1)
        return (list(found.values()) if kind == 0x04 else found), after
    if kind == 0x05:
        return _sized(data, place, end, 1)
    if kind == 0x07:
        return data[place : place + 12].hex(), place + 12
    if kind == 0x08:
        return data[place] == 1, place + 1
    if kind == 0x09:
        (milliseconds,) = struct.unpack_from("<q", data, place)
        try:
            return _EPOCH + timedelta(milliseconds=milliseconds), place + 8
        except OverflowError:
            return None, place + 8
    if kind == 0x0A:
        return None, place
    if kind == 0x10:
        return struct.unpack_from("<i", data, place)[0], place + 4
    if kind in (0x11, 0x12):
        return struct.unpack_from("<q", data, place)[0], place + 8
    raise ValueError(f"a value is of type {kind:#04x}, which is not read")


def _sized(data: bytes, place: int, end: int, before: int) -> tuple[bytes, int]:
    (size,) = struct.unpack_from("<i", data, place)
    start = place + 4 + before
    if size < 1 - before or start + size > end:
        raise ValueError("the file is not whole")
    return data[start : start + size], start + size
