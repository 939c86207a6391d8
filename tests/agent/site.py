"""A site in memory that keeps to the REST contract, so that the agent is tested without Django.

It can be told to be down, to fail one call in so many, to refuse a token, items or everything.
"""

from __future__ import annotations

import gzip
import json
import threading
import time
from email.parser import BytesParser
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN = "stand-in-token"
SESSION = "2026-11-23-krios-01"

MEASURED = {
    "motion_total",
    "motion_early",
    "motion_late",
    "defocus_u",
    "defocus_v",
    "defocus_angle",
    "phase_shift",
    "ctf_resolution",
    "ctf_score",
    "ice_thickness",
    "particles",
    "coordinates",
    "rejected",
}
EXPOSURE = {
    "acquired_at",
    "grid_square",
    "foil_hole",
    "stage_x",
    "stage_y",
    "beam_shift_x",
    "beam_shift_y",
}
SESSION_FIELDS = {
    "status",
    "camera",
    "voltage_kv",
    "cs_mm",
    "magnification",
    "pixel_size",
    "dose_per_frame",
    "total_dose",
    "frames",
    "exposure_time",
    "energy_slit",
    "spot_size",
    "data_path",
    "data_files",
    "data_movies",
    "data_bytes",
    "last_file_at",
}
RUN_FIELDS = {
    "key",
    "software",
    "version",
    "host",
    "label",
    "parameters",
    "pixel_size",
    "width",
    "height",
    "particle_diameter",
}
STATUSES = {"queued", "running", "finished", "failed", "stopped"}
#: So many items at most are named by a refusal.
MOST_REPORTED = 5


class Answer(Exception):
    def __init__(self, status, body):
        super().__init__(status)
        self.status, self.body = status, body


class Run:
    def __init__(self, number, fields):
        self.fields = {"id": number, "status": "running", "parameters": {}, **fields}
        self.micrographs = {}
        self.classes = {}
        self.events = []
        self.images = {}
        self.revision = 0

    def next(self):
        self.revision += 1
        return self.revision


