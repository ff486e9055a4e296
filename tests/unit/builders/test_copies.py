"""What COPYs place, as far as it needs no builder to know (see test_copies_against_buildkit.py)."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
from typing import TYPE_CHECKING

import pytest

from devloop.builders.dockerfile import parse
from devloop.builders.image.copies import (
    FileEntry,
    StageState,
    may_be_archive,
    merge,
    place,
    stage_copies,
)
from devloop.builders.image.full_build import NeedsFullBuild
from devloop.model import ContextEntry, Snapshot

if TYPE_CHECKING:
    from collections.abc import Mapping

    from devloop.builders.image.copies import Copy


def snapshot(*paths: str, links: Mapping[str, str] | None = None) -> Snapshot:
    """Files of one byte with mode 0640, in directories with mode 0750; a slash ends a directory."""
    entries = {path: ContextEntry("symlink", 0o777, link=to) for path, to in (links or {}).items()}
    for path in paths:
        if not path.endswith("/"):
            entries[path] = ContextEntry("file", 0o640, 1, f"digest of {path}")
    for path in (*paths, *entries):
        while path := path.rpartition("/")[0]:
            entries[path] = ContextEntry("dir", 0o750)
    return Snapshot(entries=dict(sorted(entries.items())), digest="", stamp="")


def copies(text: str, base: StageState | None = None, **args: str) -> tuple[Copy, ...]:
    return stage_copies(parse(text), None, args, base)


def only(text: str, base: StageState | None = None, **args: str) -> Copy:
    found = copies(f"FROM image\n{text}", base, **args)
    assert len(found) == 1
    return found[0]


def paths(text: str, context: Snapshot, base: StageState | None = None) -> list[str]:
    """What is placed, `dir/` with a slash and what is implied in brackets."""
    shown = []
    for entry in place(only(text, base), context, (0, 0)).values():
        name = f"{entry.path}/" if entry.type == "dir" else entry.path
        shown.append(f"({name})" if entry.implied else name)
    return shown


def test_the_state_below_is_taken_over() -> None:
    base = StageState(env={"HOME": "/home/me"}, workdir="/srv/")
    assert only("COPY a $HOME/", base).dest == "/home/me"
    copy = only("COPY a b", base)
    assert (copy.dest, copy.directory) == ("/srv/b", False)
    assert only("COPY $PATH x", base).sources[0].startswith("/usr/local/sbin")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("COPY a b", "relative to the base image's WORKDIR"),
        ("COPY a ./", "relative to the base image's WORKDIR"),
        ("WORKDIR w\nCOPY a /b", "relative to the base image's WORKDIR"),
        ("COPY $X /b", "X may be set by the base image"),
        ("COPY ${X:-a} /b", "X may be set by the base image"),
        ("ENV A=$X\nCOPY $A /b", "X may be set by the base image"),
        ("ARG X\nCOPY $X /b", "X may be set by the base image"),
        ("ARG TARGETARCH\nCOPY bin-$TARGETARCH /b", "depends on the platform"),
        ("ARG V=a\nENV V=b\nARG V=c\nCOPY $V /b", "an ENV and an ARG"),
        ("ARG A=a B=$A\nCOPY $B /b", "what the same ARG says"),
        ("COPY a <<EOF /b/\nx\nEOF", "heredoc"),
        ("ADD https://example.com/x /b", "not in the context"),
        ("ADD git@github.com:o/r.git /b", "not in the context"),
        ("ADD --checksum=sha256:x a /b", "--checksum"),
        ("ADD --keep-git-dir=true a /b", "--keep-git-dir"),
        ("COPY --from= a /b", "--from"),
        ("COPY --chmod=u+x a /b", "--chmod"),
        ("COPY --chmod=17777 a /b", "--chmod"),
        ("COPY --chmod=$M a /b", "--chmod"),
        ("COPY --link=maybe a /b", "--link=maybe"),
        ("COPY --chown=1 --chown=2 a /b", "twice"),
        ("COPY --exclude=$X a /b", "--exclude"),
        ('COPY ["a", 1] /b', "not understood"),
        ('COPY ["a", "/b"] x', "not understood"),
        ("COPY a\\\\b /b", "not understood"),
        ("COPY /b", "no destination"),
        ("COPY ${A#x} /b", "substitution"),
    ],
)
def test_what_cannot_be_known(text: str, reason: str) -> None:
    with pytest.raises(NeedsFullBuild, match=reason.replace("$", r"\$").replace("(", r"\(")):
        copies(f"FROM image\n{text}")


@pytest.mark.parametrize(
    "text",
    [
        "# syntax=example.com/own\nFROM image\nCOPY a /b",
        "FROM image\nCPOY a /b",
        "FROM image AS one\nCOPY a /b\nFROM One\nCOPY a /c",
        "FROM image AS one\nONBUILD COPY a /b\nFROM one\nCOPY a /c",
    ],
)
def test_files_that_are_not_understood(text: str) -> None:
    with pytest.raises(NeedsFullBuild):
        copies(text)


def test_what_is_doubtful_and_not_asked_for() -> None:
    text = "FROM image\nENV A=$X B=1\nARG TARGETARCH\nARG B=2\nWORKDIR /w\nCOPY a b"
    assert copies(text)[0].dest == "/w/b"


def test_arguments() -> None:
    text = "ARG V=1\nARG W=$V.1\nFROM image\n{}\nCOPY a /$V-$W"
    assert copies(text.format("ARG V\nARG W"))[0].dest == "/1-1.1"
    assert copies(text.format("ARG V=2\nARG W"))[0].dest == "/2-1.1"
    assert copies(text.format("ARG V=2\nARG W"), V="3")[0].dest == "/3-3.1"
    assert copies(text.format("ARG V=2 W=x"), W="y")[0].dest == "/2-y"
    with pytest.raises(NeedsFullBuild):
        copies(text.format("ARG V"))
    assert copies(text.format("ARG V"), StageState())[0].dest == "/1-"
    assert only("ARG TARGETARCH\nCOPY a /$TARGETARCH", TARGETARCH="arm64").dest == "/arm64"


def test_only_what_the_target_takes_from_the_context() -> None:
    text = (
        "FROM image AS a\nCOPY one /1\nFROM image AS b\nCOPY two /2\n"
        "FROM a AS c\nCOPY --from=b /2 /x\nCOPY three /3\nFROM b\nCOPY four /4\n"
    )
    assert [c.dest for c in stage_copies(parse(text), "c", {}, None)] == ["/1", "/3"]
    assert [c.dest for c in stage_copies(parse(text), None, {}, None)] == ["/2", "/4"]
    with pytest.raises(NeedsFullBuild):
        stage_copies(parse(text), "d", {}, None)


def test_flags() -> None:
    copy = only("COPY --chown=me:us --link --exclude=*.md --exclude=x a /b/")
    assert (copy.chown, copy.link, copy.exclude, copy.directory) == (
        "me:us",
        True,
        ("*.md", "x"),
        True,
    )
    # BuildKit passes over --link then.
    assert not only("COPY --link --chmod=755 a /b").link
    assert not only("COPY --link=false a /b").link


def test_directories_that_are_known() -> None:
    text = "FROM image\nWORKDIR /app\nCOPY run.sh /app\nCOPY --link x /app\nCOPY y /z/y\nCOPY y /z"
    run, link, _, last = copies(text)
    assert (run.directory, run.unclear) == (True, False)
    assert (link.directory, link.unclear) == (False, True)
    assert last.directory
    context = snapshot("run.sh", "x", "y")
    assert "app/run.sh" in place(run, context, (0, 0))
    with pytest.raises(NeedsFullBuild, match="builders differ"):
        place(link, context, (0, 0))


def test_nothing_is_known_of_directories_where_nothing_may_match() -> None:
    assert not copies("FROM image\nCOPY x* /a/b/\nCOPY y /a")[1].directory


def test_a_directory_gives_what_is_in_it() -> None:
    context = snapshot("src/a", "src/sub/b", "src-2", "src.py", "src/empty/")
    assert paths("COPY src /x", context) == ["(x/)", "x/a", "x/empty/", "x/sub/", "x/sub/b"]
    assert paths("COPY src* /x/", context) == [
        *("(x/)", "x/a", "x/empty/", "x/sub/", "x/sub/b", "x/src-2", "x/src.py"),
    ]
    assert paths("COPY none* /x/", context) == []


def test_modes_and_owners() -> None:
    context = snapshot("d/e/f", links={"d/l": "f"})
    placed = place(only("COPY --chown=1:2 --chmod=700 d /x"), context, (1, 2))
    assert [(e.path, e.mode, e.uid, e.gid, e.implied, e.unsure) for e in placed.values()] == [
        ("x", 0o755, 1, 2, True, True),
        ("x/e", 0o700, 1, 2, False, False),
        ("x/e/f", 0o700, 1, 2, False, False),
        ("x/l", 0o777, 1, 2, False, False),
    ]
    assert placed["x/e/f"].source == "d/e/f"
    assert [e.source for e in placed.values()].count("") == 3
    plain = place(only("COPY d /x"), context, (0, 0))
    assert [e.mode for e in plain.values()] == [0o755, 0o750, 0o640, 0o777]
    assert not any(e.unsure for e in plain.values())


def test_symlinks_that_are_named_are_followed() -> None:
    context = snapshot("d/f", links={"l": "d", "d/g": "f", "n": "/d/g", "up": "../d"})
    assert paths("COPY l /x", context) == ["(x/)", "x/f", "x/g"]
    assert paths("COPY up n /x/", context) == ["(x/)", "x/f", "x/g", "x/n"]
    assert place(only("COPY n /x/"), context, (0, 0))["x/n"].source == "d/f"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("COPY none /x", "none is not in the context"),
        ("COPY none/* /x/", "none is no directory of the context"),
        ("COPY f/* /x/", "f is no directory of the context"),
        ("COPY out/* /x/", "out/link leads to what no pattern may name"),
        ("COPY dangling /x", "dangling is not in the context"),
        ("COPY loop /x", "too many symlinks"),
        ("COPY here/f /x", "lose their way"),
        ("COPY e* /x/", "leads nowhere"),
        ("COPY f d /x", "is no directory and"),
        ("COPY d clash /x/", "to be a dir and a file"),
        ("COPY clash d /x/", "to be a file and a dir"),
        ("COPY --parents none /x", "not in the context"),
        ("COPY --parents . /x", "takes nothing"),
        ("COPY --parents [a-f] /x", "not understood"),
        ("COPY [z-a] /x", "not understood"),
        ("COPY w /x", "/x/a/.wh..wh..opq would delete something"),
        ("COPY f /x/.wh.gone", "/x/.wh.gone would delete something"),
    ],
)
def test_what_cannot_be_placed(text: str, reason: str) -> None:
    links = {"dangling": "gone", "loop": "loop", "here": ".", "e/dangling": "gone"}
    links["out/link"] = "../f"
    context = snapshot("f", "d/sub/f", "clash/sub", "w/a/.wh..wh..opq", links=links)
    with pytest.raises(NeedsFullBuild, match=reason):
        place(only(text), context, (0, 0))


def test_parents() -> None:
    context = snapshot("a/b/c.py", "a/b/d", "a/e.py", "f")
    assert paths("COPY --parents a/b/d f /x", context) == [
        "(x/)",
        "x/a/",
        "x/a/b/",
        "x/a/b/d",
        "x/f",
    ]
    assert paths("COPY --parents a/./b /x/", context) == ["(x/)", "x/b/", "x/b/c.py", "x/b/d"]
    placed = place(only("COPY --parents **/c.py /x"), context, (0, 0))
    assert list(placed) == ["x", "x/a", "x/a/b", "x/a/b/c.py"]
    assert [e.unsure for e in placed.values()] == [False, True, True, False]


def test_exclude() -> None:
    context = snapshot("a/b/c.py", "a/b/d", "a/e.py", "f")
    assert paths("COPY --exclude=**/*.py --exclude=f . /x", context) == [
        *("(x/)", "x/a/", "x/a/b/", "x/a/b/d"),
    ]
    assert paths("COPY --exclude=a --exclude=!a/b/d . /x", context) == [
        *("(x/)", "x/a/", "x/a/b/", "x/a/b/d", "x/f"),
    ]
    # What is named itself is not asked about.
    assert paths("COPY --exclude=f f /x", context) == ["x"]


def test_later_copies_lie_over_earlier_ones() -> None:
    context = snapshot("d/s/f", "d/g", "h")
    one = place(only("COPY d /x"), context, (0, 0))
    two = place(only("COPY --chown=5 h /x/s/f"), context, (5, 5))
    found = merge([one, two])
    assert {path: number for path, (number, _) in found.items()} == {
        "x": 0,
        "x/g": 0,
        "x/s": 0,
        "x/s/f": 1,
    }
    assert found["x/s"][1].mode == 0o750
    three = place(only("COPY d /y\n"), context, (0, 0))
    assert merge([two, one, three])["x/s"][0] == 1
    with pytest.raises(NeedsFullBuild):
        merge([one, {"x/s": FileEntry(path="x/s", type="file", mode=0)}])
    link = {"x/g": FileEntry(path="x/g", type="symlink", mode=0o777, link="s")}
    assert merge([one, link])["x/g"][0] == 1
    with pytest.raises(NeedsFullBuild, match="symlink already"):
        merge([link, one])


def tar() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as made:
        made.addfile(tarfile.TarInfo("x"))
    return file.getvalue()


def test_archives() -> None:
    for pack in (bytes, gzip.compress, bz2.compress, lzma.compress):
        assert may_be_archive("a.txt", pack(tar())[:512])
    assert may_be_archive("x", b"\x28\xb5\x2f\xfd\0")
    assert may_be_archive("x", b"\x51\x2a\x4d\x18\0")
    for data in (b"", b"text", b"a" * 512, bytes(512), tar()[:500], b"y" + tar()[1:512]):
        assert not may_be_archive("x.tar", data)
    context = snapshot("a.py", "b.tar", "d/c.tar")
    assert paths("ADD a.py d /x/", context) == ["(x/)", "x/a.py", "x/c.tar"]
    with pytest.raises(NeedsFullBuild, match=r"ADD b\.tar, which may be an archive"):
        paths("ADD b.tar /x/", context)
    copy = only("ADD b.tar /x/")
    assert "x/b.tar" in place(copy, context, (0, 0), lambda _: b"no tar at all")
    with pytest.raises(NeedsFullBuild):
        place(copy, context, (0, 0), lambda _: tar()[:512])


def test_files_that_stand_in_the_dockerfile_leave_other_copies_as_they_are() -> None:
    text = "FROM scratch\nCOPY <<a.conf /etc/\nx\na.conf\nCOPY app.py /app/\n"
    found = stage_copies(parse(text), None, {}, None)
    assert [copy.sources for copy in found] == [("app.py",)]
