"""Which hops there are, what each needs, and one after the other what came of them.

Knows no adapter: a hop is looked at by a function that somebody hands in.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Literal

from devloop.base.lazy_dataclass import dataclass
from devloop.config.problems import nearest
from devloop.errors import Code, DevloopError, Diagnosis

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from devloop.base.cancel import Cancel

    Check = Callable[[Cancel], "HopFinding"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hop:
    """A part of the path. `about` completes "whether ..."; `needs` are the hops without which it
    cannot be looked at."""

    name: str
    about: str
    needs: tuple[str, ...] = ()


HOPS = (
    Hop(name="docker", about="Docker answers"),
    Hop(name="builder", about="it has a builder that devloop can use", needs=("docker",)),
    Hop(name="watch", about="a change of a file is noticed"),
    Hop(name="cluster", about="the cluster answers and devloop may work with it"),
    Hop(name="clock", about="the cluster's clock is this computer's", needs=("cluster",)),
    Hop(name="registry", about="the registry answers", needs=("cluster",)),
    Hop(name="build", about="an image can be built", needs=("builder", "registry")),
    Hop(name="push", about="an image can be pushed", needs=("build",)),
    Hop(name="deploy", about="workloads can be written", needs=("push",)),
    Hop(name="pull", about="a node pulls the image and starts it", needs=("deploy",)),
    Hop(name="log", about="a line of its log arrives", needs=("pull",)),
    Hop(name="port", about="a port of it can be reached", needs=("pull",)),
    Hop(name="agent", about="a save goes into the running container", needs=("pull",)),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class HopFinding:
    """What is to be said of a hop that works; `warning` where it works badly."""

    detail: str = ""
    warning: Diagnosis | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Examined:
    """What came of one hop. `detail` says for a skipped one why."""

    hop: str
    state: Literal["ok", "warning", "failed", "skipped"]
    ms: float = 0.0
    detail: str = ""
    diagnosis: Diagnosis | None = None


def chosen(names: Iterable[str]) -> tuple[Hop, ...]:
    """The hops called so and those that they need, all where none is named. Errors:
    usage/arguments."""
    by_name = {hop.name: hop for hop in HOPS}
    wanted: set[str] = set()
    todo = list(names) or list(by_name)
    while todo:
        name = todo.pop()
        if name not in by_name:
            meant = nearest(name, by_name)
            raise DevloopError.of(
                Code.USAGE_ARGUMENTS,
                f"there is no hop {name!r}",
                cause=f"hops: {', '.join(by_name)}",
                suggestions=(f"did you mean {meant}?",) if meant else (),
            )
        if name not in wanted:
            wanted.add(name)
            todo += by_name[name].needs
    return tuple(hop for hop in HOPS if hop.name in wanted)


def examine(
    hops: Iterable[Hop],
    checks: Mapping[str, Check],
    cancel: Cancel,
    *,
    begun: Callable[[Hop], None],
    ended: Callable[[Examined], None],
    clock: Callable[[], float] = time.monotonic,
) -> tuple[Examined, ...]:
    """Look at each hop in order; one whose need did not come out well is skipped. Raises
    `Cancelled`, and what is a bug."""
    found: dict[str, Examined] = {}
    for hop in hops:
        missing = [need for need in hop.needs if found[need].state in ("failed", "skipped")]
        begun(hop)
        if missing:
            result = Examined(hop=hop.name, state="skipped", detail=f"needs {', '.join(missing)}")
        else:
            result = _one(hop, checks[hop.name], cancel, clock)
        found[hop.name] = result
        ended(result)
    return tuple(found.values())


def _one(hop: Hop, check: Check, cancel: Cancel, clock: Callable[[], float]) -> Examined:
    cancel.check()
    began = clock()
    try:
        finding = check(cancel)
    except DevloopError as error:
        ms = (clock() - began) * 1000
        return Examined(hop=hop.name, state="failed", ms=ms, diagnosis=error.diagnosis)
    return Examined(
        hop=hop.name,
        state="warning" if finding.warning else "ok",
        ms=(clock() - began) * 1000,
        detail=finding.detail,
        diagnosis=finding.warning,
    )
