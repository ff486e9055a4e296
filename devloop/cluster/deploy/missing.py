"""An object that a deploy needs and that somebody else makes: how the deploy says so, and how it is
waited for afterwards.

The object is asked for by its name now and then: a watch would need a right that not everybody has,
of every namespace say. Decides nothing of what follows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from devloop.cluster.api.pod_view import dig
from devloop.errors import Code, DevloopError

if TYPE_CHECKING:
    from devloop.base.cancel import Cancel
    from devloop.cluster.api.connection import Connection
    from devloop.errors import Diagnosis


# Seconds between two questions: the first pause, and the longest.
_FIRST, _LONGEST = 2.0, 10.0


class MissingObject(DevloopError):  # noqa: N818 - what it is, as in `ImagesMissing`
    """`what`, in words for the user, is at `path` of the API once it is there."""

    def __init__(self, diagnosis: Diagnosis, *, path: str, what: str) -> None:
        super().__init__(diagnosis)
        self.path = path
        self.what = what


def await_object(connection: Connection, missing: MissingObject, cancel: Cancel) -> str | None:
    """What is there, as soon as it is; None where nobody may ask for it. Raises Cancelled."""
    pause = _FIRST
    while True:
        cancel.wait(pause)
        cancel.check()
        pause = min(pause * 2, _LONGEST)
        try:
            found = connection.find(missing.path)
        except DevloopError as error:
            if error.code is not Code.CLUSTER_UNREACHABLE:
                return None
            continue
        # Nothing new is taken by a namespace that is on its way out.
        if found is not None and dig(found, "status", "phase") != "Terminating":
            return missing.what
