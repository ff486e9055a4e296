"""What python and node load at their start so that an editor can attach, as files for development
containers (agent/debug.c has them load these)."""

from __future__ import annotations

from importlib import resources

from devloop.base.supervisor import DIRECTORY

_HOOKS = {
    "python": ("python_hook.py", f"{DIRECTORY}/python/sitecustomize.py"),
    "node": ("node_hook.cjs", f"{DIRECTORY}/node.cjs"),
}


def hook(kind: str) -> tuple[str, bytes] | None:
    """The path in the image and the content; None for a debugger that needs none."""
    if (found := _HOOKS.get(kind)) is None:
        return None
    name, path = found
    return path, resources.files(__package__).joinpath(name).read_bytes()
