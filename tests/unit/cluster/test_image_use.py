from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devloop.cluster.deploy.image_owners import owner, repository_path, score


@pytest.mark.parametrize(
    ("image", "path"),
    [
        ("web", ("web",)),
        ("web:latest", ("web",)),
        ("shop/web@sha256:abc", ("shop", "web")),
        ("localhost:5001/shop/web:dev", ("shop", "web")),
        ("localhost/shop/web", ("shop", "web")),
        ("ghcr.io/a/shop/web:1@sha256:x", ("a", "shop", "web")),
        ("docker.io/library/web", ("web",)),
        ("library/web", ("web",)),
        ("", ()),
    ],
)
def test_repository_path(image: str, path: tuple[str, ...]) -> None:
    assert repository_path(image) == path


@pytest.mark.parametrize(
    ("image", "wanted", "fits"),
    [
        ("web", "shop/web", True),
        ("web:1", "web", True),
        ("localhost:5001/shop/web:dev", "shop/web", True),
        ("ghcr.io/acme/shop/web", "shop/web", True),
        ("other/web", "shop/web", False),
        ("webby", "web", False),
        ("nginx:1", "shop/web", False),
    ],
)
def test_fits(image: str, wanted: str, fits: bool) -> None:
    assert bool(score(image, wanted)) is fits


def test_the_best_service_wins() -> None:
    services = {"web": "shop/web", "admin": "admin/web", "redis": "redis"}
    assert owner("shop/web:1", services) == "web"
    assert owner("localhost:5001/admin/web", services) == "admin"
    assert owner("web", services) is None
    assert owner("web", services, prefer="web") == "web"
    assert owner("bitnami/redis", services) == "redis"
    assert owner("postgres", services) is None


def test_an_image_that_is_exactly_anothers_is_not_taken() -> None:
    assert owner("web", {"a": "shop/web", "b": "web"}, prefer="a") == "b"


@given(st.text(max_size=30), st.text(max_size=30))
def test_never_fails(image: str, wanted: str) -> None:
    score(image, wanted)
