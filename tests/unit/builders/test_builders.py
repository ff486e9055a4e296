"""The builders against a docker CLI that is a script: what is asked of it, and what its answers
become. What real Docker answers is in tests/integration/builders.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from devloop.base import process
from devloop.base.cancel import Cancel, Cancelled
from devloop.builders.buildx import Buildx, arguments
from devloop.builders.built_images import CachedImages, CachingBuilder
from devloop.builders.command import Command
from devloop.builders.job import shown_path, tag_of
from devloop.builders.preflight import preflight
from devloop.builders.select import make_builder
from devloop.config.builds import Build
from devloop.config.schema import Deploy, Project, Service
from devloop.errors import Code, DevloopError
from devloop.model import ImageRef, NodeImages, PushTarget
from tests.support.waiting import Overdue
from tests.unit.builders.kit import FakeRegistry, Notes, job, recorded, scan_of, write

if TYPE_CHECKING:
    from collections.abc import Callable

    from devloop.engine.ports import Reporter
    from devloop.model import Scan

DIGEST = "sha256:" + "9f2c41" + "0" * 58
OTHER = "sha256:" + "1" * 64
KIND = PushTarget(nodes=NodeImages("kind", "dev"), source="nodes")


class FakeDocker:
    """A `docker` on PATH that notes its arguments and runs a piece of shell."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._directory = directory
        self._log = directory / "calls"
        directory.mkdir()
        monkeypatch.setenv("PATH", str(directory), prepend=os.pathsep)
        self.answers("exit 0")

    def answers(self, script: str) -> None:
        program = self._directory / "docker"
        program.write_text(
            f'#!/bin/sh\nfor a; do printf "%s\\n" "$a" >> {self._log}; done\n'
            f"echo ===== >> {self._log}\n"
            'for a; do case "$a" in --metadata-file=*) META="${a#*=}";; esac; done\n' + script
        )
        program.chmod(0o755)

    @property
    def calls(self) -> list[list[str]]:
        text = self._log.read_text() if self._log.exists() else ""
        return [call.strip("\n").split("\n") for call in text.split("=====\n") if call.strip()]


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeDocker:
    return FakeDocker(tmp_path / "fake-bin", monkeypatch)


@pytest.fixture
def context(tmp_path: Path) -> Path:
    return write(tmp_path / "app", {"Dockerfile": "FROM scratch\nCOPY a /\n", "a": "one"})


def built(digest: str = DIGEST) -> str:
    return f"echo '{json.dumps({'containerimage.digest': digest})}' > \"$META\"\n"


def test_the_command_line(context: Path) -> None:
    work = job(
        context,
        build={
            "target": "dev",
            "args": {"A": "1 2", "B": ""},
            "secrets": ("id=pip,src=/p",),
            "ssh": ("default",),
            "platform": "linux/arm64",
        },
    )
    argv = arguments(
        work,
        dockerfile=Path("/t/Dockerfile"),
        context=work.build.context,
        tag="t",
        metadata=Path("/m"),
    )
    assert argv == [
        *("docker", "buildx", "build", "--progress=rawjson", "--metadata-file=/m"),
        *("--provenance=false", "--file=/t/Dockerfile", "--tag=localhost:5001/shop/web:t"),
        *("--push", "--target=dev", "--build-arg=A=1 2", "--build-arg=B="),
        *("--secret=id=pip,src=/p", "--ssh=default", "--platform=linux/arm64"),
        *("--", str(context)),
    ]


def test_the_command_line_of_what_runs_have_and_where_caches_are(context: Path) -> None:
    work = job(
        context,
        build={
            "network": "host",
            "add_host": ("db.test:10.0.0.5",),
            "shm_size": "1g",
            "labels": {"team": "a b"},
            "cache_from": ("type=registry,ref=r:1/c", "r:1/d"),
            "cache_to": ("type=registry,ref=r:1/c,mode=max",),
            "no_cache": True,
        },
    )
    argv = arguments(work, dockerfile=Path("D"), context=context, tag="t", metadata=Path("m"))
    assert argv[argv.index("--push") + 1 :] == [
        *("--network=host", "--add-host=db.test:10.0.0.5", "--shm-size=1g", "--label=team=a b"),
        *("--cache-from=type=registry,ref=r:1/c", "--cache-from=r:1/d"),
        *("--cache-to=type=registry,ref=r:1/c,mode=max", "--no-cache", "--", str(context)),
    ]


