"""Base images of other languages than the sample's, for benchmarks that show projects of them.

Not in bases.py: the key of every image there holds that module's whole text.
"""

from __future__ import annotations

import inspect
import sys
from typing import TYPE_CHECKING

from . import bases
from .images import Image

if TYPE_CHECKING:
    from pathlib import Path

COMMON = ("bash", "coreutils", "dash", "libc-bin", "tzdata")
NODE = (*COMMON, "nodejs")
JAVA = (*COMMON, "openjdk-17-jre-headless")
RUBY = (*COMMON, "ruby", "ruby-webrick")


def node_tree(root: Path) -> None:
    """Make a tree with node and a shell."""
    bases.plant(NODE, root, dependencies=True)


def ruby_tree(root: Path) -> None:
    """Make a tree with ruby, its webrick and a shell."""
    bases.plant(RUBY, root, dependencies=True)


def java_tree(root: Path) -> None:
    """Make a tree with java and a shell."""
    bases.plant(JAVA, root, dependencies=True)
    (home,) = (root / "usr/lib/jvm").glob("java-17-openjdk-*")
    (root / "usr/bin/java").symlink_to(f"/usr/lib/jvm/{home.name}/bin/java")


def key(name: str) -> str:
    """Return the key of an image made here: bases.py's, and this module's text."""
    return bases.key(name, inspect.getsource(sys.modules[__name__]))


def node() -> Image:
    """Return the image that Node.js services are built from."""
    return Image(
        tag="node-base:dev",
        public="node:slim",
        key=key("node"),
        tree=node_tree,
        config=(bases.PATH, 'CMD ["node"]'),
        estimate="1 min",
    )


def java() -> Image:
    """Return the image that Java services are built from."""
    return Image(
        tag="java-base:dev",
        public="eclipse-temurin:17-jre",
        key=key("java"),
        tree=java_tree,
        config=(bases.PATH, 'CMD ["java", "-version"]'),
        estimate="1 min",
    )


def ruby() -> Image:
    """Return the image that Ruby services are built from."""
    return Image(
        tag="ruby-base:dev",
        public="ruby:slim",
        key=key("ruby"),
        tree=ruby_tree,
        config=(bases.PATH, "ENV LANG=C.UTF-8", 'CMD ["irb"]'),
        estimate="1 min",
    )
