"""A RELION 5 project that grows: folders, tables and images as RELION lays them out.

    Import/job001 -> MotionCorr/job002 -> CtfFind/job003 -> AutoPick/job004 -> Extract/jobNNN ->
    Class2D/jobNNN

Tables hold every row from the start; images (micrograph, power spectrum, CTF fit) only of the newest ``keep``
micrographs, and a classification only its newest two iterations, so the folder stays below about half a
gigabyte however long it runs. The movies (Movies/, as EPU leaves them) hold nothing, see ``demo.microscope``; the
extracted particle stacks are never written: nothing reads them.

What is done is read back from the tables, so a project that is opened again goes on where it was.
"""

from __future__ import annotations

import fcntl
import json
import os
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import mrcfile
import numpy as np

from demo import microscope, star
from demo.classification import ITERATIONS, iterate
from demo.images import BOX, CLASSES, ctf_diagnostic, micrograph, power_spectrum
from demo.values import Acquisition

MARKER = ".emhub_demo.json"
LOCK = ".emhub_demo.lock"
VERSION = "5.0-demo"
MOVIES = "Movies"
KEEP_IMAGES = 100
KEEP_ITERATIONS = 2
# A classification starts when this many micrographs are picked, and takes the newest of them.
CLASSIFY_AT = (12, 60, 200, 600, 1800)
CLASSIFY_NEWEST = 40

MOTION_COLUMNS = (
    "CtfPowerSpectrum MicrographName MicrographMetadata OpticsGroup "
    "AccumMotionTotal AccumMotionEarly AccumMotionLate"
)
CTF_COLUMNS = (
    "MicrographName OpticsGroup CtfImage DefocusU DefocusV CtfAstigmatism DefocusAngle "
    "CtfFigureOfMerit CtfMaxResolution CtfIceRingDensity"
)
EXTRACT_COLUMNS = (
    "CoordinateX CoordinateY AutopickFigureOfMerit ClassNumber AnglePsi ImageName MicrographName OpticsGroup "
    "CtfMaxResolution CtfFigureOfMerit DefocusU DefocusV DefocusAngle CtfBfactor CtfScalefactor PhaseShift"
)
CLASS2D_COLUMNS = (
    f"{EXTRACT_COLUMNS} GroupNumber AngleRot AngleTilt OriginXAngst OriginYAngst NormCorrection "
    "LogLikeliContribution MaxValueProbDistribution NrOfSignificantSamples"
)


class NotADemoProject(Exception):
    """The folder holds something else, or another process is writing it."""


@dataclass
class Job:
    """One line of the pipeline: ``outputs`` are (file, node type) pairs."""

    name: str
    type: str
    inputs: list[str]
    outputs: list[tuple[str, str]]
    options: dict[str, object] = field(default_factory=dict)
    command: str = ""
    succeeded: bool = False


@dataclass
class Round:
    """One extraction and classification: micrographs ``first`` to ``last`` (excluded), job numbers, and the
    last iteration written (-1: none yet)."""

    first: int
    last: int
    extract: int
    class2d: int
    iteration: int = -1


