"""What pipelines may send, checked straight from bytes.

Msgspec reads a batch of a thousand micrographs in a millisecond or two, and stops at the first thing that is wrong.
Only then is the batch read again, item by item and field by field, so that the answer names everything that is
wrong with it (first 100 items). Bounds are wide: what physics allows, not what is good data.
"""

import codecs
import datetime
import difflib
import json
import re
from collections.abc import Callable
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
import orjson
from django.utils import timezone
from msgspec import UNSET, Meta, Struct, UnsetType
from msgspec.structs import astuple

from preprocessing.identity import identity
from preprocessing.ingest import Report

MAX_BATCH = 1000
MAX_CLASSES = 5000
MAX_REPORTED = 100
MAX_REPORTED_FIELDS = 30  # Of one item; more than any has.
MAX_COORDINATES = 50_000
MAX_PARAMETERS_BYTES = 64 * 1024
EARLIEST = datetime.datetime(1990, 1, 1, tzinfo=datetime.UTC)
FUTURE = datetime.timedelta(days=1)

# Control characters, of which PostgreSQL cannot store NUL and no name has the others.
# \Z, as Python's $ takes a line's end after it as well.
_PLAIN = r"^[^\x00-\x1f\x7f]*\Z"
_TEXT = r"^[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f]*\Z"


def _text(longest: int, shortest: int = 0):
    return Annotated[str, Meta(min_length=shortest, max_length=longest, pattern=_PLAIN)]


Name = Annotated[str, Meta(min_length=1, max_length=500, pattern=_PLAIN)]
Time = Annotated[datetime.datetime, Meta(tz=True)]
Motion = Annotated[float, Meta(ge=0, le=100_000)]
Defocus = Annotated[float, Meta(ge=-1_000_000, le=1_000_000)]
Angle = Annotated[float, Meta(ge=-360, le=360)]
Resolution = Annotated[float, Meta(gt=0, lt=1000)]
Score = Annotated[float, Meta(ge=-1_000_000, le=1_000_000)]
Ice = Annotated[float, Meta(ge=-1e9, le=1e9)]
Count = Annotated[int, Meta(ge=0, le=2_000_000_000)]
Particles = Annotated[int, Meta(ge=0, le=1_000_000)]
Stage = Annotated[float, Meta(ge=-100_000, le=100_000)]
Shift = Annotated[float, Meta(ge=-1_000_000, le=1_000_000)]
Pixel = Annotated[float, Meta(ge=-1_000_000, le=1_000_000)]
Points = Annotated[list[tuple[Pixel, Pixel]], Meta(max_length=MAX_COORDINATES)]
Size = Annotated[int, Meta(ge=1, le=1_000_000)]
Length = Annotated[float, Meta(gt=0, le=100_000)]
PixelSize = Annotated[float, Meta(gt=0, le=1000)]


class MicrographItem(Struct, forbid_unknown_fields=True):
    name: Name
    motion_total: Motion | UnsetType | None = UNSET
    motion_early: Motion | UnsetType | None = UNSET
    motion_late: Motion | UnsetType | None = UNSET
    defocus_u: Defocus | UnsetType | None = UNSET
    defocus_v: Defocus | UnsetType | None = UNSET
    defocus_angle: Angle | UnsetType | None = UNSET
    phase_shift: Angle | UnsetType | None = UNSET
    ctf_resolution: Resolution | UnsetType | None = UNSET
    ctf_score: Score | UnsetType | None = UNSET
    ice_thickness: Ice | UnsetType | None = UNSET
    particles: Particles | UnsetType | None = UNSET
    coordinates: Points | UnsetType | None = UNSET
    rejected: bool | UnsetType | None = UNSET


class ExposureItem(Struct, forbid_unknown_fields=True):
    name: Name
    acquired_at: Time | UnsetType | None = UNSET
    grid_square: _text(60) | UnsetType | None = UNSET
    foil_hole: _text(60) | UnsetType | None = UNSET
    stage_x: Stage | UnsetType | None = UNSET
    stage_y: Stage | UnsetType | None = UNSET
    beam_shift_x: Shift | UnsetType | None = UNSET
    beam_shift_y: Shift | UnsetType | None = UNSET


