"""Commands in manifests and in the cluster, of which the image's supervisor is to be the parent."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from devloop.base.supervisor import supervise
from devloop.cluster.api.pod_view import dig
from devloop.cluster.deploy.objects import pin
from devloop.cluster.deploy.write import ImagePatch
from devloop.cluster.replace.recovery_log import RecoveryLog
from devloop.model import ImageRef, WorkloadRef
from tests.support.cluster_objects import deployment

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from devloop.cluster.api.connection import Connection
    from tests.support.fake_api import FakeApi

WEB = "/apis/apps/v1/namespaces/dev/deployments/web"
UNDER = [*supervise()]
BUILT = ImageRef(repository="localhost:5001/shop/web", tag="1", digest="sha256:" + "1" * 64)
DEV = replace(BUILT, tag="1-dev", digest="sha256:" + "2" * 64, supervisor=supervise())

if TYPE_CHECKING:
    Patch = Callable[..., ImagePatch]


@pytest.mark.parametrize(
    ("container", "command"),
    [
        ({"command": ["app", "-x"]}, [*UNDER, "app", "-x"]),
        ({"command": ["app"], "args": ["-x"]}, [*UNDER, "app"]),
        ({"command": [*UNDER, "app"]}, [*UNDER, "app"]),
        ({"command": ["/init"]}, ["/init"]),
        ({"command": []}, []),
        ({"args": ["-x"]}, None),
        ({}, None),
    ],
)
def test_a_manifest_s_command_is_wrapped_for_a_dev_image(
    container: dict[str, Any], command: list[str] | None
) -> None:
    made = {**container}
    pin(made, DEV)
    assert made.get("command") == command
    assert made.get("args") == container.get("args")
    assert made["image"] == DEV.pinned


@pytest.mark.parametrize("command", [["app", "-x"], [*UNDER, "app", "-x"]])
def test_it_is_not_for_any_other(command: list[str]) -> None:
    made = {"command": command}
    pin(made, BUILT)
    assert made["command"] == ["app", "-x"]


@pytest.fixture
def patch(api: FakeApi, connection: Connection, tmp_path: Path) -> Patch:
    """What patches a Deployment with such containers so that they run an image."""

    def made(image: ImageRef, *containers: dict[str, Any]) -> ImagePatch:
        if containers:
            live = deployment()
            named = [{"name": f"c{n}", "image": "old", **c} for n, c in enumerate(containers)]
            live["spec"]["template"]["spec"]["containers"] = named
            api.put(WEB, live)
        found = api.objects[WEB]
        names = [c["name"] for c in dig(found, "spec", "template", "spec", "containers")]
        return ImagePatch(
            connection=connection,
            recovery_log=RecoveryLog(tmp_path),
            ref=WorkloadRef("deployment", "web", "dev"),
            live=found,
            images={name: image.pinned for name in names if name != "c1"},
            supervisor=image.supervisor,
        )

    return made


def containers(api: FakeApi) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = api.objects[WEB]["spec"]["template"]["spec"]["containers"]
    return found


def test_a_command_in_the_cluster_is_wrapped_once(api: FakeApi, patch: Patch) -> None:
    write = patch(DEV, {"command": ["app"], "args": ["-x"]})
    assert write.other_changes() != ""
    assert write.plain().changed
    assert containers(api) == [
        {"name": "c0", "image": DEV.pinned, "command": [*UNDER, "app"], "args": ["-x"]}
    ]
    again = patch(DEV)
    assert again.other_changes() == ""
    assert not again.plain().changed
    newer = patch(replace(DEV, digest="sha256:" + "3" * 64))
    assert newer.other_changes() == ""
    assert newer.plain().changed
    assert containers(api)[0]["command"] == [*UNDER, "app"]


def test_another_stop_signal_is_another_supervisor(api: FakeApi, patch: Patch) -> None:
    patch(DEV, {"command": ["app"]}).plain()
    write = patch(replace(DEV, supervisor=supervise(3)))
    assert write.other_changes() != ""
    write.plain()
    assert containers(api)[0]["command"] == [*supervise(3), "app"]


def test_an_image_without_a_supervisor_unwraps_it(api: FakeApi, patch: Patch) -> None:
    patch(DEV, {"command": ["app"]}).plain()
    write = patch(BUILT)
    assert write.other_changes() != ""
    write.plain()
    assert containers(api) == [{"name": "c0", "image": BUILT.pinned, "command": ["app"]}]
    assert patch(BUILT).other_changes() == ""


@pytest.mark.parametrize("container", [{}, {"args": ["-x"]}, {"command": ["/init"]}])
def test_what_has_no_command_to_wrap_gets_the_image_alone(
    api: FakeApi, patch: Patch, container: dict[str, Any]
) -> None:
    write = patch(DEV, container)
    assert write.other_changes() == ""
    write.plain()
    assert containers(api) == [{"name": "c0", "image": DEV.pinned, **container}]


def test_another_container_of_the_pod_keeps_its_command(api: FakeApi, patch: Patch) -> None:
    patch(DEV, {"command": ["app"]}, {"command": ["helper"]}).plain()
    assert [c["command"] for c in containers(api)] == [[*UNDER, "app"], ["helper"]]


def test_the_fast_strategy_and_a_pause_change_the_command_as_well(
    api: FakeApi, patch: Patch
) -> None:
    patch(DEV, {"command": ["app"]}).fast()
    assert containers(api)[0]["command"] == [*UNDER, "app"]
    patch(BUILT).paused()
    assert containers(api)[0]["command"] == ["app"]


def test_probes_in_the_cluster_wait_for_a_debugger_and_are_put_back_after_it(
    api: FakeApi, patch: Patch
) -> None:
    probe = {"httpGet": {"port": 80}, "timeoutSeconds": 2}
    debugged = replace(DEV, supervisor=supervise(debug=("go", 2345)))
    write = patch(debugged, {"livenessProbe": probe})
    (before,) = containers(api)
    assert write.other_changes() == "its probes wait for a debugger, or no longer do"
    assert write.plain().changed
    assert containers(api)[0]["livenessProbe"] == {**probe, "timeoutSeconds": 600}
    assert patch(debugged).other_changes() == ""
    back = replace(patch(DEV), original={"c0": before})
    assert back.plain().changed
    assert containers(api)[0]["livenessProbe"] == probe
