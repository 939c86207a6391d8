"""The command line.

``emhub-agent run CONFIG`` follows what a configuration file names, ``check`` and ``once`` try it out, and
``emhub-agent relion PROJECT --url URL --session NAME`` follows one project without a file.
"""

from __future__ import annotations

import argparse
import json
import logging
import signal
import sys
import threading
import time
from typing import Any, Callable

from . import __version__, watching
from .check import Check
from .client import Client, Conflict, EMhubError, NotAuthorised, NotFound, Stopped, Unreachable
from .config import INTERVAL, TOKEN, Config, ConfigError, Watch, load
from .logs import Display, about, set_up
from .readers import READERS
from .readers.base import ReaderError
from .sync import Sync

log = logging.getLogger("emhub_agent")

# Exit codes; 2 is argparse's own for a wrong command line.
OK, PROBLEMS, USAGE, NO_PROJECT, NOT_AUTHORISED, NO_SESSION, UNREACHABLE, CLOSED, OTHER = range(9)

INTERRUPTED = 130

CODES = """exit codes: 0 done or stopped; 1 done, but the site refused some items, or check found problems;
2 wrong command line or configuration, or no token; 3 nothing to read there; 4 token refused; 5 no such
session; 6 site unreachable (only where it ends by itself); 7 the session takes no more results; 8 anything
else"""


