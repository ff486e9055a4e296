"""Failures of a project as devloop prints them with `--output lines`, and where each is.

`recorded/NAME.txt` is what an editor's task prints. Configuration, Dockerfiles and manifests fail
in real commands here; a build and a crash are what builders and runtimes wrote, diagnosed and
formatted by the real thing.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from devloop import __version__
from devloop.app.project_paths import project_paths
from devloop.base.cancel import Cancel
from devloop.builders.build_errors import BuildFailure, BuildLocation, diagnose
from devloop.builders.dockerfile import load
from devloop.builders.rawjson import Solve
from devloop.cli.main import main
from devloop.cluster.rollout.diagnose import Finding, with_log
from devloop.config.builds import Build
from devloop.errors import Code, Diagnosis
from devloop.events import (
    DiagnosticRaised,
    IterationFinished,
    IterationStarted,
    Record,
    SessionStarted,
    Trigger,
)
from devloop.model import Outcome, Step
from devloop.ui.lines import LineFormatter
from devloop.watch.source import ServiceSource
from tests.support.cluster_objects import service_config
from tests.unit.builders.kit import recorded

if TYPE_CHECKING:
    import pytest

RECORDED = Path(__file__).parent / "recorded"

Place = tuple[str, int, int, str, str]
"""File, line, column, severity and code of a problem."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A project's files, what to run in it, and the problems to be found. `build` is a recorded
    output of buildx, `crash` a container's log; without either, `command` is run."""

    places: tuple[Place, ...]
    files: dict[str, str] = field(default_factory=dict)
    command: tuple[str, ...] = ("run", "--output", "lines")
    build: str = ""
    crash: str = ""


_CHECK = ("check",)
_PLAIN = "version: 1\nservices:\n  web:\n    build: .\n"
_DEPLOYED = _PLAIN + "    deploy:\n      manifests: [k8s/*.yaml]\n"
_MANIFEST = """\
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
        - name: web
          image: web
"""


def _config(text: str, *places: Place, **files: str) -> Failure:
    return Failure(places=places, files={"devloop.yaml": text, **files})


def _dockerfile(text: str, *places: Place, **files: str) -> Failure:
    all_files = {"devloop.yaml": _PLAIN, "Dockerfile": text, **files}
    return Failure(places=places, files=all_files, command=_CHECK)


def _manifest(text: str, *places: Place) -> Failure:
    files = {"devloop.yaml": _DEPLOYED, "Dockerfile": "FROM scratch\n", "k8s/web.yaml": text}
    return Failure(places=places, files=files, command=_CHECK)


def _build(name: str, dockerfile: str, line: int, code: str) -> Failure:
    place = ("Dockerfile", line, 1, "error", code)
    return Failure(places=(place,), files={"Dockerfile": dockerfile}, build=name)


def _crash(log: str, source: str, line: int, column: int = 1, copied: str = "/app/") -> Failure:
    files = {"Dockerfile": f"FROM x\nWORKDIR /app\nCOPY . {copied}\n", source: "\n" * line}
    return Failure(
        places=((source, line, column, "error", "pod/crash-loop"),), files=files, crash=log
    )


