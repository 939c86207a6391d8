"""A small client for EMhub's REST API, version 1: one method per call a pipeline makes.

    client = Client("https://emhub.example.org", token)
    run = client.create_run("2026-11-23-krios-01", key="my pipeline", software="MyPipeline")
    client.post_micrographs(run["id"], [{"name": "Movies/a.tiff", "defocus_u": 12000.0}])

Every call waits for an answer and tries again, later and later, when the site cannot be reached, is too busy
or fails; that is safe, because what is sent twice is kept once. What the site refuses is raised, with the
items it names.
"""

from __future__ import annotations

import email.utils
import gzip
import json
import logging
import random
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from typing import Any, Callable
from urllib.parse import quote

import requests
import requests.auth

log = logging.getLogger(__name__)

#: The most items of one call; the client makes as many calls as are needed.
MAX_BATCH = 1000
#: Bodies of more bytes than this are sent compressed: batches with picks are large, and networks slow.
COMPRESSED_FROM = 64 * 1024
COUNTS = ("created", "updated", "unchanged")
#: The site takes its newest message, said again within so many seconds, for a repetition.
REPEATED = 60.0


class EMhubError(Exception):
    """Something between here and the site went wrong; the message is a sentence."""


class Unreachable(EMhubError):
    """No answer, or none but failures, after every attempt."""


class Stopped(EMhubError):
    """The caller asked to stop while a call was waiting."""


@dataclass
class ItemError:
    """One item of a refused batch: its place in the batch, its name and what is wrong with each field.

    ``same_as`` is the name by which the site, or an item before it, has the same exposure already.
    """

    index: int | None
    name: str
    errors: dict[str, Any] = field(default_factory=dict)
    same_as: str = ""

    def __str__(self) -> str:
        return f"{self.name or f'item {self.index}'}: {in_words(self.errors)}"


