"""The commands behind `script/test`, `script/demo` and `script/env`."""

from __future__ import annotations

import platform
import sys

from . import agent, checks, cluster, console, demo, images, setup, shell, venv

TEST_USAGE = """\
usage: script/test [--unit] [--no-lint] [--coverage] [PYTEST ARGUMENT]...

Sets the machine up, checks style, types and imports, and runs the tests.
  --unit      only tests/unit, which need no Docker, no cluster and hardly a program
  --no-lint   only the tests
  --coverage  say how much of devloop the tests run, as a run of all tests does
  --hypothesis-profile=thorough
              try all examples of each property instead of a quarter of them
Paths among the arguments are relative to the top of the repository. Tests named by their paths run
in one process, all others in several."""
DEMO_USAGE = """\
usage: script/demo [--check]

Sets the machine up and runs `devloop dev` on the sample app until Ctrl-C.
  --check    make one edit, wait until it is served, say how long that took"""
ENV_USAGE = """\
usage: eval "$(script/env)"

Sets the machine up for tests and prints the variables they need."""


def test(args: list[str]) -> int:
    """Run `script/test`."""
    own = ("--unit", "--no-lint", "--coverage")
    rest = [arg for arg in args if arg not in own]
    unit = "--unit" in args or checks.need_no_machine(rest)
    lint, coverage = "--no-lint" not in args, "--coverage" in args or not (unit or rest)
    found: dict[str, str] = {}
    if unit:
        venv.ensure()
    else:
        found = setup.ensure(cluster.for_tests())
        images.remove_leftovers()
    if platform.system() == "Linux":
        agent.ensure(venv.BIN / "python")
    return checks.run(rest, found, unit=unit, lint=lint, coverage=coverage)


def env(args: list[str]) -> int:
    """Run `script/env`."""
    if args:
        return usage(ENV_USAGE)
    print(setup.exports(setup.ensure(cluster.for_tests())), end="")
    return 0


def show(args: list[str]) -> int:
    """Run `script/demo`."""
    if args not in ([], ["--check"]):
        return usage(DEMO_USAGE)
    demo.check_ports()
    found = setup.ensure(cluster.for_demo())
    return demo.check(found) if args else demo.follow(found)


def usage(text: str) -> int:
    """Say how a script is called."""
    console.say(text)
    return 2


COMMANDS = {"test": (test, TEST_USAGE), "demo": (show, DEMO_USAGE), "env": (env, ENV_USAGE)}


def main(argv: list[str]) -> int:
    """Run one of the commands."""
    command, text = COMMANDS[argv[0]]
    if argv[1:] in (["-h"], ["--help"]):
        print(text)
        return 0
    try:
        return command(argv[1:])
    except shell.MachineError as error:
        console.say(f"script/{argv[0]}: {error}")
        return 3
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
