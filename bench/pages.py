"""Time and size of the main pages at 100, 10,000 and 100,000 sessions, as ratios in one run.

    .venv/bin/python -m bench.pages [--sizes 100,10000,100000] [--rounds 15] [--database-url postgres://...]

Each size has a database of its own and a process of its own that answers requests through the whole of Django
(middleware, sessions, templates; no socket). The sizes take turns, page by page and round by round, so that a
machine whose speed drifts does not favour one. Without --database-url the databases are SQLite files in a
temporary folder; with it they are databases named emhub_bench_SIZE on that PostgreSQL server.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from bench.machine import describe

ROOT = Path(__file__).resolve().parent.parent
DEEP = "list page 20"
# Of the newest 500 sessions, whatever else there is: what a facility does in a year.
STATISTICS = "statistics"
PAGES = ["dashboard", "list", DEEP, "session", "live", "live data", STATISTICS]
# Who sees a page, and from which size on it has what it shows.
ONLY_STAFF = {DEEP: 1000, STATISTICS: 500}


def worker() -> None:
    """Build one database, then answer "page as" requests from standard input with seconds and bytes."""
    import django

    django.setup()
    from django.core.management import call_command
    from django.test import Client
    from django.urls import reverse

    from bench.facility import build
    from people.models import User

    call_command("migrate", verbosity=0)
    started = time.perf_counter()
    names = build(int(sys.argv[2]))
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")
    clients = {}
    for who in ("staff", "user"):
        clients[who] = Client(SERVER_NAME="127.0.0.1")
        clients[who].force_login(User.objects.get(username=names[who]))
    session = names["session"]
    live = reverse("preprocessing:live", args=[session])
    addresses = {
        "dashboard": reverse("sessions:dashboard"),
        "list": reverse("sessions:list"),
        DEEP: reverse("sessions:list") + "?page=20",
        "session": reverse("sessions:detail", args=[session]),
        "live": live,
        "live data": reverse("preprocessing:live-data", args=[session]),
        STATISTICS: reverse("sessions:statistics") + f"?since={names['since']}",
    }
    print(json.dumps({"built": time.perf_counter() - started}), flush=True)
    for line in sys.stdin:
        page, who = json.loads(line)
        begin = time.perf_counter()
        response = clients[who].get(addresses[page])
        body = response.getvalue() if response.streaming else response.content
        seconds = time.perf_counter() - begin
        print(
            json.dumps({"seconds": seconds, "bytes": len(body), "status": response.status_code}), flush=True
        )


def postgres_database(url: str, size: int) -> str:
    """Make an empty database for this size and return its address."""
    import psycopg

    parts = urlsplit(url)
    name = f"emhub_bench_{size}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {name}")
        connection.execute(f"CREATE DATABASE {name}")
    return urlunsplit(parts._replace(path=f"/{name}"))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", default="100,10000,100000")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--database-url", default="")
    options = parser.parse_args()
    sizes = [int(size) for size in options.sizes.split(",")]

    with tempfile.TemporaryDirectory() as folder:
        workers = {}
        for size in sizes:
            environment = {
                **os.environ,
                "DJANGO_SETTINGS_MODULE": "emhub_site.settings",
                "EMHUB_DATA_DIR": str(Path(folder) / str(size)),
                "EMHUB_STATIC_ROOT": str(Path(folder) / "static"),
                "SECRET_KEY": "only-for-this-benchmark",
                "HTTPS": "false",
                "LOG_LEVEL": "ERROR",
            }
            environment.pop("DATABASE_URL", None)
            if options.database_url:
                environment["DATABASE_URL"] = postgres_database(options.database_url, size)
            if size == sizes[0]:
                subprocess.run(
                    [sys.executable, "manage.py", "collectstatic", "--noinput", "-v0"],
                    cwd=ROOT, env=environment, check=True,
                )  # fmt: skip
            workers[size] = subprocess.Popen(
                [sys.executable, "-m", "bench.pages", "--worker", str(size)],
                cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
            built = json.loads(workers[size].stdout.readline())["built"]
            print(f"built {size:,} sessions in {built:.1f} s", file=sys.stderr)

        def ask(size, page, who):
            process = workers[size]
            process.stdin.write(json.dumps([page, who]) + "\n")
            process.stdin.flush()
            return json.loads(process.stdout.readline())

        results = {}
        for round_number in range(options.rounds + 2):
            for page in PAGES:
                for who in ("staff", "user"):
                    for size in sizes:
                        if page in ONLY_STAFF and (who == "user" or size < ONLY_STAFF[page]):
                            continue
                        answer = ask(size, page, who)
                        if answer["status"] != 200:
                            raise SystemExit(f"{page} as {who} at {size} answered {answer['status']}")
                        if round_number >= 2:  # The first two warm templates and caches.
                            results.setdefault((page, who, size), []).append(answer)
        for process in workers.values():
            process.stdin.close()
            process.wait()

    print(describe())
    print(
        f"database: {'PostgreSQL' if options.database_url else 'SQLite'}; median of {options.rounds} rounds"
    )
    header = "".join(f"{f'{size:,} ms':>14}{'kB':>7}" for size in sizes)
    print(f"{'page':<14}{'as':<7}{header}{'last/first':>12}")
    for page in PAGES:
        for who in ("staff", "user"):
            medians, cells = {}, ""
            for size in sizes:
                answers = results.get((page, who, size))
                if not answers:
                    cells += f"{'–':>14}{'–':>7}"
                    continue
                medians[size] = statistics.median(answer["seconds"] for answer in answers)
                cells += f"{medians[size] * 1000:>14.1f}{answers[0]['bytes'] / 1000:>7.0f}"
            ratio = (
                medians[sizes[-1]] / medians[sizes[0]]
                if sizes[0] in medians and sizes[-1] in medians
                else None
            )
            print(f"{page:<14}{who:<7}{cells}" + (f"{ratio:>12.2f}" if ratio else f"{'–':>12}"))


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1] == "--worker":
        worker()
    else:
        main()
