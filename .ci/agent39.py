"""The agent on the oldest Python it is for: every module imported, a project followed, a picture drawn.

Run by `.ci/run` with a Python 3.9 that finds what the agent needs, the agent and the project.
"""

import importlib
import os
import pkgutil
import struct
import sys
import tempfile
from pathlib import Path

import emhub_agent
from emhub_agent.cli import main
from emhub_agent.pictures import thumbnail

from bench.agent import grow, write_project
from tests.agent.site import SESSION, TOKEN, Site


def check():
    names = [found.name for found in pkgutil.walk_packages(emhub_agent.__path__, "emhub_agent.")]
    for name in names:
        if name != "emhub_agent.__main__":
            importlib.import_module(name)
    site = Site().start()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "relion"
        write_project(root, 20, 5)
        config = Path(folder) / "agent.toml"
        config.write_text(
            f'site = "{site.url}"\n[[watch]]\nprogram = "relion"\nplace = "{root}"\nsession = "{SESSION}"\n'
        )
        assert main(["check", str(config)]) == 0
        assert not site.runs
        assert main(["once", str(config)]) == 0
        grow(root, 20, 5, 5)
        assert main(["once", str(config)]) == 0
        (run,) = site.runs.values()
        assert len(run.micrographs) == 25
        assert all(len(row["coordinates"]) == 5 for row in run.micrographs.values())
        image = Path(folder) / "a.mrc"
        header = struct.pack("<4i", 64, 48, 1, 2).ljust(1024, b"\0")
        image.write_bytes(header + struct.pack("<3072f", *range(3072)))
        assert thumbnail(str(image))[1] in ("image/webp", "image/jpeg")
    site.stop()
    print(f"{len(names)} modules, a project followed and a picture drawn on Python {sys.version.split()[0]}")


os.environ["EMHUB_TOKEN"] = TOKEN
check()
