"""Runs one service's hooks: on this computer or in its containers, one after the other.

What they print is log lines of the service, and one that fails ends the step that it belongs to.
Knows nothing of the cluster: how a command gets into a container is given to it.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from dataclasses import field, replace
from typing import TYPE_CHECKING, Protocol

from devloop.base import process
from devloop.base.cancel import Cancel
from devloop.base.lazy_dataclass import dataclass
from devloop.base.state_file import replace_file
from devloop.config.commands import shown_command
from devloop.errors import Code, DevloopError
from devloop.events import LogLine
from devloop.hooks.writes import HookWrites
from devloop.model import Step, StepOutcome

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from devloop.config.commands import HookCommand, HookCommands
    from devloop.engine.ports import HookTime, Reporter
    from devloop.events import Event
    from devloop.model import ImageRef, Scan


# The last lines that a failure shows, and a command in a message.
_SHOWN_LINES, _SHOWN_COMMAND = 20, 100

# As one variable of the environment, which the system limits; the file has all of them.
_MOST_BYTES = 32_000


class LooksAgain(Protocol):
    """One service's inputs on disk, beside the scans of the engine."""

    def look_again(
        self, cancel: Cancel, since: Scan | None = None
    ) -> tuple[Scan, frozenset[str]]: ...


class InContainer(Protocol):
    """Runs a command in the service's running containers."""

    def __call__(
        self,
        hook: HookCommand,
        env: Mapping[str, str],
        on_line: Callable[[str], None],
        cancel: Cancel,
    ) -> str | None:
        """How it failed, in words, "" when it did not; None when no container runs. Raises as
        `open_exec` of the cluster."""


@dataclass(frozen=True, slots=True)
class _Round:
    """The hooks of one time, to be run now."""

    when: str
    hooks: tuple[HookCommand, ...]
    image: ImageRef | None
    reporter: Reporter
    cancel: Cancel

    @property
    def here(self) -> bool:
        """Whether any runs on this computer."""
        return any(not hook.container for hook in self.hooks)


