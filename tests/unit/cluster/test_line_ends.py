"""Scripts with the line ends of Windows, by what a container says that does not start."""

from __future__ import annotations

import pytest

from devloop.cluster.rollout.line_ends import windows_line_ends

FILES = {"bin/start.sh": b"#!/bin/sh\r\n", "bin/good.sh": b"#!/bin/sh\n"}


def found_in(*lines: str) -> str | None:
    known = {f"/app/{name}": name for name in FILES}
    found = windows_line_ends(
        lines, lambda paths: {p: known[p] for p in paths if p in known}, lambda p: FILES[p]
    )
    return found.path if found else None


@pytest.mark.parametrize(
    ("line", "path"),
    [
        ("exec /app/bin/start.sh: no such file or directory", "bin/start.sh"),
        ('exec: "/app/bin/start.sh": no such file or directory', "bin/start.sh"),
        ("/app/bin/start.sh: cannot execute: required file not found", "bin/start.sh"),
        ("bash: /app/bin/start.sh: /bin/sh^M: bad interpreter: No such file", "bin/start.sh"),
        (r"env: 'python3\r': No such file or directory", ""),
        (r"/start.sh: line 2: $'\r': command not found", ""),
        ("/start.sh: 2: set: Illegal option -", ""),
        ("exec /app/bin/good.sh: no such file or directory", None),
        ("exec /app/bin/other.sh: no such file or directory", None),
        ("FileNotFoundError: [Errno 2] No such file or directory: 'x'", None),
    ],
)
def test_windows_line_ends_are_named(line: str, path: str | None) -> None:
    assert found_in("starting", line) == path


def test_the_words_name_the_file_and_the_cure() -> None:
    found = windows_line_ends([r"env: 'sh\r': No such file or directory"], None)
    assert found is not None
    assert found.cause.startswith("a script of the image has the line ends of Windows (CRLF)")
    named = windows_line_ends(
        ["exec /x.sh: no such file or directory"], lambda _: {"/x.sh": "x.sh"}, lambda _: b"#!a\r\n"
    )
    assert named is not None
    assert named.suggestions == (
        r"save it with line ends LF: sed -i 's/\r$//' x.sh",
        "keep git from writing others: `*.sh text eol=lf` in .gitattributes",
    )
