"""Pipeline tokens: made once and shown once, refused in words, and noted when used."""

import datetime
import io

import pytest
from django.core.exceptions import ValidationError
from django.core.management import CommandError, call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from microscopes.api.serializers import BOOKING_LIMITS
from microscopes.models import PipelineToken
from microscopes.tokens import pipeline_token_create, pipeline_token_revoke
from people.models import PIPELINE_GROUP, AuditEntry, User
from tests.concurrency import at_once, in_thread, shared_database
from tests.factories import MicroscopeFactory, UserFactory, make_token

pytestmark = pytest.mark.django_db
LIST = "/api/v1/microscopes/"


def command(*arguments) -> tuple[str, str]:
    out, err = io.StringIO(), io.StringIO()
    call_command("create_pipeline_token", *arguments, stdout=out, stderr=err, no_color=True)
    return out.getvalue(), err.getvalue()


# -- the command -------------------------------------------------------------------------------------------


def test_the_command_prints_the_token_alone_and_it_works(api):
    MicroscopeFactory(code="krios1"), MicroscopeFactory(code="krios2")
    out, err = command("relion at Krios", "--microscope", "KRIOS1", "--days", "30")
    assert out.count("\n") == 1
    key = out.strip()
    assert key not in err
    answer = api(key=key).get(LIST).json()
    assert [microscope["code"] for microscope in answer["results"]] == ["krios1"]
    token = PipelineToken.objects.get()
    assert datetime.timedelta(days=29) < token.expiry_date - timezone.now() <= datetime.timedelta(days=30)
    user = token.user
    assert (user.username, user.is_service, user.has_usable_password()) == (
        "pipeline-relion-at-krios",
        True,
        False,
    )
    assert [group.name for group in user.groups.all()] == [PIPELINE_GROUP]
    assert not user.is_staff


def test_without_microscopes_it_is_for_all_also_later_ones(api):
    key = command("relion")[0].strip()
    MicroscopeFactory(code="krios9")
    assert api(key=key).get(LIST).json()["count"] == 1


def test_several_microscopes_may_be_given_in_both_ways():
    for n in range(4):
        MicroscopeFactory(code=f"m{n}")
    command("relion", "--microscope", "m0", "m1", "--microscope", "m2", "--microscope", "m2")
    codes = PipelineToken.objects.get().microscopes.values_list("code", flat=True)
    assert sorted(codes) == ["m0", "m1", "m2"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["other", "--microscope", "krios7"], "There is no microscope krios7. Known codes: krios1."),
        (["Relion"], 'There is a token named "Relion". Choose another name'),
        (["relion!"], "Choose a name that differs by more"),
        (["???"], "letters or digits"),
        (["x" * 51], "at most 50 characters"),
        (["other", "--days", "0"], "--days 0"),
        (["other", "--days", "99999999"], "--days 99999999"),
    ],
)
def test_errors_are_told_in_words_and_nothing_is_made(arguments, words):
    MicroscopeFactory(code="krios1")
    command("relion")
    users = User.objects.count()
    with pytest.raises(CommandError) as error:
        command(*arguments)
    assert words in str(error.value)
    assert (PipelineToken.objects.count(), User.objects.count()) == (1, users)


# -- the service -------------------------------------------------------------------------------------------


def test_the_key_is_kept_nowhere_and_the_hash_shows_in_no_address():
    token, key = pipeline_token_create(name="relion", all_microscopes=True)
    secret = key.partition(".")[2]
    stored = str(PipelineToken.objects.filter(pk=token.pk).values().get())
    assert secret not in stored
    assert token.pk == token.prefix
    assert token.hashed_key not in str(AuditEntry.objects.values().get())


def test_a_revoked_tokens_name_and_user_can_be_taken_up_again(staff):
    first, _ = pipeline_token_create(name="relion", all_microscopes=True, actor=staff)
    pipeline_token_revoke(token=first, actor=staff)
    pipeline_token_revoke(token=first, actor=staff)
    second, _ = pipeline_token_create(name="relion", all_microscopes=True, actor=staff)
    assert second.user == first.user
    actions = list(AuditEntry.objects.order_by("pk").values_list("action", flat=True))
    assert actions == ["pipeline token created", "pipeline token revoked", "pipeline token created"]


def test_a_persons_username_is_not_taken_over():
    UserFactory(username="pipeline-relion")
    with pytest.raises(ValidationError) as error:
        pipeline_token_create(name="relion", all_microscopes=True)
    assert list(error.value.message_dict) == ["name"]


