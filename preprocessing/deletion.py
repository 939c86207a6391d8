"""What goes with a session, and how it goes: in a few statements, whatever the number of micrographs."""

from django.db import transaction

from people.models import AuditEntry
from preprocessing.ingest import summarise
from preprocessing.models import (
    ArchivedRows,
    ClassAverage,
    Coordinates,
    Exposure,
    Micrograph,
    PackedColumns,
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
        Loss("processing runs", len(runs), "processing run"),
        Loss("micrographs", sum(count for _, count in runs), "micrograph"),
        Loss("images", images, "image"),
    ]


def delete(session) -> None:
    """Remove everything below the session, lowest rows first, past the ORM's collecting of objects.

    Holds the same locks in the same order as ingestion, so that whoever is writing finishes first.
    """
    list(ProcessingRun.objects.select_for_update().filter(session=session).order_by("pk").values_list("pk"))
    SessionSummary.objects.select_for_update().get(pk=session.pk)
    # Read under the summary's lock: no run can be made any more.
    ids = list(ProcessingRun.objects.filter(session=session).values_list("pk", flat=True))
    remove(*_of_runs(ids), Exposure.objects.filter(session=session))


@transaction.atomic
def delete_run(run, actor) -> None:
    """Remove one run and its rows; the session's exposures and other runs stay. Leaves an audit entry."""
    locked = ProcessingRun.objects.select_for_update(of=("self",)).select_related("session").get(pk=run.pk)
    summary = SessionSummary.objects.select_for_update().get(pk=locked.session_id)
    AuditEntry.record(
        actor=actor,
        action="run deleted",
        target=locked,
        details={
            "session": locked.session.name,
            "software": locked.software,
            "key": locked.key,
            "gone": {"micrographs": locked.micrographs, "particles": locked.particles},
        },
    )
    remove(*_of_runs([locked.pk]))
    summary.statistics.pop(str(locked.pk), None)
    changed = {"statistics"}
    summarise(summary, changed)
    summary.save(update_fields=sorted(changed))


def _of_runs(ids: list[int]):
    """Everything of these runs and the runs themselves, lowest rows first."""
    micrographs = Micrograph.objects.filter(run__in=ids)
    return (
        Coordinates.objects.filter(micrograph__in=micrographs.order_by().values("pk")),
        micrographs,
        ClassAverage.objects.filter(run__in=ids),
        RunEvent.objects.filter(run__in=ids),
        ArchivedRows.objects.filter(run__in=ids),
        PackedColumns.objects.filter(run__in=ids),
        ProcessingRun.objects.filter(pk__in=ids),
    )


def remove(*querysets) -> None:
    """Delete these rows in turn, a statement each."""
    for rows in querysets:
        rows = rows.order_by()
        rows._raw_delete(rows.db)
