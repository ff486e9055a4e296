"""Images that an earlier stage made, in the place of a builder."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from devloop.app.given_images import GivenImages, GivenSource, PushedImages, as_pulled
from devloop.base.cancel import Cancel
from devloop.engine.reporters import SilentReporter
from devloop.errors import Code, DevloopError
from devloop.model import ImageRef, NodeImages, PushTarget

if TYPE_CHECKING:
    from collections.abc import Callable

DIGEST = "sha256:" + "a" * 64
WEB = ImageRef(repository="localhost:5001/web", tag="t", digest=DIGEST)
LOCAL = ImageRef(repository="web", tag="t")
TARGET = PushTarget(push="localhost:5001", pull="registry:5000")


def test_the_nodes_name_of_the_registry_counts() -> None:
    assert as_pulled(WEB, TARGET).pinned == f"registry:5000/web@{DIGEST}"
    for target in (PushTarget(), PushTarget(push="localhost:5001"), PushTarget(push="x", pull="y")):
        assert as_pulled(WEB, target) is WEB
    # Whoever built it knew the name already.
    known = ImageRef(repository="localhost:5001/web", tag="t", digest=DIGEST, pull_repository="p/w")
    assert as_pulled(known, TARGET) is known


def test_another_image_is_another_fingerprint_and_manifests_are_checked() -> None:
    checked: list[Cancel] = []
    source, cancel = GivenSource(WEB, checked.append), Cancel()
    first = source.scan(None, cancel).fingerprint
    assert first == GivenSource(WEB, checked.append).scan(None, cancel).fingerprint
    assert first != GivenSource(LOCAL, checked.append).scan(None, cancel).fingerprint
    assert len(checked) == 3


def test_what_is_in_no_registry_is_loaded_into_the_nodes_or_refused() -> None:
    class Loader:
        def load(self, image: str, cancel: Cancel, progress: Callable[[str], None]) -> None:
            loaded.append(image)

    loaded: list[str] = []
    scan = GivenSource(LOCAL, lambda _: None).scan(None, Cancel())
    loader: Any = Loader()
    built = GivenImages(LOCAL, PushTarget(nodes=NodeImages("kind", "k")), loader)
    assert built.build(scan, SilentReporter(), Cancel()) is LOCAL
    assert loaded == ["web:t"]
    assert GivenImages(WEB, PushTarget(), None).build(scan, SilentReporter(), Cancel()) is WEB
    here = GivenImages(LOCAL, PushTarget(), None, here=True)  # for its test
    assert here.build(scan, SilentReporter(), Cancel()) is LOCAL
    with pytest.raises(DevloopError, match="no registry that the nodes"):
        GivenImages(LOCAL, PushTarget(), None).build(scan, SilentReporter(), Cancel())


def test_without_a_file_the_registry_is_asked_for_what_is_on_disk() -> None:
    class Registry:
        def digest(self, repository: str, reference: str, cancel: Cancel) -> str | None:
            asked.append(f"{repository}:{reference}")
            return answers.pop()

    asked: list[str] = []
    answers: list[str | None] = [None, DIGEST]
    service = cast("Any", SimpleNamespace(name="web", image="shop/web"))
    scan = GivenSource(WEB, lambda _: None).scan(None, Cancel())
    registry: Any = Registry()
    pushed = PushedImages(service, TARGET, registry)
    image = pushed.build(scan, SilentReporter(), Cancel())
    assert image.pinned == f"registry:5000/shop/web@{DIGEST}"
    assert asked == [f"localhost:5001/shop/web:devloop-{scan.fingerprint.build[:16]}"]
    with pytest.raises(DevloopError) as error:
        pushed.build(scan, SilentReporter(), Cancel())
    assert error.value.code is Code.BUILD_NOT_PUSHED
    assert "devloop build --push web" in error.value.diagnosis.suggestions[0]
