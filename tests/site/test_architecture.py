"""The house stands as designed: people <- microscopes <- bookings <- sessions_app <- preprocessing."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FLOORS = ["people", "microscopes", "bookings", "sessions_app", "preprocessing"]
ABOVE = ["emhub_site", "demo", "tests", "bench", "agent"]


def imported(source: str, package: str) -> set[str]:
    """The first words of everything that the source imports, wherever in the file and however."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(package if node.level else node.module.partition(".")[0])
        elif (
            isinstance(node, ast.Call)
            and getattr(node.func, "id", getattr(node.func, "attr", ""))
            in ("import_module", "__import__", "get_model")
            and node.args
            and isinstance(node.args[0], ast.Constant)
            and isinstance(node.args[0].value, str)
        ):
            found.add(node.args[0].value.partition(".")[0])
    return found


def sources(app: str) -> list[Path]:
    # Migrations are made by Django and depend on each other both ways.
    return [path for path in sorted((ROOT / app).rglob("*.py")) if "migrations" not in path.parts]


@pytest.mark.parametrize("app", FLOORS)
def test_no_app_imports_one_above_it(app):
    forbidden = set(FLOORS[FLOORS.index(app) + 1 :] + ABOVE)
    paths = sources(app)
    assert paths
    wrong = {
        str(path.relative_to(ROOT)): sorted(found)
        for path in paths
        if (found := imported(path.read_text(encoding="utf-8"), app) & forbidden)
    }
    assert wrong == {}


def test_the_site_imports_no_demo():
    wrong = [
        path.name for path in sources("emhub_site") if "demo" in imported(path.read_text(), "emhub_site")
    ]
    assert wrong == []


@pytest.mark.parametrize(
    "source",
    [
        "import sessions_app.models",
        "from sessions_app import models",
        "def f():\n    from sessions_app.models import Session",
        "import importlib\nimportlib.import_module('sessions_app.models')",
        "from django.apps import apps\napps.get_model('sessions_app.Session')",
    ],
)
def test_every_way_of_importing_is_seen(source):
    assert "sessions_app" in imported(source, "bookings")
