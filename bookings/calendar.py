"""The calendar's range query turned into events: what a person may know of the bookings in a stretch of time.

Times go out and come back as the facility's wall clock without an offset ("2026-11-24T09:00:00"): the calendar
draws them as they are, whatever the browser's own zone, and only here do they become moments again. On the night
when the clocks go back an hour is shown twice; an edge that was not dragged therefore keeps its exact moment.

What a range costs depends on what lies in it, not on how many bookings there are (`in_range`). The range call's own
answers are made from what is kept between calls (kept.py); they say the same as `events`.
"""

import datetime
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import ClassVar

import msgspec
from django.core.exceptions import ValidationError
from django.db.models import Func, IntegerField, OuterRef, Q, Subquery
from django.utils import timezone

from bookings import access
from bookings.models import Booking
from bookings.series import THIS, series_update
from bookings.services import booking_update
from microscopes.models import Microscope
from people import words
from people.fields import FIRST_YEAR, LAST_YEAR
from people.models import Lab, User

# A little more than a year, so that a year's view with its first and last week fits.
LONGEST_RANGE = datetime.timedelta(days=400)

EPOCH = datetime.datetime(1970, 1, 1)  # noqa: DTZ001 (a clock on a wall)
BLACK, WHITE = "#000000", "#ffffff"


KIND_WORDS = {kind.value: str(kind.label).capitalize() for kind in Booking.Kind}
PUBLIC_WORDS = KIND_WORDS | {access.BOOKED: "Booked", Booking.Kind.SLOT.value: "Open slot"}


# -- Times -----------------------------------------------------------------------------------------------------
def placed(start: datetime.datetime, end: datetime.datetime, zone=None) -> tuple[str, str]:
    """Where the calendar draws [start, end): both as the facility's wall clock, to the second.

    A booking within the repeated hour may end earlier on the clock than it began; it is drawn at its true length.
    """
    zone = zone or timezone.get_current_timezone()
    first = start.astimezone(zone).replace(tzinfo=None, microsecond=0)
    last = end.astimezone(zone).replace(tzinfo=None, microsecond=0)
    if last <= first:
        last = first + max(end - start, datetime.timedelta(seconds=1))
    return first.isoformat(), last.isoformat()


def moment_of(text: str) -> datetime.datetime:
    """The moment of a wall-clock time such as "2026-11-24T09:00". Raises ValidationError, also for times that the
    change to or from summer time removes or repeats."""
    try:
        naive = datetime.datetime.fromisoformat(text)
    except (TypeError, ValueError):
        naive = None
    if naive is None or naive.tzinfo is not None:
        raise ValidationError("Write a date and a time of the facility, such as 2026-11-24T09:00.")
    if not FIRST_YEAR <= naive.year <= LAST_YEAR:
        raise ValidationError(f"Give a year between {FIRST_YEAR} and {LAST_YEAR}.")
    zone = timezone.get_current_timezone()
    first, second = naive.replace(tzinfo=zone), naive.replace(tzinfo=zone, fold=1)
    if first.utcoffset() != second.utcoffset():
        when = f"{words.clock(naive)} on {naive:%a} {naive.day} {naive:%b}"
        if first.utcoffset() < second.utcoffset():
            raise ValidationError(
                f"There is no {when}: the clocks go forward. Choose a time before or after."
            )
        raise ValidationError(
            f"{when} comes twice: the clocks go back. Choose a time before or after that hour."
        )
    return first


def midnight(text: str) -> datetime.datetime:
    """The beginning of the facility's day that an ISO date or wall-clock time names. Raises ValidationError."""
    try:
        day = datetime.datetime.fromisoformat(text).date()
    except (TypeError, ValueError):
        raise ValidationError("Write a day such as 2026-11-24.") from None
    if not FIRST_YEAR <= day.year <= LAST_YEAR:
        raise ValidationError(f"Give a year between {FIRST_YEAR} and {LAST_YEAR}.")
    return day_start(day)


def day_start(day: datetime.date) -> datetime.datetime:
    return timezone.make_aware(datetime.datetime.combine(day, datetime.time()))


