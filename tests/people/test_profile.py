"""Everyone's own page: name and choices."""

import datetime
import re

import pytest
from django.core.exceptions import ValidationError
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from people import services
from people.models import AuditEntry, Preferences
from tests.factories import (
    BookingFactory,
    LabFactory,
    MembershipFactory,
    MicroscopeFactory,
    StaffFactory,
    UserFactory,
)

pytestmark = pytest.mark.django_db

PROFILE = "/people/me/"
ALL_ON = dict.fromkeys(Preferences.MAILS, "on")
# What stays as it is when the page is saved as it is shown.
USUAL = {name: "on" for name in Preferences.MAILS if getattr(Preferences(), name)}


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
    # That an alert is over is news for those alone who want it.
    off = [name for name in Preferences.MAILS if not getattr(Preferences.of(ada), name)]
    assert off == ["mail_alert_over"]
    for name in Preferences.MAILS:
        choices = {other: "on" for other in Preferences.MAILS if other != name}
        client.post(PROFILE, choices | {"first_name": "Ada", "last_name": "Byron"})
        kept = Preferences.objects.get(user=ada)
        assert [other for other in Preferences.MAILS if not getattr(kept, other)] == [name]


def test_saving_an_unchanged_page_writes_nothing(client, ada):
    answer = client.post(PROFILE, USUAL | {"first_name": "Ada", "last_name": "Byron"}, follow=True)
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


# -- How times are written -------------------------------------------------------------------------------------
def test_times_are_shown_as_the_person_has_chosen_on_every_page(client, ada):
    start = datetime.datetime(2031, 11, 24, 8, 5, tzinfo=datetime.UTC)
    booking = BookingFactory(owner=ada, start=start, end=start + datetime.timedelta(hours=9))
    page = f"/bookings/{booking.pk}/"
    usual = client.get(page).text
    assert 'data-hour-cycle="h23"' in usual
    assert re.search(r"Mon 24 Nov 2031 \d\d:05<", usual)
    form = ALL_ON | {"first_name": "Ada", "last_name": "Byron", "hour_cycle": "h12"}
    assert "Saved." in client.post(PROFILE, form, follow=True).text
    chosen = client.get(page).text
    assert 'data-hour-cycle="h12"' in chosen
    assert re.search(r"Mon 24 Nov 2031 \d\d?:05\xa0[ap]m<", chosen)
    assert re.search(r" \d\d?:05:00\xa0[ap]m ", chosen)  # The exact one on hover.
    assert not re.search(r">[^<]*\b\d\d:05\b(?!\xa0)[^<]*<", chosen)
    # Those of others stay as they were.
    client.force_login(StaffFactory())
    assert re.search(r"Mon 24 Nov 2031 \d\d:05<", client.get(page).text)


def test_what_is_typed_stays_in_24_hours(client, ada):
    Preferences.objects.create(user=ada, hour_cycle="h12")
    MicroscopeFactory()
    assert re.search(r'name="start" value="\d{4}-\d\d-\d\dT\d\d:\d\d"', client.get("/bookings/new/").text)


def test_the_admins_times_follow_too(client):
    staff = StaffFactory()
    client.force_login(staff)
    at = datetime.datetime(2026, 11, 24, 8, 5, tzinfo=datetime.UTC)
    AuditEntry.objects.create(
        at=at, actor_name="x", action="tried", target_type="t", target_id="1", target_name="x"
    )
    page = "/admin/people/auditentry/"
    assert re.search(r"24 Nov 2026 \d\d:05<", client.get(page).text)
    Preferences.objects.create(user=staff, hour_cycle="h12")
    assert re.search(r"24 Nov 2026 \d\d?:05 [ap]\.m\.<", client.get(page).text)


@pytest.mark.parametrize("wrong", ["h11", "h24", "nonsense"])
def test_other_formats_are_refused(client, ada, wrong):
    answer = client.post(PROFILE, ALL_ON | {"last_name": "Byron", "hour_cycle": wrong})
    assert "Select a valid choice" in answer.text
    with pytest.raises(ValidationError):
        services.profile_update(user=ada, hour_cycle=wrong)
    assert Preferences.of(ada).hour_cycle == "h23"


def test_left_out_it_stays_as_it_was(client, ada):
    Preferences.objects.create(user=ada, hour_cycle="h12")
    client.post(PROFILE, ALL_ON | {"first_name": "Ada", "last_name": "Byron"})
    assert Preferences.objects.get(user=ada).hour_cycle == "h12"


def test_the_choice_costs_no_query_of_its_own(client, ada):
    def queries():
        with CaptureQueriesContext(connection) as captured:
            client.get("/bookings/")
        return [one["sql"] for one in captured if '"people_preferences"' in one["sql"]]

    assert len(queries()) == 1
    Preferences.objects.create(user=ada, hour_cycle="h12")
    assert len(queries()) == 1
