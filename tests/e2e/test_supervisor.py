"""Process 1 of containers: devloop's supervisor while somebody works, whatever form the image's and
the manifest's commands have, and nothing of it where it is not wanted or after a `devloop run`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.standing import standing

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.conftest import Cluster
    from tests.e2e.session import Devloop, Workspace

    Start = Callable[..., Devloop]

START = 180.0
UNDER = ["/.devloop/agent", "supervise", "--"]
APP = ["python3", "-u", "app.py"]
SHELL = ["/bin/sh", "-c", "python3 -u app.py"]

_PROCESSES = """
import json, os
found = {}
for pid in filter(str.isdigit, os.listdir("/proc")):
    try:
        argv = open(f"/proc/{pid}/cmdline").read().split("\\0")[:-1]
        parent = open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[1]
    except FileNotFoundError:
        continue
    found[pid] = [parent, argv]
print(json.dumps([found, os.listdir("/")]))
"""


def inside(cluster: Cluster) -> tuple[list[str], list[list[str]], bool]:
    """The command lines of process 1 and of its children, and whether there is a program of
    devloop's."""
    name = standing(cluster).pod.name
    text = cluster.kubectl("exec", name, "-c", "web", "--", "python3", "-c", _PROCESSES)
    found, names = json.loads(text)
    children = [argv for parent, argv in found.values() if parent == "1"]
    return found["1"][1], children, ".devloop" in names


def runs(workspace: Workspace, image: str, container: str = "") -> None:
    """Give the Dockerfile these last lines and the manifest's container these keys."""
    workspace.replace("devloop.yaml", "      replace: in-place\n", "")
    workspace.replace("Dockerfile", 'CMD ["python3", "app.py"]', image)
    if container:
        workspace.replace("k8s.yaml", "image: web\n", f"image: web\n          {container}\n")


@pytest.mark.parametrize(
    ("image", "container", "command"),
    [
        (f"ENTRYPOINT {json.dumps(APP)}", "", APP),
        (f"CMD {json.dumps(APP)}", "", APP),
        ('ENTRYPOINT ["python3", "-u"]\nCMD ["app.py"]', "", APP),
        ("CMD python3 -u app.py", "", SHELL),
        ("ENTRYPOINT python3 -u app.py", "", SHELL),
        ('CMD ["false"]', f"command: {json.dumps(APP)}", APP),
        ('ENTRYPOINT ["python3"]\nCMD ["x"]', "args: [-u, app.py]", APP),
        ('CMD ["false"]', "args: [python3, -u, app.py]", APP),
        ('ENTRYPOINT ["false"]', "command: [python3]\n          args: [-u, app.py]", APP),
    ],
)
def test_process_1_is_the_supervisor_of_the_command(
    devloop: Start,
    workspace: Workspace,
    cluster: Cluster,
    image: str,
    container: str,
    command: list[str],
) -> None:
    runs(workspace, image, container)
    devloop("dev").finished("ready", seconds=START)
    first, children, _ = inside(cluster)
    assert first == [*UNDER, *command]
    # Some shells become their last command.
    assert [argv for argv in children if argv in (command, APP)]
    cluster.serves("v0")


def test_a_service_that_does_not_want_it_has_none(
    devloop: Start, workspace: Workspace, cluster: Cluster
) -> None:
    runs(workspace, 'CMD ["false"]', f"command: {json.dumps(APP)}")
    workspace.replace("devloop.yaml", "timeout: 60s\n", "timeout: 60s\n      supervise: false\n")
    devloop("dev").finished("ready", seconds=START)
    first, _, program = inside(cluster)
    assert (first, program) == (APP, False)
    cluster.serves("v0")


@pytest.mark.parametrize("manifests", [True, False])
def test_a_run_leaves_nothing_of_it(
    devloop: Start, workspace: Workspace, cluster: Cluster, manifests: bool
) -> None:
    runs(workspace, 'CMD ["false"]', f"command: {json.dumps(APP)}")
    session = devloop("dev")
    session.finished("ready", seconds=START)
    assert inside(cluster)[0] == [*UNDER, *APP]
    session.interrupt()
    assert template(cluster)["command"] == [*UNDER, *APP]
    if not manifests:
        workspace.replace("devloop.yaml", "      manifests: [k8s.yaml]\n", "")
    assert devloop("run").join(START) == 0
    assert template(cluster)["command"] == APP
    first, _, program = inside(cluster)
    assert (first, program) == (APP, False)
    cluster.serves("v0")


def template(cluster: Cluster) -> dict[str, Any]:
    spec = cluster.get("deployment", "web")["spec"]["template"]["spec"]
    found: dict[str, Any] = spec["containers"][0]
    return found
