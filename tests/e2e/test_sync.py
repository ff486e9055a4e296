"""Files brought into running containers: what is there, what is not touched, what comes after.

The same container all along is the point: its id, its restarts and its image must not change, and
the image that holds the files must be there for whatever starts next.
"""

from __future__ import annotations

import json
import stat
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from tests.e2e.standing import standing, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.e2e.conftest import Cluster
    from tests.e2e.session import Devloop, Event, Workspace
    from tests.e2e.standing import Standing

    Start = Callable[..., Devloop]
    Tree = dict[str, tuple[str, int, str]]

START = 180.0
EDIT = 120.0

_WALK = """
import json, os, sys
found = {}
for directory, directories, files in os.walk(sys.argv[1]):
    for name in directories + files:
        path = os.path.join(directory, name)
        info = os.lstat(path)
        link = os.path.islink(path)
        kind = "link" if link else "file" if name in files else "dir"
        text = os.readlink(path) if link else open(path).read() if kind == "file" else ""
        found[os.path.relpath(path, sys.argv[1])] = kind, 0 if link else info.st_mode & 0o7777, text
print(json.dumps(found))
"""


def inside(cluster: Cluster, directory: str = "/app/data") -> Tree:
    """What the directory holds in the running container: path -> kind, mode, content or target."""
    pod = standing(cluster).pod.name
    text = cluster.kubectl("exec", pod, "--", "python3", "-c", _WALK, directory)
    return {path: (kind, mode, content) for path, (kind, mode, content) in json.loads(text).items()}


def outside(directory: Path) -> Tree:
    """The same of a directory here."""
    found: Tree = {}
    for path in directory.rglob("*"):
        name = str(path.relative_to(directory))
        mode = stat.S_IMODE(path.lstat().st_mode)
        if path.is_symlink():
            found[name] = "link", 0, str(path.readlink())
        elif path.is_dir():
            found[name] = "dir", mode, ""
        else:
            found[name] = "file", mode, path.read_text()
    return found


