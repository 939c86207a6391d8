"""Micrographs per second: through HTTP, given to `ingest` in process, by the ORM's bulk_create, by the raw route.

    .venv/bin/python -m bench.ingest [--rounds 4] [--batches 4] [--database-url postgres://...]

A micrograph has 18 fields. Twelve measured ones and its name are posted to the run (`insert`, which finds or makes
its exposure); its exposure's five (acquired_at, stage_x, stage_y, beam_shift_x, beam_shift_y) are posted by their
name to the session. Batches have 500. What is timed, in turns, so that a machine whose speed drifts favours none:

    exposures   500 exposures that are new
    insert      500 micrographs that are new, of exposures that are known
    both        the two together: 500 micrographs with all 18 fields
    insert all  500 micrographs that are new, of exposures that are new too
    update      500 known micrographs, every measured field with another value

`HTTP` is gunicorn as `make serve` starts it, by one client and by four, each on a session and run of its own, from
prepared bytes. `ingest` is preprocessing.ingest with reports already decoded. `bulk_create` and `raw` write the same
columns of both tables in one transaction a batch, and neither compare, count nor lock: bulk_create(update_conflicts)
and, for SQLite, executemany; for PostgreSQL COPY, for the update COPY to a temporary table and one UPDATE.

Then single micrographs by four clients, new ones (--singles seconds each), against two calls that do nothing: a view of
the API that only authenticates, and a run's empty PATCH, a heartbeat that is not due. Both pass everything that calls
of the API pass on their way. With the CPU time that the server, and PostgreSQL's processes for it, used a call, as
client, server and database share the machine with whatever else it does.
"""

import argparse
import datetime
import itertools
import os
import random
import statistics
import tempfile
import threading
import time

import orjson

from bench.machine import describe
from bench.server import Site

BATCH = 500
CLIENTS = 4
STEPS = ("exposures", "insert", "both", "insert all", "update")
WAYS = ("HTTP, 4 clients", "HTTP, 1 client", "ingest", "bulk_create", "raw")
MEASURED = (
    "motion_total", "motion_early", "motion_late", "defocus_u", "defocus_v", "defocus_angle", "phase_shift",
    "ctf_resolution", "ctf_score", "ice_thickness", "particles", "rejected",
)  # fmt: skip
OF_EXPOSURE = ("acquired_at", "stage_x", "stage_y", "beam_shift_x", "beam_shift_y")
START = datetime.datetime(2026, 11, 23, tzinfo=datetime.UTC)
numbers = itertools.count(10_000_000)


def names(count: int) -> list[str]:
    return [f"Movies/FoilHole_{next(numbers)}_Data_1_2_20261123_101500_fractions.tiff" for _ in range(count)]


def measured() -> dict:
    uniform = random.uniform
    return {
        "motion_total": uniform(2, 20), "motion_early": uniform(1, 5), "motion_late": uniform(2, 15),
        "defocus_u": uniform(8000, 22000), "defocus_v": uniform(8000, 22000),
        "defocus_angle": uniform(0, 180), "phase_shift": uniform(0, 180),
        "ctf_resolution": uniform(2.8, 8), "ctf_score": uniform(0, 0.4),
        "ice_thickness": uniform(0, 3), "particles": random.randrange(100, 400),
        "rejected": random.random() < 0.1,
    }  # fmt: skip


def of_exposure(number: int) -> dict:
    return {
        "acquired_at": START + datetime.timedelta(seconds=number % 80_000),
        "stage_x": random.uniform(-900, 900), "stage_y": random.uniform(-900, 900),
        "beam_shift_x": random.uniform(-5, 5), "beam_shift_y": random.uniform(-5, 5),
    }  # fmt: skip


def batch(chosen: list[str]) -> dict[str, list[dict]]:
    """The items of one batch, by what is posted: exposures, micrographs, and micrographs with other values."""
    return {
        "exposures": [{"name": name} | of_exposure(number) for number, name in enumerate(chosen)],
        "insert": [{"name": name} | measured() for name in chosen],
        "update": [{"name": name} | measured() for name in chosen],
    }


