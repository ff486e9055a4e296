"""Objects as files: the same bytes for the same objects, text that stays text, and a directory of
which nothing is lost that others put there."""

from __future__ import annotations

import io
import tarfile
from typing import TYPE_CHECKING, Any, Self

import pytest
import yaml

from devloop.app import artifact
from devloop.app.artifact import ArtifactName, annotations_of, parse_name, push_artifact
from devloop.app.rendered import (
    INDEX,
    documents,
    files_of,
    is_directory,
    write_directory,
    write_documents,
)
from devloop.base.cancel import Cancel
from devloop.cluster.api.kinds import assumed_resource
from devloop.cluster.deploy.objects import PlannedObject
from devloop.errors import Code, DevloopError, Diagnosis, Location
from devloop.registry.client import Descriptor, sha256

if TYPE_CHECKING:
    from pathlib import Path


def planned(kind: str, name: str, namespace: str = "", **more: Any) -> PlannedObject:
    version = {"Deployment": "apps/v1"}.get(kind, "v1")
    metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
    return PlannedObject(
        object={"apiVersion": version, "kind": kind, "metadata": metadata, **more},
        resource=assumed_resource(version, kind),
        namespace=namespace,
        location=Location("k8s.yaml"),
    )


def test_text_that_reads_like_something_else_stays_text() -> None:
    texts = ["1e3", "012", "0x1F", "y", "no", "1:30", "2026-11-30", "~", "", "+1", ".5", "null"]
    texts += ["line\nline\n", "a: b", "ünicode", "x" * 300, "20m", "- x", "#", "trailing \nx"]
    data = {f"k{i}": text for i, text in enumerate(texts)}
    text = documents([planned("ConfigMap", "c", data=data)])
    (read,) = yaml.safe_load_all(text)
    assert read["data"] == data
    for quoted in ('"1e3"', '"y"', '"0x1F"', '"1:30"'):
        assert quoted in text  # where readers of YAML differ, nothing is left to them
    assert "|\n    line\n    line\n" in text
    assert ": 20m\n" in text


def test_the_same_objects_are_the_same_bytes_in_the_order_to_apply_them() -> None:
    labels = {"app": "web"}
    objects = [planned("ConfigMap", "c", data=labels), planned("Service", "web", spec=labels)]
    assert documents(objects) == documents(objects)
    assert [d["kind"] for d in yaml.safe_load_all(documents(objects))] == ["ConfigMap", "Service"]
    assert "&id" not in documents([planned("ConfigMap", "c", data=labels, more=labels)])


def test_files_are_called_by_kind_group_namespace_and_name() -> None:
    objects = [planned("Service", "web", "shop"), planned("Deployment", "web"), planned("X", "a:b")]
    assert list(files_of(objects)) == [
        "deployment.apps_web.yaml",
        "shop_service_web.yaml",
        "x_a%3Ab.yaml",
    ]


def test_what_is_meant_by_a_path(tmp_path: Path) -> None:
    (tmp_path / "v1.0").mkdir()
    (tmp_path / "plain").write_text("")
    for text, directory in {
        "v1.0": True,
        "plain": False,
        "new": True,
        "new.yaml": False,
        "new.d/": True,
    }.items():
        assert is_directory(tmp_path / text, str(tmp_path / text) + "/" * text.endswith("/")) is (
            directory
        )


def test_a_directory_loses_only_what_an_earlier_rendering_wrote(tmp_path: Path) -> None:
    notes: list[Diagnosis] = []
    there = tmp_path / "there"
    write_directory(there, {"a.yaml": b"a", "b.yaml": b"b", "c.yaml": b"c"}, notes.append)
    (there / "kustomization.yaml").write_text("mine")
    (there / "c.yaml").write_text("edited")
    write_directory(there, {"a.yaml": b"A"}, notes.append)
    assert {f.name: f.read_text() for f in there.iterdir() if f.name != INDEX} == {
        "a.yaml": "A",
        "c.yaml": "edited",
        "kustomization.yaml": "mine",
    }
    assert [note.location for note in notes] == [Location(str(there / "c.yaml"))]


def test_a_file_that_no_rendering_wrote_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text("mine")
    with pytest.raises(DevloopError) as error:
        write_directory(tmp_path, {"a.yaml": b"a", "b.yaml": b"b"}, lambda _: None)
    assert error.value.code is Code.SAFETY_NOT_RENDERED
    assert sorted(f.name for f in tmp_path.iterdir()) == ["b.yaml"]
    (tmp_path / "b.yaml").write_text("b")  # the same content is no loss
    write_directory(tmp_path, {"a.yaml": b"a", "b.yaml": b"b"}, lambda _: None)
    assert (tmp_path / "a.yaml").read_text() == "a"