def write_mrc(path: Path, data: np.ndarray, pixel_size: float) -> None:
    """Write ``data`` as an MRC file in one step; ``pixel_size`` in Å."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    with mrcfile.new(temporary, overwrite=True) as handle:
        handle.set_data(data)
        handle.voxel_size = (pixel_size, pixel_size, 1.0)
    os.replace(temporary, path)


class Project:
    """The project in ``folder``; made when it is not there. One process at a time may hold it.

    Raises NotADemoProject when the folder has other contents or is being written by someone else.
    """

    def __init__(self, folder: Path, *, seed: int | None = None, keep: int = KEEP_IMAGES):
        self.folder = Path(folder)
        self.keep = keep
        self.folder.mkdir(parents=True, exist_ok=True)
        marker = self.folder / MARKER
        if not marker.exists() and any(self.folder.iterdir()):
            raise NotADemoProject(
                f"{self.folder} is not empty and was not made by this program; choose another folder."
            )
        self._lock = (self.folder / LOCK).open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.close()
            raise NotADemoProject(f"Another process is already writing {self.folder}.") from error
        if marker.exists():
            state = json.loads(marker.read_text())
        else:
            state = {"seed": 1 if seed is None else seed, "rounds": []}
        self.acquisition = Acquisition(state["seed"])
        self.instrument = self.acquisition.instrument
        self.rounds = [Round(**item) for item in state["rounds"]]
        self.jobs: list[Job] = []
        self._movies = star.rows_of(self.folder / "Import/job001/movies.star", "movies")
        self._motion = star.rows_of(
            self.folder / "MotionCorr/job002/corrected_micrographs.star", "micrographs"
        )
        self._ctf = star.rows_of(self.folder / "CtfFind/job003/micrographs_ctf.star", "micrographs")
        self._picks = star.rows_of(self.folder / "AutoPick/job004/autopick.star", "coordinate_files")
        # Written before the list of picks: when killed between the two it is one step ahead.
        self._summary = star.rows_of(self.folder / "AutoPick/job004/summary.star", "")[: self.picked]
        self._save()
        self._set_up()

    def close(self) -> None:
        """Let another process have the project."""
        self._lock.close()

    # How far each step is

    @property
    def imported(self) -> int:
        return len(self._movies)

    @property
    def corrected(self) -> int:
        return len(self._motion)

    @property
    def fitted(self) -> int:
        return len(self._ctf)

    @property
    def picked(self) -> int:
        return len(self._picks)

    def movie(self, index: int) -> str:
        """The movie of exposure ``index`` as the project names it."""
        return self._movies[index].split()[0]

    # Steps

    def import_movies(self, taken_at: list[datetime]) -> None:
        """Take and add one movie for each time, which is local to the microscope's computer."""
        for place, when in enumerate(taken_at, start=1):
            exposure = self.acquisition.exposure(self.imported)
            if place > len(taken_at) - self.keep:
                microscope.write_exposure(self.folder / MOVIES, exposure, self.instrument, when)
            self._movies.append(star.row([f"{MOVIES}/{exposure.movie(when)}", 1]))
        for index in range(self.imported - self.keep - 1, -1, -1):
            if not microscope.take_away(self.folder, self.movie(index)):
                break
        self._table("Import/job001/movies.star", "movies", "MicrographMovieName OpticsGroup", self._movies)

    def correct(self, upto: int) -> None:
        """Motion correction of the movies before number ``upto``."""
        start, upto = self.corrected, min(upto, self.imported)
        for index in range(start, upto):
            path = self._path("MotionCorr/job002", index)
            exposure = self.acquisition.exposure(index)
            if index >= upto - self.keep:
                image = micrograph(self.acquisition, index).astype(np.float16)
                write_mrc(self.folder / f"{path}.mrc", image, self.instrument.micrograph_pixel_size)
                spectrum = power_spectrum(self.acquisition, index)
                write_mrc(self.folder / f"{path}_PS.mrc", spectrum, self.instrument.spectrum_pixel_size)
            star.write(self.folder / f"{path}.star", self._motion_metadata(index))
            self._motion.append(
                star.row(
                    [
                        f"{path}_PS.mrc",
                        f"{path}.mrc",
                        f"{path}.star",
                        1,
                        *exposure.motion_pixels(self.instrument),
                    ]
                )
            )
        if upto > start:
            self._table(
                "MotionCorr/job002/corrected_micrographs.star",
                "micrographs",
                MOTION_COLUMNS,
                self._motion,
                optics={"MicrographPixelSize": self.instrument.micrograph_pixel_size},
            )
            self._prune_images()

    def fit_ctf(self, upto: int) -> None:
        """CTF estimation of the micrographs before number ``upto``."""
        start, upto = self.fitted, min(upto, self.corrected)
        for index in range(start, upto):
            path = self._path("CtfFind/job003", index)
            exposure = self.acquisition.exposure(index)
            if index >= self.corrected - self.keep:
                spectrum = power_spectrum(self.acquisition, index)
                picture = ctf_diagnostic(spectrum, self.acquisition, index)
                # CTFFIND leaves the reciprocal of the box size where a pixel size would be.
                write_mrc(self.folder / f"{path}_PS.ctf", picture, 1 / picture.shape[-1])
            star.write(self.folder / f"{path}_PS.txt", self._ctffind_text(index))
            self._ctf.append(
                star.row(
                    [
                        f"{self._path('MotionCorr/job002', index)}.mrc",
                        1,
                        f"{path}_PS.ctf:mrc",
                        exposure.defocus_u,
                        exposure.defocus_v,
                        exposure.defocus_u - exposure.defocus_v,
                        exposure.defocus_angle,
                        exposure.ctf_score,
                        exposure.ctf_resolution,
                        exposure.ice_ring,
                    ]
                )
            )
        if upto > start:
            self._table(
                "CtfFind/job003/micrographs_ctf.star",
                "micrographs",
                CTF_COLUMNS,
                self._ctf,
                optics={"MicrographPixelSize": self.instrument.micrograph_pixel_size},
            )

    def pick(self, upto: int) -> None:
        """Particle picking of the micrographs before number ``upto``."""
        start, upto = self.picked, min(upto, self.fitted)
        for index in range(start, upto):
            path = f"{self._path('AutoPick/job004', index)}_autopick.star"
            name = f"{self._path('MotionCorr/job002', index)}.mrc"
            points, merits = self.acquisition.picks(index)
            rows = [
                star.row([float(x), float(y), float(merit), 0, 0.0])
                for (x, y), merit in zip(points, merits, strict=True)
            ]
            columns = "CoordinateX CoordinateY AutopickFigureOfMerit ClassNumber AnglePsi"
            star.write(self.folder / path, star.loop("", columns, rows))
            self._picks.append(star.row([name, path]))
            self._summary.append(star.row([name, float(merits.mean()), len(points)]))
        if upto > start:
            star.write(
                self.folder / "AutoPick/job004/summary.star",
                star.loop("", "MicrographName AutopickFigureOfMerit GroupNrParticles", self._summary),
            )
            star.write(
                self.folder / "AutoPick/job004/autopick.star",
                star.loop("coordinate_files", "MicrographName MicrographCoordinates", self._picks),
            )

    # Classification

    @property
    def classifying(self) -> Round | None:
        """The classification that is running, if one is."""
        current = self.rounds[-1] if self.rounds else None
        return current if current and current.iteration < ITERATIONS else None

    def start_classification(self) -> bool:
        """Extract and begin a classification when the next mark is reached and none is running."""
        due = len(self.rounds) < len(CLASSIFY_AT) and self.picked >= CLASSIFY_AT[len(self.rounds)]
        if not due or self.classifying:
            return False
        number = 5 + 2 * len(self.rounds)
        current = Round(max(0, self.picked - CLASSIFY_NEWEST), self.picked, number, number + 1)
        self.rounds.append(current)
        self._set_up()
        self._extract(current)
        self._finish_job(f"Extract/job{current.extract:03d}/")
        self._save()
        return True

    def iterate_classification(self) -> int | None:
        """Write the running classification's next iteration; its number, or None when none is running."""
        current = self.classifying
        if current is None:
            return None
        current.iteration += 1
        self._write_iteration(current)
        self._save()
        if current.iteration == ITERATIONS:
            self._finish_job(f"Class2D/job{current.class2d:03d}/")
        return current.iteration

    def reopen(self) -> None:
        """Mark the jobs that follow the microscope as running again."""
        for job in self.jobs[:4]:
            job.succeeded = False
            (self.folder / job.name / "RELION_JOB_EXIT_SUCCESS").unlink(missing_ok=True)
        self._write_pipeline()

    def finish(self) -> None:
        """Mark every job as done."""
        for job in self.jobs:
            self._finish_job(job.name)

    # Writing

    def _save(self) -> None:
        state = {"seed": self.acquisition.seed, "rounds": [vars(item) for item in self.rounds]}
        star.write(self.folder / MARKER, json.dumps(state, indent=1) + "\n")

    def _path(self, job: str, index: int) -> str:
        """Where ``job`` keeps what belongs to exposure ``index``, without extension."""
        return f"{job}/{self.movie(index).rsplit('.', 1)[0]}"

    def _optics(self, **extra: object) -> str:
        values = {
            "OpticsGroupName": "opticsGroup1",
            "OpticsGroup": 1,
            "MicrographOriginalPixelSize": self.instrument.pixel_size,
            "Voltage": self.instrument.voltage,
            "SphericalAberration": self.instrument.cs,
            "AmplitudeContrast": self.instrument.amplitude_contrast,
            **extra,
        }
        return star.loop("optics", " ".join(values), [star.row(values.values())])

    def _table(self, path: str, name: str, columns, rows, optics: dict | None = None) -> None:
        star.write(self.folder / path, self._optics(**(optics or {})) + star.loop(name, columns, rows))

    def _motion_metadata(self, index: int) -> str:
        instrument = self.instrument
        general = {
            "ImageSizeX": instrument.detector,
            "ImageSizeY": instrument.detector,
            "ImageSizeZ": instrument.frames,
            "MicrographMovieName": self.movie(index),
            "MicrographBinning": float(instrument.binning),
            "MicrographOriginalPixelSize": instrument.pixel_size,
            "MicrographDoseRate": instrument.dose_per_frame,
            "MicrographPreExposure": 0.0,
            "Voltage": instrument.voltage,
            "MicrographStartFrame": 1,
            "MotionModelVersion": 0,
        }
        shifts = [
            star.row([frame, float(x), float(y)])
            for frame, (x, y) in enumerate(self.acquisition.exposure(index).shifts, 1)
        ]
        columns = "MicrographFrameNumber MicrographShiftX MicrographShiftY"
        return star.single("general", general) + star.loop("global_shift", columns, shifts)

    def _ctffind_text(self, index: int) -> str:
        """The fit's values as CTFFIND 4 writes them; its header says um where the values are Å."""
        instrument, exposure = self.instrument, self.acquisition.exposure(index)
        return (
            f"# Output from CTFFind version 4.1.14, run on {datetime.now().astimezone():%Y-%m-%d %H:%M:%S}\n"
            f"# Input file: {self._path('MotionCorr/job002', index)}_PS.mrc ; Number of micrographs: 1\n"
            f"# Pixel size: {instrument.spectrum_pixel_size:.3f} Angstroms ; acceleration voltage: "
            f"{instrument.voltage:.1f} keV ; spherical aberration: {instrument.cs:.2f} mm ; "
            f"amplitude contrast: {instrument.amplitude_contrast:.2f}\n"
            "# Box size: 512 pixels ; min. res.: 30.0 Angstroms ; max. res.: 3.0 Angstroms ; "
            "min. def.: 5000.0 um; max. def. 50000.0 um\n"
            "# Columns: #1 - micrograph number; #2 - defocus 1 [Angstroms]; #3 - defocus 2; #4 - azimuth of "
            "astigmatism; #5 - additional phase shift [radians]; #6 - cross correlation; #7 - spacing "
            "(in Angstroms) up to which CTF rings were fit successfully\n"
            f"1.000000 {exposure.defocus_u:.6f} {exposure.defocus_v:.6f} {exposure.defocus_angle:.6f} "
            f"0.000000 {exposure.ctf_score:.6f} {exposure.ctf_resolution:.6f}\n"
        )

    def _prune_images(self) -> None:
        """Remove the images of micrographs older than the newest ``keep``, newest of the old first, until a
        micrograph has none: those before it went earlier."""
        for index in range(self.corrected - self.keep - 1, -1, -1):
            images = [
                self.folder / f"{self._path('MotionCorr/job002', index)}.mrc",
                self.folder / f"{self._path('MotionCorr/job002', index)}_PS.mrc",
                self.folder / f"{self._path('CtfFind/job003', index)}_PS.ctf",
            ]
            there = [image for image in images if image.exists()]
            if not there:
                return
            for image in there:
                image.unlink()

    def _extracted_rows(self, current: Round) -> list[tuple[str, str, int]]:
        """Each particle as the part of its row before the class number, the part after, and its group."""
        rows = []
        for group, index in enumerate(range(current.first, current.last), 1):
            exposure = self.acquisition.exposure(index)
            stack = f"{self._path(f'Extract/job{current.extract:03d}', index)}.mrcs"
            after = " ".join(
                star.value(item)
                for item in (
                    f"{self._path('MotionCorr/job002', index)}.mrc",
                    1,
                    exposure.ctf_resolution,
                    exposure.ctf_score,
                    exposure.defocus_u,
                    exposure.defocus_v,
                    exposure.defocus_angle,
                    0.0,
                    1.0,
                    0.0,
                )
            )
            points, merits = self.acquisition.picks(index)
            for number, ((x, y), merit) in enumerate(zip(points, merits, strict=True), 1):
                before = f"{x:12.6f} {y:12.6f} {merit:12.6f}"
                rows.append((before, f"{number:06d}@{stack} {after}", group))
        return rows

    def _particle_optics(self) -> str:
        return self._optics(
            ImagePixelSize=self.instrument.micrograph_pixel_size,
            ImageSize=BOX,
            ImageDimensionality=2,
            CtfDataAreCtfPremultiplied=0,
        )

    def _extract(self, current: Round) -> None:
        rows = [
            f"{before} {0:12d} {0.0:12.6f} {after} " for before, after, _ in self._extracted_rows(current)
        ]
        star.write(
            self.folder / f"Extract/job{current.extract:03d}/particles.star",
            self._particle_optics() + star.loop("particles", EXTRACT_COLUMNS, rows),
        )

    def _write_iteration(self, current: Round) -> None:
        """RELION writes data, sampling and classes first and the optimiser, which names them, last."""
        pixel_size = self.instrument.micrograph_pixel_size
        seed = self.acquisition.seed * 1000 + current.class2d
        particles = self._extracted_rows(current)
        result = iterate(current.iteration, particles=len(particles), pixel_size=pixel_size, seed=seed)
        job = f"Class2D/job{current.class2d:03d}"
        root = f"{job}/run_it{current.iteration:03d}"
        rng = np.random.default_rng([seed, current.iteration])
        angles = rng.uniform(-180, 180, len(particles))
        offsets = rng.normal(0, 4, (len(particles), 2))
        pmax = np.clip(rng.normal(result.average_pmax, 0.15, len(particles)), 0.02, 1)
        rows = [
            f"{before} {number + 1:12d} {angle:12.6f} {after} {group:12d} {0.0:12.6f} {0.0:12.6f} "
            f"{dx:12.6f} {dy:12.6f} {1.0:12.6f} {5000.0:12.6f} {chance:12.6f} {3:12d} "
            for (before, after, group), number, angle, (dx, dy), chance in zip(
                particles, result.assignment, angles, offsets, pmax, strict=True
            )
        ]
        star.write(
            self.folder / f"{root}_data.star",
            self._particle_optics() + star.loop("particles", CLASS2D_COLUMNS, rows),
        )
        averages = result.averages(pixel_size, seed)
        write_mrc(self.folder / f"{root}_classes.mrcs", averages, pixel_size)
        star.write(self.folder / f"{root}_model.star", self._model(current, result, root))
        star.write(
            self.folder / f"{root}_sampling.star",
            star.single(
                "sampling_general",
                {"Is3DSampling": 0, "Is3DTranslationalSampling": 0, "PsiStep": 12.0, "OffsetRange": 18.8},
            ),
        )
        star.write(
            self.folder / f"{root}_optimiser.star",
            f"# RELION optimiser; version {VERSION}\n# --o {job}/run --iter {ITERATIONS}\n"
            + star.single(
                "optimiser_general",
                {
                    "OutputRootName": f"{job}/run",
                    "ModelStarFile": f"{root}_model.star",
                    "ExperimentalDataStarFile": f"{root}_data.star",
                    "OrientSamplingStarFile": f"{root}_sampling.star",
                    "CurrentIteration": current.iteration,
                    "NumberOfIterations": ITERATIONS,
                    "DoSplitRandomHalves": 0,
                    "ParticleDiameter": self.instrument.particle_diameter,
                    "RandomSeed": seed,
                },
            ),
        )
        old = self.folder / f"{job}/run_it{current.iteration - KEEP_ITERATIONS:03d}"
        for ending in ("optimiser.star", "sampling.star", "model.star", "data.star", "classes.mrcs"):
            with suppress(FileNotFoundError):
                old.with_name(f"{old.name}_{ending}").unlink()

    def _model(self, current: Round, result, root: str) -> str:
        pixel_size = self.instrument.micrograph_pixel_size
        general = {
            "ReferenceDimensionality": 2,
            "DataDimensionality": 2,
            "OriginalImageSize": BOX,
            "CurrentResolution": result.best_resolution,
            "CurrentImageSize": BOX,
            "PaddingFactor": 2.0,
            "PixelSize": pixel_size,
            "NrClasses": CLASSES,
            "NrGroups": current.last - current.first,
            "NrOpticsGroups": 1,
            "Tau2FudgeFactor": 2.0,
            "SigmaOffsetsAngst": 6.0,
            "AveragePmax": result.average_pmax,
        }
        classes = [
            star.row(
                [
                    f"{number + 1:06d}@{root}_classes.mrcs",
                    float(result.shares[number]),
                    999.0 if result.resolutions[number] > 15 else 0.55 * float(result.resolutions[number]),
                    999.0 if result.resolutions[number] > 15 else 0.6 * float(result.resolutions[number]),
                    float(result.resolutions[number]),
                    1.0 if result.counts[number] else 0.0,
                    0.0,
                    0.0,
                ]
            )
            for number in range(CLASSES)
        ]
        columns = (
            "ReferenceImage ClassDistribution AccuracyRotations AccuracyTranslationsAngst "
            "EstimatedResolution OverallFourierCompleteness ClassPriorOffsetX ClassPriorOffsetY"
        )
        return star.single("model_general", general) + star.loop("model_classes", columns, classes)

    # The pipeline

    def _set_up(self) -> None:
        """Job folders with their parameters, and default_pipeline.star."""
        (self.folder / ".gui_projectdir").touch()
        done = {
            job.name: job.succeeded or (self.folder / job.name / "RELION_JOB_EXIT_SUCCESS").exists()
            for job in self._planned_jobs()
        }
        self.jobs = self._planned_jobs()
        for job in self.jobs:
            job.succeeded = done[job.name]
            folder = self.folder / job.name
            folder.mkdir(parents=True, exist_ok=True)
            if (folder / "job.star").exists():
                continue
            about = {"JobTypeLabel": job.type, "JobIsContinue": 0, "JobIsTomo": 0}
            options = [
                f"{name:>10} {star.value(str(value)):>10} " for name, value in sorted(job.options.items())
            ]
            star.write(
                folder / "note.txt",
                f" ++++ Executing new job on {datetime.now().astimezone():%a %b %d %H:%M:%S %Y}\n"
                " ++++ with the following command(s): \n"
                f"{job.command} --pipeline_control {job.name}\n ++++ \n",
            )
            (folder / "run.out").touch()
            (folder / "run.err").touch()
            star.write(
                folder / "job.star",
                star.single("job", about)
                + star.loop("joboptions_values", "JobOptionVariable JobOptionValue", options),
            )
        self._write_pipeline()

    def _finish_job(self, name: str) -> None:
        for job in self.jobs:
            if job.name == name:
                job.succeeded = True
                (self.folder / name / "RELION_JOB_EXIT_SUCCESS").touch()
        self._write_pipeline()

    def _planned_jobs(self) -> list[Job]:
        instrument = self.instrument
        movies = "Import/job001/movies.star"
        corrected = "MotionCorr/job002/corrected_micrographs.star"
        fitted = "CtfFind/job003/micrographs_ctf.star"
        picked = "AutoPick/job004/autopick.star"
        jobs = [
            Job(
                "Import/job001/",
                "relion.import.movies",
                [],
                [(movies, "MicrographMovieGroupMetadata.star.relion")],
                {
                    "Cs": instrument.cs,
                    "Q0": instrument.amplitude_contrast,
                    "angpix": instrument.pixel_size,
                    "do_raw": "Yes",
                    "fn_in_raw": "Movies/GridSquare_*/Data/*_fractions.tiff",
                    "is_multiframe": "Yes",
                    "kV": f"{instrument.voltage:g}",
                    "optics_group_name": "opticsGroup1",
                },
                'relion_import --do_movies --optics_group_name "opticsGroup1" '
                f"--angpix {instrument.pixel_size} --kV {instrument.voltage:g} --Cs {instrument.cs} "
                f'--Q0 {instrument.amplitude_contrast} --i "Movies/GridSquare_*/Data/*_fractions.tiff" '
                "--odir Import/job001/ --ofile movies.star",
            ),
            Job(
                "MotionCorr/job002/",
                "relion.motioncorr.own",
                [movies],
                [(corrected, "MicrographGroupMetadata.star.relion.motioncorr")],
                {
                    "bfactor": 150,
                    "bin_factor": instrument.binning,
                    "do_dose_weighting": "Yes",
                    "do_float16": "Yes",
                    "do_own_motioncor": "Yes",
                    "do_save_ps": "Yes",
                    "dose_per_frame": instrument.dose_per_frame,
                    "input_star_mics": movies,
                    "patch_x": 1,
                    "patch_y": 1,
                },
                f"`which relion_run_motioncorr` --i {movies} --o MotionCorr/job002/ --use_own --float16 "
                f"--bin_factor {instrument.binning} --bfactor 150 "
                f"--dose_per_frame {instrument.dose_per_frame} --patch_x 1 --patch_y 1 "
                "--dose_weighting --grouping_for_ps 4 --only_do_unfinished",
            ),
            Job(
                "CtfFind/job003/",
                "relion.ctffind.ctffind4",
                [corrected],
                [(fitted, "MicrographGroupMetadata.star.relion.ctf")],
                {
                    "box": 512,
                    "dast": 100,
                    "dfmax": 50000,
                    "dfmin": 5000,
                    "dfstep": 500,
                    "do_phaseshift": "No",
                    "input_star_mics": corrected,
                    "resmax": 3,
                    "resmin": 30,
                    "use_given_ps": "Yes",
                },
                f"`which relion_run_ctffind` --i {corrected} --o CtfFind/job003/ --Box 512 --ResMin 30 "
                "--ResMax 3 --dFMin 5000 --dFMax 50000 --FStep 500 --dAst 100 --is_ctffind4 --fast_search "
                "--use_given_ps --only_do_unfinished",
            ),
            Job(
                "AutoPick/job004/",
                "relion.autopick.log",
                [fitted],
                [(picked, "MicrographCoordsGroup.star.relion.autopick")],
                {
                    "do_log": "Yes",
                    "fn_input_autopick": fitted,
                    "log_diam_max": 160,
                    "log_diam_min": 110,
                    "log_maxres": 20,
                },
                f"`which relion_autopick` --i {fitted} --odir AutoPick/job004/ --pickname autopick --LoG "
                "--LoG_diam_min 110 --LoG_diam_max 160 --shrink 0 --lowpass 20 --only_do_unfinished",
            ),
        ]
        for current in self.rounds:
            extract, class2d = f"Extract/job{current.extract:03d}/", f"Class2D/job{current.class2d:03d}/"
            particles = f"{extract}particles.star"
            jobs.append(
                Job(
                    extract,
                    "relion.extract",
                    [fitted, picked],
                    [(particles, "ParticleGroupMetadata.star.relion")],
                    {
                        "coords_suffix": picked,
                        "do_float16": "Yes",
                        "do_invert": "Yes",
                        "do_norm": "Yes",
                        "extract_size": BOX,
                        "star_mics": fitted,
                    },
                    f"`which relion_preprocess` --i {fitted} --coord_list {picked} --part_star {particles} "
                    f"--part_dir {extract} --extract --extract_size {BOX} --float16 --norm --invert_contrast",
                )
            )
            last = f"{class2d}run_it{ITERATIONS:03d}"
            jobs.append(
                Job(
                    class2d,
                    "relion.class2d",
                    [particles],
                    [
                        (f"{last}_data.star", "ParticleGroupMetadata.star.relion.class2d"),
                        (f"{last}_optimiser.star", "OptimiserData.star.relion.class2d"),
                    ],
                    {
                        "do_ctf_correction": "Yes",
                        "do_em": "Yes",
                        "do_zero_mask": "Yes",
                        "fn_img": particles,
                        "nr_classes": CLASSES,
                        "nr_iter_em": ITERATIONS,
                        "particle_diameter": f"{instrument.particle_diameter:g}",
                        "tau_fudge": 2,
                    },
                    f"`which relion_refine` --o {class2d}run --iter {ITERATIONS} --i {particles} --ctf "
                    f"--tau2_fudge 2 --particle_diameter {instrument.particle_diameter:g} --K {CLASSES} "
                    "--flatten_solvent --zero_mask --center_classes --oversampling 1 --psi_step 12 "
                    "--norm --scale",
                )
            )
        return jobs

    def _write_pipeline(self) -> None:
        depth = 1
        last = max((job.name.split("job")[-1].strip("/") for job in self.jobs), default="0")
        outputs = [(job, node, label) for job in self.jobs for node, label in job.outputs]
        text = star.single("pipeline_general", {"PipeLineJobCounter": int(last) + 1})
        text += star.loop(
            "pipeline_processes",
            "PipeLineProcessName PipeLineProcessAlias PipeLineProcessTypeLabel PipeLineProcessStatusLabel",
            [
                star.row([job.name, "None", job.type, "Succeeded" if job.succeeded else "Running"])
                for job in self.jobs
            ],
        )
        text += star.loop(
            "pipeline_nodes",
            "PipeLineNodeName PipeLineNodeTypeLabel PipeLineNodeTypeLabelDepth",
            [star.row([node, label, depth]) for _, node, label in outputs],
        )
        text += star.loop(
            "pipeline_input_edges",
            "PipeLineEdgeFromNode PipeLineEdgeProcess",
            [star.row([node, job.name]) for job in self.jobs for node in job.inputs],
        )
        text += star.loop(
            "pipeline_output_edges",
            "PipeLineEdgeProcess PipeLineEdgeToNode",
            [star.row([job.name, node]) for job, node, _ in outputs],
        )
        star.write(self.folder / "default_pipeline.star", text)
