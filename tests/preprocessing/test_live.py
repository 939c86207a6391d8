"""The live page's data: columns, bins and deltas, who gets them and what they cost."""

import datetime
import gzip
import json
import re

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from people.models import AuditEntry
from preprocessing import ingest, live, packed, polls, reduction
from preprocessing.identity import identity
from preprocessing.live_views import LiveData
from preprocessing.models import (
    ClassAverage,
    Micrograph,
    MicroscopeLimits,
    PackedColumns,
    ProcessingRun,
    SessionLimits,
)
from preprocessing.state import RELATED, state_of
from sessions_app.models import Session, SessionSummary
from tests.factories import (
    BookingFactory,
    FinishedSessionFactory,
    LabFactory,
    MembershipFactory,
    MicrographFactory,
    RunFactory,
    SessionFactory,
    StaffFactory,
    UserFactory,
)

pytestmark = pytest.mark.django_db


@pytest.fixture
def session():
    return SessionFactory()


@pytest.fixture
def owner(client, session):
    client.force_login(session.booking.owner)
    return session.booking.owner


def open_run(session, key="p1", **fields):
    return ingest.open_run(session.pk, key=key, software="RELION", **fields)[0]


def report(run, *rows):
    """Post micrographs as a pipeline does: (name, values) each."""
    reports = [ingest.Report(name, identity(name), values) for name, values in rows]
    return ingest.record_micrographs(run.session_id, run.pk, reports)


def movies(first, count, **values):
    return [
        (f"FoilHole_1_Data_2_3_{number:06}_fractions.tiff", values) for number in range(first, first + count)
    ]


def ask(client, session, **query):
    headers = {"If-None-Match": query.pop("etag")} if "etag" in query else {}
    return client.get(reverse("preprocessing:live-data", args=[session.name]), query, headers=headers)


class TestColumns:
    def test_values_come_in_the_order_of_exposures_and_the_unit_shown(self, client, session, owner):
        run = open_run(session)
        report(
            run,
            ("a.tiff", {"defocus_u": 15000.0, "defocus_v": 14000.0, "ctf_resolution": 3.456}),
            ("b.tiff", {"motion_total": 12.34, "defocus_u": 8000.0}),
        )
        block = ask(client, session).json()["micrographs"]
        assert block["series"] == {
            "ctf_resolution": [3.456, None],
            "defocus": [1.45, 0.8],
            "motion_total": [None, 12.34],
            "astigmatism": [100.0, None],
        }
        assert block["exposure"] == sorted(block["exposure"])
        assert block["number"] == [1, 2]
        assert {len(block[name]) for name in ("id", "exposure", "reported", "flags")} == {2}
        assert (block["acquired"], block["angle"]) == (None, None)
        assert (block["reset"], block["complete"], block["total"], block["rows"]) == (True, True, 2, 2)

    def test_acquisition_time_is_told_where_it_is_known(self, client, session, owner):
        run = open_run(session)
        report(run, ("a.tiff", {}), ("b.tiff", {}))
        at = datetime.datetime(2026, 11, 23, 10, 15, tzinfo=datetime.UTC)
        ingest.change_exposures(session.pk, {identity("b.tiff"): {"acquired_at": at}})
        assert ask(client, session).json()["micrographs"]["acquired"] == [None, int(at.timestamp())]

    def test_pictures_and_verdicts_are_flagged(self, client, session, owner):
        run = open_run(session)
        report(run, ("a.tiff", {}), ("b.tiff", {}), ("c.tiff", {}), ("d.tiff", {"rejected": True}))
        rows = list(Micrograph.objects.order_by("exposure_id"))
        rows[1].micrograph_image = rows[2].micrograph_image = "m.png"
        rows[2].psd_image = "p.png"
        Micrograph.objects.bulk_update(rows, ["micrograph_image", "psd_image"])
        ingest.change_exposures(session.pk, {identity("a.tiff"): {"verdict": "rejected"}})
        assert ask(client, session).json()["micrographs"]["flags"] == [16, 1, 3, 4]

    def test_a_first_load_of_many_keeps_extremes_and_the_newest(self, client, session, owner, monkeypatch):
        monkeypatch.setattr(reduction, "WHOLE", 200)
        monkeypatch.setattr(reduction, "BUDGET", 100)
        monkeypatch.setattr(reduction, "TAIL", 20)
        monkeypatch.setattr(reduction, "LEAST_BUCKETS", 10)
        run = open_run(session)
        report(run, *movies(0, 1000, ctf_resolution=4.0, motion_total=5.0))
        report(run, *movies(333, 1, ctf_resolution=9.0), *movies(444, 1, motion_total=0.5))
        block = ask(client, session, axis="number").json()["micrographs"]
        assert (block["complete"], block["total"], block["rows"]) == (False, 1000, 1000)
        assert len(block["id"]) < 200
        shown = dict(
            zip(
                block["number"],
                zip(block["series"]["ctf_resolution"], block["series"]["motion_total"], strict=True),
                strict=True,
            )
        )
        assert shown[334] == (9.0, 5.0)
        assert shown[445] == (4.0, 0.5)
        assert list(shown)[-20:] == list(range(981, 1001))
        assert set(block["medians"]["series"]["ctf_resolution"]) == {4.0}


