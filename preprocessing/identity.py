"""Which exposure a movie's name means, whoever writes it.

EPU, SerialEM, RELION, Scipion and CryoSPARC name one movie differently: with other extensions and suffixes, with
prefixes of their own, with folders folded into the name. `identity` drops what a program added and keeps what the
microscope said, so that all of them mean one exposure. It is a pure function of the name: it never looks at what a
session holds. Where the names of two movies differ only by their folder, clients post `folder/stem`.
"""

import re
import unicodedata
from functools import lru_cache

MAX_LENGTH = 255

_EXTENSIONS = re.compile(
    r"\.(?:mrcs?|tiff?|eer|xml|jpe?g|png|mdoc|dm[34]|hdf5?|h5|em|raw|st|gz|bz2|zst|star)$", re.IGNORECASE
)
_EPU_SUFFIX = re.compile(r"_(?:fractions|eer)$", re.IGNORECASE)
# "ſ" is an s in other case, and $ matches before a last line break too.
_LAST_OF_EPU = frozenset("sSrR\u017f\n")
# CryoSPARC sets a unique id before the name, padded with zeros in newer versions.
_CRYOSPARC_UID = re.compile(r"^\d{15,21}_")
# What CryoSPARC appends to a movie's stem; only believed behind its id.
_CRYOSPARC_SUFFIX = re.compile(
    r"_(?:particles|(?:patch|rigid|full_frame)_aligned(?:_doseweighted|_nonweighted)?|aligned|doseweighted|background)$"
)
_FOLDED_SQUARE = re.compile(r"^GridSquare_\d+_Data_")
# Folders that a program makes, or that only say what kind of file is inside.
_PROGRAM_FOLDERS = re.compile(
    r"""^(?:
        \./
      | (?:CS-[^/]+/|[PS]\d+/)?J\d+/(?:imported|motioncorrected|extract|extracted|ctfestimated)/  # CryoSPARC
      | S\d+/(?:import_movies|imported|motioncorrected)/                                         # CryoSPARC Live
      | (?:[^/]+/)*[A-Z]\w*/job\d{3,}/                                                            # RELION
      | (?:[^/]+/)*Runs/\d{6}_\w+/(?:extra|tmp)/                                                  # Scipion
      | (?:Movies|Micrographs|Frames|Raw)/
    )""",
    re.IGNORECASE | re.VERBOSE,
)
_ABSOLUTE = re.compile(r"^(?:/|[A-Za-z]:/)")
_GRID_SQUARE = re.compile(r"GridSquare_(\d+)(?!\d|_\d{6}\b)")
_FOIL_HOLE = re.compile(r"FoilHole_(\d+)")


def identity(name: str) -> str:
    """Return the exposure's identity, unique in a session, for a movie's or micrograph's name.

    Dropped are, in any case of letters: file extensions, EPU's `_Fractions` and `_EER`, CryoSPARC's leading id of
    15 to 21 digits and then its trailing words, a folded `GridSquare_<id>_Data_`, the folders of RELION jobs,
    CryoSPARC jobs, Scipion runs and EPU grid squares, `Movies/` and the like, and the folders of an absolute path.
    Dots become underscores, as RELION writes them. Any other relative folder is kept (`grid1/frame_001`).

    Raises ValueError if nothing is left or the identity is longer than 255 characters.
    """
    path = unicodedata.normalize("NFC", name).strip().replace("\\", "/")
    absolute = bool(_ABSOLUTE.match(path))
    folder, _, stem = path.rpartition("/")
    stem = _plain_stem(stem)
    # EPU's names hold the hole and the second: they are unique without the grid square's folder.
    folder = "" if absolute or stem.startswith("FoilHole_") else _plain_folder(folder)
    result = f"{folder}{stem}".replace(".", "_")
    if not stem.strip("_. "):
        raise ValueError("Nothing is left of this name without its extension and prefixes.")
    if len(result) > MAX_LENGTH:
        raise ValueError(f"This name means an identity of more than {MAX_LENGTH} characters.")
    return result


def _plain_stem(stem: str) -> str:
    bare = _CRYOSPARC_UID.sub("", stem, count=1) if stem[:1].isdigit() else stem
    cryosparc = bare != stem
    stem = bare
    while True:
        # A search from each place of a long name costs more than all else: first see whether there can be any.
        shorter = _EXTENSIONS.sub("", stem) if "." in stem else stem
        if shorter[-1:] in _LAST_OF_EPU:
            shorter = _EPU_SUFFIX.sub("", shorter)
        if cryosparc:
            shorter = _CRYOSPARC_SUFFIX.sub("", shorter)
        if shorter == stem:
            return _FOLDED_SQUARE.sub("", stem) if stem.startswith("GridSquare_") else stem
        stem = shorter


@lru_cache(maxsize=1000)
def _plain_folder(folder: str) -> str:
    """The folder without what programs put in front, ending in a slash unless empty."""
    parts = [part for part in folder.split("/") if part not in ("", ".")]
    folder = "".join(f"{part}/" for part in parts)
    while True:
        shorter = _PROGRAM_FOLDERS.sub("", folder)
        if shorter == folder:
            return folder
        folder = shorter


def grid_square(name: str) -> str:
    """The id of the grid square that the name or its folder tells; empty where it does not."""
    found = _GRID_SQUARE.search(name)
    return found[1][:60] if found else ""


def foil_hole(name: str) -> str:
    """The id of the foil hole that an EPU name tells; empty where it does not."""
    found = _FOIL_HOLE.search(name)
    return found[1][:60] if found else ""
