"""`devloop clean` asks before it stops a registry of others."""

from __future__ import annotations

import io
import sys

import click
import pytest

from devloop.cli.clean import _confirm
from devloop.errors import Code, DevloopError

OTHERS = ("a/web", "b/web", "c/web", "d/web")


class Terminal(io.StringIO):
    """What somebody types."""

    def isatty(self) -> bool:
        return True


def test_yes_is_the_answer() -> None:
    _confirm("localhost:5001", OTHERS, yes=True)


def test_without_a_terminal_nothing_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    with pytest.raises(DevloopError) as caught:
        _confirm("localhost:5001", OTHERS, yes=False)
    assert caught.value.code == Code.USAGE_ARGUMENTS
    assert caught.value.diagnosis.cause == "it has images of a/web, b/web, c/web and 1 more"
    assert caught.value.diagnosis.suggestions == ("add --yes",)


def test_the_question_is_no_part_of_the_output(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal("y\n"))
    _confirm("localhost:5001", OTHERS[:1], yes=False)
    monkeypatch.setattr(sys, "stdin", Terminal("n\n"))
    with pytest.raises(click.Abort):
        _confirm("localhost:5001", OTHERS[:1], yes=False)
    captured = capsys.readouterr()
    assert captured.err.count("localhost:5001 has images of a/web as well") == 2
    assert "images" not in captured.out
