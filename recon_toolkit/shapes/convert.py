"""From one form of a shape to another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recon_toolkit.errors import DataError, suggestion
from recon_toolkit.shapes.field import FEWEST_POINTS, contour, mesh_of_voxels, solid_field, without_outliers
from recon_toolkit.shapes.forms import Cloud, Floats, Mesh, Shape, Voxels, form_of

#: Pairs of a face and a line that are looked at together.
_AT_ONCE = 1 << 22
#: Most voxels along a side: 2³⁰ bytes.
MOST_VOXELS = 1024


def voxels_of_mesh(mesh: Mesh, count: int) -> Voxels:
    """The solid that a mesh encloses: the voxels with their centre inside.

    A centre is inside if the faces on a line from there to infinity go around it, counted with their sign; so parts
    may pass through each other, and faces may all look inwards. Lines along x, y and z each have a vote, but those
    that do not come out as they went in, and most of them decide: small holes and single faces the wrong way round do
    no harm.

    Args:
        mesh: closed, or nearly.
        count: voxels along the longest side of its box, 1 to 1024.

    Raises:
        DataError: no centre is inside.
        ValueError: ``count`` is out of range.
    """
    origin, shape, pitch = _grid(*mesh.bounds, count)
    votes = np.zeros(shape, dtype=np.int8)
    for axis in range(3):
        order = [(axis + 1) % 3, (axis + 2) % 3, axis]
        corners = (mesh.vertices[:, order] - origin[order]) / pitch - 0.5  # a voxel's number at its centre
        around = _around(corners[mesh.faces], (shape[order[0]], shape[order[1]], shape[order[2]]))
        vote = np.where(around[..., :-1] != 0, 1, -1) * (around[..., -1:] == 0)
        votes += np.transpose(vote, np.argsort(order)).astype(np.int8)
    if not (votes > 0).any():
        raise _nothing(count)
    return Voxels(votes > 0, origin, pitch)


def voxels_of_cloud(points: ArrayLike, count: int, *, resolution: int = 128) -> Voxels:
    """The solid that a cloud encloses: the voxels with their centre inside.

    The solid is that of :func:`~recon_toolkit.shapes.convert.solid_of`, with walls of a voxel's thickness or more,
    so that none falls between the centres.

    Args:
        points: (N, 3), at least 100 different ones.
        count: voxels along the longest side of its box, 1 to 1024.
        resolution: of the field that the solid is found in.

    Raises:
        DataError: the points are too few, lie on a plane or a line, or one is not finite.
        ValueError: an argument is out of range.
    """
    places = np.asarray(points, dtype=np.float64)
    field = solid_field(places, resolution=resolution)
    origin, shape, pitch = _grid(places.min(axis=0), places.max(axis=0), count)
    longest = float(np.ptp(places, axis=0).max())
    if field.wall < pitch and count > 2:
        field = solid_field(places, resolution=resolution, wall=min(pitch, longest / 2))
    centres = np.stack(np.meshgrid(*(np.arange(n) + 0.5 for n in shape), indexing="ij"), -1).reshape(-1, 3)
    inside = field.at(origin + centres * pitch).reshape(shape) > 0
    if not inside.any():
        raise _nothing(count)
    return Voxels(inside, origin, pitch)


def _grid(low: Floats, high: Floats, count: int) -> tuple[Floats, tuple[int, int, int], float]:
    """The lowest corner of a grid about a box and on its middle, its numbers of voxels, and their side."""
    if not 1 <= count <= MOST_VOXELS:
        raise ValueError(f"voxels along a side are 1 to {MOST_VOXELS}, not {count}")
    size = high - low
    if not size.max() > 0:
        raise DataError("all of the shape lies in one place", remedy="check what made it")
    pitch = float(size.max()) / count
    x, y, z = (max(1, int(n)) for n in np.ceil(size / pitch - 1e-9))
    return (low + high) / 2 - np.array((x, y, z)) * pitch / 2, (x, y, z), pitch


def _around(triangles: Floats, shape: tuple[int, int, int]) -> NDArray[np.int32]:
    """How often a surface goes around each point (i, j, k) of a grid, seen along the third axis.

    Args:
        triangles: (F, 3, 3), corners in units of the grid.
        shape: (X, Y, Z) of the grid.

    Returns:
        (X, Y, Z + 1); the last is beyond the grid, and 0 where the surface is closed.
    """
    low = np.maximum(np.ceil(triangles[..., :2].min(axis=1)), 0).astype(np.int64)
    high = np.minimum(np.floor(triangles[..., :2].max(axis=1)), np.array(shape[:2]) - 1).astype(np.int64)
    sides = np.maximum(high - low + 1, 0)
    lines = sides.prod(axis=1)
    # Where a line meets a face, all points from there on are on its other side; the sums over z count the sides.
    steps = np.zeros((shape[0], shape[1], shape[2] + 1), dtype=np.int32)
    ends = np.cumsum(lines)
    start = 0
    while start < len(triangles):
        base = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, base + _AT_ONCE, side="right")))
        count = lines[start:stop]
        face = np.repeat(np.arange(start, stop), count)
        number = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        column = low[face] + np.stack(np.divmod(number, sides[face, 1]), axis=1)
        sign, height = _crossings(triangles[face], column.astype(np.float64))
        met = sign != 0
        level = np.clip(np.ceil(height[met]), 0, shape[2]).astype(np.int64)
        np.add.at(steps, (column[met, 0], column[met, 1], level), sign[met])
        start = stop
    return np.cumsum(steps, axis=2, dtype=np.int32)


def _crossings(corners: Floats, at: Floats) -> tuple[NDArray[np.int32], Floats]:
    """Which lines along the third axis meet their triangle, with its orientation as 1 or −1, and how far up.

    A line on an edge belongs to one of its two faces: an edge gives both the same number, whichever way it runs, so
    the sum over a closed surface is exact.
    """
    turns = np.zeros(len(corners), dtype=np.int32)
    for k in range(3):
        a, b = corners[:, k], corners[:, (k + 1) % 3]
        upwards = (a[:, 1] < b[:, 1]) | ((a[:, 1] == b[:, 1]) & (a[:, 0] < b[:, 0]))
        low, high = np.where(upwards[:, None], a, b), np.where(upwards[:, None], b, a)
        spans = (low[:, 1] <= at[:, 1]) & (at[:, 1] < high[:, 1])
        side = (high[:, 0] - low[:, 0]) * (at[:, 1] - low[:, 1]) - (high[:, 1] - low[:, 1]) * (at[:, 0] - low[:, 0])
        turns += np.where(spans & (side > 0), np.where(upwards, 1, -1), 0).astype(np.int32)
    a, b, c = corners[:, 0], corners[:, 1], corners[:, 2]
    normal = np.cross(b - a, c - a)
    slope = np.where(normal[:, 2] == 0, np.inf, normal[:, 2])
    height = a[:, 2] - ((at - a[:, :2]) * normal[:, :2]).sum(axis=1) / slope
    # Steep faces have no certain height, but none beyond their corners.
    return turns, np.clip(height, corners[..., 2].min(axis=1), corners[..., 2].max(axis=1))


def _nothing(count: int) -> DataError:
    return DataError(
        f"no centre of a voxel is inside the shape at {count} along its longest side", remedy="use more voxels"
    )


#: Deviations above the mean at which a point is a stray: so far that a cloud without outliers keeps all its points.
_STRAY = 6.0


@dataclass(frozen=True)
class Conversion:
    """How shapes are converted.

    Args:
        resolution: of the grid on which a cloud becomes a solid; see
            :func:`~recon_toolkit.shapes.convert.solid_of`.
        voxels: along the longest side.
        points: drawn from a surface.
        keep_outliers: make solids of clouds as they are; points far apart are left out otherwise.
        seed: of the points.
    """

    resolution: int = 128
    voxels: int = 64
    points: int = 100_000
    keep_outliers: bool = False
    seed: int = 0


def converted(shape: Shape, form: str, options: Conversion | None = None) -> Shape:
    """A shape in another form; as it is if it has that form already.

    Args:
        shape: a cloud, a mesh or voxels.
        form: ``cloud``, ``mesh`` or ``voxels``. Clouds come from surfaces evenly by area, with normals; meshes from
            clouds as the solids they enclose, and from voxels by marching cubes; voxels are those with their centre
            inside the solid.
        options: sizes; see :class:`Conversion`.

    Raises:
        DataError: there is no such form, or the shape has no such form: an open sheet no voxels, a few points no mesh.
        ValueError: an option is out of range.
    """
    options = options or Conversion()
    if form not in ("cloud", "mesh", "voxels"):
        raise DataError(f"a shape has no form '{form}'", remedy=suggestion(form, ("cloud", "mesh", "voxels")))
    if form_of(shape) == form:
        return shape
    if isinstance(shape, Cloud):
        points = shape.points if options.keep_outliers else _without_strays(shape.points)
        if form == "mesh":
            return solid_of(points, resolution=options.resolution)
        return voxels_of_cloud(points, options.voxels, resolution=options.resolution)
    if isinstance(shape, Voxels):
        mesh = mesh_of_voxels(shape)
        return mesh if form == "mesh" else sampled(mesh, options.points, seed=options.seed)
    assert isinstance(shape, Mesh)
    if form == "cloud":
        return sampled(shape, options.points, seed=options.seed)
    return voxels_of_mesh(shape, options.voxels)


def _without_strays(points: Floats) -> Floats:
    if len(points) < FEWEST_POINTS:  # too few for a solid, which will say so
        return points
    return points[without_outliers(points, deviations=_STRAY)]


def solid_of(points: ArrayLike, *, resolution: int = 128, gap: float | None = None, wall: float | None = None) -> Mesh:
    """The solid whose surface was sampled: watertight, outward, manifold by edges and by vertices.

    :func:`~recon_toolkit.shapes.field.solid_field` says how the solid is found; its surface is drawn by marching
    cubes. Pieces with less than 1/200 of the volume are dropped and cavities filled.

    Args:
        points: (N, 3), at least 100 different ones. Take outliers out first: see
            :func:`~recon_toolkit.shapes.field.without_outliers`.
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


