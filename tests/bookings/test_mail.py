"""Who is told of a booking by e-mail, what the mail says and what its .ics does."""

import datetime
from zoneinfo import ZoneInfo

import icalendar
import pytest
from django.core.management import call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from bookings import mail as booking_mail
from bookings import notices
from bookings.models import Booking, BookingReminder
from bookings.services import booking_cancel, booking_create, booking_update
from people import outbox
from people.models import OutgoingMail, Preferences
from tests.factories import (
    ApplicationFactory,
    BookingFactory,
    LabFactory,
    MembershipFactory,
    MicroscopeFactory,
    UserFactory,
)

pytestmark = pytest.mark.django_db
HOUR = datetime.timedelta(hours=1)
DAY = datetime.timedelta(days=1)


@pytest.fixture(autouse=True)
def _site(settings):
    settings.SITE_URL = "https://em.example.org"
    settings.TIME_ZONE = "Europe/Stockholm"
    settings.FACILITY_NAME = "Cryo-EM North"
    settings.DEFAULT_FROM_EMAIL = "EMhub <emhub@em.example.org>"
    with timezone.override(ZoneInfo("Europe/Stockholm")):
        yield


@pytest.fixture
def nine():
    """Nine in the morning, in a week."""
    local = timezone.localtime() + 7 * DAY
    return local.replace(hour=9, minute=0, second=0, microsecond=0)


@pytest.fixture
def lab():
    return LabFactory(name="Hall lab")


@pytest.fixture
def ada(lab):
    return MembershipFactory(
        lab=lab, user=UserFactory(first_name="Ada", last_name="Byron", email="ada@example.org")
    ).user


@pytest.fixture
def krios():
    return MicroscopeFactory(name="Krios 1")


@pytest.fixture
def booked(staff, ada, krios, lab, nine):
    booking = booking_create(
        actor=staff, owner=ada, microscope=krios, start=nine, end=nine + 9 * HOUR, lab=lab, title="Ribosome"
    )
    OutgoingMail.objects.all().delete()
    return booking


def told():
    """Addresses to which a mail waits, in order."""
    return sorted(OutgoingMail.objects.values_list("address", flat=True))


def only() -> OutgoingMail:
    return OutgoingMail.objects.get()


def event_of(mail):
    calendar = icalendar.Calendar.from_ical(mail.calendar)
    (event,) = calendar.walk("VEVENT")
    return str(calendar["METHOD"]), event


# -- Creation --------------------------------------------------------------------------------------------------
def test_the_owner_is_told_of_a_booking_that_staff_made(staff, ada, krios, lab, nine):
    booking = booking_create(
        actor=staff, owner=ada, microscope=krios, start=nine, end=nine + 9 * HOUR, lab=lab, title="Ribosome"
    )
    mail = only()
    assert mail.address == "ada@example.org"
    assert mail.subject == f"Booked: Krios 1, {nine:%a} {nine.day} {nine:%b %Y} 09:00–18:00"
    assert mail.body.startswith(f"Dear Ada Byron,\n\n{staff} has booked Krios 1 for you:\n")
    assert "Title: Ribosome" in mail.body
    assert "Lab: Hall lab" in mail.body
    assert f"https://em.example.org/bookings/{booking.pk}/" in mail.body
    assert "Times are the facility's (Europe/Stockholm)." in mail.body
    assert "https://em.example.org/people/me/" in mail.body
    assert "&" not in mail.body


def test_what_people_do_themselves_is_confirmed_with_the_file(ada, krios, nine):
    booking = booking_create(actor=ada, microscope=krios, start=nine, end=nine + HOUR)
    mail = only()
    assert "\nYou have booked Krios 1:\n" in mail.body
    assert "METHOD:REQUEST" in mail.calendar
    OutgoingMail.objects.all().delete()
    booking_update(booking=booking, actor=ada, title="Other")
    mail = only()
    assert "\nYou have changed a booking of yours:\n" in mail.body
    assert "METHOD:REQUEST" in mail.calendar
    OutgoingMail.objects.all().delete()
    booking_cancel(booking=booking, actor=ada)
    mail = only()
    assert "\nYou have cancelled a booking of yours:\n" in mail.body
    assert "METHOD:CANCEL" in mail.calendar