class ClassItem(Struct, forbid_unknown_fields=True):
    number: Annotated[int, Meta(ge=1, le=1_000_000)]
    particles: Count | UnsetType = UNSET
    resolution: Resolution | UnsetType | None = UNSET


class MicrographBatch(Struct, forbid_unknown_fields=True):
    micrographs: Annotated[list[MicrographItem], Meta(min_length=1, max_length=MAX_BATCH)]


class ExposureBatch(Struct, forbid_unknown_fields=True):
    exposures: Annotated[list[ExposureItem], Meta(min_length=1, max_length=MAX_BATCH)]


class ClassBatch(Struct, forbid_unknown_fields=True):
    job: _text(120, 1)
    classes: Annotated[list[ClassItem], Meta(min_length=1, max_length=MAX_CLASSES)]
    iteration: Annotated[int, Meta(ge=0, le=1_000_000)] = 0


class RunOpening(Struct, forbid_unknown_fields=True):
    key: _text(200, 1)
    software: _text(60, 1)
    version: _text(60) | UnsetType = UNSET
    host: _text(200) | UnsetType = UNSET
    label: _text(120) | UnsetType = UNSET
    parameters: dict[str, Any] | UnsetType = UNSET
    pixel_size: PixelSize | UnsetType | None = UNSET
    width: Size | UnsetType | None = UNSET
    height: Size | UnsetType | None = UNSET
    particle_diameter: Length | UnsetType | None = UNSET


class RunChange(Struct, forbid_unknown_fields=True):
    status: Literal["queued", "running", "finished", "failed", "stopped"] | UnsetType = UNSET
    version: _text(60) | UnsetType = UNSET
    host: _text(200) | UnsetType = UNSET
    label: _text(120) | UnsetType = UNSET
    parameters: dict[str, Any] | UnsetType = UNSET
    pixel_size: PixelSize | UnsetType | None = UNSET
    width: Size | UnsetType | None = UNSET
    height: Size | UnsetType | None = UNSET
    particle_diameter: Length | UnsetType | None = UNSET


class Event(Struct, forbid_unknown_fields=True):
    level: Literal["info", "warning", "error"]
    text: Annotated[str, Meta(min_length=1, max_length=2000, pattern=_TEXT)]
    at: Time | UnsetType = UNSET


class Invalid(Exception):
    """What was sent cannot be taken; `detail` is the answer's body: by field, or for a batch by item."""

    def __init__(self, detail: dict):
        super().__init__(detail)
        self.detail = detail


# -- Reading -----------------------------------------------------------------------------------------------


def micrographs(body: bytes) -> list[Report]:
    return _batch(body, MicrographBatch, "micrographs", MicrographItem, _report)


def exposures(body: bytes) -> list[Report]:
    return _batch(body, ExposureBatch, "exposures", ExposureItem, _report)


def classes(body: bytes) -> ClassBatch:
    try:
        batch = _DECODERS[ClassBatch].decode(body)
    except _UNREADABLE as error:
        raise Invalid(
            _batch_errors(body, error, ClassBatch, "classes", ClassItem, lambda item: None)
        ) from None
    _refuse_blank({"job": batch.job})
    return batch


def run_opening(body: bytes) -> dict[str, Any]:
    return _object(body, RunOpening)


def run_change(body: bytes) -> dict[str, Any]:
    """A run's changes; an empty body is a heartbeat."""
    return _object(body or b"{}", RunChange)


def event(body: bytes) -> dict[str, Any]:
    return _object(body, Event)


def given(item: Struct) -> dict[str, Any]:
    """The fields that were sent, null among them."""
    sent = zip(item.__struct_fields__, astuple(item), strict=True)
    return {name: value for name, value in sent if value is not UNSET}


_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_DECODERS = {
    kind: msgspec.json.Decoder(kind)
    for kind in (MicrographBatch, ExposureBatch, ClassBatch, RunOpening, RunChange, Event)
}


def _report(item: MicrographItem | ExposureItem) -> Report:
    """Raises ValueError, as a mapping of field to message, for what types cannot say."""
    values = given(item)
    del values["name"]
    if points := values.get("coordinates"):
        values["coordinates"] = np.asarray(points, dtype="<f4").tobytes()
    elif points is not None:
        values["coordinates"] = b""
    if (moment := values.get("acquired_at")) is not None:
        if problem := _implausible(moment):
            raise _Wrong("acquired_at", problem)
        values["acquired_at"] = _stored(moment)
    try:
        return Report(item.name, identity(item.name), values)
    except ValueError as error:
        raise _Wrong("name", str(error)) from None


