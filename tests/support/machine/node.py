"""The image of a kind node, made of Debian packages and Go modules.

Every Kubernetes program is one binary (`knode`, by the name it is called with), CoreDNS and pause
are two more; the rest is Debian's systemd, containerd and runc, with the files of `node/files`
laid over them.  kind needs no configuration or patch for it.
"""

from __future__ import annotations

import inspect
import re
import shutil
import sys
from pathlib import Path

from . import bases, console, debian, gobuild, images, ociarchive, shell

HERE = Path(__file__).parent.parent / "node"
SUITE = "bookworm"
PACKAGES = (
    "base-files",
    "bash",
    "containerd",
    "containernetworking-plugins",
    "coreutils",
    "dash",
    "findutils",
    "grep",
    "gzip",
    "hostname",
    "iproute2",
    "iptables",
    "kmod",
    "libc-bin",
    "mawk",
    "mount",
    "procps",
    "runc",
    "sed",
    "systemd",
    "tar",
    "util-linux",
)
CONTROL_PLANE = (
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kube-proxy",
    "etcd",
)
NODE_PROGRAMS = ("kubelet", "kubeadm", "kubectl", "crictl")
UNITS = ("containerd.service", "kubelet.service")
IPTABLES = [
    f"{name}{part}" for name in ("iptables", "ip6tables") for part in ("", "-save", "-restore")
]


def kubernetes_version() -> str:
    """Return the version of Kubernetes that knode is built from, as `v1.34.4`."""
    module = (HERE / "knode/go.mod").read_text()
    match = re.search(r"^\s*k8s\.io/kubernetes (v\S+)$", module, flags=re.MULTILINE)
    if match is None:
        raise shell.MachineError("knode/go.mod names no version of k8s.io/kubernetes")
    return match[1]


def stamp(version: str) -> str:
    """Return the linker flags that tell Kubernetes its version; kubeadm refuses to run without."""
    major, minor, _ = version.lstrip("v").split(".", 2)
    values = {
        "gitVersion": version,
        "gitMajor": major,
        "gitMinor": minor,
        "gitTreeState": "clean",
        "gitCommit": "0" * 40,
        "buildDate": "2026-01-01T00:00:00Z",
    }
    packages = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    return " ".join(f"-X {p}.{name}={value}" for p in packages for name, value in values.items())


def knode() -> Path:
    """Return the binary of all Kubernetes programs."""
    return gobuild.build(
        HERE / "knode",
        "-tags=providerless",
        ldflags=stamp(kubernetes_version()),
        estimate="6 to 15 min",
    )


def image() -> images.Image:
    """Return the image of a kind node."""
    code = inspect.getsource(sys.modules[__name__]) + inspect.getsource(ociarchive)
    return images.Image(
        tag="devloop-node:dev",
        public="",
        key=bases.key("node", code, HERE),
        tree=tree,
        config=("ENV container=docker", 'ENTRYPOINT ["/kind/bin/entrypoint"]'),
        estimate="8 to 20 min the first time, 1 min when its programs are built",
    )


def tree(root: Path) -> None:
    """Fill a folder with a node's files."""
    debian.install({"zstd": "zstd"})
    kube, coredns, pause = (
        knode(),
        gobuild.build(HERE / "coredns", estimate="2 to 4 min"),
        gobuild.build(HERE / "pause", estimate="5 s"),
    )
    with console.step("unpacking the node's Debian packages", "20 s"):
        bases.plant(PACKAGES, root, suite=SUITE, dependencies=True)
    replace(root / "usr/bin/awk", "mawk")
    replace(root / "usr/sbin/init", "/usr/lib/systemd/systemd")
    for name in IPTABLES:
        replace(root / "usr/sbin" / name, "xtables-nft-multi")
    shell.run(["chroot", root, "/sbin/ldconfig"], timeout=60)
    archive = root.with_suffix(".images")
    with console.step("packing the cluster's own images", "10 s"):
        own_images(root, kube, coredns, pause, archive)
    prune(root)
    shutil.copytree(HERE / "files", root, dirs_exist_ok=True)
    wanted = root / "etc/systemd/system/multi-user.target.wants"
    wanted.mkdir(parents=True)
    for unit in UNITS:
        replace(wanted / unit, f"/etc/systemd/system/{unit}")
    replace(root / "etc/systemd/system/default.target", "/lib/systemd/system/multi-user.target")
    shutil.copy(kube, root / "usr/local/bin/knode")
    for name in NODE_PROGRAMS:
        replace(root / "usr/bin" / name, "/usr/local/bin/knode")
    for name in ("etc/kubernetes/manifests", "lib/modules", "etc/containerd/certs.d", "var/log"):
        (root / name).mkdir(parents=True, exist_ok=True)
    (root / "kind/version").write_text(kubernetes_version())
    archive.rename(root / "kind/images.tar")


