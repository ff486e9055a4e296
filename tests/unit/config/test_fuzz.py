"""Whatever stands in the file: a project, or a DevloopError, and never anything else."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from devloop.config.files import check_files
from devloop.config.loader import load_project
from devloop.config.variables import expand
from devloop.errors import DevloopError
from tests.support.examples import examples
from tests.unit.config.corpus import BAD, GOOD

_FILES = [*GOOD.values(), *BAD.values()]
_YAML = [
    "\t",
    "\n",
    "  ",
    ": ",
    "- ",
    "&a ",
    "*a",
    "<<: *a",
    "!!int ",
    "'",
    '"',
    "[",
    "{",
    "}",
    "|\n",
]
_ODD = [
    "\x00",
    "\ud800",
    "\\",
    "\u2028",
    "#",
    "---\n",
    "%YAML 9.9\n",
    "0x",
    "~",
    '"\\ud800"',
    '"\\0"',
]
_VALUES = ["${", "$", "${A:-", "...", "9" * 30, "-.inf", "9e9999", "é"]
_PIECES = st.sampled_from([*_YAML, *_ODD, *_VALUES])


@st.composite
def _mutated(draw: st.DrawFn) -> str:
    text = draw(st.sampled_from(_FILES))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(text)))
        text = (
            text[:at] + draw(_PIECES | st.text(max_size=3)) + text[at + draw(st.integers(0, 6)) :]
        )
    return text


def _load(data: bytes, sets: tuple[str, ...] = ()) -> None:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        (directory / "devloop.yaml").write_bytes(data)
        with contextlib.suppress(DevloopError):
            check_files(load_project(cwd=directory, env={"HOME": "/h"}, sets=sets))


@given(_mutated())
@settings(max_examples=examples(250))
def test_files_that_are_nearly_right(text: str) -> None:
    _load(text.encode("utf-8", "surrogatepass"))


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes(data: bytes) -> None:
    _load(data)


@given(st.text("services.web=[]{}'\"$\x00\n: #é", max_size=30))
def test_any_set(text: str) -> None:
    _load(GOOD["least"].encode(), (text, f"services.web.build={text}"))


@given(st.text("${}AB:-?+x", max_size=30))
def test_expand_never_fails(text: str) -> None:
    expand(text, {"A": "$A${"})
