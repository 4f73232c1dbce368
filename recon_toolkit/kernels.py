"""Numba kernels: compiled once and kept where they can be, shared out among the threads that torch was given.

Numba's own parallel loops are not used. Their threads are counted apart from torch's, starting them resets OpenMP's
count in the caller's process, and a forked process that enters them is killed.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import numba
import torch

from recon_toolkit.files import private_temporary

_pool: ThreadPoolExecutor | None = None


def compiled(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """``numba.njit`` without the interpreter's lock, whose machine code is kept for the next process.

    It lies beside the source where that can be written to, else in the user's cache folder, else in a folder of the
    user's own under the temporary one, else nowhere: then every process compiles again.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        with suppress(RuntimeError):  # neither the source's folder nor the user's can be written to
            return numba.njit(nogil=True, cache=True, **options)(function)
        folder = private_temporary()  # what lies there is executed, so nobody else may write to it
        if folder is not None:
            before = numba.config.CACHE_DIR  # type: ignore[attr-defined]
            numba.config.CACHE_DIR = str(folder / "kernels")  # type: ignore[attr-defined]
            try:
                return numba.njit(nogil=True, cache=True, **options)(function)
            except RuntimeError:
                pass
            finally:
                numba.config.CACHE_DIR = before  # type: ignore[attr-defined]
        return numba.njit(nogil=True, **options)(function)

    return decorate


class Kernel:
    """A kernel whose tasks are shared out among threads. Made by :func:`parallel`, called as (tasks, *arguments).

    Args:
        function: takes the first task, the one after the last, and the arguments; tasks must not write to the same
            places. It is compiled at the first call.
        options: of ``numba.njit``.
    """

    def __init__(self, function: Callable[..., None], options: dict[str, Any]) -> None:
        functools.update_wrapper(self, function)
        self.work: Callable[..., None] = compiled(**options)(function)

    def __call__(self, tasks: int, *arguments: Any) -> None:
        """Do all tasks, on as many threads as torch would take for an operation of the calling thread."""
        threads = min(torch.get_num_threads(), tasks)
        if threads < 2:
            self.work(0, tasks, *arguments)
            return
        bounds = [tasks * part // threads for part in range(threads + 1)]
        others = [
            _threads().submit(self.work, bounds[part], bounds[part + 1], *arguments) for part in range(1, threads)
        ]
        try:
            self.work(0, bounds[1], *arguments)
        finally:
            for other in others:
                other.result()


def parallel(**options: Any) -> Callable[[Callable[..., None]], Kernel]:
    """Make a :class:`Kernel` of a function (first task, task after the last, *arguments)."""
    return lambda function: Kernel(function, options)


def _threads() -> ThreadPoolExecutor:
    global _pool
    if _pool is None:
        _pool = ThreadPoolExecutor(max(os.cpu_count() or 1, torch.get_num_threads()), thread_name_prefix="kernel")
    return _pool


def _after_fork() -> None:
    """A forked process has none of its parent's threads: neither ours nor OpenMP's, for which torch would wait."""
    global _pool
    _pool = None
    if "torch" in sys.modules:
        torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
