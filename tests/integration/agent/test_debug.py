"""A command that an editor can attach to, and one that runs all the same where that cannot be."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from devloop.base import debug_hooks
from devloop.base.debug_hooks import hook
from tests.support.agent import Supervised

if TYPE_CHECKING:
    from collections.abc import Mapping

_SHOWS = "import json, os; print(json.dumps(dict(os.environ)))"
_HOOKS = Path(debug_hooks.__file__).parent


def _environment(option: str, env: Mapping[str, str]) -> dict[str, str]:
    argv = (sys.executable, "-IS", "-c", _SHOWS)
    with Supervised(*argv, options=("--debug", option), env=env) as supervised:
        found: dict[str, str] = json.loads(supervised.line())
        return found


@pytest.mark.parametrize(
    ("option", "name", "alone", "before"),
    [
        ("python:5678", "PYTHONPATH", "/.devloop/python", "/.devloop/python:mine"),
        (
            "node:9229",
            "NODE_OPTIONS",
            "--require /.devloop/node.cjs",
            "--require /.devloop/node.cjs mine",
        ),
    ],
)
def test_the_command_gets_the_hook_before_what_it_has(
    option: str, name: str, alone: str, before: str
) -> None:
    port = option.partition(":")[2]
    kept = {"KEPT": "a=b", "DEVLOOP_DEBUG": "1"}
    wanted = {"KEPT": "a=b", "DEVLOOP_DEBUG": port, name: alone}
    found = _environment(option, kept)
    assert {key: found[key] for key in wanted} == wanted
    assert _environment(option, {**kept, name: ""})[name] == alone
    assert _environment(option, {**kept, name: "mine"})[name] == before
    assert _environment(option, {**kept, f"{name}S": "other"})[f"{name}S"] == "other"


@pytest.mark.parametrize("option", ["ruby:1", "python", "python:", "go:0", "node:65536", "go:1x"])
def test_what_makes_no_sense_is_bad_usage(option: str) -> None:
    with Supervised("true", options=("--debug", option)) as supervised:
        assert supervised.ended() == 2


def test_what_is_too_large_is_said_and_runs_without() -> None:
    with Supervised(
        "true", options=("--debug", "python:5678"), env={**os.environ, "PYTHONPATH": "x" * 9000}
    ) as supervised:
        assert supervised.ended() == 0
        assert supervised.process.stderr is not None
        said = supervised.process.stderr.read().decode()
    assert said == "devloop: debug: not started: PYTHONPATH: the environment is too large\n"


# --- Go ------------------------------------------------------------------------------------------


def _elf(*sections: str) -> bytes:
    """What looks like a program with these sections, and has nothing to execute."""
    names = b"\0" + b"".join(name.encode() + b"\0" for name in (*sections, ".shstrtab"))
    places = [names.index(name.encode()) for name in (*sections, ".shstrtab")]
    head = bytearray(64)
    head[:6] = b"\177ELF\2\1"
    at = 64 + len(names)
    head[40:48] = at.to_bytes(8, "little")
    head[58:64] = b"".join(n.to_bytes(2, "little") for n in (64, len(places), len(places) - 1))
    table = b"".join(
        place.to_bytes(4, "little") + bytes(20) + (64).to_bytes(8, "little") + bytes(32)
        for place in places
    )
    return bytes(head) + names + table


def _script(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def _under_delve(
    directory: Path, program: bytes, *argv: str, delve: bool = True
) -> tuple[str, str]:
    """What is printed by what is executed, and by the supervisor."""
    (directory / "app").write_bytes(program)
    (directory / "app").chmod(0o755)
    if delve:
        _script(directory / "dlv", 'for each; do echo "$each"; done')
    env = {"PATH": f"{directory}:/usr/bin:/bin"}
    with Supervised(*argv, options=("--debug", "go:2345"), env=env, cwd=directory) as supervised:
        supervised.ended()
        assert supervised.process.stderr is not None
        return supervised.out.read().decode(), supervised.process.stderr.read().decode()


GO = (".go.buildinfo", ".debug_info")


@pytest.mark.parametrize("name", ["app", "./app"])
def test_a_go_program_is_executed_by_delve(tmp_path: Path, name: str) -> None:
    printed, said = _under_delve(tmp_path, _elf(*GO), name, "-v", "two words")
    path = name if "/" in name else str(tmp_path / "app")
    assert said == ""
    assert printed.splitlines() == [
        *("exec", "--headless", "--listen=127.0.0.1:2345", "--accept-multiclient", "--continue"),
        *("--api-version=2", "--check-go-version=false", path, "--", "-v", "two words"),
    ]


@pytest.mark.parametrize(
    ("program", "delve", "reason"),
    [
        (_elf(*GO), False, "dlv is not in the image"),
        (_elf(".go.buildinfo"), True, "app is built without debug information"),
        (_elf(".text", ".debug_info"), True, "app is not a Go program"),
        (b"\177ELF\2\1", True, "app is not a Go program"),
        (b"", True, "app is not a Go program"),
    ],
)
def test_what_delve_cannot_execute_is_executed_itself(
    tmp_path: Path, program: bytes, delve: bool, reason: str
) -> None:
    printed, said = _under_delve(tmp_path, program, "app", delve=delve)
    first, *rest = said.splitlines()
    assert printed == ""
    assert first.startswith(f"devloop: debug: not started: {reason}")
    # It is no real program: the attempt to execute it says so.
    assert all("exec format error" in line for line in rest)


def test_what_is_not_there_is_said_as_without_a_debugger(tmp_path: Path) -> None:
    printed, said = _under_delve(tmp_path, b"", "nothing")
    assert (printed, said) == ("", 'exec: "nothing": executable file not found in $PATH\n')


# --- what python loads ---------------------------------------------------------------------------


def _python(
    directory: Path, *argv: str, port: str = "5678", **env: str
) -> subprocess.CompletedProcess[str]:
    """A Python that has the hook, and what stands in for debugpy."""
    found = hook("python")
    assert found is not None
    where = directory / "hook"
    where.mkdir(exist_ok=True)
    (where / "sitecustomize.py").write_bytes(found[1])
    path = ":".join((str(where), str(directory)))
    return subprocess.run(
        [sys.executable, *argv],
        env={"PYTHONPATH": path, "DEVLOOP_DEBUG": port, "PATH": os.defpath, **env},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


_DEBUGPY = "import sys\ndef listen(address):\n    print('listens', *address)\n"


def test_the_first_python_listens_and_nothing_else_is_other_than_without(tmp_path: Path) -> None:
    (tmp_path / "debugpy.py").write_text(_DEBUGPY)
    (tmp_path / "sitecustomize.py").write_text("print('own')\n")
    code = (
        "import os, subprocess, sys; print(os.environ['PYTHONPATH'], 'DEVLOOP_DEBUG' in os.environ,"
        " any('hook' in each for each in sys.path), sys.modules['sitecustomize'].__file__);"
        "sys.stdout.flush(); subprocess.run([sys.executable, '-c', 'print(1)'])"
    )
    done = _python(tmp_path, "-c", code)
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "own",
        "listens 127.0.0.1 5678",
        f"{tmp_path} False False {tmp_path / 'sitecustomize.py'}",
        *("own", "1"),
    ]


@pytest.mark.parametrize(
    ("debugpy", "reason"),
    [
        (None, "debugpy is not in the image: pip install debugpy"),
        ("raise RuntimeError('too old\\nand more')", "debugpy: too old"),
        ("raise SystemExit", "debugpy: SystemExit"),
    ],
)
def test_a_program_runs_without_a_debugger_that_cannot_be_had(
    tmp_path: Path, debugpy: str | None, reason: str
) -> None:
    if debugpy is not None:
        (tmp_path / "debugpy.py").write_text(debugpy)
    done = _python(tmp_path, "-c", "print('runs')")
    assert (done.stdout, done.stderr) == ("runs\n", f"devloop: debug: not started: {reason}\n")


def test_a_port_that_is_taken_is_said(tmp_path: Path) -> None:
    (tmp_path / "debugpy.py").write_text(_DEBUGPY)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        done = _python(tmp_path, "-c", "print('runs')", port=port)
    assert done.stdout == "runs\n"
    assert done.stderr.startswith(f"devloop: debug: not started: port {port} of the container: ")


def test_a_launcher_leaves_the_debugger_to_what_it_starts(tmp_path: Path) -> None:
    (tmp_path / "debugpy.py").write_text(_DEBUGPY)
    (tmp_path / "poetry").write_text(
        "import subprocess, sys; subprocess.run([sys.executable, '-c', 'print(1)'])"
    )
    assert _python(tmp_path, str(tmp_path / "poetry")).stdout == "listens 127.0.0.1 5678\n1\n"


def test_debugpys_own_process_has_the_same_inner_port_each_time(tmp_path: Path) -> None:
    code = (
        "import socket\n"
        "with socket.socket() as one, socket.socket() as two:\n"
        "    one.bind(('127.0.0.1', 0)); one.listen()\n"
        "    two.bind(('127.0.0.1', 0)); two.listen()\n"
        "    print(one.getsockname()[1], two.getsockname()[1] > 0)\n"
    )
    done = _python(tmp_path, "-c", code, DEVLOOP_DEBUG_ADAPTER="62199")
    assert done.stdout == "62199 True\n"


def test_an_editor_that_asks_for_it_is_told_to_attach_again(tmp_path: Path) -> None:
    code = (
        "import socket, sys, types\n"
        "class Client:\n"
        "    def __init__(self):\n"
        "        self.start_request = None\n"
        "        self.restart_requested = False\n"
        "sys.modules['debugpy.adapter.clients'] = types.SimpleNamespace(Client=Client)\n"
        "with socket.socket() as listener:\n"
        "    listener.bind(('127.0.0.1', 0))\n"
        "asks, asks_not = Client(), Client()\n"
        "asks.start_request = types.SimpleNamespace(arguments={'restart': True})\n"
        "asks_not.start_request = types.SimpleNamespace(arguments={})\n"
        "print(Client().restart_requested, asks.restart_requested, asks_not.restart_requested)\n"
        "asks.restart_requested = False  # the editor ended the session\n"
        "print(asks.restart_requested)\n"
    )
    done = _python(tmp_path, "-c", code, DEVLOOP_DEBUG_ADAPTER="62199")
    assert done.stdout == "False True False\nFalse\n", done.stderr


# --- what node loads -----------------------------------------------------------------------------

needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="there is no node here")


@needs_node
def test_the_first_node_that_is_no_launcher_opens_the_inspector(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (tmp_path / "app.js").write_text(
        "console.log(process.env.NODE_OPTIONS, process.env.DEVLOOP_DEBUG,"
        "Boolean(require('inspector').url()));"
        "if (process.argv[2]) require('child_process').execFileSync("
        "process.execPath, [__filename], {stdio: 'inherit'});"
    )
    (tmp_path / "npm.js").write_text(
        "require('child_process').execFileSync("
        "process.execPath, [__dirname + '/app.js', '1'], {stdio: 'inherit'});"
    )
    options = f"--require {_HOOKS / 'node_hook.cjs'} --no-warnings"
    done = subprocess.run(
        [shutil.which("node") or "", str(tmp_path / "npm.js")],
        env={"NODE_OPTIONS": options, "DEVLOOP_DEBUG": str(port), "PATH": os.defpath},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.stdout.splitlines() == [
        "--no-warnings undefined true",
        "--no-warnings undefined false",
    ]
    assert f"Debugger listening on ws://127.0.0.1:{port}/" in done.stderr


@needs_node
def test_a_node_program_runs_where_the_port_is_taken(tmp_path: Path) -> None:
    (tmp_path / "app.js").write_text("console.log('runs')")
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        done = subprocess.run(
            [shutil.which("node") or "", str(tmp_path / "app.js")],
            env={
                "NODE_OPTIONS": f"--require {_HOOKS / 'node_hook.cjs'}",
                "DEVLOOP_DEBUG": str(port),
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
    assert done.stdout == "runs\n"
    assert f"devloop: debug: not started: port {port} of the container" in done.stderr


def test_delve_needs_nothing_in_the_image() -> None:
    assert hook("go") is None


def test_the_hooks_lie_where_the_supervisor_looks_for_them() -> None:
    source = (Path(__file__).parents[3] / "agent" / "debug.c").read_text()
    for kind in ("python", "node"):
        found = hook(kind)
        assert found is not None
        assert found[0].removesuffix("/sitecustomize.py") in source
