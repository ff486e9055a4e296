"""Saves that come while others are still under way, over three services of one project.

`DEVLOOP_TEST_SAVES` says how many; the long form is 300.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from tests.e2e.session import APP, Devloop

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.e2e.conftest import Cluster
    from tests.e2e.session import Event

    Start = Callable[..., Devloop]

SAVES = int(os.environ.get("DEVLOOP_TEST_SAVES", "24"))

PROJECT = """
version: 1
name: shop
registry: ${DEVLOOP_TEST_REGISTRY}
services:
  web:
    image: ${IMAGE}-web
    build: {context: web, args: {BASE: "${BASE}"}}
    deploy: {manifests: [web/k8s.yaml], timeout: 90s}
  api:
    image: ${IMAGE}-api
    build: {context: api, args: {BASE: "${BASE}"}}
    deploy: {manifests: [api/k8s.yaml], timeout: 90s, replace: rolling}
  store:
    image: ${IMAGE}-store
    build: {context: store, args: {BASE: "${BASE}"}}
    deploy: {manifests: [store/k8s.yaml], workload: statefulset/store, timeout: 90s}
"""

SERVICE = """---
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec:
  selector: {{app: {name}}}
  ports: [{{port: 8080}}]
"""

WORKLOAD = """---
apiVersion: apps/v1
kind: {kind}
metadata:
  name: {name}
  annotations: {{round: "0"}}
spec:
  {more}
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}, of: {image}}}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
        - name: main
          image: {image}
          {command}
"""

JOB = """---
apiVersion: batch/v1
kind: Job
metadata: {name: migrate}
spec:
  template:
    spec:
      restartPolicy: Never
      containers:
        - name: main
          image: IMAGE
          command: [python3, -c, "print('migrated')"]
"""

PROBE = "readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1}"
WORKER = "command: [python3, -c, 'import time; time.sleep(100000)']"


class Shop:
    """The project on disk, and what it should be serving."""

    def __init__(self, root: Path, image: str) -> None:
        self.versions = dict.fromkeys(("web", "api", "store"), "v0")
        for name in self.versions:
            folder = root / name
            folder.mkdir(parents=True)
            for file in ("app.py", "Dockerfile"):
                shutil.copy(APP / file, folder / file)
            self._write(folder / "k8s.yaml", self._manifest(name, f"{image}-{name}"))
        self._write(root / "devloop.yaml", PROJECT)
        self.root = root
        self._numbers = itertools.count(1)

    @staticmethod
    def _manifest(name: str, image: str) -> str:
        kind = "StatefulSet" if name == "store" else "Deployment"
        more = {"api": "replicas: 3", "store": "serviceName: store"}.get(name, "replicas: 1")
        text = SERVICE.format(name=name) + WORKLOAD.format(
            name=name, kind=kind, image=image, more=more, command=PROBE
        )
        if name == "web":
            text += WORKLOAD.format(
                name="worker", kind="Deployment", image=image, more="replicas: 1", command=WORKER
            )
            text += JOB.replace("IMAGE", image)
        return text

    @staticmethod
    def _write(path: Path, text: str) -> None:
        temporary = path.with_name(f".{path.name}.tmp~")
        temporary.write_text(text)
        temporary.replace(path)

    def save(self, chance: random.Random) -> None:
        name = chance.choice(list(self.versions))
        number = next(self._numbers)
        folder = self.root / name
        match chance.choice(["code"] * 7 + ["dockerfile", "manifest", "same"]):
            case "code":
                text = (folder / "app.py").read_text()
                old = f'VERSION = "{self.versions[name]}"'
                self.versions[name] = f"v{number}"
                assert old in text
                self._write(folder / "app.py", text.replace(old, f'VERSION = "v{number}"'))
            case "dockerfile":
                text = (folder / "Dockerfile").read_text().partition("LABEL")[0]
                self._write(folder / "Dockerfile", f"{text}LABEL number={number}\n")
            case "manifest":
                text = (folder / "k8s.yaml").read_text()
                head, _, rest = text.partition('round: "')
                self._write(
                    folder / "k8s.yaml", f'{head}round: "{number}"{rest.partition(chr(34))[2]}'
                )
            case _:
                self._write(folder / "app.py", (folder / "app.py").read_text())


def _superseded_and_deployed(events: list[Event]) -> list[Event]:
    """The starts of deploys of which it was known before that something newer was on disk; not of
    the one that goes through after three in a row did not."""
    found = []
    newer: set[int] = set()
    running: dict[str, int] = {}
    in_a_row: Counter[str] = Counter()
    for event in events:
        service = event.get("service", "")
        match event["type"]:
            case "iteration.started":
                running[service] = event["iter"]
            case "watch.changed" if service in running and in_a_row[service] < 3:
                newer.add(running[service])
            case "step.started" if event["step"] == "deploy":
                if event["iter"] in newer:
                    found.append(event)
            case "step.finished" if (event["step"], event["outcome"]) == ("deploy", "done"):
                in_a_row[service] = 0
            case "iteration.finished":
                running.pop(service, None)
                in_a_row[service] += event["outcome"] == "cancelled"
                in_a_row[service] *= event["outcome"] == "cancelled"
    return found


def _pods(cluster: Cluster, service: str) -> list[dict[str, Any]]:
    """All that run its image, but the Job's."""
    label, end = ("of", "-web") if service == "web" else ("app", service)
    return [
        pod
        for pod in cluster.get("pods")["items"]
        if str(pod["metadata"].get("labels", {}).get(label, "")).endswith(end)
        and "deletionTimestamp" not in pod["metadata"]
    ]


