"""One job at a time, a few waiting, and an end to waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from recon_toolkit.demo.limits import Limits
from recon_toolkit.demo.refusal import busy

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
