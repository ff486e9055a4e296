from __future__ import annotations

import os
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from devloop.base import process
from devloop.base.cancel import Cancel, Cancelled
from devloop.base.process import CannotRun, Overran, Silence, capture, run
from tests.support.waiting import Overdue, runs, until

if TYPE_CHECKING:
    from pathlib import Path


def shell(script: str, **options: object) -> tuple[int, list[str]]:
    lines: list[str] = []
    arguments: dict[str, object] = {"cancel": Cancel(), "on_line": lines.append, "limit": 20.0}
    status = run(["sh", "-c", script], **(arguments | options))  # type: ignore[arg-type]
    return status, lines


def test_lines_of_both_streams_and_the_status() -> None:
    assert shell("echo one; echo two >&2; printf 'three\\r\\nfour'; exit 7") == (
        7,
        ["one", "two", "three", "four"],
    )


def test_bytes_that_are_no_text_do_no_harm() -> None:
    assert shell("printf '\\377\\n'") == (0, ["\ufffd"])


def test_cancelling_ends_the_whole_group(tmp_path: Path) -> None:
    cancel, pids = Cancel(), tmp_path / "pids"
    script = (
        f"trap '' TERM; sleep 60 & echo $$ $! > {pids}.new; mv {pids}.new {pids}; wait; sleep 60"
    )
    threading.Thread(target=_cancel_when, args=(pids, cancel), name="devloop-test").start()
    with pytest.raises(Cancelled):
        shell(script, cancel=cancel)
    until(lambda: not any(runs(int(pid)) for pid in pids.read_text().split()))


def _cancel_when(path: Path, cancel: Cancel) -> None:
    until(path.exists)
    cancel.set()


def test_a_polite_program_ends_by_itself(tmp_path: Path) -> None:
    cancel, ready, said = Cancel(), tmp_path / "ready", tmp_path / "said"
    script = f"trap 'echo bye > {said}; exit 0' TERM; touch {ready}; while :; do sleep 0.02; done"
    threading.Thread(target=_cancel_when, args=(ready, cancel), name="devloop-test").start()
    with pytest.raises(Cancelled):
        shell(script, cancel=cancel)
    assert said.read_text() == "bye\n"


def test_nothing_starts_once_cancelled(tmp_path: Path) -> None:
    cancel = Cancel()
    cancel.set()
    with pytest.raises(Cancelled):
        shell(f"touch {tmp_path}/x", cancel=cancel)
    assert not (tmp_path / "x").exists()


def test_the_limit() -> None:
    with pytest.raises(Overran):
        shell("sleep 60", limit=0.1)


def test_silence_is_reported() -> None:
    told: list[float] = []
    shell("sleep 0.9", silence=Silence(every=0.3, report=told.append))
    assert told
    assert all(seconds >= 0.3 for seconds in told)


def test_a_child_that_keeps_the_pipe_does_not_hold_us(tmp_path: Path) -> None:
    status, lines = shell(f"sleep 60 & echo $! > {tmp_path}/pid; echo done")
    assert (status, lines) == (0, ["done"])
    os.kill(int((tmp_path / "pid").read_text()), 9)


def test_a_program_that_closes_its_output_is_waited_for_and_cancelled(tmp_path: Path) -> None:
    assert shell("exec >&- 2>&-; sleep 0.1; exit 3")[0] == 3
    cancel = Cancel()
    threading.Timer(0.05, cancel.set).start()
    with pytest.raises(Cancelled):
        shell("exec >&- 2>&-; sleep 60", cancel=cancel)


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CannotRun) as caught:
        run(["no-such-tool"], cancel=Cancel(), on_line=print, limit=1.0)
    assert caught.value.missing
    with pytest.raises(CannotRun) as caught:
        shell("true", cwd=tmp_path / "gone")
    assert caught.value.directory == tmp_path / "gone"
    assert not caught.value.missing
    (tmp_path / "plain").touch()
    with pytest.raises(CannotRun) as caught:
        run([str(tmp_path / "plain")], cancel=Cancel(), on_line=print, limit=1.0)
    assert caught.value.reason == "Permission denied"


def test_both_streams_apart_and_input_larger_than_a_pipe() -> None:
    given = b"0123456789abcdef" * 20_000
    done = capture(
        ["sh", "-c", "cat; echo no >&2; exit 4"], cancel=Cancel(), limit=20.0, given=given
    )
    assert (done.status, done.err) == (4, "no\n")
    assert done.out.encode() == given


def test_a_program_may_leave_its_input_unread() -> None:
    done = capture(["true"], cancel=Cancel(), limit=20.0, given=b"x" * 1_000_000)
    assert (done.status, done.out, done.err) == (0, "", "")


def test_error_lines_come_while_the_program_runs() -> None:
    out: list[str] = []
    err: list[str] = []
    assert shell("echo a; echo b >&2", on_line=out.append, on_error_line=err.append)[0] == 0
    assert (out, err) == (["a"], ["b"])
    done = capture(
        ["sh", "-c", "echo c >&2; echo d"], cancel=Cancel(), limit=20.0, on_error_line=err.append
    )
    assert (err, done.err, done.out) == (["b", "c"], "c\n", "d\n")


def test_what_was_read_until_the_limit_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "time", Overdue((tmp_path / "said").exists))
    script = f"echo why >&2; : > {tmp_path}/said; exec sleep 60"
    with pytest.raises(Overran) as caught:
        capture(["sh", "-c", script], cancel=Cancel(), limit=90.0)
    assert caught.value.err == "why\n"


def test_what_a_line_raises_ends_the_program(tmp_path: Path) -> None:
    def refuse(line: str) -> None:
        raise ValueError(line)

    with pytest.raises(ValueError, match="one"):
        shell(f"echo $$ > {tmp_path}/pid; echo one; sleep 60", on_line=refuse)
    assert not runs(int((tmp_path / "pid").read_text()))


@pytest.mark.skipif(sys.platform == "darwin", reason="counts /proc/self/fd")
def test_no_descriptor_is_left() -> None:
    shell("true")
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for _ in range(3):
        shell("echo x")
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_a_program_that_may_use_the_terminal_shares_our_group_and_still_ends_with_its_cancel() -> (
    None
):
    code = "import os; print(os.getpgid(0))"
    done = capture([sys.executable, "-c", code], cancel=Cancel(), limit=20, terminal=True)
    assert done.out.strip() == str(os.getpgid(0))
    cancel = Cancel()
    timer = threading.Timer(0.2, cancel.set)
    timer.start()
    with pytest.raises(Cancelled):
        capture(["sleep", "100"], cancel=cancel, limit=20, terminal=True)
    timer.join()
