"""What the OpenAPI schema says of every call alike, whichever app it belongs to."""

from drf_spectacular import openapi

ERROR = {
    "type": "object",
    "description": "`detail`, or what is wrong by field.",
    "additionalProperties": True,
    "example": {"detail": "What is wrong, and what to do."},
}
JSON = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
ANSWERS = {
    "400": "Something in the call is malformed or out of range.",
    "401": "No valid token and not logged in.",
    "403": "You may not do this.",
    "404": "There is none, or not for you to see.",
    "406": "Only JSON is answered.",
    "414": "The address is too long; answered by the server itself.",
    "429": "Too many calls: wait as many seconds as `Retry-After` says.",
    "503": "The database is busy. Nothing was stored: send the same again in a few seconds.",
}
WRITES = {
    "408": "The body did not arrive. Nothing was stored: send the same again.",
    "409": "The record's state does not allow this.",
    "411": "A body in chunks, where the server reads none: send its length.",
    "413": "The body is too large.",
    "415": "No media type or encoding that is read.",
}
# Fields that are described as always there and are not told to everyone.
NOT_ALWAYS = {"SessionRead": ("notes",)}  # Between people; pipelines do not read them.
# Fields that are null for those who may not know, so all of these may be.
NULL_FOR_STRANGERS = {"BookingRead": ("microscope", "title", "start", "end")}  # but these
# Numbers that mean the same wherever they stand.
NUMBERS = {
    "booking": "Id of the booking.",
    "classes": "Number of 2D classes.",
    "count": "How many there are on all pages together.",
    "ctf_estimated": "Number of micrographs with a defocus or a CTF resolution.",
    "exposures": "Number of movies known by any run or watcher.",
    "id": "What it is called in addresses.",
    "index": "Place of the item in the batch, from 0.",
    "max": "The greatest, in the field's unit.",
    "median": "The median, in the field's unit.",
    "micrograph": "Id of the micrograph.",
    "micrographs": "Number of micrographs.",
    "motion_corrected": "Number of micrographs with any motion.",
    "min": "The least, in the field's unit.",
    "n": "How many values are known.",
    "p10": "The 10th percentile, in the field's unit.",
    "p90": "The 90th percentile, in the field's unit.",
    "particles": "Number of particles.",
    "picked": "Number of micrographs with a known number of particles.",
    "runs": "Number of processing runs.",
    "spot_size": "Spot size, the number as the microscope gives it.",
}


class AutoSchema(openapi.AutoSchema):
    """Shows bodies of DELETE too, which OpenAPI 3.1 permits; a call that takes none says request=None."""

    def _get_request_body(self, direction="request"):
        if self.method != "DELETE":
            return super()._get_request_body(direction)
        self.method = "POST"  # drf-spectacular looks for bodies of POST, PUT and PATCH alone.
        try:
            return super()._get_request_body(direction)
        finally:
            self.method = "DELETE"


def describe_numbers(result, generator, request, public):
    """For SPECTACULAR_SETTINGS: a field's title ("Pixel size (Å)") says what it is, readers look at the description."""

    def walk(part):
        if isinstance(part, dict):
            for name, field in part.get("properties", {}).items():
                _describe(name, field)
            part = list(part.values())
        for each in part if isinstance(part, list) else ():
            walk(each)

    walk(result["components"].get("schemas", {}))
    return result


def _describe(name: str, field: dict) -> None:
    types = field.get("type", [])
    if not {"integer", "number"} & set([types] if isinstance(types, str) else types):
        return
    said, title = field.get("description", ""), field.get("title", "")
    if title and title.lower() not in said.lower():
        field["description"] = f"{title}. {said}".strip()
    elif not said and name in NUMBERS:
        field["description"] = NUMBERS[name]


def add_common_answers(result, generator, request, public):
    """For SPECTACULAR_SETTINGS: the errors that any call may answer, where a call says nothing of its own."""
    schemas = result["components"].setdefault("schemas", {})
    schemas["Error"] = ERROR
    for name, fields in NOT_ALWAYS.items():
        if "required" in schemas.get(name, {}):
            schemas[name]["required"] = [field for field in schemas[name]["required"] if field not in fields]
    for name, told in NULL_FOR_STRANGERS.items():
        properties = schemas.get(name, {}).get("properties", {})
        properties |= {field: _or_null(part) for field, part in properties.items() if field not in told}
    for path, methods in result["paths"].items():
        for method, call in methods.items():
            if path.startswith("/api/v1/") and "responses" in call:
                _complete(call["responses"], ANSWERS if method == "get" else ANSWERS | WRITES)
    return result


def _or_null(field: dict) -> dict:
    """The same, or null."""
    if isinstance(field.get("type"), str):
        return {**field, "type": [field["type"], "null"]}
    if "type" in field:
        return {**field, "type": sorted({*field["type"], "null"})}
    described = {name: field[name] for name in ("description", "readOnly") if name in field}
    return {**described, "anyOf": [{n: v for n, v in field.items() if n not in described}, {"type": "null"}]}


def _complete(responses: dict, answers: dict[str, str]) -> None:
    for code, description in answers.items():
        answer = responses.setdefault(code, {"description": description})
        if code != "414":
            answer.setdefault("content", JSON)
