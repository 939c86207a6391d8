"""Creating a session: when it may be, what it is called, and what it starts with."""

import datetime

from django.core.exceptions import PermissionDenied, ValidationError
from django.db import IntegrityError, transaction
from django.db.models import Q, Value
from django.db.models.functions import Lower
from django.utils import timezone

from bookings.models import Booking
from microscopes.models import Microscope
from people import words
from people.access import is_staff
from people.models import Membership, User
from sessions_app import access
from sessions_app.acquisition import FIELDS, acquisition_defaults
from sessions_app.data_access import data_path
from sessions_app.models import Sample, Session
from sessions_app.naming import is_name_conflict, next_name

NAME_ATTEMPTS = 100
PROPOSED = object()


def today() -> tuple[datetime.datetime, datetime.datetime]:
    """The facility's local day as half-open [start, end)."""
    midnight = timezone.localtime().replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    tomorrow = midnight.date() + datetime.timedelta(days=1)
    return midnight, timezone.make_aware(datetime.datetime.combine(tomorrow, datetime.time()))


def refusal(user, booking, *, any_time: bool = False) -> str:
    """Why the user cannot create a session for the booking now, in a sentence; empty if they can.

    A booking takes sessions while it runs. Staff may also use any other booking of today, and with `any_time`
    (records made afterwards) any booking at all.
    """
    if booking.is_cancelled:
        return "This booking was cancelled. Choose another one."
    if not booking.takes_sessions:
        return f"No sessions are recorded during {booking.get_kind_display()} time. Choose a booking."
    if not access.can_create(user, booking):
        return "Only the booking's owner, its operator, members of its lab and staff can create its sessions."
    if booking.is_running:
        return ""
    if is_staff(user):
        start, end = today()
        if any_time or (booking.start < end and booking.end > start):
            return ""
        return "This booking is not of today. Sessions are created on the booking's day."
    if booking.has_ended:
        return f"This booking ended at {_on(booking.end)}. Ask staff for help."
    return f"This booking begins at {_on(booking.start)}. Create the session once it has begun."


def _on(moment: datetime.datetime) -> str:
    local = timezone.localtime(moment)
    return f"{words.clock(local)} on {local:%d %b %Y}"


def can_create_now(user, booking) -> bool:
    return not refusal(user, booking)


def operators_for(booking, user, current=None):
    """People the user may name as operator: anyone active for staff, otherwise staff and those of the booking.

    `current` is the id of who is named now, and stays possible.
    """
    people = User.objects.people().filter(Q(is_active=True) | Q(pk=current))
    if is_staff(user):
        return people
    involved = Q(pk__in=[booking.owner_id, booking.operator_id or booking.owner_id, user.pk]) | Q(
        is_staff=True
    )
    involved |= Q(pk__in=Booking.collaborators.through.objects.filter(booking=booking.pk).values("user"))
    if booking.lab_id is not None:
        involved |= Q(pk__in=Membership.objects.filter(lab=booking.lab_id).values("user"))
        involved |= Q(labs_led=booking.lab_id)
    involved |= Q(pk=current)
    return people.filter(pk__in=User.objects.filter(involved).order_by().values("pk"))


def sample_named(lab, name: str, *, creator) -> Sample:
    """The lab's sample of this name, ignoring case; made if there is none. Raises ValidationError on `sample`."""
    name = " ".join(name.split())
    if lab is None:
        raise ValidationError(
            {"sample": "Samples belong to a lab and this booking has none. Leave it empty."}
        )
    key = Lower(Value(name))
    existing = Sample.objects.annotate(key=Lower("name")).filter(lab=lab, key=key).first()
    if existing is not None:
        return existing
    sample = Sample(lab=lab, name=name, created_by=creator)
    try:
        sample.full_clean(validate_constraints=False)
    except ValidationError as error:
        raise ValidationError({"sample": error.messages}) from error
    try:
        with transaction.atomic():
            sample.save()
    except IntegrityError:
        # Someone typed the same name in this moment.
        return Sample.objects.annotate(key=Lower("name")).get(lab=lab, key=key)
    return sample


def check_relations(place, *, camera=None, sample=None, operator=None) -> None:
    """Raises ValidationError by field where a camera, sample or operator does not fit the booking or session."""
    errors = {}
    if camera is not None and camera.microscope_id != place.microscope_id:
        errors["camera"] = f"{place.microscope} has no such camera."
    if sample is not None and sample.lab_id != place.lab_id:
        errors["sample"] = "This sample belongs to another lab."
    if operator is not None and (operator.is_service or not operator.is_active):
        errors["operator"] = "The operator must be an active person."
    if errors:
        raise ValidationError(errors)


