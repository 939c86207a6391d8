"""Everyone's own page: name and choices."""

import pytest
from django.core.exceptions import ValidationError
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from people import services
from people.models import AuditEntry, Preferences
from tests.factories import LabFactory, MembershipFactory, UserFactory

pytestmark = pytest.mark.django_db

PROFILE = "/people/me/"
ALL_ON = dict.fromkeys(Preferences.MAILS, "on")


@pytest.fixture
def ada(client):
    user = UserFactory(first_name="Ada", last_name="Byron", email="ada@example.org")
    client.force_login(user)
    return user


def test_the_page_needs_a_login(client):
    assert client.get(PROFILE).status_code == 302


def test_the_page_shows_oneself_and_ones_labs_and_is_in_the_menu(client, ada):
    own = MembershipFactory(user=ada, lab__name="Hall lab").lab
    LabFactory(name="Stranger lab")
    text = client.get(PROFILE).text
    assert "Ada Byron" in text
    assert "Hall lab" in text
    assert f"led by {own.pi}" in text
    assert "Stranger lab" not in text
    assert f'href="{reverse("people:profile")}"' in client.get("/bookings/").text


def test_a_name_is_changed_and_written_down(client, ada):
    answer = client.post(PROFILE, ALL_ON | {"first_name": " Ada ", "last_name": "Lovelace"}, follow=True)
    assert "Saved." in answer.text
    ada.refresh_from_db()
    assert str(ada) == "Ada Lovelace"
    entry = AuditEntry.objects.get(action="own name changed")
    assert entry.details == {"before": "Ada Byron"}


def test_nobody_is_left_without_a_name(client, ada):
    answer = client.post(PROFILE, ALL_ON | {"first_name": "", "last_name": " "})
    assert "Write the name by which others know you." in answer.text
    ada.refresh_from_db()
    assert ada.last_name == "Byron"


def test_every_kind_of_mail_is_on_until_it_is_switched_off(client, ada):
    assert all(getattr(Preferences.of(ada), name) for name in Preferences.MAILS)
    for name in Preferences.MAILS:
        choices = {other: "on" for other in Preferences.MAILS if other != name}
        client.post(PROFILE, choices | {"first_name": "Ada", "last_name": "Byron"})
        kept = Preferences.objects.get(user=ada)
        assert [other for other in Preferences.MAILS if not getattr(kept, other)] == [name]


def test_saving_an_unchanged_page_writes_nothing(client, ada):
    answer = client.post(PROFILE, ALL_ON | {"first_name": "Ada", "last_name": "Byron"}, follow=True)
    assert "Nothing was changed." in answer.text
    assert not AuditEntry.objects.exists()
    assert not Preferences.objects.exists()


def test_what_belongs_to_the_staff_cannot_be_changed_by_this_way(client, ada):
    fields = {"first_name": "Ada", "last_name": "Byron", "email": "x@example.org", "is_staff": "on"}
    client.post(PROFILE, ALL_ON | fields)
    ada.refresh_from_db()
    assert (ada.email, ada.is_staff) == ("ada@example.org", False)
    with pytest.raises(TypeError):
        services.profile_update(user=ada, is_staff=True)


def test_too_long_a_name_is_refused(ada):
    with pytest.raises(ValidationError) as caught:
        services.profile_update(user=ada, first_name="a" * 151)
    assert "first_name" in caught.value.message_dict


def test_a_person_without_an_address_is_told_so(client):
    client.force_login(UserFactory(email=""))
    assert "has no e-mail address" in client.get(PROFILE).text


def test_the_page_costs_the_same_whatever_the_number_of_labs(client, ada):
    MembershipFactory(user=ada)
    with CaptureQueriesContext(connection) as one:
        client.get(PROFILE)
    for _ in range(8):
        MembershipFactory(user=ada)
    with CaptureQueriesContext(connection) as many:
        client.get(PROFILE)
    assert len(many) == len(one) <= 12
