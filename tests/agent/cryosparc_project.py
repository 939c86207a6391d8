"""Writes CryoSPARC projects for tests: job.json of version 4 or 5, and .cs files in both binary formats.

The columns are those of files that CryoSPARC wrote; what the tests expect is worked out from the numbers here.
"""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
from cryosparc.dataset import CSDAT_FORMAT, Dataset
from cryosparc.models.job import Job

from .project import mrc

PIXEL, BINNED = 0.6575, 1.315
SHAPE = (64, 96)  # rows, columns
DOSE, FRAMES = 40.0, 20


def uid(number: int) -> int:
    return 2**63 + 7919 * int(number)


def movie(number: int) -> str:
    return f"FoilHole_1000{number}_Data_55_{number:02d}_20261123_0703{number:02d}_Fractions.tiff"


def imported(number: int) -> str:
    return f"J1/imported/{uid(number):021d}_{movie(number)}"


def aligned(number: int) -> str:
    stem = f"{uid(number):021d}_{movie(number)[:-5]}"
    return f"J2/motioncorrected/{stem}_patch_aligned_doseweighted.mrc"


def columns(**named) -> dict[str, np.ndarray]:
    """Columns whose names are written group__field."""
    return {name.replace("__", "/"): np.asarray(values) for name, values in named.items()}


def table(found: dict[str, np.ndarray], packed: bool = False) -> bytes:
    """The bytes of a .cs file: format 1, written by NumPy, or 2, written by the vendor's library."""
    if packed:
        stream = io.BytesIO()
        Dataset(found).save(stream, format=CSDAT_FORMAT)
        return stream.getvalue()
    fixed = {
        name: np.asarray(values, dtype="S") if values.dtype.kind == "U" else values
        for name, values in found.items()
    }
    rows = np.zeros(
        len(next(iter(fixed.values()))),
        dtype=[(name, values.dtype, values.shape[1:]) for name, values in fixed.items()],
    )
    for name, values in fixed.items():
        rows[name] = values
    stream = io.BytesIO()
    np.save(stream, rows, allow_pickle=False)
    return stream.getvalue()


def array(values) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.asarray(values), allow_pickle=False)
    return stream.getvalue()


def job4(name, kind, parents=(), outputs=(), status="completed", params=None, errors=()) -> bytes:
    """job.json as versions 2 to 4 write it; outputs are (group, type, result, passthrough, files)."""
    groups = {(group, kind) for group, kind, *_ in outputs}
    found = {
        "uid": name,
        "project_uid": "P3",
        "job_type": kind,
        "title": f"New Job {name}",
        "status": status,
        "version": "v4.7.1",
        "parents": list(parents),
        "params_spec": {option: {"value": value} for option, value in (params or {}).items()},
        "output_result_groups": [{"name": group, "type": of} for group, of in sorted(groups)],
        "output_results": [
            {
                "group_name": group,
                "type": f"{of}.{result}",
                "name": result,
                "passthrough": passed,
                "versions": list(range(len(files))),
                "metafiles": list(files),
                "num_items": [0] * len(files),
            }
            for group, of, result, passed, files in outputs
        ],
        "completed_at": {"$date": 1795410000000} if status == "completed" else None,
        "failed_at": {"$date": 1795410000000} if status == "failed" else None,
        "errors_run": [{"message": message} for message in errors],
    }
    return json.dumps(found, indent=4).encode()


def job5(name, kind, parents=(), outputs=(), status="completed", params=None, errors=()) -> bytes:
    """job.json as version 5 writes it: a document that the vendor's own model has checked."""
    nested: dict[str, dict] = {}
    for group, of, result, passed, files in outputs:
        output = nested.setdefault(group, {"type": of, "title": group, "results": []})
        output["results"].append(
            {
                "name": result,
                "dtype": result,
                "versions": list(range(len(files))),
                "metafiles": list(files),
                "num_items": [0] * len(files),
                "passthrough": passed,
            }
        )
    inputs = {
        f"input_{parent}": {
            "type": "exposure",
            "title": "in",
            "connections": [{"job_uid": parent, "output": "exposures", "results": []}],
        }
        for parent in parents
    }
    job = Job.model_validate(
        {
            "uid": name,
            "project_uid": "P3",
            "uid_num": int(name[1:]),
            "project_uid_num": 3,
            "job_dir": name,
            "job_dir_size_last_updated": "2026-11-23T07:00:00Z",
            "title": "",
            "status": status,
            "status_num": 0,
            "version": "v5.0.3",
            "completed_at": "2026-11-23T07:00:00Z" if status == "completed" else None,
            "failed_at": "2026-11-23T07:00:00Z" if status == "failed" else None,
            "errors_run": [{"message": message, "warning": False} for message in errors],
            "spec": {
                "type": kind,
                "params": params or {},
                "inputs": inputs,
                "outputs": nested,
                "ui_tile_width": 1,
                "ui_tile_height": 1,
                "resource_spec": {},
            },
            "build_errors": [],
        }
    )
    return job.model_dump_json(by_alias=True).encode()


