"""What the booking form says while it is filled in: when the microscope is taken, what it asks for, what the chosen
application has left there, and in words what the button will book.
"""

import datetime

from django.core.exceptions import ValidationError
from django.utils import timezone
from django.utils.functional import cached_property
from django.views.generic import TemplateView

from bookings import quotas
from bookings.models import Application, Booking, BookingSeries
from bookings.rules import span
from bookings.series import Repeat
from microscopes.limits import limits_in_words
from microscopes.models import Microscope
from people import words
from people.fields import LocalDateField, LocalDateTimeField

TAKEN_DAYS = 14
TAKEN_AT_MOST = 20
DATES_SHOWN = 12

Span = tuple[datetime.datetime, datetime.datetime]


def _number(text: str) -> int | None:
    """An id or count as an address has it; None for anything else."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else None


class TakenView(TemplateView):
    """A part of the form. Of bookings it tells times alone, whoever asks; nonsense in the address is no error."""

    template_name = "bookings/_taken_times.html"

    def get_context_data(self, **kwargs):
        context = super().get_context_data(**kwargs) | {
            # What else of the form is there to be filled.
            "on_page": "page" in self.request.GET,
            "asks_repeat": "repeat" in self.request.GET,
        }
        if self.microscope is None:
            return context | {"microscope_chosen": False}
        start = self._first_day()
        times = list(
            self._blocking(start, start + datetime.timedelta(days=TAKEN_DAYS)).values_list("start", "end")[
                : TAKEN_AT_MOST + 1
            ]
        )
        return context | {
            "microscope_chosen": True,
            "limits": limits_in_words(self.microscope),
            "taken": [span(*time) for time in times[:TAKEN_AT_MOST]],
            "more": len(times) > TAKEN_AT_MOST,
            "days": TAKEN_DAYS,
            "first_day": start,
            "left": self._left(),
            "books": self._books(),
            "repeats": self._repeats(),
        }

    @cached_property
    def microscope(self) -> Microscope | None:
        pk = _number(self._asked("microscope"))
        return Microscope.objects.visible_to(self.request.user).filter(pk=pk).first() if pk else None

    @cached_property
    def own(self) -> Booking | None:
        """The booking that is edited. Of others' nobody learns by its id when it is."""
        pk = _number(self._asked("booking"))
        return Booking.objects.visible_to(self.request.user).filter(pk=pk).first() if pk else None

    @cached_property
    def times(self) -> Span | None:
        """Start and end as typed so far, where they are times in this order."""
        try:
            start, end = (LocalDateTimeField().clean(self._asked(name)) for name in ("start", "end"))
        except ValidationError:
            return None
        return (start, end) if start < end else None

    def _asked(self, name: str) -> str:
        return self.request.GET.get(name, "")

    def _first_day(self) -> datetime.datetime:
        """The local day's beginning of the time typed so far; today where it is none."""
        try:
            day = LocalDateField().clean(self._asked("start")[:10])
        except ValidationError:
            day = timezone.localdate()
        return timezone.make_aware(datetime.datetime.combine(day, datetime.time()))

    def _blocking(self, start: datetime.datetime, end: datetime.datetime):
        found = Booking.objects.filter(microscope=self.microscope).blocking().overlapping(start, end)
        return (found.exclude(pk=self.own.pk) if self.own else found).order_by("start")

    def _left(self) -> str:
        """What the chosen application has left there, and what the times typed so far cost; empty for no limit."""
        pk = _number(self._asked("application"))
        application = Application.objects.visible_to(self.request.user).filter(pk=pk).first() if pk else None
        found = application and quotas.quota(application, self.microscope, apart_from=self.own)
        if not found or found.left is None:
            return ""
        left = f"{application.code} has {max(found.left, 0)} of {found.days} days left on this microscope"
        return (
            f"{left}; this booking counts as {quotas.days_charged(*self.times)}."
            if self.times
            else f"{left}."
        )

    def _books(self) -> str:
        """The sentence above the button."""
        if self.times is None:
            return ""
        kind = self._asked("kind")
        what = "" if kind not in Booking.Kind.values or kind == Booking.Kind.BOOKING else f"{kind} on "
        start, end = self.times
        return f"{what}{self.microscope}, {span(start, end)} ({words.duration(end - start)})"

    def _repeats(self) -> dict | None:
        """The dates of the repeat and which of them are taken already, or why there are none."""
        unit = self._asked("repeat")
        if unit not in BookingSeries.Unit.values or self.times is None:
            return None
        try:
            until = LocalDateField().clean(self._asked("repeat_until"))
        except ValidationError:
            return None
        weekdays = {_number(day) for day in self.request.GET.getlist("repeat_weekdays")} & set(range(7))
        repeat = Repeat(_number(self._asked("repeat_every")) or 0, unit, until, tuple(weekdays))
        try:
            times = repeat.times(*self.times)
        except ValidationError as error:
            return {"refusal": " ".join(error.messages)}
        busy = list(self._blocking(times[0][0], max(end for _, end in times)).values_list("start", "end"))
        is_slot = self._asked("kind") == Booking.Kind.SLOT
        clashes = [
            start for start, end in times if not is_slot and any(b < end and start < e for b, e in busy)
        ]
        return {
            "count": len(times),
            "days": self._days(start for start, _ in times),
            "clashes": self._days(clashes),
        }

    @staticmethod
    def _days(moments) -> str:
        days = [words.day(timezone.localtime(moment).date()) for moment in moments]
        if len(days) <= DATES_SHOWN:
            return ", ".join(days)
        return f"{', '.join(days[: DATES_SHOWN - 1])} … {days[-1]}"
