"""docs/troubleshooting.md, made from the error codes (devloop/errors.py)."""

from __future__ import annotations

from itertools import groupby
from typing import Final

from devloop.errors import Code, ExitStatus
from tests.support.docs.markdown import GENERATED, anchor, prose, table

_INTRODUCTION = """\
# Troubleshooting

Every error has a code, a place if it has one, a cause, and what to do about this very case:

```
Dockerfile:12:1: error[build/run-failed]: RUN exited 1: pip install -r requirements.txt
```

The code's part before the slash says whose trouble it is:
"""

_COMMANDS: Final = (
    (
        "a save does nothing, or goes a slower way",
        "`devloop why`: what changed, which way it went, why not a faster one, what it waits for",
    ),
    (
        "what runs may be old",
        "`devloop status`: what runs of each service, and whether that is what is on disk",
    ),
    (
        "nothing works, or not on this computer",
        "`devloop doctor`: the path of a save, hop by hop, with the cure for the one that fails",
    ),
    (
        "devloop.yaml is refused, or means something else",
        "`devloop check`, `devloop config --sources`",
    ),
    (
        "a pod does not come up",
        "the problem has the end of its log; `devloop logs --since 5m` has more",
    ),
    ("a build uses something old", "`devloop trigger --fresh`: without caches and shortcuts"),
    (
        "the last save was a mistake",
        "`devloop rollback`: the last image that was ready, until the next save",
    ),
    (
        "devloop is to leave",
        "`devloop down` deletes what it created, `devloop restore` puts back what it changed",
    ),
    ("the disk is full", "`devloop clean --dry-run`, then `devloop clean`"),
    ("something else", "`-v` with any command, twice for everything"),
)

_HOLDS = """\

## What a session does

`devloop run` ends with the error, and so does `devloop dev` where it cannot begin. Once it has
begun it does not end because something failed: it says what and where, and waits for the next
save. Of the codes marked *waits* it tries again by itself. A problem whose line says `warning` or
`info` in place of `error` stops nothing.
"""

_AREAS: Final = {
    "manifests": "What kustomize and Helm render",
    "usage": "The command line",
    "config": "Configuration and manifests",
    "env": "This computer and the session",
    "cluster": "The cluster",
    "registry": "The registry",
    "build": "The build",
    "debug": "Debuggers",
    "pod": "Pods",
    "sync": "Files in running containers",
    "test": "Tests in the image",
    "hook": "Hooks",
    "safety": "Safety",
    "internal": "devloop itself",
}

_STATUS: Final = {
    ExitStatus.DONE: "done",
    ExitStatus.FAILED: "the build or the rollout failed",
    ExitStatus.USAGE: "the command line or devloop.yaml is wrong",
    ExitStatus.ENVIRONMENT: "Docker, the registry or the cluster cannot be used",
    ExitStatus.REFUSED: "refused for safety",
    ExitStatus.BUG: "a bug in devloop",
    ExitStatus.INTERRUPTED: "stopped by Ctrl-C",
    ExitStatus.TERMINATED: "stopped by TERM",
}


def troubleshooting() -> str:
    """The page."""
    areas = {area: list(codes) for area, codes in groupby(Code, key=_area)}
    lines = [
        GENERATED.format(source="devloop/errors.py"),
        _INTRODUCTION,
        *table(
            ("area", "about", "exit status"),
            (
                (
                    f"[`{area}/`](#{anchor(_AREAS[area])})",
                    _AREAS[area],
                    str(int(codes[0].exit_status)),
                )
                for area, codes in areas.items()
            ),
        ),
        "\n## Where to look\n",
        *table(("what you see", "what tells more"), _COMMANDS),
        "\n## Exit status\n",
        *table(("status", "meaning"), ((str(int(each)), _STATUS[each]) for each in ExitStatus)),
        _HOLDS,
    ]
    for area, codes in areas.items():
        rows = (
            (
                f"`{code}`",
                prose(code.meaning) + (" (*waits*)" if code.transient else ""),
                prose(code.cure),
            )
            for code in codes
        )
        status = f"Exit status {int(codes[0].exit_status)}: {_STATUS[codes[0].exit_status]}."
        lines += [f"## {_AREAS[area]}", "", status, ""]
        lines += [*table(("code", "meaning", "what to do"), rows), ""]
    return "\n".join(lines).rstrip("\n") + "\n"


def _area(code: Code) -> str:
    return code.value.partition("/")[0]
