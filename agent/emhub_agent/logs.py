"""What the agent says: log lines for people or for machines, and one line of progress in a terminal."""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timezone

log = logging.getLogger("emhub_agent")

_watched = threading.local()


@contextlib.contextmanager
def about(watch: str, session: str) -> Iterator[None]:
    """What this thread logs meanwhile is about this watch and session."""
    _watched.value = (watch, session)
    try:
        yield
    finally:
        _watched.value = None


class Display:
    """One line that is rewritten where a person looks at a terminal; nothing where a file is written to."""

    def __init__(self) -> None:
        self.stream = sys.stderr
        self.live = self.stream.isatty()
        self._lock = threading.RLock()
        self._shown = 0.0
        self._width = 0

    def show(self, text: str, now: bool = False) -> None:
        if not self.live or (not now and time.monotonic() - self._shown < 0.1):
            return
        with self._lock:
            text = text[: max(20, shutil.get_terminal_size().columns - 1)]
            self.stream.write("\r" + text.ljust(self._width))
            self.stream.flush()
            self._width, self._shown = len(text), time.monotonic()

    def clear(self) -> None:
        with self._lock:
            if self.live and self._width:
                self.stream.write("\r" + " " * self._width + "\r")
                self.stream.flush()
                self._width = 0


class Handler(logging.StreamHandler):
    """Log lines that do not run into the progress line, and know what they are about."""

    def __init__(self, display: Display):
        super().__init__(display.stream)
        self.display = display

    def emit(self, record: logging.LogRecord) -> None:
        record.watched = getattr(_watched, "value", None)
        self.display.clear()
        super().emit(record)


class Plain(logging.Formatter):
    """For people: time in the machine's zone, level, what it is about, the words."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:
        watched = getattr(record, "watched", None)
        if watched:
            record.message = f"{watched[1]} ({watched[0]}): {record.message}"
        return super().formatMessage(record)


class Json(logging.Formatter):
    """For machines: one JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, timezone.utc)
        row = {
            "time": at.isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        watched = getattr(record, "watched", None)
        if watched:
            row["watch"], row["session"] = watched
        if record.exc_info:
            row["error"] = self.formatException(record.exc_info)
        return json.dumps(row, ensure_ascii=False)


def set_up(is_verbose: bool, kind: str = "text") -> Display:
    """Let all that the agent logs go to standard error, as ``text`` or ``json``; return the progress line."""
    display = Display()
    if kind == "json":
        display.live = False  # a line of progress would be no JSON
    handler = Handler(display)
    handler.setFormatter(Json() if kind == "json" else Plain())
    log.handlers[:] = [handler]
    log.propagate = False
    log.setLevel(logging.DEBUG if is_verbose else logging.INFO)
    return display
