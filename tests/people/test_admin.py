"""Staff keep people and labs in the admin, cannot raise themselves, and delete nobody."""

import datetime

import pytest
from django.contrib.auth.models import Group, Permission
from django.core import mail
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from people.models import STAFF_GROUP, AuditEntry, Lab, User
from tests.factories import (
    BookingFactory,
    LabFactory,
    MembershipFactory,
    ServiceUserFactory,
    StaffFactory,
    UserFactory,
)

pytestmark = pytest.mark.django_db

USERS = "/admin/people/user/"
LABS = "/admin/people/lab/"
AUDIT = "/admin/people/auditentry/"


@pytest.fixture
def admin_page(client, staff):
    client.force_login(staff)
    return client


@pytest.fixture
def root(db):
    return UserFactory(is_staff=True, is_superuser=True, username="root")


def address(record, base=USERS):
    return f"{base}{record.pk}/change/"


def as_shown(client, page, **changes):
    """What the browser sends when these fields of the page's form are changed and the rest is left alone."""
    response = client.get(page)
    assert response.status_code == 200
    data = {}
    forms = [response.context["adminform"].form]
    for formset in response.context["inline_admin_formsets"]:
        forms += [formset.formset.management_form, *formset.formset.forms]
    for form in forms:
        for bound in form:
            value = bound.value()
            if value is True:
                value = "on"
            if value is not None and value is not False and not bound.field.disabled:
                data[bound.html_name] = value
                if bound.field.show_hidden_initial:
                    data[bound.html_initial_name] = value
    for name, value in changes.items():
        if value is None:
            data.pop(name, None)
        else:
            data[name] = value
    return data


def change(client, page, **changes):
    answer = client.post(page, as_shown(client, page, **changes))
    assert answer.status_code == 302, answer.context["errors"]
    return answer


def act(client, action, *users, **fields):
    data = {"action": action, "_selected_action": [user.pk for user in users], **fields}
    return client.post(USERS + "?kind=all", data, follow=True)


# -- Lists -----------------------------------------------------------------------------------------------------
def queries(client, page):
    with CaptureQueriesContext(connection) as captured:
        assert client.get(page).status_code == 200
    return len(captured)


def test_lists_cost_the_same_at_any_size(admin_page, staff):
    def more(number):
        for lab in LabFactory.create_batch(number):
            membership = MembershipFactory(lab=lab)
            AuditEntry.record(actor=staff, action="user invited", target=membership.user)

    more(2)
    few = {page: queries(admin_page, page) for page in (USERS, LABS, AUDIT)}
    more(9)
    assert {page: queries(admin_page, page) for page in few} == few


def test_the_list_of_users_shows_labs_and_standing(admin_page):
    lab = LabFactory(name="Hall lab")
    MembershipFactory(lab=lab, user=UserFactory(first_name="Grace", last_name="Hopper"))
    waiting = UserFactory(last_name="Waiting")
    waiting.set_unusable_password()
    waiting.save()
    page = admin_page.get(USERS).text
    assert "Grace Hopper" in page
    assert "Hall lab (PI)" in page
    assert page.count("Hall lab") >= 2
    assert "invited" in page


def test_programs_are_not_among_people_unless_asked_for(admin_page):
    ServiceUserFactory(username="relion-feeder")
    assert "relion-feeder" not in admin_page.get(USERS).text
    assert "relion-feeder" in admin_page.get(USERS + "?kind=service").text
    assert "relion-feeder" in admin_page.get(USERS + "?kind=all").text


def test_labs_count_their_members(admin_page):
    lab = LabFactory()
    MembershipFactory.create_batch(3, lab=lab)
    assert '<td class="field-member_count">3</td>' in admin_page.get(LABS).text


def test_search_finds_people_by_e_mail(admin_page):
    UserFactory(email="needle@example.org", last_name="Needle")
    UserFactory(last_name="Haystack")
    page = admin_page.get(USERS + "?q=needle@").text
    assert "Needle" in page
    assert "Haystack" not in page


