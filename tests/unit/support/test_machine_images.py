"""What goes into the node image, as far as it can be told without making one."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tarfile
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.machine import bases, cluster, images, node, ociarchive, shell

if TYPE_CHECKING:
    from pathlib import Path


def test_links_are_followed_inside_the_tree(tmp_path: Path) -> None:
    (tmp_path / "usr/lib/real").mkdir(parents=True)
    (tmp_path / "usr/lib/real/ld.so").touch()
    (tmp_path / "lib").symlink_to("usr/lib")
    (tmp_path / "usr/lib/ld.so").symlink_to("/lib/real/../real/ld.so")
    assert node.inside(tmp_path, "/lib/ld.so") == tmp_path / "usr/lib/real/ld.so"


def test_a_circle_of_links_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("/b")
    (tmp_path / "b").symlink_to("/a")
    with pytest.raises(shell.MachineError, match="too many"):
        node.inside(tmp_path, "/a")


def test_libraries_of_ldd() -> None:
    ldd = (
        "/usr/sbin/xtables-nft-multi:\n"
        "\tlinux-vdso.so.1 (0x00007ffd)\n"
        "\tlibm.so.6 => /lib/x/libm.so.6 (0x00007f)\n"
        "\t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n"
        "/usr/lib/x/xtables/libxt_statistic.so:\n"
        "\tlibm.so.6 => /lib/x/libm.so.6 (0x00007f)\n"
        "\tstatically linked\n"
    )
    assert node.libraries(ldd) == ["/lib/x/libm.so.6", "/lib64/ld-linux-x86-64.so.2"]


def test_the_version_is_stamped_into_kubernetes() -> None:
    flags = node.stamp("v1.34.4")
    for package in ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version"):
        assert f"-X {package}.gitVersion=v1.34.4 -X {package}.gitMajor=1" in flags
        assert f"-X {package}.gitMinor=34 " in flags


def test_the_version_is_the_modules() -> None:
    assert node.kubernetes_version().startswith("v1.")


def test_prune_takes_files_folders_and_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, root = tmp_path / "here", tmp_path / "root"
    here.mkdir()
    (here / "unwanted.txt").write_text("# why\n\ngone/*\nalso\n")
    (root / "gone/folder/deep").mkdir(parents=True)
    (root / "gone/file").touch()
    (root / "gone/link").symlink_to("folder")
    (root / "kept").mkdir()
    monkeypatch.setattr(node, "HERE", here)
    node.prune(root)
    assert sorted(f.relative_to(root).as_posix() for f in root.rglob("*")) == ["gone", "kept"]


@pytest.mark.skipif(shutil.which("zstd") is None, reason="no zstd")
def test_the_archive_is_an_oci_layout(tmp_path: Path) -> None:
    layer = ociarchive.Layer()
    layer.folder("tmp", 0o1777)
    layer.file("/bin/tool", b"#!", 0o755)
    layer.link("bin/name", "tool")
    out = tmp_path / "images.tar"
    image = ociarchive.ArchivedImage(layer=layer, entrypoint="/bin/tool", names=["r/a:1", "r/b:1"])
    ociarchive.write([image], architecture="arm64", out=out)
    with tarfile.open(out) as tar:
        files = {m.name: tar.extractfile(m).read() for m in tar if m.isfile()}  # type: ignore[union-attr]
    index = json.loads(files["index.json"])
    assert [m["annotations"]["io.containerd.image.name"] for m in index["manifests"]] == [
        "r/a:1",
        "r/b:1",
    ]

    def blob(described: dict[str, Any]) -> bytes:
        data = files["blobs/sha256/" + described["digest"].removeprefix("sha256:")]
        assert (len(data), f"sha256:{hashlib.sha256(data).hexdigest()}") == (
            described["size"],
            described["digest"],
        )
        return data

    manifest = json.loads(blob(index["manifests"][0]))
    config = json.loads(blob(manifest["config"]))
    assert (config["architecture"], config["config"]["Entrypoint"]) == ("arm64", ["/bin/tool"])
    packed = blob(manifest["layers"][0])
    plain = shell_unpack(packed)
    assert config["rootfs"]["diff_ids"] == [f"sha256:{hashlib.sha256(plain).hexdigest()}"]
    with tarfile.open(fileobj=io.BytesIO(plain)) as tar:
        assert {m.name: m.mode for m in tar if not m.issym()} == {"tmp": 0o1777, "bin/tool": 0o755}
        assert tar.getmember("bin/name").linkname == "tool"


def shell_unpack(packed: bytes) -> bytes:
    """Decompress with the program that compressed."""
    import subprocess  # noqa: PLC0415

    return subprocess.run(["zstd", "-dqc"], input=packed, capture_output=True, check=True).stdout


def _image(key: str = "k1") -> images.Image:
    return images.Image(tag="base:dev", public="public:1", key=key, tree=lambda _: None)


@pytest.mark.parametrize(
    ("labels", "here"),
    [
        ("", False),  # docker has no such image
        ("null", True),  # pulled: no label of ours
        ('{"other": "x"}', True),
        ('{"devloop.tests.key": "k1"}', True),
        ('{"devloop.tests.key": "k0"}', False),
    ],
)
def test_which_image_is_current(labels: str, here: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shell, "output", lambda *_, **__: labels)
    assert images.current(_image()) is here


def test_keys_tell_the_images_apart() -> None:
    made = [bases.python_base(), bases.busybox_base(), bases.registry(), node.image()]
    assert len({image.archive for image in made}) == 4


def test_the_clusters_do_not_meet() -> None:
    ours, demo = cluster.for_tests(), cluster.for_demo()
    assert ours.name != demo.name
    assert ours.port != demo.port
    assert ours.kubeconfig is not None, "the tests never write the user's kubeconfig"


def test_images_of_earlier_tests_go_once_there_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    of_tests = [f"localhost:5005/devloop-0123abcd/web:{n}" for n in range(images.MANY)]
    others = ["localhost:5005/devloop-0123abcd:1", "python-base:dev", "localhost:5005/shop/web:1"]
    removed: list[str] = []

    def succeeds(command: list[str], **_: object) -> bool:
        removed.extend(command[2:])
        return True

    listed = [*others, *of_tests]
    monkeypatch.setattr(shell, "output", lambda *_, **__: "\n".join(listed))
    monkeypatch.setattr(shell, "succeeds", succeeds)
    images.remove_leftovers()
    assert removed == of_tests
    removed.clear()
    listed.pop()
    images.remove_leftovers()
    assert removed == []
