"""The stamp of a microscope's bookings: another one after every change of what the calendar tells, however made."""

import datetime

import pytest
from django.apps import apps
from django.core.management import call_command
from django.db import IntegrityError, connection, transaction
from django.utils import timezone

from bookings.handover import booking_hand_over
from bookings.models import Booking, BookingSeries, CalendarStamp
from bookings.services import booking_cancel, booking_create, booking_update
from bookings.stamps import STAMPS
from tests.concurrency import at_once
from tests.factories import (
    BookingFactory,
    LabFactory,
    MembershipFactory,
    MicroscopeFactory,
    StaffFactory,
    UserFactory,
)

pytestmark = pytest.mark.django_db

HOUR = datetime.timedelta(hours=1)
START = datetime.datetime(2027, 3, 1, 9, tzinfo=datetime.UTC)


class Editor:
    """What of a schema editor the migration uses."""

    connection = connection


def stamps():
    return dict(CalendarStamp.objects.values_list("microscope", "stamp"))


def renewed(change, *arguments) -> set[int]:
    """The microscopes whose stamps the change renews."""
    before = stamps()
    change(*arguments)
    after = stamps()
    assert before.keys() <= after.keys()
    return {pk for pk, stamp in after.items() if before.get(pk) != stamp}


@pytest.fixture
def here():
    return MicroscopeFactory()


@pytest.fixture
def there(here):
    return MicroscopeFactory()


@pytest.fixture
def booking(here):
    return BookingFactory(microscope=here, start=START, end=START + 8 * HOUR)


def test_a_microscope_without_bookings_has_none(here):
    assert stamps() == {}


def test_every_service_renews_it(here, there, staff):
    lab = LabFactory()
    person, heir = MembershipFactory(lab=lab).user, MembershipFactory(lab=lab).user
    start = timezone.now() + 48 * HOUR
    made = []

    def create():
        made.append(booking_create(actor=person, microscope=here, start=start, end=start + 8 * HOUR, lab=lab))

    assert renewed(create) == {here.pk}
    [booking] = made
    assert renewed(lambda: booking_update(booking=booking, actor=person, title="Ribosome")) == {here.pk}
    assert renewed(lambda: booking_update(booking=booking, actor=person, microscope=there)) == {
        here.pk,
        there.pk,
    }
    assert renewed(lambda: booking_hand_over(booking=booking, actor=person, to=heir)) == {there.pk}
    assert renewed(lambda: booking_cancel(booking=booking, actor=heir)) == {there.pk}


def test_each_told_column_renews_it(booking, here, there):
    series = BookingSeries.objects.create(
        every=1, unit="days", until=datetime.date(2027, 4, 1), creator=booking.owner
    )
    changes = {
        "kind": "special",
        "title": "Another",
        "start": START + HOUR,
        "end": START + 9 * HOUR,
        "owner": UserFactory(),
        "operator": UserFactory(),
        "creator": UserFactory(),
        "lab": None,
        "series": series,
        "cancelled_at": START,
    }
    for name, value in changes.items():
        assert renewed(lambda n=name, v=value: Booking.objects.update(**{n: v})) == {here.pk}, name
    assert renewed(lambda: Booking.objects.update(microscope=there)) == {here.pk, there.pk}
    assert renewed(series.delete) == {there.pk}


def test_what_the_calendar_does_not_tell_leaves_it(booking):
    before = stamps()
    Booking.objects.update(description="Bring the grids", cancel_reason="None", overridden=["too_long"])
    booking.collaborators.add(UserFactory())
    assert stamps() == before


def test_rows_written_in_other_ways(booking, here, there):
    def bulk():
        Booking.objects.bulk_create(
            Booking(
                microscope=one,
                owner=booking.owner,
                creator=booking.owner,
                start=START + n * HOUR,
                end=START + (n + 1) * HOUR,
            )
            for n in range(10, 14)
            for one in (here, there)
        )

    def ignoring():
        row = Booking(
            microscope=there,
            owner=booking.owner,
            creator=booking.owner,
            start=START + 40 * HOUR,
            end=START + 41 * HOUR,
        )
        Booking.objects.bulk_create([row], ignore_conflicts=True)

    def raw(statement, *values):
        with connection.cursor() as cursor:
            cursor.execute(statement, values)

    assert renewed(bulk) == {here.pk, there.pk}
    assert renewed(ignoring) == {there.pk}
    assert renewed(raw, "UPDATE bookings_booking SET title = 'Raw' WHERE id = %s", booking.pk) == {here.pk}
    assert renewed(raw, "UPDATE bookings_booking SET id = %s WHERE id = %s", 10_000, booking.pk) == {here.pk}
    assert renewed(raw, "DELETE FROM bookings_booking WHERE id = %s", 10_000) == {here.pk}
    assert renewed(Booking.objects.all().delete) == {here.pk, there.pk}
    assert renewed(Booking.objects.all().delete) == set()


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_emptying_the_table_renews_all(booking, here):
    def empty():
        with connection.cursor() as cursor:
            cursor.execute("TRUNCATE bookings_booking CASCADE")

    assert renewed(empty) == {here.pk}


