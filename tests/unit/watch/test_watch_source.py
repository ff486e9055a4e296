"""One service's fingerprint: what moves it, what does not, and what is said when it cannot be."""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from devloop.base.cancel import Cancel
from devloop.config.builds import Build
from devloop.config.schema import Deploy, Service
from devloop.errors import Code, DevloopError
from devloop.manifests.files import FilesRendering
from devloop.model import RenderingInputs
from devloop.watch.source import ServiceSource

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from devloop.errors import Diagnosis
    from devloop.model import Fingerprint, ManifestObject, Scan


def write(path: Path, text: str = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path / "api/Dockerfile", "FROM scratch")
    write(tmp_path / "api/src/app.py")
    write(tmp_path / "api/.dockerignore", "node_modules\n")
    write(tmp_path / "api/node_modules/a.js")
    write(tmp_path / "k8s/web.yaml")
    write(tmp_path / "pip.conf")
    return tmp_path


def source(
    root: Path, *, image: str = "shop/web", deploy: Any = None, **build: Any
) -> ServiceSource:
    build.setdefault("context", root / "api")
    build.setdefault("dockerfile", root / "api/Dockerfile")
    kept = {"workload_name": "web", "manifests": (f"{root}/k8s/*.yaml",)} | (deploy or {})
    made = Service(name="web", image=image, build=Build(**build), deploy=Deploy(**kept))
    return ServiceSource(made, root, FilesRendering(made.deploy.manifests))


def look(source: ServiceSource, *hints: Path) -> Scan:
    return source.scan(frozenset(hints) if hints else None, Cancel())


def fingerprint(root: Path, **options: Any) -> Fingerprint:
    return look(source(root, **options)).fingerprint


LOG = frozenset({"api/app.log"})


def test_the_content_of_what_keeps_changing_is_that_of_the_fingerprint(root: Path) -> None:
    log = write(root / "api/app.log", "one")
    looked = source(root)
    look(looked)
    log.write_text("two")
    scan = looked.scan(frozenset({root / "api/src/app.py"}), Cancel(), LOG)
    (mtime, data), digest = scan.kept["app.log"], scan.snapshot.entries["app.log"].digest
    assert (mtime, data) == (int(log.stat().st_mtime), [b"two"])
    assert digest == hashlib.sha256(b"two").hexdigest()
    # A build of it goes on when that changes once more, and with nothing else.
    log.write_text("three")
    assert looked.written_since(scan) == frozenset({"app.log"})
    assert scan.passing == frozenset({"app.log"})
    write(root / "api/src/app.py", "y")
    assert looked.written_since(scan) == frozenset({"app.log", "src/app.py"})
    assert look(looked).kept == {}


