"""What the live page costs at 100 and at 50,000 micrographs, in one run: server, bytes, first draw, pollers.

    .venv/bin/python -m bench.live [--sizes 100,50000] [--rounds 8] [--pollers 200] [--seconds 15]
                                   [--database-url postgres://...]

gunicorn as `make serve` starts it answers; client, browser, server and database share the machine. Each size is a
session of its own with one run, its micrographs given by ingestion itself with every quantity, places and beam shifts.

Server and bytes: the page and its first load of data, asked for in turns. "Anew" follows after one micrograph was
posted; "unpacked" is the very first look at a run whose rows nobody packed before (`manage.py check_alerts` does every
minute); "new process" the first look of a server that was just started.

First draw: a new Chromium profile for every round, so its cache is cold; from the navigation's start until the
resolution chart and its histogram stand on the page, on the browser's own clock. Bytes are those of data alone, as
sent.

Pollers: so many ask for what is new once a second, as the page does, while a micrograph comes every 6 s; the CPU time
of all workers is told as a share of one core.
"""

import argparse
import shutil
import statistics
import tempfile
import threading
import time
from pathlib import Path

import orjson

from bench.machine import describe
from bench.micrographs import fill, movie
from bench.server import Site

DRAWN = """
() => ["[data-plot] canvas", "[data-histogram] canvas"].every(
  (part) => document.querySelector(`[data-series=ctf_resolution] ${part}`)
)
"""


class Place:
    """A session with a run of so many micrographs, and a person's way in."""

    def __init__(self, session, size: int):
        from django.conf import settings
        from django.test import Client

        from preprocessing import ingest

        self.size, self.session, self.posted = size, session, 0
        self.run, _ = ingest.open_run(session.pk, key="bench-live", software="RELION", host="gpu01")
        fill(session, self.run, size)
        client = Client()
        client.force_login(session.booking.owner)
        self.cookie = (settings.SESSION_COOKIE_NAME, client.cookies[settings.SESSION_COOKIE_NAME].value)
        self.path = f"/sessions/{session.name}/live/"

    def ask(self, client, path: str = "", etag: str = "") -> tuple[int, dict, bytes]:
        """A page's question: with its cookie, taking packed answers."""
        client.head = (
            f"Host: 127.0.0.1:{client.port}\r\nCookie: {self.cookie[0]}={self.cookie[1]}\r\n"
            "Accept-Encoding: gzip\r\n"
        )
        return client.request("GET", f"{self.path}{path}", etag=etag)

    def post(self, client) -> None:
        from django.utils import timezone

        self.posted += 1
        number = self.size + self.posted
        _, micrograph = movie(number, number + 1, timezone.now(), 0)
        client.must_post(
            f"/api/v1/runs/{self.run.pk}/micrographs/", orjson.dumps({"micrographs": [micrograph]})
        )


def timed(ask) -> tuple[float, int]:
    begin = time.perf_counter()
    status, _, body = ask()
    took = time.perf_counter() - begin
    if status != 200:
        raise SystemExit(f"Answered {status}: {body[:300]!r}")
    return took, len(body)


def middle(values: list[float]) -> float:
    return statistics.median(values)


def server(site: Site, places: list[Place], rounds: int) -> None:
    print(f"{site.database}; time to answer, ms (median of {rounds}); bytes as sent")
    rows: dict[tuple[int, str], list[float]] = {}
    sizes: dict[tuple[int, str], int] = {}
    for place in places:
        with site.client() as client:
            took, _ = timed(lambda place=place, client=client: place.ask(client, "data/"))
            rows[place.size, "data, unpacked"] = [took]
    # Each worker anew: nothing in memory, the rows packed in the database.
    for _ in range(3):
        site.stop()
        site.start()
        for _ in range(6):
            with site.client() as client:
                places[0].ask(client, "micrographs/1/")
        for place in places:
            with site.client() as client:
                took, _ = timed(lambda place=place, client=client: place.ask(client, "data/"))
                rows.setdefault((place.size, "data, new process"), []).append(took)
    for number in range(rounds + 1):
        for place in places:
            with site.client() as client, site.client() as pipeline:
                kinds = [
                    ("page", ""),
                    ("data, again", "data/"),
                    ("data, anew", "data/"),
                    ("part", f"range/?axis=number&from={place.size // 4}&to={place.size // 2}"),
                    ("pair", "pair/?x=defocus&y=ctf_resolution"),
                    ("beam shifts", "shifts/"),
                    ("map", "../where/data/"),
                ]
                for kind, path in kinds:
                    if kind == "data, anew":
                        place.post(pipeline)
                        time.sleep(0.3)  # For so long at most all hear the same.
                    path = path.removeprefix("../") if path.startswith("../") else path
                    if kind == "map":
                        whole, place.path = place.path, place.path.replace("/live/", "/")
                    took, size = timed(lambda place=place, client=client, path=path: place.ask(client, path))
                    if kind == "map":
                        place.path = whole
                    sizes[place.size, kind] = size
                    if number:
                        rows.setdefault((place.size, kind), []).append(took)
    small, large = places[0].size, places[-1].size
    for kind in [kind for size, kind in rows if size == small]:
        few, many = middle(rows[small, kind]) * 1000, middle(rows[large, kind]) * 1000
        told = (
            " ".join(f"{sizes[size, kind]:>9,}" for size in (small, large)) if (small, kind) in sizes else ""
        )
        print(
            f"  {kind:<17} {small:,}: {few:7.1f}   {large:,}: {many:7.1f}   ratio {many / few:5.2f}   bytes {told}"
        )


