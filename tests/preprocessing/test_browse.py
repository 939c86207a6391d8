"""Browsing micrographs, and people's verdicts on them: who may, what changes, and how it is undone."""

import itertools

import numpy as np
import pytest
from django.urls import reverse

from preprocessing import browse, curation, ingest, packed
from preprocessing.identity import identity
from preprocessing.models import CurationAct, Exposure, Micrograph, ProcessingRun
from sessions_app.lifecycle import session_archive, session_finish
from tests.factories import MembershipFactory, SessionFactory, StaffFactory, UserFactory

pytestmark = pytest.mark.django_db
COUNT = 30


@pytest.fixture
def session():
    """Thirty micrographs of two grid squares; resolution rises from 3 to 5.9 Å, the last has none."""
    packed.forget()
    session = SessionFactory()
    run, _ = ingest.open_run(
        session.pk, key="relion", software="RELION", pixel_size=1.0, width=4000, height=4000
    )
    reports = []
    for n in range(COUNT):
        name = f"GridSquare_{n % 2}/FoilHole_{n}_Data_1_2_20261120_1015{n:02d}.tiff"
        values = {"motion_total": float(COUNT - n), "particles": 10 * n}
        if n < COUNT - 1:
            values["ctf_resolution"] = 3 + n / 10
        reports.append(ingest.Report(name, identity(name), values))
    reports[4].values["coordinates"] = np.array([[10, 20], [30, 40]], "<f4").tobytes()
    reports[5].values["rejected"] = True
    ingest.record_micrographs(session.pk, run.pk, reports)
    other, _ = ingest.open_run(session.pk, key="second", software="Scipion")
    ingest.record_micrographs(session.pk, other.pk, reports[:3])
    return session


@pytest.fixture
def owner(session):
    return session.owner


def ids(session, key="relion"):
    rows = Micrograph.objects.filter(run__session=session, run__key=key).order_by("pk")
    return list(rows.values_list("pk", flat=True))


def data(client, session, **query):
    return client.get(reverse("preprocessing:micrographs-data", args=[session.name]), query)


def numbers(client, session, **query):
    return [row["number"] for row in data(client, session, **query).json()["rows"]]


def judge(client, session, fields, **query):
    url = reverse("preprocessing:verdict", args=[session.name])
    return client.post(url + "?" + "&".join(f"{key}={value}" for key, value in query.items()), fields)


# -- Choosing and sorting ----------------------------------------------------------------------------------


def test_newest_come_first_a_page_at_a_time(client, session, owner):
    client.force_login(owner)
    assert numbers(client, session, limit=5) == [30, 29, 28, 27, 26]
    assert numbers(client, session, limit=5, offset=28) == [2, 1]
    answer = data(client, session, limit=1).json()
    assert (answer["total"], answer["of"], answer["words"]) == (30, 30, "all")
    assert answer["rows"][0]["values"] == {"motion_total": 1.0, "particles": 290, "ctf_resolution": None}


def test_sorted_by_any_value_with_the_unknown_last(client, session, owner):
    client.force_login(owner)
    assert numbers(client, session, sort="ctf_resolution", limit=3) == [1, 2, 3]
    assert numbers(client, session, sort="-ctf_resolution", limit=3) == [29, 28, 27]
    assert numbers(client, session, sort="-ctf_resolution")[-1] == 30
    assert numbers(client, session, sort="motion_total", limit=2) == [30, 29]
    assert numbers(client, session, sort="number", limit=2) == [1, 2]


