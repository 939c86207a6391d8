"""What all API views share: JSON in and out, pages, errors. Named in settings, imported by no app."""

import logging

import orjson
from django.core.exceptions import RequestDataTooBig, SuspiciousOperation
from django.core.exceptions import ValidationError as DjangoValidationError
from django.db import OperationalError
from django.http import Http404, UnreadablePostError
from rest_framework import exceptions
from rest_framework.pagination import PageNumberPagination
from rest_framework.parsers import BaseParser
from rest_framework.renderers import BaseRenderer
from rest_framework.serializers import as_serializer_error
from rest_framework.views import exception_handler as drf_exception_handler

from emhub_site.throttles import take_address
from people.api.exceptions import TooLarge
from people.api.parsers import read_bounded

log = logging.getLogger(__name__)
BUSY = ("locked", "deadlock", "lock timeout", "statement timeout")


class Pagination(PageNumberPagination):
    page_size = 50
    page_size_query_param = "page_size"
    max_page_size = 500

    def paginate_queryset(self, queryset, request, view=None):
        for name in (self.page_query_param, self.page_size_query_param):
            if len(request.query_params.getlist(name)) > 1:
                raise exceptions.ValidationError({name: ["Give one number."]})
        page = request.query_params.get(self.page_query_param, "1")
        if not (page.isascii() and page.isdigit()):
            raise exceptions.ValidationError(
                {self.page_query_param: ["Give the number of a page, from 1 on."]}
            )
        return super().paginate_queryset(queryset, request, view)

    def get_page_size(self, request):
        """Refused rather than bent: whoever asks for 1,000 and gets 500 would believe to have them all."""
        text = request.query_params.get(self.page_size_query_param)
        if text is None:
            return self.page_size
        if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= self.max_page_size):
            raise exceptions.ValidationError(
                {self.page_size_query_param: [f"Give a number from 1 to {self.max_page_size}."]}
            )
        return int(text)

    def get_schema_operation_parameters(self, view):
        parameters = super().get_schema_operation_parameters(view)
        for parameter in parameters:
            parameter["schema"] |= {"minimum": 1}
            if parameter["name"] == self.page_size_query_param:
                parameter["schema"] |= {"maximum": self.max_page_size, "default": self.page_size}
        return parameters


class OrjsonParser(BaseParser):
    """Strict JSON: NaN and infinity are refused, which the standard library's parser would accept."""

    media_type = "application/json"

    def parse(self, stream, media_type=None, parser_context=None):
        try:
            return orjson.loads(read_bounded(stream, parser_context))
        except orjson.JSONDecodeError as error:
            raise exceptions.ParseError(f"This is not JSON: {error}") from error


def _default(value):
    """Lazy texts, decimals and the like as text; orjson knows dates, times and UUIDs itself."""
    return str(value)


class OrjsonRenderer(BaseRenderer):
    media_type = "application/json"
    format = "json"
    charset = None

    def render(self, data, accepted_media_type=None, renderer_context=None):
        if data is None:
            return b""
        if isinstance(data, bytes):  # A view that has packed its own JSON.
            return data
        return orjson.dumps(data, default=_default, option=orjson.OPT_NON_STR_KEYS | orjson.OPT_UTC_Z)


class CutOff(exceptions.APIException):
    """408: the connection was given up before the body came to its end."""

    status_code = 408
    default_detail = "The body did not arrive. Nothing was stored: send the same again."
    default_code = "cut_off"


class Busy(exceptions.APIException):
    """503: nothing was stored; the same request may be sent again."""

    status_code = 503
    default_detail = "The database is busy. Nothing was stored: send the same again in a few seconds."
    default_code = "busy"
    wait = 5


def _told_what_to_do(exc, view):
    """The framework's own refusals in words that help whoever writes the caller."""
    if isinstance(exc, Http404) or (
        isinstance(exc, exceptions.NotFound) and exc.detail == exceptions.NotFound.default_detail
    ):
        # Django's own words name our classes.
        return exceptions.NotFound("There is none at this address, or it is not for you to see.")
    if isinstance(exc, exceptions.UnsupportedMediaType) and isinstance(exc.detail, str):
        read = " or ".join(parser.media_type for parser in view.parser_classes)
        exc.detail = f"{exc.detail} Send {read}, and name it in the Content-Type."
    elif isinstance(exc, exceptions.NotAcceptable):
        exc.detail = "Only JSON is answered here: accept application/json, or leave Accept out."
    return exc


def exception_handler(exc, context):
    """DRF's handler, with errors of Django's own answered as what they mean to a caller."""
    exc = _told_what_to_do(exc, context["view"])
    if isinstance(exc, DjangoValidationError):
        exc = exceptions.ValidationError(as_serializer_error(exc))
    elif isinstance(exc, RequestDataTooBig):
        exc = TooLarge()
    elif isinstance(exc, UnreadablePostError):
        log.warning("Answered 408: %s", exc)
        exc = CutOff()
    elif isinstance(exc, SuspiciousOperation):  # Too many form fields or files, and the like.
        exc = exceptions.ParseError(str(exc))
    elif isinstance(exc, exceptions.NotAuthenticated | exceptions.AuthenticationFailed):
        # Counted here, as nobody has come as far as the throttles.
        if wait := take_address(context["request"]):
            exc = exceptions.Throttled(wait)
    elif isinstance(exc, OperationalError) and any(word in str(exc) for word in BUSY):
        log.warning("Answered 503: %s", exc)
        exc = Busy()
    if isinstance(exc, exceptions.Throttled):
        exc.detail = f"Too many calls. Nothing was stored: wait {exc.wait} s and send the same again."
    return drf_exception_handler(exc, context)
