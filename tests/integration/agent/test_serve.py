"""What `serve` does beside what all agents do alike: digests, times, questions, the supervisor."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import socket
import stat
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Self

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.integration.hot.conftest import tree
from tests.support.agent import Supervised, child_of, program, python
from tests.support.machine import agent

if TYPE_CHECKING:
    from collections.abc import Iterator

SECOND = 10**9


def framed(*fields: bytes | str | int | Path) -> bytes:
    body = b"\0".join(f if isinstance(f, bytes) else os.fsencode(str(f)) for f in fields)
    return b"%08d" % len(body) + body


class Serve:
    """One `serve` process; alone unless the name of a supervisor's socket is given."""

    def __init__(self, name: str = "nobody", *, user: int | None = None) -> None:
        self.process = subprocess.Popen(
            [str(program()), "serve", "--socket", name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd="/",
            user=user,
            group=user,
            extra_groups=None if user is None else [],
        )
        self.hello = self.line()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self, data: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().decode("utf-8", "replace").removesuffix("\n")

    def ask(self, *fields: bytes | str | int | Path) -> str:
        self.send(framed(*fields))
        return self.line()

    def batch(self, *requests: bytes) -> list[str]:
        self.send(b"".join(requests) + framed("done"))
        answers = list(iter(self.line, "done"))
        assert "" not in answers, "it ended"
        return answers

    def close(self) -> int:
        with contextlib.suppress(BrokenPipeError):
            assert self.process.stdin is not None
            self.process.stdin.close()
        status = self.process.wait(20)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return status


@pytest.fixture
def serve() -> Iterator[Serve]:
    with Serve() as made:
        yield made


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made = tmp_path / "app"
    made.mkdir()
    return made


def put(
    root: Path,
    path: str | bytes,
    content: bytes = b"x",
    *,
    mode: str = "644",
    owner: str = "",
    digest: str | None = None,
) -> bytes:
    sum_ = hashlib.sha256(content).hexdigest() if digest is None else digest
    return framed("put", root, path, mode, owner, len(content), sum_) + content


def test_its_first_line(serve: Serve) -> None:
    assert serve.hello == "agent 1 alone"
    assert serve.close() == 0


@pytest.mark.parametrize("size", [0, 1, 55, 56, 63, 64, 65, 119, 120, 131_071, 131_073, 3_000_001])
def test_the_content_must_have_its_digest(serve: Serve, root: Path, size: int) -> None:
    content = random.Random(size).randbytes(size)
    wrong = hashlib.sha256(content + b"x").hexdigest()
    assert serve.batch(put(root, "a", content)) == []
    [answer] = serve.batch(put(root, "a", content + b"y", digest=wrong), put(root, "b", content))
    assert answer == f"bad 1 {root}/a: its content is not what it should be"
    assert tree(root) == {"a": ("file", 0o644, content), "b": ("file", 0o644, content)}
    line = serve.ask("check", root, "a").split()
    assert line[4:] == [str(size), hashlib.sha256(content).hexdigest()]


@pytest.mark.parametrize(
    "path", ["..", "../out", "a/../../out", "a/..", ".", "./a", "/out", "a//b", "a/", "/", "a/./b"]
)
def test_a_path_that_is_not_below_the_root(serve: Serve, root: Path, path: str) -> None:
    (root / "a").mkdir()
    answers = serve.batch(
        put(root, path),
        framed("dir", root, path, "755", ""),
        framed("link", root, path, "", "x"),
        framed("gone", root, path),
        framed("check", root, path),
        put(root, "fine"),
    )
    assert [answer.split()[:2] for answer in answers] == [["bad", str(n)] for n in range(1, 6)]
    assert sorted(tree(root.parent)) == ["app", "app/a", "app/fine"]


def test_the_root_is_no_file_and_no_link_and_is_not_removed(serve: Serve, root: Path) -> None:
    answers = serve.batch(
        put(root, ""), framed("link", root, "", "", "x"), framed("gone", root, "")
    )
    assert len(answers) == 3
    assert root.is_dir()


def test_a_root_must_be_absolute(serve: Serve) -> None:
    assert serve.ask("gone", "tmp", "a") == "bad 1 tmp/a: the root is not absolute"


def test_whatever_stands_in_the_place_of_a_link_stays_where_it_leads(
    serve: Serve, root: Path, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (root / "d").symlink_to(tmp_path / "out")
    (root / "f").symlink_to(tmp_path / "new")
    answers = serve.batch(put(root, "d/a"), put(root, "f"), framed("check", root, "d/a"))
    assert answers[0] == f"bad 1 {root}/d is a symlink in the image"
    assert answers[1].startswith("bad 3 ")
    assert sorted(tree(tmp_path)) == ["app", "app/d", "app/f", "out"]
    assert (root / "f").read_bytes() == b"x"


def test_the_time_of_a_file_that_replaces_another_is_of_a_later_second(
    serve: Serve, root: Path
) -> None:
    place = root / "a"
    serve.batch(put(root, "a"))
    for old, least in (
        (4_000_000_000 * SECOND, 4_000_000_001 * SECOND),
        (4_000_000_000 * SECOND + 1, 4_000_000_002 * SECOND),
        (4_000_000_000 * SECOND + SECOND - 1, 4_000_000_002 * SECOND),
    ):
        os.utime(place, ns=(old, old))
        serve.batch(put(root, "a"))
        assert place.stat().st_mtime_ns == least
    os.utime(place, ns=(0, 0))
    serve.batch(put(root, "b"), put(root, "a"))
    assert abs(place.stat().st_mtime_ns - (root / "b").stat().st_mtime_ns) < 3600 * SECOND
    serve.batch(put(root, "a"), put(root, "a"), put(root, "a"))
    assert place.stat().st_mtime_ns >= (root / "b").stat().st_mtime_ns + 2 * SECOND


def test_missing_directories_have_an_ordinary_mode(serve: Serve, root: Path) -> None:
    serve.batch(put(root / "new", "a/b", mode="4755"))
    assert {k: v[1] for k, v in tree(root).items()} == {
        "new": 0o755,
        "new/a": 0o755,
        "new/a/b": 0o4755,
    }


def test_what_was_begun_is_removed_when_the_input_ends(root: Path) -> None:
    for cut in (1, 8, 20, 100, 199_999):
        with Serve() as serve:
            whole = put(root, "a", b"x" * 200_000)
            serve.send(whole[: len(whole) - cut])
            assert serve.close() == 0
        assert tree(root) == {}


def test_requests_that_are_too_long_are_passed_over(serve: Serve, root: Path) -> None:
    long = "a/" * 60_000 + "a"
    answers = serve.batch(
        put(root, long, b"content" * 1000),
        framed("gone", root, long),
        framed("dance", long),
        put(root, "b" * 300),
        put(root, "x/" * 3000 + "y"),
        put(root, "fine"),
    )
    assert [a.split()[:2] for a in answers] == [
        ["bad", "1"],
        ["bad", "2"],
        ["unknown", "dance"],
        ["bad", "4"],
        ["bad", "5"],
    ]
    assert (root / "fine").exists()


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (framed("dance"), "unknown dance"),
        (framed(""), "unknown "),
        (framed("gone", "/x"), "bad 1 another number of fields belongs to it"),
        (framed("dir", "/x", "", "9", ""), "bad 1 dir is ROOT PATH MODE OWNER"),
        (framed("dir", "/x", "", "77777", ""), "bad 1 dir is ROOT PATH MODE OWNER"),
        (framed("dir", "/x", "", "755", "root"), "bad 1 dir is ROOT PATH MODE OWNER"),
        (framed("link", "/x", "a", "0:", "t"), "bad 1 link is ROOT PATH OWNER TARGET"),
        (framed("restart", "10"), "bad 1 there is no supervisor in this container"),
        (
            framed("put", "/x", "a", "9", "", "0", "0"),
            "bad 1 put is ROOT PATH MODE OWNER SIZE SHA256",
        ),
        (framed("put", "/x"), "broken put without the size of its content"),
        (b"0000000x", "broken a request begins with its size"),
        (framed("handles", "1", "65"), "unknown"),
        (framed("handles", "999999999", "15"), "unknown"),
    ],
)  # fmt: skip
def test_odd_requests(serve: Serve, request_: bytes, answer: str) -> None:
    serve.send(request_)
    assert serve.line() == answer


