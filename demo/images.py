"""Images of the session that never took place: micrographs, power spectra, class averages.

The particle is a made-up barrel of four stacked rings of seven lobes, 115 Å wide and 150 Å tall, so that top
views (a ring of seven) and side views (four stripes) are told apart at a glance. It is a list of Gaussian
blobs, so a projection in any orientation is one small matrix product and no volume is kept.

Arrays are indexed [y, x]; frequencies are in 1/Å.
"""

from __future__ import annotations

import functools
import math

import numpy as np

from demo.values import Acquisition, Exposure, Instrument

BOX = 64  # pixels, of an extracted particle
SPECTRUM_BOX = 512  # pixels, as RELION and CTFFIND write them
CLASSES = 20
BANK = 160  # projections kept for micrographs
PROTEIN_CONTRAST = 1.5  # of a projection's maximum, against shot noise of standard deviation 0.5
# Frequencies CTFFIND fits, 1/Å: inside is hidden, outside is not judged.
FIT_FROM = 1 / 30
FIT_TO = 1 / 3


def ctf(
    fx: np.ndarray,
    fy: np.ndarray,
    *,
    defocus_u: float,
    defocus_v: float,
    defocus_angle: float,
    instrument: Instrument,
    phase_shift: float = 0.0,
) -> np.ndarray:
    """The contrast transfer function at the frequencies ``fx``, ``fy`` (1/Å), dimensionless, without
    envelope.

    Defocus in Å (underfocus positive), angles in degrees. Follows Mindell and Grigorieff (2003), J. Struct.
    Biol. 142, 334: CTF = -sin(chi + arcsin(A)) with chi = pi lambda s² (dz - lambda² s² Cs / 2) + phase
    shift.
    """
    s2 = fx**2 + fy**2
    azimuth = np.arctan2(fy, fx)
    dz = 0.5 * (
        defocus_u + defocus_v + (defocus_u - defocus_v) * np.cos(2 * (azimuth - math.radians(defocus_angle)))
    )
    wavelength = instrument.wavelength
    cs = instrument.cs * 1e7
    chi = math.pi * wavelength * s2 * (dz - 0.5 * wavelength**2 * s2 * cs) + math.radians(phase_shift)
    return -np.sin(chi + math.asin(instrument.amplitude_contrast))


def _exposure_ctf(fx, fy, exposure: Exposure, instrument: Instrument) -> np.ndarray:
    return ctf(
        fx,
        fy,
        defocus_u=exposure.defocus_u,
        defocus_v=exposure.defocus_v,
        defocus_angle=exposure.defocus_angle,
        instrument=instrument,
    )


# The particle and its projections


@functools.cache
def _blobs() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions (n, 3) in Å, widths (n,) in Å and weights (n,) of the blobs the particle is made of."""
    rng = np.random.default_rng(20)
    positions, widths, weights = [], [], []
    for ring, height in enumerate((-57.0, -19.0, 19.0, 57.0)):
        inner = ring in (1, 2)
        # Each lobe: one broad core and three finer blobs that give class averages something to resolve.
        fine = np.random.default_rng(7 if inner else 8).normal(0, 9, (3, 3))
        for lobe in range(7):
            angle = 2 * math.pi * (lobe + (0.25 if inner else 0)) / 7
            radius = 42.0 if inner else 38.0
            turn = np.array(
                [[math.cos(angle), -math.sin(angle), 0], [math.sin(angle), math.cos(angle), 0], [0, 0, 1]]
            )
            core = np.array([radius, 0, 0])
            sign = np.array([1, 1, -1 if ring > 1 else 1])
            positions.append(turn @ core + [0, 0, height])
            widths.append(9.0)
            weights.append(1.0)
            for offset in fine:
                positions.append(turn @ (core + offset * sign) + [0, 0, height])
                widths.append(4.5)
                weights.append(0.35 + 0.1 * rng.random())
    return np.array(positions), np.array(widths), np.array(weights)


def rotation(rot: float, tilt: float, psi: float) -> np.ndarray:
    """Rotation matrix (3, 3) for Euler angles in radians, ZYZ as in RELION."""

    def about_z(a):
        return np.array([[math.cos(a), math.sin(a), 0], [-math.sin(a), math.cos(a), 0], [0, 0, 1]])

    about_y = np.array([[math.cos(tilt), 0, -math.sin(tilt)], [0, 1, 0], [math.sin(tilt), 0, math.cos(tilt)]])
    return about_z(psi) @ about_y @ about_z(rot)


def project(orientation: np.ndarray, *, box: int = BOX, pixel_size: float, blur: float = 0.0) -> np.ndarray:
    """Projection of the particle, shape (box, box), largest value about 1.

    ``blur`` (Å) widens every blob, which is what a lower resolution does to it.
    """
    positions, widths, weights = _blobs()
    xy = (positions @ orientation.T)[:, :2]
    sigma = np.sqrt(widths**2 + blur**2)
    weights = weights * (widths / sigma) ** 2
    axis = (np.arange(box) - box / 2) * pixel_size
    gx = np.exp(-0.5 * ((axis[None, :] - xy[:, :1]) / sigma[:, None]) ** 2)
    gy = np.exp(-0.5 * ((axis[None, :] - xy[:, 1:]) / sigma[:, None]) ** 2)
    return ((gy * weights[:, None]).T @ gx / 5.0).astype(np.float32)


@functools.lru_cache(maxsize=2)
def _bank(pixel_size: float) -> np.ndarray:
    """Projections in random orientations, shape (BANK, BOX, BOX); drawn from again and again, as rendering
    each particle of each micrograph anew would be most of the demo's work."""
    rng = np.random.default_rng(3)
    bank = np.empty((BANK, BOX, BOX), dtype=np.float32)
    for k in range(BANK):
        # Barrels like to lie on their side or stand upright, less often anything between.
        kind = rng.random()
        if kind < 0.5:
            tilt = math.pi / 2 + rng.normal(0, 0.12)
        elif kind < 0.75:
            tilt = rng.normal(0, 0.1)
        else:
            tilt = math.acos(rng.uniform(-1, 1))
        orientation = rotation(rng.uniform(0, 2 * math.pi), tilt, rng.uniform(0, 2 * math.pi))
        bank[k] = project(orientation, pixel_size=pixel_size)
    return bank


