"""The agent runs in Linux containers, and on Linux hosts for these tests."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

_LINUX = platform.system() == "Linux"
_HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if _LINUX:
        return
    for item in items:
        if _HERE in item.path.parents:
            item.add_marker(pytest.mark.skip(reason="the agent is a program for Linux"))


@pytest.fixture(scope="session", autouse=True)
def _program_is_built() -> None:
    """Before the first test, which would be blamed for what the compiler leaves running."""
    if _LINUX:
        from tests.support.agent import program  # noqa: PLC0415 - needs Linux

        program()
