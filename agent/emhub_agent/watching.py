"""Following many projects at once, each in a thread of its own, so that a dead folder holds up no other.

A watch whose session is given is followed from the start. One without stands for every session that the token
sees and that runs, or ended lately: the site is asked again every minute, what is new is taken up, and what
is archived or long over is dropped.
"""

from __future__ import annotations

import logging
import random
import re
import threading
import time
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any, Callable

from . import __version__
from .client import Client, Conflict, EMhubError, NotAuthorised, NotFound, Stopped, Unreachable, moment
from .config import Config, ConfigError, Watch
from .logs import Display, about
from .readers.base import ReaderError
from .sync import KINDS, Counts, Sync

log = logging.getLogger(__name__)

ASK_AGAIN = 60.0  # seconds between two questions which sessions there are
TELL_EVERY = 60.0  # seconds between two lines of the log about what was sent
RETRY = 60.0  # seconds before something that only people can put right is tried again
#: A session may have begun so many days before it ended; longer ones that ended are not looked for.
LONGEST_SESSION = 14.0
RUNNING = ("pending", "active")
ENDED = ("finished", "failed")

_BRACES = re.compile(r"\{([^{}]*)\}")


# which sessions


def found(client: Client, config: Config) -> list[Watch]:
    """Return the watches whose session is given, and one for each that the site knows of the others.

    Raises what the client raises.
    """
    watches = [watch for watch in config.watches if watch.session is not None]
    templates = [watch for watch in config.watches if watch.session is None]
    if not templates:
        return watches
    now = datetime.now(timezone.utc)
    sessions = list(client.sessions(status=list(RUNNING)))
    since = now - timedelta(days=config.finished_days)
    if config.finished_days:
        started = (since - timedelta(days=LONGEST_SESSION)).isoformat(timespec="seconds")
        for row in client.sessions(status=list(ENDED), after=started):
            end = moment(row.get("end"))
            if end is None or end >= since.timestamp():
                sessions.append(row)
    for template in templates:
        for row in sessions:
            if template.microscopes and not _is_one_of(row.get("microscope"), template.microscopes):
                continue
            place = filled(template.place, row)
            if place is not None:
                watches.append(replace(template, place=place, session=str(row["name"])))
    return list({watch.identity: watch for watch in watches}.values())


def filled(place: str, session: dict[str, Any]) -> str | None:
    """Return a place with its braces filled in for this session, or None where the session does not tell."""
    start = moment(session.get("start"))
    values = {
        "session": session.get("name"),
        "microscope": session.get("microscope"),
        "data_path": session.get("data_path"),
        # In the zone of this machine, where the folders are.
        "date": datetime.fromtimestamp(start).strftime("%Y-%m-%d") if start is not None else None,
    }
    for name in set(_BRACES.findall(place)):
        value = values.get(name)
        # A name is one part of a path and cannot lead elsewhere; only the path of the data is a path.
        if not value or ".." in str(value).split("/") or (name != "data_path" and "/" in str(value)):
            return None
    return _BRACES.sub(lambda match: str(values[match.group(1)]), place)


def _is_one_of(code: Any, codes: Iterable[str]) -> bool:
    return str(code).lower() in {known.lower() for known in codes}


# one of them


class Trouble:
    """The site's absence, told once for all who notice it."""

    def __init__(self) -> None:
        self.text = ""
        self._lock = threading.Lock()
        self._away: set[object] = set()

    def tell(self, who: object, text: str | None) -> None:
        with self._lock:
            was_away = bool(self._away)
            if text is None:
                self._away.discard(who)
                if was_away and not self._away:
                    self.text = ""
                    log.info("The site answers again.")
                return
            self._away.add(who)
            self.text = text
            if not was_away:
                log.warning("%s.", text)


