"""What EPU writes beside its images: one XML file for each, in SI units.

``Data/FoilHole_<hole>_Data_<area>_<n>_<date>_<time>.xml`` (root ``MicroscopeImage``) describes an exposure;
``..._Fractions.xml`` (root ``Acquisition``, EPU 1.x with a Falcon) tells how many fractions its movie has.
Images of grid squares and foil holes have files of the same kind under other names and are no exposures.

Source of the format: files of EPU 1.0 to 3.9, which differ in encoding, in what is there and in where.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any
from xml.parsers import expat

from .values import above_zero, finite, whole_number

#: A description has 8 to 80 kB.
LARGEST = 8_000_000
_DEEPEST = 64
_LONGEST_TEXT = 4000

_SETTINGS = "CustomData"
_CAMERA = "microscopeData/acquisition/camera"
_FRACTIONS = f"{_CAMERA}/CameraSpecificInput/FractionationSettings"
#: Doses beyond this (e⁻/Å²) come of cameras that do not count electrons; they say nothing of the sample.
HIGHEST_DOSE = 500.0

_EXPOSURE = re.compile(r"^FoilHole_(\d+)_Data_", re.IGNORECASE)
_HOLE_OR_SQUARE = re.compile(r"^(?:FoilHole_\d+_\d{8}_|GridSquare_\d{8}_|Atlas_|Tile_)", re.IGNORECASE)
_SQUARE = re.compile(r"GridSquare_(\d+)(?!\d|_\d{6}\b)")
_MOVIE_SUFFIX = re.compile(r"_(?:fractions|eer)$", re.IGNORECASE)
_TAKEN = re.compile(r"_(\d{8})_(\d{4}(?:\d\d)?)(?:-\d+)?$")
_TIME = re.compile(
    r"^(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)?$",
)


class EpuError(ValueError):
    """The file is not what EPU writes; the message says why."""


@dataclass
class Image:
    """What one file tells; what it does not tell is None.

    ``acquired_at`` has no offset where the file gives none. ``pixel_size`` (Å) and ``width`` are those of the
    preview image, which is often binned; the movie's pixel size follows from its own width.
    """

    is_movie: bool = False  # from `_Fractions.xml`: of it only the fractions are known
    acquired_at: datetime | None = None
    voltage_kv: float | None = None
    magnification: int | None = None
    pixel_size: float | None = None
    width: int | None = None
    binning: int | None = None
    super_resolution: int | None = None
    total_dose: float | None = None  # e⁻/Å²
    frames: int | None = None
    exposure_time: float | None = None  # s
    energy_slit: float | None = None  # eV; None where there is no filter or its slit is out
    spot_size: int | None = None
    defocus: float | None = None  # µm as set, underfocus negative
    stage_x: float | None = None  # µm
    stage_y: float | None = None
    beam_shift_x: float | None = None  # as written, in no stated unit
    beam_shift_y: float | None = None
    version: str | None = None

    @property
    def movie_pixel_size(self) -> float | None:
        """The movie's pixel size (Å) where no binning stands between it and the preview."""
        return self.pixel_size if (self.binning, self.super_resolution) in ((1, 1), (1, None)) else None


def stem_of(name: str) -> str:
    """Return what all files of one exposure share of their name, given without its extension."""
    return _MOVIE_SUFFIX.sub("", name)


def is_exposure(stem: str) -> bool:
    return _EXPOSURE.match(stem) is not None


def is_survey(stem: str) -> bool:
    """Whether a file of this name is an image of the atlas, a grid square or a foil hole."""
    return _HOLE_OR_SQUARE.match(stem) is not None


def is_fractions(stem: str) -> bool:
    return _MOVIE_SUFFIX.search(stem) is not None


def grid_square(path: str) -> str | None:
    """Return the grid square's id from the folder ``GridSquare_<id>``, or None."""
    found = _SQUARE.search(path)
    return found.group(1)[:60] if found else None


def foil_hole(stem: str) -> str | None:
    found = _EXPOSURE.match(stem)
    return found.group(1)[:60] if found else None


def taken(stem: str) -> datetime | None:
    """Return the time in an EPU name, by the microscope's clock and without offset; None without one."""
    found = _TAKEN.search(stem)
    if not found or not is_exposure(stem):
        return None
    try:
        return datetime.strptime(found.group(1) + found.group(2).ljust(6, "0"), "%Y%m%d%H%M%S")
    except ValueError:
        return None


def read(path: str) -> Image:
    """Raises OSError where the file cannot be read and EpuError where it is not whole or not EPU's."""
    with open(path, "rb") as handle:
        data = handle.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise EpuError("it is too large to be what EPU writes")
    return parse(data)


