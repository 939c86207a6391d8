"""Mails that must not hold anything up and must not get lost, without a broker.

`queue` writes the mail into the database, in the caller's transaction: undone with it, kept with it. After the
commit a thread of the server sends what is due; a mail server that fails is logged and tried again, first after a
minute, then ever more rarely, for two days. `manage.py send_mail_queue`, run every few minutes, does the same for
what a server that went down left behind. A mail may in rare cases (a crash between sending and noting it) come
twice; it is not lost.
"""

import datetime
import logging
import threading
from email.mime.nonmultipart import MIMENonMultipart
from email.utils import parseaddr

from django.conf import settings
from django.core.mail import EmailMessage, get_connection
from django.core.mail.message import SafeMIMEText
from django.db import connection, transaction
from django.utils import timezone

from people.models import OutgoingMail, User

logger = logging.getLogger(__name__)

CLAIMED_FOR = datetime.timedelta(minutes=5)
FIRST_PAUSE = datetime.timedelta(minutes=1)
LONGEST_PAUSE = datetime.timedelta(hours=4)
GIVEN_UP_AFTER = datetime.timedelta(days=2)
KEPT_FOR = datetime.timedelta(days=30)
SUBJECT_LENGTH = OutgoingMail._meta.get_field("subject").max_length


def absolute(path: str) -> str:
    """The address of a page as a mail names it."""
    return f"{settings.SITE_URL}{path}"


def sender_address() -> str:
    """The bare address that mails come from."""
    return parseaddr(settings.DEFAULT_FROM_EMAIL)[1]


def queue(*, to: User, subject: str, body: str, calendar: str = "") -> OutgoingMail | None:
    """Write a mail to the person in the caller's transaction; None where they have no address or account any more.

    `calendar` is an iCalendar text, attached as an .ics file with the METHOD that it names.
    """
    if not to.email or not to.is_active or to.is_service:
        return None
    mail = OutgoingMail.objects.create(
        recipient=to,
        address=to.email,
        subject=" ".join(subject.split())[:SUBJECT_LENGTH],
        body=body,
        calendar=calendar,
    )
    transaction.on_commit(send_soon, robust=True)
    return mail


# -- Sending ---------------------------------------------------------------------------------------------------
def send_due() -> tuple[int, int]:
    """Try every mail that is due, oldest first; answers how many were sent and how many failed."""
    sent = failed = 0
    backend = None
    while (mail := _claim()) is not None:
        backend = backend or get_connection()
        try:
            _message(mail, backend).send()
        except Exception as error:  # Whatever a mail server or a strange address comes up with.
            failed += 1
            _put_off(mail, error)
            backend = None  # The connection may be broken; the next mail gets a new one.
        else:
            sent += 1
            OutgoingMail.objects.filter(pk=mail.pk).update(
                sent_at=timezone.now(),
                due_at=None,
                attempts=mail.attempts + 1,
                error="",
                body="",
                calendar="",
            )
    return sent, failed


def forget_old() -> int:
    """Remove what was sent or given up a month ago; answers how many."""
    old = OutgoingMail.objects.filter(due_at=None, created_at__lt=timezone.now() - KEPT_FOR)
    return old.delete()[0]


def _claim() -> OutgoingMail | None:
    """The next mail that is due, put off at once, so that no other process sends it too."""
    while True:
        now = timezone.now()
        mail = OutgoingMail.objects.filter(due_at__lte=now).order_by("due_at", "pk").first()
        if mail is None:
            return None
        # Whose update finds the row as it was has the mail.
        if OutgoingMail.objects.filter(pk=mail.pk, due_at=mail.due_at).update(due_at=now + CLAIMED_FOR):
            return mail


def _put_off(mail: OutgoingMail, error: Exception) -> None:
    attempts = mail.attempts + 1
    now = timezone.now()
    text = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    if now - mail.created_at > GIVEN_UP_AFTER:
        # Whatever it told is old by now, and an invitation's link must not lie about for ever.
        changes = {"due_at": None, "body": "", "calendar": ""}
        logger.error("Gave up on the mail %s to %s: %s", mail.pk, mail.address, text)
    else:
        changes = {"due_at": now + min(FIRST_PAUSE * 2 ** min(attempts - 1, 20), LONGEST_PAUSE)}
        logger.warning(
            "The mail %s to %s could not be sent and is tried again: %s", mail.pk, mail.address, text
        )
    OutgoingMail.objects.filter(pk=mail.pk).update(attempts=attempts, error=text, **changes)


def _message(mail: OutgoingMail, backend) -> EmailMessage:
    message = EmailMessage(
        subject=mail.subject,
        body=mail.body,
        to=[mail.address],
        connection=backend,
        headers={"Auto-Submitted": "auto-generated"},
    )
    if mail.calendar:
        message.attach(_calendar_part(mail.calendar))
    return message


def _calendar_part(text: str) -> MIMENonMultipart:
    """RFC 6047: the METHOD of the calendar stands in the part's type too, or mail programs do not act on it."""
    part = SafeMIMEText(text, "calendar", "utf-8")
    method = next((line[7:].strip() for line in text.splitlines() if line.startswith("METHOD:")), "")
    if method:
        part.set_param("method", method)
    part.add_header("Content-Disposition", "attachment", filename="booking.ics")
    return part


# -- The server's thread ---------------------------------------------------------------------------------------
_lock = threading.Lock()
_wanted = threading.Event()
_thread: threading.Thread | None = None


def send_soon() -> None:
    """Let this process's thread send what is due; answers at once."""
    global _thread
    if not settings.SEND_MAIL_AT_ONCE:
        return
    with _lock:
        _wanted.set()
        if _thread is None or not _thread.is_alive():
            _thread = threading.Thread(target=_work, name="outgoing-mail", daemon=True)
            _thread.start()


def wait_until_sent(seconds: float = 60) -> None:
    """For a command that is about to end: let the thread, if there is one, send what it has begun."""
    with _lock:
        thread = _thread
    if thread is not None:
        thread.join(seconds)


def _work() -> None:
    global _thread
    try:
        while True:
            _wanted.clear()
            send_due()
            with _lock:
                if not _wanted.is_set():
                    _thread = None
                    return
    except Exception:
        logger.exception("The thread that sends mails stopped; send_mail_queue sends the rest.")
    finally:
        connection.close()
