"""Making and revoking pipeline tokens, for the command and the admin alike."""

import datetime
from collections.abc import Iterable

from django.contrib.auth.models import Group
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.utils import timezone
from django.utils.text import slugify

from microscopes.models import Microscope, PipelineToken
from people.models import PIPELINE_GROUP, AuditEntry, User


@transaction.atomic
def pipeline_token_create(
    *,
    name: str,
    microscopes: Iterable[Microscope] = (),
    all_microscopes: bool = False,
    expires_at: datetime.datetime | None = None,
    actor: User | None = None,
) -> tuple[PipelineToken, str]:
    """Make a token with its service user; answers the token and its key, which is kept nowhere.

    A name that only revoked tokens have is free again, and its service user is taken up. Raises ValidationError by
    field: name, microscopes, expiry_date.
    """
    microscopes = list(microscopes)
    name = " ".join(name.split())
    if not all_microscopes and not microscopes:
        raise ValidationError({"microscopes": "Choose the microscopes that this token may post for, or all."})
    if expires_at is not None and expires_at <= timezone.now():
        raise ValidationError({"expiry_date": "Choose a time to come."})
    token = PipelineToken(
        name=name,
        user=_service_user(name),
        all_microscopes=all_microscopes,
        expiry_date=expires_at,
        created_by=actor,
    )
    key = PipelineToken.objects.assign_key(token)
    token.full_clean(exclude=["user"])
    token.save(force_insert=True)
    token.microscopes.set(microscopes)
    AuditEntry.record(
        actor=actor,
        action="pipeline token created",
        target=token,
        details={
            "microscopes": "all" if all_microscopes else [microscope.code for microscope in microscopes],
            "expires": expires_at.isoformat() if expires_at else None,
        },
    )
    return token, key


@transaction.atomic
def pipeline_token_revoke(*, token: PipelineToken, actor: User | None) -> None:
    """From now on the token is refused; this cannot be undone. Nothing happens to one that is revoked already."""
    if PipelineToken.objects.filter(pk=token.pk, revoked=False).update(revoked=True):
        token.revoked = True
        AuditEntry.record(actor=actor, action="pipeline token revoked", target=token)


def username_for(name: str) -> str:
    return f"pipeline-{slugify(name)}"


def _service_user(name: str) -> User:
    if not slugify(name):
        raise ValidationError(
            {"name": "Give the token a name with letters or digits, such as relion-krios1."}
        )
    if len(name) > PipelineToken._meta.get_field("name").max_length:
        raise ValidationError({"name": "Choose a name of at most 50 characters."})
    taken = ValidationError(
        {"name": f'There is a token named "{name}". Choose another name or revoke it first.'}
    )
    if PipelineToken.objects.filter(name__iexact=name, revoked=False).exists():
        raise taken
    username = username_for(name)
    user = User.objects.select_for_update(no_key=True).filter(username__iexact=username).first()
    if user is not None:
        if user.is_service and user.is_active and not user.pipeline_tokens.filter(revoked=False).exists():
            return user
        raise ValidationError(
            {"name": f"Its username {username} is taken. Choose a name that differs by more."}
        )
    user = User(username=username, first_name=name, is_service=True)
    user.set_unusable_password()
    try:
        with transaction.atomic():
            user.save(force_insert=True)
    except IntegrityError as error:
        raise taken from error  # Someone made it in this moment.
    user.groups.add(Group.objects.get(name=PIPELINE_GROUP))
    return user
