"""`requires: git` of a skaffold.yaml with a real git: cloned, cached, brought to the newest."""

from __future__ import annotations

import functools
import http.server
import os
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from devloop.config.problems import Problems
from devloop.config.skaffold.git import Repositories
from devloop.config.skaffold.source import read_skaffold
from devloop.config.skaffold.tree import at, entries

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devloop.config.skaffold.source import SkaffoldFile

REMOTE = """\
apiVersion: skaffold/v4beta13
kind: Config
build:
  artifacts:
    - image: NAME
      context: .
      hooks: {before: [{command: [sh, -c, "touch $HOME/ran"]}]}
"""


def git(directory: Path, *words: str) -> str:
    who = {"EMAIL": "a@b.c", "GIT_AUTHOR_NAME": "a", "GIT_COMMITTER_NAME": "a", "HOME": "/nowhere"}
    done = subprocess.run(
        ["git", *words], cwd=directory, env=os.environ | who, check=True, capture_output=True
    )
    return done.stdout.decode().strip()


@dataclass
class Project:
    """A skaffold.yaml that requires `remote`, a repository with one commit."""

    root: Path
    remote: Path
    said: list[str] = field(default_factory=list)

    def commit(self, name: str) -> str:
        (self.remote / "skaffold.yaml").write_text(REMOTE.replace("NAME", name))
        git(self.remote, "add", ".")
        git(self.remote, "commit", "-qm", name)
        return git(self.remote, "rev-parse", "HEAD")

    def requires(self, options: str) -> str:
        text = (
            "apiVersion: skaffold/v4beta13\nkind: Config\n"
            f"requires:\n  - git: {{{options}}}\n"
            "build: {artifacts: [{image: own}]}\n"
        )
        self.root.mkdir(exist_ok=True)
        (self.root / "skaffold.yaml").write_text(text)
        return text

    @property
    def env(self) -> dict[str, str]:
        return {**os.environ, "XDG_CACHE_HOME": str(self.root.parent / "cache")}

    def read(self, options: str) -> tuple[SkaffoldFile | None, list[tuple[str, str | None]]]:
        """As a new run of devloop reads it; and what is wrong."""
        problems = Problems()
        found = read_skaffold(
            self.root / "skaffold.yaml",
            "skaffold.yaml",
            self.requires(options),
            show=str,
            env=self.env,
            profiles=(),
            command="dev",
            context="kind",
            supports=lambda _: True,
            problems=problems,
            report=self.said.append,
            repositories=Repositories(),
        )
        return found, [(each.message, each.cause) for each in problems.sorted()]

    def services(self, options: str) -> list[str]:
        found, wrong = self.read(options)
        assert found is not None, wrong
        return names(found)


def names(found: SkaffoldFile) -> list[str]:
    """The services."""
    return [each.key for each in entries(at(found.root, "services"))]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    project = Project(tmp_path / "own", tmp_path / "remote")
    project.remote.mkdir()
    (project.remote / "Dockerfile").write_text("FROM scratch\n")
    git(project.remote, "init", "-qb", "main")
    project.commit("one")
    return project


def test_it_is_cloned_once_and_brought_to_the_newest_each_run(project: Project) -> None:
    options = f"repo: 'file://{project.remote}'"
    assert project.services(options) == ["one", "own"]
    project.commit("two")
    assert project.services(options) == ["two", "own"]
    assert project.said == [f"cloning file://{project.remote}"]


def test_with_sync_false_the_copy_stays(project: Project) -> None:
    options = "repo: ../remote, sync: false"
    assert project.services(options) == ["one", "own"]
    project.commit("two")
    assert project.services(options) == ["one", "own"]
    assert project.services("repo: ../remote") == ["two", "own"]


def test_a_ref_is_a_branch_a_tag_or_a_commit(project: Project) -> None:
    first = git(project.remote, "rev-parse", "HEAD")
    git(project.remote, "tag", "v1")
    git(project.remote, "checkout", "-qb", "other")
    project.commit("two")
    git(project.remote, "checkout", "-q", "main")
    for ref, name in (("other", "two"), ("v1", "one"), (first, "one"), ("''", "one")):
        for _ in range(2):
            options = f"repo: 'file://{project.remote}', ref: {ref}"
            assert project.services(options) == [name, "own"], ref


def test_uncommitted_changes_of_a_copy_are_not_lost(project: Project) -> None:
    options = f"repo: 'file://{project.remote}', path: skaffold.yaml"
    found, _ = project.read(options)
    assert found is not None
    (copy,) = (file for file in found.files if "cache" in file.parts)
    copy.write_text(copy.read_text().replace("image: one", "image: mine"))
    project.commit("two")

    found, _ = project.read(options)

    assert found is not None
    assert names(found) == ["mine", "own"]
    (note,) = (each for each in found.notes if each.severity == "warning")
    assert "stays as it is: it has uncommitted changes" in note.message
    assert str(note.location) == "skaffold.yaml:4:5"


@pytest.fixture
def web_server(project: Project) -> Iterator[str]:
    """The address of the repository at a server that knows nothing of git."""
    git(project.remote, "update-server-info")
    handler = functools.partial(
        http.server.SimpleHTTPRequestHandler, directory=str(project.remote / ".git")
    )
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


def test_over_http(project: Project, web_server: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert project.services(f"repo: '{web_server}', ref: main") == ["one", "own"]
    project.commit("two")
    git(project.remote, "update-server-info")
    assert project.services(f"repo: '{web_server}', ref: main") == ["two", "own"]
    capfd.readouterr()


@pytest.mark.parametrize(
    ("options", "cause"),
    [
        ("repo: file:///nowhere", "does not appear to be a git repository"),
        ("repo: ../remote, ref: none", "none"),
        ("repo: 'ext::sh -c touch% ran'", "transport 'ext' not allowed"),
        ("repo: '--upload-pack=touch ran'", "would be an option of git"),
        ("repo: ../remote, ref: --help", "would be an option of git"),
    ],
)
def test_what_cannot_be_had_is_said_with_what_git_says(
    options: str, cause: str, project: Project
) -> None:
    found, ((message, why), *_) = project.read(options)
    assert found is None
    assert message.startswith("the required repository ")
    assert cause in (why or "")
    assert not (project.root / "ran").exists()
    cache = Path(project.env["XDG_CACHE_HOME"]) / "devloop" / "git"
    assert list(cache.iterdir() if cache.exists() else ()) == []


def test_nothing_of_it_runs_before_it_is_trusted(project: Project) -> None:
    project.requires(f"repo: 'file://{project.remote}'")
    (project.root / "Dockerfile").write_text("FROM scratch\n")
    home = project.root.parent / "home"
    home.mkdir()
    env = project.env | {"HOME": str(home), "DEVLOOP_TRUST": ""}

    def devloop(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "devloop", *words],
            cwd=project.root,
            env=env,
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
        )

    refused = devloop("build")
    shown = devloop("trust", "--list")

    assert refused.returncode == 4, refused.stdout
    assert "cloning file://" in refused.stderr
    assert "touch $HOME/ran" in refused.stderr + refused.stdout
    assert "touch $HOME/ran" in shown.stdout
    assert not (home / "ran").exists()
