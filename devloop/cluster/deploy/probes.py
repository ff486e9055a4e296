"""The probes of a container whose process somebody may stop at a breakpoint: they wait for an
answer, so that the kubelet neither kills the container nor takes the pod out of its Service.

Only how long a probe waits is changed, and only for as long as the service has `debug`. A process
that does not listen, or answers wrongly, fails its probes as ever. Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from devloop.cluster.api.pod_view import dig, number

if TYPE_CHECKING:
    from collections.abc import Mapping

PATIENT: Final = 600
"""Seconds, as Skaffold has it."""

_PROBES = ("livenessProbe", "readinessProbe", "startupProbe")
_DEFAULT = 1  # Kubernetes' own


def patient(container: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    """What has to change for the container's probes to wait, as a merge patch of it."""
    return {
        name: {"timeoutSeconds": PATIENT}
        for name in _PROBES
        if isinstance(container.get(name), dict) and _timeout(container, name) < PATIENT
    }


def waits(container: Mapping[str, Any]) -> bool:
    """Whether a probe of it waits as long as one of `patient` does."""
    return any(_timeout(container, name) == PATIENT for name in _PROBES)


def impatient(
    container: Mapping[str, Any], original: Mapping[str, Any]
) -> dict[str, dict[str, int]]:
    """What has to change for probes that wait to be as they were in `original`, the same container
    before devloop."""
    return {
        name: {"timeoutSeconds": _timeout(original, name)}
        for name in _PROBES
        if isinstance(original.get(name), dict)
        and isinstance(container.get(name), dict)
        and _timeout(container, name) == PATIENT != _timeout(original, name)
    }


def _timeout(container: Mapping[str, Any], name: str) -> int:
    return number(dig(container, name, "timeoutSeconds"), _DEFAULT)
