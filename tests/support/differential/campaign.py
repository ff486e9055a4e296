"""Runs cases side by side: each edit is built by the product, each group of edits is compared.

The product and the reference take turns over a set of workspaces, so that one start of buildx does
for all of them.
"""

from __future__ import annotations

import itertools
import random
import re
import shutil
import subprocess
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from tests.support.differential.candidate import FULL, IN_PROCESS, SPLIT, Built, Candidate
from tests.support.differential.cases import Case, Step, arrange, perform
from tests.support.differential.compare import differences
from tests.support.differential.edits import Tree, random_edit, random_tree
from tests.support.differential.images import Broken, Reader
from tests.support.differential.recipes import random_recipe, random_split_recipe, varied
from tests.support.differential.reference import Bake, Target

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from devloop.registry.client import RegistryClient
    from tests.support.differential.recipes import Bases

__all__ = ["Campaign", "Finding", "Tally"]

_THREADS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A case whose images differ, or that only one side can build."""

    case: Case
    lines: tuple[str, ...]
    built: Built

    def __str__(self) -> str:
        shown = "\n".join(f"    {line}" for line in self.lines[:15])
        way = f"{self.built.how} ({self.built.reason})"
        return f"{self.case}\nmade: {way}\ndifferences:\n{shown}"


@dataclass(slots=True)
class Tally:
    """What was done. `ways` counts how each edit's image was made, `reasons` why it was a full
    build, `compared` the images that were held against the reference, `by_cache` those of a full
    build that differ because BuildKit's cache does. `by_others` counts those that differ from a
    reference built beside others and not from one that is built alone, `asides` shows them."""

    edits: int = 0
    compared: int = 0
    both_failed: int = 0
    by_cache: int = 0
    by_others: int = 0
    recipes: int = 0
    ways: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)
    asides: list[Finding] = field(default_factory=list)

    def note(self, built: Built) -> None:
        self.edits += 1
        self.ways["failed" if built.error else built.how] += 1
        if built.how == FULL and not built.error:
            self.reasons[_plain(built.reason)] += 1

    def add(self, other: Tally) -> None:
        self.edits += other.edits
        self.compared += other.compared
        self.both_failed += other.both_failed
        self.by_cache += other.by_cache
        self.by_others += other.by_others
        self.recipes += other.recipes
        self.ways += other.ways
        self.reasons += other.reasons
        self.findings += other.findings

    def share(self, *ways: str) -> float:
        """The part of the edits whose image came about in one of these ways."""
        return sum(self.ways[way] for way in ways) / self.edits if self.edits else 0.0


def _plain(reason: str) -> str:
    """The reason without what is only of this case."""
    return re.sub(r"\S*[/\d]\S*", "…", reason)


class _Workspace:
    """One case in one directory, on its way."""

    def __init__(
        self, root: Path, case: Case, client: RegistryClient, image: str, *, split: bool
    ) -> None:
        self.root = root
        self.image = image
        self._split = split
        self._client = client
        self.case = replace(case, steps=())
        arrange(root, case)
        self.lives = 0
        self.candidate = self._make()
        self.built = Built()
        self.fruitless = 0
        # How each image was made when it was made.
        self.ways: dict[str, str] = {}

    def begin_anew(self) -> None:
        """Devloop as if it had never run here."""
        self.candidate.close()
        self.lives += 1
        self.candidate = self._make()

    def _make(self) -> Candidate:
        recipe = self.case.last_recipe
        project = self.root / f"life{self.lives}"
        project.mkdir(exist_ok=True)
        return Candidate(
            project,
            client=self._client,
            image=self.image,
            dockerfile=recipe.dockerfile(self.root),
            context=self.root / "context",
            args=recipe.args,
            stage=recipe.stage,
            split=self._split,
        )

    def build(self) -> Built:
        try:
            self.built = self.candidate.build()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
            self.built = Built(error=f"{type(error).__name__}: {error}", how="crashed")
        self.ways.setdefault(self.built.digest, self.built.how)
        own = self.built.how in (*IN_PROCESS, SPLIT) and not self.built.error
        self.fruitless = 0 if own else self.fruitless + 1
        return self.built

    @property
    def stuck(self) -> bool:
        """Whether no edit of late was devloop's own: there is more to see in another case."""
        return self.fruitless >= 4

    def step(self, step: Step) -> Built:
        self.case = replace(self.case, steps=(*self.case.steps, step))
        perform(self.root, step)
        if step.restart:
            self.candidate.close()
            self.candidate = self._make()
        return self.build()

    def target(self, host: str) -> Target:
        recipe = self.case.last_recipe
        return Target(
            context=self.root / "context",
            dockerfile=recipe.dockerfile(self.root),
            repository=f"{host}/{self.image}-reference",
            args=recipe.args,
            stage=recipe.stage,
        )

    def remove(self) -> None:
        self.candidate.close()
        shutil.rmtree(self.root, ignore_errors=True)


