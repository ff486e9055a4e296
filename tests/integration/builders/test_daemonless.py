"""Images made without Docker, against what docker buildx makes of the same files."""

from __future__ import annotations

import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from devloop.base.cancel import Cancel
from devloop.builders.buildx import Buildx
from devloop.builders.daemonless.builder import DaemonlessBuilder
from devloop.builders.image.base_image import DockerImages
from devloop.builders.image.full_build import NeedsFullBuild
from devloop.builders.preflight import preflight
from devloop.builders.select import make_builder
from devloop.config.builds import Build
from devloop.config.schema import Deploy, Project, Service
from devloop.errors import DevloopError
from devloop.model import PushTarget
from devloop.registry.client import Registries
from tests.integration.builders.conftest import docker
from tests.support.differential.compare import differences
from tests.support.differential.images import Image, Reader
from tests.unit.builders.kit import Notes, job, scan_of, write

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devloop.engine.ports import Builder
    from devloop.registry.client import RegistryClient

pytestmark = pytest.mark.docker

BUILD = ("docker", "buildx", "build", "--provenance=false", "--push")


@dataclass
class Bench:
    """A context, one registry and both ways to an image."""

    context: Path
    client: RegistryClient
    cache: Path
    registries: Registries
    base: str = ""
    notes: Notes = field(default_factory=Notes)

    def dockerfile(self, text: str) -> Bench:
        write(self.context, {"Dockerfile": text.replace("BASE", self.base)})
        return self

    def full(self, **build: Any) -> DaemonlessBuilder:
        made = job(
            self.context,
            PushTarget(push=self.client.host),
            image="devloop-test/daemonless",
            build=build,
        )
        return DaemonlessBuilder(made, Buildx(made), self.registries, DockerImages(), self.cache)

    def session(self) -> tuple[Builder, Service]:
        """The builder that a session would use, and its service."""
        build = Build(context=self.context, dockerfile=self.context / "Dockerfile")
        service = Service(
            name="web",
            image="devloop-test/daemonless",
            build=build,
            deploy=Deploy(workload_name="web"),
        )
        root = self.context.parent
        project = Project(
            name="test", root=root, file=root / "devloop.yaml", services={"web": service}
        )
        builder = make_builder(
            service,
            project,
            PushTarget(push=self.client.host),
            lambda _: frozenset(),
            registry=self.client,
            open_registry=self.registries,
        )
        return builder, service

    def ours(self, full: DaemonlessBuilder | None = None, **build: Any) -> Image:
        builder = full or self.full(**build)
        image = builder.build_without_docker(scan_of(self.context), self.notes, Cancel())
        assert self.client.digest(image.repository, image.tag) == image.digest
        return Reader(self.client).read(image.repository, image.digest)

    def theirs(self, *arguments: str) -> Image:
        name = f"{self.client.host}/devloop-test/reference:x"
        done = subprocess.run(
            [*BUILD, "--no-cache", "--tag", name, *arguments, str(self.context)],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return Reader(self.client).read(*name.rsplit(":", 1))

    def compare(self, *arguments: str, **build: Any) -> None:
        assert differences(self.theirs(*arguments), self.ours(**build)) == ()


@pytest.fixture
def bench(tmp_path: Path, client: RegistryClient) -> Iterator[Bench]:
    files = {
        "index.html": "<html>",
        "static/a.css": "a",
        "static/deep/b.css": "b",
        "server.py": "print()",
        "etc/passwd": "root:x:0:0::/:\napp:x:1234:1235::/:\n",
        "etc/group": "root:x:0:\nstaff:x:77:\n",
    }
    context = write(tmp_path / "context", files)
    (context / "server.py").chmod(0o755)
    (context / "static" / "link").symlink_to("a.css")
    with Registries(client) as registries:
        yield Bench(context=context, client=client, cache=tmp_path / "cache", registries=registries)


@pytest.fixture(scope="session")
def pushed_base(base_image: str, registry: str) -> str:
    """The base image under a name in the test's registry, with some names and symlinks in it."""
    name = f"{registry}/devloop-test/base:1"
    text = (
        f"FROM {base_image}\nCOPY etc /etc\nCOPY links /\nWORKDIR /srv/here\n"
        'ENV FROM_BASE=yes\nCMD ["old"]\nLABEL base=1\nEXPOSE 1\n'
    )
    return _push(text, name)


def _push(text: str, name: str) -> str:
    with tempfile.TemporaryDirectory() as directory:
        files = {
            "etc/passwd": "root:x:0:0::/:\napp:x:1234:1235::/:\n",
            "etc/group": "root:x:0:\nstaff:x:77:\n",
            "links/real/kept": "k",
            "Dockerfile": text,
        }
        write(Path(directory), files)
        for link, to in (("app", "real"), ("up", "../../srv"), ("file", "real/kept")):
            (Path(directory) / "links" / link).symlink_to(to)
        (Path(directory) / "links" / "real").chmod(0o700)
        docker(*BUILD[1:], "--tag", name, directory)
    return name


SCRATCH = {
    "static files": "FROM scratch\nCOPY . /www\n",
    "config": """
FROM scratch
ARG VERSION=1
ENV A=1 B="x $VERSION"
LABEL a=b "c d"='e'
COPY server.py /bin/
WORKDIR /work/here
EXPOSE 80 90-91/udp
VOLUME /data
STOPSIGNAL SIGINT
HEALTHCHECK --interval=5s --retries=2 CMD test -f /x
USER 7:8
WORKDIR deeper/still
ENTRYPOINT ["/bin/server.py"]
CMD ["--port", "80"]
""",
    "shell forms": """
FROM scratch
SHELL ["/bin/dash", "-ec"]
CMD echo $HOME "a b"
ENTRYPOINT run
ONBUILD COPY . /x
MAINTAINER somebody
COPY static/ /s
""",
    "names in the image": """
FROM scratch
COPY etc/ /etc/
COPY --chown=app:staff server.py /srv/
COPY --chown=app static /srv/static/
USER app
WORKDIR /home/app/x
""",
    "stages": """
ARG FROM_WHICH=first
FROM scratch AS first
ENV A=1
CMD ["x"]
COPY --chown=5:6 static /out/static
FROM scratch AS other
COPY etc /e
FROM ${FROM_WHICH}
COPY --from=first /out/static /static
COPY --from=1 --chown=9 /e/passwd /e/group /etc/
ENTRYPOINT ["y"]
""",
    "checks and ports": """
FROM scratch
ENV PORT=8080 PATH=/only
EXPOSE $PORT 8080 9000-9002/tcp
HEALTHCHECK --start-period=1m30s --start-interval=0.5s --timeout=3s CMD ["/x", "$PORT"]
VOLUME ["/a b", "/c"]
COPY ["index.html", "/with space/"]
""",
    "no check and variables": """
FROM scratch
ARG NAME=app
ARG DIR=/opt/${NAME}
ENV HERE=$DIR \\
    # a comment in between
    QUOTED='$DIR "x"' ESCAPED="\\$DIR"
HEALTHCHECK NONE
WORKDIR $HERE/${MISSING:-default}
LABEL a="$HERE" b=${NAME:+set}
COPY ./static .
USER ${NAME}
""",
    "arguments of the stage below": """
FROM scratch AS one
ARG KEPT=kept
ARG HIDDEN=no
ENV HIDDEN=hidden
COPY index.html /a
FROM one
COPY index.html /x/$KEPT/
COPY index.html /y/$HIDDEN/
""",
    "same paths again": """
FROM scratch
COPY static /s
COPY --chmod=640 server.py /s/a.css
WORKDIR /s/deep/new
COPY index.html .
ADD static/deep ../deep
""",
}


@pytest.mark.parametrize("case", SCRATCH)
def test_from_scratch(bench: Bench, case: str) -> None:
    bench.dockerfile(SCRATCH[case]).compare()


BASED = {
    "interpreter": """
FROM BASE
ENV PORT=80
COPY server.py static/ ./
COPY --chown=app:staff static /app/static
USER app
WORKDIR relative
ENTRYPOINT ["python3", "server.py"]
""",
    "symlinks on the way": """
FROM BASE
COPY server.py /app/
COPY static /up/here/x
COPY index.html /file
COPY --chown=app etc /app
WORKDIR /app/made
""",
    "the base as it is": "FROM BASE\n",
    "owners by name": """
FROM BASE
USER app:staff
WORKDIR /srv/mine/deep
COPY --chown=root:staff static /srv/mine
USER 99
WORKDIR /app/by-number
COPY server.py /srv
COPY static /app
WORKDIR /app
""",
    "linked": """
FROM BASE
COPY --link etc/group /etc/group
COPY --link --chown=3:4 static /new/static
""",
    "files of a stage with a base": """
FROM BASE AS build
WORKDIR /src
COPY . .
FROM BASE
COPY --from=build /src/static /static
CMD ["new"]
""",
}


@pytest.mark.parametrize("case", BASED)
def test_from_an_image(bench: Bench, pushed_base: str, case: str) -> None:
    bench.base = pushed_base
    bench.dockerfile(BASED[case]).compare()


def test_arguments_target_and_platform(bench: Bench) -> None:
    bench.dockerfile(
        "ARG X=1\nFROM scratch AS one\nARG X\nARG TARGETARCH\nLABEL x=$X arch=$TARGETARCH\n"
        "COPY index.html /\nFROM one\nCOPY etc /\n"
    )
    bench.compare("--build-arg=X=2", "--target=one", args={"X": "2"}, target="one")


def test_a_second_build_makes_and_sends_what_changed(bench: Bench, pushed_base: str) -> None:
    bench.base = pushed_base
    bench.dockerfile("FROM BASE\nCOPY static /static\nCOPY server.py /\n")
    full = bench.full()
    first = bench.ours(full)
    write(bench.context, {"server.py": "changed"})
    second = bench.ours(full)
    assert [detail for _, outcome, detail in bench.notes.steps if outcome == "done"][::2] == [
        "2 layers without a builder, 2 new",
        "2 layers without a builder, 1 new",
    ]
    assert first.digest != second.digest
    assert differences(bench.theirs(), second) == ()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("FROM scratch\nLABEL only=this\n", "the image has no layer"),
        ("FROM BASE\nRUN true\n", "app/Dockerfile:2 RUN"),
        ("FROM localhost:1/nowhere:1\nCOPY . /\n", "localhost:1/nowhere:1 cannot be fetched"),
        ("FROM scratch\nCOPY --from=BASE /bin /bin\n", "line 2: COPY --from="),
        ("FROM BASE AS a\nFROM scratch\nCOPY --from=a /etc /etc\n", "/etc may be in the base"),
        ("FROM BASE\nCOPY --chown=nobody-here . /x\n", "/etc/passwd has no nobody-here"),
        ("FROM BASE\nCOPY index.html /real/kept/x\n", "/real/kept is"),
        ("# syntax=example.com/mine\nFROM scratch\n", "app/Dockerfile has a syntax of its own"),
    ],
)
def test_what_the_builder_has_to_do(bench: Bench, pushed_base: str, text: str, reason: str) -> None:
    bench.base = pushed_base
    with pytest.raises(NeedsFullBuild) as caught:
        bench.dockerfile(text).ours()
    assert reason in caught.value.reason
    assert bench.notes.steps in (
        [],
        [("build", "started", ""), ("build", "skipped", caught.value.reason)],
    )