def test_what_comes_and_goes_may_come_while_it_is_built_and_what_is_too_big_is_not_kept(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("devloop.watch.scan._MOST_KEPT", 4)
    looked = source(root)
    assert looked.scan(None, Cancel(), LOG).passing == frozenset({"app.log"})
    write(root / "api/app.log", "12345")
    scan = looked.scan(None, Cancel(), LOG)
    assert (scan.passing, scan.kept) == (frozenset(), {})
    assert scan.snapshot.entries["app.log"].size == 5


@pytest.mark.parametrize(
    "options",
    [
        {"image": "shop/api"},
        {"target": "dev"},
        {"args": {"A": "1"}},
        {"platform": "linux/arm64"},
        {"secrets": ("id=pip",)},
        {"ssh": ("default",)},
        {"ignore": ("*.md",)},
        {"builder": "classic"},
        {"cache": "auto"},
        {"builder": "command", "command": ("./build.sh",)},
    ],
    ids=lambda options: next(iter(options)),
)
def test_config_that_shapes_the_image_is_in_the_build_fingerprint(
    root: Path, options: dict[str, Any]
) -> None:
    plain, other = fingerprint(root), fingerprint(root, **options)
    assert plain.build != other.build
    assert plain.deploy == other.deploy


@pytest.mark.parametrize("key", ["workload_kind", "workload_name", "container"])
def test_config_that_shapes_the_deploy_is_in_the_deploy_fingerprint(root: Path, key: str) -> None:
    plain, other = fingerprint(root), fingerprint(root, deploy={key: "statefulset"})
    assert plain.build == other.build
    assert plain.deploy != other.deploy


def test_what_shapes_neither(root: Path) -> None:
    plain = fingerprint(root, ssh=("default=/run/a.sock",))
    same = {"timeout": 5.0, "replace": "rolling", "on_failure": "keep"}
    assert fingerprint(root, ssh=("default=/run/b.sock",), deploy=same) == plain


def test_the_same_files_elsewhere_have_the_same_fingerprint(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root / "api", tmp_path / "copy/api")
    shutil.copytree(root / "k8s", tmp_path / "copy/k8s")
    assert fingerprint(tmp_path / "copy") == fingerprint(root)


def test_changed_names_paths_as_the_user_would(root: Path) -> None:
    made = source(root, secrets=(f"id=pip,src={root}/pip.conf",))
    assert look(made).changed == ()
    paths = [root / "api/src/app.py", root / "pip.conf", root / "k8s/new.yaml"]
    for path in paths:
        write(path, "new")
    assert look(made, *paths).changed == ("api/src/app.py", "k8s/new.yaml", "pip.conf")
    assert look(made, *paths).changed == ()
    (root / "k8s/new.yaml").unlink()
    assert look(made, root / "k8s/new.yaml").changed == ("k8s/new.yaml",)


def test_an_ignored_dockerfile_still_counts(root: Path) -> None:
    write(root / "api/.dockerignore", "*\n!src")
    made = source(root)
    before = look(made)
    assert list(before.snapshot.entries) == ["src", "src/app.py"]
    assert before.files == 1
    write(root / "api/Dockerfile", "FROM busybox")
    after = look(made, root / "api/Dockerfile")
    assert after.snapshot == before.snapshot
    assert after.fingerprint.build != before.fingerprint.build
    assert after.changed == ("api/Dockerfile",)


def test_an_edited_ignore_file_holds_from_the_next_scan_on(root: Path) -> None:
    made = source(root)
    look(made)
    path = write(root / "api/.dockerignore", "src\n")
    assert "node_modules/a.js" in look(made, path).snapshot.entries
    assert not made.concerns(root / "api/src/app.py")
    # The Dockerfile's own ignore file beats the context's.
    path = write(root / "api/Dockerfile.dockerignore", "*.js\n*\n")
    assert dict(look(made, path).snapshot.entries) == {}
    assert not made.concerns(root / "api/a.py")


def test_a_bad_ignore_pattern_has_a_place_and_can_be_mended(root: Path) -> None:
    made = source(root)
    before = look(made)
    path = write(root / "api/.dockerignore", "node_modules\n[x\n")
    write(root / "api/src/app.py", "two")
    with pytest.raises(DevloopError) as raised:
        look(made, path, root / "api/src/app.py")
    assert raised.value.code == "config/value"
    assert str(raised.value.diagnosis.location) == "api/.dockerignore:2:1"
    # The last good rules go on telling what to watch.
    assert not made.concerns(root / "api/node_modules/a.js")
    write(path, "node_modules\n")
    after = look(made, path)
    assert after.changed == ("api/src/app.py",)
    assert after.fingerprint != before.fingerprint


def test_a_missing_dockerfile_is_told_with_the_nearest_name(root: Path) -> None:
    (root / "api/Dockerfile").rename(root / "api/dockerfile")
    made = source(root)
    with pytest.raises(DevloopError) as raised:
        look(made)
    assert raised.value.code == "config/dockerfile-missing"
    assert raised.value.diagnosis.suggestions == ("did you mean api/dockerfile?",)
    (root / "api/dockerfile").rename(root / "api/Dockerfile")
    assert look(made, root / "api/other").files == 3
    # A command brings its own.
    (root / "api/Dockerfile").unlink()
    look(source(root, builder="command", command=("make",)))


def test_a_missing_context_is_told_with_the_nearest_name(root: Path) -> None:
    made = source(root)
    look(made)
    (root / "api").rename(root / "apis")
    with pytest.raises(DevloopError) as raised:
        look(made)
    assert raised.value.code == "config/context-missing"
    assert raised.value.diagnosis.suggestions == ("did you mean apis?",)
    (root / "apis").rename(root / "api")
    assert look(made, root / "api/x").changed == ()


def test_a_rewrite_to_the_same_bytes_is_unchanged_for_the_loop_but_not_for_a_builder(
    root: Path,
) -> None:
    made = source(root)
    before = look(made)
    assert made.written_since(before) == frozenset()
    write(root / "api/src/app.py", "two")
    os.utime(root / "api/src/app.py", ns=(1, 1))
    assert made.written_since(before) == frozenset({"src/app.py"})
    # What the builder saw first is still news for the loop.
    assert look(made, root / "api/other").changed == ("api/src/app.py",)
    write(root / "api/src/app.py", "x")
    assert made.written_since(before) == frozenset({"src/app.py"})
    assert look(made, root / "api/other").fingerprint == before.fingerprint


@pytest.mark.parametrize(
    ("path", "concerned"),
    [
        ("api/src/app.py", True),
        ("api/src", True),
        ("api", True),
        (".", True),
        ("api/node_modules/a.js", False),
        ("api/node_modules", False),
        ("api/.git/index", False),
        ("api/.devloop/x", False),
        ("api/src/.app.py.swp", False),
        ("api/Dockerfile", True),
        ("api/Dockerfile.dockerignore", True),
        ("api/.dockerignore", True),
        ("pip.conf", True),
        ("pip.conf~", False),
        ("other", False),
        ("k8s", True),
        ("k8s/web.yaml", True),
        ("k8s/notes.txt", False),
        ("apis/x", False),
    ],
)
def test_which_paths_concern_a_service(root: Path, path: str, concerned: bool) -> None:
    made = source(root, secrets=(f"id=pip,src={root}/pip.conf",))
    look(made)
    assert made.concerns(root / path) is concerned


def test_a_directory_with_a_temporary_name_is_a_directory(root: Path) -> None:
    write(root / "api/4913/a.py")
    made = source(root)
    assert "4913/a.py" in look(made).snapshot.entries
    assert made.concerns(root / "api/4913")
    assert not made.concerns(root / "api/src/4913")


def test_which_directories_and_roots_to_watch(root: Path) -> None:
    write(root / "docker/web.Dockerfile")
    write(root / "api/.git/objects/x")
    made = source(root, dockerfile=root / "docker/web.Dockerfile")
    expected = {"api", "api/src", "docker", "k8s"}
    assert {os.path.relpath(p, root) for p in made.directories()} == expected
    assert {os.path.relpath(p, root) for p in made.roots()} == {"api", "docker", "k8s"}
    shutil.rmtree(root / "api")
    assert os.fspath(root) in made.directories()
    assert made.roots() == {os.fspath(root)}


class Chart:
    """A rendering with values, whose own file names the others."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.version = "1"

    def inputs(self) -> RenderingInputs:
        named = (self.root / "chart.txt").read_text().split()
        patterns = (f"{self.root}/chart.txt", *(f"{self.root}/{name}" for name in named))
        return RenderingInputs(patterns=patterns, values=(self.version,))

    def objects(
        self, cancel: Cancel, notify: Callable[[Diagnosis], None] = ...
    ) -> tuple[ManifestObject, ...]:
        raise NotImplementedError


def test_a_rendering_may_change_its_inputs(root: Path) -> None:
    index = write(root / "chart.txt", "k8s/web.yaml")
    other = write(root / "more/other.yaml")
    chart = Chart(root)
    build = Build(context=root / "api", dockerfile=root / "api/Dockerfile")
    service = Service(name="web", image="web", build=build, deploy=Deploy(workload_name="web"))
    made = ServiceSource(service, root, chart)
    first = look(made)
    assert not made.concerns(other)
    assert not made.reshapes(root / "k8s/web.yaml")
    write(index, "k8s/web.yaml more/*")
    assert made.reshapes(index)
    assert str(root / "more") in made.directories()
    assert made.concerns(other)
    second = look(made, index)
    assert second.changed == ("chart.txt", "more/other.yaml")
    write(other, "changed")
    third = look(made, other)
    chart.version = "2"
    fourth = look(made)
    prints = [scan.fingerprint.deploy for scan in (first, second, third, fourth)]
    assert len(set(prints)) == 4
    assert len({scan.fingerprint.build for scan in (first, second, third, fourth)}) == 1


def test_manifests_are_checked_once_for_each_content_and_before_anything_is_built(
    root: Path,
) -> None:
    asked: list[str] = []

    def check(_: Cancel) -> None:
        asked.append((root / "k8s/web.yaml").read_text())
        if asked[-1] == "wrong":
            raise DevloopError.of(Code.CONFIG_MANIFEST, "no manifest")

    build = Build(context=root / "api", dockerfile=root / "api/Dockerfile")
    deploy = Deploy(workload_name="web", manifests=(f"{root}/k8s/*",))
    service = Service(name="web", image="web", build=build, deploy=deploy)
    rendering = FilesRendering(deploy.manifests)
    made = ServiceSource(service, root, rendering, check=check)
    look(made)
    write(root / "api/src/app.py", "other")
    look(made)
    assert asked == ["x"]
    write(root / "k8s/web.yaml", "wrong")
    for _ in range(2):
        with pytest.raises(DevloopError, match="no manifest"):
            look(made)
    write(root / "k8s/web.yaml", "right")
    assert look(made).changed == ("k8s/web.yaml",)
    assert asked == ["x", "wrong", "wrong", "right"]


@pytest.mark.parametrize(
    ("option", "counts"),
    [
        ({"network": "host"}, True),
        ({"add_host": ("db:10.0.0.5",)}, True),
        ({"shm_size": "1g"}, True),
        ({"labels": {"a": "b"}}, True),
        ({"no_cache": True}, False),
        ({"pull": True}, False),
        ({"cache_from": ("r:1/c",), "cache_to": ("r:1/c",)}, False),
    ],
)
def test_what_shapes_the_image_belongs_to_the_recipe(
    root: Path, option: dict[str, Any], *, counts: bool
) -> None:
    service = source(root)._service
    other = replace(service, build=replace(service.build, **option))
    before, after = look(ServiceSource(service, root)), look(ServiceSource(other, root))
    assert (before.recipe != after.recipe) is counts


def test_a_base_image_that_moved_belongs_to_the_recipe_and_is_named(root: Path) -> None:
    service = source(root)._service
    bases: dict[str, str] = {}
    made = ServiceSource(service, root, bases=lambda _: bases)
    first = look(made)
    bases["python:3.13"] = "sha256:1"
    moved = look(made, root / "api/Dockerfile")
    assert moved.recipe != first.recipe
    assert moved.fingerprint.build != first.fingerprint.build
    assert moved.fingerprint.deploy == first.fingerprint.deploy
    assert moved.changed == ("base python:3.13",)
    assert look(made).changed == ()
    bases.clear()
    assert look(made).fingerprint == first.fingerprint


@pytest.mark.parametrize("link", ["api/Dockerfile", "k8s/web.yaml", "pip.conf"])
def test_what_a_link_leads_to_is_watched_as_the_link_is(
    root: Path, tmp_path_factory: pytest.TempPathFactory, link: str
) -> None:
    shared = tmp_path_factory.mktemp("shared")
    real, other = write(shared / "real", "FROM a"), write(shared / "more/other", "FROM b")
    hop = shared / "hop"
    hop.symlink_to("real")
    (root / link).unlink()
    (root / link).symlink_to(hop)
    build = Build(
        context=root / "api",
        dockerfile=root / "api/Dockerfile",
        secrets=(f"id=pip,src={root}/pip.conf",),
    )
    deploy = Deploy(workload_name="web", manifests=(f"{root}/k8s/*.yaml",))
    service = Service(name="web", image="web", build=build, deploy=deploy)
    made = ServiceSource(service, root, FilesRendering(deploy.manifests))
    first = look(made)
    assert made.concerns(real)
    assert made.concerns(hop)
    assert not made.concerns(other)
    assert {str(shared), str((root / link).parent)} <= made.directories()
    write(real, "FROM c")
    second = look(made, real)
    assert second.fingerprint != first.fingerprint
    assert second.changed == (link,)
    (root / link).unlink()
    (root / link).symlink_to(other)
    assert made.reshapes(root / link)
    assert made.concerns(other)
    assert str(other.parent) in made.directories()
