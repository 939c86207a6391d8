"""What the range call tells, kept between calls in the memory of a process: a year costs little more than a month.

Kept are a week's bookings as the calendar needs them, and the JSON of each: as others are told of it, and as those
who may read it. They hold as long as the stamps of the microscopes are the same (stamps.py), which every call reads
first; what depends on the person, and what people and labs are called, every call asks for itself. So nothing is told
that `calendar.events` would not tell at this moment, in the same words.

Everything here is lost with its process and made again when it is asked for.
"""

import datetime
import threading
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import accumulate

import msgspec
from django.utils import timezone

from bookings import access
from bookings.calendar import SLOT, Entry, Places, Seconds, closed_slots, foreign, in_range, readable
from bookings.models import Booking, CalendarStamp
from microscopes.models import Microscope
from people.access import is_staff
from people.models import Lab, User
from people.querysets import user_lab_ids

WEEK = 7 * 86_400  # Seconds; weeks are counted from 1970, wherever the facility is.
#: Four years of a busy facility, about 10 MB.
MOST_KEPT = 10_000

#: JSON of one or several events with commas between them.
Piece = bytes | memoryview

encoder = msgspec.json.Encoder()


def events(
    user,
    start: datetime.datetime,
    end: datetime.datetime,
    microscopes: Sequence[Microscope],
    shown: Sequence[Microscope],
) -> list[Piece]:
    """What calendar.events(user, start, end, microscopes) tells, as JSON; `shown` are all that are in service.

    Start and end are whole seconds. The number of queries does not depend on how many bookings there are, nor on how
    long the range is.
    """
    starts, ends = int(start.timestamp()), int(end.timestamp())
    bookings = _as_of_now(shown)
    weeks = bookings.weeks(starts // WEEK, -(-ends // WEEK))
    numbers = [weeks[0].reaching_into(starts, ends)] + [week.before(ends) for week in weeks[1:]]
    if len(microscopes) < len(shown):
        ids = {microscope.pk for microscope in microscopes}
        numbers = [
            [n for n in ns if week.entries[n].microscope_id in ids]
            for week, ns in zip(weeks, numbers, strict=True)
        ]
    if is_staff(user):
        return _told_to_staff(user, weeks, numbers)
    return _told_to(user, weeks, numbers)


def _told_to_staff(user, weeks: list["Week"], numbers: list[Sequence[int]]) -> list[Piece]:
    owners = set().union(*(week.owners for week in weeks))
    labs = set().union(*(week.labs for week in weeks))
    wording, can_change = _wording(owners, labs), access.can_change_all(user)
    told: list[Piece] = []
    for week, ns in zip(weeks, numbers, strict=True):
        told += week.readable(wording, can_change).of(ns)
    return told


def _told_to(user, weeks: list["Week"], numbers: list[Sequence[int]]) -> list[Piece]:
    """For whoever is not staff: the ways in which a booking is theirs are those of querysets.involvements."""
    person, labs = user.pk, user_lab_ids(user)
    shared = set(
        Booking.collaborators.through.objects.filter(user=person).values_list("booking_id", flat=True)
    )
    mine = [week.of(person, labs, shared) for week in weeks]
    own = [week.entries[n] for week, ns in zip(weeks, mine, strict=True) for n in ns]
    wording = _wording(
        {entry.owner_id for entry in own}, {entry.lab_id for entry in own if entry.lab_id is not None}
    )
    others_slots = {
        week.entries[n].pk for week, ns in zip(weeks, mine, strict=True) for n in week.slots if n not in ns
    }
    closed = closed_slots(user, others_slots)
    told: list[Piece] = []
    for week, ns, theirs in zip(weeks, numbers, mine, strict=True):
        otherwise: dict[int, bytes | None] = {}
        for n in theirs:
            can_change = access.can_change_own(person, week.entries[n])
            otherwise[n] = week.readable_one(n, wording, can_change)
        if closed:
            otherwise |= {n: None for n in week.slots if week.entries[n].pk in closed}
        told += week.foreign.of(ns, otherwise)
    return told


class Lines:
    """The JSON of several events in one piece, so that many at once cost as little as one."""

    def __init__(self, told: list):
        lines = encoder.encode_lines(told)
        # Within a line JSON has no line feed.
        self._text = memoryview(lines.replace(b"\n", b","))
        self._starts = [0, *accumulate(len(line) + 1 for line in lines.split(b"\n")[:-1])]

    def of(self, numbers: Sequence[int], otherwise: dict[int, bytes | None] | None = None) -> list[Piece]:
        """Those of these numbers, in pieces; `otherwise` says what is told in their place, None for nothing."""
        otherwise = otherwise or {}
        if not isinstance(numbers, range):
            told = (otherwise[n] if n in otherwise else self._run(n, n + 1) for n in numbers)
            return [line for line in told if line is not None]
        pieces: list[Piece] = []
        first = numbers.start
        for n in sorted(otherwise):
            if n not in numbers:
                continue
            if first < n:
                pieces.append(self._run(first, n))
            if (line := otherwise[n]) is not None:
                pieces.append(line)
            first = n + 1
        if first < numbers.stop:
            pieces.append(self._run(first, numbers.stop))
        return pieces

    def _run(self, first: int, last: int) -> memoryview:
        return self._text[self._starts[first] : self._starts[last] - 1]


# -- Bookings --------------------------------------------------------------------------------------------------
class Until(Seconds):
    """As Seconds, rounded up: whole seconds end after a moment exactly if what they stand for does."""

    def as_sqlite(self, compiler, connection, **context):
        template = "CAST(strftime('%%%%s', %(expressions)s) AS INTEGER) + (length(%(expressions)s) > 19)"
        return self.as_sql(compiler, connection, template=template, **context)

    def as_postgresql(self, compiler, connection, **context):
        template = "CEIL(EXTRACT(EPOCH FROM %(expressions)s))::bigint"
        return self.as_sql(compiler, connection, template=template, **context)


class KeptEntry(Entry, gc=False):
    until: int


class Week:
    """The bookings that begin in a week, by start, behind those that reach into it. It knows them by number.

    Only filled in, never changed, so that threads may share it: two may make the same line at once.
    """

    def __init__(self, places: Places, reaching: list[KeptEntry], beginning: list[KeptEntry]):
        self.entries = reaching + beginning
        self.first = len(reaching)
        self._places = places
        self._readable: tuple = (None, {})

    # -- Which ---------------------------------------------------------------------------------------------
    def reaching_into(self, start: int, end: int) -> Sequence[int]:
        """Those that share time with [start, end), where that begins in this week."""
        return [n for n, entry in enumerate(self.entries) if entry.until > start and entry.starts < end]

    def before(self, end: int) -> Sequence[int]:
        """Those that begin in this week and before the end."""
        entries = self.entries
        if not entries or entries[-1].starts < end:
            return range(self.first, len(entries))
        return range(self.first, bisect_left(entries, end, lo=self.first, key=lambda entry: entry.starts))

    @cached_property
    def owners(self) -> set[int]:
        return {entry.owner_id for entry in self.entries}

    @cached_property
    def labs(self) -> set[int]:
        return {entry.lab_id for entry in self.entries if entry.lab_id is not None}

    @cached_property
    def slots(self) -> list[int]:
        return [n for n, entry in enumerate(self.entries) if entry.kind == SLOT]

    @cached_property
    def _by_person(self) -> dict[int | None, list[int]]:
        found: dict[int | None, list[int]] = {}
        for n, entry in enumerate(self.entries):
            for person in {entry.owner_id, entry.operator_id, entry.creator_id}:
                found.setdefault(person, []).append(n)
        return found

    @cached_property
    def _by_lab(self) -> dict[int | None, list[int]]:
        found: dict[int | None, list[int]] = {}
        for n, entry in enumerate(self.entries):
            found.setdefault(entry.lab_id, []).append(n)
        return found

    @cached_property
    def _by_id(self) -> dict[int, int]:
        return {entry.pk: n for n, entry in enumerate(self.entries)}

    def of(self, person: int, labs: Iterable[int], bookings: set[int]) -> set[int]:
        """Those that the person owns, operates or made, those of the labs, and these bookings."""
        found = set(self._by_person.get(person, ())).union(*(self._by_lab.get(lab, ()) for lab in labs))
        found.update(self._by_id[pk] for pk in self._by_id.keys() & bookings)
        return found

    # -- As what -------------------------------------------------------------------------------------------
    @cached_property
    def foreign(self) -> Lines:
        """What others are told of each."""
        return Lines([foreign(entry, self._places) for entry in self.entries])

    def readable(self, wording: "Wording", can_change: bool) -> Lines:
        """What those who may read it are told of each."""
        made = self._made_in(wording)
        if can_change not in made:
            made[can_change] = Lines([self._told(entry, wording, can_change) for entry in self.entries])
        return made[can_change]

    def readable_one(self, n: int, wording: "Wording", can_change: bool) -> bytes:
        made = self._made_in(wording)
        line = made.get((n, can_change))
        if line is None:
            line = made[n, can_change] = encoder.encode(self._told(self.entries[n], wording, can_change))
        return line

    def _told(self, entry: Entry, wording: "Wording", can_change: bool):
        return readable(entry, self._places, wording.owners, wording.labs, can_change)

    def _made_in(self, wording: "Wording") -> dict:
        """All lines by whether they can be changed, single ones by number and that."""
        # Read once: another thread may put others in its place.
        made = self._readable
        if made[0] is not wording:
            made = self._readable = (wording, {})
        return made[1]


class Bookings:
    """The bookings of the microscopes as of their stamps; the weeks that were asked for last are kept."""

    def __init__(self, state: tuple, microscopes: Sequence[Microscope]):
        self.state = state
        self._microscopes = microscopes
        self._places = Places(state[0])
        self._weeks: OrderedDict[int, Week] = OrderedDict()
        self._size = 0
        self._lock = threading.Lock()

    def weeks(self, first: int, last: int) -> list[Week]:
        """The weeks [first, last); those that are not kept are read together."""
        wanted = range(first, last)
        with self._lock:
            found = {n: self._weeks[n] for n in wanted if n in self._weeks}
            for n in found:
                self._weeks.move_to_end(n)
        missing = [n for n in wanted if n not in found]
        if missing:
            for n, week in self._read(missing[0], missing[-1] + 1):
                found.setdefault(n, week)
            self._keep({n: found[n] for n in missing})
        return [found[n] for n in wanted]

    def _read(self, first: int, last: int) -> Iterable[tuple[int, Week]]:
        start, end = (datetime.datetime.fromtimestamp(n * WEEK, datetime.UTC) for n in (first, last))
        rows = in_range(start, end, self._microscopes).order_by("start", "pk")
        rows = rows.annotate(starts=Seconds("start"), ends=Seconds("end"), until=Until("end"))
        reaching: list[KeptEntry] = []
        beginning: list[list[KeptEntry]] = [[] for _ in range(first, last)]
        for row in rows.values_list(*KeptEntry.__struct_fields__):
            entry = KeptEntry(*row)
            number = entry.starts // WEEK - first
            (beginning[number] if number >= 0 else reaching).append(entry)
        for number, entries in enumerate(beginning, first):
            week = Week(self._places, reaching, entries)
            yield number, week
            reaching = [entry for entry in week.entries if entry.until > (number + 1) * WEEK]

    def _keep(self, weeks: dict[int, Week]) -> None:
        with self._lock:
            for n, week in weeks.items():
                if n not in self._weeks:
                    self._weeks[n] = week
                    self._size += len(week.entries)
            while self._size > MOST_KEPT:
                _, week = self._weeks.popitem(last=False)
                self._size -= len(week.entries)


_bookings = Bookings((datetime.UTC, ()), ())


def _as_of_now(microscopes: Sequence[Microscope]) -> Bookings:
    """What is kept of these microscopes' bookings if it still holds, otherwise anew.

    The stamps are read before any booking: what is read later is as new as they say, or newer.
    """
    global _bookings
    ids = sorted(microscope.pk for microscope in microscopes)
    stamps = dict(CalendarStamp.objects.filter(microscope__in=ids).values_list("microscope", "stamp"))
    state = timezone.get_current_timezone(), tuple((pk, stamps.get(pk)) for pk in ids)
    bookings = _bookings
    if bookings.state != state:
        bookings = _bookings = Bookings(state, microscopes)
    return bookings


# -- Names -----------------------------------------------------------------------------------------------------
class Wording:
    """What people and labs are called: names by id, and the columns that they are made from. Names are only added."""

    def __init__(self):
        self.owners: dict[int, str] = {}
        self.labs: dict[int, str] = {}
        self._read: dict[tuple[type, int], tuple] = {}
        self._lock = threading.Lock()

    def takes(
        self, model: type, names: dict[int, str], rows: dict[int, tuple], columns: Sequence[str]
    ) -> bool:
        """Whether these rows say the same as before; new ones are added."""
        with self._lock:
            for pk, row in rows.items():
                before = self._read.get((model, pk))
                if before is None:
                    names[pk] = str(model(**dict(zip(columns, row, strict=True))))
                    self._read[model, pk] = row
                elif before != row:
                    return False
        return True


OWNER, LAB = ("first_name", "last_name", "username"), ("name",)
_words = Wording()


def _wording(owners: set[int], labs: set[int]) -> Wording:
    """With the names of these people and labs as they are now. Another one wherever somebody is called otherwise."""
    global _words
    people, groups = _rows(User, owners, OWNER), _rows(Lab, labs, LAB)
    wording = _words
    while not (
        wording.takes(User, wording.owners, people, OWNER) and wording.takes(Lab, wording.labs, groups, LAB)
    ):
        wording = _words = Wording()
    return wording


def _rows(model: type, ids: set[int], columns: Sequence[str]) -> dict[int, tuple]:
    rows = model.objects.filter(pk__in=ids).order_by().values_list("pk", *columns)
    return {pk: tuple(row) for pk, *row in rows}
