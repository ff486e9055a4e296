"""A changed ConfigMap or Secret is a changed pod template, whatever way the pods read it."""

from __future__ import annotations

from typing import Any

import pytest

from devloop.cluster.api.kinds import Resource
from devloop.cluster.deploy.config_reads import (
    READS,
    changed_reads,
    config_hashes,
    mark_templates,
    reads_of,
)
from devloop.cluster.deploy.objects import PlannedObject
from devloop.errors import Location


def planned(thing: dict[str, Any], version: str, plural: str, where: str = "dev") -> PlannedObject:
    resource = Resource(version, thing["kind"], plural)
    return PlannedObject(
        object=thing, resource=resource, namespace=where, location=Location("k8s.yaml")
    )


def config(name: str = "c", where: str = "dev", **data: str) -> PlannedObject:
    thing = {"kind": "ConfigMap", "metadata": {"name": name}, "data": data}
    return planned(thing, "v1", "configmaps", where)


def secret(name: str = "s", **more: Any) -> PlannedObject:
    thing = {"kind": "Secret", "metadata": {"name": name}, **more}
    return planned(thing, "v1", "secrets")


def template(container: dict[str, Any] | None = None, *volumes: dict[str, Any]) -> dict[str, Any]:
    return {"spec": {"containers": [{"name": "web", **(container or {})}], "volumes": [*volumes]}}


@pytest.mark.parametrize(
    "pod",
    [
        template({"envFrom": [{"configMapRef": {"name": "c", "optional": True}}]}),
        template({"env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "c"}}}]}),
        template({}, {"name": "v", "configMap": {"name": "c", "items": [{"key": "a"}]}}),
        template(
            {},
            {"name": "v", "projected": {"sources": [{"secret": {}}, {"configMap": {"name": "c"}}]}},
        ),
        {"spec": {"initContainers": [{"envFrom": [{"configMapRef": {"name": "c"}}]}]}},
    ],
)
def test_whatever_way_it_is_read_its_hash_is_noted(pod: dict[str, Any]) -> None:
    one = reads_of(pod, "dev", config_hashes([config(a="1")]))
    two = reads_of(pod, "dev", config_hashes([config(a="2")]))
    assert one.startswith("configmap/c=")
    assert one != two
    assert one == reads_of(pod, "dev", config_hashes([config(a="1"), config("other", a="3")]))


@pytest.mark.parametrize(
    "pod",
    [
        template({"envFrom": [{"secretRef": {"name": "s"}}]}),
        template({"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s"}}}]}),
        template({}, {"name": "v", "secret": {"secretName": "s"}}),
        template({}, {"name": "v", "projected": {"sources": [{"secret": {"name": "s"}}]}}),
    ],
)
def test_a_secret_is_noted_without_its_values(pod: dict[str, Any]) -> None:
    noted = reads_of(pod, "dev", config_hashes([secret(stringData={"token": "hunter2"})]))
    assert noted.startswith("secret/s=")
    assert "hunter2" not in noted


def test_a_secret_says_the_same_in_clear_and_encoded() -> None:
    clear = config_hashes([secret(stringData={"token": "a"})])
    assert clear == config_hashes([secret(data={"token": "YQ=="})])


def test_labels_and_formatting_are_nothing_that_a_pod_reads() -> None:
    plain, labelled = config(a="1"), config(a="1")
    labelled.object["metadata"]["labels"] = {"x": "y"}
    assert config_hashes([plain]) == config_hashes([labelled])


def test_what_is_not_among_the_manifests_or_in_another_namespace_is_not_noted() -> None:
    pod = template({"envFrom": [{"configMapRef": {"name": "c"}}]})
    assert reads_of(pod, "dev", config_hashes([config("d", a="1"), secret("c")])) == ""
    assert reads_of(pod, "dev", config_hashes([config("c", "other", a="1")])) == ""


def test_only_templates_that_read_one_get_the_annotation() -> None:
    reading = {
        "kind": "StatefulSet",
        "metadata": {"name": "r"},
        "spec": {"template": template({"envFrom": [{"configMapRef": {"name": "c"}}]})},
    }
    deaf = {"kind": "Deployment", "metadata": {"name": "d"}, "spec": {"template": template()}}
    objects = [
        config(a="1"),
        planned(reading, "apps/v1", "statefulsets"),
        planned(deaf, "apps/v1", "deployments"),
    ]
    mark_templates(objects, config_hashes(objects))
    assert READS in reading["spec"]["template"]["metadata"]["annotations"]  # type: ignore[index]
    assert deaf["spec"] == {"template": template()}


def test_what_changed_is_named_and_what_was_never_noted_is_not() -> None:
    live = {
        "spec": {"template": {"metadata": {"annotations": {READS: "configmap/a=1 secret/b=2"}}}}
    }
    assert changed_reads(live, "configmap/a=9 secret/b=8") == "ConfigMap a, Secret b"
    assert changed_reads(live, "configmap/a=1 secret/b=2 secret/new=3") == ""
    assert changed_reads({"spec": {"template": {}}}, "configmap/a=9") == ""
    assert changed_reads(None, "configmap/a=9") == ""
