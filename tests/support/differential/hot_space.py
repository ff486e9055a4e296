"""One case on its way in a running container: a context, devloop's sync, and what full builds give.

`HotSpace` is spoken to by `docker exec`, as the product speaks to a pod; the rest holds its files
against those of full builds of the same contexts.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import shutil
import subprocess
import tempfile
import threading
import zlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from devloop.app.file_sync import Places, type_below
from devloop.base.cancel import Cancel
from devloop.config.builds import Build
from devloop.config.schema import Deploy, Service
from devloop.engine.reporters import SilentReporter
from devloop.errors import DevloopError
from devloop.model import ContainerView, ImageRef, PodView
from devloop.sync.syncer import FileSync
from devloop.watch.source import ServiceSource
from tests.integration.hot.test_syncer import LocalStream
from tests.support.agent import program
from tests.support.differential.candidate import Candidate
from tests.support.differential.cases import arrange, perform
from tests.support.differential.images import Node, flatten, members

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from devloop.model import Scan
    from devloop.registry.client import RegistryClient
    from tests.support.differential.cases import Case, Step

FAULTS = ("stream", "container", "devloop")
"""What can be killed while files are on their way."""

# What the container's runtime puts into every container.
_RUNTIME = re.compile(
    r"(\.dockerenv|\.devloop|dev|proc|sys)(/.*)?|etc/(hosts|hostname|resolv\.conf|mtab)"
)
_RUNTIME_DIRECTORIES = frozenset(("etc", "v", "data", "data/volume"))


def _docker(*arguments: str) -> bytes:
    done = subprocess.run(["docker", *arguments], check=False, capture_output=True, timeout=300)
    if done.returncode != 0:
        raise ChildProcessError(done.stderr.decode("utf-8", "replace")[-1500:])
    return done.stdout


class _Exec(LocalStream):
    """`docker exec` says with status 1 that there is no such container, or that it has ended."""

    def receive(self) -> bytes | None:
        got = super().receive()
        if self.ended == "exit status 1":
            self.ended = None
        return got


class HotSpace:
    """One case on its way: a context, a container and the product's sync between them."""

    _numbers = itertools.count()

    def __init__(self, directory: Path, case: Case, client: RegistryClient) -> None:
        self.name = f"{directory.name}-{next(self._numbers)}".lower().replace("_", "-")
        self.root = directory / self.name
        self.case = replace(case, steps=())
        arrange(self.root, case)
        recipe = case.recipe
        service = Service(
            name="app",
            image="app",
            build=Build(
                context=self.root / "context",
                dockerfile=recipe.dockerfile(self.root),
                args=dict(recipe.args),
                target=recipe.stage,
            ),
            deploy=Deploy(workload_name="app"),
        )
        self._source = ServiceSource(service, self.root)
        # The image's own user now and then; the same one whenever the case is run again.
        self._user = [] if zlib.crc32(recipe.text.encode()) % 10 == 0 else ["--user=0"]
        self._image = ImageRef(repository="app", tag="0", digest="")
        self._images = self._containers = self.fruitless = 0
        self._built_of: Scan | None = None
        self._pods: tuple[PodView, ...] = ()
        self._callback: Callable[[], None] = lambda: None
        # It builds beside, for what it then knows of the layers below.
        self._candidate = Candidate(
            self.root,
            client=client,
            image=f"differential/{self.name}",
            dockerfile=recipe.dockerfile(self.root),
            context=self.root / "context",
            args=recipe.args,
            stage=recipe.stage,
        )
        self._places = Places(service, lambda _: self._candidate.shown_copies()).of
        self._streams: list[LocalStream] = []
        self._sync = self._session()

    def _session(self) -> FileSync:
        return FileSync(
            "app",
            context=self.root / "context",
            open_stream=self._open,
            pods=self,
            places=self._places,
            below=self._below,
            limit=60.0,
            first_pause=0.2,
        )

    def current(self, _service: str) -> tuple[PodView, ...]:
        return self._pods

    def on_change(self, callback: Callable[[], None]) -> Callable[[], None]:
        self._callback = callback
        return lambda: None

    def _open(
        self, pod: PodView, _container: str, argv: Sequence[str], _cancel: Cancel
    ) -> LocalStream:
        stream = _Exec(["docker", "exec", "-i", pod.uid, *argv])
        self._streams = [*self._streams[-2:], stream]
        return stream

    def _below(self, path: str) -> str | None:
        return type_below(self._candidate.builder.below_copies(), path)

    def close(self) -> None:
        self._sync.close()
        self._candidate.close()
        if self._images:
            names = [f"{self.name}-{n}" for n in range(1, self._containers + 1)]
            tags = [f"{self.name}:{n}" for n in range(1, self._images + 1)]
            for argv in (["rm", "-f", "-v", *names], ["rmi", "-f", *tags]):
                subprocess.run(["docker", *argv], check=False, capture_output=True)
        shutil.rmtree(self.root, ignore_errors=True)

    # --- the container -------------------------------------------------------------------------

    def begin(self) -> str:
        """A container of a full build; why there is none, else ""."""
        try:
            scan = self._source.scan(None, Cancel())
            self._candidate.build()
            self._candidate.builder.settle()
            if isinstance(why := self._places(scan), str):
                return why  # no edit of this one would be hot
            tag = f"{self.name}:{self._images + 1}"
            self._build("--output", f"type=docker,name={tag}")
            self._images += 1
            self._image = ImageRef(
                repository="app", tag=str(self._images), digest=f"sha256:{self._images}"
            )
            self.run()
        except (ChildProcessError, DevloopError) as error:
            return str(error)
        self._sync.image_contains(self._image, scan)
        self._built_of = scan
        return ""

    def run(self) -> None:
        """A container of the last image takes the place of the one before."""
        last, self._containers = f"{self.name}-{self._containers}", self._containers + 1
        name, agent = f"{self.name}-{self._containers}", "/.devloop/agent"
        _docker(
            *("run", "-d", "-i", f"--name={name}", *self._user, f"--entrypoint={agent}"),
            *(f"--volume={program()}:{agent}:ro", f"{self.name}:{self._images}", "serve"),
        )
        image_id = f"app@{self._image.digest}"
        container = ContainerView(
            name="app", image="app", image_id=image_id, container_id=name, state="running"
        )
        self._pods = (PodView(name="app-0", uid=name, namespace="x", containers=(container,)),)
        self._callback()
        if self._containers > 1:
            _docker("rm", "-f", "-v", last)

    def _build(self, *output: str) -> bytes:
        recipe = self.case.last_recipe
        options = [f"--build-arg={key}={value}" for key, value in recipe.args.items()]
        options += [f"--target={recipe.stage}"] if recipe.stage else []
        file, context = recipe.dockerfile(self.root), self.root / "context"
        return _docker(
            *("buildx", "build", "--no-cache", "--quiet", "--provenance=false", *options),
            *(*output, f"--file={file}", str(context)),
        )

    # --- an edit -------------------------------------------------------------------------------

    def step(self, step: Step, fault: str = "", after: float = 0.0) -> tuple[str, str]:
        """How the product took an edit: hot, blocked, refused; and why. What it did not take is
        taken back. `fault` is what is killed so many seconds after files are on their way."""
        saved = self.root / "saved"
        shutil.copytree(self.root / "context", saved, symlinks=True)
        case = self.case
        self.case = replace(case, steps=(*case.steps, step))
        perform(self.root, step)
        way, why = self._take(step, fault, after)
        if way != "hot" and step.recipe is None:
            self.case = case
            (self.root / "context").rename(self.root / "gone")
            saved.rename(self.root / "context")
            saved = self.root / "gone"
        shutil.rmtree(saved)
        return way, why

    def _take(self, step: Step, fault: str, after: float) -> tuple[str, str]:
        try:
            scan = self._source.scan(None, Cancel())
        except DevloopError as error:
            return "no scan", error.diagnosis.message
        if (blocker := self._sync.blocker(scan)) is not None:
            return "blocked", blocker
        try:
            if fault:
                self._bring_with(fault, after, scan)
            self._bring(scan)
            if step.restart:
                self.run()
                self._bring(scan)
        except DevloopError as error:
            return "refused", error.diagnosis.message
        return "hot", ""

    def _bring_with(self, fault: str, after: float, scan: Scan) -> None:
        """Bring it while something is killed, and put that right again."""
        kill = threading.Timer(after, self._kill, (fault,))
        kill.start()
        with contextlib.suppress(DevloopError):
            self._bring(scan)
        kill.join()
        if fault == "stream":
            return
        if fault == "devloop":  # the next session knows images only
            self._sync.close()
            self._sync = self._session()
            assert self._built_of is not None
            self._sync.image_contains(self._image, self._built_of)
        self.run()

    def _kill(self, what: str) -> None:
        if what == "container":
            _docker("kill", "--signal=KILL", f"{self.name}-{self._containers}")
            return
        for stream in self._streams:
            stream.kill()
        if what == "devloop":
            self._sync.close()

    def _bring(self, scan: Scan) -> None:
        self._sync.sync(scan, SilentReporter(), Cancel())

    def target(self, destination: Path) -> dict[str, object]:
        """The full build of what there is now, for `docker buildx bake`."""
        recipe = self.case.last_recipe
        target: dict[str, object] = {
            "context": str(self.root / "context"),
            "dockerfile": str(recipe.dockerfile(self.root)),
            "args": dict(recipe.args),
            "output": [f"type=tar,dest={destination}"],
            "attest": ["type=provenance,disabled=true"],
        }
        return {**target, "target": recipe.stage} if recipe.stage else target

    def files(self) -> dict[str, Node]:
        return flatten([members(_docker("cp", f"{self.name}-{self._containers}:/", "-"))])


