"""The base images of the sample and of the tests, and the registry: small trees of Debian packages.

The packages are only unpacked, so what their maintainer scripts would have done and somebody
needs (users, links, the certificates' bundle) is done here.
"""

from __future__ import annotations

import inspect
import os
import shutil
import sys
import tempfile
from pathlib import Path

from . import cache, debian, shell
from .images import Image

SUITE = "bookworm"
FILES = Path(__file__).parent.parent / "images"
BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
PATH = "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

PYTHON = (
    "base-files",
    "bash",
    "ca-certificates",
    "coreutils",
    "dash",
    "findutils",
    "grep",
    "hostname",
    "libc-bin",
    "mawk",
    "procps",
    "python3",
    "python3-pip",
    "sed",
    "tar",
    "tzdata",
)
BUSYBOX = ("busybox", "libc6", "netbase")
REGISTRY = ("docker-registry", "libc6", "netbase")


def plant(
    packages: tuple[str, ...], root: Path, *, suite: str = SUITE, dependencies: bool = False
) -> None:
    """Unpack packages into a tree and add what every image needs."""
    with tempfile.TemporaryDirectory(dir=root.parent) as folder:
        debs = debian.Archive(suite=suite).fetch(packages, Path(folder), dependencies=dependencies)
        debian.unpack(debs, root)
    write(root / "etc/passwd", "root:x:0:0:root:/root:/bin/sh\n")
    append(root / "etc/passwd", "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n")
    groups = ("root:x:0:", "tty:x:5:", "adm:x:4:", "utmp:x:43:", "systemd-journal:x:101:")
    write(root / "etc/group", "".join(f"{line}\n" for line in (*groups, "nogroup:x:65534:")))
    write(root / "etc/nsswitch.conf", "hosts: files dns\n")
    for name, mode in (
        ("tmp", 0o1777),
        ("var/tmp", 0o1777),
        ("root", 0o700),
        ("usr/local/bin", 0o755),
    ):
        (root / name).mkdir(parents=True, exist_ok=True)
        (root / name).chmod(mode)


def write(file: Path, text: str) -> None:
    """Write a small file of a tree."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def append(file: Path, text: str) -> None:
    """Add to a small file of a tree."""
    with file.open("a") as out:
        out.write(text)


def python_tree(root: Path) -> None:
    """Make a tree with python3 and pip that behaves like the public python image."""
    plant(PYTHON, root, dependencies=True)
    (root / "usr/bin/awk").symlink_to("mawk")
    for name, target in (("python", "/usr/bin/python3"), ("pip", "/usr/bin/pip3")):
        (root / "usr/local/bin" / name).symlink_to(target)
    for marker in (root / "usr/lib").glob("python3*/EXTERNALLY-MANAGED"):
        marker.unlink()  # in an image, pip may install beside Debian's packages
    # The image trusts whom this machine trusts: a build step may fetch through the same mirror.
    if BUNDLE.exists():
        (root / "etc/ssl/certs").mkdir(parents=True, exist_ok=True)
        shutil.copyfile(BUNDLE, root / "etc/ssl/certs/ca-certificates.crt")
    # Packages' own scripts compile; without it each start of a container would.
    compile_all = ["python3", "-m", "compileall", "-q"]
    folders = [
        "/usr/lib/python3",
        *(f"/usr/lib/{p.name}" for p in (root / "usr/lib").glob("python3.*")),
    ]
    shell.run(["chroot", root, *compile_all, *folders], timeout=300)


def busybox_tree(root: Path) -> None:
    """Make a tree with a shell and small tools that can also resolve names."""
    plant(BUSYBOX, root)
    shell.run(["chroot", root, "/bin/busybox", "--install", "-s", "/usr/local/bin"], timeout=30)
    for name in ("sh", "env"):
        place = root / "usr/bin" / name
        if not place.exists():
            place.symlink_to("/bin/busybox")


def registry_tree(root: Path) -> None:
    """Make a tree with Debian's registry and a configuration that allows deleting."""
    plant(REGISTRY, root)
    shutil.copytree(FILES / "registry", root, dirs_exist_ok=True)


def key(*inputs: str | Path) -> str:
    """Return the key of an image of Debian packages: what is in it, and the code that makes it."""
    code = inspect.getsource(sys.modules[__name__])
    trust = BUNDLE if BUNDLE.exists() else ""
    return cache.key(code, inspect.getsource(debian.unpack), trust, os.uname().machine, *inputs)


def python_base() -> Image:
    """Return the image that python services are built from."""
    return Image(
        tag="python-base:dev",
        public="python:3.13-slim",
        key=key("python"),
        tree=python_tree,
        config=(PATH, "ENV PYTHONUNBUFFERED=1", "ENV LANG=C.UTF-8", 'CMD ["python3"]'),
        estimate="30 s",
    )


def busybox_base() -> Image:
    """Return the small image that tests build from."""
    return Image(
        tag="busybox-base:dev",
        public="busybox:stable-glibc",
        key=key("busybox"),
        tree=busybox_tree,
        config=(PATH, 'CMD ["sh"]'),
        estimate="5 s",
    )


def registry() -> Image:
    """Return the image of the local registry."""
    return Image(
        tag="devloop-registry:dev",
        public="registry:2",
        key=key("registry", FILES / "registry"),
        tree=registry_tree,
        config=(
            PATH,
            'ENTRYPOINT ["/usr/bin/docker-registry", "serve", "/etc/registry.yml"]',
            "VOLUME /var/lib/registry",
            "EXPOSE 5000",
        ),
        estimate="5 s",
    )
