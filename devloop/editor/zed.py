"""Zed: tasks, which have no problem lists there; the places that they print can be clicked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from devloop.editor.debuggers import attach_label, attachment
from devloop.editor.jsonc import with_entries
from devloop.editor.tasks import tasks_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from devloop.editor.tasks import EditorDebugger, EditorProject, EditorTask

_PATH = ".zed/tasks.json"
_DEBUG = ".zed/debug.json"
_WORKSPACE = "$ZED_WORKTREE_ROOT"
_ADAPTERS = {"python": "Debugpy", "node": "JavaScript", "go": "Delve"}


def files(project: EditorProject, read: Callable[[str], str | None]) -> dict[str, str]:
    """Errors: config/parse for a tasks.json or debug.json that is none."""
    entries = [_entry(project, task) for task in tasks_of(project)]
    wanted = {_PATH: with_entries(read(_PATH) or "", entries, shown=_PATH)}
    if project.debuggers:
        entries = [
            {"label": attach_label(project, each), **_attachment(each)}
            for each in project.debuggers
        ]
        wanted[_DEBUG] = with_entries(read(_DEBUG) or "", entries, shown=_DEBUG)
    return wanted


def _attachment(debugger: EditorDebugger) -> dict[str, Any]:
    """As for VS Code, but for how the debugger is named and found."""
    common = attachment(debugger, _WORKSPACE)
    entry: dict[str, Any] = {"adapter": _ADAPTERS[debugger.kind]}
    if debugger.kind == "node":
        return entry | common | {"type": "pwa-node"}
    left_out = {"type", "connect", "host", "port", "debugAdapter", "restart"}
    entry |= {key: value for key, value in common.items() if key not in left_out}
    return entry | {"tcp_connection": {"host": "127.0.0.1", "port": debugger.port}}


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
