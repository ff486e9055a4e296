"""What becomes of a session's services when devloop.yaml changes under it. Pure, for `reduce`.

Which keys changed and what they ask for is known by then (see app/reload.py); that the adapters are
others the loop sees to.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from devloop.engine.state import Dirty, begun
from devloop.engine.turn import Turn
from devloop.model import Outcome

if TYPE_CHECKING:
    from devloop.engine.facts import Reconfigured, Removed
    from devloop.engine.state import ServiceState, State
    from devloop.events import Event


def reconfigured(state: State, fact: Reconfigured, now: float, events: list[Event]) -> State:
    """The service goes on with other adapters, from another look at the disk on."""
    before = state.services.get(fact.service)
    if state.stop is not None:
        return state
    if before is None or before.leaving:
        new = begun(
            fact.service,
            roll_back=fact.roll_back,
            syncs=fact.syncs,
            good=fact.good,
            needs=fact.needs,
            now=now,
        )
        if before is not None:
            # Its last workers are waited for: two patches are never in flight.
            new = replace(new, running=before.running, scans=before.scans)
        return replace(state, services={**state.services, fact.service: new})
    turn = Turn(state, before, now, events)
    # What failed is tried again, whatever the new settings are about.
    proves = fact.proves or before.failure is not None
    if proves and before.iteration is not None:
        turn.end_iteration(Outcome.CANCELLED, why="superseded by a change of devloop.yaml")
    turn.service = replace(
        turn.service,
        roll_back=fact.roll_back,
        syncs=fact.syncs,
        needs=fact.needs,
        builds_on=turn.service.builds_on.intersection(fact.needs),
        # A look that goes on has the settings of before.
        dirty=_dirty(before, fact.keys if proves else (), now),
        looking_at=None,
    )
    if proves:
        turn.service = replace(
            turn.service,
            resumes=False,
            served=None,
            applied=False,
            failure=None,
            behind=None,
            unserved=None,
            taken=None,
            not_synced="",
            superseded=(),
        )
    return turn.result()


def removed(state: State, fact: Removed, now: float, events: list[Event]) -> State:
    """Its workers are cancelled; it is gone when the last has ended."""
    service = state.services.get(fact.service)
    if service is None or service.leaving or state.stop is not None:
        return state
    turn = Turn(state, service, now, events)
    if service.iteration is not None:
        turn.end_iteration(Outcome.CANCELLED, why="devloop.yaml has the service no more")
    state = turn.state
    services = {name: each for name, each in state.services.items() if name != service.name}
    if service.running:
        services[service.name] = replace(turn.service, leaving=True, dirty=None, looking_at=None)
    statuses = {name: each for name, each in state.statuses.items() if name != service.name}
    return replace(state, services=services, statuses=statuses)


def _dirty(service: ServiceState, keys: tuple[str, ...], now: float) -> Dirty:
    known = [each for each in (service.looking_at, service.dirty) if each is not None]
    return Dirty(
        first=now,
        last=now,
        paths=None,
        asks=tuple(ask for each in known for ask in each.asks),
        again=any(each.again for each in known),
        keys=tuple(dict.fromkeys((*(key for each in known for key in each.keys), *keys))),
        named=any(each.named for each in known),
        images=tuple(dict.fromkeys(image for each in known for image in each.images)),
    )
