"""A skaffold.yaml is read as if it were the devloop.yaml that does the same; what is otherwise is
said at its place."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from devloop.app.starter.convert import converted
from devloop.app.starter.start import Flags
from devloop.config.skaffold.keys import KEYS
from devloop.errors import Code
from tests.unit.config.skaffold_cases import CASES, Case

if TYPE_CHECKING:
    from devloop.config.loader import LoadedProject
    from devloop.config.schema import Project
    from tests.unit.config.conftest import Directory


def same(project: Project) -> Project:
    """Without what says where it is written."""
    services = {name: replace(each, line=1) for name, each in project.services.items()}
    return replace(project, file=Path(), services=services)


def skaffold(directory: Directory, text: str, version: str = "v4beta11") -> Path:
    return directory.write("skaffold.yaml", f"apiVersion: skaffold/{version}\nkind: Config\n{text}")


def notes(loaded: LoadedProject, severity: str = "warning") -> list[tuple[int | None, str]]:
    return [
        (each.location.line, each.message)
        for each in loaded.notes
        if each.severity == severity and each.location
    ]


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_it_means_what_the_devloop_yaml_means(case: Case, directory: Directory) -> None:
    for name, text in case.files.items():
        directory.write(name, text)
    wanted = same(directory.load(f"version: 1\n{case.devloop}").project)
    (directory.path / "devloop.yaml").unlink()
    skaffold(directory, case.skaffold, case.version)

    loaded = directory.load()

    assert same(loaded.project) == wanted
    assert notes(loaded) == []


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_what_init_writes_of_it_reads_back_as_the_same(case: Case, directory: Directory) -> None:
    for name, text in case.files.items():
        directory.write(name, text)
    file = skaffold(directory, case.skaffold, case.version)
    wanted = same(directory.load().project)

    found = converted(file.relative_to(directory.path), directory.path, {}, Flags())

    project = same(directory.load(found.text).project)
    assert replace(project, env_file=None) == wanted


def test_a_devloop_yaml_wins(directory: Directory) -> None:
    skaffold(directory, "build: {artifacts: [{image: web}]}")
    loaded = directory.load("version: 1\nservices: {mine: {build: .}}\n")
    assert list(loaded.project.services) == ["mine"]
    loaded = directory.load(file=Path("skaffold.yaml"))
    assert list(loaded.project.services) == ["web"]
    assert loaded.project.file == directory.path / "skaffold.yaml"


def test_a_setting_stands_where_skaffold_yaml_has_it(directory: Directory) -> None:
    skaffold(
        directory,
        """\
build:
  artifacts:
    - image: web
      docker:
        target: "x\\0"