def test_pull_is_the_builder_s_to_do_as_well(context: Path) -> None:
    work = replace(job(context), pull=True)
    argv = arguments(work, dockerfile=Path("D"), context=context, tag="t", metadata=Path("m"))
    assert "--pull" in argv


def test_a_full_build_that_is_asked_for_takes_nothing_from_the_cache(
    docker: FakeDocker, context: Path
) -> None:
    scan = scan_of(context)
    builder = Buildx(job(context, registry=FakeRegistry({tag_of(scan): DIGEST})))
    for fresh in (True, False):
        docker.answers(built())
        builder.build(replace(scan, fresh=fresh), Notes(), Cancel())
        assert ("--no-cache" in docker.calls[-1]) is fresh


@pytest.mark.parametrize(
    ("target", "route", "expected"),
    [
        (KIND, "direct", ["--tag=shop/web:t", "--load"]),
        (PushTarget(push="r:1"), "local", ["--tag=r:1/shop/web:t", "--load"]),
        (
            PushTarget(push="r:1", cluster="reg:5000"),
            "cluster",
            ["--output=type=image,name=reg:5000/shop/web:t,push=true,registry.insecure=true"],
        ),
    ],
)
def test_where_the_image_goes(
    context: Path, target: PushTarget, route: Any, expected: list[str]
) -> None:
    argv = arguments(
        job(context, target),
        dockerfile=Path("D"),
        context=context,
        tag="t",
        metadata=Path("m"),
        route=route,
    )
    assert argv[7:-2] == expected


def test_a_good_build(docker: FakeDocker, context: Path) -> None:
    docker.answers(built())
    notes, scan = Notes(), scan_of(context)
    registry = FakeRegistry({tag_of(scan): DIGEST})
    target = PushTarget(push="localhost:5001", pull="registry:5000")
    image = Buildx(job(context, target, registry=registry)).build(scan, notes, Cancel())
    assert image == ImageRef(
        repository="localhost:5001/shop/web",
        tag=f"devloop-{scan.fingerprint.build[:16]}",
        digest=DIGEST,
        pull_repository="registry:5000/shop/web",
    )
    assert image.pinned == f"registry:5000/shop/web@{DIGEST}"
    assert notes.steps == [
        ("build", "started", ""),
        ("build", "done", "0 steps, 0 cached"),
        ("push", "started", ""),
        ("push", "done", "sha256:9f2c41000000…"),
    ]
    assert registry.asked == [("localhost:5001/shop/web", tag_of(scan))]


@pytest.mark.parametrize(
    ("said", "held", "expected"),
    [
        (DIGEST, {}, "registry/digest-mismatch"),
        (DIGEST, {"tag": OTHER}, "registry/digest-mismatch"),
        (DIGEST, {"tag": OTHER, DIGEST: DIGEST}, DIGEST),
        ("", {"tag": OTHER}, OTHER),
        ("", {}, "registry/push-failed"),
    ],
)
def test_the_registry_confirms_the_digest(
    docker: FakeDocker, context: Path, said: str, held: dict[str, str], expected: str
) -> None:
    docker.answers(built(said))
    scan = scan_of(context)
    tags = {tag_of(scan) if key == "tag" else key: value for key, value in held.items()}
    builder = Buildx(job(context, registry=FakeRegistry(tags)))
    if expected.startswith("sha256:"):
        assert builder.build(scan, Notes(), Cancel()).digest == expected
    else:
        with pytest.raises(DevloopError) as caught:
            builder.build(scan, Notes(), Cancel())
        assert caught.value.code == expected


def test_a_registry_that_does_not_answer_here_confirms_nothing(
    docker: FakeDocker, context: Path
) -> None:
    docker.answers(built())
    registry = FakeRegistry(error=DevloopError.of(Code.REGISTRY_UNREACHABLE, "no"))
    builder = Buildx(job(context, registry=registry))
    assert builder.build(scan_of(context), Notes(), Cancel()).digest == DIGEST


