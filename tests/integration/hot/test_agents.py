"""What every agent must do alike, on real files."""

from __future__ import annotations

import os
import socket
import subprocess
from typing import TYPE_CHECKING

import pytest

from devloop.base.cancel import Cancel
from devloop.sync.agent_session import NoAgent, start
from devloop.sync.protocol import DEV_IMAGE, request
from tests.integration.hot.conftest import directory, gone, link, put, tree

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.hot.conftest import Agent

EVERY_BYTE = os.fsdecode(bytes(b for b in range(1, 256) if b != ord("/")))
ODD_NAMES = (
    "-rf",
    "--",
    " a  b ",
    "new\nline",
    "ends in a new line\n",
    "quote'quote\"quote`quote",
    "$HOME $(touch x) ${x}",
    "back\\slash\\n",
    "*?[a]",
    "~",
    "#",
    "é漢😀",
    "\udcff\udc80 not UTF-8",
    EVERY_BYTE[:120],
    EVERY_BYTE[120:],
)


def test_a_new_file_and_a_changed_one(agent: Agent, root: Path) -> None:
    assert agent.apply(put(root, "a.txt", b"one")) == []
    first = (root / "a.txt").stat().st_ino
    assert agent.apply(put(root, "a.txt", b"two")) == []
    assert tree(root) == {"a.txt": ("file", 0o644, b"two")}
    assert (root / "a.txt").stat().st_ino != first, "written in place, not renamed into it"


@pytest.mark.parametrize("mode", [0o644, 0o755, 0o600, 0o400, 0o444, 0o4755, 0o666, 0o777, 0o000])
def test_modes(agent: Agent, root: Path, mode: int) -> None:
    assert agent.apply(put(root, "a", b"x", mode), directory(root, "d", mode | 0o700)) == []
    found = tree(root)
    assert found["a"][1] == mode
    assert found["d"][1] == mode | 0o700


def test_a_mode_alone(agent: Agent, root: Path) -> None:
    agent.apply(put(root, "run.sh", b"x"), directory(root, "d"))
    assert agent.apply(put(root, "run.sh", b"x", 0o755), directory(root, "d", 0o700)) == []
    assert tree(root) == {"run.sh": ("file", 0o755, b"x"), "d": ("dir", 0o700, b"")}


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names(agent: Agent, root: Path, name: str) -> None:
    steps = [
        directory(root, name),
        put(root, f"{name}/{name}", b"content"),
        link(root, f"{name}/link", f"{name}/x"),
    ]
    assert agent.apply(*steps) == []
    assert tree(root) == {
        name: ("dir", 0o755, b""),
        f"{name}/{name}": ("file", 0o644, b"content"),
        f"{name}/link": ("symlink", 0, os.fsencode(f"{name}/x")),
    }
    assert agent.apply(gone(root, f"{name}/{name}"), gone(root, f"{name}/link")) == []
    assert tree(root) == {name: ("dir", 0o755, b"")}


