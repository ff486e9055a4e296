"""The other end of the control socket: what `devloop status`, `logs` and their like ask."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Self

from devloop.base.unix_sockets import dial_unix
from devloop.control.protocol import SOCKET, StatusRequest, parse_answer, request_line
from devloop.control.session_file import read_session
from devloop.errors import Code, DevloopError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import TracebackType

    from devloop.control.protocol import Request


# Seconds for an answer. A session answers at once, unless its machine has no time for it.
_PATIENCE = 10.0


class ControlClient:
    """One request to the session of a project; to be closed, as a context manager."""

    def __init__(self, state_dir: Path, request: Request) -> None:
        """Sends the request and waits for the answer. Errors: env/no-session, env/control, and what
        the session says."""
        try:
            self._sock = dial_unix(state_dir / SOCKET, _PATIENCE)
        except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
            raise no_session() from None
        except OSError as error:
            raise _unusable(error) from error
        self._file = self._sock.makefile("rb")
        try:
            self._sock.sendall(request_line(request))
            line = self._file.readline()
            if not line:
                raise no_session()
            self.answer: dict[str, Any] = parse_answer(line)
        except OSError as error:
            self._close()
            raise _unusable(error) from error
        except BaseException:
            self._close()
            raise

    def records(self) -> Iterator[tuple[bytes, dict[str, Any]]]:
        """The lines that follow the answer, as they are and as objects, until the session has no
        more of them: at its end, or where it was killed."""
        # Between two events may be hours.
        self._sock.settimeout(None)
        try:
            for line in self._file:
                record = json.loads(line) if line.endswith(b"\n") else None
                if isinstance(record, dict):
                    yield line, record
        except (OSError, ValueError):
            return

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()

    def _close(self) -> None:
        self._file.close()
        self._sock.close()


def ask(state_dir: Path, request: Request) -> dict[str, Any]:
    """The answer to a request that is no more than that. Errors: as `ControlClient`."""
    with ControlClient(state_dir, request) as client:
        return client.answer


def session_of(state_dir: Path) -> dict[str, Any] | None:
    """What `read_session` returns, by the word of the session itself where it can be asked."""
    written = read_session(state_dir)
    try:
        state: dict[str, Any] = ask(state_dir, StatusRequest())["state"]
    except (DevloopError, KeyError):
        return written
    # Until it has begun, it has nothing to say that the file has not.
    return {"v": 1, **state, "running": "ended" not in state} if "pid" in state else written


def no_session() -> DevloopError:
    return DevloopError.of(
        Code.ENV_NO_SESSION,
        "no devloop session runs here",
        suggestions=("`devloop dev` starts one", "-f FILE names the devloop.yaml of another one"),
    )


def broken_off() -> DevloopError:
    return DevloopError.of(
        Code.ENV_NO_SESSION,
        "the session is gone, and its last events did not arrive",
        cause="it was killed, or what it said was not read in time",
        suggestions=("`devloop status` says what it left", "`devloop events` has what it wrote"),
    )


def _unusable(error: OSError) -> DevloopError:
    return DevloopError.of(
        Code.ENV_CONTROL,
        "the session does not answer",
        cause=error.strerror or str(error) or type(error).__name__,
        suggestions=("try again; if that does not help, restart the session",),
    )
