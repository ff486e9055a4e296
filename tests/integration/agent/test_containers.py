"""The agent in real containers: it serves in any, takes little memory, and lets them end."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.integration.agent.conftest import AGENT, container
from tests.support.waiting import until

pytestmark = pytest.mark.docker


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
            serve.stdin.write(b"00000015may\0/x\0a/b\0put\0")
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
