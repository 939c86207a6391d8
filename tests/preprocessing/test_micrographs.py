"""Micrographs arrive in any order, in parts and repeatedly, and end as what was said of them."""

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from preprocessing.histograms import MEASURES
from preprocessing.models import Exposure, Micrograph, ProcessingRun
from sessions_app.models import Session
from tests.factories import FinishedSessionFactory

pytestmark = pytest.mark.django_db

ALL = {
    "name": "Movies/a.tiff",
    "motion_total": 14.5,
    "motion_early": 3.0,
    "motion_late": 11.5,
    "defocus_u": 12000.0,
    "defocus_v": 11000.0,
    "defocus_angle": 45.0,
    "phase_shift": 0.0,
    "ctf_resolution": 3.9,
    "ctf_score": 0.12,
    "ice_thickness": 1.02,
    "particles": 120,
    "rejected": False,
}


def test_what_was_posted_is_read_back(pipeline):
    answer = pipeline.post(ALL)
    assert answer.status_code == 200
    assert answer.json() == {"created": 1, "updated": 0, "unchanged": 0, "revision": pipeline.run.revision}
    row = pipeline.rows()["Movies/a.tiff"]
    assert {name: row[name] for name in ALL} == ALL
    assert row["identity"] == "a"
    assert row["revision"] == answer.json()["revision"]
    assert pipeline.counters() == {
        "micrographs": 1,
        "motion_corrected": 1,
        "ctf_estimated": 1,
        "picked": 1,
        "particles": 120,
        "classes": 0,
    }
    pipeline.assert_counted()


def test_sending_again_changes_nothing(pipeline):
    first = pipeline.post(ALL, {"name": "b"}).json()
    again = pipeline.post(ALL, {"name": "b"}).json()
    assert again == {"created": 0, "updated": 0, "unchanged": 2, "revision": first["revision"]}


def test_a_field_left_out_stays_and_null_clears(pipeline):
    pipeline.post(ALL)
    answer = pipeline.post({"name": ALL["name"], "ctf_resolution": None, "ctf_score": 0.2}).json()
    assert (answer["created"], answer["updated"], answer["unchanged"]) == (0, 1, 0)
    row = pipeline.rows()[ALL["name"]]
    assert (row["ctf_resolution"], row["ctf_score"], row["motion_total"]) == (None, 0.2, 14.5)
    pipeline.assert_counted()


def test_counters_follow_what_is_cleared(pipeline):
    pipeline.post(ALL)
    pipeline.post({"name": ALL["name"]} | dict.fromkeys([n for n in ALL if n not in ("name", "rejected")]))
    assert pipeline.counters() == {
        "micrographs": 1,
        "motion_corrected": 0,
        "ctf_estimated": 0,
        "picked": 0,
        "particles": 0,
        "classes": 0,
    }
    assert pipeline.run.histograms == {}
    pipeline.assert_counted()


def test_the_steps_of_one_exposure_may_come_in_any_order(pipeline):
    steps = [
        {"name": "a", "motion_total": 10.0},
        {"name": "a", "defocus_u": 9000.0, "defocus_v": 8000.0},
        {"name": "a", "particles": 50},
    ]
    for step in steps:
        pipeline.post(step)
    forwards = pipeline.rows()["a"]
    for step in reversed(steps):
        pipeline.post({"name": "b"} | {key: value for key, value in step.items() if key != "name"})
    backwards = pipeline.rows()["b"]
    for name in ALL:
        if name != "name":
            assert forwards[name] == backwards[name]


def test_the_same_name_twice_in_a_batch_is_as_if_sent_one_after_the_other(pipeline):
    answer = pipeline.post(
        {"name": "a", "defocus_u": 1.0, "defocus_v": 2.0}, {"name": "a", "defocus_u": None, "particles": 3}
    )
    assert answer.json()["created"] == 1
    row = pipeline.rows()["a"]
    assert (row["defocus_u"], row["defocus_v"], row["particles"]) == (None, 2.0, 3)
    pipeline.assert_counted()


# -- Picks -------------------------------------------------------------------------------------------------


