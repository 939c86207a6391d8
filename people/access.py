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


def can_invite(user) -> bool:
    """Make an account for someone and send the link to set its password."""
    return is_staff(user) and user.has_perm("people.add_user")


def can_change_person(user, person) -> bool:
    """Staff change everyone but superusers, whose accounts only superusers touch."""
    return can_manage_people(user) and (user.is_superuser or not person.is_superuser)


def can_deactivate(user, person) -> bool:
    """Whoever may change the person, oneself apart: nobody locks themselves out."""
    return can_change_person(user, person) and user.pk != person.pk


def can_give_powers(user) -> bool:
    """Make superusers, and give permissions other than those that come with being staff."""
    return bool(is_staff(user) and user.is_superuser)


def can_reinvite(user, person) -> bool:
    """A link to set the password is handed out only for an account that nobody has taken yet."""
    return can_invite(user) and can_change_person(user, person) and person.is_invited
