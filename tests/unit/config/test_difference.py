"""What an edit of devloop.yaml changes, and what that asks of a session that runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from devloop.config.difference import difference
from devloop.config.grammar import Block, Map
from devloop.config.loader import load_project
from devloop.config.schema import ALL

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from devloop.config.difference import Difference

HEAD = "version: 1\nname: shop\n"


def compared(root: Path, before: str, after: str, env: tuple[str, str] = ("", "")) -> Difference:
    found = []
    for text, values in zip((before, after), env, strict=True):
        (root / ".env").write_text(values)
        (root / "devloop.yaml").write_text(text)
        found.append(load_project(cwd=root, env={}).project)
    return difference(*found)


def web(keys: str) -> str:
    return f"{HEAD}services:\n  web: {{{keys}}}\n"


@pytest.mark.parametrize(
    ("before", "after", "named"),
    [
        ("build: {args: {A: x, B: y}}", "build: {args: {A: z}}", "build.args.A build.args.B"),
        ("build: .", "build: app", "build.context"),
        ("build: .", "build: {dockerfile: other}", "build.dockerfile"),
        ("build: .", "build: ., image: other", "image"),
        ("build: .", "build: ., ports: [80]", "ports"),
        ("build: .", "build: ., sync: auto", "sync"),
        ("build: .", "build: ., logs: {containers: [web]}", "logs.containers"),
        ("build: .", "build: ., deploy: {manifests: [k8s]}", "deploy.manifests"),
        ("build: .", "build: ., deploy: {timeout: 1s}", "deploy.timeout"),
        ("build: .", "build: ., deploy: {supervise: false}", "deploy.supervise"),
    ],
)
def test_a_changed_key_is_named_by_its_way_down_the_file(
    tmp_path: Path, before: str, after: str, named: str
) -> None:
    found = compared(tmp_path, web(before), web(after))
    assert found.names == tuple(f"services.web.{name}" for name in named.split())
    assert found.restart == ()


def test_a_comment_another_order_and_a_default_written_out_are_no_change(tmp_path: Path) -> None:
    after = (
        "# what it is\nservices: {web: {image: web, build: {context: .}}}\nversion: 1\nname: shop"
    )
    assert not compared(tmp_path, web("build: ."), after)


def test_a_variable_of_the_env_file_changes_the_keys_that_name_it(tmp_path: Path) -> None:
    text = web('build: {args: {A: "${A}", B: b}}') + "env_file: .env\n"
    found = compared(tmp_path, text, text, ("A=1", "A=2"))
    assert found.names == ("services.web.build.args.A",)


def test_a_service_with_another_name_is_one_removed_and_one_added(tmp_path: Path) -> None:
    found = compared(tmp_path, web("build: ."), web("build: .").replace("web:", "api:"))
    assert (found.added, found.removed, found.keys) == (("api",), ("web",), {})
    assert found.names == ("services.api", "services.web")


def test_what_a_session_began_with_needs_a_new_start(tmp_path: Path) -> None:
    after = web("build: .").replace("shop", "other") + "registry: localhost:5001\n"
    found = compared(tmp_path, web("build: ."), after)
    assert [str(key) for key in found.restart] == ["name", "registry"]
    assert not found


def test_every_key_of_a_service_says_what_its_change_means() -> None:
    services = ALL.keys["services"].kind
    assert isinstance(services, Map)
    assert isinstance(services.value, Block)
    assert list(_unsaid(services.value, "")) == []


def _unsaid(block: Block, above: str) -> Iterator[str]:
    for name, key in block.keys.items():
        means = key.change or above
        if not means:
            yield name
        if isinstance(key.kind, Block):
            yield from _unsaid(key.kind, means)
