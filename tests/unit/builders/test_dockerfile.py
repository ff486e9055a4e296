from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from devloop.builders.dockerfile import load, parse
from devloop.errors import DevloopError

if TYPE_CHECKING:
    from pathlib import Path

MULTI = """\
# syntax=docker/dockerfile:1.7
# escape=\\
ARG PY=3.13
FROM python:${PY} AS base

RUN --mount=type=cache,target=/root/.cache \\
    # a comment inside
    pip install -r req.txt && \\

    true
FROM --platform=linux/amd64 golang AS Tools
COPY go.mod go.sum ./
RUN --mount=type=bind,source=hack,target=/hack --mount=type=bind,from=base,target=/b go build
FROM base
COPY --from=tools --chown=1:1 /bin/x /bin/x
copy ["a b.txt", "c.txt", "/dest/"]
ADD https://example.com/x.tgz local.tgz /opt/
COPY <<EOF other.txt /etc/
hello
EOF
RUN <<-'END' cat
\tFROM nothing
\tEND
ENTRYPOINT ["x"]
"""


def test_stages_lines_and_flags() -> None:
    dockerfile = parse(MULTI)
    assert dockerfile.problems == ()
    assert dockerfile.directives == {"syntax": "docker/dockerfile:1.7", "escape": "\\"}
    assert [(s.index, s.base, s.name, s.platform) for s in dockerfile.stages] == [
        (0, "python:${PY}", "base", ""),
        (1, "golang", "Tools", "linux/amd64"),
        (2, "base", "", ""),
    ]
    assert [str(a) for a in dockerfile.arguments] == ["ARG PY=3.13"]
    places = [(i.keyword, i.start, i.end) for i in dockerfile.instructions]
    assert places == [
        ("ARG", 3, 3),
        ("FROM", 4, 4),
        ("RUN", 6, 10),
        ("FROM", 11, 11),
        ("COPY", 12, 12),
        ("RUN", 13, 13),
        ("FROM", 14, 14),
        ("COPY", 15, 15),
        ("COPY", 16, 16),
        ("ADD", 17, 17),
        ("COPY", 18, 20),
        ("RUN", 21, 23),
        ("ENTRYPOINT", 24, 24),
    ]
    run = dockerfile.at(8)
    assert run is not None
    assert run.flags == (("mount", "type=cache,target=/root/.cache"),)
    assert str(run) == "RUN pip install -r req.txt && true"
    copy = dockerfile.at(15)
    assert copy is not None
    assert copy.flag("from") == "tools"
    assert copy.flag("link") is None


def test_heredocs_keep_their_text() -> None:
    dockerfile = parse(MULTI)
    copy, run = dockerfile.at(19), dockerfile.at(22)
    assert copy is not None
    assert run is not None
    assert [(h.name, h.text, h.start, h.end, h.expand) for h in copy.heredocs] == [
        ("EOF", "hello\n", 19, 20, True)
    ]
    assert [(h.name, h.text, h.expand) for h in run.heredocs] == [("END", "FROM nothing\n", False)]
    assert [s.base for s in dockerfile.stages][-1] == "base"


def test_the_stages_that_a_target_needs() -> None:
    dockerfile = parse(MULTI)
    assert [s.index for s in dockerfile.needed("TOOLS")] == [0, 1]
    assert [s.index for s in dockerfile.needed("1")] == [0, 1]


def test_a_stage_named_like_an_image_does_not_need_itself() -> None:
    dockerfile = parse("FROM python AS python\nCOPY a /\n")
    assert [s.index for s in dockerfile.needed()] == [0]


@pytest.mark.parametrize(
    ("text", "line", "column", "message"),
    [
        ("", 1, 1, "no instructions"),
        ("# just a comment\n", 1, 1, "no instructions"),
        ("FROM x\n  RUNN echo\n", 2, 3, "unknown instruction: RUNN"),
        ("RUN echo\nFROM x\n", 1, 1, "before the first FROM"),
        ("FROM a b\n", 1, 1, "FROM takes"),
        ("FROM a\nCOPY\n", 2, 1, "at least one argument"),
        ("FROM a\nRUN <<EOF\necho\n", 2, 1, "unterminated heredoc EOF"),
    ],
)
def test_problems_have_a_place(text: str, line: int, column: int, message: str) -> None:
    problem = parse(text).problems[0]
    assert (problem.line, problem.column) == (line, column)
    assert message in problem.message


