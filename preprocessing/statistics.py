"""Numbers that describe a session's runs: minimum, maximum and percentiles per measured field.

They are computed from the rows, as no counter can give them exactly, and kept in `SessionSummary.statistics` with
the revision of the run at which they were computed. Where the session is archived they are all that is left.
"""

import numpy as np
from django.db import DatabaseError, connection, transaction

from preprocessing.histograms import COUNTERS, MEASURED_FIELDS, MEASURES
from preprocessing.models import Micrograph, ProcessingRun
from sessions_app.models import Session, SessionSummary

PERCENTILES = {"min": 0, "p10": 10, "median": 50, "p90": 90, "max": 100}
UNITS = {
    "motion_total": "Å",
    "motion_early": "Å",
    "motion_late": "Å",
    "defocus_u": "Å",
    "defocus_v": "Å",
    "defocus": "Å",
    "astigmatism": "Å",
    "defocus_angle": "°",
    "phase_shift": "°",
    "ctf_resolution": "Å",
    "ctf_score": "",
    "ice_thickness": "relative",
    "particles": "count",
}


def describe(values: np.ndarray) -> dict[str, float | int] | None:
    """n, minimum, 10th, 50th and 90th percentile (linear interpolation) and maximum; None without values.

    `values` is float64 of any length; NaN is unknown and not counted.
    """
    known = values[~np.isnan(values)]
    if not known.size:
        return None
    numbers = np.percentile(known, list(PERCENTILES.values()), method="linear")
    return {"n": int(known.size)} | dict(zip(PERCENTILES, (float(number) for number in numbers), strict=True))


def columns(run_id: int) -> dict[str, np.ndarray]:
    """The run's measured columns in the order of their making: float64, NaN for unknown, shape (micrographs,)."""
    rows = Micrograph.objects.filter(run=run_id).order_by("pk").values_list(*MEASURED_FIELDS)
    table = np.array(list(rows), dtype=np.float64).reshape(-1, len(MEASURED_FIELDS))
    return {name: table[:, place] for place, name in enumerate(MEASURED_FIELDS)}


def run_statistics(run_id: int) -> dict[str, dict]:
    """Per measured field that has values, in the units of the rows; defocus is the mean of U and V."""
    table = columns(run_id)
    u, v = table["defocus_u"], table["defocus_v"]
    table["defocus"] = np.where(np.isnan(u), v, np.where(np.isnan(v), u, (u + v) / 2))
    table["astigmatism"] = np.abs(u - v)
    return {name: numbers for name in UNITS if (numbers := describe(table[name])) is not None}


def session_statistics(
    session: Session, summary: SessionSummary, runs: list[ProcessingRun]
) -> dict[str, dict]:
    """Statistics by run id, computed anew only for runs that changed since, and kept where that is free of cost."""
    kept = summary.statistics
    found, fresh = {}, {}
    for run in runs:
        key = str(run.pk)
        entry = kept.get(key)
        if entry is None or (entry["revision"] < run.revision and summary.frozen_at is None):
            # The rows may be newer than the run as it was read: then it is computed once more next time.
            entry = fresh[key] = {"revision": run.revision, "fields": run_statistics(run.pk)}
        found[key] = entry["fields"]
    if fresh:
        _keep(session.pk, fresh)
    return found


def _keep(session_id: int, fresh: dict[str, dict]) -> None:
    """Add to the cache unless somebody else holds the summary: a reader never waits to save what it can recompute."""
    skip = connection.features.has_select_for_update_skip_locked
    try:
        with transaction.atomic():
            locked = (
                SessionSummary.objects.select_for_update(skip_locked=skip)
                .filter(pk=session_id, frozen_at__isnull=True)
                .first()
            )
            if locked is None:
                return
            newer = {
                key: entry
                for key, entry in fresh.items()
                if entry["revision"] > locked.statistics.get(key, {}).get("revision", -1)
            }
            if newer:
                locked.statistics = locked.statistics | newer
                locked.save(update_fields=["statistics"])
    except DatabaseError:
        if connection.vendor != "sqlite":
            raise
        # SQLite's one writer stayed busy for longer than anyone waits: the next reader computes it again.


def summary(session: Session) -> dict:
    """The session's processing in numbers, live or archived."""
    row = session.summary
    runs = list(ProcessingRun.objects.filter(session=session).order_by("pk"))
    fields = session_statistics(session, row, runs)
    return {
        "session": session.name,
        "status": session.status,
        "processing": row.processing,
        "exposures": row.exposures,
        **{name: getattr(row, name) for name in (*COUNTERS, "classes")},
        "leading_run": row.leading_run,
        "last_seen_at": row.last_seen_at,
        "frozen_at": row.frozen_at,
        "units": UNITS,
        "runs": [
            {
                "id": run.pk,
                "key": run.key,
                "software": run.software,
                "version": run.version,
                "label": run.label,
                "status": run.status,
                "started_at": run.started_at,
                "finished_at": run.finished_at,
                "last_seen_at": run.last_seen_at,
                "revision": run.revision,
                "parameters": run.parameters,
                "pixel_size": run.pixel_size,
                "width": run.width,
                "height": run.height,
                "particle_diameter": run.particle_diameter,
                **{name: getattr(run, name) for name in (*COUNTERS, "classes")},
                "fields": fields.get(str(run.pk), {}),
                "histograms": {
                    name: {"unit": MEASURES[name].unit, "edges": MEASURES[name].edges, "counts": counts}
                    for name, counts in run.histograms.items()
                    if name in MEASURES
                },
            }
            for run in runs
        ],
    }