def test_confirmations_can_be_switched_off_by_themselves(ada, krios, nine):
    Preferences.objects.create(user=ada, mail_own=False)
    booking = booking_create(actor=ada, microscope=krios, start=nine, end=nine + HOUR)
    booking_update(booking=booking, actor=ada, title="Other")
    booking_cancel(booking=booking, actor=ada)
    assert told() == []


def test_who_hands_their_own_booking_on_has_it_taken_out_of_their_calendar(ada, krios, lab, nine):
    grace = MembershipFactory(lab=lab, user=UserFactory(first_name="Grace", last_name="Hopper")).user
    booking = booking_create(actor=ada, microscope=krios, start=nine, end=nine + HOUR, lab=lab)
    OutgoingMail.objects.all().delete()
    booking_update(booking=booking, actor=ada, owner=grace)
    mine = OutgoingMail.objects.get(recipient=ada)
    assert "You have handed a booking of yours to Grace Hopper:" in mine.body
    assert "METHOD:CANCEL" in mine.calendar


@pytest.mark.parametrize("kind", ["slot", "downtime", "maintenance"])
def test_who_keeps_the_facilitys_calendar_gets_no_mail_for_each_entry(staff, ada, krios, nine, kind):
    booking_create(actor=staff, microscope=krios, kind=kind, start=nine, end=nine + HOUR)
    assert told() == []
    booking_create(actor=staff, owner=ada, microscope=krios, start=nine + DAY, end=nine + DAY + HOUR)
    assert told() == ["ada@example.org"]


def test_owner_and_operator_are_told_and_colleagues_and_strangers_are_not(staff, ada, krios, lab, nine):
    operator = UserFactory(email="grace@example.org")
    MembershipFactory(lab=lab)
    UserFactory()
    booking_create(
        actor=staff, owner=ada, operator=operator, microscope=krios, start=nine, end=nine + HOUR, lab=lab
    )
    assert told() == ["ada@example.org", "grace@example.org"]
    body = OutgoingMail.objects.get(recipient=operator).body
    assert "has booked Krios 1 for Ada Byron, with you as operator:" in body


def test_what_is_over_is_told_to_nobody(staff, ada, krios):
    start = timezone.now() - 3 * DAY
    booking_create(actor=staff, owner=ada, microscope=krios, start=start, end=start + HOUR)
    assert told() == []


def test_a_mail_that_cannot_be_written_does_not_undo_the_booking(
    staff, ada, krios, nine, monkeypatch, caplog
):
    def fail(*args, **fields):
        raise RuntimeError("no such template")

    monkeypatch.setattr(booking_mail, "render_to_string", fail)
    booking = booking_create(actor=staff, owner=ada, microscope=krios, start=nine, end=nine + HOUR)
    assert Booking.objects.filter(pk=booking.pk).exists()
    assert told() == []
    assert "no such template" in caplog.text


def test_who_books_for_themselves_with_an_operator_books_for_nobody_else(ada, krios, lab, nine):
    operator = MembershipFactory(lab=lab, user=UserFactory(email="grace@example.org")).user
    booking_create(
        actor=ada, operator=operator, microscope=krios, start=nine, end=nine + HOUR, lab=lab, title="x"
    )
    body = OutgoingMail.objects.get(recipient=operator).body
    assert "\nAda Byron has booked Krios 1, with you as operator:\n" in body


# -- Change ----------------------------------------------------------------------------------------------------
def test_a_change_says_what_was_and_what_is(staff, booked):
    booking_update(
        booking=booked, actor=staff, start=booked.start + HOUR, end=booked.end + HOUR, title="Spliceosome"
    )
    mail = only()
    assert mail.subject.startswith("Changed: Krios 1, ")
    assert f"{staff} has changed a booking of yours:" in mail.body
    assert "Title: Spliceosome (was Ribosome)" in mail.body
    assert "10:00–19:00 (was " in mail.body
    assert "09:00–18:00)" in mail.body


def test_of_a_confidential_application_mails_tell_its_code_alone(staff, ada, krios, lab, nine):
    secret = ApplicationFactory(code="APP-7", title="Novel kinase", is_confidential=True)
    secret.labs.add(lab)
    booking = booking_create(
        actor=staff,
        owner=ada,
        microscope=krios,
        start=nine,
        end=nine + HOUR,
        lab=lab,
        application=secret,
        title="Kinase with drug",
        description="From the company",
    )
    booking_update(booking=booking, actor=staff, title="Kinase without", description="None")
    booking_cancel(booking=booking, actor=staff, reason="Broken")
    created, changed, cancelled = OutgoingMail.objects.order_by("pk")
    for mail in (created, changed, cancelled):
        for secret in ("inase", "company"):
            assert secret not in mail.subject + mail.body + mail.calendar
    assert "Application: APP-7\n" in created.body
    assert "Title: is another now" in changed.body