def test_an_image_that_only_docker_has(bench: Bench, base_image: str) -> None:
    bench.base = base_image
    with pytest.raises(NeedsFullBuild, match="is known to Docker, and not in localhost"):
        bench.dockerfile("FROM BASE\nCOPY . /x\n").ours()


def test_a_machine_without_docker(
    bench: Bench, pushed_base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.base = pushed_base
    bench.dockerfile('FROM BASE\nCOPY --chown=app static /app/\nCMD ["x"]\n')
    wanted = bench.theirs()
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nowhere.sock")
    monkeypatch.setenv("XDG_CACHE_HOME", str(bench.cache))
    builder, service = bench.session()
    preflight([service])
    image = builder.build(scan_of(bench.context), bench.notes, Cancel())
    assert differences(wanted, Reader(bench.client).read(image.repository, image.digest)) == ()
    bench.dockerfile("FROM BASE\nRUN true\n")
    with pytest.raises(DevloopError) as caught:
        preflight([service])
    assert caught.value.code == "env/docker-unreachable"
    with pytest.raises(DevloopError) as caught:
        builder.build(scan_of(bench.context), bench.notes, Cancel())
    assert caught.value.code == "env/docker-unreachable"
    assert "it is needed here: " in (caught.value.diagnosis.cause or "")


def test_a_session_with_docker(bench: Bench, pushed_base: str) -> None:
    """What can be made without it is, what cannot is built by it."""
    bench.base = pushed_base
    builder, _ = bench.session()
    for text, ours in (("COPY static /s", True), ("COPY static /s\nRUN true", False)):
        bench.dockerfile(f"FROM BASE\n{text}\n")
        image = builder.build(scan_of(bench.context), bench.notes, Cancel())
        assert (
            differences(bench.theirs(), Reader(bench.client).read(image.repository, image.digest))
            == ()
        )
        said = [detail for _, _, detail in bench.notes.steps if "without a builder" in detail]
        assert bool(said) is ours
        bench.notes.steps.clear()
