"""What stays after a test is found, whoever started it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading

import pytest

from tests.support import leftovers
from tests.support.waiting import until

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def test_a_thread_is_found_until_it_ends() -> None:
    before, go = leftovers.found(), threading.Event()
    thread = threading.Thread(target=go.wait, name="devloop-stays")
    thread.start()
    (new,) = leftovers.found() - before
    assert "devloop-stays" in new
    go.set()
    thread.join()
    assert leftovers.found() == before


@linux
def test_a_process_is_found_even_if_its_parent_ended() -> None:
    before = leftovers.found()
    started = subprocess.run(
        ["sh", "-c", "sleep 60 >/dev/null 2>&1 & echo $!"],
        capture_output=True,
        text=True,
        check=True,
    )
    (new,) = leftovers.found() - before
    assert new == f"process {started.stdout.strip()} (sleep)"
    os.kill(int(started.stdout), signal.SIGKILL)
    until(lambda: leftovers.found() == before)


@linux
def test_a_socket_is_found_until_it_is_closed() -> None:
    before = leftovers.found()
    with socket.create_server(("127.0.0.1", 0)):
        (new,) = leftovers.found() - before
        assert new.startswith("socket:")
    assert leftovers.found() == before
