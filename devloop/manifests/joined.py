"""What several renderings of one service render, as one: plain files beside a chart, two charts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devloop.base.lazy_dataclass import dataclass
from devloop.manifests.files import without_doubles
from devloop.model import RenderingInputs

if TYPE_CHECKING:
    from collections.abc import Callable

    from devloop.base.cancel import Cancel
    from devloop.engine.ports import Rendering
    from devloop.errors import Diagnosis
    from devloop.model import ManifestObject


@dataclass(frozen=True, slots=True)
class JoinedRendering:
    """The `Rendering` of all of `parts`, in their order."""

    parts: tuple[Rendering, ...]

    def inputs(self) -> RenderingInputs:
        inputs = [part.inputs() for part in self.parts]
        return RenderingInputs(
            patterns=tuple(pattern for each in inputs for pattern in each.patterns),
            values=tuple(value for each in inputs for value in each.values),
        )

    def objects(
        self, cancel: Cancel, notify: Callable[[Diagnosis], None] = lambda _: None
    ) -> tuple[ManifestObject, ...]:
        """Errors: those of the parts, and config/manifest for an object that two of them have."""
        return without_doubles(o for part in self.parts for o in part.objects(cancel, notify))
