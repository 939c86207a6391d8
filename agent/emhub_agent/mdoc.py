"""SerialEM's and Tomo5's ``.mdoc`` files: sections of ``key = value`` lines.

``[FrameSet = 0]`` describes one movie, each ``[ZValue = n]`` one image of a stack, which was summed from a
movie where it names one (``SubFramePath``). Montages and single images have no movie.

Sources of the format: SerialEM's help on its file formats and real files of SerialEM 3 and 4.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime

from .values import above_zero, finite, whole_number

#: A series of a hundred images has 100 kB; montages of days have some MB.
LARGEST = 64_000_000
_SECTION = re.compile(r"^\[\s*([A-Za-z]\w*)\s*=\s*(.*?)\s*\]$")
_PAIR = re.compile(r"^([^=\[\]]{1,100}?)\s*=\s*(.*)$")
_LONGEST_VALUE = 4000
_MONTHS = {
    name: number
    for number, name in enumerate(
        ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"], start=1
    )
}
_DAY_FIRST = re.compile(r"^(\d{1,2})-([A-Za-z]{3})-(\d{4}|\d{2})\s+(\d{1,2}):(\d\d):(\d\d)(?:\.\d+)?$")
_YEAR_FIRST = re.compile(
    r"^(\d{4})[-/]([A-Za-z]{3}|\d{1,2})[-/](\d{1,2})[\sT]+(\d{1,2}):(\d\d):(\d\d)(?:\.\d+)?$"
)
_MULTISHOT = re.compile(r"^(\d{1,4})-(\d{1,4})$")


class MdocError(ValueError):
    """The file is no mdoc; the message says why."""


@dataclass
class Section:
    """``kind`` (ZValue, FrameSet, MontSection...), its ``number`` as written, and its values by key."""

    kind: str
    number: str
    values: dict[str, str] = field(default_factory=dict)


@dataclass
class Mdoc:
    """The values before the first section, the titles and the sections."""

    values: dict[str, str] = field(default_factory=dict)
    titles: list[str] = field(default_factory=list)
    sections: list[Section] = field(default_factory=list)


@dataclass
class Shot:
    """What a section tells of one exposure; what it does not tell is None.

    ``pixel_size`` (Å) is that of the image the section describes, at ``binning``; ``acquired_at`` is by the
    clock of the microscope's computer.
    """

    movie: str | None  # base name of the movie's file
    acquired_at: datetime | None = None
    voltage_kv: float | None = None
    magnification: int | None = None
    pixel_size: float | None = None
    binning: float | None = None
    total_dose: float | None = None  # e⁻/Å²
    dose_per_frame: float | None = None
    frames: int | None = None
    exposure_time: float | None = None  # s
    energy_slit: float | None = None  # eV
    spot_size: int | None = None
    defocus: float | None = None  # µm as set, underfocus negative
    stage_x: float | None = None  # µm
    stage_y: float | None = None
    shift_x: float | None = None  # image shift, µm
    shift_y: float | None = None
    hole: str | None = None

    @property
    def movie_pixel_size(self) -> float | None:
        """The frames' pixel size (Å), where the section is one of frames and not of a binned image."""
        return self.pixel_size if self.binning is not None and self.binning <= 1 else None


def read(path: str, complete: bool = True) -> Mdoc:
    """Read a file; a last line without an end is left out unless the file is ``complete``.

    Raises OSError where it cannot be read and MdocError where it is no mdoc.
    """
    with open(path, "rb") as handle:
        data = handle.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise MdocError("it is too large")
    return parse(data, complete)


def parse(data: bytes, complete: bool = True) -> Mdoc:
    """Raises MdocError where there is text that is no mdoc at all."""
    found = Mdoc()
    place = found.values
    lines = 0
    for line in _lines(data, complete):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        lines += 1
        section = _SECTION.match(line)
        if section and section.group(1) == "T":
            found.titles.append(section.group(2)[:200])
            continue
        if section:
            found.sections.append(Section(section.group(1), section.group(2)[:200]))
            place = found.sections[-1].values
            continue
        pair = _PAIR.match(line)
        if pair and pair.group(1) == "T":
            found.titles.append(pair.group(2)[:200])  # the first title may lack its brackets
        elif pair:
            place[pair.group(1).strip()] = pair.group(2).strip()[:_LONGEST_VALUE]
    if lines and not found.sections and not found.values and not found.titles:
        raise MdocError("it holds no line of the form key = value")
    return found


def _lines(data: bytes, complete: bool) -> Iterator[str]:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        text = data.decode("utf-16", "replace")
    else:
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = data.decode("latin-1")  # as Windows writes names of people and places
    if "\0" in text:
        raise MdocError("it holds bytes that are no text")
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    if not complete:
        lines.pop()
    return iter(lines)