""",
    )
    found = directory.error()
    assert (str(found.location), found.code) == ("skaffold.yaml:7:17", Code.CONFIG_VALUE)


def test_a_value_can_be_set_over_it(directory: Directory) -> None:
    skaffold(directory, "build: {artifacts: [{image: web, docker: {target: a}}]}")
    loaded = directory.load(sets=("services.web.build.target=b",))
    assert loaded.project.services["web"].build.target == "b"


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        (
            "build: {artifacts: [{image: web, docker: {cliFlags: [-q]}}]}",
            3,
            "`build.artifacts[].docker.cliFlags` is not used",
        ),
        (
            "build: {artifacts: [{image: web, dokcer: {}}]}",
            3,
            "`build.artifacts[].dokcer` is not known here, and not used",
        ),
        (
            "build: {artifacts: [{image: web}]}\nrequires: [{googleCloudStorage: {source: x}}]",
            4,
            "`requires[].googleCloudStorage` is not used",
        ),
        (
            "build: {artifacts: [{image: web}]}\ndeploy: {kubeContext: prod}",
            4,
            "`deploy.kubeContext` is not used",
        ),
        (
            "build: {artifacts: [{image: web}]}\nmanifests: {rawYaml: ['https://x/y.yaml']}",
            4,
            "https://x/y.yaml is not applied: only files of this computer are",
        ),
        (
            "build: {artifacts: [{image: web, docker: {buildArgs: {A: '{{.NONE}}'}}}]}",
            3,
            "the variable NONE is not set; it is taken as empty",
        ),
        (
            "build: {artifacts: [{image: web, sync: {manual: [{src: a, dest: .}]}}]}",
            3,
            "files of 'a' are not synced: where '.' is, only the base image says",
        ),
        (
            "build: {artifacts: [{image: w}]}\nportForward: [{resourceType: job, port: 1}]",
            4,
            "job/:1 is not forwarded",
        ),
    ],
)
def test_what_is_otherwise_is_named_at_its_place(
    text: str, line: int, message: str, directory: Directory
) -> None:
    skaffold(directory, text)
    assert notes(directory.load()) == [(line, message)]


def test_what_makes_no_difference_is_said_as_well(directory: Directory) -> None:
    text = "build: {artifacts: [{image: web, docker: {squash: true}}], tagPolicy: {sha256: {}}}"
    skaffold(directory, text)
    assert [message for _, message in notes(directory.load(), "info")] == [
        "`build.artifacts[].docker.squash` makes no difference here",
        "`build.tagPolicy` makes no difference here",
    ]


@pytest.mark.parametrize(
    ("text", "version", "place", "code"),
    [
        ("", "v1alpha5", "skaffold.yaml:1:13", Code.CONFIG_VERSION),
        ("", "vNext", "skaffold.yaml:1:13", Code.CONFIG_VERSION),
        (
            "deploy: {docker: {images: [x]}}",
            "v4beta1",
            "skaffold.yaml:3:10",
            Code.CONFIG_NOT_SUPPORTED,
        ),
        (
            "build: {artifacts: [{image: a, bazel: {target: //x}}]}",
            "v1",
            "skaffold.yaml:3:21",
            Code.CONFIG_NOT_SUPPORTED,
        ),
        ("build: {artifacts: [{context: a}]}", "v1", "skaffold.yaml:3:21", Code.CONFIG_VALUE),
        (
            "build: {artifacts: [{image: a, docker: {buildArgs: {A: '{{ if x }}'}}}]}",
            "v1",
            "skaffold.yaml:3:56",
            Code.CONFIG_NOT_SUPPORTED,
        ),
        (
            "build: {artifacts: [{image: a}]}\nrequires: [{path: ../other}]",
            "v1",
            "skaffold.yaml:4:19",
            Code.CONFIG_FILE_MISSING,
        ),
        (
            "build: {artifacts: [{image: a}]}\na: b\na: c",
            "v1",
            "skaffold.yaml:5:1",
            Code.CONFIG_DUPLICATE_KEY,
        ),
    ],
)
def test_what_cannot_be_read_is_an_error_at_its_place(
    text: str, version: str, place: str, code: Code, directory: Directory
) -> None:
    skaffold(directory, text, version)
    found = directory.error()
    assert (str(found.location), found.code) == (place, code)


# Profiles

PROFILES = """\
build: {artifacts: [{image: web, docker: {target: a}}, {image: api, context: api}], local: {}}
manifests: {rawYaml: [a.yaml]}
profiles:
  - name: patched
    patches:
      - {path: /build/artifacts/0/docker/target, value: p}
      - {op: add, path: /build/artifacts/image=api/docker/buildArgs, value: {A: b}}
      - {op: add, path: /build/artifacts/-, value: {image: third, context: third}}
      - {op: remove, path: /manifests/rawYaml/0}
      - {op: add, path: /manifests/rawYaml/0, value: b.yaml}
  - name: replaced
    build: {artifacts: [{image: only}]}
  - name: by-env
    activation: [{env: STAGE=prod, command: dev}]
    manifests: {rawYaml: [prod.yaml]}
  - name: by-context
    activation: [{kubeContext: "^kind-"}]
    manifests: {rawYaml: [kind.yaml]}
