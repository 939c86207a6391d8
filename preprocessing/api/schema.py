"""How the API describes itself: every call of this app with units, examples and answers.

Requests are described by the very types that check them (`payloads`), answers by the types below, which the tests
hold against real answers. Both become components of the OpenAPI schema by way of `add_components`.
"""

import datetime
from typing import Annotated, Any, Literal

import msgspec
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, OpenApiResponse, extend_schema
from msgspec import UNSET, Meta, Struct, UnsetType

from preprocessing.api import payloads

# -- Answers -----------------------------------------------------------------------------------------------


class Counts(Struct, forbid_unknown_fields=True):
    created: int
    updated: int
    unchanged: int
    revision: int
    dry_run: Literal[True] | UnsetType = UNSET


class RunRow(Struct, forbid_unknown_fields=True):
    id: int
    session: str
    key: str
    software: str
    version: str
    host: str
    label: str
    status: Literal["queued", "running", "finished", "failed", "stopped"]
    started_at: datetime.datetime
    finished_at: datetime.datetime | None
    last_seen_at: datetime.datetime
    parameters: dict[str, Any]
    pixel_size: float | None
    width: int | None
    height: int | None
    particle_diameter: float | None
    micrographs: int
    motion_corrected: int
    ctf_estimated: int
    picked: int
    particles: int
    classes: int
    revision: int


class RunPage(Struct, forbid_unknown_fields=True):
    count: int
    next: str | None
    previous: str | None
    results: list[RunRow]


class MicrographRow(Struct, forbid_unknown_fields=True):
    id: int
    name: str
    identity: str
    grid_square: str | None
    foil_hole: str | None
    acquired_at: datetime.datetime | None
    motion_total: float | None
    motion_early: float | None
    motion_late: float | None
    defocus_u: float | None
    defocus_v: float | None
    defocus_angle: float | None
    phase_shift: float | None
    ctf_resolution: float | None
    ctf_score: float | None
    ice_thickness: float | None
    particles: int | None
    rejected: bool | None
    micrograph_image: str | None
    psd_image: str | None
    verdict: Literal["accepted", "rejected"] | None
    revision: int
    created_at: datetime.datetime


class MicrographPage(Struct, forbid_unknown_fields=True):
    micrographs: list[MicrographRow]
    revision: int
    more: bool


class ExposureRow(Struct, forbid_unknown_fields=True):
    id: int
    name: str
    identity: str
    acquired_at: datetime.datetime | None
    grid_square: str | None
    foil_hole: str | None
    stage_x: float | None
    stage_y: float | None
    beam_shift_x: float | None
    beam_shift_y: float | None
    verdict: Literal["accepted", "rejected"] | None
    verdict_reason: str | None
    revision: int


class ExposurePage(Struct, forbid_unknown_fields=True):
    exposures: list[ExposureRow]
    revision: int
    more: bool


class Picks(Struct, forbid_unknown_fields=True):
    micrograph: int
    name: str
    width: int | None
    height: int | None
    coordinates: list[tuple[float, float]] | None


class ClassRow(Struct, forbid_unknown_fields=True):
    id: int
    job: str
    iteration: int
    number: int
    particles: int
    share: float | None
    resolution: float | None
    image: str | None
    revision: int


class ClassPage(Struct, forbid_unknown_fields=True):
    count: int
    next: str | None
    previous: str | None
    results: list[ClassRow]


class EventRow(Struct, forbid_unknown_fields=True):
    id: int
    at: datetime.datetime
    level: Literal["info", "warning", "error"]
    text: str
    revision: int


class EventPage(Struct, forbid_unknown_fields=True):
    count: int
    next: str | None
    previous: str | None
    results: list[EventRow]


class ImageAnswer(Struct, forbid_unknown_fields=True):
    id: int
    kind: Literal["micrograph", "psd", "class_average"]
    image: str
    unchanged: bool
    revision: int


class Numbers(Struct, forbid_unknown_fields=True):
    """Of one field; percentiles by linear interpolation, unknown values left out."""

    n: int
    min: float
    p10: float
    median: float
    p90: float
    max: float


