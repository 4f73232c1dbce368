"""Reading the frames of video files that may be damaged, hostile or of any kind.

Whatever is wrong with a file becomes one :class:`DataError` that names it, the fault and the remedy.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from recon_toolkit.data.decode import MAX_PIXELS
from recon_toolkit.errors import DataError, ReconError

if TYPE_CHECKING:
    import av
    from av.container import InputContainer
    from av.video.stream import VideoStream

VIDEO_SUFFIXES = frozenset(
    (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".mts", ".m2ts", ".wmv", ".flv", ".3gp", ".ogv")
)
#: Containers that are read. Playlists and the like, which name other files or addresses, are not among them.
CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,asf,flv,ogg,gif,mpegvideo,h264,hevc,ivf"
SUPPORTED = "use an MP4, MOV, MKV, WebM, AVI, MPEG, WMV, FLV, 3GP or Ogg video"
#: A video whose frames end this much before the time it states, as a part of it and in seconds, was cut off.
MISSING_PART, MISSING_SECONDS = 0.05, 0.5


@dataclass(frozen=True)
class VideoInfo:
    """What a video file says about itself; sizes are those of the upright picture."""

    frames: int | None  # None where the file does not say
    seconds: float | None  # None where the file does not say
    fps: float | None  # frames a second, on average; None where unknown
    width: int
    height: int
    rotation: int  # degrees by which the stored picture is turned clockwise to stand upright: 0, 90, 180 or 270


def is_video(path: str | Path) -> bool:
    """Whether a file's name ends as a video's does. GIF files count as images."""
    return Path(path).suffix.lower() in VIDEO_SUFFIXES


def video_info(path: str | Path) -> VideoInfo:
    """Size, length and rotation of a video; one frame is decoded.

    Raises:
        DataError: the file is missing, empty, not a video, without a picture, or larger than
            :data:`~recon_toolkit.data.decode.MAX_PIXELS` a frame.
    """
    path = Path(path)
    with _opened(path) as (container, stream):
        first = next(container.decode(stream), None)
        if first is None:
            raise _no_frame(path)
        turn = _turn(first)
        width, height = _display_size(first, stream)
        rate = stream.average_rate or stream.guessed_rate
        seconds = _stated_seconds(container, stream)
        return VideoInfo(
            frames=stream.frames or None,
            seconds=seconds,
            fps=float(rate) if rate else None,
            width=height if turn % 2 else width,
            height=width if turn % 2 else height,
            rotation=90 * turn,
        )


def read_frames(
    path: str | Path, *, every: int = 1, limit: int | None = None
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Decode a video as upright 8-bit RGB frames, one after the other.

    The file's rotation is applied, and pixels that are not square are made so. A damaged or truncated file gives the
    frames before the damage, and then the error.

    Args:
        path: the file.
        every: take every N-th frame, from the first.
        limit: how many frames at most; all by default.

    Returns:
        An iterator of (number of the frame from 0, (H, W, 3) uint8).

    Raises:
        ValueError: ``every`` or ``limit`` is below 1.
        DataError: at the first step or a later one: as for :func:`video_info`, or the file is damaged or truncated.
    """
    if every < 1 or (limit is not None and limit < 1):
        raise ValueError(f"every and limit must be 1 or more, not {every} and {limit}")
    return _frames(Path(path), every, limit)


def _frames(path: Path, every: int, limit: int | None) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    with _opened(path) as (container, stream):
        number, end, last = 0, 0.0, None
        # A stream's length counts from its first frame, a container's from zero.
        start = float((stream.start_time or 0) * (stream.time_base or 0)) if stream.duration is not None else 0.0
        for frame in _decoded(container, stream, path):
            if number % every == 0:
                yield number, _picture(frame, stream, path)
                if limit is not None and number // every + 1 == limit:
                    return
            number += 1
            if frame.time is not None:
                end = max(end, frame.time - start + _shown_seconds(frame, last, stream))
                last = frame.time
        if not number:
            raise _no_frame(path)
        stated = _stated_seconds(container, stream)
        if stated is not None and stated - end > max(MISSING_SECONDS, MISSING_PART * stated):
            raise _broken_off(path, number, f"the file states {stated:.1f} seconds")


def _decoded(container: InputContainer, stream: VideoStream, path: Path) -> Iterator[av.VideoFrame]:
    """All frames; after a fault those that the decoder still holds, and then the fault."""
    import av

    number, cut = 0, False
    try:
        for packet in container.demux(stream):
            if not packet.size and cut:  # the empty packet that ends the stream
                raise av.error.InvalidDataError(0, "a part of the file is missing")
            cut = packet.is_corrupt  # a fault on the way, as broadcasts have, is no end
            if cut:
                continue
            for frame in packet.decode():
                number += 1
                yield frame
    except av.error.FFmpegError as error:
        try:
            for frame in stream.codec_context.decode(None):
                number += 1
                yield frame
        except av.error.FFmpegError:  # the first fault is the one to report
            pass
        if number:
            raise _broken_off(path, number, error.strerror or str(error)) from error
        raise


