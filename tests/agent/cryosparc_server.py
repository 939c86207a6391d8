"""A CryoSPARC server in memory, asked by the vendor's own library.

Version 5: the description of its API that the library builds itself from, and documents that the vendor's models
made. Version 4: JSON-RPC, with sessions as documents and exposures in a file. It can be told to be down, to fail
one call in so many, to refuse the password, and to forget who logged in, as a server does that was started anew.
"""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

from cryosparc.models.exposure import Exposure
from cryosparc.models.session import Session

EMAIL, PASSWORD = "agent@example.org", "correct horse"
START = datetime(2026, 11, 23, 7, 0, tzinfo=UTC)


def _operation(summary, returns, path=(), query=(), body=None):
    parameters = [{"name": name, "in": "path", "required": True, "schema": {}} for name in path]
    parameters += [{"name": name, "in": "query", "required": False, "schema": {}} for name in query]
    found = {
        "summary": summary,
        "parameters": parameters,
        "responses": {"200": {"description": "", **returns}},
    }
    if body:
        found["requestBody"] = {"content": {body: {"schema": {}}}}
    return found


def _many(model):
    schema = {"type": "array", "items": {"$ref": f"#/components/schemas/{model}"}}
    return {"content": {"application/json": {"schema": schema}}}


_JSON = {"content": {"application/json": {"schema": {}}}}
_FILE = {"content": {"application/octet-stream": {}}}
_TOKEN = {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Token"}}}}
_FIND = ("order", "after", "limit", "project_uid", "session_uid", "updated_at", "deleted")

OPENAPI = {
    "info": {"title": "stand-in", "version": "5"},
    "components": {"schemas": {}},
    "paths": {
        "/login": {"post": _operation("login", _TOKEN, body="application/x-www-form-urlencoded")},
        "/users/me": {"get": _operation("users.me", _JSON)},
        "/version": {"get": _operation("config.get_version", _JSON)},
        "/sessions": {"get": _operation("sessions.find", _many("Session"), query=_FIND)},
        "/exposures": {"get": _operation("exposures.find", _many("Exposure"), query=_FIND)},
        "/assets/{id}": {"get": _operation("assets.download", _FILE, path=["id"])},
        "/projects/{project_uid}/files": {
            "get": _operation("projects.download_file", _FILE, path=["project_uid"], query=["path"])
        },
    },
}


class LiveServer:
    """Sessions, exposures, files and assets, and the switches that make it misbehave."""

    def __init__(self, port: int = 0):
        self.sessions: dict[str, Session] = {}
        self.exposures: dict[tuple[str, int], Exposure] = {}
        self.files: dict[str, bytes] = {}
        self.assets: dict[str, bytes] = {}
        self.tokens: set[str] = set()
        self.clock = START
        self.asked: list[str] = []
        self.calls = 0
        self.fail_every = 0
        self.lock = threading.Lock()
        self.port = port
        self.server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> LiveServer:
        live = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1

            def log_message(self, *arguments):
                pass

            def do_GET(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                status, kind, data = live.answer(self.command, self.path, self.headers, body)
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)
                self.wfile.flush()

            do_POST = do_GET

        self.server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_port
        threading.Thread(
            target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        ).start()
        return self

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.tokens.clear()

    # what happens in it

    def tick(self) -> datetime:
        self.clock += timedelta(seconds=1)
        return self.clock

    def add_session(self, uid: str, **fields) -> Session:
        number = len(self.sessions) + 1
        found = {
            "_id": f"{number:024x}",
            "created_at": START,
            "updated_at": self.tick(),
            "uid": f"W{number}",
            "project_uid": "P3",
            "workspace_type": "live",
            "session_uid": uid,
            "session_dir": uid,
            "status": "running",
            "running_at": [START],
            "uid_num": number,
            "project_uid_num": 3,
            "session_uid_num": number,
            "errors": [],
            **fields,
        }
        with self.lock:
            self.sessions[uid] = Session.model_validate(found)
        return self.sessions[uid]

    def change_session(self, uid: str, **fields) -> None:
        document = self.sessions[uid].model_dump(by_alias=True)
        with self.lock:
            self.sessions[uid] = Session.model_validate({**document, "updated_at": self.tick(), **fields})

    def put(self, session: str, uid: int, **fields) -> None:
        """Make an exposure, or change one; groups and attributes are merged."""
        old = self.exposures.get((session, uid))
        found = {
            "_id": f"{len(self.exposures) + 1:024x}",
            "uid": uid,
            "project_uid": "P3",
            "session_uid": session,
            "exp_group_id": 1,
            "abs_file_path": f"/data/grid/FoilHole_{uid}_Data_1_{uid:02d}_20261123_07{uid:04d}_Fractions.tiff",
            "size": 1,
            "discovered_at": START,
        }
        if old is not None:
            found = old.model_dump(by_alias=True)
        for name in ("groups", "attributes"):
            found[name] = _merged(found.get(name) or {}, fields.pop(name, {}))
        found.update(fields)
        with self.lock:
            self.exposures[session, uid] = Exposure.model_validate({**found, "updated_at": self.tick()})

    # what is asked of it

    def answer(self, method, target, headers, body):
        with self.lock:
            url = urlsplit(target)
            path, query = unquote(url.path).removeprefix("/api/cmd"), parse_qs(url.query)
            self.calls += 1
            if self.fail_every and self.calls % self.fail_every == 0:
                return _json({"detail": "busy"}, 503)
            self.asked.append(path)
            if path == "/openapi.json":
                return _json(OPENAPI)
            if path == "/login":
                return self._login(body)
            if headers.get("Authorization", "").removeprefix("Bearer ") not in self.tokens:
                return _json({"detail": "Not authenticated"}, 401)
            if path == "/users/me":
                return _json({"email": EMAIL})
            if path == "/version":
                return _json("v5.0.3")
            if path == "/sessions":
                return self._page(list(self.sessions.values()), query)
            if path == "/exposures":
                return self._page(list(self.exposures.values()), query)
            if path.startswith("/assets/"):
                return _file(self.assets.get(path.split("/")[2]))
            if path.endswith("/files"):
                return _file(self.files.get(query["path"][0]))
            return _json({"detail": "Not found"}, 404)

    def _login(self, body):
        import hashlib

        form = {name: values[0] for name, values in parse_qs(body.decode()).items()}
        expected = hashlib.sha256(PASSWORD.encode()).hexdigest()
        if (form.get("username"), form.get("password")) != (EMAIL, expected):
            return _json({"detail": "Incorrect username or password"}, 401)
        token = f"token-{len(self.asked)}"
        self.tokens.add(token)
        return _json({"access_token": token, "token_type": "bearer"})

    @staticmethod
    def _page(rows, query):
        for name in ("project_uid", "session_uid"):
            if name in query:
                rows = [row for row in rows if getattr(row, name) in query[name]]
        if "updated_at" in query:
            first, last = (datetime.fromisoformat(value) for value in query["updated_at"])
            rows = [row for row in rows if first <= row.updated_at <= last]
        is_deleted = query.get("deleted", ["false"])[0].lower() == "true"
        rows = sorted((row for row in rows if row.deleted is is_deleted), key=lambda row: row.id)
        if "after" in query:
            rows = [row for row in rows if row.id > query["after"][0]]
        rows = rows[: int(query.get("limit", ["100"])[0])]
        return _json([json.loads(row.model_dump_json(by_alias=True)) for row in rows])


def _merged(old, new):
    found = dict(old)
    for name, value in new.items():
        inner = found.get(name)
        found[name] = _merged(inner, value) if isinstance(value, dict) and isinstance(inner, dict) else value
    return found


def _json(value, status=200):
    return status, "application/json", json.dumps(value).encode()


def _file(data):
    if data is None:
        return _json({"detail": "Not found"}, 404)
    return 200, "application/octet-stream", data
