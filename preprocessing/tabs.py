"""The row of tabs of a session's pages: each tab only where there is something behind it."""

from dataclasses import dataclass

from django.urls import NoReverseMatch, reverse

from preprocessing.models import Exposure


@dataclass(frozen=True)
class Tab:
    key: str
    label: str
    url: str
    active: bool


def address(name: str, session) -> str | None:
    """The page's address, None where the site has no such page."""
    try:
        return reverse(name, args=[session.name])
    except NoReverseMatch:
        return None


# Whoever sends grid squares sends them with the newest movies too.
_NEWEST = 100


def entries(session, active: str) -> list[Tab]:
    """The tabs of a session (with its summary) as far as its runs fill them; the `active` one is always there."""
    summary = session.summary
    found = [
        ("overview", "Overview", "sessions:detail", True),
        ("data", "Data Download", "sessions:data", True),
        ("live", "Live", "preprocessing:live", True),
        ("micrographs", "Micrographs", "preprocessing:micrographs", summary.micrographs > 0),
        ("classes", "Classes", "preprocessing:classes", summary.classes > 0),
        ("where", "Where", "preprocessing:where", summary.micrographs > 0 and _has_places(session)),
        ("runs", "Runs", "preprocessing:runs", summary.runs > 1),
        ("alerts", _with_count("Alerts", len(summary.alerts)), "preprocessing:alerts", True),
    ]
    return [
        Tab(key, label, url, key == active)
        for key, label, name, there in found
        if (there or key == active) and (url := address(name, session))
    ]


def _with_count(label: str, count: int) -> str:
    return f"{label} ({count})" if count else label


def _has_places(session) -> bool:
    """Whether grid squares are known of any of the newest exposures."""
    newest = (
        Exposure.objects.filter(session=session).order_by("-revision").values_list("grid_square", flat=True)
    )
    return any(newest[:_NEWEST])
