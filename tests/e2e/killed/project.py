"""The project whose sessions are killed: three services, each replaced in another way, on disk and
in the cluster, and what the two must agree in.

`hot` goes hot, `place` in place, one pod after the other, and `roll`, which the user had before
devloop, is built by a builder and rolls.
"""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from tests.e2e.killed.app import tree

if TYPE_CHECKING:
    import random

_APP = Path(__file__).parent / "app.py"

SERVICES = ("hot", "place", "roll")
REPLICAS = {"hot": 2, "place": 2, "roll": 1}

_PROJECT = """
version: 1
name: killed
registry: ${DEVLOOP_TEST_REGISTRY}
services:
  hot:
    image: ${IMAGE}-hot
    build: {context: hot, args: {BASE: "${BASE}"}}
    deploy: {manifests: [hot.yaml], timeout: 90s}
  place:
    image: ${IMAGE}-place
    build: {context: place, args: {BASE: "${BASE}"}}
    deploy: {manifests: [place.yaml], timeout: 90s, replace: in-place}
  roll:
    image: ${IMAGE}-roll
    build: {context: roll, args: {BASE: "${BASE}"}}
    deploy: {manifests: [roll.yaml], timeout: 90s, replace: rolling, supervise: false}
"""

_MANIFEST = """---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {name}
  annotations: {{round: "0"}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
        - name: main
          image: {image}
          ports: [{{containerPort: 8080}}]
          readinessProbe:
            httpGet: {{path: /version, port: 8080}}
            periodSeconds: 1
            timeoutSeconds: 5
"""

_DOCKERFILE = 'ARG BASE\nFROM ${BASE}\nWORKDIR /app\nCOPY . .\nCMD ["python3", "app.py"]\n'


def manifest(name: str, image: str) -> str:
    return _MANIFEST.format(name=name, replicas=REPLICAS[name], image=image)


class Project:
    """The project on disk, edited the way editors do; everything in it is as the seed has it."""

    def __init__(self, root: Path, image: str) -> None:
        self.root = root
        self.versions = dict.fromkeys(SERVICES, "v0")
        self._numbers = itertools.count(1)
        for name in SERVICES:
            (root / name).mkdir(parents=True)
            shutil.copy(_APP, root / name / "app.py")
            (root / name / "data.txt").write_text("0")
            # In the context, as the image has it: what is in there is to be known exactly.
            (root / name / "Dockerfile").write_text(_DOCKERFILE)
            (root / f"{name}.yaml").write_text(manifest(name, f"{image}-{name}"))
        builder = _DOCKERFILE.replace("CMD", "RUN true\nCMD")
        (root / "roll" / "Dockerfile").write_text(builder)
        (root / "devloop.yaml").write_text(_PROJECT)

    def copy(self, root: Path) -> Project:
        """Another checkout of it, which no session knows."""
        shutil.copytree(self.root, root, ignore=shutil.ignore_patterns(".devloop"))
        other = object.__new__(Project)
        other.root = root
        other.versions = dict(self.versions)
        other._numbers = self._numbers
        return other

    def save(self, name: str, chance: random.Random) -> str:
        """One save of a service; what it was, in a word."""
        directory, number = self.root / name, next(self._numbers)
        what = chance.choice([*["code"] * 5, "added", "removed", "mode", "dockerfile", "manifest"])
        match what:
            case "code":
                self.version(name, f"v{number}")
            case "added":
                (directory / f"new{number}").mkdir()
                self._write(directory / f"new{number}" / "file.txt", f"{number}")
            case "removed":
                for made in directory.glob("new*"):
                    shutil.rmtree(made)
                self.version(name, f"v{number}")
            case "mode":
                self._write(directory / "data.txt", f"{number}")
                (directory / "data.txt").chmod(chance.choice([0o600, 0o644, 0o755, 0o640]))
            case "dockerfile":
                text = (directory / "Dockerfile").read_text().partition("LABEL")[0]
                self._write(directory / "Dockerfile", f"{text}LABEL number={number}\n")
            case "manifest":
                file = self.root / f"{name}.yaml"
                head, _, rest = file.read_text().partition('round: "')
                self._write(file, f'{head}round: "{number}"{rest.partition(chr(34))[2]}')
        return f"{what} of {name}"

    def version(self, name: str, version: str) -> None:
        file = self.root / name / "app.py"
        old = f'VERSION = "{self.versions[name]}"'
        text = file.read_text()
        assert old in text
        self._write(file, text.replace(old, f'VERSION = "{version}"'))
        self.versions[name] = version

    @staticmethod
    def _write(path: Path, text: str) -> None:
        temporary = path.with_name(f".{path.name}.tmp~")
        temporary.write_text(text)
        if path.exists():
            temporary.chmod(path.stat().st_mode & 0o7777)
        temporary.replace(path)

    def tree(self, name: str) -> dict[str, list[str]]:
        """As the app tells of its own files."""
        return tree(self.root / name)

    def open_entries(self) -> list[str]:
        """What the recovery log has."""
        return [str(path) for path in (self.root / ".devloop" / "recovery").glob("*/*/*.json")]
