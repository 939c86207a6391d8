"""Making, changing and cancelling bookings: what is possible, for whom, and the words when it is not."""

import datetime
from zoneinfo import ZoneInfo

import pytest
from django.core.exceptions import ValidationError
from django.utils import timezone

from bookings import rules
from bookings.models import Booking
from bookings.services import booking_cancel, booking_create, booking_update
from people.models import AuditEntry
from tests.concurrency import at_once, in_thread, shared_database
from tests.factories import (
    ApplicationFactory,
    BookingFactory,
    FinishedSessionFactory,
    LabFactory,
    MembershipFactory,
    MicroscopeFactory,
    ServiceUserFactory,
    SessionFactory,
    UserFactory,
)

pytestmark = pytest.mark.django_db
# A Tuesday of the current year, so that messages leave the year out.
NINE = datetime.datetime(timezone.localdate().year, 11, 24, 9, tzinfo=datetime.UTC)
HOUR = datetime.timedelta(hours=1)
ONE_DAY = datetime.timedelta(days=1)
DAY = f"{NINE:%a} 24 Nov"


def book(actor, microscope=None, **fields):
    fields = {"start": NINE, "end": NINE + 4 * HOUR} | fields
    return booking_create(actor=actor, microscope=microscope or MicroscopeFactory(), **fields)


def refused(function, *args, **fields) -> dict:
    with pytest.raises(ValidationError) as error:
        function(*args, **fields)
    return (
        error.value.message_dict if hasattr(error.value, "error_dict") else {"__all__": error.value.messages}
    )


@pytest.fixture(autouse=True)
def _the_day_before(monkeypatch):
    """All bookings here are for tomorrow, whenever the tests run."""
    monkeypatch.setattr(timezone, "now", lambda: NINE - ONE_DAY)


@pytest.fixture
def lab():
    return LabFactory()


@pytest.fixture
def colleague(lab):
    return MembershipFactory(lab=lab).user


# -- creating ----------------------------------------------------------------------------------------------


def test_a_user_books_for_themselves(user, lab):
    MembershipFactory(lab=lab, user=user)
    friend = MembershipFactory(lab=lab).user
    booking = book(user, title="Apoferritin", lab=lab, collaborators=[friend])
    booking.refresh_from_db()
    assert (booking.owner, booking.creator, booking.kind) == (user, user, "booking")
    assert list(booking.collaborators.all()) == [friend]


def test_overlap_says_when_and_what_to_do_but_not_who(user):
    first = BookingFactory(start=NINE, end=NINE + 9 * HOUR, title="Secret project")
    name = first.microscope.name
    errors = refused(book, user, first.microscope, start=NINE + HOUR, end=NINE + 2 * HOUR)
    assert errors == {"start": [f"{name} is already booked from {DAY} 09:00 to 18:00. Choose a later start."]}
    errors = refused(book, user, first.microscope, start=NINE - HOUR, end=NINE + HOUR)
    assert errors == {"end": [f"{name} is already booked from {DAY} 09:00 to 18:00. Choose an earlier end."]}
    assert Booking.objects.count() == 1


def test_times_in_messages_are_the_facilitys(user):
    first = BookingFactory(start=NINE, end=NINE + 20 * HOUR)
    with timezone.override(ZoneInfo("Europe/Stockholm")):
        errors = refused(book, user, first.microscope)
    next_day = f"{NINE + 20 * HOUR:%a} 25 Nov"
    assert errors["start"][0].startswith(
        f"{first.microscope} is already booked from {DAY} 10:00 to {next_day} 06:00."
    )


def test_touching_bookings_slots_and_cancelled_ones_are_fine(user, staff):
    first = book(user)
    book(user, first.microscope, start=NINE + 4 * HOUR, end=NINE + 5 * HOUR)
    book(staff, first.microscope, kind="slot")
    booking_cancel(booking=first, actor=user)
    book(user, first.microscope)


