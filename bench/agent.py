"""What the agent costs a processing machine: a project of 50,000 micrographs, followed.

    .venv/bin/python -m bench.agent [--program relion] [--micrographs 50000] [--picks 100] [--seconds 60]
        [--project FOLDER]

A synthetic project is written, without images: of RELION 5 (tables, the micrographs' own STAR files and their
picks), of CryoSPARC 4 (`--program cryosparc`) or of Scipion 3 (`--program scipion`). `emhub-agent run` follows it in
a process of its own, posting to a stand-in site that answers at once and keeps nothing. Measured, with the process's
own processor time and memory as the kernel counts them:

- the first look, to the last answer; and that look's reading alone, in this process;
- looks that find nothing new, in this process, and as a share of one core over so many seconds in the agent;
- looks after ten new rows in each table; of CryoSPARC, whose jobs write their tables once they are done, after
  a job was done again that rejects ten micrographs more;
- the largest memory the agent ever had.
"""

import argparse
import gzip
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

from bench.machine import describe

SESSION = "bench-20261123-01"


class Sink:
    """A site that says yes to everything and counts."""

    def __init__(self):
        self.micrographs = self.calls = self.received = 0
        sink = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1

            def log_message(self, *arguments):
                pass

            def answer(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                sink.received += len(body)
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                data = json.dumps(sink.handle(self.command, self.path, body)).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_PATCH = answer

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def handle(self, method, path, body):
        self.calls += 1
        if path.endswith("/micrographs/") and method == "POST":
            # Counted without being parsed, so that the agent and not this is measured.
            count = body.count(b'"name":')
            self.micrographs += count
            return {"created": count, "updated": 0, "unchanged": 0, "revision": self.micrographs}
        if method == "GET":
            if "sessions" in path and path.endswith(f"{SESSION}/"):
                return {"name": SESSION, "status": "active"}
            return {"count": 0, "next": None, "results": [], "micrographs": [], "revision": 0, "more": False}
        return {"id": 1, "key": "bench", "status": "running", "parameters": {}}


# -- The project -------------------------------------------------------------------------------------------


def loop(block: str, columns: list[str], rows) -> str:
    head = "".join(f"_{name} #{place}\n" for place, name in enumerate(columns, 1))
    return f"\n# version 50001\n\ndata_{block}\n\nloop_\n{head}" + "".join(f"{row}\n" for row in rows)


OPTICS = loop(
    "optics",
    ["rlnOpticsGroupName", "rlnOpticsGroup", "rlnMicrographOriginalPixelSize", "rlnMicrographPixelSize"],
    ["opticsGroup1 1 0.83 0.83"],
)


def stem(number: int) -> str:
    square, hole = 1000 + number // 300, 10_000_000 + number // 4
    return f"Movies/GridSquare_{square}/Data/FoilHole_{hole}_Data_77_{number}_20261123_101500_fractions"


def motion_row(number: int) -> str:
    path = f"MotionCorr/job002/{stem(number)}"
    return f"{path}_PS.mrc {path}.mrc {path}.star 1 {10 + number % 97 / 9:.6f} 2.125000 {8 + number % 89:.6f}"


def ctf_row(number: int) -> str:
    path = f"MotionCorr/job002/{stem(number)}"
    spectrum = f"CtfFind/job003/{stem(number)}_PS.ctf:mrc"
    u = 12_000 + number % 7919
    return f"{path}.mrc 1 {spectrum} {u}.5 {u - 300}.25 31.5 0.1125 {3 + number % 101 / 50:.4f} 0.52"


def pick_row(number: int) -> str:
    return f"MotionCorr/job002/{stem(number)}.mrc AutoPick/job004/{stem(number)}_autopick.star"


TABLES = {
    "Import/job001/movies.star": (
        "movies",
        ["rlnMicrographMovieName", "rlnOpticsGroup"],
        lambda number: f"{stem(number)}.tiff 1",
    ),
    "MotionCorr/job002/corrected_micrographs.star": (
        "micrographs",
        [
            "rlnCtfPowerSpectrum",
            "rlnMicrographName",
            "rlnMicrographMetadata",
            "rlnOpticsGroup",
            "rlnAccumMotionTotal",
            "rlnAccumMotionEarly",
            "rlnAccumMotionLate",
        ],
        motion_row,
    ),
    "CtfFind/job003/micrographs_ctf.star": (
        "micrographs",
        [
            "rlnMicrographName",
            "rlnOpticsGroup",
            "rlnCtfImage",
            "rlnDefocusU",
            "rlnDefocusV",
            "rlnDefocusAngle",
            "rlnCtfFigureOfMerit",
            "rlnCtfMaxResolution",
            "rlnCtfIceRingDensity",
        ],
        ctf_row,
    ),
    "AutoPick/job004/autopick.star": (
        "coordinate_files",
        ["rlnMicrographName", "rlnMicrographCoordinates"],
        pick_row,
    ),
}

PIPELINE = """
# version 50001

data_pipeline_general

_rlnPipeLineJobCounter 5

data_pipeline_processes

loop_
_rlnPipeLineProcessName #1
_rlnPipeLineProcessAlias #2
_rlnPipeLineProcessTypeLabel #3
_rlnPipeLineProcessStatusLabel #4
Import/job001/ None relion.import.movies Running
MotionCorr/job002/ None relion.motioncorr.own Running
CtfFind/job003/ None relion.ctffind.ctffind4 Running
AutoPick/job004/ None relion.autopick.log Running

data_pipeline_input_edges

loop_
_rlnPipeLineEdgeFromNode #1
_rlnPipeLineEdgeProcess #2
Import/job001/movies.star MotionCorr/job002/
MotionCorr/job002/corrected_micrographs.star CtfFind/job003/
CtfFind/job003/micrographs_ctf.star AutoPick/job004/

data_pipeline_output_edges

loop_
_rlnPipeLineEdgeProcess #1
_rlnPipeLineEdgeToNode #2
Import/job001/ Import/job001/movies.star
MotionCorr/job002/ MotionCorr/job002/corrected_micrographs.star
CtfFind/job003/ CtfFind/job003/micrographs_ctf.star
AutoPick/job004/ AutoPick/job004/autopick.star
"""


def movie_file(root: Path, number: int) -> None:
    """The micrograph's own STAR file, by which its movie is known."""
    place = root / f"MotionCorr/job002/{stem(number)}.star"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(
        "\ndata_general\n\n_rlnImageSizeX 5760\n_rlnImageSizeY 4092\n"
        f"_rlnMicrographMovieName {stem(number)}.tiff\n_rlnMicrographBinning 1.0\n"
        "_rlnMicrographOriginalPixelSize 0.83\n\n"
    )


def pick_file(root: Path, number: int, picks: int) -> None:
    place = root / f"AutoPick/job004/{stem(number)}_autopick.star"
    place.parent.mkdir(parents=True, exist_ok=True)
    rows = (f"{(number * 37 + k * 53) % 5760}.5 {(number * 91 + k * 29) % 4092}.25 0.1" for k in range(picks))
    place.write_text(loop("", ["rlnCoordinateX", "rlnCoordinateY", "rlnAutopickFigureOfMerit"], rows))


def write_project(root: Path, count: int, picks: int) -> None:
    root.mkdir(parents=True, exist_ok=True)
    (root / "default_pipeline.star").write_text(PIPELINE)
    for number in range(count):
        movie_file(root, number)
        pick_file(root, number, picks)
    for path, (block, columns, row) in TABLES.items():
        place = root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(OPTICS + loop(block, columns, map(row, range(count))))


def grow(root: Path, first: int, count: int, picks: int) -> int:
    for number in range(first, first + count):
        movie_file(root, number)
        pick_file(root, number, picks)
    for path, (_, _, row) in TABLES.items():
        with open(root / path, "a") as handle:
            handle.writelines(f"{row(number)}\n" for number in range(first, first + count))
    return count


def count_relion(root: Path) -> int:
    with open(root / "AutoPick/job004/autopick.star") as handle:
        return sum(line.startswith("MotionCorr/") for line in handle)


class Program(NamedTuple):
    """How a program's project is written, counted and changed; a change tells how many micrographs it added."""

    first_file: str
    write: Callable[[Path, int, int], None]
    count: Callable[[Path], int]
    change: Callable[[Path, int, int, int], int]


PROGRAMS = ("relion", "cryosparc", "scipion")


def program(name: str) -> Program:
    """How this program's projects are made; what the others than RELION need is looked for only then."""
    if name == "relion":
        return Program("default_pipeline.star", write_project, count_relion, grow)
    from bench import projects

    if name == "cryosparc":
        return Program(
            "J1/job.json", projects.write_cryosparc, projects.count_cryosparc, projects.change_cryosparc
        )
    return Program("project.sqlite", projects.write_scipion, projects.count_scipion, projects.grow_scipion)


# -- Measuring ---------------------------------------------------------------------------------------------


def reading(name: str, root: Path, count: int, picks: int) -> int:
    """Time the reader alone in this process; return how many micrographs there are afterwards."""
    from emhub_agent.readers import READERS

    reader = READERS[name](str(root))
    first, found = timed(reader.look)
    assert len(found[0].micrographs) == count, len(found[0].micrographs)
    del found
    while reader.backlog:
        reader.look()
    idle = sorted(timed(reader.look)[0] for _ in range(9))[4]
    grown = []
    for _ in range(5):
        count += program(name).change(root, count, 10, picks)
        seconds, found = timed(reader.look)
        assert len(found[0].micrographs) == 10, len(found[0].micrographs)
        grown.append(seconds)
    print(f"first look                        {first * 1000:9.1f} ms processor time")
    print(f"a look that finds nothing new     {idle * 1000:9.1f} ms, 1/{first / idle:.0f} of the first")
    print(
        f"a look after ten changed          {sorted(grown)[2] * 1000:9.1f} ms, 1/{first / sorted(grown)[2]:.0f}"
    )
    return count


def timed(call):
    start = time.process_time()
    result = call()
    return time.process_time() - start, result


class Process:
    """The agent in a process of its own, and what the kernel says of it."""

    def __init__(self, name: str, root: Path, url: str, interval: float):
        config = root.parent / "bench-agent.toml"
        config.write_text(
            f'site = "{url}"\ninterval = {interval}\n[[watch]]\nprogram = "{name}"\nplace = "{root}"\n'
            f'session = "{SESSION}"\n'
        )
        self.process = subprocess.Popen(
            [sys.executable, "-m", "emhub_agent", "run", str(config)],
            env={**os.environ, "EMHUB_TOKEN": "bench.token", "no_proxy": "*"},
            stderr=subprocess.DEVNULL,
        )

    def processor(self) -> float:
        """Seconds of processor time so far, user and system."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory(self) -> tuple[float, float]:
        """Resident memory in MB, now and at most."""
        status = dict(
            line.split(":", 1) for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        )
        return tuple(int(status[name].split()[0]) / 1024 for name in ("VmRSS", "VmHWM"))

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(30)


def following(name: str, root: Path, count: int, picks: int, seconds: float, interval: float) -> None:
    sink = Sink()
    start = time.monotonic()
    agent = Process(name, root, sink.url, interval)
    try:
        while sink.micrographs < count:
            if agent.process.poll() is not None:
                raise SystemExit("the agent ended")
            time.sleep(0.2)
        time.sleep(2)
        first, elapsed = agent.processor(), time.monotonic() - start - 2
        print(f"everything sent                   {elapsed:9.1f} s, {first:.1f} s processor time")
        print(f"in                                {sink.calls:9d} calls, {sink.received / 1e6:.1f} MB")
        print(f"memory then                       {agent.memory()[1]:9.0f} MB at most")
        before = agent.processor()
        time.sleep(seconds)
        share = (agent.processor() - before) / seconds
        print(
            f"between changes, every {interval:g} s        {share * 100:9.2f} % of a core over {seconds:g} s"
        )
        before, sent = agent.processor(), sink.micrographs
        start = time.monotonic()
        for _ in range(6):
            count += program(name).change(root, count, 10, picks)
            time.sleep(interval)
        share = (agent.processor() - before) / (time.monotonic() - start)
        print(
            f"while ten change at every look    {share * 100:9.2f} % of a core, {sink.micrographs - sent} posted"
        )
        print(f"memory at the end                 {agent.memory()[1]:9.0f} MB at most")
    finally:
        agent.stop()
        sink.server.shutdown()


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--program", choices=PROGRAMS, default="relion")
    options.add_argument("--micrographs", type=int, default=50_000)
    options.add_argument("--picks", type=int, default=100)
    options.add_argument("--seconds", type=float, default=60)
    options.add_argument("--interval", type=float, default=10)
    options.add_argument("--project", help="where to write the project, or where it is from before")
    given = options.parse_args()
    print(describe())
    print(
        f"load average {os.getloadavg()[0]:.1f}; {given.micrographs:,} micrographs of {given.picks} picks each"
    )
    with tempfile.TemporaryDirectory(prefix="emhub-bench-") as folder:
        name = given.program
        root = Path(given.project or folder) / name
        count = given.micrographs
        if not (root / program(name).first_file).exists():
            program(name).write(root, count, given.picks)
        else:
            count = program(name).count(root)
        count = reading(name, root, count, given.picks)
        following(name, root, count, given.picks, given.seconds, given.interval)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"(this process, which read it too: {peak:.0f} MB)")


if __name__ == "__main__":
    main()
