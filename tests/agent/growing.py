"""Any reader, fed its input as it grows: what comes of it must equal what one clean pass makes of the whole.

A test says how its reader is made and gives the files, or steps of its own:

    def test_a_growing_project_ends_as_after_one_clean_pass(tmp_path, seed):
        made = folder_of(real_project)                      # {path: bytes}, or written by the test
        steps = grow(made, tmp_path, seed, first=["default_pipeline.star"])
        assert_ends_as_one_clean_pass(lambda: RelionReader(str(tmp_path), key="p"), steps, seed)

A step is anything that makes the input a little more complete (bytes of a file, a row of a database, a document
of a server). Between steps the agent looks, is killed in the middle of a call and started anew, and the site
fails one call in three, half of those after having done what was asked.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from emhub_agent import Client
from emhub_agent.readers.base import Reader, ReaderError
from emhub_agent.sync import Sync

from .site import SESSION, TOKEN, Site


class Killed(BaseException):
    """The agent is no more; a BaseException, so that nothing in it takes this for a failure to handle."""


class MortalClient(Client):
    """Dies before or after one of its calls, as a process does."""

    def __init__(self, site: Site, lives: int, chance: random.Random):
        super().__init__(site.url, TOKEN, attempts=100, first_wait=0.001, longest_wait=0.004)
        self.lives, self.chance = lives, chance

    def request(self, *arguments, **options):
        self.lives -= 1
        if self.lives < 0:
            if self.chance.random() < 0.5:
                super().request(*arguments, **options)  # it arrived, and nobody read the answer
            raise Killed
        return super().request(*arguments, **options)


@contextlib.contextmanager
def standing_in() -> Iterator[Site]:
    site = Site().start()
    try:
        yield site
    finally:
        site.stop()


def folder_of(root: Path) -> dict[str, bytes]:
    """The files under a folder, by their path in it; links are not followed."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }


def grow(
    made: dict[str, bytes],
    root: Path,
    seed: int,
    first: Iterable[str] = (),
    whole: Callable[[str], bool] = lambda path: False,
    window: int = 4,
    pieces: int = 2,
) -> Iterator[None]:
    """Write the files a piece at a time, ending in the middle of rows and bytes; yield after each piece.

    ``first`` are there at once; so is each file for which ``whole`` says that it never is half-written (one that
    its program renames into place). ``window`` files grow beside each other, each in about ``2 * pieces`` pieces.
    """
    chance = random.Random(seed)
    first = list(first)
    for path in first:
        _write(root / path, made[path])
    left = [path for path in made if path not in first]
    written = dict.fromkeys(left, 0)
    while left:
        path = left[chance.randrange(min(window, len(left)))]
        size = len(made[path])
        written[path] += size if whole(path) else chance.randint(1, max(200, size // pieces))
        _write(root / path, made[path][: written[path]])
        if written[path] >= size:
            left.remove(path)
        yield


def _write(path: Path, data: bytes) -> None:
    """As a program does: what is there already is not written again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    there = path.stat().st_size if path.exists() else 0
    with open(path, "ab") as handle:
        handle.write(data[there:])


def state(site: Site) -> dict:
    """What people see in the end, without how it came to be.

    Of each job only the newest set of classes counts, because which of the earlier ones were seen is chance.
    """

    def plain(row):
        # A field that was emptied again is as unknown as one that was never told.
        hidden = ("revision", "id")
        return {name: value for name, value in row.items() if name not in hidden and value is not None}

    runs = {}
    for run in site.runs.values():
        newest: dict[str, int] = {}
        for job, iteration, _ in run.classes:
            newest[job] = max(iteration, newest.get(job, 0))
        runs[run.fields["key"]] = {
            "run": plain(run.fields),
            "micrographs": {name: plain(row) for name, row in run.micrographs.items()},
            "classes": {key: plain(row) for key, row in run.classes.items() if newest[key[0]] == key[1]},
            "events": sorted((event["level"], event["text"], event["at"]) for event in run.events),
        }
    return {
        "session": site.sessions[SESSION],
        "exposures": {name: plain(row) for (_, name), row in site.exposures.items()},
        "runs": runs,
    }


def settle(make_reader: Callable[[], Reader], site: Site, looks: int = 3) -> Sync:
    """Look as often as it takes for files written this moment to be believed; everything is sent then."""
    sync = Sync(make_reader(), Client(site.url, TOKEN, attempts=100, first_wait=0.001), SESSION)
    for _ in range(looks):
        sync.numbers()
        sync.pictures()
    assert sync.waiting == 0
    return sync


def assert_ends_as_one_clean_pass(
    make_reader: Callable[[], Reader],
    steps: Iterable[object],
    seed: int = 0,
    fail_every: int = 3,
    looks: int = 3,
) -> Site:
    """Follow ``steps`` through everything that can go wrong; return the site's stand-in as it is in the end.

    ``make_reader`` may raise ReaderError while there is nothing to read yet. ``looks`` are made once everything
    is there, both disturbed and clean.
    """
    chance = random.Random(1000 + seed)
    with standing_in() as site, standing_in() as clean:
        site.fail_every = fail_every
        sync: Sync | None = None

        def one_look(with_pictures: bool, until: float | None) -> None:
            nonlocal sync
            try:
                if sync is None:
                    client = MortalClient(site, chance.randint(1, 60), chance)
                    sync = Sync(make_reader(), client, SESSION, batch=chance.choice((1, 2, 7, 500)))
                sync.numbers()
                if with_pictures:
                    sync.pictures(until=until)
            except (Killed, ReaderError):
                sync = None

        for _ in steps:
            one_look(chance.random() < 0.3, None if chance.random() < 0.5 else 0)
        for _ in range(100):
            if sync is not None:
                break
            one_look(True, None)
        assert sync is not None, "the reader found nothing to read, or died every time"
        sync.client.lives = 1_000_000  # it may live now
        for _ in range(looks):
            one_look(True, None)
        assert sync is not None
        assert sync.waiting == 0
        site.fail_every = 0
        settle(make_reader, clean, looks)
        assert state(site) == state(clean)
        return site
