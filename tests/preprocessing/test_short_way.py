"""The short way answers what is plainly in order, as the views would, and leaves them everything else."""

import datetime
import io

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from emhub_site import throttles
from microscopes.models import PipelineToken
from microscopes.tokens import pipeline_token_revoke
from people.models import User
from preprocessing import ingest
from preprocessing.models import Micrograph
from sessions_app.models import Session
from tests.factories import MicroscopeFactory, SessionFactory, make_token
from tests.preprocessing.conftest import Pipeline

pytestmark = pytest.mark.django_db
WAY = "emhub_site.short_way.ShortWay"


@pytest.fixture
def post(api, settings):
    """A run of a session, its token, and ways to call: with the short way and without."""

    class Post:
        def __init__(self):
            self.session = SessionFactory()
            self.token, self.key = make_token(self.session.microscope)
            self.pipeline = Pipeline(api(key=self.key), self.session)
            self.url = f"{self.pipeline.url}micrographs/"
            self.pipeline.post({"name": "first"})

        def long(self, key=None):
            usual = list(settings.MIDDLEWARE)
            settings.MIDDLEWARE = [name for name in usual if name != WAY]
            client = api(key=key or self.key)
            client.get("/health/")  # Takes the middlewares.
            settings.MIDDLEWARE = usual
            return client

        def short(self, key=None):
            return api(key=key or self.key)

        def tag(self):
            return self.short().get(f"{self.url}?after=0")["ETag"]

    assert WAY in settings.MIDDLEWARE
    return Post()


def cost(call):
    with CaptureQueriesContext(connection) as queries:
        answer = call()
    return answer, [query["sql"] for query in queries]


def alike(one, other):
    assert one.status_code == other.status_code, (one.content, other.content)
    assert one.content == other.content
    for name in (
        "Content-Type",
        "ETag",
        "Cache-Control",
        "Retry-After",
        "WWW-Authenticate",
    ):
        assert one.headers.get(name) == other.headers.get(name), name
    for name in ("X-Content-Type-Options", "Referrer-Policy"):
        assert one.headers[name] == other.headers[name]


# -- What it answers ---------------------------------------------------------------------------------------


def test_an_unchanged_poll_is_one_statement(post):
    tag = post.tag()
    answer, queries = cost(lambda: post.short().get(f"{post.url}?after=0", HTTP_IF_NONE_MATCH=tag))
    assert (answer.status_code, answer.content, answer["ETag"]) == (304, b"", tag)
    assert len(queries) == 1
    other = post.long().get(f"{post.url}?after=0", HTTP_IF_NONE_MATCH=tag)
    alike(answer, other)
    assert answer["Vary"] == other["Vary"]


def test_a_change_ends_it(post):
    tag = post.tag()
    post.pipeline.post({"name": "second"})
    answer = post.short().get(f"{post.url}?after=0", HTTP_IF_NONE_MATCH=tag)
    assert answer.status_code == 200
    assert {row["name"] for row in answer.json()["micrographs"]} == {"first", "second"}


def test_a_post_costs_no_more_than_this(post):
    """One statement for token and run; then those of ingestion, of which none is of Django's login or sessions."""
    answer, queries = cost(lambda: post.pipeline.post({"name": "second", "ctf_resolution": 3.0}))
    assert answer.json()["created"] == 1
    told = [sql for sql in queries if not sql.startswith(("BEGIN", "SAVEPOINT", "RELEASE", "COMMIT"))]
    assert len(told) <= (2 if connection.vendor == "postgresql" else 4), told
    assert "hashed_key" in told[0]
    assert not any("django_session" in sql for sql in told)


def test_a_post_is_answered_as_by_the_view(post):
    item = {"name": "second", "defocus_u": 12_000.0, "particles": 3}
    answer = post.short().post(post.url, {"micrographs": [item]})
    again = post.long().post(post.url, {"micrographs": [item]})
    assert answer.json() == {"created": 1, "updated": 0, "unchanged": 0, "revision": 3}
    assert again.json() == {"created": 0, "updated": 0, "unchanged": 1, "revision": 3}
    alike(post.short().post(post.url, {"micrographs": [item]}), again)
    post.pipeline.assert_counted()


# -- What it leaves to the views ---------------------------------------------------------------------------