FAILURES = {
    "config-unknown-key": _config(
        "version: 1\nservices:\n  web:\n    biuld: .\n",
        ("devloop.yaml", 4, 5, "error", "config/unknown-key"),
    ),
    "config-several": _config(
        "version: 1\nservices:\n  web:\n    build: .\n    ports: [0, 99999]\n    deploi: {}\n",
        ("devloop.yaml", 5, 13, "error", "config/value"),
        ("devloop.yaml", 5, 16, "error", "config/value"),
        ("devloop.yaml", 6, 5, "error", "config/unknown-key"),
    ),
    "config-type": _config(
        "version: 1\nservices:\n  web:\n    build: [1]\n",
        ("devloop.yaml", 4, 12, "error", "config/type"),
    ),
    "config-syntax": _config(
        "version: 1\nservices:\n\tweb: 1\n", ("devloop.yaml", 3, 1, "error", "config/parse")
    ),
    "config-duplicate": _config(
        "version: 1\nservices:\n  web:\n    build: .\n    build: api\n",
        ("devloop.yaml", 5, 5, "error", "config/duplicate-key"),
    ),
    "config-variable": _config(
        "version: 1\nregistry: ${NOBODY_SETS_THIS}\nservices: {web: {build: .}}\n",
        ("devloop.yaml", 2, 11, "error", "config/variable"),
    ),
    "config-version": _config("version: 9\n", ("devloop.yaml", 1, 10, "error", "config/version")),
    "config-no-dockerfile": _config(
        _PLAIN, ("devloop.yaml", 4, 5, "error", "config/dockerfile-missing")
    ),
    "config-no-manifest": _config(
        _DEPLOYED,
        ("devloop.yaml", 6, 19, "error", "config/manifest-missing"),
        Dockerfile="FROM scratch\n",
    ),
    "dockerfile-instruction": _dockerfile(
        "FROM scratch\nCOPY . .\nRUM make\n",
        ("Dockerfile", 3, 1, "error", "build/dockerfile-parse"),
    ),
    "dockerfile-empty": _dockerfile(
        "# nothing\n", ("Dockerfile", 1, 1, "error", "build/dockerfile-parse")
    ),
    "dockerfile-no-from": _dockerfile(
        "COPY . .\n", ("Dockerfile", 1, 1, "error", "build/dockerfile-parse")
    ),
    "manifest-syntax": _manifest(
        _MANIFEST.replace("name: web\nspec", "name: [web\nspec"),
        ("k8s/web.yaml", 4, 9, "error", "config/manifest"),
    ),
    "manifest-kind": _manifest(
        "apiVersion: v1\nmetadata: {name: web}\n",
        ("k8s/web.yaml", 1, 1, "error", "config/manifest"),
    ),
    "manifest-image": _manifest(
        _MANIFEST.replace("image: web", "image: nginx"),
        ("k8s/web.yaml", 12, 18, "error", "config/image-not-used"),
    ),
    "build-run": _build(
        "run",
        "FROM busybox-base:dev\nARG N=3\nRUN echo start; \\\n  # comment\n"
        "  echo bad >&2; exit ${N}\n",
        3,
        "build/run-failed",
    ),
    "build-copy": _build(
        "copy", "FROM busybox-base:dev\nCOPY requirement.txt /x\n", 2, "build/copy-missing"
    ),
    "build-parse": _build(
        "parse", "FROM busybox-base:dev\nRUNN echo x\n", 2, "build/dockerfile-parse"
    ),
    "build-base": _build(
        "base", "FROM nosuch.invalid/python:nope\nRUN x\n", 1, "build/base-pull-failed"
    ),
    "build-heredoc": _build(
        "heredoc",
        "FROM busybox-base:dev\nRUN <<EOF\necho in heredoc\nexit 4\nEOF\n",
        2,
        "build/run-failed",
    ),
    "crash-python": _crash(
        "Traceback (most recent call last):\n"
        '  File "/app/app.py", line 6, in <module>\n    load("x")\n'
        '  File "/app/shop/load.py", line 2, in load\n    return json.loads(text)\n'
        '  File "/usr/local/lib/python3.11/json/__init__.py", line 346, in loads\n'
        "json.decoder.JSONDecodeError: Expecting value: line 1 column 1 (char 0)\n",
        "shop/load.py",
        2,
    ),
    "crash-node": _crash(
        '/srv/server.js:2\n  throw new Error("boom");\n  ^\n\nError: boom\n'
        "    at f (/srv/server.js:2:9)\n    at Array.forEach (<anonymous>)\n"
        "    at node:internal/main/run_main_module:28:49\n",
        "server.js",
        2,
        9,
        "/srv/",
    ),
    "crash-go": _crash(
        "panic: runtime error: index out of range [3] with length 1\n\ngoroutine 1 [running]:\n"
        "main.main()\n\t/app/cmd/main.go:5 +0x1d\nexit status 2\n",
        "cmd/main.go",
        5,
    ),
    "crash-ruby": _crash(
        "/app/lib/shop.rb:3:in `price': undefined method `+' for nil:NilClass (NoMethodError)\n"
        "\tfrom /app/app.rb:7:in `<main>'\n",
        "lib/shop.rb",
        3,
    ),
    "crash-java": _crash(
        'Exception in thread "main" java.lang.IllegalStateException: no port\n'
        "\tat com.example.Shop.open(Shop.java:12)\n\tat com.example.Main.main(Main.java:4)\n",
        "src/main/java/com/example/Shop.java",
        12,
    ),
    "crash-php": _crash(
        "PHP Fatal error:  Uncaught TypeError: f(): Argument #1 ($x) must be of type int in "
        "/app/index.php:4\nStack trace:\n#0 /app/index.php(7): f('a')\n#1 {main}\n"
        "  thrown in /app/index.php on line 4\n",
        "index.php",
        4,
    ),
}


