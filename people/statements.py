"""Plain statements that are asked for all the time, and their rows as the ORM would give them.

The ORM writes its SQL anew at every call, which takes most of the time of a short query. What each call of a
pipeline begins with is written once instead: see microscopes.tokens and preprocessing.api.short.
"""

from collections.abc import Sequence
from functools import cache

from django.db import InterfaceError, OperationalError, connection, models


def fetch_one(sql: str, values: Sequence, columns: tuple[models.Field | None, ...]) -> list | None:
    """The first row of a SELECT outside any transaction, each value as its column (None: as it is) has it.

    A connection that the database closed since its last use is found out by this statement itself, which then runs
    once more on a new one: that spares every call the ORM's question whether anybody is there.
    """
    if connection.in_atomic_block or connection.connection is None:
        return _fetch_one(sql, values, columns)
    asked_before = connection.health_check_done
    connection.health_check_done = True
    try:
        return _fetch_one(sql, values, columns)
    except (OperationalError, InterfaceError):
        if asked_before or connection.is_usable():
            raise
        connection.close()
        return _fetch_one(sql, values, columns)


def _fetch_one(sql, values, columns) -> list | None:
    with connection.cursor() as cursor:
        cursor.execute(sql, values)
        row = cursor.fetchone()
    if row is None:
        return None
    row = list(row)
    convert([row], columns)
    return row


def convert(rows: Sequence[list], columns: tuple[models.Field | None, ...]) -> None:
    """Make Python's values of this database's, in place."""
    for place, converters, expression in _converted(columns, connection.vendor):
        for converter in converters:
            for row in rows:
                row[place] = converter(row[place], expression, connection)


@cache
def _converted(columns: tuple[models.Field | None, ...], vendor: str) -> list[tuple]:
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
