"""Kubernetes objects as YAML that others read and keep: one document after the other, or one file
for each object.

Same objects, same bytes: no time, no order of a dictionary, nothing of this computer. What stands
in a directory is replaced file by file, and only what an earlier rendering wrote there is removed.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import yaml

from devloop.app.image_file import cannot_write, write_file
from devloop.errors import Code, DevloopError, Diagnosis, Location

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from devloop.cluster.deploy.objects import PlannedObject


INDEX = ".devloop-rendered.json"
"""What a directory's files were written by; belongs to them in a repository."""

_VERSION = 1

# What some reader of YAML takes for something else than text: numbers of any kind, dates, 1:30.
_AMBIGUOUS = re.compile(r"[-+.]?[0-9][0-9a-fA-FxXoO_.:eETtZz+ -]*|[yYnN]")


class _Dumper(yaml.SafeDumper):
    """As `kubectl -o yaml` writes, with nothing left to a reader's guess."""

    def ignore_aliases(self, data: Any) -> bool:
        del data
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    style = '"' if _AMBIGUOUS.fullmatch(value) else "|" if "\n" in value else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _text)


def document(planned: PlannedObject) -> str:
    """One object."""
    return yaml.dump(
        planned.object,
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        default_flow_style=False,
        width=1 << 16,
    )


def documents(objects: Iterable[PlannedObject]) -> str:
    """All of them, in their order."""
    return "".join(f"---\n{document(each)}" for each in objects)


def files_of(objects: Iterable[PlannedObject]) -> dict[str, bytes]:
    """A file's name and content for each object, sorted by name: `deployment.apps_web.yaml`,
    `shop_service_web.yaml` in the namespace `shop`."""
    return dict(sorted((_name(each), document(each).encode()) for each in objects))


def _name(planned: PlannedObject) -> str:
    group = planned.resource.api_version.rpartition("/")[0]
    kind = planned.resource.kind.lower() + (f".{group}" if group else "")
    parts = (*filter(None, [planned.namespace]), kind, planned.name)
    return "_".join(quote(part, safe="") for part in parts) + ".yaml"


def is_directory(path: Path, text: str) -> bool:
    """Whether the user means a directory: one that is there, a path that ends in a slash, or a name
    without a dot."""
    if path.is_dir():
        return True
    return not path.exists() and (text.endswith("/") or not path.suffix)


def write_documents(path: Path, objects: Iterable[PlannedObject]) -> None:
    """All in one file, replaced at once. Errors: env/*."""
    write_file(path, documents(objects).encode())


def write_directory(
    directory: Path, files: Mapping[str, bytes], notify: Callable[[Diagnosis], None]
) -> None:
    """Make the directory have these files, each replaced at once. `notify` gets what was left: a
    file of an earlier rendering that somebody changed. Errors: env/*, safety/not-rendered before
    anything is written, for a file that no rendering wrote."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        known = _index(directory)
        for name, content in files.items():
            path = directory / name
            if name not in known and path.exists() and path.read_bytes() != content:
                raise _not_ours(path)
        digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
        # First: what is written from here on is known to be ours, wherever this ends.
        _write_index(directory, {**known, **digests})
        for name, content in files.items():
            path = directory / name
            if not path.exists() or path.read_bytes() != content:
                write_file(path, content)
        for name in sorted(known.keys() - files.keys()):
            _remove(directory / name, known[name], notify)
        _write_index(directory, digests)
    except OSError as error:
        raise cannot_write(directory, error) from error


def _remove(path: Path, digest: str, notify: Callable[[Diagnosis], None]) -> None:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return
    if hashlib.sha256(content).hexdigest() == digest:
        path.unlink()
        return
    notify(
        Diagnosis(
            code=Code.CONFIG_MANIFEST,
            severity="warning",
            message=f"{path} is rendered no more, and is left there: somebody changed it",
            location=Location(str(path)),
            suggestions=(f"remove it: rm {path}",),
        )
    )


def _index(directory: Path) -> dict[str, str]:
    try:
        value = json.loads((directory / INDEX).read_text("utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    files = value.get("files") if isinstance(value, dict) else None
    found = files.items() if isinstance(files, dict) else ()
    # A name with a slash would lead out of the directory.
    return {k: v for k, v in found if isinstance(v, str) and k == Path(k).name and k != INDEX}


def _write_index(directory: Path, digests: Mapping[str, str]) -> None:
    value = {"version": _VERSION, "files": dict(sorted(digests.items()))}
    content = (json.dumps(value, indent=1) + "\n").encode()
    path = directory / INDEX
    if not path.exists() or path.read_bytes() != content:
        write_file(path, content)


def _not_ours(path: Path) -> DevloopError:
    return DevloopError.of(
        Code.SAFETY_NOT_RENDERED,
        f"{path} is in the way: no earlier rendering wrote it",
        location=Location(str(path)),
        suggestions=("name another directory", f"or remove the file: rm {path}"),
    )
