"""Having the user's browser show an address."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING

from devloop.base.threads import supervised

if TYPE_CHECKING:
    from collections.abc import Mapping


def show_in_browser(url: str) -> bool:
    """False where there is no browser that a person would see. Returns at once; whether the browser
    then starts is its own affair."""
    if not has_browser(os.environ, sys.platform):
        return False
    supervised("browser", _open, url).start()
    return True


def has_browser(env: Mapping[str, str], platform: str) -> bool:
    """Whether there is a desktop, or somebody said what to open addresses with. Anything else would
    be a browser in the terminal, and the session has that."""
    return platform == "darwin" or any(
        env.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")
    )


def _open(url: str) -> None:
    import webbrowser  # noqa: PLC0415 - only for whoever presses the key

    with contextlib.suppress(webbrowser.Error, OSError):
        webbrowser.open(url)