class Follower(threading.Thread):
    """Follows one watch until it is told to stop or its session takes no more."""

    def __init__(self, watch: Watch, config: Config, trouble: Trouble):
        super().__init__(name=str(watch), daemon=True)
        self.watch, self.config, self.trouble = watch, config, trouble
        self.stopping = threading.Event()
        self.is_over = False  # the session takes no more
        self.sync: Sync | None = None
        self.problem = ""
        self._client: Client | None = None
        self._told = Counts()
        self._told_at = -TELL_EVERY

    def stop(self) -> None:
        self.stopping.set()

    def wait(self, seconds: float) -> None:
        if self.stopping.wait(seconds):
            raise Stopped("Stopped.")

    def run(self) -> None:
        with about(str(self.watch), self.watch.session or ""):
            try:
                while not self.is_over:
                    self.one_round()
            except Stopped:
                pass
            finally:
                self.tell_sent(now=True)
                if self._client is not None:
                    self._client.close()
                self.trouble.tell(self, None)

    def one_round(self) -> None:
        """Look once and wait for the next look; what goes wrong is said, and tried again later."""
        start = time.monotonic()
        pause = self.watch.interval
        try:
            self.look(start + self.watch.interval)
        except Stopped:
            raise
        except ReaderError as error:
            self.say(logging.INFO, f"Waiting: {error}")
        except ConfigError as error:
            self.say(logging.ERROR, str(error))
            pause = max(pause, RETRY)
        except NotAuthorised as error:
            # A new token in the same file is taken up without a restart.
            self.say(logging.ERROR, f"The site refused the token: {error}")
            self.close()
            pause = max(pause, RETRY)
        except NotFound:
            self.say(logging.WARNING, "There is no such session on the site, or the token may not see it.")
            pause = max(pause, RETRY)
        except Conflict as error:
            log.info("The session takes no more results, so it is dropped: %s", error)
            self.is_over = True
            return
        except EMhubError as error:
            self.say(logging.ERROR, str(error))
            pause = max(pause, RETRY)
        except Exception:
            # A mistake in here must not end months of watching: begin anew with this one, later.
            log.exception("Something went wrong that should not; %s is begun anew in a minute.", self.watch)
            self.problem, self.sync = "a mistake in the agent, see the log", None
            pause = max(pause, RETRY)
        else:
            if self.problem:
                self.problem = ""
                log.info("Following %s.", self.watch)
        self.wait(max(0.0, start + pause - time.monotonic()))

    def look(self, until: float) -> None:
        if self.sync is None or self._client is None:
            client = self.open()
            session = client.get_session(self.watch.session or "")
            if session.get("status") == "archived":
                raise Conflict(409, "it is archived.")
            if self.sync is None:
                self.sync = Sync(
                    self.watch.reader(),
                    client,
                    self.watch.session or "",
                    self.report,
                    pace=self.watch.pace(),
                )
                self._told = Counts()
                if not self.problem:
                    log.info("Following %s.", self.watch)
            self.sync.client = client
        try:
            self.sync.numbers()
            if self.watch.pictures:
                # Numbers come first: pictures get the time until the next look.
                self.sync.pictures(until=until)
        finally:
            self.tell_sent()

    def tell_sent(self, now: bool = False) -> None:
        """Log what was sent since it was logged last: at once, then once a minute."""
        if self.sync is None or (not now and time.monotonic() - self._told_at < TELL_EVERY):
            return
        changes = self.sync.counts.since(self._told)
        if changes:
            log.info("Sent %s.", ", ".join(changes))
            self._told, self._told_at = self.sync.counts.copy(), time.monotonic()

    def open(self) -> Client:
        if self._client is None:
            self._client = Client(
                self.config.site,
                self.config.token(),
                attempts=None,
                wait=self.wait,
                on_trouble=lambda text: self.trouble.tell(self, text),
                user_agent=f"emhub-agent/{__version__}",
            )
        return self._client

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def report(self, text: str) -> None:
        if self.stopping.is_set():
            raise Stopped("Stopped.")
        log.debug("%s", text)

    def say(self, level: int, text: str) -> None:
        """Log a problem when it is new."""
        if text != self.problem:
            self.problem = text
            log.log(level, "%s", text)


# all of them