def test_an_overlap_that_only_the_database_sees_has_the_same_message(user, monkeypatch):
    first = BookingFactory(start=NINE, end=NINE + 9 * HOUR)
    expected = refused(book, user, first.microscope)
    monkeypatch.setattr(rules, "RULES", [rule for rule in rules.RULES if rule is not rules.nothing_overlaps])
    assert refused(book, user, first.microscope) == expected
    other = BookingFactory(microscope=first.microscope, start=NINE + 10 * HOUR, end=NINE + 11 * HOUR)
    moved = {"start": NINE + HOUR, "end": NINE + 2 * HOUR}
    assert refused(booking_update, booking=other, actor=other.owner, **moved) == expected
    assert Booking.objects.count() == 2


@pytest.mark.parametrize("hours", [0, -1])
def test_the_end_must_be_after_the_start(user, hours):
    assert list(refused(book, user, end=NINE + hours * HOUR)) == ["end"]


def test_times_without_a_zone_are_refused(user):
    assert list(refused(book, user, start=NINE.replace(tzinfo=None))) == ["start"]


def test_nobody_books_a_retired_microscope(user, staff):
    microscope = MicroscopeFactory(status="retired")
    for actor in (user, staff):
        assert refused(book, actor, microscope)["microscope"] == [
            f"{microscope} is retired. Choose another microscope."
        ]
    assert list(refused(book, staff, microscope, kind="maintenance")) == ["microscope"]


def test_in_maintenance_only_staff_book_and_only_upkeep(user, staff):
    microscope = MicroscopeFactory(status="maintenance", status_note="Vacuum leak.")
    assert refused(book, user, microscope)["microscope"] == [
        f"{microscope} is in maintenance (Vacuum leak). Choose another microscope or ask the staff."
    ]
    assert list(refused(book, staff, microscope)) == ["microscope"]
    assert book(staff, microscope, kind="downtime").kind == "downtime"


@pytest.mark.parametrize("kind", ["slot", "downtime", "maintenance", "special"])
def test_other_types_are_for_staff(user, staff, kind):
    assert list(refused(book, user, kind=kind)) == ["kind"]
    assert book(staff, kind=kind).kind == kind


def test_owner_is_oneself_or_of_ones_labs(user, staff, lab, colleague):
    stranger = UserFactory(first_name="Nobody", last_name="Elsewhere")
    errors = refused(book, user, owner=stranger)
    assert list(errors) == ["owner"]
    assert "Elsewhere" not in str(errors)
    assert book(lab.pi, owner=colleague).owner == colleague
    assert book(colleague, owner=lab.pi).owner == lab.pi
    assert book(staff, owner=stranger).owner == stranger


def test_nobody_books_for_an_account_out_of_use(staff):
    assert list(refused(book, staff, owner=UserFactory(is_active=False))) == ["owner"]
    assert list(refused(book, staff, owner=ServiceUserFactory())) == ["owner"]


def test_operator_is_of_ones_labs_or_staff(user, staff):
    assert list(refused(book, user, operator=UserFactory())) == ["operator"]
    assert book(user, operator=staff).operator == staff


def test_lab_is_one_of_the_owners_and_of_the_actors(user, staff, lab, colleague):
    other = LabFactory()
    MembershipFactory(lab=other, user=colleague)
    assert list(refused(book, user, lab=lab)) == ["lab"]
    assert list(refused(book, lab.pi, owner=colleague, lab=other)) == ["lab"]
    assert book(lab.pi, owner=colleague, lab=lab).lab == lab
    assert book(staff, owner=user, lab=other).lab == other


def test_application_is_an_active_one_of_ones_labs(lab, staff):
    elsewhere, mine, closed = ApplicationFactory(), ApplicationFactory(), ApplicationFactory(status="closed")
    mine.labs.add(lab)
    closed.labs.add(lab)
    for application in (elsewhere, closed):
        assert list(refused(book, lab.pi, application=application)) == ["application"]
    assert book(lab.pi, application=mine).application == mine
    assert list(refused(book, staff, application=elsewhere)) == ["application"]
    knowingly = book(staff, application=elsewhere, override={"application_gives_access"})
    assert (knowingly.application, knowingly.overridden) == (elsewhere, ["application_gives_access"])