class _Wrong(ValueError):
    def __init__(self, field: str, message: str):
        super().__init__(message)
        self.field = field


def _implausible(moment: datetime.datetime) -> str:
    if moment < EARLIEST:
        return "This time is before 1990."
    if moment > timezone.now() + FUTURE:
        return "This time is in the future. Is the microscope's clock right?"
    return ""


def _stored(moment: datetime.datetime) -> datetime.datetime:
    """In UTC: PostgreSQL knows no offset of 16 hours or more."""
    return moment.astimezone(datetime.UTC)


def _batch(body: bytes, kind: type, list_name: str, item_kind: type, make: Callable) -> list:
    try:
        return [make(item) for item in getattr(_DECODERS[kind].decode(body), list_name)]
    except (*_UNREADABLE, _Wrong) as error:
        raise Invalid(_batch_errors(body, error, kind, list_name, item_kind, make)) from None


def _object(body: bytes, kind: type) -> dict[str, Any]:
    try:
        values = given(_DECODERS[kind].decode(body))
    except _UNREADABLE as error:
        raise Invalid(_field_errors(_loaded(body), kind) or _whole(body, error)) from None
    _refuse_blank(values)
    if (moment := values.get("at")) is not None:
        if problem := _implausible(moment):
            raise Invalid({"at": [problem]})
        values["at"] = _stored(moment)
    if problem := _unstorable(values.get("parameters")):
        raise Invalid({"parameters": [problem]})
    return values


def _refuse_blank(values: dict[str, Any]) -> None:
    for name in ("key", "software", "job", "text"):
        if name in values and not values[name].strip():
            raise Invalid({name: ["This must not be blank."]})


def _unstorable(parameters: dict | None) -> str:
    """Why these parameters cannot be kept; empty if they can."""
    if parameters is None:
        return ""
    try:
        packed = orjson.dumps(parameters)
    except (orjson.JSONEncodeError, RecursionError) as error:
        return f"These cannot be stored: {error}."
    if len(packed) > MAX_PARAMETERS_BYTES:
        return f"At most {MAX_PARAMETERS_BYTES // 1024} kB of parameters are kept."
    # An escaped backslash before it would make it plain text.
    if re.search(rb"(?<!\\)(?:\\\\)*\\u0000", packed):
        return "A text holds a NUL character, which cannot be stored."
    return ""


# -- Saying what is wrong ----------------------------------------------------------------------------------


class NotFinite:
    """NaN or an infinity written where JSON has none; what converts it says so by this class's name."""

    def __init__(self, text: str):
        self.text = text

    def __str__(self):
        return self.text


def _loaded(body: bytes):
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        if (found := _with_not_finite(body, error)) is not None:
            return found
        raise Invalid({"detail": _why_not_json(body, error)}) from error


def _with_not_finite(body: bytes, error: orjson.JSONDecodeError):
    """What only NaN or infinity keeps from being JSON, so that they can be told by item and field; or None."""
    if not (b"NaN" in body or b"Infinity" in body or "infinity" in str(error)):
        return None
    if re.search(rb"\\u[dD][89a-fA-F]", body):
        return None  # Half a character could be in it, which nobody could be told of.
    try:
        return json.loads(body.decode(), parse_constant=NotFinite, parse_int=_number)
    except (ValueError, RecursionError):
        return None


def _number(text: str) -> int | float:
    """As orjson reads it: what has more than 64 bits is a float."""
    return int(text) if len(text) < 19 else float(text)


