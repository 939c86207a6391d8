"""Schemathesis against the served schema: a server with one session of everything, called in every way it describes.

    .venv/bin/python .ci/fuzz.py [--seconds 150] [--examples 15] [--seed 0] [--as pipeline staff]

By a pipeline's token and by staff logged in, one after the other in the time given. On SQLite; with DATABASE_URL set
on that PostgreSQL server, in a database made for it and dropped after it: never in the one that is named.

Every check but one: data that fits the schema may still be refused by a rule of the facility (400), which no schema
can say. Ends with status 1 for any finding, any answer of 500 and any error in the server's log.
"""

import argparse
import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
SEED = """
import django
django.setup()
from preprocessing import ingest
from preprocessing.identity import identity
from django.conf import settings
from django.middleware.csrf import get_token
from django.test import Client, RequestFactory
from tests.factories import CameraFactory, SessionFactory, StaffFactory, make_token

session = SessionFactory(name="krios1-20261123-01", booking__microscope__code="krios1")
CameraFactory(microscope=session.microscope, name="Falcon 4i")
run = ingest.open_run(session.pk, key="relion", software="RELION")[0]
names = [f"FoilHole_{n}_Data_1_2_20261123_101500_fractions.tiff" for n in range(3)]
ingest.record_micrographs(
    session.pk, run.pk, [ingest.Report(name, identity(name), {"motion_total": 1.5}) for name in names]
)
ingest.record_classes(session.pk, run.pk, job="Class2D/job010", iteration=25, classes=[{"number": 1}])
client = Client()
client.force_login(StaffFactory(username="fuzz"))
cookie = settings.SESSION_COOKIE_NAME
request = RequestFactory().get("/")
get_token(request)
print(
    make_token(session.microscope)[1],
    f"{cookie}={client.cookies[cookie].value}; {settings.CSRF_COOKIE_NAME}={request.META['CSRF_COOKIE']}",
    request.META["CSRF_COOKIE"],
    sep="\\n",
)
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until_up(url, server):
    for _ in range(120):
        if server.poll() is not None:
            raise SystemExit("fuzz: the server ended")
        try:
            with urllib.request.urlopen(f"{url}/health/", timeout=5):
                return
        except OSError:
            time.sleep(0.5)
    raise SystemExit("fuzz: the server did not answer")


@contextlib.contextmanager
def database(url):
    """An empty database beside the one that is named, as an address; none where none is named."""
    if not url:
        yield ""
        return
    import psycopg
    from psycopg import sql

    name = f"emhub_fuzz_{secrets.token_hex(4)}"
    with psycopg.connect(url, autocommit=True) as server:
        server.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            yield urlsplit(url)._replace(path=f"/{name}").geturl()
        finally:
            server.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def callers(key, cookies, csrf):
    """The headers by which each calls."""
    return {
        "pipeline": [f"Authorization: Token {key}"],
        "staff": [f"Cookie: {cookies}", f"X-CSRFToken: {csrf}"],
    }


def fuzz(folder, options, database_url):
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    # Never a database that someone's environment names: a fuzzer writes.
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in ("DATABASE_URL", "SECRET_KEY", "HTTPS")
    }
    env = kept | {
        "DJANGO_SETTINGS_MODULE": "emhub_site.settings",
        "PYTHONPATH": str(ROOT),
        "EMHUB_ENV_FILE": "/dev/null",
        "EMHUB_DATA_DIR": str(folder / "data"),
        "PORT": str(port),
        "LISTEN": "127.0.0.1",
        "API_RATE_PER_TOKEN": "0",
        "API_RATE_PER_ADDRESS": "0",
    }

    if database_url:
        env |= {"DATABASE_URL": database_url, "SECRET_KEY": secrets.token_urlsafe(50), "HTTPS": "false"}
        env |= {"ALLOWED_HOSTS": "127.0.0.1"}

    def python(*arguments):
        done = subprocess.run(
            [sys.executable, *arguments], cwd=ROOT, env=env, check=True, stdout=subprocess.PIPE
        )
        return done.stdout.decode().strip()

    python("manage.py", "migrate", "-v0")
    python("manage.py", "collectstatic", "--noinput", "-v0")
    known = callers(*python("-c", SEED).splitlines()[-3:])
    log = folder / "server.log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            [BIN / "gunicorn", "-c", "emhub_site/gunicorn.py"],
            cwd=ROOT,
            env=env,
            stdout=output,
            stderr=output,
        )
    try:
        until_up(url, server)
        found = [call_all(url, who, known[who], folder, env, options) for who in options.callers]
        recount = subprocess.run([sys.executable, "manage.py", "recount"], cwd=ROOT, env=env).returncode
    finally:
        server.terminate()
        server.wait(30)
    said = log.read_text(errors="replace")
    if " ERROR " in said or "Traceback" in said:
        print(said[-6000:])
        print("fuzz: the server logged an error")
        return 1
    if recount:
        print("fuzz: counters differ from a recount")
        return 1
    return max(found)


def call_all(url, who, headers, folder, env, options):
    """Schemathesis' exit status for one caller, who has a fair share of the time."""
    seconds = max(1, options.seconds // len(options.callers))
    print(f"fuzz: as {who}", flush=True)
    command = [BIN / "st", "run", f"{url}/api/schema/?format=json"]
    for header in headers:
        command += ["--header", header]
    # Another Authorization leaves the login cookie as good as it was.
    left_out = "positive_data_acceptance" + (",ignored_auth" if who == "staff" else "")
    command += ["--checks", "all", "--exclude-checks", left_out]
    command += ["--phases", "examples,coverage,fuzzing,stateful"]
    command += ["--max-examples", str(options.examples), "--max-time", str(seconds)]
    command += ["--seed", str(options.seed)] if options.seed else []
    command += ["--generation-database", "none", "--continue-on-failure", "--warnings", "off", "--no-color"]
    return subprocess.run(command, cwd=folder, env=env, timeout=seconds + 120).returncode


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=int, default=150, help="how long it may look")
    parser.add_argument("--examples", type=int, default=15, help="examples for each call and phase")
    parser.add_argument("--seed", type=int, default=0, help="the same calls again; 0: others each time")
    parser.add_argument(
        "--as",
        dest="callers",
        nargs="+",
        choices=["pipeline", "staff"],
        default=["pipeline", "staff"],
        metavar="WHO",
        help="pipeline, staff, or both, one after the other",
    )
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="emhub-fuzz-"))
    try:
        with database(os.environ.get("DATABASE_URL", "")) as url:
            return fuzz(folder, options, url)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
