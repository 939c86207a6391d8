"""What the microscope of the demo leaves on its disk: for each exposure a movie and EPU's xml beside it.

The movies are TIFF files of the size that a camera writes, and hold nothing: they are sparse, so that each
takes a few kilobytes of disk. Where the file system cannot do that they are only their header. Of the newest
``keep`` movies the files stay; older ones are taken away, as at a facility whose data are moved on.
"""

from __future__ import annotations

import os
import struct
from datetime import datetime
from pathlib import Path

from demo.values import Exposure, Instrument

EPU = "http://schemas.datacontract.org/2004/07/Fei.SharedObjects"
ARRAYS = "http://schemas.microsoft.com/2003/10/Serialization/Arrays"
VERSION = "3.8.1.7325"
# Bytes on disk beyond which a file of this size cannot be sparse.
ON_DISK = 1_000_000


def write_exposure(folder: Path, exposure: Exposure, instrument: Instrument, taken_at: datetime) -> Path:
    """Write one exposure below ``folder`` and answer its movie; the xml comes first, as EPU has it."""
    movie = folder / exposure.movie(taken_at)
    movie.parent.mkdir(parents=True, exist_ok=True)
    xml = movie.with_name(movie.stem.removesuffix("_fractions") + ".xml")
    for path, write in ((xml, _write_xml), (movie, _write_movie)):
        temporary = path.with_name(f".{path.name}.tmp")
        write(temporary, exposure, instrument, taken_at)
        at = taken_at.timestamp()
        os.utime(temporary, (at, at))
        os.replace(temporary, path)
    return movie


def take_away(folder: Path, movie: str) -> bool:
    """Remove a movie and its xml; whether there was one."""
    path = folder / movie
    if not path.exists():
        return False
    path.with_name(path.stem.removesuffix("_fractions") + ".xml").unlink(missing_ok=True)
    path.unlink()
    return True


def _write_movie(path: Path, exposure: Exposure, instrument: Instrument, taken_at: datetime) -> None:
    """A TIFF of one byte a pixel: the directories of all frames at the front, the frames behind them."""
    side, frames = instrument.detector, instrument.frames
    directory = 2 + 7 * 12 + 4
    first = 8 + frames * directory
    with path.open("wb") as handle:
        handle.write(struct.pack("<2sHI", b"II", 42, 8))
        for frame in range(frames):
            tags = [
                (256, 4, side),
                (257, 4, side),
                (258, 3, 8),
                (259, 3, 1),
                (262, 3, 1),
                (273, 4, first + frame * side * side),
                (279, 4, side * side),
            ]
            following = 8 + (frame + 1) * directory if frame + 1 < frames else 0
            entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
            handle.write(struct.pack("<H", len(tags)) + entries + struct.pack("<I", following))
        handle.truncate(first + frames * side * side)
        if os.fstat(handle.fileno()).st_blocks * 512 > ON_DISK:
            handle.truncate(first)


def _write_xml(path: Path, exposure: Exposure, instrument: Instrument, taken_at: datetime) -> None:
    def entry(key: str, value: object) -> str:
        return (
            f"<a:KeyValueOfstringanyType><a:Key>{key}</a:Key><a:Value>{value}</a:Value>"
            "</a:KeyValueOfstringanyType>"
        )

    total = instrument.dose_per_frame * instrument.frames
    defocus = -(exposure.defocus_u + exposure.defocus_v) / 2 * 1e-10
    path.write_text(
        f'<MicroscopeImage xmlns="{EPU}"><CustomData xmlns:a="{ARRAYS}">'
        + entry("Dose", total * 1e20)
        + entry("AppliedDefocus", f"{defocus:.2e}")
        + "</CustomData><SpatialScale><pixelSize><x><numericValue>"
        + f"{instrument.pixel_size * 1e-10}</numericValue></x></pixelSize></SpatialScale><microscopeData>"
        + f"<acquisition><acquisitionDateTime>{taken_at.isoformat()}</acquisitionDateTime><camera>"
        + f'<Binning><x>1</x><y>1</y></Binning><CameraSpecificInput xmlns:a="{ARRAYS}">'
        + entry("SuperResolutionFactor", 1)
        + entry("FractionationSettings", f"<NumberOffractions>{instrument.frames}</NumberOffractions>")
        + "</CameraSpecificInput><ExposureTime>4.2</ExposureTime><ReadoutArea>"
        + f"<height>{instrument.detector}</height><width>{instrument.detector}</width></ReadoutArea></camera>"
        + "</acquisition><core><ApplicationSoftware>EPU</ApplicationSoftware>"
        + f"<ApplicationSoftwareVersion>{VERSION}</ApplicationSoftwareVersion></core>"
        + f"<gun><AccelerationVoltage>{instrument.voltage * 1000:.0f}</AccelerationVoltage></gun><optics>"
        + f"<BeamShift><_x>{exposure.beam_shift_x}</_x><_y>{exposure.beam_shift_y}</_y></BeamShift>"
        + "<EnergyFilter><EnergySelectionSlitInserted>true</EnergySelectionSlitInserted>"
        + "<EnergySelectionSlitWidth>10</EnergySelectionSlitWidth></EnergyFilter><SpotIndex>6</SpotIndex>"
        + "<TemMagnification><NominalMagnification>130000</NominalMagnification></TemMagnification></optics>"
        + f"<stage><Position><X>{exposure.stage_x * 1e-6}</X><Y>{exposure.stage_y * 1e-6}</Y></Position></stage>"
        + "</microscopeData></MicroscopeImage>\n"
    )
