"""Which RUNs of a Dockerfile would keep a compiler's or a package manager's cache between builds,
and what is said about that.

For `build.cache` and for the advice to write such a mount. What a RUN runs is judged by its words,
and where a directory or what reads it is in doubt, the RUN is left alone. `auto` adds only what its
tool documents never to change a build, and nothing that another step may need: what is in a cache
mount is in no layer. An empty directory is left of it in the image, or, with newer BuildKits,
nothing.

Cache mounts: https://docs.docker.com/reference/dockerfile/#run---mounttypecache
"""

from __future__ import annotations

import contextlib
import itertools
import re
import shlex
from dataclasses import replace
from typing import TYPE_CHECKING

from devloop.base.lazy_dataclass import dataclass
from devloop.builders.dockerfile import parse
from devloop.builders.image.full_build import NeedsFullBuild
from devloop.builders.image.text import Scope, joined, json_form
from devloop.builders.rawjson import one_line
from devloop.errors import Code, Diagnosis, Location

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from devloop.builders.dockerfile import Dockerfile, Instruction, Stage
    from devloop.config.builds import Build

SLOW = 5.0
"""From so many seconds on a step without a cache is worth a word."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cache:
    """A cache of `programs` that do one of `verbs` (any, if there are none).

    `places` are `VARIABLE/path` or `/path`, the first whose variable is set counts. A `store` is
    read in place, by later steps too; a base image may have filled it, unless it is one of
    `images`. `auto`: documented never to change a build, where the setting `given` holds.
    `elsewhere`: words and variables that move the cache, empty it or turn it off."""

    programs: str
    verbs: str = ""
    places: str
    store: bool = False
    images: str = ""
    sharing: str = ""
    auto: bool = False
    given: str = ""
    elsewhere: str = ""
    note: str = ""


_CARGO = "bench build check clippy doc fetch install run test"
_APT = "build-dep dist-upgrade full-upgrade install update upgrade"
_CLEAN = "docker-clean of Debian's images empties it: rm /etc/apt/apt.conf.d/docker-clean before"
_JDK = "eclipse-temurin amazoncorretto"

_CACHES = (
    # "Correctly accounts for changes to Go source files, compilers, compiler options", but not to C
    # libraries imported with cgo, nor to all that a test reads:
    # https://pkg.go.dev/cmd/go#hdr-Build_and_test_caching
    _Cache(programs="go", verbs="build install run vet", elsewhere="clean test", auto=True,
           given="CGO_ENABLED=0",
           places="GOCACHE XDG_CACHE_HOME/go-build HOME/.cache/go-build"),
    # Read-only files, checked against go.sum, for any number of projects at once:
    # https://go.dev/ref/mod#module-cache
    _Cache(programs="go", verbs="build generate get install list mod run test tool vet",
           elsewhere="clean", auto=True, store=True, images="golang",
           places="GOMODCACHE GOPATH/pkg/mod"),
    # The directories to cache: https://doc.rust-lang.org/cargo/guide/cargo-home.html
    *(_Cache(programs="cargo", verbs=_CARGO, places=f"CARGO_HOME/{name}", images="rust", store=True)
      for name in ("registry", "git/db")),
    # Holds settings and init scripts too:
    # https://docs.gradle.org/current/userguide/directory_layout.html#dir:gradle_user_home
    _Cache(programs="gradle gradlew", places="GRADLE_USER_HOME HOME/.gradle", store=True,
           images=f"gradle {_JDK}", elsewhere="-g --gradle-user-home"),
    # What `install` put there is used like what was downloaded:
    # https://maven.apache.org/guides/introduction/introduction-to-repositories.html
    _Cache(programs="mvn mvnw", places="HOME/.m2/repository", store=True, images=f"maven {_JDK}",
           elsewhere="-Dmaven.repo.local"),
    # "All data that passes through the cache is fully verified for integrity on both insertion and
    # extraction", and it holds requests: https://docs.npmjs.com/cli/commands/npm-cache
    _Cache(programs="npm", verbs="add ci i install update", auto=True, elsewhere="clean --cache",
           places="npm_config_cache/_cacache NPM_CONFIG_CACHE/_cacache HOME/.npm/_cacache"),
    # Of version 1, as root: https://classic.yarnpkg.com/lang/en/docs/cli/cache/
    _Cache(programs="yarn", verbs="add install", images="node", elsewhere="clean --cache-folder",
           places="YARN_CACHE_FOLDER /usr/local/share/.cache/yarn"),
    # Keeps what install scripts made: https://pnpm.io/settings/build#sideeffectscache
    _Cache(programs="pnpm", verbs="add fetch i install", elsewhere="prune --store-dir",
           places="PNPM_HOME/store XDG_DATA_HOME/pnpm/store HOME/.local/share/pnpm/store"),
    # Keeps wheels that were built with another system's libraries:
    # https://pip.pypa.io/en/stable/topics/caching/#locally-built-wheels
    _Cache(programs="pip pip3", verbs="download install wheel",
           places="PIP_CACHE_DIR XDG_CACHE_HOME/pip HOME/.cache/pip",
           elsewhere="purge --no-cache-dir --cache-dir PIP_NO_CACHE_DIR"),
    # Likewise, and it links to what is on the same file system:
    # https://docs.astral.sh/uv/concepts/cache/
    _Cache(programs="uv", verbs="add build lock pip run sync tool", note="ENV UV_LINK_MODE=copy",
           places="UV_CACHE_DIR XDG_CACHE_HOME/uv HOME/.cache/uv",
           elsewhere="clean prune --no-cache -n --cache-dir UV_NO_CACHE"),
    # "Apt needs exclusive access to its data":
    # https://docs.docker.com/reference/dockerfile/#example-cache-apt-packages
    *(_Cache(programs="apt apt-get", verbs=_APT, places=place, sharing="locked", note=_CLEAN)
      for place in ("/var/cache/apt", "/var/lib/apt")),
    # What is built refers to it, until it runs:
    # https://learn.microsoft.com/nuget/consume-packages/managing-the-global-packages-and-cache-folders
    _Cache(programs="dotnet", verbs="build pack publish restore run test", store=True,
           images="mcr.microsoft.com/dotnet/sdk", places="NUGET_PACKAGES HOME/.nuget/packages",
           elsewhere="--packages"),
    # "Always produces exactly the same compiler output", but for a new header that hides another
    # one, in direct mode: https://ccache.dev/manual/latest.html#_caveats
    _Cache(programs="ccache", auto=True, given="CCACHE_NODIRECT=1", elsewhere="-C --clear",
           places="CCACHE_DIR XDG_CACHE_HOME/ccache HOME/.cache/ccache"),
    # The repository cache alone; bazel-bin leads into what else is there:
    # https://bazel.build/remote/output-directories
    _Cache(programs="bazel bazelisk", verbs="build fetch run sync test", elsewhere="clean",
           places="HOME/.cache/bazel/_bazel_root/cache"),
)  # fmt: skip

# HOME is root's, the others are what the tools' own images set.
_DEFAULTS = {"HOME": "/root", "GOPATH": "/go", "CARGO_HOME": "/usr/local/cargo"}
_ROOT = ("root", "0", "root:root", "0:0")
_RUN = re.compile(r"^(\s*RUN)(?=[\s\\`]|$)", re.IGNORECASE)
_PLAIN = re.compile(r"/[\w./+-]+")
# Those that know no --mount.
_OLD_SYNTAX = re.compile(r"(?:docker\.io/)?docker/dockerfile:1\.[01](?!\d)")
# What stands before the program in a command: words of the shell, and variables.
_LEADS = re.compile(r"(?:[!{]|command|do|else|env|exec|export|if|sudo|then|time|while)$|\w+=")


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheMounts:
    """What to add to `run`: the flags, and what else there is to know."""

    run: Instruction
    flags: tuple[str, ...]
    note: str = ""

    def added_to(self, line: str) -> str:
        """The RUN's first line with the flags right after the word RUN."""
        return _RUN.sub(rf"\1 {' '.join(self.flags)}", line, count=1)

    @property
    def directories(self) -> str:
        return ", ".join(re.findall(r"target=([^,\s]+)", " ".join(self.flags)))


