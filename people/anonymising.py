"""Taking a person's name out of the site for good, while the records stay.

Replaced are name, username and address, also where audit entries name them. What people wrote themselves (titles,
notes, reasons) stays as it is.
"""

import json

from django.contrib.admin.models import LogEntry
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import transaction
from django.db.models import Q, TextField
from django.db.models.functions import Cast
from django.utils import timezone

from people import access
from people.models import AuditEntry, Preferences, User


def refusal(user: User) -> str:
    """Why the person cannot be anonymised now, with what to do first; empty if they can."""
    if user.anonymised_at is not None:
        return "This account is anonymised already."
    if user.is_service:
        return "A service user is a program and names nobody."
    if user.is_active:
        return f"Deactivate {user} first: only accounts that are not in use any more are anonymised."
    led = ", ".join(lab.name for lab in user.labs_led.active())
    if led:
        return f"{user} leads {led}. Name another principal investigator first, or make the lab inactive."
    return ""


@transaction.atomic
def user_anonymise(*, actor: User, user: User, typed: str) -> User:
    """Make the person nobody in particular, for good; `typed` is their username, typed as a confirmation.

    Raises PermissionDenied for whom the actor may not change and ValidationError where something stands against it.
    """
    if not access.can_deactivate(actor, user):
        raise PermissionDenied(f"You may not change {user}.")
    user = User.objects.select_for_update().get(pk=user.pk)
    if why := refusal(user):
        raise ValidationError(why)
    if typed.strip() != user.username:
        raise ValidationError({"typed": f"Type {user.username} to confirm."})
    names = _names_of(user)
    user.first_name, user.last_name = "Former", f"user {user.pk}"
    user.username, user.email = f"former-user-{user.pk}", ""
    user.is_staff = user.is_superuser = False
    user.last_login, user.anonymised_at = None, timezone.now()
    user.set_unusable_password()
    user.full_clean(exclude=["password"])
    user.save()
    for relation in (user.groups, user.user_permissions):
        relation.clear()
    # Feeds and follows are of a higher app, reached by their related names.
    for rows in (user.memberships, user.outgoing_mails, user.calendar_feeds, user.follows):
        rows.all().delete()
    Preferences.objects.filter(user=user).delete()
    AuditEntry.objects.filter(actor=user).update(actor_name=str(user))
    about = AuditEntry.objects.filter(target_type=User._meta.label_lower, target_id=str(user.pk))
    about.update(target_name=str(user), details={})
    _replace_in_details(names, str(user))
    LogEntry.objects.filter(
        content_type=ContentType.objects.get_for_model(User), object_id=str(user.pk)
    ).update(object_repr=str(user))
    AuditEntry.record(actor=actor, action="user anonymised", target=user)
    return user


def _names_of(user: User) -> set[str]:
    """What records call the person, apart from a name that somebody else has too."""
    names = {user.username, user.email} - {""}
    same = User.objects.filter(first_name=user.first_name, last_name=user.last_name).exclude(pk=user.pk)
    return names if same.exists() else names | {str(user)}


def _replace_in_details(names: set[str], instead: str) -> None:
    """In entries about other records: who was made a member, who owned a booking before."""
    found = Q()
    for name in names:
        # Databases keep letters beyond ASCII as they are, or escaped.
        for written in (json.dumps(name), json.dumps(name, ensure_ascii=False)):
            found |= Q(text__contains=written)
    entries = AuditEntry.objects.annotate(text=Cast("details", TextField())).filter(found)
    for entry in entries.only("pk", "details").iterator():
        AuditEntry.objects.filter(pk=entry.pk).update(details=_replaced(entry.details, names, instead))


def _replaced(value, names: set[str], instead: str):
    if isinstance(value, dict):
        return {key: _replaced(inner, names, instead) for key, inner in value.items()}
    if isinstance(value, list):
        return [_replaced(inner, names, instead) for inner in value]
    return instead if isinstance(value, str) and value in names else value
