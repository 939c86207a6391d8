"""How far a movie's frames moved, in total, early and late."""

from __future__ import annotations

import math
from collections.abc import Sequence

FIELDS = ("motion_total", "motion_early", "motion_late")
#: Dose (e⁻/Å²) up to which motion counts as early.
EARLY = 4.0


def motion(
    x: Sequence[float],
    y: Sequence[float],
    pixel: float,
    dose: float | None = None,
    before: float = 0.0,
    first: int = 1,
) -> dict[str, float]:
    """Return the length (Å) of the path that a movie's frames took, whole and in two parts, by ``FIELDS``.

    ``x`` and ``y`` are the places (pixels) of the frames from ``first`` on, ``pixel`` is in Å, ``dose`` in
    e⁻/Å² per frame, ``before`` that of before the first frame of the movie. A step is early where the frame
    it leads to ends within 4 e⁻/Å², as RELION's motion correction counts (motioncorr_runner.cpp: frames from
    the second to number 4 / dose); without a dose the parts are not known. Of one frame nothing is known.

    Raises ValueError where the two lists do not belong together or hold what is no finite number.
    """
    if len(x) != len(y):
        raise ValueError(f"{len(x)} shifts in x and {len(y)} in y")
    if len(x) < 2:
        return {}
    steps = [math.hypot(x[k] - x[k - 1], y[k] - y[k - 1]) * pixel for k in range(1, len(x))]
    found = {"motion_total": math.fsum(steps)}
    if not math.isfinite(found["motion_total"]):
        raise ValueError("shifts that are no finite numbers")
    if dose and dose > 0:
        last = min((EARLY - before) / dose, len(x) + first)  # number of the last early frame, from 1
        early = max(0, math.floor(last) - first)
        found["motion_early"] = math.fsum(steps[:early])
        found["motion_late"] = math.fsum(steps[early:])
    return found
