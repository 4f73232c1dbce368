"""The threads that this process was given, and Ctrl-C and SIGTERM while something has to end in good order."""

from __future__ import annotations

import math
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

_CGROUPS = Path("/sys/fs/cgroup")
#: Environment variables that say how many, and are obeyed where they ask for fewer than the cores allow.
_VARIABLES = ("OMP_NUM_THREADS", "SLURM_CPUS_PER_TASK")
_taken: Threads | None = None


@dataclass(frozen=True)
class Threads:
    """A number of threads, and what set it."""

    count: int
    source: str

    def __str__(self) -> str:
        return f"{self.count} thread{'s' * (self.count != 1)} ({self.source})"


def given() -> Threads:
    """The threads to use: what :func:`take` took, else the least of cores, CPU quota and environment variables.

    In a process that has loaded torch, not more than torch is set to use there.
    """
    if _taken is not None:
        return _taken
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    found = Threads(cores, "cores")
    limits = [(name, _number(os.environ.get(name))) for name in _VARIABLES] + [("CPU quota", _quota())]
    if "torch" in sys.modules:
        limits.append(("torch.set_num_threads", int(sys.modules["torch"].get_num_threads())))
    for source, count in limits:
        if count is not None and count < found.count:
            found = Threads(count, source)
    return found


def take(count: int | None = None) -> Threads:
    """Hold this process and those that it starts to a number of threads, by default to those it was given.

    For a process of the toolkit's own: libraries read their environment variables when they are loaded. A process that
    uses the toolkit as a library keeps the number that torch has there.
    """
    global _taken
    _taken = given() if count is None else Threads(count, "--threads")
    for name in ("OMP_NUM_THREADS", "OPENCV_FOR_THREADS_NUM"):
        os.environ[name] = str(_taken.count)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(_taken.count)
    return _taken


def _number(text: str | None) -> int | None:
    """The first number of a list such as OpenMP's "4,2", if it is one."""
    first = (text or "").partition(",")[0].strip()
    return int(first) if first.isdecimal() and int(first) > 0 else None


def _quota() -> int | None:
    """Whole CPUs of the smallest quota on this process's control group (version 2 or 1) and those around it."""
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return None
    quotas: list[float | None] = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = _CGROUPS / "cpu" if controllers else _CGROUPS
        group = root / path.lstrip("/")
        for folder in (group, *group.parents):
            quotas.append(_read_quota(folder))
            if folder == root:
                break
    limits = [quota for quota in quotas if quota is not None]
    return max(1, math.ceil(min(limits))) if limits else None


def _read_quota(folder: Path) -> float | None:
    """CPUs that one control group may use, if it has a limit."""
    try:
        if (folder / "cpu.max").is_file():
            quota, period = (folder / "cpu.max").read_text(encoding="utf-8").split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text(encoding="utf-8").strip()
            period = (folder / "cpu.cfs_period_us").read_text(encoding="utf-8").strip()
        return int(quota) / int(period) if int(quota) > 0 else None
    except (OSError, ValueError):  # no such file, or "max"
        return None


class Interrupted(Exception):
    """Training was asked to stop and has saved a checkpoint.

    Args:
        number: the signal's number.
    """

    def __init__(self, number: int, step: int) -> None:
        self.number, self.step = number, step
        super().__init__(f"stopped at step {step}")


@contextmanager
def interruptible() -> Iterator[list[int]]:
    """Collect the first Ctrl-C or SIGTERM in the list it gives instead of dying of it; a second one ends at once."""
    received: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)

    try:
        previous = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not in the main thread: whoever runs it there stops it there
        yield received
        return
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
