"""The web demo as an ASGI application: the form, the upload, the page with the faces, and its limits."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from recon_demo import pages
from recon_demo.limits import HEADERS, ICON, Limits, Refusal, busy, check_host, check_origin, read_upload, too_large
from recon_toolkit.data.decode import MAX_PIXELS, SUPPORTED, decode_image
from recon_toolkit.errors import DataError
from recon_toolkit.reconstructor import Reconstructor

if TYPE_CHECKING:
    from recon_toolkit.reconstructor import Reconstructor
    from recon_toolkit.viewer import Scene


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


T = TypeVar("T")


class Desk:
    """Does one job at a time in a thread of its own, and lets a few wait. For one event loop."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._taken = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="reconstruct")

    @contextmanager
    def place(self) -> Iterator[None]:
        """A place for one request, from before its picture is read, so that few pictures are in memory at once.

        Raises:
            Refusal: 503, all places are taken.
        """
        if self._taken >= self._limits.places:
            raise busy("Others are waiting already", 5)
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1

    async def do(self, job: Callable[[], T]) -> T:
        """What ``job`` returns, or its exception.

        A thread cannot be stopped: a job that takes too long ends in the background, and those after it wait for it.
        One that has not begun by then is dropped.

        Raises:
            Refusal: 503, it took too long.
        """
        future = self._thread.submit(job)
        try:
            async with asyncio.timeout(self._limits.work_seconds):
                return await asyncio.shield(asyncio.wrap_future(future))
        except TimeoutError:
            raise busy("This took too long", 10) from None
        finally:
            future.cancel()

    def close(self) -> None:
        """Drop what waits; what runs ends by itself."""
        self._thread.shutdown(wait=False, cancel_futures=True)


def scenes_of(data: bytes, reconstructor: Reconstructor, *, crop: bool, most: int) -> list[Scene]:
    """The objects in a picture, ready to be shown, the most certain first.

    Args:
        data: an image file.
        reconstructor: the model; its detector is left out where ``crop`` says so.
        crop: one object fills the picture.
        most: how many of them, at most.

    Raises:
        Refusal: no image (415), too many pixels (413), damaged (400), or without an object (422).
    """
    picture = decoded(data)
    found = reconstructor
    if crop:
        reconstructor = replace(reconstructor, detector=None)
    try:
        results = reconstructor.reconstruct_all(picture, limit=most)
        noun = found.noun.capitalize()
        names = [noun] if len(results) == 1 else [f"{noun} {n}" for n in range(1, len(results) + 1)]
        named = (replace(result.to("cpu"), name=name) for result, name in zip(results, names, strict=True))
        return [result.scene_with_mesh(f"{result.name.lower().replace(' ', '-')}.glb") for result in named]
    except DataError as error:
        remedy = (
            f"Take one in which a {found.noun} is upright, sharp and turned towards the camera; or cut it out by hand, "
            "so that it fills a square, and tick “The picture is a crop already”"
        )
        raise Refusal(422, _sentence(error.message), remedy) from None


def decoded(data: bytes) -> NDArray[np.uint8]:
    """An image file as (H, W, 3); what it is, its first bytes tell, and not its name.

    Raises:
        Refusal: no image (415), too many pixels (413), or damaged (400).
    """
    try:
        return decode_image(data)
    except DataError as error:
        raise Refusal(_status(error), _sentence(error.message), _sentence(error.remedy or "")) from None


def _status(error: DataError) -> int:
    if error.remedy == SUPPORTED:
        return 415
    return 413 if f"{MAX_PIXELS:,}" in error.message else 400


def _sentence(text: str) -> str:
    """With a capital, for people who see it without a file's name before it."""
    return text[:1].upper() + text[1:]