def _why_not_json(body: bytes, error: Exception) -> str:
    if not body.strip():
        return "The body is empty. Send JSON."
    if body.startswith((codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "The body begins with a byte order mark. Send JSON in UTF-8 without one."
    return f"This is not JSON: {error}."


def _batch_errors(
    body: bytes, error: Exception, kind: type, list_name: str, item_kind: type, make: Callable
) -> dict:
    """What is wrong with a batch that could not be read by reason of `error`."""
    loaded = _loaded(body)
    if not isinstance(loaded, dict):
        return {"detail": f'Send an object: {{"{list_name}": [...]}}.'}
    items = loaded.get(list_name)
    own = _field_errors({**loaded, list_name: []} if isinstance(items, list) else loaded, kind)
    if isinstance(items, list):
        own.pop(list_name, None)
        low, high = 1, MAX_CLASSES if list_name == "classes" else MAX_BATCH
        if not low <= len(items) <= high:
            own[list_name] = [f"Send {low} to {high:,} at a time; this has {len(items):,}."]
    if own:
        return own
    reports = []
    for index, item in enumerate(items):
        errors = _item_errors(item, item_kind, make)
        if errors:
            reports.append({"index": index, "name": _shown_name(item), "errors": errors})
            if len(reports) == MAX_REPORTED:
                break
    return {"errors": reports} if reports else _whole(body, error)


def _whole(body: bytes, error: Exception) -> dict:
    """What is wrong where no field of it is."""
    if isinstance(error, msgspec.ValidationError):
        return {"detail": _in_words(error)}
    return {"detail": _why_not_json(body, error)}


def _shown_name(item) -> str | None:
    name = item.get("name", item.get("number")) if isinstance(item, dict) else None
    return None if name is None else str(name)[:500]


def _item_errors(item, item_kind: type, make: Callable) -> dict[str, list[str]]:
    errors = _field_errors(item, item_kind)
    if not errors:
        try:
            make(msgspec.convert(item, item_kind))
        except _Wrong as error:
            errors[error.field] = [str(error)]
    return errors


def _field_errors(value, kind: type) -> dict[str, list[str]]:
    """Everything that is wrong with an object, by field."""
    if not isinstance(value, dict):
        return {"non_field_errors": ["Expected an object with named fields."]}
    known = {field.name: field for field in msgspec.structs.fields(kind)}
    errors: dict[str, list[str]] = {}
    for name, field in known.items():
        if field.required and name not in value:
            errors[name] = ["This field is required."]
    for name, part in value.items():
        if len(errors) >= MAX_REPORTED_FIELDS:
            break
        if name not in known:
            errors[name[:100]] = [f"There is no such field.{_nearest(name, known)}"]
            continue
        try:
            msgspec.convert(part, known[name].type)
        except msgspec.ValidationError as error:
            errors[name] = [_in_words(error)]
    return errors


def _nearest(name: str, known) -> str:
    close = difflib.get_close_matches(name, list(known), n=1) if len(name) <= 60 else []
    return f" Did you mean {close[0]}?" if close else ""


_WORDS: tuple[tuple[re.Pattern, str], ...] = tuple(
    (re.compile(pattern), words)
    for pattern, words in (
        (r"^Expected `str` matching regex .*", "Control characters are not allowed."),
        (r"^Expected `str` of length <= (\d+)", r"At most \1 characters."),
        (r"^Expected `str` of length >= 1", "This must not be empty."),
        (r"^Expected `array` of length <= (\d+)", r"At most \1 entries."),
        (r"^Expected `array` of length 2(?:, got (\d+))?", r"Expected pairs of x and y."),
        (
            r"^Expected `datetime` with a timezone component",
            "Write the time with its offset, e.g. 2026-11-23T10:15:00Z.",
        ),
        (r"^Invalid RFC3339 encoded datetime", "Write a time such as 2026-11-23T10:15:00Z."),
        (r"^Expected `(?:float|int|decimal)` (<=|>=|<|>) (\S+)", r"This must be \1 \2."),
        (
            r"^Expected `[^`]+`, got `NotFinite`",
            "NaN and infinity are no numbers in JSON. Send null for what is not known.",
        ),
        (r"^Expected `([^`]+)`, got `([^`]+)`", r"Expected \1, got \2."),
        (r"^Invalid enum value (.*)", r"\1 is not a choice."),
    )
)


def _in_words(error: Exception) -> str:
    """Msgspec's message as people would say it, with the place inside a list where it tells one."""
    text, _, place = str(error).partition(" - at `$")
    for pattern, words in _WORDS:
        if pattern.search(text):
            text = pattern.sub(words, text)
            break
    text = text.replace("`", "").replace(" | ", " or ")
    return f"At {place.rstrip('`')}: {text}" if place.startswith("[") else text
