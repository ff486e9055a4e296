"""`devloop` and `python -m devloop`."""

from __future__ import annotations

import sys


def main() -> None:
    # Imported here so that `import devloop.__main__` by a packaging tool costs nothing.
    try:
        from devloop.cli.main import main as run  # noqa: PLC0415
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
