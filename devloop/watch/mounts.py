"""Which file systems keep quiet about changes that are made on the other side.

inotify sees what this kernel does. A share that Windows, the host of a virtual machine or another
computer writes to changes without a word, and a watcher that waits for one looks broken.
"""

from __future__ import annotations

import re
from pathlib import Path

_SILENT = frozenset(
    {"9p", "afs", "ceph", "cifs", "coda", "drvfs", "fuse", "gfs2", "glusterfs", "lustre", "ncpfs"}
    | {"nfs", "nfs4", "ocfs2", "orangefs", "prl_fs", "smb2", "smb3", "smbfs", "vboxsf", "virtiofs"}
    | {"vmhgfs"}
)
# FUSE, but with the files on this machine.
_LOCAL_FUSE = frozenset(
    {"bindfs", "cryfs", "encfs", "fuse-overlayfs", "gocryptfs", "mergerfs", "ntfs-3g", "overlayfs"}
)
_MOUNTINFO = Path("/proc/self/mountinfo")


class SilentMounts:
    """The mount table as it was when this was made; without one (macOS) nothing is silent."""

    def __init__(self, mountinfo: str) -> None:
        # A later mount at the same place hides the earlier.
        self._types = dict(_parse(line) for line in mountinfo.splitlines() if " - " in line)
        self._any = any(_is_silent(kind) for kind in self._types.values())

    @classmethod
    def read(cls) -> SilentMounts:
        try:
            return cls(_MOUNTINFO.read_text(errors="surrogateescape"))
        except OSError:
            return cls("")

    def kind(self, path: str) -> str | None:
        """The type of file system that keeps changes of the absolute `path` to itself, if so."""
        if not self._any:
            return None
        while path not in self._types and path != "/":
            path = path.rpartition("/")[0] or "/"
        kind = self._types.get(path)
        return kind if kind and _is_silent(kind) else None


def _is_silent(kind: str) -> bool:
    family, _, name = kind.partition(".")
    return family in _SILENT and name not in _LOCAL_FUSE


def _parse(line: str) -> tuple[str, str]:
    """Mount point and type from one line of proc(5)'s mountinfo."""
    left, _, right = line.partition(" - ")
    point = re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), left.split(" ")[4])
    return point, right.split(" ")[0]
