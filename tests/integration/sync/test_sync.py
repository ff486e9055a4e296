"""Saves brought into real containers."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from devloop.base.cancel import Cancel
from devloop.errors import DevloopError
from devloop.sync.rules import PathRule
from tests.integration.sync.conftest import BASES, Told

if TYPE_CHECKING:
    from tests.integration.sync.conftest import Shop

pytestmark = [pytest.mark.kind, pytest.mark.docker]

COPY = "FROM {}\nWORKDIR /app\nCOPY . .\n"
SLEEP = 'CMD ["sleep", "100000"]\n'


@pytest.mark.parametrize("base", sorted(BASES))
def test_all_kinds_of_changes(shop: Shop, base: str) -> None:
    for name in ("a.txt", "gone.txt", "was file", "directory/one", "directory/two"):
        shop.write(name, "old")
    image = shop.image(COPY.format(BASES[base]) + SLEEP)
    shop.deploy(image)
    sync = shop.start()
    sync.image_contains(image, shop.scan())

    shop.write("a.txt", "new")
    served = shop.bring()
    assert served.image == image
    assert served.pods == (shop.running()[0].name,)
    assert shop.run("cat", "a.txt") == "new"

    big = os.urandom(3_000_000)
    shop.write("big", big, 0o755)
    shop.write("-odd\n'name", "odd")
    (shop.directory / "gone.txt").unlink()
    (shop.directory / "was file").unlink()
    shop.write("was file/now directory", "x")
    (shop.directory / "directory").rename(shop.directory / "renamed")
    (shop.directory / "link").symlink_to("a.txt")
    shop.bring()
    listed = shop.run("sh", "-c", "cd /app; find . | sort; cat link; sha256sum big; ls -l big")
    assert "./directory" not in listed
    assert "gone.txt" not in listed
    assert "./renamed/one" in listed
    assert "./was file/now directory" in listed
    assert "new" in listed
    assert "-rwxr-xr-x" in listed
    assert shop.run("cat", "/app/-odd\n'name") == "odd"


def test_two_replicas_and_a_scaled_up_one(shop: Shop) -> None:
    shop.write("a.txt", "old")
    image = shop.image(COPY.format(BASES["busybox"]) + SLEEP)
    shop.deploy(image, replicas=2)
    shop.start().image_contains(image, shop.scan())
    shop.write("a.txt", "new")
    assert len(shop.bring().pods) == 2
    assert [shop.run("cat", "a.txt", pod=p.name) for p in shop.running()] == ["new", "new"]

    path = f"/apis/apps/v1/namespaces/{shop.connection.namespace}/deployments/{shop.name}"
    shop.connection.request(
        "PATCH", path, {"spec": {"replicas": 3}}, content_type="application/merge-patch+json"
    )
    shop.wait_for(lambda: len(shop.running()) == 3)
    names = [pod.name for pod in shop.running()]
    shop.wait_for(lambda: all(shop.run("cat", "a.txt", pod=name) == "new" for name in names))


def test_a_container_that_restarts_gets_what_it_misses(shop: Shop) -> None:
    shop.write("a.txt", "old")
    image = shop.image(COPY.format(BASES["python"]) + SLEEP)
    shop.deploy(image, command=["sh", "-c", "trap exit TERM; sleep 100000 & wait"])
    shop.start().image_contains(image, shop.scan())
    shop.write("a.txt", "new")
    shop.bring()
    before = shop.running()[0].containers[0].container_id
    shop.run("kill", "1", check=False)
    shop.wait_for(lambda: shop.running() and shop.running()[0].containers[0].container_id != before)
    shop.wait_for(lambda: shop.run("cat", "a.txt", check=False) == "new")


def test_a_replaced_pod_gets_what_it_misses(shop: Shop) -> None:
    shop.write("a.txt", "old")
    image = shop.image(COPY.format(BASES["busybox"]) + SLEEP)
    shop.deploy(image)
    shop.start().image_contains(image, shop.scan())
    shop.write("a.txt", "new")
    shop.bring()
    old = shop.running()[0].name
    shop.connection.request("DELETE", f"/api/v1/namespaces/{shop.connection.namespace}/pods/{old}")
    shop.wait_for(lambda: shop.running() and shop.running()[0].name != old)
    shop.wait_for(lambda: shop.run("cat", "a.txt", check=False) == "new")


def test_a_broken_stream_is_opened_again_and_the_agent_is_gone(shop: Shop) -> None:
    shop.write("a.txt", "old")
    image = shop.image(COPY.format(BASES["busybox"]) + SLEEP)
    shop.deploy(image)
    sync = shop.start()
    sync.image_contains(image, shop.scan())
    shop.write("a.txt", "new")
    shop.bring()
    shop.streams[-1]._socket.shut()
    shop.write("a.txt", "newer")
    scan = shop.scan()
    shop.wait_for(lambda: sync.blocker(scan) is not None)
    shop.wait_for(lambda: sync.blocker(scan) is None)
    sync.sync(scan, Told(), Cancel())
    assert shop.run("cat", "a.txt") == "newer"
    assert _agents(shop) == 1
    sync.close()
    shop.wait_for(lambda: _agents(shop) == 0)


def _agents(shop: Shop) -> int:
    """How many processes in the container were started with devloop's name."""
    lines = shop.run("sh", "-c", "for p in /proc/[0-9]*; do tr '\\0' ' ' <$p/cmdline; echo; done")
    return sum("devloop-sync" in line for line in lines.splitlines())


