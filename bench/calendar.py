"""Queries, time and size of the calendar's range call, as ratios in one run.

    .venv/bin/python -m bench.calendar [--sizes 100,10000,100000] [--rounds 15] [--cpu]
                                       [--database-url postgres://...]

Two questions. Does the call cost the same whatever else is in the table: a week, a month and a year in the middle
of 100, 10,000 and 100,000 bookings of which each range holds the same ones. And what does a year of a busy facility
(6 microscopes, 2,500 bookings) cost against one of its months. Both are asked twice: of the first call after a booking
was changed, when everything is read anew, and of calls after that, which tell what was kept (bookings/kept.py).

Around the ranges lies what a facility gathers: bookings back to back, one in twenty cancelled, and slots. Each size
has a database and a process of its own, and the sizes take turns, as in bench.pages. `--cpu` counts the process's own
work instead of the time on the clock, which on a busy machine says more; SQLite works in the same process.
"""

import argparse
import datetime
import itertools
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.machine import describe
from bench.pages import postgres_database

ROOT = Path(__file__).resolve().parent.parent
MICROSCOPES = 6
LABS = 20
HERE = datetime.date(2026, 6, 1)  # A Monday.
RANGES = {"week": 7, "month": 35, "year": 366}
SPARSE = 100  # What a size's ranges hold; the busy year stands beside it.
BUSY = 2500
BUSY_YEAR = datetime.date(2020, 1, 6)
TURN = datetime.timedelta(hours=8)
#: Whether a booking was changed just before -> what the call is.
CALLS = {True: "the first call after a change", False: "every call after that"}


