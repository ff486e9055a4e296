"""A real `devloop dev` of a project of three files, and what its events say of each hop.

A process of its own: whatever it does is what a session does, and its end takes everything along.
"""

from __future__ import annotations

import json
import threading
import time
from typing import TYPE_CHECKING, Any

from devloop.app.doctor.hops import HopFinding
from devloop.errors import Code, DevloopError, Diagnosis

if TYPE_CHECKING:
    from devloop.base.cancel import Cancel


SERVICE = "devloop-doctor"
_STEPS = {"build": "build", "push": "push", "deploy": "deploy", "rollout": "pull", "sync": "agent"}
_STEP_OF = {hop: step for step, hop in _STEPS.items()}
_TICK = 0.2


class Rehearsal:
    """Takes the session's events in one thread, answers in another. `pod` is the one that was ready
    last."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._done: dict[str, str] = {}
        self._problems: list[dict[str, Any]] = []
        self._hold: dict[str, Any] = {}
        self._failed: dict[str, Any] | None = None
        self._over = False
        self._words: list[str] = []
        self.pod = ""

    # What the session says

    def line(self, text: str) -> None:
        """A line of its standard output."""
        try:
            event = json.loads(text)
        except ValueError:
            return
        with self._changed:
            if isinstance(event, dict):
                self._take(event)
            self._changed.notify_all()

    def error_line(self, text: str) -> None:
        """A line of its standard error: for when it breaks without an event."""
        with self._changed:
            self._words = [*self._words[-20:], text]

    def over(self) -> None:
        """The process has ended."""
        with self._changed:
            self._over = True
            self._changed.notify_all()

    def _take(self, event: dict[str, Any]) -> None:
        match event:
            case {"type": "step.finished", "step": step, "outcome": "done"} if step in _STEPS:
                self._done[_STEPS[step]] = str(event.get("detail") or "")
                self._hold = {}
            case {"type": "diagnostic", "severity": "error"}:
                self._problems.append(event)
            case {"type": "diagnostic", "code": "build/no-supervisor" | "sync/image"}:
                self._problems.append(event)
            case {"type": "hold", "code": str(code)} if code:
                self._hold = event
            case {"type": "log", "service": service, "text": str(text)} if service == SERVICE:
                self._done.setdefault("log", text)
            case {"type": "pod.changed", "ready": True, "deleting": False, "pod": str(pod)}:
                self.pod = pod
            case {"type": "iteration.finished"}:
                if event.get("outcome") == "failed":
                    self._failed = event
                else:
                    self._done[f"iteration {event.get('iter')}"] = str(event.get("outcome"))
            case {"type": "session.ended"}:
                self._over = True

    # What came of a hop

    def wait(self, hop: str, seconds: float, cancel: Cancel) -> HopFinding:
        """Wait until the session is past `hop`. Errors: whatever kept it from that; env/control
        after `seconds` without a reason."""
        deadline = time.monotonic() + seconds
        with self._changed:
            while hop not in self._done:
                cancel.check()
                if self._over or self._failed is not None:
                    raise DevloopError(self._problem(hop))
                if time.monotonic() > deadline:
                    raise DevloopError(self._late(hop, seconds))
                self._changed.wait(_TICK)
            return HopFinding(detail=self._done[hop])

    def has(self, hop: str) -> bool:
        with self._changed:
            return hop in self._done

    def _problem(self, hop: str) -> Diagnosis:
        for each in reversed(self._problems):
            return diagnosis_of(each)
        last = " ".join(self._words[-1:])
        return Diagnosis(
            code=Code.INTERNAL_BUG,
            message=f"the session ended before the step {_STEP_OF.get(hop, hop)}",
            cause=(self._failed or {}).get("why") or last or None,
            detail=tuple(self._words),
        )

    def _late(self, hop: str, seconds: float) -> Diagnosis:
        if self._hold:
            return Diagnosis(
                code=_code(self._hold.get("code")), message=str(self._hold.get("reason"))
            )
        if self._problems:
            return diagnosis_of(self._problems[-1])
        return Diagnosis(
            code=Code.POD_DEADLINE,
            message=f"nothing came of it within {seconds:g} s",
            cause=f"the session is still at the step {_STEP_OF.get(hop, hop)}",
        )


def diagnosis_of(event: dict[str, Any]) -> Diagnosis:
    """The diagnosis in a `diagnostic` event; its place, in a file that is gone soon, is not."""
    return Diagnosis(
        code=_code(event.get("code")),
        message=str(event.get("message")),
        cause=event.get("cause"),
        suggestions=tuple(event.get("suggestions") or ()),
        detail=tuple(event.get("detail") or ()),
    )


def _code(text: object) -> Code:
    try:
        return Code(str(text))
    except ValueError:
        return Code.INTERNAL_BUG


def project_files(
    *, agent: bytes, builder: str, registry: str | None, allow_contexts: tuple[str, ...]
) -> dict[str, bytes]:
    """The project. Its program is devloop's own agent, which waits for its input: nothing has to be
    pulled for it."""
    config: dict[str, Any] = {"version": 1, "name": SERVICE}
    if registry:
        config["registry"] = registry
    if allow_contexts:
        config["allow_contexts"] = list(allow_contexts)
    config["services"] = {
        SERVICE: {
            "build": {"context": "image", "builder": builder},
            "deploy": {"manifests": ["k8s.json"], "timeout": "45s"},
        }
    }
    labels = {"app": SERVICE}
    container = {"name": SERVICE, "image": SERVICE, "stdin": True}
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": SERVICE},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [container], "terminationGracePeriodSeconds": 1},
            },
        },
    }
    dockerfile = 'FROM scratch\nCOPY agent /agent\nCOPY saved /saved\nCMD ["/agent", "serve"]\n'
    return {
        # JSON is YAML.
        "devloop.yaml": json.dumps(config).encode(),
        "k8s.json": json.dumps(deployment).encode(),
        "image/Dockerfile": dockerfile.encode(),
        "image/agent": agent,
        "image/saved": b"once\n",
    }
