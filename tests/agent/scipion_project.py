"""Writes Scipion 3 projects, statement by statement as Scipion does, so that tests can stop anywhere.

``SetFile`` is one set file, ``Project`` the tree of protocols in ``project.sqlite``; ``files`` makes a whole small
project as a list of steps, each of which leaves databases that another program may open.
"""

import math
import os
import sqlite3
from pathlib import Path

import mrcfile
import numpy as np

OBJECTS = """CREATE TABLE Objects
    (id INTEGER PRIMARY KEY AUTOINCREMENT, parent_id INTEGER REFERENCES Objects(id), name TEXT, classname TEXT,
     value TEXT DEFAULT NULL, label TEXT DEFAULT NULL, comment TEXT DEFAULT NULL, creation DATE)"""
TYPES = {"Integer": "INTEGER", "Boolean": "INTEGER", "Float": "REAL"}

MOVIES = (
    ("_index", "Integer"),
    ("_filename", "String"),
    ("_samplingRate", "Float"),
    ("_acquisition", "Acquisition"),
    ("_acquisition._doseInitial", "Float"),
    ("_acquisition._dosePerFrame", "Float"),
    ("_micName", "String"),
)
ALIGNED = (
    *MOVIES,
    ("_alignment", "MovieAlignment"),
    ("_alignment._first", "Integer"),
    ("_alignment._last", "Integer"),
    ("_alignment._xshifts", "CsvList"),
    ("_alignment._yshifts", "CsvList"),
)
MICROGRAPHS = (
    ("_index", "Integer"),
    ("_filename", "String"),
    ("_samplingRate", "Float"),
    ("_micName", "String"),
)
CTFS = (
    ("_defocusU", "Float"),
    ("_defocusV", "Float"),
    ("_defocusAngle", "Float"),
    ("_psdFile", "String"),
    ("_micObj", "Micrograph"),
    ("_micObj._filename", "String"),
    ("_micObj._micName", "String"),
    ("_resolution", "Float"),
    ("_fitQuality", "Float"),
)
# With a phase plate every column behind moves by one.
PHASE_PLATE = (*CTFS[:3], ("_phaseShift", "Float"), *CTFS[3:])
COORDINATES = (("_x", "Integer"), ("_y", "Integer"), ("_micId", "Integer"), ("_micName", "String"))
CLASSES = (
    ("_size", "Integer"),
    ("_representative", "Particle"),
    ("_representative._index", "Integer"),
    ("_representative._filename", "String"),
)


class SetFile:
    """One set file, written with a connection that stays open, as a running protocol does."""

    def __init__(self, path, kind, columns, properties=None, journal="DELETE"):
        self.path, self.columns = Path(path), columns
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.connection = sqlite3.connect(self.path, isolation_level=None)
        self.connection.execute(f"PRAGMA journal_mode={journal}")
        self.connection.execute("PRAGMA synchronous=OFF")
        run = self.connection.execute
        run("CREATE TABLE Properties (key TEXT UNIQUE, value TEXT DEFAULT NULL)")
        run(
            "CREATE TABLE Classes (id INTEGER PRIMARY KEY AUTOINCREMENT, label_property TEXT UNIQUE, "
            "column_name TEXT UNIQUE, class_name TEXT DEFAULT NULL)"
        )
        numbered = [(label, f"c{number:02d}", name) for number, (label, name) in enumerate(columns, start=1)]
        own = "".join(f", {column} {TYPES.get(name, 'TEXT')} DEFAULT NULL" for _, column, name in numbered)
        run(
            "CREATE TABLE Objects (id INTEGER PRIMARY KEY, enabled INTEGER DEFAULT 1, label TEXT DEFAULT NULL, "
            f"comment TEXT DEFAULT NULL, creation DATE{own})"
        )
        sql = "INSERT INTO Classes (label_property, column_name, class_name) VALUES (?, ?, ?)"
        self.connection.executemany(sql, [("self", "c00", kind), *numbered])
        self.set({"self": f"SetOf{kind}s", "_streamState": "1", **(properties or {})})

    def set(self, properties):
        for item in properties.items():
            self.connection.execute("INSERT OR REPLACE INTO Properties VALUES (?, ?)", item)

    def add(self, id_, enabled=1, **values):
        """Write one row (a row of that id is replaced); values by label, ``._`` written as ``__``."""
        names = [label.replace("._", "__") for label, _ in self.columns]
        assert set(values) <= set(names), set(values) - set(names)
        row = [id_, enabled, "", "", "2026-11-23 08:00:00", *(values.get(name) for name in names)]
        marks = ", ".join("?" * len(row))
        self.connection.execute(f"INSERT OR REPLACE INTO Objects VALUES ({marks})", row)

    def close(self):
        self.set({"_streamState": "2"})
        self.connection.close()


