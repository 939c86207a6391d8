"""What reading costs: the delta after one change at two sizes, 304, posts among 200 readers, a worker's memory.

    .venv/bin/python -m bench.polls [--sizes 100,100000] [--rounds 150] [--readers 200] [--seconds 10]
                                    [--memory 20000] [--database-url postgres://...]

gunicorn as `make serve` starts it answers through HTTP; client, server and database share the machine.

Deltas: each size is a run of a session of its own. In turns one micrograph of each is changed, then the reader asks
for what came after the revision it had (one row), and then once more with the answer's ETag (304).

Readers: so many each ask once a second for what came after their revision, with their ETag, each on a connection of
its own, of a run in which nothing changes. All are in one process of their own that does no more than it must
(bench.readers). Batches of 500 are posted to another run for --seconds without readers and for as long with them, in
four turns.

Memory: so many micrographs are posted in batches of 500, each one updated once (500,000 with --memory 500000);
the resident memory of all workers is printed at ten moments.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import orjson

from bench.ingest import BATCH, batch, measured, names
from bench.machine import describe
from bench.server import ROOT, Site


def fill(session, run, count: int) -> list[str]:
    """Give a run `count` micrographs, through ingestion itself; answers the last batch's names."""
    from preprocessing import ingest
    from preprocessing.identity import identity

    chosen: list[str] = []
    for first in range(0, count, 1000):
        chosen = names(min(1000, count - first))
        ingest.record_micrographs(
            session.pk, run.pk, [ingest.Report(name, identity(name), measured()) for name in chosen]
        )
    return chosen


def middle(seconds: list[float]) -> str:
    ordered = sorted(seconds)
    return f"median {statistics.median(ordered) * 1000:6.1f} ms, p95 {ordered[int(len(ordered) * 0.95)] * 1000:6.1f} ms"


def deltas(site: Site, places: list, options) -> None:
    from django.db import connection

    sizes = [int(size) for size in options.sizes.split(",")]
    last = {size: fill(*place, size)[-1] for size, place in zip(sizes, places, strict=False)}
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")
    took = {(size, kind): [] for size in sizes for kind in ("delta", "304")}
    revisions = {}
    with site.client() as client:
        for round_number in range(options.rounds + 5):
            for size, (_, run) in zip(sizes, places, strict=False):
                path = f"/api/v1/runs/{run.pk}/micrographs/"
                changed = {"micrographs": [{"name": last[size]} | measured()]}
                revision = orjson.loads(client.must_post(path, orjson.dumps(changed)))["revision"]
                after = revisions.get(size, revision - 1)
                revisions[size] = revision
                begin = time.perf_counter()
                status, headers, body = client.get(f"{path}?after={after}")
                middle_moment = time.perf_counter()
                again, _, _ = client.get(f"{path}?after={after}", etag=headers["etag"])
                end = time.perf_counter()
                if (status, again, len(orjson.loads(body)["micrographs"])) != (200, 304, 1):
                    raise SystemExit(f"Answered {status} and {again}: {body[:300]!r}")
                if round_number >= 5:
                    took[size, "delta"].append(middle_moment - begin)
                    took[size, "304"].append(end - middle_moment)
    print(f"{site.database}, reading after one change, {options.rounds} times each")
    for (size, kind), seconds in took.items():
        print(f"  {size:>9,} micrographs, {kind:<6} {middle(seconds)}")
    medians = {key: statistics.median(seconds) for key, seconds in took.items()}
    print(f"  delta, last / first size: {medians[sizes[-1], 'delta'] / medians[sizes[0], 'delta']:.2f}")
    ratios = [medians[size, "304"] / medians[size, "delta"] for size in sizes]
    print(f"  304 / delta: {', '.join(f'{ratio:.2f}' for ratio in ratios)}")


class Readers:
    """Readers of one run, each asking once a second, in a process of their own (bench.readers)."""

    def __init__(self, site: Site, path: str, count: int):
        self.site, self.command = site, [str(site.port), path, str(count)]
        self.told: dict = {}

    def __enter__(self):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bench.readers", *self.command],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.process.stdin.write(self.site.key + "\n")
        self.process.stdin.flush()
        if not self.process.stdout.readline():
            raise SystemExit("The readers did not begin.")
        return self

    def __exit__(self, *error):
        self.told = orjson.loads(self.process.communicate("stop\n")[0])


