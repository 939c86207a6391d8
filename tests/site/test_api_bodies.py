"""Bodies of API calls: gzip is read, and nothing too large gets far."""

import gzip
import io
import json
import socket
import tracemalloc
import zlib

import pytest
from django.test import RequestFactory
from rest_framework.test import APIClient

from emhub_site import gunicorn
from emhub_site.bodies import ApiBodies
from preprocessing.models import Micrograph
from tests.factories import RunFactory, make_token

pytestmark = pytest.mark.django_db

LIMIT = 64 * 1024


@pytest.fixture
def post(settings):
    """Posts bytes as one micrographs call, with a pipeline's token and a small limit."""
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = LIMIT
    run = RunFactory()
    _, key = make_token(run.session.microscope)
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Token {key}")

    def send(body, *, encoding=None, kind="application/json", address="micrographs/", **environment):
        extra = {"HTTP_CONTENT_ENCODING": encoding} if encoding else {}
        return client.generic(
            "POST", f"/api/v1/runs/{run.pk}/{address}", body, content_type=kind, **extra, **environment
        )

    return send


def batch(count=2, padding=""):
    items = [{"name": f"m{n}{padding}", "motion_total": 1.5} for n in range(count)]
    return json.dumps({"micrographs": items}).encode()


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "x-gzip"])
def test_gzip_is_read_like_what_is_inside(post, encoding):
    answer = post(gzip.compress(batch()), encoding=encoding)
    assert answer.status_code == 200
    assert answer.json()["created"] == 2
    assert set(Micrograph.objects.values_list("name", "motion_total")) == {("m0", 1.5), ("m1", 1.5)}


def test_a_plain_body_may_say_so(post):
    assert post(batch(), encoding="identity").status_code == 200


def test_a_bomb_is_not_unpacked(post):
    bomb = gzip.compress(b" " * 50_000_000)
    assert len(bomb) < LIMIT
    post(batch())  # Loads whatever the first call of all loads.
    tracemalloc.start()
    try:
        answer = post(bomb, encoding="gzip")
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert answer.status_code == 413
    assert most < 10_000_000
    assert "inflates" in answer.json()["detail"]


def test_the_limit_itself_still_fits(post):
    body = batch()
    body += b" " * (LIMIT - len(body))
    assert post(gzip.compress(body), encoding="gzip").status_code == 200
    assert post(gzip.compress(body + b" "), encoding="gzip").status_code == 413
    assert post(body).status_code == 200
    assert post(body + b" ").status_code == 413


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        zlib.compress(batch()),
        gzip.compress(batch())[:-9],
        gzip.compress(batch())[:-1] + b"x",
        gzip.compress(batch()) + b"more",
        gzip.compress(batch()) * 2,
        gzip.compress(b"no json"),
    ],
    # Named: gzip writes the time into its header, and all workers must collect the same tests.
    ids=["empty", "json", "zlib", "cut", "wrong end", "text behind", "two members", "no json"],
)
def test_bad_gzip_is_400_and_stores_nothing(post, body):
    answer = post(body, encoding="gzip")
    assert answer.status_code == 400
    assert answer.json()["detail"]
    assert not Micrograph.objects.exists()


@pytest.mark.parametrize("encoding", ["br", "deflate", "gzip, gzip", "zstd"])
def test_another_encoding_is_415(post, encoding):
    answer = post(gzip.compress(batch()), encoding=encoding)
    assert answer.status_code == 415
    assert "gzip" in answer.json()["detail"]


def test_a_picture_is_not_sent_as_gzip(post):
    answer = post(b"x", encoding="gzip", kind="multipart/form-data; boundary=x", address="images/")
    assert answer.status_code == 415


