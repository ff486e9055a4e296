"""What is said of a container's process that ended by itself while its container goes on."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from devloop.cluster.rollout.diagnose import Finding, with_log
from devloop.errors import Code, Diagnosis

if TYPE_CHECKING:
    from collections.abc import Sequence

    from devloop.cluster.rollout.stack_traces import ProjectPaths


def process_ended(
    pod: str, container: str, how: str, lines: Sequence[str], project_paths: ProjectPaths
) -> Diagnosis:
    """`how` it ended (`exited 1`, `was ended by SIGKILL`) and the last lines of its log;
    `project_paths` knows the container's files."""
    diagnosis = Diagnosis(
        code=Code.POD_PROCESS_ENDED,
        message=f"the process of container {container} in pod {pod} {how}",
        cause="its container goes on and loses nothing",
        suggestions=("save the correction: that starts it again at once", *_leftover(lines)),
    )
    finding = Finding(diagnosis=diagnosis, grace=0.0, pod=pod, container=container)
    return with_log(finding, lines, project_paths)


# What programs say that find a pid file, a socket or a copy of their last run.
_LEFTOVER = re.compile(
    r"\bpid ?file|\.pid\b|already (?:running|exists|locked)|file exists|stale lock", re.IGNORECASE
)


def _leftover(lines: Sequence[str]) -> tuple[str, ...]:
    """A process that starts anew finds all that the one before left in its container."""
    if not any(_LEFTOVER.search(line) for line in lines[-20:]):
        return ()
    tip = "if it stumbles over what its last run left: remove that, or `deploy.replace: rolling`"
    return (tip,)
