"""Which image a stage starts from, and what is in it."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
from typing import TYPE_CHECKING, Any

import pytest

from devloop.base.cancel import Cancel
from devloop.base.image_reference import parse_reference
from devloop.builders.image.base_image import Bases, DockerImages
from devloop.builders.image.copy_sources import follow
from devloop.builders.image.full_build import NeedsFullBuild
from devloop.builders.image.listing import Listings, merged, read_tar
from devloop.errors import Code, DevloopError
from devloop.registry.client import RegistryClient
from tests.unit.registry.fake_registry import State, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OCI = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
DIGEST = "sha256:" + "a" * 64


def sha(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def tar(*entries: tuple[str, Any]) -> bytes:
    """Entries as (path, bytes | "dir" | "-> target")."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for path, what in entries:
            info = tarfile.TarInfo(path)
            info.mode = 0o755
            if what == "dir":
                info.type = tarfile.DIRTYPE
            elif isinstance(what, str):
                info.type, info.linkname = tarfile.SYMTYPE, what.removeprefix("-> ")
            else:
                info.size = len(what)
            archive.addfile(info, io.BytesIO(what) if isinstance(what, bytes) else None)
    return out.getvalue()


def publish(
    state: State, name: str, tag: str, *layers: bytes, arch: str = "amd64", **config: Any
) -> tuple[str, str]:
    """Manifest and config digest of an image put into the registry."""
    packed = [gzip.compress(layer, mtime=0) for layer in layers]
    document = {
        "os": "linux",
        "architecture": arch,
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [sha(layer) for layer in layers]},
        "history": [{"created_by": "test"} for _ in layers],
    }
    body = json.dumps(document).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI,
        "config": {"mediaType": "x", "digest": sha(body), "size": len(body)},
        "layers": [
            {
                "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
                "digest": sha(layer),
                "size": len(layer),
            }
            for layer in packed
        ],
    }
    state.blobs |= {sha(data): data for data in (*packed, body)}
    put(state, name, tag, OCI, manifest)
    return sha(json.dumps(manifest).encode()), sha(body)


def put(state: State, name: str, tag: str, kind: str, document: Any) -> str:
    body = json.dumps(document).encode()
    for reference in (tag, sha(body)):
        state.manifests[f"{name}@{reference}"] = (kind, body)
    return sha(body)


class Local:
    """A Docker with `image`; None: no Docker."""

    def __init__(self, image: str | None) -> None:
        self.image = image
        self.asked: list[str] = []

    def identity(self, reference: str, cancel: Cancel) -> str | None:
        self.asked.append(reference)
        return self.image


@pytest.fixture
def state() -> State:
    return State()


@pytest.fixture
def host(state: State) -> Iterator[str]:
    with serving(state) as host:
        yield host


@pytest.fixture
def client(host: str) -> Iterator[RegistryClient]:
    with RegistryClient(host, lookup=lambda _: None) as client:
        yield client


def quiet(_: str) -> None:
    pass


class Away:
    """Registries of which only one answers."""

    def __init__(self, client: RegistryClient) -> None:
        self.client = client
        self.asked: list[str] = []

    def __call__(self, host: str) -> RegistryClient:
        self.asked.append(host)
        if host != self.client.host:
            raise DevloopError.of(Code.REGISTRY_UNREACHABLE, f"{host} does not answer")
        return self.client


def bases(client: RegistryClient, local: str | None) -> Bases:
    return Bases(Away(client), f"{client.host}/team", Local(local))


@pytest.mark.parametrize(
    ("text", "host", "path", "tag", "digest"),
    [
        ("python", "docker.io", "library/python", "latest", ""),
        ("python:3.13", "docker.io", "library/python", "3.13", ""),
        ("bitnami/redis", "docker.io", "bitnami/redis", "latest", ""),
        ("index.docker.io/python", "docker.io", "library/python", "latest", ""),
        ("localhost/a", "localhost", "a", "latest", ""),
        ("localhost:5005/a/b:c", "localhost:5005", "a/b", "c", ""),
        ("ghcr.io/a/b@" + DIGEST, "ghcr.io", "a/b", "", DIGEST),
        ("ghcr.io/a/b:1@" + DIGEST, "ghcr.io", "a/b", "1", DIGEST),
    ],
)
def test_names_of_images(text: str, host: str, path: str, tag: str, digest: str) -> None:
    found = parse_reference(text)
    assert (found.host, found.path, found.tag, found.digest) == (host, path, tag, digest)


