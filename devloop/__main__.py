"""`devloop` and `python -m devloop`."""

from __future__ import annotations

import contextlib
import gc
import os
import sys


def main() -> None:
    """Run what the command line says; ends the process."""
    # Imports leave no garbage, but looking for it is a tenth of their time.
    gc.disable()
    # Imported here so that `import devloop.__main__` by a packaging tool costs nothing.
    try:
        from devloop.cli.main import main as run  # noqa: PLC0415
    except KeyboardInterrupt:
        sys.exit(130)
    gc.enable()
    status = run(sys.argv[1:])
    # The interpreter's own end frees every object, which a person waits for, and joins the threads
    # of executors without a time limit.
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()  # noqa: TID251 - nothing is written here
        sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    main()
