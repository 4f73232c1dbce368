"""A field on a regular grid as a surface that is closed and manifold, by marching cubes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recon_toolkit.errors import DataError
from recon_toolkit.shapes.forms import Floats, Mask, Mesh, Voxels

#: Least distance of a node's value from the level, in pitches: vertices keep apart from nodes, and from each other.
_CLEAR = 0.03


def contour(
    values: NDArray[np.float32], origin: Floats, pitch: float, *, dust: float = 0.005, holes: bool = False
) -> Mesh:
    """The surface around where a field is positive: watertight, outward, manifold by edges and by vertices.

    Marching cubes (Lewiner et al. 2003) is manifold where no face of a cell is ambiguous, that is, has corners inside
    on one diagonal and outside on the other: each edge of the grid that the surface cuts is then one vertex, with one
    fan of faces. So nodes are taken inside, one at a time, until no ambiguous face is left.

    Args:
        values: (X, Y, Z) at the nodes, above 0 inside, falling by about 1 per unit of length near the surface.
        origin: (3,), place of node (0, 0, 0).
        pitch: distance of neighbouring nodes.
        dust: pieces with less than this share of all that is inside are dropped.
        holes: keep cavities that the solid encloses; they are filled otherwise.

    Raises:
        DataError: nothing is inside.
    """
    from skimage.measure import marching_cubes

    field = np.pad(np.asarray(values, dtype=np.float32) / np.float32(pitch), 1, constant_values=-1.0)
    inside = unambiguous(_without_dust(field > 0, dust))
    if not holes:
        inside = filled(inside)
    if not inside.any():
        raise DataError("the shape has no inside to draw a surface around", remedy="use a higher resolution")
    field = np.clip(field, -3, 3)
    field = np.where(inside, np.maximum(field, _CLEAR), np.minimum(field, -_CLEAR)).astype(np.float32)
    low = np.argwhere(inside).min(axis=0) - 1
    high = np.argwhere(inside).max(axis=0) + 2
    part = field[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    vertices, faces, _, _ = marching_cubes(part, 0.0, gradient_direction="ascent")  # type: ignore[no-untyped-call]
    places = (vertices.astype(np.float64) + low - 1) * pitch + origin
    return Mesh(places, faces.astype(np.int64))


def mesh_of_voxels(voxels: Voxels) -> Mesh:
    """The smoothed surface of voxels: it passes between the centres of filled and of empty ones, and loses none.

    Watertight, outward and manifold, as :func:`contour` says. Cavities are kept.
    """
    from scipy.ndimage import gaussian_filter

    solid = np.pad(voxels.filled, 3)
    smooth = gaussian_filter(solid.astype(np.float32), 1.0, truncate=3.0) - 0.5
    # Smoothing may move the surface between two centres but not across one; 0.2 of 1 is a fair way from either.
    field = np.where(solid, np.maximum(smooth, 0.1), np.minimum(smooth, -0.1)) * (2 * voxels.pitch)
    return contour(field, voxels.origin - 2.5 * voxels.pitch, voxels.pitch, dust=0.0, holes=True)


def unambiguous(inside: Mask) -> Mask:
    """``inside`` (X, Y, Z) with as few nodes added as make every square of four unambiguous.

    Squares with exactly two diagonal corners inside get the other two, again and again: that only adds nodes between
    those that are there, so it ends.
    """
    inside = inside.copy()
    while True:
        added = np.zeros_like(inside)
        for one, other in ((0, 1), (0, 2), (1, 2)):
            a, b, c, d = (
                tuple(slice(step[(one, other).index(k)], None if step[(one, other).index(k)] else -1)
                      if k in (one, other) else slice(None) for k in range(3))
                for step in ((0, 0), (1, 1), (0, 1), (1, 0))
            )  # fmt: skip
            rising = inside[a] & inside[b] & ~inside[c] & ~inside[d]
            falling = ~inside[a] & ~inside[b] & inside[c] & inside[d]
            # One corner joins the diagonal already.
            added[c] |= rising
            added[a] |= falling
        if not added.any():
            return inside
        inside |= added


def filled(inside: Mask) -> Mask:
    """``inside`` (X, Y, Z), empty at the border, with the cavities that it encloses."""
    from scipy.ndimage import label

    outside, _ = label(~inside)
    return np.asarray(outside != outside[0, 0, 0])


def _without_dust(inside: Mask, share: float) -> Mask:
    from scipy.ndimage import label

    if not share > 0:
        return inside
    pieces, count = label(inside)
    sizes = np.bincount(pieces.ravel(), minlength=count + 1)
    large = sizes >= share * sizes[1:].sum()
    large[0] = False
    return np.asarray(large[pieces])
