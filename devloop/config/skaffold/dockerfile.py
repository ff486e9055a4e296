"""What a Dockerfile says of where files go: the working directory of a stage, and its COPY lines.

For sync rules alone, which Skaffold writes relative to the working directory; builds have a model
of their own (devloop.builders). Pure; where a line needs a variable or a base image to be
understood, it is left out.
"""

from __future__ import annotations

import json
import posixpath
import re
from typing import TYPE_CHECKING

from devloop.base.lazy_dataclass import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """One source of a COPY or ADD, "" for the whole context, and the absolute `dest`; `is_dir`: as
    a directory's name is written."""

    source: str
    dest: str
    is_dir: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class StageFiles:
    """`workdir` is "" where it is the base image's."""

    workdir: str = ""
    placed: tuple[Placed, ...] = ()


_CONTINUED = re.compile(r"\\[ \t]*\n")


def files_of(text: str, target: str = "") -> StageFiles:
    """Of the stage `target`, or of the last one."""
    stages: dict[str, StageFiles] = {}
    current, name, workdir, placed = StageFiles(), "", "", list[Placed]()
    count = -1

    def finish() -> None:
        if count >= 0:
            found = StageFiles(workdir=workdir, placed=tuple(placed))
            stages[name] = stages[str(count)] = found

    for word, rest in _instructions(text):
        if word == "FROM":
            finish()
            if target and name == target.lower():
                break
            parts = [part for part in rest.split() if not part.startswith("--")]
            current = stages.get(parts[0].lower(), StageFiles()) if parts else StageFiles()
            count += 1
            name = parts[2].lower() if len(parts) > 2 else str(count)
            workdir, placed = current.workdir, list(current.placed)
        elif word == "WORKDIR" and "$" not in rest:
            path = rest.strip().strip("\"'")
            if path.startswith("/") or workdir:
                workdir = posixpath.normpath(posixpath.join(workdir or "/", path))
        elif word in ("COPY", "ADD"):
            placed += _copied(rest, workdir)
    finish()
    wanted = target.lower() or str(count)
    return stages.get(wanted, StageFiles())


def _instructions(text: str) -> Iterator[tuple[str, str]]:
    plain = "\n".join(line for line in text.split("\n") if not line.lstrip().startswith("#"))
    for line in _CONTINUED.sub(" ", plain).split("\n"):
        word, _, rest = line.strip().partition(" ")
        yield word.upper(), rest.strip()


def _copied(rest: str, workdir: str) -> Iterator[Placed]:
    flags = re.match(r"(?:--\S+\s+)*", rest)
    assert flags is not None  # noqa: S101 - it matches anything
    if "--from" in flags[0] or "$" in rest:
        return
    rest = rest[flags.end() :]
    if rest.startswith("["):
        try:
            parts = [str(part) for part in json.loads(rest)]
        except ValueError:
            return
    else:
        parts = rest.split()
    if len(parts) < 2 or (not parts[-1].startswith("/") and not workdir):
        return
    dest = posixpath.normpath(posixpath.join(workdir or "/", parts[-1]))
    is_dir = parts[-1].endswith("/") or parts[-1] in (".", "./") or len(parts) > 2
    for source in parts[:-1]:
        clean = posixpath.normpath(source.lstrip("/") or ".")
        yield Placed(source="" if clean == "." else clean, dest=dest, is_dir=is_dir)
