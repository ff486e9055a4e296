"""The images of each service that were served and ready, kept from one session to the next: what
`devloop rollback` goes back to, also where no session runs.

By context and namespace: a project may be at work in several. Decides nothing; losing the file
costs the way back. The last few of each service, see `engine.back`.
"""

from __future__ import annotations

import contextlib
import functools
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from devloop.base.state_file import StateFile
from devloop.engine.back import cut_off, with_good
from devloop.engine.state import GoodImage
from devloop.errors import DevloopError
from devloop.model import Fingerprint, ImageRef

if TYPE_CHECKING:
    from pathlib import Path

    from devloop.base.cancel import Cancel
    from devloop.registry.client import RegistryClient


def image_exists(registry: RegistryClient | None, image: ImageRef, cancel: Cancel) -> bool:
    """Whether the registry has it still; True where it does not say. A node may have kept it."""
    if registry is None or not image.digest:
        return True
    try:
        return registry.digest(image.repository, image.digest, cancel) is not None
    except DevloopError:
        return True


class ServiceImages:
    """Those of one service, as `engine.ports.GoodImages`. Thread-safe."""

    def __init__(self, state_dir: Path, context: str, namespace: str, service: str) -> None:
        self._file = StateFile(state_dir / "good-images.json")
        self._where = (context, namespace, service)

    def known(self) -> tuple[GoodImage, ...]:
        return _read(_at(self._file.read() or {}, self._where))

    @property
    def by_hand(self) -> bool:
        """Whether the last thing that happened was a rollback without a session."""
        return _at(self._file.read() or {}, self._where).get("by_hand") is True

    def add(self, image: ImageRef, fingerprint: Fingerprint) -> None:
        found = GoodImage(image=image, fingerprint=fingerprint)
        with self._file.updating() as value:
            place = _at(value, self._where)
            _write(place, with_good(_read(place), found))

    def went_back(self, image: ImageRef, *, by_hand: bool = False) -> None:
        with self._file.updating() as value:
            place = _at(value, self._where)
            _write(place, cut_off(_read(place), image), by_hand=by_hand)


def _at(value: dict[str, Any], where: tuple[str, ...]) -> dict[str, Any]:
    """The entry in `value`, which is made where there is none."""

    def deeper(found: dict[str, Any], key: str) -> dict[str, Any]:
        if not isinstance(found.get(key), dict):
            found[key] = {}
        below: dict[str, Any] = found[key]
        return below

    return functools.reduce(deeper, ("services", *where), value)


def _read(place: dict[str, Any]) -> tuple[GoodImage, ...]:
    found = []
    entries = place.get("images")
    for entry in entries if isinstance(entries, list) else ():
        with contextlib.suppress(TypeError, KeyError):
            image = ImageRef(**entry["image"])
            image = replace(image, supervisor=tuple(image.supervisor))
            fingerprint = Fingerprint(**entry["fingerprint"])
            found.append(GoodImage(image=image, fingerprint=fingerprint))
    return tuple(found)


def _write(place: dict[str, Any], good: tuple[GoodImage, ...], *, by_hand: bool = False) -> None:
    place["images"] = [
        {"image": asdict(each.image), "fingerprint": asdict(each.fingerprint)} for each in good
    ]
    place["by_hand"] = by_hand
