"""What `devloop clean` does to a real registry and a real Docker daemon."""

from __future__ import annotations

import json
import os
import subprocess
import time
import uuid
from typing import TYPE_CHECKING

import pytest

from devloop.app.docker import docker_host
from devloop.base.cancel import Cancel
from devloop.builders.docker_cli import last_tagged, local_images, remove_local
from devloop.errors import DevloopError
from devloop.local_cluster.garbage import collect, owned_registry
from devloop.registry.client import RegistryClient, sha256

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.docker

TYPE = "application/vnd.oci.image.manifest.v1+json"


def docker(*arguments: str) -> str:
    done = subprocess.run(
        ["docker", *arguments], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout.strip()


def start(*options: str) -> tuple[str, RegistryClient]:
    image = os.environ.get("DEVLOOP_TEST_REGISTRY_IMAGE")
    if not image:
        pytest.skip("no registry image: run script/test")
    name = f"devloop-test-registry-{uuid.uuid4().hex[:8]}"
    docker(*("run", "-d", "--name", name, "-p", "127.0.0.1:0:5000", *options, image))
    client = RegistryClient(f"localhost:{docker('port', name, '5000').rpartition(':')[2]}")
    await_answer(client)
    return name, client


def await_answer(client: RegistryClient) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            return client.ping()
        except DevloopError:
            assert time.monotonic() < deadline, "the registry did not start"
            time.sleep(0.1)


@pytest.fixture
def registry() -> Iterator[tuple[str, RegistryClient]]:
    name, client = start(
        *("--label", "devloop.dev/cluster=nobody", "-e", "REGISTRY_STORAGE_DELETE_ENABLED=true")
    )
    with client:
        yield name, client
    docker("rm", "-f", "-v", name)


def push(client: RegistryClient, name: str, tag: str, content: bytes) -> tuple[str, str]:
    """An image with one layer; returns its digest and the layer's."""
    layer, config = client.put_blob(name, content), client.put_blob(name, b"{}")
    body = {
        "schemaVersion": 2,
        "mediaType": TYPE,
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": config,
            "size": 2,
        },
        "layers": [
            {
                "mediaType": "application/vnd.oci.image.layer.v1.tar",
                "digest": layer,
                "size": len(content),
            }
        ],
    }
    return client.put_manifest(name, tag, json.dumps(body).encode(), TYPE).digest, layer


def test_a_deleted_image_is_gone_and_its_space_is_freed(
    registry: tuple[str, RegistryClient],
) -> None:
    container, client = registry
    old, old_layer = push(client, "web", "devloop-1", b"old" * 1000)
    new, new_layer = push(client, "web", "devloop-2", b"new" * 1000)
    other, _ = push(client, "other", "devloop-1", b"x")
    assert client.repositories() == ("other", "web")
    assert client.delete_manifest("other", other) is True
    assert client.repositories() == ("web",)
    assert client.delete_manifest("web", old) is True
    assert client.delete_manifest("web", old) is False
    assert client.digest(f"{client.host}/web", "devloop-1") is None
    # The layer is there until the collector has run, which also stops the registry for a moment.
    assert client.head_blob("web", old_layer) == 3000
    with docker_host(Cancel()) as daemon:
        assert owned_registry(daemon, client.host) == container
        assert collect(daemon, container) >= 1
    port = docker("port", container, "5000").rpartition(":")[2]
    with RegistryClient(f"localhost:{port}") as after:
        await_answer(after)
        assert after.head_blob("web", old_layer) is None
        assert after.head_blob("web", new_layer) == 3000
        assert after.digest(f"{after.host}/web", "devloop-2") == new
        # What was collected can be pushed again: nothing remembers that it was there.
        assert push(after, "web", "devloop-1", b"old" * 1000)[0] == old
        assert after.get_blob("web", old_layer) == b"old" * 1000
    assert sha256(b"old" * 1000) == old_layer


def test_a_registry_that_deletes_nothing_says_how_to_change_that() -> None:
    name, client = start("-e", "REGISTRY_STORAGE_DELETE_ENABLED=false")
    try:
        with client:
            digest, _ = push(client, "web", "devloop-1", b"x")
            with pytest.raises(DevloopError) as caught:
                client.delete_manifest("web", digest)
            assert caught.value.code == "registry/delete-refused"
            assert "REGISTRY_STORAGE_DELETE_ENABLED" in caught.value.diagnosis.suggestions[0]
            with docker_host(Cancel()) as daemon:
                assert owned_registry(daemon, client.host) is None
    finally:
        docker("rm", "-f", "-v", name)


def test_only_devloops_tags_of_that_repository_are_listed_and_a_used_one_stays() -> None:
    base = os.environ.get("DEVLOOP_TEST_BUSYBOX", "busybox-base:dev")
    repository = f"localhost:1/{uuid.uuid4().hex[:8]}"
    container = ""
    try:
        for tag in ("devloop-1", "mine"):
            docker("tag", base, f"{repository}:{tag}")
        # An image of its own: a tag beside others can always be removed.
        made = docker("create", base, "true")
        docker("commit", made, f"{repository}:devloop-2")
        docker("rm", made)
        cancel = Cancel()
        listed = {f"{repository}:devloop-1", f"{repository}:devloop-2"}
        assert set(local_images([repository], cancel)) == listed
        tagged = last_tagged([*listed, f"{repository}:none"], cancel)
        assert tagged.keys() == listed
        assert all(time.time() - 3600 < at < time.time() + 60 for at in tagged.values())
        container = docker("create", f"{repository}:devloop-2", "true")
        assert remove_local(f"{repository}:devloop-1", cancel) is True
        assert remove_local(f"{repository}:devloop-2", cancel) is False
        assert local_images([repository], cancel) == (f"{repository}:devloop-2",)
        docker("image", "inspect", base)
    finally:
        if container:
            docker("rm", container)
        for tag in ("devloop-1", "devloop-2", "mine"):
            subprocess.run(
                ["docker", "image", "rm", f"{repository}:{tag}"], capture_output=True, check=False
            )
