"""`script/demo`: devloop on the sample app, by hand or as a check that times one edit.

The check works on a copy in a git repository of its own, so that an edit by it and an edit by the
user cannot meet, and so that it can tell whether devloop left git's state alone.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from . import console, shell, venv
from .session import Session

if TYPE_CHECKING:
    from collections.abc import Callable

SAMPLE = venv.ROOT / "sample_app"
HEADING = re.compile(r"<h1[^>]*>\s*([^<>{}]*\w[^<>{}]*?)\s*</h1>")
FIRST_SECONDS = 300.0
EDIT_SECONDS = 120.0
GIT_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class GitState:
    """What git knows of a repository; devloop may change none of it."""

    head: str
    refs: str
    staged: str
    changed: str

    @classmethod
    def of(cls, repository: Path) -> GitState:
        """Read the state of a repository."""
        return cls(
            head=git(repository, "rev-parse", "--symbolic-full-name", "HEAD"),
            refs=git(repository, "for-each-ref"),
            staged=git(repository, "ls-files", "--stage"),
            changed=git(repository, "status", "--porcelain", "--untracked-files=all"),
        )


def git(repository: Path, *argv: str) -> str:
    """Run git in a repository as a user without any settings."""
    settings = ["-c", "user.name=demo", "-c", "user.email=demo@localhost", "-c", "gc.auto=0"]
    return shell.run(["git", *settings, "-C", repository, *argv], timeout=GIT_SECONDS)


def command(found: dict[str, str]) -> list[str]:
    """Return the command line of the loop on the demo's cluster."""
    context = found["DEVLOOP_TEST_CONTEXT"]
    return [str(venv.BIN / "devloop"), "dev", "--context", context]


def environment(found: dict[str, str]) -> dict[str, str]:
    """Return the environment of the loop; BASE_IMAGE reaches the sample's devloop.yaml."""
    return {**os.environ, "PATH": found["PATH"], "BASE_IMAGE": found["DEVLOOP_TEST_BASE_IMAGE"]}


def follow(found: dict[str, str]) -> int:
    """Run the loop on the sample itself until Ctrl-C."""
    console.say("")
    console.say(f"The sample is {SAMPLE.relative_to(venv.ROOT)}: edit a file there and save.")
    for port in ports(SAMPLE / "devloop.yaml"):
        console.say(f"It is served at http://localhost:{port}/ as soon as it is ready.")
    console.say("Ctrl-C ends devloop; the app keeps running (`devloop down` removes it).")
    console.say("")
    os.chdir(SAMPLE)
    os.execve(command(found)[0], command(found), environment(found))


def ports(config: Path) -> list[int]:
    """Return the local ports that a devloop.yaml opens (`ports: [8080, "9000:80"]`)."""
    listed = re.search(r"^\s*ports:\s*\[([^]]*)\]", config.read_text(), flags=re.MULTILINE)
    if listed is None:
        return []
    return [int(part) for part in re.findall(r"(\d+)(?::\d+)?", listed[1])]


def check_ports(config: Path = SAMPLE / "devloop.yaml") -> None:
    """Find out before the long set-up whether the sample can be served where it says."""
    for port in ports(config):
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind(("127.0.0.1", port))
            except OSError as error:
                raise shell.MachineError(
                    f"port {port}, where the sample is served, cannot be had: {error.strerror}; "
                    "end the program that listens there and run this again"
                ) from error


def check(found: dict[str, str]) -> int:
    """Make one edit, wait until it is served, and say how long that took; 0 if all was well."""
    with tempfile.TemporaryDirectory(prefix="devloop-demo-") as directory:
        copy = Path(directory) / "sample_app"
        clone(copy)
        try:
            return edit_and_wait(copy, found)
        except shell.MachineError as error:
            console.say(f"script/demo --check: {error}")
            return 1


def clone(copy: Path) -> None:
    """Copy the sample with the user's own uncommitted edits, and commit it there."""
    ignored = shutil.ignore_patterns(".devloop", "__pycache__", ".venv", ".pytest_cache")
    shutil.copytree(SAMPLE, copy, ignore=ignored)
    git(copy, "init", "--quiet")
    git(copy, "add", "--all")
    git(copy, "commit", "--quiet", "--message", "The sample as it is")


def edit_and_wait(copy: Path, found: dict[str, str]) -> int:
    """Run the loop on the copy and time one edit of the page's heading."""
    before = GitState.of(copy)
    argv = [*command(found), "--output", "json"]
    with Session(argv, cwd=copy, env=environment(found)) as loop:
        with console.step("first deployment of the sample", "15 s"):
            loop.settled(FIRST_SECONDS)
            url = loop.address(FIRST_SECONDS)
            page = loop.page(url, lambda text: HEADING.search(text) is not None, FIRST_SECONDS)
        file, old, new = plan_edit(copy, page)
        console.say(f"==> editing {file.relative_to(copy)}: {old!r} becomes {new!r}")
        seconds = timed_edit(file, old, new, lambda: loop.page(url, served(new), EDIT_SECONDS))
    after = GitState.of(copy)
    if after != replace(before, changed=f" M {file.relative_to(copy).as_posix()}\n"):
        console.say(f"git's state changed:\n  before: {before}\n  after:  {after}")
        return 1
    print(f"save -> served: {seconds:.2f} s at {url}; git state untouched")
    return 0


def plan_edit(copy: Path, page: str) -> tuple[Path, str, str]:
    """Return the file that the page's heading comes from, the heading and what it becomes."""
    heading = HEADING.search(page)
    if heading is None:
        raise shell.MachineError("the sample's page has no <h1>")
    old = heading[1]
    for name in git(copy, "ls-files", "-z").split("\0"):
        file = copy / name
        if not name or name.startswith("test"):
            continue
        source = HEADING.search(file.read_bytes().decode(errors="replace"))
        if source is not None and source[1] == old:
            return file, old, f"{old} {time.strftime('%H:%M:%S')}"
    raise shell.MachineError(f"no file of the sample holds the heading {old!r}")


def timed_edit(
    file: Path,
    old: str,
    new: str,
    wait: Callable[[], object],
    clock: Callable[[], float] = time.monotonic,
) -> float:
    """Save the edit as an editor does and return the seconds until `wait` is over."""
    draft = file.with_name(f".{file.name}.draft~")
    draft.write_text(file.read_text().replace(old, new))
    draft.chmod(file.stat().st_mode)
    began = clock()
    draft.replace(file)
    wait()
    return clock() - began


def served(text: str) -> Callable[[str], bool]:
    """Return a test for a page that shows the text."""
    return lambda page: text in page
