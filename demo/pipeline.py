"""Write a RELION project that grows as if a microscope were running: ``python -m demo.pipeline DIR``.

Each step follows the one before it: a movie is imported, a little later its motion is corrected, then its CTF
is fitted, then its particles are picked; 2D classifications run beside them. Stop it with Ctrl-C and start it
again in the same folder and it goes on. Needs no Django and about a twentieth of a processor core.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time
from datetime import datetime, timedelta
from pathlib import Path

# Linear algebra here is tiny; its worker threads would only spin.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

from demo.project import KEEP_IMAGES, NotADemoProject, Project

# The first classification is this far when a session that "has been running" is first seen.
ITERATIONS_AT_START = 9


def fill(project: Project, number: int, interval: float) -> None:
    """Bring an empty project to where it would be after ``number`` micrographs."""
    now = datetime.now().astimezone()
    project.import_movies([now - timedelta(seconds=interval * (number - k)) for k in range(number)])
    project.correct(number - 1)
    project.fit_ctf(number - 2)
    project.pick(number - 3)
    if project.start_classification():
        for _ in range(ITERATIONS_AT_START):
            project.iterate_classification()


class Growth:
    """Lets a project grow by one movie an interval, in four strokes a quarter of the interval apart."""

    def __init__(self, project: Project, *, limit: int):
        self.project = project
        self.limit = limit
        self.ticks = 0

    @property
    def done(self) -> bool:
        """Whether nothing is left to do: the limit is reached and every step has caught up."""
        project = self.project
        return project.picked >= self.limit and project.classifying is None

    def stroke(self, number: int) -> None:
        """Stroke 0 imports, 1 corrects, 2 fits and classifies, 3 picks; each lags behind the one before."""
        project = self.project
        ending = project.imported >= self.limit
        lag = 0 if ending else 1
        if number == 0:
            self.ticks += 1
            if not ending:
                project.import_movies([datetime.now().astimezone()])
        elif number == 1:
            project.correct(project.imported - lag)
        elif number == 2:
            project.fit_ctf(project.corrected - lag)
            # An iteration takes as long as two exposures.
            if self.ticks % 2 == 0:
                project.iterate_classification()
        else:
            project.pick(project.fitted - lag)
            project.start_classification()


def run(project: Project, *, interval: float, start: int, limit: int, stop: threading.Event) -> None:
    """Grow ``project`` until ``limit`` micrographs are picked or ``stop`` is set."""
    if project.imported == 0:
        fill(project, min(start, limit), interval)
        print(
            f"{project.imported} movies, {project.picked} picked; one more every {interval:g} s", flush=True
        )
    else:
        print(f"going on after {project.imported} movies; one more every {interval:g} s", flush=True)
    growth = Growth(project, limit=limit)
    if not growth.done:
        project.reopen()
    stroke, due = 0, time.monotonic()
    while not growth.done and not stop.is_set():
        growth.stroke(stroke)
        stroke = (stroke + 1) % 4
        # After a suspended laptop wakes the session goes on at its pace; it does not rush to catch up.
        due = max(due + interval / 4, time.monotonic())
        stop.wait(due - time.monotonic())
    if growth.done:
        project.finish()
        print(f"{project.picked} micrographs done: the session is complete.", flush=True)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Command-line arguments; exits with a message when one makes no sense."""
    parser = argparse.ArgumentParser(
        prog="python -m demo.pipeline",
        description="Write a RELION 5 project that grows, to try a facility's software without a microscope.",
        epilog="Images are kept of the newest micrographs only; tables keep everything.",
    )
    parser.add_argument("folder", metavar="DIR", type=Path, help="the project's folder; made when missing")
    parser.add_argument("--interval", type=float, default=6.0, help="seconds between movies (default 6)")
    parser.add_argument("--start", type=int, default=20, help="movies there from the start (default 20)")
    parser.add_argument("--limit", type=int, default=2000, help="stop after this many movies (default 2000)")
    parser.add_argument("--seed", type=int, help="another seed gives another session (default 1)")
    parser.add_argument(
        "--keep",
        type=int,
        default=KEEP_IMAGES,
        help=f"keep images of so many micrographs, about 4 MB each (default {KEEP_IMAGES})",
    )
    options = parser.parse_args(arguments)
    if options.interval <= 0:
        parser.error("--interval must be more than 0 seconds")
    if options.start < 3:
        parser.error("--start must be at least 3, one for each step on the way")
    if options.limit < options.start:
        parser.error("--limit must be at least --start")
    if options.keep < 1:
        parser.error("--keep must be at least 1")
    if options.seed is not None and options.seed < 0:
        parser.error("--seed must not be negative")
    return options


def main(arguments: list[str] | None = None) -> int:
    """Run until done or told to stop; 0 unless the folder cannot be used."""
    options = parse(arguments)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        project = Project(options.folder, seed=options.seed, keep=options.keep)
    except (NotADemoProject, OSError) as error:
        print(f"Cannot write a project there: {error}", file=sys.stderr)
        return 1
    try:
        os.nice(10)
        run(project, interval=options.interval, start=options.start, limit=options.limit, stop=stop)
    except OSError as error:
        # A full disk above all. What was written is whole, and the next start goes on from it.
        print(f"The project cannot be written: {error}", file=sys.stderr)
        return 1
    finally:
        project.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
