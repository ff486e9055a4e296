"""The example and the sample's devloop.yaml are right, and the example leaves no key out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from devloop.config.files import check_files
from devloop.config.grammar import Block, Key, Map
from devloop.config.loader import load_project
from devloop.config.schema import PROJECT

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[3]


def test_the_example_loads() -> None:
    loaded = load_project(cwd=ROOT, file=Path("devloop.yaml.example"), env={"HTTP_PROXY": "p:1"})
    project = loaded.project
    assert list(project.services) == ["web", "api", "worker", "base"]
    assert project.services["api"].build.args == {"PYTHON": "3.13", "HTTP_PROXY": "p:1"}
    assert project.services["worker"].build.command == ("./build.sh", "--fast")


def test_the_example_shows_every_key() -> None:
    def keys(block: Block) -> Iterator[tuple[str, Key]]:
        for name, key in block.keys.items():
            yield name, key
            kind = key.kind.value if isinstance(key.kind, Map) else key.kind
            if isinstance(kind, Block):
                yield from keys(kind)

    text = (ROOT / "devloop.yaml.example").read_text(encoding="utf-8")
    shown = {line.lstrip(" #").partition(":")[0] for line in text.splitlines()}
    shown.add("containers" if "containers:" in text else "")
    assert [name for name, _ in keys(PROJECT) if name not in shown] == []


def test_the_sample_is_complete() -> None:
    loaded = load_project(cwd=ROOT / "sample_app", env={"BASE_IMAGE": "python-base:dev"})
    assert check_files(loaded) == ()
    assert loaded.project.services["guestbook"].build.args == {"BASE_IMAGE": "python-base:dev"}