class Http:
    """As pipelines post, by so many clients at once."""

    def __init__(self, site: Site, clients: int, places: list):
        self.places = places[:clients]
        self.clients = [site.client() for _ in self.places]

    def prepare(self, step: str, batches: list[list[dict]]) -> list:
        kind = "exposures" if step == "exposures" else "micrographs"
        return [orjson.dumps({kind: items}) for items in batches]

    def write(self, step: str, prepared: list) -> None:
        share = len(prepared) // len(self.clients)

        def post(n: int) -> None:
            session, run = self.places[n]
            path = (
                f"/api/v1/sessions/{session.name}/exposures/"
                if step == "exposures"
                else f"/api/v1/runs/{run.pk}/micrographs/"
            )
            for body in prepared[n * share : (n + 1) * share]:
                self.clients[n].must_post(path, body)

        together(len(self.clients), post)


class InProcess:
    def __init__(self, place):
        self.session, self.run = place

    def prepare(self, step: str, batches: list[list[dict]]) -> list:
        from preprocessing.identity import identity
        from preprocessing.ingest import Report

        return [
            [
                Report(item["name"], identity(item["name"]), {k: v for k, v in item.items() if k != "name"})
                for item in items
            ]
            for items in batches
        ]

    def write(self, step: str, prepared: list) -> None:
        from preprocessing import ingest

        for reports in prepared:
            if step == "exposures":
                ingest.record_exposures(self.session.pk, reports)
            else:
                ingest.record_micrographs(self.session.pk, self.run.pk, reports)


class Plain:
    """What bulk_create and raw have in common: rows in memory, keys known beforehand where rows are changed."""

    def __init__(self, place):
        self.session, self.run = place
        self.revision = 0

    def prepare(self, step: str, batches: list[list[dict]]) -> list:
        from preprocessing.identity import identity

        return [(items, [identity(item["name"]) for item in items]) for items in batches]

    def exposure_ids(self, identities: list[str]) -> dict[str, int]:
        from preprocessing.models import Exposure

        found = Exposure.objects.filter(session=self.session, identity__in=identities)
        return dict(found.values_list("identity", "pk"))

    def write(self, step: str, prepared: list) -> None:
        from django.db import transaction

        for items, identities in prepared:
            with transaction.atomic():
                if step in ("exposures", "insert all"):
                    self.insert_exposures(items, identities, full=step == "exposures")
                if step != "exposures":
                    ids = self.exposure_ids(identities)
                    self.write_micrographs(items, [ids[each] for each in identities], step == "update")


class BulkCreate(Plain):
    def insert_exposures(self, items, identities, full):
        from preprocessing.models import Exposure

        Exposure.objects.bulk_create(
            [
                Exposure(session=self.session, identity=each, name=item["name"], revision=n,
                         **({name: item[name] for name in OF_EXPOSURE} if full else {}))
                for n, (item, each) in enumerate(zip(items, identities, strict=True))
            ],
            update_conflicts=True, unique_fields=["session", "identity"],
            update_fields=[*OF_EXPOSURE, "revision"],
        )  # fmt: skip

    def write_micrographs(self, items, exposures, update):
        from preprocessing.models import Micrograph

        Micrograph.objects.bulk_create(
            [
                Micrograph(run=self.run, exposure_id=exposure, name=item["name"], revision=n,
                           **{name: item[name] for name in MEASURED})
                for n, (item, exposure) in enumerate(zip(items, exposures, strict=True))
            ],
            update_conflicts=True, unique_fields=["run", "exposure"], update_fields=[*MEASURED, "revision"],
        )  # fmt: skip


