"""Taking people into a lab and out of it, by its head or the staff. Each leaves an audit entry."""

from django.core.exceptions import PermissionDenied, ValidationError
from django.db import transaction

from people import access, services
from people.models import AuditEntry, Lab, Membership, User


@transaction.atomic
def lab_member_add(
    *, actor: User, lab: Lab, email: str, first_name: str = "", last_name: str = ""
) -> tuple[User, bool]:
    """Make whoever has the address a member; without an account one is made, for which the names are needed.

    Answers the person and whether the account is new. Raises PermissionDenied for who does not manage the lab and
    ValidationError by field.
    """
    if not access.can_manage_lab(actor, lab):
        raise PermissionDenied(f"You do not manage {lab}.")
    person = User.objects.filter(email__iexact=email.strip()).first() if email.strip() else None
    if person is None:
        if not (first_name.strip() and last_name.strip()):
            raise ValidationError(
                {"last_name": "Nobody has this address yet: write their first and last name."}
            )
        person = services.user_invite(
            actor=actor, first_name=first_name, last_name=last_name, email=email, labs=[lab]
        )
        return person, True
    if person.is_service or not person.is_active:
        raise ValidationError({"email": "This account is not in use any more. Ask the facility's staff."})
    if person.pk == lab.pi_id:
        raise ValidationError({"email": f"{person} leads this lab."})
    _, is_new = Membership.objects.get_or_create(lab=lab, user=person)
    if not is_new:
        raise ValidationError({"email": f"{person} is a member already."})
    AuditEntry.record(actor=actor, action="lab member added", target=lab, details={"person": str(person)})
    return person, False


@transaction.atomic
def lab_member_remove(*, actor: User, lab: Lab, person: User) -> None:
    """End a membership. The person's bookings and sessions stay the lab's. Raises as above."""
    if not access.can_manage_lab(actor, lab):
        raise PermissionDenied(f"You do not manage {lab}.")
    removed, _ = Membership.objects.filter(lab=lab, user=person).delete()
    if not removed:
        raise ValidationError(f"{person} is no member of {lab} any more.")
    AuditEntry.record(actor=actor, action="lab member removed", target=lab, details={"person": str(person)})
