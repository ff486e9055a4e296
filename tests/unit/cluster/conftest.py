from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from devloop.cluster.api.connection import Connection
from devloop.cluster.api.view import ClusterView
from tests.support.deploy_stage import Stage
from tests.support.fake_api import FakeApi, fake_api

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def api() -> Iterator[FakeApi]:
    with fake_api() as server:
        yield server


@pytest.fixture
def connection(api: FakeApi, tmp_path: Path) -> Iterator[Connection]:
    env = {"KUBECONFIG": str(api.kubeconfig(tmp_path)), "HOME": str(tmp_path)}
    opened = Connection.open(None, "dev", env=env)
    yield opened
    opened.close()


@pytest.fixture
def stage(api: FakeApi, connection: Connection, tmp_path: Path) -> Iterator[Stage]:
    view = ClusterView(connection)
    root = tmp_path / "project"
    root.mkdir()
    yield Stage(api, connection, view, root)
    view.close()
