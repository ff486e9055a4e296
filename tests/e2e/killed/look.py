"""The pods of the project whose sessions are killed, asked past devloop."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from functools import partial
from typing import TYPE_CHECKING, Any

from tests.e2e.killed.project import REPLICAS, SERVICES

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.conftest import Cluster
    from tests.e2e.killed.project import Project

_PAUSE_LABEL = "devloop.dev/in-place"


class Look:
    """What the project's pods are, asked past devloop."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def pods(self, service: str) -> list[str]:
        return [
            pod["metadata"]["name"]
            for pod in self._cluster.get("pods")["items"]
            if pod["metadata"].get("labels", {}).get("app") == service
            and "deletionTimestamp" not in pod["metadata"]
        ]

    def answer(self, pod: str, within: float = 15.0) -> dict[str, Any]:
        deadline = time.monotonic() + within
        while (found := self._asked(pod)) is None:
            assert time.monotonic() < deadline, f"{pod} does not answer"
            time.sleep(0.1)
        return found

    def _asked(self, pod: str) -> dict[str, Any] | None:
        where = f"namespaces/{self._cluster.namespace}/pods/{pod}:8080"
        url = f"{self._cluster.proxy}/api/v1/{where}/proxy/"
        try:
            with urllib.request.urlopen(url, timeout=5) as response:
                found: dict[str, Any] = json.load(response)
                return found
        except (OSError, urllib.error.HTTPError):
            return None

    def paused(self) -> list[str]:
        return [
            each["metadata"]["name"]
            for each in self._cluster.get("deployments")["items"]
            if each["spec"].get("paused") or _PAUSE_LABEL in each["metadata"].get("labels", {})
        ]

    def serves(self, project: Project, told: str) -> None:
        """Every pod serves what is on disk, by a process that was started from it."""
        for service in SERVICES:
            self.serves_in(project, service, told)

    def serves_in(self, project: Project, service: str, told: str) -> None:
        pods = self.pods(service)
        assert len(pods) == REPLICAS[service], f"{service}: {pods}\n{told}"
        for pod in pods:
            found = self.answer(pod)
            wanted = project.versions[service]
            assert found["version"] == wanted, f"{pod}: {found['version']}, {wanted}\n{told}"
            assert found["tree"] == project.tree(service), f"{pod}: {found}\n{told}"

    def alone(self, told: str) -> None:
        """No container has processes of a session that is gone."""
        for service in SERVICES:
            for pod in self.pods(service):
                until(partial(self._is_alone, pod), f"alone: {pod}\n{told}", 30.0)

    def _is_alone(self, pod: str) -> bool:
        found = self._asked(pod)
        if found is None:  # it may have made way for another one
            return all(pod not in self.pods(service) for service in SERVICES)
        return not any(line.endswith(" serve") for line in found["processes"])


def until(condition: Callable[[], object], what: str, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not {what}"
        time.sleep(0.1)
