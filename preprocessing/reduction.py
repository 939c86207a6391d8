"""Many rows as few points that keep what people look for: extremes, medians, shapes. Pure sums over a packed.Table.

A chart gets every row as long as there are at most WHOLE of them. Beyond that the rows are cut into buckets along
the axis, and of each bucket the first, the last and those with the least and greatest value of any quantity are
sent, so that no spike is ever lost; the newest TAIL are always sent whole. The line through them is the median of
every bucket, taken over all of its rows. Zooming in asks for the rows of that range, by the same rule.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from preprocessing.histograms import MEASURES
from preprocessing.packed import ACCEPTED_BY_HAND, REJECTED, REJECTED_BY_HAND, Table

#: Up to so many rows are sent as they are.
WHOLE = 3000
#: Beyond: how many rows the buckets may send together, about, and how many of the newest are sent whole.
BUDGET = 2400
TAIL = 300
LEAST_BUCKETS = 60
#: Rows whose median is the line of the newest.
MEDIAN_OF = 31
#: Cells of a scatter: one point is sent for each that has any.
CELLS = (160, 120)
HOUR = 3600
#: Bars of the throughput are as wide as the first of these (s) that makes at most so many.
WIDTHS = (600, HOUR, 3 * HOUR, 6 * HOUR, 24 * HOUR)
MOST_BARS = 48
#: Beam shifts further apart than this share of their spread belong to different groups.
GAP = 1 / 36


@dataclass(frozen=True)
class View:
    """Which rows are looked at, and along which axis: "number" or "time" (s since 1970)."""

    axis: str = "number"
    start: float | None = None
    stop: float | None = None

    @property
    def is_all(self) -> bool:
        return self.start is None and self.stop is None


def along(table: Table, axis: str) -> tuple[np.ndarray, np.ndarray]:
    """Places of the rows along an axis, and the axis' value at each."""

    def make():
        if axis == "number":
            return table.order, np.arange(1, len(table) + 1)
        # Rows of one second stay in the order of their exposures.
        order = table.order[np.argsort(table.time[table.order], kind="stable")]
        return order, table.time[order]

    return table.keep(("along", axis), make)


def seen(table: Table, view: View) -> tuple[np.ndarray, np.ndarray]:
    """The same for the rows in view; both ends belong to it."""
    order, x = along(table, view.axis)
    first = 0 if view.start is None else int(np.searchsorted(x, view.start, side="left"))
    last = len(x) if view.stop is None else int(np.searchsorted(x, view.stop, side="right"))
    return order[first:last], x[first:last]


