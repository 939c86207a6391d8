"""Bringing what a reader finds to the site: what is new, in order, each thing once.

Nothing is spooled: what the site has not acknowledged stays in memory until it has, and after a restart the
project's files tell everything again, to which the site answers ``unchanged``. Numbers go before pictures,
and per run there is never more than one request under way.
"""

from __future__ import annotations

import logging
import os
import re
import tempfile
import time
from collections import OrderedDict
from collections.abc import Collection, Mapping
from itertools import islice
from typing import Any, Callable

from .client import Client, Conflict, ItemError, NotFound, Refused, moment, same_time
from .pictures import Pace, thumbnail
from .readers.base import (
    Deferred,
    Event,
    OutsideError,
    Picture,
    Reader,
    RunNews,
    SessionNews,
    signature,
)

log = logging.getLogger(__name__)

BATCH = 500
#: Coordinates of so many picks at most in one batch, so that a request stays a few megabytes.
PICKS_PER_BATCH = 200_000
HEARTBEAT = 60.0  # seconds; the site writes it at most once a minute
_CONTROL = re.compile(r"[\x00-\x1f\x7f]+")
KINDS = ("exposures", "micrographs", "classes", "images", "events")
#: So many refused items are told one by one in a run's events; the log names them all.
TOLD_REFUSALS = 20
MORE_REFUSED = "The site refused more items than are told here; the agent's log names each."
#: Seconds before a file that could not be read is tried again though it has not changed.
TRY_AGAIN = 300.0
GONE = (FileNotFoundError, OutsideError)
#: How often a picture is fetched before it is given up.
FETCHES = 3
#: So many pictures at most are asked of a reader before they are sent.
PICTURES_AHEAD = 1000
IN_PROGRESS = ("queued", "running")


class Counts:
    """How many of each kind the site created, updated, found unchanged, and refused."""

    def __init__(self) -> None:
        self.rows = {kind: {"created": 0, "updated": 0, "unchanged": 0, "refused": 0} for kind in KINDS}

    def add(self, kind: str, **counts: int | None) -> None:
        for name, count in counts.items():
            self.rows[kind][name] += count or 0

    @property
    def refused(self) -> int:
        return sum(row["refused"] for row in self.rows.values())

    def copy(self) -> Counts:
        other = Counts()
        other.rows = {kind: dict(row) for kind, row in self.rows.items()}
        return other

    def since(self, before: Counts) -> list[str]:
        """What was sent since then, in words: ``["6 micrographs", "3 classes"]``."""
        changes = []
        for kind, row in self.rows.items():
            count = sum(row[name] - before.rows[kind][name] for name in ("created", "updated"))
            if count:
                changes.append(f"{count} {kind}")
        return changes

    def lines(self) -> list[str]:
        lines = []
        for kind, row in self.rows.items():
            if kind == "exposures" and not any(row.values()):
                continue  # only watchers of a microscope tell of them
            line = "{:<12} {created} created, {updated} updated, {unchanged} unchanged".format(
                kind + ":", **row
            )
            lines.append(line + (f", {row['refused']} refused" if row["refused"] else ""))
        return lines


