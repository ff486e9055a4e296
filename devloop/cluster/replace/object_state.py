"""Where a project keeps what it must remember of an object in a cluster: one file an object."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from devloop.base.state_file import StateFile
from devloop.errors import Code, DevloopError, Location

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def object_file(
    root: Path, context: str, namespace: str, name: str, *, durable: bool = False
) -> StateFile:
    """`<root>/<context>/<namespace>/<name>.json`, quoted so that it never leaves `root`."""
    quoted = [quote(part, safe="@:") for part in (context, namespace, f"{name}.json")]
    path = root.joinpath(*(q if q.strip(".") else "%2E" * len(q) for q in quoted))
    return StateFile(path, durable=durable)


def write_first(file: StateFile, value: Mapping[str, Any], otherwise: str) -> None:
    """Write what must be there before the cluster is changed. Raises env/disk-full or
    env/file-unreadable, saying `otherwise`."""
    try:
        file.write(value)
    except OSError as error:
        raise DevloopError.of(
            Code.ENV_DISK_FULL if error.errno == errno.ENOSPC else Code.ENV_FILE_UNREADABLE,
            otherwise,
            location=Location(str(file.path)),
            cause=error.strerror or str(error),
        ) from error
