"""How gunicorn serves the site. One kind of process for everything: threads wait, processes use the cores.

PORT and LISTEN say where, WEB_CONCURRENCY and WEB_THREADS how many; every other option of gunicorn can be
given in GUNICORN_CMD_ARGS.
"""

import gc
import os
import socket
import struct

from emhub_site import env

env.read_file()

wsgi_app = "emhub_site.wsgi:application"
bind = f"{env.text('LISTEN', '127.0.0.1')}:{env.integer('PORT', 8000, minimum=1, maximum=65535)}"
worker_class = "gthread"
workers = env.integer("WEB_CONCURRENCY", 2, minimum=1, maximum=256)
threads = env.integer("WEB_THREADS", 4, minimum=1, maximum=256)
timeout = 60
graceful_timeout = 15
keepalive = 5
# A worker beats by touching a file: on a disk that stalls it would be taken for dead.
worker_tmp_dir = "/dev/shm" if os.path.isdir("/dev/shm") and os.access("/dev/shm", os.W_OK) else None
# No socket in the home folder of whoever starts it.
control_socket_disable = True
accesslog = "-" if env.boolean("ACCESS_LOG", False) else None


# Seconds without a byte after which a connection is given up, in the middle of a request or of an answer. Its thread
# would otherwise wait for ever for a machine that was switched off, and there are few threads.
STALLED = 30


def when_ready(server):
    """Connections have these of the socket that they came in by (socket(7))."""
    for listener in server.LISTENERS:
        give_up_stalled(listener.sock, STALLED)


def give_up_stalled(sock: socket.socket, seconds: int) -> None:
    for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        sock.setsockopt(socket.SOL_SOCKET, option, struct.pack("@ll", seconds, 0))


def post_worker_init(worker):
    """What is loaded now stays for good: the garbage collector need not walk through it with every full turn."""
    gc.collect()
    gc.freeze()