class RunSync:
    """One run: what the site has still to be told."""

    def __init__(self, key: str):
        self.key = key
        self.id: int | None = None
        self.info: dict[str, Any] = {}
        self.sent_info: dict[str, Any] = {}
        self.status = ""
        self.sent_status: str | None = None
        self.micrographs: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self.classes: dict[str, Any] = {}
        self.pictures: OrderedDict[tuple, Picture] = OrderedDict()
        self.events: list[Event] = []
        self.known_events: set[tuple] | None = None
        self.known_images: set[tuple] | None = None
        self.last_write = 0.0
        self.refused: set[str] = set()  # names of micrographs
        #: Micrographs' names as the reader tells them, and those that the site has instead of some of them.
        self.names: set[str] = set()
        self.called: dict[str, str] = {}
        self._meant: dict[str, str] = {}  # the other way round
        self.told_refusals: set[str] = set()
        self.fetches: dict[tuple, int] = {}
        # Pictures that could not be made, how their file was then, and when to try again all the same.
        self.unreadable: dict[tuple, tuple[Picture, Any, float | None]] = {}
        # Values whose file could not be read, and when to try again.
        self.postponed: dict[str, dict[str, Deferred]] = {}
        self.try_again_at = 0.0

    def take(self, news: RunNews) -> None:
        self.info, self.status = news.info, news.status
        for name, fields in news.micrographs.items():
            waiting = self.micrographs.get(name)
            self.micrographs[name] = fields if waiting is None else {**waiting, **fields}
            if fields and all(value is None for value in fields.values()):
                self.names.discard(name)  # it is gone, and may come back by another name
                continue
            self.names.add(name)
            if name in self._meant:  # it is a movie of its own after all
                del self.called[self._meant.pop(name)]
        for found in news.classes:
            self.classes[found.job] = found
            # Of a job only its newest iteration is worth sending.
            for pictures in (self.pictures, self.unreadable):
                for identity in [key for key in pictures if key[:2] == ("class_average", found.job)]:
                    del pictures[identity]
        for picture in news.pictures:
            self.pictures[picture.identity] = picture
        now = time.monotonic()
        for identity, (picture, state, at) in list(self.unreadable.items()):
            is_due = at is not None and now >= at
            if picture.fetch is not None or is_due or signature(picture.path) != state:
                del self.unreadable[identity]
                self.pictures.setdefault(identity, picture)
        if self.postponed and now >= self.try_again_at:
            for name, values in self.postponed.items():
                self.micrographs[name] = {**values, **self.micrographs.get(name, {})}
            self.postponed = {}
        self.events.extend(news.events)

    @property
    def waiting(self) -> int:
        return len(self.micrographs) + len(self.classes) + len(self.pictures) + len(self.events)

    def adopt(self, items: Collection[ItemError]) -> dict[str, str]:
        """Return {a refused name: the name that the site has for it}, by which it is known from here on.

        The site keeps the first name it is told of a movie, and a program may have told another before the
        agent was started anew. A name that the program tells for another micrograph is not given away: there
        two movies cannot be told apart.
        """
        found: dict[str, str] = {}
        for item in items:
            name, other = item.name, item.same_as
            if other and other not in self.names and other not in self._meant and name not in self._meant:
                if not self.called:
                    log.warning(
                        "The site has %s as %s, the name it was told first, and keeps to it: so does the "
                        "agent from here on. Others like it are not told one by one.",
                        name,
                        other,
                    )
                found[name] = self.called[name] = other
                self._meant[other] = name
        return found


class SessionSync:
    """The acquisition, where it is watched: what the site has still to be told of it."""

    def __init__(self) -> None:
        self.fields: dict[str, Any] = {}
        self.fill: Mapping[str, Collection[Any]] = {}
        self.never_lower: tuple[str, ...] = ()
        self.sent: dict[str, Any] | None = None
        self.kept: dict[str, Any] = {}  # values of ours that the site was not to be given
        self.exposures: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self.refused: set[str] = set()  # names of exposures
        self.is_watched = False
        self.last_write = 0.0

    def take(self, news: SessionNews) -> None:
        self.is_watched = True
        self.fields = {**self.fields, **news.fields}
        self.fill, self.never_lower = news.fill, news.never_lower
        for name, fields in news.exposures.items():
            self.exposures[name] = {**self.exposures.get(name, {}), **fields}