"""


def test_a_profile_patches(directory: Directory) -> None:
    directory.env["DEVLOOP_PROFILE"] = "patched"
    skaffold(directory, PROFILES)
    services = directory.load().project.services
    assert list(services) == ["web", "api", "third"]
    assert services["web"].build.target == "p"
    assert services["api"].build.args == {"A": "b"}
    assert services["web"].deploy.manifests == (str(directory.path / "b.yaml"),)


@pytest.mark.parametrize(
    ("named", "env", "context"),
    [
        ([], {}, "minikube"),
        (["patched"], {}, "minikube"),
        (["replaced"], {}, "minikube"),
        ([], {"STAGE": "prod"}, "minikube"),
        ([], {}, "kind-dev"),
    ],
)
def test_what_init_writes_has_the_profiles(
    named: list[str], env: dict[str, str], context: str, directory: Directory
) -> None:
    file = skaffold(directory, PROFILES)
    found = converted(file.relative_to(directory.path), directory.path, {}, Flags())
    directory.env |= env
    around: dict[str, Any] = {"profiles": named, "context": context, "command": "dev"}
    wanted = same(directory.load(**around).project)
    assert same(directory.load(found.text, **around).project) == wanted
    assert "  by-context:\n    activate: [{context: kind-*}]" in found.text


def test_a_profile_replaces_lists(directory: Directory) -> None:
    directory.env["DEVLOOP_PROFILE"] = "replaced"
    skaffold(directory, PROFILES)
    services = directory.load().project.services
    assert list(services) == ["only"]
    assert services["only"].deploy.manifests == (str(directory.path / "a.yaml"),)


@pytest.mark.parametrize(
    ("env", "options", "manifest"),
    [
        ({}, {"context": "minikube"}, "a.yaml"),
        ({"STAGE": "prod"}, {"command": "dev", "context": "x"}, "prod.yaml"),
        ({"STAGE": "prod"}, {"command": "run", "context": "x"}, "a.yaml"),
        (
            {"STAGE": "prod", "DEVLOOP_PROFILE": "-by-env"},
            {"command": "dev", "context": "x"},
            "a.yaml",
        ),
        ({}, {"context": "kind-dev"}, "kind.yaml"),
        ({"DEVLOOP_CONTEXT": "kind-dev"}, {}, "kind.yaml"),
        ({"KUBECONFIG": "@kubeconfig"}, {}, "kind.yaml"),
    ],
)
def test_a_profile_activates_itself(
    env: dict[str, str], options: dict[str, str], manifest: str, directory: Directory
) -> None:
    kubeconfig = directory.write("kubeconfig", "current-context: kind-x\n")
    directory.env |= {
        name: text.replace("@kubeconfig", str(kubeconfig)) for name, text in env.items()
    }
    skaffold(directory, PROFILES)
    services = directory.load(**options).project.services
    assert services["web"].deploy.manifests == (str(directory.path / manifest),)


def test_a_profile_that_nobody_has_is_named(directory: Directory) -> None:
    directory.env["DEVLOOP_PROFILE"] = "patchd"
    skaffold(directory, PROFILES)
    found = directory.error()
    assert found.message == "there is no profile `patchd`"
    assert found.suggestions == ("did you mean patched?",)


@pytest.mark.parametrize(
    ("patch", "message"),
    [
        (
            "{path: /build/artifacts/7, value: {image: x}}",
            "the patch's path /build/artifacts/7 leads nowhere: no item is `7` in a list of 1",
        ),
        (
            "{op: remove, path: /build/artefacts}",
            "the patch's path /build/artefacts leads nowhere: there is no `artefacts`",
        ),
        (
            "{op: shift, path: /build}",
            "the patch's path /build leads nowhere: there is no operation 'shift'",
        ),
        ("{op: add, path: build, value: 1}", "a patch needs a `path` that begins with /"),
    ],
)
def test_a_patch_that_leads_nowhere(patch: str, message: str, directory: Directory) -> None:
    directory.env["DEVLOOP_PROFILE"] = "p"
    text = f"build: {{artifacts: [{{image: web}}]}}\nprofiles: [{{name: p, patches: [{patch}]}}]"
    skaffold(directory, text)
    assert directory.error().message == message


def test_before_v2beta5_a_profiles_deployer_takes_the_place_of_the_one_before(
    directory: Directory,
) -> None:
    text = """\