def session_create(
    *,
    booking,
    creator,
    operator=None,
    camera=PROPOSED,
    sample=None,
    notes: str = "",
    start: datetime.datetime | None = None,
    any_time: bool = False,
    **acquisition,
) -> Session:
    """Create a running session of the booking, named by the facility's pattern.

    `sample` is a Sample of the booking's lab or the name of one, made if new. Without an operator it is the
    booking's; camera and those of the acquisition's fields that are not given are proposed as
    `acquisition_defaults` does, where None given is kept.
    However many are created at once, each gets a name of its own. `any_time` lets staff record a session for a
    booking of another day.

    Raises PermissionDenied if the creator may never run the booking, ValidationError (by field where there is
    one) otherwise, TypeError for an unknown field.
    """
    unknown = set(acquisition) - set(FIELDS)
    if unknown:
        raise TypeError(f"session_create() has no {', '.join(sorted(unknown))}.")
    for _ in range(NAME_ATTEMPTS):
        try:
            with transaction.atomic():
                return _create(
                    booking_id=booking.pk,
                    microscope_id=booking.microscope_id,
                    creator=creator,
                    operator=operator,
                    camera=camera,
                    sample=sample,
                    notes=notes,
                    start=start,
                    any_time=any_time,
                    acquisition=acquisition,
                )
        except IntegrityError as error:
            # Microscopes share names if the pattern leaves the microscope out: another one was quicker.
            if not is_name_conflict(error):
                raise
        except _MicroscopeChanged:
            booking = Booking.objects.get(pk=booking.pk)
    raise ValidationError("Many sessions are being created at once and no name was free. Try again.")


class _MicroscopeChanged(Exception):
    """Staff moved the booking to another microscope while its session was being created."""


def _create(
    *, booking_id, microscope_id, creator, operator, camera, sample, notes, start, any_time, acquisition
) -> Session:
    # The microscope's row makes creations on it queue, so that names are dense; NO KEY leaves bookings free to
    # refer to it meanwhile. SQLite has but one writer anyway.
    Microscope.objects.select_for_update(no_key=True).get(pk=microscope_id)
    booking = (
        Booking.objects.select_related("microscope__data_server", "lab", "owner")
        .select_for_update(no_key=True, of=("self",))
        .get(pk=booking_id)
    )
    if booking.microscope_id != microscope_id:
        raise _MicroscopeChanged
    reason = refusal(creator, booking, any_time=any_time)
    if reason:
        if booking.takes_sessions and not access.can_create(creator, booking):
            raise PermissionDenied(reason)
        raise ValidationError({"booking": reason})
    if isinstance(sample, str):
        sample = sample_named(booking.lab, sample, creator=creator) if sample.strip() else None
    defaults = acquisition_defaults(booking)
    proposed_camera = defaults.pop("camera")
    camera = proposed_camera if camera is PROPOSED else camera
    check_relations(booking, camera=camera, sample=sample, operator=operator)
    start = start or timezone.now()
    name = next_name(booking.microscope, start)
    session = Session(
        booking=booking,
        microscope=booking.microscope,
        lab=booking.lab,
        name=name,
        creator=creator,
        operator=operator or booking.operator or booking.owner,
        camera=camera,
        sample=sample,
        notes=notes,
        status=Session.Status.ACTIVE,
        start=start,
        data_server=booking.microscope.data_server,
        data_path=data_path(booking, name, start),
        **(defaults | acquisition),
    )
    session.full_clean(validate_unique=False, validate_constraints=False)
    session.save(force_insert=True)
    return session


UPDATABLE = ("operator", "camera", "sample", "notes", *FIELDS)


@transaction.atomic
def session_update(session, actor, **changes) -> Session:
    """Write the given fields of a session and no others; `sample` may be the name of a sample, made if new.

    Raises ValidationError by field, and TypeError for a field that is not of `UPDATABLE`.
    """
    unknown = set(changes) - set(UPDATABLE)
    if unknown:
        raise TypeError(f"session_update() has no {', '.join(sorted(unknown))}.")
    row = (
        Session.objects.select_related("booking", "microscope", "lab")
        .select_for_update(no_key=True, of=("self",))
        .get(pk=session.pk)
    )
    if row.status == Session.Status.ARCHIVED:
        raise ValidationError("This session is archived and cannot change any more.")
    if isinstance(changes.get("sample"), str):
        name = changes["sample"].strip()
        changes["sample"] = sample_named(row.lab, name, creator=actor) if name else None
    check_relations(row, **{name: changes[name] for name in ("camera", "sample") if name in changes})
    if changes.get("operator") is not None and changes["operator"].pk != row.operator_id:
        check_relations(row, operator=changes["operator"])
    for name, value in changes.items():
        setattr(row, name, value)
    row.clean_fields(exclude={field.name for field in Session._meta.fields} - set(changes))
    if changes:
        row.save(update_fields=list(changes))
    return row