class Site:
    """Everything the stand-in knows, and the switches that make it misbehave."""

    def __init__(self):
        self.sessions = {SESSION: self.session(SESSION)}
        self.exposures = {}  # (session, name): row
        self.runs = {}
        self.calls = []  # (method, path) of every call that was answered 2xx
        self.asked = 0
        self.received = 0  # bytes of bodies, as they came over the network
        self.fail_every = 0  # answer every so manyth call with 503, half of them after doing what was asked
        self.retry_after = None
        self.is_refusing_token = False
        self.is_archived = False
        self.refused_names = set()
        self.refused_fields = set()  # of a session
        self.is_vague = False  # refuse without saying which item
        self.largest_batch = 0
        self.largest_body = None  # bytes; more are answered with 413
        self.lock = threading.Lock()
        self.server = None
        self.port = None

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    @staticmethod
    def session(name, **fields):
        row = {"name": name, "status": "active", "microscope": "krios1", "start": "2026-11-23T04:00:00Z"}
        return {**dict.fromkeys(SESSION_FIELDS), **row, **fields}

    def start(self):
        site = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # headers and body in one packet

            def log_message(self, *arguments):
                pass

            def do(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                site.received += len(body)
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                status, answer, headers = site.handle(self.command, self.path, self.headers, body)
                data = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)
                self.wfile.flush()

            do_GET = do_POST = do_PATCH = do

        self.server = ThreadingHTTPServer(("127.0.0.1", self.port or 0), Handler)
        self.port = self.server.server_port
        threading.Thread(
            target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        ).start()
        return self

    def stop(self):
        self.server.shutdown()
        self.server.server_close()

    # What a call does.

    def handle(self, method, path, headers, body):
        with self.lock:
            self.asked += 1
            fails = self.fail_every and self.asked % self.fail_every == 0
            if fails and self.asked % (2 * self.fail_every) == 0:
                return self._failure()
            try:
                if self.is_refusing_token or headers.get("Authorization") != f"Token {TOKEN}":
                    raise Answer(401, {"detail": "Invalid token."})
                if self.largest_body is not None and len(body) > self.largest_body:
                    raise Answer(413, {"detail": "too large"})
                status, answer = self.route(method, urlsplit(path), headers, body)
            except Answer as refusal:
                return refusal.status, refusal.body, {}
            if fails:
                return self._failure()  # done, but the answer is lost
            self.calls.append((method, urlsplit(path).path))
            return status, answer, {}

    def _failure(self):
        return 503, {"detail": "busy"}, {"Retry-After": self.retry_after} if self.retry_after else {}

    def route(self, method, url, headers, body):
        parts = [unquote(part) for part in url.path.strip("/").split("/")]
        if parts[:2] != ["api", "v1"] or not url.path.endswith("/"):
            raise Answer(404, {"detail": "Not found."})
        query = {name: values[-1] for name, values in parse_qs(url.query).items()}
        if parts[2] == "sessions":
            if len(parts) == 3 and method == "GET":
                return 200, self.get_sessions(url)
            if parts[3] not in self.sessions:
                raise Answer(404, {"detail": "Not found."})
            session = self.sessions[parts[3]]
            if method != "GET" and (self.is_archived or session["status"] == "archived"):
                raise Answer(409, {"detail": "The session is archived."})
            if len(parts) == 4:
                return 200, self.change_session(session, body) if method == "PATCH" else session
            if parts[4:] == ["runs"] and method == "POST":
                return self.create_run(parts[3], json.loads(body))
            if parts[4:] == ["runs"]:
                rows = [run.fields for run in self.runs.values() if run.session == parts[3]]
                return 200, self.page(rows, query)
            if parts[4:] == ["exposures"]:
                if method == "POST":
                    return self.post_exposures(parts[3], query, json.loads(body)["exposures"])
                return 200, self.get_exposures(parts[3], query)
        elif parts[2] == "runs":
            run = self.runs.get(int(parts[3]))
            if run is None:
                raise Answer(404, {"detail": "Not found."})
            if method != "GET" and self.is_archived:
                raise Answer(409, {"detail": "The session is archived."})
            if len(parts) == 4:
                return self.change_run(run, method, body)
            return getattr(self, f"{method.lower()}_{parts[4]}")(run, query, headers, body)
        raise Answer(405, {"detail": "Method not allowed."})

    def get_sessions(self, url):
        query = parse_qs(url.query)
        rows = [
            row
            for row in self.sessions.values()
            if row["status"] in query.get("status", [row["status"]])
            and row["microscope"] in query.get("microscope", [row["microscope"]])
        ]
        return self.page(rows, {name: values[-1] for name, values in query.items()})

    def change_session(self, session, body):
        fields = json.loads(body or b"{}")
        wrong = {name: ["Unknown field."] for name in fields if name not in SESSION_FIELDS}
        wrong.update({name: ["out of range"] for name in fields if name in self.refused_fields})
        if wrong:
            raise Answer(400, wrong)
        session.update(fields)
        return session

    def post_exposures(self, session, query, items):
        known = {name: row for (of, name), row in self.exposures.items() if of == session}
        counts, rows = self.upsert("exposures", EXPOSURE, {}, known, items)
        if "dry_run" in query:
            return 200, {**counts, "dry_run": True}
        for row in rows:
            row["revision"] = len(self.calls) * 1000 + len(self.exposures) + 1
            self.exposures[session, row["name"]] = row
        return 200, counts

    def get_exposures(self, session, query):
        rows = [row for (of, _), row in self.exposures.items() if of == session]
        rows = [row for row in rows if row["revision"] > int(query.get("after", 0))]
        rows.sort(key=lambda row: row["revision"])
        revision = rows[-1]["revision"] if rows else int(query.get("after", 0))
        return {"exposures": rows, "revision": revision, "more": False}

    def create_run(self, session, fields):
        self.check(fields, RUN_FIELDS)
        for run in self.runs.values():
            if (run.session, run.fields["key"]) == (session, fields["key"]):
                return 200, run.fields
        run = Run(len(self.runs) + 1, fields)
        run.session = session
        self.runs[run.fields["id"]] = run
        return 201, run.fields

    def change_run(self, run, method, body):
        if method == "PATCH":
            fields = json.loads(body or b"{}")
            self.check(fields, RUN_FIELDS - {"key", "software", "host", "label"} | {"status"})
            if fields.get("status", "running") not in STATUSES:
                raise Answer(400, {"status": ["not a status"]})
            run.fields["parameters"] = {**run.fields["parameters"], **fields.pop("parameters", {})}
            run.fields.update(fields)
        return 200, run.fields

    def check(self, fields, known):
        for name in fields:
            if name not in known:
                raise Answer(400, {name: ["Unknown field."]})

    def post_micrographs(self, run, query, headers, body):
        items = json.loads(body)["micrographs"]
        self.refuse_second_names(run, items)
        pictures = {"micrograph_image": None, "psd_image": None}
        counts, rows = self.upsert("micrographs", MEASURED, pictures, run.micrographs, items)
        if "dry_run" in query:
            return 200, {**counts, "revision": run.revision, "dry_run": True}
        for row in rows:
            row["revision"] = run.next()
            run.micrographs[row["name"]] = row
        return 200, {**counts, "revision": run.revision}

    def refuse_second_names(self, run, items):
        """As the site does: whatever a movie was called first it is called in this run for good."""
        first = {self.identity(name): name for name in run.micrographs}
        errors = []
        for index, item in enumerate(items):
            other = first.setdefault(self.identity(item["name"]), item["name"])
            if other != item["name"]:
                wrong = {"name": [f"This name means the same exposure as {other!r}."]}
                errors.append({"index": index, "name": item["name"], "errors": wrong, "same_as": other})
        if errors:
            raise Answer(409, {"errors": errors[:MOST_REPORTED]})

    @staticmethod
    def identity(name):
        """Enough of what the site makes of a name: without its extension, and a folder that says nothing."""
        return name.removeprefix("Movies/").rsplit(".", 1)[0]

    def upsert(self, kind, fields, unset, known, items):
        """Check a batch; return what it comes to and the rows that are new or changed."""
        if not 1 <= len(items) <= 1000:
            raise Answer(400, {kind: ["1 to 1,000"]})
        self.largest_batch = max(self.largest_batch, len(items))
        errors = []
        for index, item in enumerate(items):
            wrong = {name: ["Unknown field."] for name in item if name not in fields | {"name"}}
            if item["name"] in self.refused_names:
                wrong["name"] = ["not a name"]
            if (item.get("ctf_resolution") or 1) >= 1000:
                wrong["ctf_resolution"] = ["out of range"]
            if abs(item.get("stage_x") or 0) > 100_000:
                wrong["stage_x"] = ["out of range"]
            if wrong:
                errors.append({"index": index, "name": item["name"], "errors": wrong})
        if errors:
            raise Answer(400, {"detail": "no"} if self.is_vague else {"errors": errors})
        counts = {"created": 0, "updated": 0, "unchanged": 0}
        rows = []
        for item in items:
            old = known.get(item["name"])
            row = {**(old or {"name": item["name"], **unset}), **item}
            if old is None:
                counts["created"] += 1
            elif {**old, "revision": 0} == {**row, "revision": 0}:
                counts["unchanged"] += 1
                continue
            else:
                counts["updated"] += 1
            rows.append(row)
        return counts, rows

    def get_micrographs(self, run, query, headers, body):
        after = int(query.get("after", 0))
        rows = sorted(run.micrographs.values(), key=lambda row: row["revision"])
        rows = [row for row in rows if row["revision"] > after]
        page = rows[:7]  # small, so that several pages are asked for
        revision = page[-1]["revision"] if page else run.revision
        shown = [{key: value for key, value in row.items() if key != "coordinates"} for row in page]
        return 200, {"micrographs": shown, "revision": revision, "more": len(rows) > len(page)}

    def post_images(self, run, query, headers, body):
        message = BytesParser(policy=HTTP).parsebytes(
            b"Content-Type: " + headers["Content-Type"].encode() + b"\r\n\r\n" + body
        )
        fields, data = {}, b""
        for part in message.iter_parts():
            name = part.get_param("name", header="content-disposition")
            if name == "file":
                data = part.get_payload(decode=True)
            else:
                fields[name] = part.get_payload(decode=True).decode()
        kind = fields["kind"]
        if kind == "class_average":
            key = (fields["job"], int(fields["iteration"]), int(fields["number"]))
            row, place = run.classes.get(key), "image"
            identity = (kind, *key)
        else:
            row, place = run.micrographs.get(fields["micrograph"]), f"{kind}_image"
            identity = (kind, fields["micrograph"])
        if row is None:
            raise Answer(404 if kind != "class_average" else 400, {"detail": "No such row."})
        row[place] = f"/media/{len(data)}"
        row["revision"] = run.next()
        run.images.setdefault(identity, []).append(data)
        return 201, {"url": row[place]}

    def post_classes(self, run, query, headers, body):
        fields = json.loads(body)
        counts = {"created": 0, "updated": 0, "unchanged": 0}
        for item in fields["classes"]:
            self.check(item, {"number", "particles", "resolution"})
            key = (fields["job"], fields["iteration"], item["number"])
            old = run.classes.get(key)
            new = {"image": None, **(old or {}), "job": key[0], "iteration": key[1], **item}
            counts["created" if old is None else "unchanged" if old == new else "updated"] += 1
            run.classes[key] = new
        return 200, counts

    def get_classes(self, run, query, headers, body):
        return 200, self.page(list(run.classes.values()), query)

    def post_events(self, run, query, headers, body):
        fields = json.loads(body)
        self.check(fields, {"level", "text", "at"})
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        run.events.append({"at": now, **fields, "id": len(run.events) + 1})
        return 201, run.events[-1]

    def get_events(self, run, query, headers, body):
        return 200, self.page(run.events[::-1], query)

    def page(self, rows, query):
        size, number = 20, int(query.get("page", 1))
        rest = rows[(number - 1) * size :]
        more = f"{self.url}/?page={number + 1}" if len(rest) > size else None
        return {"count": len(rows), "next": more, "previous": None, "results": rest[:size]}
