"""The builder that needs no Docker, against registries in memory."""

from __future__ import annotations

import contextlib
import gzip
import json
import tarfile
from dataclasses import dataclass, field, replace
from io import BytesIO
from typing import TYPE_CHECKING, Any

import pytest

from devloop.base.cancel import Cancel
from devloop.builders.daemonless.builder import DaemonlessBuilder, needs_builder
from devloop.builders.daemonless.file_tree import Tree
from devloop.builders.image.copies import FileEntry
from devloop.builders.image.full_build import NeedsFullBuild
from devloop.builders.image.listing import Listing, PathEntry
from devloop.errors import Code, DevloopError
from devloop.model import ImageRef, NodeImages, PushTarget
from devloop.registry.client import Registries, RegistryClient
from tests.unit.builders.kit import Notes, job, scan_of, write
from tests.unit.builders.test_base_image import Local, publish, sha, tar
from tests.unit.registry.fake_registry import State, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from devloop.engine.ports import Builder


class Fallback:
    """Another builder: gives `result` or raises it."""

    def __init__(self, result: ImageRef | Exception) -> None:
        self.result = result

    def build(self, scan: object, reporter: object, cancel: object) -> ImageRef:
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


@dataclass
class Bench:
    """A context, a target registry, another registry with a base, no Docker."""

    context: Path
    cache: Path
    target: State
    host: str
    other: State
    other_host: str
    registries: Registries
    local: Local = field(default_factory=lambda: Local(None))
    notes: Notes = field(default_factory=Notes)

    def full(
        self, dockerfile: str, fallback: Builder | None = None, **options: Any
    ) -> DaemonlessBuilder:
        write(self.context, {"Dockerfile": dockerfile.replace("OTHER", self.other_host)})
        target = PushTarget(push=f"{self.host}/team")
        made = job(self.context, target, **options)
        fallback = fallback or Fallback(AssertionError("not asked for"))
        return DaemonlessBuilder(made, fallback, self.registries, self.local, self.cache)

    def build(self, full: DaemonlessBuilder, recipe: str = "") -> ImageRef:
        scan = replace(scan_of(self.context), recipe=recipe)
        return full.build_without_docker(scan, self.notes, Cancel())

    def config(self, image: ImageRef) -> dict[str, Any]:
        manifest = self.manifest(image)
        found: dict[str, Any] = json.loads(self.target.blobs[manifest["config"]["digest"]])
        return found

    def manifest(self, image: ImageRef) -> dict[str, Any]:
        _, body = self.target.manifests[f"team/shop/web@{image.digest}"]
        found: dict[str, Any] = json.loads(body)
        return found

    def posts(self) -> list[str]:
        return [path for method, path, _ in self.target.requests if method == "POST"]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    context = write(tmp_path / "context", {"a/one": "1", "a/two": "2", "b": "b"})
    target, other = State(), State()
    with contextlib.ExitStack() as stack:
        host, other_host = (stack.enter_context(serving(s)) for s in (target, other))
        registries = stack.enter_context(
            Registries(make=lambda host: RegistryClient(host, lookup=lambda _: None))
        )
        yield Bench(
            context=context,
            cache=tmp_path / "cache",
            target=target,
            host=host,
            other=other,
            other_host=other_host,
            registries=registries,
        )


def names(blob: bytes) -> list[str]:
    with tarfile.open(fileobj=BytesIO(blob)) as archive:
        return archive.getnames()


def test_an_image_from_scratch(bench: Bench) -> None:
    image = bench.build(bench.full("FROM scratch\nCOPY a /x/\nLABEL k=v\nCOPY b /\n"))
    assert image.pinned == f"{bench.host}/team/shop/web@{image.digest}"
    manifest, config = bench.manifest(image), bench.config(image)
    assert [names(bench.target.blobs[layer["digest"]]) for layer in manifest["layers"]] == [
        ["x", "x/one", "x/two"],
        ["b"],
    ]
    assert manifest["layers"][0]["mediaType"] == "application/vnd.oci.image.layer.v1.tar"
    assert config["rootfs"]["diff_ids"] == [layer["digest"] for layer in manifest["layers"]]
    assert [line.get("empty_layer", False) for line in config["history"]] == [False, True, False]
    assert [(step, what) for step, what, _ in bench.notes.steps] == [
        ("build", "started"),
        ("build", "done"),
        ("push", "started"),
        ("push", "done"),
    ]


