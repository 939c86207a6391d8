"""The live page's data: a run's rows as columns, bins and deltas by revision.

Reads only, and never inside a transaction: on SQLite that would take the write lock. A change committed between
two of these queries is therefore told twice at most (rows carry their own revisions), never missed: the run's
revision is read first. Nothing here grows with the number of micrographs but by what has changed, and a first
load sends the newest `LIMIT` of them.
"""

import hashlib
from dataclasses import dataclass, field

import orjson
from django.utils import timezone

from preprocessing import live_words
from preprocessing.histograms import MEASURED_FIELDS, MEASURES
from preprocessing.models import ClassAverage, Micrograph, ProcessingRun, RunEvent
from preprocessing.reading import image_url

LIMIT = 5000
EVENTS = 50
CLASSES = 500


# The quantities drawn over the session; their names are those of their columns and histograms.
SERIES = ("defocus", "ctf_resolution", "motion_total")
SERIES_FIELDS = tuple(dict.fromkeys(name for key in SERIES for name in MEASURES[key].fields))


class NoSuchRun(LookupError):
    """The session has no run of this id."""


@dataclass
class Reading:
    """One look at a session: cheap to make; `answer` reads what changed since a revision."""

    session: object
    runs: list[ProcessingRun]
    run: ProcessingRun | None
    state: live_words.State
    counters: dict = field(default_factory=dict)

    @property
    def etag(self) -> str:
        """Changes whenever anything the page shows does; the clock's part is in the state's words."""
        parts = [
            self.session.status,
            self.state.text,
            self.run and self.run.pk,
            self.counters,
            [
                (run.pk, run.revision, run.status, run.label, run.last_seen_at, run.micrographs)
                for run in self.runs
            ],
        ]
        return '"' + hashlib.blake2b(orjson.dumps(parts), digest_size=12).hexdigest() + '"'

    def answer(self, after: int = 0) -> dict:
        """Everything on the page that changed since the run's revision `after` (0: all)."""
        data = {
            "now": timezone.now().timestamp(),
            "session": {"name": self.session.name, "running": self.session.is_running},
            "state": {
                "key": self.state.key,
                "level": self.state.level,
                "icon": self.state.icon,
                "text": self.state.text,
            },
            "counters": self.counters,
            "runs": [run_choice(run) for run in self.runs],
            "run": None,
        }
        if self.run is None:
            return data
        data["run"] = run_facts(self.run)
        # A revision from the future belongs to a database that was since restored: start over.
        since = after if 0 < after <= self.run.revision else 0
        if since and since == self.run.revision:
            return data | {"micrographs": None, "classes": None, "events": []}
        heavy = ProcessingRun.objects.values("parameters", "histograms").get(pk=self.run.pk)
        return data | {
            "parameters": heavy["parameters"],
            "histograms": histograms(heavy["histograms"]),
            "micrographs": columns(self.run, since),
            "classes": newest_classes(self.session, self.run, since),
            "events": events(self.run, since),
        }


def read(session, run_id: int | None = None, now=None) -> Reading:
    """Look at a session (with its summary, booking, microscope and lab) by one of its runs.

    Without `run_id` by the leading one: most micrographs, then the newest. Raises NoSuchRun.
    """
    runs = list(
        ProcessingRun.objects.filter(session=session).defer("parameters", "histograms").order_by("id")
    )
    if run_id is None:
        run = max(runs, key=lambda run: (run.micrographs, run.pk), default=None)
    else:
        run = next((run for run in runs if run.pk == run_id), None)
        if run is None:
            raise NoSuchRun(run_id)
    newest_at = None
    if run is not None and run.micrographs:
        newest_at = (
            Micrograph.objects.filter(run=run)
            .order_by("-exposure_id")
            .values_list("created_at", flat=True)[:1]
        )
        newest_at = next(iter(newest_at), None)
    return Reading(
        session=session,
        runs=runs,
        run=run,
        state=live_words.state(session, run, newest_at=newest_at, now=now),
        counters=counters(session, run),
    )


def counters(session, run) -> dict:
    """Movies known to the watcher or any pipeline, and how far this run has come with them."""
    summary = session.summary
    return {
        "movies": max(summary.exposures, session.data_movies or 0, run.micrographs if run else 0),
        "micrographs": run.micrographs if run else 0,
        "motion_corrected": run.motion_corrected if run else 0,
        "ctf_estimated": run.ctf_estimated if run else 0,
        "picked": run.picked if run else 0,
        "particles": run.particles if run else 0,
    }


def run_choice(run) -> dict:
    return {"id": run.pk, "name": str(run), "status": run.status, "micrographs": run.micrographs}


def run_facts(run) -> dict:
    """What the run is, in plain values; times in seconds since 1970 (UTC), lengths in Å and pixels."""
    return {
        "id": run.pk,
        "revision": run.revision,
        "name": str(run),
        "software": run.software,
        "version": run.version,
        "host": run.host,
        "status": run.get_status_display(),
        "started": run.started_at.timestamp(),
        "finished": run.finished_at.timestamp() if run.finished_at else None,
        "last_seen": run.last_seen_at.timestamp(),
        "pixel_size": run.pixel_size,
        "width": run.width,
        "height": run.height,
        "particle_diameter": run.particle_diameter,
    }


