"""The two commands as a newcomer types them: clone, `make run`, log in, watch the live session grow, Ctrl-C.

    python3 .ci/smoke.py [--seconds 90] [--watch 0] [--with-npm]

In an empty folder with an empty home and, unless told otherwise, on a PATH without node and npm. Standard library
alone. Ends with status 0 when all went well, and leaves neither a process nor a file behind.
"""

import argparse
import contextlib
import http.cookiejar
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
START = 420  # s for the set-up from nothing and the first start
AGAIN = 20  # s for a second start on a busy machine
STEP = 1.0
PACE = 60  # s between looks when watching for long
#: What a facility's or a tester's own environment may say, and this run must not hear.
OURS = re.compile(
    r"EMHUB_|DJANGO_|DATABASE_|PYTEST|PYTHON|VIRTUAL_ENV|MAKE|SECRET_KEY|DEBUG$|ALLOWED_HOSTS|HTTPS$|PORT$|LISTEN$"
)


class Failed(Exception):
    pass


def path_without_npm(folder):
    """A folder of links to every command on PATH but those of node, as the only PATH."""
    folder.mkdir()
    for place in os.environ["PATH"].split(os.pathsep):
        if not os.path.isdir(place):
            continue
        for name in os.listdir(place):
            if name not in ("node", "nodejs", "npm", "npx") and not (folder / name).is_symlink():
                (folder / name).symlink_to(os.path.join(place, name))
    return str(folder)


def environment(home, with_npm):
    kept = {name: value for name, value in os.environ.items() if not OURS.match(name)}
    kept["HOME"] = str(home / "home")
    (home / "home").mkdir()
    if not with_npm:
        kept["PATH"] = path_without_npm(home / "bin")
    return kept


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until(what, seconds, function):
    """The function's first true answer; Failed when there is none in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        answer = function()
        if answer:
            return answer
        time.sleep(STEP)
    raise Failed(f"{what}: not within {seconds} s")


class Site:
    """`make run` in a session of its own, and a person's browser with a cookie jar."""

    def __init__(self, folder, env, port, log):
        self.url = f"http://127.0.0.1:{port}"
        self.log = log
        with open(log, "wb") as output:
            self.process = subprocess.Popen(
                ["make", "run", f"PORT={port}"],
                cwd=folder,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                # A shell that starts us in the background has Ctrl-C ignored, and that is inherited.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
            )
        self.cookies = http.cookiejar.CookieJar()
        self.opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPCookieProcessor(self.cookies)
        )

    def said(self):
        return self.log.read_text(errors="replace")

    def get(self, path, data=None, **headers):
        body = urllib.parse.urlencode(data).encode() if data else None
        request = urllib.request.Request(self.url + path, data=body, headers=headers)
        with self.opener.open(request, timeout=20) as answer:
            return answer.geturl(), answer.read().decode(errors="replace")

    def is_up(self):
        if self.process.poll() is not None:
            raise Failed(f"make run ended with status {self.process.returncode}")
        try:
            return self.get("/health/")
        except OSError:
            return None

    def has_printed(self, words):
        return lambda: words in self.said()

    def log_in(self, username, password):
        address, page = self.get("/")
        token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page)
        if not token:
            raise Failed(f"{address} is no page to log in on")
        form = {"username": username, "password": password, "csrfmiddlewaretoken": token[1]}
        address, page = self.get(urllib.parse.urlsplit(address).path, form, Referer=address)
        if "csrfmiddlewaretoken" in page and 'type="password"' in page:
            raise Failed(f"{username} was not let in")

    def json(self, path):
        return json.loads(self.get(path)[1])

    def processes(self):
        """What runs in the session of processes that `make run` began, zombies apart."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    fields = (entry / "stat").read_text().rpartition(")")[2].split()
                    command = (entry / "cmdline").read_text().replace("\0", " ")
                except OSError:
                    continue
                if int(fields[3]) == self.process.pid and fields[0] != "Z":
                    found.append(f"{entry.name} {command}")
        return found

    def interrupt(self):
        """Ctrl-C, as a terminal sends it: to the foreground group."""
        os.killpg(self.process.pid, signal.SIGINT)
        try:
            self.process.wait(40)
        except subprocess.TimeoutExpired:
            raise Failed("40 s after Ctrl-C make run was still there") from None
        left = self.processes()
        if left:
            raise Failed("Ctrl-C left behind: " + "; ".join(left))

    def kill(self):
        for line in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(line.split()[0]), signal.SIGKILL)


def live_count(site, name):
    return site.json(f"/api/v1/sessions/{name}/")["processing"]["micrographs"]


def look(folder, env, log, seconds, watch):
    port = free_port()
    site = Site(folder, env, port, log)
    try:
        began = time.monotonic()
        until("make run answering", START, site.is_up)
        print(f"  from clone to answer: {time.monotonic() - began:.0f} s")
        until("the demo's logins in the terminal", 30, site.has_printed("Ctrl-C stops it"))
        password = re.search(r"password (\S+)", site.said())
        username = re.search(r"^ {4}(\S+) +facility staff", site.said(), re.MULTILINE)
        if not (password and username):
            raise Failed("make run printed no logins")
        site.log_in(username[1], password[1])
        sessions = until(
            "an active session", 30, lambda: site.json("/api/v1/sessions/?status=active")["results"]
        )
        name = sessions[0]["name"]
        first = until("the live session's first micrographs", seconds, lambda: live_count(site, name))
        began = time.monotonic()
        more = until(f"{name} growing", seconds, lambda: max(0, live_count(site, name) - first))
        print(f"  {name}: {first} micrographs, {more} more after {time.monotonic() - began:.0f} s")
        for passed in range(0, watch, PACE):
            time.sleep(PACE)
            now = live_count(site, name)
            print(f"  after {passed + PACE} s: {now} micrographs", flush=True)
            if now <= first + more:
                raise Failed(f"{name} has stopped growing")
            more = now - first
        site.interrupt()

        site = Site(folder, env, port, log)
        began = time.monotonic()
        until("the second start", AGAIN, site.is_up)
        print(f"  second start: {time.monotonic() - began:.1f} s")
        site.interrupt()
        changed = subprocess.run(
            ["git", "status", "--porcelain"], cwd=folder, env=env, capture_output=True, text=True, check=True
        ).stdout
        if changed:
            raise Failed(f"the run left files that git does not ignore:\n{changed}")
    finally:
        site.kill()


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=int, default=90, help="how long the live session may take to grow")
    parser.add_argument("--watch", type=int, default=0, help="seconds to go on watching it grow")
    parser.add_argument("--with-npm", action="store_true", help="let the set-up use this machine's npm")
    options = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="emhub-smoke-"))
    log = home / "log"
    try:
        env = environment(home, options.with_npm)
        folder = home / "emhub"
        subprocess.run(["git", "clone", "--quiet", str(HERE), str(folder)], check=True, env=env)
        look(folder, env, log, options.seconds, options.watch)
    except (Failed, urllib.error.HTTPError) as error:
        print(log.read_text(errors="replace")[-4000:] if log.exists() else "", file=sys.stderr)
        for helper in sorted((home / "emhub/var/logs").glob("*.log")):
            print(f"-- {helper.name}\n{helper.read_text(errors='replace')[-1500:]}", file=sys.stderr)
        print(f"smoke: {error}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(home, ignore_errors=True)
    print("smoke: passed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
