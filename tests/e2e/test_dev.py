"""The loop itself, on a real cluster: every save is served, and nothing else happens."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.e2e.conftest import Cluster
    from tests.e2e.session import Devloop, Workspace

    Start = Callable[..., Devloop]


def test_the_first_deploy_and_twenty_edits_in_a_row(
    devloop: Start, workspace: Workspace, cluster: Cluster
) -> None:
    session = devloop("dev")
    first = session.finished("ready", seconds=120)
    cluster.serves("v0")
    assert cluster.image_ids() == {first["digest"]}
    for number in range(1, 21):
        workspace.version(f"v{number}")
        done = session.finished("ready")
        cluster.serves(f"v{number}")
        assert cluster.image_ids() == {done["digest"]}
    start, *saves = [e["trigger"] for e in session.of("iteration.started")]
    assert start["kind"] == "start"
    assert [(save["kind"], save["paths"]) for save in saves] == [("files", ["app.py"])] * 20
    session.interrupt()
    assert session.process.returncode == 130


@pytest.mark.parametrize("replace", ["in-place", "rolling"])
def test_logs_before_and_after_a_replacement(
    devloop: Start, workspace: Workspace, replace: str
) -> None:
    workspace.replace("devloop.yaml", "replace: in-place", f"replace: {replace}")
    session = devloop("dev")
    session.finished("ready", seconds=120)
    first = session.logged("serving v0")
    workspace.version("v1")
    session.finished("ready")
    second = session.logged("serving v1")
    assert (first["pod"] == second["pod"]) == (replace == "in-place")
    texts = [e["text"] for e in session.of("log")]
    assert texts.count("serving v0") == 1
    assert texts.count("serving v1") == 1


def test_touch_and_rewrite_do_nothing(
    devloop: Start, workspace: Workspace, cluster: Cluster
) -> None:
    session = devloop("dev")
    session.finished("ready", seconds=120)
    before = cluster.get("deployment", "web")["metadata"]["generation"]
    (workspace.root / "app.py").touch()
    workspace.save("app.py", workspace.read("app.py"))
    seen = session.quiet(3)
    assert not [e for e in seen if e.get("step") in ("build", "push", "deploy", "rollout")]
    outcomes = {e["outcome"] for e in seen if e["type"] == "iteration.finished"}
    assert outcomes <= {"unchanged"}
    assert cluster.get("deployment", "web")["metadata"]["generation"] == before


def test_noise_in_ignored_paths(devloop: Start, workspace: Workspace, cluster: Cluster) -> None:
    """Neither triggers nor delays."""
    (workspace.root / ".git").mkdir()
    (workspace.root / "scratch").mkdir()
    session = devloop("dev")
    session.finished("ready", seconds=120)

    def noise(count: int) -> None:
        (workspace.root / ".git" / "index").write_text(str(count))
        (workspace.root / "scratch" / f"file{count % 7}").write_text(str(count))

    with all_the_time(noise):
        assert session.quiet(2) == []
        workspace.version("v1")
        session.wait(lambda e: e["type"] == "iteration.started", "iteration", 5)
        session.finished("ready")
        cluster.serves("v1")


def test_a_file_of_the_image_that_changes_all_the_time_holds_nothing_up(
    devloop: Start, workspace: Workspace, cluster: Cluster
) -> None:
    with all_the_time(lambda count: (workspace.root / "debug.log").write_text(str(count))):
        session = devloop("dev")
        session.ready_at_last(120)
        cluster.serves("v0")
        workspace.version("v1")
        session.logged("serving v1")
        cluster.serves("v1")
    named = [e for e in session.of("diagnostic") if e["code"] == "build/keeps-changing"]
    assert [e["message"].partition(" ")[0] for e in named] == ["debug.log"]


@contextlib.contextmanager
def all_the_time(write: Callable[[int], object]) -> Iterator[None]:
    """Call `write` ten times a second meanwhile, with how often it was called."""
    stop = threading.Event()

    def noise() -> None:
        for count in itertools.count():
            if stop.wait(0.1):
                return
            write(count)

    writer = threading.Thread(target=noise, name="devloop-test-noise")
    writer.start()
    try:
        yield
    finally:
        stop.set()
        writer.join()


def test_a_save_during_the_build_supersedes(
    devloop: Start, workspace: Workspace, cluster: Cluster
) -> None:
    workspace.replace("Dockerfile", "COPY . .", "COPY . .\nRUN sleep 8")
    session = devloop("dev")
    session.finished("ready", seconds=120)
    workspace.version("v1")
    session.started("build")
    time.sleep(2)
    workspace.version("v2")
    cancelled = session.finished("cancelled", seconds=5)  # sooner than the build would end
    done = session.finished("ready")
    cluster.serves("v2")
    assert done["iter"] == cancelled["iter"] + 1
    images = {
        c["image"]
        for rs in cluster.get("replicasets")["items"]
        for c in rs["spec"]["template"]["spec"]["containers"]
    }
    # The superseded image never came near the cluster; this one took the first one's place.
    assert [image.rpartition("@")[2] for image in images] == [done["digest"]]


def test_build_error_and_recovery(devloop: Start, workspace: Workspace, cluster: Cluster) -> None:
    session = devloop("dev")
    session.finished("ready", seconds=120)
    workspace.replace("Dockerfile", "COPY . .", "COPY . .\nRUN echo out of luck && exit 3")
    failed = session.finished("failed")
    problem = session.of("diagnostic")[-1]
    assert problem["code"] == "build/run-failed"
    assert problem["location"]["path"] == "Dockerfile"
    assert problem["location"]["line"] == 5
    assert any("out of luck" in line for line in problem["detail"])
    assert failed["failed_step"] == "build"
    cluster.serves("v0")
    workspace.replace("Dockerfile", "RUN echo out of luck && exit 3", "RUN true")
    workspace.version("v1")
    session.ready_at_last()
    cluster.serves("v1")


def test_a_crash_loop_beside_what_is_served(
    devloop: Start, workspace: Workspace, cluster: Cluster
) -> None:
    workspace.replace("devloop.yaml", "replace: in-place", "replace: rolling")
    session = devloop("dev")
    session.finished("ready", seconds=120)
    good = workspace.read("app.py")
    workspace.save("app.py", good.replace("import sys\n", "import sys\nraise SystemExit('no')\n"))
    session.finished("failed")
    problem = session.of("diagnostic")[-1]
    assert problem["code"] == "pod/crash-loop"
    assert any("no" in line for line in problem["detail"]), problem
    cluster.serves("v0")
    workspace.save("app.py", good.replace('VERSION = "v0"', 'VERSION = "v1"'))
    session.finished("ready")
    cluster.serves("v1")


def test_a_crash_is_shown_at_the_line_that_it_is_about(
    devloop: Start, workspace: Workspace, cluster: Cluster
) -> None:
    session = devloop("dev")
    session.finished("ready", seconds=120)
    good = workspace.read("app.py")
    line = good.splitlines().index('VERSION = "v0"') + 1
    for broken, code in (
        (good.replace('VERSION = "v0"', "VERSION = 1 / 0"), "ZeroDivisionError"),
        (good.replace('VERSION = "v0"', 'VERSION = = "v0"'), "SyntaxError"),
    ):
        workspace.save("app.py", broken)
        session.finished("failed")
        problem = session.of("diagnostic")[-1]
        assert problem["code"] == "pod/crash-loop"
        assert code in problem["cause"]
        assert problem["location"] == {"path": "app.py", "line": line, "column": None}
    workspace.save("app.py", good)
    session.finished("ready")
