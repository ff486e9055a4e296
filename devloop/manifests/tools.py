"""Runs kustomize, kubectl and Helm for the renderings, and turns what goes wrong into errors.

Knows no kustomization and no chart.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
from typing import TYPE_CHECKING

from devloop.base.lazy_dataclass import dataclass
from devloop.base.process import GRACE, CannotRun, Completed, Overran, capture
from devloop.errors import Code, DevloopError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from devloop.base.cancel import Cancel


# Seconds. A rendering takes a tenth of one; what fetches something may take its time.
RENDER_LIMIT = 60.0
FETCH_LIMIT = 300.0

_GONE = re.compile(
    r"no such host|dial tcp|i/o timeout|connection (?:refused|reset)|TLS handshake|x509:"
    r"|failed to fetch|looks like .* is not a valid chart repository|could not (?:find|resolve)"
    r"|Could not resolve host|unable to access|401 Unauthorized|403 Forbidden|: 404 Not Found"
    r"|no cached repo found|repo .* not found|failed to download|not found in .*repository"
    r"|on source: .*: not found|hit \d+s timeout running|Authentication failed"
    r"|Could not read from remote"
)


_LOGGED = re.compile(
    r'^E\d{4} \S+ +\d+ run\.go:\d+\] "command failed" err='
    r"(?:<\n(?P<block>.*?)\n >|(?P<text>\".*\"))",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class ToolFailed(Exception):  # noqa: N818 - the caller knows what it means
    """The tool ended with an error. `output` is all that it said of it, `command` how to run it by
    hand."""

    command: str
    output: str

    def __str__(self) -> str:
        return f"{self.command}: {self.output}"

    @property
    def fetching(self) -> bool:
        """Whether the network, or who is at its other end, is what failed."""
        return _GONE.search(self.output) is not None


def first_of(programs: Sequence[str]) -> str | None:
    """The first of `programs` that is on the PATH."""
    return next(filter(shutil.which, programs), None)


def tool(
    argv: Sequence[str], cancel: Cancel, *, limit: float = RENDER_LIMIT, grace: float = GRACE
) -> Completed:
    """Run a program to its end; `grace` is how long it has to end when it shall. Raises ToolFailed,
    Cancelled, env/tool-missing and manifests/render-timeout."""
    command = shlex.join(argv)
    try:
        done = capture(argv, cancel=cancel, limit=limit, grace=grace)
    except CannotRun as error:
        raise missing(argv[0], error.reason) from error
    except Overran as error:
        said = (error.err or error.out).strip().splitlines()
        raise DevloopError.of(
            Code.MANIFESTS_RENDER_TIMEOUT,
            f"{argv[0]} did not end within {limit:g} seconds and was ended",
            cause=said[-1] if said else None,
            suggestions=(f"run it by hand: {command}",),
        ) from error
    if done.status != 0:
        raise ToolFailed(command, _plain((done.err.strip() or done.out.strip())[-20_000:]))
    return done


def _plain(said: str) -> str:
    """Without the log line that some builds of kubectl put around an error."""
    found = _LOGGED.search(said)
    if found is None:
        return said
    if found["block"] is not None:
        lines = (line.strip() for line in found["block"].splitlines())
        return f"error: {' '.join(line for line in lines if line)}"
    try:
        return f"error: {json.loads(found['text'])}"
    except ValueError:
        return f"error: {found['text']}"


def missing(program: str, reason: str, *more: str) -> DevloopError:
    where = {
        "helm": "https://helm.sh/docs/intro/install",
        "kustomize": "https://kubectl.docs.kubernetes.io/installation/kustomize",
    }
    return DevloopError.of(
        Code.ENV_TOOL_MISSING,
        f"{program} is needed to render the manifests, and cannot be started",
        cause=reason,
        suggestions=(f"install it: {where.get(program, program)}", *more),
    )
