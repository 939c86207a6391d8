"""A session at many times its speed, with pollers and one real page that stay open: nothing lost, nothing doubled.

    .venv/bin/python -m bench.replay [--micrographs 5000] [--hours 8] [--speed 60] [--pollers 50]
                                     [--database-url postgres://...]

Every movie is posted at its own moment by a pipeline, its picks ten movies later. Each poller asks once a second as
the page does and keeps what it is told; a page in Chromium does what it always does. Halfway the server is stopped
for ten seconds and started again. At the end every poller and the page must have exactly the micrographs that the
database has, with the same values. The resident memory of the server's workers and the page's heap (after garbage
was collected) are told on the way. Anything that is answered but 200, 304 or (while the server is stopped) not at
all, and any complaint of the page, is an error; the exit status says whether there was any.
"""

import argparse
import gzip
import os
import shutil
import tempfile
import threading
import time
from collections import Counter

import orjson

from bench.live import Place
from bench.machine import describe
from bench.micrographs import movie
from bench.polls import megabytes
from bench.server import Site

PICKS_BEHIND = 10
PAUSE = 10


class Poller:
    """A reader that keeps what it is told: values by micrograph."""

    def __init__(self, place: Place, site: Site):
        self.place, self.client = place, site.client()
        self.rows: dict[int, float | None] = {}
        self.after, self.etag = 0, ""
        self.answers: Counter = Counter()
        self.doubled = 0

    def ask(self) -> None:
        query = f"data/?run={self.place.run.pk}" + (f"&after={self.after}" if self.after else "")
        try:
            status, headers, body = self.place.ask(self.client, query, etag=self.etag)
        except OSError:
            self.client.close()
            self.answers["no answer"] += 1
            return
        self.answers[status] += 1
        if status != 200:
            return
        self.etag = headers["etag"]
        data = orjson.loads(gzip.decompress(body) if headers.get("content-encoding") == "gzip" else body)
        block = data["micrographs"]
        if block is not None:
            if block["reset"]:
                self.rows = {}
            self.doubled += len(block["id"]) - len(set(block["id"]))
            values = block["series"].get("particles") or [None] * len(block["id"])
            self.rows |= dict(zip(block["id"], values, strict=True))
        self.after = data["run"]["revision"]


def poll(pollers: list[Poller], stop: threading.Event) -> None:
    while not stop.is_set():
        begin = time.perf_counter()
        for poller in pollers:
            poller.ask()
        stop.wait(max(0.05, begin + 1 - time.perf_counter()))