def test_the_last_save_is_served_whatever_came_before(
    devloop: Start, cluster: Cluster, tmp_path: Path
) -> None:
    image = f"saves-{cluster.namespace}"
    shop = Shop(tmp_path / "shop", image)
    session = devloop("dev", cwd=shop.root, IMAGE=image)
    for _ in shop.versions:
        session.finished("ready", seconds=180)
    chance = random.Random(int(os.environ.get("DEVLOOP_TEST_SEED", "1")))
    for _ in range(SAVES):
        shop.save(chance)
        session.quiet(chance.choice([0.0, 0.05, 0.3, 1.0, 2.0]))
    deadline = time.monotonic() + 180
    for name, version in shop.versions.items():
        cluster.serves(version, service=name, within=max(5.0, deadline - time.monotonic()))
    while busy := _unsettled(session):
        assert time.monotonic() < deadline, f"{busy} never ends\n{session.story()}"
        session.quiet(1.0)
    # Whatever followed in a quiet moment (an image of what was synced) changes nothing of it.
    session.quiet(5.0)
    for name, version in shop.versions.items():
        for _ in range(9):
            assert cluster.answer(service=name) == version
        for pod in _pods(cluster, name):
            text = cluster.kubectl("exec", pod["metadata"]["name"], "--", "cat", "/app/app.py")
            assert f'VERSION = "{version}"' in text, pod["metadata"]["name"]
    assert _superseded_and_deployed(session.events) == []
    for deployment in cluster.get("deployments")["items"]:
        assert not deployment["spec"].get("paused"), deployment["metadata"]["name"]
    ends = session.of("iteration.finished")
    failed = [(e["service"], e["iter"], e["why"]) for e in ends if e["outcome"] == "failed"]
    story = tmp_path / "events.jsonl"
    story.write_text("".join(f"{json.dumps(event)}\n" for event in session.events))
    assert failed == [], story
    session.interrupt()
    assert cluster.get("lease")["items"] == []


def _unsettled(session: Devloop) -> set[str]:
    """The services in the middle of an iteration."""
    busy: set[str] = set()
    for event in session.events:
        if event["type"] == "iteration.started":
            busy.add(event["service"])
        elif event["type"] == "iteration.finished":
            busy.discard(event["service"])
    return busy
