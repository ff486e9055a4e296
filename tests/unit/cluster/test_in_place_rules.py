"""When containers may be restarted in place, and how a restarted pod is read."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from devloop.cluster.api.pod_view import dig, pod_view
from devloop.cluster.deploy.ownership import desired, same_but_images
from devloop.cluster.replace.in_place_rules import Memory, in_place_blocker
from devloop.cluster.replace.pause import (
    PAUSE_LABEL,
    paused_by_devloop,
    paused_by_other,
    with_pause,
)
from devloop.cluster.rollout.diagnose import NEVER, examine
from devloop.cluster.rollout.replica_sets import matching_set
from devloop.cluster.rollout.restarted_pod import (
    RestartRecord,
    found_records,
    in_back_off,
    mismatched,
    normalised,
    pending,
    restart_record,
)
from devloop.model import ImageRef
from tests.support.cluster_objects import (
    IMAGE,
    deployment,
    pod,
    replicaset,
    running,
    terminated,
    waiting,
)

if TYPE_CHECKING:
    from collections.abc import Callable

NEW = ImageRef(repository="localhost:5001/shop/web", tag="2", digest="sha256:" + "b" * 64)
UID = "pod-web-new-x"
OTHER = "localhost:5001/shop/web@sha256:" + "c" * 64


class Scene:
    """A Deployment, its ReplicaSet and its one pod, all level at `IMAGE`."""

    def __init__(self) -> None:
        self.live = deployment()
        self.sets = [replicaset()]
        self.sets[0]["spec"]["template"] = copy.deepcopy(self.live["spec"]["template"])
        self.sets[0]["spec"]["replicas"] = 1
        labels = self.sets[0]["spec"]["template"]["metadata"]["labels"]
        labels["pod-template-hash"] = "new"
        self.pods = [pod(running())]
        self.memory = Memory()
        self.containers = ("web",)
        self.image = NEW
        self.restart = True
        self.insists = False

    @property
    def spec(self) -> dict[str, Any]:
        """The pod spec, of Deployment and ReplicaSet alike."""
        found: dict[str, Any] = self.live["spec"]["template"]["spec"]
        self.sets[0]["spec"]["template"]["spec"] = found
        return found

    def blocker(self) -> str | None:
        return in_place_blocker(
            self.live,
            self.sets,
            self.pods,
            containers=self.containers,
            image=self.image,
            memory=self.memory,
            restart=self.restart,
            insists=self.insists,
        )


def _set(path: str, value: Any) -> Callable[[Scene], None]:
    def change(scene: Scene) -> None:
        scene.live["spec"][path] = value

    return change


def _web(**more: Any) -> Callable[[Scene], None]:
    return lambda scene: scene.spec["containers"][0].update(more)


def _pod(*statuses: Any) -> Callable[[Scene], None]:
    def change(scene: Scene) -> None:
        scene.pods = [pod(*statuses)]

    return change


def _memory(**more: Any) -> Callable[[Scene], None]:
    def change(scene: Scene) -> None:
        scene.memory = Memory(**more)

    return change


def _init(**more: Any) -> Callable[[Scene], None]:
    return lambda scene: scene.spec.update(initContainers=[{"name": "i", "image": "x", **more}])


def _recreate(replicas: int) -> Callable[[Scene], None]:
    def change(scene: Scene) -> None:
        scene.live["spec"].update(replicas=replicas, strategy={"type": "Recreate"})

    return change


def _another_set(image: str, replicas: int) -> Callable[[Scene], None]:
    def change(scene: Scene) -> None:
        older = replicaset(image, hash_="old", revision="1")
        older["spec"]["replicas"] = replicas
        scene.sets.insert(0, older)

    return change


def _template_ahead(scene: Scene) -> None:
    scene.live["spec"]["template"] = copy.deepcopy(scene.live["spec"]["template"])
    scene.live["spec"]["template"]["spec"]["containers"][0]["env"] = [{"name": "A"}]


def _image_ahead(scene: Scene) -> None:
    scene.live["spec"]["template"]["spec"] = {"containers": [{"name": "web", "image": OTHER}]}


def _asks(image: str) -> Callable[[Scene], None]:
    def change(scene: Scene) -> None:
        scene.pods[0]["spec"]["containers"][0]["image"] = image

    return change


def test_a_level_deployment_can_be_done_in_place() -> None:
    assert Scene().blocker() is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_init(), "init containers must run again"),
        (_web(lifecycle={"preStop": {"exec": {}}}), "preStop"),
        (_web(imagePullPolicy="Never"), "imagePullPolicy is Never"),
        (_set("minReadySeconds", 3), "minReadySeconds"),
        (_recreate(2), "strategy Recreate"),
        (_another_set(OTHER, 1), "a rollout is under way"),
        (_another_set(NEW.pinned, 0), "it ran this image before"),
        (_template_ahead, "a rollout of another change"),
        (_image_ahead, "a rollout is under way"),
        (lambda s: s.sets.clear(), "ReplicaSet is not known"),
        (lambda s: s.pods.clear(), "no pod runs"),
        (_pod(running(ready=False)), "is not ready"),
        (_pod(waiting("CrashLoopBackOff")), "is not ready"),
        (_asks("mirror.local/shop/web@sha256:" + "a" * 64), "something changes the images"),
        (_memory(lately={UID: frozenset({NEW.pinned})}), "its pod ran this image before"),
        (_memory(had={UID: frozenset({NEW.pinned})}), None),
        (_memory(slow={"web": 7}), "web needed 7 s to stop"),
        (_memory(refusal="the cluster refuses it"), "the cluster refuses it"),
        (_memory(unproven=frozenset({UID})), None),
        (lambda s: setattr(s, "containers", ("web", "job")), "2 containers"),
        (lambda s: setattr(s, "image", replace(NEW, digest="")), "no digest"),
    ],
)
def test_the_blocker_of_a_restart_in_place(
    change: Callable[[Scene], None], words: str | None
) -> None:
    scene = Scene()
    change(scene)
    blocker = scene.blocker()
    assert blocker is None if words is None else words in (blocker or "")


@pytest.mark.parametrize(
    "change",
    [
        _init(restartPolicy="Always"),
        _recreate(1),
        _another_set(OTHER, 0),
        _asks(OTHER),  # adopted, or patched by a session that was killed
        _asks(NEW.pinned),
    ],
)
def test_what_blocks_no_restart_in_place(change: Callable[[Scene], None]) -> None:
    scene = Scene()
    change(scene)
    assert scene.blocker() is None


def test_what_devloop_paused_goes_on() -> None:
    scene = Scene()
    _image_ahead(scene)
    scene.live = with_pause(scene.live)
    assert paused_by_devloop(scene.live)
    assert scene.blocker() is None


def test_a_pod_on_its_way_can_be_overtaken_but_not_one_that_fails() -> None:
    scene = Scene()
    scene.memory = Memory(unproven=frozenset({UID}))
    for status in (running(ready=False), waiting("ContainerCreating"), terminated(143)):
        _pod(status)(scene)
        assert scene.blocker() is None
    for reason in ("CrashLoopBackOff", "ImagePullBackOff"):
        _pod(waiting(reason))(scene)
        assert "is not ready" in (scene.blocker() or "")


def test_adopting_does_not_care_for_the_pods() -> None:
    scene = Scene()
    scene.restart = False
    _init()(scene)
    _pod(waiting("CrashLoopBackOff"))(scene)
    assert scene.blocker() is None
    scene.containers = ("i",)
    assert "init container" in (scene.blocker() or "")


def test_only_the_pause_of_devloop_is_its_own() -> None:
    paused = deployment(paused=True)
    assert not paused_by_devloop(paused)
    assert not paused_by_devloop({**deployment(), "metadata": {"labels": {PAUSE_LABEL: "paused"}}})
    assert paused_by_devloop(with_pause(paused))
    fields: dict[str, Any] = {"f:spec": {"f:paused": {}}}
    own = {"metadata": {"managedFields": [{"manager": "devloop", "fieldsV1": fields}]}}
    other = {"metadata": {"managedFields": [{"manager": "kubectl", "fieldsV1": fields}]}}
    assert not paused_by_other(own)
    assert paused_by_other(other)


def _applied(image: str, **web: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """A manifest, and the live Deployment after it was applied with another image."""
    manifest = deployment(image)
    del manifest["status"]
    manifest["metadata"] = {"name": "web", "namespace": "dev"}
    manifest["spec"]["template"]["spec"]["containers"][0].update(web)
    was = copy.deepcopy(manifest)
    was["spec"]["template"]["spec"]["containers"][0]["image"] = IMAGE
    live = desired(was, None, "shop")
    return manifest, live


def test_a_manifest_that_differs_in_the_image_alone() -> None:
    manifest, live = _applied(NEW.pinned)
    assert same_but_images(manifest, live, ("web",), "shop")
    manifest["spec"]["replicas"] = 2
    assert not same_but_images(manifest, live, ("web",), "shop")


def test_a_template_that_somebody_changed_is_not_the_same_manifest() -> None:
    manifest, live = _applied(NEW.pinned, env=[{"name": "A", "value": "b"}])
    live["spec"]["template"]["spec"]["containers"][0]["env"] = [{"name": "A", "value": "c"}]
    assert not same_but_images(manifest, live, ("web",), "shop")


def test_the_controller_takes_the_oldest_equal_set() -> None:
    scene = Scene()
    younger = copy.deepcopy(scene.sets[0])
    scene.sets[0]["metadata"]["creationTimestamp"] = "2026-01-02T00:00:00Z"
    younger["metadata"]["creationTimestamp"] = "2026-01-03T00:00:00Z"
    assert matching_set(scene.live, (younger, *scene.sets)) is scene.sets[0]
    _image_ahead(scene)
    assert matching_set(scene.live, scene.sets) is None


# --- reading -------------------------------------------------------------------------------------

RECORD = RestartRecord(image=NEW.pinned, old_ids=frozenset({"containerd://1"}), restarts=4)


def _read(status: dict[str, Any]) -> Any:
    return normalised(pod(status), {"web": RECORD})


def test_the_old_container_is_one_that_starts() -> None:
    seen = pod_view(_read(running(restarts=4)))
    assert not seen.ready
    assert seen.containers[0].state == "waiting"
    assert examine(_read(running(restarts=4))) is None
    ended = terminated(137) | {"containerID": "containerd://1", "restartCount": 4}
    assert examine(_read(ended)) is None


def test_the_restart_that_was_asked_for_is_none() -> None:
    last = {"terminated": {"exitCode": 137, "containerID": "containerd://1"}}
    status = running(NEW.pinned, restarts=5, containerID="containerd://2", lastState=last)
    seen = pod_view(_read(status))
    assert seen.ready
    assert (seen.containers[0].restarts, seen.containers[0].last_exit_code) == (0, None)


def test_a_crash_after_it_counts() -> None:
    status = waiting("CrashLoopBackOff") | {"containerID": "containerd://3", "restartCount": 6}
    found = examine(_read(status))
    assert found is not None
    assert found.diagnosis.code == "pod/crash-loop"
    assert "1 restart)" in found.diagnosis.message


def test_a_crash_of_the_container_before_is_not_the_new_ones() -> None:
    status = waiting("CrashLoopBackOff") | {"containerID": "containerd://1", "restartCount": 4}
    assert examine(_read(status)) is None
    assert not pod_view(_read(status)).ready


def test_a_failed_pull_is_reported_under_the_old_id() -> None:
    status = waiting("ErrImagePull") | {"containerID": "containerd://1", "restartCount": 4}
    found = examine(_read(status))
    assert found is not None
    assert found.diagnosis.code == "pod/image-pull"


def test_a_patch_back_to_what_runs_restarts_nothing() -> None:
    assert pod_view(_read(running(NEW.pinned, restarts=4))).ready


def test_records_add_up_until_the_pod_is_ready() -> None:
    thing = pod(running(restarts=4))
    first = restart_record(thing, "web", OTHER, None)
    ids = frozenset({"containerd://1"})
    assert first == RestartRecord(image=OTHER, old_ids=ids, restarts=4, was_running=True)
    later = pod(running(restarts=5, containerID="containerd://2"))
    second = restart_record(later, "web", NEW.pinned, first)
    assert (second.restarts, second.patches) == (4, 2)
    assert second.old_ids == {"containerd://1", "containerd://2"}


def test_only_a_container_that_ran_can_be_in_back_off() -> None:
    """One that crashed before the patch is reported for a while longer."""
    back_off = waiting("CrashLoopBackOff") | {"containerID": "containerd://1"}
    ran = restart_record(pod(running()), "web", OTHER, None)
    crashed = restart_record(pod(terminated(1)), "web", OTHER, None)
    assert in_back_off(pod(back_off), {"web": ran})
    assert not in_back_off(pod(back_off), {"web": crashed})
    assert not in_back_off(pod(running()), {"web": ran})
    new = back_off | {"containerID": "containerd://2"}
    assert not in_back_off(pod(new), {"web": ran})
    assert not in_back_off(pod(back_off), {})


def _found(before: dict[str, Any], now: dict[str, Any]) -> Any:
    """What is wrong with a pod that a rollout of `NEW` found as `before` and that is `now`."""
    return examine(normalised(pod(now), found_records(pod(before), ("web",), NEW)))


def test_a_container_that_is_found_on_its_way_to_the_image_does_not_crash() -> None:
    before = running(restarts=1)
    killed = terminated(0, restarts=1)
    coming = running(NEW.pinned, ready=False, restarts=2, containerID="containerd://2")
    for now in (before, killed, coming):
        assert _found(before, now) is None or _found(before, now).grace == NEVER
        assert _found(killed, now) is None or _found(killed, now).grace == NEVER
    assert _found(coming, coming) is None


def test_restarts_of_an_earlier_day_are_no_crash_loop() -> None:
    last = {"terminated": {"exitCode": 137, "reason": "OOMKilled", "containerID": "containerd://0"}}
    status = running(NEW.pinned, ready=False, restarts=40, lastState=last)
    assert _found(status, status) is None
    assert examine(pod(status)) is not None


def test_a_pod_that_is_found_crashing_is_reported_with_its_restarts() -> None:
    status = waiting("CrashLoopBackOff", restarts=5) | {
        "containerID": "containerd://1",
        "imageID": NEW.pinned,
    }
    assert "5 restarts" in _found(status, status).diagnosis.message


def test_the_crash_loop_of_the_image_before_is_not_that_of_the_one_to_come() -> None:
    before = waiting("CrashLoopBackOff", restarts=5) | {
        "containerID": "containerd://1",
        "imageID": IMAGE,
    }
    assert _found(before, before) is None
    again = waiting("CrashLoopBackOff", restarts=7) | {
        "containerID": "containerd://2",
        "imageID": NEW.pinned,
    }
    assert "1 restart)" in _found(before, again).diagnosis.message


def test_pods_with_another_image_of_ours_are_pending() -> None:
    thing = pod(running())
    assert mismatched(thing, ("web",), NEW.pinned)
    assert not mismatched(thing, ("web",), IMAGE)
    assert not mismatched(thing, ("web",), NEW.pinned.replace("localhost:5001", "mirror"))
    seen = pending(thing, ("web",))
    assert not pod_view(seen).ready
    assert dig(seen, "metadata", "uid") == UID


def _with_volume(volume: dict[str, Any], **mount: Any) -> Scene:
    scene = Scene()
    scene.spec["volumes"] = [{"name": "run", **volume}]
    scene.spec["containers"][0]["volumeMounts"] = [{"name": "run", "mountPath": "/run", **mount}]
    return scene


def test_what_the_last_run_left_in_an_empty_dir_is_not_left_to_the_next_one() -> None:
    scene = _with_volume({"emptyDir": {}})
    found = scene.blocker()
    assert found is not None
    assert found.startswith("emptyDir run would keep what the last run left there")
    scene.insists = True
    assert scene.blocker() is None
    scene.insists, scene.restart = False, False
    assert scene.blocker() is None


@pytest.mark.parametrize(
    "scene",
    [
        _with_volume({"emptyDir": {}}, readOnly=True),
        # What stays for a new pod as well is no reason.
        _with_volume({"persistentVolumeClaim": {"claimName": "data"}}),
        _with_volume({"hostPath": {"path": "/data"}}),
    ],
)
def test_other_volumes_do_not_speak_against_replacement_in_place(scene: Scene) -> None:
    assert scene.blocker() is None


def test_the_empty_dir_of_another_container_stays_as_it_is() -> None:
    scene = _with_volume({"emptyDir": {}})
    mounts = scene.spec["containers"][0].pop("volumeMounts")
    scene.spec["containers"].append({"name": "proxy", "image": "x", "volumeMounts": mounts})
    assert scene.blocker() is None
