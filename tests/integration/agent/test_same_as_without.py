"""The same command plainly and under the supervisor, in real containers: how it ends, what it
writes, what it gets, and every process that there is meanwhile.

What differs is what the design says differs: process 1 is the supervisor, so that a command without
a handler of its own ends by a signal at once, as on any host.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import pty
import struct
import subprocess
import termios
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from tests.integration.agent.conftest import AGENT, GATE, container, docker
from tests.integration.agent.looks import processes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.docker

Found = TypeVar("Found")

UNDER = (AGENT, "supervise", "--")
OPTIONS = (
    *("--hostname=same", "--workdir=/tmp", "--env=ODD=a b", "--env=EMPTY="),
    *("--ulimit=nofile=1000:2000", "--ulimit=core=0:5000", "--oom-score-adj=7"),
)
NOBODY = (
    *("--user=10001:10002", "--group-add=7", "--read-only", "--cap-drop=ALL"),
    "--security-opt=no-new-privileges",
)
LEADS_A_SESSION = (
    'import os; os.setsid(); print("up", flush=True); os.execvp("sleep", ["sleep", "1001"])'
)
PASS = f"read _ < {GATE}; "


def sh(script: str) -> tuple[str, ...]:
    return ("sh", "-c", script)


def python(code: str) -> tuple[str, ...]:
    return ("python3", "-SEsuc", code)


HANDLES = python(
    "import signal, sys\n"
    "def say(number, _):\n"
    "    print(signal.Signals(number).name, flush=True)\n"
    "    if number == signal.SIGTERM:\n"
    "        sys.exit(5)\n"
    "for name in ('HUP', 'INT', 'QUIT', 'USR1', 'USR2', 'ALRM', 'WINCH', 'CONT', 'TERM'):\n"
    "    signal.signal(getattr(signal, 'SIG' + name), say)\n"
    "signal.signal(signal.SIGPIPE, signal.SIG_DFL)\n"
    "print('up', flush=True)\n"
    "while True:\n"
    "    signal.pause()\n"
)
WORKERS = python(
    "import os, signal, sys\n"
    "workers = []\n"
    "for number in range(3):\n"
    "    read, write = os.pipe()\n"
    "    if (pid := os.fork()) == 0:\n"
    "        signal.signal(signal.SIGTERM, lambda *_: os._exit(number))\n"
    "        if number == 1:\n"
    "            os.setpgid(0, 0)\n"
    "        if number == 2:\n"
    "            os.setsid()\n"
    "        os.write(write, b'x')\n"
    "        while True:\n"
    "            signal.pause()\n"
    "    os.read(read, 1)\n"
    "    workers.append(pid)\n"
    "def stop(*_):\n"
    "    for pid in workers:\n"
    "        os.kill(pid, signal.SIGTERM)\n"
    "    print([os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in workers], flush=True)\n"
    "    sys.exit(8)\n"
    "signal.signal(signal.SIGTERM, stop)\n"
    "print('up', flush=True)\n"
    "while True:\n"
    "    signal.pause()\n"
)


AT_A_TERMINAL = python(
    "import os, signal, subprocess, sys\n"
    "def interrupted(*_):\n"
    "    print('again 2', flush=True)\n"
    "    sys.exit(7)\n"
    "signal.signal(signal.SIGINT, interrupted)\n"
    "print(os.ttyname(0), [os.isatty(n) for n in (0, 1, 2)], 'up', flush=True)\n"
    "print(repr(input()))\n"
    "print(subprocess.run(['stty', '-a'], capture_output=True, text=True).stdout)\n"
    "print('again 1', flush=True)\n"
    "signal.pause()\n"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """`argv` says `up`, is looked at, and then gets, in this order: `signals`, answered by a line
    each where it `answers`; what is `typed`; and, with `passes`, leave to go on and end."""

    argv: tuple[str, ...]
    status: int
    signals: tuple[str, ...] = ()
    answers: bool = False
    typed: bytes = b""
    passes: bool = False
    looked_at: bool = True
    options: tuple[str, ...] = ()


COMMANDS = {
    "handles TERM": Command(
        argv=HANDLES,
        signals=("HUP", "INT", "QUIT", "USR1", "USR2", "ALRM", "WINCH", "CONT", "TERM"),
        answers=True,
        status=5,
    ),
    "ignores TERM": Command(
        argv=sh(f"trap '' TERM; echo up; {PASS}exit 4"), signals=("TERM",), passes=True, status=4
    ),
    "forks workers": Command(argv=WORKERS, signals=("TERM",), answers=True, status=8),
    "leaves orphans": Command(
        argv=sh(
            "(trap '' TERM HUP; exec sleep 1002) & "
            f"(sleep 1000 & (python3 -SEsc '{LEADS_A_SESSION}' &) ) ; {PASS}exit 6"
        ),
        passes=True,
        status=6,
    ),
    "reads stdin": Command(
        argv=sh("echo up; cat; echo end >&2; exit 2"), typed=b"typed\0\n" * 20_000, status=2
    ),
    "has a terminal": Command(
        argv=AT_A_TERMINAL,
        typed=b"hello\r\x03\n",
        options=("--tty",),
        status=7,
    ),
    "exits 0": Command(argv=sh(f"echo up; {PASS}"), passes=True, options=NOBODY, status=0),
    "exits 3": Command(argv=sh(f"echo up; {PASS}exit 3"), passes=True, status=3),
    "is killed": Command(argv=sh("echo up; sleep 1000"), signals=("KILL",), status=137),
    "writes 10 MB/s": Command(
        argv=sh(
            "echo up; line=$(printf %0999d 7); yes $line | head -c 20000000; "
            "yes $line | head -c 1000000 >&2"
        ),
        looked_at=False,
        status=0,
    ),
    "sets limits": Command(
        argv=sh(
            "ulimit -S -n 77; ulimit -c 0; umask 027; cd /usr; trap '' HUP; export ODD=b; "
            f"(sleep 1000 & ) ; echo up; ulimit -a; umask; {PASS}exit 1"
        ),
        passes=True,
        status=1,
    ),
    "has no exec": Command(
        argv=sh(f"sh -c 'echo up; {PASS}echo inner; exit 9'; was=$?; echo outer; exit $was"),
        passes=True,
        status=9,
    ),
}


def both(look: Callable[[tuple[str, ...]], Found]) -> tuple[Found, Found]:
    """What `look` finds with nothing before the command, and with the supervisor."""
    with ThreadPoolExecutor(2) as pool:
        plain, under = pool.map(look, ((), UNDER))
    return plain, under


def state(name: str) -> dict[str, Any]:
    """How Docker says that the container ended."""
    found = json.loads(docker("inspect", "--format={{json .State}}", name))
    wanted = ("Status", "Running", "OOMKilled", "Dead", "ExitCode", "Error")
    return {key: found[key] for key in wanted}


def short(output: bytes) -> object:
    """The same for the same bytes, and nothing to be shown in full."""
    long = len(output) > 100_000
    return (len(output), hashlib.sha256(output).hexdigest()) if long else output


def outcome(image: str, before: tuple[str, ...], command: Command) -> dict[str, object]:
    """All that is to be seen of it from its start to its end."""
    if "--tty" in command.options:
        return at_a_terminal(image, before, command)
    options = (*OPTIONS, *command.options, *(("--interactive",) if command.typed else ()))
    stdin = subprocess.PIPE if command.typed else subprocess.DEVNULL
    argv = (*before, *command.argv)
    with container(image, argv, *options, stdin=stdin, stderr=subprocess.PIPE) as (name, client):
        assert client.stdout is not None
        output = client.stdout.readline()
        looks = processes(name) if command.looked_at else []
        for signal in command.signals:
            docker("kill", f"--signal={signal}", name)
            output += client.stdout.readline() if command.answers else b""
        if command.passes:
            open_gate(name)
        rest, errors = client.communicate(command.typed or None, timeout=120)
        return {
            "status": client.returncode,
            "output": short(output + rest),
            "errors": short(errors),
            "state": state(name),
            "log": logged(name),
            "processes": looks,
        }


def at_a_terminal(image: str, before: tuple[str, ...], command: Command) -> dict[str, object]:
    """Types the lines one by one, each when the one before has been answered by `again`."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 99, 0, 0))
    options = (*OPTIONS, *command.options, "--interactive")
    argv = (*before, *command.argv)
    output = b""

    def read_until(text: bytes) -> None:
        nonlocal output
        while text not in output:
            output += os.read(ours, 10_000)

    try:
        with container(image, argv, *options, stdin=theirs, stdout=theirs, stderr=theirs) as (
            name,
            client,
        ):
            read_until(b"up\r\n")
            looks = processes(name)
            for number, line in enumerate(command.typed.splitlines(keepends=True), 1):
                os.write(ours, line)
                read_until(b"again %d\r\n" % number)
            status = client.wait(60)
            return {
                "status": status,
                "output": output,
                "errors": b"",
                "state": state(name),
                "log": logged(name),
                "processes": looks,
            }
    finally:
        os.close(ours)
        os.close(theirs)