class TestDeltas:
    def test_only_what_changed_since_the_revision_is_told(self, client, session, owner):
        run = open_run(session)
        report(run, *movies(0, 3, ctf_resolution=3.0))
        revision = ask(client, session).json()["run"]["revision"]
        report(run, *movies(2, 2, ctf_resolution=5.0))
        data = ask(client, session, run=run.pk, after=revision).json()
        assert data["micrographs"]["reset"] is False
        assert data["micrographs"]["series"]["ctf_resolution"] == [5.0, 5.0]
        assert data["micrographs"]["total"] == 4
        assert data["run"]["revision"] > revision

    def test_a_change_of_state_alone_sends_no_rows(self, client, session, owner):
        run = open_run(session)
        report(run, *movies(0, 3))
        first = ask(client, session)
        heard = timezone.now() - datetime.timedelta(minutes=20)
        SessionSummary.objects.update(last_seen_at=heard)
        answer = ask(client, session, after=first.json()["run"]["revision"], etag=first["ETag"])
        assert answer.status_code == 200
        assert answer.json()["state"]["key"] == "pipeline_silent"
        assert answer.json()["micrographs"] is None

    def test_more_changes_than_fit_start_over(self, client, session, owner, monkeypatch):
        monkeypatch.setattr(live, "LIMIT", 4)
        run = open_run(session)
        report(run, *movies(0, 2))
        revision = ask(client, session).json()["run"]["revision"]
        report(run, *movies(2, 4))
        exactly = ask(client, session, after=revision).json()["micrographs"]
        assert (exactly["reset"], len(exactly["id"])) == (False, 4)
        report(run, *movies(6, 1))
        block = ask(client, session, after=revision).json()["micrographs"]
        assert (block["reset"], len(block["id"]), block["total"]) == (True, 7, 7)

    def test_a_late_exposure_moves_the_numbers_behind_it(self, client, session, owner):
        early = ingest.record_exposures(session.pk, [ingest.Report("early.tiff", "early", {})])
        assert early.created == 1
        run = open_run(session)
        report(run, *movies(0, 2))
        revision = ask(client, session).json()["run"]["revision"]
        report(run, ("early.tiff", {}))
        delta = ask(client, session, after=revision).json()["micrographs"]
        assert (delta["number"], delta["total"]) == ([1], 3)
        assert ask(client, session).json()["micrographs"]["number"] == [1, 2, 3]

    def test_a_revision_the_run_never_had_starts_over(self, client, session, owner):
        run = open_run(session)
        report(run, *movies(0, 2))
        assert ask(client, session, after=10**9).json()["micrographs"]["reset"] is True

    def test_nothing_new_is_answered_304_and_any_change_is_not(self, client, session, owner):
        run = open_run(session)
        report(run, *movies(0, 2))
        tag = ask(client, session)["ETag"]
        unchanged = ask(client, session, etag=tag)
        assert (unchanged.status_code, unchanged.content, unchanged["ETag"]) == (304, b"", tag)
        tags = {tag}
        for change in (
            lambda: report(run, *movies(0, 1, particles=3)),
            lambda: ingest.record_event(session.pk, run.pk, level="info", text="Picking started."),
            lambda: ingest.change_run(session.pk, run.pk, status="finished"),
            lambda: ingest.record_exposures(session.pk, [ingest.Report("z.tiff", "z", {})]),
            lambda: open_run(session, key="p2"),
        ):
            change()
            answer = ask(client, session, etag=tag)
            assert answer.status_code == 200
            tag = answer["ETag"]
            assert tag not in tags
            tags.add(tag)

    def test_messages_are_told_once_and_newest_first(self, client, session, owner):
        run = open_run(session)
        for text in ("one", "two"):
            ingest.record_event(session.pk, run.pk, level="warning", text=text)
        first = ask(client, session).json()
        assert [event["text"] for event in first["events"]] == ["two", "one"]
        ingest.record_event(session.pk, run.pk, level="error", text="three")
        after = ask(client, session, after=first["run"]["revision"]).json()
        assert [(event["level"], event["text"]) for event in after["events"]] == [("error", "three")]


