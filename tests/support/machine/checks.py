"""`script/test`: every check of the project, the tests last, so that their summary ends it."""

from __future__ import annotations

import os
import signal
import subprocess

from . import console, venv

LINTERS = (
    ("ruff", "check"),
    ("ruff", "format", "--check"),
    ("mypy",),
    ("lint-imports",),
)
LINT_SECONDS = 600
# A run that hangs must still show in CI which test did; every test has its own, shorter limit.
TESTS_SECONDS = 3600
UNIT_ONLY = ("-m", "not docker and not kind")


def run(pytest_args: list[str], found: dict[str, str], *, unit: bool, lint: bool) -> int:
    """Run the checks with the variables that were found; return the first bad status, or 0."""
    env = {**os.environ, **found}
    if unit:
        env = {name: value for name, value in env.items() if not name.startswith("DEVLOOP_TEST_")}
    env["PATH"] = venv.path()
    failed: list[tuple[str, int]] = []
    for argv in LINTERS if lint else ():
        status = call(list(argv), env, LINT_SECONDS)
        if status != 0:
            failed.append((" ".join(argv), status))
    selected = [*UNIT_ONLY, *pytest_args] if unit else pytest_args
    status = call(["pytest", *selected], env, TESTS_SECONDS)
    for name, _ in failed:
        console.say(f"script/test: {name} failed, see above")
    return failed[0][1] if failed else status


def call(argv: list[str], env: dict[str, str], seconds: float) -> int:
    """Run one tool of the virtual environment in front of the user; return its status."""
    print("$", *argv, flush=True)
    process = subprocess.Popen(
        [str(venv.BIN / argv[0]), *argv[1:]], cwd=venv.ROOT, env=env, stdin=subprocess.DEVNULL
    )
    try:
        return process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)  # pytest then says what it was at
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        console.say(f"script/test: {argv[0]} was stopped after {console.duration(seconds)}")
        return 124
    except KeyboardInterrupt:
        process.wait()  # the terminal sent it Ctrl-C too
        return 130