class Sync:
    """Posts what ``reader`` finds to one session of the site.

    ``report`` is called with a short sentence whenever something was sent; ``pace`` says how fast pictures
    may be made (None: as fast as it goes).
    """

    def __init__(
        self,
        reader: Reader,
        client: Client,
        session: str,
        report: Callable[[str], None] | None = None,
        batch: int = BATCH,
        pace: Pace | None = None,
    ):
        self.reader, self.client, self.session = reader, client, session
        self.report = report or (lambda text: None)
        self.batch, self.pace = batch, pace or Pace()
        self.counts = Counts()
        self.runs: dict[str, RunSync] = {}
        self.acquisition = SessionSync()
        self.resumed: dict[str, Any] | None = None  # the session as it was before the first look

    # one pass

    def numbers(self) -> None:
        """Look once and send all that is not a picture.

        Raises the client's NotAuthorised, NotFound (the session) and Conflict (it takes no more).
        """
        if self.resumed is None and type(self.reader).resume is not Reader.resume:
            self.resumed = self.client.get_session(self.session)
            self.reader.resume(self.resumed)
        keys = set()
        self.reader.room = max(0, PICTURES_AHEAD - sum(len(run.pictures) for run in self.runs.values()))
        for item in self.reader.look():
            if isinstance(item, SessionNews):
                self.acquisition.take(item)
            else:
                keys.add(item.key)
                self.runs.setdefault(item.key, RunSync(item.key)).take(item)
        if self.acquisition.is_watched:
            self._acquisition()
        for key, run in self.runs.items():
            if key not in keys and run.status in IN_PROGRESS:
                run.status = "stopped"  # its jobs were deleted
            try:
                self._numbers_of(run)
            except NotFound:
                if run.id is None:
                    raise
                self._start_again(run)

    def pictures(self, until: float | None = None) -> bool:
        """Send pictures, newest first, up to the monotonic time ``until``; return whether all are sent."""
        for run in self.runs.values():
            while run.pictures:
                pause = self.pace.pause()
                if until is not None and time.monotonic() + pause >= until:
                    return False
                if pause:
                    self.client.wait(pause)
                try:
                    with self.pace:
                        self._one_picture(run)
                except NotFound:
                    self._start_again(run)
                    break
        return True

    @property
    def waiting(self) -> int:
        """How much the site has still to be told, as far as is known."""
        count = self.reader.backlog + len(self.acquisition.exposures)
        return count + sum(run.waiting for run in self.runs.values())

    def _start_again(self, run: RunSync) -> None:
        """The site does not know the run any more: at the next look everything is told again."""
        log.warning("The run %s is gone from the site; it is posted anew.", run.key)
        self.reader.forget(run.key)
        self.runs[run.key] = RunSync(run.key)

    # the session

    def _acquisition(self) -> None:
        watched = self.acquisition
        is_first = watched.sent is None
        if watched.sent is None:
            watched.sent = self.resumed or self.client.get_session(self.session)
        changed = {
            name: value
            for name, value in watched.fields.items()
            if (name not in watched.sent or not _same(watched.sent[name], value))
            and watched.kept.get(name) != value
        }
        if changed:
            allowed = self._allowed(changed, is_first)
            self._correct(allowed)
            watched.sent.update(allowed)
            # What the site keeps otherwise is not tried again until the reader has another value.
            watched.kept = {**watched.kept, **changed}
            for name in allowed:
                del watched.kept[name]
        while watched.exposures:
            names = list(islice(watched.exposures, self.batch))
            self._post_batch(
                watched, "exposures", [self._item(name, watched.exposures[name]) for name in names]
            )
            for name in names:
                del watched.exposures[name]
            self.report(f"{len(names)} exposures sent")
        if time.monotonic() - watched.last_write > HEARTBEAT:
            # Changes nothing, and finds out whether the session still takes something.
            self.client.update_session(self.session)
            watched.last_write = time.monotonic()

    def _allowed(self, changed: dict[str, Any], is_known: bool) -> dict[str, Any]:
        """Return what of these fields may be written over what the site has, which is asked anew."""
        watched = self.acquisition
        there = watched.sent or {}
        if not is_known and any(name in watched.fill for name in changed):
            there = self.client.get_session(self.session)
        allowed = {}
        for name, value in changed.items():
            now = there.get(name)
            if now not in (None, ""):
                if name in watched.fill and not any(_same(now, own) for own in watched.fill[name]):
                    continue
                if name in watched.never_lower and _is_more(now, value):
                    continue
            allowed[name] = value
        return allowed

    def _correct(self, fields: dict[str, Any]) -> None:
        """Change the session's own fields; those that the site refuses are left out and said."""
        while fields:
            try:
                self.client.update_session(self.session, **fields)
            except Refused as error:
                named = [name for name in fields if name in error.fields]
                self._refused(self.acquisition, "session", ItemError(None, self.session, {"": error.detail}))
                if not named:
                    return
                fields = {name: value for name, value in fields.items() if name not in named}
            else:
                self.acquisition.last_write = time.monotonic()
                self.report("session updated")
                return

    # numbers

    def _numbers_of(self, run: RunSync) -> None:
        self._describe(run)
        if run.status in IN_PROGRESS:
            self._say_status(run)
        while run.micrographs:
            self._one_batch(run)
        for job in list(run.classes):
            self._post_classes(run, run.classes[job])
            del run.classes[job]
        while run.events:
            self._post_event(run, run.events[0])
            run.events.pop(0)
        self._say_status(run)
        if run.status in IN_PROGRESS and time.monotonic() - run.last_write > HEARTBEAT:
            self.client.update_run(run.id)
            run.last_write = time.monotonic()

    def _describe(self, run: RunSync) -> None:
        if run.id is None:
            try:
                answer = self.client.create_run(self.session, key=run.key, **_fitting(run.info))
            except Refused as error:
                # Something that only describes it must not keep its results away.
                self._refused(run, "run", ItemError(None, run.key, {"": error.detail}))
                software = run.info.get("software", "unknown")
                answer = self.client.create_run(self.session, key=run.key, software=software)
            run.id = answer["id"]
            run.sent_status = answer.get("status")
            # What the site knows of the run may be from an earlier day: what differs is sent again.
            run.sent_info = {name: answer.get(name) for name in run.info}
            if "parameters" in run.info:
                known = answer.get("parameters") or {}
                run.sent_info["parameters"] = {name: known.get(name) for name in run.info["parameters"]}
            run.last_write = time.monotonic()
        changed = {
            name: value
            for name, value in run.info.items()
            if run.sent_info.get(name) != value and name not in ("software", "host", "label")
        }
        if changed:
            self._write(run, lambda: self.client.update_run(run.id, **_fitting(changed)), "run")
            run.sent_info.update(changed)

    def _say_status(self, run: RunSync) -> None:
        if run.status and run.status != run.sent_status:
            self._write(run, lambda: self.client.update_run(run.id, status=run.status), "run")
            run.sent_status = run.status

    def _one_batch(self, run: RunSync) -> None:
        batch: list[dict[str, Any]] = []
        names: list[str] = []
        picks = 0
        with self.reader.loading():
            for name, fields in run.micrographs.items():
                item = {**self._item(name, fields, run), "name": run.called.get(name, name)}
                batch.append(item)
                names.append(name)
                picks += len(item.get("coordinates") or ())
                if len(batch) >= self.batch or picks > PICKS_PER_BATCH:
                    break
        self._post_batch(run, "micrographs", batch)
        for name in names:
            del run.micrographs[name]
        self.report(f"{len(names)} micrographs sent")

    def _item(self, name: str, fields: dict[str, Any], run: RunSync | None = None) -> dict[str, Any]:
        item: dict[str, Any] = {"name": name}
        for field, value in fields.items():
            if not isinstance(value, Deferred):
                item[field] = value
                continue
            try:
                item.update(value.load())
            except (OSError, ValueError) as error:
                # Left out; the reader sees the file again when it changes.
                log.warning("%s: %s could not be read: %s", name, field, error)
                if run is not None and isinstance(error, OSError) and not isinstance(error, GONE):
                    # A share that is away, or a permission that is put right, changes no file.
                    run.postponed.setdefault(name, {})[field] = value
                    run.try_again_at = time.monotonic() + TRY_AGAIN
        return item

    def _post_batch(self, of: RunSync | SessionSync, kind: str, batch: list[dict[str, Any]]) -> None:
        """Send a batch without what the site refuses of it: what it names, or what halving finds."""
        while batch:
            try:
                if isinstance(of, RunSync):
                    answer = self.client.post_micrographs(of.id, batch)
                else:
                    answer = self.client.post_exposures(self.session, batch)
            except (Refused, Conflict) as error:
                called = of.adopt(error.items) if isinstance(of, RunSync) else {}
                if called:
                    batch = renamed(batch, called)
                    continue
                left = self._without_refused(of, kind, batch, error.items)
                if left is not None:
                    batch = left
                    continue
                if isinstance(error, Conflict):
                    raise  # not about an item: the session takes no more
                if len(batch) == 1:
                    self._refused(of, kind, ItemError(0, batch[0]["name"], {"": error.detail}))
                    return
                middle = len(batch) // 2
                self._post_batch(of, kind, batch[:middle])
                batch = batch[middle:]
                continue
            self.counts.add(kind, **_counted(answer))
            of.refused.difference_update(row["name"] for row in batch)
            of.last_write = time.monotonic()
            return

    def _without_refused(
        self, of: RunSync | SessionSync, kind: str, batch: list[dict[str, Any]], errors: list[ItemError]
    ) -> list[dict[str, Any]] | None:
        """Return the batch without what these errors name, or None where they name nothing in it.

        Of an item of which only measured fields are refused the others still go.
        """
        refused: dict[int, set[str]] = {}
        for error in errors:
            index = error.index
            if index is None:
                index = next((place for place, row in enumerate(batch) if row["name"] == error.name), -1)
            if 0 <= index < len(batch):
                error.name = error.name or batch[index]["name"]
                refused.setdefault(index, set()).update(error.errors)
                self._refused(of, kind, error)
        if not refused:
            return None
        left = []
        for index, row in enumerate(batch):
            fields = refused.get(index, set())
            if not fields:
                left.append(row)
            elif "name" not in fields and fields <= set(row) and len(row) > 1:
                left.append({key: value for key, value in row.items() if key not in fields})
        return left

    def _post_classes(self, run: RunSync, found: Any) -> None:
        answer = self._write(
            run,
            lambda: self.client.post_classes(run.id, found.job, found.iteration, found.classes),
            "classes",
        )
        if answer is not None:
            self.counts.add("classes", **_counted(answer))
            self.report(f"{len(found.classes)} classes sent")

    def _post_event(self, run: RunSync, event: Event) -> None:
        """Events have no name of their own, so those the site has are asked for and not told again."""
        if run.known_events is None:
            run.known_events = {_event_identity(row) for row in self.client.events(run.id)}
        event.text = _CONTROL.sub(" ", event.text)[:2000]
        identity = _event_identity({"level": event.level, "text": event.text, "at": event.at})
        # An event without a time is known by its words alone.
        if identity in run.known_events or any(
            known[:2] == identity[:2] for known in run.known_events if identity[2] is None
        ):
            self.counts.add("events", unchanged=1)
            return
        log.info("%s", event.text)
        answer = self._write(
            run, lambda: self.client.post_event(run.id, event.level, event.text, event.at), "events"
        )
        run.known_events.add(identity)
        if answer is not None:
            self.counts.add("events", created=1)

    def _write(self, run: RunSync, call: Callable[[], Any], kind: str) -> Any:
        """Make a call of which nothing can be sent if it is refused; None then, and people are told."""
        try:
            answer = call()
        except Refused as error:
            self._refused(run, kind, ItemError(None, run.key, {"": error.detail}))
            return None
        run.last_write = time.monotonic()
        return answer

    def _refused(self, of: RunSync | SessionSync, kind: str, item: ItemError) -> None:
        """Report an item that the site will not have: in the log and, for people, in the run's events.

        The session itself has no events, so what is refused of the acquisition stands in the log alone.
        """
        text = f"The site refused {item}"
        log.warning("%s", text)
        if kind in self.counts.rows:
            self.counts.add(kind, refused=1)
        if kind in ("micrographs", "exposures"):
            of.refused.add(item.name)
        if isinstance(of, RunSync) and kind != "events":
            text = text[:2000]
            if len(of.told_refusals) >= TOLD_REFUSALS and text not in of.told_refusals:
                text = MORE_REFUSED
            if text not in of.told_refusals:
                of.told_refusals.add(text)
                of.events.append(Event("warning", text))

    # pictures

    def _one_picture(self, run: RunSync) -> None:
        if run.known_images is None:
            run.known_images = self._images_there(run)
        identity, picture = run.pictures.popitem()
        micrograph = run.called.get(picture.micrograph or "", picture.micrograph)
        there = identity if picture.kind == "class_average" else (picture.kind, micrograph)
        if there in run.known_images:
            self.counts.add("images", unchanged=1)
            return
        if micrograph in run.refused:
            return  # there is nothing on the site that it could be a picture of
        state = signature(picture.path)
        try:
            data, media_type = _drawn(picture)
        except (OSError, ValueError, MemoryError) as error:
            if picture.fetch is not None:
                run.fetches[identity] = run.fetches.get(identity, 0) + 1
                if run.fetches[identity] >= FETCHES:
                    log.warning("No picture of %s: %s", picture.path, error)
                    return
            elif isinstance(error, FileNotFoundError):
                return  # taken away since
            again = time.monotonic() + TRY_AGAIN if isinstance(error, OSError) else None
            run.unreadable[identity] = (picture, state, again)
            log.warning("No picture of %s yet: %s", picture.path, error)
            return
        of = {"micrograph": micrograph}
        if picture.kind == "class_average":
            of = {"job": picture.job, "iteration": picture.iteration, "number": picture.number}
        try:
            self.client.post_image(run.id, picture.kind, data, media_type, **of)
        except (Refused, NotFound) as error:
            if isinstance(error, NotFound):
                self.client.get_run(run.id)  # not there either: it is the run that is gone
            name = micrograph or f"{picture.job} class {picture.number}"
            self._refused(run, "images", ItemError(None, f"{picture.kind} of {name}", {"": error.detail}))
            return
        except Exception:
            run.pictures[identity] = picture  # not acknowledged: still to be sent
            raise
        run.known_images.add(there)
        run.last_write = time.monotonic()
        self.counts.add("images", created=1)
        self.report(f"{len(run.pictures)} pictures to go")

    def _images_there(self, run: RunSync) -> set[tuple]:
        """Return which pictures the site has: asked once per run and start."""
        there: set[tuple] = set()
        for row in self.client.micrographs(run.id):
            for kind in ("micrograph", "psd"):
                if row.get(f"{kind}_image"):
                    there.add((kind, row.get("name")))
        if any(identity[0] == "class_average" for identity in run.pictures):
            for row in self.client.classes(run.id):
                if row.get("image") or row.get("image_url"):
                    there.add(("class_average", row.get("job"), row.get("iteration"), row.get("number")))
        return there


