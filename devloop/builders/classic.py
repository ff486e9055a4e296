"""Builds through Docker's own API with the classic builder, for a Docker without buildx.

It uses the SDK's low-level client alone: the SDK's helpers make the context's tar by other ignore
rules than Docker's, and its push swallows errors. What only BuildKit can do is refused with
build/unsupported before anything is sent.

The daemon answers 200 before it begins, so an error is just another of the JSON objects that it
streams back; every object is looked at.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any

import docker.errors
import requests.exceptions
from docker.utils import parse_bytes

from devloop.builders import docker_errors
from devloop.builders.build_context import ignore_file, stream
from devloop.builders.build_errors import BuildFailure, BuildLocation, diagnose
from devloop.builders.docker_client import FAILURES, connect, unreachable
from devloop.builders.dockerfile import load
from devloop.builders.image.tar_writer import in_pieces, until
from devloop.builders.job import ProgressReporter, tag_of
from devloop.builders.rawjson import Note, NoteTaker, one_line, plain
from devloop.config.needs import variable
from devloop.errors import Code, DevloopError, Location

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devloop.base.cancel import Cancel
    from devloop.builders.docker_client import DockerClient
    from devloop.builders.dockerfile import Dockerfile, Instruction
    from devloop.builders.job import Job
    from devloop.engine.ports import Reporter
    from devloop.errors import Diagnosis
    from devloop.model import ImageRef, Scan


_CONNECT = 5.0
# Each piece costs three writes to the socket.
_PIECE = 256 * 1024
_INJECTED = ".devloop.dockerfile"

# What needs BuildKit: flags by instruction (docs.docker.com/reference/dockerfile).
_NEW_FLAGS = {
    "RUN": frozenset({"mount", "network", "security", "device"}),
    "COPY": frozenset({"link", "chmod", "parents", "exclude"}),
    "ADD": frozenset({"link", "chmod", "checksum", "keep-git-dir", "exclude", "unpack"}),
}

_STEP = re.compile(r"^Step (\d+)/(\d+) : (.*)$")
_CACHED = " ---> Using cache"
_ARROW = re.compile(r"^ ---> (?:[0-9a-f]{12}|Running in \S+|Using cache)$|^Removing intermediate|"
                    r"^ ---> Removed intermediate")  # fmt: skip
_KEPT_LINES = 200


class Classic:
    """Builder by the classic API."""

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
                    digest = self._push(api, tag, progress, cancel)
        cancel.check()
        confirmed = partial(job.confirm, digest, tag, cancel)
        return job.publish(scan, progress, cancel, summary=summary, pushed=confirmed)

    def _refuse_new(self, dockerfile: Dockerfile) -> None:
        build, shown = self._job.build, self._job.shown
        new = {
            "build.secrets": build.secrets,
            "build.ssh": build.ssh,
            "build.cache_to": build.cache_to,
            "build.contexts": build.contexts,
            "build.platforms": build.platforms,
            "a source in build.cache_from": any("=" in each for each in build.cache_from),
        }
        wanted = next((name for name, given in new.items() if given), "")
        where = Location(shown)
        if not wanted:
            stages = dockerfile.needed(build.target)
            for instruction in (i for stage in stages for i in stage.instructions):
                if wanted := _new_in(instruction):
                    where = Location(shown, instruction.start, instruction.column)
                    break
        hints: tuple[str, ...] = ("install buildx: https://docs.docker.com/build/install-buildx/",)
        if not wanted and build.images:
            name = next(iter(build.images))
            wanted = f"the name of the service {name} for its image"
            argument = variable(name)
            hints = (
                *hints,
                f"or write `ARG {argument}` at the top, and ${{{argument}}} for {name}",
            )
        if wanted:
            raise DevloopError.of(
                Code.BUILD_UNSUPPORTED,
                f"{wanted} needs BuildKit, which the classic builder does not have",
                location=where,
                suggestions=hints,
            )

    def _build(
        self,
        api: DockerClient,
        scan: Scan,
        dockerfile: Dockerfile,
        progress: ProgressReporter,
        cancel: Cancel,
    ) -> str:
        job, build, state = self._job, self._job.build, BuildStream()
        name, replaced = self._dockerfile_in(scan)
        context = until(cancel, stream(job.build.context, scan, replaced))
        started = time.monotonic()
        with _errors_into(state, cancel):
            try:
                for item in api.build(
                    fileobj=in_pieces(context, _PIECE),
                    custom_context=True,
                    decode=True,
                    dockerfile=name,
                    tag=f"{job.repository}:{tag_of(scan)}",
                    buildargs=job.build.args or None,
                    target=job.build.target,
                    platform=job.build.platform,
                    pull=job.pull,
                    nocache=scan.fresh or build.no_cache,
                    network_mode=build.network,
                    extra_hosts=dict(re.split("[:=]", host, maxsplit=1) for host in build.add_host)
                    or None,
                    shmsize=parse_bytes(build.shm_size) if build.shm_size else None,
                    labels=build.labels or None,
                    cache_from=list(build.cache_from) or None,
                    rm=True,
                    forcerm=True,
                ):
                    cancel.check()
                    for note in state.feed(item):
                        progress.take(note, state.summary)
                    if time.monotonic() - started > job.limit:
                        raise job.overran(state.text, state.log)
            except requests.exceptions.Timeout as error:
                cancel.check()
                raise job.overran(state.text, state.log) from error
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

    def _explain(self, state: BuildStream, scan: Scan, dockerfile: Dockerfile) -> Diagnosis:
        instruction = state.instruction(dockerfile)
        line = instruction.start if instruction else None
        failure = BuildFailure(error=state.error, log=tuple(state.log), line=line)
        return diagnose(failure, BuildLocation.of(self._job, scan, dockerfile))

    def _push(self, api: DockerClient, tag: str, progress: ProgressReporter, cancel: Cancel) -> str:
        repository, state = self._job.repository, PushStream()
        with _errors_into(state, cancel):
            for item in api.push(repository, tag=tag, stream=True, decode=True):
                cancel.check()
                for note in state.feed(item):
                    progress.report(note.message, current=note.current, total=note.total)
        if state.error:
            raise DevloopError(docker_errors.push_failed(state.error, repository))
        return state.digest


@contextlib.contextmanager
def _errors_into(state: BuildStream | PushStream, cancel: Cancel) -> Iterator[None]:
    """What Docker refuses is an error of `state`. Raises env/docker-unreachable and Cancelled."""
    try:
        yield
    except FAILURES as error:
        cancel.check()
        if not isinstance(error, docker.errors.APIError):
            raise unreachable(error) from error
        state.error = str(error.explanation or error)
    cancel.check()


def _new_in(instruction: Instruction) -> str:
    if instruction.heredocs:
        return f"{instruction.keyword} with a heredoc"
    new = _NEW_FLAGS.get(instruction.keyword, frozenset())
    flag = next((name for name, _ in instruction.flags if name in new), "")
    return f"{instruction.keyword} --{flag}" if flag else ""


class BuildStream:
    """The state of one classic build, fed object by object. `error` is set when it failed."""

    def __init__(self) -> None:
        self.steps = 0
        self.cached = 0
        self.step = 0
        self.text = ""
        self.error = ""
        self.log: deque[str] = deque(maxlen=_KEPT_LINES)
        self._partial = ""

    def feed(self, item: object) -> list[Note]:
        if not isinstance(item, dict):
            return []
        self.error = error_of(item) or self.error
        if isinstance(item.get("status"), str) and not item.get("progressDetail"):
            return [Note(kind="step", message=one_line(item["status"]))]
        if not isinstance(item.get("stream"), str):
            return []
        *whole, self._partial = (self._partial + item["stream"]).split("\n")
        return [note for line in whole if (note := self._line(plain(line))) is not None]

    def _line(self, line: str) -> Note | None:
        match = _STEP.match(line)
        if match is None:
            if line.startswith(_CACHED):
                self.cached += 1
            elif line.strip() and not _ARROW.match(line):
                self.log.append(line)
            return None
        self.step, self.steps = int(match[1]), int(match[2])
        self.text = match[3]
        self.log.clear()
        return Note(
            kind="step",
            message=one_line(f"[{self.step}/{self.steps}] {self.text}"),
            current=self.step,
            total=self.steps,
        )

    @property
    def summary(self) -> str:
        word = "step" if self.steps == 1 else "steps"
        return f"{self.steps} {word}, {self.cached} cached"

    def instruction(self, dockerfile: Dockerfile) -> Instruction | None:
        """The instruction of the step that ran last; the classic builder counts every one."""
        keyword = self.text.split(" ", 1)[0].upper()
        found = dockerfile.instructions[self.step - 1 : self.step] if self.step else ()
        if found and found[0].keyword == keyword:
            return found[0]
        wanted = " ".join(self.text.split())
        return next((i for i in dockerfile.instructions if str(i) == wanted), None)


class PushStream:
    """The state of one push. `digest` is set when it worked, `error` when it did not."""

    def __init__(self) -> None:
        self.digest = ""
        self.error = ""
        self._notes = NoteTaker()

    def feed(self, item: object) -> list[Note]:
        if not isinstance(item, dict):
            return []
        self.error = error_of(item) or self.error
        aux = item.get("aux")
        digest = aux.get("Digest") if isinstance(aux, dict) else None
        self.digest = digest if isinstance(digest, str) else self.digest
        status = item.get("status")
        if not isinstance(status, str):
            return []
        layer = item.get("id")
        message = f"{status} {layer}" if isinstance(layer, str) else status
        detail = item.get("progressDetail")
        amounts = detail if isinstance(detail, dict) else {}
        current, total = amounts.get("current"), amounts.get("total")
        return self._notes.note(
            "export",
            one_line(message),
            current=current if isinstance(current, int) else None,
            total=total if isinstance(total, int) and total > 0 else None,
        )


def error_of(item: dict[str, Any]) -> str:
    """The in-band error of an object, "" when it has none."""
    detail = item.get("errorDetail")
    message = detail.get("message") if isinstance(detail, dict) else None
    found = message or item.get("error") or ""
    return found if isinstance(found, str) else str(found)
