"""What happens to a microscope as a whole."""

from django.db import transaction

from microscopes.models import Microscope
from people.models import AuditEntry, User


@transaction.atomic
def microscope_retire(*, microscope: Microscope, actor: User) -> bool:
    """Take the microscope out of service for good; its bookings and sessions stay. Answers whether it was in."""
    updated = (
        Microscope.objects.in_service().filter(pk=microscope.pk).update(status=Microscope.Status.RETIRED)
    )
    if updated:
        AuditEntry.record(actor=actor, action="microscope retired", target=microscope)
    return bool(updated)
