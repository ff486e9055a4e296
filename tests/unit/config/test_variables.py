"""${VARIABLES} and .env files."""

from __future__ import annotations

import pytest

from devloop.config.problems import Problems
from devloop.config.variables import expand, parse_dotenv
from devloop.errors import Location

VALUES = {"A": "1", "EMPTY": "", "REF": "${A}", "HOME": "/h"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("${A}", "1"),
        ("x${A}y${A}", "x1y1"),
        ("${EMPTY}", ""),
        ("${REF}", "${A}"),
        ("${NO:-d}", "d"),
        ("${EMPTY:-d}", "d"),
        ("${EMPTY-d}", ""),
        ("${NO-d}", "d"),
        ("${NO:-}", ""),
        ("${NO:-a ${A} b}", "a 1 b"),
        ("${NO:-${ALSO:-${A}}}", "1"),
        ("${A:-${NO}}", "1"),
        ("${A:?needed}", "1"),
        ("${A:+yes}${NO:+no}", "yes"),
        ("${EMPTY+yes}${EMPTY:+no}", "yes"),
        ("$$", "$"),
        ("$${A}", "${A}"),
        ("$$$${A}", "$${A}"),
        ("$", "$"),
        ("5$ and $5", "5$ and $5"),
        ("${NO:-http://x:1/}", "http://x:1/"),
    ],
)
def test_expand(text: str, expected: str) -> None:
    result = expand(text, VALUES)
    assert (result.text, result.troubles) == (expected, ())


@pytest.mark.parametrize(
    ("text", "dollar", "message", "hint"),
    [
        ("${NO}", 0, "the variable NO is not set", "set NO, or give a default: ${NO:-default}"),
        ("$$ ${A} ${HMOE}", 3, "the variable HMOE is not set", "did you mean ${HOME}?"),
        ("${EMPTY:?say why}", 0, "the variable EMPTY is not set: say why", "set EMPTY"),
        ("${NO?}", 0, "the variable NO is not set", "set NO"),
        ("${NO:?see ${A}}", 0, "the variable NO is not set: see 1", "set NO"),
        ("${A", 0, "${A is not closed", "write ${A}"),
        ("${A b}", 0, "${A is not closed", "write ${A}"),
        ("${}", 0, "a name must follow ${", "write $$ for a dollar sign"),
        ("${1}", 0, "a name must follow ${", "write $$ for a dollar sign"),
        ("$A", 0, "$A is neither a variable nor text", "${A} for the variable"),
    ],
)
def test_trouble(text: str, dollar: int, message: str, hint: str) -> None:
    (found,) = expand(text, VALUES).troubles
    assert (found.dollar, found.message, found.suggestions[0]) == (dollar, message, hint)


def test_nested_far_too_deep() -> None:
    result = expand("${N:-" * 1000 + "}" * 1000, {})
    assert [each.message for each in result.troubles][-1:] == ["${N is not closed"]


def test_bare_names() -> None:
    assert expand("$A ${A}", VALUES, bare="keep").text == "$A 1"
    assert expand("$A $NO", VALUES, bare="replace").text == "1 "


DOTENV = r"""
# comment
PLAIN=a b
  export EXPORTED = x
TRAILING=a # comment
HASH=a#b
NOTHING=
ONLY_COMMENT= # x
SINGLE='${PLAIN} \n "it\'s"' # after
DOUBLE="${PLAIN}\n\"x\" \$HOME"
MULTI="one
two"
REF=${PLAIN}-$PLAIN-${UNSET:-d}-$UNSET
EQUALS=a=b
COLON: c
FROM_ENV
NOT_IN_ENV
SUBSHELL=$(date)`id`
OVERRIDDEN=file
SEES=${OVERRIDDEN}
"""


def test_dotenv() -> None:
    problems = Problems()
    found = parse_dotenv(DOTENV, ".env", {"FROM_ENV": "e", "OVERRIDDEN": "env"}, problems)
    assert problems.sorted() == ()
    assert found == {
        "PLAIN": "a b",
        "EXPORTED": "x",
        "TRAILING": "a",
        "HASH": "a#b",
        "NOTHING": "",
        "ONLY_COMMENT": "",
        "SINGLE": '${PLAIN} \\n "it\'s"',
        "DOUBLE": 'a b\n"x" $HOME',
        "MULTI": "one\ntwo",
        "REF": "a b-a b-d-",
        "EQUALS": "a=b",
        "COLON": "c",
        "FROM_ENV": "e",
        "SUBSHELL": "$(date)`id`",
        "OVERRIDDEN": "file",
        "SEES": "env",
    }


def test_dotenv_with_windows_line_ends() -> None:
    assert parse_dotenv("A=1\r\nB='2'\r\n", ".env", {}, Problems()) == {"A": "1", "B": "2"}


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("A=1\nwhat is this", 2, "NAME=value"),
        ("1A=x", 1, "NAME=value"),
        ("A='x\nB=1", 1, "not closed"),
        ('A="x" y\nB=1', 1, "after the closing quote"),
        ("A=${", 1, "a name must follow"),
        ("\nA=${X:?why}", 2, "the variable X is not set: why"),
    ],
)
def test_dotenv_problems(text: str, line: int, words: str) -> None:
    problems = Problems()
    found = parse_dotenv(text, ".env", {}, problems)
    (trouble,) = problems.sorted()
    assert trouble.location == Location(".env", line, 1)
    assert words in trouble.message
    assert found.get("B", "1") == "1"
