"""From sources to crops: pictures are read and searched by threads, some way ahead of the model."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import islice

from recon_toolkit.data.decode import image_size, read_image
from recon_toolkit.data.video import is_video
from recon_toolkit.errors import DataError, ReconError
from recon_toolkit.inference.pictures import Crop, Finder, Source, video_sources
from recon_toolkit.inference.report import Failed
from recon_toolkit.progress import Progress
from recon_toolkit.threads import given

#: Pictures of more pixels are decoded and searched one at a time: each takes some ten bytes a pixel for a while.
LARGE_PIXELS = 16_000_000
_large = threading.Lock()


@dataclass(frozen=True)
class VideoFrames:
    """Which frames of a video count: every ``every``-th, at most ``limit``."""

    every: int = 10
    limit: int | None = 300


def read_crops(
    sources: Sequence[Source],
    finder: Finder,
    video: VideoFrames,
    *,
    ahead: int,
    progress: Progress,
    description: str = "reconstructing",
) -> Iterator[Crop | Failed]:
    """Every crop of every source in order, and what failed.

    Args:
        sources: pictures and videos.
        finder: how crops are found in them.
        video: which frames of videos count.
        ahead: pictures that are read before their crops are asked for.
        progress: where a bar counts the sources.
        description: the bar's label.
    """
    pool = ThreadPoolExecutor(given().count)
    try:
        with progress.task(description, len(sources), "img") as task:
            waiting: deque[tuple[Source, Future[list[Crop | Failed]] | None]] = deque()
            remaining = iter(sources)
            while True:
                for source in islice(remaining, ahead - len(waiting)):
                    future = None if is_video(source.path) else pool.submit(_of_picture, source, finder)
                    waiting.append((source, future))
                if not waiting:
                    return
                source, future = waiting.popleft()
                yield from future.result() if future is not None else _of_video(source, finder, video)
                task.advance()
    finally:
        pool.shutdown(cancel_futures=True)


def failed(source: Source, error: ReconError) -> Failed:
    """What to report of a source that an error came of."""
    remedy = f" ({error.remedy})" if error.remedy else ""
    return Failed(image=source.label, reason=error.message + remedy)


def _of_picture(source: Source, finder: Finder) -> list[Crop | Failed]:
    try:
        with _turn(source):
            return [*finder.crops(read_image(source.path), source)]
    except ReconError as error:  # a detector's own fault too: the other pictures may still go well
        return [failed(source, error)]


def _turn(source: Source) -> AbstractContextManager[object]:
    """What a picture waits for before it is decoded; raises DataError as :func:`image_size` does."""
    width, height = image_size(source.path)
    return _large if width * height > LARGE_PIXELS else nullcontext()


def _of_video(source: Source, finder: Finder, video: VideoFrames) -> Iterator[Crop | Failed]:
    """The crops of a video; a frame without an object is passed over, a video without any has failed."""
    empty = True
    try:
        for frame, image in video_sources(source, every=video.every, limit=video.limit):
            try:
                crops = finder.crops(image, frame)
            except DataError:
                continue
            empty = False
            yield from crops
    except ReconError as error:
        yield failed(source, error)
        return
    if empty:
        yield Failed(image=source.label, reason=f"no {finder.noun} was found in any of its frames that were looked at")