def additions(dockerfile: Dockerfile, build: Build) -> tuple[CacheMounts, ...]:
    """What `build.cache` has devloop add."""
    if build.cache == "auto":
        return tuple(_found(dockerfile, build, auto=True))
    if not _takes_mounts(dockerfile):
        return ()
    return tuple(
        CacheMounts(run=run, flags=tuple(map(_flag, wanted)))
        for run in dockerfile.instructions
        if run.keyword == "RUN"
        and (wanted := [path for path in build.cache if path not in _targets(run)])
    )


def missing(dockerfile: Dockerfile, build: Build) -> tuple[CacheMounts, ...]:
    """For each RUN of a known tool without any cache mount what to write."""
    found = _found(dockerfile, build, auto=False)
    return tuple(f for f in found if all(mount["type"] != "cache" for mount in f.run.mounts))


def with_mounts(text: str, build: Build) -> str:
    """The Dockerfile `text` with the `additions`; no line moves."""
    lines = text.split("\n")
    for each in additions(parse(text), build):
        lines[each.run.start - 1] = each.added_to(lines[each.run.start - 1])
    return "\n".join(lines)


def as_built(build: Build) -> Dockerfile:
    """The Dockerfile with what `build.cache` adds. Raises OSError."""
    return parse(with_mounts(build.dockerfile.read_text("utf-8", "replace"), build))


