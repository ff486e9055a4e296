"""The Kubernetes objects for a project that has none: a Deployment, and a Service where a port is
known. Text, for a person to go on from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devloop.base.lazy_dataclass import dataclass
from devloop.config.yaml_text import scalar

if TYPE_CHECKING:
    from devloop.app.starter.dockerfiles import FoundPort


@dataclass(frozen=True, slots=True, kw_only=True)
class NewObjects:
    """What the objects of one service are made from."""

    name: str
    image: str
    ports: tuple[FoundPort, ...] = ()


def manifest(new: NewObjects, *, command: str) -> str:
    """The text of the file; `command` is what wrote it."""
    name, image = scalar(new.name), scalar(new.image)
    ports = "".join(
        f"            - {{name: {_port_name(i, port)}, containerPort: {port.number}}}"
        f"  # {port.why}\n"
        for i, port in enumerate(new.ports)
    )
    return (
        f"# Written by `{command}`, for there were no manifests: change what you like.\n"
        f"{_DEPLOYMENT.format(name=name, image=image)}"
        + (f"          ports:\n{ports}{_PROBE}" if ports else "")
        + (_service(new) if ports else "")
    )


def _port_name(position: int, port: FoundPort) -> str:
    return "http" if position == 0 else f"port-{port.number}"


_DEPLOYMENT = """\
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {name}
spec:
  selector:
    matchLabels: {{app: {name}}}
  template:
    metadata:
      labels: {{app: {name}}}
    spec:
      containers:
        - name: {name}
          image: {image}
"""
_PROBE = """\
          # Ready is who takes connections.
          readinessProbe:
            tcpSocket: {port: http}
            periodSeconds: 1
            failureThreshold: 60
"""
_SERVICE = """\
---
apiVersion: v1
kind: Service
metadata:
  name: {name}
spec:
  selector: {{app: {name}}}
  ports:
"""


def _service(new: NewObjects) -> str:
    ports = "".join(
        f"    - {{name: {_port_name(i, port)}, port: {port.number}, "
        f"targetPort: {_port_name(i, port)}}}\n"
        for i, port in enumerate(new.ports)
    )
    return _SERVICE.format(name=scalar(new.name)) + ports
