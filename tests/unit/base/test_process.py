from __future__ import annotations

import os
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest

from devloop.base.cancel import Cancel, Cancelled
from devloop.base.process import Overran, Quiet, run
from devloop.errors import DevloopError

if TYPE_CHECKING:
    from pathlib import Path


def shell(script: str, **options: object) -> tuple[int, list[str]]:
    lines: list[str] = []
    arguments: dict[str, object] = {"cancel": Cancel(), "on_line": lines.append, "limit": 20.0}
    status = run(["sh", "-c", script], **(arguments | options))  # type: ignore[arg-type]
    return status, lines


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    # Reaped by init at some later time: a zombie is as good as gone.
    try:
        with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123
            return file.read().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return False


def wait_until_gone(pid: int) -> bool:
    deadline = time.monotonic() + 2
    while time.monotonic() < deadline:
        if gone(pid):
            return True
        time.sleep(0.01)
    return False


def test_lines_of_both_streams_and_the_status() -> None:
    assert shell("echo one; echo two >&2; printf 'three\\r\\nfour'; exit 7") == (
        7,
        ["one", "two", "three", "four"],
    )


def test_bytes_that_are_no_text_do_no_harm() -> None:
    assert shell("printf '\\377\\n'") == (0, ["\ufffd"])


def test_a_quick_program_is_quick() -> None:
    started = time.monotonic()
    shell("true")
    assert time.monotonic() - started < 0.2


def test_cancelling_ends_the_whole_group(tmp_path: Path) -> None:
    cancel, pids = Cancel(), tmp_path / "pids"
    script = (
        f"trap '' TERM; sleep 60 & echo $$ $! > {pids}.new; mv {pids}.new {pids}; wait; sleep 60"
    )
    threading.Thread(target=_cancel_when, args=(pids, cancel), name="devloop-test").start()
    with pytest.raises(Cancelled):
        shell(script, cancel=cancel)
    for pid in pids.read_text().split():
        assert wait_until_gone(int(pid))


def _cancel_when(path: Path, cancel: Cancel) -> None:
    deadline = time.monotonic() + 5
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
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
    started = time.monotonic()
    with pytest.raises(Overran):
        shell("sleep 60", limit=0.1)
    assert time.monotonic() - started < 2


def test_silence_is_told() -> None:
    told: list[float] = []
    shell("sleep 0.9", quiet=Quiet(every=0.3, tell=told.append))
    assert told
    assert all(seconds >= 0.3 for seconds in told)


def test_a_child_that_keeps_the_pipe_does_not_hold_us(tmp_path: Path) -> None:
    started = time.monotonic()
    status, lines = shell(f"sleep 30 & echo $! > {tmp_path}/pid; echo done")
    assert (status, lines) == (0, ["done"])
    assert time.monotonic() - started < 5
    os.kill(int((tmp_path / "pid").read_text()), 9)


def test_a_program_that_closes_its_output_is_waited_for_and_cancelled(tmp_path: Path) -> None:
    assert shell("exec >&- 2>&-; sleep 0.3; exit 3")[0] == 3
    cancel = Cancel()
    threading.Timer(0.2, cancel.set).start()
    with pytest.raises(Cancelled):
        shell("exec >&- 2>&-; sleep 60", cancel=cancel)


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DevloopError) as caught:
        run(["no-such-tool"], cancel=Cancel(), on_line=print, limit=1.0)
    assert caught.value.code == "env/tool-missing"
    with pytest.raises(DevloopError) as caught:
        shell("true", cwd=tmp_path / "gone")
    assert caught.value.code == "config/context-missing"
    (tmp_path / "plain").touch()
    with pytest.raises(DevloopError) as caught:
        run([str(tmp_path / "plain")], cancel=Cancel(), on_line=print, limit=1.0)
    assert caught.value.code == "env/tool-missing"


@pytest.mark.skipif(sys.platform == "darwin", reason="counts /proc/self/fd")
def test_no_descriptor_is_left() -> None:
    shell("true")
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for _ in range(3):
        shell("echo x")
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
