"""What a skaffold.yaml becomes where services have every key: charts, needs, hooks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from devloop.config.problems import Problems
from devloop.config.skaffold.source import read_skaffold
from devloop.config.skaffold.write import as_text

if TYPE_CHECKING:
    from tests.unit.config.conftest import Directory


def tree(directory: Directory, text: str, version: str = "v4beta11") -> tuple[str, list[str]]:
    """The devloop.yaml without its first line, and the warnings."""
    problems = Problems()
    found = read_skaffold(
        directory.path / "skaffold.yaml",
        "skaffold.yaml",
        f"apiVersion: skaffold/{version}\n{text}",
        show=str,
        env={"HOME": "/nowhere"},
        profiles=(),
        command="dev",
        context="kind",
        supports=lambda _: True,
        problems=problems,
    )
    assert found is not None, problems.sorted()
    warnings = [each.message for each in found.notes if each.severity == "warning"]
    return as_text(found.root, (), head="").removeprefix("version: 1\n"), warnings


KUSTOMIZE = """\
services:
  web:
    build: {context: .}
    deploy: {kustomize: [overlays/dev]}
"""


@pytest.mark.parametrize(
    ("version", "deploy"),
    [
        ("v1", "deploy: {kustomize: {path: overlays/dev}}"),
        ("v2beta29", "deploy: {kustomize: {paths: [overlays/dev]}}"),
        ("v4beta11", "manifests: {kustomize: {paths: [overlays/dev]}}"),
    ],
)
def test_a_kustomization_of_any_version(version: str, deploy: str, directory: Directory) -> None:
    text = f"build: {{artifacts: [{{image: web}}]}}\n{deploy}\n"
    assert tree(directory, text, version) == (KUSTOMIZE, [])


@pytest.mark.parametrize(
    ("version", "release", "values"),
    [
        ("v1", "values: {image: acme/web}", '{image: "acme/web:dev"}'),
        (
            "v2beta29",
            "artifactOverrides: {image: acme/web}, imageStrategy: {helm: {}}",
            "{image.repository: acme/web, image.tag: dev}",
        ),
        (
            "v4beta11",
            "setValueTemplates: {r: '{{.IMAGE_REPO}}', t: '{{.IMAGE_TAG}}@{{.IMAGE_DIGEST}}'}",
            "{r: acme/web, t: dev}",
        ),
        (
            "v4beta11",
            "setValues: {a: {b: [acme/web]}}",
            '{"a.b[0]": acme/web}',
        ),
        (
            "v4beta11",
            "setValueTemplates: {image: '{{.IMAGE_FULLY_QUALIFIED_acme_web}}'}",
            '{image: "acme/web:dev"}',
        ),
    ],
)
def test_a_chart_gets_the_image_by_its_name(
    version: str, release: str, values: str, directory: Directory
) -> None:
    text = f"""\
build: {{artifacts: [{{image: acme/web}}]}}
deploy:
  helm:
    releases:
      - {{name: shop, chartPath: chart, valuesFiles: [v.yaml], namespace: dev, {release}}}
"""
    found, warnings = tree(directory, text, version)
    assert warnings == []
    lines = [line.strip() for line in found.splitlines()]
    assert lines[lines.index("helm:") + 1 :] == [
        "chart: ./chart",
        "release: shop",
        "values: [v.yaml]",
        f"set: {values}",
        "namespace: dev",
    ]


def test_each_service_has_the_chart_that_runs_its_image(directory: Directory) -> None:
    text = """\
