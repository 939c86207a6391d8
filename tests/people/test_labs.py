"""A lab's page: its head and the staff take people in and out, members look, strangers find nothing."""

import datetime

import pytest
from django.core import mail
from django.core.cache import cache
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from people import outbox
from people.models import AuditEntry, Membership, OutgoingMail, User
from tests.factories import (
    BookingFactory,
    LabFactory,
    MembershipFactory,
    ServiceUserFactory,
    StaffFactory,
    UserFactory,
)

pytestmark = pytest.mark.django_db
NEW = {"email": "new@example.org", "first_name": "Rosalind", "last_name": "Franklin"}


@pytest.fixture(autouse=True)
def _no_pause():
    cache.clear()


@pytest.fixture
def lab():
    return LabFactory(name="Hall lab")


@pytest.fixture
def member(lab):
    return MembershipFactory(lab=lab, user__email="member@example.org").user


def page(lab):
    return f"/people/labs/{lab.pk}/"


def test_who_sees_and_who_manages(client, lab, member, staff):
    for person, status, manages in (
        (lab.pi, 200, True),
        (staff, 200, True),
        (member, 200, False),
        (LabFactory().pi, 404, False),
    ):
        client.force_login(person)
        answer = client.get(page(lab))
        assert answer.status_code == status
        assert ("Add someone" in answer.text) == manages
        assert ("member@example.org" in answer.text.replace(f"<span>{person.email}", "")) == manages
        remove = f"{page(lab)}members/{member.pk}/remove/"
        expected = 200 if manages else {200: 403, 404: 404}[status]
        assert client.get(remove).status_code == expected
        assert client.post(page(lab), NEW).status_code == (302 if manages else expected)
        User.objects.filter(email="new@example.org").delete()
    assert Membership.objects.filter(lab=lab, user=member).exists()


def test_the_head_invites_someone_new_who_gets_the_link_that_the_head_never_sees(client, lab):
    client.force_login(lab.pi)
    answer = client.post(page(lab), NEW, follow=True)
    assert "Rosalind Franklin gets a mail" in answer.text
    assert "/password/set/" not in answer.text
    person = User.objects.get(email="new@example.org")
    assert [membership.lab for membership in person.memberships.all()] == [lab]
    assert not person.is_staff
    assert AuditEntry.objects.get(action="user invited").actor == lab.pi
    outbox.send_due()
    (message,) = mail.outbox
    assert message.to == ["new@example.org"]
    link = next(line for line in message.body.splitlines() if "/password/set/" in line)
    client.logout()
    assert "Set your password" in client.get(link.replace("http://testserver", ""), follow=True).text


def test_the_heads_way_in_makes_nobody_staff(client, lab):
    client.force_login(lab.pi)
    client.post(page(lab), NEW | {"is_staff": "on", "role": "staff"})
    assert not User.objects.get(email="new@example.org").is_staff
    assert client.get("/people/invite/").status_code == 403


def test_who_has_an_account_becomes_a_member_by_the_address_alone(client, lab):
    known = UserFactory(email="Known@example.org")
    client.force_login(lab.pi)
    answer = client.post(page(lab), {"email": "known@EXAMPLE.org"}, follow=True)
    assert f"{known} has an account here and is a member now." in answer.text
    assert Membership.objects.filter(lab=lab, user=known).exists()
    assert AuditEntry.objects.get().details == {"person": str(known)}
    assert not OutgoingMail.objects.exists()


@pytest.mark.parametrize(
    ("email", "told"),
    [
        ("nobody@example.org", "write their first and last name"),
        ("member@example.org", "is a member already"),
        ("pi@example.org", "leads this lab"),
        ("gone@example.org", "not in use any more"),
        ("robot@example.org", "not in use any more"),
        ("no address", "Enter a valid email address"),
    ],
)
def test_what_cannot_be_is_said_at_its_field(client, lab, member, email, told):
    User.objects.filter(pk=lab.pi_id).update(email="pi@example.org")
    UserFactory(email="gone@example.org", is_active=False)
    ServiceUserFactory(email="robot@example.org")
    before = Membership.objects.count()
    client.force_login(lab.pi)
    assert told in client.post(page(lab), {"email": email}).text
    assert Membership.objects.count() == before


def test_removing_asks_first_and_names_the_bookings_to_come(client, lab, member):
    BookingFactory(owner=member, lab=lab, start=timezone.now() + datetime.timedelta(days=1))
    client.force_login(lab.pi)
    address = f"{page(lab)}members/{member.pk}/remove/"
    text = client.get(address).text
    assert "1 booking to come is" in text
    assert Membership.objects.filter(user=member).exists()
    assert "is not in Hall lab any more" in client.post(address, follow=True).text
    assert not Membership.objects.filter(user=member).exists()
    assert AuditEntry.objects.get().action == "lab member removed"
    assert client.post(address).status_code == 404


def test_only_members_of_this_lab_can_be_touched(client, lab):
    client.force_login(lab.pi)
    for person in (UserFactory(), MembershipFactory().user, StaffFactory()):
        for act in ("remove", "invite"):
            assert client.post(f"{page(lab)}members/{person.pk}/{act}/").status_code == 404


def test_an_invitation_is_mailed_again_once_a_minute_and_to_nobody_with_a_password(client, lab, member):
    client.force_login(lab.pi)
    client.post(page(lab), NEW)
    person = User.objects.get(email="new@example.org")
    address = f"{page(lab)}members/{person.pk}/invite/"
    client.post(address)
    assert "just been sent" in client.post(address, follow=True).text
    assert OutgoingMail.objects.count() == 2
    member.set_password("something long enough")
    member.save()
    answer = client.post(f"{page(lab)}members/{member.pk}/invite/", follow=True)
    assert "needs no invitation" in answer.text
    assert OutgoingMail.objects.count() == 2


def test_the_head_cannot_have_a_staff_members_link_sent(client, lab):
    colleague = MembershipFactory(lab=lab, user=StaffFactory()).user
    colleague.set_unusable_password()
    colleague.save()
    client.force_login(lab.pi)
    client.post(f"{page(lab)}members/{colleague.pk}/invite/")
    assert not OutgoingMail.objects.exists()


def test_the_page_costs_the_same_for_a_large_lab(client, lab, member):
    client.force_login(lab.pi)
    with CaptureQueriesContext(connection) as one:
        client.get(page(lab))
    for _ in range(12):
        MembershipFactory(lab=lab)
    with CaptureQueriesContext(connection) as many:
        client.get(page(lab))
    assert len(many) == len(one) <= 8
