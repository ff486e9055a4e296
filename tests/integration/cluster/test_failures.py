"""What goes wrong in a real cluster, and how soon and how well devloop says so."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from devloop.base.cancel import Cancelled
from devloop.errors import DevloopError
from tests.integration.cluster.conftest import Bench, pod_spec, workload

if TYPE_CHECKING:
    from collections.abc import Callable

    from devloop.errors import Diagnosis
    from devloop.model import ImageRef

pytestmark = [pytest.mark.kind, pytest.mark.docker]


def failure(
    bench: Bench, image: ImageRef, manifest: dict[str, Any], *, timeout: float = 3600.0
) -> Diagnosis:
    """Deploy what cannot work; returns the diagnosis, which does not wait for the time-out."""
    with pytest.raises(DevloopError) as caught:
        bench.serve(bench.deployer(bench.project(manifest, timeout=timeout)), image)
    return caught.value.diagnosis


def with_container(**change: Any) -> dict[str, Any]:
    manifest: dict[str, Any] = workload()
    manifest["spec"]["template"]["spec"]["containers"][0].update(change)
    return manifest


def test_crash_loop_shows_the_log(bench: Bench, push: Callable[[str], ImageRef]) -> None:
    script = "echo starting; echo 'ValueError: no such port' >&2; exit 3"
    manifest = with_container(command=["sh", "-c", script])
    diagnosis = failure(bench, push("one"), manifest)
    assert diagnosis.code == "pod/crash-loop"
    assert "exit code 3" in diagnosis.message
    assert str(diagnosis.cause).startswith("ValueError: no such port")
    assert "starting" in diagnosis.detail


def test_image_that_is_not_there(bench: Bench, push: Callable[[str], ImageRef]) -> None:
    gone = replace(push("one"), digest="sha256:" + "0" * 64)
    diagnosis = failure(bench, gone, workload())
    assert diagnosis.code == "pod/image-pull"
    assert "not found" in str(diagnosis.cause)


def test_registry_that_is_not_there(bench: Bench, push: Callable[[str], ImageRef]) -> None:
    elsewhere = replace(push("one"), pull_repository="localhost:1/devloop-cluster/web")
    diagnosis = failure(bench, elsewhere, workload())
    assert diagnosis.code == "pod/image-pull"
    assert "localhost:1" in diagnosis.suggestions[0]


def test_unschedulable(bench: Bench, push: Callable[[str], ImageRef]) -> None:
    diagnosis = failure(bench, push("one"), workload(nodeSelector={"disk": "golden"}))
    assert diagnosis.code == "pod/unschedulable"
    assert "nodeSelector" in diagnosis.suggestions[0]


def test_probe_that_fails_at_the_deadline(bench: Bench, push: Callable[[str], ImageRef]) -> None:
    manifest = with_container(
        readinessProbe={"httpGet": {"path": "/missing", "port": 8080}, "periodSeconds": 1}
    )
    diagnosis = failure(bench, push("one"), manifest, timeout=6)
    assert diagnosis.code == "pod/probe-failing"
    assert "404" in str(diagnosis.cause)


def test_missing_secret(bench: Bench, push: Callable[[str], ImageRef]) -> None:
    manifest = with_container(
        env=[{"name": "X", "valueFrom": {"secretKeyRef": {"name": "nope", "key": "x"}}}]
    )
    diagnosis = failure(bench, push("one"), manifest)
    assert diagnosis.code == "pod/config-error"
    assert "'nope'" in diagnosis.suggestions[0]


def test_missing_command(bench: Bench, push: Callable[[str], ImageRef]) -> None:
    diagnosis = failure(bench, push("one"), with_container(command=["/no/such/file"]))
    assert diagnosis.code == "pod/config-error"
    assert "no such file" in str(diagnosis.cause)


def test_out_of_memory(bench: Bench, push: Callable[[str], ImageRef]) -> None:
    script = "x=0123456789; while true; do x=$x$x; done"
    manifest = with_container(
        command=["sh", "-c", script], resources={"limits": {"memory": "16Mi"}}
    )
    diagnosis = failure(bench, push("one"), manifest)
    assert diagnosis.code in {"pod/oom-killed", "pod/crash-loop"}
    assert "memory" in str(diagnosis.message) + str(diagnosis.cause)


def test_init_container(bench: Bench, push: Callable[[str], ImageRef]) -> None:
    init = pod_spec("echo migrating; exit 4")["containers"][0] | {"name": "migrate"}
    diagnosis = failure(bench, push("one"), workload(initContainers=[init]))
    assert diagnosis.code == "pod/init-failing"
    assert "migrate" in diagnosis.message
    assert "migrating" in diagnosis.detail


def test_pods_that_may_not_be_made(bench: Bench, push: Callable[[str], ImageRef]) -> None:
    diagnosis = failure(bench, push("one"), workload(serviceAccountName="nobody"))
    assert diagnosis.code == "cluster/rejected"
    assert "nobody" in str(diagnosis.cause)


def test_the_next_deploy_replaces_a_failing_one(
    bench: Bench, push: Callable[[str], ImageRef]
) -> None:
    good = bench.deployer(bench.project(workload()))
    bench.serve(good, push("one"))
    broken = bench.deployer(bench.project(with_container(command=["sh", "-c", "exit 1"])))
    with pytest.raises(DevloopError):
        bench.serve(broken, push("two"))
    _, served = bench.serve(bench.deployer(bench.project(workload())), push("three"))
    assert served.image_ids == (push("three").pinned,)


def test_cancel_ends_the_wait_at_once(bench: Bench, push: Callable[[str], ImageRef]) -> None:
    deployer = bench.deployer(bench.project(workload(nodeSelector={"no": "where"})))
    deployed = deployer.deploy(push("one"), bench.reporter, bench.cancel)
    timer = threading.Timer(0.3, bench.cancel.set)
    timer.start()
    with pytest.raises(Cancelled):
        deployer.follow(deployed, bench.reporter, bench.cancel)
    timer.join()


def test_the_watch_survives_being_cut(bench: Bench, push: Callable[[str], ImageRef]) -> None:
    deployer = bench.deployer(bench.project(workload()))
    bench.serve(deployer, push("one"))
    bench.view.reconnect()
    _, served = bench.serve(deployer, push("two"))
    assert served.image_ids == (push("two").pinned,)
