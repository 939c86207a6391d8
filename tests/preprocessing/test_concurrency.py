"""Many writers at once: nothing is lost, nothing is told out of order, counters stay exact."""

import random
import threading

import numpy as np
import pytest
from django.db import connection, transaction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from preprocessing import ingest, reading
from preprocessing.identity import identity
from preprocessing.models import Exposure, Micrograph, ProcessingRun
from preprocessing.recount import recount
from sessions_app.models import SessionSummary
from tests.concurrency import at_once, in_thread, shared_database
from tests.factories import SessionFactory

FIELDS = ("motion_total", "defocus_u", "ctf_resolution", "particles")


def report(name, **values):
    return ingest.Report(name, identity(name), values)


class Reader(threading.Thread):
    """Follows a run by ?after= until told to stop, and keeps the last state it was told of each row."""

    def __init__(self, run_id, name):
        super().__init__()
        self.run_id, self.session_name = run_id, name
        self.seen, self.after, self.done = {}, 0, threading.Event()
        self.error = None

    def run(self):
        try:
            last = False
            while True:
                last = self.done.is_set()
                self.read()
                if last:
                    return
        except Exception as error:
            self.error = error
        finally:
            connection.close()

    def read(self):
        more = True
        while more:
            run = ProcessingRun.objects.get(pk=self.run_id)
            page = reading.micrographs_after(run, self.session_name, self.after, limit=7)
            revisions = [row["revision"] for row in page["micrographs"]]
            assert revisions == sorted(set(revisions))
            assert not revisions or revisions[0] > self.after
            self.seen |= {row["id"]: row for row in page["micrographs"]}
            self.after, more = page["revision"], page["more"]


@pytest.mark.django_db(transaction=True)
def test_writers_of_different_fields_lose_nothing_and_a_reader_sees_every_final_state(tmp_path):
    session = SessionFactory()
    run = ingest.open_run(session.pk, key="a", software="x")[0]
    names = [f"m{n}" for n in range(30)]

    def write(place):
        shuffled = random.Random(place)
        for turn in range(6):
            batch = shuffled.sample(names, 12)
            ingest.record_micrographs(
                session.pk,
                run.pk,
                [report(name, **{FIELDS[place]: 10 * turn + place + 1}) for name in batch],
            )
        ingest.record_micrographs(
            session.pk, run.pk, [report(name, **{FIELDS[place]: place + 1}) for name in names]
        )

    with shared_database(tmp_path):
        reader = Reader(run.pk, session.name)
        reader.start()
        results = at_once(4, write)
        reader.done.set()
        reader.join(timeout=60)
        assert results == [None] * 4
        assert reader.error is None

        def check():
            rows = list(Micrograph.objects.filter(run=run).values("pk", "revision", *FIELDS))
            assert len(rows) == 30
            for row in rows:
                assert [row[field] for field in FIELDS] == [1, 2, 3, 4]
                assert {name: reader.seen[row["pk"]][name] for name in ("revision", *FIELDS)} == {
                    name: row[name] for name in ("revision", *FIELDS)
                }
            assert len({row["revision"] for row in rows}) == 30
            assert recount(session.pk) == []

        in_thread(check)


@pytest.mark.django_db(transaction=True)
def test_two_runs_and_a_watcher_at_once_make_each_exposure_once(tmp_path):
    session = SessionFactory()
    runs = [ingest.open_run(session.pk, key=key, software="x")[0] for key in "abc"]
    names = [f"FoilHole_{n}_Data_1_2_20261123_101010" for n in range(40)]

    def write(place):
        if place == 3:
            for n in range(0, 40, 5):
                ingest.record_exposures(
                    session.pk, [report(f"{name}.xml", stage_x=float(n)) for name in names[n : n + 10]]
                )
            return
        # Each program names the movies in its own way and order.
        prefix = ("", "GridSquare_7_Data_", "000762140416835289736_")[place]
        mine = [f"{prefix}{name}_fractions.tiff" for name in names]
        random.Random(place).shuffle(mine)
        for n in range(0, 40, 8):
            ingest.record_micrographs(session.pk, runs[place].pk, [report(name) for name in mine[n : n + 8]])

    with shared_database(tmp_path):
        assert at_once(4, write) == [None] * 4

        def check():
            exposures = list(Exposure.objects.filter(session=session))
            assert len(exposures) == 40
            assert {exposure.grid_square for exposure in exposures} == {"7"}
            assert len({exposure.revision for exposure in exposures}) == 40
            assert Micrograph.objects.count() == 120
            assert SessionSummary.objects.get(pk=session.pk).exposures == 40
            assert recount(session.pk) == []

        in_thread(check)


