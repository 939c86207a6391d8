"""Starting the site: what is in the way is said, and a facility's data is left alone."""

import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import prepare
import pytest
import run

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def listener():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken.getsockname()[1]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_a_taken_port_is_named_with_another_to_take(listener, capsys):
    with pytest.raises(SystemExit):
        run.need_port("127.0.0.1", listener, "run")
    said = capsys.readouterr().err
    assert f"Port {listener} on 127.0.0.1 is taken" in said
    another = int(re.search(r"make run PORT=(\d+)", said)[1])
    run.need_port("127.0.0.1", another, "run")


def test_an_address_of_another_machine_is_refused(capsys):
    with pytest.raises(SystemExit):
        run.need_port("192.0.2.1", 8000, "serve")
    assert "LISTEN=192.0.2.1 is no address of this machine" in capsys.readouterr().err


def test_a_data_folder_is_used_by_one_at_a_time(tmp_path, capsys):
    with run.lock(tmp_path) as held:
        held.write("process 7, http://127.0.0.1:8000")
        held.flush()
        with pytest.raises(SystemExit):
            run.lock(tmp_path)
    assert "in use (process 7, http://127.0.0.1:8000)" in capsys.readouterr().err
    run.lock(tmp_path).close()


def test_a_copy_of_the_database_is_whole_and_for_nobody_elses_eyes(tmp_path):
    path = tmp_path / "emhub.sqlite3"
    with sqlite3.connect(path) as source:
        source.execute("PRAGMA journal_mode=WAL")
        source.execute("CREATE TABLE t (n)")
        source.executemany("INSERT INTO t VALUES (?)", [(n,) for n in range(1000)])
    # Still open: its last rows are in the write-ahead log alone.
    copy = prepare.back_up(path, tmp_path / "backups")
    source.close()
    with sqlite3.connect(copy) as target:
        assert target.execute("SELECT count(*), sum(n) FROM t").fetchone() == (1000, 499500)
    target.close()
    assert copy.stat().st_mode & 0o777 == 0o600


@pytest.mark.django_db
def test_a_facilitys_own_server_is_not_migrated_behind_its_back(monkeypatch, capsys):
    from django.core import management
    from django.db import connection
    from django.db.migrations.executor import MigrationExecutor

    def refuse(*_, **__):
        raise AssertionError("it was migrated")

    monkeypatch.setattr(management, "call_command", refuse)
    settings = SimpleNamespace(EMBEDDED=False)
    prepare.migrate(connection, settings)
    monkeypatch.setattr(MigrationExecutor, "migration_plan", lambda self, targets: ["one", "two"])
    with pytest.raises(SystemExit):
        prepare.migrate(connection, settings)
    assert "2 migrations behind" in capsys.readouterr().err


@pytest.fixture
def serve(tmp_path):
    """Start tools/run.py with a data folder of its own; returns the process, its address and its log."""
    started = []

    def start(*arguments, **variables):
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
        port = free_port()
        log = tmp_path / f"log-{len(started)}"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "tools/run.py", *arguments],
                cwd=ROOT,
                env={
                    **kept,
                    "EMHUB_ENV_FILE": "/dev/null",
                    "EMHUB_DATA_DIR": str(tmp_path / "data"),
                    "PORT": str(port),
                    "WEB_CONCURRENCY": "1",
                    **variables,
                },
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        started.append(process)
        return process, f"http://127.0.0.1:{port}", log

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
            process.wait()


def wait_for(process, log, words, seconds=90):
    deadline = time.monotonic() + seconds
    while words not in log.read_text():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)


def children(parent, words):
    """Numbers of the processes that this one started and that have the words in their command line."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            is_child = folder.joinpath("stat").read_text().rpartition(")")[2].split()[1] == str(parent)
            if is_child and words in folder.joinpath("cmdline").read_text():
                found.append(int(folder.name))
        except OSError:
            continue  # It has ended meanwhile.
    return found


def test_the_site_is_served_with_hashed_files_and_stopped_whole(serve, tmp_path):
    process, url, log = serve()
    wait_for(process, log, f"EMhub runs at {url}")
    wait_for(process, log, "Ctrl-C stops it")
    assert "createsuperuser" in log.read_text()

    page = urllib.request.urlopen(f"{url}/", timeout=20)
    html = page.read().decode()
    assert page.status == 200
    sheet = re.search(r'href="(/static/vendor/bootstrap/bootstrap\.min\.[0-9a-f]{12}\.css)"', html)
    assert sheet, "the page names no hashed stylesheet"
    static = urllib.request.urlopen(url + sheet[1], timeout=20)
    assert "immutable" in static.headers["Cache-Control"]
    # Its cookie works over plain http on this machine.
    assert "secure" not in (page.headers["Set-Cookie"] or "").lower()

    # What looks after alerts runs beside the server and ends with it.
    (alerts,) = children(process.pid, "check_alerts")
    server = re.search(r"Booting worker with pid: (\d+)", log.read_text())[1]
    assert Path(f"/proc/{server}").exists()
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    assert not Path(f"/proc/{server}").exists()
    assert not Path(f"/proc/{alerts}").exists()
    assert (tmp_path / "data/logs/alerts.log").read_text() == ""
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"{url}/health/", timeout=5)
    # Serving alone loads nothing.
    with sqlite3.connect(tmp_path / "data/emhub.sqlite3") as database:
        assert database.execute("SELECT count(*) FROM people_user").fetchone() == (0,)
    database.close()


def test_with_a_database_url_the_demo_stays_away(serve, tmp_path):
    process, _, log = serve(
        "--demo",
        DATABASE_URL=f"sqlite:///{tmp_path}/facility.sqlite3",
        SECRET_KEY="k" * 60,
        HTTPS="false",
    )
    wait_for(process, log, "Ctrl-C stops it")
    assert "the demo stays away" in log.read_text()
    with sqlite3.connect(tmp_path / "facility.sqlite3") as database:
        assert database.execute("SELECT count(*) FROM people_user").fetchone() == (0,)
    database.close()


def test_a_misspelt_setting_is_one_sentence(serve):
    process, _, log = serve(DEBUG="flase")
    assert process.wait(60) == 1
    assert log.read_text().strip() == "EMhub: DEBUG='flase' is neither true nor false. Write true or false."
