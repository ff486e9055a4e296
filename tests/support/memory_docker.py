"""A Docker daemon in memory, behind the methods of the SDK's client that devloop uses.

It must agree with a real one: tests/integration/local_cluster/test_docker_contract.py.
"""

from __future__ import annotations

import io
import tarfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from docker.errors import APIError, ImageNotFound, NotFound
from docker.types import HostConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Box", "MemoryDocker"]


@dataclass
class Box:
    """A container. `files` are texts by absolute path, `ports` lead from `5000/tcp` to the host's,
    `log` is what its program writes as soon as it is started."""

    labels: dict[str, str] = field(default_factory=dict)
    state: str = "running"
    image: str = "image"
    networks: set[str] = field(default_factory=set)
    ports: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    log: str = ""
    command: list[str] = field(default_factory=list)
    status: int = 0

    def inspected(self, name: str) -> dict[str, Any]:
        return {
            "Id": name,
            "Name": f"/{name}",
            "Image": f"sha256:{self.image}",
            "Config": {
                "Labels": self.labels,
                "Image": self.image,
                "Entrypoint": None,
                "Cmd": self.command,
            },
            "State": {
                "Status": self.state,
                "Running": self.state in {"running", "paused"},
                "ExitCode": self.status,
            },
            "NetworkSettings": {
                "Networks": {net: {"IPAddress": "10.0.0.2"} for net in self.networks}
            },
            "HostConfig": {
                "PortBindings": {
                    inner: [{"HostIp": "127.0.0.1", "HostPort": outer}]
                    for inner, outer in self.ports.items()
                }
            },
        }


