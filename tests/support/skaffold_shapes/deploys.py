"""Shapes that differ in what is deployed: manifests, modules, kustomize, Helm, profiles."""

from __future__ import annotations

from tests.support.skaffold_shapes.shape import (
    APP,
    DOCKERFILE,
    Edit,
    Shape,
    app_in,
    deployment,
    pod,
    skaffold,
)

TWO = (Edit(file="back/app.py", service="back"), Edit(file="front/app.py", service="front"))
BOTH = {"front": "v0", "back": "v0"}

_CHART = """\
apiVersion: v2
name: shop
version: 0.1.0
dependencies:
  - {name: store, version: 0.1.0}
"""
_TEMPLATE = (
    deployment("NAME", "{{ .Values.image }}")
    .replace("name: NAME", "name: {{ .Chart.Name }}")
    .replace("app: NAME", "app: {{ .Chart.Name }}")
)

DEPLOYS = (
    Shape(
        name="getting-started",
        files={
            "skaffold.yaml": skaffold("""\
build:
  artifacts:
    - image: first-steps
manifests:
  rawYaml:
    - k8s-pod.yaml
"""),
            "app.py": APP,
            "Dockerfile": DOCKERFILE,
            "k8s-pod.yaml": pod("web", "first-steps"),
        },
    ),
    Shape(
        name="microservices",
        files={
            "skaffold.yaml": skaffold("""\
build:
  artifacts:
    - image: shop-front
      context: front
      requires:
        - {image: shop-common, alias: BASE}
    - image: shop-back
      context: back
      requires:
        - {image: shop-common, alias: BASE}
    - image: shop-common
      context: common
manifests:
  rawYaml:
    - front/k8s/*
    - back/k8s/*
portForward:
  - {resourceType: deployment, resourceName: front, port: 8080, localPort: 19731}
"""),
            "common/Dockerfile": "FROM python-base:dev\nWORKDIR /app\n",
            **app_in("front", "front", "shop-front"),
            **app_in("back", "back", "shop-back"),
            "front/Dockerfile": 'ARG BASE\nFROM $BASE\nCOPY app.py .\nCMD ["python3", "app.py"]\n',
            "back/Dockerfile": 'ARG BASE\nFROM $BASE\nCOPY app.py .\nCMD ["python3", "app.py"]\n',
        },
        first=BOTH,
        edits=TWO,
    ),
    Shape(
        name="multi-config",
        files={
            "skaffold.yaml": skaffold(
                "requires:\n  - path: ./back\n  - path: ./front\n", "v4beta6"
            ),
            "front/skaffold.yaml": skaffold(
                """\
metadata: {name: front-config}
requires:
  - path: ../back
    configs: [back-config]
build:
  artifacts:
    - image: acme-front
manifests:
  rawYaml: [k8s/*]
portForward:
  - {resourceType: deployment, resourceName: front, port: 8080, localPort: 19732}
""",
                "v4beta6",
            ),
            "back/skaffold.yaml": skaffold(
                """\
metadata: {name: back-config}
build:
  artifacts:
    - image: acme-back
manifests:
  rawYaml: [k8s/*]
""",
                "v2beta29",
            ).replace("manifests:\n  rawYaml: [k8s/*]", "deploy: {kubectl: {manifests: [k8s/*]}}"),
            **app_in("front", "front", "acme-front"),
            **app_in("back", "back", "acme-back"),
        },
        first=BOTH,
        edits=TWO,
    ),
    Shape(
        name="kustomize",
        files={
            "skaffold.yaml": skaffold("""\
build:
  artifacts:
    - image: kustom
manifests:
  kustomize:
    paths: [overlays/dev]
"""),
            "app.py": APP,
            "Dockerfile": DOCKERFILE,
            "base/kustomization.yaml": "resources: [deployment.yaml]\n",
            "base/deployment.yaml": deployment("web", "kustom"),
            "overlays/dev/kustomization.yaml": """\
resources: [../../base]
patches:
  - patch: |-
      - {op: add, path: /spec/template/metadata/annotations, value: {stage: dev}}
    target: {kind: Deployment}
""",
        },
    ),
    Shape(
        name="helm-dependencies",
        files={
            "skaffold.yaml": skaffold(
                """\
build:
  tagPolicy:
    sha256: {}
  artifacts:
    - image: helmed
deploy:
  helm:
    releases:
      - name: shop
        chartPath: shop
        skipBuildDependencies: true
        artifactOverrides:
          image: helmed
          store:
            image: helmed
""",
                "v2beta23",
            ),
            "app.py": APP,
            "Dockerfile": DOCKERFILE,
            "shop/Chart.yaml": _CHART,
            "shop/values.yaml": "image: nothing\n",
            "shop/templates/app.yaml": _TEMPLATE,
            "shop/charts/store/Chart.yaml": "apiVersion: v2\nname: store\nversion: 0.1.0\n",
            "shop/charts/store/values.yaml": "image: nothing\n",
            "shop/charts/store/templates/app.yaml": _TEMPLATE,
        },
        first={"shop": "v0", "store": "v0"},
        edits=(Edit(file="app.py", service="store"),),
        needs=("helm",),
    ),
    Shape(
        name="profile-patches",
        files={
            "skaffold.yaml": skaffold("""\
build:
  artifacts:
    - image: prof-front
      context: front
manifests:
  rawYaml:
    - 'front/k8s/*.yaml'
profiles:
  - name: back
    activation:
      - env: WITH_BACK=yes
    patches:
      - op: add
        path: /build/artifacts/1
        value:
          image: prof-back
          context: back
      - op: add
        path: /manifests/rawYaml/1
        value: 'back/k8s/*.yaml'
"""),
            **app_in("front", "front", "prof-front"),
            **app_in("back", "back", "prof-back"),
        },
        first=BOTH,
        edits=TWO,
        env={"WITH_BACK": "yes"},
    ),
    Shape(
        name="templated-fields",
        files={
            "skaffold.yaml": skaffold("""\
metadata:
  name: my-app
build:
  artifacts:
    - image: templated
      custom:
        buildCommand: "./build.sh"
        dependencies:
          paths:
            - "Dockerfile"
            - "**.py"
deploy:
  helm:
    releases:
      - name: templated
        chartPath: charts
        setValues:
          image: templated
        setValueTemplates:
          imageRepo: "{{.IMAGE_REPO}}"
          imageTag: "{{.IMAGE_TAG}}"
"""),
            "build.sh": '#!/bin/sh\nset -e\ndocker build -q -t "$IMAGE" .\n'
            'if [ "$PUSH_IMAGE" = true ]; then docker push -q "$IMAGE"; fi\n',
            "app.py": APP,
            "Dockerfile": DOCKERFILE,
            "charts/Chart.yaml": "apiVersion: v2\nname: web\nversion: 0.1.0\n",
            "charts/values.yaml": "image: nothing\n",
            "charts/templates/app.yaml": _TEMPLATE.replace(
                "{{ .Values.image }}", '"{{ .Values.imageRepo }}:{{ .Values.imageTag }}"'
            ),
        },
        needs=("helm", "docker"),
    ),
    Shape(
        name="environment",
        files={
            "skaffold.yaml": skaffold("""\
build:
  tagPolicy:
    envTemplate:
      template: "{{.FOO}}"
  artifacts:
    - image: env-app
      docker:
        buildArgs:
          GREETING: "{{.GREETING}}"
manifests:
  rawYaml: [k8s-pod.yaml]
"""),
            "skaffold.env": "FOO=one\nGREETING=hello\n",
            "app.py": APP.replace('VERSION = "v0"', 'import os\n\nVERSION = "v0"').replace(
                "VERSION.encode()", "(VERSION + os.environ['GREETING']).encode()"
            ),
            "Dockerfile": DOCKERFILE.replace("CMD", "ARG GREETING\nENV GREETING=${GREETING}\nCMD"),
            "k8s-pod.yaml": pod("web", "env-app"),
        },
        first={"web": "v0hello"},
        edits=(
            Edit(file="app.py", served="v1hello"),
            Edit(file="skaffold.env", old="hello", new="bye", served="v1bye"),
        ),
    ),
)