def open_gate(name: str) -> None:
    """Its end may be the end of this too."""
    argv = ["docker", "exec", "--user=0", name, "sh", "-c", f"echo > {GATE}"]
    subprocess.run(argv, check=False, stdin=subprocess.DEVNULL, capture_output=True)


def logged(name: str) -> tuple[object, object]:
    done = subprocess.run(["docker", "logs", name], check=True, capture_output=True)
    return short(done.stdout), short(done.stderr)


def differences(plain: object, under: object, where: str = "") -> Iterator[str]:
    if isinstance(plain, dict) and isinstance(under, dict) and plain.keys() == under.keys():
        for key in plain:
            yield from differences(plain[key], under[key], f"{where}/{key}")
    elif isinstance(plain, list) and isinstance(under, list) and len(plain) == len(under):
        for n, pair in enumerate(zip(plain, under, strict=True)):
            yield from differences(*pair, f"{where}/{n}")
    elif plain != under:
        yield f"{where}: {plain!r}, under the supervisor {under!r}"


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_the_same_under_the_supervisor(images: dict[str, str], name: str) -> None:
    command = COMMANDS[name]
    plain, under = both(lambda before: outcome(images["base"], before, command))
    assert plain["status"] == command.status
    assert list(differences(plain, under)) == []
    assert (plain["output"], plain["errors"]) == plain["log"]