class Histogram(Struct, forbid_unknown_fields=True):
    """One count more than edges: the first below the first edge, the last from the last edge on."""

    unit: str
    edges: list[float]
    counts: list[int]


class RunSummary(Struct, forbid_unknown_fields=True):
    id: int
    key: str
    software: str
    version: str
    label: str
    status: Literal["queued", "running", "finished", "failed", "stopped"]
    started_at: datetime.datetime
    finished_at: datetime.datetime | None
    last_seen_at: datetime.datetime
    revision: int
    parameters: dict[str, Any]
    pixel_size: float | None
    width: int | None
    height: int | None
    particle_diameter: float | None
    micrographs: int
    motion_corrected: int
    ctf_estimated: int
    picked: int
    particles: int
    classes: int
    fields: dict[str, Numbers]
    histograms: dict[str, Histogram]


class Summary(Struct, forbid_unknown_fields=True):
    session: str
    status: Literal["pending", "active", "finished", "failed", "archived"]
    processing: Literal["none", "queued", "running", "finished", "failed", "stopped"]
    exposures: int
    micrographs: int
    motion_corrected: int
    ctf_estimated: int
    picked: int
    particles: int
    classes: int
    leading_run: int | None
    last_seen_at: datetime.datetime | None
    frozen_at: datetime.datetime | None
    units: dict[str, str]
    runs: list[RunSummary]


class Detail(Struct, forbid_unknown_fields=True):
    detail: str


class ItemError(Struct, forbid_unknown_fields=True):
    """What is wrong with one item; `same_as` is the name by which its exposure is known already (409)."""

    index: int
    name: str | None
    errors: dict[str, list[str]]
    same_as: str | UnsetType = UNSET


class BatchErrors(Struct, forbid_unknown_fields=True):
    """Nothing of the batch was stored. The first 100 items that are wrong."""

    errors: Annotated[list[ItemError], Meta(max_length=100)]


REQUESTS = (
    payloads.MicrographBatch,
    payloads.ExposureBatch,
    payloads.ClassBatch,
    payloads.RunOpening,
    payloads.RunChange,
    payloads.Event,
)
ANSWERS = (
    Counts,
    RunRow,
    RunPage,
    MicrographPage,
    ExposurePage,
    Picks,
    ClassPage,
    EventRow,
    EventPage,
    ImageAnswer,
    Summary,
    Detail,
    BatchErrors,
)

