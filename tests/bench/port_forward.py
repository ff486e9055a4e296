"""What a browser sees at localhost while its app is replaced, in place and rolling.

    python -m tests.bench.port_forward [--replacements 50] [--mode in-place|rolling|both] [--json]

Two visitors ask at the forwarded port every 10 ms, one over kept connections, one over new ones;
a third asks at the Service, past devloop. Failures, old answers after new ones, and the time from
the patch to the first new answer at each are counted; before that, what a connection costs.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import resource
import secrets
import statistics
import time
from typing import TYPE_CHECKING

from devloop.base.cancel import Cancel
from devloop.cluster.api.pod_ports import PodPorts
from devloop.cluster.api.tunnel import Tunnel, open_tunnel, start_port
from tests.support.port_forward_lab import Browser, Lab, forwarded, wrong_answers
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable

    from devloop.port_forward import Duplex

_REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


def milliseconds(times: list[float]) -> dict[str, float]:
    ordered = sorted(times)
    return {
        "p50": round(statistics.median(ordered) * 1000, 1),
        "p95": round(ordered[int(len(ordered) * 0.95)] * 1000, 1),
        "max": round(ordered[-1] * 1000, 1),
    }


def first_byte(opened: Callable[[], Duplex]) -> float:
    began = time.monotonic()
    stream = opened()
    try:
        stream.send(_REQUEST)
        while stream.receive() is None:
            time.sleep(0.0002)
    finally:
        stream.close()
    return time.monotonic() - began


def connections(lab: Lab, count: int) -> dict[str, dict[str, float]]:
    """From the wish for a connection to the first byte of the answer."""
    (pod,) = lab.feed.current("web")
    cancel = Cancel()
    ports = PodPorts(lab.connection)
    try:
        ports.prepare([pod])
        time.sleep(1)
        kept = [first_byte(lambda: ports(pod, 8080, cancel)) for _ in range(count)]
    finally:
        ports.close()

    def alone() -> Duplex:
        tunnel = open_tunnel(lab.connection, pod.namespace, pod.name, cancel)
        return start_port(tunnel, 8080, 5.0, cancel, Tunnel.close)

    return {
        "a connection each": milliseconds([first_byte(alone) for _ in range(count)]),
        "on a kept tunnel": milliseconds(kept),
    }


def replacements(lab: Lab, mode: str, first: int, count: int) -> dict[str, object]:
    replace = lab.in_place if mode == "in-place" else lab.rolling
    host, port = lab.node_port()
    sent: dict[int, float] = {}
    cpu = time.process_time()
    began = time.monotonic()
    with (
        contextlib.closing(PodPorts(lab.connection)) as dial,
        forwarded([("web", 0, 8080)], dial, lab.feed) as (local,),
        Browser("127.0.0.1", local, keep_alive=True) as kept,
        Browser("127.0.0.1", local, keep_alive=False) as fresh,
        Browser(host, port, keep_alive=False) as service,
    ):
        until(lambda: min(kept.version, fresh.version) >= 0)
        for version in range(first, first + count):
            sent[version] = replace(version)
            until(lambda v=version: min(kept.version, fresh.version) >= v, 60)  # type: ignore[misc]
            until(lab.settled, 60)
            time.sleep(0.3)
    times = {
        name: [
            next(v.done for v in b.visits if v.version == version) - sent[version]
            for b in browsers[:1]
            for version in sent
            if any(v.version == version for v in b.visits)
        ]
        for name, browsers in {"kept": [kept], "new": [fresh], "service": [service]}.items()
    }
    visits = [v for b in (kept, fresh) for v in b.visits]
    ordinary = [v.done - v.sent for v in visits]
    return {
        "mode": mode,
        "replacements": count,
        "requests": len(visits),
        "wrong": wrong_answers(kept, fresh),
        "kept connections used": kept.connections,
        "failures at the Service": sum(bool(v.failure) for v in service.visits),
        "request, ms": milliseconds(ordinary),
        "from the patch to new content, ms": {k: milliseconds(t) for k, t in times.items() if t},
        # A Service is not to be reached from everywhere: then there is nothing to compare with.
        "ratio to the Service, medians": round(
            statistics.median(times["kept"] + times["new"]) / statistics.median(times["service"]), 3
        )
        if times["service"]
        else None,
        "share of a core": round((time.process_time() - cpu) / (time.monotonic() - began), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replacements", type=int, default=50)
    parser.add_argument("--mode", choices=("in-place", "rolling", "both"), default="both")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    modes = ("in-place", "rolling") if options.mode == "both" else (options.mode,)
    count = options.replacements
    lab = Lab(f"forward-{secrets.token_hex(4)}", versions=count * len(modes) + 1)
    try:
        lab.start()
        figures: dict[str, object] = {"first byte, ms": connections(lab, 30)}
        for number, mode in enumerate(modes):
            figures[mode] = replacements(lab, mode, number * count + 1, count)
    finally:
        lab.stop()
    figures["peak memory, MB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps(figures, indent=None if options.json else 2))


if __name__ == "__main__":
    main()
