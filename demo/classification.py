"""How a 2D classification that never ran goes on: shares, resolutions and who belongs where, by iteration."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from demo.images import BOX, CLASSES, class_averages, class_views

ITERATIONS = 25


@dataclass(frozen=True)
class Iteration:
    """One iteration. ``resolutions`` (Å), ``counts`` and ``shares`` have one entry per class; ``assignment``
    one per particle, counted from 0; ``progress`` runs from 0 to 1."""

    number: int
    progress: float
    resolutions: np.ndarray
    counts: np.ndarray
    shares: np.ndarray
    assignment: np.ndarray
    average_pmax: float
    order: np.ndarray  # which kind of class (views first, then junk) each class is

    def averages(self, pixel_size: float, seed: int) -> np.ndarray:
        """The class averages, shape (classes, 64, 64), float32."""
        kinds = np.argsort(self.order)
        by_kind = class_averages(
            self.resolutions[kinds],
            self.shares[kinds],
            progress=self.progress,
            pixel_size=pixel_size,
            seed=seed,
        )
        return by_kind[self.order]

    @property
    def best_resolution(self) -> float:
        """The finest resolution any class has reached, in Å."""
        return float(self.resolutions[self.counts > 0].min())


def iterate(number: int, *, particles: int, pixel_size: float, seed: int) -> Iteration:
    """Iteration ``number`` (0 to 25) of ``particles`` particles; the same arguments give the same answer."""
    if not 0 <= number <= ITERATIONS:
        raise ValueError(f"A classification has iterations 0 to {ITERATIONS}, not {number}.")
    rng = np.random.default_rng([seed, 71])
    views = len(class_views())
    final = np.concatenate([rng.gamma(1.6, 1.0, views) + 0.15, rng.gamma(0.8, 0.12, CLASSES - views) + 0.02])
    final[-1] = 0.0  # one class dies out, as one usually does
    final /= final.sum()
    order = rng.permutation(CLASSES)  # RELION's classes come in no order of quality
    draws = rng.random(particles)

    grown = 1 / (1 + math.exp(-(number - 2.5) / 1.3))
    shares = (1 - grown) / CLASSES + grown * final
    if number >= 6:
        shares[-1] = 0.0
    shares /= shares.sum()
    assignment = np.searchsorted(np.cumsum(shares), draws * (1 - 1e-12))
    counts = np.bincount(assignment, minlength=CLASSES)[:CLASSES]

    quality = rng.uniform(0, 3.5, CLASSES) + 12 * (np.arange(CLASSES) >= views)
    aim = 8.3 + quality + 0.12 / np.maximum(shares, 0.004)
    resolution = np.minimum(aim + 46 * math.exp(-number / 4.2), 60.0)
    # RELION reports the resolution of a whole Fourier shell.
    shell = np.maximum(np.floor(BOX * pixel_size / resolution), 1)
    resolution = BOX * pixel_size / shell
    back = np.argsort(order)
    return Iteration(
        number=number,
        progress=0.0 if number == 0 else 1 / (1 + math.exp(-(number - 5.5) / 1.5)),
        resolutions=resolution[order],
        counts=counts[order],
        shares=counts[order] / max(particles, 1),
        assignment=back[assignment],
        average_pmax=0.12 + 0.6 * (1 - math.exp(-number / 6)),
        order=order,
    )
