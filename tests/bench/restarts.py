"""What the supervisor holds after many restarts of a command that forks: nothing more than before.

    python -m tests.bench.restarts --times 10000

Every third command is killed before it has ended by itself; a peer comes and goes with each.
"""

from __future__ import annotations

import argparse
import sys
import time

from tests.support.agent import Footprint, program, restart_often


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.restarts")
    parser.add_argument("--times", type=int, default=10_000)
    times = parser.parse_args().times
    began = time.monotonic()
    seen: list[Footprint] = []
    for count, found in restart_often(times, every=max(1, times // 20)):
        seen.append(found)
        sys.stdout.write(f"{count:6} {time.monotonic() - began:6.0f} s  {found}\n")
        sys.stdout.flush()
    first, last = seen[0], seen[-1]
    sys.stdout.write(f"{program()}, {program().stat().st_size} bytes\n")
    same = last.descriptors == first.descriptors and last.zombies == 0
    return 0 if same and last.resident <= first.resident + 16 and last.resident < 1024 else 1


if __name__ == "__main__":
    raise SystemExit(main())
