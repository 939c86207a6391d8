"""What all tests share.

What a machine lacks is skipped and the reason printed: browser tests without an installed Chromium, PostgreSQL
tests on SQLite. EMHUB_REQUIRE_BROWSER=1 and EMHUB_REQUIRE_POSTGRES=1 turn what is missing into failures.
"""

import os
import shutil
from pathlib import Path

import pytest
from django.conf import settings as django_settings
from django.db import connection
from rest_framework.test import APIClient

from tests.factories import StaffFactory, UserFactory, make_token

# Playwright leaves an event loop in its thread, and Django would then refuse the database to every test after it.
os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"

BROWSER_TESTS = Path(__file__).parent / "browser"


def find_chromium():
    """The installed Chromium to use (CHROMIUM names one), and why there is none."""
    named = os.environ.get("CHROMIUM")
    if named:
        return (shutil.which(named), f"CHROMIUM={named} is no command here")
    names = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"]
    found = next(filter(None, map(shutil.which, names)), None)
    return (found, "no Chromium on PATH (CHROMIUM names one elsewhere)")


def pytest_configure():
    """Tests speak plain http, for all of the run: the live server reads this before any test's own settings.

    With a DATABASE_URL the site expects https.
    """
    for name in ("SECURE_SSL_REDIRECT", "SESSION_COOKIE_SECURE", "CSRF_COOKIE_SECURE"):
        setattr(django_settings, name, False)
    # No thread of its own sends mails beside a test's transaction; tests of mails call for it.
    django_settings.SEND_MAIL_AT_ONCE = False


def pytest_collection_modifyitems(items):
    for item in items:
        if BROWSER_TESTS in item.path.parents:
            item.add_marker("browser")
        if item.get_closest_marker("browser"):
            # One worker starts the browser once for all of them.
            item.add_marker(pytest.mark.xdist_group("browser"))
        if isinstance(item, pytest.Function) and "at_once" in item.function.__code__.co_names:
            item.add_marker("concurrency")


def _missing(reason, variable):
    if os.environ.get(variable, "") not in ("", "0"):
        pytest.fail(f"{reason}, and {variable} asks for it", pytrace=False)
    pytest.skip(reason)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Before any fixture: a missing browser must not be started first."""
    if item.get_closest_marker("browser"):
        chromium, why_not = find_chromium()
        if not chromium:
            _missing(why_not, "EMHUB_REQUIRE_BROWSER")
    if item.get_closest_marker("postgres") and connection.vendor != "postgresql":
        _missing("no PostgreSQL: DATABASE_URL names none", "EMHUB_REQUIRE_POSTGRES")
    if item.get_closest_marker("sqlite") and connection.vendor != "sqlite":
        pytest.skip("about SQLite alone")


@pytest.fixture(scope="session")
def browser_type_launch_args(browser_type_launch_args):
    """pytest-playwright starts the installed Chromium, and it talks to nobody but the tests' server."""
    quiet = [
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--disable-quic",
    ]
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    return {
        **browser_type_launch_args,
        "executable_path": find_chromium()[0],
        "args": [*quiet, *sandbox, "--no-first-run", "--disable-gpu"],
    }


@pytest.fixture(scope="session")
def django_db_modify_db_settings(django_db_modify_db_settings_parallel_suffix, tmp_path_factory):
    """SQLite in a file, as the site has it: an in-memory database has no WAL and locks its tables otherwise."""
    if connection.vendor == "sqlite":
        connection.settings_dict["TEST"]["NAME"] = str(tmp_path_factory.mktemp("database") / "test.sqlite3")


@pytest.fixture(autouse=True)
def _plain_site(settings, tmp_path):
    """Tests need no collected static files, no slow hashing, and a media folder of their own."""
    settings.STORAGES = {
        **django_settings.STORAGES,
        "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
    }
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    settings.MEDIA_ROOT = tmp_path / "media"
    # Tests log in without a request, and call faster than anyone from one address. Those about either switch it on.
    settings.AXES_ENABLED = False
    settings.API_RATE_PER_TOKEN = settings.API_RATE_PER_ADDRESS = 0


@pytest.fixture
def staff(db):
    return StaffFactory()


@pytest.fixture
def user(db):
    return UserFactory()


@pytest.fixture
def api():
    """Makes an API client for a person (the login cookie) or for a pipeline's microscopes (a token)."""

    def make(person=None, *, microscopes=None, key=None):
        client = APIClient()
        if person is not None:
            client.force_login(person)
        elif key is not None or microscopes is not None:
            key = key or make_token(*microscopes)[1]
            client.credentials(HTTP_AUTHORIZATION=f"Token {key}")
        return client

    return make
