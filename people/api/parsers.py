"""How bodies are read: whole, and no larger than API_MAX_BODY_MB, compressed or not."""

import zlib

from django.conf import settings
from rest_framework import exceptions
from rest_framework.parsers import BaseParser

from people.api.exceptions import TooLarge

GZIP = 16 + zlib.MAX_WBITS


def read_bounded(stream, parser_context) -> bytes:
    """The whole body, inflated where it came as gzip. Its own length was checked before it came here.

    Raises TooLarge where it inflates to more than the limit, ParseError where it is no gzip.
    """
    body = stream.read()
    encoding = parser_context["request"].headers.get("Content-Encoding", "")
    return _inflated(body) if "gzip" in encoding.lower() else body


def _inflated(body: bytes) -> bytes:
    most = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
    inflating = zlib.decompressobj(GZIP)
    try:
        # One byte more than may be: a bomb is never unpacked any further.
        plain = inflating.decompress(body, most + 1)
    except zlib.error as error:
        raise exceptions.ParseError(f"This is not gzip, as its Content-Encoding says: {error}.") from error
    if len(plain) > most:
        raise TooLarge(f"This inflates to more than {most // 1024**2} MB. Send less at a time.")
    if not inflating.eof:
        raise exceptions.ParseError("This gzip is cut off before its end.")
    if inflating.unused_data:
        raise exceptions.ParseError("Something follows the end of this gzip. Send it as one.")
    return plain


class JSONBytesParser(BaseParser):
    """JSON left as bytes, for views that decode and check in one go."""

    media_type = "application/json"

    def parse(self, stream, media_type=None, parser_context=None) -> bytes:
        return read_bounded(stream, parser_context)
