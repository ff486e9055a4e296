"""Speaking with one agent over one stream: start it, bring it batches, read its answers.

Blocks its own thread, until `wake` becomes readable or the agent is silent for too long. Knows
nothing of pods, snapshots or of what to do after a failure.
"""

from __future__ import annotations

import contextlib
import re
import select
import time
from typing import TYPE_CHECKING

from devloop.base.file_content import ContentChanged, VerifiedFiles
from devloop.errors import Code, DevloopError
from devloop.sync.protocol import (
    GREETINGS,
    STARTS,
    closing,
    code,
    content,
    hold,
    is_aside,
    keep_content,
    mark,
    news,
    permission,
    request,
    restart,
    settle,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence
    from pathlib import Path

    from devloop.base.cancel import Cancel
    from devloop.base.file_content import Contents
    from devloop.sync.changes import FileChange, SyncedFile
    from devloop.sync.ports import CommandStream
    from devloop.sync.protocol import Kind, ProcessNews


_SILENCE = 8.0  # seconds without a byte in either direction
_GATHER = 1 << 18  # bytes of small requests that go out together
_PIECE = 1 << 20
# What tells nothing of what the image has: the command was killed, as at its container's end, the
# container runs no more (containerd, CRI-O, runc), or its node did not answer the API server
# (k8s.io/apimachinery/pkg/util/proxy, k8s.io/client-go/tools/remotecommand).
_NOT_OF_THE_IMAGE = re.compile(
    r"\b(?:137|143)$"
    r"|container is in \w+ state|container is not created or running|failed to load task"
    r"|cannot exec in a (?:stopped|paused) container"
    r"|error dialing backend|error sending request|unable to upgrade connection"
)


class NoAgent(Exception):  # noqa: N818 - not a fault: the image is made like that
    """The image has nothing that an agent could run in; its text is what is lacking."""


class Agent:
    """An agent that waits for requests. Raises OSError from all methods when the stream broke and
    `Cancelled` when `cancel` was set, after which only `close` may be called. `supervised` says
    whether it can start the container's process anew, `content` what the container's files were
    when this began (see `protocol`), None where nobody knows."""

    def __init__(self, stream: CommandStream, cancel: Cancel) -> None:
        self.kind: Kind = "sh"
        self.supervised = False
        self.content: str | None = None
        self._told: list[ProcessNews] = []
        self._stream = stream
        self._cancel = cancel
        self._lines = bytearray()

    def fileno(self) -> int:
        return self._stream.fileno()

    def close(self) -> None:
        self._stream.close()

    def idle(self) -> None:
        """Look whether the stream still stands; for when it became readable between batches."""
        while got := self._receive():
            self._lines += got

    def process_news(self) -> list[ProcessNews]:
        """What was told of the container's process since this was last asked; between batches."""
        # It may have come together with the end of the last batch: nothing is readable then.
        self.idle()
        while (line := self._next_line()) is not None:
            self._hear(line)
        told, self._told = self._told, []
        return told

    def begin(self) -> None:
        """Give the interpreter its agent. Raises `NoAgent`."""
        answer = self._line()
        if answer in GREETINGS:
            self.kind, self.supervised = "agent", GREETINGS[answer]
            if self.supervised:
                self._ask_content()
            return
        if answer not in ("python", "sh"):
            raise NoAgent(answer)
        self.kind = "python" if answer == "python" else "sh"
        self._send(code(self.kind))
        answer = self._line()
        if answer != "ready":
            raise NoAgent(f"the image {answer}" if answer.startswith("lacks ") else answer)

    def may(self, changes: Sequence[FileChange]) -> str | None:
        """Why the container's user may not bring one of `changes`, as PATH: REASON; None where
        nothing is known against it."""
        if self.kind != "agent":
            return None
        self._send(b"".join(map(permission, changes)) + closing(self.kind))
        found = None
        while (line := self._line()) != "done":
            answer, _, reason = line.partition(" ")
            found = found or (reason if answer == "no" else None)
        return found

    def settle(self) -> None:
        """The process is not awaited to listen on all of its ports any more."""
        self._finish(bytearray(settle()))

    def _ask_content(self) -> None:
        self._send(hold() + content() + closing(self.kind))
        awaited = {"content", "done"}
        while awaited:
            line = self._any_line()
            if line.startswith("content "):
                self.content = line.removeprefix("content ")
            elif line != "done" and is_aside(line):
                self._hear(line)
                continue
            # An agent of before knows no `content`, and says so.
            awaited.discard("done" if line == "done" else "content")

    def apply(
        self,
        changes: Sequence[FileChange],
        context: Path,
        stop_timeout: float | None = None,
        name: str = "",
        *,
        kept: Contents | None = None,
    ) -> dict[int, str]:
        """Bring all `changes` and, with `stop_timeout` (seconds), have the process started anew
        when all of them are in place; what could not be done, by its place in `changes`. `name` is
        the mark of what the container has then, "" for none. The disk is not asked for files whose
        content was `kept`.

        Raises build/context-changed when a file is not what the scan saw; then some may have been
        brought and others not."""
        out = bytearray()
        for change in changes:
            placed = change.placed
            if placed is None or placed.entry.type != "file":
                out += request(self.kind, change)
                continue
            try:
                with contextlib.closing(self._file(change, placed, context, kept)) as pieces:
                    for piece in pieces:
                        out += piece
                        if len(out) > _GATHER:
                            self._send(out)
                            out = bytearray()
            except ContentChanged as error:
                self._finish(out)
                raise DevloopError.of(
                    Code.BUILD_CONTEXT_CHANGED, f"{placed.source} changed while it was being synced"
                ) from error
        if stop_timeout is not None:
            out += restart(stop_timeout)
        if name and changes and self.content is not None:
            # Last: what has the mark is also what the process was started after.
            out += mark(name)
        return self._finish(out)

    def _file(
        self, change: FileChange, placed: SyncedFile, context: Path, kept: Contents | None
    ) -> Generator[bytes]:
        """Request and content: exactly as many bytes as are announced, whatever happens to the
        file meanwhile. Raises ContentChanged when it is not what the scan saw: before there was
        anything, or after the agent is told to throw it away."""
        left = placed.entry.size
        try:
            with VerifiedFiles(context, kept) as files:
                file = files.open(placed.source, left, placed.entry.digest)
        except OSError as error:
            raise ContentChanged(placed.source) from error
        with file:
            yield request(self.kind, change)
            try:
                for piece in file:
                    left -= len(piece)
                    yield piece
            except (ContentChanged, OSError) as error:
                while left:
                    filler = bytes(min(left, _PIECE))
                    left -= len(filler)
                    yield filler
                yield keep_content(self.kind, keep=False)
                raise ContentChanged(placed.source) from error
            yield keep_content(self.kind, keep=True)

    def _finish(self, out: bytearray) -> dict[int, str]:
        self._send(out + closing(self.kind))
        refused = {}
        while (line := self._line()) != "done":
            answer, _, rest = line.partition(" ")
            number, _, reason = rest.partition(" ")
            if answer != "bad" or not number.isdigit():
                raise ConnectionResetError(f"the agent answered {line[:200]!r}")
            refused[int(number) - 1] = reason
        return refused

    def _send(self, data: bytes | bytearray) -> None:
        left = memoryview(data)
        quiet = time.monotonic() + _SILENCE
        while left or not self._stream.flush():
            taken = self._stream.send(left) if left else 0
            left = left[taken:]
            if taken:
                quiet = time.monotonic() + _SILENCE
            else:
                self._wait(select.POLLOUT, quiet)

    def _line(self) -> str:
        """The next answer to a request."""
        while is_aside(line := self._any_line()):
            self._hear(line)
        return line

    def _any_line(self) -> str:
        quiet = time.monotonic() + _SILENCE
        while (line := self._next_line()) is None:
            if got := self._receive():
                self._lines += got
            else:
                self._stream.flush()
                self._wait(select.POLLIN, quiet)
        return line

    def _next_line(self) -> str | None:
        end = self._lines.find(b"\n")
        if end < 0:
            return None
        line = bytes(self._lines[:end]).decode("utf-8", "replace")
        del self._lines[: end + 1]
        return line

    def _hear(self, line: str) -> None:
        if (told := news(line)) is not None:
            self._told.append(told)

    def _receive(self) -> bytes | None:
        got = self._stream.receive()
        if got == b"":
            raise ConnectionResetError(f"the agent ended: {self._stream.ended or 'by itself'}")
        return got

    def _wait(self, event: int, quiet: float) -> None:
        """Wait a little for the stream. Raises TimeoutError when it has been quiet since then."""
        self._cancel.check()
        poll = select.poll()
        poll.register(self._stream.fileno(), event)
        if not poll.poll(200) and time.monotonic() > quiet:
            raise TimeoutError(f"no answer in {_SILENCE:g} s")


def start(
    open_stream: Callable[[Sequence[str]], CommandStream], cancel: Cancel, ways: Sequence[str]
) -> Agent:
    """Start an agent in whatever the image has, by the first of `ways` (keys of `STARTS`) that
    works; `open_stream` starts a command.

    Raises `NoAgent`, what `open_stream` raises, OSError for a stream that broke, `Cancelled`."""
    reasons = []
    for name in ways:
        stream = open_stream(STARTS[name].argv)
        agent = Agent(stream, cancel)
        with contextlib.ExitStack() as stack:
            stack.callback(agent.close)
            try:
                agent.begin()
            except NoAgent as lack:
                reasons.append(str(lack))
            except ConnectionResetError:
                if stream.ended is None or _NOT_OF_THE_IMAGE.search(stream.ended):
                    raise
                reasons.append(stream.ended)
            else:
                stack.pop_all()
                return agent
        cancel.check()
    lacks = [reason for reason in reasons if reason.startswith("the image lacks")]
    if not lacks and "sh" not in ways:
        raise NoAgent("the image is not one that devloop made for development")
    raise NoAgent(lacks[0] if lacks else "the image has neither a usable shell nor Python")
