"""`event listening`: the command serves again where it did. In a network of their own where that
is allowed, for whatever else stops listening on this computer is taken for the command's."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import platform
import select
import signal
import socket
import struct
import subprocess
import sys
import uuid
from functools import cache
from typing import TYPE_CHECKING, Self

import pytest

from tests.integration.agent.test_serve import framed
from tests.support.agent import descendants, program, python
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

# Runs a file that is edited between its starts.
COMMAND = """
import signal, socket, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit())
kept = []
def listen(port, family=socket.AF_INET):
    made = socket.socket(family)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    made.bind(("", port))
    made.listen()
    kept.append(made)
    return made
def listen6(port):
    listen(port, socket.AF_INET6)
exec(open(sys.argv[1]).read())
print("up", flush=True)
signal.pause()
"""
ONE, TWO, OTHER = 18001, 18002, 18003


@cache
def isolation() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What makes a network for a program, and what enters it, before `-t PID`."""
    root = os.geteuid() == 0
    make = ("unshare", "-n") if root else ("unshare", "-Urn")
    with contextlib.suppress(OSError):
        if subprocess.run([*make, "true"], capture_output=True, check=False).returncode == 0:
            return make, ("nsenter", "-n") if root else ("nsenter", "-Un", "--preserve-credentials")
    return (), ()


class Container:
    """A supervised command and `serve` beside it."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._made: list[subprocess.Popen[bytes]] = []
        self._name = uuid.uuid4().hex
        self.served = 0
        self._supervisor: subprocess.Popen[bytes] | None = None
        self._serve: subprocess.Popen[bytes] | None = None

    def start(self, code: str, *options: str, before: Callable[[], object] | None = None) -> Self:
        """`options` are of `serve`; `before` runs in its process first."""
        self._file.write_text(code)
        command = (*python(COMMAND), str(self._file))
        argv = (str(program()), "supervise", "--socket", self._name, "--", *command)
        self._supervisor = self._popen(*isolation()[0], *argv)
        self.up()
        serve = (str(program()), "serve", "--socket", self._name, *options)
        self._serve = self.inside(*serve, before=before)
        assert self.line() == "agent 1 supervised"
        assert self.line().startswith("state started ")
        self.send("hold")
        assert self.line() == "holding 1"
        return self

    def inside(
        self, *argv: str, before: Callable[[], object] | None = None
    ) -> subprocess.Popen[bytes]:
        """A program in the command's network."""
        assert self._supervisor is not None
        enter = isolation()[1]
        to = ("-t", str(self._supervisor.pid)) if enter else ()
        return self._popen(*enter, *to, *argv, before=before)

    def _popen(
        self, *argv: str, before: Callable[[], object] | None = None
    ) -> subprocess.Popen[bytes]:
        made = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            preexec_fn=before,  # noqa: PLW1509 - no other thread of this process holds a lock
        )
        self._made.append(made)
        return made

    def up(self) -> None:
        """Wait until the command says that it listens; before a restart, that is."""
        assert self._supervisor is not None
        assert line_of(self._supervisor) == "up"

    def send(self, *fields: object) -> None:
        assert self._serve is not None
        assert self._serve.stdin is not None
        self._serve.stdin.write(framed(*map(str, fields)))

    def line(self) -> str:
        assert self._serve is not None
        return line_of(self._serve)

    def restart(self, code: str | None = None) -> None:
        """As `code` says, up to where the command is started."""
        if code is not None:
            self._file.write_text(code)
        self.send("restart", 5000)
        while not self.line().startswith("event started "):
            pass  # what the one before came to

    def listening(self) -> set[int]:
        """The ports that listen when the agent says that the command does."""
        while (line := self.line()).startswith("event waiting "):
            pass  # Python takes its time to start
        assert line.startswith("event listening ")
        return self.ports()

    def ports(self) -> set[int]:
        assert self._supervisor is not None
        found = set()
        for table in ("tcp", "tcp6"):
            with open(f"/proc/{self._supervisor.pid}/net/{table}") as lines:  # noqa: PTH123
                for fields in map(str.split, list(lines)[1:]):
                    if fields[3] == "0A":
                        found.add(int(fields[1].rpartition(":")[2], 16))
        return found & {ONE, TWO, OTHER}

    def close(self) -> None:
        left = [pid for made in self._made for pid in descendants(made.pid)]
        for made in self._made:
            made.kill()
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, 9)
        for made in self._made:
            made.wait(10)
            for stream in (made.stdin, made.stdout):
                if stream is not None:
                    stream.close()


