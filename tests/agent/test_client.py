import datetime
import email.utils
import json
import time

import numpy
import pytest
from emhub_agent import Client, Conflict, EMhubError, NotAuthorised, NotFound, Refused, Stopped, Unreachable

from .site import SESSION, TOKEN


@pytest.fixture
def client(site):
    return Client(site.url, TOKEN)


@pytest.fixture
def run(client):
    return client.create_run(SESSION, key="k", software="Test")["id"]


def test_one_key_is_one_run(client, site, run):
    assert client.create_run(SESSION, key="k", software="Test")["id"] == run
    assert client.create_run(SESSION, key="other", software="Test")["id"] != run


@pytest.mark.parametrize("ending", ["", "/", "/api/v1", "/api/v1/"])
def test_the_address_may_be_written_in_any_way(site, ending):
    assert Client(site.url + ending, TOKEN).get_session(SESSION)["name"] == SESSION


def test_counts_and_changes(client, run):
    items = [{"name": f"m{number}", "defocus_u": 1.0 * number} for number in range(20)]
    assert client.post_micrographs(run, items)["created"] == 20
    items[3]["defocus_u"] = 5.5
    answer = client.post_micrographs(run, items)
    assert (answer["updated"], answer["unchanged"]) == (1, 19)
    assert len(list(client.micrographs(run))) == 20  # over several pages
    assert [row["name"] for row in client.micrographs(run, after=20)] == ["m3"]


def test_lists_are_read_to_their_last_page(client, run):
    for number in range(45):
        client.post_event(run, "info", f"event {number}")
    assert {event["text"] for event in client.events(run)} == {f"event {number}" for number in range(45)}


def test_failures_are_tried_again_until_they_pass(client, site, run):
    site.fail_every = 2
    troubles = []
    client.on_trouble = troubles.append
    for number in range(10):
        client.post_micrographs(run, [{"name": f"m{number}"}])
    assert len(site.runs[run].micrographs) == 10
    assert any("503" in text for text in troubles if text)
    assert troubles[-1] is None


def test_an_event_whose_answer_was_lost_is_not_told_twice(client, site, run):
    for number in range(12):
        site.fail_every = 3
        client.post_event(run, "error", f"failure {number}", "2026-11-23T04:00:00+00:00")
    site.fail_every = 0
    texts = [event["text"] for event in client.events(run)]
    assert sorted(texts) == sorted(f"failure {number}" for number in range(12))


def test_a_message_of_long_ago_is_said_again_though_the_first_attempt_failed(client, site, run):
    client.post_event(run, "info", "Started.", "2026-11-22T04:00:00Z")
    site.asked, site.fail_every = 3, 2  # The next call fails, and did nothing before it did.
    client.wait = lambda seconds: None
    client.post_event(run, "info", "Started.")
    site.fail_every = 0
    assert len(list(client.events(run))) == 2


def test_retry_after_is_waited_for(site):
    waits = []
    client = Client(site.url, TOKEN, wait=waits.append, attempts=3)
    site.fail_every = 1
    site.retry_after = "7"
    with pytest.raises(Unreachable, match="503"):
        client.get_session(SESSION)
    assert [wait for wait in waits if wait >= 7] == waits
    site.retry_after = email.utils.formatdate(time.time() + 100, usegmt=True)
    with pytest.raises(Unreachable):
        client.get_session(SESSION)
    assert 90 < waits[-1] <= 101


def test_waits_grow_and_are_not_all_alike():
    waits = []
    client = Client(
        "http://127.0.0.1:1",
        TOKEN,
        wait=waits.append,
        attempts=9,
        first_wait=1,
        longest_wait=30,
        timeout=(0.1, 0.1),
    )
    with pytest.raises(Unreachable, match="connection refused"):
        client.get_session(SESSION)
    assert len(waits) == 8
    for number, wait in enumerate(waits):
        assert 0.5 * min(30, 2**number) <= wait <= min(30, 2**number)
    assert len({wait / min(30, 2**number) for number, wait in enumerate(waits)}) == 8


def test_waiting_can_be_stopped():
    def stop(seconds):
        raise Stopped("Stopped.")

    with pytest.raises(Stopped):
        Client("http://127.0.0.1:1", TOKEN, wait=stop, attempts=None).get_session(SESSION)


