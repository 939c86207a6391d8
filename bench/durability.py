"""Kill the server with SIGKILL in the middle of a stream of posts, again and again: nothing acknowledged is lost.

    .venv/bin/python -m bench.durability [--kills 50] [--database-url postgres://...]

Four clients post without a pause, each to a run of its own: batches of micrographs with picks, updates of earlier
ones, and pictures. At a random moment gunicorn's master and workers get SIGKILL together. After the restart, and
before anything is sent again:

  - every micrograph of a post that was answered 2xx is there with the values last acknowledged or, where a later
    post of it went unanswered, with that post's;
  - of an unanswered batch either every item is there or none;
  - every picture that was acknowledged is named by its row and can be read;
  - counters and histograms equal a recount, and a reader from revision 0 is told each row once.

Ends with status 1 at the first thing that is not so. It is the server that dies, not the machine: what a power cut
would do depends on the settings that make commits wait for the disk (SQLite synchronous=FULL, PostgreSQL
synchronous_commit=on), which are asserted at the start.
"""

import argparse
import io
import random
import tempfile
import threading
import time

import orjson

from bench.ingest import MEASURED, measured, names
from bench.machine import describe
from bench.server import Client, Site

CLIENTS = 4
BATCH = 40


class Broken(Exception):
    """A promise was not kept."""