def advice(
    dockerfile: Dockerfile, build: Build, shown: str, seconds: dict[int, float] | None = None
) -> Iterator[Diagnosis]:
    """build/no-cache-mount for each RUN without a cache; with `seconds` (how long the slow steps
    took, by line) for those only."""
    automatic = {each.run.start for each in additions(dockerfile, replace(build, cache="auto"))}
    for each in missing(dockerfile, build):
        run = each.run
        if seconds is not None and run.start not in seconds:
            continue
        yield Diagnosis(
            code=Code.BUILD_NO_CACHE_MOUNT,
            severity="info",
            message=f"{one_line(str(run), 50)}: no cache is kept between builds"
            + (f", it took {seconds[run.start]:.0f} s" if seconds else ""),
            location=Location(shown, run.start, run.column),
            suggestions=(
                one_line(each.added_to(run.raw.partition("\n")[0]), 300)
                + (f" ({each.note})" if each.note else ""),
                *_by_key(run, automatic=run.start in automatic),
            ),
        )


def _by_key(run: Instruction, *, automatic: bool) -> Iterator[str]:
    """The same by `build.cache`, which takes some caches only where a setting makes them sure."""
    key = "`build: {cache: auto}` in devloop.yaml"
    if automatic:
        yield f"or {key}"
        return
    sure = dict.fromkeys(cache.given for cache in _CACHES if cache.given and _uses(cache, run))
    yield from (f"or {given} there, with {key}" for given in sure if given not in run.value)


def report(added: Sequence[CacheMounts], shown: str) -> Diagnosis:
    """build/cache-mounts: what was added to the Dockerfile."""
    kept = ", ".join(dict.fromkeys(each.directories for each in added))
    return Diagnosis(
        code=Code.BUILD_CACHE_MOUNTS,
        severity="info",
        message=f"build.cache keeps {kept}" if kept else "build.cache finds nothing to keep",
        location=Location(shown, added[0].run.start, added[0].run.column) if added else None,
        detail=tuple(f"{shown}:{each.run.start} {each.directories}" for each in added),
    )


def no_effect(builder: str) -> Diagnosis:
    """build/cache-mounts for a builder that cannot keep directories."""
    return Diagnosis(
        code=Code.BUILD_CACHE_MOUNTS,
        severity="info",
        message=f"build.cache has no effect: {builder} has no cache mounts",
    )


def _flag(directory: str, sharing: str = "") -> str:
    return f"--mount=type=cache,target={directory}" + (f",sharing={sharing}" if sharing else "")


def _takes_mounts(dockerfile: Dockerfile) -> bool:
    syntax = dockerfile.directives.get("syntax", "")
    return not dockerfile.custom_syntax and not _OLD_SYNTAX.match(syntax)


def _targets(run: Instruction) -> list[str]:
    names = ("target", "dst", "destination")
    return [joined("/", mount[n]) for mount in run.mounts for n in names if mount.get(n)]


