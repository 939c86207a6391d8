"""Start the site: ``make serve``, and with ``--demo`` the demo facility beside it: ``make run``.

Everything started here ends here, with Ctrl-C, SIGTERM or a closed terminal.
"""

import argparse
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import prepare
from supervise import (
    Backoff,
    Child,
    Kept,
    Stopped,
    catches_interrupts,
    die_with_parent,
    end,
    stop_on_signals,
)
from words import DENIED, DISK, ROOT, need_space, say, stop

PATIENCE = 60  # s until the site must have answered
ALERTS_EVERY = 20  # s between two looks at the sessions that run
SETTLING = 60  # s between the end of a demo session's pipeline and the next session
LOG_LIMIT = 5_000_000  # bytes a helper's log may have before it is begun anew


def django_settings():
    """The site's settings; what is wrong with them is said in their own sentence."""
    sys.path.insert(0, str(ROOT))
    os.chdir(ROOT)
    os.environ["DJANGO_SETTINGS_MODULE"] = "emhub_site.settings"
    import django
    from django.conf import settings
    from django.core.exceptions import ImproperlyConfigured

    try:
        django.setup()
    except ImproperlyConfigured as error:
        stop(str(error))
    return settings


def address():
    """Host and port to listen on, from LISTEN and PORT."""
    from django.core.exceptions import ImproperlyConfigured

    from emhub_site import env

    try:
        return env.text("LISTEN", "127.0.0.1"), env.integer("PORT", 8000, minimum=1, maximum=65535)
    except ImproperlyConfigured as error:
        return stop(str(error))


def is_free(host, port):
    """Whether nobody listens there; an OSError other than that is raised."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host.strip("[]"), port))
        except OSError as error:
            if error.errno in (98, 48):  # EADDRINUSE on Linux and on a Mac
                return False
            raise
    return True


def need_port(host, port, target):
    """Stop with a sentence that names a port to take instead when this one cannot be had."""
    try:
        if is_free(host, port):
            return
    except PermissionError:
        stop(f"Port {port} needs root. Choose one from 1024 on: make {target} PORT=8000")
    except OSError as error:
        stop(f"LISTEN={host} is no address of this machine ({error.strerror}).")
    free = next((p for p in range(port + 1, min(port + 100, 65536)) if is_free(host, p)), None)
    another = f" or choose another: make {target} PORT={free}" if free else ""
    stop(f"Port {port} on {host} is taken by another program. Stop that one{another}")


def lock(folder):
    """Hold the data folder for as long as this process lives: two demos would write the same project."""
    path = folder / "run.lock"
    handle = open(path, "a+")  # noqa: SIM115 - held until the process ends
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        handle.seek(0)
        who = handle.read().strip() or "another process"
        stop(
            f"The data folder {folder} is in use ({who}). Stop that one first, or give this one a folder of its own: "
            "make run EMHUB_DATA_DIR=... PORT=..."
        )
    return handle


def wait_for(server, url, host_header):
    """Wait until the site answers; stop with a sentence when it does not."""
    request = urllib.request.Request(url, headers={"Host": host_header})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + PATIENCE
    answer = "no answer"
    while time.monotonic() < deadline:
        if server.poll() is not None:
            stop("The server did not start. What it said is above.")
        try:
            with opener.open(request, timeout=5) as response:
                if response.status == 200:
                    return
        except urllib.error.HTTPError as error:
            answer = f"status {error.code}: {error.read(200).decode(errors='replace')}"
        except OSError as error:
            answer = str(error)
        time.sleep(0.1)
    stop(f"The site did not come up within {PATIENCE} s ({answer}).")


def log_in(folder, name):
    """The file that takes a helper's output; begun anew where it has grown long."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.log"
    if path.exists() and path.stat().st_size > LOG_LIMIT:
        path.unlink()
    return path


class Demo:
    """The demo's microscope and pipeline and the agents that report them, kept going as long as the demo has a
    live session."""

    def __init__(self, url, folder, env):
        self.url = url
        self.folder = folder
        self.env = env
        self.live = {}
        self.helpers = []
        self.watcher = None  # of the microscope's folder, until that is there
        self.backoffs = {}
        self.due = None

    def ask(self):
        """What the site calls the demo's live session: {"session", "project", "token_file"}, or {}."""
        answer = subprocess.run(
            [sys.executable, "manage.py", "demo_live", "--json"],
            capture_output=True,
            text=True,
            cwd=ROOT,
            env=self.env,
            stdin=subprocess.DEVNULL,
        )
        if answer.returncode:
            lines = answer.stderr.strip().splitlines() or ["no reason given"]
            say(f"The demo has no live session: {lines[-1]}")
            return {}
        return json.loads(answer.stdout or "{}")

    def log(self, name):
        return log_in(self.folder, name)

    def start(self):
        self.live = self.ask()
        if not self.live:
            return
        python = sys.executable
        project = self.live["project"]
        try:
            token = Path(self.live["token_file"]).read_text().strip()
        except OSError as error:
            say(f"The demo's agent has no token ({error}), so nothing is posted.")
            return
        pipeline = Child(
            "pipeline",
            [python, "-m", "demo.pipeline", project],
            env=self.env,
            cwd=ROOT,
            log=self.log("demo-pipeline"),
        )
        agent = self.agent("emhub-agent", token, "relion", project)
        self.watcher = self.agent("watcher", token, "acquisition", f"{project}/Movies", "--set", "settled=5")
        self.helpers = [pipeline, agent]
        for helper in self.helpers:
            helper.start()

    def agent(self, name, token, *arguments):
        where = ["--url", self.url, "--session", self.live["session"]]
        return Child(
            name,
            [Path(sys.executable).parent / "emhub-agent", *arguments, *where],
            env={**self.env, "EMHUB_TOKEN": token},
            cwd=ROOT,
            log=self.log(name),
        )

    def look_after(self):
        """Start what has crashed again, later each time, and another session when the pipeline is done with one."""
        now = time.monotonic()
        if self.due is not None:
            if now >= self.due:
                self.due = None
                # Its session may have been deleted meanwhile: ask again and begin both anew.
                end(self.helpers, patience=5)
                self.helpers, self.watcher = [], None
                self.start()
            return
        if self.watcher is not None and Path(self.live["project"], "Movies").is_dir():
            self.watcher.start()
            self.helpers.append(self.watcher)
            self.watcher = None
        for helper in self.helpers:
            if helper.name == "pipeline" and helper.poll() == 0:
                # Its project is complete. The agent has time to post the rest before another session begins.
                self.due = now + SETTLING
                return
            if helper.poll():
                wait = self.backoffs.setdefault(helper.name, Backoff()).after(now - helper.started)
                status = helper.poll()
                how = f"status {status}" if status > 0 else signal.Signals(-status).name
                say(
                    f"The demo's {helper.name} stopped ({how}); it starts again in {wait:.0f} s. "
                    f"It said last: {helper.last_words() or 'nothing'}. More in {helper.log}"
                )
                self.due = now + wait
                return


