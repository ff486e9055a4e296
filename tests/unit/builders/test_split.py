"""Builds that are split: where a Dockerfile is cut, and what becomes of the parts.

The builder of the lower part is a docker CLI that is a script; what real ones make of both parts is
compared in tests/integration/builders and in the differential run.
"""

from __future__ import annotations

import contextlib
import json
import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pytest

from devloop.base.cancel import Cancel
from devloop.builders.buildx import Buildx
from devloop.builders.dockerfile import parse
from devloop.builders.image.copies import FileEntry
from devloop.builders.image.full_build import NeedsFullBuild
from devloop.builders.image.image_config import started
from devloop.builders.image.layer import read_contents, read_layer, write_layer
from devloop.builders.job import tag_of
from devloop.builders.split.builder import SplitBuilder
from devloop.builders.split.division import divide
from devloop.config.builds import Build
from devloop.errors import Code, DevloopError
from devloop.model import PushTarget
from devloop.registry.client import Registries, RegistryClient
from tests.unit.builders.kit import Notes, job, scan_of, snapshot_of, write
from tests.unit.builders.test_base_image import publish, tar
from tests.unit.builders.test_builders import FakeDocker, built, detour, replay
from tests.unit.registry.fake_registry import State, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from devloop.builders.split.division import Division
    from devloop.model import ImageRef, Scan


def divided(text: str, tmp_path: Path, **build: Any) -> Division:
    settings = Build(context=tmp_path, dockerfile=tmp_path / "Dockerfile", **build)
    return divide(parse(text), settings)


@pytest.mark.parametrize(
    ("text", "lower"),
    [
        ("FROM x\nRUN a\nCOPY . .\nCMD b\n", "FROM x\nRUN a\n\n\n"),
        # What configures before the first COPY is the builder's.
        ("FROM x\nRUN a\nENV A=1\nCOPY . .", "FROM x\nRUN a\nENV A=1\n"),
        ("FROM x\nCOPY a /\nRUN a\nADD b /\nUSER c\nCOPY d /", "FROM x\nCOPY a /\nRUN a\n\n\n"),
        ("FROM x\nRUN a\n# why\nCOPY a \\\n  b \\\n  /c/", "FROM x\nRUN a\n# why\n\n\n"),
        (
            "FROM x AS b\nRUN a\nFROM y\nCOPY a /\nCOPY --from=b /c /\nCOPY d /",
            "FROM x AS b\nRUN a\nFROM y\nCOPY a /\nCOPY --from=b /c /\n",
        ),
        (
            "FROM x AS b\nRUN a\nCOPY c /\nFROM b\nCOPY d /",
            "FROM x AS b\nRUN a\nCOPY c /\nFROM b\n",
        ),
        ("FROM x\nRUN a\nCOPY <<E /b\nc\nE\nCOPY d /", "FROM x\nRUN a\nCOPY <<E /b\nc\nE\n"),
        ("FROM x\nRUN a\nADD https://b/c /\nCOPY d /", "FROM x\nRUN a\nADD https://b/c /\n"),
        ("FROM x\nRUN a\nADD $B /\nCOPY d /", "FROM x\nRUN a\nADD $B /\n"),
    ],
)
def test_all_up_to_what_only_a_builder_can_do_is_the_builder_s(
    text: str, lower: str, tmp_path: Path
) -> None:
    assert divided(text, tmp_path).lower(text) == lower