def trajectory(number: int) -> np.ndarray:
    """Places of the frames in pixels, (1, frames, 2)."""
    steps = np.random.default_rng(number).normal(size=(FRAMES, 2))
    return np.cumsum(steps, axis=0, dtype=np.float64)[np.newaxis].astype(np.float32)


def defocus(numbers) -> dict[str, np.ndarray]:
    numbers = np.asarray(numbers)
    return {
        "df1_A": (12000 + 137 * numbers).astype("f4"),
        "df2_A": (11500 + 137 * numbers).astype("f4"),
        "df_angle_rad": (np.pi * 0.9 + 0.1 * numbers).astype("f4"),
        "phase_shift_rad": np.where(numbers == 1, 1.2, 0.0).astype("f4"),
        "ctf_fit_to_A": (3 + numbers / 7).astype("f4"),
        "cross_corr_ctffind4": np.where(numbers == 2, -0.0125, 0.11).astype("f4"),
        "ice": (1 + numbers / 10).astype("f4"),
    }


def places(number: int, count: int) -> np.ndarray:
    return np.random.default_rng(100 + number).uniform(size=(count, 2)).astype("f4")


def picks_of(number: int, picks: int) -> int:
    """One micrograph has none."""
    return 0 if number == 3 else picks


def particles(count: int, picks: int, leave: int = 0) -> dict[str, np.ndarray]:
    rows = [
        (number, each) for number in range(1, count + 1) for each in range(picks_of(number, picks) - leave)
    ]
    numbers = np.array([number for number, _ in rows], dtype=int)
    fractions = np.array([places(number, picks)[each] for number, each in rows], dtype="f4").reshape(-1, 2)
    return {
        "uid": np.array([10**9 * number + each for number, each in rows], dtype="u8"),
        "number": numbers,
        "x": fractions[:, 0],
        "y": fractions[:, 1],
    }


