"""Whether base images read the context by themselves, asked where the builder takes them from."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pytest

from devloop.base.cancel import Cancel
from devloop.base.process import Completed
from devloop.builders import base_triggers
from devloop.builders.base_triggers import BaseTriggers, started_from
from devloop.builders.docker_socket import LocalImage
from devloop.builders.dockerfile import parse
from devloop.config.builds import Build
from devloop.registry.client import RegistryClient
from tests.unit.builders.test_base_image import publish
from tests.unit.registry.fake_registry import State, serving

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("FROM python:3", ("python:3",)),
        ("FROM scratch", ()),
        ("FROM a AS b\nFROM b\nFROM c", ("a", "c")),
        ("ARG V=1\nFROM a:$V", ("a:1",)),
        ("ARG V\nFROM $V", None),
        ("FROM a\nONBUILD COPY . .", None),
        ("# syntax=acme/own\nFROM a", None),
    ],
)
def test_the_images_that_stages_start_from(
    tmp_path: Path, text: str, found: tuple[str, ...] | None
) -> None:
    build = Build(context=tmp_path, dockerfile=tmp_path / "Dockerfile")
    assert started_from(parse(text), build) == found


class Lookup:
    def __init__(self, *, local: bool) -> None:
        self.local = local

    def takes_local(self, cancel: Cancel) -> bool:
        del cancel
        return self.local


def triggers(tmp_path: Path, client: Any, *, local: bool) -> BaseTriggers:
    build = Build(context=tmp_path, dockerfile=tmp_path / "Dockerfile", platform="linux/amd64")
    return BaseTriggers(build, Lookup(local=local), lambda _: client, "")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("answer", "none"),
    [
        (Completed(status=0, out="null\n", err=""), True),
        (Completed(status=0, out="[]\n", err=""), True),
        (Completed(status=0, out='["COPY . ."]\n', err=""), False),
        (None, False),
    ],
)
def test_what_docker_has_is_looked_into_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: Completed | None, *, none: bool
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: "/bin/docker")
    monkeypatch.setattr(base_triggers, "find_image", lambda *_: None)
    monkeypatch.setattr(base_triggers, "ask_docker", lambda *_, **__: answer)
    found = triggers(tmp_path, None, local=True)
    assert found.none_in(["python"], Cancel()) is none
    assert found.none_in([], Cancel())


@pytest.mark.parametrize("said", [(), ("COPY . .",)])
def test_docker_is_asked_over_its_socket_where_that_is_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: tuple[str, ...]
) -> None:
    image = LocalImage("sha256:1", triggers=said)
    monkeypatch.setattr(shutil, "which", lambda _: "/bin/docker")
    monkeypatch.setattr(base_triggers, "find_image", lambda *_: image)
    assert triggers(tmp_path, None, local=True).none_in(["python"], Cancel()) is (not said)


@pytest.mark.parametrize("local", [False, True])
def test_what_docker_does_not_have_is_looked_into_in_the_registry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, local: bool
) -> None:
    gone = Completed(status=1, out="", err="Error: No such image: x")
    monkeypatch.setattr(shutil, "which", lambda _: "/bin/docker")
    monkeypatch.setattr(base_triggers, "find_image", lambda *_: LocalImage(""))
    monkeypatch.setattr(base_triggers, "ask_docker", lambda *_, **__: gone)
    state = State()
    publish(state, "plain", "1")
    publish(state, "eager", "1", OnBuild=["COPY . ."])
    with serving(state) as host, RegistryClient(host) as client:
        found = triggers(tmp_path, client, local=local)
        assert found.none_in([f"{host}/plain:1"], Cancel())
        assert not found.none_in([f"{host}/plain:1", f"{host}/eager:1"], Cancel())
        assert not found.none_in([f"{host}/missing:1"], Cancel())