def current_offset() -> str:
    """The facility's offset now, "+01:00": where the now-line is and which day is today."""
    text = f"{timezone.localtime():%z}"
    return f"{text[:3]}:{text[3:5]}"


# -- Colours ---------------------------------------------------------------------------------------------------
def luminance(colour: str) -> float:
    """Relative luminance of "#rrggbb", 0 to 1 (WCAG 2.2)."""
    parts = [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    """Contrast ratio of two colours, 1 to 21 (WCAG 2.2)."""
    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def text_colour(ground: str) -> str:
    """Black or white, whichever is read better on this ground; one of them always has 4.5 or more."""
    return max(WHITE, BLACK, key=lambda colour: contrast(ground, colour))


# -- What is shown ---------------------------------------------------------------------------------------------
def shown_microscopes() -> list[Microscope]:
    """The calendar's rows: whatever is in service. Bookings of retired ones are in the list of bookings."""
    return list(Microscope.objects.in_service())


def in_range(start: datetime.datetime, end: datetime.datetime, microscopes: Iterable[Microscope]):
    """Standing bookings of the microscopes that share time with [start, end).

    No index answers "starts before, ends after" without walking through all that came before or all that comes
    after. But what blocks a microscope never overlaps, so of those that began earlier at most the latest one
    reaches into the range; it is looked up for each microscope, and the rest begin within it. Slots may lie over
    each other: those that cover the range's first moment are asked for by their own.
    """
    ids = [microscope.pk for microscope in microscopes]
    latest = (
        Booking.objects.filter(microscope=OuterRef("pk"), start__lt=start)
        .blocking()
        .order_by("-start")
        .values("pk")[:1]
    )
    reaching = Microscope.objects.filter(pk__in=ids).order_by().values_list(Subquery(latest), flat=True)
    covering = (
        Booking.objects.filter(kind=Booking.Kind.SLOT)
        .standing()
        .covering(start)
        .order_by()
        .values_list("pk", flat=True)
    )
    earlier = [pk for pk in reaching if pk is not None] + list(covering)
    return Booking.objects.filter(
        Q(start__gte=start, start__lt=end) | Q(pk__in=earlier), microscope__in=ids, end__gt=start
    ).standing()


class Seconds(Func):
    """A moment as whole seconds since 1970, UTC: read as such, a row's times cost next to nothing."""

    arity = 1
    output_field = IntegerField()
    convert_value = staticmethod(Func._convert_value_noop)  # Both databases answer integers.

    def as_sqlite(self, compiler, connection, **context):
        return self.as_sql(
            compiler, connection, template="CAST(strftime('%%%%s', %(expressions)s) AS INTEGER)", **context
        )

    def as_postgresql(self, compiler, connection, **context):
        return self.as_sql(
            compiler, connection, template="FLOOR(EXTRACT(EPOCH FROM %(expressions)s))::bigint", **context
        )


class Entry(msgspec.Struct, gc=False):
    """The columns of a booking that the calendar needs, without a model instance: a year has thousands of rows.

    Like what is told of them, not tracked by the garbage collector, which they would set going.
    """

    pk: int
    microscope_id: int
    kind: str
    title: str
    starts: int
    ends: int
    owner_id: int
    operator_id: int | None
    creator_id: int
    lab_id: int | None
    series_id: int | None

    is_cancelled: ClassVar[bool] = False

    @property
    def has_started(self) -> bool:
        return self.starts <= timezone.now().timestamp()


class Places(dict):
    """Seconds since 1970 -> the facility's wall clock then; looked up once, since many bookings share their times."""

    def __init__(self, zone: datetime.tzinfo):
        self.zone = zone
        self.offsets: dict[int, int | None] = {}

    def __missing__(self, seconds: int) -> datetime.datetime:
        day = seconds // 86_400
        if day not in self.offsets:
            first, last = self._offset(day * 86_400), self._offset((day + 1) * 86_400)
            # None: the clocks are changed on this day, and each moment is asked for by itself.
            self.offsets[day] = first if first == last else None
        offset = self.offsets[day]
        if offset is None:
            offset = self._offset(seconds)
        wall = self[seconds] = EPOCH + datetime.timedelta(0, seconds + offset)
        return wall

    def _offset(self, seconds: int) -> int:
        moment = datetime.datetime.fromtimestamp(seconds, self.zone)
        return int(moment.utcoffset().total_seconds())

    def of(self, starts: int, ends: int) -> tuple[datetime.datetime, datetime.datetime]:
        """As `placed`."""
        first, last = self[starts], self[ends]
        if last <= first:
            last = first + datetime.timedelta(seconds=max(ends - starts, 1))
        return first, last


def check_range(start: datetime.datetime, end: datetime.datetime) -> None:
    """Raise ValidationError for what the calendar does not answer in one go."""
    if end <= start:
        raise ValidationError("The range must end after it starts.")
    if end - start > LONGEST_RANGE:
        raise ValidationError(
            f"The calendar tells at most {LONGEST_RANGE.days} days at once. Ask for a shorter range."
        )


class Foreign(msgspec.Struct, gc=False):
    """What is told of another's booking."""

    microscope: int
    start: datetime.datetime
    end: datetime.datetime
    kind: str
    title: str


class Readable(Foreign, gc=False):
    """What is told of a booking that the person may see."""

    id: int
    owner: str
    lab: str
    can_change: bool
    repeats: bool


def events(
    user, start: datetime.datetime, end: datetime.datetime, microscopes: Iterable[Microscope]
) -> list[Foreign]:
    """What the user may know of the bookings of these microscopes in [start, end), by start.

    Of others' bookings that is the microscope, the time and "Booked" (or that the facility's own staff have it
    down, see `access.public_kind`): no id, title, person or lab. Slots are told to whom they are open. Times are the
    facility's wall clock, as naive datetimes, which are written as they are. The number of queries does not depend
    on how many bookings there are.
    """
    bookings = in_range(start, end, microscopes).with_details_visible_to(user).order_by("start", "pk")
    rows = bookings.annotate(starts=Seconds("start"), ends=Seconds("end"))
    columns = rows.values_list("details_visible", *Entry.__struct_fields__)
    entries = [(visible, Entry(*row)) for visible, *row in columns]
    closed = closed_slots(
        user, [entry.pk for visible, entry in entries if entry.kind == SLOT and not visible]
    )
    seen = [entry for visible, entry in entries if visible]
    owners = _names(User, {entry.owner_id for entry in seen})
    labs = _names(Lab, {entry.lab_id for entry in seen if entry.lab_id is not None})
    # Looked up once for all of them.
    places, always = Places(timezone.get_current_timezone()), access.can_change_all(user)
    return [
        readable(entry, places, owners, labs, always or access.can_change(user, entry))
        if visible
        else foreign(entry, places)
        for visible, entry in entries
        if entry.pk not in closed
    ]


def closed_slots(user, slots: Collection[int]) -> set[int]:
    """Those of these slots, by id, that are open for others alone: they take no time and tell nothing."""
    if not slots:
        return set()
    are_open = (
        Booking.objects.filter(pk__in=slots).slots_open_to(user).order_by().values_list("pk", flat=True)
    )
    return set(slots) - set(are_open)


def _names(model, ids: set[int]) -> dict[int, str]:
    return {pk: str(one) for pk, one in model.objects.in_bulk(ids).items()}


PLAIN, SLOT = Booking.Kind.BOOKING.value, Booking.Kind.SLOT.value
#: What a kind of another's booking is called.
FOREIGN_KINDS = {
    kind.value: kind.value if kind is Booking.Kind.SLOT else str(access.public_kind(Booking(kind=kind.value)))
    for kind in Booking.Kind
}


def foreign(entry: Entry, places: Places) -> Foreign:
    start, end = places.of(entry.starts, entry.ends)
    kind = FOREIGN_KINDS[entry.kind]
    return Foreign(entry.microscope_id, start, end, kind, PUBLIC_WORDS[kind])


def readable(
    entry: Entry, places: Places, owners: dict[int, str], labs: dict[int, str], can_change: bool
) -> Readable:
    start, end = places.of(entry.starts, entry.ends)
    lab = labs[entry.lab_id] if entry.lab_id is not None else ""
    owner, kind = owners[entry.owner_id], entry.kind
    title = entry.title or (lab or owner if kind == PLAIN else KIND_WORDS[kind])
    repeats = entry.series_id is not None
    return Readable(entry.microscope_id, start, end, kind, title, entry.pk, owner, lab, can_change, repeats)


# -- By days, for phones and for whoever prefers to read -------------------------------------------------------
@dataclass
class Line:
    """One booking on one day."""

    event: Foreign
    microscope: Microscope
    clock: str


@dataclass
class Day:
    date: datetime.date
    is_today: bool
    lines: list[Line]


def by_days(
    found: list[Foreign], microscopes: Iterable[Microscope], first: datetime.date, count: int
) -> list[Day]:
    """The events under each of the `count` days that they touch, microscopes in their order at the same time."""
    named = {microscope.pk: microscope for microscope in microscopes}
    today = timezone.localdate()
    dates = [first + datetime.timedelta(days=n) for n in range(count)]
    days = {date: Day(date, date == today, []) for date in dates}
    for event in found:
        start, end = event.start, event.end
        date = max(start.date(), first)
        while date in days and datetime.datetime.combine(date, datetime.time()) < end:
            clock = _clock(start, end, date)
            days[date].lines.append(Line(event, named[event.microscope], clock))
            date += datetime.timedelta(days=1)
    return list(days.values())


def _clock(start: datetime.datetime, end: datetime.datetime, date: datetime.date) -> str:
    """When on this day: "09:00–18:00", "all day", "from 22:00" with the day on which it goes on."""
    begins = datetime.datetime.combine(date, datetime.time())
    ends = begins + datetime.timedelta(days=1)
    if start <= begins and end >= ends:
        return "all day"
    if end > ends:
        return f"from {words.clock(start)}"
    if start < begins:
        return f"until {words.clock(end)}"
    return f"{words.clock(start)}–{words.end_of_day() if end == ends else words.clock(end)}"


# -- Moving ----------------------------------------------------------------------------------------------------
class Stale(ValidationError):
    """The booking is not any more where the person saw it."""


def move(
    *,
    booking: Booking,
    actor,
    start: str,
    end: str,
    microscope: Microscope | None,
    seen: tuple,
    scope: str = THIS,
) -> list[Booking]:
    """Move or resize to [start, end) in wall time, on another microscope where one is given.

    Of a repeat `scope` moves later ones or all with it, by as much. Answers what was moved, this booking first.
    `seen` is the placement (start, end) that the person saw, as `placed` wrote it. Raises Stale where it was moved
    meanwhile and ValidationError, from here or from the booking's rules, with what to do.
    """
    now = placed(booking.start, booking.end)
    if tuple(seen) != now:
        raise Stale("This booking was changed meanwhile; the calendar shows now where it is.")
    changes = {}
    for name, wanted, was in (("start", start, now[0]), ("end", end, now[1])):
        # Compared as clocks: what was not dragged keeps its exact moment, and needs no choice of a repeated hour.
        if _clock_text(wanted) != was:
            try:
                changes[name] = moment_of(wanted)
            except ValidationError as error:
                raise ValidationError({name: error.messages}) from error
    if microscope is not None and microscope.pk != booking.microscope_id:
        changes["microscope"] = microscope
    if not changes:
        return [booking]
    if scope == THIS:
        return [booking_update(booking=booking, actor=actor, **changes)]
    moved = series_update(booking=booking, actor=actor, scope=scope, **changes)
    return sorted(moved, key=lambda one: one.pk != booking.pk)


def _clock_text(text: str) -> str:
    try:
        return datetime.datetime.fromisoformat(text).isoformat()
    except (TypeError, ValueError):
        return text
