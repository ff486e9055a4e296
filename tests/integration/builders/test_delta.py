"""DeltaBuilder images against what Docker builds of the same context, on a real registry.

A handful of cases that each show one thing; tests/integration/builders/test_differential.py looks
for the ones nobody thought of.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from devloop.base.cancel import Cancel, Cancelled
from devloop.builders.delta.builder import DeltaBuilder
from devloop.builders.select import make_builder
from devloop.config.builds import Build
from devloop.config.schema import Deploy, Project, Service
from devloop.errors import DevloopError
from devloop.model import PushTarget
from devloop.watch.source import ServiceSource
from tests.unit.builders.kit import Notes, write

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from devloop.builders.needs import NeedsBuilder
    from devloop.model import ImageRef
    from devloop.registry.client import RegistryClient

pytestmark = pytest.mark.docker

# What a container has and its image has not.
_ENGINE = ("dev", "proc", "sys", ".dockerenv", "etc")


def docker(*arguments: str, **environment: str) -> bytes:
    done = subprocess.run(
        ["docker", *arguments],
        capture_output=True,
        timeout=120,
        check=False,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


class Loop:
    """One service for a whole session: edit, build, look."""

    def __init__(
        self, directory: Path, host: str, client: RegistryClient, base: str, builder: Any
    ) -> None:
        self.context = directory / "app"
        self.context.mkdir()
        self.base = base
        self.host = host
        self.client = client
        self.image = f"devloop-test/delta-{uuid.uuid4().hex[:8]}"
        self.notes = Notes()
        self._directory = directory
        self._options: dict[str, Any] = {"builder": builder}
        self._made: DeltaBuilder | NeedsBuilder | None = None

    def dockerfile(self, text: str, **options: Any) -> Loop:
        write(self.context, {"Dockerfile": text.replace("BASE", self.base)})
        self._options |= options
        return self

    def write(self, **files: str) -> Loop:
        write(self.context, {name.replace("__", "/"): text for name, text in files.items()})
        return self

    def start(self) -> None:
        service = Service(
            name="web",
            image=self.image,
            build=Build(
                context=self.context, dockerfile=self.context / "Dockerfile", **self._options
            ),
            deploy=Deploy(workload_name="web"),
        )
        project = Project(
            name="test",
            root=self._directory,
            file=self._directory / "d.yaml",
            services={"web": service},
        )
        self.source = ServiceSource(service, self._directory)
        self._made = make_builder(
            service,
            project,
            PushTarget(push=self.host),
            self.source.written_since,
            registry=self.client,
        )

    def build(self, cancel: Cancel | None = None) -> ImageRef:
        if self._made is None:
            self.start()
        assert self._made is not None
        self.notes = Notes()
        scan = self.source.scan(None, Cancel())
        return self._made.build(scan, self.notes, cancel or Cancel())

    def close(self) -> None:
        if self._made is not None:
            self._made.close()
            self._made = None

    def settle(self) -> None:
        assert self._made is not None
        self._made.settle()

    @property
    def how(self) -> str:
        """What the build step said last."""
        return next(d for s, o, d in reversed(self.notes.steps) if s == "build" and o != "started")

    def reference(self) -> dict[str, tuple[Any, ...]]:
        """The files of what `docker buildx build --no-cache` makes of the context."""
        tag = f"devloop-test/reference:{uuid.uuid4().hex}"
        docker("buildx", "build", "--no-cache", "--provenance=false", "--load", "-t", tag,
               str(self.context))  # fmt: skip
        return _files(tag)

    def files(self, image: ImageRef) -> dict[str, tuple[Any, ...]]:
        name = f"{image.repository}@{image.digest}"
        docker("pull", "-q", name)
        return _files(name)

    def check(self, *, how: str) -> ImageRef:
        """Build, by the way that `how` begins with, and compare with Docker's own."""
        image = self.build()
        assert self.how.startswith(how), self.how
        assert self.files(image) == self.reference()
        return image


def _files(reference: str) -> dict[str, tuple[Any, ...]]:
    """path -> type, mode, uid, gid, content or link target."""
    container = docker("create", reference, "x").decode().strip()
    try:
        data = docker("export", container)
    finally:
        docker("rm", container)
        docker("image", "rm", "-f", reference)
    found: dict[str, tuple[Any, ...]] = {}
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for member in tar.getmembers():
            name = member.name.strip("/")
            if name.partition("/")[0] in _ENGINE:
                continue
            file = tar.extractfile(member) if member.isfile() else None
            content = file.read() if file else os.fsencode(member.linkname)
            found[name] = (member.type, member.mode, member.uid, member.gid, content)
    return found


@pytest.fixture
def make_loop(
    tmp_path: Path,
    registry: str,
    client: RegistryClient,
    base_image: str,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Callable[..., Loop]]:
    monkeypatch.chdir(tmp_path)
    loops: list[Loop] = []

    def make(builder: Any = "buildx") -> Loop:
        directory = tmp_path / str(len(loops))
        directory.mkdir()
        loops.append(Loop(directory, registry, client, base_image, builder))
        return loops[-1]

    yield make
    for loop in loops:
        loop.close()