def coordinates(pipeline, name):
    answer = pipeline.client.get(f"/api/v1/micrographs/{pipeline.rows()[name]['id']}/coordinates/")
    assert answer.status_code == 200
    return answer.json()["coordinates"]


def test_picks_are_read_back_and_counted(pipeline):
    pipeline.post({"name": "a", "coordinates": [[1, 2], [3.5, 4095.25]]})
    assert coordinates(pipeline, "a") == [[1.0, 2.0], [3.5, 4095.25]]
    assert pipeline.rows()["a"]["particles"] == 2
    again = pipeline.post({"name": "a", "coordinates": [[1, 2], [3.5, 4095.25]]}).json()
    assert again["unchanged"] == 1
    pipeline.post({"name": "a", "coordinates": [[1, 2]]})
    assert pipeline.rows()["a"]["particles"] == 1
    pipeline.post({"name": "a", "coordinates": None})
    assert pipeline.rows()["a"]["particles"] is None
    assert coordinates(pipeline, "a") is None
    pipeline.assert_counted()


def test_no_picks_found_is_known_and_zero(pipeline):
    pipeline.post({"name": "a", "coordinates": []})
    assert pipeline.rows()["a"]["particles"] == 0
    assert coordinates(pipeline, "a") == []
    assert pipeline.counters()["picked"] == 1


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize(("particles", "expected"), [(7, 7), (None, 2)])
def test_a_count_and_picks_end_the_same_in_either_order(pipeline, order, particles, expected):
    parts = [{"particles": particles}, {"coordinates": [[1, 1], [2, 2]]}]
    for place in order:
        pipeline.post({"name": "a"} | parts[place])
    assert pipeline.rows()["a"]["particles"] == expected
    pipeline.assert_counted()


# -- Identity ----------------------------------------------------------------------------------------------


def test_two_names_of_one_exposure_in_a_run_are_refused_by_name_and_nothing_is_stored(pipeline):
    pipeline.post({"name": "Movies/a.tiff"})
    answer = pipeline.post({"name": "new"}, {"name": "a.mrc", "particles": 3})
    assert answer.status_code == 409
    (error,) = answer.json()["errors"]
    assert (error["index"], error["name"]) == (1, "a.mrc")
    assert "Movies/a.tiff" in error["errors"]["name"][0]
    assert error["same_as"] == "Movies/a.tiff"
    assert set(pipeline.rows()) == {"Movies/a.tiff"}


def test_two_names_of_one_exposure_in_one_batch_are_refused(pipeline):
    answer = pipeline.post({"name": "a.mrc"}, {"name": "b.mrc"}, {"name": "a.tiff"})
    assert answer.status_code == 409
    assert [(error["index"], error["same_as"]) for error in answer.json()["errors"]] == [(2, "a.mrc")]
    assert pipeline.rows() == {}
    assert not Exposure.objects.exists()


def test_two_runs_share_the_exposures_under_their_own_names(pipeline):
    other = pipeline.open_run("cryosparc").json()["id"]
    pipeline.post({"name": "Movies/a_fractions.tiff"})
    pipeline.post({"name": "000762140416835289736_a_fractions.tiff"}, run=other)
    assert Exposure.objects.get().name == "Movies/a_fractions.tiff"
    assert Micrograph.objects.count() == 2
    pipeline.session.summary.refresh_from_db()
    assert pipeline.session.summary.exposures == 1
    pipeline.assert_counted()


def test_square_and_hole_are_read_from_the_name_of_whichever_program_tells_them(pipeline):
    other = pipeline.open_run("scipion").json()["id"]
    epu = "FoilHole_5493259_Data_5492520_10_20240106_181616"
    pipeline.post({"name": f"{epu}_fractions.tiff", "particles": 3})
    before = pipeline.rows()[f"{epu}_fractions.tiff"]
    assert (before["grid_square"], before["foil_hole"]) == (None, "5493259")
    pipeline.post({"name": f"GridSquare_5489441_Data_{epu}_fractions.tiff"}, run=other)
    # The first run's row is told again, as it now shows its grid square.
    (after,) = pipeline.after(before["revision"]).json()["micrographs"]
    assert (after["id"], after["grid_square"]) == (before["id"], "5489441")
    pipeline.assert_counted()


