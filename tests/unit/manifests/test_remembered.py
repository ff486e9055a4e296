"""Manifests are read once for as long as nobody touches their files."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import pytest

from devloop.base.cancel import Cancel
from devloop.errors import DevloopError
from devloop.manifests import files
from devloop.manifests.files import FilesRendering
from devloop.manifests.remembered import RememberedRendering

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = "{{apiVersion: v1, kind: ConfigMap, metadata: {{name: {}}}}}\n"


class Manifests:
    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.file = root / "a.yaml"
        self.root = root
        self.reads = 0
        read = files.read_manifests

        def counted(*args: Any, **how: Any) -> Any:
            self.reads += 1
            return read(*args, **how)

        monkeypatch.setattr(files, "read_manifests", counted)
        self.rendering = RememberedRendering(FilesRendering((str(root / "*.yaml"),)))

    def write(self, name: str, *, file: str = "a.yaml") -> None:
        (self.root / file).write_text(CONFIG.format(name))

    def names(self) -> list[str]:
        return [m.key[3] for m in self.rendering.objects(Cancel())]


@pytest.fixture
def manifests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Manifests:
    made = Manifests(tmp_path, monkeypatch)
    made.write("one")
    # As if it had been there for a while: files of this moment are not believed.
    now = time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: now + 10**10)
    return made


def test_what_nobody_touched_is_read_once(manifests: Manifests) -> None:
    assert [manifests.names() for _ in range(3)] == [["one"]] * 3
    assert manifests.reads == 1


def test_what_changed_is_read_again(manifests: Manifests) -> None:
    manifests.names()
    manifests.write("two")
    manifests.write("more", file="b.yaml")
    assert manifests.names() == ["two", "more"]
    (manifests.root / "b.yaml").unlink()
    assert manifests.names() == ["two"]


def test_the_same_size_and_time_hide_no_change(manifests: Manifests) -> None:
    manifests.names()
    before = manifests.file.stat()
    manifests.write("six")
    os.utime(manifests.file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert manifests.names() == ["six"]


def test_files_of_this_moment_are_not_believed(
    manifests: Manifests, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = manifests.file.stat().st_ctime_ns
    monkeypatch.setattr(time, "time_ns", lambda: at + 1)
    manifests.names()
    manifests.names()
    assert manifests.reads == 2


def test_faults_are_raised_each_time(manifests: Manifests) -> None:
    manifests.file.write_text("no manifest")
    for _ in range(2):
        with pytest.raises(DevloopError):
            manifests.names()


def test_two_of_the_same_files_are_equal(tmp_path: Path) -> None:
    one, same, other = (
        RememberedRendering(FilesRendering((str(tmp_path / name),))) for name in ("a", "a", "b")
    )
    assert one == same
    assert one != other
