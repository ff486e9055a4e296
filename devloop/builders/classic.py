"""Builds through Docker's own API with the classic builder, for a Docker without buildx.

It uses the SDK's low-level client alone: the SDK's helpers make the context's tar by other ignore
rules than Docker's, and its push swallows errors. What only BuildKit can do is refused with
build/unsupported before anything is sent.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any

import docker.errors
import requests.exceptions

from devloop.builders import context_tar, docker_errors
from devloop.builders.build_errors import BuildFailure, BuildLocation, diagnose
from devloop.builders.classic_stream import BuildStream, PushStream
from devloop.builders.docker_client import FAILURES, connect, unreachable
from devloop.builders.dockerfile import load
from devloop.builders.ignore_file import ignore_file
from devloop.builders.job import publish, tag_of
from devloop.builders.progress import ProgressReporter
from devloop.builders.rawjson import one_line
from devloop.errors import Code, DevloopError, Location

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devloop.base.cancel import Cancel
    from devloop.builders.docker_client import DockerClient
    from devloop.builders.dockerfile import Dockerfile, Instruction
    from devloop.builders.job import Job
    from devloop.engine.ports import Reporter
    from devloop.model import ImageRef, Scan


_CONNECT = 5.0
_PIECE = 256 * 1024
_INJECTED = ".devloop.dockerfile"

# What needs BuildKit: flags by instruction (docs.docker.com/reference/dockerfile).
_NEW_FLAGS = {
    "RUN": frozenset({"mount", "network", "security", "device"}),
    "COPY": frozenset({"link", "chmod", "parents", "exclude"}),
    "ADD": frozenset({"link", "chmod", "checksum", "keep-git-dir", "exclude", "unpack"}),
}


class Classic:
    """Builder by the classic API."""

    name = "classic"

    def __init__(self, job: Job) -> None:
        self._job = job

    def build(self, scan: Scan, reporter: Reporter, cancel: Cancel) -> ImageRef:
        job, tag = self._job, tag_of(scan)
        dockerfile = load(job.build.dockerfile, job.shown)
        self._refuse_new(dockerfile)
        progress = ProgressReporter(reporter)
        cancel.check()
        digest = ""
        with contextlib.closing(connect(_CONNECT)) as api:
            api.timeout = job.limit
            with cancel.closing(api.shut):
                summary = self._build(api, scan, dockerfile, progress, cancel)
                progress.push(summary)
                if job.target.push:
                    digest = self._push(api, job.repository, tag, progress, cancel)
        cancel.check()
        return publish(
            job,
            scan,
            progress,
            summary=summary,
            pushed=lambda: job.confirm(digest, tag, cancel),
            cancel=cancel,
        )

    def _refuse_new(self, dockerfile: Dockerfile) -> None:
        build = self._job.build
        wanted = "build.secrets" if build.secrets else "build.ssh" if build.ssh else ""
        where = Location(self._job.shown)
        if not wanted:
            for stage in dockerfile.needed(build.target):
                for instruction in stage.instructions:
                    if what := _new_in(instruction):
                        wanted = what
                        where = Location(self._job.shown, instruction.start, instruction.column)
                        break
        if wanted:
            raise DevloopError.of(
                Code.BUILD_UNSUPPORTED,
                f"{wanted} needs BuildKit, which the classic builder does not have",
                location=where,
                suggestions=("install buildx: https://docs.docker.com/build/install-buildx/",),
            )

    def _build(
        self,
        api: DockerClient,
        scan: Scan,
        dockerfile: Dockerfile,
        progress: ProgressReporter,
        cancel: Cancel,
    ) -> str:
        job, state = self._job, BuildStream()
        name, replaced = self._dockerfile_in(scan)
        started = time.monotonic()
        try:
            for item in api.build(
                fileobj=_watched(
                    context_tar.stream(job.build.context, scan.snapshot, replaced), cancel
                ),
                custom_context=True,
                decode=True,
                dockerfile=name,
                tag=f"{job.repository}:{tag_of(scan)}",
                buildargs=job.build.args or None,
                target=job.build.target,
                platform=job.build.platform,
                rm=True,
                forcerm=True,
            ):
                cancel.check()
                for note in state.feed(item):
                    progress.take(note, state.summary)
                self._check_time(started, state)
        except FAILURES as error:
            cancel.check()
            if not isinstance(error, docker.errors.APIError):
                raise self._broken(error, state) from error
            state.error = str(error.explanation or error)
        cancel.check()
        if state.error:
            raise DevloopError(self._explain(state, scan, dockerfile))
        return state.summary

    def _dockerfile_in(self, scan: Scan) -> tuple[str, dict[str, bytes]]:
        """The Dockerfile's name inside the context, and what to put there beside the scan's files.

        The daemon applies the context's .dockerignore again, to what is filtered already. That
        matters only where another file's rules count, or the Dockerfile has to be added: then the
        .dockerignore that is sent differs, as it does with the docker CLI."""
        build = self._job.build
        replaced: dict[str, bytes] = {}
        own = build.context / ".dockerignore"
        has_own = ".dockerignore" in scan.snapshot.entries
        rules = own.read_bytes() if has_own else b""
        if has_own and ignore_file(build.context, build.dockerfile) != own:
            rules += b"\n!**\n"
            replaced[".dockerignore"] = rules
        with contextlib.suppress(ValueError):
            inside = build.dockerfile.relative_to(build.context).as_posix()
            if inside in scan.snapshot.entries:
                return inside, replaced
        replaced[_INJECTED] = build.dockerfile.read_bytes()
        hidden = f"\n{_INJECTED}\n" + ("" if has_own else ".dockerignore\n")
        replaced[".dockerignore"] = rules + hidden.encode()
        return _INJECTED, replaced

    def _check_time(self, started: float, state: BuildStream) -> None:
        if time.monotonic() - started > self._job.limit:
            raise self._overran(state)

    def _overran(self, state: BuildStream) -> DevloopError:
        return DevloopError.of(
            Code.BUILD_TIMEOUT,
            f"the build took longer than {self._job.limit:.0f} s",
            cause=f"it was still running {one_line(state.text)}" if state.text else None,
            detail=tuple(state.log)[-20:],
        )

    def _broken(self, error: Exception, state: BuildStream) -> DevloopError:
        if isinstance(error, requests.exceptions.Timeout):
            return self._overran(state)
        return unreachable(error)

    def _explain(self, state: BuildStream, scan: Scan, dockerfile: Dockerfile) -> Any:
        instruction = state.instruction(dockerfile)
        failure = BuildFailure(
            error=state.error,
            log=tuple(state.log),
            line=instruction.start if instruction else None,
        )
        place = BuildLocation(
            shown=self._job.shown,
            dockerfile=dockerfile,
            context=self._job.build.context,
            names=scan.snapshot.entries,
            repository=self._job.repository,
        )
        return diagnose(failure, place)

    def _push(
        self,
        api: DockerClient,
        repository: str,
        tag: str,
        progress: ProgressReporter,
        cancel: Cancel,
    ) -> str:
        state = PushStream()
        try:
            for item in api.push(repository, tag=tag, stream=True, decode=True):
                cancel.check()
                for note in state.feed(item):
                    progress.report(note.message, current=note.current, total=note.total)
        except FAILURES as error:
            cancel.check()
            if not isinstance(error, docker.errors.APIError):
                raise unreachable(error) from error
            state.error = str(error.explanation or error)
        cancel.check()
        if state.error:
            raise DevloopError(docker_errors.push_failed(state.error, repository))
        return state.digest


def _new_in(instruction: Instruction) -> str:
    if instruction.heredocs:
        return f"{instruction.keyword} with a heredoc"
    new = _NEW_FLAGS.get(instruction.keyword, frozenset())
    flag = next((name for name, _ in instruction.flags if name in new), "")
    return f"{instruction.keyword} --{flag}" if flag else ""


def _watched(chunks: Iterator[bytes], cancel: Cancel) -> Iterator[bytes]:
    """The same bytes in bigger pieces: each piece costs three writes to the socket."""
    held = bytearray()
    for chunk in chunks:
        cancel.check()
        held += chunk
        if len(held) >= _PIECE:
            yield bytes(held)
            held.clear()
    if held:
        yield bytes(held)
