"""Names of images and registries, read by Docker's rules. Pure.

Source: https://github.com/distribution/reference (grammar in reference.go, defaults in
normalize.go).
"""

from __future__ import annotations

import re

from devloop.base.lazy_dataclass import dataclass

HUB = "docker.io"

# Regular expressions that Python and JSON Schema (ECMA 262) read alike.
_PART = r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*"
IMAGE_PATH = rf"{_PART}(/{_PART})*"
HOST_LABEL = "[a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?"
PORT_NUMBER = (
    "([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
)
REGISTRY = (
    rf"((localhost|{HOST_LABEL}(\.{HOST_LABEL})+)(:{PORT_NUMBER})?"
    rf"|({HOST_LABEL}|\[[0-9a-fA-F:]+\]):{PORT_NUMBER}|\[[0-9a-fA-F:]+\])(/{_PART})*"
)
"""HOST[:PORT][/PATH], with a host that Docker does not take for a user of Docker Hub."""

_PATH = re.compile(IMAGE_PATH)
_TAG = re.compile(r"\w[\w.-]{0,127}", re.ASCII)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageReference:
    """An image's name in full. `reference` is its digest if it has one, else its tag."""

    host: str
    path: str
    tag: str = ""
    digest: str = ""

    @property
    def reference(self) -> str:
        return self.digest or self.tag

    @property
    def short(self) -> str:
        """The name as a user writes it, without tag."""
        if self.host != HUB:
            return f"{self.host}/{self.path}"
        return self.path.removeprefix("library/")


def familiar(text: str) -> str:
    """A name as Docker shows it: without Docker Hub's host, its `library/` and the tag `latest`.
    What is no image's name stays as it is."""
    try:
        image = parse_reference(text)
    except ValueError:
        return text
    tag = "" if image.tag in ("", "latest") else f":{image.tag}"
    return image.short + tag + (f"@{image.digest}" if image.digest else "")


def split_registry(name: str) -> tuple[str, str]:
    """The registry's host, "" without one, and the rest of the name."""
    host, slash, rest = name.partition("/")
    is_host = host == "localhost" or "." in host or ":" in host or host != host.lower()
    return (host, rest) if slash and is_host else ("", name)


def parse_reference(text: str) -> ImageReference:
    """`python:3.13` -> docker.io/library/python:3.13. Raises ValueError for what is not an image's
    name."""
    name, at, digest = text.partition("@")
    host, path = split_registry(name)
    path, colon, tag = path.partition(":")
    if host in ("", "index.docker.io", HUB):
        host, path = HUB, path if "/" in path else f"library/{path}"
    wrong = (at and not _DIGEST.fullmatch(digest)) or (colon and not _TAG.fullmatch(tag))
    if wrong or not _PATH.fullmatch(path):
        raise ValueError(f"{text} is not the name of an image")
    return ImageReference(
        host=host, path=path, tag=tag or ("" if digest else "latest"), digest=digest
    )
