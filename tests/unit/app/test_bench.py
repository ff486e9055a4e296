"""The benchmark's baseline: what it leaves in the cluster, however it ends."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from devloop.app.bench import _Leased, kept, measure, pick_file
from devloop.base.cancel import Cancel, Cancelled
from devloop.cluster.api.connection import Connection
from devloop.cluster.api.pod_view import dig, images_of
from devloop.cluster.api.view import ClusterView
from devloop.cluster.deploy.lease import lease_path
from devloop.config.loader import load_project
from devloop.errors import Code, DevloopError
from devloop.model import Deployed, DeployedWorkload, ImageRef, Served, WorkloadRef
from tests.support.fake_api import FakeApi, Fault, fake_api
from tests.support.in_place_stage import WEB, InPlaceStage, image

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from pathlib import Path
    from typing import Any

    from devloop.engine.ports import Reporter
    from devloop.model import Standing


def _killed_bench(directory: Path, left: bytes) -> Path:
    """A file as a bench left it that was killed."""
    (directory / "bench-app.py.original").write_bytes(b"print()\n")
    file = directory / "app.py"
    file.write_bytes(left)
    return file


def test_the_blank_lines_of_a_bench_that_was_killed_are_taken_back(tmp_path: Path) -> None:
    file = _killed_bench(tmp_path, b"print()\n   \n\n  \n")
    with kept(file, tmp_path) as original:
        assert original == b"print()\n"
    assert [path.name for path in tmp_path.iterdir()] == ["app.py"]
    assert file.read_bytes() == b"print()\n"


def test_what_was_edited_since_is_nobody_elses(tmp_path: Path) -> None:
    file = _killed_bench(tmp_path, b"print(1)\n   \n")
    with kept(file, tmp_path) as original:
        assert original == b"print(1)\n   \n"


def test_the_file_to_edit_is_one_that_the_image_reads(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY app.py .\n")
    (tmp_path / "devloop.yaml").write_text("version: 1\nservices: {web: {build: .}}\n")
    for age, name in enumerate(("debug.log", "app.py")):
        (tmp_path / name).write_text("text")
        os.utime(tmp_path / name, (time.time() - age, time.time() - age))
    project = load_project(cwd=tmp_path, env={}).project
    assert pick_file(project.services["web"], project) == tmp_path / "app.py"


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[InPlaceStage]:
    root = tmp_path / "project"
    root.mkdir()
    with fake_api() as api:
        env = {"KUBECONFIG": str(api.kubeconfig(tmp_path)), "HOME": str(tmp_path)}
        connection = Connection.open(None, "dev", env=env)
        view = ClusterView(connection)
        made = InPlaceStage(api, connection, view, root)
        yield made
        made.deployments.close()
        view.close()
        connection.close()


def _interrupted(stage: InPlaceStage, at: int) -> None:
    """Measure, and be interrupted at the cluster's `at`-th write to the Deployment."""
    cancel = Cancel()
    writes: list[str] = []

    def interrupt(path: str, _: dict[str, Any]) -> None:
        writes.append(path)
        if path == WEB and writes.count(WEB) == at:
            cancel.set()

    stage.api.on_write.append(interrupt)
    with pytest.raises(Cancelled):
        measure(stage.deployer, image("a"), [image("b"), image("c")], 0.0, cancel)
    stage.deployments.close()


def _asked_for(api: FakeApi) -> str:
    return images_of(api.objects[WEB])["web"]


def test_an_interrupted_baseline_leaves_nothing_paused_and_the_image_of_before(
    stage: InPlaceStage,
) -> None:
    _interrupted(stage, 1)
    assert not stage.paused()
    assert stage.log.entries() == ()
    assert _asked_for(stage.api) == image("a").pinned


def test_an_interrupt_is_not_replaced_by_an_error_of_the_cluster(stage: InPlaceStage) -> None:
    def refuse(path: str, _: dict[str, Any]) -> None:
        if path == WEB:
            stage.api.faults.append(Fault(method="PATCH", path="deployments", times=9, code=403))

    stage.api.on_write.append(refuse)
    _interrupted(stage, 1)
    # The next start recovers what could not be resumed.
    assert len(stage.log.entries()) == 1
    stage.api.faults.clear()
    stage.deployments.recover()
    assert not stage.paused()