class Followers:
    """Everything a configuration asks for, until ``stop``."""

    def __init__(self, config: Config, display: Display):
        self.config, self.display = config, display
        self.trouble = Trouble()
        self.stopping = threading.Event()
        self.followers: dict[tuple, Follower] = {}
        self._over: set[tuple] = set()
        self._lock = threading.Lock()
        self._finds = any(watch.session is None for watch in config.watches)
        self._problem = ""

    def stop(self, *_: object) -> None:
        """Stop after the requests under way; asked a second time, at once."""
        if self.stopping.is_set():
            raise KeyboardInterrupt
        self.stopping.set()

    def run(self, grace: float = 15.0) -> None:
        """Follow until stopped, or until nothing is left to follow."""
        self.take([watch for watch in self.config.watches if watch.session is not None])
        if self._finds:
            threading.Thread(target=self._find, name="finder", daemon=True).start()
        while not self.stopping.wait(0.5):
            self.reap()
            if not self.followers and not self._finds:
                log.info("Nothing is left to follow.")
                break
            self.display.show(self.summary(), now=True)
        with self._lock:
            self.stopping.set()
            followers = list(self.followers.values())
        for follower in followers:
            follower.stop()
        end = time.monotonic() + grace
        for follower in followers:
            # One that hangs on a dead folder is left behind; the process ends without it.
            follower.join(max(0.0, end - time.monotonic()))
        self.display.clear()

    def take(self, watches: list[Watch]) -> None:
        """Follow these, and of those that were found no others."""
        with self._lock:
            if self.stopping.is_set():
                return
            wanted = {watch.identity: watch for watch in watches}
            for identity, watch in wanted.items():
                if identity not in self.followers and identity not in self._over:
                    follower = self.followers[identity] = Follower(watch, self.config, self.trouble)
                    follower.start()
            fixed = {watch.identity for watch in self.config.watches}
            for identity in set(self.followers) - set(wanted) - fixed:
                log.info("%s: its session is over.", self.followers[identity].watch)
                self.followers.pop(identity).stop()
            self._over &= set(wanted) | fixed

    def reap(self) -> None:
        with self._lock:
            for identity, follower in list(self.followers.items()):
                if not follower.is_alive():
                    del self.followers[identity]
                    if follower.is_over:
                        self._over.add(identity)

    def _find(self) -> None:
        while not self.stopping.is_set():
            try:
                with Client(
                    self.config.site,
                    self.config.token(),
                    attempts=1,
                    on_trouble=lambda text: self.trouble.tell(self, text),
                    user_agent=f"emhub-agent/{__version__}",
                ) as client:
                    self.take(found(client, self.config))
            except Unreachable as error:
                self.trouble.tell(self, str(error).rstrip("."))
            except (EMhubError, ConfigError) as error:
                if str(error) != self._problem:
                    log.error("The site was not asked for its sessions: %s", error)
                self._problem = str(error)
            except Exception:
                log.exception("Something went wrong that should not; the site is asked again in a minute.")
            else:
                self._problem = ""
            self.stopping.wait(ASK_AGAIN * random.uniform(0.8, 1.2))

    def summary(self) -> str:
        with self._lock:
            followers = list(self.followers.values())
        syncs = [follower.sync for follower in followers if follower.sync is not None]
        rows = {kind: [sync.counts.rows[kind] for sync in syncs] for kind in KINDS}

        def total(kind: str, *names: str) -> int:
            return sum(row[name] for row in rows[kind] for name in names)

        text = f"{len(followers)} followed: {total('micrographs', 'created')} micrographs new, "
        text += f"{total('micrographs', 'updated')} updated, {total('images', 'created')} pictures"
        exposures = total("exposures", "created")
        text += f", {exposures} exposures" if exposures else ""
        waiting = sum(sync.waiting for sync in syncs)
        text += f", {waiting} to go" if waiting else ""
        refused = sum(sync.counts.refused for sync in syncs)
        text += f", {refused} refused" if refused else ""
        held_up = sum(1 for follower in followers if follower.problem)
        text += f", {held_up} waiting" if held_up else ""
        text += f"; {self.trouble.text}" if self.trouble.text else ""
        return f"{text}; {time.strftime('%H:%M:%S')}"


def once(watch: Watch, client: Client, report: Callable[[str], None]) -> Sync:
    """Send what is there, and what grew meanwhile. Raises what the reader and the client raise."""
    reader = watch.reader()
    sync = Sync(reader, client, watch.session or "", report)
    looks = 0
    while True:
        sync.numbers()
        looks += 1
        # Twice at least: the second look finds what was being written at the first. A reader that keeps
        # pictures back for want of room is asked for them.
        if looks >= 2 and not (watch.pictures and sync.waiting):
            return sync
        if watch.pictures:
            sync.pictures()
        reader.is_patient = False
