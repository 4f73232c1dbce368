"""The web demo in a thread, and what a browser would send it, written out by hand."""

from __future__ import annotations

import contextlib
import html
import http.client
import io
import os
import re
import socket
import threading
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from devtools import Browser
from PIL import Image
from recon_demo.app import Demo
from recon_demo.limits import Limits
from recon_demo.server import listen, server_of
from starlette.types import ASGIApp

from recon_toolkit import Reconstructor

PATIENCE = 30  # seconds, for machines that do other things as well
BOUNDARY = "----a-boundary"
#: The head of an upload, but for its length.
HEAD = f"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary={BOUNDARY}\r\n"


@contextlib.contextmanager
def serving(reconstructor: Reconstructor, limits: Limits | None = None, *, loopback: bool = True) -> Iterator[int]:
    """The port of a demo that runs in a thread."""
    demo = Demo(reconstructor, limits, loopback=loopback)
    try:
        with running(demo.app) as port:
            yield port
    finally:
        demo.queue.close()


@contextlib.contextmanager
def running(app: ASGIApp) -> Iterator[int]:
    """The port of an application that runs in a thread."""
    listening = listen("127.0.0.1", 0)
    server = server_of(app)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield listening.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(PATIENCE)
        assert not thread.is_alive()


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    text: str

    @property
    def viewer(self) -> str:
        """The page with the faces, which the answer holds in a frame."""
        (found,) = re.findall(r' srcdoc="(.*?)"', self.text, re.DOTALL)
        return html.unescape(found)

    @property
    def problem(self) -> str:
        """What the page says went wrong."""
        found = re.search(r'role="alert" id="problem">(.*?)</div>', self.text, re.DOTALL)
        return "" if found is None else re.sub(r"<[^>]+>", "", found[1])


def ask(port: int, method: str = "GET", path: str = "/", body: bytes | None = None, **headers: str) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    with contextlib.closing(connection):
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        return answer_of(connection.getresponse())


def read(line: socket.socket) -> Answer:
    """What comes on a connection on which part of a request was sent."""
    with http.client.HTTPResponse(line) as response:
        response.begin()
        return answer_of(response)


def answer_of(response: http.client.HTTPResponse) -> Answer:
    found = {name.lower(): value for name, value in response.getheaders()}
    return Answer(response.status, found, response.read().decode())


def form(data: bytes | None, *, crop: bool = True, name: str = "photo.png") -> bytes:
    """What a browser sends of our form."""
    parts = []
    if data is not None:
        head = f'Content-Disposition: form-data; name="photo"; filename="{name}"\r\nContent-Type: image/png\r\n\r\n'
        parts.append(head.encode() + data)
    # An empty file field, as browsers send it.
    parts.append(b'Content-Disposition: form-data; name="photo"; filename=""\r\nContent-Type: text/plain\r\n\r\n')
    if crop:
        parts.append(b'Content-Disposition: form-data; name="crop"\r\n\r\nyes')
    mark = f"--{BOUNDARY}".encode()
    return b"".join(mark + b"\r\n" + part + b"\r\n" for part in parts) + mark + b"--\r\n"


def send(port: int, data: bytes | None, *, crop: bool = True, name: str = "photo.png", **headers: str) -> Answer:
    kind = {"Content_Type": f"multipart/form-data; boundary={BOUNDARY}"}
    return ask(port, "POST", "/", form(data, crop=crop, name=name), **(kind | headers))


def picture(width: int = 80, height: int = 64, kind: str = "PNG") -> bytes:
    values = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, kind)
    return buffer.getvalue()


def png_of(width: int, height: int) -> bytes:
    """A black PNG of one bit a pixel, small however many pixels it has."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes((1, 0, 0, 0, 0))
    rows = zlib.compress(bytes((width + 7) // 8 + 1) * height)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


# -- the page in a browser ---------------------------------------------------------------------------------------------


def load(browser: Browser, address: str) -> None:
    browser.complaints, browser.requests, browser.events = [], [], []
    browser.send("Page.navigate", url=address)
    loaded(browser)


def submit(browser: Browser) -> None:
    browser.events = []
    browser.click("button[type=submit]")
    loaded(browser)


def loaded(browser: Browser) -> None:
    browser.wait(lambda: any(name == "Page.loadEventFired" for name, _ in browser.events), "the page to load")


def choose(browser: Browser, file: Path) -> None:
    found = browser.send("Runtime.evaluate", expression="document.getElementById('photo').focus(), photo")["result"]
    browser.send("DOM.setFileInputFiles", files=[os.fspath(file)], objectId=found["objectId"])
