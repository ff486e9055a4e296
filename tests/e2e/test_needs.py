"""A base, two services that are built from it, each in its own way, and one that is not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.session import APP

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.conftest import Cluster
    from tests.e2e.session import Devloop, Event, Workspace

END = "WORKDIR /app\nCOPY app.py .\nCMD ["
DOCKERFILES = {
    "base": "ARG BASE\nFROM ${BASE}\nCOPY base.txt /base.txt\n",
    "api": f'ARG BASE_IMAGE\nFROM ${{BASE_IMAGE}}\n{END}"python3", "app.py"]\n',
    "web": f'FROM base\nCOPY --from=base /base.txt /copied.txt\n{END}"python3", "app.py"]\n',
    "other": f'ARG BASE\nFROM ${{BASE}}\n{END}"python3", "app.py"]\n',
}
SERVING = """\
import pathlib
VERSION = OWN + " ".join(path.read_text() for path in pathlib.Path("/").glob("base.txt"))"""


@pytest.fixture
def project(cluster: Cluster, workspace: Workspace) -> Workspace:
    source = (APP / "app.py").read_text()
    manifest = (APP / "k8s.yaml").read_text()
    text = "version: 1\nname: needs\nregistry: ${DEVLOOP_TEST_REGISTRY}\nservices:\n"
    for name, dockerfile in DOCKERFILES.items():
        workspace.save(f"{name}/Dockerfile", dockerfile)
        args = "args: {BASE: '${BASE}'}" if "ARG BASE\n" in dockerfile else ""
        text += f"  {name}:\n    image: {cluster.namespace}/{name}\n"
        text += f"    build: {{context: {name}, {args}}}\n"
        if name == "base":
            continue
        app = source.replace('VERSION = "v0"', f'OWN = "{name}-1 "\n{SERVING}')
        workspace.save(f"{name}/app.py", app)
        workspace.save(f"{name}/k8s.yaml", manifest.replace("web", name))
        text += f"    deploy: {{manifests: [{name}/k8s.yaml], timeout: 60s}}\n"
        text += "" if name == "other" else "    needs: [base]\n"
    workspace.save("base/base.txt", "base-1")
    workspace.save("devloop.yaml", text)
    return workspace


def own(project: Workspace, service: str, version: str) -> None:
    text = project.read(f"{service}/app.py")
    before, _, rest = text.partition('OWN = "')
    project.save(f"{service}/app.py", f'{before}OWN = "{version} "{rest.partition(chr(34))[2]}')


def all_ready(session: Devloop, *services: str) -> None:
    """In whatever order."""
    missing = set(services)

    def last(event: Event) -> bool:
        if event["type"] == "iteration.finished" and event["outcome"] != "cancelled":
            assert event["outcome"] == "ready", session.story()
            missing.discard(event["service"])
        return not missing

    session.wait(last, f"end of {services}", 120)


def begun(session: Devloop, since: int) -> list[tuple[str, str]]:
    found = session.of("iteration.started")[since:]
    return sorted((event["service"], event["trigger"]["kind"]) for event in found)


def holding(session: Devloop, service: str) -> Event:
    return session.wait(
        lambda e: e["type"] == "hold" and e["service"] == service and "failed" in e["reason"],
        f"hold of {service}",
    )


def test_what_is_needed_is_built_first_and_followed(
    cluster: Cluster, project: Workspace, devloop: Callable[..., Devloop]
) -> None:
    session = devloop("dev", "api", "web", "other")
    all_ready(session, *DOCKERFILES)
    assert begun(session, 0) == [(name, "start") for name in sorted(DOCKERFILES)]
    for name in ("api", "web"):
        cluster.serves(f"{name}-1 base-1", service=name)
    assert {each["metadata"]["name"] for each in deployments(cluster)} == {"api", "web", "other"}

    # Another base: each that is built from it once more, and no other one.
    project.save("base/base.txt", "base-2")
    all_ready(session, "base", "api", "web")
    assert begun(session, 4) == [("api", "image"), ("base", "files"), ("web", "image")]
    for name in ("api", "web"):
        cluster.serves(f"{name}-1 base-2", service=name)

    # A change of its own: once more, hot or not.
    own(project, "api", "api-2")
    session.finished("ready", "api")
    cluster.serves("api-2 base-2", service="api")

    # A base that fails holds them, and what runs of them stays.
    project.save("base/Dockerfile", DOCKERFILES["base"] + "RUN exit 3\n")
    session.finished("failed", "base")
    reason = holding(session, "api")["reason"]
    assert reason.startswith("waits for the image of base, which failed: ")
    own(project, "api", "api-3")
    own(project, "other", "other-2")
    session.finished("ready", "other")
    assert begun(session, 8) == [("base", "files"), ("other", "files")]
    cluster.serves("api-2 base-2", service="api")

    # Mended, with a change of its own that waited: one build of each.
    project.save("base/base.txt", "base-3")
    project.save("base/Dockerfile", DOCKERFILES["base"])
    all_ready(session, "base", "api", "web")
    cluster.serves("api-3 base-3", service="api")
    cluster.serves("web-1 base-3", service="web")
    session.interrupt()

    # A run ends with what failed, whatever needs it included.
    project.save("base/Dockerfile", DOCKERFILES["base"] + "RUN exit 3\n")
    once = devloop("run", "api")
    once.wait(lambda e: e["type"] == "session.ended", "end", 120)
    assert once.process.wait(10) == 1
    ends: dict[str, Any] = {e["service"]: e for e in once.of("iteration.finished")}
    assert {name: end["outcome"] for name, end in ends.items()}.items() >= {
        ("base", "failed"),
        ("api", "failed"),
    }
    assert ends["api"]["why"].startswith("api needs base, which failed: ")
    cluster.serves("api-3 base-3", service="api")


def deployments(cluster: Cluster) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = cluster.get("deployments")["items"]
    return found