class Campaign:
    """Everything in `directory`, every image under `differential/` of the client's registry.

    With `split`, all random Dockerfiles run something, devloop is often started again, so that it
    has to build in full, and whatever can be split is."""

    _numbers = itertools.count()

    def __init__(
        self, directory: Path, client: RegistryClient, bases: Bases, *, split: bool = False
    ) -> None:
        self._split = split
        self._directory = directory
        self._client = client
        self._bases = bases
        self._reader = Reader(client)
        self._bake = Bake(directory)

    def run(self, cases: Sequence[Case]) -> list[Finding | None]:
        """Each case from its beginning, compared at its end alone."""
        spaces = [self._workspace(case) for case in cases]

        def go(pair: tuple[_Workspace, Case]) -> None:
            space, case = pair
            space.build()
            for step in case.steps:
                space.step(step)

        try:
            with ThreadPoolExecutor(_THREADS) as pool:
                list(pool.map(go, zip(spaces, cases, strict=True)))
            return self._compare(spaces, Tally())
        finally:
            self._remove(spaces)

    def wave(
        self, seed: str, *, spaces: int, rounds: int, most: int = 6, until: Callable[[], bool]
    ) -> Tally:
        """`spaces` fresh random cases, `rounds` times 1 to `most` edits and a comparison each; ends
        early when `until` says so. A case that differs is taken out and becomes a finding."""
        tally = Tally()
        rngs = [random.Random(f"{seed}:{number}") for number in range(spaces)]
        live: dict[int, _Workspace] = {}
        try:
            with ThreadPoolExecutor(_THREADS) as pool:
                for space in pool.map(self._begun, rngs):
                    live[len(live)] = space
                tally.recipes += spaces
                for _ in range(rounds):
                    if until() or not live:
                        break

                    def group(number: int) -> list[Built]:
                        rng, space = rngs[number], live[number]
                        return [
                            space.step(self._random_step(rng, space))
                            for _ in range(rng.randint(1, most))
                        ]

                    for made in pool.map(group, list(live)):
                        for built in made:
                            tally.note(built)
                    numbers = list(live)
                    found = self._compare([live[n] for n in numbers], tally)
                    for number, finding in zip(numbers, found, strict=True):
                        if finding is not None:
                            tally.findings.append(finding)
                            live.pop(number).remove()
                        elif live[number].stuck and rngs[number].random() < 0.5:
                            live.pop(number).remove()
                            live[number] = self._begun(rngs[number])
                            tally.recipes += 1
            return tally
        finally:
            self._remove(live.values())

    def _begun(self, rng: random.Random) -> _Workspace:
        """A fresh case, built for the first time. Most of those that cannot be built are put away:
        that two builders refuse the same is soon seen."""
        while True:
            space = self._workspace(self._random_case(rng))
            if not space.build().error or rng.random() < 0.1:
                return space
            space.remove()

    def _random_case(self, rng: random.Random) -> Case:
        tree = random_tree(rng)
        seen = Tree(
            files=tuple(e.path for e in tree if e.kind == "write"),
            directories=tuple(e.path for e in tree if e.kind == "mkdir"),
            links=(),
        )
        make = random_split_recipe if self._split else random_recipe
        return Case(recipe=make(rng, seen, self._bases), tree=tree)

    def _random_step(self, rng: random.Random, space: _Workspace) -> Step:
        tree = Tree.of(space.root / "context")
        again = 0.5 if self._split else 0.1
        if space.built.error and rng.random() < 0.6:
            # What it was made from comes back, and most likely all that is missing.
            return Step(edits=space.case.tree, recipe=space.case.recipe)
        if rng.random() < 0.015:
            return Step(recipe=varied(rng, space.case.last_recipe, tree, self._bases))
        return Step(edits=random_edit(rng, tree), restart=rng.random() < again)

    def _workspace(self, case: Case) -> _Workspace:
        number = next(self._numbers)
        image = f"differential/{self._directory.name.lower().strip('-_')}-{number}"
        return _Workspace(
            self._directory / f"space{number}", case, self._client, image, split=self._split
        )

    def _compare(self, spaces: Sequence[_Workspace], tally: Tally) -> list[Finding | None]:
        names = {f"case{number}": space for number, space in enumerate(spaces)}
        digests = self._bake.build(
            {name: space.target(self._client.host) for name, space in names.items()},
            [name for name, space in names.items() if space.built.error],
        )
        found: list[Finding | None] = []
        for name, space in names.items():
            tally.compared += 1
            tally.both_failed += digests[name] is None and bool(space.built.error)
            lines = self._differences(space, digests[name])
            if lines and digests[name] is None:
                lines = (*lines, self._bake.refusals.get(name, ""))
            finding = Finding(case=space.case, lines=lines, built=space.built) if lines else None
            if finding and self._by_cache(space, digests[name]):
                tally.by_cache += 1
                finding = None
            elif finding and self._by_others(space):
                tally.by_others += 1
                tally.asides.append(finding)
                finding = None
            found.append(finding)
        return found

    def _differences(self, space: _Workspace, digest: str | None) -> tuple[str, ...]:
        built = space.built
        if built.how == "crashed":
            return (f"devloop crashed: {built.error}",)
        if digest is None:
            return () if built.error else ("BuildKit cannot build this, devloop made an image",)
        if built.error:
            return (f"BuildKit can build this, devloop failed: {built.error}",)
        expected = self._reader.read(f"{space.candidate.repository}-reference", digest)
        try:
            got = self._reader.read(space.candidate.repository, built.digest)
        except Broken as error:
            return (f"the image is broken: {error}",)
        return differences(expected, got)

    def _by_cache(self, space: _Workspace, digest: str | None) -> bool:
        """Whether an image is BuildKit's own, in part at least, and differs by its cache, which
        does not see that an empty directory's mode changed, what is behind `--exclude`, or that a
        link leads nowhere by now. With the cache BuildKit makes the same wrong image again; or the
        reference has renewed the cache, and devloop begun anew makes the right one."""
        built = space.built
        if built.error or space.ways.get(built.digest) not in (FULL, SPLIT):
            return False
        if digest is None:
            return True
        again = self._bake.alone(space.target(self._client.host), cache=True)
        if again is not None and not self._differences(space, again):
            return True
        space.begin_anew()
        try:
            return space.build().how in (FULL, SPLIT) and not self._differences(space, digest)
        finally:
            space.built = built

    def _by_others(self, space: _Workspace) -> bool:
        """Whether the reference is the same image when nothing else is built beside it. BuildKit
        does a step once for all builds of a moment in which it has the same key, even without a
        cache; and it makes the key of what `--exclude` leaves, but copies a single file whatever
        `--exclude` says."""
        return not self._differences(space, self._bake.alone(space.target(self._client.host)))

    def _remove(self, spaces: Iterable[_Workspace]) -> None:
        """Take the directories away, and the tags that building left in the local Docker."""
        for space in spaces:
            space.remove()
        prefix = f"{self._client.host}/differential/{self._directory.name.lower().strip('-_')}-"
        listed = subprocess.run(
            [
                "docker",
                "image",
                "ls",
                "--format",
                "{{.Repository}}:{{.Tag}} {{.Repository}}@{{.Digest}}",
                "--digests",
            ],
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
        ).stdout
        mine = []
        for line in listed.splitlines():
            tagged, _, pinned = line.partition(" ")
            if tagged.startswith(prefix):
                mine.append(pinned if tagged.endswith(":<none>") else tagged)
        for start in range(0, len(mine), 100):
            subprocess.run(
                ["docker", "image", "rm", "-f", *mine[start : start + 100]],
                check=False,
                capture_output=True,
                timeout=120,
            )
