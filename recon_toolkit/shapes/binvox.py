"""Voxels as ``.binvox`` files: Min's run-length format, as binvox and ShapeNet write it.

A text header (``dim``, ``translate``, ``scale``), then pairs of bytes, a value and how often it comes, over the cube's
voxels with y changing quickest, then z, then x. ``translate`` is the cube's lowest corner and ``scale`` its side.
"""

from __future__ import annotations

import numpy as np

from recon_toolkit.errors import DataError
from recon_toolkit.shapes.forms import Voxels
from recon_toolkit.shapes.limits import MAX_VOXELS, too_large


def binvox_bytes(voxels: Voxels) -> bytes:
    """Voxels as the contents of a file; grids that are no cubes are filled up to one with empty voxels."""
    side = max(voxels.filled.shape)
    cube = np.pad(voxels.filled, [(0, side - n) for n in voxels.filled.shape])
    values = cube.transpose(0, 2, 1).reshape(-1).astype(np.uint8)
    starts = np.concatenate(([0], np.flatnonzero(np.diff(values)) + 1))
    lengths = np.diff(np.append(starts, len(values)))
    # A run longer than a byte can say becomes several of 255 and a rest.
    parts = -(-lengths // 255)
    counts = np.full(parts.sum(), 255, dtype=np.uint8)
    counts[np.cumsum(parts) - 1] = (lengths - 1) % 255 + 1
    runs = np.stack((np.repeat(values[starts], parts), counts), axis=1)
    corner = " ".join(repr(float(value)) for value in voxels.origin)
    header = f"#binvox 1\ndim {side} {side} {side}\ntranslate {corner}\nscale {voxels.pitch * side!r}\ndata\n"
    return header.encode() + runs.astype(np.uint8).tobytes()


def voxels_from_binvox(data: bytes) -> Voxels:
    """Voxels from the contents of a file.

    Raises:
        DataError: it is no such file, or it is not whole.
    """
    head, found, body = data.partition(b"\ndata\n")
    lines = head.decode("ascii", "replace").split("\n")
    if not found or not lines[0].startswith("#binvox"):
        raise DataError("this is no binvox file", remedy="check where it comes from")
    fields = {words[0]: words[1:] for words in (line.split() for line in lines[1:]) if words}
    try:
        depth, width, height = (int(word) for word in fields["dim"])
        origin = np.array([float(word) for word in fields.get("translate", ("0", "0", "0"))])
        scale = float(fields.get("scale", ("1",))[0])
    except (KeyError, ValueError, IndexError):
        raise DataError("the header of this binvox file cannot be read", remedy="check where it comes from") from None
    if not 0 < depth * width * height <= MAX_VOXELS:
        raise too_large(f"it has {depth} x {width} x {height} voxels")
    runs = np.frombuffer(body[: len(body) // 2 * 2], dtype=np.uint8).reshape(-1, 2)
    total, expected = int(runs[:, 1].sum(dtype=np.int64)), depth * width * height
    if total != expected or min(depth, width, height) < 1:
        raise DataError(f"this binvox file has {total:,} voxels of {expected:,}", remedy="the file may be cut off")
    values = np.repeat(runs[:, 0] > 0, runs[:, 1])
    # The third number is y's: it is listed as x, z, y.
    filled = values.reshape(depth, width, height).transpose(0, 2, 1)
    return Voxels(np.ascontiguousarray(filled), origin, scale / depth)