class AnswerError(EMhubError):
    """The site answered that it will not do it: ``status``, its answer's ``detail`` and refused ``items``.

    ``fields`` are the names of the fields that it found wrong in what was no batch. ``status`` is 0 where the
    client found it and nothing was sent.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        items: list[ItemError] | None = None,
        fields: tuple[str, ...] = (),
    ):
        super().__init__(detail)
        self.status, self.detail, self.items, self.fields = status, detail, items or [], fields


class NotAuthorised(AnswerError):
    """401 or 403: the token is not known, has expired, or may not do this."""


class NotFound(AnswerError):
    """404: it is not there, or not for this token to see."""


class Conflict(AnswerError):
    """409 or 410: it does not fit what is there (an archived session, two names of one movie)."""


class Refused(AnswerError):
    """Any other 4xx: the request, or items of it, is not right."""


class _TokenAuth(requests.auth.AuthBase):
    def __init__(self, token: str):
        self.token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Token {self.token}"
        return request


class Client:
    """Talks to one site with one token.

    ``attempts`` is how often a call is tried before Unreachable is raised; None tries for ever. ``wait`` is
    called with the seconds to wait before the next attempt and may raise Stopped. ``on_trouble`` is told, in
    a sentence, each time a call has to be tried again, and with None once an answer came.
    """

    def __init__(
        self,
        url: str,
        token: str,
        *,
        attempts: int | None = 6,
        timeout: tuple[float, float] = (10.0, 120.0),
        wait: Callable[[float], None] = time.sleep,
        on_trouble: Callable[[str | None], None] | None = None,
        first_wait: float = 1.0,
        longest_wait: float = 60.0,
        user_agent: str = "emhub-agent",
    ):
        url = url.strip().rstrip("/")
        if "://" not in url:
            url = f"https://{url}"
        self.site = url[: -len("/api/v1")] if url.endswith("/api/v1") else url
        self.attempts, self.timeout = attempts, timeout
        self.wait, self.on_trouble = wait, on_trouble
        self.first_wait, self.longest_wait = first_wait, longest_wait
        token = token.strip()
        if not token or not token.isascii() or not token.isprintable() or " " in token:
            raise EMhubError("The token holds characters that no token has; copy it again.")
        self._http = requests.Session()
        self._http.headers.update({"Accept": "application/json", "User-Agent": user_agent})
        # As an authentication of its own, because a header alone gives way to the host's line in ~/.netrc.
        self._http.auth = _TokenAuth(token)

    def close(self) -> None:
        """Let go of the connections kept open to the site."""
        self._http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # the calls

    def get_session(self, name: str) -> dict[str, Any]:
        return self.request("GET", f"/sessions/{_quoted(name)}/")

    def sessions(self, **filters: Any) -> Iterator[dict[str, Any]]:
        """Yield the sessions the token sees, newest first; filters as ``status=["active"]``."""
        return self.listed("/sessions/", filters)

    def update_session(self, name: str, **fields: Any) -> dict[str, Any]:
        """Correct a session's acquisition, data counters or status; fields left out stay."""
        return self.request("PATCH", f"/sessions/{_quoted(name)}/", body=fields)

    def post_exposures(
        self, session: str, exposures: list[dict[str, Any]], dry_run: bool = False
    ) -> dict[str, int]:
        """Post any number of exposures, as ``post_micrographs`` does."""
        return self._in_batches(f"/sessions/{_quoted(session)}/exposures/", "exposures", exposures, dry_run)

    def get_exposures(self, session: str, after: int = 0) -> Iterator[dict[str, Any]]:
        """Yield the session's exposures that changed after this revision, oldest change first."""
        return self._changes(f"/sessions/{_quoted(session)}/exposures/", "exposures", after)

    def runs(self, session: str) -> Iterator[dict[str, Any]]:
        """Yield the session's runs, the first made first."""
        return self.listed(f"/sessions/{_quoted(session)}/runs/")

    def create_run(self, session: str, **fields: Any) -> dict[str, Any]:
        """Return the run with this ``key``, made if the session has none; ``software`` is needed too."""
        return self.request("POST", f"/sessions/{_quoted(session)}/runs/", body=fields)

    def get_run(self, run: int) -> dict[str, Any]:
        return self.request("GET", f"/runs/{run}/")

    def update_run(self, run: int, **fields: Any) -> dict[str, Any]:
        """Change a run's fields; with none, only say that the pipeline is alive."""
        return self.request("PATCH", f"/runs/{run}/", body=fields)

    def post_micrographs(
        self, run: int, micrographs: list[dict[str, Any]], dry_run: bool = False
    ) -> dict[str, int]:
        """Post any number of micrographs; return the counts created, updated and unchanged.

        More than 1,000 go in batches, each of them all or nothing, and so do those that are too large for one
        call. Where one is refused, those before it are kept; sending all again is safe. With ``dry_run``
        everything is checked and counted, and nothing stored.
        """
        return self._in_batches(f"/runs/{run}/micrographs/", "micrographs", micrographs, dry_run)

    def micrographs(self, run: int, after: int = 0) -> Iterator[dict[str, Any]]:
        """Yield the run's micrographs that changed after this revision, oldest change first."""
        return self._changes(f"/runs/{run}/micrographs/", "micrographs", after)

    def post_classes(
        self, run: int, job: str, iteration: int, classes: list[dict[str, Any]]
    ) -> dict[str, int]:
        """Post the 2D classes of one iteration: ``number`` from 1, ``particles``, ``resolution`` (Å).

        Return the counts created, updated and unchanged.
        """
        body = {"job": job, "iteration": iteration, "classes": classes}
        return self.request("POST", f"/runs/{run}/classes/", body=body)

    def classes(self, run: int) -> Iterator[dict[str, Any]]:
        """Yield the run's 2D classes, with where their pictures are."""
        return self.listed(f"/runs/{run}/classes/")

    def post_event(self, run: int, level: str, text: str, at: str | None = None) -> dict[str, Any]:
        """Post a message of the pipeline; ``at`` is a time with offset (ISO 8601).

        Unlike the other calls this one is not safe to send twice, so before it is sent again the site is
        asked whether the first attempt arrived after all. Without ``at`` that is a message of the same words
        from since just before the first attempt: one that was said long ago is said again.
        """
        body = {"level": level, "text": text}
        if at is not None:
            body["at"] = at
        since = time.time() - REPEATED

        def arrived() -> dict[str, Any] | None:
            # Newest first; what has just arrived is among the first.
            for event in islice(self.events(run), 500 if at is None else None):
                if (event.get("level"), event.get("text")) != (level, text):
                    continue
                told = moment(event.get("at"))
                if (told is None or told >= since) if at is None else same_time(event.get("at"), at):
                    return event
            return None

        return self.request("POST", f"/runs/{run}/events/", body=body, arrived=arrived)

    def events(self, run: int) -> Iterator[dict[str, Any]]:
        """Yield the run's messages, newest first."""
        return self.listed(f"/runs/{run}/events/")

    def post_image(
        self, run: int, kind: str, data: bytes, media_type: str = "image/webp", **of: Any
    ) -> dict[str, Any]:
        """Post one picture; ``of`` is ``micrograph=`` or ``job=``, ``iteration=`` and ``number=``."""
        fields = {"kind": kind, **{name: str(value) for name, value in of.items() if value is not None}}
        file = (f"{kind}.{media_type.rsplit('/', 1)[-1]}", data, media_type)
        return self.request("POST", f"/runs/{run}/images/", form=fields, files={"file": file})

    def _in_batches(self, path: str, kind: str, items: Iterable[dict[str, Any]], dry_run: bool) -> Any:
        """Post all of them, at most MAX_BATCH at once and fewer where the site finds them too large."""
        items = list(items)
        waiting = [(first, items[first : first + MAX_BATCH]) for first in range(0, len(items), MAX_BATCH)]
        waiting = waiting or [(0, [])]
        told: dict[str, Any] = {}
        while waiting:
            first, batch = waiting.pop(0)
            try:
                answer = self.request("POST", path, body={kind: batch}, params=_trial(dry_run))
            except AnswerError as error:
                half = len(batch) // 2
                if error.status == 413 and half:
                    waiting[:0] = [(first, batch[:half]), (first + half, batch[half:])]
                    continue
                for item in error.items:
                    if item.index is not None:
                        item.index += first
                raise
            counted = {name: told.get(name, 0) + answer.get(name, 0) for name in COUNTS}
            told = {**answer, **counted}
        return told

    def _changes(self, path: str, kind: str, after: int) -> Iterator[dict[str, Any]]:
        while True:
            answer = self.request("GET", path, params={"after": after})
            yield from answer[kind]
            if not answer.get("more") or answer["revision"] == after:
                return
            after = answer["revision"]

    def listed(self, path: str, filters: dict[str, Any] | None = None) -> Iterator[dict[str, Any]]:
        """Yield the rows of a paginated list, page by page."""
        params: dict[str, Any] = {**(filters or {}), "page_size": 500}
        page = 1
        while True:
            answer = self.request("GET", path, params=params)
            if isinstance(answer, list):
                yield from answer
                return
            rows = answer.get("results")
            if rows is None:  # a list under the name of what it lists
                rows = next((value for value in answer.values() if isinstance(value, list)), [])
            yield from rows
            if not answer.get("next"):
                return
            page += 1
            params = {**params, "page": page}

    # how a call is made

    def request(
        self,
        method: str,
        path: str,
        *,
        body: dict[str, Any] | None = None,
        params: dict[str, Any] | None = None,
        form: dict[str, str] | None = None,
        files: dict[str, Any] | None = None,
        arrived: Callable[[], Any] | None = None,
    ) -> Any:
        """Make one call under ``/api/v1`` and return the decoded answer (None where it is empty).

        Raises NotAuthorised, NotFound, Conflict or Refused as the site answers, Unreachable after the last
        attempt, and whatever ``wait`` raises. ``arrived`` is asked before each further attempt; what it
        returns, if not None, is taken as the answer to the one before.
        """
        headers = {}
        data: Any = form
        if body is not None:
            data = _packed(body)
            headers["Content-Type"] = "application/json"
            if len(data) > COMPRESSED_FROM:
                data = gzip.compress(data, 1, mtime=0)
                headers["Content-Encoding"] = "gzip"
        attempt = 0
        while True:
            attempt += 1
            asked_to_wait = None
            try:
                answer = self._http.request(
                    method,
                    f"{self.site}/api/v1{path}",
                    data=data,
                    params=params,
                    files=files,
                    headers=headers,
                    timeout=self.timeout,
                    allow_redirects=False,
                )
            except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema) as error:
                raise EMhubError(f"{self.site} is not an address: {error}.") from error
            except requests.RequestException as error:
                if "CERTIFICATE_VERIFY_FAILED" in str(error):
                    raise EMhubError(
                        f"The certificate of {self.site} is not trusted here; "
                        "REQUESTS_CA_BUNDLE can name a file with the facility's own."
                    ) from error
                trouble = f"{self.site} cannot be reached ({_reason(error)})"
            else:
                if answer.status_code < 300:
                    if self.on_trouble:
                        self.on_trouble(None)
                    return self._decoded(answer)
                if answer.status_code < 500 and answer.status_code not in (408, 425, 429):
                    raise self._error(answer)
                trouble = f"{self.site} answered {answer.status_code} {answer.reason}"
                asked_to_wait = _retry_after(answer.headers.get("Retry-After"))
            if self.attempts is not None and attempt >= self.attempts:
                raise Unreachable(f"{trouble}, {attempt} times in a row.")
            pause = min(self.longest_wait, self.first_wait * 2 ** min(attempt - 1, 16))
            pause *= random.uniform(0.5, 1.0)  # so that many agents do not come back at once
            if asked_to_wait is not None:
                pause = max(pause, min(asked_to_wait, 3600.0))
            if self.on_trouble:
                self.on_trouble(f"{trouble}; trying again in {pause:.0f} s")
            self.wait(pause)
            if arrived is not None:
                found = arrived()
                if found is not None:
                    return found

    def _decoded(self, answer: requests.Response) -> Any:
        if not answer.content:
            return None
        try:
            return answer.json()
        except ValueError as error:
            raise EMhubError(
                f"{self.site} answered something that is not JSON; is it the address of an EMhub site?"
            ) from error

    def _error(self, answer: requests.Response) -> EMhubError:
        status = answer.status_code
        if status < 400:
            return EMhubError(
                f"{self.site} sends on to {answer.headers.get('Location', 'another place')}; "
                "give the address it names."
            )
        try:
            body = answer.json()
        except ValueError:
            body = None
        items = []
        if isinstance(body, dict) and isinstance(body.get("errors"), list):
            for item in body["errors"]:
                if isinstance(item, dict):
                    errors = item.get("errors")
                    if not isinstance(errors, dict):
                        errors = {"": [str(errors)]}
                    items.append(
                        ItemError(
                            item.get("index"),
                            str(item.get("name") or ""),
                            errors,
                            str(item.get("same_as") or ""),
                        )
                    )
        detail = in_words(body) if body and not items else ""
        if items:
            detail = "; ".join(str(item) for item in items[:3])
        if not detail:
            detail = f"{self.site} answered {status} {answer.reason}."
        fields = tuple(body) if isinstance(body, dict) else ()
        kind: type[AnswerError] = Refused
        if status in (401, 403):
            kind = NotAuthorised
        elif status == 404:
            kind = NotFound
        elif status in (409, 410):
            kind = Conflict
        return kind(status, detail, items, fields)


