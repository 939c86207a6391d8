"""The door: logging in and out, passwords, and inviting."""

import re
import time

import pytest
from django.core import mail
from django.core.cache import cache
from django.db import connection
from django.template.loader import get_template
from django.test import Client, RequestFactory
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone
from django.views.defaults import server_error

from people.models import STAFF_GROUP, AuditEntry, User
from tests.factories import PASSWORD, LabFactory, ServiceUserFactory, UserFactory

pytestmark = pytest.mark.django_db

LOGIN = "/people/login/"
INVITE = "/people/invite/"
NEW = "a new and rather long passphrase"


@pytest.fixture(autouse=True)
def _no_pause():
    cache.clear()


@pytest.fixture
def ada(db):
    return UserFactory(username="ada", email="Ada@Example.org", password=PASSWORD)


def log_in(client, username, password=PASSWORD, **fields):
    return client.post(LOGIN, {"username": username, "password": password, **fields})


# -- Login -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["ada", "ADA", "ada@example.org"])
def test_log_in_by_username_or_e_mail_in_any_case(client, ada, name):
    answer = log_in(client, name)
    assert answer.status_code == 302
    assert answer.url == reverse("sessions:dashboard")
    assert client.session["_auth_user_id"] == str(ada.pk)


def test_log_in_leads_to_where_one_wanted_to_go_but_never_elsewhere(client, ada):
    assert log_in(client, "ada", next="/sessions/?lab=1").url == "/sessions/?lab=1"
    client.logout()
    assert log_in(client, "ada", next="https://evil.example.org/").url == reverse("sessions:dashboard")


def test_a_wrong_password_and_an_unknown_name_read_the_same(client, ada):
    texts = []
    for name in ("ada", "nobody"):
        answer = log_in(client, name, "wrong")
        assert answer.status_code == 200
        texts.append(re.search(r"No account fits[^<]*", answer.text)[0])
    assert texts[0] == texts[1]


@pytest.mark.parametrize(
    "maker", [lambda: UserFactory(is_active=False, password=PASSWORD), ServiceUserFactory]
)
def test_deactivated_people_and_programs_do_not_log_in(client, maker):
    user = maker()
    user.set_password(PASSWORD)
    user.save()
    assert "No account fits" in log_in(client, user.username).text


def test_whoever_is_logged_in_is_not_asked_again(client, ada):
    client.force_login(ada)
    assert client.get(LOGIN).url == reverse("sessions:dashboard")


@pytest.mark.parametrize(
    "name", ["people:password_change", "people:invite", "sessions:dashboard", "bookings:list"]
)
def test_pages_need_a_login(client, db, name):
    address = reverse(name)
    answer = client.get(address)
    assert answer.status_code == 302
    assert answer.url == f"{LOGIN}?next={address}"


def test_the_admin_uses_the_same_door(client, ada, staff):
    answer = client.get("/admin/people/user/", follow=True)
    assert answer.redirect_chain[-1][0] == f"{LOGIN}?next=/admin/people/user/"
    client.force_login(ada)
    assert client.get("/admin/people/user/", follow=True).status_code == 403
    client.force_login(staff)
    assert client.get("/admin/login/").url == "/admin/"


def test_logging_out_is_by_post_alone(client, ada):
    client.force_login(ada)
    assert client.get("/people/logout/").status_code == 405
    assert "_auth_user_id" in client.session
    assert client.post("/people/logout/").url == LOGIN
    assert "_auth_user_id" not in client.session


# -- Passwords -------------------------------------------------------------------------------------------------
def test_changing_the_password_logs_other_browsers_out(client, ada):
    other = Client()
    other.force_login(ada)
    client.force_login(ada)
    fields = {"old_password": PASSWORD, "new_password1": NEW, "new_password2": NEW}
    assert "incorrect" in client.post("/people/password/", fields | {"old_password": "x"}).text
    answer = client.post("/people/password/", fields, follow=True)
    assert "Your password was changed" in answer.text
    assert other.get("/people/password/").status_code == 302
    ada.refresh_from_db()
    assert ada.check_password(NEW)


def ask_for_link(client, email):
    answer = client.post("/people/password/forgotten/", {"email": email}, follow=True)
    deadline = time.monotonic() + 5
    while (
        not mail.outbox and User.objects.filter(email__iexact=email).exists() and time.monotonic() < deadline
    ):
        time.sleep(0.01)  # The mail leaves in a thread of its own.
    return answer


def link_in(message) -> str:
    return re.search(r"http://[^/]+(/people/password/set/\S+)", message.body)[1]