def build(size: int) -> dict:
    """Fill an empty, migrated database with `size` bookings; return the usernames of staff and a user."""
    from django.contrib.auth.models import Group
    from django.utils import timezone

    from bench.facility import COLOURS
    from bookings.models import Booking
    from microscopes.models import Microscope
    from people.models import STAFF_GROUP, Lab, Membership, User

    random.seed(1)
    staff = User.objects.create_user("bench-staff", is_staff=True, first_name="Sam", last_name="Staff")
    staff.groups.add(Group.objects.get(name=STAFF_GROUP))
    microscopes = [
        Microscope.objects.create(name=f"Krios {n + 1}", code=f"krios{n + 1}", colour=COLOURS[n], position=n)
        for n in range(MICROSCOPES)
    ]
    User.objects.bulk_create(
        User(username=f"user{n}", first_name="Ada", last_name=f"Person{n}", email=f"user{n}@example.org")
        for n in range(LABS * 5)
    )
    people = list(User.objects.filter(username__startswith="user").order_by("id"))
    labs = [Lab.objects.create(name=f"Lab {n:02d}", pi=people[n * 5]) for n in range(LABS)]
    Membership.objects.bulk_create(
        Membership(lab=labs[n // 5], user=person) for n, person in enumerate(people) if n % 5
    )

    def at(day):
        return timezone.make_aware(datetime.datetime.combine(day, datetime.time(9)))

    def booking(number, microscope, start, **fields):
        lab = number % LABS
        owner = people[lab * 5 + number % 5]
        return Booking(
            **{
                "microscope": microscopes[microscope],
                "owner": owner,
                "creator": owner,
                "lab": labs[lab],
                "title": f"Grid {number}",
                "start": start,
                "end": start + TURN,
            }
            | fields
        )

    # The year that every size shares: its bookings, two of them slots, one long.
    rows = [
        booking(n, n % MICROSCOPES, at(HERE) + datetime.timedelta(hours=84 * (n // MICROSCOPES)))
        for n in range(SPARSE - 3)
    ]
    rows += [
        booking(n, n, at(HERE) - datetime.timedelta(days=2), kind="slot", end=at(HERE)) for n in range(2)
    ]
    rows.append(booking(0, 5, at(HERE) - datetime.timedelta(days=9), end=at(HERE) - TURN))
    # The others: back to back before and after it, for as long as it takes.
    left = size - len(rows)
    before = at(HERE) - datetime.timedelta(days=10)
    after = at(HERE) + datetime.timedelta(days=367)
    for n in range(left):
        turn = n // (2 * MICROSCOPES)
        start = before - TURN * (turn + 1) if n % 2 else after + TURN * turn
        extra = {}
        if n % 20 == 7:
            extra = {"cancelled_at": at(HERE)}
        elif n % 20 == 11:
            extra = {"kind": "slot", "end": start + 3 * TURN}
        rows.append(booking(n, (n // 2) % MICROSCOPES, start, **extra))
    # Latest first: SQLite's trigger against overlaps then finds nothing that starts before.
    rows.sort(key=lambda row: row.start, reverse=True)
    Booking.objects.bulk_create(rows, batch_size=5000)
    return {"staff": staff.username, "user": people[1].username}


def build_busy() -> None:
    """A year of 2,500 bookings on the same microscopes, in the smallest database, years away from the rest."""
    from django.utils import timezone

    from bookings.models import Booking
    from microscopes.models import Microscope
    from people.models import Lab

    labs = list(Lab.objects.select_related("pi"))
    microscopes = list(Microscope.objects.order_by("position"))
    first = timezone.make_aware(datetime.datetime.combine(BUSY_YEAR, datetime.time(9)))
    step = datetime.timedelta(days=364) / (BUSY // MICROSCOPES + 1)
    rows = []
    for n in range(BUSY):
        lab, start = labs[n % LABS], first + step * (n // MICROSCOPES)
        rows.append(
            Booking(
                microscope=microscopes[n % MICROSCOPES],
                owner=lab.pi,
                creator=lab.pi,
                lab=lab,
                title=f"Grid {n}",
                start=start,
                end=start + TURN * 2,
            )
        )
    Booking.objects.bulk_create(rows[::-1], batch_size=5000)


def worker() -> None:
    """Build one database, then answer "range as" requests from standard input with what they cost."""
    import django

    django.setup()
    from django.core.management import call_command
    from django.db import connection
    from django.test import Client
    from django.test.utils import CaptureQueriesContext
    from django.urls import reverse

    from bookings.models import Booking
    from people.models import User

    size = int(sys.argv[2])
    call_command("migrate", verbosity=0)
    started = time.perf_counter()
    names = build(size)
    if "busy" in sys.argv[3:]:
        build_busy()
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")
    clients = {}
    for who, name in names.items():
        clients[who] = Client(SERVER_NAME="127.0.0.1")
        clients[who].force_login(User.objects.get(username=name))
    print(json.dumps({"built": time.perf_counter() - started}), flush=True)
    for line in sys.stdin:
        start, days, who, changed, counts, cpu = json.loads(line)
        if changed:
            # One of another year, so that every call tells the same.
            changes = Booking.objects.filter(pk=Booking.objects.order_by("start").values("pk")[:1])
            changes.update(title=f"Changed at {time.monotonic()}")
        clock = time.process_time if cpu else time.perf_counter
        first = datetime.date.fromisoformat(start)
        query = {"start": start, "end": (first + datetime.timedelta(days=days)).isoformat()}
        queries = None
        begin = clock()
        if counts:
            with CaptureQueriesContext(connection) as captured:
                response = clients[who].get(reverse("bookings:calendar-events"), query)
            queries = len(captured)
        else:
            response = clients[who].get(reverse("bookings:calendar-events"), query)
        seconds = clock() - begin
        answer = {
            "seconds": seconds,
            "queries": queries,
            "bytes": len(response.content),
            "status": response.status_code,
            "events": response.content.count(b'"microscope":'),
        }
        print(json.dumps(answer), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", default="100,10000,100000")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--cpu", action="store_true")
    parser.add_argument("--database-url", default="")
    options = parser.parse_args()
    sizes = [int(size) for size in options.sizes.split(",")]
    if options.cpu and options.database_url:
        parser.error("the work of PostgreSQL is not this process's: leave --cpu out")
    if min(sizes) < SPARSE:
        parser.error(f"every size needs at least {SPARSE} bookings")

    with tempfile.TemporaryDirectory() as folder:
        workers = {}
        # The busy year has a database of its own.
        for name in [*sizes, "busy"]:
            size = SPARSE if name == "busy" else name
            environment = {
                **os.environ,
                "DJANGO_SETTINGS_MODULE": "emhub_site.settings",
                "EMHUB_DATA_DIR": str(Path(folder) / str(name)),
                "EMHUB_STATIC_ROOT": folder,
                "SECRET_KEY": "only-for-this-benchmark",
                "HTTPS": "false",
                "LOG_LEVEL": "ERROR",
            }
            environment.pop("DATABASE_URL", None)
            if options.database_url:
                environment["DATABASE_URL"] = postgres_database(options.database_url, f"calendar_{name}")
            workers[name] = subprocess.Popen(
                [sys.executable, "-m", "bench.calendar", "--worker", str(size), str(name)],
                cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
            built = json.loads(workers[name].stdout.readline())["built"]
            print(f"built {name} in {built:.1f} s", file=sys.stderr)

        def ask(name, start, days, who, changed, counts=False):
            process = workers[name]
            request = [start.isoformat(), days, who, changed, counts, options.cpu]
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
            answer = json.loads(process.stdout.readline())
            if answer["status"] != 200:
                raise SystemExit(f"{days} days as {who} at {name} answered {answer['status']}")
            return answer

        results, queries = {}, {}
        for round_number in range(options.rounds + 2):
            for period, days in RANGES.items():
                for who in ("staff", "user"):
                    for name, changed in itertools.product(workers, CALLS):
                        start = BUSY_YEAR if name == "busy" else HERE
                        answer = ask(name, start, days, who, changed, counts=round_number == 0)
                        key = period, who, name, changed
                        if round_number == 0:
                            queries[key] = answer["queries"]
                        elif round_number >= 2:  # The first two warm caches.
                            results.setdefault(key, []).append(answer)
        for process in workers.values():
            process.stdin.close()
            process.wait()

    asked = list(itertools.product(RANGES, ("staff", "user")))

    def median(*key):
        return statistics.median(answer["seconds"] for answer in results[key]) * 1000

    print(describe())
    print(
        f"database: {'PostgreSQL' if options.database_url else 'SQLite'}; median of {options.rounds} rounds; "
        f"{'CPU time' if options.cpu else 'time on the clock'}"
    )
    for changed, words in CALLS.items():
        print(f"\nThe same bookings in a table of ..., {words}:")
        header = "".join(f"{f'{size:,} ms':>14}" for size in sizes)
        print(f"{'range':<8}{'as':<7}{header}{'last/first':>12}{'events':>8}{'queries':>9}")
        for period, who in asked:
            cells = "".join(f"{median(period, who, size, changed):>14.1f}" for size in sizes)
            ratio = median(period, who, sizes[-1], changed) / median(period, who, sizes[0], changed)
            counted = "/".join(
                str(n) for n in sorted({queries[period, who, size, changed] for size in sizes})
            )
            events = results[period, who, sizes[-1], changed][0]["events"]
            print(f"{period:<8}{who:<7}{cells}{ratio:>12.2f}{events:>8}{counted:>9}")
    for changed, words in CALLS.items():
        print(f"\nA busy facility, {MICROSCOPES} microscopes and {BUSY:,} bookings a year, {words}:")
        print(f"{'range':<8}{'as':<7}{'ms':>14}{'of a month':>12}{'events':>8}{'queries':>9}{'kB':>7}")
        for period, who in asked:
            key = period, who, "busy", changed
            answer, took = results[key][0], median(*key)
            print(
                f"{period:<8}{who:<7}{took:>14.1f}{took / median('month', *key[1:]):>12.2f}"
                f"{answer['events']:>8}{queries[key]:>9}{answer['bytes'] / 1000:>7.0f}"
            )


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1] == "--worker":
        worker()
    else:
        main()
