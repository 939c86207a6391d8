"""The short way for open pages that ask once a second whether anything changed, and mostly hear that nothing did.

What a question passes on its way to the view (login, rights, session, runs) costs more than the answer, so `answer` is
asked before all that (emhub_site.short_way). It only ever says 304 Not Modified, which tells nothing: to a browser
that the view itself found in order within the last KNOWN seconds, and that names the tag of what there is now.
Everything else it leaves to the view.

What there is now of a session is read once for all its readers, at most every FRESH seconds (`now_of`), for the view
as for `answer`; who may have it is asked by the view every time.
"""

import re
import threading
import time

from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseNotModified
from django.utils.cache import patch_cache_control

from preprocessing import live
from preprocessing.models import ProcessingRun
from preprocessing.state import RELATED
from sessions_app.models import Session, SessionSummary

#: Seconds.
KNOWN = 8.0
FRESH = 0.25
MOST = 4000

# What a summary keeps for the archive is not read with every poll.
HEAVY = tuple(
    f"summary__{field.name}"
    for field in SessionSummary._meta.fields
    if field.get_internal_type() == "JSONField" and field.name != "alerts"
)
PATH = re.compile(r"/sessions/([-a-zA-Z0-9_]{1,80})/live/data/")

_lock = threading.Lock()
# By browser, session and run as they were asked for: the session's id and run, and until when that is believed.
_known: dict[tuple, tuple[int, int | None, float]] = {}
# By session's id: it and its runs, and until when they are fresh. Nobody changes these objects.
_now: dict[int, tuple[Session, list[ProcessingRun], float]] = {}
# By session's id and run: its tag, and until when it is fresh.
_tags: dict[tuple[int, int | None], tuple[str, float]] = {}


def tag_in(request: HttpRequest) -> str:
    """The tag that the reader names; a proxy that packs answers on the way calls it weak."""
    return request.headers.get("If-None-Match", "").removeprefix("W/")


def remember(request: HttpRequest, session: Session, run: int | None) -> None:
    """The view has found this reader in order: `run` is the one asked for, None for the leading one."""
    key = _key(request, session.name)
    if key is None:
        return
    with _lock:
        if len(_known) >= MOST:
            for kept in (_known, _now, _tags):
                kept.clear()
        _known[key] = (session.pk, run, time.monotonic() + KNOWN)


def answer(request: HttpRequest) -> HttpResponse | None:
    """304 where nothing changed for a reader who is known; None where the view is to look at it."""
    if request.method != "GET" or not request.path_info.endswith("/live/data/"):
        return None
    match, tag = PATH.fullmatch(request.path_info), tag_in(request)
    if match is None or not tag:
        return None
    found = _known.get(_key(request, match[1]))
    now = time.monotonic()
    if found is None or found[2] < now or _tag(found[0], found[1], now) != tag:
        return None
    response = HttpResponseNotModified()
    response["ETag"] = tag
    patch_cache_control(response, private=True, no_cache=True)
    return response


def _key(request: HttpRequest, name: str) -> tuple | None:
    cookie = request.COOKIES.get(settings.SESSION_COOKIE_NAME)
    return (cookie, name.lower(), request.GET.get("run", "")) if cookie else None


def _tag(session_id: int, run: int | None, now: float) -> str | None:
    held = _tags.get((session_id, run))
    if held is not None and held[1] > now:
        return held[0]
    found = now_of(session_id)
    if found is None:
        return None
    try:
        tag = live.read(found[0], run, runs=found[1]).etag
    except live.NoSuchRun:
        return None
    _tags[session_id, run] = (tag, now + FRESH)
    return tag


def now_of(session_id: int) -> tuple[Session, list[ProcessingRun]] | None:
    """The session with what its state and verdict need, and its runs, as they were at most FRESH seconds ago.

    None where it is gone. Everybody gets the same objects: read them only.
    """
    now = time.monotonic()
    held = _now.get(session_id)
    if held is not None and held[2] > now:
        return held[0], held[1]
    sessions = Session.objects.select_related(*RELATED, "lab").defer(*HEAVY)
    session = sessions.filter(pk=session_id).first()
    if session is None:
        return None
    runs = live.runs_of(session)
    _now[session_id] = (session, runs, now + FRESH)
    return session, runs
