"""Points on a mesh, evenly by area."""

from __future__ import annotations

import numpy as np

from recon_toolkit.errors import DataError
from recon_toolkit.shapes.forms import Cloud, Mesh


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
