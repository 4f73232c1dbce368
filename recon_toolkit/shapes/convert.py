"""From one form of a shape to another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from recon_toolkit.errors import DataError
from recon_toolkit.nearest import suggestion
from recon_toolkit.shapes.contour import contour, mesh_of_voxels
from recon_toolkit.shapes.field import FEWEST_POINTS, solid_field
from recon_toolkit.shapes.forms import Cloud, Floats, Mesh, Shape, Voxels, form_of
from recon_toolkit.shapes.outliers import without_outliers
from recon_toolkit.shapes.voxels import voxels_of_cloud, voxels_of_mesh

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
