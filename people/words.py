"""Numbers, sizes, durations and times as people read them: plain text, for pages, exports and the admin alike.

Every function takes None for unknown and answers None then, so that the caller says why it is unknown.
"""

import datetime
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from decimal import ROUND_HALF_UP, Decimal

from django.utils import timezone

MINUS = "−"
NBSP = "\u00a0"
BYTE_UNITS = ["B", "kB", "MB", "GB", "TB", "PB", "EB"]
MINUTE, HOUR, DAY = 60, 3600, 86400
# Further away than this a date says more than a number of days.
RELATIVE_DAYS = 14


def is_known(value) -> bool:
    """False for None, NaN and infinities: none of them is ever shown as a number."""
    if value is None or value == "":
        return False
    return not isinstance(value, float | Decimal) or math.isfinite(value)


def percent(share: float | None) -> str | None:
    """ "13%", "0.4%", "<0.1%" of a share of 1; halves go up, as the charts' own scripts round."""
    if not is_known(share):
        return None
    if 0 < share < 0.0005:
        return "<0.1%"
    decimals = 1 if 0 < share < 0.0995 else 0
    value = Decimal(100 * float(share)).quantize(Decimal(1).scaleb(-decimals), ROUND_HALF_UP)
    return f"{value}%"


def number(value, decimals: int | None = None) -> str | None:
    """ "12,480" or, with decimals, "1.42"; without, whole numbers stay whole and others get 3 significant digits."""
    if not is_known(value):
        return None
    if decimals is None and (isinstance(value, int) or value == int(value)):
        text = f"{int(value):,}"
    elif decimals is None:
        return significant(value, 3)
    else:
        text = f"{value:,.{decimals}f}"
    if text.startswith("-"):
        text = MINUS + text[1:] if any(digit in text for digit in "123456789") else text[1:]
    return text


def significant(value, digits: int) -> str | None:
    """So many significant digits, as 0.000123 or 1,234,000 and not with an exponent; trailing zeros are kept."""
    if not is_known(value):
        return None
    if value == 0:
        return "0"
    places = digits - 1 - math.floor(math.log10(abs(value)))
    rounded = round(float(value), places)
    # 9.996 with three digits became 10.0, which has one digit too many.
    places = digits - 1 - math.floor(math.log10(abs(rounded)))
    return number(rounded, max(0, min(places, 12)))


def micrometres(angstrom) -> float | None:
    """Å as µm, for defocus."""
    return float(angstrom) / 10_000 if is_known(angstrom) else None


def size(count) -> tuple[str, str] | None:
    """Bytes in powers of 1000, as disks are sold: ("1.8", "TB")."""
    if not is_known(count):
        return None
    value, unit = float(count), 0
    while abs(value) >= 999.5 and unit < len(BYTE_UNITS) - 1:
        value, unit = value / 1000, unit + 1
    return (number(value, 1 if unit and abs(value) < 99.95 else 0), BYTE_UNITS[unit])


