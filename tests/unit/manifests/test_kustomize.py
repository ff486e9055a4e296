"""A kustomization: what it reaches, what a scripted kustomize makes of it, and what goes wrong."""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING

import pytest

from devloop.base.cancel import Cancel
from devloop.base.patterns import FilePatterns
from devloop.base.process import Completed
from devloop.errors import Code, DevloopError, Diagnosis
from devloop.manifests import tools
from devloop.manifests.by_content import OncePerContent
from devloop.manifests.kustomization import reached
from devloop.manifests.kustomize import KustomizeRendering

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

DEPLOYMENT = """\
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
"""
CONFIG = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: dev-settings-8h2kf}\n"


class Project:
    """`kustomize` prints `output`, or ends with `error`, and its arguments are noted."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.calls: list[str] = []
        self.programs = {"kustomize"}
        monkeypatch.setattr(tools, "capture", self.run)
        monkeypatch.setattr(shutil, "which", lambda name: name if name in self.programs else None)
        self.prints(DEPLOYMENT)
        self.directory = self.write("k8s/dev/kustomization.yaml", "").parent
        self.rendering = OncePerContent(KustomizeRendering(self.directory, show=self.show))
        self.notes: list[Diagnosis] = []

    def show(self, path: Path) -> str:
        return os.path.relpath(path, self.root)

    def write(self, name: str, text: str) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def prints(self, output: str, error: str = "", *, unless: str = "never") -> None:
        self.output, self.error, self.unless = output, error, unless

    def run(self, argv: Sequence[str], **_: object) -> Completed:
        self.calls.append(" ".join(argv))
        if self.error and self.unless not in argv:
            return Completed(status=1, out="", err=self.error)
        return Completed(status=0, out=self.output, err="")

    def objects(self) -> dict[str, str]:
        """The names, each with where it is written."""
        made = self.rendering.objects(Cancel(), self.notes.append)
        return {each.key[3]: str(each.location) for each in made}

    def fails(self) -> Diagnosis:
        with pytest.raises(DevloopError) as error:
            self.objects()
        return error.value.diagnosis


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    return Project(tmp_path, monkeypatch)


def test_all_that_a_kustomization_reads_is_reached(project: Project) -> None:
    project.write("k8s/base/kustomization.yml", "resources: [web.yaml]\n")
    project.write("k8s/parts/tls/kustomization.yaml", "patches: [{path: tls.yaml}]\n")
    project.write(
        "k8s/dev/kustomization.yaml",
        """\
resources: [../base, extra.yaml, "https://example.test/app?ref=v1"]
components: [../parts/tls]
crds: [crd.json]
configurations: [names.yaml]
transformers: ["kind: A\\n", t.yaml]
patchesStrategicMerge: [old.yaml]
patchesJson6902: [{path: six.json}]
replacements: [{path: r.yaml}]
openapi: {path: schema.json}
configMapGenerator:
  - {name: a, files: [site.conf, "as=other.conf"], envs: [a.env]}
