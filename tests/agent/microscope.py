"""Microscopes' folders written by the tests, and where the real files lie."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
NAMESPACE = "http://schemas.datacontract.org/2004/07/Fei.SharedObjects"


def shared(name):
    """The real files of that folder; skips the test where they are not on this machine."""
    folder = SHARED / name
    if not folder.exists():
        pytest.skip(f"the real files of {name} are not on this machine")
    return folder


def xml(
    at="2026-11-22T22:15:07.1234567+01:00",
    stage=(-97.152, 12.5),
    shift=(0.25, -0.5),
    dose=50.0,
    frames=40,
    pixel=0.83,
    binning=1,
    factor=1,
    width=5760,
    slit="true",
):
    """An exposure's xml as EPU 3 writes it, with as much in it as is read; stage in µm, dose in e⁻/Å²."""
    a = 'xmlns:a="http://schemas.microsoft.com/2003/10/Serialization/Arrays"'

    def entry(key, value):
        return f"<a:KeyValueOfstringanyType><a:Key>{key}</a:Key><a:Value>{value}</a:Value></a:KeyValueOfstringanyType>"

    fractions = f"<b:NumberOffractions xmlns:b='x'>{frames}</b:NumberOffractions>"
    return (
        f'<MicroscopeImage xmlns="{NAMESPACE}"><CustomData {a}>{entry("Dose", dose * 1e20)}'
        f"{entry('AppliedDefocus', -1.4e-6)}</CustomData>"
        f"<SpatialScale><pixelSize><x><numericValue>{pixel * 1e-10}</numericValue></x></pixelSize></SpatialScale>"
        f"<microscopeData><acquisition><acquisitionDateTime>{at}</acquisitionDateTime><camera>"
        f"<Binning><x>{binning}</x><y>{binning}</y></Binning><CameraSpecificInput {a}>"
        f"{entry('SuperResolutionFactor', factor)}{entry('FractionationSettings', fractions)}</CameraSpecificInput>"
        f"<ExposureTime>2.5</ExposureTime><ReadoutArea><height>4092</height><width>{width}</width></ReadoutArea>"
        "</camera></acquisition><core><ApplicationSoftwareVersion>3.9.1.8206</ApplicationSoftwareVersion></core>"
        "<gun><AccelerationVoltage>300000</AccelerationVoltage></gun><optics>"
        f"<BeamShift><_x>{shift[0]}</_x><_y>{shift[1]}</_y></BeamShift>"
        f"<EnergyFilter><EnergySelectionSlitInserted>{slit}</EnergySelectionSlitInserted>"
        "<EnergySelectionSlitWidth>10</EnergySelectionSlitWidth></EnergyFilter><SpotIndex>6</SpotIndex>"
        "<TemMagnification><NominalMagnification>105000</NominalMagnification></TemMagnification></optics>"
        f"<stage><Position><X>{stage[0] * 1e-6}</X><Y>{stage[1] * 1e-6}</Y></Position></stage>"
        "</microscopeData></MicroscopeImage>"
    ).encode()


def mdoc(movie="frames_001.tif", at="22-Nov-2026  22:15:07", kind="FrameSet", **values):
    lines = [
        "T = SerialEM: Acquired on Titan                 22-Nov-26  22:00:00    ",
        "Voltage = 300",
        "",
        f"[{kind} = 0]",
        "StagePosition = -142.82 -457.442",
        "Magnification = 33000",
        "ExposureDose = 7.66",
        "PixelSpacing = 1.2827",
        "SpotSize = 9",
        "Binning = 0.5",
        "ImageShift = 2.69654 -0.304661",
        "ExposureTime = 1.07856",
        "TargetDefocus = -4.5",
        f"SubFramePath = X:\\someone\\frames\\{movie}",
        "NumSubFrames = 12",
        "FrameDosesAndNumber = 0.63824 12",
        f"DateTime = {at}",
        "FilterSlitAndLoss = 20 0",
        *(f"{name} = {value}" for name, value in values.items()),
        "",
    ]
    return "\r\n".join(lines).encode()


def tif(frames=3, width=24, height=16, seed=0):
    """A movie as TIFF."""
    random = np.random.default_rng(seed)
    pages = [
        Image.fromarray(random.integers(0, 255, (height, width)).astype(np.uint8)) for _ in range(frames)
    ]
    buffer = io.BytesIO()
    pages[0].save(buffer, "TIFF", save_all=True, append_images=pages[1:], compression="tiff_lzw")
    return buffer.getvalue()


def write(root, files, age=3600.0):
    """Write {path: bytes}; ``age`` is for how many seconds each has not changed."""
    for name, data in files.items():
        path = Path(root) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        older(path, age)
    return Path(root)


def older(path, age):
    state = os.stat(path)
    os.utime(path, (state.st_atime, state.st_mtime - age))


def epu_session(holes=2, movies=2, squares=2, extension="tiff"):
    """{path: bytes} of a session of EPU 3: movies, their xml and previews, and images of holes and squares."""
    made = {}
    number = 0
    for square in range(squares):
        folder = f"Images-Disc1/GridSquare_{9000 + square}"
        made[f"{folder}/GridSquare_20261122_2100{square:02d}.xml"] = xml(pixel=400)
        made[f"{folder}/GridSquare_20261122_2100{square:02d}.mrc"] = b"\0" * 50
        for hole in range(holes):
            made[f"{folder}/FoilHoles/FoilHole_{square}{hole}_20261122_2110{hole:02d}.xml"] = xml(pixel=16)
            for _ in range(movies):
                number += 1
                clock = f"{22 + number // 3600:02d}{number // 60 % 60:02d}{number % 60:02d}"
                stem = f"{folder}/Data/FoilHole_{square}{hole}_Data_77_{number}_20261122_{clock}"
                at = f"2026-11-22T{clock[:2]}:{clock[2:4]}:{clock[4:]}.5000000+01:00"
                made[f"{stem}.xml"] = xml(at=at, stage=(square + 0.25, hole - 0.5), shift=(number / 8, 0))
                made[f"{stem}.jpg"] = b"preview"
                made[f"{stem}_Fractions.{extension}"] = tif(seed=number)
    return made
