"""How long deleting a session takes, by its number of micrographs, runs and images.

    .venv/bin/python -m bench.delete [--micrographs 5000,50000] [--images 2000] [--database-url postgres://...]

The rows are made through ingestion; the deletion is the one the site's pages use, to the commit and the renaming of
the image folder. Without --database-url the database is an SQLite file in a temporary folder.
"""

import argparse
import os
import random
import tempfile
import time
from pathlib import Path

from bench.machine import describe
from bench.pages import postgres_database

BATCH = 1000


def fill(session, count: int, images: int) -> None:
    """A run of `count` micrographs with 20 picks each, and `images` small files in the session's image folder."""
    import numpy as np

    from preprocessing import ingest
    from preprocessing.identity import identity
    from preprocessing.models import Coordinates, Micrograph
    from sessions_app.images import session_image_dir

    run, _ = ingest.open_run(session.pk, key="bench", software="RELION", pixel_size=0.83)
    for first in range(0, count, BATCH):
        reports = []
        for n in range(first, min(first + BATCH, count)):
            name = f"Movies/FoilHole_{10_000_000 + n}_Data_1_2_20261123_101500_fractions.tiff"
            values = {
                "motion_total": random.uniform(2, 20),
                "ctf_resolution": random.uniform(3, 8),
                "particles": 20,
            }
            reports.append(ingest.Report(name, identity(name), values))
        ingest.record_micrographs(session.pk, run.pk, reports)
    points = np.zeros((20, 2), "<f4").tobytes()
    ids = Micrograph.objects.filter(run=run.pk).values_list("pk", flat=True)
    Coordinates.objects.bulk_create(
        (Coordinates(micrograph_id=pk, points=points) for pk in ids), batch_size=BATCH
    )
    folder = session_image_dir(session)
    folder.mkdir(parents=True, exist_ok=True)
    for n in range(images):
        (folder / f"{n}.webp").write_bytes(b"image")


def measure(counts: list[int], images: int) -> None:
    import django

    django.setup()
    from django.core.management import call_command
    from django.db import connection

    from bench.facility import build
    from people.models import User
    from sessions_app.lifecycle import session_delete
    from sessions_app.models import Session

    call_command("migrate", verbosity=0)
    names = build(len(counts) + 1)
    actor = User.objects.get(username=names["staff"])
    sessions = list(Session.objects.exclude(name=names["session"])[: len(counts)])
    print(describe())
    print(f"database: {connection.vendor}; {images:,} image files each")
    for session, count in zip(sessions, counts, strict=True):
        fill(session, count, images)
        begin = time.perf_counter()
        session_delete(session, actor)
        print(f"{count:>10,} micrographs deleted in {time.perf_counter() - begin:6.2f} s")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--micrographs", default="5000,50000")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--database-url", default="")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {
            "DJANGO_SETTINGS_MODULE": "emhub_site.settings",
            "EMHUB_DATA_DIR": str(Path(folder)),
            "SECRET_KEY": "only-for-this-benchmark",
            "HTTPS": "false",
            "LOG_LEVEL": "ERROR",
        }
        os.environ.pop("DATABASE_URL", None)
        if options.database_url:
            os.environ["DATABASE_URL"] = postgres_database(options.database_url, 0)
        measure([int(count) for count in options.micrographs.split(",")], options.images)


if __name__ == "__main__":
    main()
