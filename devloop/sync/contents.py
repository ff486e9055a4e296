"""What a service's images were made of and what their containers got, kept from one session to the
next: a container names its content by a mark, and here is what that mark stands for.

Nothing here is believed by itself: that a container has a content, only the container says, and
what an image has, its layers. Losing the files costs the next start a build. Not for two sessions
at once.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import threading
from dataclasses import asdict
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from devloop.base.lazy_dataclass import dataclass
from devloop.base.state_file import StateFile, replace_file
from devloop.model import ContextEntry, Fingerprint, ImageRef, Scan, Snapshot

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from pathlib import Path


_LOG = logging.getLogger(__name__)
_NO_NAME = re.compile(r"[^A-Za-z0-9_-]")

# So many contents and images are kept beside those that a container runs.
_KEPT = 12
# With more paths than this that differ, a content is written down whole.
_MOST_CHANGES = 50

_Entries = dict[str, ContextEntry]


@dataclass(frozen=True, slots=True, kw_only=True)
class RememberedImage:
    """An image that was deployed, the mark of its content, and the manifests' fingerprint then."""

    image: ImageRef
    mark: str
    deploy: str


class RememberedContents:
    """One service's, in a directory of its own under `root`: an index, and a file for each snapshot
    that is written down whole; the others are what they differ in. Thread-safe."""

    def __init__(self, root: Path, service: str) -> None:
        self._directory = root / _NO_NAME.sub(lambda found: f"%{ord(found[0]):x}", service)
        self._file = StateFile(self._directory / "index.json")
        self._lock = threading.Lock()
        self._index: dict[str, Any] | None = None
        # The last that was written down whole, by its mark.
        self._base: tuple[str, _Entries] | None = None

    def add(
        self, scan: Scan, image: ImageRef | None = None, *, running: Collection[str] = ()
    ) -> None:
        """Remember what `scan` saw, and that `image` was made of it and deployed; `running` are the
        digests of images that must not be forgotten. A fault of the disk is only reported."""
        with self._adding(scan, running) as index:
            if image is not None and image.digest:
                index["images"].pop(image.digest, None)
                index["images"][image.digest] = {
                    "image": asdict(image),
                    "mark": scan.fingerprint.build,
                    "deploy": scan.fingerprint.deploy,
                }

    def built(self, scan: Scan, image: ImageRef) -> None:
        """Remember that `image` was made of what `scan` saw, whether or not it is deployed."""
        with self._lock:
            last = next(reversed(self._read()["built"]), "")
        if image.digest in ("", last):
            return
        with self._adding(scan) as index:
            index["built"].pop(image.digest, None)
            index["built"][image.digest] = [image.repository, scan.fingerprint.build]

    def last_built(self, like: Scan, repository: str) -> tuple[Scan, str] | None:
        """The digest of an image in `repository` that came of the recipe of `like`, of the last
        such, and what it was made of."""
        with self._lock:
            built = dict(self._read()["built"])
        found = [(digest, value) for digest, value in built.items() if isinstance(value, list)]
        found += [
            (each.image.plain or digest, [each.image.repository, each.mark])
            for digest, each in self.images().items()
        ]
        for digest, value in reversed(found):
            scan = self.scan(str(value[-1]), like) if value[:1] == [repository] else None
            if scan is not None:
                return scan, digest
        return None

    def images(self) -> dict[str, RememberedImage]:
        """By digest."""
        with self._lock:
            images = dict(self._read()["images"])
        found = {}
        for digest, value in images.items():
            with contextlib.suppress(TypeError, KeyError, ValueError):
                fields = {**value["image"], "supervisor": tuple(value["image"]["supervisor"])}
                found[digest] = RememberedImage(
                    image=ImageRef(**fields), mark=value["mark"], deploy=value["deploy"]
                )
        return found

    def scan(self, mark: str, like: Scan) -> Scan | None:
        """What a mark stands for; None where that is not known or was made by another recipe than
        `like`. Paths that do not differ have the very same entries."""
        if mark == like.fingerprint.build:
            return like
        with self._lock:
            content = self._read()["contents"].get(mark)
            try:
                if content is None or content["recipe"] != like.recipe:
                    return None
                entries = dict(self._entries(content["base"], like.snapshot.entries))
                for path, value in content["changes"].items():
                    entries.pop(path, None)
                    if value is not None:
                        entries[path] = ContextEntry(*value)
                found = {path: entries[path] for path in sorted(entries)}
                snapshot = Snapshot(
                    entries=MappingProxyType(found), digest=content["digest"], stamp=""
                )
            except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
                _LOG.warning("what %s stands for cannot be read: %s", mark[:12], error)
                return None
        fingerprint = Fingerprint(mark, like.fingerprint.deploy)
        return Scan(fingerprint=fingerprint, snapshot=snapshot, recipe=like.recipe)

    # --- files, with the lock held -------------------------------------------------------------

    @contextlib.contextmanager
    def _adding(self, scan: Scan, running: Collection[str] = ()) -> Iterator[dict[str, Any]]:
        """The index, to which the content of `scan` is added with whatever else."""
        with self._lock, contextlib.suppress(OSError):
            index = self._read()
            mark, base = scan.fingerprint.build, self._base
            content = index["contents"].pop(mark, None) or self._written(scan)
            index["contents"][mark] = content
            yield index
            self._prune(index, running)
            self._file.save(index)
            if self._base is not base:
                self._remove_bases(index)

    def _read(self) -> dict[str, Any]:
        if self._index is None:
            found = self._file.read() or {}
            self._index = {
                key: found[key] if isinstance(found.get(key), dict) else {}
                for key in ("contents", "images", "built")
            }
        return self._index

    def _path(self, base: str) -> Path:
        return self._directory / f"content-{base[:32]}.json"

    def _written(self, scan: Scan) -> dict[str, Any]:
        """The content as it stands in the index; whole in a file of its own where it differs from
        the last such in too much."""
        mark, now = scan.fingerprint.build, scan.snapshot.entries
        changed = _changes(self._base[1], now) if self._base is not None else None
        if self._base is None or changed is None or len(changed) > _MOST_CHANGES:
            whole = {path: _fields(entry) for path, entry in now.items()}
            replace_file(self._path(mark), json.dumps({"v": 1, "entries": whole}).encode())
            self._base, changed = (mark, dict(now)), {}
        return {
            "recipe": scan.recipe,
            "digest": scan.snapshot.digest,
            "base": self._base[0],
            "changes": changed,
        }

    def _entries(self, base: str, like: Mapping[str, ContextEntry]) -> Mapping[str, ContextEntry]:
        if self._base is None or self._base[0] != base:
            value = json.loads(self._path(base).read_bytes())["entries"]
            read = {path: ContextEntry(*fields) for path, fields in value.items()}
            same = {path: like[path] for path, e in read.items() if like.get(path) == e}
            self._base = (base, {**read, **same})
        return self._base[1]

    def _prune(self, index: dict[str, Any], running: Collection[str]) -> None:
        images, contents = index["images"], index["contents"]
        spare = [digest for digest in images if digest not in running]
        for digest in spare[:-_KEPT]:
            del images[digest]
        for digest in [*index["built"]][:-_KEPT]:
            del index["built"][digest]
        used = {value.get("mark") for value in images.values() if isinstance(value, dict)}
        used |= {value[-1] for value in index["built"].values() if isinstance(value, list)}
        for mark in [mark for mark in contents if mark not in used][:-_KEPT]:
            del contents[mark]

    def _remove_bases(self, index: dict[str, Any]) -> None:
        used = {self._path(str(c.get("base"))) for c in index["contents"].values()}
        for path in self._directory.glob("content-*.json"):
            if path not in used:
                path.unlink(missing_ok=True)


def _fields(entry: ContextEntry) -> list[Any]:
    return [entry.type, entry.mode, entry.size, entry.digest, entry.link]


def _changes(
    before: Mapping[str, ContextEntry], now: Mapping[str, ContextEntry]
) -> dict[str, list[Any] | None]:
    changed: dict[str, list[Any] | None] = {
        path: _fields(entry)
        for path, entry in now.items()
        if (known := before.get(path)) is not entry and known != entry
    }
    return changed | {path: None for path in before if path not in now}
