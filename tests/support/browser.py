"""A headless Chromium, driven over its DevTools protocol: what the page's benchmark needs and no
more. Nothing is downloaded; without a Chromium on this machine there is none."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any, Self

import websocket

NAMES = ("chromium", "chromium-browser", "google-chrome")


def chromium() -> str | None:
    """The program, None where there is none."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


class Browser:
    """One tab of a Chromium with `more` options. Errors of the protocol and of scripts raise
    RuntimeError."""

    def __init__(self, program: str, *more: str) -> None:
        self._place = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        options = ("--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0")
        quiet = ("--no-first-run", "--disable-background-networking", "--hide-scrollbars")
        self._process = subprocess.Popen(
            [
                program,
                *options,
                *quiet,
                *more,
                f"--user-data-dir={self._place.name}",
                "about:blank",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._number = 0
        self.said: list[dict[str, Any]] = []  # what the page logged and which errors it had
        try:
            self._socket = websocket.create_connection(
                self._address(), suppress_origin=True, timeout=60
            )
        except BaseException:
            self.close()
            raise
        for domain in ("Page", "Runtime", "Log", "Performance", "HeapProfiler"):
            self.call(f"{domain}.enable")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        self.close()

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(20)
        self._place.cleanup()

    def _address(self) -> str:
        file = Path(self._place.name, "DevToolsActivePort")
        deadline = time.monotonic() + 60
        while not (file.is_file() and len(lines := file.read_text().splitlines()) > 1):
            assert time.monotonic() < deadline, "Chromium does not start"
            time.sleep(0.05)
        with urllib.request.urlopen(f"http://127.0.0.1:{lines[0]}/json/list") as answer:
            tabs = json.load(answer)
        return next(str(tab["webSocketDebuggerUrl"]) for tab in tabs if tab["type"] == "page")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": params}))
        while True:
            message = json.loads(self._socket.recv())
            if message.get("id") == self._number:
                if "error" in message:
                    raise RuntimeError(message["error"]["message"])
                return dict(message["result"])
            if message.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded"):
                self.said.append(message["params"])

    def run(self, script: str) -> Any:
        """The value of a script, or of its promise."""
        done = self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in done:
            raise RuntimeError(json.dumps(done["exceptionDetails"])[:2000])
        return done["result"].get("value")

    def until(self, script: str, seconds: float = 30.0) -> None:
        deadline = time.monotonic() + seconds
        while not self.run(script):
            assert time.monotonic() < deadline, f"not so within {seconds} s: {script}"
            time.sleep(0.05)

    def open(self, url: str) -> None:
        # Not from the same page with another fragment: that would load nothing.
        self.call("Page.navigate", url="about:blank")
        self.until("location.href === 'about:blank' && document.readyState === 'complete'")
        self.call("Page.navigate", url=url)
        self.until("location.href !== 'about:blank' && document.readyState === 'complete'")

    def look(self, width: int, height: int, *, dark: bool = False, phone: bool = False) -> None:
        """A window of that size, in CSS pixels."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=phone,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def picture(self, path: Path, *, whole: bool = False) -> None:
        """A PNG of the window, or of the whole page."""
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(shot["data"]))

    def heap(self) -> float:
        """MB of the page's JavaScript after a collection."""
        self.call("HeapProfiler.collectGarbage")
        metrics = self.call("Performance.getMetrics")["metrics"]
        return next(float(m["value"]) for m in metrics if m["name"] == "JSHeapUsedSize") / 1e6
