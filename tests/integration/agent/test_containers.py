"""Real containers: the same command started plainly and under the supervisor looks the same."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.agent import program
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

pytestmark = pytest.mark.docker

AGENT = "/.devloop/agent"
# Everything but its process number and what differs from run to run.
LOOK = (
    "env | grep -v -e HOSTNAME -e '^_=' | sort; pwd; umask; ulimit -a; id; "
    "grep -e SigBlk -e SigIgn -e CapEff -e NoNewPrivs /proc/self/status; "
    "ls /proc/self/fd | wc -l; pgrep -c -f '^sleep 50'; "
)
# command, signal sent once it says `up` (or None), what is typed
COMMANDS: dict[str, tuple[Sequence[str], str | None, bytes]] = {
    "handles TERM": (
        ["sh", "-c", "trap 'echo asked; exit 5' TERM; echo up; while :; do sleep 0.1; done"],
        "TERM",
        b"",
    ),
    "ignores TERM": (
        ["sh", "-c", "trap '' TERM; echo up; for n in 1 2 3 4 5; do sleep 0.2; done; exit 4"],
        "TERM",
        b"",
    ),
    "forks workers": (["sh", "-c", "(exit 1) & (exit 2) & wait; " + LOOK], None, b""),
    "leaves orphans": (["sh", "-c", "(sleep 50 &); sleep 0.1; " + LOOK + "exit 6"], None, b""),
    "reads stdin": (["sh", "-c", "cat; " + LOOK], None, b"typed\n" * 1000),
    "exits 0": (["sh", "-c", LOOK], None, b""),
    "exits 3": (["sh", "-c", LOOK + "exit 3"], None, b""),
    "is killed": (["sh", "-c", "echo up; sleep 50"], "KILL", b""),
    "writes 10 MB": (["sh", "-c", "yes 123456789 | head -c 10000000"], None, b""),
    "sets limits": (["sh", "-c", "ulimit -n 77; ulimit -c 0; " + LOOK], None, b""),
    "has no exec": (["sh", "-c", "sh -c 'echo inner; exit 9'; exit $?"], None, b""),
    "is not there": (["no-such-program"], None, b""),
}


@pytest.fixture(scope="module")
def images() -> Iterator[dict[str, str]]:
    """The base image with the agent in it, and a `scratch` image with nothing else."""
    base = os.environ["DEVLOOP_TEST_BASE_IMAGE"]
    made = {}
    with tempfile.TemporaryDirectory() as directory:
        context = Path(directory)
        shutil.copy(program(), context / "agent")
        for name, source in (("base", base), ("scratch", "scratch")):
            tag = f"devloop-agent-test:{name}-{uuid.uuid4().hex[:8]}"
            text = f"FROM {source}\nCOPY --chmod=755 agent {AGENT}\n"
            (context / "Dockerfile").write_text(text)
            subprocess.run(
                ["docker", "build", "-q", "-t", tag, directory], check=True, capture_output=True
            )
            made[name] = tag
    yield made
    subprocess.run(["docker", "rmi", "-f", *made.values()], check=True, capture_output=True)


@contextlib.contextmanager
def container(
    image: str, argv: Sequence[str], *options: str, stdin: int = subprocess.DEVNULL
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    name = f"devloop-agent-{uuid.uuid4().hex[:12]}"
    run = ["docker", "run", "--name", name, "--entrypoint", "", "--network", "none", *options]
    process = subprocess.Popen(
        [*run, image, *argv], stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        yield name, process
    finally:
        subprocess.run(["docker", "rm", "-f", name], check=False, capture_output=True)
        process.kill()
        process.wait(20)
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()


def outcome(
    image: str, argv: Sequence[str], sent: str | None, typed: bytes, *options: str
) -> tuple[int, bytes]:
    """How it ends and all it writes."""
    options = (*options, "-i") if typed else options
    stdin = subprocess.PIPE if typed else subprocess.DEVNULL
    with container(image, argv, *options, stdin=stdin) as (name, process):
        assert process.stdout is not None
        first = b""
        if sent is not None:
            first = process.stdout.readline()
            subprocess.run(["docker", "kill", "-s", sent, name], check=True, capture_output=True)
        output, _ = process.communicate(typed or None, timeout=60)
        return process.returncode, first + output


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_the_same_under_the_supervisor(images: dict[str, str], name: str) -> None:
    argv, sent, typed = COMMANDS[name]
    options = ("-w", "/tmp", "-e", "ODD=a b", "--ulimit", "nofile=1000:2000")
    plain = outcome(images["base"], argv, sent, typed, *options)
    under = outcome(images["base"], [AGENT, "supervise", "--", *argv], sent, typed, *options)
    if name == "is not there":  # the runtime says so in words of its own
        assert (plain[0], under[0]) == (127, 127)
        assert under[1] in plain[1] or b"executable file not found in $PATH" in under[1]
        return
    assert under == plain


def test_a_terminal(images: dict[str, str]) -> None:
    look = ["sh", "-c", "tty; stty size; ps -o stat= -p $$ | grep -c +; test -t 0 && exit 8"]
    plain = outcome(images["base"], look, None, b"", "-t")
    under = outcome(images["base"], [AGENT, "supervise", "--", *look], None, b"", "-t")
    assert under == plain
    assert plain[0] == 8


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--read-only",),
        ("--user", "10001"),
        ("--read-only", "--user", "10001:10001", "--cap-drop", "ALL"),
        ("--security-opt", "no-new-privileges"),
        ("--pid", "host"),
    ],
)
@pytest.mark.parametrize("image", ["base", "scratch"])
def test_it_serves_in_any_container(
    images: dict[str, str], image: str, options: tuple[str, ...]
) -> None:
    """In `scratch` the static program that is supervised is another `serve`."""
    argv = [AGENT, "supervise", "--", AGENT, "serve", "--socket", "other"]
    with container(images[image], argv, "-i", *options, stdin=subprocess.PIPE) as (name, process):
        assert process.stdout is not None
        assert process.stdout.readline() == b"agent 1 alone\n"
        with subprocess.Popen(
            ["docker", "exec", "-i", name, AGENT, "serve"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as serve:
            assert serve.stdin is not None
            assert serve.stdout is not None
            assert serve.stdout.readline() == b"agent 1 supervised\n"
            first = serve.stdout.readline().decode()
            assert re.fullmatch(r"state started \d+ \d+ 1\n", first)
            serve.stdin.write(b"00000004hold00000012restart\0" + b"1000")
            serve.stdin.flush()
            said = sorted(serve.stdout.readline().decode() for _ in range(5))
            assert said[:2] == ["event ended signal 15 asked 1\n", "event listening 2\n"]
            assert re.fullmatch(r"event started \d+ \d+ 2\n", said[2])
            assert said[3:] == ["holding 1\n", "restarting 2\n"]
            assert process.stdout.readline() == b"agent 1 alone\n"
            serve.stdin.write(b"00000010may\0/x\0a/b")
            serve.stdin.flush()
            may = serve.stdout.readline().decode()
            assert may.startswith("yes" if not {"--read-only", "--user"} & {*options} else "no ")
            assert resident_kib(name) < 1024
            serve.stdin.close()
            assert serve.wait(20) == 0
        assert process.stdin is not None
        process.stdin.close()  # the command ends with it
        process.stdin = None
        assert process.wait(20) == 0


def test_the_kubelets_way_to_end_a_container_that_is_held(images: dict[str, str]) -> None:
    argv = [AGENT, "supervise", "--", "sh", "-c", "echo up; sleep 50"]
    with container(images["base"], argv) as (name, process):
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        with subprocess.Popen(
            ["docker", "exec", "-i", name, AGENT, "serve"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as serve:
            assert serve.stdin is not None
            assert serve.stdout is not None
            serve.stdin.write(b"00000004hold")
            serve.stdin.flush()
            until(lambda: serve.stdout.readline() == b"holding 1\n")  # type: ignore[union-attr]
            subprocess.run(["docker", "kill", "-s", "TERM", name], check=True, capture_output=True)
            assert process.wait(20) == 143


def resident_kib(name: str) -> int:
    found = subprocess.run(
        ["docker", "inspect", "-f", "{{.State.Pid}}", name],
        check=True,
        capture_output=True,
        text=True,
    )
    status = Path(f"/proc/{int(found.stdout)}/status").read_text()
    return int(re.findall(r"VmRSS:\s+(\d+)", status)[0])