def set_password(client, link, password=NEW):
    page = client.get(link, follow=True)
    assert page.status_code == 200
    return client.post(
        page.request["PATH_INFO"], {"new_password1": password, "new_password2": password}, follow=True
    )


def test_a_forgotten_password_is_set_anew_by_mail(client, ada):
    ask_for_link(client, "ada@example.org")
    (message,) = mail.outbox
    assert message.to == ["Ada@Example.org"]
    assert "7 days" in message.body
    link = link_in(message)
    assert "Your password is set" in set_password(client, link).text
    assert client.session["_auth_user_id"] == str(ada.pk)
    client.logout()
    assert "This link does not work" in client.get(link, follow=True).text
    assert log_in(client, "ada", NEW).status_code == 302


def test_a_weak_password_is_refused_in_words(client, ada):
    ask_for_link(client, "ada@example.org")
    answer = set_password(client, link_in(mail.outbox[0]), "short")
    assert "too short" in answer.text
    ada.refresh_from_db()
    assert ada.check_password(PASSWORD)


def test_nobody_learns_which_addresses_are_known(client, ada):
    known = ask_for_link(client, "ada@example.org")
    unknown = ask_for_link(client, "nobody@example.org")
    assert known.status_code == unknown.status_code == 200
    assert known.redirect_chain == unknown.redirect_chain
    assert known.text.replace("ada@", "") == unknown.text.replace("nobody@", "")
    assert len(mail.outbox) == 1


def test_a_mailbox_is_not_filled_by_asking_again_and_again(client, ada):
    for _ in range(5):
        ask_for_link(client, "ada@example.org")
    assert len(mail.outbox) == 1


def test_no_link_for_who_cannot_log_in_or_logs_in_elsewhere(client, db):
    UserFactory(email="gone@example.org", is_active=False)
    UserFactory(email="program@example.org", is_service=True)
    directory = UserFactory(email="directory@example.org", last_login=timezone.now())
    directory.set_unusable_password()
    directory.save()
    for name in ("gone", "program", "directory"):
        client.post("/people/password/forgotten/", {"email": f"{name}@example.org"})
    time.sleep(0.1)
    assert mail.outbox == []


# -- Inviting --------------------------------------------------------------------------------------------------
def invitation(**fields):
    return {"first_name": "Grace", "last_name": "Hall", "email": "grace@example.org", "role": "user"} | fields


def test_an_invited_user_sets_a_password_and_comes_in(client, staff):
    lab = LabFactory()
    client.force_login(staff)
    answer = client.post(INVITE, invitation(labs=[lab.pk]), follow=True)
    grace = User.objects.get(email="grace@example.org")
    assert grace.username == "grace.hall"
    assert not grace.has_usable_password()
    assert not grace.is_staff
    assert list(grace.labs.all()) == [lab]
    assert "mailed to grace@example.org" in answer.text
    (message,) = mail.outbox
    assert message.to == ["grace@example.org"]
    assert str(staff) in message.body
    assert AuditEntry.objects.get(action="user invited").actor == staff

    person = Client()
    assert "Your password is set" in set_password(person, link_in(message)).text
    assert person.session["_auth_user_id"] == str(grace.pk)


def test_the_page_shows_the_link_until_the_password_is_set(client, staff):
    client.force_login(staff)
    page = client.post(INVITE, invitation(), follow=True)
    grace = User.objects.get(email="grace@example.org")
    link = re.search(r'value="http://testserver(/people/password/set/[^"]+)"', page.text)[1]
    assert "no-store" in page.headers["Cache-Control"]
    assert "Grace Hall" in client.get(INVITE).text
    set_password(Client(), link)
    address = reverse("people:invitation", args=[grace.pk])
    page = client.get(address)
    assert "/people/password/set/" not in page.text
    assert "No invitation is needed" in page.text
    assert "Grace Hall" not in client.get(INVITE).text
    mail.outbox.clear()
    client.post(reverse("people:invitation_send", args=[grace.pk]))
    assert mail.outbox == []


def test_inviting_again_sends_a_new_link(client, staff):
    client.force_login(staff)
    client.post(INVITE, invitation())
    grace = User.objects.get(email="grace@example.org")
    answer = client.post(reverse("people:invitation_send", args=[grace.pk]), follow=True)
    assert "mailed to grace@example.org" in answer.text
    assert len(mail.outbox) == 2


