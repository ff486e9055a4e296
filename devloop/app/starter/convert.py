"""`devloop init --from skaffold.yaml`: the devloop.yaml that does the same.

What is read and what it comes to is config/skaffold's; here it becomes a text, which is read back
as any devloop.yaml before anybody sees it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from devloop.app.starter.text import MODELINE
from devloop.base.lazy_dataclass import dataclass
from devloop.config.documents import read_text
from devloop.config.loader import service_has, show_path
from devloop.config.places import FILE_NAME
from devloop.config.problems import ConfigErrors, Problems
from devloop.config.skaffold.source import ENV_FILE, is_skaffold, read_skaffold
from devloop.config.skaffold.write import as_text
from devloop.errors import Code, DevloopError, Location

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from devloop.app.starter.start import Flags
    from devloop.errors import Diagnosis


@dataclass(frozen=True, slots=True, kw_only=True)
class Converted:
    """A devloop.yaml for `directory`, and what of it is otherwise than with Skaffold."""

    directory: Path
    text: str
    notes: tuple[Diagnosis, ...]


def converted(file: Path, cwd: Path, env: Mapping[str, str], flags: Flags) -> Converted:
    """What does the same as the skaffold.yaml `file`. Errors: config/*, env/file-unreadable."""
    path = cwd / file
    shown = str(file)
    text = read_text(path, shown)
    if not is_skaffold(text):
        raise DevloopError.of(
            Code.USAGE_ARGUMENTS,
            f"{shown} is no skaffold.yaml",
            location=Location(shown, 1, 1),
            cause="it does not begin with `apiVersion: skaffold/...`",
        )
    problems = Problems()
    found = read_skaffold(
        path,
        shown,
        text,
        show=lambda other: show_path(other, cwd),
        env=env,
        profiles=tuple(filter(None, env.get("DEVLOOP_PROFILE", "").split(","))),
        command="dev",
        context=flags.context,
        supports=service_has,
        problems=problems,
        keep_variables=True,
    )
    if found is None or problems:
        raise ConfigErrors(problems.sorted())
    env_file = ENV_FILE if (path.parent / ENV_FILE).is_file() else ""
    head = f"{MODELINE}\nMade of {path.name} by `devloop init`; `devloop schema` has every key."
    made = as_text(found.root, found.notes, head=head, env_file=env_file)
    directory = path.parent
    flags.load(directory, env, made, os.path.relpath(directory / FILE_NAME, cwd))
    return Converted(directory=directory, text=made, notes=found.notes)
