"""What a shape is, and the pieces that most have: an app, its Dockerfile, its manifests."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

APP = """\
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

VERSION = "v0"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        body = VERSION.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


ThreadingHTTPServer(("", 8080), Handler).serve_forever()
"""
DOCKERFILE = """\
FROM python-base:dev
WORKDIR /app
COPY app.py .
CMD ["python3", "app.py"]
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """A text in a file that becomes another one, and what the Service then answers at `path`: a
    text that has `served` in it."""

    file: str
    old: str = "v0"
    new: str = "v1"
    service: str = "web"
    path: str = "/"
    served: str = "v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """`files` are the project's, by path; those with a `#!` are programs. `first` maps each Service
    to what it answers once all are ready. `env` is for devloop, `needs` are programs or images
    that have to be there, `prepare` is a command that runs in the directory before (of the user's
    own: `npm install`)."""

    name: str
    files: Mapping[str, str]
    edits: tuple[Edit, ...] = (Edit(file="app.py"),)
    first: Mapping[str, str] = field(default_factory=lambda: {"web": "v0"})
    env: Mapping[str, str] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    prepare: tuple[str, ...] = ()

    def write(self, root: Path) -> None:
        """Make the project in a directory that is there."""
        for name, text in self.files.items():
            path = root / PurePosixPath(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            if text.startswith("#!"):
                path.chmod(0o755)


def skaffold(text: str, version: str = "v4beta13") -> str:
    """A skaffold.yaml of a version."""
    return f"apiVersion: skaffold/{version}\nkind: Config\n{text}"


def service(name: str) -> str:
    """The manifest of a Service for the pods of an app."""
    return f"""\
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec:
  selector: {{app: {name}}}
  ports: [{{port: 8080}}]
"""


def pod_spec(name: str, image: str, indent: int) -> str:
    """A pod's spec with one container that serves on 8080."""
    lines = f"""\
terminationGracePeriodSeconds: 1
containers:
  - name: {name}
    image: {image}
    ports: [{{containerPort: 8080}}]
    readinessProbe: {{httpGet: {{path: /, port: 8080}}, periodSeconds: 1}}
"""
    return "".join(f"{' ' * indent}{line}\n" for line in lines.splitlines())


def pod(name: str, image: str) -> str:
    """A bare Pod and its Service."""
    return (
        f"apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n  labels: {{app: {name}}}\nspec:\n"
        f"{pod_spec(name, image, 2)}---\n{service(name)}"
    )


def deployment(name: str, image: str) -> str:
    """A Deployment and its Service."""
    return (
        f"apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: {name}\n"
        f"  labels: {{app: {name}}}\nspec:\n  selector: {{matchLabels: {{app: {name}}}}}\n"
        f"  template:\n    metadata: {{labels: {{app: {name}}}}}\n    spec:\n"
        f"{pod_spec(name, image, 6)}---\n{service(name)}"
    )


def app_in(directory: str, name: str, image: str = "") -> dict[str, str]:
    """The files of a Python app in a directory of its own, with its Deployment."""
    return {
        f"{directory}/app.py": APP,
        f"{directory}/Dockerfile": DOCKERFILE,
        f"{directory}/k8s/deployment.yaml": deployment(name, image or name),
    }