# -- Refusals ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("ctf_resolution", 0),
        ("ctf_resolution", 1000),
        ("ctf_resolution", "4"),
        ("ctf_resolution", True),
        ("motion_total", -1),
        ("defocus_u", 1e7),
        ("defocus_angle", 361),
        ("particles", -1),
        ("particles", 1.5),
        ("particles", 10**12),
        ("rejected", 1),
        ("coordinates", [[1, 2, 3]]),
        ("coordinates", [[1]]),
        ("coordinates", [[1, "2"]]),
        ("coordinates", [[1, 1e9]]),
        ("coordinates", 5),
        ("coordinates", [[0, 0]] * 50_001),
        ("name", ""),
        ("name", "n" * 501),
        ("name", ".mrc"),
        ("name", "a\x00b"),
        ("name", 5),
        ("name", None),
        ("defokus_u", 1),
    ],
)
def test_what_cannot_be_is_refused_with_index_name_and_field(pipeline, field, value):
    answer = pipeline.post({"name": "fine"}, {"name": "bad"} | {field: value})
    assert answer.status_code == 400
    (error,) = answer.json()["errors"]
    assert error["index"] == 1
    assert list(error["errors"]) == [field]
    assert pipeline.rows() == {}
    assert not Exposure.objects.exists()


def test_an_unknown_field_is_answered_with_the_nearest(pipeline):
    answer = pipeline.post({"name": "a", "ctf_resoluton": 3.0})
    assert "ctf_resolution" in answer.json()["errors"][0]["errors"]["ctf_resoluton"][0]


def test_every_bad_item_is_named_and_the_first_hundred_reported(pipeline):
    answer = pipeline.post(*({"name": f"m{n}", "particles": -1 if n % 2 else 1} for n in range(600)))
    errors = answer.json()["errors"]
    assert [error["index"] for error in errors] == list(range(1, 200, 2))
    assert errors[0]["name"] == "m1"


@pytest.mark.parametrize(
    "body",
    [
        "",
        "[]",
        "{}",
        "null",
        '{"micrographs": []}',
        '{"micrographs": {}}',
        '{"micrographs": [1]}',
        '{"micrographs": [{"name": "a"}], "more": 1}',
        '{"micrographs": [{"name": "a", "defocus_u": NaN}]}',
        '{"micrographs": [{"name": "a", "defocus_u": Infinity}]}',
        '{"micrographs": [{"name": "a", "defocus_u": 1e999}]}',
        '{"micrographs": [{"name": "\\ud800"}]}',
        '{"micrographs": [{"name": "a"}',
        '{"micrographs": [{"name": "a", "defocus_u": ' + "9" * 400 + "}]}",
        '{"micrographs": [{"name": "\\ud800", "defocus_u": NaN}]}',
        '{"micrographs": [{"name": NaN}]}',
        '{"micrographs": NaN}',
        "[" * 100_000,
        '{"NaN": ' + "[" * 100_000,
    ],
)
def test_what_is_no_batch_is_refused(pipeline, body):
    answer = pipeline.client.post(f"{pipeline.url}micrographs/", body, content_type="application/json")
    assert answer.status_code == 400
    assert answer.json()
    assert not Micrograph.objects.exists()


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("NaN", "NaN"),
        ("-Infinity", "infinity"),
        ("1e999", "<="),
    ],
)
def test_a_number_that_is_none_is_refused_with_item_field_and_place(pipeline, value, said):
    wrong = f'{{"name": "b", "defocus_u": {value}, "coordinates": [[1, 2], [3, {value}]]}}'
    answer = pipeline.client.post(
        f"{pipeline.url}micrographs/",
        f'{{"micrographs": [{{"name": "a"}}, {wrong}, {{"name": "c", "particles": -1}}]}}',
        content_type="application/json",
    )
    first, second = answer.json()["errors"]
    assert (first["index"], first["name"], list(first["errors"])) == (1, "b", ["defocus_u", "coordinates"])
    assert said in first["errors"]["defocus_u"][0]
    assert first["errors"]["coordinates"][0].startswith("At [1][1]: ")
    assert (second["index"], list(second["errors"])) == (2, ["particles"])
    assert pipeline.rows() == {}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "The body is empty"),
        (b'\xef\xbb\xbf{"micrographs": [{"name": "a"}]}', "byte order mark"),
        ('{"micrographs": [{"name": "a"}]}'.encode("utf-16"), "byte order mark"),
        (b'{"micrographs": [{"name": "a\\ud800b"}]}', "surrogate"),
        (b'{"micrographs": [{"name": "a"}', "line 1 column"),
    ],
)
def test_what_is_no_json_is_told_why(pipeline, body, said):
    answer = pipeline.client.post(f"{pipeline.url}micrographs/", body, content_type="application/json")
    assert answer.status_code == 400
    assert said in answer.json()["detail"]


