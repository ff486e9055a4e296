"""JetBrains' IDEs: a shared run configuration a task, of the kind Shell Script, each in a file of
its own under .run. Their consoles link paths; docs/editors.md has the output filter for more.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from xml.sax.saxutils import quoteattr

from devloop.editor.debuggers import attach_label
from devloop.editor.tasks import tasks_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from devloop.editor.tasks import EditorDebugger, EditorProject, EditorTask

# In a terminal the IDE would not look for paths in what is printed.
_CONFIGURATION = """\
<component name="ProjectRunConfigurationManager">
  <configuration default="false" name={name} type="ShConfigurationType">
    <option name="SCRIPT_TEXT" value={script} />
    <option name="INDEPENDENT_SCRIPT_PATH" value="true" />
    <option name="SCRIPT_PATH" value="" />
    <option name="SCRIPT_OPTIONS" value="" />
    <option name="INDEPENDENT_SCRIPT_WORKING_DIRECTORY" value="true" />
    <option name="SCRIPT_WORKING_DIRECTORY" value={directory} />
    <option name="INDEPENDENT_INTERPRETER_PATH" value="true" />
    <option name="INTERPRETER_PATH" value="/bin/sh" />
    <option name="INTERPRETER_OPTIONS" value="" />
    <option name="EXECUTE_IN_TERMINAL" value="false" />
    <option name="EXECUTE_SCRIPT_FILE" value="false" />
    <envs />
    <method v="2" />
  </configuration>
</component>
"""


# `restartOnDisconnect`: the process is started anew, and listens there again.
_ATTACH = """\
<component name="ProjectRunConfigurationManager">
  <configuration default="false" name={name} type={type} {attributes}>
{inside}    <method v="2" />
  </configuration>
</component>
"""
_KINDS = {
    "node": (
        "ChromiumRemoteDebugType",
        'factoryName="Chromium Remote" restartOnDisconnect="true"',
    ),
    "go": ("GoRemoteDebugConfigurationType", 'factoryName="Go Remote"'),
}


def files(project: EditorProject, read: Callable[[str], str | None]) -> dict[str, str]:
    """The files are devloop's alone, whatever they hold."""
    del read
    wanted = {_path(task.label): _configuration(project, task) for task in tasks_of(project)}
    for debugger in project.debuggers:
        # PyCharm's own debugger for Python connects the other way round.
        if debugger.kind in _KINDS:
            label = attach_label(project, debugger)
            wanted[_path(label)] = _attachment(label, debugger)
    return wanted


def _path(label: str) -> str:
    return f".run/{re.sub('[^A-Za-z0-9._-]+', '-', label).strip('-')}.run.xml"


def _attachment(label: str, debugger: EditorDebugger) -> str:
    kind, attributes = _KINDS[debugger.kind]
    inside = (
        '    <option name="disconnectOption" value="LEAVE" />\n    <disconnect value="LEAVE" />\n'
    )
    if debugger.kind == "node":
        roots = ((f"$PROJECT_DIR$/{local}".rstrip("/"), r) for local, r in debugger.roots)
        inside = "".join(
            f"    <mapping local-file={quoteattr(local)} url={quoteattr(remote)} />\n"
            for local, remote in roots
        )
    attributes += f' host="127.0.0.1" port="{debugger.port}"'
    return _ATTACH.format(
        name=quoteattr(label), type=quoteattr(kind), attributes=attributes, inside=inside
    )


def _configuration(project: EditorProject, task: EditorTask) -> str:
    return _CONFIGURATION.format(
        name=quoteattr(task.label),
        script=quoteattr(task.shell),
        directory=quoteattr(project.within("$PROJECT_DIR$")),
    )
