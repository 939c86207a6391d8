"""What is kept between range calls: the same is told as without it, to everyone, after every kind of change."""

import datetime
import random
import re
from itertools import pairwise

import msgspec
import pytest
from django.contrib.auth.models import Permission
from django.db import connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from bookings import calendar, kept
from bookings.handover import booking_hand_over
from bookings.models import Booking, BookingSeries
from bookings.services import booking_cancel, booking_create, booking_update
from microscopes.models import Microscope
from people.anonymising import user_anonymise
from people.models import Lab, Membership, User
from tests.concurrency import at_once, in_thread, shared_database
from tests.factories import (
    ApplicationFactory,
    BookingFactory,
    LabFactory,
    MembershipFactory,
    MicroscopeFactory,
    StaffFactory,
    UserFactory,
)

EVENTS = "/bookings/calendar/events/"
HOUR, DAY = datetime.timedelta(hours=1), datetime.timedelta(days=1)
# The clocks go forward on 28 March 2027 and back on 31 October 2027.
FIRST = datetime.date(2027, 1, 1)


@pytest.fixture(autouse=True)
def _stockholm(settings):
    settings.TIME_ZONE = "Europe/Stockholm"
    timezone.activate("Europe/Stockholm")
    yield
    timezone.deactivate()


def utc(*parts):
    return datetime.datetime(*parts, tzinfo=datetime.UTC)


class Facility:
    """A year on three microscopes, with people who stand to the bookings in every way."""

    def __init__(self):
        self.microscopes = [MicroscopeFactory(code=f"m{n}", position=n) for n in range(3)]
        self.labs = LabFactory.create_batch(3)
        self.lab = self.labs[0]
        self.member, self.operator, self.creator = (
            MembershipFactory(lab=self.lab).user,
            UserFactory(),
            UserFactory(),
        )
        self.collaborator, self.stranger, self.staff = UserFactory(), UserFactory(), StaffFactory()
        self.mere_staff = UserFactory(is_staff=True)
        self.mere_staff.user_permissions.set(Permission.objects.filter(codename="view_booking"))
        self.application = ApplicationFactory()
        self.application.labs.add(self.labs[1])
        self.owners = [
            self.member,
            self.stranger,
            *UserFactory.create_batch(2),
            *[lab.pi for lab in self.labs],
        ]
        self.series = BookingSeries.objects.create(
            every=1, unit="weeks", until=datetime.date(2027, 12, 1), creator=self.creator
        )
        self.fill(random.Random(3))
        self.odd_times()
        self.to_come()
        self.clients = {}
        for who, person in self.people.items():
            self.clients[who] = Client()
            self.clients[who].force_login(person)

    @property
    def people(self):
        """As each request finds them: nothing of an earlier call is remembered on them."""
        names = ["member", "operator", "creator", "collaborator", "stranger", "staff", "mere_staff"]
        people = {name: getattr(self, name).pk for name in names} | {"pi": self.lab.pi_id}
        return {name: User.objects.get(pk=pk) for name, pk in people.items()}

    def book(self, microscope, start, end, **fields):
        return BookingFactory(
            **{"microscope": microscope, "start": start, "end": end, "lab": None, "owner": self.owners[2]}
            | fields
        )

    def fill(self, chance):
        """Each microscope's bookings one after the other, some touching, some long, and slots over each other."""
        kinds = ["booking"] * 8 + ["downtime", "maintenance", "special"]
        for microscope in self.microscopes:
            at = utc(2026, 12, 20)
            while at < utc(2028, 1, 10):
                start = at + chance.choice([0, 0, 3, 30, 100]) * HOUR
                at = start + chance.choice([1, 8, 24, 72, 300]) * HOUR
                booking = self.book(
                    microscope,
                    start,
                    at,
                    kind=chance.choice(kinds),
                    title=chance.choice(["", "Ribosome", 'Ö "quoted" \u2028\n']),
                    owner=chance.choice(self.owners),
                    operator=chance.choice([None, None, self.operator]),
                    creator=chance.choice([self.creator, self.owners[3]]),
                    lab=chance.choice([None, *self.labs]),
                    series=chance.choice([None, self.series]),
                )
                if chance.random() < 0.2:
                    booking.collaborators.add(self.collaborator)
                if chance.random() < 0.2:
                    at = start
                    Booking.objects.filter(pk=booking.pk).update(cancelled_at=start)
            for _ in range(8):
                start = utc(2027, 1, 1) + chance.randrange(8000) * HOUR
                slot = self.book(
                    microscope,
                    start,
                    start + chance.randrange(1, 900) * HOUR,
                    kind="slot",
                    title="Of the board",
                    owner=self.staff,
                    lab=chance.choice([None, None, self.lab]),
                )
                slot.slot_labs.set(chance.sample(self.labs, chance.choice([0, 0, 1, 2])))
                slot.slot_applications.set(chance.sample([self.application], chance.choice([0, 0, 1])))

    def odd_times(self):
        """On weeks' edges, fractions of seconds, and nights on which the clocks are changed."""
        edge = datetime.datetime.fromtimestamp(kept.WEEK * 2990, datetime.UTC)
        fraction = datetime.timedelta(microseconds=250)
        midnight = utc(2027, 5, 9, 22)
        spring, autumn = utc(2027, 3, 28), utc(2027, 10, 31)
        times = [(edge - HOUR, edge), (edge, edge + HOUR)]
        times += [
            (midnight - HOUR + fraction, midnight + fraction),
            (midnight + fraction, midnight + HOUR),
            (spring, spring + HOUR),
            (spring + HOUR, spring + 3 * HOUR),
            (autumn + HOUR / 2, autumn + 5 * HOUR / 4),
            (autumn + 3 * HOUR / 2, autumn + 9 * HOUR),
        ]
        microscope = MicroscopeFactory(code="odd", position=9)
        for start, end in times:
            self.book(microscope, start, end, lab=self.lab)
        self.book(microscope, edge, edge + 50 * DAY, kind="slot", lab=self.lab)
        self.microscopes.append(microscope)

    def to_come(self):
        """Not begun yet, whenever this runs."""
        start = timezone.now().replace(microsecond=0) + 9 * DAY
        self.coming = self.book(MicroscopeFactory(code="soon"), start, start + HOUR, lab=self.lab)
        self.microscopes.append(self.coming.microscope)
        Booking.objects.filter(pk=self.coming.pk).update(
            owner=self.member, operator=self.operator, creator=self.creator
        )
        self.coming.refresh_from_db()


