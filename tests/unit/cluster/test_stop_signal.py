"""Which containers' processes end when they are asked to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest

from devloop.base.cancel import Cancel, Cancelled
from devloop.base.supervisor import PROGRAM
from devloop.cluster.replace import stop_signal
from devloop.cluster.replace.stop_signal import StopSignals, reading_by_exec
from devloop.errors import Code, DevloopError
from tests.support.cluster_objects import pod, running, waiting

if TYPE_CHECKING:
    from collections.abc import Mapping

    from devloop.cluster.api.connection import Connection

# As the kernel prints them: nginx, and a Python that handles nothing but SIGINT.
NGINX = "SigIgn:\t0000000040001000\nSigCgt:\t0000000018016a07\n"
PYTHON = (
    "Name:\tpython3\nSigBlk:\t0000000000000000\n"
    "SigIgn:\t0000000001001000\nSigCgt:\t0000000000000002\n"
)
# And devloop's supervisor, and what has its name by chance.
SUPERVISOR = "Name:\tagent\nSigBlk:\tfffffffffffbfeff\nSigIgn:\t0\nSigCgt:\t0000000000000000\n"
OTHER_AGENT = PYTHON.replace("python3", "agent")


class Node:
    """Answers with `status`, which may be an error, and counts how often it was asked."""

    def __init__(self, status: str | Exception) -> None:
        self.status = status
        self.asked = 0

    def __call__(self, pod: Mapping[str, Any], container: str, cancel: Cancel) -> str:
        del pod, container, cancel
        self.asked += 1
        if isinstance(self.status, Exception):
            raise self.status
        return self.status


def blocker(node: Node, status: dict[str, Any] | None = None, **spec: Any) -> str:
    made = pod(status or running())
    made["spec"].update(spec)
    return StopSignals(node).blocker(made, "web", Cancel())


def test_one_that_handles_its_signal_is_asked_once() -> None:
    node = Node(NGINX)
    signals = StopSignals(node)
    assert [signals.blocker(pod(running()), "web", Cancel()) for _ in range(3)] == [""] * 3
    assert node.asked == 1
    signals.blocker(pod(running(containerID="containerd://2")), "web", Cancel())
    assert node.asked == 2


def test_one_that_does_not_is_asked_again_as_it_may_only_have_begun() -> None:
    node = Node(PYTHON)
    signals = StopSignals(node)
    assert "web ignores SIGTERM" in signals.blocker(pod(running()), "web", Cancel())
    node.status = NGINX
    assert signals.blocker(pod(running()), "web", Cancel()) == ""


@pytest.mark.parametrize(
    ("status", "name", "words"),
    [
        (PYTHON, "SIGINT", ""),
        (NGINX, "SIGQUIT", ""),
        (PYTHON, "SIGQUIT", "web ignores SIGQUIT"),
        (SUPERVISOR, "SIGTERM", ""),
        (SUPERVISOR, "SIGQUIT", ""),
        (SUPERVISOR, "SIGRTMIN+3", ""),
        (SUPERVISOR.replace("agent", "agents"), "SIGTERM", "web ignores SIGTERM"),
        (OTHER_AGENT, "SIGTERM", "web ignores SIGTERM"),
        (NGINX, "SIGNONE", "it is not known whether web ends at SIGNONE"),
    ],
)
def test_the_signal_is_the_one_that_its_status_names(status: str, name: str, words: str) -> None:
    found = blocker(Node(status), running(stopSignal=name))
    assert found == words if not words else words in found


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ("no masks here", "/proc/1/status does not say"),
        (ValueError('exec: "cat": not found'), '"cat": not found'),
        (TimeoutError("did not end in 2 s"), "did not end in 2 s"),
        (DevloopError.of(Code.CLUSTER_FORBIDDEN, "pods/exec is forbidden"), "is forbidden"),
    ],
)
def test_what_cannot_be_found_out_is_said(status: str | Exception, words: str) -> None:
    found = blocker(Node(status))
    assert found.startswith("it is not known whether web ends at SIGTERM: ")
    assert words in found


def test_a_cancel_is_no_answer() -> None:
    with pytest.raises(Cancelled):
        blocker(Node(Cancelled()))


@pytest.mark.parametrize(
    "spec",
    [
        {"shareProcessNamespace": True},  # it is not process 1 of its namespace
        {"hostPID": True},
        {"terminationGracePeriodSeconds": 1},
    ],
)
def test_one_that_ends_soon_in_any_case_is_not_asked(spec: dict[str, Any]) -> None:
    node = Node(PYTHON)
    assert blocker(node, None, **spec) == ""
    assert node.asked == 0


def test_one_that_does_not_run_has_nothing_to_stop() -> None:
    assert blocker(Node(PYTHON), waiting("CrashLoopBackOff")) == ""


@pytest.mark.parametrize("has", ["cat", PROGRAM, ""])
def test_without_cat_devloops_own_program_is_asked(
    monkeypatch: pytest.MonkeyPatch, has: str
) -> None:
    def run(*_: object, argv: tuple[str, ...], limit: float) -> str:
        assert limit > 0
        if argv[0] != has:
            raise ValueError(f"{argv[0]}: not found")
        return SUPERVISOR

    monkeypatch.setattr(stop_signal, "run_exec", run)
    read = reading_by_exec(cast("Connection", None))
    if has:
        assert read(pod(running()), "web", Cancel()) == SUPERVISOR
        return
    with pytest.raises(ValueError, match="cat: not found"):
        read(pod(running()), "web", Cancel())