class Project:
    """The tree of protocols. ``path`` may also be that of a protocol's own copy, ``logs/run.db``."""

    def __init__(self, path):
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.connection = sqlite3.connect(self.path, isolation_level=None)
        self.connection.execute("PRAGMA synchronous=OFF")
        self.connection.execute(OBJECTS)
        self.add(None, "CreationTime", "String", "2026-11-23 08:00:00")

    def add(self, parent, name, classname, value=None, label="", id_=None):
        row = (id_, parent, name, classname, value, label, "", "2026-11-23 08:00:00")
        return self.connection.execute("INSERT INTO Objects VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row).lastrowid

    def protocol(self, id_, classname, label="", status="running", inputs=(), **attributes):
        self.connection.execute("BEGIN")
        self.add(None, "", classname, label=label or classname, id_=id_)
        self.add(id_, f"{id_}.status", "String", status)
        self.add(id_, f"{id_}.workingDir", "String", f"Runs/{id_:06d}_{classname}")
        self.add(id_, f"{id_}.endTime", "String")
        self.add(id_, f"{id_}._error", "String")
        self.add(id_, f"{id_}.hostName", "String", "localhost")
        for name, (source, output) in dict(inputs).items():
            pointer = self.add(id_, f"{id_}.{name}", "Pointer", str(source))
            self.add(pointer, f"{id_}.{pointer}._extended", "String", output)
        for name, value in attributes.items():
            kind = {bool: "Boolean", int: "Integer", float: "Float"}.get(type(value), "String")
            self.add(id_, f"{id_}.{name}", kind, str(int(value) if kind == "Boolean" else value))
        self.connection.execute("COMMIT")
        return id_

    def output(self, protocol, name, kind, file, on=None, **values):
        """A set that a protocol made; ``on`` is the protocol that made the micrographs it lies on."""
        self.connection.execute("BEGIN")
        id_ = self.add(protocol, f"{protocol}.{name}", kind)
        self.add(id_, f"{protocol}.{id_}._mapperPath", "CsvList", f"{file}, ")
        for key, value in values.items():
            self.add(id_, f"{protocol}.{id_}.{key}", "String", value)
        if on is not None:
            self.add(id_, f"{protocol}.{id_}._micrographsPointer", "Pointer", str(on))
        self.connection.execute("COMMIT")

    def set(self, protocol, **values):
        for name, value in values.items():
            self.connection.execute(
                "UPDATE Objects SET value = ? WHERE parent_id = ? AND name = ?",
                (value, protocol, f"{protocol}.{name}"),
            )

    def delete(self, protocol):
        self.connection.execute(
            "WITH RECURSIVE under(id) AS (VALUES(?) UNION SELECT Objects.id FROM Objects JOIN under "
            "ON parent_id = under.id) DELETE FROM Objects WHERE id IN under",
            (protocol,),
        )

    def close(self):
        self.connection.close()


def movie(number):
    hole = 21_000_000 + number
    return f"GridSquare_77_Data_FoilHole_{hole}_Data_9017347_6_20261123_1011{number:02d}_fractions.tiff"


IMPORT, MOTION, CTF, PICK, EXTRACT, CLASS2D = 2, 64, 120, 181, 240, 311
FOLDERS = {
    IMPORT: "Runs/000002_ProtImportMovies",
    MOTION: "Runs/000064_ProtMotionCorr",
    CTF: "Runs/000120_CistemProtCTFFind",
    PICK: "Runs/000181_SphireProtCRYOLOPicking",
    EXTRACT: "Runs/000240_ProtRelionExtractParticles",
    CLASS2D: "Runs/000311_ProtRelionClassify2D",
}
PIXEL = 0.885


def shifts(number):
    """Frames' shifts in pixels, as text: x and y."""
    x = [0.3 * frame + 0.01 * number for frame in range(6)]
    y = [math.sin(frame + number) for frame in range(6)]
    return ",".join(map(str, x)), ",".join(map(str, y))


def ctf(number):
    return {
        "_defocusU": 12000.0 + number,
        "_defocusV": 11800.0 + number,
        "_defocusAngle": 7.0 * number % 180,
        "_resolution": 3.0 + number / 7,
        "_fitQuality": 0.1 - number / 100,
    }


def image(path, number, shape=(32, 48)):
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.arange(np.prod(shape), dtype=np.float32).reshape(shape) * (number + 1)
    with mrcfile.new(path, overwrite=True) as handle:
        handle.set_data(values)


def protocols(project, status="running", upto=CLASS2D):
    """Schedule the usual chain; what the protocols make is told later."""
    project.protocol(
        IMPORT, "ProtImportMovies", "pwem - import movies", status, samplingRate=PIXEL, dosePerFrame=1.5
    )
    project.protocol(
        MOTION,
        "ProtMotionCorr",
        "motioncorr - movie alignment",
        status,
        {"inputMovies": (IMPORT, "outputMovies")},
        binFactor=1.0,
        patchX=7,
        doApplyDoseFilter=True,
    )
    project.protocol(
        CTF,
        "CistemProtCTFFind",
        "cistem - ctffind4",
        status,
        {"inputMicrographs": (MOTION, "outputMicrographs")},
        lowRes=30.0,
        findPhaseShift=False,
    )
    project.protocol(
        PICK,
        "SphireProtCRYOLOPicking",
        "sphire - cryolo picking",
        status,
        {"inputMicrographs": (MOTION, "outputMicrographs")},
        conservPickVar=0.3,
    )
    project.protocol(
        EXTRACT,
        "ProtRelionExtractParticles",
        "relion - particles extraction",
        status,
        {"inputCoordinates": (PICK, "outputCoordinates"), "ctfRelations": (CTF, "outputCTF")},
        boxSize=200,
    )
    project.protocol(
        CLASS2D,
        "ProtRelionClassify2D",
        "relion - 2D classification",
        status,
        {"inputParticles": (EXTRACT, "outputParticles")},
        maskDiameterA=180,
        numberOfClasses=3,
    )


def steps(root, count=6, picks=4, images=True, classes=3, batch=1, journal="DELETE", phase_plate=False):
    """Make a project under ``root`` in steps: yields after each, with what was written so far committed or not.

    Every set is written row by row; every ``batch`` rows are one transaction, and there is a step within it.
    """
    root = Path(root)
    project = Project(root / "project.sqlite")
    protocols(project)
    yield "protocols"
    properties = {"_samplingRate": str(PIXEL), "_firstDim": "48,32,6", "_acquisition._dosePerFrame": "1.5"}
    columns = PHASE_PLATE if phase_plate else CTFS
    files = {
        IMPORT: SetFile(root / FOLDERS[IMPORT] / "movies.sqlite", "Movie", MOVIES, properties, journal),
        MOTION: SetFile(root / FOLDERS[MOTION] / "movies.sqlite", "Movie", ALIGNED, properties, journal),
        "micrographs": SetFile(
            root / FOLDERS[MOTION] / "micrographs.sqlite", "Micrograph", MICROGRAPHS, properties, journal
        ),
        CTF: SetFile(root / FOLDERS[CTF] / "ctfs.sqlite", "CTF", columns, {}, journal),
        PICK: SetFile(root / FOLDERS[PICK] / "coordinates.sqlite", "Coordinate", COORDINATES, {}, journal),
    }
    yield "empty sets"
    project.output(IMPORT, "outputMovies", "SetOfMovies", f"{FOLDERS[IMPORT]}/movies.sqlite")
    project.output(MOTION, "outputMovies", "SetOfMovies", f"{FOLDERS[MOTION]}/movies.sqlite")
    project.output(MOTION, "outputMicrographs", "SetOfMicrographs", f"{FOLDERS[MOTION]}/micrographs.sqlite")
    project.output(CTF, "outputCTF", "SetOfCTF", f"{FOLDERS[CTF]}/ctfs.sqlite", on=MOTION)
    yield "outputs"
    project.output(
        PICK, "outputCoordinates", "SetOfCoordinates", f"{FOLDERS[PICK]}/coordinates.sqlite", on=MOTION
    )

    def written(file, rows):
        """Write rows; a step in each open transaction and one after it."""
        for start in range(0, len(rows), batch):
            file.connection.execute("BEGIN IMMEDIATE")
            for id_, values in rows[start : start + batch]:
                file.add(id_, **values)
            yield "uncommitted"
            file.connection.execute("COMMIT")
            yield "committed"

    numbers = range(1, count + 1)
    mic = {number: f"{FOLDERS[MOTION]}/extra/mic_{number:03d}.mrc" for number in numbers}
    psd = {number: f"{FOLDERS[CTF]}/extra/mic_{number:03d}_ctf.mrc" for number in numbers}
    pick_id = 0
    for number in numbers:
        source = {"_filename": f"{FOLDERS[IMPORT]}/extra/{movie(number)}", "_micName": movie(number)}
        yield from written(files[IMPORT], [(number, {**source, "_samplingRate": PIXEL})])
        x, y = shifts(number)
        aligned = {
            "_acquisition__dosePerFrame": 1.5,
            "_alignment__first": 1,
            "_alignment__xshifts": x,
            "_alignment__yshifts": y,
        }
        yield from written(files[MOTION], [(number, {**source, "_samplingRate": PIXEL, **aligned})])
        if images:
            image(root / mic[number], number)
        yield from written(
            files["micrographs"],
            [(number, {"_filename": mic[number], "_micName": movie(number), "_samplingRate": PIXEL})],
        )
        if images:
            image(root / psd[number], number + 50, (16, 16))
        phase = {"_phaseShift": 90.0 + number} if phase_plate else {}
        values = {
            **ctf(number),
            **phase,
            "_psdFile": f"{psd[number]}:mrc",
            "_micObj__filename": mic[number],
            "_micObj__micName": movie(number),
        }
        yield from written(files[CTF], [(number, values)])
        rows = []
        for place in range(picks if number % 5 else 0):
            pick_id += 1
            rows.append(
                (
                    pick_id,
                    {"_x": 10 * place + number, "_y": 5 * place, "_micId": number, "_micName": movie(number)},
                )
            )
        yield from written(files[PICK], rows)
    for file in files.values():
        file.close()
    for id_ in (IMPORT, MOTION, CTF, PICK, EXTRACT):
        project.set(id_, status="finished", endTime="2026-11-23 09:00:00.123456")
    yield "finished"
    stack = f"{FOLDERS[CLASS2D]}/extra/relion_it025_classes.mrcs"
    if images:
        image(root / stack, 3, (classes, 16, 16))
    found = SetFile(root / FOLDERS[CLASS2D] / "classes2D.sqlite", "Class2D", CLASSES, {}, journal)
    found.connection.execute("BEGIN")
    for number in range(1, classes + 1):
        # Sections need not be in the order of the classes.
        section = classes + 1 - number
        found.add(
            number,
            _size=10 * number,
            _representative__index=section,
            _representative__filename=stack,
        )
    found.connection.execute("COMMIT")
    found.close()
    project.output(CLASS2D, "outputClasses", "SetOfClasses2D", f"{FOLDERS[CLASS2D]}/classes2D.sqlite")
    project.set(CLASS2D, status="finished", endTime="2026-11-23 09:30:00.5")
    project.close()
    yield "classes"


def write(root, **options):
    """Make the whole project at once."""
    for _ in steps(root, **options):
        pass
    return root


def around(root, files):
    """Write a ``project.sqlite`` around real set files, given as {protocol: (class, output, kind, file, sources)}."""
    project = Project(Path(root) / "project.sqlite")
    for id_, (classname, outputs, sources, attributes) in files.items():
        project.protocol(id_, classname, status="finished", inputs=sources, **attributes)
        for name, kind, file, on in outputs:
            assert os.path.exists(Path(root) / file), file
            project.output(id_, name, kind, file, on=on)
    project.close()
    return root
