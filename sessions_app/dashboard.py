"""What the dashboard shows: a card per microscope, put together with a fixed number of queries.

Others' bookings become a `Slot` without booking here, so that nothing of them can reach a template.
"""

import datetime
from dataclasses import dataclass, field

from django.db.models import OuterRef, Subquery
from django.utils import timezone

from bookings.access import can_see_details
from bookings.models import Booking
from microscopes.models import Microscope
from people import words
from people.access import is_staff
from sessions_app.models import Session
from sessions_app.services import refusal, today

AHEAD = datetime.timedelta(days=7)
# Bookings that began earlier than this and still run are found one by one; longer ones are rare (downtime).
LONGEST = datetime.timedelta(days=7)
RUNNING_LIMIT = 60  # of all microscopes: more are only there if nobody finishes sessions
PILLS = 6
NEXT_LIMIT = 6
LAST_LIMIT = 8
UPKEEP = (Booking.Kind.DOWNTIME, Booking.Kind.MAINTENANCE)


@dataclass(frozen=True)
class Slot:
    """Time on a microscope as this person may know it: `booking` is None where it reads "Booked"."""

    start: datetime.datetime
    end: datetime.datetime
    label: str
    kind: str
    booking: Booking | None = None
    may_create: bool = False

    @property
    def has_ended(self) -> bool:
        return self.end <= timezone.now()

    @property
    def percent(self) -> int:
        """How much of it is over, in percent."""
        share = (timezone.now() - self.start) / (self.end - self.start)
        return round(100 * min(1, max(0, share)))

    @property
    def left(self) -> str:
        """Time left in words: "2 h 5 min"."""
        return words.duration(self.end - timezone.now())


@dataclass
class Card:
    microscope: Microscope
    now: Slot | None = None
    sessions: list[Session] = field(default_factory=list)
    more_sessions: int = 0
    today: list[Slot] = field(default_factory=list)
    later: list[Slot] = field(default_factory=list)
    more_later: int = 0
    # For staff: other bookings of today that a session may be created for.
    others_today: list[Slot] = field(default_factory=list)

    @property
    def state(self) -> str:
        """collecting, booked, maintenance or free."""
        if self.microscope.status == Microscope.Status.MAINTENANCE or (self.now and self.now.kind in UPKEEP):
            return "maintenance"
        if self.now is None:
            return "free"
        current = self.now.booking
        collecting = current is not None and any(each.booking_id == current.pk for each in self.sessions)
        return "collecting" if collecting else "booked"


@dataclass(frozen=True)
class Dashboard:
    cards: list[Card]
    last_sessions: list[Session]
    sentence: str


def lab_words(lab) -> str:
    """ "Hall lab", also for a lab that is called "Hall lab"; empty without a lab."""
    if lab is None:
        return ""
    return lab.name if lab.name.lower().endswith(("lab", "group", "laboratory")) else f"{lab.name} lab"


def clock(moment: datetime.datetime) -> str:
    """Local time, with the day where it is not today's: "18:00", "Tue 18:00"."""
    local = timezone.localtime(moment)
    time = words.clock(local)
    return time if local.date() == timezone.localdate() else f"{local:%a} {time}"


def dashboard(user) -> Dashboard:
    """The whole page for this person."""
    now = timezone.now()
    cards = _cards(user, now)
    newest = (
        Session.objects.visible_to(user).order_by("-start", "-id").values_list("pk", flat=True)[:LAST_LIMIT]
    )
    # Ids first: what a row shows is joined for these alone, not for all that the person may see.
    last = Session.objects.filter(pk__in=list(newest)).with_row().order_by("-start", "-id")
    return Dashboard(cards=cards, last_sessions=list(last), sentence=_sentence(user, cards, now))


def _cards(user, now: datetime.datetime) -> list[Card]:
    newest = Booking.objects.blocking().filter(microscope=OuterRef("pk"), start__lte=now)
    microscopes = list(
        Microscope.objects.visible_to(user)
        .in_service()
        .annotate(newest_booking=Subquery(newest.order_by("-start").values("pk")[:1]))
    )
    cards = {microscope.pk: Card(microscope) for microscope in microscopes}
    day_start, day_end = today()
    for booking in _bookings(microscopes, day_start, now):
        card = cards[booking.microscope_id]
        slot = _slot(user, booking)
        if booking.start <= now < booking.end:
            card.now = slot
        elif booking.start > now and booking.start < day_end:
            card.today.append(slot)
        elif booking.start > now:
            card.later.append(slot)
        if slot.may_create and slot is not card.now and booking.end > day_start and booking.start < day_end:
            card.others_today.append(slot)
    for card in cards.values():
        card.more_later = max(0, len(card.later) - NEXT_LIMIT)
        card.later = card.later[:NEXT_LIMIT]
    for session in _running_sessions(user):
        card = cards.get(session.microscope_id)
        if card is None:
            continue
        if len(card.sessions) < PILLS:
            card.sessions.append(session)
        else:
            card.more_sessions += 1
    return list(cards.values())