def test_filtered_by_ranges_and_places(client, session, owner):
    client.force_login(owner)
    assert numbers(client, session, ctf_resolution_max="3.25", sort="number") == [1, 2, 3]
    assert numbers(client, session, ctf_resolution_min="5.75", sort="number") == [29]
    assert numbers(client, session, grid_square="1", particles_max="60", sort="number") == [2, 4, 6]
    assert numbers(client, session, foil_hole="7") == [8]
    assert numbers(client, session, grid_square="nowhere") == []
    words = data(client, session, ctf_resolution_max="3.25", grid_square="1").json()["words"]
    assert words == "CTF resolution up to 3.25 Å, grid square 1"
    assert numbers(client, session, show="pipeline") == [6]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"show": "nice"}, "show"),
        ({"sort": "beauty"}, "sort"),
        ({"ctf_resolution_max": "three"}, "ctf_resolution_max"),
        ({"motion_total_min": "nan"}, "motion_total_min"),
        ({"offset": "-1"}, "offset"),
        ({"run": "x"}, "run"),
    ],
)
def test_a_choice_that_makes_no_sense_is_named(client, session, owner, query, field):
    client.force_login(owner)
    answer = data(client, session, **query)
    assert answer.status_code == 400
    assert list(answer.json()) == [field]


def test_the_way_to_the_next_good_and_bad_one(session):
    table = packed.table(ProcessingRun.objects.get(key="relion"))
    bounds = {"ctf_resolution": (None, 4.0)}
    places = browse.chosen(table, browse.Choice(sort="number", descending=False), bounds)
    pks = ids(session)

    def after(number, step, kind):
        found = browse.neighbour(table, places, pks[number - 1], step, kind, bounds)
        return None if found is None else pks.index(found) + 1

    assert after(1, 1, "any") == 2
    assert after(1, -1, "any") is None
    assert after(30, 1, "any") is None
    assert after(1, 1, "bad") == 6  # its pipeline rejected it
    assert after(6, 1, "bad") == 12
    assert after(12, -1, "good") == 11
    assert after(11, 1, "good") is None
    few = browse.chosen(table, browse.Choice.of({"grid_square": "1"}), bounds)
    assert browse.neighbour(table, few, pks[0], 1, "any", bounds) == pks[29]


# -- One micrograph ----------------------------------------------------------------------------------------


def test_one_micrograph_with_its_values_picks_and_neighbours(client, session, owner):
    client.force_login(owner)
    pk = ids(session)[4]
    found = client.get(reverse("preprocessing:micrograph", args=[session.name, pk])).json()
    assert found["number"] == 5
    values = {row["key"]: (row["text"], row["unit"]) for row in found["values"]}
    assert values["ctf_resolution"] == ("3.4", "Å")
    picks = client.get(found["picks"]).json()
    assert picks["coordinates"] == [[10, 20], [30, 40]]
    assert (picks["width"], picks["height"]) == (4000, 4000)
    nearby = [row["number"] for row in found["nearby"]]
    assert set(nearby[:2]) == {3, 7}  # the same square, the nearest in time
    assert client.get(reverse("preprocessing:micrograph", args=[session.name, pk + 1000])).status_code == 404


def test_pages_pass_the_sessions_gate(client, session):
    pk = ids(session)[0]
    urls = [
        reverse("preprocessing:micrographs", args=[session.name]),
        reverse("preprocessing:micrographs-data", args=[session.name]),
        reverse("preprocessing:micrographs-next", args=[session.name]),
        reverse("preprocessing:micrograph", args=[session.name, pk]),
    ]
    colleague = MembershipFactory(lab=session.lab).user
    for person, status in (
        (session.owner, 200),
        (colleague, 200),
        (StaffFactory(), 200),
        (UserFactory(), 404),
    ):
        client.force_login(person)
        assert [client.get(url).status_code for url in urls] == [status] * 4
    stranger_session = SessionFactory()
    client.force_login(stranger_session.owner)
    url = reverse("preprocessing:micrograph", args=[stranger_session.name, pk])
    assert client.get(url).status_code == 404


def test_a_session_without_micrographs_says_so(client):
    session = SessionFactory()
    client.force_login(session.owner)
    text = client.get(reverse("preprocessing:micrographs", args=[session.name])).content.decode()
    assert "There are no micrographs yet" in text
    assert data(client, session).status_code == 404