# Micrographs


@functools.lru_cache(maxsize=2)
def _frequencies(size: int, pixel_size: float) -> tuple[np.ndarray, np.ndarray]:
    """Frequencies (1/Å) of a real transform of a square image, broadcastable to (size, size // 2 + 1)."""
    return (
        np.fft.rfftfreq(size, pixel_size)[None, :].astype(np.float32),
        np.fft.fftfreq(size, pixel_size)[:, None].astype(np.float32),
    )


def micrograph(acquisition: Acquisition, index: int) -> np.ndarray:
    """The corrected micrograph of exposure ``index``, shape (size, size), float32, about zero mean.

    Particles and amorphous ice are imaged through the exposure's CTF, shot noise is not; thick ice adds
    crystals and takes contrast away.
    """
    instrument = acquisition.instrument
    exposure = acquisition.exposure(index)
    rng = acquisition.rng("image", index)
    size, pixel = instrument.micrograph_size, instrument.micrograph_pixel_size
    canvas = np.zeros((size + 2 * BOX, size + 2 * BOX), dtype=np.float32)

    bank = _bank(pixel)
    for x, y in acquisition.positions(index):
        image = bank[rng.integers(len(bank))]
        if rng.random() < 0.5:
            image = image[:, ::-1]
        image = np.rot90(image, rng.integers(4))
        left, top = round(float(x)) + BOX // 2, round(float(y)) + BOX // 2
        canvas[top : top + BOX, left : left + BOX] += image
    if exposure.badness > 0.05:
        _add_ice_crystals(canvas, exposure.badness, rng)
    canvas = canvas[BOX : BOX + size, BOX : BOX + size]

    fx, fy = _frequencies(size, pixel)
    s2 = fx**2 + fy**2
    # Slow changes are kept below the CTF's first peak, as inelastic and amplitude contrast do in real
    # micrographs.
    specimen = np.fft.rfft2(canvas) * PROTEIN_CONTRAST
    specimen += np.fft.rfft2(rng.standard_normal((size, size), dtype=np.float32)) * (
        0.16 + 0.25 * exposure.badness
    )
    envelope = np.exp(-0.25 * (60 + 200 * exposure.badness) * s2)
    # The sign makes protein dark, as in a micrograph that has not been inverted.
    transfer = _exposure_ctf(fx, fy, exposure, instrument) - 0.3 * np.exp(-s2 / (2 * 0.009**2))
    image = np.fft.irfft2(specimen * envelope * transfer, s=(size, size))
    image *= 1 - 0.35 * exposure.badness
    image += 0.5 * rng.standard_normal((size, size), dtype=np.float32)
    image += _thickness_gradient(size, rng)
    return image.astype(np.float32)


