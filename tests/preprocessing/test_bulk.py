"""What is written in bulk is what the ORM would have written, on either database."""

import datetime
import random

import pytest
from django.db import IntegrityError, connection, transaction

from people import statements
from preprocessing import bulk, ingest
from preprocessing.histograms import COUNTERS, MEASURED_FIELDS, Tally
from preprocessing.models import Coordinates, Exposure, Micrograph, ProcessingRun
from tests.concurrency import in_thread, shared_database
from tests.factories import SessionFactory

TEXTS = [
    "plain",
    "",
    "NULL",
    "null",
    'a "quoted" one',
    "back\\slash \\n and \\",
    "comma, {brace}, 'quote'",
    "new\nline and\ttab",
    "Å µ 微 😀",
    "%s %(name)s %%",
    "wanted {wanted}",
]
TIME = datetime.datetime(2026, 11, 23, 10, 15, 0, 123456, tzinfo=datetime.UTC)


@pytest.fixture
def session(db):
    return SessionFactory()


@pytest.fixture
def run(session):
    return ingest.open_run(session.pk, key="a", software="x", parameters={"a": ["ä", 1, None]})[0]


def insert_exposures(session, texts):
    rows = [
        (session.pk, f"id {n} {text}", text, text, "", "", "", TIME, n) for n, text in enumerate(texts, 1)
    ]
    names = ["session", "identity", "name", "grid_square", "foil_hole", "verdict", "verdict_reason"]
    return bulk.insert(Exposure, [*names, "created_at", "revision"], rows, returning=("identity", "pk"))


def test_texts_come_back_as_they_were(session):
    made = dict(insert_exposures(session, TEXTS))
    assert len(made) == len(TEXTS)
    for n, text in enumerate(TEXTS, 1):
        row = Exposure.objects.get(pk=made[f"id {n} {text}"])
        assert (row.name, row.grid_square, row.revision) == (text, text, n)
        assert (row.created_at, row.acquired_at, row.stage_x) == (TIME, None, None)
    bulk.update(Exposure, ["name", "acquired_at"], [(text[::-1], TIME, pk) for text, pk in made.items()])
    assert set(Exposure.objects.values_list("name", "acquired_at")) == {(text[::-1], TIME) for text in made}


def test_rows_are_found_by_any_text(session):
    made = dict(insert_exposures(session, TEXTS))
    found = bulk.select_texts(
        "SELECT value, e.id FROM {wanted} LEFT JOIN preprocessing_exposure e "
        "ON e.session_id = %s AND e.identity = wanted.value",
        [*made, "not there"],
        [session.pk],
    )
    assert dict(found) == made | {"not there": None}


def test_more_rows_than_one_statement_takes_are_inserted_and_told(session):
    texts = [f"m{n}" for n in range(5000)]
    assert len(set(insert_exposures(session, texts))) == 5000
    assert Exposure.objects.filter(session=session).count() == 5000


def test_numbers_nulls_truth_and_bytes_come_back_to_the_last_bit(session, run):
    exposures = dict(insert_exposures(session, ["a", "b", "c"]))
    numbers = [0.1 + 0.2, 5e-324, -1.7976931348623157e308]
    rows = [
        (run.pk, pk, "m", number, truth, count, False, "", "", 1, TIME)
        for pk, number, truth, count in zip(
            exposures.values(), numbers, (True, False, None), (0, 2_000_000_000, None), strict=True
        )
    ]
    fields = ["run", "exposure", "name", "defocus_u", "rejected", "particles", "particles_counted"]
    images = ["micrograph_image", "psd_image", "revision", "created_at"]
    made = dict(bulk.insert(Micrograph, [*fields, *images], rows, returning=("exposure", "pk")))
    stored = Micrograph.objects.order_by("exposure").values_list("defocus_u", "rejected", "particles")
    assert list(stored) == [(row[3], row[4], row[5]) for row in rows]
    points = [bytes(range(256)), b"", b"\\x00"]
    bulk.insert(Coordinates, ["micrograph", "points"], list(zip(made.values(), points, strict=True)))
    assert [bytes(row.points) for row in Coordinates.objects.order_by("pk")] == points


def test_objects_are_those_of_the_orm(session, run):
    for model, column, pk in (
        (ProcessingRun, "id", run.pk),
        (type(session.summary), "session_id", session.pk),
    ):
        (mine,) = bulk.objects(model, f"WHERE {column} = %s", [pk])
        theirs = model.objects.get(pk=pk)
        for field in model._meta.concrete_fields:
            assert getattr(mine, field.attname) == getattr(theirs, field.attname), field
            assert type(getattr(mine, field.attname)) is type(getattr(theirs, field.attname)), field


def test_one_object_is_written_column_by_column(run):
    ProcessingRun.objects.filter(pk=run.pk).update(label="theirs")
    run.label, run.histograms, run.last_seen_at = "mine", {"defocus": [1, 2]}, TIME
    bulk.write((run, ["histograms", "last_seen_at"]))
    run.refresh_from_db()
    assert (run.label, run.histograms, run.last_seen_at) == ("theirs", {"defocus": [1, 2]}, TIME)
    assert run.parameters == {"a": ["ä", 1, None]}


def random_row(chance):
    row = {name: chance.uniform(-1, 20_000) if chance.random() < 0.7 else None for name in MEASURED_FIELDS}
    row["ctf_score"] = chance.choice([None, -0.1, 0.0, 0.5, 0.3])  # On the edges of bins, too.
    row["particles"] = chance.choice([None, 0, 20, 999_999])
    return row


@pytest.mark.parametrize("count", [1, 5, 200])
def test_whole_columns_are_counted_as_rows_one_by_one(count):
    chance = random.Random(count)
    before, after = ([random_row(chance) for _ in range(count)] for _ in range(2))
    one, all_at_once = Tally(), Tally()
    for row in before:
        one.add(row)
    all_at_once.add_all(before)
    assert all_at_once.counters == one.counters
    assert all_at_once.known_histograms() == one.known_histograms()
    assert one.counters["micrographs"] == count
    fields = [
        [name for name in MEASURED_FIELDS if a[name] != b[name]] for a, b in zip(before, after, strict=True)
    ]
    for a, b, names in zip(before, after, fields, strict=True):
        one.change(a, b, names)
    all_at_once.change_all(list(zip(before, after, fields, strict=True)))
    assert all_at_once.counters == one.counters
    assert all_at_once.known_histograms() == one.known_histograms()
    all_at_once.add_all(after, -1)
    assert all_at_once.known_histograms() == {}
    assert all_at_once.counters == dict.fromkeys(COUNTERS, 0)


@pytest.mark.django_db(transaction=True)
def test_what_is_sent_together_is_committed_or_refused_together(tmp_path):
    session = SessionFactory()
    names = [
        "session",
        "identity",
        "name",
        "grid_square",
        "foil_hole",
        "verdict",
        "verdict_reason",
        "revision",
    ]

    def insert(identity):
        bulk.insert(
            Exposure, [*names, "created_at"], [(session.pk, identity, identity, "", "", "", "", 1, TIME)]
        )

    def write(*identities):
        with statements.sent_together(), transaction.atomic():
            for identity in identities:
                insert(identity)

    def stored():
        return sorted(Exposure.objects.values_list("identity", flat=True))

    with shared_database(tmp_path):
        assert in_thread(lambda: write("a")) is None
        assert in_thread(stored) == ["a"]

        def refused():
            with pytest.raises(IntegrityError):
                write("b", "a", "c")
            assert not connection.in_atomic_block
            write("d")  # The connection is as good as before.
            return stored()

        assert in_thread(refused) == ["a", "d"]
