"""Where on the grid: squares and the foil holes in them, with how many micrographs each has and their medians."""

import numpy as np
import orjson

from preprocessing import packed, reduction
from preprocessing.histograms import MEASURES
from preprocessing.live import SERIES, dump
from preprocessing.live_words import digits_sent
from preprocessing.models import ProcessingRun
from preprocessing.verdict import bounds_of

#: Beyond so many places people see nothing any more; those with most micrographs are kept.
MOST = 2000


def places(run: ProcessingRun, limits, square: str | None = None) -> orjson.Fragment:
    """The run's grid squares, or the foil holes of one square, each with its micrographs' medians.

    A dictionary of columns of equal length: `name`, `count`, `judged`, `usable`, stage position `x`, `y` (µm, null
    where unknown, the median of its micrographs'), `medians` by quantity in the unit shown; `total` places,
    `unplaced` micrographs of which the place is not known, and `keys`, the quantities there are.
    """
    table = packed.table(run)
    bounds = bounds_of(limits)
    key = ("places", square, tuple(sorted(bounds.items())))
    return orjson.Fragment(table.keep(key, lambda: dump(_places(table, bounds, square))))


def _known(table: packed.Table, kind: str) -> np.ndarray:
    """Of which rows the place of this kind is known: its text is not empty."""
    return np.array([bool(text) for text in table.texts])[table.rows[kind]]


def _places(table: packed.Table, bounds, square: str | None) -> dict:
    keys = [key for key in SERIES if key in table.sent]
    kind = "grid_square" if square is None else "foil_hole"
    inside = np.ones(len(table), dtype=bool)
    if square is not None:
        code = table.texts.index(square) if square and square in table.texts else -1
        inside = table.rows["grid_square"] == code
    rows = np.flatnonzero(inside & _known(table, kind))
    labels = table.rows[kind][rows]
    codes, counts = np.unique(labels, return_counts=True)
    total = len(codes)
    if total > MOST:
        kept = codes[np.argsort(-counts, kind="stable")[:MOST]]
        rows = rows[np.isin(labels, kept)]
        labels = table.rows[kind][rows]
    judged, good = reduction.usable(table, bounds)
    values = {key: table.measure(key)[rows] for key in keys}
    values |= {name: table.column(name)[rows] for name in ("stage_x", "stage_y")}
    codes, counts, medians = reduction.grouped(labels, values)
    place = np.searchsorted(codes, labels)
    return {
        "square": square,
        "keys": keys,
        "total": total,
        "unplaced": int(inside.sum()) - int((inside & _known(table, kind)).sum()),
        "name": table.text(codes),
        "count": counts,
        "judged": np.bincount(place, weights=judged[rows], minlength=len(codes)).astype(np.int64),
        "usable": np.bincount(place, weights=good[rows], minlength=len(codes)).astype(np.int64),
        "x": np.round(medians.pop("stage_x"), 3),
        "y": np.round(medians.pop("stage_y"), 3),
        "medians": {key: np.round(medians[key], digits_sent(key)) for key in keys},
        "units": {key: MEASURES[key].unit for key in keys},
    }
