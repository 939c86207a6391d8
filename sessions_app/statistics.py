"""What the microscopes did in a period: sessions, hours, images, and how good they were.

Made of the sessions' summaries and bookings alone, in a fixed number of queries; rows of micrographs are never
read. A session counts in the facility's month in which it began, whole; so does a booking. Medians of several
sessions come from their merged histograms (merging.py) and weigh every micrograph alike.
"""

import datetime
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field

from django.db.models import Q
from django.utils import timezone

from bookings.models import Booking
from sessions_app.merging import Merged, Quantile
from sessions_app.models import Session

MAX_SESSIONS = 20_000
MAX_DAYS = 10 * 366
# A session of fewer micrographs is no good or bad one yet.
ENOUGH_MICROGRAPHS = 50
BEST = 5
PLACE_DAYS = 90
# Fewer neighbours say nothing, and might say too much about one of them.
ENOUGH_SESSIONS = 5


@dataclass(frozen=True)
class Quality:
    """A quantity by which sessions are compared: the histogram's name, the column of a session's own median."""

    name: str
    label: str
    inline: str  # as it stands within a line
    unit: str
    column: str
    decimals: int


QUALITIES = (
    Quality("ctf_resolution", "CTF resolution", "CTF resolution", "Å", "median_resolution", 2),
    Quality("motion_total", "Total motion", "total motion", "Å", "median_motion", 1),
    Quality("astigmatism", "Astigmatism", "astigmatism", "nm", "median_astigmatism", 1),
)


class TooMuch(Exception):
    """More sessions than one page can add up; the message says what to do."""


@dataclass(frozen=True)
class Choice:
    """What is asked for: local days (both count), and None for any microscope or lab, "" for any sample."""

    since: datetime.date
    until: datetime.date
    microscopes: tuple | None = None
    labs: tuple | None = None
    sample: str = ""

    @property
    def start(self) -> datetime.datetime:
        return _midnight(self.since)

    @property
    def end(self) -> datetime.datetime:
        return _midnight(self.until + datetime.timedelta(days=1))

    @property
    def months(self) -> list[datetime.date]:
        """The first days of the months it touches."""
        month, found = self.since.replace(day=1), []
        while month <= self.until:
            found.append(month)
            month = (month + datetime.timedelta(days=32)).replace(day=1)
        return found


def _midnight(day: datetime.date) -> datetime.datetime:
    return timezone.make_aware(datetime.datetime.combine(day, datetime.time()))


@dataclass
class Group:
    """What sessions and bookings of one month, microscope, lab or sample come to."""

    label: str = ""
    sessions: int = 0
    booked_hours: float = 0.0
    movies: int = 0
    bytes: int = 0
    particles: int = 0
    micrographs: int = 0
    merged: dict[str, Merged] = field(default_factory=lambda: {q.name: Merged() for q in QUALITIES})
    _beam: dict[int, list[tuple[datetime.datetime, datetime.datetime]]] = field(default_factory=dict)
    colour: str = ""

    def add(self, row: dict) -> None:
        self.sessions += 1
        self.movies += row["movies"]
        self.bytes += row["data_bytes"] or 0
        self.particles += row["summary__particles"]
        self.micrographs += row["summary__micrographs"]
        for name, merged in self.merged.items():
            merged.add(row["summary__histograms"].get(name))
        if row["beam"] is not None:
            self._beam.setdefault(row["microscope"], []).append(row["beam"])

    @property
    def beam_hours(self) -> float:
        """Hours in which a session was recording; sessions side by side on a microscope count once."""
        seconds = 0.0
        for times in self._beam.values():
            reached = None
            for start, end in sorted(times):
                begin = start if reached is None else max(start, reached)
                if end > begin:
                    seconds += (end - begin).total_seconds()
                reached = end if reached is None else max(reached, end)
        return seconds / 3600

    @property
    def used(self) -> float | None:
        """Beam hours as a share of booked hours."""
        return self.beam_hours / self.booked_hours if self.booked_hours else None

    @property
    def medians(self) -> list[Quantile | None]:
        """In the order of QUALITIES."""
        return [self.merged[quality.name].median for quality in QUALITIES]


