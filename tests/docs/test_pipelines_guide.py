"""The commands of docs/pipelines.md do what the page says, run by a shell against a real server."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from preprocessing.models import Micrograph, ProcessingRun
from tests.factories import SessionFactory, make_token

GUIDE = Path(__file__).parents[2] / "docs" / "pipelines.md"


@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif(not shutil.which("curl"), reason="no curl on PATH")
def test_the_walk_from_token_to_picture(live_server, tmp_path):
    session = SessionFactory(name="krios1-20261123-01")
    _, key = make_token(session.microscope)
    Image.new("L", (64, 64), 128).save(tmp_path / "thumbnail.png")
    script = "\n".join(re.findall(r"^```sh\n(.*?)^```", GUIDE.read_text(), re.DOTALL | re.MULTILINE))
    assert script.count("curl ") == 8

    for attempt in ("first", "again"):  # Safe to send again: the second walk must leave the same.
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=tmp_path,
            env={
                **os.environ,
                "EMHUB": live_server.url,
                "SESSION": session.name,
                "EMHUB_TOKEN": key,
                "no_proxy": "*",
            },
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, (attempt, done.stdout, done.stderr)

        run = ProcessingRun.objects.get()
        assert (run.session, run.status, run.pixel_size) == (session, "finished", 0.83)
        assert (run.micrographs, run.ctf_estimated, run.picked, run.particles, run.classes) == (1, 1, 1, 2, 1)
        micrograph = Micrograph.objects.get()
        assert micrograph.ctf_resolution == 3.4
        assert micrograph.micrograph_image
        assert run.events.get().text == "First micrograph done."
    assert '"median":3.4' in done.stdout