def test_the_layers_of_a_base_flow_from_its_registry(bench: Bench) -> None:
    publish(bench.other, "py", "1", tar(("etc/passwd", b"")), tar(("bin/py", b"x" * 100)))
    full = bench.full("FROM OTHER/py:1\nCOPY b /\n")
    image = bench.build(full)
    layers = bench.manifest(image)["layers"]
    assert [gzip.decompress(bench.target.blobs[layer["digest"]]) for layer in layers[:2]] == [
        tar(("etc/passwd", b"")),
        tar(("bin/py", b"x" * 100)),
    ]
    assert not [path for path in bench.posts() if "mount=" in path]
    asked = len(bench.other.requests)
    write(bench.context, {"b": "changed"})
    again = bench.build(full)
    assert bench.manifest(again)["layers"][:2] == layers[:2]
    assert len(bench.other.requests) == asked, "the base was asked for twice in a session"
    bench.build(full, recipe="another Dockerfile")
    assert len(bench.other.requests) > asked


def test_the_layers_of_a_base_in_the_same_registry_are_mounted(bench: Bench) -> None:
    publish(bench.target, "base/py", "1", tar(("bin/py", b"")))
    # A registry keeps blobs by repository; the one in memory has them all in one place.
    heads: list[str] = []
    bench.target.fault = lambda handler: _missing(handler, heads)
    image = bench.build(bench.full(f"FROM {bench.host}/base/py:1\nCOPY b /\n"))
    layer = bench.manifest(image)["layers"][0]["digest"]
    assert heads == [f"/v2/team/shop/web/blobs/{layer}"]
    assert f"mount={layer.replace(':', '%3A')}&from=base%2Fpy" in bench.posts()[0]
    bench.target.mounts = False
    bench.build(bench.full(f"FROM {bench.host}/base/py:1\nCOPY a /\n"))
    assert "copying" in bench.notes.messages[-1]


def _missing(handler: Any, heads: list[str]) -> bool:
    if handler.command != "HEAD" or "/blobs/" not in handler.path:
        return False
    heads.append(handler.path)
    handler.answer(404)
    return True


def test_only_what_changed_is_made_and_sent_again(bench: Bench) -> None:
    full = bench.full("FROM scratch\nCOPY a /a\nCOPY b /\n")
    bench.build(full)
    before = len(bench.posts())
    write(bench.context, {"b": "changed"})
    (bench.context / "a" / "one").unlink()
    write(bench.context, {"a/one": "1"})
    bench.build(full)
    assert len(bench.posts()) - before == 2, "one layer and a config"
    assert bench.notes.steps[-3][2] == "2 layers without a builder, 1 new"


def test_what_the_registry_lost_is_sent_again(bench: Bench) -> None:
    full = bench.full("FROM scratch\nCOPY a /a\nCOPY b /\n")
    lost = bench.manifest(bench.build(full))["layers"][0]["digest"]
    del bench.target.blobs[lost]

    def refuse(handler: Any) -> bool:
        if handler.command != "PUT" or "/manifests/" not in handler.path:
            return False
        if lost in bench.target.blobs:
            return False
        handler.answer(400, b'{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN"}]}')
        return True

    bench.target.fault = refuse
    image = bench.build(full)
    assert lost in bench.target.blobs
    assert bench.manifest(image)["layers"][0]["digest"] == lost


def test_a_file_that_changed_under_the_build(bench: Bench) -> None:
    full = bench.full("FROM scratch\nCOPY a /a\n")
    scan = scan_of(bench.context)
    write(bench.context, {"a/one": "!"})
    with pytest.raises(DevloopError) as caught:
        full.build_without_docker(scan, bench.notes, Cancel())
    assert caught.value.code == "build/context-changed"
    assert not bench.target.manifests


