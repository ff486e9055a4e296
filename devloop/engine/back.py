"""Going back to the last good image: which one that is, the iteration that brings it, and what
holds afterwards. Pure, as reduce.py, which decides when.

The images to go back to are a line, newest last, of those that were served and ready. Going back
cuts it off behind the one gone back to, so that the next time goes one further.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from devloop.engine.state import Failure, GoodImage, Iteration, Proof, TaskKind
from devloop.errors import Code, DevloopError, Diagnosis
from devloop.events import Trigger, TriggerTaken
from devloop.model import Fingerprint, Outcome, Scan, Snapshot, Step

if TYPE_CHECKING:
    from devloop.engine.facts import AskedBack
    from devloop.engine.state import ServiceState
    from devloop.engine.turn import Turn
    from devloop.model import ImageRef


# As many as stay in the registry, see app/housekeeping.py.
KEPT = 10


def with_good(good: tuple[GoodImage, ...], found: GoodImage) -> tuple[GoodImage, ...]:
    """`good` with one more that is served now; each image once."""
    pinned = found.image.pinned
    return (*(each for each in good if each.image.pinned != pinned), found)[-KEPT:]


def cut_off(good: tuple[GoodImage, ...], image: ImageRef) -> tuple[GoodImage, ...]:
    """`good` up to `image`, which somebody went back to."""
    for index, each in enumerate(good):
        if each.image.pinned == image.pinned:
            return good[: index + 1]
    return good


def ways_back(service: ServiceState) -> tuple[GoodImage, ...]:
    """What to go back to, best first: the newest image before what serves; where what runs is
    broken or on its way, the newest of all."""
    good, served = service.good, service.served
    while good and served is not None and good[-1].fingerprint == served:
        good = good[:-1]
    return good[::-1]


def nothing_to_go_back_to(service: str) -> DevloopError:
    return DevloopError.of(
        Code.USAGE_NO_ROLLBACK,
        f"{service} has no image to go back to",
        cause="none before the one that serves is known to have been ready",
        suggestions=(
            "go back in your version control and save: that is built and deployed",
            "`devloop restore` puts the workload back as it was before devloop",
        ),
    )


def image_gone(service: str, *names: str) -> DevloopError:
    return DevloopError.of(
        Code.REGISTRY_IMAGE_GONE,
        f"the registry has none of the images any more that {service} could go back to",
        cause=f"gone: {', '.join(names)}",
        suggestions=("go back in your version control and save: that builds the image again",),
    )


def passed_over(gone: GoodImage) -> Diagnosis:
    """What to report of an image that the registry has lost."""
    return Diagnosis(
        code=Code.REGISTRY_IMAGE_GONE,
        severity="warning",
        message=f"the registry does not have the image of {gone.name} any more: going further back",
        cause=f"{gone.image.pinned} was deleted there",
    )


def asked_back(turn: Turn, fact: AskedBack) -> None:
    """Somebody wants the last good image served."""
    service = turn.service
    if turn.state.stop is not None:
        return
    running = service.iteration
    if running is not None and running.back:
        turn.events.append(TriggerTaken(service=service.name, iter=running.number, ids=(fact.id,)))
        return
    ways = ways_back(service)
    if not ways:
        _refuse(turn, fact)
        return
    if running is not None:
        turn.end_iteration(Outcome.CANCELLED, why=f"somebody goes back to {ways[0].name}")
    number = turn.announce_back(Trigger(kind="rollback", to=ways[0].iteration))
    turn.events.append(TriggerTaken(service=service.name, iter=number, ids=(fact.id,)))
    turn.service = replace(
        turn.service,
        failure=None,
        behind=None,
        unserved=None,
        taken=None,
        fresh=False,
        superseded=(),
        back=f"back on {ways[0].name}: the next change is deployed again",
    )
    turn.iteration = Iteration(
        number=number,
        trigger=Trigger(kind="rollback", to=ways[0].iteration),
        scan=_scan_of(ways[0], service.scan),
        since=turn.now,
        stage=TaskKind.DEPLOY,
        image=ways[0].image,
        back=ways,
    )


def _refuse(turn: Turn, fact: AskedBack) -> None:
    """Whoever asked was told that there is one, a moment ago."""
    before, name = turn.service.failure, turn.service.name
    number = turn.announce_back(Trigger(kind="rollback"))
    turn.events.append(TriggerTaken(service=name, iter=number, ids=(fact.id,)))
    error = nothing_to_go_back_to(name).diagnosis
    turn.report(error, number, Step.DEPLOY)
    failure = Failure(fingerprint=None, iteration=number, step=Step.DEPLOY, diagnosis=error)
    turn.close(number, Outcome.FAILED, ms=0.0, failure=failure)
    turn.service = replace(turn.service, failure=before)


def chosen(turn: Turn, image: ImageRef) -> None:
    """Which of the images it is: those before it are gone from the registry."""
    iteration = turn.iteration
    way = next(each for each in iteration.back if each.image == image)
    scan = _scan_of(way, turn.service.scan)
    turn.iteration = replace(iteration, image=image, scan=scan, back=(way,))
    back = f"back on {way.name}: the next change is deployed again"
    turn.service = replace(turn.service, back=back)


def back_at_last(turn: Turn) -> None:
    """The pods run the image that somebody went back to."""
    iteration, (way, *_) = turn.iteration, turn.iteration.back
    number = iteration.number if way.iteration is None else way.iteration
    fingerprint, good = iteration.scan.fingerprint, cut_off(turn.service.good, way.image)
    turn.service = replace(
        turn.service,
        served=fingerprint,
        proof=Proof(fingerprint=fingerprint, iteration=number, image=way.image),
        offers=way.image.pinned,
        good=(*good[:-1], replace(way, fingerprint=fingerprint, iteration=number)),
    )
    turn.end_iteration(Outcome.READY, why=f"back on {way.name}: serving {way.image.short}")


def _scan_of(way: GoodImage, newest: Scan | None) -> Scan:
    """What the image was made of, with the manifests of now, which it is deployed with."""
    deploy = newest.fingerprint.deploy if newest is not None else way.fingerprint.deploy
    fingerprint = Fingerprint(way.fingerprint.build, deploy)
    if way.scan is not None:
        return replace(way.scan, fingerprint=fingerprint, changed=())
    # Only its fingerprint is known, which is all that is compared.
    return Scan(fingerprint=fingerprint, snapshot=Snapshot(entries={}, digest="", stamp=""))
