"""From bytes to lines: timestamps, cuts, odd bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devloop.logs.lines import LINE_LIMIT, REDRAWN_LIMIT, Piece, Splitter, second_before, to_key

TS = "2026-11-23T14:31:07.123456789Z"
KEY = "2026-11-23T14:31:07.123456789"


@pytest.mark.parametrize(
    ("ts", "key"),
    [
        (TS, KEY),
        ("2026-11-23T14:31:07.12Z", "2026-11-23T14:31:07.120000000"),
        ("2026-11-23T14:31:07Z", "2026-11-23T14:31:07.000000000"),
        ("2026-11-23T15:31:07.12+01:00", "2026-11-23T14:31:07.120000000"),
        ("2026-11-23T23:31:07.000000001-02:30", "2026-11-24T02:01:07.000000001"),
        ("2026-13-23T15:31:07+01:00", ""),
        ("failed", ""),
        ("", ""),
    ],
)
def test_keys(ts: str, key: str) -> None:
    assert to_key(ts) == key


def test_the_second_before() -> None:
    assert second_before("2026-03-01T00:00:00.5") == "2026-02-28T23:59:59"


def read(data: bytes, sizes: list[int] | None = None) -> list[Piece]:
    splitter = Splitter()
    pieces: list[Piece] = []
    for size in sizes or []:
        pieces += splitter.feed(data[:size])
        data = data[size:]
    return pieces + splitter.feed(data) + splitter.end()


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"hello", "hello"),
        (b"", ""),
        (b"  indented ", "  indented "),
        (b"windows\r", "windows"),
        (b"50%\r100%", "100%"),
        (b"\r 50%\r100%\r\r", "100%"),
        (b"100%\r   ", "100%"),
        (b"\r", ""),
        # What a terminal shows: written over from the first column, the rest stays.
        (b"downloading\rdone", "doneloading"),
        (b"a long line\rmiddle\rxy", "xyddle line"),
        (b"downloading\rdone\x1b[K", "done\x1b[K"),
        (b"downloading\r\x1b[Kdone", "\x1b[Kdone"),
        (b"downloading\x1b[2K\rdone", "done"),
        (b"downloading\r\x1b[2Kdone", "done"),
        (b"downloading\x1b[2K\x1b[1Gdone", "done"),  # yarn, npm
        (b"downloading\x1b[2K\r", "downloading\x1b[2K"),  # a bar that leaves nothing behind
        (b"\x1b[32m 9 of 10\x1b[0m\r\x1b[32m10\x1b[0m", "\x1b[32m10\x1b[0m of 10"),
        (b"  0%|   | 0/2\r 50%|#  | 1/2\r100%|###| 2/2", "100%|###| 2/2"),  # tqdm
        (
            b"   ---- 0.1/2.0 MB\r   \x1b[90m====\x1b[0m 2.0/2.0 MB",
            "   \x1b[90m====\x1b[0m 2.0/2.0 MB",
        ),  # pip
        (b"caf\xc3\xa9 \xff\xfe", "café \ufffd\ufffd"),
        (b"nul\x00", "nul\x00"),
    ],
)
@pytest.mark.parametrize("newline", [b"\n", b""])
def test_lines(body: bytes, text: str, newline: bytes) -> None:
    (piece,) = read(TS.encode() + b" " + body + newline)
    assert (piece.key, piece.ts, piece.text) == (KEY, TS, text)


def test_what_is_drawn_over_a_long_line_takes_linear_time() -> None:
    (piece,) = read(TS.encode() + b" " + b"x" * 5000 + b"\ry" * 29_000)
    assert piece.text == "y" + "x" * 4999


def test_a_timestamp_alone_is_an_empty_line() -> None:
    assert [p.text for p in read(TS.encode() + b"\n")] == [""]


def test_what_the_kubelet_says_itself_has_no_key() -> None:
    said = b"failed to create fsnotify watcher: too many open files"
    assert read(said) == [Piece("", "", 0, said)]


def test_a_very_long_line_comes_in_marked_pieces() -> None:
    pieces = read(f"{TS} {'ü' * LINE_LIMIT}\n{TS} next\n".encode())
    assert [(p.index, p.more) for p in pieces] == [(0, True), (1, False), (0, False)]
    assert pieces[0].text == "ü" * (LINE_LIMIT // 2) + "…"
    assert pieces[1].text == "…" + "ü" * (LINE_LIMIT // 2)
    assert {p.ts for p in pieces} == {TS}


def test_pieces_are_cut_between_characters() -> None:
    pieces = read(f"{TS} x{'漢' * LINE_LIMIT}\n".encode())
    assert "\ufffd" not in "".join(p.text for p in pieces)
    assert b"".join(p.body for p in pieces) == ("x" + "漢" * LINE_LIMIT).encode()


BODIES = st.lists(
    st.one_of(
        st.binary(max_size=40).map(lambda b: b.replace(b"\n", b"")),
        st.integers(LINE_LIMIT - 50, 2 * LINE_LIMIT + 5).map(lambda n: b"y" * n),
    ),
    max_size=6,
)
BARS = st.lists(
    st.one_of(st.just(b"\r"), st.integers(1, 2 * REDRAWN_LIMIT).map(lambda n: b"=" * n)),
    max_size=12,
).map(b"".join)


@given(BODIES, st.lists(st.integers(1, LINE_LIMIT), max_size=8), st.booleans())
def test_chunks_do_not_matter(bodies: list[bytes], sizes: list[int], newline: bool) -> None:
    data = b"\n".join(TS.encode() + b" " + body for body in bodies) + b"\n" * newline
    pieces = read(data, sizes)
    assert pieces == read(data)
    whole = b"".join(p.body + b"\n" * (not p.more) for p in pieces)
    assert whole == b"".join(body + b"\n" for body in bodies) or not bodies


@given(st.lists(BARS, max_size=4), st.lists(st.integers(1, REDRAWN_LIMIT), max_size=8))
def test_chunks_do_not_matter_for_what_draws_over_itself(
    bodies: list[bytes], sizes: list[int]
) -> None:
    data = b"".join(TS.encode() + b" " + body + b"\n" for body in bodies)
    pieces = read(data, sizes)
    assert pieces == read(data)
    assert all("\r" not in piece.text for piece in pieces)


def test_a_progress_bar_is_shown_while_it_grows() -> None:
    splitter = Splitter()
    shown = [p.text for p in splitter.feed(TS.encode() + b" ")]
    for percent in range(100):
        shown += [p.text for p in splitter.feed(f"\r{percent}% {'#' * percent}".encode())]
    shown += [p.text for p in splitter.feed(b"\n")]
    assert [text.partition("%")[0] for text in shown] == ["85", "99"]
    assert not any("…" in text for text in shown)
