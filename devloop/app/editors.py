"""What `devloop editor` does: find the workspace that an editor has open, say what its files should
hold, write them.

Nothing of the project but the place of its devloop.yaml is needed, so a broken one is no hindrance.
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from devloop.app.project_paths import debug_roots
from devloop.base.lazy_dataclass import dataclass
from devloop.config.loader import load_project
from devloop.config.places import FILE_NAME, find_file
from devloop.editor import jetbrains, nvim, vscode, zed
from devloop.editor.tasks import EditorDebugger, EditorProject
from devloop.errors import Code, DevloopError, Location

if TYPE_CHECKING:
    from collections.abc import Callable, Collection


_EDITORS = {"vscode": vscode, "jetbrains": jetbrains, "zed": zed, "nvim": nvim}
# What an editor keeps in the directory that it has open.
_OWN = {"vscode": ".vscode", "jetbrains": ".idea", "zed": ".zed", "nvim": ".nvim.lua"}

EDITORS = tuple(_EDITORS)
# Where the files are taken to be where nothing tells; for debugpy "." is the working directory.
_SOMEWHERE = {"python": ".", "node": "/app", "go": "/src"}


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
    report: Callable[[str], None] = lambda _: None,
) -> tuple[EditorFile, ...]:
    """The files for `editor` that are not as they should be. `file` is `-f`; without `workspace` it
    is the directory that the editor has open already, as far as that can be seen, else the top of
    the git repository, else the project's. `report` is told what is left out.

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
        debuggers=_debuggers(path, file, top, cwd, report),
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


def _debuggers(
    path: Path, file: Path | None, top: Path, cwd: Path, report: Callable[[str], None]
) -> tuple[EditorDebugger, ...]:
    """Those of the services that devloop.yaml gives one, as far as it can be read."""
    named = Path(os.path.relpath(path, cwd))
    try:
        project = load_project(cwd=cwd, file=file or named, env=os.environ).project
    except DevloopError as error:
        place = f"{error.diagnosis.location}: " if error.diagnosis.location else ""
        with contextlib.suppress(OSError):
            if b"debug" in path.read_bytes():
                report(f"{place}{error.diagnosis.message}: what attaches debuggers stays as it is")
        return ()
    found = []
    for service in project.services.values():
        if (debug := service.debug) is None:
            continue
        roots = debug_roots(service.build)
        if not roots:
            report(
                f"{service.name}: the Dockerfile does not tell where the files are in the image; "
                f"what attaches to it says {_SOMEWHERE[debug.kind]}"
            )
        context = os.path.relpath(service.build.context, top)
        found.append(
            EditorDebugger(
                service=service.name,
                kind=debug.kind,
                port=debug.port,
                roots=tuple(
                    (_posix(os.path.normpath(Path(context, local))), remote)
                    for local, remote in roots or (("", _SOMEWHERE[debug.kind]),)
                ),
            )
        )
    return tuple(found)


def _posix(path: str) -> str:
    """ "" for the directory itself."""
    return "" if path == "." else Path(path).as_posix()


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
