"""What `devloop editor` does: find the workspace that an editor has open, say what its files should
hold, write them.

Nothing of the project but the place of its devloop.yaml is needed, so a broken one is no hindrance.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from devloop.base.lazy_dataclass import dataclass
from devloop.config.places import FILE_NAME, find_file
from devloop.editor import jetbrains, nvim, vscode, zed
from devloop.editor.tasks import EditorProject
from devloop.errors import Code, DevloopError, Location

if TYPE_CHECKING:
    from collections.abc import Collection


_EDITORS = {"vscode": vscode, "jetbrains": jetbrains, "zed": zed, "nvim": nvim}
# What an editor keeps in the directory that it has open.
_OWN = {"vscode": ".vscode", "jetbrains": ".idea", "zed": ".zed", "nvim": ".nvim.lua"}

EDITORS = tuple(_EDITORS)


@dataclass(frozen=True, slots=True, kw_only=True)
class EditorFile:
    """A file for an editor: `name` in the workspace, what it holds now (None: it is not there) and
    what it should hold."""

    path: Path
    name: str
    old: str | None
    new: str

    def write(self) -> None:
        """Replace the file in one step; its mode stays, and a link to it. Errors:
        env/file-unreadable."""
        path = Path(os.path.realpath(self.path))
        beside = path.with_name(f".devloop-{os.getpid()}-{path.name}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            beside.write_bytes(self.new.encode())
            if self.old is not None:
                beside.chmod(stat.S_IMODE(path.stat().st_mode))
            beside.replace(path)
        except OSError as error:
            beside.unlink(missing_ok=True)
            raise _unusable(self.name, "written", error) from error


def editor_files(
    editor: str,
    *,
    file: Path | None,
    workspace: Path | None,
    cwd: Path,
    commands: Collection[str],
) -> tuple[EditorFile, ...]:
    """The files for `editor` that are not as they should be. `file` is `-f`; without `workspace` it
    is the directory that the editor has open already, as far as that can be seen, else the top of
    the git repository, else the project's.

    Errors: config/not-found, config/parse, env/file-unreadable, usage/arguments."""
    path = Path(os.path.normpath(cwd / file)) if file else find_file(cwd)
    top = cwd / workspace if workspace else _workspace(path.parent, _OWN[editor])
    top = Path(os.path.normpath(top))
    if not path.parent.is_relative_to(top):
        raise DevloopError.of(
            Code.USAGE_ARGUMENTS,
            f"{path} is not in the workspace {top}",
            suggestions=("name the directory that the editor opens, one that holds the project",),
        )
    directory = path.parent.relative_to(top).as_posix()
    project = EditorProject(
        directory="" if directory == "." else directory,
        file="" if path.name == FILE_NAME else path.name,
        commands=frozenset(commands),
    )
    old: dict[str, str | None] = {}

    def read(name: str) -> str | None:
        old[name] = _read(top / name, name)
        return old[name]

    wanted = _EDITORS[editor].files(project, read)
    found = (
        EditorFile(
            path=top / name, name=name, old=old[name] if name in old else read(name), new=text
        )
        for name, text in wanted.items()
    )
    return tuple(each for each in found if each.old != each.new)


def _workspace(project: Path, own: str) -> Path:
    above = (project, *project.parents)
    top = next((each for each in above if (each / ".git").exists()), project)
    within = (each for each in above if each.is_relative_to(top))
    return next((each for each in within if (each / own).exists()), top)


def _read(path: Path, name: str) -> str | None:
    try:
        # As it is: line ends and a byte order mark stay.
        return path.read_bytes().decode()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unusable(name, "read", error) from error
    except UnicodeDecodeError as error:
        place = Location.after(error.object[: error.start].decode(), name)
        raise DevloopError.of(
            Code.CONFIG_PARSE, f"{name} is not UTF-8 text", location=place
        ) from error


def _unusable(name: str, done: str, error: OSError) -> DevloopError:
    return DevloopError.of(
        Code.ENV_FILE_UNREADABLE,
        f"{name} cannot be {done}",
        location=Location(name),
        cause=error.strerror or str(error),
    )
