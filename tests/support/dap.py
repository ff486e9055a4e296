"""An editor's side of the Debug Adapter Protocol, as far as a test needs it: attach, breakpoints by
local paths, where the program stops, on it goes. https://microsoft.github.io/debug-adapter-protocol/
"""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from pathlib import Path

Message = dict[str, Any]


class Dap:
    """One connection. What was said and not waited for yet is kept, so that no order of events is
    taken for granted."""

    def __init__(self, port: int, seconds: float = 60.0) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=seconds)
        self._file = self._socket.makefile("rb")
        self._count = 0
        self._heard: list[Message] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._socket.close()

    # --- the protocol --------------------------------------------------------------------------

    def send(self, command: str, **arguments: Any) -> int:
        self._count += 1
        body = {"seq": self._count, "type": "request", "command": command, "arguments": arguments}
        data = json.dumps(body).encode()
        self._socket.sendall(b"Content-Length: %d\r\n\r\n%s" % (len(data), data))
        return self._count

    def ask(self, command: str, **arguments: Any) -> Message:
        return self.answered(self.send(command, **arguments))

    def answered(self, number: int) -> Message:
        """The body of the answer to a request; it must have been done."""
        found = self._wait(lambda m: m["type"] == "response" and m["request_seq"] == number)
        assert found["success"], found
        body: Message = found.get("body") or {}
        return body

    def event(self, name: str) -> Message:
        """The body of the next event of this name, that came or is to come."""
        body: Message = (
            self._wait(lambda m: m["type"] == "event" and m["event"] == name).get("body") or {}
        )
        return body

    def _wait(self, wanted: Any) -> Message:
        for message in self._heard:
            if wanted(message):
                self._heard.remove(message)
                return message
        while True:
            message = self._read()
            if wanted(message):
                return message
            self._heard.append(message)

    def _read(self) -> Message:
        size = 0
        while line := self._file.readline().strip():
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                size = int(value)
        assert size, f"the connection ended; heard {self._heard}"
        found: Message = json.loads(self._file.read(size))
        return found

    # --- what an editor does -------------------------------------------------------------------

    def attach(self, configuration: Message, breakpoints: dict[Path, list[int]]) -> None:
        """As an editor does with a launch configuration."""
        self.ask("initialize", adapterID="test", pathFormat="path", linesStartAt1=True)
        attaching = self.send("attach", **configuration)
        self.event("initialized")
        for file, lines in breakpoints.items():
            wanted = [{"line": line} for line in lines]
            found = self.ask("setBreakpoints", source={"path": str(file)}, breakpoints=wanted)
            assert all(each["verified"] for each in found["breakpoints"]), found
        self.ask("configurationDone")
        self.answered(attaching)

    def stopped(self) -> tuple[str, int]:
        """Where it stands, by the editor's own paths."""
        thread = self.event("stopped")["threadId"]
        top = self.ask("stackTrace", threadId=thread, levels=1)["stackFrames"][0]
        return top["source"]["path"], top["line"]

    def go_on(self) -> None:
        self.ask("continue", threadId=0)
