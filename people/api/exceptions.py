"""Answers that every app's API shares."""

from rest_framework import exceptions, status


class Conflict(exceptions.APIException):
    """409: the request is well made, but the record's state does not allow it."""

    status_code = status.HTTP_409_CONFLICT
    default_detail = "The record's state does not allow this."
    default_code = "conflict"


class Gone(exceptions.APIException):
    """410: it was here, and was removed on purpose."""

    status_code = status.HTTP_410_GONE
    default_detail = "This is not kept any more."
    default_code = "gone"


class TooLarge(exceptions.APIException):
    """413: refused by its size, before it was read or decoded."""

    status_code = status.HTTP_413_REQUEST_ENTITY_TOO_LARGE
    default_detail = "This is larger than the site takes."
    default_code = "too_large"
