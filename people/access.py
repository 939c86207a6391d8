"""Who counts as what. Every other access module asks here."""


def is_staff(user) -> bool:
    """Facility staff: an active person with access to the admin."""
    return bool(user.is_authenticated and user.is_active and user.is_staff and not user.is_service)


def is_pipeline(user) -> bool:
    """A program that came with a pipeline token (see microscopes.api.authentication)."""
    return bool(
        user.is_authenticated and user.is_service and getattr(user, "pipeline_token", None) is not None
    )


def can_manage_people(user) -> bool:
    """Invite, correct and deactivate users and labs."""
    return is_staff(user) and user.has_perm("people.change_user")