@pytest.mark.parametrize(
    ("text", "build", "reason"),
    [
        ("FROM x\nCOPY . .\nRUN a", {}, "no COPY of local files"),
        ("FROM x\nRUN a\nCOPY . .\nCOPY --from=y / /", {}, "no COPY of local files"),
        ("FROM x\nRUN a\nCOPY . .\nNEW b", {}, "unknown instruction"),
        ("# syntax=me/own\nFROM x\nRUN a\nCOPY . .", {}, "a frontend of its own"),
        ("FROM x AS a\nRUN a\nONBUILD RUN b\nFROM a\nCOPY . .", {}, "ONBUILD triggers"),
        ("FROM scratch\nENV A=1\nCOPY . .", {}, "nothing below"),
        ("FROM x\nRUN a\nARG TARGETARCH\nCOPY . /$TARGETARCH", {}, "the builder's platform"),
        ("FROM x\nRUN a\nCOPY . /$TARGETARCH", {}, "the builder's platform"),
        (
            "FROM x\nRUN a\nCOPY . .",
            {"platforms": ("linux/amd64", "linux/arm64")},
            "several platforms",
        ),
        ("FROM x\nRUN a\nCOPY . .", {"args": {"BUILDKIT_X": "1"}}, "is the builder's"),
    ],
)
def test_what_is_not_split(text: str, build: dict[str, Any], reason: str, tmp_path: Path) -> None:
    with pytest.raises(NeedsFullBuild, match=reason):
        divided(text, tmp_path, **build)


@pytest.mark.parametrize(
    ("lower", "word", "env", "fine"),
    [
        ("ARG A=1", "$A", [], True),
        ("ARG A=1", "$A", ["A=1"], True),
        # Releases differ in which of the two counts.
        ("ARG A=1", "$A", ["A=2"], False),
        ("ARG A=1", "$B", ["A=2"], True),
        ("ARG A", "$A", [], False),
        ("ARG A", "$B", [], True),
        ("ARG A=$PATH", "${A}", [], False),
        ("ARG TOP", "$TOP", [], True),
        ("ENV A=1\nARG B=$A", "$B", ["A=1"], True),
    ],
)
def test_a_variable_whose_value_only_the_builder_knows(
    lower: str, word: str, env: list[str], fine: bool, tmp_path: Path
) -> None:
    text = f"ARG TOP=t\nFROM x\n{lower}\nRUN a\nCOPY . /{word}/"
    division = divided(text, tmp_path)
    config = started({"config": {"Env": env}})
    with contextlib.nullcontext() if fine else pytest.raises(NeedsFullBuild):
        division.check(config)


def test_the_arguments_of_the_lower_part_go_on(tmp_path: Path) -> None:
    text = "ARG T=t\nFROM x AS a\nARG A=1 B\nARG T\nRUN r\nFROM a\nARG C=$A\nRUN r\nCOPY . /$A/\n"
    division = divided(text, tmp_path, args={"A": "given"})
    assert division.args == {"A": "given", "T": "t", "C": "given"}
    assert division.doubtful == {"B"}
    assert not division.cmd
    assert divided("FROM x\nRUN a\nCMD b\nCOPY . .", tmp_path).cmd


def test_a_layer_is_written_from_what_was_read_before(tmp_path: Path) -> None:
    snapshot = snapshot_of(write(tmp_path, {"a": "one"}))
    contents = read_contents(["a"], snapshot, tmp_path, Cancel())
    (tmp_path / "a").unlink()
    found = snapshot.entries["a"]
    entry = FileEntry(path="x/a", type="file", mode=0o644, size=3, digest=found.digest, source="a")
    read = read_layer([write_layer([entry], tmp_path, contents)])
    assert read["x/a"].digest == found.digest
    with pytest.raises(DevloopError, match="changed while"):
        read_contents(["a"], snapshot, tmp_path, Cancel())


DOCKERFILE = "FROM x\nARG A=app\nRUN make\nCOPY . /$A/\nENV ONE=1\nCMD run\n"
LOWER = "FROM x\nARG A=app\nRUN make\n\n\n\n"


