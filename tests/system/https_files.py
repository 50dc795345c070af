"""Serves files by https, as an issuer of identity tokens does with its keys: https_files.py DIRECTORY PORT CERTIFICATE KEY."""

from __future__ import annotations

import ssl
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

directory, port, *pair = sys.argv[1:]
server = ThreadingHTTPServer(("", int(port)), partial(SimpleHTTPRequestHandler, directory=directory))
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(*pair)
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
