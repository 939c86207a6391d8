"""A micrograph posted by itself ends as if it had come in a batch; whoever is overtaken writes nothing by halves."""

import datetime
import random

import pytest
from django.core.management.sql import emit_pre_migrate_signal
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from microscopes.tokens import prefix_of
from people.statements import fetch_one
from preprocessing import ingest, reading, single
from preprocessing.api import short
from preprocessing.deletion import delete_run
from preprocessing.identity import identity
from preprocessing.models import Coordinates, Exposure, Micrograph, ProcessingRun
from preprocessing.recount import recount
from sessions_app.lifecycle import session_archive, session_finish
from sessions_app.models import SessionSummary
from tests.concurrency import at_once, in_thread, shared_database
from tests.factories import SessionFactory, StaffFactory, UserFactory, make_token
from tests.preprocessing.conftest import Pipeline
from tests.preprocessing.test_concurrency import Reader

pytestmark = pytest.mark.django_db
EPU = "FoilHole_1_Data_2_3_20261123_101010"
MEASURED = {
    "motion_total": 12.5,
    "motion_early": 3.25,
    "motion_late": 9.25,
    "defocus_u": 15_000.5,
    "defocus_v": 14_200.0,
    "defocus_angle": -31.5,
    "phase_shift": 0.0,
    "ctf_resolution": 3.4,
    "ctf_score": 0.12,
    "ice_thickness": 1.01,
    "particles": 120,
    "rejected": False,
}


def report(name, **values):
    return ingest.Report(name, identity(name), values)


@pytest.fixture
def place():
    """A session with a run, and what the short way knows of a name before it writes."""

    class Place:
        def __init__(self):
            self.session = SessionFactory()
            _, self.key = make_token(self.session.microscope, last_used_at=timezone.now())
            self.run = ingest.open_run(self.session.pk, key="a", software="RELION")[0]

        def state(self, name, run=None):
            sql = short._with_micrograph(connection.vendor)
            values = [(run or self.run).pk, identity(name), prefix_of(self.key)]
            row = fetch_one(sql, values, short._COLUMNS_WITH_MICROGRAPH)
            return single.State.of_row(row[short._OF_CALL :])

        def post(self, name, run=None, **values):
            return single.record(self.state(name, run), report(name, **values))

        def other_run(self, key="b"):
            return ingest.open_run(self.session.pk, key=key, software="cryoSPARC")[0]

    return Place()


def stored(session) -> dict:
    """Everything ingestion keeps of a session, without ids and times."""
    runs = ProcessingRun.objects.filter(session=session).order_by("pk")
    numbers = {run.pk: n for n, run in enumerate(runs)}
    summary = SessionSummary.objects.get(pk=session.pk)
    return {
        "runs": [
            {name: getattr(run, name) for name in ("revision", "histograms", "classes", *ingest.COUNTERS)}
            for run in runs
        ],
        "rows": sorted(
            (numbers[row.pop("run_id")], row.pop("exposure__identity"), sorted(row.items(), key=str))
            for row in Micrograph.objects.filter(run__session=session).values(
                "run_id", "exposure__identity", "name", "revision", *ingest.ROW_FIELDS
            )
        ),
        "exposures": sorted(
            Exposure.objects.filter(session=session).values_list(
                "identity", "name", "grid_square", "foil_hole", "revision", *ingest.EXPOSURE_FIELDS
            )
        ),
        "picks": sorted(
            (row.micrograph.name, bytes(row.points))
            for row in Coordinates.objects.filter(micrograph__run__session=session).select_related(
                "micrograph"
            )
        ),
        "summary": {
            name: getattr(summary, name)
            for name in ("processing", "runs", "exposures", "exposure_revision", "classes", *ingest.COUNTERS)
        }
        | {"leading": numbers.get(summary.leading_run)},
    }