def test_a_name_ends_where_it_ends(pipeline):
    """A line's end after it would be kept, and told to everyone who reads."""
    answer = pipeline.post({"name": "a\n"})
    assert answer.json()["errors"][0]["errors"] == {"name": ["Control characters are not allowed."]}


def test_a_flood_of_unknown_fields_is_answered_briefly(pipeline):
    answer = pipeline.post({"name": "a", "x" * 100_000: 1} | {f"k{n}": 1 for n in range(5000)})
    assert answer.status_code == 400
    assert len(answer.content) < 5000


def test_more_than_a_thousand_are_too_many(pipeline):
    answer = pipeline.post(*({"name": f"m{n}"} for n in range(1001)))
    assert answer.status_code == 400
    assert "1,000" in answer.json()["micrographs"][0]


def test_another_content_type_is_refused(pipeline):
    answer = pipeline.client.post(f"{pipeline.url}micrographs/", "<a/>", content_type="text/xml")
    assert answer.status_code == 415
    assert "text/xml" in answer.json()["detail"]
    assert "Send application/json" in answer.json()["detail"]


def test_another_answer_than_json_is_refused_and_says_so(pipeline):
    answer = pipeline.client.get(f"{pipeline.url}micrographs/", HTTP_ACCEPT="application/xml")
    assert answer.status_code == 406
    assert "accept application/json" in answer.json()["detail"]


def test_what_is_not_there_is_told_without_our_own_names(pipeline):
    for address in ("/api/v1/runs/9999/", "/api/v1/sessions/none/runs/", "/api/v1/sessions/none/"):
        answer = pipeline.client.get(address)
        assert answer.status_code == 404
        assert answer.json() == {"detail": "There is none at this address, or it is not for you to see."}


def test_a_body_over_the_limit_is_refused_unread(pipeline, settings):
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 2000
    for address in (f"{pipeline.url}micrographs/", pipeline.base):
        method = pipeline.client.patch if address == pipeline.base else pipeline.client.post
        answer = method(address, "{" + " " * 3000 + "}", content_type="application/json")
        assert answer.status_code == 413, address


# -- Following changes -------------------------------------------------------------------------------------


def test_a_reader_is_told_every_changed_row_once_and_pages_by_revision(pipeline):
    pipeline.post(*({"name": f"m{n}"} for n in range(7)))
    seen, after, more = [], 0, True
    while more:
        page = pipeline.after(after, limit=3).json()
        revisions = [row["revision"] for row in page["micrographs"]]
        assert revisions == sorted(revisions)
        assert not revisions or after < revisions[0]
        seen += [row["name"] for row in page["micrographs"]]
        after, more = page["revision"], page["more"]
    assert seen == [f"m{n}" for n in range(7)]
    pipeline.post({"name": "m3", "particles": 1}, {"name": "m5"}, {"name": "m1", "rejected": True})
    page = pipeline.after(after).json()
    assert [row["name"] for row in page["micrographs"]] == ["m3", "m1"]
    assert page["revision"] == pipeline.run.revision
    assert pipeline.after(page["revision"]).json()["micrographs"] == []


def test_each_changed_row_takes_a_revision_of_its_own(pipeline):
    first = pipeline.run.revision
    answer = pipeline.post({"name": "a"}, {"name": "b"}, {"name": "c"}).json()
    assert sorted(row["revision"] for row in pipeline.rows().values()) == [first + 1, first + 2, first + 3]
    assert answer["revision"] == first + 3