class MemoryDocker:
    """`boxes` and `volumes_by_name` are what it has. `programs` are what can be executed in
    containers, besides `rm -r`. `images` are here, `pullable` come when asked for, and `taken`
    ports are another process's. A container that `ends_at_once` has exited after its start.
    `failing` maps a method to what it raises; `before` sees each call first."""

    def __init__(self) -> None:
        self.boxes: dict[str, Box] = {}
        self.volumes_by_name: dict[str, dict[str, str]] = {}
        self.images: set[str] = set()
        self.pullable: set[str] = set()
        self.taken: set[str] = set()
        self.programs: dict[str, Callable[[Box, list[str]], tuple[int, str, str]]] = {}
        self.ends_at_once: Callable[[Box], bool] = lambda _: False
        self.failing: dict[str, Exception] = {}
        self.before: Callable[[str], None] = lambda _: None
        self.calls: list[tuple[Any, ...]] = []
        self.timeout = 60.0
        self._executed: list[tuple[Box, list[str], tuple[int, str, str]]] = []

    def close(self) -> None:
        """As the SDK's."""

    def _called(self, method: str, *args: Any) -> None:
        self.calls.append((method, *args))
        self.before(method)
        if method in self.failing:
            raise self.failing[method]

    def _box(self, name: str) -> Box:
        if name not in self.boxes:
            raise NotFound(f"No such container: {name}")
        return self.boxes[name]

    def ping(self) -> bool:
        self._called("ping")
        return True

    def containers(
        self,
        *,
        all: bool = False,  # noqa: A002 - the SDK's name
        filters: dict[str, str],
    ) -> list[dict[str, Any]]:
        self._called("containers", filters)
        key, equals, value = filters.get("label", "").partition("=")

        def fits(box: Box) -> bool:
            running = all or box.state in {"running", "paused"}
            labelled = not key or (key in box.labels and (not equals or box.labels[key] == value))
            published = "publish" not in filters or filters["publish"] in box.ports.values()
            return running and labelled and published

        return [
            {"Id": name, "Names": [f"/{name}"], "Image": box.image}
            for name, box in self.boxes.items()
            if fits(box)
        ]

    def inspect_container(self, name: str) -> dict[str, Any]:
        self._called("inspect_container", name)
        return self._box(name).inspected(name)

    @staticmethod
    def create_host_config(**options: Any) -> dict[str, Any]:
        return HostConfig(version="1.44", **options)

    def create_container(
        self,
        image: str,
        command: list[str] | None = None,
        *,
        name: str | None,
        host_config: dict[str, Any],
        labels: dict[str, str] | None = None,
        entrypoint: list[str] | None = None,
        **_: Any,
    ) -> dict[str, Any]:
        self._called("create_container", image)
        if image.removeprefix("sha256:") not in self.images:
            raise ImageNotFound(f"No such image: {image}")
        name = name or f"box{len(self.boxes)}"
        if name in self.boxes:
            raise APIError(f"Conflict. The container name {name} is already in use")
        for bind in host_config.get("Binds") or ():
            self.volumes_by_name.setdefault(bind.partition(":")[0], {})
        bindings = host_config.get("PortBindings") or {}
        self.boxes[name] = Box(
            labels=dict(labels or {}),
            state="created",
            image=image,
            networks={host_config["NetworkMode"].replace("default", "bridge")},
            ports={inner: outer[0]["HostPort"] for inner, outer in bindings.items()},
            command=[*(entrypoint or ()), *(command or ())],
        )
        return {"Id": name}

    def pull(
        self, repository: str, *, tag: str, stream: bool, decode: bool
    ) -> Iterator[dict[str, Any]]:
        assert stream
        assert decode
        self._called("pull", repository, tag)
        yield {"status": f"Pulling from {repository}"}
        if f"{repository}:{tag}" not in self.pullable:
            yield {"error": f"manifest for {repository}:{tag} not found"}
            return
        self.images.add(f"{repository}:{tag}")

    def start(self, name: str) -> None:
        self._called("start", name)
        box = self._box(name)
        others = (b for n, b in self.boxes.items() if n != name and b.state == "running")
        published = {port for other in others for port in other.ports.values()}
        if busy := set(box.ports.values()) & (self.taken | published):
            raise APIError(f"Bind for 127.0.0.1:{busy.pop()} failed: port is already allocated")
        box.state = "exited" if self.ends_at_once(box) else "running"

    def unpause(self, name: str) -> None:
        self._called("unpause", name)
        self._box(name).state = "running"

    def stop(self, name: str, *, timeout: int) -> None:
        self._called("stop", name, timeout)
        self._box(name).state = "exited"

    def remove_container(self, name: str, *, force: bool, v: bool) -> None:
        assert force
        assert v
        self._called("remove_container", name)
        self._box(name)
        del self.boxes[name]

    def connect_container_to_network(self, name: str, network: str) -> None:
        self._called("connect_container_to_network", name, network)
        self._box(name).networks.add(network)

    def logs(self, name: str, *, tail: int | str) -> bytes:
        self._called("logs", name)
        lines = self._box(name).log.splitlines(keepends=True)
        return "".join(lines if tail == "all" else lines[-int(tail) :]).encode()

    # inside a container

    def exec_create(self, name: str, argv: list[str]) -> dict[str, Any]:
        self._called("exec_create", name, *argv)
        box = self._box(name)
        if box.state != "running":
            raise APIError(f"Container {name} is not running")
        self._executed.append((box, argv, (0, "", "")))
        return {"Id": str(len(self._executed) - 1)}

    def exec_start(self, identity: str, *, demux: bool) -> tuple[bytes | None, bytes | None]:
        assert demux
        box, argv, _ = self._executed[int(identity)]
        if argv[0] == "rm":
            gone = tuple(f"{path}/" for path in argv[2:])
            box.files = {p: text for p, text in box.files.items() if not p.startswith(gone)}
            result = (0, "", "")
        else:
            result = self.programs[argv[0]](box, argv[1:])
        self._executed[int(identity)] = (box, argv, result)
        return result[1].encode() or None, result[2].encode() or None

    def exec_inspect(self, identity: str) -> dict[str, Any]:
        return {"ExitCode": self._executed[int(identity)][2][0]}

    def get_archive(self, name: str, path: str) -> tuple[Iterator[bytes], dict[str, Any]]:
        self._called("get_archive", name, path)
        parent = path.rpartition("/")[0]
        found = {
            place: text
            for place, text in self._box(name).files.items()
            if place == path or place.startswith(f"{path}/")
        }
        if not found:
            raise NotFound(f"Could not find the file {path} in container {name}")
        data = io.BytesIO()
        with tarfile.open(fileobj=data, mode="w") as archive:
            for place, text in found.items():
                member = tarfile.TarInfo(place.removeprefix(f"{parent}/"))
                member.size = len(text.encode())
                archive.addfile(member, io.BytesIO(text.encode()))
        return iter([data.getvalue()]), {}

    def put_archive(self, name: str, path: str, data: bytes) -> bool:
        assert path == "/"
        self._called("put_archive", name)
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            for member in archive:
                file = archive.extractfile(member)
                assert file is not None
                self._box(name).files[f"/{member.name}"] = file.read().decode()
        return True

    # volumes

    def create_volume(self, name: str, *, labels: dict[str, str]) -> None:
        self._called("create_volume", name)
        self.volumes_by_name.setdefault(name, dict(labels))

    def volumes(self, *, filters: dict[str, str]) -> dict[str, Any]:
        self._called("volumes", filters)
        key, _, value = filters["label"].partition("=")
        names = [n for n, labels in self.volumes_by_name.items() if labels.get(key) == value]
        return {"Volumes": [{"Name": name} for name in names] or None}

    def remove_volume(self, name: str) -> None:
        self._called("remove_volume", name)
        if name not in self.volumes_by_name:
            raise NotFound(f"get {name}: no such volume")
        del self.volumes_by_name[name]
