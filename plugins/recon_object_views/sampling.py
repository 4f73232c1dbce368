"""Points on a mesh, evenly by area."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from recon_object_views.solids import Floats


def sample_surface(vertices: Floats, faces: NDArray[np.integer], count: int, rng: Generator) -> NDArray[np.float32]:
    """Points drawn evenly from a mesh's surface, (count, 3).

    Strata of equal area have a point each, so that few points cover all of it.

    Args:
        vertices: (V, 3).
        faces: (F, 3).
        count: how many.
        rng: the only source of chance.

    Raises:
        ValueError: the mesh has no area.
    """
    a, b, c = (vertices[faces[:, k]].astype(np.float64) for k in range(3))
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1) / 2
    total = np.cumsum(area)
    if not len(total) or not 0 < total[-1] < np.inf:
        raise ValueError("a mesh without area has no points to draw")
    at = (np.arange(count) + rng.random(count)) / count * total[-1]
    face = np.minimum(np.searchsorted(total, at, side="right"), len(total) - 1)
    # The square folded into a triangle (Osada et al. 2002): √r spreads evenly from one corner.
    r, s = np.sqrt(rng.random(count))[:, None], rng.random(count)[:, None]
    points = a[face] * (1 - r) + b[face] * (r * (1 - s)) + c[face] * (r * s)
    return np.asarray(points, dtype=np.float32)