def in_words(errors: Any) -> str:
    """Return an error answer as one line: ``{"field": ["why"]}`` -> ``field: why``."""
    if isinstance(errors, dict):
        parts = []
        for name, value in errors.items():
            words = in_words(value)
            parts.append(words if name in ("", "detail", "non_field_errors") else f"{name}: {words}")
        return "; ".join(parts)
    if isinstance(errors, (list, tuple)):
        return " ".join(in_words(value) for value in errors)
    return str(errors)


def _packed(body: dict[str, Any]) -> bytes:
    """Return JSON, with NumPy's numbers and arrays as lists and numbers and times as ISO 8601.

    Raises Refused, naming items and fields, for what JSON cannot say (not a number, infinity, other objects),
    so that it is never sent as something that is not JSON.
    """
    try:
        return _json(body).encode()
    except (TypeError, ValueError, RecursionError) as error:
        first = error
    items = []
    for rows in body.values():
        for index, row in enumerate(rows if isinstance(rows, list) else ()):
            fields = row.items() if isinstance(row, dict) else [("", row)]
            errors = {name: [why] for name, value in fields if (why := _unsendable(value))}
            if errors:
                name = row.get("name", row.get("number", "")) if isinstance(row, dict) else ""
                items.append(ItemError(index, str(name), errors))
    if items:
        raise Refused(0, "; ".join(str(item) for item in items[:3]), items) from first
    errors = {str(name): [why] for name, value in body.items() if (why := _unsendable(value))}
    raise Refused(0, in_words(errors) or str(first), None, tuple(errors)) from first


