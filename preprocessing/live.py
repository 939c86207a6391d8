"""The live page's data: a run's rows reduced for charts, deltas by revision, and the verdict on them.

Reads only, and never inside a transaction: on SQLite that would take the write lock. A change committed between
two of these queries is therefore told twice at most (rows carry their own revisions), never missed: the run's
revision is read first. The rows themselves come from memory (packed.py), so that nothing here grows with the
number of micrographs but by what has changed, and charts get what reduction.py leaves of many.
"""

import hashlib
from dataclasses import dataclass, field

import numpy as np
import orjson
from django.utils import timezone

from preprocessing import live_words, packed, reduction
from preprocessing.histograms import MEASURED_FIELDS, MEASURES
from preprocessing.models import ClassAverage, Micrograph, ProcessingRun, RunEvent
from preprocessing.reading import image_url
from preprocessing.reduction import View
from preprocessing.state import State, limits_of, state_of
from preprocessing.verdict import LIMITS, bounds_of, verdict

#: More changes than this at once are told as a first load.
LIMIT = 2000
EVENTS = 50
CLASSES = 500
AXES = ("number", "time")

# The quantities drawn over the session, as people look at them; their names are those of their histograms.
SERIES = (
    "ctf_resolution",
    "defocus",
    "motion_total",
    "particles",
    "astigmatism",
    "ice_thickness",
    "motion_early",
    "motion_late",
    "phase_shift",
    "ctf_score",
)


class NoSuchRun(LookupError):
    """The session has no run of this id."""


