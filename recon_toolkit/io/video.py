"""Frames as a moving picture: MP4, GIF or WebP by the file's ending."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import chain, pairwise
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from recon_toolkit.errors import DataError
from recon_toolkit.files import writing

if TYPE_CHECKING:
    import av
    from av.container import OutputContainer
    from av.video.stream import VideoStream

FORMATS = (".mp4", ".gif", ".webp")
#: Quality of H.264 from 0 (lossless) to 51; at 18 no difference is seen.
QUALITY = 18
#: Browsers slow down a GIF's frames that are shown for less than this many hundredths of a second.
LEAST_DELAY = 2
#: Frames, spread over a GIF, from which its one palette is taken, and pixels along their sides.
PALETTE_FRAMES, PALETTE_SIDE = 12, 256
#: Amplitude of a GIF's dithering, in steps of 8-bit colour: about the distance between colours of its palette.
DITHER = 5.0


def write_video(path: str | Path, frames: Iterable[NDArray[np.uint8]], *, fps: float = 30) -> int:
    """Write frames as a moving picture, whole or not at all.

    - ``.mp4``: H.264 (MPEG-4 where PyAV lacks x264), YUV 4:2:0, playable before it has loaded fully; an odd width or
      height is made even by repeating the last column or row. Frames are taken one by one.
    - ``.gif``: looped, one palette of 256 colours, dithered with a pattern that stands still. At most 50 frames a
      second are shown; others are left out.
    - ``.webp``: looped, lossy.

    Args:
        path: the file.
        frames: (H, W, 3) uint8 each, all of one size.
        fps: frames a second.

    Returns:
        How many frames were written.

    Raises:
        DataError: another ending, no frames, or the place cannot be written.
        ValueError: a frame is no (H, W, 3) uint8 or differs in size from the first, or ``fps`` is not positive.
    """
    path = Path(path)
    writers = {".mp4": _write_mp4, ".gif": _write_gif, ".webp": _write_webp}
    writer = writers.get(path.suffix.lower())
    if writer is None:
        raise DataError("not a moving picture's ending", where=str(path), remedy=f"use {', '.join(FORMATS)}")
    if not 0 < fps < 1000:
        raise ValueError(f"fps lies between 0 and 1000, not at {fps}")
    checked = _checked(frames, path)
    first = next(checked)  # before the file is begun, so that mistakes of the caller's leave no trace of one
    with writing(path) as file:
        return writer(file, chain((first,), checked), fps)


def _checked(frames: Iterable[NDArray[np.uint8]], path: Path) -> Iterator[NDArray[np.uint8]]:
    shape: tuple[int, ...] | None = None
    for number, frame in enumerate(frames):
        if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8 or not frame.size:
            raise ValueError(f"frame {number} must be (H, W, 3) uint8, not {frame.shape} {frame.dtype}")
        if shape is not None and frame.shape != shape:
            raise ValueError(f"frame {number} is {frame.shape}, but the first is {shape}")
        shape = frame.shape
        yield frame
    if shape is None:
        raise DataError("there is no frame to write", where=str(path), remedy="give one or more")


def _write_mp4(file: IO[bytes], frames: Iterator[NDArray[np.uint8]], fps: float) -> int:
    try:
        import av
    except ImportError as error:
        raise DataError(f"MP4 is written by PyAV, which cannot be imported: {error}", remedy="pip install av") from None
    count = 0
    try:
        # By name, not through the file object: to put its table of contents in front, FFmpeg reads its file again.
        with av.open(f"file:{file.name}", "w", format="mp4", options={"movflags": "+faststart"}) as container:
            stream = None
            for frame in frames:
                stream = stream or _mp4_stream(container, frame, fps)
                container.mux(stream.encode(_yuv(frame)))
                count += 1
            if stream is not None:
                container.mux(stream.encode(None))
    except av.error.FFmpegError as error:
        raise OSError(error.errno or errno.EIO, error.strerror or str(error)) from error
    return count


def _mp4_stream(container: OutputContainer, frame: NDArray[np.uint8], fps: float) -> VideoStream:
    import av
    from av.video.reformatter import ColorRange, Colorspace

    rate = Fraction(fps).limit_denominator(1001)
    stream: VideoStream
    if "libx264" in av.codecs_available:
        stream = container.add_stream("libx264", rate=rate, options={"crf": str(QUALITY), "preset": "fast"})
    else:
        stream = container.add_stream("mpeg4", rate=rate, options={"q:v": "2"})
    height, width = frame.shape[:2]
    stream.width, stream.height, stream.pix_fmt = width + width % 2, height + height % 2, "yuv420p"
    stream.codec_context.colorspace = Colorspace.ITU709
    stream.codec_context.color_range = ColorRange.MPEG
    return stream


def _yuv(frame: NDArray[np.uint8]) -> av.VideoFrame:
    """A frame of even size in YUV 4:2:0 by ITU-R BT.709, which the file says too, so that no player need guess."""
    import av
    from av.video.reformatter import ColorRange, Colorspace

    height, width = frame.shape[:2]
    even = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge") if height % 2 or width % 2 else frame
    picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24")
    return picture.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG)


def _write_gif(file: IO[bytes], frames: Iterator[NDArray[np.uint8]], fps: float) -> int:
    pictures, delays = _in_hundredths(list(frames), fps)
    step = -(-len(pictures) // PALETTE_FRAMES)
    sparse = -(-max(pictures[0].shape) // PALETTE_SIDE)  # of large frames not every pixel is asked
    sample = Image.fromarray(np.concatenate([picture[::sparse, ::sparse] for picture in pictures[::step]]))
    # One colour is left over for Pillow to mark what stays as it was.
    palette = sample.quantize(255, Image.Quantize.MEDIANCUT, kmeans=1)
    pattern = _dither_pattern(*pictures[0].shape[:2])
    indexed = [
        Image.fromarray(np.rint(np.clip(picture + pattern, 0, 255)).astype(np.uint8)).quantize(
            palette=palette, dither=Image.Dither.NONE
        )
        for picture in pictures
    ]
    indexed[0].save(
        file,
        format="GIF",
        save_all=True,
        append_images=indexed[1:],
        duration=[10 * delay for delay in delays],
        loop=0,
        optimize=False,
    )
    return len(pictures)


def _in_hundredths(frames: list[NDArray[np.uint8]], fps: float) -> tuple[list[NDArray[np.uint8]], list[int]]:
    """The frames that a GIF can show, and for how many hundredths of a second each, so that the whole is in time."""
    times = [round(100 * number / fps) for number in range(len(frames) + 1)]
    kept = [0]
    for number, time in enumerate(times[:-1]):
        if time - times[kept[-1]] >= LEAST_DELAY:
            kept.append(number)
    ends = [times[number] for number in kept[1:]] + [times[-1]]
    delays = [max(LEAST_DELAY, end - times[number]) for number, end in zip(kept, ends, strict=True)]
    return [frames[number] for number in kept], delays


def _dither_pattern(height: int, width: int) -> NDArray[np.float32]:
    """Bayer's 8 × 8 pattern over a picture, (H, W, 1), from −DITHER / 2 to DITHER / 2.

    It stands still, so that plain parts do not flicker, as they would with errors diffused anew in every frame.
    """
    pattern = np.zeros((1, 1))
    for _ in range(3):
        pattern = np.block([[4 * pattern, 4 * pattern + 2], [4 * pattern + 3, 4 * pattern + 1]])
    levels = (pattern + 0.5) / pattern.size - 0.5
    tiled = np.tile(levels, (-(-height // 8), -(-width // 8)))[:height, :width, None]
    return (tiled * DITHER).astype(np.float32)


def _write_webp(file: IO[bytes], frames: Iterator[NDArray[np.uint8]], fps: float) -> int:
    pictures = [Image.fromarray(frame) for frame in frames]
    times = [round(1000 * number / fps) for number in range(len(pictures) + 1)]
    delays = [max(1, after - before) for before, after in pairwise(times)]
    pictures[0].save(
        file, format="WEBP", save_all=True, append_images=pictures[1:], duration=delays, loop=0, quality=85, method=3
    )
    return len(pictures)