def picture(number: int) -> bytes:
    from PIL import Image

    packed = io.BytesIO()
    colour = (number % 256, number // 256 % 256, number // 65536 % 256)
    Image.new("RGB", (32, 32), colour).save(packed, "PNG")
    return packed.getvalue()


def multipart(fields: dict[str, str], file: bytes) -> tuple[str, bytes]:
    edge = "bench-durability-edge"
    body = b"".join(
        f'--{edge}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    )
    body += (
        f'--{edge}\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n'
        "Content-Type: image/png\r\n\r\n"
    ).encode()
    return f"multipart/form-data; boundary={edge}", body + file + f"\r\n--{edge}--\r\n".encode()


class Pipeline:
    """One client's stream of posts, and what it knows of them: acknowledged values, and the post in doubt."""

    def __init__(self, site: Site, session, run):
        self.site, self.session, self.run = site, session, run
        self.known: dict[str, dict] = {}
        self.pictures: dict[str, str] = {}
        self.doubt: list[dict] = []
        self.doubtful_picture = ""
        self.acknowledged = 0
        self.unexpected = ""

    def stream(self, stop: threading.Event) -> None:
        self.doubt, self.doubtful_picture = [], ""
        with self.site.client() as client:
            while not stop.is_set():
                try:
                    self.post(client)
                except OSError:
                    return

    def post(self, client: Client) -> None:
        old = random.sample(sorted(self.known), min(len(self.known), random.choice([0, 0, 1, 5, BATCH])))
        chosen = old or names(random.choice([1, BATCH]))
        items = [{"name": name} | measured() for name in chosen]
        # One by itself goes another way if it has no picks.
        for item in items[random.choice([0, 1]) :: 3]:
            item["coordinates"] = [[float(n), 2.0 * n] for n in range(random.randrange(20))]
        self.doubt = items
        path = f"/api/v1/runs/{self.run.pk}/micrographs/"
        status, _, answer = send_once(client, path, orjson.dumps({"micrographs": items}))
        if status != 200:
            self.unexpected = f"{path} answered {status}: {answer[:300]!r}"
            return
        self.known |= {item["name"]: item for item in items}
        self.doubt = []
        self.acknowledged += 1
        if random.random() < 0.3:
            self.doubtful_picture = name = random.choice(chosen)
            kind, body = multipart(
                {"kind": "micrograph", "micrograph": name}, picture(random.getrandbits(24))
            )
            path = f"/api/v1/runs/{self.run.pk}/images/"
            status, _, answer = send_once(client, path, body, kind)
            if status not in (200, 201):
                self.unexpected = f"{path} answered {status}: {answer[:300]!r}"
                return
            self.pictures[name] = orjson.loads(answer)["image"]
            self.doubtful_picture = ""

    def check(self, client: Client) -> None:
        """What the restarted server tells, against what was acknowledged."""
        if self.unexpected:
            raise Broken(self.unexpected)
        rows, after, more = {}, 0, True
        while more:
            status, _, body = client.get(f"/api/v1/runs/{self.run.pk}/micrographs/?after={after}")
            if status != 200:
                raise Broken(f"Reading run {self.run.pk} answered {status}: {body[:300]!r}")
            page = orjson.loads(body)
            for row in page["micrographs"]:
                if row["name"] in rows:
                    raise Broken(f"{row['name']} was told twice.")
                rows[row["name"]] = row
            after, more = page["revision"], page["more"]
        doubt = {item["name"]: item for item in self.doubt}
        arrived = [same(rows.get(name), item) for name, item in doubt.items()]
        if any(arrived) and not all(arrived):
            raise Broken(f"Half a batch: {sum(arrived)} of {len(arrived)} items of run {self.run.pk}.")
        if any(arrived):
            self.known |= doubt
        if unsent := rows.keys() - self.known.keys():
            raise Broken(f"{len(unsent)} rows that nobody sent, or half a batch.")
        for name, item in self.known.items():
            if name not in rows:
                raise Broken(f"{name} was acknowledged and is gone.")
            if not same(rows[name], item):
                raise Broken(f"{name} has {rows[name]}, acknowledged was {item}.")
        for name, address in self.pictures.items():
            told = rows[name]["micrograph_image"]
            if told != address and name != self.doubtful_picture:
                raise Broken(f"{name} shows {told}, acknowledged was {address}.")
        # Every picture on the first look; later on those that could have changed and a few more.
        for name in random.sample(sorted(self.pictures), min(10, len(self.pictures))):
            readable(client, rows[name]["micrograph_image"])
        for row in rows.values():
            if row["micrograph_image"] and row["name"] not in self.pictures:
                if row["name"] != self.doubtful_picture:
                    raise Broken(f"{row['name']} shows a picture that nobody sent.")
                readable(client, row["micrograph_image"])
        if self.doubtful_picture and rows[self.doubtful_picture]["micrograph_image"]:
            self.pictures[self.doubtful_picture] = rows[self.doubtful_picture]["micrograph_image"]
            readable(client, self.pictures[self.doubtful_picture])


def send_once(client: Client, path: str, body: bytes, kind: str = "application/json"):
    """Post without the client's one repetition: what went unanswered must stay in doubt."""
    if client.socket is None:
        client._connect()
    head = f"POST {path} HTTP/1.1\r\n{client.head}Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    return client._exchange(head.encode() + body)


def same(row: dict | None, item: dict) -> bool:
    return row is not None and all(row[name] == item[name] for name in MEASURED)


def readable(client: Client, address: str) -> None:
    from PIL import Image

    status, _, body = client.get(address)
    if status != 200:
        raise Broken(f"{address} answered {status}.")
    Image.open(io.BytesIO(body)).load()


def recounted(session) -> None:
    from preprocessing.recount import recount

    if found := recount(session.pk):
        raise Broken("; ".join(str(difference) for difference in found))


def assert_durable() -> None:
    from django.db import connection

    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            cursor.execute("PRAGMA synchronous")
            kept = cursor.fetchone()[0] >= 2
        else:
            cursor.execute("SHOW synchronous_commit")
            kept = cursor.fetchone()[0] in ("on", "remote_apply", "remote_write")
    if not kept:
        raise Broken("Commits do not wait for the disk.")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--longest", type=float, default=2.0, help="seconds of posts before a kill, at most")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--database-url", default="")
    options = parser.parse_args()
    random.seed(options.seed)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        site = Site(folder, options.database_url, name="emhub_bench_durability", sessions=6)
        from preprocessing import ingest
        from preprocessing.recount import recount

        assert_durable()
        for session in site.sessions:
            # The benchmarks' facility has summaries without rows.
            recount(session.pk, repair=True)
        # Two pairs share a session, and with it its summary and exposures' revision.
        pipelines = [
            Pipeline(site, session, ingest.open_run(session.pk, key=f"durability {n}", software="x")[0])
            for n, session in enumerate(site.sessions[n // 2] for n in range(CLIENTS))
        ]
        site.start()
        doubtful = 0
        try:
            for kill in range(1, options.kills + 1):
                stop = threading.Event()
                threads = [threading.Thread(target=each.stream, args=(stop,)) for each in pipelines]
                for thread in threads:
                    thread.start()
                time.sleep(random.uniform(0.05, options.longest))
                site.kill()
                stop.set()
                for thread in threads:
                    thread.join()
                doubtful += sum(bool(each.doubt or each.doubtful_picture) for each in pipelines)
                site.start()
                with site.client() as client:
                    for pipeline in pipelines:
                        pipeline.check(client)
                for session in {pipeline.session for pipeline in pipelines}:
                    recounted(session)
                if kill % 10 == 0 or kill == options.kills:
                    print(
                        f"{kill} kills, {sum(each.acknowledged for each in pipelines):,} posts acknowledged, "
                        f"{doubtful} cut off, {sum(len(each.known) for each in pipelines):,} micrographs, "
                        f"{sum(len(each.pictures) for each in pipelines):,} pictures: all there",
                        flush=True,
                    )
        except Broken as error:
            raise SystemExit(f"NOT KEPT after {kill} kills on {site.database}: {error}") from error
        finally:
            if site.process is not None:
                site.stop()
    print(f"{describe()}\n{site.database}: kept, in {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