def _drawn(picture: Picture) -> tuple[bytes, str]:
    """Return the thumbnail and its media type. Raises OSError or ValueError where it cannot be made."""
    section = picture.section or picture.number or 1
    if picture.fetch is None:
        return thumbnail(picture.path, section)
    data = picture.fetch()
    # Drawn from a file as all others are: readers of stacks want one to seek in.
    with tempfile.TemporaryDirectory(prefix="emhub-agent-") as folder:
        path = os.path.join(folder, "picture" + os.path.splitext(picture.path)[1])
        with open(path, "wb") as handle:
            handle.write(data)
        return thumbnail(path, section)


def _same(known: Any, value: Any) -> bool:
    """Whether the site's value is this one; times are the same however their offset is written."""
    if known == value:
        return True
    return isinstance(known, str) and isinstance(value, str) and same_time(known, value)


def _is_more(one: Any, other: Any) -> bool:
    """Whether a number, or a time in ISO 8601, is more than another; what cannot be compared is not."""
    if isinstance(one, str):
        one, other = moment(one), moment(other)
    try:
        return one > other
    except TypeError:
        return False


def _counted(answer: Any) -> dict[str, int]:
    answer = answer if isinstance(answer, dict) else {}
    return {name: int(answer.get(name) or 0) for name in ("created", "updated", "unchanged")}


def renamed(batch: list[dict[str, Any]], called: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the items of a batch under other names where there are such."""
    return [{**row, "name": called.get(row["name"], row["name"])} for row in batch]


def described(info: dict[str, Any]) -> str:
    """A run in a few words: its software and the geometry of its micrographs."""
    text = " ".join(str(info[name]) for name in ("software", "version") if info.get(name))
    if info.get("width") and info.get("height"):
        text += f", {info['width']} × {info['height']} px"
    if info.get("pixel_size"):
        text += f" of {info['pixel_size']:g} Å"
    return text


def _fitting(info: dict[str, Any]) -> dict[str, Any]:
    """Cut text to what the site's fields hold."""
    limits = {"software": 60, "version": 60, "host": 200, "label": 120}
    return {key: value[: limits[key]] if key in limits else value for key, value in info.items()}


def _event_identity(row: dict[str, Any]) -> tuple:
    return (row.get("level"), row.get("text"), moment(row["at"]) if row.get("at") else None)