def prepare_site(settings, with_demo):
    """Tables, static files, demo. Returns the demo's own words (empty where there is none) and whether nobody
    can log in yet."""
    from django.contrib.auth import get_user_model
    from django.db import connection
    from django.db.utils import DatabaseError

    try:
        prepare.check_database(connection)
        prepare.migrate(connection, settings)
        prepare.collect_static(settings)
        words = prepare.load_demo() if with_demo else ""
        return words, not get_user_model().objects.exists()
    except (OSError, DatabaseError) as error:
        if DISK.search(str(error)) or "disk is full" in str(error):
            stop("The disk is full. Make room and start again: nothing was left half done.")
        if DENIED.search(str(error)) or "readonly database" in str(error):
            stop(f"The data folder {settings.DATA_DIR} may not be written to ({error}).")
        raise
    finally:
        connection.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--demo", action="store_true", help="load the demo into an empty database and play it"
    )
    with_demo = parser.parse_args().demo
    target = "run" if with_demo else "serve"

    if "MAKELEVEL" in os.environ:
        die_with_parent(os.getppid())
    stop_on_signals()
    try:
        serve(with_demo, target)
    except Stopped as asked:
        # Ctrl-C and SIGTERM are how it is meant to end.
        raise SystemExit(128 + asked.number if asked.number == signal.SIGHUP else 0) from None


def serve(with_demo, target):
    settings = django_settings()
    host, port = address()
    need_port(host, port, target)
    held = lock(settings.DATA_DIR) if settings.EMBEDDED else None
    need_space(settings.DATA_DIR, 200, "The data folder")
    if with_demo and not settings.EMBEDDED:
        say("DATABASE_URL is set, so the demo stays away and an ordinary site is started.")
        with_demo = False
    if with_demo and "demo" not in settings.INSTALLED_APPS:
        say("This copy of EMhub comes without its demo folder, so an ordinary site is started.")
        with_demo = False
    words, nobody = prepare_site(settings, with_demo)

    reach = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "[::]": "[::1]"}.get(host, host)
    url = f"http://{reach}:{port}"
    known = next((h for h in settings.ALLOWED_HOSTS if "*" not in h and not h.startswith(".")), reach)
    env = {**os.environ, "PYTHONUNBUFFERED": "1"}
    options = ["--log-level", "warning"] if with_demo else []
    server = Child(
        "server",
        [sys.executable, "-m", "gunicorn", "--config", "python:emhub_site.gunicorn", *options],
        env=env,
        cwd=ROOT,
    )
    make_listened = "MAKELEVEL" in os.environ and catches_interrupts(os.getppid())
    logs = settings.DATA_DIR / "logs"
    demo = Demo(url, logs, env)
    alerts = Child(
        "alerts",
        [sys.executable, "manage.py", "check_alerts", "--every", ALERTS_EVERY],
        env=env,
        cwd=ROOT,
        log=log_in(logs, "alerts"),
    )
    kept = Kept(alerts)
    try:
        server.start()
        wait_for(server, f"{url}/health/", known)
        if held:
            held.truncate(0)
            held.write(f"process {os.getpid()}, {url}")
            held.flush()
        print(f"\nEMhub runs at {url}\n", flush=True)
        if words:
            print(f"{words}\n", flush=True)
        elif nobody:
            print("Nobody can log in yet. Make the first user: .venv/bin/python manage.py createsuperuser\n")
        print("Ctrl-C stops it.", flush=True)
        if with_demo:
            demo.start()
        while server.poll() is None:
            demo.look_after()
            if (wait := kept.look_after()) is not None:
                say(
                    f"The look at alerts stopped; it starts again in {wait:.0f} s. "
                    f"It said last: {alerts.last_words() or 'nothing'}. More in {alerts.log}"
                )
            # An interrupt meant for make alone (`kill -INT`) is not passed on: make forgets its handler and waits.
            if make_listened and catches_interrupts(os.getppid()) is False:
                os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.2)
        stop(f"The server ended by itself (exit {server.poll()}).")
    except Stopped:
        print("\nEMhub: Stopping ...", flush=True)
        raise
    finally:
        end([*demo.helpers, alerts, server])


if __name__ == "__main__":
    main()
