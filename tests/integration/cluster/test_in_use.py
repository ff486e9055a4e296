"""What the cluster could still need must be known before an image is deleted."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from devloop.cluster.deploy.status import digests_in_use

if TYPE_CHECKING:
    from devloop.cluster.api.connection import Connection

pytestmark = pytest.mark.kind


def test_the_images_of_pods_templates_and_earlier_revisions_are_in_use(
    connection: Connection,
) -> None:
    old, new, init = (f"sha256:{letter * 64}" for letter in "abc")
    where = f"/apis/apps/v1/namespaces/{connection.namespace}/deployments"
    pod = {
        "initContainers": [{"name": "init", "image": f"localhost:1/i@{init}"}],
        "containers": [{"name": "web", "image": f"localhost:1/w@{old}"}],
    }
    connection.request(
        "POST",
        where,
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "web"},
            "spec": {
                "replicas": 0,
                "selector": {"matchLabels": {"app": "web"}},
                "template": {"metadata": {"labels": {"app": "web"}}, "spec": pod},
            },
        },
    )
    _until(connection, {old, init})
    pod["containers"] = [{"name": "web", "image": f"localhost:1/w@{new}"}]
    body = {"spec": {"template": {"spec": pod}}}
    connection.request("PATCH", f"{where}/web", body, content_type="application/merge-patch+json")
    # The old one is what `kubectl rollout undo` goes back to.
    _until(connection, {old, new, init})


def _until(connection: Connection, wanted: set[str]) -> None:
    deadline = time.monotonic() + 20
    while not wanted <= digests_in_use(connection):
        assert time.monotonic() < deadline
        time.sleep(0.1)