def test_what_is_wrong_with_the_caller_is_said_as_ever(post):
    tag = post.tag()
    other = make_token(MicroscopeFactory())[1]
    expired = make_token(post.session.microscope, expiry_date=timezone.now() - datetime.timedelta(1))[1]
    wrong = post.key[:-1] + ("a" if post.key[-1] != "a" else "b")
    PipelineToken.objects.update(last_used_at=timezone.now())
    for key, status in ((other, 404), (expired, 401), (wrong, 401), ("none.such", 401)):
        for ask in (
            lambda client: client.post(post.url, {"micrographs": [{"name": "theirs"}]}),
            lambda client: client.get(f"{post.url}?after=0", HTTP_IF_NONE_MATCH=tag),
        ):
            answer = ask(post.short(key))
            assert answer.status_code == status
            alike(answer, ask(post.long(key)))
    assert not Micrograph.objects.filter(name="theirs").exists()


class Stalled(io.BytesIO):
    def read(self, *size):
        raise BlockingIOError(11, "nothing came")


@pytest.mark.parametrize("length", ["300", "300000"])
def test_a_body_that_does_not_arrive_is_408(post, length):
    PipelineToken.objects.update(last_used_at=timezone.now())

    def send(client):
        return client.generic(
            "POST",
            post.url,
            content_type="application/json",
            **{"CONTENT_LENGTH": length, "wsgi.input": Stalled()},
        )

    answer = send(post.short())
    assert answer.status_code == 408
    assert "again" in answer.json()["detail"]
    assert send(post.short("none.such")).status_code == 401


@pytest.mark.parametrize(
    "undo",
    [
        lambda post: pipeline_token_revoke(token=post.token, actor=None),
        lambda post: PipelineToken.objects.update(expiry_date=timezone.now() - datetime.timedelta(seconds=1)),
        lambda post: User.objects.filter(pk=post.token.user_id).update(is_active=False),
    ],
    ids=["revoked", "expired", "deactivated"],
)
def test_a_token_that_is_taken_away_is_refused_at_the_very_next_call(post, undo):
    tag = post.tag()
    client = post.short()
    assert client.get(f"{post.url}?after=0", HTTP_IF_NONE_MATCH=tag).status_code == 304
    undo(post)
    assert client.get(f"{post.url}?after=0", HTTP_IF_NONE_MATCH=tag).status_code == 401
    assert client.post(post.url, {"micrographs": [{"name": "late"}]}).status_code == 401
    assert not Micrograph.objects.filter(name="late").exists()


def test_a_microscope_taken_from_the_token_is_gone_at_once(post):
    tag = post.tag()
    post.token.microscopes.set([MicroscopeFactory()])
    client = post.short()
    assert client.get(f"{post.url}?after=0", HTTP_IF_NONE_MATCH=tag).status_code == 404
    assert client.post(post.url, {"micrographs": [{"name": "late"}]}).status_code == 404


def test_people_take_the_long_way(post, api, staff):
    tag = post.tag()
    assert api(staff).get(f"{post.url}?after=0", HTTP_IF_NONE_MATCH=tag).status_code == 304
    assert api().get(f"{post.url}?after=0", HTTP_IF_NONE_MATCH=tag).status_code == 401


def test_an_archived_session_is_told_as_ever(post):
    tag = post.tag()
    Session.objects.filter(pk=post.session.pk).update(status=Session.Status.ARCHIVED, end=post.session.start)
    for ask in (
        lambda client: client.post(post.url, {"micrographs": [{"name": "late"}]}),
        lambda client: client.get(f"{post.url}?after=0", HTTP_IF_NONE_MATCH=tag),
    ):
        alike(ask(post.short()), ask(post.long()))
    assert post.short().post(post.url, {"micrographs": [{"name": "late"}]}).status_code == 409


@pytest.mark.parametrize(
    "body",
    [
        {"micrographs": []},
        {"micrographs": [{"name": "a", "defocus": 1}]},
        {"micrographs": [{"name": "a"}, {"name": "b", "ctf_resolution": -1}]},
        {"micrographs": [{"name": "first.mrc"}]},
        {"micrographs": [{"name": "d1/a.mrc"}, {"name": "a.tiff"}, {"name": "a.mrc"}]},
        [],
    ],
)
def test_what_is_wrong_with_a_batch_is_said_as_ever(post, body):
    answer = post.short().post(post.url, body)
    assert answer.status_code in (400, 409)
    alike(answer, post.long().post(post.url, body))
    assert list(Micrograph.objects.values_list("name", flat=True)) == ["first"]