secretGenerator: [{name: s, env: s.env}]
helmCharts: [{name: redis, repo: "https://example.test", valuesFile: v.yaml}]
""",
    )
    found = reached([str(project.directory)])
    assert {project.show(project.root / path) for path in found.kustomizations} == {
        "k8s/dev/kustomization.yaml",
        "k8s/base/kustomization.yml",
        "k8s/parts/tls/kustomization.yaml",
    }
    names = "extra.yaml crd.json names.yaml t.yaml old.yaml six.json r.yaml schema.json site.conf"
    names += " other.conf a.env s.env v.yaml"
    assert {project.show(project.root / path) for path in found.files} == {
        "k8s/base/web.yaml",
        "k8s/parts/tls/tls.yaml",
        *(f"k8s/dev/{name}" for name in names.split()),
    }
    assert list(found.remote) == ["https://example.test/app?ref=v1"]
    assert found.charts


def test_kustomizations_that_name_each_other_come_to_an_end(project: Project) -> None:
    project.write("k8s/base/kustomization.yaml", "resources: [../dev]\n")
    project.write("k8s/dev/kustomization.yaml", "resources: [../base]\n")
    assert len(reached([str(project.directory)]).kustomizations) == 2


def test_the_files_of_generators_count_whatever_their_suffix(project: Project) -> None:
    project.write(
        "k8s/dev/kustomization.yaml", "configMapGenerator: [{name: a, files: ['a[1].cfg']}]"
    )
    file = project.write("k8s/dev/a[1].cfg", "")
    patterns = FilePatterns(project.rendering.inputs().patterns)
    assert str(file) in patterns.files()
    assert patterns.concerns(str(file))


def test_what_is_rendered_is_placed_where_it_is_written(project: Project) -> None:
    project.write("k8s/dev/web.yaml", f"# the app\n{DEPLOYMENT}")
    project.write(
        "k8s/dev/kustomization.yaml",
        "resources: [web.yaml]\nconfigMapGenerator:\n- name: settings\n  literals: [A=b]\n",
    )
    project.prints(f"{DEPLOYMENT.replace('web', 'dev-web')}---\n{CONFIG}")
    assert project.objects() == {
        "dev-web": "k8s/dev/web.yaml:2:1",
        "dev-settings-8h2kf": "k8s/dev/kustomization.yaml:3:1",
    }


def test_it_is_rendered_once_for_each_content(project: Project) -> None:
    project.write("k8s/dev/kustomization.yaml", "resources: [web.yaml]\n")
    for text in (DEPLOYMENT, DEPLOYMENT, f"{DEPLOYMENT}# other\n"):
        project.write("k8s/dev/web.yaml", text)
        project.objects()
    assert project.calls == [f"kustomize build {project.directory}"] * 2


def test_a_mistake_is_not_tried_again_until_a_file_changes(project: Project) -> None:
    project.prints("", "Error: invalid Kustomization\n")
    project.fails()
    assert project.fails().code is Code.MANIFESTS_RENDER_FAILED
    assert len(project.calls) == 1
    project.prints(DEPLOYMENT)
    project.write("k8s/dev/kustomization.yaml", "resources: []\n")
    assert list(project.objects()) == ["web"]


def test_what_waiting_may_cure_is_tried_again_after_a_moment(project: Project) -> None:
    now = [100.0]
    inner = KustomizeRendering(project.directory, show=project.show)
    project.rendering = OncePerContent(inner, clock=lambda: now[0])
    project.write("k8s/dev/kustomization.yaml", 'resources: ["https://example.test/a?ref=1"]\n')
    project.prints("", "Error: no such host\n")
    codes = [project.fails().code for _ in range(2)]
    assert codes == [Code.MANIFESTS_FETCH_FAILED] * 2
    assert len(project.calls) == 1
    project.prints(DEPLOYMENT)
    now[0] += 10
    assert list(project.objects()) == ["web"]


def test_files_elsewhere_are_read_where_kustomize_asks_for_it(project: Project) -> None:
    error = "Error: security; file '/x/a' is not in or below '/x/k8s'\n"
    project.prints(DEPLOYMENT, error, unless="LoadRestrictionsNone")
    assert list(project.objects()) == ["web"]
    (note,) = project.notes
    assert (note.code, note.severity) == (Code.MANIFESTS_NOTE, "info")
    assert note.location is None  # it would keep what came of that file from being deleted


@pytest.mark.parametrize(
    ("kustomization", "error", "place"),
    [
        ("resources:\n- gone.yaml\n", "accumulating resources from 'gone.yaml': open", "2:3"),
        ("resources: []\nfoo: 1\n", 'invalid Kustomization: json: unknown field "foo"', "2:1"),
        ("resources: [web.yaml\n", "invalid Kustomization: yaml: line 1", "1:12"),
        ("resources: []\n", "something else", "1:1"),
    ],
)
def test_an_error_has_its_place_in_the_kustomization(
    project: Project, kustomization: str, error: str, place: str
) -> None:
    project.write("k8s/dev/kustomization.yaml", kustomization)
    project.prints("", f"Error: {error}\n")
    found = project.fails()
    assert found.code is Code.MANIFESTS_RENDER_FAILED
    assert str(found.location) == f"k8s/dev/kustomization.yaml:{place}"
    assert found.message == f"kustomize cannot build k8s/dev: {error}"
    assert found.suggestions == (f"run it by hand: kustomize build {project.directory}",)


def test_what_is_not_there_is_said_shortly(project: Project) -> None:
    gone = f"{project.root}/k8s/bass"
    lost = f"evalsymlink failure on '{gone}' : lstat {gone}: no such file or directory"
    from_ = f"accumulating resources from '../bass': {lost}"
    said = f"accumulating resources: accumulation err='{from_}': must build at directory: {lost}"
    project.prints("", f"Error: {said}\n")
    assert project.fails().message == (
        "kustomize cannot build k8s/dev: accumulating resources from '../bass': k8s/bass does not "
        "exist"
    )


def test_a_patch_without_an_object_is_what_the_error_shows(project: Project) -> None:
    project.write("k8s/dev/kustomization.yaml", "patches: [{path: p.yaml}]\n")
    project.write("k8s/dev/p.yaml", DEPLOYMENT)
    project.prints("", "Error: no matches for Id Deployment.v1.apps/web.[noNs]\n")
    assert str(project.fails().location) == "k8s/dev/p.yaml:4:9"


def test_what_kubectl_logs_around_an_error_is_left_out(project: Project) -> None:
    said = json.dumps('loading "a"')
    project.prints("", f'E1130 20:51:04.5   26045 run.go:72] "command failed" err={said}\n')
    assert project.fails().message == 'kustomize cannot build k8s/dev: loading "a"'


def test_kubectl_will_do(project: Project) -> None:
    project.programs = {"kubectl"}
    project.objects()
    assert project.calls == [f"kubectl kustomize {project.directory}"]


def test_without_kustomize_and_kubectl_it_says_what_to_install(project: Project) -> None:
    project.programs = set()
    assert project.fails().code is Code.ENV_TOOL_MISSING


def test_a_remote_base_that_cannot_be_fetched_is_told_from_a_mistake(project: Project) -> None:
    project.write("k8s/dev/kustomization.yaml", 'resources: ["https://example.test/a?ref=1"]\n')
    project.prints("", "Error: fatal: unable to access 'https://example.test': no such host\n")
    assert project.fails().code is Code.MANIFESTS_FETCH_FAILED
