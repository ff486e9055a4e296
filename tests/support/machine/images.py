"""Container images by a name of our own, whichever way they come to be here.

Each has a local tag (`python-base:dev`) that means the public image where one can be pulled, and
one made here from Debian packages where not.  What is made is kept as a tar in the cache, so a
Docker that lost its images gets them back in seconds.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from functools import cache as once
from typing import TYPE_CHECKING

from . import cache, console, debian, shell

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LABEL = "devloop.tests.key"
PROBE = "hello-world"
PROBE_SECONDS = 20
# Namespaces of tests have such names (tests/e2e/conftest.py), and their images are named by them.
OF_A_TEST = re.compile(r"^[^/\s]+/devloop-[0-9a-f]{8}/\S+$", re.MULTILINE)
MANY, AT_ONCE = 1000, 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """One image: its local tag, the public one it stands for, and how to make it here.

    `tree` fills a directory with the image's files and returns nothing; `key` changes with anything
    that goes into it; `config` are Dockerfile instructions for `docker import`.
    """

    tag: str
    public: str
    key: str
    tree: Callable[[Path], None]
    config: tuple[str, ...] = ()
    estimate: str = "20 s"

    @property
    def archive(self) -> str:
        """Return the cache's name of the tar of this image's files."""
        return f"images/{self.tag.split(':')[0]}-{self.key}.tar"


def ensure(image: Image) -> str:
    """Have an image under its own tag and return that."""
    if current(image):
        return image.tag
    if not (cache.home() / image.archive).exists() and can_pull():
        with console.step(f"docker pull {image.public}"):
            shell.run(["docker", "pull", "-q", image.public], timeout=1800)
        shell.run(["docker", "tag", image.public, image.tag], timeout=30)
        return image.tag
    if not debian.usable():
        raise shell.MachineError(
            f"{image.public} cannot be pulled, and only root on Debian can make its stand-in"
        )
    load(image, cache.made(image.archive, lambda tar: pack(image, tar)))
    cache.forget(image.archive.replace(image.key, "*"))
    return image.tag


def current(image: Image) -> bool:
    """Tell whether Docker has the image: a pulled one, or the one made from this very key."""
    labels = shell.output(
        ["docker", "image", "inspect", "-f", "{{json .Config.Labels}}", image.tag], timeout=30
    )
    if not labels:
        return False
    made_from = (json.loads(labels) or {}).get(LABEL)
    return made_from in (None, image.key)


@once
def can_pull() -> bool:
    """Tell whether Docker can pull public images here (asked once, with a tiny one).

    DEVLOOP_TEST_PULL=never answers for it, to try the other way where they can be pulled.
    """
    if os.environ.get("DEVLOOP_TEST_PULL") == "never":
        return False
    with console.step("asking whether public images can be pulled", "20 s at most"):
        pulled = shell.succeeds(["docker", "pull", "-q", PROBE], timeout=PROBE_SECONDS)
    console.say("    they can" if pulled else "    they cannot: images are made here")
    return pulled


def pack(image: Image, tar: Path) -> None:
    """Make an image's files and pack them."""
    tree = tar.with_suffix(".tree")
    tree.mkdir()
    with console.step(f"making the image {image.tag}", image.estimate):
        image.tree(tree)
        shell.run(["tar", "-C", tree, "--numeric-owner", "-cf", tar, "."], timeout=300)


def load(image: Image, tar: Path) -> None:
    """Give an image's tar to Docker."""
    old = shell.output(["docker", "image", "inspect", "-f", "{{.Id}}", image.tag])
    changes = [*image.config, f"LABEL {LABEL}={image.key}"]
    flags = [part for change in changes for part in ("-c", change)]
    with console.step(f"docker import {image.tag}", "5 s"):
        new = shell.run(["docker", "import", *flags, tar, image.tag], timeout=300).strip()
    if old not in ("", new):
        shell.succeeds(["docker", "image", "rm", old])  # stays while a container uses it


def remove_leftovers() -> None:
    """Remove the images of earlier tests once there are many: a Docker daemon that was killed reads
    all that it has before it answers again."""
    listed = shell.output(["docker", "images", "--format", "{{.Repository}}:{{.Tag}}"], timeout=60)
    names = OF_A_TEST.findall(listed)
    if len(names) < MANY:
        return
    with console.step(f"removing {len(names)} images of earlier tests", "1 min"):
        for start in range(0, len(names), AT_ONCE):
            # One that is in use stays.
            shell.succeeds(["docker", "rmi", *names[start : start + AT_ONCE]], timeout=300)