def chosen(table: Table, order: np.ndarray, keys: Sequence[str], tail: int = TAIL) -> np.ndarray:
    """Which of the rows at `order` are sent: ascending places in `order`."""
    count = len(order)
    if count <= WHOLE:
        return np.arange(count)
    tail = min(tail, count)
    body = count - tail
    buckets = max(LEAST_BUCKETS, BUDGET // (2 * len(keys) + 2))
    width = -(-body // buckets)
    starts = np.arange(0, body, width)
    picked = [starts, np.minimum(starts + width, body) - 1, np.arange(body, count)]
    for key in keys:
        values = _buckets(table.measure(key)[order[:body]], width)
        known = ~np.isnan(values).all(axis=1)
        for fill, pick in ((np.inf, np.argmin), (-np.inf, np.argmax)):
            places = pick(np.where(np.isnan(values), fill, values), axis=1)
            picked.append((starts + places)[known])
    return np.unique(np.concatenate(picked))


def _buckets(values: np.ndarray, width: int) -> np.ndarray:
    """Values as rows of `width`, the last one filled up with NaN."""
    full = np.full(-(-len(values) // width) * width, np.nan)
    full[: len(values)] = values
    return full.reshape(-1, width)


def medians(table: Table, order: np.ndarray, x: np.ndarray, keys: Sequence[str]) -> dict:
    """The line: `x` in the middle of each bucket and the medians of all its rows by key (NaN: none known)."""
    buckets = 240
    width = max(MEDIAN_OF, -(-len(order) // buckets))
    starts = np.arange(0, len(order), width)
    middles = np.minimum(starts + width // 2, len(order) - 1)
    found = {"x": x[middles], "series": {}}
    for key in keys:
        found["series"][key] = _medians(_buckets(table.measure(key)[order], width))
    return found


def _medians(rows: np.ndarray) -> np.ndarray:
    """The median of each row without its NaN."""
    ordered = np.sort(rows, axis=1)  # NaN come last.
    known = rows.shape[1] - np.isnan(rows).sum(axis=1)
    line = np.arange(len(rows))
    low = ordered[line, np.maximum(known - 1, 0) // 2]
    high = ordered[line, np.minimum(known // 2, rows.shape[1] - 1)]
    return np.where(known == 0, np.nan, (low + high) / 2)


def counts(table: Table, order: np.ndarray, keys: Sequence[str]) -> dict[str, list[int]]:
    """Histograms of the rows at `order`, counted by the fixed edges of MEASURES."""
    return {key: MEASURES[key].counts(table.measure(key)[order]) for key in keys}


def scatter(table: Table, order: np.ndarray, across: str, up: str) -> dict:
    """One row for each cell of a fine grid over both quantities: what a picture of all rows would show.

    `places` are those of the rows, `count` how many rows each stands for, `total` how many have both values.
    """
    x, y = table.measure(across)[order], table.measure(up)[order]
    both = ~(np.isnan(x) | np.isnan(y))
    order, x, y = order[both], x[both], y[both]
    if len(order) <= WHOLE:
        return {"places": order, "count": np.ones(len(order), dtype=np.int64), "total": len(order)}
    cell = _cell(x, CELLS[0]) * CELLS[1] + _cell(y, CELLS[1])
    # The newest of a cell stands for it.
    _, first, count = np.unique(cell[::-1], return_index=True, return_counts=True)
    return {"places": order[len(order) - 1 - first], "count": count, "total": len(order)}


def _cell(values: np.ndarray, cells: int) -> np.ndarray:
    low, high = values.min(), values.max()
    if high <= low:
        return np.zeros(len(values), dtype=np.int64)
    return np.minimum(((values - low) / (high - low) * cells).astype(np.int64), cells - 1)


# -- Limits ------------------------------------------------------------------------------------------------

Bounds = Mapping[str, tuple[float | None, float | None]]


def broken(table: Table, bounds: Bounds) -> dict[str, np.ndarray]:
    """By measure: which rows are known to lie below its least or above its greatest value."""
    found = {}
    for key, (least, most) in bounds.items():
        values = table.measure(key)
        outside = np.zeros(len(table), dtype=bool)
        with np.errstate(invalid="ignore"):
            if least is not None:
                outside |= values < least
            if most is not None:
                outside |= values > most
        found[key] = outside
    return found


def usable(table: Table, bounds: Bounds) -> tuple[np.ndarray, np.ndarray]:
    """Which rows can be judged, and which of them are usable, each of shape (rows,).

    One can be judged once any limited quantity of it is known, or somebody said. A person's word counts most, then
    the pipeline's rejection, then the limits; what is not known breaks none.
    """
    key = ("usable", tuple(sorted(bounds.items())))

    def make():
        flags = table.rows["flags"]
        by_hand = flags & (ACCEPTED_BY_HAND | REJECTED_BY_HAND) > 0
        judged = by_hand | (flags & REJECTED > 0)
        good = flags & (REJECTED | REJECTED_BY_HAND) == 0
        for name, outside in broken(table, bounds).items():
            judged = judged | ~np.isnan(table.measure(name))
            good = good & ~outside
        good = good | (flags & ACCEPTED_BY_HAND > 0)
        return judged, good & judged

    return table.keep(key, make)


# -- Time --------------------------------------------------------------------------------------------------


def rate(times: np.ndarray, until: float | None) -> float | None:
    """Rows per hour from their ascending times (s): in the hour before `until`, or over all where it is None.

    The first minute is left out, in which a pipeline that joins late sends all it has. None before five minutes
    have passed, when it would mean nothing.
    """
    if len(times) < 2:
        return None
    end = float(times[-1]) if until is None else until
    if end - times[0] < 300:
        return None
    start = times[0] + 60
    if until is not None:
        start = max(start, end - HOUR)
    rows = np.searchsorted(times, end, side="right") - np.searchsorted(times, start)
    return float(max(0, rows) * HOUR / (end - start))


def throughput(times: np.ndarray) -> dict | None:
    """Rows by equal spans of time: `start` (s since 1970), `width` (s) and `counts`; None without rows."""
    times = times[~np.isnan(times)]
    if not len(times):
        return None
    low, high = float(times.min()), float(times.max())
    for width in WIDTHS:
        start = low // width * width
        bars = int((high - start) // width) + 1
        if bars <= MOST_BARS:
            break
    else:
        # Years apart: whole days from the last one on say more than one bar a month.
        bars = MOST_BARS
        start = (high // width - bars + 1) * width
    places = ((times - start) // width).astype(np.int64)
    return {
        "start": start,
        "width": width,
        "counts": np.bincount(places[places >= 0], minlength=bars).tolist(),
    }


# -- Groups ------------------------------------------------------------------------------------------------


def grouped(labels: np.ndarray, values: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray, dict]:
    """Group labels, how many rows each has, and the medians of each by key (NaN: none known)."""
    order = np.argsort(labels, kind="stable")
    groups, starts, sizes = np.unique(labels[order], return_index=True, return_counts=True)
    found = {}
    for key, column in values.items():
        ordered = column[order]
        found[key] = np.array(
            [_median(ordered[start : start + size]) for start, size in zip(starts, sizes, strict=True)]
        )
    return groups, sizes, found


def _median(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(np.median(known)) if len(known) else np.nan


def beam_shift_groups(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Number of the group of each beam shift (float64, no NaN), from 0, the largest group first.

    Image-shift collection leaves clouds, one for each hole of its pattern, with nothing in between: shifts
    belong together where they lie in the same or neighbouring cells of a grid of GAP of the spread.
    """
    if not len(x):
        return np.empty(0, dtype=np.int64)
    spread = max(float(np.ptp(x)), float(np.ptp(y)))
    if spread <= 0:
        return np.zeros(len(x), dtype=np.int64)
    size = spread * GAP
    across, up = ((x - x.min()) // size).astype(np.int64), ((y - y.min()) // size).astype(np.int64)
    wide = int(up.max()) + 1
    occupied, inverse = np.unique(across * wide + up, return_inverse=True)
    place = {divmod(cell, wide): number for number, cell in enumerate(occupied.tolist())}
    group = np.full(len(occupied), -1, dtype=np.int64)
    for seed in range(len(occupied)):
        if group[seed] >= 0:
            continue
        number = group.max() + 1
        group[seed] = number
        waiting = [seed]
        while waiting:
            left, low = divmod(int(occupied[waiting.pop()]), wide)
            for near in ((left + a, low + b) for a in (-1, 0, 1) for b in (-1, 0, 1)):
                other = place.get(near)
                if other is not None and group[other] < 0:
                    group[other] = number
                    waiting.append(other)
    labels = group[inverse]
    ranks = np.empty(group.max() + 1, dtype=np.int64)
    ranks[np.argsort(-np.bincount(labels), kind="stable")] = np.arange(len(ranks))
    return ranks[labels]