def shots(mdoc: Mdoc) -> list[Shot]:
    """Return the exposures that have a movie: each section that names one, and every FrameSet.

    A FrameSet that neither names one nor has a time, which is written after that, is still being written.
    """
    return [
        shot(mdoc, section)
        for section in mdoc.sections
        if (section.kind in ("FrameSet", "ZValue") and section.values.get("SubFramePath"))
        or (section.kind == "FrameSet" and "DateTime" in section.values)
    ]


def is_image(mdoc: Mdoc) -> bool:
    """Whether the file beside it is a stack of images or a montage, and no movie."""
    kinds = {section.kind for section in mdoc.sections}
    return bool(kinds & {"ZValue", "MontSection"}) and "FrameSet" not in kinds


def shot(mdoc: Mdoc, section: Section) -> Shot:
    values = section.values

    def positive(name: str, largest: float) -> float | None:
        found = above_zero(values.get(name, mdoc.values.get(name)))
        return found if found is not None and found <= largest else None

    def pair(name: str, largest: float) -> tuple[float | None, float | None]:
        parts = values.get(name, "").split()
        both = (finite(parts[0]), finite(parts[1])) if len(parts) >= 2 else (None, None)
        if any(value is None or abs(value) > largest for value in both):
            return None, None
        return both

    stage_x, stage_y = pair("StagePosition", 100_000)
    shift_x, shift_y = pair("ImageShift", 100_000)
    frames = whole_number(values.get("NumSubFrames"), 1, 1_000_000)
    movie = base_name(values.get("SubFramePath"))
    if frames == 1 and (movie or "").lower().endswith(".eer"):
        frames = None  # written as one, whatever it holds
    total = positive("ExposureDose", 10_000)
    doses = values.get("FrameDosesAndNumber", "").split()
    per_frame = above_zero(doses[0]) if doses else None
    # DateTime is written after the doses: with it the section is known to hold all that there is of them.
    if per_frame is None and total and frames and "DateTime" in values:
        per_frame = float(f"{total / frames:.6g}")
    slit = finite(values.get("FilterSlitAndLoss", "").split(" ")[0])
    defocus = finite(values.get("TargetDefocus", values.get("Defocus")))
    return Shot(
        movie=movie,
        acquired_at=time_of(values.get("DateTime")),
        voltage_kv=positive("Voltage", 2000),
        magnification=whole_number(values.get("Magnification"), 1, 100_000_000),
        pixel_size=positive("PixelSpacing", 1e6),
        binning=positive("Binning", 1000),
        total_dose=total,
        dose_per_frame=per_frame if per_frame is None or per_frame <= 1000 else None,
        frames=frames,
        exposure_time=positive("ExposureTime", 10_000),
        energy_slit=slit if slit is not None and 0 < slit <= 1000 else None,
        spot_size=whole_number(values.get("SpotSize"), 0, 100),
        defocus=defocus if defocus is not None and abs(defocus) <= 10_000 else None,
        stage_x=stage_x,
        stage_y=stage_y,
        shift_x=shift_x,
        shift_y=shift_y,
        hole=_hole(values),
    )


def _hole(values: dict[str, str]) -> str | None:
    """Return the navigator's item, with the number of the hole in a multishot pattern: ``726-1``."""
    label = values.get("NavigatorLabel", "").strip()
    if not label or not label.isprintable():
        return None
    multishot = _MULTISHOT.match(values.get("MultishotHoleAndPosition", ""))
    return (f"{label}-{multishot.group(1)}" if multishot else label)[:60]


def base_name(path: str | None) -> str | None:
    """Return the last part of a Windows or other path; None where there is none."""
    name = (path or "").replace("\\", "/").rstrip("/").rpartition("/")[2].strip()
    return name if name and name.isprintable() and len(name) <= 400 else None


def time_of(text: str | None) -> datetime | None:
    """Return SerialEM's date and time (year of two or four digits); None where it is none."""
    text = (text or "").strip()
    found = _DAY_FIRST.match(text)
    if found:
        day, month, year = found.group(1), found.group(2), found.group(3)
    else:
        found = _YEAR_FIRST.match(text)
        if not found:
            return None
        year, month, day = found.group(1), found.group(2), found.group(3)
    number = _MONTHS.get(month.lower()) or (int(month) if month.isdigit() else 0)
    full = int(year) + (2000 if len(year) == 2 else 0)
    try:
        return datetime(full, number, int(day), *(int(part) for part in found.groups()[3:6]))
    except ValueError:
        return None
