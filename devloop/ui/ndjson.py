"""The event stream for programs: one JSON object a line (see events.py for its meaning)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devloop.events import to_json
from devloop.ui.output import Output

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TextIO

    from devloop.events import Record


class NdjsonSink:
    """Writes every record as one line, records that come together with one write. Raises `OSError`
    when nobody reads."""

    def __init__(self, stream: TextIO) -> None:
        self._output = Output(stream)

    def __call__(self, record: Record) -> None:
        self.batch([record])

    def batch(self, records: Sequence[Record]) -> None:
        """Write them all."""
        self._output.write("".join([f"{to_json(record)}\n" for record in records]))

    def close(self) -> None:
        """Nothing is held back, so nothing is left to do."""