def test_a_change_that_concerns_nobody_is_not_mailed(staff, booked):
    booking_update(booking=booked, actor=staff, title="Ribosome")
    booking_update(booking=booked, actor=staff, collaborators=[])
    assert told() == []


def test_collaborators_are_told_when_they_are_named_and_when_they_are_not_any_more(staff, booked):
    grace = UserFactory(first_name="Grace", last_name="H", email="grace@example.org")
    booking_update(booking=booked, actor=staff, collaborators=[grace])
    assert told() == ["ada@example.org", "grace@example.org"]
    named = OutgoingMail.objects.get(recipient=grace)
    assert f"{staff} has named you on a booking of Ada Byron:" in named.body
    assert event_of(named)[0] == "REQUEST"
    assert "Collaborators: Grace H (was none)" in OutgoingMail.objects.get(address="ada@example.org").body
    OutgoingMail.objects.all().delete()
    booking_update(booking=booked, actor=staff, collaborators=[], start=booked.start + HOUR)
    lost = OutgoingMail.objects.get(recipient=grace)
    assert "you are not any more:" in lost.body
    method, event = event_of(lost)
    assert (method, event["DTSTART"].dt) == ("CANCEL", booked.start)


@pytest.mark.parametrize(
    ("preference", "act"),
    [
        ("mail_changed", lambda booking, staff: booking_update(booking=booking, actor=staff, title="x")),
        ("mail_cancelled", lambda booking, staff: booking_cancel(booking=booking, actor=staff, reason="x")),
        ("mail_day_before", lambda booking, staff: booking_mail.send_reminders()),
        (
            "mail_created",
            lambda booking, staff: booking_create(
                actor=staff,
                owner=booking.owner,
                collaborators=booking.collaborators.all(),
                microscope=MicroscopeFactory(),
                start=booking.start,
                end=booking.end,
            ),
        ),
    ],
)
def test_collaborators_are_told_as_they_have_chosen_themselves(staff, ada, tomorrow, preference, act):
    grace = UserFactory(email="grace@example.org")
    tomorrow.collaborators.add(grace)
    Preferences.objects.create(user=ada, **dict.fromkeys(Preferences.MAILS, False))
    act(tomorrow, staff)
    assert told() == ["grace@example.org"]
    OutgoingMail.objects.all().delete()
    Booking.objects.exclude(pk=tomorrow.pk).update(cancelled_at=timezone.now())
    BookingReminder.objects.all().delete()
    Booking.objects.filter(pk=tomorrow.pk).update(cancelled_at=None, title="")
    Preferences.objects.create(user=grace, **{preference: False})
    act(Booking.objects.get(pk=tomorrow.pk), staff)
    assert told() == []


def test_mails_write_times_as_their_reader_has_chosen(staff, ada, booked):
    Preferences.objects.create(user=ada, hour_cycle="h12")
    grace = UserFactory(email="grace@example.org")
    booked.collaborators.add(grace)
    booking_update(booking=booked, actor=staff, start=booked.start + HOUR)
    mail = OutgoingMail.objects.get(address="ada@example.org")
    assert "10:00 am–6:00 pm" in mail.subject
    assert "(was " in mail.body
    assert "9:00 am–6:00 pm)" in mail.body
    assert "10:00–18:00" in OutgoingMail.objects.get(recipient=grace).subject


def test_handing_over_tells_both_and_takes_it_out_of_the_former_owners_calendar(staff, booked, lab):
    grace = MembershipFactory(
        lab=lab, user=UserFactory(first_name="Grace", last_name="H", email="g@example.org")
    ).user
    booking_update(booking=booked, actor=staff, owner=grace, title="A secret", start=booked.start + HOUR)
    assert told() == ["ada@example.org", "g@example.org"]
    gained = OutgoingMail.objects.get(recipient=grace)
    assert f"{staff} has handed a booking to you:" in gained.body
    assert event_of(gained)[0] == "REQUEST"
    lost = OutgoingMail.objects.get(address="ada@example.org")
    assert lost.subject.startswith("No longer yours: Krios 1")
    assert f"{staff} has handed a booking of yours to Grace H:" in lost.body
    method, event = event_of(lost)
    assert (method, event["STATUS"]) == ("CANCEL", "CANCELLED")
    # How it goes on is not the former owner's to know.
    assert "A secret" not in lost.body + lost.calendar
    assert event["DTSTART"].dt == booked.start


