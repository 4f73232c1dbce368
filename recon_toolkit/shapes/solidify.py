"""A cloud of points as a closed mesh, without normals."""

from __future__ import annotations

from numpy.typing import ArrayLike

from recon_toolkit.shapes.contour import contour
from recon_toolkit.shapes.field import solid_field
from recon_toolkit.shapes.forms import Mesh


def solid_of(points: ArrayLike, *, resolution: int = 128, gap: float | None = None, wall: float | None = None) -> Mesh:
    """The solid whose surface was sampled: watertight, outward, manifold by edges and by vertices.

    :func:`~recon_toolkit.shapes.field.solid_field` says how the solid is found; its surface is drawn by marching
    cubes. Pieces with less than 1/200 of the volume are dropped and cavities filled.

    Args:
        points: (N, 3), at least 100 different ones. Take outliers out first: see
            :func:`~recon_toolkit.shapes.outliers.without_outliers`.
        resolution: nodes of the grid along the cloud's longest side, 16 to 1024. Time and memory grow with its cube.
        gap: holes between points up to twice as wide are closed, in the cloud's units. By default the distance within
            which nine of ten points have 24 others; at least 2 pitches of the grid, at most a tenth of the longest
            side.
        wall: least thickness, in the cloud's units; 2 pitches of the grid by default, and at least 1.5.

    Raises:
        DataError: the points are too few, lie on a plane or a line, or one is not finite.
        ValueError: an argument is out of range.
    """
    field = solid_field(points, resolution=resolution, gap=gap, wall=wall)
    return contour(field.values, field.origin, field.pitch)
