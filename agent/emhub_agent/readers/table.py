"""Any program's table: CSV, or one JSON object a line, with a map from the site's fields to its columns.

A line counts only once it has ended, a record in quotes only once they are closed. A file that has grown is
read from where reading had got to; now and then, and whenever it is no longer what it was up to there, from
its start, so that rows changed in place and files written anew are noticed. Later lines of a movie add to
earlier ones and replace them.
"""

from __future__ import annotations

import csv
import json
import logging
import math
import os
import re
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, BinaryIO, ClassVar

from ..names import places
from .base import Folder, OutsideError, Pictures, Reader, ReaderError, RunNews, SessionNews, flag, nearest

log = logging.getLogger(__name__)

NUMBERS = (
    "motion_total",
    "motion_early",
    "motion_late",
    "defocus_u",
    "defocus_v",
    "defocus_angle",
    "phase_shift",
    "ctf_resolution",
    "ctf_score",
    "ice_thickness",
)
#: The fields of a micrograph that a column may be for.
FIELDS = (*NUMBERS, "particles", "coordinates", "rejected")
KINDS = ("micrograph", "psd")
FORMATS = {"csv": "csv", "jsonl": "jsonl", "json-lines": "jsonl", "jsonlines": "jsonl", "ndjson": "jsonl"}
JSON_ENDINGS = (".jsonl", ".ndjson", ".json")
DELIMITERS = (",", ";", "\t", "|", "whitespace")
WORDS = {"comma": ",", "semicolon": ";", "tab": "\t", "\\t": "\t", "pipe": "|", "space": "whitespace"}

#: What people and programs write where there is no value.
UNKNOWN = {
    "",
    "-",
    "--",
    "?",
    "na",
    "n/a",
    "nan",
    "null",
    "none",
    "unknown",
    "inf",
    "+inf",
    "-inf",
    "infinity",
}
YES = {"1", "true", "yes", "y", "t", "rejected"}
NO = {"0", "false", "no", "n", "f", "accepted"}

#: The longest line, in bytes, and the longest record over several lines.
LONGEST = 16 * 2**20
LONGEST_RECORD = 200
#: So many bytes before the place reading had got to are compared with what they were.
EDGE = 512
#: Reading a growing file again from its start takes at most this share of time.
SHARE = 0.05
#: A file that has not changed for so many seconds is not being written anew.
SETTLED = 5.0

_NUMBER = re.compile(r"^[+-]?(\d+\.?\d*|\.\d+)([eEdD][+-]?\d{1,4})?$", re.ASCII)
_MISSING = object()


class Layout:
    """How the lines of one file are split into columns: made from its header, or the same for all."""

    def __init__(self, reader: TableReader, header: list[str] | None = None, delimiter: str = ","):
        self.reader, self.header, self.delimiter = reader, header, delimiter
        self.places: dict[str, int] = {}
        for place, name in enumerate(header or ()):
            self.places.setdefault(name, place)

    def row(self, text: str) -> Callable[[str], Any]:
        """Return what gives a column's value, ``_MISSING`` where the row has none.

        Raises ValueError with a sentence about the line.
        """
        if self.header is None:
            return self._object(text)
        cells = split(text, self.delimiter)
        if len(cells) < len(self.header):
            raise ValueError(f"it has {len(cells)} columns and the header {len(self.header)}")
        return lambda name: cells[self.places[name]].strip() if name in self.places else _MISSING

    @staticmethod
    def _object(text: str) -> Callable[[str], Any]:
        try:
            found = json.loads(text, parse_constant=lambda name: None)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"it is not JSON ({error})") from error
        if not isinstance(found, dict):
            raise ValueError("it is not a JSON object")

        def get(name: str) -> Any:
            if name in found:
                return found[name]
            value: Any = found
            for part in name.split("."):  # ctf.defocus is the defocus of the object ctf
                if not isinstance(value, dict) or part not in value:
                    return _MISSING
                value = value[part]
            return value

        return get


def split(text: str, delimiter: str) -> list[str]:
    """Return the cells of one record. Raises ValueError where it is none."""
    if delimiter == "whitespace":
        return text.split()
    try:
        # Records come with the line breaks inside their quotes.
        rows = list(csv.reader(text.splitlines(keepends=True), delimiter=delimiter))
    except csv.Error as error:
        raise ValueError(str(error)) from error
    return [cell for row in rows for cell in row]