def crowd(site: Site, places: list, options) -> None:
    """Batches of updates of one run while its own readers, and without."""
    session, run = places[2]
    path = f"/api/v1/runs/{run.pk}/micrographs/"
    chosen = fill(session, run, BATCH)
    other_session, other = places[3]
    fill(other_session, other, BATCH)
    other_path = f"/api/v1/runs/{other.pk}/micrographs/"
    took: dict[bool, list[float]] = {False: [], True: []}
    told = []
    processor = 0.0

    def post(seconds: float, spent: list[float]) -> None:
        with site.client() as client:
            end = time.perf_counter() + seconds
            while time.perf_counter() < end:
                body = orjson.dumps({"micrographs": [{"name": name} | measured() for name in chosen]})
                begin = time.perf_counter()
                client.must_post(path, body)
                spent.append(time.perf_counter() - begin)
                time.sleep(0.2)

    post(1, [])
    for _ in range(4):
        post(options.seconds / 4, took[False])
        with Readers(site, other_path, options.readers) as readers:
            time.sleep(1.5)
            post(options.seconds / 4, took[True])
            used = site.processor()
            time.sleep(2)  # Polls alone, for what one of them costs.
            processor += site.processor() - used
        told.append(readers.told)
    answered = sum(sum(each["statuses"].values()) for each in told)
    seconds = sum(each["seconds"] for each in told)
    unchanged = sum(each["statuses"].get("304", 0) for each in told) / max(1, answered)
    print(
        f"{site.database}, {options.readers} readers; batches of {BATCH} updates, a rest of 0.2 s after each; "
        f"load {os.getloadavg()[0]:.1f}"
    )
    print(f"  without readers  {middle(took[False])}")
    print(f"  with readers     {middle(took[True])}")
    print(
        f"  polls: {answered / seconds:.0f} a second, {unchanged:.0%} answered 304, "
        f"median {statistics.median(each['median'] for each in told) * 1000:.1f} ms, "
        f"p95 {max(each['p95'] for each in told) * 1000:.1f} ms"
    )
    rate = answered / seconds
    print(
        f"  CPU of one poll: server {processor / (8 * rate) * 1000:.2f} ms, "
        f"its reader {sum(each['processor'] for each in told) / answered * 1000:.2f} ms"
    )
    ratio = statistics.median(took[True]) / statistics.median(took[False])
    print(f"  posts take {ratio:.2f} times as long")


def memory(site: Site, places: list, count: int) -> None:
    """Resident memory of the workers while batches come."""
    _, run = places[4]
    path = f"/api/v1/runs/{run.pk}/micrographs/"
    every = max(1, count // BATCH // 10)
    print(f"{site.database}, resident memory of the workers, MB")
    with site.client() as client:
        for number in range(count // BATCH):
            items = batch(names(BATCH))
            for step in ("insert", "update"):
                client.must_post(path, orjson.dumps({"micrographs": items[step]}))
            if number % every == every - 1 or number == 1:
                resident = " + ".join(f"{megabytes(pid):.1f}" for pid in site.workers())
                print(f"  {(number + 1) * BATCH:>9,} micrographs: {resident}", flush=True)


def megabytes(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    raise SystemExit(f"No resident memory is told of process {pid}.")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", default="100,100000")
    parser.add_argument("--rounds", type=int, default=150)
    parser.add_argument("--readers", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--memory", type=int, default=20_000)
    parser.add_argument("--only", choices=["deltas", "crowd", "memory"])
    parser.add_argument("--database-url", default="")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        site = Site(folder, options.database_url, name="emhub_bench_polls")
        from preprocessing import ingest

        places = [
            (session, ingest.open_run(session.pk, key="bench polls", software="RELION")[0])
            for session in site.sessions
        ]
        site.start()
        try:
            print(describe())
            if options.only in (None, "deltas"):
                deltas(site, places, options)
            if options.only in (None, "crowd"):
                crowd(site, places, options)
            if options.only in (None, "memory"):
                memory(site, places, options.memory)
        finally:
            site.stop()


if __name__ == "__main__":
    main()
