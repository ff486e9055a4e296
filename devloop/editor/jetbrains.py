"""JetBrains' IDEs: a shared run configuration a task, of the kind Shell Script, each in a file of
its own under .run. Their consoles link paths; docs/editors.md has the output filter for more.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from xml.sax.saxutils import quoteattr

from devloop.editor.tasks import tasks_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from devloop.editor.tasks import EditorProject, EditorTask

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


def files(project: EditorProject, read: Callable[[str], str | None]) -> dict[str, str]:
    """The files are devloop's alone, whatever they hold."""
    del read
    return {_path(task): _configuration(project, task) for task in tasks_of(project)}


def _path(task: EditorTask) -> str:
    return f".run/{re.sub('[^A-Za-z0-9._-]+', '-', task.label).strip('-')}.run.xml"


def _configuration(project: EditorProject, task: EditorTask) -> str:
    return _CONFIGURATION.format(
        name=quoteattr(task.label),
        script=quoteattr(task.shell),
        directory=quoteattr(project.within("$PROJECT_DIR$")),
    )
