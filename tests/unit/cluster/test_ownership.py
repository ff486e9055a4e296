from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devloop.cluster.api.writes import last_writer
from devloop.cluster.deploy.ownership import (
    APPLIED,
    PROJECT,
    covers,
    created_by,
    desired,
    gitops_manager,
    judge_conflict,
    project_label,
    same_but_images,
    scaled_by,
)
from devloop.model import CREATED_BY

MANIFEST: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "web", "labels": {"a": "b"}, "resourceVersion": "7"},
    "spec": {"ports": [{"port": 80}]},
    "status": {},
}


def test_what_did_not_exist_is_marked_as_created() -> None:
    body = desired(MANIFEST, None, "my shop")
    assert body["metadata"]["annotations"][CREATED_BY] == "my shop"
    assert body["metadata"]["labels"] == {"a": "b", PROJECT: project_label("my shop")}
    assert "status" not in body
    assert "resourceVersion" not in body["metadata"]
    assert MANIFEST["metadata"]["labels"] == {"a": "b"}


def test_what_existed_is_not_marked_and_a_mark_is_kept() -> None:
    live = {"metadata": {"name": "web"}}
    body = desired(MANIFEST, live, "shop")
    assert created_by(body) == ""
    assert PROJECT not in body["metadata"]["labels"]
    mine = desired(MANIFEST, None, "shop")
    again = desired(MANIFEST, mine, "shop")
    assert again == mine
    other = desired(MANIFEST, mine, "other")
    assert created_by(other) == ""


def test_secrets_say_data() -> None:
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "s"},
        "stringData": {"a": "b"},
    }
    body = desired(secret, None, "p")
    assert body["data"] == {"a": "Yg=="}
    assert "stringData" not in body


def test_the_mark_follows_the_content() -> None:
    one = desired(MANIFEST, None, "p")["metadata"]["annotations"][APPLIED]
    two = desired(MANIFEST | {"spec": {}}, None, "p")["metadata"]["annotations"][APPLIED]
    assert one != two


@pytest.mark.parametrize("name", ["shop", "my shop", "ü", "x" * 80, "-", "a" * 63])
def test_labels_are_valid(name: str) -> None:
    import re  # noqa: PLC0415

    label = project_label(name)
    assert len(label) <= 63
    assert re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?", label)