def test_refusals_are_raised_at_once_and_by_kind(client, site, run):
    with pytest.raises(NotFound):
        client.get_session("no-such-session")
    with pytest.raises(NotFound):
        client.update_run(99)
    with pytest.raises(Refused, match="status: not a status"):
        client.update_run(run, status="asleep")
    asked = site.asked
    with pytest.raises(Refused) as refusal:
        client.post_micrographs(run, [{"name": "good"}, {"name": "bad", "colour": 1}])
    assert site.asked == asked + 1
    [item] = refusal.value.items
    assert (item.index, item.name, item.errors) == (1, "bad", {"colour": ["Unknown field."]})
    site.is_archived = True
    with pytest.raises(Conflict, match="archived"):
        client.update_run(run)
    with pytest.raises(NotAuthorised) as refusal:
        Client(site.url, "another-token").get_session(SESSION)
    assert refusal.value.status == 401


def test_what_json_cannot_say_is_refused_by_item_and_field_and_never_sent(client, site, run):
    asked = site.asked
    rows = [{"name": "a"}, {"name": "b", "defocus_u": float("nan"), "ctf_score": 1.0, "rejected": object()}]
    with pytest.raises(Refused, match="b: defocus_u: Not a number") as refusal:
        client.post_micrographs(run, rows)
    [item] = refusal.value.items
    assert (item.index, item.name, list(item.errors)) == (1, "b", ["defocus_u", "rejected"])
    with pytest.raises(Refused, match="pixel_size: Not a number") as refusal:
        client.update_run(run, label="x", pixel_size=float("inf"))
    assert (refusal.value.status, refusal.value.fields) == (0, ("pixel_size",))
    assert site.asked == asked


def test_arrays_and_numbers_of_numpy_and_times_are_sent_as_what_they_mean(client, site, run):
    row = {
        "name": "a",
        "defocus_u": numpy.float32(1.5),
        "particles": numpy.int64(2),
        "rejected": numpy.bool_(False),
        "coordinates": numpy.array([[1, 2], [3, 4.5]], dtype="f4"),
    }
    client.post_micrographs(run, [row])
    kept = site.runs[run].micrographs["a"]
    assert (kept["defocus_u"], kept["particles"], kept["rejected"]) == (1.5, 2, False)
    assert kept["coordinates"] == [[1, 2], [3, 4.5]]
    at = datetime.datetime(2026, 11, 23, 10, 15, tzinfo=datetime.UTC)
    client.post_exposures(SESSION, [{"name": "a", "acquired_at": at}])
    assert site.exposures[SESSION, "a"]["acquired_at"] == "2026-11-23T10:15:00+00:00"


def test_any_number_is_sent_in_batches_and_counted_together(client, site, run):
    rows = ({"name": f"m{number}", "particles": 1} for number in range(2345))
    told = client.post_micrographs(run, rows)
    assert (told["created"], told["updated"], told["unchanged"]) == (2345, 0, 0)
    assert site.largest_batch == 1000
    assert told["revision"] == 2345
    site.refused_names = {"m1500"}
    with pytest.raises(Refused) as refusal:
        client.post_micrographs(run, [{"name": f"m{number}", "particles": 2} for number in range(2345)])
    assert [(item.index, item.name) for item in refusal.value.items] == [(1500, "m1500")]


def test_what_is_too_large_for_one_call_is_sent_in_several(client, site, run):
    site.largest_body = 2000
    assert client.post_micrographs(run, [{"name": f"m{number}"} for number in range(300)])["created"] == 300
    assert len(site.runs[run].micrographs) == 300
    with pytest.raises(Refused) as refusal:
        client.post_micrographs(run, [{"name": "x" * 3000}])
    assert refusal.value.status == 413


def test_an_address_that_is_no_site_is_said_so(client, monkeypatch):
    for url in ("ftp://example.org", "http://"):
        with pytest.raises(EMhubError):
            Client(url, TOKEN, attempts=1).get_session(SESSION)


def test_names_cannot_leave_their_place_in_the_address(client, site):
    with pytest.raises(NotFound):
        client.get_session(f"x/../{SESSION}")


@pytest.mark.parametrize("token", ["", "two words", "line\nbreak", "ünicode"])
def test_a_token_that_cannot_be_one_is_said_so(token):
    with pytest.raises(EMhubError, match="token"):
        Client("http://127.0.0.1:1", token)


def test_the_token_does_not_give_way_to_netrc(site, tmp_path, monkeypatch):
    path = tmp_path / "netrc"
    path.write_text("machine 127.0.0.1 login someone password else\n")
    monkeypatch.setenv("NETRC", str(path))
    assert Client(site.url, TOKEN).get_session(SESSION)["name"] == SESSION


def test_large_batches_travel_compressed(client, site, run):
    points = [[float(number % 4096), float(number % 3838)] for number in range(20_000)]
    client.post_micrographs(run, [{"name": "a", "coordinates": points}])
    assert site.runs[1].micrographs["a"]["coordinates"] == points
    assert site.received < len(json.dumps(points)) / 2
