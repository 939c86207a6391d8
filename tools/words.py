"""What the scripts behind the Makefile say when something is missing.

A person who types ``make run`` on a fresh machine meets pip, npm and the operating system through us.
Their last words are kept, and the sentence that says what to do stands underneath, where the eye ends.
"""

import re
import shutil
import subprocess
import sys
from collections import deque
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

NETWORK = re.compile(
    r"name resolution|name or service not known|nodename nor servname|network is unreachable|"
    r"failed to establish a new connection|connection refused|connection reset|timed? ?out|"
    r"no route to host|max retries exceeded|ENOTFOUND|ECONNREFUSED|ECONNRESET|ETIMEDOUT|EAI_AGAIN|"
    r"EHOSTUNREACH|ENETUNREACH|ProxyError|from versions: none",
    re.IGNORECASE,
)
DISK = re.compile(r"no space left on device|disk quota exceeded|ENOSPC|EDQUOT", re.IGNORECASE)
DENIED = re.compile(r"permission denied|read-only file system|EACCES|EROFS|EPERM", re.IGNORECASE)
NO_RELEASE = re.compile(r"no matching distribution|could not find a version|requires-python", re.IGNORECASE)


def stop(sentence):
    """Leave with exit status 1 and one sentence on standard error."""
    sys.stdout.flush()
    print(f"\nEMhub: {sentence}", file=sys.stderr, flush=True)
    raise SystemExit(1)


def say(sentence):
    print(f"EMhub: {sentence}", flush=True)


def need_space(folder, megabytes, what):
    """Stop when the disk that holds ``folder`` has less than ``megabytes`` MB free."""
    free = shutil.disk_usage(folder).free // 1_000_000
    if free < megabytes:
        stop(
            f"{what} needs about {megabytes} MB, and the disk that holds {folder} has {free} MB left. "
            "Make room and try again."
        )


def reason(output, what, source):
    """Return the sentence that explains why ``what`` failed, read from the ``output`` of pip or npm."""
    if DISK.search(output):
        return f"{what} stopped because the disk is full. Make room and run make again."
    if NETWORK.search(output):
        return (
            f"{what} could not reach {source}. Check the network (behind a proxy set HTTPS_PROXY) and "
            "run make again: it goes on where it stopped."
        )
    if DENIED.search(output):
        return f"{what} may not write to {ROOT}. Give yourself the right to write there, or clone elsewhere."
    if NO_RELEASE.search(output):
        version = ".".join(map(str, sys.version_info[:2]))
        return (
            f"{what} found no release that fits Python {version} on this machine. EMhub is tried with Python "
            "3.11: run `make clean`, then `make setup PYTHON=python3.11`."
        )
    return f"{what} failed. What it said last is above."


def run(command, *, what, source, **options):
    """Run a quiet command; when it fails show its last lines and stop with the reason."""
    tail = deque(maxlen=25)
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        **options,
    ) as process:
        tail.extend(process.stdout)
    if process.returncode:
        output = "".join(tail)
        sys.stderr.write(output)
        stop(reason(output, what, source))