def test_an_index_cannot_name_what_lies_outside(tmp_path: Path) -> None:
    outside = tmp_path / "outside.yaml"
    outside.write_text("x")
    there = tmp_path / "there"
    there.mkdir()
    (there / INDEX).write_text(f'{{"files": {{"../outside.yaml": "{sha256(b"x")[7:]}"}}}}')
    write_directory(there, {}, lambda _: None)
    assert outside.read_text() == "x"


def test_one_file_holds_all_of_them(tmp_path: Path) -> None:
    write_documents(tmp_path / "all.yaml", [planned("Service", "a"), planned("Service", "b")])
    found = yaml.safe_load_all((tmp_path / "all.yaml").read_text())
    assert [each["metadata"]["name"] for each in found] == ["a", "b"]


# --- as an artifact ------------------------------------------------------------------------------


class MemoryRegistry:
    blobs: dict[str, bytes]
    manifests: dict[str, bytes]

    def __init__(self, host: str) -> None:
        assert host == "r.example:5000"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    def head_blob(self, name: str, digest: str, cancel: Cancel) -> int | None:
        return len(self.blobs[digest]) if digest in self.blobs else None

    def put_blob(self, name: str, data: bytes, cancel: Cancel) -> str:
        self.blobs[sha256(data)] = data
        return sha256(data)

    def put_manifest(
        self, name: str, reference: str, body: bytes, media_type: str, cancel: Cancel
    ) -> Descriptor:
        self.manifests[f"{name}:{reference}"] = body
        return Descriptor(digest=sha256(body), media_type=media_type, size=len(body))


def test_an_artifact_has_one_layer_that_flux_and_argo_cd_take(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(artifact, "RegistryClient", MemoryRegistry)
    MemoryRegistry.blobs, MemoryRegistry.manifests = {}, {}
    name = parse_name("oci://r.example:5000/shop/manifests:v1")
    files = {"b.yaml": b"b", "a.yaml": b"a"}
    first = push_artifact(name, files, {}, Cancel())
    assert first == push_artifact(name, dict(sorted(files.items())), {}, Cancel())
    body = yaml.safe_load(MemoryRegistry.manifests["shop/manifests:v1"])
    assert first == f"r.example:5000/shop/manifests@{sha256(next(iter(_manifests())))}"
    assert body["config"]["mediaType"] == "application/vnd.cncf.flux.config.v1+json"
    (layer,) = body["layers"]
    # Of those that Argo CD takes by default; Flux takes any.
    assert layer["mediaType"] == "application/vnd.oci.image.layer.v1.tar+gzip"
    data = MemoryRegistry.blobs[layer["digest"]]
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as tar:
        assert [(e.name, e.mtime, e.uid, e.mode) for e in tar] == [
            ("a.yaml", 0, 0, 0o644),
            ("b.yaml", 0, 0, 0o644),
        ]


def _manifests() -> list[bytes]:
    return list(MemoryRegistry.manifests.values())


def test_an_artifact_says_what_it_is_made_of_and_no_time_of_its_own() -> None:
    assert annotations_of("", "", {}) == {}
    found = annotations_of("https://git/x", "main@sha1:1", {"SOURCE_DATE_EPOCH": "1700000000"})
    assert found == {
        "org.opencontainers.image.source": "https://git/x",
        "org.opencontainers.image.revision": "main@sha1:1",
        "org.opencontainers.image.created": "2023-11-14T22:13:20Z",
    }
    with pytest.raises(DevloopError, match="SOURCE_DATE_EPOCH"):
        annotations_of("", "", {"SOURCE_DATE_EPOCH": "yesterday"})


def test_where_an_artifact_goes() -> None:
    assert parse_name("oci://localhost:5000/a/b") == ArtifactName("localhost:5000", "a/b", "latest")
    assert parse_name("oci://ghcr.io/a/b:1.2").tag == "1.2"
    for wrong in ("ghcr.io/a/b", "oci://a/b", "oci://ghcr.io/A", "oci://ghcr.io/a:b c", "oci://"):
        with pytest.raises(DevloopError, match="no place for an artifact"):
            parse_name(wrong)
