"""Whatever several people do at the same time: nothing overlaps, no quota is exceeded, no repeat is half made."""

import datetime
import itertools

import pytest
from django.core.exceptions import ValidationError
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bookings.models import Application, ApplicationQuota, Booking, BookingSeries
from bookings.quotas import quota
from bookings.series import Repeat, series_cancel, series_create, series_update
from bookings.services import booking_cancel, booking_create, booking_update
from tests.concurrency import at_once, in_thread, shared_database
from tests.factories import ApplicationFactory, LabFactory, MembershipFactory, MicroscopeFactory

HOUR = datetime.timedelta(hours=1)
DAYS, QUOTA, CONNECTIONS = 6, 4, 3

hours = st.integers(0, DAYS * 24)
lengths = st.integers(1, 30)
microscope = st.integers(0, 1)
which = st.integers(0, 20)
scope = st.sampled_from(["this", "later", "all"])
actions = st.one_of(
    st.tuples(st.just("create"), microscope, hours, lengths),
    st.tuples(st.just("move"), microscope, which, hours, lengths),
    st.tuples(st.just("repeat"), microscope, hours, st.integers(1, 6), st.integers(1, 3)),
    st.tuples(st.just("shift"), which, scope, st.integers(-30, 30)),
    st.tuples(st.just("cancel"), which),
    st.tuples(st.just("cancel some"), which, scope),
)


class Facility:
    """Two microscopes of a group that ask for an application, and one application with a few days on each."""

    def __init__(self):
        lab = LabFactory()
        self.people = [MembershipFactory(lab=lab).user for _ in range(CONNECTIONS)]
        self.microscopes = MicroscopeFactory.create_batch(2, requires_application=True, group="Krios")
        self.lab = lab
        self.application = ApplicationFactory()
        self.application.labs.add(lab)
        for one in self.microscopes:
            ApplicationQuota.objects.create(application=self.application, microscope=one, days=QUOTA)
        self.series = {}  # How many bookings each was made of.
        self.zero = timezone.now().replace(minute=0, second=0, microsecond=0) + 48 * HOUR

    def bookings(self):
        return Booking.objects.filter(microscope__in=self.microscopes)

    def do(self, actor, action):
        name, *values = action
        if name in ("create", "repeat"):
            where, start, length, *times = values
            start = self.zero + start * HOUR
            fields = {
                "actor": actor,
                "microscope": self.microscopes[where],
                "lab": self.lab,
                "start": start,
                "end": start + length * HOUR,
            }
            if name == "create":
                return booking_create(**fields)
            until = timezone.localdate(start) + datetime.timedelta(days=times[0])
            return series_create(repeat=Repeat(1, "days", until), **fields)
        place = {"move": 1}.get(name, 0)
        existing = list(self.bookings().order_by("pk"))
        if not existing:
            return None
        booking = existing[values[place] % len(existing)]
        if name == "move":
            start = self.zero + values[2] * HOUR
            return booking_update(
                booking=booking,
                actor=actor,
                microscope=self.microscopes[values[0]],
                start=start,
                end=start + values[3] * HOUR,
            )
        if name == "shift":
            shift = values[2] * HOUR
            return series_update(
                booking=booking,
                actor=actor,
                scope=values[1],
                start=booking.start + shift,
                end=booking.end + shift,
            )
        if name == "cancel":
            return booking_cancel(booking=booking, actor=actor, reason="No grids")
        return series_cancel(booking=booking, actor=actor, scope=values[1], reason="No grids")

    def check(self):
        for one in self.microscopes:
            taken = list(Booking.objects.filter(microscope=one).blocking().order_by("start"))
            for before, after in itertools.pairwise(taken):
                assert before.end <= after.start
            assert all(booking.application_id == self.application.pk for booking in taken)
            assert quota(Application.objects.get(pk=self.application.pk), one).left >= 0
        for series, size in self.series.items():
            assert Booking.objects.filter(series=series).count() == size
        assert not BookingSeries.objects.filter(bookings=None).exists()


@pytest.mark.django_db(transaction=True)
@settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    everyone=st.lists(st.lists(actions, min_size=2, max_size=5), min_size=CONNECTIONS, max_size=CONNECTIONS)
)
def test_whatever_people_do_at_once(tmp_path, everyone):
    facility = Facility()

    def work(n):
        errors = []
        for action in everyone[n]:
            try:
                done = facility.do(facility.people[n], action)
            except ValidationError as error:
                errors.append(error)
            else:
                if action[0] == "repeat":
                    facility.series[done[0].series_id] = len(done)
        return errors

    with shared_database(tmp_path):
        for result in at_once(CONNECTIONS, work):
            # A refusal is fine; anything else, such as a lock that waits for another, is not.
            if isinstance(result, Exception):
                raise result
        in_thread(facility.check)