class TableReader(Reader):
    """Follows the table in the file ``place``.

    ``settings`` say what its columns are. Raises ReaderError where the file is not there or a setting is not
    right.
    """

    software = "a table (CSV or JSON lines)"
    SETTINGS: ClassVar[Mapping[str, str]] = {
        "columns": 'field of the site -> column of the table, as {"defocus_u": "df1"}',
        "name": "the column with the movie's name",
        "scale": 'field -> factor to the site\'s unit, as {"defocus_u": 10000} where the table has µm',
        "format": "csv or jsonl (default: by the file's ending)",
        "delimiter": "between the cells of a CSV file: one character, tab or whitespace (default: found out)",
        "header": "the names of the columns, for a CSV file without a header",
        "comment": "lines that begin with this are left out",
        "pictures": "micrograph and psd -> column with the picture's path",
        "folder": "the folder that pictures lie in (default: the table's own)",
        "follow_links": "true to follow links that lead out of that folder (default false)",
        "software": "the program's name",
        "version": "its version",
        "label": "what the run is called (default: the file's name)",
        "parameters": 'what the run was told to do, as {"box": 512}',
        "pixel_size": "of the micrographs, in Å",
        "width": "of the micrographs, in pixels",
        "height": "of the micrographs, in pixels",
        "particle_diameter": "in Å",
        "finished_after": "minutes without a new line after which the run is finished (default 60)",
    }

    def __init__(self, place: str, key: str | None = None, settings: Mapping[str, Any] | None = None):
        settings = self.checked(settings)
        self.path = os.path.abspath(place)
        if not os.path.isfile(self.path):
            raise ReaderError(f"There is no file {place}.")
        base = os.path.basename(self.path)
        self.key = (key or os.path.splitext(base)[0] or "table")[:200]
        self._read_settings(settings, base)
        self._rows: dict[str, dict[str, Any]] = {}
        self._told: dict[str, dict[str, Any]] = {}
        self._todo = Pictures()
        self._warned: set[str] = set()
        self._restart()
        self._state: tuple | None = None
        self._is_doubted = False
        self._next_whole = 0.0
        self._was_checked = False

    # settings

    def _read_settings(self, settings: dict[str, Any], base: str) -> None:
        self.columns = self._map(settings, "columns", FIELDS, str)
        if not self.columns:
            raise ReaderError(
                'Say which columns the table has, as columns = {"defocus_u": "df1"}; '
                f"the fields are {', '.join(FIELDS)}."
            )
        self.name = settings.get("name")
        if not isinstance(self.name, str) or not self.name:
            raise ReaderError('Say which column holds the movie\'s name, as name = "movie".')
        self.scale = self._map(settings, "scale", NUMBERS, float)
        for field in self.scale:
            if field not in self.columns:
                raise ReaderError(f"The setting scale names {field}, for which there is no column.")
        self.pictures = self._map(settings, "pictures", KINDS, str)
        chosen = settings.get("format", "jsonl" if base.lower().endswith(JSON_ENDINGS) else "csv")
        if chosen not in FORMATS:
            raise ReaderError(f"The setting format is csv or jsonl, not {chosen}.")
        self.format = FORMATS[chosen]
        delimiter = settings.get("delimiter")
        if delimiter is not None:
            delimiter = WORDS.get(delimiter, delimiter) if isinstance(delimiter, str) else ""
            if delimiter != "whitespace" and (len(delimiter) != 1 or delimiter in '"\r\n'):
                raise ReaderError("The setting delimiter is one character, tab or whitespace.")
        self.delimiter = delimiter
        header = settings.get("header")
        if header is not None and not (
            isinstance(header, (list, tuple)) and header and all(isinstance(name, str) for name in header)
        ):
            raise ReaderError("The setting header is a list of the columns' names.")
        self.header = list(header) if header else None
        self.comment = self._plain(settings, "comment", str)
        follow_links = flag(settings, "follow_links")
        folder = self._plain(settings, "folder", str) or os.path.dirname(self.path)
        self.folder = Folder(os.path.join(os.path.dirname(self.path), folder), follow_links)
        minutes = self._plain(settings, "finished_after", float)
        self.finished_after = 3600.0 if minutes is None else minutes * 60.0
        if not self.finished_after > 0:
            raise ReaderError("The setting finished_after is a number of minutes above 0.")
        self.info: dict[str, Any] = {
            "software": self._plain(settings, "software", str) or "Table",
            "version": self._plain(settings, "version", str),
            "host": socket.gethostname(),
            "label": self._plain(settings, "label", str) or base,
            "parameters": settings.get("parameters"),
        }
        if not isinstance(self.info["parameters"], (dict, type(None))):
            raise ReaderError('The setting parameters is a map, as {"box": 512}.')
        for name in ("pixel_size", "particle_diameter", "width", "height"):
            value = self._plain(settings, name, int if name in ("width", "height") else float)
            if value is not None and value <= 0:
                raise ReaderError(f"The setting {name} is above 0.")
            self.info[name] = value
        self.info = {name: value for name, value in self.info.items() if value not in (None, "", {})}

    @staticmethod
    def _map(settings: Mapping[str, Any], name: str, known: Iterable[str], kind: type) -> dict[str, Any]:
        found = settings.get(name)
        if found is None:
            return {}
        if not isinstance(found, Mapping):
            raise ReaderError(f"The setting {name} is a map from the site's fields.")
        for field, value in found.items():
            if field not in known:
                raise ReaderError(
                    f"The setting {name} names {field}, which is no field{nearest(field, known)}."
                )
            if kind is str and not (isinstance(value, str) and value):
                raise ReaderError(f"The setting {name} gives no column for {field}.")
            if kind is float and not (_is_number(value) and value != 0):
                raise ReaderError(f"The setting {name} gives no factor for {field}.")
        return dict(found)

    @staticmethod
    def _plain(settings: Mapping[str, Any], name: str, kind: type) -> Any:
        value = settings.get(name)
        if value is None:
            return None
        words = {str: "text", float: "a number", int: "a whole number"}
        if kind is str and isinstance(value, (int, float)) and not isinstance(value, bool):
            value = str(value)  # a version is often a number
        is_right = _is_number(value) if kind is float else isinstance(value, kind)
        if not is_right or (kind is int and isinstance(value, bool)):
            raise ReaderError(f"The setting {name} is {words[kind]}, not {value!r}.")
        return value

    # the interface

    def look(self) -> list[RunNews | SessionNews]:
        changed = self._refresh()
        news = RunNews(self.key, dict(self.info), self._status())
        for name in changed:
            self._tell(news, name)
        news.pictures = self._todo.take(self.room, self._path_of)
        self.backlog = len(self._todo)
        # Where the names tell square and hole in another way than EPU's, which the site knows itself.
        exposures = places(news.micrographs)
        return [news, SessionNews({}, exposures)] if exposures else [news]

    def forget(self, key: str) -> None:
        self._told.clear()
        self._todo.clear()
        self._state = None

    def warn(self, reason: str, once: str | None = None) -> None:
        """Log that something was left out, once for each ``once``."""
        if (once or reason) not in self._warned:
            self._warned.add(once or reason)
            log.warning("%s: %s", self.path, reason)

    def _status(self) -> str:
        return "finished" if self._age() > self.finished_after else "running"

    def _age(self) -> float:
        try:
            return time.time() - os.stat(self.path).st_mtime
        except OSError:
            return 0.0

    # following the file

    def _restart(self) -> None:
        self._offset = self._line = 0
        self._edge = b""
        self._layout: Layout | None = None

    def _refresh(self) -> Iterable[str]:
        """Read what is new; return the names of the micrographs that may have changed."""
        try:
            stat = os.stat(self.path)
        except OSError as error:
            self.warn(f"it is not there any more: {error.strerror}")
            return ()
        age = time.time() - stat.st_mtime
        state = (stat.st_ino, stat.st_mtime_ns, stat.st_size, age > self.finished_after)
        is_due = self._is_doubted and time.monotonic() >= self._next_whole and age > SETTLED
        if state == self._state and not is_due:
            return ()
        started = time.monotonic()
        try:
            with open(self.path, "rb") as handle:
                is_whole = (
                    self._state is None
                    or stat.st_ino != self._state[0]
                    or stat.st_size <= self._state[2]
                    or started >= self._next_whole
                    or not self._goes_on(handle)
                )
                if is_whole:
                    self._restart()
                fresh: dict[str, dict[str, Any]] = {}
                for number, text in self._records(handle, is_over=state[3]):
                    self._take(fresh, number, text, self._rows if not is_whole else {})
        except OSError as error:
            # What was taken of it is taken again from the start.
            self._state = None
            self.warn(f"it cannot be read: {error.strerror}")
            return ()
        self._state = state
        self._check_columns()
        if not is_whole:
            self._is_doubted = True
            self._rows.update(fresh)
            return list(fresh)
        self._next_whole = time.monotonic() + (time.monotonic() - started) / SHARE
        gone = [name for name in self._rows if name not in fresh]
        self._is_doubted = bool(gone) and age <= SETTLED
        if self._is_doubted:
            # Written anew at this moment: what was there stays until the file has settled.
            fresh.update((name, self._rows[name]) for name in gone)
        self._rows = fresh
        return [*fresh, *gone]

    def _goes_on(self, handle: BinaryIO) -> bool:
        """Whether the file still is, before the place reading had got to, what it was."""
        handle.seek(max(0, self._offset - EDGE))
        return self._offset > 0 and handle.read(min(EDGE, self._offset)) == self._edge

    def _records(self, handle: BinaryIO, is_over: bool) -> Iterator[tuple[int, str]]:
        """Yield (number of its first line, text) of each record that has ended and was not read yet.

        ``is_over`` says that nobody writes any more, so that a last line without its end counts.
        """
        handle.seek(self._offset)
        held: list[bytes] = []
        while True:
            line = handle.readline(LONGEST)
            has_ended = line.endswith(b"\n")
            if len(line) >= LONGEST and not has_ended:
                while line and not has_ended:
                    line = handle.readline(LONGEST)
                    has_ended = line.endswith(b"\n")
                if not has_ended and not is_over:
                    return
                self._line += len(held) + 1
                self.warn(f"line {self._line} is longer than {LONGEST // 2**20} MB and is left out")
                self._advance(handle)
                held = []
                continue
            # Network file systems show zeros where the writer's data have not arrived yet.
            if not is_over and (not has_ended or b"\0" in line):
                return
            if not line and not held:
                return
            if line:
                held.append(line)
            if self._is_open(held):
                if line and len(held) < LONGEST_RECORD and sum(map(len, held)) < LONGEST:
                    continue
                # A lone quote is not the start of a record that goes on for ever.
                self._line += 1
                self.warn(f"line {self._line} is left out: a quote is opened and not closed", once="a quote")
                handle.seek(self._offset + len(held[0]))
                self._advance(handle)
                held = []
                continue
            number, text = self._line + 1, b"".join(held).decode("utf-8", "replace").rstrip("\r\n")
            self._line += len(held)
            self._advance(handle)
            held = []
            if number == 1:
                text = text.lstrip("\ufeff")
            if text.strip() and not (self.comment and text.startswith(self.comment)):
                yield number, text

    def _is_open(self, held: list[bytes]) -> bool:
        """Whether in these lines a cell in quotes has begun and not ended."""
        delimiter = self._layout.delimiter if self._layout else self.delimiter or ","
        if (
            self.format != "csv"
            or delimiter == "whitespace"
            or not sum(line.count(b'"') for line in held) % 2
        ):
            return False
        try:
            for _ in csv.reader(
                (line.decode("utf-8", "replace") for line in held), delimiter=delimiter, strict=True
            ):
                pass
        except csv.Error as error:
            return "unexpected end" in str(error)
        return False

    def _advance(self, handle: BinaryIO) -> None:
        self._offset = handle.tell()
        start = max(0, self._offset - EDGE)
        handle.seek(start)
        self._edge = handle.read(self._offset - start)

    # what a record tells

    def _take(
        self, fresh: dict[str, dict[str, Any]], number: int, text: str, known: Mapping[str, dict[str, Any]]
    ) -> None:
        if self._layout is None:
            is_header = self.format == "csv" and self.header is None
            self._layout = self._find_layout(text)
            if is_header:
                return
        try:
            get = self._layout.row(text)
        except ValueError as error:
            self.warn(f"line {number} is left out: {error}", once=f"line: {str(error)[:40]}")
            return
        name = get(self.name)
        if isinstance(name, (int, float)) and not isinstance(name, bool):
            name = str(name)
        if not isinstance(name, str) or not name.strip():
            self.warn(f"line {number} is left out: it has no {self.name}", once="no name")
            return
        # JSON can spell halves of characters, which nothing else can.
        name = name.strip().encode("utf-8", "replace").decode("utf-8")
        fields = fresh.get(name)
        if fields is None:
            fields = fresh[name] = dict(known.get(name, {}))
        for field, column in self.columns.items():
            value = get(column)
            if value is _MISSING or (isinstance(value, str) and value.strip().lower() in UNKNOWN):
                continue
            if value is None:
                if field in fields:
                    fields[field] = None
                continue
            try:
                fields[field] = self._value(field, value)
            except ValueError as error:
                shown = str(value)[:60]
                text = f"line {number}, column {column}: {shown!r} is {error}; such values are left out"
                self.warn(text, once=f"column {column}")
        if "coordinates" in fields and "particles" not in self.columns:
            points = fields["coordinates"]
            fields["particles"] = None if points is None else len(points)
        for kind, column in self.pictures.items():
            value = get(column)
            if isinstance(value, str) and value.strip() and "\0" not in value:
                fields[f"picture {kind}"] = value.strip()

    def _value(self, field: str, value: Any) -> Any:
        """Return a field's value in the site's unit. Raises ValueError with what it is instead."""
        if field == "rejected":
            if isinstance(value, bool):
                return value
            word = str(value).strip().lower()
            if word in YES or word in NO:
                return word in YES
            raise ValueError("neither yes nor no")
        if field == "coordinates":
            return _points(value)
        found = _number(value)
        if field == "particles":
            if not found.is_integer() or found < 0:
                raise ValueError("no count")
            return int(found)
        found *= self.scale.get(field, 1.0)
        if not math.isfinite(found):
            raise ValueError("too large a number")
        return found

    def _find_layout(self, text: str) -> Layout:
        """Return how lines are split: of the delimiters the one with which most of the columns are found."""
        if self.format == "jsonl":
            return Layout(self)
        wanted = {self.name, *self.columns.values(), *self.pictures.values()}
        best: tuple[int, int, list[str], str] | None = None
        for delimiter in (self.delimiter,) if self.delimiter else DELIMITERS:
            try:
                cells = [cell.strip() for cell in split(text, delimiter)]
            except ValueError:
                continue
            if self.header is None:
                score = len(wanted.intersection(cells))
            else:
                score = -abs(len(cells) - len(self.header))
            if best is None or (score, len(cells)) > best[:2]:
                best = (score, len(cells), cells, delimiter)
        if best is None:
            return Layout(self, self.header or [], self.delimiter or ",")
        return Layout(self, self.header or best[2], best[3])

    def _check_columns(self) -> None:
        """Say which of the columns asked for the table does not have, once its header is read."""
        layout = self._layout
        if layout is None or layout.header is None:
            return
        if self.name not in layout.places:
            text = f"it has no column {self.name} to name the movies{nearest(self.name, layout.places)}"
            if not self._was_checked:
                self._state = None
                raise ReaderError(f"{self.path}: {text}.")
            self.warn(text)
        for field, column in (*self.columns.items(), *self.pictures.items()):
            if column not in layout.places:
                self.warn(f"it has no column {column} for {field}{nearest(column, layout.places)}")
        self._was_checked = True

    # what is told

    def _tell(self, news: RunNews, name: str) -> None:
        fields, before = self._rows.get(name), self._told.get(name)
        if fields is None:
            if before is not None:
                del self._told[name]
                news.micrographs[name] = {
                    field: None for field, value in before.items() if field in FIELDS and value is not None
                }
            return
        if fields == before:
            return
        self._told[name] = dict(fields)
        old = before or {}
        changed = {field: value for field, value in fields.items() if field not in old or old[field] != value}
        changed.update({field: None for field in old if field not in fields})
        told = {field: value for field, value in changed.items() if field in FIELDS}
        if told or before is None:
            news.micrographs[name] = told
        for kind in KINDS:
            if changed.get(f"picture {kind}"):
                self._todo.add(kind, name)

    def _path_of(self, kind: str, name: str) -> str | None:
        file = self._told.get(name, {}).get(f"picture {kind}")
        if not file:
            return None
        try:
            path = self.folder.path(file)
        except (OutsideError, ValueError, OSError) as error:
            self.warn(f"pictures are left out: {error}", once=f"pictures {kind}")
            return None
        return path if os.path.exists(path) else ""


def _number(value: Any) -> float:
    """Return a number. Raises ValueError with what the value is instead."""
    if isinstance(value, str):
        text = value.strip()
        if not _NUMBER.match(text):
            raise ValueError("no number")
        found = float(text.replace("d", "e").replace("D", "e"))
    elif _is_number(value) or (isinstance(value, int) and not isinstance(value, bool)):
        try:
            found = float(value)
        except OverflowError as error:
            raise ValueError("too large a number") from error
    else:
        raise ValueError("no number")
    if not math.isfinite(found):
        raise ValueError("too large a number")
    return found


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _points(value: Any) -> list[list[float]]:
    """Return [[x, y], ...] of a list, or of text that is one in JSON."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise ValueError("no list of [x, y]") from error
    if not isinstance(value, list):
        raise ValueError("no list of [x, y]")
    points = []
    for point in value:
        if not isinstance(point, (list, tuple)) or len(point) < 2 or not all(map(_is_number, point[:2])):
            raise ValueError("no list of [x, y]")
        points.append([float(point[0]), float(point[1])])
    return points
