"""What is deployed is what is fingerprinted, watched and checked."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devloop.base.cancel import Cancel
from devloop.config.files import check_files
from devloop.config.loader import load_project
from devloop.errors import DevloopError
from devloop.manifests import renderings_of
from devloop.watch.source import ServiceSource
from tests.support.examples import examples

if TYPE_CHECKING:
    from devloop.config.loader import LoadedProject

NAMES = ["web.yaml", "web.yaml~", ".#web.yaml", ".hidden.yaml", "[a].yaml", "a.yaml", "notes.txt"]


def load(root: Path, patterns: list[str]) -> LoadedProject:
    (root / "Dockerfile").write_text("FROM scratch\n")
    (root / "devloop.yaml").write_text(
        "version: 1\nservices:\n  web:\n    build: .\n    deploy:\n      manifests:\n"
        + "".join(f"      - '{pattern}'\n" for pattern in patterns)
    )
    return load_project(cwd=root, env={})


def write(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    name = str(abs(hash(str(path))))
    path.write_text(f"apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: m{name}}}\n")


def agreed(root: Path, patterns: list[str]) -> list[str]:
    """The names of the files that all agree on."""
    loaded = load(root, patterns)
    service = loaded.project.services["web"]
    rendering = renderings_of([service])["web"]
    refused = [each for each in check_files(loaded) if each.code == "config/manifest-missing"]
    deployed: list[str] = []
    with contextlib.suppress(DevloopError):
        deployed = list(dict.fromkeys(m.file for m in rendering.objects(Cancel())))
        assert not refused
    assert deployed or refused
    source = ServiceSource(service, root, rendering)
    before = source.scan(None, Cancel())
    directories = source.directories()
    for path in [p for p in root.rglob("*") if p.is_file()]:
        counts = str(path) in deployed
        text = path.read_bytes()
        path.write_bytes(text + b"# changed\n")
        changed = source.scan(None, Cancel()).fingerprint.deploy != before.fingerprint.deploy
        path.write_bytes(text)
        if not refused:
            assert changed is counts, path
        if counts:
            assert source.concerns(path)
            assert str(path.parent) in directories
    return [str(Path(file).relative_to(root)) for file in deployed]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("k8s/*", ["[a].yaml", "a.yaml", "web.yaml"]),
        ("k8s/*.txt", ["notes.txt"]),
        ("k8s/[n]*", []),
        ("k8s/*.yaml", ["[a].yaml", "a.yaml", "web.yaml"]),
        ("k8s", ["[a].yaml", "a.yaml", "web.yaml"]),
        ("k8s/[a].yaml", ["[a].yaml", "a.yaml"]),
        ("k8s/.hidden.yaml", [".hidden.yaml"]),
        ("k8s/web.yaml~", []),
    ],
)
def test_backups_hidden_names_brackets_and_directories(
    tmp_path: Path, pattern: str, found: list[str]
) -> None:
    for name in NAMES:
        write(tmp_path / "k8s" / name)
    assert agreed(tmp_path, [pattern]) == [f"k8s/{name}" for name in found]


PARTS = ["*", "**", "*.yaml", "[a].yaml", "[wx]eb.yaml", ".*", "a", "a.yaml", "web.yaml~", "k8s"]


@settings(max_examples=examples(25))
@given(
    st.lists(st.lists(st.sampled_from([*NAMES, "a", "k8s"]), min_size=1, max_size=3), max_size=6),
    st.lists(st.lists(st.sampled_from(PARTS), max_size=2), min_size=1, max_size=2),
)
def test_trees_and_patterns(tree: list[list[str]], patterns: list[list[str]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        for parts in tree:
            path = root.joinpath("m", *parts)
            if not path.is_dir() and not any(parent.is_file() for parent in path.parents):
                write(path)
        agreed(root, ["/".join(("m", *parts)) for parts in patterns])