# -- No escalation ---------------------------------------------------------------------------------------------
def test_staff_are_not_offered_powers_and_cannot_post_them(admin_page, staff):
    person = UserFactory()
    page = admin_page.get(address(person)).text
    for field in ("is_superuser", "user_permissions", 'name="groups"'):
        assert field not in page
    permission = Permission.objects.first()
    group = Group.objects.create(name="Powers")
    for someone in (person, staff):
        answer = change(
            admin_page,
            address(someone),
            is_superuser="on",
            groups=[group.pk],
            user_permissions=[permission.pk],
            first_name="Changed",
        )
        assert answer.status_code == 302
        someone = User.objects.get(pk=someone.pk)
        assert someone.first_name == "Changed"
        assert not someone.is_superuser
        assert group not in someone.groups.all()
        assert not someone.user_permissions.exists()


def test_staff_do_not_touch_superusers(admin_page, root):
    before = root.password
    page = admin_page.get(address(root))
    assert 'name="_save"' not in page.text
    assert admin_page.post(address(root), {"email": "mine@example.org"}).status_code == 403
    passwords = {"password1": "a new long password", "password2": "a new long password"}
    assert admin_page.post(f"{USERS}{root.pk}/password/", passwords).status_code == 403
    assert "You may not change" in act(admin_page, "deactivate", root, confirmed="yes").text
    act(admin_page, "invite_again", root)
    root.refresh_from_db()
    assert (root.password, root.is_active, mail.outbox) == (before, True, [])
    assert root.email != "mine@example.org"


def test_groups_and_their_permissions_are_not_for_staff(admin_page):
    group = Group.objects.get(name=STAFF_GROUP)
    assert admin_page.get(f"/admin/auth/group/{group.pk}/change/").status_code == 403


def test_a_superuser_gives_powers_and_that_is_written_down(client, root):
    client.force_login(root)
    person = UserFactory()
    assert change(client, address(person), is_superuser="on").status_code == 302
    person.refresh_from_db()
    assert person.is_superuser
    entry = AuditEntry.objects.get(action="user's powers changed")
    assert (entry.actor, entry.target_id) == (root, str(person.pk))


def test_without_the_permission_no_page_and_no_button(client):
    person = UserFactory()
    viewer = UserFactory(is_staff=True)
    viewer.user_permissions.add(Permission.objects.get(codename="view_user"))
    client.force_login(viewer)
    page = client.get(USERS).text
    for label in ("Deactivate", "Reactivate", "invitation", "addlink"):
        assert label not in page
    assert client.post(address(person), {"email": "x@example.org"}).status_code == 403
    assert client.get(USERS + "add/").status_code == 403
    assert client.get(LABS).status_code == 403


# -- Standing --------------------------------------------------------------------------------------------------
def test_who_is_made_staff_gets_the_groups_permissions_and_loses_them_with_it(admin_page, staff):
    person = UserFactory()
    change(admin_page, address(person), is_staff="on")
    person = User.objects.get(pk=person.pk)
    assert person.is_staff
    assert person.has_perm("people.change_user")
    change(admin_page, address(person), is_staff=None)
    person = User.objects.get(pk=person.pk)
    assert not person.is_staff
    assert not person.has_perm("people.change_user")
    actions = AuditEntry.objects.order_by("id").values_list("action", flat=True)
    assert list(actions) == ["user made staff", "user no longer staff"]


def test_nobody_locks_themselves_out(admin_page, staff):
    change(admin_page, address(staff), is_active=None, is_staff=None, first_name="Still")
    assert "your own account" in act(admin_page, "deactivate", staff, confirmed="yes").text
    staff.refresh_from_db()
    assert (staff.first_name, staff.is_active, staff.is_staff) == ("Still", True, True)


def test_deactivating_asks_first_logs_out_and_can_be_taken_back(admin_page, staff):
    person = UserFactory(last_name="Leaver")
    theirs = Client()
    theirs.force_login(person)
    page = act(admin_page, "deactivate", person).text
    assert "logged out at once" in page
    assert "Leaver" in page
    person.refresh_from_db()
    assert person.is_active

    assert "1 account deactivated" in act(admin_page, "deactivate", person, confirmed="yes").text
    assert theirs.get("/people/password/").status_code == 302
    person.refresh_from_db()
    assert not person.is_active
    assert "1 account reactivated" in act(admin_page, "reactivate", person).text
    actions = list(AuditEntry.objects.order_by("id").values_list("action", "actor"))
    assert actions == [("user deactivated", staff.pk), ("user reactivated", staff.pk)]