def full_builds(directory: Path, spaces: Sequence[HotSpace]) -> list[dict[str, Node] | str]:
    """The files of each one's full build, or why there is none. One that cannot be built takes the
    others down: then each is built alone."""
    with tempfile.TemporaryDirectory(dir=directory, prefix="bake-") as name:
        place = Path(name)
        targets = {f"t{n}": space.target(place / f"{n}.tar") for n, space in enumerate(spaces)}
        group = {"default": {"targets": list(targets)}}
        (place / "bake.json").write_text(json.dumps({"group": group, "target": targets}))
        try:
            _docker("buildx", "bake", "--no-cache", "--progress=plain", f"--file={place}/bake.json")
        except ChildProcessError as error:
            if len(spaces) == 1:
                return [str(error)[-300:]]
            return [found for space in spaces for found in full_builds(directory, [space])]
        return [flatten([members((place / f"{n}.tar").read_bytes())]) for n in range(len(spaces))]


def differences(expected: dict[str, Node] | str, found: dict[str, Node]) -> tuple[str, ...]:
    if isinstance(expected, str):
        return "BuildKit cannot build this, devloop has synced it", expected
    return tuple(
        f"/{path!r}: expected {expected.get(path) or 'nothing'}, got {found.get(path) or 'nothing'}"
        for path in sorted(expected.keys() | found.keys())
        if _differ(path, expected.get(path), found.get(path))
    )


def _differ(path: str, expected: Node | None, found: Node | None) -> bool:
    if _RUNTIME.fullmatch(path) or (expected is None and path in _RUNTIME_DIRECTORIES):
        return False
    return expected != found


def sweep(host: str) -> None:
    """Remove the product's images of a registry that goes away."""
    names = f"--filter=reference={host}/differential/*"
    tags = _docker("image", "ls", names, "--format={{.Repository}}:{{.Tag}}").decode().split()
    if tags := [tag for tag in tags if "/base-" not in tag]:
        subprocess.run(["docker", "rmi", "-f", *tags], check=False, capture_output=True)