build: {artifacts: [{image: web}, {image: api, context: api}]}
manifests:
  helm:
    releases:
      - {name: back, chartPath: ops/back, setValues: {image: api}}
      - {name: front, chartPath: ops/front, setValues: {image: web}}
      - {name: db, remoteChart: oci://x/db, version: 1.2.3}
"""
    assert tree(directory, text) == (
        """\
services:
  web:
    build: {context: .}
    deploy:
      helm:
        - {chart: ops/front, release: front, set: {image: web}}
        - {chart: "oci://x/db", release: db, version: "1.2.3"}
  api:
    build: {context: api}
    deploy: {helm: {chart: ops/back, release: back, set: {image: api}}}
""",
        [],
    )


def test_an_image_that_others_are_built_from(directory: Directory) -> None:
    directory.write("k8s/web.yaml", "spec: {containers: [{image: acme/web}]}")
    directory.write("tool/Dockerfile", "ARG base\nFROM $base\n")
    text = """\
build:
  artifacts:
    - {image: acme/web, requires: [{image: acme/base, alias: BASE}]}
    - {image: tool, context: tool, requires: [{image: base}]}
    - {image: acme/base, context: ops}
    - {image: base, context: other}
    - {image: made, requires: [{image: acme/base, alias: B}], custom: {buildCommand: make}}
"""
    found, warnings = tree(directory, text)
    assert warnings == []
    assert (
        found.split("  made:")[0]
        == """\
services:
  web:
    image: acme/web
    build: {context: ., args: {BASE: acme-base}}
    needs: [acme-base]
    deploy: {manifests: [k8s/*.yaml]}
  tool:
    build: {context: tool, args: {base: base}}
    needs: [base]
    deploy: {manifests: [k8s/*.yaml]}
  acme-base:
    image: acme/base
    build: {context: ops}
  base:
    build: {context: other}
"""
    )
    assert 'export B="$$ACME_BASE_IMAGE"' in found


def test_hooks_run_where_and_when_they_did(directory: Directory) -> None:
    text = """\
build:
  hooks: {before: [{command: [echo, all]}]}
  artifacts:
    - image: web
      hooks:
        before: [{command: [make, gen], dir: ops}, {command: [never], os: [plan9]}]
        after: [{command: [sh, -c, echo $SKAFFOLD_IMAGE]}]
      sync:
        manual: [{src: a, dest: /a}]
        hooks: {after: [{container: {command: [kill, -HUP, "1"]}}]}
manifests: {hooks: {after: [{host: {command: [sed], withChange: true}}]}}
deploy:
  kubectl:
    hooks: {after: [{container: {command: [migrate], podName: web-*, containerName: app}}]}
test:
  - {image: web, context: t, custom: [{command: ./check.sh, timeoutSeconds: 60}]}
"""
    found, warnings = tree(directory, text)
    assert warnings == ["what the hook makes of the manifests is not applied"]
    steps = [line.strip() for line in found.splitlines()]
    names = ("before_build", "after_build", "after_sync", "before_deploy", "after_deploy")
    assert [line.partition(":")[0] for line in steps if line.startswith(names)] == list(names)
    assert 'after_sync: [{command: [kill, "-HUP", "1"], container: "true"}]' in steps
    assert "after_deploy: [{command: [migrate], container: app}]" in steps
    assert "{command: [echo, all]}" in found, "what needs nothing is as it was"
    assert 'cd ops || exit 1\\nexec \\"$$@\\"", sh, make, gen]' in found
    assert 'export SKAFFOLD_IMAGE=\\"$$DEVLOOP_IMAGE\\"\\nexec' in found


ROOT = """\
apiVersion: skaffold/v4beta11
requires: [{path: web}, {path: api}]
DEPLOY
"""
BUILD = """\
apiVersion: skaffold/v4beta11
build: {artifacts: [{image: NAME}]}
"""


@pytest.mark.parametrize(
    ("deploy", "web", "api"),
    [
        (
            "manifests: {rawYaml: [all/*.yaml]}",
            "deploy: {manifests: [all/*.yaml]}",
            "deploy: {manifests: [all/*.yaml]}",
        ),
        (
            """\
manifests:
  helm:
    releases:
      - {name: a, chartPath: ./a, setValues: {image: api}}
      - {name: b, chartPath: ./b, setValues: {i: web}}
      - {name: c, chartPath: ./c}
""",
            "deploy: {helm: [{chart: ./b, release: b, set: {i: web}}, {chart: ./c, release: c}]}",
            "deploy: {helm: {chart: ./a, release: a, set: {image: api}}}",
        ),
    ],
)
def test_what_one_document_builds_another_may_deploy(
    deploy: str, web: str, api: str, directory: Directory
) -> None:
    for name in ("web", "api"):
        directory.write(f"{name}/skaffold.yaml", BUILD.replace("NAME", name))
        directory.write(f"all/{name}.yaml", f"image: {name}:1")
    text = ROOT.replace("DEPLOY", deploy).partition("\n")[2]
    found, warnings = tree(directory, text)
    assert warnings == []
    assert found.splitlines()[1:] == [
        "  web:",
        "    build: {context: web}",
        f"    {web}",
        "  api:",
        "    build: {context: api}",
        f"    {api}",
    ]
