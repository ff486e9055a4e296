from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from devloop.builders.image.documents import (
    MARK,
    Image,
    choose,
    config_digest,
    is_index,
    parse_image,
    sha256,
)
from devloop.builders.image.full_build import NeedsFullBuild

OCI = "application/vnd.oci.image.manifest.v1+json"
DOCKER = "application/vnd.docker.distribution.manifest.v2+json"
INDEX = "application/vnd.oci.image.index.v1+json"
NOW = "2026-01-02T03:04:05.000006Z"


def digest(letter: str) -> str:
    return "sha256:" + letter * 64


def documents(kind: str = DOCKER, layers: int = 2) -> tuple[bytes, bytes]:
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Env": ["A=ü"], "Labels": {"x": "y"}},
        "x-unknown": {"kept": True},
        "rootfs": {"type": "layers", "diff_ids": [digest(str(n)) for n in range(layers)]},
        "history": [{"created_by": f"step {n}"} for n in range(layers)],
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": kind,
        "config": {"mediaType": "config", "size": 2, "digest": digest("c"), "annotations": {}},
        "layers": [
            {"mediaType": "gzip", "size": n, "digest": digest("ab"[n]), "urls": ["u"]}
            for n in range(layers)
        ],
        "annotations": {"a": "b"},
    }
    return json.dumps(manifest).encode(), json.dumps(config).encode()


def image(kind: str = DOCKER) -> Image:
    manifest, config = documents(kind)
    return parse_image(manifest, kind, config)


def load(data: bytes) -> Any:
    return json.loads(data)


@pytest.mark.parametrize(
    ("kind", "tar"),
    [
        (DOCKER, "application/vnd.docker.image.rootfs.diff.tar"),
        (OCI, "application/vnd.oci.image.layer.v1.tar"),
    ],
)
def test_a_delta_is_one_more_layer_of_the_image_s_own_kind(kind: str, tar: str) -> None:
    found = image(kind)
    made = found.documents(NOW, found.bare(digest("d"), 7), "devloop delta")
    manifest, config = load(made.manifest), load(made.config)
    assert manifest["layers"][-1] == {"mediaType": tar, "size": 7, "digest": digest("d")}
    assert manifest["layers"][:-1] == load(documents(kind)[0])["layers"]
    assert manifest["annotations"] == {"a": "b"}
    assert manifest["config"] == {
        "mediaType": "config",
        "size": len(made.config),
        "digest": sha256(made.config),
        "annotations": {},
    }
    assert config["rootfs"]["diff_ids"] == [digest("0"), digest("1"), digest("d")]
    assert config["history"][-1] == {
        "created": NOW,
        "created_by": "devloop delta",
        "comment": MARK,
    }
    assert config["created"] == NOW
    assert (config["config"], config["x-unknown"]) == (
        {"Env": ["A=ü"], "Labels": {"x": "y"}},
        {"kept": True},
    )
    assert made.digest == sha256(made.manifest)


def test_the_time_alone_makes_another_digest() -> None:
    found = image()
    assert found.documents(NOW).digest != found.documents(NOW.replace("6Z", "7Z")).digest
    assert found.documents(NOW).digest == found.documents(NOW).digest


def test_devloop_s_own_layer_is_known_again_and_taken_off() -> None:
    found = image()
    made = found.documents(NOW, found.bare(digest("d"), 7), "devloop delta")
    again = parse_image(made.manifest, DOCKER, made.config)
    assert again.delta
    assert not found.delta
    assert found.without_delta() is found
    bare = again.without_delta()
    assert [layer.digest for layer in bare.layers] == [layer.digest for layer in found.layers]
    assert bare.config["history"] == found.config["history"]
    twice = bare.documents(NOW, bare.bare(digest("e"), 7), "devloop delta")
    assert len(load(twice.manifest)["layers"]) == 3


def test_the_own_layer_of_an_image_below_is_none_of_this_one() -> None:
    below = image()
    below = parse_image(
        (made := below.documents(NOW, below.bare(digest("d"), 7), "devloop delta")).manifest,
        DOCKER,
        made.config,
    )
    history = [*below.config["history"], {"created": NOW, "created_by": "COPY app.py ."}]
    above = replace(
        below,
        layers=(*below.layers, below.bare(digest("e"), 7)),
        config={**below.config, "history": history},
    ).documents(NOW)

    found = parse_image(above.manifest, DOCKER, above.config)

    assert not found.delta
    assert len(found.without_delta().layers) == 4
    again = found.documents(NOW, found.bare(digest("f"), 7), "devloop delta")
    bare = parse_image(again.manifest, DOCKER, again.config).without_delta()
    assert bare.config["history"] == history


def test_a_layer_is_put_in_the_place_of_another() -> None:
    found = image()
    config = load(found.with_layer(0, found.bare(digest("f"), 1)).documents(NOW).config)
    assert config["rootfs"]["diff_ids"] == [digest("f"), digest("1")]
    assert len(config["history"]) == 2


@pytest.mark.parametrize(
    ("manifest", "config"),
    [
        (b"", b"{}"),
        (b"[]", b"{}"),
        (b"{}", b"{}"),
        (documents()[0], b"{}"),
        (documents()[0], documents(layers=1)[1]),
        (documents("application/vnd.something")[0], documents()[1]),
    ],
)
def test_documents_that_do_not_fit_prove_nothing(manifest: bytes, config: bytes) -> None:
    with pytest.raises(NeedsFullBuild):
        parse_image(manifest, "", config)


def entry(os: str, architecture: str, letter: str) -> dict[str, Any]:
    return {"digest": digest(letter), "platform": {"os": os, "architecture": architecture}}


ATTESTATION = entry("unknown", "unknown", "e")
AMD, ARM = entry("linux", "amd64", "a"), entry("linux", "arm64", "b")


@pytest.mark.parametrize(
    ("entries", "platform", "expected"),
    [
        ([AMD], None, "a"),
        ([AMD, ATTESTATION], None, "a"),
        ([AMD, ATTESTATION], "linux/arm64", "a"),
        ([{"digest": digest("d")}], None, "d"),
        ([AMD, ARM, ATTESTATION], "linux/arm64/v8", "b"),
        ([AMD, ARM], None, None),
        ([AMD, ARM], "linux/s390x", None),
        ([ATTESTATION], None, None),
        ([], None, None),
    ],
)
def test_the_image_in_an_index(
    entries: list[dict[str, Any]], platform: str | None, expected: str | None
) -> None:
    body = json.dumps({"mediaType": INDEX, "manifests": entries}).encode()
    assert is_index("", body)
    if expected:
        assert choose(body, platform) == digest(expected)
    else:
        with pytest.raises(NeedsFullBuild):
            choose(body, platform)


def test_which_manifests_are_lists() -> None:
    assert is_index(INDEX, b"{}")
    assert not is_index(OCI, documents(OCI)[0])
    assert config_digest(documents()[0]) == digest("c")
    with pytest.raises(NeedsFullBuild):
        config_digest(b"{}")
