"""What the set-up tells the person who waits for it: one line a step, and how long it took.

Everything goes to stderr, because the stdout of `script/env` is evaluated by a shell.
"""

from __future__ import annotations

import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

HEARTBEAT_SECONDS = 60.0
_open: list[str] = []  # the steps that are under way, outermost first


def say(line: str) -> None:
    """Print one line of progress."""
    print(line, file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """Return `seconds` as a person says it: `0.4 s`, `12 s`, `3 min 5 s`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s"


@contextmanager
def step(title: str, estimate: str = "") -> Iterator[None]:
    """Announce a step, keep a long one from looking hung, and tell how long it took."""
    indent = "    " * len(_open)
    say(f"{indent}==> {title}" + (f" (takes {estimate})" if estimate else ""))
    _open.append(title)
    started = time.monotonic()
    over = threading.Event()

    def beat() -> None:
        while not over.wait(HEARTBEAT_SECONDS):
            say(f"{indent}    ... {title}: {duration(time.monotonic() - started)} so far")

    heart = threading.Thread(target=beat, name="heartbeat", daemon=True)
    heart.start()
    try:
        yield
    except BaseException:
        say(f"{indent}    failed after {duration(time.monotonic() - started)}")
        raise
    else:
        say(f"{indent}    done in {duration(time.monotonic() - started)}")
    finally:
        _open.pop()
        over.set()
        heart.join()
