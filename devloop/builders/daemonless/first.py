"""Makes images without Docker where it can, and hands everything else to another builder."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from devloop.builders.image.full_build import NeedsFullBuild
from devloop.errors import Code, DevloopError

if TYPE_CHECKING:
    from devloop.base.cancel import Cancel
    from devloop.builders.daemonless.builder import DaemonlessBuilder
    from devloop.engine.ports import Builder, Reporter
    from devloop.model import ImageRef, Scan

__all__ = ["FullFirst"]


class FullFirst:
    """`full` before `inner`. Without a Docker for `inner`, the error says why there has to be
    one."""

    def __init__(self, full: DaemonlessBuilder, inner: Builder) -> None:
        self._full = full
        self._inner = inner

    def build(self, scan: Scan, reporter: Reporter, cancel: Cancel) -> ImageRef:
        """See engine.ports.Builder."""
        try:
            return self._full.build(scan, reporter, cancel)
        except NeedsFullBuild as unprovable:
            reason = unprovable.reason
        try:
            return self._inner.build(scan, reporter, cancel)
        except DevloopError as error:
            if error.code != Code.ENV_DOCKER_UNREACHABLE:
                raise
            why = "; ".join(filter(None, (f"it is needed here: {reason}", error.diagnosis.cause)))
            raise DevloopError(replace(error.diagnosis, cause=why)) from error
