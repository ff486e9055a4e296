"""What is said of a scan that lasts."""

from __future__ import annotations

import pytest

from devloop.base.cancel import Cancel, Cancelled
from devloop.model import ContextEntry, Snapshot
from devloop.watch.scan_progress import ScanProgress, large_context


def test_a_scan_is_reported_once_it_lasts_and_then_now_and_again() -> None:
    now = [0.0]
    said: list[str] = []
    cancel = Cancel()
    work = ScanProgress(cancel, said.append, clock=lambda: now[0])
    for seconds in (0.0, 1.9, 2.0, 3.0, 6.9, 7.0):
        now[0] = seconds
        work.at, work.files = f"at {seconds}", int(seconds * 1000)
        work.check()
    assert said == ["2,000 files read, at at 2.0", "7,000 files read, at at 7.0"]
    cancel.set()
    with pytest.raises(Cancelled):
        work.check()


def snapshot(**sizes: int) -> Snapshot:
    entries = {path: ContextEntry("file", size=size) for path, size in sizes.items()}
    return Snapshot(entries=entries, digest="", stamp="")


def test_what_is_biggest_is_named_with_the_line_that_leaves_it_out() -> None:
    found = {f"web/node_modules/p{n}/f": 100 for n in range(2000)}
    found |= {"web/app.js": 10, "data [1]/a": 2**30, "data [1]/b": 2**30, "x.bin": 2**29, "y": 1}
    said = large_context(snapshot(**found), 12.4, "web")
    assert said.message == "reading the build context of web took 12 s: 2,005 files, 2.5 GiB"
    assert said.cause == "most of it: data [1]/ (2 files, 2.0 GiB); x.bin (1 file, 512.0 MiB)"
    assert [line.rpartition(": ")[2] for line in said.suggestions] == [r"data \[1\]", "x.bin"]


def test_a_directory_that_is_nearly_all_of_its_parent_stands_for_it() -> None:
    found = {f"web/node_modules/p{n}/f": 100 for n in range(2000)}
    said = large_context(snapshot(**found, **{"web/app.js": 10, "api/a": 5}), 3.0, "web")
    assert said.cause == "most of it: web/node_modules/ (2,000 files, 0.2 MiB)"


def test_a_context_of_nothing_much_is_slow_for_other_reasons() -> None:
    assert large_context(snapshot(), 3.0, "web").cause is None
