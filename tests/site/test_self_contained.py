"""Everything is served by ourselves, and no page needs a script or handler written into its HTML.

A microscope's network often reaches nothing outside, and the Content-Security-Policy refuses inline code: a page
that has some would be broken in the browser alone, where no other test sees it.
"""

import re
from pathlib import Path

import pytest
from django.template import engines

ROOT = Path(__file__).resolve().parents[2]
TEMPLATES = sorted(
    path
    for folder in ("templates", "people", "microscopes", "bookings", "sessions_app", "preprocessing", "demo")
    for path in (ROOT / folder).rglob("*.html")
)
OURS = sorted(
    path for path in (ROOT / "static").rglob("*") if path.suffix in (".js", ".css", ".svg", ".html")
)

INLINE_SCRIPT = re.compile(
    r"<script(?![^>]*\bsrc\s*=)(?![^>]*\btype\s*=\s*[\"']application/(?:ld\+)?json)", re.I
)
HANDLER = re.compile(r"<[^>]*\s(on[a-z]+)\s*=", re.I)
JAVASCRIPT_LINK = re.compile(r"(?:href|src|action)\s*=\s*[\"']?\s*javascript:", re.I)
HX_CODE = re.compile(r"\shx-(?:on\b|on[:-]|vals\s*=\s*[\"']js:|vars\b)", re.I)
# What the browser would fetch by itself. A link that a person follows is no fetch.
FETCHED = re.compile(
    r"<(?:script|img|iframe|source|audio|video|embed|object|input)\b[^>]*?\b(?:src|data|poster|srcset)\s*=\s*[\"']?\s*"
    r"(?:https?:)?//|<link\b[^>]*?\bhref\s*=\s*[\"']?\s*(?:https?:)?//",
    re.I,
)
FETCHED_BY_CSS = re.compile(r"(?:url\(\s*[\"']?|@import\s+(?:url\()?\s*[\"']?)(?:https?:)?//", re.I)
FETCHED_BY_JS = re.compile(
    r"(?:fetch|importScripts|import|Worker|EventSource|WebSocket|open)\s*\(\s*[\"'`](?:https?:|wss?:)?//"
    r"|\bfrom\s+[\"'](?:https?:)?//|\.src\s*=\s*[\"'`](?:https?:)?//",
    re.I,
)


def found(patterns, text):
    # Template tags may hold a > of their own, and would end an element too early.
    text = re.sub(r"\{#.*?#\}|\{% comment.*?endcomment %\}", "", text, flags=re.S)
    text = re.sub(r"\{%.*?%\}|\{\{.*?\}\}", "x", text, flags=re.S)
    return [match.group(0)[:120] for pattern in patterns for match in pattern.finditer(text)]


def name(path):
    return str(path.relative_to(ROOT))


def test_there_is_something_to_look_at():
    assert TEMPLATES
    assert OURS


@pytest.mark.parametrize("path", TEMPLATES, ids=name)
def test_a_template_has_no_inline_code_and_fetches_from_nowhere_else(path):
    patterns = [INLINE_SCRIPT, HANDLER, JAVASCRIPT_LINK, HX_CODE, FETCHED, FETCHED_BY_CSS]
    assert not found(patterns, path.read_text())


@pytest.mark.parametrize("path", OURS, ids=name)
def test_our_own_files_fetch_from_nowhere_else(path):
    assert not found([FETCHED, FETCHED_BY_CSS, FETCHED_BY_JS], path.read_text())


@pytest.mark.parametrize("path", TEMPLATES, ids=name)
def test_a_template_can_be_read(path):
    engines["django"].engine.from_string(path.read_text())


@pytest.mark.parametrize(
    "html",
    [
        "<script>alert(1)</script>",
        '<button class="a"\n onclick="go()">',
        '<a href="javascript:go()">',
        '<div hx-on::after-request="go()">',
        "<div hx-vals='js:{a: 1}'>",
        '<script src="https://example.org/a.js"></script>',
        '<link rel="stylesheet" href="//example.org/a.css">',
        '<img alt="" src="http://example.org/a.png">',
        "<style>@import url(https://example.org/a.css)</style>",
        '<div style="background: url(//example.org/a.png)">',
        '<a class="{% if a > b %}x{% endif %}" onclick="go()">',
    ],
)
def test_what_these_tests_would_find(html):
    assert found([INLINE_SCRIPT, HANDLER, JAVASCRIPT_LINK, HX_CODE, FETCHED, FETCHED_BY_CSS], html)


@pytest.mark.parametrize(
    "html",
    [
        '<script src="{% static "a.js" %}" defer></script>',
        '<script type="application/json" id="x">{}</script>',
        '<a href="https://example.org/manual">manual</a>',
        '<p data-only="1" content="on = off">',
        "{# <script>gone</script> #}",
    ],
)
def test_what_is_fine(html):
    assert not found([INLINE_SCRIPT, HANDLER, JAVASCRIPT_LINK, HX_CODE, FETCHED, FETCHED_BY_CSS], html)


@pytest.mark.django_db
def test_the_policy_is_sent(client):
    policy = client.get("/health/")["Content-Security-Policy"]
    directives = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    assert directives["script-src"] == "'self'"
    assert directives["default-src"] == "'self'"
    assert directives["object-src"] == "'none'"
    assert not re.search(r"https?:|\*", policy)
