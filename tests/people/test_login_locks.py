"""Who guesses passwords is locked out for a while; others are not."""

import re
import threading
from datetime import timedelta

import pytest
from axes.models import AccessAttempt
from django.core import mail
from django.core.cache import cache
from django.test import Client
from django.utils import timezone

from tests.factories import PASSWORD, UserFactory

pytestmark = pytest.mark.django_db

LOGIN = "/people/login/"


@pytest.fixture(autouse=True)
def _locks(settings):
    settings.AXES_ENABLED = True
    settings.AXES_FAILURE_LIMIT = 3
    cache.clear()


@pytest.fixture
def ada(db):
    return UserFactory(username="ada", email="Ada@Example.org", password=PASSWORD)


def log_in(name, password=PASSWORD, *, address="192.0.2.1", **fields):
    return Client().post(LOGIN, {"username": name, "password": password, **fields}, REMOTE_ADDR=address)


def guess(name, times=3, **options):
    return [log_in(name, f"guess{n}", **options).status_code for n in range(times)]


def test_after_some_failures_the_right_password_does_not_help_either(ada):
    assert guess("ada") == [200, 200, 429]
    answer = log_in("ada", next="/sessions/")
    assert answer.status_code == 429
    assert answer["Retry-After"] == "900"
    assert "no-store" in answer["Cache-Control"]
    text = " ".join(re.sub("<[^>]*>", "", answer.text).split())
    assert "Too many failed logins with this name from here. Try again in 15 minutes" in text
    assert 'name="password"' in answer.text
    assert 'value="/sessions/"' in answer.text
    assert "_auth_user_id" not in answer.client.session


def test_username_and_address_in_any_case_count_as_one(ada):
    codes = [log_in(name, "wrong").status_code for name in ("ada", "ADA@example.org", "Ada")]
    assert codes == [200, 200, 429]
    assert log_in("ada@example.org").status_code == 429


def test_a_lock_is_for_one_name_at_one_address(ada):
    other = UserFactory(username="grace", password=PASSWORD)
    guess("ada")
    assert log_in(other.username).status_code == 302
    assert log_in("ada", address="192.0.2.2").status_code == 302


def test_behind_a_proxy_the_address_is_the_callers(ada, settings):
    settings.BEHIND_PROXY = True
    for _ in range(3):
        Client().post(
            LOGIN,
            {"username": "ada", "password": "x"},
            REMOTE_ADDR="127.0.0.1",
            HTTP_X_FORWARDED_FOR="192.0.2.7",
        )
    form = {"username": "ada", "password": PASSWORD}
    for address, status in (("192.0.2.7", 429), ("1.1.1.1, 192.0.2.7", 429), ("192.0.2.8", 302)):
        answer = Client().post(LOGIN, form, REMOTE_ADDR="127.0.0.1", HTTP_X_FORWARDED_FOR=address)
        assert answer.status_code == status, address


def test_a_success_forgets_the_failures(ada):
    assert guess("ada", 2) == [200, 200]
    assert log_in("Ada@example.org").status_code == 302
    assert guess("ada", 2) == [200, 200]


def test_a_lock_ends_by_itself_however_often_someone_tries(ada):
    guess("ada")
    AccessAttempt.objects.update(attempt_time=timezone.now() - timedelta(minutes=14))
    assert log_in("ada").status_code == 429
    AccessAttempt.objects.update(attempt_time=timezone.now() - timedelta(minutes=16))
    assert log_in("ada").status_code == 302


def test_names_that_are_nobodys_are_locked_alike_and_not_kept(ada):
    assert guess("my secret passphrase") == [200, 200, 429]
    kept = str(list(AccessAttempt.objects.values()))
    assert "secret" not in kept
    assert "guess" not in kept


def test_a_new_password_by_mail_opens_the_door(ada, client):
    guess("ada", address="127.0.0.1")
    client.post("/people/password/forgotten/", {"email": "ada@example.org"})
    for thread in threading.enumerate():
        if thread.name == "password-reset-mail":
            thread.join(timeout=30)
    path = re.search(r"http://testserver(\S+)", mail.outbox[0].body)[1]
    page = client.get(path, follow=True)
    new = "a new and rather long passphrase"
    address = page.redirect_chain[-1][0]
    assert client.post(address, {"new_password1": new, "new_password2": new}).status_code == 302
    assert log_in("ada", new, address="127.0.0.1").status_code == 302


def test_staff_lift_a_lock(ada, staff, client):
    guess("ada")
    client.force_login(staff)
    page = client.get("/admin/axes/accessattempt/")
    assert page.status_code == 200
    assert "192.0.2.1" in page.text
    attempt = AccessAttempt.objects.get()
    client.post(f"/admin/axes/accessattempt/{attempt.pk}/delete/", {"post": "yes"})
    assert log_in("ada").status_code == 302


def test_a_token_is_not_locked_by_logins(ada, api):
    guess("ada", address="127.0.0.1")
    assert api(microscopes=[]).get("/api/v1/sessions/").status_code == 200
