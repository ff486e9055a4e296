"""`replace: rolling`: the workload gets the image, and the controllers replace its pods."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from devloop.cluster.api.pod_view import uid_of
from devloop.cluster.replace.pause import paused_by_devloop, resume
from devloop.cluster.replace.strategy import Change, Replaced, Replacement

if TYPE_CHECKING:
    from devloop.base.cancel import Cancel
    from devloop.cluster.api.connection import Connection
    from devloop.cluster.replace.strategy import Written


class RollingUpdate(Replacement):
    """Always possible: the last in every order."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def blocker(self, change: Change, cancel: Cancel) -> str | None:  # noqa: ARG002 - the interface
        return None

    def replace(self, change: Change, cancel: Cancel) -> Replaced:  # noqa: ARG002 - the interface
        return Replaced(how="rolling", written=self._resumed(change, change.write.plain()))

    def _resumed(self, change: Change, written: Written) -> Written:
        """What is to be rolled is not left paused by an in-place replacement before."""
        if not paused_by_devloop(written.object):
            return written
        resumed = resume(self._connection, change.ref, uid_of(written.object))
        return replace(written, object=resumed or written.object)
