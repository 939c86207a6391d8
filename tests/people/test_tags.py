"""{% load emhub %}: what templates write."""

import datetime

import pytest
from django.core.paginator import Paginator
from django.template import Context, Template
from django.test import RequestFactory
from django.utils import timezone
from django.utils.html import strip_tags

from bookings.models import Booking
from microscopes.models import Microscope
from people.models import User
from people.templatetags import emhub
from sessions_app.models import Session, SessionSummary


def render(source, address="/", **context):
    context.setdefault("request", RequestFactory().get(address))
    return Template("{% load emhub %}" + source).render(Context(context)).strip()


@pytest.mark.parametrize(
    "tag", ["num", "angstrom", "defocus", "bytes", "duration", "ago", "moment", "person"]
)
def test_unknown_is_a_dash_that_says_why(tag):
    html = render(f"{{% {tag} value why=why %}}", value=None, why="Nothing <yet>")
    assert html == '<span class="unknown" title="Nothing &lt;yet&gt;">–</span>'


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{% num 12480 %}", "12,480"),
        ("{% num 0.83219 'Å' digits=3 %}", "0.832\u00a0Å"),
        ("{% num 42 '%' %}", "42%"),
        ("{% angstrom 3.44 %}", "3.4\u00a0Å"),
        ("{% defocus 14210.5 %}", "1.42\u00a0µm"),
        ("{% bytes 1800000000000 %}", "1.8\u00a0TB"),
    ],
)
def test_values_stand_with_their_unit(source, text):
    html = render(source)
    assert strip_tags(html) == text
    assert "unit" in html or text.isascii()


def test_the_exact_size_is_in_the_title():
    assert 'title="1,800,000,000,123 bytes"' in render("{% bytes 1800000000123 %}")


def test_relative_times_carry_the_exact_one_and_go_on_ageing():
    moment = timezone.now() - datetime.timedelta(minutes=4)
    html = render("{% ago moment %}", moment=moment)
    assert "4 min ago" in html
    assert "data-relative" in html
    assert f'title="{timezone.localtime(moment):%a}' in html
    assert timezone.localtime(moment).isoformat(timespec="seconds") in html


def test_names_are_escaped():
    person = User(first_name="<b>", last_name="x", username="x")
    scope = Microscope(name="<i>", colour="#0072B2")
    html = render("{% person person %}{% scope scope %}{% crumbs person %}", person=person, scope=scope)
    assert "<b>" not in html
    assert "<i>" not in html


@pytest.mark.parametrize(
    ("kind", "choices"),
    [
        ("session", Session.Status),
        ("processing", SessionSummary.Processing),
        ("microscope", Microscope.Status),
        ("booking", Booking.Kind),
    ],
)
def test_every_state_has_an_icon_and_the_models_word(kind, choices):
    assert set(choices.values) <= set(emhub.STATES[kind])
    for value, word in choices.choices:
        html = render("{% badge kind value %}{% state kind value %}", kind=kind, value=value)
        assert html.count("bi bi-") == 2
        assert strip_tags(html).split() == [*word.split(), *word.split()]


def test_a_state_that_nobody_foresaw_is_still_a_word():
    assert "sleeping" in render("{% badge 'session' 'sleeping' %}")


def test_crumbs_link_the_way_and_name_the_place():
    html = render("{% crumbs 'Sessions' 'sessions:list' 'S-1' '/sessions/S-1/' 'Data' %}")
    assert '<a href="/sessions/">Sessions</a>' in html
    assert '<a href="/sessions/S-1/">S-1</a>' in html
    assert '<li class="breadcrumb-item active" aria-current="page">Data</li>' in html


def test_a_note_says_its_level_by_icon_too():
    html = render("{% note 'warning' %}Three <b>days</b> left{% endnote %}")
    assert "note-warning" in html
    assert "bi-exclamation-triangle" in html
    assert "<b>days</b>" in html


def test_sort_headers_keep_the_filters_and_turn_around():
    source = "{% sort_header 'start' 'Start' default='-start' %}{% sort_header 'name' 'Name' %}"
    html = render(source, "/?lab=3&page=4")
    assert 'aria-sort="descending"' in html
    assert 'href="?lab=3&amp;sort=start"' in html
    assert 'href="?lab=3&amp;sort=name"' in html
    assert 'href="?sort=-name"' in render(source, "/?sort=name")


def test_pages_keep_the_filters():
    page = Paginator(range(1234), 50).page(2)
    html = render("{% pagination page 'sessions' %}", "/?lab=3&page=2", page=page)
    assert "51 to 100 of 1,234 sessions" in strip_tags(html)
    assert 'rel="next" href="?lab=3&amp;page=3"' in html
    assert 'rel="prev" href="?lab=3&amp;page=1"' in html
    assert "?lab=3&amp;page=25" in html
    assert html.count('aria-current="page"') == 1


def test_one_page_needs_no_pager():
    assert render("{% pagination page %}", page=Paginator(range(9), 50).page(1)) == ""


def test_an_empty_place_says_what_to_do():
    html = render("{% empty_state 'No sessions' 'Book first.' url='/bookings/new/' action='Book' %}")
    assert "<h2>No sessions</h2>" in html
    assert '<a class="btn btn-primary" href="/bookings/new/">Book</a>' in html


@pytest.mark.parametrize(
    "evil",
    [
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "[click](javascript:alert(1))",
        "<a href='https://x.org' onclick='alert(1)'>x</a>",
        "<iframe src='https://x.org'></iframe>",
        "<style>body{display:none}</style>",
        "![pixel](https://tracker.example.org/p.png)",
    ],
)
def test_markdown_runs_nothing_and_loads_nothing(evil):
    html = render("{{ text|markdown }}", text=evil)
    for forbidden in ("<script", "<img", "javascript:", "onclick", "<iframe", "<style", "display:none"):
        assert forbidden not in html


def test_markdown_is_shown():
    html = render(
        "{{ text|markdown }}", text="# Data\n\n- `rsync`\n\n| a |\n|---|\n| b |\n\n[x](https://x.org)"
    )
    for part in ("<h1>Data</h1>", "<code>rsync</code>", "<td>b</td>", 'href="https://x.org"', "noopener"):
        assert part in html
