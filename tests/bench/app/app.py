"""Answers with its version, or with what message.txt says."""

import http.server
import pathlib
import signal
import sys

VERSION = "v0"

signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        text = pathlib.Path("message.txt").read_text() if self.path == "/msg" else VERSION
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        pass


http.server.ThreadingHTTPServer(("", 8080), Handler).serve_forever()
