"""Programs with deadlines, and what a person is told of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.machine import console, shell
from tests.support.waiting import runs, until

if TYPE_CHECKING:
    from pathlib import Path


def test_output_and_input() -> None:
    assert shell.run(["cat"], timeout=10, data=b"words") == "words"
    assert shell.run(["sh", "-c", "echo $OWN"], timeout=10, env={"OWN": "set"}) == "set\n"


def test_a_failure_tells_the_last_words() -> None:
    script = "seq 100; echo the reason >&2; exit 7"
    with pytest.raises(shell.MachineError, match=r"status 7(.|\n)*the reason"):
        shell.run(["sh", "-c", script], timeout=10)


def test_a_program_that_is_not_there() -> None:
    with pytest.raises(shell.MachineError, match="no-such-program: No such file"):
        shell.run(["no-such-program"], timeout=10)
    assert not shell.succeeds(["no-such-program"])
    assert shell.output(["no-such-program"]) == ""


def test_a_deadline_ends_the_children_too(tmp_path: Path) -> None:
    pids = tmp_path / "pid"
    with pytest.raises(shell.MachineError, match="did not end within"):
        shell.run(["sh", "-c", f"sleep 60 & echo $! > {pids}; wait"], timeout=0.3)
    until(lambda: not runs(int(pids.read_text())))


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.04, "0.0 s"), (9.4, "9.4 s"), (59.4, "59 s"), (605, "10 min 5 s")]
)
def test_durations(seconds: float, words: str) -> None:
    assert console.duration(seconds) == words


def test_steps_are_told_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:

    def work() -> None:
        with console.step("outer"):
            with console.step("inner", "1 min"):
                pass
            raise ValueError("no luck")

    with pytest.raises(ValueError, match="no luck"):
        work()
    out, err = capsys.readouterr()
    assert out == ""
    first, second, third, fourth = err.splitlines()
    assert (first, second) == ("==> outer", "    ==> inner (takes 1 min)")
    assert third.startswith("        done in ")
    assert fourth.startswith("    failed after ")
