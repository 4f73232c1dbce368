"""The solid that a cloud of points is the surface of, as a field, and a field as a closed manifold surface."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recon_toolkit.errors import DataError
from recon_toolkit.shapes.forms import Cloud, Floats, Mask, Mesh, Voxels

if TYPE_CHECKING:
    from scipy.spatial import cKDTree


def without_outliers(points: ArrayLike, *, neighbours: int = 16, deviations: float = 2.0) -> Mask:
    """Which points belong to the cloud, by statistical outlier removal.

    A point is an outlier if its mean distance to its nearest ``neighbours`` is above the cloud's mean of that distance
    by more than ``deviations`` standard deviations (Rusu, Marton, Blodow, Dolha, Beetz 2008, section 3).

    Args:
        points: (N, 3).
        neighbours: how many others a point is compared with.
        deviations: how far above the mean a point may be.

    Returns:
        (N,) bool, True for points to keep.

    Raises:
        DataError: there are not more points than neighbours, or one is not finite.
        ValueError: an argument is out of range.
    """
    if neighbours < 1 or not deviations > 0:
        raise ValueError(f"neighbours are 1 or more and deviations above 0, not {neighbours} and {deviations}")
    places = Cloud(np.asarray(points)).points
    distance = neighbour_distances(places, neighbours).mean(axis=1)
    # The rounding of equal distances must not make outliers of a regular grid's points.
    limit = distance.mean() + deviations * distance.std() + 1e-12 * float(np.ptp(places, axis=0).max())
    return np.asarray(distance <= limit)


def neighbour_distances(points: ArrayLike, neighbours: int) -> np.typing.NDArray[np.float64]:
    """Distances (N, neighbours) of each point (N, 3) to the nearest others, rising.

    Raises:
        DataError: there are not more points than neighbours.
    """
    from scipy.spatial import cKDTree

    places = np.asarray(points, dtype=np.float64)
    if len(places) <= neighbours:
        raise DataError(
            f"{len(places)} points are too few to find {neighbours} neighbours of each", remedy="use a denser cloud"
        )
    # The first is the point itself, or another in the same place, which is as near.
    distances, _ = cKDTree(places).query(places, k=neighbours + 1, workers=-1)
    return np.asarray(distances[:, 1:])


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


#: Fewest different points that a solid is made of.
FEWEST_POINTS = 100
#: A point's neighbour whose distance is the cloud's spacing. Points drawn evenly with density ρ have k of them within
#: d on average where π d² ρ = k; a hole of that size is among them with a chance of exp(−k) per point.
_NEIGHBOURS = 24
#: Pitches to either side of the surface within which distances are exact.
_BAND = 3.0
#: Pitches that a gap has at most: a finer grid shows no more, and costs the more the further the ball reaches.
_MOST_PITCHES = 6.0
#: Factor by which a gap is widened where that encloses more by a share of the whole, and how often at most.
_RAISE = (1.15, 1.3, 1.5)
_LOST = 0.002
_RAISES = 3


@dataclass(frozen=True, eq=False)
class SolidField:
    """About the signed distance to a solid's surface at the nodes of a regular grid, within a few pitches of it.

    Attributes:
        values: (X, Y, Z) float32, above 0 inside, in the cloud's units.
        origin: (3,), place of node (0, 0, 0).
        pitch: distance of neighbouring nodes.
        gap: what was closed; see :func:`solid_field`.
        wall: the least thickness.
    """

    values: NDArray[np.float32]
    origin: Floats
    pitch: float
    gap: float
    wall: float

    def at(self, points: ArrayLike) -> Floats:
        """The field at points (N, 3), between the nodes linear, (N,)."""
        from scipy.ndimage import map_coordinates

        places = (np.asarray(points, dtype=np.float64) - self.origin) / self.pitch
        return np.asarray(map_coordinates(self.values, places.T, order=1, mode="nearest"), dtype=np.float64)


def solid_field(
    points: ArrayLike, *, resolution: int = 128, gap: float | None = None, wall: float | None = None
) -> SolidField:
    """The solid whose surface was sampled by points without normals.

    A ball of radius ``gap`` rolls around the cloud, held off by its points, and what it cannot reach is the solid: the
    points with less than ``gap`` to the cloud and the cavities these enclose, eroded by ``gap`` (a closing; compare
    the α-shapes of Edelsbrunner and Mücke 1994). That needs no normals, and closes whatever the cloud. Where the
    solid is thinner than ``wall``, as around a sheet of points, it grows to that thickness. Hollows narrower than
    twice ``gap`` are closed as well; where the points leave a hole wider than that, what is left is a shell around
    them.

    Args:
        points: (N, 3), of the surface.
        resolution: nodes along the cloud's longest side, 16 to 1024; fewer where points are so sparse that a pitch
            would be less than a sixth of ``gap``.
        gap: radius of the ball, in the cloud's units. By default the distance within which nine of ten points have
            24 others, which holes of an evenly drawn cloud do not reach; at least 2 pitches, at most a tenth of the
            longest side. It is made up to half as wide again, thrice if need be, where the inside leaks out through
            a hole of that size. Any gap is raised to half of ``wall`` and one pitch, should it be less.
        wall: least thickness, in the cloud's units, at least 1.5 pitches. 2 pitches by default.

    Raises:
        DataError: there are less than 100 different points, they lie on a plane, or one is not finite.
        ValueError: an argument is out of range.
    """
    places, low, size = _solid_cloud(points)
    longest = float(size.max())
    if not 16 <= resolution <= 1024:
        raise ValueError(f"a resolution is 16 to 1024, not {resolution}")
    if gap is not None and not 0 < gap <= longest / 2:
        raise ValueError(f"a gap is above 0 and up to half of the longest side, {longest / 2:g}, not {gap:g}")
    pitch = longest / (resolution - 1)
    if wall is not None and not 1.5 * pitch <= wall <= longest / 2:
        raise ValueError(
            f"a wall of {wall:g} is not from 1.5 pitches to half of the longest side ({1.5 * pitch:g} to "
            f"{longest / 2:g}); thinner ones need a higher resolution"
        )
    from scipy.spatial import cKDTree

    cloud = cKDTree(places)
    if gap is not None:
        grid = _grid(low, size, pitch, gap, wall)
        grown = _grown(cloud, grid)
    else:
        reach = float(np.quantile(neighbour_distances(places, _NEIGHBOURS)[:, -1], 0.9))
        grid = _grid(low, size, pitch, min(max(reach, 2 * pitch), longest / 10), wall)
        grown = _grown(cloud, grid)
        for _ in range(_RAISES):
            factor = _leak(cloud, grid, grown)
            if factor == 1:
                break
            grid = _grid(low, size, pitch, factor * grid.gap, wall)
            grown = _grown(cloud, grid)
    depth = _thickened(_closed(cloud, grid, grown), grid.pitch, grid.wall)
    return SolidField(_smoothed(depth, grid.pitch), grid.origin, grid.pitch, grid.gap, grid.wall)


@dataclass(frozen=True)
class _Grid:
    """Where the nodes are, and with which lengths the cloud is closed."""

    origin: Floats
    shape: tuple[int, ...]
    pitch: float
    gap: float
    wall: float


def _grid(low: Floats, size: Floats, pitch: float, gap: float, wall: float | None) -> _Grid:
    pitch = max(pitch, min(gap / _MOST_PITCHES, np.inf if wall is None else wall / 1.5))
    wall = 2 * pitch if wall is None else float(wall)
    gap = max(gap, wall / 2 + pitch)
    margin = int(np.ceil(gap / pitch)) + 3
    shape = tuple(int(n) + 1 + 2 * margin for n in np.ceil(size / pitch - 1e-9))
    return _Grid(low - margin * pitch, shape, pitch, gap, wall)


def _solid_cloud(points: ArrayLike) -> tuple[Floats, Floats, Floats]:
    """The different points of a cloud, its lowest corner and its sides."""
    places = np.unique(Cloud(np.asarray(points)).points, axis=0)
    low, size = places.min(axis=0), np.ptp(places, axis=0)
    if len(places) < FEWEST_POINTS:
        raise DataError(
            f"{len(places)} different points are too few for a solid", remedy=f"use {FEWEST_POINTS} or more"
        )
    spread = np.linalg.svd(places - places.mean(axis=0), compute_uv=False)
    if not spread[2] > 1e-6 * spread[0]:
        where = "a plane" if spread[1] > 1e-6 * spread[0] else "a line"
        raise DataError(f"the points lie on {where}, which has no inside", remedy="use points from all sides")
    return places, low, size


def _grown(cloud: cKDTree, grid: _Grid) -> Mask:
    """The nodes within the gap of the cloud, and all that they enclose."""
    return filled(grid_distances(cloud, grid.shape, grid.origin, grid.pitch, grid.gap, 1.1 * grid.gap) <= grid.gap)


def _leak(cloud: cKDTree, grid: _Grid, grown: Mask) -> float:
    """How many times as wide a gap has to be to enclose what this one does not; 1 if it leaks nowhere.

    What a somewhat larger gap encloses, and this one does not, was lost through a hole between points.
    """
    coarse = grown[::2, ::2, ::2]
    low, high = (grid.gap * factor for factor in (_RAISE[0], _RAISE[-1]))
    distance = grid_distances(cloud, coarse.shape, grid.origin, 2 * grid.pitch, low, 1.1 * high)
    for factor in _RAISE:
        # The margin is that of the smaller gap; beyond it everything is outside.
        around = np.pad(distance <= factor * grid.gap, 1)
        cavities = (filled(around) & ~around)[1:-1, 1:-1, 1:-1]
        if (cavities & ~coarse).sum() > _LOST * (cavities | coarse).sum():
            return factor
    return 1.0


def _closed(cloud: cKDTree, grid: _Grid, grown: Mask) -> NDArray[np.float32]:
    """Depth below the surface of the closing, exact within some pitches of it."""
    from scipy.ndimage import binary_dilation
    from scipy.spatial import cKDTree

    # The boundary of the grown region, to a fraction of a pitch: from each node just outside straight to its nearest
    # point, up to the distance ``gap``, where no other point is nearer either.
    rim = np.argwhere(binary_dilation(grown) & ~grown) * grid.pitch + grid.origin
    distance, index = cloud.query(rim, workers=-1)
    nearest = cloud.data[index]
    boundary = cKDTree(nearest + (rim - nearest) * (grid.gap / distance)[:, None])
    low, high = max(grid.gap - _BAND * grid.pitch, 0.0), grid.gap + _BAND * grid.pitch
    depth = grid_distances(boundary, grid.shape, grid.origin, grid.pitch, low, high, grown)
    return np.where(grown, depth - np.float32(grid.gap), np.float32(-_BAND * grid.pitch)).astype(np.float32)


def _thickened(depth: NDArray[np.float32], pitch: float, wall: float) -> NDArray[np.float32]:
    """The surface moved outwards where nothing nearby is half a wall deep, by what is missing."""
    from scipy.ndimage import maximum_filter

    reach = int(np.ceil(wall / 2 / pitch)) + 2  # so that just outside a thick part its depth is still seen
    deepest = np.clip(maximum_filter(depth, 2 * reach + 1), 0, wall / 2)
    return np.asarray(depth + (wall / 2 - deepest), dtype=np.float32)


def _smoothed(values: NDArray[np.float32], pitch: float) -> NDArray[np.float32]:
    from scipy.ndimage import gaussian_filter

    once = gaussian_filter(values, 0.8, truncate=3.0)
    # Smoothing draws thin bars in from all around, and would break them: most of that is given back (Taubin 1995).
    smooth = 2 * once - gaussian_filter(once, 0.8, truncate=3.0)
    return np.asarray(np.maximum(smooth, values - 0.25 * pitch), dtype=np.float32)


def grid_distances(
    tree: cKDTree,
    shape: tuple[int, ...],
    origin: Floats,
    pitch: float,
    low: float,
    high: float,
    where: NDArray[np.bool_] | None = None,
) -> NDArray[np.float32]:
    """Distances of a grid's nodes to the nearest point of a tree, exact from ``low`` to ``high`` and cut off there.

    Distance changes by no more than one moves. So a block of nodes is looked at closely only if the distance of its
    centre leaves open whether some of them are between the two; a Euclidean distance transform of the whole grid
    would take several times as long and know less.

    Args:
        tree: of the points.
        shape: (X, Y, Z) of the grid.
        origin: (3,), place of node (0, 0, 0).
        pitch: distance of neighbouring nodes.
        low, high: range of the distances.
        where: nodes (X, Y, Z) that matter; what the others get is not said. All by default.
    """
    result = np.full(shape, high, dtype=np.float32)
    step = 8
    blocks = np.argwhere(np.ones([-(-n // step) for n in shape], dtype=bool)) * step
    corners = np.array([(i, j, k) for i in (0, 1) for j in (0, 1) for k in (0, 1)])
    while True:
        if where is not None and step == 1:
            blocks = blocks[where[tuple(blocks.T)]]
        half = (step - 1) / 2 * pitch * np.sqrt(3)
        centres = (blocks + (step - 1) / 2) * pitch + origin
        distance, _ = tree.query(centres, distance_upper_bound=high + half + 1e-9 * pitch, workers=-1)
        if step == 1:
            result[tuple(blocks.T)] = np.clip(distance, low, high)
            return result
        certain = distance + half <= low
        if certain.any():
            within = blocks[certain]
            inner = np.stack(np.meshgrid(*(np.arange(step),) * 3, indexing="ij"), -1).reshape(-1, 3)
            nodes = (within[:, None] + inner).reshape(-1, 3)
            nodes = nodes[(nodes < shape).all(axis=1)]
            result[tuple(nodes.T)] = low
        open_ = (distance - half <= high) & ~certain
        step //= 2
        blocks = (blocks[open_][:, None] + corners * step).reshape(-1, 3)
        blocks = blocks[(blocks < shape).all(axis=1)]