def test_a_mail_that_cannot_be_sent_is_said_and_the_account_stays(client, staff, monkeypatch):
    def refuse(**kwargs):
        raise ConnectionRefusedError("no mail server")

    monkeypatch.setattr("people.invitations.send_mail", refuse)
    client.force_login(staff)
    answer = client.post(INVITE, invitation(), follow=True)
    assert "could not be sent" in answer.text
    assert "/people/password/set/" in answer.text


def test_invited_staff_are_staff_with_the_groups_permissions(client, staff):
    client.force_login(staff)
    client.post(INVITE, invitation(role="staff"))
    grace = User.objects.get(email="grace@example.org")
    assert grace.is_staff
    assert not grace.is_superuser
    assert [group.name for group in grace.groups.all()] == [STAFF_GROUP]


def test_an_address_that_someone_has_is_refused_at_its_field(client, staff, ada):
    client.force_login(staff)
    answer = client.post(INVITE, invitation(email="ADA@example.org"))
    assert answer.status_code == 200
    assert answer.context["form"].errors["email"] == ["Another user has this e-mail address."]
    assert answer.context["form"]["first_name"].value() == "Grace"
    assert not User.objects.filter(first_name="Grace").exists()
    assert mail.outbox == []


def test_namesakes_get_names_of_their_own(client, staff):
    client.force_login(staff)
    for number in range(3):
        client.post(
            INVITE, invitation(first_name="Zoë", last_name="Åkesson-Li", email=f"z{number}@example.org")
        )
    names = User.objects.filter(first_name="Zoë").order_by("pk").values_list("username", flat=True)
    assert list(names) == ["zoe.akesson.li", "zoe.akesson.li2", "zoe.akesson.li3"]


@pytest.mark.parametrize("address", [INVITE, "/people/invitations/{pk}/", "/people/invitations/{pk}/send/"])
def test_only_who_may_add_users_invites(client, user, address):
    person = UserFactory()
    person.set_unusable_password()
    person.save()
    address = address.format(pk=person.pk)
    client.force_login(user)
    ask = client.post if address.endswith("send/") else client.get
    assert ask(address).status_code == 403
    powerless = UserFactory(is_staff=True)
    client.force_login(powerless)
    assert ask(address).status_code == 403
    assert INVITE not in client.get("/people/password/").text
    assert mail.outbox == []


def test_no_link_into_a_superusers_account(client, staff):
    root = UserFactory(is_superuser=True, is_staff=True)
    root.set_unusable_password()
    root.save()
    client.force_login(staff)
    assert "/people/password/set/" not in client.get(reverse("people:invitation", args=[root.pk])).text


def test_the_invite_page_costs_the_same_however_many_wait(client, staff):
    client.force_login(staff)

    def wait(number):
        for _ in range(number):
            person = UserFactory()
            person.set_unusable_password()
            person.save()

    wait(1)
    with CaptureQueriesContext(connection) as one:
        client.get(INVITE)
    wait(9)
    with CaptureQueriesContext(connection) as ten:
        client.get(INVITE)
    assert len(ten) == len(one)


# -- Error pages -----------------------------------------------------------------------------------------------
def test_not_found_has_the_sites_look_and_a_way_on(client, ada):
    client.force_login(ada)
    answer = client.get("/no/such/page/")
    assert answer.status_code == 404
    assert "There is nothing here" in answer.text
    assert reverse("sessions:dashboard") in answer.text
    assert "Log out" in answer.text


def test_not_found_needs_no_login(client, db):
    answer = client.get("/no/such/page/")
    assert answer.status_code == 404
    assert "You are not logged in" in answer.text


def test_forbidden_says_why(client, ada):
    client.force_login(ada)
    answer = client.get(INVITE)
    assert answer.status_code == 403
    assert "This is not yours to do" in answer.text


def test_a_stale_form_is_explained(ada):
    client = Client(enforce_csrf_checks=True)
    answer = client.post(LOGIN, {"username": "ada", "password": PASSWORD})
    assert answer.status_code == 403
    assert "Nothing was saved yet" in answer.text


def test_the_page_of_a_failing_site_needs_no_database_and_no_static_files(settings, django_db_blocker):
    settings.STORAGES = settings.STORAGES | {
        "staticfiles": {"BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"}
    }
    with django_db_blocker.block():
        answer = server_error(RequestFactory().get("/"))
    assert answer.status_code == 500
    assert "Something went wrong at the site" in answer.content.decode()


def test_a_malformed_request_is_explained_without_a_request_at_hand():
    assert "did not understand" in get_template("400.html").render()
