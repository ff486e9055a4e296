"""Free the space of deleted images in a registry that `devloop cluster up` made.

A registry's garbage collector must not run beside pushes
(https://distribution.github.io/distribution/about/garbage-collection/), and a registry remembers
blobs that were collected; so it is stopped meanwhile, and pushes of that moment fail and are tried
again instead of being half lost.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from devloop.local_cluster.machine import CLUSTER_LABEL
from devloop.local_cluster.run import docker

if TYPE_CHECKING:
    from devloop.base.cancel import Cancel

__all__ = ["collect", "owned_registry"]

_COLLECT = 300.0
_BLOB = re.compile(r"^blob eligible for deletion: ", re.MULTILINE)


def owned_registry(host: str, cancel: Cancel) -> str | None:
    """The container behind `localhost:PORT` if devloop made it, else None."""
    name, _, port = host.partition(":")
    if name not in {"localhost", "127.0.0.1"} or not port.isdecimal():
        return None
    listed = docker(
        *("container", "ls", "--filter", f"label={CLUSTER_LABEL}", "--filter", f"publish={port}"),
        *("--format", "{{.Names}}"),
        cancel=cancel,
        check=False,
    )
    return next(iter(listed.out.split()), None) if listed.ok else None


def collect(container: str, cancel: Cancel) -> int:
    """Collect the garbage of the registry in `container`; how many blobs were removed.

    Errors: cluster/provision, env/docker-unreachable. The registry runs again in any case."""
    shown = json.loads(docker("container", "inspect", container, cancel=cancel).out)[0]
    program, *rest = _collector(shown["Config"])
    docker("stop", "--time", "5", container, cancel=cancel, timeout=30)
    try:
        done = docker(
            *("run", "--rm", "--volumes-from", container, "--network", "none"),
            *("--env", "OTEL_TRACES_EXPORTER=none", "--entrypoint", program, shown["Image"], *rest),
            cancel=cancel,
            timeout=_COLLECT,
        )
    finally:
        # Not cancellable: a registry that stays stopped would be worse than a late Ctrl-C.
        docker("start", container, cancel=type(cancel)(), timeout=30)
    return len(_BLOB.findall(done.out + "\n" + done.err))


def _collector(config: dict[str, Any]) -> list[str]:
    """The command that collects where the container's own serves: the official images' script
    takes the word `garbage-collect` before the file, others are told `serve` outright."""
    own = [*(config.get("Entrypoint") or ()), *(config.get("Cmd") or ())]
    if "serve" in own:
        return ["garbage-collect" if word == "serve" else word for word in own]
    files = [word for word in own[1:] if word.endswith((".yml", ".yaml"))]
    return [own[0], "garbage-collect", *files]