@pytest.mark.parametrize("size", [0, 1, 65535, 65536, 65537, 5 * 65536, 3_000_001])
def test_any_bytes_and_sizes(agent: Agent, root: Path, size: int) -> None:
    content = (bytes(range(256)) + b"\n\0'\\") * (size // 260 + 1)
    assert agent.apply(put(root, "a", content[:size]), put(root, "b", b"after")) == []
    assert (root / "a").read_bytes() == content[:size]
    assert (root / "b").read_bytes() == b"after"


def test_content_that_was_not_what_it_should_be_is_forgotten(agent: Agent, root: Path) -> None:
    agent.apply(put(root, "a", b"old"))
    refused = agent.apply(put(root, "a", b"new"), put(root, "big", b"x" * 200_000), keep=False)
    assert len(refused) == (2 if agent.kind == "agent" else 0), "only devloop's own looks itself"
    assert tree(root) == {"a": ("file", 0o644, b"old")}


def test_types_change(agent: Agent, root: Path) -> None:
    agent.apply(put(root, "x", b"file"))
    assert agent.apply(directory(root, "x"), put(root, "x/y", b"1")) == []
    assert tree(root) == {"x": ("dir", 0o755, b""), "x/y": ("file", 0o644, b"1")}
    assert agent.apply(link(root, "x", "elsewhere")) == []
    assert tree(root) == {"x": ("symlink", 0, b"elsewhere")}
    assert agent.apply(directory(root, "x")) == []
    assert agent.apply(put(root, "x", b"again")) == []
    assert tree(root) == {"x": ("file", 0o644, b"again")}


def test_a_file_gives_way_to_a_link_that_leads_to_it(agent: Agent, root: Path) -> None:
    assert agent.apply(put(root, "x", b"1")) == []
    assert agent.apply(link(root, "x", "x")) == []
    assert tree(root) == {"x": ("symlink", 0, b"x")}


def test_a_link_to_a_directory_gives_way_to_a_file(agent: Agent, root: Path) -> None:
    (root / "real").mkdir()
    (root / "x").symlink_to("real")
    assert agent.apply(put(root, "x", b"file")) == []
    assert tree(root) == {"real": ("dir", 0o755, b""), "x": ("file", 0o644, b"file")}
    assert agent.apply(link(root, "x", "real")) == []
    assert agent.apply(link(root, "x", "other")) == []
    assert tree(root) == {"real": ("dir", 0o755, b""), "x": ("symlink", 0, b"other")}


def test_removals(agent: Agent, root: Path) -> None:
    (root / "d" / "e").mkdir(parents=True)
    (root / "d" / "e" / "made here.pyc").write_text("x")
    (root / "outside").mkdir()
    (root / "outside" / "kept").write_text("x")
    (root / "d" / "out").symlink_to(root / "outside")
    steps = [gone(root, "d"), gone(root, "never"), gone(root, "no/such/directory")]
    assert agent.apply(*steps) == []
    assert sorted(tree(root)) == ["outside", "outside/kept"]


def test_what_is_missing_above_a_file_is_made(agent: Agent, root: Path) -> None:
    assert agent.apply(put(root / "new" / "root", "a/b/c", b"x")) == []
    assert (root / "new" / "root" / "a" / "b" / "c").read_bytes() == b"x"


def test_the_root_itself(agent: Agent, root: Path) -> None:
    assert agent.apply(directory(root, "", 0o750)) == []
    assert root.stat().st_mode & 0o7777 == 0o750


def test_the_root_may_be_a_link(agent: Agent, root: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(root)
    assert agent.apply(put(tmp_path / "link", "sub/a", b"x")) == []
    assert (root / "sub" / "a").read_bytes() == b"x"


def test_no_link_below_the_root_is_followed(agent: Agent, root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("x")
    (root / "out").symlink_to(outside)
    (root / "in").mkdir()
    (root / "in" / "up").symlink_to("..")
    answers = agent.apply(
        put(root, "out/a", b"x"),
        gone(root, "out/kept"),
        link(root, "out/l", "x"),
        directory(root, "out/d"),
        directory(root, "out/d/e"),
        put(root, "in/up/a", b"x"),
        put(root, "fine", b"x"),
    )
    assert [a.split(" ")[:2] for a in answers] == [["bad", str(n)] for n in range(1, 7)]
    assert "symlink" in answers[0]
    assert sorted(tree(outside)) == ["kept"]
    assert (root / "fine").read_bytes() == b"x"
    assert not (root / "a").exists()


def test_a_temporary_file_in_the_way_is_no_way_out(agent: Agent, root: Path) -> None:
    (root / "victim").write_text("kept")
    (root / f".devloop-sync~{agent.process.pid}").symlink_to("victim")
    assert agent.apply(put(root, "a", b"x")) == []
    assert (root / "victim").read_text() == "kept"
    assert sorted(tree(root)) == ["a", "victim"]


def test_what_cannot_be_done_is_said_and_the_rest_is_done(agent: Agent, root: Path) -> None:
    (root / "file").write_text("x")
    [answer] = agent.apply(
        put(root, "before", b"1"),
        put(root / "file", "below/a file", b"x" * 70_000),
        put(root, "after", b"2"),
    )
    assert answer.startswith("bad 2 ")
    assert (root / "after").read_bytes() == b"2"
    assert agent.apply(put(root, "next", b"3")) == []


def test_the_end_of_input_ends_it_in_the_middle_of_a_file(own_agent: Agent, root: Path) -> None:
    change, _ = put(root, "a", b"x" * 1000)
    own_agent.send(request(own_agent.kind, change) + b"only some")
    own_agent.close()
    assert own_agent.process.returncode is not None
    assert tree(root) == {}


def test_it_leaves_no_process_behind(own_agent: Agent, root: Path) -> None:
    own_agent.apply(put(root, "a", b"x"), put(root, "b", b"y" * 100_000, 0o755))
    found = subprocess.run(
        ["ps", "-o", "pid=,stat=,args=", "--ppid", str(own_agent.process.pid)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.stdout == ""
    assert own_agent.close() == 0


class Ended:
    """A stream whose command has ended before it said anything."""

    def __init__(self, how: str) -> None:
        self.ended: str | None = how
        self._here, self._there = socket.socketpair()

    def fileno(self) -> int:
        return self._here.fileno()

    def receive(self) -> bytes:
        return b""

    def send(self, data: bytes | bytearray | memoryview) -> int:
        return len(data)

    def flush(self) -> bool:
        return True

    def close(self) -> None:
        self._here.close()
        self._there.close()


_FAILED = "Internal error occurred: error executing command in container: failed to exec: "
_NODE = 'Internal error occurred: error sending request: Post "https://172.18.0.5:10250/exec/a"'


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("command terminated with exit code 127", NoAgent),
        ("command terminated with exit code 137", ConnectionResetError),
        ("command terminated with non-zero exit code: exit status 143", ConnectionResetError),
        (f'{_FAILED}OCI runtime exec failed: exec failed: exec: "/a": no such file', NoAgent),
        (f"{_FAILED}container is in CONTAINER_EXITED state", ConnectionResetError),
        (f"{_NODE}: dial tcp 172.18.0.5:10250: i/o timeout", ConnectionResetError),
    ],
)
def test_what_says_nothing_of_the_image(how: str, expected: type[Exception]) -> None:
    with pytest.raises(expected):
        start(lambda _: Ended(how), Cancel(), DEV_IMAGE)
