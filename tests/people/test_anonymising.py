"""A person is taken out of the site for good, and the records stay."""

import datetime

import pytest
from django.contrib.auth.models import Group
from django.core.exceptions import PermissionDenied, ValidationError
from django.utils import timezone

from bookings import feeds
from people import outbox, services
from people.anonymising import user_anonymise
from people.models import AuditEntry, Membership, OutgoingMail, Preferences, User
from tests.factories import BookingFactory, LabFactory, MembershipFactory, UserFactory

pytestmark = pytest.mark.django_db


@pytest.fixture
def ada(staff):
    user = UserFactory(
        username="ada", first_name="Ada", last_name="Byron", email="ada@example.org", password="x"
    )
    Preferences.objects.create(user=user)
    MembershipFactory(user=user)
    feeds.feed_make(user=user, scope="mine")
    outbox.queue(to=user, subject="x", body="Dear Ada")
    user.groups.add(Group.objects.create(name="Users of Krios"))
    AuditEntry.record(actor=user, action="session deleted", target=LabFactory())
    services.user_set_active(actor=staff, user=user, is_active=False)
    user.refresh_from_db()
    return user


def page(user):
    return f"/people/{user.pk}/anonymise/"


def test_nothing_of_the_person_is_left_and_the_records_are(client, staff, ada):
    booking = BookingFactory(owner=ada)
    client.force_login(staff)
    assert "This cannot be undone." in client.get(page(ada)).text
    answer = client.post(page(ada), {"typed": "ada"}, follow=True)
    assert f"Ada Byron is Former user {ada.pk} from now on." in answer.text
    ada.refresh_from_db()
    assert (str(ada), ada.email, ada.is_active, ada.has_usable_password()) == (
        f"Former user {ada.pk}",
        "",
        False,
        False,
    )
    assert ada.anonymised_at is not None
    booking.refresh_from_db()
    assert booking.owner == ada
    assert not Membership.objects.filter(user=ada).exists()
    assert not Preferences.objects.exists()
    assert not OutgoingMail.objects.exists()
    assert not ada.calendar_feeds.exists()
    assert not ada.groups.exists()
    assert AuditEntry.objects.get(action="user anonymised").actor == staff
    told = str(list(AuditEntry.objects.values_list("actor_name", "target_name", "details")))
    assert "Byron" not in told
    assert "ada@" not in told
    columns = str(User.objects.filter(pk=ada.pk).values())
    assert "Byron" not in columns
    assert "ada" not in columns.lower()


def test_the_username_must_be_typed(client, staff, ada):
    client.force_login(staff)
    assert "Type ada to confirm." in client.post(page(ada), {"typed": "Ada Byron"}).text
    ada.refresh_from_db()
    assert ada.email == "ada@example.org"


def test_only_who_was_deactivated_and_leads_no_lab(client, staff, ada):
    active = UserFactory()
    client.force_login(staff)
    assert "Deactivate" in client.get(page(active)).text
    LabFactory(pi=ada, name="Byron lab")
    assert "leads Byron lab" in client.get(page(ada)).text
    for user in (active, ada):
        with pytest.raises(ValidationError):
            user_anonymise(actor=staff, user=user, typed=user.username)


def test_there_is_no_way_back(staff, ada):
    user_anonymise(actor=staff, user=ada, typed="ada")
    with pytest.raises(ValidationError):
        user_anonymise(actor=staff, user=ada, typed=f"former-user-{ada.pk}")
    with pytest.raises(ValidationError, match="nobody's any more"):
        services.user_set_active(actor=staff, user=ada, is_active=True)


def test_it_is_for_staff_alone(client, ada, staff):
    user = UserFactory()
    client.force_login(user)
    assert client.get(page(ada)).status_code == 403
    assert client.post(page(ada), {"typed": "ada"}).status_code == 403
    with pytest.raises(PermissionDenied):
        user_anonymise(actor=user, user=ada, typed="ada")
    root = UserFactory(is_superuser=True, is_active=False)
    client.force_login(staff)
    assert client.get(page(root)).status_code == 403


def test_the_list_of_users_leads_there_for_one_at_a_time(client, staff, ada):
    client.force_login(staff)
    fields = {"action": "anonymise", "_selected_action": [ada.pk]}
    assert client.post("/admin/people/user/", fields).url == page(ada)
    fields["_selected_action"].append(staff.pk)
    assert "one account at a time" in client.post("/admin/people/user/", fields, follow=True).text


def test_the_name_goes_from_what_is_told_of_other_records_too(staff, ada):
    ada.first_name, ada.last_name = "Inês", "Duarte"
    ada.save()
    lab = LabFactory()
    AuditEntry.record(actor=staff, action="lab member added", target=lab, details={"person": "Inês Duarte"})
    told = {"owner": ["Inês Duarte", "Grace Hopper"], "title": ["Samples of Inês Duarte", ""]}
    AuditEntry.record(actor=staff, action="booking changed", target=lab, details=told)
    user_anonymise(actor=staff, user=ada, typed="ada")
    former = f"Former user {ada.pk}"
    assert AuditEntry.objects.get(action="lab member added").details == {"person": former}
    kept = AuditEntry.objects.get(action="booking changed").details
    assert kept["owner"] == [former, "Grace Hopper"]
    assert kept["title"][0] == "Samples of Inês Duarte"  # What people wrote stays.


def test_a_name_that_two_have_is_kept_for_the_other(staff, ada):
    UserFactory(first_name="Ada", last_name="Byron")
    AuditEntry.record(
        actor=staff, action="lab member added", target=LabFactory(), details={"person": "Ada Byron"}
    )
    user_anonymise(actor=staff, user=ada, typed="ada")
    assert AuditEntry.objects.get(action="lab member added").details == {"person": "Ada Byron"}


def test_bookings_to_come_are_told_before(client, staff, ada):
    client.force_login(staff)
    assert "to come keep" not in client.get(page(ada)).text
    BookingFactory(owner=ada, start=timezone.now() + datetime.timedelta(days=1))
    assert "1 booking to come keeps the time" in client.get(page(ada)).text
