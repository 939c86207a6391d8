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
