"""What Flux or Argo CD owns is left alone, or its owner suspended and put back to the byte."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest

from devloop.cluster.deploy.gitops import GitopsGuard, resume_left
from devloop.cluster.deploy.gitops_owners import named_owners, put_back_by, tool_of
from devloop.cluster.deploy.suspensions import SUSPENDED_BY, WAS, SuspensionLog
from devloop.errors import Code, DevloopError
from tests.support.cluster_objects import deployment
from tests.support.deploy_stage import ONE, WEB, Stage, manifest
from tests.support.fake_api import FakeApi, Fault, status

if TYPE_CHECKING:
    from pathlib import Path

    from devloop.cluster.api.connection import Connection
    from devloop.errors import Diagnosis

SHOP = "/apis/kustomize.toolkit.fluxcd.io/v1/namespaces/flux-system/kustomizations/shop"
APP = "/apis/argoproj.io/v1alpha1/namespaces/argocd/applications/shop"
WEB_OF_ARGO = {"kind": "Deployment", "namespace": "dev", "name": "web"}
AUTOMATED = {"prune": True, "selfHeal": True, "allowEmpty": False}


def web(**marks: dict[str, str]) -> dict[str, Any]:
    thing = deployment()
    thing |= {"kind": "Deployment", "apiVersion": "apps/v1"}
    meta = thing["metadata"]
    meta["namespace"] = "dev"
    for kind, values in marks.items():
        meta[kind] = {**(meta.get(kind) or {}), **values}
    return thing


FLUX = web(
    labels={
        "kustomize.toolkit.fluxcd.io/name": "shop",
        "kustomize.toolkit.fluxcd.io/namespace": "flux-system",
    }
)
ARGO = web(annotations={"argocd.argoproj.io/tracking-id": "shop:apps/Deployment:dev/web"})
INSTANCE = web(labels={"app.kubernetes.io/instance": "shop"})


@pytest.fixture
def gitops(api: FakeApi) -> FakeApi:
    api.groups = {"kustomize.toolkit.fluxcd.io": "v1", "argoproj.io": "v1alpha1"}
    api.put(SHOP, {"metadata": {"name": "shop"}, "spec": {"interval": "1m"}})
    policy = {"automated": AUTOMATED, "syncOptions": ["ServerSideApply=true"]}
    resources = [WEB_OF_ARGO]
    api.put(
        APP,
        {
            "metadata": {"name": "shop"},
            "spec": {"syncPolicy": policy},
            "status": {"resources": resources},
        },
    )
    return api


def names(thing: dict[str, Any]) -> list[str]:
    return [str(owner) for owner in named_owners(thing)]


def test_marks_name_the_owner() -> None:
    assert names(FLUX) == ["Flux's Kustomization flux-system/shop"]
    assert names(ARGO) == ["Argo CD's Application shop"]
    other = web(annotations={"argocd.argoproj.io/tracking-id": "in_shop:apps/Deployment:dev/web"})
    assert names(other) == ["Argo CD's Application in/shop"]
    helm = web(
        labels={"helm.toolkit.fluxcd.io/name": "db", "helm.toolkit.fluxcd.io/namespace": "dev"}
    )
    assert names(helm) == ["Flux's HelmRelease dev/db"]
    assert (tool_of(INSTANCE), tool_of(FLUX)) == ("", "Flux")


@pytest.mark.parametrize(
    "thing",
    [
        deployment(),
        web(annotations={"argocd.argoproj.io/sync-wave": "1"}),
        web(annotations={"argocd.argoproj.io/tracking-id": "shop:apps/ReplicaSet:dev/web"}),
        web(annotations={"argocd.argoproj.io/tracking-id": "shop:apps/Deployment:other/web"}),
        web(
            labels=FLUX["metadata"]["labels"],
            annotations={"kustomize.toolkit.fluxcd.io/reconcile": "disabled"},
        ),
    ],
)
def test_other_marks_name_none(thing: dict[str, Any]) -> None:
    assert names(thing) == []


@pytest.mark.parametrize("thing", [FLUX, ARGO, INSTANCE])
def test_an_owner_that_acts_is_named_with_the_ways_out(
    gitops: FakeApi, connection: Connection, tmp_path: Path, thing: dict[str, Any]
) -> None:
    before = copy.deepcopy(gitops.objects)
    with pytest.raises(DevloopError) as raised:
        GitopsGuard(connection, tmp_path).check([thing], lambda _: None)
    found = raised.value.diagnosis
    assert found.code is Code.SAFETY_GITOPS_OWNED
    assert (found.code.exit_status, found.code.transient) == (4, True)
    assert "owns deployment/web" in found.message
    ways = " ".join(found.suggestions)
    assert "--suspend-gitops" in ways
    assert ("flux suspend kustomization shop -n flux-system" in ways) == (thing is FLUX)
    assert ("argocd app set argocd/shop --sync-policy none" in ways) == (thing is not FLUX)
    assert gitops.objects == before


def _suspended(app: dict[str, Any]) -> None:
    app["spec"] = {"suspend": True}


def _manual(app: dict[str, Any]) -> None:
    app["spec"] = {"syncPolicy": {}}


def _no_heal(app: dict[str, Any]) -> None:
    app["spec"] = {"syncPolicy": {"automated": {"prune": True}}}


@pytest.mark.parametrize(
    ("thing", "path", "change", "why"),
    [
        (FLUX, SHOP, _suspended, "it is suspended"),
        (FLUX, SHOP, None, "it does not exist"),
        (ARGO, APP, _manual, "it is not synced automatically"),
        (ARGO, APP, _no_heal, "it heals nothing by itself (selfHeal)"),
        (ARGO, APP, None, "it does not exist"),
    ],
)
def test_one_that_puts_nothing_back_stops_nobody_and_is_said_once(
    gitops: FakeApi,
    connection: Connection,
    tmp_path: Path,
    thing: dict[str, Any],
    path: str,
    change: Any,
    why: str,
) -> None:
    if change is None:
        gitops.remove(path)
    else:
        owner = copy.deepcopy(gitops.objects[path])
        change(owner)
        gitops.put(path, owner)
    said: list[Diagnosis] = []
    guard = GitopsGuard(connection, tmp_path, suspends=True)
    assert guard.check([thing], said.append)
    assert guard.check([thing], said.append)
    (note,) = said
    assert note.severity == "info"
    assert note.message.endswith(why)
    guard.close()
    assert not gitops.said("PATCH")


def test_where_there_is_no_argo_cd_an_instance_label_means_nothing_and_costs_one_look(
    api: FakeApi, connection: Connection, tmp_path: Path
) -> None:
    guard = GitopsGuard(connection, tmp_path)
    assert not guard.check([INSTANCE, INSTANCE], lambda _: None)
    assert len(api.said("GET")) == 1


@pytest.mark.parametrize(
    ("thing", "path", "spec"),
    [
        (FLUX, SHOP, {"interval": "1m"}),
        (FLUX, SHOP, {"interval": "1m", "suspend": False}),
        (ARGO, APP, {"syncPolicy": {"automated": AUTOMATED, "retry": {"limit": 2}}}),
    ],
)
def test_it_is_suspended_for_the_session_and_put_back_to_the_byte(
    gitops: FakeApi,
    connection: Connection,
    tmp_path: Path,
    thing: dict[str, Any],
    path: str,
    spec: dict[str, Any],
) -> None:
    gitops.put(path, {**gitops.objects[path], "spec": spec})
    before = copy.deepcopy(gitops.objects[path])
    said: list[Diagnosis] = []
    guard = GitopsGuard(connection, tmp_path, suspends=True, report=said.append)
    guard.check([thing, thing], said.append)
    assert len(gitops.said("PATCH")) == 1
    during = gitops.objects[path]
    assert during["spec"].get("suspend") is (thing is FLUX or None)
    assert "automated" not in during["spec"].get("syncPolicy", {})
    assert len(SuspensionLog(tmp_path).entries()) == 1
    guard.check([thing], said.append)
    guard.close()
    after = gitops.objects[path]
    assert after["spec"] == before["spec"]
    assert not after["metadata"].get("annotations")
    assert SuspensionLog(tmp_path).entries() == ()
    assert [note.message.rpartition(" ")[2] for note in said] == ["deployment/web", "resumed"]


def test_the_next_command_resumes_what_a_killed_session_left(
    gitops: FakeApi, connection: Connection, tmp_path: Path
) -> None:
    before = copy.deepcopy(gitops.objects[SHOP]["spec"])
    GitopsGuard(connection, tmp_path, suspends=True).check([FLUX], lambda _: None)
    (note,) = resume_left(connection, tmp_path)
    assert note.message.startswith("Flux's Kustomization flux-system/shop resumed")
    assert gitops.objects[SHOP]["spec"] == before
    assert resume_left(connection, tmp_path) == ()


INVENTORY = {
    "inventory": {
        "entries": [
            {"id": "dev_web_apps_Deployment", "v": "v1"},
            {"id": "dev_shop__Service", "v": "v1"},
            {"id": "dev_gone_apps_Deployment", "v": "v1"},
        ]
    }
}


@pytest.mark.parametrize(
    ("owner", "thing", "status"),
    [
        (SHOP, FLUX, INVENTORY),
        (APP, ARGO, {"resources": [{"group": "apps", "version": "v1", **WEB_OF_ARGO}]}),
    ],
)
def test_what_the_owner_has_is_not_devloops_any_more_once_it_goes_on(
    gitops: FakeApi,
    connection: Connection,
    tmp_path: Path,
    owner: str,
    thing: dict[str, Any],
    status: dict[str, Any],
) -> None:
    theirs = {"manager": "kustomize-controller", "operation": "Apply", "fieldsV1": {"f:spec": {}}}
    ours = {**theirs, "manager": "devloop"}
    written = copy.deepcopy(thing)
    written["metadata"]["managedFields"] = [theirs, ours]
    written["metadata"].setdefault("annotations", {})["devloop.dev/applied"] = "0a1b"
    gitops.put(WEB, written)
    gitops.put(owner, {**gitops.objects[owner], "status": status})
    before = copy.deepcopy(gitops.objects[WEB])
    guard = GitopsGuard(connection, tmp_path, suspends=True)
    guard.check([thing], lambda _: None)
    guard.close()
    after = gitops.objects[WEB]
    assert after["metadata"]["managedFields"] == [theirs]
    assert "devloop.dev/applied" not in (after["metadata"].get("annotations") or {})
    assert after["spec"] == before["spec"]
    assert SuspensionLog(tmp_path).entries() == ()


def test_what_cannot_be_resumed_now_is_said_with_the_ways_out_and_resumed_later(
    gitops: FakeApi, connection: Connection, tmp_path: Path
) -> None:
    said: list[Diagnosis] = []
    guard = GitopsGuard(connection, tmp_path, suspends=True, report=said.append)
    guard.check([FLUX], lambda _: None)
    body = status(403, "Forbidden", 'User "u" cannot patch resource "kustomizations"')
    gitops.faults.append(Fault(method="PATCH", path="shop", code=403, body=body, times=2))
    guard.close()
    said += resume_left(connection, tmp_path)
    owner = "Flux's Kustomization flux-system/shop"
    assert [each.message for each in said] == [
        f"{owner} is still suspended",
        f"{owner} is still suspended by a session that was killed",
    ]
    for each in said:
        assert each.severity == "warning"
        assert "may not patch" in (each.cause or "")
        assert each.suggestions[-1] == "or by hand: flux resume kustomization shop -n flux-system"
    (note,) = resume_left(connection, tmp_path)
    assert note.message == f"{owner} resumed: a session that was killed had suspended it"


def test_the_last_of_two_sessions_resumes_it(
    gitops: FakeApi, connection: Connection, tmp_path: Path
) -> None:
    one = GitopsGuard(connection, tmp_path / "one", suspends=True)
    two = GitopsGuard(connection, tmp_path / "two", suspends=True)
    one.check([FLUX], lambda _: None)
    two.check([FLUX], lambda _: None)
    one.close()
    assert gitops.objects[SHOP]["spec"]["suspend"] is True
    two.close()
    assert gitops.objects[SHOP]["spec"] == {"interval": "1m"}


def test_what_somebody_else_did_meanwhile_stays(
    gitops: FakeApi, connection: Connection, tmp_path: Path
) -> None:
    guard = GitopsGuard(connection, tmp_path, suspends=True)
    guard.check([FLUX], lambda _: None)
    owner = copy.deepcopy(gitops.objects[SHOP])
    owner["spec"]["suspend"] = False
    gitops.put(SHOP, owner)
    with pytest.raises(DevloopError, match="owns deployment/web"):
        guard.check([FLUX], lambda _: None)
    guard.close()
    after = gitops.objects[SHOP]
    assert after["spec"]["suspend"] is False
    assert not {SUSPENDED_BY, WAS} & set(after["metadata"].get("annotations") or {})


def test_who_may_not_suspend_it_gets_the_command_for_somebody_who_may(
    gitops: FakeApi, connection: Connection, tmp_path: Path
) -> None:
    body = status(403, "Forbidden", 'User "u" cannot patch resource "kustomizations"')
    gitops.faults.append(Fault(method="PATCH", path="kustomizations", code=403, body=body))
    with pytest.raises(DevloopError) as raised:
        GitopsGuard(connection, tmp_path, suspends=True).check([FLUX], lambda _: None)
    assert raised.value.code is Code.CLUSTER_FORBIDDEN
    assert "flux suspend kustomization shop" in raised.value.diagnosis.suggestions[0]
    assert SuspensionLog(tmp_path).entries() == ()


def test_a_deploy_writes_nothing_while_the_owner_acts_and_takes_over_once_it_does_not(
    gitops: FakeApi, stage: Stage
) -> None:
    owned = manifest("shop/web:old")
    owned["metadata"]["labels"] = FLUX["metadata"]["labels"]
    gitops.put(WEB, owned, manager="kustomize-controller")
    deployer = stage.deployer(manifest())
    for _ in range(2):
        with pytest.raises(DevloopError) as raised:
            stage.deploy(deployer, ONE)
        assert raised.value.code is Code.SAFETY_GITOPS_OWNED
    assert stage.writes() == []
    gitops.put(SHOP, {"metadata": {"name": "shop"}, "spec": {"suspend": True}})
    assert stage.deploy(deployer, ONE).changed
    assert stage.writes() == [("PATCH", WEB)] * 2


def test_a_parent_whose_manifest_has_the_field_takes_it_back() -> None:
    (owner,) = named_owners(FLUX)
    entry = {"manager": "kustomize-controller", "operation": "Apply"}
    fields: dict[str, Any] = {"fieldsV1": {"f:spec": {"f:suspend": {}}}}
    parent = {"metadata": {"managedFields": [{**entry, **fields}]}}
    assert "kustomize-controller" in put_back_by(owner, parent)
    assert put_back_by(owner, {"metadata": {"managedFields": [entry]}}) == ""
