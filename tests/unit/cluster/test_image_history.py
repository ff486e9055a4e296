"""What one session leaves to the next about the pods that it restarted."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest

from devloop.cluster.replace.pod_restarts import ImageHistory
from devloop.model import WorkloadRef

if TYPE_CHECKING:
    from pathlib import Path

REF = WorkloadRef("deployment", "web", "dev")


def history(state: Path) -> ImageHistory:
    return ImageHistory(state, "kind-dev", REF)


def file(state: Path) -> Path:
    (path,) = (state / "image-history").rglob("*.json")
    return path


def test_the_next_session_knows(tmp_path: Path) -> None:
    first = history(tmp_path)
    first.note("u1", ("one", "two"))
    first.note("u1", ("two", "three"))
    first.note("u2", ("one",))
    again = history(tmp_path)
    assert again.images() == {"u1": {"one", "two", "three"}, "u2": {"one"}}
    assert again.images(lately=True) == again.images()
    other = ImageHistory(tmp_path, "kind-dev", WorkloadRef("deployment", "web", "other"))
    assert other.images() == {}


def test_pods_that_are_gone_are_forgotten(tmp_path: Path) -> None:
    first = history(tmp_path)
    first.note("u1", ("one",))
    first.keep({"u2"})
    assert first.images() == {}
    first.note("u2", ("two",))
    assert history(tmp_path).images() == {"u2": {"two"}}


def test_the_kubelet_forgets(tmp_path: Path) -> None:
    history(tmp_path).note("u1", ("one", "two"))
    value = json.loads(file(tmp_path).read_text())
    value["u1"]["one"] = time.time() - 700
    file(tmp_path).write_text(json.dumps(value))
    again = history(tmp_path)
    assert again.images(lately=True) == {"u1": {"two"}}
    assert again.images() == {"u1": {"one", "two"}}
    again.note("u1", ("one",))
    assert history(tmp_path).images(lately=True) == {"u1": {"one", "two"}}


def test_what_the_kubelet_forgot_is_not_kept(tmp_path: Path) -> None:
    history(tmp_path).note("u1", ("one", "two"))
    value = json.loads(file(tmp_path).read_text())
    value["u1"]["one"] = time.time() - 700
    file(tmp_path).write_text(json.dumps(value))
    again = history(tmp_path)
    again.note("u1", ("three",))
    assert again.images() == history(tmp_path).images() == {"u1": {"two", "three"}}


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"u1": 3}', '{"u1": {"one": "x"}}'])
def test_what_cannot_be_read_is_nothing(tmp_path: Path, text: str) -> None:
    history(tmp_path).note("u1", ("one",))
    file(tmp_path).write_text(text)
    assert history(tmp_path).images() == {}


def test_what_cannot_be_written_is_only_not_remembered(tmp_path: Path) -> None:
    (tmp_path / "image-history").write_text("in the way")
    first = history(tmp_path)
    first.note("u1", ("one",))
    assert first.images() == {"u1": {"one"}}
