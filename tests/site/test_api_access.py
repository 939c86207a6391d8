"""Who gets which answer at every call of the API: the whole schema, from one table.

A call that has no row here fails these tests, so that nobody adds one without saying whom it answers.
"""

import io
from typing import NamedTuple

import pytest
from django.core.cache import cache
from django.db import transaction
from django.urls import URLPattern, URLResolver, get_resolver
from drf_spectacular.generators import SchemaGenerator
from PIL import Image

from tests.factories import (
    CameraFactory,
    MembershipFactory,
    MicroscopeFactory,
    SampleFactory,
    SessionFactory,
    UserFactory,
)

pytestmark = pytest.mark.django_db

CALLERS = ("its pipeline", "another's pipeline", "stranger", "member", "staff", "anonymous")
METHODS = ("get", "post", "put", "patch", "delete")
SECRET = "unspoken"  # In every name of the session's that is not for everyone.


class Row(NamedTuple):
    """What each of CALLERS is answered; `body` is sent as JSON, or as a form where `form` says so."""

    answers: tuple[int, int, int, int, int, int]
    body: object = None
    form: bool = False


READ = Row((200, 404, 404, 200, 200, 401))
LIST = Row((200, 200, 200, 200, 200, 401))


def report(body, answer=200, form=False):
    """What pipelines and staff write, and those who only see the session do not."""
    return Row((answer, 404, 404, 403, answer, 401), body, form)


V1 = "/api/v1"
TABLE = {
    ("get", f"{V1}/alerts/"): LIST,
    ("get", f"{V1}/microscopes/"): LIST,
    # That a microscope is there is no secret among people.
    ("get", f"{V1}/microscopes/{{code}}/"): Row((200, 404, 200, 200, 200, 401)),
    ("get", f"{V1}/bookings/"): Row((403, 403, 200, 200, 200, 401)),
    ("post", f"{V1}/bookings/"): Row(
        (403, 403, 201, 201, 201, 401),
        {
            "microscope": "other-krios",
            "title": "A day",
            "start": "2126-11-23T09:00:00Z",
            "end": "2126-11-23T17:00:00Z",
        },
    ),
    ("get", f"{V1}/bookings/{{id}}/"): Row((403, 403, 404, 200, 200, 401)),
    ("patch", f"{V1}/bookings/{{id}}/"): Row((403, 403, 404, 403, 200, 401), {"title": "Changed"}),
    # Staff may, but for this booking's running session.
    ("delete", f"{V1}/bookings/{{id}}/"): Row((403, 403, 404, 403, 400, 401), {"reason": "The gun is off."}),
    ("get", f"{V1}/sessions/"): LIST,
    ("post", f"{V1}/sessions/"): Row(
        (403, 403, 400, 201, 201, 401), lambda known: {"booking": known["booking"]}
    ),
    ("get", f"{V1}/sessions/{{name}}/"): READ,
    # Those of the booking correct the acquisition while it runs; the watcher's counters are the pipeline's.
    ("patch", f"{V1}/sessions/{{name}}/"): Row((200, 404, 404, 200, 200, 401), {"voltage_kv": 200}),
    ("get", f"{V1}/sessions/{{name}}/exposures/"): READ,
    ("post", f"{V1}/sessions/{{name}}/exposures/"): report({"exposures": [{"name": "a"}]}),
    ("get", f"{V1}/sessions/{{name}}/runs/"): READ,
    ("post", f"{V1}/sessions/{{name}}/runs/"): report({"key": "new", "software": "RELION"}, 201),
    ("get", f"{V1}/sessions/{{name}}/summary/"): READ,
    ("get", f"{V1}/runs/{{id}}/"): READ,
    ("patch", f"{V1}/runs/{{id}}/"): report({"status": "finished"}),
    ("get", f"{V1}/runs/{{id}}/micrographs/"): READ,
    ("post", f"{V1}/runs/{{id}}/micrographs/"): report({"micrographs": [{"name": "a"}]}),
    ("post", f"{V1}/runs/{{id}}/images/"): report(
        lambda known: {"kind": "psd", "micrograph": known["micrograph"], "file": picture()}, 201, form=True
    ),
    ("get", f"{V1}/runs/{{id}}/classes/"): READ,
    ("post", f"{V1}/runs/{{id}}/classes/"): report({"job": "j", "classes": [{"number": 1}]}),
    ("get", f"{V1}/runs/{{id}}/events/"): READ,
    ("post", f"{V1}/runs/{{id}}/events/"): report({"level": "info", "text": "x"}, 201),
    ("get", f"{V1}/micrographs/{{id}}/coordinates/"): READ,
    ("get", "/sessions/{name}/images/{file}"): READ,
}


def picture():
    file = io.BytesIO()
    Image.new("L", (8, 8), 9).save(file, "PNG")
    file.seek(0)
    file.name = "picture.png"
    return file


def described() -> set[tuple[str, str]]:
    paths = SchemaGenerator().get_schema(public=True)["paths"]
    return {(method, path) for path, methods in paths.items() for method in methods if method in METHODS}