def test_bookings_to_come_are_told_on_deactivating(admin_page):
    person = UserFactory(first_name="Ada", last_name="Leaver")
    soon = timezone.now() + datetime.timedelta(days=1)
    BookingFactory(owner=person, start=soon, end=soon + datetime.timedelta(hours=8))
    BookingFactory(
        owner=person, start=soon - datetime.timedelta(days=9), end=soon - datetime.timedelta(days=8)
    )
    BookingFactory(
        owner=person, start=soon, end=soon + datetime.timedelta(hours=8), cancelled_at=timezone.now()
    )
    assert "Ada Leaver: 1 booking to come" in act(admin_page, "deactivate", person).text
    page = admin_page.get(change(admin_page, address(person), is_active=None).url)
    assert "1 booking to come of Ada Leaver still keeps its time." in page.text
    assert f"/admin/bookings/booking/?q={person.username}&amp;cancelled=no" in page.text


def test_only_what_was_changed_is_saved(admin_page):
    person = UserFactory(first_name="Old", email="old@example.org")
    data = as_shown(admin_page, address(person), first_name="New")
    User.objects.filter(pk=person.pk).update(email="newer@example.org")
    assert admin_page.post(address(person), data).status_code == 302
    person.refresh_from_db()
    assert (person.first_name, person.email) == ("New", "newer@example.org")


def test_adding_is_inviting(admin_page):
    assert admin_page.get(USERS + "add/").url == "/people/invite/"


def test_the_invitation_is_mailed_again_to_who_waits_and_nobody_else(admin_page):
    waiting = UserFactory()
    waiting.set_unusable_password()
    waiting.save()
    settled = UserFactory(password="something long enough", last_name="Settled")
    page = act(admin_page, "invite_again", waiting, settled).text
    assert [message.to for message in mail.outbox] == [[waiting.email]]
    assert "Settled" in page


# -- Nothing is deleted ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("superuser", [False, True])
def test_people_labs_and_audit_entries_are_never_deleted(client, staff, root, superuser):
    client.force_login(root if superuser else staff)
    person, lab = UserFactory(), LabFactory()
    entry = AuditEntry.record(actor=staff, action="user invited", target=person)
    for record, base in ((person, USERS), (lab, LABS), (entry, AUDIT)):
        assert "delete_selected" not in client.get(base).text
        assert client.post(f"{base}{record.pk}/delete/", {"post": "yes"}).status_code == 403
    assert User.objects.filter(pk=person.pk).exists()
    assert Lab.objects.filter(pk=lab.pk).exists()
    assert AuditEntry.objects.filter(pk=entry.pk).exists()


@pytest.mark.parametrize("superuser", [False, True])
def test_audit_entries_are_read_only(client, staff, root, superuser):
    client.force_login(root if superuser else staff)
    entry = AuditEntry.record(
        actor=staff, action="session deleted", target=staff, details={"micrographs": 5114, "runs": ["<b>"]}
    )
    page = client.get(address(entry, AUDIT))
    assert "5114" in page.text
    assert "&lt;b&gt;" in page.text
    assert 'name="_save"' not in page.text
    assert client.post(address(entry, AUDIT), {"action": "nothing happened"}).status_code == 403
    assert client.get(AUDIT + "add/").status_code == 403
    entry.refresh_from_db()
    assert entry.action == "session deleted"


# -- Labs ------------------------------------------------------------------------------------------------------
def test_a_lab_gets_and_loses_members(admin_page):
    lab, person = LabFactory(), UserFactory()
    data = as_shown(admin_page, address(lab, LABS))
    data |= {"memberships-0-user": person.pk}
    assert admin_page.post(address(lab, LABS), data).status_code == 302
    membership = lab.memberships.get()
    assert membership.user == person
    data = as_shown(admin_page, address(lab, LABS)) | {"memberships-0-DELETE": "on"}
    assert admin_page.post(address(lab, LABS), data).status_code == 302
    assert not lab.memberships.exists()


def test_every_page_leads_back_to_the_site(admin_page):
    page = admin_page.get(USERS).text
    assert "Back to the site" in page
    assert "/people/logout/" in page
    assert "<script>" not in page  # The Content Security Policy would refuse it.


def test_staff_of_another_facility_group_stay_what_they_are(admin_page):
    """Changing a name does not touch groups."""
    colleague = StaffFactory()
    change(admin_page, address(colleague), first_name="Renamed")
    colleague = User.objects.get(pk=colleague.pk)
    assert colleague.first_name == "Renamed"
    assert colleague.has_perm("people.change_user")
