"""Built images get devloop's supervisor in a layer and before their command."""

from __future__ import annotations

import json
import tarfile
from dataclasses import dataclass, field
from io import BytesIO
from typing import TYPE_CHECKING, Any, Literal

import pytest

from devloop.base.cancel import Cancel
from devloop.base.supervisor import PROGRAM, supervise
from devloop.builders import dev_image
from devloop.builders.dev_image import DevImages
from devloop.config.schema import Debug
from devloop.errors import Code, DevloopError
from devloop.model import Fingerprint, ImageRef, Scan, Snapshot
from devloop.registry.client import RegistryClient
from tests.unit.builders.kit import Notes
from tests.unit.builders.test_base_image import INDEX, publish, put, sha, tar
from tests.unit.registry.fake_registry import State, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from http.server import BaseHTTPRequestHandler

    from devloop.engine.ports import Reporter

OCI = "application/vnd.oci.image.manifest.v1+json"
DOCKER = "application/vnd.docker.distribution.manifest.v2+json"
SCAN = Scan(fingerprint=Fingerprint("1", ""), snapshot=Snapshot(entries={}, digest="", stamp=""))
UNDER = [*supervise()]


@dataclass
class Builds:
    """A builder of one image, a registry that has it, and the dev images made from it."""

    state: State
    host: str
    client: RegistryClient
    built: ImageRef = field(init=False)
    notes: Notes = field(default_factory=Notes)

    def __post_init__(self) -> None:
        self.give(Cmd=["python", "app.py"])
        self.images = self.new()

    def new(self, platform: str | None = "linux/amd64", debug: Debug | None = None) -> DevImages:
        return DevImages(self, self.client, platform, debug)

    def build(self, scan: Scan, reporter: Reporter, cancel: Cancel) -> ImageRef:
        return self.built

    def wrote(self, before: Scan, after: Scan) -> bool:
        return False

    def may_differ(self, before: Scan, after: Scan) -> bool:
        return before is not after

    def give(self, *layers: bytes, arch: str = "amd64", **config: Any) -> ImageRef:
        """The next image that is built."""
        layers = layers or (tar(("app.py", b"1")),)
        digest, _ = publish(self.state, "web", "t", *layers, arch=arch, **config)
        return self.give_digest(digest)

    def give_digest(self, digest: str) -> ImageRef:
        self.built = ImageRef(repository=f"{self.host}/web", tag="t", digest=digest)
        return self.built

    def make(self) -> ImageRef:
        return self.images.build(SCAN, self.notes, Cancel())

    def manifest(self, image: ImageRef) -> tuple[str, dict[str, Any]]:
        kind, body = self.state.manifests[f"web@{image.digest}"]
        return kind, json.loads(body)

    def config(self, image: ImageRef) -> dict[str, Any]:
        digest = self.manifest(image)[1]["config"]["digest"]
        found: dict[str, Any] = json.loads(self.state.blobs[digest])
        return found

    def command(self, image: ImageRef) -> tuple[Any, Any]:
        settings = self.config(image)["config"]
        return settings.get("Entrypoint"), settings.get("Cmd")

    def uploads(self) -> int:
        return sum(method == "POST" for method, _, _ in self.state.requests)

    def reasons(self) -> list[str]:
        assert {(d.code, d.severity) for d in self.notes.diagnostics} <= {
            (Code.BUILD_NO_SUPERVISOR, "info")
        }
        return [d.message.partition(": ")[2] for d in self.notes.diagnostics]


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> Iterator[Builds]:
    programs = {"linux/amd64": b"for amd64", "linux/arm64": b"for arm64"}
    monkeypatch.setattr(dev_image, "program", programs.get)
    state = State()
    with serving(state) as host:
        client = RegistryClient(host, lookup=lambda _: None)
        try:
            yield Builds(state=state, host=host, client=client)
        finally:
            client.close()


def entries(blob: bytes) -> list[tuple[str, str, bytes]]:
    with tarfile.open(fileobj=BytesIO(blob)) as archive:
        return [
            (
                found.name,
                f"{found.mode:o}",
                file.read() if (file := archive.extractfile(found)) else b"",
            )
            for found in archive
        ]


@pytest.mark.parametrize(
    ("config", "entrypoint", "command"),
    [
        ({"Entrypoint": ["app"]}, [*UNDER, "app"], None),
        ({"Cmd": ["app", "-x"]}, UNDER, ["app", "-x"]),
        ({"Entrypoint": ["app"], "Cmd": ["-x"]}, [*UNDER, "app"], ["-x"]),
        ({"Cmd": ["/bin/sh", "-c", "app -x"]}, UNDER, ["/bin/sh", "-c", "app -x"]),
        ({"Entrypoint": [], "Cmd": ["app"]}, UNDER, ["app"]),
        ({"Entrypoint": ["tini", "--"], "Cmd": ["app"]}, [*UNDER, "tini", "--"], ["app"]),
    ],
)
def test_the_command_is_supervised(
    builds: Builds, config: dict[str, Any], entrypoint: list[str], command: list[str] | None
) -> None:
    builds.give(**config)
    made = builds.make()
    assert builds.command(made) == (entrypoint, command)
    assert made.supervisor == tuple(UNDER)
    assert builds.reasons() == []