class TestHistograms:
    def test_bins_are_in_the_unit_shown_without_empty_ends(self, client, session, owner):
        run = open_run(session)
        for number, defocus in enumerate([10500, 10600, 12500]):
            report(run, *movies(number, 1, defocus_u=float(defocus), defocus_v=float(defocus)))
        bins = ask(client, session).json()["histograms"]["defocus"]
        assert (bins["edges"], bins["counts"]) == ([1.0, 1.1, 1.2, 1.3], [2, 0, 1])
        assert (bins["below"], bins["above"]) == (0, 0)

    def test_what_lies_outside_is_counted(self, client, session, owner):
        run = open_run(session)
        for number, resolution in enumerate([1.5, 3.1, 30.0, 40.0]):
            report(run, *movies(number, 1, ctf_resolution=resolution))
        bins = ask(client, session).json()["histograms"]["ctf_resolution"]
        assert (bins["below"], sum(bins["counts"]), bins["above"]) == (1, 1, 2)
        assert bins["limits"][0] > 1.5
        assert bins["limits"][1] <= 30

    def test_only_outside_values_leave_no_bins(self, client, session, owner):
        report(open_run(session), *movies(0, 1, ctf_resolution=50.0))
        bins = ask(client, session).json()["histograms"]["ctf_resolution"]
        assert (bins["counts"], bins["above"]) == ([], 1)

    def test_what_was_never_sent_has_none(self, client, session, owner):
        report(open_run(session), *movies(0, 1, ctf_resolution=3.0))
        assert set(ask(client, session).json()["histograms"]) == {"ctf_resolution"}


class TestClasses:
    def test_the_newest_iteration_with_most_particles_first(self, client, session, owner):
        run = open_run(session)
        for iteration, particles in ((24, (9, 9)), (25, (10, 30))):
            classes = [{"number": n + 1, "particles": count} for n, count in enumerate(particles)]
            ingest.record_classes(
                session.pk, run.pk, job="Class2D/job010", iteration=iteration, classes=classes
            )
        ClassAverage.objects.filter(iteration=25, number=1).update(image="c.png")
        block = ask(client, session).json()["classes"]
        assert (block["job"], block["iteration"], block["total"]) == ("Class2D/job010", 25, 40)
        assert [(row["number"], row["share"]) for row in block["rows"]] == [(2, 0.75), (1, 0.25)]
        assert block["rows"][0]["image"] is None
        assert block["rows"][1]["image"].endswith("/c.png")

    def test_they_are_sent_again_only_when_one_changed(self, client, session, owner):
        run = open_run(session)
        classes = [{"number": 1, "particles": 5}, {"number": 2, "particles": 0}]
        ingest.record_classes(session.pk, run.pk, job="j", iteration=1, classes=classes)
        revision = ask(client, session).json()["run"]["revision"]
        report(run, *movies(0, 1))
        assert ask(client, session, after=revision).json()["classes"] is None
        classes[1]["particles"] = 7
        ingest.record_classes(session.pk, run.pk, job="j", iteration=1, classes=classes)
        assert ask(client, session, after=revision).json()["classes"]["total"] == 12

    def test_no_particles_at_all_has_no_share(self, client, session, owner):
        run = open_run(session)
        ingest.record_classes(
            session.pk, run.pk, job="j", iteration=1, classes=[{"number": 1, "particles": 0}]
        )
        assert ask(client, session).json()["classes"]["rows"][0]["share"] is None


class TestRuns:
    def test_the_run_with_most_micrographs_is_shown_unless_another_is_asked_for(self, client, session, owner):
        large, small = open_run(session, "large"), open_run(session, "small", label="second try")
        report(large, *movies(0, 3))
        report(small, *movies(0, 1))
        data = ask(client, session).json()
        assert data["run"]["id"] == large.pk
        assert [(run["name"], run["micrographs"]) for run in data["runs"]] == [
            ("RELION large", 3),
            ("second try", 1),
        ]
        chosen = ask(client, session, run=small.pk).json()
        assert (chosen["run"]["id"], len(chosen["micrographs"]["id"])) == (small.pk, 1)

    def test_a_run_of_another_session_is_not_found(self, client, session, owner):
        other = RunFactory()
        assert ask(client, session, run=other.pk).status_code == 404
        page = reverse("preprocessing:live", args=[session.name])
        assert client.get(page, {"run": other.pk}).status_code == 404

    @pytest.mark.parametrize("query", [{"run": "x"}, {"after": "-1"}, {"after": "1e3"}, {"after": "9" * 30}])
    def test_what_is_no_number_is_refused_by_name(self, client, session, owner, query):
        answer = ask(client, session, **query)
        assert answer.status_code == 400
        assert set(answer.json()) == set(query)


