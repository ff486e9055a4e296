"""What `helm upgrade` calls between rendering and installing: the images of the plan, and what goes
with them, are written into what Helm rendered. Pure; the command that Helm runs is cli/postrender.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from devloop.manifests.files import objects_of

if TYPE_CHECKING:
    from collections.abc import Sequence


def post_rendered(text: str, pins: bytes) -> str:
    """The manifests in `text` with `pins` in them, which are the JSON of a list of
    `engine.ports.Pin`. Raises config/manifest."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for pin in json.loads(pins):
        found.setdefault((pin["kind"], pin["name"]), []).append(pin)
    made = []
    for manifest in objects_of(text, "what helm rendered"):
        thing = dict(manifest.object)
        for pin in found.get((manifest.key[1], manifest.key[3]), ()):
            _set(thing, pin["path"], pin["values"])
        made.append(f"---\n{json.dumps(thing)}\n")
    return "".join(made)


def _set(thing: dict[str, Any], path: Sequence[str | int], values: dict[str, Any]) -> None:
    """Merge `values` into the mapping at `path`; a mapping that is missing there is made."""
    here: Any = thing
    for part in path:
        if isinstance(here, list):
            if not isinstance(part, int) or part >= len(here):
                return
            here = here[part]
        elif isinstance(here, dict):
            if here.get(part) is None:
                here[part] = {}
            here = here[part]
        else:
            return
    if isinstance(here, dict):
        here.update(values)
