"""The filtered list as CSV, row by row."""

import csv
from collections.abc import Iterator

from django.utils import timezone

from sessions_app.acquisition import FIELDS
from sessions_app.retention import retention

HEADER = (
    "name",
    "microscope",
    "lab",
    "start",
    "end",
    "status",
    "processing",
    "movies",
    "micrographs",
    "particles",
    "bytes",
    "owner",
    "operator",
    "sample",
    "delete_on",
    "days_left",
    *FIELDS,
    "data_path",
    "booking",
)
# A byte order mark, by which spreadsheets know the text as UTF-8.
BYTE_ORDER_MARK = "\ufeff"


class Echo:
    """A file for csv.writer whose `write` gives the line back."""

    def write(self, value: str) -> str:
        return value


def csv_lines(sessions) -> Iterator[str]:
    """Lines of an ordered queryset of sessions; times are the facility's local ones, with their offset."""
    writer = csv.writer(Echo())
    yield BYTE_ORDER_MARK + writer.writerow(HEADER)
    for session in sessions.with_row().iterator(chunk_size=1000):
        yield writer.writerow([plain(value) for value in _values(session)])


def _values(session) -> list:
    summary = session.summary
    return [
        session.name,
        session.microscope.code,
        session.lab,
        _time(session.start),
        _time(session.end),
        session.status,
        summary.processing,
        session.movies,
        summary.micrographs,
        summary.particles,
        session.data_bytes,
        session.owner,
        session.operator,
        session.sample,
        session.delete_on,
        retention(session).days,
        *(getattr(session, field) for field in FIELDS),
        session.data_path,
        session.booking_id,
    ]


def _time(moment) -> str:
    return timezone.localtime(moment).isoformat(timespec="seconds") if moment else ""


def plain(value):
    """As a spreadsheet may have it: unknown is empty, and no text begins like a formula."""
    if value is None:
        return ""
    if isinstance(value, int | float):
        return value
    text = str(value)
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) else text