def test_gzip_is_read_where_serializers_check_too(api, settings):
    run = RunFactory()
    client = api(microscopes=[run.session.microscope])
    answer = client.generic(
        "PATCH",
        f"/api/v1/sessions/{run.session.name}/",
        gzip.compress(b'{"voltage_kv": 200}'),
        content_type="application/json",
        HTTP_CONTENT_ENCODING="gzip",
    )
    assert answer.status_code == 200
    assert answer.json()["voltage_kv"] == 200


class Unread(io.BytesIO):
    def read(self, *args):
        raise AssertionError("This must not be read.")


class Endless(io.BytesIO):
    """Chunks without end, that count what was asked of them."""

    given = 0

    def read(self, size):
        self.given += size
        return b" " * size


def request(**environment):
    return RequestFactory().post("/api/v1/x/", b"", content_type="application/json", **environment)


def test_what_announces_too_much_is_refused_unread(settings):
    big = request(CONTENT_LENGTH=str(settings.DATA_UPLOAD_MAX_MEMORY_SIZE + 1), **{"wsgi.input": Unread()})
    answer = ApiBodies(lambda request: pytest.fail("let through"))(big)
    assert answer.status_code == 413
    assert b"32 MB" in answer.content


def test_chunks_are_read_up_to_the_limit(settings):
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = LIMIT
    source = Endless()
    chunked = {"HTTP_TRANSFER_ENCODING": "chunked", "wsgi.input": source, "wsgi.input_terminated": True}
    answer = ApiBodies(lambda request: pytest.fail("let through"))(request(**chunked))
    assert answer.status_code == 413
    assert source.given <= 2 * LIMIT


@pytest.mark.parametrize("encoding", [None, "gzip"])
def test_chunks_that_fit_are_taken(post, encoding):
    body = gzip.compress(batch()) if encoding else batch()
    chunked = {
        "HTTP_TRANSFER_ENCODING": "chunked",
        "CONTENT_LENGTH": "",
        "wsgi.input": io.BytesIO(body),
        "wsgi.input_terminated": True,
    }
    assert post(b"", encoding=encoding, **chunked).json()["created"] == 2


def test_chunks_that_are_none_are_400():
    class Broken(io.BytesIO):
        def read(self, size):
            raise OSError("invalid chunk size")

    chunked = {"HTTP_TRANSFER_ENCODING": "chunked", "wsgi.input": Broken(), "wsgi.input_terminated": True}
    answer = ApiBodies(lambda request: pytest.fail("let through"))(request(**chunked))
    assert answer.status_code == 400


def stalled(error):
    class Stalled(io.BytesIO):
        def read(self, *size):
            raise error

    return Stalled()


@pytest.mark.parametrize("error", [BlockingIOError(11, "nothing came"), ConnectionResetError(104, "gone")])
def test_a_body_that_does_not_arrive_is_408_and_may_be_sent_again(post, error):
    chunked = {
        "HTTP_TRANSFER_ENCODING": "chunked",
        "wsgi.input": stalled(error),
        "wsgi.input_terminated": True,
    }
    for environment in (chunked, {"CONTENT_LENGTH": "500", "wsgi.input": stalled(error)}):
        answer = post(b"", address="classes/", **environment)
        assert answer.status_code == 408
        assert "again" in answer.json()["detail"]


def test_a_connection_on_which_nothing_moves_is_given_up():
    """As gunicorn hears of them: from a socket that listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        gunicorn.give_up_stalled(listener, 1)
        with socket.create_connection(listener.getsockname()):
            connection, _ = listener.accept()
            with connection, pytest.raises(BlockingIOError):
                connection.recv(1)


def test_a_server_that_reads_no_chunks_asks_for_the_length():
    answer = ApiBodies(lambda request: pytest.fail("let through"))(request(HTTP_TRANSFER_ENCODING="chunked"))
    assert answer.status_code == 411


def test_pages_are_left_alone(settings):
    page = RequestFactory().post(
        "/people/login/", b"x", content_type="text/plain", HTTP_CONTENT_ENCODING="br"
    )
    assert ApiBodies(lambda request: "let through")(page) == "let through"