@contextmanager
def _opened(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The container and its video stream; whatever the decoder raises becomes a DataError about ``path``."""
    try:
        import av
    except ImportError as error:
        raise DataError(
            f"videos are read by PyAV, which cannot be imported: {error}", where=str(path), remedy="pip install av"
        ) from None
    try:
        if path.stat().st_size == 0:
            raise DataError("the file is empty (0 bytes)", where=str(path), remedy="copy or download it again")
        # From a file object, so that nothing in the name or the file can lead to another file or address.
        options = {"format_whitelist": CONTAINERS, "protocol_whitelist": ""}
        with path.open("rb") as file, av.open(file, "r", container_options=options) as container:
            stream = _video_stream(container)
            if stream is None:
                raise DataError("holds no moving picture", where=str(path), remedy=SUPPORTED)
            _check_size(stream.codec_context.width, stream.codec_context.height, path)
            stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
            stream.thread_type = "AUTO"
            yield container, stream
    except ReconError:
        raise
    except Exception as error:  # decoders raise nearly anything on damaged data
        raise _explanation(error, path) from error


def _explanation(error: Exception, path: Path) -> DataError:
    place = str(path)
    match error:
        case FileNotFoundError():
            return DataError("no such file", where=place, remedy="check the path")
        case IsADirectoryError():
            return DataError("is a folder, not a file", where=place, remedy="name the files in it")
        case PermissionError():
            return DataError("may not be read", where=place, remedy="check its permissions")
        case MemoryError():
            return DataError("does not fit into memory", where=place, remedy="scale it down first")
    return DataError(
        f"not a video that can be read, or damaged: {getattr(error, 'strerror', None) or error}",
        where=place,
        remedy=SUPPORTED,
    )


def _video_stream(container: InputContainer) -> VideoStream | None:
    """The first stream of moving pictures; the cover of a piece of music is none."""
    import av

    cover = av.stream.Disposition.attached_pic
    return next((stream for stream in container.streams.video if not stream.disposition & cover), None)


def _check_size(width: int, height: int, path: Path) -> None:
    if width * height > MAX_PIXELS:
        raise DataError(
            f"{width}×{height} pixels a frame are more than the {MAX_PIXELS:,} that are read",
            where=str(path),
            remedy="scale the video down first",
        )


def _turn(frame: av.VideoFrame) -> int:
    """Quarter turns clockwise that make a frame upright."""
    return round(-frame.rotation / 90) % 4


def _display_size(frame: av.VideoFrame, stream: VideoStream) -> tuple[int, int]:
    """Width and height of a stored frame with square pixels."""
    aspect = stream.sample_aspect_ratio
    if not aspect or not 0.25 <= aspect <= 4:  # absurd ones are faults of the file
        return frame.width, frame.height
    return max(1, round(frame.width * aspect)), frame.height


def _picture(frame: av.VideoFrame, stream: VideoStream, path: Path) -> NDArray[np.uint8]:
    width, height = _display_size(frame, stream)
    _check_size(width, height, path)  # it may change on the way
    pixels: NDArray[Any] = frame.to_ndarray(format="rgb24", width=width, height=height)
    return np.ascontiguousarray(np.rot90(pixels, -_turn(frame)), dtype=np.uint8)


def _shown_seconds(frame: av.VideoFrame, last: float | None, stream: VideoStream) -> float:
    """How long a frame is shown; where it does not say, as long as the one before, which began at ``last``."""
    if frame.duration and frame.time_base:
        return float(frame.duration * frame.time_base)
    if last is not None and frame.time is not None:
        return max(0.0, frame.time - last)
    rate = stream.average_rate or stream.guessed_rate
    return float(1 / rate) if rate else 0.0


def _stated_seconds(container: InputContainer, stream: VideoStream) -> float | None:
    """How long the pictures run as the file says; a container's length is that of its sound, where it has some."""
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    if container.duration is not None and len(container.streams) == 1:
        return float(container.duration / 1_000_000)
    return None


def _broken_off(path: Path, frames: int, cause: str) -> DataError:
    return DataError(
        f"damaged or truncated after {frames} frames: {cause}", where=str(path), remedy="copy or download it again"
    )


def _no_frame(path: Path) -> DataError:
    return DataError("no frame of it can be read", where=str(path), remedy="copy or download it again")
