"""A release of Helm: what a scripted helm is asked for, and what its post-renderer writes."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import pytest
import yaml

from devloop.base.cancel import Cancel
from devloop.base.process import Completed
from devloop.config.charts import Chart
from devloop.engine.ports import Pin
from devloop.errors import Code, DevloopError
from devloop.manifests import tools
from devloop.manifests.post_render import post_rendered
from devloop.manifests.release import HelmRelease

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

RENDERED = """\
---
# Source: shop/templates/web.yaml
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  template:
    spec:
      containers:
        - {name: web, image: shop/web}
        - {name: proxy, image: envoy}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: web}
data: {on: "yes"}
"""
CONTAINER = ("spec", "template", "spec", "containers", 0)
PINS = (
    Pin(kind="Deployment", name="web", path=CONTAINER, values={"image": "r/shop/web@sha256:1"}),
    Pin(
        kind="Deployment",
        name="web",
        path=("spec", "template", "metadata", "annotations"),
        values={"a": "b"},
    ),
    Pin(kind="Deployment", name="gone", path=CONTAINER, values={"image": "x"}),
)


def test_the_pins_are_written_and_nothing_else() -> None:
    pins = json.dumps([asdict(pin) for pin in PINS]).encode()
    web, config = yaml.safe_load_all(post_rendered(RENDERED, pins))
    template = web["spec"]["template"]
    assert template == {
        "metadata": {"annotations": {"a": "b"}},
        "spec": {
            "containers": [
                {"name": "web", "image": "r/shop/web@sha256:1"},
                {"name": "proxy", "image": "envoy"},
            ]
        },
    }
    assert config["data"] == {"on": "yes"}


class Helm:
    """Answers with what `answers` were given for the first argument; what begins with Error is
    one. The arguments are noted."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[str] = []
        self.texts: dict[str, str] = {}
        self.root = root
        monkeypatch.setattr(tools, "capture", self.run)
        self.answers(version="v3.18.6+gb76a950", history="Error: release: not found")
        chart = Chart(chart="./chart", directory=root / "chart", release="web", mode="release")
        self.release = HelmRelease(
            chart=chart, context="kind-a", namespace="shop", state_dir=root / ".devloop"
        )

    def answers(self, **texts: str) -> None:
        self.texts |= texts

    def run(self, argv: Sequence[str], **_: object) -> Completed:
        self.calls.append(" ".join(argv[1:]).replace(f"{self.root}/", ""))
        text = self.texts.get(argv[1], "")
        failed = text.startswith("Error")
        return Completed(status=int(failed), out=text, err=text if failed else "")

    def upgrade(self) -> None:
        self.release.upgrade(PINS, timeout=90.0, cancel=Cancel())


@pytest.fixture
def helm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Helm:
    return Helm(tmp_path, monkeypatch)


REVISIONS = json.dumps(
    [{"revision": 3, "status": "superseded"}, {"revision": 4, "status": "deployed"}]
)


def test_helm_installs_with_a_post_renderer_in_the_session_s_context(helm: Helm) -> None:
    helm.upgrade()
    call = helm.calls[-1]
    assert call.startswith("upgrade --install web chart --namespace shop --post-renderer /")
    assert call.endswith("/post-render --timeout 90s --kube-context kind-a")


def test_what_devloop_installed_it_removes(helm: Helm) -> None:
    assert not helm.release.installed()
    helm.upgrade()
    helm.answers(history=REVISIONS)
    assert helm.release.installed()
    assert helm.release.undo() == ""
    helm.release.remove()
    assert helm.calls[-1] == "uninstall web --namespace shop --kube-context kind-a"
    assert not helm.release.installed()


def test_what_was_there_before_is_rolled_back_to_and_never_removed(helm: Helm) -> None:
    helm.answers(history=REVISIONS)
    helm.upgrade()
    helm.answers(history=REVISIONS.replace("4", "9"))
    helm.upgrade()
    assert not helm.release.installed()
    assert helm.release.undo() == "release web: revision 4, as it was before devloop"
    assert helm.calls[-1] == "rollback web 4 --namespace shop --kube-context kind-a"
    assert helm.release.undo() == ""


@pytest.mark.parametrize(
    ("error", "code"),
    [
        ("Error: UPGRADE FAILED: admission webhook denied it", Code.CLUSTER_REJECTED),
        (
            "Error: UPGRADE FAILED: execution error at (shop/templates/a.yaml:1:2): no",
            Code.MANIFESTS_RENDER_FAILED,
        ),
    ],
)
def test_a_refusal_is_told_from_a_mistake_in_the_chart(helm: Helm, error: str, code: Code) -> None:
    helm.answers(upgrade=error)
    with pytest.raises(DevloopError) as raised:
        helm.upgrade()
    assert raised.value.code is code


def test_helm_4_is_refused_before_anything_is_written(helm: Helm) -> None:
    helm.answers(version="v4.0.1+g1")
    with pytest.raises(DevloopError) as raised:
        helm.upgrade()
    assert raised.value.code is Code.CONFIG_NOT_SUPPORTED
    assert helm.calls == ["version --short"]
