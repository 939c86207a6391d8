"""How fast anyone may call the API: per token or person, and per address for whoever is neither.

All worker processes of a machine count together, in a small file that they map into memory: no broker, and a look
costs microseconds instead of a write to the database. Several machines each count their own.
"""

import fcntl
import hashlib
import math
import mmap
import os
import struct
import threading
import time
from pathlib import Path

from django.conf import settings
from django.http import HttpRequest
from rest_framework.throttling import BaseThrottle

from people.addresses import client_address

MINUTE = 60.0  # s


class Meter:
    """Counts calls by key with the generic cell rate algorithm (ITU-T I.371, virtual scheduling).

    Of each key only the time is kept at which its next call is due if it came evenly. A minute's worth may come at
    once. The file has SETS places of four keys; a fifth key drops the one that has been quiet longest, which thereby
    gets its minute anew.
    """

    SETS, WAYS = 16_384, 4
    CELL = struct.Struct("=Qd")  # The key's hash, the time its next call is due (s since 1970).
    PLACE = CELL.size * WAYS
    SIZE = PLACE * SETS

    def __init__(self, path: Path):
        self.path = path
        self._map: mmap.mmap | None = None
        self._opening = threading.Lock()
        # Locks of a file hold between processes; threads of one process need their own.
        self._lock = threading.Lock()

    def _open(self) -> mmap.mmap:
        with self._opening:
            if self._map is None:
                self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                # Really on disk: writing to a hole of a full disk would kill the process.
                os.posix_fallocate(self._file, 0, self.SIZE)
                self._map = mmap.mmap(self._file, self.SIZE)
            return self._map

    def take(self, key: str, per_minute: int, now: float | None = None) -> float:
        """0 if the call may be made, which counts it; otherwise the seconds to wait."""
        now = time.time() if now is None else now
        cells = self._map or self._open()
        number = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big") or 1
        place = number % self.SETS * self.PLACE
        with self._lock:
            fcntl.lockf(self._file, fcntl.LOCK_EX, self.PLACE, place)
            try:
                known = list(self.CELL.iter_unpack(cells[place : place + self.PLACE]))
                way = next((n for n, cell in enumerate(known) if cell[0] == number), None)
                due = known[way][1] if way is not None else 0.0
                if way is None:
                    way = min(range(self.WAYS), key=lambda n: known[n][1])
                # A time further ahead than can be was written before the clock was set back.
                due = (due if now < due <= now + MINUTE else now) + MINUTE / per_minute
                wait = due - now - MINUTE
                if wait > 1e-6:
                    return wait
                self.CELL.pack_into(cells, place + way * self.CELL.size, number, due)
                return 0.0
            finally:
                fcntl.lockf(self._file, fcntl.LOCK_UN, self.PLACE, place)


meter = Meter(settings.DATA_DIR / "rates")


def take(key: str, per_minute: int) -> int:
    """0 if the call may be made, otherwise whole seconds to wait; a rate of 0 is no limit."""
    return math.ceil(meter.take(key, per_minute)) if per_minute else 0


def take_address(request) -> int:
    return take(f"address {client_address(request)}", settings.API_RATE_PER_ADDRESS)


def take_call(request: HttpRequest, token) -> bool:
    """Count a token's call before a view is asked; whether it may be made. If so, no view counts it again."""
    request.is_counted = not take(f"token {token.pk}", settings.API_RATE_PER_TOKEN)
    return request.is_counted


class CallerThrottle(BaseThrottle):
    """By the token; by the person where there is none; by the address where there is neither."""

    _wait = 0

    def allow_request(self, request, view) -> bool:
        if getattr(request._request, "is_counted", False):
            return True
        token = getattr(request.user, "pipeline_token", None)
        if token is not None:
            self._wait = take(f"token {token.pk}", settings.API_RATE_PER_TOKEN)
        elif request.user.is_authenticated:
            self._wait = take(f"person {request.user.pk}", settings.API_RATE_PER_TOKEN)
        else:
            self._wait = take_address(request)
        return not self._wait

    def wait(self) -> int:
        return self._wait
