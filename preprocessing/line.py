"""One at a time, and those who wait go together: how posts of many pipelines share SQLite's single writer.

SQLite lets one connection write at a time. Others ask again and again, at growing intervals, which leaves the
database idle between two and keeps the unlucky one waiting for long; and each commit waits for the disk. Here whoever
wants to write stands in a line instead, first the threads of a process, then the processes (by a lock on a file
beside the database, which the kernel gives up with its holder's life). The first of a process does the work of all
that stand behind it at that moment: one transaction, one commit, a savepoint for each, so that what one is refused
touches nobody else's. Nobody is answered before that commit; if it fails, it fails for all of them. The line orders
only those who stand in it: that no other write is lost or mixed up is SQLite's own lock's doing, as ever.

PostgreSQL has as many writers as there are runs, and joins their commits itself.
"""

import fcntl
import os
import threading
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from django.db import DatabaseError, connection, transaction

T = TypeVar("T")
MOST_AT_ONCE = 50


@dataclass(slots=True, eq=False)
class _Work:
    do: Callable[[], Any]
    result: Any = None
    error: BaseException | None = None
    is_done: bool = False


class Line:
    """The line in front of one database."""

    def __init__(self, path: str):
        self._path = path
        self._file: int | None = None
        self._turn = threading.Lock()
        self._waiting: list[_Work] = []

    def wait(self, do: Callable[[], T]) -> T:
        """What `do` answers once it is committed; raises what it, or the commit, raises. `do` is atomic by itself."""
        mine = _Work(do)
        self._waiting.append(mine)
        with self._turn:
            while not mine.is_done:
                together = self._waiting[:MOST_AT_ONCE]
                del self._waiting[: len(together)]
                self._do(together)
        if mine.error is not None:
            raise mine.error
        return mine.result

    def _do(self, together: list[_Work]) -> None:
        try:
            with self._among_processes():
                if len(together) == 1:
                    together[0].result = together[0].do()
                    return
                with transaction.atomic():
                    for work in together:
                        try:
                            work.result = work.do()  # Its own atomic is a savepoint of this transaction.
                        except Exception as error:
                            work.error = error
                    if transaction.get_rollback() or not connection.connection.in_transaction:
                        # SQLite itself has given up the whole of it, as it does when the disk is full.
                        raise DatabaseError("Nothing of this transaction was stored.")
        except BaseException as error:
            for work in together:
                work.error = work.error or error
        finally:
            for work in together:
                work.is_done = True

    @contextmanager
    def _among_processes(self):
        if self._file is None:
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)


_lines: dict[str, Line] = {}
_making = threading.Lock()
# Children of a fork would share the open file and with it the lock.
os.register_at_fork(after_in_child=_lines.clear)


def in_line(do: Callable[[], T]) -> T:
    """`do()`, which is atomic by itself, alone or in one commit with others; within a transaction simply `do()`."""
    if connection.vendor != "sqlite" or connection.in_atomic_block or connection.is_in_memory_db():
        return do()
    name = str(connection.settings_dict["NAME"])
    line = _lines.get(name)
    if line is None:
        with _making:
            line = _lines.setdefault(name, Line(f"{name}-line"))
    return line.wait(do)