def test_a_page_of_tiles_costs_the_same_for_few_and_many(client, session, owner, django_assert_num_queries):
    client.force_login(owner)
    data(client, session, limit=2)
    with django_assert_num_queries(8):
        data(client, session, limit=2)
    with django_assert_num_queries(8):
        data(client, session, limit=30)


# -- Verdicts ----------------------------------------------------------------------------------------------


def test_one_is_rejected_with_a_reason_and_by_whom(client, session, owner):
    client.force_login(owner)
    pk = ids(session)[1]
    answer = judge(client, session, {"verdict": "rejected", "reason": " ice ", "ids": pk})
    assert answer.json()["text"] == "Rejected 1."
    exposure = Micrograph.objects.get(pk=pk).exposure
    assert (exposure.verdict, exposure.verdict_by, exposure.verdict_reason) == ("rejected", owner, "ice")
    assert exposure.verdict_at is not None
    detail = client.get(reverse("preprocessing:micrograph", args=[session.name, pk])).json()
    assert detail["state"] == "rejected"
    assert (detail["verdict"]["by"], detail["verdict"]["reason"]) == (str(owner), "ice")
    assert numbers(client, session, show="rejected") == [2]
    # It is told to whoever follows any of the session's runs.
    second = ProcessingRun.objects.get(key="second")
    assert Micrograph.objects.get(run=second, exposure=exposure).revision == second.revision
    assert judge(client, session, {"verdict": "rejected", "reason": "ice", "ids": pk}).json()["act"] is None
    assert CurationAct.objects.count() == 1


def test_all_that_a_filter_shows_is_rejected_at_once(client, session, owner):
    client.force_login(owner)
    fields = {"verdict": "rejected", "all": "1", "count": "3"}
    answer = judge(client, session, fields, ctf_resolution_min="5.55")
    assert answer.json()["text"] == "Rejected 3."
    assert numbers(client, session, show="rejected") == [29, 28, 27]
    (act,) = data(client, session).json()["acts"]
    assert act["text"] == "Rejected 3: CTF resolution from 5.55 Å"
    assert act["by"] == str(owner)


def test_what_was_confirmed_must_still_be_what_is_there(client, session, owner):
    client.force_login(owner)
    answer = judge(client, session, {"verdict": "rejected", "all": "1", "count": "29"})
    assert answer.status_code == 400
    assert "now 30" in answer.json()["count"][0]
    assert not Exposure.objects.exclude(verdict="").exists()


def test_undoing_gives_back_what_was_before_and_leaves_what_was_judged_since(client, session, owner):
    client.force_login(owner)
    pks = ids(session)
    judge(client, session, {"verdict": "accepted", "ids": pks[0]})
    before = Exposure.objects.filter(micrographs=pks[0]).values().get()
    act = judge(
        client, session, {"verdict": "rejected", "reason": "drift", "all": "1", "count": "30"}
    ).json()["act"]
    judge(client, session, {"verdict": "accepted", "ids": pks[9]})
    url = reverse("preprocessing:verdict-undo", args=[session.name, act])
    answer = client.post(url)
    assert answer.json() == {
        "count": 29,
        "text": "Undone for 29. 1 were judged anew since and stay as they are.",
    }
    after = Exposure.objects.filter(micrographs=pks[0]).values().get()
    assert {key: value for key, value in after.items() if key != "revision"} == {
        key: value for key, value in before.items() if key != "revision"
    }
    assert Exposure.objects.filter(verdict="accepted").count() == 2
    assert not Exposure.objects.filter(verdict="rejected").exists()
    assert client.post(url).status_code == 409
    acts = {row["id"]: row["undone"] for row in data(client, session).json()["acts"]}
    assert acts[act] == str(owner)


def test_a_verdict_can_be_taken_back(client, session, owner):
    client.force_login(owner)
    pk = ids(session)[0]
    judge(client, session, {"verdict": "rejected", "ids": pk})
    assert judge(client, session, {"verdict": "", "ids": pk}).json()["text"] == "Made undecided 1."
    assert numbers(client, session, show="rejected") == []
    assert Exposure.objects.get(micrographs=pk).verdict == ""