class TestState:
    """One sentence says how the session stands, the same everywhere (state.py)."""

    def test_the_page_says_what_every_other_page_says(self, client, session, owner):
        run = open_run(session, host="gpu01")
        report(run, *movies(0, 1))
        session = Session.objects.select_related(*RELATED).get(pk=session.pk)
        said = state_of(session)
        data = ask(client, session).json()["state"]
        assert (data["key"], data["text"], data["level"]) == (said.code, said.words, said.level)
        assert said.code == "collecting"


class TestMicrograph:
    def detail(self, client, micrograph):
        return client.get(
            reverse("preprocessing:live-micrograph", args=[micrograph.run.session.name, micrograph.pk])
        )

    def test_every_value_comes_with_its_unit(self, client, session, owner):
        run = open_run(session)
        report(
            run,
            (
                "movies/a_fractions.tiff",
                {
                    "defocus_u": 15234.0,
                    "defocus_v": 14000.0,
                    "defocus_angle": -19.6,
                    "ctf_resolution": 3.44,
                    "motion_total": 12.0,
                    "particles": 1234,
                },
            ),
        )
        data = self.detail(client, Micrograph.objects.get()).json()
        shown = {row["key"]: (row["text"], row["unit"]) for row in data["values"]}
        assert shown == {
            "defocus": ("1.46", "µm"),
            "defocus_u": ("1.52", "µm"),
            "defocus_v": ("1.40", "µm"),
            "defocus_angle": ("−20", "°"),
            "astigmatism": ("123", "nm"),
            "ctf_resolution": ("3.4", "Å"),
            "motion_total": ("12.0", "Å"),
            "particles": ("1,234", ""),
        }
        assert (data["name"], data["picture"], data["psd"]) == ("movies/a_fractions.tiff", None, None)

    def test_its_image_number_is_its_place_in_its_own_run(self, client, session, owner):
        other, run = open_run(session, key="other"), open_run(session)
        report(other, ("z.tiff", {"motion_total": 1.0}), ("b.tiff", {"motion_total": 1.0}))
        report(run, *((f"{name}.tiff", {"motion_total": 1.0}) for name in "abc"))
        numbers = {
            (row.run_id, row.name): self.detail(client, row).json()["number"]
            for row in Micrograph.objects.select_related("run__session")
        }
        assert numbers == {
            (other.pk, "z.tiff"): 1,
            (other.pk, "b.tiff"): 2,
            (run.pk, "b.tiff"): 1,
            (run.pk, "a.tiff"): 2,
            (run.pk, "c.tiff"): 3,
        }

    def test_unknown_is_kept_apart_from_never_sent(self, client, session, owner):
        run = open_run(session)
        report(
            run, ("a.tiff", {"motion_total": 12.0, "ctf_resolution": 4.0}), ("b.tiff", {"motion_total": 9.0})
        )
        later = Micrograph.objects.get(name="b.tiff")
        shown = {row["key"]: row["text"] for row in self.detail(client, later).json()["values"]}
        assert shown == {"motion_total": "9.0", "ctf_resolution": None}

    def test_pictures_go_through_the_sessions_gate(self, client, session, owner):
        micrograph = MicrographFactory(run=open_run(session), micrograph_image="m.png", psd_image="p.png")
        data = self.detail(client, micrograph).json()
        assert data["picture"] == reverse("preprocessing:image", args=[session.name, "m.png"])
        assert data["psd"] == reverse("preprocessing:image", args=[session.name, "p.png"])

    def test_one_of_another_session_is_not_found(self, client, session, owner):
        other = MicrographFactory()
        address = reverse("preprocessing:live-micrograph", args=[session.name, other.pk])
        assert client.get(address).status_code == 404


