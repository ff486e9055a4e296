"""Which pages are generated, and from what."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.support.docs.configuration import configuration
from tests.support.docs.skaffold_keys import skaffold_keys
from tests.support.docs.troubleshooting import troubleshooting

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT: Final = Path(__file__).parents[3]
DOCS: Final = ROOT / "docs"
PAGES: Final[dict[str, Callable[[], str]]] = {
    "configuration.md": lambda: configuration(
        (ROOT / "devloop.yaml.example").read_text(encoding="utf-8")
    ),
    "skaffold-keys.md": skaffold_keys,
    "troubleshooting.md": troubleshooting,
}
