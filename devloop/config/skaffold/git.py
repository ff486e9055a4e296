"""The git repositories that a skaffold.yaml requires, as copies on this computer.

The rules are Skaffold's (pkg/skaffold/git/gitutil.go): a copy for each repository and ref, brought
to the newest commit once a run, unless `sync` is false; without a ref the branch is master, or else
main. Otherwise than there, a copy with uncommitted changes is left as it is: nobody's edit is lost.
Only git is run, and nothing of what it brings: no submodules, no hooks, no protocol that is a
command. What commands a fetched file names is as untrusted as those of any other file.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from devloop.base.cache_place import cache_directory
from devloop.base.cancel import Cancel
from devloop.base.lazy_dataclass import dataclass
from devloop.base.process import CannotRun, Overran, capture

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

CLONE_SECONDS = 600.0
ASK_SECONDS = 60.0
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
# Those that name another repository than the one that is meant.
_INHERITED = frozenset({"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX"})
_SAFE = {"GIT_TERMINAL_PROMPT": "0", "GIT_ALLOW_PROTOCOL": "file:git:http:https:ssh"}


class CannotFetch(Exception):  # noqa: N818 - told at the place that names the repository
    """The repository cannot be had; the text is for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GitSource:
    """`requires[].git`: `repo` as git takes it, `ref` a branch, a tag, a commit or "", `sync`
    whether a copy that is there is brought to the newest commit."""

    repo: str
    ref: str = ""
    sync: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class RepositoryCopy:
    """`directory` has the files; `kept` says why they are not the newest, "" for those that are."""

    directory: Path
    kept: str = ""


class Repositories:
    """Copies of repositories, each brought to the newest once in the life of this object."""

    def __init__(self) -> None:
        self._copies: dict[tuple[Path, GitSource], RepositoryCopy] = {}

    def copy(
        self, source: GitSource, beside: Path, env: Mapping[str, str], report: Callable[[str], None]
    ) -> RepositoryCopy:
        """The files of a repository. `beside` is the directory that a relative `repo` means;
        `report` gets a line before something takes long. Raises CannotFetch."""
        place = cache_directory(env) / "git"
        if (place, source) not in self._copies:
            self._copies[place, source] = _Fetch(source, place, beside, env, report).copy()
        return self._copies[place, source]


# A session reads its configuration anew after each edit of it.
OF_THIS_RUN = Repositories()


class _Fetch:
    def __init__(
        self,
        source: GitSource,
        place: Path,
        beside: Path,
        env: Mapping[str, str],
        report: Callable[[str], None],
    ) -> None:
        self._source = source
        self._place = place
        self._beside = beside
        self._env = {name: env[name] for name in env if name not in _INHERITED} | _SAFE
        self._report = report

    def copy(self) -> RepositoryCopy:
        source = self._source
        for text in (source.repo, source.ref):
            if text.startswith("-"):
                raise CannotFetch(f"{text!r} would be an option of git")
        try:
            with self._locked():
                directory = self._place / self._name()
                if not directory.is_dir():
                    self._clone(directory)
                elif source.sync:
                    return RepositoryCopy(directory=directory, kept=self._update(directory))
                return RepositoryCopy(directory=directory)
        except OSError as error:
            raise CannotFetch(f"{self._place}: {error.strerror or error}") from error

    def _name(self) -> str:
        made_from = json.dumps([self._source.repo, self._source.ref, self._local()])
        return hashlib.sha256(made_from.encode()).hexdigest()[:32]

    def _local(self) -> str:
        """What a relative path is relative to, "" for an address."""
        repo = self._source.repo
        return "" if Path(repo).is_absolute() or ":" in repo else str(self._beside)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        self._place.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._place, os.O_RDONLY | os.O_CLOEXEC)
        try:
            # Not everywhere (some network file systems): then two at once may each clone.
            with contextlib.suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _clone(self, directory: Path) -> None:
        """Clone beside `directory` first: what is cut off is no copy."""
        repo = self._source.repo
        self._report(f"cloning {repo}")
        ref = self._source.ref or self._default()
        with tempfile.TemporaryDirectory(prefix="new-", dir=self._place) as above:
            new = Path(above) / "copy"
            # A plain web server has no part of a history, and a commit is no branch.
            ways = (("--depth", "1", "--branch", ref), ("--branch", ref), ())
            for number, way in enumerate(ways):
                shutil.rmtree(new, ignore_errors=True)
                words = ["clone", "--quiet", "--no-recurse-submodules", "--template=", *way]
                try:
                    self._git([*words, "--", repo, str(new)], self._beside)
                    break
                except CannotFetch:
                    if way == ways[-1]:
                        raise
                    if number == 0:
                        self._git(["ls-remote", "--", repo, "HEAD"], self._beside, ASK_SECONDS)
            if not way:
                self._git(["checkout", "--quiet", "--detach", ref, "--"], new)
            new.replace(directory)

    def _default(self) -> str:
        words = ["ls-remote", "--heads", "--", self._source.repo, "master", "main"]
        found = self._git(words, self._beside, ASK_SECONDS)
        for name in ("master", "main"):
            if f"refs/heads/{name}\n" in f"{found}\n":
                return name
        raise CannotFetch("it has no branch master or main: name one as `ref`")

    def _update(self, directory: Path) -> str:
        """Bring a copy to the newest commit, or say why it stays as it is."""
        ref = self._source.ref
        head = self._git(["rev-parse", "HEAD"], directory).strip()
        if _COMMIT.fullmatch(ref) and head == ref:
            return ""
        if self._git(["status", "--porcelain", "--untracked-files=no"], directory).strip():
            return "it has uncommitted changes"
        self._git(["fetch", "--quiet", "origin", ref or self._default()], directory)
        self._git(["reset", "--quiet", "--hard", "FETCH_HEAD"], directory)
        return ""

    def _git(self, words: list[str], cwd: Path, limit: float = CLONE_SECONDS) -> str:
        """What git prints. Raises CannotFetch."""
        argv = ["git", "-c", f"core.hooksPath={os.devnull}", "-C", str(cwd), *words]
        try:
            done = capture(argv, cancel=Cancel(), limit=limit, env=self._env)
        except CannotRun as error:
            raise CannotFetch(f"git cannot be run: {error.reason}") from error
        except Overran as error:
            raise CannotFetch(f"`git {words[0]}` took longer than {limit:.0f} s") from error
        if done.status:
            lines = done.err.strip().splitlines() or [f"git ended with {done.status}"]
            # Those after it are what to look at.
            raise CannotFetch(next((ln for ln in lines if ln.startswith("fatal:")), lines[0]))
        return done.out
