import shutil
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


@pytest.fixture
def relion31_project(relion31, tmp_path):
    """Those files put where their pipeline says they were."""
    root = tmp_path / "relion31"
    for name, place in (
        ("default_pipeline.star", ""),
        ("corrected_micrographs.star", "MotionCorr/job002"),
        ("micrographs_ctf.star", "CtfFind/job003"),
        ("autopick.star", "AutoPick/job004"),
        ("job.star", "AutoPick/job004"),
        ("20170629_00049_frameImage_autopick.star", "AutoPick/job004/Movies"),
        ("relion5_job002_job.star", "MotionCorr/job002"),
        *((f"run_it025_{end}.star", "Class2D/job008") for end in ("data", "model", "optimiser", "sampling")),
    ):
        (root / place).mkdir(parents=True, exist_ok=True)
        shutil.copy(relion31 / name, root / place / ("job.star" if name.endswith("_job.star") else name))
    return root


def _present(name):
    folder = DATA / name
    if not folder.is_dir():
        pytest.skip(f"the real files of {name} are not on this machine")
    return folder
