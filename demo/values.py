"""Plausible measurements of a single-particle session that never took place.

Everything about exposure number ``i`` follows from the seed and ``i`` alone, so a pipeline that is stopped
and started again, or a loader that fills a finished session, sees the same facility. Times are the one
exception: they come from whoever asks, because the exposure is taken "now".

The session modelled: a 300 kV microscope with energy filter and a 4k detector at 130,000x, three exposures in
each foil hole, some forty exposures in a grid square, defocus targets stepped through from hole to hole. One
grid square early on, and about one in six later, has thick crystalline ice: fits get worse and fewer
particles are found.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from datetime import datetime

import numpy as np

EXPOSURES_PER_HOLE = 3
DEFOCUS_TARGETS_UM = (0.8, 1.0, 1.2, 1.4, 1.6, 1.8, 2.0, 2.2)
# Motion is called early while the dose given so far is at most this (RELION's own split), in e-/Å².
EARLY_DOSE = 4.0


@dataclass(frozen=True)
class Instrument:
    """What the microscope, camera and motion correction were set to."""

    voltage: float = 300.0  # kV
    cs: float = 2.7  # mm
    amplitude_contrast: float = 0.1
    pixel_size: float = 0.94  # Å, of the movie
    detector: int = 4096  # pixels each way
    binning: int = 4  # of the corrected micrograph; keeps the demo's files small
    frames: int = 40
    dose_per_frame: float = 1.05  # e-/Å²
    particle_diameter: float = 180.0  # Å, of the mask around the particle

    @property
    def micrograph_pixel_size(self) -> float:
        """Pixel size of the corrected micrograph in Å."""
        return self.pixel_size * self.binning

    @property
    def micrograph_size(self) -> int:
        """Width and height of the corrected micrograph in pixels."""
        return self.detector // self.binning

    @property
    def spectrum_pixel_size(self) -> float:
        """Pixel size of the power spectrum in Å.

        RELION's own motion correction crops the movie's transform to the even size that brings the pixel size
        closest to 1.4 Å from below.
        """
        needed = math.ceil(self.detector * self.pixel_size / 1.4)
        needed += needed % 2
        return self.detector * self.pixel_size / needed

    @property
    def wavelength(self) -> float:
        """Relativistic electron wavelength in Å."""
        volts = self.voltage * 1e3
        return 12.2642598 / math.sqrt(volts * (1 + 0.978475598e-6 * volts))


@dataclass(frozen=True)
class GridSquare:
    """One square of the grid: ``first`` and ``last`` are exposure numbers, last excluded."""

    number: int
    name: str
    first: int
    last: int
    bad: bool
    defocus_offset: float  # Å
    stage_x: float  # µm
    stage_y: float  # µm


@dataclass(frozen=True)
class Exposure:
    """One exposure and what a pipeline will find out about it.

    Lengths in Å unless the name says otherwise, angles in degrees. ``shifts`` has shape (frames, 2): the
    global shift of each frame against the first, x then y, in movie pixels, as RELION keeps them.
    """

    index: int
    grid_square: str
    foil_hole: str
    area: str
    serial: int
    stage_x: float  # µm
    stage_y: float  # µm
    beam_shift_x: float
    beam_shift_y: float
    defocus_u: float
    defocus_v: float
    defocus_angle: float
    ctf_resolution: float
    ctf_score: float
    ice_ring: float
    badness: float  # 0 clear ice to 1 thick and crystalline; drives the image, never written as a column
    particles: int
    shifts: np.ndarray

    def stem(self, taken_at: datetime) -> str:
        """The movie's name without extension, as EPU writes it; ``taken_at`` in the microscope computer's
        time."""
        return f"FoilHole_{self.foil_hole}_Data_{self.area}_{self.serial}_{taken_at:%Y%m%d_%H%M%S}_fractions"

    def movie(self, taken_at: datetime) -> str:
        """The movie's path below the session's movie folder."""
        return f"GridSquare_{self.grid_square}/Data/{self.stem(taken_at)}.tiff"

    def motion_pixels(self, instrument: Instrument) -> tuple[float, float, float]:
        """Total, early and late motion in movie pixels: the path length of the global shifts.

        A step counts as early while the dose up to and including its frame is at most 4 e-/Å².
        """
        steps = np.hypot(*np.diff(self.shifts, axis=0).T)
        dose = np.arange(2, len(self.shifts) + 1) * instrument.dose_per_frame
        early = float(steps[dose <= EARLY_DOSE].sum())
        total = float(steps.sum())
        return total, early, total - early

    def motion_angstrom(self, instrument: Instrument) -> tuple[float, float, float]:
        """Total, early and late motion in Å."""
        return tuple(value * instrument.pixel_size for value in self.motion_pixels(instrument))


class Acquisition:
    """The exposures of one session, numbered from 0, all derived from ``seed``."""

    def __init__(self, seed: int = 1, instrument: Instrument | None = None):
        self.seed = seed
        self.instrument = instrument or Instrument()
        self._squares: list[GridSquare] = []
        self._square_ids = 24_000_000 + int(self._rng("squares", 0).integers(0, 900_000))
        self._first_bad = 1 + seed % 3

    def _rng(self, what: str, number: int) -> np.random.Generator:
        stream = int.from_bytes(what.encode()[:8], "big")
        return np.random.default_rng([self.seed, stream, number])

    def rng(self, what: str, number: int) -> np.random.Generator:
        """Random numbers that always come out the same for this seed, purpose and number."""
        return self._rng(what, number)

    def square_of(self, index: int) -> GridSquare:
        """The grid square exposure ``index`` is taken on."""
        if index < 0:
            raise ValueError(f"Exposures are numbered from 0, not {index}.")
        while not self._squares or self._squares[-1].last <= index:
            self._squares.append(self._next_square())
        return next(s for s in reversed(self._squares) if s.first <= index)

    def _next_square(self) -> GridSquare:
        number = len(self._squares)
        rng = self._rng("square", number)
        first = self._squares[-1].last if self._squares else 0
        holes = int(rng.integers(12, 18))
        bad = number == self._first_bad or (number > self._first_bad + 2 and rng.random() < 0.17)
        return GridSquare(
            number=number,
            name=str(self._square_ids + 37 * number + int(rng.integers(0, 30))),
            first=first,
            last=first + holes * EXPOSURES_PER_HOLE,
            bad=bad,
            defocus_offset=float(rng.normal(0, 450)),
            stage_x=float(rng.uniform(-420, 420)),
            stage_y=float(rng.uniform(-420, 420)),
        )

    def badness(self, index: int) -> float:
        """How bad the ice is at exposure ``index``, 0 to 1: it comes and goes across a bad square."""
        square = self.square_of(index)
        if not square.bad:
            return 0.0
        position = (index - square.first + 0.5) / (square.last - square.first)
        return math.sin(math.pi * position) ** 0.6

    @functools.lru_cache(maxsize=1024)  # noqa: B019 - a handful of acquisitions live as long as the process
    def exposure(self, index: int) -> Exposure:
        """Everything about exposure ``index``."""
        square = self.square_of(index)
        rng = self._rng("exposure", index)
        bad = self.badness(index)
        hole, shot = divmod(index, EXPOSURES_PER_HOLE)
        hole_rng = self._rng("hole", hole)

        target = DEFOCUS_TARGETS_UM[hole % len(DEFOCUS_TARGETS_UM)] * 1e4
        drift = 350 * math.sin(index / 41) + 200 * math.sin(index / 13 + 1)
        mean = target + drift + square.defocus_offset + hole_rng.normal(0, 260) + rng.normal(0, 90)
        mean += bad * rng.normal(0, 700)
        astigmatism = abs(170 + 80 * math.sin(index / 57) + rng.normal(0, 60)) + bad * abs(rng.normal(0, 350))
        mean = max(mean, 4500.0)
        angle = 35 + 20 * math.sin(index / 90) + rng.normal(0, 6) + bad * rng.normal(0, 25)

        resolution = 3.02 + rng.gamma(2.2, 0.17) + 0.12 * (mean / 1e4 - 0.8) + bad * rng.uniform(1.2, 4.2)
        if rng.random() < 0.025:  # a shot on carbon, a crack, a jump of the stage
            resolution += rng.uniform(2.5, 8)
        score = float(np.clip(0.19 - 0.025 * (resolution - 3) + rng.normal(0, 0.012), 0.01, 0.3))
        ice = float(rng.lognormal(math.log(0.55), 0.28) * (1 + 9 * bad * rng.uniform(0.6, 1.2)))

        particles = 305 + 45 * math.sin(index / 23) + rng.normal(0, 28)
        particles *= 1 - 0.45 * bad
        particles = int(np.clip(particles, 150, 400))

        beam = ((0.0, 0.62), (0.54, -0.31), (-0.54, -0.31))[shot]
        return Exposure(
            index=index,
            grid_square=square.name,
            foil_hole=str(self._square_ids + 61_000 + hole),
            area=str(self._square_ids - 4_100 + 12 * shot),
            serial=4,
            stage_x=round(square.stage_x + 2.5 * (hole % 5), 4),
            stage_y=round(square.stage_y + 2.5 * ((hole // 5) % 4), 4),
            beam_shift_x=round(beam[0] + float(rng.normal(0, 0.004)), 5),
            beam_shift_y=round(beam[1] + float(rng.normal(0, 0.004)), 5),
            defocus_u=mean + astigmatism / 2,
            defocus_v=mean - astigmatism / 2,
            defocus_angle=float((angle + 90) % 180 - 90),
            ctf_resolution=float(resolution),
            ctf_score=score,
            ice_ring=ice,
            badness=bad,
            particles=particles,
            shifts=self._shifts(index, bad),
        )

    def _shifts(self, index: int, bad: float) -> np.ndarray:
        """Beam-induced motion: fast while the first electrons arrive, then a slow drift with some jitter."""
        rng = self._rng("motion", index)
        frames = self.instrument.frames
        steps = np.arange(frames - 1)
        strength = rng.lognormal(math.log(1.0), 0.35) * (1 + 0.8 * bad)
        if rng.random() < 0.02:  # the stage had not settled
            strength *= rng.uniform(3, 6)
        early = 1.15 * strength * np.exp(-steps / 2.6)
        drift = 0.17 * strength * np.ones(frames - 1)
        direction = rng.uniform(0, 2 * math.pi)
        turn = direction + rng.normal(0, 0.9)
        x = early * math.cos(direction) + drift * math.cos(turn) + rng.normal(0, 0.07, frames - 1)
        y = early * math.sin(direction) + drift * math.sin(turn) + rng.normal(0, 0.07, frames - 1)
        shifts = np.zeros((frames, 2))
        shifts[1:, 0] = np.cumsum(x)
        shifts[1:, 1] = np.cumsum(y)
        return shifts

    def positions(self, index: int) -> np.ndarray:
        """Centres of the particles on the micrograph of exposure ``index``, shape (particles, 2), in
        micrograph pixels from the corner, x then y. No two closer than about one particle's width."""
        exposure = self.exposure(index)
        rng = self._rng("where", index)
        size = self.instrument.micrograph_size
        gap = 128.0 / self.instrument.micrograph_pixel_size
        margin = 0.5 * self.instrument.particle_diameter / self.instrument.micrograph_pixel_size
        # Candidates on a jittered hexagonal lattice: as irregular as ice allows, and no rejection loop.
        pitch = gap * 1.16
        rows = np.arange(margin, size - margin, pitch * math.sqrt(3) / 2)
        points = []
        for row, y in enumerate(rows):
            xs = np.arange(margin + (row % 2) * pitch / 2, size - margin, pitch)
            points.append(np.column_stack([xs, np.full(len(xs), y)]))
        points = np.concatenate(points)
        points += rng.uniform(-0.16, 0.16, points.shape) * pitch
        # Particles avoid one side of a thin hole: weight candidates by a smooth random field.
        centre = rng.uniform(0.3, 0.7, 2) * size
        spread = np.hypot(*(points - centre).T) / size
        keep = np.argsort(spread * 0.35 + rng.random(len(points)))[: exposure.particles]
        return points[np.sort(keep)]

    def picks(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """What a picker finds on exposure ``index``: coordinates (n, 2) in micrograph pixels, x then y, and
        figures of merit (n,), best first. Mostly the particles that are there, a little off, and some that
        are not."""
        truth = self.positions(index)
        rng = self._rng("picks", index)
        found = truth + rng.normal(0, 1.2, truth.shape)
        merit = rng.gamma(9, 0.011, len(found)) + 0.02
        false = rng.random(len(found)) < 0.05 + 0.12 * self.badness(index)
        size = self.instrument.micrograph_size
        found[false] = rng.uniform(0.03 * size, 0.97 * size, (int(false.sum()), 2))
        merit[false] *= 0.55
        order = np.argsort(-merit)
        return np.clip(found, 0, size - 1)[order], merit[order]
