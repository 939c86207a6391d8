"""The micrographs of a run as people browse them: filtered and sorted by any value, neighbour after neighbour.

All of it works on the run's table in memory (packed.py), live and archived alike; only what is shown of a page
(names and pictures) is asked of the database.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from preprocessing import packed, reduction
from preprocessing.histograms import MEASURES
from preprocessing.live_words import digits

#: What may be shown, and what it is called.
SHOWS = {
    "all": "all",
    "usable": "usable",
    "unusable": "not usable",
    "accepted": "accepted by hand",
    "rejected": "rejected by hand",
    "undecided": "not decided by hand",
    "pipeline": "rejected by the pipeline",
}
ORDERS = ("number", "time", *MEASURES)
PLACES = ("grid_square", "foil_hole")


class Unknown(ValueError):
    """A filter that makes no sense: the parameter's name, and what it must be."""

    def __init__(self, name: str, must: str):
        super().__init__(name)
        self.must = must


@dataclass(frozen=True)
class Choice:
    """What to show, in which order. `ranges` has the least and greatest value by measure, in the unit shown."""

    show: str = "all"
    sort: str = "number"
    descending: bool = True
    ranges: Mapping[str, tuple[float | None, float | None]] = field(default_factory=dict)
    places: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, query: Mapping[str, str]) -> "Choice":
        """From a query string. Raises Unknown."""
        show = query.get("show") or "all"
        sort = query.get("sort") or "-number"
        descending, key = sort.startswith("-"), sort.removeprefix("-")
        if show not in SHOWS:
            raise Unknown("show", f"one of {', '.join(SHOWS)}")
        if key not in ORDERS:
            raise Unknown("sort", f"one of {', '.join(ORDERS)}, with - in front for the greatest first")
        ranges = {}
        for name in MEASURES:
            low, high = _bound(query, f"{name}_min"), _bound(query, f"{name}_max")
            if low is not None or high is not None:
                ranges[name] = (low, high)
        places = {name: text for name in PLACES if (text := (query.get(name) or "").strip()[:60])}
        return cls(show, key, descending, ranges, places)

    @property
    def words(self) -> str:
        """What is shown, for people: "usable, CTF resolution up to 4.5 Å, grid square 77"."""
        parts = [] if self.show == "all" else [SHOWS[self.show]]
        for name, (low, high) in self.ranges.items():
            measure = MEASURES[name]
            unit = f" {measure.unit}" if measure.unit and measure.unit != "relative" else ""
            if low is not None and high is not None:
                parts.append(f"{measure.label} {low:g} to {high:g}{unit}")
            elif low is not None:
                parts.append(f"{measure.label} from {low:g}{unit}")
            else:
                parts.append(f"{measure.label} up to {high:g}{unit}")
        parts += [f"{name.replace('_', ' ')} {text}" for name, text in self.places.items()]
        return ", ".join(parts) or "all"


def _bound(query: Mapping[str, str], name: str) -> float | None:
    text = query.get(name) or ""
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = np.nan
    if not np.isfinite(value):
        raise Unknown(name, "a number")
    return value


def chosen(table: packed.Table, choice: Choice, bounds: reduction.Bounds) -> np.ndarray:
    """Places of the rows to show, in order; of equal values the later image first where the greatest come first.

    A range leaves out what is not known of it; sorted by a value, what is not known comes last.
    """
    keep = np.ones(len(table), bool)
    flags = table.rows["flags"]
    if choice.show in ("usable", "unusable"):
        judged, good = reduction.usable(table, bounds)
        keep &= judged & (good if choice.show == "usable" else ~good)
    elif choice.show == "pipeline":
        keep &= (flags & packed.REJECTED) > 0
    elif choice.show != "all":
        by_hand = {"accepted": packed.ACCEPTED_BY_HAND, "rejected": packed.REJECTED_BY_HAND}
        either = packed.ACCEPTED_BY_HAND | packed.REJECTED_BY_HAND
        keep &= (flags & either) == 0 if choice.show == "undecided" else (flags & by_hand[choice.show]) > 0
    for name, (low, high) in choice.ranges.items():
        values = table.measure(name)
        keep &= ~np.isnan(values)
        if low is not None:
            keep &= values >= low
        if high is not None:
            keep &= values <= high
    for name, text in choice.places.items():
        code = table.texts.index(text) if text in table.texts else -1
        keep &= table.rows[name] == code
    places = table.order[keep[table.order]]
    if choice.sort == "number":
        return places[::-1] if choice.descending else places
    values = table.time if choice.sort == "time" else table.measure(choice.sort)
    values = values[places]
    if choice.descending:
        order = np.argsort(-values[::-1], kind="stable")
        return places[::-1][order]
    return places[np.argsort(values, kind="stable")]


def neighbour(
    table: packed.Table,
    places: np.ndarray,
    pk: int,
    step: int,
    kind: str,
    bounds: reduction.Bounds,
) -> int | None:
    """Id of the next micrograph after `pk` (step 1) or before it (-1) among these places; None at the end.

    `kind` is any, good (usable) or bad. Of one that is not among them, the way begins at the first.
    """
    ids = table.rows["id"][places]
    here = np.flatnonzero(ids == pk)
    if kind == "any":
        fits = np.ones(len(places), bool)
    else:
        judged, good = reduction.usable(table, bounds)
        fits = (judged & (good if kind == "good" else ~good))[places]
    start = int(here[0]) if len(here) else -1
    if not len(here) and step < 0:
        return None
    later = np.flatnonzero(fits[start + 1 :]) + start + 1 if step > 0 else np.flatnonzero(fits[:start])[::-1]
    return int(ids[later[0]]) if len(later) else None


def values_of(table: packed.Table, place: int) -> dict[str, float | None]:
    """What a tile shows of a row, by measure, rounded as people read it."""
    found = {}
    for name in table.sent:
        value = float(table.measure(name)[place])
        found[name] = None if np.isnan(value) else round(value, digits(name))
    return found


def state_of_row(flags: int, judged: bool, good: bool) -> str:
    """accepted or rejected (by hand), pipeline (rejected by it), usable, unusable, or unknown."""
    if flags & packed.ACCEPTED_BY_HAND:
        return "accepted"
    if flags & packed.REJECTED_BY_HAND:
        return "rejected"
    if flags & packed.REJECTED:
        return "pipeline"
    if not judged:
        return "unknown"
    return "usable" if good else "unusable"


def nearby(table: packed.Table, place: int, count: int = 6) -> list[int]:
    """Ids of the nearest other micrographs: of the same foil hole, then of the same square by stage position."""
    rows = table.rows
    found: list[int] = []
    for name in ("foil_hole", "grid_square"):
        code = rows[name][place]
        if not table.texts[code]:
            continue
        same = np.flatnonzero(rows[name] == code)
        same = same[same != place]
        x, y = table.column("stage_x"), table.column("stage_y")
        distance = np.hypot(x[same] - x[place], y[same] - y[place])
        if np.isnan(distance).all():
            distance = np.abs(table.number[same] - table.number[place]).astype(float)
        for other in same[np.argsort(distance, kind="stable")][:count].tolist():
            pk = int(rows["id"][other])
            if pk not in found:
                found.append(pk)
    return found[:count]
