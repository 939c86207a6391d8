"""Doing the same thing many times at once, for real: threads with connections of their own, on a database on disk."""

import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from django.db import connection, connections


@contextmanager
def shared_database(folder):
    """Within, other threads' connections see the test's committed rows.

    Where SQLite's test database lives in memory, locks are not those of a file: threads get a copy on disk, so
    afterwards rows are to be read in a thread too (`in_thread`). Needs `django_db(transaction=True)`.
    """
    if connection.vendor != "sqlite" or not connection.is_in_memory_db():
        yield
        return
    connection.ensure_connection()
    path = folder / "shared.sqlite3"
    target = sqlite3.connect(path)
    connection.connection.backup(target)
    target.close()
    before = connections.settings["default"]
    connections.settings["default"] = before | {"NAME": str(path)}
    try:
        yield
    finally:
        connections.settings["default"] = before


def at_once(count: int, function) -> list:
    """`function(n)` for n in range(count) in as many threads, begun together; answers results or exceptions."""
    barrier = threading.Barrier(count)

    def work(n):
        try:
            barrier.wait(timeout=30)
            return function(n)
        except Exception as error:
            return error
        finally:
            connections.close_all()

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(work, range(count)))


def in_thread(function):
    """The function's result, computed in a thread of its own (see shared_database)."""
    (result,) = at_once(1, lambda n: function())
    if isinstance(result, Exception):
        raise result
    return result
