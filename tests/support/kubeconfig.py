"""A connection to one server, from a kubeconfig that says nothing else."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING

from devloop.cluster.api.connection import Connection

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def connected(server: str, directory: Path) -> Iterator[Connection]:
    """To `server` (a URL), with the token `secret`; the file is written to `directory`."""
    config = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "users": [{"name": "u", "user": {"token": "secret"}}],
    }
    path = directory / "config"
    path.write_text(json.dumps(config))
    connection = Connection.open(env={"KUBECONFIG": str(path)})
    try:
        yield connection
    finally:
        connection.close()