def plain(user, first, last, microscopes) -> bytes:
    """The range call's answer made without anything kept."""
    start, end = calendar.day_start(first), calendar.day_start(last)
    told = calendar.events(user, start, end, microscopes)
    return msgspec.json.encode({"events": told, "offset": calendar.current_offset()})


def asked(user, first, last, microscopes=(), client=None) -> bytes:
    if client is None:
        client = Client()
        client.force_login(user)
    query = {"start": first.isoformat(), "end": last.isoformat(), "microscope": [m.code for m in microscopes]}
    response = client.get(EVENTS, query)
    assert response.status_code == 200
    return response.content


def check(facility, ranges, by="call", chosen=slice(None)):
    """Everyone is told the same either way; answers what, by person and range."""
    told = {}
    chosen = calendar.shown_microscopes()[chosen]
    for who, user in facility.people.items():
        for span in ranges:
            expected = plain(user, *span, chosen)
            told[who, span] = asked(user, *span, chosen, facility.clients[who])
            assert told[who, span] == expected, f"{who}, {span}, {by}"
    return told


MONTH = (datetime.date(2027, 10, 12), datetime.date(2027, 11, 14))
YEAR = (FIRST, FIRST + 366 * DAY)


def around(moment):
    day = timezone.localtime(moment).date()
    return day - 3 * DAY, day + 3 * DAY