def sampled(mesh: Mesh, count: int, *, seed: int = 0) -> Cloud:
    """Draw points evenly from a mesh's surface, with the normals of their faces.

    Each of ``count`` strata of equal area has one point, so that few points cover all of it.

    Args:
        mesh: with some area.
        count: how many points, 1 or more.
        seed: 0 or more; the same seed draws the same points.

    Raises:
        DataError: the mesh has no area.
        ValueError: ``count`` is below 1.
    """
    if count < 1:
        raise ValueError(f"points are 1 or more, not {count}")
    rng = np.random.default_rng(seed)
    a, b, c = (mesh.vertices[mesh.faces[:, k]] for k in range(3))
    total = np.cumsum(np.linalg.norm(np.cross(b - a, c - a), axis=1))
    if not 0 < total[-1] < np.inf:
        raise DataError("the mesh has no area to draw points from", remedy="check what made it")
    at = (np.arange(count) + rng.random(count)) / count * total[-1]
    face = np.minimum(np.searchsorted(total, at, side="right"), len(total) - 1)
    # A square folded into a triangle (Osada et al. 2002, section 4.2): √r spreads evenly from one corner.
    r, s = np.sqrt(rng.random(count))[:, None], rng.random(count)[:, None]
    return Cloud(a[face] * (1 - r) + b[face] * (r * (1 - s)) + c[face] * (r * s), mesh.normals[face])