@pytest.mark.parametrize(
    ("live", "wanted", "same"),
    [
        ({"a": 1, "b": 2}, {"a": 1}, True),
        ({"a": 1}, {"a": 2}, False),
        ({}, {"a": None}, True),
        ({}, {"a": {}}, True),
        ({}, {"a": False}, True),
        ({}, {"a": True}, False),
        ({"cpu": "500m"}, {"cpu": "0.5"}, True),
        ({"cpu": "1"}, {"cpu": 1}, True),
        ({"m": "1Gi"}, {"m": "1024Mi"}, True),
        ({"m": "1Gi"}, {"m": "2Gi"}, False),
        ([{"name": "a", "x": 1, "y": 2}], [{"name": "a", "x": 1}], True),
        (
            [{"name": "b"}, {"name": "a", "x": 1}],
            [{"name": "a", "x": 1}, {"name": "b"}],
            True,
        ),
        ([{"name": "b"}], [{"name": "a"}], False),
        ([{"name": []}], [], False),
        (["x"], ["x", "y"], False),
        ([{"port": 80, "protocol": "TCP"}], [{"port": 80}], True),
        ("x", {"a": 1}, False),
    ],
)
def test_covers(live: object, wanted: object, same: bool) -> None:
    assert covers(live, wanted) is same


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["name", "a", "b"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(JSON, JSON)
def test_covers_never_fails(live: object, wanted: object) -> None:
    covers(live, wanted)


@given(st.dictionaries(st.sampled_from("abc"), st.integers() | st.text(max_size=3)))
def test_everything_covers_itself(value: dict[str, object]) -> None:
    assert covers(value, value)


def cause(manager: str, field: str, sub: str = "") -> dict[str, str]:
    tail = f' with subresource "{sub}"' if sub else ""
    message = f'conflict with "{manager}"{tail} using apps/v1'
    return {"reason": "FieldManagerConflict", "message": message, "field": field}


IMAGE = '.spec.template.spec.containers[name="web"].image'


@pytest.mark.parametrize(
    "manager", ["kubectl-client-side-apply", "kubectl-edit", "kubectl-set", "k9s", "skaffold"]
)
def test_people_are_taken_over_from(manager: str) -> None:
    verdict = judge_conflict([cause(manager, IMAGE)], "Deployment web")
    assert verdict.error is None
    assert verdict.info is not None
    assert verdict.info.message == f"took over 1 field of Deployment web from {manager}"


@pytest.mark.parametrize(
    ("manager", "field", "sub"),
    [
        ("argocd-controller", IMAGE, ""),
        ("kustomize-controller", IMAGE, ""),
        ("helm", IMAGE, ""),
        ("argocd-controller", ".spec.replicas", ""),
    ],
)
def test_controllers_are_not_fought(manager: str, field: str, sub: str) -> None:
    verdict = judge_conflict([cause("kubectl-edit", IMAGE), cause(manager, field, sub)], "x")
    assert verdict.error is not None
    assert verdict.error.code == "cluster/conflict"
    assert manager in verdict.error.diagnosis.message
    assert f"{manager}: {field}" in verdict.error.diagnosis.detail


SCALES = [
    ("kubectl", "scale"),
    ("kube-controller-manager", "scale"),
    ("keda", ""),
    ("kubectl-edit", ""),
]


@pytest.mark.parametrize(("manager", "sub"), SCALES)
def test_replicas_are_never_a_conflict(manager: str, sub: str) -> None:
    verdict = judge_conflict([cause(manager, ".spec.replicas", sub)], "Deployment web")
    assert (verdict.error, verdict.scaled_by, verdict.info) == (None, manager, None)


def scaled(manager: str, sub: str = "") -> dict[str, Any]:
    entry = {
        "manager": manager,
        "subresource": sub,
        "fieldsV1": {"f:spec": {"f:replicas": {}}},
    }
    return {"metadata": {"name": "web", "managedFields": [entry]}, "spec": {"replicas": 5}}


@pytest.mark.parametrize(("manager", "sub"), SCALES)
def test_replicas_that_somebody_set_are_not_applied(manager: str, sub: str) -> None:
    wanted = {"metadata": {"name": "web"}, "spec": {"replicas": 1, "paused": False}}
    assert scaled_by(scaled(manager, sub)) == manager
    assert desired(wanted, scaled(manager, sub), "p")["spec"] == {"paused": False}


@pytest.mark.parametrize("manager", ["devloop", "kubectl-client-side-apply", "argocd-controller"])
def test_replicas_of_a_manifest_are_applied(manager: str) -> None:
    wanted = {"metadata": {"name": "web"}, "spec": {"replicas": 1}}
    assert scaled_by(scaled(manager)) == ""
    assert desired(wanted, scaled(manager), "p")["spec"] == {"replicas": 1}


def test_our_own_earlier_patch_is_no_news() -> None:
    verdict = judge_conflict([cause("devloop", IMAGE)], "x")
    assert verdict.error is None
    assert verdict.info is None


def test_gitops_marks() -> None:
    assert gitops_manager({"metadata": {}}) is None
    tracked = {"annotations": {"argocd.argoproj.io/tracking-id": "x"}}
    assert gitops_manager({"metadata": tracked}) == "Argo CD"
    flux = {"labels": {"kustomize.toolkit.fluxcd.io/name": "x"}}
    assert gitops_manager({"metadata": flux}) == "Flux"
    managed = {"managedFields": [{"manager": "argocd-controller"}]}
    assert gitops_manager({"metadata": managed}) == "Argo CD"
    helm = {"managedFields": [{"manager": "helm"}]}
    assert gitops_manager({"metadata": helm}) is None


def test_last_writer() -> None:
    fields = [
        {"manager": "kubectl-set", "time": "2026-01-01T00:00:02Z"},
        {"manager": "kubectl-create", "time": "2026-01-01T00:00:01Z"},
        {"manager": "kube-controller-manager", "time": "2026-01-02", "subresource": "status"},
        {"manager": "devloop", "time": "2026-01-03"},
    ]
    assert last_writer({"metadata": {"managedFields": fields}}) == "kubectl-set"
    assert last_writer({}) == "somebody"


def test_keys_without_a_value_are_as_if_they_were_not_given() -> None:
    def deployment(image: str, **more: Any) -> dict[str, Any]:
        container = {"name": "web", "image": image, **more}
        template = {"spec": {"containers": [container], "volumes": [{"name": "x", **more}]}}
        return {"kind": "Deployment", "metadata": {"name": "web"}, "spec": {"template": template}}

    manifest = deployment("web:2", resources=None, emptyDir=None, command=None)
    before = desired(deployment("web:1", resources=None, emptyDir=None, command=None), None, "p")
    live = {**before, "spec": deployment("web:1", resources={}, emptyDir={})["spec"]}
    assert same_but_images(manifest, live, ["web"], "p")
    config = {"kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"empty": None}}
    assert desired(config, None, "p")["data"] == {"empty": None}