@pytest.mark.parametrize(
    ("signal", "option"),
    [
        ("SIGQUIT", ["--stop-signal", "3"]),
        ("QUIT", ["--stop-signal", "3"]),
        ("3", ["--stop-signal", "3"]),
        ("SIGRTMIN+3", ["--stop-signal", "37"]),
        ("SIGTERM", []),
        ("15", []),
        ("", []),
        ("what is this", []),
    ],
)
def test_the_supervisor_knows_the_image_s_stop_signal(
    builds: Builds, signal: str, option: list[str]
) -> None:
    builds.give(Cmd=["app"], StopSignal=signal)
    made = builds.make()
    assert made.supervisor == (PROGRAM, "supervise", *option, "--")
    assert builds.command(made) == ([*made.supervisor], ["app"])
    assert builds.config(made)["config"]["StopSignal"] == signal


@pytest.mark.parametrize(
    ("kind", "layer"),
    [
        (OCI, "application/vnd.oci.image.layer.v1.tar"),
        (DOCKER, "application/vnd.docker.image.rootfs.diff.tar"),
    ],
)
def test_it_is_an_image_of_the_same_kind_with_one_layer_more(
    builds: Builds, kind: str, layer: str
) -> None:
    settings: dict[str, Any] = {
        "Env": ["A=1"],
        "User": "app",
        "WorkingDir": "/app",
        "Healthcheck": {"Test": ["x"]},
    }
    _, plain = builds.manifest(builds.give(Cmd=["app"], **settings))
    builds.give_digest(put(builds.state, "web", "t", kind, {**plain, "mediaType": kind}))
    made = builds.make()
    found, manifest = builds.manifest(made)
    assert (found, manifest["mediaType"]) == (kind, kind)
    assert manifest["layers"][:-1] == plain["layers"]
    top = manifest["layers"][-1]
    assert top["mediaType"] == layer
    config = builds.config(made)
    assert config["rootfs"]["diff_ids"][-1] == top["digest"]
    assert len(config["rootfs"]["diff_ids"]) == len(manifest["layers"]) == len(config["history"])
    assert settings.items() <= config["config"].items()
    assert entries(builds.state.blobs[top["digest"]]) == [
        (".devloop", "755", b""),
        (".devloop/agent", "755", b"for amd64"),
    ]


def test_the_built_image_stays_as_it_is(builds: Builds) -> None:
    before = dict(builds.state.manifests)
    made = builds.make()
    assert (made.repository, made.tag) == (builds.built.repository, "t-dev")
    assert before.items() <= builds.state.manifests.items()
    assert set(builds.state.manifests) - set(before) == {"web@t-dev", f"web@{made.digest}"}


def test_the_same_built_image_gives_the_same(builds: Builds) -> None:
    made = builds.make()
    assert builds.make() == made
    builds.state.manifests.pop(f"web@{made.tag}", None)
    builds.state.manifests.pop(f"web@{made.digest}", None)
    assert builds.make() == made
    assert any(made.tag in name or made.digest in name for name in builds.state.manifests)
    builds.images = builds.new()
    assert builds.make() == made


def test_the_layer_is_sent_once_a_session(builds: Builds) -> None:
    builds.make()
    assert builds.uploads() == 2
    builds.give(Cmd=["another"])
    builds.make()
    assert builds.uploads() == 3


def test_a_registry_that_lost_the_layer_gets_it_again(builds: Builds) -> None:
    _, manifest = builds.manifest(builds.make())
    layer = manifest["layers"][-1]["digest"]
    del builds.state.blobs[layer]

    def lost(request: BaseHTTPRequestHandler) -> bool:
        refused = request.command == "PUT" and "/manifests/" in request.path
        refused = refused and layer not in builds.state.blobs
        if refused:
            request.answer(404, b'{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN"}]}')  # type: ignore[attr-defined]
        return refused

    builds.state.fault = lost
    builds.give(Cmd=["another"])
    assert builds.make().supervisor
    assert layer in builds.state.blobs
    assert builds.reasons() == []


def test_an_architecture_has_its_own_program(builds: Builds) -> None:
    builds.give(arch="arm64", Cmd=["app"])
    _, manifest = builds.manifest(builds.make())
    assert entries(builds.state.blobs[manifest["layers"][-1]["digest"]])[-1][2] == b"for arm64"


