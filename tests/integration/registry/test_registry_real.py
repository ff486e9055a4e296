"""The client against a real registry: the fake of the unit tests must not be all that it knows."""

from __future__ import annotations

import ipaddress
import json
import os
import socket
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
    from pathlib import Path

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


@pytest.fixture(scope="module")
def tls_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """A registry whose certificate nobody knows, at an address that Docker trusts no more than any
    other, and the certificate of its authority."""
    image = os.environ.get("DEVLOOP_TEST_REGISTRY_IMAGE")
    if not image:
        pytest.skip("no registry image: run script/test")
    directory = tmp_path_factory.mktemp("tls")
    network = json.loads(docker("network", "inspect", "bridge"))[0]["IPAM"]["Config"][0]["Subnet"]
    addresses = list(ipaddress.ip_network(network).hosts())[:250]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command += ["-subj", "/CN=test", "-keyout", "key", "-out", "cert"]
    command += ["-addext", "subjectAltName=" + ",".join(f"IP:{each}" for each in addresses)]
    subprocess.run(command, cwd=directory, check=True, capture_output=True)
    (directory / "key").chmod(0o644)
    name = f"devloop-test-registry-{uuid.uuid4().hex[:8]}"
    docker(
        *("create", "--rm", "--name", name, "--label", "devloop.test=registry"),
        *("-e", "REGISTRY_HTTP_TLS_CERTIFICATE=/cert", "-e", "REGISTRY_HTTP_TLS_KEY=/key"),
        *("-e", "REGISTRY_HTTP_ADDR=:5000", image),
    )
    try:
        for file in ("cert", "key"):
            docker("cp", str(directory / file), f"{name}:/{file}")
        docker("start", name)
        form = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
        address = docker("inspect", "-f", form, name)
        deadline = time.monotonic() + 20
        while not _listens(address):
            assert time.monotonic() < deadline, "the registry did not start"
            time.sleep(0.1)
        yield f"{address}:5000", (directory / "cert").read_text()
    finally:
        docker("rm", "-f", "-v", name)


def _listens(address: str) -> bool:
    try:
        socket.create_connection((address, 5000), 1).close()
    except OSError:
        return False
    return True


def test_an_authority_that_docker_knows_is_believed(
    tls_host: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, authority = tls_host
    known = tmp_path / "docker/certs.d" / host / "ca.crt"
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    with RegistryClient(host) as client, pytest.raises(DevloopError) as caught:
        client.ping()
    assert "certificate verify failed" in str(caught.value.diagnosis.cause)
    assert f"/etc/docker/certs.d/{host}/ca.crt" in caught.value.diagnosis.suggestions[0]
    known.parent.mkdir(parents=True)
    known.write_text(authority)
    with RegistryClient(host) as client:
        client.ping()
        digest = client.put_blob("team/tls", b"content")
        assert client.get_blob("team/tls", digest) == b"content"


def test_a_registry_that_docker_counts_as_insecure_needs_no_authority(
    tls_host: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, _ = tls_host
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "docker").mkdir()
    (tmp_path / "docker/daemon.json").write_text(json.dumps({"insecure-registries": [host]}))
    with RegistryClient(host) as client:
        client.ping()


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