def test_who_may_judge(client, session):
    pk = ids(session)[0]
    act = curation.judge(session, session.owner, [Exposure.objects.earliest("pk").pk], "accepted", what="one")
    undo = reverse("preprocessing:verdict-undo", args=[session.name, act.pk])
    guest = UserFactory()
    session.booking.collaborators.add(guest)
    colleague = MembershipFactory(lab=session.lab).user
    for person, status in ((UserFactory(), 404), (guest, 403), (colleague, 200), (StaffFactory(), 200)):
        client.force_login(person)
        assert judge(client, session, {"verdict": "rejected", "ids": pk}).status_code == status
        page = reverse("preprocessing:micrographs", args=[session.name])
        if status != 404:
            assert ("Reject all shown" in client.get(page).content.decode()) == (status == 200)
        else:
            assert client.post(undo).status_code == 404
        if status == 403:
            assert client.post(undo).status_code == 403
    other = SessionFactory()
    client.force_login(other.owner)
    assert client.post(reverse("preprocessing:verdict-undo", args=[other.name, act.pk])).status_code == 404


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"verdict": "nice", "ids": "1"}, "verdict"),
        ({"ids": "1"}, "verdict"),
        ({"verdict": "rejected"}, "ids"),
        ({"verdict": "rejected", "ids": "1;2"}, "ids"),
        ({"verdict": "rejected", "ids": "999999"}, "ids"),
        ({"verdict": "rejected", "ids": "9" * 40}, "ids"),
        ({"verdict": "rejected", "ids": "1", "reason": "x" * 301}, "reason"),
    ],
)
def test_a_verdict_that_makes_no_sense_is_named_and_changes_nothing(client, session, owner, fields, field):
    client.force_login(owner)
    answer = judge(client, session, fields)
    assert answer.status_code == 400
    assert list(answer.json()) == [field]
    assert not CurationAct.objects.exists()


def test_many_are_judged_in_parts_and_all_or_none(session, owner, monkeypatch):
    monkeypatch.setattr(curation, "CHUNK", 7)
    exposures = list(Exposure.objects.values_list("pk", flat=True))
    act = curation.judge(session, owner, exposures, "rejected", what="all")
    assert act.count == COUNT
    assert curation.undo(act, owner) == COUNT
    calls = itertools.count()
    real = ingest.change_exposures

    def failing(*args, **kwargs):
        if next(calls) == 2:
            raise OSError("no disk")
        return real(*args, **kwargs)

    monkeypatch.setattr(ingest, "change_exposures", failing)
    with pytest.raises(OSError, match="no disk"):
        curation.judge(session, owner, exposures, "rejected", what="all")
    assert not Exposure.objects.filter(verdict="rejected").exists()


def test_an_archived_session_is_browsed_and_not_judged(client, session, owner):
    client.force_login(owner)
    judge(client, session, {"verdict": "rejected", "ids": ids(session)[0]})
    act = CurationAct.objects.get()
    pks = ids(session)
    before = data(client, session, limit=5).json()["rows"]
    staff = StaffFactory()
    session_finish(session, staff)
    session_archive(session, staff)
    packed.forget()
    after = data(client, session, limit=5).json()["rows"]
    assert after == before
    found = client.get(reverse("preprocessing:micrograph", args=[session.name, pks[4]])).json()
    assert found["name"].startswith("GridSquare_0/FoilHole_4")
    assert {row["key"]: row["text"] for row in found["values"]}["ctf_resolution"] == "3.4"
    assert found["picks"] is None
    assert judge(client, session, {"verdict": "rejected", "ids": pks[1]}).status_code == 409
    client.force_login(staff)
    url = reverse("preprocessing:verdict-undo", args=[session.name, act.pk])
    assert client.post(url).status_code == 403
