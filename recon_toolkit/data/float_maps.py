"""Maps of numbers as files: ``.npy``, ``.npz``, EXR, PFM and TIFFs of floats that Pillow does not read exactly."""

from __future__ import annotations

import math
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from recon_toolkit.data.limits import npy_header
from recon_toolkit.errors import DataError
from recon_toolkit.files import size_of, writing

EXR, PFM, ARRAYS = ".exr", ".pfm", (".npy", ".npz")
#: Members of an ``.npz`` that are looked at.
MOST_MEMBERS = 10_000
#: Bytes of a PFM's three lines of text; real ones have some twenty.
_PFM_HEAD = 1024
_PFM = re.compile(rb"(Pf|PF)\s+(\d{1,9})\s+(\d{1,9})\s+([-+]?[0-9.]+(?:[eE][-+]?\d{1,3})?)\s")
#: The channel of an EXR file that is its depth, the first of these that there is.
_DEPTH_CHANNELS = ("Z", "depth.Z", "Depth.Z", "depth", "Depth", "depth.V", "Depth.V", "Y", "V")


def openexr(where: str) -> Any:
    """The package OpenEXR; raises DataError about ``where`` if it is not installed."""
    try:
        import OpenEXR
    except ImportError as error:
        raise DataError(
            f"EXR files need the package OpenEXR, which cannot be imported: {error}",
            where=where,
            remedy="pip install 'recon-toolkit[exr]'",
        ) from None
    return OpenEXR


def read_array(path: Path, *, limit: int) -> NDArray[Any]:
    """The array of an ``.npy`` or ``.npz``, as it is stored.

    Args:
        path: the file; an ``.npz`` must hold one array, or one named ``depth``.
        limit: most values that are read.

    Raises:
        DataError: it holds more values, others than real numbers, or several arrays.
        Exception: whatever NumPy raises on damaged files.
    """
    if path.suffix.lower() == ".npy":
        with path.open("rb") as file:
            count = _checked_header(file, path, limit)
            if size_of(path) - file.tell() < count:
                raise DataError("is truncated", where=str(path), remedy="copy or download it again")
        return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    with zipfile.ZipFile(path) as archive:
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()[:MOST_MEMBERS]}
        name = "depth" if "depth" in members else next(iter(members)) if len(members) == 1 else None
        if name is None:
            found = ", ".join(list(members)[:5]) or "nothing"
            raise DataError(f"holds {found}", where=str(path), remedy="name the depth array 'depth'")
        info = members[name]
        with archive.open(info) as member:
            count = _checked_header(member, path, limit)
            if info.file_size - member.tell() < count:
                raise DataError("is truncated, or made to fill the memory", where=str(path), remedy="write it again")
        with archive.open(info) as member:
            return np.asarray(np.lib.format.read_array(member, allow_pickle=False))


def _checked_header(file: IO[bytes], path: Path, limit: int) -> int:
    """Bytes of the values that an ``.npy`` stream's header announces; the stream then stands behind the header."""
    shape, dtype = npy_header(file)
    if dtype.hasobject:
        raise ValueError("it holds pickled objects, which are never read")
    if not (np.issubdtype(dtype, np.number) or dtype == np.bool_) or np.issubdtype(dtype, np.complexfloating):
        raise DataError(f"holds {dtype} values", where=str(path), remedy="store depth as floats")
    count = math.prod(shape)
    if count > limit:
        raise DataError(f"holds {count:,} values", where=str(path), remedy=f"at most {limit:,} are read")
    return int(count * dtype.itemsize)


def read_exr(path: Path, *, limit: int) -> NDArray[np.float64]:
    """The depth of an OpenEXR file: its channel ``Z``, or one of the other usual names, or the only one it has.

    Args:
        path: the file. Of several parts, the first counts.
        limit: most pixels that are read.

    Returns:
        (H, W) float64 of the data window; infinite where the file says so.

    Raises:
        DataError: the package OpenEXR is not installed, there is no such channel, or it has more pixels.
        Exception: whatever the package raises on damaged files.
    """
    package = openexr(str(path))
    with package.File(str(path), separate_channels=True, header_only=True) as file:
        low, high = file.header()["dataWindow"]
        _check_pixels(int(high[0]) - int(low[0]) + 1, int(high[1]) - int(low[1]) + 1, path, limit)
    with package.File(str(path), separate_channels=True) as file:
        channels: Mapping[str, Any] = file.channels()
        name = next((name for name in _DEPTH_CHANNELS if name in channels), None)
        if name is None and len(channels) == 1:
            name = next(iter(channels))
        values = {key: np.asarray(channel.pixels) for key, channel in channels.items()}
    if name is None and {"R", "G", "B"} <= values.keys():
        return _grey(np.stack([values[key] for key in "RGB"], axis=2), path)
    if name is None:
        found = ", ".join(list(values)[:8]) or "nothing"
        raise DataError(f"has no channel for depth; it has {found}", where=str(path), remedy="call the channel Z")
    return values[name].astype(np.float64)