@pytest.mark.django_db
def test_everyone_is_told_the_same_as_without_it():
    facility = Facility()
    week = (datetime.date(2027, 3, 26), datetime.date(2027, 4, 2))
    edge = datetime.datetime.fromtimestamp(kept.WEEK * 2990, datetime.UTC).date()
    ranges = [
        week,
        MONTH,
        YEAR,
        (edge, edge + DAY),
        (edge + DAY, edge + 7 * DAY),
        around(facility.coming.start),
        # A quarter of a millisecond of it is left.
        (datetime.date(2027, 5, 10), datetime.date(2027, 5, 11)),
    ]
    first = check(facility, ranges)
    # Once more, from what is kept now, and of two microscopes.
    assert check(facility, ranges) == first
    check(facility, ranges, chosen=slice(1, 3))
    told = {who: first[who, YEAR].decode() for who in facility.people}
    assert len(set(told.values())) == len(told)
    assert '"Booked"' in told["member"]
    assert "Ribosome" in told["member"]
    assert '"Booked"' not in told["staff"]
    assert '"can_change":true' in told["staff"]
    assert '"can_change":true' not in told["mere_staff"]
    for who in facility.people:
        may = b'"can_change":true' in first[who, around(facility.coming.start)]
        assert may == (who in {"member", "operator", "creator", "staff"})


@pytest.mark.django_db
def test_any_range_of_any_microscopes():
    facility = Facility()
    shown = calendar.shown_microscopes()

    @hypothesis_settings(
        max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
    )
    @given(
        who=st.sampled_from(sorted(facility.people)),
        offset=st.integers(-20, 380),
        days=st.one_of(st.integers(1, 10), st.integers(1, 400)),
        some=st.lists(st.sampled_from(shown), min_size=1, unique=True),
    )
    def same(who, offset, days, some):
        user = facility.people[who]
        start = calendar.day_start(FIRST + offset * DAY)
        end = calendar.day_start(FIRST + (offset + days) * DAY)
        expected = [msgspec.json.encode(one) for one in calendar.events(user, start, end, some)]
        assert b",".join(kept.events(user, start, end, some, shown)) == b",".join(expected)

    same()


# -- Changes ---------------------------------------------------------------------------------------------------
def changes(facility):
    """Every kind of change, by name; each is made for good before the next."""
    staff, member, lab = facility.staff, facility.member, facility.lab
    here, there = facility.microscopes[:2]
    booking = facility.coming
    client = Client()
    client.force_login(StaffFactory(is_superuser=True))
    made = []
    start = utc(2027, 10, 22)
    slot = facility.book(facility.microscopes[2], start, start + DAY, kind="slot", owner=staff)
    slot.slot_labs.set([facility.labs[2]])
    MembershipFactory(lab=facility.labs[1], user=facility.creator)

    def some(**fields):
        return Booking.objects.standing().filter(start__gt=utc(2027, 10, 13), **fields).order_by("pk")

    def raw(statement, *values):
        with connection.cursor() as cursor:
            cursor.execute(statement, values)

    def create():
        start = utc(2029, 1, 1)
        made.append(
            booking_create(actor=staff, microscope=here, owner=member, start=start, end=start + HOUR, lab=lab)
        )
        booking_update(booking=made[0], actor=staff, start=utc(2027, 10, 20), end=utc(2027, 10, 20, 1))

    def free(microscope, start, end):
        microscope.bookings.blocking().overlapping(start, end).update(cancelled_at=start)

    def admin_deletes():
        one = some(sessions=None, microscope=here).first()
        response = client.post(f"/admin/bookings/booking/{one.pk}/delete/", {"post": "yes"})
        assert response.status_code == 302
        assert not Booking.objects.filter(pk=one.pk).exists()

    def anonymise():
        person = facility.owners[3]
        person.is_active = False
        person.save(update_fields=["is_active"])
        user_anonymise(actor=client_user(client), user=person, typed=person.username)

    yield "time made free", lambda: free(here, utc(2027, 10, 20), utc(2027, 10, 20, 1))
    yield "created and moved there", create
    yield "moved to another microscope", lambda: booking_update(booking=booking, actor=staff, microscope=here)
    yield "moved back", lambda: booking_update(booking=booking, actor=staff, microscope=booking.microscope)
    yield "handed over", lambda: booking_hand_over(booking=booking, actor=staff, to=lab.pi)
    yield "changed title", lambda: booking_update(booking=booking, actor=staff, title="Another")
    yield (
        "collaborators",
        lambda: booking_update(booking=booking, actor=staff, collaborators=[facility.stranger]),
    )
    yield "cancelled", lambda: booking_cancel(booking=booking, actor=staff, reason="Broken")
    yield "admin deletes", admin_deletes
    yield "bulk update", lambda: some().update(title="All of them")
    yield "bulk update of owners", lambda: some(lab=lab).update(owner=facility.stranger, operator=member)
    yield "raw", lambda: raw("UPDATE bookings_booking SET kind = 'special' WHERE kind = 'maintenance'")
    yield (
        "raw delete",
        lambda: [
            raw(
                f"DELETE FROM {table} WHERE {column} IN (SELECT id FROM bookings_booking WHERE kind = 'slot'{slots})"
            )
            for slots in [f" AND microscope_id = {there.pk}"]
            for table, column in [
                ("bookings_booking_slot_labs", "booking_id"),
                ("bookings_booking_slot_applications", "booking_id"),
                ("bookings_booking_collaborators", "booking_id"),
                ("bookings_booking", "id"),
            ]
        ],
    )
    yield "slot opened", lambda: slot.slot_labs.add(lab)
    yield "slot opened for applications", lambda: slot.slot_applications.add(facility.application)
    yield "application of another lab", lambda: facility.application.labs.set([facility.labs[2]])
    yield "person renamed", lambda: User.objects.filter(pk=member.pk).update(last_name="Oldenburg")
    yield (
        "person without a name",
        lambda: User.objects.filter(pk=facility.stranger.pk).update(first_name="", last_name=""),
    )
    yield "username", lambda: User.objects.filter(pk=facility.stranger.pk).update(username="somebody")
    yield "anonymised", anonymise
    yield "lab renamed", lambda: Lab.objects.filter(pk=lab.pk).update(name="Chair of grids")
    yield "member left", lambda: Membership.objects.filter(user=member, lab=lab).delete()
    yield "member joined", lambda: Membership.objects.create(user=facility.stranger, lab=facility.labs[1])
    yield "another leader", lambda: Lab.objects.filter(pk=lab.pk).update(pi=facility.operator)
    yield "series gone", facility.series.delete
    yield "retired", lambda: Microscope.objects.filter(pk=there.pk).update(status="retired")
    yield "another position", lambda: Microscope.objects.filter(pk=here.pk).update(position=50, code="last")
    yield "in service again", lambda: Microscope.objects.filter(pk=there.pk).update(status="active")
    yield "staff no more", lambda: User.objects.filter(pk=staff.pk).update(is_staff=False)


