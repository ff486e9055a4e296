"""What goes on beside the iterations of a service: an image follows what was synced, a failed
rollout is looked at on, and what a failed deploy missed is waited for. Pure, as reduce.py, which
decides when.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from devloop.engine.back import with_good
from devloop.engine.disk import hinted
from devloop.engine.facts import CaughtUp, CauseMended, Done, Failed, Hinted, Stopped
from devloop.engine.needs import with_image
from devloop.engine.state import GoodImage, Proof
from devloop.errors import Code, Diagnosis
from devloop.events import DiagnosticRaised
from devloop.model import Outcome, Served

if TYPE_CHECKING:
    from devloop.engine.state import Task
    from devloop.engine.turn import Turn


# How often a worker may end as if cancelled although nobody cancelled it.
MOST_ATTEMPTS = 3


def caught_up(turn: Turn, task: Task, result: object) -> None:
    """An image holds what was synced, or does not."""
    behind = turn.service.behind
    if behind is None or behind.task(turn.service.name) != task:
        return
    match result:
        case Done(CaughtUp() as found):
            report = _catch_up_report(found)
            scan = behind.scan
            good = GoodImage(
                image=found.image, fingerprint=scan.fingerprint, iteration=behind.key, scan=scan
            )
            turn.service = replace(turn.service, good=with_good(turn.service.good, good))
            turn.service = with_image(turn.service, scan.fingerprint.build, found.image)
            if found.adopted:
                turn.service = replace(turn.service, offers=found.image.pinned)
        case Failed(diagnosis):
            # The pods have the files; the next change tries again and reports all.
            report = replace(diagnosis, severity="warning")
            turn.service = replace(turn.service, no_image=diagnosis.message)
        case _:
            again = replace(behind, since=turn.now, attempt=behind.attempt + 1)
            turn.service = replace(turn.service, behind=again)
            return
    turn.service = replace(turn.service, behind=None)
    turn.events.append(DiagnosticRaised.of(report, service=turn.service.name))


def recovered(turn: Turn, task: Task, result: object) -> None:
    """The pods of a failed rollout became ready by themselves, or never will."""
    unserved = turn.service.unserved
    if unserved is None or unserved.task(turn.service.name) != task:
        return
    if isinstance(result, Stopped) and unserved.attempt < MOST_ATTEMPTS:
        again = replace(unserved, attempt=unserved.attempt + 1)
        turn.service = replace(turn.service, unserved=again)
        return
    turn.service = replace(turn.service, unserved=None)
    if not (isinstance(result, Done) and isinstance(result.value, Served)):
        # It was deleted, or somebody else has it now: that is found out at the next deploy.
        return
    image, fingerprint = result.value.image, unserved.scan.fingerprint
    number = turn.announce_recovery(unserved.since)
    proof = Proof(fingerprint=fingerprint, iteration=number, image=image)
    good = GoodImage(image=image, fingerprint=fingerprint, iteration=number, scan=unserved.scan)
    turn.service = replace(
        turn.service,
        served=fingerprint,
        proof=proof,
        behind=None,
        failure=None,
        good=with_good(turn.service.good, good),
    )
    why = f"the pods of #{unserved.key} became ready by themselves: serving {image.short}"
    ms = (turn.now - unserved.since) * 1000
    turn.close(number, Outcome.READY, ms=ms, image=image, why=why)


def cause_mended(turn: Turn, task: Task, result: object) -> None:
    """What a failed deploy missed has come, or is not waited for."""
    failure = turn.service.failure
    if failure is None or failure.task(turn.service.name) != task:
        return
    turn.service = replace(turn.service, failure=replace(failure, awaited=False))
    if not (isinstance(result, Done) and isinstance(result.value, CauseMended)):
        return
    report = Diagnosis(
        code=failure.diagnosis.code,
        severity="info",
        message=f"{result.value.what} is there now: it is tried again",
        cause=f"#{failure.iteration} failed for the want of it",
    )
    turn.events.append(DiagnosticRaised.of(report, service=turn.service.name))
    hinted(turn, Hinted(service=turn.service.name, paths=None))
    if (dirty := turn.service.dirty) is not None:
        turn.service = replace(turn.service, dirty=replace(dirty, again=True))


def _catch_up_report(caught_up: CaughtUp) -> Diagnosis:
    if caught_up.adopted:
        message = f"image {caught_up.image.short} holds what was synced: pods to come start with it"
    else:
        message = "pods to come start with the older image and get the synced files at once"
    cause = caught_up.reason or None
    return Diagnosis(code=Code.SYNC_IMAGE, severity="info", message=message, cause=cause)