def test_a_file_written_meanwhile_spoils_the_image(docker: FakeDocker, context: Path) -> None:
    docker.answers(built())
    work = job(context, written_since=lambda _: None)
    with pytest.raises(DevloopError) as caught:
        Buildx(work).build(scan_of(context), Notes(), Cancel())
    assert caught.value.code == "build/context-changed"


def replay(name: str, directory: Path) -> str:
    file = directory / f"{name}.txt"
    file.write_text("\n".join(recorded(name)) + "\n")
    return f"cat {file} >&2\n"


def slow_step(name: str, minute: int) -> str:
    """A build with one step, which took 3 s and so many minutes."""
    vertex = {
        "digest": name,
        "name": name,
        "started": "2026-11-24T00:00:00Z",
        "completed": f"2026-11-24T00:{minute:02}:03Z",
    }
    return f"echo '{json.dumps({'vertexes': [vertex]})}' >&2\n"


def test_build_cache_reaches_the_builder_and_is_reported_once(
    docker: FakeDocker, context: Path, tmp_path: Path
) -> None:
    write(context, {"Dockerfile": "FROM node\nRUN npm ci\nCOPY a /\n"})
    given = tmp_path / "given"
    docker.answers(
        f'for a; do case "$a" in --file=*) cp "${{a#*=}}" {given};; esac; done\n'
        + slow_step("[2/3] RUN --mount=type=cache,target=/c npm ci", 1)
        + built()
    )
    builder, notes = Buildx(job(context, build={"cache": "auto"})), Notes()
    builder.build(scan_of(context), notes, Cancel())
    builder.build(scan_of(context), notes, Cancel())
    mount = "--mount=type=cache,target=/root/.npm/_cacache"
    assert given.read_text() == f"FROM node\nRUN {mount} npm ci\nCOPY a /\n"
    assert [(d.code, d.message) for d in notes.diagnostics] == [
        ("build/cache-mounts", "build.cache keeps /root/.npm/_cacache")
    ]
    Buildx(job(context)).build(scan_of(context), Notes(), Cancel())
    assert given.read_text() == (context / "Dockerfile").read_text()


def test_a_slow_step_without_a_cache_gets_a_word_once(docker: FakeDocker, context: Path) -> None:
    write(context, {"Dockerfile": "FROM node\n\nRUN npm ci\nRUN npm i x\nRUN make\n"})
    docker.answers(
        slow_step("[2/4] RUN npm ci", 1)
        + slow_step("[3/4] RUN npm i x", 0)
        + slow_step("[4/4] RUN make", 2)
        + built()
    )
    builder, notes = Buildx(job(context)), Notes()
    builder.build(scan_of(context), notes, Cancel())
    builder.build(scan_of(context), notes, Cancel())
    assert [(d.code, d.severity, str(d.location)) for d in notes.diagnostics] == [
        ("build/no-cache-mount", "info", "app/Dockerfile:3:1")
    ]
    assert notes.diagnostics[0].message.endswith("it took 63 s")


def test_a_failed_build(docker: FakeDocker, context: Path, tmp_path: Path) -> None:
    write(context, {"Dockerfile": "FROM busybox-base:dev\nARG N=3\nRUN x\n"})
    docker.answers(replay("buildx-run", tmp_path) + "exit 1")
    notes = Notes()
    with pytest.raises(DevloopError) as caught:
        Buildx(job(context)).build(scan_of(context), notes, Cancel())
    assert caught.value.code == "build/run-failed"
    assert str(caught.value.diagnosis.location) == "app/Dockerfile:3:1"
    assert notes.steps == [("build", "started", "")]


def detour(tmp_path: Path, driver: str) -> str:
    return (
        'case "$*" in\n'
        f'"buildx inspect") echo "Name: x"; echo "Driver: {driver}";;\n'
        f'push*) echo "t: digest: {DIGEST} size: 528";;\n'
        f"*--push*) {replay('buildx-refused', tmp_path)} exit 1;;\n"
        f"*) {built()};;\nesac\n"
    )


