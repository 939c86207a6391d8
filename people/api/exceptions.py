"""Answers that every app's API shares."""

from rest_framework import exceptions, status


class Conflict(exceptions.APIException):
    """409: the request is well made, but the record's state does not allow it."""

    status_code = status.HTTP_409_CONFLICT
    default_detail = "The record's state does not allow this."
    default_code = "conflict"