class TestGate:
    def addresses(self, session):
        micrograph = MicrographFactory(run=RunFactory(session=session))
        return [
            reverse("preprocessing:live", args=[session.name]),
            reverse("preprocessing:live-data", args=[session.name]),
            reverse("preprocessing:live-micrograph", args=[session.name, micrograph.pk]),
            *(
                reverse(f"preprocessing:{name}", args=[session.name])
                for name in ("live-range", "live-pair", "live-shifts", "where", "where-data")
            ),
        ]

    def test_owner_colleague_and_staff_see_it(self, client, session):
        colleague = MembershipFactory(lab=session.lab).user
        addresses = self.addresses(session)
        for person in (session.booking.owner, colleague, StaffFactory()):
            client.force_login(person)
            assert [client.get(address).status_code for address in addresses] == [200] * 8

    def test_a_stranger_gets_404(self, client, session):
        addresses = self.addresses(session)
        client.force_login(MembershipFactory(lab=LabFactory()).user)
        assert [client.get(address).status_code for address in addresses] == [404] * 8
        client.force_login(UserFactory())
        assert [client.get(address).status_code for address in addresses] == [404] * 8

    def test_logged_out_is_sent_to_the_login(self, client, session):
        for address in self.addresses(session):
            answer = client.get(address)
            assert answer.status_code == 302
            assert answer["Location"].startswith(reverse("people:login"))

    def test_the_name_is_found_in_any_case(self, client, session, owner):
        assert client.get(reverse("preprocessing:live", args=[session.name.upper()])).status_code == 200


class TestCloser:
    """Parts of a session: rows, histograms, pairs, beam shifts, places."""

    def get(self, client, session, name, **query):
        return client.get(reverse(f"preprocessing:{name}", args=[session.name]), query)

    def test_a_part_has_its_rows_histograms_and_usable_share(self, client, session, owner):
        run = open_run(session)
        for number, resolution in enumerate([3.0, 4.0, 5.0, 9.0, 3.0]):
            report(run, *movies(number, 1, ctf_resolution=resolution))
        part = self.get(client, session, "live-range", axis="number", **{"from": 2, "to": 4}).json()
        assert (part["series"]["ctf_resolution"], part["number"]) == ([4.0, 5.0, 9.0], [2, 3, 4])
        assert (part["rows"], part["complete"], part["total"]) == (3, True, 5)
        assert sum(part["histograms"]["ctf_resolution"]["counts"]) == 3
        assert (part["judged"], part["usable"]) == (3, 2)

    def test_two_quantities_against_each_other(self, client, session, owner):
        run = open_run(session)
        report(run, *movies(0, 2, ctf_resolution=3.0, defocus_u=10000.0), *movies(2, 1, ctf_resolution=4.0))
        data = self.get(client, session, "live-pair", x="defocus", y="ctf_resolution").json()
        assert (data["x"], data["y"], data["total"]) == ([1.0, 1.0], [3.0, 3.0], 2)
        never = self.get(client, session, "live-pair", x="particles", y="ctf_resolution").json()
        assert (never["x"], never["total"]) == ([], 0)

    def test_beam_shift_groups_have_medians(self, client, session, owner):
        run = open_run(session)
        for number in range(6):
            ingest.record_exposures(
                session.pk,
                [
                    ingest.Report(
                        f"m{number}.tiff", f"m{number}", {"beam_shift_x": number % 2, "beam_shift_y": 0.0}
                    )
                ],
            )
            report(run, (f"m{number}.tiff", {"ctf_resolution": 3.0 + number % 2}))
        assert ask(client, session).json()["beam_shifts"] is True
        data = self.get(client, session, "live-shifts").json()
        groups = {row["x"]: row["medians"]["ctf_resolution"] for row in data["rows"]}
        assert (data["groups"], groups) == (2, {0.0: 3.0, 1.0: 4.0})

    def test_squares_and_the_foil_holes_in_one(self, client, session, owner):
        run = open_run(session)
        for number in range(6):
            values = {
                "grid_square": f"S{number // 4}",
                "foil_hole": f"H{number // 2}",
                "stage_x": float(number),
            }
            ingest.record_exposures(
                session.pk, [ingest.Report(f"m{number}.tiff", f"m{number}", values | {"stage_y": 0.0})]
            )
            report(run, (f"m{number}.tiff", {"ctf_resolution": 3.0 + number}))
        report(run, ("elsewhere.tiff", {"ctf_resolution": 3.0}))
        places = self.get(client, session, "where-data").json()["places"]
        assert (places["name"], places["count"], places["total"]) == (["S0", "S1"], [4, 2], 2)
        assert (places["x"], places["medians"]["ctf_resolution"]) == ([1.5, 4.5], [4.5, 7.5])
        assert (places["usable"], places["unplaced"]) == ([4, 0], 1)
        holes = self.get(client, session, "where-data", square="S0").json()["places"]
        assert (holes["name"], holes["count"]) == (["H0", "H1"], [2, 2])
        nowhere = self.get(client, session, "where-data", square="S9").json()["places"]
        assert (nowhere["name"], nowhere["total"]) == ([], 0)

    def test_the_map_is_not_sent_again_until_something_changes(self, client, session, owner):
        run = open_run(session)
        report(run, *movies(0, 1))
        address = reverse("preprocessing:where-data", args=[session.name])
        tag = client.get(address)["ETag"]
        assert client.get(address, headers={"If-None-Match": tag}).status_code == 304
        report(run, *movies(1, 1))
        assert client.get(address, headers={"If-None-Match": tag}).status_code == 200

    @pytest.mark.parametrize(
        ("name", "query"),
        [
            ("live-range", {"from": "x"}),
            ("live-range", {"to": "nan"}),
            ("live-range", {"axis": "space"}),
            ("live-pair", {"x": "mass"}),
            ("live-data", {"axis": "1"}),
            ("live-shifts", {"run": "-1"}),
        ],
    )
    def test_what_cannot_be_asked_is_refused_by_name(self, client, session, owner, name, query):
        open_run(session)
        answer = self.get(client, session, name, **query)
        assert answer.status_code == 400
        assert set(answer.json()) == set(query)

    def test_without_a_run_there_is_no_part(self, client, session, owner):
        for name in ("live-range", "live-pair", "live-shifts", "where-data"):
            assert self.get(client, session, name).status_code == 404
        assert self.get(client, session, "where").status_code == 200

    def test_long_answers_are_packed_for_whoever_takes_that(self, client, session, owner):
        run = open_run(session)
        report(run, *movies(0, 400, ctf_resolution=3.0, motion_total=4.0))
        plain = ask(client, session)
        assert "Content-Encoding" not in plain
        address = reverse("preprocessing:live-data", args=[session.name])
        short = client.get(address, headers={"Accept-Encoding": "gzip, br"})
        assert short["Content-Encoding"] == "gzip"
        unpacked = json.loads(gzip.decompress(short.content))
        assert unpacked["micrographs"] == plain.json()["micrographs"]