def test_an_isolated_builder_gets_its_image_pushed_by_the_local_docker(
    docker: FakeDocker, context: Path, tmp_path: Path
) -> None:
    docker.answers(detour(tmp_path, "docker-container"))
    scan, notes = scan_of(context), Notes()
    builder = Buildx(job(context, registry=FakeRegistry({tag_of(scan): DIGEST})))
    assert builder.build(scan, notes, Cancel()).digest == DIGEST
    assert [d.severity for d in notes.diagnostics] == ["info"]
    assert "come back to the local Docker" in notes.diagnostics[0].message
    assert [call[0] for call in docker.calls] == ["buildx", "buildx", "buildx", "push"]
    assert "--load" in docker.calls[2]
    # Known by now: no second refusal in this session.
    builder.build(scan, notes, Cancel())
    assert len(docker.calls) == 6
    assert len(notes.diagnostics) == 1


def test_a_builder_in_the_cluster_pushes_to_the_name_it_knows(
    docker: FakeDocker, context: Path, tmp_path: Path
) -> None:
    docker.answers(detour(tmp_path, "kubernetes"))
    scan = scan_of(context)
    target = PushTarget(push="localhost:5001", cluster="kind-registry:5000")
    work = job(context, target, registry=FakeRegistry({tag_of(scan): DIGEST}))
    image = Buildx(work).build(scan, Notes(), Cancel())
    assert image.pinned == f"localhost:5001/shop/web@{DIGEST}"
    assert any("kind-registry:5000/shop/web" in argument for argument in docker.calls[-1])


