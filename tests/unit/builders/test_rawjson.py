from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devloop.builders.rawjson import Note, Solve, one_line, plain, size, split_name
from tests.unit.builders.kit import recorded


def feed(name: str) -> tuple[Solve, list[Note]]:
    solve = Solve()
    return solve, [note for line in recorded(name) for note in solve.feed(line)]


def compact(name: str) -> list[str]:
    """The same stream as later buildx versions write it, one object a line."""
    lines: list[str] = []
    text, decoder = "\n".join(recorded(name)), json.JSONDecoder()
    while text.startswith("{"):
        value, end = decoder.raw_decode(text)
        lines.append(json.dumps(value))
        text = text[end:].lstrip("\n")
    return [*lines, *text.split("\n")]


def test_a_good_build_is_told_step_by_step() -> None:
    solve, notes = feed("buildx-ok")
    assert solve.failed is None
    assert solve.summary == "5 steps, 1 cached"
    steps = [n for n in notes if n.kind == "step"]
    assert [(n.message, n.current, n.total) for n in steps] == [
        ("[base 1/2] FROM docker.io/library/busybox-base:dev", 1, 2),
        ("[base 2/2] RUN echo hello && echo world >&2", 2, 2),
        ("[stage-1 1/3] COPY a.txt /a.txt", 1, 3),
        ("[stage-1 2/3] WORKDIR /x", 2, 3),
        ("[stage-1 3/3] RUN cat /a.txt", 3, 3),
    ]
    exports = [n.message for n in notes if n.kind == "export"]
    assert exports[:2] == ["exporting to image", "exporting layers"]
    assert "pushing localhost:5001/ok:t1 with docker" in exports


def test_one_object_a_line_says_the_same() -> None:
    spread, notes = feed("buildx-run")
    solve = Solve()
    assert [note for line in compact("buildx-run") for note in solve.feed(line)] == notes
    assert solve.failed is not None
    assert spread.failed is not None
    assert solve.failed.log == spread.failed.log
    assert solve.text == spread.text


def test_the_failed_step_and_its_log() -> None:
    solve, _ = feed("buildx-run")
    failed = solve.failed
    assert failed is not None
    assert split_name(failed.name) == ("", 2, 2, "RUN echo start;   echo bad >&2; exit 3")
    assert "exit code: 3" in failed.error
    # The daemon passes the two streams on as they come, not as they were written.
    assert sorted(solve.tail(failed, 20)) == ["bad", "start"]
    assert len(solve.tail(failed, 1)) == 1
    assert solve.text[-1].startswith("ERROR: failed to solve:")


def test_a_failed_push_is_an_export() -> None:
    solve, _ = feed("buildx-refused")
    assert solve.failed is not None
    assert solve.failed.exports
    assert not solve.failed.numbered


def test_a_cancelled_neighbour_is_not_the_culprit() -> None:
    solve = Solve()
    vertexes = [
        {"digest": "a", "name": "[a 1/2] RUN x", "started": "t", "error": "context canceled"},
        {"digest": "b", "name": "[b 1/2] RUN y", "started": "t", "error": "exit code: 1"},
    ]
    solve.feed(json.dumps({"vertexes": vertexes}))
    assert solve.failed is not None
    assert solve.failed.digest == "b"


def test_running_names_the_step_that_began_last() -> None:
    solve = Solve()
    solve.feed('{"vertexes":[{"digest":"a","name":"[1/2] RUN x","started":"t"}]}')
    solve.feed('{"vertexes":[{"digest":"c","name":"[internal] load","started":"t"}]}')
    assert solve.running == solve.vertices["a"]
    assert Solve().running is None


@pytest.mark.parametrize(
    ("state", "seconds"),
    [
        ({"started": "2026-11-24T00:21:34.5Z"}, 0),
        (
            {"started": "2026-11-24T00:21:34.708310283Z", "completed": "2026-11-24T00:21:44.2083Z"},
            9.49999,
        ),
        ({"started": "2026-11-24T00:21:34Z", "completed": "2026-11-24T01:21:40+01:00"}, 6),
        ({"started": "2026-11-24T00:21:34Z", "completed": "2026-11-24T00:21:40"}, 0),
        ({"started": "t", "completed": 5}, 0),
        (
            {
                "started": "2026-11-24T00:21:34Z",
                "completed": "2026-11-24T00:21:44Z",
                "cached": True,
            },
            0,
        ),
    ],
)
def test_how_long_a_step_took(state: dict[str, Any], seconds: float) -> None:
    solve = Solve()
    solve.feed(json.dumps({"vertexes": [{"digest": "a", "name": "[1/2] RUN x", **state}]}))
    assert solve.vertices["a"].seconds == pytest.approx(seconds)


def test_logs_may_be_cut_anywhere_and_hold_escapes() -> None:
    solve = Solve()
    solve.feed('{"vertexes":[{"digest":"a","name":"[1/2] RUN x","started":"t"}]}')
    for piece in (b"10%\r20%\r", b"30%\none \x1b[31mr", b"ed\x1b[0m\n\x1b]0;title\x07end"):
        data = base64.b64encode(piece).decode()
        solve.feed(json.dumps({"logs": [{"vertex": "a", "stream": 1, "data": data}]}))
    assert solve.tail(solve.vertices["a"], 9) == ("30%", "one red", "end")


def test_a_big_context_is_reported() -> None:
    solve = Solve()
    solve.feed('{"vertexes":[{"digest":"a","name":"[internal] load build context"}]}')
    status = {"id": "transferring context:", "vertex": "a", "current": 26}
    assert solve.feed(json.dumps({"statuses": [status]})) == []
    notes = solve.feed(json.dumps({"statuses": [status | {"current": 2_600_000}]}))
    assert [n.message for n in notes] == ["sending the context, 2.6 MB"]


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["vertexes", "statuses", "logs", "digest", "name", "vertex", "data"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(st.lists(st.one_of(st.text(max_size=20), _JSON.map(json.dumps), st.just("{"), st.just("}"))))
def test_no_line_ever_raises(lines: list[str]) -> None:
    solve = Solve()
    for line in lines:
        solve.feed(line)
    _ = (solve.failed, solve.running, solve.summary)


def test_split_name() -> None:
    assert split_name("[build 2/10] COPY a b") == ("build", 2, 10, "COPY a b")
    assert split_name("[linux/amd64 build 2/3] RUN x") == ("build", 2, 3, "RUN x")
    assert split_name("[linux/arm64 1/2] FROM x") == ("", 1, 2, "FROM x")
    assert split_name("[internal] load metadata") is None


def test_small_helpers() -> None:
    assert [size(n) for n in (0, 999, 1500, 2_500_000, 3 * 10**9)] == [
        *("0 B", "999 B", "1.5 kB", "2.5 MB", "3.0 GB")
    ]
    assert one_line("a\n  b\x1b[2K " + "x" * 200, 10) == "a b xxxxx…"
    assert plain("a\tb\x07\x1b]8;;http://x\x1b\\c") == "a\tbc"