class Raw(Plain):
    def insert(self, table, columns, rows):
        from django.db import connection

        with connection.cursor() as cursor:
            if connection.vendor == "postgresql":
                with cursor.copy(f"COPY {table} ({', '.join(columns)}) FROM STDIN") as copy:
                    for row in rows:
                        copy.write_row(row)
            else:
                cursor.connection.executemany(
                    f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})",
                    rows,
                )

    def insert_exposures(self, items, identities, full):
        columns = ["session_id", "identity", "name", "grid_square", "foil_hole", "verdict", "verdict_reason",
                   "revision", "created_at", *(OF_EXPOSURE if full else ())]  # fmt: skip
        now = START.isoformat(" ")
        rows = []
        for n, (item, each) in enumerate(zip(items, identities, strict=True)):
            row = (self.session.pk, each, item["name"], "", "", "", "", n, now)
            if full:
                acquired, *others = (item[name] for name in OF_EXPOSURE)
                row += (acquired.isoformat(" "), *others)
            rows.append(row)
        self.insert("preprocessing_exposure", columns, rows)

    def write_micrographs(self, items, exposures, update):
        from django.db import connection

        table = "preprocessing_micrograph"
        if not update:
            columns = ["run_id", "exposure_id", "name", *MEASURED, "particles_counted", "micrograph_image",
                       "psd_image", "revision", "created_at"]  # fmt: skip
            now = START.isoformat(" ")
            self.insert(
                table,
                columns,
                [
                    (self.run.pk, exposure, item["name"], *(item[name] for name in MEASURED),
                     False, "", "", n, now)
                    for n, (item, exposure) in enumerate(zip(items, exposures, strict=True))
                ],
            )  # fmt: skip
            return
        rows = [
            (*(item[name] for name in MEASURED), 0, exposure)
            for item, exposure in zip(items, exposures, strict=True)
        ]
        columns = [*MEASURED, "revision", "exposure_id"]
        with connection.cursor() as cursor:
            if connection.vendor == "postgresql":
                names = ", ".join(columns)
                cursor.execute(
                    f"CREATE TEMPORARY TABLE news ON COMMIT DROP AS SELECT {names} FROM {table} LIMIT 0"
                )
                with cursor.copy(f"COPY news ({names}) FROM STDIN") as copy:
                    for row in rows:
                        copy.write_row(row)
                assignments = ", ".join(f"{name} = news.{name}" for name in columns[:-1])
                cursor.execute(
                    f"UPDATE {table} SET {assignments} FROM news "
                    f"WHERE {table}.run_id = {self.run.pk} AND {table}.exposure_id = news.exposure_id"
                )
            else:
                assignments = ", ".join(f"{name} = ?" for name in columns[:-1])
                cursor.connection.executemany(
                    f"UPDATE {table} SET {assignments} WHERE run_id = {self.run.pk} AND exposure_id = ?",
                    rows,
                )


def together(count: int, work) -> None:
    """`work(n)` in so many threads; raises what one of them raised."""
    errors = []

    def guarded(n):
        try:
            work(n)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def batches(site: Site, places: list, options) -> None:
    ways = {
        "HTTP, 4 clients": Http(site, CLIENTS, places),
        "HTTP, 1 client": Http(site, 1, places[CLIENTS:]),
        "ingest": InProcess(places[CLIENTS + 1]),
        "bulk_create": BulkCreate(places[CLIENTS + 2]),
        "raw": Raw(places[CLIENTS + 3]),
    }
    spent = {(way, step): 0.0 for way in WAYS for step in STEPS}
    for round_number in range(options.rounds + 1):
        for way, writer in ways.items():
            known = [batch(names(BATCH)) for _ in range(options.batches)]
            unknown = [batch(names(BATCH))["insert"] for _ in range(options.batches)]
            for step in ("exposures", "insert", "update", "insert all"):
                prepared = writer.prepare(
                    step, unknown if step == "insert all" else [each[step] for each in known]
                )
                begin = time.perf_counter()
                writer.write(step, prepared)
                if round_number:  # The first one warms all of them.
                    spent[way, step] += time.perf_counter() - begin
    for way in WAYS:
        spent[way, "both"] = spent[way, "exposures"] + spent[way, "insert"]
    count = BATCH * options.batches * options.rounds
    print(f"{site.database}, batches of {BATCH}, {count:,} rows of each: rows per second")
    print(f"{'':<30}" + "".join(f"{step:>12}" for step in STEPS))
    for way in WAYS:
        print(f"{way:<30}" + "".join(f"{count / spent[way, step]:>12,.0f}" for step in STEPS))
    for one, other in (
        ("HTTP, 1 client", "ingest"), ("HTTP, 4 clients", "ingest"), ("ingest", "bulk_create"),
        ("ingest", "raw"), ("HTTP, 4 clients", "raw"),
    ):  # fmt: skip
        ratios = "".join(f"{spent[other, step] / spent[one, step]:>12.2f}" for step in STEPS)
        print(f"{f'{one} / {other}':<30}{ratios}")


