"""Expressions by which lists are ordered, the same in the indexes and in the queries."""

from django.db.models import Func


class KnownSize(Func):
    """A size in bytes with unknown as -1: it comes last, on every database."""

    template = "COALESCE(%(expressions)s, -1)"
    arity = 1


class KnownDate(Func):
    """A date with unknown as the last day there is, on every database."""

    template = "COALESCE(%(expressions)s, '9999-12-31')"
    arity = 1
