"""Numbers out of other programs' text: what is one and within bounds, else None."""

from __future__ import annotations

import math
import re

_NUMBER = re.compile(r"^[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,4})?$", re.ASCII)


def finite(text: str | None) -> float | None:
    """Return a finite number, or None for anything else."""
    text = (text or "").strip()
    if len(text) > 64 or not _NUMBER.match(text):
        return None
    value = float(text)
    return value if math.isfinite(value) else None


def above_zero(text: str | None) -> float | None:
    """Return a finite number above 0, or None for anything else."""
    value = finite(text)
    return value if value is not None and value > 0 else None


def whole_number(text: str | None, smallest: int, largest: int) -> int | None:
    """Return a number without fraction from smallest to largest, or None."""
    value = finite(text)
    if value is None or value != int(value) or not smallest <= value <= largest:
        return None
    return int(value)
