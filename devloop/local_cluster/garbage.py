"""Free the space of deleted images in a registry that `devloop cluster up` made.

A registry's garbage collector must not run beside pushes
(https://distribution.github.io/distribution/about/garbage-collection/), and a registry caches
blobs that were collected; so it is stopped meanwhile, and pushes of that moment fail and are tried
again instead of being half lost.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from devloop.errors import Code, DevloopError
from devloop.local_cluster.docker_host import last_lines
from devloop.local_cluster.machine import CLUSTER_LABEL

if TYPE_CHECKING:
    from devloop.local_cluster.docker_host import DockerHost


_COLLECT = 300.0
_BLOB = re.compile(r"^blob eligible for deletion: ", re.MULTILINE)


def owned_registry(docker: DockerHost, host: str) -> str | None:
    """The container behind `localhost:PORT` if devloop made it, else None."""
    name, _, port = host.partition(":")
    if name not in {"localhost", "127.0.0.1"} or not port.isdecimal():
        return None
    found = docker.call("containers", filters={"label": CLUSTER_LABEL, "publish": port})
    return next((c["Names"][0].removeprefix("/") for c in found), None)


def collect(docker: DockerHost, container: str) -> int:
    """Collect the garbage of the registry in `container`; how many blobs were removed.

    Errors: cluster/provision, env/docker-unreachable. The registry runs again in any case."""
    shown = docker.inspect(container)
    if shown is None:
        return 0
    try:
        docker.call("stop", container, timeout=5)
        return len(_BLOB.findall(_run_collector(docker, container, shown)))
    finally:
        # Not cancellable: a registry that stays stopped would be worse than a late Ctrl-C. A stop
        # that was interrupted is still under way, and would end what is started before its end.
        docker.uncancelled().call("stop", container, timeout=5)
        docker.uncancelled().call("start", container)


def _run_collector(docker: DockerHost, container: str, shown: dict[str, Any]) -> str:
    program, *rest = _collector(shown["Config"])
    collector = docker.create(
        None,
        shown["Image"],
        entrypoint=[program],
        command=rest,
        environment={"OTEL_TRACES_EXPORTER": "none"},
        host={"volumes_from": [container], "network_mode": "none"},
    )

    def status() -> int | None:
        state = (docker.inspect(collector) or {"State": {"ExitCode": -1}})["State"]
        return None if state.get("Running") else int(state["ExitCode"])

    try:
        docker.call("start", collector)
        ended = docker.until(status, _COLLECT, pause=0.1)
        log = docker.logs(collector)
    finally:
        docker.uncancelled().remove(collector)
    if ended != 0:
        raise DevloopError.of(
            Code.CLUSTER_PROVISION,
            f"the garbage of {container} could not be collected",
            cause="it took too long" if ended is None else f"the collector ended with {ended}",
            detail=last_lines(log),
        )
    return log


def _collector(config: dict[str, Any]) -> list[str]:
    """The command that collects where the container's own serves: the official images' script
    takes `garbage-collect` before the file, others get `serve` as an argument."""
    own = [*(config.get("Entrypoint") or ()), *(config.get("Cmd") or ())]
    if "serve" in own:
        return ["garbage-collect" if part == "serve" else part for part in own]
    files = [part for part in own[1:] if part.endswith((".yml", ".yaml"))]
    return [own[0], "garbage-collect", *files]