def _thickness_gradient(size: int, rng: np.random.Generator) -> np.ndarray:
    """Ice is thinner in the middle of a hole: a slow change of grey across the field."""
    axis = np.linspace(-1, 1, size, dtype=np.float32)
    cx, cy = rng.uniform(-1.2, 1.2, 2)
    return -0.07 * ((axis[None, :] - cx) ** 2 + (axis[:, None] - cy) ** 2)


def _add_ice_crystals(canvas: np.ndarray, badness: float, rng: np.random.Generator) -> None:
    """Dark lumps of crystalline ice, with the hard edges particles do not have."""
    size = canvas.shape[0]
    for _ in range(rng.poisson(7 * badness)):
        radius = rng.uniform(18, 62)
        x, y = rng.uniform(BOX, size - BOX, 2)
        reach = int(radius * 1.5)
        x0, y0 = max(int(x) - reach, 0), max(int(y) - reach, 0)
        x1, y1 = min(int(x) + reach, size), min(int(y) + reach, size)
        yy, xx = np.mgrid[y0:y1, x0:x1].astype(np.float32)
        angle = np.arctan2(yy - y, xx - x)
        outline = radius * np.ones_like(angle)
        for lobes, depth in ((2, 0.1), (3, 0.07), (5, 0.05), (6, 0.05)):
            outline += radius * depth * np.cos(lobes * angle + rng.uniform(0, 2 * math.pi))
        depth_profile = np.clip((outline - np.hypot(xx - x, yy - y)) / 9, 0, 1)
        canvas[y0:y1, x0:x1] += rng.uniform(1.2, 2.4) * depth_profile


# Power spectra


