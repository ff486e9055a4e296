"""Python loads this at its start, as `sitecustomize`, in a service with `debug: {kind: python}`: it
has debugpy listen for an editor, then leaves everything as it would be without.

The first process that can listen does, and takes the variable away that asks for it: processes that
it starts are debugpy's, which leads the editor to them (reloaders, workers). It runs in containers,
in any Python 3, with what may be missing there: nothing here may keep the program from running, and
what cannot be had is said in one line that devloop/app/debugging.py reads.
"""
# ruff: noqa: S110, BLE001, PLC0415, PTH100, PTH119, PTH120, PTH123 - light, and for any Python 3

import os
import sys

_HERE = os.path.dirname(os.path.abspath(__file__))
_PORT, _ADAPTER = "DEVLOOP_DEBUG", "DEVLOOP_DEBUG_ADAPTER"
# They start the program, perhaps with another Python, and are none themselves.
_LAUNCHERS = {"poetry", "pipenv", "pdm", "hatch", "rye", "conda", "pip", "pip3", "ensurepip"}
_LAUNCHERS |= {"supervisord", "honcho", "circusd", "dotenv"}


def _started() -> str:
    """The script or module that this process runs, without its directory."""
    try:
        with open("/proc/self/cmdline", "rb") as file:
            words = file.read().decode("utf-8", "replace").split("\0")[1:-1]
    except OSError:
        return ""
    for index, word in enumerate(words):
        if word == "-m" and index + 1 < len(words):
            return words[index + 1]
        if not word.startswith("-"):
            return os.path.basename(word)
    return ""


def _busy(port: int) -> str:
    """What is in the way at the port. The debugger of a process that has just ended, as in
    `migrate && serve`, goes a moment later."""
    import socket
    import time

    until = time.monotonic() + 1.0
    while True:
        try:
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(("127.0.0.1", port))
            return ""
        except OSError as error:
            if time.monotonic() >= until:
                return f"port {port} of the container: {error.strerror}"
        time.sleep(0.02)


def _listen(port: int) -> "str | None":
    """Why no editor can attach, "" where one can, None where another process is to be the one."""
    if _started() in _LAUNCHERS:
        return None
    import importlib
    import importlib.util

    if importlib.util.find_spec("debugpy") is None:
        return "debugpy is not in the image: pip install debugpy"
    why = _busy(port)
    if why:
        return why
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")
    # Where debugpy's parts meet; the same after each start, so that it is seen to listen again.
    os.environ[_ADAPTER] = str(61000 + port % 4500)
    try:
        debugpy = importlib.import_module("debugpy")
        debugpy.listen(("127.0.0.1", port))
    except BaseException as error:
        return "debugpy: " + (str(error).splitlines() or [type(error).__name__])[0]
    finally:
        os.environ.pop(_ADAPTER, None)
    return ""


def _debug() -> None:
    port = os.environ.get(_PORT, "")
    if not port.isdigit():
        return
    why = _listen(int(port))
    if why:
        sys.stderr.write("devloop: debug: not started: " + why + "\n")
        sys.stderr.flush()
    elif why is not None:
        os.environ.pop(_PORT, None)
        rest = [each for each in os.environ.get("PYTHONPATH", "").split(":") if each != _HERE]
        if any(rest):
            os.environ["PYTHONPATH"] = ":".join(rest)
        else:
            os.environ.pop("PYTHONPATH", None)


def _adapt(port: int) -> None:
    """In the process that debugpy starts beside the program: have its inner port be this one, and
    an editor that asks for it attach again after the program has ended."""
    import socket

    bind = socket.socket.bind

    def bound(self: socket.socket, address: tuple) -> None:  # type: ignore[type-arg]
        # The first one to listen for editors: by now what talks to them is loaded.
        _attach_again(sys.modules.get("debugpy.adapter.clients"))
        if address[1:2] == (0,):
            try:
                self.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                return bind(self, (address[0], port, *address[2:]))
            except OSError:
                pass
        return bind(self, address)

    socket.socket.bind = bound  # type: ignore[method-assign, assignment]


def _attach_again(clients: object) -> None:
    """debugpy itself sends `restart` back to editors that it connects to, not to those that connect
    to it. An editor that ends the session, which sets it to False, is not asked."""
    made = getattr(clients, "Client", None)
    if made is None or "restart_requested" in vars(made):
        return

    def asked(self: object) -> bool:
        arguments = getattr(getattr(self, "start_request", None), "arguments", None) or {}
        return self.__dict__.get("_restarts", True) and arguments.get("restart") is True

    def ended(self: object, value: bool) -> None:
        if getattr(self, "start_request", None) is not None:
            self.__dict__["_restarts"] = value

    made.restart_requested = property(asked, ended)


def _own() -> None:
    """The `sitecustomize` that would have been loaded without this one."""
    import importlib.machinery
    import importlib.util

    spec = importlib.machinery.PathFinder.find_spec("sitecustomize", sys.path)
    if spec is not None and spec.loader is not None:
        module = importlib.util.module_from_spec(spec)
        sys.modules["sitecustomize"] = module
        spec.loader.exec_module(module)


sys.path[:] = [each for each in sys.path if each != _HERE]
try:
    _own()
finally:
    try:
        if os.environ.get(_ADAPTER, "").isdigit():
            _adapt(int(os.environ[_ADAPTER]))
        else:
            _debug()
    except Exception:
        pass
