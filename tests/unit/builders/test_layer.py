"""Layers: the bytes that are written, what is refused, and what is read back."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import tarfile
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from devloop.builders.image.copies import FileEntry
from devloop.builders.image.full_build import NeedsFullBuild
from devloop.builders.image.layer import read_layer, write_layer
from devloop.errors import DevloopError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def file(context: Path, source: str, data: bytes = b"data", **more: Any) -> FileEntry:
    """A file of the context as it is placed."""
    path = context / source
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    made = FileEntry(path=f"app/{source}", type="file", mode=0o644, size=len(data), digest=digest)
    return replace(made, source=source, **more)


def directory(path: str, **more: Any) -> FileEntry:
    return FileEntry(path=path, type="dir", **{"mode": 0o755, **more})


def unpacked(data: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(data), encoding="utf-8", errors="surrogateescape") as tar:
        return {member.name: member for member in tar}


def test_entries_as_they_are(tmp_path: Path) -> None:
    entries = [
        directory("app", mode=0o1777, uid=3),
        file(tmp_path, "a.py", b"print()", mode=0o4750, uid=1000, gid=2000),
        file(tmp_path, "empty", b""),
        file(tmp_path, "deep/er/block", bytes(1024)),
        FileEntry(path="app/l", type="symlink", mode=0o777, link="../x", gid=9),
    ]
    os.utime(tmp_path / "a.py", (5, 1234567.9))
    data = write_layer(entries, tmp_path)
    assert len(data) % 512 == 0
    found = unpacked(data)
    assert list(found) == ["app", "app/a.py", "app/empty", "app/deep/er/block", "app/l"]
    python = found["app/a.py"]
    assert (python.mode, python.uid, python.gid, python.mtime) == (0o4750, 1000, 2000, 1234567)
    assert (found["app"].mode, found["app"].uid, found["app"].mtime) == (0o1777, 3, 0)
    assert (found["app/l"].linkname, found["app/l"].gid) == ("../x", 9)
    # Nothing that only pax knows where there is no need for it.
    assert not any(member.pax_headers for member in found.values())
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        content = tar.extractfile("app/a.py")
        assert content is not None
        assert content.read() == b"print()"
    assert read_layer([data]) == {entry.path: replace(entry, source="") for entry in entries}


NAME = st.text(
    st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=60
)
RAW = st.binary(min_size=1, max_size=80).map(
    lambda b: os.fsdecode(b.replace(b"/", b"").replace(b"\0", b""))
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    parts=st.lists(NAME | RAW, min_size=1, max_size=5),
    link=NAME | RAW,
    owner=st.tuples(st.integers(0, 2**32 - 2), st.integers(0, 2**32 - 2)),
    mode=st.integers(0, 0o7777),
)
def test_any_name_and_owner(
    tmp_path: Path, parts: list[str], link: str, owner: tuple[int, int], mode: int
) -> None:
    path = os.path.normpath("/".join(("top", *parts)))
    if not link or not path.startswith("top/"):
        return
    uid, gid = owner
    entries = [
        directory("top", uid=uid, gid=gid, mode=mode),
        FileEntry(path=path, type="symlink", mode=0o777, link=link, uid=uid, gid=gid),
    ]
    data = write_layer(entries, tmp_path)
    assert list(read_layer([data]).values()) == entries


def test_big_numbers_and_long_names(tmp_path: Path) -> None:
    long = "/".join(["n" * 90] * 4)
    entry = file(tmp_path, long, uid=4_294_967_294, gid=2_097_152)
    os.utime(tmp_path / long, (0, -100))
    data = write_layer([entry], tmp_path)
    found = unpacked(data)[f"app/{long}"]
    assert (found.uid, found.gid, found.mtime) == (4_294_967_294, 2_097_152, 0)
    assert read_layer([data])[entry.path] == replace(entry, source="")


def test_the_same_files_give_the_same_bytes(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    layers = []
    for context in (one, two):
        entry = file(context, "x/y")
        os.utime(context / "x/y", (0, 7))
        layers.append(write_layer([directory("app"), entry], context))
    assert layers[0] == layers[1]


def elsewhere(path: Path) -> None:
    real = path.parent.with_name("real")
    path.parent.rename(real)
    path.parent.symlink_to("real")


def a_link(path: Path) -> None:
    path.rename(path.with_name("other"))
    path.symlink_to("other")


def a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def a_file_above(path: Path) -> None:
    path.unlink()
    path.parent.rmdir()
    path.parent.write_text("x")


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.write_bytes(b"DATA"),
        lambda path: path.write_bytes(b"data and more"),
        lambda path: path.write_bytes(b"dat"),
        lambda path: path.unlink(),
        *(elsewhere, a_link, a_pipe, a_directory, a_file_above),
    ],
)
def test_a_file_that_is_not_what_was_scanned(
    tmp_path: Path, change: Callable[[Path], object]
) -> None:
    entry = file(tmp_path, "src/f")
    change(tmp_path / "src/f")
    with pytest.raises(DevloopError) as raised:
        write_layer([entry], tmp_path)
    assert raised.value.code == "build/context-changed"
    assert raised.value.diagnosis.cause == "src/f"


def test_a_file_that_grows_while_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = file(tmp_path, "f")
    real = os.read

    def read(fd: int, size: int) -> bytes:
        data = real(fd, size)
        (tmp_path / "f").write_bytes(b"data!")
        return data

    monkeypatch.setattr("devloop.builders.image.layer.os.read", read)
    with pytest.raises(DevloopError):
        write_layer([entry], tmp_path)


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = file(tmp_path, "f")
    real = os.open

    def refuse(path: Any, flags: int, **more: Any) -> int:
        # Whoever runs the tests may be root, whom nothing stops.
        if path == "f":
            raise PermissionError(13, "Permission denied")
        return real(path, flags, **more)

    monkeypatch.setattr("devloop.builders.image.layer.os.open", refuse)
    with pytest.raises(DevloopError) as raised:
        write_layer([entry], tmp_path)
    assert raised.value.code == "env/file-unreadable"


def test_no_descriptor_is_left(tmp_path: Path) -> None:
    entries = [file(tmp_path, name) for name in ("a/b/c", "a/b/d", "a/e", "f", "a/b/g/h", "i/j")]
    before = sorted(os.listdir("/proc/self/fd"))  # noqa: PTH208
    assert len(read_layer([write_layer(entries, tmp_path)])) == len(entries)
    (tmp_path / "a/b/g/h").unlink()
    with pytest.raises(DevloopError):
        write_layer(entries, tmp_path)
    assert sorted(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_a_context_behind_a_symlink(tmp_path: Path) -> None:
    entry = file(tmp_path / "real", "f")
    (tmp_path / "link").symlink_to("real")
    assert "app/f" in read_layer([write_layer([entry], tmp_path / "link")])


def tar_of(kind: int, *members: tarfile.TarInfo, content: bytes = b"content") -> bytes:
    out = io.BytesIO()
    with tarfile.open(
        fileobj=out, mode="w", format=kind, encoding="utf-8", errors="surrogateescape"
    ) as tar:
        for member in members:
            if member.isreg():
                member.size = len(content)
            tar.addfile(member, io.BytesIO(content) if member.isreg() else None)
    return out.getvalue()


def info(name: str, kind: bytes = tarfile.REGTYPE, **more: Any) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type = kind
    for key, value in more.items():
        setattr(member, key, value)
    return member


@pytest.mark.parametrize("kind", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_reading_what_others_write(kind: int) -> None:
    long = "d/" + "n" * 200
    data = tar_of(
        kind,
        info("./", tarfile.DIRTYPE),
        info("./d/", tarfile.DIRTYPE, mode=0o750),
        info("./" + long, mode=0o100644, uid=3_000_000),
        info("d/ü\udcff"),
        info("d/link", tarfile.SYMTYPE, linkname="t" * 150, mode=0o644),
        info("d/hard", tarfile.LNKTYPE, linkname="./" + long, mode=0o600),
        info("d/lost", tarfile.LNKTYPE, linkname="not/here"),
        info("d/device", tarfile.CHRTYPE),
        info("d/.wh.gone", mode=0),
    )
    digest = hashlib.sha256(b"content").hexdigest()
    found = read_layer([data])
    assert list(found) == [
        *("d", long, "d/ü\udcff", "d/link", "d/hard", "d/lost", "d/device", "d/.wh.gone"),
    ]
    assert (found["d"].type, found["d"].mode) == ("dir", 0o750)
    big = found[long]
    assert (big.mode, big.uid, big.size, big.digest) == (0o644, 3_000_000, 7, digest)
    assert (found["d/link"].link, found["d/link"].mode) == ("t" * 150, 0o777)
    assert (found["d/hard"].digest, found["d/hard"].size, found["d/hard"].mode) == (
        digest,
        7,
        0o600,
    )
    assert found["d/lost"].digest == found["d/device"].digest == ""


def test_a_file_with_attributes_is_like_none_that_was_scanned() -> None:
    member = info("f", pax_headers={"SCHILY.xattr.security.capability": "x"})
    assert read_layer([tar_of(tarfile.PAX_FORMAT, member)])["f"].digest == ""


@pytest.mark.parametrize("step", [1, 7, 512, 1 << 20])
def test_layers_in_pieces(tmp_path: Path, step: int) -> None:
    data = write_layer([file(tmp_path, "f", os.urandom(3000)), directory("z")], tmp_path)
    whole = read_layer([data])
    two = gzip.compress(data[:700]) + gzip.compress(data[700:])
    for packed in (data, gzip.compress(data), two):
        pieces = [packed[at : at + step] for at in range(0, len(packed), step)]
        assert read_layer(pieces) == whole


def test_what_is_no_layer(tmp_path: Path) -> None:
    data = write_layer([file(tmp_path, "f", os.urandom(3000))], tmp_path)
    packed = gzip.compress(data)
    for bad in (b"\x28\xb5\x2f\xfd12", b"no tar at all" * 99, packed[:-40], data[:1000]):
        with pytest.raises(NeedsFullBuild):
            read_layer([bad])