# -- Cancellation ----------------------------------------------------------------------------------------------
def test_a_cancellation_gives_the_reason_and_takes_the_event_away(staff, booked):
    booking_cancel(booking=booked, actor=staff, reason="The <gun> is broken")
    mail = only()
    assert mail.subject.startswith("Cancelled: Krios 1")
    assert "Reason: The <gun> is broken" in mail.body
    method, event = event_of(mail)
    assert (method, event["STATUS"]) == ("CANCEL", "CANCELLED")


# -- Choices ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("preference", "act"),
    [
        ("mail_changed", lambda booking, staff: booking_update(booking=booking, actor=staff, title="x")),
        ("mail_cancelled", lambda booking, staff: booking_cancel(booking=booking, actor=staff, reason="x")),
        (
            "mail_created",
            lambda booking, staff: booking_create(
                actor=staff,
                owner=booking.owner,
                microscope=booking.microscope,
                start=booking.end,
                end=booking.end + HOUR,
            ),
        ),
    ],
)
def test_each_kind_can_be_switched_off_by_itself(booked, staff, ada, preference, act):
    Preferences.objects.create(user=ada, **{preference: False})
    act(booked, staff)
    assert told() == []
    Preferences.objects.update(**dict.fromkeys(Preferences.MAILS, False) | {preference: True})
    booked.microscope = MicroscopeFactory()
    again = booking_create(actor=ada, microscope=booked.microscope, start=booked.start, end=booked.end)
    act(again, staff)
    assert told() == ["ada@example.org"]


@pytest.mark.parametrize("change", [{"is_active": False}, {"email": ""}])
def test_who_cannot_be_reached_is_left_out(staff, booked, ada, change):
    for name, value in change.items():
        setattr(ada, name, value)
    ada.save()
    booking_cancel(booking=booked, actor=staff, reason="x")
    assert told() == []


# -- The event -------------------------------------------------------------------------------------------------
def test_the_event_is_the_booking_and_later_mails_update_it(staff, booked, monkeypatch):
    booking_update(booking=booked, actor=staff, title="Ribosome, again; and\nagain")
    assert "puts this into your calendar, or updates it there." in only().body
    method, first = event_of(only())
    assert method == "REQUEST"
    assert first["UID"] == f"booking-{booked.pk}@em.example.org"
    assert first["DTSTART"].dt == booked.start
    assert first["DTEND"].dt == booked.end
    assert first["DTSTART"].dt.utcoffset() == datetime.timedelta()
    assert first["SUMMARY"].startswith("Krios 1: Ribosome, again; and")
    assert first["ATTENDEE"] == "mailto:ada@example.org"
    assert first["ORGANIZER"] == "mailto:emhub@em.example.org"
    OutgoingMail.objects.all().delete()
    later = timezone.now() + datetime.timedelta(seconds=0.3)
    monkeypatch.setattr(timezone, "now", lambda: later)
    booking_cancel(booking=booked, actor=staff, reason="x")
    assert "The attached file takes this out of your calendar." in only().body
    _, second = event_of(only())
    assert second["UID"] == first["UID"]
    assert second["SEQUENCE"] > first["SEQUENCE"]


def test_several_bookings_are_one_mail_with_all_events(staff, ada, krios, nine):
    bookings = [
        BookingFactory(microscope=krios, owner=ada, start=nine + n * DAY, end=nine + n * DAY + HOUR)
        for n in range(5)
    ]
    booking_mail.on_notice(notices.Notice(notices.CREATED, staff, bookings))
    mail = only()
    assert mail.subject.startswith("Booked: Krios 1, 5 bookings from ")
    assert "has booked Krios 1 for you, 5 times:" in mail.body
    calendar = icalendar.Calendar.from_ical(mail.calendar)
    assert str(calendar["METHOD"]) == "PUBLISH"
    events = calendar.walk("VEVENT")
    assert [event["DTSTART"].dt for event in events] == [booking.start for booking in bookings]
    assert not any("ATTENDEE" in event for event in events)


