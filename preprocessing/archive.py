"""Archiving: the rows of a session that is over go, what people look at stays.

Kept for ever: the summary (completed, then frozen), the runs with their counters, histograms and parameters, their
events, the last set of 2D classes with its pictures, a few micrographs' pictures, and every measured value in a
compact table (models.ArchivedRows), from which the session's page draws the same charts as before. What goes: the
rows themselves, picked coordinates, earlier sets of classes, and the other pictures.
"""

import math
import zlib
from functools import partial

from django.db import transaction
from django.utils import timezone

from preprocessing import live_words, packed
from preprocessing.completion import computed
from preprocessing.deletion import remove
from preprocessing.histograms import MEASURED_FIELDS
from preprocessing.models import (
    ArchivedRows,
    ClassAverage,
    Coordinates,
    Exposure,
    Micrograph,
    PackedColumns,
    ProcessingRun,
)
from preprocessing.reading import image_url
from sessions_app.images import session_image_dir
from sessions_app.lifecycle import Loss
from sessions_app.models import SessionSummary


def losses(session) -> list[Loss]:
    """What a confirmation names: rows and pictures that archiving removes."""
    runs = list(ProcessingRun.objects.filter(session=session).order_by("pk"))
    ids = [run.pk for run in runs]
    micrographs = Micrograph.objects.filter(run__in=ids)
    pictures = {
        *micrographs.exclude(micrograph_image="").values_list("micrograph_image", flat=True),
        *micrographs.exclude(psd_image="").values_list("psd_image", flat=True),
        *ClassAverage.objects.filter(run__in=ids).exclude(image="").values_list("image", flat=True),
    }
    kept = {name for row in computed(session.pk)["pictures"] for name in (row["image"], row["psd"])}
    for run in runs:
        kept |= set(ClassAverage.objects.latest_set(run).values_list("image", flat=True))
    return [
        Loss("rows of micrographs", sum(run.micrographs for run in runs), "row of a micrograph"),
        Loss("lists of picks", Coordinates.objects.filter(micrograph__run__in=ids).count(), "list of picks"),
        Loss("pictures", len(pictures - kept), "picture"),
    ]


def archive(session) -> None:
    """Freeze the session's summary and remove its rows, inside the caller's transaction.

    Takes the locks of ingestion in its order, so that whoever is posting finishes first and is refused after.
    """
    runs = list(ProcessingRun.objects.select_for_update().filter(session=session).order_by("pk"))
    summary = SessionSummary.objects.select_for_update().get(pk=session.pk)
    # A run made just before the summary was locked has its row by now, and no more can be made.
    known = {run.pk for run in runs}
    runs += ProcessingRun.objects.select_for_update().filter(session=session).exclude(pk__in=known)
    for name, value in computed(session.pk).items():
        setattr(summary, name, value)
    summary.completed_at = summary.frozen_at = timezone.now()
    summary.save()
    kept = {name for row in summary.pictures for name in (row["image"], row["psd"]) if name}
    old_classes = []
    for run in runs:
        _keep_rows(run, kept)
        last = list(ClassAverage.objects.latest_set(run))
        kept |= {row.image for row in last if row.image}
        old_classes.append(ClassAverage.objects.filter(run=run).exclude(pk__in=[row.pk for row in last]))
    ids = [run.pk for run in runs]
    micrographs = Micrograph.objects.filter(run__in=ids)
    remove(
        Coordinates.objects.filter(micrograph__in=micrographs.order_by().values("pk")),
        micrographs,
        *old_classes,
        PackedColumns.objects.filter(run__in=ids),
        Exposure.objects.filter(session=session),
    )
    transaction.on_commit(partial(_prune, session, frozenset(kept)))


def _keep_rows(run: ProcessingRun, kept_pictures: set[str]) -> None:
    table = packed.from_rows(run)
    rows = table.rows.copy()
    rows["flags"] &= 0xFF ^ (packed.PICTURE | packed.SPECTRUM)
    listed = Micrograph.objects.filter(run=run).order_by("pk")
    names = []
    for place, (name, image, psd) in enumerate(listed.values_list("name", "micrograph_image", "psd_image")):
        names.append(name)
        if image in kept_pictures:
            rows["flags"][place] |= packed.PICTURE
        if psd in kept_pictures:
            rows["flags"][place] |= packed.SPECTRUM
    ArchivedRows.objects.create(
        run=run,
        rows=len(rows),
        columns=[[name, rows.dtype[name].str] for name in rows.dtype.names],
        texts=list(table.texts),
        data=zlib.compress(rows.tobytes(), 6),
        names=zlib.compress("\n".join(names).encode(), 6),
    )


def names(run: ProcessingRun) -> list[str]:
    """The archived run's micrographs by name, in the order of its table. Raises ArchivedRows.DoesNotExist."""
    text = zlib.decompress(ArchivedRows.objects.values_list("names", flat=True).get(run=run)).decode()
    return text.split("\n") if text else []


def _prune(session, kept: frozenset[str]) -> None:
    """Remove every other picture of the session from the disk."""
    folder = session_image_dir(session)
    if folder.is_dir():
        for path in folder.iterdir():
            if path.name not in kept:
                path.unlink(missing_ok=True)


def micrograph_detail(session, pk: int) -> dict | None:
    """One micrograph of an archived session, told as live.micrograph_detail does of a row; None if none."""
    for run in ProcessingRun.objects.filter(session=session).order_by("-micrographs", "pk"):
        table = packed.table(run)
        place = table.place(pk)
        if place is not None:
            return _detail(session, run, table, place)
    return None


def _detail(session, run: ProcessingRun, table: packed.Table, place: int) -> dict:
    name = names(run)[place]
    kept = SessionSummary.objects.values_list("pictures", flat=True).get(pk=session.pk)
    picture, psd = next(((row["image"], row["psd"]) for row in kept if row["name"] == name), ("", ""))
    measured = {column: float(table.column(column)[place]) for column in MEASURED_FIELDS}
    acquired = float(table.rows["acquired"][place])
    facts = [{"key": "acquired", "label": "Acquired", "at": None if math.isnan(acquired) else acquired}]
    facts += [
        {"key": key, "label": label, "text": table.texts[table.rows[key][place]]}
        for key, label in (("grid_square", "Grid square"), ("foil_hole", "Foil hole"))
    ]
    return {
        "id": int(table.rows["id"][place]),
        "name": name,
        "number": int(table.number[place]),
        "values": live_words.values(
            {column: None if math.isnan(value) else value for column, value in measured.items()}, table.sent
        ),
        "facts": [fact for fact in facts if fact.get("at") or fact.get("text")],
        "picture": image_url(session.name, picture),
        "psd": image_url(session.name, psd),
    }