@pytest.mark.parametrize("text", ["", "Python", "a@", "a@sha256:1", "a:", "a:b:c", "-a", "a//b"])
def test_what_is_no_name(text: str) -> None:
    with pytest.raises(ValueError, match="not the name"):
        parse_reference(text)


def test_an_image_of_an_index_for_the_platform(client: RegistryClient, state: State) -> None:
    amd, _ = publish(state, "py", "amd", tar())
    arm, _ = publish(state, "py", "arm", tar(), arch="arm64")
    entries = [
        {"digest": amd, "platform": {"os": "linux", "architecture": "amd64"}},
        {"digest": arm, "platform": {"os": "linux", "architecture": "arm64", "variant": "v8"}},
    ]
    put(state, "py", "1", INDEX, {"mediaType": INDEX, "manifests": entries})
    finder = bases(client, None)
    found = finder.find(f"{client.host}/py:1", "linux/arm64", quiet, Cancel())
    assert found.image.config["architecture"] == "arm64"
    asked = len(state.requests)
    assert finder.find(f"{client.host}/py:1", "linux/arm64", quiet, Cancel()) is found
    assert len(state.requests) == asked
    finder.forget()
    finder.find(f"{client.host}/py:1", "linux/arm64", quiet, Cancel())
    assert len(state.requests) > asked
    with pytest.raises(NeedsFullBuild):
        finder.find(f"{client.host}/py:arm", "linux/amd64", quiet, Cancel())


def test_dockers_own_image_has_to_be_the_registrys(client: RegistryClient, state: State) -> None:
    manifest, config = publish(state, "py", "1", tar())
    name = f"{client.host}/py:1"
    for same in (manifest, config, ""):
        assert bases(client, same).find(name, "linux/amd64", quiet, Cancel()).name == "py"
    with pytest.raises(NeedsFullBuild, match="in Docker is not the one"):
        bases(client, DIGEST).find(name, "linux/amd64", quiet, Cancel())
    pinned = bases(client, DIGEST).find(
        f"{client.host}/py@{manifest}", "linux/amd64", quiet, Cancel()
    )
    assert pinned.name == "py"


def test_a_copy_beside_the_images_made_from_it(client: RegistryClient, state: State) -> None:
    _, config = publish(state, "team/python-base", "dev", tar())
    for local in (config, None):
        found = bases(client, local).find("python-base:dev", "linux/amd64", quiet, Cancel())
        assert (found.host, found.name) == (client.host, "team/python-base")
    with pytest.raises(NeedsFullBuild, match="in Docker is not the one"):
        bases(client, DIGEST).find("python-base:dev", "linux/amd64", quiet, Cancel())
    with pytest.raises(NeedsFullBuild, match="cannot be fetched"):
        bases(client, "").find("python-base:dev", "linux/amd64", quiet, Cancel())


def test_an_image_that_nobody_has(client: RegistryClient, state: State) -> None:
    finder = bases(client, DIGEST)
    for _ in range(2):
        with pytest.raises(
            NeedsFullBuild, match="python-base:dev is known to Docker, and not in localhost"
        ):
            finder.find("python-base:dev", "linux/amd64", quiet, Cancel())
    assert len(state.requests) == 1, "what is not there was asked for twice"
    with pytest.raises(DevloopError) as caught:
        bases(client, None).find("python-base:dev", "linux/amd64", quiet, Cancel())
    assert caught.value.code == "env/docker-unreachable"
    assert f"push it to {client.host}/team/python-base:dev" in caught.value.diagnosis.suggestions


def test_layers_add_up() -> None:
    low = tar(
        ("usr", "dir"), ("usr/lib", "dir"), ("usr/lib/a", b"a"), ("lib", "-> usr/lib"),
        ("etc/passwd", b"root:x:0:0\n"), ("gone/deep/file", b""), ("opaque/old", b""),
        ("kind", b""),
    )  # fmt: skip
    high = tar(
        ("lib/b", b"b"), (".wh.gone", b""), ("opaque/new", b""), ("opaque/.wh..wh..opq", b""),
        ("kind/inside", b""), ("etc/passwd", b"app:x:7:8\n"),
    )  # fmt: skip
    found = merged(read_tar([gzip.compress(layer)]) for layer in (low, high))
    assert found.nodes["usr/lib/b"].type == "file"
    assert found.nodes["lib"].link == "usr/lib"
    assert not [path for path in found.nodes if path.startswith("gone")]
    assert "opaque/new" in found.nodes
    assert "opaque/old" not in found.nodes
    assert found.nodes["kind"].type == "dir"
    assert found.texts == {"etc/passwd": b"app:x:7:8\n"}