def lay_out(directory: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(text)


def output_of(failure: Failure, directory: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """What is printed in `directory`, which has the failure's files and is the working one."""
    if failure.build:
        return _iteration(_of_build(failure.build, directory), Step.BUILD, directory)
    if failure.crash:
        return _iteration(_of_crash(failure.crash, directory), Step.ROLLOUT, directory)
    capsys.readouterr()
    interval = sys.getswitchinterval()
    assert main(failure.command) == 2
    sys.setswitchinterval(interval)
    out, err = capsys.readouterr()
    assert err == ""
    return out.replace(f"devloop: {__version__} ", "devloop: 0.1.0 ")


def _of_build(name: str, directory: Path) -> Diagnosis:
    solve = Solve()
    for line in recorded(f"buildx-{name}"):
        solve.feed(line)
    failed = solve.failed
    failure = BuildFailure(
        vertex=failed.name if failed else "",
        error=failed.error if failed else "",
        text="\n".join(solve.text),
        log=solve.tail(failed, 20) if failed else (),
    )
    place = BuildLocation(
        shown="Dockerfile",
        dockerfile=load(directory / "Dockerfile", "Dockerfile"),
        context=directory,
        names=(),
        repository="localhost:5001/web",
    )
    return diagnose(failure, place)


def _of_crash(log: str, directory: Path) -> Diagnosis:
    service = service_config(directory)
    source = ServiceSource(service, directory)
    source.scan(None, Cancel())
    finding = Finding(
        diagnosis=Diagnosis(
            code=Code.POD_CRASH_LOOP,
            message="container web of pod web-6c9d-x2x7 exited with code 1, again and again",
            cause="the program ended with an error",
        ),
        grace=0,
        pod="web-6c9d-x2x7",
        container="web",
    )
    build = Build(context=directory, dockerfile=directory / "Dockerfile")
    return with_log(finding, log.splitlines(), project_paths(build, source.last_snapshot))


def _iteration(diagnosis: Diagnosis, step: Step, directory: Path) -> str:
    events = (
        SessionStarted(
            version="0.1.0",
            mode="dev",
            project="shop",
            root=os.fspath(directory),
            context="kind-dev",
            namespace="default",
            registry="localhost:5001",
            services=("web",),
            pid=7,
        ),
        IterationStarted(iter=1, service="web", trigger=Trigger(kind="start")),
        DiagnosticRaised.of(diagnosis, iter=1, service="web", step=step),
        IterationFinished(
            iter=1,
            service="web",
            outcome=Outcome.FAILED,
            ms=3100,
            digest=None,
            serving=None,
            why=diagnosis.message,
            failed_step=step,
        ),
    )
    formatter = LineFormatter()
    records = (Record(n, "2026-11-23T14:31:07.112Z", event) for n, event in enumerate(events, 1))
    return "".join(f"{line}\n" for record in records for line in formatter.format(record))