def client_user(client):
    return User.objects.get(pk=client.session["_auth_user_id"])


@pytest.mark.django_db
def test_after_every_kind_of_change_the_new_is_told_at_once():
    facility = Facility()
    soon = around(facility.coming.start)
    before = {}
    unseen = set()
    for by, change in list(changes(facility)):
        change()
        now = check(facility, [MONTH, soon], by)
        if now == before:
            unseen.add(by)
        before = now
    # What nobody is told anything of: another microscope's place alone.
    assert unseen == {"another position"}


@pytest.mark.django_db
def test_another_zone_of_the_facility(settings):
    facility = Facility()
    check(facility, [MONTH])
    settings.TIME_ZONE = "America/New_York"
    timezone.activate("America/New_York")
    check(facility, [MONTH])


@pytest.mark.django_db
def test_what_was_rolled_back_was_never_kept():
    facility = Facility()
    booking = Booking.objects.filter(start__gt=utc(2027, 10, 15), cancelled_at=None).earliest("start")
    for title in ("One", "Another"):
        with transaction.atomic():
            Booking.objects.filter(pk=booking.pk).update(title=title)
            assert title in asked(facility.staff, *MONTH).decode()
            transaction.set_rollback(True)
        assert title not in asked(facility.staff, *MONTH).decode()
        check(facility, [MONTH])


@pytest.mark.django_db
def test_a_change_while_the_answer_is_made_is_told_by_the_next(monkeypatch):
    facility = Facility()
    booking = Booking.objects.filter(start__gt=utc(2027, 10, 15), cancelled_at=None).earliest("start")
    read = kept.Bookings._read
    titles = []

    def meddled(self, first, last):
        found = list(read(self, first, last))
        titles.append(f"Title {len(titles)}")
        Booking.objects.filter(pk=booking.pk).update(title=titles[-1])
        return found

    monkeypatch.setattr(kept.Bookings, "_read", meddled)
    for _ in range(3):
        asked(facility.staff, *MONTH)
    monkeypatch.undo()
    assert len(titles) == 3
    assert titles[-1] in asked(facility.staff, *MONTH).decode()
    check(facility, [MONTH])


