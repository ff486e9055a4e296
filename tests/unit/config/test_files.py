"""Files that devloop.yaml names and that are not there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from devloop.config.files import check_files
from tests.unit.config.corpus import service

if TYPE_CHECKING:
    from devloop.errors import Diagnosis
    from tests.unit.config.conftest import Directory


def check(directory: Directory, text: str) -> tuple[Diagnosis, ...]:
    return check_files(directory.load(text))


def test_nothing_is_missing(directory: Directory) -> None:
    for name in ("Dockerfile", "k8s/a.yaml", "pip.conf"):
        directory.write(name)
    text = service(
        "deploy: {manifests: [k8s/*.yaml, '**/a.yaml', k8s/a.yaml]}",
        build="build: {secrets: [id=pip,src=pip.conf, id=env,env=HOME]}",
    )
    assert check(directory, text) == ()


def test_a_builder_of_ones_own_needs_no_dockerfile(directory: Directory) -> None:
    assert check(directory, service(build="build: {builder: command, command: [x]}")) == ()


@pytest.mark.parametrize(
    ("build", "present", "code", "place", "message", "hint"),
    [
        ("build: .", "x", "dockerfile", "4:5", "Dockerfile does not exist", None),
        (
            "build: .",
            "dockerfile",
            "dockerfile",
            "4:5",
            "Dockerfile does",
            "`dockerfile: dockerfile`",
        ),
        ("build: .", "api/Dockerfile", "dockerfile", "4:5", "Dockerfile does", "`build: api`"),
        (
            "build: {dockerfile: Dockerfil}",
            "Dockerfile",
            "dockerfile",
            "4:13",
            "Dockerfil does not exist",
            "`dockerfile: Dockerfile`",
        ),
        ("build: {dockerfile: d}", "d/x", "dockerfile", "4:13", "d is a directory", None),
        ("build: {context: ap}", "api/Dockerfile", "context", "4:13", "ap does not", "mean api?"),
        ("build: Dockerfile", "Dockerfile", "context", "4:5", "is a file", None),
        ("build: ../no", "x", "context", "4:5", "/no does not exist", None),
    ],
)
def test_missing_for_the_build(
    directory: Directory,
    build: str,
    present: str,
    code: str,
    place: str,
    message: str,
    hint: str | None,
) -> None:
    directory.write(present)
    (found,) = check(directory, service(build=build))
    assert found.code == f"config/{code}-missing"
    assert str(found.location) == f"devloop.yaml:{place}"
    assert message in found.message
    if hint is not None:
        assert hint in found.suggestions[0]


def test_missing_manifests(directory: Directory) -> None:
    directory.write("Dockerfile")
    directory.write("k8s/deployment.yaml")
    directory.write("charts/notes.txt")
    text = service("deploy:\n  manifests: [k8s/*.yml, k8s/deploymet.yaml, charts, k8s]")
    found = check(directory, text)
    assert [(each.code, str(each.location), each.message, each.suggestions) for each in found] == [
        ("config/manifest-missing", "devloop.yaml:6:19", "no file matches k8s/*.yml", ()),
        (
            "config/manifest-missing",
            "devloop.yaml:6:30",
            "no file matches k8s/deploymet.yaml",
            ("did you mean k8s/deployment.yaml?",),
        ),
        (
            "config/manifest-missing",
            "devloop.yaml:6:50",
            "charts holds no YAML or JSON file",
            (),
        ),
    ]


def test_missing_secret(directory: Directory) -> None:
    directory.write("Dockerfile")
    directory.write("pip.conf")
    (found,) = check(directory, service(build="build: {secrets: [id=a,src=pip.cnf]}"))
    assert (found.code, str(found.location)) == ("config/file-missing", "devloop.yaml:4:23")
    assert found.suggestions == ("did you mean pip.conf?",)


@pytest.mark.parametrize(
    ("deploy", "present", "place", "message", "hint"),
    [
        ("kustomize: k8s", "k8s/kustomization.yml", "", "", ""),
        ("kustomize: k8s/de", "k8s/dev/kustomization.yaml", "5:14", "does not exist", "k8s/dev?"),
        ("kustomize: k8s", "k8s/dev/kustomization.yaml", "5:14", "no kustomization", "k8s/dev?"),
        ("kustomize: k8s.yaml", "k8s.yaml", "5:14", "is a file", "kustomize: ."),
        ("helm: {chart: ./chart}", "chart/Chart.yaml", "", "", ""),
        ("helm: {chart: bitnami/redis}", "x", "", "", ""),
        ("helm: {chart: ./chrt}", "chart/Chart.yaml", "5:21", "does not exist", "chart?"),
        ("helm: {chart: ./chart}", "chart/x", "5:21", "has no Chart.yaml", ""),
        ("helm: {chart: a/b, values: dv.yaml}", "dev.yaml", "5:33", "dv.yaml does", "dev.yaml?"),
    ],
)
def test_missing_for_what_is_rendered(
    directory: Directory, deploy: str, present: str, place: str, message: str, hint: str
) -> None:
    directory.write("Dockerfile")
    directory.write(present)
    found = check(directory, service(f"deploy: {{{deploy}}}"))
    if not place:
        assert found == ()
        return
    (problem,) = found
    assert str(problem.location) == f"devloop.yaml:{place}"
    assert message in problem.message
    assert hint in "".join(problem.suggestions)