def _json(value: Any) -> str:
    return json.dumps(value, allow_nan=False, separators=(",", ":"), default=_plain)


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if hasattr(value, "tolist"):  # NumPy, which this package does not need.
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is nothing that JSON has.")


def _unsendable(value: Any) -> str:
    """Why JSON cannot say it; empty where it can."""
    try:
        _json(value)
    except (TypeError, RecursionError) as error:
        return str(error)
    except ValueError:
        return "Not a number and infinity cannot be sent. Give None for what is not known."
    return ""


def same_time(one: Any, other: Any) -> bool:
    """Whether two ISO 8601 times with offset are the same moment."""
    first, second = moment(one), moment(other)
    return first is not None and first == second


def moment(text: Any) -> float | None:
    """Return an ISO 8601 time with offset as seconds since 1970, or None where it is not one."""
    try:
        # Python before 3.11 does not know Z.
        found = datetime.fromisoformat(str(text).replace("Z", "+00:00"))
    except ValueError:
        return None
    return found.timestamp() if found.tzinfo else None


def _trial(dry_run: bool) -> dict[str, str] | None:
    return {"dry_run": "true"} if dry_run else None


def _quoted(name: str) -> str:
    return quote(name, safe="")


def _reason(error: requests.RequestException) -> str:
    if isinstance(error, requests.exceptions.ConnectTimeout):
        return "no answer in time"
    if isinstance(error, requests.exceptions.ReadTimeout):
        return "it took too long to answer"
    text = str(error)
    for sign, words in (
        ("Name or service not known", "its name is not known"),
        ("Temporary failure in name resolution", "its name is not known"),
        ("Connection refused", "connection refused"),
        ("RemoteDisconnected", "it closed the connection"),
        ("Connection aborted", "it closed the connection"),
    ):
        if sign in text:
            return words
    return type(error).__name__


def _retry_after(value: str | None) -> float | None:
    """Return the seconds of a Retry-After header: a number, or a date (RFC 9110, 10.2.3)."""
    if not value:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError):
        return None
