"""The client against a real registry: the fake of the unit tests must not be all that it knows."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
import uuid
from typing import TYPE_CHECKING

import pytest

from devloop.base.cancel import Cancel
from devloop.errors import DevloopError
from devloop.model import PushTarget
from devloop.registry.client import RegistryClient, sha256
from devloop.registry.discovery import check

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.docker

TYPE = "application/vnd.oci.image.manifest.v1+json"


def docker(*arguments: str) -> str:
    done = subprocess.run(
        ["docker", *arguments], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout.strip()


@pytest.fixture(scope="module")
def host() -> Iterator[str]:
    image = os.environ.get("DEVLOOP_TEST_REGISTRY_IMAGE")
    if not image:
        pytest.skip("no registry image: run script/test")
    name = f"devloop-test-registry-{uuid.uuid4().hex[:8]}"
    docker(
        *("run", "-d", "--rm", "--name", name, "--label", "devloop.test=registry"),
        *("-p", "127.0.0.1:0:5000", image),
    )
    try:
        host = f"localhost:{docker('port', name, '5000').rpartition(':')[2]}"
        deadline = time.monotonic() + 20
        with RegistryClient(host) as client:
            while not _answers(client):
                assert time.monotonic() < deadline, "the registry did not start"
                time.sleep(0.1)
        yield host
    finally:
        docker("rm", "-f", "-v", name)


def _answers(client: RegistryClient) -> bool:
    try:
        client.ping()
    except DevloopError:
        return False
    return True


@pytest.fixture
def client(host: str) -> Iterator[RegistryClient]:
    with RegistryClient(host) as client:
        yield client


def test_an_image_put_together_by_hand_is_one_that_docker_pulls(
    client: RegistryClient, host: str
) -> None:
    config = json.dumps(
        {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}}
    ).encode()
    digest, size = client.put_chunks("team/hand", [config[:10], config[10:]])
    assert (digest, size) == (sha256(config), len(config))
    assert client.head_blob("team/hand", digest) == size
    assert client.get_blob("team/hand", digest) == config
    body = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": TYPE,
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": client.put_blob("team/hand", config),
                "size": len(config),
            },
            "layers": [],
        }
    ).encode()
    put = client.put_manifest("team/hand", "t", body, TYPE)
    assert client.head_manifest("team/hand", "t") == put
    got = client.get_manifest("team/hand", put.digest)
    assert got is not None
    assert got.body == body
    reference = f"{host}/team/hand@{put.digest}"
    docker("pull", "-q", reference)
    docker("image", "rm", reference)


def test_what_is_not_there(client: RegistryClient, host: str) -> None:
    nothing = "sha256:" + "0" * 64
    assert client.digest(f"{host}/no/such", "t") is None
    assert client.digest(f"{host}/no/such", nothing) is None
    assert client.head_blob("no/such", nothing) is None


def test_a_manifest_that_refers_to_nothing_is_refused(client: RegistryClient) -> None:
    body = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": TYPE,
            "config": {"mediaType": "x", "digest": "sha256:" + "1" * 64, "size": 1},
            "layers": [],
        }
    ).encode()
    with pytest.raises(DevloopError) as caught:
        client.put_manifest("team/bad", "t", body, TYPE)
    assert caught.value.code == "registry/push-failed"


def test_check(client: RegistryClient, host: str) -> None:
    check(PushTarget(push=host), client, Cancel())


def test_threads_share_a_client(client: RegistryClient) -> None:
    put: list[str] = []

    def upload(number: int) -> None:
        put.append(client.put_blob("team/many", b"x" * number * 1000))

    threads = [threading.Thread(target=upload, args=(n,), name=f"devloop-{n}") for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(put) == sorted(sha256(b"x" * n * 1000) for n in range(8))