@pytest.fixture
def loop(make_loop: Callable[..., Loop]) -> Loop:
    """A trailing COPY after a RUN, built once."""
    loop = make_loop()
    loop.dockerfile("FROM BASE\nRUN mkdir -p /srv/app/sub\nWORKDIR /srv/app\nCOPY . .\nCMD x\n")
    loop.write(a="one", sub__b="two", sub__deep__c="three")
    loop.build()
    return loop


def change(loop: Loop) -> None:
    loop.write(a="changed", sub__b="too")


def add(loop: Loop) -> None:
    loop.write(new="n", fresh__directory__file="f")


def chmod(loop: Loop) -> None:
    (loop.context / "a").chmod(0o4711)
    (loop.context / "sub").chmod(0o700)


def link(loop: Loop) -> None:
    (loop.context / "link").symlink_to("../nowhere")


@pytest.mark.parametrize("edit", [change, add, chmod, link])
def test_what_changes_or_comes_is_one_layer_more(loop: Loop, edit: Callable[[Loop], None]) -> None:
    edit(loop)
    loop.check(how="delta: ")


def rename(loop: Loop) -> None:
    (loop.context / "a").rename(loop.context / "z")


def delete(loop: Loop) -> None:
    (loop.context / "sub" / "b").unlink()


def delete_directory(loop: Loop) -> None:
    # The image's own RUN made the directory too: it stays there.
    shutil.rmtree(loop.context / "sub")


def to_directory(loop: Loop) -> None:
    (loop.context / "a").unlink()
    loop.write(a__inside="now a directory")


def to_file(loop: Loop) -> None:
    shutil.rmtree(loop.context / "sub" / "deep")
    loop.write(sub__deep="now a file")


def to_link(loop: Loop) -> None:
    (loop.context / "a").unlink()
    (loop.context / "a").symlink_to("sub/b")


@pytest.mark.parametrize("edit", [rename, delete, delete_directory, to_directory, to_file, to_link])
def test_what_goes_or_becomes_another_thing_makes_the_layer_again(
    loop: Loop, edit: Callable[[Loop], None]
) -> None:
    edit(loop)
    loop.check(how="1 layer made again")


def test_deltas_do_not_pile_up(loop: Loop) -> None:
    made = []
    for number in range(3):
        loop.write(a=f"edit {number}", **{f"new{number}": "x"})
        made.append(loop.build().digest)
        assert loop.how.startswith("delta: ")
    assert len(set(made)) == 3
    manifest = loop.client.get_manifest(loop.image, made[-1])
    assert manifest is not None
    assert manifest.body.count(b'"application/vnd.docker.image.rootfs.diff.tar"') == 1
    delete(loop)
    loop.check(how="1 layer made again")
    change(loop)
    loop.check(how="delta: ")


def test_going_back_is_an_image_of_its_own(loop: Loop) -> None:
    first = loop.build()
    loop.write(a="other")
    second = loop.build()
    loop.write(a="one")
    third = loop.check(how="delta: ")
    assert len({first.digest, second.digest, third.digest}) == 3


def test_a_change_that_nothing_copies_makes_no_image(make_loop: Callable[..., Loop]) -> None:
    loop = make_loop()
    loop.dockerfile("FROM BASE\nCOPY src /src\n").write(src__a="1", README="1")
    first = loop.build()
    loop.write(README="2")
    assert loop.build().digest == first.digest
    assert loop.how == "no COPY takes what changed"


def test_a_run_that_reads_the_change_goes_to_the_builder(make_loop: Callable[..., Loop]) -> None:
    loop = make_loop()
    loop.dockerfile("FROM BASE\nCOPY r /r\nRUN cp /r /made\nCOPY . /app\n").write(r="1", a="1")
    loop.build()
    loop.write(r="2")
    loop.check(how="")
    shown = os.path.relpath(loop.context / "Dockerfile")
    assert f"full build: {shown}:3 RUN reads r" in loop.how
    loop.write(a="2")
    loop.check(how="delta: ")


def test_another_dockerfile_goes_to_the_builder(loop: Loop) -> None:
    loop.dockerfile("FROM BASE\nCOPY . /elsewhere\n")
    loop.check(how="")
    assert "full build: the Dockerfile, its base image or the build's settings changed" in loop.how
    change(loop)
    loop.check(how="delta: ")


COPIES = """FROM BASE AS tools
RUN mkdir /out && echo tool > /out/tool
FROM BASE
RUN echo web:x:1234:1235::/: >> /etc/passwd && echo web:x:1235: >> /etc/group && mkdir -m 1777 /data
WORKDIR /app
COPY --chown=web:web one two* conf/
COPY --from=tools /out /app/bin
COPY --chown=7:8 --chmod=0640 dir /data/dir
COPY --link dir /opt/linked/
COPY dir/x /app/conf/renamed
USER web
WORKDIR /app/work
"""


