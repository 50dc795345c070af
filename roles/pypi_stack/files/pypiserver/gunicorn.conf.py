"""gunicorn for pypiserver with the static index. Settings unknown to the installed version are ignored by it."""

import logging
import os
import sys

bind = "0.0.0.0:8080"
workers = int(os.environ.get("PYPI_WORKERS", "4"))
worker_class = "gthread"  # hashing, inflating and fsync release the interpreter lock but would block gevent's loop
threads = 24  # a slow upload keeps one busy
worker_connections = threads  # a worker without a free one accepts no more: another does
keepalive = 0  # nginx opens a connection for each upload
preload_app = True  # the workers share the memory of what is imported
timeout = 60  # of silence from a worker's main thread; a long upload keeps a thread busy, not that one
graceful_timeout = 30
umask = 0o022  # gunicorn's default is 0
worker_tmp_dir = "/dev/shm"
control_socket_disable = True  # from 25.1 on

logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
logging.getLogger("static_index").setLevel(logging.INFO)  # who uploaded and removed what


def post_worker_init(worker):
    """Every worker offers to watch the package directory; a lock elects one."""
    from static_index.app import store_from_environment
    from static_index.sync import Watcher

    Watcher(store_from_environment()).start()
