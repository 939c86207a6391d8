"""Processes that belong together: started, watched, started again when they crash, and ended whole.

Each gets a process group of its own, so that what it starts ends with it; and on Linux the kernel ends it
when this process dies without a word (``kill -9``).
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time

PR_SET_PDEATHSIG = 1
FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0  # s between a crash and the next start; doubled each time
STEADY = 60.0  # s after which a process counts as running again


def die_with_parent(parent):
    """Ask the kernel for SIGTERM to this process when ``parent``, which started it, dies. Linux only."""
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:  # It died before the kernel was asked.
        os._exit(1)


def catches_interrupts(pid):
    """Whether a process has a handler for Ctrl-C; None where that cannot be told. Linux only."""
    try:
        with open(f"/proc/{pid}/status") as status:
            caught = next(line for line in status if line.startswith("SigCgt:"))
    except (OSError, StopIteration):
        return None
    return bool(int(caught.split()[1], 16) >> (signal.SIGINT - 1) & 1)


class Child:
    """One process: ``start``, ``poll``, ``end``.

    ``log`` is the file that takes its output; without one it writes to our own.
    """

    def __init__(self, name, command, *, env=None, cwd=None, log=None):
        self.name = name
        self.command = [str(part) for part in command]
        self.env = env
        self.cwd = cwd
        self.log = log
        self.process = None
        self.started = 0.0

    def start(self):
        parent = os.getpid()
        output = open(self.log, "ab") if self.log else None  # noqa: SIM115 - closed below
        try:
            self.process = subprocess.Popen(
                self.command,
                env=self.env,
                cwd=self.cwd,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                process_group=0,
                preexec_fn=lambda: die_with_parent(parent),
            )
        finally:
            if output:
                output.close()
        self.started = time.monotonic()

    def poll(self):
        """Exit status, or None while it runs or was never started."""
        return self.process.poll() if self.process else None

    @property
    def running(self):
        return self.process is not None and self.process.poll() is None

    def last_words(self):
        """The last line it wrote to its log."""
        if not self.log or not self.log.exists():
            return ""
        lines = self.log.read_bytes()[-4096:].decode(errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "")

    def signal(self, number):
        """Send a signal to the whole group, also when its first process is gone already."""
        if self.process:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, number)


def end(children, patience=20.0):
    """Ask all to stop, wait ``patience`` seconds at most, then end what is left of their groups."""
    for child in children:
        if child.running:
            child.signal(signal.SIGTERM)
    deadline = time.monotonic() + patience
    for child in children:
        if child.process:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.process.wait(max(0.0, deadline - time.monotonic()))
    for child in children:
        child.signal(signal.SIGKILL)
        if child.process:
            child.process.wait()


class Backoff:
    """How long to wait before a crashed process is started again."""

    def __init__(self):
        self.wait = FIRST_WAIT

    def after(self, ran_for):
        """Seconds to wait after a process that ran for ``ran_for`` seconds."""
        if ran_for >= STEADY:
            self.wait = FIRST_WAIT
        wait, self.wait = self.wait, min(self.wait * 2, LONGEST_WAIT)
        return wait


class Kept:
    """A child that is to run all the time: ``look_after``, called often, starts it again when it has ended."""

    def __init__(self, child):
        self.child = child
        self.backoff = Backoff()
        self.due = None

    def look_after(self):
        """Seconds until it starts again where it has just been found ended, otherwise None."""
        now = time.monotonic()
        if self.due is not None:
            if now >= self.due:
                self.due = None
                self.child.start()
            return None
        if self.child.process is None:
            self.child.start()
        elif not self.child.running:
            wait = self.backoff.after(now - self.child.started)
            self.due = now + wait
            return wait
        return None


class Stopped(Exception):
    """A signal asked us to stop."""

    def __init__(self, number):
        super().__init__(signal.Signals(number).name)
        self.number = number


def stop_on_signals():
    """Turn the first Ctrl-C, SIGTERM or SIGHUP into Stopped, and ignore the rest: we are stopping already."""

    def handler(number, frame):
        for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(each, signal.SIG_IGN)
        raise Stopped(number)

    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, handler)
