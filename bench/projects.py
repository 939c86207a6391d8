"""CryoSPARC and Scipion projects of any size for bench/agent.py, without images.

The files are those that the agent's tests write, only longer.
"""

import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np

from tests.agent import cryosparc_project as cryosparc
from tests.agent import scipion_project as scipion

# -- CryoSPARC: the tables of jobs, each written once its job is done ----------------------------------------


def write_cryosparc(root: Path, count: int, picks: int) -> None:
    made = cryosparc.files(count=count, picks=2, classes=50, images=False, iterations=(0,))
    numbers = np.arange(1, count + 1)
    owners = np.repeat(np.arange(count), picks)
    places = np.random.default_rng(1).uniform(size=(len(owners), 2)).astype("f4")
    uids = np.arange(1, len(owners) + 1, dtype="u8")
    picked = cryosparc.table(
        {
            "uid": uids,
            "location/micrograph_uid": np.array([cryosparc.uid(n) for n in numbers], dtype="u8")[owners],
            "location/micrograph_path": np.array([cryosparc.aligned(n) for n in numbers]).astype("S")[owners],
            "location/micrograph_shape": np.tile(np.array(cryosparc.SHAPE, dtype="u4"), (len(owners), 1)),
            "location/center_x_frac": places[:, 0],
            "location/center_y_frac": places[:, 1],
        }
    )
    made["J5/picked_particles.cs"] = made["J6/J6_passthrough_particles.cs"] = picked
    made["J6/inspected_particles.cs"] = cryosparc.table({"uid": uids, "pick_stats/power": places[:, 0]})
    cryosparc.write(root, made)


def count_cryosparc(root: Path) -> int:
    return len(np.load(root / "J1/imported_movies.cs", mmap_mode="r"))


def change_cryosparc(root: Path, first: int, count: int, picks: int) -> int:
    """Reject so many more micrographs: a job done again, whose tables are read whole."""
    accepted, rejected = (np.load(root / f"J4/exposures_{word}.cs") for word in ("accepted", "rejected"))
    for word, rows in (
        ("accepted", accepted[count:]),
        ("rejected", np.concatenate([rejected, accepted[:count].astype(rejected.dtype)])),
    ):
        with open(root / f"J4/new_{word}", "wb") as handle:
            np.save(handle, rows)
        (root / f"J4/new_{word}").rename(root / f"J4/exposures_{word}.cs")
    return 0


# -- Scipion: set files to which rows are added ------------------------------------------------------------

FOLDERS = scipion.FOLDERS
SETS = {
    "imported": (f"{FOLDERS[scipion.IMPORT]}/movies.sqlite", "Movie", scipion.MOVIES),
    "aligned": (f"{FOLDERS[scipion.MOTION]}/movies.sqlite", "Movie", scipion.ALIGNED),
    "micrographs": (f"{FOLDERS[scipion.MOTION]}/micrographs.sqlite", "Micrograph", scipion.MICROGRAPHS),
    "ctfs": (f"{FOLDERS[scipion.CTF]}/ctfs.sqlite", "CTF", scipion.CTFS),
    "picks": (f"{FOLDERS[scipion.PICK]}/coordinates.sqlite", "Coordinate", scipion.COORDINATES),
}
PROPERTIES = {"_samplingRate": str(scipion.PIXEL), "_firstDim": "4092,5760,50"}
SHIFTS = ",".join(f"{0.31 * frame:.6f}" for frame in range(50))


def write_scipion(root: Path, count: int, picks: int) -> None:
    root.mkdir(parents=True, exist_ok=True)
    project = scipion.Project(root / "project.sqlite")
    scipion.protocols(project)
    for path, kind, columns in SETS.values():
        with closing(scipion.SetFile(root / path, kind, columns, PROPERTIES).connection):
            pass
    grow_scipion(root, 0, count, picks)
    for protocol, name, kind, place in (
        (scipion.IMPORT, "outputMovies", "SetOfMovies", "imported"),
        (scipion.MOTION, "outputMovies", "SetOfMovies", "aligned"),
        (scipion.MOTION, "outputMicrographs", "SetOfMicrographs", "micrographs"),
        (scipion.CTF, "outputCTF", "SetOfCTF", "ctfs"),
        (scipion.PICK, "outputCoordinates", "SetOfCoordinates", "picks"),
    ):
        on = scipion.MOTION if kind in ("SetOfCTF", "SetOfCoordinates") else None
        project.output(protocol, name, kind, SETS[place][0], on=on)
    project.close()


def count_scipion(root: Path) -> int:
    with closing(sqlite3.connect(root / SETS["imported"][0])) as connection:
        return connection.execute("SELECT count(*) FROM Objects").fetchone()[0]


def rows_of(place: str, number: int, picks: int):
    """The rows of one micrograph in a set file: id and values by label."""
    name = scipion.movie(number)
    source = {"_filename": f"{FOLDERS[scipion.IMPORT]}/extra/{name}", "_micName": name}
    image = f"{FOLDERS[scipion.MOTION]}/extra/{name[:-5]}_aligned_mic_DW.mrc"
    if place == "imported":
        return [(number, {**source, "_samplingRate": scipion.PIXEL})]
    if place == "aligned":
        shifts = {"_alignment._xshifts": SHIFTS, "_alignment._yshifts": SHIFTS, "_alignment._first": 1}
        return [(number, {**source, **shifts, "_samplingRate": 0.885, "_acquisition._dosePerFrame": 1.0})]
    if place == "micrographs":
        return [(number, {"_filename": image, "_micName": name, "_samplingRate": scipion.PIXEL})]
    if place == "ctfs":
        spectrum = f"{FOLDERS[scipion.CTF]}/extra/{name[:-5]}_ctf.mrc:mrc"
        known = {"_psdFile": spectrum, "_micObj._filename": image, "_micObj._micName": name}
        return [(number, {**scipion.ctf(number), "_defocusAngle": 31.5, "_fitQuality": 0.11, **known})]
    first = (number - 1) * picks
    return [
        (first + k, {"_x": (37 * k) % 5760, "_y": (29 * k) % 4092, "_micId": number, "_micName": name})
        for k in range(1, picks + 1)
    ]


def grow_scipion(root: Path, first: int, count: int, picks: int) -> int:
    for place, (path, _, columns) in SETS.items():
        labels = [label for label, _ in columns]
        names = ", ".join(["id", *(f"c{k:02d}" for k in range(1, len(labels) + 1))])
        sql = f"INSERT INTO Objects ({names}) VALUES ({', '.join('?' * (len(labels) + 1))})"
        with closing(sqlite3.connect(root / path)) as connection, connection:
            connection.executemany(
                sql,
                (
                    [id_, *map(values.get, labels)]
                    for number in range(first + 1, first + count + 1)
                    for id_, values in rows_of(place, number, picks)
                ),
            )
    return count
