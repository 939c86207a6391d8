from pathlib import Path

import pytest

from .site import TOKEN, Site

DATA = Path(__file__).parents[2].parent / "shared" / "data" / "relion"


@pytest.fixture
def site(monkeypatch):
    monkeypatch.setenv("EMHUB_TOKEN", TOKEN)
    stand_in = Site().start()
    yield stand_in
    stand_in.stop()


@pytest.fixture(autouse=True)
def no_long_waits(monkeypatch):
    """Back off for milliseconds: what is tested is that it happens, not how long it takes."""
    from emhub_agent import client

    original = client.Client.__init__

    def quick(self, *arguments, **options):
        original(self, *arguments, **{"first_wait": 0.005, "longest_wait": 0.02, **options})

    monkeypatch.setattr(client.Client, "__init__", quick)


@pytest.fixture
def relion5():
    """A user's whole RELION 5 project."""
    return _present("sppractice-relion5-tutorial")


@pytest.fixture
def relion31():
    """Loose files of a 3.1/4 project."""
    return _present("3dem-em-testdata-relion31")


def _present(name):
    folder = DATA / name
    if not folder.is_dir():
        pytest.skip(f"the real files of {name} are not on this machine")
    return folder
