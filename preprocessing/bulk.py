"""Reading and writing many rows at the speed of the database: plain statements, one round trip, no objects per row.

The ORM's bulk_create is several times slower and bulk_update slower still. On PostgreSQL a column travels as one
array literal, which the server takes apart; on SQLite one statement is prepared and run for each row. Callers hold
whatever locks they need.
"""

# ruff: noqa: S608 (only names of the models' own tables and columns are written into statements)

from collections.abc import Iterable, Sequence
from functools import cache

import orjson
from django.db import connection, models

from people import statements
from people.statements import Columns

# SQLite's own limit for parameters of one statement, in every version that has RETURNING.
_MOST_PARAMETERS = 32_000


def insert(
    model: type[models.Model], fields: Sequence[str], rows: Sequence[tuple], returning: Sequence[str] = ()
) -> list[tuple]:
    """Insert rows given as tuples in the order of `fields`; every column without a database default must be there.

    Answers the columns `returning` of the new rows, in any order.
    """
    if not rows:
        return []
    columns = _columns(model, fields)
    names = _names(columns)
    table = _table(model)
    told = f" RETURNING {_names(_columns(model, returning))}" if returning else ""
    with statements.cursor() as cursor:
        if connection.vendor == "postgresql":
            arrays, values = _arrays(columns, rows)
            cursor.execute(f"INSERT INTO {table} ({names}) SELECT * FROM unnest({arrays}){told}", values)
            return cursor.fetchall() if returning else []
        row_of_places = f"({', '.join(['%s'] * len(columns))})"
        rows = _prepared(columns, rows)
        if not returning:
            cursor.executemany(f"INSERT INTO {table} ({names}) VALUES {row_of_places}", rows)
            return []
        found = []
        step = _MOST_PARAMETERS // len(columns)
        for first in range(0, len(rows), step):
            part = rows[first : first + step]
            places = ", ".join([row_of_places] * len(part))
            cursor.execute(
                f"INSERT INTO {table} ({names}) VALUES {places}{told}",
                [value for row in part for value in row],
            )
            found += cursor.fetchall()
        return found


def update(model: type[models.Model], fields: Sequence[str], rows: Sequence[tuple]) -> None:
    """Set `fields` of rows given as tuples: the values in that order, then the primary key."""
    if not rows:
        return
    columns = _columns(model, fields)
    table, key = _table(model), model._meta.pk
    with statements.cursor() as cursor:
        if connection.vendor == "postgresql":
            typed = _with_key(model, columns)
            arrays, values = _arrays(typed, rows)
            assignments = ", ".join(f"{_quote(c.column)} = new.{_quote(c.column)}" for c in columns)
            cursor.execute(
                f"UPDATE {table} AS old SET {assignments} FROM unnest({arrays}) AS new ({_names(typed)}) "
                f"WHERE old.{_quote(key.column)} = new.{_quote(key.column)}",
                values,
            )
        else:
            cursor.executemany(
                f"UPDATE {table} SET {_assignments(columns)} WHERE {_quote(key.column)} = %s",
                _prepared(_with_key(model, columns), rows),
            )


def select(
    model: type[models.Model], fields: Sequence[str], rest: str, values: Sequence, *, lock: bool = False
) -> list[dict]:
    """Columns of a model's rows as the ORM would give them; `rest` is the statement from WHERE on.

    With `lock` the rows are locked until the transaction ends, where the database has such locks.
    """
    columns = _columns(model, fields)
    lock_words = " FOR UPDATE" if lock and connection.features.has_select_for_update else ""
    with statements.cursor() as cursor:
        cursor.execute(f"SELECT {_names(columns)} FROM {_table(model)} {rest}{lock_words}", values)
        rows = [list(row) for row in cursor.fetchall()]
    statements.convert(rows, columns)
    return [dict(zip(fields, row, strict=True)) for row in rows]


def objects(
    model: type[models.Model],
    rest: str,
    values: Sequence,
    *,
    lock: bool = False,
    without: frozenset[str] = frozenset(),
) -> list[models.Model]:
    """The same as whole objects, or without the columns named, which the ORM fetches if they are asked for."""
    names = _concrete(model, without)
    rows = select(model, names, rest, values, lock=lock)
    return [model.from_db(connection.alias, names, row.values()) for row in rows]


@cache
def _concrete(model, without: frozenset[str]) -> tuple[str, ...]:
    return tuple(f.attname for f in model._meta.concrete_fields if f.attname not in without)


