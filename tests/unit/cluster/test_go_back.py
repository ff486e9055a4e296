"""Which pods give way when an image is gone back to, on the fake API server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from devloop.cluster.api.view import ClusterView
from tests.support.cluster_objects import running
from tests.support.in_place_stage import PODS, InPlaceStage, image

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from devloop.cluster.api.connection import Connection
    from tests.support.fake_api import FakeApi


@pytest.fixture
def stage(api: FakeApi, connection: Connection, tmp_path: Path) -> Iterator[InPlaceStage]:
    view = ClusterView(connection)
    root = tmp_path / "project"
    root.mkdir()
    made = InPlaceStage(api, connection, view, root)
    yield made
    made.deployments.close()
    view.close()


def pods(stage: InPlaceStage) -> set[str]:
    return {path.rpartition("-")[2] for path in stage.api.objects if path.startswith(PODS)}


def test_where_the_template_has_the_image_pods_that_were_written_into_give_way(
    stage: InPlaceStage,
) -> None:
    # One of them started from an image that was then followed by that of the template.
    stage.pod("y", running(image("b").pinned))
    stage.deployer.go_back(image("a"), {"web-new-x"}, stage.reporter, stage.cancel)
    assert pods(stage) == {"x"}
    assert stage.reporter.details == ["new pods for web-new-y, web-new-z"]


def test_where_it_has_another_the_controllers_replace_all_and_none_keeps_its_container(
    stage: InPlaceStage,
) -> None:
    deployed = stage.deployer.go_back(image("b"), (), stage.reporter, stage.cancel)
    assert pods(stage) == {"x", "y", "z"}
    assert deployed.picked.how == "rolling"
    assert stage.reporter.details == ["deployment/web -> bbbbbb, new pods"]


def test_where_nothing_is_ever_written_into_a_pod_it_is_a_deploy_as_any_other(
    stage: InPlaceStage,
) -> None:
    deployed = stage.deployer.go_back(image("b"), None, stage.reporter, stage.cancel)
    assert deployed.picked.how == "in-place"
