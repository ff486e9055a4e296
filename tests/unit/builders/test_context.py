"""What is in the context: the merged ignore file and the classic builder's tar."""

from __future__ import annotations

import io
import os
import shutil
import stat
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devloop.base.editor_files import is_temporary
from devloop.base.ignore_rules import IgnoreRules
from devloop.builders.build_context import arranged, extra_patterns, ignore_file, merged, stream
from devloop.builders.docker_cli import place_for_files
from devloop.errors import DevloopError
from devloop.model import Fingerprint, Scan, Snapshot
from devloop.watch.rules import ContextRules
from tests.unit.builders.kit import snapshot_of, write


def scan_of(snapshot: Snapshot) -> Scan:
    return Scan(fingerprint=Fingerprint("", ""), snapshot=snapshot)


def included(rules: ContextRules, paths: list[str]) -> set[str]:
    """The files (of paths that are all files) that a walk by `rules` finds."""
    found = set()
    for path in paths:
        bits, inside = 0, True
        *directories, name = path.split("/")
        for depth in range(len(directories)):
            directory = "/".join(directories[: depth + 1])
            _, look, bits = rules.directory(bits, directory, directories[depth])
            if not look:
                inside = False
                break
        if inside and rules.file(bits, path, name):
            found.add(path)
    return found


_NAMES = st.sampled_from(
    [
        *("a.py", "b~", ".b.py.swp", "4913", "x___jb_tmp___", ".#lock", "#auto#", "c.vsctmp"),
        *(".git", ".devloop", "src", "HEAD", "flymake_x", ".goutputstream-1", "d e", "keep"),
        *(".nfs0123456789abcdef01", ".fuse_hidden0123abcd", ".f.kate-swp", ".~lock.x#"),
        "g-go-tmp-umask",
    ]
)
_PATHS = st.lists(st.lists(_NAMES, min_size=1, max_size=3).map("/".join), unique=True, max_size=8)
_LINES = st.lists(
    st.sampled_from(
        ["*", "!src", "!**/*.py", "*.py", "# x", "!.git", "!.git/HEAD", ".git", "src/*"]
    ),
    max_size=4,
)


@given(_PATHS, _LINES, st.lists(st.sampled_from(["*.vsctmp", "!.git", "keep"]), max_size=2))
def test_buildkit_is_told_what_the_scan_leaves_out(
    paths: list[str], lines: list[str], extra: list[str]
) -> None:
    """The merged file alone, read as Docker reads it, gives what the scan's rules give."""
    directories = {p.rsplit("/", n)[0] for p in paths for n in range(1, p.count("/") + 1)}
    files = [p for p in paths if p not in directories]
    text = "\n".join(lines)
    scan = ContextRules(IgnoreRules.parse(text, extra))
    wanted = included(scan, files)
    seen = {p.rsplit("/", n)[0] for p in wanted for n in range(1, p.count("/") + 1)}
    docker = IgnoreRules.parse(merged(text, extra_patterns(text, extra, seen)))
    given_to_buildkit = {p for p in files if not docker.ignored(p)}
    if any(is_temporary(directory.rpartition("/")[2]) for directory in seen):
        # Then some temporary files are sent, but never anything that the user leaves out.
        assert given_to_buildkit >= wanted
        assert all(is_temporary(p.rpartition("/")[2]) for p in given_to_buildkit - wanted)
    else:
        assert given_to_buildkit == wanted


def test_git_stays_when_it_is_asked_for() -> None:
    assert "**/.git" in extra_patterns("", (), ())
    assert "**/.git" not in extra_patterns("*\n!.git/HEAD\n", (), ())
    assert "**/.git" not in extra_patterns("", ("!.git",), ())
    assert "**/.git" in extra_patterns("#!.git\n", (), ())
    assert "**/.devloop" in extra_patterns("!.devloop", (), ())


def test_the_config_comes_after_the_file() -> None:
    assert merged("a\nb", ("*.md",)) == "a\nb\n*.md\n"
    assert merged("", ("*.md",)) == "*.md\n"


def test_a_directory_named_like_a_temporary_file_stays() -> None:
    assert "**/*~" in extra_patterns("", (), ("src", "old~/x"))
    patterns = extra_patterns("**/.env\n", (), ("src", "a/old~", ".#x#"))
    assert not {"**/*~", "**/.#*"} & set(patterns)
    assert "**/#*#" in patterns