def test_many_copies(make_loop: Callable[..., Loop]) -> None:
    loop = make_loop()
    loop.dockerfile(COPIES).write(one="1", two="2", two2="22", dir__x="x", dir__y="y")
    loop.check(how="")
    loop.write(one="1.1", dir__x="xx", dir__sub__z="z")
    loop.check(how="delta: ")
    (loop.context / "dir" / "y").unlink()
    loop.check(how="4 layers made again")
    loop.write(two2="222", dir__x="xxx")
    loop.check(how="delta: ")


def test_a_symlink_in_the_base_proves_nothing(make_loop: Callable[..., Loop]) -> None:
    loop = make_loop()
    loop.dockerfile("FROM BASE\nRUN mkdir /real && ln -s /real /app\nCOPY . /app/\n").write(a="1")
    loop.build()
    loop.write(a="2")
    loop.check(how="")
    assert "full build: " in loop.how
    assert "is in no layer as expected" in loop.how


def test_on_an_image_of_the_classic_builder(make_loop: Callable[..., Loop]) -> None:
    loop = make_loop("classic")
    loop.dockerfile("FROM BASE\nWORKDIR /app\nCOPY . .\n").write(a="1", sub__b="2")
    loop.build()
    loop.write(a="2", sub__new="3")
    loop.check(how="delta: ")
    (loop.context / "sub" / "b").unlink()
    loop.check(how="1 layer made again")


def test_on_an_image_of_a_command(make_loop: Callable[..., Loop]) -> None:
    loop = make_loop("command")
    script = "docker build -q -t $DEVLOOP_IMAGE app && docker push -q $DEVLOOP_IMAGE"
    loop.dockerfile("FROM BASE\nCOPY . /app\n", command=("sh", "-c", script)).write(a="1")
    loop.build()
    loop.write(a="2")
    loop.check(how="delta: ")


def test_a_command_that_does_more_is_run_again(make_loop: Callable[..., Loop]) -> None:
    loop = make_loop("command")
    script = "true | cat; docker build -q -t $DEVLOOP_IMAGE app && docker push -q $DEVLOOP_IMAGE"
    loop.dockerfile("FROM BASE\nCOPY . /app\n", command=("sh", "-c", script)).write(a="1")
    loop.build()
    loop.write(a="2")
    loop.check(how="")
    assert "the build command may do more than the Dockerfile says" in loop.how


def test_a_registry_that_lost_the_layers(loop: Loop, client: RegistryClient) -> None:
    # Another repository has nothing of what this one has.
    loop.write(a="2")
    made = loop._made
    assert isinstance(made, DeltaBuilder)
    first = loop.build()
    assert loop.how.startswith("delta: ")
    shortcut = made._known.finding.result(Cancel()) if made._known else None
    assert shortcut is not None
    gone = shortcut.image.layers[0]
    lost = shortcut.image.with_layer(0, shortcut.image.bare("sha256:" + "0" * 64, gone.size))
    shortcut.image = lost
    loop.write(a="3")
    second = loop.check(how="")
    assert "full build: the registry has lost the base layers" in loop.how
    assert first.digest != second.digest
    loop.write(a="4")
    loop.check(how="delta: ")


def test_a_session_goes_on_from_the_image_of_the_last_one(loop: Loop) -> None:
    loop.write(a="2", new="x")
    image = loop.build()
    loop.settle()
    loop.close()
    loop.start()
    assert loop.build().digest == image.digest
    loop.write(sub__b="3")
    second = loop.check(how="delta: ")
    manifest = loop.client.get_manifest(loop.image, second.digest)
    assert manifest is not None
    assert manifest.body.count(b'"application/vnd.docker.image.rootfs.diff.tar"') == 1
    (loop.context / "new").unlink()
    loop.check(how="1 layer made again")


def test_a_big_delta_is_folded_in_a_pause(loop: Loop) -> None:
    loop.write(**{f"many{n}": str(n) for n in range(300)})
    loop.build()
    loop.settle()
    loop.write(a="after")
    loop.check(how="delta: 1 file,")


def test_a_file_that_changed_after_the_scan_is_reported(loop: Loop) -> None:
    loop.write(a="2")
    scan = loop.source.scan(None, Cancel())
    loop.write(a="3")
    assert loop._made is not None
    with pytest.raises(DevloopError) as caught:
        loop._made.build(scan, Notes(), Cancel())
    assert caught.value.code == "build/context-changed"
    loop.check(how="delta: ")


def test_a_cancelled_one_leaves_nothing_behind(loop: Loop) -> None:
    cancel = Cancel()
    cancel.set()
    loop.write(a="2")
    with pytest.raises(Cancelled):
        loop.build(cancel)
    loop.check(how="delta: ")


def test_no_docker_is_needed_for_a_delta(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    loop.write(a="2")
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere.sock")
    loop.build()
    assert loop.how.startswith("delta: ")
