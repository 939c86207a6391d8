"""A run's micrographs as files for other programs: CSV for spreadsheets, STAR for RELION.

Of an archived session they come from what archive.py kept, and look the same. A micrograph is accepted unless its
pipeline or a person rejected it; a person's word counts more than a pipeline's.
"""

import csv
import datetime
import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from preprocessing import packed
from preprocessing.archive import names as archived_names
from preprocessing.models import Micrograph, ProcessingRun
from sessions_app.export import BYTE_ORDER_MARK, Echo, plain

#: Column of the CSV -> (column of the table, unit), in the order in which people read them.
COLUMNS = {
    "motion_total_A": "motion_total",
    "motion_early_A": "motion_early",
    "motion_late_A": "motion_late",
    "defocus_u_A": "defocus_u",
    "defocus_v_A": "defocus_v",
    "defocus_angle_deg": "defocus_angle",
    "phase_shift_deg": "phase_shift",
    "ctf_resolution_A": "ctf_resolution",
    "ctf_score": "ctf_score",
    "ice_thickness": "ice_thickness",
    "particles": "particles",
    "stage_x_um": "stage_x",
    "stage_y_um": "stage_y",
    "beam_shift_x": "beam_shift_x",
    "beam_shift_y": "beam_shift_y",
}
CSV_HEADER = (
    "name",
    "acquired_at",
    "grid_square",
    "foil_hole",
    *COLUMNS,
    "rejected_by_pipeline",
    "verdict",
    "accepted",
)

#: RELION's label -> column, with the decimals RELION's own files have.
STAR_COLUMNS = {
    "rlnDefocusU": ("defocus_u", 6),
    "rlnDefocusV": ("defocus_v", 6),
    "rlnDefocusAngle": ("defocus_angle", 6),
    "rlnPhaseShift": ("phase_shift", 6),
    "rlnCtfFigureOfMerit": ("ctf_score", 6),
    "rlnCtfMaxResolution": ("ctf_resolution", 6),
    "rlnCtfIceRingDensity": ("ice_thickness", 6),
}
# What a fit of the CTF cannot be without.
CTF_NEEDS = ("defocus_u", "defocus_v", "defocus_angle")
#: Not known to the site: what nearly everybody uses for ice.
AMPLITUDE_CONTRAST = 0.1
_ODD = re.compile(r"[\s\"'#_$]")


@dataclass(frozen=True)
class Rows:
    """A run's table with the names of its micrographs, in the order in which they were exposed."""

    table: packed.Table
    names: list[str]
    order: np.ndarray

    @property
    def accepted(self) -> np.ndarray:
        """Booleans by place in the table."""
        return accepted(self.table.rows["flags"])


def accepted(flags: np.ndarray) -> np.ndarray:
    """Whether each row is accepted, from its flags (packed.py)."""
    by_pipeline = (flags & packed.REJECTED) == 0
    by_hand = (flags & packed.ACCEPTED_BY_HAND) != 0
    against = (flags & packed.REJECTED_BY_HAND) != 0
    return by_hand | (by_pipeline & ~against)


def rows(run: ProcessingRun) -> Rows:
    """All micrographs of the run, live or archived."""
    table = packed.table(run)
    if run.session.status == run.session.Status.ARCHIVED:
        names = archived_names(run)
    else:
        known = dict(Micrograph.objects.filter(run=run).values_list("pk", "name"))
        names = [known.get(pk, "") for pk in table.rows["id"].tolist()]
    return Rows(table, names, table.order)


