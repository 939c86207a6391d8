"""Who may see and change a session. Web, API and admin ask here; who sees it at all: `visible_to`."""

from bookings.access import can_run
from people.access import is_pipeline, is_staff
from people.models import Lab
from people.querysets import user_lab_ids


def can_create(user, booking) -> bool:
    """Who may run the booking; when that is possible is sessions_app.services' rule."""
    return can_run(user, booking)


def can_change(user, session) -> bool:
    """Correct acquisition, sample, notes, operator: staff, and those who may run its booking while it runs."""
    if session.status == session.Status.ARCHIVED:
        return False
    if is_staff(user):
        return user.has_perm("sessions_app.change_session")
    return session.is_running and can_run(user, session.booking)


def can_judge(user, session) -> bool:
    """Accept and reject micrographs by hand: whoever may run its booking, during the session and after."""
    if session.status == session.Status.ARCHIVED:
        return False
    if is_staff(user):
        return user.has_perm("sessions_app.change_session")
    return can_run(user, session.booking)


def can_finish(user, session) -> bool:
    return session.is_running and can_change(user, session)


def can_reopen(user, session) -> bool:
    return (
        is_staff(user)
        and not session.is_running
        and session.data_deleted_at is None
        and can_change(user, session)
    )


def can_extend_retention(user, session) -> bool:
    return (
        is_staff(user)
        and session.delete_on is not None
        and session.data_deleted_at is None
        and user.has_perm("sessions_app.change_session")
    )


def can_archive(user, session) -> bool:
    """Freeze the summary of a session that is over; what goes with it cannot be had back, so staff alone."""
    over = (session.Status.FINISHED, session.Status.FAILED)
    return is_staff(user) and session.status in over and user.has_perm("sessions_app.change_session")


def can_delete(user, session=None) -> bool:
    return is_staff(user) and user.has_perm("sessions_app.delete_session")


def can_report(user, session) -> bool:
    """Write what pipelines write: acquisition, status, data counters, exposures and runs."""
    return is_pipeline(user) or (is_staff(user) and user.has_perm("sessions_app.change_session"))


def can_see_sample(user, sample) -> bool:
    """Its lab, and staff: the same people as by `Sample.objects.visible_to`."""
    return sample is not None and (
        is_staff(user) or (not user.is_service and sample.lab_id in user_lab_ids(user))
    )


def statistics_labs(user) -> list[int] | None:
    """Ids of the labs whose statistics the user sees: those they lead; None for staff, who see all."""
    if is_staff(user):
        return None
    return list(Lab.objects.filter(pi=user).values_list("pk", flat=True)) if user.is_authenticated else []