def arrives(cluster: Cluster, name: str, text: str, seconds: float = 60) -> None:
    """Wait until the one pod has the content; it may be starting, or just be made."""
    deadline = time.monotonic() + seconds
    while True:
        pods = [p for p in standing(cluster).pods if p.ready]
        got = ""
        if len(pods) == 1:
            done = subprocess.run(
                ["kubectl", "-n", cluster.namespace, "exec", pods[0].name, "--", "cat", name],
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            got = done.stdout
        if got == text:
            return
        assert time.monotonic() < deadline, f"{name} holds {got!r}, not {text!r}: {pods}"
        time.sleep(0.1)


@pytest.fixture
def data(workspace: Workspace) -> Path:
    """The app with a directory `data` and a rule for it."""
    workspace.save("data/one.txt", "one\n")
    workspace.save("data/sub/two.txt", "two\n")
    with_sync(workspace, '[{src: "data/**", dest: /app/data}]')
    return workspace.root / "data"


def with_sync(workspace: Workspace, rules: str) -> None:
    workspace.replace("devloop.yaml", "    ports:", f"    sync: {rules}\n    ports:")


def synced(session: Devloop) -> Event:
    """The next iteration, which must be nothing but a sync."""
    done = session.finished("ready", seconds=EDIT)
    steps = {
        e["step"]: e["outcome"] for e in session.of("step.finished") if e["iter"] == done["iter"]
    }
    assert steps == {"scan": "done", "sync": "done"}, session.story()
    return done


def adopted(session: Devloop) -> None:
    """Wait until the image with what was synced last stands in Deployment and ReplicaSet."""
    told = session.wait(lambda e: e["type"] == "diagnostic", "image of what was synced", EDIT)
    assert (told["code"], told["cause"]) == ("sync/image", None), session.story()


def settled(cluster: Cluster) -> Standing:
    """How things stand; the image follows a sync by itself, which pauses the Deployment for a
    moment."""
    return until(cluster, lambda now: not now.paused, "not paused")


def untouched(before: Standing, after: Standing) -> None:
    assert after.pods == before.pods
    assert after.revision == before.revision
    assert after.replicasets.keys() == before.replicasets.keys()
    assert not after.paused


def test_every_kind_of_change(
    devloop: Start, workspace: Workspace, cluster: Cluster, data: Path
) -> None:
    session = devloop("dev")
    session.finished("ready", seconds=START)
    before = standing(cluster)
    # Put there in one step, else its directories might come in an iteration of their own.
    ready = workspace.root.parent / "ready"
    (ready / "er").mkdir(parents=True)
    (ready / "er/new.txt").write_text("deep\n")
    edits: list[Callable[[], object]] = [
        lambda: workspace.save("data/one.txt", "one, changed\n"),
        lambda: workspace.save("data/new.txt", "new\n"),
        lambda: ready.rename(data / "deep"),
        (data / "sub/two.txt").unlink,
        lambda: (data / "new.txt").chmod(0o750),
        lambda: (data / "new.txt").rename(data / "moved.txt"),
        lambda: (data / "link").symlink_to("moved.txt"),
        lambda: workspace.save("data/häßlich name.txt", "odd\n"),
        lambda: workspace.save("data/empty", ""),
        lambda: workspace.save("data/large.txt", "0123456789abcde\n" * 200_000),
        lambda: (data / "deep").rename(data / "other"),
        lambda: (data / "other/er").rename(data / "er"),
        lambda: (data / "empty").replace(data / "moved.txt"),
    ]
    for edit in edits:
        edit()
        synced(session)
        assert inside(cluster) == outside(data)
        untouched(before, settled(cluster))


def test_the_image_follows_and_the_pod_stays(
    devloop: Start, workspace: Workspace, cluster: Cluster, data: Path
) -> None:
    session = devloop("dev")
    session.finished("ready", seconds=START)
    before = standing(cluster)
    workspace.save("data/one.txt", "changed\n")
    synced(session)
    adopted(session)
    after = standing(cluster)
    untouched(before, after)
    assert after.image != before.image
    assert set(after.replicasets.values()) == {after.image}
    assert after.pod.image == after.pod.runs == before.image
    assert session.quiet(3) == []
    untouched(before, settled(cluster))
    # An edit of the image's own then takes all with it, in place.
    workspace.version("v1")
    done = session.finished("ready", seconds=EDIT)
    cluster.serves("v1")
    last = standing(cluster)
    assert last.images == {done["digest"]}
    assert last.pod.uid == before.pod.uid
    assert inside(cluster) == outside(data)


@pytest.mark.parametrize("when", ["at once", "with its image"])
def test_a_pod_that_is_replaced_has_what_was_synced(
    devloop: Start, workspace: Workspace, cluster: Cluster, data: Path, when: str
) -> None:
    session = devloop("dev")
    session.finished("ready", seconds=START)
    workspace.save("data/one.txt", "synced\n")
    synced(session)
    if when == "with its image":
        adopted(session)
    before = standing(cluster)
    cluster.kubectl("delete", "pod", before.pod.name, "--wait=false")
    until(
        cluster,
        lambda now: [p.uid for p in now.pods if p.ready] not in ([], [before.pod.uid]),
        "another pod",
    )
    arrives(cluster, "/app/data/one.txt", "synced\n")
    workspace.save("data/one.txt", "synced again\n")
    session.finished("ready", seconds=EDIT)
    arrives(cluster, "/app/data/one.txt", "synced again\n")


def test_a_container_that_restarts_gets_what_it_misses(
    devloop: Start, workspace: Workspace, cluster: Cluster, data: Path
) -> None:
    session = devloop("dev")
    session.finished("ready", seconds=START)
    workspace.save("data/one.txt", "synced\n")
    synced(session)
    adopted(session)
    before = standing(cluster)
    cluster.kubectl("exec", before.pod.name, "--", "python3", "-c", "import os; os.kill(1, 15)")
    after = until(
        cluster,
        lambda now: now.pod.restarts == before.pod.restarts + 1 and now.pod.ready,
        "restarted",
    )
    # It started from the image that the pod asks for, which is older than what was synced.
    assert after.pod.uid == before.pod.uid
    assert after.pod.runs == before.pod.runs != after.image
    arrives(cluster, "/app/data/one.txt", "synced\n")
    workspace.save("data/one.txt", "synced again\n")
    synced(session)
    assert inside(cluster) == outside(data)


def test_what_no_rule_covers_goes_the_image_way(
    devloop: Start, workspace: Workspace, cluster: Cluster, data: Path
) -> None:
    session = devloop("dev")
    session.finished("ready", seconds=START)
    before = standing(cluster)
    workspace.version("v1")
    done = session.finished("ready", seconds=EDIT)
    skipped = session.step("sync", done)
    assert skipped["outcome"] == "skipped"
    assert "app.py" in skipped["detail"]
    assert session.step("build", done)["detail"].startswith("delta")
    cluster.serves("v1")
    after = standing(cluster)
    assert after.images == {done["digest"]}
    assert (after.pod.uid, after.pod.restarts) == (before.pod.uid, before.pod.restarts + 1)
    # The rules hold for the new container, too.
    workspace.save("data/one.txt", "after\n")
    synced(session)
    assert inside(cluster) == outside(data)
    untouched(after, settled(cluster))


def test_restart_true_starts_the_process_anew(
    devloop: Start, workspace: Workspace, cluster: Cluster
) -> None:
    with_sync(workspace, "[{src: app.py, dest: /app, restart: true}]")
    session = devloop("dev")
    session.finished("ready", seconds=START)
    before = standing(cluster)
    workspace.version("v1")
    done = synced(session)
    assert "process restarted" in session.step("sync", done)["detail"]
    cluster.serves("v1")
    assert standing(cluster).pods == before.pods


def test_restart_true_without_a_supervisor_is_an_image(
    devloop: Start, workspace: Workspace, cluster: Cluster
) -> None:
    with_sync(workspace, "[{src: app.py, dest: /app, restart: true}]")
    workspace.replace("devloop.yaml", "timeout: 60s", "timeout: 60s\n      supervise: false")
    session = devloop("dev")
    session.finished("ready", seconds=START)
    before = standing(cluster)
    workspace.version("v1")
    done = session.finished("ready", seconds=EDIT)
    assert session.step("sync", done)["outcome"] in ("skipped", "failed"), session.story()
    cluster.serves("v1")
    after = standing(cluster)
    assert (after.pod.uid, after.pod.restarts) == (before.pod.uid, before.pod.restarts + 1)


def test_auto_goes_by_the_dockerfile(
    devloop: Start, workspace: Workspace, cluster: Cluster
) -> None:
    workspace.save("pages/index.html", "one")
    workspace.replace("Dockerfile", "COPY . .", "COPY . .\nCOPY pages /srv/pages")
    with_sync(workspace, "auto")
    session = devloop("dev")
    session.finished("ready", seconds=START)
    before = standing(cluster)
    for name, text in (("index.html", "two"), ("more.html", "more")):
        workspace.save(f"pages/{name}", text)
        synced(session)
        assert inside(cluster, "/srv/pages") == outside(workspace.root / "pages")
    # COPY . . puts them there as well.
    assert inside(cluster, "/app/pages") == outside(workspace.root / "pages")
    (workspace.root / "pages/more.html").unlink()
    synced(session)
    for directory in ("/srv/pages", "/app/pages"):
        assert inside(cluster, directory) == outside(workspace.root / "pages")
    untouched(before, settled(cluster))
    # The Dockerfile itself shapes the image: no sync can do that.
    workspace.replace("Dockerfile", "WORKDIR /app", "ENV NEW=1\nWORKDIR /app")
    done = session.finished("ready", seconds=EDIT)
    assert session.step("sync", done)["outcome"] == "skipped"
    until(cluster, lambda now: len(now.pods) == 1, "one pod")
    assert standing(cluster).pod.runs == done["digest"]
    assert inside(cluster, "/srv/pages") == outside(workspace.root / "pages")


def test_an_image_without_shell_or_interpreter(
    devloop: Start, workspace: Workspace, cluster: Cluster
) -> None:
    """Without the supervisor nothing in it could take the files: devloop says so once and goes the
    image way."""
    workspace.replace("devloop.yaml", "timeout: 60s", "timeout: 60s\n      supervise: false")
    workspace.save("www/index.html", "v0")
    workspace.save(
        "Dockerfile",
        "FROM busybox-base:dev AS tools\n"
        "FROM scratch\n"
        "COPY --from=tools /usr/lib /usr/lib\n"
        "COPY --from=tools /lib64/ld-linux-x86-64.so.2 /lib64/ld-linux-x86-64.so.2\n"
        "COPY --from=tools /usr/bin/busybox /busybox-httpd\n"
        "COPY www /www\n"
        'CMD ["/busybox-httpd", "httpd", "-f", "-p", "8080", "-h", "/www"]\n',
    )
    with_sync(workspace, '[{src: "www/**", dest: /www}]')
    session = devloop("dev")
    session.finished("ready", seconds=START)
    cluster.serves("v0")
    for version in ("v1", "v2"):
        workspace.save("www/index.html", version)
        done = session.finished("ready", seconds=EDIT)
        # The first of them may find out; from then on it is known, not tried again and told once.
        tries = [
            e["outcome"]
            for e in session.of("step.finished")
            if (e["iter"], e["step"]) == (done["iter"], "sync")
        ]
        wanted = ([], ["skipped"]) if version == "v2" else (["skipped"], ["failed"])
        assert tries in wanted, session.story()
        assert session.step("build", done)["detail"].startswith("delta")
        cluster.serves(version)
        after = until(cluster, lambda now: len(now.pods) == 1, "one pod")
        assert after.pod.runs == after.image == done["digest"]
    told = [e for e in session.of("diagnostic") if e["code"] == "sync/failed"]
    assert {e["severity"] for e in told} == {"warning"}, session.story()
    assert [e["service"] for e in told] == ["web"], session.story()
