"""Progress on standard error: bars with the remaining time on a terminal, a line now and then in a log file.

Standard output stays free for results. Code that works for long takes a :class:`Progress` and never asks where its
output goes; :data:`QUIET` shows nothing and is the default everywhere.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TextIO, TypeVar

if TYPE_CHECKING:
    import rich.progress

T = TypeVar("T")

#: Seconds between two lines of one task where standard error is no terminal.
LOG_INTERVAL = 20.0


@dataclass
class Task:
    """One bar. ``advance`` moves it on; leaving its ``with`` block, or :meth:`finish`, ends it."""

    progress: Progress
    description: str
    total: int | None
    unit: str = "it"
    done: float = 0
    started: float = field(default_factory=time.monotonic)
    bar: rich.progress.TaskID | None = None
    logged: float = field(default_factory=time.monotonic)
    finished: bool = False

    def advance(self, n: float = 1) -> None:
        """``n`` more units are done."""
        self.done += n
        self.progress._show(self)

    def describe(self, description: str) -> None:
        """Change the text beside the bar, e.g. to show the current loss."""
        self.description = description
        self.progress._show(self)

    def finish(self) -> None:
        """The task is over, complete or not; its bar stays as it is."""
        if not self.finished:
            self.finished = True
            self.progress._close(self)

    def line(self) -> str:
        """The task in words, e.g. ``faces: 2000/8000 img (25 %), 80.1 img/s, 1:15 left``."""
        elapsed = max(time.monotonic() - self.started, 1e-9)
        rate = self.done / elapsed
        count = f"{self.done:g}"
        if self.total is None:
            return f"{self.description}: {count} {self.unit}, {rate:.3g} {self.unit}/s"
        share = 100 * self.done / self.total if self.total else 100.0
        left = clock((self.total - self.done) / rate) if rate > 0 else "?"
        count = f"{count}/{self.total} {self.unit} ({share:.0f} %)"
        return f"{self.description}: {count}, {rate:.3g} {self.unit}/s, {left} left"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.finish()


def clock(seconds: float) -> str:
    """Seconds as ``m:ss`` or ``h:mm:ss``."""
    minutes, second = divmod(round(max(seconds, 0)), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"


class Progress:
    """Shows tasks while its ``with`` block runs; a task may also be started without one.

    Args:
        quiet: show neither bars nor messages; warnings still appear.
        stream: where to write; standard error by default.
    """

    def __init__(self, *, quiet: bool = False, stream: TextIO | None = None) -> None:
        self.quiet = quiet
        self._stream = stream
        self._bars: rich.progress.Progress | None = None
        self._open: list[Task] = []

    @property
    def stream(self) -> TextIO:
        return self._stream if self._stream is not None else sys.stderr

    def task(self, description: str, total: int | None = None, unit: str = "it") -> Task:
        """Start a bar; ``total`` None means that the end is not known."""
        task = Task(self, description, total, unit)
        self._open.append(task)
        if not self.quiet and self.stream.isatty():
            task.bar = self._started_bars().add_task(description, total=total, unit=unit)
        return task

    def advance(self, n: float = 1) -> None:
        """Move the task on that was started last and is still open."""
        if self._open:
            self._open[-1].advance(n)

    def track(
        self, iterable: Iterable[T], *, description: str, total: int | None = None, unit: str = "it"
    ) -> Iterator[T]:
        """Yield the items of ``iterable``, each counted once the next one is asked for."""
        if total is None and isinstance(iterable, Sized):
            total = len(iterable)
        with self.task(description, total, unit) as task:
            for item in iterable:
                yield item
                task.advance()

    def say(self, message: str) -> None:
        """A line of information, above the bars; nothing when quiet."""
        if not self.quiet:
            self._print(message)

    def warn(self, message: str) -> None:
        """A warning, shown even when quiet."""
        self._print(f"warning: {message}")

    def close(self) -> None:
        """End every task and give the terminal back; the object can be used again afterwards."""
        for task in list(self._open):
            task.finish()
        self._stop_bars()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _print(self, message: str) -> None:
        if self._bars is not None:
            self._bars.console.print(message, markup=False, highlight=False, soft_wrap=True)
        else:
            print(message, file=self.stream, flush=True)

    def _show(self, task: Task) -> None:
        if self._bars is not None and task.bar is not None:
            self._bars.update(task.bar, completed=task.done, description=task.description)
        elif not self.quiet and time.monotonic() - task.logged >= LOG_INTERVAL:
            task.logged = time.monotonic()
            self._print(task.line())

    def _close(self, task: Task) -> None:
        self._open.remove(task)
        if self._bars is not None and task.bar is not None:
            self._bars.stop_task(task.bar)
            if not self._open:
                self._stop_bars()

    def _started_bars(self) -> rich.progress.Progress:
        if self._bars is None:
            self._bars = _rich_bars(self.stream)
            self._bars.start()
        return self._bars

    def _stop_bars(self) -> None:
        if self._bars is not None:
            self._bars.stop()
            self._bars = None


def _rich_bars(stream: TextIO) -> rich.progress.Progress:
    import rich.console
    import rich.progress as parts
    import rich.text

    class Rate(parts.ProgressColumn):
        def render(self, task: Any) -> rich.text.Text:
            speed = task.finished_speed or task.speed
            return rich.text.Text("" if speed is None else f"{speed:.3g} {task.fields['unit']}/s")

    return parts.Progress(
        parts.TextColumn("{task.description}", markup=False),
        parts.BarColumn(),
        parts.MofNCompleteColumn(),
        Rate(),
        parts.TimeElapsedColumn(),
        parts.TextColumn("left"),
        parts.TimeRemainingColumn(),
        console=rich.console.Console(file=stream),
    )


#: Shows nothing but warnings; what a function takes where its caller does not care.
QUIET = Progress(quiet=True)


def track(
    iterable: Iterable[T],
    *,
    description: str,
    total: int | None = None,
    unit: str = "it",
    progress: Progress | None = None,
) -> Iterator[T]:
    """:meth:`Progress.track` with a bar of its own, or on ``progress``."""
    yield from (progress or Progress()).track(iterable, description=description, total=total, unit=unit)