def write(*changes: tuple[models.Model, Iterable[str]]) -> None:
    """Save columns of objects that are known to be there, each given with their names. No signals.

    PostgreSQL takes all of them as one statement: no two may be of one row.
    """
    if not changes:
        return
    parts, values = [], []
    for row, fields in changes:
        model = type(row)
        columns = _columns(model, fields)
        parts.append(
            f"UPDATE {_table(model)} SET {_assignments(columns)} WHERE {_quote(model._meta.pk.column)} = %s"
        )
        values.append([*(_saved(column, getattr(row, column.attname)) for column in columns), row.pk])
    with statements.cursor() as cursor:
        if connection.vendor == "postgresql":
            *first, last = parts
            before = ", ".join(f"w{number} AS ({part})" for number, part in enumerate(first))
            cursor.execute(
                f"WITH {before} {last}" if before else last, [each for one in values for each in one]
            )
        else:
            for part, its in zip(parts, values, strict=True):
                cursor.execute(part, its)


@cache
def _assignments(columns: Columns) -> str:
    return ", ".join(f"{_quote(column.column)} = %s" for column in columns)


def _jsonb(value):
    from psycopg.types.json import Jsonb

    return Jsonb(value, dumps=orjson.dumps)


_AS_IT_IS = (models.IntegerField, models.FloatField, models.BooleanField, models.CharField)


def _saved(column: models.Field, value):
    """A value as the database's driver takes it."""
    if isinstance(column, _AS_IT_IS):
        return value
    if isinstance(column, models.JSONField):
        if connection.vendor == "postgresql":
            return _jsonb(value)
        return orjson.dumps(value).decode()
    return column.get_db_prep_save(value, connection=connection)


def select_texts(sql: str, texts: Iterable[str], values: Sequence) -> list[tuple]:
    """Rows of `sql`, in which {wanted} stands for a table of one column, `value`, with these texts.

    `values` are the statement's other parameters, which come after it. The table is meant to come first, so that
    each text is looked up by an index, however the planner estimates their number.
    """
    texts = list(texts)
    if connection.vendor == "postgresql":
        if len(texts) == 1:
            # Of an array PostgreSQL expects several rows, and therefore plans the statement anew each time.
            wanted, packed = "(SELECT %s::text AS value) AS wanted", texts[0]
        else:
            wanted, packed = "unnest(%s::text[]) AS wanted (value)", _literal(texts, models.TextField())
    else:
        wanted, packed = "json_each(%s) AS wanted", orjson.dumps(texts).decode()
    with statements.cursor() as cursor:
        cursor.execute(sql.format(wanted=wanted), [packed, *values])
        return cursor.fetchall()


def _columns(model, fields: Sequence[str]) -> Columns:
    return _columns_of(model, tuple(fields))


@cache
def _columns_of(model, fields: tuple[str, ...]) -> Columns:
    return Columns(model._meta.pk if name == "pk" else model._meta.get_field(name) for name in fields)


@cache
def _with_key(model, columns: Columns) -> Columns:
    return Columns((*columns, model._meta.pk))


@cache
def _names(columns: Columns) -> str:
    return ", ".join(_quote(column.column) for column in columns)


@cache
def _table(model) -> str:
    return _quote(model._meta.db_table)


def _quote(name: str) -> str:
    """As both databases do; their own functions are asked for by way of the connection's thread each time."""
    return f'"{name}"'


def _arrays(columns: Columns, rows: Sequence[tuple]) -> tuple[str, list[str]]:
    """Placeholders, each cast to an array of its column's type, and for each the column's values in one literal."""
    by_column = zip(columns, zip(*rows, strict=True), strict=True)
    return _array_types(columns), [_literal(values, column) for column, values in by_column]


@cache
def _array_types(columns: Columns) -> str:
    return ", ".join(f"%s::{_cast_type(column)}[]" for column in columns)


def _cast_type(column: models.Field) -> str:
    # A length belongs to the column: a cast would cut silently what the column refuses.
    kind = column.db_type(connection)
    return "varchar" if kind.startswith("varchar") else kind


def _literal(values: Sequence, column: models.Field) -> str:
    """PostgreSQL's text form of an array: documented under "Array Input and Output Syntax"."""
    if isinstance(column, models.CharField | models.TextField):
        parts = (_quoted(value) for value in values)
    elif isinstance(column, models.DateTimeField):
        # Most rows of a batch share their time.
        written = cache(lambda value: "NULL" if value is None else f'"{value.isoformat()}"')
        parts = (written(value) for value in values)
    elif isinstance(column, models.BinaryField):
        parts = ("NULL" if value is None else f'"\\\\x{value.hex()}"' for value in values)
    else:
        # Numbers and truth values are written alike in JSON, null too; floats to their last bit.
        return "{" + orjson.dumps(values).decode()[1:-1] + "}"
    return "{" + ",".join(parts) + "}"


def _quoted(text: str | None) -> str:
    if text is None:
        return "NULL"
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


@cache
def _times(columns: Columns) -> list[int]:
    return [place for place, column in enumerate(columns) if isinstance(column, models.DateTimeField)]


def _prepared(columns: Columns, rows: Sequence[tuple]) -> Sequence[tuple]:
    """SQLite stores times as text of its own: only those columns need preparing."""
    times = _times(columns)
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