def test_the_nearest_keyword_is_suggested() -> None:
    assert parse("FROM x\nCOYP a b\n").problems[0].suggestion == "did you mean COPY?"


def test_another_frontend_may_know_more() -> None:
    dockerfile = parse("# syntax=example.com/mine:1\nINCLUDE common\nFROM x\n")
    assert dockerfile.problems == ()
    assert dockerfile.custom_syntax
    assert dockerfile.instructions[0].raw == "INCLUDE common"


def test_backtick_escape_and_windows_line_ends() -> None:
    dockerfile = parse("# escape=`\r\nFROM x\r\nRUN a `\r\n  b\r\nCOPY c:\\x \\\r\nCMD d\r\n")
    assert [(i.keyword, i.start, i.end) for i in dockerfile.instructions] == [
        ("FROM", 2, 2),
        ("RUN", 3, 4),
        ("COPY", 5, 5),
        ("CMD", 6, 6),
    ]
    assert str(dockerfile.instructions[1]) == "RUN a b"


def test_directives_end_at_the_first_other_line() -> None:
    assert parse("\n# escape=`\nFROM x\n").directives == {}
    assert parse("# hello\n# escape=`\nFROM x\n").directives == {}


def test_a_byte_order_mark_is_no_instruction() -> None:
    assert parse("\ufeffFROM x\n").problems == ()


def test_steps_are_numbered_as_buildkit_does() -> None:
    dockerfile = parse("FROM a\nENV X=1\nWORKDIR /x\nRUN y\nFROM scratch\nCOPY --from=0 / /\n")
    assert [str(i) for i in dockerfile.stages[0].steps] == ["FROM a", "WORKDIR /x", "RUN y"]
    assert [str(i) for i in dockerfile.stages[1].steps] == ["COPY / /"]


_PIECES = st.sampled_from(
    [
        *("FROM a", "FROM a AS b", "RUN x", "COPY --from=b x y", "ADD", "#c", "# escape=`", "\\"),
        *("RUN <<A", "A", "\t", " ", "`", "RUN --mount=type=bind,source=.", 'COPY ["a",', "--x="),
        *("ONBUILD RUN <<B", "<<", '"', "\r", "\0", "\udce4", "ENV a=b\\"),
    ]
)


@given(st.one_of(st.text(), st.lists(_PIECES).map("\n".join), st.lists(_PIECES).map("".join)))
@example("RUN <<A <<A\nA\n")
@example("FROM \\\n")
@example("RUN --mount=\n")
def test_any_text_is_read_and_every_line_belongs_once(text: str) -> None:
    dockerfile = parse(text)
    last = 0
    for instruction in dockerfile.instructions:
        assert last < instruction.start <= instruction.end
        last = instruction.end
        assert instruction.raw.count("\n") == instruction.end - instruction.start
        assert all(instruction.start < h.start for h in instruction.heredocs)
        _ = (instruction.sources, instruction.mounts, instruction.arguments, str(instruction))
    assert last <= text.count("\n") + 1
    _ = (dockerfile.needed(), dockerfile.needed("b"))


def test_a_missing_file_is_the_configs_fault(tmp_path: Path) -> None:
    with pytest.raises(DevloopError) as caught:
        load(tmp_path / "Dockerfile", "app/Dockerfile")
    assert caught.value.code == "config/dockerfile-missing"
    assert str(caught.value.diagnosis.location) == "app/Dockerfile"


def test_heredocs_may_be_named_as_files_are() -> None:
    text = (
        "FROM a\nCOPY <<app-conf <<more.conf /etc/\nFROM b\napp-conf\nsecond\nmore.conf\nCOPY . .\n"
    )
    found = parse(text)
    assert found.problems == ()
    (stage,) = found.stages
    copy, last = stage.instructions[1:]
    assert [(h.name, h.text) for h in copy.heredocs] == [
        ("app-conf", "FROM b\n"),
        ("more.conf", "second\n"),
    ]
    assert copy.sources == ()
    assert last.sources == (".",)