def csv_lines(found: Rows, *, only_accepted: bool = False) -> Iterator[str]:
    """Lines of CSV with a byte order mark; unknown values are empty, times ISO 8601 in UTC."""
    writer = csv.writer(Echo())
    yield BYTE_ORDER_MARK + writer.writerow(CSV_HEADER)
    table, keep = found.table, found.accepted
    columns = [table.column(name) for name in COLUMNS.values()]
    flags = table.rows["flags"]
    squares, holes = (table.text(table.rows[name]) for name in ("grid_square", "foil_hole"))
    acquired = table.rows["acquired"]
    for place in found.order.tolist():
        if only_accepted and not keep[place]:
            continue
        values = [None if np.isnan(column[place]) else _short(column[place]) for column in columns]
        verdict = (
            "accepted"
            if flags[place] & packed.ACCEPTED_BY_HAND
            else "rejected"
            if flags[place] & packed.REJECTED_BY_HAND
            else ""
        )
        row = [
            found.names[place],
            _time(acquired[place]),
            squares[place],
            holes[place],
            *values,
            "yes" if flags[place] & packed.REJECTED else "no",
            verdict,
            "yes" if keep[place] else "no",
        ]
        yield writer.writerow([plain(value) for value in row])


def star_lines(found: Rows, session, run: ProcessingRun, *, only_accepted: bool = False) -> Iterator[str]:
    """A micrographs STAR file as RELION 3.1 and later read it, one optics group.

    Columns are those that any row has. Where defocus is among them, rows without it are left out, as RELION has no
    word for unknown; a comment says how many. Motion is left out: RELION counts it in pixels of the movie.
    """
    table = found.table
    keep = found.accepted if only_accepted else np.ones(len(table), bool)
    chosen = {
        label: (table.column(column), decimals)
        for label, (column, decimals) in STAR_COLUMNS.items()
        if not np.isnan(table.column(column)).all()
    }
    has_ctf = all(not np.isnan(table.column(name)).all() for name in CTF_NEEDS)
    left_out = 0
    if has_ctf:
        unknown = np.any([np.isnan(values) for values, _ in chosen.values()], axis=0)
        left_out = int((unknown & keep).sum())
        keep = keep & ~unknown
    else:
        chosen = {}
    yield "# version 30001\n"
    yield f"# {session.name}: {int(keep.sum())} of {len(table)} micrographs\n"
    if left_out:
        yield f"# left out because not all of these values are known: {left_out}\n"
    yield from _optics(session, run)
    labels = ["rlnMicrographName", "rlnOpticsGroup", *chosen]
    yield "\ndata_micrographs\n\nloop_\n"
    for number, label in enumerate(labels, start=1):
        yield f"_{label} #{number}\n"
    for place in found.order.tolist():
        if keep[place]:
            values = (f"{column[place]:.{decimals}f}" for column, decimals in chosen.values())
            yield " ".join([_word(found.names[place]), "1", *values]) + "\n"
    yield "\n"


def _optics(session, run: ProcessingRun) -> Iterator[str]:
    values = {
        "rlnOpticsGroupName": "opticsGroup1",
        "rlnOpticsGroup": 1,
        "rlnMicrographOriginalPixelSize": session.pixel_size,
        "rlnMicrographPixelSize": run.pixel_size or session.pixel_size,
        "rlnVoltage": session.voltage_kv,
        "rlnSphericalAberration": session.cs_mm,
        "rlnAmplitudeContrast": AMPLITUDE_CONTRAST,
    }
    known = {label: value for label, value in values.items() if value is not None}
    yield f"# amplitude contrast is not known to EMhub: {AMPLITUDE_CONTRAST} is the usual value for ice\n"
    yield "\ndata_optics\n\nloop_\n"
    for number, label in enumerate(known, start=1):
        yield f"_{label} #{number}\n"
    yield " ".join(value if isinstance(value, str) else f"{value:g}" for value in known.values()) + "\n"


def _word(text: str) -> str:
    """A value of a loop: quoted only where STAR asks for it."""
    if text and not _ODD.search(text[0]) and not re.search(r"\s", text):
        return text
    return f'"{text}"' if '"' not in text else f"'{text}'"


def _short(value: float) -> float | int:
    return int(value) if float(value).is_integer() else float(value)


def _time(seconds: float) -> str:
    if np.isnan(seconds):
        return ""
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat()