def test_an_image_without_a_shell(shop: Shop) -> None:
    shop.write("a.txt", "old")
    image = shop.image(
        COPY.format(BASES["busybox"])
        + 'RUN ["/usr/bin/busybox", "rm", "/usr/bin/sh", "/usr/local/bin/sh"]\n'
        + 'CMD ["/usr/bin/busybox", "sleep", "100000"]\n'
    )
    shop.deploy(image)
    sync = shop.start()
    scan = shop.scan()
    sync.image_contains(image, scan)
    shop.write("a.txt", "new")
    changed = shop.scan()
    shop.wait_for(lambda: sync.blocker(changed) is not None)
    assert sync.blocker(changed) == "the image has neither a usable shell nor Python"


@pytest.mark.parametrize(
    ("base", "context", "reason"),
    [
        ("busybox", {"readOnlyRootFilesystem": True}, "Read-only file system"),
        ("python", {"readOnlyRootFilesystem": True}, "Read-only file system"),
        ("busybox", {"runAsUser": 1000}, "Permission denied"),
        ("python", {"runAsUser": 1000}, "Permission denied"),
    ],
)
def test_where_nothing_can_be_written(
    shop: Shop, base: str, context: dict[str, object], reason: str
) -> None:
    shop.write("a.txt", "old")
    image = shop.image(COPY.format(BASES[base]) + SLEEP)
    shop.deploy(image, securityContext=context)
    sync = shop.start()
    sync.image_contains(image, shop.scan())
    shop.write("a.txt", "new")
    scan = shop.scan()
    assert sync.blocker(scan) is None
    with pytest.raises(DevloopError, match=reason) as caught:
        sync.sync(scan, Told(), Cancel())
    assert caught.value.code == "sync/failed"
    assert reason in str(sync.blocker(scan)), "it is asked once"
    assert shop.run("cat", "/app/a.txt") == "old"


def test_a_link_of_the_image_is_no_way_out(shop: Shop) -> None:
    shop.write("sub/a.txt", "old")
    shop.write("b.txt", "old")
    image = shop.image(
        COPY.format(BASES["busybox"]) + "RUN mv sub /elsewhere && ln -s /elsewhere sub\n" + SLEEP
    )
    shop.deploy(image)
    sync = shop.start()
    sync.image_contains(image, shop.scan())
    shop.write("sub/a.txt", "new")
    with pytest.raises(DevloopError, match="symlink"):
        sync.sync(shop.scan(), Told(), Cancel())
    assert shop.run("cat", "/elsewhere/a.txt") == "old"


def test_what_no_rule_covers(shop: Shop) -> None:
    shop.write("templates/a.html", "old")
    shop.write("app.py", "old")
    image = shop.image(COPY.format(BASES["busybox"]) + SLEEP)
    shop.deploy(image)
    sync = shop.start(PathRule(src="templates/**", dest="/app/templates"))
    sync.image_contains(image, shop.scan())
    shop.write("templates/a.html", "new")
    shop.bring()
    assert shop.run("cat", "templates/a.html") == "new"
    shop.write("app.py", "new")
    assert sync.blocker(shop.scan()) == "app.py matches no sync rule"
