"""The web demo as an ASGI application: the form, the upload, the page with the faces, and its limits."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from recon_toolkit.demo import pages
from recon_toolkit.demo.desk import Desk
from recon_toolkit.demo.guard import HEADERS, ICON, check_host, check_origin
from recon_toolkit.demo.limits import Limits
from recon_toolkit.demo.objects import scenes_of
from recon_toolkit.demo.refusal import Refusal
from recon_toolkit.demo.upload import read_upload, too_large
from recon_toolkit.reconstructor import Reconstructor

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
#: Seconds for reading on what a refused request still sends.
_UNREAD_SECONDS = 10.0


class Demo:
    """The application. It keeps nothing: a picture is gone when its answer is sent.

    Args:
        reconstructor: the model, and the detector for pictures that are no crops.
        limits: what is taken at most.
        loopback: it is reached from this machine only, so that other names in the Host header are refused.
    """

    def __init__(self, reconstructor: Reconstructor, limits: Limits | None = None, *, loopback: bool = True) -> None:
        self.reconstructor = reconstructor
        self.limits = limits or Limits()
        self.loopback = loopback
        self.desk = Desk(self.limits)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI 3)."""
        if scope["type"] != "http":
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        body = _Body(receive)
        try:
            answer = await self._answer(scope["method"], scope["path"], headers, body)
        except _Gone:
            return
        except Refusal as refusal:
            answer = self._form(refusal)
        except Exception as error:  # the server goes on; what the picture was called is not known here
            print(f"error: {type(error).__name__}: {error}", file=sys.stderr)
            answer = self._form(Refusal(500, "The demo failed on this picture", "Try another one"))
        await _reply(send, body, answer, self.limits)

    async def _answer(self, method: str, path: str, headers: dict[str, str], body: _Body) -> _Answer:
        """What is asked for; raises Refusal where it cannot be had."""
        check_host(headers, loopback=self.loopback)
        if path == ICON:
            return _Answer(204, "default-src 'none'", "")
        if path != "/":
            raise Refusal(404, "There is no such page", "This one is all there is")
        if method in ("GET", "HEAD"):
            return self._form()
        if method != "POST":
            raise Refusal(405, f"{method[:20]} does nothing here", "Choose a photo below", {"Allow": "GET, HEAD, POST"})
        check_origin(headers)
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length) > self.limits.upload_bytes:
            raise too_large(self.limits)
        with self.desk.place():
            try:
                async with asyncio.timeout(self.limits.upload_seconds):
                    upload = await read_upload(body.chunks(), headers.get("content-type", ""), self.limits)
            except TimeoutError:
                raise Refusal(408, "The upload took too long", "Send a smaller file") from None
            page = await self.desk.do(lambda: self._page(upload.data, upload.crop))
            return _Answer(200, pages.result_policy(), page)

    def _page(self, data: bytes, crop: bool) -> str:
        scenes = scenes_of(data, self.reconstructor, crop=crop, most=self.limits.faces)
        return pages.result_page(scenes, self.reconstructor.noun)

    def _form(self, refusal: Refusal | None = None) -> _Answer:
        text = pages.form_page(self.limits, noun=self.reconstructor.noun, local=self.loopback, refusal=refusal)
        if refusal is None:
            return _Answer(200, pages.form_policy(), text)
        return _Answer(refusal.status, pages.form_policy(), text, refusal.headers)


@dataclass(frozen=True)
class _Answer:
    """A status, the page with its policy, and further headers."""

    status: int
    policy: str
    text: str
    headers: dict[str, str] = field(default_factory=dict)


class _Gone(Exception):
    """Whoever asked has left."""


class _Body:
    """A request's body, as far as it has been read."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self.finished = False

    async def chunks(self) -> AsyncIterator[bytes]:
        while not self.finished:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                self.finished = True
                raise _Gone
            self.finished = not message.get("more_body", False)
            yield message.get("body", b"")


async def _reply(send: Send, body: _Body, answer: _Answer, limits: Limits) -> None:
    """Send a page, and then read on for a while where the request is not over.

    Closing while a browser still sends would make it show its own error instead of our page.
    """
    data = answer.text.encode()
    early = not body.finished and answer.status >= 400
    all_headers = HEADERS | {"Content-Security-Policy": answer.policy} | answer.headers
    if answer.status != 204:
        all_headers |= {"Content-Type": "text/html; charset=utf-8", "Content-Length": str(len(data))}
    if early:
        all_headers["Connection"] = "close"
    pairs = [(name.lower().encode(), value.encode()) for name, value in all_headers.items()]
    await send({"type": "http.response.start", "status": answer.status, "headers": pairs})
    await send({"type": "http.response.body", "body": data, "more_body": early})
    if early:
        await _discard(body, limits)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _discard(body: _Body, limits: Limits) -> None:
    size = 0
    try:
        async with asyncio.timeout(_UNREAD_SECONDS):
            async for chunk in body.chunks():
                size += len(chunk)
                if size > limits.unread_bytes:
                    return
    except (TimeoutError, _Gone):
        return
