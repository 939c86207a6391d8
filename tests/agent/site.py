"""A site in memory that keeps to the REST contract, so that the agent is tested without Django.

It can be told to be down, to fail one call in so many, to refuse a token, items or everything.
"""

from __future__ import annotations

import json
import threading
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
        self.sessions = {SESSION: {"name": SESSION, "status": "active"}}
        self.runs = {}
        self.calls = []  # (method, path) of every call that was answered 2xx
        self.asked = 0
        self.fail_every = 0  # answer every so manyth call with 503, half of them after doing what was asked
        self.retry_after = None
        self.is_refusing_token = False
        self.is_archived = False
        self.refused_names = set()
        self.is_vague = False  # refuse without saying which item
        self.largest_batch = 0
        self.lock = threading.Lock()
        self.server = None
        self.port = None

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def start(self):
        site = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # headers and body in one packet

            def log_message(self, *arguments):
                pass

            def do(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
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
            if parts[3] not in self.sessions:
                raise Answer(404, {"detail": "Not found."})
            if len(parts) == 4 and method == "GET":
                return 200, self.sessions[parts[3]]
            if parts[4:] == ["runs"] and method == "POST":
                return self.create_run(parts[3], json.loads(body))
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
        if not 1 <= len(items) <= 1000:
            raise Answer(400, {"micrographs": ["1 to 1,000"]})
        self.largest_batch = max(self.largest_batch, len(items))
        errors = []
        for index, item in enumerate(items):
            wrong = {name: ["Unknown field."] for name in item if name not in MEASURED | {"name"}}
            if item["name"] in self.refused_names:
                wrong["name"] = ["not a name"]
            if (item.get("ctf_resolution") or 1) >= 1000:
                wrong["ctf_resolution"] = ["out of range"]
            if wrong:
                errors.append({"index": index, "name": item["name"], "errors": wrong})
        if errors:
            raise Answer(400, {"detail": "no"} if self.is_vague else {"errors": errors})
        counts = {"created": 0, "updated": 0, "unchanged": 0}
        for item in items:
            name = item["name"]
            old = run.micrographs.get(name)
            row = dict(old or {"name": name, "micrograph_image": None, "psd_image": None})
            row.update(item)
            if old is None:
                counts["created"] += 1
            elif {**old, "revision": 0} == {**row, "revision": 0}:
                counts["unchanged"] += 1
                continue
            else:
                counts["updated"] += 1
            row["revision"] = run.next()
            run.micrographs[name] = row
        return 200, {**counts, "revision": run.revision}

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
        run.events.append({"at": "2026-11-23T04:00:00Z", **fields, "id": len(run.events) + 1})
        return 201, run.events[-1]

    def get_events(self, run, query, headers, body):
        return 200, self.page(run.events[::-1], query)

    def page(self, rows, query):
        size, number = 20, int(query.get("page", 1))
        rest = rows[(number - 1) * size :]
        more = f"{self.url}/?page={number + 1}" if len(rest) > size else None
        return {"count": len(rows), "next": more, "previous": None, "results": rest[:size]}