def _bookings(microscopes, day_start, now) -> list[Booking]:
    """Those that run now, those of today and of the days ahead, in order of time; slots and cancelled ones apart."""
    blocking = (
        Booking.objects.blocking()
        .filter(microscope__in=[microscope.pk for microscope in microscopes])
        .with_people()
        .prefetch_related("collaborators")
    )
    # Bounded on both sides of the same column, so that the index is walked over these days alone.
    bookings = list(
        blocking.filter(start__gt=day_start - LONGEST, start__lt=now + AHEAD, end__gt=day_start).order_by(
            "start"
        )
    )
    found = {booking.pk for booking in bookings}
    missing = {microscope.newest_booking for microscope in microscopes} - found - {None}
    if missing:
        bookings = list(blocking.filter(pk__in=missing, end__gt=now).order_by("start")) + bookings
    return bookings


def _slot(user, booking: Booking) -> Slot:
    if not can_see_details(user, booking):
        # That the facility keeps the microscope to itself is no secret; why is.
        label = booking.get_kind_display().capitalize() if booking.kind in UPKEEP else "Booked"
        kind = booking.kind if booking.kind in UPKEEP else Booking.Kind.BOOKING
        return Slot(booking.start, booking.end, label, kind)
    return Slot(
        booking.start,
        booking.end,
        booking.title or lab_words(booking.lab) or booking.get_kind_display().capitalize(),
        booking.kind,
        booking,
        may_create=not refusal(user, booking),
    )


def _running_sessions(user) -> list[Session]:
    """The newest that run."""
    sessions = Session.objects.visible_to(user, among_few=True).select_related(
        "summary", "microscope", "booking"
    )
    # Each status walks the index of status and start; both at once would walk all that ever ran.
    running = []
    for status in (Session.Status.ACTIVE, Session.Status.PENDING):
        running += sessions.filter(status=status).order_by("-start", "-id")[:RUNNING_LIMIT]
    return running


def _sentence(user, cards: list[Card], now) -> str:
    collecting = [card for card in cards if card.state == "collecting"]
    if len(collecting) == 1:
        return f"{_collecting(collecting[0])}."
    if collecting:
        names = ", ".join(card.microscope.name for card in collecting[:-1])
        return f"{names} and {collecting[-1].microscope.name} are collecting."
    mine = [card for card in cards if card.now and card.now.booking and card.now.may_create]
    if mine:
        card = mine[0]
        return (
            f"{card.microscope} is booked for {_for_whom(card.now.booking)} until {clock(card.now.end)} "
            "and has no session yet."
        )
    ahead = sorted(
        ((slot.start, card) for card in cards for slot in card.today + card.later if _is_own(slot)),
        key=lambda pair: pair[0],
    )
    if ahead and not is_staff(user):
        start, card = ahead[0]
        return f"Your next booking is on {card.microscope}, {clock_date(start)}."
    if not cards:
        return "No microscope is in service."
    busy = [card for card in cards if card.state != "free"]
    if not busy:
        return "No microscope is in use now."
    states = {"booked": "booked", "maintenance": "in maintenance", "collecting": "collecting"}
    return "; ".join(f"{card.microscope} is {states[card.state]}" for card in busy) + "."


def clock_date(moment) -> str:
    local = timezone.localtime(moment)
    if local.date() == timezone.localdate():
        return f"today at {words.clock(local)}"
    return f"{local:%a} {local.day} {local:%b} at {words.clock(local)}"


def _for_whom(booking) -> str:
    return f"the {lab_words(booking.lab)}" if booking.lab else str(booking.owner)


def _is_own(slot: Slot) -> bool:
    return slot.booking is not None and slot.booking.kind not in UPKEEP


def _collecting(card: Card) -> str:
    """ "Krios 1 is collecting for the Hall lab, 214 movies, 3.4 Å, ends 18:00"."""
    booking = card.now.booking
    session = next(each for each in card.sessions if each.booking_id == booking.pk)
    parts = [f"{card.microscope} is collecting for {_for_whom(booking)}"]
    if session.movies:
        parts.append(f"{session.movies:,} movie{'' if session.movies == 1 else 's'}")
    resolution = typical_resolution(session)
    if resolution is not None:
        parts.append(f"{resolution:.1f} Å")
    parts.append(f"ends {clock(card.now.end)}")
    return ", ".join(parts)


def typical_resolution(session) -> float | None:
    """Median CTF resolution (Å) of the leading run, as the summary last heard of it; None if unknown."""
    statistics = session.summary.statistics.get(str(session.summary.leading_run)) or {}
    value = (statistics.get("fields") or {}).get("ctf_resolution", {}).get("median")
    return value if isinstance(value, int | float) else None
