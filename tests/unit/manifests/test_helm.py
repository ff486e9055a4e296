"""A chart: what counts of it, what a scripted helm makes of it, and what goes wrong."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from devloop.base.cancel import Cancel
from devloop.base.patterns import FilePatterns
from devloop.base.process import CannotRun, Completed
from devloop.config.charts import Chart
from devloop.errors import Code, DevloopError, Diagnosis, Location
from devloop.manifests import tools
from devloop.manifests.chart import LocalChart
from devloop.manifests.helm import HelmRendering

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from devloop.model import ManifestObject

TEMPLATE = "# {{ x }}\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\n"
DEPLOYMENT = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\n"
JOB = "apiVersion: batch/v1\nkind: Job\nmetadata: {name: %s, annotations: {helm.sh/hook: '%s'}}\n"


def source(name: str, text: str) -> str:
    return f"---\n# Source: {name}\n{text}"


class Project:
    """`helm template` prints `output`, or ends with `error`; `helm dependency` packs nothing but
    writes charts/sub-1.tgz. The arguments of both are noted."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.noted: list[str] = []
        self.installed = True
        monkeypatch.setattr(tools, "capture", self.run)
        self.write("chart/Chart.yaml", "name: shop\nversion: 1.0.0\n")
        self.write("chart/templates/web.yaml", TEMPLATE)
        self.prints(source("shop/templates/web.yaml", DEPLOYMENT))
        self.notes: list[Diagnosis] = []

    def show(self, path: Path) -> str:
        return os.path.relpath(path, self.root)

    def write(self, name: str, text: str) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def prints(self, output: str, error: str = "") -> None:
        self.output, self.error = output, error

    def run(self, argv: Sequence[str], **_: object) -> Completed:
        if not self.installed:
            raise CannotRun("helm", "No such file or directory", missing=True)
        self.noted.append(" ".join(argv[1:]))
        if argv[1] == "dependency":
            self.write(f"{os.path.relpath(argv[3], self.root)}/charts/sub-1.tgz", "")
        elif self.error:
            return Completed(status=1, out="", err=self.error)
        return Completed(status=0, out=self.output, err="")

    def rendering(self, chart: str = "chart", **more: Any) -> HelmRendering:
        made = Chart(chart=chart, directory=self.root / chart, release="web", **more)
        return HelmRendering(made, made.namespace or "shop", show=self.show)

    def objects(self, **more: Any) -> tuple[ManifestObject, ...]:
        return self.rendering(**more).objects(Cancel(), self.notes.append)

    def fails(self, error: str, **more: Any) -> Diagnosis:
        self.prints("", error)
        with pytest.raises(DevloopError) as raised:
            self.objects(**more)
        return raised.value.diagnosis

    @property
    def calls(self) -> list[str]:
        return [call.replace(f"{self.root}/", "") for call in self.noted]

    def counts(self) -> set[str]:
        files = FilePatterns(self.rendering().inputs().patterns).files()
        return {os.path.relpath(file, self.root / "chart") for file in files}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    return Project(tmp_path, monkeypatch)


def test_helm_gets_what_devloop_yaml_says(project: Project) -> None:
    project.objects(
        values=(project.root / "dev.yaml",),
        set={"image.tag": "dev", "hosts": "a,b", "list": "{a,b}"},
        version="1.2.3",
        repo="https://example.test",
        namespace="other",
    )
    assert project.calls == [
        (
            "template web chart --namespace other --version 1.2.3 --repo https://example.test "
            "--values dev.yaml --set image.tag=dev --set hosts=a\\,b --set list={a,b} "
            "--include-crds"
        )
    ]


@pytest.mark.parametrize("chart", ["oci://registry.test/charts/web", "bitnami/redis"])
def test_a_remote_chart_is_left_to_helm(project: Project, chart: str) -> None:
    project.objects(chart=chart)
    assert project.calls == [f"template web {chart} --namespace shop --include-crds"]
    assert project.rendering(chart).inputs().patterns == ()


def test_an_object_is_placed_in_its_template(project: Project) -> None:
    (made,) = project.objects()
    assert str(made.location) == "chart/templates/web.yaml:3:1"


def test_an_object_without_a_namespace_has_the_release_s_where_that_is_given(
    project: Project,
) -> None:
    assert [each.key[2] for each in project.objects(namespace="other")] == ["other"]
    assert [each.key[2] for each in project.objects()] == [""]


