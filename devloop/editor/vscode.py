"""VS Code, and what reads its tasks.json as well: Cursor, Theia, overseer.nvim.

A task in the background empties its list of problems at a begin marker and shows what came since
at the end marker, so both are in the matcher. `run` and `check` replace the same list: a problem
that one of them found is gone once another one does not find it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from devloop.editor.debuggers import attach_label, attachment
from devloop.editor.jsonc import with_entries
from devloop.editor.problems import BEGIN, END, PROBLEM, PROBLEM_GROUPS
from devloop.editor.tasks import tasks_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from devloop.editor.tasks import EditorProject, EditorTask

_PATH = ".vscode/tasks.json"
_LAUNCH = ".vscode/launch.json"
_WORKSPACE = "${workspaceFolder}"


def files(project: EditorProject, read: Callable[[str], str | None]) -> dict[str, str]:
    """Errors: config/parse for a tasks.json or launch.json that is none."""
    wanted = {_PATH: _tasks(project, read)}
    if project.debuggers:
        entries = [
            {"name": attach_label(project, each), **attachment(each, _WORKSPACE)}
            for each in project.debuggers
        ]
        wanted[_LAUNCH] = with_entries(
            read(_LAUNCH) or "",
            entries,
            shown=_LAUNCH,
            within="configurations",
            name="name",
            head={"version": "0.2.0"},
        )
    return wanted


def _tasks(project: EditorProject, read: Callable[[str], str | None]) -> str:
    entries = [_entry(project, task) for task in tasks_of(project)]
    return with_entries(
        read(_PATH) or "", entries, shown=_PATH, within="tasks", head={"version": "2.0.0"}
    )


def _entry(project: EditorProject, task: EditorTask) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "label": task.label,
        "detail": task.detail,
        "type": "process",
        "command": "devloop",
        "args": list(task.arguments),
        "options": {"cwd": project.within("${workspaceFolder}")},
    }
    if task.lasting:
        entry |= {"isBackground": True, "runOptions": {"instanceLimit": 1}}
    if task.name in ("dev", "run"):
        entry["group"] = "build"
    entry["presentation"] = {"panel": "dedicated", "reveal": "silent" if task.lasting else "always"}
    entry["problemMatcher"] = _matcher(project, task) if task.problems else []
    return entry


def _matcher(project: EditorProject, task: EditorTask) -> dict[str, Any]:
    matcher: dict[str, Any] = {
        "owner": f"devloop {project.directory}".rstrip(),
        "source": "devloop",
        # A place outside of the project is absolute.
        "fileLocation": ["autoDetect", project.within("${workspaceFolder}")],
        "pattern": {"regexp": PROBLEM, **PROBLEM_GROUPS},
    }
    if task.lasting:
        background = {"activeOnStart": True, "beginsPattern": BEGIN, "endsPattern": END}
        matcher["background"] = background
    return matcher
