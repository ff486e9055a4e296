"""Builds and pushes with `docker buildx build`, whatever driver stands behind it.

The CLI is the only client that has all of BuildKit (secrets, ssh, contexts, remote builders), so
this module drives it and reads its rawjson progress. It must not decide what to build or whether
the result is used; it reports, and raises when the image is not exactly what the scan saw.

Requires buildx >= 0.13 for `--progress=rawjson`. Metadata keys:
https://docs.docker.com/reference/cli/docker/buildx/build/#metadata-file
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import tempfile
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING

from devloop.base import process
from devloop.base.cancel import Cancelled
from devloop.base.lazy_dataclass import dataclass
from devloop.builders import docker_errors
from devloop.builders.build_context import arranged, copied, failed_preparing
from devloop.builders.build_errors import BuildFailure, BuildLocation, diagnose, step_of
from devloop.builders.buildx_builder import away, may_be_away, next_route
from devloop.builders.cache_mounts import SLOW, additions, advice, as_built, report, with_mounts
from devloop.builders.docker_cli import buildx_place, cannot_run, place_for_files
from devloop.builders.dockerfile import load
from devloop.builders.image.full_build import NeedsFullBuild
from devloop.builders.job import ProgressReporter, tag_of
from devloop.builders.named_contexts import sources
from devloop.builders.rawjson import Solve, Vertex, one_line
from devloop.errors import Code, DevloopError, Diagnosis

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from devloop.base.cancel import Cancel
    from devloop.builders.buildx_builder import Route
    from devloop.builders.job import Job
    from devloop.engine.ports import Reporter
    from devloop.model import ImageRef, PushTarget, Scan


_DIGEST = re.compile(r"digest: (sha256:[0-9a-f]{64})")
_STILL = 10.0

# After so many builds in a row that a newer change ended, the context is copied for the next one:
# the engine lets that one through, and it must be what the scan saw.
_OVERTAKEN = 3

_ENVIRONMENT = {
    # Git is asked for provenance alone, which is off, and takes long in big repositories.
    "BUILDX_GIT_INFO": "false",
    "BUILDX_METADATA_PROVENANCE": "disabled",
    "DOCKER_CLI_HINTS": "false",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Result:
    status: int
    solve: Solve
    digest: str


def _own_directory(root: Path) -> tempfile.TemporaryDirectory[str]:
    """Raises env/disk-full and env/file-unreadable."""
    try:
        return tempfile.TemporaryDirectory(prefix="devloop-meta-", dir=place_for_files(root))
    except OSError as error:
        raise failed_preparing(error) from error


def arguments(
    job: Job,
    *,
    dockerfile: Path,
    context: Path,
    tag: str,
    metadata: Path,
    route: Route = "direct",
    fresh: bool = False,
) -> list[str]:
    """The command line for one build; a `fresh` one takes nothing from the builder's cache."""
    build, target = job.build, job.target
    argv = ["docker", "buildx", "build", "--progress=rawjson", f"--metadata-file={metadata}"]
    # An attestation holds times and turns the image into an index of two manifests: the digest
    # would differ from build to build, and `kind load` cannot import the result.
    argv += ["--provenance=false", f"--file={dockerfile}"]
    if route == "cluster":
        name = f"{target.cluster}/{job.image}:{tag}"
        # The registry that a cluster documents for itself (KEP-1755) speaks plain HTTP.
        argv.append(f"--output=type=image,name={name},push=true,registry.insecure=true")
    else:
        argv.append(f"--tag={job.repository}:{tag}")
        argv.append("--push" if route == "direct" and target.push else "--load")
    if build.target:
        argv.append(f"--target={build.target}")
    args, contexts = build.args, sources(build)
    if route == "cluster":
        # What was pushed under the one name is there under the other.
        args, contexts = (
            {k: _in_cluster(value, target) for k, value in found.items()}
            for found in (args, contexts)
        )
    argv += [f"--build-arg={key}={value}" for key, value in args.items()]
    argv += [f"--build-context={name}={source}" for name, source in contexts.items()]
    argv += [f"--secret={secret}" for secret in build.secrets]
    argv += [f"--ssh={ssh}" for ssh in build.ssh]
    if build.all_platforms:
        argv.append(f"--platform={','.join(build.all_platforms)}")
    argv += [f"--network={build.network}"] if build.network else []
    argv += [f"--add-host={host}" for host in build.add_host]
    argv += [f"--shm-size={build.shm_size}"] if build.shm_size else []
    argv += [f"--label={name}={value}" for name, value in build.labels.items()]
    argv += [f"--cache-from={cache}" for cache in build.cache_from]
    argv += [f"--cache-to={cache}" for cache in build.cache_to]
    if job.pull:
        argv.append("--pull")
    if fresh or build.no_cache:
        argv.append("--no-cache")
    return [*argv, "--", str(context)]


