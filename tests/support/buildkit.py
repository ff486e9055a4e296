"""BuildKit in containers: an image of it made from the machine's own programs, and what a pod of it
needs to know. All of it is in the test cluster's registry, from one run to the next.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from devloop.base.cancel import Cancel
from devloop.registry.client import RegistryClient

if TYPE_CHECKING:
    from collections.abc import Mapping

_PROGRAMS = ("buildkitd", "buildctl", "runc")
_DOCKERFILE = """\
FROM scratch
COPY . /
WORKDIR /tmp
ENV PATH=/usr/bin
ENTRYPOINT ["buildkitd"]
"""
POD = """\
apiVersion: v1
kind: ConfigMap
metadata: {name: buildkitd}
data: {buildkitd.toml: TOML}
---
apiVersion: v1
kind: Pod
metadata: {name: buildkitd, labels: {app: buildkitd}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
    - name: buildkitd
      image: IMAGE
      args: [--addr=tcp://0.0.0.0:1234, --config=/config/buildkitd.toml, --oci-worker-binary=runc]
      securityContext: {privileged: true}
      readinessProbe: {tcpSocket: {port: 1234}, periodSeconds: 1}
      volumeMounts:
        - {name: config, mountPath: /config}
        - {name: data, mountPath: /var/lib/buildkit}
  volumes:
    - {name: config, configMap: {name: buildkitd}}
    - {name: data, emptyDir: {}}
---
apiVersion: v1
kind: Service
metadata: {name: buildkitd}
spec: {type: NodePort, selector: {app: buildkitd}, ports: [{port: 1234}]}
"""


def docker(*argv: str, check: bool = True, env: Mapping[str, str] | None = None) -> str:
    done = subprocess.run(
        ["docker", *argv],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, **(env or {})},
    )
    assert not check or done.returncode == 0, f"docker {argv}\n{done.stdout}{done.stderr}"
    return done.stdout.strip()


def toml(registry: str, inside: str) -> str:
    """The configuration of a BuildKit that knows the registry by the name it has `inside`."""
    return (
        f'[registry."{inside}"]\n  http = true\n[registry."{registry}"]\n  mirrors = ["{inside}"]\n'
    )


def pod(image: str, registry: str, inside: str) -> str:
    """The manifests of a BuildKit that listens at the port of a node."""
    return POD.replace("IMAGE", image).replace("TOML", json.dumps(toml(registry, inside)))


def image(registry: str) -> str:
    """The name of BuildKit's image in the registry; skips the test where it cannot be made."""
    found = [shutil.which(name) for name in _PROGRAMS]
    programs = [Path(path).resolve() for path in found if path]
    if len(programs) < len(_PROGRAMS):
        pytest.skip("no buildkitd: script/test builds it where Go is")
    states = [(str(path), path.stat().st_size) for path in programs]
    key = hashlib.sha256(repr((states, _DOCKERFILE)).encode()).hexdigest()[:12]
    name = f"{registry}/devloop-test/buildkit:{key}"
    if not _is_there(name):
        with tempfile.TemporaryDirectory() as directory:
            root = Path(directory)
            (root / "usr/bin").mkdir(parents=True)
            for program, path in zip(_PROGRAMS, programs, strict=True):
                shutil.copy(path, root / "usr/bin" / program)
            for library in _libraries(programs[-1]):
                place = root / library.lstrip("/")
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(library, place)
            (root / "Dockerfile").write_text(_DOCKERFILE)
            (root / ".dockerignore").write_text("Dockerfile\n.dockerignore\n")
            default = {"BUILDX_BUILDER": "default"}
            docker("build", "--quiet", f"--tag={name}", directory, env=default)
        docker("push", "--quiet", name)
    return name


def base(registry: str) -> str:
    """The base image of the tests, where every builder can pull it."""
    local = os.environ["DEVLOOP_TEST_BASE_IMAGE"]
    key = docker("image", "inspect", "--format={{.Id}}", local).rpartition(":")[2][:12]
    name = f"{registry}/devloop-test/base:{key}"
    if not _is_there(name):
        docker("tag", local, name)
        docker("push", "--quiet", name)
    return name


def _is_there(name: str) -> bool:
    repository, _, tag = name.rpartition(":")
    with RegistryClient(repository.partition("/")[0]) as client:
        return client.digest(repository, tag, Cancel()) is not None


def _libraries(program: Path) -> list[str]:
    done = subprocess.run(["ldd", program], capture_output=True, text=True, timeout=10, check=False)
    return re.findall(r"^\s*(?:\S+ => )?(/\S+) \(0x", done.stdout, re.MULTILINE)
