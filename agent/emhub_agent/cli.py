"""The command line: ``emhub-agent relion PROJECT --url URL --session NAME``."""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import signal
import sys
import threading
import time
from typing import Any

from . import __version__
from .client import Client, Conflict, EMhubError, NotAuthorised, NotFound, Stopped, Unreachable
from .readers import READERS
from .readers.base import ReaderError
from .sync import Sync

log = logging.getLogger("emhub_agent")

TOKEN = "EMHUB_TOKEN"

# Exit codes; 2 is argparse's own for a wrong command line.
OK, REFUSED_ITEMS, USAGE, NO_PROJECT, NOT_AUTHORISED, NO_SESSION, UNREACHABLE, CLOSED, OTHER = range(9)

INTERRUPTED = 130

CODES = """exit codes: 0 done or stopped; 1 done, but the site refused some items; 2 wrong command line
or no token; 3 no such project; 4 token refused; 5 no such session; 6 site unreachable (only with --once);
7 the session takes no more results; 8 anything else"""


def parser() -> argparse.ArgumentParser:
    main = argparse.ArgumentParser(
        prog="emhub-agent",
        description="Follow the results of a processing program on disk and post them to an EMhub session.",
        epilog=f"The pipeline's token is taken from the environment variable {TOKEN}. {CODES}",
    )
    main.add_argument("--version", action="version", version=f"emhub-agent {__version__}")
    programs = main.add_subparsers(dest="program", metavar="PROGRAM", required=True)
    for name, reader in READERS.items():
        settings = "".join(f"\n  {key}  {text}" for key, text in reader.SETTINGS.items())
        program = programs.add_parser(
            name,
            help=f"follow {reader.software}",
            description=f"Follow {reader.software}.",
            epilog=f"settings for --set:{settings}" if settings else None,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        program.add_argument(
            "place", metavar="PLACE", help="the project's folder or file, or an address; it is only ever read"
        )
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
        program.add_argument("-v", "--verbose", action="store_true", help="log every batch")
    return main


def _setting(text: str) -> tuple[str, Any]:
    """Return (name, value) of ``name=value``; the value is JSON where it reads as such, else text."""
    name, separator, value = text.partition("=")
    if not separator or not name.strip():
        raise argparse.ArgumentTypeError(f"write {text or 'it'} as name=value")
    try:
        found = json.loads(value)
    except ValueError:
        found = value
    return name.strip(), found


def _seconds(text: str) -> float:
    value = float(text)
    if not 0.1 <= value <= 86400:
        raise argparse.ArgumentTypeError("must be between 0.1 and 86400 seconds")
    return value


class Display:
    """One line that is rewritten where a person looks at a terminal; nothing where a file is written to."""

    def __init__(self) -> None:
        self.stream = sys.stderr
        self.live = self.stream.isatty()
        self._shown = 0.0
        self._width = 0

    def show(self, text: str, now: bool = False) -> None:
        if not self.live or (not now and time.monotonic() - self._shown < 0.1):
            return
        text = text[: max(20, shutil.get_terminal_size().columns - 1)]
        self.stream.write("\r" + text.ljust(self._width))
        self.stream.flush()
        self._width, self._shown = len(text), time.monotonic()

    def clear(self) -> None:
        if self.live and self._width:
            self.stream.write("\r" + " " * self._width + "\r")
            self.stream.flush()
            self._width = 0


class Handler(logging.StreamHandler):
    """Log lines that do not run into the progress line."""

    def __init__(self, display: Display):
        super().__init__(display.stream)
        self.display = display

    def emit(self, record: logging.LogRecord) -> None:
        self.display.clear()
        super().emit(record)


class Agent:
    """One project followed for one session, until it is stopped."""

    def __init__(self, options: argparse.Namespace, token: str):
        self.options = options
        self.display = Display()
        handler = Handler(self.display)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S"))
        log.handlers[:] = [handler]
        log.propagate = False
        log.setLevel(logging.DEBUG if options.verbose else logging.INFO)
        self.stopping = threading.Event()
        self.in_trouble = False
        self.client = Client(
            options.url,
            token,
            attempts=6 if options.once else None,
            wait=self.wait,
            on_trouble=self.trouble,
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

    def trouble(self, text: str | None) -> None:
        """Say in the log once that the site is away and once that it is back; meanwhile on the line."""
        if text is None:
            if self.in_trouble:
                self.in_trouble = False
                log.info("The site answers again.")
            return
        if not self.in_trouble:
            self.in_trouble = True
            log.warning("%s.", text)
        self.display.show(text, now=True)

    def report(self, text: str) -> None:
        if self.stopping.is_set():
            raise Stopped("Stopped.")
        log.debug("%s", text)
        self.display.show(f"{self.options.session}: {text}")

    def run(self) -> int:
        options = self.options
        settings = dict(getattr(options, "settings", ()))
        reader = READERS[options.program](options.place, key=options.key, settings=settings)
        self.sync = Sync(reader, self.client, options.session, self.report)
        log.info("Following %s for session %s on %s.", options.place, options.session, self.client.site)
        self.client.get_session(options.session)
        if options.once:
            return self.once()
        while True:
            next_look = time.monotonic() + options.interval
            self.one_look(next_look)
            self.display.show(self.summary(), now=True)
            if self.stopping.wait(max(0.0, next_look - time.monotonic())):
                raise Stopped("Stopped.")

    def once(self) -> int:
        assert self.sync is not None
        for _ in range(2):
            # The second look sends what grew meanwhile and what was being written at the first.
            self.sync.numbers()
            if not self.options.no_images:
                self.sync.pictures()
        self.display.clear()
        for line in self.sync.counts.lines():
            print(line)
        return REFUSED_ITEMS if self.sync.counts.refused else OK

    def one_look(self, next_look: float) -> None:
        assert self.sync is not None
        self.display.show(f"{self.options.session}: reading the project")
        before = {kind: dict(row) for kind, row in self.sync.counts.rows.items()}
        self.sync.numbers()
        if not self.options.no_images:
            # Numbers come first: pictures get the time until the next look.
            self.sync.pictures(until=next_look)
        changes = []
        for kind, row in self.sync.counts.rows.items():
            count = sum(row[name] - before[kind][name] for name in ("created", "updated"))
            if count:
                changes.append(f"{count} {kind}")
        if changes and not self.display.live:
            log.info("Sent %s.", ", ".join(changes))

    def summary(self) -> str:
        assert self.sync is not None
        rows = self.sync.counts.rows
        text = f"{self.options.session}: {rows['micrographs']['created']} micrographs new, "
        text += f"{rows['micrographs']['updated']} updated, {rows['images']['created']} pictures sent"
        if self.sync.waiting:
            text += f", {self.sync.waiting} to go"
        if self.sync.counts.refused:
            text += f", {self.sync.counts.refused} refused"
        return f"{text}; looked at {time.strftime('%H:%M:%S')}"


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    token = os.environ.get(TOKEN, "").strip()
    if not token:
        print(
            f"emhub-agent: no token. Set the environment variable {TOKEN} to a pipeline token of the site; "
            "the facility's staff make one.",
            file=sys.stderr,
        )
        return USAGE
    try:
        agent = Agent(options, token)
    except EMhubError as error:
        print(f"emhub-agent: {error}", file=sys.stderr)
        return USAGE
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, agent.stop)
    try:
        return agent.run()
    except KeyboardInterrupt:
        return INTERRUPTED
    except Stopped:
        agent.display.clear()
        log.info("Stopped. %s", agent.summary() if agent.sync else "")
        return OK
    except ReaderError as error:
        return agent_error(agent, NO_PROJECT, str(error))
    except NotAuthorised as error:
        return agent_error(agent, NOT_AUTHORISED, f"The site refused the token: {error}")
    except NotFound:
        return agent_error(
            agent,
            NO_SESSION,
            f"There is no session {options.session} on {agent.client.site}, or the token may not see it.",
        )
    except Conflict as error:
        return agent_error(agent, CLOSED, f"The session takes no more results: {error}")
    except Unreachable as error:
        return agent_error(agent, UNREACHABLE, str(error))
    except EMhubError as error:
        return agent_error(agent, OTHER, str(error))
    finally:
        agent.client.close()


def agent_error(agent: Agent, code: int, text: str) -> int:
    agent.display.clear()
    print(f"emhub-agent: {text}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
