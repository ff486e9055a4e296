"""What the manifests have no more is deleted where devloop created it, else named."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from devloop.base.cancel import Cancel
from devloop.cluster.api.kinds import Discovery
from devloop.cluster.deploy.left_over import AppliedObjects, LeftOvers
from devloop.cluster.deploy.objects import PlannedObject
from devloop.config.schema import Project
from devloop.errors import Location
from devloop.manifests import renderings_of
from devloop.model import CREATED_BY, WorkloadRef
from tests.support.cluster_objects import service_config
from tests.support.fake_api import Fault

if TYPE_CHECKING:
    from pathlib import Path

    from devloop.cluster.api.connection import Connection
    from devloop.errors import Diagnosis
    from tests.support.fake_api import FakeApi

WEB = [WorkloadRef("deployment", "web", "dev")]
OLD = "/api/v1/namespaces/dev/configmaps/old"


def thing(kind: str, name: str, version: str = "v1") -> dict[str, Any]:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name}}


class Bench:
    """Two services, `web` of web.json and `api` of api.json, each a list of objects."""

    def __init__(self, api: FakeApi, connection: Connection, root: Path) -> None:
        self.api, self.connection, self.root = api, connection, root
        self.reported: list[Diagnosis] = []
        self.deleted: list[str] = []
        self.write("web")
        self.write("api")
        web = service_config(root, manifests=(str(root / "web*.json"),))
        other = service_config(root, manifests=(str(root / "api*.json"),))
        self.services = {"web": web, "api": replace(other, name="api")}
        self.start()

    def start(self) -> None:
        """As a new session: what is known is on disk."""
        project = Project(
            name="shop",
            root=self.root,
            file=self.root / "devloop.yaml",
            services=self.services,
        )
        self.applied = AppliedObjects(project.state_dir, "fake", "dev")
        self.left_overs = LeftOvers(
            project,
            self.connection,
            self.applied,
            renderings_of(self.services.values()),
            deleted=self.deleted.append,
        )

    def write(self, service: str, *things: dict[str, Any]) -> None:
        document = {"apiVersion": "v1", "kind": "List", "items": list(things)}
        (self.root / f"{service}.json").write_text(json.dumps(document))

    def apply(self, service: str, *things: dict[str, Any], by: str = "shop") -> None:
        """What `service` has from now on: written, remembered, in the cluster."""
        self.write(service, *things)
        planned = []
        for each in things:
            place = Location(str(self.root / f"{service}.json"))
            resource = Discovery(self.connection).resource(each["apiVersion"], each["kind"], place)
            where = "dev" if resource.namespaced else ""
            one = PlannedObject(object=each, resource=resource, namespace=where, location=place)
            planned.append(one)
            if one.path not in self.api.objects:
                marks = {CREATED_BY: by} if by else {}
                meta = each["metadata"] | {"annotations": marks}
                self.api.put(one.path, each | {"metadata": meta})
        self.applied.about_to_apply(service, planned)

    def remove(self, service: str = "web", runs: list[WorkloadRef] = WEB) -> list[str]:
        before = len(self.reported)
        self.left_overs.remove(service, runs, self.reported.append, Cancel())
        return [each.message for each in self.reported[before:]]


@pytest.fixture
def bench(api: FakeApi, connection: Connection, tmp_path: Path) -> Bench:
    root = tmp_path / "project"
    root.mkdir()
    return Bench(api, connection, root)


OLD_MAP, NEW_MAP = thing("ConfigMap", "old"), thing("ConfigMap", "new")


def test_what_devloop_created_is_deleted_and_said_once(bench: Bench) -> None:
    bench.apply("web", OLD_MAP, NEW_MAP)
    assert bench.remove() == []
    bench.apply("web", NEW_MAP)
    assert bench.remove() == ["ConfigMap old deleted: the manifests have it no more"]
    assert OLD not in bench.api.objects
    assert bench.deleted == [OLD]
    assert bench.remove() == []


def test_a_killed_session_forgets_nothing(bench: Bench) -> None:
    bench.apply("web", OLD_MAP, NEW_MAP)
    bench.start()
    bench.apply("web", NEW_MAP)
    bench.start()
    bench.apply("web", NEW_MAP)
    assert bench.remove() == ["ConfigMap old deleted: the manifests have it no more"]


@pytest.mark.parametrize("by", ["", "another"])
def test_what_devloop_did_not_create_is_named_once_with_the_command(bench: Bench, by: str) -> None:
    bench.apply("web", OLD_MAP, NEW_MAP, by=by)
    bench.apply("web", NEW_MAP)
    assert bench.remove() == ["ConfigMap old stays in the cluster: the manifests have it no more"]
    assert bench.reported[0].suggestions == ("kubectl -n dev delete configmap old",)
    assert OLD in bench.api.objects
    bench.start()
    bench.apply("web", NEW_MAP)
    assert bench.remove() == []


@pytest.mark.parametrize(
    ("kind", "version"),
    [
        ("PersistentVolumeClaim", "v1"),
        ("PersistentVolume", "v1"),
        ("Namespace", "v1"),
        ("CustomResourceDefinition", "apiextensions.k8s.io/v1"),
    ],
)
def test_what_takes_data_along_is_only_named(bench: Bench, kind: str, version: str) -> None:
    found = thing(kind, "old", version)
    bench.apply("web", found, NEW_MAP)
    before = set(bench.api.objects)
    bench.apply("web", NEW_MAP)
    assert bench.remove() == [f"{kind} old stays in the cluster: the manifests have it no more"]
    assert set(bench.api.objects) == before


def test_what_another_service_has_stays_until_neither_has_it(bench: Bench) -> None:
    bench.apply("web", OLD_MAP)
    bench.apply("api", OLD_MAP)
    bench.apply("web", NEW_MAP)
    assert bench.remove() == []
    bench.apply("api")
    assert bench.remove("api", []) == ["ConfigMap old deleted: the manifests have it no more"]


def test_what_another_service_is_about_to_apply_stays(bench: Bench) -> None:
    bench.apply("web", OLD_MAP)
    bench.apply("web", NEW_MAP)
    bench.write("api", OLD_MAP)
    assert bench.remove() == []
    assert OLD in bench.api.objects


@pytest.mark.parametrize("service", ["web", "api"])
def test_a_manifest_that_cannot_be_read_deletes_nothing(bench: Bench, service: str) -> None:
    bench.apply("web", OLD_MAP, NEW_MAP)
    bench.apply("web", NEW_MAP)
    path = bench.root / f"{service}.json"
    good = path.read_text()
    path.write_text("{")
    assert bench.remove() == []
    path.unlink()
    assert bench.remove() == []
    path.write_text(good)
    assert bench.remove() == ["ConfigMap old deleted: the manifests have it no more"]


def test_a_file_that_is_left_out_with_a_note_deletes_nothing(bench: Bench) -> None:
    bench.apply("web", OLD_MAP)
    bench.apply("web", NEW_MAP)
    (bench.root / "web.json").rename(bench.root / "web-new.json")
    (bench.root / "web.json").write_text('{"half": "saved"}')
    assert bench.remove() == []


def test_the_workload_that_is_patched_from_now_on_stays(bench: Bench) -> None:
    found = thing("Deployment", "web", "apps/v1")
    bench.apply("web", found, NEW_MAP)
    bench.apply("web", NEW_MAP)
    assert bench.remove() == []
    assert "/apis/apps/v1/namespaces/dev/deployments/web" in bench.api.objects


def test_one_that_moved_to_another_version_is_the_same(bench: Bench) -> None:
    bench.apply("web", thing("CronJob", "tidy", "batch/v1"))
    bench.applied.about_to_apply("web", [])
    bench.write("web", thing("CronJob", "tidy", "batch/v2"))
    assert bench.remove() == []


def test_a_refusal_is_said_once_and_not_tried_at_every_iteration(bench: Bench) -> None:
    bench.apply("web", OLD_MAP, NEW_MAP)
    bench.apply("web", NEW_MAP)
    body = {"kind": "Status", "code": 403, "reason": "Forbidden", "message": "no"}
    bench.api.faults.append(Fault(method="DELETE", path="configmaps/old", code=403, body=body))
    assert bench.remove() == ["ConfigMap old cannot be deleted, and the manifests have it no more"]
    assert bench.remove() == []
    bench.start()
    bench.apply("web", NEW_MAP)
    assert bench.remove() == ["ConfigMap old deleted: the manifests have it no more"]


def test_an_ordinary_iteration_writes_no_file_and_asks_nothing(bench: Bench) -> None:
    bench.apply("web", OLD_MAP)
    written = {path: path.stat() for path in bench.root.rglob("*") if path.is_file()}
    calls = len(bench.api.calls)
    bench.apply("web", OLD_MAP)
    bench.remove()
    kept = {path: path.stat().st_ino for path in bench.root.rglob("*.json")}
    assert all(kept[path] == before.st_ino for path, before in written.items())
    assert len(bench.api.calls) == calls


@pytest.mark.parametrize("value", ["{", '{"objects": [1, {"kind": "Pod"}, {"kind": []}]}', "[]"])
def test_a_damaged_record_deletes_nothing(bench: Bench, value: str) -> None:
    bench.apply("web", OLD_MAP)
    (file,) = (bench.root / ".devloop").rglob("web.json")
    file.write_text(value)
    bench.start()
    bench.apply("web", NEW_MAP)
    assert bench.remove() == []


def test_what_a_service_had_that_is_no_more_goes_once_another_is_served(bench: Bench) -> None:
    bench.apply("api", OLD_MAP, NEW_MAP)
    bench.apply("web", NEW_MAP)
    del bench.services["api"]
    (bench.root / "api.json").unlink()
    bench.start()
    bench.apply("web", NEW_MAP)
    assert bench.remove() == ["ConfigMap old deleted: the manifests have it no more"]
    assert bench.deleted == [OLD]
    assert bench.remove() == []
    assert bench.applied.all("api") == ()


def test_a_service_that_is_called_otherwise_keeps_what_it_has(bench: Bench) -> None:
    bench.apply("api", OLD_MAP)
    bench.services["backend"] = replace(bench.services.pop("api"), name="backend")
    bench.start()
    bench.apply("web", NEW_MAP)
    assert bench.remove() == []
    assert OLD in bench.api.objects


def test_services_of_another_config_file_are_left_alone(bench: Bench) -> None:
    other = AppliedObjects(bench.root / ".devloop", "fake", "dev", "staging.yaml")
    bench.apply("api", OLD_MAP)
    objects = bench.applied.all("api")
    assert objects
    (bench.root / ".devloop/applied/fake/dev/api.json").unlink()
    other._known["api"] = {each.key: each for each in objects}
    other._save("api")
    del bench.services["api"]
    bench.write("api")
    bench.start()
    bench.apply("web", NEW_MAP)
    assert bench.remove() == []
    assert OLD in bench.api.objects