def parser() -> argparse.ArgumentParser:
    main = argparse.ArgumentParser(
        prog="emhub-agent",
        description="Follow what programs leave on disk and post it to the sessions of an EMhub site.",
        epilog=f"Without a configuration file the token is that of the environment variable {TOKEN}. {CODES}",
    )
    main.add_argument("--version", action="version", version=f"emhub-agent {__version__}")
    commands = main.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, words in (
        ("run", "follow everything a configuration file names, until stopped"),
        ("check", "say what a configuration would send; nothing is stored"),
        ("once", "send what is there for everything a configuration file names, and end"),
    ):
        command = commands.add_parser(name, help=words, description=f"{words[0].upper()}{words[1:]}.")
        command.add_argument("config", metavar="CONFIG", help="the configuration file (TOML)")
        _logging(command)
    for name, reader in READERS.items():
        settings = "".join(f"\n  {key}: {text}" for key, text in reader.SETTINGS.items())
        program = commands.add_parser(
            name,
            help=f"follow one {reader.software} project without a configuration file",
            description=f"Follow {reader.software}.",
            epilog=f"settings for --set:{settings}" if settings else None,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        program.add_argument(
            "place", metavar="PLACE", help="the project's folder or file, or an address; it is only ever read"
        )
        program.add_argument("--url", required=True, help="the site's address, as in the browser")
        program.add_argument("--session", required=True, metavar="NAME", help="the session's name")
        program.add_argument("--once", action="store_true", help="post what is there and end")
        program.add_argument(
            "--interval", type=_seconds, default=10.0, metavar="S", help="seconds between looks (default 10)"
        )
        program.add_argument(
            "--key",
            metavar="NAME",
            help="what the project is known by on the site (default: the folder's name); give one where two "
            "projects of the same name belong to one session",
        )
        program.add_argument("--no-images", action="store_true", help="post numbers only")
        if reader.SETTINGS:
            program.add_argument(
                "--set",
                type=_setting,
                action="append",
                default=[],
                dest="settings",
                metavar="NAME=VALUE",
                help="one of the settings below; may be given several times",
            )
        _logging(program)
    return main


def _logging(command: argparse.ArgumentParser) -> None:
    command.add_argument("-v", "--verbose", action="store_true", help="log every batch")
    command.add_argument(
        "--log", choices=("text", "json"), default="text", help="log lines for people or for machines"
    )


def _setting(text: str) -> tuple[str, Any]:
    """Return (name, value) of ``name=value``; the value is JSON where it reads as such, else text."""
    name, separator, value = text.partition("=")
    if not separator or not name.strip():
        raise argparse.ArgumentTypeError(f"{text!r} is not name=value")
    try:
        found = json.loads(value)
    except ValueError:
        found = value
    return name.strip(), found


def _seconds(text: str) -> float:
    value = float(text)
    if not INTERVAL[0] <= value <= INTERVAL[1]:
        raise argparse.ArgumentTypeError(f"must be between {INTERVAL[0]:g} and {INTERVAL[1]:g} seconds")
    return value


class Agent:
    """One project followed for one session, until it is stopped."""

    def __init__(self, watch: Watch, config: Config, display: Display, is_once: bool = False):
        self.watch, self.display, self.is_once = watch, display, is_once
        self.stopping = threading.Event()
        self.trouble = watching.Trouble()
        self.client = Client(
            config.site,
            config.token(),
            attempts=6 if is_once else None,
            wait=self.wait,
            on_trouble=self.tell,
            user_agent=f"emhub-agent/{__version__}",
        )
        self.sync: Sync | None = None

    def stop(self, *_: object) -> None:
        """Stop after the request under way; asked a second time, at once."""
        if self.stopping.is_set():
            raise KeyboardInterrupt
        self.stopping.set()

    def wait(self, seconds: float) -> None:
        if self.stopping.wait(seconds):
            raise Stopped("Stopped.")

    def tell(self, text: str | None) -> None:
        self.trouble.tell(self, text)
        if text:
            self.display.show(text, now=True)

    def report(self, text: str) -> None:
        if self.stopping.is_set():
            raise Stopped("Stopped.")
        log.debug("%s", text)
        self.display.show(f"{self.watch.session}: {text}")

    def run(self) -> int:
        session = self.watch.session or ""
        if self.is_once:
            self.client.get_session(session)
            self.sync = watching.once(self.watch, self.client, self.report)
            self.display.clear()
            for line in self.sync.counts.lines():
                print(line)
            return PROBLEMS if self.sync.counts.refused else OK
        self.sync = Sync(self.watch.reader(), self.client, session, self.report, pace=self.watch.pace())
        log.info("Following %s for session %s on %s.", self.watch.place, session, self.client.site)
        self.client.get_session(session)
        while True:
            next_look = time.monotonic() + self.watch.interval
            self.one_look(next_look)
            self.display.show(self.summary(), now=True)
            self.wait(max(0.0, next_look - time.monotonic()))

    def one_look(self, next_look: float) -> None:
        assert self.sync is not None
        self.display.show(f"{self.watch.session}: reading")
        before = self.sync.counts.copy()
        self.sync.numbers()
        if self.watch.pictures:
            # Numbers come first: pictures get the time until the next look.
            self.sync.pictures(until=next_look)
        changes = self.sync.counts.since(before)
        if changes and not self.display.live:
            log.info("Sent %s.", ", ".join(changes))

    def summary(self) -> str:
        assert self.sync is not None
        rows = self.sync.counts.rows
        text = f"{self.watch.session}: {rows['micrographs']['created']} micrographs new, "
        text += f"{rows['micrographs']['updated']} updated, {rows['images']['created']} pictures sent"
        if rows["exposures"]["created"]:
            text += f", {rows['exposures']['created']} exposures"
        if self.sync.waiting:
            text += f", {self.sync.waiting} to go"
        if self.sync.counts.refused:
            text += f", {self.sync.counts.refused} refused"
        return f"{text}; looked at {time.strftime('%H:%M:%S')}"


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    display = set_up(options.verbose, options.log)
    try:
        if options.command in READERS:
            return follow_one(options, display)
        config = load(options.config)
        if options.command == "run":
            return run(config, display)
        return {"check": check, "once": once}[options.command](config, display)
    except ConfigError as error:
        display.clear()
        for problem in error.problems:
            print(f"emhub-agent: {problem}", file=sys.stderr)
        return USAGE


def follow_one(options: argparse.Namespace, display: Display) -> int:
    watch = Watch(
        program=options.command,
        place=options.place,
        session=options.session,
        key=options.key,
        interval=options.interval,
        pictures=not options.no_images,
        settings=dict(getattr(options, "settings", ())),
    )
    config = Config(options.url, (watch,))
    try:
        agent = Agent(watch, config, display, options.once)
    except EMhubError as error:
        return said(display, USAGE, str(error))
    _on_signals(agent.stop)
    try:
        code = guarded(agent.run, display, watch, agent.client)
    except Stopped:
        display.clear()
        log.info("Stopped. %s", agent.summary() if agent.sync else "")
        return OK
    finally:
        agent.client.close()
    return code


def run(config: Config, display: Display) -> int:
    config.token()  # said now rather than by every watch
    followers = watching.Followers(config, display)
    _on_signals(followers.stop)
    log.info("Following %d watches of the configuration for %s.", len(config.watches), config.site)
    try:
        followers.run()
    except KeyboardInterrupt:
        return INTERRUPTED
    display.clear()
    log.info("Stopped.")
    return OK


def once(config: Config, display: Display) -> int:
    """Send what is there of every watch; return the worst code."""
    worst = OK
    with _client(config) as client:
        watches: list[Watch] = []
        code = guarded(lambda: watches.extend(watching.found(client, config)) or OK, display, None, client)
        for watch in watches:

            def one(watch: Watch = watch) -> int:
                client.get_session(watch.session or "")
                with about(str(watch), watch.session or ""):
                    sync = watching.once(watch, client, lambda text: display.show(f"{watch.session}: {text}"))
                display.clear()
                print(f"{watch.session} ({watch})")
                for line in sync.counts.lines():
                    print(f"  {line}")
                return PROBLEMS if sync.counts.refused else OK

            worst = max(worst, guarded(one, display, watch, client))
        if code == OK and not watches:
            print("No session is found to send anything for.")
    return max(worst, code)


def check(config: Config, display: Display) -> int:
    with _client(config) as client:
        examined = Check(config, client)
        return guarded(lambda: PROBLEMS if examined.run() else OK, display, None, client)


def _client(config: Config) -> Client:
    try:
        return Client(config.site, config.token(), attempts=6, user_agent=f"emhub-agent/{__version__}")
    except EMhubError as error:
        raise ConfigError([str(error)]) from error


def guarded(call: Callable[[], int], display: Display, watch: Watch | None, client: Client) -> int:
    """Return what ``call`` returns, or the exit code of what went wrong, having said it."""
    try:
        return call()
    except KeyboardInterrupt:
        return INTERRUPTED
    except Stopped:
        raise
    except ReaderError as error:
        return said(display, NO_PROJECT, str(error))
    except NotAuthorised as error:
        return said(display, NOT_AUTHORISED, f"The site refused the token: {error}")
    except NotFound:
        session = watch.session if watch else "asked for"
        text = f"There is no session {session} on {client.site}, or the token may not see it."
        return said(display, NO_SESSION, text)
    except Conflict as error:
        return said(display, CLOSED, f"The session takes no more results: {error}")
    except Unreachable as error:
        return said(display, UNREACHABLE, str(error))
    except EMhubError as error:
        return said(display, OTHER, str(error))


def said(display: Display, code: int, text: str) -> int:
    display.clear()
    print(f"emhub-agent: {text}", file=sys.stderr)
    return code


def _on_signals(stop: Callable[..., None]) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)


if __name__ == "__main__":
    sys.exit(main())
