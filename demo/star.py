"""Writing STAR tables the way RELION 5 writes them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

HEADER = "\n# version 50001\n\n"


def value(item: object) -> str:
    """One value, padded as RELION pads it: 13 characters for numbers, text as it is."""
    if isinstance(item, bool):
        return f"{int(item):12d}"
    if isinstance(item, int):
        return f"{item:12d}"
    if isinstance(item, float):
        size = abs(item)
        return f"{item:12.6e}" if size and (size < 1e-3 or size > 1e5) else f"{item:12.6f}"
    text = str(item)
    return f'"{text}"' if not text or any(c.isspace() for c in text) else text


def row(items: Iterable[object]) -> str:
    """One row of a loop, without line end."""
    return " ".join(value(item) for item in items) + " "


def loop(name: str, columns: str, rows: Iterable[str]) -> str:
    """A table ``data_<name>`` with the columns (separated by spaces, without ``_rln``) and ready-made
    rows."""
    heads = "".join(f"_rln{column} #{number} \n" for number, column in enumerate(columns.split(), 1))
    body = "".join(f"{line}\n" for line in rows)
    return f"{HEADER}data_{name}\n\nloop_ \n{heads}{body} \n"


def single(name: str, values: Mapping[str, object]) -> str:
    """A table ``data_<name>`` of one row, written as a list of names and values."""
    body = "".join(f"_rln{key:<40} {value(item):>18}\n" for key, item in values.items())
    return f"{HEADER}data_{name}\n\n{body} \n"


def write(path: Path, text: str) -> None:
    """Replace ``path`` by ``text`` in one step, through a neighbouring ``.tmp`` file, as RELION does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text)
    os.replace(temporary, path)


def rows_of(path: Path, table: str) -> list[str]:
    """The rows, as text, of a loop written by this module; an empty list when there is no such file."""
    try:
        lines = path.read_text().splitlines()
    except FileNotFoundError:
        return []
    try:
        start = lines.index(f"data_{table}")
    except ValueError:
        return []
    rows = []
    for line in lines[start + 1 :]:
        if line.startswith(("data_", "#")):
            break
        if line.strip() and not line.startswith(("loop_", "_rln")):
            rows.append(line)
    return rows
