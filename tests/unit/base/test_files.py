"""A small file is there whole or not at all."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from devloop.base.state_file import replace_file

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("durable", [False, True])
def test_a_file_is_replaced_and_nothing_else_is_left(tmp_path: Path, durable: bool) -> None:
    path = tmp_path / "deep" / "file.json"
    for data in (b"one", b"two"):
        replace_file(path, data, durable=durable)
        assert path.read_bytes() == data
    assert list(path.parent.iterdir()) == [path]


def test_a_file_that_cannot_be_put_in_place_keeps_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file.json"
    replace_file(path, b"one")

    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        replace_file(path, b"two", durable=True)
    assert path.read_bytes() == b"one"
    assert list(tmp_path.iterdir()) == [path]
