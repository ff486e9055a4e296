"""What is said of an apply that the API server refuses for good."""

from __future__ import annotations

import pytest

from devloop.cluster.api.api_errors import status_error
from devloop.cluster.api.kinds import Resource
from devloop.cluster.deploy.apply import cannot_change, is_for_good
from devloop.cluster.deploy.objects import PlannedObject
from devloop.errors import Location
from devloop.model import CREATED_BY

SELECTOR = {
    "message": 'Deployment.apps "web" is invalid: spec.selector: Invalid value: field is immutable',
    "reason": "Invalid",
    "details": {
        "causes": [{"field": "spec.selector", "message": "Invalid value: field is immutable"}]
    },
}


def test_what_cannot_be_changed_is_named_with_the_command_to_delete_it() -> None:
    error = status_error(422, SELECTOR, method="PATCH", path="/", server="s")
    resource = Resource("apps/v1", "Deployment", "deployments")
    planned = PlannedObject(
        object={"kind": "Deployment", "metadata": {"name": "web"}},
        resource=resource,
        namespace="dev",
        location=Location("k8s.yaml", 3, 1),
    )
    live = {"metadata": {"annotations": {CREATED_BY: "shop"}}}
    for project, most in (("shop", 2), ("other", 1)):
        found = cannot_change(planned, error, live, project).diagnosis
        assert found.code == "cluster/rejected"
        assert found.message == "spec.selector of Deployment web cannot be changed while it exists"
        assert str(found.location) == "k8s.yaml:3:1"
        assert "kubectl -n dev delete deployments.apps web" in found.suggestions[0]
        assert len(found.suggestions) == most


@pytest.mark.parametrize(
    ("text", "for_good"),
    [
        (
            'Service "a" is invalid: spec.clusterIPs[0]: Invalid value: may not change once set',
            True,
        ),
        (
            'StatefulSet.apps "a" is invalid: updates to statefulset spec for fields other than x',
            True,
        ),
        ('PersistentVolumeClaim "a" is invalid: spec: Forbidden: spec is immutable after', True),
        ('RoleBinding "a" is invalid: roleRef: Invalid value: cannot change roleRef', True),
        ('Deployment.apps "a" is invalid: spec.replicas: must be greater than 0', False),
    ],
)
def test_what_is_for_good_is_known_by_the_servers_words(text: str, for_good: bool) -> None:
    error = status_error(422, {"message": text}, method="PATCH", path="/", server="s")
    assert is_for_good(error) is for_good
