"""What a computer calls its processor and what image indexes call it (Go's GOARCH)."""

from __future__ import annotations

import platform

ARCHITECTURES = (
    "386",
    "amd64",
    "arm",
    "arm64",
    "loong64",
    "mips64le",
    "ppc64le",
    "riscv64",
    "s390x",
)
"""Those that image indexes use."""

_OTHER_NAMES = {
    "x86_64": "amd64",
    "x86-64": "amd64",
    "x64": "amd64",
    "aarch64": "arm64",
    "armv6l": "arm",
    "armv7l": "arm",
    "i386": "386",
    "i686": "386",
    "loongarch64": "loong64",
}


def architecture(name: str) -> str:
    """`x86_64` -> `amd64`; a name that is not known stays what it is."""
    return _OTHER_NAMES.get(name.lower(), name.lower())


def own_platform() -> str:
    """This computer's, as OS/ARCH; containers run Linux whatever the computer does."""
    return f"linux/{architecture(platform.machine())}"
