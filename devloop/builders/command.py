"""`builder: command`: a program of the user's builds and pushes the image by its own means.

devloop gives it the name and afterwards asks the registry; it must not guess at what the program
does.
"""

from __future__ import annotations

import os
from collections import deque
from typing import TYPE_CHECKING

from devloop.base import process
from devloop.base.patterns import ignore_line
from devloop.builders import docker_errors
from devloop.builders.cache_mounts import no_effect
from devloop.builders.docker_cli import cannot_run
from devloop.builders.job import ProgressReporter, context_changed, tag_of
from devloop.builders.own_outputs import rewritten_otherwise
from devloop.builders.rawjson import one_line, plain
from devloop.config.needs import variable
from devloop.errors import Code, DevloopError, Diagnosis

if TYPE_CHECKING:
    from devloop.base.cancel import Cancel
    from devloop.builders.job import Job
    from devloop.config.builds import Build
    from devloop.engine.ports import Reporter
    from devloop.model import ImageRef, Scan


_STILL = 10.0


class Command:
    """Runs `build.command` in the project's directory with DEVLOOP_IMAGE (`repository:tag`) set."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._argv = job.build.command or ()
        self._named: set[str] = set()  # the outputs that were warned of
        self._reported = False  # that `build.cache` has no effect

    def build(self, scan: Scan, reporter: Reporter, cancel: Cancel) -> ImageRef:
        image = f"{self._job.repository}:{tag_of(scan)}"
        if self._job.build.cache and not self._reported:
            self._reported = True
            reporter.diagnostic(no_effect("`builder: command`"))
        progress = ProgressReporter(reporter)
        outputs = self._job.outputs
        outputs.begins(scan)
        try:
            self._run(image, progress, cancel)
        except BaseException:
            outputs.ends(self._job.written_since(scan) or frozenset(), whole=False)
            raise
        self._check_unchanged(scan, reporter)
        return self._job.publish(
            scan,
            progress,
            cancel,
            summary=one_line(" ".join(self._argv), 40),
            pushed=lambda: self._digest(image, cancel),
            checked=True,
        )

    def _check_unchanged(self, scan: Scan, reporter: Reporter) -> None:
        """Raise build/context-changed unless what was written while the command ran has the same
        bytes, or is the command's own output."""
        written = self._job.written_since(scan)
        if written is None:
            raise context_changed()
        context, outputs = self._job.build.context, self._job.outputs
        try:
            other = rewritten_otherwise(context, scan, written)
        except OSError:
            raise context_changed() from None
        mine = outputs.may_hold(other)
        outputs.ends(written, whole=True)
        if not mine:
            raise context_changed()
        for path in other:
            if path not in self._named:
                self._named.add(path)
                reporter.diagnostic(_own_output(path))

    def _run(self, image: str, progress: ProgressReporter, cancel: Cancel) -> None:
        shown = one_line(" ".join(self._argv), 80)
        lines: deque[str] = deque(maxlen=200)

        def on_line(line: str) -> None:
            lines.append(plain(line))
            if line.strip():
                progress.report(line)

        def still(seconds: float) -> None:
            progress.report(f"still running {shown} for {seconds:.0f} s")

        try:
            status = process.run(
                self._argv,
                cancel=cancel,
                on_line=on_line,
                cwd=self._job.root,
                env={**os.environ, **_images_of(self._job.build), "DEVLOOP_IMAGE": image},
                limit=self._job.limit,
                silence=process.Silence(every=_STILL, report=still),
            )
        except process.Overran:
            raise DevloopError.of(
                Code.BUILD_TIMEOUT,
                f"the build command took longer than {self._job.limit:.0f} s: {shown}",
                detail=tuple(lines)[-20:],
            ) from None
        except process.CannotRun as error:
            why = cannot_run(error)
            if error.directory is not None:
                raise why from error
            raise DevloopError.of(
                Code.BUILD_COMMAND_FAILED,
                f"the build command cannot be run: {shown}",
                cause=why.diagnosis.cause or why.diagnosis.message,
                suggestions=(f"check that {self._argv[0]} exists and is executable",),
            ) from error
        if status == 0:
            return
        text = "\n".join(lines)
        known = docker_errors.docker_unreachable(text) or docker_errors.disk_full(text, "the disk")
        if known is not None:
            raise DevloopError(known)
        ended = f"exited {status}" if status > 0 else f"was ended by signal {-status}"
        raise DevloopError.of(
            Code.BUILD_COMMAND_FAILED, f"{shown} {ended}", detail=tuple(lines)[-20:]
        )

    def _digest(self, image: str, cancel: Cancel) -> str:
        repository, _, tag = image.rpartition(":")
        registry = self._job.registry
        found = registry.digest(repository, tag, cancel) if registry else None
        if found is None:
            raise DevloopError.of(
                Code.BUILD_COMMAND_FAILED,
                f"the build command did not push {image}",
                cause="it ended well, but the registry does not have the image",
                suggestions=('push the image named by "$DEVLOOP_IMAGE"',),
            )
        return found


def _images_of(build: Build) -> dict[str, str]:
    """The images of the services that this one needs, by variable."""
    return {variable(name): image for name, image in build.images.items()}


def _own_output(path: str) -> Diagnosis:
    return Diagnosis(
        code=Code.BUILD_CONTEXT_CHANGED,
        severity="warning",
        message=f"the build command writes {path} in the context, with other bytes each time",
        cause="what a build writes itself starts no other one",
        suggestions=(f"add this line to .dockerignore: {ignore_line(path)}",),
    )
