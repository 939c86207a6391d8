"""Runs of one session beside each other: what each came to, and how two differ on the same micrographs."""

from dataclasses import dataclass

import numpy as np

from preprocessing import packed
from preprocessing.histograms import MEASURES
from preprocessing.live_words import digits
from preprocessing.statistics import describe

#: A scatter of more points says nothing more.
MOST_POINTS = 600
#: Of a scatter, so that one outlier does not push all others into a corner.
TRIMMED = 1


@dataclass(frozen=True)
class Common:
    """One quantity of two runs on the exposures that both measured, in the unit shown."""

    name: str
    label: str
    unit: str
    decimals: int
    n: int
    median_one: float
    median_other: float
    difference: float  # median of other minus one
    spread: float  # median of the absolute deviations from it
    correlation: float | None
    low: float
    high: float
    points: tuple[tuple[float, float], ...]

    def place(self, value: float) -> float:
        """Where a value lies between low (0) and high (100)."""
        return round(100 * min(max((value - self.low) / (self.high - self.low), 0), 1), 1)

    @property
    def away(self) -> float:
        """The difference without its sign."""
        return abs(self.difference)

    @property
    def dots(self) -> list[tuple[float, float]]:
        """The points in a square of 100 by 100, y downwards."""
        return [(self.place(x), round(100 - self.place(y), 1)) for x, y in self.points]


def side_by_side(runs) -> list[dict]:
    """Per measure that any of the runs has: label, unit, and for each run n, median, p10 and p90 or None."""
    tables = [packed.table(run) for run in runs]
    rows = []
    for name, measure in MEASURES.items():
        told = [describe(table.measure(name)) for table in tables]
        if any(told):
            rows.append(
                {
                    "label": measure.label,
                    "unit": measure.unit,
                    "decimals": digits(name),
                    "runs": told,
                }
            )
    return rows


def common(one_run, other_run) -> tuple[int, list[Common]]:
    """How many exposures both runs have, and each quantity that both measured on at least two of them."""
    one, other = packed.table(one_run), packed.table(other_run)
    _, first, second = np.intersect1d(
        one.rows["exposure"], other.rows["exposure"], assume_unique=True, return_indices=True
    )
    found = []
    for name, measure in MEASURES.items():
        x, y = one.measure(name)[first], other.measure(name)[second]
        known = ~(np.isnan(x) | np.isnan(y))
        x, y = x[known], y[known]
        if len(x) < 2:
            continue
        difference = float(np.median(y - x))
        both = np.concatenate([x, y])
        low, high = (float(value) for value in np.percentile(both, [TRIMMED, 100 - TRIMMED]))
        low, high = (low, high) if high > low else (low - 0.5, low + 0.5)
        shown = np.linspace(0, len(x) - 1, min(len(x), MOST_POINTS)).astype(int)
        varied = x.std() > 0 and y.std() > 0
        found.append(
            Common(
                name=name,
                label=measure.label,
                unit=measure.unit,
                decimals=digits(name),
                n=len(x),
                median_one=float(np.median(x)),
                median_other=float(np.median(y)),
                difference=difference,
                spread=float(np.median(np.abs(y - x - difference))),
                correlation=float(np.corrcoef(x, y)[0, 1]) if varied else None,
                low=low,
                high=high,
                points=tuple((float(a), float(b)) for a, b in zip(x[shown], y[shown], strict=True)),
            )
        )
    return len(first), found


def parameters(runs) -> list[dict]:
    """Every parameter of any run: its name, each run's value as text (None where it has none), whether they differ."""
    names = sorted({name for run in runs for name in run.parameters}, key=str.lower)
    rows = []
    for name in names:
        told = [str(run.parameters[name]) if name in run.parameters else None for run in runs]
        rows.append(
            {"name": name, "values": told, "differ": len({value for value in told if value is not None}) > 1}
        )
    return rows
