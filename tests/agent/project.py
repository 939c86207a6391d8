"""RELION projects written by the tests, small and of any version."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

import mrcfile
import numpy as np

PIXEL = 0.5  # Å, of the movie
BINNED = 1.0  # Å, of the micrograph
BOX = 16


def loop(block, columns, rows, numbered=True):
    lines = ["", "# version 50001", "", f"data_{block}", "", "loop_ "]
    lines += [f"_{name} #{place} " if numbered else f"_{name}" for place, name in enumerate(columns, 1)]
    lines += [" ".join(str(value) for value in row) + " " for row in rows]
    return "\n".join(lines) + "\n \n"


def pairs(block, values):
    lines = ["", "# version 50001", "", f"data_{block}", ""]
    lines += [f"_{name}                {value}" for name, value in values.items()]
    return "\n".join(lines) + "\n \n"


def optics(binned=True):
    columns = ["rlnOpticsGroupName", "rlnOpticsGroup", "rlnMicrographOriginalPixelSize", "rlnVoltage"]
    row = ["opticsGroup1", 1, PIXEL, 300]
    if binned:
        columns.append("rlnMicrographPixelSize")
        row.append(BINNED)
    return loop("optics", columns, [row])


def pipeline(jobs, inputs=(), outputs=(), numeric=False):
    """``jobs`` are (name, type, status); ``inputs`` (node, job) and ``outputs`` (job, node)."""
    columns = ["rlnPipeLineProcessName", "rlnPipeLineProcessAlias"]
    if numeric:
        columns += ["rlnPipeLineProcessType", "rlnPipeLineProcessStatus"]
    else:
        columns += ["rlnPipeLineProcessTypeLabel", "rlnPipeLineProcessStatusLabel"]
    text = pairs("pipeline_general", {"rlnPipeLineJobCounter": len(jobs) + 1})
    text += loop("pipeline_processes", columns, [(f"{name}/", "None", kind, how) for name, kind, how in jobs])
    text += loop(
        "pipeline_input_edges",
        ["rlnPipeLineEdgeFromNode", "rlnPipeLineEdgeProcess"],
        [(node, f"{job}/") for node, job in inputs],
    )
    text += loop(
        "pipeline_output_edges",
        ["rlnPipeLineEdgeProcess", "rlnPipeLineEdgeToNode"],
        [(f"{job}/", node) for job, node in outputs],
    )
    return text


def mrc(data):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.mrc"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # numbers that are none are some tests' point
            with mrcfile.new(path) as handle:
                handle.set_data(data)
        return path.read_bytes()


def movie(number):
    return f"Movies/grid_{number:03d}.tiff"


def files(count=6, picks=4, classes=3, iterations=(1, 2), status="Running", images=True):
    """Return the files of a RELION 5 project as {path: bytes}, in the order in which they are written."""
    random = np.random.default_rng(7)
    stems = [f"Movies/grid_{number:03d}" for number in range(1, count + 1)]
    made = {}
    made["default_pipeline.star"] = pipeline(
        [
            ("Import/job001", "relion.import.movies", "Succeeded"),
            ("MotionCorr/job002", "relion.motioncorr.own", status),
            ("CtfFind/job003", "relion.ctffind.ctffind4", status),
            ("AutoPick/job004", "relion.autopick.log", status),
            ("Extract/job005", "relion.extract", status),
            ("Class2D/job006", "relion.class2d", status),
        ],
        [
            ("Import/job001/movies.star", "MotionCorr/job002"),
            ("MotionCorr/job002/corrected_micrographs.star", "CtfFind/job003"),
            ("CtfFind/job003/micrographs_ctf.star", "AutoPick/job004"),
            ("CtfFind/job003/micrographs_ctf.star", "Extract/job005"),
            ("AutoPick/job004/autopick.star", "Extract/job005"),
            ("Extract/job005/particles.star", "Class2D/job006"),
        ],
        [
            ("Import/job001", "Import/job001/movies.star"),
            ("MotionCorr/job002", "MotionCorr/job002/corrected_micrographs.star"),
            ("CtfFind/job003", "CtfFind/job003/micrographs_ctf.star"),
            ("AutoPick/job004", "AutoPick/job004/autopick.star"),
            ("Extract/job005", "Extract/job005/particles.star"),
        ],
    )
    made["Import/job001/movies.star"] = optics(False) + loop(
        "movies", ["rlnMicrographMovieName", "rlnOpticsGroup"], [(f"{stem}.tiff", 1) for stem in stems]
    )
    for stem in stems:
        made[f"MotionCorr/job002/{stem}.star"] = pairs(
            "general",
            {
                "rlnImageSizeX": 96,
                "rlnImageSizeY": 64,
                "rlnMicrographMovieName": f"{stem}.tiff",
                "rlnMicrographBinning": "2.000000",
                "rlnMicrographOriginalPixelSize": PIXEL,
            },
        )
        if images:
            made[f"MotionCorr/job002/{stem}.mrc"] = mrc(random.normal(size=(32, 48)).astype(np.float16))
            made[f"CtfFind/job003/{stem}_PS.ctf"] = mrc(random.normal(size=(32, 32)).astype(np.float32))
    made["MotionCorr/job002/corrected_micrographs.star"] = optics() + loop(
        "micrographs",
        [
            "rlnCtfPowerSpectrum",
            "rlnMicrographName",
            "rlnMicrographMetadata",
            "rlnOpticsGroup",
            "rlnAccumMotionTotal",
            "rlnAccumMotionEarly",
            "rlnAccumMotionLate",
        ],
        [
            (
                f"MotionCorr/job002/{stem}_PS.mrc",
                f"MotionCorr/job002/{stem}.mrc",
                f"MotionCorr/job002/{stem}.star",
                1,
                f"{10 + number:.6f}",
                f"{2 + number:.6f}",
                "8.000000",
            )
            for number, stem in enumerate(stems)
        ],
    )
    made["CtfFind/job003/micrographs_ctf.star"] = optics() + loop(
        "micrographs",
        [
            "rlnMicrographName",
            "rlnOpticsGroup",
            "rlnCtfImage",
            "rlnDefocusU",
            "rlnDefocusV",
            "rlnDefocusAngle",
            "rlnCtfFigureOfMerit",
            "rlnCtfMaxResolution",
            "rlnCtfIceRingDensity",
        ],
        [
            (
                f"MotionCorr/job002/{stem}.mrc",
                1,
                f"CtfFind/job003/{stem}_PS.ctf:mrc",
                f"{12000 + 137 * number:.6f}",
                f"{11500 + 137 * number:.6f}",
                "-12.345600",
                "-0.012345" if number == 1 else "0.112233",
                f"{3 + number / 7:.6f}",
                "0.500000",
            )
            for number, stem in enumerate(stems)
        ],
    )
    particles = []
    for number, stem in enumerate(stems):
        points = [
            (f"{random.uniform(0, 48):.6f}", f"{random.uniform(0, 32):.6f}", "0.1") for _ in range(picks)
        ]
        made[f"AutoPick/job004/{stem}_autopick.star"] = loop(
            "", ["rlnCoordinateX", "rlnCoordinateY", "rlnAutopickFigureOfMerit"], points
        )
        particles += [
            (x, y, f"MotionCorr/job002/{stem}.mrc", (number + place) % classes + 1)
            for place, (x, y, _) in enumerate(points)
        ]
    made["AutoPick/job004/autopick.star"] = loop(
        "coordinate_files",
        ["rlnMicrographName", "rlnMicrographCoordinates"],
        [(f"MotionCorr/job002/{stem}.mrc", f"AutoPick/job004/{stem}_autopick.star") for stem in stems],
    )
    for iteration in iterations:
        made.update(class2d("Class2D/job006", iteration, particles, classes))
    return {path: text if isinstance(text, bytes) else text.encode() for path, text in made.items()}


def class2d(job, iteration, particles, classes):
    stem = f"{job}/run_it{iteration:03d}"
    stack = np.random.default_rng(iteration).normal(size=(classes, BOX, BOX)).astype(np.float32)
    return {
        f"{stem}_data.star": optics()
        + loop(
            "particles",
            ["rlnCoordinateX", "rlnCoordinateY", "rlnMicrographName", "rlnClassNumber"],
            particles,
        ),
        f"{stem}_classes.mrcs": mrc(stack),
        f"{stem}_model.star": pairs("model_general", {"rlnNrClasses": classes})
        + loop(
            "model_classes",
            ["rlnReferenceImage", "rlnClassDistribution", "rlnEstimatedResolution"],
            [
                (
                    f"{number:06d}@{stem}_classes.mrcs",
                    0.3,
                    "inf" if number == classes else f"{20 - number:.6f}",
                )
                for number in range(1, classes + 1)
            ],
        ),
    }


def write(root, made):
    for path, data in made.items():
        place = root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data if isinstance(data, bytes) else data.encode())
    return root
