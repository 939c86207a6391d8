"""What browser tests share: pages of logged-in people that are watched for complaints, and screenshots.

Chromium itself is found and started by tests/conftest.py. A test asks for `logged_in`, a function that opens a new
browser context with the login cookie of a person (None: nobody) and answers its page::

    def test_something(logged_in, live_server, shot):
        page = logged_in(StaffFactory())
        page.goto(live_server.url + "/")
        shot(page, "dashboard")

Whatever a page complains of fails the test at its end: an exception in a script, something the Content Security
Policy refused, an error on the console, a request to another host. Answers that a test brings about itself (403, 404,
a connection cut) are no complaint; anything else expected is removed from `complaints`, a list.

`shot(page, name)` writes `name-desktop-light.png` and so on for 1280 and 390 pixels, light and dark, into the folder
that EMHUB_SHOTS names; without it nothing is written and nothing is waited for.
"""

import os
import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from django.conf import settings
from django.test import Client
from playwright.sync_api import expect

DESKTOP = {"width": 1280, "height": 800}
PHONE = {"width": 390, "height": 844}

# A machine that runs the rest of the suite beside the browser is slow now and then; a wrong page stays wrong.
expect.set_options(timeout=15_000)


@pytest.fixture
def complaints():
    """What the pages of this test complained of so far."""
    return []


@pytest.fixture
def watch(complaints, live_server):
    """Begins to note what a page complains of; `logged_in` does so by itself."""
    own = urlsplit(live_server.url).netloc

    def start(page):
        def console(message):
            # A refused or failed request is told by the browser too; tests look at the answers themselves.
            if message.type == "error" and not message.text.startswith("Failed to load resource"):
                complaints.append(f"console: {message.text}")

        def request(asked):
            address = urlsplit(asked.url)
            if address.scheme in ("http", "https", "ws", "wss") and address.netloc != own:
                complaints.append(f"request to another host: {asked.url}")

        page.on("pageerror", lambda error: complaints.append(f"script: {error}"))
        page.on("console", console)
        page.on("request", request)
        return page

    return start


@pytest.fixture
def logged_in(transactional_db, live_server, new_context, watch, complaints):
    """Makes a watched page of this person's; keywords are Playwright's for a context (viewport, color_scheme...)."""

    def make(person=None, **options):
        options = {"viewport": DESKTOP, "color_scheme": "light", "locale": "en-GB"} | options
        context = new_context(**options)
        context.set_default_timeout(10_000)
        if person is not None:
            client = Client()
            client.force_login(person)
            cookie = client.cookies[settings.SESSION_COOKIE_NAME]
            context.add_cookies(
                [{"name": settings.SESSION_COOKIE_NAME, "value": cookie.value, "url": live_server.url}]
            )
        return watch(context.new_page())

    yield make
    assert complaints == []


@pytest.fixture
def shot():
    """Writes pictures of a page for people to look at; afterwards the page is as it was."""
    folder = os.environ.get("EMHUB_SHOTS")

    def take(page, name, *, widths=("desktop", "phone"), themes=("light", "dark"), full_page=True):
        if not folder:
            return
        before = page.viewport_size
        for width in widths:
            page.set_viewport_size(DESKTOP if width == "desktop" else PHONE)
            for theme in themes:
                page.emulate_media(color_scheme=theme)
                page.wait_for_timeout(150)  # Charts draw anew.
                file = f"{re.sub('[^a-z0-9-]+', '-', name.lower())}-{width}-{theme}.png"
                page.screenshot(path=Path(folder) / file, full_page=full_page)
        page.set_viewport_size(before)
        page.emulate_media(color_scheme="light")

    return take
