"""How gunicorn serves the site. One kind of process for everything: threads wait, processes use the cores.

PORT and LISTEN say where, WEB_CONCURRENCY and WEB_THREADS how many; every other option of gunicorn can be
given in GUNICORN_CMD_ARGS.
"""

import gc
import os

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


def post_worker_init(worker):
    """What is loaded now stays for good: the garbage collector need not walk through it with every full turn."""
    gc.collect()
    gc.freeze()
