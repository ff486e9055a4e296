"""Named contexts of a build that are directories: what of them counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from devloop.app.project_paths import NamedContextReads
from devloop.base.cancel import Cancel
from devloop.config.builds import Build
from devloop.config.schema import Deploy, Service
from devloop.errors import Code, DevloopError
from devloop.watch.source import ServiceSource

if TYPE_CHECKING:
    from pathlib import Path

    from devloop.model import Scan


def write(path: Path, text: str = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


class Sources:
    """A service whose Dockerfile copies from the named context `shared`."""

    def __init__(self, root: Path, dockerfile: str) -> None:
        self.root = root
        write(root / "api/Dockerfile", dockerfile)
        write(root / "api/app.py")
        for name in ("lib/a.py", "docs/a.md", ".git/index", "lib/.git", ".devloop/state", "a.pyc"):
            write(root / "shared" / name)
        self.source = self.another()

    def another(self, **contexts: str) -> ServiceSource:
        build = Build(
            context=self.root / "api",
            dockerfile=self.root / "api/Dockerfile",
            contexts={"shared": str(self.root / "shared")} | contexts,
        )
        service = Service(name="web", image="web", build=build, deploy=Deploy(workload_name="web"))
        return ServiceSource(
            service, self.root, reads_of=lambda name: NamedContextReads(build, name)
        )

    def look(self, *hints: Path) -> Scan:
        return self.source.scan(frozenset(hints) if hints else None, Cancel())

    def changes(self, name: str) -> tuple[str, ...]:
        """What a save of `shared/NAME` changes; its event must be worth a look."""
        before = self.look()
        path = write(self.root / "shared" / name, f"{name} saved")
        after = self.look(path) if self.source.concerns(path) else self.look()
        assert (after.fingerprint == before.fingerprint) == (not after.changed)
        assert self.source.concerns(path) == bool(after.changed)
        assert (after.recipe == before.recipe) == (not after.changed)
        return after.changed


ALL = "FROM scratch\nCOPY --from=shared . /\n"


@pytest.mark.parametrize(
    ("dockerfile", "name", "counts"),
    [
        (ALL, "lib/a.py", True),
        (ALL, "lib/new.py", True),
        (ALL, "a.pyc", False),
        (ALL, ".git/index", True),
        (ALL, ".devloop/state", False),
        (ALL, "lib/a.py~", False),
        ("FROM scratch\nCOPY --from=shared lib /\n", "lib/a.py", True),
        ("FROM scratch\nCOPY --from=shared lib /\n", "lib/.git", True),
        ("FROM scratch\nCOPY --from=shared lib /\n", "docs/a.md", False),
        ("FROM scratch\nCOPY --from=shared lib /\n", ".git/index", False),
        ("FROM a\nRUN --mount=from=shared,target=/s,source=lib x\n", "docs/a.md", False),
        ("FROM a\nRUN --mount=from=shared,target=/s x\n", "docs/a.md", True),
        ("FROM shared\n", "docs/a.md", True),
        ("FROM a AS shared\n", "docs/a.md", True),
        ("FROM a\nARG B\nRUN --mount=from=$B,target=/s x\n", "docs/a.md", True),
        ("FROM a\nCOPY lib /\n", "lib/a.py", False),
    ],
)
def test_what_counts(tmp_path: Path, dockerfile: str, name: str, counts: bool) -> None:
    write(tmp_path / "shared/.dockerignore", "*.pyc\n")
    found = Sources(tmp_path, dockerfile).changes(name)
    assert found == ((f"shared/{name}",) if counts else ())


def test_its_own_ignore_file_and_no_other_rules_it(tmp_path: Path) -> None:
    sources = Sources(tmp_path, ALL)
    write(tmp_path / "api/.dockerignore", "docs\n")
    assert sources.changes("docs/a.md")
    ignoring = write(tmp_path / "shared/.dockerignore", "docs\n")
    assert sources.source.reshapes(ignoring)
    sources.look(ignoring)
    assert not sources.changes("docs/a.md")


def test_its_directories_are_watched(tmp_path: Path) -> None:
    sources = Sources(tmp_path, "FROM scratch\nCOPY --from=shared lib /\n")
    sources.look()
    found = sources.source.directories()
    assert {str(tmp_path / "shared"), str(tmp_path / "shared/lib")} <= found
    assert str(tmp_path / "shared/docs") not in found
    assert str(tmp_path / "shared") in sources.source.roots()
    # Another Dockerfile reads something else.
    file = write(tmp_path / "api/Dockerfile", ALL)
    assert sources.source.reshapes(file)
    assert str(tmp_path / "shared/docs") in sources.source.directories()


def test_a_write_during_a_build_is_not_the_builds(tmp_path: Path) -> None:
    sources = Sources(tmp_path, ALL)
    scan = sources.look()
    assert sources.source.written_since(scan) == frozenset()
    file = write(tmp_path / "shared/lib/a.py", "y")
    assert sources.source.written_since(scan) is None
    file.write_text("x")
    # The build may have read the other bytes.
    assert sources.look().fingerprint == scan.fingerprint
    assert sources.source.written_since(scan) is None


def test_what_is_no_directory_counts_by_what_it_says(tmp_path: Path) -> None:
    sources = Sources(tmp_path, ALL)
    index = write(tmp_path / "layout/index.json", "{}")

    def fingerprint(**contexts: str) -> object:
        return sources.another(**contexts).scan(None, Cancel()).fingerprint

    layout = "oci-layout://layout:v1"
    found = [fingerprint(base=x) for x in ("docker-image://a", "docker-image://b", layout)]
    index.write_text("{ }")
    found.append(fingerprint(base=layout))
    assert len(set(found)) == len(found)
    assert sources.another(base=layout).concerns(index)


def test_one_that_is_not_there_is_named(tmp_path: Path) -> None:
    sources = Sources(tmp_path, ALL)
    with pytest.raises(DevloopError) as caught:
        sources.another(x=str(tmp_path / "shard")).scan(None, Cancel())
    found = caught.value.diagnosis
    assert (found.code, found.message) == (Code.CONFIG_CONTEXT_MISSING, "shard is not a directory")
    assert found.cause == "services.web.build.contexts.x names it"
    assert found.suggestions == ("did you mean shared?",)
    sources.look()