@pytest.mark.parametrize("platform", ["linux/amd64", "linux/arm64", "linux/arm64/v8"])
def test_an_index_gives_the_image_for_the_nodes(builds: Builds, platform: str) -> None:
    builds.give_digest(index(builds))
    builds.images = builds.new(platform)
    made = builds.make()
    assert builds.config(made)["architecture"] == platform.split("/")[1]
    assert made.supervisor


@pytest.mark.parametrize("platform", [None, "linux/riscv64"])
def test_an_index_without_the_nodes_platform_stays_as_it_is(
    builds: Builds, platform: str | None
) -> None:
    builds.give_digest(index(builds))
    builds.images = builds.new(platform)
    assert builds.make() is builds.built
    assert builds.reasons() == ["the image is for several platforms"]


def index(builds: Builds) -> str:
    found = [
        {
            "digest": builds.give(arch=arch, Cmd=["app"]).digest,
            "platform": {"os": "linux", "architecture": arch},
        }
        for arch in ("amd64", "arm64")
    ]
    found.append({"digest": sha(b""), "platform": {"os": "unknown", "architecture": "unknown"}})
    return put(builds.state, "web", "t", INDEX, {"mediaType": INDEX, "manifests": found})


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({}, "the image has no command"),
        ({"Entrypoint": None, "Cmd": None}, "the image has no command"),
        ({"Cmd": ["/init"]}, "/init has to be process 1"),
        ({"Entrypoint": ["/init"], "Cmd": ["app"]}, "/init has to be process 1"),
        ({"arch": "riscv64", "Cmd": ["app"]}, "there is no supervisor for linux/riscv64"),
    ],
)
def test_what_cannot_be_supervised_is_deployed_as_it_was_built(
    builds: Builds, config: dict[str, Any], reason: str
) -> None:
    builds.give(**config)
    before = dict(builds.state.manifests)
    assert builds.make() is builds.built
    assert builds.built.supervisor == ()
    assert builds.make() is builds.built
    assert builds.reasons() == [reason]
    assert builds.state.manifests == before


def test_an_image_in_no_registry_is_deployed_as_it_was_built(builds: Builds) -> None:
    builds.give_digest("")
    assert builds.make() is builds.built
    assert builds.reasons() == ["it is in no registry"]
    assert builds.state.requests == []


def test_an_image_that_the_registry_does_not_have_is_deployed_as_it_was_built(
    builds: Builds,
) -> None:
    builds.give_digest(sha(b"gone"))
    assert builds.make() is builds.built
    assert builds.reasons() == ["the registry does not have the image any more"]


def test_a_reason_is_reported_again_after_another_one(builds: Builds) -> None:
    for config in ({}, {"Cmd": ["/init"]}, {"Labels": {"a": "b"}}):
        builds.give(**config)
        builds.make()
    assert len(builds.reasons()) == 3


def test_an_error_of_the_registry_fails_the_build_and_the_next_one_tries_again(
    builds: Builds,
) -> None:
    def fault(request: BaseHTTPRequestHandler) -> bool:
        if failed := request.command == "PUT":
            request.answer(403, b'{"errors":[{"code":"DENIED"}]}')  # type: ignore[attr-defined]
        return failed

    builds.state.fault = fault
    with pytest.raises(DevloopError) as raised:
        builds.make()
    assert str(raised.value.code).startswith("registry/")
    builds.state.fault = None
    assert builds.make().supervisor
    assert builds.reasons() == []


def test_what_may_differ_is_the_builder_s_to_say(builds: Builds) -> None:
    assert not builds.images.may_differ(SCAN, SCAN)


@pytest.mark.parametrize(
    ("kind", "files"),
    [
        ("python", [".devloop/python", ".devloop/python/sitecustomize.py"]),
        ("node", [".devloop/node.cjs"]),
        ("go", []),
    ],
)
def test_a_service_that_is_debugged_has_what_its_debugger_needs(
    builds: Builds, kind: Literal["python", "node", "go"], files: list[str]
) -> None:
    builds.images = builds.new(debug=Debug(kind=kind, port=7))
    image = builds.make()
    assert image.supervisor == (PROGRAM, "supervise", "--debug", f"{kind}:7", "--")
    assert builds.command(image)[0] == [*image.supervisor]
    digest = builds.manifest(image)[1]["layers"][-1]["digest"]
    names = [name for name, *_ in entries(builds.state.blobs[digest])]
    assert names == [".devloop", ".devloop/agent", *files]


def test_an_image_that_cannot_be_supervised_cannot_be_debugged(builds: Builds) -> None:
    builds.give(Entrypoint=["/sbin/init"])
    builds.images = builds.new(debug=Debug(kind="node", port=7))
    assert builds.make() == builds.built
    assert [note.code for note in builds.notes.diagnostics] == [
        Code.BUILD_NO_SUPERVISOR,
        Code.DEBUG_OFF,
    ]