DESCRIPTIONS = {
    "acquired_at": "When the microscope took it; ISO 8601 with offset.",
    "beam_shift_x": "As the microscope tells it; no unit is assumed.",
    "beam_shift_y": "As the microscope tells it; no unit is assumed.",
    "classes": "2D classes.",
    "coordinates": "Picks as [x, y] in pixels of the micrograph; at most 50,000. Null: none were posted.",
    "created": "Rows that were not there before.",
    "ctf_estimated": "Micrographs with a defocus or a CTF resolution.",
    "ctf_resolution": "Resolution to which the CTF fits, Å.",
    "ctf_score": "The program's own figure of merit for the CTF fit.",
    "defocus_angle": "Angle of the astigmatism, degrees.",
    "defocus_u": "Defocus along the first axis, Å; underfocus is positive.",
    "defocus_v": "Defocus along the second axis, Å; underfocus is positive.",
    "fields": "Per measured field, in the units under `units`.",
    "foil_hole": "Id of the foil hole; read from EPU's names where not given.",
    "frozen_at": "When the session was archived; then these numbers are all that is left.",
    "grid_square": "Id of the grid square; read from EPU's names and folders where not given.",
    "height": "Height of the micrographs, pixels.",
    "host": "The machine it runs on.",
    "ice_thickness": "Relative ice thickness or ice ring density, as the program gives it.",
    "identity": "What the server made of the name: the same for EPU, RELION, Scipion and CryoSPARC.",
    "image": "Address of the picture; it names the content and never changes.",
    "iteration": "Iteration of the classification.",
    "job": "The classification, as its program names it.",
    "key": "The run's own identity for its pipeline; unique in the session.",
    "label": "What people call the run.",
    "last_seen_at": "Last sign of life.",
    "leading_run": "The run whose counts these are: with most micrographs, of equals the newest.",
    "micrograph_image": "Address of the micrograph's picture; it names the content and never changes.",
    "motion_corrected": "Micrographs with any motion.",
    "motion_early": "Motion over the first frames, Å (up to 4 e⁻/Å² in RELION).",
    "motion_late": "Motion over the later frames, Å.",
    "motion_total": "Accumulated motion over all frames, Å. RELION writes pixels: multiply by the movie's pixel size.",
    "more": "Whether to ask again at once, with this revision.",
    "name": "The movie's or micrograph's name as the program knows it; `folder/stem` where stems repeat.",
    "number": "Number of the class, from 1.",
    "parameters": "What the run was told to do; at most 64 kB. Merged by key; null removes a key.",
    "particle_diameter": "Diameter of the particles, Å.",
    "particles": "Number of particles; where only coordinates are posted, their number.",
    "phase_shift": "Phase shift, degrees.",
    "picked": "Micrographs with a known number of particles.",
    "pixel_size": "Pixel size of the micrographs, Å.",
    "psd_image": "Address of the power spectrum's picture; it names the content and never changes.",
    "rejected": "The pipeline's own rejection. People's verdict is theirs alone.",
    "resolution": "Estimated resolution, Å.",
    "revision": "Revision: ask for what came `after` it.",
    "share": "Particles of the class among those of its iteration, 0 to 1.",
    "stage_x": "Stage position, µm.",
    "stage_y": "Stage position, µm.",
    "text": "The message, at most 2,000 characters.",
    "unchanged": "Rows (or the picture) that were the same already.",
    "updated": "Rows that changed.",
    "verdict": "People's verdict; no pipeline sets it.",
    "width": "Width of the micrographs, pixels.",
}


