"""Grid square and foil hole in the names of movies, where the names are not EPU's.

EPU's names are the site's own business. Leginon numbers grid, square and hole within one another
(``24dec03a_00034gr_00003sq_v01_00002hl_00002ex``); SerialEM, where it is told to put the place of a multiple
exposure into the name, writes hole and shot behind what it numbers items by (``lattice_12_X+1Y-1-2_0034``).
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable

_LEGINON = re.compile(
    r"_(\d{5})gr(?:_v\d+)?_(\d{5})sq(?:_v\d+)?(?:_(\d{5})hl)?(?![0-9A-Za-z])", re.IGNORECASE
)
_SERIALEM = re.compile(r"^(.{1,40}?)_(X[+-]?\d{1,3}Y[+-]?\d{1,3})(?:-\d+)?(?=[_.]|$)")


def place(name: str) -> dict[str, str] | None:
    """Return ``grid_square`` and ``foil_hole`` as far as the name tells, None where it tells neither.

    Both are unique in a session as long as Leginon's and SerialEM's own numbers are.
    """
    stem = posixpath.basename(name.replace("\\", "/"))
    found = _LEGINON.search(stem)
    if found:
        grid, square, hole = found.groups()
        told = {"grid_square": f"{grid}gr_{square}sq"}
        return {**told, "foil_hole": f"{grid}gr_{square}sq_{hole}hl"} if hole else told
    found = _SERIALEM.match(stem)
    if found:
        return {"foil_hole": f"{found.group(1)}_{found.group(2)}"}
    return None


def places(names: Iterable[str]) -> dict[str, dict[str, str]]:
    """Return {name: what ``place`` tells} of those names that tell something."""
    return {name: found for name in names if (found := place(name))}