def test_a_conflict_is_found_once(post, monkeypatch):
    tried = []
    record = ingest.record_micrographs
    monkeypatch.setattr(ingest, "record_micrographs", lambda *args: (tried.append(args), record(*args))[1])
    assert post.short().post(post.url, {"micrographs": [{"name": "first.mrc"}]}).status_code == 409
    assert len(tried) == 1


@pytest.mark.parametrize(
    "query",
    [
        "",
        "?after=1",
        "?after=0&limit=5",
        "?after=0&limit=5000",
        "?after=99",
        "?after=x",
        "?after=0&after=1",
        "?format=json",
    ],
)
def test_any_question_is_answered_as_ever(post, query):
    tag = post.tag()
    one, other = (
        client.get(f"{post.url}{query}", HTTP_IF_NONE_MATCH=tag) for client in (post.short(), post.long())
    )
    alike(one, other)


def test_a_trial_stores_nothing(post):
    answer = post.short().post(f"{post.url}?dry_run=true", {"micrographs": [{"name": "tried"}]})
    assert answer.json()["dry_run"] is True
    assert not Micrograph.objects.filter(name="tried").exists()


def test_use_is_noted_by_the_long_way_once_a_minute(post):
    PipelineToken.objects.update(last_used_at=timezone.now() - datetime.timedelta(seconds=61))
    tag = post.tag()
    PipelineToken.objects.update(last_used_at=timezone.now() - datetime.timedelta(seconds=61))
    for writes in (1, 0):
        _, queries = cost(lambda: post.short().get(f"{post.url}?after=0", HTTP_IF_NONE_MATCH=tag))
        assert sum("UPDATE" in sql for sql in queries) == writes


def test_every_call_counts_once_for_its_token(post, settings, tmp_path, monkeypatch):
    tag = post.tag()
    monkeypatch.setattr(throttles, "meter", throttles.Meter(tmp_path / "rates"))
    settings.API_RATE_PER_TOKEN = 5
    client = post.short()
    poll = lambda: client.get(f"{post.url}?after=0", HTTP_IF_NONE_MATCH=tag).status_code  # noqa: E731
    told = [
        poll(),
        client.post(post.url, {"micrographs": [{"name": "first"}]}).status_code,
        client.post(post.url, {"micrographs": [{"name": "first.mrc"}]}).status_code,
        client.post(post.url, {"micrographs": [{"nome": "x"}]}).status_code,
        client.get(f"{post.url}?after=0").status_code,
    ]
    assert told == [304, 200, 409, 400, 200]
    refused = client.get(f"{post.url}?after=0", HTTP_IF_NONE_MATCH=tag)
    assert refused.status_code == 429
    assert int(refused["Retry-After"]) > 0
    refused = client.post(post.url, {"micrographs": [{"name": "late"}]})
    assert refused.status_code == 429
    assert not Micrograph.objects.filter(name="late").exists()


def test_a_host_that_is_not_ours_is_refused(post):
    tag = post.tag()
    answer = post.short().get(f"{post.url}?after=0", HTTP_IF_NONE_MATCH=tag, HTTP_HOST="elsewhere.example")
    assert answer.status_code == 400


def test_a_connection_that_the_database_closed_is_found_out_by_the_statement_itself(post, monkeypatch):
    """No call asks first whether anybody is there."""
    from people import statements

    calls = []
    fetch = statements._fetch_one

    def once_closed(*args):
        calls.append(args)
        if len(calls) == 1:
            raise statements.OperationalError("server closed the connection unexpectedly")
        return fetch(*args)

    monkeypatch.setattr(statements, "_fetch_one", once_closed)
    monkeypatch.setattr(connection, "is_usable", lambda: False)
    monkeypatch.setattr(connection, "close", lambda: None)
    monkeypatch.setattr(connection, "in_atomic_block", False)
    monkeypatch.setattr(connection, "health_check_done", False)
    assert statements.fetch_one("SELECT 1", [], statements.Columns([None])) == [1]
    assert len(calls) == 2
