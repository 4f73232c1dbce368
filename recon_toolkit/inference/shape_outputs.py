"""Writing a result of points: its cloud, the closed mesh around it, voxels."""

from __future__ import annotations

from collections.abc import Set
from pathlib import Path

from recon_toolkit.errors import DataError
from recon_toolkit.result import Result

#: Voxels along the longest side.
VOXELS = 64
_ONLY_DEPTH = ("exr", "turntable", "relight")


def write_shapes(result: Result, folder: Path, kinds: Set[str], height_mm: float) -> list[Path]:
    """Write what ``kinds`` names of a result of points into ``folder``.

    Meshes for printing (STL, 3MF) are ``height_mm`` millimetres high; the others keep the object's own units, in which
    the cube that it lies in has sides of 1.

    Raises:
        DataError: there are too few points, an output needs depth, or the disk cannot be written.
    """
    from recon_toolkit.shapes.files import write_shape
    from recon_toolkit.shapes.voxels import voxels_of_mesh

    for kind in _ONLY_DEPTH:
        if kind in kinds:
            raise DataError(f"the output '{kind}' is of depth, which the model does not predict", remedy="leave it out")
    written = [write_shape(folder / "cloud.ply", result.cloud)] if "cloud" in kinds else []
    written += [write_shape(folder / f"mesh.{kind}", result.closed) for kind in ("glb", "obj", "ply") if kind in kinds]
    written += [
        write_shape(folder / f"mesh.{kind}", result.closed, height_mm=height_mm)
        for kind in ("stl", "3mf")
        if kind in kinds
    ]
    if "voxels" in kinds:
        written.append(write_shape(folder / "voxels.binvox", voxels_of_mesh(result.closed, VOXELS)))
    return written
