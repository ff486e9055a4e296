"""--set: paths, values, and what cannot be set."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from devloop.errors import Location
from tests.unit.config.corpus import service

if TYPE_CHECKING:
    from tests.unit.config.conftest import Directory


def test_values_replace_and_add(directory: Directory) -> None:
    loaded = directory.load(
        service("ports: [8080]"),
        sets=[
            "services.web.build.target=dev",
            "services.web.build.args.A=${X} # $",
            "services.web.deploy.timeout=90",
            "services.web.ports=[1, '2:3']",
            "name='quoted'",
            "namespace=first",
            "namespace=second",
        ],
    )
    web = loaded.project.services["web"]
    assert (web.build.target, web.build.context) == ("dev", directory.path)
    assert web.build.args == {"A": "${X} # $"}
    assert web.deploy.timeout == 90
    assert [port.local for port in web.ports] == [1, 2]
    assert (loaded.project.name, loaded.project.namespace) == ("quoted", "second")
    assert loaded.locate("services", "web", "build", "target") == Location("--set")
    assert loaded.locate("services", "web", "build") == Location("devloop.yaml", 4, 5)


def test_a_whole_build_can_be_set(directory: Directory) -> None:
    loaded = directory.load(service(), sets=["services.web.build=api"])
    assert loaded.project.services["web"].build.context == directory.path / "api"


@pytest.mark.parametrize(
    ("text", "code", "hint"),
    [
        ("services.web.buidl=.", "usage/arguments", "did you mean services.web.build?"),
        ("services.wbe.image=a", "usage/arguments", "did you mean services.web.image?"),
        ("name", "usage/arguments", "services.web.image=shop"),
        ("a..b=1", "usage/arguments", "services.web.image=shop"),
        ("services.web.ports.0=1", "usage/arguments", "a list is set as a whole"),
        ("name=[x", "usage/arguments", ""),
        ("services.web.test=1", "config/type", ""),
        ("profiles.ci=1", "usage/arguments", ""),
        ("services.web.deploy.replace=fats", "config/value", "did you mean `fast`?"),
        ("version=2", "config/version", "update devloop"),
        ("name=12", "config/type", 'put it in quotes: "12"'),
        ("services.web.image=A", "config/image-name", "a"),
    ],
)
def test_refused(directory: Directory, text: str, code: str, hint: str) -> None:
    found = directory.error(service("ports: [8080]"), sets=[text])
    assert (found.code, found.location) == (code, Location("--set"))
    assert hint in "".join(found.suggestions)