def test_an_unchanged_poll_is_304_and_a_change_ends_it(pipeline):
    revision = pipeline.post({"name": "a"}).json()["revision"]
    etag = pipeline.after(revision)["ETag"]
    again = pipeline.client.get(f"{pipeline.url}micrographs/", {"after": revision}, HTTP_IF_NONE_MATCH=etag)
    assert (again.status_code, again.content) == (304, b"")
    pipeline.post({"name": "a", "particles": 2})
    changed = pipeline.client.get(f"{pipeline.url}micrographs/", {"after": revision}, HTTP_IF_NONE_MATCH=etag)
    assert changed.status_code == 200
    assert [row["particles"] for row in changed.json()["micrographs"]] == [2]


@pytest.mark.parametrize("after", ["x", "-1", "1.5", "", "9" * 40, "99", "²"])
def test_a_revision_that_is_none_is_refused(pipeline, after):
    assert pipeline.after(after).status_code == 400


def test_what_nobody_asks_here_or_asks_twice_is_refused_by_name(pipeline):
    """?since=5 would be answered with everything, which the reader would take for what is new."""
    for address, query, name in (
        ("micrographs/", "since=5", "since"),
        ("micrographs/", "After=5", "After"),
        ("micrographs/", "after=1&after=0", "after"),
        ("classes/", "jobs=a", "jobs"),
        ("events/", "limit=1", "limit"),
        ("", "after=0", "after"),
    ):
        answer = pipeline.client.get(f"{pipeline.url}{address}?{query}")
        assert (answer.status_code, list(answer.json())) == (400, [name])
    for address, method in ((f"{pipeline.url}classes/", "TRACE"), (pipeline.base, "PUT")):
        assert pipeline.client.generic(method, f"{address}?since=5").status_code == 405
    for address in ("exposures/", "runs/", "summary/"):
        answer = pipeline.client.get(f"{pipeline.base}{address}?since=5")
        assert (answer.status_code, list(answer.json())) == (400, ["since"])


@pytest.mark.parametrize("limit", ["0", "1001", "many"])
def test_a_limit_out_of_range_is_refused(pipeline, limit):
    assert pipeline.after(0, limit=limit).status_code == 400


# -- Cost --------------------------------------------------------------------------------------------------


def queries(call) -> int:
    with CaptureQueriesContext(connection) as captured:
        assert call().status_code == 200
    return len(captured)


def test_neither_posting_nor_reading_asks_more_for_more_rows(pipeline):
    one = queries(lambda: pipeline.post({"name": "a", "particles": 1, "coordinates": [[1, 1]]}))
    many = [{"name": f"m{n}", "particles": 1, "coordinates": [[1, 1]]} for n in range(50)]
    assert queries(lambda: pipeline.post(*many)) == one
    again = queries(lambda: pipeline.post(*many))
    assert again < one
    newest = pipeline.run.revision
    reading = queries(lambda: pipeline.after(newest - 1))
    assert queries(lambda: pipeline.after(0)) == reading
    assert reading <= 3


def test_reads_write_nothing(pipeline):
    pipeline.post(ALL)
    micrograph = pipeline.rows()[ALL["name"]]["id"]
    pipeline.client.get(f"{pipeline.base}summary/")  # fills the cache
    for address in (
        pipeline.base,
        f"{pipeline.base}summary/",
        f"{pipeline.base}runs/",
        f"{pipeline.base}exposures/",
        pipeline.url,
        f"{pipeline.url}micrographs/",
        f"{pipeline.url}classes/",
        f"{pipeline.url}events/",
        f"/api/v1/micrographs/{micrograph}/coordinates/",
    ):
        with CaptureQueriesContext(connection) as captured:
            assert pipeline.client.get(address).status_code == 200, address
        statements = [query["sql"].split(" ", 1)[0] for query in captured]
        assert set(statements) == {"SELECT"}, address


# -- State -------------------------------------------------------------------------------------------------


def test_a_finished_session_still_takes_late_results(pipeline):
    Session.objects.filter(pk=pipeline.session.pk).update(
        status=Session.Status.FINISHED, end=pipeline.session.start
    )
    assert pipeline.post({"name": "late"}).status_code == 200
    pipeline.session.summary.refresh_from_db()
    assert pipeline.session.summary.micrographs == 1


