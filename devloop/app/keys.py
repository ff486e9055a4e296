"""What the keys of the live view do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from devloop.app.browser import show_in_browser
from devloop.errors import DevloopError, ExitStatus

if TYPE_CHECKING:
    from collections.abc import Callable

    from devloop.app.control import SessionControl


HINT = "r rebuild  b back  p pause  l logs  o open  ? help  q quit"

_HELP = (
    "r  build and deploy again, whatever the files have",
    "b  back to the last image that was ready, until the next save",
    "p  pause: nothing is built or deployed until p is pressed again",
    "l  logs of all services, of one after the other, of none",
    "o  open the session's page in a browser",
    "?  this list",
    "q  quit; what runs keeps running",
)


class SteeredView(Protocol):
    """The live view, as far as keys are about it."""

    def note(self, text: str) -> None:
        """Show a remark."""

    def next_logs(self) -> str:
        """Show the logs of others than before; whose, in words."""


class SessionKeys:
    """`stop` ends the session; `browse` opens an address in a browser, False where there is none.
    To be called in the thread that reads the keys."""

    def __init__(
        self,
        control: SessionControl,
        view: SteeredView,
        stop: Callable[[ExitStatus, str], None],
        browse: Callable[[str], bool] = show_in_browser,
    ) -> None:
        self._control = control
        self._view = view
        self._stop = stop
        self._browse = browse

    def pressed(self, key: str) -> None:
        """Do what `key` stands for, nothing for any other."""
        match key:
            case "r":
                self._attempt(self._control.rebuild)
            case "b":
                self._attempt(self._control.go_back)
            case "p":
                self._attempt(self._control.pause_or_resume)
            case "l":
                self._view.note(self._view.next_logs())
            case "o":
                self._attempt(self._open)
            case "?" | "h":
                for line in _HELP:
                    self._view.note(f"  {line}")
            case "q":
                self._stop(ExitStatus.DONE, "q was pressed")

    def _open(self) -> None:
        # Not with the session's secret: whoever is on this computer can list command lines.
        if not self._browse(self._control.page_for_once()):
            self._view.note(f"  {self._control.open_page()}")

    def _attempt(self, action: Callable[[], None]) -> None:
        try:
            action()
        except DevloopError as error:
            self._view.note(error.diagnosis.message)
