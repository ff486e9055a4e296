"""Shapes that differ in how an image is built, or a save gets into the container."""

from __future__ import annotations

from tests.support.skaffold_shapes.shape import (
    APP,
    DOCKERFILE,
    Edit,
    Shape,
    deployment,
    pod,
    skaffold,
)

# The app starts itself anew once its file is another one, as the reloaders of frameworks do.
_RELOADING = APP.replace(
    "ThreadingHTTPServer((",
    """\
import os
import sys
import threading
import time


def watch():
    began = os.stat(__file__).st_mtime_ns
    while os.stat(__file__).st_mtime_ns == began:
        time.sleep(0.1)
    os.execv(sys.executable, [sys.executable, *sys.argv])


threading.Thread(target=watch, daemon=True).start()
ThreadingHTTPServer((""",
)

IMAGES = (
    Shape(
        name="custom-builder",
        files={
            "skaffold.yaml": skaffold("""\
build:
  artifacts:
    - image: custom-made
      custom:
        buildCommand: sh build.sh
        dependencies:
          paths: [app.py, Dockerfile, build.sh]
manifests:
  rawYaml: [k8s/pod.yaml]
"""),
            "build.sh": """\
#!/bin/sh
set -eu
docker build -q -t "$IMAGE" "$BUILD_CONTEXT"
if $PUSH_IMAGE; then
  docker push -q "$IMAGE"
fi
""",
            "app.py": APP,
            "Dockerfile": DOCKERFILE,
            "README.md": "Not of the image.\n",
            "k8s/pod.yaml": pod("web", "custom-made"),
        },
        needs=("docker",),
    ),
    Shape(
        name="hot-reload",
        files={
            "skaffold.yaml": skaffold(
                """\
build:
  artifacts:
    - image: gcr.io/acme/reloading
      context: python
      sync:
        manual:
          - src: 'src/**/*.py'
            dest: .
            strip: src/
""",
                "v1beta16",
            ),
            "python/src/app.py": _RELOADING,
            "python/Dockerfile": DOCKERFILE.replace("COPY app.py .", "COPY src/ ."),
            "k8s/app.yaml": deployment("web", "gcr.io/acme/reloading"),
        },
        edits=(Edit(file="python/src/app.py"),),
    ),
    Shape(
        name="lifecycle-hooks",
        files={
            "skaffold.yaml": skaffold("""\
manifests:
  rawYaml: [k8s.yaml]
  hooks:
    before:
      - host: {command: ["sh", "-c", "echo pre-render >> steps.log"]}
    after:
      - host: {command: ["sh", "-c", "echo post-render >> steps.log"]}
build:
  hooks:
    before:
      - command: ["sh", "-c", "echo pre-build-all >> steps.log"]
  artifacts:
    - image: hooked
      hooks:
        before:
          - command: ["sh", "-c", "./hook.sh"]
            os: [darwin, linux]
            dir: .
          - command: ["cmd.exe", "/C", "hook.bat"]
            os: [windows]
            dir: .
        after:
          - command: ["sh", "-c", "echo built $SKAFFOLD_IMAGE >> steps.log"]
            os: [darwin, linux]
      sync:
        manual:
          - {src: hello.txt, dest: .}
        hooks:
          before:
            - host:
                command: ["sh", "-c", "echo files $SKAFFOLD_FILES_ADDED_OR_MODIFIED >> steps.log"]
          after:
            - container:
                command: ["sh", "-c", "cp hello.txt seen.txt"]
deploy:
  kubectl:
    hooks:
      before:
        - host: {command: ["sh", "-c", "echo pre-deploy >> steps.log"]}
      after:
        - host: {command: ["sh", "-c", "echo post-deploy >> steps.log"]}
        - container:
            command: ["sh", "-c", "echo deployed > deployed.txt"]
            containerName: web*
            podName: web*
"""),
            "hook.sh": "#!/bin/sh\necho hook.sh >> steps.log\n",
            ".dockerignore": "*\n!app.py\n!hello.txt\n",
            "hello.txt": "v0",
            "app.py": APP.replace(
                "VERSION.encode()",
                '(VERSION if self.path == "/" else open(self.path[1:]).read()).encode()',
            ),
            "Dockerfile": DOCKERFILE.replace("COPY app.py .", "COPY . ."),
            "k8s.yaml": deployment("web", "hooked"),
        },
        edits=(
            Edit(file="hello.txt", path="/seen.txt"),
            Edit(file="app.py"),
        ),
        env={"DEVLOOP_TRUST": "1"},
    ),
    Shape(
        name="artifact-dependencies",
        files={
            "skaffold.yaml": skaffold("""\
build:
  artifacts:
    - image: dep-app
      context: app
      requires:
        - image: dep-base
          alias: BASE
    - image: dep-base
      context: base
  tagPolicy:
    inputDigest: {}
manifests:
  rawYaml:
    - app/k8s-pod.yaml
"""),
            "base/Dockerfile": "FROM python-base:dev\nWORKDIR /app\nCOPY version.py .\n",
            "base/version.py": 'VERSION = "v0"\n',
            "app/app.py": APP.replace('VERSION = "v0"', "from version import VERSION"),
            "app/Dockerfile": 'ARG BASE\nFROM $BASE\nCOPY app.py .\nCMD ["python3", "app.py"]\n',
            "app/k8s-pod.yaml": pod("web", "dep-app"),
        },
        edits=(
            Edit(file="base/version.py"),
            Edit(file="app/app.py", old="VERSION.encode()", new="b'v2'", served="v2"),
        ),
    ),
)
