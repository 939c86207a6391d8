"""Schemathesis against the served schema: a server with one session of everything, called in every way it describes.

    .venv/bin/python .ci/fuzz.py [--seconds 150] [--examples 15] [--seed 0]

Every check but one: data that fits the schema may still be refused by a rule of the facility (400), which no schema
can say. Ends with status 1 for any finding, any answer of 500 and any error in the server's log.
"""

import argparse
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
SEED = """
import django
django.setup()
from preprocessing import ingest
from preprocessing.identity import identity
from tests.factories import CameraFactory, SessionFactory, make_token

session = SessionFactory(name="krios1-20261123-01", booking__microscope__code="krios1")
CameraFactory(microscope=session.microscope, name="Falcon 4i")
run = ingest.open_run(session.pk, key="relion", software="RELION")[0]
names = [f"FoilHole_{n}_Data_1_2_20261123_101500_fractions.tiff" for n in range(3)]
ingest.record_micrographs(
    session.pk, run.pk, [ingest.Report(name, identity(name), {"motion_total": 1.5}) for name in names]
)
ingest.record_classes(session.pk, run.pk, job="Class2D/job010", iteration=25, classes=[{"number": 1}])
print(make_token(session.microscope)[1])
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


def fuzz(folder, options):
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

    def python(*arguments):
        done = subprocess.run(
            [sys.executable, *arguments], cwd=ROOT, env=env, check=True, stdout=subprocess.PIPE
        )
        return done.stdout.decode().strip()

    python("manage.py", "migrate", "-v0")
    python("manage.py", "collectstatic", "--noinput", "-v0")
    key = python("-c", SEED).splitlines()[-1]
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
        found = subprocess.run(
            [
                *(BIN / "st", "run", f"{url}/api/schema/?format=json"),
                *("--header", f"Authorization: Token {key}"),
                *("--checks", "all", "--exclude-checks", "positive_data_acceptance"),
                *("--phases", "examples,coverage,fuzzing,stateful"),
                *("--max-examples", str(options.examples), "--max-time", str(options.seconds)),
                *(("--seed", str(options.seed)) if options.seed else ()),
                *(
                    "--generation-database",
                    "none",
                    "--continue-on-failure",
                    "--warnings",
                    "off",
                    "--no-color",
                ),
            ],
            cwd=folder,
            env=env,
            timeout=options.seconds + 120,
        ).returncode
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
    return found


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=int, default=150, help="how long it may look")
    parser.add_argument("--examples", type=int, default=15, help="examples for each call and phase")
    parser.add_argument("--seed", type=int, default=0, help="the same calls again; 0: others each time")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="emhub-fuzz-"))
    try:
        return fuzz(folder, options)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
