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
import json
import random
import re
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from devloop.registry.client import RegistryClient
from tests.support.differential.campaign import Finding
from tests.support.differential.candidate import Built
from tests.support.differential.cases import Case, Step
from tests.support.differential.edits import Tree, random_edit, random_tree
from tests.support.differential.hot_space import FAULTS, HotSpace, differences, full_builds, sweep
from tests.support.differential.place import make_bases, registry
from tests.support.differential.recipes import random_recipe
from tests.support.differential.shrink import shrink

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.support.differential.recipes import Bases

_SPACES = 8
_ROUNDS = 24  # of a wave
_THREADS = 3


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
            spaces: list[HotSpace] = []
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
                sweep(self._client.host)
        return counts

    def _begun(self, rng: random.Random) -> HotSpace:
        while True:
            tree = random_tree(rng)
            seen = Tree(
                files=tuple(e.path for e in tree if e.kind == "write"),
                directories=tuple(e.path for e in tree if e.kind == "mkdir"),
                links=(),
            )
            case = Case(recipe=random_recipe(rng, seen, self._bases), tree=tree)
            space = HotSpace(self._directory, case, self._client)
            if not space.begin():
                return space
            space.close()
            if self._over():
                raise _Over

    def _edit(self, rng: random.Random, space: HotSpace) -> tuple[str, str, str]:
        tree = Tree.of(space.root / "context")
        step = Step(edits=random_edit(rng, tree), restart=rng.random() < 0.02)
        fault = rng.choice(FAULTS) if rng.random() < 0.06 else ""
        way, why = space.step(step, fault, rng.uniform(0.0, 0.08))
        space.fruitless = 0 if way == "hot" else space.fruitless + 1
        return way, why, fault

    def _compare(
        self,
        spaces: Sequence[HotSpace],
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
        builds = full_builds(self._directory, spaces)
        for n, space, expected, found in zip(numbers, spaces, builds, files, strict=True):
            counts.compared += 1
            lines = differences(expected, found.result())
            if lines:  # builds of one moment share steps that only look alike
                [alone] = full_builds(self._directory, [space])
                lines = differences(alone, space.files())
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
        space = HotSpace(self._directory, case, self._client)
        try:
            if space.begin():
                return None
            way = ""
            for step in case.steps:
                way, _ = space.step(step)
            if way != "hot":
                return None
            [expected] = full_builds(self._directory, [space])
            lines = differences(expected, space.files())
            return Finding(case=case, lines=lines, built=Built(how="hot")) if lines else None
        finally:
            space.close()

    def all(self, cases: Sequence[Case]) -> list[Finding | None]:
        with ThreadPoolExecutor(_THREADS) as pool:
            found = list(pool.map(self.case, cases))
        sweep(self._client.host)
        return found


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