@pytest.mark.django_db(transaction=True)
def test_two_of_one_name_at_once_give_one(tmp_path):
    from django.contrib.auth.models import Group

    Group.objects.get_or_create(name=PIPELINE_GROUP)  # Emptied tables of an earlier test.
    with shared_database(tmp_path):
        results = at_once(4, lambda n: pipeline_token_create(name="relion", all_microscopes=True))
        assert in_thread(PipelineToken.objects.count) == 1
    assert sum(isinstance(result, ValidationError) for result in results) == 3


# -- authentication ----------------------------------------------------------------------------------------


def refused(client) -> str:
    answer = client.get(LIST)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == "Token"
    return answer.json()["detail"]


@pytest.mark.parametrize("key", ["wrong", "abcdefgh.wrong", "å", "two words", ""])
def test_a_wrong_token_is_refused(api, key):
    make_token()
    client = api()
    client.credentials(HTTP_AUTHORIZATION=f"Token {key}".encode())
    assert refused(client)


def test_a_key_with_a_known_prefix_and_a_wrong_secret_is_refused(api):
    _, key = make_token()
    assert "not valid" in refused(api(key=key[:-1] + ("a" if key[-1] != "a" else "b")))


def test_no_token_is_refused(api):
    assert refused(api())


def test_a_revoked_token_is_refused(api):
    token, key = make_token()
    assert api(key=key).get(LIST).status_code == 200
    pipeline_token_revoke(token=token, actor=None)
    assert "Ask the facility's staff for a new one" in refused(api(key=key))


def test_an_expired_token_is_refused_with_its_date(api):
    expired = timezone.now() - datetime.timedelta(days=2)
    _, key = make_token(expiry_date=expired)
    assert f"{expired:%Y-%m-%d}" in refused(api(key=key))


def test_a_deactivated_users_token_is_refused(api):
    token, key = make_token()
    User.objects.filter(pk=token.user_id).update(is_active=False)
    assert "deactivated" in refused(api(key=key))


def test_use_is_noted_at_most_once_a_minute(api):
    token, key = make_token()
    client = api(key=key)

    def writes() -> int:
        with CaptureQueriesContext(connection) as queries:
            assert client.get(LIST).status_code == 200
        return sum("UPDATE" in query["sql"] for query in queries)

    assert writes() == 1
    assert writes() == 0
    token.refresh_from_db()
    assert timezone.now() - token.last_used_at < datetime.timedelta(minutes=1)
    PipelineToken.objects.update(last_used_at=timezone.now() - datetime.timedelta(seconds=61))
    assert writes() == 1


# -- GET /microscopes/ -------------------------------------------------------------------------------------


def test_people_read_every_microscope_with_what_a_pipeline_needs(api, user):
    microscope = MicroscopeFactory(name="Krios 1", code="krios1", model="Titan Krios G4")
    microscope.cameras.create(name="Falcon 4i", width=4096, height=4096)
    microscope.cameras.create(name="Old one", is_active=False)
    (row,) = api(user).get(LIST).json()["results"]
    camera = row["cameras"][0].pop("id")
    assert camera
    # What binds bookings is in tests/bookings/test_api.py.
    assert {name: value for name, value in row.items() if name not in BOOKING_LIMITS} == {
        "name": "Krios 1",
        "code": "krios1",
        "model": "Titan Krios G4",
        "location": "",
        "group": "",
        "colour": "#0072B2",
        "status": "active",
        "status_note": "",
        "voltage_kv": 300.0,
        "cs_mm": 2.7,
        "cameras": [{"name": "Falcon 4i", "width": 4096, "height": 4096}],
    }
    assert api(user).get(f"{LIST}krios1/").json()["code"] == "krios1"


def test_a_token_sees_its_microscopes_alone(api):
    mine, other = MicroscopeFactory(), MicroscopeFactory()
    client = api(microscopes=[mine])
    assert [row["code"] for row in client.get(LIST).json()["results"]] == [mine.code]
    assert client.get(f"{LIST}{other.code}/").status_code == 404


def test_microscopes_are_read_only(api, staff):
    microscope = MicroscopeFactory()
    for client in (api(staff), api(microscopes=[microscope])):
        assert client.post(LIST, {"name": "x"}).status_code in (403, 405)
        assert client.patch(f"{LIST}{microscope.code}/", {"name": "x"}).status_code in (403, 405)


def test_the_list_costs_the_same_for_one_and_for_ten(api, user):
    client = api(user)

    def cost():
        with CaptureQueriesContext(connection) as queries:
            client.get(reverse("api:microscope-list"))
        return len(queries)

    MicroscopeFactory()
    one = cost()
    for microscope in MicroscopeFactory.create_batch(9):
        microscope.cameras.create(name="K3")
    assert cost() == one == 5  # the login (2), count, microscopes, cameras