def replace(place: Path, target: str) -> None:
    """Make `place` a symbolic link, whatever was there."""
    place.unlink(missing_ok=True)
    place.symlink_to(target)


def prune(root: Path) -> None:
    """Remove what `unwanted.txt` lists from a tree."""
    for line in (HERE / "unwanted.txt").read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        for found in root.glob(line):
            if found.is_dir() and not found.is_symlink():
                shutil.rmtree(found)
            else:
                found.unlink()


def own_images(root: Path, kube: Path, coredns: Path, pause: Path, out: Path) -> None:
    """Write the archive of the images that kubeadm wants to find."""
    program = shutil.copy(kube, root / "tmp/kubeadm")
    listed = shell.run(
        [program, "config", "images", "list", "--kubernetes-version", kubernetes_version()],
        timeout=60,
    ).split()
    Path(program).unlink()
    small = ociarchive.Layer()
    small.file("pause", pause)
    everything = control_plane_layer(root, kube, coredns)
    pauses = [name for name in listed if "/pause:" in name]
    ociarchive.write(
        [
            ociarchive.ArchivedImage(
                layer=everything,
                entrypoint="/coredns",
                names=[name for name in listed if name not in pauses],
            ),
            ociarchive.ArchivedImage(layer=small, entrypoint="/pause", names=pauses),
        ],
        architecture=debian.architecture(),
        out=out,
    )


def control_plane_layer(root: Path, kube: Path, coredns: Path) -> ociarchive.Layer:
    """Return the files of the image that all programs but pause run in."""
    layer = ociarchive.Layer()
    layer.folder("tmp", 0o1777)
    layer.file("usr/local/bin/knode", kube)
    for name in CONTROL_PLANE:
        layer.link(f"usr/local/bin/{name}", "knode")
    layer.file("coredns", coredns)
    layer.file("etc/passwd", b"root:x:0:0:root:/:/bin/false\n", 0o644)
    # kube-proxy calls iptables, whose extension modules need more libraries than iptables itself:
    # without libm, a Service with two endpoints fails and nothing else does.
    multi = "/usr/sbin/xtables-nft-multi"
    layer.file(multi, root / multi.lstrip("/"))
    for name in IPTABLES:
        layer.link(f"usr/sbin/{name}", "xtables-nft-multi")
    modules = Path("/usr/lib") / debian.TRIPLETS[debian.architecture()] / "xtables"
    extensions = sorted((root / str(modules).lstrip("/")).iterdir())
    for file in extensions:
        name = str(modules / file.name)
        if file.is_symlink():
            layer.link(name, str(file.readlink()))
        else:
            layer.file(name, file)
    asked = [multi, *(str(modules / file.name) for file in extensions)]
    for library in libraries(shell.run(["chroot", root, "ldd", *asked], timeout=60)):
        layer.file(library, inside(root, library))
    for name in ("etc/protocols", "etc/services"):
        if (root / name).exists():
            layer.file(name, root / name, 0o644)
    return layer


def inside(root: Path, name: str) -> Path:
    """Follow a path's symbolic links as a program in the tree would; absolute ones stay in it."""
    place = root
    parts = [part for part in reversed(name.split("/")) if part]
    for _ in range(40 + len(parts)):
        if not parts:
            return place
        part = parts.pop()
        following = place.parent if part == ".." else place / part
        if following.is_symlink():
            target = str(following.readlink())
            place = root if target.startswith("/") else place
            parts += [piece for piece in reversed(target.split("/")) if piece]
        else:
            place = following
    raise shell.MachineError(f"too many symbolic links in {name}")


def libraries(ldd: str) -> list[str]:
    """Return the libraries that ldd's output names, each once."""
    lines = [line for line in ldd.splitlines() if line[:1].isspace()]
    words = {word for line in lines for word in line.split() if word.startswith("/")}
    return sorted(words)
