"""devloop's agent in a container whose image has Python: see protocol.py.

Sent as it is to the container's own interpreter, so it must run on any Python from 3.6 on, import
nothing of devloop and be quick to start. A request is its size in eight digits and so many bytes:
fields with a NUL between them. A file's content follows its request, then one byte: 1 to keep it,
0 to forget it. Everything happens below directories that were opened one by one, so that no
symlink can lead elsewhere.
"""

# For old interpreters, and pathlib or contextlib would take longer to load than all else:
# ruff: noqa: PTH103, PTH208, SIM105, UP031

import os
import stat

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_TEMPORARY = b".devloop-sync~%d" % os.getpid()
_PIECE = 1 << 20


class Wrong(Exception):  # noqa: N818 - sent to devloop, never shown as a traceback
    """Why a step could not be done."""


def take(size: int) -> bytes:
    """So many bytes of standard input. Its end is the agent's."""
    got = b""
    while len(got) < size:
        more = os.read(0, min(size - len(got), _PIECE))
        if not more:
            raise EOFError
        got += more
    return got


def enter(root: bytes, parts: "list[bytes]", *, make: bool) -> int:
    """An open directory; FileNotFoundError when it is not there and not to be made."""
    if make:
        os.makedirs(root, exist_ok=True)
    fd = os.open(root, _DIRECTORY)
    way = root
    try:
        for part in parts:
            way += b"/" + part
            if make:
                try:
                    os.mkdir(part, 0o755, dir_fd=fd)
                except FileExistsError:
                    pass
            try:
                inner = os.open(part, _DIRECTORY | os.O_NOFOLLOW, dir_fd=fd)
            except NotADirectoryError as error:
                if kind(part, fd) == stat.S_IFLNK:
                    raise Wrong("%s is a symlink in the image" % os.fsdecode(way)) from error
                if not make:
                    raise FileNotFoundError from error
                raise
            os.close(fd)
            fd = inner
    except BaseException:
        os.close(fd)
        raise
    return fd


def kind(name: bytes, fd: int) -> int:
    """The type of what stands at `name`, 0 for nothing."""
    try:
        return stat.S_IFMT(os.lstat(name, dir_fd=fd).st_mode)
    except FileNotFoundError:
        return 0


def remove(name: bytes, fd: int) -> None:
    """Remove `name` and all beneath it."""
    if kind(name, fd) != stat.S_IFDIR:
        try:
            os.unlink(name, dir_fd=fd)
        except FileNotFoundError:
            pass
        return
    inner = os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=fd)
    try:
        for child in os.listdir(inner):
            remove(os.fsencode(child), inner)
    finally:
        os.close(inner)
    os.rmdir(name, dir_fd=fd)


def own(owner: bytes, like: os.stat_result, made: bytes, fd: int) -> None:
    """Give `made` its owner, by default that of `like`."""
    uid, gid = map(int, owner.split(b":")) if owner else (like.st_uid, like.st_gid)
    have = os.lstat(made, dir_fd=fd)
    if (have.st_uid, have.st_gid) != (uid, gid):
        os.chown(made, uid, gid, dir_fd=fd, follow_symlinks=False)


def settle(owner: bytes, name: bytes, fd: int) -> None:
    """The temporary file takes the place of `name`."""
    try:
        like = os.lstat(name, dir_fd=fd)
    except FileNotFoundError:
        like = os.fstat(fd)
    own(owner, like, _TEMPORARY, fd)
    if kind(name, fd) == stat.S_IFDIR:
        remove(name, fd)
    os.rename(_TEMPORARY, name, src_dir_fd=fd, dst_dir_fd=fd)


def put(
    mode: bytes, owner: bytes, size: bytes, name: bytes, place: "tuple[bytes, list[bytes]]"
) -> None:
    """A file's content is read to its end whatever happens, else the next request were lost."""
    left = int(size)
    fd = file = -1
    wrong = None
    try:
        fd = enter(place[0], place[1], make=True)
        remove(_TEMPORARY, fd)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        file = os.open(_TEMPORARY, flags, 0o600, dir_fd=fd)
    except (OSError, Wrong) as error:
        wrong = error
    try:
        while left:
            piece = memoryview(take(min(left, _PIECE)))
            left -= len(piece)
            try:
                while piece and wrong is None:
                    piece = piece[os.write(file, piece) :]
            except OSError as error:
                wrong = error
        keep = take(1) == b"1"
        if wrong is None and keep:
            os.fchmod(file, int(mode, 8))
            settle(owner, name, fd)
            if int(mode, 8) & 0o6000:
                os.fchmod(file, int(mode, 8))  # a change of owner takes these bits away
    except OSError as error:
        wrong = wrong or error
    finally:
        if file >= 0:
            os.close(file)
        if fd >= 0:
            remove(_TEMPORARY, fd)
            os.close(fd)
    if wrong is not None:
        raise wrong


def link(owner: bytes, target: bytes, name: bytes, place: "tuple[bytes, list[bytes]]") -> None:
    fd = enter(place[0], place[1], make=True)
    try:
        remove(_TEMPORARY, fd)
        os.symlink(target, _TEMPORARY, dir_fd=fd)
        settle(owner, name, fd)
    finally:
        remove(_TEMPORARY, fd)
        os.close(fd)


def directory(mode: bytes, owner: bytes, place: "tuple[bytes, list[bytes]]") -> None:
    """What stands in its place gives way."""
    root, parts = place
    if parts:
        above = enter(root, parts[:-1], make=True)
        try:
            if kind(parts[-1], above) != stat.S_IFDIR:
                remove(parts[-1], above)
                os.mkdir(parts[-1], 0o755, dir_fd=above)
                own(owner, os.fstat(above), parts[-1], above)
        finally:
            os.close(above)
    fd = enter(root, parts, make=True)
    try:
        own(owner, os.fstat(fd), b".", fd)
        os.fchmod(fd, int(mode, 8))
    finally:
        os.close(fd)


def gone(name: bytes, place: "tuple[bytes, list[bytes]]") -> None:
    try:
        fd = enter(place[0], place[1], make=False)
    except FileNotFoundError:
        return
    try:
        remove(name, fd)
    finally:
        os.close(fd)


def step(fields: "list[bytes]") -> None:
    verb, root, path, *rest = fields
    parts = path.split(b"/") if path else []
    if verb == b"dir":
        directory(rest[0], rest[1], (root, parts))
        return
    place = (root, parts[:-1])
    if verb == b"put":
        put(rest[0], rest[1], rest[2], parts[-1], place)
    elif verb == b"link":
        link(rest[0], rest[1], parts[-1], place)
    else:
        gone(parts[-1], place)


def main() -> None:
    os.write(1, b"ready\n")
    number = 0
    while True:
        fields = take(int(take(8))).split(b"\0")
        if fields == [b"done"]:
            os.write(1, b"done\n")
            number = 0
            continue
        number += 1
        try:
            step(fields)
        except (OSError, Wrong) as error:
            reason = str(error).replace("\n", " ").encode("utf-8", "replace")
            os.write(1, b"bad %d %s\n" % (number, reason[:600]))


if __name__ == "__main__":
    try:
        main()
    except EOFError:
        pass
