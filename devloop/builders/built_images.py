"""What is remembered of images: which devloop built, so that those can be removed again and nothing
else; and which came of which content, so that going back to it needs no build.

Losing a file costs the knowledge of what to remove, or a build. Removing is not done here: see
app/housekeeping.py.
"""

from __future__ import annotations

import contextlib
import json
import re
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from devloop.base.lazy_dataclass import dataclass
from devloop.base.state_file import StateFile
from devloop.errors import DevloopError
from devloop.model import Step, StepOutcome

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    from devloop.base.cancel import Cancel
    from devloop.builders.job import Job
    from devloop.engine.ports import Builder, Reporter, ServiceBuilder
    from devloop.model import ImageRef, Scan


# Enough to go back some steps; a session of many services must not forget one over another.
_KEPT = 20
_RELEASED = 1000
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_LINES = "made.jsonl"  # where devloop 0.1 kept them, one JSON object a line


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltImage:
    """One image. `repository` is host/path as it was pushed to; `digest` is `sha256:...`."""

    service: str
    repository: str
    tag: str
    digest: str

    @classmethod
    def of(cls, service: str, image: ImageRef) -> BuiltImage:
        place = {"repository": image.repository, "tag": image.tag, "digest": image.digest}
        return cls(service=service, **place)


class BuiltImages:
    """The images built for one project, in `built-images.json`. Thread-safe."""

    def __init__(self, state_dir: Path) -> None:
        self._file = StateFile(state_dir / "built-images.json")
        self._lines = state_dir / _LINES

    def add(self, image: BuiltImage) -> None:
        """Make it the one that was used last."""
        if self.all()[-1:] == (image,):
            return  # as at most starts, where a write would be waited for
        with self._file.updating() as value:
            if [image.repository, image.digest] not in _released(value):
                _put(value, [*(each for each in self._images(value) if each != image), image])

    def release(self, images: Collection[tuple[str, str]]) -> None:
        """Give images (repository, digest) away: others deploy them by their digest, so they are
        nothing that this project's sessions may remove, whatever they build again."""
        with self._file.updating() as value:
            released = _released(value)
            new = [list(each) for each in images if list(each) not in released]
            value["released"] = [*released, *new][-_RELEASED:]
            gone = [list(each) for each in images]
            _put(value, [i for i in self._images(value) if [i.repository, i.digest] not in gone])

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


def _released(value: Mapping[str, Any]) -> list[list[str]]:
    found = value.get("released")
    return [each for each in found if isinstance(each, list)] if isinstance(found, list) else []


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
    """A builder whose images are recorded when they are built and when they are used again, to
    `remember` with what they were made of; from its start until then it is within `under_way`."""

    def __init__(
        self,
        service: str,
        builder: ServiceBuilder,
        built: BuiltImages,
        under_way: Callable[[], AbstractContextManager[object]],
        remember: Callable[[Scan, ImageRef], None] = lambda _scan, _image: None,
    ) -> None:
        self._remember = remember
        self._service = service
        self._builder = builder
        self._built = built
        self._under_way = under_way

    def build(self, scan: Scan, reporter: Reporter, cancel: Cancel) -> ImageRef:
        with self._under_way():
            image = self._builder.build(scan, reporter, cancel)
            if image.digest:
                self._built.add(BuiltImage.of(self._service, image))
                self._remember(scan, image)
        return image

    def may_differ(self, before: Scan, after: Scan) -> bool:
        return self._builder.may_differ(before, after)

    def wrote(self, before: Scan, after: Scan) -> bool:
        return self._builder.wrote(before, after)


class CachedImages:
    """`(repository, build fingerprint) -> digest`, in a JSON file; the last 20 of each repository.
    Thread-safe."""

    def __init__(self, path: Path) -> None:
        self._file = StateFile(path, durable=True)

    def find(self, repository: str, build: str) -> str | None:
        return _images(self._file.read() or {}).get(_key(repository, build))

    def add(self, repository: str, build: str, digest: str) -> None:
        with self._file.updating() as value:
            images = value["images"] = _images(value)
            images.pop(_key(repository, build), None)
            images[_key(repository, build)] = digest
            mine = [key for key in images if key.startswith(_key(repository, ""))]
            for key in mine[:-_KEPT]:
                del images[key]


def _images(value: Mapping[str, Any]) -> dict[str, str]:
    images = value.get("images")
    if not isinstance(images, dict):
        return {}
    return {k: v for k, v in images.items() if isinstance(v, str) and _DIGEST.fullmatch(v)}


def _key(repository: str, build: str) -> str:
    return f"{repository}@{build}"


class CachingBuilder:
    """A builder that looks into the cache first and asks the fallback builder second. A record is
    only believed while the registry still has the manifest."""

    def __init__(self, job: Job, fallback: Builder, images: CachedImages) -> None:
        self._job = job
        self._fallback = fallback
        self._images = images

    def build(self, scan: Scan, reporter: Reporter, cancel: Cancel) -> ImageRef:
        repository = self._job.repository
        digest = None if scan.fresh else self._known(repository, scan, cancel)
        if digest is not None:
            reporter.started(Step.BUILD)
            reporter.finished(Step.BUILD, StepOutcome.SKIPPED, f"same content as {digest[:19]}…")
            return self._job.image_ref(scan, digest)
        image = self._fallback.build(scan, reporter, cancel)
        if image.digest:
            # Only here, after the fallback builder made sure that no file changed meanwhile.
            self._images.add(repository, scan.fingerprint.build, image.digest)
        return image

    def _known(self, repository: str, scan: Scan, cancel: Cancel) -> str | None:
        registry = self._job.registry
        digest = self._images.find(repository, scan.fingerprint.build)
        if digest is None or registry is None or not self._job.target.push:
            return None
        try:
            return digest if registry.digest(repository, digest, cancel) == digest else None
        except DevloopError:
            # The build will say what is wrong with the registry, if it is wrong there too.
            return None
