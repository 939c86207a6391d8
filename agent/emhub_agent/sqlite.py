"""Reading SQLite databases that another program is writing, without that program noticing.

A database is only ever opened for reading, a query at a time, so that the shared lock a reader needs is held
for milliseconds. No file appears beside it: a database in WAL mode, which SQLite cannot read without making
or changing its ``-shm`` file, is read as a still picture where nothing is in its log, and else as a private
copy.

Source of the file format: the SQLite documentation, "Database File Format" and "Uniform Resource
Identifiers".
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from typing import Any

MAGIC = b"SQLite format 3\0"
#: No query on a whole file takes so many seconds; a broken schema can make one that never ends.
LONGEST_QUERY = 60.0
#: The largest database in WAL mode that is copied to be read while it is written.
LARGEST_COPY = 2**30

State = tuple[int, ...]


class Busy(OSError):
    """Another program is writing: as things are now the database cannot be read, later it can."""


class Database:
    """An open database: queries as lists of rows, and what is wrong with it in two kinds of errors."""

    def __init__(self, connection: sqlite3.Connection):
        self.connection = connection
        self._until = 0.0
        connection.set_progress_handler(lambda: int(time.monotonic() > self._until), 10_000)

    def query(self, sql: str, *values: Any) -> list[tuple]:
        """Return all rows; the lock is given back before this returns.

        Raises Busy while another program has the database to itself, OSError where it cannot be read, and
        ValueError where it is broken.
        """
        self._until = time.monotonic() + LONGEST_QUERY
        with _translated():
            try:
                return self.connection.execute(sql, values).fetchall()
            except sqlite3.OperationalError as error:
                if "decode" not in str(error):
                    raise
            # Text that is not UTF-8 is rare, and reading it by a function is slow.
            self.connection.text_factory = lambda data: data.decode("utf-8", "replace")
            return self.connection.execute(sql, values).fetchall()

    def columns(self, table: str) -> set[str]:
        """Return the names of a table's columns; none where there is no such table of the plain kind."""
        for kind, sql in self.query("SELECT type, sql FROM sqlite_master WHERE name = ?", table):
            # A view or a virtual table would run whatever its maker thought of.
            if kind == "table" and isinstance(sql, str) and not sql.upper().startswith("CREATE VIRTUAL"):
                return {str(row[1]) for row in self.query(f"PRAGMA table_info({quoted(table)})")}
        return set()


@contextlib.contextmanager
def opened(path: str, patience: float = 0.25) -> Iterator[Database]:
    """Open a database for reading; ``patience`` is how many seconds a lock is waited for.

    Raises Busy, OSError and ValueError as ``Database.query`` does.
    """
    with open(path, "rb") as handle:
        head = handle.read(100)
    if not head:
        raise ValueError("it is empty so far")
    if not head.startswith(MAGIC) or len(head) < 100:
        raise ValueError("it is not an SQLite database")
    if 2 not in head[18:20]:  # the versions of the format to write and to read: 2 is WAL
        with _connected(path, "mode=ro", patience) as database:
            yield database
    elif _size(f"{path}-wal") == 0:
        before = state_of(path)
        with _connected(path, "mode=ro&immutable=1", patience) as database:
            yield database
        if state_of(path) != before:
            raise Busy("it was written to meanwhile")
    else:
        with _copied(path) as copy, _connected(copy, "mode=rw", patience) as database:
            yield database


class Held:
    """Databases that are kept open from one reading to the next, where many follow one another.

    Between two of them nothing is locked. One that has changed is opened anew, so that what is read is what
    is there; one that another program had to itself is not waited for a second time.
    """

    def __init__(self) -> None:
        self._open: dict[str, tuple[State | None, Database, contextlib.ExitStack]] = {}
        self._busy: dict[str, Busy] = {}

    @contextlib.contextmanager
    def opened(self, path: str, patience: float = 0.25) -> Iterator[Database]:
        """As ``opened``; the database is closed only by ``close``, or when it is found changed."""
        if path in self._busy:
            raise Busy(str(self._busy[path]))
        state = state_of(path)
        if path in self._open and self._open[path][0] != state:
            self._close(path)
        try:
            if path not in self._open:
                stack = contextlib.ExitStack()
                self._open[path] = (state, stack.enter_context(opened(path, patience)), stack)
            yield self._open[path][1]
            if state_of(path) != state:
                _, _, stack = self._open.pop(path)
                stack.close()  # which raises Busy where a database is read that must not change meanwhile
        except Busy as error:
            self._busy[path] = error
            raise

    def close(self) -> None:
        for path in list(self._open):
            self._close(path)

    def _close(self, path: str) -> None:
        _, _, stack = self._open.pop(path)
        # What was read before the change was whole when it was read.
        with contextlib.suppress(Busy):
            stack.close()


def state_of(path: str) -> State | None:
    """Return what changes when a database does (its own file's and its log's inode, time, size), or None."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    state: State = (found.st_ino, found.st_mtime_ns, found.st_size)
    try:
        log = os.stat(f"{path}-wal")
    except OSError:
        return state
    return (*state, log.st_ino, log.st_mtime_ns, log.st_size)


def quoted(name: str) -> str:
    """Return a table's or column's name as SQL writes it."""
    return '"' + name.replace('"', '""') + '"'


@contextlib.contextmanager
def _connected(path: str, options: str, patience: float) -> Iterator[Database]:
    address = f"{pathlib.Path(os.path.abspath(path)).as_uri()}?{options}"
    with _translated():
        connection = sqlite3.connect(
            address, uri=True, timeout=patience, isolation_level=None, check_same_thread=False
        )
    try:
        with _translated():
            connection.execute("PRAGMA query_only=ON")
            connection.execute("PRAGMA trusted_schema=OFF")
        yield Database(connection)
    finally:
        connection.close()


@contextlib.contextmanager
def _copied(path: str) -> Iterator[str]:
    """Yield a private copy of a database and its log. Raises Busy where they changed meanwhile."""
    if _size(path) + _size(f"{path}-wal") > LARGEST_COPY:
        raise Busy("it is in WAL mode, too large to copy, and its log is not written back yet")
    before = state_of(path)
    with tempfile.TemporaryDirectory(prefix="emhub-agent-") as folder:
        copy = os.path.join(folder, "copy.sqlite")
        for end in ("", "-wal"):
            try:
                shutil.copyfile(path + end, copy + end)
            except FileNotFoundError as error:
                raise Busy("its log was written back meanwhile") from error
        if state_of(path) != before:
            raise Busy("it was written to meanwhile")
        yield copy


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, sqlite3.Warning, OverflowError) as error:
        text = str(error)
        if "locked" in text or "busy" in text:
            raise Busy(text) from error
        if "unable to open" in text or "disk I/O" in text or "readonly" in text:
            # Among them a journal that a writer left behind when it died: only a writer may play it back.
            raise OSError(text) from error
        if "interrupted" in text:
            raise ValueError("it takes for ever to read") from error
        raise ValueError(text) from error
