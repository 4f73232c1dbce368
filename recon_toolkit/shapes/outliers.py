"""Points that lie apart from the rest of their cloud."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from recon_toolkit.errors import DataError
from recon_toolkit.shapes.forms import Cloud, Mask


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