@pytest.mark.django_db(transaction=True)
def test_the_same_run_opened_at_once_is_one(tmp_path):
    session = SessionFactory()
    with shared_database(tmp_path):
        results = at_once(6, lambda n: ingest.open_run(session.pk, key="same", software="x"))
        assert len({run.pk for run, _ in results}) == 1
        assert sum(made for _, made in results) == 1


@pytest.mark.django_db(transaction=True)
def test_fields_and_parameters_of_a_run_written_at_once_all_stay(tmp_path):
    session = SessionFactory()
    run = ingest.open_run(session.pk, key="a", software="x")[0]
    fields = ({"version": "5"}, {"label": "good"}, {"width": 4096}, {"status": "finished"})

    def write(n):
        for turn in range(5):
            ingest.change_run(session.pk, run.pk, parameters={f"p{n}": turn}, **fields[n])

    with shared_database(tmp_path):
        assert at_once(4, write) == [None] * 4
        end = in_thread(lambda: ProcessingRun.objects.get(pk=run.pk))
    assert (end.version, end.label, end.width, end.status) == ("5", "good", 4096, "finished")
    assert end.parameters == {f"p{n}": 4 for n in range(4)}


# -- Any order, any repetition -----------------------------------------------------------------------------

NAMES = ("a", "Movies/b.tiff", "GridSquare_1_Data_FoilHole_2_Data_3_4_20261123_101010", "c.mrc")
VALUES = {
    "motion_total": 12.5,
    "defocus_u": 14_000.0,
    "defocus_v": 13_000.0,
    "ctf_resolution": 3.4,
    "ice_thickness": 1.1,
    "particles": 7,
    "rejected": True,
    "coordinates": np.asarray([[1, 2], [3, 4], [5, 6]], "<f4").tobytes(),
}
items = st.tuples(st.sampled_from(NAMES), st.sets(st.sampled_from(sorted(VALUES)), max_size=4))
batches = st.lists(st.lists(items, min_size=1, max_size=6), max_size=8)


@pytest.mark.django_db
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(random_batches=batches, seed=st.integers(0, 2**16))
def test_one_value_per_field_ends_the_same_in_every_order_and_repetition(random_batches, seed):
    """However the values are cut, mixed and repeated, rows, counters and summary are those of one plain post."""
    everything = [(name, {field}) for name in NAMES for field in VALUES]
    random.Random(seed).shuffle(everything)
    parts = [everything[n : n + 5] for n in range(0, len(everything), 5)]
    mixed = random_batches + parts
    random.Random(seed + 1).shuffle(mixed)
    expected = dict.fromkeys(NAMES, VALUES)
    with transaction.atomic():
        session = SessionFactory()
        run = ingest.open_run(session.pk, key="a", software="x")[0]
        told = {}
        after = 0
        for batch in mixed:
            ingest.record_micrographs(
                session.pk, run.pk, [report(name, **{f: VALUES[f] for f in fields}) for name, fields in batch]
            )
            current = ProcessingRun.objects.get(pk=run.pk)
            page = reading.micrographs_after(current, session.name, after)
            told |= {row["name"]: row for row in page["micrographs"]}
            after = page["revision"]
        assert recount(session.pk) == []
        assert told.keys() == expected.keys()
        for name in NAMES:
            row = Micrograph.objects.select_related("coordinates_row").get(run=run, name=name)
            for field, value in VALUES.items():
                if field == "coordinates":
                    assert bytes(row.coordinates_row.points) == value
                else:
                    assert getattr(row, field) == value == told[name][field]
        summary = SessionSummary.objects.get(pk=session.pk)
        assert (summary.micrographs, summary.exposures, summary.particles) == (4, 4, 28)
        transaction.set_rollback(True)


changes = st.fixed_dictionaries(
    {},
    optional={
        "motion_total": st.none() | st.floats(0, 200),
        "motion_late": st.none() | st.floats(0, 200),
        "defocus_u": st.none() | st.floats(-1e5, 1e5),
        "defocus_v": st.none() | st.floats(-1e5, 1e5),
        "ctf_resolution": st.none() | st.floats(0.1, 999),
        "ctf_score": st.none() | st.floats(-1, 1),
        "particles": st.none() | st.integers(0, 5000),
        "coordinates": st.none() | st.integers(0, 4).map(lambda n: b"\0" * 8 * n),
    },
)


@pytest.mark.django_db
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(st.tuples(st.sampled_from(NAMES), changes), min_size=1, max_size=5), max_size=8))
def test_counters_and_histograms_equal_a_recount_after_whatever_was_sent(random_batches):
    with transaction.atomic():
        session = SessionFactory()
        run = ingest.open_run(session.pk, key="a", software="x")[0]
        for batch in random_batches:
            ingest.record_micrographs(session.pk, run.pk, [report(name, **values) for name, values in batch])
        assert recount(session.pk) == []
        transaction.set_rollback(True)