def test_docker_prefers_the_file_beside_the_dockerfile(tmp_path: Path) -> None:
    dockerfile = tmp_path / "docker" / "Dockerfile"
    assert ignore_file(tmp_path, dockerfile) is None
    write(tmp_path, {".dockerignore": "a", "docker/Dockerfile": "FROM x"})
    assert ignore_file(tmp_path, dockerfile) == tmp_path / ".dockerignore"
    write(tmp_path, {"docker/Dockerfile.dockerignore": "b"})
    assert ignore_file(tmp_path, dockerfile) == tmp_path / "docker" / "Dockerfile.dockerignore"


EMPTY = Snapshot(entries={}, digest="", stamp="")


def test_a_file_that_stays_is_sent_whatever_its_name() -> None:
    paths = ("data/4913", "#1#", "a b~", "[x]~", "app.py")
    patterns = extra_patterns("data/*.log\n", (), ("data",), paths)
    docker = IgnoreRules.parse(merged("data/*.log\n", patterns))
    assert [path for path in paths if docker.ignored(path)] == []
    assert all(docker.ignored(path) for path in ("data/x.log", "4913", "x~", "b~", "data/.#1"))


def test_the_arranged_dockerfile_lasts_as_long_as_the_block(tmp_path: Path) -> None:
    write(tmp_path, {"my.Dockerfile": "FROM x\n", ".dockerignore": "*.log"})
    with arranged(tmp_path, tmp_path / "my.Dockerfile", ("*.md",), EMPTY) as copy:
        assert copy.name == "my.Dockerfile"
        assert copy.read_text() == "FROM x\n"
        text = copy.with_name("my.Dockerfile.dockerignore").read_text()
        assert text.startswith("*.log\n*.md\n**/.git\n")
    assert not copy.parent.exists()


def test_the_arranged_dockerfile_may_be_another_one(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_bytes(b"FROM x\r\nRUN \xff\n")
    with arranged(
        tmp_path, tmp_path / "Dockerfile", (), EMPTY, lambda text: text.replace("RUN", "RUN --y")
    ) as copy:
        assert copy.read_bytes() == b"FROM x\r\nRUN --y \xff\n"


def test_an_unreadable_dockerfile_is_reported(tmp_path: Path) -> None:
    with (
        pytest.raises(DevloopError) as caught,
        arranged(tmp_path, tmp_path / "Dockerfile", (), EMPTY),
    ):
        pass
    assert caught.value.code == "env/file-unreadable"


def tar_of(context: Path, **options: bytes) -> tarfile.TarFile:
    data = b"".join(stream(context, scan_of(snapshot_of(context)), options or None))
    assert len(data) % 512 == 0
    return tarfile.open(fileobj=io.BytesIO(data), errorlevel=2)


def test_the_tar_holds_modes_links_and_any_name(tmp_path: Path) -> None:
    odd = os.fsdecode(b"\xff\xfe name")
    long = "x" * 120 + "/" + "y" * 150
    write(tmp_path, {"a": "one", "-rf; rm": "two", "new\nline": "", long: "three", "ünï": "four"})
    (tmp_path / odd).write_text("five")
    (tmp_path / "a").chmod(0o4755)
    (tmp_path / "empty").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to("a")
    (tmp_path / "dangling").symlink_to("n" * 130)
    os.utime(tmp_path / "a", (1, 1_600_000_000))
    with tar_of(tmp_path) as tar:
        members = {m.name: m for m in tar.getmembers()}
        expected = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*")}
        assert set(members) == expected
        assert list(members) == sorted(members)
        assert (members["a"].mode, members["a"].mtime) == (0o4755, 1_600_000_000)
        assert members["empty"].isdir()
        assert members["empty"].mode == 0o700
        assert members["link"].linkname == "a"
        assert members["dangling"].linkname == "n" * 130
        for name, text in ((odd, b"five"), (long, b"three"), ("new\nline", b"")):
            file = tar.extractfile(name)
            assert file is not None
            assert file.read() == text
        assert {(m.uid, m.gid, m.uname) for m in members.values()} == {(0, 0, "")}


@given(
    st.dictionaries(
        st.text("ab \n'\\\udcff-", min_size=1, max_size=30), st.binary(max_size=2000), max_size=6
    )
)
def test_the_tar_gives_back_what_was_there(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes]
) -> None:
    directory = tmp_path_factory.mktemp("context")
    for name, data in files.items():
        (directory / name).write_bytes(data)
    with tar_of(directory) as tar:
        back = {}
        for member in tar.getmembers():
            file = tar.extractfile(member)
            assert file is not None
            back[member.name] = file.read()
    assert back == files


