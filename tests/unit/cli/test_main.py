"""The command line's promises that need no project: quick help, statuses, errors as text."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import textwrap
from typing import TYPE_CHECKING

import click
import pytest

from devloop.cli import main as cli
from devloop.errors import Code, DevloopError, Location

if TYPE_CHECKING:
    from pathlib import Path

HEAVY = ("kubernetes", "docker", "rich", "yaml", "watchfiles", "urllib3")


def test_help_imports_nothing_heavy() -> None:
    """The speed of --help is kept by what it imports; a time would only measure the machine.

    All in one process: what one imported stays for the others, and the first that did is named.
    """
    argvs = [["--help"], ["--version"], *([name, "--help"] for name in cli.COMMANDS)]
    code = textwrap.dedent(
        f"""
        import sys
        from devloop.cli.main import main
        for argv in {argvs!r}:
            status = main(argv)
            heavy = [name for name in {HEAVY!r} if name in sys.modules]
            print(*argv, "ends with", status, "heavy:", heavy, file=sys.stderr)
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    told = [line for line in done.stderr.splitlines() if "ends with" in line]
    assert told == [f"{' '.join(argv)} ends with 0 heavy: []" for argv in argvs]
    assert all(f"Usage: devloop {name} " in done.stdout for name in cli.COMMANDS)


def test_another_project_of_the_same_name_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "devloop-9.8.7.dist-info"
    other.mkdir()
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: devloop\nVersion: 9.8.7\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert cli.main(["--version"]) == 0
    told = capsys.readouterr()
    assert told.out.startswith("devloop ")
    assert "another project, devloop 9.8.7," in told.err
    assert "pip install devloop-k8s" in told.err


def test_every_command_of_the_table_exists() -> None:
    context = click.Context(cli.command)
    assert isinstance(cli.command, click.Group)
    for name in cli.COMMANDS:
        found = cli.command.get_command(context, name)
        assert found is not None
        assert found.name == name


@pytest.mark.parametrize(
    ("argv", "page", "services"),
    [
        ([], None, ()),
        (["--web"], 0, ()),
        (["--web", "8123"], 8123, ()),
        (["--web=8123", "api"], 8123, ("api",)),
        (["--web", "api", "web"], 0, ("api", "web")),
        (["api", "--web", "--output", "json"], 0, ("api",)),
    ],
)
def test_the_page_is_asked_for_with_and_without_a_port(
    argv: list[str],
    page: int | None,
    services: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: dict[str, object] = {}
    monkeypatch.setattr("devloop.cli.dev.run_session", lambda _, **said: asked.update(said) or 0)
    assert cli.main(["dev", *argv]) == 0
    assert (asked["page"], asked["services"]) == (page, services)


def test_a_port_that_there_is_not_is_refused() -> None:
    assert cli.main(["dev", "--web", "65536"]) == 2


@pytest.mark.parametrize("argv", [[], ["cluster"]])
def test_no_command_prints_the_help_as_it_is(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(argv) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("Usage: devloop ")
    assert len(captured.err.splitlines()) > 5


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["nonsense"], "No such command 'nonsense'"),
        (["chek"], "Did you mean 'check'?"),
        (["dev", "--outptu", "json"], "No such option"),
        (["run", "--output", "xml"], "'xml' is not one of"),
        (["dev", "--profiles", "ci"], "No such option"),
    ],
)
def test_wrong_arguments_end_with_2(
    argv: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(argv) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert said in captured.err
    assert "error[" in captured.err
    assert "try" in captured.err


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (DevloopError.of(Code.CONFIG_PARSE, "no", location=Location("devloop.yaml", 3, 1)), 2),
        (DevloopError.of(Code.ENV_DOCKER_UNREACHABLE, "no"), 3),
        (DevloopError.of(Code.SAFETY_CONTEXT, "no"), 4),
        (DevloopError.of(Code.BUILD_FAILED, "no"), 1),
        (RuntimeError("surprise"), 70),
        (KeyboardInterrupt(), 130),
    ],
)
def test_each_kind_of_error_has_its_status(
    error: BaseException,
    status: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    @click.command("fails")
    def fails() -> None:
        raise error

    monkeypatch.setattr(cli.command, "get_command", lambda ctx, name: fails)
    assert cli.main(["fails"]) == status
    err = capsys.readouterr().err
    assert "Traceback" not in err
    if isinstance(error, DevloopError):
        assert f"error[{error.code}]" in err
    if isinstance(error, RuntimeError):
        assert "surprise" in err
        assert "devloop-bug-" in err


UNSEEN = "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})"
SIGNALLED = """
import signal, sys, threading, time
from devloop.cli.signals import Signals
asked = threading.Event()
status = []
def stop(*given):
    status.extend(given)
    asked.set()
with Signals(limit={limit}, moment={moment}) as signals:
    {stop}
    print("ready", flush=True)
    asked.wait()
    print("ended", flush=True)
    sys.exit(int(status[0]))
"""


@pytest.mark.parametrize(
    ("number", "stop", "status", "limit"),
    [
        (signal.SIGINT, "signals.stop = stop", 130, None),
        (signal.SIGTERM, "signals.stop = stop", 143, None),
        # A session that cannot stop is left by the watchdog.
        (signal.SIGINT, "signals.stop = lambda status, why: None", 130, 0.2),
        (signal.SIGTERM, "signals.stop = lambda status, why: None", 143, 0.2),
        # Before there is a session.
        (signal.SIGTERM, "pass", 143, None),
        # The system gives it to another thread, and nothing wakes the main one.
        (signal.SIGINT, f"signals.stop = stop; {UNSEEN}", 130, None),
        (signal.SIGTERM, f"signals.stop = stop; {UNSEEN}", 143, None),
    ],
)
def test_a_signal_ends_the_process(
    number: signal.Signals, stop: str, status: int, limit: float | None
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SIGNALLED.format(stop=stop, limit=limit, moment=60)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == status
    assert ("stopping" in err) == (number == signal.SIGINT)


def test_a_second_ctrl_c_leaves_at_once() -> None:
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            SIGNALLED.format(stop="signals.stop = lambda status, why: None", limit=None, moment=0),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == "ready\n"
    os.kill(process.pid, signal.SIGINT)
    assert process.stderr.readline() == "\n"
    assert "ctrl-C again" in process.stderr.readline()
    os.kill(process.pid, signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 130


def test_two_signals_at_once_are_one_request() -> None:
    stop = "signals.stop = lambda *given: threading.Timer(0.3, stop, given).start()"
    process = subprocess.Popen(
        [sys.executable, "-c", SIGNALLED.format(stop=stop, limit=None, moment=60)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGHUP)
    assert process.communicate(timeout=30)[0] == "ended\n"
    assert process.returncode == 143


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT])
def test_a_signal_that_was_ignored_stays_ignored(number: signal.Signals) -> None:
    ignoring = f"import signal; signal.signal({int(number)}, signal.SIG_IGN)\n"
    script = SIGNALLED.format(stop="signals.stop = stop", limit=None, moment=0)
    process = subprocess.Popen(
        [sys.executable, "-c", ignoring + script], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 143
