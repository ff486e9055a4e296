"""devloop: save a file, see it served by a real pod."""

from __future__ import annotations

__all__ = ["__version__"]

__version__ = "0.1.0"