def test_contents_may_be_put_in(tmp_path: Path) -> None:
    write(tmp_path, {"a": "one", ".dockerignore": "x"})
    with tar_of(tmp_path, **{".dockerignore": b"y", ".devloop.dockerfile": b"FROM z"}) as tar:
        assert sorted(tar.getnames()) == [".devloop.dockerfile", ".dockerignore", "a"]
        file = tar.extractfile(".dockerignore")
        assert file is not None
        assert file.read() == b"y"


def _shorter(path: Path) -> None:
    path.write_text("o")


def _longer(path: Path) -> None:
    path.write_text("one and more")


def _other(path: Path) -> None:
    path.write_text("two")


def _fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/hostname")


@pytest.mark.parametrize("change", [Path.unlink, _shorter, _longer, _other, _fifo, _link])
def test_a_file_that_changed_since_the_scan_ends_the_stream(tmp_path: Path, change: object) -> None:
    write(tmp_path, {"a": "one"})
    snapshot = snapshot_of(tmp_path)
    assert callable(change)
    change(tmp_path / "a")
    with pytest.raises(DevloopError) as caught:
        b"".join(stream(tmp_path, scan_of(snapshot)))
    assert caught.value.code == "build/context-changed"


@pytest.mark.parametrize("change", [Path.unlink, _shorter, _longer, _other, _fifo, _link])
def test_of_what_keeps_changing_the_build_gets_what_the_scan_read(
    tmp_path: Path, change: object
) -> None:
    write(tmp_path, {"a": "one"})
    scan = replace(scan_of(snapshot_of(tmp_path)), kept={"a": (7, [b"one"])})
    assert callable(change)
    change(tmp_path / "a")
    with tarfile.open(fileobj=io.BytesIO(b"".join(stream(tmp_path, scan)))) as tar:
        member = tar.extractfile("a")
        assert member is not None
        assert (member.read(), tar.getmember("a").mtime) == (b"one", 7)


def test_a_link_that_leads_elsewhere_ends_the_stream(tmp_path: Path) -> None:
    (tmp_path / "l").symlink_to("a")
    snapshot = snapshot_of(tmp_path)
    (tmp_path / "l").unlink()
    (tmp_path / "l").symlink_to("b")
    with pytest.raises(DevloopError):
        b"".join(stream(tmp_path, scan_of(snapshot)))


def test_modes_are_permission_bits_only(tmp_path: Path) -> None:
    write(tmp_path, {"a": "one"})
    with tar_of(tmp_path) as tar:
        assert tar.getmember("a").mode == stat.S_IMODE((tmp_path / "a").stat().st_mode)


@pytest.mark.parametrize("how", ["path", "link"])
def test_a_docker_from_snap_gets_its_files_within_the_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """It sees nothing of /tmp."""
    snap = tmp_path / "bin/snap"
    snap.parent.mkdir()
    snap.write_text("")
    link = tmp_path / "bin/docker"
    link.symlink_to(snap)
    found = "/snap/bin/docker" if how == "path" else str(link)
    monkeypatch.setattr(shutil, "which", lambda _: found)
    project = tmp_path / "shop"
    project.mkdir()
    place = place_for_files(project)
    assert place == project / ".devloop/tmp"
    (project / "Dockerfile").write_text("FROM scratch\n")
    with arranged(project, project / "Dockerfile", (), EMPTY, within=place) as copy:
        assert copy.is_relative_to(place)
    assert list(place.iterdir()) == []


def test_any_other_docker_gets_its_files_in_the_usual_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: "/usr/bin/docker")
    assert place_for_files(tmp_path) is None
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert place_for_files(tmp_path) is None
    assert list(tmp_path.iterdir()) == []
