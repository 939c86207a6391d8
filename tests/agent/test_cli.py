import ast
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import emhub_agent
import pytest
from emhub_agent.cli import main

from . import project
from .site import SESSION, TOKEN, Site


def command(site, root, *more, session=SESSION):
    return ["relion", str(root), "--url", site.url, "--session", session, *more]


@pytest.fixture
def root(tmp_path):
    return project.write(tmp_path / "relion", project.files(status="Succeeded"))


def start(site, root, *more, **options):
    return subprocess.Popen(
        [sys.executable, "-m", "emhub_agent", *command(site, root, *more)],
        env={**os.environ, "EMHUB_TOKEN": TOKEN},
        text=True,
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
    )


def wait_for(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def said_until(agent, words):
    """Everything the agent logs up to a line with these words."""
    lines = []
    for line in agent.stderr:
        lines.append(line)
        if words in line:
            return lines
    raise AssertionError("".join(lines))


def test_once_prints_what_it_did_and_a_second_time_that_nothing_changed(site, root, capsys):
    assert main(command(site, root, "--once")) == 0
    assert "micrographs: 6 created, 0 updated, 0 unchanged" in capsys.readouterr().out
    assert main(command(site, root, "--once")) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "micrographs: 0 created, 0 updated, 6 unchanged",
        "classes:     0 created, 0 updated, 3 unchanged",
        "images:      0 created, 0 updated, 15 unchanged",
        "events:      0 created, 0 updated, 0 unchanged",
    ]


def test_refused_items_show_in_the_count_and_the_exit_code(site, root, capsys):
    site.refused_names = {project.movie(3)}
    assert main(command(site, root, "--once")) == 1
    captured = capsys.readouterr()
    assert "micrographs: 5 created, 0 updated, 0 unchanged, 1 refused" in captured.out
    assert f"refused {project.movie(3)}: name: not a name" in captured.err


def said(capsys):
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("emhub-agent: ")]
    assert len(lines) == 1
    return lines[0]


def test_a_missing_token_is_said(site, root, capsys, monkeypatch):
    monkeypatch.delenv("EMHUB_TOKEN")
    assert main(command(site, root)) == 2
    assert "EMHUB_TOKEN" in said(capsys)


def test_a_wrong_folder_is_said(site, tmp_path, capsys):
    assert main(command(site, tmp_path)) == 3
    assert "not a RELION project" in said(capsys)


def test_a_refused_token_is_said_and_not_tried_again(site, root, capsys):
    site.is_refusing_token = True
    assert main(command(site, root)) == 4
    assert "refused the token" in said(capsys)
    assert site.asked == 1


def test_an_unknown_session_is_said(site, root, capsys):
    assert main(command(site, root, session="nowhere")) == 5
    assert "no session nowhere" in said(capsys)


def test_a_site_that_is_away_ends_once(site, root, capsys):
    site.stop()
    assert main(command(site, root, "--once")) == 6
    assert "cannot be reached" in said(capsys)
    site.start()


def test_an_archived_session_is_said(site, root, capsys):
    site.is_archived = True
    assert main(command(site, root)) == 7
    assert "archived" in said(capsys)


@pytest.mark.parametrize("interval", ["0", "-1", "x", "nan"])
def test_a_wrong_interval_is_refused(site, root, interval, capsys):
    with pytest.raises(SystemExit) as end:
        main(command(site, root, "--interval", interval))
    assert end.value.code == 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_watching_sends_what_grows_and_a_signal_ends_it_cleanly(site, tmp_path, number):
    made = project.files(count=2, images=False, iterations=())
    path = "CtfFind/job003/micrographs_ctf.star"
    data = made.pop(path)
    root = project.write(tmp_path, made)
    agent = start(site, root, "--interval", "0.1")
    wait_for(lambda: site.runs and len(site.runs[1].micrographs) == 2)
    project.write(root, {path: data})
    wait_for(lambda: all("defocus_u" in row for row in site.runs[1].micrographs.values()))
    agent.send_signal(number)
    _out, err = agent.communicate(timeout=10)
    assert agent.returncode == 0
    assert "Traceback" not in err
    assert "Stopped." in err


def test_a_site_that_is_away_is_waited_for_even_at_the_start(root):
    site = Site().start()
    site.stop()  # its port stays known
    agent = start(site, root, "--interval", "0.2")
    said_until(agent, "cannot be reached")
    site.start()
    try:
        said_until(agent, "The site answers again.")
        wait_for(lambda: site.runs and len(site.runs[1].images) == 15)
        site.stop()
        time.sleep(0.5)
        path = root / "CtfFind/job003/micrographs_ctf.star"
        path.write_bytes(path.read_bytes().replace(b"12000.000000", b"12001.000000"))
        site.start()
        wait_for(lambda: site.runs[1].micrographs[project.movie(1)]["defocus_u"] == 12001)
    finally:
        agent.terminate()
        _out, err = agent.communicate(timeout=10)
        site.stop()
    assert agent.returncode == 0
    assert err.count("cannot be reached") <= 1  # said once while it was away again, not at every attempt


def test_stopping_does_not_wait_for_a_site_that_is_away(root):
    site = Site().start()
    site.stop()
    agent = start(site, root)
    assert agent.stderr.readline(), "it ended without a word"
    agent.terminate()
    agent.communicate(timeout=5)
    assert agent.returncode == 0


def test_killed_and_started_again_nothing_is_lost_or_doubled(site, root):
    agent = start(site, root, "--interval", "0.1")
    wait_for(lambda: site.runs and site.runs[1].images)
    agent.kill()
    agent.communicate()
    assert main(command(site, root, "--once")) == 0
    [run] = site.runs.values()
    assert len(run.micrographs) == 6
    assert {identity: len(sent) for identity, sent in run.images.items() if len(sent) > 1} == {}
    assert len(run.images) == 15


def test_in_a_terminal_one_line_is_rewritten(site, root):
    ours, theirs = pty.openpty()
    agent = start(site, root, "--interval", "0.1", stderr=theirs)
    os.close(theirs)
    wait_for(lambda: site.runs and len(site.runs[1].images) == 15)
    time.sleep(0.5)
    agent.terminate()
    shown = b""
    try:
        while data := os.read(ours, 65536):
            shown += data
    except OSError:
        pass  # Linux ends a terminal whose other side is closed this way
    agent.communicate(timeout=10)
    os.close(ours)
    lines = shown.decode().split("\n")
    assert any(line.count("\r") > 2 and "6 micrographs new" in line for line in lines)
    assert len(lines) < 6


def test_without_a_terminal_lines_are_plain(site, root):
    agent = start(site, root, "--interval", "0.1")
    wait_for(lambda: site.runs and len(site.runs[1].images) == 15)
    time.sleep(0.5)
    agent.terminate()
    _, err = agent.communicate(timeout=10)
    assert "\r" not in err
    assert "Sent 6 micrographs, 3 classes" in err


def test_the_code_is_written_for_python_39():
    """Cluster images are old; the site's own Python would not notice newer syntax."""
    folder = Path(emhub_agent.__file__).parent
    modules = list(folder.rglob("*.py"))
    assert len(modules) > 8
    for module in modules:
        tree = ast.parse(module.read_text(), feature_version=(3, 9))
        imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        assert any(node.module == "__future__" for node in imports), module
        assert not any(isinstance(node, ast.Match) for node in ast.walk(tree)), module


def test_the_agent_needs_nothing_of_the_site():
    code = "import sys, emhub_agent.cli; print(sorted(sys.modules))"
    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/"
    ).stdout
    for name in ("django", "preprocessing", "gemmi"):
        assert f"'{name}'" not in shown
