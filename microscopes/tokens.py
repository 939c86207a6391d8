"""Making and revoking pipeline tokens, for the command and the admin alike; finding the one that a key opens."""

import datetime
from collections.abc import Iterable

from django.contrib.auth.models import Group
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.db.models import Field, Model
from django.utils import timezone
from django.utils.text import slugify

from microscopes.models import Microscope, PipelineToken
from people.models import PIPELINE_GROUP, AuditEntry, User
from people.statements import Columns, fetch_one


class Refusal(Exception):
    """The key opens nothing; says in words why, as far as whoever has it may know."""


def _columns(model: type[Model], names: set[str]) -> tuple[Field, ...]:
    """In the model's own order, which is that of `from_db`."""
    return tuple(field for field in model._meta.concrete_fields if field.attname in names)


# What a call needs of its token and service user; the ORM fetches any other column where it is asked for.
_OF_TOKEN = _columns(
    PipelineToken,
    {"id", "name", "hashed_key", "revoked", "expiry_date", "user_id", "all_microscopes", "last_used_at"},
)
_OF_USER = _columns(
    User,
    {"id", "username", "first_name", "last_name", "is_active", "is_staff", "is_superuser", "is_service"},
)
COLUMNS = Columns((*_OF_TOKEN, *_OF_USER))
_TOKEN_NAMES = [field.attname for field in _OF_TOKEN]
_USER_NAMES = [field.attname for field in _OF_USER]
_NAMES = ", ".join(
    [*(f"t.{field.column}" for field in _OF_TOKEN), *(f"u.{field.column}" for field in _OF_USER)]
)
# To be followed by other columns, and by other tables and WHERE with the conditions; the key's prefix comes last.
SELECT = f"SELECT {_NAMES}"
FROM = "FROM microscopes_pipelinetoken t JOIN people_user u ON u.id = t.user_id"
WHERE = "WHERE t.prefix = %s AND NOT t.revoked"
_STATEMENT = f"{SELECT} {FROM} {WHERE}"


def prefix_of(key: str) -> str:
    return key.partition(".")[0]


def token_of_key(key: str) -> PipelineToken:
    """The token that this key opens, with its user, who has it at `user.pipeline_token`. Raises Refusal."""
    return token_of_row(key, fetch_one(_STATEMENT, [prefix_of(key)], COLUMNS))


def token_of_row(key: str, row: list | None) -> PipelineToken:
    """The same for a row that begins with COLUMNS, None where no usable token has the key's prefix."""
    token = None if row is None else PipelineToken.from_db("default", _TOKEN_NAMES, row[: len(_OF_TOKEN)])
    # One answer for unknown, revoked and wrong, so that nothing is learnt by trying.
    if token is None or not PipelineToken.objects.key_generator.verify(key, token.hashed_key):
        raise Refusal("This token is not valid. Ask the facility's staff for a new one.")
    user = User.from_db("default", _USER_NAMES, row[len(_OF_TOKEN) : len(COLUMNS)])
    if token.expiry_date is not None and token.expiry_date < timezone.now():
        raise Refusal(
            f"This token expired on {token.expiry_date:%Y-%m-%d}. Ask the facility's staff for a new one."
        )
    if not user.is_active:
        raise Refusal("This token's user is deactivated.")
    token.user = user
    user.pipeline_token = token
    return token


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
