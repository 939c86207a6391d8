"""Who counts as what. Every other access module asks here."""

from people.querysets import user_lab_ids


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


def can_see_lab(user, lab) -> bool:
    """Its people, and staff."""
    return is_staff(user) or (not user.is_service and lab.pk in user_lab_ids(user))


def can_manage_lab(user, lab) -> bool:
    """Its principal investigator takes people in and out; staff for any lab."""
    if can_manage_people(user):
        return True
    return bool(user.is_authenticated and user.is_active and not user.is_service and lab.pi_id == user.pk)


def can_invite_into(user, labs) -> bool:
    """Make an account for someone: staff, and who leads every one of the labs that the person is to be in."""
    return can_invite(user) or (bool(labs) and all(can_manage_lab(user, lab) for lab in labs))


def can_mail_invitation(user, person) -> bool:
    """Have the link sent to the person's own address, without seeing it: the head of a lab for its members too."""
    if can_reinvite(user, person):
        return True
    if not person.is_invited or person.is_staff or person.is_superuser:
        return False
    return any(
        can_manage_lab(user, membership.lab) for membership in person.memberships.select_related("lab")
    )