def line_of(process: subprocess.Popen[bytes]) -> str:
    """The next line of its output. Fails the test where none comes."""
    assert process.stdout is not None
    line = b""
    while not line.endswith(b"\n"):
        assert select.select([process.stdout], [], [], 30)[0], f"silent after {line!r}"
        got = os.read(process.stdout.fileno(), 1)
        assert got, f"ended after {line!r}"
        line += got
    return line.decode().removesuffix("\n")


@pytest.fixture
def container(tmp_path: Path) -> Iterator[Container]:
    made = Container(tmp_path / "code.py")
    yield made
    made.close()


@pytest.mark.parametrize(
    ("code", "ports"),
    [
        (f"listen({ONE})", {ONE}),
        (f"listen6({ONE})", {ONE}),
        (f"listen({ONE}); listen({TWO})", {ONE, TWO}),
        (f"listen({ONE}); time.sleep(0.1); listen6({TWO})", {ONE, TWO}),
        (f"time.sleep(0.1); listen({ONE})", {ONE}),
    ],
)
def test_the_command_listens_when_all_its_ports_do(
    container: Container, code: str, ports: set[int]
) -> None:
    container.start(code)
    for _ in range(2):
        container.restart()
        assert container.listening() == ports
        container.up()


def no_netlink() -> None:
    """As some sandboxes: no process from here on opens a netlink socket."""
    libc = ctypes.CDLL(None, use_errno=True)
    call = {"x86_64": 41, "aarch64": 198}[platform.machine()]  # socket(2)
    load, jump_if, answer, allow, errno_ = 0x20, 0x15, 0x06, 0x7FFF0000, 0x00050000
    program_ = b"".join(
        struct.pack("=HBBI", *step)
        for step in (
            (load, 0, 0, 0),  # the number of the call
            (jump_if, 0, 3, call),
            (load, 0, 0, 16),  # its first argument
            (jump_if, 0, 1, socket.AF_NETLINK),
            (answer, 0, 0, errno_ | errno.EAFNOSUPPORT),
            (answer, 0, 0, allow),
        )
    )
    held = ctypes.create_string_buffer(program_)
    filters = struct.pack("@HP", len(program_) // 8, ctypes.addressof(held))
    for option, value, given in ((38, 1, None), (22, 2, filters)):  # NO_NEW_PRIVS, SECCOMP
        assert libc.prctl(option, value, given, 0, 0) == 0, os.strerror(ctypes.get_errno())


def test_a_kernel_that_does_not_tell_who_listens_has_a_table_to_read(container: Container) -> None:
    container.start(f"listen({ONE}); listen6({TWO})", before=no_netlink)
    for _ in range(2):
        container.restart(f"listen({ONE}); time.sleep(0.1); listen6({TWO})")
        assert container.listening() == {ONE, TWO}
        container.up()


def test_a_command_without_a_port_is_not_waited_for(container: Container) -> None:
    container.start("pass")
    container.restart("time.sleep(3600)")
    assert container.listening() == set()


def test_an_edit_may_add_a_port(container: Container) -> None:
    container.start(f"listen({ONE})")
    container.restart(f"listen({TWO}); time.sleep(0.1); listen({ONE})")
    assert container.listening() == {ONE, TWO}
    container.up()
    container.restart(f"listen({TWO}); time.sleep(0.1); listen({ONE})")
    assert container.listening() == {ONE, TWO}


@pytest.mark.parametrize(
    ("before", "after", "news"),
    [
        (f"listen({ONE})", f"listen({TWO})", f"{ONE} - {TWO}"),
        (f"listen({ONE}); listen({TWO})", f"listen({TWO})", f"{ONE} {TWO} -"),
        (f"listen({ONE}); listen({TWO})", "pass", f"{ONE},{TWO} - -"),
        (f"listen({ONE})", f"listen({TWO}).close()", f"{ONE} - -"),
    ],
)
def test_an_edit_may_take_a_port_away_or_move_it(
    container: Container, before: str, after: str, news: str
) -> None:
    container.start(before)
    container.restart(after)
    assert container.line() == f"event waiting 2 {news}"
    container.up()
    left = container.ports()
    # Until it is said that nothing more is to come, the ports are those of before.
    container.restart()
    assert container.line() == f"event waiting 3 {news}"
    container.up()
    container.send("settle")
    container.restart(f"time.sleep(0.3); {after}")
    assert container.listening() == left


def test_what_is_awaited_is_told_at_each_change(container: Container) -> None:
    container.start(f"listen({ONE}); listen({TWO})")
    container.restart(
        "import signal as s; s.pthread_sigmask(s.SIG_BLOCK, [s.SIGUSR1, s.SIGUSR2])\n"
        f"s.sigwait([s.SIGUSR1]); listen({TWO}); listen({OTHER})\n"
        f"s.sigwait([s.SIGUSR2]); listen({ONE})"
    )
    assert container.line() == f"event waiting 2 {ONE},{TWO} - -"
    container.send("signal", signal.SIGUSR1.value)
    left = {"signalled 10", f"event waiting 2 {ONE} {TWO} {OTHER}"}
    while left:
        left.discard(container.line())
    container.send("signal", signal.SIGUSR2.value)
    assert {container.line(), container.line()} == {"signalled 12", "event listening 2"}
    assert container.ports() == {ONE, TWO, OTHER}


def test_another_port_that_is_closed_again_is_not_the_command_s(container: Container) -> None:
    container.start(f"listen({ONE})")
    container.restart(f"listen({TWO}).close(); time.sleep(0.1); listen({ONE})")
    assert container.listening() == {ONE}


@pytest.mark.parametrize("crashes", [1, 3])
def test_a_command_that_crashes_leaves_its_ports_to_the_one_that_mends_it(
    container: Container, crashes: int
) -> None:
    container.start(f"listen({ONE})")
    for n in range(crashes):
        container.restart(f"sys.exit({n})")
        assert container.line() == f"event ended exit {n} itself {n + 2}"
    container.restart(f"time.sleep(0.1); listen({ONE})")
    assert container.listening() == {ONE}


def test_a_command_that_crashed_by_itself_has_the_ports_that_it_had(container: Container) -> None:
    container.start(f"listen({ONE})")
    container.send("signal", 9)
    assert container.line() == "signalled 9"
    assert container.line() == "event ended signal 9 itself 1"
    container.restart(f"time.sleep(0.1); listen({ONE})")
    assert container.listening() == {ONE}


def test_a_restart_before_it_listened_waits_for_the_same_ports(container: Container) -> None:
    container.start(f"listen({ONE})")
    container.restart("time.sleep(3600)")
    container.restart(f"time.sleep(0.1); listen({ONE})")
    assert container.listening() == {ONE}


def test_the_listener_of_another_container_does_not_count(container: Container) -> None:
    container.start(f"listen({ONE})")
    listening = (
        "import socket, sys; s = socket.create_server(('', int(sys.argv[1]))); "
        "print('up', flush=True); sys.stdin.read()"
    )
    container.inside(sys.executable, "-SEs", "-c", listening, str(OTHER))
    until(lambda: OTHER in container.ports())
    for _ in range(2):
        container.restart(f"time.sleep(0.1); listen({ONE})")
        assert container.listening() == {ONE, OTHER}
        container.up()