def test_whom_nobody_may_add_is_refused_by_the_rules_name(lab):
    with pytest.raises(ValidationError) as refusal:
        book(lab.pi, collaborators=[UserFactory()])
    assert rules.broken_rules(refusal.value) == {"collaborators_are_known_to_actor"}


def test_collaborators_are_of_ones_labs_unless_staff_add_them(lab, staff, colleague):
    stranger = UserFactory()
    assert list(refused(book, lab.pi, collaborators=[colleague, stranger])) == ["collaborators"]
    assert not Booking.objects.exists()
    assert book(staff, collaborators=[stranger]).collaborators.get() == stranger
    assert list(refused(book, staff, collaborators=[ServiceUserFactory()])) == ["collaborators"]


def test_every_broken_rule_is_told_at_once(user):
    errors = refused(
        book, user, MicroscopeFactory(status="retired"), owner=UserFactory(), end=NINE, kind="slot"
    )
    assert set(errors) == {"microscope", "owner", "end", "kind"}


def test_a_text_that_is_too_long_is_told_at_its_field(user):
    assert list(refused(book, user, title="x" * 121)) == ["title"]


@pytest.mark.django_db(transaction=True)
def test_eight_at_once_give_one_booking_and_seven_clear_errors(tmp_path):
    microscope = MicroscopeFactory()
    people = UserFactory.create_batch(8)

    def attempt(n):
        shift = datetime.timedelta(minutes=10 * n)
        return booking_create(
            actor=people[n], microscope=microscope, start=NINE + shift, end=NINE + shift + 2 * HOUR
        )

    with shared_database(tmp_path):
        results = at_once(8, attempt)
        assert in_thread(Booking.objects.count) == 1
    errors = [result for result in results if isinstance(result, Exception)]
    assert len(errors) == 7
    assert {type(error) for error in errors} == {ValidationError}
    for error in errors:
        (message,) = error.messages
        assert message.startswith(f"{microscope} is already booked from {DAY} ")
        assert message.endswith((" Choose a later start.", " Choose an earlier end."))


@pytest.mark.django_db(transaction=True)
def test_two_moved_onto_each_other_at_once_leave_one_moved(tmp_path):
    microscope = MicroscopeFactory()
    bookings = [
        BookingFactory(microscope=microscope, start=NINE + n * ONE_DAY, end=NINE + n * ONE_DAY + HOUR)
        for n in (1, 2)
    ]

    def move(n):
        return booking_update(booking=bookings[n], actor=bookings[n].owner, start=NINE, end=NINE + HOUR)

    with shared_database(tmp_path):
        results = at_once(2, move)
        assert in_thread(Booking.objects.filter(start=NINE).count) == 1
    assert sorted(isinstance(result, ValidationError) for result in results) == [False, True]


# -- changing ----------------------------------------------------------------------------------------------


def test_only_what_is_named_is_changed(user):
    booking = book(user, title="Old")
    Booking.objects.update(description="Written by another meanwhile")
    booking_update(booking=booking, actor=user, title="New")
    booking.refresh_from_db()
    assert (booking.title, booking.description) == ("New", "Written by another meanwhile")
    assert not AuditEntry.objects.exists()


def test_what_staff_change_is_kept(user, staff):
    booking = book(user, title="Old")
    friend = UserFactory(first_name="Grace", last_name="Hopper")
    booking_update(booking=booking, actor=staff, title="New", end=booking.end, collaborators=[friend])
    entry = AuditEntry.objects.get()
    assert (entry.actor, entry.action, entry.target_id) == (staff, "booking changed", str(booking.pk))
    assert entry.details == {"title": ["Old", "New"], "collaborators": [[], ["Grace Hopper"]]}