@pytest.mark.parametrize("daemon", [True, False])
def test_a_builder_elsewhere_pushes_by_the_clusters_name_or_through_docker(
    docker: FakeDocker,
    context: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    daemon: bool,
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    refused = replay("buildx-refused", tmp_path)
    docker.answers(
        'case "$*" in\n'
        '"buildx inspect") echo "Name: far"; echo "Driver: remote";;\n'
        f"version*) exit {0 if daemon else 1};;\n"
        f'push*) echo "t: digest: {DIGEST} size: 528";;\n'
        f"*--push*|*push=true*) {refused} exit 1;;\n"
        f"*) {built()};;\nesac\n"
    )
    scan, notes = scan_of(context), Notes()
    target = PushTarget(push="localhost:5001", cluster="kind-registry:5000")
    work = job(context, target, registry=FakeRegistry({tag_of(scan): DIGEST}))
    builder = Buildx(work)
    if daemon:
        assert builder.build(scan, notes, Cancel()).digest == DIGEST
    else:
        with pytest.raises(DevloopError) as caught:
            builder.build(scan, notes, Cancel())
        assert caught.value.code == "registry/unreachable"
        assert "kind-registry:5000, and there is no Docker here to push for it" in str(caught.value)
        assert builder.undisturbed  # the next save tries everything again
    said = ["it pushes to kind-registry:5000 instead", "come back to the local Docker"]
    assert len(notes.diagnostics) == 1 + daemon
    assert all(a in b.message for a, b in zip(said, notes.diagnostics, strict=False))


LOST = "ERROR: failed to receive status: rpc error: code = Unavailable desc = error reading: EOF"
WAITED = (
    '{"vertexes":[{"digest":"a","name":"[internal] waiting for connection","started":"t",'
    '"completed":"t","error":"context deadline exceeded"}]}'
)


@pytest.mark.parametrize("said", [LOST, WAITED])
@pytest.mark.parametrize(
    ("driver", "daemon", "code", "hint"),
    [
        ("remote", False, "env/builder-unreachable", "buildx inspect --bootstrap far"),
        ("kubernetes", False, "env/builder-unreachable", "kubectl get pods -A -l app=far"),
        ("docker-container", True, "env/builder-unreachable", "docker logs buildx_buildkit_far0"),
        ("docker-container", False, "", ""),
        ("docker", True, "", ""),
        ("", False, "", ""),
    ],
)
def test_a_builder_that_is_away_is_named(
    docker: FakeDocker,
    context: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    said: str,
    driver: str,
    daemon: bool,
    code: str,
    hint: str,
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    inspected = f"Name: far\nDriver: {driver}\n\nNodes:\nName: far0\nEndpoint: tcp://10.0.0.1:1"
    docker.answers(
        'case "$*" in\n'
        f'"buildx inspect") echo "{inspected}";;\n'
        f"version*) exit {0 if daemon else 1};;\n"
        f"*) echo '{said}' >&2; exit 1;;\nesac\n"
    )
    with pytest.raises(DevloopError) as caught:
        Buildx(job(context)).build(scan_of(context), Notes(), Cancel())
    found = caught.value.diagnosis
    if not code:
        own = "env/docker-unreachable" if said == LOST else "build/failed"
        assert found.code == own
        return
    assert (found.code, found.code.transient) == (code, True)
    assert found.message == "the buildx builder far does not answer at tcp://10.0.0.1:1"
    assert hint in found.suggestions[0]


@pytest.mark.parametrize("driver", ["docker", ""])
def test_no_detour_for_dockers_own_builder(
    docker: FakeDocker, context: Path, tmp_path: Path, driver: str
) -> None:
    docker.answers(detour(tmp_path, driver))
    with pytest.raises(DevloopError) as caught:
        Buildx(job(context, registry=FakeRegistry())).build(scan_of(context), Notes(), Cancel())
    assert caught.value.code == "registry/unreachable"
    assert "which answers here" in caught.value.diagnosis.message


def test_no_detour_when_the_registry_is_down(
    docker: FakeDocker, context: Path, tmp_path: Path
) -> None:
    docker.answers(detour(tmp_path, "kubernetes"))
    registry = FakeRegistry(error=DevloopError.of(Code.REGISTRY_UNREACHABLE, "no"))
    with pytest.raises(DevloopError):
        Buildx(job(context, registry=registry)).build(scan_of(context), Notes(), Cancel())
    assert len(docker.calls) == 1


def test_a_build_that_takes_too_long_names_its_step(
    docker: FakeDocker, context: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vertex = {"digest": "a", "name": "[2/2] RUN sleep 60", "started": "t"}
    line = json.dumps({"vertexes": [vertex]})
    docker.answers(f"echo '{line}'; : > {tmp_path}/said; exec sleep 60")
    monkeypatch.setattr(process, "time", Overdue((tmp_path / "said").exists))
    with pytest.raises(DevloopError) as caught:
        Buildx(job(context, limit=90.0)).build(scan_of(context), Notes(), Cancel())
    assert caught.value.code == "build/timeout"
    assert "[2/2] RUN sleep 60" in (caught.value.diagnosis.cause or "")


class FakeLoader:
    def __init__(self) -> None:
        self.loaded: list[str] = []

    def load(self, image: str, cancel: Cancel, progress: Callable[[str], None]) -> None:
        self.loaded.append(image)


def test_without_a_registry_the_image_is_loaded(docker: FakeDocker, context: Path) -> None:
    docker.answers(built())
    loader, notes, scan = FakeLoader(), Notes(), scan_of(context)
    image = Buildx(job(context, KIND, loader=loader)).build(scan, notes, Cancel())
    assert (image.digest, image.pinned) == ("", f"shop/web:{tag_of(scan)}")
    assert loader.loaded == [f"shop/web:{tag_of(scan)}"]
    assert notes.steps[-1] == ("push", "done", "loaded into the nodes of dev")


# The command builder.


def command(context: Path, *argv: str, **options: Any) -> Command:
    return Command(job(context, build={"builder": "command", "command": argv}, **options))


def test_a_command_gets_the_name_and_is_believed_by_the_registry_alone(context: Path) -> None:
    scan, notes = scan_of(context), Notes()
    registry = FakeRegistry({tag_of(scan): DIGEST})
    builder = command(
        context, "sh", "-c", 'echo "to $DEVLOOP_IMAGE"; pwd > where', registry=registry
    )
    assert builder.build(scan, notes, Cancel()).digest == DIGEST
    assert notes.messages == [f"to localhost:5001/shop/web:{tag_of(scan)}"]
    assert (context / "where").read_text().strip() == str(context)


def test_a_command_and_the_classic_builder_keep_no_directories(
    context: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan, notes = scan_of(context), Notes()
    build = {"builder": "command", "command": ("true",), "cache": "auto"}
    builder = Command(job(context, build=build, registry=FakeRegistry({tag_of(scan): DIGEST})))
    builder.build(scan, notes, Cancel())
    builder.build(scan, notes, Cancel())
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")
    classic = make(context, "classic", cache=("/c",))
    for _ in range(2):
        with pytest.raises(DevloopError):
            classic.build(scan, notes, Cancel())
    assert [d.message.partition(":")[0] for d in notes.diagnostics] == [
        "build.cache has no effect"
    ] * 2


@pytest.mark.parametrize(
    ("argv", "message", "cause"),
    [
        (("sh", "-c", "echo no; exit 3"), "sh -c echo no; exit 3 exited 3", None),
        (("sh", "-c", "kill -9 $$"), "sh -c kill -9 $$ was ended by signal 9", None),
        (("./missing.sh",), "the build command cannot be run: ./missing.sh", "not installed"),
        (("true",), "did not push localhost:5001/shop/web:devloop-", "ended well"),
    ],
)
def test_a_command_that_fails(
    context: Path, argv: tuple[str, ...], message: str, cause: str | None
) -> None:
    with pytest.raises(DevloopError) as caught:
        command(context, *argv, registry=FakeRegistry()).build(scan_of(context), Notes(), Cancel())
    assert caught.value.code == "build/command-failed"
    assert message in caught.value.diagnosis.message
    assert (cause or "") in (caught.value.diagnosis.cause or "")


def test_a_command_is_cancelled(context: Path) -> None:
    cancel = Cancel()
    threading.Timer(0.2, cancel.set).start()
    with pytest.raises(Cancelled):
        command(context, "sleep", "60").build(scan_of(context), Notes(), cancel)


# memory


class CountingBuilder:
    def __init__(self, digest: str = DIGEST, error: Exception | None = None) -> None:
        self.digest = digest
        self.error = error
        self.builds = 0

    def build(self, scan: Scan, reporter: Reporter, cancel: Cancel) -> ImageRef:
        self.builds += 1
        if self.error is not None:
            raise self.error
        return ImageRef(repository="localhost:5001/shop/web", tag=tag_of(scan), digest=self.digest)


def test_what_was_built_before_is_not_built_again(context: Path, tmp_path: Path) -> None:
    registry, fallback = FakeRegistry({DIGEST: DIGEST}), CountingBuilder()
    images = CachedImages(tmp_path / ".devloop" / "images.json")
    builder = CachingBuilder(job(context, registry=registry), fallback, images)
    scan, notes = scan_of(context), Notes()
    first = builder.build(scan, Notes(), Cancel())
    again = builder.build(scan, notes, Cancel())
    assert fallback.builds == 1
    assert (again.digest, again.tag, again.repository) == (DIGEST, first.tag, first.repository)
    assert notes.steps == [
        ("build", "started", ""),
        ("build", "skipped", "same content as sha256:9f2c41000000…"),
    ]
    builder.build(scan_of(context, salt="other"), Notes(), Cancel())
    assert fallback.builds == 2
    builder.build(replace(scan, fresh=True), Notes(), Cancel())
    assert fallback.builds == 3


def test_memory_is_worth_nothing_without_the_manifest(context: Path, tmp_path: Path) -> None:
    fallback, images = CountingBuilder(), CachedImages(tmp_path / "images.json")
    for registry in (
        FakeRegistry(),
        FakeRegistry(error=DevloopError.of(Code.REGISTRY_UNREACHABLE, "no")),
        FakeRegistry({DIGEST: OTHER}),
    ):
        CachingBuilder(job(context, registry=registry), fallback, images).build(
            scan_of(context), Notes(), Cancel()
        )
    assert fallback.builds == 3


def test_a_spoilt_build_is_not_remembered(context: Path, tmp_path: Path) -> None:
    fallback = CountingBuilder(error=DevloopError.of(Code.BUILD_CONTEXT_CHANGED, "x"))
    images, scan = CachedImages(tmp_path / "images.json"), scan_of(context)
    with pytest.raises(DevloopError):
        CachingBuilder(job(context), fallback, images).build(scan, Notes(), Cancel())
    assert images.find("localhost:5001/shop/web", scan.fingerprint.build) is None
    loaded = CountingBuilder(digest="")
    CachingBuilder(job(context, KIND), loaded, images).build(scan, Notes(), Cancel())
    assert not (tmp_path / "images.json").exists()


def test_the_file_keeps_twenty_of_each_repository_and_survives_damage(tmp_path: Path) -> None:
    path = tmp_path / "images.json"
    images = CachedImages(path)
    images.add("another", "1", DIGEST)
    for number in range(30):
        images.add("r", str(number), DIGEST)
    images.add("r", "10", OTHER)
    assert images.find("r", "9") is None
    assert images.find("r", "10") == OTHER
    assert images.find("another", "1") == DIGEST
    assert len(json.loads(path.read_text())["images"]) == 21
    for damage in ("{", "[]", '{"images": {"r@1": 5, "r@2": "sha256:x"}}', '{"images": []}', ""):
        path.write_text(damage)
        assert images.find("r", "1") is None
        images.add("r", "1", DIGEST)
        assert images.find("r", "1") == DIGEST


def test_a_cache_that_an_earlier_devloop_wrote_is_read(tmp_path: Path) -> None:
    path = tmp_path / "images.json"
    path.write_text(json.dumps({"version": 1, "images": {"r@1": DIGEST}}))
    images = CachedImages(path)
    images.add("r", "2", OTHER)
    assert (images.find("r", "1"), images.find("r", "2")) == (DIGEST, OTHER)


def test_a_disk_that_takes_nothing_costs_only_the_memory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    images = CachedImages(tmp_path / "file" / "images.json")
    images.add("r", "1", DIGEST)
    assert images.find("r", "1") is None
    images = CachedImages(Path("/dev/full/images.json"))
    images.add("r", "1", DIGEST)


def test_services_share_the_file(tmp_path: Path) -> None:
    threads = [
        threading.Thread(
            target=CachedImages(tmp_path / "i.json").add,
            args=("r", str(n), DIGEST),
            name=f"devloop-{n}",
        )
        for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(CachedImages(tmp_path / "i.json").find("r", str(n)) for n in range(8))
    assert [p.name for p in tmp_path.iterdir()] == ["i.json"]


# choice


def service(context: Path, builder: Any = "auto", **build: Any) -> tuple[Service, Project]:
    made = Service(
        name="web",
        image="shop/web",
        build=Build(context=context, dockerfile=context / "Dockerfile", builder=builder, **build),
        deploy=Deploy(workload_name="web"),
    )
    return made, Project(
        name="shop", root=context, file=context / "devloop.yaml", services={"web": made}
    )


def make(context: Path, builder: Any = "auto", **build: Any) -> Any:
    made, project = service(context, builder, **build)
    return make_builder(
        made,
        project,
        PushTarget(push="localhost:5001"),
        lambda _: frozenset(),
        registry=None,
    )


def test_buildx_is_chosen_where_it_works(docker: FakeDocker, context: Path) -> None:
    docker.answers(f'[ "$2" = version ] && echo "x v0.13.1 y" && exit 0\n{built()}')
    notes = Notes()
    builder = make(context)
    assert builder.build(scan_of(context), notes, Cancel()).digest == DIGEST
    assert notes.diagnostics == []
    builder.build(scan_of(context, "2"), Notes(), Cancel())
    assert [call[1] for call in docker.calls] == ["version", "build", "build"]
    assert json.loads((context / ".devloop" / "images.json").read_text())["images"]


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("echo 'docker: unknown command: docker buildx' >&2; exit 1", "plugin is not installed"),
        ("echo github.com/docker/buildx v0.12.1 abc", "0.12.1 is older than 0.13"),
        ("echo buildah 1.33.7", "docker is Podman here"),
    ],
)
def test_without_buildx(
    docker: FakeDocker, context: Path, script: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")
    docker.answers(script)
    notes = Notes()
    with pytest.raises(DevloopError) as caught:
        make(context).build(scan_of(context), notes, Cancel())
    assert caught.value.code == "env/docker-unreachable"
    assert [d.severity for d in notes.diagnostics] == ["info"]
    assert why in (notes.diagnostics[0].cause or "")
    with pytest.raises(DevloopError) as caught:
        make(context, "buildx").build(scan_of(context), Notes(), Cancel())
    assert caught.value.code == "env/tool-missing"
    assert why in (caught.value.diagnosis.cause or "")


@pytest.mark.parametrize(
    ("dockerfile", "build", "what", "line"),
    [
        ("FROM a\nRUN --mount=type=cache,target=/c x\n", {}, "RUN --mount", 2),
        ("FROM a\nCOPY --link a b\n", {}, "COPY --link", 2),
        ("FROM a\n\nRUN <<E\nx\nE\n", {}, "RUN with a heredoc", 3),
        ("FROM a\n", {"secrets": ("id=x",)}, "build.secrets", None),
        ("FROM a\n", {"ssh": ("default",)}, "build.ssh", None),
        ("FROM a\n", {"cache_to": ("r:1/c",)}, "build.cache_to", None),
    ],
)
def test_classic_refuses_what_needs_buildkit(
    context: Path, dockerfile: str, build: dict[str, Any], what: str, line: int | None
) -> None:
    write(context, {"Dockerfile": dockerfile})
    with pytest.raises(DevloopError) as caught:
        make(context, "classic", **build).build(scan_of(context), Notes(), Cancel())
    assert caught.value.code == "build/unsupported"
    assert caught.value.diagnosis.message.startswith(what)
    assert caught.value.diagnosis.location is not None
    assert caught.value.diagnosis.location.line == line


def test_preflight_asks_only_where_docker_is_needed(
    docker: FakeDocker, context: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    preflight([service(context, "command", command=("x",))[0]])
    preflight([service(context)[0]])
    assert docker.calls == [], "a Dockerfile that runs nothing needs no Docker"
    preflight([service(context, "buildx")[0]])
    assert docker.calls == [["version", "--format", "{{.Server.Version}}"]]
    docker.answers("echo 'Cannot connect to the Docker daemon at unix:///x. Is the docker daemon "
                   "running?' >&2; exit 1")  # fmt: skip
    write(context, {"Dockerfile": "FROM scratch\nRUN x\n"})
    with pytest.raises(DevloopError) as caught:
        preflight([service(context)[0]])
    assert caught.value.code == "env/docker-unreachable"


@pytest.mark.parametrize("driver", ["remote", "kubernetes", "docker-container"])
def test_preflight_needs_no_docker_for_a_builder_that_runs_elsewhere(
    docker: FakeDocker, context: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, driver: str
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    monkeypatch.setenv("BUILDX_BUILDER", "far")
    docker.answers(
        "case \"$*\" in 'buildx version') echo v0.20.0;; "
        f"'buildx inspect') echo 'Driver: {driver}';;"
        " *) echo 'Cannot connect to the Docker daemon at unix:///x' >&2; exit 1;; esac"
    )
    write(context, {"Dockerfile": "FROM scratch\nRUN x\n"})
    elsewhere = driver != "docker-container"
    needs = contextlib.nullcontext() if elsewhere else pytest.raises(DevloopError)
    with needs:
        preflight([service(context)[0]])
    # What stays here is loaded into Docker, and the classic builder is Docker's own.
    for pushed, builder in ((False, "auto"), (True, "classic")):
        with pytest.raises(DevloopError) as caught:
            preflight([service(context, builder)[0]], pushed=pushed)
        assert caught.value.code == "env/docker-unreachable"


def test_preflight_does_not_wait_for_ever(
    docker: FakeDocker, context: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A context that only the CLI knows, so that it is the one to be asked.
    monkeypatch.setenv("DOCKER_CONTEXT", "slow")
    monkeypatch.setattr("devloop.builders.preflight._PREFLIGHT", 0.2)
    docker.answers("exec sleep 60")
    with pytest.raises(DevloopError) as caught:
        preflight([service(context, "buildx")[0]])
    assert caught.value.diagnosis.cause == "no answer in time"


def test_paths_are_shown_as_they_would_be_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert shown_path(tmp_path / "a" / "Dockerfile") == "a/Dockerfile"
    assert shown_path(Path("/elsewhere/Dockerfile")) == "/elsewhere/Dockerfile"
