"""Counters, histograms and summaries counted anew from the rows, to prove what ingestion kept."""

from dataclasses import dataclass
from typing import Any

from django.db import transaction

from preprocessing.histograms import COUNTERS, MEASURED_FIELDS, Tally
from preprocessing.ingest import summarise
from preprocessing.models import ClassAverage, Exposure, Micrograph, ProcessingRun
from sessions_app.models import SessionSummary


@dataclass(frozen=True)
class Difference:
    """What was kept and what the rows say, of a run or (run None) of the session's summary."""

    session: str
    run: int | None
    field: str
    kept: Any
    counted: Any

    def __str__(self):
        where = f"session {self.session}" + (f", run {self.run}" if self.run else ", summary")
        return f"{where}: {self.field} is {self.kept}, the rows say {self.counted}"


def tally_of(run_id: int) -> Tally:
    """Every micrograph of the run counted one by one."""
    tally = Tally()
    rows = Micrograph.objects.filter(run=run_id).order_by().values(*MEASURED_FIELDS)
    for row in rows.iterator(chunk_size=5000):
        tally.add(row)
    return tally


@transaction.atomic
def recount(session_id: int, *, repair: bool = False) -> list[Difference]:
    """Compare, and with `repair` correct, one session under the locks of its runs and summary.

    The summary of an archived session is frozen and its rows are gone: it is left alone.
    """
    runs = list(ProcessingRun.objects.select_for_update().filter(session=session_id).order_by("pk"))
    summary = (
        SessionSummary.objects.select_for_update(of=("self",)).select_related("session").get(pk=session_id)
    )
    if summary.frozen_at is not None:
        return []
    name = summary.session.name
    found = []
    for run in runs:
        tally = tally_of(run.pk)
        counted = tally.counters | {
            "histograms": tally.known_histograms(),
            "classes": ClassAverage.objects.latest_set(run).count(),
        }
        wrong = {field: value for field, value in counted.items() if getattr(run, field) != value}
        found += [
            Difference(name, run.pk, field, getattr(run, field), value) for field, value in wrong.items()
        ]
        for field, value in wrong.items():
            setattr(run, field, value)
        if wrong and repair:
            # Readers shall hear of it.
            run.revision += 1
            run.save(update_fields=[*wrong, "revision"])
    return found + _recount_summary(summary, runs, name, repair)


def _recount_summary(
    summary: SessionSummary, runs: list[ProcessingRun], name: str, repair: bool
) -> list[Difference]:
    """Against what its runs come to, repaired or not."""
    kept = {
        field: getattr(summary, field)
        for field in ("exposures", "runs", "leading_run", "processing", "classes", *COUNTERS)
    }
    changed: set[str] = set()
    summarise(summary, changed, {run.pk: run for run in runs})
    exposures = Exposure.objects.filter(session=summary.pk).count()
    if summary.exposures != exposures:
        summary.exposures = exposures
        changed.add("exposures")
    if changed and repair:
        summary.save(update_fields=sorted(changed))
    # The last sign of life is told to the minute, so it is no count that could be wrong.
    return [
        Difference(name, None, field, kept[field], getattr(summary, field))
        for field in sorted(changed & kept.keys())
    ]
