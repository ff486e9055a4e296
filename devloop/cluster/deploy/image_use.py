"""Which container uses which service's image. Pure.

The rule, for users: an image of a manifest belongs to a service when their repository names agree,
registry, tag and digest left aside. `shop/web` is meant by `shop/web`, `shop/web:1`,
`localhost:5001/shop/web:dev` and, if nothing fits better, by `web`; the service `web` is meant by
`web` and `ghcr.io/acme/web`. An exact name beats a shorter one, and an image that is exactly
another service's is never taken.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from devloop.base.image_reference import split_registry

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


def repository_path(image: str) -> tuple[str, ...]:
    """The parts of an image's repository without registry, tag and digest; Docker Hub's `library/`
    is left out."""
    path = split_registry(image.strip().partition("@")[0])[1].removeprefix("library/")
    *parents, name = path.split("/")
    return tuple(part for part in (*parents, name.partition(":")[0]) if part)


def score(image: str, wanted: str) -> int:
    """How well `image` names the service image `wanted`: 0 not at all, 1000 exactly; in between,
    one ends in the other, and a longer common end counts more."""
    have, want = repository_path(image), repository_path(wanted)
    if not have or not want:
        return 0
    if have == want:
        return 1000
    shorter = min(len(have), len(want))
    return shorter if have[-shorter:] == want[-shorter:] else 0


def owner(image: str, services: Mapping[str, str], *, prefer: str = "") -> str | None:
    """The service (of name -> image name) that `image` belongs to; None when it is nobody's or
    could be two services' alike, unless one of those is `prefer`."""
    scores = {name: score(image, wanted) for name, wanted in services.items()}
    best = max(scores.values(), default=0)
    names = [name for name, value in scores.items() if value == best]
    if best == 0:
        return None
    if prefer in names:
        return prefer
    return names[0] if len(names) == 1 else None


def known(images: Iterable[str]) -> str:
    """For messages: the images found, each once, in order."""
    return ", ".join(dict.fromkeys(images)) or "none"
