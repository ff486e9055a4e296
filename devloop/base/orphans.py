"""Programs end with devloop however that ends, kill -9 included: nothing else would tell them.

No system but Linux has a signal for that, and that one reaches no grandchildren. So a small shell
waits for the end of a pipe that only devloop holds open, and then ends the program's whole group.
Must not know what the programs are.
"""

from __future__ import annotations

import contextlib
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_SCRIPT = """
read -r _
for s in TERM KILL; do
  kill -s $s -- "-$1" || exit 0
  sleep 0.3 || sleep 1
done
"""


@contextlib.contextmanager
def ended_with_us(group: int) -> Iterator[None]:
    """Until this is left the process group `group` is ended as soon as this process is gone. Where
    there is no shell it is not."""
    try:
        watcher = subprocess.Popen(
            ["/bin/sh", "-c", _SCRIPT, "devloop", str(group)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )
    except OSError:
        yield
        return
    try:
        yield
    finally:
        # Killed before the pipe is closed, which would end the group.
        watcher.kill()
        watcher.wait()
        if watcher.stdin is not None:
            watcher.stdin.close()
