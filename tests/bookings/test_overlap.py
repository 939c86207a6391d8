"""No two bookings of one microscope overlap, whoever writes and however many at once."""

import datetime

import pytest
from django.db import IntegrityError, connection, transaction
from django.utils import timezone

from bookings.models import Booking
from bookings.overlap import OVERLAP, is_overlap
from tests.factories import BookingFactory, MicroscopeFactory

pytestmark = pytest.mark.django_db
NINE = datetime.datetime(2026, 11, 24, 9, tzinfo=datetime.UTC)
HOUR = datetime.timedelta(hours=1)


@pytest.mark.parametrize(
    ("start", "end"),
    [(0, 4), (1, 2), (-1, 5), (3, 5), (-1, 1)],
    ids=["equal", "inside", "enclosing", "late", "early"],
)
def test_overlapping_booking_is_refused(start, end):
    first = BookingFactory(start=NINE, end=NINE + 4 * HOUR)
    with pytest.raises(IntegrityError) as error, transaction.atomic():
        BookingFactory(microscope=first.microscope, start=NINE + start * HOUR, end=NINE + end * HOUR)
    assert is_overlap(error.value)


@pytest.mark.parametrize(("start", "end"), [(4, 6), (-2, 0)], ids=["after", "before"])
def test_touching_bookings_are_fine(start, end):
    first = BookingFactory(start=NINE, end=NINE + 4 * HOUR)
    BookingFactory(microscope=first.microscope, start=NINE + start * HOUR, end=NINE + end * HOUR)
    assert first.microscope.bookings.count() == 2


def test_other_microscopes_slots_and_cancelled_ones_do_not_clash():
    first = BookingFactory(start=NINE, end=NINE + 4 * HOUR)
    BookingFactory(microscope=MicroscopeFactory(), start=NINE, end=NINE + 4 * HOUR)
    BookingFactory(microscope=first.microscope, start=NINE, end=NINE + 4 * HOUR, kind=Booking.Kind.SLOT)
    BookingFactory(
        microscope=first.microscope,
        start=NINE,
        end=NINE + 4 * HOUR,
        cancelled_at=timezone.now(),
        cancelled_by=first.owner,
    )
    assert first.microscope.bookings.count() == 3


def test_moving_or_reviving_into_another_is_refused():
    first = BookingFactory(start=NINE, end=NINE + 4 * HOUR)
    other = BookingFactory(microscope=first.microscope, start=NINE + 5 * HOUR, end=NINE + 6 * HOUR)
    with pytest.raises(IntegrityError), transaction.atomic():
        Booking.objects.filter(pk=other.pk).update(start=NINE + 3 * HOUR)
    Booking.objects.filter(pk=other.pk).update(cancelled_at=timezone.now())
    Booking.objects.filter(pk=other.pk).update(start=NINE + 3 * HOUR)
    with pytest.raises(IntegrityError), transaction.atomic():
        Booking.objects.filter(pk=other.pk).update(cancelled_at=None)


def test_a_booking_may_be_saved_again_and_shortened():
    first = BookingFactory(start=NINE, end=NINE + 4 * HOUR)
    first.end = NINE + 2 * HOUR
    first.save()
    first.refresh_from_db()
    assert first.end == NINE + 2 * HOUR


def test_end_before_start_is_refused_by_the_database():
    with pytest.raises(IntegrityError), transaction.atomic():
        BookingFactory(start=NINE, end=NINE)


@pytest.mark.skipif(
    "connection.vendor != 'sqlite'", reason="only SQLite loses triggers when a table is rebuilt"
)
def test_the_rule_comes_back_after_sqlite_rebuilt_the_table():
    first = BookingFactory(start=NINE, end=NINE + 4 * HOUR)
    with connection.cursor() as cursor:
        cursor.execute("DROP TRIGGER booking_no_overlap_insert")
    OVERLAP.ensure(using="default")
    with pytest.raises(IntegrityError), transaction.atomic():
        BookingFactory(microscope=first.microscope, start=NINE, end=NINE + HOUR)