def duration(value) -> str | None:
    """A timedelta or seconds as "45 s", "12 min", "3 h 20 min" or "2 d 4 h"."""
    if not is_known(value):
        return None
    seconds = value.total_seconds() if isinstance(value, datetime.timedelta) else float(value)
    if seconds < 0:
        return MINUS + duration(-seconds)
    if seconds < MINUTE:
        return f"{int(seconds)}{NBSP}s"
    minutes = int(seconds // MINUTE)
    if minutes < 60:
        return f"{minutes}{NBSP}min"
    if seconds < 2 * DAY:
        hours, minutes = divmod(minutes, 60)
        return f"{hours}{NBSP}h" + (f" {minutes}{NBSP}min" if minutes else "")
    days, rest = divmod(int(seconds), DAY)
    hours = rest // HOUR
    return f"{days}{NBSP}d" + (f" {hours}{NBSP}h" if hours else "")


def day(date: datetime.date, *, weekday: bool = True, today: datetime.date | None = None) -> str:
    """ "Mon 23 Nov", with the year where it is not this one's."""
    today = today or timezone.localdate()
    text = f"{date.day} {date:%b}" + (f" {date.year}" if date.year != today.year else "")
    return f"{date:%a} {text}" if weekday else text


# -- Times of day: 18:00 or 6:00 pm, as whoever reads them has chosen ---------------------------------------------
H23, H12 = "h23", "h12"
_reader: ContextVar[Callable[[], str]] = ContextVar("hour_cycle", default=lambda: H23)


def hour_cycle() -> str:
    """How the person who reads this has times of day shown: H23 (the facility's usual way) or H12."""
    return _reader.get()()


@contextmanager
def times_as(cycle: str | Callable[[], str]) -> Iterator[None]:
    """Within, times of day are written as H23 or H12; a function is asked only once a time is written."""
    token = _reader.set(cycle if callable(cycle) else lambda: cycle)
    try:
        yield
    finally:
        _reader.reset(token)


def clock(local: datetime.datetime | datetime.time, *, seconds: bool = False) -> str:
    """The time of day of a local time as its reader wants it: "09:05" or "9:05 am"."""
    if hour_cycle() == H12:
        text = f"{local.hour % 12 or 12}:{local:%M:%S}" if seconds else f"{local.hour % 12 or 12}:{local:%M}"
        return f"{text}{NBSP}{'am' if local.hour < 12 else 'pm'}"
    return f"{local:%H:%M:%S}" if seconds else f"{local:%H:%M}"


def end_of_day() -> str:
    """The midnight at which a day ends; 12 am would be read as the one at which it begins."""
    return "midnight" if hour_cycle() == H12 else "24:00"


def exact(moment: datetime.datetime) -> str:
    """Local time to the second with its zone, for the title on hover."""
    local = timezone.localtime(moment)
    return f"{local:%a} {local.day} {local:%b %Y} {clock(local, seconds=True)} {local:%Z}"


def relative(moment: datetime.datetime, now: datetime.datetime | None = None) -> str:
    """ "just now", "4 min ago", "in 3 h", "2 days ago"; a date where it is further away. static/site/site.js alike."""
    now = now or timezone.now()
    seconds = (now - moment).total_seconds()
    away = abs(seconds)
    if away > RELATIVE_DAYS * DAY:
        return day(timezone.localtime(moment).date(), weekday=False, today=timezone.localtime(now).date())
    if away < 45:
        return "just now"
    if away < HOUR - 30:
        text = f"{max(1, math.floor(away / MINUTE + 0.5))} min"
    elif away < DAY - HOUR / 2:
        text = f"{math.floor(away / HOUR + 0.5)} h"
    else:
        days = math.floor(away / DAY + 0.5)
        text = "1 day" if days == 1 else f"{days} days"
    return f"in {text}" if seconds < 0 else f"{text} ago"


def span(start: datetime.datetime, end: datetime.datetime, today: datetime.date | None = None) -> str:
    """When a booking is, in local time: "Mon 23 Nov 09:00–18:00", "Mon 23 Nov 22:00 – Tue 24 Nov 06:00".

    Whole days are said as days ("Mon 23 Nov, all day", "Mon 23 – Wed 25 Nov"), an end at midnight as 24:00.
    """
    first, last = timezone.localtime(start), timezone.localtime(end)
    midnight = datetime.time()
    ends_at_midnight = last.time() == midnight and last.date() > first.date()
    last_day = last.date() - datetime.timedelta(days=1) if ends_at_midnight else last.date()
    if ends_at_midnight and first.time() == midnight:
        if last_day == first.date():
            return f"{day(last_day, today=today)}, all day"
        if (first.year, first.month) == (last_day.year, last_day.month):
            return f"{first:%a} {first.day} – {day(last_day, today=today)}"
        return f"{day(first.date(), today=today)} – {day(last_day, today=today)}"
    until = end_of_day() if ends_at_midnight else clock(last)
    if last_day == first.date():
        return f"{day(last_day, today=today)} {clock(first)}–{until}"
    return f"{day(first.date(), today=today)} {clock(first)} – {day(last_day, today=today)} {until}"
