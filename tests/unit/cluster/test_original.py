from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from devloop.cluster.deploy.original import keep_original, original_file
from devloop.errors import DevloopError
from tests.support.cluster_objects import deployment

if TYPE_CHECKING:
    from pathlib import Path


def test_written_once(tmp_path: Path) -> None:
    first, later = deployment("a:1"), deployment("a:2")
    assert keep_original(tmp_path, "kind-x", first)
    assert not keep_original(tmp_path, "kind-x", later)
    path = original_file(tmp_path, "kind-x", first).path
    assert path == tmp_path / "before/kind-x/dev/deployment-web.json"
    assert original_file(tmp_path, "kind-x", first).read() == first
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_recreated_object_is_another(tmp_path: Path) -> None:
    first, second = deployment("a:1"), deployment("a:2")
    second["metadata"]["uid"] = "other"
    keep_original(tmp_path, "c", first)
    assert keep_original(tmp_path, "c", second)
    assert original_file(tmp_path, "c", second).read() == second


def test_names_stay_in_the_directory(tmp_path: Path) -> None:
    thing = deployment()
    thing["metadata"]["name"] = "../../x"
    for context in ("..", "arn:aws:eks:eu:1:cluster/dev", "../up"):
        path = original_file(tmp_path, context, thing).path
        assert path.resolve().is_relative_to(tmp_path / "before")
        assert len(path.relative_to(tmp_path).parts) == 4


def test_secrets_are_never_written(tmp_path: Path) -> None:
    assert not keep_original(tmp_path, "c", {"kind": "Secret", "metadata": {"name": "s"}})
    assert not list(tmp_path.iterdir())


def test_a_damaged_original_is_set_aside(tmp_path: Path) -> None:
    path = original_file(tmp_path, "c", deployment()).path
    path.parent.mkdir(parents=True)
    path.write_text("{")
    assert keep_original(tmp_path, "c", deployment())
    assert path.with_name(f"{path.name}.aside").read_text() == "{"


def test_what_cannot_be_kept_is_not_changed(tmp_path: Path) -> None:
    (tmp_path / "before").write_text("in the way")
    with pytest.raises(DevloopError) as caught:
        keep_original(tmp_path, "c", deployment())
    assert caught.value.code == "env/file-unreadable"