@dataclass
class Bench:
    """A context, a registry that has what the builder makes of the lower part, and a builder that
    is a script."""

    context: Path
    directory: Path
    state: State
    host: str
    registries: Registries
    docker: FakeDocker
    base: tuple[bytes, ...] = (tar(("app", "dir"), ("app/old", b"old")),)
    written: frozenset[str] | None = frozenset()
    notes: Notes = field(default_factory=Notes)
    recorded: list[ImageRef] = field(default_factory=list)

    @property
    def given(self) -> list[str]:
        """The Dockerfiles that the builder got."""
        return [path.read_text() for path in sorted(self.directory.glob("given.*"))]

    @property
    def tags(self) -> list[str]:
        """What the builder was to push, without the host."""
        prefix = f"--tag={self.host}/shop/web:"
        return [a.removeprefix(prefix) for c in self.docker.calls for a in c if prefix in a]

    def answers(self, script: str) -> None:
        """Have the builder note its Dockerfile and go on with `script`."""
        name = f"{self.directory}/given.$(ls {self.directory} | grep -c given)"
        note = f'for a; do case "$a" in --file=*) cp "${{a#*=}}" {name};; esac; done\n'
        self.docker.answers(note + script)

    def scan(self) -> Scan:
        return replace(scan_of(self.context), recipe=(self.context / "Dockerfile").read_text())

    def builder(self, gain: float = -math.inf) -> SplitBuilder:
        digest, _ = publish(
            self.state, "shop/web", "devloop-base", *self.base, Env=["PATH=/bin"], Cmd=["old"]
        )
        self.answers(built(digest))
        work = job(
            self.context,
            PushTarget(push=self.host),
            registry=self.registries(self.host),
            written_since=lambda _: self.written,
        )
        cache = self.directory / "cache"
        return SplitBuilder(
            work,
            Buildx(work),
            self.registries,
            record=self.recorded.append,
            gain=gain,
            cache=cache,
        )

    def build(self, builder: SplitBuilder) -> ImageRef:
        self.notes = Notes()
        return builder.build(self.scan(), self.notes, Cancel())

    def manifest(self, image: ImageRef) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.state.manifests[f"shop/web@{image.digest}"][1])
        return found

    def config(self, image: ImageRef) -> dict[str, Any]:
        digest = self.manifest(image)["config"]["digest"]
        found: dict[str, Any] = json.loads(self.state.blobs[digest])
        return found


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    context = write(tmp_path / "app", {"Dockerfile": DOCKERFILE, "a": "1", "sub/b": "2"})
    state = State()
    with (
        serving(state) as host,
        Registries(make=lambda host: RegistryClient(host, lookup=lambda _: None)) as registries,
    ):
        yield Bench(
            context=context,
            directory=tmp_path,
            state=state,
            host=host,
            registries=registries,
            docker=FakeDocker(tmp_path / "fake-bin", monkeypatch),
        )


def test_the_builder_makes_the_lower_part_and_the_copies_are_made_here(bench: Bench) -> None:
    image = bench.build(bench.builder())
    assert bench.given == [LOWER]
    assert bench.tags == ["devloop-base"]
    # A name of its own, so that BuildKit's copy of the whole context stays as it is.
    assert bench.docker.calls[0][-1].endswith("/app-base")
    assert [each.tag for each in bench.recorded] == ["devloop-base"]
    assert f"shop/web@{bench.recorded[0].digest}" in bench.state.manifests
    assert image.tag == tag_of(bench.scan())
    layers = bench.manifest(image)["layers"]
    assert len(layers) == 2
    made = read_layer([bench.state.blobs[layers[1]["digest"]]])
    assert sorted(made) == ["app", "app/Dockerfile", "app/a", "app/sub", "app/sub/b"]
    config = bench.config(image)
    assert config["config"]["Env"] == ["PATH=/bin", "ONE=1"]
    assert config["config"]["Cmd"] == ["/bin/sh", "-c", "run"]
    assert [line["created_by"] for line in config["history"]] == [
        *("test", "COPY . /app # buildkit", "ENV ONE=1", 'CMD ["/bin/sh" "-c" "run"]')
    ]
    assert bench.notes.steps[:2] == [
        ("build", "started", ""),
        ("build", "done", "0 steps, 0 cached; 3 files copied without the builder"),
    ]


def test_a_layer_that_did_not_change_is_not_sent_again(bench: Bench) -> None:
    text = DOCKERFILE.replace("COPY .", "COPY a")
    write(bench.context, {"Dockerfile": text})
    builder = bench.builder()
    first = bench.build(builder)
    write(bench.context, {"Dockerfile": text.replace("RUN make", "RUN make it")})
    before = len(bench.state.requests)
    again = bench.build(builder)
    assert bench.manifest(again)["layers"] == bench.manifest(first)["layers"]
    # The image's config, and no layer.
    uploads = [r for r in bench.state.requests[before:] if r[0] == "POST"]
    assert len(uploads) == 1


