"""What a sync costs: from `FileSync.sync` being called to the file being there, and being served.

usage: python -m tests.bench.sync [N]     (in the environment of `script/env`)

Deploys a small Python app and a busybox image into a namespace of its own, saves a
small file N times and prints, in ms, the median and p95 of: `blocker`, `sync` (all pods have
acknowledged), `served` (the app's first answer with the new content, for the Python app, asked
through the API server's proxy on a kept-alive connection), then 200 files at once and 100 MB.
Nothing here asserts.
"""

from __future__ import annotations

import argparse
import os
import secrets
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from devloop.base.cancel import Cancel
from devloop.cluster.api.connection import Connection
from tests.integration.sync.conftest import BASES, Shop, Told

if TYPE_CHECKING:
    from collections.abc import Callable

APP = """
import http.server
class H(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body = open("message.txt", "rb").read()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *a): pass
http.server.ThreadingHTTPServer(("", 8080), H).serve_forever()
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("number", metavar="N", type=int, nargs="?", default=30)
    number: int = parser.parse_args().number
    namespace = f"sync-bench-{secrets.token_hex(3)}"
    connection = Connection.open(os.environ["DEVLOOP_TEST_CONTEXT"], namespace)
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
    connection.request("POST", "/api/v1/namespaces", body)
    try:
        for base in ("python", "busybox"):
            for files in (0, 20_000):
                with tempfile.TemporaryDirectory() as directory:
                    _measure(connection, Path(directory), base, number, files)
    finally:
        connection.request("DELETE", f"/api/v1/namespaces/{namespace}")
        connection.close()


def _measure(connection: Connection, directory: Path, base: str, number: int, files: int) -> None:
    context = directory / "context"
    context.mkdir()
    shop = Shop(connection, context)
    try:
        _fill(shop, files)
        command = '["python3", "app.py"]' if base == "python" else '["sleep", "1000000"]'
        image = shop.image(f"FROM {BASES[base]}\nWORKDIR /app\nCOPY . .\nCMD {command}\n")
        shop.deploy(image)
        sync = shop.start()
        sync.image_contains(image, shop.scan())
        served = _ask(shop) if base == "python" else None
        _one(shop, 0, served)
        rows = [_one(shop, n, served) for n in range(1, number + 1)]
        print(f"{base}, {files} more files, {number} saves:")
        for name, column in zip(
            ("blocker", "sync", "served"), zip(*rows, strict=True), strict=True
        ):
            print(f"  {name:10} median {_ms(statistics.median(column))}  p95 {_ms(_p95(column))}")
        if not files:
            _bulk(shop)
    finally:
        shop.close()


def _fill(shop: Shop, files: int) -> None:
    shop.write("app.py", APP)
    shop.write("message.txt", "m")
    for n in range(files):
        shop.write(f"more/{n // 200}/{n}.txt", str(n))


def _ask(shop: Shop) -> Callable[[], str]:
    namespace, pod = shop.connection.namespace, shop.running()[0].name
    path = f"/api/v1/namespaces/{namespace}/pods/{pod}:8080/proxy/msg"
    return lambda: str(shop.connection.request("GET", path).get("text", ""))


def _one(shop: Shop, n: int, served: Callable[[], str] | None) -> tuple[float, float, float]:
    text = f"message {n}"
    shop.write("message.txt", text)
    scan = shop.scan()
    sync = shop.sync
    assert sync is not None
    began = time.perf_counter()
    assert sync.blocker(scan) is None
    planned = time.perf_counter()
    sync.sync(scan, Told(), Cancel())
    brought = time.perf_counter()
    while served is not None and served() != text:
        pass
    end = time.perf_counter()
    time.sleep(0.05)
    return planned - began, brought - planned, end - began


def _bulk(shop: Shop) -> None:
    for n in range(200):
        shop.write(f"bulk/{n}.txt", f"{n}")
    print(f"  200 files  {_ms(_one(shop, 1000, None)[1])}")
    shop.write("big.bin", os.urandom(100_000_000))
    print(f"  100 MB     {_ms(_one(shop, 1001, None)[1])}")


def _p95(column: tuple[float, ...]) -> float:
    return sorted(column)[int(len(column) * 0.95)]


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:8.1f} ms"


if __name__ == "__main__":
    main()
