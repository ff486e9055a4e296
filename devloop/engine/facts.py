"""The facts that change the engine's state: what happened outside, and what became of a task.

Only data.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from devloop.base.lazy_dataclass import dataclass

if TYPE_CHECKING:
    from pathlib import Path

    from devloop.engine.state import GoodImage, Task
    from devloop.errors import Diagnosis, ExitStatus
    from devloop.events import DiagnosticRaised, StepProgress
    from devloop.model import (
        Deployed,
        ImageRef,
        Resumed,
        Scan,
        Served,
        Step,
        StepOutcome,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Hinted:
    """Somebody thinks that the disk changed; `paths` None: look at everything."""

    service: str
    paths: frozenset[Path] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The user wants another try, whatever the disk has; `fresh`: with a full build. `id` stands in
    the event that says which iteration that is."""

    service: str
    id: int = 0
    fresh: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedBack:
    """The user wants the last good image served. `id` stands in the event that says which iteration
    that is."""

    service: str
    id: int = 0


@dataclass(frozen=True, slots=True)
class Paused:
    """The user wants nothing built or deployed for now. What is under way comes to the end of its
    step; changes are gathered."""

    reason: str


@dataclass(frozen=True, slots=True)
class Continued:
    """The pause is over: what was gathered is one change."""


@dataclass(frozen=True, slots=True)
class ChangedOutside:
    """Somebody else changed what runs of a service, or (None) put it back."""

    service: str
    change: Diagnosis | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconfigured:
    """devloop.yaml has other values for a service, or a service that it had not before; its workers
    have other adapters from now on. `keys` are what changed, `proves`: what is served with them is
    not known yet, so an iteration begins. The rest is as for `initial`."""

    service: str
    keys: tuple[str, ...]
    proves: bool
    roll_back: bool
    syncs: bool
    good: tuple[GoodImage, ...] = ()
    needs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Removed:
    """devloop.yaml has the service no more. What runs of it stays as it is."""

    service: str


@dataclass(frozen=True, slots=True)
class Started:
    task: Task


@dataclass(frozen=True, slots=True)
class NotSynced:
    """The change needs an image, and why; nothing was written."""

    reason: str


@dataclass(frozen=True, slots=True)
class Awaits:
    """The manifests use images of other services that are not made yet; nothing was written."""

    services: frozenset[str]


@dataclass(frozen=True, slots=True)
class CauseMended:
    """What a deploy failed for the want of is there: `what`, in words for the user."""

    what: str


@dataclass(frozen=True, slots=True)
class CaughtUp:
    """An image holds what was synced. `adopted` says whether pods to come start with it; if not,
    `reason` is why."""

    image: ImageRef
    adopted: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Done:
    """`spares` is the number of the iteration that what a scan found makes no difference to;
    `wrote` says that what differs from the iteration's or the last scan is a build's output, `left`
    that all of it is what hooks left there. `scan` is what there was after the hooks before a
    step."""

    value: (
        Scan
        | ImageRef
        | Deployed
        | Served
        | Resumed
        | NotSynced
        | Awaits
        | CaughtUp
        | CauseMended
        | None
    ) = None
    spares: int | None = None
    wrote: bool = False
    left: bool = False
    scan: Scan | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    diagnosis: Diagnosis


@dataclass(frozen=True, slots=True)
class Stopped:
    """The worker ended because it was cancelled."""


Result = Done | Failed | Stopped


@dataclass(frozen=True, slots=True)
class Ended:
    task: Task
    result: Result


@dataclass(frozen=True, slots=True)
class Began:
    task: Task
    step: Step


@dataclass(frozen=True, slots=True)
class Finished:
    task: Task
    step: Step
    outcome: StepOutcome
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Said:
    """What a worker wants to have shown, as the event of its iteration."""

    task: Task
    event: StepProgress | DiagnosticRaised


@dataclass(frozen=True, slots=True)
class StopRequested:
    """The session shall end with `status`; nothing is deleted or undone."""

    status: ExitStatus
    why: str = ""


Fact = (
    Hinted
    | Asked
    | AskedBack
    | Paused
    | Continued
    | ChangedOutside
    | Reconfigured
    | Removed
    | Started
    | Ended
    | Began
    | Finished
    | Said
    | StopRequested
)