@pytest.mark.django_db(transaction=True)
def test_a_change_by_another_connection_is_told_at_once(tmp_path):
    facility = Facility()
    with shared_database(tmp_path):
        staff = facility.staff
        booking = Booking.objects.filter(start__gt=utc(2027, 10, 15), cancelled_at=None).earliest("start")
        in_thread(lambda: check(facility, [MONTH]))
        for title in ("One", "Another"):
            in_thread(lambda title=title: Booking.objects.filter(pk=booking.pk).update(title=title))
            assert title in in_thread(lambda: asked(staff, *MONTH)).decode()
        in_thread(lambda: User.objects.filter(pk=booking.owner_id).update(last_name="Oldenburg"))
        assert "Oldenburg" in in_thread(lambda: asked(staff, *MONTH)).decode()
        in_thread(lambda: check(facility, [MONTH]))


@pytest.mark.django_db(transaction=True)
def test_readers_at_once_are_never_told_what_was_before(tmp_path):
    """Two change a title and a name, each to a higher number; two others read, and the numbers never fall."""
    microscope, staff = MicroscopeFactory(code="m"), StaffFactory()
    member = MembershipFactory().user
    lab = member.memberships.get().lab
    day = utc(2027, 10, 20)
    booking = BookingFactory(
        microscope=microscope, owner=member, lab=lab, title="n0n", start=day, end=day + HOUR
    )
    User.objects.filter(pk=member.pk).update(last_name="p0p")
    written = {"n": 0, "p": 0}

    def work(turn):
        if turn < 2:
            for number in range(1, 13):
                if turn == 0:
                    Booking.objects.filter(pk=booking.pk).update(title=f"n{number}n")
                else:
                    User.objects.filter(pk=member.pk).update(last_name=f"p{number}p")
                written["np"[turn]] = number
            return []
        person = User.objects.get(pk=(staff if turn == 2 else member).pk)
        seen = []
        for _ in range(25):
            least = dict(written)
            told = asked(person, *MONTH).decode()
            found = {key: int(re.search(f"{key}([0-9]+){key}", told)[1]) for key in "np"}
            seen.append((least, found))
        return seen

    with shared_database(tmp_path):
        *_, one, other = at_once(4, work)
    for seen in (one, other):
        assert isinstance(seen, list), seen
        for least, found in seen:
            assert all(found[key] >= least[key] for key in "np")
        for (_, before), (_, after) in pairwise(seen):
            assert all(before[key] <= after[key] for key in "np")


# -- What it costs ---------------------------------------------------------------------------------------------
@pytest.mark.django_db
@pytest.mark.parametrize("who", ["staff", "member"])
def test_a_year_costs_as_many_queries_as_a_month(who):
    facility = Facility()
    user = facility.people[who]
    client = Client()
    client.force_login(user)

    def count(span):
        query = {"start": span[0].isoformat(), "end": span[1].isoformat()}
        with CaptureQueriesContext(connection) as captured:
            told = client.get(EVENTS, query).json()["events"]
        return len(told), len(captured), sum("strftime" in q["sql"] or "EPOCH" in q["sql"] for q in captured)

    cold = {}
    for span in (MONTH, YEAR):
        Booking.objects.filter(pk=facility.coming.pk).update(title=f"Before {span}")
        cold[span] = count(span)
    warm = {span: count(span) for span in (MONTH, YEAR)}
    assert warm[YEAR][0] > 4 * warm[MONTH][0] > 40
    for told in (cold, warm):
        assert told[MONTH][1] == told[YEAR][1]
    # Warm, no booking is read.
    assert warm[YEAR][2] == 0 < cold[YEAR][2]
    assert warm[YEAR][1] + 3 == cold[YEAR][1] <= 15


@pytest.mark.django_db
def test_no_more_is_kept_than_may_be(monkeypatch):
    facility = Facility()
    monkeypatch.setattr(kept, "MOST_KEPT", 60)
    for span in (YEAR, MONTH, YEAR):
        check(facility, [span])
        assert 0 < kept._bookings._size <= 60
        assert kept._bookings._size == sum(len(week.entries) for week in kept._bookings._weeks.values())
