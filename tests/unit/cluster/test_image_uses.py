"""Images of one service in the manifests of another: who needs whom, what a deploy waits for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from devloop.cluster.deploy.image_uses import image_uses, refuse_cycle, with_used
from devloop.cluster.deploy.own_workloads import own_workloads
from devloop.engine.ports import ImagesMissing
from devloop.errors import DevloopError
from devloop.manifests.files import read_manifests
from tests.support.cluster_objects import service_config
from tests.support.deploy_stage import ONE, TWO, WEB, Stage, manifest
from tests.unit.cluster.test_own_workloads import default, job, workload

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (workload("Deployment", "web", "web", init="shop/tools"), {"tools"}),
        (workload("Deployment", "web", "web") + job("seed", "shop/tools:1"), {"tools"}),
        (workload("Deployment", "web", "web", init="redis"), set()),
    ],
)
def test_what_the_manifests_run_of_others(tmp_path: Path, text: str, expected: set[str]) -> None:
    (tmp_path / "m.yaml").write_text(text)
    web = default(tmp_path, manifests=("web.yaml",))
    tools = default(tmp_path, name="tools", image="shop/tools", manifests=("tools.yaml",))
    services = {s.name: s for s in (web, tools)}
    found = read_manifests([tmp_path / "m.yaml"], show=lambda path: path.name)
    own = own_workloads(found, web, services, namespace="", holds=lambda _s, _m: False)
    assert image_uses(found, web, services, own=own) == expected


def test_those_whose_images_are_needed_join() -> None:
    uses = {"web": frozenset({"tools"}), "tools": frozenset({"base"}), "api": frozenset({"web"})}
    assert with_used(["web"], uses) == ("web", "tools", "base")
    assert with_used(["base"], uses) == ("base",)
    refuse_cycle(uses)


def test_services_that_wait_for_each_other_are_an_error() -> None:
    uses = {"a": frozenset({"b"}), "b": frozenset({"c"}), "c": frozenset({"a"})}
    with pytest.raises(DevloopError) as caught:
        refuse_cycle(uses)
    diagnosis = caught.value.diagnosis
    assert diagnosis.code == "config/value"
    assert diagnosis.cause == "each waits for the next: a -> b -> c -> a"
    assert diagnosis.suggestions


def test_a_deploy_waits_for_the_image_of_another_service(stage: Stage) -> None:
    wanted = manifest()
    spec = wanted["spec"]["template"]["spec"]
    spec["initContainers"] = [{"name": "prep", "image": "tools"}]
    tools = service_config(stage.root, name="tools", image="shop/tools")
    deployer = stage.deployer(wanted, others=(tools,))
    other = deployer._shared.deployer(tools)
    with pytest.raises(ImagesMissing) as caught:
        stage.deploy(deployer, ONE)
    assert caught.value.services == {"tools"}
    assert stage.writes() == []
    other.image_built(TWO)
    deployed = stage.deploy(deployer, ONE)
    assert deployed.uses == {"tools": TWO.pinned}
    pods = stage.api.objects[WEB]["spec"]["template"]["spec"]
    assert pods["initContainers"][0]["image"] == TWO.pinned


def test_a_service_whose_image_runs_only_in_others_deploys_nothing(stage: Stage) -> None:
    wanted = manifest()
    wanted["spec"]["template"]["spec"]["initContainers"] = [{"name": "prep", "image": "tools"}]
    tools = default(stage.root, name="tools", image="shop/tools")
    other = stage.deployer(wanted, others=(tools,))._shared.deployer(tools)
    deployed = stage.deploy(other, TWO)
    assert (deployed.workloads, deployed.changed) == ((), False)
    assert other.follow(deployed, stage.reporter, stage.cancel).pods == ()
    assert stage.writes() == []


def test_an_image_that_nothing_runs_is_an_error_before_anything_is_written(stage: Stage) -> None:
    wanted = manifest("redis:7")
    wanted["metadata"]["name"] = "cache"
    with pytest.raises(DevloopError) as caught:
        stage.deploy(stage.deployer(wanted), ONE)
    diagnosis = caught.value.diagnosis
    assert diagnosis.code == "config/image-not-used"
    assert diagnosis.cause == "images found: redis:7"
    assert stage.writes() == []
