"""The builders against a real Docker and a real registry."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import tarfile
import threading
import time
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from devloop.app.project_paths import NamedContextReads
from devloop.base.cancel import Cancel, Cancelled
from devloop.builders.preflight import preflight
from devloop.builders.select import make_builder
from devloop.config.builds import Build
from devloop.config.schema import Deploy, Project, Service
from devloop.errors import DevloopError, Diagnosis
from devloop.model import ImageRef, PushTarget, Scan
from devloop.watch.source import ServiceSource
from tests.unit.builders.kit import Notes, scan_of, write

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from devloop.engine.ports import Builder
    from devloop.registry.client import RegistryClient

pytestmark = pytest.mark.docker

BUILDERS = ["buildx", "classic"]


class Bench:
    """One project directory and a registry."""

    def __init__(self, directory: Path, registry: str, client: RegistryClient, base: str) -> None:
        self.directory = directory
        self.registry = registry
        self.client = client
        self.base = base
        self.notes = Notes()

    def write(self, **files: str) -> Bench:
        write(self.directory, {name.replace("__", "/"): text for name, text in files.items()})
        return self

    def dockerfile(self, text: str) -> Bench:
        write(self.directory, {"Dockerfile": text.replace("BASE", self.base)})
        return self

    def service(self, builder: Any, **build: Any) -> Service:
        made = {"context": self.directory, "dockerfile": self.directory / "Dockerfile"} | build
        return Service(
            name="web",
            image="devloop-test/web",
            build=Build(builder=builder, **made),
            deploy=Deploy(workload_name="web"),
        )

    def build(
        self,
        builder: Any = "buildx",
        *,
        to: PushTarget | None = None,
        scan: Scan | None = None,
        written: Callable[[Scan], frozenset[str] | None] = lambda _: frozenset(),
        cancel: Cancel | None = None,
        **build: Any,
    ) -> ImageRef:
        made = self.make(self.service(builder, **build), to=to, written=written)
        # The salt keeps one test from finding what another has built.
        scan = scan or scan_of(self.directory, salt=f"{builder} {build} {uuid.uuid4()}")
        return made.build(scan, self.notes, cancel or Cancel())

    def make(
        self,
        service: Service,
        *,
        to: PushTarget | None = None,
        written: Callable[[Scan], frozenset[str] | None] = lambda _: frozenset(),
    ) -> Builder:
        project = Project(
            name="test",
            root=self.directory.parent,
            file=self.directory.parent / "devloop.yaml",
            services={"web": service},
        )
        target = to or PushTarget(push=self.registry)
        return make_builder(
            service,
            project,
            target,
            written,
            registry=self.client if target.push == self.registry else None,
        )

    def fails(self, builder: Any = "buildx", **options: Any) -> Diagnosis:
        with pytest.raises(DevloopError) as caught:
            self.build(builder, **options)
        return caught.value.diagnosis

    def files(self, image: ImageRef, directory: str) -> dict[str, tuple[str, int, bytes]]:
        """What the image has beneath `directory`: path -> type, mode, content or link target."""
        reference = f"{image.repository}@{image.digest}"
        _docker("pull", "-q", reference)
        container = _docker("create", reference, "x").decode().strip()
        try:
            data = _docker("cp", f"{container}:{directory}", "-")
        finally:
            _docker("rm", container)
            _docker("image", "rm", reference)
        found = {}
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            for member in tar.getmembers():
                name = member.name.partition("/")[2]
                file = tar.extractfile(member) if member.isfile() else None
                content = file.read() if file else os.fsencode(member.linkname)
                found[name] = (member.type.decode(), member.mode, content)
        found.pop("", None)
        return found


def _docker(*arguments: str) -> bytes:
    return subprocess.run(
        ["docker", *arguments], capture_output=True, timeout=60, check=True
    ).stdout


@pytest.fixture
def bench(
    tmp_path: Path,
    registry: str,
    client: RegistryClient,
    base_image: str,
    monkeypatch: pytest.MonkeyPatch,
) -> Bench:
    directory = tmp_path / "app"
    directory.mkdir()
    monkeypatch.chdir(tmp_path)
    return Bench(directory, registry, client, base_image)


@pytest.mark.parametrize("builder", BUILDERS)
def test_an_image_is_built_pushed_and_known_by_digest(bench: Bench, builder: str) -> None:
    bench.write(a=str(uuid.uuid4())).dockerfile("FROM BASE\nRUN echo hi\nCOPY a /a\n")
    image = bench.build(builder)
    assert image.digest.startswith("sha256:")
    assert bench.client.digest(image.repository, image.tag) == image.digest
    assert image.pinned == f"{bench.registry}/devloop-test/web@{image.digest}"
    steps = bench.notes.steps
    assert [(step, what) for step, what, _ in steps] == [
        ("build", "started"),
        ("build", "done"),
        ("push", "started"),
        ("push", "done"),
    ]
    assert steps[1][2].startswith("3 steps, ")
    assert steps[3][2] == f"{image.digest[:19]}…"
    assert any("COPY a /a" in message for message in bench.notes.messages)


def test_the_manifest_is_no_index(bench: Bench) -> None:
    """With an attestation the image would be an index and its digest new each time."""
    image = bench.write(a="one").dockerfile("FROM scratch\nCOPY a /a\n").build()
    manifest = bench.client.get_manifest("devloop-test/web", image.digest)
    assert manifest is not None
    assert "layers" in json.loads(manifest.body)


@pytest.mark.parametrize("builder", BUILDERS)
def test_args_and_target(bench: Bench, builder: str) -> None:
    bench.dockerfile(
        'FROM BASE AS dev\nARG NAME=none\nRUN mkdir /out && echo "$NAME" > /out/name\n'
        "FROM dev AS prod\nRUN exit 9\n"
    )
    image = bench.build(builder, args={"NAME": "a b"}, target="dev")
    assert bench.files(image, "/out")["name"][2] == b"a b\n"


def test_secrets_do_not_stay_in_the_image(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("s3cret")
    bench.dockerfile(
        "FROM BASE\nRUN --mount=type=secret,id=t mkdir /out && wc -c < /run/secrets/t > /out/n\n"
    )
    image = bench.build(secrets=(f"id=t,src={tmp_path / 'token'}",))
    assert bench.files(image, "/out")["n"][2].strip() == b"6"


def test_a_missing_secret_is_reported(bench: Bench) -> None:
    bench.dockerfile("FROM scratch\n")
    found = bench.fails(secrets=("id=t,src=/nonexistent/token",))
    assert "/nonexistent/token" in found.message


COMPILER = """\
#!/bin/sh
# Compiles $1 to $2, and keeps what it made.
kept=/root/.cache/x/$(md5sum < "$1" | cut -c 1-32)
mkdir -p /root/.cache/x
[ -e "$kept" ] && echo kept > "$2" && exit
cat /proc/sys/kernel/random/uuid > "$kept" && echo compiled > "$2"
"""


@pytest.mark.parametrize("cache", [(), ("/root/.cache/x",)], ids=["off", "on"])
def test_a_compiler_finds_its_cache_again(bench: Bench, cache: tuple[str, ...]) -> None:
    source = f"{uuid.uuid4()}"  # nobody has compiled it before
    bench.write(compiler=COMPILER, source=source, other="one").dockerfile(
        "FROM BASE AS build\nCOPY . /src\n"
        "RUN true \\\n  && sh /src/compiler /src/source /out && true\n"
        "FROM BASE\nCOPY --from=build /out /made/\n"
    )
    first = bench.files(bench.build(cache=cache), "/made")
    bench.write(other="two")
    second = bench.files(bench.build(cache=cache), "/made")
    assert first["out"][2] == b"compiled\n"
    assert second["out"][2] == (b"kept\n" if cache else b"compiled\n")
    codes = [diagnosis.code for diagnosis in bench.notes.diagnostics]
    assert codes == ["build/cache-mounts"] * (2 if cache else 0)


def test_what_is_kept_is_not_in_the_image_and_errors_keep_their_line(bench: Bench) -> None:
    bench.dockerfile("FROM BASE\nRUN mkdir -p /kept/x && date > /kept/x/a\n\nRUN ls /kept/x/b\n")
    found = bench.fails(cache=("/kept/x",))
    assert (found.code, str(found.location)) == ("build/run-failed", "app/Dockerfile:4:1")
    bench.dockerfile("FROM BASE\nRUN mkdir -p /kept/x && date > /kept/x/a && date > /kept/b\n")
    image = bench.build(cache=("/kept/x",))
    # Older BuildKits leave the mount point.
    assert bench.files(image, "/kept").keys() - {"x"} == {"b"}


def odd_tree(bench: Bench) -> None:
    long = "x" * 90 + "/" + "y" * 120
    names = [
        "plain",
        "-rf",
        "a b;c",
        "new\nline",
        "ünï",
        "q'\"$x",
        long,
        "*.txt",
        "[a]",
        "sub/deep/f",
    ]
    write(bench.directory, {f"src/{name}": name for name in names})
    (bench.directory / "src" / "tool").write_text("#!/bin/sh\n")
    (bench.directory / "src" / "tool").chmod(0o755)
    (bench.directory / "src" / "private").write_text("x")
    (bench.directory / "src" / "private").chmod(0o600)
    (bench.directory / "src" / "empty").mkdir()
    (bench.directory / "src" / "link").symlink_to("sub/deep/f")
    (bench.directory / "src" / "dangling").symlink_to("/no/where")


def test_both_builders_make_the_same_files(bench: Bench) -> None:
    odd_tree(bench)
    bench.dockerfile("FROM BASE\nCOPY . /app\n")
    by_buildx = bench.files(bench.build("buildx"), "/app")
    by_classic = bench.files(bench.build("classic"), "/app")
    assert by_buildx == by_classic
    source = bench.directory / "src"
    assert {name for name in by_buildx if name.startswith("src/")} == {
        f"src/{path.relative_to(source)}" for path in source.rglob("*")
    }


def test_named_contexts_are_those_of_the_builder(bench: Bench, tmp_path: Path) -> None:
    """Over an image's name and over a stage's, a directory by its own ignore file, and a save in it
    is another image."""
    shared = write(
        tmp_path / "shared",
        {"a.txt": "one", "b.log": "", ".git/HEAD": "main", "x~": "", ".dockerignore": "*.log\n"},
    )
    bench.write(**{"a.txt": "mine", ".dockerignore": "*.txt\n"}).dockerfile(
        "FROM alpine:none AS late\nRUN mkdir /out\nCOPY --from=shared . /out/\n"
        "FROM nothing.test/x AS stage\nFROM late\nCOPY --from=stage a.txt /out/stage.txt\n"
    )
    contexts = {
        "shared": str(shared), "alpine:none": f"docker-image://{bench.base}", "stage": str(shared)
    }  # fmt: skip
    service = bench.service("buildx", contexts=contexts)
    source = ServiceSource(
        service, tmp_path, reads_of=lambda name: NamedContextReads(service.build, name)
    )
    builder = bench.make(service, written=source.written_since)

    def build() -> dict[str, bytes]:
        image = builder.build(source.scan(None, Cancel()), bench.notes, Cancel())
        return {name: found[2] for name, found in bench.files(image, "/out").items()}

    first = {".git": b"", ".git/HEAD": b"main", ".dockerignore": b"*.log\n", "x~": b""}
    assert build() == {**first, "a.txt": b"one", "stage.txt": b"one"}
    (shared / "a.txt").write_text("two")
    assert build() == {**first, "a.txt": b"two", "stage.txt": b"two"}


@pytest.mark.parametrize("builder", BUILDERS)
def test_a_name_that_is_no_text(bench: Bench, builder: str) -> None:
    (bench.directory / "src").mkdir()
    try:
        (bench.directory / os.fsdecode(b"src/\xff")).write_text("x")
    except OSError:
        pytest.skip("this file system takes text alone")
    bench.dockerfile("FROM BASE\nCOPY src /app\n")
    assert bench.files(bench.build(builder), "/app")[os.fsdecode(b"\xff")][2] == b"x"


def test_what_the_scan_leaves_out_is_not_in_the_image(bench: Bench) -> None:
    """Also with a user's ignore file, and beside the pattern of the config."""
    bench.write(
        **{".git__HEAD": "x", ".devloop__s": "x", "sub__.git": "x", "notes.md": "x"},
        **{".dockerignore": "*.log\nDockerfile\n", "a.log": "x", "a.py": "x", ".a.py.swp": "x"},
        **{"a.py~": "x", "sub__b.py": "x"},
    ).dockerfile("FROM BASE\nCOPY . /app\n")
    image = bench.build(ignore=("*.md",))
    assert sorted(bench.files(image, "/app")) == [
        *(".a.py.swp", ".dockerignore", "a.py", "a.py~", "sub", "sub/b.py")
    ]
    bench.write(**{".dockerignore": "!.git\n"})
    assert ".git/HEAD" in bench.files(bench.build(ignore=("*.md",)), "/app")