def test_an_archived_session_takes_nothing_and_says_what_to_do(pipeline, picture):
    pipeline.post({"name": "a"})
    Session.objects.filter(pk=pipeline.session.pk).update(
        status=Session.Status.ARCHIVED, end=pipeline.session.start
    )
    client, url = pipeline.client, pipeline.url
    for answer in (
        pipeline.post({"name": "late"}),
        pipeline.expose({"name": "late"}),
        pipeline.open_run("new"),
        client.patch(url, {"status": "finished"}),
        client.patch(url),
        client.post(f"{url}classes/", {"job": "j", "classes": [{"number": 1}]}),
        client.post(f"{url}events/", {"level": "info", "text": "late"}),
        client.post(
            f"{url}images/", {"kind": "psd", "micrograph": "a", "file": picture()}, format="multipart"
        ),
    ):
        assert answer.status_code == 409
        assert "archived" in answer.json()["detail"]
    assert list(Micrograph.objects.values_list("name", flat=True)) == ["a"]
    assert client.get(f"{url}micrographs/").status_code == 410


def test_archived_meanwhile_is_noticed_under_the_lock(pipeline, monkeypatch):
    """The view has looked before the session was archived."""
    from preprocessing.api.views import ReportView

    monkeypatch.setattr(ReportView, "_writable", lambda self, session: session)
    Session.objects.filter(pk=pipeline.session.pk).update(
        status=Session.Status.ARCHIVED, end=pipeline.session.start
    )
    assert pipeline.post({"name": "late"}).status_code == 409
    assert pipeline.expose({"name": "late"}).status_code == 409
    assert pipeline.open_run("new").status_code == 409
    assert pipeline.client.patch(pipeline.url, {"label": "new"}).status_code == 409
    assert not Exposure.objects.exists()
    assert ProcessingRun.objects.count() == 1


def test_summary_of_a_session_follows_its_leading_run(pipeline):
    other = pipeline.open_run("second").json()["id"]
    pipeline.post({"name": "a"}, {"name": "b", "particles": 4})
    pipeline.post({"name": "a", "particles": 9}, run=other)
    summary = pipeline.session.summary
    summary.refresh_from_db()
    assert (summary.leading_run, summary.micrographs, summary.particles) == (pipeline.run_id, 2, 4)
    pipeline.post({"name": "b"}, {"name": "c"}, run=other)
    summary.refresh_from_db()
    assert (summary.leading_run, summary.micrographs, summary.particles) == (other, 3, 9)
    assert (summary.runs, summary.exposures) == (2, 3)
    # Of equals the newest leads.
    pipeline.post({"name": "c"})
    summary.refresh_from_db()
    assert summary.leading_run == other


def test_histograms_count_by_fixed_edges_with_under_and_overflow(pipeline):
    pipeline.post(
        {"name": "a", "ctf_resolution": 1.9},
        {"name": "b", "ctf_resolution": 2.0},
        {"name": "c", "ctf_resolution": 3.0, "defocus_u": 12_000, "defocus_v": 11_000},
        {"name": "d", "ctf_resolution": 12.0},
    )
    counts = pipeline.run.histograms["ctf_resolution"]
    edges = MEASURES["ctf_resolution"].edges
    assert len(counts) == len(edges) + 1
    assert (counts[0], counts[1], counts[1 + edges.index(3.0)], counts[-1]) == (1, 1, 1, 1)
    defocus = pipeline.run.histograms["defocus"]  # 1.15 µm
    assert defocus[1 + MEASURES["defocus"].edges.index(1.1)] == 1
    assert sum(defocus) == 1
    pipeline.post({"name": "a", "ctf_resolution": 5.0})
    assert pipeline.run.histograms["ctf_resolution"][0] == 0
    pipeline.assert_counted()


def test_sessions_of_others_are_not_touched(pipeline):
    other = FinishedSessionFactory()
    pipeline.post(ALL)
    other.summary.refresh_from_db()
    assert other.summary.micrographs == 0