class Instant:
    """A `Deployer` whose cluster is ready at once, but never with `bad`."""

    def __init__(self, bad: ImageRef | None = None) -> None:
        self.bad = bad
        self.images: list[ImageRef] = []

    def deploy(self, image: ImageRef, reporter: Reporter, cancel: Cancel) -> Deployed:
        self.images.append(image)
        ref = WorkloadRef("deployment", "web", "dev")
        web = DeployedWorkload(
            workload=ref, uid="u", generation=1, image=image, containers=("web",), how="in-place"
        )
        return Deployed(image=image, workloads=(web,))

    def go_back(
        self,
        image: ImageRef,
        untouched: Collection[str] | None,
        reporter: Reporter,
        cancel: Cancel,
    ) -> Deployed:
        return self.deploy(image, reporter, cancel)

    def follow(self, deployed: Deployed, reporter: Reporter, cancel: Cancel) -> Served:
        if deployed.image == self.bad:
            raise DevloopError.of(Code.POD_CRASH_LOOP, "it crashes")
        return Served(image=deployed.image, pods=("web-1",), image_ids=())

    def await_recovery(self, deployed: Deployed, cancel: Cancel) -> Served:
        raise NotImplementedError

    def await_cause(self, cancel: Cancel) -> str | None:
        raise NotImplementedError

    def rollback(self, deployed: Deployed, reporter: Reporter, cancel: Cancel) -> None:
        raise NotImplementedError

    def adopt(self, image: ImageRef, cancel: Cancel) -> str | None:
        raise NotImplementedError

    def standing(self, images: Mapping[str, ImageRef], cancel: Cancel) -> Standing | str:
        raise NotImplementedError

    def recreate(self, deployed: Deployed, pods: Sequence[str], cancel: Cancel) -> None:
        raise NotImplementedError


def test_each_image_is_measured_and_the_one_of_before_is_served_again() -> None:
    deployer = Instant()
    fresh = [image("b"), image("c")]
    how, found = measure(deployer, image("a"), fresh, 0.0, Cancel())
    assert (how, len(found)) == ("in-place", 2)
    assert deployer.images == [*fresh, image("a")]


def test_after_a_failure_the_image_of_before_is_asked_for_again() -> None:
    deployer = Instant(bad=image("b"))
    with pytest.raises(DevloopError, match="it crashes"):
        measure(deployer, image("a"), [image("b"), image("c")], 0.0, Cancel())
    assert deployer.images == [image("b"), image("a")]


def test_a_workload_that_another_session_took_over_is_left_to_it() -> None:
    cancel = Cancel()

    class Lost(Instant):
        def follow(self, deployed: Deployed, reporter: Reporter, cancel: Cancel) -> Served:
            del deployed, reporter, cancel
            raise Cancelled

    deployer = Lost()
    with pytest.raises(Cancelled):
        measure(deployer, image("a"), [image("b")], 0.0, cancel, lost=lambda: True)
    assert deployer.images == [image("b")]


def test_the_baseline_has_the_lease_of_its_workload_and_ends_when_it_loses_it(
    stage: InPlaceStage,
) -> None:
    api, connection = stage.api, stage.deployments.connection
    refs = [WorkloadRef("deployment", "web", "dev")]
    path = lease_path(refs[0])
    outer = Cancel()
    with _Leased(connection, refs, "shop", outer) as ours:
        assert dig(api.objects[path], "spec", "holderIdentity")
        outer.set()
        assert ours.cancel.is_set()
    assert not dig(api.objects.get(path, {}), "spec", "holderIdentity")
    taken = DevloopError.of(Code.SAFETY_LEASE, "taken over")

    def lose_it() -> None:
        with _Leased(connection, refs, "shop", Cancel()) as ours:
            ours._lose(taken)
            ours.cancel.check()

    with pytest.raises(DevloopError, match="taken over"):
        lose_it()