def parse(data: bytes) -> Image:
    """Raises EpuError."""
    values, fractions = _values(data)
    root = values.pop("", "")
    if root == "Acquisition":
        frames = whole_number(values.get("Info/RecordedNumberOfFractions"), 1, 1_000_000)
        if frames is None:
            raise EpuError("it tells no number of fractions")
        return Image(is_movie=True, frames=frames)
    if root != "MicroscopeImage":
        raise EpuError(f"its root is {root[:40]!r}, not MicroscopeImage")

    def scaled(name: str, factor: float, digits: int, largest: float) -> float | None:
        found = finite(values.get(name))
        return None if found is None or abs(found * factor) > largest else round(found * factor, digits)

    def positive(name: str, factor: float, largest: float) -> float | None:
        found = above_zero(values.get(name))
        found = None if found is None else found * factor
        # Twelve digits are more than was measured and fewer than what the multiplication leaves behind.
        return float(f"{found:.12g}") if found is not None and 0 < found <= largest else None

    slit = None
    if values.get("microscopeData/optics/EnergyFilter/EnergySelectionSlitInserted") == "true":
        slit = positive("microscopeData/optics/EnergyFilter/EnergySelectionSlitWidth", 1, 1000)
    return Image(
        acquired_at=time_of(values.get("microscopeData/acquisition/acquisitionDateTime")),
        voltage_kv=positive("microscopeData/gun/AccelerationVoltage", 1e-3, 2000),
        magnification=whole_number(
            values.get("microscopeData/optics/TemMagnification/NominalMagnification"), 1, 100_000_000
        ),
        pixel_size=positive("SpatialScale/pixelSize/x/numericValue", 1e10, 1e6),
        width=whole_number(values.get(f"{_CAMERA}/ReadoutArea/width"), 1, 1_000_000),
        binning=whole_number(values.get(f"{_CAMERA}/Binning/x"), 1, 1000),
        super_resolution=whole_number(
            values.get(f"{_CAMERA}/CameraSpecificInput/SuperResolutionFactor"), 1, 1000
        ),
        total_dose=positive(f"{_SETTINGS}/Dose", 1e-20, HIGHEST_DOSE),
        frames=fractions,
        exposure_time=positive(f"{_CAMERA}/ExposureTime", 1, 10_000),
        energy_slit=slit,
        spot_size=whole_number(values.get("microscopeData/optics/SpotIndex"), 0, 100),
        defocus=scaled(f"{_SETTINGS}/AppliedDefocus", 1e6, 6, 10_000),
        stage_x=scaled("microscopeData/stage/Position/X", 1e6, 4, 100_000),
        stage_y=scaled("microscopeData/stage/Position/Y", 1e6, 4, 100_000),
        beam_shift_x=scaled("microscopeData/optics/BeamShift/_x", 1, 12, 1e6),
        beam_shift_y=scaled("microscopeData/optics/BeamShift/_y", 1, 12, 1e6),
        version=values.get("microscopeData/core/ApplicationSoftwareVersion"),
    )


def _values(data: bytes) -> tuple[dict[str, str], int | None]:
    """Return {path: text} of the file's leaves, the root's name under "", and how many fractions it sets.

    A dictionary's entry (Key, Value) counts as an element of the key's name. A document type is refused: EPU
    writes none, and what can be declared in one (entities) can fill the memory or lead to other files.
    """
    values: dict[str, str] = {}
    path: list[str] = []
    texts: list[list[str]] = []
    keys: list[str | None] = []
    ranges = 0
    equal: int | None = None

    def start(name: str, _: Any) -> None:
        if len(path) >= _DEEPEST:
            raise EpuError("its elements lie too deep")
        path.append(name.rpartition(":")[2])
        texts.append([])
        keys.append(None)

    def text(found: str) -> None:
        held = texts[-1]
        if sum(map(len, held)) + len(found) <= _LONGEST_TEXT:
            held.append(found)

    def end(_: str) -> None:
        nonlocal ranges, equal
        found = "".join(texts.pop()).strip()
        name = path.pop()
        keys.pop()
        if not path:
            values[""] = name
        elif name == "Key":
            keys[-1] = found
        else:
            parts = [key or part for part, key in zip(path[1:], keys[1:])]
            if not (name == "Value" and keys[-1]):
                parts.append(name)
            # Entries of a list inside an entry are told apart by nothing; the first is kept.
            place = "/".join(part for part in parts if part != "KeyValueOfstringanyType")
            if found:
                values.setdefault(place, found)
            if place.startswith(_FRACTIONS):
                if name == "EndFrameNumber":
                    ranges += 1
                elif name == "NumberOffractions" and equal is None:
                    equal = whole_number(found, 1, 1_000_000)

    def doctype(*_: Any) -> None:
        raise EpuError("it declares a document type, which EPU never does")

    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = text
    parser.StartDoctypeDeclHandler = doctype
    try:
        parser.Parse(data, True)
    except expat.ExpatError as error:
        raise EpuError(f"it is not whole, or no XML ({error})") from error
    except (LookupError, UnicodeError) as error:
        raise EpuError(f"its encoding is not known ({error})") from error
    return values, equal or ranges or None


def time_of(text: str | None) -> datetime | None:
    """Return .NET's time (seven digits of a second) with the offset it has; None if it is no time."""
    found = _TIME.match(text or "")
    if not found:
        return None
    day, clock, fraction, offset = found.groups()
    try:
        moment = datetime.fromisoformat(f"{day}T{clock}")
        moment = moment.replace(microsecond=int((fraction or "0").ljust(6, "0")[:6]))
        if offset is None:
            return moment
        if offset == "Z":
            return moment.replace(tzinfo=timezone.utc)
        sign = -1 if offset[0] == "-" else 1
        shift = sign * timedelta(hours=int(offset[1:3]), minutes=int(offset[4:6]))
        return moment.replace(tzinfo=timezone(shift))
    except (ValueError, OverflowError):
        return None
