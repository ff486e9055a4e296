from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devloop.base.cancel import Cancel
from devloop.errors import DevloopError
from devloop.manifests.files import FilesRendering, find_files, read_manifests

if TYPE_CHECKING:
    from pathlib import Path

    from devloop.errors import Diagnosis

HEAD = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n"


def read(directory: Path, text: str, name: str = "m.yaml") -> list[dict[str, Any]]:
    file = directory / name
    file.write_text(text)
    return [dict(m.object) for m in read_manifests([file], show=lambda p: p.name)]


def refusal(directory: Path, text: str, name: str = "m.yaml") -> str:
    with pytest.raises(DevloopError) as caught:
        read(directory, text, name)
    assert caught.value.code == "config/manifest"
    return f"{caught.value.diagnosis.location}: {caught.value.diagnosis.message}"


def test_documents_lists_and_empty_ones(tmp_path: Path) -> None:
    text = (
        "---\n# nothing\n---\n" + HEAD + "---\napiVersion: v1\nkind: List\nitems:\n"
        "- {apiVersion: v1, kind: Secret, metadata: {name: b}}\n"
        "- apiVersion: apps/v1\n  kind: DeploymentList\n  items:\n"
        "  - {apiVersion: apps/v1, kind: Deployment, metadata: {name: c}}\n---\n"
    )
    found = [(o["kind"], o["metadata"]["name"]) for o in read(tmp_path, text)]
    assert found == [("ConfigMap", "a"), ("Secret", "b"), ("Deployment", "c")]


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("2001-12-14", "2001-12-14"),
        ("12:30:45", "12:30:45"),
        ("0644", 420),
        ("0o644", 420),
        ("0x1f", 31),
        ("1_000", 1000),
        ("yes", True),
        ("off", False),
        ("y", "y"),
        ("1.5", 1.5),
        ("1e3", 1000),
        ("1.2.3", "1.2.3"),
        ("~", None),
        ("''", ""),
        ("=", "="),
        ("'8080'", "8080"),
        ("100m", "100m"),
    ],
)
def test_scalars_mean_what_the_cluster_reads(tmp_path: Path, written: str, value: object) -> None:
    found = read(tmp_path, HEAD + f"data: {{x: {written}}}\n")[0]["data"]["x"]
    assert found == value
    assert type(found) is type(value)


def test_anchors_and_merges(tmp_path: Path) -> None:
    text = HEAD + "base: &b {x: 1, y: 2}\ndata:\n  <<: *b\n  y: 3\n"
    assert read(tmp_path, text)[0]["data"] == {"x": 1, "y": 3}


def test_json(tmp_path: Path) -> None:
    text = '{\n\t"apiVersion": "v1",\n\t"kind": "Secret",\n\t"metadata": {"name": "s"}\n}\n'
    assert read(tmp_path, text, "m.json")[0]["kind"] == "Secret"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [1\n", "m.yaml:1:4: not valid YAML: a list that is opened by `[` is not closed"),
        ("a: 1\na: 2\n", "m.yaml:2:1: the key `a` stands twice"),
        ("- 1\n", "m.yaml:1:1: a manifest is a mapping"),
        ("kind: X\nmetadata: {name: a}\n", "m.yaml:1:1: the manifest has no apiVersion"),
        ("apiVersion: v1\nkind:\nmetadata: {name: a}\n", "m.yaml:2:6: the manifest has no kind"),
        ("apiVersion: v1\nkind: X\nmetadata: {}\n", "m.yaml:3:11: X has no metadata.name"),
        (HEAD + "x: !!python/object:os.system {}\n", "m.yaml:4:4: the tag"),
        (HEAD + "x: !Ref y\n", "m.yaml:4:4: the tag"),
        (HEAD + "---\n" + HEAD, "m.yaml:5:1: ConfigMap a is there twice"),
        ("{{- if .Values.x }}\n" + HEAD, "m.yaml:1:1: this is a Helm template"),
    ],
)
def test_refusals_name_the_place(tmp_path: Path, text: str, said: str) -> None:
    assert refusal(tmp_path, text).startswith(said)


def test_a_syntax_error_is_said_in_plain_words_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(DevloopError) as caught:
        read(tmp_path, HEAD + "data:\n\tx: 1\n")
    diagnosis = caught.value.diagnosis
    assert diagnosis.message == "not valid YAML: a tab where YAML wants spaces"
    assert diagnosis.suggestions == ("use spaces",)
    assert diagnosis.detail == ("5 | \tx: 1",)


