"""What load balancers and `make run` ask."""

import pytest
from django.db import OperationalError, connection


@pytest.mark.django_db
def test_a_working_site_says_so_to_anybody(client):
    answer = client.get("/health/")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
    assert "no-store" in answer["Cache-Control"]


def test_a_site_without_its_database_says_503(client, monkeypatch):
    def gone():
        raise OperationalError("gone")

    monkeypatch.setattr(connection, "cursor", gone)
    answer = client.get("/health/")
    assert answer.status_code == 503
    assert "gone" not in answer.content.decode()


@pytest.mark.django_db
def test_it_is_not_sent_to_https(client, settings):
    settings.SECURE_SSL_REDIRECT = True
    assert client.get("/health/").status_code == 200
    assert client.get("/people/").status_code == 301


def test_it_cannot_be_posted_to(client):
    assert client.post("/health/").status_code == 405
