"""Images of one service that the manifests of another use: what is waited for, and who follows
whom. Pure.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from devloop.engine.state import Hold

if TYPE_CHECKING:
    from devloop.engine.state import ServiceState, State
    from devloop.errors import Diagnosis


def hold_for(state: State, service: ServiceState) -> Hold | None:
    """Until all images are made that the service's iteration needs."""
    iteration = service.iteration
    for name in sorted(iteration.awaits) if iteration is not None else ():
        other = state.services.get(name)
        if other is not None and not other.made:
            failed = other.failure
            why = f", which failed: {failed.diagnosis.message}" if failed is not None else ""
            return Hold(reason=f"waits for the image of {name}{why}")
    return None


def in_vain(state: State, service: ServiceState) -> Diagnosis | None:
    """Why an iteration of a session that ends by itself waits in vain."""
    iteration = service.iteration
    for name in sorted(iteration.awaits) if iteration is not None else ():
        other = state.services.get(name)
        if other is None or other.made or other.failure is None or other.iteration is not None:
            continue
        found = other.failure.diagnosis
        message = f"{service.name} runs the image of {name} as well, which failed: {found.message}"
        return replace(found, message=message, location=None, detail=(), suggestions=())
    return None


def moved_on(state: State, service: ServiceState) -> tuple[str, ...]:
    """The services whose image has become another since this service, which is at rest and served,
    was deployed with it; each image counts once."""
    if not service.uses or not service.settled or service.served is None:
        return ()
    found = []
    for name, used in service.uses.items():
        other = state.services.get(name)
        if other is None or not other.offers or not other.settled or other.failure is not None:
            continue
        if other.offers not in {used, service.followed.get(name)}:
            found.append(name)
    return tuple(sorted(found))
