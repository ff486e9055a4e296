"""The baseline: how fast Kubernetes alone gets a fresh image served, with no tool in the way.

usage: python -m tests.bench.baseline DEPLOYMENT URL N
                                      [--mode rolling|in-place|both] [--namespace NS]

DEPLOYMENT runs tests/bench/app (one container, one replica, its image pinned by digest in a
registry that this computer reaches under the same name); URL answers with the text of the file
`--path` in the image, so `http://NODE:PORT/msg` goes with the default. Makes N images that differ
from the running one by one small layer and pushes them, so that each is new to the node, then
times PATCH -> URL answers. `rolling` is one PATCH of the Deployment; `in-place` is the least that
leaves Deployment, ReplicaSet and pod in agreement: pause with the new image, the pod, the
ReplicaSet, unpause. Prints the latencies in seconds, then min, median and max.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import http.client
import io
import json
import random
import statistics
import tarfile
import time
import uuid
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from devloop.cluster.api.connection import STRATEGIC, Connection
from devloop.registry.client import RegistryClient

if TYPE_CHECKING:
    from collections.abc import Iterator

REST = 2.5  # seconds at least: the pod's status and what follows from it settle between two runs


def fresh_images(image: str, path: str, count: int) -> Iterator[tuple[str, str]]:
    """Push `count` images that are `image` (host/name@digest) plus a file; yields (text, image)."""
    repository, _, digest = image.partition("@")
    host, _, name = repository.partition("/")
    with RegistryClient(host) as client:
        found = client.get_manifest(name, digest)
        if found is None:
            raise SystemExit(f"{image} is not in the registry")
        manifest = json.loads(found.body)
        blob = client.get_blob(name, manifest["config"]["digest"])
        config = json.loads(blob or b"{}")
        for _ in range(count):
            text = uuid.uuid4().hex
            layer, diff_id = _layer(path, text)
            body = {**config, "history": [*config.get("history", ()), {"created_by": "baseline"}]}
            body["rootfs"] = {
                "type": "layers",
                "diff_ids": [*config["rootfs"]["diff_ids"], diff_id],
            }
            raw = json.dumps(body).encode()
            new = {
                **manifest,
                "config": {
                    **manifest["config"],
                    "digest": client.put_blob(name, raw),
                    "size": len(raw),
                },
                "layers": [
                    *manifest["layers"],
                    {
                        "mediaType": manifest["layers"][-1]["mediaType"],
                        "digest": client.put_blob(name, layer),
                        "size": len(layer),
                    },
                ],
            }
            pushed = client.put_manifest(
                name, f"baseline-{text[:8]}", json.dumps(new).encode(), found.media_type
            )
            yield text, f"{repository}@{pushed.digest}"


def _layer(path: str, text: str) -> tuple[bytes, str]:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        entry = tarfile.TarInfo(path)
        entry.size, entry.mode = len(text), 0o644
        tar.addfile(entry, io.BytesIO(text.encode()))
    data = raw.getvalue()
    return gzip.compress(data, 1, mtime=0), f"sha256:{hashlib.sha256(data).hexdigest()}"


def rest(least: float = REST) -> None:
    """Wait between two runs, up to a second longer than `least`: the kubelet looks at its
    containers once a second, and runs in step with that would all meet it at the same moment."""
    time.sleep(least + random.random())


class Answers:
    """Asks a URL on a new connection each time, as a client of a NodePort does."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port or 80
        self._path = parts.path or "/"

    def get(self) -> str:
        connection = http.client.HTTPConnection(self._host, self._port, timeout=1)
        try:
            connection.request("GET", self._path)
            return connection.getresponse().read().decode()
        except OSError:
            return ""
        except http.client.HTTPException:
            return ""
        finally:
            connection.close()

    def wait_for(self, text: str) -> float:
        while self.get() != text:
            time.sleep(0.003)
        return time.monotonic()


class Bare:
    """The PATCHes, each on the same kept-alive connection."""

    def __init__(self, connection: Connection, deployment: str) -> None:
        self._connection = connection
        self._apps = f"/apis/apps/v1/namespaces/{connection.namespace}"
        self._pods = f"/api/v1/namespaces/{connection.namespace}/pods"
        self._path = f"{self._apps}/deployments/{deployment}"
        self.live = connection.request("GET", self._path)
        self._container = self.live["spec"]["template"]["spec"]["containers"][0]["name"]

    @property
    def image(self) -> str:
        return str(self.live["spec"]["template"]["spec"]["containers"][0]["image"])

    def _images(self, image: str) -> dict[str, Any]:
        return {"containers": [{"name": self._container, "image": image}]}

    def _patch(self, path: str, spec: dict[str, Any]) -> None:
        self._connection.request("PATCH", path, {"spec": spec}, content_type=STRATEGIC)

    def rolling(self, image: str) -> None:
        self._patch(self._path, {"template": {"spec": self._images(image)}})

    def names(self) -> tuple[str, str]:
        """The paths of the current ReplicaSet and of its one pod."""
        revision = self.live["metadata"]["annotations"]["deployment.kubernetes.io/revision"]
        sets = self._connection.request("GET", f"{self._apps}/replicasets")["items"]
        current = next(
            s
            for s in sets
            if s["metadata"]["ownerReferences"][0]["uid"] == self.live["metadata"]["uid"]
            and s["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == revision
        )
        pods = self._connection.request("GET", self._pods)["items"]
        mine = [
            p["metadata"]["name"]
            for p in pods
            if p["metadata"]["ownerReferences"][0]["uid"] == current["metadata"]["uid"]
            and not p["metadata"].get("deletionTimestamp")
        ]
        return f"{self._apps}/replicasets/{current['metadata']['name']}", f"{self._pods}/{mine[0]}"

    def in_place(self, image: str, replicaset: str, pod: str) -> None:
        template = {"template": {"spec": self._images(image)}}
        self._patch(self._path, {"paused": True, **template})
        self._patch(pod, self._images(image))
        self._patch(replicaset, template)
        self._patch(self._path, {"paused": False})

    def look(self) -> None:
        self.live = self._connection.request("GET", self._path)


def measure(bare: Bare, answers: Answers, images: list[tuple[str, str]], mode: str) -> list[float]:
    taken: list[float] = []
    for text, image in images:
        bare.look()
        where = bare.names() if mode == "in-place" else ("", "")
        began = time.monotonic()
        if mode == "in-place":
            bare.in_place(image, *where)
        else:
            bare.rolling(image)
        taken.append(answers.wait_for(text) - began)
        print(f"{taken[-1]:.3f}", end=" ", flush=True)
        rest()
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("deployment")
    parser.add_argument("url")
    parser.add_argument("n", type=int)
    parser.add_argument("--mode", choices=("rolling", "in-place", "both"), default="both")
    parser.add_argument("--namespace")
    parser.add_argument("--context")
    parser.add_argument("--path", default="app/message.txt")
    options = parser.parse_args()
    connection = Connection.open(options.context, options.namespace)
    bare = Bare(connection, options.deployment)
    answers = Answers(options.url)
    for mode in ("rolling", "in-place") if options.mode == "both" else (options.mode,):
        images = list(fresh_images(bare.image, options.path, options.n))
        print(f"{mode}: ", end="", flush=True)
        taken = measure(bare, answers, images, mode)
        middle = statistics.median(taken)
        print(f"\n{mode}: min {min(taken):.3f} median {middle:.3f} max {max(taken):.3f}")
    connection.close()


if __name__ == "__main__":
    main()
