"""What a request to the API may carry: bounded before it is read, whoever sends it."""

import logging
import tempfile

from django.conf import settings
from django.http import JsonResponse

log = logging.getLogger(__name__)
IN_MEMORY = 1024 * 1024
PIECE = 64 * 1024
ENCODINGS = ("", "identity", "gzip", "x-gzip")


class ApiBodies:
    """Middleware: refuses bodies under /api/ that are too large (413) or encoded as nobody reads them (415).

    A body with a length is refused by that length, unread. One in chunks is read up to the limit, beyond the first
    megabyte into a temporary file, and has a length from then on. What is compressed stays so until a parser asks for
    it (people.api.parsers), by when it is known who sent it.
    """

    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        refusal = self.check(request) if request.path_info.startswith("/api/") else None
        return refusal or self.get_response(request)

    def check(self, request) -> JsonResponse | None:
        # `request.headers` would be made of all of META, for each call.
        encoding = request.META.get("HTTP_CONTENT_ENCODING", "").strip().lower()
        if encoding not in ENCODINGS:
            return _refuse(
                415, f"Bodies encoded as {encoding[:40]} are not read. Send JSON plain or as gzip."
            )
        if encoding in ENCODINGS[2:] and request.content_type != "application/json":
            return _refuse(
                415, "Only JSON is read as gzip. Pictures are compressed already: send them as they are."
            )
        if "chunked" in request.META.get("HTTP_TRANSFER_ENCODING", "").lower():
            return self.gather(request)
        announced = request.META.get("CONTENT_LENGTH") or ""
        if announced.isdigit() and int(announced) > settings.DATA_UPLOAD_MAX_MEMORY_SIZE:
            return _too_large()
        return None

    def gather(self, request) -> JsonResponse | None:
        if not request.META.get("wsgi.input_terminated"):
            return _refuse(411, "This server reads no chunks. Send the body with its Content-Length.")
        body = tempfile.SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115  (closed with the last reference)
        source, size = request.META["wsgi.input"], 0
        try:
            while piece := source.read(PIECE):
                size += len(piece)
                if size > settings.DATA_UPLOAD_MAX_MEMORY_SIZE:
                    body.close()
                    return _too_large()
                body.write(piece)
        except (BlockingIOError, TimeoutError, ConnectionError) as error:
            log.warning("A body in chunks did not arrive: %s", error)
            body.close()
            return _refuse(408, "The body did not arrive. Nothing was stored: send the same again.")
        except Exception as error:
            # Servers have errors of their own for chunks that are none; whatever they raise, the sender is at fault.
            log.warning("A body in chunks could not be read: %s", error)
            body.close()
            return _refuse(400, "The body's chunks could not be read to their end.")
        body.seek(0)
        request._stream = body
        request.META["CONTENT_LENGTH"] = str(size)
        return None


def _refuse(status: int, text: str) -> JsonResponse:
    return JsonResponse({"detail": text}, status=status)


def _too_large() -> JsonResponse:
    most = settings.DATA_UPLOAD_MAX_MEMORY_SIZE // 1024**2
    return _refuse(413, f"A request may have at most {most} MB. Send less at a time.")
