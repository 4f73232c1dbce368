"""From one form of a shape to another."""

from __future__ import annotations

from dataclasses import dataclass

from recon_toolkit.errors import DataError
from recon_toolkit.nearest import suggestion
from recon_toolkit.shapes.contour import mesh_of_voxels
from recon_toolkit.shapes.field import FEWEST_POINTS
from recon_toolkit.shapes.forms import Cloud, Floats, Mesh, Shape, Voxels, form_of
from recon_toolkit.shapes.outliers import without_outliers
from recon_toolkit.shapes.sampling import sampled
from recon_toolkit.shapes.solidify import solid_of
from recon_toolkit.shapes.voxels import voxels_of_cloud, voxels_of_mesh

#: Deviations above the mean at which a point is a stray: so far that a cloud without outliers keeps all its points.
_STRAY = 6.0


@dataclass(frozen=True)
class Conversion:
    """How shapes are converted.

    Args:
        resolution: of the grid on which a cloud becomes a solid; see
            :func:`~recon_toolkit.shapes.solidify.solid_of`.
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
