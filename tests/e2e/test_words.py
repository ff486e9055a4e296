"""What people write in manifests and devloop.yaml that has led tools astray, in one session."""

from __future__ import annotations

import socket
import urllib.request
from typing import TYPE_CHECKING

from tests.e2e.conftest import free_port
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.session import Devloop, Workspace

    Start = Callable[..., Devloop]

KUSTOMIZATION = "resources: [k8s.yaml]\n"
VAULT = """      annotations:
        template: |
          {{- with secret "kv/app" -}}
          KEY={{ .Data.key }}
          {{- end }}
"""


def served(port: int) -> str | None:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=3) as answer:
            text: str = answer.read().decode()
    except (OSError, ValueError):
        return None
    return text


def test_odd_manifests_are_applied_as_they_are_meant_and_ports_lead_by_name_and_service(
    devloop: Start, workspace: Workspace
) -> None:
    workspace.version("0")
    text = workspace.read("k8s.yaml").replace(
        "    metadata: {labels: {app: web}}\n",
        f"    metadata:\n      labels: {{app: web}}\n{VAULT}",
    )
    text = text.replace(
        "          image: web\n          ports: [{containerPort: 8080}]\n",
        "          image: web\n          imagePullPolicy: Never\n          resources:\n"
        "          env: [{name: A, value: '1'}, {name: A, value: '2'}]\n"
        "          ports: [{name: http, containerPort: 8080}]\n",
    )
    workspace.save("k8s/web.yaml", text)
    workspace.save("k8s/kustomization.yaml", KUSTOMIZATION)
    by_name, by_service = free_port(), free_port()
    workspace.replace("devloop.yaml", "manifests: [k8s.yaml]", "manifests: [k8s]")
    workspace.replace(
        "devloop.yaml",
        '["${PORT:-18080}:8080"]',
        f'["{by_name}:http", "0.0.0.0:{by_service}:service/web:8080"]',
    )
    session = devloop("dev")
    session.finished("ready", seconds=120)
    until(lambda: served(by_name) == "0" and served(by_service) == "0", 60)
    said = [each["message"] for each in session.of("diagnostic")]
    for words in ("is a kustomization", "applied as IfNotPresent", "A stands twice in `env`"):
        assert any(words in message for message in said), said
    workspace.version("1")
    session.finished("ready", seconds=120)
    until(lambda: served(by_name) == "1" and served(by_service) == "1", 60)
    with socket.create_connection(("127.0.0.1", by_service), 5):
        pass