@dataclass
class Statistics:
    """All tables of the page; `drift` has a row of months for each microscope."""

    choice: Choice
    total: Group
    months: dict[datetime.date, Group]
    microscopes: dict[int, Group]
    labs: dict[int | None, Group]
    samples: dict[int | None, Group]
    drift: dict[int, dict[datetime.date, Group]]
    sessions: list[dict]
    incomplete: int

    def ranked(self, quality: Quality, *, worst: bool = False) -> list[dict]:
        """The sessions with the lowest median (or highest), of those with enough micrographs to tell."""
        known = [
            row
            for row in self.sessions
            if row[f"summary__{quality.column}"] is not None
            and row["summary__micrographs"] >= ENOUGH_MICROGRAPHS
        ]
        return sorted(known, key=lambda row: row[f"summary__{quality.column}"], reverse=worst)[:BEST]


SESSION_COLUMNS = (
    "pk",
    "name",
    "status",
    "start",
    "end",
    "last_file_at",
    "microscope",
    "microscope__name",
    "microscope__colour",
    "lab",
    "lab__name",
    "sample",
    "sample__name",
    "data_movies",
    "data_bytes",
    "summary__exposures",
    "summary__micrographs",
    "summary__particles",
    "summary__histograms",
    "summary__completed_at",
    *(f"summary__{quality.column}" for quality in QUALITIES),
)
BOOKED = (Booking.Kind.BOOKING, Booking.Kind.SPECIAL)


def statistics(sessions, choice: Choice, now: datetime.datetime | None = None) -> Statistics:
    """Add up what a queryset of sessions (narrowed to those the person may see) did in the chosen period.

    Bookings are narrowed by the same choice; whoever may see the labs' sessions may see their hours. Raises
    TooMuch beyond MAX_SESSIONS sessions.
    """
    now = now or timezone.now()
    rows = _session_rows(sessions, choice, now)
    bookings = _booking_rows(choice, now)
    found = Statistics(
        choice=choice,
        total=Group("All"),
        months={month: Group(f"{month:%b %Y}") for month in choice.months},
        microscopes={},
        labs={},
        samples={},
        drift={},
        sessions=rows,
        incomplete=sum(row["summary__completed_at"] is None for row in rows),
    )
    for row in rows:
        month = _month(row["start"])
        microscope = _group(
            found.microscopes, row["microscope"], row["microscope__name"], row["microscope__colour"]
        )
        drift = found.drift.setdefault(row["microscope"], {})
        groups = [
            found.total,
            found.months[month],
            microscope,
            drift.setdefault(month, Group(f"{month:%b %Y}")),
            _group(found.labs, row["lab"], row["lab__name"] or "no lab"),
            _group(found.samples, row["sample"], row["sample__name"] or "no sample named"),
        ]
        for group in groups:
            group.add(row)
    for row in bookings:
        hours = (min(row["end"], now) - row["start"]).total_seconds() / 3600
        groups = [
            found.total,
            found.months[_month(row["start"])],
            _group(found.microscopes, row["microscope"], row["microscope__name"], row["microscope__colour"]),
            _group(found.labs, row["lab"], row["lab__name"] or "no lab"),
        ]
        for group in groups:
            group.booked_hours += hours
    for table, key in (
        (found.microscopes, lambda group: group.label.lower()),
        (found.labs, lambda group: (-group.beam_hours, group.label.lower())),
        (found.samples, lambda group: (-group.sessions, group.label.lower())),
    ):
        _sort(table, key)
    found.drift = {pk: found.drift.get(pk, {}) for pk in found.microscopes}
    return found


