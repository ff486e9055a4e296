"""Which images devloop built, so that those can be removed again and nothing else.

Losing the file costs nothing but the knowledge of what to remove. Removing is not done here: see
app/housekeeping.py.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from devloop.base.state_file import StateFile

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable
    from pathlib import Path

    from devloop.base.cancel import Cancel
    from devloop.engine.ports import Reporter, ServiceBuilder
    from devloop.model import ImageRef, Scan


_LINES = "made.jsonl"  # where devloop 0.1 kept them, one JSON object a line


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltImage:
    """One image. `repository` is host/path as it was pushed to; `digest` is `sha256:...`."""

    service: str
    repository: str
    tag: str
    digest: str


class BuiltImages:
    """The images built for one project, in `built-images.json`. Thread-safe."""

    def __init__(self, state_dir: Path) -> None:
        self._file = StateFile(state_dir / "built-images.json")
        self._lines = state_dir / _LINES

    def add(self, image: BuiltImage) -> None:
        with self._file.updating() as value:
            _put(value, [*(each for each in self._images(value) if each != image), image])

    def all(self) -> tuple[BuiltImage, ...]:
        """Every image once, the one that was last built or used last."""
        return self._images(self._file.read() or {})

    def forget(self, gone: Collection[BuiltImage]) -> None:
        """Strike out what was removed."""
        with self._file.updating() as value:
            _put(value, [each for each in self._images(value) if each not in gone])

    def _images(self, value: dict[str, Any]) -> tuple[BuiltImage, ...]:
        entries = value["images"] if "images" in value else list(_read_lines(self._lines))
        found: dict[BuiltImage, None] = {}
        for entry in entries if isinstance(entries, list) else ():
            with contextlib.suppress(TypeError):
                image = BuiltImage(**entry)
                found.pop(image, None)
                found[image] = None
        return tuple(found)


def _put(value: dict[str, Any], images: Iterable[BuiltImage]) -> None:
    value["images"] = [asdict(image) for image in images]


def _read_lines(path: Path) -> Iterable[object]:
    try:
        lines = path.read_text("utf-8", "replace").splitlines()
    except OSError:
        return
    for line in lines:
        # A line may be cut off by a full disk or a kill.
        with contextlib.suppress(ValueError):
            yield json.loads(line)


class RecordingBuilder:
    """A builder whose images are recorded when they are built and when they are used again; calls
    `on_image` afterwards."""

    def __init__(
        self,
        service: str,
        builder: ServiceBuilder,
        built: BuiltImages,
        on_image: Callable[[], None],
    ) -> None:
        self._service = service
        self._builder = builder
        self._built = built
        self._on_image = on_image

    def build(self, scan: Scan, reporter: Reporter, cancel: Cancel) -> ImageRef:
        image = self._builder.build(scan, reporter, cancel)
        if image.digest:
            self._built.add(
                BuiltImage(
                    service=self._service,
                    repository=image.repository,
                    tag=image.tag,
                    digest=image.digest,
                )
            )
            self._on_image()
        return image

    def may_differ(self, before: Scan, after: Scan) -> bool:
        return self._builder.may_differ(before, after)
