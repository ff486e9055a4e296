"""The deployers of one project: where they are made, recovered and closed.

How one service's image gets served is `workload`'s.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from devloop.base.cancel import Cancel
from devloop.base.threads import Background
from devloop.cluster.deploy.recover import recover
from devloop.cluster.deploy.shared import SharedDeploy
from devloop.cluster.deploy.workload import WorkloadDeployer

if TYPE_CHECKING:
    from devloop.config.schema import Service
    from devloop.errors import Diagnosis


_CLOSE_SECONDS = 5.0


class Deployments(SharedDeploy):
    """What the deployers of one project share, and they themselves. `in_place_by_default` is what
    `replace: auto` means on a local cluster."""

    _deployers: tuple[WorkloadDeployer, ...] = ()

    def deployer(self, service: Service) -> WorkloadDeployer:
        made = WorkloadDeployer(service, self)
        self._deployers += (made,)
        return made

    def recover(self) -> tuple[Diagnosis, ...]:
        """Recover what an earlier session of this project left half done, before the first deploy.
        Returns what to report; asks the cluster nothing when there is nothing to recover."""
        return recover(self.connection, self.recovery_log)

    def close(self, deadline: float | None = None) -> None:
        """Leave nothing half done: called when the session ends, before the views are closed.

        Returns at `deadline` (of the monotonic clock; None for a few seconds from now) even if the
        cluster is silent; the recovery log then keeps what is left for the next start."""
        if deadline is None:
            deadline = time.monotonic() + _CLOSE_SECONDS
        ends = [Background(f"close {d.name}", d.close) for d in self._deployers]
        for end in ends:
            end.wait(max(0.0, deadline - time.monotonic()), Cancel())
            end.stop()
