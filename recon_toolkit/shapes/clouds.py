"""A raw cloud made ready for use."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from recon_toolkit.errors import DataError
from recon_toolkit.shapes.field import SolidField, contour, solid_field, without_outliers
from recon_toolkit.shapes.forms import Cloud, Floats, Mesh


@dataclass(frozen=True, eq=False)
class CleanCloud:
    """A cloud without outliers and with outward normals, and the solid that it encloses.

    Attributes:
        cloud: the points.
        field: the solid as a field, which normals and mesh are read off.
    """

    cloud: Cloud
    field: SolidField

    @classmethod
    def of(cls, points: ArrayLike) -> CleanCloud:
        """From points (N, 3) as a model gives them.

        Raises:
            DataError: there are too few of them, or they lie on a plane.
        """
        places = np.asarray(points, dtype=np.float64)
        kept = places[without_outliers(places)]
        field = solid_field(kept)
        return cls(Cloud(kept, normals_of(kept, field=field)), field)

    @cached_property
    def mesh(self) -> Mesh:
        """The closed surface: watertight, outward, manifold; see :func:`~recon_toolkit.shapes.convert.solid_of`."""
        return contour(self.field.values, self.field.origin, self.field.pitch)


#: How far to either side of a point, in pitches of the field, it is asked where the inside is.
_STEP = 1.5
#: Points on one side that a normal is fitted to at least; with fewer, both sides count.
_FEWEST = 5


def normals_of(
    points: ArrayLike, *, neighbours: int = 16, resolution: int = 128, field: SolidField | None = None
) -> Floats:
    """Unit normals of points on the surface of a solid, outward.

    The direction is that in which a point and its nearest neighbours spread least (Hoppe et al. 1992, section 3.2).
    Which way is out is read off the solid that the cloud encloses
    (:func:`~recon_toolkit.shapes.field.solid_field`): it is less deep in front of a point than behind it, by as much
    as the point is off the middle. So no sign has to be carried from point to point, and both sides of a thin part
    get their own.

    Args:
        points: (N, 3), at least 100 different ones.
        neighbours: points that a normal is fitted to, besides its own; 2 or more.
        resolution: of the field, nodes along the longest side.
        field: of these points, where there is one already.

    Returns:
        (N, 3).

    Raises:
        DataError: the points are too few, lie on a plane or a line, or one is not finite.
        ValueError: an argument is out of range.
    """
    from scipy.spatial import cKDTree

    if neighbours < 2:
        raise ValueError(f"a normal takes 2 neighbours or more, not {neighbours}")
    places = Cloud(np.asarray(points)).points
    if len(places) <= neighbours:
        raise DataError(f"{len(places)} points are too few for {neighbours} neighbours", remedy="use a denser cloud")
    field = solid_field(places, resolution=resolution) if field is None else field
    _, nearest = cKDTree(places).query(places, k=neighbours + 1, workers=-1)
    # The far side of a thin part is near, but the solid falls off the other way there.
    steps = field.pitch * np.eye(3)
    slope = np.stack([field.at(places - step) - field.at(places + step) for step in steps], axis=1)
    same = np.einsum("nki,ni->nk", slope[nearest], slope) > 0
    same |= same.sum(axis=1, keepdims=True) < _FEWEST
    weights = (same / same.sum(axis=1, keepdims=True))[..., None]
    around = places[nearest] - (places[nearest] * weights).sum(axis=1, keepdims=True)
    _, axes = np.linalg.eigh(np.einsum("nki,nkj->nij", around * weights, around))
    normals = axes[:, :, 0]
    step = _STEP * field.pitch * normals
    inward = field.at(places + step) > field.at(places - step)
    return np.asarray(np.where(inward[:, None], -normals, normals))
