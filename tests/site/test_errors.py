"""Where no view answers, programs are told in JSON and people by a page."""

import pytest

from sessions_app.api import viewsets

pytestmark = pytest.mark.django_db


def test_a_name_that_is_not_the_sites_is_told_as_such(client):
    answer = client.get("/api/v1/sessions/", HTTP_HOST="elsewhere.example.org")
    assert answer.status_code == 400
    assert "not known by this name" in answer.json()["detail"]
    assert "elsewhere" not in answer.content.decode()
    page = client.get("/sessions/", HTTP_HOST="elsewhere.example.org")
    assert (page.status_code, page["Content-Type"].partition(";")[0]) == (400, "text/html")


def test_what_goes_wrong_on_our_side_is_json_for_programs(client, api, user, monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("a secret of the machine")

    monkeypatch.setattr(viewsets.SessionViewSet, "get_queryset", fail)
    caller = api(user)
    caller.raise_request_exception = False
    answer = caller.get("/api/v1/sessions/")
    assert answer.status_code == 500
    assert "log" in answer.json()["detail"]
    assert "secret" not in answer.content.decode()
