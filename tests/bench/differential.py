"""The long form of the differential test: thousands of random edits, the image of each made by
devloop, held against `docker buildx build --no-cache`.

    python -m tests.bench.differential --edits 10000 --seed 1 --log differential.jsonl

Work is done in waves of fresh random cases. Each finished wave is a line of the log; started again
with the same seed and log, it goes on after the last one. `--case FILE` runs one kept case alone.
With `--split` all Dockerfiles run something, and what can be split between the builder and devloop
is. `BUILDX_BUILDER` chooses the builder for both sides.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from devloop.registry.client import RegistryClient
from tests.support.differential.campaign import Campaign, Finding, Tally
from tests.support.differential.cases import Case
from tests.support.differential.place import make_bases, registry
from tests.support.differential.shrink import shrink

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SPACES = 16
ROUNDS = 8
# What of the build cache may go (nobody has used it for so long), and how many waves pass between
# two looks at it.
CACHE, WAVES = "30m", 5


def main(argv: list[str] | None = None) -> int:
    options = _options(argv)
    # Being asked to end is no reason to leave a registry and its images behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    log = Path(options.log) if options.log else None
    done = _read(log, options.seed)
    total = _total(done)
    with _campaign(split=options.split) as (campaign, host):
        if options.case:
            return _one_case(campaign, Path(options.case), host)
        started, before = time.monotonic(), total.edits
        for number in range(len(done), sys.maxsize):
            if total.edits >= options.edits or _over(started, options.minutes):
                break
            tally = campaign.wave(
                f"{options.seed}:{number}",
                spaces=SPACES,
                rounds=ROUNDS,
                until=lambda: _over(started, options.minutes),
            )
            _finish(campaign, tally, number, options, host)
            total.add(tally)
            speed = (total.edits - before) / (time.monotonic() - started)
            _say(f"wave {number}: {_line(tally)}\n  in all {_line(total)}; {speed:.1f} edits/s")
            _say("".join(f"  {n:6} {why}\n" for why, n in tally.reasons.most_common(12)).rstrip())
            if number % WAVES == WAVES - 1:
                _prune()
    _say(_summary(total))
    return 1 if total.findings else 0


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.differential")
    parser.add_argument("--edits", type=int, default=10_000)
    parser.add_argument("--seed", default="1")
    parser.add_argument("--minutes", type=float, default=0, help="stop after so long")
    parser.add_argument("--log", help="a file of finished waves, to go on from")
    parser.add_argument("--findings", default="differential-findings", help="a directory for cases")
    parser.add_argument("--shrink", type=float, default=90, help="seconds for each finding")
    parser.add_argument("--split", action="store_true", help="split builds wherever possible")
    parser.add_argument("--case", help="run this kept case alone")
    return parser.parse_args(argv)


@contextlib.contextmanager
def _campaign(*, split: bool) -> Iterator[tuple[Campaign, str]]:
    with (
        registry() as host,
        RegistryClient(host) as client,
        tempfile.TemporaryDirectory(
            prefix="differential-", ignore_cleanup_errors=True
        ) as directory,
    ):
        yield Campaign(Path(directory), client, make_bases(host), split=split), host


def _finish(
    campaign: Campaign, tally: Tally, number: int, options: argparse.Namespace, host: str
) -> None:
    """Make the findings small, keep them, and write the wave down."""
    small = []
    for index, finding in enumerate(tally.findings):
        found = shrink(finding, campaign.run, _within(options.shrink))
        small.append(found)
        directory = Path(options.findings)
        directory.mkdir(parents=True, exist_ok=True)
        name = directory / f"{options.seed}-{number}-{index}"
        name.with_suffix(".json").write_text(json.dumps(_kept(found, host), indent=1))
        name.with_suffix(".txt").write_text(str(found).encode("utf-8", "replace").decode())
        whole = name.with_name(f"{name.name}-whole.json")
        whole.write_text(json.dumps(_kept(finding, host), indent=1))
        _say(f"--- difference, kept as {name}.json\n{found}\n---")
    tally.findings[:] = small
    for finding in tally.asides:
        _say(f"--- only beside other builds:\n{finding}\n---")
    if options.log:
        with Path(options.log).open("a") as file:
            file.write(json.dumps(_record(tally, number, options.seed)) + "\n")


def _kept(finding: Finding, host: str) -> dict[str, Any]:
    case = finding.case.renamed(lambda line: line.replace(host, "HOST"))
    return {"case": case.to_json(), "differences": list(finding.lines[:20])}


def _one_case(campaign: Campaign, file: Path, host: str) -> int:
    case = Case.from_json(json.loads(file.read_text())["case"])
    finding = campaign.run([case.renamed(lambda line: line.replace("HOST", host))])[0]
    _say(str(finding) if finding else "no difference")
    return 1 if finding else 0


def _record(tally: Tally, number: int, seed: str) -> dict[str, Any]:
    return {
        "seed": seed,
        "wave": number,
        "edits": tally.edits,
        "compared": tally.compared,
        "both_failed": tally.both_failed,
        "by_cache": tally.by_cache,
        "by_others": tally.by_others,
        "recipes": tally.recipes,
        "ways": tally.ways,
        "reasons": tally.reasons,
        "differences": len(tally.findings),
    }


def _read(log: Path | None, seed: str) -> list[dict[str, Any]]:
    if log is None or not log.exists():
        return []
    records = [json.loads(line) for line in log.read_text().splitlines()]
    return [record for record in records if record["seed"] == seed]


def _total(records: list[dict[str, Any]]) -> Tally:
    total = Tally()
    for record in records:
        total.add(
            Tally(
                edits=record["edits"],
                compared=record["compared"],
                both_failed=record["both_failed"],
                by_cache=record["by_cache"],
                by_others=record.get("by_others", 0),
                recipes=record["recipes"],
                ways=Counter(record["ways"]),
                reasons=Counter(record["reasons"]),
            )
        )
    return total


def _within(seconds: float) -> Callable[[], bool]:
    end = time.monotonic() + seconds
    return lambda: time.monotonic() < end


def _over(since: float, minutes: float) -> bool:
    return bool(minutes) and time.monotonic() - since > minutes * 60


def _prune() -> None:
    """Every build without a cache leaves one behind."""
    subprocess.run(
        ["docker", "buildx", "prune", "-f", f"--filter=until={CACHE}"],
        check=False,
        capture_output=True,
        timeout=600,
    )


def _line(tally: Tally) -> str:
    ways = ", ".join(f"{way} {count}" for way, count in tally.ways.most_common())
    return f"{tally.edits} edits, {tally.compared} compared, {len(tally.findings)} differ ({ways})"


def _summary(total: Tally) -> str:
    lines = [
        f"{total.edits} edits of {total.recipes} random Dockerfiles; {total.compared} images",
        f"compared with docker buildx build --no-cache: {len(total.findings)} differ,",
        f"{total.both_failed} could be built by neither; {total.by_cache} more full builds differ",
        "because BuildKit's cache gives another image than --no-cache, and",
        f"{total.by_others} only from a reference that is built beside others",
    ]
    lines += [f"  {count / total.edits:6.1%} {way}" for way, count in total.ways.most_common()]
    lines += [f"  {count:6} full: {reason}" for reason, count in total.reasons.most_common(25)]
    return "\n".join(lines)


def _say(text: str) -> None:
    sys.stdout.write(text.encode("utf-8", "backslashreplace").decode() + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main())
