"""Which change of which Dockerfile may become a layer made here, and what is said if it may not."""

from __future__ import annotations

import pytest

from devloop.builders.delta.analysis import Rules, rules
from devloop.builders.dockerfile import parse
from devloop.builders.image.copies import StageState
from devloop.builders.image.full_build import NeedsFullBuild

BASE = StageState(workdir="/")


def law(text: str, target: str | None = None, args: dict[str, str] | None = None) -> Rules:
    return rules(parse(text), target, args or {}, BASE, "Dockerfile")


def reason(text: str, *paths: str, target: str | None = None) -> str:
    """Why a change of `paths` needs a builder, "" when it does not."""
    try:
        law(text, target).check(paths)
    except NeedsFullBuild as needed:
        return needed.reason
    return ""


RUN_FIRST = "FROM a\nCOPY req.txt /app/\nRUN pip install\nCOPY . /app/\n"
TWO_STAGES = (
    "FROM a AS build\nCOPY src /src\nRUN make\nFROM b\nCOPY --from=build /out /out\nCOPY web /web\n"
)
MOUNT = "FROM a\nRUN --mount=type=bind,source=tools,target=/t make\nCOPY . /app/\n"

TABLE = [
    # Nothing runs after the COPY.
    ("FROM a\nCOPY . /app/\n", ["x/y.py"], ""),
    ("FROM a\nRUN true\nCOPY . /app/\nCMD x\n", ["x/y.py", "z"], ""),
    ("FROM a\nCOPY . /app/\nENV A=b\nUSER u\nWORKDIR /app\nEXPOSE 80\n", ["x"], ""),
    ("FROM a\nCOPY a /a\nCOPY b /b\n", ["a", "b/c"], ""),
    ("FROM a\nADD . /app/\n", ["x"], ""),
    # A RUN reads all that was copied before it.
    ("FROM a\nCOPY . /app/\nRUN make\n", ["x.c"], "Dockerfile:3 RUN reads x.c"),
    ("FROM a\nCOPY . /app/\nRUN make\nRUN test\n", ["x.c"], "Dockerfile:3 RUN reads x.c"),
    (RUN_FIRST, ["app.py"], ""),
    (RUN_FIRST, ["req.txt"], "Dockerfile:3 RUN reads req.txt"),
    (RUN_FIRST, ["app.py", "req.txt"], "Dockerfile:3 RUN reads req.txt"),
    ("FROM a\nCOPY *.txt /x/\nRUN y\nCOPY . /\n", ["a.txt"], "Dockerfile:3 RUN reads a.txt"),
    ("FROM a\nCOPY *.txt /x/\nRUN y\nCOPY . /\n", ["a.py"], ""),
    ("FROM a\nCOPY a[bc] /x/\nRUN y\nCOPY . /\n", ["zz"], "Dockerfile:3 RUN reads zz"),
    ("FROM a\nCOPY d/?.txt /x/\nRUN y\nCOPY . /\n", ["d/a.txt"], "Dockerfile:3 RUN reads d/a.txt"),
    ("FROM a\nCOPY d/?.txt /x/\nRUN y\nCOPY . /\n", ["e/a.txt"], ""),
    # A directory above what is read: its mode may matter.
    ("FROM a\nCOPY d/e /x/\nRUN y\nCOPY . /\n", ["d"], "Dockerfile:3 RUN reads d"),
    ("FROM a\nCOPY ./d/../r /x/\nRUN y\nCOPY . /\n", ["r/f"], "Dockerfile:3 RUN reads r/f"),
    ("FROM a\nCOPY /r/ /x/\nRUN y\nCOPY . /\n", ["r/f"], "Dockerfile:3 RUN reads r/f"),
    ("FROM a\nARG S=r\nCOPY $S /x/\nRUN y\nCOPY . /\n", ["f"], "Dockerfile:4 RUN reads f"),
    ('FROM a\nCOPY "rs" /x/\nRUN y\nCOPY . /\n', ["t"], "Dockerfile:3 RUN reads t"),
    ('FROM a\nCOPY ["r s", "/x/"]\nRUN y\nCOPY . /\n', ["r s/f"], "Dockerfile:3 RUN reads r s/f"),
    # A RUN that mounts the context reads it wherever it stands.
    (MOUNT, ["tools/a"], "Dockerfile:2 RUN reads tools/a"),
    (MOUNT, ["app.py"], ""),
    ("FROM a\nRUN --mount=target=/t make\nCOPY . /\n", ["f"], "Dockerfile:2 RUN reads f"),
    ("FROM a\nRUN --mount=type=cache,target=/t make\nCOPY . /\n", ["f"], ""),
    ("FROM a\nRUN --mount=type=bind,from=b,target=/t make\nCOPY . /\n", ["f"], ""),
    # Other stages that the target needs.
    (TWO_STAGES, ["web/x"], ""),
    (TWO_STAGES, ["src/x"], "Dockerfile:3 RUN of stage build reads src/x"),
    (
        "FROM a AS one\nCOPY x /x\nFROM b\nCOPY --from=one /x /x\nCOPY . /app\n",
        ["x"],
        "Dockerfile:2 COPY of stage one reads x",
    ),
    (
        "FROM a\nCOPY x /x\nFROM b\nCOPY --from=0 /x /x\nCOPY . /app\n",
        ["x"],
        "Dockerfile:2 COPY of stage 0 reads x",
    ),
    ("FROM a AS one\nCOPY x /x\nFROM b\nCOPY . /app\n", ["x"], ""),
    ("FROM a AS base\nCOPY x /x\nFROM base\nCOPY y /y\n", ["y"], ""),
    ("FROM a AS base\nCOPY x /x\nFROM base\nCOPY y /y\n", ["x"], ""),
    (
        "FROM a AS base\nCOPY x /x\nFROM base\nRUN z\nCOPY y /y\n",
        ["x"],
        "Dockerfile:4 RUN reads x",
    ),
    (
        "FROM a AS base\nCOPY x /x\nFROM base AS b\nRUN z\nFROM base\nCOPY --from=b /z /\n",
        ["x"],
        "Dockerfile:2 COPY of stage base reads x",
    ),
    (
        "FROM a AS base\nCOPY x /x\nFROM base\nCOPY --from=base /x /y\nCOPY y /y\n",
        ["x"],
        "Dockerfile:2 COPY of stage base reads x",
    ),
    (
        "ARG B=dev\nFROM a AS dev\nCOPY x /x\nRUN z\nFROM $B\nCOPY y /y\n",
        ["x"],
        "Dockerfile:4 RUN of stage dev reads x",
    ),
    (
        "FROM a AS t\nCOPY x /x\nFROM b\nRUN --mount=from=$T,target=/t z\nCOPY . /\n",
        [],
        "Dockerfile:4 RUN takes from $T",
    ),
    (
        "FROM a AS t\nCOPY tool /tool\nFROM b\nRUN --mount=from=t,target=/t /t/tool\nCOPY . /\n",
        ["tool"],
        "Dockerfile:2 COPY of stage t reads tool",
    ),
    # Nothing reads it at all.
    ("FROM a\nCOPY src /src\n", ["README.md"], ""),
    ("FROM a\nRUN x\n", ["README.md"], ""),
    # Not understood.
    (
        "# syntax=example.com/other\nFROM a\nCOPY . /\n",
        [],
        "Dockerfile names a frontend of its own",
    ),
    ("# syntax=docker/dockerfile:1\nFROM a\nCOPY . /\n", ["x"], ""),
    ("FROM a\nCOYP . /\n", [], "Dockerfile:2 is not understood"),
    ("", [], "Dockerfile:1 is not understood"),
    (
        "FROM a AS base\nONBUILD COPY . /x\nFROM base\nCOPY y /y\n",
        ["y"],
        "the stage base has ONBUILD triggers",
    ),
]


