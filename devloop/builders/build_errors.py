"""From a failed build to a diagnosis with a place: what BuildKit printed -> file, line, cause,
cure.

Pure decisions over text and the Dockerfile model; shared by the builders that read BuildKit's or
the classic builder's text. It must not run anything; the only look at the disk is whether a path
that a COPY misses is there but ignored.
"""

from __future__ import annotations

import difflib
import os
import re
from typing import TYPE_CHECKING

from devloop.base.lazy_dataclass import dataclass
from devloop.builders import docker_errors
from devloop.builders.compiler_errors import source_place
from devloop.builders.job import shown_path
from devloop.builders.rawjson import one_line, split_name
from devloop.errors import Code, Diagnosis, Location

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from pathlib import Path

    from devloop.builders.dockerfile import Dockerfile, Instruction
    from devloop.builders.job import Job
    from devloop.model import Scan


_DETAIL_LINES = 20

# buildx ends with the part of the Dockerfile: "Dockerfile:7", a line of dashes, ">>> RUN ...".
_SOURCE = re.compile(r"^(?P<file>\S.*):(?P<line>\d+)\n-{5,}$", re.MULTILINE)
_PARSE = re.compile(
    r"dockerfile parse error(?:(?: on)? line (?P<line>\d+))?:? *(?P<what>.*)", re.IGNORECASE
)
_PARSE_OTHER = re.compile(
    r"(?:failed to parse stage name|base name \(.*\) should not be blank|unknown instruction|"
    r"file with no instructions|the Dockerfile \(.*\) cannot be empty|no build stage in current|"
    r"invalid reference format|unknown flag: |circular dependency detected|"
    r"failed to process \").*",
    re.IGNORECASE,
)
_TARGET = re.compile(r"target stage \"?(?P<target>[^\"\s]+)\"? could not be found", re.IGNORECASE)
_RUN = re.compile(
    r"process \"(?P<command>(?:[^\"\\]|\\.)*)\" did not complete successfully: "
    r"(?:exit code: (?P<code>\d+)|(?P<other>[^\n]*))"
)
# The shell or program of a RUN; a script without `#!` is run by a shell, which says it otherwise.
_ALIEN = re.compile(
    r"exec /\S*: exec format error|(?:Invalid|wrong) ELF image for this arch", re.IGNORECASE
)
# A step of `linux/amd64->arm64` runs on the first.
_OF_PLATFORM = re.compile(r"\[([a-z0-9]+/[a-z0-9]+(?:/v\d)?)(?:->\S+)? ")
_SEVERAL = re.compile(
    r"multi-platform build is not supported for the docker driver|"
    r"docker exporter does not (?:currently )?support exporting manifest lists",
    re.IGNORECASE,
)
_RUN_CLASSIC = re.compile(
    r"The command '(?P<command>.*)' returned a non-zero code: (?P<code>\d+)(?P<other>)", re.DOTALL
)
_MISSING = (
    re.compile(r"\"(?P<path>/[^\"\n]*)\":? not found"),
    re.compile(r"lstat \S*?buildkit-mount\d+(?P<path>/[^:\n]*): no such file or directory"),
    re.compile(r"(?:COPY|ADD) failed: (?:file not found in build context[^:\n]*: )?stat "
               r"(?P<path>[^:\n]+): (?:file does not exist|no such file)"),
    re.compile(r"(?:COPY|ADD) failed: no source files were specified"),
)  # fmt: skip
_PULL = re.compile(
    r"(?:(?P<image>\S+): )?failed to resolve source metadata for (?P<full>\S+?)"
    r"(?:: (?P<why>.*)|\s|$)"
)
_PULL_CLASSIC = re.compile(
    r"pull access denied for (?P<denied>[^\s,]+)|manifest for (?P<manifest>\S+) not found|"
    r"(?:failed to )?pull(?:ing)? (?:from )?(?:host )?(?P<other>\S+)",
    re.IGNORECASE,
)
# What commands say that want the repository: git itself, and tools that read a version from it.
_GIT = re.compile(
    r"not a git repository|setuptools[-_]scm|hatch[-_]vcs|versioneer|unable to detect version|"
    r"error obtaining VCS status|\bgit (?:describe|rev-parse|log|show|status)\b|(?<!\w)\.git\b",
    re.IGNORECASE,
)
_WITHOUT_GIT = "devloop leaves .git out of the build context: it changes with each git command"
_WITH_GIT = (
    "keep it with a line `!.git` in .dockerignore",
    "or pass what it is for as a build argument: `build.args`",
)
_BINFMT = "docker run --privileged --rm tonistiigi/binfmt --install"
_KILLED = {
    137: "it was killed (SIGKILL), most often for want of memory",
    139: "it crashed (SIGSEGV)",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildLocation:
    """What a failure is explained with. `shown` is the Dockerfile as the user would type it,
    `names` the paths of the context as the scan saw them, `repository` the push target, `platforms`
    what the image is built for, where that is said."""

    shown: str
    dockerfile: Dockerfile
    context: Path
    names: Collection[str]
    repository: str
    platforms: tuple[str, ...] = ()

    @classmethod
    def of(cls, job: Job, scan: Scan, dockerfile: Dockerfile) -> BuildLocation:
        return cls(
            shown=job.shown,
            dockerfile=dockerfile,
            context=job.build.context,
            names=scan.snapshot.entries,
            repository=job.repository,
            platforms=job.build.all_platforms,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildFailure:
    """What the builder left: `vertex` is the name of the step that failed ("" if unknown), `error`
    its error, `text` everything it printed in words, `log` the end of the step's output, `line`
    the line at fault for a builder that knows it."""

    vertex: str = ""
    error: str = ""
    text: str = ""
    log: tuple[str, ...] = ()
    exporting: bool = False
    line: int | None = None


def diagnose(failure: BuildFailure, place: BuildLocation) -> Diagnosis:
    """Always an answer; build/failed with the text of the builder itself when nothing else fits."""
    output = f"{failure.error}\n{failure.text}"
    return (
        docker_errors.docker_unreachable(output if not failure.vertex else failure.text)
        or docker_errors.disk_full("\n".join((output, *failure.log)))
        or _platforms(output, failure, place)
        or _run(output, failure, place)
        or _parse(output, failure, place)
        or _copy(output, failure, place)
        or _export(output, failure, place)
        or _base(output, failure, place)
        or _unknown(output, failure, place)
    )


def _instruction(
    failure: BuildFailure, place: BuildLocation
) -> tuple[Instruction | None, int | None]:
    """The instruction at fault and its line, as far as they are known."""
    line = failure.line
    # Other files than the user's Dockerfile cannot stand here: its copy keeps the name.
    if line is None and (found := list(_SOURCE.finditer(failure.text))):
        line = int(found[-1]["line"])
    if line is not None:
        return place.dockerfile.at(line), line
    instruction = step_of(failure.vertex, place.dockerfile)
    return instruction, instruction.start if instruction else None


def step_of(name: str, dockerfile: Dockerfile) -> Instruction | None:
    """The instruction that BuildKit shows by `name`, as far as that is known."""
    parts = split_name(name)
    if parts is None:
        return None
    label, number, total, text = parts
    keyword = text.split(" ", 1)[0].upper()
    stage = dockerfile.stage(re.sub(r"^stage-(?=\d+$)", "", label))
    stages = [stage] if stage else dockerfile.stages
    for candidate in stages:
        steps = candidate.steps
        # ONBUILD triggers of the base image are numbered too, so the number alone may lie.
        if len(steps) == total and steps[number - 1].keyword == keyword:
            return steps[number - 1]
    wanted = " ".join(text.split())
    every = (step for candidate in stages for step in candidate.steps)
    return next((s for s in every if wanted in (str(s), " ".join(s.raw.split()))), None)


def _location(failure: BuildFailure, place: BuildLocation, line: int | None = None) -> Location:
    instruction, known = _instruction(failure, place)
    line = line or known
    instruction = place.dockerfile.at(line) if line else instruction
    column = instruction.column if instruction and instruction.start == line else None
    return Location(place.shown, line, column or (1 if line else None))


def _parse(output: str, failure: BuildFailure, place: BuildLocation) -> Diagnosis | None:
    if target := _TARGET.search(output):
        names = [stage.name for stage in place.dockerfile.stages if stage.name]
        near = difflib.get_close_matches(target["target"], names, n=1, cutoff=0.5)
        return Diagnosis(
            code=Code.BUILD_DOCKERFILE_PARSE,
            message=f'the Dockerfile has no stage "{target["target"]}"',
            location=Location(place.shown),
            suggestions=(
                *(f'did you mean "{name}"?' for name in near),
                f"stages: {', '.join(names) or 'none has a name'}",
            ),
        )
    line, what = None, ""
    if match := _PARSE.search(output):
        line = int(match["line"]) if match["line"] else None
        what = match["what"].strip() or "the Dockerfile is not understood"
    elif other := _PARSE_OTHER.search(output):
        what = other[0].strip()
    else:
        return None
    own = next((p for p in place.dockerfile.problems if line in (None, p.line)), None)
    if line is None and own and not _SOURCE.search(failure.text):
        line = own.line
    location = _location(failure, place, line)
    if own and own.line == location.line:
        location = Location(place.shown, own.line, own.column)
    what, _, guess = what.partition(" (did you mean ")
    hint = f"did you mean {guess.rstrip(')?')}?" if guess else own.suggestion if own else ""
    return Diagnosis(
        code=Code.BUILD_DOCKERFILE_PARSE,
        message=what,
        location=location,
        suggestions=(hint,) if hint else (),
    )


def _platforms(output: str, failure: BuildFailure, place: BuildLocation) -> Diagnosis | None:
    """What a builder cannot do for several platforms, or for another one than its own."""
    several = _SEVERAL.search(output)
    if several is not None:
        return Diagnosis(
            code=Code.BUILD_UNSUPPORTED,
            message="this builder makes no image for several platforms",
            cause=docker_errors.first_line(several[0]),
            suggestions=(
                # The local Docker would take the image, and has no place for an index.
                "name a registry that the builder reaches with `registry`"
                if "export" in several[0].lower()
                else "docker buildx create --use --driver-opt network=host",
                "or one of them: `build.platform`",
            ),
        )
    alien = next((line for line in failure.log if _ALIEN.search(line)), None)
    if alien is None or not _RUN.search(output):
        return None
    found = _OF_PLATFORM.match(failure.vertex)
    platform = found[1] if found else ", ".join(place.platforms)
    processor = platform.split("/")[1] if "/" in platform else "all"
    return Diagnosis(
        code=Code.BUILD_NO_EMULATION,
        message=f"the builder cannot run programs of {platform or 'another platform'}",
        location=_location(failure, place),
        cause=alien.strip(),
        suggestions=(
            f"install emulation where it runs: {_BINFMT} {processor}",
            "or compile in a stage FROM --platform=$BUILDPLATFORM, and only copy after that",
        ),
        detail=failure.log[-_DETAIL_LINES:],
    )


def _run(output: str, failure: BuildFailure, place: BuildLocation) -> Diagnosis | None:
    match = _RUN.search(output) or _RUN_CLASSIC.search(output)
    if match is None:
        return None
    instruction, _ = _instruction(failure, place)
    code = int(match["code"]) if match["code"] else None
    command = _command(match["command"], instruction)
    ended = f"exited {code}" if code is not None else f"failed ({match['other'].strip()})"
    cause = _KILLED.get(code or 0)
    if code == 127:
        cause = "a command is not found in the image (or a script's interpreter or line ends)"
    without_git = _needs_git("\n".join((command, *failure.log)), place)
    location = _location(failure, place)
    if source := source_place(failure.log, place.names):
        path, line, column = source
        location = Location(shown_path(place.context / path), line, column)
    return Diagnosis(
        code=Code.BUILD_RUN_FAILED,
        message=f"RUN {ended}: {command}",
        location=location,
        cause=_WITHOUT_GIT if without_git else cause,
        suggestions=_WITH_GIT if without_git else (),
        detail=failure.log[-_DETAIL_LINES:],
    )


def _needs_git(text: str, place: BuildLocation) -> bool:
    """Whether a command may have failed because devloop left out the `.git` that is there."""
    if not _GIT.search(text) or not os.path.lexists(place.context / ".git"):
        return False
    return not any(name.split("/")[0] == ".git" for name in place.names)


def _command(quoted: str, instruction: Instruction | None) -> str:
    """The command as it stands in the Dockerfile: BuildKit shows it with shell and variables."""
    if instruction is not None and instruction.keyword == "RUN":
        if instruction.heredocs and instruction.value.startswith("<<"):
            body = instruction.heredocs[0].text.strip().split("\n")
            return one_line(body[0] + (" …" if len(body) > 1 else ""))
        return one_line(instruction.value)
    plain = re.sub(r"\\(.)", r"\1", quoted)
    return one_line(re.sub(r"^/bin/(?:ba)?sh -\w*c ", "", plain))


def _copy(output: str, failure: BuildFailure, place: BuildLocation) -> Diagnosis | None:
    instruction, _ = _instruction(failure, place)
    match = next((m for pattern in _MISSING if (m := pattern.search(output))), None)
    elsewhere = instruction is not None and instruction.keyword not in ("COPY", "ADD", "RUN")
    if match is None or failure.exporting or elsewhere:
        return None
    path = match.groupdict().get("path") or ""
    if not path and instruction is not None:
        path = instruction.sources[0] if instruction.sources else ""
    path = path.strip("/")
    keyword = instruction.keyword if instruction else "COPY"
    cause, suggestions = None, tuple[str, ...]()
    if instruction and (origin := instruction.flag("from")):
        message = f"{keyword} --from={origin}: {path} does not exist there"
    elif path and os.path.lexists(place.context / path):
        message = f"{keyword} {path}: the path is left out of the build context"
        cause = "it exists, but an ignore pattern leaves it out"
        suggestions = (f'add "!{path}" to .dockerignore (or change build.ignore)',)
        if ".git" in path.split("/"):
            cause, suggestions = _WITHOUT_GIT, _WITH_GIT
    else:
        message = f"{keyword} {path}: no such path in the build context"
        cause = f"the build context is {shown_path(place.context)}"
        suggestions = tuple(f'did you mean "{name}"?' for name in nearest(path, place.names))
    return Diagnosis(
        code=Code.BUILD_COPY_MISSING,
        message=message,
        location=_location(failure, place),
        cause=cause,
        suggestions=suggestions,
    )


def nearest(path: str, names: Iterable[str]) -> tuple[str, ...]:
    """The one path of the context that `path` most likely meant: same name elsewhere, or alike."""
    known = [name for name in names if name]
    base = path.rpartition("/")[2]
    same = [name for name in known if name.rpartition("/")[2] == base]
    if same:
        return (min(same, key=lambda name: (name.count("/"), name)),)
    directory = path.rpartition("/")[0]
    siblings = [name for name in known if name.rpartition("/")[0] == directory]
    for pool in (siblings, known[:5000]):
        if near := difflib.get_close_matches(path, pool, n=1, cutoff=0.6):
            return (near[0],)
    return ()


def _export(output: str, failure: BuildFailure, place: BuildLocation) -> Diagnosis | None:
    if not failure.exporting and "failed to push" not in output:
        return None
    return docker_errors.push_failed(output, place.repository)


def _base(output: str, failure: BuildFailure, place: BuildLocation) -> Diagnosis | None:
    match = _PULL.search(output)
    classic = None if match or failure.vertex else _PULL_CLASSIC.search(output)
    instruction, _ = _instruction(failure, place)
    pulls = failure.line is not None and instruction is not None and instruction.keyword == "FROM"
    if match is None and classic is None and not pulls:
        return None
    if match is not None:
        image, why = match["image"] or match["full"], match["why"] or ""
    else:
        image = next(filter(None, classic.groups() if classic else ()), "")
        image = (instruction.arguments or (image,))[0] if pulls and instruction else image
        why = docker_errors.first_line(failure.error)
    suggestions = []
    stages = [s.name for s in place.dockerfile.stages if s.name]
    if near := difflib.get_close_matches(image, stages, n=1, cutoff=0.7):
        suggestions.append(f'did you mean the stage "{near[0]}"?')
    if "denied" in why or "authoriz" in why:
        suggestions.append("check the name; for a private image: docker login")
    elif "not found" in why:
        suggestions.append("check the name and the tag")
    else:
        suggestions.append("check the network; docker pull shows the same error")
    return Diagnosis(
        code=Code.BUILD_BASE_PULL_FAILED,
        message=f"cannot pull {image or 'the base image'}",
        location=_location(failure, place),
        cause=docker_errors.first_line(why) or None,
        suggestions=tuple(suggestions),
    )


def _unknown(output: str, failure: BuildFailure, place: BuildLocation) -> Diagnosis:
    errors = [line for line in failure.text.splitlines() if line.startswith("ERROR: ")]
    reason = errors[-1].removeprefix("ERROR: ") if errors else docker_errors.first_line(output)
    for prefix in ("failed to build: ", "failed to solve: "):
        reason = reason.removeprefix(prefix)
    tail = tuple(line for line in failure.text.splitlines() if line.strip())[-_DETAIL_LINES:]
    return Diagnosis(
        code=Code.BUILD_FAILED,
        message=one_line(reason, 200) or "the builder ended without a reason",
        location=_location(failure, place),
        detail=failure.log[-_DETAIL_LINES:] or tail,
    )
