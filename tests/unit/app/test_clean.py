"""`devloop clean` in a registry that other projects use as well."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from devloop.app import clean as module
from devloop.app import docker as app_docker
from devloop.app import housekeeping
from devloop.app.clean import Cleaning, clean
from devloop.builders.built_images import BuiltImage, BuiltImages
from devloop.config.schema import Project
from devloop.model import PushTarget
from devloop.registry.client import RegistryClient
from tests.support.memory_docker import Box, MemoryDocker
from tests.unit.registry.fake_registry import State, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TYPE = "application/vnd.oci.image.manifest.v1+json"


class DeclinedError(Exception):
    """The answer was no."""


class Bench:
    """One project's image in a registry of devloop's own; `asked` is what was to be confirmed."""

    def __init__(self, directory: Path, host: str) -> None:
        self.host = host
        self.project = Project(
            name="shop", root=directory, file=directory / "devloop.yaml", services={}
        )
        self.docker = MemoryDocker()
        self.docker.images = {"registry:3"}
        self.docker.ends_at_once = lambda box: "garbage-collect" in box.command
        self.docker.boxes["r"] = Box(
            labels={"devloop.dev/cluster": "c"},
            ports={"5000/tcp": host.rpartition(":")[2]},
            image="registry:3",
            command=["/entrypoint.sh", "/etc/registry.yml"],
        )
        self.asked: list[tuple[str, ...]] = []
        self.digest = self.push("shop/web")
        BuiltImages(self.project.state_dir).add(
            BuiltImage(
                service="web",
                repository=f"{host}/shop/web",
                tag="devloop-1",
                digest=self.digest,
            )
        )

    def push(self, name: str) -> str:
        with RegistryClient(self.host) as client:
            return client.put_manifest(name, "devloop-1", b"{}", TYPE).digest

    def there(self) -> bool:
        with RegistryClient(self.host) as client:
            return client.head_manifest("shop/web", self.digest) is not None

    def clean(self, *, decline: bool = False, dry_run: bool = False) -> Cleaning:
        def confirm(host: str, others: tuple[str, ...]) -> None:
            assert host == self.host
            self.asked.append(others)
            if decline:
                raise DeclinedError

        return clean(self.project, keep=0, dry_run=dry_run, confirm=confirm)

    def collected(self) -> bool:
        return any(call[0] == "stop" for call in self.docker.calls)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    with serving(State()) as host:
        bench = Bench(tmp_path, host)
        monkeypatch.setattr(module, "connect", lambda _: contextlib.nullcontext())
        monkeypatch.setattr(module, "find_registry", lambda *_: PushTarget(push=host))
        monkeypatch.setattr(module, "digests_in_use", lambda _: frozenset())
        monkeypatch.setattr(housekeeping, "local_images", lambda *_: ())
        monkeypatch.setattr(app_docker, "connect", lambda _timeout: bench.docker)
        yield bench


def test_a_registry_of_this_project_alone_is_collected_without_a_question(bench: Bench) -> None:
    done = bench.clean()
    assert done.removed is not None
    assert done.removed.manifests == 1
    assert bench.asked == []
    assert bench.collected()
    assert not bench.there()


def test_a_registry_that_others_use_is_collected_only_if_confirmed(bench: Bench) -> None:
    bench.push("other/api")
    with pytest.raises(DeclinedError):
        bench.clean(decline=True)
    assert bench.asked == [("other/api",)]
    assert not bench.collected()
    assert bench.there()
    bench.clean()
    assert bench.collected()
    assert not bench.there()


@pytest.mark.parametrize("harmless", ["dry run", "not devloop's"])
def test_nothing_is_asked_where_no_registry_is_stopped(bench: Bench, harmless: str) -> None:
    bench.push("other/api")
    if harmless == "not devloop's":
        bench.docker.boxes["r"].labels.clear()
    bench.clean(dry_run=harmless == "dry run")
    assert bench.asked == []
    assert not bench.collected()