def test_the_media_types_are_the_bases(bench: Bench) -> None:
    publish(bench.other, "py", "1", tar(("x", b"")))
    kind = "application/vnd.docker.distribution.manifest.v2+json"
    for key, (_, body) in list(bench.other.manifests.items()):
        document = json.loads(body)
        document["mediaType"] = kind
        document["annotations"] = {"of": "the base"}
        document["config"]["mediaType"] = "application/vnd.docker.container.image.v1+json"
        changed = json.dumps(document).encode()
        bench.other.manifests[key] = (kind, changed)
        bench.other.manifests[f"py@{sha(changed)}"] = (kind, changed)
    manifest = bench.manifest(bench.build(bench.full("FROM OTHER/py:1\nCOPY b /\n")))
    assert manifest["mediaType"] == kind
    assert manifest["config"]["mediaType"] == "application/vnd.docker.container.image.v1+json"
    assert manifest["layers"][-1]["mediaType"] == "application/vnd.docker.image.rootfs.diff.tar"
    assert "annotations" not in manifest


def test_a_variable_whose_value_only_a_builder_knows(bench: Bench) -> None:
    text = "FROM scratch\nARG TARGETSTAGE\nENV S=$TARGETSTAGE\nCOPY b /\n"
    with pytest.raises(NeedsFullBuild, match="TARGETSTAGE depends on the target"):
        bench.build(bench.full(text))


def test_without_a_registry_docker_has_to_load_the_image(bench: Bench) -> None:
    write(bench.context, {"Dockerfile": "FROM scratch\n"})
    target = PushTarget(nodes=NodeImages("kind", "k"))
    fallback = Fallback(AssertionError("not asked for"))
    full = DaemonlessBuilder(
        job(bench.context, target), fallback, bench.registries, bench.local, bench.cache
    )
    with pytest.raises(NeedsFullBuild, match="goes into the local Docker"):
        bench.build(full)
    assert bench.notes.steps == []


def test_a_full_build_that_is_asked_for_is_dockers_where_there_is_one(bench: Bench) -> None:
    built = ImageRef(repository="r", tag="t", digest="sha256:1")
    full = bench.full("FROM scratch\nCOPY b /\n", Fallback(built))
    scan = replace(scan_of(bench.context), fresh=True)
    assert full.build(scan, bench.notes, Cancel()) == built
    away = DevloopError.of(Code.ENV_DOCKER_UNREACHABLE, "no Docker")
    full = bench.full("FROM scratch\nCOPY b /\n", Fallback(away))
    assert full.build(scan, bench.notes, Cancel()).digest


def test_no_docker_and_a_base_that_is_nowhere(bench: Bench) -> None:
    with pytest.raises(DevloopError) as caught:
        bench.build(bench.full("FROM OTHER/nothing\nCOPY b /\n"))
    assert caught.value.code == "env/docker-unreachable"


@pytest.mark.parametrize(
    ("text", "build", "reason"),
    [
        ("FROM scratch\nRUN x\n", {}, "app/Dockerfile:2 RUN"),
        ("FROM scratch AS a\nRUN x\nFROM scratch\n", {}, None),
        ("FROM scratch AS a\nRUN x\nFROM scratch\nCOPY --from=a / /\n", {}, "app/Dockerfile:2 RUN"),
        ("FROM scratch\n", {"args": {"BUILDKIT_SYNTAX": "x"}}, "BUILDKIT_SYNTAX is the builder's"),
        ("FROM scratch\n", {"platforms": ("linux/amd64", "linux/arm64")}, "several platforms"),
        ("FROM scratch\n", {"target": "x"}, "has no stage x"),
        ("FORM scratch\n", {}, "app/Dockerfile:1"),
        ("# syntax=docker/dockerfile:1\nFROM scratch\n", {}, None),
    ],
)
def test_what_needs_a_builder(
    tmp_path: Path, text: str, build: dict[str, Any], reason: str | None
) -> None:
    write(tmp_path, {"Dockerfile": text})
    found = needs_builder(job(tmp_path, build=build).build, "app/Dockerfile")
    assert found is None if reason is None else reason in (found or "")


def _tree() -> Tree:
    nodes = {
        "etc": PathEntry("dir"),
        "etc/passwd": PathEntry("file"),
        "real": PathEntry("dir", 0o700, 5, 6),
        "app": PathEntry("symlink", link="real"),
        "real/file": PathEntry("file"),
    }
    return Tree(base=Listing(nodes=nodes, texts={"etc/passwd": b"app:x:7:8::/:\nbad:x:y:\n"}))


def _entry(path: str, **other: Any) -> FileEntry:
    values: dict[str, Any] = {"path": path, "type": "file", "mode": 0o644}
    return FileEntry(**(values | other))


