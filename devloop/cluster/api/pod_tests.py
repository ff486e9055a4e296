"""A fresh image run once for its `test`, as a pod of the namespace.

For machines without Docker. The pod has a deadline of its own and is deleted in any case; what an
earlier session left is deleted before the first test.
"""

from __future__ import annotations

import contextlib
import secrets
from typing import TYPE_CHECKING, Any

from devloop.cluster.api.api_errors import ApiError
from devloop.cluster.api.log_stream import LOG_PATH
from devloop.cluster.api.pod_view import dig, items, text
from devloop.errors import DevloopError
from devloop.model import CREATED_BY, EndedTest

if TYPE_CHECKING:
    from collections.abc import Callable

    from devloop.base.cancel import Cancel
    from devloop.cluster.api.connection import Connection
    from devloop.cluster.api.pod_view import Json
    from devloop.config.commands import ImageTest
    from devloop.model import ImageRef


LABEL = "devloop.dev/test-of"

_POLL = 0.2  # seconds
_START = 60.0  # more seconds than the test has, for its pod to be there
# Reasons for which a container that waits never starts, as kubelets give them.
_NEVER = ("ErrImageNeverPull", "InvalidImageName", "CreateContainerError", "RunContainerError")
_NO_IMAGE = ("ErrImagePull", "ImagePullBackOff")


class PodTests:
    """Where the tests of one service run."""

    def __init__(self, connection: Connection, service: str, project: str) -> None:
        self._connection = connection
        self._path = f"/api/v1/namespaces/{connection.namespace}/pods"
        self._service = service
        self._project = project
        self._tidied = False

    def run(
        self, image: ImageRef, test: ImageTest, on_line: Callable[[str], None], cancel: Cancel
    ) -> EndedTest:
        """See hooks.tester.PlaceForTests. Raises cluster/*."""
        self._tidy()
        name = f"devloop-test-{self._service[:40]}-{secrets.token_hex(4)}"
        self._connection.request("POST", self._path, self._pod(name, image, test))
        try:
            return self._to_end(name, test, on_line, cancel)
        finally:
            self._delete(name)

    def _pod(self, name: str, image: ImageRef, test: ImageTest) -> dict[str, Any]:
        container = {
            "name": "test",
            "image": image.pinned,
            "command": list(test.command),
            "env": [
                {"name": "DEVLOOP_SERVICE", "value": self._service},
                {"name": "DEVLOOP_IMAGE", "value": image.pinned},
            ],
        }
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": name,
                "labels": {LABEL: self._service, "devloop.dev/project": self._project},
                "annotations": {CREATED_BY: self._project},
            },
            "spec": {
                "restartPolicy": "Never",
                "activeDeadlineSeconds": int(test.timeout + _START),
                "terminationGracePeriodSeconds": 1,
                "automountServiceAccountToken": False,
                "containers": [container],
            },
        }

    def _to_end(
        self, name: str, test: ImageTest, on_line: Callable[[str], None], cancel: Cancel
    ) -> EndedTest:
        waited, printed = 0.0, 0
        while True:
            cancel.check()
            pod = self._connection.request("GET", f"{self._path}/{name}")
            status = next(iter(items(dig(pod, "status", "containerStatuses"))), {})
            if (ended := _ended(status)) is not None:
                self._print(name, printed, on_line)
                return ended
            waiting = dig(status, "state", "waiting")
            reason = text(dig(waiting, "reason"))
            if reason in _NEVER or (reason in _NO_IMAGE and waited > _START / 4):
                return EndedTest(not_run=text(dig(waiting, "message")) or reason)
            if dig(status, "state", "running"):
                printed = self._print(name, printed, on_line)
                test_time = waited
            else:
                test_time = waited - _START
            if test_time > test.timeout or text(dig(pod, "status", "phase")) == "Failed":
                self._print(name, printed, on_line)
                raise TimeoutError
            cancel.wait(_POLL)
            waited += _POLL

    def _print(self, name: str, printed: int, on_line: Callable[[str], None]) -> int:
        """Hand on the lines after the first `printed`; how many there are."""
        path = LOG_PATH.format(self._connection.namespace, name)
        try:
            data = b"".join(self._connection.stream(path, {"container": "test"}, idle=30.0))
        except DevloopError:
            return printed
        lines = data.decode("utf-8", "replace").splitlines()
        for line in lines[printed:]:
            on_line(line)
        return len(lines)

    def _delete(self, name: str) -> None:
        with contextlib.suppress(DevloopError):
            body = {"gracePeriodSeconds": 0}
            self._connection.request("DELETE", f"{self._path}/{name}", body, timeout=10.0)

    def _tidy(self) -> None:
        if self._tidied:
            return
        self._tidied = True
        query = {"labelSelector": f"{LABEL}={self._service},devloop.dev/project={self._project}"}
        with contextlib.suppress(ApiError):
            found = self._connection.request("GET", self._path, query=query)
            for pod in items(found.get("items")):
                self._delete(text(dig(pod, "metadata", "name")))


def _ended(status: Json) -> EndedTest | None:
    ended = dig(status, "state", "terminated")
    if not ended:
        return None
    code, reason = dig(ended, "exitCode"), text(dig(ended, "reason"))
    if reason in ("StartError", "ContainerCannotRun"):
        return EndedTest(status=128, not_run=text(dig(ended, "message")) or reason)
    return EndedTest(status=code if isinstance(code, int) else 1)