class TestLimits:
    def post(self, client, session, data):
        address = reverse("preprocessing:live-limits", args=[session.name])
        return client.post(address, data, content_type="application/json")

    def test_who_runs_the_session_changes_what_is_usable_and_all_pages_hear_of_it(
        self, client, session, owner
    ):
        run = open_run(session)
        report(run, *movies(0, 3, ctf_resolution=5.0))
        first = ask(client, session)
        assert first.json()["verdict"]["usable"] == 3
        answer = self.post(client, session, {"ctf_resolution_max": 4.5})
        assert (answer.status_code, answer.json()["ctf_resolution_max"]) == (200, 4.5)
        told = ask(client, session, after=first.json()["run"]["revision"], etag=first["ETag"])
        assert told.json()["verdict"]["usable"] == 0
        assert told.json()["verdict"]["limits"]["ctf_resolution"] == [None, 4.5]
        row = SessionLimits.objects.get(session=session)
        assert (row.changed_by, row.motion_total_max) == (owner, 50)
        entry = AuditEntry.objects.get(action="session limits changed")
        assert entry.details == {"ctf_resolution_max": {"from": 6, "to": 4.5}}

    def test_a_session_starts_from_its_microscopes_limits_and_keeps_the_others(self, client, session, owner):
        MicroscopeLimits.objects.create(microscope=session.microscope, motion_total_max=33)
        self.post(client, session, {"ctf_resolution_max": None})
        row = SessionLimits.objects.get(session=session)
        assert (row.ctf_resolution_max, row.motion_total_max) == (None, 33)
        assert not hasattr(MicroscopeLimits.objects.get(), "changed_by")

    def test_the_same_again_leaves_no_trace(self, client, session, owner):
        self.post(client, session, {"ctf_resolution_max": 6})
        assert not SessionLimits.objects.exists()
        assert not AuditEntry.objects.exists()

    @pytest.mark.parametrize(
        ("data", "field"),
        [
            ({"ctf_resolution_max": "5"}, "ctf_resolution_max"),
            ({"ctf_resolution_max": True}, "ctf_resolution_max"),
            ({"ctf_resolution_max": -1}, "ctf_resolution_max"),
            ({"particles_min": 10, "particles_max": 5}, "particles_max"),
            ({"size_tb": 5}, "size_tb"),
            ([], "detail"),
            ({}, "detail"),
        ],
    )
    def test_what_cannot_be_a_limit_is_refused_by_name(self, client, session, owner, data, field):
        answer = self.post(client, session, data)
        assert answer.status_code == 400
        assert set(answer.json()) == {field}
        assert not SessionLimits.objects.exists()

    def test_no_json_is_refused(self, client, session, owner):
        assert self.post(client, session, "limits").status_code == 400

    def test_who_may_not_change_the_session_may_not(self, client, session):
        values = {"ctf_resolution_max": 4}
        assert self.post(client, session, values).status_code == 302
        client.force_login(UserFactory())
        assert self.post(client, session, values).status_code == 404
        client.force_login(StaffFactory())
        assert self.post(client, session, values).status_code == 200
        over = FinishedSessionFactory()
        client.force_login(over.booking.owner)
        assert self.post(client, over, values).status_code == 403
        assert not SessionLimits.objects.filter(session=over).exists()