def _session_rows(sessions, choice: Choice, now: datetime.datetime) -> list[dict]:
    chosen = sessions.filter(start__gte=choice.start, start__lt=choice.end)
    if choice.microscopes is not None:
        chosen = chosen.filter(microscope__in=choice.microscopes)
    if choice.labs is not None:
        chosen = chosen.filter(lab__in=choice.labs)
    if choice.sample:
        chosen = chosen.filter(sample__name__icontains=choice.sample)
    rows = list(chosen.order_by("start", "pk").values(*SESSION_COLUMNS)[: MAX_SESSIONS + 1])
    if len(rows) > MAX_SESSIONS:
        raise TooMuch(
            f"More than {MAX_SESSIONS:,} sessions began in this period. Choose a shorter one, or fewer microscopes."
        )
    for row in rows:
        row["movies"] = max(row["summary__exposures"], row["data_movies"] or 0)
        row["beam"] = _beam(row, now)
    return rows


def _beam(row: dict, now: datetime.datetime) -> tuple[datetime.datetime, datetime.datetime] | None:
    """From the session's start to its last file; to its end, or now, where no watcher told of files."""
    if row["status"] == Session.Status.PENDING:
        return None
    end = min(row["last_file_at"] or row["end"] or now, now)
    return (row["start"], end) if end > row["start"] else None


def _booking_rows(choice: Choice, now: datetime.datetime) -> Iterable[dict]:
    """Bookings that began in the period and are not still to come."""
    chosen = Booking.objects.filter(
        kind__in=BOOKED, cancelled_at=None, start__gte=choice.start, start__lt=min(choice.end, now)
    )
    if choice.microscopes is not None:
        chosen = chosen.filter(microscope__in=choice.microscopes)
    if choice.labs is not None:
        chosen = chosen.filter(lab__in=choice.labs)
    if choice.sample:
        with_sample = Session.objects.filter(sample__name__icontains=choice.sample)
        chosen = chosen.filter(pk__in=with_sample.order_by().values("booking"))
    columns = ("start", "end", "microscope", "microscope__name", "microscope__colour", "lab", "lab__name")
    return chosen.order_by("start", "pk").values(*columns)


def _month(moment: datetime.datetime) -> datetime.date:
    return timezone.localtime(moment).date().replace(day=1)


def _group(table: dict[Hashable, Group], key: Hashable, label: str, colour: str = "") -> Group:
    if key not in table:
        table[key] = Group(label, colour=colour)
    return table[key]


def _sort(table: dict, key: Callable[[Group], object]) -> None:
    items = sorted(table.items(), key=lambda item: key(item[1]))
    table.clear()
    table.update(items)


@dataclass(frozen=True)
class Place:
    """Where a session's median stands among its microscope's: better than `better` of `others` sessions."""

    quality: Quality
    value: float
    better: int
    others: int

    @property
    def share(self) -> int:
        """In percent."""
        return round(100 * self.better / self.others)


def place(session) -> list[Place]:
    """How the session compares with those that began on its microscope in the 90 days before its own start.

    Lower is better for every quality. Only for sessions whose summary is complete, and only where there are
    ENOUGH_SESSIONS to compare with: then no number of a single other session can be told from it.
    """
    summary = session.summary
    own = {quality: getattr(summary, quality.column) for quality in QUALITIES}
    if all(value is None for value in own.values()):
        return []
    columns = [f"summary__{quality.column}" for quality in QUALITIES]
    others = list(
        Session.objects.filter(
            Q(summary__micrographs__gte=ENOUGH_MICROGRAPHS),
            microscope=session.microscope_id,
            start__gte=session.start - datetime.timedelta(days=PLACE_DAYS),
            start__lte=session.start,
        )
        .exclude(pk=session.pk)
        .order_by()
        .values_list(*columns)
    )
    found = []
    for column, (quality, value) in enumerate(own.items()):
        known = [row[column] for row in others if row[column] is not None]
        if value is not None and len(known) >= ENOUGH_SESSIONS:
            found.append(Place(quality, value, sum(other > value for other in known), len(known)))
    return found
