"""Run by test_watch_session in a user namespace: watching with too few inotify watches."""

from __future__ import annotations

import sys
from pathlib import Path

from devloop.watch.source import ServiceSource
from tests.integration.watch.watching import Session, service


def main(root: Path) -> None:
    for limit in ("12", "0"):
        Path("/proc/sys/user/max_inotify_watches").write_text(limit)
        source = ServiceSource(service(root), root)
        with Session(source, poll_seconds=0.05) as session:
            session.change((root / "src/app.py").write_text, f"limit {limit}")
            session.change((root / "src/d29/f.py").write_text, f"limit {limit}")
            (root / f"src/new{limit}").mkdir()
            (root / f"src/new{limit}/a.py").write_text("one")
            session.has(f"src/new{limit}/a.py")
            assert session.told == ["env/inotify-limit"], session.told
            print(*session.told)


main(Path(sys.argv[1]))
