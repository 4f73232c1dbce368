"""A raw cloud made ready for use."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from recon_toolkit.shapes.forms import Cloud
from recon_toolkit.shapes.normals import normals_of
from recon_toolkit.shapes.outliers import without_outliers


def cleaned(points: ArrayLike) -> Cloud:
    """Points (N, 3) without outliers and with outward normals.

    Raises:
        DataError: there are too few of them.
    """
    places = np.asarray(points, dtype=np.float64)
    kept = places[without_outliers(places)]
    return Cloud(kept, normals_of(kept))