def _simpler(schema: Any) -> Any:
    """`anyOf [T, null]` as `type [T, "null"]` where that says the same, and descriptions where names have one."""
    if isinstance(schema, list):
        return [_simpler(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {name: _simpler(part) for name, part in schema.items()}
    if isinstance(schema.get("pattern"), str):
        schema["pattern"] = schema["pattern"].replace(r"\Z", "$")  # The end, as ECMA-262 writes it.
    options = schema.get("anyOf")
    if options and len(options) == 2 and {"type": "null"} in options:
        (other,) = (option for option in options if option != {"type": "null"})
        if isinstance(other.get("type"), str):
            schema = {**schema, **other, "type": [other["type"], "null"]}
            del schema["anyOf"]
    parts = schema.get("prefixItems")
    if parts and all(part == parts[0] for part in parts):
        # Pairs of one kind, as older tools read them too; how many is said beside it.
        schema["items"] = parts[0]
        del schema["prefixItems"]
    for name, part in schema.get("properties", {}).items():
        if name in DESCRIPTIONS and "$ref" not in part:
            part.setdefault("description", DESCRIPTIONS[name])
    return schema


def add_components(result, generator, request, public):
    """For SPECTACULAR_SETTINGS: the schemas of this app's requests and answers."""
    _, components = msgspec.json.schema_components(
        (*REQUESTS, *ANSWERS), ref_template="#/components/schemas/{name}"
    )
    result["components"].setdefault("schemas", {}).update(_simpler(components))
    return result


# -- Calls -------------------------------------------------------------------------------------------------


def _ref(kind: type) -> dict:
    return {"$ref": f"#/components/schemas/{kind.__name__}"}


def _answer(kind: type, description: str) -> OpenApiResponse:
    return OpenApiResponse(response=_ref(kind), description=description)


FIELD_ERRORS = OpenApiResponse(
    response={
        "type": "object",
        "additionalProperties": {
            "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]
        },
    },
    description="What is wrong, by field, or `detail`.",
)
_COMMON = {
    401: _answer(Detail, "No valid token and not logged in."),
    404: _answer(Detail, "There is none, or not for you to see."),
}
_WRITE = _COMMON | {
    400: FIELD_ERRORS,
    403: _answer(Detail, "You see it and may not write."),
    409: _answer(Detail, "The session is archived."),
    413: FIELD_ERRORS,
    415: FIELD_ERRORS,
}
_BATCH = _WRITE | {
    400: OpenApiResponse(
        response={"anyOf": [_ref(BatchErrors), FIELD_ERRORS.response]},
        description="Nothing was stored: what is wrong with which item.",
    ),
    409: OpenApiResponse(
        response={"anyOf": [_ref(BatchErrors), _ref(Detail)]},
        description="Two names mean one exposure, each by name; or the session is archived. Nothing was stored.",
    ),
}
AFTER = OpenApiParameter(
    "after",
    {"type": "integer", "minimum": 0, "maximum": 2**63 - 1, "default": 0},
    description="The revision of the answer before; 0 for everything.",
)
DRY_RUN = OpenApiParameter(
    "dry_run",
    {"type": "string", "enum": ["true", "false"], "default": "false"},
    description="true: everything is checked as if in earnest (fields, names that collide, the session's state), the "
    "answer says what it would come to, and nothing is stored. The revision stays as it is.",
)
LIMIT = OpenApiParameter(
    "limit",
    {"type": "integer", "minimum": 1, "maximum": 1000, "default": 1000},
    description="Most rows told.",
)
PAGE = OpenApiParameter("page", {"type": "integer", "minimum": 1, "default": 1})
PAGE_SIZE = OpenApiParameter("page_size", {"type": "integer", "minimum": 1, "maximum": 500, "default": 50})
PRUNED = {410: _answer(Detail, "The session is archived and its rows are gone; its summary stays.")}
UNCHANGED = {304: OpenApiResponse(description="Nothing changed since the ETag sent in If-None-Match.")}


def _example(value: Any, name: str = "Example", **options) -> OpenApiExample:
    return OpenApiExample(name, value=value, request_only=True, **options)


MICROGRAPHS_EXAMPLE = {
    "micrographs": [
        {
            "name": "Movies/20170629_00021_frameImage.tiff",
            "motion_total": 14.53,
            "motion_early": 2.1,
            "motion_late": 12.43,
            "defocus_u": 10863.9,
            "defocus_v": 10575.8,
            "defocus_angle": 77.9,
            "ctf_resolution": 4.81,
            "ctf_score": 0.131,
        },
        {"name": "Movies/20170629_00022_frameImage.tiff", "coordinates": [[1031.5, 644.0], [2210.0, 3055.5]]},
    ]
}
EXPOSURES_EXAMPLE = {
    "exposures": [
        {
            "name": "GridSquare_8999138/Data/FoilHole_9015883_Data_9017354_6_20250108_154918_EER.eer",
            "acquired_at": "2025-01-08T15:49:18Z",
            "stage_x": 312.5,
            "stage_y": -41.25,
            "beam_shift_x": 0.012,
            "beam_shift_y": -0.004,
        }
    ]
}
CLASSES_EXAMPLE = {
    "job": "Class2D/job008",
    "iteration": 25,
    "classes": [{"number": 1, "particles": 1250, "resolution": 8.4}, {"number": 2, "particles": 310}],
}
IMAGE_EXAMPLE = {
    "kind": "micrograph",
    "micrograph": "Movies/20170629_00021_frameImage.tiff",
    "file": "thumbnail.png",
}
CLASS_IMAGE_EXAMPLE = {
    "kind": "class_average",
    "job": "Class2D/job008",
    "iteration": 25,
    "number": 1,
    "file": "class1.png",
}
RUN_EXAMPLE = {
    "key": "/data/krios1/20261123/relion",
    "software": "RELION",
    "version": "5.0.1",
    "host": "gpu07",
    "parameters": {"motion_correction": "relion.motioncorr.own", "dose_per_frame": 1.277},
    "pixel_size": 0.885,
    "width": 3710,
    "height": 3838,
    "particle_diameter": 200.0,
}

get_exposures = extend_schema(
    summary="A session's exposures changed after a revision",
    description="Oldest change first. Ask again with the answer's `revision`, at once while `more`. Send the ETag "
    "back in If-None-Match: 304 costs next to nothing.",
    parameters=[AFTER, LIMIT],
    responses={200: _answer(ExposurePage, "What changed."), 400: FIELD_ERRORS} | UNCHANGED | PRUNED | _COMMON,
    tags=["exposures"],
)
post_exposures = extend_schema(
    summary="Make or correct 1 to 1,000 exposures, by name",
    description="A field left out stays as it is; null clears it. All or nothing, and safe to send again.",
    parameters=[DRY_RUN],
    request={"application/json": _ref(payloads.ExposureBatch)},
    responses={200: _answer(Counts, "What it came to.")} | _BATCH,
    examples=[_example(EXPOSURES_EXAMPLE)],
    tags=["exposures"],
)
get_runs = extend_schema(
    summary="A session's processing runs",
    parameters=[PAGE, PAGE_SIZE],
    responses={200: _answer(RunPage, "One page, oldest first.")} | _COMMON,
    tags=["runs"],
)
post_runs = extend_schema(
    summary="Open the run of this key",
    description="The same key again answers the same run as it is now: what was unknown is filled in, nothing is "
    "undone. To correct a run, PATCH it.",
    request={"application/json": _ref(payloads.RunOpening)},
    responses={200: _answer(RunRow, "It was there."), 201: _answer(RunRow, "It was made.")} | _WRITE,
    examples=[_example(RUN_EXAMPLE)],
    tags=["runs"],
)
get_run = extend_schema(
    summary="One run", responses={200: _answer(RunRow, "The run.")} | _COMMON, tags=["runs"]
)
patch_run = extend_schema(
    summary="Correct a run, or say that it is alive",
    description="Any write is a heartbeat, an empty PATCH too. Parameters are merged by key, null removes one. A "
    "status that ends the run sets `finished_at`.",
    request={"application/json": _ref(payloads.RunChange)},
    responses={200: _answer(RunRow, "The run as it is now.")} | _WRITE,
    examples=[
        _example({"status": "finished"}, "It has finished"),
        _example({}, "A heartbeat"),
        _example({"parameters": {"particle_diameter": 180}}, "One more parameter"),
    ],
    tags=["runs"],
)
get_micrographs = extend_schema(
    summary="A run's micrographs changed after a revision",
    description="Oldest change first; nothing is ever missed and nothing unchanged told twice. Ask again with the "
    "answer's `revision`, at once while `more`. Send the ETag back in If-None-Match: 304 costs next to nothing.",
    parameters=[AFTER, LIMIT],
    responses={200: _answer(MicrographPage, "What changed."), 400: FIELD_ERRORS}
    | UNCHANGED
    | PRUNED
    | _COMMON,
    tags=["micrographs"],
)
post_micrographs = extend_schema(
    summary="Make or update 1 to 1,000 micrographs, by name",
    description="Send what a step found as soon as it is done: a field left out stays as it is, null clears it, and "
    "the exposure is made where it is unknown. All or nothing, and safe to send again. A name twice in a batch is as "
    "if sent one after the other. For one field of one micrograph the last commit wins: keep one request in flight "
    "per run. Where `particles` is not given it is the number of `coordinates`, whichever comes first.",
    parameters=[DRY_RUN],
    request={"application/json": _ref(payloads.MicrographBatch)},
    responses={200: _answer(Counts, "What it came to.")} | _BATCH,
    examples=[_example(MICROGRAPHS_EXAMPLE)],
    tags=["micrographs"],
)
get_coordinates = extend_schema(
    summary="A micrograph's picks",
    responses={200: _answer(Picks, "In pixels of the micrograph.")} | _COMMON,
    tags=["micrographs"],
)
get_classes = extend_schema(
    summary="A run's 2D classes",
    parameters=[
        OpenApiParameter("job", str, description="Only of this classification."),
        OpenApiParameter(
            "iteration", {"type": "integer", "minimum": 0}, description="Only of this iteration."
        ),
        OpenApiParameter(
            "latest",
            {"type": "string", "enum": ["true", "false"], "default": "false"},
            description="true: only of the job and iteration told last.",
        ),
        PAGE,
        PAGE_SIZE,
    ],
    responses={200: _answer(ClassPage, "One page, the largest class first."), 400: FIELD_ERRORS} | _COMMON,
    tags=["classes"],
)
post_classes = extend_schema(
    summary="Make or update 2D classes of one iteration",
    description="By job, iteration and number. All or nothing, and safe to send again.",
    parameters=[DRY_RUN],
    request={"application/json": _ref(payloads.ClassBatch)},
    responses={200: _answer(Counts, "What it came to.")} | _BATCH,
    examples=[_example(CLASSES_EXAMPLE)],
    tags=["classes"],
)
get_events = extend_schema(
    summary="A run's messages, newest first",
    parameters=[PAGE, PAGE_SIZE],
    responses={200: _answer(EventPage, "One page.")} | _COMMON,
    tags=["events"],
)
post_event = extend_schema(
    summary="Say something about the run",
    description="Give `at` to make it safe to send again: level, text and time are the message. Without it, the "
    "newest message said again within a minute is taken for a repetition.",
    request={"application/json": _ref(payloads.Event)},
    responses={200: _answer(EventRow, "It was known."), 201: _answer(EventRow, "It is kept.")} | _WRITE,
    examples=[
        _example(
            {
                "level": "warning",
                "text": "CTF estimation failed for 3 micrographs.",
                "at": "2026-11-23T10:15:00+01:00",
            }
        )
    ],
    tags=["events"],
)
post_image = extend_schema(
    summary="Send a picture of a micrograph, its power spectrum or a 2D class",
    description="PNG, JPEG or WebP by content. It is made anew as WebP of at most 2,048 pixels a side, without "
    "metadata. The row it belongs to must be there and gets a new revision.",
    request={
        "multipart/form-data": {
            "type": "object",
            "properties": {
                "kind": {"type": "string", "enum": ["micrograph", "psd", "class_average"]},
                "micrograph": {
                    "type": "string",
                    "description": "The micrograph's name or id; for kinds micrograph and psd.",
                },
                "job": {"type": "string", "description": "For kind class_average."},
                "iteration": {"type": "integer", "minimum": 0, "description": "For kind class_average."},
                "number": {"type": "integer", "minimum": 1, "description": "For kind class_average."},
                "file": {
                    "type": "string",
                    "format": "binary",
                    "description": "The picture itself, as a file of the form.",
                },
            },
            "required": ["kind", "file"],
            "additionalProperties": False,
        }
    },
    responses={
        200: _answer(ImageAnswer, "The row shows this picture already."),
        201: _answer(ImageAnswer, "The row shows it now."),
    }
    | _WRITE,
    examples=[
        _example(IMAGE_EXAMPLE, "Of a micrograph", media_type="multipart/form-data"),
        _example(CLASS_IMAGE_EXAMPLE, "Of a 2D class", media_type="multipart/form-data"),
    ],
    tags=["images"],
)
get_image = extend_schema(
    summary="A picture, at the address a row gives",
    responses={(200, "image/webp"): OpenApiTypes.BINARY, (404, "text/html"): str} | UNCHANGED | _COMMON,
    tags=["images"],
)
get_summary = extend_schema(
    summary="A session's processing in numbers, live or archived",
    description="Per run and measured field the number of known values, minimum, 10th percentile, median, 90th "
    "percentile and maximum (linear interpolation), in the units under `units`; counts; histograms by fixed edges "
    "in the units people read (defocus in µm, astigmatism in nm).",
    responses={200: _answer(Summary, "The numbers.")} | _COMMON,
    tags=["summary"],
)