def test_one_that_was_rolled_back_never_comes_again(booking, here):
    first, seen = stamps(), set()
    for _ in range(5):
        with transaction.atomic():
            Booking.objects.update(title="Perhaps")
            seen.add(stamps()[here.pk])
            transaction.set_rollback(True)
        assert stamps() == first
    assert len(seen) == 5


def test_a_refused_change_leaves_it(booking, here):
    before = stamps()
    with pytest.raises(IntegrityError), transaction.atomic():
        BookingFactory(microscope=here, start=START + HOUR, end=START + 2 * HOUR)
    assert stamps() == before


def test_migrating_makes_the_triggers_again(booking, here):
    """SQLite drops them when it rebuilds the table; what was written meanwhile is made up for."""
    if connection.vendor == "sqlite":
        with connection.cursor() as cursor:
            for event in ("insert", "update", "delete"):
                cursor.execute(f"DROP TRIGGER booking_stamp_{event}")
        Booking.objects.update(title="Unseen")
        assert renewed(call_command, "migrate", "--verbosity=0") == {here.pk}
    else:
        assert renewed(STAMPS.forwards, apps, Editor) == {here.pk}
    assert renewed(lambda: Booking.objects.update(title="Seen")) == {here.pk}


def test_bookings_from_before_have_one(booking, here):
    STAMPS.backwards(apps, Editor)
    CalendarStamp.objects.all().delete()
    Booking.objects.update(title="From before")
    assert stamps() == {}
    STAMPS.forwards(apps, Editor)
    assert stamps().keys() == {here.pk}


def test_a_microscope_that_was_never_used_is_deleted_without_a_word_of_it(client, here):
    booking = BookingFactory(microscope=here)
    booking.delete()
    staff = StaffFactory()
    client.force_login(staff)
    page = client.get(f"/admin/microscopes/microscope/{here.pk}/delete/")
    assert page.status_code == 200
    assert "stamp" not in page.content.decode().lower().replace("timestamp", "")
    client.post(f"/admin/microscopes/microscope/{here.pk}/delete/", {"post": "yes"})
    assert not type(here).objects.exists()


@pytest.mark.django_db(transaction=True)
def test_whoever_hands_over_moves_and_deletes_at_once_waits_in_no_circle(client, here):
    """Each locks the microscope before the booking; PostgreSQL would tell a circle as an error."""
    lab = LabFactory()
    people = [MembershipFactory(lab=lab).user for _ in range(3)]
    staff = StaffFactory()
    client.force_login(staff)
    start = timezone.now() + 48 * HOUR
    booking = booking_create(
        actor=people[0], microscope=here, start=start, end=start + HOUR, owner=people[0], lab=lab
    )

    def work(n):
        for turn in range(6):
            if n == 0:
                now = Booking.objects.get(pk=booking.pk)
                to = people[(people.index(now.owner) + 1) % 3]
                booking_hand_over(booking=now, actor=staff, to=to)
            elif n == 1:
                booking_update(
                    booking=booking, actor=staff, start=start + turn * HOUR, end=start + (turn + 1) * HOUR
                )
            elif n == 2:
                booking_update(booking=booking, actor=staff, title=f"Turn {turn}")
            else:
                deleted = BookingFactory(
                    microscope=here,
                    kind="slot",
                    start=start + (90 + turn) * HOUR,
                    end=start + (91 + turn) * HOUR,
                )
                response = client.post(f"/admin/bookings/booking/{deleted.pk}/delete/", {"post": "yes"})
                assert response.status_code == 302

    assert at_once(4, work) == [None] * 4