def test_a_dockerfile_outside_of_the_context(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    elsewhere = tmp_path / "other" / "my.Dockerfile"
    elsewhere.write_text(f"FROM {bench.base}\nCOPY . /app\n")
    bench.write(a="one", **{".dockerignore": "b\n"})
    for builder in BUILDERS:
        image = bench.build(builder, dockerfile=elsewhere)
        assert bench.files(image, "/app")["a"][2] == b"one"
    elsewhere.write_text(f"FROM {bench.base}\nRUN exit 1\n")
    assert str(bench.fails(dockerfile=elsewhere).location) == "other/my.Dockerfile:2:1"


@pytest.mark.parametrize("builder", BUILDERS)
@pytest.mark.parametrize(
    ("dockerfile", "code", "message", "line"),
    [
        ("FROM BASE\n\nRUN echo no >&2; \\\n  exit 3\n", "build/run-failed", "RUN exited 3: ", 3),
        ("FROM BASE\nCOPY rqe.txt /\n", "build/copy-missing", "COPY rqe.txt: no such path", 2),
        ("FROM BASE\nCPOY a /\n", "build/dockerfile-parse", "unknown instruction: CPOY", 2),
        ("# empty\n", "build/dockerfile-parse", "", 1),
        ("FROM localhost:1/no/such:1\nRUN x\n", "build/base-pull-failed", "cannot pull local", 1),
    ],
)
def test_errors_have_a_place(
    bench: Bench, builder: str, dockerfile: str, code: str, message: str, line: int
) -> None:
    found = bench.write(**{"req.txt": ""}).dockerfile(dockerfile).fails(builder)
    assert found.code == code
    assert message in found.message
    assert str(found.location) == f"app/Dockerfile:{line}:1"
    if code == "build/run-failed":
        assert found.detail == ("no",)
    if code == "build/copy-missing":
        assert found.suggestions == ('did you mean "req.txt"?',)


@pytest.mark.parametrize("builder", BUILDERS)
def test_a_registry_that_is_down(bench: Bench, builder: str) -> None:
    bench.write(a="one").dockerfile("FROM scratch\nCOPY a /\n")
    found = bench.fails(builder, to=PushTarget(push="localhost:1"))
    assert found.code == "registry/unreachable"
    assert "localhost:1" in found.message
    assert "connection refused" in (found.cause or "")


def _runs(marker: str) -> bool:
    done = subprocess.run(["ps", "-A", "-o", "args="], capture_output=True, text=True, check=True)
    return any(line.strip().startswith(f"sleep {marker}") for line in done.stdout.splitlines())


@pytest.mark.parametrize("builder", BUILDERS)
def test_a_cancelled_build_stops_in_the_daemon_too(bench: Bench, builder: str) -> None:
    marker = f"60.{uuid.uuid4().int % 10**8:08d}"
    bench.dockerfile(f"FROM BASE\nRUN sleep {marker}\n")
    cancel = Cancel()
    seen: list[bool] = []

    def watch() -> None:
        deadline = time.monotonic() + 20
        while not any(marker in message for message in bench.notes.messages):
            if time.monotonic() > deadline:
                break
            time.sleep(0.02)
        time.sleep(0.5)
        seen.append(_runs(marker))
        cancel.set()

    thread = threading.Thread(target=watch, name="devloop-test-cancel")
    thread.start()
    with pytest.raises(Cancelled):
        bench.build(builder, cancel=cancel)
    thread.join()
    if not seen[0]:
        pytest.skip("the daemon's processes cannot be seen from here")
    deadline = time.monotonic() + 3
    while _runs(marker) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _runs(marker)


@pytest.mark.parametrize("builder", BUILDERS)
def test_a_file_written_during_the_build(bench: Bench, builder: str) -> None:
    bench.write(a="one").dockerfile("FROM scratch\nCOPY a /\n")
    found = bench.fails(builder, written=lambda _: None)
    assert found.code == "build/context-changed"
    assert not (bench.directory.parent / ".devloop" / "images.json").exists()


def test_a_file_that_keeps_changing_is_built_as_it_was_scanned(bench: Bench) -> None:
    bench.write(noisy="0", dir__kept="kept").dockerfile(
        "FROM BASE\nCOPY . /app\nRUN sleep 1\nRUN cat /app/noisy\n"
    )
    (bench.directory / "dir" / "link").symlink_to("kept")
    (bench.directory / "dir" / "kept").chmod(0o750)
    service = bench.service("buildx")
    builder = bench.make(
        service,
        written=lambda scan: scan_of(bench.directory).snapshot.changed_since(scan.snapshot),
    )
    stop = threading.Event()

    def write_all_the_time() -> None:
        count = 0
        while not stop.wait(0.2):
            count += 1
            bench.write(noisy=str(count))

    writer = threading.Thread(target=write_all_the_time, name="devloop-test-writer")
    writer.start()
    try:
        for _ in range(3):
            with pytest.raises(DevloopError) as caught:
                builder.build(
                    scan_of(bench.directory, salt=uuid.uuid4().hex), bench.notes, Cancel()
                )
            assert caught.value.code == "build/context-changed"
        for _ in range(20):  # the copy may meet a write; then the next one is tried
            scan = scan_of(bench.directory, salt=uuid.uuid4().hex)
            content = (bench.directory / "noisy").read_bytes()
            with contextlib.suppress(DevloopError):
                image = builder.build(scan, bench.notes, Cancel())
                break
        else:
            pytest.fail("no build came through")
    finally:
        stop.set()
        writer.join()
    files = bench.files(image, "/app")
    assert files["noisy"][2] == content
    assert files["dir/kept"][1:] == (0o750, b"kept")
    assert files["dir/link"][2] == b"kept"


def test_a_file_written_before_the_classic_build_began(bench: Bench) -> None:
    bench.write(a="one").dockerfile("FROM scratch\nCOPY a /\n")
    scan = scan_of(bench.directory)
    bench.write(a="two")
    assert bench.fails("classic", scan=scan).code == "build/context-changed"


def test_going_back_needs_no_build(bench: Bench) -> None:
    bench.write(a="one").dockerfile("FROM scratch\nCOPY a /\n")
    scan = scan_of(bench.directory, salt=str(uuid.uuid4()))
    first = bench.build(scan=scan)
    bench.notes = Notes()
    assert bench.build(scan=scan) == first
    assert [(step, what) for step, what, _ in bench.notes.steps] == [
        ("build", "started"),
        ("build", "skipped"),
    ]


def test_a_command_that_builds_and_pushes(bench: Bench) -> None:
    bench.write(a="one").dockerfile("FROM scratch\nCOPY a /\n")
    script = 'docker build -q -t "$DEVLOOP_IMAGE" app && docker push -q "$DEVLOOP_IMAGE"'
    image = bench.build("command", command=("sh", "-c", script))
    assert bench.client.digest(image.repository, image.tag) == image.digest
    found = bench.fails("command", command=("sh", "-c", 'docker build -q -t "$DEVLOOP_IMAGE" app'))
    assert found.code == "build/command-failed"
    assert "did not push" in found.message


@pytest.mark.parametrize("builder", BUILDERS)
@pytest.mark.parametrize(
    ("host", "cause"),
    [
        ("unix:///nonexistent/docker.sock", "does not exist"),
        ("tcp://127.0.0.1:1", "no daemon listens there"),
    ],
)
def test_a_docker_host_that_leads_nowhere(
    bench: Bench, builder: str, host: str, cause: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.dockerfile("FROM scratch\n")
    monkeypatch.setenv("DOCKER_HOST", host)
    found = bench.fails(builder)
    assert found.code == "env/docker-unreachable"
    assert cause in (found.cause or "")
    with pytest.raises(DevloopError) as caught:
        preflight([bench.service(builder)])
    assert caught.value.code == "env/docker-unreachable"
    assert caught.value.diagnosis.message == f"Docker does not answer at {host}"
    assert f"DOCKER_HOST is set to {host}" in caught.value.diagnosis.suggestions[-1]


@pytest.mark.parametrize("builder", BUILDERS)
def test_docker_contexts_work_as_for_the_docker_cli(
    bench: Bench, builder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.write(a="one").dockerfile("FROM scratch\nCOPY a /\n")
    host = _docker("context", "inspect", "--format", "{{.Endpoints.docker.Host}}").decode().strip()
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker-config"))
    _docker("context", "create", "good", "--docker", f"host={host}")
    _docker("context", "create", "bad", "--docker", "host=unix:///nonexistent/d.sock")
    _docker("context", "use", "bad")
    found = bench.fails(builder)
    assert found.code == "env/docker-unreachable"
    assert "/nonexistent/d.sock" in (found.cause or "")
    monkeypatch.setenv("DOCKER_CONTEXT", "good")
    assert bench.build(builder).digest
    monkeypatch.setenv("DOCKER_CONTEXT", "missing")
    found = bench.fails(builder)
    assert found.code == "env/docker-unreachable"
    assert 'the Docker context "missing" does not exist' in (found.cause or "")


def test_preflight_finds_docker_where_it_is_there(bench: Bench) -> None:
    preflight([bench.service("auto")])