def singles(site: Site, places: list, seconds: float) -> None:
    """Single posts against calls that do nothing, second by second in turns."""
    kinds = ("nothing", "heartbeat", "single")
    took: dict[str, list[float]] = {kind: [] for kind in kinds}
    rates: dict[str, list[float]] = {kind: [] for kind in kinds}
    processor = dict.fromkeys(kinds, 0.0)
    clients = [site.client() for _ in range(CLIENTS)]
    turns = max(2, round(seconds / 2))
    for turn in range(turns + 1):
        for kind in kinds:
            mine: list[list[float]] = [[] for _ in clients]
            end = time.perf_counter() + seconds / turns

            def call(n, kind=kind, mine=mine, end=end):
                run = f"/api/v1/runs/{places[n][1].pk}/"
                while time.perf_counter() < end:
                    body = orjson.dumps({"micrographs": [{"name": names(1)[0]} | measured()]})
                    begin = time.perf_counter()
                    if kind == "single":
                        clients[n].must_post(f"{run}micrographs/", body)
                    elif kind == "nothing":
                        clients[n].must_post("/api/v1/nothing/", body)
                    elif clients[n].request("PATCH", run)[0] != 200:
                        raise SystemExit("The heartbeat was refused.")
                    mine[n].append(time.perf_counter() - begin)

            used, begin = site.processor(), time.perf_counter()
            together(CLIENTS, call)
            if turn:
                processor[kind] += site.processor() - used
                together_took = [each for one in mine for each in one]
                took[kind] += together_took
                rates[kind].append(len(together_took) / (time.perf_counter() - begin))
    print(
        f"{site.database}, one micrograph a post, {CLIENTS} clients, {len(took['single']):,} posts; "
        f"load {os.getloadavg()[0]:.1f}"
    )
    rate = {kind: statistics.mean(each) for kind, each in rates.items()}
    cost = {kind: processor[kind] / len(each) * 1000 for kind, each in took.items()}
    for kind, each in took.items():
        each.sort()
        print(
            f"{kind:<18}{rate[kind]:>10,.0f} a second   median {each[len(each) // 2] * 1000:6.1f} ms"
            f"   p95 {each[int(len(each) * 0.95)] * 1000:6.1f} ms   longest {each[-1] * 1000:6.1f} ms"
            f"   CPU {cost[kind]:5.2f} ms"
        )
    for kind in kinds[:-1]:
        print(
            f"{f'single / {kind}':<18}{rate['single'] / rate[kind]:>10.2f}"
            f"   by the server's CPU {cost[kind] / cost['single']:.2f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument(
        "--batches", type=int, default=4, help="of each step and way in a round; four or more"
    )
    parser.add_argument("--singles", type=float, default=10, help="seconds of single posts; 0 for none")
    parser.add_argument("--only-singles", action="store_true")
    parser.add_argument("--database-url", default="")
    options = parser.parse_args()
    options.batches = max(CLIENTS, options.batches - options.batches % CLIENTS)
    with tempfile.TemporaryDirectory() as folder:
        site = Site(folder, options.database_url, name="emhub_bench_ingest")
        from preprocessing import ingest

        places = [
            (session, ingest.open_run(session.pk, key="bench ingest", software="RELION")[0])
            for session in site.sessions
        ]
        site.start()
        try:
            print(describe())
            if not options.only_singles:
                batches(site, places, options)
            if options.singles:
                singles(site, places, options.singles)
        finally:
            site.stop()


if __name__ == "__main__":
    main()