@functools.lru_cache(maxsize=2)
def _centred_frequencies(pixel_size: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    axis = np.fft.fftshift(np.fft.fftfreq(SPECTRUM_BOX, pixel_size))
    fx, fy = axis[None, :], axis[:, None]
    return fx, fy, np.hypot(fx, fy)


def _ring_envelope(s: np.ndarray, resolution: float) -> np.ndarray:
    """How strong rings are at frequency ``s``: strong at first, lost in noise at about the fit's limit."""
    return np.exp(-2.2 * (s * resolution) ** 2)


def power_spectrum(acquisition: Acquisition, index: int) -> np.ndarray:
    """What motion correction writes for the CTF fit: an amplitude spectrum (512, 512), float32, zero
    frequency in the middle, with pixels of ``instrument.spectrum_pixel_size``."""
    instrument = acquisition.instrument
    exposure = acquisition.exposure(index)
    rng = acquisition.rng("spectrum", index)
    fx, fy, s = _centred_frequencies(instrument.spectrum_pixel_size)
    rings = np.abs(_exposure_ctf(fx, fy, exposure, instrument)) * _ring_envelope(s, exposure.ctf_resolution)
    background = 0.6 + 1.6 * np.exp(-((s / 0.045) ** 2)) + 0.5 * np.exp(-s / 0.09)
    ice = 0.06 * exposure.ice_ring * np.exp(-(((s - 1 / 3.7) / 0.008) ** 2))
    spectrum = (background + 1.1 * rings + ice) * (1 + 0.14 * rng.standard_normal(s.shape))
    middle = SPECTRUM_BOX // 2
    spectrum[middle, middle] = 0
    return (0.0027 * spectrum).astype(np.float32)


def ctf_diagnostic(spectrum: np.ndarray, acquisition: Acquisition, index: int) -> np.ndarray:
    """The picture CTFFIND writes beside its fit: shape (1, 512, 512), float32.

    The measured spectrum without its background; the model, as far as the fit is good, in one quadrant and
    the average over equal defocus in the next.
    """
    instrument = acquisition.instrument
    exposure = acquisition.exposure(index)
    fx, fy, s = _centred_frequencies(instrument.spectrum_pixel_size)
    step = s[SPECTRUM_BOX // 2, SPECTRUM_BOX // 2 + 1]
    shell = np.rint(s / step).astype(int)
    shells = shell.max() + 1
    count = np.bincount(shell.ravel(), minlength=shells)
    mean = np.bincount(shell.ravel(), spectrum.ravel(), minlength=shells) / count
    # The background is the average smoothed over more than a ring's width; the scale is the noise about it.
    kernel = np.hanning(27)
    padded = np.pad(mean, 13, mode="edge")
    smooth = np.convolve(padded, kernel / kernel.sum(), mode="valid")
    scale = 0.16 * smooth
    picture = ((spectrum - smooth[shell]) / scale[shell]).astype(np.float32)

    transfer = np.abs(_exposure_ctf(fx, fy, exposure, instrument))
    half = SPECTRUM_BOX // 2
    corner = (slice(0, half), slice(0, half))
    fitted = (s <= 1 / exposure.ctf_resolution)[corner]
    picture[corner] = np.where(fitted, 1.6 * transfer[corner] - 0.3, picture[corner])

    corner = (slice(0, half), slice(half, SPECTRUM_BOX))
    # Equal phase rather than equal radius, so astigmatism does not wash the average out: bin by the radius at
    # which the mean defocus has the same phase.
    azimuth = np.arctan2(fy, fx)
    difference = exposure.defocus_u - exposure.defocus_v
    mean_defocus = 0.5 * (exposure.defocus_u + exposure.defocus_v)
    local = mean_defocus + 0.5 * difference * np.cos(2 * (azimuth - math.radians(exposure.defocus_angle)))
    equal = np.rint(s * np.sqrt(np.clip(local / mean_defocus, 0, None)) / step).astype(int)
    equal = np.minimum(equal, shells - 1)
    hits = np.maximum(np.bincount(equal.ravel(), minlength=shells), 1)
    average = np.bincount(
        equal.ravel(), ((spectrum - smooth[shell]) / scale[shell]).ravel(), minlength=shells
    )
    picture[corner] = (average / hits)[equal[corner]]
    picture[s < FIT_FROM] = 0
    return np.clip(picture, -3, 3)[None].astype(np.float32)


# 2D classes


def class_views() -> list[tuple[float, float, float]]:
    """Orientations (rot, tilt, psi, radians) of the classes that will become views of the particle."""
    rng = np.random.default_rng(11)
    views = [(0.0, 0.0, 0.0), (0.0, math.pi / 2, 0.0), (0.22, math.pi / 2, 0.6), (0.0, 0.12, 0.9)]
    while len(views) < 15:
        tilt = math.acos(rng.uniform(0, 1)) if len(views) > 6 else math.pi / 2 + rng.normal(0, 0.1)
        views.append((rng.uniform(0, 2 * math.pi), tilt, rng.uniform(0, 2 * math.pi)))
    return views


def class_averages(
    resolutions: np.ndarray, shares: np.ndarray, *, progress: float, pixel_size: float, seed: int
) -> np.ndarray:
    """Class averages, shape (classes, BOX, BOX), float32.

    ``resolutions`` (Å) and ``shares`` (fractions of all particles), one each per class; ``progress`` runs
    from 0 (random averages, all alike) to 1 (converged). Empty classes are blank, as in RELION.
    """
    rng = np.random.default_rng([seed, 5])
    views = class_views()
    axis = (np.arange(BOX) - BOX / 2) * pixel_size
    radius = np.hypot(axis[None, :], axis[:, None])
    mask = 0.5 * (1 - np.tanh((radius - 88) / 7))
    s2 = np.add.outer(np.fft.fftfreq(BOX, pixel_size) ** 2, np.fft.rfftfreq(BOX, pixel_size) ** 2)
    featureless = np.exp(-0.5 * (radius / 42) ** 2)
    averages = np.zeros((len(shares), BOX, BOX), dtype=np.float32)
    for k, (resolution, share) in enumerate(zip(resolutions, shares, strict=True)):
        noise_source = rng.standard_normal((BOX, BOX))
        junk_centre, junk_width = rng.uniform(-45, 45, 2), rng.uniform(18, 40)
        if share <= 0:
            continue
        blur = 0.2 * resolution
        if k < len(views):
            signal = project(rotation(*views[k]), pixel_size=pixel_size, blur=blur)
        else:
            off = np.hypot(axis[None, :] - junk_centre[0], axis[:, None] - junk_centre[1])
            signal = 0.9 * np.exp(-0.5 * (off / junk_width) ** 2) + 0.3 * featureless
        image = progress * signal + (1 - progress) * 0.8 * featureless
        low_pass = np.exp(-0.5 * s2 * resolution**2 / 1.2)
        grain = np.fft.irfft2(np.fft.rfft2(noise_source) * low_pass, s=(BOX, BOX))
        grain /= grain.std()
        image = image + grain * np.clip(0.012 / math.sqrt(share), 0.02, 0.16)
        # Solvent flattened and set to about zero, with the dark halo that per-class filtering leaves.
        averages[k] = (image - 0.12 * np.exp(-(((radius - 95) / 26) ** 2))) * mask
    return 4 * averages