def test_check(serve: Serve, root: Path) -> None:
    (root / "d").mkdir(mode=0o750)
    (root / "f").write_bytes(b"abc")
    (root / "f").chmod(0o4755)
    (root / "l").symlink_to("a b\\c\nd")
    os.mkfifo(root / "p")
    ids = f"{os.getuid()} {(root / 'f').stat().st_gid}"
    digest = hashlib.sha256(b"abc").hexdigest()
    assert serve.ask("check", root, "d") == f"dir 750 {ids}"
    assert serve.ask("check", root, "f") == f"file 4755 {ids} 3 {digest}"
    assert serve.ask("check", root, "l") == r"link 777 a\040b\134c\012d"
    assert serve.ask("check", root, "p").startswith("other ")
    assert serve.ask("check", root, "") == f"dir {stat.S_IMODE(root.stat().st_mode):o} {ids}"
    for nothing in ("none", "none/none", "f/x"):
        assert serve.ask("check", root, nothing) == "nothing"
    assert serve.ask("check", root / "none", "x") == "nothing"


def test_who_may_write(serve: Serve, root: Path) -> None:
    def may(root: Path | str, path: str, what: str = "put", owner: str = "") -> str:
        return serve.ask("may", root, path, what, owner)

    (root / "f").touch()
    for path in ("f", "new", "new/deeper/file"):
        for what in ("put", "dir", "link", "gone"):
            assert may(root, path, what) == "yes"
    assert may(root, "", "dir") == "yes"
    assert may(root / "not" / "there", "x") == "yes"
    assert "Not a directory" in may(root / "f", "x")
    assert may(root, "f/x") == "yes"  # it may become a directory in the same batch
    assert may("relative", "x") == "no relative/x: the root is not absolute"
    assert may(root, "x", "put", "nobody").startswith("bad ")


