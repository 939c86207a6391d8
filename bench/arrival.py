"""How long a posted micrograph takes to be on an open live page, in a real Chromium.

    .venv/bin/python -m bench.arrival [--posts 40] [--micrographs 500]

A server (gunicorn as `make serve` starts it, SQLite in a temporary folder) with one running session of so many
micrographs; a page that is open on it; posts at random moments, each timed from before its request is sent to the
moment the page's own counter shows it. The goal is two seconds.
"""

import argparse
import os
import random
import secrets
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.machine import describe

ROOT = Path(__file__).resolve().parent.parent

# Noted by the page itself, on the clock that all processes of this machine share.
WATCH = """
() => {
  const counter = document.querySelector("[data-counter=movies]");
  window.arrivals = {};
  new MutationObserver(() => { window.arrivals[counter.textContent.replace(/\\D/g, "")] ??= Date.now(); })
    .observe(counter, {childList: true, characterData: true, subtree: true});
}
"""


def prepare(micrographs: int) -> dict:
    """The facility of bench.facility and a way in for browser and pipeline (in the server's environment)."""
    import django

    django.setup()
    from django.conf import settings
    from django.core.management import call_command
    from django.test import Client

    from bench.facility import build
    from microscopes.tokens import pipeline_token_create
    from people.models import User
    from preprocessing.models import ProcessingRun

    call_command("migrate", verbosity=0)
    call_command("collectstatic", interactive=False, verbosity=0)
    names = build(100, micrographs=micrographs)
    client = Client()
    client.force_login(User.objects.get(username=names["user"]))
    token = pipeline_token_create(name="bench", all_microscopes=True)
    return {
        "cookie": (settings.SESSION_COOKIE_NAME, client.cookies[settings.SESSION_COOKIE_NAME].value),
        "key": token[1],
        "session": names["session"],
        "run": ProcessingRun.objects.get().pk,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--posts", type=int, default=40)
    parser.add_argument("--micrographs", type=int, default=500)
    options = parser.parse_args()
    chromium = next(filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome"])), None)
    if chromium is None:
        raise SystemExit("No Chromium on PATH.")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {
            "DJANGO_SETTINGS_MODULE": "emhub_site.settings",
            "EMHUB_DATA_DIR": folder,
            "SECRET_KEY": secrets.token_urlsafe(40),
            "PORT": str(port),
            "LOG_LEVEL": "ERROR",
            "DJANGO_ALLOW_ASYNC_UNSAFE": "true",
        }
        os.environ.pop("DATABASE_URL", None)
        site = prepare(options.micrographs)
        server = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", "-c", "emhub_site/gunicorn.py"],
            cwd=ROOT,
            stderr=subprocess.DEVNULL,
        )
        try:
            seconds = measure(f"http://127.0.0.1:{port}", site, chromium, options)
        finally:
            server.terminate()
            server.wait()
    seconds.sort()
    print(describe())
    print(
        f"{options.posts} posts to a run of {options.micrographs:,} micrographs, SQLite, gunicorn 2 x 4 threads"
    )
    print(
        f"on the open page after: median {statistics.median(seconds):.2f} s, "
        f"p95 {seconds[int(0.95 * len(seconds))]:.2f} s, longest {seconds[-1]:.2f} s"
    )


def measure(base: str, site: dict, chromium: str, options) -> list[float]:
    import requests
    from playwright.sync_api import sync_playwright

    http = requests.Session()
    http.trust_env = False
    http.headers["Authorization"] = f"Token {site['key']}"
    for _ in range(100):
        try:
            if http.get(f"{base}/health/", timeout=5).ok:
                break
        except requests.ConnectionError:
            time.sleep(0.2)
    sent = {}
    with sync_playwright() as playwright:
        quiet = [
            "--no-sandbox",
            "--disable-background-networking",
            "--disable-quic",
            "--disable-component-update",
        ]
        browser = playwright.chromium.launch(executable_path=chromium, args=quiet)
        context = browser.new_context()
        name, value = site["cookie"]
        context.add_cookies([{"name": name, "value": value, "url": base}])
        page = context.new_page()
        page.goto(f"{base}/sessions/{site['session']}/live/")
        page.wait_for_timeout(2000)
        page.evaluate(WATCH)
        shown = int(page.locator("[data-counter=movies]").text_content().replace(",", ""))
        for number in range(options.posts):
            page.wait_for_timeout(random.uniform(500, 2500))
            movie = {"name": f"Movies/arrival_{number:04}.tiff", "ctf_resolution": 3.4, "defocus_u": 12000}
            moment = time.time()
            answer = http.post(
                f"{base}/api/v1/runs/{site['run']}/micrographs/", json={"micrographs": [movie]}, timeout=30
            )
            answer.raise_for_status()
            sent[shown + number + 1] = moment
        page.wait_for_timeout(5000)
        arrivals = {int(count): at / 1000 for count, at in page.evaluate("() => window.arrivals").items()}
        browser.close()
    # Two posts between two polls arrive as one: the earlier one is there when the later one is.
    return [
        min(at for count, at in arrivals.items() if count >= number) - moment
        for number, moment in sent.items()
    ]


if __name__ == "__main__":
    main()
