"""What one service's pods read may stand among the manifests of another."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from devloop.base.cancel import Cancel
from devloop.cluster.deploy.project_configs import ProjectConfigs
from devloop.manifests.files import FilesRendering

if TYPE_CHECKING:
    from pathlib import Path


def config(name: str, **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def reader(*names: str) -> dict[str, Any]:
    sources = [{"configMapRef": {"name": name}} for name in names]
    spec = {"containers": [{"name": "web", "envFrom": sources}]}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web"},
        "spec": {"template": {"spec": spec}},
    }


class Bench:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.write("web", reader("shared"))
        self.write("api", config("shared", a="1"))
        self.renderings = {
            name: FilesRendering((str(root / f"{name}.json"),)) for name in ("web", "api")
        }
        self.configs = ProjectConfigs(self.renderings, "dev")

    def write(self, service: str, *things: dict[str, Any]) -> None:
        document = {"apiVersion": "v1", "kind": "List", "items": list(things)}
        (self.root / f"{service}.json").write_text(json.dumps(document))

    def files(self, service: str) -> list[str]:
        patterns = self.configs.watched(service).inputs().patterns
        return [pattern.rpartition("/")[2] for pattern in patterns]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_the_manifests_of_others_are_known_and_read_again_when_written(bench: Bench) -> None:
    first = bench.configs.beside("web")
    assert list(first) == [("ConfigMap", "dev")]
    assert bench.configs.beside("web") == first
    bench.write("api", config("shared", a="other"))
    assert bench.configs.beside("web") != first
    assert bench.configs.beside("api") == {}


def test_what_holds_what_a_service_reads_is_an_input_of_it(bench: Bench) -> None:
    assert bench.files("web") == ["web.json", "api.json"]
    assert bench.files("api") == ["api.json"]
    bench.write("web", reader("shared"), config("shared"))
    assert bench.files("web") == ["web.json"]
    bench.write("web", reader("elsewhere"))
    assert bench.files("web") == ["web.json"]


def test_manifests_that_cannot_be_read_count_as_they_were(bench: Bench) -> None:
    first = bench.configs.beside("web")
    (bench.root / "api.json").write_text("{")
    assert bench.configs.beside("web") == first
    (bench.root / "api.json").unlink()
    assert bench.configs.beside("web") == first
    assert bench.files("web") == ["web.json", "api.json"]


def test_services_of_the_same_manifests_have_nothing_beside_them(bench: Bench) -> None:
    same = dict.fromkeys(("web", "api"), bench.renderings["web"])
    assert ProjectConfigs(same, "dev").beside("web") == {}


def test_the_objects_are_the_service_s_own(bench: Bench) -> None:
    found = bench.configs.watched("web").objects(Cancel())
    assert [each.key[1] for each in found] == ["Deployment"]
