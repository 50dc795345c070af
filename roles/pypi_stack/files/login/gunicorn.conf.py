"""gunicorn for the login service: one process, because the verdicts and the queue are in its memory."""

bind = "0.0.0.0:8080"
workers = 1
worker_class = "gthread"
threads = 64
keepalive = 75
worker_tmp_dir = "/dev/shm"
control_socket_disable = True  # gunicorn >= 25; older ones ignore it
