from __future__ import annotations

from typing import TYPE_CHECKING

from devloop.app.good_images import ServiceImages
from devloop.engine.back import KEPT
from devloop.model import Fingerprint, ImageRef

if TYPE_CHECKING:
    from pathlib import Path


def image(name: str) -> ImageRef:
    return ImageRef(
        repository="r/web", tag=name, digest=f"sha256:{name}", supervisor=("/devloop", "--")
    )


def of(directory: Path, service: str = "web", namespace: str = "dev") -> ServiceImages:
    return ServiceImages(directory, "kind-dev", namespace, service)


def tags(found: ServiceImages) -> list[str]:
    return [each.image.tag for each in found.known()]


def test_what_was_ready_is_known_to_later_sessions(tmp_path: Path) -> None:
    for name in ("a", "b", "a"):
        of(tmp_path).add(image(name), Fingerprint(name, "m"))
    assert tags(of(tmp_path)) == ["b", "a"]
    assert of(tmp_path).known()[-1].image == image("a")
    assert of(tmp_path).known()[-1].fingerprint == Fingerprint("a", "m")
    assert tags(of(tmp_path, "api")) == []
    assert tags(of(tmp_path, namespace="other")) == []
    for number in range(20):
        of(tmp_path).add(image(str(number)), Fingerprint("x", "m"))
    assert len(of(tmp_path).known()) == KEPT


def test_a_rollback_cuts_off_what_came_after(tmp_path: Path) -> None:
    for name in "abc":
        of(tmp_path).add(image(name), Fingerprint(name, "m"))
    of(tmp_path).went_back(image("b"), by_hand=True)
    assert (tags(of(tmp_path)), of(tmp_path).by_hand) == (["a", "b"], True)
    of(tmp_path).add(image("d"), Fingerprint("d", "m"))
    assert (tags(of(tmp_path)), of(tmp_path).by_hand) == (["a", "b", "d"], False)


def test_a_damaged_file_costs_the_way_back_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "good-images.json"
    for text in ("{", '{"services": 3}', '{"services": {"kind-dev": {"dev": {"web": []}}}}'):
        path.write_text(text)
        assert tags(of(tmp_path)) == []
        of(tmp_path).add(image("a"), Fingerprint("a", "m"))
        assert tags(of(tmp_path)) == ["a"]