def test_a_layer_is_read_once(client: RegistryClient, state: State, tmp_path: Path) -> None:
    publish(state, "py", "1", tar(("etc/passwd", b"\xff"), ("odd\udcff", b"")), tar(("x", b"")))
    base = bases(client, None).find(f"{client.host}/py:1", "linux/amd64", quiet, Cancel())
    said: list[str] = []
    first = Listings(Away(client), tmp_path).of(base, said.append, Cancel())
    assert len(said) == 2
    asked = len(state.requests)
    again = Listings(Away(client), tmp_path).of(base, said.append, Cancel())
    assert (again, len(state.requests)) == (first, asked)
    for file in (tmp_path / "layers").iterdir():
        file.write_bytes(b"broken")
    assert Listings(Away(client), tmp_path).of(base, said.append, Cancel()) == first


def test_old_layers_are_forgotten(client: RegistryClient, state: State, tmp_path: Path) -> None:
    directory = tmp_path / "layers"
    directory.mkdir()
    for number in range(300):
        file = directory / f"{number}.json.gz"
        file.touch()
        os.utime(file, (number, number))
    publish(state, "py", "1", tar(("x", b"")))
    base = bases(client, None).find(f"{client.host}/py:1", "linux/amd64", quiet, Cancel())
    Listings(Away(client), tmp_path).of(base, quiet, Cancel())
    assert len(list(directory.iterdir())) == 300
    assert not (directory / "0.json.gz").exists()
    assert (directory / "1.json.gz").exists()


def test_a_layer_that_is_another(client: RegistryClient, state: State, tmp_path: Path) -> None:
    publish(state, "py", "1", tar(("x", b"")))
    base = bases(client, None).find(f"{client.host}/py:1", "linux/amd64", quiet, Cancel())
    state.blobs[base.image.layers[0].digest] = gzip.compress(tar(("y", b"")))
    with pytest.raises(DevloopError) as caught:
        Listings(Away(client), tmp_path).of(base, lambda _: None, Cancel())
    assert caught.value.code == "registry/digest-mismatch"
    assert not list(tmp_path.rglob("*.gz"))


def test_what_is_not_a_layer() -> None:
    for data in (b"\x28\xb5\x2f\xfdzstd", gzip.compress(b"x" * 600), b"\x1f\x8bbroken"):
        with pytest.raises(NeedsFullBuild, match="layer of the base image"):
            read_tar([data])


@pytest.mark.parametrize(
    ("path", "real"),
    [("a/b", "a/b"), ("lib/x", "usr/lib/x"), ("up/x", "x"), ("two", "usr/lib"), ("no/../y", "y")],
)
def test_symlinks_stay_inside(path: str, real: str) -> None:
    links = {"lib": "usr/lib", "up": "../../..", "two": "/lib/."}
    found = merged([read_tar([tar(*((name, f"-> {to}") for name, to in links.items()))])])
    assert follow(path, found.nodes.get) == real


def test_symlinks_in_a_circle() -> None:
    found = merged([read_tar([tar(("a", "-> b"), ("b", "-> a"))])])
    with pytest.raises(NeedsFullBuild, match="too many symlinks"):
        follow("a", found.nodes.get)


@pytest.mark.parametrize(
    ("script", "identity"),
    [
        ("echo sha256:abc", "sha256:abc"),
        ("echo 'Error response from daemon: No such image: x:1' >&2; exit 1", ""),
        ("echo 'Cannot connect to the Docker daemon at unix:///x.sock.' >&2; exit 1", None),
    ],
)
def test_what_docker_says_of_an_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, identity: str | None
) -> None:
    _docker(tmp_path, monkeypatch, script)
    assert DockerImages().identity("x:1", Cancel()) == identity


def test_a_docker_that_talks_of_something_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _docker(tmp_path, monkeypatch, "echo strange >&2; exit 1")
    with pytest.raises(NeedsFullBuild, match="does not report whether"):
        DockerImages().identity("x:1", Cancel())


def test_neither_a_docker_command_nor_a_daemon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nowhere.sock")
    assert DockerImages().identity("x:1", Cancel()) is None


def _docker(directory: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    program = directory / "docker"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(directory))
    monkeypatch.setenv("DOCKER_HOST", f"unix://{directory}/nowhere.sock")
