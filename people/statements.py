"""Plain statements that are asked for all the time, and their rows as the ORM would give them.

The ORM writes its SQL anew at every call, which takes most of the time of a short query. What each call of a
pipeline begins with is written once instead: see microscopes.tokens and preprocessing.api.short.
"""

from collections.abc import Sequence
from contextlib import contextmanager
from functools import cache, lru_cache

from django.db import DEFAULT_DB_ALIAS, InterfaceError, OperationalError, connection, connections


class Columns(tuple):
    """A model's fields (None: a value as it is), made once and known by identity: Django's are slow to compare."""

    __slots__ = ()
    __hash__ = object.__hash__

    def __eq__(self, other):
        return self is other


class _Plain:
    """A driver's cursor with Django's errors and Django's refusal of a broken transaction, and nothing else of it.

    Django's own wraps, measures and rewrites each statement, which takes as long as running a short one.
    """

    __slots__ = ("_connection", "_driver", "_rewrite")

    def __init__(self, own, driver, rewrite):
        # The thread's connection itself: `connection` looks it up anew at each use, which adds up.
        self._connection, self._driver, self._rewrite = own, driver, rewrite

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._driver.close()

    def execute(self, sql: str, values: Sequence = ()):
        self._connection.validate_no_broken_transaction()
        with self._connection.wrap_database_errors:
            self._driver.execute(self._rewrite(sql), values)

    def executemany(self, sql: str, rows):
        self._connection.validate_no_broken_transaction()
        with self._connection.wrap_database_errors:
            self._driver.executemany(self._rewrite(sql), rows)

    def fetchone(self):
        with self._connection.wrap_database_errors:
            return self._driver.fetchone()

    def fetchall(self):
        with self._connection.wrap_database_errors:
            return self._driver.fetchall()


@lru_cache(maxsize=500)
def _with_question_marks(sql: str) -> str:
    """A statement with Django's %s as SQLite has it. Only placeholders and doubled signs are in it."""
    return sql.replace("%s", "?").replace("%%", "%")


def _as_it_is(sql: str) -> str:
    return sql


def cursor():
    """A cursor for plain statements; on PostgreSQL they are prepared once they have been asked a few times.

    The ORM binds values into the text, so that PostgreSQL plans each statement anew, which takes longer than running
    a short one. OPTIONS has the number of times (prepare_threshold). Where queries are logged or wrapped (tests that
    count them, DEBUG) it is Django's own.
    """
    own = connections[DEFAULT_DB_ALIAS]
    if own.queries_logged or own.execute_wrappers:
        return own.cursor()
    own.close_if_health_check_failed()
    own.ensure_connection()
    driver = own.connection
    if own.vendor == "sqlite":
        return _Plain(own, driver.cursor(), _with_question_marks)
    if own.vendor != "postgresql":
        return own.cursor()
    from django.db.backends.postgresql.base import ServerBindingCursor

    usual, driver.cursor_factory = driver.cursor_factory, ServerBindingCursor
    try:
        return _Plain(own, own.create_cursor(), _as_it_is)
    finally:
        driver.cursor_factory = usual


@contextmanager
def sent_together():
    """Within, PostgreSQL is sent statements without waiting for each: one waits where rows are read, and at the end.

    What a statement is refused is therefore raised by a later one, or by the commit, which waits for its answer.
    """
    if connection.vendor != "postgresql":
        yield
        return
    from psycopg import capabilities

    connection.close_if_health_check_failed()
    connection.ensure_connection()
    if not capabilities.has_pipeline():  # libpq before 14.
        yield
        return
    with connection.wrap_database_errors, connection.connection.pipeline():
        yield


def fetch_one(sql: str, values: Sequence, columns: Columns) -> list | None:
    """The first row of a SELECT outside any transaction, each value as its column (None: as it is) has it.

    A connection that the database closed since its last use is found out by this statement itself, which then runs
    once more on a new one: that spares every call the ORM's question whether anybody is there.
    """
    own = connections[DEFAULT_DB_ALIAS]
    if own.in_atomic_block or own.connection is None:
        return _fetch_one(sql, values, columns)
    asked_before = own.health_check_done
    own.health_check_done = True
    try:
        return _fetch_one(sql, values, columns)
    except (OperationalError, InterfaceError):
        if asked_before or own.is_usable():
            raise
        own.close()
        return _fetch_one(sql, values, columns)


def _fetch_one(sql, values, columns) -> list | None:
    with cursor() as asked:
        asked.execute(sql, values)
        row = asked.fetchone()
    if row is None:
        return None
    row = list(row)
    convert([row], columns)
    return row


def convert(rows: Sequence[list], columns: Columns) -> None:
    """Make Python's values of this database's, in place."""
    own = connections[DEFAULT_DB_ALIAS]
    for place, converters, expression in _converted(columns, own.vendor):
        for converter in converters:
            for row in rows:
                row[place] = converter(row[place], expression, own)


@cache
def _converted(columns: Columns, vendor: str) -> list[tuple]:
    """The places of a row at which this database's values are not Python's, and what makes them so."""
    found = []
    for place, column in enumerate(columns):
        if column is None:
            continue
        expression = column.get_col(column.model._meta.db_table)
        converters = [
            *connection.ops.get_db_converters(expression),
            *expression.get_db_converters(connection),
        ]
        if converters:
            found.append((place, converters, expression))
    return found