# -- As in a batch ---------------------------------------------------------------------------------------------
STORIES = {
    "new, then more of it": [("m1", {}), ("m1", MEASURED), ("m1", {"ctf_resolution": 4.0})],
    "all at once": [(f"m{n}", MEASURED | {"particles": 10 * n}) for n in range(5)],
    "said again": [("m1", MEASURED), ("m1", MEASURED), ("m1", {"motion_total": 12.5})],
    "taken back": [("m1", MEASURED), ("m1", dict.fromkeys(MEASURED))],
    "zero is a value": [
        ("m1", {"particles": 0, "defocus_u": 0.0, "rejected": False}),
        ("m1", {"rejected": True}),
    ],
    "only one defocus": [("m1", {"defocus_u": 12_000.0}), ("m1", {"defocus_v": 11_000.0, "defocus_u": None})],
    "a name that tells": [(f"GridSquare_7/Data/{EPU}_fractions.tiff", MEASURED)],
    "a number taken back from picks": [
        ("m1", {"coordinates": b"\0" * 16}),
        ("m1", {"particles": 5}),
        ("m1", {"particles": None}),
        ("m1", {"coordinates": b"\0" * 24, "particles": None}),
    ],
    "outside the bins": [("m1", {"ctf_resolution": 900.0, "motion_total": 5000.0, "ctf_score": -5.0})],
}


@pytest.mark.parametrize("story", STORIES.values(), ids=STORIES)
def test_a_story_told_one_by_one_ends_as_in_batches(place, story):
    other = SessionFactory()
    run = ingest.open_run(other.pk, key="a", software="RELION")[0]
    for name, values in story:
        usual = ingest.record_micrographs(other.pk, run.pk, [report(name, **values)])
        outcome = place.post(name, **values)
        if outcome is None:  # What it leaves to the usual way.
            assert "coordinates" in values or values.get("particles", 1) is None
            outcome = ingest.record_micrographs(place.session.pk, place.run.pk, [report(name, **values)])
        assert outcome == usual
    assert stored(place.session) == stored(other)
    assert recount(place.session.pk) == []


def test_runs_of_one_session_take_the_lead_as_they_should(place):
    """The summary is moved without a look at the other runs: it must end as if they had been counted."""
    runs = [place.run, place.other_run("b"), place.other_run("c")]
    dice = random.Random(5)
    statuses = [status.value for status in ProcessingRun.Status]
    for n in range(120):
        run = dice.choice(runs)
        if n % 8 == 7:
            ingest.change_run(place.session.pk, run.pk, status=dice.choice(statuses))
        name = f"m{dice.randrange(25)}"
        values = {"motion_total": dice.choice([None, 5.0, 7.0]), "particles": dice.randrange(3)}
        assert place.post(name, run, **values) is not None
        assert recount(place.session.pk) == []
    summary = SessionSummary.objects.get(pk=place.session.pk)
    assert summary.runs == 3
    assert summary.last_exposure_at == Exposure.objects.latest("pk").created_at
    assert summary.last_seen_at == max(run.last_seen_at for run in ProcessingRun.objects.all())


def test_an_exposure_that_is_there_is_taken(place):
    ingest.record_exposures(place.session.pk, [report(EPU, stage_x=4.0)])
    assert place.post(EPU, motion_total=3.0).created == 1
    assert place.post(EPU, place.other_run(), motion_total=4.0).created == 1
    assert Exposure.objects.get().micrographs.count() == 2
    assert recount(place.session.pk) == []


def test_any_write_is_a_heartbeat(place):
    before = timezone.now() - datetime.timedelta(hours=1)
    ProcessingRun.objects.update(last_seen_at=before)
    SessionSummary.objects.update(last_seen_at=before)
    assert place.post("m1").created == 1
    for row in (ProcessingRun.objects.get(), SessionSummary.objects.get()):
        assert timezone.now() - row.last_seen_at < datetime.timedelta(minutes=1)


def test_the_summary_hears_each_minute_of_values_that_count_nothing(place):
    place.post("m1", motion_total=1.0)
    before = timezone.now() - datetime.timedelta(seconds=61)
    ProcessingRun.objects.update(last_seen_at=before)
    SessionSummary.objects.update(last_seen_at=before)
    assert place.post("m1", motion_total=2.0).updated == 1
    seen = SessionSummary.objects.get().last_seen_at
    assert seen == ProcessingRun.objects.get().last_seen_at > before