build: {artifacts: [{image: web}]}
deploy: {kubectl: {manifests: [a.yaml]}}
profiles: [{name: k, deploy: {kustomize: {path: k}}}]
"""
    directory.env["DEVLOOP_PROFILE"] = "k"
    skaffold(directory, text, "v1")
    assert directory.load().project.services["web"].deploy.manifests == ()
    skaffold(directory, text, "v2beta29")
    assert directory.load().project.services["web"].deploy.manifests != ()


# Several documents and files

MODULE = """\
apiVersion: skaffold/v4beta11
kind: Config
metadata: {name: NAME}
build: {artifacts: [{image: NAME, sync: {manual: [{src: "x/*", dest: .}]}}]}
manifests: {rawYaml: [k8s/*.yaml]}
profiles: [{name: fast, patches: [{op: add, path: /build/artifacts/0/docker, value: {target: t}}]}]
"""


def test_modules_keep_their_own_directories(directory: Directory) -> None:
    for name in ("front", "back"):
        directory.write(f"{name}/skaffold.yaml", MODULE.replace("NAME", name))
        directory.write(f"{name}/Dockerfile", f"FROM x AS t\nWORKDIR /{name}\n")
    skaffold(
        directory,
        """\
metadata: {name: shop}
requires:
  - {path: front, activeProfiles: [{name: fast, activatedBy: [quick]}]}
  - {path: back/skaffold.yaml, configs: [back]}
build: {artifacts: [{image: own}]}
profiles: [{name: quick}]
""",
    )
    directory.env["DEVLOOP_PROFILE"] = "quick"
    loaded = directory.load()
    services = loaded.project.services
    assert (loaded.project.name, list(services)) == ("shop", ["front", "back", "own"])
    assert services["front"].build.target == "t"
    assert services["back"].build.target is None
    assert services["back"].build.context == directory.path / "back"
    assert services["back"].deploy.manifests == (str(directory.path / "back/k8s/*.yaml"),)
    assert services["front"].sync[0].dest == "/front/x"  # type: ignore[union-attr]
    assert services["own"].deploy.manifests == ()
    assert {file.relative_to(directory.path).as_posix() for file in loaded.files} >= {
        "skaffold.yaml",
        "front/skaffold.yaml",
        "back/skaffold.yaml",
        "front/Dockerfile",
    }


def test_documents_of_one_file_require_each_other(directory: Directory) -> None:
    text = """\
apiVersion: skaffold/v2beta29
metadata: {name: one}
requires: [{configs: [two]}]
build: {artifacts: [{image: one}]}
---
apiVersion: skaffold/v2beta29
metadata: {name: two}
requires: [{configs: [one]}]
build: {artifacts: [{image: two, context: two}]}
"""
    directory.write("skaffold.yaml", text)
    assert sorted(directory.load().project.services) == ["one", "two"]


def test_manifests_of_a_document_that_builds_nothing_go_with_the_first_service(
    directory: Directory,
) -> None:
    directory.write(
        "db/skaffold.yaml", "apiVersion: skaffold/v4beta1\nmanifests: {rawYaml: [db.yaml]}\n"
    )
    skaffold(directory, "requires: [{path: db}]\nbuild: {artifacts: [{image: web}]}\n")
    assert directory.load().project.services["web"].deploy.manifests == (
        str(directory.path / "db/db.yaml"),
    )


def test_every_key_of_a_block_is_in_the_table_of_the_block() -> None:
    for key in KEYS:
        above = key.rpartition(".")[0].removesuffix("[]").removesuffix(".*")
        assert not above or above in KEYS, key
