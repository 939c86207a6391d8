"""People's verdicts on movies: one, many or all that a filter shows; each decision is kept and can be undone.

A verdict belongs to the exposure, so it counts for every run that looked at it, and no pipeline touches it.
"""

import datetime
import json
import zlib
from collections.abc import Sequence

from django.db import transaction
from django.utils import timezone

from preprocessing import ingest
from preprocessing.models import CurationAct, Exposure

VERDICTS = {"accepted": "Accepted", "rejected": "Rejected", "": "Made undecided"}
CHUNK = 2000
_COLUMNS = ("verdict", "verdict_by_id", "verdict_at", "verdict_reason")


class AlreadyUndone(Exception):
    """Somebody undid it before."""


@transaction.atomic
def judge(
    session, actor, exposures: Sequence[int], verdict: str, *, reason: str = "", what: str
) -> CurationAct | None:
    """Give these exposures (ids) the verdict; None where all of them had it, with this reason, already.

    `what` says which ones in words. Raises ValueError for a verdict that is none, preprocessing.ingest's
    SessionArchived.
    """
    if verdict not in VERDICTS:
        raise ValueError(f"{verdict!r} is no verdict.")
    now = timezone.now()
    values = {
        "verdict": verdict,
        "verdict_reason": reason if verdict == Exposure.Verdict.REJECTED else "",
    }
    before: dict[str, dict] = {}
    for part in _parts(exposures):
        rows = Exposure.objects.filter(session=session, pk__in=part)
        differing = [
            identity
            for identity, *present in rows.values_list("identity", *values)
            if present != list(values.values())
        ]
        mark = values | {"verdict_by_id": actor.pk, "verdict_at": now}
        ingest.change_exposures(session.pk, dict.fromkeys(differing, mark), before)
    if not before:
        return None
    return CurationAct.objects.create(
        session=session,
        by=actor,
        at=now,
        verdict=verdict,
        reason=values["verdict_reason"],
        count=len(before),
        what=what[:300],
        before=_packed(before),
    )


@transaction.atomic
def undo(act: CurationAct, actor) -> int:
    """Give what the decision changed its former verdicts back, except where somebody decided anew since.

    Answers how many exposures changed. Raises AlreadyUndone, preprocessing.ingest's SessionArchived.
    """
    row = CurationAct.objects.select_for_update(of=("self",)).get(pk=act.pk)
    if row.undone_at is not None:
        raise AlreadyUndone
    former = _unpacked(row.before)
    changed = 0
    for part in _parts(list(former)):
        untouched = Exposure.objects.filter(
            session=row.session_id, identity__in=part, verdict_at=row.at, verdict_by=row.by_id
        ).values_list("identity", flat=True)
        changed += ingest.change_exposures(row.session_id, {key: former[key] for key in untouched})
    row.undone_by, row.undone_at = actor, timezone.now()
    row.save(update_fields=["undone_by", "undone_at"])
    return changed


def _parts(items: Sequence) -> list[Sequence]:
    return [items[first : first + CHUNK] for first in range(0, len(items), CHUNK)]


def _packed(before: dict[str, dict]) -> bytes:
    rows = [
        [
            key,
            *(
                value.isoformat() if isinstance(value, datetime.datetime) else value
                for value in (row.get(name) for name in _COLUMNS)
            ),
        ]
        for key, row in before.items()
    ]
    return zlib.compress(json.dumps(rows).encode())


def _unpacked(data: bytes) -> dict[str, dict]:
    found = {}
    for key, verdict, by, at, reason in json.loads(zlib.decompress(data)):
        found[key] = {
            "verdict": verdict,
            "verdict_by_id": by,
            "verdict_at": datetime.datetime.fromisoformat(at) if at else None,
            "verdict_reason": reason,
        }
    return found
