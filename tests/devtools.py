"""A headless Chromium for tests, driven through its DevTools pipe: no package and no network port.

The browser reads commands from file descriptor 3 and answers on 4, as JSON that ends in a zero byte
(https://chromedevtools.github.io/devtools-protocol).
"""

from __future__ import annotations

import base64
import fcntl
import io
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",  # WebGL without a GPU
    "--force-color-profile=srgb",
    "--hide-scrollbars",
    "--mute-audio",
    "--no-first-run",
    "--disable-extensions",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--remote-debugging-pipe",
)
#: Puts the two descriptors where the browser looks for them, and becomes the browser.
_START = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); os.execv(sys.argv[3], sys.argv[3:])"
)
PATIENCE = 60.0  # seconds, for machines with much else to do
#: Key codes, without which Chromium does not do what a key does to a slider.
_CODES = {"Tab": 9, "End": 35, "Home": 36, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}


def find_browser() -> str | None:
    """The first Chromium on the PATH."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Browser:
    """One page of a headless browser. What it logs and what it asks the network for is kept in lists."""

    def __init__(self, program: str, profile: Path) -> None:
        commands, self._write = os.pipe()
        self._read, answers = os.pipe()
        given = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (commands, answers)]  # beyond 3 and 4
        self.process = subprocess.Popen(
            [sys.executable, "-c", _START, *map(str, given), program, *FLAGS, f"--user-data-dir={profile}"],
            pass_fds=given,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "HOME": str(profile), "XDG_CONFIG_HOME": str(profile), "XDG_CACHE_HOME": str(profile)},
        )
        for end in (commands, answers, *given):
            os.close(end)
        self._buffer = b""
        self._number = 0
        self._session: str | None = None
        self.complaints: list[str] = []  # console errors and warnings, exceptions, breaches of the page's policy
        self.requests: list[str] = []  # addresses asked for, those of data aside
        self.events: list[tuple[str, dict[str, Any]]] = []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def close(self) -> None:
        try:
            self._session = None
            self.send("Browser.close")
            self.process.wait(5)
        except (OSError, RuntimeError, TimeoutError, subprocess.TimeoutExpired):
            self.process.kill()
            self.process.wait()
        for end in (self._read, self._write):
            os.close(end)

    def send(self, method: str, /, **parameters: Any) -> dict[str, Any]:
        """A command of the protocol; its answer. RuntimeError if the browser refuses it."""
        self._number += 1
        number = self._number
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._write, data) :]
        end = time.monotonic() + PATIENCE
        while True:
            answer = self._next(end)
            if answer.get("id") == number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                result: dict[str, Any] = answer["result"]
                return result
            self._note(answer)

    def _next(self, end: float) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            if not select.select([self._read], [], [], max(0.0, end - time.monotonic()))[0]:
                raise TimeoutError("the browser does not answer")
            part = os.read(self._read, 1 << 20)
            if not part:
                raise RuntimeError("the browser has ended")
            self._buffer += part
        message, self._buffer = self._buffer.split(b"\0", 1)
        found: dict[str, Any] = json.loads(message)
        return found

    def _note(self, event: dict[str, Any]) -> None:
        name, values = event.get("method", ""), event.get("params", {})
        self.events.append((name, values))
        if name == "Runtime.consoleAPICalled" and values["type"] in ("error", "warning", "assert"):
            self.complaints.append(str([part.get("value", part.get("description")) for part in values["args"]]))
        elif name == "Runtime.exceptionThrown":
            self.complaints.append(str(values["exceptionDetails"]))
        elif name == "Log.entryAdded" and values["entry"]["level"] in ("error", "warning"):
            self.complaints.append(values["entry"]["text"])
        elif name == "Network.requestWillBeSent" and not values["request"]["url"].startswith("data:"):
            self.requests.append(values["request"]["url"])

    def screen(
        self,
        width: int,
        height: int,
        *,
        density: float = 1.0,
        dark: bool = False,
        still: bool = True,
        touch: bool = False,
    ) -> None:
        """Size of the window in CSS pixels and device pixels in each, and what the person prefers."""
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=density, mobile=touch
        )
        self.send("Emulation.setTouchEmulationEnabled", enabled=touch)
        features = {
            "prefers-color-scheme": "dark" if dark else "light",
            "prefers-reduced-motion": "reduce" if still else "no-preference",
        }
        self.send(
            "Emulation.setEmulatedMedia",
            features=[{"name": name, "value": value} for name, value in features.items()],
        )

    def save_to(self, folder: Path) -> None:
        """Where downloads go."""
        session, self._session = self._session, None  # the browser's matter, not the page's
        self.send("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder))
        self._session = session

    def open(self, path: Path) -> None:
        """Load a file of the disk and wait until everything in it is loaded."""
        self.complaints, self.requests, self.events = [], [], []
        self.send("Page.navigate", url=path.as_uri())
        self.wait(lambda: any(name == "Page.loadEventFired" for name, _ in self.events), "the page to load")

    def evaluate(self, script: str) -> Any:
        """The value of a JavaScript expression, which may be a promise."""
        answer = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(str(answer["exceptionDetails"]))
        return answer["result"].get("value")

    def wait(self, condition: str | Callable[[], Any], what: str) -> None:
        """Until a JavaScript expression, or a function, is true."""
        end = time.monotonic() + PATIENCE
        while not (self.evaluate(condition) if isinstance(condition, str) else condition()):
            if time.monotonic() > end:
                raise TimeoutError(f"waited in vain for {what}; the page said {self.complaints}")
            time.sleep(0.02)
            self.send("Runtime.evaluate", expression="0")  # takes in the events

    def settle(self) -> None:
        """Until what was asked for has been drawn."""
        self.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(1))))")

    def box(self, selector: str) -> tuple[float, float, float, float]:
        """Left, top, width and height of an element on the page, after scrolling it into view."""
        script = (
            f"(() => {{ const e = document.querySelector({json.dumps(selector)}); "
            "e.scrollIntoView({block: 'nearest', behavior: 'instant'}); "
            "const b = e.getBoundingClientRect(); return [b.x, b.y, b.width, b.height]; })()"
        )
        x, y, width, height = self.evaluate(script)
        return x, y, width, height

    def picture(self, selector: str | None = None) -> NDArray[np.uint8]:
        """A screenshot of the window, or of one element that fits into it: (H, W, 3)."""
        left, top, width, height = (0.0, 0.0, 0.0, 0.0) if selector is None else self.box(selector)
        data = self.send("Page.captureScreenshot", format="png", optimizeForSpeed=True)["data"]
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))
        if selector is None:
            return pixels
        # Cut out here: with a clip of its own, the browser would draw between the pixels.
        density = self.evaluate("window.devicePixelRatio")
        x, y, across, down = (round(value * density) for value in (left, top, width, height))
        return pixels[y : y + down, x : x + across]

    def press(self, key: str, *, times: int = 1) -> None:
        """A key by its DOM name, such as ``ArrowLeft`` or ``+``."""
        text = {"text": key} if len(key) == 1 else {"windowsVirtualKeyCode": _CODES[key]}
        for _ in range(times):
            self.send("Input.dispatchKeyEvent", type="keyDown", key=key, **text)
            self.send("Input.dispatchKeyEvent", type="keyUp", key=key, **text)

    def mouse(self, kind: str, x: float, y: float, *, held: bool = False, clicks: int = 1, **more: Any) -> None:
        """One mouse event: ``Pressed``, ``Moved``, ``Released`` or ``Wheel``."""
        button = "none" if kind in ("Wheel",) or (kind == "Moved" and not held) else "left"
        self.send(
            "Input.dispatchMouseEvent",
            type=f"mouse{kind}",
            x=x,
            y=y,
            button=button,
            buttons=int(held),
            clickCount=clicks if kind in ("Pressed", "Released") else 0,
            **more,
        )

    def click(self, selector: str, *, clicks: int = 1) -> None:
        x, y, width, height = self.box(selector)
        for count in range(1, clicks + 1):
            self.mouse("Pressed", x + width / 2, y + height / 2, held=True, clicks=count)
            self.mouse("Released", x + width / 2, y + height / 2, clicks=count)

    def drag(self, selector: str, by: tuple[float, float]) -> None:
        """Hold the middle of an element with the mouse and move it by so many pixels."""
        left, top, width, height = self.box(selector)
        x, y = left + width / 2, top + height / 2
        self.mouse("Pressed", x, y, held=True)
        for part in (0.5, 1.0):
            self.mouse("Moved", x + by[0] * part, y + by[1] * part, held=True)
        self.mouse("Released", x + by[0], y + by[1])

    def touch(self, kind: str, *fingers: tuple[float, float]) -> None:
        """One touch event, ``Start``, ``Move`` or ``End``, with all fingers on the screen."""
        points = [{"x": x, "y": y, "id": number} for number, (x, y) in enumerate(fingers)]
        self.send("Input.dispatchTouchEvent", type=f"touch{kind}", touchPoints=points)