def browser(site: Site, places: list[Place], rounds: int) -> None:
    from playwright.sync_api import sync_playwright

    chromium = next(filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome"])), None)
    if chromium is None:
        print("First draw: no Chromium on PATH.")
        return
    base = f"http://127.0.0.1:{site.port}"
    drawn: dict[int, list[float]] = {place.size: [] for place in places}
    sent: dict[int, int] = {}
    quiet = [
        "--no-sandbox",
        "--disable-background-networking",
        "--disable-quic",
        "--disable-component-update",
    ]
    with sync_playwright() as playwright:
        for number in range(rounds + 1):
            for place in places:
                chrome = playwright.chromium.launch(executable_path=chromium, args=quiet)
                context = chrome.new_context(viewport={"width": 1280, "height": 800})
                name, value = place.cookie
                context.add_cookies([{"name": name, "value": value, "url": base}])
                page = context.new_page()
                page.goto(f"{base}{place.path}", wait_until="commit")
                page.wait_for_function(DRAWN, polling="raf")
                took = page.evaluate("() => performance.now()")
                bytes_sent = page.evaluate(
                    "() => performance.getEntriesByType('resource').filter((e) => e.name.includes('/live/data/'))"
                    ".reduce((sum, e) => sum + e.transferSize, 0)"
                )
                if number:
                    drawn[place.size].append(took)
                    sent[place.size] = bytes_sent
                chrome.close()
    for size, values in drawn.items():
        ordered = sorted(values)
        print(
            f"  first draw at {size:>6,}: median {middle(ordered):5.0f} ms, longest {ordered[-1]:5.0f} ms, "
            f"{sent[size]:,} bytes of data"
        )
    sizes = list(drawn)
    print(f"  ratio {middle(drawn[sizes[-1]]) / middle(drawn[sizes[0]]):.2f}")


def cpu(site: Site) -> float:
    """Seconds of CPU that all workers used so far."""
    total = 0
    for pid in site.workers():
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / 100


def pollers(site: Site, place: Place, count: int, seconds: float) -> None:
    stop, begin = threading.Event(), threading.Event()
    answered: list[tuple[int, float]] = []
    workers = min(count, 20)
    ready = threading.Semaphore(0)

    def work(mine: int, offset: float) -> None:
        states = [{"client": site.client(), "after": 0, "etag": ""} for _ in range(mine)]
        for state in states:
            _, headers, _ = place.ask(state["client"], f"data/?run={place.run.pk}&after=1000000000000")
            state["etag"] = headers["etag"]
            state["after"] = run_revision(place)
        ready.release()
        begin.wait()
        stop.wait(offset)
        while not stop.is_set():
            start = time.perf_counter()
            for number, state in enumerate(states):
                if stop.wait(max(0.0, start + number / mine - time.perf_counter())):
                    break
                asked = time.perf_counter()
                status, headers, body = place.ask(
                    state["client"], f"data/?run={place.run.pk}&after={state['after']}", etag=state["etag"]
                )
                answered.append((status, time.perf_counter() - asked))
                if status == 200:
                    import gzip

                    plain = gzip.decompress(body) if headers.get("content-encoding") == "gzip" else body
                    state["after"] = orjson.loads(plain)["run"]["revision"]
                state["etag"] = headers.get("etag", "")
            stop.wait(max(0.0, start + 1 - time.perf_counter()))
        for state in states:
            state["client"].close()

    threads = [threading.Thread(target=work, args=(count // workers, n / workers)) for n in range(workers)]
    for thread in threads:
        thread.start()
    for _ in threads:
        ready.acquire()
    with site.client() as pipeline:
        begin.set()
        time.sleep(2)
        before, started, first = cpu(site), time.perf_counter(), len(answered)
        end = started + seconds
        while time.perf_counter() < end:
            place.post(pipeline)
            time.sleep(min(6, max(0.0, end - time.perf_counter())))
        spent, passed = cpu(site) - before, time.perf_counter() - started
    stop.set()
    for thread in threads:
        thread.join()
    mine = answered[first:]
    unchanged = sum(status == 304 for status, _ in mine) / max(1, len(mine))
    wrong = [status for status, _ in mine if status not in (200, 304)]
    took = sorted(took for _, took in mine)
    print(
        f"  {count} pollers at {place.size:>6,}: {spent / passed:.2f} of a core, {len(mine) / passed:.0f} answers a "
        f"second, {unchanged:.0%} of them 304, median {middle(took) * 1000:.1f} ms, "
        f"p95 {took[int(0.95 * len(took))] * 1000:.1f} ms, {len(wrong)} errors"
    )


def run_revision(place: Place) -> int:
    from preprocessing.models import ProcessingRun

    return ProcessingRun.objects.values_list("revision", flat=True).get(pk=place.run.pk)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", default="100,50000")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--pollers", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--database-url", default="")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        site = Site(folder, options.database_url, name="emhub_bench_live")
        from django.core.management import call_command

        call_command("collectstatic", interactive=False, verbosity=0)
        sizes = [int(size) for size in options.sizes.split(",")]
        running = [session for session in site.sessions if session.is_running]
        places = [Place(session, size) for session, size in zip(running, sizes, strict=False)]
        site.start()
        try:
            print(describe())
            server(site, places, options.rounds)
            browser(site, places, options.rounds)
            for place in places:
                pollers(site, place, options.pollers, options.seconds)
        finally:
            site.stop()


if __name__ == "__main__":
    main()
