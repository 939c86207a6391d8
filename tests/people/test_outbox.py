"""Mails wait in the database until they are sent, whatever the mail server does."""

import datetime
import smtplib
import threading

import pytest
from django.core import mail
from django.core.exceptions import ImproperlyConfigured
from django.core.mail.backends.locmem import EmailBackend
from django.core.management import call_command
from django.db import transaction
from django.utils import timezone

from emhub_site import env
from people import outbox
from people.models import OutgoingMail
from tests.concurrency import at_once
from tests.factories import ServiceUserFactory, UserFactory

pytestmark = pytest.mark.django_db
ICS = "BEGIN:VCALENDAR\r\nMETHOD:REQUEST\r\nEND:VCALENDAR\r\n"


class Refusing(EmailBackend):
    """A mail server that is down."""

    def send_messages(self, messages):
        raise smtplib.SMTPServerDisconnected("gone")


@pytest.fixture
def broken(settings):
    settings.EMAIL_BACKEND = f"{__name__}.Refusing"
    return settings


def make_due(row):
    OutgoingMail.objects.filter(pk=row.pk).update(due_at=timezone.now())


def test_a_mail_is_sent_once_and_its_text_forgotten():
    row = outbox.queue(
        to=UserFactory(email="ada@example.org"), subject="Booked:\n Krios", body="Text", calendar=ICS
    )
    assert outbox.send_due() == (1, 0)
    assert outbox.send_due() == (0, 0)
    (message,) = mail.outbox
    assert message.to == ["ada@example.org"]
    assert message.subject == "Booked: Krios"
    assert message.body == "Text"
    row.refresh_from_db()
    assert row.sent_at is not None
    assert (row.body, row.calendar, row.due_at) == ("", "", None)


def test_the_calendars_method_stands_in_the_parts_type():
    outbox.queue(to=UserFactory(), subject="Booked", body="Text", calendar=ICS)
    outbox.send_due()
    parts = list(mail.outbox[0].message().walk())
    part = next(part for part in parts if part.get_content_type() == "text/calendar")
    assert part.get_param("method") == "REQUEST"
    assert part.get_filename() == "booking.ics"
    assert part.get_payload(decode=True).decode() == ICS


@pytest.mark.parametrize(
    "maker", [lambda: UserFactory(email=""), lambda: UserFactory(is_active=False), ServiceUserFactory]
)
def test_whom_no_mail_can_reach_gets_none(maker):
    assert outbox.queue(to=maker(), subject="x", body="x") is None
    assert not OutgoingMail.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_a_mail_goes_with_the_transaction_that_was_undone():
    user = UserFactory()
    with transaction.atomic():
        outbox.queue(to=user, subject="x", body="x")
        transaction.set_rollback(True)
    assert not OutgoingMail.objects.exists()


def test_a_failing_server_puts_the_mail_off_ever_longer_and_it_comes_in_the_end(broken, settings):
    row = outbox.queue(to=UserFactory(), subject="x", body="Text")
    pauses = []
    for attempt in range(1, 4):
        make_due(row)
        assert outbox.send_due() == (0, 1)
        row.refresh_from_db()
        assert (row.attempts, row.sent_at) == (attempt, None)
        assert "SMTPServerDisconnected" in row.error
        pauses.append(row.due_at - timezone.now())
    assert pauses == sorted(pauses)
    assert pauses[2] > datetime.timedelta(minutes=3)
    assert outbox.send_due() == (0, 0)  # Not due yet.
    settings.EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"
    make_due(row)
    assert outbox.send_due() == (1, 0)
    assert mail.outbox[0].body == "Text"


