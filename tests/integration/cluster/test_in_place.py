"""The in-place rollout on the real cluster: what agrees afterwards, and when it is not made."""

from __future__ import annotations

import copy
import dataclasses
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from devloop.base.cancel import Cancel, Cancelled
from devloop.cluster.api.connection import STRATEGIC, Connection
from devloop.cluster.api.pod_view import dig, images_of
from devloop.cluster.api.view import ClusterView
from devloop.cluster.deploy.deployments import Deployments
from devloop.cluster.replace.pause import PAUSE_LABEL
from devloop.cluster.replace.recovery_log import RecoveryLog
from devloop.cluster.replace.strategy import Change
from devloop.errors import Code, DevloopError
from devloop.manifests import renderings_of
from tests.integration.cluster.conftest import QUICK, Bench, Recorder, workload

if TYPE_CHECKING:
    from collections.abc import Callable

    from devloop.cluster.api.reflector import WatchEvent
    from devloop.config.schema import Project
    from devloop.model import ImageRef

pytestmark = [pytest.mark.kind, pytest.mark.docker]

_ROOT = Path(__file__).parents[3]


def quick(kind: str = "Deployment", *, spec: dict[str, Any] | None = None, **pod: Any) -> Any:
    """As `workload`, with a process that stops at once."""
    made = workload(kind, spec=spec, **pod)
    made["spec"]["template"]["spec"]["containers"][0]["command"] = ["sh", "-c", QUICK]
    return made


class State:
    """Deployment, ReplicaSets and pods as the API server has them."""

    def __init__(self, bench: Bench) -> None:
        self.deployment = bench.live()
        apps = f"/apis/apps/v1/namespaces/{bench.namespace}/replicasets"
        self.sets = bench.get(apps)["items"]
        pods = bench.get(f"/api/v1/namespaces/{bench.namespace}/pods")["items"]
        self.pods = [p for p in pods if not p["metadata"].get("deletionTimestamp")]

    @property
    def uids(self) -> set[str]:
        return {p["metadata"]["uid"] for p in self.pods}

    @property
    def restarts(self) -> list[int]:
        return sorted(p["status"]["containerStatuses"][0]["restartCount"] for p in self.pods)

    @property
    def revision(self) -> str:
        return str(self.deployment["metadata"]["annotations"]["deployment.kubernetes.io/revision"])

    @property
    def level(self) -> bool:
        live = self.deployment
        return bool(live["status"]["observedGeneration"] == live["metadata"]["generation"])

    @property
    def paused(self) -> bool:
        return bool(dig(self.deployment, "spec", "paused"))

    def agrees(self, image: ImageRef, *, sets: int | None = 1, pods: int = 1) -> None:
        """Deployment, ReplicaSet and pods ask for the image, the pods run it, nothing is paused."""
        live = self.deployment
        assert images_of(live) == {"web": image.pinned}
        assert not self.paused
        assert PAUSE_LABEL not in live["metadata"].get("labels", {})
        assert self.level
        current = [s for s in self.sets if dig(s, "spec", "replicas")]
        assert len(current) == 1
        assert sets is None or len(self.sets) == sets
        assert images_of(current[0]) == {"web": image.pinned}
        assert len(self.pods) == pods
        for pod in self.pods:
            assert pod["spec"]["containers"][0]["image"] == image.pinned
            status = pod["status"]["containerStatuses"][0]
            assert status["imageID"].endswith(image.digest)
            assert status["ready"]


