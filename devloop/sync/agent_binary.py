"""Where the agent's programs for containers are: in devloop's package, put there by its build hook.

Only finds them; agent/README.md has what they do.
"""

from __future__ import annotations

from pathlib import Path

_DIRECTORY = Path(__file__).with_name("agents")


def agent_for(platform: str) -> Path | None:
    """The program for `linux/amd64` or `linux/arm64`, or None where there is none."""
    system, _, rest = platform.partition("/")
    architecture, _, variant = rest.partition("/")
    if system != "linux" or (architecture, variant) not in (
        ("amd64", ""),
        ("arm64", ""),
        ("arm64", "v8"),
    ):
        return None
    found = _DIRECTORY / f"linux-{architecture}"
    return found if found.is_file() else None
