"""Unix sockets that a path names: listening, dialling, and whose process is at the other end.

A socket's address has room for 103 bytes on macOS and 107 on Linux, and projects lie deep. Where
the path is longer, or its file system has no sockets, the socket lies in a directory of the user's
own under the runtime or temporary directory, and the path is a symbolic link to it. Raises OSError
only.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import socket
import stat
import struct
import sys
import tempfile
from pathlib import Path

_LONGEST = 103

# What a file system says that has no sockets: one of another computer, or of the host of a virtual
# machine.
_NO_SOCKETS = {errno.EPERM, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS}
_BACKLOG = 16

# <sys/un.h> of macOS, whose constant the `socket` module has from Python 3.12 on.
_SOL_LOCAL, _LOCAL_PEERCRED = 0, 1


def listen_unix(path: Path) -> socket.socket:
    """Listen at `path`, for this user only; never blocks. What stands there is replaced: the caller
    knows that nobody else listens."""
    _remove(path)
    if len(os.fsencode(path)) <= _LONGEST:
        try:
            return _listening(path)
        except OSError as error:
            if error.errno not in _NO_SOCKETS:
                raise
    name = hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
    place = _short_directory() / f"{name}.sock"
    _remove(place)
    path.symlink_to(place)
    return _listening(place)


def _listening(place: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(os.fspath(place))
        # Before anybody can connect: a bound socket refuses until it listens.
        place.chmod(0o600)
        sock.listen(_BACKLOG)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock


def forget_unix(path: Path) -> None:
    """Remove what `listen_unix` made at `path`."""
    with contextlib.suppress(OSError):
        if path.is_symlink():
            _remove(path.readlink())
    with contextlib.suppress(OSError):
        _remove(path)


def dial_unix(path: Path, timeout: float) -> socket.socket:
    """A connection to who listens at `path`, with `timeout` seconds for each call. Raises
    FileNotFoundError and ConnectionRefusedError where nobody does, and PermissionError where it is
    another user's process."""
    place = os.fspath(path)
    if len(os.fsencode(path)) > _LONGEST:
        place = os.fspath(path.readlink()) if path.is_symlink() else place
        if len(os.fsencode(place)) > _LONGEST:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), place)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(timeout)
        sock.connect(place)
        if peer_uid(sock) not in (os.getuid(), 0):
            raise PermissionError(errno.EPERM, "another user's process listens", place)
    except OSError:
        sock.close()
        raise
    return sock


def peer_uid(sock: socket.socket) -> int:
    """The user whose process is at the other end, by the kernel's word."""
    if sys.platform == "darwin":
        # struct xucred: cr_version, cr_uid, and what is of no interest here.
        data = sock.getsockopt(_SOL_LOCAL, _LOCAL_PEERCRED, 76)
        uid: int = struct.unpack_from("=II", data)[1]
        return uid
    data = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    owner: int = struct.unpack("3i", data)[1]
    return owner


def _remove(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        path.unlink()


def _short_directory() -> Path:
    """A directory of this user alone whose path is short."""
    uid = os.getuid()
    for parent in (os.environ.get("XDG_RUNTIME_DIR", ""), tempfile.gettempdir(), "/tmp"):  # noqa: S108 - checked
        directory = Path(parent, f"devloop-{uid}")
        if not directory.is_absolute() or len(os.fsencode(directory)) > _LONGEST - 24:
            continue
        with contextlib.suppress(OSError):
            with contextlib.suppress(FileExistsError):
                directory.mkdir(mode=0o700)
            found = directory.lstat()
            own = stat.S_ISDIR(found.st_mode) and found.st_uid == uid
            if own and not found.st_mode & 0o077:
                return directory
    raise OSError(errno.ENAMETOOLONG, "no directory for a socket: its path would be too long")
