"""The ignore rules and the scan against Docker itself: the same context, path by path.

All cases are targets of one `docker buildx bake`, so that some sixty real builds cost seconds.
"""

from __future__ import annotations

import json
import random
import subprocess
import tarfile
from typing import TYPE_CHECKING

import pytest

from devloop.base.cancel import Cancel
from devloop.base.ignore_rules import IgnoreRules
from devloop.watch.rules import ContextRules
from devloop.watch.scan import TreeScanner

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.docker

NAMES = ["a", "b", "foo", "bar", "x.py", "y.md", "lib", "a.b", "é", "[q]", "f*o", "a b", "#c", "d1"]
PARTS = [
    *["a", "b", "foo", "bar", "lib", "*", "**", "*.py", "*.md", "?", "a*", "*b"] * 4,
    *["l?b", "[a-f]*", "[^a]", "a.b", "\\[q\\]", "f\\*o", "é", "a b", "..", ".", "**o", "a**"],
    *["\\#c", "\\d1", "d\\d", "[[:alpha:]]", "[a*]", "x.??", "[!a]", "fo[^/]", "(b)", "a+"],
]

# (ignore file, paths; a trailing slash makes an empty directory)
CORPUS: list[tuple[str, list[str]]] = [
    ("", ["a", "d/b", "empty/"]),
    ("*", ["a", "d/b"]),
    ("*\n!d", ["a", "d/b", "d/e/f"]),
    ("*\n!d/e", ["a", "d/b", "d/e/f"]),
    ("d\n!d/b", ["a", "d/b", "d/c", "d/e/"]),
    ("d\n!d/b\nd/b", ["a", "d/b"]),
    ("d/\n/a", ["a", "d/b", "c/a"]),
    ("**/a", ["a", "d/a", "d/e/a", "d/ab"]),
    ("**/*.md\n!README.md", ["README.md", "d/README.md", "d/x.md", "x.py"]),
    ("*.md", ["a.md", "d/a.md"]),
    ("d/**", ["d/a", "d/e/f", "da"]),
    ("d/*\n!d/*.py", ["d/a.py", "d/a.md", "d/e/a.py"]),
    ("# comment\n  # no comment\n\\#file", ["#file", "# no comment", "a"]),
    ("\ufeffa\r\n\tb  \r\n\n", ["a", "b", "c"]),
    ("! d/b\nd", ["d/b", "d/c"]),
    ("d\n! /d/b", ["d/b", "d/c"]),
    ("./d/../a\nd//b/.", ["a", "d/b", "d/c"]),
    ("../a\n.", ["a", "d/b"]),
    (".dockerignore\nDockerfile", ["a"]),
    ("**\n!**/keep", ["keep", "d/keep", "d/lost", "e/f/keep/g"]),
    ("a/b\n!a", ["a/b", "a/c"]),
    ("**foo\nbar**", ["foo", "a/xfoo", "bar", "barn/x", "a/bar"]),
    ("d/*/x\n!d/e/x\nd/e/x/y", ["d/e/x/y", "d/e/x/z", "d/f/x"]),
    (".*\n!.env", [".env", ".hidden/x", "a"]),
    ("[a-c]\n[^d]x", ["a", "b", "d", "ax", "dx"]),
]


def random_case(rng: random.Random) -> tuple[str, list[str]]:
    def tree(prefix: str, depth: int) -> list[str]:
        found = []
        for name in rng.sample(NAMES, rng.randint(1, 5)):
            if depth < 3 and rng.random() < 0.5:
                found += tree(f"{prefix}{name}/", depth + 1) or [f"{prefix}{name}/"]
            else:
                found.append(f"{prefix}{name}")
        return found

    lines = []
    for _ in range(rng.randint(1, 5)):
        pattern = "/".join(rng.choices(PARTS, k=rng.choice([1, 1, 2, 2, 3])))
        lines.append(rng.choice(["", "", "!", "/", "! "]) + pattern + rng.choice(["", "", "/"]))
    return "\n".join(lines), tree("", 0)


def make(root: Path, text: str, paths: list[str], rng: random.Random) -> None:
    root.mkdir()
    for path in paths:
        target = root / path
        if path.endswith("/"):
            target.mkdir(parents=True, exist_ok=True)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        if rng.random() < 0.1:
            target.symlink_to("../nowhere")
            continue
        target.write_text(path)
        target.chmod(rng.choice([0o644, 0o755, 0o600, 0o4755]))
    (root / ".dockerignore").write_bytes(text.encode())
    (root / "Dockerfile").write_text("FROM scratch\nCOPY . /\n")


def in_docker(archive: Path) -> dict[str, tuple[str, int, str]]:
    found = {}
    with tarfile.open(archive) as tar:
        for member in tar:
            kind = "dir" if member.isdir() else "symlink" if member.issym() else "file"
            mode = 0 if member.issym() else member.mode & 0o7777
            found[member.name.strip("/")] = (kind, mode, member.linkname)
    found.pop("", None)
    return found


def in_snapshot(root: Path, text: str) -> dict[str, tuple[str, int, str]]:
    scanner = TreeScanner(root, ContextRules(IgnoreRules.parse(text)))
    return {
        path: (entry.type, 0 if entry.type == "symlink" else entry.mode, entry.link)
        for path, entry in scanner.scan(None, Cancel()).entries.items()
    }


def bake(directory: Path, names: list[str]) -> None:
    file = directory / "bake.json"
    targets = {
        name: {
            "context": str(directory / name),
            "output": [f"type=tar,dest={directory / name}.tar"],
        }
        for name in names
    }
    file.write_text(json.dumps({"group": {"default": {"targets": names}}, "target": targets}))
    done = subprocess.run(
        ["docker", "buildx", "bake", "--file", str(file), "--progress", "plain"],
        cwd=directory,
        check=False,
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_the_context_is_the_one_docker_builds_from(tmp_path: Path) -> None:
    rng = random.Random(20240917)
    cases = {f"corpus{i}": case for i, case in enumerate(CORPUS)}
    cases |= {f"random{i}": random_case(rng) for i in range(40)}
    for name, (text, paths) in cases.items():
        make(tmp_path / name, text, paths, rng)
    bake(tmp_path, list(cases))
    for name, (text, _) in cases.items():
        docker = in_docker(tmp_path / f"{name}.tar")
        assert in_snapshot(tmp_path / name, text) == docker, (name, text)
