"""Who may read and who may write, at every address of this app."""

import pytest

from tests.factories import (
    MembershipFactory,
    MicroscopeFactory,
    SessionFactory,
    UserFactory,
    make_token,
)

pytestmark = pytest.mark.django_db


@pytest.fixture
def addresses(pipeline):
    """(method, address, body) of every call, each valid for the session's own pipeline."""
    pipeline.post({"name": "a", "coordinates": [[1, 1]]})
    micrograph = pipeline.rows()["a"]["id"]
    base, run = pipeline.base, pipeline.url
    reads = [
        f"{base}exposures/",
        f"{base}runs/",
        f"{base}summary/",
        run,
        f"{run}micrographs/",
        f"{run}classes/",
        f"{run}events/",
        f"/api/v1/micrographs/{micrograph}/coordinates/",
    ]
    writes = [
        ("post", f"{base}exposures/", {"exposures": [{"name": "a"}]}),
        ("post", f"{base}runs/", {"key": "relion", "software": "RELION"}),
        ("patch", run, {"label": "x"}),
        ("post", f"{run}micrographs/", {"micrographs": [{"name": "a"}]}),
        ("post", f"{run}classes/", {"job": "j", "classes": [{"number": 1}]}),
        ("post", f"{run}events/", {"level": "info", "text": "x"}),
        ("post", f"{run}images/", None),
    ]
    return [("get", address, None) for address in reads], writes


def statuses(client, calls) -> list[int]:
    return [
        client.get(address).status_code
        if method == "get"
        else getattr(client, method)(address, body, format="json" if body else "multipart").status_code
        for method, address, body in calls
    ]


def test_the_sessions_pipeline_and_staff_may_all(addresses, pipeline, staff, api):
    reads, writes = addresses
    for client in (pipeline.client, api(microscopes=[]), api(staff)):
        assert set(statuses(client, reads)) == {200}
        *stored, uploaded = statuses(client, writes)
        assert set(stored) <= {200, 201}
        assert uploaded == 400  # The call lacks its picture: it got as far as being read.


def test_strangers_and_other_microscopes_pipelines_find_nothing(addresses, api):
    reads, writes = addresses
    inactive = UserFactory(is_active=False)
    for client in (
        api(UserFactory()),
        api(SessionFactory().booking.owner),
        api(microscopes=[MicroscopeFactory()]),
    ):
        assert set(statuses(client, reads + writes)) == {404}
    assert set(statuses(api(inactive), reads + writes)) == {401}


def test_those_of_the_session_read_and_do_not_write(addresses, pipeline, api):
    reads, writes = addresses
    member = MembershipFactory(lab=pipeline.session.lab).user
    for client in (api(pipeline.session.booking.owner), api(member)):
        assert set(statuses(client, reads)) == {200}
        assert set(statuses(client, writes)) == {403}


def test_nobody_gets_in_without_a_name(addresses, pipeline, api):
    reads, writes = addresses
    token, key = make_token(pipeline.session.microscope)
    token.revoked = True
    token.save()
    for client in (api(), api(key="wrong.key"), api(key=key)):
        assert set(statuses(client, reads + writes)) == {401}


def test_staff_without_the_permission_do_not_write(addresses, api):
    reads, writes = addresses
    helper = UserFactory(is_staff=True)
    assert set(statuses(api(helper), reads)) == {200}
    assert set(statuses(api(helper), writes)) == {403}


def test_a_browser_needs_the_csrf_token_to_write(addresses, pipeline, staff):
    from rest_framework.test import APIClient

    _, writes = addresses
    client = APIClient(enforce_csrf_checks=True)
    client.force_login(staff)
    assert set(statuses(client, writes)) == {403}


@pytest.mark.parametrize("method", ["put", "delete"])
def test_other_methods_are_405_in_json(addresses, pipeline, method):
    for _, address, _ in addresses[0]:
        answer = getattr(pipeline.client, method)(address)
        assert answer.status_code == 405
        assert answer.json()["detail"]


@pytest.mark.parametrize(
    "address", ["nothing/", "v1/nothing/", "v1/runs/", "v1/runs/x/", "v1/runs/1/nothing/", "v1/", ""]
)
def test_addresses_that_are_none_answer_404_in_json(pipeline, address):
    for method in ("get", "post", "delete"):
        answer = getattr(pipeline.client, method)(f"/api/{address}")
        assert answer.status_code == 404
        assert answer.json()["detail"]


def test_a_missing_slash_is_told(pipeline):
    answer = pipeline.client.get(f"{pipeline.url}micrographs")
    assert answer.status_code == 404
    assert f"{pipeline.url}micrographs/" in answer.json()["detail"]


@pytest.mark.parametrize("pk", [10**6, 2**31, 2**63, 10**30])
def test_an_id_that_is_none_is_404(pipeline, pk):
    for address in (f"runs/{pk}/", f"runs/{pk}/micrographs/", f"micrographs/{pk}/coordinates/"):
        assert pipeline.client.get(f"/api/v1/{address}").status_code == 404