def test_of_runs_that_are_over_the_leading_one_says_how_it_ended(place):
    other = place.other_run()
    place.post("m1")
    ingest.change_run(place.session.pk, place.run.pk, status="finished")
    ingest.change_run(place.session.pk, other.pk, status="failed")
    assert SessionSummary.objects.get().processing == "finished"
    place.post("m1", other)  # Of equals the newest leads.
    assert SessionSummary.objects.get().processing == "failed"
    assert recount(place.session.pk) == []


def test_a_repetition_is_told_once_a_minute_that_the_run_lives(place):
    place.post("m1", motion_total=1.0)
    with CaptureQueriesContext(connection) as queries:
        assert place.post("m1", motion_total=1.0).unchanged == 1
    assert len(queries) == 1  # What it was read by.
    ProcessingRun.objects.update(last_seen_at=timezone.now() - ingest.HEARTBEAT)
    assert place.post("m1", motion_total=1.0) is None  # The usual way notes it.


# -- What it leaves to the usual way ---------------------------------------------------------------------------
def test_a_name_that_tells_more_of_an_exposure(place):
    place.post(EPU)
    assert place.post(f"GridSquare_7_Data_{EPU}", place.other_run()) is None
    assert Exposure.objects.get().grid_square == ""


def test_two_names_of_one_exposure(place):
    place.post(EPU)
    before = stored(place.session)
    assert place.post(f"{EPU}_fractions.tiff", motion_total=1.0) is None
    assert stored(place.session) == before


@pytest.mark.parametrize("values", [{"coordinates": b"\0" * 8}, {"coordinates": None}, {"particles": None}])
def test_picks(place, values):
    place.post("m1", particles=3)
    before = stored(place.session)
    assert place.post("m1", **values) is None
    assert stored(place.session) == before


# -- Overtaken -------------------------------------------------------------------------------------------------
def _archive(place):
    staff = StaffFactory()
    session_finish(place.session, staff)
    session_archive(place.session, staff)


MEANWHILE = {
    "the same name": lambda place: ingest.record_micrographs(place.session.pk, place.run.pk, [report("new")]),
    "another name": lambda place: ingest.record_micrographs(place.session.pk, place.run.pk, [report("else")]),
    "a value": lambda place: ingest.record_micrographs(
        place.session.pk, place.run.pk, [report("old", defocus_u=8000.0)]
    ),
    "another run": lambda place: ingest.record_micrographs(
        place.session.pk, place.other_run().pk, [report("else"), report("old")]
    ),
    "another run, the same name": lambda place: ingest.record_micrographs(
        place.session.pk, place.other_run().pk, [report("new")]
    ),
    "another run takes the lead": lambda place: ingest.record_micrographs(
        place.session.pk, place.other_run().pk, [report("old")]
    ),
    "a watcher": lambda place: ingest.record_exposures(place.session.pk, [report("new", stage_x=1.0)]),
    "the run ends": lambda place: ingest.change_run(place.session.pk, place.run.pk, status="finished"),
    "archived": _archive,
    "the run is deleted": lambda place: delete_run(place.run, UserFactory()),
}


@pytest.mark.parametrize("meanwhile", MEANWHILE.values(), ids=MEANWHILE)
@pytest.mark.parametrize("name", ["new", "old"])
def test_whoever_is_overtaken_writes_nothing(place, name, meanwhile):
    place.post("old", motion_total=1.0, defocus_u=9000.0)
    state = place.state(name)
    meanwhile(place)
    before = stored(place.session)
    outcome = single.record(state, report(name, motion_total=2.0, particles=4))
    assert outcome is None
    assert stored(place.session) == before


def test_a_change_elsewhere_overtakes_nobody(place):
    """Of the run's own row and its summary's counts only: what else happens at a facility does not hold up a post."""
    state = place.state("m1")
    other = SessionFactory(microscope=place.session.microscope)
    ingest.record_micrographs(
        other.pk, ingest.open_run(other.pk, key="a", software="x")[0].pk, [report("m1"), report("m2")]
    )
    SessionSummary.objects.update(alerts=[{"kind": "silent"}])
    assert single.record(state, report("m1", motion_total=2.0)).created == 1
    assert recount(place.session.pk) == []


