"""The delta builder with a real HTTP registry in memory and a builder behind that only counts."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from devloop.app.file_sync import type_below
from devloop.base.cancel import Cancel, Cancelled
from devloop.base.threads import Background
from devloop.builders.built_images import CachedImages
from devloop.builders.delta.builder import DeltaBuilder
from devloop.builders.delta.layer_state import CopyLayer, place_all
from devloop.builders.dockerfile import parse
from devloop.builders.image.copies import FileEntry, StageState, stage_copies
from devloop.builders.image.documents import sha256
from devloop.builders.image.full_build import HasTriggers
from devloop.builders.image.layer import read_layer, write_layer
from devloop.builders.image.listing import Listing, PathEntry
from devloop.builders.image.repository import Repository
from devloop.builders.job import tag_of
from devloop.errors import Code, DevloopError
from devloop.model import ImageRef, PushTarget, Step, StepOutcome
from devloop.registry.client import RegistryClient
from tests.unit.builders.kit import Notes, job, snapshot_of, write
from tests.unit.builders.kit import scan_of as plain_scan
from tests.unit.registry.fake_registry import Handler, State, serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from http.server import BaseHTTPRequestHandler
    from pathlib import Path

    from devloop.builders.image.documents import Image
    from devloop.engine.ports import Reporter
    from devloop.model import Scan

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"


class Behind:
    """The fallback builder: its image has one base layer and one for each COPY. Tests change
    `extra` (a layer above the others) and `owner`, `history` and `wrap` to have it otherwise."""

    def __init__(self, context: Path, client: RegistryClient, repository: str) -> None:
        self.context = context
        self.client = client
        self.repository = repository
        self.built = 0
        self.owner = (0, 0)
        self.base: Sequence[FileEntry] = ()
        self.extra: Sequence[FileEntry] = ()
        self.step = "RUN x"
        self.wrap: list[dict[str, str]] | None = None
        self.error: Exception | None = None

    def build(self, scan: Scan, reporter: Reporter, cancel: Cancel) -> ImageRef:
        reporter.started(Step.BUILD)
        if self.error is not None:
            raise self.error
        self.built += 1
        name = self.client.name(self.repository)
        dockerfile = parse((self.context / "Dockerfile").read_text())
        layers = [self._tar(self.base)]
        for copy in stage_copies(dockerfile, None, {}, StageState()):
            copy_layer = CopyLayer(copy=copy, index=0, owner=self.owner if copy.chown else (0, 0))
            tree = place_all((copy_layer,), scan.snapshot, None)[1]
            layers.append(self._tar([tree[path] for path in sorted(tree)]))
        if self.extra:
            layers.append(self._tar(self.extra))
        config = json.dumps(
            {
                "os": "linux",
                "architecture": "amd64",
                "config": {"WorkingDir": "/"},
                "history": [{"created_by": self.step}]
                + [{"created_by": "step"} for _ in layers[1:]],
                "rootfs": {"type": "layers", "diff_ids": [sha256(data) for data in layers]},
            }
        ).encode()
        manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": self._blob(name, config),
                "layers": [self._blob(name, data) for data in layers],
            }
        ).encode()
        put = self.client.put_manifest(name, tag_of(scan), manifest, MANIFEST)
        if self.wrap is not None:
            entries = [{"digest": put.digest, "platform": p} for p in self.wrap]
            index = json.dumps({"mediaType": INDEX, "manifests": entries}).encode()
            put = self.client.put_manifest(name, tag_of(scan), index, INDEX)
        reporter.finished(Step.BUILD, StepOutcome.DONE, "4 steps")
        return ImageRef(repository=self.repository, tag=tag_of(scan), digest=put.digest)

    def _tar(self, entries: Sequence[FileEntry]) -> bytes:
        return write_layer(tuple(entries), self.context)

    def _blob(self, name: str, data: bytes) -> dict[str, object]:
        digest = self.client.put_blob(name, data)
        return {"mediaType": "tar", "size": len(data), "digest": digest}


class Bench:
    def __init__(self, directory: Path, client: RegistryClient, state: State) -> None:
        self.context = directory / "app"
        self.context.mkdir()
        self.state = state
        self.client = client
        target = PushTarget(push=client.host)
        self.job = job(self.context, target, root=directory)
        self.behind = Behind(self.context, client, target.repository(self.job.image))
        self.images = CachedImages(directory / "images.json")
        self.delta = DeltaBuilder(self.job, self.behind, client, self.images)
        self.notes = Notes()

    def write(self, text: str = "", **files: str) -> None:
        if text:
            write(self.context, {"Dockerfile": text})
        write(self.context, {name.replace("__", "/"): data for name, data in files.items()})

    def scan(self, recipe: str = "") -> Scan:
        return replace(plain_scan(self.context), recipe=recipe)

    def build(self, scan: Scan | None = None, cancel: Cancel | None = None) -> ImageRef:
        self.notes = Notes()
        image = self.delta.build(scan or self.scan(), self.notes, cancel or Cancel())
        if not self.delta._known or self.delta._known.image.digest == image.digest:
            self.delta.settle()
        return image

    @property
    def how(self) -> str:
        return next(d for s, o, d in reversed(self.notes.steps) if s == "build" and o != "started")

    def layers(self, image: ImageRef) -> list[dict[str, FileEntry]]:
        manifest = self.client.get_manifest(self.client.name(image.repository), image.digest)
        assert manifest is not None
        return [
            dict(read_layer([self.state.blobs[layer["digest"]]]))
            for layer in json.loads(manifest.body)["layers"]
        ]


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    # What is left for when nobody waits comes at once: `settle` waits for it.
    monkeypatch.setattr("devloop.builders.delta.builder._SERVED", 0.0)
    state = State()
    with serving(state) as host, RegistryClient(host, lookup=lambda _: None) as client:
        bench = Bench(tmp_path, client, state)
        bench.write("FROM x\nCOPY . /app/\n", a="1", sub__b="2")
        yield bench
        bench.delta.close()


def test_the_first_image_is_the_builder_s_and_the_next_is_made_here(bench: Bench) -> None:
    first = bench.build()
    assert (bench.behind.built, bench.how) == (1, "4 steps")
    bench.write(a="22")
    bench.state.requests.clear()
    second = bench.build()
    assert bench.behind.built == 1
    assert bench.how == f"delta: 1 file, 2 B on {first.short}"
    assert [n.partition(" ")[0] for _, n, _ in bench.notes.steps[1::2]] == ["done", "done"]
    layers = bench.layers(second)
    assert len(layers) == len(bench.layers(first)) + 1
    assert layers[-1].keys() == {"app", "app/a"}
    assert (second.repository, second.digest != first.digest) == (first.repository, True)
    assert bench.client.digest(second.repository, second.tag) == second.digest


def test_three_round_trips_two_of_them_at_once(bench: Bench) -> None:
    bench.build()
    bench.write(a="22")
    bench.state.requests.clear()
    bench.delta.build(bench.scan(), bench.notes, Cancel())
    methods = [method for method, _, _ in bench.state.requests]
    assert methods[:3] == ["PUT", "PUT", "PUT"]
    assert set(methods[3:]) <= {"POST"}


def test_what_keeps_changing_goes_into_the_delta_as_the_scan_read_it(bench: Bench) -> None:
    bench.build()
    bench.write(a="22")
    scan = replace(bench.scan(), passing=frozenset({"a"}), kept={"a": (7, [b"22"])})
    bench.write(a="333")
    image = bench.build(scan)
    assert bench.layers(image)[-1]["app/a"].digest == sha256(b"22").removeprefix("sha256:")
    # The next look finds another content, and its image has that.
    assert bench.layers(bench.build())[-1]["app/a"].digest == sha256(b"333").removeprefix("sha256:")


def test_the_image_is_remembered_for_the_next_session(bench: Bench) -> None:
    bench.build()
    bench.write(a="22")
    image = bench.build()
    build = bench.scan().fingerprint.build
    assert bench.images.find(image.repository, build) == image.digest


def test_another_recipe_goes_to_the_builder(bench: Bench) -> None:
    bench.build(bench.scan("one"))
    bench.build(bench.scan("two"))
    assert bench.behind.built == 2
    why = "full build: the Dockerfile, its base image or the build's settings changed"
    assert bench.how == f"4 steps; {why}"
    assert bench.notes.messages == [why]


def test_a_full_build_that_is_asked_for_is_the_builder_s_and_carried_on_from(bench: Bench) -> None:
    bench.build()
    bench.write(a="22")
    bench.build(replace(bench.scan(), fresh=True))
    assert bench.behind.built == 2
    assert bench.how == "4 steps; full build: it is asked for"
    bench.write(a="333")
    bench.build()
    assert bench.behind.built == 2


def test_a_failed_builder_does_not_spoil_what_is_known(bench: Bench) -> None:
    bench.write("FROM x\nCOPY r /r\nRUN r\nCOPY a /app/\n", r="1")
    # The image of the fallback builder has no layer of a RUN; it is not looked for.
    bench.build()
    bench.write(r="2")
    bench.behind.error = DevloopError.of(Code.BUILD_FAILED, "no")
    with pytest.raises(DevloopError):
        bench.build()
    bench.behind.error = None
    bench.write(r="1", a="2")
    bench.build()
    assert bench.how.startswith("delta: ")


def answer(status: int, code: str) -> Callable[[BaseHTTPRequestHandler], bool]:
    def fault(handler: BaseHTTPRequestHandler) -> bool:
        if handler.command != "PUT" or "/manifests/" not in handler.path:
            return False
        assert isinstance(handler, Handler)
        handler.state.fault = None
        handler.answer(status, json.dumps({"errors": [{"code": code}]}).encode())
        return True

    return fault


def test_layers_that_are_gone_are_built_again(bench: Bench) -> None:
    bench.build()
    bench.write(a="2")
    bench.state.fault = answer(400, "MANIFEST_BLOB_UNKNOWN")
    bench.build()
    assert bench.behind.built == 2
    assert bench.how == "4 steps; full build: the registry has lost the base layers"
    bench.write(a="3")
    bench.build()
    assert bench.how.startswith("delta: ")


def test_a_registry_in_trouble_is_told_and_tried_again(bench: Bench) -> None:
    bench.build()
    bench.write(a="2")
    bench.state.fault = answer(503, "UNAVAILABLE")
    with pytest.raises(DevloopError) as caught:
        bench.build()
    assert caught.value.code == "registry/unreachable"
    image = bench.build()
    assert bench.how.startswith("delta: ")
    assert bench.layers(image)[-1].keys() == {"app", "app/a"}
    assert bench.behind.built == 1


def test_a_file_written_after_the_scan_is_reported(bench: Bench) -> None:
    bench.build()
    bench.write(a="2")
    scan = bench.scan()
    bench.write(a="3")
    with pytest.raises(DevloopError) as caught:
        bench.build(scan)
    assert caught.value.code == "build/context-changed"
    bench.build()
    assert bench.how.startswith("delta: 1 file")


def test_a_cancelled_build_is_not_taken_for_an_image(bench: Bench) -> None:
    first = bench.build()
    bench.write(a="2")
    cancel = Cancel()

    def fault(_: BaseHTTPRequestHandler) -> bool:
        cancel.set()
        return False

    bench.state.fault = fault
    with pytest.raises(Cancelled):
        bench.build(cancel=cancel)
    bench.state.fault = None
    second = bench.build()
    assert second.digest != first.digest
    assert bench.how.startswith("delta: ")


def test_a_save_while_the_image_is_looked_at_waits_for_that(bench: Bench) -> None:
    going, gate = threading.Event(), threading.Event()

    def fault(handler: BaseHTTPRequestHandler) -> bool:
        if handler.command == "GET" and "/blobs/" in handler.path:
            going.set()
            gate.wait(30)
        return False

    bench.state.fault = fault
    bench.delta.build(bench.scan(), bench.notes, Cancel())
    assert going.wait(30)
    cancel = Cancel()
    bench.write(a="2")
    threading.Timer(0.05, cancel.set).start()
    with pytest.raises(Cancelled):
        bench.build(cancel=cancel)
    gate.set()
    bench.build()
    assert bench.how.startswith("delta: ")


def test_close_ends_what_goes_on(bench: Bench) -> None:
    gate = threading.Event()
    bench.state.fault = lambda handler: handler.command == "GET" and gate.wait(30) and False
    bench.delta.build(bench.scan(), bench.notes, Cancel())
    bench.delta.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("devloop-look")]
    gate.set()


def test_a_name_is_the_uid_that_the_layer_shows(bench: Bench) -> None:
    bench.write("FROM x\nCOPY --chown=web:web a /app/\n")
    bench.behind.owner = (12, 34)
    bench.build()
    bench.write(a="2")
    delta = bench.layers(bench.build())[-1]
    assert (delta["app/a"].uid, delta["app/a"].gid) == (12, 34)


def other(path: str, kind: Any = "dir") -> FileEntry:
    return FileEntry(path=path, type=kind, mode=0o755, link="x" if kind == "symlink" else "")


def whiteout(bench: Bench, path: str) -> FileEntry:
    bench.write(empty="")
    digest = hashlib.sha256(b"").hexdigest()
    return FileEntry(path=path, type="file", mode=0, digest=digest, source="empty")


def above(bench: Bench) -> None:
    bench.behind.extra = (other("app"), other("app/a", "symlink"))
    bench.write("FROM x\nCOPY . /app/\nCOPY --from=y /a /app/a\n")


def hidden(bench: Bench) -> None:
    bench.behind.extra = (other("app"), whiteout(bench, "app/.wh.a"))
    bench.write("FROM x\nCOPY . /app/\nCOPY --from=y /a /app/a\n")


def opaque(bench: Bench) -> None:
    bench.behind.extra = (other("app"), whiteout(bench, "app/.wh..wh..opq"))
    bench.write("FROM x\nCOPY . /app/\nCOPY --from=y /a /app/a\n")


def elsewhere(bench: Bench) -> None:
    bench.write("FROM x\nCOPY a /app/\n")
    real = bench.behind._tar

    def resolved(entries: Sequence[FileEntry]) -> bytes:
        moved = [replace(e, path=e.path.replace("app", "real")) for e in entries]
        return real(moved)

    bench.behind._tar = resolved  # type: ignore[method-assign]


def platforms(bench: Bench) -> None:
    bench.behind.wrap = [
        {"os": "linux", "architecture": "amd64"},
        {"os": "linux", "architecture": "arm64"},
    ]


def triggers(bench: Bench) -> None:
    bench.write(long="x" * 100_000)
    entry = snapshot_of(bench.context).entries["sub/b"]
    bench.behind.base = (
        FileEntry(path="b", type="file", mode=0o644, size=1, digest=entry.digest, source="sub/b"),
    )
    bench.behind.step = "COPY . /onbuild # buildkit"


@pytest.mark.parametrize(
    ("otherwise", "reason"),
    [
        (above, "another layer has /app/a too"),
        (hidden, "another layer has /app/a too"),
        (opaque, "a layer hides all of /app"),
        (elsewhere, "COPY a /app/ is in no layer as expected"),
        (platforms, "the image is for several platforms"),
        (triggers, "the base image has files of the context (ONBUILD?)"),
    ],
)
def test_what_cannot_be_proven_is_built_with_the_reason(
    bench: Bench, otherwise: Callable[[Bench], None], reason: str
) -> None:
    otherwise(bench)
    bench.build()
    bench.write(a="2")
    bench.build()
    assert bench.behind.built == 2
    assert bench.how == f"4 steps; full build: {reason}"
    bench.write(a="3")
    bench.build()
    assert bench.how == f"4 steps; full build: {reason}"


def test_an_attestation_does_not_make_two_platforms(bench: Bench) -> None:
    bench.behind.wrap = [
        {"os": "linux", "architecture": "amd64"},
        {"os": "unknown", "architecture": "unknown"},
    ]
    bench.build()
    bench.write(a="2")
    bench.build()
    assert bench.how.startswith("delta: ")


def test_what_an_image_shows_to_be_read_by_nothing_makes_no_difference(bench: Bench) -> None:
    bench.write("FROM x\nCOPY a /app/\nRUN use /app\n", log="1")
    first = bench.scan()
    bench.write(log="2")
    noise = bench.scan()
    assert bench.delta.may_differ(first, noise)
    bench.build(first)
    assert not bench.delta.may_differ(first, noise)
    bench.write(a="2")
    assert bench.delta.may_differ(first, bench.scan())


def test_what_a_trigger_of_the_base_image_reads_may_make_a_difference(bench: Bench) -> None:
    bench.write("FROM x\nCOPY a /app/\n", log="1")
    triggers(bench)
    first = bench.scan()
    bench.build(first)
    bench.write(log="2")
    assert bench.delta.may_differ(first, bench.scan())


def test_a_base_with_a_copy_of_its_own_is_no_trigger(bench: Bench) -> None:
    bench.behind.step = "COPY . /somewhere # buildkit"
    bench.behind.base = (other("somewhere"),)
    bench.build()
    bench.write(a="2")
    bench.build()
    assert bench.how.startswith("delta: ")


@pytest.mark.parametrize(
    ("new", "kind", "reason"),
    [
        ("new__deep__x", "file", "/app/new is a file in the base image"),
        ("new__deep__x", "symlink", "/app/new is a symlink in the base image"),
        ("new", "dir", "/app/new is a dir in the base image"),
        ("new__deep__x", "dir", ""),
        ("new", "file", ""),
        ("new", "symlink", ""),
    ],
)
def test_what_comes_for_the_first_time_is_compared_with_the_base_layers(
    bench: Bench, new: str, kind: str, reason: str
) -> None:
    below = other("app/new", kind)
    if kind == "file":
        digest = hashlib.sha256(b"1").hexdigest()
        below = replace(below, size=1, digest=digest, source="a")
    bench.behind.base = (other("app"), below)
    bench.build()
    bench.write(**{new: "x"})
    bench.build()
    assert bench.how.endswith(f"full build: {reason}") == bool(reason)
    assert bench.how.startswith("delta: ") != bool(reason)
    bench.write(**{new: "y"})
    bench.build()
    # The builder could build it this time, so it can be carried on.
    assert bench.how.startswith("delta: ")


def test_what_is_below_the_copies_can_be_asked_for(bench: Bench) -> None:
    bench.behind.base = (other("app"), other("app/kept"))
    assert bench.delta.below_copies() is None
    for text in ("1", "2"):
        bench.write(a=text)
        bench.build()
        below = bench.delta.below_copies()
        assert below is not None
        assert set(below.nodes) == {"app", "app/kept"}
        assert type_below(below, "/app/kept") == "dir"
        assert type_below(below, "/app/a") == ""
    assert type_below(None, "/app/a") is None
    linked = Listing(nodes={"app": PathEntry("symlink", link="srv")})
    assert type_below(linked, "/app/a") == "symlink"


def test_what_an_image_shows_of_its_copies_can_be_asked_for(bench: Bench) -> None:
    assert bench.delta.shown_copies("") is None
    bench.build()
    shown = bench.delta.shown_copies("")
    assert shown is not None
    assert (shown.base.workdir, dict(shown.owners), shown.above) == ("/", {2: (0, 0)}, frozenset())
    assert shown.reads == (".",)
    assert bench.delta.shown_copies("another recipe") is None
    bench.write(a="2")
    bench.build()
    assert bench.delta.shown_copies("") is shown


def test_what_an_image_shows_is_waited_for_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.build()
    waits: list[float | None] = []

    def wait(_: object, seconds: float | None, __: Cancel) -> bool:
        waits.append(seconds)
        return False

    monkeypatch.setattr(Background, "wait", wait)
    for _ in range(3):
        assert bench.delta.shown_copies("") is None
    assert waits == [1.0, 0.0, 0.0]


def test_what_a_trigger_did_is_not_forgotten(bench: Bench) -> None:
    triggers(bench)
    for text in "12345":
        bench.write(a=text)
        bench.build()
        with pytest.raises(HasTriggers):
            bench.delta.shown_copies("")
    assert bench.delta.shown_copies("another recipe") is None


def test_what_is_below_copies_is_not_known_of_layers_too_big_to_read(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("devloop.builders.delta.base_layers._MOST", 10)
    bench.build()
    assert bench.delta.below_copies() is None


def test_a_save_does_not_wait_long_for_the_base_layers(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("devloop.builders.delta.base_layers._PATIENCE", 0.01)
    gate = threading.Event()
    asked = threading.Event()
    real = Repository.listing

    def slow(repository: Repository, image: Image, cancel: Cancel) -> Listing:
        asked.set()
        gate.wait(30)
        return real(repository, image, cancel)

    monkeypatch.setattr(Repository, "listing", slow)
    bench.delta.build(bench.scan(), bench.notes, Cancel())
    assert asked.wait(30)
    bench.write(a="2")
    bench.delta.build(bench.scan(), bench.notes, Cancel())
    assert bench.how.startswith("delta: ")
    bench.write(new="x")
    bench.delta.build(bench.scan(), bench.notes, Cancel())
    assert bench.how.endswith("full build: the base layers are still being read")
    gate.set()
    bench.delta.settle()
    bench.write(newer="x")
    bench.build()
    assert bench.how.startswith("delta: ")


def test_base_layers_that_cannot_be_read_leave_what_is_new_to_the_builder(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("devloop.builders.delta.base_layers._MOST", 10)
    bench.build()
    bench.write(a="2")
    bench.build()
    assert bench.how.startswith("delta: ")
    bench.write(new="x")
    bench.build()
    assert bench.how.endswith("full build: the base image is too big to look into")


def test_what_was_too_big_for_a_delta_is_the_builder_s(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("devloop.builders.delta.shortcut._MOST", 10)
    bench.build()
    bench.write(a="x" * 11)
    bench.build()
    assert bench.how == "4 steps; full build: 11 B changed"


def test_without_a_registry_the_reason_is_said_once(bench: Bench) -> None:
    delta = DeltaBuilder(bench.job, bench.behind, None, bench.images)
    for expected in (
        "4 steps; full build: images are loaded into the nodes, not pushed",
        "4 steps",
    ):
        bench.notes = Notes()
        delta.build(bench.scan(), bench.notes, Cancel())
        assert bench.how == expected
    delta.close()


def test_a_removed_file_makes_its_layer_again_in_its_place(bench: Bench) -> None:
    bench.write("FROM x\nCOPY sub /sub/\nCOPY . /app/\n", sub__c="3")
    first = bench.build()
    shutil.rmtree(bench.context / "sub")
    bench.write(sub__c="3")
    second = bench.build()
    assert bench.how.startswith("2 layers made again")
    layers = bench.layers(second)
    assert len(layers) == len(bench.layers(first))
    assert layers[1].keys() == {"sub", "sub/c"}
    assert layers[2].keys() == {"app", "app/Dockerfile", "app/a", "app/sub", "app/sub/c"}


def test_where_no_image_follows_the_first_is_not_looked_into(bench: Bench) -> None:
    delta = DeltaBuilder(bench.job, bench.behind, bench.client, bench.images, once=True)
    bench.notes = Notes()
    delta.build(bench.scan(), bench.notes, Cancel())
    assert bench.how == "4 steps"
    assert list(delta._running()) == []
    delta.close()


def test_a_session_goes_on_from_the_image_of_an_earlier_one(bench: Bench) -> None:
    bench.build()
    earlier = bench.scan()
    asked: list[str] = []

    def last_built(like: Scan, repository: str) -> tuple[Scan, str] | None:
        asked.append(repository)
        return (earlier, first.digest) if like.recipe == earlier.recipe else None

    def session(scan: Scan, unchanged: bool = True) -> ImageRef:
        seen = replace(bench.job, written_since=lambda _: frozenset() if unchanged else None)
        delta = DeltaBuilder(
            seen, bench.behind, bench.client, bench.images, once=True, last_built=last_built
        )
        bench.notes = Notes()
        image = delta.build(scan, bench.notes, Cancel())
        delta.close()
        return image

    first = bench.build()
    bench.write(a="other")
    image = session(bench.scan())
    assert bench.how.startswith("delta: 1 file")
    assert bench.layers(image)[-1].keys() >= {"app/a"}
    assert bench.behind.built == 1
    # The Dockerfile may have become another one since it was looked at.
    bench.write(a="second")
    session(bench.scan(), unchanged=False)
    assert bench.how == "4 steps"
    bench.write(a="third")
    session(bench.scan("another recipe"))
    assert bench.how == "4 steps"
    bench.write(**{f"f{number}": "x" for number in range(250)})
    session(bench.scan())
    assert bench.how.endswith(
        "full build: much has changed since the image that it would go on from"
    )
    assert asked == [bench.behind.repository] * 4
    # What was asked for anew is made anew, and what is known is not made of something else.
    bench.write(a="other")
    session(replace(bench.scan(), fresh=True))
    bench.images.add(bench.behind.repository, bench.scan().fingerprint.build, image.digest)
    session(bench.scan())
    assert len(asked) == 4
