"""The short way for the two calls that come all day: posting micrographs, and asking whether any changed.

Eight pipelines post each micrograph by itself and every open reader asks once a second; for them what a request
passes on its way to a view, made for logins, forms and pages, costs more than the answer. `answer` is asked before
all that (emhub_site.short_way) and takes what is plainly in order: a valid token, a run that it sees, a batch without
mistakes, rows that the reader has already. Anything else it leaves alone, uncounted, to the views, which answer as if
nobody had looked before. So it needs no errors of its own, and who may do what is said by the same rules
(microscopes.tokens, people.access, payloads, ingest); tests hold both ways against each other.

Token, its right to the run and the run's state are one statement, asked at every call: a revoked token is refused at
once.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import orjson
from django.db import connection
from django.http import HttpRequest, HttpResponse, HttpResponseNotModified, UnreadablePostError
from django.utils import timezone
from django.utils.cache import patch_vary_headers

from microscopes import tokens
from microscopes.models import LAST_USED_RESOLUTION, PipelineToken
from people.access import is_pipeline
from people.statements import Columns, fetch_one
from preprocessing import ingest, single
from preprocessing.api import payloads
from preprocessing.api.views import changes_etag, counts
from preprocessing.reading import PAGE
from sessions_app.models import Session

PATH = re.compile(r"/api/v1/runs/([0-9]{1,18})/micrographs/")
QUERY = re.compile(r"after=([0-9]{1,18})(?:&limit=([0-9]{1,4}))?")
_SELECT = (
    f"{tokens.SELECT}, r.revision, s.id, s.status, "  # noqa: S608 (its own names)
    # sessions_app.querysets.visible_to, for a pipeline.
    "(t.all_microscopes OR EXISTS (SELECT 1 FROM microscopes_pipelinetoken_microscopes a "
    "WHERE a.pipelinetoken_id = t.id AND a.microscope_id = s.microscope_id))"
)
_FROM = (
    f"{tokens.FROM} JOIN preprocessing_processingrun r ON r.id = %s "
    "JOIN sessions_app_session s ON s.id = r.session_id"
)
_STATEMENT = f"{_SELECT} {_FROM} {tokens.WHERE}"
_COLUMNS = Columns((*tokens.COLUMNS, None, None, None, None))
_OF_CALL = len(_COLUMNS)


# The same with all that is known of one micrograph.
@cache
def _with_micrograph(vendor: str) -> str:
    return f"{_SELECT}, {single.SELECTED} {_FROM} {single.joined(vendor)} {tokens.WHERE}"


_COLUMNS_WITH_MICROGRAPH = Columns((*_COLUMNS, *single.COLUMNS))
# Bytes; a call with more is not parsed before its token is known.
_OF_ONE = 4096


@dataclass(slots=True)
class Found:
    """What the one statement knows of a call that is in order."""

    token: PipelineToken
    revision: int
    session: int
    status: str
    state: single.State | None


def answer(request, may_call: Callable[[HttpRequest, PipelineToken], bool]) -> HttpResponse | None:
    """The answer of a call that is plainly in order; None where the views are to look at it.

    `may_call` counts the call for its token, once, and says whether there were too many.
    """
    way = _WAYS.get(request.method)
    where = PATH.fullmatch(request.path_info) if way else None
    return way(request, int(where[1]), may_call) if where else None


def unchanged(request, run: int, may_call) -> HttpResponse | None:
    """304 for a reader that has all there is."""
    told = request.META.get("HTTP_IF_NONE_MATCH")
    asked = QUERY.fullmatch(request.META.get("QUERY_STRING", ""))
    if told is None or asked is None:
        return None
    after, limit = int(asked[1]), int(asked[2] or PAGE)
    found = find(request, run)
    if found is None or told != changes_etag("micrographs", run, after, found.revision, limit):
        return None
    if found.status == Session.Status.ARCHIVED:
        return None
    if not may_call(request, found.token):
        return None
    response = HttpResponseNotModified()
    response["ETag"] = told
    response["Cache-Control"] = "private, no-cache"
    patch_vary_headers(response, ["Authorization", "Cookie"])
    return response


def posted(request, run: int, may_call) -> HttpResponse | None:
    """The outcome of a batch that is stored."""
    meta = request.META
    length = meta.get("CONTENT_LENGTH") or ""
    if (
        meta.get("QUERY_STRING")
        or meta.get("CONTENT_TYPE") != "application/json"
        or not length.isdecimal()
        or "HTTP_CONTENT_ENCODING" in meta
    ):
        return None
    reports = _parsed(request) if int(length) <= _OF_ONE else []
    if reports is None:
        return None
    found = find(request, run, reports[0].identity if len(reports) == 1 else None)
    if found is None or found.status == Session.Status.ARCHIVED:
        return None
    reports = reports or _parsed(request)
    if reports is None or not may_call(request, found.token):
        return None
    outcome = single.record(found.state, reports[0]) if found.state is not None else None
    if outcome is None:
        try:
            outcome = ingest.record_micrographs(found.session, run, reports)
        except Exception as error:
            # Tried once is enough: the view says in the contract's words what came of it.
            request.ingestion_failed = error
            return None
    body = orjson.dumps(counts(outcome))
    return HttpResponse(body, content_type="application/json", headers={"Content-Length": str(len(body))})


def _parsed(request) -> list[ingest.Report] | None:
    """None where the view is to say what is wrong with it."""
    try:
        return payloads.micrographs(request.body)
    except payloads.Invalid:
        return None
    except UnreadablePostError as error:
        # It cannot be read a second time: the view raises this once it knows who called.
        request.ingestion_failed = error
        return None


def find(request, run: int, identity: str | None = None) -> Found | None:
    """With all that is known of the run's micrograph of this identity; None where the caller needs a second look."""
    meta = request.META
    words = meta.get("HTTP_AUTHORIZATION", "").split(" ")
    if len(words) != 2 or words[0] != "Token" or not words[1].isascii():
        return None
    if meta.get("HTTP_ACCEPT", "*/*") not in ("*/*", "application/json"):
        return None
    request.get_host()  # Raises DisallowedHost, as everywhere.
    key = words[1]
    prefix = tokens.prefix_of(key)
    if identity is None:
        row = fetch_one(_STATEMENT, [run, prefix], _COLUMNS)
    else:
        row = fetch_one(
            _with_micrograph(connection.vendor), [run, identity, prefix], _COLUMNS_WITH_MICROGRAPH
        )
    try:
        token = tokens.token_of_row(key, row)
    except tokens.Refusal:
        return None
    revision, session, status, visible = row[_OF_CALL - 4 : _OF_CALL]
    if not visible or not is_pipeline(token.user):
        return None
    # Once a minute the long way notes that the token is used.
    if token.last_used_at is None or timezone.now() - token.last_used_at > LAST_USED_RESOLUTION:
        return None
    state = None if identity is None else single.State.of_row(row[_OF_CALL:])
    return Found(token, revision, session, status, state)


_WAYS = {"GET": unchanged, "POST": posted}
