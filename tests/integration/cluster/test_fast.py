"""`replace: fast` on the real cluster: what it changes, and that it is taken back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from devloop.cluster.api.pod_view import dig
from devloop.cluster.deploy.deployments import Deployments
from devloop.cluster.replace.rolling import is_fast
from tests.integration.cluster.conftest import QUICK, Bench, workload

if TYPE_CHECKING:
    from collections.abc import Callable

    from devloop.model import ImageRef

pytestmark = [pytest.mark.kind, pytest.mark.docker]

_OWN = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": "50%"}}


def _manifest(**spec: Any) -> Any:
    made = workload(spec=spec)
    made["spec"]["template"]["spec"]["containers"][0]["command"] = ["sh", "-c", QUICK]
    return made


def _strategy(bench: Bench) -> Any:
    return dig(bench.live(), "spec", "strategy")


@pytest.mark.parametrize("own", [None, _OWN], ids=["default", "given"])
def test_the_manifests_strategy_is_back_at_the_end(
    bench: Bench, push: Callable[[str], ImageRef], own: Any
) -> None:
    manifest = _manifest(**({"strategy": own} if own else {}))
    plain = bench.deployer(bench.project(manifest))
    bench.serve(plain, push("one"))
    before = _strategy(bench)

    deployer = bench.deployer(bench.project(manifest, replace="fast"))
    bench.serve(deployer, push("two"))
    assert is_fast(bench.live())
    pods = _pods(bench)
    bench.opened[-1].close()
    assert _strategy(bench) == before
    # Nothing is rolled for it, and a session without `fast` finds nothing to do.
    deployed, _ = bench.serve(bench.deployer(bench.project(manifest)), push("two"))
    assert not deployed.changed
    assert _pods(bench) == pods


@pytest.mark.parametrize("killed", [False, True])
def test_a_patched_strategy_is_put_back(
    bench: Bench, push: Callable[[str], ImageRef], killed: bool
) -> None:
    original = _manifest(strategy=_OWN)
    original["spec"]["template"]["spec"]["containers"][0]["image"] = push("one").pinned
    bench.create(original, "deployments")
    project = bench.project(replace="fast")
    bench.serve(bench.deployer(project), push("two"))
    assert is_fast(bench.live())
    if killed:
        assert len(Deployments(project, bench.connection, bench.view).recover()) == 1
    else:
        bench.opened[-1].close()
    assert _strategy(bench) == _OWN
    assert bench.opened[-1].recovery_log.entries() == ()


def test_recreate_stays_and_the_old_pod_gets_a_second(
    bench: Bench, push: Callable[[str], ImageRef]
) -> None:
    manifest = workload(spec={"strategy": {"type": "Recreate"}}, terminationGracePeriodSeconds=60)
    deployer = bench.deployer(bench.project(manifest, replace="fast", timeout=30))
    bench.serve(deployer, push("one"))
    bench.serve(deployer, push("two"))
    assert dig(bench.live(), "spec", "strategy", "type") == "Recreate"


def _pods(bench: Bench) -> set[str]:
    found = bench.get(f"/api/v1/namespaces/{bench.namespace}/pods")["items"]
    return {p["metadata"]["uid"] for p in found if not p["metadata"].get("deletionTimestamp")}
