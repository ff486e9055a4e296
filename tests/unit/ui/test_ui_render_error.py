"""How a command tells why it failed."""

from __future__ import annotations

from devloop.errors import Code, Diagnosis, Location
from devloop.ui.text import format_diagnosis, problem_line

FULL = Diagnosis(
    code=Code.BUILD_RUN_FAILED,
    message="RUN exited 1: pip install",
    location=Location("Dockerfile", 12),
    cause="pip could not find `flaks`, which requirements.txt names in its third line",
    suggestions=("did you mean `flask`?", "run pip-compile"),
    detail=("\x1b[31mERROR\x1b[0m: No\x07 matching", ""),
)


def test_plain() -> None:
    assert format_diagnosis(FULL, width=60) == (
        "error[build/run-failed]: RUN exited 1: pip install\n"
        "  at Dockerfile:12:1\n"
        "    ERROR: No\\x07 matching\n"
        "\n"
        "  cause  pip could not find `flaks`, which requirements.txt\n"
        "         names in its third line\n"
        "  try    did you mean `flask`?\n"
        "         run pip-compile"
    )


def test_coloured_text_is_the_same_text() -> None:
    text = format_diagnosis(FULL, color=True, width=0)
    assert "\x1b[1;31merror[build/run-failed]\x1b[0m: " in text
    assert "\x1b[31mERROR\x1b[0m: No\\x07 matching\x1b[0m" in text
    assert "names in its third line\n" in text


def test_the_least_there_is() -> None:
    least = Diagnosis(code=Code.USAGE_ARGUMENTS, message="no such option", severity="warning")
    assert format_diagnosis(least) == "warning[usage/arguments]: no such option"
    assert problem_line(least) == "devloop: warning[usage/arguments]: no such option"
