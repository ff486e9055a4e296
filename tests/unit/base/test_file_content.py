from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

import pytest

from devloop.base.file_content import ContentChanged, VerifiedFiles

if TYPE_CHECKING:
    from pathlib import Path


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for path, text in {"a/b/one": "1", "a/b/two": "22", "a/three": "333", "top": "4444"}.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    return tmp_path


def test_files_in_any_order_of_directories(tree: Path) -> None:
    with VerifiedFiles(tree) as files:
        for path in ("a/b/one", "a/three", "a/b/two", "top", "a/b/one"):
            data = (tree / path).read_bytes()
            mtime, content = files.read(path, len(data), digest(data))
            assert b"".join(content) == data
            assert mtime == int((tree / path).stat().st_mtime)


@pytest.mark.parametrize("other", [b"", b"2", b"23", b"222"])
def test_another_content_of_any_size_is_found_out(tree: Path, other: bytes) -> None:
    (tree / "a/b/two").write_bytes(other)
    with VerifiedFiles(tree) as files, pytest.raises(ContentChanged, match="a/b/two"):
        files.read("a/b/two", 2, digest(b"22"))


def test_a_file_that_grows_while_it_is_read_is_found_out(tree: Path) -> None:
    with VerifiedFiles(tree) as files, files.open("top", 4, digest(b"4444")) as file:
        (tree / "top").write_bytes(b"44445")
        with pytest.raises(ContentChanged):
            list(file)


def test_no_link_is_followed_on_the_way_nor_at_its_end(tree: Path) -> None:
    (tree / "a/b").rename(tree / "real")
    (tree / "a/b").symlink_to("../real")
    (tree / "link").symlink_to("top")
    with VerifiedFiles(tree) as files:
        for path, data in (("a/b/one", b"1"), ("link", b"4444")):
            with pytest.raises(ContentChanged):
                files.open(path, len(data), digest(data))


def test_a_pipe_in_a_files_place_does_not_block(tree: Path) -> None:
    os.mkfifo(tree / "pipe")
    with VerifiedFiles(tree) as files, pytest.raises(ContentChanged):
        files.open("pipe", 0, digest(b""))


def test_a_directory_that_is_gone_does_not_confuse_the_next_file(tree: Path) -> None:
    with VerifiedFiles(tree) as files:
        files.read("a/b/one", 1, digest(b"1"))
        with pytest.raises(ContentChanged):
            files.read("a/gone/one", 1, digest(b"1"))
        assert files.read("a/b/one", 1, digest(b"1"))[1] == [b"1"]
        assert files.read("a/three", 3, digest(b"333"))[1] == [b"333"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_one_may_not_read_is_named_in_full(tree: Path) -> None:
    (tree / "a/three").chmod(0)
    with VerifiedFiles(tree) as files, pytest.raises(PermissionError) as caught:
        files.open("a/three", 3, digest(b"333"))
    assert caught.value.filename == "a/three"
