"""What of a container's log stands in rotated files, put into the form of the API's logs."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING, Any, Self, cast

from devloop.base.cancel import Cancel
from devloop.cluster.api.node_logs import NodeLogs
from devloop.model import PodView

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devloop.cluster.api.connection import Connection

POD = PodView(name="web-1", uid="u", namespace="n", node="node-1")
DIRECTORY = "/api/v1/nodes/node-1/proxy/logs/pods/n_web-1_u/main/"


class _Body:
    def __init__(self, data: bytes) -> None:
        self._data = data

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def __iter__(self) -> Iterator[bytes]:
        return iter([self._data[start : start + 5] for start in range(0, len(self._data), 5)])


class _Node:
    """Answers with the files that it was given."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.asked: list[str] = []

    def stream(self, path: str, query: dict[str, str] | None = None, **_: Any) -> _Body:
        self.asked.append(path.removeprefix(DIRECTORY))
        if path == DIRECTORY:
            links = "".join(f'<a href="{name}">{name}</a>\n' for name in self.files)
            return _Body(f"<pre>{links}</pre>".encode())
        return _Body(self.files[path.removeprefix(DIRECTORY)])


def stamp(second: int) -> str:
    return f"2026-11-30T14:00:{second:02}.000000000Z"


def written(*lines: tuple[int, str, str]) -> bytes:
    return "".join(f"{stamp(s)} stdout {tags} {text}\n" for s, tags, text in lines).encode()


def read(node: _Node, *, since: str = "", restarts: int = 0) -> str:
    logs = NodeLogs(cast("Connection", node))
    chunks = logs.rotated(POD, "main", restarts=restarts, since=since, cancel=Cancel())
    return b"".join(chunks).decode()


OLD, NEW = "0.log.20261130-140010.gz", "0.log.20261130-140020"


def node() -> _Node:
    return _Node(
        {
            "0.log": written((30, "F", "now")),
            NEW: written((11, "F", "three"), (12, "P", "fo"), (12, "P", "u"), (12, "F", "r")),
            OLD: gzip.compress(written((1, "F", "one"), (2, "F", ""))),
            "0.log.20261130-140005.gz.tmp": b"x",
            "1.log.20261130-140025": written((25, "F", "another start")),
        }
    )


def test_rotated_files_come_oldest_first_in_the_form_of_the_api() -> None:
    assert read(node()) == (f"{stamp(1)} one\n{stamp(2)} \n{stamp(11)} three\n{stamp(12)} four\n")


def test_each_start_has_its_own() -> None:
    assert read(node(), restarts=1) == f"{stamp(25)} another start\n"
    assert read(node(), restarts=2) == ""


def test_what_lies_before_is_not_even_unpacked() -> None:
    asked = node()
    assert read(asked, since=stamp(12)) == f"{stamp(12)} four\n"
    assert asked.asked == ["", NEW, NEW]