def _in_cluster(text: str, target: PushTarget) -> str:
    """An image's name, or a source of a named context, as the registry is named in the cluster."""
    scheme, _, name = text.rpartition("docker-image://")
    mine = f"{target.push}/"
    if scheme or not name.startswith(mine):
        return text
    return text.replace(mine, f"{target.cluster}/", 1)


class Buildx:
    """Builder by the buildx CLI. One object serves one service for a whole session."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._route: Route = "direct"
        self._overtaken = 0  # builds in a row that a newer change ended
        self._reported: set[object] = set()  # what is said once a session

    def build(self, scan: Scan, reporter: Reporter, cancel: Cancel) -> ImageRef:
        with self.counted():
            return self._build(scan, ProgressReporter(reporter), cancel)

    @property
    def undisturbed(self) -> bool:
        """Whether the builder reads the context itself and pushes to the registry itself: no detour
        was necessary so far, and not too many builds in a row were ended by a newer change."""
        return self._route == "direct" and self._overtaken < _OVERTAKEN

    @contextlib.contextmanager
    def counted(self) -> Iterator[None]:
        """Around a build, to know whether a newer change ended it."""
        try:
            yield
        except Cancelled:
            self._overtaken += 1
            raise
        except DevloopError as error:
            changed = error.code is Code.BUILD_CONTEXT_CHANGED
            self._overtaken = self._overtaken + 1 if changed else 0
            raise
        self._overtaken = 0

    def build_part(
        self,
        scan: Scan,
        progress: ProgressReporter,
        cancel: Cancel,
        *,
        tag: str,
        cut: Callable[[str], str],
    ) -> tuple[str, str]:
        """Build and push, as `tag`, what `cut` leaves of the Dockerfile's text (no line may move).
        The digest, and what was built in words.

        Whether the context is still what `scan` saw is the caller's to check. Raises
        `NeedsFullBuild` when the builder does not reach the registry, and as `build` does."""
        self._report_cache(progress.reporter)
        result = self._run(scan, progress, cancel, tag=tag, cut=cut)
        if result.status != 0:
            diagnosis = self._explain(scan, result.solve, cancel)
            if diagnosis.code is Code.REGISTRY_UNREACHABLE:
                raise NeedsFullBuild(diagnosis.message)
            raise DevloopError(diagnosis)
        if not result.digest:
            # The tag may be another build's by now.
            raise NeedsFullBuild("the builder does not say what it has pushed")
        digest = self._job.confirm(result.digest, tag, cancel)
        self._advise(result.solve, progress.reporter)
        return digest, result.solve.summary

    def _build(self, scan: Scan, progress: ProgressReporter, cancel: Cancel) -> ImageRef:
        self._report_cache(progress.reporter)
        copy = bool(scan.passing) or self._overtaken >= _OVERTAKEN
        # Secrets and named contexts are read during the build, wherever the context is.
        checked = copy and not (self._job.build.secrets or self._job.build.directories)
        result = self._run(scan, progress, cancel, copy=copy)
        while result.status != 0:
            diagnosis = self._explain(scan, result.solve, cancel)
            self._route, why = self._detour(scan, diagnosis, cancel)
            progress.reporter.diagnostic(why)
            result = self._run(scan, progress, cancel, copy=copy)
        tag = tag_of(scan)

        def pushed() -> str:
            digest = result.digest
            if self._route == "local":
                digest = self._docker_push(f"{self._job.repository}:{tag}", progress, cancel)
            return self._job.confirm(digest, tag, cancel)

        summary = result.solve.summary
        image = self._job.publish(
            scan, progress, cancel, summary=summary, pushed=pushed, checked=checked
        )
        self._advise(result.solve, progress.reporter)
        return image

    def _report_cache(self, reporter: Reporter) -> None:
        build = self._job.build
        if build.cache and Code.BUILD_CACHE_MOUNTS not in self._reported:
            added = additions(load(build.dockerfile, self._job.shown), build)
            self._report(Code.BUILD_CACHE_MOUNTS, report(added, self._job.shown), reporter)

    def _advise(self, solve: Solve, reporter: Reporter) -> None:
        """Name the slow steps that would be faster with a cache."""
        slow = [vertex for vertex in solve.vertices.values() if vertex.seconds > SLOW]
        if not slow:
            return
        with contextlib.suppress(OSError):
            dockerfile = as_built(self._job.build)
            steps = ((step_of(vertex.name, dockerfile), vertex.seconds) for vertex in slow)
            seconds = {step.start: took for step, took in steps if step is not None}
            for each in advice(dockerfile, self._job.build, self._job.shown, seconds):
                self._report(each.suggestions, each, reporter)

    def _report(self, key: object, diagnosis: Diagnosis, reporter: Reporter) -> None:
        if key not in self._reported:
            self._reported.add(key)
            reporter.diagnostic(diagnosis)

    def _run(
        self,
        scan: Scan,
        progress: ProgressReporter,
        cancel: Cancel,
        *,
        copy: bool = False,
        tag: str = "",
        cut: Callable[[str], str] | None = None,
    ) -> _Result:
        """One build; with `copy` of a copy of the context, known to be what `scan` saw. With `cut`
        of the part of the Dockerfile that it leaves, as `tag`; then there is more to build."""
        job, build, solve = self._job, self._job.build, Solve()
        source = build.context

        def rewrite(text: str) -> str:
            text = text if scan.fresh else with_mounts(text, build)
            return cut(text) if cut else text

        def on_line(line: str) -> None:
            for note in solve.feed(line):
                if cut:
                    progress.report(note.message, current=note.current, total=note.total)
                else:
                    progress.take(note, solve.summary)

        def still(seconds: float) -> None:
            if vertex := solve.running:
                progress.report(f"still running {one_line(vertex.name, 80)} for {seconds:.0f} s")

        with contextlib.ExitStack() as stack:
            directory = Path(stack.enter_context(_own_directory(job.root)))
            context = source
            if copy:
                context = stack.enter_context(copied(source, scan, directory))
            files = arranged(
                *(source, build.dockerfile, build.ignore, scan.snapshot, rewrite), within=directory
            )
            dockerfile = stack.enter_context(files)
            if copy:
                # The copy is verified, and so is the Dockerfile's from here on.
                job.check_unchanged(scan)
            named = context
            if cut:
                # BuildKit keeps a copy of a context by the name of its directory, and takes out
                # what this build does not read: 20,000 files in 8 s, and as long to bring back.
                named = directory / f"{source.name}-base"
                named.symlink_to(source.absolute())
            metadata = directory / "metadata.json"
            argv = arguments(
                job,
                dockerfile=dockerfile,
                context=named,
                tag=tag or tag_of(scan),
                metadata=metadata,
                route=self._route,
                fresh=scan.fresh,
            )
            try:
                status = process.run(
                    argv,
                    cancel=cancel,
                    on_line=on_line,
                    cwd=job.root,
                    env={**os.environ, **_ENVIRONMENT, **buildx_place(job.root)},
                    limit=job.limit,
                    silence=process.Silence(every=_STILL, report=still),
                )
            except process.Overran:
                running = solve.running or Vertex("")
                raise job.overran(running.name, solve.tail(running, 20)) from None
            except process.CannotRun as error:
                raise cannot_run(error) from error
            return _Result(status=status, solve=solve, digest=_digest(metadata))

    def _explain(self, scan: Scan, solve: Solve, cancel: Cancel) -> Diagnosis:
        failed = solve.failed or Vertex("")
        failure = BuildFailure(
            vertex=failed.name,
            error=failed.error,
            text="\n".join(solve.text),
            log=solve.tail(failed, 20),
            exporting=failed.exports,
        )
        dockerfile = load(self._job.build.dockerfile, self._job.shown)
        diagnosis = diagnose(failure, BuildLocation.of(self._job, scan, dockerfile))
        if not may_be_away(diagnosis, failed.name):
            return diagnosis
        return away(diagnosis, failed.error or failure.text, cancel)

    def _detour(self, scan: Scan, diagnosis: Diagnosis, cancel: Cancel) -> tuple[Route, Diagnosis]:
        """Another way to push when the registry answers here but not where the builder runs.

        Raises `diagnosis` when there is none."""
        job = self._job
        unreachable = diagnosis.code == Code.REGISTRY_UNREACHABLE
        if not unreachable or self._route == "local" or job.registry is None:
            raise DevloopError(diagnosis)
        try:
            job.registry.digest(job.repository, tag_of(scan), cancel)
        except DevloopError:
            raise DevloopError(diagnosis) from None
        try:
            return next_route(self._route, job.target, diagnosis, cancel)
        except DevloopError:
            # What is tried next time begins where everything began: the network may be another.
            self._route = "direct"
            raise

    def _docker_push(self, reference: str, progress: ProgressReporter, cancel: Cancel) -> str:
        lines: deque[str] = deque(maxlen=200)

        def on_line(line: str) -> None:
            lines.append(line)
            progress.report(line)

        try:
            status = process.run(
                ["docker", "push", reference], cancel=cancel, on_line=on_line, limit=self._job.limit
            )
        except process.Overran:
            raise DevloopError.of(
                Code.REGISTRY_PUSH_FAILED, f"pushing {reference} took too long"
            ) from None
        except process.CannotRun as error:
            raise cannot_run(error) from error
        text = "\n".join(lines)
        if status != 0:
            raise DevloopError(docker_errors.push_failed(text, self._job.repository))
        found = _DIGEST.findall(text)
        return found[-1] if found else ""


def _digest(metadata: Path) -> str:
    try:
        digest = json.loads(metadata.read_text()).get("containerimage.digest", "")
    except (OSError, ValueError, AttributeError):
        return ""
    return digest if isinstance(digest, str) else ""