def test_a_booking_may_be_moved_but_not_onto_another(user):
    booking = book(user)
    BookingFactory(microscope=booking.microscope, start=NINE + 6 * HOUR, end=NINE + 8 * HOUR)
    booking_update(booking=booking, actor=user, start=NINE + 2 * HOUR, end=NINE + 6 * HOUR)
    assert list(refused(booking_update, booking=booking, actor=user, end=NINE + 7 * HOUR)) == ["end"]


def test_shortening_is_possible_on_a_microscope_out_of_service_extending_is_not(user):
    booking = book(user)
    booking.microscope.status = "maintenance"
    booking.microscope.save()
    booking_update(booking=booking, actor=user, end=NINE + HOUR, title="Shorter")
    assert list(refused(booking_update, booking=booking, actor=user, end=NINE + 2 * HOUR)) == ["microscope"]


def test_a_booking_made_by_staff_can_be_corrected_by_its_owner(user, staff):
    """What staff chose and the owner could not is left alone, not complained about."""
    booking = book(staff, owner=user, lab=LabFactory(), operator=UserFactory(), kind="special")
    booking_update(booking=booking, actor=user, title="Mine")
    assert list(refused(booking_update, booking=booking, actor=user, operator=UserFactory())) == ["operator"]


def test_a_cancelled_booking_cannot_be_changed(user):
    booking = booking_cancel(booking=book(user), actor=user)
    assert "cancelled" in refused(booking_update, booking=booking, actor=user, title="x")["__all__"][0]


def test_a_booking_with_sessions_stays_on_its_microscope(staff):
    booking = FinishedSessionFactory().booking
    other = MicroscopeFactory()
    assert list(refused(booking_update, booking=booking, actor=staff, microscope=other)) == ["microscope"]
    assert list(refused(booking_update, booking=booking, actor=staff, kind="slot")) == ["kind"]
    booking_update(booking=booking, actor=staff, end=booking.end + HOUR)


def test_unknown_fields_are_an_error_of_the_caller(user):
    booking = book(user)
    with pytest.raises(TypeError, match="creator"):
        booking_update(booking=booking, actor=user, creator=user)


# -- cancelling --------------------------------------------------------------------------------------------


def test_cancelling_keeps_who_when_and_why(user, staff):
    booking = booking_cancel(booking=book(user), actor=staff, reason=" Vacuum leak ")
    booking.refresh_from_db()
    assert booking.is_cancelled
    assert (booking.cancelled_by, booking.cancel_reason) == (staff, "Vacuum leak")
    entry = AuditEntry.objects.get()
    assert (entry.actor, entry.action, entry.details["reason"]) == (staff, "booking cancelled", "Vacuum leak")


def test_cancelling_for_others_needs_a_reason(user, staff):
    booking = book(user)
    assert list(refused(booking_cancel, booking=booking, actor=staff)) == ["reason"]
    assert list(refused(booking_cancel, booking=booking, actor=staff, reason="x" * 301)) == ["reason"]
    booking_cancel(booking=booking, actor=user)
    made_for_another = book(staff, owner=user)
    assert list(refused(booking_cancel, booking=made_for_another, actor=staff)) == ["reason"]


def test_cancelling_twice_is_told(user):
    booking = booking_cancel(booking=book(user), actor=user)
    assert "already" in refused(booking_cancel, booking=booking, actor=user)["__all__"][0]


def test_a_booking_whose_sessions_run_cannot_be_cancelled(staff):
    session = SessionFactory()
    errors = refused(booking_cancel, booking=session.booking, actor=staff, reason="x", keep_sessions=True)
    assert session.name in errors["__all__"][0]


def test_a_booking_with_finished_sessions_is_not_cancelled_silently(staff):
    session = FinishedSessionFactory()
    assert "__all__" in refused(booking_cancel, booking=session.booking, actor=staff, reason="x")
    booking_cancel(booking=session.booking, actor=staff, reason="Wrong owner", keep_sessions=True)
    assert AuditEntry.objects.get().details["sessions kept"] == [session.name]
    session.refresh_from_db()
