"""A service that says which version of itself runs, what its files are and what else runs there."""

import contextlib
import hashlib
import http.server
import json
import signal
import sys
from pathlib import Path

VERSION = "v0"


def tree(root: Path) -> dict[str, list[str]]:
    """Of every path below `root` its type with its mode, and of files the digest."""
    found = {}
    for path in root.rglob("*"):
        is_file = path.is_file() and not path.is_symlink()
        digest = hashlib.sha256(path.read_bytes()).hexdigest() if is_file else ""
        found[str(path.relative_to(root))] = [oct(path.lstat().st_mode), digest]
    return found


def processes() -> list[str]:
    """The command lines of all that runs in the container."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found.append(path.read_text().replace("\0", " ").strip())
    return sorted(found)


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        # The probe is answered at once, however busy the machine is.
        what: object = VERSION
        if self.path != "/version":
            what = {"version": VERSION, "tree": tree(Path("/app")), "processes": processes()}
        data = json.dumps(what).encode()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    http.server.ThreadingHTTPServer(("", 8080), Handler).serve_forever()