def test_what_is_not_there_is_said_with_the_runtimes_status(images: dict[str, str]) -> None:
    def run(before: tuple[str, ...]) -> tuple[int, bytes]:
        with container(images["base"], (*before, "no-such-program")) as (_, client):
            output, _ = client.communicate(timeout=60)
            return client.returncode, output

    plain, under = both(run)
    assert (plain[0], under[0]) == (127, 127)
    assert b"executable file not found in $PATH" in plain[1]
    assert b"executable file not found in $PATH" in under[1]


HOG = "hog = [bytearray(1 << 20) for _ in range(1000)]\n"
MEMORY = {
    "the command": python(HOG),
    "a worker": python(
        "import os\n"
        f"if os.fork() == 0:\n    {HOG}"
        "print(os.waitstatus_to_exitcode(os.wait()[1]))\n"
        "raise SystemExit(11)\n"
    ),
    "a shell's child": sh(f"python3 -SEc '{HOG}' 2>&1; echo $?; exit 12"),
}


@pytest.mark.parametrize("name", MEMORY)
def test_memory_that_runs_out_is_told_in_the_same_way(images: dict[str, str], name: str) -> None:
    def run(before: tuple[str, ...]) -> tuple[int, bytes, dict[str, Any]]:
        options = ("--memory=64m", "--memory-swap=64m")
        argv = (*before, *MEMORY[name])
        pipe = subprocess.PIPE
        with container(images["base"], argv, *options, stderr=pipe) as (made, client):
            output, _ = client.communicate(timeout=60)
            return client.returncode, output, state(made)

    plain, under = both(run)
    # Docker may notice the end before the reason: the parent of what was killed ends soon after it.
    del under[2]["OOMKilled"], plain[2]["OOMKilled"]
    assert under == plain


# How `docker stop` ends them without and with the supervisor; 137: by SIGKILL, after all its time.
STOPS: dict[str, tuple[tuple[str, ...], int, int]] = {
    "handles TERM": (HANDLES, 5, 5),
    "handles TERM and takes its time": (
        sh("trap 'sleep 0.5; echo asked; exit 6' TERM; sleep 1000 & echo up; wait"),
        6,
        6,
    ),
    "ignores TERM": (sh(f"trap '' TERM; echo up; {PASS}"), 137, 137),
    "handles nothing": (python("import signal; print('up'); signal.pause()"), 137, 143),
    "has no exec": (sh(f"sh -c 'echo up; {PASS}'; exit 9"), 137, 143),
}


@pytest.mark.parametrize("name", STOPS)
@pytest.mark.parametrize("held", [False, True])
def test_docker_stop(images: dict[str, str], name: str, held: bool) -> None:
    """A session that holds the container changes nothing of it."""
    argv, *expected = STOPS[name]

    def run(before: tuple[str, ...]) -> tuple[int, bytes]:
        with container(images["base"], (*before, *argv)) as (made, client):
            assert client.stdout is not None
            output = client.stdout.readline()
            assert output == b"up\n"
            with holding(made) if held and before else contextlib.nullcontext():
                docker("stop", "--time=2", made)
                rest, _ = client.communicate(timeout=60)
            return client.returncode, output + rest

    plain, under = both(run)
    assert [plain[0], under[0]] == expected
    assert plain[1] == under[1]


@contextlib.contextmanager
def holding(name: str) -> Iterator[None]:
    """Devloop's stream into a container, which keeps it up when its command ends by itself."""
    argv = ["docker", "exec", "-i", name, AGENT, "serve"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as serve:
        assert serve.stdin is not None
        assert serve.stdout is not None
        serve.stdin.write(b"00000004hold")
        serve.stdin.flush()
        while serve.stdout.readline() != b"holding 1\n":
            pass
        yield


def test_docker_attach(images: dict[str, str]) -> None:
    """Somebody who comes later types, and reads what is written."""
    typed = b"line\n" * 1000

    def run(before: tuple[str, ...]) -> tuple[int, bytes, tuple[object, object]]:
        options = ("--interactive", "--detach")
        argv = (*before, *sh("head -n 1000; exit 13"))
        with container(images["base"], argv, *options) as (name, starting):
            assert starting.wait(60) == 0
            with subprocess.Popen(
                ["docker", "attach", name], stdin=subprocess.PIPE, stdout=subprocess.PIPE
            ) as client:
                assert client.stdin is not None
                assert client.stdout is not None
                client.stdin.write(typed)
                client.stdin.flush()
                output = client.stdout.read()  # to the end of its own accord, not of its input
                return client.wait(60), output, logged(name)

    plain, under = both(run)
    assert under == plain
    assert plain == (13, typed, (typed, b""))
