"""Several clients of the API at once: whatever was acknowledged stays, and ends the same in every order."""

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from preprocessing import reading
from preprocessing.models import Micrograph, ProcessingRun
from preprocessing.recount import recount
from sessions_app.models import Session, SessionSummary
from tests.concurrency import at_once, in_thread, shared_database
from tests.factories import SessionFactory, make_token
from tests.preprocessing.test_concurrency import Reader

pytestmark = pytest.mark.django_db(transaction=True)

ACQUISITION = (("voltage_kv", 200), ("magnification", 105_000), ("frames", 40), ("dose_per_frame", 1.25))
MEASURED = (("motion_total", 3.5), ("defocus_u", 14_000.0), ("ctf_resolution", 3.4), ("particles", 7))


def clients(api, session, count):
    _, key = make_token(session.microscope)
    return [api(key=key) for _ in range(count)]


def open_run(client, session) -> int:
    return client.post(f"/api/v1/sessions/{session.name}/runs/", {"key": "a", "software": "x"}).json()["id"]


def test_four_clients_on_the_same_session_run_and_micrographs_lose_nothing(api, tmp_path):
    session = SessionFactory()
    names = [f"m{n}" for n in range(12)]
    with shared_database(tmp_path):
        callers = clients(api, session, 4)
        run = in_thread(lambda: open_run(callers[0], session))

        def write(n):
            (column, value), (field, measured), client = ACQUISITION[n], MEASURED[n], callers[n]
            codes = set()
            for turn in range(6):
                last = turn == 5
                codes |= {
                    client.patch(
                        f"/api/v1/sessions/{session.name}/", {column: value if last else value + turn + 1}
                    ).status_code,
                    client.patch(f"/api/v1/runs/{run}/", {"parameters": {f"p{n}": turn}}).status_code,
                    client.post(
                        f"/api/v1/runs/{run}/micrographs/",
                        {
                            "micrographs": [
                                {"name": name, field: measured if last else 100 + turn} for name in names
                            ]
                        },
                    ).status_code,
                }
            return codes

        assert at_once(4, write) == [{200}] * 4

        def check():
            assert Session.objects.values(*(name for name, _ in ACQUISITION)).get(pk=session.pk) == dict(
                ACQUISITION
            )
            assert ProcessingRun.objects.get(pk=run).parameters == {f"p{n}": 5 for n in range(4)}
            rows = list(Micrograph.objects.filter(run=run).values(*(name for name, _ in MEASURED)))
            assert rows == [dict(MEASURED)] * len(names)
            assert recount(session.pk) == []

        in_thread(check)


NAMES = ("a", "Movies/b.tiff", "c.mrc", "FoilHole_2_Data_3_4_20261123_101010")
parts = st.lists(
    st.tuples(st.sampled_from(NAMES), st.sets(st.sampled_from([name for name, _ in MEASURED]), min_size=1)),
    min_size=1,
    max_size=5,
)


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(extra=st.lists(parts, max_size=6), seed=st.integers(0, 2**16))
def test_whatever_the_batches_and_the_order_several_connections_end_the_same(api, tmp_path, extra, seed):
    """One value per field, in random batches, orders and repetitions, while a reader follows."""
    values = dict(MEASURED)
    everything = [(name, {field}) for name in NAMES for field in values]
    chance = random.Random(seed)
    chance.shuffle(everything)
    batches = extra + [everything[n : n + 3] for n in range(0, len(everything), 3)]
    chance.shuffle(batches)
    session = SessionFactory()
    with shared_database(tmp_path):
        callers = clients(api, session, 3)
        run = in_thread(lambda: open_run(callers[0], session))
        reader = Reader(run, session.name)
        reader.start()

        def write(n):
            codes = set()
            for batch in batches[n::3]:
                items = [
                    {"name": name} | {field: values[field] for field in fields} for name, fields in batch
                ]
                answer = callers[n].post(f"/api/v1/runs/{run}/micrographs/", {"micrographs": items})
                codes.add(answer.status_code)
            return codes

        written = at_once(3, write)
        reader.done.set()
        reader.join(timeout=60)
        assert reader.error is None
        assert all(codes <= {200} for codes in written), written

        def check():
            rows = {row["name"]: row for row in Micrograph.objects.filter(run=run).values("name", *values)}
            assert rows == {name: {"name": name} | values for name in NAMES}
            state = ProcessingRun.objects.get(pk=run)
            told = reading.micrographs_after(state, session.name, 0)["micrographs"]
            assert reader.after == state.revision
            assert {row["id"]: row for row in told} == reader.seen
            summary = SessionSummary.objects.get(pk=session.pk)
            assert (summary.micrographs, summary.exposures, summary.particles) == (4, 4, 28)
            assert recount(session.pk) == []

        in_thread(check)
