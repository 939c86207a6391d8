"""Those who write to SQLite at once go together, and none of them suffers from another."""

import threading

import pytest
from django.contrib.auth.models import Group
from django.db import DatabaseError, OperationalError, connection, transaction

from preprocessing import line
from preprocessing.line import Line, in_line
from tests.concurrency import at_once, in_thread, shared_database

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.sqlite]


def make(name):
    def do():
        with transaction.atomic():
            return Group.objects.create(name=name).pk

    return do


@pytest.fixture
def together(tmp_path):
    """Runs pieces of work that all wait while the first in line is held up; answers results or errors, and commits."""

    def run(*works):
        with shared_database(tmp_path):
            place = Line(str(tmp_path / "line"))
            there = set(Group.objects.values_list("name", flat=True))
            commits = []
            held = threading.Event()

            def first():
                held.wait(30)

            def stand(n):
                if n == 0:
                    return place.wait(first)
                if n == len(works) + 1:
                    while len(place._waiting) < len(works):
                        threading.Event().wait(0.01)
                    held.set()
                    return None
                while not place._turn.locked():
                    threading.Event().wait(0.01)

                def counted():
                    commits.append(id(connection.connection))
                    return works[n - 1]()

                return place.wait(counted)

            results = at_once(len(works) + 2, stand)
            names = in_thread(lambda: set(Group.objects.values_list("name", flat=True))) - there
        return results[1:-1], names, len(set(commits))

    return run


def test_those_who_wait_are_written_by_one_of_them_and_each_hears_its_own(together):
    results, names, connections = together(*(make(f"Lab {n}") for n in range(4)))
    assert names == {f"Lab {n}" for n in range(4)}
    assert len(set(results)) == 4
    assert all(isinstance(result, int) for result in results)
    assert connections == 1


def test_an_error_of_one_is_its_own_and_leaves_nothing_of_it(together):
    def wrong():
        with transaction.atomic():
            Group.objects.create(name="Half")
            raise ValueError("mine")

    results, names, _ = together(make("A"), wrong, make("B"))
    assert names == {"A", "B"}
    assert str(results[1]) == "mine"
    assert all(isinstance(results[n], int) for n in (0, 2))


def test_nobody_is_told_of_success_where_the_commit_fails(together):
    def spoilt():
        # As when SQLite gives up the whole transaction, for instance on a full disk.
        with transaction.atomic():
            with connection.cursor() as cursor:
                cursor.execute("ROLLBACK")
            raise OperationalError("database or disk is full")

    results, names, _ = together(make("A"), spoilt, make("B"))
    assert all(isinstance(result, DatabaseError) for result in results), results
    assert names == set()


def test_one_alone_is_not_wrapped_again(tmp_path):
    with shared_database(tmp_path):
        seen = in_thread(lambda: Line(str(tmp_path / "line")).wait(lambda: connection.in_atomic_block))
    assert seen is False


def test_whoever_writes_outside_a_transaction_stands_in_the_line_of_the_database(tmp_path, monkeypatch):
    stood = []
    monkeypatch.setattr(Line, "wait", lambda place, do: (stood.append(place), do())[1])
    with shared_database(tmp_path):
        results = at_once(3, lambda n: in_line(make(f"Group {n}")))
    assert [type(result) for result in results] == [int] * 3
    assert len(stood) == 3
    assert len(set(stood)) == 1


def test_within_a_transaction_nobody_stands_in_line(monkeypatch):
    monkeypatch.setattr(line, "Line", None)
    with transaction.atomic():
        assert in_line(lambda: "done") == "done"


def test_a_lock_from_outside_the_line_is_told_as_it_is(tmp_path):
    def locked():
        raise OperationalError("database is locked")

    with shared_database(tmp_path):
        (result,) = at_once(1, lambda n: in_line(locked))
        assert isinstance(result, OperationalError)
        # The line goes on.
        (after,) = at_once(1, lambda n: in_line(make("After")))
        assert isinstance(after, int)
