"""How an editor attaches to a service's process, in the words of the debug adapters that editors
share: those of VS Code's launch.json."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from devloop.editor.tasks import EditorDebugger, EditorProject

_HOST = "127.0.0.1"


def attach_label(project: EditorProject, debugger: EditorDebugger) -> str:
    """What the entry is called and recognised by."""
    where = f" ({project.directory})" if project.directory else ""
    return f"devloop: debug {debugger.service}{where}"


def attachment(debugger: EditorDebugger, workspace: str) -> dict[str, Any]:
    """The entry without its name; the editor calls the workspace `workspace`. The adapters that can
    attach again by themselves, to a process that is started anew, are asked to."""
    roots = [
        (f"{workspace}/{local}" if local else workspace, remote) for local, remote in debugger.roots
    ]
    match debugger.kind:
        case "python":
            return {
                "type": "debugpy",
                "request": "attach",
                "connect": {"host": _HOST, "port": debugger.port},
                "pathMappings": [
                    {"localRoot": local, "remoteRoot": remote} for local, remote in roots
                ],
                "restart": True,
            }
        case "node":
            local, remote = roots[-1]
            return {
                "type": "node",
                "request": "attach",
                "address": _HOST,
                "port": debugger.port,
                "localRoot": local,
                "remoteRoot": remote,
                "restart": True,
                "skipFiles": ["<node_internals>/**"],
            }
        case "go":
            return {
                "type": "go",
                "request": "attach",
                "mode": "remote",
                "debugAdapter": "dlv-dap",
                "host": _HOST,
                "port": debugger.port,
                "substitutePath": [{"from": local, "to": remote} for local, remote in roots],
            }
