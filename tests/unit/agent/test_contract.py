"""What every agent must do alike, here for the compiled one: the tests of the other two."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from devloop.sync.protocol import closing, request
from tests.support.agent import program
from tests.unit.sync.conftest import root
from tests.unit.sync.test_agents import (
    test_a_link_to_a_directory_gives_way_to_a_file,
    test_a_mode_alone,
    test_a_new_file_and_a_changed_one,
    test_a_temporary_file_in_the_way_is_no_way_out,
    test_any_bytes_and_sizes,
    test_it_leaves_no_process_behind,
    test_modes,
    test_no_link_below_the_root_is_followed,
    test_odd_names,
    test_removals,
    test_the_root_itself,
    test_the_root_may_be_a_link,
    test_types_change,
    test_what_cannot_be_done_is_said_and_the_rest_is_done,
    test_what_is_missing_above_a_file_is_made,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devloop.sync.changes import FileChange
    from devloop.sync.protocol import Kind

__all__ = [
    "root",
    "test_a_link_to_a_directory_gives_way_to_a_file",
    "test_a_mode_alone",
    "test_a_new_file_and_a_changed_one",
    "test_a_temporary_file_in_the_way_is_no_way_out",
    "test_any_bytes_and_sizes",
    "test_it_leaves_no_process_behind",
    "test_modes",
    "test_no_link_below_the_root_is_followed",
    "test_odd_names",
    "test_removals",
    "test_the_root_itself",
    "test_the_root_may_be_a_link",
    "test_types_change",
    "test_what_cannot_be_done_is_said_and_the_rest_is_done",
    "test_what_is_missing_above_a_file_is_made",
]


class CompiledAgent:
    """Spoken to as the Python agent is, with a digest in place of the byte after the content."""

    kind: Kind = "python"

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [str(program()), "serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd="/"
        )
        assert self.line().startswith("agent 1 ")

    def line(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline().decode().removesuffix("\n")

    def apply(self, *steps: tuple[FileChange, bytes | None]) -> list[str]:
        assert self.process.stdin
        for change, content in steps:
            framed = request(self.kind, change)
            if content is not None:
                assert change.placed is not None
                body = framed[8:] + b"\0" + change.placed.entry.digest.encode()
                framed = b"%08d" % len(body) + body + content
            self.process.stdin.write(framed)
        self.process.stdin.write(closing(self.kind))
        self.process.stdin.flush()
        answers = list(iter(self.line, "done"))
        assert "" not in answers, "the agent ended"
        return answers

    def close(self) -> int:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.close()
        status = self.process.wait(5)
        self.process.stdout.close()
        return status


@pytest.fixture
def agent() -> Iterator[CompiledAgent]:
    made = CompiledAgent()
    yield made
    if made.process.poll() is None:
        made.close()


@pytest.fixture
def own_agent(agent: CompiledAgent) -> CompiledAgent:
    """One that the test ends."""
    return agent