def read_pfm(path: Path, *, limit: int) -> NDArray[np.float64]:
    """A portable float map, whose rows lie from the bottom upwards; one of colours counts where they are equal.

    Args:
        path: the file.
        limit: most pixels that are read.

    Returns:
        (H, W) float64.

    Raises:
        DataError: it is none, is cut off, has colours, or more pixels.
    """
    with path.open("rb") as file:
        head = _PFM.match(file.read(_PFM_HEAD))
        if head is None:
            raise DataError("is no PFM file", where=str(path), remedy="give a file that begins with Pf")
        colours, width, height = 3 if head[1] == b"PF" else 1, int(head[2]), int(head[3])
        _check_pixels(width, height, path, limit)
        file.seek(head.end())
        data = file.read(4 * width * height * colours)
    if len(data) < 4 * width * height * colours:
        raise DataError("is truncated", where=str(path), remedy="copy or download it again")
    order = "<" if float(head[4]) < 0 else ">"  # the sign of the scale is the byte order; its size has no meaning
    values = np.frombuffer(data, dtype=f"{order}f4").reshape(height, width, colours)[::-1]
    return _grey(values, path)


def read_float_tiff(path: Path, *, limit: int) -> NDArray[np.float64]:
    """The first page of a TIFF of 16-, 32- or 64-bit floats; one of colours counts where they are equal.

    Args:
        path: the file.
        limit: most pixels that are read.

    Returns:
        (H, W) float64.

    Raises:
        DataError: it holds no floats, has more pixels, or is compressed in a way that cannot be read here.
        Exception: whatever the package tifffile raises on damaged files.
    """
    import tifffile

    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        if page.dtype is None or not np.issubdtype(page.dtype, np.floating):
            raise DataError("is a TIFF of a kind that is not read", where=str(path), remedy="store depth as floats")
        _check_pixels(page.imagewidth, page.imagelength * page.samplesperpixel, path, limit)
        try:
            values = page.asarray()
        except (ValueError, KeyError) as error:
            if "imagecodecs" not in str(error):
                raise
            raise DataError(
                "is compressed in a way that is not read here", where=str(path), remedy="save it uncompressed"
            ) from None
    return _grey(values if values.ndim == 3 else values[..., None], path)


def _check_pixels(width: int, height: int, path: Path, limit: int) -> None:
    if width < 1 or height < 1:
        raise DataError("is damaged: it has no pixels", where=str(path), remedy="copy or download it again")
    if width * height > limit:
        raise DataError(
            f"{width}×{height} pixels are more than the {limit:,} that are read",
            where=str(path),
            remedy="scale the map down first",
        )


def _grey(values: NDArray[Any], path: Path) -> NDArray[np.float64]:
    """(H, W, colours) → (H, W) where the colours are equal."""
    if values.shape[2] > 1 and not np.array_equal(values, np.broadcast_to(values[..., :1], values.shape), True):
        raise DataError("a colour image is not a depth map", where=str(path), remedy="give one channel of depth")
    return values[..., 0].astype(np.float64)


__all__ = ["openexr", "write_exr"]


def write_exr(path: str | Path, depth: NDArray[np.floating], *, normals: NDArray[np.floating] | None = None) -> None:
    """Write depth as the channel ``Z`` of 32-bit floats, losslessly compressed, whole or not at all.

    Args:
        path: the file, ``.exr``.
        depth: (H, W) z in units of the object's distance; where it is not finite the file says infinity, which
            programs take for nothing there.
        normals: (3, H, W) of ours, along the line of sight; the file has the outward normals, x right, y up, z to
            the viewer, as ``N.X``, ``N.Y`` and ``N.Z``, and 0 where there is no depth.

    Raises:
        DataError: the package OpenEXR is not installed, or the place cannot be written.
        ValueError: a shape is wrong.
    """
    if depth.ndim != 2:
        raise ValueError(f"depth must be (H, W), not {depth.shape}")
    if normals is not None and normals.shape != (3, *depth.shape):
        raise ValueError(f"normals must be {(3, *depth.shape)} as the depth is, not {normals.shape}")
    package = openexr(str(path))
    there = np.isfinite(depth)
    channels = {"Z": np.where(there, depth, np.inf).astype(np.float32)}
    if normals is not None:
        # The outward normal is the negative of ours; with y up and z to the viewer, two signs change again.
        outward = np.where(there, normals * np.array([-1, 1, 1]).reshape(3, 1, 1), 0).astype(np.float32)
        channels |= {f"N.{axis}": values for axis, values in zip("XYZ", outward, strict=True)}
    header = {"compression": package.ZIP_COMPRESSION, "type": package.scanlineimage}
    with writing(path) as file, package.File(header, channels) as picture:
        # The library writes by name only; it may report a failure as any exception.
        try:
            picture.write(file.name)
        except Exception as error:
            raise OSError(None, str(error)) from error
