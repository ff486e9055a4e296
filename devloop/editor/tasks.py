"""The commands of devloop that an editor offers, the same in all of them."""

from __future__ import annotations

import shlex
from typing import Literal

from devloop.base.lazy_dataclass import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class EditorDebugger:
    """A service whose process an editor can attach to at `port`. `roots` says where its files are:
    (directory, relative to the workspace; directory in the container), the first that fits first,
    and at least one."""

    service: str
    kind: Literal["python", "node", "go"]
    port: int
    roots: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class EditorProject:
    """A project in the workspace that an editor has open. `directory` is that of its devloop.yaml,
    relative to the workspace, "" where they are the same; `file` the file's name if it is another
    one; `commands` are those that this devloop has, `debuggers` what can be attached to."""

    directory: str = ""
    file: str = ""
    commands: frozenset[str]
    debuggers: tuple[EditorDebugger, ...] = ()

    def within(self, root: str) -> str:
        """The project's directory, where the editor calls the workspace `root`."""
        return f"{root}/{self.directory}" if self.directory else root


@dataclass(frozen=True, slots=True, kw_only=True)
class EditorTask:
    """A command to run in the project's directory. `label` is what an entry of ours is recognised
    by; `lasting` says that it runs until it is stopped, `problems` that it prints problem lines."""

    label: str
    name: str
    arguments: tuple[str, ...]
    detail: str
    lasting: bool = False
    problems: bool = False

    @property
    def shell(self) -> str:
        """The command for a POSIX shell."""
        return shlex.join(("devloop", *self.arguments))


def tasks_of(project: EditorProject) -> tuple[EditorTask, ...]:
    """In the order to offer them."""
    every = (
        _task(
            project,
            "dev",
            "--output",
            "lines",
            detail="Deploy, then rebuild and replace the pods at every save",
            lasting=True,
            problems=True,
        ),
        _task(
            project, "run", "--output", "lines", detail="Build, push and deploy once", problems=True
        ),
        _task(project, "trigger", "--wait", detail="Build and deploy now in the running session"),
        _task(project, "logs", "--follow", detail="Follow the logs", lasting=True),
        _task(project, "doctor", detail="Try the whole path of a save, hop by hop"),
        _task(project, "check", detail="Validate devloop.yaml and what it names", problems=True),
    )
    return tuple(task for task in every if task.name in project.commands)


def _task(
    project: EditorProject,
    name: str,
    *arguments: str,
    detail: str,
    lasting: bool = False,
    problems: bool = False,
) -> EditorTask:
    where = f" ({project.directory})" if project.directory else ""
    file = ("--file", project.file) if project.file else ()
    return EditorTask(
        label=f"devloop: {name}{where}",
        name=name,
        arguments=(name, *arguments, *file),
        detail=detail,
        lasting=lasting,
        problems=problems,
    )
