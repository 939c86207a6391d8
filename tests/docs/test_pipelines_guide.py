"""The commands and scripts of docs/pipelines.md do what the page says, run as they stand against a real server."""

import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from preprocessing.models import Exposure, Micrograph, ProcessingRun
from tests.agent import project
from tests.factories import SessionFactory, make_token

GUIDE = Path(__file__).parents[2] / "docs" / "pipelines.md"


def blocks(language):
    """The guide's pieces in this language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```", GUIDE.read_text(), re.DOTALL | re.MULTILINE)


@pytest.fixture
def session():
    return SessionFactory(name="krios1-20261123-01")


@pytest.fixture
def run_script(live_server, session, tmp_path):
    """Runs a command in `tmp_path` with the address, the session and a token in its environment."""
    _, key = make_token(session.microscope)

    def run(*command, **more):
        env = os.environ | {
            "EMHUB": live_server.url,
            "SESSION": session.name,
            "EMHUB_TOKEN": key,
            "no_proxy": "*",
            # Where the agent was installed beside this Python.
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        return subprocess.run(
            command, cwd=tmp_path, env=env | more, capture_output=True, text=True, timeout=120
        )

    return run


@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif(not shutil.which("curl"), reason="no curl on PATH")
def test_the_walk_from_token_to_picture(session, run_script, tmp_path):
    Image.new("L", (64, 64), 128).save(tmp_path / "thumbnail.png")
    script = "\n".join(blocks("sh"))
    assert script.count("curl ") == 8

    for attempt in ("first", "again"):  # Safe to send again: the second walk must leave the same.
        done = run_script("bash", "-euo", "pipefail", "-c", script)
        assert done.returncode == 0, (attempt, done.stdout, done.stderr)

        run = ProcessingRun.objects.get()
        assert (run.session, run.status, run.pixel_size) == (session, "finished", 0.83)
        assert (run.micrographs, run.ctf_estimated, run.picked, run.particles, run.classes) == (1, 1, 1, 2, 1)
        micrograph = Micrograph.objects.get()
        assert micrograph.ctf_resolution == 3.4
        assert micrograph.micrograph_image
        assert run.events.get().text == "First micrograph done."
    assert '"median":3.4' in done.stdout


@pytest.mark.django_db(transaction=True)
class TestPython:
    def test_a_pipelines_end(self, session, run_script):
        script = blocks("python")[0]
        done = run_script(sys.executable, "-c", script)
        assert done.returncode == 0, done.stderr
        assert done.stdout == "30 created, 0 updated, 0 unchanged\n"
        run = ProcessingRun.objects.get()
        assert (run.session, run.status, run.micrographs, run.ctf_estimated) == (session, "finished", 30, 30)
        assert run.events.get().text == "30 micrographs done."
        assert run_script(sys.executable, "-c", script).stdout == "0 created, 0 updated, 30 unchanged\n"

    def test_what_is_refused_is_told_by_name(self, session, run_script):
        wrong = blocks("python")[0].replace('"ctf_resolution": 3.4', '"ctf_resolution": -1.0')
        done = run_script(sys.executable, "-c", wrong)
        assert done.returncode == 1
        assert "Movies/FoilHole_10_Data" in done.stderr
        assert "ctf_resolution" in done.stderr
        assert not Micrograph.objects.exists()

    def test_a_wrong_token_is_told_in_words(self, session, run_script):
        done = run_script(sys.executable, "-c", blocks("python")[0], EMHUB_TOKEN="0" * 40)
        assert done.returncode == 1
        assert "Check the token" in done.stderr


@pytest.mark.django_db(transaction=True)
class TestRelionHook:
    def hook(self, tmp_path):
        root = tmp_path / "project"
        project.write(root, project.files())
        job = root / "External" / "job020"
        job.mkdir(parents=True)
        script = tmp_path / "report_to_emhub"
        script.write_text(blocks("bash")[0])
        script.chmod(0o755)
        call = f"cd project && ../report_to_emhub --in_mics a.star --o {job.relative_to(root)}/ --j 1"
        return job, ["bash", "-c", call]

    def test_a_round_of_a_scheme_is_reported(self, session, run_script, tmp_path):
        job, call = self.hook(tmp_path)
        done = run_script(*call)
        assert (done.returncode, done.stderr) == (0, "")
        assert (job / "RELION_JOB_EXIT_SUCCESS").exists()
        assert "micrographs: 6 created" in (job / "emhub.log").read_text()
        run = ProcessingRun.objects.get()
        assert (run.session, run.software, run.micrographs) == (session, "RELION", 6)

    def test_a_site_that_refuses_does_not_stop_the_scheme(self, session, run_script, tmp_path):
        job, call = self.hook(tmp_path)
        done = run_script(*call, EMHUB_TOKEN="0" * 40)
        assert done.returncode == 0
        assert "EMhub was not told" in done.stderr
        assert (job / "RELION_JOB_EXIT_SUCCESS").exists()
        assert not ProcessingRun.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_the_cryosparc_script_posts_what_was_exported(session, run_script, tmp_path):
    rows = [
        (
            1234567890123456789,
            b">J2/motioncorrected/1234567890123456789_FoilHole_1_Data_2_3_patch_aligned_doseweighted.mrc",
            0.83,
            14210.5,
            13980.25,
            math.pi / 4,
            0.0,
            3.5,
        ),
        (
            223456789012345678,
            b">J2/motioncorrected/000223456789012345678_FoilHole_4_Data_5_6_patch_aligned_doseweighted.mrc",
            0.83,
            9000.0,
            8900.0,
            3.5,
            math.pi / 2,
            math.nan,
        ),
    ]
    kinds = [
        ("uid", "<u8"),
        ("micrograph_blob/path", "S120"),
        *(
            (column, "<f4")
            for column in (
                "micrograph_blob/psize_A",
                "ctf/df1_A",
                "ctf/df2_A",
                "ctf/df_angle_rad",
                "ctf/phase_shift_rad",
                "ctf/ctf_fit_to_A",
            )
        ),
    ]
    with (tmp_path / "exposures_exported.cs").open("wb") as file:
        np.save(file, np.array(rows, dtype=kinds))
    done = run_script(sys.executable, "-c", blocks("python")[1], "exposures_exported.cs")
    assert done.returncode == 0, done.stderr
    one, other = Micrograph.objects.order_by("defocus_u").select_related("exposure")[::-1]
    assert [one.exposure.identity, other.exposure.identity] == [
        "FoilHole_1_Data_2_3",
        "FoilHole_4_Data_5_6",
    ]
    assert (one.defocus_u, one.defocus_v, one.ctf_resolution) == (14210.5, 13980.25, 3.5)
    assert one.defocus_angle == pytest.approx(45)
    assert one.ice_thickness is None
    assert other.phase_shift == pytest.approx(90)
    assert other.ctf_resolution is None
    assert ProcessingRun.objects.get().pixel_size == pytest.approx(0.83)
    assert Exposure.objects.count() == 2
