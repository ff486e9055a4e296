"""A command under the supervisor can tell no difference, and neither can who started it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import resource
import signal
import struct
import subprocess
import termios
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.agent import OTHER_PROGRAM, Supervised, child_of, program, python
from tests.support.waiting import runs, until

if TYPE_CHECKING:
    from collections.abc import Iterator

# What can neither be caught nor ignored, and what is the supervisor's own.
NOT_PASSED_ON = {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD}
# As tini: they are about who may use the terminal.
OF_THE_TERMINAL = {signal.SIGTTIN, signal.SIGTTOU}

PORTRAIT = """
import json, os, resource, sys
def status(name):
    for line in open('/proc/self/status'):
        if line.startswith(name):
            return line.split()[1:]
fds = {}
for fd in os.listdir('/proc/self/fd'):
    try:
        fds[fd] = os.readlink('/proc/self/fd/' + fd)
    except OSError:
        pass  # that of the directory itself
for fd in '012':
    fds[fd] = fds[fd].split(':')[0]
json.dump({
    'argv': sys.argv, 'environment': dict(os.environ), 'directory': os.getcwd(),
    'umask': status('Umask'), 'blocked': status('SigBlk'), 'ignored': status('SigIgn'),
    'user': status('Uid'), 'group': status('Gid'), 'groups': status('Groups'),
    'no_new_privileges': status('NoNewPrivs'), 'capabilities': status('CapEff'),
    'session': os.getsid(0), 'nice': os.nice(0),
    'limits': {n: resource.getrlimit(getattr(resource, n)) for n in dir(resource) if 'RLIMIT' in n},
    'descriptors': fds, 'leads_its_group': os.getpgrp() == os.getpid(),
}, sys.stdout)
"""


@pytest.mark.parametrize(
    ("script", "status"),
    [
        ("exit 0", 0),
        ("exit 3", 3),
        ("exit 255", 255),
        ("kill -KILL $$", 128 + signal.SIGKILL),
        ("kill -TERM $$", 128 + signal.SIGTERM),
        ("kill -SEGV $$", 128 + signal.SIGSEGV),
    ],
)
def test_it_ends_as_the_command_does(script: str, status: int) -> None:
    with Supervised("sh", "-c", f"ulimit -c 0; {script}") as supervised:
        assert supervised.ended() == status


def test_what_cannot_be_executed_is_said_as_the_runtime_says_it(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("text")
    (tmp_path / "odd").write_bytes(b"\0\0\0\0")
    (tmp_path / "odd").chmod(0o755)
    said = {
        "no-such-program": ("executable file not found in $PATH", 127),
        "": ("executable file not found in $PATH", 127),
        "/no/such/program": ("no such file or directory", 127),
        str(tmp_path / "plain"): ("permission denied", 126),
        str(tmp_path): ("is a directory", 126),
        str(tmp_path / "odd"): ("exec format error", 126),
    }
    for command, (why, status) in said.items():
        with Supervised(command) as supervised:
            _, error = supervised.process.communicate(timeout=20)
            assert (error.decode(), supervised.ended()) == (f'exec: "{command}": {why}\n', status)


def test_the_command_is_looked_up_as_the_runtime_does(tmp_path: Path) -> None:
    for name, text in (
        ("a", "not executable"),
        ("b", "#!/bin/sh\necho b"),
        ("c", "#!/bin/sh\necho c"),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "tool").write_text(text)
        (tmp_path / name / "tool").chmod(0o755 if name != "a" else 0o644)
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "tool").mkdir()
    path = os.pathsep.join(str(tmp_path / name) for name in "dabc")
    with Supervised("tool", env={"PATH": path}) as supervised:
        assert supervised.line() == "b"
    with Supervised("./tool", env={}, cwd=tmp_path / "c") as supervised:
        assert supervised.line() == "c"


def test_the_command_inherits_what_it_would_have_without(tmp_path: Path) -> None:
    inherited = os.open(tmp_path, os.O_RDONLY)

    def odd() -> None:
        os.umask(0o027)
        os.nice(1)
        for number in (signal.SIGUSR1, signal.SIGTERM, 40):
            signal.pthread_sigmask(signal.SIG_BLOCK, [number])
        for number in (signal.SIGHUP, signal.SIGCHLD, signal.SIGUSR2):
            signal.signal(number, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_NOFILE, (90, 95))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.setsid()

    env = {"PATH": os.environ["PATH"], "ODD": "a\nb", "EMPTY": ""}
    argv = [*python(PORTRAIT), "one", ""]
    try:
        plain = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=env,
            cwd=tmp_path,
            preexec_fn=odd,
            pass_fds=[inherited],
            check=True,
            timeout=30,
        )
        with Supervised(*argv, env=env, cwd=tmp_path, preexec=odd, keep=[inherited]) as supervised:
            output, error = supervised.process.communicate(timeout=30)
            assert error == b""
    finally:
        os.close(inherited)
    alone, under = json.loads(plain.stdout), json.loads(output)
    assert under.pop("session") == supervised.pid
    assert alone.pop("session") != supervised.pid
    assert under["leads_its_group"]
    assert under == alone


def test_signals_that_the_c_library_keeps_to_itself_stay_blocked() -> None:
    """32 to 34: Go and glibc use them, and Python cannot set them."""
    code = (
        "import ctypes, os, struct, sys\n"
        "mask = ctypes.create_string_buffer(struct.pack('Q', 0b111 << 31))\n"
        "ctypes.CDLL(None).syscall(14, 2, mask, None, 8)\n"
        "os.execv(sys.argv[1], sys.argv[1:])\n"
    )
    if os.uname().machine != "x86_64":
        pytest.skip("the system call has another number here")
    argv = [str(program()), "supervise", "--", "grep", "SigBlk", "/proc/self/status"]
    done = subprocess.run(
        [*python(code), *argv], capture_output=True, text=True, check=True, timeout=30
    )
    assert int(done.stdout.split()[1], 16) & 0b111 << 31 == 0b111 << 31


def test_every_signal_is_passed_on() -> None:
    """Those that the supervisor itself was started ignoring too."""
    numbers = sorted(signal.valid_signals() - NOT_PASSED_ON - OF_THE_TERMINAL)
    code = (
        "import signal\n"
        f"numbers = {[int(n) for n in numbers]}\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, numbers)\n"
        "print('ready', flush=True)\n"
        "while True:\n"
        "    print(signal.sigwaitinfo(numbers).si_signo, flush=True)\n"
    )

    def ignore() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    with Supervised(*python(code), preexec=ignore) as supervised:
        assert supervised.line() == "ready"
        for number in numbers:
            supervised.process.send_signal(number)
            assert supervised.line() == str(int(number))
        for number in OF_THE_TERMINAL:
            supervised.process.send_signal(number)
        supervised.process.send_signal(signal.SIGUSR1)
        assert supervised.line() == str(int(signal.SIGUSR1))


def test_a_command_that_handles_no_signal_ends_by_it() -> None:
    with Supervised("sleep", "100") as supervised:
        until(lambda: _comm(child_of(supervised.peer().first)) == "sleep")
        supervised.process.terminate()
        assert supervised.ended() == 128 + signal.SIGTERM


def test_it_ends_with_the_command_although_others_live(tmp_path: Path) -> None:
    script = "sleep 100 & echo $!; (trap '' TERM; exec sleep 100 >/dev/null 2>&1) & echo $!; exit 4"
    with Supervised("sh", "-c", script) as supervised:
        left = [int(supervised.line()) for _ in range(2)]
        try:
            assert supervised.ended() == 4
            assert all(map(runs, left))
        finally:
            for pid in left:
                os.kill(pid, signal.SIGKILL)


def test_orphans_are_reaped() -> None:
    script = "for n in 1 2 3 4 5; do (sh -c 'sleep 0' &); done; echo made; exec sleep 100"
    with Supervised("sh", "-c", script) as supervised:
        assert supervised.line() == "made"
        child = child_of(supervised.peer().first)
        until(lambda: _children(supervised.pid) == [child])


def test_input_reaches_the_command() -> None:
    with Supervised("cat", stdin=subprocess.PIPE) as supervised:
        output, _ = supervised.process.communicate(b"x" * 100_000, timeout=20)
        assert output == b"x" * 100_000
        assert supervised.ended() == 0


def test_without_a_socket_it_is_a_plain_init() -> None:
    with Supervised("sleep", "100") as first:
        first.peer()
        argv = [str(program()), "supervise", "--socket", first.name, "--", "sh", "-c", "exit 5"]
        done = subprocess.run(argv, capture_output=True, check=False, timeout=20)
        assert (done.returncode, done.stdout, done.stderr) == (5, b"", b"")
        first.process.terminate()


def test_without_free_descriptors_the_command_runs_alone() -> None:
    def none_left() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (4, 4))

    if os.environ.get(OTHER_PROGRAM):
        pytest.skip("sanitizers need descriptors")
    argv = [str(program()), "supervise", "--", "sh", "-c", "echo $$; exit 6"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, preexec_fn=none_left) as process:  # noqa: PLW1509
        assert process.stdout is not None
        assert int(process.stdout.read()) == process.pid
        assert process.wait(20) == 6


@pytest.mark.parametrize("arguments", [(), ("--",), ("sh",), ("--stop-signal", "0", "--", "sh")])
def test_bad_usage(arguments: tuple[str, ...]) -> None:
    argv = [str(program()), "supervise", *arguments]
    done = subprocess.run(argv, capture_output=True, check=False, timeout=20)
    assert done.returncode == 2
    assert b"after --" in done.stderr


def test_nothing_happens_while_nothing_happens() -> None:
    with Supervised("sleep", "100") as supervised:
        peer = supervised.peer()
        peer.ask("hold")
        until(lambda: _state(supervised.pid) == "S")
        before = _switches(supervised.pid)
        time.sleep(0.3)
        assert _switches(supervised.pid) == before


def test_little_memory() -> None:
    if os.environ.get(OTHER_PROGRAM):
        pytest.skip("sanitizers need memory")
    with Supervised("sleep", "100") as supervised:
        supervised.peer().ask("hold")
        assert resident_kib(supervised.pid) < 1024


# --- terminals ------------------------------------------------------------------------------------


@contextlib.contextmanager
def _terminal() -> Iterator[tuple[int, int]]:
    ours, theirs = pty.openpty()
    try:
        yield ours, theirs
    finally:
        os.close(ours)
        with contextlib.suppress(OSError):
            os.close(theirs)


def _read_until(fd: int, wanted: bytes) -> bytes:
    got = b""
    while wanted not in got:
        got += os.read(fd, 1024)
    return got


def test_a_terminal_is_the_commands() -> None:
    code = (
        "import os, signal\n"
        "def say(text):\n"
        "    os.write(1, text + b'\\n')\n"
        "signal.signal(signal.SIGINT, lambda *_: say(b'interrupted'))\n"
        "signal.signal(signal.SIGWINCH, lambda *_: say(b'resized'))\n"
        "say(b'group %d' % os.getpid())\n"
        "while True:\n"
        "    say(b'got ' + os.read(0, 100))\n"
    )
    with _terminal() as (ours, theirs):

        def take() -> None:
            os.setsid()
            fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)
            for fd in (0, 1, 2):
                os.dup2(theirs, fd)

        argv = [str(program()), "supervise", "--socket", f"tty-{os.getpid()}", "--"]
        with subprocess.Popen([*argv, *python(code)], preexec_fn=take, close_fds=True) as process:  # noqa: PLW1509
            child = int(_read_until(ours, b"\n").split()[1])
            assert os.tcgetpgrp(ours) == child
            os.write(ours, b"hello\n")
            _read_until(ours, b"got hello")
            os.write(ours, b"\x03")
            _read_until(ours, b"interrupted")
            fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 99, 0, 0))
            _read_until(ours, b"resized")
            os.kill(child, signal.SIGKILL)
            assert process.wait(20) == 137


def test_a_restart_gives_the_terminal_to_the_new_command_as_it_was() -> None:
    with _terminal() as (ours, theirs):

        def take() -> None:
            os.setsid()
            fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)
            os.dup2(theirs, 0)

        # Ignored before it says that it is up: the stop may come right after that.
        script = "trap '' TERM; stty -g; stty raw -echo; echo raw; while :; do sleep 1; done"
        before = termios.tcgetattr(ours)
        with Supervised("sh", "-c", script, preexec=take) as supervised:
            as_it_was = supervised.line()
            assert supervised.line() == "raw"
            peer = supervised.peer()
            peer.ask("hold")
            peer.ask("stop 0")
            assert peer.hear() == "ended signal 9 asked 1"
            assert peer.hear() == "stopped 1"
            assert termios.tcgetattr(ours) != before
            peer.ask("restart 0")
            second = child_of(peer.hear())
            assert supervised.line() == as_it_was
            assert supervised.line() == "raw"
            assert os.tcgetpgrp(ours) == second


# --- what is seen of a process --------------------------------------------------------------------


def _comm(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def _children(pid: int) -> list[int]:
    return [int(n) for n in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _switches(pid: int) -> list[str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return [line for line in lines if "voluntary_ctxt_switches" in line]


def resident_kib(pid: int) -> int:
    [line] = [n for n in Path(f"/proc/{pid}/status").read_text().splitlines() if "VmRSS" in n]
    return int(line.split()[1])


def test_what_the_kernel_says_of_process_1_is_told_without_cat() -> None:
    told = subprocess.run([program(), "status"], capture_output=True, text=True, check=True).stdout
    names = [line.partition(":")[0] for line in told.splitlines()]
    assert names == [
        line.partition(":")[0] for line in Path("/proc/1/status").read_text().splitlines()
    ]
    assert {"Name", "SigBlk", "SigCgt"} <= {*names}
