"""Numbers, sizes and times as people read them."""

import datetime
import math
from zoneinfo import ZoneInfo

import pytest
from django.utils import timezone

from people import words

NBSP = "\u00a0"
STOCKHOLM = ZoneInfo("Europe/Stockholm")


@pytest.mark.parametrize("value", [None, "", math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("function", [words.number, words.size, words.duration, words.micrometres])
def test_what_is_unknown_is_never_written_as_a_number(function, value):
    assert function(value) is None


@pytest.mark.parametrize(
    ("value", "decimals", "text"),
    [
        (12480, None, "12,480"),
        (0, None, "0"),
        (300.0, None, "300"),
        (0.8321, None, "0.832"),
        (1234567.0, 1, "1,234,567.0"),
        (1.4249, 2, "1.42"),
        (-1.5, 1, "−1.5"),
        (-0.04, 1, "0.0"),
    ],
)
def test_numbers(value, decimals, text):
    assert words.number(value, decimals) == text


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (0.00012345, 3, "0.000123"),
        (9.996, 3, "10.0"),
        (1234567, 3, "1,230,000"),
        (3.0, 2, "3.0"),
        (-0.52, 1, "−0.5"),
        (0, 3, "0"),
    ],
)
def test_significant_digits(value, digits, text):
    assert words.significant(value, digits) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, ("0", "B")),
        (999, ("999", "B")),
        (1_000, ("1.0", "kB")),
        (1_800_000_000_000, ("1.8", "TB")),
        (214_400_000_000, ("214", "GB")),
        (999_960_000, ("1.0", "GB")),
        (99_960_000, ("100", "MB")),
    ],
)
def test_sizes_in_powers_of_1000(count, text):
    assert words.size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (59.9, "59 s"),
        (60, "1 min"),
        (3599, "59 min"),
        (3 * 3600, "3 h"),
        (12_000, "3 h 20 min"),
        (47 * 3600, "47 h"),
        (52 * 3600, "2 d 4 h"),
        (-90, "−1 min"),
    ],
)
def test_durations(seconds, text):
    assert words.duration(datetime.timedelta(seconds=seconds)).replace(NBSP, " ") == text
    assert words.duration(seconds).replace(NBSP, " ") == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (10, "just now"),
        (-10, "just now"),
        (50, "1 min ago"),
        (240, "4 min ago"),
        (-7200, "in 2 h"),
        (3580, "1 h ago"),
        (26 * 3600, "1 day ago"),
        (50 * 3600, "2 days ago"),
        (20 * 86400, "3 Nov"),
        (400 * 86400, "19 Oct 2025"),
    ],
)
def test_relative_times(seconds, text):
    now = datetime.datetime(2026, 11, 23, 12, tzinfo=datetime.UTC)
    assert words.relative(now - datetime.timedelta(seconds=seconds), now) == text


def local(*parts):
    return datetime.datetime(*parts, tzinfo=STOCKHOLM).astimezone(datetime.UTC)


@pytest.mark.parametrize(
    ("start", "end", "text"),
    [
        ((2026, 11, 23, 9), (2026, 11, 23, 18), "Mon 23 Nov 09:00–18:00"),
        ((2026, 11, 23, 22), (2026, 11, 24, 6), "Mon 23 Nov 22:00 – Tue 24 Nov 06:00"),
        ((2026, 11, 23, 9), (2026, 11, 24, 0), "Mon 23 Nov 09:00–24:00"),
        ((2026, 11, 23, 0), (2026, 11, 24, 0), "Mon 23 Nov, all day"),
        ((2026, 11, 23, 0), (2026, 11, 26, 0), "Mon 23 – Wed 25 Nov"),
        ((2026, 11, 30, 0), (2026, 12, 2, 0), "Mon 30 Nov – Tue 1 Dec"),
        ((2026, 12, 31, 9), (2027, 1, 1, 9), "Thu 31 Dec 09:00 – Fri 1 Jan 2027 09:00"),
        # A day of 25 hours is a whole day, too.
        ((2026, 10, 25, 0), (2026, 10, 26, 0), "Sun 25 Oct, all day"),
    ],
)
def test_when_a_booking_is_is_said_in_the_facilitys_zone(start, end, text):
    with timezone.override(STOCKHOLM):
        assert words.span(local(*start), local(*end), today=datetime.date(2026, 11, 23)) == text


@pytest.mark.parametrize(
    ("start", "end", "text"),
    [
        ((2026, 11, 23, 9), (2026, 11, 23, 18), "Mon 23 Nov 9:00 am–6:00 pm"),
        ((2026, 11, 23, 0), (2026, 11, 23, 12), "Mon 23 Nov 12:00 am–12:00 pm"),
        ((2026, 11, 23, 22, 5), (2026, 11, 24, 6), "Mon 23 Nov 10:05 pm – Tue 24 Nov 6:00 am"),
        ((2026, 11, 23, 9), (2026, 11, 24, 0), "Mon 23 Nov 9:00 am–midnight"),
        ((2026, 11, 23, 0), (2026, 11, 24, 0), "Mon 23 Nov, all day"),
    ],
)
def test_times_of_twelve_hours(start, end, text):
    with timezone.override(STOCKHOLM), words.times_as(words.H12):
        said = words.span(local(*start), local(*end), today=datetime.date(2026, 11, 23))
    assert said.replace(NBSP, " ") == text
    assert words.hour_cycle() == words.H23


def test_the_exact_time_has_twelve_hours_too():
    with timezone.override(STOCKHOLM), words.times_as(words.H12):
        assert (
            words.exact(local(2026, 11, 23, 0, 5, 9)).replace(NBSP, " ") == "Mon 23 Nov 2026 12:05:09 am CET"
        )


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (None, None),
        (0, "0%"),
        (0.0004, "<0.1%"),
        (9 / 2374, "0.4%"),
        (0.0994, "9.9%"),
        (0.0996, "10%"),
        (0.125, "13%"),
        (1.0, "100%"),
    ],
)
def test_shares(share, text):
    assert words.percent(share) == text