def test_anchor_bomb_is_refused(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    assert "more than 200,000 values" in refusal(tmp_path, HEAD + "\n".join(lines))


def test_deep_nesting_is_refused(tmp_path: Path) -> None:
    refusal(tmp_path, HEAD + "x: " + "[\n" * 5000 + "]" * 5000)


def test_places(tmp_path: Path) -> None:
    file = tmp_path / "m.yaml"
    file.write_text(HEAD + "spec:\n  containers:\n  - name: x\n    image: y\n")
    manifest = read_manifests([file], show=lambda p: p.name)[0]
    assert str(manifest.location) == "m.yaml:1:1"
    assert str(manifest.at("spec", "containers", 0, "image")) == "m.yaml:7:12"
    assert str(manifest.at("spec", "containers", 0, "command")) == "m.yaml:6:5"


def test_files_are_sorted_and_given_once(tmp_path: Path) -> None:
    for name in ("b.yaml", "a.yaml", "c.json", "notes.txt"):
        (tmp_path / name).write_text("")
    found = find_files([str(tmp_path / "b.yaml"), str(tmp_path / "*.yaml"), str(tmp_path)])
    assert [f.name for f in found] == ["b.yaml", "a.yaml", "c.json"]
    with pytest.raises(DevloopError) as caught:
        find_files([str(tmp_path / "*.toml")])
    assert caught.value.code == "config/manifest-missing"


@given(st.text(max_size=60))
def test_never_fails_otherwise(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    file = tmp_path_factory.getbasetemp() / "fuzz.yaml"
    file.write_text(text, "utf-8", "replace")
    with contextlib.suppress(DevloopError):
        read_manifests([file])


VAULT = """apiVersion: v1
kind: ConfigMap
metadata:
  name: a
  annotations:
    template: |
      {{- with secret "kv/app" -}}
      KEY={{ .Data.key }}
      {{- end }}
data: {x: "{{ y }}"}
"""


def test_braces_within_a_value_are_text(tmp_path: Path) -> None:
    (found,) = read(tmp_path, VAULT)
    assert found["metadata"]["annotations"]["template"].startswith("{{- with")


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (HEAD + "data:\n  x: {{ .Values.x }}\n", "m.yaml:5:6"),
        (HEAD + "data:\n  {{- if .Values.x }}\n  x: 1\n  {{- end }}\n", "m.yaml:5:3"),
        (HEAD + "data:\n  x: 1\n{{- end }}\n", "m.yaml:6:1"),
    ],
)
def test_a_template_is_named_where_yaml_fails_by_it(tmp_path: Path, text: str, place: str) -> None:
    assert refusal(tmp_path, text) == f"{place}: this is a Helm template, not a manifest"


def test_another_mistake_is_not_blamed_on_braces_in_a_value(tmp_path: Path) -> None:
    assert "stands twice" in refusal(tmp_path, VAULT + "kind: ConfigMap\n")


KUSTOMIZATION = "resources: [a.yaml]\n"
SKAFFOLD = "apiVersion: skaffold/v4beta6\nkind: Config\nmetadata: {name: x}\n"


@pytest.mark.parametrize(
    ("name", "text", "severity", "said"),
    [
        ("kustomization.yaml", KUSTOMIZATION, "warning", "this directory is a kustomization"),
        (
            "kustomization.yaml",
            "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n",
            "warning",
            "this directory is a kustomization",
        ),
        ("values.yaml", "replicas: 2\nimage: {tag: x}\n", "info", "a Helm chart's values"),
        ("Chart.yaml", "apiVersion: v2\nname: x\n", "info", "it describes a Helm chart"),
        ("skaffold.yaml", SKAFFOLD, "info", "it configures Skaffold"),
        ("prices.yaml", "a: 1\n", "info", "nothing in it has an apiVersion or a kind"),
    ],
)
def test_what_is_no_manifest_is_left_out_with_a_word_unless_it_is_named(
    tmp_path: Path, name: str, text: str, severity: str, said: str
) -> None:
    (tmp_path / "a.yaml").write_text(HEAD)
    (tmp_path / name).write_text(text)
    for pattern in (tmp_path / "*.yaml", tmp_path):
        notes: list[Diagnosis] = []
        found = FilesRendering([str(pattern)], show=lambda p: p.name).objects(
            Cancel(), notes.append
        )
        assert [each.file for each in found] == ["a.yaml"]
        assert [(n.severity, n.location and n.location.path) for n in notes] == [(severity, name)]
        assert said in notes[0].message
    with pytest.raises(DevloopError) as caught:
        FilesRendering([str(tmp_path / name)]).objects(Cancel())
    assert said in caught.value.diagnosis.message


def test_a_manifest_with_a_mistake_is_never_left_out(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("apiVersion: v1\nmetadata: {name: a}\n")
    with pytest.raises(DevloopError, match="no kind"):
        FilesRendering([str(tmp_path)]).objects(Cancel())
