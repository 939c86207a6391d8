"""Writing many rows at the speed of the database: plain statements, one round trip, no objects per row.

The ORM's bulk_create is several times slower and bulk_update slower still. Callers hold whatever locks they need.
"""

from collections.abc import Sequence
from functools import cache

from django.db import connection, models


def insert(model: type[models.Model], fields: Sequence[str], rows: Sequence[tuple]) -> None:
    """Insert rows given as tuples in the order of `fields`; every column without a database default must be there."""
    if not rows:
        return
    columns = _columns(model, fields)
    names = ", ".join(connection.ops.quote_name(column.column) for column in columns)
    table = connection.ops.quote_name(model._meta.db_table)
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            with (
                connection.wrap_database_errors,
                cursor.copy(f"COPY {table} ({names}) FROM STDIN") as copy,
            ):
                for row in rows:
                    copy.write_row(row)
        else:
            places = ", ".join(["%s"] * len(columns))
            cursor.executemany(
                f"INSERT INTO {table} ({names}) VALUES ({places})",  # noqa: S608
                _prepared(columns, rows),
            )


def update(model: type[models.Model], fields: Sequence[str], rows: Sequence[tuple]) -> None:
    """Set `fields` of rows given as tuples: the values in that order, then the primary key."""
    if not rows:
        return
    columns = _columns(model, fields)
    quote = connection.ops.quote_name
    table, key = quote(model._meta.db_table), model._meta.pk
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            typed = [*columns, key]
            arrays = ", ".join(f"%s::{column.db_type(connection)}[]" for column in typed)
            names = ", ".join(quote(column.column) for column in typed)
            assignments = ", ".join(f"{quote(c.column)} = new.{quote(c.column)}" for c in columns)
            cursor.execute(
                f"UPDATE {table} AS old SET {assignments} FROM unnest({arrays}) AS new ({names}) "  # noqa: S608
                f"WHERE old.{quote(key.column)} = new.{quote(key.column)}",
                [list(values) for values in zip(*rows, strict=True)],
            )
        else:
            assignments = ", ".join(f"{quote(column.column)} = %s" for column in columns)
            cursor.executemany(
                f"UPDATE {table} SET {assignments} WHERE {quote(key.column)} = %s",  # noqa: S608
                _prepared([*columns, key], rows),
            )


def _columns(model, fields) -> list[models.Field]:
    return [model._meta.get_field(name) for name in fields]


def _prepared(columns: Sequence[models.Field], rows: Sequence[tuple]) -> Sequence[tuple]:
    """SQLite stores times as text of its own: only those columns need preparing."""
    times = [place for place, column in enumerate(columns) if isinstance(column, models.DateTimeField)]
    if not times:
        return rows
    # Most rows of a batch share their time.
    adapt = cache(connection.ops.adapt_datetimefield_value)
    prepared = []
    for row in rows:
        values = list(row)
        for place in times:
            values[place] = adapt(values[place])
        prepared.append(values)
    return prepared
