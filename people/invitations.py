"""The mail and the link by which an invited person sets the first password.

The link is Django's own of password resets: it works once, for PASSWORD_RESET_TIMEOUT, and no longer than until a
password is set.
"""

import logging
from smtplib import SMTPException

from django.conf import settings
from django.contrib.auth.tokens import default_token_generator
from django.core.exceptions import PermissionDenied
from django.core.mail import send_mail
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils.encoding import force_bytes
from django.utils.http import urlsafe_base64_encode

from people import access, outbox
from people.models import User

logger = logging.getLogger(__name__)
SECONDS_PER_DAY = 86400


def days_valid() -> int:
    return max(1, settings.PASSWORD_RESET_TIMEOUT // SECONDS_PER_DAY)


def password_path(user: User) -> str:
    """Path of the page on which the user sets a password, valid from now on."""
    uid = urlsafe_base64_encode(force_bytes(user.pk))
    return reverse("people:password_reset_confirm", args=[uid, default_token_generator.make_token(user)])


def sends_mail() -> bool:
    """Whether mail leaves this site; without EMAIL_URL it is only written to the server's log."""
    return not settings.EMAIL_BACKEND.endswith(("console.EmailBackend", "dummy.EmailBackend"))


def invitation_send(*, actor: User, user: User, url: str) -> bool:
    """Mail the absolute `url` to the user; False if the mail could not be sent (the reason is logged).

    Raises PermissionDenied unless the account waits for its first password and the actor may invite.
    """
    if not access.can_reinvite(actor, user):
        raise PermissionDenied(f"{user} has set a password already, or you may not invite.")
    try:
        subject, message = _mail(actor, user, url)
        send_mail(subject=subject, message=message, from_email=None, recipient_list=[user.email])
    except (SMTPException, OSError) as error:
        logger.warning("The invitation of %s could not be mailed: %s", user.username, error)
        return False
    return sends_mail()


def invitation_queue(*, actor: User, user: User, url: str) -> None:
    """Let the mail leave after the caller's transaction, tried again while the mail server fails (people/outbox.py).

    For who does not see the link and for many at once. Raises PermissionDenied as above; here the head of a lab may,
    for its members.
    """
    if not access.can_mail_invitation(actor, user):
        raise PermissionDenied(f"{user} has set a password already, or you may not invite.")
    subject, body = _mail(actor, user, url)
    outbox.queue(to=user, subject=subject, body=body)


def _mail(actor: User, user: User, url: str) -> tuple[str, str]:
    context = {
        "user": user,
        "actor": actor,
        "url": url,
        "days": days_valid(),
        "facility_name": settings.FACILITY_NAME,
        "logo_text": settings.LOGO_TEXT,
    }
    return f"Your account at {settings.FACILITY_NAME}", render_to_string(
        "people/mail/invitation.txt", context
    )