class TestTabs:
    def tabs(self, client, session, page="preprocessing:live"):
        text = client.get(reverse(page, args=[session.name])).content.decode()
        return re.findall(r'data-tab="(\w+)"', text)

    def test_only_where_there_is_something(self, client, session, owner):
        there = self.tabs(client, session)
        assert there[:3] == ["overview", "data", "live"]
        assert not {"micrographs", "classes", "where", "runs"} & set(there)
        run = open_run(session)
        report(run, ("a.tiff", {}))
        assert "where" not in self.tabs(client, session)
        ingest.record_classes(
            session.pk, run.pk, job="j", iteration=1, classes=[{"number": 1, "particles": 5}]
        )
        ingest.change_exposures(session.pk, {identity("a.tiff"): {"grid_square": "A1"}})
        assert "where" in self.tabs(client, session)
        assert self.tabs(client, session) == self.tabs(client, session, "sessions:detail")


class TestCost:
    def queries(self, client, session, **query):
        with CaptureQueriesContext(connection) as captured:
            ask(client, session, **query)
        return [entry["sql"] for entry in captured]

    def test_the_same_few_queries_at_any_number_of_micrographs(self, client, session, owner):
        run = open_run(session)
        ingest.record_classes(
            session.pk, run.pk, job="j", iteration=1, classes=[{"number": 1, "particles": 5}]
        )
        report(run, *movies(0, 1, ctf_resolution=3.0))
        ask(client, session)  # The process has looked at the run before.
        few = self.queries(client, session)
        page = reverse("preprocessing:live", args=[session.name])
        with CaptureQueriesContext(connection) as few_page:
            client.get(page)
        report(run, *movies(1, 80, ctf_resolution=3.0))
        ingest.record_classes(
            session.pk,
            run.pk,
            job="j",
            iteration=2,
            classes=[{"number": n, "particles": 5} for n in range(1, 40)],
        )
        ask(client, session)
        many = self.queries(client, session)
        with CaptureQueriesContext(connection) as many_page:
            client.get(page)
        assert len(many) == len(few) <= 12
        assert len(many_page) == len(few_page) <= 10

    def test_a_poll_without_news_reads_neither_rows_nor_histograms(self, client, session, owner):
        report(open_run(session), *movies(0, 5, ctf_resolution=3.0))
        tag = ask(client, session)["ETag"]
        polls._known.clear()
        queries = self.queries(client, session, etag=tag)
        # Login session, person, their labs (two), may they see it, session, runs.
        assert len(queries) == 7
        heavy = ("histograms", "statistics", "defocus_u", "preprocessing_micrograph")
        assert not any(name in sql for sql in queries for name in heavy)

    def test_reading_writes_and_locks_nothing(self, client, session, owner):
        report(open_run(session), *movies(0, 5))
        queries = self.queries(client, session)
        assert queries
        reads = ("SELECT", "COPY (SELECT")
        assert all(sql.lstrip().upper().startswith(reads) for sql in queries)
        assert not any(" FROM STDIN" in sql.upper() for sql in queries)
        assert not any("FOR UPDATE" in sql.upper() for sql in queries)

    def test_who_looks_first_at_many_rows_does_not_wait_until_they_are_packed(
        self, client, session, owner, monkeypatch, rf
    ):
        monkeypatch.setattr(packed, "UNPACKED", 10)
        run = open_run(session)
        report(run, *movies(0, 30))
        packed.forget()
        client.get(reverse("preprocessing:live", args=[session.name]))
        assert not PackedColumns.objects.exists()
        request = rf.get(reverse("preprocessing:live-data", args=[session.name]))
        request.user, request.session = owner, client.session
        answer = LiveData.as_view()(request, name=session.name)
        assert len(answer.content) > 500
        assert not PackedColumns.objects.exists()
        for after in answer._resource_closers:  # All of it would close the test's connection too.
            after()
        assert PackedColumns.objects.filter(run=run).count() == 1
        packed.forget()
        assert ask(client, session).json()["micrographs"]["total"] == 30

    def test_packing_that_failed_is_not_tried_with_every_look(self, session, monkeypatch):
        monkeypatch.setattr(packed, "UNPACKED", 10)
        tried = []
        monkeypatch.setattr(packed, "_pack", lambda run, table: tried.append(run) or table)
        run = open_run(session)
        report(run, *movies(0, 30))
        run.refresh_from_db()
        packed.forget()
        for _ in range(3):
            packed.table(run)
        assert len(tried) == 1
        report(run, *movies(30, 1))
        run.refresh_from_db()
        packed.table(run)
        assert len(tried) == 2


