"""How bodies are read: bounded before they are in memory."""

from django.conf import settings
from rest_framework.parsers import BaseParser

from people.api.exceptions import TooLarge


def read_bounded(stream, parser_context) -> bytes:
    """The whole body, refused by its announced length if that is above API_MAX_BODY_MB (servers enforce it)."""
    announced = parser_context["request"].META.get("CONTENT_LENGTH") or ""
    if announced.isdigit() and int(announced) > settings.DATA_UPLOAD_MAX_MEMORY_SIZE:
        raise TooLarge(
            f"A request may have at most {settings.DATA_UPLOAD_MAX_MEMORY_SIZE // 1024**2} MB. Send less at a time."
        )
    return stream.read()


class JSONBytesParser(BaseParser):
    """JSON left as bytes, for views that decode and check in one go."""

    media_type = "application/json"

    def parse(self, stream, media_type=None, parser_context=None) -> bytes:
        return read_bounded(stream, parser_context)
