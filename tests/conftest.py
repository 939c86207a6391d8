"""What all tests share."""

import pytest
from django.conf import settings as django_settings
from rest_framework.test import APIClient

from tests.factories import StaffFactory, UserFactory, make_token


@pytest.fixture(autouse=True)
def _plain_site(settings, tmp_path):
    """Tests need no collected static files, no slow hashing, and a media folder of their own."""
    settings.STORAGES = {
        **django_settings.STORAGES,
        "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
    }
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    settings.MEDIA_ROOT = tmp_path / "media"


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
