"""A way to a server that can be cut: a TCP proxy with a kubeconfig that leads through it."""

from __future__ import annotations

import contextlib
import re
import selectors
import socket
import threading
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from pathlib import Path

_CHUNK = 256 * 1024


class Cuttable:
    """Forwards 127.0.0.1:`port` to a server; one thread a connection."""

    def __init__(self, host: str, port: int) -> None:
        self._server = (host, port)
        self._lock = threading.Lock()
        self._away = threading.Event()
        self._closed = False
        self._pairs: dict[threading.Thread, tuple[socket.socket, socket.socket]] = {}
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, name="devloop-test-cuttable")
        self._thread.start()

    @classmethod
    def of_kubeconfig(cls, path: Path, written: Path) -> Self:
        """To the only server of the kubeconfig `path`, of which `written` is a copy."""
        text = path.read_text()
        [server] = re.findall(r"server: (\S+)", text)
        url = urlsplit(server)
        assert url.hostname
        assert url.port
        proxy = cls(url.hostname, url.port)
        written.write_text(text.replace(server, f"https://127.0.0.1:{proxy.port}"))
        return proxy

    def cut(self) -> int:
        """Break all connections and take no more; how many there were."""
        self._away.set()
        with self._lock:
            pairs = list(self._pairs.values())
        for pair in pairs:
            for end in pair:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
        return len(pairs)

    def mend(self) -> None:
        self._away.clear()

    def close(self) -> None:
        self._closed = True
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            pass
        self._thread.join()
        self._listener.close()
        self.cut()
        for thread in list(self._pairs):
            thread.join()

    def _accept(self) -> None:
        while True:
            client, _ = self._listener.accept()
            if self._closed:
                client.close()
                return
            if self._away.is_set():
                client.close()
                continue
            try:
                server = socket.create_connection(self._server, 5)
            except OSError:
                client.close()
                continue
            thread = threading.Thread(
                target=self._forward, args=(client, server), name="devloop-test-cuttable-pair"
            )
            with self._lock:
                self._pairs[thread] = (client, server)
            thread.start()

    def _forward(self, client: socket.socket, server: socket.socket) -> None:
        other = {client: server, server: client}
        with client, server, selectors.DefaultSelector() as selector:
            for end in other:
                end.settimeout(None)
                selector.register(end, selectors.EVENT_READ, end)
            with contextlib.suppress(OSError):
                while True:
                    for key, _ in selector.select():
                        end = key.data
                        data = end.recv(_CHUNK)
                        if not data:
                            raise ConnectionError
                        other[end].sendall(data)
        with self._lock:
            self._pairs.pop(threading.current_thread(), None)