def test_a_directory_in_one_that_hands_on_its_group() -> None:
    real = PathEntry("dir", mode=0o2775, uid=3, gid=4)
    tree = Tree(base=Listing(nodes={"srv": PathEntry("dir", mode=0o755), "srv/real": real}))
    made = FileEntry(path="srv/real/in", type="dir", mode=0o755, implied=True)
    with pytest.raises(NeedsFullBuild) as caught:
        tree.with_layer({made.path: made}, link=False)
    assert "/srv/real hands its group on" in caught.value.reason
    # One that the context brings has a mode and an owner of its own.
    tree.with_layer({made.path: replace(made, implied=False)}, link=False)


def test_a_layer_names_the_directories_above_what_it_brings() -> None:
    tree, entries = _tree().with_layer({"real/x": _entry("real/x")}, link=False)
    assert [(e.path, e.mode, e.uid, e.gid) for e in entries] == [
        ("real", 0o700, 5, 6),
        ("real/x", 0o644, 0, 0),
    ]
    assert tree.find("real/x") is not None
    made, entries = tree.with_directories("/app/new/deep", (7, 8))
    assert [(e.path, e.uid) for e in entries] == [
        ("real", 5),
        ("real/new", 7),
        ("real/new/deep", 7),
    ]
    assert made.with_directories("/app/new", (1, 1))[1] == ()


@pytest.mark.parametrize(
    ("entry", "link", "reason"),
    [
        (_entry("real/file/x"), False, "/real/file is not a directory"),
        (_entry("real"), False, "/real is a dir already"),
        (_entry("real/file", type="dir"), False, "/real/file is a file already"),
        (_entry("app"), False, "/app is a symlink already"),
        (_entry("app/x"), False, "/app is not a directory"),
        (_entry("real", type="dir", mode=0o755, implied=True), True, "--link gives /real"),
    ],
)
def test_what_cannot_lie_over_the_base(entry: FileEntry, link: bool, reason: str) -> None:
    with pytest.raises(NeedsFullBuild) as caught:
        _tree().with_layer({entry.path: entry}, link=link)
    assert reason in caught.value.reason


@pytest.mark.parametrize(
    ("text", "owner"),
    [
        ("5", (5, 5)), ("5:6", (5, 6)), ("root", (0, 0)), ("root:9", (0, 9)),
        ("app", (7, 8)), ("app:root", (7, 0)), ("bad", (0, 0)),
    ],
)  # fmt: skip
def test_owners(text: str, owner: tuple[int, int]) -> None:
    assert _tree().owner(text, lambda _: b"") == owner


@pytest.mark.parametrize("text", ["nobody", "app:staff", ":5", "-1"])
def test_owners_that_are_not_there(text: str) -> None:
    with pytest.raises(NeedsFullBuild):
        _tree().owner(text, lambda _: b"")


def test_names_of_a_file_that_was_copied() -> None:
    tree, _ = _tree().with_layer({"etc/passwd": _entry("etc/passwd", source="p")}, link=False)
    assert tree.owner("me", lambda placed: b"me:x:1:2\n" if placed.source == "p" else b"") == (1, 2)


def test_the_other_builder_does_what_cannot_be_proven(bench: Bench) -> None:
    theirs = ImageRef(repository="r", tag="t")
    ours = bench.full("FROM scratch\nCOPY b /\n", Fallback(theirs))
    assert ours.build(scan_of(bench.context), bench.notes, Cancel()).digest
    ran = bench.full("FROM scratch\nRUN x\n", Fallback(theirs))
    assert ran.build(scan_of(bench.context), bench.notes, Cancel()) is theirs


def test_why_docker_is_needed(bench: Bench) -> None:
    told = "it is needed here: app/Dockerfile:2 RUN; nobody is there"
    for code, cause in (("env/docker-unreachable", told), ("build/failed", "nobody is there")):
        with pytest.raises(DevloopError) as caught:
            bench.full(
                "FROM scratch\nRUN x\n",
                Fallback(DevloopError.of(Code(code), "no", cause="nobody is there")),
            ).build(scan_of(bench.context), bench.notes, Cancel())
        assert caught.value.code == code
        assert caught.value.diagnosis.cause == cause
