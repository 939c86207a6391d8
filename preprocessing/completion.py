"""What is kept of a session for ever, computed from its rows once it is over: see `complete`."""

import datetime
from collections import Counter
from typing import Any

from django.db import transaction
from django.db.models import Count, F, Q
from django.utils import timezone

from preprocessing.histograms import ANGSTROM_PER_NANOMETRE, MEASURES, mean_defocus
from preprocessing.models import Exposure, Micrograph, ProcessingRun
from preprocessing.statistics import run_statistics
from sessions_app.models import Session, SessionSummary

# The last sign of life is told to the minute only: what came just before a completion may be newer than it says.
SIGN_OF_LIFE = datetime.timedelta(minutes=2)
MAX_HOURS = 24 * 366
MAX_REASONS = 20
PICTURES = 12
COMPLETED = (
    "software",
    "histograms",
    "median_resolution",
    "median_motion",
    "median_astigmatism",
    "throughput",
    "curation",
    "pictures",
    "statistics",
)


def complete(session_id: int) -> bool:
    """Bring the session's summary up to its rows, whatever was kept before; False if it is frozen or gone.

    The rows are read without a lock, so that late results never wait for it; what comes meanwhile makes the
    summary stale again (`stale`), and it is completed once more.
    """
    began = timezone.now()
    values = computed(session_id)
    with transaction.atomic():
        summary = SessionSummary.objects.select_for_update().filter(pk=session_id, frozen_at=None).first()
        if summary is None:
            return False
        for name, value in values.items():
            setattr(summary, name, value)
        summary.completed_at = began
        summary.save(update_fields=[*values, "completed_at"])
    return True


def stale():
    """Sessions that are over and whose summary has to be completed, or completed anew after late results."""
    over = Session.objects.exclude(status__in=[Session.Status.PENDING, Session.Status.ACTIVE])
    behind = Q(summary__completed_at__lt=F("summary__last_seen_at") + SIGN_OF_LIFE)
    return over.filter(Q(summary__completed_at=None) | behind, summary__frozen_at=None).order_by("pk")


def computed(session_id: int) -> dict[str, Any]:
    """The completed part of the summary by column; medians are those of the leading run."""
    runs = list(ProcessingRun.objects.filter(session=session_id).order_by("pk"))
    leading = max(runs, key=lambda run: (run.micrographs, run.pk), default=None)
    statistics = {str(run.pk): {"revision": run.revision, "fields": run_statistics(run.pk)} for run in runs}
    found = statistics[str(leading.pk)]["fields"] if leading else {}

    def median(field: str, scale: float = 1) -> float | None:
        return found[field]["median"] / scale if field in found else None

    return {
        "software": leading.software if leading else "",
        "histograms": described(leading.histograms) if leading else {},
        "median_resolution": median("ctf_resolution"),
        "median_motion": median("motion_total"),
        "median_astigmatism": median("astigmatism", ANGSTROM_PER_NANOMETRE),
        "throughput": throughput(session_id, leading),
        "curation": curation(session_id),
        "pictures": pictures(leading) if leading else [],
        "statistics": statistics,
    }


def described(histograms: dict[str, list[int]]) -> dict[str, dict]:
    """A run's counts with what they mean, so that they can be read when this program's edges have changed.

    `edges` is the first edge, the last, and how many equal bins lie between them.
    """
    return {
        name: {
            "label": MEASURES[name].label,
            "unit": MEASURES[name].unit,
            "edges": [MEASURES[name].edges[0], MEASURES[name].edges[-1], len(MEASURES[name].edges) - 1],
            "counts": counts,
        }
        for name, counts in histograms.items()
        if name in MEASURES
    }


def throughput(session_id: int, leading: ProcessingRun | None) -> dict:
    """Movies by hour of UTC: `basis` ("acquired" or "arrived"), `start` (ISO) and `counts` from there on.

    By the time of acquisition where most movies have one, else by the time the leading run's arrived here.
    Without any movie, or with times more than a year apart (a clock was wrong), an empty dict.
    """
    times = list(Exposure.objects.filter(session=session_id).order_by().values_list("acquired_at", flat=True))
    known = [moment for moment in times if moment is not None]
    basis = "acquired"
    if leading is not None and 2 * len(known) < max(len(times), 1):
        basis = "arrived"
        arrived = Micrograph.objects.filter(run=leading).order_by()
        known = list(arrived.values_list("created_at", flat=True))
    if not known:
        return {}
    hours = Counter(int(moment.timestamp() // 3600) for moment in known)
    first, last = min(hours), max(hours)
    if last - first > MAX_HOURS:
        return {}
    start = datetime.datetime.fromtimestamp(first * 3600, datetime.UTC)
    return {
        "basis": basis,
        "start": start.isoformat(),
        "counts": [hours.get(hour, 0) for hour in range(first, last + 1)],
    }


def curation(session_id: int) -> dict:
    """How many movies people `accepted` and `rejected`, and the commonest `reasons` for the latter, with counts."""
    verdicts = Exposure.objects.filter(session=session_id).exclude(verdict="").order_by()
    counted = verdicts.values_list("verdict", "verdict_reason").annotate(count=Count("pk"))
    found = dict.fromkeys(Exposure.Verdict.values, 0)
    reasons: Counter[str] = Counter()
    for verdict, reason, count in counted:
        found[verdict] += count
        if verdict == Exposure.Verdict.REJECTED:
            reasons[reason] += count
    if not any(found.values()):
        return {}
    return found | {"reasons": dict(reasons.most_common(MAX_REASONS))}


def pictures(run: ProcessingRun) -> list[dict]:
    """A few micrographs with a picture, evenly over the run: `name`, `image`, `psd` and what was measured."""
    shown = Micrograph.objects.filter(run=run).exclude(micrograph_image="").order_by("pk")
    ids = list(shown.values_list("pk", flat=True))
    chosen = (
        {ids[round(place * (len(ids) - 1) / max(PICTURES - 1, 1))] for place in range(PICTURES)}
        if ids
        else ()
    )
    columns = (
        "name",
        "micrograph_image",
        "psd_image",
        "defocus_u",
        "defocus_v",
        "ctf_resolution",
        "particles",
    )
    return [
        {
            "name": row["name"],
            "image": row["micrograph_image"],
            "psd": row["psd_image"],
            "defocus": mean_defocus(row["defocus_u"], row["defocus_v"]),
            "ctf_resolution": row["ctf_resolution"],
            "particles": row["particles"],
        }
        for row in shown.filter(pk__in=chosen).values(*columns)
    ]