def _found(dockerfile: Dockerfile, build: Build, *, auto: bool) -> Iterator[CacheMounts]:
    needed = dockerfile.needed(build.target) if _takes_mounts(dockerfile) else ()
    chains: list[tuple[Stage, ...]] = []  # each stage after those that it starts from
    for stage in dockerfile.stages:
        below = dockerfile.stage(stage.base)
        start = chains[below.index] if below and below.index < stage.index else ()
        chains.append((*start, stage))
    for stage in needed:
        scope = Scope(dockerfile, build.args)
        earlier: list[Instruction] = []
        final = stage is needed[-1]
        caches = [c for c in _CACHES if not auto or (c.auto and not (c.store and final))]
        for instruction in (i for part in chains[stage.index] for i in part.instructions):
            if instruction.keyword == "FROM":
                scope.enter_stage()
            elif instruction.keyword == "RUN" and instruction.stage == stage.index:
                place = _RunPlace(dockerfile, chains, stage, instruction, earlier, scope)
                found = [(c, d) for c in caches if (d := place.directory(c, auto=auto))]
                if found:
                    yield CacheMounts(
                        run=instruction,
                        flags=tuple(_flag(d, cache.sharing) for cache, d in found),
                        note="; ".join({cache.note: None for cache, _ in found if cache.note}),
                    )
            # What is in doubt stays as it was; a word that asks for it is in doubt too.
            with contextlib.suppress(NeedsFullBuild):
                scope.replay(instruction)
            earlier.append(instruction)


@dataclass(frozen=True, slots=True)
class _RunPlace:
    """A RUN, and what holds where it stands; `earlier` is all that comes before it in the image."""

    dockerfile: Dockerfile
    chains: Sequence[tuple[Stage, ...]]
    stage: Stage
    run: Instruction
    earlier: Sequence[Instruction]
    scope: Scope

    def directory(self, cache: _Cache, *, auto: bool) -> str | None:
        """Where the RUN keeps `cache`; None when it does not, or when that has to stay as it is."""
        words = [word for command in _commands(self.run) for word in command]
        elsewhere = cache.elsewhere.split()
        moved = {*elsewhere, *(place.partition("/")[0] for place in cache.places.split())}
        directory = self._place(cache)
        if (
            directory is None
            or not _uses(cache, self.run)
            or any(word.partition("=")[0] in moved for word in words)
            or any(self.scope.value(name) is not None for name in elsewhere)
            or (cache.images and not self._starts_from(cache.images.split()))
            or any("$" in target or _meet(target, directory) for target in _targets(self.run))
            or any(self._fills(i, directory) for i in (*self.earlier, *self.stage.instructions))
            or self._is_read(directory)
            or (cache.store and not self._only(cache))
            or (auto and not (self._given(cache, words) and self._untouched(words, directory)))
        ):
            return None
        return directory

    def _starts_from(self, images: Sequence[str]) -> bool:
        name = re.split(r"[:@]", self.chains[self.stage.index][0].base)[0]
        return re.sub(r"^(?:docker\.io/)?(?:library/)?", "", name) in images

    def _place(self, cache: _Cache) -> str | None:
        users = [i.value for i in self.earlier if i.keyword == "USER"]
        if users and users[-1] not in _ROOT:
            return None  # its HOME is not known, and a cache mount is root's
        for place in cache.places.split():
            name, _, rest = place.partition("/")
            value = self.scope.value(name) if name else ""
            value = _DEFAULTS.get(name) if value is None else value
            if value is not None:
                path = f"{value}/{rest}".rstrip("/")
                return path if _PLAIN.fullmatch(value if name else path) else None
        return None

    def _fills(self, instruction: Instruction, directory: str) -> bool:
        """Whether it may copy to the directory, or to something in it."""
        if instruction.keyword not in ("ADD", "COPY"):
            return False
        goal = instruction.arguments[-1] if instruction.arguments else "$"
        try:
            return f"{self.scope.path(self.scope.expand(goal))}/".startswith(f"{directory}/")
        except NeedsFullBuild:
            return "$" in goal

    def _is_read(self, directory: str) -> bool:
        """Whether another stage takes something out of the directory, or all that it is in."""
        return any(
            (origin := self.dockerfile.stage(name)) is not None
            and self.stage in self.chains[origin.index]
            and _meet(_certain(source), directory)
            for instruction in self.dockerfile.instructions
            for name, source in _taken(instruction)
        )

    def _only(self, cache: _Cache) -> bool:
        """Whether no other step of the image can have filled the store, or may read it."""
        runs = [i for i in self.earlier if i.keyword == "RUN"]
        used = [{each.programs for each in _CACHES if _uses(each, run)} for run in runs]
        return (
            [i for i in self.stage.instructions if i.keyword == "RUN"][-1] is self.run
            and sum(self.stage in chain for chain in self.chains) == 1
            and all(programs and cache.programs not in programs for programs in used)
        )

    def _given(self, cache: _Cache, words: Sequence[str]) -> bool:
        name, _, value = cache.given.partition("=")
        here = {word for word in words if word.startswith(f"{name}=")}
        return not name or here == {cache.given} or (not here and self.scope.value(name) == value)

    def _untouched(self, words: Sequence[str], directory: str) -> bool:
        """Whether the RUN's own words leave the directory alone: a mount point cannot be removed,
        and what is copied from there would be other builds' too."""
        home = self.scope.value("HOME") or _DEFAULTS["HOME"]
        for word in words:
            path = re.sub(r"^(?:~|\$HOME|\$\{HOME\})(?=/|$)", lambda _: home, word)
            if path.startswith("/") and path.strip("/") and _meet(_certain(path), directory):
                return False
            if "rm" in words and ("$" in path or re.match(r"\.\w", path)):
                return False
        return True


