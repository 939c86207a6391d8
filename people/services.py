"""What changes people's accounts: inviting, taking on as staff, deactivating. Each leaves an audit entry."""

import re
import unicodedata
from collections.abc import Iterable

from django.contrib.auth.models import Group
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import IntegrityError, transaction

from people import access
from people.models import STAFF_GROUP, AuditEntry, Lab, Membership, Preferences, User

USERNAME_LENGTH = 40
USERNAME_TRIES = 20


def user_invite(
    *,
    actor: User,
    first_name: str,
    last_name: str,
    email: str,
    labs: Iterable[Lab] = (),
    is_staff: bool = False,
) -> User:
    """Make an account without a password; its person sets one by the link that `people.invitations` makes.

    Raises PermissionDenied if the actor may not invite, and ValidationError by field, for instance where another
    user has the e-mail address.
    """
    labs = list(labs)
    if not access.can_invite(actor) and (is_staff or not access.can_invite_into(actor, labs)):
        raise PermissionDenied("You may not invite users.")
    user = User(first_name=first_name.strip(), last_name=last_name.strip(), email=email.strip())
    user.set_unusable_password()
    if not user.email:
        raise ValidationError({"email": "Write the address to which the invitation goes."})
    for username in _usernames(user):
        if User.objects.filter(email__iexact=user.email).exists():
            raise ValidationError({"email": "Another user has this e-mail address."})
        user.username = username
        if User.objects.filter(username__iexact=username).exists():
            continue
        user.full_clean()
        try:
            with transaction.atomic():
                user.save()
                Membership.objects.bulk_create([Membership(lab=lab, user=user) for lab in labs])
                if is_staff:
                    _take_on(user)
                AuditEntry.record(
                    actor=actor,
                    action="user invited",
                    target=user,
                    details={"e-mail": user.email, "staff": is_staff, "labs": [lab.name for lab in labs]},
                )
        except IntegrityError:
            # Someone took the name, or invited the same person, in this moment: the next round tells which.
            user.pk = None
            user._state.adding = True
            continue
        return user
    raise ValidationError("No free username was found. Try again.")


def _usernames(user: User):
    """Names to try: ada.lovelace, ada.lovelace2, ada.lovelace3..."""
    words = " ".join(filter(None, [user.first_name, user.last_name])) or user.email.split("@")[0]
    plain = unicodedata.normalize("NFKD", words).encode("ascii", "ignore").decode().lower()
    base = ".".join(re.findall(r"[a-z0-9]+", plain))[:USERNAME_LENGTH].strip(".") or "user"
    yield base
    # The first free number right away, however many of a name there are.
    taken = {
        name.lower()
        for name in User.objects.filter(username__istartswith=base).values_list("username", flat=True)
    }
    number = 2
    for _ in range(USERNAME_TRIES):
        while f"{base}{number}" in taken:
            number += 1
        yield f"{base}{number}"
        number += 1


def _take_on(user: User) -> None:
    user.is_staff = True
    user.save(update_fields=["is_staff"])
    user.groups.add(Group.objects.get(name=STAFF_GROUP))


@transaction.atomic
def staff_set(*, actor: User, user: User, is_staff: bool) -> None:
    """Make someone facility staff, with the group's permissions, or an ordinary user again.

    Raises PermissionDenied for superusers (unless the actor is one) and ValidationError for oneself.
    """
    if not access.can_change_person(actor, user):
        raise PermissionDenied(f"You may not change {user}.")
    if actor.pk == user.pk:
        raise ValidationError({"is_staff": "Ask a colleague to change your own place among the staff."})
    if is_staff and user.is_service:
        raise ValidationError({"is_staff": "A service user is a program and cannot be staff."})
    if is_staff:
        _take_on(user)
    else:
        user.is_staff = False
        user.save(update_fields=["is_staff"])
        user.groups.remove(*Group.objects.filter(name=STAFF_GROUP))
    action = "user made staff" if is_staff else "user no longer staff"
    AuditEntry.record(actor=actor, action=action, target=user)


@transaction.atomic
def user_set_active(*, actor: User, user: User, is_active: bool) -> bool:
    """Deactivate or reactivate an account; answers whether that changed anything.

    A deactivated person is logged out everywhere at once and cannot log in; what is theirs stays.
    Raises PermissionDenied for whom the actor may not change, and ValidationError for oneself.
    """
    if not access.can_change_person(actor, user):
        raise PermissionDenied(f"You may not change {user}.")
    if not access.can_deactivate(actor, user):
        raise ValidationError({"is_active": "Ask a colleague to deactivate your own account."})
    user = User.objects.select_for_update().get(pk=user.pk)
    if user.is_active == is_active:
        return False
    if user.anonymised_at is not None:
        raise ValidationError({"is_active": "This account was anonymised and is nobody's any more."})
    user.is_active = is_active
    user.save(update_fields=["is_active"])
    AuditEntry.record(
        actor=actor, action="user reactivated" if is_active else "user deactivated", target=user
    )
    return True


def calendar_remember(*, user: User, view: str, microscopes: Iterable[str]) -> bool:
    """Keep how the person last looked at the calendar: the view, and codes of microscopes (none: all).

    Answers whether that was new; what is kept already is not written again.
    """
    chosen = {"calendar_view": view, "calendar_microscopes": sorted(set(microscopes))}
    known = Preferences.objects.filter(user=user).values(*chosen).first()
    if (known or {"calendar_view": "", "calendar_microscopes": []}) == chosen:
        return False
    Preferences.objects.update_or_create(user=user, defaults=chosen)
    return True


@transaction.atomic
def profile_update(*, user: User, **changes) -> list[str]:
    """Change one's own name (first_name, last_name) and preferences (fields of Preferences); answers what changed.

    Raises ValidationError by field, and TypeError for anything else about an account: that is the staff's.
    """
    names = {"first_name", "last_name"} & changes.keys()
    choices = set(Preferences.CHOICES) & changes.keys()
    if unknown := changes.keys() - names - choices:
        raise TypeError(f"People do not change this of themselves: {', '.join(sorted(unknown))}")
    user = User.objects.select_for_update(no_key=True).get(pk=user.pk)
    before = str(user)
    changed = [name for name in sorted(names) if getattr(user, name) != changes[name].strip()]
    for name in changed:
        setattr(user, name, changes[name].strip())
    if changed:
        if not user.first_name and not user.last_name:
            raise ValidationError({"last_name": "Write the name by which others know you."})
        user.full_clean(exclude={field.name for field in User._meta.fields} - names)
        user.save(update_fields=changed)
        AuditEntry.record(actor=user, action="own name changed", target=user, details={"before": before})
    if choices:
        preferences, _ = Preferences.objects.get_or_create(user=user)
        chosen = [name for name in sorted(choices) if getattr(preferences, name) != changes[name]]
        for name in chosen:
            setattr(preferences, name, changes[name])
        if chosen:
            preferences.clean_fields(exclude={field.name for field in Preferences._meta.fields} - choices)
            preferences.save(update_fields=chosen)
        changed += chosen
    return changed
