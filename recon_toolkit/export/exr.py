"""Depth, and normals with it, as an OpenEXR file for compositing and 3D programs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recon_toolkit.data.float_images import openexr
from recon_toolkit.files import writing

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
