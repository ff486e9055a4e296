"""Runs a service's `test` in its fresh image, before that is deployed.

Where it runs is given: on this machine's Docker or as a pod. What it prints is log lines of the
service; a failure is placed at the line of the project that it speaks of.
"""

from __future__ import annotations

from collections import deque
from dataclasses import field
from typing import TYPE_CHECKING, Protocol

from devloop.base.lazy_dataclass import dataclass
from devloop.config.commands import shown_command
from devloop.errors import Code, DevloopError
from devloop.events import LogLine
from devloop.model import EndedTest, Step, StepOutcome

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from devloop.base.cancel import Cancel
    from devloop.config.commands import ImageTest
    from devloop.engine.ports import Reporter
    from devloop.errors import Location
    from devloop.events import Event
    from devloop.model import ImageRef


_SHOWN_LINES, _KEPT_LINES, _SHOWN_COMMAND = 20, 500, 100


class PlaceForTests(Protocol):
    """Somewhere that an image can be run."""

    def run(
        self, image: ImageRef, test: ImageTest, on_line: Callable[[str], None], cancel: Cancel
    ) -> EndedTest:
        """Run the test to its end and leave nothing of it behind. Raises TimeoutError, Cancelled,
        and env/* or cluster/* for a place that is not there."""
        ...


@dataclass(eq=False, kw_only=True)
class ImageTester:
    """The engine's `Tester` for one service. `places` are tried in turn, for as long as one is not
    there; `locate` finds the project's place that lines speak of."""

    service: str
    test_: ImageTest
    places: tuple[PlaceForTests, ...]
    publish: Callable[[Event], None]
    locate: Callable[[Sequence[str]], Location | None]
    _passed: set[str] = field(default_factory=set)

    def test(self, image: ImageRef, reporter: Reporter, cancel: Cancel, *, again: bool) -> None:
        """See engine.ports.Tester."""
        reporter.started(Step.TEST)
        if image.pinned in self._passed and not again:
            reporter.finished(Step.TEST, StepOutcome.SKIPPED, "this image passed before")
            return
        lines: deque[str] = deque(maxlen=_KEPT_LINES)

        def on_line(text: str) -> None:
            lines.append(text)
            self.publish(LogLine(service=self.service, pod="test", container="", text=text))
            if text.strip():
                reporter.progress(Step.TEST, text)

        shown = shown_command(self.test_.command)[:_SHOWN_COMMAND]
        reporter.progress(Step.TEST, shown)
        try:
            ended = self._run(image, on_line, cancel)
        except TimeoutError:
            raise self._failed(
                f"`{shown}` took longer than {self.test_.timeout:g} s", lines
            ) from None
        if ended.not_run:
            raise self._failed(
                f"`{shown}` cannot be run in the image",
                lines,
                cause=ended.not_run,
                tip="see that the image has what the test needs: `build.target` may be another "
                "stage",
            )
        if ended.status:
            how = f"exited {ended.status}" if ended.status > 0 else f"got signal {-ended.status}"
            raise self._failed(f"`{shown}` {how}", lines)
        self._passed.add(image.pinned)
        reporter.finished(Step.TEST, StepOutcome.DONE, shown)

    def _run(self, image: ImageRef, on_line: Callable[[str], None], cancel: Cancel) -> EndedTest:
        *rather, last = self.places
        for place in rather:
            try:
                return place.run(image, self.test_, on_line, cancel)
            except DevloopError as error:
                if error.code not in (Code.ENV_DOCKER_UNREACHABLE, Code.ENV_TOOL_MISSING):
                    raise
        return last.run(image, self.test_, on_line, cancel)

    def _failed(
        self, what: str, lines: Sequence[str], *, cause: str | None = None, tip: str = ""
    ) -> DevloopError:
        kept = tuple(lines)
        return DevloopError.of(
            Code.TEST_FAILED,
            what,
            location=self.locate(kept) or self.test_.location,
            cause=cause,
            detail=kept[-_SHOWN_LINES:],
            suggestions=(tip or "correct it; nothing was deployed",),
        )
