"""A site of its own for a benchmark: an empty database, gunicorn as `make serve` starts it, and a lean client.

The client is a socket and prepared bytes, so that a rate says what the server needs and not what the client does.
"""

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

ROOT = Path(__file__).resolve().parent.parent


def new_database(url: str, name: str) -> str:
    """Make an empty database of this name on the PostgreSQL server of `url`; answers its address."""
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        connection.execute(f"CREATE DATABASE {name}")
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


class Site:
    """Sets up Django in this process and can start, stop and kill a server on the same database."""

    def __init__(self, folder: str, database_url: str = "", *, name: str = "emhub_bench", sessions: int = 12):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        os.environ |= {
            "DJANGO_SETTINGS_MODULE": "bench.settings",
            "EMHUB_DATA_DIR": folder,
            "SECRET_KEY": secrets.token_urlsafe(40),
            "HTTPS": "false",
            "PORT": str(self.port),
            "LOG_LEVEL": "ERROR",
        }
        os.environ.pop("DATABASE_URL", None)
        if database_url:
            os.environ["DATABASE_URL"] = new_database(database_url, name)
        import django

        django.setup()
        from django.core.management import call_command

        from bench.facility import build
        from microscopes.tokens import pipeline_token_create
        from sessions_app.models import Session

        call_command("migrate", verbosity=0)
        build(sessions, micrographs=1)
        self.key = pipeline_token_create(name="bench", all_microscopes=True)[1]
        self.sessions = list(Session.objects.order_by("pk"))
        self.database = "PostgreSQL" if database_url else "SQLite"
        self.process: subprocess.Popen | None = None

    def start(self) -> None:
        """Start gunicorn in a process group of its own and wait until it answers."""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", "-c", "emhub_site/gunicorn.py"],
            cwd=ROOT, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        for _ in range(300):
            try:
                with Client(self.port, self.key) as client:
                    if client.get("/health/")[0] == 200:
                        return
            except OSError:
                pass
            time.sleep(0.1)
        raise SystemExit("The server does not answer.")

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait()
            self.process = None

    def kill(self) -> None:
        """SIGKILL for the master and every worker in the same moment."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process = None

    def workers(self) -> list[int]:
        """The process ids of the server's workers."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(child) for child in children.split()]

    def processor(self) -> float:
        """Seconds of CPU that the workers, and PostgreSQL's processes for this database, have used so far.

        Unlike times, they say what a call costs on a machine that is busy with something else, too.
        """
        from django.db import connection

        pids = self.workers()
        if connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                cursor.execute(
                    "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
                pids += [pid for (pid,) in cursor.fetchall()]
        ticks = 0
        for pid in pids:
            stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(stat[11]) + int(stat[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def client(self) -> "Client":
        return Client(self.port, self.key)


class Client:
    """One connection that is kept open. Raises OSError where the server goes away."""

    def __init__(self, port: int, key: str):
        self.port = port
        self.head = f"Host: 127.0.0.1:{port}\r\nAuthorization: Token {key}\r\n"
        self.socket: socket.socket | None = None

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    def close(self) -> None:
        if self.socket is not None:
            self.socket.close()
            self.socket = None

    def request(self, method: str, path: str, body: bytes | None = None, *, kind: str = "application/json",
                etag: str = "") -> tuple[int, dict[str, str], bytes]:  # fmt: skip
        """Status, headers in lower case, body."""
        head = f"{method} {path} HTTP/1.1\r\n{self.head}"
        if etag:
            head += f"If-None-Match: {etag}\r\n"
        if body is not None:
            head += f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
        packed = head.encode() + b"\r\n" + (body or b"")
        if self.socket is None:
            self._connect()
            return self._exchange(packed)
        try:
            return self._exchange(packed)
        except ConnectionResetError:
            # The server closed a connection that was idle for longer than it keeps one: nothing was answered.
            self._connect()
            return self._exchange(packed)

    def _connect(self) -> None:
        self.close()
        self.socket = socket.create_connection(("127.0.0.1", self.port), timeout=120)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _exchange(self, packed: bytes) -> tuple[int, dict[str, str], bytes]:
        self.socket.sendall(packed)
        data = b""
        while b"\r\n\r\n" not in data:
            data += self._receive()
        head, _, rest = data.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        status = int(first.split()[1])
        length = 0 if status in (204, 304) else int(headers.get("content-length", 0))
        parts, have = [rest], len(rest)
        while have < length:
            parts.append(self._receive())
            have += len(parts[-1])
        if headers.get("connection", "").lower() == "close":
            self.close()
        return status, headers, b"".join(parts)

    def _receive(self) -> bytes:
        part = self.socket.recv(1 << 18)
        if not part:
            self.close()
            raise ConnectionResetError("The server closed the connection.")
        return part

    def get(self, path: str, etag: str = "") -> tuple[int, dict[str, str], bytes]:
        return self.request("GET", path, etag=etag)

    def post(self, path: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        return self.request("POST", path, body)

    def must_post(self, path: str, body: bytes) -> bytes:
        status, _, answer = self.post(path, body)
        if status not in (200, 201):
            raise SystemExit(f"{path} answered {status}: {answer[:300]!r}")
        return answer