def wanted(place: Place) -> dict[int, float | None]:
    from preprocessing.models import Micrograph

    return dict(Micrograph.objects.filter(run=place.run).values_list("pk", "particles"))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--micrographs", type=int, default=5000)
    parser.add_argument("--hours", type=float, default=8)
    parser.add_argument("--speed", type=float, default=60)
    parser.add_argument("--pollers", type=int, default=50)
    parser.add_argument("--database-url", default="")
    options = parser.parse_args()
    chromium = next(filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome"])), None)
    if chromium is None:
        raise SystemExit("No Chromium on PATH.")
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"
    with tempfile.TemporaryDirectory() as folder:
        site = Site(folder, options.database_url, name="emhub_bench_replay")
        from django.core.management import call_command

        call_command("collectstatic", interactive=False, verbosity=0)
        place = Place(next(session for session in site.sessions if session.is_running), 0)
        site.start()
        try:
            wrong = replay(site, place, chromium, options)
        finally:
            site.stop()
    raise SystemExit(1 if wrong else 0)


def replay(site: Site, place: Place, chromium: str, options) -> bool:
    from playwright.sync_api import sync_playwright

    print(describe())
    print(
        f"{site.database}: {options.micrographs:,} micrographs of {options.hours:g} hours at {options.speed:g} times "
        f"their speed, {options.pollers} pollers and one page"
    )
    stop = threading.Event()
    pollers = [Poller(place, site) for _ in range(options.pollers)]
    share = max(1, options.pollers // 10)
    groups = [pollers[first : first + share] for first in range(0, len(pollers), share)]
    threads = [threading.Thread(target=poll, args=(group, stop)) for group in groups]
    complaints: list[str] = []
    with sync_playwright() as playwright:
        quiet = [
            "--no-sandbox",
            "--disable-background-networking",
            "--disable-quic",
            "--disable-component-update",
        ]
        chrome = playwright.chromium.launch(executable_path=chromium, args=quiet)
        context = chrome.new_context(viewport={"width": 1280, "height": 800})
        name, value = place.cookie
        base = f"http://127.0.0.1:{site.port}"
        context.add_cookies([{"name": name, "value": value, "url": base}])
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(f"{base}{place.path}?run={place.run.pk}")
        tools = context.new_cdp_session(page)

        def heap() -> float:
            tools.send("HeapProfiler.collectGarbage")
            return tools.send("Runtime.getHeapUsage")["usedSize"] / 2**20

        for thread in threads:
            thread.start()
        posts = post_all(site, place, options, lambda: page.wait_for_timeout(20), heap)
        page.wait_for_timeout(8000)
        stop.set()
        for thread in threads:
            thread.join()
        expected = wanted(place)
        seen = page.evaluate(
            "() => [EMhubLive.columns.id, EMhubLive.columns.series.particles, EMhubLive.columns.total]"
        )
        shown = page.locator("[data-counter=movies]").text_content()
        chrome.close()
    answers: Counter = sum((poller.answers for poller in pollers), Counter())
    for poller in pollers:
        poller.ask()
    lost = sum(len(expected.keys() - poller.rows.keys()) for poller in pollers)
    extra = sum(len(poller.rows.keys() - expected.keys()) for poller in pollers)
    stale = sum(
        1
        for poller in pollers
        for pk, value in poller.rows.items()
        if pk in expected and value != expected[pk]
    )
    doubled = sum(poller.doubled for poller in pollers)
    on_page = dict(zip(seen[0], seen[1], strict=True))
    page_wrong = (
        len(expected.keys() ^ on_page.keys())
        + sum(on_page[pk] != value for pk, value in expected.items() if pk in on_page)
        + len(seen[0])
        - len(set(seen[0]))
    )
    print(f"  posts: {posts:,}; answers to pollers: {dict(answers)}")
    print(f"  pollers: {lost} lost, {doubled} doubled, {extra} unknown, {stale} with an old value")
    print(
        f"  page: {len(on_page):,} of {len(expected):,} micrographs, {page_wrong} wrong; it counts {shown} movies"
    )
    print(f"  complaints of the page: {complaints or 'none'}")
    odd = [status for status in answers if status not in (200, 304, "no answer")]
    return bool(lost or doubled or extra or stale or page_wrong or complaints or odd)


def post_all(site: Site, place: Place, options, breathe, heap) -> int:
    """Post every movie when its time has come; answers how many posts that were."""
    from django.utils import timezone

    every = options.hours * 3600 / options.speed / options.micrographs
    start, began = timezone.now(), time.perf_counter()
    late: list[dict] = []
    posts, told = 0, 0.0
    middle = options.micrographs // 2
    client = site.client()
    for number in range(options.micrographs):
        while time.perf_counter() - began < number * every:
            breathe()
        _, micrograph = movie(number, options.micrographs, start, every)
        late.append({"name": micrograph["name"], "particles": micrograph.pop("particles")})
        batch = [micrograph] + ([late.pop(0)] if len(late) > PICKS_BEHIND else [])
        if number == middle:
            print(f"  stopping the server for {PAUSE} s")
            site.stop()
            end = time.perf_counter() + PAUSE
            while time.perf_counter() < end:
                breathe()
            site.start()
            client = site.client()
        client.must_post(f"/api/v1/runs/{place.run.pk}/micrographs/", orjson.dumps({"micrographs": batch}))
        posts += 1
        if number % 25 == 0:
            breathe()
        if time.perf_counter() - told > 45:
            told = time.perf_counter()
            resident = " + ".join(f"{megabytes(pid):.0f}" for pid in site.workers())
            print(f"  {number:>6,} micrographs: workers {resident} MB, page {heap():.1f} MB", flush=True)
    client.must_post(f"/api/v1/runs/{place.run.pk}/micrographs/", orjson.dumps({"micrographs": late}))
    resident = " + ".join(f"{megabytes(pid):.0f}" for pid in site.workers())
    print(f"  {options.micrographs:>6,} micrographs: workers {resident} MB, page {heap():.1f} MB", flush=True)
    return posts + 1


if __name__ == "__main__":
    main()
