"""Random edits written into a running container, held against a full build of the same context.

    python -m tests.bench.hot_differential --minutes 8 --seed 1

The container runs an image of a full build with devloop's agent in it, spoken to by `docker exec`.
After an edit the product either says what blocks it, and the container is made anew, or its files
equal in the end those that `docker buildx build --no-cache` gives: type, mode, owner, link target
and content. Differences are made small and kept as cases; `--case FILE` runs one alone.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from devloop.app.file_sync import _Places, type_below
from devloop.base.cancel import Cancel
from devloop.config.schema import Build, Deploy, Service
from devloop.engine.loop import SilentReporter
from devloop.errors import DevloopError
from devloop.model import ContainerView, ImageRef, PodView
from devloop.registry.client import RegistryClient
from devloop.sync.syncer import FileSync
from devloop.watch.source import ServiceSource
from tests.support.agent import program
from tests.support.differential.campaign import Finding
from tests.support.differential.candidate import Built, Candidate
from tests.support.differential.cases import Case, Step, arrange, perform
from tests.support.differential.edits import Tree, random_edit, random_tree
from tests.support.differential.images import Node, flatten, members
from tests.support.differential.place import make_bases, registry
from tests.support.differential.recipes import random_recipe, varied
from tests.support.differential.shrink import shrink
from tests.unit.sync.test_syncer import LocalStream

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from devloop.model import Scan
    from tests.support.differential.recipes import Bases

# What the container's runtime puts into every container.
_RUNTIME = re.compile(
    r"(\.dockerenv|\.devloop|dev|proc|sys)(/.*)?|etc/(hosts|hostname|resolv\.conf|mtab)"
)
_RUNTIME_DIRECTORIES = frozenset(("etc", "v", "data", "data/volume"))
_EDITS = 24  # of one case


@dataclass(slots=True)
class _Counts:
    edits: int = 0
    cases: int = 0
    compared: int = 0
    ways: Counter[str] = field(default_factory=Counter)
    blockers: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)

    def __str__(self) -> str:
        ways = ", ".join(f"{way} {count}" for way, count in self.ways.most_common())
        return (
            f"{self.edits} edits of {self.cases} cases ({ways}); "
            f"{self.compared} compared, {len(self.findings)} differ"
        )


def _docker(*arguments: str) -> bytes:
    done = subprocess.run(["docker", *arguments], check=False, capture_output=True, timeout=300)
    if done.returncode != 0:
        raise ChildProcessError(done.stderr.decode("utf-8", "replace")[-1500:])
    return done.stdout


class _Space:
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
        self._user = [] if zlib.crc32(recipe.text.encode()) % 4 == 0 else ["--user=0"]
        self._image = ImageRef(repository="app", tag="0", digest="")
        self._images = self._containers = 0
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
        self._sync = FileSync(
            "app",
            context=self.root / "context",
            open_stream=self._open,
            pods=self,
            places=_Places(service).of,
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
        return LocalStream(["docker", "exec", "-i", pod.uid, *argv])

    def _below(self, path: str) -> str | None:
        return type_below(self._candidate.builder.below_copies(), path)

    def close(self) -> None:
        self._sync.close()
        self._candidate.close()
        for n in range(1, self._containers + 1):
            subprocess.run(
                ["docker", "rm", "-f", "-v", f"{self.name}-{n}"], check=False, capture_output=True
            )
        names = f"--filter=reference={self._candidate.repository}"
        tags = _docker("image", "ls", names, "--format={{.Repository}}:{{.Tag}}").decode().split()
        tags += [f"{self.name}:{n}" for n in range(1, self._images + 1)]
        subprocess.run(["docker", "rmi", "-f", *tags], check=False, capture_output=True)
        shutil.rmtree(self.root, ignore_errors=True)

    # --- the container -------------------------------------------------------------------------

    def begin(self) -> str:
        """A container of a full build; why there is none, else ""."""
        try:
            scan = self._source.scan(None, Cancel())
            tag = f"{self.name}:{self._images + 1}"
            self._build("--output", f"type=docker,name={tag}")
            self._images += 1
            self._image = ImageRef(
                repository="app", tag=str(self._images), digest=f"sha256:{self._images}"
            )
            self.run()
        except (ChildProcessError, DevloopError) as error:
            return str(error)
        self._candidate.build()
        self._candidate.builder.settle()
        self._sync.image_contains(self._image, scan)
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

    def step(self, step: Step) -> tuple[str, str]:
        """How the product took an edit: hot, blocked, refused; and why."""
        self.case = replace(self.case, steps=(*self.case.steps, step))
        perform(self.root, step)
        try:
            scan = self._source.scan(None, Cancel())
        except DevloopError as error:
            return "no scan", error.diagnosis.message
        if (blocker := self._sync.blocker(scan)) is not None:
            return "blocked", blocker
        try:
            self._bring(scan)
            if step.restart:
                self.run()
                self._bring(scan)
        except DevloopError as error:
            return "refused", error.diagnosis.message
        return "hot", ""

    def _bring(self, scan: Scan) -> None:
        self._sync.sync(scan, SilentReporter(), Cancel())

    def differences(self) -> tuple[str, ...]:
        try:
            expected = flatten([members(self._build("--output=type=tar,dest=-"))])
        except ChildProcessError as error:
            return "BuildKit cannot build this, devloop has synced it", str(error)[-300:]
        found = flatten([members(_docker("cp", f"{self.name}-{self._containers}:/", "-"))])
        return tuple(
            f"/{path!r}: expected {expected.get(path) or 'nothing'}, "
            f"got {found.get(path) or 'nothing'}"
            for path in sorted(expected.keys() | found.keys())
            if _differ(path, expected.get(path), found.get(path))
        )


def _differ(path: str, expected: Node | None, found: Node | None) -> bool:
    if _RUNTIME.fullmatch(path) or (expected is None and path in _RUNTIME_DIRECTORIES):
        return False
    return expected != found


class _Run:
    def __init__(
        self, directory: Path, client: RegistryClient, bases: Bases, over: Callable[[], bool]
    ) -> None:
        self._client = client
        self._directory = directory
        self._bases = bases
        self._over = over
        self._lock = threading.Lock()
        self.counts = _Counts()

    def random_cases(self, seed: str) -> None:
        """One case after the other until it is over."""
        for number in itertools.count():
            if self._over():
                return
            rng = random.Random(f"{seed}:{number}")
            tree = random_tree(rng)
            seen = Tree(
                files=tuple(e.path for e in tree if e.kind == "write"),
                directories=tuple(e.path for e in tree if e.kind == "mkdir"),
                links=(),
            )
            case = Case(recipe=random_recipe(rng, seen, self._bases), tree=tree)
            space = _Space(self._directory, case, self._client)
            try:
                if space.begin():
                    continue
                self.counts.cases += 1
                self._edits(space, rng)
            finally:
                space.close()

    def _edits(self, space: _Space, rng: random.Random) -> None:
        fruitless, open_ = 0, 0
        for _ in range(_EDITS):
            if self._over() or fruitless == 2:
                break
            tree = Tree.of(space.root / "context")
            step = Step(edits=random_edit(rng, tree), restart=rng.random() < 0.05)
            if rng.random() < 0.015:
                step = Step(recipe=varied(rng, space.case.last_recipe, tree, self._bases))
            way, why = space.step(step)
            with self._lock:
                self.counts.edits += 1
                self.counts.ways[way] += 1
                self.counts.blockers[re.sub(r"\S*[/\d]\S*|^\S+ (?=is|matches)", "…", why)] += 1
            if way == "hot":
                fruitless, open_ = 0, open_ + 1
                if open_ == 3 and not self._compare(space):
                    return
                open_ %= 3
                continue
            fruitless, open_ = fruitless + 1, 0
            if space.begin():
                return
        if open_:
            self._compare(space)

    def _compare(self, space: _Space) -> bool:
        lines = space.differences()
        with self._lock:
            self.counts.compared += 1
            if lines:
                built = Built(how="hot")
                self.counts.findings.append(Finding(case=space.case, lines=lines, built=built))
                _say(f"--- difference:\n{self.counts.findings[-1]}")
        return not lines

    def case(self, case: Case) -> Finding | None:
        """From the beginning; what differs at the end, if the last edit was a hot one."""
        space = _Space(self._directory, case, self._client)
        try:
            if space.begin():
                return None
            way = ""
            for step in case.steps:
                way, _ = space.step(step)
                if way != "hot" and space.begin():
                    return None
            lines = space.differences() if way == "hot" else ()
            return Finding(case=case, lines=lines, built=Built(how="hot")) if lines else None
        finally:
            space.close()

    def all(self, cases: Sequence[Case]) -> list[Finding | None]:
        with ThreadPoolExecutor(3) as pool:
            return list(pool.map(self.case, cases))


def _say(text: str) -> None:
    sys.stdout.write(text.encode("utf-8", "backslashreplace").decode() + "\n")
    sys.stdout.flush()


def _within(seconds: float) -> Callable[[], bool]:
    end = time.monotonic() + seconds
    return lambda: time.monotonic() < end


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.hot_differential")
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--seed", default="1")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--shrink", type=float, default=60, help="seconds for each finding")
    parser.add_argument("--findings", default="hot-findings", help="a directory for cases")
    parser.add_argument("--case", help="run this kept case alone")
    options = parser.parse_args()
    with (
        registry() as host,
        RegistryClient(host) as client,
        tempfile.TemporaryDirectory(prefix="hotdiff-") as directory,
    ):
        bases = make_bases(host)
        more = _within(options.minutes * 60)
        run = _Run(Path(directory), client, bases, lambda: not more())
        if options.case:
            kept = Case.from_json(json.loads(Path(options.case).read_text())["case"])
            found = run.case(kept.renamed(lambda line: line.replace("HOST", host)))
            _say(str(found) if found else "no difference")
            return 1 if found else 0
        with ThreadPoolExecutor(options.threads) as pool:
            seeds = [f"{options.seed}:{n}" for n in range(options.threads)]
            list(pool.map(run.random_cases, seeds))
        _say(str(run.counts))
        _say("\n".join(f"  {n:6} {why}" for why, n in run.counts.blockers.most_common(20) if why))
        for number, finding in enumerate(run.counts.findings):
            small = shrink(finding, run.all, _within(options.shrink))
            case = small.case.renamed(lambda line: line.replace(host, "HOST"))
            file = Path(options.findings) / f"{options.seed}-{number}.json"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(
                json.dumps({"case": case.to_json(), "differences": list(small.lines[:20])})
            )
            _say(f"--- kept as {file}:\n{small}")
    return 1 if run.counts.findings else 0


if __name__ == "__main__":
    raise SystemExit(main())
