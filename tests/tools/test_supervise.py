"""Processes that belong together end together, whichever way they are ended."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from supervise import FIRST_WAIT, LONGEST_WAIT, STEADY, Backoff, Child, Kept, catches_interrupts, end

TOOLS = Path(__file__).resolve().parents[2] / "tools"
# Starts a process of its own, writes both numbers, and waits.
FAMILY = """
import os, signal, subprocess, sys, time
{stubborn}
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
open(sys.argv[1] + ".new", "w").write(f"{{os.getpid()}} {{child.pid}}")
os.rename(sys.argv[1] + ".new", sys.argv[1])
time.sleep(600)
"""
POLITE = FAMILY.format(stubborn="")
STUBBORN = FAMILY.format(stubborn="signal.signal(signal.SIGTERM, signal.SIG_IGN)")


def until(function, seconds=20):
    deadline = time.monotonic() + seconds
    while not function():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def gone(pid):
    """Whether a process has ended; a zombie that nobody has asked about yet has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.fixture
def family(tmp_path):
    """Start one with a child of its own; returns it and both process numbers."""
    started = []

    def start(code):
        path = tmp_path / f"family-{len(started)}"
        child = Child("family", [sys.executable, "-c", code, path])
        child.start()
        started.append(child)
        until(path.exists)
        return child, [int(pid) for pid in path.read_text().split()]

    yield start
    for child in started:
        child.signal(signal.SIGKILL)


def test_what_a_child_started_ends_with_it(family):
    child, pids = family(POLITE)
    end([child])
    assert not child.running
    until(lambda: all(map(gone, pids)), seconds=5)


def test_one_that_does_not_listen_is_ended_after_some_patience(family):
    child, pids = family(STUBBORN)
    end([child], patience=0.3)
    until(lambda: all(map(gone, pids)))


def test_what_a_crashed_child_left_behind_is_ended_too(family):
    child, (pid, grandchild) = family(POLITE)
    os.kill(pid, signal.SIGKILL)
    until(lambda: child.poll() is not None)
    assert not gone(grandchild)
    end([child])
    until(lambda: gone(grandchild))


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="only Linux tells a child that its parent died"
)
def test_children_end_when_we_are_killed(tmp_path):
    code = f"""
import sys, time
sys.path.insert(0, {str(TOOLS)!r})
from supervise import Child
child = Child("sleeper", [sys.executable, "-c", "import time; time.sleep(600)"])
child.start()
print(child.process.pid, flush=True)
time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        pid = int(parent.stdout.readline())
        assert not gone(pid)
        parent.kill()
    until(lambda: gone(pid))


def test_output_goes_to_the_log_and_its_last_line_is_known(tmp_path):
    child = Child("talker", [sys.executable, "-c", "print('one'); print('the reason')"], log=tmp_path / "log")
    child.start()
    until(lambda: child.poll() is not None)
    assert (tmp_path / "log").read_text() == "one\nthe reason\n"
    assert child.last_words() == "the reason"


def test_each_crash_waits_longer_up_to_a_limit_and_a_steady_run_forgives():
    backoff = Backoff()
    waits = [backoff.after(0.5) for _ in range(10)]
    assert waits[:4] == [1, 2, 4, 8]
    assert waits[-1] == LONGEST_WAIT
    assert backoff.after(STEADY) == 1


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_one_that_is_kept_is_started_again_after_its_wait(tmp_path):
    log = tmp_path / "log"
    child = Child("kept", [sys.executable, "-c", "print('here', flush=True)"], log=log)
    kept = Kept(child)
    assert kept.look_after() is None
    until(lambda: child.poll() == 0)
    # Told once, and not started again before the wait is over.
    assert kept.look_after() == FIRST_WAIT
    assert kept.look_after() is None
    assert log.read_text() == "here\n"
    kept.due = time.monotonic()
    kept.look_after()
    until(lambda: child.poll() == 0)
    assert log.read_text() == "here\nhere\n"
    assert kept.look_after() == 2 * FIRST_WAIT


def test_it_is_told_whether_a_process_listens_to_interrupts():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert catches_interrupts(os.getpid()) is True
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        assert catches_interrupts(os.getpid()) is False
    finally:
        signal.signal(signal.SIGINT, before)
    assert catches_interrupts(2**30) is None
