"""What readers get of a session's rows: what changed after a revision, with pictures as addresses.

The revision is read before the rows, and only rows up to it are told, so that a row written in between is told the
next time instead of never.
"""

from collections.abc import Iterator

import numpy as np
from django.db.models import QuerySet
from django.urls import reverse

from preprocessing.histograms import MEASURED_FIELDS
from preprocessing.models import Coordinates, Exposure, Micrograph, ProcessingRun
from sessions_app.models import SessionSummary

PAGE = 1000
_EXPOSURE = (
    "identity",
    "name",
    "acquired_at",
    "grid_square",
    "foil_hole",
    "stage_x",
    "stage_y",
    "beam_shift_x",
    "beam_shift_y",
    "verdict",
    "verdict_reason",
    "revision",
)
_MICROGRAPH = (
    "pk",
    "name",
    "exposure__identity",
    "exposure__grid_square",
    "exposure__foil_hole",
    "exposure__acquired_at",
    *MEASURED_FIELDS,
    "rejected",
    "micrograph_image",
    "psd_image",
    "exposure__verdict",
    "revision",
    "created_at",
)
_MICROGRAPH_NAMES = tuple("id" if name == "pk" else name.removeprefix("exposure__") for name in _MICROGRAPH)


def image_url(session_name: str, file_name: str) -> str | None:
    return reverse("preprocessing:image", args=[session_name, file_name]) if file_name else None


def micrographs_after(run: ProcessingRun, session_name: str, after: int, limit: int = PAGE) -> dict:
    """A run's micrographs changed after a revision and up to the one `run` was read at, oldest change first."""
    rows = (
        Micrograph.objects.filter(run=run, revision__gt=after, revision__lte=run.revision)
        .order_by("revision")
        .values_list(*_MICROGRAPH)
    )
    return _page("micrographs", micrograph_rows(rows[: limit + 1], session_name), run.revision, limit)


def micrograph_rows(rows: QuerySet, session_name: str) -> list[dict]:
    """Rows of `values_list(*_MICROGRAPH)` as they are told."""
    prefix = reverse("preprocessing:image", args=[session_name, "-"])[:-1]
    told = []
    for values in rows:
        row = dict(zip(_MICROGRAPH_NAMES, values, strict=True))
        for name in ("grid_square", "foil_hole", "verdict"):
            row[name] = row[name] or None
        for name in ("micrograph_image", "psd_image"):
            row[name] = prefix + row[name] if row[name] else None
        told.append(row)
    return told


def exposures_after(summary: SessionSummary, after: int, limit: int = PAGE) -> dict:
    """A session's exposures changed after a revision and up to the one `summary` was read at."""
    rows = (
        Exposure.objects.filter(
            session=summary.pk, revision__gt=after, revision__lte=summary.exposure_revision
        )
        .order_by("revision")
        .values("id", *_EXPOSURE)
    )
    told = []
    for row in rows[: limit + 1]:
        for name in ("grid_square", "foil_hole", "verdict", "verdict_reason"):
            row[name] = row[name] or None
        told.append(row)
    return _page("exposures", told, summary.exposure_revision, limit)


def _page(name: str, rows: list[dict], revision: int, limit: int) -> dict:
    more = len(rows) > limit
    rows = rows[:limit]
    return {name: rows, "revision": rows[-1]["revision"] if more else revision, "more": more}


def points(micrograph_id: int) -> np.ndarray | None:
    """A micrograph's picks in its pixels, float32 of shape (n, 2), x then y; None where none were posted."""
    packed = Coordinates.objects.filter(pk=micrograph_id).values_list("points", flat=True).first()
    return None if packed is None else np.frombuffer(bytes(packed), dtype="<f4").reshape(-1, 2)


def runs_of(session_id: int) -> Iterator[ProcessingRun]:
    return ProcessingRun.objects.filter(session=session_id).order_by("pk").iterator()
