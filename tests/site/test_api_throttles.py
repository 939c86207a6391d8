"""How fast anyone may call the API, and what they hear who call faster."""

import subprocess
import sys

import pytest
from django.test import RequestFactory

from emhub_site import throttles
from people.addresses import client_address
from tests.factories import MicroscopeFactory, make_token

LIST = "/api/v1/sessions/"


@pytest.fixture(autouse=True)
def meter(tmp_path, monkeypatch):
    monkeypatch.setattr(throttles, "meter", throttles.Meter(tmp_path / "rates"))
    return throttles.meter


# -- Counting ----------------------------------------------------------------------------------------------


def test_a_minutes_worth_may_come_at_once_and_then_evenly(meter):
    assert [meter.take("a", 60, now=1000.0) for _ in range(60)] == [0.0] * 60
    assert meter.take("a", 60, now=1000.0) == pytest.approx(1)
    assert meter.take("a", 60, now=1000.5) == pytest.approx(0.5)
    assert meter.take("a", 60, now=1001.0) == 0
    assert meter.take("a", 60, now=1001.0) == pytest.approx(1)
    assert [meter.take("a", 60, now=2000.0) for _ in range(61)].count(0.0) == 60


def test_keys_do_not_count_for_each_other(meter):
    assert meter.take("a", 1, now=1000.0) == 0
    assert meter.take("a", 1, now=1000.0) > 0
    assert meter.take("b", 1, now=1000.0) == 0


def test_a_refused_call_does_not_count(meter):
    meter.take("a", 1, now=1000.0)
    for _ in range(10):
        assert meter.take("a", 1, now=1001.0) == pytest.approx(59)
    assert meter.take("a", 1, now=1060.0) == 0


def test_a_clock_that_was_set_back_locks_nobody_out(meter):
    assert meter.take("a", 1, now=1_000_000.0) == 0
    assert meter.take("a", 1, now=1000.0) == 0


def test_of_keys_that_share_a_place_the_quietest_is_dropped(meter, monkeypatch):
    monkeypatch.setattr(meter, "SETS", 1)
    for n, key in enumerate("abcd"):
        assert meter.take(key, 1, now=1000.0 + n) == 0
    assert meter.take("e", 1, now=1010.0) == 0
    assert [bool(meter.take(key, 1, now=1010.0)) for key in "bcde"] == [True] * 4


COUNT = """
import sys
from pathlib import Path
import django
django.setup()
from emhub_site.throttles import Meter
meter = Meter(Path(sys.argv[1]))
print(sum(meter.take("a", 100, now=1000.0) == 0 for _ in range(100)))
"""


def test_processes_count_together(meter):
    run = [sys.executable, "-c", COUNT, str(meter.path)]
    started = [subprocess.Popen(run, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    let_through = [int(process.communicate(timeout=60)[0]) for process in started]
    assert sum(let_through) == 100


# -- Calling -----------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_each_token_has_its_own_rate(api, settings):
    settings.API_RATE_PER_TOKEN = 3
    microscope = MicroscopeFactory()
    eager, calm = api(microscopes=[microscope]), api(microscopes=[microscope])
    assert [eager.get(LIST).status_code for _ in range(5)] == [200, 200, 200, 429, 429]
    answer = eager.post(LIST, {})
    assert answer.status_code == 429
    assert 1 <= int(answer["Retry-After"]) <= 20
    assert f"wait {answer['Retry-After']} s" in answer.json()["detail"]
    assert calm.get(LIST).status_code == 200


@pytest.mark.django_db
def test_a_person_is_counted_whatever_the_browser(api, staff, user, settings):
    settings.API_RATE_PER_TOKEN = 1
    assert api(staff).get(LIST).status_code == 200
    assert api(staff).get(LIST).status_code == 429
    assert api(user).get(LIST).status_code == 200


@pytest.mark.django_db
def test_whoever_tries_tokens_is_slowed_down_by_address(api, settings):
    settings.API_RATE_PER_ADDRESS = 2
    good = api(microscopes=[MicroscopeFactory()])
    guesses = [api(key=f"guess.{n}").get(LIST) for n in range(4)]
    assert [guess.status_code for guess in guesses] == [401, 401, 429, 429]
    assert int(guesses[-1]["Retry-After"]) > 0
    assert api().get(LIST).status_code == 429
    # A neighbour with an expired token must not stop a pipeline whose token is good.
    assert good.get(LIST).status_code == 200
    assert api().get(LIST, REMOTE_ADDR="192.0.2.9").status_code == 401


@pytest.mark.django_db
def test_zero_is_no_limit(api, settings):
    settings.API_RATE_PER_TOKEN = settings.API_RATE_PER_ADDRESS = 0
    client = api(microscopes=[MicroscopeFactory()])
    assert {client.get(LIST).status_code for _ in range(20)} == {200}


@pytest.mark.django_db
def test_throttling_asks_the_database_nothing(api, settings, django_assert_num_queries):
    settings.API_RATE_PER_TOKEN = 1
    token, key = make_token()
    token.touch()
    client = api(key=key)
    client.get(LIST)
    with django_assert_num_queries(1):  # Whose token it is.
        assert client.get(LIST).status_code == 429


# -- Addresses ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("proxied", "forwarded", "expected"),
    [
        (False, "198.51.100.7", "192.0.2.1"),
        (True, "198.51.100.7", "198.51.100.7"),
        (True, "10.0.0.1, 198.51.100.7", "198.51.100.7"),
        (True, "", "192.0.2.1"),
        (True, "2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        (True, "::ffff:198.51.100.7", "198.51.100.7"),
        (True, "nonsense", ""),
    ],
)
def test_the_address_is_the_proxys_word_and_nobody_elses(settings, proxied, forwarded, expected):
    settings.BEHIND_PROXY = proxied
    headers = {"HTTP_X_FORWARDED_FOR": forwarded} if forwarded else {}
    assert client_address(RequestFactory().get("/", REMOTE_ADDR="192.0.2.1", **headers)) == expected