# -- Over HTTP -------------------------------------------------------------------------------------------------
@pytest.fixture
def pipeline(place, api):
    return Pipeline(api(key=place.key), place.session)


@pytest.mark.parametrize(
    ("items", "statements"),
    [
        # Token, run and all that is known in one, and one that writes.
        ([{"name": "m2"} | MEASURED], 2),
        ([{"name": "m1", "motion_total": 4.0}], 2),
        ([{"name": "m1", "ctf_resolution": 3.4}], 1),
    ],
    ids=["new", "changed", "said again"],
)
def test_what_a_post_costs(pipeline, items, statements):
    # The first of a connection also makes what SQLite writes by.
    pipeline.post({"name": "m0"} | MEASURED)
    pipeline.post({"name": "m1", "ctf_resolution": 3.4})
    pipeline.post({"name": "m1", "ctf_resolution": 3.4, "motion_total": 1.0})
    pipeline.post({"name": "m1", "motion_total": 2.0})
    with CaptureQueriesContext(connection) as queries:
        answer = pipeline.post(*items)
    assert answer.status_code == 200
    told = [q["sql"] for q in queries if not q["sql"].startswith(("BEGIN", "SAVEPOINT", "RELEASE", "COMMIT"))]
    assert len(told) <= statements, told
    pipeline.assert_counted()


@pytest.mark.sqlite
def test_a_migration_comes_upon_nothing_of_the_posts_before_it(place):
    def views():
        with connection.cursor() as cursor:
            cursor.execute("SELECT name FROM sqlite_temp_master WHERE name LIKE 'single%'")
            return cursor.fetchall()

    place.post("m1", motion_total=1.0)
    place.post("m1", motion_total=2.0)
    assert views()
    emit_pre_migrate_signal(0, False, "default")
    assert not views()
    assert place.post("m2").created == 1


@pytest.mark.parametrize("state", ["archived", "collision"])
def test_what_is_refused_is_said_as_ever(place, pipeline, state):
    pipeline.post({"name": EPU})
    if state == "archived":
        _archive(place)
    answer = pipeline.post({"name": f"{EPU}_fractions.mrc"})
    assert answer.status_code == 409
    assert Micrograph.objects.count() == (state == "collision")


@pytest.mark.django_db(transaction=True)
def test_many_clients_post_one_by_one_and_nothing_is_lost(api, tmp_path):
    """Two clients to a run, two runs of one session, and names that all of them have."""
    session = SessionFactory()
    _, key = make_token(session.microscope, last_used_at=timezone.now())
    runs = [ingest.open_run(session.pk, key=name, software="x")[0] for name in "ab"]
    fields = ("motion_total", "ctf_resolution")
    names = [f"m{n}" for n in range(20)]

    def write(n):
        client, dice = api(key=key), random.Random(n)
        codes = set()
        for name in dice.sample(names, len(names)):
            item = {"name": name, fields[n // 2]: n + 1.0}
            codes.add(
                client.post(
                    f"/api/v1/runs/{runs[n % 2].pk}/micrographs/", {"micrographs": [item]}
                ).status_code
            )
        return codes

    with shared_database(tmp_path):
        reader = Reader(runs[0].pk, session.name)
        reader.start()
        assert at_once(4, write) == [{200}] * 4
        reader.done.set()
        reader.join(timeout=60)
        assert reader.error is None

        def check():
            assert recount(session.pk) == []
            assert Exposure.objects.count() == 20
            for number, run in enumerate(runs):
                rows = list(Micrograph.objects.filter(run=run))
                assert {(row.motion_total, row.ctf_resolution) for row in rows} == {
                    (number + 1.0, number + 3.0)
                }
                run.refresh_from_db()
                assert len({row.revision for row in rows}) == 20
                assert max(row.revision for row in rows) == run.revision
            page = reading.micrographs_after(
                ProcessingRun.objects.get(pk=runs[0].pk), session.name, 0, limit=100
            )
            assert {row["id"]: row for row in page["micrographs"]} == reader.seen

        in_thread(check)
