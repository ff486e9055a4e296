"""The image of Docker itself: its daemon, as a CI's service runs it, and its command."""

from __future__ import annotations

import inspect
import shutil
import sys
from typing import TYPE_CHECKING

from . import bases, engine
from .images import Image

if TYPE_CHECKING:
    from pathlib import Path

PACKAGES = (
    *engine.NEWER,
    *engine.OWN,
    *("base-files", "coreutils", "dash", "findutils", "iptables", "mount", "netbase", "sed"),
)
FILES = bases.FILES / "docker"
# Where the public image has them.
DOCKER = "usr/local/bin/docker"
BUILDX = "usr/local/libexec/docker/cli-plugins/docker-buildx"


def tree(root: Path) -> None:
    """Make a tree with the daemon, what it starts, and the docker command."""
    bases.plant(PACKAGES, root, suite=engine.NEWER_SUITE, dependencies=True)
    shutil.copytree(FILES, root, dirs_exist_ok=True)
    for name in ("iptables", "ip6tables"):  # the flavour of the machine's own daemon
        (root / "usr/sbin" / name).unlink(missing_ok=True)
        (root / "usr/sbin" / name).symlink_to("xtables-nft-multi")
    for place, program in (
        (DOCKER, root / "usr/bin/docker"),
        (BUILDX, next(root.glob("usr/lib*/docker/cli-plugins/docker-buildx"))),
    ):
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        program.rename(root / place)


def image() -> Image:
    """Return the image of Docker in Docker; it listens without TLS, at 2375."""
    return Image(
        tag="docker-in-docker:dev",
        public="docker:dind",
        key=bases.key("docker", inspect.getsource(sys.modules[__name__]), *PACKAGES, FILES),
        tree=tree,
        config=(
            bases.PATH,
            'ENTRYPOINT ["/usr/local/bin/dockerd-entrypoint.sh"]',
            "VOLUME /var/lib/docker",
            "EXPOSE 2375",
        ),
        estimate="30 s",
    )
