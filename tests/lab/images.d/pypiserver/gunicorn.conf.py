"""What the upstream image sets; mount another file over /data/gunicorn.conf.py to change it."""

errorlog = "-"
preload_app = True
workers = 1
worker_class = "gevent"
