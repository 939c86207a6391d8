"""How a session comes by limits of its own: somebody who may change the session moves one."""

from collections.abc import Mapping

from django.db import transaction

from people.models import AuditEntry
from preprocessing.models import Limits, SessionLimits
from preprocessing.state import limits_of
from sessions_app.models import Session


@transaction.atomic
def session_limits_change(
    *, session: Session, values: Mapping[str, float | None], actor
) -> tuple[SessionLimits, bool]:
    """Set limits of a session (None: none of that kind); the others stay what they were, its microscope's at first.

    Answers the session's limits and whether anything changed. Raises ValidationError, by field.
    """
    # One at a time: two people who move two limits at once both succeed.
    Session.objects.select_for_update(of=("self",)).get(pk=session.pk)
    row = SessionLimits.objects.filter(session=session).first()
    new = row is None
    if new:
        inherited = limits_of(session)
        names = [field.name for field in Limits._meta.fields]
        row = SessionLimits(session=session, **{name: getattr(inherited, name) for name in names})
    before = {name: getattr(row, name) for name in values}
    for name, value in values.items():
        setattr(row, name, value)
    changed = {name: value for name, value in values.items() if before[name] != value}
    if not changed:
        return row, False
    row.changed_by = actor
    row.full_clean(exclude=["session", "changed_by"])
    row.save(force_insert=new)
    AuditEntry.record(
        actor=actor,
        action="session limits changed",
        target=session,
        details={name: {"from": before[name], "to": value} for name, value in changed.items()},
    )
    return row, True


@transaction.atomic
def session_limits_forget(*, session: Session, actor) -> bool:
    """Let the microscope's limits hold for the session again; answers whether it had any of its own."""
    row = SessionLimits.objects.select_for_update().filter(session=session).first()
    if row is None:
        return False
    before = {field.name: getattr(row, field.name) for field in Limits._meta.fields}
    row.delete()
    AuditEntry.record(
        actor=actor,
        action="session limits forgotten",
        target=session,
        details={name: {"from": value, "to": None} for name, value in before.items()},
    )
    return True
