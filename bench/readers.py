"""Many readers in one process, as light as can be: a socket and prepared bytes each, asking once a second.

    python -m bench.readers PORT PATH READERS     (the token's key on standard input, then a line to stop)

Each asks for what came after its revision with its ETag; of an answer only the status is looked at, the rest is read
and dropped. Writes one line of JSON when everybody is connected and one at the end: seconds, answers by status,
median and 95th percentile of the time to an answer (s), and this process's own CPU time (s).
"""

import collections
import heapq
import json
import selectors
import socket
import sys
import time


class Reader:
    def __init__(self, port: int, request: bytes):
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.port, self.request, self.asked = port, request, 0.0

    def ask(self) -> None:
        self.asked = time.perf_counter()
        self.socket.sendall(self.request)

    def answer(self) -> bytes:
        """The answer's first bytes; an unchanged poll has no others."""
        return self.socket.recv(1 << 16)


def first_answer(port: int, head: bytes, path: str) -> bytes:
    """The request that is answered 304 from now on."""
    import orjson

    def exchange(tail: bytes) -> tuple[bytes, bytes]:
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(b"GET " + path.encode() + tail + head + b"Connection: close\r\n\r\n")
            data = b""
            while part := connection.recv(1 << 18):
                data += part
        top, _, body = data.partition(b"\r\n\r\n")
        return top, body

    revision = orjson.loads(exchange(b" HTTP/1.1\r\n")[1])["revision"]
    after = f"?after={revision}".encode()
    top, _ = exchange(after + b" HTTP/1.1\r\n")
    tag = next(line.split(b": ", 1)[1] for line in top.split(b"\r\n") if line.lower().startswith(b"etag"))
    return b"GET " + path.encode() + after + b" HTTP/1.1\r\n" + head + b"If-None-Match: " + tag + b"\r\n\r\n"


def main() -> None:
    port, path, count = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    key = sys.stdin.readline().strip()
    head = f"Host: 127.0.0.1:{port}\r\nAuthorization: Token {key}\r\n".encode()
    request = first_answer(port, head, path)
    readers = [Reader(port, request) for _ in range(count)]
    waiting = selectors.DefaultSelector()
    waiting.register(sys.stdin, selectors.EVENT_READ)
    for reader in readers:
        waiting.register(reader.socket, selectors.EVENT_READ, reader)
    print(json.dumps({"connected": count}), flush=True)
    begin, processor = time.perf_counter(), time.process_time()
    due = [(begin + number / count, number) for number in range(count)]
    statuses, took = collections.Counter(), []
    stopped = False
    while not stopped:
        now = time.perf_counter()
        while due[0][0] <= now:
            moment, number = due[0]
            reader = readers[number]
            if reader.asked:  # Still waiting for the answer before: nobody asks twice at once.
                heapq.heapreplace(due, (moment + 0.1, number))
                continue
            heapq.heapreplace(due, (moment + 1, number))
            reader.ask()
        for key, _ in waiting.select(max(0.0, due[0][0] - now)):
            reader = key.data
            if reader is None:
                stopped = True
                continue
            data = reader.answer()
            if not data:
                raise SystemExit("The server closed a connection that was in use.")
            statuses[data[9:12].decode()] += 1
            took.append(time.perf_counter() - reader.asked)
            reader.asked = 0.0
    took.sort()
    print(
        json.dumps(
            {
                "seconds": time.perf_counter() - begin,
                "statuses": statuses,
                "median": took[len(took) // 2] if took else None,
                "p95": took[int(len(took) * 0.95)] if took else None,
                "processor": time.process_time() - processor,
            }
        ),
        flush=True,
    )


if __name__ == "__main__":
    main()
