"""Percentiles of many sessions together, from the histograms their summaries keep.

No row is read: the rows may be gone. What comes out is exact to a bin's width at worst (linear within a bin),
and is labelled as such wherever it is shown.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Quantile:
    """A value in the histogram's unit; `bound` is "<" or "≥" where it lies beyond the edges, else empty."""

    value: float
    bound: str = ""


class Merged:
    """One quantity of many sessions, in the unit its histograms are in."""

    def __init__(self):
        self._parts: dict[tuple, np.ndarray] = {}

    def add(self, histogram: Mapping | None) -> None:
        """Take in one session's histogram as the summary keeps it: `edges` (first, last, bins) and `counts`.

        Raises ValueError if there are not two counts more than bins.
        """
        if not histogram:
            return
        first, last, bins = histogram["edges"]
        counts = np.asarray(histogram["counts"], dtype=np.int64)
        if counts.shape != (bins + 2,):
            raise ValueError(f"{counts.size} counts do not fit {bins} bins.")
        key = (first, last, bins)
        known = self._parts.get(key)
        if known is None:
            self._parts[key] = counts.copy()
        else:
            known += counts

    def join(self, other: "Merged") -> None:
        """Take in all that another one holds."""
        for key, counts in other._parts.items():
            known = self._parts.get(key)
            self._parts[key] = counts.copy() if known is None else known + counts

    @property
    def n(self) -> int:
        return int(sum(counts.sum() for counts in self._parts.values()))

    def quantile(self, share: float) -> Quantile | None:
        """The value below which this share (0 to 1) of all micrographs lies; None without any.

        Where sessions were counted by different edges, each is spread evenly over its own bins first.
        """
        total = self.n
        if not total:
            return None
        edges = np.unique(np.concatenate([np.linspace(*key[:2], key[2] + 1) for key in self._parts]))
        below = sum(
            np.interp(edges, np.linspace(*key[:2], key[2] + 1), np.cumsum(counts[:-1]))
            for key, counts in self._parts.items()
        )
        wanted = share * total
        if wanted < below[0]:
            return Quantile(float(edges[0]), "<")
        if wanted > below[-1]:
            return Quantile(float(edges[-1]), "≥")
        # The last edge that still has no more than wanted below it, and the way into the bin that follows.
        place = int(np.searchsorted(below, wanted, side="left"))
        if place == 0:
            return Quantile(float(edges[0]))
        low, high = below[place - 1], below[place]
        way = (wanted - low) / (high - low) if high > low else 0.0
        return Quantile(float(edges[place - 1] + way * (edges[place] - edges[place - 1])))

    @property
    def median(self) -> Quantile | None:
        return self.quantile(0.5)