def test_all_of_a_chart_counts_but_what_helm_writes(project: Project) -> None:
    for name in ("values.yaml", "files/site.conf", "charts/own/templates/a.yaml", "crds/a.yaml"):
        project.write(f"chart/{name}", "")
    before = project.counts()
    project.write("chart/Chart.lock", "")
    project.write("chart/charts/sub-1.tgz", "")
    assert project.counts() == before
    assert before == {
        "Chart.yaml",
        "templates/web.yaml",
        "values.yaml",
        "files/site.conf",
        "charts/own/templates/a.yaml",
        "crds/a.yaml",
    }


def dependency(project: Project) -> None:
    project.write("sub/Chart.yaml", "name: sub\nversion: 1\n")
    project.write("sub/templates/db.yaml", "kind: A\n")
    entry = "dependencies: [{name: sub, version: '1', repository: 'file://../sub'}]\n"
    project.write("chart/Chart.yaml", f"name: shop\nversion: 1.0.0\n{entry}")


def test_a_local_dependency_counts_and_is_built_when_it_is_older(project: Project) -> None:
    dependency(project)
    assert "../sub/templates/db.yaml" in project.counts()
    project.objects()
    project.objects()
    update = "dependency update chart --skip-refresh"
    assert [call for call in project.calls if call.startswith("dep")] == [update]
    assert [note.message for note in project.notes] == [
        "helm dependency update chart: charts/ lacked sub"
    ]
    edited = project.write("sub/templates/db.yaml", "kind: B\n")
    later = edited.stat().st_mtime_ns + 10**9
    os.utime(edited, ns=(later, later))
    assert LocalChart(str(project.root / "chart")).lacking() == ("sub",)


def test_what_a_dependency_renders_is_placed_where_it_is_written(project: Project) -> None:
    dependency(project)
    project.prints(source("shop/charts/sub/templates/db.yaml", DEPLOYMENT))
    (made,) = project.objects()
    assert made.file == "sub/templates/db.yaml"


def test_hooks_are_told_from_the_rest(project: Project) -> None:
    hooks = {"pre": "pre-install,pre-upgrade", "gone": "pre-delete", "try": "test"}
    project.prints("".join(source("shop/templates/a.yaml", JOB % pair) for pair in hooks.items()))
    (made,) = project.objects()
    assert made.hook is not None
    assert made.hook.events == {"pre-install", "pre-upgrade"}
    assert made.hook.delete == {"before-hook-creation"}
    assert [note.message for note in project.notes] == [
        "Job gone is a hook for pre-delete, which devloop does not run"
    ]
    assert [each.key[3] for each in project.objects(skip_tests=False)] == ["pre", "try"]


@pytest.mark.parametrize(
    ("error", "place"),
    [
        (
            "template: shop/templates/web.yaml:1:5: executing ... nil pointer",
            "chart/templates/web.yaml:1:6",
        ),
        ("parse error at (shop/templates/web.yaml:2): unclosed", "chart/templates/web.yaml:2:1"),
        (
            "execution error at (shop/templates/web.yaml:2:4): a name is needed",
            "chart/templates/web.yaml:2:5",
        ),
        (
            "YAML parse error on shop/templates/web.yaml: error converting YAML: yaml: line 9: x",
            "chart/templates/web.yaml:1:1",
        ),
        ("failed to parse values.yaml: yaml: line 3: did not find", "chart/values.yaml:3:1"),
        ("something else", "chart/Chart.yaml:1:1"),
    ],
)
def test_an_error_has_its_place_in_the_chart(project: Project, error: str, place: str) -> None:
    found = project.fails(f"Error: {error}\n\nUse --debug flag to render out invalid YAML\n")
    assert found.code is Code.MANIFESTS_RENDER_FAILED
    assert str(found.location) == place
    assert found.message == f"helm cannot render chart: {error}"


@pytest.mark.parametrize(
    "error",
    [
        "dial tcp: lookup r.test: no such host",
        'failed to perform "FetchReference" on source: r.test/a:9: not found',
        "repo bitnami not found",
    ],
)
def test_a_chart_that_cannot_be_fetched_is_told_from_a_mistake(
    project: Project, error: str
) -> None:
    place = Location("devloop.yaml", 7, 9)
    found = project.fails(f"Error: {error}", chart="oci://r.test/a", location=place)
    assert (found.code, found.location) == (Code.MANIFESTS_FETCH_FAILED, place)


def test_without_helm_it_says_what_to_install(project: Project) -> None:
    project.installed = False
    assert project.fails("").code is Code.ENV_TOOL_MISSING