def _taken(instruction: Instruction) -> Iterator[tuple[str, str]]:
    """What an instruction takes from elsewhere: names of stages or images, and paths there."""
    if name := instruction.flag("from"):
        yield from ((name, source) for source in instruction.arguments[:-1])
    for mount in instruction.mounts:
        if name := mount.get("from"):
            yield name, mount.get("source", mount.get("src", "/"))


def _meet(one: str, other: str) -> bool:
    """Whether one of two directories is or contains the other."""
    one, other = (f"{path.rstrip('/')}/" for path in (one, other))
    return one.startswith(other) or other.startswith(one)


def _certain(path: str) -> str:
    """The directory above the first wildcard or variable, as an absolute path."""
    found = re.search(r"[*?\[$\\]", path)
    return joined("/", path[: found.start()].rpartition("/")[0] if found else path)


def _uses(cache: _Cache, run: Instruction) -> bool:
    return any(_calls(cache, command) for command in _commands(run))


def _calls(cache: _Cache, command: Sequence[str]) -> bool:
    words = list(itertools.dropwhile(_LEADS.match, command))
    if words[1:2] == ["-m"] and "python" in words[0]:
        words = words[2:]
    program, rest = words[0].rpartition("/")[2] if words else "", words[1:]
    if program not in cache.programs.split():
        return cache.programs == "ccache" and any("=ccache" in word for word in command)
    verbs = cache.verbs.split()
    bare = program == "yarn" and all(word.startswith("-") for word in rest)
    return not verbs or bare or not set(verbs).isdisjoint(rest[:5])


def _commands(run: Instruction) -> Iterator[list[str]]:
    """The commands that a RUN's shell, or the shell that it names, would start; none where they
    cannot be told apart."""
    with contextlib.suppress(NeedsFullBuild, ValueError):
        argv, text = json_form(run), run.value
        if argv is not None:
            if not (argv[1:2] and re.fullmatch(r"-\w*c", argv[1])):
                yield argv
                return
            text = " ".join(argv[2:3])
        elif run.heredocs and re.fullmatch(r"<<-?\S+", text):
            text = run.heredocs[0].text
            if text.startswith("#!") and not re.match(r"#!.*\b(?:ba|da|a|z)?sh\b", text):
                return
        text = re.sub(r"^\s*#.*$", "", text, flags=re.MULTILINE).replace("\\\n", " ")
        lexer = shlex.shlex(text, posix=True, punctuation_chars="();<>|&\n")
        lexer.whitespace, lexer.whitespace_split, lexer.commenters = " \t\r", True, ""
        separators = set("();|&\n")
        for ends, group in itertools.groupby(list(lexer), separators.issuperset):
            if not ends:
                yield list(group)