class TestShortWay:
    """Polls without news are answered before logins and rights are looked at."""

    @pytest.fixture
    def asked(self, client, session, owner):
        report(open_run(session), *movies(0, 5, ctf_resolution=3.0))
        tag = ask(client, session)["ETag"]

        def ask_again(**query):
            with CaptureQueriesContext(connection) as captured:
                answer = ask(client, session, etag=tag, **query)
            return answer, len(captured)

        return ask_again

    @pytest.fixture
    def fresh(self, monkeypatch):
        monkeypatch.setattr(polls, "FRESH", 60)

    def test_once_read_for_all_who_ask_at_that_moment(self, asked, fresh):
        assert asked()[0].status_code == 304
        answer, queries = asked()
        assert (answer.status_code, queries) == (304, 0)
        assert "no-cache" in answer["Cache-Control"]

    def test_news_are_never_held_back_for_longer_than_that(self, asked, session, monkeypatch):
        monkeypatch.setattr(polls, "FRESH", 0)
        assert asked()[0].status_code == 304
        report(ProcessingRun.objects.get(), *movies(5, 1))
        assert asked()[0].status_code == 200

    def test_it_tells_only_whom_the_view_has_seen(self, asked, fresh, session):
        tag = asked()[0]["ETag"]
        stranger = Client()
        assert ask(stranger, session, etag=tag).status_code == 302
        stranger.force_login(UserFactory())
        assert ask(stranger, session, etag=tag).status_code == 404

    def test_after_a_while_the_view_looks_again(self, asked, fresh, client, monkeypatch):
        asked()
        monkeypatch.setattr(polls, "_known", {})
        assert asked()[1] > 0
        client.logout()
        assert asked()[0].status_code == 302

    def test_a_proxys_weak_tag_is_the_same_tag(self, asked, client, session):
        tag = asked()[0]["ETag"]
        assert ask(client, session, etag=f"W/{tag}").status_code == 304


class TestPage:
    def page(self, client, session):
        return client.get(reverse("preprocessing:live", args=[session.name]))

    def test_without_a_pipeline_it_says_how_to_start_one(self, client, session, owner):
        text = self.page(client, session).content.decode()
        assert f"emhub-agent relion PROJECT --url http://testserver --session {session.name}" in text
        assert "no watcher or pipeline has reported yet" in text

    def test_a_finished_session_without_results_offers_no_command(self, client):
        session = FinishedSessionFactory()
        client.force_login(session.booking.owner)
        text = self.page(client, session).content.decode()
        assert "emhub-agent" not in text
        assert "No pipeline reported" in text

    def test_counters_come_with_the_page(self, client, session, owner):
        run = open_run(session)
        report(run, *movies(0, 1, motion_total=3.0, particles=1234))
        text = self.page(client, session).content.decode()
        assert 'data-counter="particles">1,234<' in text
        assert 'data-counter="ctf_estimated">0<' in text

    def test_panels_of_what_is_never_sent_are_left_out(self, client, session, owner):
        report(open_run(session), *movies(0, 1, ctf_resolution=3.0))
        text = self.page(client, session).content.decode()
        assert 'data-series="ctf_resolution" >' in text
        assert 'data-series="motion_total" hidden>' in text

    def test_no_script_stands_in_the_page(self, client, session, owner):
        text = self.page(client, session).content.decode()
        for script in text.split("<script")[1:]:
            tag = script.split(">")[0]
            assert "src=" in tag or 'type="application/json"' in tag
        assert " onclick=" not in text

    def test_a_booking_without_lab_is_shown_too(self, client):
        session = SessionFactory(booking=BookingFactory(lab=None))
        report(open_run(session), *movies(0, 1))
        client.force_login(session.booking.owner)
        assert "Collecting." in self.page(client, session).content.decode()