@pytest.fixture
def calls():
    """The rows of the table for calls that there are."""
    there = described()
    return {call: row for call, row in TABLE.items() if call in there}


@pytest.fixture
def known(api):
    """A session with something of everything, and what its addresses need."""
    cache.clear()
    session = SessionFactory(name=f"krios-{SECRET}-01", sample=SampleFactory(name=SECRET))
    session.booking.title = session.booking.description = SECRET
    session.booking.save()
    CameraFactory(microscope=session.microscope)
    client = api(microscopes=[session.microscope])
    run = client.post(f"{V1}/sessions/{session.name}/runs/", {"key": SECRET, "software": "RELION"}).json()[
        "id"
    ]
    url = f"{V1}/runs/{run}"
    item = {"name": SECRET, "coordinates": [[1, 2]], "motion_total": 1.5}
    client.post(f"{url}/micrographs/", {"micrographs": [item]})
    client.post(f"{url}/classes/", {"job": SECRET, "classes": [{"number": 1, "particles": 3}]})
    client.post(f"{url}/events/", {"level": "info", "text": SECRET})
    image = {"kind": "micrograph", "micrograph": SECRET, "file": picture()}
    file = client.post(f"{url}/images/", image, format="multipart").json()["image"].rpartition("/")[2]
    row = client.get(f"{url}/micrographs/").json()["micrographs"][0]
    return {
        "session": session,
        "name": session.name,
        "code": session.microscope.code,
        "booking": session.booking_id,
        "run": run,
        "micrograph": row["id"],
        "file": file,
    }


@pytest.fixture
def callers(known, api, staff):
    other = MicroscopeFactory(code="other-krios")
    session = known["session"]
    member = MembershipFactory(lab=session.lab).user
    # One who has a lab and a session as well, elsewhere.
    stranger = MembershipFactory(lab=SessionFactory().lab, user=UserFactory()).user
    clients = (
        api(microscopes=[session.microscope]),
        api(microscopes=[other]),
        api(stranger),
        api(member),
        api(staff),
        api(),
    )
    return dict(zip(CALLERS, clients, strict=True))


def address(path, known):
    """The path with what the session has in its places."""
    kind = path.removeprefix(V1).strip("/").partition("/")[0]
    pk = {"runs": "run", "micrographs": "micrograph", "bookings": "booking"}.get(kind)
    return path.format(**(known | {"id": known.get(pk)}))


def ask(client, method, path, row, known):
    """The answer, and everything it did undone."""
    body = row.body(known) if callable(row.body) else row.body
    with transaction.atomic():
        answer = getattr(client, method)(
            address(path, known),
            body,
            **({} if method == "get" else {"format": "multipart" if row.form else "json"}),
        )
        content = b"".join(answer.streaming_content) if answer.streaming else answer.content
        transaction.set_rollback(True)
    return answer.status_code, content


def test_every_call_has_a_row_and_every_row_a_call():
    assert described() == set(TABLE)


@pytest.mark.parametrize("caller", CALLERS)
def test_everyone_is_answered_as_the_table_says(known, callers, calls, caller):
    place = CALLERS.index(caller)
    expected = {call: row.answers[place] for call, row in calls.items()}
    got = {
        (method, path): ask(callers[caller], method, path, row, known)[0]
        for (method, path), row in calls.items()
    }
    assert got == expected


@pytest.mark.parametrize("caller", ["another's pipeline", "stranger", "anonymous"])
def test_nothing_of_the_session_reaches_those_who_do_not_see_it(known, callers, calls, caller):
    for (method, path), row in calls.items():
        _, content = ask(callers[caller], method, path, row, known)
        assert SECRET.encode() not in content, (method, path)


def test_those_who_see_it_are_told(known, callers):
    """Or the test above would prove nothing."""
    for method, path in (("get", f"{V1}/sessions/"), ("get", f"{V1}/runs/{{id}}/micrographs/")):
        assert SECRET.encode() in ask(callers["member"], method, path, READ, known)[1]


def test_a_method_that_is_not_described_is_refused(known, callers, calls):
    for path in {path for _, path in calls}:
        for method in METHODS:
            if (method, path) not in TABLE:
                status, _ = ask(callers["staff"], method, path, Row((0,) * 6, {}), known)
                assert status == 405, (method, path)


def routes(patterns, before=""):
    for pattern in patterns:
        if isinstance(pattern, URLResolver):
            yield from routes(pattern.url_patterns, before + str(pattern.pattern))
        elif isinstance(pattern, URLPattern):
            yield before + str(pattern.pattern)


def test_no_address_of_the_api_is_left_out_of_the_schema():
    """However it is hidden from the schema: below /api/v1/ there are as many addresses as described ones."""
    api = [route for route in routes(get_resolver().url_patterns) if route.startswith("api/v1/")]
    described_paths = {path for _, path in described() if path.startswith(V1)}
    assert len(set(api)) == len(described_paths), sorted(set(api))
