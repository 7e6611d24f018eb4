"""Headless Chromium over DevTools' pipe: pages at any size and theme, their requests, errors and pictures."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
START_S = 60.0
REPLY_S = 60.0


class BrowserError(Exception):
    """The browser does not start, answer or do as it was told."""


def find() -> str | None:
    """The browser's path, where there is one."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


@dataclass
class Seen:
    """What a page did while it was open."""

    requests: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


class Page:
    """One tab."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser = browser
        self._session = session
        self.seen = Seen()

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        return self._browser.call(method, parameters, self._session, self._note)

    def open(self, path: Path, *, width: int = 1280, height: int = 900, dark: bool = False) -> Page:
        """Open a file and wait until it is loaded and drawn."""
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")
        self.resize(width, height)
        self.media(scheme="dark" if dark else "light")
        self.call("Page.navigate", url=path.resolve().as_uri())
        ends = time.monotonic() + REPLY_S
        while self.run("document.readyState") != "complete" or not self.run("location.href.startsWith('file')"):
            if time.monotonic() > ends:
                raise BrowserError(f"{path} does not load")
            time.sleep(0.05)
        self.settle()
        return self

    def settle(self) -> None:
        """Let timers and animation frames that are due run."""
        self.run("new Promise(done => requestAnimationFrame(() => setTimeout(() => setTimeout(done, 50), 50)))")

    def resize(self, width: int, height: int) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", **size)

    def media(self, *, scheme: str, kind: str = "") -> None:
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.call("Emulation.setEmulatedMedia", media=kind, features=[feature])

    def run(self, script: str) -> Any:
        """The value of an expression, promises awaited."""
        reply = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in reply:
            raise BrowserError(json.dumps(reply["exceptionDetails"])[:500])
        return reply["result"].get("value")

    def picture(self, path: Path, *, full: bool = True) -> None:
        clip = {}
        if full:
            size = self.call("Page.getLayoutMetrics")["cssContentSize"]
            clip = {"clip": {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}}
        data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=full, **clip)["data"]
        path.write_bytes(base64.b64decode(data))

    def pdf(self) -> bytes:
        return base64.b64decode(self.call("Page.printToPDF", printBackground=False)["data"])

    def _note(self, event: dict[str, Any]) -> None:
        kind, what = event.get("method"), event.get("params", {})
        if kind == "Network.requestWillBeSent":
            self.seen.requests.append(what["request"]["url"])
        elif kind == "Runtime.exceptionThrown":
            details = what["exceptionDetails"]
            self.seen.errors.append(details.get("exception", {}).get("description") or details["text"])
        elif kind == "Log.entryAdded" and what["entry"]["level"] == "error":
            self.seen.errors.append(what["entry"]["text"])
        elif kind == "Runtime.consoleAPICalled" and what["type"] in ("error", "assert"):
            self.seen.errors.append(json.dumps(what["args"])[:300])


class Browser:
    """The process, and messages to and from it: JSON values that end with a zero byte."""

    def __init__(self, process: subprocess.Popen[bytes], to: int, fro: int) -> None:
        self._process = process
        self._to = to
        self._from = fro
        self._buffer = b""
        self._count = 0

    @contextlib.contextmanager
    def page(self) -> Iterator[Page]:
        """A tab of its own profile, closed at the end."""
        context = self.call("Target.createBrowserContext", {})["browserContextId"]
        target = self.call("Target.createTarget", {"url": "about:blank", "browserContextId": context})["targetId"]
        session = self.call("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
        try:
            yield Page(self, session)
        finally:
            self.call("Target.disposeBrowserContext", {"browserContextId": context})

    def call(
        self, method: str, parameters: dict[str, Any], session: str | None = None, note: Any = None
    ) -> dict[str, Any]:
        self._count += 1
        message = {"id": self._count, "method": method, "params": parameters}
        if session is not None:
            message["sessionId"] = session
        data = json.dumps(message).encode() + b"\0"
        try:
            while data:
                data = data[os.write(self._to, data) :]
        except OSError as error:
            raise BrowserError(f"{method}: the browser has gone ({error})") from error
        ends = time.monotonic() + REPLY_S
        while True:
            reply = self._next(ends, method)
            if reply.get("id") == self._count:
                if "error" in reply:
                    raise BrowserError(f"{method}: {reply['error']}")
                result: dict[str, Any] = reply["result"]
                return result
            if note is not None and reply.get("sessionId") == session:
                note(reply)

    def _next(self, ends: float, method: str) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            left = ends - time.monotonic()
            if left <= 0 or not select.select([self._from], [], [], left)[0]:
                raise BrowserError(f"{method}: no answer")
            data = os.read(self._from, 1 << 20)
            if not data:
                raise BrowserError(f"{method}: the browser has gone")
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        return message


@contextlib.contextmanager
def started(path: str, profile: Path) -> Iterator[Browser]:
    """A browser with a profile of its own, ended afterwards."""
    to_child, to = os.pipe()
    fro, from_child = os.pipe()
    flags = [
        "--headless=new",
        "--no-sandbox",  # root has none
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--no-default-browser-check",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--mute-audio",
        "--hide-scrollbars",
        "--remote-debugging-pipe",
        f"--user-data-dir={profile}",
    ]
    # DevTools' pipe is descriptors 3 and 4 of the child, whatever their numbers are here; a shell takes one digit only
    move = "import os, sys; a, b, *rest = sys.argv[1:]; os.dup2(int(a), 3); os.dup2(int(b), 4); os.execv(rest[0], rest)"
    launch = [sys.executable, "-c", move, str(to_child), str(from_child), path, *flags, "about:blank"]
    environment = {**os.environ, "HOME": str(profile), "XDG_CONFIG_HOME": str(profile), "XDG_CACHE_HOME": str(profile)}
    with open(profile.parent / "browser.log", "wb") as log:
        process = subprocess.Popen(
            launch,
            pass_fds=(to_child, from_child),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
        )
    os.close(to_child)
    os.close(from_child)
    try:
        yield Browser(process, to, fro)
    finally:
        with contextlib.suppress(BrowserError, OSError):
            os.write(to, b'{"id":0,"method":"Browser.close"}\0')
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        os.close(to)
        os.close(fro)
