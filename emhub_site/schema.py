"""What the OpenAPI schema says of every call alike, whichever app it belongs to."""

ERROR = {
    "type": "object",
    "description": "`detail`, or what is wrong by field.",
    "additionalProperties": True,
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
    "409": "The record's state does not allow this.",
    "411": "A body in chunks, where the server reads none: send its length.",
    "413": "The body is too large.",
    "415": "No media type or encoding that is read.",
}
# Fields that are described as always there and are not told to everyone.
NOT_ALWAYS = {"SessionRead": ("notes",)}  # Between people; pipelines do not read them.


def add_common_answers(result, generator, request, public):
    """For SPECTACULAR_SETTINGS: the errors that any call may answer, where a call says nothing of its own."""
    schemas = result["components"].setdefault("schemas", {})
    schemas["Error"] = ERROR
    for name, fields in NOT_ALWAYS.items():
        if "required" in schemas.get(name, {}):
            schemas[name]["required"] = [field for field in schemas[name]["required"] if field not in fields]
    for path, methods in result["paths"].items():
        for method, call in methods.items():
            if path.startswith("/api/v1/") and "responses" in call:
                _complete(call["responses"], ANSWERS if method == "get" else ANSWERS | WRITES)
    return result


def _complete(responses: dict, answers: dict[str, str]) -> None:
    for code, description in answers.items():
        answer = responses.setdefault(code, {"description": description})
        if code != "414":
            answer.setdefault("content", JSON)