@dataclass
class Reading:
    """One look at a session: cheap to make; `answer` reads what changed since a revision."""

    session: object
    runs: list[ProcessingRun]
    run: ProcessingRun | None
    state: State
    now: object
    counters: dict = field(default_factory=dict)

    @property
    def limits(self):
        return limits_of(self.session)

    @property
    def etag(self) -> str:
        """Changes whenever anything the page shows does; once a minute too while the clock moves rates."""
        parts = [
            self.session.status,
            self.session.data_bytes,
            # Not its words, in which each reader has the hours as they like them.
            (self.state.code, self.state.level, self.state.since),
            self.session.summary.alerts,
            self.run and self.run.pk,
            self.counters,
            [getattr(self.limits, name) for pair in LIMITS.values() for name in pair if name],
            self.session.is_running and int(self.now.timestamp() // 60),
            [
                (run.pk, run.revision, run.status, run.label, run.last_seen_at, run.micrographs)
                for run in self.runs
            ],
        ]
        return f'"{tag_of(parts)}"'

    def table(self) -> packed.Table | None:
        return None if self.run is None else packed.table(self.run, pack=False)

    def verdict(self) -> dict:
        return verdict(
            self.session, self.table(), self.limits, self.state, self.counters["movies"], now=self.now
        )

    def answer(self, after: int = 0, axis: str | None = None) -> dict:
        """Everything on the page that changed since the run's revision `after` (0: all)."""
        data = {
            "now": self.now.timestamp(),
            "session": {"name": self.session.name, "running": self.session.is_running},
            "state": {
                "key": self.state.code,
                "level": self.state.level,
                "icon": self.state.icon,
                "text": self.state.words,
            },
            "alerts": self.session.summary.alerts,
            "counters": self.counters,
            "verdict": self.verdict(),
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
        return data | self.news(since, axis)

    def news(self, since: int, axis: str | None) -> dict[str, orjson.Fragment]:
        """What changed in the run, packed as JSON once for all who ask since the same revision."""
        table, run = self.table(), self.run

        def make():
            heavy = ProcessingRun.objects.values("parameters", "histograms").get(pk=run.pk)
            found = {
                "parameters": heavy["parameters"],
                "histograms": histograms(heavy["histograms"]),
                "throughput": reduction.throughput(table.time),
                "beam_shifts": bool((~np.isnan(table.rows["beam_shift_x"])).any()),
                "micrographs": changes(table, since) or whole(table, axis),
                "classes": newest_classes(self.session, run, since),
                "events": events(run, since),
            }
            return {name: orjson.Fragment(dump(value)) for name, value in found.items()}

        return table.keep(("news", run.revision, since, axis), make)


def tag_of(parts: list) -> str:
    """A short name for these values: the same for the same."""
    return hashlib.blake2b(orjson.dumps(parts), digest_size=12).hexdigest()


def read(session, run_id: int | None = None, now=None, *, runs: list[ProcessingRun] | None = None) -> Reading:
    """Look at a session (with what state.RELATED names) by one of its runs, of `runs_of` it where they are at hand.

    Without `run_id` by the leading one: most micrographs, then the newest. Raises NoSuchRun.
    """
    now = now or timezone.now()
    runs, run = runs_and(session, run_id, runs)
    return Reading(
        session=session,
        runs=runs,
        run=run,
        state=state_of(session, now),
        now=now,
        counters=counters(session, run),
    )


def runs_of(session) -> list[ProcessingRun]:
    """The session's runs without their heavy columns."""
    return list(
        ProcessingRun.objects.filter(session=session).defer("parameters", "histograms").order_by("id")
    )


def runs_and(
    session, run_id: int | None = None, runs: list[ProcessingRun] | None = None
) -> tuple[list[ProcessingRun], ProcessingRun | None]:
    """The session's runs and the one meant: by its id or else the leading one. Raises NoSuchRun."""
    if runs is None:
        runs = runs_of(session)
    if run_id is None:
        return runs, max(runs, key=lambda run: (run.micrographs, run.pk), default=None)
    run = next((run for run in runs if run.pk == run_id), None)
    if run is None:
        raise NoSuchRun(run_id)
    return runs, run


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
        "classes": run.classes if run else 0,
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


# -- Rows --------------------------------------------------------------------------------------------------


def columns(table: packed.Table, places: np.ndarray) -> dict:
    """Rows as columns of equal length.

    `number` is the image number; `acquired` and `reported` are seconds since 1970 (UTC); `flags` adds 1 for the
    micrograph's picture, 2 for its power spectrum's, 4 where the pipeline rejected it, 8 and 16 where a person
    accepted or rejected it; `series` has the quantities that were ever sent, in the unit shown and finer than
    people read them; `angle` is that of the astigmatism (°).
    """
    rows = table.rows[places]
    angle = table.column("defocus_angle")[places]
    return {
        "id": rows["id"].copy(),
        "exposure": rows["exposure"].copy(),
        "number": table.number[places],
        "acquired": _seconds_of(rows["acquired"]),
        "reported": _seconds_of(rows["reported"]),
        "flags": rows["flags"].copy(),
        "series": {
            key: np.round(table.measure(key)[places], live_words.digits_sent(key))
            for key in SERIES
            if key in table.sent
        },
        "angle": None if np.isnan(angle).all() else np.round(angle),
    }


def _seconds_of(times: np.ndarray) -> np.ndarray | list | None:
    """Whole seconds; None where none is known."""
    unknown = np.isnan(times)
    if unknown.all():
        return None
    if unknown.any():
        return [None if each else int(time) for each, time in zip(unknown, times, strict=True)]
    return times.astype(np.int64)


def changes(table: packed.Table, after: int) -> dict | None:
    """The rows that changed since the revision `after`; None where that is everything or too much at once."""
    if after == 0:
        return None
    changed = table.rows["revision"] > after
    if int(changed.sum()) > LIMIT:
        return None
    places = table.order[changed[table.order]]
    return {"reset": False, "total": len(table)} | columns(table, places)


def whole(table: packed.Table, axis: str | None = None) -> dict | orjson.Fragment:
    """The charts' first load: the whole session along an axis, packed as JSON once for each revision.

    Without `axis` by time where it is known of most, else by image number.
    """
    view = View(axis or usual_axis(table))
    return orjson.Fragment(table.keep(("whole", view), lambda: dump(look(table, view))))


def usual_axis(table: packed.Table) -> str:
    known = ~np.isnan(table.rows["acquired"])
    return "time" if 2 * int(known.sum()) > len(table) else "number"


def dump(data) -> bytes:
    return orjson.dumps(data, option=orjson.OPT_SERIALIZE_NUMPY)


def look(table: packed.Table, view: View) -> dict:
    """What charts draw of a view: all of its rows or, of many, those that reduction.py chooses, with medians.

    `reset` says that this replaces what the reader has of the view; `rows` is how many there are in it, `complete`
    whether all of them are here; `medians` (None where complete) is the line to draw: `x` and `series`.
    """
    order, x = reduction.seen(table, view)
    keys = [key for key in SERIES if key in table.sent]
    places = reduction.chosen(table, order, keys, reduction.TAIL if view.stop is None else 0)
    complete = len(places) == len(order)
    medians = None
    if not complete:
        medians = reduction.medians(table, order, x, keys)
        for key in keys:
            medians["series"][key] = np.round(medians["series"][key], live_words.digits_sent(key))
    return {
        "reset": True,
        "total": len(table),
        "axis": view.axis,
        "rows": len(order),
        "complete": complete,
        "medians": medians,
    } | columns(table, order[places])


def look_closer(run: ProcessingRun, view: View, limits) -> dict:
    """A part of the session: its rows as `look` gives them, histograms of all of them, and how many are usable."""
    table = packed.table(run)
    order, _ = reduction.seen(table, view)
    judged, good = reduction.usable(table, bounds_of(limits))
    keys = [key for key in SERIES if key in table.sent]
    return look(table, view) | {
        "histograms": histograms(reduction.counts(table, order, keys)),
        "judged": int(judged[order].sum()),
        "usable": int(good[order].sum()),
    }


def pair(run: ProcessingRun, view: View, across: str, up: str) -> dict:
    """Two quantities against each other, of many rows one for each visible spot: see reduction.scatter."""
    table = packed.table(run)
    order, _ = reduction.seen(table, view)
    if across not in table.sent or up not in table.sent:
        return {"x": [], "y": [], "id": [], "count": [], "total": 0}
    found = reduction.scatter(table, order, across, up)
    places = found["places"]
    return {
        "x": np.round(table.measure(across)[places], live_words.digits_sent(across)),
        "y": np.round(table.measure(up)[places], live_words.digits_sent(up)),
        "id": table.rows["id"][places],
        "count": found["count"],
        "total": found["total"],
    }


# How many groups are listed, and how many shifts are drawn.
MOST_GROUPS = 100
MOST_SHIFTS = 2000


def beam_shifts(run: ProcessingRun) -> orjson.Fragment:
    """Groups of beam shifts with the medians of each, the largest first, and shifts to draw (the newest)."""
    table = packed.table(run)
    return orjson.Fragment(table.keep("shifts", lambda: dump(_beam_shifts(table))))


def _beam_shifts(table: packed.Table) -> dict:
    x, y = table.column("beam_shift_x"), table.column("beam_shift_y")
    known = np.flatnonzero(~(np.isnan(x) | np.isnan(y)))
    keys = [key for key in SERIES if key in table.sent]
    labels = reduction.beam_shift_groups(x[known], y[known])
    within = labels < MOST_GROUPS
    groups, sizes, found = reduction.grouped(
        labels[within], {key: table.measure(key)[known][within] for key in keys}
    )
    _, _, centres = reduction.grouped(labels[within], {"x": x[known][within], "y": y[known][within]})
    newest = np.argsort(table.rows["exposure"][known], kind="stable")[-MOST_SHIFTS:]
    return {
        "total": len(known),
        "groups": int(labels.max()) + 1 if len(labels) else 0,
        "shifts": {
            "x": np.round(x[known][newest], 4),
            "y": np.round(y[known][newest], 4),
            "group": labels[newest],
            "id": table.rows["id"][known][newest],
        },
        "rows": [
            {
                "group": int(group),
                "count": int(size),
                "x": float(centres["x"][place]),
                "y": float(centres["y"][place]),
                "medians": _plain({key: found[key][place] for key in keys}),
            }
            for place, (group, size) in enumerate(zip(groups, sizes, strict=True))
        ],
    }


def _plain(medians: dict) -> dict:
    """Rounded as people read them; None for unknown."""
    return {
        key: None if np.isnan(value) else round(float(value), live_words.digits_sent(key))
        for key, value in medians.items()
    }


# -- Classes, messages, histograms ---------------------------------------------------------------------------


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


def _seconds(moment) -> int | None:
    return None if moment is None else int(moment.timestamp())


def micrograph_detail(session, pk: int) -> dict | None:
    """One micrograph of the session with every value in words and its pictures; None where there is none.

    `number` is its image number in its run; None in the moment before the run's table knows of it.
    """
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
    table = packed.table(micrograph.run)
    place = table.place(pk)
    return {
        "id": micrograph.pk,
        "name": micrograph.name,
        "number": None if place is None else int(table.number[place]),
        "values": live_words.values(row, micrograph.run.histograms),
        "facts": [fact for fact in facts if fact.get("at") or fact.get("text")],
        "picture": image_url(session.name, micrograph.micrograph_image),
        "psd": image_url(session.name, micrograph.psd_image),
    }
