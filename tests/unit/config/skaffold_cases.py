"""A skaffold.yaml of each shape, and the devloop.yaml that means the same."""
# ruff: noqa: E501 - a command is one line

from __future__ import annotations

from typing import NamedTuple


class Case(NamedTuple):
    """`files` are beside both; `version` is put before the text of skaffold.yaml."""

    name: str
    skaffold: str
    devloop: str
    files: dict[str, str] = {}  # noqa: RUF012 - never written to
    version: str = "v4beta11"


CASES = [
    Case(
        "the least, whose manifests are where Skaffold looks by itself",
        "build: {artifacts: [{image: hello}]}",
        "services: {hello: {build: ., deploy: {manifests: [k8s/*.yaml]}}}",
        {"k8s/app.yaml": "kind: Deployment"},
    ),
    Case(
        "without manifests the workload exists already",
        "build: {artifacts: [{image: hello}]}",
        "services: {hello: {build: .}}",
    ),
    Case(
        "a Dockerfile's options",
        """\
build:
  platforms: [arm64]
  artifacts:
    - image: ghcr.io/acme/web:ignored
      context: web
      docker:
        dockerfile: Dockerfile.dev
        target: dev
        buildArgs: {A: "1", B: 2, C: "$HOME", D: }
        secrets: [{id: pip, src: pip.conf}, {id: token, env: TOKEN}]
        ssh: default
        cliFlags: [--build-context=lib=../lib, --build-context, base=docker-image://alpine]
manifests: {rawYaml: [k8s/*.yaml, more/db.yaml]}
deploy: {kubectl: {defaultNamespace: dev}, statusCheckDeadlineSeconds: 90}
""",
        """\
namespace: dev
services:
  web:
    image: acme/web
    build:
      context: web
      dockerfile: Dockerfile.dev
      target: dev
      args: {A: "1", B: "2", C: "$$HOME", D: }
      secrets: ["id=pip,src=pip.conf", "id=token,env=TOKEN"]
      ssh: [default]
      contexts: {lib: ../lib, base: "docker-image://alpine"}
      platform: linux/arm64
    deploy: {manifests: [k8s/*.yaml, more/db.yaml], timeout: 90s}
""",
    ),
    Case(
        "a Dockerfile beside skaffold.yaml",
        "build: {artifacts: [{image: web, context: web, docker: {dockerfile: ops/Dockerfile}}]}",
        "services: {web: {build: {context: web, dockerfile: ../ops/Dockerfile}}}",
        {"ops/Dockerfile": "FROM scratch"},
    ),
    Case(
        "several artifacts deploy what runs their own image from the same manifests",
        """\
build: {artifacts: [{image: acme/shop/web, context: web}, {image: acme/shop/api, context: api}]}
manifests: {rawYaml: [all.yaml]}
""",
        """\
services:
  web: {image: acme/shop/web, build: web, deploy: {manifests: [all.yaml]}}
  api: {image: acme/shop/api, build: api, deploy: {manifests: [all.yaml]}}
""",
    ),
    Case(
        "images with one last name",
        "build: {artifacts: [{image: one/web, context: a}, {image: two/web, context: b}]}",
        """\
services: {one-web: {image: one/web, build: a}, two-web: {image: two/web, build: b}}
""",
    ),
    Case(
        "templates and skaffold.env",
        """\
build:
  artifacts:
    - image: web
      docker:
        buildArgs:
          A: "{{.TAG}}-{{ .REST | upper }}"
          B: '{{default "none" .UNSET}}'
          C: '{{ printf "%s/%s" .TAG (lower "X") }}'
""",
        "services: {web: {build: {args: {A: 7-X, B: none, C: 7/x}}}}",
        {"skaffold.env": "TAG=7\nREST=x\n"},
    ),
    Case(
        "manual sync",
        """\
build:
  artifacts:
    - image: web
      docker: {target: dev}
      sync:
        manual:
          - {src: "static/**", dest: /srv}
          - {src: "src/**/*.js", dest: .}
          - {src: "src/app/*.py", dest: lib, strip: src/}
          - {src: "**/*.css", dest: /css, strip: assets/}
          - {src: app.py, dest: .}
""",
        """\
services:
  web:
    build: {context: ., target: dev}
    sync:
      - {src: "static/**", dest: /srv/static}
      - {src: "src/**/*.js", dest: /app/src}
      - {src: "src/app/*.py", dest: /app/lib/app}
      - {src: "assets/**/*.css", dest: /css}
      - {src: "**/*.css", dest: /css}
      - {src: app.py, dest: /app}
""",
        {"Dockerfile": "FROM x as base\nWORKDIR /app\nFROM base AS dev\nFROM y\nWORKDIR /y\n"},
    ),
    Case(
        "inferred sync of everything",
        "build: {artifacts: [{image: web, sync: {infer: ['**/*']}}]}",
        "services: {web: {build: ., sync: auto}}",
    ),
    Case(
        "inferred sync of some files",
        "build: {artifacts: [{image: web, sync: {infer: ['src/**/*.js', '**/*.html', app.py]}}]}",
        """\
services:
  web:
    build: .
    sync:
      - {src: "src/**/*.js", dest: /app/src}
      - {src: "src/**/*.html", dest: /app/src}
      - {src: app.py, dest: /app}
""",
        {
            "Dockerfile": "FROM x\nWORKDIR /app\nCOPY --chown=1 src src/\nCOPY app.py x.py \\\n ./\n",
            "app.py": "",
            "x.py": "",
        },
    ),
    Case(
        "ports",
        """\
build: {artifacts: [{image: web}, {image: db, context: db}]}
portForward:
  - {resourceType: Service, resourceName: web, port: 80}
  - {resourceType: deployment, resourceName: db, port: 5432, localPort: 5433, address: 0.0.0.0}
  - {resourceType: service, resourceName: other, port: 8080}
""",
        """\
services:
  web: {build: ., ports: ["8080:service/web:80", "8081:service/other:8080"]}
  db: {build: db, ports: ["0.0.0.0:5433:deployment/db:5432"]}
""",
    ),
    Case(
        "a custom builder",
        """\
build:
  artifacts:
    - image: web
      context: web
      custom: {buildCommand: "./build.sh {{.TAG}}", dependencies: {paths: [src], ignore: [src/x]}}
""",
        """\
services:
  web:
    build:
      context: web
      builder: command
      command:
        - sh
        - -c
        - |-
          cd web || exit 1
          export IMAGE="$$DEVLOOP_IMAGE" IMAGE_REPO="$${DEVLOOP_IMAGE%:*}" IMAGE_TAG="$${DEVLOOP_IMAGE##*:}" PUSH_IMAGE=true BUILD_CONTEXT="$$PWD" PLATFORMS=''
          ./build.sh 7
      ignore: ["**", "!src", src/x]
""",
        {"skaffold.env": "TAG=7\n"},
    ),
    Case(
        "buildpacks",
        "build: {artifacts: [{image: w, buildpacks: {builder: b, env: [A=1], trustBuilder: true}}]}",
        """\
services:
  w:
    build:
      builder: command
      command:
        - sh
        - -c
        - >-
          pack build "$$DEVLOOP_IMAGE" --path . --builder b --env A=1 --trust-builder &&
          docker push "$$DEVLOOP_IMAGE"
""",
    ),
    Case(
        "jib with Maven",
        "build: {artifacts: [{image: web, jib: {args: [-Pdev]}}]}",
        """\
services:
  web:
    build:
      builder: command
      command:
        - sh
        - -c
        - >-
          ./mvnw -q -DskipTests=true -Pdev prepare-package jib:build
          -Djib.allowInsecureRegistries=true -Djib.to.image="$$DEVLOOP_IMAGE"
""",
        {"mvnw": ""},
    ),
    Case(
        "jib with Gradle",
        "build: {artifacts: [{image: web, jib: {project: app}}]}",
        """\
services:
  web:
    build:
      builder: command
      command:
        - sh
        - -c
        - gradle :app:jib -Djib.allowInsecureRegistries=true --image="$$DEVLOOP_IMAGE"
""",
        {"build.gradle": ""},
    ),
    Case(
        "ko",
        "build: {artifacts: [{image: web, ko: {main: cmd/web, env: [A=b c], ldflags: [-s, -w]}}]}",
        """\
services:
  web:
    build:
      builder: command
      command:
        - sh
        - -c
        - >-
          KO_DOCKER_REPO="$${DEVLOOP_IMAGE%:*}" A='b c' GOFLAGS=''"'"'-ldflags=-s -w'"'"''
          ko build --bare --insecure-registry --tags="$${DEVLOOP_IMAGE##*:}" ./cmd/web
""",
    ),
    Case(
        "kaniko's Dockerfile is built like any other",
        "build: {artifacts: [{image: w, kaniko: {dockerfile: D, target: t, cache: {}}}]}",
        "services: {w: {build: {dockerfile: D, target: t}}}",
    ),
    Case(
        "v2: manifests of kubectl",
        "build: {artifacts: [{image: web}]}\ndeploy: {kubectl: {manifests: [a.yaml]}}",
        "services: {web: {build: ., deploy: {manifests: [a.yaml]}}}",
        version="v2beta29",
    ),
    Case(
        "v1: the manifests that are meant by none",
        "build: {artifacts: [{image: web}]}\ndeploy: {kubectl: {}}",
        "services: {web: {build: ., deploy: {manifests: [k8s/*.yaml]}}}",
        {"k8s/a.yaml": ""},
        version="v1",
    ),
    Case(
        "v1beta9: sync as a mapping",
        "build: {artifacts: [{image: web, sync: {'js/***/*.js': /app, '*.py': /srv}}]}",
        """\
services:
  web:
    build: .
    sync: [{src: "js/**/*.js", dest: /app}, {src: "*.py", dest: /srv}]
""",
        version="v1beta9",
    ),
    Case(
        "v2beta12: one secret",
        "build: {artifacts: [{image: web, docker: {secret: {id: a, src: b}}}]}",
        "services: {web: {build: {secrets: ['id=a,src=b']}}}",
        version="v2beta12",
    ),
    Case(
        "a kustomization beside raw manifests",
        """\
build: {artifacts: [{image: web}]}
manifests: {rawYaml: [a.yaml], kustomize: {paths: [overlays/dev, more]}}
""",
        """\
services: {web: {build: ., deploy: {manifests: [a.yaml], kustomize: [overlays/dev, more]}}}
""",
    ),
    Case(
        "v2: a chart",
        """\
build: {artifacts: [{image: ghcr.io/acme/web}]}
deploy:
  helm:
    releases:
      - name: shop
        chartPath: chart
        valuesFiles: ["{{.STAGE}}.yaml"]
        artifactOverrides: {image: ghcr.io/acme/web}
        imageStrategy: {helm: {}}
        setValues: {replicas: 2, "a.b": x$y}
        skipTests: false
""",
        """\
services:
  web:
    image: acme/web
    build: .
    deploy:
      helm:
        chart: ./chart
        release: shop
        values: [dev.yaml]
        set: {replicas: "2", a.b: x$$y, image.repository: acme/web, image.tag: dev}
        skip_tests: false
""",
        {"skaffold.env": "STAGE=dev"},
        version="v2beta29",
    ),
]