def test_a_mail_costs_the_same_for_one_booking_and_for_many(staff, ada, krios, lab, nine):
    def cost(count, shift):
        for n in range(count):
            start = nine + (n + shift) * DAY
            BookingFactory(microscope=krios, owner=ada, lab=lab, start=start, end=start + HOUR)
        bookings = list(Booking.objects.with_people().filter(start__gte=nine + shift * DAY))
        with CaptureQueriesContext(connection) as queries:
            booking_mail.on_notice(notices.Notice(notices.CREATED, staff, bookings))
        return len(queries)

    assert cost(1, 0) == cost(20, 1) <= 4


# -- The day before --------------------------------------------------------------------------------------------
@pytest.fixture
def tomorrow(ada, krios):
    """Begins in twenty hours, booked a week ago."""
    start = timezone.now() + 20 * HOUR
    booking = BookingFactory(microscope=krios, owner=ada, start=start, end=start + HOUR)
    Booking.objects.update(created_at=timezone.now() - 7 * DAY)
    booking.refresh_from_db()
    return booking


def test_a_reminder_comes_once_and_again_for_a_new_start(tomorrow, capsys):
    call_command("send_reminders")
    call_command("send_reminders")
    assert "Reminded of 1 booking.\nReminded of 0 bookings.\n" in capsys.readouterr().out
    mail = only()
    assert mail.subject.startswith("Reminder: Krios 1, ")
    assert "Your time on Krios 1 begins within a day:" in mail.body
    assert event_of(mail)[0] == "REQUEST"
    Booking.objects.update(start=tomorrow.start + HOUR, end=tomorrow.end + HOUR)
    assert booking_mail.send_reminders() == 1
    assert OutgoingMail.objects.count() == 2


def test_owner_and_operator_are_reminded_not_who_booked_it(tomorrow, staff):
    operator = UserFactory(email="op@example.org")
    Booking.objects.update(operator=operator, creator=staff)
    booking_mail.send_reminders()
    assert told() == ["ada@example.org", "op@example.org"]
    assert (
        "You operate Krios 1 for Ada Byron within a day:" in OutgoingMail.objects.get(recipient=operator).body
    )


@pytest.mark.parametrize(
    "change",
    [
        lambda now: {"cancelled_at": now},
        lambda now: {"start": now + 25 * HOUR, "end": now + 26 * HOUR},
        lambda now: {"start": now - HOUR},
        lambda now: {"kind": Booking.Kind.DOWNTIME},
        lambda now: {"kind": Booking.Kind.SLOT},
        lambda now: {"created_at": now - HOUR},  # Booked today for tomorrow.
    ],
)
def test_nobody_is_reminded_of(tomorrow, change):
    Booking.objects.update(**change(timezone.now()))
    assert booking_mail.send_reminders() == 0
    assert told() == []
    assert not BookingReminder.objects.exists()


def test_the_reminder_can_be_switched_off(tomorrow, ada):
    Preferences.objects.create(user=ada, mail_day_before=False)
    booking_mail.send_reminders()
    assert told() == []


# -- On its way ------------------------------------------------------------------------------------------------
def test_the_mail_leaves_as_text_with_the_file(staff, booked, mailoutbox):
    booking_cancel(booking=booked, actor=staff, reason="Broken")
    outbox.send_due()
    (message,) = mailoutbox
    types = [part.get_content_type() for part in message.message().walk()]
    assert types == ["multipart/mixed", "text/plain", "text/calendar"]
    part = list(message.message().walk())[-1]
    assert part.get_param("method") == "CANCEL"
    icalendar.Calendar.from_ical(part.get_payload(decode=True))


@pytest.mark.django_db(transaction=True)
def test_a_refused_booking_sends_nothing(staff):
    ada, krios = UserFactory(), MicroscopeFactory()
    start = timezone.now() + DAY
    booking_create(actor=ada, microscope=krios, start=start, end=start + HOUR)
    OutgoingMail.objects.all().delete()
    with pytest.raises(Exception, match="booked"):
        booking_create(actor=staff, owner=ada, microscope=krios, start=start, end=start + HOUR)
    assert told() == []
