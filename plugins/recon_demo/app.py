"""The web demo as an application: the form, the upload, the page with the faces, and its limits."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from recon_demo.limits import Limits, Refusal, Upload, busy, check_origin, read_upload, too_large
from recon_demo.pages import form_page, form_policy, result_page, result_policy
from recon_demo.server import application
from recon_toolkit.data.decode import MAX_PIXELS, SUPPORTED, decode_image
from recon_toolkit.errors import DataError
from recon_toolkit.reconstructor import Reconstructor

if TYPE_CHECKING:
    from recon_toolkit.viewer import Scene


class Demo:
    """The application. It keeps nothing: a picture is gone when its answer is sent.

    Args:
        reconstructor: the model, and the detector for pictures that are no crops.
        limits: what is taken at most.
        loopback: it is reached from this machine only, so that other names in the Host header are refused.

    Attributes:
        app: for a server (ASGI 3).
        queue: of the pictures that are waited for; close it at the end.
    """

    def __init__(self, reconstructor: Reconstructor, limits: Limits | None = None, *, loopback: bool = True) -> None:
        self.reconstructor = reconstructor
        self.limits = limits or Limits()
        self.loopback = loopback
        self.queue = Queue(self.limits)
        self.app = application(
            [Route("/", self._page, methods=["GET", "POST"])],
            self._form,
            loopback=loopback,
            headers={"Content-Security-Policy": form_policy()},
            unread_bytes=self.limits.unread_bytes,
        )

    async def _page(self, request: Request) -> Response:
        """What is asked for; raises Refusal where it cannot be had."""
        if request.method != "POST":
            return self._form()
        check_origin(request.headers)
        length = request.headers.get("content-length", "")
        if length.isdecimal() and int(length) > self.limits.upload_bytes:
            raise too_large(self.limits)
        with self.queue.place():
            try:
                async with asyncio.timeout(self.limits.upload_seconds):
                    upload = await read_upload(request.stream(), request.headers.get("content-type", ""), self.limits)
            except TimeoutError:
                raise Refusal(408, "The upload took too long", "Send a smaller file") from None
            try:
                text = await self.queue.do(lambda: self._result(upload))
            except Refusal:
                raise
            except Exception as error:  # the server goes on; what the picture was called is not known here
                print(f"error: {type(error).__name__}: {error}", file=sys.stderr)
                raise Refusal(500, "The demo failed on this picture", "Try another one") from None
        return HTMLResponse(text, headers={"Content-Security-Policy": result_policy()})

    def _result(self, upload: Upload) -> str:
        scenes = scenes_of(upload.data, self.reconstructor, crop=upload.crop, most=self.limits.faces)
        return result_page(scenes, self.reconstructor.noun)

    def _form(self, refusal: Refusal | None = None) -> Response:
        text = form_page(self.limits, noun=self.reconstructor.noun, local=self.loopback, refusal=refusal)
        if refusal is None:
            return HTMLResponse(text)
        return HTMLResponse(text, refusal.status, refusal.headers)


T = TypeVar("T")


class Queue:
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