def test_a_small_context_is_the_builder_s_as_a_whole(bench: Bench) -> None:
    bench.build(bench.builder(gain=1.0))
    assert bench.given == [DOCKERFILE]
    assert [outcome for _, outcome, _ in bench.notes.steps] == ["started", "done"] * 2


def test_base_layers_that_take_longer_to_read_than_is_saved(bench: Bench) -> None:
    bench.base = (tar(("app", "dir"), ("app/old", bytes(range(256)) * 40)),)
    # Three files save a bit more than a millisecond.
    builder = bench.builder(gain=0.001499)
    bench.build(builder)
    assert bench.given == [LOWER, DOCKERFILE]
    assert ("build", "skipped", "the layers below the COPYs are not known yet") in bench.notes.steps
    bench.build(builder)
    # It is tried again: they may be known by then.
    assert bench.given == [LOWER, DOCKERFILE] * 2


def test_what_the_rules_leave_open_is_tried_once_with_each_recipe(bench: Bench) -> None:
    bench.base = (tar(("app", "dir"), ("app/a", "dir")),)
    builder = bench.builder()
    bench.build(builder)
    assert bench.given == [LOWER, DOCKERFILE]
    assert ("build", "skipped", "/app/a is a dir already") in bench.notes.steps
    bench.build(builder)
    assert bench.given == [LOWER, DOCKERFILE, DOCKERFILE]
    write(bench.context, {"Dockerfile": DOCKERFILE + "USER me\n"})
    bench.build(builder)
    assert len(bench.given) == 5


def test_a_step_that_fails_is_not_run_a_second_time(bench: Bench) -> None:
    builder = bench.builder()
    write(bench.context, {"Dockerfile": "FROM x\nARG N=3\nRUN x\nCOPY . /\n"})
    bench.answers(replay("buildx-run", bench.directory) + "exit 1")
    with pytest.raises(DevloopError) as caught:
        bench.build(builder)
    assert caught.value.code == "build/run-failed"
    assert str(caught.value.diagnosis.location) == "app/Dockerfile:3:1"
    assert len(bench.given) == 1


def test_a_builder_that_does_not_reach_the_registry_makes_the_whole(bench: Bench) -> None:
    builder = bench.builder()
    bench.answers(detour(bench.directory, "docker-container"))
    # The local Docker pushes; what it says is believed where the registry has it.
    with contextlib.suppress(DevloopError):
        bench.build(builder)
    assert bench.given[:2] == [LOWER, DOCKERFILE]


def test_a_file_that_was_written_meanwhile_spoils_the_image(bench: Bench) -> None:
    builder = bench.builder()
    bench.written = frozenset({"a"})
    with pytest.raises(DevloopError) as caught:
        bench.build(builder)
    assert caught.value.code == Code.BUILD_CONTEXT_CHANGED
    assert f"shop/web@{tag_of(bench.scan())}" not in bench.state.manifests
    for _ in range(2):
        with pytest.raises(DevloopError):
            bench.build(builder)
    assert bench.given == [LOWER] * 3
    # Overtaken that often, the builder gets a copy of the whole context.
    bench.written = frozenset()
    bench.build(builder)
    assert bench.given == [LOWER] * 3 + [DOCKERFILE]


def test_a_file_that_is_another_one_by_now_spoils_the_image(bench: Bench) -> None:
    builder = bench.builder()
    scan = bench.scan()
    write(bench.context, {"a": "another"})
    with pytest.raises(DevloopError) as caught:
        builder.build(scan, bench.notes, Cancel())
    assert caught.value.code == Code.BUILD_CONTEXT_CHANGED


def test_a_registry_that_fails_here_is_the_builder_s_to_report(bench: Bench) -> None:
    builder = bench.builder()

    def refuse(handler: Any) -> bool:
        if handler.command == "GET" and "/blobs/" in handler.path:
            handler.answer(500)
            return True
        return False

    bench.state.fault = refuse
    bench.build(builder)
    assert bench.given == [LOWER, DOCKERFILE]
