"""What holds for every test: a clean environment, and nothing left behind."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from tests.support import leftovers, run_report

if TYPE_CHECKING:
    from collections.abc import Iterator

# What a developer's shell may have set and no test may depend on.
_FOREIGN = ("NO_COLOR", "FORCE_COLOR", "CLICOLOR_FORCE", "BUILDX_BUILDER")


def _docker_answers() -> bool:
    try:
        done = subprocess.run(
            ["docker", "version", "--format", "{{.Server.Version}}"],
            capture_output=True,
            timeout=20,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def pytest_configure(config: pytest.Config) -> None:
    run_report.register(config)
    leftovers.adopt_orphans()
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # Run in the background of a script: what the tests start must not inherit that.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if config.getoption("dist", "no") == "no" or config.getoption("--hypothesis-profile", None):
        # Of a run that is spread it takes those that run tests a third of a second to import.
        from tests.support import examples  # noqa: PLC0415

        examples.register_profiles()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs Docker or the cluster only where `script/test` has not set them up.

    Last, so that Docker is asked only for tests that are selected.
    """
    if os.environ.get("DEVLOOP_TEST_KUBECONFIG"):
        return
    needs_docker = [i for i in items if i.get_closest_marker("docker")]
    docker = bool(needs_docker) and _docker_answers()
    for item in items:
        if item.get_closest_marker("kind"):
            item.add_marker(pytest.mark.skip(reason="no test cluster: run script/test"))
        elif item.get_closest_marker("docker") and not docker:
            item.add_marker(pytest.mark.skip(reason="no Docker daemon: run script/test"))


def pytest_collection_finish() -> None:
    """What was collected stays to the end: no look for garbage goes through all of it again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _clean_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """For all tests: whoever changes a variable after that has it restored by `monkeypatch`."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        for name in (*_FOREIGN, *(n for n in os.environ if n.startswith("DEVLOOP_"))):
            if not name.startswith("DEVLOOP_TEST_") or name == run_report.VARIABLE:
                monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.getbasetemp() / "no-config"))
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.getbasetemp() / "state"))
        # A test of what nobody trusted takes it away.
        monkeypatch.setenv("DEVLOOP_TRUST", "1")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
        if kubeconfig := os.environ.get("DEVLOOP_TEST_KUBECONFIG"):
            monkeypatch.setenv("KUBECONFIG", kubeconfig)
        yield


@pytest.fixture(autouse=True)
def _nothing_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    # Those that share a cluster or Docker share connections to them as well.
    shares = any(request.node.get_closest_marker(name) for name in ("docker", "kind"))
    before = leftovers.found(threads_only=shares)
    yield
    began, collected = time.monotonic(), False
    while left := leftovers.found(threads_only=shares) - before:
        waited = time.monotonic() - began
        if waited > 2:
            pytest.fail(f"left behind: {', '.join(sorted(left))}")
        if waited > 0.01 and not collected:
            # An error that was caught holds all that its frames hold, in a cycle.
            gc.collect()
            collected = True
        time.sleep(0.002)