ME = 10001


@pytest.fixture
def foreign() -> Iterator[Serve]:
    """An agent of another user, who owns nothing yet."""
    if os.getuid() != 0:
        pytest.skip("becomes another user")
    with Serve(user=ME) as serve:
        yield serve


@pytest.fixture
def open_root() -> Iterator[Path]:
    """One that other users get to: pytest's own directories are closed by each run that begins."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        made = Path(directory) / "app"
        made.mkdir()
        yield made


def test_another_user(foreign: Serve, open_root: Path) -> None:
    (open_root / "theirs").mkdir()
    os.chown(open_root / "theirs", ME, ME)
    (open_root / "open").mkdir()
    (open_root / "open").chmod(0o777)
    assert foreign.ask("may", open_root, "a", "put", "").endswith("Permission denied")
    assert foreign.ask("may", open_root, "theirs/a", "put", "") == "yes"
    assert foreign.ask("may", open_root, "theirs/a", "put", "0:0").endswith("another user or group")
    assert foreign.ask("may", open_root, "open/a", "put", "").endswith("another user or group")
    assert foreign.ask("may", open_root, "open/a", "gone", "") == "yes"
    answers = foreign.batch(
        put(open_root, "a"),
        put(open_root, "theirs/a"),
        put(open_root, "open/a"),
        put(open_root, "theirs/b", owner="0:0"),
    )
    assert len(answers) == 3
    assert sorted(tree(open_root)) == ["open", "theirs", "theirs/a"]


@pytest.mark.parametrize("content", [b"", b"n", b"new", b"longer than it was", b"x" * 200_000])
@pytest.mark.parametrize(
    ("folder", "file", "mode"),
    [
        ("0:0:755", f"{ME}:{ME}", "644"),  # WORKDIR as root, COPY --chown
        (f"{ME}:{ME}:755", f"{ME}:5", "4644"),  # runAsUser without runAsGroup
        ("0:5:755", f"{ME}:5", "600"),
        (f"0:{ME}:775", f"0:{ME}", "664"),  # as OpenShift has it: the group may
    ],
)
def test_a_file_that_may_only_be_written_to(
    foreign: Serve, open_root: Path, content: bytes, folder: str, file: str, mode: str
) -> None:
    user, group, bits = folder.split(":")
    os.chown(open_root, int(user), int(group))
    open_root.chmod(int(bits, 8))
    (open_root / "a").write_bytes(b"before")
    os.chown(open_root / "a", *map(int, file.split(":")))
    (open_root / "a").chmod(int(mode, 8))
    if content != b"new":  # for a file that was just written the agent waits two seconds
        os.utime(open_root / "a", (1_700_000_000, 1_700_000_000))
    before = (open_root / "a").stat()
    assert foreign.ask("may", open_root, "a", "put", file) == "yes"
    assert foreign.batch(put(open_root, "a", content, mode=mode, owner=file)) == []
    now = (open_root / "a").stat()
    assert (open_root / "a").read_bytes() == content
    assert f"{now.st_uid}:{now.st_gid}" == file
    assert (now.st_ino, now.st_mode) == (before.st_ino, before.st_mode)
    assert now.st_mtime_ns // SECOND > before.st_mtime_ns // SECOND
    assert os.listdir(open_root) == ["a"]  # noqa: PTH208


def test_a_file_that_may_only_be_written_to_is_left_alone_where_it_would_not_be_as_it_should(
    foreign: Serve, open_root: Path
) -> None:
    for name in ("linked", "plain", "other", "big"):
        (open_root / name).write_bytes(b"before")
        os.chown(open_root / name, ME, ME)
    os.link(open_root / "linked", open_root / "too")
    before = tree(open_root)
    own = f"{ME}:{ME}"
    assert foreign.ask("may", open_root, "linked", "put", own).startswith("no ")
    assert foreign.ask("may", open_root, "other", "put", f"{ME}:5").startswith("no ")
    answers = foreign.batch(
        put(open_root, "linked", owner=own),
        put(open_root, "plain", owner=own, digest="0" * 64),
        put(open_root, "other", owner=f"{ME}:5"),
        put(open_root, "big", b"x" * (17 << 20), owner=own),
        put(open_root, "new", owner=own),
    )
    assert [answer.rpartition(": ")[2] for answer in answers] == [
        "Permission denied",
        "its content is not what it should be",
        "Permission denied",
        "Permission denied",
        "Permission denied",
    ]
    assert tree(open_root) == before


@pytest.mark.parametrize(
    ("owner", "mode"), [("0:0", "7777"), ("0:0", "2777"), (f"{ME}:5", "2777"), ("0:0", "4777")]
)
def test_a_file_that_would_lose_bits_of_its_mode_is_not_written_to(
    foreign: Serve, open_root: Path, owner: str, mode: str
) -> None:
    """A write takes the set-user-ID and set-group-ID bits away (`COPY --chmod=7777` as root, a user
    who may write, not replace)."""
    (open_root / "a").write_bytes(b"before")
    os.chown(open_root / "a", *map(int, owner.split(":")))
    (open_root / "a").chmod(int(mode, 8))
    before = tree(open_root)
    assert foreign.ask("may", open_root, "a", "put", owner).startswith("no ")
    [answer] = foreign.batch(put(open_root, "a", mode=mode, owner=owner))
    assert answer.endswith("Permission denied")
    assert tree(open_root) == before


@pytest.mark.skipif(os.getuid() != 0, reason="gives files away")
def test_owners(serve: Serve, root: Path) -> None:
    os.chown(root, 7, 8)
    serve.batch(put(root, "new"), put(root, "given", owner="1:2", mode="4755"))
    os.chown(root / "new", 3, 4)
    serve.batch(put(root, "new", b"again"), framed("link", root, "l", "5:6", "x"))
    found = {p.name: (p.lstat().st_uid, p.lstat().st_gid) for p in root.iterdir()}
    assert found == {"new": (3, 4), "given": (1, 2), "l": (5, 6)}
    assert stat.S_IMODE((root / "given").stat().st_mode) == 0o4755
    serve.batch(put(root, "sub/x"))
    assert ((root / "sub/x").stat().st_uid, (root / "sub").stat().st_uid) == (0, 0)


@pytest.mark.skipif(os.getuid() != 0, reason="mounts a small file system")
def test_a_full_disk(serve: Serve, root: Path, tmp_path: Path) -> None:
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(root)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("may not mount")
    try:
        serve.batch(put(root, "a", b"old"))
        [answer] = serve.batch(put(root, "a", b"x" * 3_000_000), put(root, "b"))
        assert answer == f"bad 1 {root}/a: No space left on device"
        assert tree(root) == {"a": ("file", 0o644, b"old"), "b": ("file", 0o644, b"x")}
        assert serve.ask("may", tmp_path, "app", "link", "").endswith("something is mounted there")
    finally:
        subprocess.run(["umount", "-l", str(root)], check=True)


def test_a_deep_tree_is_removed_or_refused(serve: Serve, root: Path) -> None:
    try:
        serve.batch(put(root, "a/" * 150 + "f"))
        assert serve.batch(framed("gone", root, "a")) == []
        here = os.open(root, os.O_RDONLY)
        for _ in range(400):
            os.mkdir("d", dir_fd=here)
            inner = os.open("d", os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = inner
        os.close(here)
        [answer] = serve.batch(framed("gone", root, "d"))
        assert answer.startswith("bad 1 ")
    finally:  # pytest could not remove it
        subprocess.run(["rm", "-rf", str(root / "a"), str(root / "d")], check=True)


def test_a_large_directory_is_removed(serve: Serve, root: Path) -> None:
    (root / "d").mkdir()
    for n in range(2000):
        (root / "d" / f"a rather long name {n}").touch()
    assert serve.batch(framed("gone", root, "d")) == []
    assert tree(root) == {}


# --- with a supervisor ----------------------------------------------------------------------------


def test_what_concerns_the_command_goes_to_the_supervisor(root: Path) -> None:
    with Supervised("sleep", "100") as supervised:
        supervised.peer()
        with Serve(supervised.name) as serve:
            assert serve.hello == "agent 1 supervised"
            first = serve.line()
            assert first.startswith("state started ")
            assert serve.ask("hold") == "holding 1"
            assert serve.ask("state") == first
            serve.send(put(root, "a") + framed("restart", 1000) + framed("done"))
            lines = sorted(serve.line() for _ in range(5))
            assert lines[0] == "done"
            assert lines[1] == "event ended signal 15 asked 1"
            assert lines[2] == "event listening 2"
            assert lines[3].startswith("event started ")
            assert lines[4] == "restarting 2"
            assert serve.ask("signal", 9) == "signalled 9"
            assert serve.line() == "event ended signal 9 itself 2"
            assert supervised.process.poll() is None
        assert supervised.ended() == 137


def test_half_a_batch_restarts_nothing(root: Path) -> None:
    with Supervised("sleep", "100") as supervised:
        supervised.peer()
        with Serve(supervised.name) as serve:
            first = serve.line()
            answers = serve.batch(put(root, "a", digest="0" * 64), framed("restart", 1000))
            assert answers[1] == "bad 2 not restarted, for a step before it failed"
            assert serve.ask("state") == first
            serve.batch()
            assert serve.ask("restart", 1000) == "restarting 2"


def test_it_says_when_the_supervisor_is_gone() -> None:
    with Supervised("sleep", "100") as supervised:
        supervised.peer()
        with Serve(supervised.name) as serve:
            serve.line()
            supervised.process.terminate()
            assert serve.line() == "event ended signal 15 asked 1"
            assert serve.line() == "event lost"
            assert serve.ask("hold") == "bad 1 there is no supervisor in this container"


def test_whether_a_process_handles_a_signal() -> None:
    code = "import signal; signal.signal(15, lambda *_: 0); print('ready', flush=True); input()"
    with Supervised(*python(code), stdin=subprocess.PIPE) as supervised, Serve() as serve:
        assert supervised.line() == "ready"
        pid = child_of(supervised.peer().first)
        assert serve.ask("handles", pid, 15) == "yes"
        assert serve.ask("handles", pid, 10) == "no"


# --- hostile input --------------------------------------------------------------------------------

_VERB = st.sampled_from(
    ["put", "dir", "link", "gone", "check", "may", "handles", "done", "restart", "hold", "nonsense"]
)
_FIELD = st.one_of(
    st.sampled_from(["", "/", "..", "a", "a/b", "a/../..", "644", "0:0", "15", "1", "up/x"]),
    st.binary(max_size=40).map(lambda b: b.decode("latin-1")),
)  # fmt: skip
_REQUEST = st.tuples(_VERB, st.lists(_FIELD, max_size=7), st.booleans(), st.binary(max_size=20))


@settings(max_examples=60)
@given(
    requests=st.lists(_REQUEST, max_size=12), cut=st.integers(0, 60), junk=st.binary(max_size=60)
)
def test_random_input_neither_ends_it_badly_nor_leaves_the_root(
    requests: list[tuple[str, list[str], bool, bytes]], cut: int, junk: bytes
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory) / "app"
        root.mkdir()
        (Path(directory) / "out").mkdir()
        (root / "up").symlink_to("../out")
        data = b""
        for verb, fields, rooted, content in requests:
            own = [str(root)] if rooted else ["app"]
            data += framed(verb, *own, *[f.encode("latin-1") for f in fields]) + content
        with Serve() as serve:
            with contextlib.suppress(BrokenPipeError):
                serve.send(data[: len(data) - cut] + junk)
            assert serve.process.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                serve.process.stdin.close()
            assert serve.process.stdout is not None
            serve.process.stdout.read()
            assert serve.process.wait(20) in (0, 1)
        assert not any((Path(directory) / "out").iterdir())
        assert sorted(p.name for p in Path(directory).iterdir()) == ["app", "out"]
        assert not [name for name in tree(root) if "devloop-sync" in name]


# --- the programs ---------------------------------------------------------------------------------


def test_there_is_a_small_program_for_each_processor() -> None:
    directory = agent.ensure()
    for name, machine in (("linux-amd64", 62), ("linux-arm64", 183)):
        found = directory / name
        header = found.read_bytes()[:20]
        assert header[:5] == b"\x7fELF\x02"
        assert int.from_bytes(header[18:20], "little") == machine
        assert found.stat().st_size <= 64_000
        assert os.access(found, os.X_OK)


# --- others ---------------------------------------------------------------------------------------


def test_no_other_user_is_listened_to() -> None:
    if os.getuid() != 0:
        pytest.skip("becomes another user")
    with Supervised("sleep", "100") as supervised:
        supervised.peer()
        with Serve(supervised.name, user=10001) as serve:
            # The supervisor runs as root, whom it trusts, but which does not trust it.
            assert serve.hello == "agent 1 supervised"
            assert serve.line() == "event lost"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as impostor:
        impostor.bind(f"\0devloop-agent/impostor-{os.getpid()}")
        impostor.listen()
        with Serve(f"impostor-{os.getpid()}") as serve:
            assert serve.hello == "agent 1 supervised"  # the same user, who could do as much itself