def columns(run, after: int = 0) -> dict:
    """Micrographs changed since `after` as columns of equal length, in the order of their exposures.

    `reset` says that these replace what the reader has: at first, and when more than `LIMIT` have changed, in
    both cases with the newest `LIMIT`. `acquired` and `reported` are seconds since 1970 (UTC); `pictures` is
    1 for the micrograph's, plus 2 for its power spectrum's.
    """
    rows = Micrograph.objects.filter(run=run).values(
        "id",
        "exposure_id",
        "exposure__acquired_at",
        "created_at",
        "micrograph_image",
        "psd_image",
        *SERIES_FIELDS,
    )
    reset = after == 0
    if not reset:
        changed = list(rows.filter(revision__gt=after).order_by("revision")[: LIMIT + 1])
        reset = len(changed) > LIMIT
    if reset:
        # By the unique index (run, exposure), backwards: the newest without looking at the others.
        changed = list(rows.order_by("-exposure_id")[:LIMIT])
    changed.sort(key=lambda row: row["exposure_id"])
    return {
        "reset": reset,
        "total": run.micrographs,
        "limit": LIMIT,
        "id": [row["id"] for row in changed],
        "exposure": [row["exposure_id"] for row in changed],
        "acquired": [_seconds(row["exposure__acquired_at"]) for row in changed],
        "reported": [_seconds(row["created_at"]) for row in changed],
        "pictures": [bool(row["micrograph_image"]) + 2 * bool(row["psd_image"]) for row in changed],
        "series": {key: [_rounded(key, row) for row in changed] for key in SERIES},
    }


def _seconds(moment) -> int | None:
    return None if moment is None else int(moment.timestamp())


def _rounded(key: str, row: dict) -> float | None:
    """The value in the unit shown, a digit finer than people read it."""
    value = MEASURES[key].value(row)
    return None if value is None else round(value, live_words.digits(key) + 1)


def newest_classes(session, run, after: int = 0) -> dict | None:
    """The newest iteration of the newest job, most particles first; None where no class changed since `after`.

    `share` is of the particles in all classes of that iteration.
    """
    of_run = ClassAverage.objects.filter(run=run)
    if not run.classes or (after and not of_run.filter(revision__gt=after).exists()):
        return None
    rows = list(
        ClassAverage.objects.latest_set(run)
        .order_by("-particles", "number")
        .values("job", "iteration", "number", "particles", "resolution", "image")
    )
    if not rows:
        return None
    total = sum(row["particles"] for row in rows)
    return {
        "job": rows[0]["job"],
        "iteration": rows[0]["iteration"],
        "total": total,
        "count": len(rows),
        "rows": [
            {
                "number": row["number"],
                "particles": row["particles"],
                "share": row["particles"] / total if total else None,
                "resolution": row["resolution"],
                "image": image_url(session.name, row["image"]),
            }
            for row in rows[:CLASSES]
        ],
    }


def events(run, after: int = 0) -> list[dict]:
    """The pipeline's own messages among its newest `EVENTS` that came since `after`, newest first."""
    newest = RunEvent.objects.filter(run=run).order_by("-id")[:EVENTS]
    return [
        {"id": event.pk, "at": event.at.timestamp(), "level": event.level, "text": event.text}
        for event in newest
        if event.revision > after or not after
    ]


def histograms(kept: dict[str, list[int]]) -> dict[str, dict]:
    """The run's kept histograms of SERIES as bins: `edges` (n + 1, in the unit shown) and `counts` (n).

    Empty bins at both ends are left out; `below` and `above` count what lies outside of `limits`. A quantity
    never measured has no histogram.
    """
    bins = {}
    for key in SERIES:
        counts = kept.get(key)
        if not counts or not any(counts):
            continue
        edges, inner = MEASURES[key].edges, counts[1:-1]
        filled = [place for place, count in enumerate(inner) if count]
        first, last = (filled[0], filled[-1]) if filled else (0, -1)
        bins[key] = {
            "edges": list(edges[first : last + 2]),
            "counts": inner[first : last + 1],
            "below": counts[0],
            "above": counts[-1],
            "limits": [edges[0], edges[-1]],
        }
    return bins


def series_facts() -> list[dict]:
    """What the charts need to know of each quantity: its label, unit and sensible digits."""
    return [
        {
            "key": key,
            "label": MEASURES[key].label,
            "unit": MEASURES[key].unit,
            "digits": live_words.digits(key),
        }
        for key in SERIES
    ]


def micrograph_detail(session, pk: int) -> dict | None:
    """One micrograph of the session with every value in words and its pictures; None where there is none."""
    micrograph = (
        Micrograph.objects.select_related("exposure", "run").filter(run__session=session, pk=pk).first()
    )
    if micrograph is None:
        return None
    exposure = micrograph.exposure
    row = {name: getattr(micrograph, name) for name in MEASURED_FIELDS}
    facts = [
        {"key": "acquired", "label": "Acquired", "at": _seconds(exposure.acquired_at)},
        {"key": "reported", "label": "Reported", "at": _seconds(micrograph.created_at)},
        {"key": "grid_square", "label": "Grid square", "text": exposure.grid_square},
        {"key": "foil_hole", "label": "Foil hole", "text": exposure.foil_hole},
    ]
    if exposure.stage_x is not None and exposure.stage_y is not None:
        where = f"{exposure.stage_x:,.1f}, {exposure.stage_y:,.1f}"
        facts.append({"key": "stage", "label": "Stage x, y", "text": where, "unit": "µm"})
    if micrograph.rejected is not None:
        said = "rejected" if micrograph.rejected else "accepted"
        facts.append({"key": "rejected", "label": "By the pipeline", "text": said})
    return {
        "id": micrograph.pk,
        "name": micrograph.name,
        "values": live_words.values(row, micrograph.run.histograms),
        "facts": [fact for fact in facts if fact.get("at") or fact.get("text")],
        "picture": image_url(session.name, micrograph.micrograph_image),
        "psd": image_url(session.name, micrograph.psd_image),
    }
