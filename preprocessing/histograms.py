"""What is measured of a micrograph, in which unit it is shown, and the fixed edges by which it is counted.

Rows keep values as the field writes them (Å, degrees); people read defocus in µm and astigmatism in nm. A
`Measure` says how one leads to the other. Its bins are half-open, [edge, next edge), in the shown unit; a histogram
is a list of `len(edges) + 1` counts, the first for values below the first edge, the last for values at or above
the last edge. Ingestion keeps them incrementally in `ProcessingRun.histograms`, `manage.py recount` proves them.
Edges never change for a run that has rows: whoever edits this table also recounts every run in a migration.
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter

import numpy as np

ANGSTROM_PER_MICROMETRE = 1e4
ANGSTROM_PER_NANOMETRE = 10.0


@dataclass(frozen=True)
class Measure:
    """One quantity people look at: derived from the columns `fields`, shown in `unit`, counted by `edges`."""

    name: str
    label: str
    unit: str
    fields: tuple[str, ...]
    edges: tuple[float, ...]

    def value(self, row: Mapping) -> float | None:
        """The shown value of one row (any mapping of column to stored value); None where unknown."""
        if self.name == "defocus":
            defocus = mean_defocus(row["defocus_u"], row["defocus_v"])
            return None if defocus is None else defocus / ANGSTROM_PER_MICROMETRE
        if self.name == "astigmatism":
            astigmatism = astigmatism_of(row["defocus_u"], row["defocus_v"])
            return None if astigmatism is None else astigmatism / ANGSTROM_PER_NANOMETRE
        return row[self.fields[0]]

    def values(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """The same for whole columns of float64 with NaN for unknown; shape and NaN are kept."""
        if self.name == "defocus":
            u, v = columns["defocus_u"], columns["defocus_v"]
            return np.where(np.isnan(u), v, np.where(np.isnan(v), u, (u + v) / 2)) / ANGSTROM_PER_MICROMETRE
        if self.name == "astigmatism":
            return np.abs(columns["defocus_u"] - columns["defocus_v"]) / ANGSTROM_PER_NANOMETRE
        return columns[self.fields[0]]

    def bin(self, value: float) -> int:
        """The place of a shown value in the list of counts."""
        return bisect_right(self.edges, value)

    def counts(self, values: np.ndarray) -> list[int]:
        """Counts of shown values (float64, NaN ignored); equal to counting each with `bin`."""
        known = values[~np.isnan(values)]
        places = np.searchsorted(np.asarray(self.edges), known, side="right")
        return np.bincount(places, minlength=len(self.edges) + 1).tolist()


def mean_defocus(u: float | None, v: float | None) -> float | None:
    """Mean of the two defoci in Å; the one that is known where the other is not."""
    if u is None or v is None:
        return v if u is None else u
    return (u + v) / 2


def astigmatism_of(u: float | None, v: float | None) -> float | None:
    """|U - V| in Å; None unless both are known."""
    return None if u is None or v is None else abs(u - v)


def _edges(start: float, stop: float, bins: int) -> tuple[float, ...]:
    """`bins` equal bins from start to stop, rounded so that the edges read as people write them."""
    return tuple(round(start + (stop - start) * index / bins, 6) for index in range(bins + 1))


MEASURES: dict[str, Measure] = {
    measure.name: measure
    for measure in (
        Measure("defocus", "Defocus", "µm", ("defocus_u", "defocus_v"), _edges(0, 6, 60)),
        Measure("astigmatism", "Astigmatism", "nm", ("defocus_u", "defocus_v"), _edges(0, 100, 50)),
        Measure("ctf_resolution", "CTF resolution", "Å", ("ctf_resolution",), _edges(2, 12, 50)),
        Measure("ctf_score", "CTF score", "", ("ctf_score",), _edges(-0.1, 0.5, 60)),
        Measure("phase_shift", "Phase shift", "°", ("phase_shift",), _edges(0, 180, 36)),
        Measure("motion_total", "Total motion", "Å", ("motion_total",), _edges(0, 100, 50)),
        Measure("motion_early", "Early motion", "Å", ("motion_early",), _edges(0, 50, 50)),
        Measure("motion_late", "Late motion", "Å", ("motion_late",), _edges(0, 100, 50)),
        Measure("ice_thickness", "Ice thickness", "relative", ("ice_thickness",), _edges(0, 5, 50)),
        Measure("particles", "Particles", "", ("particles",), _edges(0, 1000, 50)),
    )
}


# Which step has been done, told from a row's columns: the counter's name and the columns of which any is known.
STEPS: dict[str, tuple[str, ...]] = {
    "motion_corrected": ("motion_total", "motion_early", "motion_late"),
    "ctf_estimated": ("defocus_u", "defocus_v", "ctf_resolution"),
    "picked": ("particles",),
}
COUNTERS = ("micrographs", *STEPS, "particles")
MEASURED_FIELDS = (
    "motion_total",
    "motion_early",
    "motion_late",
    "defocus_u",
    "defocus_v",
    "defocus_angle",
    "phase_shift",
    "ctf_resolution",
    "ctf_score",
    "ice_thickness",
    "particles",
)


_measured_of = itemgetter(*MEASURED_FIELDS)
# From so many rows on, whole columns are counted faster than rows one by one.
_MANY = 24


class Tally:
    """Counters and histograms of a run, moved by the rows that come, change and go."""

    def __init__(self, counters: Mapping[str, int] | None = None, histograms: Mapping | None = None):
        self.counters = {name: int((counters or {}).get(name, 0)) for name in COUNTERS}
        self.histograms = {name: list(counts) for name, counts in (histograms or {}).items()}

    def add(self, row: Mapping, fields: Iterable[str] | None = None, step: int = 1) -> None:
        """Count a row (step -1: uncount it), only as far as the given columns matter."""
        touched = None if fields is None else set(fields)
        if touched is None:
            self.counters["micrographs"] += step
        for counter, columns in STEPS.items():
            if (touched is None or not touched.isdisjoint(columns)) and any(
                row[column] is not None for column in columns
            ):
                self.counters[counter] += step
        if touched is None or "particles" in touched:
            self.counters["particles"] += step * (row["particles"] or 0)
        for measure in MEASURES.values():
            if touched is not None and touched.isdisjoint(measure.fields):
                continue
            value = measure.value(row)
            if value is not None:
                self._counts(measure)[measure.bin(value)] += step

    def add_all(self, rows: Sequence[Mapping], step: int = 1) -> None:
        """Count whole rows (step -1: uncount them); the same as `add` for each."""
        if len(rows) < _MANY:
            for row in rows:
                self.add(row, step=step)
            return
        table = np.array([_measured_of(row) for row in rows], dtype=np.float64)
        known = ~np.isnan(table)
        columns = {name: table[:, place] for place, name in enumerate(MEASURED_FIELDS)}
        self.counters["micrographs"] += step * len(rows)
        for counter, names in STEPS.items():
            done = known[:, [MEASURED_FIELDS.index(name) for name in names]].any(axis=1)
            self.counters[counter] += step * int(done.sum())
        self.counters["particles"] += step * int(np.nansum(columns["particles"]))
        for measure in MEASURES.values():
            moved = measure.counts(measure.values(columns))
            if any(moved):
                counts = self._counts(measure)
                counts[:] = [count + step * number for count, number in zip(counts, moved, strict=True)]

    def change_all(self, changes: Sequence[tuple[Mapping, Mapping, Iterable[str]]]) -> None:
        """`change` for each (before, after, fields)."""
        if len(changes) < _MANY:
            for before, after, fields in changes:
                self.change(before, after, fields)
            return
        # What stayed is taken away and added again: the sum is the same.
        self.add_all([before for before, _, _ in changes], -1)
        self.add_all([after for _, after, _ in changes], 1)

    def _counts(self, measure: Measure) -> list[int]:
        counts = self.histograms.get(measure.name)
        if counts is None:
            counts = self.histograms[measure.name] = [0] * (len(measure.edges) + 1)
        return counts

    def change(self, before: Mapping, after: Mapping, fields: Iterable[str]) -> None:
        """A row's columns `fields` went from `before` to `after` (both whole rows)."""
        fields = list(fields)
        self.add(before, fields, -1)
        self.add(after, fields, 1)

    def known_histograms(self) -> dict[str, list[int]]:
        """Histograms that count anything; a quantity never measured has none."""
        return {name: self.histograms[name] for name in MEASURES if any(self.histograms.get(name, ()))}
