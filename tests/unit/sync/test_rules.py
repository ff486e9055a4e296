"""Where paths go, and that nothing leaves the destination."""

from __future__ import annotations

import posixpath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devloop.sync.rules import PathRule


@pytest.mark.parametrize(
    ("src", "dest", "path", "target"),
    [
        ("templates/**", "/app/templates", "templates/a/b.html", "/app/templates/a/b.html"),
        ("templates/**", "/app/templates", "templates/.hidden", "/app/templates/.hidden"),
        ("templates/**", "/app/templates", "templates", None),
        ("templates/**", "/app/templates", "templatesx/a", None),
        ("templates", "/app/templates", "templates/a/b", "/app/templates/a/b"),
        ("./templates/", "/app//templates/.", "templates/a", "/app/templates/a"),
        ("templates/*", "/t", "templates/a", "/t/a"),
        ("templates/*", "/t", "templates/a/b", None),
        ("src/**/*.py", "/app", "src/a.py", "/app/a.py"),
        ("src/**/*.py", "/app", "src/a/b/c.py", "/app/a/b/c.py"),
        ("src/**/*.py", "/app", "src/a/b/c.txt", None),
        ("src/*/static/**", "/app", "src/a/static/x/y", "/app/a/static/x/y"),
        ("**/*.css", "/app", "a/b.css", "/app/a/b.css"),
        ("**", "/", "a/b", "/a/b"),
        ("*.txt", "/app", "a.txt", "/app/a.txt"),
        ("*.txt", "/app", "a/a.txt", None),
        ("m?ssage.[tm]xt", "/app", "message.txt", "/app/message.txt"),
        ("app.py", "/app", "app.py", "/app/app.py"),
        ("app.py", "/app/app.py", "app.py", "/app/app.py"),
        ("a/app.py", "/srv", "a/app.py", "/srv/app.py"),
        ("app.py", "/app", "app.pyc", None),
        (".", "/app", "a/b", "/app/a/b"),
        ("templates/**", "/t", "templates/../secret", None),
        ("templates/**", "/t", "templates//a", None),
    ],
)
def test_files(src: str, dest: str, path: str, target: str | None) -> None:
    found = PathRule(src=src, dest=dest).target(path, directory=False)
    assert (found.absolute if found else None) == target


@pytest.mark.parametrize(
    ("src", "path", "target"),
    [
        ("templates/**", "templates", "/t"),
        ("templates/**", "templates/a", "/t/a"),
        ("templates", "templates", "/t"),
        ("src/**/*.py", "src/a/b", "/t/a/b"),
        ("src/*/static/**", "src", "/t"),
        ("src/*/static/**", "src/a", "/t/a"),
        ("src/*/static/**", "src/a/other", None),
        ("src/*.py", "src/a", None),
        ("src/*.py", "other", None),
    ],
)
def test_directories_on_the_way(src: str, path: str, target: str | None) -> None:
    found = PathRule(src=src, dest="/t").target(path, directory=True)
    assert (found.absolute if found else None) == target


@pytest.mark.parametrize(
    ("src", "dest"), [("../a", "/app"), ("a/..", "/x"), ("/a", "/x"), ("a", "x"), ("a", "/x/../y")]
)
def test_what_leads_out_is_no_rule(src: str, dest: str) -> None:
    with pytest.raises(ValueError, match=r"out of the context|clean absolute"):
        PathRule(src=src, dest=dest)


_PART = st.text(st.sampled_from("ab.*?[]-\n '~"), min_size=1, max_size=4)
_PATH = st.lists(_PART, min_size=1, max_size=4).map("/".join)
_ANY = st.text(st.sampled_from("ab./*\0"), max_size=12)


@given(src=_PATH | _ANY, dest=_ANY.map("/".__add__), path=_PATH | _ANY, directory=st.booleans())
def test_nothing_leaves_the_destination(src: str, dest: str, path: str, directory: bool) -> None:
    try:
        rule = PathRule(src=src, dest=dest)
    except ValueError:
        return
    found = rule.target(path, directory=directory)
    if found is None:
        return
    root = posixpath.normpath("/" + dest.lstrip("/"))
    full = found.absolute
    assert posixpath.normpath(full) == full
    # A single file may be named by its destination.
    assert full == root or full.startswith(root.rstrip("/") + "/")
    assert "\0" not in full


@given(src=_PATH, path=_PATH, directory=st.booleans())
def test_a_target_leads_back_to_its_path(src: str, path: str, directory: bool) -> None:
    try:
        rule = PathRule(src=src, dest="/app")
    except ValueError:
        return
    found = rule.target(path, directory=directory)
    if found is not None:
        assert (path, directory) in list(rule.sources(found.absolute))
