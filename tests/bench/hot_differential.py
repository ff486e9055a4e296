"""Random edits written into running containers, held against full builds of the same contexts.

    python -m tests.bench.hot_differential --minutes 8 --seed 1

A container runs an image of a full build with devloop's agent in it, spoken to by `docker exec`.
After an edit the product either says what blocks it, and the edit is taken back or the container
made anew, or its files equal in the end those that `docker buildx build --no-cache` gives: type,
mode, owner, link target and content. Now and then the stream is killed while files are written, the
container, or devloop itself. Some containers take turns, for one start of buildx does for all.

What was done is a line for each wave in `--ledger`, and the next run with the same seed goes on
after it. Differences are made small and kept as cases; `--case FILE` runs one alone.
"""

from __future__ import annotations

import argparse
import contextlib
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
from typing import TYPE_CHECKING, Any

from devloop.app.file_sync import Places, type_below
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
from tests.support.differential.recipes import random_recipe
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
_SPACES = 8
_ROUNDS = 24  # of a wave
_THREADS = 3
_FAULTS = ("stream", "container", "devloop")


@dataclass(slots=True)
class _Counts:
    edits: int = 0
    cases: int = 0
    compared: int = 0
    differing: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    ways: Counter[str] = field(default_factory=Counter)
    blockers: Counter[str] = field(default_factory=Counter)

    def add(self, line: dict[str, Any]) -> None:
        self.edits += line["edits"]
        self.cases += line["cases"]
        self.compared += line["compared"]
        self.differing += line["differing"]
        for name in ("ways", "blockers", "faults"):
            getattr(self, name).update(line[name])

    def to_json(self) -> dict[str, Any]:
        numbers = ("edits", "cases", "compared", "differing")
        counters = ("ways", "blockers", "faults")
        found = {name: getattr(self, name) for name in numbers}
        return found | {name: dict(getattr(self, name)) for name in counters}

    def __str__(self) -> str:
        ways = ", ".join(f"{way} {count}" for way, count in self.ways.most_common())
        return (
            f"{self.edits} edits of {self.cases} cases ({ways}); "
            f"{self.compared} compared, {self.differing} differ; killed: {dict(self.faults)}"
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
        stream = LocalStream(["docker", "exec", "-i", pod.uid, *argv])
        self._streams = [*self._streams[-2:], stream]
        return stream

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


def _full_builds(directory: Path, spaces: Sequence[_Space]) -> list[dict[str, Node] | str]:
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
            return [found for space in spaces for found in _full_builds(directory, [space])]
        return [flatten([members((place / f"{n}.tar").read_bytes())]) for n in range(len(spaces))]


def _differences(expected: dict[str, Node] | str, found: dict[str, Node]) -> tuple[str, ...]:
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


class _Over(Exception):  # noqa: N818 - no error
    pass


class _Run:
    def __init__(
        self, directory: Path, client: RegistryClient, bases: Bases, over: Callable[[], bool]
    ) -> None:
        self._client = client
        self._directory = directory
        self._bases = bases
        self._over = over
        self.findings: list[Finding] = []

    def wave(self, seed: str) -> _Counts:
        """Some cases side by side, an edit of each and a comparison in turns."""
        counts = _Counts()
        rngs = [random.Random(f"{seed}:{number}") for number in range(_SPACES)]
        with ThreadPoolExecutor(_THREADS) as pool:
            spaces: list[_Space] = []
            try:
                spaces += pool.map(self._begun, rngs)
                counts.cases += len(spaces)
                for _ in range(_ROUNDS):
                    if self._over():
                        break
                    took = list(pool.map(self._edit, rngs, spaces))
                    hot = []
                    for n, (way, why, fault) in enumerate(took):
                        counts.edits += 1
                        counts.ways[way] += 1
                        if why:
                            plain = re.sub(r"\S*[/\d]\S*|^\S+ (?=is|matches)", "…", why)
                            counts.blockers[plain] += 1
                        if way == "hot":
                            hot.append(n)
                            counts.faults.update([fault] if fault else [])
                    differ = self._compare([spaces[n] for n in hot], pool, counts, took, hot)
                    anew = {n for n, space in enumerate(spaces) if space.fruitless >= 3}
                    for n in sorted(anew | differ):
                        spaces[n].close()
                        spaces[n] = self._begun(rngs[n])
                        counts.cases += 1
            except _Over:
                pass
            finally:
                list(pool.map(lambda space: space.close(), spaces))
        return counts

    def _begun(self, rng: random.Random) -> _Space:
        while True:
            tree = random_tree(rng)
            seen = Tree(
                files=tuple(e.path for e in tree if e.kind == "write"),
                directories=tuple(e.path for e in tree if e.kind == "mkdir"),
                links=(),
            )
            case = Case(recipe=random_recipe(rng, seen, self._bases), tree=tree)
            space = _Space(self._directory, case, self._client)
            if not space.begin():
                return space
            space.close()
            if self._over():
                raise _Over

    def _edit(self, rng: random.Random, space: _Space) -> tuple[str, str, str]:
        tree = Tree.of(space.root / "context")
        step = Step(edits=random_edit(rng, tree), restart=rng.random() < 0.02)
        fault = rng.choice(_FAULTS) if rng.random() < 0.06 else ""
        way, why = space.step(step, fault, rng.uniform(0.0, 0.08))
        space.fruitless = 0 if way == "hot" else space.fruitless + 1
        return way, why, fault

    def _compare(
        self,
        spaces: Sequence[_Space],
        pool: ThreadPoolExecutor,
        counts: _Counts,
        took: Sequence[tuple[str, str, str]],
        numbers: Sequence[int],
    ) -> set[int]:
        """The numbers of those that differ."""
        if not spaces:
            return set()
        files = [pool.submit(space.files) for space in spaces]
        differ = set()
        builds = _full_builds(self._directory, spaces)
        for n, space, expected, found in zip(numbers, spaces, builds, files, strict=True):
            counts.compared += 1
            lines = _differences(expected, found.result())
            if lines:  # builds of one moment share steps that only look alike
                [alone] = _full_builds(self._directory, [space])
                lines = _differences(alone, space.files())
            if lines:
                differ.add(n)
                counts.differing += 1
                fault = took[n][2]
                built = Built(how="hot", reason=f"killed meanwhile: {fault}" if fault else "")
                self.findings.append(Finding(case=space.case, lines=lines, built=built))
                _say(f"--- difference:\n{self.findings[-1]}")
        return differ

    def case(self, case: Case) -> Finding | None:
        """From the beginning; what differs at the end, if the last edit was a hot one."""
        space = _Space(self._directory, case, self._client)
        try:
            if space.begin():
                return None
            way = ""
            for step in case.steps:
                way, _ = space.step(step)
            if way != "hot":
                return None
            [expected] = _full_builds(self._directory, [space])
            lines = _differences(expected, space.files())
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
    parser.add_argument("--ledger", default="hot-ledger.jsonl", help="what each wave has done")
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
        ledger = Path(options.ledger)
        lines = ledger.read_text().splitlines() if ledger.exists() else []
        done = [json.loads(line) for line in lines]
        wave = sum(line["seed"] == options.seed for line in done)
        while more():
            counts = run.wave(f"{options.seed}:{wave}")
            done.append({"seed": options.seed, "wave": wave, **counts.to_json()})
            with ledger.open("a") as lines_of:
                lines_of.write(json.dumps(done[-1]) + "\n")
            wave += 1
        total = _Counts()
        for line in done:
            total.add(line)
        _say(str(total))
        _say("\n".join(f"  {n:6} {why}" for why, n in total.blockers.most_common(20)))
        for number, finding in enumerate(run.findings):
            small = shrink(finding, run.all, _within(options.shrink))
            case = small.case.renamed(lambda line: line.replace(host, "HOST"))
            file = Path(options.findings) / f"{options.seed}-{wave}-{number}.json"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(
                json.dumps({"case": case.to_json(), "differences": list(small.lines[:20])})
            )
            _say(f"--- kept as {file}:\n{small}")
    return 1 if run.findings else 0


if __name__ == "__main__":
    raise SystemExit(main())
