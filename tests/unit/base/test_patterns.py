"""Patterns of files: which files they name, which paths and directories matter to them."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devloop.base.ignore_rules import IgnoreRules
from devloop.base.patterns import FilePatterns, existing_directory, ignore_line, match_parts
from tests.support.examples import examples


def write(path: Path, text: str = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_manifests_in_the_order_of_patterns_then_names(tmp_path: Path) -> None:
    for name in ("k8s/b.yaml", "k8s/a.yaml", "k8s/c.txt", "k8s/.d.yaml", "more/z.yml", "one.json"):
        write(tmp_path / name)
    write(tmp_path / "k8s/a.yaml~")
    patterns = FilePatterns(
        [f"{tmp_path}/{p}" for p in ("one.json", "k8s/*.yaml*", "more", "k8s/a.yaml")]
    )
    shown = [os.path.relpath(path, tmp_path) for path in patterns.files()]
    assert shown == ["one.json", "k8s/a.yaml", "k8s/b.yaml", "more/z.yml"]


@pytest.mark.parametrize(
    ("pattern", "path", "concerned"),
    [
        ("k8s/*.yaml", "k8s/a.yaml", True),
        ("k8s/*.yaml", "k8s/a.txt", False),
        ("k8s/*.yaml", "k8s", True),
        ("k8s/*.yaml", "k8s/a.yaml~", False),
        ("k8s/*.yaml", "other/a.yaml", False),
        ("k8s/*/a.yaml", "k8s/dev", True),
        ("k8s/*/a.yaml", "k8s/dev/b.yaml", False),
        ("k8s", "k8s/a.yaml", True),
        ("k8s", "k8s/deep/a.yaml", False),
        ("**/*.yaml", "x/y/a.yaml", True),
        ("**/*.yaml", "x/gone", True),
        ("**/*.yaml", "x/there.txt", False),
    ],
)
def test_which_paths_concern_a_pattern(
    tmp_path: Path,
    pattern: str,
    path: str,
    concerned: bool,
) -> None:
    write(tmp_path / "x/there.txt")
    assert FilePatterns([f"{tmp_path}/{pattern}"]).concerns(f"{tmp_path}/{path}") is concerned


@pytest.mark.parametrize(
    ("pattern", "directories"),
    [
        ("k8s/*.yaml", {"k8s"}),
        ("k8s/*/*.yaml", {"k8s", "k8s/dev", "k8s/prod"}),
        ("k8s/dev", {"k8s", "k8s/dev"}),
        ("k8s/new/*.yaml", {"k8s"}),
        ("nowhere/at/all.yaml", {"."}),
        ("k8s/**/*.yaml", {"k8s", "k8s/dev", "k8s/dev/deep", "k8s/prod"}),
        ("k8s/*", {"k8s", "k8s/dev", "k8s/prod"}),
    ],
)
def test_which_directories_to_watch_for_a_pattern(
    tmp_path: Path, pattern: str, directories: set[str]
) -> None:
    for name in ("k8s/dev/deep/a.yaml", "k8s/prod/a.yaml", "k8s/.git/x", "other/a.yaml"):
        write(tmp_path / name)
    (tmp_path / "k8s/link").symlink_to(".")
    found = FilePatterns([f"{tmp_path}/{pattern}"]).directories()
    assert {os.path.relpath(path, tmp_path) for path in found} == directories


def test_the_nearest_directory(tmp_path: Path) -> None:
    assert existing_directory(f"{tmp_path}/a/b/c") == str(tmp_path)
    assert existing_directory("/no/such/directory") == "/"


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("k8s/*", ["[a].yaml", "deep/b.json", "web.yaml"]),
        ("k8s/*.txt", ["notes.txt"]),
        ("k8s", ["[a].yaml", "web.yaml"]),
        ("k8s/", ["[a].yaml", "web.yaml"]),
        ("k8s/[a].yaml", ["[a].yaml"]),
        ("k8s/[[]a].yaml", ["[a].yaml"]),
        ("k8s/[vw]eb.yaml", ["web.yaml"]),
        ("k8s/.hidden.yaml", [".hidden.yaml"]),
        ("k8s/.h*", [".hidden.yaml"]),
        ("k8s/web.yaml~", []),
        ("k8s/**", ["[a].yaml", "deep/b.json", "web.yaml"]),
        ("k8s/**/*.json", ["deep/b.json"]),
        ("**/deep", ["deep/b.json"]),
    ],
)
def test_which_files_a_pattern_names(tmp_path: Path, pattern: str, found: list[str]) -> None:
    names = ["web.yaml", "web.yaml~", ".hidden.yaml", "[a].yaml", "notes.txt", "deep/b.json"]
    for name in [*names, "flymake_web.yaml", "#web.yaml#", ".git/c.yaml"]:
        write(tmp_path / "k8s" / name)
    (tmp_path / "k8s/.#web.yaml").symlink_to("user@host.123")
    files = FilePatterns([f"{tmp_path}/{pattern}"]).files()
    assert [os.path.relpath(file, tmp_path / "k8s") for file in files] == found


def test_a_pattern_beneath_a_directory_with_brackets_in_its_name(tmp_path: Path) -> None:
    file = write(tmp_path / "[x]/k8s/a.yaml")
    write(tmp_path / "x/k8s/a.yaml")
    patterns = FilePatterns([f"{tmp_path}/[[]x]/k8s/*.yaml"])
    assert patterns.files() == [str(file)]
    assert patterns.tops == (str(file.parent),)
    assert not patterns.concerns(f"{tmp_path}/x/k8s/a.yaml")


def test_a_link_to_a_directory_is_followed_and_one_upwards_is_not(tmp_path: Path) -> None:
    write(tmp_path / "shared/a.yaml")
    (tmp_path / "k8s").mkdir()
    (tmp_path / "k8s/shared").symlink_to("../shared")
    (tmp_path / "shared/up").symlink_to("../shared")
    patterns = FilePatterns([f"{tmp_path}/k8s/**/*.yaml"])
    assert patterns.files() == [f"{tmp_path}/k8s/shared/a.yaml"]
    assert f"{tmp_path}/k8s/shared" in patterns.directories()


NAMES = ["a.yaml", "b.json", ".h.yaml", "[a].yaml", "a.yaml~", ".#a.yaml", "x.txt", "a", "b", ".d"]
PARTS = ["a", "b", "*", "**", "*.yaml", "[ab].yaml", "[a].yaml", ".*", ".d", "?", "*a*", "a.yaml"]


@settings(max_examples=examples(60))
@given(
    st.lists(st.lists(st.sampled_from(NAMES), min_size=1, max_size=4), max_size=8),
    st.lists(st.lists(st.sampled_from(PARTS), min_size=1, max_size=4), min_size=1, max_size=3),
)
def test_what_is_found_is_what_matches_and_what_is_watched(
    tree: list[list[str]], patterns: list[list[str]]
) -> None:
    with tempfile.TemporaryDirectory() as top:
        for parts in tree:
            path = Path(top, *parts)
            if not path.is_dir() and not any(parent.is_file() for parent in path.parents):
                write(path)
        asked = FilePatterns(["/".join((top, *parts)) for parts in patterns])
        found = asked.files()
        there = [str(path) for path in Path(top).rglob("*") if path.is_file()]
        assert set(found) == {path for path in there if asked.matches(path)}
        directories = asked.directories()
        for file in found:
            assert asked.concerns(file)
            assert any(file.startswith(fixed) for fixed in asked.tops)
            assert str(Path(file).parent) in directories
            for parent in Path(file).relative_to(top).parents[:-1]:
                assert asked.concerns(f"{top}/{parent}")


def test_hidden_names_are_like_others_only_where_asked() -> None:
    assert match_parts((".a", "b"), ("**", "b"), hidden=True)
    assert not match_parts((".a", "b"), ("**", "b"), hidden=False)
    assert not match_parts((".a",), ("*",), hidden=False)
    assert match_parts((".a",), (".*",), hidden=False)


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("node_modules", "node_modules"),
        ("a/b.log", "a/b.log"),
        ("[id]/x*.js", r"\[id\]/x\*.js"),
        ("#notes", r"\#notes"),
        ("!important", r"\!important"),
        ("a b ", "a b?"),
        ("a\nb", "a?b"),
        ("back\\slash", r"back\\slash"),
    ],
)
def test_the_line_that_ignores_a_path(path: str, line: str) -> None:
    assert ignore_line(path) == line


SEGMENTS = st.text("ab*?[]\\!#^ .-~{}()$+|\n\t", min_size=1, max_size=5).filter(
    lambda text: text not in {".", ".."}
)


@given(st.lists(SEGMENTS, min_size=1, max_size=3).map("/".join), st.text("ab*[", min_size=1))
def test_an_ignored_path_is_left_out_with_all_in_it_and_nothing_else(path: str, other: str) -> None:
    line = ignore_line(path)
    rules = IgnoreRules.parse(line)
    assert rules.ignored(path)
    assert rules.ignored(f"{path}/below")
    assert "?" in line.replace(r"\?", "") or rules.ignored(other) == (other == path)
