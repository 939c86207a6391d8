"""Take the pictures of docs/pictures anew, from the demo: ``make screenshots``.

Starts the demo in a temporary data folder, waits until its live session has a few dozen micrographs and 2D classes,
and photographs the main pages at desktop and phone width, light and dark. Needs an installed Chromium.
"""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parent.parent
PICTURES = ROOT / "docs" / "pictures"
PORT = 8391
BASE = f"http://127.0.0.1:{PORT}"
USER, PASSWORD = "admin", "cryo-em-demo"
WIDTHS = {"desktop": (1280, 860), "phone": (390, 844)}
MICROGRAPHS = 70  # at which the hourly rate is known too
PATIENCE = 900  # s until the demo has enough to show


def chromium():
    names = [os.environ.get("CHROMIUM", ""), "chromium", "chromium-browser", "google-chrome"]
    found = next(filter(None, map(shutil.which, filter(None, names))), None)
    return found or sys.exit("No Chromium on PATH: install it, or name it with CHROMIUM=.")


def wait_for_site():
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for _ in range(180):
        try:
            opener.open(f"{BASE}/health/", timeout=2)
            return
        except OSError:
            time.sleep(1)
    sys.exit("The demo did not start.")


def log_in(context):
    page = context.new_page()
    page.goto(f"{BASE}/people/login/")
    page.fill("input[name=username]", USER)
    page.fill("input[name=password]", PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_url(f"{BASE}/")
    return page


def live_session(page):
    """The name of the running session, once it has enough to show."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        answer = page.request.get(f"{BASE}/api/v1/sessions/?status=active")
        for row in json.loads(answer.body())["results"]:
            summary = json.loads(page.request.get(f"{BASE}/api/v1/sessions/{row['name']}/summary/").body())
            if any(run["ctf_estimated"] >= MICROGRAPHS and run["classes"] for run in summary["runs"]):
                return row["name"]
        time.sleep(2)  # Less than the server keeps a connection that says nothing.
    sys.exit("The demo's live session did not grow.")


def save(page, name):
    """As WebP: a fraction of a PNG's size, and colours stay what they mean."""
    image = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    image.save(PICTURES / f"{name}.webp", quality=88, method=6)
    print(f"docs/pictures/{name}.webp")


def photograph(browser):
    session = None
    for device, (width, height) in WIDTHS.items():
        for theme in ("light", "dark"):
            size = {"width": width, "height": height}
            context = browser.new_context(viewport=size, color_scheme=theme, locale="en-GB")
            page = log_in(context)
            session = session or live_session(page)
            pages = {
                "dashboard": "/",
                "sessions": "/sessions/",
                "session": f"/sessions/{session}/",
                "download": f"/sessions/{session}/data/",
                "live": f"/sessions/{session}/live/",
                "micrographs": f"/sessions/{session}/micrographs/",
                "statistics": "/statistics/",
            }
            for name, path in pages.items():
                page.goto(BASE + path)
                page.wait_for_load_state("networkidle") if name != "live" else page.wait_for_timeout(4000)
                if name == "live" and device == "desktop":
                    page.set_viewport_size({"width": width, "height": 1500})
                    page.wait_for_timeout(1500)
                if name == "micrographs":
                    # The newest may wait for its picture still.
                    page.locator(".browse-tile:has(img)").first.click()
                    page.locator("[data-part=picture] img").wait_for()
                    page.wait_for_timeout(1000)
                    # On a phone the one stands above the many, further down.
                    top = "[data-part=one]" if device == "phone" else "#browse"
                    page.evaluate("top => document.querySelector(top).scrollIntoView()", top)
                save(page, f"{name}-{device}-{theme}")
                page.set_viewport_size(size)
            page.goto(BASE)
            page.get_by_text("New session").first.click()
            page.locator(".modal").get_by_text("Yes").first.click()
            page.locator(".modal input[name=pixel_size]").wait_for()
            page.wait_for_timeout(800)
            save(page, f"dialog-{device}-{theme}")
            context.close()


def main():
    executable = chromium()
    PICTURES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        demo = subprocess.Popen(
            [sys.executable, "tools/run.py", "--demo"],
            cwd=ROOT,
            env={**os.environ, "EMHUB_DATA_DIR": folder, "PORT": str(PORT), "EMHUB_ENV_FILE": os.devnull},
        )
        try:
            wait_for_site()
            with sync_playwright() as playwright:
                flags = ["--disable-background-networking", "--disable-quic"]
                flags += ["--no-sandbox"] if os.geteuid() == 0 else []
                browser = playwright.chromium.launch(executable_path=executable, args=flags)
                photograph(browser)
                browser.close()
        finally:
            demo.send_signal(signal.SIGINT)
            demo.wait()


if __name__ == "__main__":
    main()
