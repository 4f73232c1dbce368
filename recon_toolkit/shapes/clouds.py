"""A raw cloud made ready for use."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from recon_toolkit.shapes.contour import contour
from recon_toolkit.shapes.field import SolidField, solid_field
from recon_toolkit.shapes.forms import Cloud, Mesh
from recon_toolkit.shapes.normals import normals_of
from recon_toolkit.shapes.outliers import without_outliers


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
        """The closed surface: watertight, outward, manifold; see :func:`~recon_toolkit.shapes.solidify.solid_of`."""
        return contour(self.field.values, self.field.origin, self.field.pitch)