def test_one_mail_that_fails_does_not_hold_up_the_others(monkeypatch):
    real = EmailBackend.send_messages

    def picky(self, messages):
        if messages[0].to == ["bad@example.org"]:
            raise smtplib.SMTPRecipientsRefused({"bad@example.org": (550, b"no such user")})
        return real(self, messages)

    monkeypatch.setattr(EmailBackend, "send_messages", picky)
    for address in ("bad@example.org", "good@example.org"):
        outbox.queue(to=UserFactory(email=address), subject="x", body="x")
    assert outbox.send_due() == (1, 1)
    assert [message.to for message in mail.outbox] == [["good@example.org"]]


def test_after_two_days_a_mail_is_given_up_and_its_text_forgotten(broken):
    row = outbox.queue(to=UserFactory(), subject="x", body="A link")
    OutgoingMail.objects.update(created_at=timezone.now() - datetime.timedelta(days=2, hours=1))
    outbox.send_due()
    row.refresh_from_db()
    assert (row.due_at, row.sent_at, row.body) == (None, None, "")
    assert row.error


def test_the_command_sends_and_clears_away_what_is_old(capsys):
    old = outbox.queue(to=UserFactory(), subject="old", body="x")
    outbox.send_due()
    OutgoingMail.objects.filter(pk=old.pk).update(created_at=timezone.now() - datetime.timedelta(days=31))
    outbox.queue(to=UserFactory(), subject="new", body="x")
    call_command("send_mail_queue")
    assert "Mails sent: 1." in capsys.readouterr().out
    assert [row.subject for row in OutgoingMail.objects.all()] == ["new"]


@pytest.mark.django_db(transaction=True)
def test_several_senders_at_once_send_every_mail_once():
    user = UserFactory()
    for number in range(12):
        outbox.queue(to=user, subject=f"{number}", body="x")
    assert sum(sent for sent, _ in at_once(4, lambda n: outbox.send_due())) == 12
    assert sorted(int(message.subject) for message in mail.outbox) == list(range(12))


@pytest.mark.django_db(transaction=True)
def test_the_server_sends_by_itself_after_the_commit(settings):
    settings.SEND_MAIL_AT_ONCE = True
    user = UserFactory()
    with transaction.atomic():
        outbox.queue(to=user, subject="x", body="x")
        assert mail.outbox == []
    for thread in threading.enumerate():
        if thread.name == "outgoing-mail":
            thread.join(30)
    assert len(mail.outbox) == 1


# -- Who reads of it -------------------------------------------------------------------------------------------
def test_staff_see_what_left_without_its_text_and_others_see_nothing(client, staff):
    outbox.queue(to=UserFactory(email="ada@example.org"), subject="Your account", body="secret link")
    address = f"/admin/people/outgoingmail/{OutgoingMail.objects.get().pk}/change/"
    client.force_login(staff)
    assert "ada@example.org" in client.get("/admin/people/outgoingmail/").text
    page = client.get(address)
    assert page.status_code == 200
    assert "secret link" not in page.text
    client.force_login(UserFactory())
    assert client.get(address).status_code in (302, 403)


# -- The site's address ----------------------------------------------------------------------------------------
def site_url(monkeypatch, value, **fields):
    monkeypatch.setenv("SITE_URL", value)
    return env.site_url("SITE_URL", **{"hosts": ["em.example.org"], "scheme": "https", "port": None} | fields)


def test_the_sites_address_is_what_is_set_or_the_first_host(monkeypatch):
    assert site_url(monkeypatch, "https://em.example.org/hub/") == "https://em.example.org/hub"
    assert site_url(monkeypatch, "", hosts=[".example.org", "em.example.org"]) == "https://em.example.org"
    assert site_url(monkeypatch, "", hosts=["*"], scheme="http", port=8000) == "http://localhost:8000"


@pytest.mark.parametrize("value", ["em.example.org", "ftp://em.example.org", "https://", "https://a/?x=1"])
def test_a_site_address_that_is_none_stops_the_start(monkeypatch, value):
    with pytest.raises(ImproperlyConfigured, match="SITE_URL"):
        site_url(monkeypatch, value)
