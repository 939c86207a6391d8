"""What goes with a session, and how it goes: in a few statements, whatever the number of micrographs."""

from preprocessing.models import (
    ClassAverage,
    Coordinates,
    Exposure,
    Micrograph,
    ProcessingRun,
    RunEvent,
)
from sessions_app.lifecycle import Loss
from sessions_app.models import SessionSummary


def losses(session) -> list[Loss]:
    """Runs, micrographs and images that a confirmation names."""
    runs = list(ProcessingRun.objects.filter(session=session).values_list("pk", "micrographs"))
    ids = [pk for pk, _ in runs]
    micrographs = Micrograph.objects.filter(run__in=ids)
    images = (
        micrographs.exclude(micrograph_image="").count()
        + micrographs.exclude(psd_image="").count()
        + ClassAverage.objects.filter(run__in=ids).exclude(image="").count()
    )
    return [
        Loss("processing runs", len(runs)),
        Loss("micrographs", sum(count for _, count in runs)),
        Loss("images", images),
    ]


def delete(session) -> None:
    """Remove everything below the session, lowest rows first, past the ORM's collecting of objects.

    Holds the same locks in the same order as ingestion, so that whoever is writing finishes first.
    """
    list(ProcessingRun.objects.select_for_update().filter(session=session).order_by("pk").values_list("pk"))
    SessionSummary.objects.select_for_update().get(pk=session.pk)
    # Read under the summary's lock: no run can be made any more.
    ids = list(ProcessingRun.objects.filter(session=session).values_list("pk", flat=True))
    micrographs = Micrograph.objects.filter(run__in=ids)
    for rows in (
        Coordinates.objects.filter(micrograph__in=micrographs.order_by().values("pk")),
        micrographs,
        ClassAverage.objects.filter(run__in=ids),
        RunEvent.objects.filter(run__in=ids),
        ProcessingRun.objects.filter(pk__in=ids),
        Exposure.objects.filter(session=session),
    ):
        rows = rows.order_by()
        rows._raw_delete(rows.db)
