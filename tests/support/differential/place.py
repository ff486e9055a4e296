"""A registry of its own and the images that the random Dockerfiles start from."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import tarfile
import tempfile
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from devloop.errors import DevloopError
from devloop.registry.client import RegistryClient
from tests.support.differential.recipes import BASE_FILES, BASE_LINES, Bases
from tests.support.differential.reference import knows

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["make_bases", "registry"]

_SHELL = "busybox-base:dev"


@contextlib.contextmanager
def registry() -> Iterator[str]:
    """`localhost:PORT` of a fresh registry, which goes away with all that is in it."""
    image = os.environ["DEVLOOP_TEST_REGISTRY_IMAGE"]
    name = f"devloop-differential-{uuid.uuid4().hex[:8]}"
    _docker("run", "-d", "--rm", "--name", name, "-p", "127.0.0.1:0:5000", image)
    try:
        host = f"localhost:{_docker('port', name, '5000').rpartition(':')[2]}"
        deadline = time.monotonic() + 20
        with RegistryClient(host) as client:
            while True:
                try:
                    client.ping()
                    break
                except DevloopError:
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.1)
        yield host
    finally:
        _docker("rm", "-f", "-v", name)


def make_bases(host: str) -> Bases:
    """Build and push the bases; finds out what the builder knows."""
    bases = Bases(
        small=f"{host}/differential/base-small:1",
        shell=f"{host}/differential/base-shell:1",
        onbuild=f"{host}/differential/base-onbuild:1",
        flags=frozenset(
            flag.partition("=")[0] for flag in ("--parents", "--exclude=x") if knows(flag)
        ),
    )
    _docker("tag", _SHELL, bases.shell)
    _docker("push", "-q", bases.shell)
    with tempfile.TemporaryDirectory(prefix="devloop-differential-") as directory:
        (Path(directory) / "base.tar").write_bytes(_archive())
        lines = ["FROM scratch AS small", "ADD base.tar /", *BASE_LINES, "FROM small AS onbuild"]
        lines += ["ONBUILD ENV TRIGGERED=1", "ONBUILD COPY . /triggered/", ""]
        (Path(directory) / "Dockerfile").write_text("\n".join(lines))
        targets = {
            name: {
                "context": directory,
                "target": name,
                "output": [f"type=image,name={reference},push=true"],
                "attest": ["type=provenance,disabled=true"],
            }
            for name, reference in (("small", bases.small), ("onbuild", bases.onbuild))
        }
        file = Path(directory) / "bake.json"
        file.write_text(
            json.dumps({"group": {"default": {"targets": list(targets)}}, "target": targets})
        )
        _docker("buildx", "bake", f"--file={file}", "--progress=plain")
    return bases


def _archive() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path, kind, mode, uid, gid, rest in BASE_FILES:
            member = tarfile.TarInfo(path)
            member.mode, member.uid, member.gid = mode, uid, gid
            data = b""
            if kind == "dir":
                member.type = tarfile.DIRTYPE
            elif kind == "symlink":
                member.type, member.linkname = tarfile.SYMTYPE, rest
            else:
                data = rest.encode()
                member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def _docker(*arguments: str) -> str:
    done = subprocess.run(
        ["docker", *arguments], capture_output=True, text=True, timeout=120, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"docker {' '.join(arguments)}: {done.stderr[-2000:]}")
    return done.stdout.strip()