def location(found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    numbers = found["number"]
    return {
        "location/micrograph_uid": np.array([uid(number) for number in numbers], dtype="u8"),
        "location/micrograph_path": np.array([aligned(number) for number in numbers]),
        "location/micrograph_shape": np.array([SHAPE] * len(numbers), dtype="u4"),
        "location/center_x_frac": found["x"],
        "location/center_y_frac": found["y"],
    }


def files(
    count=6, picks=5, classes=4, version=4, packed=False, iterations=(0, 1), images=True, reject=(2,), leave=1
) -> dict[str, bytes]:
    """The files of a project as {path: bytes}, in the order in which they are written.

    Of each micrograph's picks the inspection leaves ``leave`` out.
    """
    job = {4: job4, 5: job5}[version]
    numbers = np.arange(1, count + 1)
    uids = np.array([uid(number) for number in numbers], dtype="u8")
    made: dict[str, bytes] = {}

    def add(name, kind, parents, outputs, **options):
        made[f"{name}/job.json"] = job(name, kind, parents, outputs, **options)

    def rows(path, found, packed=packed):
        made[path] = table(found, packed)

    def of(group, kind, path, *results, passed=False):
        return [(group, kind, result, passed, [path]) for result in results]

    rows(
        "J1/imported_movies.cs",
        {
            "uid": uids,
            **columns(
                movie_blob__path=[imported(number) for number in numbers],
                movie_blob__shape=np.array([[FRAMES, SHAPE[0] * 2, SHAPE[1] * 2]] * count, dtype="u4"),
                movie_blob__psize_A=np.full(count, PIXEL, "f4"),
                mscope_params__total_dose_e_per_A2=np.full(count, DOSE, "f4"),
            ),
        },
    )
    movies = of("imported_movies", "exposure", "J1/imported_movies.cs", "movie_blob", "mscope_params")
    add("J1", "import_movies", [], movies, params={"psize_A": PIXEL, "accel_kv": 300})

    thumbs = []
    random = np.random.default_rng(7)
    for number in numbers:
        stem = aligned(number).replace("_patch_aligned_doseweighted.mrc", "")
        made[f"{stem}_traj.npy"] = array(trajectory(number))
        thumbs.append(f"J2/thumbnails/{Path(stem).name}_thumb_@2x.mrc")
        if images:
            made[thumbs[-1]] = mrc(random.normal(size=(32, 48)).astype(np.float32))
    motions = [path for path in made if path.endswith("_traj.npy")]
    rows(
        "J2/micrographs.cs",
        {
            "uid": uids[::-1],
            **columns(
                micrograph_blob__path=[aligned(number) for number in numbers[::-1]],
                micrograph_blob__shape=np.array([SHAPE] * count, dtype="u4"),
                micrograph_blob__psize_A=np.full(count, BINNED, "f4"),
                rigid_motion__path=motions[::-1],
                rigid_motion__psize_A=np.full(count, PIXEL, "f4"),
                micrograph_thumbnail_blob_2x__path=thumbs[::-1],
            ),
        },
    )
    rows(
        "J2/J2_passthrough_micrographs.cs",
        {"uid": uids, **columns(mscope_params__cs_mm=np.full(count, 2.7, "f4"))},
    )
    micrographs = of(
        "micrographs",
        "exposure",
        "J2/micrographs.cs",
        "micrograph_blob",
        "rigid_motion",
        "micrograph_thumbnail_blob_2x",
    )
    micrographs += of(
        "micrographs", "exposure", "J2/J2_passthrough_micrographs.cs", "mscope_params", passed=True
    )
    add("J2", "patch_motion_correction_multi", ["J1"], micrographs, params={"bfactor": 500})

    measured = defocus(numbers)
    spectra = [f"J3/ctfestimated/{uid(number):021d}_ctf_diag_2D.mrc" for number in numbers]
    for path in spectra if images else ():
        made[path] = mrc(random.normal(size=(32, 32)).astype(np.float32))
    rows(
        "J3/exposures_ctf_estimated.cs",
        {
            "uid": uids,
            **columns(
                ctf__df1_A=measured["df1_A"],
                ctf__df2_A=measured["df2_A"],
                ctf__df_angle_rad=measured["df_angle_rad"],
                ctf__phase_shift_rad=measured["phase_shift_rad"],
                ctf__ctf_fit_to_A=measured["ctf_fit_to_A"],
                ctf__cross_corr_ctffind4=measured["cross_corr_ctffind4"],
                ctf_stats__ice_thickness_rel=measured["ice"],
                ctf_stats__diag_image_path=spectra,
            ),
        },
    )
    estimated = of("exposures", "exposure", "J3/exposures_ctf_estimated.cs", "ctf", "ctf_stats")
    add("J3", "patch_ctf_estimation_multi", ["J2"], estimated, params={"res_max_align": 4})

    bad = np.isin(numbers, reject)
    for word, chosen in (("accepted", ~bad), ("rejected", bad)):
        blobs = [aligned(number) for number in numbers[chosen]] or np.array([], dtype="S1")
        rows(f"J4/exposures_{word}.cs", {"uid": uids[chosen], **columns(micrograph_blob__path=blobs)})
    curated = of("exposures_accepted", "exposure", "J4/exposures_accepted.cs", "micrograph_blob")
    curated += of("exposures_rejected", "exposure", "J4/exposures_rejected.cs", "micrograph_blob")
    add("J4", "curate_exposures_v2", ["J3"], curated)

    found = particles(count, picks)
    rows("J5/picked_particles.cs", {"uid": found["uid"], **location(found)})
    rows("J5/micrographs.cs", {"uid": uids, **columns(micrograph_blob__psize_A=np.full(count, BINNED, "f4"))})
    picked = of("particles", "particle", "J5/picked_particles.cs", "location")
    picked += of("micrographs", "exposure", "J5/micrographs.cs", "micrograph_blob")
    add("J5", "blob_picker_gpu", ["J4"], picked, params={"diameter": 100, "diameter_max": 120})

    left = particles(count, picks, leave)
    rows("J6/inspected_particles.cs", {"uid": left["uid"], "pick_stats/power": left["x"]})
    rows("J6/J6_passthrough_particles.cs", {"uid": found["uid"], **location(found)})
    rows("J6/micrographs.cs", {"uid": uids, **columns(micrograph_blob__psize_A=np.full(count, BINNED, "f4"))})
    inspected = of("particles", "particle", "J6/inspected_particles.cs", "pick_stats")
    inspected += of("particles", "particle", "J6/J6_passthrough_particles.cs", "location", passed=True)
    inspected += of("micrographs", "exposure", "J6/micrographs.cs", "micrograph_blob")
    add("J6", "inspect_picks_v2", ["J5"], inspected)

    stacks: list[tuple[str, str, str]] = []
    for iteration in iterations:
        stem = f"J7/J7_{iteration:03d}"
        stack = np.random.default_rng(iteration).normal(size=(classes, 16, 16)).astype(np.float32)
        made[f"{stem}_class_averages.mrc"] = mrc(stack)
        rows(
            f"{stem}_class_averages.cs",
            {
                "uid": np.arange(1, classes + 1, dtype="u8"),
                **columns(
                    blob__path=[f"{stem}_class_averages.mrc"] * classes,
                    blob__idx=np.arange(classes, dtype="u4"),
                    blob__res_A=np.array([20 - index for index in range(classes)], dtype="f4") + iteration,
                ),
            },
        )
        rows(
            f"{stem}_particles.cs",
            {"uid": left["uid"], "alignments2D/class": class_of(left, classes, iteration)},
        )
        stacks.append((f"{stem}_particles.cs", f"{stem}_class_averages.cs", ""))
    classified = [
        ("particles", "particle", "alignments2D", False, [row[0] for row in stacks]),
        ("class_averages", "template", "blob", False, [row[1] for row in stacks]),
    ]
    add("J7", "class_2D_new", ["J6"], classified, params={"class2D_K": classes})
    return made


def class_of(found: dict[str, np.ndarray], classes: int, iteration: int) -> np.ndarray:
    """Leaves the last class empty."""
    return ((found["uid"] + iteration) % (classes - 1)).astype("u4")


def write(root: Path, made: dict[str, bytes]) -> Path:
    for path, data in made.items():
        place = root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
    return root
