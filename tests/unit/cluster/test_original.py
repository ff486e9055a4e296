from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from devloop.cluster.deploy.original import read_before, record_path, write_before
from devloop.errors import DevloopError
from tests.support.cluster_objects import deployment

if TYPE_CHECKING:
    from pathlib import Path


def test_written_once(tmp_path: Path) -> None:
    first, later = deployment("a:1"), deployment("a:2")
    assert write_before(tmp_path, "kind-x", first)
    assert not write_before(tmp_path, "kind-x", later)
    path = record_path(tmp_path, "kind-x", first)
    assert path == tmp_path / "before/kind-x/dev/deployment-web.json"
    assert read_before(path) == first
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_an_object_made_anew_is_another(tmp_path: Path) -> None:
    first, second = deployment("a:1"), deployment("a:2")
    second["metadata"]["uid"] = "other"
    write_before(tmp_path, "c", first)
    assert write_before(tmp_path, "c", second)
    assert read_before(record_path(tmp_path, "c", second)) == second


def test_names_stay_in_the_folder(tmp_path: Path) -> None:
    thing = deployment()
    thing["metadata"]["name"] = "../../x"
    for context in ("..", "arn:aws:eks:eu:1:cluster/dev", "../up"):
        path = record_path(tmp_path, context, thing)
        assert path.resolve().is_relative_to(tmp_path / "before")
        assert len(path.relative_to(tmp_path).parts) == 4


def test_secrets_are_never_written(tmp_path: Path) -> None:
    assert not write_before(tmp_path, "c", {"kind": "Secret", "metadata": {"name": "s"}})
    assert not list(tmp_path.iterdir())


def test_a_damaged_record_is_written_again(tmp_path: Path) -> None:
    path = record_path(tmp_path, "c", deployment())
    path.parent.mkdir(parents=True)
    path.write_text("{")
    assert write_before(tmp_path, "c", deployment())


def test_what_cannot_be_recorded_is_refused(tmp_path: Path) -> None:
    (tmp_path / "before").write_text("in the way")
    with pytest.raises(DevloopError) as caught:
        write_before(tmp_path, "c", deployment())
    assert caught.value.code == "env/file-unreadable"
