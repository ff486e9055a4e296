"""Which pod a connection goes to, and who holds a port."""

from __future__ import annotations

import os
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devloop.forward.choose import choose
from devloop.forward.owner import owner_of, socket_inodes
from devloop.model import PodView

pods = st.lists(
    st.builds(
        PodView,
        name=st.sampled_from(["a", "b", "c"]),
        uid=st.uuids().map(str),
        namespace=st.just("default"),
        created=st.sampled_from(["", "2026-01-01T00:00:00Z", "2026-01-01T00:00:01Z"]),
        ready=st.booleans(),
        deleting=st.booleans(),
    ),
    max_size=5,
)


@given(pods)
def test_the_choice_is_the_newest_that_is_fit(some: list[PodView]) -> None:
    fit = [p for p in some if p.ready and not p.deleting]
    chosen = choose(some)
    assert (chosen is None) == (not fit)
    if chosen is not None:
        assert chosen in fit
        assert chosen.created == max(p.created for p in fit)


@given(pods)
def test_the_order_of_pods_does_not_matter(some: list[PodView]) -> None:
    one, other = choose(some), choose(reversed(some))
    assert (one and (one.created, one.name)) == (other and (other.created, other.name))


TABLE = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 41 1
   1: 0100007F:1F90 0100007F:A001 01 00000000:00000000 00:00000000 00000000  1000        0 42 1
   2: 00000000:1F91 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 43 1
garbage
"""


@pytest.mark.parametrize(("port", "inodes"), [(8080, {"41"}), (8081, {"43"}), (1, set())])
def test_listeners_in_proc_net_tcp(port: int, inodes: set[str]) -> None:
    assert socket_inodes(TABLE, port) == inodes


def test_the_owner_of_a_port_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        owner = owner_of(server.getsockname()[1])
    assert owner is not None
    assert f"(pid {os.getpid()})" in owner


def test_nobody_owns_a_free_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert owner_of(port) is None
