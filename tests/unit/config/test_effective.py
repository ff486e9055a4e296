"""The configuration as it holds: the text of `devloop config` and its sources."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from devloop.config.effective import as_yaml, effective
from devloop.config.loader import load_project

if TYPE_CHECKING:
    from tests.unit.config.conftest import Directory

WHOLE = """\
version: 1
name: shop
registry: localhost:5001/team
allow_contexts: [team-dev]
env_file: .env
services:
  web:
    image: shop/web
    build:
      context: web
      target: "${STAGE:-dev}"
      args: {PYTHON: "3.13", TOKEN: "${TOKEN}", COST: "5$$", HOME:, NOT_SET:}
      secrets: [id=pip,src=pip.conf]
      ignore: ["*.md", "yes"]
    deploy:
      workload: statefulset/web
      manifests: [k8s/*.yaml, "more/[a].yaml"]
      timeout: 90
      on_failure: rollback
    sync:
      - {src: "templates/**", dest: /app/templates}
    ports: [8080, "9000:http"]
  job:
    build: job
    deploy: {workload: [job/a, job/b]}
  made:
    build: {builder: command, command: [sh, -c, "echo $HOME"]}
    logs: {containers: [app]}
"""


@pytest.mark.parametrize("sources", [False, True])
@pytest.mark.parametrize(
    "text",
    [
        WHOLE,
        "version: 1\nservices: {web: {build: .}}\n",
        "version: 1\nservices: {w: {build: {cache: auto}, sync: auto}}\n",
        (
            "version: 1\nservices: {w: {build: ., deploy: {kustomize: k8s, "
            "helm: {chart: ./a, values: v.yaml, set: {b.c: '1,2', d: true}, skip_tests: false}}}}\n"
        ),
        (
            "version: 1\nenv_file: .env\nservices: {w: {build: ., deploy: {helm: "
            "[{chart: ./a, set: {b: '${TOKEN}', c: x$$y}}, {chart: b/c, mode: release}]}}}\n"
        ),
    ],
)
def test_what_it_prints_means_the_same(directory: Directory, text: str, sources: bool) -> None:
    directory.write(".env", "TOKEN=secret\n")
    directory.env["HOME"] = "/home/me"
    first = directory.load(text)
    printed = as_yaml(effective(first, directory.env, {}), sources=sources)
    second = directory.load(printed)

    def without_lines(loaded: object) -> object:
        project = second.project if loaded is second else first.project
        services = {name: replace(each, line=1) for name, each in project.services.items()}
        return replace(project, services=services)

    assert without_lines(second) == without_lines(first)


def test_what_variables_hold_is_not_shown(directory: Directory) -> None:
    directory.write(".env", "TOKEN=secret-of-file\n")
    directory.env |= {"STAGE": "secret-of-environment", "HOME": "/secret-home"}
    settings = effective(directory.load(WHOLE), directory.env, {})
    printed = as_yaml(settings, sources=True)
    assert "secret-" not in printed + repr(settings)
    sources = {".".join(each.path): each.source for each in settings}
    web = "services.web.build"
    assert sources[f"{web}.target"] == "devloop.yaml:11:7, ${STAGE} from the environment"
    assert sources[f"{web}.args.TOKEN"] == "devloop.yaml:12:30, ${TOKEN} from .env"
    assert sources[f"{web}.args.HOME"] == "devloop.yaml:12:62, ${HOME} from the environment"
    assert sources[f"{web}.args.NOT_SET"] == "devloop.yaml:12:69, not set: left out"


def test_each_value_has_its_source(directory: Directory) -> None:
    user = directory.write("user/config.yaml", "allow_contexts: [mine]\ncontext: kind-mine\n")
    directory.env["DEVLOOP_NAMESPACE"] = "blue"
    loaded = directory.load(
        "version: 1\nservices:\n  web:\n    build: .\n",
        user_config=user,
        registry="localhost:5001",
        sets=["services.web.ports=[8080]"],
    )
    settings = effective(loaded, directory.env, {"context": ("other", "the kubeconfig")})
    found = {".".join(each.path): (each.value, each.source) for each in settings}
    assert found["registry"] == ("localhost:5001", "--registry")
    assert found["namespace"] == ("blue", "DEVLOOP_NAMESPACE")
    assert found["allow_contexts"] == (["mine"], f"{user}:1:1")
    assert found["context"] == ("kind-mine", f"{user}:2:1")
    assert found["services.web.ports"] == ([8080], "--set")
    assert found["services.web.build.context"] == (".", "devloop.yaml:4:5")
    assert found["services.web.build.dockerfile"] == ("Dockerfile", "default")
    assert found["services.web.logs.containers"] == (["*"], "default")
    assert found["name"] == ("shop", "default")
    assert load_project(cwd=directory.path, env={}).project.namespace is None


def test_what_nobody_gave_is_a_comment(directory: Directory) -> None:
    loaded = directory.load("version: 1\nservices:\n  web:\n    build: .\n")
    known = {"namespace": ("default", "the context kind-a")}
    settings = effective(loaded, {}, known)
    assert "namespace" not in as_yaml(settings, sources=False)
    lines = as_yaml(settings, sources=True).splitlines()
    assert "# namespace: default                      # the context kind-a" in lines
    assert "      # target:                           # default: the last stage" in lines
