"""Readers of other programs' files. A new one is a module here and a line below.

What is too much for one module stands beside it under its name (``relion_tables``, ``scipion_sets``).
"""

from __future__ import annotations

from .acquisition import AcquisitionReader
from .base import Reader
from .cryosparc import CryosparcReader
from .cryosparc_live import CryosparcLiveReader
from .relion import RelionReader
from .scipion import ScipionReader
from .table import TableReader

#: The command line's word for each program, and its reader.
READERS: dict[str, type[Reader]] = {
    "relion": RelionReader,
    "scipion": ScipionReader,
    "table": TableReader,
    "cryosparc": CryosparcReader,
    "cryosparc-live": CryosparcLiveReader,
    "acquisition": AcquisitionReader,
}