@pytest.mark.parametrize(("text", "paths", "expected"), TABLE)
def test_what_needs_a_builder(text: str, paths: list[str], expected: str) -> None:
    assert reason(text, *paths) == expected


def test_the_target_decides() -> None:
    text = "FROM a AS dev\nCOPY . /app\nFROM dev AS prod\nRUN make\n"
    assert reason(text, "x", target="dev") == ""
    assert reason(text, "x", target="prod") == "Dockerfile:4 RUN reads x"
    assert reason(text, target="other") == "there is no stage other"


def test_behind_a_symlink_a_reader_may_read_anything() -> None:
    found = law("FROM a\nCOPY link/x two /x/\nRUN make\nCOPY . /app\n")
    found.check(["real/x"], ["other", "two/inside", "real/link"])
    for link in ("link", "link/x", "two"):
        with pytest.raises(NeedsFullBuild):
            found.check(["real/x"], [link])


def test_an_argument_that_is_for_the_builder() -> None:
    assert law("FROM a\nCOPY . /\n", args={"A": "b"}).copies
    with pytest.raises(NeedsFullBuild, match="BUILDKIT_SYNTAX"):
        law("FROM a\nCOPY . /\n", args={"BUILDKIT_SYNTAX": "x.io/y"})


def test_only_copies_on_which_nothing_runs_are_looked_for() -> None:
    found = law(
        "FROM a\nCOPY r /app/\nRUN x\nWORKDIR /app\nCOPY a .\nCOPY --from=b /o /o\nCOPY b .\n"
    )
    assert [copy.sources for copy in found.copies] == [("a",), ("b",)]
    assert found.depth == 3