def eventually(condition: Callable[[], bool], seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_each_iteration_restarts_once_and_leaves_no_drift(
    bench: Bench, push: Callable[[str], ImageRef]
) -> None:
    project = bench.project(quick(), replace="in-place")
    deployer = bench.deployer(project)
    before = push("one")
    bench.serve(deployer, before)
    first = State(bench)
    first.agrees(before)
    for count, label in enumerate(("two", "three", "four", "five"), start=1):
        image = push(label)
        deployed, served = bench.serve(deployer, image)
        now = State(bench)
        now.agrees(image)
        assert bench.reporter.details[-2].endswith(", in place")
        assert now.restarts == [count]
        assert now.revision == first.revision
        assert now.uids == first.uids
        assert served.image_ids == (image.pinned,)
        assert deployed.picked.previous == {"web": before.pinned}
        before = image
    assert RecoveryLog(project.state_dir).entries() == ()


class Looking(Connection):
    """Notes how far the controllers are with the ReplicaSet whenever a Deployment is resumed."""

    seen: ClassVar[list[int]] = []

    def request(self, method: str, path: str, body: Any = None, **more: Any) -> dict[str, Any]:
        if dig(body, "spec", "paused") is None and "paused" in (dig(body, "spec") or {}):
            folder = path.rpartition("/")[0].replace("deployments", "replicasets")
            (only,) = super().request("GET", folder)["items"]
            observed = only["status"]["observedGeneration"]
            self.seen.append(only["metadata"]["generation"] - observed)
        return super().request(method, path, body, **more)


def test_the_controllers_know_the_replicaset_before_they_go_on(
    bench: Bench, push: Callable[[str], ImageRef]
) -> None:
    """Else they would now and then roll out what was done in place."""
    env = os.environ | {"KUBECONFIG": os.environ["DEVLOOP_TEST_KUBECONFIG"]}
    Looking.seen.clear()
    connection = Looking.open(os.environ["DEVLOOP_TEST_CONTEXT"], bench.namespace, env=env)
    view = ClusterView(connection)
    project = bench.project(quick(), replace="in-place")
    shared = Deployments(
        project, connection, view, renderings=renderings_of(project.services.values())
    )
    try:
        deployer = shared.deployer(project.services["web"])
        for label in ("one", "two", "three", "four"):
            bench.serve(deployer, push(label))
        State(bench).agrees(push("four"))
    finally:
        shared.close()
        view.close()
        connection.close()
    assert Looking.seen == [0, 0, 0]


def test_the_manager_of_each_field_stays_the_same(
    bench: Bench, push: Callable[[str], ImageRef]
) -> None:
    """A later start has nothing to do, and a later change of the manifest applies cleanly."""
    project = bench.project(quick(), replace="in-place")
    deployer = bench.deployer(project)
    for label in ("one", "two"):
        bench.serve(deployer, push(label))
    mine = [e for e in bench.live()["metadata"]["managedFields"] if e["manager"] == "devloop"]
    assert [e["operation"] for e in mine] == ["Apply"]

    generation = bench.live()["metadata"]["generation"]
    deployed, _ = bench.serve(bench.deployer(project), push("two"))
    assert not deployed.changed
    assert bench.live()["metadata"]["generation"] == generation

    changed = quick()
    changed["spec"]["template"]["spec"]["containers"][0]["name"] = "renamed"
    renamed = bench.project(changed, replace="in-place")
    deployer = bench.deployer(renamed)
    bench.serve(deployer, push("three"))
    assert images_of(bench.live()) == {"renamed": push("three").pinned}
    assert bench.reporter.diagnoses == []


def test_patch_only(bench: Bench, push: Callable[[str], ImageRef]) -> None:
    original = quick()
    original["spec"]["template"]["spec"]["containers"][0]["image"] = push("one").pinned
    bench.create(original, "deployments")
    deployer = bench.deployer(bench.project(replace="in-place"))
    bench.serve(deployer, push("one"))
    for count, label in enumerate(("two", "three"), start=1):
        bench.serve(deployer, push(label))
        now = State(bench)
        now.agrees(push(label))
        assert now.restarts == [count]


def test_pods_to_come_have_the_new_image(bench: Bench, push: Callable[[str], ImageRef]) -> None:
    deployer = bench.deployer(bench.project(quick(), replace="in-place"))
    bench.serve(deployer, push("one"))
    deployed, _ = bench.serve(deployer, push("two"))
    (pod,) = State(bench).pods
    path = f"/api/v1/namespaces/{bench.namespace}/pods/{pod['metadata']['name']}"
    bench.connection.request("DELETE", path, {"gracePeriodSeconds": 0})
    eventually(lambda: State(bench).uids != {pod["metadata"]["uid"]})
    deployer.follow(deployed, bench.reporter, bench.cancel)
    State(bench).agrees(push("two"))

    scale = f"/apis/apps/v1/namespaces/{bench.namespace}/deployments/web"
    bench.connection.request(
        "PATCH", scale, {"spec": {"replicas": 2}}, content_type="application/merge-patch+json"
    )
    generation = bench.live()["metadata"]["generation"]
    scaled = dataclasses.replace(deployed.picked, generation=generation)
    deployer.follow(
        dataclasses.replace(deployed, workloads=(scaled,)), bench.reporter, bench.cancel
    )
    State(bench).agrees(push("two"), pods=2)


class Unready:
    """How many of the namespace's pods were not ready at the same time, at most."""

    def __init__(self, bench: Bench) -> None:
        self.most = 0
        self._ready: dict[str, bool] = {}
        self._view = bench.view.view("pods", bench.namespace)
        self._view.add(self._take, replay=self._take)

    def _take(self, change: WatchEvent) -> None:
        pod = change.object
        conditions = dig(pod, "status", "conditions") or ()
        ready = any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
        self._ready[pod["metadata"]["name"]] = ready
        self.most = max(self.most, sum(not r for r in self._ready.values()))


def test_several_replicas_one_after_the_other(
    bench: Bench, push: Callable[[str], ImageRef]
) -> None:
    deployer = bench.deployer(bench.project(quick(spec={"replicas": 3}), replace="in-place"))
    bench.serve(deployer, push("one"))
    first = State(bench)
    unready = Unready(bench)
    for count, label in enumerate(("two", "three"), start=1):
        bench.serve(deployer, push(label))
        now = State(bench)
        now.agrees(push(label), pods=3)
        assert now.uids == first.uids
        assert now.restarts == [count] * 3
    assert unready.most == 1


@pytest.mark.parametrize("replicas", [1, 3])
def test_the_newest_image_wins_in_the_middle(
    bench: Bench, push: Callable[[str], ImageRef], replicas: int
) -> None:
    project = bench.project(quick(spec={"replicas": replicas}), replace="in-place")
    deployer = bench.deployer(project)
    bench.serve(deployer, push("one"))
    first = State(bench)
    older = deployer.deploy(push("two"), bench.reporter, bench.cancel)
    superseded = Cancel()
    superseded.set()
    with pytest.raises(Cancelled):
        deployer.follow(older, Recorder(), superseded)
    bench.serve(deployer, push("three"))
    now = State(bench)
    now.agrees(push("three"), pods=replicas)
    assert now.uids == first.uids
    assert now.revision == first.revision


def test_without_a_successor_the_controller_does_the_rest(
    bench: Bench, push: Callable[[str], ImageRef]
) -> None:
    project = bench.project(quick(spec={"replicas": 3}), replace="in-place")
    deployer = bench.deployer(project)
    bench.serve(deployer, push("one"))
    deployed = deployer.deploy(push("two"), bench.reporter, bench.cancel)
    assert State(bench).paused
    stopped = Cancel()
    stopped.set()
    with pytest.raises(Cancelled):
        deployer.follow(deployed, Recorder(), stopped)
    eventually(lambda: not State(bench).paused)
    deployer.follow(deployed, bench.reporter, bench.cancel)
    State(bench).agrees(push("two"), sets=2, pods=3)


def test_the_end_of_a_session_leaves_nothing_paused(
    bench: Bench, push: Callable[[str], ImageRef]
) -> None:
    project = bench.project(quick(spec={"replicas": 2}), replace="in-place")
    deployer = bench.deployer(project)
    bench.serve(deployer, push("one"))
    deployer.deploy(push("two"), bench.reporter, bench.cancel)
    assert State(bench).paused
    bench.opened[0].close()
    assert not State(bench).paused
    assert RecoveryLog(project.state_dir).entries() == ()


# --- what is rolled ------------------------------------------------------------------------------


def _with_container(**more: Any) -> Any:
    made = quick()
    made["spec"]["template"]["spec"]["containers"][0].update(more)
    return made


@pytest.mark.parametrize(
    ("manifest", "reason"),
    [
        (_with_container(lifecycle={"preStop": {"exec": {"command": ["true"]}}}), "preStop hook"),
        (quick(spec={"minReadySeconds": 1}), "minReadySeconds"),
        (quick(spec={"replicas": 2, "strategy": {"type": "Recreate"}}), "Recreate"),
        (quick("StatefulSet"), "a statefulset"),
        (workload(terminationGracePeriodSeconds=5), "web ignores SIGTERM"),
    ],
    ids=["prestop", "min-ready", "recreate", "statefulset", "ignores-sigterm"],
)
def test_rolled_with_the_reason(
    bench: Bench, push: Callable[[str], ImageRef], manifest: Any, reason: str
) -> None:
    kind = manifest["kind"].lower()
    deployer = bench.deployer(bench.project(manifest, kind=kind, replace="in-place"))
    bench.serve(deployer, push("one"))
    bench.serve(deployer, push("two"))
    assert "rolling: " in bench.reporter.details[-2]
    assert reason in bench.reporter.details[-2]
    assert images_of(bench.live(f"{kind}s")) == {"web": push("two").pinned}


def test_rolled_when_an_init_container_must_run_again(
    bench: Bench, push: Callable[[str], ImageRef]
) -> None:
    init = {"name": "prepare", "image": push("one").pinned, "command": ["true"]}
    deployer = bench.deployer(bench.project(quick(initContainers=[init]), replace="in-place"))
    bench.serve(deployer, push("one"))
    bench.serve(deployer, push("two"))
    assert "rolling: init container prepare gets the image" in bench.reporter.details[-2]


def test_rolled_when_the_manifest_changed_or_the_image_was_there_before(
    bench: Bench, push: Callable[[str], ImageRef]
) -> None:
    deployer = bench.deployer(bench.project(quick(), replace="in-place"))
    bench.serve(deployer, push("one"))
    bench.serve(deployer, push("two"))
    bench.serve(deployer, push("one"))
    assert "rolling: its pod ran this image before" in bench.reporter.details[-2]
    State(bench).agrees(push("one"), sets=2)

    bench.project(_with_container(env=[{"name": "A", "value": "b"}]), replace="in-place")
    bench.serve(deployer, push("three"))
    assert "rolling: its manifest changed" in bench.reporter.details[-2]
    State(bench).agrees(push("three"), sets=3)
    bench.serve(deployer, push("four"))
    assert bench.reporter.details[-2].endswith("in place")
    State(bench).agrees(push("four"), sets=3)


def test_what_its_owner_paused_stays_paused(bench: Bench, push: Callable[[str], ImageRef]) -> None:
    project = bench.project(quick(), replace="in-place")
    deployer = bench.deployer(project)
    bench.serve(deployer, push("one"))
    path = f"/apis/apps/v1/namespaces/{bench.namespace}/deployments/web"
    bench.connection.request(
        "PATCH",
        path,
        {"spec": {"paused": True}},
        query={"fieldManager": "kubectl-rollout"},
        content_type="application/merge-patch+json",
    )
    with pytest.raises(DevloopError) as caught:
        bench.deployer(project).deploy(push("two"), bench.reporter, bench.cancel)
    assert caught.value.code == "cluster/paused"
    assert bench.opened[-1].recover() == ()
    assert State(bench).paused


def test_rolled_when_pods_may_not_be_patched(
    bench: Bench, push: Callable[[str], ImageRef], limited: Callable[[], Connection]
) -> None:
    project = bench.project(quick(), replace="in-place")
    bench.serve(bench.deployer(project), push("one"))
    connection = limited()
    view = ClusterView(connection)
    shared = Deployments(
        project, connection, view, renderings=renderings_of(project.services.values())
    )
    try:
        deployer = shared.deployer(project.services["web"])
        bench.serve(deployer, push("two"))
        assert "rolling: the cluster refuses it" in bench.reporter.details[-2]
        assert "pods" in bench.reporter.details[-2]
        State(bench).agrees(push("two"), sets=2)
        bench.serve(deployer, push("three"))
        # The reason is given once.
        assert bench.reporter.details[-2].endswith(", rolling")
        assert RecoveryLog(project.state_dir).entries() == ()
    finally:
        shared.close()
        view.close()
        connection.close()


@pytest.fixture
def limited(bench: Bench, tmp_path: Path) -> Callable[[], Connection]:
    """Connect as somebody who may patch Deployments, and only look at everything else."""

    def connect() -> Connection:
        import yaml  # noqa: PLC0415

        core, rbac = "v1", "rbac.authorization.k8s.io/v1"
        account = {"apiVersion": core, "kind": "ServiceAccount", "metadata": {"name": "dev"}}
        look, write = ["get", "list", "watch"], ["get", "list", "watch", "patch", "create"]
        rules = [
            {"apiGroups": [""], "resources": ["pods", "events"], "verbs": look},
            {"apiGroups": ["apps"], "resources": ["replicasets"], "verbs": look},
            {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": write},
        ]
        role = {"apiVersion": rbac, "kind": "Role", "metadata": {"name": "dev"}, "rules": rules}
        binding = {
            "apiVersion": rbac,
            "kind": "RoleBinding",
            "metadata": {"name": "dev"},
            "roleRef": {"apiGroup": rbac.partition("/")[0], "kind": "Role", "name": "dev"},
            "subjects": [{"kind": "ServiceAccount", "name": "dev", "namespace": bench.namespace}],
        }
        for thing, plural in (
            (account, "serviceaccounts"),
            (role, "roles"),
            (binding, "rolebindings"),
        ):
            bench.create(thing, plural)
        token = bench.connection.request(
            "POST", f"/api/v1/namespaces/{bench.namespace}/serviceaccounts/dev/token", {}
        )["status"]["token"]
        document = yaml.safe_load(Path(os.environ["DEVLOOP_TEST_KUBECONFIG"]).read_text("utf-8"))
        document = copy.deepcopy(document)
        for user in document["users"]:
            user["user"] = {"token": token}
        path = tmp_path / "limited"
        path.write_text(yaml.safe_dump(document))
        env = os.environ | {"KUBECONFIG": str(path)}
        return Connection.open(os.environ["DEVLOOP_TEST_CONTEXT"], bench.namespace, env=env)

    return connect


# --- failures ------------------------------------------------------------------------------------


@pytest.mark.parametrize("replicas", [1, 3])
def test_an_image_that_crashes(
    bench: Bench, push: Callable[[str], ImageRef], replicas: int
) -> None:
    manifest = quick(spec={"replicas": replicas})
    deployer = bench.deployer(bench.project(manifest, replace="in-place"))
    bench.serve(deployer, push("one"))
    first = State(bench)
    bench.serve(deployer, push("two"))
    deployed = deployer.deploy(push("crash"), bench.reporter, bench.cancel)
    assert bench.reporter.details[-1].endswith(", in place")
    with pytest.raises(DevloopError) as caught:
        deployer.follow(deployed, bench.reporter, bench.cancel)
    assert caught.value.code == "pod/crash-loop"
    assert "exit code 3" in caught.value.diagnosis.message
    now = State(bench)
    assert not now.paused
    crashing = [p for p in now.pods if p["metadata"]["uid"] in first.uids]
    broken = [p for p in crashing if not p["status"]["containerStatuses"][0]["ready"]]
    assert len(broken) == 1

    deployer.rollback(deployed, bench.reporter, bench.cancel)
    bench.serve(deployer, push("two"))
    # The controller counts a new revision afterwards, as it does after every way back.
    eventually(lambda: _agrees(bench, push("two"), replicas))
    bench.serve(deployer, push("three"))
    eventually(lambda: _agrees(bench, push("three"), replicas))


def _agrees(bench: Bench, image: ImageRef, pods: int) -> bool:
    try:
        State(bench).agrees(image, sets=None, pods=pods)
    except AssertionError:
        return False
    return True


def test_an_image_that_cannot_be_pulled(bench: Bench, push: Callable[[str], ImageRef]) -> None:
    deployer = bench.deployer(bench.project(quick(), replace="in-place"))
    bench.serve(deployer, push("one"))
    missing = dataclasses.replace(push("one"), digest="sha256:" + "0" * 64)
    deployed = deployer.deploy(missing, bench.reporter, bench.cancel)
    with pytest.raises(DevloopError) as caught:
        deployer.follow(deployed, bench.reporter, bench.cancel)
    assert caught.value.code == "pod/image-pull"
    assert not State(bench).paused
    bench.serve(deployer, push("two"))
    assert "rolling: pod web-" in bench.reporter.details[-2]
    State(bench).agrees(push("two"), sets=None)


# --- a killed session ----------------------------------------------------------------------------


def _killed(bench: Bench, project: Project, image: ImageRef, writes: int) -> None:
    argv = (str(project.root), bench.namespace, image.repository, image.digest, str(writes))
    script = _ROOT / "tests" / "support" / "killed_deploy.py"
    done = subprocess.run([sys.executable, str(script), *argv], check=False, timeout=60, cwd=_ROOT)
    assert done.returncode == 9


@pytest.mark.parametrize(
    ("writes", "how"),
    [
        *((writes, "recovery-log") for writes in range(5)),
        # Before the first patch there is no mark yet, after the last one no more.
        *((writes, "mark") for writes in (1, 2, 3)),
        *((writes, "older-image") for writes in (1, 2, 3, 4)),
    ],
)
def test_killed_between_two_patches(
    bench: Bench, push: Callable[[str], ImageRef], writes: int, how: str
) -> None:
    """`recovery-log`: recovered before the first deploy; `mark`: by a deploy on a machine that has
    no recovery log; `older-image`: by one that goes back to the image before."""
    project = bench.project(quick(), replace="in-place")
    bench.serve(bench.deployer(project), push("one"))
    _killed(bench, project, push("two"), writes)
    log = RecoveryLog(project.state_dir)
    assert len(log.entries()) == (1 if writes < 4 else 0)
    assert State(bench).paused == (1 <= writes <= 3)
    wanted = push("one") if how == "older-image" else push("two")
    deployer = bench.deployer(project)
    if how == "mark":
        for entry in log.entries():
            log.remove(entry)
    else:
        reported = bench.opened[-1].recover()
        assert len(reported) == (1 if 1 <= writes <= 3 else 0)
        assert log.entries() == ()
        assert not State(bench).paused
    bench.serve(deployer, wanted)
    State(bench).agrees(wanted, sets=None)
    bench.serve(deployer, push("three"))
    State(bench).agrees(push("three"), sets=None)


@pytest.mark.parametrize("writes", [1, 2, 3, 4, 5])
def test_killed_between_two_patches_of_several_replicas(
    bench: Bench, push: Callable[[str], ImageRef], writes: int
) -> None:
    project = bench.project(quick(spec={"replicas": 3}), replace="in-place")
    bench.serve(bench.deployer(project), push("one"))
    _killed(bench, project, push("two"), writes)
    assert State(bench).paused
    deployer = bench.deployer(project)
    assert len(bench.opened[-1].recover()) == 1
    assert not State(bench).paused
    bench.serve(deployer, push("two"))
    State(bench).agrees(push("two"), sets=None, pods=3)


# --- adopting an image ---------------------------------------------------------------------------


def test_adopted_images_leave_the_pods_alone(bench: Bench, push: Callable[[str], ImageRef]) -> None:
    project = bench.project(quick(), replace="in-place")
    deployer = bench.deployer(project)
    bench.serve(deployer, push("one"))
    first = State(bench)
    assert deployer.adopt(push("two"), bench.cancel) is None
    time.sleep(1.5)
    now = State(bench)
    assert (now.uids, now.restarts, now.revision) == (first.uids, [0], first.revision)
    assert images_of(now.deployment) == {"web": push("two").pinned}
    assert not now.paused
    assert len(now.sets) == 1

    bench.serve(deployer, push("three"))
    assert bench.reporter.details[-2].endswith(", in place")
    State(bench).agrees(push("three"))

    assert deployer.adopt(push("four"), bench.cancel) is None
    (pod,) = State(bench).pods
    path = f"/api/v1/namespaces/{bench.namespace}/pods/{pod['metadata']['name']}"
    bench.connection.request("DELETE", path, {"gracePeriodSeconds": 0})
    eventually(lambda: State(bench).uids != {pod["metadata"]["uid"]})
    deployed, _ = bench.serve(bench.deployer(project), push("four"))
    assert not deployed.changed
    State(bench).agrees(push("four"))


def test_a_later_session_restarts_what_only_adopted_its_image(
    bench: Bench, push: Callable[[str], ImageRef]
) -> None:
    project = bench.project(quick(), replace="in-place")
    deployer = bench.deployer(project)
    bench.serve(deployer, push("one"))
    assert deployer.adopt(push("two"), bench.cancel) is None
    bench.serve(bench.deployer(project), push("two"))
    now = State(bench)
    now.agrees(push("two"))
    assert now.restarts == [1]


def test_what_is_rolled_does_not_adopt(bench: Bench, push: Callable[[str], ImageRef]) -> None:
    rolling = bench.deployer(bench.project(quick()))
    bench.serve(rolling, push("one"))
    assert rolling.adopt(push("two"), bench.cancel) == "deploy.replace is rolling"
    assert images_of(bench.live()) == {"web": push("one").pinned}


class Refused:
    """A `Write` that the cluster refuses."""

    def other_changes(self) -> str:
        return ""

    def paused(self) -> Any:
        raise DevloopError.of(Code.CLUSTER_REJECTED, "a webhook says no")

    plain = fast = restore_strategy = paused


def test_a_deployment_that_refuses_the_image_gets_its_pod_back(
    bench: Bench, push: Callable[[str], ImageRef]
) -> None:
    """From the second time on, Deployment and pod are patched side by side."""
    deployer = bench.deployer(bench.project(quick(), replace="in-place"))
    bench.serve(deployer, push("one"))
    deployed, _ = bench.serve(deployer, push("two"))
    rollout = bench.opened[-1].in_place(deployed.picked.workload)
    uids = State(bench).uids
    change = Change(
        ref=deployed.picked.workload,
        live=bench.live(),
        containers=("web",),
        image=push("three"),
        write=Refused(),
    )
    with pytest.raises(DevloopError, match="says no"):
        rollout.replace(change, bench.cancel)
    eventually(lambda: State(bench).uids != uids)
    deployer.follow(deployed, bench.reporter, bench.cancel)
    State(bench).agrees(push("two"))
    bench.serve(deployer, push("four"))
    State(bench).agrees(push("four"))


def test_a_later_session_knows_what_a_pod_ran(
    bench: Bench, push: Callable[[str], ImageRef]
) -> None:
    """The kubelet would not start an image that the pod was restarted with a moment ago."""
    project = bench.project(quick(), replace="in-place")
    for label in ("one", "two", "three"):
        bench.serve(bench.deployer(project), push(label))
    uids = State(bench).uids
    bench.serve(bench.deployer(project), push("two"))
    now = State(bench)
    now.agrees(push("two"), sets=None)
    assert not uids & now.uids
    assert now.restarts == [0]


def test_a_pod_in_back_off_is_recreated(bench: Bench, push: Callable[[str], ImageRef]) -> None:
    """Somebody who works in another folder does not know what the pod ran."""
    project = bench.project(quick(), replace="in-place")
    for label in ("one", "two", "three"):
        bench.serve(bench.deployer(project), push(label))
    # The first time back goes through: the kubelet did not count the very first restart.
    shutil.rmtree(project.state_dir / "image-history")
    bench.serve(bench.deployer(project), push("two"))
    uids = State(bench).uids
    shutil.rmtree(project.state_dir / "image-history")
    bench.serve(bench.deployer(project), push("three"))
    assert any("it ran this image before" in line for line in bench.reporter.progressed)
    eventually(lambda: len(State(bench).pods) == 1)
    now = State(bench)
    now.agrees(push("three"), sets=None)
    assert not uids & now.uids


@pytest.mark.parametrize("label", ["two", "three", "four"])
def test_killed_when_only_the_pod_was_patched(
    bench: Bench, push: Callable[[str], ImageRef], label: str
) -> None:
    """What is left when a session dies while the two patches are under way: the next one brings
    all to what is on disk then, be it what was, what was on its way, or something else."""
    project = bench.project(quick(), replace="in-place")
    deployer = bench.deployer(project)
    for before in ("one", "two"):
        bench.serve(deployer, push(before))
    (pod,) = State(bench).pods
    bench.connection.request(
        "PATCH",
        f"/api/v1/namespaces/{bench.namespace}/pods/{pod['metadata']['name']}",
        {"spec": {"containers": [{"name": "web", "image": push("three").pinned}]}},
        query={"fieldManager": "devloop"},
        content_type=STRATEGIC,
    )
    view = ClusterView(bench.connection)
    try:
        renderings = renderings_of(project.services.values())
        shared = Deployments(project, bench.connection, view, renderings=renderings)
        shared.recover()
        bench.serve(shared.deployer(project.services["web"]), push(label))
        shared.close()
    finally:
        view.close()
    State(bench).agrees(push(label), sets=None)