@dataclass(eq=False, kw_only=True)
class HookRunner:
    """The engine's `Hooks` for one service. `root` is where commands run on this computer, `env`
    what they get besides its environment, `files` where the list of changed files is written.
    `replaces_builds`: a sync stands for a build, so that the hooks before that run first."""

    service: str
    hooks: HookCommands
    root: Path
    env: Mapping[str, str]
    files: Path
    source: LooksAgain | None
    publish: Callable[[Event], None]
    in_container: InContainer
    replaces_builds: bool = False
    _writes: HookWrites = field(default_factory=HookWrites)
    _changed: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def before_build(self, scan: Scan, reporter: Reporter, cancel: Cancel) -> Scan:
        """See engine.ports.Hooks."""
        self._changed.update(scan.changed)
        return self._prepare(scan, reporter, cancel)

    def before_sync(self, scan: Scan, reporter: Reporter, cancel: Cancel) -> Scan:
        """See engine.ports.Hooks."""
        self._changed.update(scan.changed)
        if self.replaces_builds:
            scan = self._prepare(scan, reporter, cancel)
        self._run(_Round("before_sync", self.hooks.before_sync, None, reporter, cancel))
        return scan

    def run(
        self, when: HookTime, image: ImageRef | None, reporter: Reporter, cancel: Cancel
    ) -> None:
        """See engine.ports.Hooks."""
        self._run(_Round(when, getattr(self.hooks, when), image, reporter, cancel))
        if when in ("after_sync", "after_deploy"):
            self._changed.clear()

    def wrote(self, before: Scan, after: Scan) -> bool:
        """See engine.ports.Hooks."""
        return self._writes.all_(before, after, sure=True)

    def may_have_written(self, before: Scan, after: Scan) -> bool:
        """See engine.ports.Hooks."""
        return self._writes.all_(before, after, sure=False)

    # --- what they write -----------------------------------------------------------------------

    def _prepare(self, scan: Scan, reporter: Reporter, cancel: Cancel) -> Scan:
        """Run the hooks before a build; what there is to build after them."""
        run = _Round("before_build", self.hooks.before_build, None, reporter, cancel)
        if self.source is None or not run.here:
            self._run(run)
            return scan
        with self._lock:
            now, sure = self._watched(self.source, run, scan)
            if not sure:
                # An edit may have come in between, which they have not seen.
                now, _ = self._watched(self.source, run, now)
        return replace(now, fresh=scan.fresh, changed=scan.changed, ms=scan.ms)

    def _run(self, run: _Round) -> None:
        if not run.hooks:
            return
        with self._lock:
            if self.source is None or not run.here:
                self._all(run)
                return
            before, _ = self.source.look_again(run.cancel)
            self._watched(self.source, run, before)

    def _watched(self, source: LooksAgain, run: _Round, before: Scan) -> tuple[Scan, bool]:
        """Run them; what there is after them, and whether all that changed is known to be
        theirs."""
        self._writes.begins(run.when, before)
        try:
            self._all(run)
            now, written = source.look_again(run.cancel, before)
        except BaseException:
            # What they wrote until then is written in the next run as well.
            with contextlib.suppress(DevloopError):
                self._writes.ends(*source.look_again(Cancel(), before), whole=False)
            self._writes.broke_off()
            raise
        return now, self._writes.ends(now, written)

    # --- one by one ----------------------------------------------------------------------------

    def _all(self, run: _Round) -> None:
        run.reporter.started(Step.HOOK)
        skipped = 0
        env = self._environment(run.when, run.image)
        for hook in run.hooks:
            run.reporter.progress(Step.HOOK, f"{run.when}: {shown_command(hook.command)}")
            skipped += not self._one(run.when, hook, env, run.cancel)
        count = len(run.hooks) - skipped
        detail = f"{run.when}, {count} command{'' if count == 1 else 's'}"
        if skipped:
            detail += f", {skipped} not: no container runs yet"
        run.reporter.finished(Step.HOOK, StepOutcome.DONE, detail)

    def _one(self, when: str, hook: HookCommand, env: Mapping[str, str], cancel: Cancel) -> bool:
        """False where there is no container to run it in."""
        lines: deque[str] = deque(maxlen=_SHOWN_LINES)

        def on_line(text: str) -> None:
            lines.append(text)
            self.publish(LogLine(service=self.service, pod=when, container="", text=text))

        shown = shown_command(hook.command)[:_SHOWN_COMMAND]
        try:
            if hook.container:
                ended = self.in_container(hook, env, on_line, cancel)
                if ended is None:
                    return False
                how = ended
            else:
                status = process.run(
                    hook.command,
                    on_line=on_line,
                    cancel=cancel,
                    limit=hook.timeout,
                    cwd=self.root,
                    env={**os.environ, **env},
                )
                how = f"exited {status}" if status > 0 else f"was ended by signal {-status}"
                how = how if status else ""
        except (process.Overran, TimeoutError):
            raise _failed(
                when, hook, f"`{shown}` took longer than {hook.timeout:g} s", tuple(lines)
            ) from None
        except process.CannotRun as error:
            what = f"{error.program} is not installed or not on PATH"
            what = what if error.missing else f"{error.program} cannot be run: {error.reason}"
            if error.missing and error.program.startswith("."):
                what = f"{error.program} does not exist in {self.root}"
            raise _failed(when, hook, what, ()) from None
        if how:
            raise _failed(when, hook, f"`{shown}` {how}", tuple(lines))
        return True

    def _environment(self, when: str, image: ImageRef | None) -> dict[str, str]:
        names = sorted(self._changed)
        listed = "\n".join(names)
        short = os.fsencode(listed)[:_MOST_BYTES]
        if len(short) == _MOST_BYTES:
            short = short.rpartition(b"\n")[0]
        with contextlib.suppress(OSError):
            replace_file(self.files, os.fsencode("".join(f"{name}\n" for name in names)))
        where = ""
        if image is not None:
            where = f"{image.repository}:{image.tag}"
            where = f"{image.repository}@{image.digest}" if image.digest else where
        return {
            **self.env,
            "DEVLOOP_HOOK": when,
            "DEVLOOP_SERVICE": self.service,
            "DEVLOOP_IMAGE": where,
            "DEVLOOP_CHANGED_FILES": os.fsdecode(short),
            "DEVLOOP_CHANGED_FILES_LIST": str(self.files),
        }


def _as_scanned(now: Scan, scan: Scan) -> Scan:
    """What there is now, as a part of the iteration that `scan` began."""
    return replace(now, fresh=scan.fresh, changed=scan.changed, ms=scan.ms)


def _failed(when: str, hook: HookCommand, what: str, lines: tuple[str, ...]) -> DevloopError:
    where = " in the container" if hook.container else ""
    return DevloopError.of(
        Code.HOOK_FAILED,
        f"{when}: {what}{where}",
        location=hook.location,
        detail=lines,
        suggestions=("correct the command, or what it needs, and save",),
    )
