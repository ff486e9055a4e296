"""Zed: tasks, which have no problem lists there; the places that they print can be clicked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from devloop.editor.jsonc import with_entries
from devloop.editor.tasks import tasks_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from devloop.editor.tasks import EditorProject, EditorTask

_PATH = ".zed/tasks.json"


def files(project: EditorProject, read: Callable[[str], str | None]) -> dict[str, str]:
    """Errors: config/parse for a tasks.json that is none."""
    entries = [_entry(project, task) for task in tasks_of(project)]
    return {_PATH: with_entries(read(_PATH) or "", entries, shown=_PATH)}


def _entry(project: EditorProject, task: EditorTask) -> dict[str, Any]:
    return {
        "label": task.label,
        "command": "devloop",
        "args": list(task.arguments),
        "cwd": project.within("$ZED_WORKTREE_ROOT"),
        "use_new_terminal": False,
        "allow_concurrent_runs": False,
        "reveal": "no_focus" if task.lasting else "always",
    }
