"""The one answer of this package besides a result: it cannot be proven, and why."""

from __future__ import annotations


class NeedsFullBuild(Exception):  # noqa: N818 - not an error: the full builder takes over
    """What was asked for might differ from what a full build gives. `reason` is for the user, in a
    few words that complete "full build: ..." (`Dockerfile:12 RUN reads app/`)."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class HasTriggers(NeedsFullBuild):
    """The base image's ONBUILD has copied from the context: what that does stands in no Dockerfile
    here, and nothing may be concluded from the one there is."""
