"""Services that others need: built before the builds that use their images, and ready before those
that need them are deployed. What waits for what, and why. Pure.

Nothing is remembered of who has told whom: the image that a build uses is part of its scan, and
whenever that is not the one that the need has now, the disk is looked at again.
"""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from devloop.engine.state import Behind, Dirty, Hold, TaskKind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from devloop.engine.state import ServiceState, State
    from devloop.errors import Diagnosis
    from devloop.model import ImageRef


# So many images are known by what they were made from; the others are made again, from a cache.
_KNOWN = 20


def image_of(service: ServiceState) -> str:
    """The reference of the image of what is on its disk, as far as that was looked at, or of the
    one that somebody went back to; "" while there is none."""
    scan, proof = service.scan, service.proof
    if service.back:
        return proof.image.as_base if proof is not None and service.served is not None else ""
    return service.images.get(scan.fingerprint.build, "") if scan is not None else ""


def with_image(service: ServiceState, build: str, image: ImageRef) -> ServiceState:
    """`image` was made of the fingerprint `build`."""
    return _known_as(service, build, image.as_base)


def like_before(service: ServiceState, before: str, after: str) -> ServiceState:
    """What differs between the two fingerprints makes no difference to the image."""
    known = service.images.get(before)
    return _known_as(service, after, known) if known is not None else service


def _known_as(service: ServiceState, build: str, reference: str) -> ServiceState:
    rest = {of: image for of, image in service.images.items() if of != build}
    images = dict([*rest.items(), (build, reference)][-_KNOWN:])
    return replace(service, images=MappingProxyType(images), no_image="")


def images_for(state: State, service: ServiceState) -> Mapping[str, str]:
    """The images of what a service needs, "" for one that has none yet."""
    found = {name: state.services.get(name) for name in service.needs}
    return {name: image_of(other) if other is not None else "" for name, other in found.items()}


# --- what waits ----------------------------------------------------------------------------------


def is_needed(state: State, service: ServiceState) -> bool:
    return any(service.name in other.needs for other in state.services.values())


def hold_for_look(state: State, service: ServiceState) -> Hold | None:
    """Until the images are made that its build uses: then what is on disk is one change."""
    for name in sorted(service.builds_on):
        why = _without_image(state.services.get(name))
        if why is not None:
            return Hold(reason=f"waits for the image of {name}{why}", on=name)
    return None


def hold_for_deploy(state: State, service: ServiceState) -> Hold | None:
    """Until all that it needs is ready."""
    iteration = service.iteration
    if iteration is None or iteration.back:
        return None
    if iteration.let_through is None and (hold := hold_for_look(state, service)) is not None:
        return hold
    for name in service.needs:
        other = state.services.get(name)
        if other is not None and not _is_ready(other):
            return Hold(reason=f"waits for {name} to be ready{_failed(other)}", on=name)
    return None


def hold_of_idle(state: State, service: ServiceState) -> Hold | None:
    """What keeps a service that is served from changes of what it needs: one of them failed."""
    hold = hold_for_look(state, service)
    other = state.services.get(hold.on) if hold is not None else None
    return hold if other is not None and _has_failed(other) else None


def _without_image(other: ServiceState | None) -> str | None:
    """None when it has the image of what is on its disk; else what is to be said of that."""
    if other is None:
        return ""  # it was taken out, and whoever needs it has other settings in a moment
    if _has_failed(other) and (not image_of(other) or _unreadable(other)):
        return _failed(other)
    if other.dirty is None and other.looking_at is None and image_of(other):
        return None
    return f", which failed: {other.no_image}" if other.no_image else ""


def _is_ready(other: ServiceState) -> bool:
    """It was served, and what failed since left that as it is."""
    return other.proof is not None and (other.failure is None or other.served is not None)


def _unreadable(other: ServiceState) -> bool:
    return other.failure is not None and other.failure.fingerprint is None


def _has_failed(other: ServiceState) -> bool:
    return other.failure is not None and other.iteration is None


def _failed(other: ServiceState) -> str:
    if not _has_failed(other) or other.failure is None:
        return ""
    return f", which failed: {other.failure.diagnosis.message}"


# --- what follows --------------------------------------------------------------------------------


def moved(state: State, service: ServiceState) -> tuple[str, ...]:
    """The needs that have another image now than the last look at the disk was told, if nobody is
    about to look anyway."""
    scan = service.scan
    if scan is None or service.dirty is not None or service.looking_at is not None:
        return ()
    if hold_for_look(state, service) is not None or _unreadable(service):
        return ()  # a disk that cannot be read is looked at when something there changes
    now = images_for(state, service)
    return tuple(name for name, image in scan.needs.items() if now.get(name) and now[name] != image)


def looked_for(service: ServiceState, images: tuple[str, ...], now: float) -> ServiceState:
    """The disk is to be looked at again, for these images."""
    dirty = Dirty(first=now, last=float("-inf"), paths=frozenset(), images=images)
    return replace(service, dirty=dirty)


def to_make(state: State, service: ServiceState, now: float) -> ServiceState | None:
    """The service with its image to be made beside the iterations: it is at rest, as what was
    synced or what an earlier session left, and another one's build uses the image."""
    scan = service.scan
    if scan is None or not service.settled or service.behind is not None or image_of(service):
        return None
    if service.failure is not None or service.no_image or service.back:
        return None
    if not any(service.name in other.builds_on for other in state.services.values()):
        return None
    return replace(service, behind=Behind(scan=scan, key=service.last, since=now))


def in_vain(state: State, service: ServiceState) -> Diagnosis | None:
    """Why a service of a session that ends by itself waits in vain."""
    iteration, hold = service.iteration, None
    if iteration is not None and iteration.stage is TaskKind.DEPLOY and not service.running:
        hold = hold_for_deploy(state, service)
    elif iteration is None and service.dirty is not None:
        hold = hold_for_look(state, service)
    other = state.services.get(hold.on) if hold is not None else None
    if other is None or other.failure is None or not (other.settled and _has_failed(other)):
        return None
    found = other.failure.diagnosis
    message = f"{service.name} needs {other.name}, which failed: {found.message}"
    return replace(found, message=message, location=None, detail=(), suggestions=())
