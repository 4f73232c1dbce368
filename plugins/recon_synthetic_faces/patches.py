"""Coloured rectangles painted onto the face: an albedo that is not symmetric (after Wu et al. 2020, Table 4).

Sizes of 20 to 50 % and weights of 0.5 to 1 are the paper's as we remember them, not checked against it. There they are
shares of the picture; here of the face's width, and the patches lie on the head's surface, so that they turn with it
and are shaded like skin. How many the paper paints is not known to us.
"""

from __future__ import annotations

import colorsys
import math
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.random import Generator
from numpy.typing import NDArray

from recon_synthetic_faces.noise import step

#: Width of the face, and arc around the head per radian (its mean radius in front), millimetres on the template.
_FACE_WIDTH, _ARC = 140.0, 85.0
#: Where the middles of the patches lie: within ± this along the arc, and between these heights (brow to chin), mm.
_ACROSS, _DOWN = 60.0, (-45.0, 95.0)


@dataclass(frozen=True)
class Patches:
    """How many patches a face has, and the ranges of their sides (shares of its width) and blending weights."""

    count: int
    size: tuple[float, float]
    opacity: tuple[float, float]


def draw_patches(scene: NDArray[np.void], rng: Generator, patches: Patches) -> None:
    """Fill the fields ``patch*`` of a scene with random patches."""
    scene["patches"] = patches.count
    for n in range(patches.count):
        scene["patch"][n] = (
            rng.uniform(-_ACROSS, _ACROSS), rng.uniform(*_DOWN),
            rng.uniform(*patches.size) * _FACE_WIDTH / 2, rng.uniform(*patches.size) * _FACE_WIDTH / 2,
            rng.uniform(0, math.pi),
        )  # fmt: skip
        scene["patch_colour"][n] = colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.2, 1.0), rng.uniform(0.1, 1.0))
        scene["patch_opacity"][n] = rng.uniform(*patches.opacity)


@njit(nogil=True)
def paint_patches(theta, y, p, out):  # type: ignore[no-untyped-def]
    """Blend the scene's patches over the albedo ``out`` (RGB) at an angle around the head and a height."""
    for n in range(p.patches):
        across, down = _ARC * theta - p.patch[n, 0], y - p.patch[n, 1]
        c, s = math.cos(p.patch[n, 4]), math.sin(p.patch[n, 4])
        inside = min(p.patch[n, 2] - abs(across * c + down * s), p.patch[n, 3] - abs(down * c - across * s))
        amount = p.patch_opacity[n] * step(-0.8, 0.8, inside)
        if amount > 0.0:
            for k in range(3):
                out[k] += (p.patch_colour[n, k] - out[k]) * amount
